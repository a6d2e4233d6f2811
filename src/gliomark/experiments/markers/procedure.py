"""Training of the networks behind chapter 4's tables, in folds by patient; each is trained once, its vectors are kept.

The network of fold k is trained neither on fold k nor on the validation patients, which serve to stop the trees early.
The trees that score fold k are fitted on out-of-fold vectors: networks for every pair of folds (j, k), trained on
neither, give the vectors of fold j when k is tested and of fold k when j is tested.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from safetensors.torch import save

from gliomark.cohort.folds import (
    CohortFolds,
    FoldSplit,
    check_disjoint,
    load_cohort_folds,
    split_fold,
)
from gliomark.cohort.store import Cohort
from gliomark.errors import CohortError
from gliomark.experiments.config import ExperimentConfig
from gliomark.experiments.markers.runs import MarkerRun
from gliomark.experiments.result_files import to_file_name, to_folder_name
from gliomark.experiments.runner import FinishedJob, TrainingJob
from gliomark.files import atomic_write
from gliomark.models.registry import find_marker_entry
from gliomark.training.markers import (
    LOSS_WEIGHTS_NAME,
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
from gliomark.training.work_folder import to_config_record


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


MarkerJob: TypeAlias = TrainingJob[MarkerRun]


@dataclass(frozen=True)
class MarkerNetwork:
    """Result of one training; its vectors and weights are stored beside the record.

    million_parameters: parameters in millions; fusion_weights: learnt ones of CentralNet, otherwise None; loss_weights:
    learnt alpha and beta of the BMS loss, None where they are set.
    """

    million_parameters: float
    fusion_weights: list[list[float]] | None = None
    loss_weights: dict[str, list[float]] | None = None


@dataclass(frozen=True)
class MarkerProcedure:
    """Training of the networks of a marker: one per fold and, for runs with stacking, one per pair of folds."""

    definition: MarkerDefinition

    def list_jobs(
        self, runs: Sequence[MarkerRun], fold_count: int, config: ExperimentConfig
    ) -> list[MarkerJob]:
        """List the jobs of every run: its folds, then the pairs of folds if it uses stacking."""
        folds = [(index,) for index in range(fold_count)]
        pairs = list(combinations(range(fold_count), 2))
        return [
            TrainingJob(run, excluded, config.cohort_folders[:1], config.work_folder)
            for run in runs
            for excluded in (*folds, *(pairs if run.stacked else ()))
        ]

    def load_data(self, job: MarkerJob) -> MarkerData:
        """Load the data of the job's cohort."""
        return load_marker_data(job.cohort_folders[0], self.definition)

    def get_record_path(self, job: MarkerJob) -> Path:
        """Return the path of the network's record; its vectors and weights are in the same folder."""
        name = "fold_" + "_".join(str(index + 1) for index in job.excluded_folds)
        marker, run = to_folder_name(self.definition.name), to_file_name(job.run.name)
        return job.work_folder / "markers" / marker / run / f"{name}.json"

    def create_key(self, job: MarkerJob) -> dict[str, Any]:
        """Settings, patients, labels and image hashes that identify a finished network."""
        data = self.load_data(job)
        trained_on, evaluated = split_job_patients(job, data)
        return {
            "trial": {"name": job.run.name, "training": to_config_record(job.run.training)},
            "marker": asdict(self.definition),
            "left_out": job.excluded_folds,
            "trained_on": {p: data.labels[p] for p in trained_on},
            "values": [data.marker_values[p] for p in trained_on],
            "judged": evaluated,
            "arrays": Cohort(job.cohort_folders[0]).hash_arrays((*trained_on, *evaluated)),
        }

    def execute(self, job: MarkerJob, checkpoint_folder: Path) -> MarkerNetwork:
        """Train a network and store the vectors of the evaluated patients.

        The weights are stored only of a network that is tested on a fold.

        Raises
        ------
        CohortError
            If a patient is both trained on and evaluated.
        """
        data, training, path = self.load_data(job), job.run.training, self.get_record_path(job)
        trained_on, evaluated = split_job_patients(job, data)
        dataset = data.lesion_dataset.select_patients(trained_on)
        # check the patients of the slices actually fed to the network, not only the lists of names
        training_patients = {dataset.patient_ids[index] for index in dataset.patient.unique().tolist()}
        check_disjoint({"trained on": training_patients, "tested on": evaluated})
        network = train_marker_network(dataset, training, checkpoint_folder)
        vectors = {
            p: compute_patient_vectors(network, data.lesion_slice_inputs[p], training.augmentation.crop)
            for p in evaluated
            if p in data.lesion_slice_inputs
        }
        _save_vectors(vectors, path.with_suffix(".npz"))
        if len(job.excluded_folds) == 1:
            tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
            atomic_write(path.with_suffix(".safetensors"), save(tensors))
        read_fusion_weights = find_marker_entry(training.network).read_fusion_weights
        weights_path = checkpoint_folder / LOSS_WEIGHTS_NAME
        return MarkerNetwork(
            sum(p.numel() for p in network.parameters()) / 1e6,
            read_fusion_weights(network) if read_fusion_weights else None,
            json.loads(weights_path.read_text("utf-8")) if weights_path.exists() else None,
        )

    def to_record(self, finished: FinishedJob[MarkerNetwork]) -> dict[str, Any]:
        """Convert a finished network to its record."""
        numbers = asdict(finished.result)
        if finished.result.loss_weights is None:  # as in the records of gliomark 0.1
            del numbers["loss_weights"]
        return {"key": finished.key, **numbers, "seconds": finished.seconds}

    def from_record(self, record: dict[str, Any]) -> FinishedJob[MarkerNetwork]:
        """Convert a record to a finished network."""
        network = MarkerNetwork(
            record["million_parameters"], record["fusion_weights"], record.get("loss_weights")
        )
        return FinishedJob(record["key"], network, record["seconds"])

    def describe(self, job: MarkerJob, finished: FinishedJob[MarkerNetwork]) -> str:
        """Describe a network by the folds that it was not trained on."""
        folds = " and ".join(str(index + 1) for index in job.excluded_folds)
        return f"{job.run.name}, trained without fold {folds}: {finished.seconds} s"

    def load_vectors(self, job: MarkerJob, data: MarkerData) -> dict[str, PatientVectors]:
        """Load the vectors of a finished network, by patient.

        Raises
        ------
        CohortError
            If the file of the vectors is missing.
        """
        record_path = self.get_record_path(job)
        path = record_path.with_suffix(".npz")
        if not path.exists():
            raise CohortError(f"{path} is missing; delete {record_path} to train again.")
        with np.load(path) as columns:
            patients, vectors = columns["patient"], columns["vectors"]
        return {
            name: data.lesion_slice_inputs[name].attach_vectors(vectors[patients == name])
            for name in dict.fromkeys(patients.tolist())
        }


def split_job_patients(job: MarkerJob, data: MarkerData) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split the patients of a job into those trained on and those then evaluated.

    Raises
    ------
    CohortError
        If a patient is in both.
    """
    if len(job.excluded_folds) == 1:
        split = data.split_fold(job.fold_index, job.run.training.seed)
        trained_on, evaluated = split.training, (*split.validation, *split.test)
    else:
        evaluated = tuple(p for index in job.excluded_folds for p in data.list_fold_patients(index))
        trained_on = tuple(sorted(set(data.labels) - set(evaluated)))
    check_disjoint({"trained on": trained_on, "tested on": evaluated})
    return trained_on, evaluated


def _save_vectors(vectors: Mapping[str, PatientVectors], path: Path) -> None:
    content = BytesIO()
    np.savez(
        content,
        patient=np.concatenate([[p] * len(v.vectors) for p, v in vectors.items()]),
        vectors=np.concatenate([v.vectors for v in vectors.values()]),
    )
    atomic_write(path, content.getvalue())
