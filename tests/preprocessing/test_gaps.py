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
Region = tuple[slice | int, slice | int, slice | int]


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


def get_notes(series: Series, brain: sitk.Image, stripped: bool = False) -> tuple[Message, ...]:
    study = Study("a", {FLAIR: series}, Path("patient"), "volumes")
    return check_missing_data(
        study, brain, {FLAIR: sitk.Transform(3, sitk.sitkIdentity)}, (FLAIR,) if stripped else ()
    )


def get_error_message(series: Series, brain: sitk.Image, stripped: bool = False) -> Message:
    with pytest.raises(GliomarkError) as caught:
        get_notes(series, brain, stripped)
    text = caught.value.message
    assert (
        isinstance(text, Message)
        and "flair.nii" in text
        and "FLAIR" in text
        and render_message(text, "zh") != text
    )
    return text


def set_values(series: Series, region: Region, value: float) -> Series:
    image = series.image.copy()
    image[region] = value
    return replace(series, image=image)


def mark_missing(series: Series, *regions: Region) -> Series:
    missing = np.zeros(series.image.shape, dtype=bool)
    for region in regions:
        missing[region] = True
    return replace(series, image=np.where(missing, series.image.min(), series.image), missing=missing)


def test_a_complete_image_gives_no_note(head, brain) -> None:
    assert get_notes(head, brain) == ()


@pytest.mark.parametrize("value", [0.0, 77.0, -3.0])
@pytest.mark.parametrize("slices", [(0,), (0, 1, 2), (29,), (1, 28)])
def test_an_empty_slice_outside_the_brain_is_noted(
    head, brain, value: float, slices: tuple[int, ...]
) -> None:
    for at in slices:
        head = set_values(head, (at, slice(None), slice(None)), value)
    (note,) = get_notes(head, brain)
    assert "background" in note and all(f"{at + 1:03d}" in note for at in slices)


@pytest.mark.parametrize("value", [0.0, 77.0, 500.0])
@pytest.mark.parametrize("at", [7, 15, 22])
@pytest.mark.parametrize("stripped", [False, True])
def test_an_empty_slice_within_the_brain_is_refused(
    head, brain, value: float, at: int, stripped: bool
) -> None:
    message = get_error_message(set_values(head, (at, slice(None), slice(None)), value), brain, stripped)
    assert f"slice {at + 1:03d}" in message


@pytest.mark.parametrize("ends", [slice(20, None), slice(0, 10)])
def test_a_stripped_series_that_ends_early_is_noted(head, brain, ends: slice) -> None:
    """Images resampled to an atlas end early; in an image with a skull this is damage."""
    short = set_values(head, (ends, slice(None), slice(None)), 0)
    (note,) = get_notes(short, brain, stripped=True)
    assert "not examined" in note
    get_error_message(short, brain)


@pytest.mark.parametrize("region", [
    (15, 35, 30), (15, slice(30, 40), slice(25, 35)), (slice(10, 20), 35, 30), (15, slice(0, 40), slice(0, 35)),
    (slice(None), slice(0, 35), slice(0, 30)),
], ids=["voxel", "block", "line", "corner of a slice", "quarter"])  # fmt: skip
@pytest.mark.parametrize("stripped", [False, True])
def test_missing_voxels_within_the_brain_are_refused(head, brain, region: Region, stripped: bool) -> None:
    message = get_error_message(mark_missing(head, region), brain, stripped)
    assert "within the brain" in message and "016" in message or "011" in message or "others" in message


@pytest.mark.parametrize("regions", [
    [(15, 1, 1)], [(15, slice(0, 3), slice(0, 60))], [(slice(None), 0, slice(None)), (slice(None), -1, slice(None))],
    [(slice(0, 3), slice(20, 40), slice(20, 40))],
], ids=["voxel", "strip", "two edges", "below the brain"])  # fmt: skip
def test_missing_voxels_outside_the_brain_are_background(head, brain, regions: list[Region]) -> None:
    assert get_notes(mark_missing(head, *regions), brain) == ()


def test_a_non_finite_background_is_accepted_and_a_hole_in_the_brain_refused(
    make_brain_series, brain
) -> None:
    """Some programs write the background as NaN; a hole in the brain is still an error."""
    series = make_brain_series(*GRID)
    masked = replace(series, missing=series.image == 0, source=Path("flair.nii"))
    assert get_notes(masked, brain, stripped=True) == ()
    missing = masked.missing.copy()
    missing[15, 35, 30] = True
    assert "016" in get_error_message(replace(masked, missing=missing), brain, stripped=True)


def test_missing_voxels_are_located_in_a_registered_sequence(head, brain) -> None:
    """transform: from points of the reference to points of the sequence."""
    moved = sitk.TranslationTransform(3, (0.0, 0.0, 200.0))
    study = Study("a", {FLAIR: mark_missing(head, (15, 35, 30))}, Path("p"), "volumes")
    assert check_missing_data(study, brain, {FLAIR: moved}, ()) == ()
    far = replace(head, affine=shift_affine(head.affine, 200.0))
    study = Study("a", {FLAIR: mark_missing(far, (15, 35, 30))}, Path("p"), "volumes")
    with pytest.raises(GliomarkError, match="slice 016"):
        check_missing_data(study, brain, {FLAIR: moved}, ())


def shift_affine(affine: np.ndarray, up_mm: float) -> np.ndarray:
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
def test_non_finite_voxels_are_handled_from_file_to_stack(
    make_brain_series, tmp_path, form: str, value: float
) -> None:
    series = make_brain_series(*GRID)
    for name in ("T1C", "FLAIR"):
        image = series.image.copy()
        image[image == 0] = value
        write(tmp_path / "p" / name, form, image, series.affine)
    expected = prepare(
        Study("a", {T1C: series, FLAIR: series}, Path("a"), "volumes", aligned=True), (T1C, FLAIR)
    )
    spacing = GRID[0] if form == "pictures" else None
    study = replace(read_study(tmp_path / "p", spacing_mm=spacing), aligned=True)
    stack = prepare(study, (T1C, FLAIR))
    # the background is the darkest brain value instead of 0: interpolated voxels at the edge differ
    assert 2 * (stack.brain & expected.brain).sum() / (stack.brain.sum() + expected.brain.sum()) > 0.999
    inside = ndimage.binary_erosion(expected.brain & stack.brain, iterations=3)
    difference = np.abs(stack.images[FLAIR] - expected.images[FLAIR])[inside]
    assert difference.mean() < 0.1
    image_with_hole = series.image.copy()
    image_with_hole[15, 35, 30] = value
    write(tmp_path / "p" / "FLAIR", form, image_with_hole, series.affine)
    with pytest.raises(GliomarkError, match="FLAIR has voxels without a grey value"):
        prepare(replace(read_study(tmp_path / "p", spacing_mm=spacing), aligned=True), (T1C, FLAIR))
