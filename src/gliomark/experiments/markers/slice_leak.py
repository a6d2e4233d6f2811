"""A lesson, not a result: what a split by slices instead of by patients pretends.

The thesis saw "over 90 %" that way. The same network, the same slices, the same number of training slices, once with
whole patients held out and once with single slices, whose neighbours then stand in the training part.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import expit

from gliomark.cohort.folds import FOLDS
from gliomark.cohort.store import write_json
from gliomark.evaluation.intervals import cluster_bootstrap
from gliomark.evaluation.metrics import at_threshold, auc
from gliomark.experiments.markers.study import MarkerData, marker_data
from gliomark.experiments.markers.trials import KINET, marker_preset, trials_4_4
from gliomark.experiments.place import Place
from gliomark.experiments.records import run_record, write_table
from gliomark.experiments.sharing import run_jobs
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


@dataclass(frozen=True)
class LeakJob:
    """A network of one split and fold."""

    cohort: Path
    definition: MarkerDefinition
    training: MarkerTraining
    by_patient: bool
    number: int
    work: Path


def train_leak(job: LeakJob) -> dict:
    """Train it; the rows of the bank that the fold tests on, and their probabilities by it."""
    bank = (data := marker_data(job.cohort, job.definition)).bank
    test = slice_folds(data, job.by_patient)[job.number]
    rest = torch.from_numpy(np.setdiff1d(np.arange(len(bank.label)), test))
    folder = job.work / ("patient" if job.by_patient else "slice") / f"fold_{job.number + 1}"
    network = train_marker_network(bank.rows(rest), job.training, folder)
    crop = job.training.augmentation.crop
    vectors = image_vectors(network, bank.image[test].float(), bank.lesion[test].float(), crop)
    return {"rows": test, "probability": expit(vectors[:, -1].astype(float))}


def run(place: Place, definition: MarkerDefinition) -> Path:
    """Write ``slice_leak_<marker>.csv`` and its record under the place's folder; the table's path."""
    cohort, preset = place.cohorts[0], marker_preset(place.preset)
    bank = marker_data(cohort, definition).bank
    training = next(t for t in trials_4_4(preset) if t.name == KINET).training
    work = place.work / NAME / definition.name
    jobs = [
        LeakJob(cohort, definition, training, by_patient, number, work)
        for by_patient in (True, False)
        for number in range(FOLDS)
    ]

    def told(job: LeakJob, _: dict) -> None:
        place.say(f"{BY_PATIENT if job.by_patient else BY_SLICE}: fold {job.number + 1}")

    done = run_jobs(jobs, train_leak, told, place.workers, place.scheduler)
    rows = []
    for name, by_patient in ((BY_PATIENT, True), (BY_SLICE, False)):
        probability = np.full(len(bank.label), np.nan)
        for job, record in done.items():
            if job.by_patient is by_patient:
                probability[record["rows"]] = record["probability"]
        rows.append({"split": name, "patients": len(bank.patient_ids), **figures_of(bank, probability)})
    said = {"marker": definition.name, "preset": place.preset, "cuts": preset.cuts}
    path = place.out / f"{NAME}_{definition.name}.csv"
    write_table(pd.DataFrame(rows).assign(**said), path)
    record = run_record(NAME, **said, training=asdict(training))
    write_json(path.with_name(f"{path.stem}_run_record.json"), record)
    return path


def figures_of(bank: LesionBank, probability: NDArray[np.float64]) -> dict[str, float]:
    """At slice level, with intervals over patients."""
    found = cluster_bootstrap(
        lambda y, p: {**at_threshold(y, p, 0.5), "auc": auc(y, p)},
        bank.patient.numpy(),
        bank.label.numpy(),
        probability,
    )
    row: dict[str, float] = {"slices": len(probability)}
    for figure, one in found.items():
        row |= {figure: one.value, f"{figure}_low_95": one.low, f"{figure}_high_95": one.high}
    return row
