"""A lesson, not a result: what a split by slices instead of by patients pretends.

The thesis saw "over 90 %" that way. The same network, the same slices, the same number of training slices, once with
whole patients held out and once with single slices, whose neighbours then stand in the training part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import expit

from gliomark.cohort.folds import FOLDS
from gliomark.cohort.store import write_json
from gliomark.evaluation.intervals import cluster_bootstrap
from gliomark.evaluation.metrics import at_threshold, auc
from gliomark.experiments.markers.study import MarkerData, marker_data
from gliomark.experiments.markers.trials import KINET, marker_preset, trials_4_4
from gliomark.experiments.place import Place
from gliomark.experiments.records import run_record, write_table
from gliomark.inference.slice_classifier import image_vectors
from gliomark.training.classification import LesionBank, MarkerTraining, train_marker_network
from gliomark.training.recipes import MarkerDefinition

NAME = "slice_leak"
BY_SLICE, BY_PATIENT = "split by slice (wrong)", "split by patient"


def slice_folds(data: MarkerData, by_patient: bool, seed: int = 0) -> list[np.ndarray]:
    """The rows of the bank that each fold tests on."""
    owner = data.bank.patient.numpy()
    if by_patient:
        places = {p: index for index, p in enumerate(data.bank.patient_ids)}
        return [np.flatnonzero(np.isin(owner, [places[p] for p in data.fold(n)])) for n in range(FOLDS)]
    return np.array_split(np.random.default_rng(seed).permutation(len(owner)), FOLDS)


def run(place: Place, definition: MarkerDefinition) -> Path:
    """Write ``slice_leak_<marker>.csv`` and its record under the place's folder; the table's path."""
    data = marker_data(place.cohorts[0], definition)
    training = next(t for t in trials_4_4(marker_preset(place.preset)) if t.name == KINET).training
    rows = []
    for name, by_patient in ((BY_PATIENT, True), (BY_SLICE, False)):
        folds = slice_folds(data, by_patient)
        folder = place.work / NAME / definition.name / ("patient" if by_patient else "slice")
        probability = _answers(data.bank, folds, training, folder)
        place.say(f"{name}: five networks trained")
        label = data.bank.label.numpy()
        found = cluster_bootstrap(
            lambda y, p: {**at_threshold(y, p, 0.5), "auc": auc(y, p)},
            data.bank.patient.numpy(),
            label,
            probability,
        )
        row: dict[str, float | str] = {"split": name, "patients": len(data.labels), "slices": len(label)}
        for figure, one in found.items():
            row |= {figure: one.value, f"{figure}_low_95": one.low, f"{figure}_high_95": one.high}
        rows.append(row)
    said = {"marker": definition.name, "preset": place.preset, "cuts": marker_preset(place.preset).cuts}
    path = place.out / f"{NAME}_{definition.name}.csv"
    write_table(pd.DataFrame(rows).assign(**said), path)
    record = run_record(NAME, **said, training=asdict(training))
    write_json(path.with_name(f"{path.stem}_run_record.json"), record)
    return path


def _answers(
    bank: LesionBank, folds: Sequence[np.ndarray], training: MarkerTraining, work: Path
) -> np.ndarray:
    """Every slice's probability by the network of the fold that tested on it."""
    probability = np.full(len(bank.label), np.nan)
    for number, test in enumerate(folds):
        rest = torch.from_numpy(np.setdiff1d(np.arange(len(bank.label)), test))
        parts = (bank.image[rest], bank.lesion[rest], bank.label[rest], bank.patient[rest])
        network = train_marker_network(
            LesionBank(*parts, bank.patient_ids), training, work / f"fold_{number + 1}"
        )
        crop = training.augmentation.crop
        vectors = image_vectors(network, bank.image[test].float(), bank.lesion[test].float(), crop)
        probability[test] = expit(vectors[:, -1].astype(float))
    return probability
