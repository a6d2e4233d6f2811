"""Find the sequence or mask that a volume file holds, by its name and its folder's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gliomark.errors import InputError
from gliomark.io.folder_listing import (
    get_file_stem,
    list_visible_entries,
    resolve_folder_name,
)
from gliomark.io.naming import (
    find_sequence_in_name,
    is_lesion_mask_name,
    is_mask_name,
    normalise_patient_id,
    split_bids_entities,
    split_words,
)
from gliomark.io.readers import is_volume_file
from gliomark.messages import message
from gliomark.study import Examination, MRSequence

LESION_ROLE = "lesion"  # role of a mask file, besides the four sequences


@dataclass(frozen=True)
class PatientVolumes:
    """The files of one patient.

    Attributes
    ----------
    patient_id
        The patient's id.
    files
        Path by sequence, and by ``"lesion"`` for the mask.
    examination
        The chosen examination of a BIDS subject with several sessions, else None.
    notes
        Notes for the user.
    lesion_labels
        The mask's values that belong to the lesion, if a data set defines its labels, else None.
    """

    patient_id: str
    files: Mapping[str, Path]
    examination: Examination | None = None
    notes: tuple[str, ...] = ()
    lesion_labels: frozenset[int] | None = None


def list_direct_volumes(folder: Path) -> list[Path]:
    """List the volume files directly in a folder, by name."""
    return [file for file in list_visible_entries(folder) if is_volume_file(file) and file.is_file()]


def find_role(folder: Path, file: Path) -> str | None:
    """Find a file's role: an MRSequence, ``"lesion"`` or None.

    The subfolder's name decides where the file's does not.
    """
    names = [_remove_patient_prefix(folder, file)] + ([file.parent.name] if file.parent != folder else [])
    for name in names:
        if is_lesion_mask_name(name):
            return LESION_ROLE
        if is_mask_name(name):
            return None  # a brain mask may have the name of a sequence but is not that sequence
        if sequence := find_sequence_in_name(name):
            return sequence
    return None


def _remove_patient_prefix(folder: Path, file: Path) -> str:
    """Return the file's name without the patient's id before it, which may be e.g. T1-003."""
    stem, patient = get_file_stem(file), resolve_folder_name(folder)
    return stem[len(patient) + 1 :] if re.match(re.escape(patient) + r"[_ .-]", stem) else stem


def assign_roles(folder: Path, files: Sequence[Path], patient_id: str) -> Mapping[str, Path]:
    """Find the file of each sequence and of the lesion mask.

    Parameters
    ----------
    folder
        The patient's folder.
    files
        The volume files in it.
    patient_id
        Of the folder; a file whose name differs only in the patient's number belongs to another patient.

    Returns
    -------
    Mapping[str, Path]
        Path by sequence, and by ``LESION_ROLE``.

    Raises
    ------
    InputError
        If no file has the name of a sequence, two files have the same one, or the files belong to two patients.
    """
    roles: dict[str, Path] = {}
    for file in files:
        role = find_role(folder, file)
        if role is None:
            continue
        if role in roles:
            names = {"one": roles[role].name, "other": file.name, "folder": folder}
            code = "volumes-two-masks" if role == LESION_ROLE else "volumes-two-of-one"
            raise InputError(message(code, sequence=role, **names))
        roles[role] = file
    _check_one_patient(folder, list(roles.values()), patient_id)
    if not set(roles) & set(MRSequence):
        raise InputError(format_no_sequence_message(folder, files))
    return roles


def format_no_sequence_message(folder: Path, files: Sequence[Path]) -> str:
    """Format the message for a folder of volumes without the name of a sequence."""
    names = ", ".join(file.name for file in files[:4])
    channels = any(CHANNEL_FILE_STEM.fullmatch(get_file_stem(file)) for file in files)
    return message("volumes-channels-unnamed" if channels else "volumes-unnamed", folder=folder, names=names)


_NON_PATIENT_WORDS = frozenset(
    "se ser series im img image images scan run s e acq echo mr mri t tr te sl slice n no nr file exam study seq "
    "sequence brain head anat nii vol volume ax axial sag cor tra day week month visit tp time v b d r part step "
    "session ses".split()
)


def _check_one_patient(folder: Path, files: Sequence[Path], patient: str) -> None:
    """Raise if file names, or a file's and the folder's, differ only in the patient number."""
    for file in files:
        if _is_other_patient(
            _extract_patient_words(patient, use_whole_name=True), _extract_patient_words(get_file_stem(file))
        ):
            raise InputError(message("volumes-other-patient", folder=folder, patient=patient, file=file.name))
    for one, other in zip(files, files[1:], strict=False):
        if _is_other_patient(
            _extract_patient_words(get_file_stem(one)), _extract_patient_words(get_file_stem(other))
        ):
            raise InputError(message("volumes-two-patients", folder=folder, one=one.name, other=other.name))


def _extract_patient_words(name: str, use_whole_name: bool = False) -> list[str]:
    """Return the words of a name before the first one about the image; all words if ``use_whole_name``."""
    entities, _ = split_bids_entities(name)
    if "sub" in entities:
        return ["sub", normalise_patient_id(entities["sub"])]
    words = split_words(name)
    if use_whole_name:
        return words
    end = next((at for at, word in enumerate(words) if find_sequence_in_name(word) or is_mask_name(word)), 0)
    return words[:end]


def _is_other_patient(one: list[str], other: list[str]) -> bool:
    """Whether two names of the same pattern differ in a number that, by the letters before it, is a patient's."""
    if len(one) != len(other) or any(
        _replace_digits(a) != _replace_digits(b) for a, b in zip(one, other, strict=True)
    ):
        return False
    for before, a, b in zip(["", *one], one, other, strict=False):
        if re.sub(r"0+(?=\d)", "", a) != re.sub(r"0+(?=\d)", "", b):
            letters = re.match(r"[^\W\d]*", a)
            owner = (letters[0] if letters else "") or (before if not re.search(r"\d", before) else "")
            return bool(owner) and owner not in _NON_PATIENT_WORDS
    return False


def _replace_digits(word: str) -> str:
    """Replace numbers by 0, so that ``p001`` and ``p002`` become equal, ``p001`` and ``x001`` do not."""
    return re.sub(r"\d+", "0", word)


CHANNEL_FILE_STEM = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
