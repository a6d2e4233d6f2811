"""Fuse slice probabilities into a patient probability (method.md, section 4, table 4-6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from gliomark.errors import ConfigurationError
from gliomark.messages import message

FusionRule = Literal["near", "all", "large"]


def check_fusion_rule(rule: object) -> None:
    """Check that a value is one of the three fusion rules.

    Raises
    ------
    ConfigurationError
        If it is not.
    """
    if rule not in get_args(FusionRule):
        raise ConfigurationError(message("fusion-unknown", given=repr(rule)))


def select_deciding_slices(
    neighbour_index: Sequence[int], areas: Sequence[float], rule: FusionRule
) -> list[int]:
    """Select the lesion slices whose probabilities are averaged.

    Parameters
    ----------
    neighbour_index
        Position of each lesion slice among the slices that count as neighbours, ascending: all slices of the patient
        in a prediction, the K selected ones in training.
    areas
        Lesion area of each slice; only the order matters.
    rule
        "all": every lesion slice; "large": the slice with the largest lesion, the lower one of equals; "near": the
        slice with the largest lesion and its two neighbours, as far as these exist and show lesion.

    Returns
    -------
    list of int
        Positions in ``neighbour_index``.

    Raises
    ------
    ConfigurationError
        If the rule is unknown.
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
    """Return the mean probability, 0 to 1, of the slices selected by the rule; see ``select_deciding_slices``."""
    return float(np.mean([probabilities[i] for i in select_deciding_slices(neighbour_index, areas, rule)]))


def describe_fusion(rule: FusionRule, slice_count: int) -> str:
    """Return a message that describes how the probabilities of ``slice_count`` slices were fused."""
    if rule == "near":
        return message(f"fusion-near-{slice_count}")
    return message("fusion-all", count=slice_count) if rule == "all" else message("fusion-large")
