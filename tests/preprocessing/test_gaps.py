"""Slices and voxels without data: background outside the brain, an error inside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from scipy import ndimage

from gliomark.errors import GliomarkError
from gliomark.io import read_study
from gliomark.messages import Message, render_message
from gliomark.preprocessing import prepare
from gliomark.preprocessing.missing_data import check_missing_data
from gliomark.preprocessing.resampling import to_simpleitk_image
from gliomark.study import MRSequence, Series, Study

GRID = ((3.0, 3.0, 5.0), (30, 70, 60))
T1C, FLAIR = MRSequence.T1C, MRSequence.FLAIR
Place = tuple[slice | int, slice | int, slice | int]


@pytest.fixture
def brain(make_brain_series) -> sitk.Image:
    """Brain mask, 0 or 1, on the grid; slices 7 to 22 contain at least 8 cm2 of brain."""
    series = make_brain_series(*GRID)
    return to_simpleitk_image((series.image > 0).astype(np.uint8), series.affine)


@pytest.fixture
def head(make_brain_series) -> Series:
    """The brain in noisy air, so that no slice is empty, as in a head with a skull."""
    series = make_brain_series(*GRID)
    air = np.random.default_rng(1).uniform(1, 9, series.image.shape).astype(np.float32)
    return replace(
        series, image=np.where(series.image > 0, series.image, air), source=Path("patient/flair.nii")
    )


def notes_of(series: Series, brain: sitk.Image, stripped: bool = False) -> tuple[Message, ...]:
    study = Study("a", {FLAIR: series}, Path("patient"), "volumes")
    return check_missing_data(
        study, brain, {FLAIR: sitk.Transform(3, sitk.sitkIdentity)}, (FLAIR,) if stripped else ()
    )


def refusal(series: Series, brain: sitk.Image, stripped: bool = False) -> Message:
    with pytest.raises(GliomarkError) as caught:
        notes_of(series, brain, stripped)
    said = caught.value.message
    assert (
        isinstance(said, Message)
        and "flair.nii" in said
        and "FLAIR" in said
        and render_message(said, "zh") != said
    )
    return said


def with_values(series: Series, place: Place, value: float) -> Series:
    image = series.image.copy()
    image[place] = value
    return replace(series, image=image)


def with_missing(series: Series, *places: Place) -> Series:
    missing = np.zeros(series.image.shape, dtype=bool)
    for place in places:
        missing[place] = True
    return replace(series, image=np.where(missing, series.image.min(), series.image), missing=missing)


def test_a_whole_image_needs_no_words(head, brain) -> None:
    assert notes_of(head, brain) == ()


@pytest.mark.parametrize("value", [0.0, 77.0, -3.0])
@pytest.mark.parametrize("slices", [(0,), (0, 1, 2), (29,), (1, 28)])
def test_an_empty_slice_outside_the_brain_is_said(head, brain, value: float, slices: tuple[int, ...]) -> None:
    for at in slices:
        head = with_values(head, (at, slice(None), slice(None)), value)
    (note,) = notes_of(head, brain)
    assert "background" in note and all(f"{at + 1:03d}" in note for at in slices)


@pytest.mark.parametrize("value", [0.0, 77.0, 500.0])
@pytest.mark.parametrize("at", [7, 15, 22])
@pytest.mark.parametrize("stripped", [False, True])
def test_an_empty_slice_within_the_brain_is_refused(
    head, brain, value: float, at: int, stripped: bool
) -> None:
    message = refusal(with_values(head, (at, slice(None), slice(None)), value), brain, stripped)
    assert f"slice {at + 1:03d}" in message


@pytest.mark.parametrize("ends", [slice(20, None), slice(0, 10)])
def test_a_stripped_series_that_ends_early_is_said(head, brain, ends: slice) -> None:
    """Images resampled to an atlas end early; in an image with a skull this is damage."""
    short = with_values(head, (ends, slice(None), slice(None)), 0)
    (note,) = notes_of(short, brain, stripped=True)
    assert "not examined" in note
    refusal(short, brain)


@pytest.mark.parametrize("place", [
    (15, 35, 30), (15, slice(30, 40), slice(25, 35)), (slice(10, 20), 35, 30), (15, slice(0, 40), slice(0, 35)),
    (slice(None), slice(0, 35), slice(0, 30)),
], ids=["voxel", "block", "line", "corner of a slice", "quarter"])  # fmt: skip
@pytest.mark.parametrize("stripped", [False, True])
def test_missing_voxels_within_the_brain_are_refused(head, brain, place: Place, stripped: bool) -> None:
    message = refusal(with_missing(head, place), brain, stripped)
    assert "within the brain" in message and "016" in message or "011" in message or "others" in message


@pytest.mark.parametrize("places", [
    [(15, 1, 1)], [(15, slice(0, 3), slice(0, 60))], [(slice(None), 0, slice(None)), (slice(None), -1, slice(None))],
    [(slice(0, 3), slice(20, 40), slice(20, 40))],
], ids=["voxel", "strip", "two edges", "below the brain"])  # fmt: skip
def test_missing_voxels_outside_the_brain_are_background(head, brain, places: list[Place]) -> None:
    assert notes_of(with_missing(head, *places), brain) == ()


def test_a_background_of_no_numbers_around_the_brain(make_brain_series, brain) -> None:
    """Some programs write the background as NaN; a hole in the brain is still an error."""
    series = make_brain_series(*GRID)
    around = replace(series, missing=series.image == 0, source=Path("flair.nii"))
    assert notes_of(around, brain, stripped=True) == ()
    holed = around.missing.copy()
    holed[15, 35, 30] = True
    assert "016" in refusal(replace(around, missing=holed), brain, stripped=True)


def test_the_place_is_found_in_a_moved_sequence(head, brain) -> None:
    """transform: from points of the reference to points of the sequence."""
    moved = sitk.TranslationTransform(3, (0.0, 0.0, 200.0))
    study = Study("a", {FLAIR: with_missing(head, (15, 35, 30))}, Path("p"), "volumes")
    assert check_missing_data(study, brain, {FLAIR: moved}, ()) == ()
    far = replace(head, affine=moved_affine(head.affine, 200.0))
    study = Study("a", {FLAIR: with_missing(far, (15, 35, 30))}, Path("p"), "volumes")
    with pytest.raises(GliomarkError, match="slice 016"):
        check_missing_data(study, brain, {FLAIR: moved}, ())


def moved_affine(affine: np.ndarray, up_mm: float) -> np.ndarray:
    moved = affine.copy()
    moved[2, 3] += up_mm
    return moved


# ---- from files -------------------------------------------------------------------------------------


def write(folder: Path, form: str, image: np.ndarray, affine: np.ndarray) -> None:
    """Write one float sequence as a volume or as TIFF pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    if form != "pictures":
        sitk.WriteImage(to_simpleitk_image(image, affine), f"{folder}.{form}")
        folder.rmdir()
        return
    for number, plane in enumerate(image):
        Image.fromarray(plane).save(folder / f"s{number:02d}.tif")


@pytest.mark.parametrize("form", ["pictures", "nii.gz", "mha", "nrrd"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_numbers_from_the_file_to_the_stack(make_brain_series, tmp_path, form: str, value: float) -> None:
    series = make_brain_series(*GRID)
    for name in ("T1C", "FLAIR"):
        image = series.image.copy()
        image[image == 0] = value
        write(tmp_path / "p" / name, form, image, series.affine)
    plain = prepare(
        Study("a", {T1C: series, FLAIR: series}, Path("a"), "volumes", aligned=True), (T1C, FLAIR)
    )
    spacing = GRID[0] if form == "pictures" else None
    study = replace(read_study(tmp_path / "p", spacing_mm=spacing), aligned=True)
    stack = prepare(study, (T1C, FLAIR))
    # the background is the darkest brain value instead of 0: interpolated voxels at the edge differ
    assert 2 * (stack.brain & plain.brain).sum() / (stack.brain.sum() + plain.brain.sum()) > 0.999
    inside = ndimage.binary_erosion(plain.brain & stack.brain, iterations=3)
    difference = np.abs(stack.images[FLAIR] - plain.images[FLAIR])[inside]
    assert difference.mean() < 0.1
    holed = series.image.copy()
    holed[15, 35, 30] = value
    write(tmp_path / "p" / "FLAIR", form, holed, series.affine)
    with pytest.raises(GliomarkError, match="FLAIR has voxels without a grey value"):
        prepare(replace(read_study(tmp_path / "p", spacing_mm=spacing), aligned=True), (T1C, FLAIR))
