"""README's Python example, run unchanged with the weights of the tests."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from gliomark.models import shipped_weights

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_example_of_the_readme_runs(picture_folder, working_folder, tiny_weights, monkeypatch) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert sum(bool(line.strip()) for line in example.splitlines()) == 5
    shutil.copytree(picture_folder, working_folder / "patient folder")
    monkeypatch.chdir(working_folder)
    # an absolute path replaces the name of the shipped file
    monkeypatch.setitem(shipped_weights.SHIPPED_MODELS, "demo", str(tiny_weights))
    exec(compile(example, str(README), "exec"), {})
    written = {path.name for path in (working_folder / "out" / "patient folder").iterdir()}
    assert written == {"prediction.json", "report.html", "masks", "segmentation.nii.gz", "statistics.json"}
