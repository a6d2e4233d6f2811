"""Table 2-3: detection of slices with a lesion by three networks, in five folds by patient.

How they are trained is in ``slice_procedure``; a slice is positive from a probability of 0.5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gliomark.cohort.folds import VALIDATION_SHARE
from gliomark.cohort.store import Cohort
from gliomark.errors import ConfigurationError
from gliomark.evaluation.intervals import bootstrap_interval
from gliomark.evaluation.metrics import auc, compute_threshold_metrics
from gliomark.experiments.config import ExperimentConfig, get_preset
from gliomark.experiments.runner import (
    ExperimentResult,
    FinishedJob,
    PublishedValues,
    ResultRows,
    ResultTable,
    WrittenTable,
    run_experiment,
)
from gliomark.experiments.slice_procedure import (
    PROBABILITY_THRESHOLD,
    BenchmarkTraining,
    SliceFold,
    SliceJob,
    SliceProcedure,
    SliceRun,
    compute_slices_digest,
    create_network,
)
from gliomark.models.comparison.image_classifiers import IMAGE_CLASSIFIERS
from gliomark.study import MRSequence

# on another cohort and with ImageNet weights
PUBLISHED = PublishedValues(
    key_column="network",
    columns=("accuracy", "sensitivity"),
    values={"ResNet-50": (0.906, 0.879), "DenseNet-121": (0.915, 0.886), "Xception": (0.939, 0.915)},
    source="thesis, table 2-3",
    inserted_after="network",
)
PRESETS: Mapping[str, BenchmarkTraining] = {
    "published": BenchmarkTraining(),
    # about an hour and a quarter on one CPU core with the 96 patients of TCGA-LGG
    "quick": BenchmarkTraining(pool=4, epochs=5, batch=32, slices_per_patient=16),
}


SliceResult: TypeAlias = ExperimentResult[SliceRun, SliceFold]


def run_table_2_3(
    config: ExperimentConfig,
    weights_paths: Mapping[str, Path],
    sequences: Sequence[MRSequence] | None = None,
) -> WrittenTable:
    """Train the unfinished folds and write the tables and the run record.

    Parameters
    ----------
    config
        The first cohort is used.
    weights_paths
        Files of ImageNet weights by name of the network; without one, weights are random.
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
    return run_experiment(create_table(weights_paths, sequences), config)


def create_table(
    weights_paths: Mapping[str, Path], sequences: Sequence[MRSequence] | None = None
) -> ResultTable[SliceRun, SliceFold]:
    """Create the table for initial weights by network and for input channels."""
    procedure = SliceProcedure(tuple(weights_paths.items()), None if sequences is None else tuple(sequences))

    def prepare(config: ExperimentConfig) -> None:
        cohort_folder = config.cohort_folders[0]
        procedure.select_sequences(cohort_folder)
        _check_weights_files(weights_paths)
        slices = procedure.load_slices(cohort_folder, get_training(config.preset))
        config.notify(
            f"{len(slices)} slices of {len(slices.unique_patients)} patients, {int(slices.labels.sum())} with lesion"
        )

    return ResultTable(
        name="table_2_3",
        procedure=procedure,
        list_runs=lambda preset, _: [
            SliceRun(network, get_training(preset)) for network in IMAGE_CLASSIFIERS
        ],
        create_rows=lambda result: _create_rows(result, procedure),
        # in the rows, because they are in three tables
        describe_run=lambda _: {},
        create_details=lambda result: _create_details(result, procedure),
        describe_reductions=lambda preset: describe_reductions(get_training(preset)),
        published=PUBLISHED,
        prepare=prepare,
    )


def get_training(preset_name: str) -> BenchmarkTraining:
    """Return the training of a preset by name.

    Raises
    ------
    ConfigurationError
        If the preset is unknown.
    """
    return get_preset(PRESETS, preset_name)


def _check_weights_files(weights_paths: Mapping[str, Path]) -> None:
    """Check, before hours of training, that every network is known and every weights file fits."""
    for network, path in weights_paths.items():
        if network not in IMAGE_CLASSIFIERS:
            raise ConfigurationError(
                f"The network '{network}' is unknown; weights can be given for {', '.join(IMAGE_CLASSIFIERS)}."
            )
        create_network(network, 1, path)


def _create_rows(result: SliceResult, procedure: SliceProcedure) -> ResultRows:
    """Tabulate the networks, their confusion matrices, and their folds."""
    common = _describe_run(result, procedure)
    rows, confusion_rows = [], []
    for run in result.runs:
        folds = result.list_finished(run.name)
        columns = {**common, "initial_weights": folds[0].result.initial_weights}
        slices = tabulate_slices([finished.result for finished in folds])
        rows.append({**summarise_network(run.name, slices), **columns})
        confusion_rows.append({**_summarise_confusion(run.name, slices), **columns})
    fold_rows = [
        {**_summarise_fold(job, finished), **common, "initial_weights": finished.result.initial_weights}
        for job, finished in result.finished.items()
    ]
    further_tables = {"_confusion": pd.DataFrame(confusion_rows), "_folds": pd.DataFrame(fold_rows)}
    return ResultRows(pd.DataFrame(rows), further_tables)


def _describe_run(result: SliceResult, procedure: SliceProcedure) -> dict[str, Any]:
    """Columns of every row and entries of the run record."""
    folder = result.config.cohort_folders[0]
    return {
        "preset": result.config.preset,
        "cuts": describe_reductions(get_training(result.config.preset)),
        "sequences": "+".join(procedure.select_sequences(folder)),
        "cohort": Cohort(folder).folder.name,
    }


def _create_details(result: SliceResult, procedure: SliceProcedure) -> dict[str, Any]:
    """Create the entries of the run record: settings, slices, initial weights, and the patients of the folds."""
    folder, training = result.config.cohort_folders[0], get_training(result.config.preset)
    slices = procedure.load_slices(folder, training)
    return {
        "training_seconds": sum(finished.seconds for finished in result.finished.values()),
        "training": asdict(training),
        "validation_share": VALIDATION_SHARE,
        "patients": len(slices.unique_patients),
        "slices": len(slices),
        "positive_slices": int(slices.labels.sum()),
        "initial_weights": {
            job.run.name: finished.result.initial_weights for job, finished in result.finished.items()
        },
        "slices_sha256": compute_slices_digest(slices),
        "splits": [finished.key["split"] for finished in result.list_finished(result.runs[0].name)],
        **_describe_run(result, procedure),
    }


# ---- statistics -------------------------------------------------------------------------------------


def tabulate_slices(folds: Sequence[SliceFold]) -> pd.DataFrame:
    """Tabulate the test slices of the folds, one row each."""
    rows = [row for fold in folds for row in fold.slices]
    return pd.DataFrame(rows, columns=["patient", "slice", "label", "probability"])


def summarise_network(network: str, slices: pd.DataFrame) -> dict[str, Any]:
    """Summarise a network over all test slices, with 95 % intervals by bootstrap over patients."""
    groups = [group for _, group in slices.groupby("patient", sort=True)]
    labels = [group["label"].to_numpy() for group in groups]
    probabilities = [group["probability"].to_numpy() for group in groups]
    counts = np.array(list(map(_count_outcomes, labels, probabilities)))
    everyone = np.arange(len(groups))

    def compute_auc(sampled_patients: NDArray[Any]) -> float:
        return auc(*(np.concatenate([part[i] for i in sampled_patients]) for part in (labels, probabilities)))

    row: dict[str, Any] = {"network": network}
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


def _summarise_fold(job: SliceJob, finished: FinishedJob[SliceFold]) -> dict[str, Any]:
    table, split = tabulate_slices([finished.result]), finished.key["split"]
    statistics = compute_threshold_metrics(table["label"], table["probability"], PROBABILITY_THRESHOLD)
    return {
        "network": job.run.name,
        "fold": job.fold_index + 1,
        **{f"{part}_patients": len(patients) for part, patients in split.items()},
        "test_slices": len(table),
        "positive_slices": int(table["label"].sum()),
        **{name: statistics[name] for name in RATIO_METRICS},
        "auc": auc(table["label"], table["probability"]),
        "epochs": finished.result.epochs,
        "tested_epoch": finished.result.tested_epoch,
        "seconds": finished.seconds,
    }


def _summarise_confusion(network: str, slices: pd.DataFrame) -> dict[str, Any]:
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
