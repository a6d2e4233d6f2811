"""Training and evaluation behind chapter 3's tables: named runs, five folds by patient, each trained once.

A finished fold is a record and a weights file under ``OUT/work/segmentation/<run>``, which all tables share.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gliomark.cohort.folds import FoldSplit, check_disjoint, load_cohort_folds, split_fold
from gliomark.cohort.store import Cohort, write_json
from gliomark.errors import CohortError
from gliomark.evaluation.segmentation_metrics import compute_segmentation_scores
from gliomark.experiments.config import ExperimentConfig
from gliomark.experiments.result_files import to_file_name
from gliomark.experiments.runner import FinishedJob, TrainingJob
from gliomark.inference.segmenter import Segmenter, select_sequences
from gliomark.model_loading import build_segmenter
from gliomark.models.network_io import downsample_by_averaging
from gliomark.models.network_loading import load_segmentation_network
from gliomark.models.weights import Weights, load_weights, save_weights
from gliomark.study import MRSequence, SliceStack
from gliomark.training.recipes import (
    collect_segmentation_tensors,
    create_segmentation_card,
    get_cohort_sequences,
)
from gliomark.training.segmentation import SegmentationTrainingConfig, train_segmentation_network
from gliomark.training.slice_dataset import (
    SliceDataset,
    get_high_grade_label,
    join_datasets,
    load_slice_dataset,
)
from gliomark.training.work_folder import to_config_record


@dataclass(frozen=True)
class SegmentationRun:
    """A named run: training of a network and its settings at inference.

    rule: "single" (reference sequence), "union" (every sequence a separate sample, masks united) or "joint" (all
    sequences as one input). trained_on: indices of the cohorts whose training patients are used. weights_of: another
    run whose networks are used instead of training. teacher: run whose network of the same fold is distilled. flips,
    smallest_share: as in ``Segmenter``. shown: the only sequence used in the test, None for those of the rule.
    read_pool: pooling factor at inference, None for that of the training.
    """

    name: str
    training: SegmentationTrainingConfig
    rule: str = "single"
    trained_on: tuple[int, ...] = (0,)
    weights_of: str | None = None
    teacher: str | None = None
    flips: bool = False
    smallest_share: float = 0.0
    shown: MRSequence | None = None
    read_pool: float | None = None

    @property
    def depends_on(self) -> tuple[str, ...]:
        """Names of the runs whose networks it needs."""
        return tuple(name for name in (self.weights_of, self.teacher) if name)

    @property
    def row_name(self) -> str:
        """Name of the row in the tables, which the runs of a network with other seeds share."""
        return self.name.removesuffix(_format_seed(self.training.seed))

    @property
    def pooling_factor(self) -> float:
        """Pooling factor at inference."""
        return self.read_pool or self.training.pool


FoldJob: TypeAlias = TrainingJob[SegmentationRun]
# the validation patients of a fold are the same for every seed of the training
SPLIT_SEED = 0


def repeat_with_seed(run: SegmentationRun, seed: int) -> SegmentationRun:
    """Return the run with another seed and a name, and so a work folder, of its own; seed 0 is the run itself.

    The networks that it needs are those of the same seed.
    """
    if seed == run.training.seed:
        return run

    def rename(name: str | None) -> str | None:
        return name and name + _format_seed(seed)

    return replace(
        run,
        name=run.name + _format_seed(seed),
        training=replace(run.training, seed=seed),
        weights_of=rename(run.weights_of),
        teacher=rename(run.teacher),
    )


def _format_seed(seed: int) -> str:
    return f", seed {seed}" if seed else ""


@dataclass(frozen=True)
class SegmentationFold:
    """Result of one fold of one run.

    patients: one row of scores per test patient, see ``evaluate_patient``, with the number of the cohort; the others
    are of the training, 0 where networks of another run are evaluated.
    """

    patients: tuple[dict[str, Any], ...]
    epochs: int = 0
    best_epoch: int = 0
    slices_per_second: float = 0.0
    waiting_share: float = 0.0


def split_patients_of_fold(cohort: Cohort, job: FoldJob) -> FoldSplit:
    """Split the patients with a mask: those of the fold are tested."""
    return split_fold(load_cohort_folds(cohort), job.fold_index, list_patients_with_mask(cohort), SPLIT_SEED)


def split_training_part(cohort: Cohort, job: FoldJob) -> FoldSplit:
    """Split the training part of a fold alone: its validation patients are tested, none of them stops the training."""
    split = split_patients_of_fold(cohort, job)
    return FoldSplit(split.training, (), split.validation)


@dataclass(frozen=True)
class SegmentationProcedure:
    """Training and evaluation of segmentation networks, fold by fold.

    first_cohort_runs: names of the runs that are tested on the first cohort alone, as in the tables of one cohort;
    split_patients: who is trained on and who is tested in a job.
    """

    first_cohort_runs: tuple[str, ...] = ()
    split_patients: Callable[[Cohort, FoldJob], FoldSplit] = split_patients_of_fold

    def list_jobs(
        self, runs: Sequence[SegmentationRun], fold_count: int, config: ExperimentConfig
    ) -> list[FoldJob]:
        """List the folds of all runs, seed by seed and fold by fold.

        An interrupted experiment has every run on the same seeds and folds.
        """
        return [
            create_fold_job(
                repeat_with_seed(run, seed), index, self._select_cohorts(run, config), config.work_folder
            )
            for seed in range(config.seeds)
            for index in range(fold_count)
            for run in runs
        ]

    def _select_cohorts(self, run: SegmentationRun, config: ExperimentConfig) -> tuple[Path, ...]:
        return config.cohort_folders[:1] if run.name in self.first_cohort_runs else config.cohort_folders

    def get_record_path(self, job: FoldJob) -> Path:
        """Return the path of the fold's record."""
        return get_run_folder(job.work_folder, job.run.name) / f"fold_{job.fold_index + 1}.json"

    def create_key(self, job: FoldJob) -> dict[str, Any]:
        """Settings, patients, image hashes and required networks that identify a finished fold."""
        cohorts = [Cohort(folder) for folder in job.cohort_folders]
        patients_by_cohort = [list_patients_with_mask(cohort) for cohort in cohorts]
        dependency_paths = [get_weights_path(job, name) for name in job.run.depends_on]
        return {
            "trial": to_run_record(job.run),
            "fold": job.fold_index + 1,
            "splits": [asdict(self.split_patients(cohort, job)) for cohort in cohorts],
            "arrays": [cohort.hash_arrays(p) for cohort, p in zip(cohorts, patients_by_cohort, strict=True)],
            "grades": [
                [get_high_grade_label(cohort.get_clinical(patient)) for patient in p]
                for cohort, p in zip(cohorts, patients_by_cohort, strict=True)
            ],
            "leans_on": [load_weights(path).sha256 if path.exists() else "" for path in dependency_paths],
        }

    def execute(self, job: FoldJob, checkpoint_folder: Path) -> SegmentationFold:
        """Train on the training patients, stop early by the validation patients, evaluate the test patients.

        Raises
        ------
        CohortError
            If a network was trained on a test patient.
        """
        run = job.run
        cohorts = [Cohort(folder) for folder in job.cohort_folders]
        splits = [self.split_patients(cohort, job) for cohort in cohorts]
        facts: dict[str, Any] = {}
        if run.weights_of is None:
            if not get_weights_path(job, run.name).exists():
                _train_network(job, cohorts, splits, checkpoint_folder)
            facts = json.loads((checkpoint_folder / "facts.json").read_text("utf-8"))
        weights = load_weights(get_weights_path(job))
        trained_on = weights.card.training_patients
        check_disjoint({"trained on": trained_on, "tested on": [p for s in splits for p in s.test]})
        segmenter, network = create_run_segmenter(run, weights), load_segmentation_network(weights)
        if run.shown is not None:
            segmenter = replace(segmenter, sequences=(run.shown,), rule="single")
        patients = (
            {"cohort": index, "patient": patient, **evaluate_patient(segmenter, network, cohort, patient)}
            for index, (cohort, split) in enumerate(zip(cohorts, splits, strict=True))
            for patient in split.test
            if run.shown is None or run.shown in cohort.get_sequences(patient)
        )
        return SegmentationFold(tuple(patients), **facts)

    def to_record(self, finished: FinishedJob[SegmentationFold]) -> dict[str, Any]:
        """Convert a finished fold to its record."""
        numbers = asdict(finished.result)
        patients = list(numbers.pop("patients"))
        return {"key": finished.key, **numbers, "patients": patients, "seconds": finished.seconds}

    def from_record(self, record: dict[str, Any]) -> FinishedJob[SegmentationFold]:
        """Convert a record to a finished fold."""
        numbers = {f.name: record[f.name] for f in fields(SegmentationFold)}
        fold = SegmentationFold(**numbers | {"patients": tuple(record["patients"])})
        return FinishedJob(record["key"], fold, record["seconds"])

    def describe(self, job: FoldJob, finished: FinishedJob[SegmentationFold]) -> str:
        """Describe a fold by its mean Dice on the first cohort."""
        fold = finished.result
        dice = np.mean(
            [row["dice"] for row in fold.patients if row["cohort"] == 0 and row["dice"] is not None]
        )
        return (
            f"{job.run.name}, fold {job.fold_index + 1}: mean Dice {dice:.3f}, epoch {fold.best_epoch} of "
            f"{fold.epochs}, {finished.seconds} s"
        )


def create_fold_job(
    run: SegmentationRun, fold_index: int, cohort_folders: Sequence[Path], work_folder: Path
) -> FoldJob:
    """Create the job of one fold (from 0); the patients of this fold of every cohort are tested."""
    return TrainingJob(run, (fold_index,), tuple(cohort_folders), work_folder)


def get_run_folder(work_folder: Path, run_name: str) -> Path:
    """Return the folder of a run, ``OUT/work/segmentation/<run>``, with the name in file-system form."""
    return work_folder / "segmentation" / to_file_name(run_name)


def get_weights_path(job: FoldJob, run_name: str | None = None) -> Path:
    """Return the path of the fold's weights, of a run by name; None for those that the job is evaluated with."""
    name = run_name or job.run.weights_of or job.run.name
    return get_run_folder(job.work_folder, name) / f"fold_{job.fold_index + 1}.safetensors"


def to_run_record(run: SegmentationRun) -> dict[str, Any]:
    """Convert a run to the form by which its finished folds are recognised."""
    return {**asdict(run), "training": to_config_record(run.training)}


def list_patients_with_mask(cohort: Cohort) -> list[str]:
    """List the patients with a lesion mask.

    Raises
    ------
    CohortError
        If there is none.
    """
    patients_with_mask = [p for p in cohort.patient_ids if cohort.has_mask(p)]
    if not patients_with_mask:
        raise CohortError(
            f"{cohort.folder} has no patient with a lesion mask; build it from studies that include masks."
        )
    return patients_with_mask


def create_run_segmenter(run: SegmentationRun, weights: Weights) -> Segmenter:
    """Create a segmenter from weights with the inference settings of the run."""
    return replace(
        build_segmenter(weights, engine="torch"),
        uses_mirroring=run.flips,
        min_component_share=run.smallest_share,
        pooling_factor=run.pooling_factor,
    )


def _train_network(
    job: FoldJob, cohorts: Sequence[Cohort], splits: Sequence[FoldSplit], checkpoint_folder: Path
) -> None:
    """Train the network of a fold; write its weights and, in ``facts.json``, epochs and speed of the training."""
    run, settings = job.run, job.run.training
    training_cohorts = [
        (cohorts[i], settings.split_patients(splits[i].training, splits[i].validation))
        for i in run.trained_on
    ]
    dataset = _load_slice_dataset([(c, learnt) for c, (learnt, _) in training_cohorts], run)
    validation = (
        _load_slice_dataset([(c, stopping) for c, (_, stopping) in training_cohorts], run)
        if settings.validate_every
        else None
    )
    early_stopping_patients = () if validation is None else validation.patient_ids
    test = [p for split in splits for p in split.test]
    # check the patients of the slices actually fed to the network, not only the lists of names
    check_disjoint(
        {"trained on": dataset.patient_ids, "validated on": early_stopping_patients, "tested on": test}
    )
    teacher: nn.Module | None = None
    if run.teacher is not None:
        teacher_weights = load_weights(get_weights_path(job, run.teacher))
        check_disjoint(
            {"the teacher was trained on": teacher_weights.card.training_patients, "tested on": test}
        )
        teacher = load_segmentation_network(teacher_weights)
    trained = train_segmentation_network(dataset, settings, checkpoint_folder, validation, teacher)
    patients_seen = (*dataset.patient_ids, *early_stopping_patients)
    first = training_cohorts[0][0]
    card = create_segmentation_card(
        run.name, first, load_cohort_folds(first), patients_seen, run.rule, settings
    )
    facts = {
        "epochs": trained.epochs,
        "best_epoch": trained.best_epoch,
        "slices_per_second": round(trained.slices_per_second, 2),
        "waiting_share": round(trained.waiting_share, 4),
    }
    # before the weights: a fold with weights is not trained again, so this file must already exist
    write_json(checkpoint_folder / "facts.json", facts)
    tensors = collect_segmentation_tensors(trained.network, trained.prior)
    save_weights(get_weights_path(job, run.name), card, tensors, partial(build_segmenter, engine="torch"))


def _load_slice_dataset(
    patients_by_cohort: Sequence[tuple[Cohort, Sequence[str]]], run: SegmentationRun
) -> SliceDataset:
    datasets = []
    for cohort, patients in patients_by_cohort:
        sequences = select_sequences(get_cohort_sequences(cohort), run.rule)
        training = run.training
        datasets.append(
            load_slice_dataset(cohort, patients, sequences, run.rule == "joint", training.context)
        )
    dataset = datasets[0]
    for other in datasets[1:]:
        dataset = join_datasets(dataset, other)
    return dataset


def evaluate_patient(
    segmenter: Segmenter, network: nn.Module, cohort: Cohort, patient: str
) -> dict[str, Any]:
    """Compute the scores of one patient's segmentation and the predicted grade, as JSON values.

    network: that of the segmenter, with its grading task. high_grade: 1 for WHO grade 3 or 4. Unknown or undefined
    values are None.
    """
    stack = cohort.read_stack(patient, segmenter.sequences)
    mask = segmenter.segment(stack).mask
    probability = predict_high_grade_probability(segmenter, network, stack, stack.reader_mask)
    scores = asdict(compute_segmentation_scores(stack.reader_mask, mask, stack.brain, stack.spacing_mm))
    scores |= {"lesion_free": list(scores["lesion_free"]), "high_grade_probability": probability}
    json_scores = {
        name: None if value != value else value for name, value in scores.items()
    }  # JSON has no NaN
    return json_scores | {"high_grade": get_high_grade_label(cohort.get_clinical(patient))}


def predict_high_grade_probability(
    segmenter: Segmenter, network: nn.Module, stack: SliceStack, mask: NDArray[np.bool_]
) -> float:
    """Return the auxiliary task's probability, 0 to 1, of a high-grade glioma (WHO III or IV).

    It is the mean over the slices with lesion in mask ``(slice, row, column)``, in the central view; nan if the network
    has no grading task or no slice shows lesion.
    """
    has_lesion = mask.any(axis=(1, 2))
    if not has_lesion.any():
        return float("nan")
    start = (stack.brain.shape[-1] - segmenter.tile_size) // 2
    central = slice(start, start + segmenter.tile_size)
    theta = torch.eye(2, 3)[None] * (segmenter.tile_size / stack.brain.shape[-1])
    probabilities = []
    for images in segmenter.build_inputs(stack):
        views = torch.from_numpy(images[has_lesion][..., central, central])
        with torch.inference_mode():
            grade = network(
                downsample_by_averaging(views, segmenter.pooling_factor), theta.expand(len(views), -1, -1)
            ).grade_logits
        probabilities.append(float("nan") if grade is None else float(grade.softmax(dim=1)[:, 1].mean()))
    return float(np.mean(probabilities))
