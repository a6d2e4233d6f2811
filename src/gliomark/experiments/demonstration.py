"""The demonstration weights and their figures: trained on TCGA-LGG's development patients, tested on the rest.

Two networks for the outline, read by four rules; two markers. Everything a step finished is kept under
``OUT/work`` and not done again, so an interrupted run goes on.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gliomark.cohort.folds import Folds, check_disjoint, cohort_folds
from gliomark.cohort.store import Cohort
from gliomark.evaluation.intervals import bootstrap
from gliomark.evaluation.metrics import at_threshold, auc, dice
from gliomark.inference.fusion import FusionRule
from gliomark.inference.segmenter import Segmenter
from gliomark.models.weights import MarkerCard, Weights, load_weights, save_weights
from gliomark.pipeline import build_model
from gliomark.study import MRSequence
from gliomark.training.recipes import (
    DEFINITIONS,
    TrainedMarker,
    cohort_sequences,
    marker_settings,
    save_model,
    segmentation_card,
    segmentation_settings,
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


@dataclass(frozen=True)
class Run:
    """A trained network: its input and how long it is trained."""

    rule: str
    epochs: int


NETWORKS = {"joint": Run("joint", 30), "independent": Run("union", 12)}
SHIPPED_NETWORK = "joint"
MARKER_EPOCHS = 12
MARKERS = ("idh", "proliferation")
FUSIONS: tuple[FusionRule, ...] = ("near", "all", "large")


def run(folder: Path, out: Path, say: Callable[[str], None]) -> None:
    """Train what is not trained yet, test, and write weights, tables and run record under ``out``."""
    started = time.time()
    cohort = Cohort(folder)
    folds = cohort_folds(cohort)
    networks = {name: _network(name, cohort, folds, out / "work") for name in NETWORKS}
    say("segmentation trained")
    segmentation, masks = _segmentation_table(networks, cohort, folds)
    _write(segmentation, out / "segmentation_patients.csv")
    summary = _segmentation_summary(segmentation)
    _write(summary, out / "segmentation.csv")
    say(summary.to_string(index=False))
    trained = {name: _marker(name, cohort, folds, out / "work") for name in MARKERS}
    tables = [_marker_table(marker, cohort, folds, masks) for marker in trained.values()]
    patients, markers = (pd.concat(parts) for parts in zip(*tables, strict=True))
    _write(patients, out / "markers_patients.csv")
    _write(markers, out / "markers.csv")
    say(markers.to_string(index=False))
    weights = out / f"{NAME}.safetensors"
    _save(weights, out / "work", summary, markers, trained)
    _write_record(out / "run_record.json", cohort, folds, weights, time.time() - started)


def _network(name: str, cohort: Cohort, folds: Folds, work: Path) -> Weights:
    """The run's weights file, trained on the development patients for a fixed number of epochs."""
    path, setting = work / f"{name}.safetensors", NETWORKS[name]
    if not path.exists():
        joint, sequences = setting.rule == "joint", cohort_sequences(cohort)
        settings = segmentation_settings("small", len(sequences) if joint else 1, setting.epochs)
        bank = load_bank(cohort, folds.development, sequences, joint, settings.pool, settings.context)
        trained = train_segmentation(bank, settings, work / name)
        card = segmentation_card(name, cohort, folds, folds.development, setting.rule, settings)
        save_weights(path, card, segmentation_tensors(trained.network, trained.prior))
    weights = load_weights(path)
    check_disjoint({"trained on": weights.card.training_patients, "tested on": folds.test})
    return weights


def _segmenters(networks: Mapping[str, Weights], sequences: tuple[MRSequence, ...]) -> dict[str, Segmenter]:
    """Four rules out of two networks, each as ``predict`` uses it; ``independent`` takes one sequence a time."""
    joint, union = (build_model(networks[name]).segmenter for name in ("joint", "independent"))
    first, second = sequences
    return {
        "joint": joint,
        f"{second} alone": replace(union, sequences=(second,), rule="single"),
        f"{first} alone": replace(union, sequences=(first,), rule="single"),
        "union": union,
    }


def _segmentation_table(
    networks: Mapping[str, Weights], cohort: Cohort, folds: Folds
) -> tuple[pd.DataFrame, dict[str, NDArray[np.bool_]]]:
    """Dice of every test patient who has both sequences, by rule; and the shipped rule's masks."""
    sequences = cohort_sequences(cohort)
    segmenters = _segmenters(networks, sequences)
    rows, masks = [], {}
    for patient in folds.test:
        if not set(sequences) <= set(cohort.sequences(patient)):
            continue
        stack = cohort.stack(patient)
        for rule, segmenter in segmenters.items():
            mask = segmenter.segment(stack).mask
            with_lesion = stack.drawn.any(axis=(1, 2))
            slices = [dice(t, m) for t, m in zip(stack.drawn[with_lesion], mask[with_lesion], strict=True)]
            free = mask[~with_lesion].sum() / max(1, stack.brain[~with_lesion].sum())
            rows.append((patient, rule, dice(stack.drawn, mask), np.mean(slices), free))
            if rule == SHIPPED_NETWORK:
                masks[patient] = mask
    columns = [
        "patient",
        "rule",
        "dice",
        "dice_per_lesion_slice",
        "false_positive_share_of_lesion_free_brain",
    ]
    return pd.DataFrame(rows, columns=columns), masks


def _segmentation_summary(table: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for rule, group in table.groupby("rule", sort=False):
        value, low, high = bootstrap(np.mean, group["dice"])
        free = group["false_positive_share_of_lesion_free_brain"].mean()
        per_slice = group["dice_per_lesion_slice"].mean()
        spread = (group["dice"].median(), group["dice"].std(), group["dice"].min())
        rows.append((rule, len(group), value, low, high, *spread, per_slice, free))
    columns = ["rule", "patients", "mean_dice", "low_95", "high_95", "median_dice", "sd_dice", "worst_dice"]
    return pd.DataFrame(rows, columns=[*columns, "mean_dice_per_lesion_slice", "false_positive_share"])


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
    work: Path,
    segmentation: pd.DataFrame,
    markers: pd.DataFrame,
    trained: Mapping[str, TrainedMarker],
) -> None:
    """The shipped file: the best network and both markers, each with its own figures in words."""
    network = load_weights(work / f"{SHIPPED_NETWORK}.safetensors")
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
    r = summary[summary["rule"] == SHIPPED_NETWORK].iloc[0]
    return (
        f"mean Dice {r.mean_dice:.2f} (95 % interval {r.low_95:.2f} to {r.high_95:.2f}) on {r.patients} TCGA-LGG "
        "patients never trained on"
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


def _write(table: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, float_format="%.4f", lineterminator="\n")


def _write_record(path: Path, cohort: Cohort, folds: Folds, weights: Path, seconds: float) -> None:
    """What a stranger needs to judge the run: settings, versions, who stood where."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    loaded = load_weights(weights)
    record = {
        "experiment": NAME,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip() or "unknown",
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"CPU, {torch.get_num_threads()} threads",
        "last_call_seconds": round(seconds),
        "networks": {name: asdict(setting) for name, setting in NETWORKS.items()},
        "segmentation": dict(loaded.card.segmentation),
        "markers": {name: asdict(marker_settings("small", MARKER_EPOCHS)) for name in MARKERS},
        "patients": len(cohort.patient_ids),
        "folds_sha256": folds.sha256,
        "folds": asdict(folds),
        "weights_sha256": loaded.sha256,
        "versions": dict(loaded.card.versions),
    }
    path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
