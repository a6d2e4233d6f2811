"""List a folder's files and subfolders; hidden entries, links and special files are skipped."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from gliomark.errors import InputError
from gliomark.files import walk_folder
from gliomark.messages import message


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


def is_regular_file(path: Path) -> bool:
    """Whether a path is a regular file, not a link, folder, pipe, socket or device."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
