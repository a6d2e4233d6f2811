"""From slices to the patient (METHOD section 4, table 4-6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from gliomark.messages import message
from gliomark.study import GliomarkError

FusionRule = Literal["near", "all", "large"]


def check_fusion_rule(rule: object) -> None:
    """Raise GliomarkError for anything but the three rules."""
    if rule not in get_args(FusionRule):
        raise GliomarkError(message("fusion-unknown", given=repr(rule)))


def select_deciding_slices(
    neighbour_index: Sequence[int], areas: Sequence[float], rule: FusionRule
) -> list[int]:
    """Which lesion slices decide, as positions in ``index``.

    index: each lesion slice's number among the slices that count as neighbours, ascending: all of the patient's own
    in a prediction, the K selected in training; areas: its lesion area. All: every one. Large: the largest lesion's,
    the lower slice where two are equal. Near: that one and its two neighbours; a neighbour without lesion or past the
    end is left out. Raises GliomarkError for another rule.
    """
    check_fusion_rule(rule)
    if rule == "all":
        return list(range(len(neighbour_index)))
    largest = int(np.argmax(areas))
    if rule == "large":
        return [largest]
    return [i for i, number in enumerate(neighbour_index) if abs(number - neighbour_index[largest]) <= 1]


def fuse_probabilities(
    neighbour_index: Sequence[int], areas: Sequence[float], probabilities: Sequence[float], rule: FusionRule
) -> float:
    """Mean probability of the deciding slices."""
    return float(np.mean([probabilities[i] for i in select_deciding_slices(neighbour_index, areas, rule)]))


def describe_fusion(rule: FusionRule, slice_count: int) -> str:
    """How so many deciding slices became one probability, as a message."""
    if rule == "near":
        return message(f"fusion-near-{slice_count}")
    return message("fusion-all", count=slice_count) if rule == "all" else message("fusion-large")
