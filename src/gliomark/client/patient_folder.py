"""The patient's folder: resolved from the path that the user chose, and packed for upload."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

from gliomark.client.language import translate
from gliomark.errors import InputError
from gliomark.files import FileWriteError, describe_os_error, is_disk_full_error, iterate_files

SEQUENCE_WORD = re.compile(r"flair|t1|t2", re.IGNORECASE)
SEQUENCE_FOLDER_NAME = re.compile(r"(t2)?flair|t1(c|ce|gd|post|wi|w)?|t2(w|wi)?", re.IGNORECASE)
SEPARATORS = r"[\s_.+-]"


def resolve_patient_folder(chosen_path: Path) -> Path:
    """Return the patient's folder for a chosen path.

    For a sequence folder (``<patient>/T1c``) that is its parent; for a file, the folder that contains it is taken as
    chosen.

    Raises
    ------
    InputError
        If the path does not exist.
    """
    if not chosen_path.exists():
        raise InputError(
            translate("folder", "{} does not exist: choose the patient's folder.").format(chosen_path)
        )
    folder = chosen_path.absolute() if chosen_path.is_dir() else chosen_path.absolute().parent
    return folder.parent if _is_sequence_folder(folder) else folder


def _is_sequence_folder(folder: Path) -> bool:
    """Whether a folder is named after a sequence.

    A free name such as "AX T1 post" counts only if a folder of another sequence is beside it.
    """
    if SEQUENCE_FOLDER_NAME.fullmatch(re.sub(SEPARATORS, "", folder.name)):
        return True
    sequence_words = _list_sequence_words(folder.name)
    if not sequence_words or any(entry.is_dir() for entry in folder.iterdir()):
        return False
    sibling_words = (
        _list_sequence_words(entry.name)
        for entry in folder.parent.iterdir()
        if entry.is_dir() and entry != folder
    )
    return any(other and other != sequence_words for other in sibling_words)


def _list_sequence_words(name: str) -> frozenset[str]:
    return frozenset(found.lower() for found in SEQUENCE_WORD.findall(name))


def list_visible_files(folder: Path) -> list[Path]:
    """Return all visible files below a folder, sorted; symbolic links are skipped.

    Raises
    ------
    InputError
        If there are none.
    """
    regular_files = (
        path for path in sorted(iterate_files(folder)) if path.is_file() and not path.is_symlink()
    )
    visible_files = [path for path in regular_files if not _is_hidden(path, folder)]
    if not visible_files:
        raise InputError(
            translate("folder", "{} contains no files: choose the patient's folder.").format(folder)
        )
    return visible_files


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def pack_folder(folder: Path, archive: Path, is_cancelled: Callable[[], bool]) -> bool:
    """Pack a patient's folder into a zip file with the names ``<folder>/<path below it>``.

    archive: path of the new file, readable by the owner only. is_cancelled: checked before each file. Returns False
    if cancelled.

    Raises
    ------
    InputError
        If the folder contains no files, or a file cannot be read.
    FileWriteError
        If the disk is full.
    """
    try:
        with (
            os.fdopen(os.open(archive, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zip_file,
        ):
            for path in list_visible_files(folder):
                if is_cancelled():
                    return False
                zip_file.write(path, os.path.join(folder.name, path.relative_to(folder)))
    except (OSError, ValueError) as error:  # ValueError: zip cannot store dates before 1980
        if is_disk_full_error(error):
            raise FileWriteError(describe_os_error(cast(OSError, error), archive)) from error
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(translate("folder", "{} cannot be read ({}).").format(folder, reason)) from error
    return True
