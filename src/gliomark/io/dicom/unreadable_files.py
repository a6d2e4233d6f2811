"""Skip unreadable files with a note if every chosen series is complete without them; otherwise raise."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gliomark.errors import InputError
from gliomark.io.dicom.dataset_reader import read_dataset
from gliomark.io.dicom.header_metadata import get_text
from gliomark.io.dicom.instances import (
    DAMAGED_FILE_ERRORS,
    MR_SOP_CLASSES,
    get_media_sop_class,
    is_dicom_file,
)
from gliomark.io.dicom.series import DicomSeries
from gliomark.io.examination_choice import has_required_sequences
from gliomark.io.folder_listing import list_visible_entries
from gliomark.messages import message
from gliomark.study import MRSequence

_MAX_LISTED_NAMES = 3
_CHECKED_BYTES = 4096


@dataclass(frozen=True)
class _RecoveredHeader:
    """The attributes that can still be read from a damaged file, "" if none."""

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
    """Return the series that are complete without the unreadable files, and notes on the skipped files.

    messages_by_file: each unreadable file with its error message.

    Raises
    ------
    InputError
        With the file's message, if a required series is incomplete without the file, or if a required sequence is
        missing that the file may belong to.
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
            raise InputError(messages_by_file[file])
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
    """Find lost slices: files that do not begin as DICOM but are named like the DICOM files in the same folder."""
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
    """Whether a damaged file belongs to a series.

    It does if its SeriesInstanceUID is the series', if it has a similar name in a folder with only this series, or if
    it lies in the folder of a series with missing slices.
    """
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
    """Whether a file was certainly an image: it begins as DICOM, or it is empty or begins with zeros only."""
    if is_dicom_file(file):
        return True
    with file.open("rb") as stream:
        return not any(stream.read(_CHECKED_BYTES))


def _get_name_pattern(file: Path) -> str:
    """Return the file name with each number replaced by 0."""
    return re.sub(r"[\d.]+", "0", file.name)


def _has_missing_slices(series: DicomSeries) -> bool:
    """Whether a slice is missing by position or by InstanceNumber."""
    numbers = {round(instance.instance_number) for instance in series.instances}
    first, last = min(numbers, default=0), max(numbers, default=0)
    return (
        bool(series.slice_positions and series.slice_positions.missing_indices)
        or len(numbers) < last - first + 1
        or first == 2
    )
