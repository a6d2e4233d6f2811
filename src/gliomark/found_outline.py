"""A lesion mask that lies among a patient's images: named, and offered as an outline, but never used unasked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomark.io.dicom import find_dicom_files
from gliomark.io.masks import SeriesGrid, is_gliomark_result, read_masks, unite_masks
from gliomark.io.masks.dicom import read_dicom_mask_kind
from gliomark.isolation import ReaderProcessError, ReadExecutor, run_in_this_process
from gliomark.messages import message
from gliomark.study import GliomarkError, MRSequence, SliceStack, Study


@dataclass(frozen=True, eq=False)
class SuppliedMask:
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


def find_supplied_mask(
    study: Study, stack: SliceStack, reader_pool: ReadExecutor = run_in_this_process
) -> SuppliedMask | None:
    """The mask that came with the images, on their stack; gliomark's own earlier answers are none.

    reading: where the files are read. One that ends its process is an outline that cannot be read."""
    if study.lesion is not None:
        return SuppliedMask(study.lesion.source.name, stack.lesion)
    if not any(series.source_images for series in study.series.values()):
        return None
    grids = {name: SeriesGrid.from_series(series) for name, series in study.series.items()}
    shape = next(iter(stack.images.values())).shape
    grid = SeriesGrid(shape, stack.affine, stack.slice_names, study.source)
    try:
        return reader_pool(study.source, read_supplied_masks, study.source, grids, grid, stack.to_stack)
    except ReaderProcessError as error:
        return SuppliedMask(message("mask-files"), None, error.message)


def read_supplied_masks(
    source: Path,
    grids: Mapping[MRSequence, SeriesGrid],
    grid: SeriesGrid,
    transform_by_sequence: Mapping[MRSequence, NDArray[np.float64]],
) -> SuppliedMask | None:
    """The DICOM masks of a patient's folder, united on a grid; None where there is none.

    grids: of the series that were read; to_grid: from each series' millimetres to the grid's.
    """
    files = [
        file
        for file in find_dicom_files(source)
        if read_dicom_mask_kind(file) and not is_gliomark_result(file)
    ]
    if not files:
        return None
    names = ", ".join(file.name for file in files)
    try:
        masks = read_masks(
            None,
            {name: grid_of_sequence.blank_series for name, grid_of_sequence in grids.items()},
            files=files,
        )
        return SuppliedMask(names, unite_masks(masks, grid.blank_series, transform_by_sequence).image > 0)
    except GliomarkError as error:
        return SuppliedMask(names, None, error.message)
