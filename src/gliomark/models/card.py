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
from gliomark.models.bounds import STRICT, Share, checked
from gliomark.study import GliomarkError, MRSequence

SEGMENTATION = "segmentation"  # the outlining network's part of the file
LONGEST_VALUE = 80


def _known_sequence(name: str) -> str:
    return str(MRSequence(name))


def _no_part(name: str) -> str:
    if name == SEGMENTATION:
        raise ValueError("a marker cannot be called so")
    return name


Text = Annotated[str, Field(max_length=20_000, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$")]
Word = Annotated[Text, Field(min_length=1, max_length=1000)]
Sequence = Annotated[str, AfterValidator(_known_sequence)]
# a part of files' names
MarkerName = Annotated[
    str,
    Field(max_length=100, pattern=r"^[^.\s/\\\x00-\x1f\x7f]([^/\\\x00-\x1f\x7f]*[^.\s/\\\x00-\x1f\x7f])?$"),
    AfterValidator(_no_part),
]


@with_config(STRICT)
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
    cohort: Text

    def __post_init__(self) -> None:
        if not (0 <= self.low <= self.auc <= self.high <= 1 and 0 < self.positives < self.patients):
            raise ValueError(f"not an AUC with its interval: {self}")

    @property
    def is_better_than_chance(self) -> bool:
        """Whether the whole interval lies above 0.5."""
        return self.low > 0.5


@with_config(STRICT)
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

    column: Word
    title: Word
    positive: Word
    negative: Word
    label: Text
    threshold: Share
    age_cut: Annotated[float, Field(gt=0, le=130)] | None
    architecture: Mapping[str, Any]
    calibration: tuple[
        Annotated[float, Field(ge=-1e3, le=1e3)], Annotated[float, Field(ge=0, le=1e3)]
    ] = (0.0, 1.0)  # fmt: skip
    performance: Text = ""
    warning: Text = ""
    validation: MarkerValidation | None = None

    @property
    def names_level(self) -> bool:
        """Whether an answer may be called positive or negative: measured, and told from chance."""
        return self.validation is not None and self.validation.is_better_than_chance

    @property
    def verdict(self) -> Message:
        """How well the marker was told on patients it never saw, and whether a level is named for that reason."""
        if self.validation is None:
            return message("marker-not-validated")
        code = "marker-better-than-chance" if self.names_level else "marker-at-chance"
        return message(code, **asdict(self.validation))


@with_config(STRICT)
class PreparationRecord(TypedDict, total=False):
    """``PreparationSettings`` in a card."""

    k: Annotated[int, Field(ge=1, le=1000)]
    size: Annotated[int, Field(ge=32, le=1024)]
    pixel_mm: Annotated[float, Field(ge=0.1, le=10)]
    step_mm: Annotated[float, Field(ge=0, le=20)]


@with_config(STRICT)
@dataclass(frozen=True)
class ModelCard:
    """What the weights are. rule: "joint", "union" or "single", how the sequences make one outline.

    stand_ins: a sequence that may be shown in another's place, always with a warning and without a
    marker level. training_patients and folds_sha256 say who was trained on.
    """

    name: Word
    sequences: Annotated[tuple[Sequence, ...], Field(min_length=2, max_length=2)]
    rule: Annotated[str, Field(pattern="^(joint|union|single)$")]
    segmentation: Mapping[str, Any]
    segmentation_threshold: Annotated[float, Field(gt=0, lt=1)]
    smallest_lesion_ml: Annotated[float, Field(ge=0, le=100)]
    training_cohort: Text
    training_patients: tuple[Text, ...]
    folds_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    licence: Text
    intended_use: Text
    segmentation_performance: Text
    versions: Mapping[str, Text]
    markers: Mapping[MarkerName, MarkerCard] = field(default_factory=dict)
    stand_ins: Mapping[Sequence, Sequence] = field(default_factory=dict)
    preparation: PreparationRecord = field(default_factory=PreparationRecord)


def read_card(path: Path, text: str) -> ModelCard:
    """The card in a file's header. Raises GliomarkError, naming the field, for what is none."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GliomarkError(message("weights-card-unreadable", path=path, reason=_short(error))) from None
    if not isinstance(record, dict):
        raise GliomarkError(message("weights-card-unreadable", path=path, reason=_short(record)))
    for marker in _markers(record).values():
        marker.pop("informative", None)  # said by older files; now the validation does
    if missing := _missing(record):
        raise GliomarkError(message("weights-card-incomplete", path=path, fields=", ".join(sorted(missing))))
    try:
        card = checked(ModelCard, record)
        _check_together(card)
        return card
    except ValueError as error:
        raise GliomarkError(unknown(path, error)) from None


def check_marker_name(name: str) -> None:
    """Raise GliomarkError where a marker cannot be called so: files are named by it."""
    try:
        checked(MarkerName, name)
    except ValueError:
        raise GliomarkError(message("marker-name-unusable", name=name)) from None


def unknown(path: Path | str, error: ValueError, *place: str) -> Message:
    """Which field of a card is impossible, in a sentence. place: where in the card the checked record stands."""
    if not isinstance(error, ValidationError):
        return message(
            "weights-card-unknown", path=path, field=".".join(place) or "card", reason=_short(error)
        )
    first = error.errors(include_url=False, include_context=False)[0]
    at = ".".join(map(str, (*place, *first["loc"]))) or "card"
    reason = f"{_short(first['msg'])}: {_short(first['input'])}"
    return message("weights-card-unknown", path=path, field=at, reason=reason)


def _markers(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The markers' records; nothing of what is no such thing, which the check then finds."""
    markers = record.get("markers")
    markers = markers if isinstance(markers, dict) else {}
    return {name: marker for name, marker in markers.items() if isinstance(marker, dict)}


def _missing(record: dict[str, Any]) -> set[str]:
    """Every field must be stated, except a marker's validation: files of before have none."""
    missing = {f.name for f in fields(ModelCard)} - set(record)
    needed = {f.name for f in fields(MarkerCard)} - {"validation"}
    for name, marker in _markers(record).items():
        missing |= {f"{name} {field}" for field in needed - set(marker)}
    return missing


def _check_together(card: ModelCard) -> None:
    """What no field shows by itself. Raises ValueError."""
    if len(set(card.sequences)) < len(card.sequences):
        raise ValueError(f"sequences: {' + '.join(card.sequences)} names one twice")
    for wanted, shown in card.stand_ins.items():
        if wanted not in card.sequences or shown in card.sequences:
            raise ValueError(f"stand_ins: {shown} cannot stand in for {wanted}")
    for name, marker in card.markers.items():
        if marker.positive == marker.negative:
            raise ValueError(f"{name}: both levels are called {marker.positive}")


def _short(value: object) -> str:
    """On one line and not too long: a file may state anything."""
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."
