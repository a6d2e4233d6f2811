"""A synthetic patient's brain on a given number of axial slices, planned from its lowest to its highest part.

The images are those of an ordinary phantom, skull-stripped with the true brain mask. Only pixels that may belong to the
brain are rendered, which takes a fraction of the time.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomark.phantom.anatomy import HEAD_CENTRE_LPS, HeadAnatomy, locate_points
from gliomark.phantom.patient import (
    Phantom,
    PhantomSettings,
    as_series,
    assemble_phantom,
    create_patient_id,
    create_reader_masks,
    create_straight_affine,
    render_volumes,
    sample_person,
)
from gliomark.phantom.rendering import simulate_scan
from gliomark.study import MRSequence

# half the size of the box around the centre of the head that contains every brain, and the spacing of the points at
# which it is searched for the brain; LPS mm
_BOX_MM, _BOX_STEPS_MM = (90.0, 110.0, 100.0), (5.0, 5.0, 4.0)


def create_planned_phantom(
    seed: int,
    sequences: tuple[MRSequence, ...],
    slice_count: int,
    end_area_mm2: float,
    settings: PhantomSettings = PhantomSettings(),
) -> Phantom:
    """Create a skull-stripped synthetic patient with ``slice_count`` slices over the whole brain.

    The same person as ``create_phantom`` creates for the seed; ``study.lesion`` is the core of the tumour, as a reader
    outlines it (method.md, section 2, step 6).

    Parameters
    ----------
    seed
        Seed of the person.
    sequences
        Sequences to render. Each has its own noise, whichever others are rendered.
    slice_count
        Number of slices, equidistant; their distance follows from the size of the brain.
    end_area_mm2
        Approximate area of the brain on the first and on the last slice.
    settings
        Pixels, noise and person; slice spacing and number of slices are replaced.
    """
    person = sample_person(seed, create_patient_id(seed, settings), settings)
    first_mm, last_mm = _find_brain_extent(person.head, end_area_mm2)
    planned = replace(settings, slice_mm=(last_mm - first_mm) / (slice_count - 1), slice_count=slice_count)
    affine = create_straight_affine(planned)
    affine[2, 3] = first_mm
    signal, true_shares = render_volumes(person, sequences, affine, planned, region="brain")
    source = Path(person.clinical.patient_id)
    masks = create_reader_masks(true_shares, affine, source)
    series = {}
    for sequence, image in zip(sequences, signal, strict=True):
        stored = simulate_scan(image, affine, settings.noise_sigma, create_scanner_rng(seed, sequence))
        series[sequence] = as_series(stored * masks["brain"].image, affine, source / sequence.value)
    return assemble_phantom(person, series, masks, masks["core"])


def create_scanner_rng(seed: int, sequence: MRSequence) -> np.random.Generator:
    """Create the random generator of the scanner for one sequence of a planned phantom."""
    return np.random.default_rng([seed, 5, list(MRSequence).index(sequence)])


def _find_brain_extent(head: HeadAnatomy, end_area_mm2: float) -> tuple[float, float]:
    """Find the lowest and the highest z (LPS mm) at which the brain has an area; between them it is larger."""
    x, y, z = (
        np.arange(centre - half, centre + half + step, step, dtype=np.float32)
        for centre, half, step in zip(HEAD_CENTRE_LPS, _BOX_MM, _BOX_STEPS_MM, strict=True)
    )
    grid = np.stack(np.meshgrid(x, y, z, indexing="ij")).reshape(3, -1)
    brain = np.zeros(grid.shape[1], np.float32)
    inside = head.is_possibly_brain(grid)
    brain[inside] = locate_points(head, grid[:, inside]).brain
    areas = brain.reshape(len(x), -1, len(z)).sum(axis=(0, 1)) * _BOX_STEPS_MM[0] * _BOX_STEPS_MM[1]
    large = np.flatnonzero(areas >= end_area_mm2)
    return (
        _interpolate_crossing(z, areas, int(large[0]) - 1, end_area_mm2),
        _interpolate_crossing(z, areas, int(large[-1]), end_area_mm2),
    )


def _interpolate_crossing(
    z: NDArray[np.float32], areas: NDArray[np.float32], below: int, area_mm2: float
) -> float:
    """Interpolate the position between ``z[below]`` and the next one at which the areas cross ``area_mm2``."""
    share = (area_mm2 - areas[below]) / (areas[below + 1] - areas[below])
    return float(z[below] + share * (z[below + 1] - z[below]))
