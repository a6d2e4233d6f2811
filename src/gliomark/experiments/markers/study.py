"""The engine behind chapter 4's tables: networks by patient-wise folds, each trained once and kept as its vectors.

Fold k's network never sees fold k, nor the validation patients, by whom thresholds are chosen and trees are stopped.
The trees that answer fold k are fitted on vectors of networks that saw neither fold k nor the patient in question:
a network for every pair of folds (j, k), which serves fold j under k and fold k under j.
"""

from __future__ import annotations

import functools
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from itertools import combinations
from pathlib import Path

import numpy as np
from safetensors.torch import save

from gliomark.cohort.folds import FOLDS, Folds, Split, check_disjoint, cohort_folds, fold_split
from gliomark.cohort.store import Cohort, write_json
from gliomark.experiments.markers.trials import MarkerTrial
from gliomark.experiments.place import Place
from gliomark.experiments.records import fit_for_files, kept_fold
from gliomark.experiments.sharing import run_jobs
from gliomark.files import atomic_write
from gliomark.models.marker_networks import CentralNet
from gliomark.study import GliomarkError
from gliomark.training.classification import (
    LesionBank,
    known_labels,
    known_values,
    load_lesion_bank,
    train_marker_network,
)
from gliomark.training.recipes import MarkerDefinition, cohort_sequences
from gliomark.training.stacking import PatientVectors, ShownSlices, shown_slices, vectors_of


@dataclass(frozen=True, eq=False)
class MarkerData:
    """What every network of a marker reads. labels: patients who have the marker and all sequences; values: the
    numbers behind them; bank: to learn from; shown: to be judged on, patients with a lesion slice alone."""

    labels: Mapping[str, int]
    values: Mapping[str, float]
    folds: Folds
    bank: LesionBank
    shown: Mapping[str, ShownSlices]

    def split(self, number: int, seed: int) -> Split:
        """Training, validation and test patients of a fold."""
        return fold_split(self.folds, number, self.labels, seed)

    def fold(self, number: int) -> tuple[str, ...]:
        """A fold's patients who have the marker."""
        return tuple(p for p in self.folds.folds[number] if p in self.labels)


@functools.lru_cache(maxsize=1)
def marker_data(folder: Path, definition: MarkerDefinition) -> MarkerData:
    """The cohort's slices in memory. Raises GliomarkError where the column gives no two classes."""
    cohort = Cohort(folder)
    sequences = cohort_sequences(cohort)
    labels = known_labels(cohort, definition.column, definition.threshold, sequences)
    every = {p: shown_slices(cohort, p, label, sequences) for p, label in labels.items()}
    # half precision, as the bank
    shown = {
        p: ShownSlices(s.slices, s.images.half(), s.lesion.byte(), s.clinical, s.label)
        for p, s in every.items()
        if s is not None
    }
    values = known_values(cohort, definition.column, sequences)
    bank = load_lesion_bank(cohort, labels, sequences, values)
    return MarkerData(labels, values, cohort_folds(cohort), bank, shown)


@dataclass(frozen=True)
class NetworkJob:
    """One network. left_out: the fold whose test patients it answers, or the two folds it must not have seen."""

    trial: MarkerTrial
    definition: MarkerDefinition
    left_out: tuple[int, ...]
    cohort: Path
    work: Path

    @property
    def record_path(self) -> Path:
        """Where the finished network's record lies; its vectors and weights are beside it."""
        name = "fold_" + "_".join(str(number + 1) for number in self.left_out)
        marker, trial = fit_for_files(self.definition.name), fit_for_files(self.trial.name)
        return self.work / "markers" / marker / trial / f"{name}.json"


def trial_jobs(
    trial: MarkerTrial, definition: MarkerDefinition, cohort: Path, work: Path
) -> list[NetworkJob]:
    """A network per fold, and one per pair of folds where trees are fitted on the vectors."""
    folds: list[tuple[int, ...]] = [(number,) for number in range(FOLDS)]
    pairs = list(combinations(range(FOLDS), 2)) if trial.stacked else []
    return [NetworkJob(trial, definition, left_out, cohort, work) for left_out in (*folds, *pairs)]


def run_networks(
    trials: Sequence[MarkerTrial], definition: MarkerDefinition, place: Place
) -> dict[NetworkJob, dict]:
    """The records of all the trials' networks, trained now where they are not on disk.

    Raises GliomarkError where a kept network is another run's, or a job fails.
    """
    cohort = place.cohorts[0]
    jobs = [job for trial in trials for job in trial_jobs(trial, definition, cohort, place.work)]
    data = marker_data(cohort, definition)
    records = {job: kept_fold(job.record_path, job_key(job, data)) for job in jobs}
    missing = [job for job, record in records.items() if record is None]
    place.say(
        f"{definition.title}: {len(jobs)} networks of {len(trials)} trials, {len(jobs) - len(missing)} finished before"
    )

    def told(job: NetworkJob, record: dict) -> None:
        folds = " and ".join(str(number + 1) for number in job.left_out)
        place.say(f"{job.trial.name}, without fold {folds}: {record['seconds']} s")

    done = run_jobs(missing, train_job, told, place.workers, place.scheduler)
    return {job: done[job] if kept is None else kept for job, kept in records.items()}


def job_key(job: NetworkJob, data: MarkerData) -> dict:
    """What a kept network must agree with to be taken for this run's."""
    trained_on, judged = job_patients(job, data)
    key = {
        "trial": {"name": job.trial.name, "training": asdict(job.trial.training)},
        "marker": asdict(job.definition),
        "left_out": job.left_out,
        "trained_on": {p: data.labels[p] for p in trained_on},
        "values": [data.values[p] for p in trained_on],
        "judged": judged,
        "arrays": Cohort(job.cohort).arrays_digest((*trained_on, *judged)),
    }
    return json.loads(json.dumps(key))


def job_patients(job: NetworkJob, data: MarkerData) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Whom the network is trained on and whom it then judges. Raises GliomarkError where one is both."""
    if len(job.left_out) == 1:
        split = data.split(job.left_out[0], job.trial.training.seed)
        trained_on, judged = split.training, (*split.validation, *split.test)
    else:
        judged = tuple(p for number in job.left_out for p in data.fold(number))
        trained_on = tuple(sorted(set(data.labels) - set(judged)))
    check_disjoint({"trained on": trained_on, "judged": judged})
    return trained_on, judged


def train_job(job: NetworkJob) -> dict:
    """Train the network unless it is on disk; keep the vectors of whom it never saw, and the weights of a fold's."""
    started, data = time.time(), marker_data(job.cohort, job.definition)
    key = job_key(job, data)
    done = kept_fold(job.record_path, key)
    if done is not None:
        return done
    trained_on, judged = job_patients(job, data)
    bank, work = data.bank.of(trained_on), job.record_path.with_suffix("")
    # names are one thing, slices another: asked of what is really fed
    fed = {bank.patient_ids[index] for index in bank.patient.unique().tolist()}
    check_disjoint({"trained on": fed, "judged": judged})
    write_json(work / "key.json", {"key": key})
    network = train_marker_network(bank, job.trial.training, work)
    crop = job.trial.training.augmentation.crop
    vectors = {p: vectors_of(network, data.shown[p], crop) for p in judged if p in data.shown}
    _save_vectors(vectors, job.record_path.with_suffix(".npz"))
    if len(job.left_out) == 1:
        tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
        atomic_write(job.record_path.with_suffix(".safetensors"), save(tensors))
    record = {
        "key": key,
        "million_parameters": sum(p.numel() for p in network.parameters()) / 1e6,
        "fusion_weights": network.weights.tolist() if isinstance(network, CentralNet) else None,
        "seconds": round(time.time() - started),
    }
    write_json(job.record_path, record)
    shutil.rmtree(work, ignore_errors=True)
    return record


def _save_vectors(vectors: Mapping[str, PatientVectors], path: Path) -> None:
    content = BytesIO()
    np.savez(
        content,
        patient=np.concatenate([[p] * len(v.vectors) for p, v in vectors.items()]),
        vectors=np.concatenate([v.vectors for v in vectors.values()]),
    )
    atomic_write(path, content.getvalue())


def load_vectors(job: NetworkJob, data: MarkerData) -> dict[str, PatientVectors]:
    """Patient to vectors, as the finished network left them. Raises GliomarkError where they are not there."""
    path = job.record_path.with_suffix(".npz")
    if not path.exists():
        raise GliomarkError(f"{path} is missing beside its record; delete {job.record_path} to train anew.")
    with np.load(path) as columns:
        patients, vectors = columns["patient"], columns["vectors"]
    names = dict.fromkeys(patients.tolist())
    return {name: data.shown[name].seen(vectors[patients == name]) for name in names}
