"""Table 2-3, the benchmark of a cohort: is there a lesion in this slice? Three networks, five folds by patient.

Where the published text is silent: the slices go in whole, without augmentation; the rate falls from 1e-3 to
zero along a cosine; a fifth of each training part's patients are validation, and the epoch of their lowest
cross-entropy is the one tested; the answer is positive at a probability of 0.5. Every finished fold is kept
under ``OUT/work`` and not trained again, so an interrupted run goes on.
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

from gliomark.cohort.folds import VALIDATION_SHARE, Folds, Split, check_disjoint, cohort_folds, fold_split
from gliomark.cohort.store import Cohort, write_json
from gliomark.evaluation.intervals import bootstrap
from gliomark.evaluation.metrics import at_threshold, auc
from gliomark.experiments.records import kept_fold, run_record, write_table
from gliomark.models.baselines import BASELINES, load_imagenet
from gliomark.study import GliomarkError, MRSequence, SliceStack
from gliomark.training.checkpoints import last_checkpoint
from gliomark.training.draws import epoch_generator
from gliomark.training.segmentation import best_checkpoint, make_trainer

NAME = "table_2_3"
# accuracy and sensitivity of the published table, from another cohort and with ImageNet weights
PUBLISHED = {"ResNet-50": (0.906, 0.879), "DenseNet-121": (0.915, 0.886), "Xception": (0.939, 0.915)}
THRESHOLD = 0.5
RANDOM_WEIGHTS = "random"
# what reading a file that is no state dict was seen to raise
UNREADABLE = (
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
    """The published setting. A slice is positive with at least ``smallest_lesion_mm2`` of lesion on it.

    pool: the 240x240 slice is averaged over pool x pool pixels. slices_per_patient: how many random slices of
    a patient an epoch shows, and how many evenly spaced ones validate; None is all. patience: epochs without
    a better validation after which training ends.
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
    """Slices in memory: image float16 ``(N, C, 240 / pool, 240 / pool)``, label ``(N,)`` 1 with lesion,
    patient and name one per slice."""

    image: Tensor
    label: Tensor
    patient: tuple[str, ...]
    name: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.name)

    @property
    def patients(self) -> tuple[str, ...]:
        """Whose slices these really are, sorted."""
        return tuple(sorted(set(self.patient)))

    def of(self, patients: Sequence[str], at_most: int | None = None) -> SliceSet:
        """These patients' slices only; ``at_most`` so many of each, evenly spaced over the brain."""
        wanted = set(patients)
        rows = [i for name, index in self.rows().items() if name in wanted for i in _spaced(index, at_most)]
        return SliceSet(
            self.image[rows],
            self.label[rows],
            tuple(self.patient[i] for i in rows),
            tuple(self.name[i] for i in rows),
        )

    def rows(self) -> dict[str, list[int]]:
        """Every patient's rows in the order of the stack."""
        found: dict[str, list[int]] = {}
        for row, patient in enumerate(self.patient):
            found.setdefault(patient, []).append(row)
        return found


@dataclass(frozen=True)
class Benchmark:
    """One run of the table: what is read, how it is trained, where the work is kept."""

    cohort: Cohort
    folds: Folds
    sequences: tuple[MRSequence, ...]
    preset: str
    training: BenchmarkTraining
    weights: Mapping[str, Path]
    work: Path


def run(
    cohort_folder: Path,
    out: Path,
    preset: Preset,
    weights: Mapping[str, Path] | None,
    say: Callable[[str], None],
    sequences: Sequence[MRSequence] | None = None,
) -> Path:
    """Train what is not trained yet and write the tables and the run record under ``out``; the table's path.

    weights: a file of ImageNet weights by network (``BASELINES``). sequences: one channel each, by default
    the cohort's reference alone. Raises GliomarkError for what is unknown or does not fit.
    """
    started, cohort = time.time(), Cohort(cohort_folder)
    chosen = _sequences(cohort, sequences)
    given = _check_weights(weights or {})
    benchmark = Benchmark(
        cohort, cohort_folds(cohort), chosen, preset, _training(preset), given, out / "work" / NAME
    )
    slices = load_slices(cohort, chosen, benchmark.training)
    say(f"{len(slices)} slices of {len(slices.patients)} patients, {int(slices.label.sum())} with lesion")
    folds = [fold for network in BASELINES for fold in _folds_of(network, benchmark, slices, say)]
    return _write(benchmark, slices, folds, out, time.time() - started)


def _training(preset: str) -> BenchmarkTraining:
    if preset not in PRESETS:
        raise GliomarkError(f"The preset '{preset}' is unknown; it must be one of {', '.join(PRESETS)}.")
    return PRESETS[preset]


def _sequences(cohort: Cohort, sequences: Sequence[MRSequence] | None) -> tuple[MRSequence, ...]:
    """The wanted sequences, or the reference, which every patient has."""
    prepared = tuple(MRSequence(name) for name in cohort.about["sequences"])
    wanted = prepared[-1:] if sequences is None else tuple(sequences)
    if not wanted or not set(wanted) <= set(prepared):
        raise GliomarkError(
            f"{cohort.folder} was prepared for {', '.join(prepared)}; choose the slices' sequences among them."
        )
    return wanted


def _check_weights(weights: Mapping[str, Path]) -> dict[str, Path]:
    """Before hours of training: every network known, every file there and fitting."""
    for network, path in weights.items():
        if network not in BASELINES:
            raise GliomarkError(
                f"The network '{network}' is unknown; weights can be given for {', '.join(BASELINES)}."
            )
        _initialise(network, 1, path)
    return dict(weights)


# ---- the slices -------------------------------------------------------------------------------------


def load_slices(
    cohort: Cohort, sequences: Sequence[MRSequence], training: BenchmarkTraining = PRESETS["published"]
) -> SliceSet:
    """Every slice that shows brain, of every patient who has the sequences and a drawn lesion mask."""
    images, labels, patients, names = [], [], [], []
    for patient in cohort.patient_ids:
        stack = cohort.stack(patient)
        if stack.lesion is None or not set(sequences) <= set(stack.images):
            continue
        shows = np.asarray(stack.brain.any(axis=(1, 2)))
        images.append(_pooled(stack, sequences, training.pool)[torch.from_numpy(shows)])
        area = stack.drawn.sum(axis=(1, 2)) * stack.pixel_area_mm2
        labels.append(torch.from_numpy(area[shows] >= training.smallest_lesion_mm2).long())
        patients += [patient] * int(shows.sum())
        names += [name for name, shown in zip(stack.slice_names, shows, strict=True) if shown]
    if not images or len(torch.cat(labels).unique()) < 2:
        raise GliomarkError(
            f"{cohort.folder} has not both slices with {', '.join(sequences)} and a drawn lesion and slices without; "
            "name other sequences or draw masks."
        )
    return SliceSet(torch.cat(images), torch.cat(labels), tuple(patients), tuple(names))


def _pooled(stack: SliceStack, sequences: Sequence[MRSequence], pool: int) -> Tensor:
    """``(slice, C, 240 / pool, 240 / pool)``: the area average, which a lesion survives."""
    image = torch.from_numpy(np.stack([stack.images[name] for name in sequences], axis=1))
    return F.avg_pool2d(image, pool).half()


def _spaced(index: list[int], at_most: int | None) -> list[int]:
    if at_most is None or len(index) <= at_most:
        return index
    return [index[i] for i in np.linspace(0, len(index) - 1, at_most).round().astype(int)]


class FewOfEach(Sampler[int]):
    """An epoch's rows in random order, at most ``count`` of a patient (None: all), drawn anew each time."""

    def __init__(self, slices: SliceSet, count: int | None, seed: int = 0) -> None:
        self.seed, self.epoch = seed, 0
        self.groups = [torch.tensor(rows) for rows in slices.rows().values()]
        self.count = count

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer: what is drawn depends on seed and epoch alone."""
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(len(rows) if self.count is None else min(len(rows), self.count) for rows in self.groups)

    def __iter__(self) -> Iterator[int]:
        generator = epoch_generator(self.seed, self.epoch)

        def shuffled(rows: Tensor) -> Tensor:
            return rows[torch.randperm(len(rows), generator=generator)]

        return iter(shuffled(torch.cat([shuffled(rows)[: self.count] for rows in self.groups])).tolist())


# ---- one training -----------------------------------------------------------------------------------


class LesionInSlice(lightning.LightningModule):
    """A baseline network, cross-entropy and Adam; the training loop is Lightning's."""

    def __init__(self, network: torch.nn.Module, training: BenchmarkTraining) -> None:
        super().__init__()
        # channels last: a third faster on a CPU
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.training_settings = training

    def forward(self, image: Tensor) -> Tensor:
        """``(B, C, H, W)``, any float, to logits ``(B, 2)``."""
        return self.network(image.to(self.device, torch.float32, memory_format=torch.channels_last))

    def training_step(self, batch: Sequence[Tensor], _: int) -> Tensor:
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Sequence[Tensor], _: int) -> None:
        self.log("validation_loss", F.cross_entropy(self(batch[0]), batch[1]), batch_size=len(batch[1]))

    def configure_optimizers(self):
        optimiser = torch.optim.Adam(self.network.parameters(), lr=self.training_settings.rate)
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _initialise(network: str, channels: int, path: Path | None) -> tuple[torch.nn.Module, str]:
    """The network before training, and in words what its weights are. Raises GliomarkError on a wrong file."""
    built = BASELINES[network](channels)
    if path is None:
        return built, RANDOM_WEIGHTS
    try:
        fit = load_imagenet(built, _state(path))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except UNREADABLE as error:
        reason = (str(error) or "it is empty").splitlines()[0]
        raise GliomarkError(
            f"{path} cannot initialise {network} ({reason}); give a state dict of this network "
            "as torchvision or timm write it."
        ) from None
    return built, f"{path.name} (SHA-256 {digest[:12]}), {fit.filled} of {fit.of} tensors"


def _state(path: Path) -> Mapping[str, Tensor]:
    """The state dict in a safetensors or a torch file, out of a training checkpoint too."""
    if path.suffix == ".safetensors":
        return load_file(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    return content.get("state_dict", content)


def _folds_of(network: str, benchmark: Benchmark, slices: SliceSet, say: Callable[[str], None]) -> list[dict]:
    """The network's finished folds, trained now where they are not on disk."""
    done = []
    for number in range(len(benchmark.folds.folds)):
        path = benchmark.work / network / f"fold_{number + 1}.json"
        fold = kept_fold(path, _key(network, number, benchmark, slices))
        if fold is None:
            fold = _train_fold(network, number, benchmark, slices)
            write_json(path, fold)
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
        say(f"{network}, fold {number + 1}: {_fold_words(fold)}")
        done.append(fold)
    return done


def _key(network: str, number: int, benchmark: Benchmark, slices: SliceSet) -> dict:
    """What a kept fold must agree with to be taken for this run's."""
    split = fold_split(benchmark.folds, number, slices.patients, benchmark.training.seed)
    file = benchmark.weights.get(network)
    return {
        "network": network,
        "fold": number + 1,
        "training": asdict(benchmark.training),
        "sequences": list(benchmark.sequences),
        "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest() if file else "",
        "split": {part: list(patients) for part, patients in asdict(split).items()},
        "slices_sha256": _digest(slices),
    }


def _digest(slices: SliceSet) -> str:
    """A hash of the images, the labels and whose they are."""
    content = hashlib.sha256(json.dumps([slices.patient, slices.name, slices.label.tolist()]).encode())
    content.update(slices.image.numpy().tobytes())
    return content.hexdigest()


def _train_fold(network: str, number: int, benchmark: Benchmark, slices: SliceSet) -> dict:
    """Train on the training patients, stop by the validation patients, judge the test patients."""
    started, settings = time.time(), benchmark.training
    work = benchmark.work / network / f"fold_{number + 1}"
    key = _key(network, number, benchmark, slices)
    write_json(work / "key.json", {"key": key})
    split = Split(**{part: tuple(patients) for part, patients in key["split"].items()})
    training, test = slices.of(split.training), slices.of(split.test)
    validation = slices.of(split.validation, settings.slices_per_patient)
    # names are one thing, slices another: asked of what is really fed
    check_disjoint(
        {"trained on": training.patients, "stopped by": validation.patients, "tested on": test.patients}
    )
    lightning.seed_everything(settings.seed + number, verbose=False)
    built, words = _initialise(network, len(benchmark.sequences), benchmark.weights.get(network))
    task = LesionInSlice(built, settings)
    epochs, best = _fit(task, training, validation, settings, settings.seed + number, work)
    return {
        "key": key,
        "initial_weights": words,
        "epochs": epochs,
        "tested_epoch": best,
        "seconds": round(time.time() - started),
        "slices": _answers(task, test),
    }


def _fit(
    task: LesionInSlice,
    training: SliceSet,
    validation: SliceSet,
    settings: BenchmarkTraining,
    seed: int,
    work: Path,
) -> tuple[int, int]:
    """Train; the task then has its best epoch's weights. Returns epochs trained and the best one, from 1."""
    best = best_checkpoint(work, "validation_loss", "min")
    stop = EarlyStopping("validation_loss", patience=settings.patience)
    trainer = make_trainer(settings.epochs, work, [stop, best], seed)
    loaders = (
        DataLoader(
            TensorDataset(training.image, training.label),
            settings.batch,
            sampler=FewOfEach(training, settings.slices_per_patient, seed),
            drop_last=True,
        ),
        DataLoader(TensorDataset(validation.image, validation.label), settings.batch),
    )
    trainer.fit(task, *loaders, ckpt_path=last_checkpoint(work))
    tested = torch.load(best.best_model_path, map_location="cpu", weights_only=False)
    task.load_state_dict(tested["state_dict"])
    return trainer.current_epoch, tested["epoch"] + 1


def _answers(task: LesionInSlice, slices: SliceSet) -> list[tuple[str, str, int, float]]:
    """Patient, slice, label and probability of a lesion, for every slice."""
    task.eval()
    with torch.inference_mode():
        parts = [task(image).softmax(dim=1)[:, 1].cpu() for image in slices.image.split(64)]
    probability = torch.cat(parts).tolist()
    return list(zip(slices.patient, slices.name, slices.label.tolist(), probability, strict=True))


# ---- the tables -------------------------------------------------------------------------------------


def _table_of(folds: Sequence[dict]) -> pd.DataFrame:
    """The test slices of the folds, one row each."""
    rows = [(fold["key"]["fold"], *row) for fold in folds for row in fold["slices"]]
    return pd.DataFrame(rows, columns=["fold", "patient", "slice", "label", "probability"])


def summary(network: str, slices: pd.DataFrame) -> dict:
    """The network's figures over all test slices, each with a 95 % interval by bootstrap over patients."""
    groups = [group for _, group in slices.groupby("patient", sort=True)]
    labels = [group["label"].to_numpy() for group in groups]
    probabilities = [group["probability"].to_numpy() for group in groups]
    counts = np.array(list(map(_counts, labels, probabilities)))
    everyone = np.arange(len(groups))

    def area(drawn) -> float:
        return auc(*(np.concatenate([part[i] for i in drawn]) for part in (labels, probabilities)))

    accuracy, sensitivity = PUBLISHED.get(network, (np.nan, np.nan))
    row = {"network": network, "published_accuracy": accuracy, "published_sensitivity": sensitivity}
    for name, share in SHARES.items():
        row |= _with_interval(name, bootstrap(lambda drawn, s=share: s(*counts[drawn].sum(axis=0)), everyone))
    row |= _with_interval("auc", bootstrap(area, everyone))
    return row | {
        "threshold": THRESHOLD,
        "slices": len(slices),
        "positive_slices": int(slices["label"].sum()),
        "patients": len(groups),
    }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


# of true negatives, false positives, false negatives, true positives
SHARES: Mapping[str, Callable[..., float]] = {
    "accuracy": lambda tn, fp, fn, tp: _ratio(tn + tp, tn + fp + fn + tp),
    "sensitivity": lambda tn, fp, fn, tp: _ratio(tp, tp + fn),
    "specificity": lambda tn, fp, fn, tp: _ratio(tn, tn + fp),
}


def _counts(label: np.ndarray, probability: np.ndarray) -> tuple[int, int, int, int]:
    """True negatives, false positives, false negatives, true positives."""
    truth, answer = label.astype(bool), probability >= THRESHOLD
    pairs = ((~truth, ~answer), (~truth, answer), (truth, ~answer), (truth, answer))
    tn, fp, fn, tp = (int((a & b).sum()) for a, b in pairs)
    return tn, fp, fn, tp


def _with_interval(name: str, found: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip((name, f"{name}_low_95", f"{name}_high_95"), found, strict=True))


def _fold_row(fold: dict) -> dict:
    table, split = _table_of([fold]), fold["key"]["split"]
    figures = at_threshold(table["label"], table["probability"], THRESHOLD)
    return {
        "network": fold["key"]["network"],
        "fold": fold["key"]["fold"],
        **{f"{part}_patients": len(patients) for part, patients in split.items()},
        "test_slices": len(table),
        "positive_slices": int(table["label"].sum()),
        **{name: figures[name] for name in SHARES},
        "auc": auc(table["label"], table["probability"]),
        **{name: fold[name] for name in ("epochs", "tested_epoch", "seconds")},
    }


def _fold_words(fold: dict) -> str:
    row = _fold_row(fold)
    return f"accuracy {row['accuracy']:.3f}, AUC {row['auc']:.3f}, {row['seconds']} s"


def _confusion_row(network: str, slices: pd.DataFrame) -> dict:
    tn, fp, fn, tp = _counts(slices["label"].to_numpy(), slices["probability"].to_numpy())
    counts = {"true_negative": tn, "false_positive": fp, "false_negative": fn, "true_positive": tp}
    return {
        "network": network,
        **counts,
        "threshold": THRESHOLD,
        "slices": len(slices),
        "patients": slices["patient"].nunique(),
    }


def cuts(training: BenchmarkTraining) -> str:
    """In words, what a preset took away from the published setting."""
    full = PRESETS["published"]
    words = {
        "pool": f"slices averaged to {240 // training.pool}x{240 // training.pool} pixels",
        "epochs": f"at most {training.epochs} epochs instead of {full.epochs}",
        "batch": f"batches of {training.batch} instead of {full.batch}",
        "slices_per_patient": f"{training.slices_per_patient} random slices of a patient per epoch, and as many evenly "
        "spaced ones in validation, instead of all",
    }
    changed = [f.name for f in fields(training) if getattr(training, f.name) != getattr(full, f.name)]
    return "; ".join(words.get(name, f"{name} {getattr(training, name)}") for name in changed) or "none"


def _write(benchmark: Benchmark, slices: SliceSet, folds: Sequence[dict], out: Path, seconds: float) -> Path:
    """Four files; every row says under which preset it was made."""
    common = {
        "preset": benchmark.preset,
        "cuts": cuts(benchmark.training),
        "sequences": "+".join(benchmark.sequences),
        "cohort": benchmark.cohort.folder.name,
    }
    tables: dict[str, list[dict]] = {"": [], "_confusion": []}
    for network in BASELINES:
        own = [fold for fold in folds if fold["key"]["network"] == network]
        said = {**common, "initial_weights": own[0]["initial_weights"]}
        judged = _table_of(own)
        tables[""].append({**summary(network, judged), **said})
        tables["_confusion"].append({**_confusion_row(network, judged), **said})
    tables["_folds"] = [
        {**_fold_row(fold), **common, "initial_weights": fold["initial_weights"]} for fold in folds
    ]
    for suffix, rows in tables.items():
        write_table(pd.DataFrame(rows), out / f"{NAME}{suffix}.csv")
    write_json(out / f"{NAME}_run_record.json", _record(benchmark, slices, folds, seconds) | common)
    return out / f"{NAME}.csv"


def _record(benchmark: Benchmark, slices: SliceSet, folds: Sequence[dict], seconds: float) -> dict:
    """What a stranger needs to judge the run: settings, versions, who stood where."""
    return run_record(
        NAME,
        last_call_seconds=round(seconds),
        training_seconds=sum(fold["seconds"] for fold in folds),
        training=asdict(benchmark.training),
        validation_share=VALIDATION_SHARE,
        patients=len(slices.patients),
        slices=len(slices),
        positive_slices=int(slices.label.sum()),
        initial_weights={fold["key"]["network"]: fold["initial_weights"] for fold in folds},
        slices_sha256=_digest(slices),
        splits=[fold["key"]["split"] for fold in folds if fold["key"]["network"] == next(iter(BASELINES))],
    )
