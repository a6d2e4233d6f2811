"""Affine registration of a patient's brain to the MNI152 template, with the lesion left out of the comparison."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import nibabel
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gliomark.errors import ConfigurationError
from gliomark.geometry import (
    LPS_TO_RAS,
    Affine,
    compute_image_affine,
    compute_mask_points,
    compute_transform_matrix,
    to_simpleitk_image,
)
from gliomark.location.atlas import find_package_file
from gliomark.messages import message
from gliomark.preprocessing.preparation import SKULL_STRIPPING_ORDER
from gliomark.preprocessing.registration import create_registration_method
from gliomark.study import SliceStack

# in the wheel of nilearn, which takes seconds to import: the skull-stripped ICBM 2009a template (Fonov et al. 2011)
TEMPLATE_PACKAGE = "nilearn"
TEMPLATE_FILE = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
BRAIN_SHARE = 0.2  # of the template's maximum, from which a voxel is brain, as in nilearn
MASK_MM, IMAGE_MM = 4.0, 2.0  # resolution at which masks and images are compared
MAX_SAMPLED_VOXELS = 50_000
BRAIN_MARGIN_PIXELS, LESION_MARGIN_PIXELS = 6, 2
SIZE_PERCENTILES = (2.5, 97.5)  # of the brain's voxels along an axis; the extremes are stray voxels


@dataclass(frozen=True, eq=False)
class TemplateRegistration:
    """Result of the registration of a patient to MNI152.

    Attributes
    ----------
    to_mni
        ``(4, 4)``, from the patient's LPS mm to RAS mm of MNI152.
    brain_overlap
        Dice coefficient of the patient's brain and the template's, where the patient's slices are.
    similarity
        Mutual information of the images.
    turned_similarity
        The same with the template turned back to front or upside down, whichever is more similar.
    """

    to_mni: Affine
    brain_overlap: float
    similarity: float
    turned_similarity: float


@dataclass(frozen=True, eq=False)
class _Template:
    """The template and its brain mask at the resolutions of the comparison, and the mask at 1 mm."""

    image: sitk.Image
    small_mask: sitk.Image
    mask: sitk.Image


@lru_cache(maxsize=1)
def _load_template() -> _Template:
    path = find_package_file(TEMPLATE_PACKAGE, TEMPLATE_FILE)
    if path is None:
        raise ConfigurationError(message("template-missing"))
    volume = nibabel.load(path)
    array = np.ascontiguousarray(np.asarray(volume.dataobj, np.float32).transpose(2, 1, 0))
    image = to_simpleitk_image(array, LPS_TO_RAS @ volume.affine)
    mask = sitk.Cast(image > BRAIN_SHARE * float(array.max()), sitk.sitkUInt8)
    small_mask = _shrink(sitk.Cast(mask, sitk.sitkFloat32), MASK_MM)
    return _Template(sitk.SmoothingRecursiveGaussian(_shrink(image, IMAGE_MM), 1.5), small_mask, mask)


def register_to_template(stack: SliceStack, lesion: NDArray[np.bool_]) -> TemplateRegistration:
    """Register a prepared patient to MNI152 with twelve parameters.

    The start moves the brain's centre of mass to the template's and scales the axes to its extent. The brain masks are
    registered first, then the images by mutual information, T1C if there is one. Tissue in and at the lesion is left
    out, because nothing in the template corresponds to it (Brett et al. 2001).

    Parameters
    ----------
    stack
        The prepared patient.
    lesion
        Boolean ``(slice, row, column)``.

    Returns
    -------
    TemplateRegistration
        With measures of its quality, which the caller must check.

    Raises
    ------
    ConfigurationError
        If nilearn, which contains the template, lacks the file.
    """
    template = _load_template()
    brain = to_simpleitk_image(stack.brain.astype(np.float32), stack.affine)
    transform = _register_masks(_shrink(brain, MASK_MM), template.small_mask)
    sequence = next(name for name in SKULL_STRIPPING_ORDER if name in stack.images)
    image = to_simpleitk_image(stack.images[sequence], stack.affine)
    fixed = sitk.SmoothingRecursiveGaussian(_shrink(image, IMAGE_MM), 1.5)
    method = create_registration_method()
    method.SetMetricFixedMask(_create_comparison_mask(stack, lesion))
    share = min(1.0, MAX_SAMPLED_VOXELS / fixed.GetNumberOfPixels())
    method.SetMetricSamplingPercentage(share, 1)
    _optimise(method, fixed, template.image, transform)
    turned = [_turn(transform, template.small_mask, axis) for axis in (1, 2)]
    similarities = [_measure_similarity(method, fixed, template.image, one) for one in (transform, *turned)]
    return TemplateRegistration(
        LPS_TO_RAS @ compute_transform_matrix(transform),
        _measure_overlap(brain, template.mask, transform),
        similarities[0],
        max(similarities[1:]),
    )


def _register_masks(brain: sitk.Image, template: sitk.Image) -> sitk.AffineTransform:
    """Register the brain masks, from their centres of mass and extents."""
    (centre, extent), (template_centre, template_extent) = _measure_mask(brain), _measure_mask(template)
    transform = sitk.AffineTransform(3)
    transform.SetCenter(centre.tolist())
    transform.SetTranslation((template_centre - centre).tolist())
    transform.SetMatrix(np.diag(template_extent / extent).ravel().tolist())
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMeanSquares()
    method.SetInterpolator(sitk.sitkLinear)
    fixed, moving = (sitk.SmoothingRecursiveGaussian(mask, MASK_MM) for mask in (brain, template))
    _optimise(method, fixed, moving, transform)
    return transform


def _measure_mask(mask: sitk.Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measure the centre of mass and the extent of a mask along the axes of LPS, mm ``(3,)`` each."""
    points = compute_mask_points(sitk.GetArrayViewFromImage(mask) > 0.5, compute_image_affine(mask))
    low, high = np.percentile(points, SIZE_PERCENTILES, axis=1)
    return points.mean(axis=1), np.maximum(high - low, 1.0)


def _optimise(
    method: sitk.ImageRegistrationMethod, fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform
) -> None:
    """Optimise a transform, which is changed in place."""
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 0.02, 80, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.MetricUseFixedImageGradientFilterOff()
    method.MetricUseMovingImageGradientFilterOff()
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(fixed, moving)


def _create_comparison_mask(stack: SliceStack, lesion: NDArray[np.bool_]) -> sitk.Image:
    """Create a mask of the brain and its surroundings, which show its edge, without the lesion."""
    brain = to_simpleitk_image(stack.brain.astype(np.uint8), stack.affine)
    margin = [BRAIN_MARGIN_PIXELS, BRAIN_MARGIN_PIXELS, 1]
    mask: sitk.Image = sitk.BinaryDilate(brain, margin)
    if lesion.any():
        grown = sitk.BinaryDilate(
            to_simpleitk_image(lesion.astype(np.uint8), stack.affine),
            [LESION_MARGIN_PIXELS, LESION_MARGIN_PIXELS, 0],
        )
        mask = sitk.And(mask, sitk.Cast(grown == 0, sitk.sitkUInt8))
    return mask


def _turn(transform: sitk.Transform, template_brain: sitk.Image, axis: int) -> sitk.Transform:
    """Return the transform to a template mirrored along an axis of LPS, about the brain's centre of mass."""
    mirror = sitk.AffineTransform(3)
    mirror.SetCenter(_measure_mask(template_brain)[0].tolist())
    mirror.SetMatrix(np.diag(np.where(np.arange(3) == axis, -1.0, 1.0)).ravel().tolist())
    result: sitk.Transform = sitk.CompositeTransform([mirror, transform])  # the mirror comes last
    return result


def _measure_similarity(
    method: sitk.ImageRegistrationMethod, fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform
) -> float:
    """Measure the mutual information, without optimisation."""
    method.SetInitialTransform(transform)
    return -float(method.MetricEvaluate(fixed, moving))


def _measure_overlap(brain: sitk.Image, template: sitk.Image, transform: sitk.Transform) -> float:
    """Measure the Dice coefficient of two brain masks on the patient's grid, every second pixel."""
    grid = sitk.Shrink(brain, [2, 2, 1])
    moved = sitk.Resample(template, grid, transform, sitk.sitkNearestNeighbor, 0)
    first, second = (sitk.GetArrayViewFromImage(mask) > 0.5 for mask in (grid, moved))
    return float(2 * (first & second).sum() / max(first.sum() + second.sum(), 1))


def _shrink(image: sitk.Image, finest_mm: float) -> sitk.Image:
    factors = np.maximum(1, np.round(finest_mm / np.array(image.GetSpacing()))).astype(int)
    result: sitk.Image = sitk.BinShrink(image, factors.tolist())
    return result
