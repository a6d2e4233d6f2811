"""What published radiomics can tell: anybody's table of features, LightGBM, age and sex, in five folds by patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from gliomark.cohort.folds import FOLDS, VALIDATION_SHARE, Split
from gliomark.cohort.store import write_json
from gliomark.experiments.markers.readings import Answers, answer_rows, clinical_answers, feature_answers
from gliomark.experiments.markers.tables import against, counted
from gliomark.experiments.records import run_record, write_table
from gliomark.study import Clinical, GliomarkError
from gliomark.tables import BLANKS, read_records

SEXES = {"0": 0, "1": 1, "m": 0, "f": 1, "male": 0, "female": 1}
SMALLEST_CLASS = 2 * FOLDS


@dataclass(frozen=True)
class TableColumns:
    """Which column is what. positive: the label's value that counts as positive, every other known one being
    negative; features: every numeric column from ``first_feature`` on."""

    id: str
    label: str
    positive: str
    age: str
    sex: str
    first_feature: str


def run(path: Path, columns: TableColumns, out: Path, say: Callable[[str], None], seed: int = 0) -> Path:
    """Write ``radiomics_<table>.csv`` and its patients under ``out``; the table's path.

    Raises GliomarkError where a column is missing or a class has fewer than ten patients.
    """
    table = _read(path, columns)
    features = {p: row for p, row in zip(table.index, _features(table, columns, path), strict=True)}
    people = {p: _person(p, row, columns) for p, row in table.iterrows()}
    labels = {p: int(_text(value) == columns.positive) for p, value in table[columns.label].items()}
    if min(sum(labels.values()), len(labels) - sum(labels.values())) < SMALLEST_CLASS:
        raise GliomarkError(
            f"{path}: column '{columns.label}' has fewer than {SMALLEST_CLASS} patients of a class; check its positive "
            f"value, {columns.positive!r} was asked for."
        )
    say(
        f"{len(labels)} patients, {sum(labels.values())} positive, {len(next(iter(features.values())))} features"
    )
    splits = _splits(labels, seed)
    readings: dict[str, Callable[[Split], Answers]] = {
        "radiomics, LightGBM": lambda s: feature_answers(features, people, labels, s, False),
        "radiomics, age and sex, LightGBM": lambda s: feature_answers(features, people, labels, s, True),
        "age and sex, logistic regression": lambda s: clinical_answers(people, labels, s),
    }
    answers = [answer_rows(name, map(answer, splits), labels) for name, answer in readings.items()]
    rows = [
        {"reading": name, **counted("patient", one), **against(one, answers[0])}
        for name, one in zip(readings, answers, strict=True)
    ]
    stem = f"radiomics_{path.stem}"
    said = {"table": path.name, "label": f"{columns.label} = {columns.positive}", "folds": FOLDS}
    write_table(pd.DataFrame(rows).assign(**said), out / f"{stem}.csv")
    patients = pd.concat(answers).query("part == 'test'").drop(columns=["part", "place", "area_mm2"])
    write_table(patients, out / f"{stem}_patients.csv")
    record = run_record(stem, seed=seed, columns=asdict(columns), splits=[asdict(s) for s in splits])
    write_json(out / f"{stem}_run_record.json", record)
    return out / f"{stem}.csv"


def _read(path: Path, columns: TableColumns) -> pd.DataFrame:
    """One row per patient whose label is known."""
    header, records = read_records(path)
    table = pd.DataFrame(records, columns=header)
    missing = [name for field, name in asdict(columns).items() if field != "positive" and name not in table]
    if missing:
        raise GliomarkError(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(header[:8]) or 'none'}, ..."
        )
    twice = [name for name, count in Counter(table).items() if count > 1]
    if twice:
        raise GliomarkError(f"{path} has the column {twice[0]} twice; keep one.")
    table = table[~table[columns.label].str.lower().isin(BLANKS)]
    if table[columns.id].duplicated().any():
        patient = table[columns.id][table[columns.id].duplicated()].iloc[0]
        raise GliomarkError(f"{path}: patient {patient} stands in it twice; keep one row per patient.")
    return table.set_index(columns.id)


def _features(table: pd.DataFrame, columns: TableColumns, path: Path) -> np.ndarray:
    behind = table.loc[:, columns.first_feature :]
    numbers = behind.apply(pd.to_numeric, errors="coerce")
    features = numbers.loc[:, numbers.notna().any()].to_numpy(float)
    if not features.shape[1]:
        raise GliomarkError(
            f"{path} has no numeric column from '{columns.first_feature}' on; name the first one that holds a feature."
        )
    return features


def _person(patient: str, row: pd.Series, columns: TableColumns) -> Clinical:
    age = pd.to_numeric(row[columns.age], errors="coerce")
    sex = SEXES.get(_text(row[columns.sex]).lower())
    return Clinical(patient, None if np.isnan(age) else float(age), sex)


def _text(cell: str) -> str:
    """As the table spells it; 1.0 is 1."""
    number = pd.to_numeric(cell, errors="coerce")
    return str(int(number)) if np.isfinite(number) and number == int(number) else cell


def _splits(labels: dict[str, int], seed: int) -> list[Split]:
    patients, values = list(labels), list(labels.values())
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    splits = []
    for number, (rest, test) in enumerate(splitter.split(patients, values, groups=patients)):
        order = np.random.default_rng([seed, number]).permutation(rest)
        cut = round(VALIDATION_SHARE * len(order))
        parts = (order[cut:], order[:cut], test)
        splits.append(Split(*(tuple(sorted(patients[i] for i in part)) for part in parts)))
    return splits
