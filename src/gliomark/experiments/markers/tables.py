"""Tables 4-2 to 4-6 and the rivals of chapter 4: from the readings of named trials to csv files and figures.

Fold k's patients are answered by what never saw them; figures are over all folds' test patients together, with
intervals by bootstrap over patients (whole patients are drawn, with all their slices). A fold's threshold is Youden's
on its validation patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from gliomark.cohort.folds import cohort_folds
from gliomark.cohort.store import Cohort, write_json
from gliomark.evaluation.delong import delong_test
from gliomark.evaluation.intervals import cluster_bootstrap
from gliomark.evaluation.metrics import at_threshold, auc, youden_threshold
from gliomark.experiments.markers.figures import figure_4_2, figure_4_6, figure_4_7, figure_4_8
from gliomark.experiments.markers.radiomics import cohort_features
from gliomark.experiments.markers.readings import MarkerStudy, patient_answers, read
from gliomark.experiments.markers.study import NetworkJob, marker_data, run_networks
from gliomark.experiments.markers.trials import (
    FULL,
    INPUTS,
    PUBLISHED_4_2,
    PUBLISHED_4_3,
    PUBLISHED_4_4,
    PUBLISHED_4_5,
    PUBLISHED_4_6,
    SWITCHES,
    MarkerTrial,
    Published,
    Reading,
    input_name,
    marker_preset,
    readings_4_3,
    readings_4_4,
    readings_4_5,
    readings_rivals,
    trials_4_2,
    trials_4_3,
    trials_4_4,
    trials_4_5,
)
from gliomark.experiments.place import Place
from gliomark.experiments.records import run_record, write_table
from gliomark.inference.fusion import FusionRule
from gliomark.training.recipes import MarkerDefinition, cohort_sequences

FIGURES = ("accuracy", "sensitivity", "specificity", "auc", "kappa")
FUSIONS: tuple[FusionRule, ...] = ("all", "near", "large")


# ---- from slices to figures ---------------------------------------------------------------------------


def judged(answers: pd.DataFrame) -> pd.DataFrame:
    """The test rows, each with its fold's threshold: Youden's on the fold's validation rows, 0.5 where they are of
    one class alone."""
    thresholds = {}
    for fold, group in answers[answers["part"] == "validation"].groupby("fold"):
        both = group["label"].nunique() == 2
        thresholds[fold] = youden_threshold(group["label"], group["probability"]) if both else 0.5
    test = answers[answers["part"] == "test"]
    return test.assign(threshold=test["fold"].map(thresholds).fillna(0.5))


def figures(test: pd.DataFrame) -> dict[str, float]:
    """Accuracy, sensitivity, specificity, AUC and kappa with their intervals, and the first three at 0.5 beside."""

    def statistic(label, probability, threshold) -> Mapping[str, float]:
        at = at_threshold(label, probability, threshold)
        half = {
            f"{name}_at_half": v
            for name, v in at_threshold(label, probability, 0.5).items()
            if name != "kappa"
        }
        return {**at, "auc": auc(label, probability), **half}

    columns = [test[name].to_numpy() for name in ("label", "probability", "threshold")]
    found = cluster_bootstrap(statistic, test["patient"], *columns)
    row: dict[str, float] = {}
    for name in FIGURES:
        one = found[name]
        row |= {name: one.value, f"{name}_low_95": one.low, f"{name}_high_95": one.high}
    return row | {name: one.value for name, one in found.items() if name.endswith("_at_half")}


def counted(level: str, answers: pd.DataFrame) -> dict[str, float | str]:
    """A row: at which level, how many, and the figures."""
    test = judged(answers)
    patients = test.drop_duplicates("patient")
    head: dict[str, float | str] = {
        "level": level,
        "patients": len(patients),
        "positive": int(patients["label"].sum()),
        "rows": len(test),
    }
    return head | figures(test)


def against(own: pd.DataFrame, first: pd.DataFrame) -> dict[str, float]:
    """The difference of two readings' patient-level AUC on their common test patients, and DeLong's p."""
    one, other = (t[t["part"] == "test"].set_index("patient") for t in (own, first))
    both = one.index.intersection(other.index)
    test = delong_test(one.loc[both, "label"], one.loc[both, "probability"], other.loc[both, "probability"])
    return {"auc_above_first": test.difference.value, "delong_p": test.p}


def reading_row(slices: pd.DataFrame) -> dict[str, float | str]:
    """A reading at slice level, as published, and its AUC of patients by Near beside."""
    near = counted("near", patient_answers(slices, "near"))
    beside = {f"near_{name}": near[name] for name in ("auc", "auc_low_95", "auc_high_95")}
    return {"reading": slices["reading"].iloc[0], **counted("slice", slices), **beside}


def _published(table: pd.DataFrame, figures_of: Mapping[str, Published], key: Sequence[str]) -> pd.DataFrame:
    """The published figures, each in a column of its own behind ours. key: which published row stands for each row."""
    for number, name in enumerate(FIGURES):
        column = [
            figures_of[k][number] if k in figures_of and number < len(figures_of[k]) else np.nan for k in key
        ]
        if np.isfinite(column).any():
            table.insert(table.columns.get_loc(f"{name}_high_95") + 1, f"published_{name}", column)
    return table


# ---- the tables -----------------------------------------------------------------------------------------


def run_table_4_2(place: Place, definition: MarkerDefinition) -> Path:
    """One sequence by ResNet-50: the slice (IMG), the lesion alone (ROI), both (MIX)."""
    sequences = cohort_sequences(Cohort(place.cohorts[0]))
    study, records = _train(trials_4_2(marker_preset(place.preset), sequences), place, definition)
    names = {input_name(sequence, shown): shown for sequence in sequences for shown in INPUTS}
    result, slices = _table([Reading(name, (name,)) for name in names], study)
    result = _published(result, PUBLISHED_4_2, list(names.values()))
    path = _write("table_4_2", result, slices, study, records, place)
    # shows a patient, so it stays beside the work: the positive with the largest lesion
    areas = {p: max(s.slices.area_mm2) for p, s in study.data.shown.items() if s.label == 1}
    shown = max(areas, key=lambda patient: areas[patient])
    place.say(str(figure_4_2(study, shown, 3, place.work / f"figure_4_2_{definition.name}.png")))
    return path


def run_table_4_3(place: Place, definition: MarkerDefinition) -> Path:
    """Two sequences by ResNet-50: early, late and middle fusion."""
    sequences = cohort_sequences(Cohort(place.cohorts[0]))
    study, records = _train(trials_4_3(marker_preset(place.preset), sequences), place, definition)
    result, slices = _table(readings_4_3(sequences), study)
    result = _published(result, PUBLISHED_4_3, result["reading"].tolist())
    return _write("table_4_3", result, slices, study, records, place)


def run_table_4_4(place: Place, definition: MarkerDefinition) -> Path:
    """ResNet-50, ResNeSt-50, CentralNet, KiNet, and a light KiNet; figures 4-6 and 4-7."""
    study, records = _train(trials_4_4(marker_preset(place.preset)), place, definition)
    result, slices = _table(readings_4_4(), study)
    result = _published(result, PUBLISHED_4_4, result["reading"].tolist())
    result["million_parameters"] = [
        next(r["million_parameters"] for j, r in records.items() if j.trial.name in reading.of)
        for reading in readings_4_4()
    ]
    path = _write("table_4_4", result, slices, study, records, place)
    weights = [r["fusion_weights"] for r in records.values() if r["fusion_weights"]]
    title = _title(place, definition)
    place.say(
        str(figure_4_6(slices[slices["part"] == "test"], title, _figure(place, definition, "figure_4_6")))
    )
    place.say(
        str(figure_4_7(np.array(weights), title, study.sequences, _figure(place, definition, "figure_4_7")))
    )
    return path


def run_table_4_5(place: Place, definition: MarkerDefinition) -> Path:
    """The BMS loss, Merge-IN and the metadata, each on and off."""
    study, records = _train(trials_4_5(marker_preset(place.preset)), place, definition)
    rows = readings_4_5()
    result, slices = _table(list(rows), study)
    for number, switch in enumerate(SWITCHES):
        result.insert(1 + number, switch, [switches[number] for switches in rows.values()])
    for number, name in enumerate(("accuracy", "auc")):
        column = [PUBLISHED_4_5[switches][number] for switches in rows.values()]
        result.insert(result.columns.get_loc(f"{name}_high_95") + 1, f"published_{name}", column)
    return _write("table_4_5", result, slices, study, records, place)


def run_table_4_6(place: Place, definition: MarkerDefinition) -> Path:
    """Slices, and patients by All, Near and Large; figure 4-8."""
    trials = [t for t in trials_4_4(marker_preset(place.preset)) if t.name in FULL.of]
    study, records = _train(trials, place, definition)
    slices = read(FULL, study)
    by_rule = {rule: patient_answers(slices, rule) for rule in FUSIONS}
    rows = [counted("slice", slices), *(counted(rule, answers) for rule, answers in by_rule.items())]
    result = pd.DataFrame([{"reading": FULL.name, **row} for row in rows])
    result = _published(result, PUBLISHED_4_6, result["level"].tolist())
    path = _write("table_4_6", result, slices, study, records, place)
    title = _title(place, definition)
    tests = {str(rule): answers[answers["part"] == "test"] for rule, answers in by_rule.items()}
    place.say(str(figure_4_8(tests, title, _figure(place, definition, "figure_4_8"))))
    return path


def run_rivals(place: Place, definition: MarkerDefinition) -> Path:
    """Patients by Near: KiNet's second stage in all its forms, radiomics with LightGBM, age and sex alone.

    Each is compared with the first by DeLong's test on the patients of both.
    """
    readings = readings_rivals()
    trials = [t for t in trials_4_4(marker_preset(place.preset)) if any(t.name in r.of for r in readings)]
    features = cohort_features(place.cohorts[0], place.work, place.workers, place.say)
    study, records = _train(trials, place, definition, features)
    slices = [read(reading, study) for reading in readings]
    answers = [patient_answers(one, "near") for one in slices]
    rows = [
        {"reading": reading.name, **counted("near", own), **against(own, answers[0])}
        for reading, own in zip(readings, answers, strict=True)
    ]
    together = pd.concat(slices, ignore_index=True)
    return _write("marker_rivals", pd.DataFrame(rows), together, study, records, place)


# ---- what all of them do ----------------------------------------------------------------------------------


def _train(
    trials: Sequence[MarkerTrial],
    place: Place,
    definition: MarkerDefinition,
    features: Mapping[str, np.ndarray] | None = None,
) -> tuple[MarkerStudy, dict[NetworkJob, dict]]:
    place.say(f"preset {place.preset}: {marker_preset(place.preset).cuts}")
    records = run_networks(trials, definition, place)
    data = marker_data(place.cohorts[0], definition)
    named = {trial.name: trial for trial in trials}
    return MarkerStudy(named, definition, place.cohorts[0], place.work, data, features), records


def _table(readings: Sequence[Reading], study: MarkerStudy) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The figures, and the slices behind them."""
    slices = [read(reading, study) for reading in readings]
    return pd.DataFrame([reading_row(one) for one in slices]), pd.concat(slices, ignore_index=True)


def _figure(place: Place, definition: MarkerDefinition, name: str) -> Path:
    return place.out / f"{name}_{definition.name}.png"


def _title(place: Place, definition: MarkerDefinition) -> str:
    return f"{definition.title}, {place.names[0]}, preset {place.preset}"


def _write(
    name: str,
    result: pd.DataFrame,
    slices: pd.DataFrame,
    study: MarkerStudy,
    records: Mapping[NetworkJob, dict],
    place: Place,
) -> Path:
    """The table, its patients (Near) and its run record; every row says of which marker, where and how."""
    cohort = Cohort(place.cohorts[0])
    said = {
        "marker": study.definition.name,
        "cohort": place.names[0],
        "sequences": "+".join(study.sequences),
        "folds": len(study.data.folds.folds),
        "preset": place.preset,
        "cuts": marker_preset(place.preset).cuts,
    }
    stem = f"{name}_{study.definition.name}"
    write_table(result.assign(**said), place.out / f"{stem}.csv")
    patients = patient_answers(slices[slices["part"] == "test"], "near").drop(columns="part")
    write_table(patients, place.out / f"{stem}_patients.csv")
    record = run_record(
        name,
        **said,
        definition=asdict(study.definition),
        folds_sha256=cohort_folds(cohort).sha256,
        trials=[asdict(trial) for trial in study.trials.values()],
        training_seconds=sum(r["seconds"] for r in records.values()),
        networks=[
            {"trial": j.trial.name, "left_out": [n + 1 for n in j.left_out]}
            | {k: v for k, v in r.items() if k != "key"}
            for j, r in records.items()
        ],
        splits=[asdict(study.split(None, n)) for n in range(len(study.data.folds.folds))],
    )
    write_json(place.out / f"{stem}_run_record.json", record)
    return place.out / f"{stem}.csv"
