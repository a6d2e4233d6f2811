"""Resuming an interrupted run: the same run is resumed, any other is refused before training."""

from __future__ import annotations

import json
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
    LOSS_WEIGHTS_NAME,
    LesionSliceDataset,
    MarkerTrainingConfig,
    create_marker_config,
    train_marker_network,
)
from gliomark.training.recipes import run_segmentation_training
from gliomark.training.segmentation import SegmentationTrainingConfig, train_segmentation_network
from gliomark.training.slice_dataset import SliceDataset


def create_slice_dataset(number: int = 0, side: int = 240) -> SliceDataset:
    """Create six slices of three patients."""
    random = torch.Generator().manual_seed(number)
    lesion = torch.zeros(6, side, side, dtype=torch.uint8)
    lesion[:, side // 3 : side // 2, side // 3 : side // 2] = 1
    image = torch.randn(6, 2, side, side, generator=random).half()
    return SliceDataset(
        image, lesion, torch.tensor([0, 0, 1, 1, 0, 0]), torch.arange(6) // 2, ("a", "b", "c")
    )


def create_lesion_dataset() -> LesionSliceDataset:
    dataset = create_slice_dataset(side=60)
    label = torch.tensor([0, 0, 1, 1, 0, 0])
    return LesionSliceDataset(
        dataset.image, dataset.lesion, label, label.float(), dataset.patient, dataset.patient_ids
    )


def change_one_value(dataset, field: str):
    """Return the data set with one value of one field changed."""
    values = getattr(dataset, field).clone()
    values[(1,) * values.ndim] = 1 - values[(1,) * values.ndim]
    return replace(dataset, **{field: values})


@pytest.fixture
def segmentation_training(tiny_segmentation_training) -> SegmentationTrainingConfig:
    return replace(tiny_segmentation_training, batch=2)


@pytest.mark.sample(2)
@pytest.mark.parametrize("field", ["image", "lesion", "grade", "patient"])
def test_a_segmentation_run_with_other_data_is_refused(segmentation_training, tmp_path, field) -> None:
    dataset = create_slice_dataset()
    first = train_segmentation_network(dataset, segmentation_training, tmp_path)
    again = train_segmentation_network(create_slice_dataset(), segmentation_training, tmp_path)
    for name, tensor in first.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name]), (
            "the run was already finished but was trained again"
        )
    with pytest.raises(GliomarkError, match="other images, masks or labels"):
        train_segmentation_network(change_one_value(dataset, field), segmentation_training, tmp_path)


@pytest.mark.parametrize(
    "change", [{"rate": 0.01}, {"seed": 1}, {"epochs": 2}, {"weight_decay": 0.0}, {"lesion_share": 0.5}]
)
def test_a_segmentation_run_with_other_settings_is_refused(segmentation_training, tmp_path, change) -> None:
    train_segmentation_network(create_slice_dataset(), segmentation_training, tmp_path)
    with pytest.raises(GliomarkError, match="other settings") as caught:
        train_segmentation_network(create_slice_dataset(), replace(segmentation_training, **change), tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("difference", ["patients", "validation", "teacher", "unknown", "damaged record"])
def test_another_segmentation_run_is_refused(segmentation_training, tmp_path, difference) -> None:
    dataset = create_slice_dataset()
    trained = train_segmentation_network(dataset, segmentation_training, tmp_path, create_slice_dataset(1))
    arguments = [dataset, segmentation_training, tmp_path, create_slice_dataset(1)]
    expected_text = "other images, masks or labels"
    if difference == "patients":
        arguments[0], expected_text = replace(dataset, patient_ids=("a", "b", "d")), "other patients"
    elif difference == "validation":
        arguments[3] = create_slice_dataset(2)
    elif difference == "teacher":
        arguments.append(trained.network)
    else:
        expected_text = "without a record of its data and settings"
        record = tmp_path / "run.json"
        record.unlink() if difference == "unknown" else record.write_text("{", "utf-8")
    with pytest.raises(GliomarkError, match=expected_text):
        train_segmentation_network(*arguments)


@pytest.mark.sample(3)
@pytest.mark.parametrize("kind", ["KiNet", "pretrained"])
@pytest.mark.parametrize("change", [*(f.name for f in fields(LesionSliceDataset)), "crop", "seed"])
def test_another_marker_run_is_refused(tiny_marker_training, tmp_path, kind, change) -> None:
    settings: MarkerTrainingConfig = (
        create_marker_config("pretrained") if kind == "pretrained" else tiny_marker_training
    )
    settings = replace(settings, augmentation=replace(settings.augmentation, crop=48), batch=2)
    dataset = create_lesion_dataset()
    train_marker_network(dataset, settings, tmp_path)
    train_marker_network(create_lesion_dataset(), settings, tmp_path)
    if change == "patient_ids":
        dataset = replace(dataset, patient_ids=("a", "b", "d"))
    elif change == "crop":
        settings = replace(settings, augmentation=replace(settings.augmentation, crop=52))
    elif change == "seed":
        settings = replace(settings, seed=7)
    else:
        dataset = change_one_value(dataset, change)
    with pytest.raises(GliomarkError, match="contains a training run"):
        train_marker_network(dataset, settings, tmp_path)


@pytest.mark.slow
def test_learnt_loss_weights_are_trained_and_stored_in_the_checkpoint(tiny_marker_training, tmp_path) -> None:
    settings = replace(tiny_marker_training, loss="learnt bms", batch=2, epochs=5, slices_per_patient=8)
    settings = replace(settings, augmentation=replace(settings.augmentation, crop=48))
    network = train_marker_network(create_lesion_dataset(), settings, tmp_path)
    assert not [name for name, _ in network.named_parameters() if "alpha" in name or "beta" in name]
    path = tmp_path / LOSS_WEIGHTS_NAME
    content = path.read_text("utf-8")
    weights = json.loads(content)
    for name, count in (("alpha", 3), ("beta", 5)):
        assert len(weights[name]) == count and sum(weights[name]) == pytest.approx(1)
        assert max(abs(weight - 1 / count) for weight in weights[name]) > 0.01
    path.unlink()
    train_marker_network(create_lesion_dataset(), settings, tmp_path)
    assert path.read_text("utf-8") == content


# ---- the command ------------------------------------------------------------------------------------


@pytest.mark.sample(2)
@pytest.mark.parametrize("change", ["one pixel", "epochs", "nothing", "rule"])
def test_the_command_never_returns_the_network_of_another_run(
    tiny_segmentation_training, monkeypatch, tmp_path, change
) -> None:
    def create_config(recipe: str, inputs: int, epochs: int, entry: object) -> SegmentationTrainingConfig:
        network = replace(tiny_segmentation_training.network, inputs=inputs)
        return replace(tiny_segmentation_training, network=network, epochs=epochs)

    monkeypatch.setattr(recipes, "create_segmentation_config", create_config)
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
