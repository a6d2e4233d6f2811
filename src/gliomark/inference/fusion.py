"""From slices to the patient (METHOD section 4, table 4-6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from gliomark.messages import message
from gliomark.study import GliomarkError

FusionRule = Literal["near", "all", "large"]


def check_fusion(rule: object) -> None:
    """Raise GliomarkError for anything but the three rules."""
    if rule not in get_args(FusionRule):
        raise GliomarkError(message("fusion-unknown", given=repr(rule)))


def deciding_slices(index: Sequence[int], areas: Sequence[float], rule: FusionRule) -> list[int]:
    """Which lesion slices decide, as positions in ``index``.

    index: each lesion slice's number among the slices that count as neighbours, ascending: all of the patient's own
    in a prediction, the K selected in training; areas: its lesion area. All: every one. Large: the largest lesion's,
    the lower slice where two are equal. Near: that one and its two neighbours; a neighbour without lesion or past the
    end is left out. Raises GliomarkError for another rule.
    """
    check_fusion(rule)
    if rule == "all":
        return list(range(len(index)))
    largest = int(np.argmax(areas))
    if rule == "large":
        return [largest]
    return [i for i, number in enumerate(index) if abs(number - index[largest]) <= 1]


def patient_probability(
    index: Sequence[int], areas: Sequence[float], probabilities: Sequence[float], rule: FusionRule
) -> float:
    """Mean probability of the deciding slices."""
    return float(np.mean([probabilities[i] for i in deciding_slices(index, areas, rule)]))


def fusion_in_words(rule: FusionRule, count: int) -> str:
    """How so many deciding slices became one probability, as a message."""
    if rule == "near":
        return message(f"fusion-near-{count}")
    return message("fusion-all", count=count) if rule == "all" else message("fusion-large")
