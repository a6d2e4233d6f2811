"""What a model says of patients on whom it was not trained: wrong images, other diseases, phantoms.

The known range is fitted to four fifths of the patients of a cohort; the others, real and altered, are compared with
it. Other cohorts are compared with the range of all patients, except those of the same id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from gliomark.cohort.folds import load_cohort_folds
from gliomark.cohort.store import Cohort
from gliomark.errors import CohortError
from gliomark.experiments.result_files import create_run_record, write_result_files
from gliomark.experiments.unusual_inputs.kinds import Expected, PatientKind, list_kinds, name_reason
from gliomark.experiments.unusual_inputs.measurements import (
    CohortSource,
    RealPatient,
    StatisticsByKind,
    measure_altered_patients,
    measure_real_patients,
)
from gliomark.known_range import (
    MIN_PATIENTS,
    KnownRange,
    PatientStatistics,
    fit_known_range,
    load_known_range,
)
from gliomark.known_range.check import (
    GENERAL_REASONS,
    check_statistics,
    compute_score,
    compute_unusual_score,
)
from gliomark.messages import Message
from gliomark.models.weights import Weights
from gliomark.training.recipes import get_cohort_sequences, select_training_patients

EXPERIMENT_NAME = "unusual_inputs"
REAL = "real"


@dataclass(frozen=True)
class UnusualInputsConfig:
    """What is measured.

    Attributes
    ----------
    cohort
        The prepared cohort that stands for the training cohort.
    source
        Folder of its raw patients, from which further sequences are read; None for none.
    others
        Prepared cohorts, each with the folder of its raw patients or None, that are compared with the first one.
    altered
        Number of patients that are altered into every kind, chosen at random; None for all.
    output_folder
        Folder of the tables, and of the statistics of every patient under ``work``.
    notify
        Called with every line of progress, and with the table.
    weights
        A model with whose training patients the cohort's are compared, instead of with those of the other folds. Its
        own training patients are left out.
    name
        Added to the names of the result files.
    """

    cohort: Path
    source: Path | None
    others: tuple[tuple[Path, Path | None], ...]
    altered: int | None
    output_folder: Path
    notify: Callable[[str], None]
    weights: Weights | None = None
    name: str = ""

    def locate(self, folder: Path, raw_folder: Path | None) -> CohortSource:
        """Return a prepared cohort and the places of its files."""
        return CohortSource(
            Cohort(folder), raw_folder, self.output_folder / "work" / EXPERIMENT_NAME, self.notify
        )


def run_unusual_inputs(config: UnusualInputsConfig) -> Path:
    """Write ``unusual_inputs.csv`` (a row per kind), its patients and its run record; the path of the table.

    Raises
    ------
    CohortError
        If a cohort has too few patients, or other sequences.
    """
    if config.weights is not None:
        rows, details = _compare_with_model(config, config.weights)
    else:
        rows, details = _compare_cohorts(config)
    patients = pd.DataFrame(rows)
    table = _summarise(patients)
    config.notify(table.to_string(index=False))
    record = create_run_record(EXPERIMENT_NAME, cohort=config.cohort.name, **details)
    stem = f"{EXPERIMENT_NAME}_{config.name}" if config.name else EXPERIMENT_NAME
    return write_result_files(config.output_folder, stem, {"": table, "_patients": patients}, record)


def _compare_cohorts(config: UnusualInputsConfig) -> tuple[list[dict[str, object]], dict[str, object]]:
    """Compare patients with those of the other folds, and with other cohorts; the rows, and details of the run."""
    source = config.locate(config.cohort, config.source)
    cohort, sequences = source.cohort, get_cohort_sequences(source.cohort)
    real = measure_real_patients(source, sequences)
    kinds = list_kinds(sequences)
    chosen = _choose_patients(real, config.altered)
    altered = measure_altered_patients(source, chosen, sequences, kinds)
    rows = _check_folds(cohort, real, altered, kinds)
    # kinds that need a sequence which the first cohort lacks are made of the others
    made = {name for by_kind in altered.values() for name in by_kind}
    further_kinds = [kind for kind in kinds if kind.name not in made]
    for folder, raw_folder in config.others:
        other = config.locate(folder, raw_folder)
        real_of_other = measure_real_patients(other, sequences)
        rows += _check_other_cohort(cohort, real, other.cohort, _as_kinds(real_of_other))
        rows += _check_other_cohort(other.cohort, real_of_other, cohort, _as_kinds(real))
        if raw_folder is not None:
            altered_of_other = measure_altered_patients(other, list(real_of_other), sequences, further_kinds)
            rows += _check_other_cohort(cohort, real, other.cohort, altered_of_other)
    return rows, {"patients": len(real), "altered_patients": len(altered)}


def _compare_with_model(
    config: UnusualInputsConfig, weights: Weights
) -> tuple[list[dict[str, object]], dict[str, object]]:
    """Compare patients, real and altered, with the training patients of a model; the rows, and details of the run."""
    source = config.locate(config.cohort, config.source)
    known_range, sequences = load_known_range(weights), get_cohort_sequences(source.cohort)
    if known_range is None or known_range.sequences != sequences:
        raise CohortError(
            f"{weights.path.name} holds no description of its training patients, or of other sequences than "
            f"{' + '.join(sequences)} of {config.cohort}: give another model or cohort."
        )
    trained_on = select_training_patients(weights.card, source.cohort)
    patients = [one for one in source.cohort.patient_ids if one not in trained_on]
    kinds = [PatientKind(REAL, "in range", lambda stack, *_: stack), *list_kinds(sequences)]
    measured = measure_altered_patients(source, _choose_patients(patients, config.altered), sequences, kinds)
    by_name = {kind.name: kind for kind in kinds}
    rows = [
        _check_patient(known_range, by_name[name], 0, patient, statistics)
        for patient, by_kind in measured.items()
        for name, statistics in by_kind.items()
    ]
    model = {"name": weights.card.name, "sha256": weights.sha256}
    return rows, {"model": model, "patients": len(measured), "altered_patients": len(measured)}


def _choose_patients(patients: Iterable[str], count: int | None) -> list[str]:
    """Choose patients at random, the same ones in every run; all of them if ``count`` is None."""
    chosen: list[str] = np.random.default_rng(0).permutation(sorted(patients)).tolist()
    return chosen[:count]


def _check_folds(
    cohort: Cohort,
    real: Mapping[str, RealPatient],
    altered: Mapping[str, StatisticsByKind],
    kinds: Sequence[PatientKind],
) -> list[dict[str, object]]:
    """Compare every patient, real and altered, with the patients of the other folds."""
    by_name = {kind.name: kind for kind in (PatientKind(REAL, "in range", lambda stack, *_: stack), *kinds)}
    rows = []
    for number, fold in enumerate(load_cohort_folds(cohort).folds, start=1):
        known_range = _fit([one for patient, one in real.items() if patient not in fold], cohort)
        for patient in (p for p in fold if p in real):
            for kind, statistics in {REAL: real[patient].statistics, **altered.get(patient, {})}.items():
                rows.append(_check_patient(known_range, by_name[kind], number, patient, statistics))
    return rows


def _check_other_cohort(
    trained_cohort: Cohort,
    trained: Mapping[str, RealPatient],
    tested_cohort: Cohort,
    tested: Mapping[str, StatisticsByKind],
) -> list[dict[str, object]]:
    """Compare the patients of a cohort with those of another one; the same patient is left out of the training."""
    training = [one for patient, one in trained.items() if patient not in tested]
    if len(training) < MIN_PATIENTS:  # a small cohort is only tested
        return []
    known_range = _fit(training, trained_cohort)
    kinds = {kind.name: kind for kind in list_kinds(get_cohort_sequences(trained_cohort))}
    names = f"{tested_cohort.folder.name} compared with {trained_cohort.folder.name}"
    expected: Expected = (
        "unusual" if trained_cohort.is_synthetic != tested_cohort.is_synthetic else "in range"
    )
    whole = PatientKind(names, expected, lambda stack, *_: stack)
    return [
        _check_patient(
            known_range,
            whole if kind == REAL else replace(kinds[kind], name=f"{kind}: {names}"),
            0,
            patient,
            statistics,
        )
        for patient, by_kind in tested.items()
        for kind, statistics in by_kind.items()
    ]


def _as_kinds(real: Mapping[str, RealPatient]) -> dict[str, StatisticsByKind]:
    return {patient: {REAL: one.statistics} for patient, one in real.items()}


def _fit(patients: Sequence[RealPatient], cohort: Cohort) -> KnownRange:
    wrong = {name: [one.wrong[name] for one in patients] for name in patients[0].wrong}
    known_range = fit_known_range([one.statistics for one in patients], get_cohort_sequences(cohort), wrong)
    if known_range is None:
        raise CohortError(f"{cohort.folder} has too few patients with both sequences and a lesion mask.")
    return known_range


def _check_patient(
    known_range: KnownRange, kind: PatientKind, fold: int, patient: str, statistics: PatientStatistics
) -> dict[str, object]:
    """Check a patient of a kind: a row of the table of patients.

    named: whether the reason for a refusal names a mistake that was made ("right"), one that was not ("wrong"), or
    says only that the images are unlike those of the training patients ("none").
    """
    check = check_statistics(known_range, statistics)
    score = max(compute_score(known_range, statistics), compute_unusual_score(known_range, statistics))
    row = {"kind": kind.name, "expected": kind.expected, "fold": fold, "patient": patient}
    row |= {"score": score, "result": check.result, "reason": "", "named": ""}
    if check.is_refused:
        (finding,) = check.findings
        assert isinstance(finding, Message)
        row["reason"] = name_reason(finding)
        is_general = finding.code in GENERAL_REASONS
        row["named"] = "none" if is_general else "right" if row["reason"] in kind.true_reasons else "wrong"
    return row


def _summarise(patients: pd.DataFrame) -> pd.DataFrame:
    """Summarise every kind: patients, AUROC of the score against real patients, and shares."""
    real = patients.loc[patients["kind"] == REAL, "score"]
    rows = []
    for (kind, expected), group in patients.groupby(["kind", "expected"], sort=False):
        labels = np.r_[np.zeros(len(real)), np.ones(len(group))]
        scores = np.r_[real, group["score"]]
        rows.append(
            {
                "kind": kind,
                "expected": expected,
                "patients": len(group),
                "auroc": np.nan if kind == REAL else roc_auc_score(labels, scores),
                "in_range": int((group["result"] == "in range").sum()),
                "unusual": int((group["result"] == "unusual").sum()),
                "refused": int((group["result"] == "refused").sum()),
                **{f"named_{one}": int((group["named"] == one).sum()) for one in ("right", "wrong", "none")},
            }
        )
    return pd.DataFrame(rows)
