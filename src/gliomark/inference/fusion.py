"""From slices to the patient (METHOD section 4, table 4-6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from gliomark.study import GliomarkError

FusionRule = Literal["near", "all", "large"]


def deciding_slices(places: Sequence[int], areas: Sequence[float], rule: FusionRule) -> list[int]:
    """Which lesion slices decide, as positions in ``places``.

    places: each lesion slice's number among the K selected, ascending; areas: its lesion area. All:
    every one. Large: the largest lesion's, the lower slice where two are equal. Near: that one and its
    two neighbours; a neighbour without lesion or past the end is left out.
    """
    if rule not in get_args(FusionRule):
        raise GliomarkError(f"The fusion rule '{rule}' is unknown; it must be near, all or large.")
    if rule == "all":
        return list(range(len(places)))
    largest = int(np.argmax(areas))
    if rule == "large":
        return [largest]
    return [i for i, place in enumerate(places) if abs(place - places[largest]) <= 1]


def patient_probability(
    places: Sequence[int], areas: Sequence[float], probabilities: Sequence[float], rule: FusionRule
) -> float:
    """Mean probability of the deciding slices."""
    return float(np.mean([probabilities[i] for i in deciding_slices(places, areas, rule)]))
