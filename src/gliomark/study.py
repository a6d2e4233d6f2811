"""What flows between the rooms: plain, frozen records from the patient's images to the answer.

Geometry. Every image array is ``(slice, row, column)``. An ``affine`` is 4x4 and takes the index
``(column, row, slice, 1)`` to patient coordinates in millimetres, DICOM's LPS: x grows to the
patient's left, y to the back, z to the head.
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

from gliomark.messages import message

DICOM_MANUFACTURER = "gliomark"  # the manufacturer its DICOM results name, by which they are known again


class GliomarkError(Exception):
    """Something the user can mend; its text is one sentence: what is wrong, where, what to do."""

    @property
    def message(self) -> str:
        """The sentence as it was raised: a ``messages.Message`` where it can be said in Chinese too."""
        return self.args[0] if self.args else ""


# What imaging libraries raise on one patient's data that passed every check of ours; it must not stop the others.
DATA_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


class MRSequence(StrEnum):
    """The four sequences of the method; ``T1C`` is T1 after contrast."""

    T1 = "T1"
    T1C = "T1C"
    T2 = "T2"
    FLAIR = "FLAIR"


@dataclass(frozen=True)
class SourceImage:
    """The DICOM image that a slice was read from: a file, or one frame (from 0) of a multi-frame file.

    position: LPS mm of its first pixel's centre. place: where it lies among the slices of its Series, the
    first being 0; a fraction where it lay off the even grid and the Series' slices are interpolations.
    """

    file: Path
    frame: int | None
    position: tuple[float, float, float]
    place: float


@dataclass(frozen=True)
class NiftiSpace:
    """How a NIfTI header states its grid, number for number, so that a result can state it in the same way.

    pixdim: qfac, then the steps of columns, rows and slices; quaternion: b, c, d; rows: srow_x, _y, _z;
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
    """One sequence of one patient, as stored: no reorientation, no scaling of grey values.

    image: float32 ``(slice, row, column)``; affine: index to LPS mm; slice_names: one per slice, the
    file's stem for pictures, a counter from ``001`` otherwise. source_images: the images that were read,
    in order of their place; of DICOM only. missing: bool, as image: where the files had no number and image
    has background; None for nowhere. is_oriented: whether the file states where left, front and top are;
    otherwise the affine's directions are assumed. space: of NIfTI only.
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
    """Which of a patient's examinations was read: its date (YYYYMMDD, blank where unknown), its number from 1 in the
    order of time, and of how many."""

    date: str
    number: int
    count: int


@dataclass(frozen=True, eq=False)
class Study:
    """One patient's examination. A sequence that is not on disk is not in ``series``.

    aligned: the sequences already share one pixel grid (picture folders), so none is registered.
    spacing_assumed: the millimetres are a stated assumption, not read from the files.
    lesion: the reader's mask where one was found, as a Series of 0 and 1. examination: which one of the
    patient's was read, None for pictures and for volumes without sessions.
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
    """A patient's row of the clinical table. age in years; sex 0 male, 1 female; None unknown.

    columns: every further column as text, blanks left out (markers are read from here).
    """

    patient_id: str
    age: float | None
    sex: int | None
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SliceStack:
    """The prepared patient: brain-only, z-scored axial slices on one grid shared by all sequences.

    images: per sequence float32 ``(slice, 240, 240)``, 1 mm pixels; rows run front to back and columns
    from the patient's right to left. brain, lesion: bool, same shape. selected: indices of the K
    equidistant slices that the marker stage sees. slice_names: one per slice of the stack.
    to_stack: per sequence the rigid 4x4 from that series' own LPS mm to the stack's, from registration.
    coverage: per sequence the share of the brain that it shows, 0 to 1. examined: the share that all of them show,
    of which the stack consists; None where the images end within the brain and how much is missing is not known.
    warnings: what a reader of the answer must know, ``notes`` what they may.
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
        """The reader's mask. Raises GliomarkError where none was read."""
        if self.lesion is None:
            raise GliomarkError(message("no-mask", patient=self.patient_id))
        return self.lesion

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Step between slices, rows and columns, in millimetres."""
        column_step, row_step, slice_step = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(slice_step), float(row_step), float(column_step)

    @property
    def pixel_area_mm2(self) -> float:
        """Area of one pixel in square millimetres."""
        return float(np.linalg.norm(self.affine[:3, 0]) * np.linalg.norm(self.affine[:3, 1]))

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres, the step between slices included."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0


READER_SEGMENTATION_RULE = message("outline-by-reader")


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The outline on a SliceStack. probability: float32 and mask: bool, both ``(slice, 240, 240)``; rule: how
    the outlines of the sequences became one, or that it is a reader's."""

    probability: NDArray[np.float32]
    mask: NDArray[np.bool_]
    rule: str

    @property
    def is_drawn_by_reader(self) -> bool:
        """Drawn or corrected by a person; results must not say that a network outlined it."""
        return self.rule == READER_SEGMENTATION_RULE


@dataclass(frozen=True)
class SliceScore:
    """One lesion slice's probability for one marker, with the lesion's area there in mm2."""

    slice_name: str
    lesion_area_mm2: float
    probability: float
    decides: bool = False


@dataclass(frozen=True)
class Contributions:
    """Parts of a log-odds: the model's baseline (``start``), and what the image, the age and the sex added.

    age and sex are None where the model does not take them.
    """

    start: float
    image: float
    age: float | None
    sex: float | None


@dataclass(frozen=True)
class ReaderFindingAccuracy:
    """How often "an enhancing focus means IDH wild type, none means mutant" was right, measured on a cohort.

    patients, right: of all; focus, wild_type: of those with an enhancing focus; no_focus, mutant: of those without.
    low, high: the exact 95 % interval of right / patients. method: how the focus was seen.
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
        return self.correct / self.patients

    def describe_performance(self, has_enhancing_focus: bool) -> str:
        """What stands beside a level that the finding decided."""
        if has_enhancing_focus:
            case_text = message("finding-focus", right=self.wild_type_with_focus, of=self.with_focus)
        else:
            case_text = message("finding-no-focus", right=self.mutant_without_focus, of=self.without_focus)
        numbers = {"right": self.correct, "patients": self.patients, "cohort": self.cohort}
        interval = {"accuracy": self.accuracy, "low": self.lower, "high": self.upper}
        return message("finding-performance", case=case_text, **numbers, **interval)

    def summarise(self) -> str:
        """The same in a sentence, for the question itself."""
        numbers = {"right": self.correct, "patients": self.patients, "accuracy": self.accuracy}
        return message(
            "finding-in-short", wild_type=self.wild_type_with_focus, focus=self.with_focus, **numbers
        )


# results/reader_finding.csv; a test holds the two together
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
    """A marker's answer for one patient.

    probability: patient level, of the positive class, None where nothing could be predicted or nothing may be shown.
    level: the answer in a word ("mutant", "wild type", "high", "low", "undetermined").
    label: what the positive class means, in words. decided_by: "model" or "reader's finding".
    threshold: the probability at and above which the level is the positive one, None where there is no probability.
    performance: how well whoever decided did on other patients, with interval and cohort, in words.
    contributions: what the trees' answer is made of, in log-odds, mean over the deciding slices (None where
    there is none). borderline: whether the probability lies too close to the threshold to name a level for sure.
    threshold_origin: where the threshold comes from and how to read it, fusion_in_words: how the slices became the
    probability, both for people. positive: the level that the probability is the probability of.
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
        """Lowest and highest probability of any one lesion slice, whether it decides or not; None of fewer than two.

        How much the answer hangs on the choice of slice. It is not a confidence interval.
        """
        finite_probabilities = [
            score.probability for score in self.slices if math.isfinite(score.probability)
        ]
        return (
            (min(finite_probabilities), max(finite_probabilities)) if len(finite_probabilities) > 1 else None
        )


@dataclass(frozen=True)
class ModelIdentity:
    """Which weights gave the answer: name, SHA-256 of their content, what they were trained on, licence.

    signature: the id of the trusted key that signed the file, "unsigned", or "not checked" where no key is trusted.
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
    """Everything one patient's run produced, images included, ready to be written by ``reporting``.

    lesion_areas_mm2: slice name to area, lesion slices only. stand_ins: a missing sequence to the one that the
    networks were shown in its place. notes: what is said beside the study's and the stack's own notes.
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
        """What was done or assumed on the way, each once: when reading, when preparing, when predicting."""
        return tuple(dict.fromkeys((*self.study.notes, *self.stack.notes, *self.notes)))
