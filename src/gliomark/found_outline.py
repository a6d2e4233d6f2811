"""A lesion mask that lies among a patient's images: named, and offered as an outline, but never used unasked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gliomark.io.dicom import dicom_files
from gliomark.io.masks import predicted, read_masks, unite
from gliomark.io.masks.dicom import mask_kind
from gliomark.messages import message
from gliomark.study import GliomarkError, Series, SliceStack, Study


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


def find_outline(study: Study, stack: SliceStack) -> FoundOutline | None:
    """The mask that came with the images, on their stack; gliomark's own earlier answers are none."""
    if study.lesion is not None:
        return FoundOutline(study.lesion.source.name, stack.lesion)
    if not any(series.source_images for series in study.series.values()):
        return None
    files = [file for file in dicom_files(study.source) if mask_kind(file) and not predicted(file)]
    if not files:
        return None
    names = ", ".join(file.name for file in files)
    image = next(iter(stack.images.values()))
    grid = Series(image, stack.affine, stack.slice_names, study.source)
    try:
        masks = read_masks(None, study.series, files=files)
        return FoundOutline(names, unite(masks, grid, stack.to_stack).image > 0)
    except GliomarkError as error:
        return FoundOutline(names, None, error.message)
