"""The engine behind chapter 3's tables: named trials, five folds by patient, each trained once and kept.

A finished fold is a record and a weights file under ``OUT/work/segmentation/<trial>``; it is not trained again,
by whichever table it is asked for, and an interrupted one goes on from its checkpoint. Folds are shared out
over processes or machines by dask; the machines must see the cohorts at the same paths.
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

from gliomark.cohort.folds import FOLDS, Split, check_disjoint, cohort_folds, fold_split
from gliomark.cohort.store import Cohort, write_json
from gliomark.evaluation.outlines import compare
from gliomark.experiments.records import fit_for_files, kept_fold
from gliomark.experiments.sharing import run_jobs
from gliomark.inference.segmenter import Segmenter, seen_sequences
from gliomark.models.weights import Weights, load_weights, save_weights
from gliomark.pipeline import build_segmenter
from gliomark.study import GliomarkError, MRSequence
from gliomark.training.recipes import cohort_sequences, segmentation_card, segmentation_tensors
from gliomark.training.segmentation import SegmentationTraining, train_segmentation
from gliomark.training.slice_bank import SliceBank, high_grade, joined, load_bank


@dataclass(frozen=True)
class Trial:
    """What is trained and how it is read.

    rule: "single" (the reference sequence), "union" (every sequence a sample, the outlines united) or
    "joint" (the sequences one input). trained_on: whose training patients, as indices into the study's
    cohorts. weights_of: another trial whose networks are only read differently. teacher: a trial whose
    network of the same fold is learnt from. flips, smallest_share: as in ``Segmenter``. shown: the one
    sequence read at test, None as the rule says. read_pool: the pooling read at, None as trained.
    """

    name: str
    training: SegmentationTraining
    rule: str = "single"
    trained_on: tuple[int, ...] = (0,)
    weights_of: str | None = None
    teacher: str | None = None
    flips: bool = False
    smallest_share: float = 0.0
    shown: MRSequence | None = None
    read_pool: float | None = None

    @property
    def pool(self) -> float:
        """At which the network is read."""
        return self.read_pool or self.training.pool


@dataclass(frozen=True)
class FoldJob:
    """One fold of one trial. cohorts: folders; every one's patients of this fold are tested on."""

    trial: Trial
    number: int
    cohorts: tuple[Path, ...]
    work: Path

    @property
    def record_path(self) -> Path:
        """Where the finished fold's record lies."""
        return trial_folder(self.work, self.trial.name) / f"fold_{self.number + 1}.json"

    def weights_path(self, trial: str | None = None) -> Path:
        """The fold's network, or another trial's of the same fold."""
        return trial_folder(self.work, trial or self.trial.name) / f"fold_{self.number + 1}.safetensors"


def trial_folder(work: Path, name: str) -> Path:
    """``OUT/work/segmentation/<trial>``, the name made fit for a file system."""
    return work / "segmentation" / fit_for_files(name)


def run_trials(
    trials: Sequence[Trial],
    cohorts: Sequence[Path],
    work: Path,
    say: Callable[[str], None],
    workers: int | None = None,
    scheduler: str | None = None,
    folds: int = 0,
) -> list[dict]:
    """The records of the first ``folds`` folds (0: all) of every trial, trained now where they are not on disk.

    Raises GliomarkError where a kept fold is another run's, or a fold fails.
    """
    # fold by fold, so that an unfinished study has compared every trial on the folds it has
    jobs = [FoldJob(t, n, tuple(cohorts), work) for n in range(folds or FOLDS) for t in trials]
    records = {job: finished(job) for job in jobs}
    missing = [job for job, record in records.items() if record is None]
    say(f"{len(jobs)} folds of {len(trials)} trials, {len(jobs) - len(missing)} of them finished before")
    for stage in _stages(missing):
        records |= run_jobs(
            stage,
            train_fold,
            lambda j, r: say(f"{j.trial.name}, fold {j.number + 1}: {_words(r)}"),
            workers,
            scheduler,
        )
    return [record for record in records.values() if record is not None]


def _stages(jobs: Sequence[FoldJob]) -> Iterable[list[FoldJob]]:
    """Trials that need another's networks come after it."""
    alone = [job for job in jobs if not (job.trial.teacher or job.trial.weights_of)]
    leaning = [job for job in jobs if job.trial.teacher or job.trial.weights_of]
    return [stage for stage in (alone, leaning) if stage]


def _words(record: dict) -> str:
    dice = np.mean(
        [row["dice"] for row in record["patients"] if row["cohort"] == 0 and row["dice"] is not None]
    )
    return f"mean Dice {dice:.3f}, epoch {record['best_epoch']} of {record['epochs']}, {record['seconds']} s"


def finished(job: FoldJob) -> dict | None:
    """The fold's record, None if there is none. Raises GliomarkError where it is another run's."""
    return kept_fold(job.record_path, fold_key(job))


def fold_key(job: FoldJob) -> dict:
    """What a kept fold must agree with to be taken for this run's, the networks it leans on among it."""
    cohorts = [Cohort(folder) for folder in job.cohorts]
    people = [outlined(cohort) for cohort in cohorts]
    leans_on = [job.weights_path(name) for name in (job.trial.weights_of, job.trial.teacher) if name]
    key = {
        "trial": asdict(job.trial),
        "fold": job.number + 1,
        "splits": [asdict(_split(cohort, job)) for cohort in cohorts],
        "arrays": [cohort.arrays_digest(p) for cohort, p in zip(cohorts, people, strict=True)],
        "grades": [
            [high_grade(cohort.clinical(patient)) for patient in p]
            for cohort, p in zip(cohorts, people, strict=True)
        ],
        "leans_on": [load_weights(path).sha256 if path.exists() else "" for path in leans_on],
    }
    return json.loads(json.dumps(key))


def _split(cohort: Cohort, job: FoldJob) -> Split:
    return fold_split(cohort_folds(cohort), job.number, outlined(cohort), job.trial.training.seed)


def outlined(cohort: Cohort) -> list[str]:
    """The patients with an outline to learn from or be judged by. Raises GliomarkError if there is none."""
    drawn = [p for p in cohort.patient_ids if cohort.has_mask(p)]
    if not drawn:
        raise GliomarkError(
            f"{cohort.folder} has no outlined patient; build it from studies that come with a mask."
        )
    return drawn


def train_fold(job: FoldJob) -> dict:
    """Train on the training patients, stop by the validation patients, judge the test patients; the record."""
    started, trial = time.time(), job.trial
    done = finished(job)
    if done is not None:
        return done
    cohorts = [Cohort(folder) for folder in job.cohorts]
    splits = [_split(cohort, job) for cohort in cohorts]
    record = {
        "key": fold_key(job),
        "epochs": 0,
        "best_epoch": 0,
        "slices_per_second": 0.0,
        "waiting_share": 0.0,
    }
    if trial.weights_of is None:
        if not job.weights_path().exists():
            _train(job, cohorts, splits)
        facts = job.record_path.with_suffix("") / "facts.json"
        record |= json.loads(facts.read_text("utf-8"))
    weights = load_weights(job.weights_path(trial.weights_of))
    trained_on = weights.card.training_patients
    check_disjoint({"trained on": trained_on, "tested on": [p for s in splits for p in s.test]})
    segmenter = trial_segmenter(trial, weights)
    if trial.shown is not None:
        segmenter = replace(segmenter, sequences=(trial.shown,), rule="single")
    record["patients"] = [
        {"cohort": index, "patient": patient, **judge(segmenter, cohort, patient)}
        for index, (cohort, split) in enumerate(zip(cohorts, splits, strict=True))
        for patient in split.test
        if trial.shown is None or trial.shown in cohort.sequences(patient)
    ]
    record["seconds"] = round(time.time() - started)
    write_json(job.record_path, record)
    shutil.rmtree(job.record_path.with_suffix(""), ignore_errors=True)
    return record


def trial_segmenter(trial: Trial, weights: Weights) -> Segmenter:
    """The network, read as the trial says."""
    return replace(
        build_segmenter(weights), flips=trial.flips, smallest_share=trial.smallest_share, pool=trial.pool
    )


def _train(job: FoldJob, cohorts: Sequence[Cohort], splits: Sequence[Split]) -> None:
    """The fold's network, written as a weights file, and beside its checkpoints how the training went."""
    trial, settings = job.trial, job.trial.training
    work = job.record_path.with_suffix("")
    write_json(work / "key.json", {"key": fold_key(job)})
    chosen = [
        (cohorts[i], settings.parts(splits[i].training, splits[i].validation)) for i in trial.trained_on
    ]
    bank = _bank([(c, learnt) for c, (learnt, _) in chosen], trial)
    validation = (
        _bank([(c, stopping) for c, (_, stopping) in chosen], trial) if settings.validate_every else None
    )
    stopped_by = () if validation is None else validation.patient_ids
    test = [p for split in splits for p in split.test]
    # names are one thing, slices another: asked of what is really fed
    check_disjoint({"trained on": bank.patient_ids, "stopped by": stopped_by, "tested on": test})
    teacher: nn.Module | None = None
    if trial.teacher is not None:
        taught = load_weights(job.weights_path(trial.teacher))
        check_disjoint({"the teacher was trained on": taught.card.training_patients, "tested on": test})
        teacher = build_segmenter(taught).network
    trained = train_segmentation(bank, settings, work, validation, teacher)
    seen = (*bank.patient_ids, *stopped_by)
    first = chosen[0][0]
    card = segmentation_card(trial.name, first, cohort_folds(first), seen, trial.rule, settings)
    facts = {
        "epochs": trained.epochs,
        "best_epoch": trained.best_epoch,
        "slices_per_second": round(trained.slices_per_second, 2),
        "waiting_share": round(trained.waiting_share, 4),
    }
    # before the weights: a fold with weights is not trained again, and its facts must not be lost
    write_json(work / "facts.json", facts)
    tensors = segmentation_tensors(trained.network, trained.prior)
    save_weights(job.weights_path(), card, tensors, build_segmenter)


def _bank(parts: Sequence[tuple[Cohort, Sequence[str]]], trial: Trial) -> SliceBank:
    banks = []
    for cohort, patients in parts:
        sequences = seen_sequences(cohort_sequences(cohort), trial.rule)
        training = trial.training
        banks.append(load_bank(cohort, patients, sequences, trial.rule == "joint", training.context))
    bank = banks[0]
    for other in banks[1:]:
        bank = joined(bank, other)
    return bank


def judge(segmenter: Segmenter, cohort: Cohort, patient: str) -> dict:
    """The scores of one patient's outline, and the grading task's answer, JSON-able.

    high_grade: 1 for WHO grade 3 or 4. What is unknown or undefined is None.
    """
    stack = cohort.stack(patient, segmenter.sequences)
    mask = segmenter.segment(stack).mask
    probability = segmenter.high_grade_probability(stack, stack.drawn)
    scores = asdict(compare(stack.drawn, mask, stack.brain, stack.spacing_mm))
    scores |= {"lesion_free": list(scores["lesion_free"]), "high_grade_probability": probability}
    known = {name: None if value != value else value for name, value in scores.items()}  # nan is no JSON
    return known | {"high_grade": high_grade(cohort.clinical(patient))}
