"""DICOM: a folder, searched with all its subfolders, of one patient's MR files.

Which series is which sequence: ``recognition``. How files become stacks: ``series``. Which examination is read:
``examinations``; which stack of it, where several are candidates: ``choice``. What damaged files take away:
``unreadable``. How slices become a volume, and what is mended on the way: ``volume``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gliomark.io.dicom.choice import choose_series, contrast_doubt, why_best, why_chosen
from gliomark.io.dicom.examinations import ChosenSeries, choose_from
from gliomark.io.dicom.instances import (
    Frame,
    Instance,
    can_hold_frames,
    dicom_files,
    holds_dicom,
    is_one_patient,
    looks_like_dicom,
    read_instance,
)
from gliomark.io.dicom.series import DicomSeries, group_series, owner_key
from gliomark.io.dicom.unreadable import check_unreadable, destroyed_files
from gliomark.io.dicom.volume import read_series
from gliomark.io.examinations import is_complete
from gliomark.io.layout import patient_name
from gliomark.messages import Message, message
from gliomark.study import GliomarkError, MRSequence, Series, Study

__all__ = [
    "ChosenSeries", "DicomSeries", "Frame", "Instance", "ReadHeader", "can_hold_frames", "check_unreadable",
    "choose_from", "choose_series", "contrast_doubt", "destroyed_files", "dicom_files",
    "group_series", "holds_dicom", "is_one_patient", "looks_like_dicom", "owner_key",
    "read_dicom", "read_headers", "read_instance", "read_series", "why_chosen",
]  # fmt: skip


def read_dicom(path: Path, needed: Sequence[MRSequence] = ()) -> Study:
    """Read one patient's DICOM folder; the id is PatientID, or the folder's name where that is blank.

    needed: the sequences that a model takes, for the choice between several examinations.

    Raises: GliomarkError for two patients, no usable series, no examination that can be chosen, a damaged file that a
    series lacks, uneven slices or pixels that cannot be decoded.
    """
    instances, unreadable = _read_all(path)
    images = [instance for instance in instances if instance.is_mr_image]
    if not images:
        for sentence in unreadable.values():
            raise GliomarkError(sentence)
        found = ", ".join(sorted({instance.modality or "unknown" for instance in instances}))
        raise GliomarkError(message("dicom-no-mr", folder=path, found=found))
    _check_one_patient(path, instances)
    series = group_series(images)
    chosen = choose_from(path, series, needed)
    if chosen is None:
        if coloured := [one.first.file for one in series if one.first.facts.coloured]:
            raise GliomarkError(message("dicom-coloured", file=coloured[0]))
        found = ", ".join(sorted({one.description or "no name" for one in series}))
        raise GliomarkError(message("dicom-no-sequence", folder=path, found=found))
    whole, passed_over = check_unreadable(chosen.used, unreadable, needed)
    read, mended = _read_whole(whole, needed)
    notes = [*chosen.notes, *_notes_on_choice(chosen), *passed_over, *mended]
    patient = images[0].patient_id.strip(" ^") or patient_name(path)
    return Study(patient, read, path, "volumes", notes=tuple(notes), examination=chosen.examination)


def _read_whole(
    used: Mapping[MRSequence, DicomSeries], needed: Sequence[MRSequence]
) -> tuple[dict[MRSequence, Series], list[str]]:
    """Read series; one with damaged pixels is passed over with a note where the others suffice."""
    read: dict[MRSequence, Series] = {}
    notes: list[str] = []
    left = frozenset(used)
    for sequence, one in used.items():
        try:
            read[sequence], mended = read_series(one)
            notes += mended
        except GliomarkError as error:
            said = error.args[0]
            damaged = isinstance(said, Message) and said.code == "dicom-undecodable"
            if not damaged or not is_complete(left - {sequence}, needed):
                raise
            left -= {sequence}
            notes.append(
                message("dicom-not-needed", sequence=sequence, file=Path(said.parameters["file"]).name)
            )
    return read, notes


def _read_all(path: Path) -> tuple[list[Instance], dict[Path, str]]:
    """The headers of all DICOM files below a folder, and the files that cannot be read, with a sentence on each."""
    headers = read_headers(list(dicom_files(path)))
    instances = [one.instance for one in headers if one.instance is not None]
    unreadable = {one.file: one.problem for one in headers if one.instance is None}
    destroyed = destroyed_files(instance.file for instance in instances)
    return instances, unreadable | {file: message("dicom-damaged", file=file) for file in destroyed}


@dataclass(frozen=True)
class ReadHeader:
    """A file's header, or why there is none."""

    file: Path
    instance: Instance | None
    problem: str = ""


def read_headers(files: Sequence[Path]) -> list[ReadHeader]:
    """Many files' headers; a damaged one costs no other."""
    return [_read_header(file) for file in files]


def _read_header(file: Path) -> ReadHeader:
    try:
        return ReadHeader(file, read_instance(file))
    except GliomarkError as error:
        return ReadHeader(file, None, error.message)


def _check_one_patient(path: Path, instances: Sequence[Instance]) -> None:
    """Refuse a folder in which id, name or birth date (where given) differ between two files.

    Names and birth dates are asked of images alone: what other tools add often has them blanked or shortened.
    """
    for at, code in enumerate(("dicom-two-ids", "dicom-two-names", "dicom-two-birth-dates")):
        owners: dict[str, Path] = {}
        for instance in instances:
            value = owner_key(instance)[at]
            if value and (at == 0 or instance.is_mr_image):
                owners.setdefault(value, instance.file)
        if len(owners) > 1:
            one, other = (str(file.relative_to(path)) for file in list(owners.values())[:2])
            raise GliomarkError(message(code, folder=path, one=one, other=other))


def _notes_on_choice(chosen: ChosenSeries) -> list[str]:
    """Where there was a choice between series, and what was left as unknown."""
    notes: list[str] = []
    for sequence, one in chosen.used.items():
        others = [s for s in chosen.series if s.recognition.sequence == sequence and s is not one]
        if others:
            name = one.description or one.first.file.name
            why = why_best(one, others[0])
            notes.append(
                message("series-candidates", count=len(others) + 1, sequence=sequence, name=name, why=why)
            )
    for other in chosen.series:
        if other.recognition.kind == "unknown":
            reason = other.recognition.reason
            notes.append(message("series-unknown", name=other.description, reason=reason))
        elif other.first.facts.coloured:
            notes.append(message("series-unknown", name=other.description, reason=message("series-coloured")))
    return notes
