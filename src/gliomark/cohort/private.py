"""What identifies patients: kept beside the cohort, never inside it, readable by its owner alone.

::

    COHORT.private/key.csv          new id, original id
    COHORT.private/series.csv       every series found, what it was taken for and why; may be edited and fed back
    COHORT.private/quarantine.csv   files and patients that were kept out, and why
    COHORT.private/unzipped/        what lay in zip files

The folder has mode 0700 and its files 0600.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from gliomark.files import atomic_write, writing
from gliomark.study import GliomarkError
from gliomark.tables import csv_text
from gliomark.tables.text import unharmed

ID_FORM = "G{:04d}"


def private_folder(cohort: Path) -> Path:
    """The folder beside a cohort for what identifies patients, made where it is missing."""
    place = cohort.absolute()
    folder = place.with_name(place.name + ".private")
    with writing(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    return folder


def write_private_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> Path:
    """Write a table whole or not at all, for its owner's eyes alone."""
    text = csv_text([columns, *([row.get(name, "") for name in columns] for row in rows)])
    return atomic_write(path, text, mode=0o600, encoding="utf-8-sig")  # the mark makes Excel read Chinese


def read_private_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """A table's rows. Raises GliomarkError where it cannot be read or lacks a column."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            missing = [name for name in columns if name not in (table.fieldnames or ())]
            rows = [{name: unharmed(row[name] or "") for name in table.fieldnames or ()} for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise GliomarkError(
            f"{path} cannot be read as a UTF-8 csv ({error}); save it again as CSV UTF-8."
        ) from error
    if missing:
        raise GliomarkError(
            f"{path} has no column {', '.join(missing)}; edit the file that the last build wrote."
        )
    return rows


def original_ids(private: Path) -> dict[str, str]:
    """New id to original id, of everybody who ever got one."""
    path = private / "key.csv"
    if not path.exists():
        return {}
    return {row["id"]: row["original_id"] for row in read_private_csv(path, ["id", "original_id"])}


def new_ids(private: Path, originals: Collection[str], keep: bool) -> dict[str, str]:
    """Original id to new id; whoever has one already keeps it.

    Numbers follow the order of the ids' SHA-256, which tells nothing of admission dates or names. With
    ``keep`` the ids stay as they are, for data that was made anonymous before. Raises GliomarkError where
    such an id cannot be a file's name, or a new id would be one of the originals.
    """
    path = private / "key.csv"
    known = {original: new for new, original in original_ids(private).items()}
    if keep:
        unsafe = [name for name in originals if not re.fullmatch(r"\w[\w.-]{0,63}", name)]
        if unsafe:
            raise GliomarkError(f"The id '{sorted(unsafe)[0]}' cannot name a file; build without --keep-ids.")
        known |= {name: name for name in originals if name not in known}
        if any(new != original for original, new in known.items()):
            raise GliomarkError(
                f"{path} gave new ids before; build into another folder to keep the original ones."
            )
    else:
        fresh = sorted(set(originals) - set(known), key=lambda name: hashlib.sha256(name.encode()).digest())
        taken = {int(new[1:]) for new in known.values() if re.fullmatch(r"G\d+", new)}
        start = max(taken, default=0) + 1
        known |= {name: ID_FORM.format(start + number) for number, name in enumerate(fresh)}
    rows = [
        {"id": new, "original_id": original} for original, new in sorted(known.items(), key=lambda p: p[1])
    ]
    write_private_csv(path, ["id", "original_id"], rows)
    return {name: known[name] for name in originals}
