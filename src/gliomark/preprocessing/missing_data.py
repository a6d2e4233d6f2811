"""Check for missing data in a series: slices of a single grey value, and voxels without a value in the file.

Outside the brain they count as background. Inside the brain they would be mistaken for tissue, so an error is raised.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from gliomark.errors import InputError
from gliomark.messages import Message, message
from gliomark.preprocessing.resampling import resample, to_simpleitk_image
from gliomark.preprocessing.slicing import MIN_BRAIN_AREA_MM2
from gliomark.study import MRSequence, Series, Study

_MAX_SHOWN_NAMES = 5


def check_missing_data(
    study: Study,
    brain: sitk.Image,
    transforms: Mapping[MRSequence, sitk.Transform],
    stripped_sequences: Collection[MRSequence],
) -> tuple[Message, ...]:
    """Check every sequence of ``transforms`` for missing data in the brain; return notes on empty slices outside.

    Parameters
    ----------
    study
        The patient's series as stored.
    brain
        Brain mask, uint8 0 or 1, on the reference's grid.
    transforms
        From points of the reference to points of each sequence, LPS mm.
    stripped_sequences
        Sequences without a skull. Their first and last slices are usually empty and may be so.

    Raises
    ------
    InputError
        If a slice or voxel inside the brain has no data.
    """
    notes = []
    for name, transform in transforms.items():
        series = study.series[name]
        grid = to_simpleitk_image(series.image, series.affine)
        inside = sitk.GetArrayFromImage(
            resample(brain, grid, transform.GetInverse(), 0.0, sitk.sitkNearestNeighbor)
        ).astype(bool)
        notes += _check_empty_slices(name, series, inside, name in stripped_sequences)
        _check_missing_voxels(name, series, inside)
    return tuple(notes)


def _check_empty_slices(
    name: MRSequence, series: Series, brain: NDArray[np.bool_], is_stripped: bool
) -> list[Message]:
    empty = series.image.min(axis=(1, 2)) == series.image.max(axis=(1, 2))
    if not empty.any():
        return []
    shown = np.flatnonzero(~empty)
    pixel_mm2 = float(np.prod(np.linalg.norm(series.affine[:3, :2], axis=0)))
    with_brain = np.flatnonzero(brain.sum(axis=(1, 2)) * pixel_mm2 >= MIN_BRAIN_AREA_MM2)
    index = np.arange(len(empty))
    within = empty & (index >= with_brain.min(initial=len(index))) & (index <= with_brain.max(initial=-1))
    if is_stripped:
        at_ends = (index < shown[0]) | (index > shown[-1])
        if (within & at_ends).any():
            slices = _format_slice_names(series, within & at_ends)
            within &= ~at_ends
            if not within.any():
                return [message("slices-empty-at-ends", name=name, slices=slices)]
    if within.any():
        raise InputError(
            message("slices-empty", file=series.source, name=name, slices=_format_slice_names(series, within))
        )
    return (
        []
        if is_stripped
        else [message("slices-background", name=name, slices=_format_slice_names(series, empty))]
    )


def _check_missing_voxels(name: MRSequence, series: Series, brain: NDArray[np.bool_]) -> None:
    """Raise if voxels without a value are in or next to the brain; a background of such voxels is allowed."""
    if series.missing is None:
        return
    labels, _ = ndimage.label(series.missing)
    rims = [labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]]
    rim = np.concatenate([part.ravel() for part in rims])
    background = np.bincount(rim[rim > 0], minlength=2)
    background_label = background.argmax() if 2 * background.max() > rim.size else -1
    gap = series.missing & (labels != background_label) & ndimage.binary_dilation(brain)
    if gap.any():
        slices = _format_slice_names(series, gap.any(axis=(1, 2)))
        raise InputError(message("voxels-missing", file=series.source, name=name, slices=slices))


def _format_slice_names(series: Series, chosen: NDArray[np.bool_]) -> str | Message:
    """Format the names of the chosen slices; a long list is shortened."""
    names = [series.slice_names[at] for at in np.flatnonzero(chosen)]
    shown = ", ".join(names[:_MAX_SHOWN_NAMES])
    return message("and-others", names=shown) if len(names) > _MAX_SHOWN_NAMES else shown
