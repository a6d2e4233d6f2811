"""Make images that are not what they are called from a patient's true ones.

A model learns from its own training patients how these differ from true images, see ``reference``. Every function
takes a prepared patient, images ``(slice, row, column)``, and returns another one, normalised as by every preparation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliomark.preprocessing.intensity import normalise_z_score
from gliomark.study import MRSequence, SliceStack

SWAPPED, INVERTED, CT = "swapped", "inverted", "computed tomography"
T2_LIKE, T1_LIKE, WITHOUT_CONTRAST = "bright fluid", "T1-weighted", "no contrast agent"
# Hounsfield units of fluid, of the edge of fluid, of grey and of white matter, and of their noise
CT_UNITS, CT_NOISE = (5.0, 30.0, 37.0, 28.0), 4.0


def create_wrong_images(
    stack: SliceStack, sequences: Sequence[MRSequence]
) -> Iterator[tuple[str, SliceStack]]:
    """Yield every kind of wrong images of a patient, with its name.

    The name is "swapped", or a kind and the sequence that is wrong, such as "inverted/FLAIR".
    """
    yield SWAPPED, swap_sequences(stack, sequences)
    for name in sequences:
        yield f"{INVERTED}/{name}", invert(stack, name)
        yield f"{CT}/{name}", simulate_ct(stack, (name,))
        if MRSequence.T2 not in sequences:
            yield f"{T2_LIKE}/{name}", simulate_t2(stack, name, sequences)
    yield CT, simulate_ct(stack, sequences)
    if MRSequence.T1C in sequences:
        without = remove_vessels(stack)
        yield f"{WITHOUT_CONTRAST}/{MRSequence.T1C}", without
        for name in sequences:
            if name not in (MRSequence.T1, MRSequence.T1C):
                shown = {**stack.images, name: without.images[MRSequence.T1C]}
                yield f"{T1_LIKE}/{name}", replace(stack, images=shown)


def replace_images(stack: SliceStack, images: Mapping[MRSequence, NDArray[np.floating]]) -> SliceStack:
    """Replace sequences by images ``(slice, row, column)``, each normalised within the brain."""
    normalised = {
        name: normalise_z_score(np.asarray(image, np.float32), stack.brain, name)
        for name, image in images.items()
    }
    return replace(stack, images={**stack.images, **normalised})


def swap_sequences(stack: SliceStack, sequences: Sequence[MRSequence]) -> SliceStack:
    """Exchange the two sequences."""
    one, other = sequences
    return replace(stack, images={**stack.images, one: stack.images[other], other: stack.images[one]})


def invert(stack: SliceStack, name: MRSequence) -> SliceStack:
    """Exchange bright and dark in a sequence."""
    return replace_images(stack, {name: -stack.images[name]})


def simulate_ct(stack: SliceStack, names: Sequence[MRSequence], seed: int = 0) -> SliceStack:
    """Replace sequences by an image as of computed tomography.

    Tissues are told apart by a T1-weighted sequence if there is one, where white matter is bright and fluid dark.
    """
    guide = next((name for name in (MRSequence.T1C, MRSequence.T1) if name in stack.images), names[0])
    image = ndimage.gaussian_filter(stack.images[guide], (0, 0.7, 0.7))
    fluid, grey, white = np.percentile(image[stack.brain], [3, 25, 75])
    edge = 0.5 * (fluid + grey)
    levels = np.maximum.accumulate([fluid, edge, grey, white])
    units = np.interp(image, levels, CT_UNITS)
    random_generator = np.random.default_rng(seed)
    images = {}
    for name in names:
        noise = ndimage.gaussian_filter(random_generator.normal(size=units.shape), (0, 0.7, 0.7))
        images[name] = units + CT_NOISE * noise / noise.std()
    return replace_images(stack, images)


def simulate_t2(stack: SliceStack, name: MRSequence, sequences: Sequence[MRSequence]) -> SliceStack:
    """Replace a sequence by a T2-like image.

    What is dark on both sequences, away from the edge of the brain, is fluid and becomes bright; tissue has the
    contrast of FLAIR, or else the opposite of the first sequence's.
    """
    one, other = (stack.images[name] for name in sequences)
    tissue = 0.5 * stack.images[MRSequence.FLAIR] if MRSequence.FLAIR in sequences else -0.5 * one
    inside = ndimage.binary_erosion(stack.brain, np.ones((1, 5, 5), bool))
    dark = [1 / (1 + np.exp((image + 0.8) / 0.3)) for image in (one, other)]
    fluid = dark[0] * dark[1] * inside
    return replace_images(stack, {name: (1 - fluid) * tissue + fluid * 3.5})


def remove_vessels(stack: SliceStack) -> SliceStack:
    """Remove the finest bright structures of T1C, which are vessels with contrast agent."""
    image = stack.images[MRSequence.T1C]
    opened = ndimage.maximum_filter(ndimage.minimum_filter(image, (1, 3, 3)), (1, 3, 3))
    excess = image - opened
    usual = np.percentile(excess[stack.brain], 85)
    return replace_images(stack, {MRSequence.T1C: image - np.maximum(excess - usual, 0)})
