"""The MNI152 template as a patient: skull-stripped, smaller than the template, with a lesion at a known position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from gliomark.location.atlas import find_package_file
from gliomark.location.template_registration import TEMPLATE_FILE, TEMPLATE_PACKAGE
from gliomark.preprocessing import prepare
from gliomark.study import MRSequence, SliceStack, Study

PATIENT_SCALE = 0.93  # the template's brain is larger than average
LESION_RADIUS_MM = 14.0
STEP = 2  # voxels of the template


@pytest.fixture(scope="session")
def template() -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The template ``(x, y, z)`` at 2 mm, and its affine ``(4, 4)`` to RAS mm."""
    path = find_package_file(TEMPLATE_PACKAGE, TEMPLATE_FILE)
    assert path is not None
    image = nibabel.load(path)
    array = np.asarray(image.dataobj, np.float32)[::STEP, ::STEP, ::STEP]
    return np.where(array > 30, array, 0), image.affine @ np.diag([STEP, STEP, STEP, 1.0])


@pytest.fixture(scope="session")
def make_patient(template) -> Callable[..., tuple[Study, SliceStack]]:
    """make_patient(centre, turn_degrees, order, flips): study and stack.

    centre: of the lesion in RAS mm of MNI152; turn_degrees: of the head in space; order, flips: of the axes.
    """

    @cache
    def make(
        centre: tuple[float, float, float],
        turn_degrees: tuple[float, float, float] = (0.0, 0.0, 0.0),
        order: tuple[int, int, int] = (0, 1, 2),
        flips: tuple[int, ...] = (),
    ) -> tuple[Study, SliceStack]:
        array, affine = template
        points = np.stack(np.indices(array.shape)).reshape(3, -1)
        distance = np.linalg.norm(affine[:3, :3] @ points + affine[:3, 3:] - np.c_[list(centre)], axis=0)
        lesion = (distance < LESION_RADIUS_MM).reshape(array.shape) & (array > 0)
        patient_affine = np.diag([PATIENT_SCALE] * 3 + [1.0]) @ affine
        patient_affine = turn_head(turn_degrees) @ patient_affine
        image, patient_affine = store(np.where(lesion, 250, array), patient_affine, order, flips)
        mask, _ = store(lesion.astype(np.float32), patient_affine, order, flips)
        study = Study.from_arrays({"T1C": image}, patient_affine)
        series = study.series[MRSequence.T1C]
        # aligned: all slices are kept, and the lesion's volume is not that of every second slice
        study = replace(
            study, aligned=True, lesion=replace(series, image=np.ascontiguousarray(mask.transpose(2, 1, 0)))
        )
        return study, prepare(study, [MRSequence.T1C])

    return make


def turn_head(degrees: tuple[float, float, float]) -> NDArray[np.float64]:
    """Return the rigid transform ``(4, 4)`` of a head turned about three axes and not in the middle of the scanner."""
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    turn[:3, 3] = (20.0, -30.0, 10.0)
    return turn


def store(
    array: NDArray[np.float32],
    affine: NDArray[np.float64],
    order: tuple[int, int, int],
    flips: tuple[int, ...],
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Store an array with its axes in another order and direction, with the affine for it."""
    array, affine = array.transpose(order), affine[:, [*order, 3]].copy()
    for axis in flips:
        array = np.flip(array, axis)
        affine[:, 3] += affine[:, axis] * (array.shape[axis] - 1)
        affine[:, axis] *= -1
    return np.ascontiguousarray(array), affine
