"""README's Python example, run as it stands; only the weights are the tests' own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from gliomark import pipeline

README = Path(__file__).resolve().parents[2] / "README.md"


def test_readme_example_runs(pictures, write_table, home, tiny_weights, monkeypatch) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert sum(bool(line.strip()) for line in example.splitlines()) == 5
    write_table([("patient folder", "50", "F")]).rename(home / "clinical.csv")
    shutil.copytree(pictures, home / "patient folder")
    monkeypatch.chdir(home)
    # an absolute path in place of the shipped file's name
    monkeypatch.setitem(pipeline.SHIPPED_MODELS, "demo", str(tiny_weights))
    exec(compile(example, str(README), "exec"), {})
    written = {path.name for path in (home / "out" / "patient folder").iterdir()}
    assert written == {"prediction.json", "report.html", "masks"}
