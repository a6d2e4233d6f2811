"""Fusion rules: all, near, large."""

from __future__ import annotations

import pytest

from gliomark.errors import GliomarkError
from gliomark.inference.fusion import fuse_probabilities, select_deciding_slices

PLACES, AREAS, P = [4, 5, 6, 7, 9], [100.0, 300.0, 700.0, 200.0, 650.0], [0.1, 0.2, 0.6, 0.7, 0.9]


@pytest.mark.parametrize(
    ("rule", "decide", "probability"),
    [("all", [0, 1, 2, 3, 4], 0.5), ("near", [1, 2, 3], 0.5), ("large", [2], 0.6)],
)
def test_rules(rule, decide, probability) -> None:
    assert select_deciding_slices(PLACES, AREAS, rule) == decide
    assert fuse_probabilities(PLACES, AREAS, P, rule) == pytest.approx(probability)


def test_ties_go_to_the_lower_slice() -> None:
    places, areas = [2, 3, 8, 9], [50.0, 90.0, 90.0, 20.0]
    assert select_deciding_slices(places, areas, "large") == [1]
    assert select_deciding_slices(places, areas, "near") == [0, 1]


@pytest.mark.parametrize(
    ("places", "areas", "near"),
    [
        ([3, 5, 7], [1.0, 9.0, 1.0], [1]),  # both neighbours without lesion
        ([4, 5, 8], [1.0, 9.0, 1.0], [0, 1]),  # upper neighbour without lesion
        ([0, 1, 2], [9.0, 1.0, 1.0], [0, 1]),  # no lower neighbour
        ([18, 19], [1.0, 9.0], [0, 1]),  # no upper neighbour
        ([19], [9.0], [0]),
    ],
)
def test_missing_neighbours_are_left_out(places, areas, near) -> None:
    assert select_deciding_slices(places, areas, "near") == near
    assert fuse_probabilities(places, areas, [0.25] * len(places), "near") == 0.25


def test_one_slice_makes_all_rules_alike() -> None:
    assert {fuse_probabilities([7], [80.0], [0.3], rule) for rule in ("all", "near", "large")} == {0.3}


def test_unknown_rule_is_refused() -> None:
    with pytest.raises(GliomarkError, match="median"):
        select_deciding_slices(PLACES, AREAS, "median")  # type: ignore[arg-type]
