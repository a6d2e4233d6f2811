"""Training and evaluation of the weights that outline the lesion from T1C and T2.

Few public patients have T2 and a lesion mask. The network therefore learns from synthetic T2, drawn from T1C and FLAIR
of the first cohort (``training.synthetic_t2``), and from the real T2 of the second cohort, whose patients are also in
the first one. The patients with real T2 are divided into groups. Each group is tested on its real T2 and the masks of
the second cohort, by a network trained on all other patients of both cohorts. The network of the first group is the
one that is shipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from gliomark.cohort.folds import check_disjoint, load_cohort_folds
from gliomark.cohort.store import Cohort, write_json
from gliomark.errors import CohortError
from gliomark.experiments.config import ExperimentConfig
from gliomark.experiments.result_files import create_run_record, write_table
from gliomark.experiments.runner import FinishedJob, TrainingJob, complete_jobs
from gliomark.experiments.segmentation.procedure import (
    SegmentationRun,
    evaluate_patient,
    list_patients_with_mask,
    to_run_record,
)
from gliomark.experiments.segmentation.result_tables import (
    EvaluatedFold,
    list_shipped_runs,
    summarise_patients,
    tabulate_patients,
)
from gliomark.messages import message
from gliomark.model_loading import build_model, build_segmenter
from gliomark.models.network_loading import load_segmentation_network
from gliomark.models.second_segmentation import add_second_segmentation
from gliomark.models.weights import Weights, load_weights, save_weights
from gliomark.study import MRSequence
from gliomark.training.recipes import (
    collect_segmentation_tensors,
    create_segmentation_card,
    get_cohort_sequences,
    update_inference_settings,
)
from gliomark.training.segmentation import train_segmentation_network
from gliomark.training.slice_dataset import SliceDataset, join_datasets, load_slice_dataset
from gliomark.training.synthetic_t2 import add_synthesis_region

EXPERIMENT_NAME = "t2_outline"
RUN_NAME = "T1C and T2"
GROUP_COUNT = 2
EPOCH_COUNT = 6  # each has a fifth more slices than one of the shipped weights, which have 14
REAL_T2_DRAW_WEIGHT = 5  # patients with real T2 are few, and their thin slices many
FLAIR_SEQUENCES = (MRSequence.T1C, MRSequence.FLAIR)
T2_SEQUENCES = (MRSequence.T1C, MRSequence.T2)

T2Job = TrainingJob[SegmentationRun]


@dataclass(frozen=True)
class T2Patients:
    """Patients of one training: with FLAIR, from which T2 is drawn, with real T2, and tested on their real T2.

    Raises
    ------
    CohortError
        If a tested patient is trained on, in either cohort.
    """

    synthetic: tuple[str, ...]
    real: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        check_disjoint({"trained on": {*self.synthetic, *self.real}, "tested on": self.test})

    @property
    def training(self) -> tuple[str, ...]:
        """All patients trained on, sorted."""
        return tuple(sorted({*self.synthetic, *self.real}))


@cache
def open_cohort(folder: Path) -> Cohort:
    """Open a cohort once per process: it remembers which patients' images were verified, which takes half a minute."""
    return Cohort(folder)


def split_t2_patients(
    flair_cohort: Cohort, t2_cohort: Cohort, excluded_groups: tuple[int, ...]
) -> T2Patients:
    """Divide the patients of both cohorts: those of the excluded groups, numbered from 0, are tested.

    Raises
    ------
    CohortError
        If the cohorts have no patient in common, so that a person may have another id in each of them.
    """
    with_t2 = list_patients_with_mask(t2_cohort)
    if not set(with_t2) & set(flair_cohort.patient_ids):
        raise CohortError(
            f"No patient of {t2_cohort.folder} is in {flair_cohort.folder}; build both cohorts with --keep-ids from "
            "the same patients."
        )
    held_back = {patient for number in excluded_groups for patient in with_t2[number::GROUP_COUNT]}
    with_flair = [
        patient
        for patient in list_patients_with_mask(flair_cohort)
        if set(FLAIR_SEQUENCES) <= set(flair_cohort.get_sequences(patient))
    ]
    return T2Patients(
        tuple(patient for patient in with_flair if patient not in held_back),
        tuple(patient for patient in with_t2 if patient not in held_back),
        tuple(patient for patient in with_t2 if patient in held_back),
    )


def load_t2_dataset(
    flair_cohort: Cohort, t2_cohort: Cohort, patients: T2Patients, neighbour_slices: int
) -> SliceDataset:
    """Load the training slices: T1C with FLAIR, marked for synthesis, and T1C with real T2."""
    synthetic = add_synthesis_region(
        load_slice_dataset(flair_cohort, patients.synthetic, FLAIR_SEQUENCES, True, neighbour_slices),
        [flair_cohort.read_stack(patient).brain for patient in patients.synthetic],
        neighbour_slices,
    )
    if not patients.real:
        return synthetic
    real = load_slice_dataset(t2_cohort, patients.real, T2_SEQUENCES, True, neighbour_slices)
    weight = torch.full((len(patients.real),), REAL_T2_DRAW_WEIGHT)
    return join_datasets(synthetic, replace(real, draw_weight=weight))


@dataclass(frozen=True)
class T2Procedure:
    """Training on synthetic and real T2, and the test on real T2; the cohorts of a job are those with FLAIR and T2."""

    def list_jobs(self, runs: Sequence[SegmentationRun], _: int, config: ExperimentConfig) -> list[T2Job]:
        """List the trainings, each without one of the groups."""
        return [
            TrainingJob(run, (number,), config.cohort_folders, config.work_folder)
            for run in runs
            for number in range(GROUP_COUNT)
        ]

    def get_record_path(self, job: T2Job) -> Path:
        """Return the path of the job's record, beside its weights."""
        return job.work_folder / "t2" / f"group_{job.fold_index + 1}.json"

    def create_key(self, job: T2Job) -> dict[str, Any]:
        """Settings, patients and image hashes that identify the training."""
        flair_cohort, t2_cohort = (open_cohort(folder) for folder in job.cohort_folders)
        patients = split_t2_patients(flair_cohort, t2_cohort, job.excluded_folds)
        return {
            "trial": to_run_record(job.run),
            "patients": asdict(patients),
            "arrays": [
                flair_cohort.hash_arrays(patients.synthetic),
                t2_cohort.hash_arrays((*patients.real, *patients.test)),
            ],
        }

    def execute(self, job: T2Job, checkpoint_folder: Path) -> tuple[dict[str, Any], ...]:
        """Train unless the weights are there, then test; a row of scores per test patient.

        Raises
        ------
        CohortError
            If a network was trained on a test patient.
        """
        flair_cohort, t2_cohort = (open_cohort(folder) for folder in job.cohort_folders)
        patients = split_t2_patients(flair_cohort, t2_cohort, job.excluded_folds)
        path = self.get_record_path(job).with_suffix(".safetensors")
        if not path.exists():
            self._train(job, flair_cohort, t2_cohort, patients, checkpoint_folder)
        weights = load_weights(path)
        check_disjoint({"trained on": weights.card.training_patients, "tested on": patients.test})
        segmenter, network = build_segmenter(weights), load_segmentation_network(weights)
        return tuple(
            {"cohort": 0, "patient": patient, **evaluate_patient(segmenter, network, t2_cohort, patient)}
            for patient in patients.test
        )

    def _train(
        self,
        job: T2Job,
        flair_cohort: Cohort,
        t2_cohort: Cohort,
        patients: T2Patients,
        checkpoint_folder: Path,
    ) -> None:
        run, settings = job.run, job.run.training
        dataset = load_t2_dataset(flair_cohort, t2_cohort, patients, settings.context)
        # check the patients of the slices actually fed to the network, not only the lists of names
        check_disjoint({"trained on": set(dataset.patient_ids), "tested on": patients.test})
        trained = train_segmentation_network(dataset, settings, checkpoint_folder)
        folds = load_cohort_folds(flair_cohort)
        card = create_segmentation_card(run.name, t2_cohort, folds, patients.training, run.rule, settings)
        card = update_inference_settings(card, run.flips, run.smallest_share, run.pooling_factor)
        save_weights(
            self.get_record_path(job).with_suffix(".safetensors"),
            card,
            collect_segmentation_tensors(trained.network, trained.prior),
            partial(build_segmenter, engine="torch"),
        )

    def to_record(self, finished: FinishedJob[tuple[dict[str, Any], ...]]) -> dict[str, Any]:
        """Convert the finished job to its record."""
        return {"key": finished.key, "patients": list(finished.result), "seconds": finished.seconds}

    def from_record(self, record: dict[str, Any]) -> FinishedJob[tuple[dict[str, Any], ...]]:
        """Convert a record to the finished job."""
        return FinishedJob(record["key"], tuple(record["patients"]), record["seconds"])

    def describe(self, job: T2Job, finished: FinishedJob[tuple[dict[str, Any], ...]]) -> str:
        """Describe the finished job by the Dice of its test patients."""
        dice = ", ".join(f"{row['patient']} {row['dice']:.3f}" for row in finished.result)
        return f"{self.get_record_path(job).stem}: {dice}, {finished.seconds} s"


def create_t2_run(cohort: Cohort) -> SegmentationRun:
    """Create the run: the shipped FLAIR weights' network, training except for its length, and inference settings."""
    run = list_shipped_runs(cohort)[-1]
    return replace(run, name=RUN_NAME, weights_of=None, training=replace(run.training, epochs=EPOCH_COUNT))


def run_t2_outline(config: ExperimentConfig, model_weights: Weights) -> None:
    """Train and test the missing networks, and write weights, tables and run record.

    model_weights: the model for T1C and FLAIR; with the first network it becomes ``OUT/demonstration.safetensors``.

    Raises
    ------
    CohortError
        If the cohorts are not prepared for T1C and FLAIR, and T1C and T2; if they have no patient in common; or if the
        work folder holds networks of another recipe or other patients.
    """
    cohorts = [open_cohort(folder) for folder in config.cohort_folders]
    for cohort, wanted in zip(cohorts, (FLAIR_SEQUENCES, T2_SEQUENCES), strict=True):
        if get_cohort_sequences(cohort) != wanted:
            raise CohortError(f"{cohort.folder} must be prepared with --sequences {','.join(wanted)}.")
    procedure, run = T2Procedure(), create_t2_run(cohorts[0])
    finished = complete_jobs(procedure.list_jobs([run], 0, config), procedure, config)
    folds = [EvaluatedFold(run.name, job.fold_index + 1, one.result) for job, one in finished.items()]
    patients = tabulate_patients(folds, config.cohort_names[1:])
    summary = pd.DataFrame([{"trial": run.name, **summarise_patients(patients)}])
    write_table(patients, config.output_folder / f"{EXPERIMENT_NAME}_patients.csv")
    write_table(summary, config.output_folder / f"{EXPERIMENT_NAME}.csv")
    config.notify(patients[["fold", "patient", "dice"]].to_string(index=False))
    first = min(finished, key=lambda job: job.fold_index)
    weights = load_weights(procedure.get_record_path(first).with_suffix(".safetensors"))
    performance = _describe_performance(summary.iloc[0], len(finished[first].result))
    card, tensors = add_second_segmentation(model_weights, weights, performance)
    path = config.output_folder / "demonstration.safetensors"
    save_weights(path, card, tensors, partial(build_model, engine="torch"))
    joined = load_weights(path)
    _write_run_record(
        config.output_folder / f"{EXPERIMENT_NAME}_run_record.json", cohorts, run, joined, finished
    )


def _describe_performance(summary: pd.Series, unseen: int) -> str:
    """Describe the result for the card of the weights; a change of the text alters the weights file.

    unseen: number of the patients on whom the shipped network was not trained.
    """
    return message(
        "outline-performance-t2",
        dice=f"{summary.dice:.2f}",
        low=f"{summary.dice_low_95:.2f}",
        high=f"{summary.dice_high_95:.2f}",
        median=f"{summary.dice_median:.2f}",
        worst=f"{summary.dice_worst:.2f}",
        patients=f"{summary.patients:.0f}",
        seen=f"{summary.patients - unseen:.0f}",
    )


def _write_run_record(
    path: Path,
    cohorts: Sequence[Cohort],
    run: SegmentationRun,
    weights: Weights,
    finished: Mapping[T2Job, FinishedJob[Any]],
) -> None:
    record = create_run_record(
        EXPERIMENT_NAME,
        run=to_run_record(run),
        real_t2_draw_weight=REAL_T2_DRAW_WEIGHT,
        folds_sha256=load_cohort_folds(cohorts[0]).sha256,
        splits=[one.key["patients"] for one in finished.values()],
        seconds=sum(one.seconds for one in finished.values()),
        weights_sha256=weights.sha256,
    )
    write_json(path, record)
