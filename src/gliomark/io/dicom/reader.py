"""Read one patient's DICOM folder, including its subfolders.

``series`` groups files into series, ``series_recognition`` identifies each series' sequence,
``examination_choice`` selects the examination and ``series_choice`` one series per sequence,
``unreadable_files`` handles damaged files, and ``volume`` builds the volume from the slices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gliomark.errors import GliomarkError, InputError
from gliomark.io.dicom.examination_choice import SeriesChoice, choose_examination_series
from gliomark.io.dicom.instances import (
    Instance,
    find_dicom_files,
    has_dicom_files,
    read_instance,
)
from gliomark.io.dicom.series import DicomSeries, get_patient_identity, group_series
from gliomark.io.dicom.series_choice import (
    describe_advantage,
)
from gliomark.io.dicom.unreadable_files import drop_incomplete_series, find_destroyed_files
from gliomark.io.dicom.volume import read_series
from gliomark.io.examination_choice import has_required_sequences
from gliomark.io.format_reader import Certainty, Reader, ReadOptions
from gliomark.messages import Message, message
from gliomark.study import MRSequence, Series, Study


def read_dicom(folder: Path, options: ReadOptions) -> Study:
    """Read one patient's DICOM folder.

    Parameters
    ----------
    folder
        Folder with the patient's DICOM files, at any depth.
    options
        The required sequences decide between several examinations. The patient id is used if PatientID is blank.

    Returns
    -------
    Study
        One volume ``(slice, row, column)`` per sequence.

    Raises
    ------
    InputError
        If the folder holds two patients, has no usable series or no examination that can be chosen, if a damaged file
        leaves a required series incomplete, if slices are unevenly spaced, or if pixels cannot be decoded.
    """
    needed = options.required_sequences
    instances, unreadable = _read_folder_headers(folder)
    images = [instance for instance in instances if instance.is_mr_image]
    if not images:
        for error_message in unreadable.values():
            raise InputError(error_message)
        found = ", ".join(sorted({instance.modality or "unknown" for instance in instances}))
        raise InputError(message("dicom-no-mr", folder=folder, found=found))
    _check_one_patient(folder, instances)
    series = group_series(images)
    choice = choose_examination_series(folder, series, needed)
    if choice is None:
        if coloured := [one.first_instance.file for one in series if one.first_instance.metadata.is_colour]:
            raise InputError(message("dicom-coloured", file=coloured[0]))
        found = ", ".join(sorted({one.series_description or "unnamed" for one in series}))
        raise InputError(message("dicom-no-sequence", folder=folder, found=found))
    complete_series, skipped_notes = drop_incomplete_series(choice.chosen_series, unreadable, needed)
    read, repair_notes = _read_series_skipping_damaged(complete_series, needed)
    notes = [*choice.notes, *_create_choice_notes(choice), *skipped_notes, *repair_notes]
    patient = images[0].patient_id.strip(" ^") or options.patient_id
    return Study(patient, read, folder, "volumes", notes=tuple(notes), examination=choice.examination)


def _read_series_skipping_damaged(
    chosen_series: Mapping[MRSequence, DicomSeries], needed: Sequence[MRSequence]
) -> tuple[dict[MRSequence, Series], list[str]]:
    """Read the chosen series; skip one with damaged pixels, with a note, if the others suffice."""
    series_by_sequence: dict[MRSequence, Series] = {}
    notes: list[str] = []
    remaining = frozenset(chosen_series)
    for sequence, series in chosen_series.items():
        try:
            series_by_sequence[sequence], repair_notes = read_series(series)
            notes += repair_notes
        except GliomarkError as error:
            error_message = error.args[0]
            is_damaged = isinstance(error_message, Message) and error_message.code == "dicom-undecodable"
            if not is_damaged or not has_required_sequences(remaining - {sequence}, needed):
                raise
            remaining -= {sequence}
            notes.append(
                message(
                    "dicom-not-needed", sequence=sequence, file=Path(error_message.parameters["file"]).name
                )
            )
    return series_by_sequence, notes


def _read_folder_headers(folder: Path) -> tuple[list[Instance], dict[Path, str]]:
    """Read the headers of all DICOM files in a folder; map each unreadable file to its error message."""
    headers = read_headers(list(find_dicom_files(folder)))
    instances = [one.instance for one in headers if one.instance is not None]
    unreadable = {one.file: one.problem for one in headers if one.instance is None}
    destroyed = find_destroyed_files(instance.file for instance in instances)
    return instances, unreadable | {file: message("dicom-damaged", file=file) for file in destroyed}


@dataclass(frozen=True)
class HeaderReadResult:
    """The header of a file; if it cannot be read, ``instance`` is None and ``problem`` gives the reason."""

    file: Path
    instance: Instance | None
    problem: str = ""


def read_headers(files: Sequence[Path]) -> list[HeaderReadResult]:
    """Read the headers of several files; a damaged file does not affect the others."""
    return [_read_header(file) for file in files]


def _read_header(file: Path) -> HeaderReadResult:
    try:
        return HeaderReadResult(file, read_instance(file))
    except GliomarkError as error:
        return HeaderReadResult(file, None, error.message)


def _check_one_patient(folder: Path, instances: Sequence[Instance]) -> None:
    """Raise if id, name or birth date (where given) differ between two files.

    Names and birth dates are compared between images only: other tools often blank or shorten them in the objects
    that they add.
    """
    for index, code in enumerate(("dicom-two-ids", "dicom-two-names", "dicom-two-birth-dates")):
        owners: dict[str, Path] = {}
        for instance in instances:
            value = get_patient_identity(instance)[index]
            if value and (index == 0 or instance.is_mr_image):
                owners.setdefault(value, instance.file)
        if len(owners) > 1:
            one, other = (str(file.relative_to(folder)) for file in list(owners.values())[:2])
            raise InputError(message(code, folder=folder, one=one, other=other))


def _create_choice_notes(choice: SeriesChoice) -> list[str]:
    """Describe choices between several series, and list the series that were not recognised."""
    notes: list[str] = []
    for sequence, series in choice.chosen_series.items():
        others = [
            s for s in choice.examination_series if s.recognition.sequence == sequence and s is not series
        ]
        if others:
            name = series.series_description or series.first_instance.file.name
            why = describe_advantage(series, others[0])
            notes.append(
                message("series-candidates", count=len(others) + 1, sequence=sequence, name=name, why=why)
            )
    for other in choice.examination_series:
        if other.recognition.kind == "unknown":
            reason = other.recognition.reason
            notes.append(message("series-unknown", name=other.series_description, reason=reason))
        elif other.first_instance.metadata.is_colour:
            notes.append(
                message("series-unknown", name=other.series_description, reason=message("series-coloured"))
            )
    return notes


def _claim_folder(folder: Path) -> Certainty:
    """Claim a folder with DICOM files, which only their headers assign to one patient or several."""
    return Certainty.POSSIBLE if has_dicom_files(folder) else Certainty.NONE


READER = Reader("DICOM", _claim_folder, read_folder=read_dicom)
