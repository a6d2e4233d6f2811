"""Building blocks of cases: copies of healthy inputs and changes to them."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.battery.cases_and_results import CaseFolders
from tests.battery.healthy_inputs import PATIENT, read_answer

FolderChange = Callable[[Path], object]
BytesChange = Callable[[bytes], bytes]


def copy_patient(form: str, *changes: FolderChange) -> Callable[[CaseFolders], None]:
    """Copy the healthy patient to the folder of the case and change it."""

    def copy_and_change(scene: CaseFolders) -> None:
        folder = scene.folder / PATIENT
        shutil.copytree(scene.healthy_folder / form / PATIENT, folder)
        for change in changes:
            change(folder)

    return copy_and_change


def run_all(*makes: Callable[[CaseFolders], object]) -> Callable[[CaseFolders], None]:
    """Run several preparations in order."""

    def run_in_order(scene: CaseFolders) -> None:
        for prepare in makes:
            prepare(scene)

    return run_in_order


def write_case_file(name: str, content: bytes | str | Callable[[], bytes]) -> Callable[[CaseFolders], None]:
    """Write a file in the folder of the case."""
    return lambda scene: write_file(name, content)(scene.folder)


# ---- changes to a patient's folder ------------------------------------------------------------------


def change_files(pattern: str, change_bytes: BytesChange) -> FolderChange:
    """Change the bytes of all files of this pattern."""

    def change(folder: Path) -> None:
        found = sorted(folder.glob(pattern))
        assert found, f"no file matches {pattern}"
        for file in found:
            file.write_bytes(change_bytes(file.read_bytes()))

    return change


def write_file(name: str, content: bytes | str | Callable[[], bytes]) -> FolderChange:
    """Write a file, or replace an existing one."""

    def change(folder: Path) -> None:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        data = content() if callable(content) else content
        file.write_bytes(data.encode() if isinstance(data, str) else data)

    return change


def replace_file(name: str, content: bytes | str | Callable[[], bytes], replaced_name: str) -> FolderChange:
    """Replace a file by one with another name."""

    def change(folder: Path) -> None:
        (folder / replaced_name).unlink()
        write_file(name, content)(folder)

    return change


def delete_files(pattern: str) -> FolderChange:
    def change(folder: Path) -> None:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def rename_file(old: str, new: str) -> FolderChange:
    return lambda folder: (folder / old).rename(folder / new)


def copy_file(old: str, new: str) -> FolderChange:
    def change(folder: Path) -> None:
        (folder / new).parent.mkdir(parents=True, exist_ok=True)
        source = folder / old
        shutil.copytree(source, folder / new) if source.is_dir() else shutil.copy(source, folder / new)

    return change


def link_file(name: str, to: str, keep_original: bool = False) -> FolderChange:
    """Create a symbolic link, replacing a file of its name; keep_original: the file is moved to the link's target."""

    def change(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if keep_original:
            path.replace(folder / to)
        elif path.exists():
            path.unlink()
        path.symlink_to(to)

    return change


def make_fifo(name: str) -> FolderChange:
    """Create a FIFO without a writer."""

    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return change


# ---- changes to bytes -------------------------------------------------------------------------------


def truncate_bytes(kept_size: float) -> BytesChange:
    """Keep only the first bytes: a share if below 1, otherwise a number."""
    return lambda content: content[: int(kept_size * len(content)) if kept_size < 1 else int(kept_size)]


def overwrite_bytes(at: int, new: bytes) -> BytesChange:
    return lambda content: content[:at] + new + content[at + len(new) :]


def replace_bytes(old: bytes, new: bytes) -> BytesChange:
    def change(content: bytes) -> bytes:
        assert old in content, f"{old!r} is not in the content"
        return content.replace(old, new)

    return change


def replace_content(new: bytes | Callable[[], bytes]) -> BytesChange:
    return lambda content: new() if callable(new) else new


def corrupt_bytes(seed: int, share: float = 0.01, start: int = 0) -> BytesChange:
    """Replace a share of the bytes after ``start`` by random ones."""

    def change(content: bytes) -> bytes:
        random_generator, damaged = random.Random(seed), bytearray(content)
        for _ in range(max(1, int(share * (len(content) - start)))):
            damaged[random_generator.randrange(start, len(content))] = random_generator.randrange(256)
        return bytes(damaged)

    return change


def change_unpacked(change_bytes: BytesChange) -> BytesChange:
    """Apply a change to the decompressed content of a gzip file."""
    return lambda content: gzip.compress(change_bytes(gzip.decompress(content)), 1)


# ---- expected answers -------------------------------------------------------------------------------


def compare_with_healthy_answer(
    form: str, patient_id: str = PATIENT, tolerance: float = 0.03
) -> Callable[[CaseFolders], str]:
    """Compare the answer with that of the healthy patient in this form."""

    def find_error(scene: CaseFolders) -> str:
        expected = json.loads((scene.healthy_folder / "answers.json").read_text())[form]
        try:
            answer = read_answer(scene.folder / "out" / patient_id)
        except OSError:
            return "there is no answer"
        differences = (
            abs(answer["idh"] - expected["idh"]),
            abs(answer["volume_ml"] / expected["volume_ml"] - 1),
        )
        return "" if max(differences) <= tolerance else f"answered {answer}, expected {expected}"

    return find_error
