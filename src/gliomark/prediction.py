"""Data classes of an answer: slice scores, marker predictions and the prediction of one patient.

``Prediction.to_dict`` gives the content of prediction.json, from which all reports are made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, overload

from gliomark.lesion_axes import Diameter, LesionAxes, compute_lesion_axes
from gliomark.lesion_location import LesionLocation
from gliomark.messages import collect_message_records
from gliomark.study import CANNOT_TELL, ClinicalData, Examination, MRSequence, Segmentation, SliceStack, Study

if TYPE_CHECKING:
    import SimpleITK as sitk
    from nibabel.nifti1 import Nifti1Image

SCHEMA_VERSION = 2
RangeResult = Literal["in range", "unusual", "refused", "not checked"]


@dataclass(frozen=True)
class SliceScore:
    """Probability of a marker on one lesion slice, with the lesion's area in mm2.

    decides: whether the slice contributes to the patient's probability.
    """

    slice_name: str
    lesion_area_mm2: float
    probability: float
    decides: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the slice's entry in prediction.json."""
        return {
            "name": self.slice_name,
            "lesion_area_mm2": to_json_number(self.lesion_area_mm2),
            "probability": to_json_number(self.probability),
            "decides": bool(self.decides),
        }


@dataclass(frozen=True)
class Contributions:
    """Additive contributions to the log-odds: baseline (``start``), image, age and sex.

    age and sex are None if the model does not use them.
    """

    start: float
    image: float
    age: float | None
    sex: float | None

    def to_dict(self) -> dict[str, float | None]:
        """Return the contributions by factor."""
        return {name: to_json_number(value) for name, value in vars(self).items()}


@dataclass(frozen=True)
class LevelLimits:
    """From which probability of a patient a level is stated; between the limits the level is "cannot tell".

    Attributes
    ----------
    negative_below, positive_above
        Below the first the level is the negative one, above the second the positive one; 0 and 1 if never.
    coverage
        Share of the patients of either class for whom the true level is among the possible ones, 0 to 1.
    positives, negatives
        Number of patients from whom the limits were computed.
    """

    negative_below: float
    positive_above: float
    coverage: float
    positives: int
    negatives: int

    def decide(self, probability: float, positive: str, negative: str) -> str:
        """Return the name of the level of a probability, or "cannot tell"."""
        if probability > self.positive_above:
            return positive
        return negative if probability < self.negative_below else CANNOT_TELL

    def to_dict(self) -> dict[str, Any]:
        """Return the limits as in prediction.json."""
        return {
            "negative_below": to_json_number(self.negative_below),
            "positive_above": to_json_number(self.positive_above),
            "coverage": to_json_number(self.coverage),
            "positives": self.positives,
            "negatives": self.negatives,
        }


@dataclass(frozen=True)
class CalibrationSummary:
    """How a patient's probability was calibrated.

    Attributes
    ----------
    method
        "platt", "temperature" and others, see ``evaluation.calibrators``; "none" if the probability was left as it was.
    cohort
        Name of the cohort of the calibration.
    cohort_prevalence
        Share of positives among its patients, 0 to 1.
    prevalence
        Share of positives for which the probability holds: that of the calibration, unless another one was given.
    """

    method: str
    cohort: str
    cohort_prevalence: float
    prevalence: float

    def to_dict(self) -> dict[str, Any]:
        """Return the calibration as in prediction.json."""
        return {
            "method": self.method,
            "cohort": self.cohort,
            "cohort_prevalence": to_json_number(self.cohort_prevalence),
            "prevalence": to_json_number(self.prevalence),
        }


@dataclass(frozen=True)
class MarkerPrediction:
    """Prediction of one marker for one patient.

    Attributes
    ----------
    marker, title
        Key and displayed name of the marker.
    probability
        Patient-level probability of the positive class, 0 to 1, calibrated if the model has a calibration; None if it
        could not be predicted or must not be shown.
    level
        "mutant", "wild type", "high" or "low"; "cannot tell" if either level is possible; "undetermined" without a
        prediction.
    label
        Definition of the positive class.
    fusion
        Rule by which slices were fused.
    threshold
        From this probability on the level is positive; None without a probability, and with ``limits``.
    decided_by
        "model" or "reader's finding".
    slices
        Probabilities of the lesion slices, before calibration.
    performance
        Performance of the model, or of the reader's finding, in other patients, with interval and cohort.
    warnings
        Limits of this prediction.
    contributions
        Contributions to the log-odds before calibration, mean over the deciding slices; None without a probability.
    borderline
        Whether the probability is too close to the threshold for a definite level.
    threshold_origin, fusion_in_words
        Messages that explain the threshold and the fusion of the slices.
    positive, negative
        Names of the two levels.
    raw_probability
        The patient's probability before calibration; None without a probability.
    limits, calibration
        From which probability a level is stated, and how it was calibrated; None if the model has no calibration.
    limits_in_words, calibration_in_words
        Messages that explain the two.
    """

    marker: str
    title: str
    probability: float | None
    level: str
    label: str
    fusion: str
    threshold: float | None
    decided_by: str
    slices: tuple[SliceScore, ...] = ()
    performance: str = ""
    warnings: tuple[str, ...] = ()
    contributions: Contributions | None = None
    borderline: bool = False
    threshold_origin: str = ""
    fusion_in_words: str = ""
    positive: str = ""
    negative: str = ""
    raw_probability: float | None = None
    limits: LevelLimits | None = None
    calibration: CalibrationSummary | None = None
    limits_in_words: str = ""
    calibration_in_words: str = ""

    def __repr__(self) -> str:
        """Return one line with level and probability."""
        return f"MarkerPrediction({self.summarise()})"

    def summarise(self) -> str:
        """Return name, level and probability, such as "idh mutant 0.81"."""
        probability = "" if self.probability is None else f" {self.probability:.2f}"
        return f"{self.marker} {self.level}{probability}{' (borderline)' if self.borderline else ''}"

    @property
    def slices_used(self) -> tuple[str, ...]:
        """Names of the slices that contribute to the patient's probability."""
        return tuple(score.slice_name for score in self.slices if score.decides)

    @property
    def possible_levels(self) -> tuple[str, ...]:
        """Levels that the model does not exclude, at the coverage of the limits; empty without limits."""
        if self.limits is None or self.probability is None:
            return ()
        level = self.limits.decide(self.probability, self.positive, self.negative)
        return (self.positive, self.negative) if level == CANNOT_TELL else (level,)

    @property
    def probability_range(self) -> tuple[float, float] | None:
        """Lowest and highest probability of the single lesion slices, before calibration; None for fewer than two.

        It shows how much the prediction depends on the choice of slice. It is not a confidence interval.
        """
        finite_probabilities = [
            score.probability for score in self.slices if math.isfinite(score.probability)
        ]
        return (
            (min(finite_probabilities), max(finite_probabilities)) if len(finite_probabilities) > 1 else None
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the marker's entry in prediction.json."""
        probability_range, contributions = self.probability_range, self.contributions
        return {
            "marker": self.marker,
            "title": self.title,
            "probability": to_json_number(self.probability),
            "raw_probability": to_json_number(self.raw_probability),
            "probability_range": None
            if probability_range is None
            else [to_json_number(value) for value in probability_range],
            "level": self.level,
            "borderline": self.borderline,
            "possible_levels": list(self.possible_levels),
            "limits": None if self.limits is None else self.limits.to_dict(),
            "limits_in_words": self.limits_in_words,
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
            "calibration_in_words": self.calibration_in_words,
            "positive": self.positive,
            "negative": self.negative,
            "label": self.label,
            "threshold": to_json_number(self.threshold),
            "threshold_origin": self.threshold_origin,
            "decided_by": self.decided_by,
            "fusion": self.fusion,
            "fusion_in_words": self.fusion_in_words,
            "slices_used": list(self.slices_used),
            "slices": [score.to_dict() for score in self.slices],
            "performance": self.performance,
            "contributions": None if contributions is None else contributions.to_dict(),
            "warnings": list(self.warnings),
        }


class MarkerPredictions(tuple[MarkerPrediction, ...]):
    """The predictions of all markers, in the order of the model.

    A tuple that can also be indexed by a marker's name: ``markers["idh"]``. An unknown name raises KeyError, which
    lists the markers of the model.
    """

    @overload
    def __getitem__(self, key: str | SupportsIndex) -> MarkerPrediction: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[MarkerPrediction, ...]: ...
    def __getitem__(
        self, key: str | SupportsIndex | slice
    ) -> MarkerPrediction | tuple[MarkerPrediction, ...]:
        """Return the prediction of a marker, by its name or its index."""
        if not isinstance(key, str):
            return super().__getitem__(key)
        for marker_prediction in self:
            if marker_prediction.marker == key:
                return marker_prediction
        raise KeyError(f"{key!r} is not among the markers of this model: {', '.join(m.marker for m in self)}")

    def items(self) -> Iterator[tuple[str, MarkerPrediction]]:
        """Iterate over pairs of name and prediction."""
        return ((marker_prediction.marker, marker_prediction) for marker_prediction in self)


@dataclass(frozen=True)
class ModelIdentity:
    """Identity of the weights used: name, SHA-256 of their content, training cohort, licence, intended use.

    signature: id of the trusted key that signed the file, "unsigned", or "not checked" if no key is trusted.
    """

    name: str
    sha256: str
    sequences: tuple[str, ...]
    training_cohort: str
    licence: str
    intended_use: str
    signature: str = "unsigned"

    def to_dict(self) -> dict[str, Any]:
        """Return the model's entry in prediction.json."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "sequences": list(self.sequences),
            "training_cohort": self.training_cohort,
            "licence": self.licence,
            "intended_use": self.intended_use,
            "signature": self.signature,
        }


@dataclass(frozen=True)
class RangeCheck:
    """Whether a patient resembles those on whom the model was trained.

    Attributes
    ----------
    result
        "in range"; "unusual", which the findings say; "refused": no marker is predicted; "not checked": the weights
        file has no statistics of its training patients, or other sequences were used.
    findings
        Messages on what is unusual or refused.
    score
        Distance from the training patients; 1 is the limit of refusal. None if it was not checked.
    """

    result: RangeResult = "not checked"
    findings: tuple[str, ...] = ()
    score: float | None = None

    @property
    def is_refused(self) -> bool:
        """Whether no marker may be predicted."""
        return self.result == "refused"

    def to_dict(self) -> dict[str, Any]:
        """Return the entry in prediction.json."""
        return {
            "result": self.result,
            "findings": list(self.findings),
            "score": to_json_number(self.score),
        }


@dataclass(frozen=True, eq=False)
class Prediction:
    """Result of one patient, including the images; ``reporting`` writes it to files.

    Attributes
    ----------
    patient_id
        The patient's id.
    clinical
        Age, sex and further columns that were given.
    study, stack
        The images as read and as prepared.
    segmentation
        The lesion on the stack.
    lesion_volume_ml
        Volume in ml.
    lesion_areas_mm2
        Area in mm2 by slice name, lesion slices only.
    markers
        One prediction per marker of the model: ``prediction.markers["idh"]``.
    warnings
        Limits of the result.
    model
        Identity of the weights.
    software_version
        Version of gliomark.
    seconds
        Computing time.
    stand_ins
        Substitute by missing sequence.
    notes
        Notes in addition to those of the study and the stack.
    known_range
        Whether the patient resembles those on whom the model was trained; its findings are among the warnings.
    location
        Approximate location of the lesion in the brain; None if it was not requested, or without a lesion.
    """

    patient_id: str
    clinical: ClinicalData
    study: Study
    stack: SliceStack
    segmentation: Segmentation
    lesion_volume_ml: float
    lesion_areas_mm2: Mapping[str, float]
    markers: MarkerPredictions
    warnings: tuple[str, ...]
    model: ModelIdentity
    software_version: str
    seconds: float
    stand_ins: Mapping[MRSequence, MRSequence] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    known_range: RangeCheck = RangeCheck()
    location: LesionLocation | None = None

    def __post_init__(self) -> None:
        """Accept any tuple of marker predictions."""
        object.__setattr__(self, "markers", MarkerPredictions(self.markers))

    def __repr__(self) -> str:
        """Return one line with the lesion volume, the level of each marker and the number of warnings."""
        lesion = f"lesion {self.lesion_volume_ml:.1f} ml" if self.lesion_areas_mm2 else "no lesion"
        parts = ", ".join((lesion, *(marker.summarise() for marker in self.markers)))
        warning_count = len(self.warnings) + sum(len(marker.warnings) for marker in self.markers)
        return f"Prediction({self.patient_id!r}: {parts}; {warning_count} warnings)"

    @property
    def all_notes(self) -> tuple[str, ...]:
        """Processing steps and assumptions of reading, preparation and prediction, without duplicates."""
        return tuple(dict.fromkeys((*self.study.notes, *self.stack.notes, *self.notes)))

    @cached_property
    def lesion_axes(self) -> LesionAxes | None:
        """The diameters of the lesion's largest part, measured on the stack; None without a lesion."""
        return compute_lesion_axes(self.segmentation.mask, self.stack.affine)

    def _create_diameter_record(self) -> dict[str, Any] | None:
        axes = self.lesion_axes
        if axes is None:
            return None
        return {
            "slice": self.stack.slice_names[axes.slice_index],
            "longest": _create_line_record(axes.longest),
            "perpendicular": _create_line_record(axes.perpendicular),
            "longest_3d": _create_line_record(axes.longest_3d),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the content of prediction.json, which ``prediction.schema.json`` describes.

        Returns
        -------
        dict
            Plain data: texts, numbers rounded to six decimals, lists and dictionaries; no images.

        Examples
        --------
        >>> document = prediction.to_dict()
        >>> document["lesion"]["volume_ml"]
        23.4
        """
        study, stack, model = self.study, self.stack, self.model
        document = {
            "schema_version": SCHEMA_VERSION,
            "patient_id": self.patient_id,
            "age": to_json_number(self.clinical.age),
            "sex": self.clinical.sex,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "markers": [marker.to_dict() for marker in self.markers],
            "lesion": {
                "found": bool(self.lesion_areas_mm2),
                "volume_ml": to_json_number(self.lesion_volume_ml),
                "areas_mm2": {name: to_json_number(area) for name, area in self.lesion_areas_mm2.items()},
                "diameters": self._create_diameter_record(),
                "rule": self.segmentation.rule,
            },
            "sequences": {
                "found": [str(name) for name in study.series],
                "used": [str(name) for name in stack.images],
                "stand_ins": {str(missing): str(shown) for missing, shown in self.stand_ins.items()},
            },
            "input": {
                "kind": study.kind,
                "spacing_assumed": study.spacing_assumed,
                "examination": _create_examination_record(study.examination),
            },
            "known_range": self.known_range.to_dict(),
            "location": None if self.location is None else self.location.to_dict(),
            "warnings": list(self.warnings),
            "notes": list(self.all_notes),
            "model": model.to_dict(),
            "software": {"name": "gliomark", "version": self.software_version},
            "seconds": to_json_number(self.seconds),
        }
        return document | {"messages": collect_message_records(document)}

    def segmentation_image(self, sequence: MRSequence | str | None = None) -> Nifti1Image:
        """Return the lesion mask as a NIfTI image on the grid of one of the patient's series.

        Parameters
        ----------
        sequence
            The series whose grid is used; None: T1C if the model used it, otherwise the first sequence used, as in
            segmentation.nii.gz.

        Returns
        -------
        nibabel.Nifti1Image
            uint8 0 or 1, ``(column, row, slice)``, with the affine to RAS mm of the series' own file.

        Raises
        ------
        InputError
            If the model did not use the sequence.

        Examples
        --------
        >>> nibabel.save(prediction.segmentation_image(), "lesion.nii.gz")
        """
        from gliomark.reporting.segmentation_images import create_segmentation_image

        return create_segmentation_image(self, sequence)

    def segmentation_sitk(self, sequence: MRSequence | str | None = None) -> sitk.Image:
        """Return the lesion mask as a SimpleITK image on the grid of one of the patient's series.

        Parameters
        ----------
        sequence
            As for ``segmentation_image``.

        Returns
        -------
        SimpleITK.Image
            uint8 0 or 1, with spacing, origin and directions (LPS mm) of the series.

        Raises
        ------
        InputError
            If the model did not use the sequence.

        Examples
        --------
        >>> SimpleITK.WriteImage(prediction.segmentation_sitk(), "lesion.nrrd")
        """
        from gliomark.reporting.segmentation_images import create_segmentation_sitk

        return create_segmentation_sitk(self, sequence)


def _create_line_record(line: Diameter) -> dict[str, Any]:
    ends = [[to_json_number(value) for value in end] for end in line.ends_mm]
    return {"mm": to_json_number(line.mm), "ends_mm": ends}


def _create_examination_record(examination: Examination | None) -> dict[str, Any] | None:
    """Return date (YYYYMMDD, as in the files), number and count of the examination that was read."""
    if examination is None:
        return None
    return {"date": examination.date or None, "number": examination.number, "of": examination.count}


def to_json_number(value: float | None) -> float | None:
    """Round to six decimals; non-finite values become None because JSON has no NaN."""
    return None if value is None or not math.isfinite(value) else round(float(value), 6)
