"""Small damages that a case is put together from: a copy of something healthy, and what is done to it."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.battery.case import Scene
from tests.battery.ground import PATIENT, read_answer

Change = Callable[[Path], object]
Bytes = Callable[[bytes], bytes]


def patient(form: str, *changes: Change) -> Callable[[Scene], None]:
    """A copy of the healthy patient in the case's folder, changed."""

    def make(scene: Scene) -> None:
        folder = scene.folder / PATIENT
        shutil.copytree(scene.ground / form / PATIENT, folder)
        for change in changes:
            change(folder)

    return make


def both(*makes: Callable[[Scene], object]) -> Callable[[Scene], None]:
    """One after the other."""

    def make(scene: Scene) -> None:
        for one in makes:
            one(scene)

    return make


def lay(name: str, content: bytes | str | Callable[[], bytes]) -> Callable[[Scene], None]:
    """A file in the case's folder."""
    return lambda scene: put(name, content)(scene.folder)


# ---- changes of a patient's folder ------------------------------------------------------------------


def on(pattern: str, how: Bytes) -> Change:
    """Change the bytes of every file of this pattern."""

    def change(folder: Path) -> None:
        found = sorted(folder.glob(pattern))
        assert found, f"nothing is called {pattern}"
        for file in found:
            file.write_bytes(how(file.read_bytes()))

    return change


def put(name: str, content: bytes | str | Callable[[], bytes]) -> Change:
    """A further file, or another in its place."""

    def change(folder: Path) -> None:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        made = content() if callable(content) else content
        file.write_bytes(made.encode() if isinstance(made, str) else made)

    return change


def instead(name: str, content: bytes | str | Callable[[], bytes], of: str) -> Change:
    """A file under another name in the place of one."""

    def change(folder: Path) -> None:
        (folder / of).unlink()
        put(name, content)(folder)

    return change


def take_away(pattern: str) -> Change:
    def change(folder: Path) -> None:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def rename(old: str, new: str) -> Change:
    return lambda folder: (folder / old).rename(folder / new)


def copy(old: str, new: str) -> Change:
    def change(folder: Path) -> None:
        (folder / new).parent.mkdir(parents=True, exist_ok=True)
        source = folder / old
        shutil.copytree(source, folder / new) if source.is_dir() else shutil.copy(source, folder / new)

    return change


def link(name: str, to: str, away: bool = False) -> Change:
    """A symbolic link, in the place of a file of its name; away: of which a copy is what it leads to."""

    def change(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if away:
            path.replace(folder / to)
        elif path.exists():
            path.unlink()
        path.symlink_to(to)

    return change


def pipe(name: str) -> Change:
    """A FIFO that nobody writes into."""

    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return change


# ---- changes of bytes -------------------------------------------------------------------------------


def cut(kept: float) -> Bytes:
    """The first bytes: a share of them below 1, else so many."""
    return lambda content: content[: int(kept * len(content)) if kept < 1 else int(kept)]


def overwrite(at: int, new: bytes) -> Bytes:
    return lambda content: content[:at] + new + content[at + len(new) :]


def replace(old: bytes, new: bytes) -> Bytes:
    def change(content: bytes) -> bytes:
        assert old in content, f"{old!r} does not stand there"
        return content.replace(old, new)

    return change


def instead_of_all(new: bytes | Callable[[], bytes]) -> Bytes:
    return lambda content: new() if callable(new) else new


def noise(seed: int, share: float = 0.01, start: int = 0) -> Bytes:
    """A share of the bytes behind ``start`` replaced by chance."""

    def change(content: bytes) -> bytes:
        chance, damaged = random.Random(seed), bytearray(content)
        for _ in range(max(1, int(share * (len(content) - start)))):
            damaged[chance.randrange(start, len(content))] = chance.randrange(256)
        return bytes(damaged)

    return change


def unpacked(how: Bytes) -> Bytes:
    """The same within gzip."""
    return lambda content: gzip.compress(how(gzip.decompress(content)), 1)


# ---- what must come out -----------------------------------------------------------------------------


def same_answer(form: str, patient_id: str = PATIENT, near: float = 0.03) -> Callable[[Scene], str]:
    """The answer that the healthy patient in this form was given."""

    def wrong(scene: Scene) -> str:
        expected = json.loads((scene.ground / "answers.json").read_text())[form]
        try:
            answer = read_answer(scene.folder / "out" / patient_id)
        except OSError:
            return "there is no answer"
        off = abs(answer["idh"] - expected["idh"]), abs(answer["volume_ml"] / expected["volume_ml"] - 1)
        return "" if max(off) <= near else f"answered {answer}, expected {expected}"

    return wrong
