"""Read the images of one patient into a Study, and find the patients of a folder.

The contents of a folder decide its kind: subfolders named after sequences that contain pictures, else volume files
with a sequence in their names, else DICOM files in the folder or its subfolders. BIDS and nnU-Net data sets are
recognised by their folder and file names (``dataset_layout``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gliomark.errors import InputError
from gliomark.files import iterate_files
from gliomark.io.bids import derive_patient_id
from gliomark.io.dataset_layout import find_dataset_patients, has_volumes, list_volume_files
from gliomark.io.dicom import is_dicom_file, is_one_patient
from gliomark.io.folder_listing import (
    is_regular_file,
    list_special_files,
    list_subfolders,
    list_visible_entries,
)
from gliomark.io.format_reader import ReadOptions
from gliomark.io.naming import find_sequence_in_name, is_lesion_mask_name
from gliomark.io.nnunet import list_case_files
from gliomark.io.pictures import has_pictures, list_picture_files
from gliomark.io.readers import find_folder_reader, find_layout_reader
from gliomark.io.volume_files import format_no_sequence_message
from gliomark.io.volumes import read_volumes
from gliomark.messages import message
from gliomark.study import MRSequence, Study


def read_study(
    path: Path | str,
    *,
    spacing_mm: tuple[float, float, float] | None = None,
    required_sequences: Sequence[MRSequence] = (),
) -> Study:
    """Read one patient's folder; if ``path`` is the subfolder of one sequence, read its parent folder.

    The files are read in this process. Untrusted files may crash or hang it or exhaust its memory; the command line
    and the server therefore use reader processes:
    ``with ReaderPool() as reader_pool: reader_pool(path, read_study, path)``.

    Parameters
    ----------
    path
        The patient's folder, or ``<folder>/<case>`` for a case of an nnU-Net data set.
    spacing_mm
        Spacing between columns, rows and slices in mm. Used for pictures only, which store none.
    required_sequences
        The sequences that a model needs. They decide which of several examinations is read.

    Returns
    -------
    Study
        The series as stored, each ``(slice, row, column)`` with its affine, and the lesion mask if there is one.

    Raises
    ------
    InputError
        If the folder does not exist, contains no readable patient or more than one, or if its images are damaged or
        ambiguous. The message is one sentence that names the file or folder.

    Examples
    --------
    >>> gliomark.read_study("patients/P001")
    Study('P001': T1C 24 x 512 x 512, FLAIR 24 x 320 x 320; volumes)
    """
    path = _resolve_patient_folder(Path(path))
    if not path.exists():
        return read_volumes(path)
    reader = find_layout_reader(path)
    if reader is None and has_volumes(path):
        return _add_link_note(read_volumes(path, required_sequences), path)
    reader = reader or find_folder_reader(path)
    if reader is None or reader.read_folder is None:
        raise InputError(_format_no_images_message(path))
    options = ReadOptions(derive_patient_id(path), spacing_mm, tuple(required_sequences))
    return _add_link_note(reader.read_folder(path, options), path)


def _add_link_note(study: Study, path: Path) -> Study:
    """Return the study, with a note if links or special files in its folder were skipped."""
    if not (special := list_special_files(path)):
        return study
    note = message(
        "links-passed-over", count=len(special), names=", ".join(file.name for file in special[:3])
    )
    return replace(study, notes=(*study.notes, note))


def find_patients(path: Path | str) -> list[Path]:
    """List the patients at a path: the folder itself if it is one patient's, else its patient subfolders.

    Subfolders that are hidden or without images are skipped, and so are files.

    Parameters
    ----------
    path
        A patient's folder, a folder of patients, or a BIDS or nnU-Net data set.

    Returns
    -------
    list[Path]
        One path per patient, sorted by name. The cases of an nnU-Net folder have no folder of their own and are
        returned as ``<folder>/<case>``.

    Raises
    ------
    InputError
        If there is no patient, or the folder cannot be read.
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
        return [path]  # read_study reports the problem
    if not patients:
        raise InputError(_format_no_images_message(path))
    return patients


def find_non_dicom_patients(path: Path) -> list[Path]:
    """List the patients whose images are pictures or volumes, as ``find_patients`` does; DICOM is ignored.

    The list is empty if there are none.
    """
    if patients := find_dataset_patients(path):
        return patients
    if _is_patient_layout(path):
        return [path]
    return [folder for folder in list_subfolders(path) if _is_patient_layout(folder)]


def _is_patient_layout(folder: Path) -> bool:
    """Whether the names in a folder are those of one patient's images; DICOM is ignored."""
    return find_layout_reader(folder) is not None or has_volumes(folder)


def list_patient_files(path: Path) -> list[Path]:
    """List all regular files in a patient's folder and its subfolders, or the files of an nnU-Net case."""
    return sorted(filter(is_regular_file, iterate_files(path))) if path.exists() else list_case_files(path)


def _resolve_patient_folder(path: Path) -> Path:
    """Check the folder; for the subfolder of one sequence (``<patient>/T1c``), return its parent."""
    if not path.exists() and not has_volumes(path):
        raise InputError(message("folder-missing", folder=path))
    if path.is_file():
        raise InputError(message("folder-is-file", folder=path))
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
    """Whether a folder contains images, even if reading it as a patient would raise an error."""
    known = _is_patient_layout(folder) or bool(list_volume_files(folder) or list_picture_files(folder))
    return known or find_folder_reader(folder) is not None


def _format_no_images_message(folder: Path) -> str:
    """Format the message for a folder without a readable patient."""
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
