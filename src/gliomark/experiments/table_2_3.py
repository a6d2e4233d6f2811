"""Table 2-3: detection of slices with a lesion by three networks, in five folds by patient.

Choices that the published text leaves open: whole slices without augmentation; a learning rate that falls from 1e-3 to
zero along a cosine; validation on one fifth of the training patients of a fold, with the epoch of lowest validation
cross-entropy being tested; positive from a probability of 0.5. Finished folds are kept under ``OUT/work`` and not
trained again, so that an interrupted run can be continued.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

import lightning
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import EarlyStopping
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Sampler, TensorDataset

from gliomark.cohort.folds import (
    VALIDATION_SHARE,
    CohortFolds,
    FoldSplit,
    check_disjoint,
    load_cohort_folds,
    split_fold,
)
from gliomark.cohort.store import Cohort, write_json
from gliomark.errors import CohortError, ConfigurationError, WeightsError
from gliomark.evaluation.intervals import bootstrap_interval
from gliomark.evaluation.metrics import auc, compute_threshold_metrics
from gliomark.experiments.result_files import create_run_record, find_finished_fold, write_table
from gliomark.models.comparison.image_classifiers import IMAGE_CLASSIFIERS, load_imagenet_state_dict
from gliomark.study import MRSequence, SliceStack
from gliomark.training.checkpoints import find_last_checkpoint
from gliomark.training.random_seeds import create_epoch_generator
from gliomark.training.segmentation import create_best_checkpoint_callback, create_trainer

EXPERIMENT_NAME = "table_2_3"
# accuracy and sensitivity of the published table, on another cohort and with ImageNet weights
PUBLISHED = {"ResNet-50": (0.906, 0.879), "DenseNet-121": (0.915, 0.886), "Xception": (0.939, 0.915)}
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


Preset = Literal["published", "quick"]
PRESETS: Mapping[str, BenchmarkTraining] = {
    "published": BenchmarkTraining(),
    # about an hour and a quarter on one CPU core with the 96 patients of TCGA-LGG
    "quick": BenchmarkTraining(pool=4, epochs=5, batch=32, slices_per_patient=16),
}


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
class BenchmarkConfig:
    """Configuration of a run: data, training settings, initial weights and work folder."""

    cohort: Cohort
    folds: CohortFolds
    sequences: tuple[MRSequence, ...]
    preset: str
    training: BenchmarkTraining
    weights_paths: Mapping[str, Path]
    work_folder: Path


def run_table_2_3(
    cohort_folder: Path,
    output_folder: Path,
    preset: Preset,
    weights_paths: Mapping[str, Path] | None,
    notify: Callable[[str], None],
    sequences: Sequence[MRSequence] | None = None,
) -> Path:
    """Train the unfinished folds and write the tables and the run record; the path of the main table.

    Parameters
    ----------
    cohort_folder
        The prepared cohort.
    output_folder
        Folder of the results; finished folds are kept in its subfolder ``work``.
    preset
        "published" or "quick".
    weights_paths
        Files of ImageNet weights by name of the network; without one, weights are random.
    notify
        Called with a message after every step.
    sequences
        Input channels; None for the reference sequence of the cohort alone.

    Raises
    ------
    ConfigurationError
        If the preset or a network is unknown, or the cohort was not prepared for a sequence.
    WeightsError
        If a weights file does not fit its network.
    CohortError
        If there are no slices with or no slices without lesion, or a kept fold was made with other settings,
        patients, images or weights.
    """
    started, cohort = time.time(), Cohort(cohort_folder)
    chosen = _select_sequences(cohort, sequences)
    checked_weights = _check_weights_files(weights_paths or {})
    benchmark = BenchmarkConfig(
        cohort,
        load_cohort_folds(cohort),
        chosen,
        preset,
        _get_training(preset),
        checked_weights,
        output_folder / "work" / EXPERIMENT_NAME,
    )
    slices = load_slices(cohort, chosen, benchmark.training)
    notify(
        f"{len(slices)} slices of {len(slices.unique_patients)} patients, {int(slices.labels.sum())} with lesion"
    )
    folds = [
        fold for network in IMAGE_CLASSIFIERS for fold in _complete_folds(network, benchmark, slices, notify)
    ]
    return _write_results(benchmark, slices, folds, output_folder, time.time() - started)


def _get_training(preset: str) -> BenchmarkTraining:
    if preset not in PRESETS:
        raise ConfigurationError(f"The preset '{preset}' is unknown; it must be one of {', '.join(PRESETS)}.")
    return PRESETS[preset]


def _select_sequences(cohort: Cohort, sequences: Sequence[MRSequence] | None) -> tuple[MRSequence, ...]:
    """Check the requested sequences; None stands for the reference sequence, which every patient has."""
    prepared = tuple(MRSequence(name) for name in cohort.metadata["sequences"])
    wanted = prepared[-1:] if sequences is None else tuple(sequences)
    if not wanted or not set(wanted) <= set(prepared):
        raise ConfigurationError(
            f"{cohort.folder} was prepared for {', '.join(prepared)}; choose the sequences from these."
        )
    return wanted


def _check_weights_files(weights_paths: Mapping[str, Path]) -> dict[str, Path]:
    """Check, before hours of training, that every network is known and every weights file fits."""
    for network, path in weights_paths.items():
        if network not in IMAGE_CLASSIFIERS:
            raise ConfigurationError(
                f"The network '{network}' is unknown; weights can be given for {', '.join(IMAGE_CLASSIFIERS)}."
            )
        _create_network(network, 1, path)
    return dict(weights_paths)


# ---- slices -----------------------------------------------------------------------------------------


def load_slices(
    cohort: Cohort, sequences: Sequence[MRSequence], training: BenchmarkTraining = PRESETS["published"]
) -> SliceSet:
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
        return self.network(image.to(self.device, torch.float32, memory_format=torch.channels_last))

    def training_step(self, batch: Sequence[Tensor], _: int) -> Tensor:
        """Compute the loss of a batch of images ``(B, C, H, W)`` and labels ``(B,)``."""
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Sequence[Tensor], _: int) -> None:
        """Log the validation loss of a batch."""
        self.log("validation_loss", F.cross_entropy(self(batch[0]), batch[1]), batch_size=len(batch[1]))

    def configure_optimizers(self):
        """Create the optimiser and its cosine schedule."""
        optimiser = torch.optim.Adam(self.network.parameters(), lr=self.training_settings.rate)
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _create_network(network: str, channels: int, weights_path: Path | None) -> tuple[torch.nn.Module, str]:
    """Create a network with its initial weights, and describe these in words. Raises WeightsError."""
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
    return content.get("state_dict", content)


def _complete_folds(
    network: str, config: BenchmarkConfig, slices: SliceSet, notify: Callable[[str], None]
) -> list[dict]:
    """Train the unfinished folds of a network; the records of all folds."""
    records = []
    for number in range(len(config.folds.folds)):
        path = config.work_folder / network / f"fold_{number + 1}.json"
        fold = find_finished_fold(path, _create_fold_key(network, number, config, slices))
        if fold is None:
            fold = _train_fold(network, number, config, slices)
            write_json(path, fold)
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
        notify(f"{network}, fold {number + 1}: {_describe_fold(fold)}")
        records.append(fold)
    return records


def _create_fold_key(network: str, fold_index: int, config: BenchmarkConfig, slices: SliceSet) -> dict:
    """Settings, patients and hashes that identify a finished fold."""
    split = split_fold(config.folds, fold_index, slices.unique_patients, config.training.seed)
    file = config.weights_paths.get(network)
    return {
        "network": network,
        "fold": fold_index + 1,
        "training": asdict(config.training),
        "sequences": list(config.sequences),
        "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest() if file else "",
        "split": {part: list(patients) for part, patients in asdict(split).items()},
        "slices_sha256": _compute_digest(slices),
    }


def _compute_digest(slices: SliceSet) -> str:
    """Compute the SHA-256 of images, labels, patient ids and slice names."""
    content = hashlib.sha256(
        json.dumps([slices.patient_ids, slices.slice_names, slices.labels.tolist()]).encode()
    )
    content.update(slices.images.numpy().tobytes())
    return content.hexdigest()


def _train_fold(network: str, fold_index: int, config: BenchmarkConfig, slices: SliceSet) -> dict:
    """Train on the training patients, stop early by the validation patients, evaluate the test patients."""
    started, settings = time.time(), config.training
    work = config.work_folder / network / f"fold_{fold_index + 1}"
    key = _create_fold_key(network, fold_index, config, slices)
    write_json(work / "key.json", {"key": key})
    split = FoldSplit(**{part: tuple(patients) for part, patients in key["split"].items()})
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
    lightning.seed_everything(settings.seed + fold_index, verbose=False)
    built, initial_weights = _create_network(
        network, len(config.sequences), config.weights_paths.get(network)
    )
    task = SliceLesionClassifier(built, settings)
    epochs, best = _fit_network(task, training, validation, settings, settings.seed + fold_index, work)
    return {
        "key": key,
        "initial_weights": initial_weights,
        "epochs": epochs,
        "tested_epoch": best,
        "seconds": round(time.time() - started),
        "slices": _predict_slices(task, test),
    }


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


# ---- tables -----------------------------------------------------------------------------------------


def _tabulate_slices(folds: Sequence[dict]) -> pd.DataFrame:
    """Tabulate the test slices of the folds, one row each."""
    rows = [(fold["key"]["fold"], *row) for fold in folds for row in fold["slices"]]
    return pd.DataFrame(rows, columns=["fold", "patient", "slice", "label", "probability"])


def summarise_network(network: str, slices: pd.DataFrame) -> dict:
    """Summarise a network over all test slices, with 95 % intervals by bootstrap over patients."""
    groups = [group for _, group in slices.groupby("patient", sort=True)]
    labels = [group["label"].to_numpy() for group in groups]
    probabilities = [group["probability"].to_numpy() for group in groups]
    counts = np.array(list(map(_count_outcomes, labels, probabilities)))
    everyone = np.arange(len(groups))

    def compute_auc(sampled_patients) -> float:
        return auc(*(np.concatenate([part[i] for i in sampled_patients]) for part in (labels, probabilities)))

    accuracy, sensitivity = PUBLISHED.get(network, (np.nan, np.nan))
    row = {"network": network, "published_accuracy": accuracy, "published_sensitivity": sensitivity}
    for name, share in RATIO_METRICS.items():
        row |= _name_interval_columns(
            name, bootstrap_interval(lambda drawn, s=share: s(*counts[drawn].sum(axis=0)), everyone)
        )
    row |= _name_interval_columns("auc", bootstrap_interval(compute_auc, everyone))
    return row | {
        "threshold": PROBABILITY_THRESHOLD,
        "slices": len(slices),
        "positive_slices": int(slices["label"].sum()),
        "patients": len(groups),
    }


def _compute_ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else float("nan")


# functions of the numbers of true negatives, false positives, false negatives and true positives
RATIO_METRICS: Mapping[str, Callable[..., float]] = {
    "accuracy": lambda tn, fp, fn, tp: _compute_ratio(tn + tp, tn + fp + fn + tp),
    "sensitivity": lambda tn, fp, fn, tp: _compute_ratio(tp, tp + fn),
    "specificity": lambda tn, fp, fn, tp: _compute_ratio(tn, tn + fp),
}


def _count_outcomes(label: np.ndarray, probability: np.ndarray) -> tuple[int, int, int, int]:
    """Count true negatives, false positives, false negatives and true positives."""
    truth, answer = label.astype(bool), probability >= PROBABILITY_THRESHOLD
    pairs = ((~truth, ~answer), (~truth, answer), (truth, ~answer), (truth, answer))
    tn, fp, fn, tp = (int((a & b).sum()) for a, b in pairs)
    return tn, fp, fn, tp


def _name_interval_columns(name: str, interval: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip((name, f"{name}_low_95", f"{name}_high_95"), interval, strict=True))


def _summarise_fold(fold: dict) -> dict:
    table, split = _tabulate_slices([fold]), fold["key"]["split"]
    statistics = compute_threshold_metrics(table["label"], table["probability"], PROBABILITY_THRESHOLD)
    return {
        "network": fold["key"]["network"],
        "fold": fold["key"]["fold"],
        **{f"{part}_patients": len(patients) for part, patients in split.items()},
        "test_slices": len(table),
        "positive_slices": int(table["label"].sum()),
        **{name: statistics[name] for name in RATIO_METRICS},
        "auc": auc(table["label"], table["probability"]),
        **{name: fold[name] for name in ("epochs", "tested_epoch", "seconds")},
    }


def _describe_fold(fold: dict) -> str:
    row = _summarise_fold(fold)
    return f"accuracy {row['accuracy']:.3f}, AUC {row['auc']:.3f}, {row['seconds']} s"


def _summarise_confusion(network: str, slices: pd.DataFrame) -> dict:
    tn, fp, fn, tp = _count_outcomes(slices["label"].to_numpy(), slices["probability"].to_numpy())
    counts = {"true_negative": tn, "false_positive": fp, "false_negative": fn, "true_positive": tp}
    return {
        "network": network,
        **counts,
        "threshold": PROBABILITY_THRESHOLD,
        "slices": len(slices),
        "patients": slices["patient"].nunique(),
    }


def describe_reductions(training: BenchmarkTraining) -> str:
    """Describe in words what a preset reduces compared with the published setting; "none" for nothing."""
    full = PRESETS["published"]
    descriptions = {
        "pool": f"slices averaged to {240 // training.pool}x{240 // training.pool} pixels",
        "epochs": f"at most {training.epochs} epochs instead of {full.epochs}",
        "batch": f"batches of {training.batch} instead of {full.batch}",
        "slices_per_patient": f"{training.slices_per_patient} random slices of a patient per epoch, and as many evenly "
        "spaced ones in validation, instead of all",
    }
    changed = [f.name for f in fields(training) if getattr(training, f.name) != getattr(full, f.name)]
    return (
        "; ".join(descriptions.get(name, f"{name} {getattr(training, name)}") for name in changed) or "none"
    )


def _write_results(
    config: BenchmarkConfig, slices: SliceSet, folds: Sequence[dict], output_folder: Path, seconds: float
) -> Path:
    """Write the three tables and the run record; the preset is a column of every row."""
    common = {
        "preset": config.preset,
        "cuts": describe_reductions(config.training),
        "sequences": "+".join(config.sequences),
        "cohort": config.cohort.folder.name,
    }
    tables: dict[str, list[dict]] = {"": [], "_confusion": []}
    for network in IMAGE_CLASSIFIERS:
        network_folds = [fold for fold in folds if fold["key"]["network"] == network]
        row_columns = {**common, "initial_weights": network_folds[0]["initial_weights"]}
        slice_table = _tabulate_slices(network_folds)
        tables[""].append({**summarise_network(network, slice_table), **row_columns})
        tables["_confusion"].append({**_summarise_confusion(network, slice_table), **row_columns})
    tables["_folds"] = [
        {**_summarise_fold(fold), **common, "initial_weights": fold["initial_weights"]} for fold in folds
    ]
    for suffix, rows in tables.items():
        write_table(pd.DataFrame(rows), output_folder / f"{EXPERIMENT_NAME}{suffix}.csv")
    write_json(
        output_folder / f"{EXPERIMENT_NAME}_run_record.json",
        _create_run_record(config, slices, folds, seconds) | common,
    )
    return output_folder / f"{EXPERIMENT_NAME}.csv"


def _create_run_record(
    config: BenchmarkConfig, slices: SliceSet, folds: Sequence[dict], seconds: float
) -> dict:
    """Run record: settings, versions and the patients of every fold."""
    return create_run_record(
        EXPERIMENT_NAME,
        last_call_seconds=round(seconds),
        training_seconds=sum(fold["seconds"] for fold in folds),
        training=asdict(config.training),
        validation_share=VALIDATION_SHARE,
        patients=len(slices.unique_patients),
        slices=len(slices),
        positive_slices=int(slices.labels.sum()),
        initial_weights={fold["key"]["network"]: fold["initial_weights"] for fold in folds},
        slices_sha256=_compute_digest(slices),
        splits=[
            fold["key"]["split"] for fold in folds if fold["key"]["network"] == next(iter(IMAGE_CLASSIFIERS))
        ],
    )
