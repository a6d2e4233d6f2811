"""An interrupted and resumed training ends with bitwise the same weights as an uninterrupted one."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from gliomark.models.comparison.unet import UNetSettings
from gliomark.models.published.kinet import KiNetSettings, KiNetSize
from gliomark.models.published.mignet import MIGNetSettings
from gliomark.models.published.swin_unet import SwinSize
from gliomark.training import checkpoints, markers
from gliomark.training.augmentation import GENTLE_AUGMENTATION
from gliomark.training.checkpoints import (
    LAST_CHECKPOINT_NAME,
    PREVIOUS_CHECKPOINT_NAME,
    find_last_checkpoint,
    is_checkpoint_complete,
)
from gliomark.training.markers import (
    ClassBalancedSampler,
    LesionSliceDataset,
    MarkerTrainingConfig,
    MarkerTrainingModule,
    train_marker_network,
)
from gliomark.training.processes import ONE_PROCESS, ProcessLayout
from gliomark.training.random_seeds import derive_seed, seed_batch
from gliomark.training.segmentation import (
    SegmentationTrainingConfig,
    SegmentationTrainingModule,
    train_segmentation_network,
)
from gliomark.training.slice_dataset import EpochSampler, SliceDataset

SIDE, EPOCHS, STEPS = 32, 3, 3
VIEWS = replace(GENTLE_AUGMENTATION, crop=SIDE, shift=2, recolour=0.5)
SEGMENTATION = SegmentationTrainingConfig(
    MIGNetSettings(size=SwinSize(8, (1, 1), (1, 2), patch=4)),
    VIEWS,
    rate=1e-3,
    batch=4,
    epochs=EPOCHS,
    slices_per_patient=3,
)
MARKER = MarkerTrainingConfig(
    KiNetSettings(size=KiNetSize(stem=8, widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1), pool=1)),
    VIEWS,
    rate=1e-3,
    batch=4,
    epochs=EPOCHS,
    slices_per_patient=3,
)
KINDS = {
    "MIG-Net": SEGMENTATION,
    "with a validation": replace(SEGMENTATION, validate_every=1),
    "momentum and batch norm": replace(
        SEGMENTATION,
        network=UNetSettings(width=4),
        optimiser="sgd",
        largest_gradient=1.0,
    ),
    "another seed": replace(SEGMENTATION, seed=5, augmentation=replace(VIEWS, quarter_turns=True)),
    "KiNet": MARKER,
}
Kind = SegmentationTrainingConfig | MarkerTrainingConfig


@pytest.fixture(autouse=True)
def quiet_lightning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def create_slices() -> tuple[torch.Tensor, ...]:
    """Return image, lesion, label and patient of eight slices of four patients."""
    lesion = torch.zeros(8, SIDE, SIDE, dtype=torch.uint8)
    for index in range(8):
        lesion[index, 4 + index : 14 + index, 6:20] = 1
    noise = torch.randn(8, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return (noise * 0.3 + 2 * lesion[:, None]).half(), lesion, torch.arange(8) // 2 % 2, torch.arange(8) // 2


def train(kind: Kind, work: Path, layout: ProcessLayout = ONE_PROCESS) -> nn.Module:
    """Train, or resume a training."""
    image, lesion, label, patient = create_slices()
    if isinstance(kind, MarkerTrainingConfig):
        names = tuple("abcd")
        return train_marker_network(
            LesionSliceDataset(image, lesion, label, label.float(), patient, names), kind, work, layout
        )
    slices = SliceDataset(image[:, :1], lesion, label, patient, tuple("abcd"))
    validation = slices if kind.validate_every else None
    return train_segmentation_network(slices, kind, work, validation, layout=layout).network


def hash_weights(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def get_uninterrupted_hash(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Return a function from kind to the hash of the weights of an uninterrupted training, which is run once."""
    hashes: dict[str, str] = {}

    def get_hash(kind: str) -> str:
        if kind not in hashes:
            hashes[kind] = hash_weights(train(KINDS[kind], tmp_path_factory.mktemp("unbroken")))
        return hashes[kind]

    return get_hash


def interrupt_training(monkeypatch: pytest.MonkeyPatch, kind: Kind, epoch: int, batch: int) -> None:
    """Simulate one power failure during that batch."""
    task = MarkerTrainingModule if isinstance(kind, MarkerTrainingConfig) else SegmentationTrainingModule
    step, interrupted = task.training_step, []

    def training_step(self, batch_tensors, index: int):
        if (self.current_epoch, index) == (epoch, batch) and not interrupted:
            interrupted.append(True)
            raise RuntimeError("power cut")
        return step(self, batch_tensors, index)

    monkeypatch.setattr(task, "training_step", training_step)


@pytest.mark.sample(4)
@pytest.mark.parametrize(("epoch", "batch"), [(0, 1), (1, 0), (2, 2)])
@pytest.mark.parametrize("name", KINDS)
def test_a_resumed_training_gives_the_same_weights(
    get_uninterrupted_hash, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, epoch: int, batch: int
) -> None:
    expected = get_uninterrupted_hash(name)
    interrupt_training(monkeypatch, KINDS[name], epoch, batch)
    with pytest.raises(RuntimeError, match="power cut"):
        train(KINDS[name], tmp_path)
    torch.manual_seed(99)  # another process starts with another generator state
    assert hash_weights(train(KINDS[name], tmp_path)) == expected
    assert not list(tmp_path.rglob(".gliomark-*")) and not list(tmp_path.rglob("*-v1*"))


def test_a_finished_marker_network_is_loaded_without_training(
    get_uninterrupted_hash, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name, kind = next((n, k) for n, k in KINDS.items() if isinstance(k, MarkerTrainingConfig))
    assert checkpoints.load_finished_state(tmp_path, kind.epochs) is None
    train(kind, tmp_path)
    assert checkpoints.load_finished_state(tmp_path, kind.epochs + 1) is None
    monkeypatch.setattr(markers, "create_trainer", lambda *_, **__: pytest.fail("trained again"))
    assert hash_weights(train(kind, tmp_path)) == get_uninterrupted_hash(name)


@pytest.mark.parametrize("moment", ["before the last is moved", "before it is replaced", "after it"])
def test_an_interruption_while_the_checkpoint_is_written_is_survived(
    get_uninterrupted_hash, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, moment: str
) -> None:
    write, written = checkpoints.atomic_write, []

    def interrupt_write(path: Path, content: bytes) -> Path:
        if path.name != LAST_CHECKPOINT_NAME or written.append(path) or len(written) != 2:
            return write(path, content)
        if moment == "before the last is moved":
            path.with_name(PREVIOUS_CHECKPOINT_NAME).rename(path)
        elif moment == "after it":
            write(path, content)
        raise RuntimeError("power cut")

    monkeypatch.setattr(checkpoints, "atomic_write", interrupt_write)
    with pytest.raises(RuntimeError, match="power cut"):
        train(SEGMENTATION, tmp_path)
    assert hash_weights(train(SEGMENTATION, tmp_path)) == get_uninterrupted_hash("MIG-Net")


@pytest.mark.parametrize("harm", ["cut short", "one bit", "empty", "both", "gone"])
def test_a_damaged_checkpoint_is_detected(
    get_uninterrupted_hash, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, harm: str
) -> None:
    """The previous checkpoint is used; if that is damaged as well, training starts from the beginning."""
    interrupt_training(monkeypatch, SEGMENTATION, 2, 1)
    with pytest.raises(RuntimeError, match="power cut"):
        train(SEGMENTATION, tmp_path)
    last, previous = tmp_path / LAST_CHECKPOINT_NAME, tmp_path / PREVIOUS_CHECKPOINT_NAME
    assert find_last_checkpoint(tmp_path) == last and is_checkpoint_complete(previous)
    content = last.read_bytes()
    middle = len(content) // 2
    corrupted = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    for path in (last, previous) if harm == "both" else (last,):
        path.write_bytes({"cut short": content[:-200], "one bit": corrupted}.get(harm, b""))
    if harm == "gone":
        last.unlink()
    assert find_last_checkpoint(tmp_path) == (None if harm == "both" else previous)
    assert hash_weights(train(SEGMENTATION, tmp_path)) == get_uninterrupted_hash("MIG-Net")
    assert is_checkpoint_complete(last)


def test_random_numbers_depend_only_on_seed_epoch_and_batch() -> None:
    assert (
        len(
            {derive_seed(seed, epoch, batch) for seed in range(3) for epoch in range(3) for batch in range(3)}
        )
        == 27
    )
    seed_batch(1, 2, 3)
    first = torch.rand(3)
    torch.manual_seed(0)
    seed_batch(1, 2, 3)
    assert torch.equal(torch.rand(3), first)


@pytest.mark.parametrize("sampler", [EpochSampler, ClassBalancedSampler])
def test_a_sampler_draws_differently_each_epoch_and_reproducibly(sampler) -> None:
    image, lesion, label, patient = create_slices()
    if sampler is EpochSampler:
        drawn = EpochSampler(SliceDataset(image, lesion, label, patient, tuple("abcd")), 6, 0.5, 1)
    else:
        drawn = ClassBalancedSampler(
            LesionSliceDataset(image, lesion, label, label.float(), patient, tuple("abcd")), 6, 1
        )
    epochs = []
    for epoch in (0, 1, 2, 1):
        torch.manual_seed(epoch)
        drawn.set_epoch(epoch)
        epochs.append(list(drawn))
    assert epochs[1] == epochs[3] and epochs[0] != epochs[1] != epochs[2]
