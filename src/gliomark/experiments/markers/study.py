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

from gliomark.cohort.folds import (
    FOLD_COUNT,
    CohortFolds,
    FoldSplit,
    check_disjoint,
    load_cohort_folds,
    split_fold,
)
from gliomark.cohort.store import Cohort, write_json
from gliomark.experiments.markers.trials import MarkerRun
from gliomark.experiments.place import ExperimentConfig
from gliomark.experiments.records import find_finished_fold, to_file_name
from gliomark.experiments.sharing import run_jobs
from gliomark.files import atomic_write
from gliomark.models.marker_networks import CentralNet
from gliomark.study import GliomarkError
from gliomark.training.classification import (
    LesionSliceDataset,
    load_lesion_slice_dataset,
    read_marker_labels,
    read_marker_values,
    train_marker_network,
)
from gliomark.training.recipes import MarkerDefinition, get_cohort_sequences
from gliomark.training.stacking import (
    LesionSliceInputs,
    PatientVectors,
    compute_patient_vectors,
    load_lesion_slice_inputs,
)


@dataclass(frozen=True, eq=False)
class MarkerData:
    """What every network of a marker reads. labels: patients who have the marker and all sequences; values: the
    numbers behind them; bank: to learn from; shown: to be judged on, patients with a lesion slice alone."""

    labels: Mapping[str, int]
    marker_values: Mapping[str, float]
    folds: CohortFolds
    lesion_dataset: LesionSliceDataset
    lesion_slice_inputs: Mapping[str, LesionSliceInputs]

    def split_fold(self, fold_index: int, seed: int) -> FoldSplit:
        """Training, validation and test patients of a fold."""
        return split_fold(self.folds, fold_index, self.labels, seed)

    def list_fold_patients(self, fold_index: int) -> tuple[str, ...]:
        """A fold's patients who have the marker."""
        return tuple(p for p in self.folds.folds[fold_index] if p in self.labels)


@functools.lru_cache(maxsize=1)
def load_marker_data(cohort_folder: Path, definition: MarkerDefinition) -> MarkerData:
    """The cohort's slices in memory. Raises GliomarkError where the column gives no two classes."""
    cohort = Cohort(cohort_folder)
    sequences = get_cohort_sequences(cohort)
    labels = read_marker_labels(cohort, definition.column, definition.threshold, sequences)
    inputs_by_patient = {
        p: load_lesion_slice_inputs(cohort, p, label, sequences) for p, label in labels.items()
    }
    # half precision, as the bank
    shown = {
        p: LesionSliceInputs(s.slices, s.images.half(), s.lesion.byte(), s.clinical, s.label)
        for p, s in inputs_by_patient.items()
        if s is not None
    }
    values = read_marker_values(cohort, definition.column, sequences)
    dataset = load_lesion_slice_dataset(cohort, labels, sequences, values)
    return MarkerData(labels, values, load_cohort_folds(cohort), dataset, shown)


@dataclass(frozen=True)
class NetworkTrainingJob:
    """One network. left_out: the fold whose test patients it answers, or the two folds it must not have seen."""

    run: MarkerRun
    definition: MarkerDefinition
    excluded_folds: tuple[int, ...]
    cohort_folder: Path
    work_folder: Path

    @property
    def record_path(self) -> Path:
        """Where the finished network's record lies; its vectors and weights are beside it."""
        name = "fold_" + "_".join(str(number + 1) for number in self.excluded_folds)
        marker, trial = to_file_name(self.definition.name), to_file_name(self.run.name)
        return self.work_folder / "markers" / marker / trial / f"{name}.json"


def list_training_jobs(
    run: MarkerRun, definition: MarkerDefinition, cohort_folder: Path, work_folder: Path
) -> list[NetworkTrainingJob]:
    """A network per fold, and one per pair of folds where trees are fitted on the vectors."""
    folds: list[tuple[int, ...]] = [(number,) for number in range(FOLD_COUNT)]
    pairs = list(combinations(range(FOLD_COUNT), 2)) if run.stacked else []
    return [
        NetworkTrainingJob(run, definition, left_out, cohort_folder, work_folder)
        for left_out in (*folds, *pairs)
    ]


def train_missing_networks(
    runs: Sequence[MarkerRun], definition: MarkerDefinition, config: ExperimentConfig
) -> dict[NetworkTrainingJob, dict]:
    """The records of all the trials' networks, trained now where they are not on disk.

    Raises GliomarkError where a kept network is another run's, or a job fails.
    """
    cohort = config.cohort_folders[0]
    jobs = [
        job for trial in runs for job in list_training_jobs(trial, definition, cohort, config.work_folder)
    ]
    data = load_marker_data(cohort, definition)
    records = {job: find_finished_fold(job.record_path, create_job_key(job, data)) for job in jobs}
    missing = [job for job, record in records.items() if record is None]
    config.notify(
        f"{definition.title}: {len(jobs)} networks of {len(runs)} trials, {len(jobs) - len(missing)} finished before"
    )

    def notify_trained(job: NetworkTrainingJob, record: dict) -> None:
        folds = " and ".join(str(number + 1) for number in job.excluded_folds)
        config.notify(f"{job.run.name}, without fold {folds}: {record['seconds']} s")

    new_records = run_jobs(
        missing, train_and_evaluate_network, notify_trained, config.workers, config.scheduler
    )
    return {job: new_records[job] if kept is None else kept for job, kept in records.items()}


def create_job_key(job: NetworkTrainingJob, data: MarkerData) -> dict:
    """What a kept network must agree with to be taken for this run's."""
    trained_on, evaluated = split_job_patients(job, data)
    key = {
        "trial": {"name": job.run.name, "training": asdict(job.run.training)},
        "marker": asdict(job.definition),
        "left_out": job.excluded_folds,
        "trained_on": {p: data.labels[p] for p in trained_on},
        "values": [data.marker_values[p] for p in trained_on],
        "judged": evaluated,
        "arrays": Cohort(job.cohort_folder).hash_arrays((*trained_on, *evaluated)),
    }
    return json.loads(json.dumps(key))


def split_job_patients(job: NetworkTrainingJob, data: MarkerData) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Whom the network is trained on and whom it then judges. Raises GliomarkError where one is both."""
    if len(job.excluded_folds) == 1:
        split = data.split_fold(job.excluded_folds[0], job.run.training.seed)
        trained_on, evaluated = split.training, (*split.validation, *split.test)
    else:
        evaluated = tuple(p for number in job.excluded_folds for p in data.list_fold_patients(number))
        trained_on = tuple(sorted(set(data.labels) - set(evaluated)))
    check_disjoint({"trained on": trained_on, "judged": evaluated})
    return trained_on, evaluated


def train_and_evaluate_network(job: NetworkTrainingJob) -> dict:
    """Train the network unless it is on disk; keep the vectors of whom it never saw, and the weights of a fold's."""
    started, data = time.time(), load_marker_data(job.cohort_folder, job.definition)
    key = create_job_key(job, data)
    finished_record = find_finished_fold(job.record_path, key)
    if finished_record is not None:
        return finished_record
    trained_on, evaluated = split_job_patients(job, data)
    dataset, work = data.lesion_dataset.select_patients(trained_on), job.record_path.with_suffix("")
    # names are one thing, slices another: asked of what is really fed
    training_patients = {dataset.patient_ids[index] for index in dataset.patient.unique().tolist()}
    check_disjoint({"trained on": training_patients, "judged": evaluated})
    write_json(work / "key.json", {"key": key})
    network = train_marker_network(dataset, job.run.training, work)
    crop = job.run.training.augmentation.crop
    vectors = {
        p: compute_patient_vectors(network, data.lesion_slice_inputs[p], crop)
        for p in evaluated
        if p in data.lesion_slice_inputs
    }
    _save_vectors(vectors, job.record_path.with_suffix(".npz"))
    if len(job.excluded_folds) == 1:
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


def load_vectors(job: NetworkTrainingJob, data: MarkerData) -> dict[str, PatientVectors]:
    """Patient to vectors, as the finished network left them. Raises GliomarkError where they are not there."""
    path = job.record_path.with_suffix(".npz")
    if not path.exists():
        raise GliomarkError(f"{path} is missing beside its record; delete {job.record_path} to train anew.")
    with np.load(path) as columns:
        patients, vectors = columns["patient"], columns["vectors"]
    names = dict.fromkeys(patients.tolist())
    return {name: data.lesion_slice_inputs[name].attach_vectors(vectors[patients == name]) for name in names}
