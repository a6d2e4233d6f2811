"""Reading: picture, volume and DICOM folders into one Study, and the clinical table.

The kind of a folder is found from what lies in it: subfolders named after sequences that hold pictures, else
volume files with a sequence in their name, else DICOM files anywhere below.
"""

from __future__ import annotations

from pathlib import Path

from gliomark.io.dicom import holds_dicom, is_one_patient, looks_like_dicom, read_dicom
from gliomark.io.nifti import (
    holds_volumes,
    is_lesion_name,
    read_volumes,
    sequence_in_name,
    visible,
    volume_files,
)
from gliomark.io.pictures import holds_pictures, picture_files, read_pictures
from gliomark.study import GliomarkError, Study
from gliomark.tables import ClinicalTable, read_clinical

__all__ = ["ClinicalTable", "find_patients", "read_clinical", "read_study"]

_LAYOUTS = (
    "pictures as <patient>/<sequence>/<slice>.jpg, volumes with T1, T1C, T2 or FLAIR in their name, or DICOM"
)


def read_study(path: Path | str, *, spacing_mm: tuple[float, float, float] | None = None) -> Study:
    """Read one patient's folder, or the folder around a sequence's subfolder that was picked.

    spacing_mm: for pictures, which carry none: mm from column to column, row to row and slice to slice.

    Raises: GliomarkError, one sentence, for whatever the user can mend.
    """
    path = _patient_folder(Path(path))
    if holds_pictures(path):
        return read_pictures(path, spacing_mm)
    if holds_volumes(path):
        return read_volumes(path)
    if holds_dicom(path):
        return read_dicom(path)
    raise GliomarkError(_why_nothing(path))


def find_patients(path: Path | str) -> list[Path]:
    """Patients at a path: the folder itself where it is one patient's, else its patient subfolders by name.

    Hidden folders, plain files and subfolders without images are passed over.

    Raises: GliomarkError when there is none.
    """
    path = _patient_folder(Path(path))
    if holds_pictures(path) or holds_volumes(path):
        return [path]
    folders = [entry for entry in visible(path) if entry.is_dir()]
    of_files = any(holds_pictures(folder) or holds_volumes(folder) for folder in folders)
    if not of_files and is_one_patient(path):
        return [path]
    patients = [folder for folder in folders if _holds_images(folder)]
    if not patients and _holds_images(path):
        return [path]  # read_study says what is wrong with it
    if not patients:
        raise GliomarkError(_why_nothing(path))
    return patients


def _patient_folder(path: Path) -> Path:
    """Check the folder; where a sequence's own subfolder (``<patient>/T1c``) was picked, take its parent."""
    if not path.exists():
        raise GliomarkError(f"{path} does not exist: check the path.")
    if not path.is_dir():
        raise GliomarkError(f"{path} is a file: give the patient's folder.")
    parent = path.absolute().parent
    if sequence_in_name(path.absolute().name) is None and not is_lesion_name(path.absolute().name):
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
    if not visible(path):
        return f"{path} is empty: give a patient's folder with {_LAYOUTS}."
    if picture_files(path):
        return f"{path} holds pictures but no sequence folders: put them in subfolders T1C, T2 and so on."
    if files := volume_files(path):
        names = ", ".join(file.name for file in files[:4])
        return (
            f"No file in {path} carries T1, T1C, T2 or FLAIR in its name (found {names}): rename the volumes."
        )
    return f"{path} holds no patient's images: give {_LAYOUTS}."
