"""Resuming an interrupted run: the same run is resumed, any other is refused before training."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import h5py
import pytest
import torch
from tests.conftest import update_slice_hashes, write_tiny_cohort

from gliomark.cohort.folds import load_cohort_folds
from gliomark.cohort.store import Cohort
from gliomark.errors import GliomarkError
from gliomark.models.weights import load_weights
from gliomark.training import recipes
from gliomark.training.markers import (
    LesionSliceDataset,
    MarkerTrainingConfig,
    create_marker_config,
    train_marker_network,
)
from gliomark.training.recipes import run_segmentation_training
from gliomark.training.segmentation import SegmentationTrainingConfig, train_segmentation_network
from gliomark.training.slice_dataset import SliceDataset


def slice_bank(number: int = 0, side: int = 240) -> SliceDataset:
    """Create six slices of three patients."""
    random = torch.Generator().manual_seed(number)
    lesion = torch.zeros(6, side, side, dtype=torch.uint8)
    lesion[:, side // 3 : side // 2, side // 3 : side // 2] = 1
    image = torch.randn(6, 2, side, side, generator=random).half()
    return SliceDataset(
        image, lesion, torch.tensor([0, 0, 1, 1, 0, 0]), torch.arange(6) // 2, ("a", "b", "c")
    )


def lesion_bank() -> LesionSliceDataset:
    bank = slice_bank(side=60)
    label = torch.tensor([0, 0, 1, 1, 0, 0])
    return LesionSliceDataset(bank.image, bank.lesion, label, label.float(), bank.patient, bank.patient_ids)


def altered(bank, field: str):
    """Return the data set with one value of one field changed."""
    values = getattr(bank, field).clone()
    values[(1,) * values.ndim] = 1 - values[(1,) * values.ndim]
    return replace(bank, **{field: values})


@pytest.fixture
def segmentation_training(tiny_segmentation_training) -> SegmentationTrainingConfig:
    return replace(tiny_segmentation_training, batch=2)


@pytest.mark.parametrize("field", ["image", "lesion", "grade", "patient"])
def test_a_segmentation_of_other_data_is_refused(segmentation_training, tmp_path, field) -> None:
    bank = slice_bank()
    first = train_segmentation_network(bank, segmentation_training, tmp_path)
    again = train_segmentation_network(slice_bank(), segmentation_training, tmp_path)
    for name, tensor in first.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name]), (
            "the run was already finished but was trained again"
        )
    with pytest.raises(GliomarkError, match="other images, masks or labels"):
        train_segmentation_network(altered(bank, field), segmentation_training, tmp_path)


@pytest.mark.parametrize(
    "change", [{"rate": 0.01}, {"seed": 1}, {"epochs": 2}, {"weight_decay": 0.0}, {"lesion_share": 0.5}]
)
def test_a_segmentation_with_other_settings_is_refused(segmentation_training, tmp_path, change) -> None:
    train_segmentation_network(slice_bank(), segmentation_training, tmp_path)
    with pytest.raises(GliomarkError, match="other settings") as caught:
        train_segmentation_network(slice_bank(), replace(segmentation_training, **change), tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("what", ["patients", "validation", "teacher", "unknown", "damaged record"])
def test_a_segmentation_of_another_run_is_refused(segmentation_training, tmp_path, what) -> None:
    bank = slice_bank()
    trained = train_segmentation_network(bank, segmentation_training, tmp_path, slice_bank(1))
    given = [bank, segmentation_training, tmp_path, slice_bank(1)]
    said = "other images, masks or labels"
    if what == "patients":
        given[0], said = replace(bank, patient_ids=("a", "b", "d")), "other patients"
    elif what == "validation":
        given[3] = slice_bank(2)
    elif what == "teacher":
        given.append(trained.network)
    else:
        said = "without a record of its data and settings"
        record = tmp_path / "run.json"
        record.unlink() if what == "unknown" else record.write_text("{", "utf-8")
    with pytest.raises(GliomarkError, match=said):
        train_segmentation_network(*given)


@pytest.mark.parametrize("kind", ["KiNet", "pretrained"])
@pytest.mark.parametrize("change", [*(f.name for f in fields(LesionSliceDataset)), "crop", "seed"])
def test_a_marker_of_another_run_is_refused(tiny_marker_training, tmp_path, kind, change) -> None:
    settings: MarkerTrainingConfig = (
        create_marker_config("pretrained") if kind == "pretrained" else tiny_marker_training
    )
    settings = replace(settings, augmentation=replace(settings.augmentation, crop=48), batch=2)
    bank = lesion_bank()
    train_marker_network(bank, settings, tmp_path)
    train_marker_network(lesion_bank(), settings, tmp_path)
    if change == "patient_ids":
        bank = replace(bank, patient_ids=("a", "b", "d"))
    elif change == "crop":
        settings = replace(settings, augmentation=replace(settings.augmentation, crop=52))
    elif change == "seed":
        settings = replace(settings, seed=7)
    else:
        bank = altered(bank, change)
    with pytest.raises(GliomarkError, match="contains a training run"):
        train_marker_network(bank, settings, tmp_path)


# ---- the command ------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["rule", "epochs", "one pixel", "nothing"])
def test_the_command_never_returns_another_runs_network(
    tiny_segmentation_training, monkeypatch, tmp_path, change
) -> None:
    def settings(recipe: str, inputs: int, epochs: int, entry: object) -> SegmentationTrainingConfig:
        network = replace(tiny_segmentation_training.network, inputs=inputs)
        return replace(tiny_segmentation_training, network=network, epochs=epochs)

    monkeypatch.setattr(recipes, "create_segmentation_config", settings)
    cohort, out = write_tiny_cohort(tmp_path / "cohort"), tmp_path / "s.safetensors"
    run_segmentation_training(cohort, out, "union", "small", 1)
    before, rule, epochs = load_weights(out).sha256, "union", 1
    if change == "rule":
        rule = "single"
    elif change == "epochs":
        epochs = 2
    elif change == "one pixel":
        alter_a_training_patient(cohort)
    else:
        run_segmentation_training(cohort, out, rule, "small", epochs)
        assert load_weights(out).sha256 == before
        return
    with pytest.raises(GliomarkError, match="s.work contains a training run"):
        run_segmentation_training(cohort, out, rule, "small", epochs)
    assert load_weights(out).sha256 == before, "the finished file was changed"


def alter_a_training_patient(folder: Path) -> None:
    patient = load_cohort_folds(Cohort(folder)).train[0]
    with h5py.File(folder / "GMSBraTS" / "T1C" / patient / "002.h5", "a") as file:
        file["image"][20, 20] += 1
    update_slice_hashes(folder)
