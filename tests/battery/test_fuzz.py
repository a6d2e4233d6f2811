"""Every reader is fuzzed for a few seconds; ``make fuzz`` takes ten minutes for each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.battery.fuzz import apply_recipe, fuzz_reader
from tests.battery.fuzz_readers import READERS

pytestmark = pytest.mark.slow

SECONDS = 5.0


@pytest.mark.parametrize("name", list(READERS))
def test_readers_refuse_damaged_files_with_a_message(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    row = fuzz_reader(name, SECONDS, "seeded")
    assert (row.crashes, row.traces, row.hangs) == (0, 0, 0), row.found
    assert row.inputs > 0


def test_a_recipe_always_gives_the_same_input() -> None:
    healthy = [b"NRRD0004\ntype: short\n" * 9, b"second"]
    recipe = bytes.fromhex("000100a00302000501")
    assert apply_recipe(healthy, recipe) == apply_recipe(healthy, recipe) != healthy[0]
    assert apply_recipe(healthy, b"\x01") == b"second"


@pytest.mark.parametrize(
    "ending, expected_text", [("os.kill(os.getpid(), 11)", "ended with -11"), ("time.sleep(99)", "hang")]
)
def test_a_crash_or_hang_of_a_reader_is_detected(tmp_path: Path, ending: str, expected_text: str) -> None:
    """The parent process detects a reader that is killed and one that hangs."""
    root = Path(__file__).resolve().parents[2]
    program = (
        "import os, sys, time\n"
        "from tests.battery import fuzz, fuzz_readers\n"
        f"broken = fuzz_readers.FuzzedReader(lambda: [b'x'], lambda content, folder: {ending})\n"
        "fuzz_readers.READERS['csv'] = broken\n"
        "sys.exit(fuzz.main())\n"
    )
    (tmp_path / "broken.py").write_text(program)
    watch = (
        "import sys\nfrom tests.battery import fuzz\n"
        f"fuzz.COMMAND, fuzz.HANG_S = (sys.executable, {str(tmp_path / 'broken.py')!r}), 2.0\n"
        "print(fuzz.fuzz_reader('csv', 12.0, 'seeded').found)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", watch],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )
    assert expected_text in result.stdout, result.stdout + result.stderr
