"""``python -m tests.battery.fuzz --minutes 10 [--reader NAME]``: every reader's headers damaged at random.

Each reader runs in processes of its own, so that a signal is seen; one that ends is started again. An input is told by
a short recipe of damages to a healthy one, in hex, never by its bytes: ``--reader NAME --recipe HEX`` reads it again.
Atheris chooses the recipes by what they reach where it is installed; else they are drawn from a seed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path

COMMAND = (sys.executable, "-m", "tests.battery.fuzz")
HANG_S = 20.0
LOOK_S = 0.2
ODD_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
ODD_WORDS = (
    b"nan", b"inf", b"-1", b"1e999", b"99999999999", b"\0", b"\xff\xfe", b"../../x", b"\n", b"%s", b"[" * 50, b'"',
    b"{}", b"null", b"True", b"/etc/passwd", b"=1+1", b"<!DOCTYPE x>",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What fuzzing a reader came to. found: the first recipe of each kind of failure, in words."""

    reader: str
    engine: str
    inputs: int
    seconds: int
    crashes: int
    traces: int
    hangs: int
    found: str


# ---- a recipe and its input -------------------------------------------------------------------------


def damage(healthy: Sequence[bytes], recipe: bytes) -> bytes:
    """A healthy input with the damages of a recipe: its first byte chooses the input, every four more a damage."""
    content = bytearray(healthy[(recipe[0] if recipe else 0) % len(healthy)])
    for at in range(1, len(recipe) - 3, 4):
        kind, high, low, value = recipe[at : at + 4]
        # two of three fall on the header, where lengths and counts stand
        reach = len(content) if high >= 170 else min(len(content), 600)
        place = (high << 8 | low) % max(1, reach)
        _damage(content, kind % 8, place, value)
    return bytes(content)


def _damage(content: bytearray, kind: int, place: int, value: int) -> None:
    if kind == 0:
        content[place : place + 1] = bytes([value])
    elif kind == 1:
        number = ODD_NUMBERS[value % len(ODD_NUMBERS)]
        form = ("<I", ">I", "<H", ">H")[value % 4]
        packed = struct.pack(form, number & (0xFFFFFFFF if form[1] == "I" else 0xFFFF))
        content[place : place + len(packed)] = packed
    elif kind == 2:
        del content[place:]
    elif kind == 3:
        del content[place : place + 1 + value % 16]
    elif kind == 4:
        content[place:place] = ODD_WORDS[value % len(ODD_WORDS)]
    elif kind == 5:
        word = ODD_WORDS[value % len(ODD_WORDS)]
        content[place : place + len(word)] = word
    elif kind == 6:
        content[place:place] = content[place : place + value]
    else:
        content[place : place + 1] = (
            bytes([content[place] ^ (1 << value % 8)]) if place < len(content) else b""
        )


# ---- the child --------------------------------------------------------------------------------------


class Child:
    """Reads one input after the other; tells in a file what it is at, and in another what went wrong."""

    def __init__(self, name: str, home: Path) -> None:
        from tests.battery.fuzz_readers import READERS

        os.chdir(home)
        self.reader, self.home, self.count = READERS[name], home, 0
        self.healthy = self.reader.healthy()
        self.at = os.open(home / "at", os.O_RDWR | os.O_CREAT)

    def read(self, recipe: bytes) -> None:
        from tests.battery.fuzz_readers import read_one

        self.count += 1
        os.pwrite(self.at, f"{self.count} {recipe.hex()}".ljust(600).encode(), 0)
        if wrong := read_one(self.reader, damage(self.healthy, recipe[:200]), self.home / "one"):
            with (self.home / "wrong").open("a") as file:
                file.write(json.dumps([wrong, recipe[:200].hex()]) + "\n")

    def run(self, seconds: float, seed: int) -> None:
        """Recipes from a seed."""
        ends, chance = time.monotonic() + seconds, random.Random(seed)
        while time.monotonic() < ends:
            self.read(chance.randbytes(1 + 4 * chance.randint(1, 5)))

    def run_atheris(self, seconds: float, seed: int) -> None:
        """Recipes chosen by what they reach. Does not return."""
        import atheris

        words = [
            "fuzz",
            f"-max_total_time={int(seconds)}",
            f"-seed={seed + 1}",
            "-max_len=41",
            "-rss_limit_mb=0",
        ]
        atheris.Setup([*words, "-verbosity=0", f"-artifact_prefix={self.home}/"], self.read)
        atheris.Fuzz()


def run_child(name: str, home: Path, seconds: float, seed: int, engine: str) -> None:
    if engine == "seeded":
        Child(name, home).run(seconds, seed)
        return
    import atheris

    with atheris.instrument_imports(include=["gliomark"]):
        child = Child(name, home)
    child.run_atheris(seconds, seed)


# ---- the parent -------------------------------------------------------------------------------------


def fuzz(name: str, seconds: float, engine: str) -> Row:
    """Fuzz one reader for so long, its process started again whenever it ends."""
    crashes, hangs, inputs, seed, found = 0, 0, 0, 0, dict[str, str]()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        home = Path(folder)
        while (left := seconds - (time.monotonic() - started)) > 0.5:
            status, hung, count, recipe = _one_child(name, home, left, seed, engine)
            inputs, seed = inputs + count, seed + 1
            hangs += hung
            if hung:
                found.setdefault("hang", recipe)
            elif status < 0 or (status and recipe):
                crashes += 1
                found.setdefault(f"ended with {status}", recipe)
            if status and not recipe:
                raise RuntimeError(f"{name} cannot be fuzzed: {(home / 'said').read_text()[-2000:]}")
        wrong = [json.loads(line) for line in _lines(home / "wrong")]
    for kind, recipe in wrong:
        found.setdefault(kind, recipe)
    told = "; ".join(f"{kind}: {recipe}" for kind, recipe in found.items())
    return Row(name, engine, inputs, round(time.monotonic() - started), crashes, len(wrong), hangs, told)


def _one_child(name: str, home: Path, seconds: float, seed: int, engine: str) -> tuple[int, bool, int, str]:
    """Exit status, whether it hung, how many inputs it took, and the recipe it was at."""
    (home / "at").unlink(missing_ok=True)
    words = ["--child", str(home), "--reader", name, "--minutes", str(seconds / 60), "--seed", str(seed)]
    with (home / "said").open("wb") as said:
        process = subprocess.Popen(
            [*COMMAND, *words, "--engine", engine],
            stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
    before, moved = "", time.monotonic()
    while process.poll() is None:
        time.sleep(LOOK_S)
        now = _at(home)
        moved, before = (moved, before) if now == before else (time.monotonic(), now)
        if before and time.monotonic() - moved > HANG_S:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return 0, True, int(before.split()[0]), before.split()[-1]
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    count, _, recipe = _at(home).partition(" ")
    return process.returncode, False, int(count or 0), recipe.strip()


def _at(home: Path) -> str:
    with suppress(OSError):
        return (home / "at").read_text().strip()
    return ""


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def write_rows(rows: Sequence[Row], path: Path) -> None:
    part = path.with_name(f"{path.name}.part")
    with part.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        names = [one.name for one in fields(Row)]
        table.writerow(names)
        table.writerows([getattr(row, name) for name in names] for row in rows)
    part.replace(path)


def read_again(name: str, recipe: str) -> None:
    """One input, in this process, whatever it does."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as home:
        child = Child(name, Path(home))
        (child.home / "one").mkdir()
        child.reader.read(damage(child.healthy, bytes.fromhex(recipe)), child.home / "one")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="for each reader")
    parser.add_argument("--reader", default="", help="this one alone")
    parser.add_argument("--out", type=Path, help="the table (csv)")
    parser.add_argument("--recipe", default="", help="read the input of this recipe again")
    engines = ("atheris", "seeded")
    parser.add_argument("--engine", choices=engines, default=engines[find_spec("atheris") is None])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        run_child(asked.reader, asked.child, asked.minutes * 60, asked.seed, asked.engine)
        return 0
    if asked.recipe:
        read_again(asked.reader, asked.recipe)
        return 0
    from tests.battery.fuzz_readers import READERS

    rows = []
    for name in [asked.reader] if asked.reader else READERS:
        rows.append(fuzz(name, asked.minutes * 60, asked.engine))
        print(rows[-1], flush=True)
    if asked.out:
        write_rows(rows, asked.out)
    return int(any(row.crashes or row.traces or row.hangs for row in rows))


if __name__ == "__main__":
    sys.exit(main())
