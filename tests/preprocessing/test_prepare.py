"""Left and right are kept from file to stack, and masks are mapped back to the original images correctly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from gliomark.errors import GliomarkError
from gliomark.io import read_study
from gliomark.preprocessing import PreparationConfig, prepare
from gliomark.reporting.mask_resampling import resample_mask_to_series
from gliomark.study import MRSequence, Segmentation, SliceStack, Study

GRID = ((2.0, 2.0, 5.0), (30, 110, 90))
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def save_as(series, path: Path, axes: str) -> Path:
    """Save as NIfTI in a storage order such as RAS or PSR."""
    image = nib.Nifti1Image(series.image.transpose(2, 1, 0), LPS_TO_RAS @ series.affine)
    start = nib.orientations.io_orientation(image.affine)
    turn = nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(tuple(axes)))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image.as_reoriented(turn), path)
    assert nib.aff2axcodes(nib.load(path).affine) == tuple(axes)
    return path.parent


def find_block(stack: SliceStack) -> np.ndarray:
    """Find the indices (slice, row, column) of the bright block, ``(n, 3)``."""
    image = stack.images[MRSequence.FLAIR]
    return np.argwhere(image > 0.75 * image.max())


@pytest.fixture
def prepare_stored(make_brain_series, tmp_path):
    def prepare_stack(axes: str) -> SliceStack:
        series = make_brain_series(*GRID, shift=(4.0, -6.0, 3.0))
        folder = save_as(series, tmp_path / axes / "患者 01" / "FLAIR.nii.gz", axes)
        return prepare(read_study(folder), (MRSequence.FLAIR,))

    return prepare_stack


@pytest.mark.parametrize("axes", ["LPS", "RAS", "LAS", "RPI"])
def test_left_stays_left_from_file_to_stack(prepare_stored, block_centre, axes: str) -> None:
    stack = prepare_stored(axes)
    block = find_block(stack)
    assert len(block) > 500
    assert (block[:, 2] > 119.5).all(), "the patient's left is the right half of the image"
    assert (block[:, 1] < 119.5).all(), "anterior is at the top"
    assert block[:, 0].mean() > (len(stack.brain) - 1) / 2, "slices ascend from inferior to superior"
    lps = block[:, ::-1] @ stack.affine[:3, :3].T + stack.affine[:3, 3]
    assert (lps[:, 0] > 0).all()
    assert (np.abs(lps.mean(axis=0) - block_centre) < (1, 1, 3)).all()


@pytest.mark.parametrize("axes", ["RAS", "LAI", "ASL", "PIR"])
def test_storage_order_has_no_effect(prepare_stored, axes: str) -> None:
    stored, other = prepare_stored("LPS"), prepare_stored(axes)
    np.testing.assert_allclose(other.affine, stored.affine, atol=1e-3)
    np.testing.assert_array_equal(other.brain, stored.brain)
    np.testing.assert_allclose(other.images[MRSequence.FLAIR], stored.images[MRSequence.FLAIR], atol=1e-2)
    assert other.slice_names == stored.slice_names and other.selected == stored.selected


def test_the_stack_is_normalised_stripped_and_on_acquired_slices(make_brain_series) -> None:
    series = {MRSequence.FLAIR: make_brain_series((1.0, 1.0, 4.0), (40, 200, 180), shift=(10.0, 5.0, -7.3))}
    stack = prepare(Study("a", series, Path("a"), "volumes"), (MRSequence.FLAIR,), PreparationConfig(k=7))
    image = stack.images[MRSequence.FLAIR]
    assert (
        image.shape == stack.brain.shape == (len(stack.slice_names), 240, 240) and image.dtype == np.float32
    )
    assert abs(image[stack.brain].mean()) < 1e-3 and abs(image[stack.brain].std() - 1) < 1e-3
    assert (image[~stack.brain] == image.min()).all()
    assert any("skull-stripped" in note for note in stack.notes)
    acquired = series[MRSequence.FLAIR].affine[2, 3] + 4.0 * np.arange(40)
    steps = [int(name) - 1 for name in stack.slice_names]
    stack_positions = stack.affine[2, 3] + stack.affine[2, 2] * np.arange(len(steps))
    np.testing.assert_allclose(stack_positions, acquired[steps], atol=1e-6)
    assert len(stack.selected) == 7 and stack.brain[[0, -1]].any(axis=(1, 2)).all()
    assert stack.selected[0] == 0 and stack.selected[-1] == len(steps) - 1
    assert stack.pixel_area_mm2 == pytest.approx(1.0) and stack.voxel_volume_ml == pytest.approx(0.004)
    litres = stack.brain.sum() * stack.voxel_volume_ml / 1000
    assert litres == pytest.approx(1.37, abs=0.05)


def test_the_error_names_missing_and_available_sequences(make_brain_series) -> None:
    series = {MRSequence.T1: make_brain_series(*GRID), MRSequence.FLAIR: make_brain_series(*GRID)}
    with pytest.raises(GliomarkError) as caught:
        prepare(Study("a", series, Path("folder 01"), "volumes"), (MRSequence.T1C, MRSequence.T2))
    missing, found = str(caught.value).split("found")
    assert "T1C" in missing and "T2" in missing and "folder 01" in missing
    assert "FLAIR" in found and "T1" in found and "T1C" not in found and "\n" not in str(caught.value)


@pytest.fixture
def picture_study(make_brain_series, compute_points, block_centre, tmp_path) -> Study:
    """A picture folder of 8-bit PNGs, the head off-centre, with a left anterior sphere of 32 mm as lesion."""
    series = make_brain_series((0.9375, 0.9375, 6.0), (24, 256, 256), shift=(9.3, -7.7, 2.5))
    points = compute_points(series.affine, series.image.shape)
    ball = np.linalg.norm(points - block_centre, axis=-1) < 16
    for name, image in {"T1c": series.image, "FLAIR": series.image, "mask": ball * 255.0}.items():
        (tmp_path / "p 01" / name).mkdir(parents=True)
        for index, pixels in enumerate(image):
            Image.fromarray(pixels.round().astype(np.uint8)).save(
                tmp_path / "p 01" / name / f"s{index:02d}.png"
            )
    return read_study(tmp_path / "p 01")


def test_a_picture_mask_is_mapped_to_the_stack_and_back_to_its_slices(picture_study) -> None:
    stack = prepare(picture_study, (MRSequence.T1C, MRSequence.FLAIR))
    assert picture_study.lesion is not None and stack.lesion is not None
    assert stack.lesion.any() and stack.lesion[:, :, :120].sum() == 0, "the lesion is on the patient's left"
    segmentation = Segmentation(stack.lesion.astype(np.float32), stack.lesion, "truth")
    back = resample_mask_to_series(stack, segmentation, picture_study.series[MRSequence.FLAIR]) > 0
    truth = picture_study.lesion.image > 0
    slices = np.flatnonzero(truth.any(axis=(1, 2)))
    np.testing.assert_array_equal(np.flatnonzero(back.any(axis=(1, 2))), slices)
    dice = 2 * (back & truth).sum(axis=(1, 2)) / np.maximum(1, (back.astype(int) + truth).sum(axis=(1, 2)))
    assert 2 * (back & truth).sum() / (back.sum() + truth.sum()) > 0.97
    assert (dice[slices] > 0.95).all()
    # each slice of the stack has the name of its picture
    with_lesion = [stack.slice_names[i] for i in np.flatnonzero(stack.lesion.any(axis=(1, 2)))]
    assert with_lesion == [f"s{i:02d}" for i in slices]


def test_a_mirrored_picture_mirrors_the_stack(picture_study) -> None:
    """Preprocessing treats left and right equally."""

    def mirror_series(series):
        return replace(series, image=np.ascontiguousarray(series.image[:, :, ::-1]))

    series = {name: mirror_series(one) for name, one in picture_study.series.items()}
    other = replace(picture_study, series=series, lesion=mirror_series(picture_study.lesion))
    original, mirrored_stack = (
        prepare(study, (MRSequence.T1C, MRSequence.FLAIR)) for study in (picture_study, other)
    )
    assert mirrored_stack.lesion[:, :, 120:].sum() == 0 and mirrored_stack.lesion.any()
    image, mirror = original.images[MRSequence.FLAIR], mirrored_stack.images[MRSequence.FLAIR][:, :, ::-1]
    assert np.corrcoef(image.ravel(), mirror.ravel())[0, 1] > 0.99
