"""Data classes passed between packages: images, prepared study, prediction.

Geometry: image arrays are ``(slice, row, column)``. An ``affine`` is ``(4, 4)`` and maps the index
``(column, row, slice, 1)`` to patient coordinates in mm, in DICOM's LPS system: x increases to the patient's left,
y to the back, z to the head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gliomark.errors import InputError
from gliomark.messages import message

DICOM_MANUFACTURER = "gliomark"  # Manufacturer in DICOM results, by which they are recognised


class MRSequence(StrEnum):
    """MR sequences of the method; ``T1C`` is T1 after contrast."""

    T1 = "T1"
    T1C = "T1C"
    T2 = "T2"
    FLAIR = "FLAIR"


@dataclass(frozen=True)
class SourceImage:
    """DICOM image from which a slice was read: a file, or one frame (from 0) of a multi-frame file.

    position: centre of its first pixel in LPS mm. place: slice index in its Series, from 0; a fraction if the image
    lies off the regular grid and the slices of the Series are interpolated.
    """

    file: Path
    frame: int | None
    position: tuple[float, float, float]
    place: float


@dataclass(frozen=True)
class NiftiSpace:
    """Geometry fields of a NIfTI header, unchanged, so that results can be written with the same fields.

    pixdim: qfac, then the spacing of columns, rows and slices; quaternion: b, c, d; rows: srow_x, srow_y, srow_z;
    units: xyzt_units.
    """

    qform_code: int
    sform_code: int
    pixdim: tuple[float, float, float, float]
    quaternion: tuple[float, float, float]
    offset: tuple[float, float, float]
    rows: tuple[tuple[float, ...], ...]
    units: int


@dataclass(frozen=True, eq=False)
class Series:
    """One sequence of one patient as stored, without reorientation or intensity scaling.

    Attributes
    ----------
    image
        float32 ``(slice, row, column)``.
    affine
        ``(4, 4)``, index to LPS mm.
    slice_names
        One per slice: the file's stem for pictures, otherwise a counter from ``001``.
    source
        File or folder from which it was read.
    source_images
        The images that were read, in slice order; DICOM only.
    missing
        Boolean, shape of image: voxels without a valid value, which have the background value in image; None: none.
    is_oriented
        Whether the file states the orientation; otherwise the directions of the affine are assumed.
    space
        Geometry fields of the header; NIfTI only.
    """

    image: NDArray[np.float32]
    affine: NDArray[np.float64]
    slice_names: tuple[str, ...]
    source: Path
    source_images: tuple[SourceImage, ...] = ()
    missing: NDArray[np.bool_] | None = None
    is_oriented: bool = True
    space: NiftiSpace | None = None


@dataclass(frozen=True)
class Examination:
    """The examination that was read: date (YYYYMMDD, empty if unknown), number in order of time (from 1), and count."""

    date: str
    number: int
    count: int


@dataclass(frozen=True, eq=False)
class Study:
    """One examination of a patient, as read; ``series`` contains the sequences that are present.

    aligned: the sequences already share one pixel grid (picture folders) and are not registered. spacing_assumed:
    spacing is assumed, not read from the files. lesion: the reader's mask, if present, as a Series of 0 and 1.
    examination: which of the patient's examinations was read, None for pictures and for volumes without sessions.
    """

    patient_id: str
    series: Mapping[MRSequence, Series]
    source: Path
    kind: Literal["pictures", "volumes"]
    aligned: bool = False
    spacing_assumed: bool = False
    lesion: Series | None = None
    notes: tuple[str, ...] = ()
    examination: Examination | None = None


@dataclass(frozen=True)
class ClinicalData:
    """A patient's row of the clinical table: age in years; sex 0 male, 1 female; None if unknown.

    columns: all further columns as text without empty cells, such as markers.
    """

    patient_id: str
    age: float | None
    sex: int | None
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SliceStack:
    """A prepared patient: skull-stripped, z-scored axial slices of all sequences on one grid.

    Attributes
    ----------
    images
        By sequence: float32 ``(slice, 240, 240)``, 1 mm pixels; rows run from front to back, columns from the
        patient's right to left.
    brain, lesion
        Boolean masks of the same shape; lesion: the reader's, if there is one.
    affine
        ``(4, 4)``, index to LPS mm.
    slice_names
        One per slice.
    selected
        Indices of the K equidistant slices for the marker networks.
    notes
        Processing steps and assumptions.
    to_stack
        By sequence: rigid transform ``(4, 4)`` from the series' LPS mm to the stack's, from registration.
    coverage
        By sequence: share of the brain that it shows, 0 to 1.
    examined
        Share of the brain that all sequences show, which is the extent of the stack; None if the images end within the
        brain and the missing part is unknown.
    warnings
        Limits of the result.
    """

    patient_id: str
    images: Mapping[MRSequence, NDArray[np.float32]]
    brain: NDArray[np.bool_]
    affine: NDArray[np.float64]
    slice_names: tuple[str, ...]
    selected: tuple[int, ...]
    lesion: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()
    to_stack: Mapping[MRSequence, NDArray[np.float64]] = field(default_factory=dict)
    coverage: Mapping[MRSequence, float] = field(default_factory=dict)
    examined: float | None = 1.0
    warnings: tuple[str, ...] = ()

    @property
    def reader_mask(self) -> NDArray[np.bool_]:
        """The reader's mask, boolean ``(slice, row, column)``.

        Raises
        ------
        InputError
            If there is none.
        """
        if self.lesion is None:
            raise InputError(message("no-mask", patient=self.patient_id))
        return self.lesion

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Spacing of slices, rows and columns in mm."""
        column_step, row_step, slice_step = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(slice_step), float(row_step), float(column_step)

    @property
    def pixel_area_mm2(self) -> float:
        """Area of one pixel in mm2."""
        return float(np.linalg.norm(self.affine[:3, 0]) * np.linalg.norm(self.affine[:3, 1]))

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in ml, with the slice spacing as its height."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0


READER_SEGMENTATION_RULE = message("outline-by-reader")


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Lesion segmentation of a SliceStack.

    probability: float32, 0 to 1, and mask: boolean, both ``(slice, 240, 240)``; rule: message that describes how the
    sequences were combined, or that a reader drew the mask.
    """

    probability: NDArray[np.float32]
    mask: NDArray[np.bool_]
    rule: str

    @property
    def is_drawn_by_reader(self) -> bool:
        """Whether a reader drew or corrected the mask, which results must state."""
        return self.rule == READER_SEGMENTATION_RULE


@dataclass(frozen=True)
class SliceScore:
    """Probability of a marker on one lesion slice, with the lesion's area in mm2.

    decides: whether the slice contributes to the patient's probability.
    """

    slice_name: str
    lesion_area_mm2: float
    probability: float
    decides: bool = False


@dataclass(frozen=True)
class Contributions:
    """Additive contributions to the log-odds: baseline (``start``), image, age and sex.

    age and sex are None if the model does not use them.
    """

    start: float
    image: float
    age: float | None
    sex: float | None


@dataclass(frozen=True)
class ReaderFindingAccuracy:
    """Accuracy, in a cohort, of the rule "enhancing focus: IDH wild type; none: IDH mutant".

    patients, correct: number of patients and of correct predictions; with_focus, wild_type_with_focus: patients with
    an enhancing focus, and wild types among them; without_focus, mutant_without_focus: patients without, and mutants
    among them; lower, upper: exact 95 % interval of the accuracy; detection_method: how the focus was detected.
    """

    cohort: str
    patients: int
    correct: int
    lower: float
    upper: float
    with_focus: int
    wild_type_with_focus: int
    without_focus: int
    mutant_without_focus: int
    detection_method: str

    @property
    def accuracy(self) -> float:
        """Share of correct predictions, 0 to 1."""
        return self.correct / self.patients

    def describe_performance(self, has_enhancing_focus: bool) -> str:
        """Return the message shown with a level that was decided by the finding."""
        if has_enhancing_focus:
            case_text = message("finding-focus", right=self.wild_type_with_focus, of=self.with_focus)
        else:
            case_text = message("finding-no-focus", right=self.mutant_without_focus, of=self.without_focus)
        numbers = {"right": self.correct, "patients": self.patients, "cohort": self.cohort}
        interval = {"accuracy": self.accuracy, "low": self.lower, "high": self.upper}
        return message("finding-performance", case=case_text, **numbers, **interval)

    def summarise(self) -> str:
        """Return a one-sentence summary, shown beside the question."""
        numbers = {"right": self.correct, "patients": self.patients, "accuracy": self.accuracy}
        return message(
            "finding-in-short", wild_type=self.wild_type_with_focus, focus=self.with_focus, **numbers
        )


# the numbers of results/reader_finding.csv, which a test compares
READER_FINDING_ACCURACY = ReaderFindingAccuracy(
    cohort="TCGA-LGG",
    patients=86,
    correct=55,
    lower=0.5288,
    upper=0.7403,
    with_focus=31,
    wild_type_with_focus=10,
    without_focus=55,
    mutant_without_focus=45,
    detection_method="T1C minus T1 in the drawn lesion more than 3 standard deviations above the rest of the brain, in a "
    "connected piece of at least 0.2 ml",
)


@dataclass(frozen=True)
class MarkerPrediction:
    """Prediction of one marker for one patient.

    Attributes
    ----------
    marker, title
        Key and displayed name of the marker.
    probability
        Patient-level probability of the positive class, 0 to 1; None if it could not be predicted or must not be shown.
    level
        "mutant", "wild type", "high", "low" or "undetermined".
    label
        Definition of the positive class.
    fusion
        Rule by which slices were fused.
    threshold
        From this probability on the level is positive; None without a probability.
    decided_by
        "model" or "reader's finding".
    slices
        Probabilities of the lesion slices.
    performance
        Performance of the model, or of the reader's finding, in other patients, with interval and cohort.
    warnings
        Limits of this prediction.
    contributions
        Contributions to the log-odds, mean over the deciding slices; None without a probability.
    borderline
        Whether the probability is too close to the threshold for a definite level.
    threshold_origin, fusion_in_words
        Messages that explain the threshold and the fusion of the slices.
    positive
        Name of the positive level.
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

    @property
    def probability_range(self) -> tuple[float, float] | None:
        """Lowest and highest probability of the single lesion slices; None for fewer than two.

        It shows how much the prediction depends on the choice of slice. It is not a confidence interval.
        """
        finite_probabilities = [
            score.probability for score in self.slices if math.isfinite(score.probability)
        ]
        return (
            (min(finite_probabilities), max(finite_probabilities)) if len(finite_probabilities) > 1 else None
        )


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
        One prediction per marker of the model.
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
    """

    patient_id: str
    clinical: ClinicalData
    study: Study
    stack: SliceStack
    segmentation: Segmentation
    lesion_volume_ml: float
    lesion_areas_mm2: Mapping[str, float]
    markers: tuple[MarkerPrediction, ...]
    warnings: tuple[str, ...]
    model: ModelIdentity
    software_version: str
    seconds: float
    stand_ins: Mapping[MRSequence, MRSequence] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def all_notes(self) -> tuple[str, ...]:
        """Processing steps and assumptions of reading, preparation and prediction, without duplicates."""
        return tuple(dict.fromkeys((*self.study.notes, *self.stack.notes, *self.notes)))
