"""Training and evaluation behind chapter 3's tables: named runs, five folds by patient, each trained once.

A finished fold is a record and a weights file under ``OUT/work/segmentation/<run>``. All tables share it, it is not
trained again, and an interrupted fold continues from its checkpoint. Folds are distributed over processes or machines
by dask; all machines must have the cohorts at the same paths.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from gliomark.cohort.folds import FOLD_COUNT, FoldSplit, check_disjoint, load_cohort_folds, split_fold
from gliomark.cohort.store import Cohort, write_json
from gliomark.errors import CohortError
from gliomark.evaluation.segmentation_metrics import compute_segmentation_scores
from gliomark.experiments.job_runner import run_jobs
from gliomark.experiments.result_files import find_finished_fold, to_file_name
from gliomark.inference.segmenter import Segmenter, select_sequences
from gliomark.models.weights import Weights, load_weights, save_weights
from gliomark.pipeline import build_segmenter
from gliomark.study import MRSequence
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
    def pooling_factor(self) -> float:
        """Pooling factor at inference."""
        return self.read_pool or self.training.pool


@dataclass(frozen=True)
class FoldTrainingJob:
    """One fold of one run.

    fold_index: from 0; cohort_folders: the patients of this fold of every cohort are tested.
    """

    run: SegmentationRun
    fold_index: int
    cohort_folders: tuple[Path, ...]
    work_folder: Path

    @property
    def record_path(self) -> Path:
        """Path of the finished fold's record."""
        return get_run_folder(self.work_folder, self.run.name) / f"fold_{self.fold_index + 1}.json"

    def get_weights_path(self, run_name: str | None = None) -> Path:
        """Return the path of the fold's weights, of this run or of another one."""
        return (
            get_run_folder(self.work_folder, run_name or self.run.name)
            / f"fold_{self.fold_index + 1}.safetensors"
        )


def get_run_folder(work_folder: Path, run_name: str) -> Path:
    """Return the folder of a run, ``OUT/work/segmentation/<run>``, with the name in file-system form."""
    return work_folder / "segmentation" / to_file_name(run_name)


def execute_runs(
    runs: Sequence[SegmentationRun],
    cohort_folders: Sequence[Path],
    work_folder: Path,
    notify: Callable[[str], None],
    workers: int | None = None,
    scheduler: str | None = None,
    fold_count: int = 0,
) -> list[dict]:
    """Train and evaluate the unfinished folds of all runs; the records of all.

    fold_count: only the first folds, 0 for all; workers, scheduler: see ``job_runner.run_jobs``.

    Raises
    ------
    CohortError
        If a kept fold was made with other settings, patients, images or weights.
    """
    # fold by fold, so that an interrupted experiment has every run on the folds finished so far
    jobs = [
        FoldTrainingJob(t, n, tuple(cohort_folders), work_folder)
        for n in range(fold_count or FOLD_COUNT)
        for t in runs
    ]
    records = {job: find_fold_record(job) for job in jobs}
    missing = [job for job, record in records.items() if record is None]
    notify(f"{len(jobs)} folds of {len(runs)} runs, {len(jobs) - len(missing)} of them already finished")
    for stage in _order_by_dependency(missing):
        records |= run_jobs(
            stage,
            train_and_evaluate_fold,
            lambda j, r: notify(f"{j.run.name}, fold {j.fold_index + 1}: {_describe_fold(r)}"),
            workers,
            scheduler,
        )
    return [record for record in records.values() if record is not None]


def _order_by_dependency(jobs: Sequence[FoldTrainingJob]) -> Iterable[list[FoldTrainingJob]]:
    """Order jobs: runs that need networks of another run come after it."""
    independent = [job for job in jobs if not (job.run.teacher or job.run.weights_of)]
    dependent = [job for job in jobs if job.run.teacher or job.run.weights_of]
    return [stage for stage in (independent, dependent) if stage]


def _describe_fold(record: dict) -> str:
    dice = np.mean(
        [row["dice"] for row in record["patients"] if row["cohort"] == 0 and row["dice"] is not None]
    )
    return f"mean Dice {dice:.3f}, epoch {record['best_epoch']} of {record['epochs']}, {record['seconds']} s"


def find_fold_record(job: FoldTrainingJob) -> dict | None:
    """Read the record of a finished fold; None if there is none.

    Raises
    ------
    CohortError
        If it was made with other settings, patients, images or weights.
    """
    return find_finished_fold(job.record_path, create_fold_key(job))


def create_fold_key(job: FoldTrainingJob) -> dict:
    """Settings, patients, image hashes and required networks that identify a finished fold."""
    cohorts = [Cohort(folder) for folder in job.cohort_folders]
    patients_by_cohort = [list_patients_with_mask(cohort) for cohort in cohorts]
    dependency_paths = [job.get_weights_path(name) for name in (job.run.weights_of, job.run.teacher) if name]
    key = {
        "trial": asdict(job.run),
        "fold": job.fold_index + 1,
        "splits": [asdict(_split_fold(cohort, job)) for cohort in cohorts],
        "arrays": [cohort.hash_arrays(p) for cohort, p in zip(cohorts, patients_by_cohort, strict=True)],
        "grades": [
            [get_high_grade_label(cohort.get_clinical(patient)) for patient in p]
            for cohort, p in zip(cohorts, patients_by_cohort, strict=True)
        ],
        "leans_on": [load_weights(path).sha256 if path.exists() else "" for path in dependency_paths],
    }
    return json.loads(json.dumps(key))


def _split_fold(cohort: Cohort, job: FoldTrainingJob) -> FoldSplit:
    return split_fold(
        load_cohort_folds(cohort), job.fold_index, list_patients_with_mask(cohort), job.run.training.seed
    )


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


def train_and_evaluate_fold(job: FoldTrainingJob) -> dict:
    """Train on the training patients, stop early by the validation patients, evaluate the test patients; the record.

    Raises
    ------
    CohortError
        If a kept fold was made with another key, or a network was trained on a test patient.
    """
    started, run = time.time(), job.run
    finished_record = find_fold_record(job)
    if finished_record is not None:
        return finished_record
    cohorts = [Cohort(folder) for folder in job.cohort_folders]
    splits = [_split_fold(cohort, job) for cohort in cohorts]
    record = {
        "key": create_fold_key(job),
        "epochs": 0,
        "best_epoch": 0,
        "slices_per_second": 0.0,
        "waiting_share": 0.0,
    }
    if run.weights_of is None:
        if not job.get_weights_path().exists():
            _train_network(job, cohorts, splits)
        facts = job.record_path.with_suffix("") / "facts.json"
        record |= json.loads(facts.read_text("utf-8"))
    weights = load_weights(job.get_weights_path(run.weights_of))
    trained_on = weights.card.training_patients
    check_disjoint({"trained on": trained_on, "tested on": [p for s in splits for p in s.test]})
    segmenter = create_run_segmenter(run, weights)
    if run.shown is not None:
        segmenter = replace(segmenter, sequences=(run.shown,), rule="single")
    record["patients"] = [
        {"cohort": index, "patient": patient, **evaluate_patient(segmenter, cohort, patient)}
        for index, (cohort, split) in enumerate(zip(cohorts, splits, strict=True))
        for patient in split.test
        if run.shown is None or run.shown in cohort.get_sequences(patient)
    ]
    record["seconds"] = round(time.time() - started)
    write_json(job.record_path, record)
    shutil.rmtree(job.record_path.with_suffix(""), ignore_errors=True)
    return record


def create_run_segmenter(run: SegmentationRun, weights: Weights) -> Segmenter:
    """Create a segmenter from weights with the inference settings of the run."""
    return replace(
        build_segmenter(weights),
        uses_mirroring=run.flips,
        min_component_share=run.smallest_share,
        pooling_factor=run.pooling_factor,
    )


def _train_network(job: FoldTrainingJob, cohorts: Sequence[Cohort], splits: Sequence[FoldSplit]) -> None:
    """Train the network of a fold; write its weights and, in ``facts.json``, epochs and speed of the training."""
    run, settings = job.run, job.run.training
    work = job.record_path.with_suffix("")
    write_json(work / "key.json", {"key": create_fold_key(job)})
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
        teacher_weights = load_weights(job.get_weights_path(run.teacher))
        check_disjoint(
            {"the teacher was trained on": teacher_weights.card.training_patients, "tested on": test}
        )
        teacher = build_segmenter(teacher_weights).network
    trained = train_segmentation_network(dataset, settings, work, validation, teacher)
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
    write_json(work / "facts.json", facts)
    tensors = collect_segmentation_tensors(trained.network, trained.prior)
    save_weights(job.get_weights_path(), card, tensors, build_segmenter)


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


def evaluate_patient(segmenter: Segmenter, cohort: Cohort, patient: str) -> dict:
    """Compute the scores of one patient's segmentation and the predicted grade, as JSON values.

    high_grade: 1 for WHO grade 3 or 4. Unknown or undefined values are None.
    """
    stack = cohort.read_stack(patient, segmenter.sequences)
    mask = segmenter.segment(stack).mask
    probability = segmenter.predict_high_grade_probability(stack, stack.reader_mask)
    scores = asdict(compute_segmentation_scores(stack.reader_mask, mask, stack.brain, stack.spacing_mm))
    scores |= {"lesion_free": list(scores["lesion_free"]), "high_grade_probability": probability}
    json_scores = {
        name: None if value != value else value for name, value in scores.items()
    }  # JSON has no NaN
    return json_scores | {"high_grade": get_high_grade_label(cohort.get_clinical(patient))}
