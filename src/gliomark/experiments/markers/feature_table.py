"""AUC of an external radiomics table: LightGBM with and without age and sex, five folds by patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from gliomark.cohort.folds import FOLD_COUNT, VALIDATION_SHARE, FoldSplit
from gliomark.errors import InputError
from gliomark.experiments.markers.result_tables import compare_patient_auc, summarise_scores
from gliomark.experiments.markers.scoring import (
    PatientScores,
    score_clinical,
    score_features,
    tabulate_scores,
)
from gliomark.experiments.result_files import create_run_record, write_result_files
from gliomark.study import ClinicalData
from gliomark.tables import BLANK_VALUES, read_table

SEX_CODES = {"0": 0, "1": 1, "m": 0, "f": 1, "male": 0, "female": 1}
SMALLEST_CLASS_SIZE = 2 * FOLD_COUNT


@dataclass(frozen=True)
class TableColumns:
    """Column names of a feature table.

    positive: value of the label column that counts as positive, all other known values being negative; first_feature:
    all numeric columns from this one on are features.
    """

    id: str
    label: str
    positive: str
    age: str
    sex: str
    first_feature: str


def run_feature_table(
    table_path: Path, columns: TableColumns, output_folder: Path, notify: Callable[[str], None], seed: int = 0
) -> Path:
    """Write ``radiomics_<table>.csv``, its patients and its run record; the path of the table.

    Raises
    ------
    InputError
        If the table cannot be read, a column is missing or duplicated, a patient occurs twice, there is no numeric
        feature, or a class has fewer than ``SMALLEST_CLASS_SIZE`` patients.
    """
    table = _read_labelled_table(table_path, columns)
    features = {
        p: row for p, row in zip(table.index, _extract_features(table, columns, table_path), strict=True)
    }
    clinical_by_patient = {p: _parse_clinical(p, row, columns) for p, row in table.iterrows()}
    labels = {
        p: int(_normalise_label(value) == columns.positive) for p, value in table[columns.label].items()
    }
    if min(sum(labels.values()), len(labels) - sum(labels.values())) < SMALLEST_CLASS_SIZE:
        raise InputError(
            f"{table_path}: column '{columns.label}' has fewer than {SMALLEST_CLASS_SIZE} patients of a "
            f"class; check the positive "
            f"value, given as {columns.positive!r}."
        )
    notify(
        f"{len(labels)} patients, {sum(labels.values())} positive, {len(next(iter(features.values())))} features"
    )
    splits = _create_splits(labels, seed)
    methods: dict[str, Callable[[FoldSplit], PatientScores]] = {
        "radiomics, LightGBM": lambda s: score_features(features, clinical_by_patient, labels, s, False),
        "radiomics, age and sex, LightGBM": lambda s: score_features(
            features, clinical_by_patient, labels, s, True
        ),
        "age and sex, logistic regression": lambda s: score_clinical(clinical_by_patient, labels, s),
    }
    scores = [tabulate_scores(name, map(answer, splits), labels) for name, answer in methods.items()]
    rows = [
        {"reading": name, **summarise_scores("patient", one), **compare_patient_auc(one, scores[0])}
        for name, one in zip(methods, scores, strict=True)
    ]
    stem = f"radiomics_{table_path.stem}"
    common_columns = {
        "table": table_path.name,
        "label": f"{columns.label} = {columns.positive}",
        "folds": FOLD_COUNT,
    }
    patients = pd.concat(scores).drop(columns=["place", "area_mm2"])
    tables = {"": pd.DataFrame(rows).assign(**common_columns), "_patients": patients}
    record = create_run_record(stem, seed=seed, columns=asdict(columns), splits=[asdict(s) for s in splits])
    return write_result_files(output_folder, stem, tables, record)


def _read_labelled_table(table_path: Path, columns: TableColumns) -> pd.DataFrame:
    """Read the table: one row per patient with a known label. Raises InputError."""
    header, records = read_table(table_path)
    table = pd.DataFrame(records, columns=header)
    missing = [name for field, name in asdict(columns).items() if field != "positive" and name not in table]
    if missing:
        raise InputError(
            f"{table_path} has no column {', '.join(missing)}; its columns are {', '.join(header[:8]) or 'none'}, ..."
        )
    duplicated_columns = [name for name, count in Counter(table).items() if count > 1]
    if duplicated_columns:
        raise InputError(f"{table_path} has more than one column {duplicated_columns[0]}; keep one.")
    table = table[~table[columns.label].str.lower().isin(BLANK_VALUES)]
    if table[columns.id].duplicated().any():
        patient = table[columns.id][table[columns.id].duplicated()].iloc[0]
        raise InputError(f"{table_path}: patient {patient} has more than one row; keep one row per patient.")
    return table.set_index(columns.id)


def _extract_features(table: pd.DataFrame, columns: TableColumns, table_path: Path) -> NDArray[np.float64]:
    others = [columns.label, columns.age, columns.sex]
    feature_columns = table.loc[:, columns.first_feature :].drop(columns=others, errors="ignore")
    numbers = feature_columns.apply(pd.to_numeric, errors="coerce")
    features: NDArray[np.float64] = numbers.loc[:, numbers.notna().any()].to_numpy(float)
    if not features.shape[1]:
        raise InputError(
            f"{table_path} has no numeric column from '{columns.first_feature}' on; give the first column of "
            f"the features."
        )
    return features


def _parse_clinical(patient: str, row: pd.Series, columns: TableColumns) -> ClinicalData:
    age = pd.to_numeric(row[columns.age], errors="coerce")
    sex = SEX_CODES.get(_normalise_label(row[columns.sex]).lower())
    return ClinicalData(patient, None if np.isnan(age) else float(age), sex)


def _normalise_label(cell: str) -> str:
    """Return the cell as text, with whole numbers as integers ("1.0" becomes "1")."""
    number = pd.to_numeric(cell, errors="coerce")
    return str(int(number)) if np.isfinite(number) and number == int(number) else cell


def _create_splits(labels: dict[str, int], seed: int) -> list[FoldSplit]:
    patients, values = list(labels), list(labels.values())
    splitter = StratifiedGroupKFold(FOLD_COUNT, shuffle=True, random_state=seed)
    splits = []
    for number, (rest, test) in enumerate(splitter.split(patients, values, groups=patients)):
        order = np.random.default_rng([seed, number]).permutation(rest)
        cut = round(VALIDATION_SHARE * len(order))
        parts = (order[cut:], order[:cut], test)
        splits.append(FoldSplit(*(tuple(sorted(patients[i] for i in part)) for part in parts)))
    return splits
