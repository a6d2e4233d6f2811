"""The lesion mask on the source images: position, side and grid."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gliomark.prediction import Prediction
from gliomark.reporting import resample_mask_to_series, write_prediction
from gliomark.study import Segmentation, Series

Make = Callable[..., Prediction]


def compute_centre(mask: NDArray[np.uint8], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    slices, rows, columns = np.nonzero(mask)
    return (affine @ np.array([columns.mean(), rows.mean(), slices.mean(), 1.0]))[:3]


def resample_mask(prediction: Prediction, series: Series) -> NDArray[np.uint8]:
    return resample_mask_to_series(prediction.stack, prediction.segmentation, series)


def create_series(prediction: Prediction, affine: NDArray[np.float64], shape: tuple[int, int, int]) -> Series:
    return Series(np.zeros(shape, np.float32), affine, ("x",) * shape[0], Path("x"))


@pytest.mark.parametrize("kind", ["pictures", "volumes"])
def test_resampling_there_and_back_keeps_the_lesion(make_prediction: Make, kind: str) -> None:
    prediction = make_prediction(kind)
    series = next(iter(prediction.study.series.values()))
    native = resample_mask(prediction, series)
    stack = dataclasses.replace(prediction.stack, affine=series.affine)
    native_segmentation = Segmentation(native.astype(np.float32), native.astype(bool), "")
    target = create_series(prediction, prediction.stack.affine, prediction.stack.brain.shape)
    restored = resample_mask_to_series(stack, native_segmentation, target).astype(bool)
    mask = prediction.segmentation.mask
    assert 2 * (restored & mask).sum() / (restored.sum() + mask.sum()) > 0.97


@pytest.mark.parametrize("kind", ["pictures", "volumes"])
def test_left_stays_left(make_prediction: Make, kind: str) -> None:
    prediction = make_prediction(kind)
    series = next(iter(prediction.study.series.values()))
    x, y, _ = compute_centre(resample_mask(prediction, series), series.affine)
    assert x == pytest.approx(30, abs=1)
    assert y == pytest.approx(-15, abs=1)


def test_a_flipped_and_oblique_grid_keeps_the_position_in_the_patient(make_prediction: Make) -> None:
    prediction = make_prediction()
    turn = np.deg2rad(20)
    oblique = np.array([[-1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
    affine = np.eye(4)
    affine[:3, :3] = oblique
    affine[:3, 3] = oblique @ np.array([-90.0, -100.0, -40.0])
    series = create_series(prediction, affine, (80, 200, 180))
    assert compute_centre(resample_mask(prediction, series), affine)[:2] == pytest.approx([30, -15], abs=1)


def test_coinciding_slices_are_copied_exactly_for_any_threshold(make_prediction: Make) -> None:
    prediction = make_prediction()
    probability = prediction.segmentation.probability
    mask = probability >= 0.3
    mask[0] = False  # removed although the probability is high
    segmentation = Segmentation(probability, mask, "")
    affine = prediction.stack.affine + 1e-7  # rounding error of reading and multiplying matrices
    target = create_series(prediction, affine, prediction.stack.brain.shape)
    np.testing.assert_array_equal(resample_mask_to_series(prediction.stack, segmentation, target), mask)


def test_half_a_slice_outside_uses_the_nearest_slice_and_farther_positions_are_empty(
    make_prediction: Make,
) -> None:
    prediction = make_prediction()
    full = np.ones_like(prediction.segmentation.mask)
    segmentation = Segmentation(full.astype(np.float32), full, "")
    affine = prediction.stack.affine.copy()
    affine[2, 2] = 1.0
    affine[2, 3] -= 4.0  # slices 4, 3, 2, 1 mm below the first one, spacing 5 mm
    native = resample_mask_to_series(
        prediction.stack, segmentation, create_series(prediction, affine, (5, 240, 240))
    )
    assert native.any(axis=(1, 2)).tolist() == [False, False, True, True, True]


def test_a_registration_is_applied(make_prediction: Make) -> None:
    prediction = make_prediction("volumes")
    series = next(iter(prediction.study.series.values()))
    shift = np.eye(4)
    shift[0, 3] = 6.0  # x of the stack is x of the series + 6
    moved = resample_mask_to_series(prediction.stack, prediction.segmentation, series, to_stack=shift)
    assert compute_centre(moved, series.affine)[0] == pytest.approx(24, abs=1)


def test_a_fine_volume_is_resampled_quickly(make_prediction: Make) -> None:
    prediction = make_prediction()
    series = create_series(prediction, np.diag([0.94, 0.94, 1.0, 1.0]), (176, 256, 256))
    start = time.perf_counter()
    resample_mask(prediction, series)
    assert time.perf_counter() - start < 2.0  # 0.3 s on two idle cores


def test_every_original_picture_gets_its_mask(make_prediction: Make, tmp_path: Path) -> None:
    prediction = make_prediction("pictures")
    folder = write_prediction(prediction, tmp_path)
    files = sorted((folder / "masks").iterdir())
    assert [file.stem for file in files] == [f"{number:03d}" for number in range(1, 12)]
    images = [Image.open(file) for file in files]
    assert all(image.mode == "L" and image.size == (256, 256) for image in images)
    drawn = {file.stem for file, image in zip(files, images, strict=True) if np.asarray(image).any()}
    assert drawn == set(prediction.lesion_areas_mm2)
    assert set(np.unique(np.stack([np.asarray(image) for image in images]))) == {0, 255}


def test_a_volume_gets_a_nifti_on_its_own_grid(make_prediction: Make, tmp_path: Path) -> None:
    prediction = make_prediction("volumes")
    image = nib.load(write_prediction(prediction, tmp_path) / "segmentation.nii.gz")
    assert image.shape == (140, 150, 32)
    assert image.get_data_dtype() == np.uint8
    voxels = np.argwhere(np.asarray(image.dataobj) > 0).mean(axis=0)
    right_anterior = (image.affine @ np.append(voxels, 1.0))[:2]
    assert right_anterior == pytest.approx([-30, 15], abs=1)  # RAS: left and anterior
