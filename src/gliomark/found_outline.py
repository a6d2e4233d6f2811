"""A lesion mask that lies among a patient's images: named, and offered as an outline, but never used unasked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomark.io.dicom import dicom_files
from gliomark.io.masks import Grid, predicted, read_masks, unite
from gliomark.io.masks.dicom import mask_kind
from gliomark.isolation import ReadingEndedError, Reads, read_here
from gliomark.messages import message
from gliomark.study import GliomarkError, MRSequence, SliceStack, Study


@dataclass(frozen=True, eq=False)
class FoundOutline:
    """files: their names. mask: bool ``(slice, row, column)`` on the patient's SliceStack, None where it cannot be
    read, problem then saying why."""

    files: str
    mask: NDArray[np.bool_] | None
    problem: str = ""

    @property
    def note(self) -> str:
        """That it is there and was not used."""
        if self.mask is None:
            return message("mask-unreadable", file=self.files, reason=self.problem)
        return message("mask-not-used", file=self.files)


def find_outline(study: Study, stack: SliceStack, reading: Reads = read_here) -> FoundOutline | None:
    """The mask that came with the images, on their stack; gliomark's own earlier answers are none.

    reading: where the files are read. One that ends its process is an outline that cannot be read."""
    if study.lesion is not None:
        return FoundOutline(study.lesion.source.name, stack.lesion)
    if not any(series.source_images for series in study.series.values()):
        return None
    grids = {name: Grid.of(series) for name, series in study.series.items()}
    shape = next(iter(stack.images.values())).shape
    grid = Grid(shape, stack.affine, stack.slice_names, study.source)
    try:
        return reading(study.source, outline_among, study.source, grids, grid, stack.to_stack)
    except ReadingEndedError as error:
        return FoundOutline(message("mask-files"), None, error.message)


def outline_among(
    source: Path,
    grids: Mapping[MRSequence, Grid],
    grid: Grid,
    to_grid: Mapping[MRSequence, NDArray[np.float64]],
) -> FoundOutline | None:
    """The DICOM masks of a patient's folder, united on a grid; None where there is none.

    grids: of the series that were read; to_grid: from each series' millimetres to the grid's.
    """
    files = [file for file in dicom_files(source) if mask_kind(file) and not predicted(file)]
    if not files:
        return None
    names = ", ".join(file.name for file in files)
    try:
        masks = read_masks(None, {name: one.series for name, one in grids.items()}, files=files)
        return FoundOutline(names, unite(masks, grid.series, to_grid).image > 0)
    except GliomarkError as error:
        return FoundOutline(names, None, error.message)
