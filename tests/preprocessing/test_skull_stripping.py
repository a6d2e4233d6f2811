"""Detection of skull-stripped images, and brain extraction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from deepbet import BrainExtraction

from gliomark.errors import GliomarkError
from gliomark.io import read_study
from gliomark.phantom import PhantomSettings, create_phantom
from gliomark.preprocessing.deepbet_networks import create_example_head, fill_holes, segment_brain
from gliomark.preprocessing.resampling import compute_image_affine, reorient_to_axial
from gliomark.preprocessing.skull_stripping import (
    compute_foreground_mask,
    extract_brain_mask,
    is_skull_stripped,
)
from gliomark.study import MRSequence

PHANTOM = PhantomSettings(spacing_mm=(1.9, 1.9), matrix=128, sublayers=1)


def test_a_stripped_brain_is_recognised(make_brain_series) -> None:
    image = reorient_to_axial(make_brain_series((2.0, 2.0, 5.0), (30, 110, 90)))
    assert is_skull_stripped(image)
    millilitres = sitk.GetArrayFromImage(compute_foreground_mask(image)).sum() * 20 / 1000
    assert millilitres == pytest.approx(1371, rel=0.01)


def test_noise_in_the_background_means_a_skull(make_brain_series) -> None:
    image = reorient_to_axial(make_brain_series((2.0, 2.0, 5.0), (30, 110, 90)))
    noise = sitk.AdditiveGaussianNoise(image, 5.0, 0.0, 1)
    assert not is_skull_stripped(noise)


def crop_to_foreground(image: sitk.Image, margin: int) -> sitk.Image:
    """Crop the image to its foreground with a margin in voxels."""
    at = np.argwhere(sitk.GetArrayFromImage(compute_foreground_mask(image)))
    low, high = np.maximum(at.min(axis=0) - margin, 0), at.max(axis=0) + 1 + margin
    return image[low[2] : high[2], low[1] : high[1], low[0] : high[0]]


@pytest.mark.parametrize("margin", [0, 1, 40])
@pytest.mark.parametrize(
    "change", ["plain", "negative", "background of -1000", "upper half", "lower third", "wide field"]
)
def test_a_stripped_brain_is_recognised_in_any_crop(make_brain_series, margin: int, change: str) -> None:
    image = reorient_to_axial(make_brain_series((2.0, 2.0, 5.0), (30, 110, 90)))
    image = sitk.Mask(image - 100, image != 0) if change == "negative" else image
    image = sitk.Mask(image, image != 0, -1000) if change == "background of -1000" else image
    image = sitk.ConstantPad(image, (60, 20, 3), (5, 90, 0)) if change == "wide field" else image
    cropped = crop_to_foreground(image, margin)
    slices = cropped.GetSize()[2]
    cropped = cropped[:, :, slices // 2 :] if change == "upper half" else cropped
    cropped = cropped[:, :, : slices // 3] if change == "lower third" else cropped
    assert is_skull_stripped(cropped)
    expected = sitk.GetArrayFromImage(compute_foreground_mask(image)).sum()
    if change not in ("upper half", "lower third"):
        assert sitk.GetArrayFromImage(compute_foreground_mask(cropped)).sum() == expected


@pytest.fixture(scope="module")
def phantom():
    return create_phantom(1, PHANTOM)


@pytest.mark.parametrize("sequence", [MRSequence.T1, MRSequence.T1C, MRSequence.T2, MRSequence.FLAIR])
def test_a_head_on_an_empty_background_is_not_taken_for_stripped(phantom, sequence: MRSequence) -> None:
    image = reorient_to_axial(phantom.study.series[sequence])
    array = sitk.GetArrayFromImage(image)
    head = sitk.BinaryFillhole(
        sitk.BinaryMorphologicalClosing(image > 0.08 * float(np.percentile(array, 99)), [4, 4, 1])
    )
    masked = sitk.Mask(image, head)
    slices = masked.GetSize()[2]
    for part in (masked, masked[:, :, slices // 3 :], masked[:, :, : 2 * slices // 3]):
        assert not is_skull_stripped(part)


def test_real_stripped_images_are_recognised_in_any_crop(shared) -> None:
    for series in read_study(shared / "patients/BRATS-HG0015-mha").series.values():
        image = crop_to_foreground(reorient_to_axial(series), 0)
        slices = image.GetSize()[2]
        for part in (
            image,
            image[:, :, slices // 2 :],
            image[10:-20, :, :],
            image[:, :, slices // 4 : -slices // 4],
        ):
            assert is_skull_stripped(part)
    for series in read_study(shared / "patients/TCGA-FG-6692-nifti").series.values():
        assert not is_skull_stripped(reorient_to_axial(series))


def create_balloon(radius_mm: float, hollow_mm: float, height_mm: float, value: float = 100.0) -> sitk.Image:
    """Create a closed cylinder on a background of 0, with a hollow of value 0 from ``hollow_mm`` inwards."""
    slices, rows, columns = np.indices((40, 80, 80)) - np.array([19.5, 39.5, 39.5])[:, None, None, None]
    radius, height = 3 * np.hypot(rows, columns), 2 * 4 * np.abs(slices)
    inside = (radius < radius_mm) & (height < height_mm)
    hollow = (radius < hollow_mm) & (height < height_mm - 16)
    image = sitk.GetImageFromArray(np.where(inside & ~hollow, value, 0).astype(np.float32))
    image.SetSpacing((3.0, 3.0, 4.0))
    return image


@pytest.mark.parametrize("radius_mm, hollow_mm, height_mm, is_stripped", [
    (75, 0, 110, True), (81, 0, 50, True), (83, 0, 50, False), (80, 0, 98, True), (80, 0, 110, False),
    (78, 70, 60, True), (95, 92, 60, False), (79, 76, 115, False),  # too large only with its hollow
])  # fmt: skip
def test_only_what_has_the_size_of_a_brain_is_taken_for_stripped(
    radius_mm: float, hollow_mm: float, height_mm: float, is_stripped: bool
) -> None:
    assert is_skull_stripped(create_balloon(radius_mm, hollow_mm, height_mm)) == is_stripped


def test_an_image_of_one_grey_is_not_taken_for_stripped() -> None:
    assert not is_skull_stripped(sitk.Image(30, 30, 10, sitk.sitkFloat32))


@pytest.mark.parametrize("shape", [(1, 9, 9), (2, 5, 7), (9, 12, 15), (12, 12, 12)])
@pytest.mark.parametrize("share", [0.0, 0.4, 0.7, 0.9, 1.0])
def test_holes_are_those_of_simpleitk(shape: tuple[int, int, int], share: float) -> None:
    mask = np.random.default_rng(3).random(shape) < share
    for margin in (0, 2):
        padded = np.pad(mask, margin)
        expected = sitk.BinaryFillhole(sitk.GetImageFromArray(padded.astype(np.uint8)))
        np.testing.assert_array_equal(fill_holes(padded), sitk.GetArrayFromImage(expected) > 0)


def test_holes_in_the_brain_are_filled(make_brain_series) -> None:
    image = reorient_to_axial(make_brain_series((2.0, 2.0, 5.0), (30, 110, 90)))
    array = sitk.GetArrayFromImage(image)
    array[14:16, 50:56, 40:46] = 0  # fluid set to zero
    image_with_hole = sitk.GetImageFromArray(array)
    image_with_hole.CopyInformation(image)
    filled = sitk.GetArrayFromImage(compute_foreground_mask(image_with_hole))
    np.testing.assert_array_equal(filled, sitk.GetArrayFromImage(compute_foreground_mask(image)))


def test_deepbet_finds_the_brain_of_a_head_with_skull(phantom) -> None:
    image = reorient_to_axial(phantom.study.series[MRSequence.T1C])
    assert not is_skull_stripped(image)
    found = extract_brain_mask(image)
    np.testing.assert_allclose(compute_image_affine(found), compute_image_affine(image))
    mask, truth = (
        sitk.GetArrayViewFromImage(found) > 0,
        sitk.GetArrayFromImage(reorient_to_axial(phantom.brain)) > 0,
    )
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("sequence", ["_t1c", pytest.param("_t2", marks=pytest.mark.slow)])
def test_the_brain_is_that_of_the_deepbet_package(shared: Path, sequence: str) -> None:
    """The same voxels, but for one in ten thousand."""
    (file,) = (shared / "patients/TCGA-FG-6692-nifti").glob(f"*{sequence}.nii.gz")
    image = nib.as_closest_canonical(nib.load(file))
    _, expected, _ = BrainExtraction(no_gpu=True).run(image)
    found = segment_brain(image.get_fdata(dtype=np.float32))
    assert (found != np.asarray(expected.dataobj).astype(bool)).mean() <= 1e-4


def test_the_example_head_has_the_mean_and_spread_of_a_network_input() -> None:
    head = create_example_head(64)
    assert head.shape == (1, 1, 64, 64, 64)
    assert head.mean() == pytest.approx(0.449, abs=1e-4) and head.std() == pytest.approx(0.226, abs=1e-4)


def test_a_uniform_image_is_refused() -> None:
    uniform = sitk.Image(64, 64, 20, sitk.sitkFloat32) + 100
    with pytest.raises(GliomarkError, match="uniform"):
        extract_brain_mask(uniform)


def test_an_image_without_a_head_is_refused() -> None:
    empty = sitk.Image(64, 64, 20, sitk.sitkFloat32)
    empty.SetSpacing((3.0, 3.0, 6.0))
    with pytest.raises(GliomarkError, match="[Bb]rain"):
        extract_brain_mask(empty)


@pytest.mark.parametrize("value", [1e30, *(pytest.param(one, marks=pytest.mark.slow) for one in (1e6, -1e6))])
def test_outliers_do_not_affect_the_brain_mask(value: float) -> None:
    phantom = create_phantom(1, PHANTOM)
    series = phantom.study.series[MRSequence.T1C]
    with_outliers = series.image.copy()
    with_outliers[np.random.default_rng(2).random(with_outliers.shape) < 1e-4] = value
    image = reorient_to_axial(replace(series, image=with_outliers))
    assert not is_skull_stripped(image)
    mask = sitk.GetArrayFromImage(extract_brain_mask(image)) > 0
    plain = sitk.GetArrayFromImage(extract_brain_mask(reorient_to_axial(series))) > 0
    assert 2 * (mask & plain).sum() / (mask.sum() + plain.sum()) >= 0.98
