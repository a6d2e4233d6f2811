"""Files that cannot be read: passed over with a note where the series used are whole without them, else refused."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gliomark.io.dicom.facts import text
from gliomark.io.dicom.files import read_dataset
from gliomark.io.dicom.instances import DAMAGE, MR_CLASSES, looks_like_dicom, media_class
from gliomark.io.dicom.series import DicomSeries
from gliomark.io.examinations import is_complete
from gliomark.io.layout import visible
from gliomark.messages import message
from gliomark.study import GliomarkError, MRSequence

_SHOWN = 3
_START_BYTES = 4096


@dataclass(frozen=True)
class _Remains:
    """What a damaged file still says of itself, blank where nothing."""

    sop_class: str = ""
    series_uid: str = ""

    @property
    def may_be_image(self) -> bool:
        return not self.sop_class or self.sop_class in MR_CLASSES


def check_unreadable(
    used: Mapping[MRSequence, DicomSeries], unreadable: Mapping[Path, str], needed: Sequence[MRSequence] = ()
) -> tuple[Mapping[MRSequence, DicomSeries], tuple[str, ...]]:
    """The series that are whole, where those suffice, and notes on what was passed over.

    unreadable: files, each with the sentence on it. Raises: GliomarkError, that sentence, where a series that is needed
    lacks the file, or a sequence is missing that it may hold.
    """
    whole, notes, others = dict(used), [], []
    for file in unreadable:
        remains = _remains(file)
        lacking = [name for name, one in whole.items() if remains.may_be_image and _needs(one, file, remains)]
        left = frozenset(whole) - frozenset(lacking)
        may_lack = remains.may_be_image and (bool(lacking) or _is_slice(file))
        if may_lack and not is_complete(left, needed):
            raise GliomarkError(unreadable[file])
        for name in lacking:
            del whole[name]
            notes.append(message("dicom-not-needed", sequence=name, file=file.name))
        others += [] if lacking else [file]
    destroyed = [file for file in others if not looks_like_dicom(file)]
    for code, files in (
        ("dicom-passed-over", [file for file in others if file not in destroyed]),
        ("dicom-destroyed", destroyed),
    ):
        if files:
            names = ", ".join(file.name for file in files[:_SHOWN])
            notes.append(message(code, count=len(files), names=names))
    return whole, tuple(notes)


def destroyed_files(readable: Iterable[Path]) -> list[Path]:
    """Files without a DICOM file's beginning that are named like the DICOM files beside them: lost slices."""
    shapes: dict[Path, set[str]] = defaultdict(set)
    whole = set(readable)
    for file in whole:
        shapes[file.parent].add(_shape(file))
    return [
        entry
        for folder, known in sorted(shapes.items())
        for entry in visible(folder)
        if entry not in whole and _shape(entry) in known and entry.is_file() and not looks_like_dicom(entry)
    ]


def _remains(file: Path) -> _Remains:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = read_dataset(file, stop_before_pixels=True)
            return _Remains(
                text(header, "SOPClassUID") or media_class(header), text(header, "SeriesInstanceUID")
            )
    except DAMAGE:
        return _Remains()


def _needs(series: DicomSeries, file: Path, remains: _Remains) -> bool:
    """Whether a damaged file is one of the series': it says so, is named like its files in a folder that is the
    series' own, or lies beside a series with a hole."""
    if remains.series_uid:
        return remains.series_uid == series.first.series_uid
    beside = [one.file for one in series.instances if one.file.parent == file.parent]
    if not beside:
        return False
    own = sum(looks_like_dicom(entry) for entry in visible(file.parent) if entry.is_file()) <= len(beside) + 1
    alike = any(_shape(one) == _shape(file) for one in beside)
    return _has_hole(series) or (own and alike and _is_slice(file))


def _is_slice(file: Path) -> bool:
    """Whether a file was an image for sure: it still begins as DICOM, or holds nothing at all or only zeros."""
    if looks_like_dicom(file):
        return True
    with file.open("rb") as stream:
        return not any(stream.read(_START_BYTES))


def _shape(file: Path) -> str:
    """A file's name without its numbers."""
    return re.sub(r"[\d.]+", "0", file.name)


def _has_hole(series: DicomSeries) -> bool:
    """A slice is missing by its place, or an image by its number."""
    numbers = {round(instance.order) for instance in series.instances}
    first, last = min(numbers, default=0), max(numbers, default=0)
    return bool(series.grid and series.grid.missing) or len(numbers) < last - first + 1 or first == 2
