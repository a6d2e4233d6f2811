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
from gliomark.experiments.unusual_inputs.measurements import (
    CohortSource,
    RealPatient,
    StatisticsByKind,
    measure_altered_patients,
    measure_real_patients,
)
from gliomark.known_range import MIN_PATIENTS, KnownRange, PatientStatistics, fit_known_range
from gliomark.known_range.check import check_statistics, compute_score, compute_unusual_score
from gliomark.training.recipes import get_cohort_sequences

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
    """

    cohort: Path
    source: Path | None
    others: tuple[tuple[Path, Path | None], ...]
    altered: int | None
    output_folder: Path
    notify: Callable[[str], None]

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
    source = config.locate(config.cohort, config.source)
    cohort, sequences = source.cohort, get_cohort_sequences(source.cohort)
    real = measure_real_patients(source, sequences)
    kinds = list_kinds(sequences)
    chosen = np.random.default_rng(0).permutation(sorted(real)).tolist()[: config.altered]
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
    patients = pd.DataFrame(rows)
    table = _summarise(patients)
    config.notify(table.to_string(index=False))
    record = create_run_record(
        EXPERIMENT_NAME, cohort=cohort.folder.name, patients=len(real), altered_patients=len(altered)
    )
    return write_result_files(
        config.output_folder, EXPERIMENT_NAME, {"": table, "_patients": patients}, record
    )


def _check_folds(
    cohort: Cohort,
    real: Mapping[str, RealPatient],
    altered: Mapping[str, StatisticsByKind],
    kinds: Sequence[PatientKind],
) -> list[dict[str, object]]:
    """Compare every patient, real and altered, with the patients of the other folds."""
    expected = {REAL: "in range"} | {kind.name: kind.expected for kind in kinds}
    rows = []
    for number, fold in enumerate(load_cohort_folds(cohort).folds, start=1):
        known_range = _fit([one for patient, one in real.items() if patient not in fold], cohort)
        for patient in (p for p in fold if p in real):
            for kind, statistics in {REAL: real[patient].statistics, **altered.get(patient, {})}.items():
                labels = {"kind": kind, "expected": expected[kind], "fold": number, "patient": patient}
                rows.append({**labels, **_check(known_range, statistics)})
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
    names = f"{tested_cohort.folder.name} compared with {trained_cohort.folder.name}"
    expected = "unusual" if trained_cohort.is_synthetic != tested_cohort.is_synthetic else "in range"
    return [
        {
            "kind": names if kind == REAL else f"{kind}: {names}",
            "expected": expected if kind == REAL else "refused",
            "fold": 0,
            "patient": patient,
            **_check(known_range, statistics),
        }
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


def _check(known_range: KnownRange, statistics: PatientStatistics) -> dict[str, object]:
    check = check_statistics(known_range, statistics)
    score = max(compute_score(known_range, statistics), compute_unusual_score(known_range, statistics))
    return {"score": score, "result": check.result}


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
