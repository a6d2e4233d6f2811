"""Segmentation training: resuming, returned weights, teacher and optimisers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gliomark.errors import GliomarkError
from gliomark.models.comparison.attention_unet import AttentionUNetSettings, build_attention_unet
from gliomark.models.comparison.nnunet import NNUNetSettings
from gliomark.models.comparison.unet import UNetSettings
from gliomark.models.network_io import SegmentationOutput
from gliomark.models.published.mignet import MIGNetSettings, build_mignet
from gliomark.models.published.swin_unet import SwinSize
from gliomark.training import segmentation as segmentation_module
from gliomark.training.augmentation import Augmentation, draw_random_view
from gliomark.training.losses import (
    compute_prior_weight,
    deeply_supervised_loss,
    distillation_loss,
    grading_loss,
    segmentation_loss,
)
from gliomark.training.segmentation import (
    SegmentationTrainingConfig,
    SegmentationTrainingModule,
    TrainedSegmentation,
    create_trainer,
    train_segmentation_network,
)
from gliomark.training.slice_dataset import SliceDataset, compute_focus_prior

STILL = Augmentation(crop=32, shift=0, quarter_turns=False, noise=0.0)
NETWORK = MIGNetSettings(size=SwinSize(8, (1, 1), (1, 2), patch=4))
TRAINING = SegmentationTrainingConfig(
    NETWORK, STILL, rate=1e-3, batch=4, epochs=2, validate_every=1, slices_per_patient=2
)
STEPS = 2  # per epoch: four patients with two slices in batches of four


@pytest.fixture(autouse=True)
def quiet_lightning() -> Iterator[None]:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def dataset() -> SliceDataset:
    """Four patients with two slices of 32 x 32 pixels, each with a bright square."""
    lesion = torch.zeros(8, 32, 32, dtype=torch.uint8)
    for index in range(8):
        lesion[index, 4 + index : 14 + index, 6:20] = 1
    image = (torch.randn(8, 1, 32, 32) * 0.3 + 2 * lesion[:, None]).half()
    return SliceDataset(image, lesion, torch.arange(8) % 2, torch.arange(8) // 2, tuple("abcd"))


@pytest.fixture
def validation(dataset: SliceDataset) -> SliceDataset:
    return SliceDataset(dataset.image[:2], dataset.lesion[:2], dataset.grade[:2], dataset.patient[:2], ("v",))


Weights = dict[str, Tensor]


@dataclass
class TrainingRecord:
    """Record of a training by epoch, with predefined validation Dice coefficients.

    cut_before: epoch, from 0, at whose start a power failure is simulated once.
    """

    dice: list[float]
    cut_before: int | None = None
    epochs: list[int] = field(default_factory=list)
    slices: int = 0
    started: list[Weights] = field(default_factory=list)
    after_epoch: dict[int, Weights] = field(default_factory=dict)


def copy_weights(network: nn.Module) -> Weights:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> TrainingRecord:
    recorded = TrainingRecord([0.9, 0.1, 0.2, 0.3, 0.4, 0.5])
    step = SegmentationTrainingModule.training_step

    def on_train_epoch_start(task: SegmentationTrainingModule) -> None:
        recorded.epochs.append(task.current_epoch)
        if recorded.cut_before == task.current_epoch:
            recorded.cut_before = None
            raise RuntimeError("power cut")

    def training_step(task: SegmentationTrainingModule, batch: list[Tensor], index: int) -> Tensor:
        recorded.slices += len(batch[0])
        return step(task, batch, index)

    def on_validation_epoch_end(task: SegmentationTrainingModule) -> None:
        if not task.trainer.sanity_checking:
            recorded.after_epoch[task.current_epoch] = copy_weights(task.network)
        task.log("validation_dice", recorded.dice[task.current_epoch])

    monkeypatch.setattr(SegmentationTrainingModule, "on_train_epoch_start", on_train_epoch_start)
    monkeypatch.setattr(SegmentationTrainingModule, "training_step", training_step)
    monkeypatch.setattr(SegmentationTrainingModule, "on_validation_epoch_end", on_validation_epoch_end)
    monkeypatch.setattr(
        SegmentationTrainingModule,
        "on_train_start",
        lambda task: recorded.started.append(copy_weights(task.network)),
    )
    return recorded


def train_with_interruption(record: TrainingRecord, epoch: int, *arguments: Any) -> TrainedSegmentation:
    """Train until a simulated power failure at the start of an epoch, then resume to the end."""
    record.cut_before = epoch
    with pytest.raises(RuntimeError, match="power cut"):
        train_segmentation_network(*arguments)
    return train_segmentation_network(*arguments)


def have_equal_weights(one: Weights, other: Weights) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


# ---- resuming, early stopping, best epoch -----------------------------------------------------------------


def test_training_resumes_from_the_last_epoch_and_returns_the_best(
    dataset: SliceDataset, validation: SliceDataset, record: TrainingRecord, tmp_path: Path
) -> None:
    """The first epoch is the best; the run must still resume from the last one."""
    trained = train_with_interruption(record, 2, dataset, replace(TRAINING, epochs=4), tmp_path, validation)
    assert record.epochs == [0, 1, 2, 2, 3] and record.slices == 4 * STEPS * TRAINING.batch
    assert have_equal_weights(record.started[1], record.after_epoch[1])
    assert not have_equal_weights(record.after_epoch[0], record.after_epoch[1])
    assert (trained.epochs, trained.best_epoch) == (4, 1)
    assert have_equal_weights(copy_weights(trained.network), record.after_epoch[0])


def test_a_later_best_epoch_replaces_an_earlier_one(
    dataset: SliceDataset, validation: SliceDataset, record: TrainingRecord, tmp_path: Path
) -> None:
    record.dice = [0.3, 0.1, 0.8, 0.2]
    trained = train_with_interruption(record, 2, dataset, replace(TRAINING, epochs=4), tmp_path, validation)
    assert (trained.epochs, trained.best_epoch) == (4, 3)
    assert have_equal_weights(copy_weights(trained.network), record.after_epoch[2])


def test_training_with_validation_every_second_epoch_is_resumed(
    dataset: SliceDataset, validation: SliceDataset, record: TrainingRecord, tmp_path: Path
) -> None:
    record.dice = [0.0, 0.2, 0.0, 0.1]
    settings = replace(TRAINING, validate_every=2, epochs=4)
    trained = train_with_interruption(record, 2, dataset, settings, tmp_path, validation)
    assert record.epochs == [0, 1, 2, 2, 3] and sorted(record.after_epoch) == [1, 3]
    assert (trained.epochs, trained.best_epoch) == (4, 2)
    assert have_equal_weights(copy_weights(trained.network), record.after_epoch[1])


@pytest.mark.parametrize("every", [1, 2])
def test_without_validation_the_last_epoch_is_resumed_and_returned(
    dataset: SliceDataset, record: TrainingRecord, tmp_path: Path, every: int
) -> None:
    settings = replace(TRAINING, validate_every=every, epochs=3)
    trained = train_with_interruption(record, 2, dataset, settings, tmp_path)
    assert record.epochs == [0, 1, 2, 2] and (trained.epochs, trained.best_epoch) == (3, 3)
    first, second = record.started
    assert not have_equal_weights(first, second) and not have_equal_weights(
        second, copy_weights(trained.network)
    )


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_training_of_another_length_is_another_run(
    dataset: SliceDataset, tmp_path: Path, epochs: int
) -> None:
    """Its learning rate has another schedule."""
    train_segmentation_network(dataset, TRAINING, tmp_path)
    with pytest.raises(GliomarkError, match="other settings"):
        train_segmentation_network(dataset, replace(TRAINING, epochs=epochs), tmp_path)


def test_patience_ends_a_training_that_no_longer_improves(
    dataset: SliceDataset, validation: SliceDataset, record: TrainingRecord, tmp_path: Path
) -> None:
    record.dice = [0.1, 0.5, 0.4, 0.3, 0.9, 0.9]
    trained = train_segmentation_network(
        dataset, replace(TRAINING, epochs=6, patience=2), tmp_path, validation
    )
    assert record.epochs == [0, 1, 2, 3] and (trained.epochs, trained.best_epoch) == (4, 2)


def test_measured_speeds_are_kept_after_resuming(
    dataset: SliceDataset, record: TrainingRecord, tmp_path: Path
) -> None:
    trained = train_with_interruption(record, 1, dataset, TRAINING, tmp_path)
    assert trained.slices_per_second > 0 and 0 < trained.waiting_share < 1
    assert not trained.network.training
    again = train_segmentation_network(dataset, TRAINING, tmp_path)
    speeds = (trained.slices_per_second, trained.waiting_share)
    assert (again.slices_per_second, again.waiting_share, again.epochs) == (*speeds, 2)
    assert have_equal_weights(copy_weights(again.network), copy_weights(trained.network))
    saved = torch.load(tmp_path / "last.ckpt", weights_only=False)["callbacks"]["TrainingTimer"]
    assert saved["slices"] == TRAINING.epochs * STEPS * TRAINING.batch and saved["seconds"] > 0


def test_other_patients_are_refused(dataset: SliceDataset, tmp_path: Path) -> None:
    train_segmentation_network(dataset, replace(TRAINING, epochs=1), tmp_path)
    with pytest.raises(GliomarkError, match="other patients"):
        train_segmentation_network(replace(dataset, patient_ids=tuple("abce")), TRAINING, tmp_path)


# ---- training loss ----------------------------------------------------------------------------------------


def create_task(
    settings: SegmentationTrainingConfig, dataset: SliceDataset, teacher: nn.Module | None = None
):
    torch.manual_seed(0)
    task = SegmentationTrainingModule(settings, compute_focus_prior(dataset), teacher)
    return task.eval()  # no batch statistics, so that outputs are reproducible


def predict(task: SegmentationTrainingModule, dataset: SliceDataset) -> SegmentationOutput:
    theta = torch.eye(2, 3).expand(len(dataset.image), -1, -1)
    return task.network(dataset.image.float(), theta)


def create_batch(dataset: SliceDataset) -> list[Tensor]:
    return [dataset.image, dataset.lesion, dataset.grade]


@torch.no_grad()
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5])
def test_the_loss_of_mignet_is_segmentation_and_weighted_grading(dataset: SliceDataset, share: float) -> None:
    assert SegmentationTrainingConfig().grading_weight == 0.5, "as published"
    task = create_task(replace(TRAINING, grading_weight=share), dataset)
    output = predict(task, dataset)
    weight = compute_prior_weight(compute_focus_prior(dataset)).expand(8, -1, -1)
    expected = segmentation_loss(output.logits, dataset.lesion.float(), weight)
    expected = expected + share * grading_loss(output.grade_logits, dataset.grade, dataset.lesion)
    torch.testing.assert_close(task.training_step(create_batch(dataset), 0), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(
    "network",
    [
        replace(NETWORK, fpg=False, guidance=False),
        replace(NETWORK, fpg=False),
        UNetSettings(width=8),
    ],
    ids=str,
)
def test_without_fpg_the_loss_is_unweighted(network, dataset: SliceDataset) -> None:
    settings = replace(TRAINING, network=network, grading_weight=0.0)
    assert not settings.uses_prior_weight
    task = create_task(settings, dataset)
    expected = segmentation_loss(predict(task, dataset).logits, dataset.lesion.float(), None)
    torch.testing.assert_close(task.training_step(create_batch(dataset), 0), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_deep_supervision_logits_are_trained(dataset: SliceDataset) -> None:
    settings = replace(TRAINING, network=NNUNetSettings(width=8))
    task = create_task(settings, dataset).train()  # instance normalisation is the same in training
    output = predict(task, dataset)
    assert len(output.deep_supervision_logits) == 2
    expected = deeply_supervised_loss(
        output.logits, output.deep_supervision_logits, dataset.lesion.float(), None
    )
    torch.testing.assert_close(task.training_step(create_batch(dataset), 0), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_teachers_share_of_the_loss(share: float, dataset: SliceDataset) -> None:
    settings = replace(TRAINING, network=UNetSettings(width=8), distillation=share)
    teacher = build_mignet(NETWORK)
    task = create_task(settings, dataset, teacher)
    output = predict(task, dataset).logits
    teacher_logits = teacher(dataset.image.float(), torch.eye(2, 3).expand(8, -1, -1)).logits
    alone = segmentation_loss(output, dataset.lesion.float(), None)
    expected = (1 - share) * alone + share * distillation_loss(output, teacher_logits)
    loss = task.training_step(create_batch(dataset), 0)
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)
    loss.backward()
    assert all(p.grad is None for p in teacher.parameters())


def test_networks_of_one_seed_see_the_same_batches_and_views(
    dataset: SliceDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many random numbers their initial weights took."""
    moving = Augmentation(crop=32, shift=3, tone=0.1)
    views: list[tuple[Tensor, ...]] = []

    def record_view(*arguments: Any) -> tuple[Tensor, ...]:
        views.append(draw_random_view(*arguments))
        return views[-1]

    def train(name: str, network: Any, seed: int = 1) -> list[Tensor]:
        views.clear()
        config = replace(TRAINING, network=network, augmentation=moving, seed=seed)
        train_segmentation_network(dataset, config, tmp_path / name)
        return [torch.cat([one.flatten() for one in view]) for view in views]

    monkeypatch.setattr(segmentation_module, "draw_random_view", record_view)
    first = train("U-Net", UNetSettings(width=8))
    assert len(first) == 2 * STEPS and not torch.equal(first[0], first[1])
    for name, network in (("MIG-Net", NETWORK), ("Swin-UNet", replace(NETWORK, fpg=False, guidance=False))):
        assert all(map(torch.equal, first, train(name, network))), name
    assert not torch.equal(first[0], train("seed 2", UNetSettings(width=8), 2)[0])


def test_a_teacher_has_an_effect_and_is_unchanged(dataset: SliceDataset, tmp_path: Path) -> None:
    teacher = build_attention_unet(AttentionUNetSettings(width=8))
    before = copy_weights(teacher)
    settings = replace(TRAINING, distillation=0.5)
    taught_training = train_segmentation_network(dataset, settings, tmp_path / "taught", teacher=teacher)
    alone = train_segmentation_network(dataset, settings, tmp_path / "alone")
    assert have_equal_weights(before, copy_weights(teacher)) and not teacher.training
    assert not have_equal_weights(copy_weights(taught_training.network), copy_weights(alone.network))
    assert copy_weights(taught_training.network).keys() == copy_weights(alone.network).keys()


def test_a_teacher_is_neither_saved_nor_optimised(dataset: SliceDataset) -> None:
    teacher = build_mignet(NETWORK)
    task = create_task(replace(TRAINING, distillation=0.5), dataset, teacher)
    assert set(task.state_dict()) == {"prior", *(f"network.{name}" for name in task.network.state_dict())}
    task.trainer = SimpleNamespace(estimated_stepping_batches=10)
    optimised = {
        id(p) for group in task.configure_optimizers()["optimizer"].param_groups for p in group["params"]
    }
    assert optimised == {id(p) for p in task.network.parameters()}
    assert not optimised & {id(p) for p in teacher.parameters()}


# ---- the optimisers ---------------------------------------------------------------------------------------


def collect_rates(settings: SegmentationTrainingConfig, dataset: SliceDataset, steps: int = 100):
    """Return the optimiser, and its learning rate before each step relative to the maximum."""
    task = create_task(settings, dataset)
    task.trainer = SimpleNamespace(estimated_stepping_batches=steps)
    configuration = task.configure_optimizers()
    assert configuration["lr_scheduler"]["interval"] == "step"
    shares = []
    for _ in range(steps + 1):
        shares.append(configuration["optimizer"].param_groups[0]["lr"] / settings.rate)
        configuration["optimizer"].step()
        configuration["lr_scheduler"]["scheduler"].step()
    return configuration["optimizer"], shares


def test_adamw_warms_up_and_decays_as_a_cosine(dataset: SliceDataset) -> None:
    optimiser, shares = collect_rates(replace(TRAINING, warm_up=0.1), dataset)
    assert isinstance(optimiser, torch.optim.AdamW) and optimiser.defaults["weight_decay"] == 0.01
    assert shares[:11] == pytest.approx([step / 10 for step in range(11)])
    assert shares[55] == pytest.approx(0.5) and shares[100] == pytest.approx(0, abs=1e-9)
    assert shares[10:] == sorted(shares[10:], reverse=True)


def test_sgd_is_that_of_nnunet(dataset: SliceDataset) -> None:
    optimiser, shares = collect_rates(
        replace(TRAINING, optimiser="sgd", rate=0.01, weight_decay=3e-5), dataset
    )
    assert isinstance(optimiser, torch.optim.SGD)
    expected = {"momentum": 0.99, "nesterov": True, "weight_decay": 3e-5}
    assert {name: optimiser.defaults[name] for name in expected} == expected
    assert shares == pytest.approx([(1 - step / 100) ** 0.9 for step in range(101)])


@pytest.mark.parametrize("largest", [None, 0.5])
def test_the_trainer_clips_and_validates_as_configured(largest: float | None, tmp_path: Path) -> None:
    trainer = create_trainer(
        7, tmp_path, [], 0, replace(TRAINING, largest_gradient=largest, validate_every=3)
    )
    assert trainer.gradient_clip_val == largest and trainer.max_epochs == 7
    assert trainer.check_val_every_n_epoch == 3
