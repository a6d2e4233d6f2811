"""Tables 4-2 to 4-6 and the marker comparison of chapter 4: csv files and plots from the scores of named runs.

The patients of fold k are scored by models that were not trained on them. Statistics are computed over the test
patients of all folds together, with intervals by bootstrap over patients (whole patients are drawn, with all their
slices). The threshold of a fold maximises Youden's index on its validation patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from gliomark.cohort.folds import load_cohort_folds
from gliomark.cohort.store import Cohort, write_json
from gliomark.evaluation.delong import compute_delong_test
from gliomark.evaluation.intervals import bootstrap_cluster_intervals
from gliomark.evaluation.metrics import auc, compute_threshold_metrics, compute_youden_threshold
from gliomark.experiments.config import ExperimentConfig
from gliomark.experiments.markers.network_training import (
    NetworkTrainingJob,
    load_marker_data,
    train_missing_networks,
)
from gliomark.experiments.markers.plots import (
    plot_figure_4_2,
    plot_figure_4_6,
    plot_figure_4_7,
    plot_figure_4_8,
)
from gliomark.experiments.markers.radiomics import compute_cohort_features
from gliomark.experiments.markers.runs import (
    ABLATION_SWITCHES,
    INPUT_CHANNELS,
    KINET_WITH_LIGHTGBM,
    PUBLISHED_4_2,
    PUBLISHED_4_3,
    PUBLISHED_4_4,
    PUBLISHED_4_5,
    PUBLISHED_4_6,
    MarkerRun,
    PublishedNumbers,
    ScoringMethod,
    format_input_name,
    get_marker_preset,
    list_comparison_methods,
    list_table_4_2_runs,
    list_table_4_3_methods,
    list_table_4_3_runs,
    list_table_4_4_methods,
    list_table_4_4_runs,
    list_table_4_5_methods,
    list_table_4_5_runs,
)
from gliomark.experiments.markers.scoring import TrainedMarkerRuns, fuse_patient_scores, score_slices
from gliomark.experiments.result_files import create_run_record, write_table
from gliomark.inference.fusion import FusionRule
from gliomark.training.recipes import MarkerDefinition, get_cohort_sequences

STATISTICS = ("accuracy", "sensitivity", "specificity", "auc", "kappa")
FUSION_RULES: tuple[FusionRule, ...] = ("all", "near", "large")


# ---- statistics ---------------------------------------------------------------------------------------


def apply_fold_thresholds(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the test rows with the threshold of their fold in a column ``threshold``.

    It maximises Youden's index on the fold's validation rows; 0.5 if these are all of one class.
    """
    thresholds = {}
    for fold, group in scores[scores["part"] == "validation"].groupby("fold"):
        both = group["label"].nunique() == 2
        thresholds[fold] = compute_youden_threshold(group["label"], group["probability"]) if both else 0.5
    test = scores[scores["part"] == "test"]
    return test.assign(threshold=test["fold"].map(thresholds).fillna(0.5))


def compute_statistics(test_scores: pd.DataFrame) -> dict[str, float]:
    """Compute accuracy, sensitivity, specificity, AUC and kappa with 95 % intervals.

    The first three are also given at a threshold of 0.5 (columns ``*_at_half``).
    """

    def compute_sample_statistics(label, probability, threshold) -> Mapping[str, float]:
        at_threshold_values = compute_threshold_metrics(label, probability, threshold)
        at_half_values = {
            f"{name}_at_half": v
            for name, v in compute_threshold_metrics(label, probability, 0.5).items()
            if name != "kappa"
        }
        return {**at_threshold_values, "auc": auc(label, probability), **at_half_values}

    columns = [test_scores[name].to_numpy() for name in ("label", "probability", "threshold")]
    intervals = bootstrap_cluster_intervals(compute_sample_statistics, test_scores["patient"], *columns)
    row: dict[str, float] = {}
    for name in STATISTICS:
        one = intervals[name]
        row |= {name: one.value, f"{name}_low_95": one.lower, f"{name}_high_95": one.upper}
    return row | {name: one.value for name, one in intervals.items() if name.endswith("_at_half")}


def summarise_scores(level: str, scores: pd.DataFrame) -> dict[str, float | str]:
    """Summarise scores in one table row: level, numbers of patients and rows, and the statistics."""
    test = apply_fold_thresholds(scores)
    patients = test.drop_duplicates("patient")
    counts: dict[str, float | str] = {
        "level": level,
        "patients": len(patients),
        "positive": int(patients["label"].sum()),
        "rows": len(test),
    }
    return counts | compute_statistics(test)


def compare_patient_auc(scores: pd.DataFrame, reference_scores: pd.DataFrame) -> dict[str, float]:
    """Compute the difference of two methods' AUC on their common test patients, and p by DeLong's test."""
    one, other = (t[t["part"] == "test"].set_index("patient") for t in (scores, reference_scores))
    both = one.index.intersection(other.index)
    test = compute_delong_test(
        one.loc[both, "label"], one.loc[both, "probability"], other.loc[both, "probability"]
    )
    return {"auc_above_first": test.difference.value, "delong_p": test.p}


def summarise_method(slice_scores: pd.DataFrame) -> dict[str, float | str]:
    """Summarise a method at slice level, as published, with its AUC at patient level (near) in further columns."""
    near = summarise_scores("near", fuse_patient_scores(slice_scores, "near"))
    near_statistics = {f"near_{name}": near[name] for name in ("auc", "auc_low_95", "auc_high_95")}
    return {
        "reading": slice_scores["reading"].iloc[0],
        **summarise_scores("slice", slice_scores),
        **near_statistics,
    }


def _add_published_numbers(
    table: pd.DataFrame, published_numbers: Mapping[str, PublishedNumbers], published_rows: Sequence[str]
) -> pd.DataFrame:
    """Add the published numbers in columns after ours; published_rows: key of the published row for each row."""
    for number, name in enumerate(STATISTICS):
        column = [
            published_numbers[k][number]
            if k in published_numbers and number < len(published_numbers[k])
            else np.nan
            for k in published_rows
        ]
        if np.isfinite(column).any():
            table.insert(table.columns.get_loc(f"{name}_high_95") + 1, f"published_{name}", column)
    return table


# ---- tables ---------------------------------------------------------------------------------------------


def run_table_4_2(config: ExperimentConfig, definition: MarkerDefinition) -> Path:
    """Write table 4-2: ResNet-50 on one sequence, with the slice (IMG), the lesion (ROI) or both (MIX); its path.

    Figure 4-2 is plotted too.
    """
    sequences = get_cohort_sequences(Cohort(config.cohort_folders[0]))
    trained_runs, records = _train_runs(
        list_table_4_2_runs(get_marker_preset(config.preset), sequences), config, definition
    )
    names = {format_input_name(sequence, shown): shown for sequence in sequences for shown in INPUT_CHANNELS}
    result, slices = _tabulate_methods([ScoringMethod(name, (name,)) for name in names], trained_runs)
    result = _add_published_numbers(result, PUBLISHED_4_2, list(names.values()))
    path = _write_result("table_4_2", result, slices, trained_runs, records, config)
    # the positive patient with the largest lesion; the plot shows patient images, so it is kept in the work folder
    areas = {
        p: max(s.slices.area_mm2) for p, s in trained_runs.data.lesion_slice_inputs.items() if s.label == 1
    }
    shown = max(areas, key=lambda patient: areas[patient])
    config.notify(
        str(plot_figure_4_2(trained_runs, shown, 3, config.work_folder / f"figure_4_2_{definition.name}.png"))
    )
    return path


def run_table_4_3(config: ExperimentConfig, definition: MarkerDefinition) -> Path:
    """Write table 4-3: ResNet-50 on two sequences with early, late and middle fusion; its path."""
    sequences = get_cohort_sequences(Cohort(config.cohort_folders[0]))
    trained_runs, records = _train_runs(
        list_table_4_3_runs(get_marker_preset(config.preset), sequences), config, definition
    )
    result, slices = _tabulate_methods(list_table_4_3_methods(sequences), trained_runs)
    result = _add_published_numbers(result, PUBLISHED_4_3, result["reading"].tolist())
    return _write_result("table_4_3", result, slices, trained_runs, records, config)


def run_table_4_4(config: ExperimentConfig, definition: MarkerDefinition) -> Path:
    """Write table 4-4: ResNet-50, ResNeSt-50, CentralNet, KiNet and lesion-pooled features; its path.

    Figures 4-6 and 4-7 are plotted too.
    """
    trained_runs, records = _train_runs(
        list_table_4_4_runs(get_marker_preset(config.preset)), config, definition
    )
    result, slices = _tabulate_methods(list_table_4_4_methods(), trained_runs)
    result = _add_published_numbers(result, PUBLISHED_4_4, result["reading"].tolist())
    result["million_parameters"] = [
        next(r["million_parameters"] for j, r in records.items() if j.run.name in reading.run_names)
        for reading in list_table_4_4_methods()
    ]
    path = _write_result("table_4_4", result, slices, trained_runs, records, config)
    weights = [r["fusion_weights"] for r in records.values() if r["fusion_weights"]]
    title = _format_plot_title(config, definition)
    config.notify(
        str(
            plot_figure_4_6(
                slices[slices["part"] == "test"], title, _get_plot_path(config, definition, "figure_4_6")
            )
        )
    )
    config.notify(
        str(
            plot_figure_4_7(
                np.array(weights),
                title,
                trained_runs.sequences,
                _get_plot_path(config, definition, "figure_4_7"),
            )
        )
    )
    return path


def run_table_4_5(config: ExperimentConfig, definition: MarkerDefinition) -> Path:
    """Write table 4-5: ablation of BMS loss, Merge-IN and clinical data; its path."""
    trained_runs, records = _train_runs(
        list_table_4_5_runs(get_marker_preset(config.preset)), config, definition
    )
    rows = list_table_4_5_methods()
    result, slices = _tabulate_methods(list(rows), trained_runs)
    for number, switch in enumerate(ABLATION_SWITCHES):
        result.insert(1 + number, switch, [switches[number] for switches in rows.values()])
    for number, name in enumerate(("accuracy", "auc")):
        column = [PUBLISHED_4_5[switches][number] for switches in rows.values()]
        result.insert(result.columns.get_loc(f"{name}_high_95") + 1, f"published_{name}", column)
    return _write_result("table_4_5", result, slices, trained_runs, records, config)


def run_table_4_6(config: ExperimentConfig, definition: MarkerDefinition) -> Path:
    """Write table 4-6: slice level, and patient level by the fusion rules all, near and large; its path.

    Figure 4-8 is plotted too.
    """
    runs = [
        t
        for t in list_table_4_4_runs(get_marker_preset(config.preset))
        if t.name in KINET_WITH_LIGHTGBM.run_names
    ]
    trained_runs, records = _train_runs(runs, config, definition)
    slices = score_slices(KINET_WITH_LIGHTGBM, trained_runs)
    by_rule = {rule: fuse_patient_scores(slices, rule) for rule in FUSION_RULES}
    rows = [
        summarise_scores("slice", slices),
        *(summarise_scores(rule, answers) for rule, answers in by_rule.items()),
    ]
    result = pd.DataFrame([{"reading": KINET_WITH_LIGHTGBM.name, **row} for row in rows])
    result = _add_published_numbers(result, PUBLISHED_4_6, result["level"].tolist())
    path = _write_result("table_4_6", result, slices, trained_runs, records, config)
    title = _format_plot_title(config, definition)
    tests = {str(rule): answers[answers["part"] == "test"] for rule, answers in by_rule.items()}
    config.notify(str(plot_figure_4_8(tests, title, _get_plot_path(config, definition, "figure_4_8"))))
    return path


def run_marker_comparison(config: ExperimentConfig, definition: MarkerDefinition) -> Path:
    """Write the comparison of methods at patient level (near); its path.

    Variants of KiNet's second stage, radiomics with LightGBM, and age and sex alone. Each is compared with the first
    by DeLong's test on their common patients.
    """
    methods = list_comparison_methods()
    runs = [
        t
        for t in list_table_4_4_runs(get_marker_preset(config.preset))
        if any(t.name in r.run_names for r in methods)
    ]
    features = compute_cohort_features(
        config.cohort_folders[0], config.work_folder, config.workers, config.notify
    )
    trained_runs, records = _train_runs(runs, config, definition, features)
    slices = [score_slices(reading, trained_runs) for reading in methods]
    answers = [fuse_patient_scores(one, "near") for one in slices]
    rows = [
        {"reading": reading.name, **summarise_scores("near", own), **compare_patient_auc(own, answers[0])}
        for reading, own in zip(methods, answers, strict=True)
    ]
    all_slices = pd.concat(slices, ignore_index=True)
    return _write_result("marker_rivals", pd.DataFrame(rows), all_slices, trained_runs, records, config)


# ---- shared by all tables ---------------------------------------------------------------------------------


def _train_runs(
    runs: Sequence[MarkerRun],
    config: ExperimentConfig,
    definition: MarkerDefinition,
    features: Mapping[str, np.ndarray] | None = None,
) -> tuple[TrainedMarkerRuns, dict[NetworkTrainingJob, dict]]:
    config.notify(f"preset {config.preset}: {get_marker_preset(config.preset).reductions}")
    records = train_missing_networks(runs, definition, config)
    data = load_marker_data(config.cohort_folders[0], definition)
    named = {trial.name: trial for trial in runs}
    return TrainedMarkerRuns(
        named, definition, config.cohort_folders[0], config.work_folder, data, features
    ), records


def _tabulate_methods(
    methods: Sequence[ScoringMethod], trained_runs: TrainedMarkerRuns
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score and summarise methods; the rows of the table, and the slice scores behind them."""
    slices = [score_slices(reading, trained_runs) for reading in methods]
    return pd.DataFrame([summarise_method(one) for one in slices]), pd.concat(slices, ignore_index=True)


def _get_plot_path(config: ExperimentConfig, definition: MarkerDefinition, name: str) -> Path:
    return config.output_folder / f"{name}_{definition.name}.png"


def _format_plot_title(config: ExperimentConfig, definition: MarkerDefinition) -> str:
    return f"{definition.title}, {config.cohort_names[0]}, preset {config.preset}"


def _write_result(
    name: str,
    result: pd.DataFrame,
    slice_scores: pd.DataFrame,
    trained_runs: TrainedMarkerRuns,
    records: Mapping[NetworkTrainingJob, dict],
    config: ExperimentConfig,
) -> Path:
    """Write a table, its patients (near) and its run record; marker, cohort and preset are columns of every row."""
    cohort = Cohort(config.cohort_folders[0])
    common_columns = {
        "marker": trained_runs.definition.name,
        "cohort": config.cohort_names[0],
        "sequences": "+".join(trained_runs.sequences),
        "folds": len(trained_runs.data.folds.folds),
        "preset": config.preset,
        "cuts": get_marker_preset(config.preset).reductions,
    }
    stem = f"{name}_{trained_runs.definition.name}"
    write_table(result.assign(**common_columns), config.output_folder / f"{stem}.csv")
    patients = fuse_patient_scores(slice_scores[slice_scores["part"] == "test"], "near").drop(columns="part")
    write_table(patients, config.output_folder / f"{stem}_patients.csv")
    record = create_run_record(
        name,
        **common_columns,
        definition=asdict(trained_runs.definition),
        folds_sha256=load_cohort_folds(cohort).sha256,
        trials=[asdict(trial) for trial in trained_runs.runs.values()],
        training_seconds=sum(r["seconds"] for r in records.values()),
        networks=[
            {"trial": j.run.name, "left_out": [n + 1 for n in j.excluded_folds]}
            | {k: v for k, v in r.items() if k != "key"}
            for j, r in records.items()
        ],
        splits=[asdict(trained_runs.split_fold(None, n)) for n in range(len(trained_runs.data.folds.folds))],
    )
    write_json(config.output_folder / f"{stem}_run_record.json", record)
    return config.output_folder / f"{stem}.csv"
