"""Training of networks that detect slices with a lesion, in folds by patient, for table 2-3.

Choices that the published text leaves open: whole slices without augmentation; a learning rate that falls from 1e-3 to
zero along a cosine; validation on one fifth of the training patients of a fold, with the epoch of lowest validation
cross-entropy being tested.
"""

from __future__ import annotations

import functools
import hashlib
import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Sampler, TensorDataset

from gliomark.cohort.folds import FoldSplit, check_disjoint, load_cohort_folds, split_fold
from gliomark.cohort.store import Cohort
from gliomark.errors import CohortError, ConfigurationError, WeightsError
from gliomark.experiments.config import ExperimentConfig
from gliomark.experiments.runner import FinishedJob, TrainingJob
from gliomark.models.comparison.image_classifiers import IMAGE_CLASSIFIERS, load_imagenet_state_dict
from gliomark.study import MRSequence, SliceStack
from gliomark.training.checkpoints import find_last_checkpoint
from gliomark.training.random_seeds import create_epoch_generator
from gliomark.training.segmentation import create_best_checkpoint_callback, create_trainer

WORK_FOLDER_NAME = "table_2_3"
PROBABILITY_THRESHOLD = 0.5
RANDOM_WEIGHTS = "random"
# exceptions observed when reading a file that is not a state dict
WEIGHTS_FILE_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    AttributeError,
    pickle.UnpicklingError,
    SafetensorError,
)


@dataclass(frozen=True)
class BenchmarkTraining:
    """Training settings; the defaults are the published ones.

    pool: the 240x240 slice is averaged over pool x pool pixels; batch: slices per step; rate: initial learning rate;
    slices_per_patient: number of random slices of a patient per epoch, and of evenly spaced ones in validation, None
    for all; patience: epochs without improvement in validation after which training stops; smallest_lesion_mm2: lesion
    area from which a slice is positive.
    """

    pool: int = 1
    epochs: int = 400
    batch: int = 64
    rate: float = 1e-3
    slices_per_patient: int | None = None
    patience: int = 40
    smallest_lesion_mm2: float = 10.0
    seed: int = 0


@dataclass(frozen=True)
class SliceRun:
    """A network by name and its training."""

    name: str
    training: BenchmarkTraining

    @property
    def depends_on(self) -> tuple[str, ...]:
        """No networks of other runs are needed."""
        return ()


@dataclass(frozen=True)
class SliceFold:
    """Result of one fold.

    initial_weights: in words; epochs: of the training; tested_epoch: the best one, from 1; slices: patient, slice name,
    label and probability of a lesion, of every test slice.
    """

    initial_weights: str
    epochs: int
    tested_epoch: int
    slices: tuple[tuple[str, str, int, float], ...]


SliceJob: TypeAlias = TrainingJob[SliceRun]


@dataclass(frozen=True, eq=False)
class SliceSet:
    """Slices in memory.

    images: float16 ``(N, C, 240 / pool, 240 / pool)``; labels: ``(N,)``, 1 with a lesion; patient_ids, slice_names:
    one per slice.
    """

    images: Tensor
    labels: Tensor
    patient_ids: tuple[str, ...]
    slice_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.slice_names)

    @property
    def unique_patients(self) -> tuple[str, ...]:
        """Sorted ids of the patients whose slices these are."""
        return tuple(sorted(set(self.patient_ids)))

    def select_patients(self, patients: Sequence[str], max_slices: int | None = None) -> SliceSet:
        """Select the slices of some patients, at most ``max_slices`` of each, evenly spaced over the brain."""
        wanted_patients = set(patients)
        rows = [
            i
            for name, index in self.group_rows().items()
            if name in wanted_patients
            for i in _select_evenly_spaced(index, max_slices)
        ]
        return SliceSet(
            self.images[rows],
            self.labels[rows],
            tuple(self.patient_ids[i] for i in rows),
            tuple(self.slice_names[i] for i in rows),
        )

    def group_rows(self) -> dict[str, list[int]]:
        """Group row numbers by patient, in the order of the stack."""
        rows_by_patient: dict[str, list[int]] = {}
        for row, patient in enumerate(self.patient_ids):
            rows_by_patient.setdefault(patient, []).append(row)
        return rows_by_patient


@dataclass(frozen=True)
class SliceProcedure:
    """Training of networks on slices.

    weights_paths: files of initial weights by name of the network, without one they are random; sequences: input
    channels, None for the reference sequence of the cohort alone.
    """

    weights_paths: tuple[tuple[str, Path], ...] = ()
    sequences: tuple[MRSequence, ...] | None = None

    def list_jobs(
        self, runs: Sequence[SliceRun], fold_count: int, config: ExperimentConfig
    ) -> list[SliceJob]:
        """List the folds of every network."""
        return [
            TrainingJob(run, (index,), config.cohort_folders[:1], config.work_folder)
            for run in runs
            for index in range(fold_count)
        ]

    def select_sequences(self, cohort_folder: Path) -> tuple[MRSequence, ...]:
        """Select the input channels.

        Raises
        ------
        ConfigurationError
            If the cohort was not prepared for a sequence.
        """
        return _select_sequences(Cohort(cohort_folder), self.sequences)

    def load_slices(self, cohort_folder: Path, training: BenchmarkTraining) -> SliceSet:
        """Load the slices of a cohort; the last call is cached.

        Raises
        ------
        CohortError
            If there are no slices with or no slices without lesion.
        """
        return _load_slices_once(cohort_folder, self.select_sequences(cohort_folder), training)

    def get_record_path(self, job: SliceJob) -> Path:
        """Return the path of the fold's record."""
        return job.work_folder / WORK_FOLDER_NAME / job.run.name / f"fold_{job.fold_index + 1}.json"

    def create_key(self, job: SliceJob) -> dict[str, Any]:
        """Settings, patients and hashes that identify a finished fold."""
        folder, training = job.cohort_folders[0], job.run.training
        slices, folds = self.load_slices(folder, training), load_cohort_folds(Cohort(folder))
        split = split_fold(folds, job.fold_index, slices.unique_patients, training.seed)
        file = dict(self.weights_paths).get(job.run.name)
        return {
            "network": job.run.name,
            "fold": job.fold_index + 1,
            "training": asdict(training),
            "sequences": list(self.select_sequences(folder)),
            "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest() if file else "",
            "split": {part: list(patients) for part, patients in asdict(split).items()},
            "slices_sha256": compute_slices_digest(slices),
        }

    def execute(self, job: SliceJob, checkpoint_folder: Path) -> SliceFold:
        """Train on the training patients, stop early by the validation patients, evaluate the test patients.

        Raises
        ------
        CohortError
            If a patient is in two of the three.
        """
        folder, settings = job.cohort_folders[0], job.run.training
        slices, seed = self.load_slices(folder, settings), settings.seed + job.fold_index
        folds = load_cohort_folds(Cohort(folder))
        split: FoldSplit = split_fold(folds, job.fold_index, slices.unique_patients, settings.seed)
        training, test = slices.select_patients(split.training), slices.select_patients(split.test)
        validation = slices.select_patients(split.validation, settings.slices_per_patient)
        # check the patients of the slices actually fed to the network, not only the lists of names
        check_disjoint(
            {
                "trained on": training.unique_patients,
                "validated on": validation.unique_patients,
                "tested on": test.unique_patients,
            }
        )
        lightning.seed_everything(seed, verbose=False)
        weights_path = dict(self.weights_paths).get(job.run.name)
        network, initial_weights = create_network(job.run.name, slices.images.shape[1], weights_path)
        task = SliceLesionClassifier(network, settings)
        epochs, best = _fit_network(task, training, validation, settings, seed, checkpoint_folder)
        return SliceFold(initial_weights, epochs, best, tuple(_predict_slices(task, test)))

    def to_record(self, finished: FinishedJob[SliceFold]) -> dict[str, Any]:
        """Convert a finished fold to its record."""
        fold = finished.result
        return {
            "key": finished.key,
            "initial_weights": fold.initial_weights,
            "epochs": fold.epochs,
            "tested_epoch": fold.tested_epoch,
            "seconds": finished.seconds,
            "slices": [list(row) for row in fold.slices],
        }

    def from_record(self, record: dict[str, Any]) -> FinishedJob[SliceFold]:
        """Convert a record to a finished fold."""
        slices = tuple((patient, name, label, p) for patient, name, label, p in record["slices"])
        fold = SliceFold(record["initial_weights"], record["epochs"], record["tested_epoch"], slices)
        return FinishedJob(record["key"], fold, record["seconds"])

    def describe(self, job: SliceJob, finished: FinishedJob[SliceFold]) -> str:
        """Describe a fold by the share of slices that are classified correctly."""
        is_correct = [(p >= PROBABILITY_THRESHOLD) == (label == 1) for *_, label, p in finished.result.slices]
        accuracy = np.mean(is_correct)
        return f"{job.run.name}, fold {job.fold_index + 1}: accuracy {accuracy:.3f}, {finished.seconds} s"


# ---- slices -----------------------------------------------------------------------------------------


def _select_sequences(cohort: Cohort, sequences: Sequence[MRSequence] | None) -> tuple[MRSequence, ...]:
    """Check the requested sequences; None stands for the reference sequence, which every patient has."""
    prepared = tuple(MRSequence(name) for name in cohort.metadata["sequences"])
    wanted = prepared[-1:] if sequences is None else tuple(sequences)
    if not wanted or not set(wanted) <= set(prepared):
        raise ConfigurationError(
            f"{cohort.folder} was prepared for {', '.join(prepared)}; choose the sequences from these."
        )
    return wanted


@functools.lru_cache(maxsize=1)
def _load_slices_once(
    cohort_folder: Path, sequences: tuple[MRSequence, ...], training: BenchmarkTraining
) -> SliceSet:
    return load_slices(Cohort(cohort_folder), sequences, training)


def load_slices(cohort: Cohort, sequences: Sequence[MRSequence], training: BenchmarkTraining) -> SliceSet:
    """Load the slices that show brain, of every patient with the sequences and a lesion mask.

    Raises
    ------
    CohortError
        If there are no slices with or no slices without lesion.
    """
    images, labels, patients, names = [], [], [], []
    for patient in cohort.patient_ids:
        stack = cohort.read_stack(patient)
        if stack.lesion is None or not set(sequences) <= set(stack.images):
            continue
        shows_brain = np.asarray(stack.brain.any(axis=(1, 2)))
        images.append(_average_pool(stack, sequences, training.pool)[torch.from_numpy(shows_brain)])
        area = stack.reader_mask.sum(axis=(1, 2)) * stack.pixel_area_mm2
        labels.append(torch.from_numpy(area[shows_brain] >= training.smallest_lesion_mm2).long())
        patients += [patient] * int(shows_brain.sum())
        names += [name for name, shown in zip(stack.slice_names, shows_brain, strict=True) if shown]
    if not images or len(torch.cat(labels).unique()) < 2:
        raise CohortError(
            f"{cohort.folder} does not contain slices of {', '.join(sequences)} both with and without lesion; choose "
            "other sequences or add masks."
        )
    return SliceSet(torch.cat(images), torch.cat(labels), tuple(patients), tuple(names))


def _average_pool(stack: SliceStack, sequences: Sequence[MRSequence], pooling_factor: int) -> Tensor:
    """Average the sequences over pool x pool pixels: float16 ``(slice, C, 240 / pool, 240 / pool)``."""
    image = torch.from_numpy(np.stack([stack.images[name] for name in sequences], axis=1))
    return F.avg_pool2d(image, pooling_factor).half()


def _select_evenly_spaced(rows: list[int], max_rows: int | None) -> list[int]:
    if max_rows is None or len(rows) <= max_rows:
        return rows
    return [rows[i] for i in np.linspace(0, len(rows) - 1, max_rows).round().astype(int)]


class PatientSliceSampler(Sampler[int]):
    """Sampler that draws at most ``slices_per_patient`` random slices of each patient (None: all) in every epoch."""

    def __init__(self, slices: SliceSet, slices_per_patient: int | None, seed: int = 0) -> None:
        self.seed, self.epoch = seed, 0
        self.rows_by_patient = [torch.tensor(rows) for rows in slices.group_rows().values()]
        self.slices_per_patient = slices_per_patient

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch (called by the trainer); the sample depends on seed and epoch alone."""
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(
            len(rows) if self.slices_per_patient is None else min(len(rows), self.slices_per_patient)
            for rows in self.rows_by_patient
        )

    def __iter__(self) -> Iterator[int]:
        generator = create_epoch_generator(self.seed, self.epoch)

        def shuffle_rows(rows: Tensor) -> Tensor:
            return rows[torch.randperm(len(rows), generator=generator)]

        return iter(
            shuffle_rows(
                torch.cat([shuffle_rows(rows)[: self.slices_per_patient] for rows in self.rows_by_patient])
            ).tolist()
        )


def compute_slices_digest(slices: SliceSet) -> str:
    """Compute the SHA-256 of images, labels, patient ids and slice names."""
    content = hashlib.sha256(
        json.dumps([slices.patient_ids, slices.slice_names, slices.labels.tolist()]).encode()
    )
    content.update(slices.images.numpy().tobytes())
    return content.hexdigest()


# ---- training ---------------------------------------------------------------------------------------


class SliceLesionClassifier(lightning.LightningModule):
    """Lightning module of a comparison network with cross-entropy loss and Adam."""

    def __init__(self, network: torch.nn.Module, training: BenchmarkTraining) -> None:
        super().__init__()
        # the channels-last format is a third faster on a CPU
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.training_settings = training

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits ``(B, 2)`` of images ``(B, C, H, W)`` of any floating-point type."""
        output: Tensor = self.network(image.to(self.device, torch.float32, memory_format=torch.channels_last))
        return output

    def training_step(self, batch: Sequence[Tensor], _: int) -> Tensor:
        """Compute the loss of a batch of images ``(B, C, H, W)`` and labels ``(B,)``."""
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Sequence[Tensor], _: int) -> None:
        """Log the validation loss of a batch of images ``(B, C, H, W)`` and labels ``(B,)``."""
        self.log("validation_loss", F.cross_entropy(self(batch[0]), batch[1]), batch_size=len(batch[1]))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Create the optimiser and its cosine schedule."""
        optimiser = torch.optim.Adam(self.network.parameters(), lr=self.training_settings.rate)
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def create_network(network: str, channels: int, weights_path: Path | None) -> tuple[torch.nn.Module, str]:
    """Create a network with its initial weights, and describe these in words.

    Raises
    ------
    WeightsError
        If the weights file does not fit the network.
    """
    built = IMAGE_CLASSIFIERS[network](channels)
    if weights_path is None:
        return built, RANDOM_WEIGHTS
    try:
        loaded = load_imagenet_state_dict(built, _read_state_dict(weights_path))
        digest = hashlib.sha256(weights_path.read_bytes()).hexdigest()
    except WEIGHTS_FILE_ERRORS as error:
        reason = (str(error) or "it is empty").splitlines()[0]
        raise WeightsError(
            f"{weights_path} cannot initialise {network} ({reason}); give a state dict of this network "
            "in the format of torchvision or timm."
        ) from None
    return built, f"{weights_path.name} (SHA-256 {digest[:12]}), {loaded.loaded} of {loaded.total} tensors"


def _read_state_dict(path: Path) -> Mapping[str, Tensor]:
    """Read the state dict from a safetensors file, a torch file or a training checkpoint."""
    if path.suffix == ".safetensors":
        return load_file(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    state: Mapping[str, Tensor] = content.get("state_dict", content)
    return state


def _fit_network(
    task: SliceLesionClassifier,
    training: SliceSet,
    validation: SliceSet,
    settings: BenchmarkTraining,
    seed: int,
    work_folder: Path,
) -> tuple[int, int]:
    """Train, then load the weights of the best epoch; the number of epochs, and the best one (from 1)."""
    best = create_best_checkpoint_callback(work_folder, "validation_loss", "min")
    stop = EarlyStopping("validation_loss", patience=settings.patience)
    trainer = create_trainer(settings.epochs, work_folder, [stop, best], seed)
    loaders = (
        DataLoader(
            TensorDataset(training.images, training.labels),
            settings.batch,
            sampler=PatientSliceSampler(training, settings.slices_per_patient, seed),
            drop_last=True,
        ),
        DataLoader(TensorDataset(validation.images, validation.labels), settings.batch),
    )
    trainer.fit(task, *loaders, ckpt_path=find_last_checkpoint(work_folder))
    best_checkpoint_state = torch.load(best.best_model_path, map_location="cpu", weights_only=False)
    task.load_state_dict(best_checkpoint_state["state_dict"])
    return trainer.current_epoch, best_checkpoint_state["epoch"] + 1


def _predict_slices(task: SliceLesionClassifier, slices: SliceSet) -> list[tuple[str, str, int, float]]:
    """Predict all slices: patient, slice name, label and probability of a lesion."""
    task.eval()
    with torch.inference_mode():
        parts = [task(image).softmax(dim=1)[:, 1].cpu() for image in slices.images.split(64)]
    probability = torch.cat(parts).tolist()
    return list(zip(slices.patient_ids, slices.slice_names, slices.labels.tolist(), probability, strict=True))
