"""What predicts imports none of the packages that only training, cohorts or other networks need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.pipeline.conftest import PATIENT, drawn_images, picture_folder, tiny_weights

__all__ = ["drawn_images", "picture_folder", "tiny_weights"]

HEAVY_PACKAGES = (
    *(
        "torch",
        "monai",
        "lightning",
        "sklearn",
        "pandas",
        "matplotlib",
        "nilearn",
        "dask",
        "distributed",
        "h5py",
    ),
    *("dicomanonymizer", "PySide6", "fastapi"),
)
# runs the command line, and writes the modules that it has imported
COMMAND = """
import json, sys
from gliomark import cli

modules_file, *sys.argv[1:] = sys.argv[1:]
try:
    cli.run()
finally:
    with open(modules_file, "w") as file:
        json.dump(sorted(name for name, module in sys.modules.items() if module is not None), file)
"""
# to importers and to find_spec, PyTorch is not installed
WITHOUT_PYTORCH = """
from importlib.machinery import PathFinder

find_any = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] == "torch" else find_any(name, *rest)
"""


def run_program(program: str, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program that has converted no network before."""
    environment = os.environ | {"GLIOMARK_CACHE": str(folder / "networks")}
    environment.pop("GLIOMARK_ENGINE", None)
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def read_heavy_imports(modules_file: Path) -> list[str]:
    modules = json.loads(modules_file.read_text())
    assert "gliomark" in modules
    return [name for name in HEAVY_PACKAGES if name in modules]


def read_levels(out: Path) -> dict[str, str]:
    document = json.loads((out / PATIENT / "prediction.json").read_text("utf-8"))
    assert document["lesion"]["volume_ml"] > 0
    return {marker["marker"]: marker["level"] for marker in document["markers"]}


@pytest.mark.slow
def test_loading_the_shipped_model_imports_no_heavy_package(tmp_path: Path) -> None:
    program = (
        "import sys, gliomark, gliomark.batch, gliomark.reporting\n"
        "gliomark.load_model('demo')\n"
        f"print(*(name for name in {HEAVY_PACKAGES!r} if sys.modules.get(name)))\n"
    )
    loaded = run_program(program, tmp_path)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.split() == []


@pytest.mark.slow
def test_loading_mignet_does_not_import_the_compiler_of_pytorch(tiny_weights: Path) -> None:
    code = """
import sys
from pathlib import Path
from gliomark.models.network_loading import load_segmentation_network
from gliomark.models.weights import load_weights
load_segmentation_network(load_weights(Path(sys.argv[1])))
print("torch._dynamo" in sys.modules)
"""
    assert run_program(code, tiny_weights.parent, tiny_weights).stdout == "False\n"


@pytest.mark.sample(2)
@pytest.mark.parametrize("prefix", [WITHOUT_PYTORCH, ""], ids=["without PyTorch", "as installed"])
def test_the_shipped_model_predicts_without_heavy_packages(
    prefix: str, picture_folder: Path, tmp_path: Path
) -> None:
    modules_file, out = tmp_path / "modules.json", tmp_path / "out"
    ended = run_program(
        prefix + COMMAND,
        tmp_path,
        modules_file,
        "predict",
        picture_folder,
        "--out",
        out,
        "--allow-missing-clinical",
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    assert read_levels(out)
    assert read_heavy_imports(modules_file) == []


@pytest.mark.sample(2)
@pytest.mark.parametrize("prefix", [WITHOUT_PYTORCH, ""], ids=["without PyTorch", "as installed"])
def test_a_model_is_shown_without_heavy_packages(prefix: str, tmp_path: Path) -> None:
    modules_file = tmp_path / "modules.json"
    ended = run_program(prefix + COMMAND, tmp_path, modules_file, "models", "show", "demo")
    assert ended.returncode == 0 and "T1C" in ended.stdout, ended.stderr
    assert read_heavy_imports(modules_file) == []


@pytest.mark.slow
def test_a_network_of_unusual_settings_names_what_to_install(
    picture_folder: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    """Its graph is not packaged, so that only PyTorch can build it."""
    modules_file, out = tmp_path / "modules.json", tmp_path / "out"
    arguments = (
        modules_file,
        "predict",
        picture_folder,
        "--out",
        out,
        "--allow-missing-clinical",
        "--model",
        tiny_weights,
    )
    refused = run_program(WITHOUT_PYTORCH + COMMAND, tmp_path, *arguments)
    assert refused.returncode == 1 and refused.stdout == ""
    (sentence,) = refused.stderr.splitlines()
    assert "pip install 'gliomark[train]'" in sentence and "PyTorch" in sentence
    assert not out.exists()
