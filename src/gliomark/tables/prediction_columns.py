"""Columns of a marker in the tables of predictions that gliomark writes."""

from __future__ import annotations

import re
from collections.abc import Sequence

# each follows the marker's name, as in ``idh_probability``
MARKER_COLUMNS = (
    "probability",
    "level",
    "borderline",
    "raw_probability",
    "possible_levels",
    "coverage",
    "prevalence",
    "fusion",
    "decided_by",
)


def list_prediction_columns(header: Sequence[str]) -> frozenset[str]:
    """List the columns of a table that hold predictions of markers, which are no pathology.

    A marker is recognised by the column of its probability.
    """
    markers = {re.sub(r"(_raw)?_probability$", "", name) for name in header if name.endswith("_probability")}
    own = {f"{marker}_{part}" for marker in markers for part in MARKER_COLUMNS}
    return frozenset(own.intersection(header))
