"""Reading: picture, volume and DICOM folders into one Study, and the clinical table.

The kind of a folder is found from what lies in it: subfolders named after sequences that hold pictures, else
volume files with a sequence in their name, else DICOM files anywhere below. BIDS and nnU-Net data sets are told
by their folders and files (``layout``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gliomark.files import iterate_files
from gliomark.io.dicom import has_dicom_files, is_dicom_file, is_one_patient, read_dicom
from gliomark.io.layout import (
    derive_patient_id,
    find_dataset_patients,
    format_no_sequence_message,
    has_volumes,
    list_case_files,
    list_special_files,
    list_subfolders,
    list_visible_entries,
    list_volume_files,
)
from gliomark.io.limits import is_regular_file
from gliomark.io.naming import find_sequence_in_name, is_lesion_mask_name
from gliomark.io.nifti import read_volumes
from gliomark.io.pictures import has_pictures, list_picture_files, read_pictures
from gliomark.messages import message
from gliomark.study import GliomarkError, MRSequence, Study
from gliomark.tables import ClinicalTable, read_clinical_table

__all__ = [
    "ClinicalTable",
    "list_patient_files",
    "find_non_dicom_patients",
    "find_patients",
    "derive_patient_id",
    "read_clinical_table",
    "read_study",
]


def read_study(
    path: Path | str,
    *,
    spacing_mm: tuple[float, float, float] | None = None,
    required_sequences: Sequence[MRSequence] = (),
) -> Study:
    """Read one patient's folder, or the folder around a sequence's subfolder that was picked.

    spacing_mm: for pictures, which carry none: mm from column to column, row to row and slice to slice.
    needed: the sequences that a model takes, for the choice between several examinations of the patient.

    The files are read in this process. Files from strangers may crash, hang or swell it; the command line and the
    server read in processes of their own: ``with ReadingProcesses() as reading: reading(path, read_study, path)``.

    Raises: GliomarkError, one sentence, for whatever the user can mend.
    """
    path = _resolve_patient_folder(Path(path))
    if has_volumes(path) and not path.exists():
        return read_volumes(path)
    if has_pictures(path):
        return _add_link_note(read_pictures(path, spacing_mm), path)
    if has_volumes(path):
        return _add_link_note(read_volumes(path, required_sequences), path)
    if has_dicom_files(path):
        return _add_link_note(read_dicom(path, required_sequences), path)
    raise GliomarkError(_format_no_images_message(path))


def _add_link_note(study: Study, path: Path) -> Study:
    """The study, with a note where links or special files in its folder were passed over."""
    if not (special := list_special_files(path)):
        return study
    note = message(
        "links-passed-over", count=len(special), names=", ".join(file.name for file in special[:3])
    )
    return replace(study, notes=(*study.notes, note))


def find_patients(path: Path | str) -> list[Path]:
    """Patients at a path: the folder itself where it is one patient's, else its patient subfolders by name.

    Of a BIDS data set its subjects; of an nnU-Net folder its cases, which have no folder: ``<folder>/<case>``.
    Hidden folders, plain files and subfolders without images are passed over.

    Raises: GliomarkError when there is none.
    """
    path = _resolve_patient_folder(Path(path))
    if not path.exists():
        return [path]
    if (patients := find_non_dicom_patients(path)) == [path]:
        return patients
    if not patients and is_one_patient(path):
        return [path]
    if not patients or patients[0].parent == path:
        patients = sorted({*patients, *(folder for folder in list_subfolders(path) if _has_images(folder))})
    if not patients and _has_images(path):
        return [path]  # read_study says what is wrong with it
    if not patients:
        raise GliomarkError(_format_no_images_message(path))
    return patients


def find_non_dicom_patients(path: Path) -> list[Path]:
    """Patients whose images are pictures or volumes, DICOM left aside: as ``find_patients``, or none."""
    if patients := find_dataset_patients(path):
        return patients
    if has_pictures(path) or has_volumes(path):
        return [path]
    return [folder for folder in list_subfolders(path) if has_pictures(folder) or has_volumes(folder)]


def list_patient_files(path: Path) -> list[Path]:
    """Every file below a patient's folder, or those of a case that has none."""
    return sorted(filter(is_regular_file, iterate_files(path))) if path.exists() else list_case_files(path)


def _resolve_patient_folder(path: Path) -> Path:
    """Check the folder; where a sequence's own subfolder (``<patient>/T1c``) was picked, take its parent."""
    if not path.exists() and not has_volumes(path):
        raise GliomarkError(message("folder-missing", folder=path))
    if path.is_file():
        raise GliomarkError(message("folder-is-file", folder=path))
    parent = path.absolute().parent
    name = path.absolute().name
    if not path.exists() or (find_sequence_in_name(name) is None and not is_lesion_mask_name(name)):
        return path
    if list_picture_files(path) and has_pictures(parent):
        return parent
    if len(list_volume_files(path)) == 1 and has_volumes(parent):
        return parent
    direct_dicom = any(entry.is_file() and is_dicom_file(entry) for entry in list_visible_entries(path))
    return parent if direct_dicom and is_one_patient(parent) and not list_volume_files(path) else path


def _has_images(folder: Path) -> bool:
    """Whether a folder is worth reading as a patient, be it to be told what is wrong with it."""
    known = has_pictures(folder) or has_volumes(folder) or bool(list_volume_files(folder))
    return known or bool(list_picture_files(folder)) or has_dicom_files(folder)


def _format_no_images_message(folder: Path) -> str:
    """The sentence for a folder without a readable patient."""
    special = list_special_files(folder)
    if not list_visible_entries(folder) and not special:
        return message("folder-empty", folder=folder)
    if list_picture_files(folder):
        return message("pictures-loose", folder=folder)
    if patients := find_dataset_patients(folder):
        return message("folder-many-patients", folder=folder, count=len(patients), patient=patients[0].name)
    if files := list_volume_files(folder):
        return format_no_sequence_message(folder, files)
    if special:
        return message("folder-links", folder=folder, name=special[0].relative_to(folder))
    return message("folder-no-images", folder=folder)
