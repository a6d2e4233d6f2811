"""Rigid registration of one patient's sequences by mutual information (METHOD section 2, step 4)."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from gliomark.messages import message
from gliomark.preprocessing.intensity import clip_outliers
from gliomark.study import GliomarkError

MAX_SAMPLED_VOXELS = 60_000


def register_rigidly(fixed: sitk.Image, moving: sitk.Image, seed: int = 1) -> sitk.Transform:
    """The rigid transform from points of ``fixed`` to points of ``moving`` (both in LPS mm).

    Mattes mutual information, started from the scanner's own coordinates: the sequences of one examination
    share them, and a patient moves by millimetres. Outliers are clipped first: one would leave all tissue a single
    bin of the histogram. Two coarse levels descend its gradient; the finest level
    compares values alone (Powell), because the gradient of thick slices is off by a share of a slice and
    stops the descent half a millimetre early. Raises GliomarkError where the two cannot be brought together.
    """
    start = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.GEOMETRY
    )
    transform = sitk.Euler3DTransform(start)
    if _compute_overlap(fixed, moving) > 0.3:
        transform.SetTranslation((0.0, 0.0, 0.0))
    fixed, moving = (_shrink_to_resolution(clip_outliers(image)) for image in (fixed, moving))
    try:
        _optimise_coarse_levels(fixed, moving, transform, seed)
        _refine_finest_level(fixed, moving, transform, seed)
    except RuntimeError as error:
        # too few slices, or not a point in common: ITK's own text fills a screen
        raise GliomarkError(message("not-aligned")) from error
    return transform


def _optimise_coarse_levels(
    fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform, seed: int
) -> None:
    """The two coarse levels, over the whole field; ``rigid`` is changed in place."""
    method = _create_registration_method()
    method.SetMetricSamplingPercentagePerLevel([0.5, 0.2], seed)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 60, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([3.0, 1.5])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(fixed, moving)


def _refine_finest_level(fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform, seed: int) -> None:
    """The finest level, over the head alone; ``rigid`` is changed in place."""
    method = _create_registration_method()
    method.SetMetricSamplingPercentage(min(1.0, MAX_SAMPLED_VOXELS / fixed.GetNumberOfPixels()), seed)
    method.SetMetricFixedMask(_create_head_mask(fixed))
    method.SetOptimizerAsPowell(
        numberOfIterations=5,
        maximumLineIterations=12,
        stepLength=0.5,
        stepTolerance=0.05,
        valueTolerance=5e-4,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(*(sitk.SmoothingRecursiveGaussian(image, 0.5) for image in (fixed, moving)))


def _create_registration_method() -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(40)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _create_head_mask(image: sitk.Image) -> sitk.Image:
    """Where there is signal, and a little around it: air tells nothing but where the coil sees."""
    array = sitk.GetArrayViewFromImage(image)
    low = float(array.min())
    signal = image > low + 0.15 * (float(np.percentile(array, 99)) - low)
    return sitk.BinaryDilate(signal, [2, 2, 0])


def _shrink_to_resolution(image: sitk.Image, finest_mm: float = 1.4) -> sitk.Image:
    """Shrunk so that no axis is finer than needed: a 1 mm head costs no more than a thick-slice one."""
    factors = [max(1, round(finest_mm / spacing)) for spacing in image.GetSpacing()]
    return sitk.BinShrink(image, factors)


def _compute_overlap(fixed: sitk.Image, moving: sitk.Image) -> float:
    """The share of ``fixed``'s box that ``moving``'s box covers in scanner coordinates."""
    small = sitk.Shrink(sitk.Image(fixed.GetSize(), sitk.sitkUInt8), [8, 8, 2])
    small.CopyInformation(sitk.Shrink(fixed, [8, 8, 2]))
    ones = sitk.Cast(sitk.Shrink(moving, [4, 4, 1]) * 0 + 1, sitk.sitkUInt8)
    covered = sitk.Resample(ones, small, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    return float(sitk.GetArrayViewFromImage(covered).mean())
