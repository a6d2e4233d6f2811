"""The patient's folder on this computer: found from what was picked, packed for the way to the server."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

from gliomark.client.language import translate
from gliomark.files import NotWrittenError, explain_os_error, files_below, is_disk_full
from gliomark.study import GliomarkError

KIND = re.compile(r"flair|t1|t2", re.IGNORECASE)
EXACTLY = re.compile(r"(t2)?flair|t1(c|ce|gd|post|wi|w)?|t2(w|wi)?", re.IGNORECASE)
ABOUT = r"[\s_.+-]"


def patient_folder(picked: Path) -> Path:
    """The patient's folder around a picked sequence's folder (``<patient>/T1c``), else what was picked.

    A file stands for the folder that holds it. Raises GliomarkError where there is nothing.
    """
    if not picked.exists():
        raise GliomarkError(
            translate("folder", "{} does not exist: choose the patient's folder.").format(picked)
        )
    folder = picked.absolute() if picked.is_dir() else picked.absolute().parent
    return folder.parent if _is_sequence(folder) else folder


def _is_sequence(folder: Path) -> bool:
    """Named after a sequence; a loose name ("AX T1 post") counts where another kind lies beside it."""
    if EXACTLY.fullmatch(re.sub(ABOUT, "", folder.name)):
        return True
    kinds = _kinds(folder.name)
    if not kinds or any(entry.is_dir() for entry in folder.iterdir()):
        return False
    beside = (_kinds(entry.name) for entry in folder.parent.iterdir() if entry.is_dir() and entry != folder)
    return any(other and other != kinds for other in beside)


def _kinds(name: str) -> frozenset[str]:
    return frozenset(found.lower() for found in KIND.findall(name))


def files_of(folder: Path) -> list[Path]:
    """Every visible file under a folder, sorted. Raises GliomarkError where there is none."""
    plain = (path for path in sorted(files_below(folder)) if path.is_file() and not path.is_symlink())
    found = [path for path in plain if not _hidden(path, folder)]
    if not found:
        raise GliomarkError(
            translate("folder", "{} holds no files: choose the patient's folder.").format(folder)
        )
    return found


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def pack(folder: Path, archive: Path, stopped: Callable[[], bool]) -> bool:
    """Zip a patient's folder, names as ``<folder>/<path inside>``; False where ``stopped`` said so before the end.

    Raises GliomarkError where a file cannot be read or the archive not be written.
    """
    try:
        with (
            os.fdopen(os.open(archive, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed,
        ):
            for path in files_of(folder):
                if stopped():
                    return False
                packed.write(path, os.path.join(folder.name, path.relative_to(folder)))
    except (OSError, ValueError) as error:  # ValueError: a date before 1980
        if is_disk_full(error):
            raise NotWrittenError(explain_os_error(cast(OSError, error), archive)) from error
        reason = getattr(error, "strerror", None) or str(error)
        raise GliomarkError(translate("folder", "{} cannot be read ({}).").format(folder, reason)) from error
    return True
