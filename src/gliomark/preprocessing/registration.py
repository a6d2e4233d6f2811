"""Rigid registration of one patient's sequences by mutual information (method.md, section 2, step 4)."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from gliomark.errors import InputError
from gliomark.messages import message
from gliomark.preprocessing.intensity import clip_outliers

MAX_SAMPLED_VOXELS = 60_000
MAX_VOXELS = 4_000_000  # of thick slices; a volume of 1 mm has more


def register_rigidly(fixed: sitk.Image, moving: sitk.Image, seed: int = 1) -> sitk.Transform:
    """Register two images rigidly; return the transform from points of ``fixed`` to points of ``moving`` (LPS mm).

    Maximises mutual information (Mattes et al. 2003), starting from scanner coordinates: the sequences of one
    examination share them, and a patient moves by millimetres only. Outliers are clipped first, because a single one
    would put all tissue into one bin of the histogram. Two coarse levels use gradient descent. The finest level uses
    Powell's method without gradients, because the gradient of thick slices is biased by a fraction of a slice and
    stops the descent half a millimetre early.

    Raises
    ------
    InputError
        If the images cannot be registered.
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
        # too few slices or no overlap; ITK's own message is too long to show
        raise InputError(message("not-aligned")) from error
    return transform


def _optimise_coarse_levels(
    fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform, seed: int
) -> None:
    """Optimise the two coarse levels over the whole field of view; ``transform`` is changed in place."""
    method = create_registration_method()
    method.SetMetricSamplingPercentagePerLevel([0.25, 0.1], seed)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-2, 60, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([3.0, 1.5])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(fixed, moving)


def _refine_finest_level(fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform, seed: int) -> None:
    """Optimise the finest level over the head only; ``transform`` is changed in place."""
    method = create_registration_method()
    method.SetMetricSamplingPercentage(min(1.0, MAX_SAMPLED_VOXELS / fixed.GetNumberOfPixels()), seed)
    method.SetMetricFixedMask(_create_head_mask(fixed))
    # Powell's method needs no gradients, which take as long as its search
    method.MetricUseFixedImageGradientFilterOff()
    method.MetricUseMovingImageGradientFilterOff()
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


def create_registration_method() -> sitk.ImageRegistrationMethod:
    """Create a method that compares randomly sampled voxels by mutual information."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(40)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _create_head_mask(image: sitk.Image) -> sitk.Image:
    """Create a mask of the signal with a small margin. Exclude air, which carries no anatomical information."""
    array = sitk.GetArrayViewFromImage(image)
    low = float(array.min())
    signal = image > low + 0.15 * (float(np.percentile(array, 99)) - low)
    result: sitk.Image = sitk.BinaryDilate(signal, [2, 2, 0])
    return result


def _shrink_to_resolution(image: sitk.Image, finest_mm: float = 1.4) -> sitk.Image:
    """Shrink axes that are finer than needed, so that a 1 mm volume takes no longer than thick slices."""
    spacing, size = np.array(image.GetSpacing()), np.array(image.GetSize())
    factors = np.maximum(1, np.round(finest_mm / spacing)).astype(int)
    while np.prod(size / factors) > MAX_VOXELS:
        shrunk_spacing = spacing * factors
        factors[shrunk_spacing < 1.25 * shrunk_spacing.min()] += 1
    result: sitk.Image = sitk.BinShrink(image, factors.tolist())
    return result


def _compute_overlap(fixed: sitk.Image, moving: sitk.Image) -> float:
    """Compute the share (0 to 1) of the box of ``fixed`` that ``moving`` covers in scanner coordinates."""
    small = sitk.Shrink(sitk.Image(fixed.GetSize(), sitk.sitkUInt8), [8, 8, 2])
    small.CopyInformation(sitk.Shrink(fixed, [8, 8, 2]))
    ones = sitk.Cast(sitk.Shrink(moving, [4, 4, 1]) * 0 + 1, sitk.sitkUInt8)
    covered = sitk.Resample(ones, small, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    return float(sitk.GetArrayViewFromImage(covered).mean())
