"""Rigid registration of one patient's sequences by mutual information (METHOD section 2, step 4)."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from gliomark.messages import message
from gliomark.preprocessing.intensity import without_outliers
from gliomark.study import GliomarkError

FINEST_VOXELS = 60_000


def register(fixed: sitk.Image, moving: sitk.Image, seed: int = 1) -> sitk.Transform:
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
    rigid = sitk.Euler3DTransform(start)
    if _overlap(fixed, moving) > 0.3:
        rigid.SetTranslation((0.0, 0.0, 0.0))
    fixed, moving = (_coarse(without_outliers(image)) for image in (fixed, moving))
    try:
        _descend(fixed, moving, rigid, seed)
        _refine(fixed, moving, rigid, seed)
    except RuntimeError as error:
        # too few slices, or not a point in common: ITK's own text fills a screen
        raise GliomarkError(message("not-aligned")) from error
    return rigid


def _descend(fixed: sitk.Image, moving: sitk.Image, rigid: sitk.Transform, seed: int) -> None:
    """The two coarse levels, over the whole field; ``rigid`` is changed in place."""
    method = _mutual_information()
    method.SetMetricSamplingPercentagePerLevel([0.5, 0.2], seed)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 60, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([3.0, 1.5])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(rigid, inPlace=True)
    method.Execute(fixed, moving)


def _refine(fixed: sitk.Image, moving: sitk.Image, rigid: sitk.Transform, seed: int) -> None:
    """The finest level, over the head alone; ``rigid`` is changed in place."""
    method = _mutual_information()
    method.SetMetricSamplingPercentage(min(1.0, FINEST_VOXELS / fixed.GetNumberOfPixels()), seed)
    method.SetMetricFixedMask(_head(fixed))
    method.SetOptimizerAsPowell(
        numberOfIterations=5,
        maximumLineIterations=12,
        stepLength=0.5,
        stepTolerance=0.05,
        valueTolerance=5e-4,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(rigid, inPlace=True)
    method.Execute(*(sitk.SmoothingRecursiveGaussian(image, 0.5) for image in (fixed, moving)))


def _mutual_information() -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(40)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _head(image: sitk.Image) -> sitk.Image:
    """Where there is signal, and a little around it: air tells nothing but where the coil sees."""
    array = sitk.GetArrayViewFromImage(image)
    low = float(array.min())
    signal = image > low + 0.15 * (float(np.percentile(array, 99)) - low)
    return sitk.BinaryDilate(signal, [2, 2, 0])


def _coarse(image: sitk.Image, finest_mm: float = 1.4) -> sitk.Image:
    """Shrunk so that no axis is finer than needed: a 1 mm head costs no more than a thick-slice one."""
    factors = [max(1, round(finest_mm / spacing)) for spacing in image.GetSpacing()]
    return sitk.BinShrink(image, factors)


def _overlap(fixed: sitk.Image, moving: sitk.Image) -> float:
    """The share of ``fixed``'s box that ``moving``'s box covers in scanner coordinates."""
    small = sitk.Shrink(sitk.Image(fixed.GetSize(), sitk.sitkUInt8), [8, 8, 2])
    small.CopyInformation(sitk.Shrink(fixed, [8, 8, 2]))
    ones = sitk.Cast(sitk.Shrink(moving, [4, 4, 1]) * 0 + 1, sitk.sitkUInt8)
    covered = sitk.Resample(ones, small, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    return float(sitk.GetArrayViewFromImage(covered).mean())
