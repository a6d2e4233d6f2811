"""The demonstration weights and their figures, on TCGA-LGG.

Every recipe is judged in five folds by patient, then trained once more on everybody: that is what is shipped. The
markers are judged as the cascade has it, on outlines of the fold that never saw the patient; one that is no better
than chance stays in the tables and is not shipped. Everything a step finished is kept under ``OUT/work`` and not done
again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd

from gliomark.cohort.folds import Folds, cohort_folds, learning_without
from gliomark.cohort.store import Cohort, write_json
from gliomark.experiments.markers.cascade import CASCADE, cascade_labels, cascade_summary, run_cascade
from gliomark.experiments.markers.readings import clinical_probability
from gliomark.experiments.place import Place
from gliomark.experiments.records import kept_fold, run_record, write_table
from gliomark.experiments.segmentation.study import Trial, outlined
from gliomark.experiments.segmentation.tables import run_shipped, shipped_trials
from gliomark.models.weights import MarkerValidation, Weights, load_weights, save_weights
from gliomark.pipeline import build_model, build_segmenter
from gliomark.training.classification import MarkerTraining
from gliomark.training.recipes import (
    DEFINITIONS,
    MarkerDefinition,
    TrainedMarker,
    cohort_sequences,
    marker_settings,
    read_as,
    save_model,
    segmentation_card,
    segmentation_tensors,
    train_marker,
)
from gliomark.training.segmentation import train_segmentation
from gliomark.training.slice_bank import load_bank

NAME = "demonstration"
COHORT = "TCGA-LGG with the FLAIR-abnormality masks of Buda et al. 2019"
LICENCE = (
    "CC BY-NC-SA 4.0 (non-commercial, share-alike), inherited from the training masks; "
    "images TCIA TCGA-LGG, CC BY 3.0"
)
USE = (
    "demonstration and research only; not a medical device; trained on lower-grade glioma with T1C and FLAIR"
)
MARKERS = ("idh", "proliferation")
CLINICAL = "age and sex alone"


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
    network = _network(trials[-1], cohort, folds, place.work)
    say("the outline's network is trained on everybody")
    definitions = [DEFINITIONS[name] for name in MARKERS]
    answers = [run_cascade(d, trials[-1], marker_training(), place) for d in definitions]
    patients = pd.concat([*answers, *(_clinical_alone(d, cohort, folds) for d in definitions)])
    markers = cascade_summary(patients)
    write_table(patients, out / "markers_patients.csv")
    write_table(markers, out / "markers.csv")
    say(markers.to_string(index=False))
    trained = {d.name: _shipped_marker(d, cohort, folds, place.work) for d in definitions}
    weights = out / f"{NAME}.safetensors"
    _save(weights, network, summary, trained)
    ship_measured(weights, markers, folds)
    _write_record(out / "run_record.json", cohort, folds, weights, time.time() - started)


def _network(trial: Trial, cohort: Cohort, folds: Folds, work: Path) -> Weights:
    """The trial's network, trained on everybody who has an outline for the recipe's number of epochs.

    Raises GliomarkError where ``work`` holds one of another recipe or other patients.
    """
    path, settings, drawn = work / "shipped.safetensors", trial.training, outlined(cohort)
    record = path.with_suffix(".json")
    key = json.loads(
        json.dumps({"trial": asdict(trial), "patients": drawn, "arrays": cohort.arrays_digest(drawn)})
    )
    if kept_fold(record, key) is None:
        write_json(work / "shipped" / "key.json", {"key": key})
        sequences = cohort_sequences(cohort)
        bank = load_bank(cohort, drawn, sequences, trial.rule == "joint", settings.context)
        trained = train_segmentation(bank, settings, work / "shipped")
        card = segmentation_card("shipped", cohort, folds, drawn, trial.rule, settings)
        card = read_as(card, trial.flips, trial.smallest_share, trial.pool)
        save_weights(path, card, segmentation_tensors(trained.network, trained.prior), build_segmenter)
        write_json(record, {"key": key})
    return load_weights(path)


def marker_training() -> MarkerTraining:
    """The shipped markers' recipe."""
    return marker_settings("light", epochs=1)


def _shipped_marker(definition: MarkerDefinition, cohort: Cohort, folds: Folds, work: Path) -> TrainedMarker:
    """The recipe on everybody; the networks behind its trees are those that the folds were answered by."""
    known = cascade_labels(cohort, definition)
    return train_marker(
        cohort, learning_without(folds, None), definition, *known, marker_training(), work / "cascade"
    )


def _clinical_alone(definition: MarkerDefinition, cohort: Cohort, folds: Folds) -> pd.DataFrame:
    """What age and sex alone say of each fold, learnt from the other four: the bar for any image."""
    (labels, _), rows = cascade_labels(cohort, definition), []
    people = {p: cohort.clinical(p) for p in labels}
    for number, fold in enumerate(folds.folds):
        learnt = learning_without(folds, number).only(labels).patients
        found = clinical_probability(people, labels, learnt, [p for p in fold if p in labels])
        for patient, (p,) in found.items():
            rows.append(
                (definition.name, number + 1, "none", patient, labels[patient], CLINICAL, "none", p, 0.5)
            )
    columns = ["marker", "fold", "outline", "patient", "label", "stage", "fusion", "probability", "threshold"]
    return pd.DataFrame(rows, columns=columns)


def _save(
    path: Path, network: Weights, segmentation: pd.DataFrame, trained: Mapping[str, TrainedMarker]
) -> None:
    """The best network and every marker that was trained."""
    save_model(
        path,
        network,
        {name: (marker, marker.card()) for name, marker in trained.items()},
        name=f"gliomark {NAME} (TCGA-LGG)",
        licence=LICENCE,
        intended_use=USE,
        segmentation_performance=_segmentation_words(segmentation),
        stand_ins={"FLAIR": "T2"},
    )


def ship_measured(path: Path, markers: pd.DataFrame, folds: Folds) -> None:
    """Give each marker of the file its figures from ``markers.csv``; who is no better than chance leaves the file.

    Every other tensor stays as it is, so that a file of before is brought up to date without any training.
    """
    weights = load_weights(path)
    rows = {name: _cascade_row(markers, name) for name in weights.card.markers}
    measured = {name: _marker_validation(row) for name, row in rows.items()}
    shipped = {
        name: replace(card, performance=_marker_words(rows[name]), warning="", validation=measured[name])
        for name, card in weights.card.markers.items()
        if measured[name].is_better_than_chance
    }
    left = set(measured) - set(shipped)
    tensors = {name: t for name, t in weights.tensors.items() if name.partition("/")[0] not in left}
    people = f"{len(weights.card.training_patients)} patients for the outline"
    if shipped:
        people += f", at least {min(measured[name].patients for name in shipped)} per marker"
    card = replace(
        weights.card, markers=shipped, folds_sha256=folds.sha256, training_cohort=f"{COHORT}: {people}"
    )
    save_weights(path, card, tensors, build_model)


def _segmentation_words(summary: pd.DataFrame) -> str:
    r = summary[summary["tested_on"] == summary["tested_on"].iloc[0]].iloc[-1]
    return (
        f"mean Dice {r.dice:.2f} (95 % interval {r.dice_low_95:.2f} to {r.dice_high_95:.2f}), median "
        f"{r.dice_median:.2f}, of the same recipe on {r.patients} TCGA-LGG patients in five folds, each never trained "
        "on; these weights are trained on all of them"
    )


def _cascade_row(markers: pd.DataFrame, name: str) -> pd.Series:
    """The figures of what is shipped: predicted outlines, both stages, Near."""
    chosen = (markers["marker"] == name) & (markers["outline"] == "predicted")
    return markers[chosen & (markers["stage"] == CASCADE) & (markers["fusion"] == "near")].iloc[0]


def _marker_words(row: pd.Series) -> str:
    return (
        f"AUC {row.auc:.2f} (95 % interval {row.low_95:.2f} to {row.high_95:.2f}) of the same recipe on {row.patients} "
        f"TCGA-LGG patients in five folds, each never trained on ({row.positive} positive), outlines predicted, slices "
        "fused by Near; these weights are trained on all of them"
    )


def _marker_validation(row: pd.Series) -> MarkerValidation:
    """The row as the table has it, to four decimals."""
    auc, low, high = (round(float(row[name]), 4) for name in ("auc", "low_95", "high_95"))
    return MarkerValidation(auc, low, high, int(row.patients), int(row.positive), "TCGA-LGG")


def _write_record(path: Path, cohort: Cohort, folds: Folds, weights: Path, seconds: float) -> None:
    """What a stranger needs to judge the run: settings, versions, who stood where."""
    loaded = load_weights(weights)
    record = run_record(
        NAME,
        last_call_seconds=round(seconds),
        segmentation=dict(loaded.card.segmentation),
        markers={name: asdict(marker_training()) for name in MARKERS},
        patients=len(cohort.patient_ids),
        folds_sha256=folds.sha256,
        folds=asdict(folds),
        weights_sha256=loaded.sha256,
    )
    write_json(path, record)
