"""Files that identify patients: kept beside the cohort, never inside it, readable by the owner only.

::

    COHORT.private/key.csv          new id, original id
    COHORT.private/series.csv       every series, how it was classified and why; may be edited and given to a build
    COHORT.private/quarantine.csv   excluded files and patients, and the reasons
    COHORT.private/cohort_id.txt    id of the cohort, which is also in cohort.json
    COHORT.private/unzipped/        contents of zip files

The folder has mode 0700 and its files 0600.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from gliomark.errors import CohortError
from gliomark.files import atomic_write, convert_write_errors
from gliomark.tables import format_csv
from gliomark.tables.cell_text import unescape_formula

NEW_ID_FORMAT = "G{:04d}"


def create_private_folder(cohort: Path) -> Path:
    """Return the folder beside a cohort for files that identify patients; create it if it is missing (mode 0700)."""
    cohort_path = cohort.absolute()
    folder = cohort_path.with_name(cohort_path.name + ".private")
    with convert_write_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    return folder


def write_private_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> Path:
    """Write a table atomically, readable by the owner only (mode 0600)."""
    text = format_csv([columns, *([row.get(name, "") for name in columns] for row in rows)])
    return atomic_write(path, text, mode=0o600, encoding="utf-8-sig")  # Excel needs the byte order mark


def read_private_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read the rows of a table, cells by column name.

    Raises
    ------
    CohortError
        If the table cannot be read or a column is missing.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            missing = [name for name in columns if name not in (table.fieldnames or ())]
            rows = [
                {name: unescape_formula(row[name] or "") for name in table.fieldnames or ()} for row in table
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CohortError(
            f"{path} cannot be read as UTF-8 csv ({error}); save it again as CSV UTF-8."
        ) from error
    if missing:
        raise CohortError(
            f"{path} has no column {', '.join(missing)}; edit the file written by the last build."
        )
    return rows


def read_original_ids(private_folder: Path) -> dict[str, str]:
    """Read the original id by new id, of all patients who ever got one."""
    path = private_folder / "key.csv"
    return read_key(path) if path.exists() else {}


def read_key(path: Path) -> dict[str, str]:
    """Read the original id by new id from a ``key.csv``.

    Raises
    ------
    CohortError
        If the table cannot be read or a column is missing.
    """
    return {row["id"]: row["original_id"] for row in read_private_csv(path, ["id", "original_id"])}


def is_new_id(patient_id: str) -> bool:
    """Whether an id has the form of those that a build assigns, such as G0012."""
    return re.fullmatch(r"G\d{4,}", patient_id) is not None


def assign_new_ids(
    private_folder: Path, original_ids: Collection[str], keep_originals: bool
) -> dict[str, str]:
    """Assign new ids, update ``key.csv``, and return the new id by original id.

    A patient who already has a new id keeps it. Numbers follow the order of the ids' SHA-256, which reveals
    neither names nor admission dates. With ``keep_originals`` the ids stay unchanged, for data already anonymous.

    Raises
    ------
    CohortError
        With ``keep_originals``, if an id cannot be a file name, or ``key.csv`` already contains new ids.
    """
    path = private_folder / "key.csv"
    new_by_original = {original: new for new, original in read_original_ids(private_folder).items()}
    if keep_originals:
        unsafe = [name for name in original_ids if not re.fullmatch(r"\w[\w.-]{0,63}", name)]
        if unsafe:
            raise CohortError(
                f"The id '{sorted(unsafe)[0]}' cannot be a file name; build without --keep-ids."
            )
        new_by_original |= {name: name for name in original_ids if name not in new_by_original}
        if any(new != original for original, new in new_by_original.items()):
            raise CohortError(
                f"{path} already contains new ids; build into another folder to keep the original ones."
            )
    else:
        unassigned = sorted(
            set(original_ids) - set(new_by_original), key=lambda name: hashlib.sha256(name.encode()).digest()
        )
        taken = {int(new[1:]) for new in new_by_original.values() if re.fullmatch(r"G\d+", new)}
        start = max(taken, default=0) + 1
        new_by_original |= {
            name: NEW_ID_FORMAT.format(start + number) for number, name in enumerate(unassigned)
        }
    rows = [
        {"id": new, "original_id": original}
        for original, new in sorted(new_by_original.items(), key=lambda p: p[1])
    ]
    write_private_csv(path, ["id", "original_id"], rows)
    return {name: new_by_original[name] for name in original_ids}
