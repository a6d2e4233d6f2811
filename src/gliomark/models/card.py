"""What a weights file says of itself: its card, read strictly, so that nothing impossible is found out later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, with_config
from typing_extensions import TypedDict

from gliomark.messages import Message, message
from gliomark.models.bounds import STRICT_CONFIG, Fraction, parse_record
from gliomark.study import GliomarkError, MRSequence

SEGMENTATION_PART = "segmentation"  # the outlining network's part of the file
MAX_VALUE_LENGTH = 80


def _parse_sequence_name(name: str) -> str:
    return str(MRSequence(name))


def _check_not_reserved(name: str) -> str:
    if name == SEGMENTATION_PART:
        raise ValueError("a marker cannot be called so")
    return name


CardText = Annotated[str, Field(max_length=20_000, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$")]
NonEmptyText = Annotated[CardText, Field(min_length=1, max_length=1000)]
SequenceName = Annotated[str, AfterValidator(_parse_sequence_name)]
# a part of files' names
MarkerName = Annotated[
    str,
    Field(max_length=100, pattern=r"^[^.\s/\\\x00-\x1f\x7f]([^/\\\x00-\x1f\x7f]*[^.\s/\\\x00-\x1f\x7f])?$"),
    AfterValidator(_check_not_reserved),
]


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class MarkerValidation:
    """How well the recipe told the marker on patients it never saw: AUC by patient, out of fold.

    auc, low, high: with its 95 % interval; patients, positives: on how many; cohort: where they come from.
    Raises ValueError where these are no such figures.
    """

    auc: float
    low: float
    high: float
    patients: int
    positives: int
    cohort: CardText

    def __post_init__(self) -> None:
        if not (0 <= self.low <= self.auc <= self.high <= 1 and 0 < self.positives < self.patients):
            raise ValueError(f"not an AUC with its interval: {self}")

    @property
    def is_better_than_chance(self) -> bool:
        """Whether the whole interval lies above 0.5."""
        return self.low > 0.5


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class MarkerCard:
    """One marker's KiNet and LightGBM.

    column: the clinical column it was trained on; positive, negative: the two levels in a word; label: what
    positive means; threshold: for the patient-level probability; age_cut: years, the training patients' mean
    (METHOD section 2, step 8), None where metadata was left out; architecture: the network's settings;
    calibration: intercept and slope on the trees' log-odds; performance: held-out figures with intervals, in
    words; warning: shown with every answer; validation: the same figures as numbers, None where they were not
    measured.
    """

    column: NonEmptyText
    title: NonEmptyText
    positive: NonEmptyText
    negative: NonEmptyText
    label: CardText
    threshold: Fraction
    age_cut: Annotated[float, Field(gt=0, le=130)] | None
    architecture: Mapping[str, Any]
    calibration: tuple[
        Annotated[float, Field(ge=-1e3, le=1e3)], Annotated[float, Field(ge=0, le=1e3)]
    ] = (0.0, 1.0)  # fmt: skip
    performance: CardText = ""
    warning: CardText = ""
    validation: MarkerValidation | None = None

    @property
    def is_level_reported(self) -> bool:
        """Whether an answer may be called positive or negative: measured, and told from chance."""
        return self.validation is not None and self.validation.is_better_than_chance

    @property
    def validation_message(self) -> Message:
        """How well the marker was told on patients it never saw, and whether a level is named for that reason."""
        if self.validation is None:
            return message("marker-not-validated")
        code = "marker-better-than-chance" if self.is_level_reported else "marker-at-chance"
        return message(code, **asdict(self.validation))


@with_config(STRICT_CONFIG)
class PreparationRecord(TypedDict, total=False):
    """``PreparationSettings`` in a card."""

    k: Annotated[int, Field(ge=1, le=1000)]
    size: Annotated[int, Field(ge=32, le=1024)]
    pixel_mm: Annotated[float, Field(ge=0.1, le=10)]
    step_mm: Annotated[float, Field(ge=0, le=20)]


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class ModelCard:
    """What the weights are. rule: "joint", "union" or "single", how the sequences make one outline.

    stand_ins: a sequence that may be shown in another's place, always with a warning and without a
    marker level. training_patients and folds_sha256 say who was trained on.
    """

    name: NonEmptyText
    sequences: Annotated[tuple[SequenceName, ...], Field(min_length=2, max_length=2)]
    rule: Annotated[str, Field(pattern="^(joint|union|single)$")]
    segmentation: Mapping[str, Any]
    segmentation_threshold: Annotated[float, Field(gt=0, lt=1)]
    smallest_lesion_ml: Annotated[float, Field(ge=0, le=100)]
    training_cohort: CardText
    training_patients: tuple[CardText, ...]
    folds_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    licence: CardText
    intended_use: CardText
    segmentation_performance: CardText
    versions: Mapping[str, CardText]
    markers: Mapping[MarkerName, MarkerCard] = field(default_factory=dict)
    stand_ins: Mapping[SequenceName, SequenceName] = field(default_factory=dict)
    preparation: PreparationRecord = field(default_factory=PreparationRecord)


def parse_card(path: Path, text: str) -> ModelCard:
    """The card in a file's header. Raises GliomarkError, naming the field, for what is none."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GliomarkError(
            message("weights-card-unreadable", path=path, reason=_shorten_text(error))
        ) from None
    if not isinstance(record, dict):
        raise GliomarkError(message("weights-card-unreadable", path=path, reason=_shorten_text(record)))
    for marker in _get_marker_records(record).values():
        marker.pop("informative", None)  # said by older files; now the validation does
    if missing := _find_missing_fields(record):
        raise GliomarkError(message("weights-card-incomplete", path=path, fields=", ".join(sorted(missing))))
    try:
        card = parse_record(ModelCard, record)
        _check_consistency(card)
        return card
    except ValueError as error:
        raise GliomarkError(create_invalid_field_message(path, error)) from None


def check_marker_name(name: str) -> None:
    """Raise GliomarkError where a marker cannot be called so: files are named by it."""
    try:
        parse_record(MarkerName, name)
    except ValueError:
        raise GliomarkError(message("marker-name-unusable", name=name)) from None


def create_invalid_field_message(path: Path | str, error: ValueError, *field_path: str) -> Message:
    """Which field of a card is impossible, in a sentence. place: where in the card the checked record stands."""
    if not isinstance(error, ValidationError):
        return message(
            "weights-card-unknown",
            path=path,
            field=".".join(field_path) or "card",
            reason=_shorten_text(error),
        )
    first = error.errors(include_url=False, include_context=False)[0]
    field_name = ".".join(map(str, (*field_path, *first["loc"]))) or "card"
    reason = f"{_shorten_text(first['msg'])}: {_shorten_text(first['input'])}"
    return message("weights-card-unknown", path=path, field=field_name, reason=reason)


def _get_marker_records(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The markers' records; nothing of what is no such thing, which the check then finds."""
    markers = record.get("markers")
    markers = markers if isinstance(markers, dict) else {}
    return {name: marker for name, marker in markers.items() if isinstance(marker, dict)}


def _find_missing_fields(record: dict[str, Any]) -> set[str]:
    """Every field must be stated, except a marker's validation: files of before have none."""
    missing = {f.name for f in fields(ModelCard)} - set(record)
    required = {f.name for f in fields(MarkerCard)} - {"validation"}
    for name, marker in _get_marker_records(record).items():
        missing |= {f"{name} {field}" for field in required - set(marker)}
    return missing


def _check_consistency(card: ModelCard) -> None:
    """What no field shows by itself. Raises ValueError."""
    if len(set(card.sequences)) < len(card.sequences):
        raise ValueError(f"sequences: {' + '.join(card.sequences)} names one twice")
    for wanted, shown in card.stand_ins.items():
        if wanted not in card.sequences or shown in card.sequences:
            raise ValueError(f"stand_ins: {shown} cannot stand in for {wanted}")
    for name, marker in card.markers.items():
        if marker.positive == marker.negative:
            raise ValueError(f"{name}: both levels are called {marker.positive}")


def _shorten_text(value: object) -> str:
    """On one line and not too long: a file may state anything."""
    text = " ".join(str(value).split())
    return text if len(text) <= MAX_VALUE_LENGTH else text[: MAX_VALUE_LENGTH - 3] + "..."
