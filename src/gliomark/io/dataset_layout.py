"""Find a patient's volumes: in a plain folder, a BIDS tree or an nnU-Net data set.

- Plain folder: the sequence is part of the file's name, or of the name of a subfolder for one sequence.
- BIDS: ``sub-01/[ses-1/]anat/``; the patient is ``sub-01`` whichever of these folders is given. If the subject's
  folder is given, ``examination_choice`` chooses one of its sessions; if a session is given, it is read.
- nnU-Net, MSD: ``<folder>/<case>_0000.nii.gz`` with a ``dataset.json`` in the same folder or its parent that names
  the channels. A case has no folder of its own; ``<folder>/<case>`` denotes it.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gliomark.errors import InputError
from gliomark.files import walk_folder
from gliomark.io.examination_choice import ExaminationCandidate, choose_examination
from gliomark.io.naming import (
    find_sequence_in_name,
    is_lesion_mask_name,
    is_mask_name,
    is_postoperative_description,
    normalise_patient_id,
    split_bids_entities,
    split_words,
)
from gliomark.io.size_limits import is_regular_file
from gliomark.messages import message
from gliomark.study import Examination, MRSequence

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".mha", ".mhd", ".nrrd", ".nhdr")
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


# ---- folders ----------------------------------------------------------------------------------------


def list_visible_entries(folder: Path) -> list[Path]:
    """List a folder's regular files and subfolders by name, without hidden ones (``._001.jpg``, ``.git``).

    Links and special files are skipped: a link may point outside the folder, form a loop or be broken.

    Raises
    ------
    InputError
        If the folder cannot be listed.
    """
    return [
        folder / entry.name
        for entry in _list_entries(folder)
        if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)
    ]


def list_subfolders(folder: Path) -> list[Path]:
    """List the visible subfolders, including links to folders, by name; each may be one patient's.

    Raises
    ------
    InputError
        If the folder cannot be listed.
    """
    return [
        path for entry in _list_entries(folder) if (path := folder / entry.name).is_dir()
    ]  # False for a loop


def walk_visible_files(folder: Path) -> Iterator[tuple[Path, os.DirEntry[str]]]:
    """Iterate over everything in a folder and its subfolders except folders and hidden entries, by name.

    Raises
    ------
    InputError
        If a folder cannot be listed.
    """
    return walk_folder(folder, _list_entries)


def list_special_files(folder: Path) -> list[Path]:
    """List the links, pipes, sockets and devices in a folder and its subfolders; readers skip them."""
    return [path for path, entry in walk_visible_files(folder) if not entry.is_file(follow_symlinks=False)]


def _list_entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith((".", "__MACOSX"))]
    except OSError as error:
        raise InputError(message("folder-unlisted", folder=folder, reason=error.strerror)) from None
    return sorted(shown, key=lambda entry: entry.name)


def resolve_folder_name(folder: Path) -> str:
    """Return a folder's name, also for ``.`` and for paths that end in ``..``."""
    return Path(os.path.abspath(folder)).name


def get_file_stem(file: Path) -> str:
    """Return the file's name without its suffix; ``.nii.gz`` is one suffix."""
    return re.sub(r"(\.nii\.gz|\.[^.]+)$", "", file.name, flags=re.IGNORECASE)


def derive_patient_id(path: Path) -> str:
    """Derive the patient's id: the BIDS subject, else the folder's name.

    For an ``anat`` or ``ses-`` folder outside a subject's folder, the subject is taken from the file names.
    """
    if subject := _find_bids_subject(path):
        return resolve_folder_name(subject)
    name = resolve_folder_name(path)
    if not path.is_dir() or not re.match(r"anat$|ses-.", name, re.IGNORECASE):
        return name
    subjects = {
        split_bids_entities(get_file_stem(file))[0].get("sub", "") for file in _list_session_files(path)
    } - {""}
    if len(subjects) == 1:
        return f"sub-{subjects.pop()}"
    return resolve_folder_name(Path(os.path.abspath(path)).parent) if name.lower() == "anat" else name


def list_volume_files(path: Path) -> list[Path]:
    """List a patient's volume files: of a case, of all sessions of a BIDS subject, or of a folder.

    In a plain folder these are its own volumes and those in subfolders named after one sequence or a mask.
    """
    if not path.exists():
        return sorted(_list_channel_files(path).values())
    if sessions := _list_sessions(path):
        return [file for session in sessions for file in _list_session_files(session)]
    return _list_folder_volumes(path)


def _list_folder_volumes(patient_folder: Path) -> list[Path]:
    files = _list_direct_volumes(patient_folder)
    for folder in (entry for entry in list_visible_entries(patient_folder) if entry.is_dir()):
        if (
            find_sequence_in_name(folder.name)
            or is_lesion_mask_name(folder.name)
            or folder.name.lower() == "anat"
        ):
            inside = _list_direct_volumes(folder)
            # A folder with files of several sequences is not a sequence's but that of a patient named e.g. T1-003.
            alone = len({find_sequence_in_name(get_file_stem(file)) for file in inside} - {None}) <= 1
            files += inside if alone or folder.name.lower() == "anat" else []
    return files


def _list_direct_volumes(folder: Path) -> list[Path]:
    return [
        file
        for file in list_visible_entries(folder)
        if file.name.lower().endswith(VOLUME_SUFFIXES) and file.is_file()
    ]


def has_volumes(path: Path) -> bool:
    """Whether a folder contains one patient's volumes: at least one file name includes a sequence."""
    if not path.exists():
        return bool(_list_channel_files(path))
    if _list_cases(path):
        return _is_single_case(path)
    return any(_find_role(path, file) in tuple(MRSequence) for file in list_volume_files(path))


def find_dataset_patients(path: Path) -> list[Path]:
    """List the patients of a BIDS or nnU-Net data set, or the BIDS patient to whom a folder belongs; else none."""
    if _list_sessions(path):
        return [path.parent if path.name.lower() == "anat" else path]
    folders = _list_image_folders(path) or [path]
    cases = [
        case for folder in folders if not _is_single_case(folder) for case in _list_cases(folder).values()
    ]
    return sorted(cases) or _list_bids_subjects(path)


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
        return _find_case_volumes(path, path)
    if cases := _list_cases(path):
        if not _is_single_case(path):
            raise InputError(message("dataset-many-cases", folder=path, count=len(cases), case=min(cases)))
        return _find_case_volumes(next(iter(cases.values())), path)
    sessions = _list_sessions(path)
    if len(sessions) > 1:
        return _choose_session(path, sessions, required_sequences)
    files = _list_session_files(sessions[0]) if sessions else _list_folder_volumes(path)
    return PatientVolumes(derive_patient_id(path), _assign_roles(path, files))


# ---- roles of files ---------------------------------------------------------------------------------


def _find_role(folder: Path, file: Path) -> str | None:
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


def _assign_roles(folder: Path, files: Sequence[Path]) -> Mapping[str, Path]:
    roles: dict[str, Path] = {}
    for file in files:
        role = _find_role(folder, file)
        if role is None:
            continue
        if role in roles:
            names = {"one": roles[role].name, "other": file.name, "folder": folder}
            code = "volumes-two-masks" if role == LESION_ROLE else "volumes-two-of-one"
            raise InputError(message(code, sequence=role, **names))
        roles[role] = file
    _check_one_patient(folder, list(roles.values()))
    if not set(roles) & set(MRSequence):
        raise InputError(format_no_sequence_message(folder, files))
    return roles


def format_no_sequence_message(folder: Path, files: Sequence[Path]) -> str:
    """Format the message for a folder of volumes without the name of a sequence."""
    names = ", ".join(file.name for file in files[:4])
    channels = any(_CHANNEL_FILE_STEM.fullmatch(get_file_stem(file)) for file in files)
    return message("volumes-channels-unnamed" if channels else "volumes-unnamed", folder=folder, names=names)


_NON_PATIENT_WORDS = frozenset(
    "se ser series im img image images scan run s e acq echo mr mri t tr te sl slice n no nr file exam study seq "
    "sequence brain head anat nii vol volume ax axial sag cor tra day week month visit tp time v b d r part step "
    "session ses".split()
)


def _check_one_patient(folder: Path, files: Sequence[Path]) -> None:
    """Raise if file names, or a file's and the folder's, differ only in the patient number."""
    patient = derive_patient_id(folder)
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


# ---- BIDS -------------------------------------------------------------------------------------------


def _find_bids_subject(path: Path) -> Path | None:
    """Find the ``sub-`` folder: the path itself or the parent of its ``ses-`` or ``anat`` folder."""
    folder = Path(os.path.abspath(path))
    if folder.name.lower() == "anat":
        folder = folder.parent
    if re.match(r"ses-", folder.name, re.IGNORECASE):
        folder = folder.parent
    return folder if re.match(r"sub-.", folder.name, re.IGNORECASE) else None


def _list_sessions(path: Path) -> list[Path]:
    """List the sessions of a BIDS folder; none if it is not a BIDS folder with volumes of a sequence."""
    subject = _find_bids_subject(path)
    if subject is None or not path.is_dir():
        return []
    folder = Path(os.path.abspath(path))
    if folder.name.lower() == "anat":
        folder = folder.parent
    inner = [
        e for e in list_visible_entries(folder) if e.is_dir() and re.match(r"ses-", e.name, re.IGNORECASE)
    ]
    anat = folder != subject or (folder / "anat").is_dir()
    sessions = [*([folder] if anat else []), *(inner if folder == subject else [])]
    return [one for one in sessions if _list_session_sequences(one)]


def _list_session_files(session: Path) -> list[Path]:
    anat = session / "anat"
    return [*_list_direct_volumes(session), *(_list_direct_volumes(anat) if anat.is_dir() else [])]


def _list_session_sequences(session: Path) -> frozenset[MRSequence]:
    roles = {_find_role(session, file) for file in _list_session_files(session)}
    return frozenset(name for name in MRSequence if name in roles)


def _list_bids_subjects(folder: Path) -> list[Path]:
    """List the subjects of a BIDS data set, or of its derivative if the data set itself has no images."""
    if not folder.is_dir():
        return []
    subjects = [
        one
        for one in list_subfolders(folder)
        if re.match(r"sub-.", one.name, re.IGNORECASE) and _list_sessions(one)
    ]
    if subjects or folder.name == "derivatives":
        return subjects
    inside = folder / "derivatives"
    found = (
        [_list_bids_subjects(entry) for entry in list_visible_entries(inside) if entry.is_dir()]
        if inside.is_dir()
        else []
    )
    found = [one for one in found if one]
    if len(found) > 1:
        names = ", ".join(one[0].parent.name for one in found)
        raise InputError(message("bids-derivatives", folder=folder, names=names))
    return found[0] if found else []


_FOLLOW_UP_SESSION = re.compile(
    r"ses-(?:post(?!gad|con|c\b)\w*|follow\w*|fu\d*|recur\w*|relapse\w*)", re.IGNORECASE
)


def _choose_session(
    folder: Path, sessions: Sequence[Path], required_sequences: Sequence[MRSequence]
) -> PatientVolumes:
    subject = _find_bids_subject(folder) or folder
    dates = _read_session_dates(subject)
    candidates = {_create_candidate(session, dates.get(session.name, "")): session for session in sessions}
    chosen, examination, notes = choose_examination(folder, list(candidates), required_sequences)
    session = candidates[chosen]
    roles = _assign_roles(session, _list_session_files(session))
    return PatientVolumes(subject.name, roles, examination, notes)


def _create_candidate(session: Path, date: str) -> ExaminationCandidate:
    label = re.sub(r"^ses-", "", session.name, flags=re.IGNORECASE)
    date = date or (label if re.fullmatch(r"(?:19|20)\d{6}", label) else "")
    sort_time = re.sub(r"\d+", lambda found: found[0].zfill(12), label)
    is_postoperative = is_postoperative_description(session.name) or bool(
        _FOLLOW_UP_SESSION.match(session.name)
    )
    return ExaminationCandidate(
        session.name, date, sort_time, _list_session_sequences(session), is_postoperative
    )


def _read_session_dates(subject: Path) -> dict[str, str]:
    """Read the date (YYYYMMDD) of each session from ``sub-*_sessions.tsv`` and the sessions' ``*_scans.tsv``."""
    dates: dict[str, str] = {}
    for table in filter(is_regular_file, sorted(subject.glob("*/*_scans.tsv"))):
        dates_in_table = [_parse_date(row.get("acq_time", "")) for row in _read_tsv_rows(table)]
        dates[table.parent.name] = min((day for day in dates_in_table if day), default="")
    for table in filter(is_regular_file, sorted(subject.glob("*_sessions.tsv"))):
        for row in _read_tsv_rows(table):
            name = row.get("session_id", "")
            key = name if name.startswith("ses-") else f"ses-{name}"
            dates[key] = _parse_date(row.get("acq_time", "")) or dates.get(key, "")
    return dates


def _read_tsv_rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [{str(name): cell or "" for name, cell in row.items() if isinstance(cell, str)} for row in rows]


def _parse_date(text: str) -> str:
    match = re.match(r"(\d{4})-?(\d{2})-?(\d{2})", text.strip())
    return "".join(match.groups()) if match else ""


# ---- nnU-Net and MSD --------------------------------------------------------------------------------

_CHANNEL_FILE_STEM = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


def _find_dataset_file(folder: Path) -> Path | None:
    """Find ``dataset.json`` in a folder of images or its parent."""
    candidates = (folder / "dataset.json", folder.parent / "dataset.json")
    return next((file for file in candidates if file.is_file()), None)


def _list_image_folders(folder: Path) -> list[Path]:
    """List the image folders of a data set's root: ``imagesTr``, ``imagesTs``."""
    if not folder.is_dir() or not (folder / "dataset.json").is_file():
        return []
    return [
        entry
        for entry in list_visible_entries(folder)
        if entry.is_dir() and entry.name.lower().startswith("images")
    ]


def _list_cases(folder: Path) -> dict[str, Path]:
    """List the cases of a folder with the path that denotes each; none without ``dataset.json``."""
    if not folder.is_dir() or _find_dataset_file(folder) is None:
        return {}
    matches = (_CHANNEL_FILE_STEM.fullmatch(get_file_stem(file)) for file in _list_direct_volumes(folder))
    return {match["case"]: folder / match["case"] for match in matches if match}


def _is_single_case(folder: Path) -> bool:
    """Whether a folder of channels contains a single patient."""
    return len(_list_cases(folder)) == 1 and not folder.name.lower().startswith("images")


def _list_channel_files(case: Path) -> dict[str, Path]:
    """List the files of a case by channel number; ``case`` is the path that denotes it."""
    if not case.parent.is_dir() or _find_dataset_file(case.parent) is None:
        return {}
    files = {
        file: _CHANNEL_FILE_STEM.fullmatch(get_file_stem(file)) for file in _list_direct_volumes(case.parent)
    }
    return {match["channel"]: file for file, match in files.items() if match and match["case"] == case.name}


def list_case_files(path: Path) -> list[Path]:
    """List all files of a case, including its label image and ``dataset.json``."""
    description, label = _find_dataset_file(path.parent), _find_label_file(path)
    return [*_list_channel_files(path).values(), *(file for file in (description, label) if file)]


def _find_case_volumes(case: Path, named_path: Path) -> PatientVolumes:
    """Find a case's files by the channel names in ``dataset.json``."""
    file = _find_dataset_file(case.parent)
    if file is None:
        raise InputError(message("volumes-channels-unnamed", folder=case.parent, names=case.name))
    description = _read_dataset_description(file)
    roles: dict[str, Path] = {}
    for channel, volume in _list_channel_files(case).items():
        name = _parse_channel_names(description).get(int(channel))
        if name is None:
            raise InputError(message("dataset-no-channel", file=file, channel=channel, volume=volume.name))
        sequence = find_sequence_in_name(name)
        if sequence in roles:
            raise InputError(message("dataset-channel-twice", file=file, sequence=sequence))
        if sequence is not None:
            roles[sequence] = volume
    if not roles:
        names = ", ".join(_parse_channel_names(description).values())
        raise InputError(message("dataset-no-sequence", file=file, names=names))
    label = _find_label_file(case)
    labels = _find_lesion_labels(description) if label else None
    notes = (message("dataset-labels-unknown", file=file.name),) if label and not labels else ()
    if label and labels:
        roles[LESION_ROLE] = label
    return PatientVolumes(resolve_folder_name(named_path), roles, notes=notes, lesion_labels=labels)


def _read_dataset_description(file: Path) -> Mapping[str, object]:
    try:
        description = json.loads(file.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        description = None
    if not isinstance(description, dict):
        raise InputError(message("dataset-unreadable", file=file))
    return description


def _parse_channel_names(description: Mapping[str, object]) -> dict[int, str]:
    """Parse channel names by number: ``channel_names`` (nnU-Net) or ``modality`` (MSD), an object or a list."""
    names = (
        description.get("channel_names") or description.get("modality") or description.get("modalities") or {}
    )
    pairs = enumerate(names) if isinstance(names, list) else names.items() if isinstance(names, dict) else ()
    return {int(key): str(name) for key, name in pairs if str(key).isdecimal()}


def _find_label_file(case: Path) -> Path | None:
    """Find ``labelsTr/<case>.nii.gz`` next to ``imagesTr``."""
    folder = case.parent.parent / re.sub("^images", "labels", case.parent.name, flags=re.IGNORECASE)
    if folder == case.parent or not folder.is_dir():
        return None
    return next((file for file in _list_direct_volumes(folder) if get_file_stem(file) == case.name), None)


def _find_lesion_labels(description: Mapping[str, object]) -> frozenset[int] | None:
    """Find the values of a label image that are the lesion without oedema, by the labels' names."""
    labels = description.get("labels")
    if not isinstance(labels, dict):
        return None
    named: dict[str, set[int]] = {}
    for key, value in labels.items():  # nnU-Net maps name to value(s), MSD value to name
        name, values = (str(value), [key]) if str(key).isdecimal() else (str(key), value)
        numbers = values if isinstance(values, list) else [values]
        if all(str(number).isdecimal() for number in numbers):
            named[name.lower()] = {int(number) for number in numbers}
    lesion_values = {name: values for name, values in named.items() if not re.search(_NON_LESION_LABEL, name)}
    core = [values for name, values in lesion_values.items() if re.search(r"core", name)]
    regions = core or [
        values for name, values in lesion_values.items() if not re.search(r"whole|(?<![a-z])wt", name)
    ]
    found = set().union(*(regions or lesion_values.values())) - {0}
    return frozenset(found) or None


_NON_LESION_LABEL = (
    r"background|o?edema|snfh|ignore|brain(?!.*tumou?r)|cavity|(?<![a-z])rc(?![a-z])|(?<![a-z])ed(?![a-z])"
)
