"""The registry of image formats, and the choice of a reader for a volume file or a patient's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomark.errors import InputError
from gliomark.io import itk, nifti, pictures
from gliomark.io.dicom import reader as dicom
from gliomark.io.format_reader import Certainty, Reader, VolumeContent
from gliomark.io.volume_checks import check_affine
from gliomark.messages import message

# If several readers are equally sure, the first one reads.
READERS: tuple[Reader, ...] = (pictures.READER, nifti.READER, itk.READER, dicom.READER)


def is_volume_file(file: Path) -> bool:
    """Whether a file is a volume of a registered format, by its name."""
    return _find_volume_reader(file) is not None


def read_volume(file: Path) -> VolumeContent:
    """Read one 3-D grey-scale volume ``(slice, row, column)``; grey values are unchanged.

    Raises
    ------
    InputError
        If no registered format reads the file, it is damaged, in colour or not 3-D, or its axes are not orthogonal.
    """
    reader = _find_volume_reader(file)
    if reader is None or reader.read_volume is None:
        names = ", ".join(one.name for one in READERS if one.read_volume)
        raise InputError(message("volume-format-unknown", file=file, formats=names))
    content = reader.read_volume(file)
    check_affine(file, content.series.affine)
    return content


def read_volume_values(file: Path) -> NDArray[Any]:
    """Read the grey values of a volume, without checking its geometry.

    They are as the file stores them: ``(slice, row, column)`` or ``(column, row, slice)``.

    Raises
    ------
    Exception
        Of any type that the format's decoder raises for a damaged file.
    """
    reader = _find_volume_reader(file)
    if reader is not None and reader.read_values is not None:
        return reader.read_values(file)
    return np.asarray(read_volume(file).series.image)


def find_layout_reader(folder: Path) -> Reader | None:
    """Find the reader that is certain of one patient's folder by its names; DICOM files would have to be opened."""
    readers = (reader for reader in READERS if reader.read_folder is not None and reader is not dicom.READER)
    return next((reader for reader in readers if reader.claims(folder) is Certainty.CERTAIN), None)


def find_folder_reader(folder: Path) -> Reader | None:
    """Find the reader that is surest of a folder, or None."""
    readers = (reader for reader in READERS if reader.read_folder is not None)
    claims = [(reader.claims(folder), reader) for reader in readers]
    certainty, reader = max(claims, key=lambda claim: claim[0])
    return reader if certainty else None


def _find_volume_reader(file: Path) -> Reader | None:
    claims = [(reader.claims(file), reader) for reader in READERS if reader.read_volume is not None]
    certainty, reader = max(claims, key=lambda claim: claim[0])
    return reader if certainty else None
