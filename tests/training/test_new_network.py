"""A new network is one file and one registration: from training by name on the command line to a prediction."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from tests.pipeline.conftest import draw_patient, drop_mask, write_pictures
from tests.training.test_gate import write_ten_patients
from typer.testing import CliRunner

from gliomark import cli
from gliomark.experiments.markers.runs import PRESETS as MARKER_PRESETS
from gliomark.experiments.markers.runs import ScoringMethod, list_table_4_4_methods, list_table_4_4_runs
from gliomark.experiments.segmentation.runs import PRESETS as SEGMENTATION_PRESETS
from gliomark.experiments.segmentation.runs import list_table_3_1_runs
from gliomark.io import read_study
from gliomark.model_loading import load_model
from gliomark.models import registry
from gliomark.models.weights import load_weights
from gliomark.models.weights_description import describe_as_text
from gliomark.pipeline import predict
from gliomark.study import ClinicalData

TOY_UNET = '''
"""Toy U-Net: two levels, with average instead of max pooling."""

from dataclasses import dataclass

import torch
from pydantic import with_config
from torch import Tensor, nn
from torch.nn import functional as F

from gliomark.models.entries import SegmentationEntry
from gliomark.models.network_io import CLASS_COUNT, ImageSegmentationNetwork
from gliomark.models.validated_types import STRICT_CONFIG, ChannelCount


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class ToyUNetSettings:
    """Settings. inputs: input channels; width: channels at full resolution."""

    inputs: ChannelCount = 1
    width: ChannelCount = 4


class ToyUNet(nn.Module):
    """``(B, inputs, H, W)`` to logits ``(B, 2, H, W)``."""

    def __init__(self, settings: ToyUNetSettings) -> None:
        super().__init__()
        width = settings.width
        self.fine = nn.Conv2d(settings.inputs, width, 3, padding=1)
        self.coarse = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.classify = nn.Conv2d(3 * width, CLASS_COUNT, 1)

    def forward(self, image: Tensor) -> Tensor:
        fine = F.relu(self.fine(image))
        coarse = F.relu(self.coarse(F.avg_pool2d(fine, 2)))
        larger = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        return self.classify(torch.cat([fine, larger], dim=1))


ENTRY = SegmentationEntry(
    name="Toy U-Net",
    reference="this test",
    recipes={"small": ToyUNetSettings()},
    build=lambda settings, prior: ImageSegmentationNetwork(ToyUNet(settings)),
)
'''


@pytest.fixture
def toy_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the toy network, which is registered."""
    path = tmp_path / "toy_unet.py"
    path.write_text(TOY_UNET, "utf-8")
    spec = importlib.util.spec_from_file_location("toy_unet", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "toy_unet", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(registry, "SEGMENTATION_NETWORKS", (*registry.SEGMENTATION_NETWORKS, module.ENTRY))
    return module


def run_command(*arguments: object) -> str:
    return (
        CliRunner().invoke(cli.app, [str(argument) for argument in arguments], catch_exceptions=False).stdout
    )


def test_a_new_network_is_a_row_of_table_3_1(toy_module: ModuleType) -> None:
    quick, published = (
        [run.name for run in list_table_3_1_runs(SEGMENTATION_PRESETS[name])]
        for name in ("quick", "published")
    )
    assert quick[-2:] == ["Toy U-Net", "MIG-Net"] and quick[:-2] == published[:-1]
    assert "Toy U-Net" not in published, "it has only the small recipe"
    (run,) = (one for one in list_table_3_1_runs(SEGMENTATION_PRESETS["quick"]) if one.name == "Toy U-Net")
    assert run.training.network == toy_module.ToyUNetSettings()


def test_a_new_marker_network_is_a_row_of_table_4_4(monkeypatch: pytest.MonkeyPatch) -> None:
    before = list_table_4_4_methods(MARKER_PRESETS["published"])
    entry = replace(registry.get_marker_entry("ResNet-50"), name="Toy ResNet")
    monkeypatch.setattr(registry, "MARKER_NETWORKS", (*registry.MARKER_NETWORKS, entry))
    methods = list_table_4_4_methods(MARKER_PRESETS["published"])
    assert [one for one in methods if one not in before] == [ScoringMethod("Toy ResNet", ("Toy ResNet",))]
    (run,) = (one for one in list_table_4_4_runs(MARKER_PRESETS["published"]) if one.name == "Toy ResNet")
    assert run.training.network == entry.recipes["published"] and run.training.loss == entry.loss


def test_a_new_network_is_trained_by_name_and_predicts(toy_module: ModuleType, tmp_path: Path) -> None:
    assert "Toy U-Net" in run_command("models", "networks")
    cohort, out = write_ten_patients(tmp_path / "cohort"), tmp_path / "toy.safetensors"
    options = ["--network", "Toy U-Net", "--recipe", "small", "--rule", "joint", "--epochs", 1]
    run_command("train", "segmentation", "--cohort", cohort.folder, "--out", out, *options)
    model = load_model(str(out))
    assert isinstance(model.segmenter.network.network.network.network, toy_module.ToyUNet)
    assert "Toy U-Net, joint" in describe_as_text(load_weights(out))
    study = read_study(write_pictures(tmp_path / "patient", drop_mask(draw_patient())))
    prediction = predict(study, ClinicalData(study.patient_id, 50.0, 1), model)
    probability = prediction.segmentation.probability
    assert np.isfinite(probability).all() and 0 < probability.max() <= 1
