"""Rows of chapter 3's tables: statistics over patients of the finished folds, paired comparison, cost of a network."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from scipy.stats import wilcoxon
from torch.utils.flop_counter import FlopCounterMode

from gliomark.cohort.folds import load_cohort_folds
from gliomark.cohort.store import Cohort
from gliomark.errors import CohortError
from gliomark.evaluation.intervals import bootstrap_interval
from gliomark.evaluation.metrics import auc
from gliomark.experiments.config import ExperimentConfig, get_cohort_name
from gliomark.experiments.runner import ExperimentResult, ResultRows, ResultTable
from gliomark.experiments.segmentation.procedure import (
    SegmentationFold,
    SegmentationProcedure,
    SegmentationRun,
    create_fold_job,
    create_run_segmenter,
    evaluate_patient,
    get_weights_path,
    list_patients_with_mask,
    to_run_record,
)
from gliomark.experiments.segmentation.runs import create_shipped_runs, describe_reductions
from gliomark.inference.segmenter import select_sequences
from gliomark.models.network_loading import load_segmentation_network
from gliomark.models.registry import build_segmentation_network
from gliomark.models.weights import load_weights
from gliomark.training.recipes import get_cohort_sequences
from gliomark.training.segmentation import SegmentationTrainingConfig

SegmentationResult: TypeAlias = ExperimentResult[SegmentationRun, SegmentationFold]
SCORE_COLUMNS = (
    "dice",
    "dice_per_lesion_slice",
    "sensitivity",
    "hausdorff_pixels",
    "hausdorff_95_pixels",
    "hausdorff_mm",
    "hausdorff_95_mm",
)
GRADING_COLUMNS = ("high_grade", "high_grade_probability")
SMALL_FALSE_AREA = 0.01


@dataclass(frozen=True)
class EvaluatedFold:
    """Scores of the test patients of one fold (from 1) of a run, see ``evaluate_patient``; seed: of its training."""

    run_name: str
    fold: int
    patients: Sequence[Mapping[str, Any]]
    seed: int = 0


def tabulate_patients(folds: Sequence[EvaluatedFold], cohort_names: Sequence[str]) -> pd.DataFrame:
    """Tabulate scores: one row per run, tested cohort, seed and patient.

    On slices without lesion, false_area is the mean share of the brain that is segmented, and small_false_area the
    share of these slices with less than 1 % of the brain segmented.
    """
    rows = []
    for fold in folds:
        for row in fold.patients:
            lesion_free_shares = np.array(row["lesion_free"])
            rows.append(
                {
                    "trial": fold.run_name,
                    "tested_on": cohort_names[row["cohort"]],
                    "seed": fold.seed,
                    "fold": fold.fold,
                    "patient": row["patient"],
                    **{
                        n: np.nan if row[n] is None else float(row[n])
                        for n in (*SCORE_COLUMNS, *GRADING_COLUMNS)
                    },
                    "lesion_free_slices": len(lesion_free_shares),
                    "false_area": lesion_free_shares.mean() if len(lesion_free_shares) else np.nan,
                    "small_false_area": (lesion_free_shares < SMALL_FALSE_AREA).mean()
                    if len(lesion_free_shares)
                    else np.nan,
                }
            )
    return pd.DataFrame(rows)


def average_over_seeds(patient_table: pd.DataFrame) -> pd.DataFrame:
    """Average the scores of one run over seeds: one row per patient; a seed without a value is left out."""
    text_columns = ["trial", "tested_on", "fold", "patient"]
    means = patient_table.drop(columns="seed").groupby(text_columns, sort=False, as_index=False).mean()
    return means[[name for name in patient_table.columns if name != "seed"]]


def summarise_seeds(patient_table: pd.DataFrame) -> dict[str, float]:
    """Count the seeds of one run; standard deviation, lowest and highest of the seeds' mean Dice.

    The last three are empty with a single seed.
    """
    means = patient_table.groupby("seed")["dice"].mean()
    row: dict[str, float] = {"seeds": len(means)}
    spread = dict.fromkeys(("dice_seed_sd", "dice_seed_lowest", "dice_seed_highest"), np.nan)
    if len(means) > 1:
        spread = dict(zip(spread, (means.std(ddof=1), means.min(), means.max()), strict=True))
    return row | spread


def summarise_patients(patient_table: pd.DataFrame) -> dict[str, float]:
    """Compute mean, standard deviation and 95 % bootstrap interval over patients of every score."""
    row: dict[str, float] = {"patients": len(patient_table)}
    for name in SCORE_COLUMNS:
        values = patient_table[name].to_numpy()
        mean, low, high = bootstrap_interval(_compute_mean, values)
        row |= {name: mean, f"{name}_sd": np.nanstd(values, ddof=1) if len(values) > 1 else np.nan}
        row |= {f"{name}_low_95": low, f"{name}_high_95": high}
    row["dice_median"], row["dice_worst"] = patient_table["dice"].median(), patient_table["dice"].min()
    row["without_distance"] = int(patient_table["hausdorff_mm"].isna().sum())
    slices = patient_table["lesion_free_slices"]
    row["lesion_free_slices"] = int(slices.sum())
    for name in ("false_area", "small_false_area"):
        row[name] = float((patient_table[name].fillna(0) * slices).sum() / max(1, slices.sum()))
    return row | _summarise_grading(patient_table)


def _summarise_grading(patient_table: pd.DataFrame) -> dict[str, float]:
    """Summarise the grading task over patients of known grade: accuracy at 0.5 and AUC, with intervals."""
    graded = patient_table.dropna(subset=list(GRADING_COLUMNS))
    label, probability = (graded[name].to_numpy(float) for name in GRADING_COLUMNS)
    row: dict[str, float] = {"graded_patients": len(graded)}
    for name, score in {"grading_accuracy": _compute_accuracy, "grading_auc": auc}.items():
        value, low, high = bootstrap_interval(score, label, probability) if len(graded) else (np.nan,) * 3
        row |= {name: value, f"{name}_low_95": low, f"{name}_high_95": high}
    return row


def _compute_accuracy(label: np.ndarray, probability: np.ndarray) -> float:
    return float(np.mean((probability >= 0.5) == (label == 1)))


def _compute_mean(values: np.ndarray) -> float:
    """Mean over the patients with a value; NaN if there are none."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def compare_paired_dice(table: pd.DataFrame, other_table: pd.DataFrame) -> dict[str, float]:
    """Compare Dice of the same patients in two runs: mean difference, 95 % interval, two-sided Wilcoxon p."""
    both = (
        table.set_index("patient")["dice"]
        .to_frame("own")
        .join(other_table.set_index("patient")["dice"], how="inner")
    )
    difference = (both["own"] - both["dice"]).to_numpy()
    mean, low, high = bootstrap_interval(np.mean, difference)
    p = float(wilcoxon(difference).pvalue) if np.any(difference) else 1.0
    return {"difference": mean, "difference_low_95": low, "difference_high_95": high, "wilcoxon_p": p}


@functools.cache
def measure_network_cost(
    training_config: SegmentationTrainingConfig, pooling_factor: float, repeats: int = 5
) -> dict[str, float]:
    """Parameters (millions), GFLOP (two per multiply-add) and CPU time (ms) for one forward pass on one slice.

    pooling_factor: determines the input size.
    """
    network = build_segmentation_network(training_config.network).eval()
    side = round(training_config.augmentation.crop / pooling_factor)
    image, theta = torch.zeros(1, training_config.network.inputs, side, side), torch.eye(2, 3)[None]
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            network(image, theta)
        times = [_measure_seconds(lambda: network(image, theta)) for _ in range(repeats)]
    return {
        "million_parameters": sum(p.numel() for p in network.parameters()) / 1e6,
        "gflop_per_slice": counter.get_total_flops() / 1e9,
        "ms_per_slice": 1000 * float(np.median(times)),
    }


def _measure_seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def tabulate_runs(
    runs: Sequence[SegmentationRun],
    patient_table: pd.DataFrame,
    comparison_runs: Sequence[str],
    tested_on: str,
) -> pd.DataFrame:
    """Tabulate runs on one tested cohort: statistics, cost, and comparison with the best comparison run.

    A patient's score is the mean over the seeds of the run. comparison_runs: names of the runs of which each run is
    compared with the other that has the best mean Dice.
    """
    cohort_table = patient_table[patient_table["tested_on"] == tested_on]
    by_seed = {trial.name: cohort_table[cohort_table["trial"] == trial.name] for trial in runs}
    own = {name: average_over_seeds(part) for name, part in by_seed.items()}
    statistics = {name: summarise_patients(part) for name, part in own.items()}
    rows = []
    for trial in runs:
        others = [name for name in comparison_runs if name != trial.name]
        row = {"trial": trial.name, "tested_on": tested_on, **statistics[trial.name]}
        row |= summarise_seeds(by_seed[trial.name])
        if others:
            best = max(others, key=lambda name: statistics[name]["dice"])
            row |= {"compared_with": best, **compare_paired_dice(own[trial.name], own[best])}
        rows.append({**row, **measure_network_cost(trial.training, trial.pooling_factor)})
    return pd.DataFrame(rows)


# ---- shared by all tables -----------------------------------------------------------------------------


def create_result_rows(
    result: SegmentationResult, rows: pd.DataFrame, patient_table: pd.DataFrame
) -> ResultRows:
    """Add the mean speed of the training to the rows; the patients are written beside them."""
    rows = rows.copy()
    for column in ("slices_per_second", "waiting_share"):
        means = {}
        for run in result.runs:
            folds = [one.result for job, one in result.finished.items() if job.run.row_name == run.name]
            values = [getattr(fold, column) for fold in folds if fold.slices_per_second > 0]
            means[run.name] = np.mean(values) if values else np.nan
        rows[f"training_{column}"] = rows["trial"].map(means)
    return ResultRows(rows, {"_patients": patient_table}, patient_table)


def tabulate_result(result: SegmentationResult) -> pd.DataFrame:
    """Tabulate the scores of all runs by ``tabulate_patients``."""
    folds = [
        EvaluatedFold(job.run.row_name, job.fold_index + 1, finished.result.patients, job.run.training.seed)
        for job, finished in result.finished.items()
    ]
    return tabulate_patients(folds, result.config.cohort_names)


def describe_run(result: SegmentationResult) -> dict[str, Any]:
    """Columns of every row: folds, preset, its reductions, and the sequences of the first run."""
    prepared = get_cohort_sequences(Cohort(result.config.cohort_folders[0]))
    return {
        "folds": len({job.fold_index for job in result.finished}),
        "preset": result.config.preset,
        "cuts": describe_reductions(result.config.preset),
        "sequences": "+".join(select_sequences(prepared, result.runs[0].rule)),
    }


def create_details(result: SegmentationResult) -> dict[str, Any]:
    """Create the entries of the run record: cohorts, runs, training of every fold, and the patients of the folds."""
    config, last_run = result.config, result.runs[-1]
    return {
        "cohorts": config.cohort_names,
        "folds_sha256": [load_cohort_folds(Cohort(folder)).sha256 for folder in config.cohort_folders],
        "trials": [to_run_record(run) for run in result.runs],
        "seeds": list(range(config.seeds)),
        "training_seconds": sum(finished.seconds for finished in result.finished.values()),
        "folds": [
            {name: value for name, value in asdict(finished.result).items() if name != "patients"}
            | {"seconds": finished.seconds, "trial": job.run.row_name}
            | {"seed": job.run.training.seed, "fold": job.fold_index + 1}
            for job, finished in result.finished.items()
        ],
        "splits": [finished.key["splits"] for finished in result.list_finished(last_run.name)],
    }


def check_compatible_cohorts(config: ExperimentConfig, rule: str) -> None:
    """Check names, sequences and masks of the cohorts, those that are only tested among them.

    Raises
    ------
    CohortError
        If two cohorts have the same name or different sequences, or a cohort has no masks.
    """
    folders = (*config.cohort_folders, *config.test_only_cohorts)
    names = [get_cohort_name(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise CohortError(f"Two of the cohorts have the same name ({', '.join(names)}); rename a folder.")
    for folder in folders:
        list_patients_with_mask(Cohort(folder))
    sequences_by_cohort = [select_sequences(get_cohort_sequences(Cohort(folder)), rule) for folder in folders]
    if len(set(sequences_by_cohort)) > 1:
        raise CohortError(
            f"The cohorts were prepared for different sequences "
            f"({'; '.join('+'.join(s) for s in sequences_by_cohort)}); "
            "build them with the same --sequences."
        )


def evaluate_test_only_cohorts(
    runs: Sequence[SegmentationRun], config: ExperimentConfig
) -> Iterator[pd.DataFrame]:
    """Evaluate the networks of the first fold on the cohorts that are not trained on."""
    for run, folder in product(runs, config.test_only_cohorts):
        job, cohort = create_fold_job(run, 0, config.cohort_folders, config.work_folder), Cohort(folder)
        weights = load_weights(get_weights_path(job))
        segmenter, network = create_run_segmenter(run, weights), load_segmentation_network(weights)
        rows = [
            {"cohort": 0, "patient": p, **evaluate_patient(segmenter, network, cohort, p)}
            for p in list_patients_with_mask(cohort)
        ]
        yield tabulate_patients([EvaluatedFold(run.name, 1, rows)], [get_cohort_name(folder)])


# ---- the demonstration recipe -------------------------------------------------------------------------


def list_shipped_runs(cohort: Cohort) -> list[SegmentationRun]:
    """List the runs of the demonstration recipe for a cohort; the last one is shipped."""
    return create_shipped_runs(len(get_cohort_sequences(cohort)))


def _create_shipped_rows(result: SegmentationResult) -> ResultRows:
    config, runs = result.config, result.runs
    patients = pd.concat(
        [tabulate_result(result), *evaluate_test_only_cohorts(runs, config)], ignore_index=True
    )
    test_only_names = [get_cohort_name(folder) for folder in config.test_only_cohorts]
    rows = pd.concat(
        [
            tabulate_runs(runs, patients, [runs[0].name], config.cohort_names[0]),
            *(tabulate_runs(runs, patients, (), name) for name in test_only_names),
        ]
    )
    return create_result_rows(result, rows, patients)


# the last row of each cohort is the shipped configuration
SHIPPED_TABLE: ResultTable[SegmentationRun, SegmentationFold] = ResultTable(
    name="segmentation",
    procedure=SegmentationProcedure(),
    list_runs=lambda _, sequences: create_shipped_runs(len(sequences)),
    create_rows=_create_shipped_rows,
    describe_run=describe_run,
    create_details=create_details,
    describe_reductions=describe_reductions,
    prepare=lambda config: check_compatible_cohorts(config, "joint"),
)
