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
from gliomark.training.augmentation import Augmentation
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
def bank() -> SliceDataset:
    """Four patients with two slices of 32 x 32 pixels, each with a bright square."""
    lesion = torch.zeros(8, 32, 32, dtype=torch.uint8)
    for index in range(8):
        lesion[index, 4 + index : 14 + index, 6:20] = 1
    image = (torch.randn(8, 1, 32, 32) * 0.3 + 2 * lesion[:, None]).half()
    return SliceDataset(image, lesion, torch.arange(8) % 2, torch.arange(8) // 2, tuple("abcd"))


@pytest.fixture
def validation(bank: SliceDataset) -> SliceDataset:
    return SliceDataset(bank.image[:2], bank.lesion[:2], bank.grade[:2], bank.patient[:2], ("v",))


Weights = dict[str, Tensor]


@dataclass
class Course:
    """Record of a training by epoch, with predefined validation Dice coefficients.

    cut_before: epoch, from 0, at whose start a power failure is simulated once.
    """

    dice: list[float]
    cut_before: int | None = None
    epochs: list[int] = field(default_factory=list)
    slices: int = 0
    started: list[Weights] = field(default_factory=list)
    after_epoch: dict[int, Weights] = field(default_factory=dict)


def weights_of(network: nn.Module) -> Weights:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.fixture
def course(monkeypatch: pytest.MonkeyPatch) -> Course:
    seen = Course([0.9, 0.1, 0.2, 0.3, 0.4, 0.5])
    step = SegmentationTrainingModule.training_step

    def on_train_epoch_start(task: SegmentationTrainingModule) -> None:
        seen.epochs.append(task.current_epoch)
        if seen.cut_before == task.current_epoch:
            seen.cut_before = None
            raise RuntimeError("power cut")

    def training_step(task: SegmentationTrainingModule, batch: list[Tensor], index: int) -> Tensor:
        seen.slices += len(batch[0])
        return step(task, batch, index)

    def on_validation_epoch_end(task: SegmentationTrainingModule) -> None:
        if not task.trainer.sanity_checking:
            seen.after_epoch[task.current_epoch] = weights_of(task.network)
        task.log("validation_dice", seen.dice[task.current_epoch])

    monkeypatch.setattr(SegmentationTrainingModule, "on_train_epoch_start", on_train_epoch_start)
    monkeypatch.setattr(SegmentationTrainingModule, "training_step", training_step)
    monkeypatch.setattr(SegmentationTrainingModule, "on_validation_epoch_end", on_validation_epoch_end)
    monkeypatch.setattr(
        SegmentationTrainingModule,
        "on_train_start",
        lambda task: seen.started.append(weights_of(task.network)),
    )
    return seen


def train_cut_off(course: Course, epoch: int, *given: Any) -> TrainedSegmentation:
    """Train until a simulated power failure at the start of an epoch, then resume to the end."""
    course.cut_before = epoch
    with pytest.raises(RuntimeError, match="power cut"):
        train_segmentation_network(*given)
    return train_segmentation_network(*given)


def same(one: Weights, other: Weights) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


# ---- resuming, early stopping, best epoch -----------------------------------------------------------------


def test_goes_on_from_the_last_epoch_and_returns_the_best(
    bank: SliceDataset, validation: SliceDataset, course: Course, tmp_path: Path
) -> None:
    """The first epoch is the best; the run must still resume from the last one."""
    trained = train_cut_off(course, 2, bank, replace(TRAINING, epochs=4), tmp_path, validation)
    assert course.epochs == [0, 1, 2, 2, 3] and course.slices == 4 * STEPS * TRAINING.batch
    assert same(course.started[1], course.after_epoch[1])
    assert not same(course.after_epoch[0], course.after_epoch[1])
    assert (trained.epochs, trained.best_epoch) == (4, 1)
    assert same(weights_of(trained.network), course.after_epoch[0])


def test_a_later_best_replaces_an_earlier_one(
    bank: SliceDataset, validation: SliceDataset, course: Course, tmp_path: Path
) -> None:
    course.dice = [0.3, 0.1, 0.8, 0.2]
    trained = train_cut_off(course, 2, bank, replace(TRAINING, epochs=4), tmp_path, validation)
    assert (trained.epochs, trained.best_epoch) == (4, 3)
    assert same(weights_of(trained.network), course.after_epoch[2])


def test_validation_every_second_epoch_goes_on_as_well(
    bank: SliceDataset, validation: SliceDataset, course: Course, tmp_path: Path
) -> None:
    course.dice = [0.0, 0.2, 0.0, 0.1]
    settings = replace(TRAINING, validate_every=2, epochs=4)
    trained = train_cut_off(course, 2, bank, settings, tmp_path, validation)
    assert course.epochs == [0, 1, 2, 2, 3] and sorted(course.after_epoch) == [1, 3]
    assert (trained.epochs, trained.best_epoch) == (4, 2)
    assert same(weights_of(trained.network), course.after_epoch[1])


@pytest.mark.parametrize("every", [1, 2])
def test_without_validation_the_last_is_returned_and_gone_on_from(
    bank: SliceDataset, course: Course, tmp_path: Path, every: int
) -> None:
    settings = replace(TRAINING, validate_every=every, epochs=3)
    trained = train_cut_off(course, 2, bank, settings, tmp_path)
    assert course.epochs == [0, 1, 2, 2] and (trained.epochs, trained.best_epoch) == (3, 3)
    first, second = course.started
    assert not same(first, second) and not same(second, weights_of(trained.network))


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_training_of_another_length_is_another_run(bank: SliceDataset, tmp_path: Path, epochs: int) -> None:
    """Its learning rate has another schedule."""
    train_segmentation_network(bank, TRAINING, tmp_path)
    with pytest.raises(GliomarkError, match="other settings"):
        train_segmentation_network(bank, replace(TRAINING, epochs=epochs), tmp_path)


def test_patience_ends_a_training_that_no_longer_gets_better(
    bank: SliceDataset, validation: SliceDataset, course: Course, tmp_path: Path
) -> None:
    course.dice = [0.1, 0.5, 0.4, 0.3, 0.9, 0.9]
    trained = train_segmentation_network(bank, replace(TRAINING, epochs=6, patience=2), tmp_path, validation)
    assert course.epochs == [0, 1, 2, 3] and (trained.epochs, trained.best_epoch) == (4, 2)


def test_speeds_outlast_the_call_that_measured_them(
    bank: SliceDataset, course: Course, tmp_path: Path
) -> None:
    trained = train_cut_off(course, 1, bank, TRAINING, tmp_path)
    assert trained.slices_per_second > 0 and 0 < trained.waiting_share < 1
    assert not trained.network.training
    again = train_segmentation_network(bank, TRAINING, tmp_path)
    speeds = (trained.slices_per_second, trained.waiting_share)
    assert (again.slices_per_second, again.waiting_share, again.epochs) == (*speeds, 2)
    assert same(weights_of(again.network), weights_of(trained.network))
    saved = torch.load(tmp_path / "last.ckpt", weights_only=False)["callbacks"]["TrainingTimer"]
    assert saved["slices"] == TRAINING.epochs * STEPS * TRAINING.batch and saved["seconds"] > 0


def test_other_patients_are_refused(bank: SliceDataset, tmp_path: Path) -> None:
    train_segmentation_network(bank, replace(TRAINING, epochs=1), tmp_path)
    with pytest.raises(GliomarkError, match="other patients"):
        train_segmentation_network(replace(bank, patient_ids=tuple("abce")), TRAINING, tmp_path)


# ---- training loss ----------------------------------------------------------------------------------------


def task_of(settings: SegmentationTrainingConfig, bank: SliceDataset, teacher: nn.Module | None = None):
    torch.manual_seed(0)
    task = SegmentationTrainingModule(settings, compute_focus_prior(bank), teacher)
    return task.eval()  # no batch statistics, so that outputs are reproducible


def answer_of(task: SegmentationTrainingModule, bank: SliceDataset) -> SegmentationOutput:
    theta = torch.eye(2, 3).expand(len(bank.image), -1, -1)
    return task.network(bank.image.float(), theta)


def batch_of(bank: SliceDataset) -> list[Tensor]:
    return [bank.image, bank.lesion, bank.grade]


@torch.no_grad()
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5])
def test_mignets_loss_is_segmentation_and_a_share_of_grading(bank: SliceDataset, share: float) -> None:
    assert SegmentationTrainingConfig().grading_weight == 0.5, "as published"
    task = task_of(replace(TRAINING, grading_weight=share), bank)
    answer = answer_of(task, bank)
    weight = compute_prior_weight(compute_focus_prior(bank)).expand(8, -1, -1)
    expected = segmentation_loss(answer.logits, bank.lesion.float(), weight)
    expected = expected + share * grading_loss(answer.grade_logits, bank.grade, bank.lesion)
    torch.testing.assert_close(task.training_step(batch_of(bank), 0), expected, atol=1e-4, rtol=1e-4)


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
def test_without_fpg_the_loss_is_plain(network, bank: SliceDataset) -> None:
    settings = replace(TRAINING, network=network, grading_weight=0.0)
    assert not settings.uses_prior_weight
    task = task_of(settings, bank)
    expected = segmentation_loss(answer_of(task, bank).logits, bank.lesion.float(), None)
    torch.testing.assert_close(task.training_step(batch_of(bank), 0), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_deeper_answers_are_trained_on(bank: SliceDataset) -> None:
    settings = replace(TRAINING, network=NNUNetSettings(width=8))
    task = task_of(settings, bank).train()  # instance normalisation is the same in training
    answer = answer_of(task, bank)
    assert len(answer.deep_supervision_logits) == 2
    expected = deeply_supervised_loss(
        answer.logits, answer.deep_supervision_logits, bank.lesion.float(), None
    )
    torch.testing.assert_close(task.training_step(batch_of(bank), 0), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_teachers_share_of_the_loss(share: float, bank: SliceDataset) -> None:
    settings = replace(TRAINING, network=UNetSettings(width=8), distillation=share)
    teacher = build_mignet(NETWORK)
    task = task_of(settings, bank, teacher)
    answer = answer_of(task, bank).logits
    taught = teacher(bank.image.float(), torch.eye(2, 3).expand(8, -1, -1)).logits
    alone = segmentation_loss(answer, bank.lesion.float(), None)
    expected = (1 - share) * alone + share * distillation_loss(answer, taught)
    loss = task.training_step(batch_of(bank), 0)
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)
    loss.backward()
    assert all(p.grad is None for p in teacher.parameters())


def test_a_teacher_teaches_and_is_left_as_it_was(bank: SliceDataset, tmp_path: Path) -> None:
    teacher = build_attention_unet(AttentionUNetSettings(width=8))
    before = weights_of(teacher)
    settings = replace(TRAINING, distillation=0.5)
    taught = train_segmentation_network(bank, settings, tmp_path / "taught", teacher=teacher)
    alone = train_segmentation_network(bank, settings, tmp_path / "alone")
    assert same(before, weights_of(teacher)) and not teacher.training
    assert not same(weights_of(taught.network), weights_of(alone.network))
    assert weights_of(taught.network).keys() == weights_of(alone.network).keys()


def test_a_teacher_is_neither_saved_nor_optimised(bank: SliceDataset) -> None:
    teacher = build_mignet(NETWORK)
    task = task_of(replace(TRAINING, distillation=0.5), bank, teacher)
    assert set(task.state_dict()) == {"prior", *(f"network.{name}" for name in task.network.state_dict())}
    task.trainer = SimpleNamespace(estimated_stepping_batches=10)
    optimised = {
        id(p) for group in task.configure_optimizers()["optimizer"].param_groups for p in group["params"]
    }
    assert optimised == {id(p) for p in task.network.parameters()}
    assert not optimised & {id(p) for p in teacher.parameters()}


# ---- the optimisers ---------------------------------------------------------------------------------------


def rates(settings: SegmentationTrainingConfig, bank: SliceDataset, steps: int = 100):
    """Return the optimiser, and its learning rate before each step relative to the maximum."""
    task = task_of(settings, bank)
    task.trainer = SimpleNamespace(estimated_stepping_batches=steps)
    made = task.configure_optimizers()
    assert made["lr_scheduler"]["interval"] == "step"
    shares = []
    for _ in range(steps + 1):
        shares.append(made["optimizer"].param_groups[0]["lr"] / settings.rate)
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    return made["optimizer"], shares


def test_adamw_warms_up_and_falls_as_a_cosine(bank: SliceDataset) -> None:
    optimiser, shares = rates(replace(TRAINING, warm_up=0.1), bank)
    assert isinstance(optimiser, torch.optim.AdamW) and optimiser.defaults["weight_decay"] == 0.01
    assert shares[:11] == pytest.approx([step / 10 for step in range(11)])
    assert shares[55] == pytest.approx(0.5) and shares[100] == pytest.approx(0, abs=1e-9)
    assert shares[10:] == sorted(shares[10:], reverse=True)


def test_sgd_is_nnunets(bank: SliceDataset) -> None:
    optimiser, shares = rates(replace(TRAINING, optimiser="sgd", rate=0.01, weight_decay=3e-5), bank)
    assert isinstance(optimiser, torch.optim.SGD)
    expected = {"momentum": 0.99, "nesterov": True, "weight_decay": 3e-5}
    assert {name: optimiser.defaults[name] for name in expected} == expected
    assert shares == pytest.approx([(1 - step / 100) ** 0.9 for step in range(101)])


@pytest.mark.parametrize("largest", [None, 0.5])
def test_the_trainer_clips_and_validates_as_told(largest: float | None, tmp_path: Path) -> None:
    trainer = create_trainer(
        7, tmp_path, [], 0, replace(TRAINING, largest_gradient=largest, validate_every=3)
    )
    assert trainer.gradient_clip_val == largest and trainer.max_epochs == 7
    assert trainer.check_val_every_n_epoch == 3
