"""Files that cannot be read: passed over with a note where the series used are whole without them, else refused."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gliomark.io.dicom.facts import get_text
from gliomark.io.dicom.files import read_dataset
from gliomark.io.dicom.instances import (
    DAMAGED_FILE_ERRORS,
    MR_SOP_CLASSES,
    get_media_sop_class,
    is_dicom_file,
)
from gliomark.io.dicom.series import DicomSeries
from gliomark.io.examinations import has_required_sequences
from gliomark.io.layout import list_visible_entries
from gliomark.messages import message
from gliomark.study import GliomarkError, MRSequence

_MAX_LISTED_NAMES = 3
_CHECKED_BYTES = 4096


@dataclass(frozen=True)
class _RecoveredHeader:
    """What a damaged file still says of itself, blank where nothing."""

    sop_class_uid: str = ""
    series_instance_uid: str = ""

    @property
    def may_be_mr_image(self) -> bool:
        return not self.sop_class_uid or self.sop_class_uid in MR_SOP_CLASSES


def drop_incomplete_series(
    chosen_series: Mapping[MRSequence, DicomSeries],
    messages_by_file: Mapping[Path, str],
    needed: Sequence[MRSequence] = (),
) -> tuple[Mapping[MRSequence, DicomSeries], tuple[str, ...]]:
    """The series that are whole, where those suffice, and notes on what was passed over.

    unreadable: files, each with the sentence on it. Raises: GliomarkError, that sentence, where a series that is needed
    lacks the file, or a sequence is missing that it may hold.
    """
    complete_series, notes, unrelated_files = dict(chosen_series), [], []
    for file in messages_by_file:
        recovered_header = _recover_header(file)
        incomplete_sequences = [
            name
            for name, one in complete_series.items()
            if recovered_header.may_be_mr_image and _belongs_to_series(one, file, recovered_header)
        ]
        complete_sequences = frozenset(complete_series) - frozenset(incomplete_sequences)
        may_lack = recovered_header.may_be_mr_image and (bool(incomplete_sequences) or _is_lost_image(file))
        if may_lack and not has_required_sequences(complete_sequences, needed):
            raise GliomarkError(messages_by_file[file])
        for name in incomplete_sequences:
            del complete_series[name]
            notes.append(message("dicom-not-needed", sequence=name, file=file.name))
        unrelated_files += [] if incomplete_sequences else [file]
    destroyed = [file for file in unrelated_files if not is_dicom_file(file)]
    for code, files in (
        ("dicom-passed-over", [file for file in unrelated_files if file not in destroyed]),
        ("dicom-destroyed", destroyed),
    ):
        if files:
            names = ", ".join(file.name for file in files[:_MAX_LISTED_NAMES])
            notes.append(message(code, count=len(files), names=names))
    return complete_series, tuple(notes)


def find_destroyed_files(readable_files: Iterable[Path]) -> list[Path]:
    """Files without a DICOM file's beginning that are named like the DICOM files beside them: lost slices."""
    patterns_by_folder: dict[Path, set[str]] = defaultdict(set)
    readable_set = set(readable_files)
    for file in readable_set:
        patterns_by_folder[file.parent].add(_get_name_pattern(file))
    return [
        entry
        for folder, known_patterns in sorted(patterns_by_folder.items())
        for entry in list_visible_entries(folder)
        if entry not in readable_set
        and _get_name_pattern(entry) in known_patterns
        and entry.is_file()
        and not is_dicom_file(entry)
    ]


def _recover_header(file: Path) -> _RecoveredHeader:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = read_dataset(file, stop_before_pixels=True)
            return _RecoveredHeader(
                get_text(header, "SOPClassUID") or get_media_sop_class(header),
                get_text(header, "SeriesInstanceUID"),
            )
    except DAMAGED_FILE_ERRORS:
        return _RecoveredHeader()


def _belongs_to_series(series: DicomSeries, file: Path, recovered_header: _RecoveredHeader) -> bool:
    """Whether a damaged file is one of the series': it says so, is named like its files in a folder that is the
    series' own, or lies beside a series with a hole."""
    if recovered_header.series_instance_uid:
        return recovered_header.series_instance_uid == series.first_instance.series_instance_uid
    files_in_folder = [one.file for one in series.instances if one.file.parent == file.parent]
    if not files_in_folder:
        return False
    is_own_folder = (
        sum(is_dicom_file(entry) for entry in list_visible_entries(file.parent) if entry.is_file())
        <= len(files_in_folder) + 1
    )
    has_similar_name = any(_get_name_pattern(one) == _get_name_pattern(file) for one in files_in_folder)
    return _has_missing_slices(series) or (is_own_folder and has_similar_name and _is_lost_image(file))


def _is_lost_image(file: Path) -> bool:
    """Whether a file was an image for sure: it still begins as DICOM, or holds nothing at all or only zeros."""
    if is_dicom_file(file):
        return True
    with file.open("rb") as stream:
        return not any(stream.read(_CHECKED_BYTES))


def _get_name_pattern(file: Path) -> str:
    """A file's name without its numbers."""
    return re.sub(r"[\d.]+", "0", file.name)


def _has_missing_slices(series: DicomSeries) -> bool:
    """A slice is missing by its place, or an image by its number."""
    numbers = {round(instance.instance_number) for instance in series.instances}
    first, last = min(numbers, default=0), max(numbers, default=0)
    return (
        bool(series.slice_positions and series.slice_positions.missing_indices)
        or len(numbers) < last - first + 1
        or first == 2
    )
