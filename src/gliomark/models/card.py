"""The model card of a weights file, validated strictly when it is read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, with_config
from typing_extensions import TypedDict

from gliomark.errors import ConfigurationError, WeightsError
from gliomark.messages import Message, find_message_for_text, message
from gliomark.models.patient_calibration import PatientCalibration
from gliomark.models.validated_types import STRICT_CONFIG, Fraction, parse_record
from gliomark.study import MRSequence

# prefixes of the tensors of the segmentation networks
SEGMENTATION_PART, SECOND_SEGMENTATION_PART = "segmentation", "second_segmentation"
KNOWN_RANGE_PART = "known_range"  # prefix of the tensor with the statistics of the training patients
MAX_VALUE_LENGTH = 80
OPTIONAL_FIELDS = ("second_segmentation", "is_synthetic", "training_cohort_id")  # of the model card
OPTIONAL_MARKER_FIELDS = (
    "patient_calibration",
    "recalibrations",
    "label_threshold",
    "training_patients",
    "training_cohort_id",
)
TreeFeatures = Literal["vector", "log-odds", "lesion"]
CohortId = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
ViewSize = Annotated[int, Field(ge=16, le=240)]


def _parse_sequence_name(name: str) -> str:
    return str(MRSequence(name))


def _check_not_reserved(name: str) -> str:
    if name in (SEGMENTATION_PART, SECOND_SEGMENTATION_PART, KNOWN_RANGE_PART):
        raise ValueError("this name is reserved")
    return name


CardText = Annotated[str, Field(max_length=20_000, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$")]
NonEmptyText = Annotated[CardText, Field(min_length=1, max_length=1000)]
SequenceName = Annotated[str, AfterValidator(_parse_sequence_name)]
SequencePair = Annotated[tuple[SequenceName, ...], Field(min_length=2, max_length=2)]
RuleName = Annotated[str, Field(pattern="^(joint|union|single)$")]
Probability = Annotated[float, Field(gt=0, lt=1)]
VolumeMl = Annotated[float, Field(ge=0, le=100)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# a marker's name becomes part of file names
MarkerName = Annotated[
    str,
    Field(max_length=100, pattern=r"^[^.\s/\\\x00-\x1f\x7f]([^/\\\x00-\x1f\x7f]*[^.\s/\\\x00-\x1f\x7f])?$"),
    AfterValidator(_check_not_reserved),
]


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class MarkerValidation:
    """Held-out AUC, by patient, with its 95 % interval.

    auc, low, high: the AUC and its interval, 0 to 1; patients, positives: number of patients and of positive ones;
    cohort: the cohort's name; is_test_set: whether these weights were tested on patients set aside; otherwise the
    recipe was cross-validated and the weights are trained on all patients.

    Raises
    ------
    ValueError
        If the values are inconsistent.
    """

    auc: float
    low: float
    high: float
    patients: int
    positives: int
    cohort: CardText
    is_test_set: bool = False

    def __post_init__(self) -> None:
        if not (0 <= self.low <= self.auc <= self.high <= 1 and 0 < self.positives < self.patients):
            raise ValueError(f"not an AUC with its interval: {self}")

    @property
    def is_better_than_chance(self) -> bool:
        """Whether the interval lies entirely above 0.5."""
        return self.low > 0.5

    @property
    def performance_message(self) -> Message:
        """Message with the AUC and how it was measured."""
        code = "performance-on-test-set" if self.is_test_set else "performance"
        return message(code, **self.get_values())

    def get_values(self) -> dict[str, Any]:
        """Return the values by name, for messages."""
        values = {name: value for name, value in asdict(self).items() if name != "is_test_set"}
        return values | {"cohort": find_message_for_text(self.cohort, "cohort-synthetic-test-set")}


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class MarkerNetworkCard:
    """Network of a marker and its inference settings; see ``inference.slice_classifier.SliceClassifier``.

    Attributes
    ----------
    network
        Name and settings of a network of the registry.
    crop
        Side of a view in pixels.
    evidence
        Features that the trees receive.
    """

    network: Mapping[str, Any]
    crop: ViewSize
    evidence: TreeFeatures = "vector"


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class SegmentationCard:
    """Segmentation network and its inference settings; see ``inference.segmenter.Segmenter``.

    Attributes
    ----------
    network
        Name and settings of a network of the registry.
    tile
        Side of a tile in pixels.
    pool
        Factor by which slices are downsampled.
    context
        Neighbouring slices on each side that are added as channels.
    flips
        Whether logits are averaged with those of the mirrored image.
    smallest_share
        Components below this share of the largest one's volume are removed, 0 to 1.
    """

    network: Mapping[str, Any]
    tile: ViewSize
    pool: Annotated[float, Field(ge=1, le=8)]
    context: Annotated[int, Field(ge=0, le=10)]
    flips: bool
    smallest_share: Fraction


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class SiteRecalibration:
    """An entry of a marker's history: who refitted its calibration, threshold and limits, and to which patients.

    Attributes
    ----------
    site, person
        Name of the hospital, and of who refitted the marker.
    date
        YYYY-MM-DD.
    patients, positives
        Number of patients with pathology, and of those with the marker.
    table_sha256
        Hash of the tables of predictions and pathology.
    previous_sha256
        Hash of the weights from before, see ``Weights.sha256``.
    """

    site: NonEmptyText
    person: NonEmptyText
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    patients: Annotated[int, Field(ge=1)]
    positives: Annotated[int, Field(ge=0)]
    table_sha256: Sha256
    previous_sha256: Sha256

    @property
    def description(self) -> Message:
        """Message of where, by whom, when and to how many patients the marker was refitted."""
        return message(
            "marker-refitted",
            site=self.site,
            person=self.person,
            date=self.date,
            patients=self.patients,
            positives=self.positives,
        )


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class MarkerCard:
    """Card of one marker: its network, its trees and their validation.

    Attributes
    ----------
    column
        Clinical column on which it was trained.
    title
        Name of the marker as shown.
    positive, negative
        Names of the two levels.
    label
        Definition of the positive level.
    threshold
        Threshold of the patient-level probability, 0 to 1; of the calibrated one if there is a patient calibration.
    age_cut
        Mean age of the training patients in years (method.md, section 2, step 8); None: age and sex are
        not used.
    architecture
        The network and its inference settings.
    calibration
        Intercept and slope on the trees' log-odds of every slice; other than (0, 1) only in older files.
    performance
        Held-out results with intervals, as text.
    warning
        Shown with every prediction.
    validation
        The held-out AUC as numbers; None if it was not measured.
    patient_calibration
        Calibration and "cannot tell" of the patient-level probability; None in older files.
    recalibrations
        Refits of the patient calibration and the threshold at hospitals, in order of time.
    label_threshold
        Number in the clinical column from which a patient was positive in training; None in older files.
    training_patients, training_cohort_id
        As in ``ModelCard``, of a marker that was trained in another cohort than the segmentation network.
    """

    column: NonEmptyText
    title: NonEmptyText
    positive: NonEmptyText
    negative: NonEmptyText
    label: CardText
    threshold: Fraction
    age_cut: Annotated[float, Field(gt=0, le=130)] | None
    architecture: MarkerNetworkCard
    calibration: tuple[
        Annotated[float, Field(ge=-1e3, le=1e3)], Annotated[float, Field(ge=0, le=1e3)]
    ] = (0.0, 1.0)  # fmt: skip
    performance: CardText = ""
    warning: CardText = ""
    validation: MarkerValidation | None = None
    patient_calibration: PatientCalibration | None = None
    recalibrations: Annotated[tuple[SiteRecalibration, ...], Field(max_length=1000)] = ()
    label_threshold: Annotated[float, Field(ge=-1e9, le=1e9)] | None = None
    training_patients: tuple[CardText, ...] = ()
    training_cohort_id: CohortId = ""

    @property
    def is_level_reported(self) -> bool:
        """Whether a prediction may state a level: the marker is validated and better than chance."""
        return self.validation is not None and self.validation.is_better_than_chance

    @property
    def validation_message(self) -> Message:
        """Message with the out-of-fold AUC and whether predictions state a level."""
        if self.validation is None:
            return message("marker-not-validated")
        code = "marker-better-than-chance" if self.is_level_reported else "marker-at-chance"
        return message(code, **self.validation.get_values())


@with_config(STRICT_CONFIG)
class PreparationRecord(TypedDict, total=False):
    """``PreparationConfig`` in a card: k slices, side of a slice in pixels, pixel and step size in mm."""

    k: Annotated[int, Field(ge=1, le=1000)]
    size: Annotated[int, Field(ge=32, le=1024)]
    pixel_mm: Annotated[float, Field(ge=0.1, le=10)]
    step_mm: Annotated[float, Field(ge=0, le=20)]


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class SecondSegmentationCard:
    """Card of a second segmentation network, for studies without a sequence that the model needs.

    The fields have the meaning of those of ``ModelCard``; sequences: the pair that the second network needs.
    """

    sequences: SequencePair
    rule: RuleName
    segmentation: SegmentationCard
    segmentation_threshold: Probability
    smallest_lesion_ml: VolumeMl
    training_cohort: CardText
    training_patients: tuple[CardText, ...]
    folds_sha256: Sha256
    segmentation_performance: CardText
    training_cohort_id: CohortId = ""

    @property
    def input_channels(self) -> int:
        """Number of channels that the network receives."""
        return count_input_channels(self.sequences, self.rule, self.segmentation)


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class ModelCard:
    """Model card of a weights file.

    rule: "joint", "union" or "single", how the sequences are combined into one segmentation; segmentation: the
    network and its inference settings; segmentation_threshold: probability, 0 to 1; stand_ins: substitutes for a
    missing sequence, used with a warning and without predicting markers; second_segmentation: a network for another
    pair of sequences, used instead, without predicting markers; training_patients and folds_sha256 identify the
    training data; is_synthetic: whether the training images were drawn, which every prediction states;
    training_cohort_id: ``Cohort.cohort_id`` of the cohort in which these patients have their ids, blank if unknown.
    """

    name: NonEmptyText
    sequences: SequencePair
    rule: RuleName
    segmentation: SegmentationCard
    segmentation_threshold: Probability
    smallest_lesion_ml: VolumeMl
    training_cohort: CardText
    training_patients: tuple[CardText, ...]
    folds_sha256: Sha256
    licence: CardText
    intended_use: CardText
    segmentation_performance: CardText
    versions: Mapping[str, CardText]
    markers: Mapping[MarkerName, MarkerCard] = field(default_factory=dict)
    stand_ins: Mapping[SequenceName, SequenceName] = field(default_factory=dict)
    preparation: PreparationRecord = field(default_factory=PreparationRecord)
    second_segmentation: SecondSegmentationCard | None = None
    is_synthetic: bool = False
    training_cohort_id: CohortId = ""

    @property
    def input_channels(self) -> int:
        """Number of channels that the segmentation network receives."""
        return count_input_channels(self.sequences, self.rule, self.segmentation)

    def list_training_patients(self) -> list[tuple[str, str]]:
        """List the patients on whom a network was trained: id, and the cohort's id, blank if unknown."""
        cards: list[ModelCard | SecondSegmentationCard | MarkerCard] = [self, *self.markers.values()]
        if self.second_segmentation is not None:
            cards.append(self.second_segmentation)
        return [(patient, card.training_cohort_id) for card in cards for patient in card.training_patients]

    def get_segmentation(self, part: str) -> ModelCard | SecondSegmentationCard:
        """Return the card with the settings of a segmentation network by the prefix of its tensors."""
        if part == SEGMENTATION_PART:
            return self
        assert part == SECOND_SEGMENTATION_PART and self.second_segmentation is not None
        return self.second_segmentation


def count_input_channels(sequences: Sequence[str], rule: str, segmentation: SegmentationCard) -> int:
    """Count the channels of a segmentation network: each sequence with its neighbouring slices."""
    return (len(sequences) if rule == "joint" else 1) * (1 + 2 * segmentation.context)


def to_card_record(card: ModelCard) -> dict[str, Any]:
    """Convert a card to the record that a weights file holds; optional fields are left out as in older files."""
    record = asdict(card)
    for name in OPTIONAL_FIELDS:
        if not record[name]:
            del record[name]
    if (second := record.get("second_segmentation")) and not second["training_cohort_id"]:
        del second["training_cohort_id"]
    for marker in record["markers"].values():
        for name in OPTIONAL_MARKER_FIELDS:
            if not marker[name]:
                del marker[name]
        if marker["validation"] and not marker["validation"]["is_test_set"]:
            del marker["validation"]["is_test_set"]
    return record


def parse_card(path: Path, text: str) -> ModelCard:
    """Parse and validate the card in a file's header.

    Raises
    ------
    WeightsError
        If the text is not a complete and consistent card; the message names the field.
    """
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError(
            message("weights-card-unreadable", path=path, reason=_shorten_text(error))
        ) from None
    if not isinstance(record, dict):
        raise WeightsError(message("weights-card-unreadable", path=path, reason=_shorten_text(record)))
    for marker in _get_marker_records(record).values():
        marker.pop("informative", None)  # present in older files, replaced by the validation
    if missing := _find_missing_fields(record):
        raise WeightsError(message("weights-card-incomplete", path=path, fields=", ".join(sorted(missing))))
    try:
        card = parse_record(ModelCard, record)
        _check_consistency(card)
        return card
    except ValueError as error:
        raise WeightsError(create_invalid_field_message(path, error)) from None


def check_marker_name(name: str) -> None:
    """Check that a marker's name can be part of file names.

    Raises
    ------
    ConfigurationError
        If it cannot.
    """
    try:
        parse_record(MarkerName, name)
    except ValueError:
        raise ConfigurationError(message("marker-name-unusable", name=name)) from None


def create_invalid_field_message(path: Path | str, error: ValueError, *field_path: str) -> Message:
    """Create a message that names the invalid field of a card; field_path: path of the checked record in the card."""
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
    """Return the records of the markers; other values are skipped here and reported by validation."""
    markers = record.get("markers")
    markers = markers if isinstance(markers, dict) else {}
    return {name: marker for name, marker in markers.items() if isinstance(marker, dict)}


def _find_missing_fields(record: dict[str, Any]) -> set[str]:
    """Return the missing fields; those that older files lack may be absent."""
    missing = {f.name for f in fields(ModelCard)} - set(OPTIONAL_FIELDS) - set(record)
    required = {f.name for f in fields(MarkerCard)} - {"validation", *OPTIONAL_MARKER_FIELDS}
    for name, marker in _get_marker_records(record).items():
        missing |= {f"{name} {field}" for field in required - set(marker)}
    return missing


def _check_consistency(card: ModelCard) -> None:
    """Check the consistency of several fields. Raises ValueError."""
    second = card.second_segmentation
    for sequences in (card.sequences, *(() if second is None else (second.sequences,))):
        if len(set(sequences)) < len(sequences):
            raise ValueError(f"sequences: {' + '.join(sequences)} contains one twice")
    if second is not None and set(second.sequences) == set(card.sequences):
        raise ValueError(f"second_segmentation: {' + '.join(second.sequences)} is already the first pair")
    for wanted, shown in card.stand_ins.items():
        if wanted not in card.sequences or shown in card.sequences:
            raise ValueError(f"stand_ins: {shown} cannot replace {wanted}")
    for name, marker in card.markers.items():
        if marker.positive == marker.negative:
            raise ValueError(f"{name}: both levels are named {marker.positive}")


def _shorten_text(value: object) -> str:
    """Shorten a value to one line, because a file may contain any text."""
    text = " ".join(str(value).split())
    return text if len(text) <= MAX_VALUE_LENGTH else text[: MAX_VALUE_LENGTH - 3] + "..."
