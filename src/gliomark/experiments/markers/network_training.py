"""Training of the networks behind chapter 4's tables, in folds by patient; each is trained once, its vectors are kept.

The network of fold k is trained neither on fold k nor on the validation patients, which serve to choose thresholds and
stop the trees early. The trees that score fold k are fitted on out-of-fold vectors: networks for every pair of folds
(j, k), trained on neither, give the vectors of fold j when k is tested and of fold k when j is tested.
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
from gliomark.errors import CohortError
from gliomark.experiments.config import ExperimentConfig
from gliomark.experiments.job_runner import run_jobs
from gliomark.experiments.markers.runs import MarkerRun
from gliomark.experiments.result_files import find_finished_fold, to_file_name
from gliomark.files import atomic_write
from gliomark.models.comparison.marker_networks import CentralNet
from gliomark.training.markers import (
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
    """Data of all networks of a marker.

    labels: by patient who has the marker and all sequences; marker_values: measured values behind the labels;
    lesion_dataset: training slices; lesion_slice_inputs: slices to be scored, of patients with at least one lesion
    slice.
    """

    labels: Mapping[str, int]
    marker_values: Mapping[str, float]
    folds: CohortFolds
    lesion_dataset: LesionSliceDataset
    lesion_slice_inputs: Mapping[str, LesionSliceInputs]

    def split_fold(self, fold_index: int, seed: int) -> FoldSplit:
        """Split a fold (from 0) into training, validation and test patients."""
        return split_fold(self.folds, fold_index, self.labels, seed)

    def list_fold_patients(self, fold_index: int) -> tuple[str, ...]:
        """List the patients of a fold (from 0) whose marker is known."""
        return tuple(p for p in self.folds.folds[fold_index] if p in self.labels)


@functools.lru_cache(maxsize=1)
def load_marker_data(cohort_folder: Path, definition: MarkerDefinition) -> MarkerData:
    """Load a cohort's labels and slices into memory; the last call is cached.

    Raises
    ------
    CohortError
        If the marker's column does not have two classes.
    """
    cohort = Cohort(cohort_folder)
    sequences = get_cohort_sequences(cohort)
    labels = read_marker_labels(cohort, definition.column, definition.threshold, sequences)
    inputs_by_patient = {
        p: load_lesion_slice_inputs(cohort, p, label, sequences) for p, label in labels.items()
    }
    # half precision, like the training slices
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
    """Training of one network.

    excluded_folds: the fold that it is tested on, or the two folds whose patients it gives out-of-fold vectors of.
    """

    run: MarkerRun
    definition: MarkerDefinition
    excluded_folds: tuple[int, ...]
    cohort_folder: Path
    work_folder: Path

    @property
    def record_path(self) -> Path:
        """Path of the finished network's record; its vectors and weights are in the same folder."""
        name = "fold_" + "_".join(str(number + 1) for number in self.excluded_folds)
        marker, trial = to_file_name(self.definition.name), to_file_name(self.run.name)
        return self.work_folder / "markers" / marker / trial / f"{name}.json"


def list_training_jobs(
    run: MarkerRun, definition: MarkerDefinition, cohort_folder: Path, work_folder: Path
) -> list[NetworkTrainingJob]:
    """List one training job per fold and, if the run uses stacking, one per pair of folds."""
    folds: list[tuple[int, ...]] = [(number,) for number in range(FOLD_COUNT)]
    pairs = list(combinations(range(FOLD_COUNT), 2)) if run.stacked else []
    return [
        NetworkTrainingJob(run, definition, left_out, cohort_folder, work_folder)
        for left_out in (*folds, *pairs)
    ]


def train_missing_networks(
    runs: Sequence[MarkerRun], definition: MarkerDefinition, config: ExperimentConfig
) -> dict[NetworkTrainingJob, dict]:
    """Train the networks of the runs that are not finished yet; the records of all.

    Raises
    ------
    CohortError
        If a kept network was made with other settings, patients or images.
    """
    cohort = config.cohort_folders[0]
    jobs = [
        job for trial in runs for job in list_training_jobs(trial, definition, cohort, config.work_folder)
    ]
    data = load_marker_data(cohort, definition)
    records = {job: find_finished_fold(job.record_path, create_job_key(job, data)) for job in jobs}
    missing = [job for job, record in records.items() if record is None]
    config.notify(
        f"{definition.title}: {len(jobs)} networks of {len(runs)} runs, {len(jobs) - len(missing)} already finished"
    )

    def notify_trained(job: NetworkTrainingJob, record: dict) -> None:
        folds = " and ".join(str(number + 1) for number in job.excluded_folds)
        config.notify(f"{job.run.name}, trained without fold {folds}: {record['seconds']} s")

    new_records = run_jobs(
        missing, train_and_evaluate_network, notify_trained, config.workers, config.scheduler
    )
    return {job: new_records[job] if kept is None else kept for job, kept in records.items()}


def create_job_key(job: NetworkTrainingJob, data: MarkerData) -> dict:
    """Settings, patients, labels and image hashes that identify a finished network."""
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
    """Split the patients of a job into those trained on and those then evaluated.

    Raises
    ------
    CohortError
        If a patient is in both.
    """
    if len(job.excluded_folds) == 1:
        split = data.split_fold(job.excluded_folds[0], job.run.training.seed)
        trained_on, evaluated = split.training, (*split.validation, *split.test)
    else:
        evaluated = tuple(p for number in job.excluded_folds for p in data.list_fold_patients(number))
        trained_on = tuple(sorted(set(data.labels) - set(evaluated)))
    check_disjoint({"trained on": trained_on, "tested on": evaluated})
    return trained_on, evaluated


def train_and_evaluate_network(job: NetworkTrainingJob) -> dict:
    """Train a network unless it is finished; its record.

    The vectors of the evaluated patients are stored; the weights only of a network that is tested on a fold.

    Raises
    ------
    CohortError
        If a kept network was made with another key, or a patient is both trained on and evaluated.
    """
    started, data = time.time(), load_marker_data(job.cohort_folder, job.definition)
    key = create_job_key(job, data)
    finished_record = find_finished_fold(job.record_path, key)
    if finished_record is not None:
        return finished_record
    trained_on, evaluated = split_job_patients(job, data)
    dataset, work = data.lesion_dataset.select_patients(trained_on), job.record_path.with_suffix("")
    # check the patients of the slices actually fed to the network, not only the lists of names
    training_patients = {dataset.patient_ids[index] for index in dataset.patient.unique().tolist()}
    check_disjoint({"trained on": training_patients, "tested on": evaluated})
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
    """Load the vectors of a finished network, by patient.

    Raises
    ------
    CohortError
        If the file of the vectors is missing.
    """
    path = job.record_path.with_suffix(".npz")
    if not path.exists():
        raise CohortError(f"{path} is missing; delete {job.record_path} to train again.")
    with np.load(path) as columns:
        patients, vectors = columns["patient"], columns["vectors"]
    names = dict.fromkeys(patients.tolist())
    return {name: data.lesion_slice_inputs[name].attach_vectors(vectors[patients == name]) for name in names}
