"""Find a lesion mask among a patient's images. It is reported and offered to the user, never used automatically."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomark.errors import GliomarkError
from gliomark.io.dicom import find_dicom_files
from gliomark.io.masks import SeriesGrid, is_gliomark_result, read_masks, unite_masks
from gliomark.io.masks.dicom_segmentations import read_dicom_mask_kind
from gliomark.isolation import ReaderProcessError, ReadExecutor, run_in_this_process
from gliomark.messages import message
from gliomark.study import MRSequence, SliceStack, Study


@dataclass(frozen=True, eq=False)
class SuppliedMask:
    """A mask supplied with the images.

    files: file names. mask: bool ``(slice, row, column)`` on the grid of the patient's ``SliceStack``, None if it
    cannot be read; problem: the reason.
    """

    files: str
    mask: NDArray[np.bool_] | None
    problem: str = ""

    @property
    def note(self) -> str:
        """Message that a mask was found but not used."""
        if self.mask is None:
            return message("mask-unreadable", file=self.files, reason=self.problem)
        return message("mask-not-used", file=self.files)


def find_supplied_mask(
    study: Study, stack: SliceStack, reader_pool: ReadExecutor = run_in_this_process
) -> SuppliedMask | None:
    """Find the mask supplied with the images, on the grid of their stack; masks written by gliomark are ignored.

    reader_pool: where the files are read. A file that crashes its reader process is reported as unreadable.
    """
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
    """Read the DICOM masks in a patient's folder and merge them on a grid; None if there is none.

    grids: geometry of the series that were read. transform_by_sequence: rigid transform ``(4, 4)`` from the LPS mm of
    each series to the grid's.
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
