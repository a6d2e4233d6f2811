"""Where a patient's volumes lie: a folder of their own, a BIDS tree, or a case of an nnU-Net data set.

- A folder: the sequence stands in the file's name, or in that of a subfolder for one sequence.
- BIDS: ``sub-01/[ses-1/]anat/``; the patient is ``sub-01``, whichever of these folders is picked. Of several
  sessions one is read, by the rule of ``examinations``; a session that was picked is read itself.
- nnU-Net, MSD: ``<folder>/<case>_0000.nii.gz`` with a ``dataset.json`` beside or above that names the channels. A
  case has no folder of its own: ``<folder>/<case>`` stands for it.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gliomark.files import walk
from gliomark.io.examinations import Candidate, choose_examination
from gliomark.io.limits import is_plain
from gliomark.io.naming import (
    after_surgery_in_words,
    is_lesion_name,
    is_mask_name,
    same_id,
    sequence_in_name,
    split_entities,
    words_of,
)
from gliomark.messages import message
from gliomark.study import Examination, GliomarkError, MRSequence

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".mha", ".mhd", ".nrrd", ".nhdr")
LESION = "lesion"  # a file's role beside the four sequences


@dataclass(frozen=True)
class PatientVolumes:
    """One patient's files. files: by sequence, and ``"lesion"`` for the mask; labels: of the mask's values those
    that are the lesion, where a data set says so, else None."""

    patient_id: str
    files: Mapping[str, Path]
    examination: Examination | None = None
    notes: tuple[str, ...] = ()
    labels: frozenset[int] | None = None


# ---- folders ----------------------------------------------------------------------------------------


def visible(folder: Path) -> list[Path]:
    """A folder's plain files and subfolders by name, without hidden ones (``._001.jpg``, ``.git``).

    Links, pipes, sockets and devices are left out: they lead out of the folder, in circles or to nothing.
    Raises: GliomarkError when the folder cannot be listed.
    """
    return [
        folder / entry.name
        for entry in _entries(folder)
        if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)
    ]


def folders_in(folder: Path) -> list[Path]:
    """The subfolders that may each be a patient's, by name, without hidden ones; links to folders are such too.

    Raises: GliomarkError when the folder cannot be listed.
    """
    return [path for entry in _entries(folder) if (path := folder / entry.name).is_dir()]  # False for a loop


def visible_below(folder: Path) -> Iterator[tuple[Path, os.DirEntry[str]]]:
    """Everything below a folder that is no folder, in order of name, however deep; hidden ones left aside.

    Raises: GliomarkError when a folder cannot be listed.
    """
    return walk(folder, _entries)


def special_files(folder: Path) -> list[Path]:
    """The links, pipes, sockets and devices below a folder, which are passed over; hidden ones left aside."""
    return [path for path, entry in visible_below(folder) if not entry.is_file(follow_symlinks=False)]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith((".", "__MACOSX"))]
    except OSError as error:
        raise GliomarkError(message("folder-unlisted", folder=folder, reason=error.strerror)) from None
    return sorted(shown, key=lambda entry: entry.name)


def folder_name(path: Path) -> str:
    """A folder's own name, also for ``.`` and paths that end in ``..``."""
    return Path(os.path.abspath(path)).name


def stem_of(file: Path) -> str:
    """The file's name without its ending, ``.nii.gz`` as one."""
    return re.sub(r"(\.nii\.gz|\.[^.]+)$", "", file.name, flags=re.IGNORECASE)


def patient_name(path: Path) -> str:
    """The patient's id as the folders have it: the BIDS subject, else the folder's name.

    Of an ``anat`` or ``ses-`` folder that came without the subject's around it, the subject in the files' names.
    """
    if subject := _subject(path):
        return folder_name(subject)
    name = folder_name(path)
    if not path.is_dir() or not re.match(r"anat$|ses-.", name, re.IGNORECASE):
        return name
    subjects = {split_entities(stem_of(file))[0].get("sub", "") for file in _session_files(path)} - {""}
    if len(subjects) == 1:
        return f"sub-{subjects.pop()}"
    return folder_name(Path(os.path.abspath(path)).parent) if name.lower() == "anat" else name


def volume_files(path: Path) -> list[Path]:
    """Volume files of a patient: of a case, of all sessions of a BIDS subject, or of a folder: in it, and in
    subfolders named after one sequence or a mask."""
    if not path.exists():
        return sorted(_channels(path).values())
    if sessions := _sessions(path):
        return [file for session in sessions for file in _session_files(session)]
    return _files_in(path)


def _files_in(path: Path) -> list[Path]:
    files = _volumes_in(path)
    for folder in (entry for entry in visible(path) if entry.is_dir()):
        if sequence_in_name(folder.name) or is_lesion_name(folder.name) or folder.name.lower() == "anat":
            inside = _volumes_in(folder)
            # A patient called T1-003 is no sequence: files of several sequences lie in it.
            alone = len({sequence_in_name(stem_of(file)) for file in inside} - {None}) <= 1
            files += inside if alone or folder.name.lower() == "anat" else []
    return files


def _volumes_in(folder: Path) -> list[Path]:
    return [
        file for file in visible(folder) if file.name.lower().endswith(VOLUME_SUFFIXES) and file.is_file()
    ]


def holds_volumes(path: Path) -> bool:
    """Whether a folder is one patient's volumes: at least one file name carries a sequence."""
    if not path.exists():
        return bool(_channels(path))
    if _cases(path):
        return _is_one_case(path)
    return any(_role(path, file) in tuple(MRSequence) for file in volume_files(path))


def volume_patients(path: Path) -> list[Path]:
    """The patients of a BIDS or nnU-Net data set, and a BIDS patient whose inner folder was picked; else none."""
    if _sessions(path):
        return [path.parent if path.name.lower() == "anat" else path]
    folders = _image_folders(path) or [path]
    cases = [case for folder in folders if not _is_one_case(folder) for case in _cases(folder).values()]
    return sorted(cases) or _bids_subjects(path)


def find_volumes(path: Path, needed: Sequence[MRSequence] = ()) -> PatientVolumes:
    """Which file is which sequence. needed: for the choice between sessions.

    Raises: GliomarkError for no file of a sequence, two of one, files of two patients, and as
    ``choose_examination``.
    """
    if not path.exists():
        return _read_case(path, path)
    if cases := _cases(path):
        if not _is_one_case(path):
            raise GliomarkError(message("dataset-many-cases", folder=path, count=len(cases), case=min(cases)))
        return _read_case(next(iter(cases.values())), path)
    sessions = _sessions(path)
    if len(sessions) > 1:
        return _choose_session(path, sessions, needed)
    files = _session_files(sessions[0]) if sessions else _files_in(path)
    return PatientVolumes(patient_name(path), _by_role(path, files))


# ---- which file is what -----------------------------------------------------------------------------


def _role(path: Path, file: Path) -> str | None:
    """The MRSequence a file holds, ``"lesion"`` or None; the subfolder speaks where the file is silent."""
    names = [_own_name(path, file)] + ([file.parent.name] if file.parent != path else [])
    for name in names:
        if is_lesion_name(name):
            return LESION
        if is_mask_name(name):
            return None  # a brain mask named after its sequence is not the sequence
        if sequence := sequence_in_name(name):
            return sequence
    return None


def _own_name(path: Path, file: Path) -> str:
    """The file's name without the patient's before it, who may be called T1-003."""
    stem, patient = stem_of(file), folder_name(path)
    return stem[len(patient) + 1 :] if re.match(re.escape(patient) + r"[_ .-]", stem) else stem


def _by_role(path: Path, files: Sequence[Path]) -> Mapping[str, Path]:
    roles: dict[str, Path] = {}
    for file in files:
        role = _role(path, file)
        if role is None:
            continue
        if role in roles:
            names = {"one": roles[role].name, "other": file.name, "folder": path}
            code = "volumes-two-masks" if role == LESION else "volumes-two-of-one"
            raise GliomarkError(message(code, sequence=role, **names))
        roles[role] = file
    _check_one_patient(path, list(roles.values()))
    if not set(roles) & set(MRSequence):
        raise GliomarkError(no_sequence_named(path, files))
    return roles


def no_sequence_named(path: Path, files: Sequence[Path]) -> str:
    """The sentence for a folder of volumes none of which is known by its name."""
    names = ", ".join(file.name for file in files[:4])
    channels = any(_CHANNEL.fullmatch(stem_of(file)) for file in files)
    return message("volumes-channels-unnamed" if channels else "volumes-unnamed", folder=path, names=names)


_ID_WORDS = frozenset(
    "se ser series im img image images scan run s e acq echo mr mri t tr te sl slice n no nr file exam study seq "
    "sequence brain head anat nii vol volume ax axial sag cor tra day week month visit tp time v b d r part step "
    "session ses".split()
)


def _check_one_patient(path: Path, files: Sequence[Path]) -> None:
    """Refuse names that are alike but for the patient's number: of two files, or of a file and the folder."""
    patient = patient_name(path)
    for file in files:
        if _other_patient(_naming_words(patient, whole=True), _naming_words(stem_of(file))):
            raise GliomarkError(
                message("volumes-other-patient", folder=path, patient=patient, file=file.name)
            )
    for one, other in zip(files, files[1:], strict=False):
        if _other_patient(_naming_words(stem_of(one)), _naming_words(stem_of(other))):
            raise GliomarkError(message("volumes-two-patients", folder=path, one=one.name, other=other.name))


def _naming_words(name: str, whole: bool = False) -> list[str]:
    """A name's words before the first that speaks of the image; whole: all of them, of a folder's name."""
    entities, _ = split_entities(name)
    if "sub" in entities:
        return ["sub", same_id(entities["sub"])]
    words = words_of(name)
    if whole:
        return words
    end = next((at for at, word in enumerate(words) if sequence_in_name(word) or is_mask_name(word)), 0)
    return words[:end]


def _other_patient(one: list[str], other: list[str]) -> bool:
    """Whether two names of one pattern differ in a number that is a person's by the letters before it."""
    if len(one) != len(other) or any(_shape(a) != _shape(b) for a, b in zip(one, other, strict=True)):
        return False
    for before, a, b in zip(["", *one], one, other, strict=False):
        if re.sub(r"0+(?=\d)", "", a) != re.sub(r"0+(?=\d)", "", b):
            letters = re.match(r"[^\W\d]*", a)
            owner = (letters[0] if letters else "") or (before if not re.search(r"\d", before) else "")
            return bool(owner) and owner not in _ID_WORDS
    return False


def _shape(word: str) -> str:
    """``p001`` and ``p002`` are alike, ``p001`` and ``x001`` are not."""
    return re.sub(r"\d+", "0", word)


# ---- BIDS -------------------------------------------------------------------------------------------


def _subject(path: Path) -> Path | None:
    """The ``sub-`` folder that is the path or lies around it, past ``anat`` and ``ses-`` only."""
    folder = Path(os.path.abspath(path))
    if folder.name.lower() == "anat":
        folder = folder.parent
    if re.match(r"ses-", folder.name, re.IGNORECASE):
        folder = folder.parent
    return folder if re.match(r"sub-.", folder.name, re.IGNORECASE) else None


def _sessions(path: Path) -> list[Path]:
    """The sessions that a BIDS path stands for; none where it is no BIDS folder with volumes of a sequence."""
    subject = _subject(path)
    if subject is None or not path.is_dir():
        return []
    folder = Path(os.path.abspath(path))
    if folder.name.lower() == "anat":
        folder = folder.parent
    inner = [e for e in visible(folder) if e.is_dir() and re.match(r"ses-", e.name, re.IGNORECASE)]
    anat = folder != subject or (folder / "anat").is_dir()
    sessions = [*([folder] if anat else []), *(inner if folder == subject else [])]
    return [one for one in sessions if _sequences_in(one)]


def _session_files(session: Path) -> list[Path]:
    anat = session / "anat"
    return [*_volumes_in(session), *(_volumes_in(anat) if anat.is_dir() else [])]


def _sequences_in(session: Path) -> frozenset[MRSequence]:
    roles = {_role(session, file) for file in _session_files(session)}
    return frozenset(name for name in MRSequence if name in roles)


def _bids_subjects(path: Path) -> list[Path]:
    """The subjects of a BIDS data set; of a derivative where the set itself has no images."""
    if not path.is_dir():
        return []
    subjects = [
        one for one in folders_in(path) if re.match(r"sub-.", one.name, re.IGNORECASE) and _sessions(one)
    ]
    if subjects or path.name == "derivatives":
        return subjects
    inside = path / "derivatives"
    found = [_bids_subjects(entry) for entry in visible(inside) if entry.is_dir()] if inside.is_dir() else []
    found = [one for one in found if one]
    if len(found) > 1:
        names = ", ".join(one[0].parent.name for one in found)
        raise GliomarkError(message("bids-derivatives", folder=path, names=names))
    return found[0] if found else []


_LATER_SESSION = re.compile(
    r"ses-(?:post(?!gad|con|c\b)\w*|follow\w*|fu\d*|recur\w*|relapse\w*)", re.IGNORECASE
)


def _choose_session(path: Path, sessions: Sequence[Path], needed: Sequence[MRSequence]) -> PatientVolumes:
    subject = _subject(path) or path
    dates = _session_dates(subject)
    candidates = {_candidate(session, dates.get(session.name, "")): session for session in sessions}
    chosen, examination, notes = choose_examination(path, list(candidates), needed)
    session = candidates[chosen]
    roles = _by_role(session, _session_files(session))
    return PatientVolumes(subject.name, roles, examination, notes)


def _candidate(session: Path, date: str) -> Candidate:
    label = re.sub(r"^ses-", "", session.name, flags=re.IGNORECASE)
    date = date or (label if re.fullmatch(r"(?:19|20)\d{6}", label) else "")
    moment = re.sub(r"\d+", lambda found: found[0].zfill(12), label)
    later = after_surgery_in_words(session.name) or bool(_LATER_SESSION.match(session.name))
    return Candidate(session.name, date, moment, _sequences_in(session), later)


def _session_dates(subject: Path) -> dict[str, str]:
    """Session to its date, YYYYMMDD, from ``sub-*_sessions.tsv`` and the sessions' ``*_scans.tsv``."""
    dates: dict[str, str] = {}
    for table in filter(is_plain, sorted(subject.glob("*/*_scans.tsv"))):
        days = [_day(row.get("acq_time", "")) for row in _rows(table)]
        dates[table.parent.name] = min((day for day in days if day), default="")
    for table in filter(is_plain, sorted(subject.glob("*_sessions.tsv"))):
        for row in _rows(table):
            name = row.get("session_id", "")
            key = name if name.startswith("ses-") else f"ses-{name}"
            dates[key] = _day(row.get("acq_time", "")) or dates.get(key, "")
    return dates


def _rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [{str(name): cell or "" for name, cell in row.items() if isinstance(cell, str)} for row in rows]


def _day(written: str) -> str:
    match = re.match(r"(\d{4})-?(\d{2})-?(\d{2})", written.strip())
    return "".join(match.groups()) if match else ""


# ---- nnU-Net and MSD --------------------------------------------------------------------------------

_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


def _dataset_file(folder: Path) -> Path | None:
    """The ``dataset.json`` beside a folder's images or above them."""
    around = (folder / "dataset.json", folder.parent / "dataset.json")
    return next((file for file in around if file.is_file()), None)


def _image_folders(path: Path) -> list[Path]:
    """The folders of images of a data set's root: ``imagesTr``, ``imagesTs``."""
    if not path.is_dir() or not (path / "dataset.json").is_file():
        return []
    return [entry for entry in visible(path) if entry.is_dir() and entry.name.lower().startswith("images")]


def _cases(folder: Path) -> dict[str, Path]:
    """The cases whose channels lie in a folder, each with the path that stands for it; none without a description."""
    if not folder.is_dir() or _dataset_file(folder) is None:
        return {}
    matches = (_CHANNEL.fullmatch(stem_of(file)) for file in _volumes_in(folder))
    return {match["case"]: folder / match["case"] for match in matches if match}


def _is_one_case(folder: Path) -> bool:
    """Whether a folder of channels is one patient's own."""
    return len(_cases(folder)) == 1 and not folder.name.lower().startswith("images")


def _channels(case: Path) -> dict[str, Path]:
    """Channel number to file, of the case that a path without a folder stands for."""
    if not case.parent.is_dir() or _dataset_file(case.parent) is None:
        return {}
    files = {file: _CHANNEL.fullmatch(stem_of(file)) for file in _volumes_in(case.parent)}
    return {match["channel"]: file for file, match in files.items() if match and match["case"] == case.name}


def case_files(path: Path) -> list[Path]:
    """Every file that a case is read from, the data set's description among them."""
    description, label = _dataset_file(path.parent), _label_file(path)
    return [*_channels(path).values(), *(file for file in (description, label) if file)]


def _read_case(case: Path, named: Path) -> PatientVolumes:
    """A case's files by what the description says of each channel."""
    file = _dataset_file(case.parent)
    if file is None:
        raise GliomarkError(message("volumes-channels-unnamed", folder=case.parent, names=case.name))
    told = _description(file)
    roles: dict[str, Path] = {}
    for channel, volume in _channels(case).items():
        name = _channel_names(told).get(int(channel))
        if name is None:
            raise GliomarkError(message("dataset-no-channel", file=file, channel=channel, volume=volume.name))
        sequence = sequence_in_name(name)
        if sequence in roles:
            raise GliomarkError(message("dataset-channel-twice", file=file, sequence=sequence))
        if sequence is not None:
            roles[sequence] = volume
    if not roles:
        names = ", ".join(_channel_names(told).values())
        raise GliomarkError(message("dataset-no-sequence", file=file, names=names))
    label = _label_file(case)
    labels = _lesion_labels(told) if label else None
    notes = (message("dataset-labels-unknown", file=file.name),) if label and not labels else ()
    if label and labels:
        roles[LESION] = label
    return PatientVolumes(folder_name(named), roles, notes=notes, labels=labels)


def _description(file: Path) -> Mapping[str, object]:
    try:
        told = json.loads(file.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise GliomarkError(message("dataset-unreadable", file=file))
    return told


def _channel_names(told: Mapping[str, object]) -> dict[int, str]:
    """Channel number to name: ``channel_names`` of nnU-Net, ``modality`` of MSD; an object, or a list."""
    names = told.get("channel_names") or told.get("modality") or told.get("modalities") or {}
    pairs = enumerate(names) if isinstance(names, list) else names.items() if isinstance(names, dict) else ()
    return {int(key): str(name) for key, name in pairs if str(key).isdecimal()}


def _label_file(case: Path) -> Path | None:
    """``labelsTr/<case>.nii.gz`` beside ``imagesTr``."""
    folder = case.parent.parent / re.sub("^images", "labels", case.parent.name, flags=re.IGNORECASE)
    if folder == case.parent or not folder.is_dir():
        return None
    return next((file for file in _volumes_in(folder) if stem_of(file) == case.name), None)


def _lesion_labels(told: Mapping[str, object]) -> frozenset[int] | None:
    """The values of a label image that are the lesion without its oedema, by the labels' names."""
    labels = told.get("labels")
    if not isinstance(labels, dict):
        return None
    named: dict[str, set[int]] = {}
    for key, value in labels.items():  # nnU-Net: name to value or values; MSD: value to name
        name, values = (str(value), [key]) if str(key).isdecimal() else (str(key), value)
        numbers = values if isinstance(values, list) else [values]
        if all(str(number).isdecimal() for number in numbers):
            named[name.lower()] = {int(number) for number in numbers}
    apart = {name: values for name, values in named.items() if not re.search(_NO_LESION, name)}
    core = [values for name, values in apart.items() if re.search(r"core", name)]
    regions = core or [values for name, values in apart.items() if not re.search(r"whole|(?<![a-z])wt", name)]
    found = set().union(*(regions or apart.values())) - {0}
    return frozenset(found) or None


_NO_LESION = (
    r"background|o?edema|snfh|ignore|brain(?!.*tumou?r)|cavity|(?<![a-z])rc(?![a-z])|(?<![a-z])ed(?![a-z])"
)
