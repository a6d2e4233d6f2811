"""The modules printed in the how-to guides do what the guides say: they are imported, registered and used."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from tests.docs.documents import list_code_blocks

from gliomark.errors import InputError
from gliomark.io import read_study, readers
from gliomark.models import registry
from gliomark.study import MRSequence

SHAPE = (6, 20, 16)
HEADER = {"shape": SHAPE, "spacing": [5.0, 2.0, 1.5], "origin": [-10.0, -20.0, 30.0]}
# sides of the slices in the recipes, the preset "quick" and the tests, as docs/how-to/add-a-network.md lists them
SLICE_SIDES = (48, 64, 96, 128, 160, 224)


def import_example(
    document: str, last_name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """Import the Python example of a document that defines ``last_name`` as a module."""
    (text,) = (
        block.text
        for block in list_code_blocks(document)
        if block.language == "python" and f"\n{last_name} = " in block.text
    )
    file = folder / f"example_{last_name.lower()}.py"
    file.write_text(text, "utf-8")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, file.stem, module)
    spec.loader.exec_module(module)
    return module


# ---- reader -------------------------------------------------------------------------------------------


def draw_image(seed: int) -> np.ndarray:
    """Draw a bright ellipsoid with noise on black, int16 ``(slice, row, column)``."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in SHAPE), indexing="ij"))
    noise = np.random.default_rng(seed).normal(0, 20, SHAPE)
    return np.where((grid**2).sum(axis=0) < 0.8, 500 + noise, 0).astype("<i2")


@pytest.fixture
def myf_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Register the example of a reader, and write a patient in its format."""
    example = import_example("docs/how-to/add-a-reader.md", "READER", tmp_path, monkeypatch)
    monkeypatch.setattr(readers, "READERS", (*readers.READERS, example.READER))
    folder = tmp_path / "P1"
    folder.mkdir()
    for seed, name in enumerate(("T1C", "FLAIR")):
        content = json.dumps(HEADER).encode() + b"\n" + draw_image(seed).tobytes()
        (folder / f"P1_{name}.myf").write_bytes(content)
    return folder


def test_the_example_of_a_reader_reads_its_format(myf_folder: Path) -> None:
    study = read_study(myf_folder)
    assert study.patient_id == "P1" and set(study.series) == {MRSequence.T1C, MRSequence.FLAIR}
    series = study.series[MRSequence.FLAIR]
    np.testing.assert_array_equal(series.image, draw_image(1))
    # the affine's columns are the steps of columns, rows and slices
    expected = [[1.5, 0, 0, -10], [0, 2, 0, -20], [0, 0, 5, 30], [0, 0, 0, 1]]
    np.testing.assert_array_equal(series.affine, expected)
    assert series.image.dtype == np.float32 and series.slice_names[0] == "001"


@pytest.mark.parametrize(
    "change, words",
    [
        ({"shape": [6, 20, 17]}, "but the file contains"),
        ({"shape": [6, 20]}, "not a single 3-D volume"),
        ({"shape": [0, 20, 16]}, "header"),
        ({"shape": [10**6, 10**6, 10**6]}, "million voxels"),
        ({"shape": [float("inf"), 20, 16]}, "header"),
        ({"spacing": [5.0, 0.0, 1.5]}, "voxel size"),
        ({"spacing": [5.0, float("nan"), 1.5]}, "voxel size"),
        ({"origin": "abc"}, "header"),
        ({"origin": [float("nan"), 0.0, 0.0]}, "orientation"),
        ({"origin": 0, "padding": "x" * 9000}, "header"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_the_example_of_a_reader_refuses_damaged_files_by_name(
    myf_folder: Path, change: dict, words: str
) -> None:
    file = myf_folder / "P1_FLAIR.myf"
    file.write_bytes(json.dumps(HEADER | change).encode() + b"\n" + draw_image(1).tobytes())
    with pytest.raises(InputError, match=r"P1_FLAIR\.myf") as refused:
        read_study(myf_folder)
    assert words in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"[]\n", b"\xff\xfe\n", b"[" * 4000], ids=repr)
def test_the_example_of_a_reader_refuses_other_files(myf_folder: Path, content: bytes) -> None:
    (myf_folder / "P1_FLAIR.myf").write_bytes(content)
    with pytest.raises(InputError, match=r"P1_FLAIR\.myf"):
        read_study(myf_folder)


# ---- network ------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_example_of_a_network_is_built_by_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = import_example("docs/how-to/add-a-network.md", "ENTRY", tmp_path, monkeypatch).ENTRY
    monkeypatch.setattr(registry, "SEGMENTATION_NETWORKS", (*registry.SEGMENTATION_NETWORKS, entry))
    assert registry.choose_segmentation_entry("published", "MyNetwork") is entry
    for settings in entry.recipes.values():
        record = registry.to_network_record(settings)
        assert record["architecture"] == "MyNetwork"
        assert registry.parse_segmentation_settings(record) == settings
    network = registry.build_segmentation_network(replace(entry.recipes["small"], inputs=2)).eval()
    for side in SLICE_SIDES:
        assert network(torch.rand(1, 2, side, side)).logits.shape == (1, 2, side, side)


def test_the_sides_of_slices_are_those_of_the_guide() -> None:
    """``docs/how-to/add-a-network.md`` lists them."""
    from gliomark.experiments.segmentation.runs import PRESETS
    from gliomark.training.segmentation import INFERENCE_POOLING_FACTOR, RECIPE_CONFIGS

    sides = {config.view_size for config in RECIPE_CONFIGS.values()}
    sides |= {preset.training.view_size for preset in PRESETS.values()}
    sides.add(round(RECIPE_CONFIGS["pretrained"].augmentation.crop / INFERENCE_POOLING_FACTOR))
    assert sides | {64} == set(SLICE_SIDES)
