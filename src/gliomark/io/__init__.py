"""Reading: picture, volume and DICOM folders into one Study, and the clinical table.

The kind of a folder is found from what lies in it: subfolders named after sequences that hold pictures, else
volume files with a sequence in their name, else DICOM files anywhere below. BIDS and nnU-Net data sets are told
by their folders and files (``layout``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gliomark.files import files_below
from gliomark.io.dicom import holds_dicom, is_one_patient, looks_like_dicom, read_dicom
from gliomark.io.layout import (
    case_files,
    folders_in,
    holds_volumes,
    no_sequence_named,
    patient_name,
    special_files,
    visible,
    volume_files,
    volume_patients,
)
from gliomark.io.limits import is_plain
from gliomark.io.naming import is_lesion_name, sequence_in_name
from gliomark.io.nifti import read_volumes
from gliomark.io.pictures import holds_pictures, picture_files, read_pictures
from gliomark.messages import message
from gliomark.study import GliomarkError, MRSequence, Study
from gliomark.tables import ClinicalTable, read_clinical

__all__ = [
    "ClinicalTable", "files_of_patient", "find_file_patients", "find_patients", "patient_name", "read_clinical",
    "read_study",
]  # fmt: skip


def read_study(
    path: Path | str,
    *,
    spacing_mm: tuple[float, float, float] | None = None,
    needed: Sequence[MRSequence] = (),
) -> Study:
    """Read one patient's folder, or the folder around a sequence's subfolder that was picked.

    spacing_mm: for pictures, which carry none: mm from column to column, row to row and slice to slice.
    needed: the sequences that a model takes, for the choice between several examinations of the patient.

    The files are read in this process. Files from strangers may crash, hang or swell it; the command line and the
    server read in processes of their own: ``with ReadingProcesses() as reading: reading(path, read_study, path)``.

    Raises: GliomarkError, one sentence, for whatever the user can mend.
    """
    path = _patient_folder(Path(path))
    if holds_volumes(path) and not path.exists():
        return read_volumes(path)
    if holds_pictures(path):
        return _with_note_on_links(read_pictures(path, spacing_mm), path)
    if holds_volumes(path):
        return _with_note_on_links(read_volumes(path, needed), path)
    if holds_dicom(path):
        return _with_note_on_links(read_dicom(path, needed), path)
    raise GliomarkError(_why_nothing(path))


def _with_note_on_links(study: Study, path: Path) -> Study:
    """The study, with a note where links or special files in its folder were passed over."""
    if not (passed := special_files(path)):
        return study
    note = message("links-passed-over", count=len(passed), names=", ".join(file.name for file in passed[:3]))
    return replace(study, notes=(*study.notes, note))


def find_patients(path: Path | str) -> list[Path]:
    """Patients at a path: the folder itself where it is one patient's, else its patient subfolders by name.

    Of a BIDS data set its subjects; of an nnU-Net folder its cases, which have no folder: ``<folder>/<case>``.
    Hidden folders, plain files and subfolders without images are passed over.

    Raises: GliomarkError when there is none.
    """
    path = _patient_folder(Path(path))
    if not path.exists():
        return [path]
    if (patients := find_file_patients(path)) == [path]:
        return patients
    if not patients and is_one_patient(path):
        return [path]
    if not patients or patients[0].parent == path:
        patients = sorted({*patients, *(folder for folder in folders_in(path) if _holds_images(folder))})
    if not patients and _holds_images(path):
        return [path]  # read_study says what is wrong with it
    if not patients:
        raise GliomarkError(_why_nothing(path))
    return patients


def find_file_patients(path: Path) -> list[Path]:
    """Patients whose images are pictures or volumes, DICOM left aside: as ``find_patients``, or none."""
    if patients := volume_patients(path):
        return patients
    if holds_pictures(path) or holds_volumes(path):
        return [path]
    return [folder for folder in folders_in(path) if holds_pictures(folder) or holds_volumes(folder)]


def files_of_patient(path: Path) -> list[Path]:
    """Every file below a patient's folder, or those of a case that has none."""
    return sorted(filter(is_plain, files_below(path))) if path.exists() else case_files(path)


def _patient_folder(path: Path) -> Path:
    """Check the folder; where a sequence's own subfolder (``<patient>/T1c``) was picked, take its parent."""
    if not path.exists() and not holds_volumes(path):
        raise GliomarkError(message("folder-missing", folder=path))
    if path.is_file():
        raise GliomarkError(message("folder-is-file", folder=path))
    parent = path.absolute().parent
    name = path.absolute().name
    if not path.exists() or (sequence_in_name(name) is None and not is_lesion_name(name)):
        return path
    if picture_files(path) and holds_pictures(parent):
        return parent
    if len(volume_files(path)) == 1 and holds_volumes(parent):
        return parent
    direct_dicom = any(entry.is_file() and looks_like_dicom(entry) for entry in visible(path))
    return parent if direct_dicom and is_one_patient(parent) and not volume_files(path) else path


def _holds_images(folder: Path) -> bool:
    """Whether a folder is worth reading as a patient, be it to be told what is wrong with it."""
    known = holds_pictures(folder) or holds_volumes(folder) or bool(volume_files(folder))
    return known or bool(picture_files(folder)) or holds_dicom(folder)


def _why_nothing(path: Path) -> str:
    """The sentence for a folder without a readable patient."""
    passed = special_files(path)
    if not visible(path) and not passed:
        return message("folder-empty", folder=path)
    if picture_files(path):
        return message("pictures-loose", folder=path)
    if patients := volume_patients(path):
        return message("folder-many-patients", folder=path, count=len(patients), patient=patients[0].name)
    if files := volume_files(path):
        return no_sequence_named(path, files)
    if passed:
        return message("folder-links", folder=path, name=passed[0].relative_to(path))
    return message("folder-no-images", folder=path)
