"""Registration recovers a known head movement, and the stack's matrices agree with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial.transform import Rotation

from gliomark.preprocessing import prepare
from gliomark.preprocessing.registration import _shrink_to_resolution, register_rigidly
from gliomark.preprocessing.resampling import compute_transform_matrix, reorient_to_axial
from gliomark.study import MRSequence, Study

GRID = ((2.0, 2.0, 4.0), (34, 100, 90))


def create_pose(degrees: tuple[float, float, float], shift_mm: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = shift_mm
    return matrix


def transform_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:3, :3].T + matrix[:3, 3]


@pytest.mark.parametrize(
    ("degrees", "shift"), [((0, 0, 0), (0, 0, 0)), ((2, -3, 5), (6, -3, 2)), ((-5, 0, 0), (0, 0, 6))]
)
def test_a_known_displacement_is_recovered(make_brain_series, brain_points, degrees, shift) -> None:
    truth = create_pose(degrees, shift)  # from scanner points of the moved head to the head at rest
    fixed = reorient_to_axial(make_brain_series(*GRID))
    moving = reorient_to_axial(make_brain_series((1.8, 1.8, 4.4), (32, 110, 104), pose=truth, contrast=True))
    found = compute_transform_matrix(register_rigidly(fixed, moving))  # from rest to moved
    error = np.linalg.norm(
        transform_points(found, brain_points) - transform_points(np.linalg.inv(truth), brain_points), axis=1
    )
    assert error.mean() < 0.7 and error.max() < 2


def test_a_volume_of_1_mm_is_registered_as_exactly_as_thick_slices(make_brain_series, brain_points) -> None:
    truth = create_pose((2, -3, 5), (6, -3, 2))
    fixed = reorient_to_axial(make_brain_series((1.0, 1.0, 1.0), (130, 190, 170)))
    moving = reorient_to_axial(make_brain_series((1.8, 1.8, 4.4), (32, 110, 104), pose=truth, contrast=True))
    found = compute_transform_matrix(register_rigidly(fixed, moving))
    error = transform_points(found, brain_points) - transform_points(np.linalg.inv(truth), brain_points)
    assert np.linalg.norm(error, axis=1).mean() < 0.7


@pytest.mark.parametrize("spacing, size, shrunk_size", [
    ((0.98, 0.98, 6.0), (256, 256, 26), (256, 256, 26)),
    ((0.45, 0.45, 5.0), (512, 512, 30), (170, 170, 30)),
    ((0.98, 0.98, 1.0), (248, 256, 176), (124, 128, 88)),
    ((1.0, 1.0, 3.0), (256, 256, 90), (128, 128, 90)),
    ((1.0, 1.0, 1.0), (150, 150, 150), (150, 150, 150)),
])  # fmt: skip
def test_images_are_shrunk_to_the_resolution_of_registration(spacing, size, shrunk_size) -> None:
    image = sitk.Image(size, sitk.sitkUInt8)
    image.SetSpacing(spacing)
    assert _shrink_to_resolution(image).GetSize() == shrunk_size


def set_one_voxel(image: np.ndarray, value: float) -> None:
    image[tuple(extent // 2 for extent in image.shape)] = value


def set_random_voxels(image: np.ndarray, value: float) -> None:
    """Set one voxel in 2000, at random positions."""
    image[np.random.default_rng(6).random(image.shape) < 5e-4] = value


def draw_vessel(image: np.ndarray, value: float) -> None:
    """Set a bright posterior midline sinus."""
    slices, rows, columns = image.shape
    image[slices // 4 : -slices // 4, rows * 3 // 4 : rows * 3 // 4 + 2, columns // 2 : columns // 2 + 2] = (
        value
    )


@pytest.mark.sample(3)
@pytest.mark.parametrize("add_outliers, value, images_with_outliers", [
    (set_one_voxel, 1e6, ("fixed",)), (set_one_voxel, 1e30, ("moving",)), (set_one_voxel, -1e6, ("moving",)),
    (set_random_voxels, 1e6, ("moving",)), (set_random_voxels, 1e30, ("fixed", "moving")),
    (set_random_voxels, -1e6, ("fixed",)), (draw_vessel, 1e4, ("fixed", "moving")), (draw_vessel, 1e6, ("moving",)),
    (draw_vessel, 1e30, ("fixed",)),
])  # fmt: skip
def test_outliers_do_not_affect_registration(
    make_brain_series, brain_points, add_outliers, value: float, images_with_outliers
) -> None:
    truth = create_pose((2, -3, 5), (6, -3, 2))
    fixed = make_brain_series(*GRID)
    moving = make_brain_series((1.8, 1.8, 4.4), (32, 110, 104), pose=truth, contrast=True)
    for name, series in (("fixed", fixed), ("moving", moving)):
        if name in images_with_outliers:
            add_outliers(series.image, value)
    found = compute_transform_matrix(register_rigidly(reorient_to_axial(fixed), reorient_to_axial(moving)))
    error = np.linalg.norm(
        transform_points(found, brain_points) - transform_points(np.linalg.inv(truth), brain_points), axis=1
    )
    assert error.mean() < 0.7 and error.max() < 2


def test_sequences_are_aligned_in_the_stack_and_to_stack_holds_the_transforms(
    make_brain_series, brain_points
) -> None:
    truth = create_pose((2, -3, 5), (6, -3, 2))
    series = {
        MRSequence.FLAIR: make_brain_series(*GRID),
        MRSequence.T1C: make_brain_series(*GRID, pose=truth, contrast=True),
    }
    stack = prepare(Study("a", series, Path("a"), "volumes"), (MRSequence.T1C, MRSequence.FLAIR))
    np.testing.assert_allclose(stack.to_stack[MRSequence.FLAIR], np.eye(4), atol=1e-9)
    scanner = transform_points(
        np.linalg.inv(truth), brain_points
    )  # positions of these brain points in the T1C scan
    error = np.linalg.norm(transform_points(stack.to_stack[MRSequence.T1C], scanner) - brain_points, axis=1)
    assert error.mean() < 0.7
    # the second contrast is the inverse of the first, so aligned images are anticorrelated
    inside = ndimage.binary_erosion(stack.brain, iterations=3)  # edge voxels are partly background
    pairs = np.corrcoef(stack.images[MRSequence.T1C][inside], stack.images[MRSequence.FLAIR][inside])
    assert pairs[0, 1] < -0.9


def test_aligned_studies_are_not_registered(make_brain_series) -> None:
    series = {
        MRSequence.FLAIR: make_brain_series(*GRID),
        MRSequence.T1C: make_brain_series(*GRID, pose=create_pose((0, 0, 0), (6, 0, 0))),
    }
    study = Study("a", series, Path("a"), "volumes", aligned=True)
    stack = prepare(study, (MRSequence.T1C, MRSequence.FLAIR))
    for matrix in stack.to_stack.values():
        np.testing.assert_allclose(matrix, np.eye(4), atol=1e-12)
