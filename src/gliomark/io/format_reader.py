"""What a reader of an image format provides; ``readers`` lists all of them.

How to add a format: write one module that ends in ``READER = Reader(...)`` and add it to ``READERS`` in ``readers``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gliomark.errors import ConfigurationError
from gliomark.study import MRSequence, Series, Study


class Certainty(IntEnum):
    """How sure a reader is that a file or folder has its format."""

    NONE = 0
    POSSIBLE = 1  # a folder with such files, perhaps of several patients or without a readable image
    CERTAIN = 2  # a volume file, or the folder of one patient


@dataclass(frozen=True)
class ReadOptions:
    """Options for reading one patient's folder.

    Attributes
    ----------
    patient_id
        The id to use if the files state none.
    spacing_mm
        Spacing between columns, rows and slices in mm, for formats that store none; None: assumed.
    required_sequences
        The sequences that a model needs. They decide which of several examinations is read.
    """

    patient_id: str
    spacing_mm: tuple[float, float, float] | None = None
    required_sequences: tuple[MRSequence, ...] = ()


@dataclass(frozen=True, eq=False)
class VolumeContent:
    """The image of one volume file, with grey values as stored, and notes for the user.

    The image of the series is ``(slice, row, column)``; its affine maps ``(column, row, slice, 1)``, the reverse of the
    order of these axes, to LPS mm.
    """

    series: Series
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reader:
    """A reader of one image format: of volume files (``read_volume``) or of patients' folders (``read_folder``).

    Volume files of several formats may lie in one folder; their names and folders state sequence and patient
    (``dataset_layout``). A format of folders finds the sequences itself.

    Attributes
    ----------
    name
        Of the format.
    claims
        How sure the reader is of a volume file or of a patient's folder. It opens a file only if the name does not
        decide.
    read_volume
        Reads one volume file; ``VolumeContent`` states the order of axes.
    read_values
        Reads only the grey values of a volume file, in any order of axes, without checking its geometry; None: they
        are taken from ``read_volume``.
    read_folder
        Reads one patient's folder.

    Raises
    ------
    ConfigurationError
        Unless exactly one of ``read_volume`` and ``read_folder`` is given.
    """

    name: str
    claims: Callable[[Path], Certainty]
    read_volume: Callable[[Path], VolumeContent] | None = None
    read_values: Callable[[Path], NDArray[Any]] | None = None
    read_folder: Callable[[Path, ReadOptions], Study] | None = None

    def __post_init__(self) -> None:
        if (self.read_volume is None) == (self.read_folder is None):
            raise ConfigurationError(f"The reader {self.name} must read either volume files or folders.")


def create_suffix_claim(*suffixes: str) -> Callable[[Path], Certainty]:
    """Create the ``claims`` of a volume format that its file names' suffixes (lower case, with dot) decide."""

    def claim_suffix(file: Path) -> Certainty:
        return Certainty.CERTAIN if file.name.lower().endswith(suffixes) else Certainty.NONE

    return claim_suffix
