"""A hospital's own patients: the model's predictions joined with what pathology found (``gliomark site``)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomark.cohort.labels import LabelSettings, LabelTable, read_labels
from gliomark.cohort.private_files import is_new_id
from gliomark.errors import InputError
from gliomark.evaluation.evaluate import NEGATIVE_WORDS, POSITIVE_WORDS
from gliomark.messages import Message, message
from gliomark.models.weights import ModelCard, Weights
from gliomark.pipeline import VALIDATED_FUSION_RULE
from gliomark.tables import list_id_spellings, read_table
from gliomark.tables.cell_text import is_blank_cell
from gliomark.tables.column_names import select_id_column
from gliomark.training.recipes import MarkerDefinition, restore_marker_definition


@dataclass(frozen=True)
class SiteTables:
    """The tables of a hospital.

    Attributes
    ----------
    predictions
        csv or xlsx with a row per patient: id and the model's probability, as in ``predictions.csv``.
    pathology
        csv or xlsx with a row per patient: id and the marker in any usual wording, such as "IDH1 R132H mutant" or
        "Ki-67 15 %"; None if the first table has it.
    probability_column, date_column
        Columns of the first table. None for no dates, and for ``<marker>_raw_probability``, which predictions of a
        calibrated model have, or otherwise ``<marker>_probability``.
    """

    predictions: Path
    pathology: Path | None = None
    probability_column: str | None = None
    date_column: str | None = None

    @property
    def truth(self) -> Path:
        """The table with the pathology."""
        return self.predictions if self.pathology is None else self.pathology

    def compute_sha256(self) -> str:
        """Return the hash of the content of both tables."""
        digest = hashlib.sha256()
        for path in dict.fromkeys((self.predictions, self.truth)):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class SitePatients:
    """The patients with a prediction and a pathology result.

    Attributes
    ----------
    ids
        In the order of the table, or of the dates if there are any.
    labels, probabilities
        ``(n,)``: 0 or 1, and the model's probability of 1 before any calibration of the patient level.
    dates
        One per patient; empty without dates.
    sha256
        Hash of the tables.
    without_pathology, without_probability, trained_on
        Ids of the patients of the first table who are left out: their pathology is unknown, they have no probability,
        or the model was trained on them.
    """

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    dates: tuple[date, ...]
    sha256: str
    without_pathology: tuple[str, ...] = ()
    without_probability: tuple[str, ...] = ()
    trained_on: tuple[str, ...] = ()

    def describe_left_out(self) -> list[Message]:
        """Describe how many patients were left out and why, each with an example."""
        groups = {
            "site-without-pathology": self.without_pathology,
            "site-without-probability": self.without_probability,
            "site-trained-on": self.trained_on,
        }
        return [message(code, count=len(ids), example=ids[0]) for code, ids in groups.items() if ids]


def read_site_patients(weights: Weights, marker: str, tables: SiteTables) -> SitePatients:
    """Read the patients of a hospital for a marker of a model.

    Raises
    ------
    InputError
        If a table cannot be read, a column is missing or occurs twice, a patient occurs twice or could be one of two, a
        probability, date or pathology result is not understood, the predictions are those of another model, or no
        patient has both.
    """
    definition = restore_marker_definition(marker, weights.card.markers[marker])
    path = tables.predictions
    header, records = read_table(path, is_strict=True)
    id_index = select_id_column(path, header, records)
    rows = {record[id_index]: dict(zip(header, record, strict=True)) for record in records}
    if len(rows) < len(records):
        raise InputError(message("site-repeated", table=path))
    column = tables.probability_column or _find_probability_column(header, weights, marker, path)
    for name in filter(None, (column, tables.date_column)):
        if name not in header:
            raise InputError(message("site-no-column", table=path, column=name, columns=", ".join(header)))
        if header.count(name) > 1:
            raise InputError(message("table-column-twice", table=path, column=name))
    _check_model(rows, weights, marker, path)
    _check_fusion(rows, marker, path)
    truth = read_labels(tables.truth, LabelSettings(ki67_threshold=_get_ki67_threshold(definition)))
    if shared := truth.find_shared_rows(rows):
        raise InputError(next(iter(shared.values())))
    trained_on = _find_training_patients(weights.card, rows)
    without_probability = tuple(name for name, row in rows.items() if is_blank_cell(row[column]))
    found: list[tuple[date, str, int, float]] = []
    without_pathology: list[str] = []
    for patient, row in rows.items():
        if patient in trained_on or patient in without_probability:
            continue
        label = _find_label(truth, patient, definition)
        if label is None:
            without_pathology.append(patient)
            continue
        day = _parse_date(row[tables.date_column], path, patient) if tables.date_column else date.min
        found.append((day, patient, label, _parse_probability(row[column], path, patient)))
    if not found:
        code = "site-only-trained-on" if trained_on else "site-none"
        raise InputError(message(code, table=path, truth=tables.truth, marker=marker))
    found.sort(key=lambda one: one[0])
    days, ids, labels, probabilities = zip(*found, strict=True)
    return SitePatients(
        ids,
        np.array(labels, int),
        np.array(probabilities, float),
        days if tables.date_column else (),
        tables.compute_sha256(),
        tuple(without_pathology),
        without_probability,
        trained_on,
    )


def _find_training_patients(card: ModelCard, ids: Iterable[str]) -> tuple[str, ...]:
    """Find the patients on whom the model was trained; an id that a cohort's build assigned means nothing elsewhere."""
    trained_on = {one for one, _ in card.list_training_patients() if not is_new_id(one)}
    return tuple(name for name in ids if trained_on.intersection(list_id_spellings(name)))


def _find_probability_column(header: Sequence[str], weights: Weights, marker: str, path: Path) -> str:
    """Find the column of the probability before calibration; raise InputError if it may be a calibrated one."""
    raw, column = f"{marker}_raw_probability", f"{marker}_probability"
    if raw in header:
        return raw
    if column in header and weights.card.markers[marker].patient_calibration is not None:
        raise InputError(message("site-raw-unclear", table=path, column=column, raw=raw))
    return column


def _get_ki67_threshold(definition: MarkerDefinition) -> float:
    return definition.threshold if definition.column == "ki67" else LabelSettings().ki67_threshold


def _check_model(rows: Mapping[str, Mapping[str, str]], weights: Weights, marker: str, path: Path) -> None:
    """Raise InputError if the table states that another model made the predictions.

    The model from which this one was recalibrated gives the same probabilities.
    """
    own = {weights.sha256, *list_previous_sha256(weights.card, marker)}
    stated = {row["sha256"] for row in rows.values() if row.get("sha256")}
    if others := stated - own:
        raise InputError(message("site-other-model", table=path, sha256=min(others)[:12]))


def _check_fusion(rows: Mapping[str, Mapping[str, str]], marker: str, path: Path) -> None:
    """Raise InputError if a probability was made by another fusion rule than that of the calibration."""
    for patient, row in rows.items():
        fusion = row.get(f"{marker}_fusion", "")
        if fusion not in ("", VALIDATED_FUSION_RULE):
            raise InputError(message("site-other-fusion", table=path, patient=patient, fusion=fusion))


def list_previous_sha256(card: ModelCard, marker: str) -> tuple[str, ...]:
    """Return the hashes of the weights from which a marker was recalibrated."""
    return tuple(one.previous_sha256 for one in card.markers[marker].recalibrations)


def _find_label(truth: LabelTable, patient: str, definition: MarkerDefinition) -> int | None:
    """Return what pathology found, 0 or 1; None if it is unknown."""
    rows = (truth.find_row(name) for name in list_id_spellings(patient))
    row = next((row for row in rows if row is not None), {})
    # Ki-67 is often given as "< 5 %" or "high", which is no number
    if definition.column == "ki67" and row.get("ki67_high"):
        return int(row["ki67_high"])
    value = row.get(definition.column, "")
    if is_blank_cell(value):
        return None
    if definition.is_binary and value.lower() in POSITIVE_WORDS | NEGATIVE_WORDS:
        return int(value.lower() in POSITIVE_WORDS)
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    label = definition.decide(number) if math.isfinite(number) else None
    if label is None:
        raise InputError(
            message(
                "site-pathology", table=truth.source, patient=patient, column=definition.column, text=value
            )
        )
    return label


def _parse_probability(text: str, path: Path, patient: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise InputError(message("site-probability", table=path, patient=patient, text=text))
    return value


def _parse_date(text: str, path: Path, patient: str) -> date:
    """Parse a date such as 2026-03-01, 2026/03/01 or 20260301; a time after it is ignored."""
    try:
        return date.fromisoformat(text.replace("/", "-").split("T")[0].split(" ")[0])
    except ValueError:
        raise InputError(message("site-date", table=path, patient=patient, text=text)) from None
