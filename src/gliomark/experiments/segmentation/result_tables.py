"""Tables 3-1, 3-2 and 3-3 and the extensions of the published study: csv files from the folds of named runs."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import wilcoxon
from torch.utils.flop_counter import FlopCounterMode

from gliomark.cohort.folds import FOLD_COUNT, load_cohort_folds
from gliomark.cohort.store import Cohort, write_json
from gliomark.errors import CohortError, ConfigurationError
from gliomark.evaluation.intervals import bootstrap_interval
from gliomark.evaluation.metrics import auc
from gliomark.experiments.config import ExperimentConfig, get_cohort_name
from gliomark.experiments.result_files import create_run_record, write_table
from gliomark.experiments.segmentation.fold_training import (
    FoldTrainingJob,
    SegmentationRun,
    create_fold_key,
    create_run_segmenter,
    evaluate_patient,
    execute_runs,
    list_patients_with_mask,
)
from gliomark.experiments.segmentation.plots import (
    compute_mean_prior,
    plot_figure_3_1,
    plot_segmentation_figures,
)
from gliomark.experiments.segmentation.runs import (
    MIGNET,
    PUBLISHED_3_1,
    PUBLISHED_3_2,
    PUBLISHED_3_3,
    SWIN_UNET,
    create_shipped_runs,
    describe_reductions,
    get_segmentation_preset,
    list_design_choice_runs,
    list_extension_runs,
    list_table_3_1_runs,
    list_table_3_2_runs,
    list_table_3_3_runs,
)
from gliomark.inference.segmenter import select_sequences
from gliomark.models.registry import build_segmentation_network
from gliomark.models.weights import load_weights
from gliomark.training.recipes import get_cohort_sequences
from gliomark.training.segmentation import SegmentationTrainingConfig

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


def tabulate_patients(records: Sequence[dict], cohort_names: Sequence[str]) -> pd.DataFrame:
    """Tabulate scores: one row per run, tested cohort and patient.

    On slices without lesion, false_area is the mean share of the brain that is segmented, and small_false_area the
    share of these slices with less than 1 % of the brain segmented.
    """
    rows = []
    for record in records:
        for row in record["patients"]:
            lesion_free_shares = np.array(row["lesion_free"])
            rows.append(
                {
                    "trial": record["key"]["trial"]["name"],
                    "tested_on": cohort_names[row["cohort"]],
                    "fold": record["key"]["fold"],
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

    comparison_runs: names of the runs of which each run is compared with the other that has the best mean Dice.
    """
    cohort_table = patient_table[patient_table["tested_on"] == tested_on]
    own = {trial.name: cohort_table[cohort_table["trial"] == trial.name] for trial in runs}
    statistics = {name: summarise_patients(part) for name, part in own.items()}
    rows = []
    for trial in runs:
        others = [name for name in comparison_runs if name != trial.name]
        row = {"trial": trial.name, "tested_on": tested_on, **statistics[trial.name]}
        if others:
            best = max(others, key=lambda name: statistics[name]["dice"])
            row |= {"compared_with": best, **compare_paired_dice(own[trial.name], own[best])}
        rows.append({**row, **measure_network_cost(trial.training, trial.pooling_factor)})
    return pd.DataFrame(rows)


def run_table_3_1(config: ExperimentConfig) -> Path:
    """Write table 3-1 and its figures; the path of the table.

    MIG-Net is compared with U-Net, TransUNet, Swin-UNet, Attention U-Net and nnU-Net 2-D.
    """
    runs = list_table_3_1_runs(get_segmentation_preset(config.preset))
    patients, records = _execute_runs(runs, config)
    result = tabulate_runs(runs, patients, [t.name for t in runs if t.name != MIGNET], config.cohort_names[0])
    dice, distance = (
        result["trial"].map(lambda n, i=i: PUBLISHED_3_1.get(n, (np.nan,) * 2)[i]) for i in (0, 1)
    )
    result.insert(2, "published_dice", dice / 100)
    result.insert(3, "published_hausdorff", distance)
    path = _write_result("table_3_1", runs, result, patients, records, config)
    for figure in plot_segmentation_figures(
        runs[-1], runs, config.cohort_folders[0], patients, config.output_folder
    ):
        config.notify(str(figure))
    return path


def run_table_3_2(config: ExperimentConfig) -> Path:
    """Write table 3-2, the ablation of FPG, guidance and IAG; its path."""
    runs = list_table_3_2_runs(get_segmentation_preset(config.preset))
    patients, records = _execute_runs(runs, config)
    result = tabulate_runs(runs, patients, [SWIN_UNET], config.cohort_names[0])
    result.insert(2, "published_dice", result["trial"].map(PUBLISHED_3_2) / 100)
    for number, switch in enumerate(("fpg", "guidance", "iag")):
        result.insert(1 + number, switch, [getattr(t.training.network, switch) for t in runs])
    return _write_result("table_3_2", runs, result, patients, records, config)


def _execute_runs(
    runs: Sequence[SegmentationRun], config: ExperimentConfig, fold_count: int = 0
) -> tuple[pd.DataFrame, list[dict]]:
    config.notify(f"preset {config.preset}: {describe_reductions(config.preset)}")
    records = execute_runs(
        runs,
        config.cohort_folders,
        config.work_folder,
        config.notify,
        config.workers,
        config.scheduler,
        fold_count,
    )
    return tabulate_patients(records, config.cohort_names), records


def _write_result(
    name: str,
    runs: Sequence[SegmentationRun],
    result: pd.DataFrame,
    patient_table: pd.DataFrame,
    records: Sequence[dict],
    config: ExperimentConfig,
) -> Path:
    """Write a table, its patients and its run record; its path.

    Preset and sequences (those of the first run) are columns of every row.
    """
    prepared = get_cohort_sequences(Cohort(config.cohort_folders[0]))
    common_columns = {
        "folds": len({r["key"]["fold"] for r in records}),
        "preset": config.preset,
        "cuts": describe_reductions(config.preset),
        "sequences": "+".join(select_sequences(prepared, runs[0].rule)),
    }
    timed_records = [r for r in records if r["slices_per_second"] > 0]
    by_trial = {t.name: [r for r in timed_records if r["key"]["trial"]["name"] == t.name] for t in runs}
    for column in ("slices_per_second", "waiting_share"):
        means = {n: np.mean([r[column] for r in part]) if part else np.nan for n, part in by_trial.items()}
        result[f"training_{column}"] = result["trial"].map(means)
    write_table(result.assign(**common_columns), config.output_folder / f"{name}.csv")
    write_table(patient_table, config.output_folder / f"{name}_patients.csv")
    record = create_run_record(
        name,
        **common_columns
        | {
            "cohorts": config.cohort_names,
            "folds_sha256": [load_cohort_folds(Cohort(folder)).sha256 for folder in config.cohort_folders],
            "trials": [asdict(trial) for trial in runs],
            "training_seconds": sum(r["seconds"] for r in records),
            "folds": [
                {k: v for k, v in r.items() if k not in ("patients", "key")} | _identify_fold(r)
                for r in records
            ],
            "splits": [r["key"]["splits"] for r in records if r["key"]["trial"]["name"] == runs[0].name],
        },
    )
    write_json(config.output_folder / f"{name}_run_record.json", record)
    return config.output_folder / f"{name}.csv"


def _identify_fold(record: dict) -> dict:
    return {"trial": record["key"]["trial"]["name"], "fold": record["key"]["fold"]}


def run_table_3_3(config: ExperimentConfig, test_only_cohorts: Sequence[Path] = ()) -> Path:
    """Write table 3-3: MIG-Net trained on one cohort, on the other and on both, tested on either; its path.

    The networks of fold k are tested on fold k of both cohorts, so that every patient is tested once per run.
    test_only_cohorts: folders of cohorts that are not trained on; they are tested by the networks of the first fold.

    Raises
    ------
    ConfigurationError
        If the second cohort is missing.
    CohortError
        If two cohorts have the same name or different sequences, or a cohort has no masks.
    """
    if len(config.cohort_folders) != 2:
        raise ConfigurationError("Table 3-3 needs two cohorts; give the other one with --second-cohort.")
    setting = get_segmentation_preset(config.preset)
    _check_compatible_cohorts(config, test_only_cohorts, setting.rule)
    own, *runs = list_table_3_3_runs(setting)
    # alone, as table 3-1 has it: its folds are the same
    execute_runs(
        [own], config.cohort_folders[:1], config.work_folder, config.notify, config.workers, config.scheduler
    )
    patients, records = _execute_runs(runs, config)
    patients = pd.concat(
        [patients, *_evaluate_test_only_cohorts(runs, config, test_only_cohorts)], ignore_index=True
    )
    tested = [*config.cohort_names, *map(get_cohort_name, test_only_cohorts)]
    result = pd.concat([tabulate_runs(runs, patients, (), name) for name in tested], ignore_index=True)
    trained_on = dict(zip([t.name for t in runs], ("own", "other", "both"), strict=True))
    cohort_roles = dict(zip(config.cohort_names, ("own", "other"), strict=True))
    published = [
        PUBLISHED_3_3.get((trained_on[trial], cohort_roles.get(name, "")), np.nan) / 100
        for trial, name in zip(result["trial"], result["tested_on"], strict=True)
    ]
    result.insert(2, "published_dice", published)
    path = _write_result("table_3_3", runs, result, patients, records, config)
    jobs = [
        [FoldTrainingJob(t, k, config.cohort_folders, config.work_folder) for k in range(FOLD_COUNT)]
        for t in (own, runs[1])
    ]
    priors = {name: compute_mean_prior(one) for name, one in zip(config.cohort_names, jobs, strict=True)}
    config.notify(str(plot_figure_3_1(priors, config.output_folder / "figure_3_1_cohorts.png")))
    return path


def _check_compatible_cohorts(config: ExperimentConfig, test_only_cohorts: Sequence[Path], rule: str) -> None:
    """Raise CohortError if cohorts have the same name, different sequences or no masks."""
    folders = (*config.cohort_folders, *test_only_cohorts)
    names = [get_cohort_name(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise CohortError(f"Two of the cohorts have the same name ({', '.join(names)}); rename a folder.")
    for folder in folders:
        list_patients_with_mask(Cohort(folder))
    sequences_by_cohort = [select_sequences(get_cohort_sequences(Cohort(folder)), rule) for folder in folders]
    if len(set(sequences_by_cohort)) > 1:
        raise CohortError(
            f"The cohorts were prepared for different sequences ({'; '.join('+'.join(s) for s in sequences_by_cohort)}); "
            "build them with the same --sequences."
        )


def _evaluate_test_only_cohorts(
    runs: Sequence[SegmentationRun], config: ExperimentConfig, test_only_cohorts: Sequence[Path]
) -> Iterator[pd.DataFrame]:
    """Evaluate the networks of the first fold on cohorts that are not trained on."""
    for trial, folder in product(runs, test_only_cohorts):
        job, cohort = FoldTrainingJob(trial, 0, config.cohort_folders, config.work_folder), Cohort(folder)
        segmenter = create_run_segmenter(trial, load_weights(job.get_weights_path(trial.weights_of)))
        rows = [
            {"cohort": 0, "patient": p, **evaluate_patient(segmenter, cohort, p)}
            for p in list_patients_with_mask(cohort)
        ]
        yield tabulate_patients([{"key": create_fold_key(job), "patients": rows}], [get_cohort_name(folder)])


def run_segmentation_extensions(config: ExperimentConfig) -> Path:
    """Write the extensions of the published study, each a named change with its own row; the path of the table."""
    sequences = get_cohort_sequences(Cohort(config.cohort_folders[0]))
    setting = get_segmentation_preset(config.preset)
    runs = [*list_extension_runs(setting, sequences), *list_design_choice_runs(setting)[1:]]
    patients, records = _execute_runs(runs, config, setting.extension_folds)
    result = tabulate_runs(runs, patients, [runs[0].name], config.cohort_names[0])
    result.insert(1, "rule", [trial.rule for trial in runs])
    return _write_result("segmentation_beyond", runs, result, patients, records, config)


def list_shipped_runs(cohort: Cohort) -> list[SegmentationRun]:
    """List the runs of the demonstration recipe for a cohort; the last one is shipped."""
    return create_shipped_runs(len(get_cohort_sequences(cohort)))


def run_shipped_recipe(config: ExperimentConfig, test_only_cohorts: Sequence[Path] = ()) -> pd.DataFrame:
    """Evaluate the demonstration recipe in five folds, write ``segmentation.csv`` and return the table.

    The last row of each cohort is the shipped configuration. test_only_cohorts: folders of cohorts that are not trained
    on; they are tested by the network of the first fold.

    Raises
    ------
    CohortError
        If two cohorts have the same name or different sequences, or a cohort has no masks.
    """
    runs = list_shipped_runs(Cohort(config.cohort_folders[0]))
    _check_compatible_cohorts(config, test_only_cohorts, runs[0].rule)
    patients, records = _execute_runs(runs, config)
    patients = pd.concat(
        [patients, *_evaluate_test_only_cohorts(runs, config, test_only_cohorts)], ignore_index=True
    )
    own = tabulate_runs(runs, patients, [runs[0].name], config.cohort_names[0])
    result = pd.concat(
        [own, *(tabulate_runs(runs, patients, (), name) for name in map(get_cohort_name, test_only_cohorts))]
    )
    _write_result("segmentation", runs, result, patients, records, config)
    return result
