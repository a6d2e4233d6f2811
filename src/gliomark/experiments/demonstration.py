"""The demonstration weights and their figures, on TCGA-LGG.

The outline's recipe is judged in five folds by patient, then trained once more on everybody: that network is
shipped. The markers are trained on the development patients and tested on the rest, whose outlines come from
the fold that never saw them. Everything a step finished is kept under ``OUT/work`` and not done again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gliomark.cohort.folds import FOLDS, Folds, check_disjoint, cohort_folds
from gliomark.cohort.store import Cohort, write_json
from gliomark.evaluation.intervals import bootstrap
from gliomark.evaluation.metrics import at_threshold, auc
from gliomark.experiments.records import commit, device, kept_fold, write_table
from gliomark.experiments.segmentation_study import FoldJob, Trial, outlined, trial_segmenter
from gliomark.experiments.segmentation_tables import Place, run_shipped, shipped_trials
from gliomark.inference.fusion import FusionRule
from gliomark.models.weights import MarkerCard, Weights, load_weights, save_weights
from gliomark.training.recipes import (
    DEFINITIONS,
    TrainedMarker,
    cohort_sequences,
    marker_settings,
    save_model,
    segmentation_card,
    segmentation_tensors,
    train_marker,
)
from gliomark.training.segmentation import train_segmentation
from gliomark.training.slice_bank import load_bank
from gliomark.training.stacking import PatientVectors, patient_vectors

NAME = "demonstration"
COHORT = "TCGA-LGG with the FLAIR-abnormality masks of Buda et al. 2019"
LICENCE = (
    "CC BY-NC-SA 4.0 (non-commercial, share-alike), inherited from the training masks; "
    "images TCIA TCGA-LGG, CC BY 3.0"
)
USE = (
    "demonstration and research only; not a medical device; trained on lower-grade glioma with T1C and FLAIR"
)
MARKER_EPOCHS = 12
MARKERS = ("idh", "proliferation")
FUSIONS: tuple[FusionRule, ...] = ("near", "all", "large")


def run(place: Place, also: Sequence[Path] = ()) -> None:
    """Train what is not trained yet, test, and write weights, tables and run record under the place's folder.

    also: cohorts that nobody trains on, outlined besides.
    """
    started = time.time()
    (folder,), out, say = place.cohorts, place.out, place.say
    cohort = Cohort(folder)
    folds, trials = cohort_folds(cohort), shipped_trials(cohort)
    summary = run_shipped(place, also)
    say(summary.to_string(index=False))
    network = _network(trials[-1], cohort, folds, out / "work")
    say("the outline's network is trained on everybody")
    masks = _test_outlines(FoldJob(trials[-1], FOLDS - 1, place.cohorts, out / "work"), cohort, folds)
    trained = {name: _marker(name, cohort, folds, out / "work") for name in MARKERS}
    tables = [_marker_table(marker, cohort, folds, masks) for marker in trained.values()]
    patients, markers = (pd.concat(parts) for parts in zip(*tables, strict=True))
    write_table(patients, out / "markers_patients.csv")
    write_table(markers, out / "markers.csv")
    say(markers.to_string(index=False))
    weights = out / f"{NAME}.safetensors"
    _save(weights, network, summary, markers, trained)
    _write_record(out / "run_record.json", cohort, folds, weights, time.time() - started)


def _network(trial: Trial, cohort: Cohort, folds: Folds, work: Path) -> Weights:
    """The trial's network, trained on everybody who has an outline for the recipe's number of epochs.

    Raises GliomarkError where ``work`` holds one of another recipe or other patients.
    """
    path, settings, drawn = work / "shipped.safetensors", trial.training, outlined(cohort)
    record = path.with_suffix(".json")
    key = json.loads(json.dumps({"trial": asdict(trial), "patients": drawn}))
    if kept_fold(record, key) is None:
        write_json(work / "shipped" / "key.json", {"key": key})
        sequences = cohort_sequences(cohort)
        bank = load_bank(cohort, drawn, sequences, trial.rule == "joint", settings.pool, settings.context)
        trained = train_segmentation(bank, settings, work / "shipped")
        card = segmentation_card(
            "shipped", cohort, folds, drawn, trial.rule, settings, trial.flips, trial.smallest_share
        )
        save_weights(path, card, segmentation_tensors(trained.network, trained.prior))
        write_json(record, {"key": key})
    return load_weights(path)


def _test_outlines(job: FoldJob, cohort: Cohort, folds: Folds) -> dict[str, NDArray[np.bool_]]:
    """The test patients' outlines by the fold that tested on them. Raises GliomarkError if it was trained on one."""
    weights = load_weights(job.weights_path(job.trial.weights_of))
    check_disjoint({"trained on": weights.card.training_patients, "tested on": folds.test})
    segmenter = trial_segmenter(job.trial, weights)
    both = [p for p in folds.test if set(segmenter.sequences) <= set(cohort.sequences(p))]
    return {patient: segmenter.segment(cohort.stack(patient)).mask for patient in both}


def _marker(name: str, cohort: Cohort, folds: Folds, work: Path) -> TrainedMarker:
    return train_marker(
        cohort, folds, DEFINITIONS[name], marker_settings("small", MARKER_EPOCHS), work / "markers"
    )


def _marker_table(
    marker: TrainedMarker, cohort: Cohort, folds: Folds, masks: Mapping[str, NDArray[np.bool_]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Per patient and in summary: test patients on drawn and on predicted outlines, KiNet alone in five folds."""
    classifier, labels = marker.classifier, marker.labels
    test = [patient for patient in folds.test if patient in labels]
    sequences, crop = cohort_sequences(cohort), classifier.crop
    scored: dict[tuple[str, str], Mapping[str, PatientVectors]] = {
        ("test", "drawn"): patient_vectors(
            classifier.network, cohort, labels, test, marker.trained_on, sequences, crop
        ),
        ("test", "predicted"): patient_vectors(
            classifier.network, cohort, labels, test, marker.trained_on, sequences, crop, masks
        ),
        ("five folds", "drawn"): marker.out_of_fold,
    }  # fmt: skip
    rows = []
    for (part, outline), patients in scored.items():
        for patient, vectors in patients.items():
            for fusion in FUSIONS:
                if part == "test":
                    stacked = vectors.stacked_probability(
                        classifier.trees, classifier.age_cut, fusion, classifier.evidence
                    )
                    rows.append((part, outline, "KiNet + LightGBM", fusion, patient, vectors.label, stacked))
                alone = vectors.network_probability(fusion)
                rows.append((part, outline, "KiNet alone", fusion, patient, vectors.label, alone))
    for evidence, judged in marker.development.items():
        for patient, label, probability in zip(*judged.values(), strict=True):
            rows.append(
                ("development", "drawn", f"LightGBM on {evidence}", "near", patient, label, probability)
            )
    rows += _clinical_alone(marker, scored["test", "drawn"])
    columns = ["part", "outline", "stage", "fusion", "patient", "label", "probability"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(0, "marker", marker.definition.name)
    return table, _marker_summary(table, marker.threshold)


def _clinical_alone(marker: TrainedMarker, test: Mapping[str, PatientVectors]) -> list[tuple]:
    """What age and sex alone say (logistic regression on the development patients): the bar for any image."""

    def columns(patients: Mapping[str, PatientVectors]) -> list[tuple[float, float]]:
        age_cut = marker.classifier.age_cut or 0.0
        return [
            (age_cut if v.clinical.age is None else v.clinical.age, v.clinical.sex or 0)
            for v in patients.values()
        ]

    model = make_pipeline(StandardScaler(), LogisticRegression())
    model.fit(columns(marker.out_of_fold), [v.label for v in marker.out_of_fold.values()])
    probability = model.predict_proba(columns(test))[:, 1]
    return [
        ("test", "none", "age and sex alone", "none", patient, v.label, p)
        for (patient, v), p in zip(test.items(), probability, strict=True)
    ]


def _marker_summary(table: pd.DataFrame, threshold: float) -> pd.DataFrame:
    rows = []
    keys = ["marker", "part", "outline", "stage", "fusion"]
    for key, group in table.groupby(keys, sort=False):
        value, low, high = bootstrap(auc, group["label"], group["probability"])
        row = dict(zip(keys, key, strict=True))
        row |= {
            "patients": len(group),
            "positive": int(group["label"].sum()),
            "auc": value,
            "low_95": low,
            "high_95": high,
        }
        cut = threshold if "LightGBM" in row["stage"] else 0.5
        rows.append(row | {"threshold": cut} | at_threshold(group["label"], group["probability"], cut))
    return pd.DataFrame(rows)


def _save(
    path: Path,
    network: Weights,
    segmentation: pd.DataFrame,
    markers: pd.DataFrame,
    trained: Mapping[str, TrainedMarker],
) -> None:
    """The shipped file: the best network and both markers, each with its own figures in words."""
    fewest = min(len(marker.trained_on) for marker in trained.values())
    cards: dict[str, tuple[TrainedMarker, MarkerCard]] = {}
    for name, marker in trained.items():
        row = _cascade_row(markers, name)
        cards[name] = (marker, marker.card(_marker_words(row), _marker_warning(row)))
    save_model(
        path,
        network,
        cards,
        name=f"gliomark {NAME} (TCGA-LGG)",
        training_cohort=f"{COHORT}: {len(network.card.training_patients)} patients for the outline, at least "
        f"{fewest} per marker",
        licence=LICENCE,
        intended_use=USE,
        segmentation_performance=_segmentation_words(segmentation),
        stand_ins={"FLAIR": "T2"},
    )


def _segmentation_words(summary: pd.DataFrame) -> str:
    r = summary[summary["tested_on"] == summary["tested_on"].iloc[0]].iloc[-1]
    return (
        f"mean Dice {r.dice:.2f} (95 % interval {r.dice_low_95:.2f} to {r.dice_high_95:.2f}), median "
        f"{r.dice_median:.2f}, of the same recipe on {r.patients} TCGA-LGG patients in five folds, each never trained "
        "on; these weights are trained on all of them"
    )


def _cascade_row(markers: pd.DataFrame, name: str) -> pd.Series:
    """The figures of what is shipped: test patients, predicted outlines, both stages, Near."""
    chosen = (markers["marker"] == name) & (markers["part"] == "test") & (markers["outline"] == "predicted")
    return markers[chosen & (markers["stage"] == "KiNet + LightGBM") & (markers["fusion"] == "near")].iloc[0]


def _marker_words(row: pd.Series) -> str:
    return (
        f"AUC {row.auc:.2f} (95 % interval {row.low_95:.2f} to {row.high_95:.2f}) on {row.patients} TCGA-LGG patients "
        f"never trained on ({row.positive} positive), outlines predicted, slices fused by Near"
    )


def _marker_warning(row: pd.Series) -> str:
    """An interval that reaches 0.5 is said to, with every answer."""
    if row.low_95 > 0.5:
        return ""
    return "On patients it never saw, this marker could not be told from chance; do not rely on the level."


def _write_record(path: Path, cohort: Cohort, folds: Folds, weights: Path, seconds: float) -> None:
    """What a stranger needs to judge the run: settings, versions, who stood where."""
    loaded = load_weights(weights)
    record = {
        "experiment": NAME,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "device": device(),
        "last_call_seconds": round(seconds),
        "segmentation": dict(loaded.card.segmentation),
        "markers": {name: asdict(marker_settings("small", MARKER_EPOCHS)) for name in MARKERS},
        "patients": len(cohort.patient_ids),
        "folds_sha256": folds.sha256,
        "folds": asdict(folds),
        "weights_sha256": loaded.sha256,
        "versions": dict(loaded.card.versions),
    }
    write_json(path, record)
