"""Find a patient's volumes: in a plain folder, a BIDS tree (``bids``) or an nnU-Net data set (``nnunet``).

In a plain folder the sequence is part of the file's name, or of the name of a subfolder for one sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gliomark.errors import InputError
from gliomark.io.bids import (
    choose_session,
    derive_patient_id,
    list_bids_subjects,
    list_session_files,
    list_sessions,
)
from gliomark.io.folder_listing import get_file_stem, list_visible_entries
from gliomark.io.naming import (
    find_sequence_in_name,
    is_lesion_mask_name,
)
from gliomark.io.nnunet import (
    find_case_volumes,
    is_single_case,
    list_cases,
    list_channel_files,
    list_image_folders,
)
from gliomark.io.volume_files import PatientVolumes, assign_roles, find_role, list_direct_volumes
from gliomark.messages import message
from gliomark.study import MRSequence


def list_volume_files(path: Path) -> list[Path]:
    """List a patient's volume files: of a case, of all sessions of a BIDS subject, or of a folder.

    In a plain folder these are its own volumes and those in subfolders named after one sequence or a mask.
    """
    if not path.exists():
        return sorted(list_channel_files(path).values())
    if sessions := list_sessions(path):
        return [file for session in sessions for file in list_session_files(session)]
    return _list_folder_volumes(path)


def _list_folder_volumes(patient_folder: Path) -> list[Path]:
    files = list_direct_volumes(patient_folder)
    for folder in (entry for entry in list_visible_entries(patient_folder) if entry.is_dir()):
        if (
            find_sequence_in_name(folder.name)
            or is_lesion_mask_name(folder.name)
            or folder.name.lower() == "anat"
        ):
            inside = list_direct_volumes(folder)
            # A folder with files of several sequences is not a sequence's but that of a patient named e.g. T1-003.
            alone = len({find_sequence_in_name(get_file_stem(file)) for file in inside} - {None}) <= 1
            files += inside if alone or folder.name.lower() == "anat" else []
    return files


def has_volumes(path: Path) -> bool:
    """Whether a folder contains one patient's volumes: at least one file name includes a sequence."""
    if not path.exists():
        return bool(list_channel_files(path))
    if list_cases(path):
        return is_single_case(path)
    return any(find_role(path, file) in tuple(MRSequence) for file in list_volume_files(path))


def find_dataset_patients(path: Path) -> list[Path]:
    """List the patients of a BIDS or nnU-Net data set, or the BIDS patient to whom a folder belongs; else none."""
    if list_sessions(path):
        return [path.parent if path.name.lower() == "anat" else path]
    folders = list_image_folders(path) or [path]
    cases = [case for folder in folders if not is_single_case(folder) for case in list_cases(folder).values()]
    return sorted(cases) or list_bids_subjects(path)


def find_patient_volumes(path: Path, required_sequences: Sequence[MRSequence] = ()) -> PatientVolumes:
    """Find the file of each sequence and of the lesion mask.

    required_sequences: used to choose between sessions.

    Raises
    ------
    InputError
        If no file has the name of a sequence, two files have the same one, the folder contains several cases, or the
        files belong to two patients.
    NoExaminationError
        As ``choose_examination``.
    """
    if not path.exists():
        return find_case_volumes(path, path)
    if cases := list_cases(path):
        if not is_single_case(path):
            raise InputError(message("dataset-many-cases", folder=path, count=len(cases), case=min(cases)))
        return find_case_volumes(next(iter(cases.values())), path)
    sessions = list_sessions(path)
    if len(sessions) > 1:
        return choose_session(path, sessions, required_sequences)
    files = list_session_files(sessions[0]) if sessions else _list_folder_volumes(path)
    patient_id = derive_patient_id(path)
    return PatientVolumes(patient_id, assign_roles(path, files, patient_id))
