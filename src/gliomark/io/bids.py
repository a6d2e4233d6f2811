"""Find the volumes of a BIDS subject: ``sub-01/[ses-1/]anat/``.

The patient is ``sub-01`` whichever of these folders is given. If the subject's folder is given,
``examination_choice`` chooses one of its sessions; if a session is given, it is read.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path

from gliomark.errors import InputError
from gliomark.io.examination_choice import ExaminationCandidate, choose_examination
from gliomark.io.folder_listing import (
    get_file_stem,
    is_regular_file,
    list_subfolders,
    list_visible_entries,
    resolve_folder_name,
)
from gliomark.io.naming import (
    is_postoperative_description,
    split_bids_entities,
)
from gliomark.io.volume_files import PatientVolumes, assign_roles, find_role, list_direct_volumes
from gliomark.messages import message
from gliomark.study import MRSequence


def derive_patient_id(path: Path) -> str:
    """Derive the patient's id: the BIDS subject, else the folder's name.

    For an ``anat`` or ``ses-`` folder outside a subject's folder, the subject is taken from the file names.
    """
    if subject := find_bids_subject(path):
        return resolve_folder_name(subject)
    name = resolve_folder_name(path)
    if not path.is_dir() or not re.match(r"anat$|ses-.", name, re.IGNORECASE):
        return name
    subjects = {
        split_bids_entities(get_file_stem(file))[0].get("sub", "") for file in list_session_files(path)
    } - {""}
    if len(subjects) == 1:
        return f"sub-{subjects.pop()}"
    return resolve_folder_name(Path(os.path.abspath(path)).parent) if name.lower() == "anat" else name


def find_bids_subject(path: Path) -> Path | None:
    """Find the ``sub-`` folder: the path itself or the parent of its ``ses-`` or ``anat`` folder."""
    folder = Path(os.path.abspath(path))
    if folder.name.lower() == "anat":
        folder = folder.parent
    if re.match(r"ses-", folder.name, re.IGNORECASE):
        folder = folder.parent
    return folder if re.match(r"sub-.", folder.name, re.IGNORECASE) else None


def list_sessions(path: Path) -> list[Path]:
    """List the sessions of a BIDS folder; none if it is not a BIDS folder with volumes of a sequence."""
    subject = find_bids_subject(path)
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


def list_session_files(session: Path) -> list[Path]:
    """List the volume files of a session or subject, directly in it and in its ``anat`` folder."""
    anat = session / "anat"
    return [*list_direct_volumes(session), *(list_direct_volumes(anat) if anat.is_dir() else [])]


def _list_session_sequences(session: Path) -> frozenset[MRSequence]:
    roles = {find_role(session, file) for file in list_session_files(session)}
    return frozenset(name for name in MRSequence if name in roles)


def list_bids_subjects(folder: Path) -> list[Path]:
    """List the subjects of a BIDS data set, or of its derivative if the data set itself has no images.

    Raises
    ------
    InputError
        If only derivatives have images and they are several.
    """
    if not folder.is_dir():
        return []
    subjects = [
        one
        for one in list_subfolders(folder)
        if re.match(r"sub-.", one.name, re.IGNORECASE) and list_sessions(one)
    ]
    if subjects or folder.name == "derivatives":
        return subjects
    inside = folder / "derivatives"
    found = (
        [list_bids_subjects(entry) for entry in list_visible_entries(inside) if entry.is_dir()]
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


def choose_session(
    folder: Path, sessions: Sequence[Path], required_sequences: Sequence[MRSequence]
) -> PatientVolumes:
    """Choose the examination among a subject's sessions and find its files.

    Raises
    ------
    InputError
        As ``assign_roles``.
    NoExaminationError
        As ``choose_examination``.
    """
    subject = find_bids_subject(folder) or folder
    dates = _read_session_dates(subject)
    candidates = {_create_candidate(session, dates.get(session.name, "")): session for session in sessions}
    chosen, examination, notes = choose_examination(folder, list(candidates), required_sequences)
    session = candidates[chosen]
    roles = assign_roles(session, list_session_files(session), derive_patient_id(session))
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
