"""``python -m tests.battery.fuzz --minutes 10 [--reader NAME]``: fuzz all readers with randomly damaged headers.

Each reader runs in a child process, so that signals are detected; a process that ends is started again. An input is
described by a short recipe of changes to a healthy input, in hex; ``--reader NAME --recipe HEX`` reads it again.
Atheris chooses recipes by code coverage if it is installed; otherwise they are drawn from a seed.
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
POLL_INTERVAL_S = 0.2
UNUSUAL_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
UNUSUAL_TEXTS = (
    b"nan", b"inf", b"-1", b"1e999", b"99999999999", b"\0", b"\xff\xfe", b"../../x", b"\n", b"%s", b"[" * 50, b'"',
    b"{}", b"null", b"True", b"/etc/passwd", b"=1+1", b"<!DOCTYPE x>",
)  # fmt: skip


@dataclass(frozen=True)
class FuzzRow:
    """Result of fuzzing a reader. found: kinds of failure, each with its first recipe."""

    reader: str
    engine: str
    inputs: int
    seconds: int
    crashes: int
    traces: int
    hangs: int
    found: str


# ---- recipes ----------------------------------------------------------------------------------------


def apply_recipe(healthy: Sequence[bytes], recipe: bytes) -> bytes:
    """Apply a recipe to a healthy input: its first byte selects the input, every four further bytes a change."""
    content = bytearray(healthy[(recipe[0] if recipe else 0) % len(healthy)])
    for at in range(1, len(recipe) - 3, 4):
        kind, high, low, value = recipe[at : at + 4]
        # two thirds of the changes affect the header, which contains lengths and counts
        last_position = len(content) if high >= 170 else min(len(content), 600)
        position = (high << 8 | low) % max(1, last_position)
        _apply_damage(content, kind % 8, position, value)
    return bytes(content)


def _apply_damage(content: bytearray, kind: int, position: int, value: int) -> None:
    if kind == 0:
        content[position : position + 1] = bytes([value])
    elif kind == 1:
        number = UNUSUAL_NUMBERS[value % len(UNUSUAL_NUMBERS)]
        form = ("<I", ">I", "<H", ">H")[value % 4]
        packed = struct.pack(form, number & (0xFFFFFFFF if form[1] == "I" else 0xFFFF))
        content[position : position + len(packed)] = packed
    elif kind == 2:
        del content[position:]
    elif kind == 3:
        del content[position : position + 1 + value % 16]
    elif kind == 4:
        content[position:position] = UNUSUAL_TEXTS[value % len(UNUSUAL_TEXTS)]
    elif kind == 5:
        word = UNUSUAL_TEXTS[value % len(UNUSUAL_TEXTS)]
        content[position : position + len(word)] = word
    elif kind == 6:
        content[position:position] = content[position : position + value]
    else:
        content[position : position + 1] = (
            bytes([content[position] ^ (1 << value % 8)]) if position < len(content) else b""
        )


# ---- child process ----------------------------------------------------------------------------------


class FuzzChild:
    """Child process that reads inputs; it writes the current recipe to one file and failures to another."""

    def __init__(self, name: str, home: Path) -> None:
        from tests.battery.fuzz_readers import READERS

        os.chdir(home)
        self.reader, self.work_folder, self.count = READERS[name], home, 0
        self.healthy = self.reader.create_inputs()
        self.progress_file = os.open(home / "at", os.O_RDWR | os.O_CREAT)

    def read_recipe(self, recipe: bytes) -> None:
        from tests.battery.fuzz_readers import try_to_read

        self.count += 1
        os.pwrite(self.progress_file, f"{self.count} {recipe.hex()}".ljust(600).encode(), 0)
        if wrong := try_to_read(
            self.reader, apply_recipe(self.healthy, recipe[:200]), self.work_folder / "one"
        ):
            with (self.work_folder / "wrong").open("a") as file:
                file.write(json.dumps([wrong, recipe[:200].hex()]) + "\n")

    def run_seeded(self, seconds: float, seed: int) -> None:
        """Read inputs of recipes drawn from a seed."""
        ends, random_generator = time.monotonic() + seconds, random.Random(seed)
        while time.monotonic() < ends:
            self.read_recipe(random_generator.randbytes(1 + 4 * random_generator.randint(1, 5)))

    def run_atheris(self, seconds: float, seed: int) -> None:
        """Read inputs of recipes chosen by Atheris for coverage. Does not return."""
        import atheris

        words = [
            "fuzz",
            f"-max_total_time={int(seconds)}",
            f"-seed={seed + 1}",
            "-max_len=41",
            "-rss_limit_mb=0",
        ]
        atheris.Setup([*words, "-verbosity=0", f"-artifact_prefix={self.work_folder}/"], self.read_recipe)
        atheris.Fuzz()


def run_child_process(name: str, home: Path, seconds: float, seed: int, engine: str) -> None:
    if engine == "seeded":
        FuzzChild(name, home).run_seeded(seconds, seed)
        return
    import atheris

    with atheris.instrument_imports(include=["gliomark"]):
        child = FuzzChild(name, home)
    child.run_atheris(seconds, seed)


# ---- parent process ---------------------------------------------------------------------------------


def fuzz_reader(name: str, seconds: float, engine: str) -> FuzzRow:
    """Fuzz one reader for the given time; its process is started again whenever it ends."""
    crashes, hangs, inputs, seed, recipe_by_failure = 0, 0, 0, 0, dict[str, str]()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        home = Path(folder)
        while (seconds_left := seconds - (time.monotonic() - started)) > 0.5:
            status, hung, count, recipe = _run_one_child(name, home, seconds_left, seed, engine)
            inputs, seed = inputs + count, seed + 1
            hangs += hung
            if hung:
                recipe_by_failure.setdefault("hang", recipe)
            elif status < 0 or (status and recipe):
                crashes += 1
                recipe_by_failure.setdefault(f"ended with {status}", recipe)
            if status and not recipe:
                raise RuntimeError(f"{name} cannot be fuzzed: {(home / 'output').read_text()[-2000:]}")
        failures = [json.loads(line) for line in _read_lines(home / "wrong")]
    for kind, recipe in failures:
        recipe_by_failure.setdefault(kind, recipe)
    failure_text = "; ".join(f"{kind}: {recipe}" for kind, recipe in recipe_by_failure.items())
    return FuzzRow(
        name, engine, inputs, round(time.monotonic() - started), crashes, len(failures), hangs, failure_text
    )


def _run_one_child(
    name: str, home: Path, seconds: float, seed: int, engine: str
) -> tuple[int, bool, int, str]:
    """Run one child process: exit status, whether it hung, number of inputs, and its last recipe."""
    (home / "at").unlink(missing_ok=True)
    arguments = ["--child", str(home), "--reader", name, "--minutes", str(seconds / 60), "--seed", str(seed)]
    with (home / "output").open("wb") as output:
        process = subprocess.Popen(
            [*COMMAND, *arguments, "--engine", engine],
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    before, moved = "", time.monotonic()
    while process.poll() is None:
        time.sleep(POLL_INTERVAL_S)
        now = _read_progress(home)
        moved, before = (moved, before) if now == before else (time.monotonic(), now)
        if before and time.monotonic() - moved > HANG_S:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return 0, True, int(before.split()[0]), before.split()[-1]
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    count, _, recipe = _read_progress(home).partition(" ")
    return process.returncode, False, int(count or 0), recipe.strip()


def _read_progress(home: Path) -> str:
    with suppress(OSError):
        return (home / "at").read_text().strip()
    return ""


def _read_lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def write_rows(rows: Sequence[FuzzRow], path: Path) -> None:
    part = path.with_name(f"{path.name}.part")
    with part.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        names = [one.name for one in fields(FuzzRow)]
        table.writerow(names)
        table.writerows([getattr(row, name) for name in names] for row in rows)
    part.replace(path)


def replay_recipe(name: str, recipe: str) -> None:
    """Read the input of one recipe in this process, without handling errors."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as home:
        child = FuzzChild(name, Path(home))
        (child.work_folder / "one").mkdir()
        child.reader.read(apply_recipe(child.healthy, bytes.fromhex(recipe)), child.work_folder / "one")


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
    options = parser.parse_args()
    if options.child:
        run_child_process(options.reader, options.child, options.minutes * 60, options.seed, options.engine)
        return 0
    if options.recipe:
        replay_recipe(options.reader, options.recipe)
        return 0
    from tests.battery.fuzz_readers import READERS

    rows = []
    for name in [options.reader] if options.reader else READERS:
        rows.append(fuzz_reader(name, options.minutes * 60, options.engine))
        print(rows[-1], flush=True)
    if options.out:
        write_rows(rows, options.out)
    return int(any(row.crashes or row.traces or row.hangs for row in rows))


if __name__ == "__main__":
    sys.exit(main())
