"""The covered share of the brain is measured and reported, also if no lesion is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gliomark.messages import Message, render_message
from gliomark.preprocessing import prepare
from gliomark.preprocessing.brain_coverage import format_no_lesion_message
from gliomark.study import MRSequence, Series, SliceStack, Study

T1C, FLAIR = MRSequence.T1C, MRSequence.FLAIR
HALF_HEIGHT = 55.0  # mm, of the ellipsoid that represents a brain
SPACING, SHAPE = (2.0, 2.0, 4.0), (34, 110, 90)  # 136 mm high


def crop_slices(series: Series, low: float, high: float) -> Series:
    """Keep only the slices whose centre is between ``low`` and ``high`` mm."""
    z = series.affine[2, 3] + series.affine[2, 2] * np.arange(len(series.image))
    kept = np.flatnonzero((z >= low) & (z <= high))
    affine = series.affine.copy()
    affine[2, 3] = z[kept[0]]
    names = tuple(series.slice_names[at] for at in kept)
    return replace(series, image=series.image[kept], affine=affine, slice_names=names)


def compute_share_below(z: float) -> float:
    """Compute the share of an ellipsoid's volume below a height ``z``, in mm from its centre."""
    h = np.clip(z / HALF_HEIGHT, -1, 1)
    return float(0.5 + 0.75 * h - 0.25 * h**3)


@pytest.fixture
def prepare_covering(make_brain_series):
    """prepared(T1C=(low, high), FLAIR=(low, high)): a stack whose sequences cover those heights in mm."""

    def prepare_stack(**covered_mm: tuple[float, float]) -> SliceStack:
        series = {
            T1C: make_brain_series(SPACING, SHAPE),
            FLAIR: make_brain_series(SPACING, SHAPE, contrast=True),
        }
        for name, (low, high) in covered_mm.items():
            series[MRSequence(name)] = crop_slices(series[MRSequence(name)], low, high)
        return prepare(Study("p", series, Path("p"), "volumes", aligned=True), (T1C, FLAIR))

    return prepare_stack


def test_complete_coverage_gives_no_warning(prepare_covering):
    stack = prepare_covering()
    assert stack.coverage == {T1C: 1.0, FLAIR: 1.0} and stack.examined == 1.0
    assert stack.warnings == () and format_no_lesion_message(stack.examined).code == "no-lesion"


@pytest.mark.parametrize("name, low, high, part", [
    ("T1C", -100, 0, "the top"), ("T1C", -100, 20, "the top"), ("T1C", -10, 100, "the bottom"),
    ("T1C", -25, 25, "top and bottom"), ("FLAIR", -100, 10, "the top"), ("FLAIR", 0, 100, "the bottom"),
    ("FLAIR", -30, 30, "top and bottom"),
])  # fmt: skip
def test_partial_coverage_is_measured_and_reported(
    prepare_covering, name: str, low: float, high: float, part: str
):
    stack = prepare_covering(**{name: (low, high)})
    # a slab extends half a slice beyond the centres of its outer slices, which are 2 mm off multiples of 4 mm
    z = stack.affine[2, 3] + stack.affine[2, 2] * np.arange(len(stack.brain))
    expected = compute_share_below(z[-1] + 2) - compute_share_below(z[0] - 2)
    other = FLAIR if name == "T1C" else T1C
    assert stack.coverage[MRSequence(name)] == pytest.approx(expected, abs=0.02)
    assert stack.coverage[other] == 1.0 and stack.examined == pytest.approx(expected, abs=0.02)
    (warning,) = stack.warnings
    percent = f"{100 * stack.coverage[MRSequence(name)]:.0f}"
    assert warning.startswith(f"{name} covers only {percent} % of the brain (missing: {part})")
    assert isinstance(warning, Message) and f"{percent} %" in render_message(warning, "zh")


@pytest.mark.parametrize("covered_mm", [
    {"T1C": (-100, 10), "FLAIR": (-100, 10)}, {"T1C": (-10, 100), "FLAIR": (-10, 100)},
    {"T1C": (-20, 20), "FLAIR": (-20, 20)},
])  # fmt: skip
def test_a_warning_is_given_if_all_images_end_within_the_brain(
    prepare_covering, covered_mm: dict[str, tuple[float, float]]
):
    stack = prepare_covering(**covered_mm)
    assert stack.examined is None
    assert stack.warnings[-1].startswith("The images do not cover the whole brain")
    assert format_no_lesion_message(stack.examined).code == "no-lesion-in-part-shown"


@pytest.mark.parametrize(
    "t1c, flair", [((-100, 20), (-20, 100)), ((-20, 100), (-100, 20)), ((-30, 100), (-100, 0))]
)
def test_only_the_region_covered_by_both_is_examined(
    prepare_covering, t1c: tuple[float, float], flair: tuple[float, float]
):
    stack = prepare_covering(T1C=t1c, FLAIR=flair)
    z = stack.affine[2, 3] + stack.affine[2, 2] * np.arange(len(stack.brain))
    assert z[0] >= max(t1c[0], flair[0]) and z[-1] <= min(t1c[1], flair[1])
    assert stack.warnings and stack.examined != 1.0
    for image in stack.images.values():  # no zeros from outside a field of view in the brain
        assert image[stack.brain].std() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("name", ["T1C", "FLAIR"])
@pytest.mark.parametrize("low", [-52, -48, -46])
def test_a_few_missing_slices_give_no_warning(prepare_covering, name: str, low: float):
    stack = prepare_covering(**{name: (low, 100)})
    assert stack.examined is not None and stack.examined > 0.95 and stack.warnings == ()


@pytest.mark.parametrize("examined, expected_text", [
    (1.0, "No lesion was found; no marker is predicted."), (0.96, "No lesion was found; no marker is predicted."),
    (0.48, "No lesion was found in the 48 % of the brain that the images cover"),
    (None, "No lesion was found in the part of the brain that the images cover"),
])  # fmt: skip
def test_no_lesion_is_reported_only_for_the_examined_part(examined: float | None, expected_text: str):
    assert format_no_lesion_message(examined).startswith(expected_text)
