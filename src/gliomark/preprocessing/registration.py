"""Rigid registration of one patient's sequences by mutual information (METHOD section 2, step 4)."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from gliomark.study import GliomarkError

# Above this many millimetres between two independent answers, a person should look.
DOUBTFUL = 1.0


def register(fixed: sitk.Image, moving: sitk.Image, seed: int = 1) -> sitk.Transform:
    """The rigid transform from points of ``fixed`` to points of ``moving`` (both in LPS mm).

    Mattes mutual information over three resolutions, started from the scanner's own coordinates: the
    sequences of one examination share them, and a patient moves by millimetres. Raises GliomarkError
    where the two cannot be brought together.
    """
    start = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.GEOMETRY
    )
    rigid = sitk.Euler3DTransform(start)
    if _overlap(fixed, moving) > 0.3:
        rigid.SetTranslation((0.0, 0.0, 0.0))
    method = _method(seed)
    method.SetInitialTransform(rigid, inPlace=True)
    try:
        method.Execute(_coarse(fixed), _coarse(moving))
    except RuntimeError as error:
        # too few slices, or not a point in common: ITK's own text fills a screen
        raise GliomarkError(
            "Two sequences could not be aligned: they show different places, or one has fewer than four slices; "
            "check that they are whole axial series of one patient."
        ) from error
    return rigid


def registration_doubt(
    fixed: sitk.Image, moving: sitk.Image, found: sitk.Transform, reach_mm: float = 70.0
) -> float:
    """How far (mm, largest within the head) a second answer lies from ``found``.

    The second start is moved off the first answer and other voxels are drawn: where the images
    determine the answer both find it, where they do not the two differ. Infinite where the second fails.
    """
    middle = fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in fixed.GetSize()])
    again = sitk.Euler3DTransform()
    again.SetCenter(middle)
    again.SetMatrix(_rotation(found))
    ends = np.array(found.TransformPoint(middle)) - middle
    again.SetTranslation((ends + [2.0, -2.0, 2.0]).tolist())
    method = _method(seed=2, levels=slice(1, None))
    method.SetInitialTransform(again, inPlace=True)
    try:
        method.Execute(_coarse(fixed), _coarse(moving))
    except RuntimeError:
        return float("inf")
    corners = np.array(middle) + reach_mm * np.vstack([np.eye(3), -np.eye(3)])
    apart = [
        np.subtract(found.TransformPoint(corner), again.TransformPoint(corner)) for corner in corners.tolist()
    ]
    return float(np.linalg.norm(apart, axis=1).max())


def _rotation(transform: sitk.Transform) -> list[float]:
    """The 3x3 of a rigid transform, row by row."""
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    columns = [np.array(transform.TransformPoint(axis)) - origin for axis in np.eye(3).tolist()]
    turned: list[float] = np.stack(columns, axis=1).ravel().tolist()
    return turned


def _method(seed: int, levels: slice = slice(None)) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(40)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentagePerLevel([0.5, 0.2, 0.1][levels], seed)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 60, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1][levels])
    method.SetSmoothingSigmasPerLevel([3.0, 1.5, 0.5][levels])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    return method


def _coarse(image: sitk.Image, finest_mm: float = 1.4) -> sitk.Image:
    """Shrunk so that no axis is finer than needed: a 1 mm head costs no more than a thick-slice one."""
    factors = [max(1, round(finest_mm / spacing)) for spacing in image.GetSpacing()]
    return sitk.BinShrink(sitk.Cast(image, sitk.sitkFloat32), factors)


def _overlap(fixed: sitk.Image, moving: sitk.Image) -> float:
    """The share of ``fixed``'s box that ``moving``'s box covers in scanner coordinates."""
    small = sitk.Shrink(sitk.Image(fixed.GetSize(), sitk.sitkUInt8), [8, 8, 2])
    small.CopyInformation(sitk.Shrink(fixed, [8, 8, 2]))
    ones = sitk.Cast(sitk.Shrink(moving, [4, 4, 1]) * 0 + 1, sitk.sitkUInt8)
    covered = sitk.Resample(ones, small, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    return float(sitk.GetArrayViewFromImage(covered).mean())
