"""What is said of patients that a model was not trained on: the right sentence, and a refusal where one is due."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from tests.known_range.conftest import PAIR, draw_head

from gliomark.experiments.unusual_inputs import alterations
from gliomark.known_range import KnownRange, check_patient, wrong_images
from gliomark.known_range.check import _describe_outside
from gliomark.study import MRSequence, SliceStack

T1C, FLAIR = PAIR


def show_as(shown: str, name: MRSequence) -> Callable[[SliceStack], SliceStack]:
    def replace_by(stack: SliceStack) -> SliceStack:
        other = draw_head(int(stack.patient_id[1:]), (shown,)).images[MRSequence(shown)]
        return replace(stack, images={**stack.images, name: other})

    return replace_by


REFUSED = {
    "sequences swapped": (lambda s: wrong_images.swap_sequences(s, PAIR), "range-swapped"),
    "T1C twice": (lambda s: alterations.show_twice(s, T1C), "range-same-image"),
    "FLAIR twice": (lambda s: alterations.show_twice(s, FLAIR), "range-same-image"),
    "FLAIR and its negative": (
        lambda s: wrong_images.invert(alterations.show_twice(s, FLAIR), T1C),
        "range-same-image",
    ),
    "T1C inverted": (lambda s: wrong_images.invert(s, T1C), "range-inverted"),
    "FLAIR inverted": (lambda s: wrong_images.invert(s, FLAIR), "range-inverted"),
    "T2 as FLAIR": (show_as("T2", FLAIR), "range-fluid-bright"),
    "T2 as T1C": (show_as("T2", T1C), "range-fluid-bright"),
    "T1 as T1C": (show_as("T1", T1C), "range-no-contrast-agent"),
    "CT as T1C": (
        lambda s: wrong_images.simulate_ct(s, (T1C,), seed=1),
        "range-computed-tomography",
    ),
    "CT as both": (
        lambda s: wrong_images.simulate_ct(s, PAIR, seed=1),
        "range-computed-tomography",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_images_that_are_not_what_they_are_called_are_refused(known_range: KnownRange, kind: str) -> None:
    alter, code = REFUSED[kind]
    stack = alter(draw_head(101))
    check = check_patient(known_range, stack, stack.reader_mask)
    assert check.is_refused and check.score is not None and check.score >= 1
    (reason,) = check.findings
    assert reason.code == code, reason


def test_patients_like_the_training_patients_are_seldom_refused(known_range: KnownRange) -> None:
    checks = [check_patient(known_range, s, s.reader_mask) for s in map(draw_head, range(200, 210))]
    assert sum(check.is_refused for check in checks) <= 1
    assert sum(check.result == "in range" for check in checks) >= 5


UNUSUAL = {
    "a child's head": (lambda s: replace(s, affine=np.diag([0.85, 0.85, 5.1, 1.0])), "brain volume"),
    "a displaced sequence": (lambda s: alterations.shift(s, T1C, 3, 0), "displaced by"),
    "thick slices": (lambda s: replace(s, affine=np.diag([1.0, 1.0, 9.0, 1.0])), "slice spacing"),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_an_unusual_head_gives_a_message(known_range: KnownRange, kind: str) -> None:
    alter, words = UNUSUAL[kind]
    stack = alter(draw_head(102))
    check = check_patient(known_range, stack, stack.reader_mask)
    assert any(words in finding for finding in check.findings), (check.result, check.findings)


@pytest.mark.parametrize("kind", ["a child's head", "thick slices"])
def test_an_assumed_spacing_is_not_compared(known_range: KnownRange, kind: str) -> None:
    """The pixel size and slice spacing of pictures are unknown, and so are volumes."""
    alter, words = UNUSUAL[kind]
    stack = alter(draw_head(102))
    check = check_patient(known_range, stack, stack.reader_mask, is_spacing_assumed=True)
    assert not any(words in finding or " ml" in finding for finding in check.findings), check.findings


LESIONS = {
    "several": (
        lambda s: draw_spheres(s, [(-40, -30), (40, 30), (-40, 30), (40, -30)], 10),
        "separate lesions is 4",
    ),
    "a large one": (lambda s: draw_spheres(s, [(0, 0)], 55), "lesion volume is"),
}


def draw_spheres(stack: SliceStack, centres: list[tuple[int, int]], radius: float) -> np.ndarray:
    rows, columns = np.indices(stack.brain.shape[1:]) - 119.5
    discs = [np.hypot(rows - row, columns - column) < radius for row, column in centres]
    return np.logical_or.reduce(discs) & stack.brain


@pytest.mark.parametrize("kind", LESIONS)
def test_an_unusual_lesion_gives_a_message_and_no_refusal(known_range: KnownRange, kind: str) -> None:
    draw, words = LESIONS[kind]
    stack = draw_head(103)
    check = check_patient(known_range, stack, draw(stack))
    assert check.result == "unusual"
    assert any(words in finding for finding in check.findings), check.findings


@pytest.mark.parametrize(
    ("name", "value", "limits", "is_stated"),
    [
        ("slice_mm", 6.000000024, (1.7, 6.0), False),
        ("slice_mm", 6.1, (1.7, 6.0), True),
        ("volume_ml", 10.4849, (10.51, 277.4), False),
        ("volume_ml", 10.4, (10.51, 277.4), True),
        ("brain_ml", 2249.3, (858.2, 2249.0), False),
        ("brain_ml", 2251.0, (858.2, 2249.0), True),
    ],
)
def test_a_value_that_reads_like_the_limit_is_inside(
    known_range: KnownRange, name: str, value: float, limits: tuple[float, float], is_stated: bool
) -> None:
    assert (_describe_outside(name, value, limits, known_range) is not None) == is_stated


def test_without_statistics_or_with_other_sequences_nothing_is_checked(known_range: KnownRange) -> None:
    stack = draw_head(104)
    assert check_patient(None, stack, stack.reader_mask).result == "not checked"
    other = draw_head(104, ("T1C", "T2"))
    assert check_patient(known_range, other, other.reader_mask).result == "not checked"


def test_grey_scale_and_order_of_sequences_do_not_matter(known_range: KnownRange) -> None:
    stack = draw_head(105)
    expected = check_patient(known_range, stack, stack.reader_mask).score
    scaled = {name: 40 * image + 300 for name, image in reversed(stack.images.items())}
    score = check_patient(known_range, replace(stack, images=scaled), stack.reader_mask).score
    assert score == pytest.approx(expected, rel=1e-3)
