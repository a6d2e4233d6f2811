"""Fusion rules: all, near, large."""

from __future__ import annotations

import pytest

from gliomark.errors import GliomarkError
from gliomark.inference.fusion import fuse_probabilities, select_deciding_slices

INDICES, AREAS, P = [4, 5, 6, 7, 9], [100.0, 300.0, 700.0, 200.0, 650.0], [0.1, 0.2, 0.6, 0.7, 0.9]


@pytest.mark.parametrize(
    ("rule", "deciding", "probability"),
    [("all", [0, 1, 2, 3, 4], 0.5), ("near", [1, 2, 3], 0.5), ("large", [2], 0.6)],
)
def test_each_rule_selects_and_fuses_its_slices(rule, deciding, probability) -> None:
    assert select_deciding_slices(INDICES, AREAS, rule) == deciding
    assert fuse_probabilities(INDICES, AREAS, P, rule) == pytest.approx(probability)


def test_ties_go_to_the_lower_slice() -> None:
    indices, areas = [2, 3, 8, 9], [50.0, 90.0, 90.0, 20.0]
    assert select_deciding_slices(indices, areas, "large") == [1]
    assert select_deciding_slices(indices, areas, "near") == [0, 1]


@pytest.mark.parametrize(
    ("indices", "areas", "near"),
    [
        ([3, 5, 7], [1.0, 9.0, 1.0], [1]),  # both neighbours without lesion
        ([4, 5, 8], [1.0, 9.0, 1.0], [0, 1]),  # upper neighbour without lesion
        ([0, 1, 2], [9.0, 1.0, 1.0], [0, 1]),  # no lower neighbour
        ([18, 19], [1.0, 9.0], [0, 1]),  # no upper neighbour
        ([19], [9.0], [0]),
    ],
)
def test_missing_neighbours_are_left_out(indices, areas, near) -> None:
    assert select_deciding_slices(indices, areas, "near") == near
    assert fuse_probabilities(indices, areas, [0.25] * len(indices), "near") == 0.25


def test_all_rules_agree_for_one_slice() -> None:
    assert {fuse_probabilities([7], [80.0], [0.3], rule) for rule in ("all", "near", "large")} == {0.3}


def test_unknown_rule_is_refused() -> None:
    with pytest.raises(GliomarkError, match="median"):
        select_deciding_slices(INDICES, AREAS, "median")  # type: ignore[arg-type]
