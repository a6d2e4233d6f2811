"""What a model says of patients on whom it was not trained: wrong images, other diseases, phantoms.

The known range is fitted to four fifths of the patients of a cohort; the others, real and altered, are compared with
it. Other cohorts are compared with the range of all patients, except those of the same id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from gliomark.cohort.folds import load_cohort_folds
from gliomark.cohort.store import Cohort
from gliomark.errors import CohortError
from gliomark.experiments.result_files import create_run_record, write_result_files
from gliomark.experiments.unusual_inputs.kinds import PatientKind, list_kinds
from gliomark.experiments.unusual_inputs.measurements import MeasuredPatient, measure_cohort
from gliomark.known_range import MIN_PATIENTS, KnownRange, PatientStatistics, fit_known_range
from gliomark.known_range.check import compute_score, compute_unusual_score, list_unusual
from gliomark.training.recipes import get_cohort_sequences

EXPERIMENT_NAME = "unusual_inputs"
REAL = "real"
Unsuitable = Mapping[str, Sequence[Mapping[str, float]]]  # statistics of images by kind


@dataclass(frozen=True)
class UnusualInputsConfig:
    """What is measured.

    cohort: the prepared cohort that stands for the training cohort; source: folder of its raw patients, for further
    sequences; others: prepared cohorts, each with the folder of its raw patients or
    None, that are compared with it, and with which its patients are compared.
    """

    cohort: Path
    source: Path | None
    others: tuple[tuple[Path, Path | None], ...]
    output_folder: Path
    notify: Callable[[str], None]


def run_unusual_inputs(config: UnusualInputsConfig) -> Path:
    """Write ``unusual_inputs.csv`` (a row per kind), its patients and its run record; the path of the table.

    Raises
    ------
    CohortError
        If a cohort has too few patients, or other sequences.
    """
    cohort = Cohort(config.cohort)
    sequences = get_cohort_sequences(cohort)
    kinds = list_kinds(sequences)
    work = config.output_folder / "work" / EXPERIMENT_NAME
    measured = measure_cohort(cohort, config.source, sequences, kinds, work, config.notify)
    shown_kinds = [kind for kind in kinds if kind.name == REAL or kind.is_other_sequence]
    others = {}
    for folder, source in config.others:
        other = Cohort(folder)
        others[other] = measure_cohort(other, source, sequences, shown_kinds, work, config.notify)
    rows = _check_folds(cohort, measured, kinds, _collect_unsuitable(cohort, others))
    for other, patients_of_other in others.items():
        rows += _check_other_cohort(cohort, measured, other, patients_of_other)
        rows += _check_other_cohort(other, patients_of_other, cohort, measured)
    patients = pd.DataFrame(rows)
    table = _summarise(patients)
    config.notify(table.to_string(index=False))
    record = create_run_record(EXPERIMENT_NAME, cohort=cohort.folder.name, patients=len(measured))
    return write_result_files(
        config.output_folder, EXPERIMENT_NAME, {"": table, "_patients": patients}, record
    )


def _check_folds(
    cohort: Cohort,
    measured: Mapping[str, MeasuredPatient],
    kinds: Sequence[PatientKind],
    unsuitable: Unsuitable,
) -> list[dict[str, object]]:
    """Compare every patient, real and altered, with the patients of the other folds."""
    expected = {kind.name: kind.expected for kind in kinds}
    rows = []
    for number, fold in enumerate(load_cohort_folds(cohort).folds):
        training = [one for patient, one in measured.items() if patient not in fold]
        known_range = _fit(training, cohort, unsuitable)
        for patient in (p for p in fold if p in measured):
            for kind, statistics in measured[patient].kinds.items():
                labels = {"kind": kind, "expected": expected[kind], "fold": number + 1, "patient": patient}
                rows.append({**labels, **_check(known_range, statistics)})
    return rows


def _check_other_cohort(
    trained_cohort: Cohort,
    trained: Mapping[str, MeasuredPatient],
    tested_cohort: Cohort,
    tested: Mapping[str, MeasuredPatient],
) -> list[dict[str, object]]:
    """Compare the patients of a cohort with those of another one; the same patient is left out of the training."""
    training = [one for patient, one in trained.items() if patient not in tested]
    if len(training) < MIN_PATIENTS:  # a small cohort is only tested
        return []
    names = f"{tested_cohort.folder.name}, by the model of {trained_cohort.folder.name}"
    is_unsuitable = trained_cohort.is_synthetic != tested_cohort.is_synthetic
    rows = []
    for number in range(2):  # the model is shown one half of unsuitable patients and tested on the other
        half = {patient: one for patient, one in tested.items() if list(tested).index(patient) % 2 == number}
        shown = {p: one for p, one in tested.items() if p not in half} if is_unsuitable else {}
        unsuitable = _collect_unsuitable(trained_cohort, {tested_cohort: shown})
        known_range = _fit(training, trained_cohort, unsuitable)
        for patient, one in half.items():
            for kind, statistics in one.kinds.items():
                if kind == REAL:
                    labels = {"kind": names, "expected": "refused" if is_unsuitable else "in range"}
                elif " shown as " in kind and not is_unsuitable:
                    labels = {"kind": f"{kind}: {names}", "expected": "refused"}
                else:
                    continue
                rows.append({**labels, "fold": 0, "patient": patient, **_check(known_range, statistics)})
    return rows


def _collect_unsuitable(cohort: Cohort, others: Mapping[Cohort, Mapping[str, MeasuredPatient]]) -> Unsuitable:
    """Collect the images of cohorts of another kind, synthetic for a real cohort and the other way round."""
    return {
        f"cohort/{other.folder.name}": [one.kinds[REAL].images for one in patients.values()]
        for other, patients in others.items()
        if other.is_synthetic != cohort.is_synthetic and patients
    }


def _fit(patients: Sequence[MeasuredPatient], cohort: Cohort, unsuitable: Unsuitable) -> KnownRange:
    wrong = {name: [one.wrong[name] for one in patients] for name in patients[0].wrong}
    wrong |= unsuitable
    known_range = fit_known_range([one.kinds[REAL] for one in patients], get_cohort_sequences(cohort), wrong)
    if known_range is None:
        raise CohortError(f"{cohort.folder} has too few patients with both sequences and a lesion mask.")
    return known_range


def _check(known_range: KnownRange, statistics: PatientStatistics) -> dict[str, object]:
    score = compute_score(known_range, statistics)
    is_unusual = any(True for _ in list_unusual(known_range, statistics))
    result = "refused" if score >= 1 else "unusual" if is_unusual else "in range"
    return {"score": max(score, compute_unusual_score(known_range, statistics)), "result": result}


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
            }
        )
    return pd.DataFrame(rows)
