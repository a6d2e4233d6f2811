"""Alter prepared patients into kinds that a model has not been trained on.

Every function takes a prepared patient ``(slice, 240, 240)`` and returns another one on the same grid or on a scaled
one. The alterations are made inside the brain that was found in the original images, which is the hardest case: skull
stripping of a wrong or damaged image leaves errors that would show by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliomark.known_range.wrong_images import replace_images
from gliomark.study import MRSequence, SliceStack

FloatImage = NDArray[np.float32]

NOISE_SHARE = 0.2  # of the standard deviation of the grey values in the brain, which is 1 in a prepared image
BLUR_PIXELS = 1.0


def show_twice(stack: SliceStack, shown: MRSequence) -> SliceStack:
    """Show one sequence under both names."""
    return replace(stack, images=dict.fromkeys(stack.images, stack.images[shown]))


def shift(stack: SliceStack, name: MRSequence, row_mm: float, column_mm: float) -> SliceStack:
    """Displace a sequence in the plane, as by a failed registration."""
    moved = ndimage.shift(
        stack.images[name], (0, row_mm / stack.spacing_mm[1], column_mm / stack.spacing_mm[2]), order=1,
        mode="nearest",
    )  # fmt: skip
    return replace_images(stack, {name: moved})


def add_noise(stack: SliceStack, random_generator: np.random.Generator) -> SliceStack:
    """Add noise of a fifth of the brain's standard deviation to both sequences."""
    images = {
        name: image + NOISE_SHARE * random_generator.standard_normal(image.shape, np.float32)
        for name, image in stack.images.items()
    }
    return replace_images(stack, images)


def blur(stack: SliceStack) -> SliceStack:
    """Blur both sequences in the plane, as by a coarse matrix or slight movement."""
    images = {
        name: ndimage.gaussian_filter(image, (0, BLUR_PIXELS, BLUR_PIXELS))
        for name, image in stack.images.items()
    }
    return replace_images(stack, images)


def average_slices(stack: SliceStack) -> SliceStack:
    """Average every slice with the next one, as in slices of twice the thickness."""
    images = {name: ndimage.uniform_filter1d(image, 2, axis=0) for name, image in stack.images.items()}
    return replace_images(stack, images)


def scale_head(stack: SliceStack, factor: float) -> SliceStack:
    """Scale the head, to that of a child: images, masks and slice spacing."""
    centre = (np.array(stack.brain.shape[1:]) - 1) / 2.0
    offset = centre - centre / factor

    def scale(image: NDArray[np.floating], background: float) -> FloatImage:
        return np.stack(
            [
                ndimage.affine_transform(
                    one, np.full(2, 1 / factor), offset, order=1, mode="constant", cval=background
                )
                for one in image
            ]
        ).astype(np.float32)

    brain = scale(stack.brain.astype(np.float32), 0.0) >= 0.5
    affine = stack.affine.copy()
    affine[:3, 2] *= factor
    lesion = None if stack.lesion is None else scale(stack.lesion.astype(np.float32), 0.0) >= 0.5
    scaled = replace(stack, brain=brain, affine=affine, lesion=lesion)
    images = {name: scale(image, float(image.min())) for name, image in stack.images.items()}
    return replace_images(scaled, images)


def remove_lesion(stack: SliceStack) -> SliceStack:
    """Replace the lesion and its surroundings by the mirror image of the other side.

    Where the other side is affected too, grey values of the same depth below the brain's surface are used.
    """
    if stack.lesion is None or not stack.lesion.any():
        return stack
    affected = ndimage.binary_dilation(stack.lesion, np.ones((1, 9, 9), bool)) & stack.brain
    share = np.clip(ndimage.gaussian_filter(affected.astype(np.float32), (0, 2, 2)) * 1.5, 0, 1)
    mirrored_affected = _mirror(affected.astype(np.float32), stack.brain) > 0.2
    mirrored_brain = _mirror(stack.brain.astype(np.float32), stack.brain) > 0.8
    usable = mirrored_brain & ~mirrored_affected
    depth = _compute_depth(stack.brain)
    images = {}
    for name, image in stack.images.items():
        donor = np.where(
            usable, _mirror(image, stack.brain), _fill_by_depth(image, stack.brain, affected, depth)
        )
        images[name] = (1 - share) * image + share * donor
    return replace(replace_images(stack, images), lesion=np.zeros_like(stack.brain))


def add_metastases(stack: SliceStack, random_generator: np.random.Generator) -> SliceStack:
    """Draw four to nine round enhancing lesions of 8 to 20 mm, each with oedema, into a head without a lesion."""
    healthy = remove_lesion(stack)
    depth = _compute_depth(stack.brain)
    candidates = np.argwhere((depth > 6) & (depth < 30))
    chosen = candidates[random_generator.choice(len(candidates), random_generator.integers(4, 10))]
    core, oedema = np.zeros(stack.brain.shape, np.float32), np.zeros(stack.brain.shape, np.float32)
    for centre in chosen:
        radius = random_generator.uniform(4, 10)
        distance_mm = _compute_distance(stack, centre)
        core = np.maximum(core, _soften(radius - distance_mm))
        oedema = np.maximum(oedema, _soften(radius * random_generator.uniform(1.3, 2.2) - distance_mm))
    return _draw(healthy, core, oedema, {"T1C": 3.0, "FLAIR": 1.2, "T1": -0.8, "T2": 1.5})


def add_meningioma(stack: SliceStack, random_generator: np.random.Generator) -> SliceStack:
    """Draw one homogeneously enhancing mass of 30 to 50 mm on the surface of a brain without a lesion."""
    healthy = remove_lesion(stack)
    depth = _compute_depth(stack.brain)
    areas = stack.brain.sum(axis=(1, 2))
    is_middle = (areas > 0.7 * areas.max())[:, None, None]
    candidates = np.argwhere((depth > 6) & (depth < 10) & is_middle)
    centre = candidates[random_generator.integers(len(candidates))]
    core = _soften(random_generator.uniform(15, 25) - _compute_distance(stack, centre))
    return _draw(healthy, core, np.zeros_like(core), {"T1C": 2.8, "FLAIR": 0.9, "T1": -0.3, "T2": 0.8})


def resect_lesion(stack: SliceStack) -> SliceStack:
    """Replace the lesion by fluid, as a resection cavity, with a thin enhancing and FLAIR-bright rim."""
    if stack.lesion is None:
        return stack
    core = ndimage.gaussian_filter(
        ndimage.binary_erosion(stack.lesion, np.ones((1, 5, 5), bool)).astype(np.float32), (0, 1, 1)
    )
    images = {}
    for name, image in stack.images.items():
        fluid = {"T2": 3.0}.get(name, float(np.percentile(image[stack.brain], 2)))
        images[name] = (1 - core) * image + core * fluid
    return replace_images(stack, images)


# ---- drawing ----------------------------------------------------------------------------------------


def _draw(
    stack: SliceStack, core: FloatImage, oedema: FloatImage, z_scores: Mapping[str, float]
) -> SliceStack:
    """Blend a mass and its oedema into every sequence. core, oedema: shares 0 to 1; z_scores: of the mass."""
    oedema_scores = {"T1C": -0.8, "T1": -0.8, "FLAIR": 2.2, "T2": 2.2}
    images = {}
    for name, image in stack.images.items():
        image = image + oedema * (oedema_scores[name] - image)
        images[name] = image + core * (z_scores[name] - image)
    drawn = replace_images(stack, images)
    return replace(drawn, lesion=((core > 0.5) | (oedema > 0.5)) & stack.brain)


def _soften(inside_mm: NDArray[np.floating]) -> FloatImage:
    """Return the share of a mass, 0 to 1, from the distance inside its surface in mm."""
    return np.asarray(np.clip(inside_mm / 2.0 + 0.5, 0, 1), np.float32)


def _compute_distance(stack: SliceStack, centre: NDArray[np.integer]) -> NDArray[np.float64]:
    """Compute the distance of every voxel from a voxel, mm."""
    axes = [
        ((np.arange(count) - at) * step) ** 2
        for count, at, step in zip(stack.brain.shape, centre, stack.spacing_mm, strict=True)
    ]
    return np.asarray(np.sqrt(axes[0][:, None, None] + axes[1][:, None] + axes[2]), np.float64)


def _compute_depth(brain: NDArray[np.bool_]) -> FloatImage:
    """Compute the depth below the brain's surface in every slice, pixels."""
    return np.stack([ndimage.distance_transform_edt(one) for one in brain]).astype(np.float32)


def _mirror(image: NDArray[np.floating], brain: NDArray[np.bool_]) -> FloatImage:
    """Mirror left to right about the brain's middle column in every slice."""
    mirrored = np.empty(image.shape, np.float32)
    for number, (one, inside) in enumerate(zip(image, brain, strict=True)):
        columns = np.flatnonzero(inside.any(axis=0))
        middle = 0.5 * (columns[0] + columns[-1]) if len(columns) else (image.shape[2] - 1) / 2
        mirrored[number] = ndimage.shift(
            one[:, ::-1], (0, 2 * middle - (image.shape[2] - 1)), order=1, mode="nearest"
        )
    return mirrored


def _fill_by_depth(
    image: FloatImage, brain: NDArray[np.bool_], affected: NDArray[np.bool_], depth: FloatImage
) -> FloatImage:
    """Return an image whose values at every depth are the median of the brain outside the affected region."""
    healthy = brain & ~affected
    step = np.minimum(depth // 4, 12).astype(int)
    medians = [
        np.median(image[healthy & (step == s)]) if (healthy & (step == s)).any() else 0.0 for s in range(13)
    ]
    values: FloatImage = np.array(medians, np.float32)[step]
    return values
