"""What a weights file knows of a marker's patient-level probability: its calibration, and scores of either class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, with_config

from gliomark.models.validated_types import STRICT_CONFIG, Fraction

# number of parameters by method; those of "isotonic" are pairs
PARAMETER_COUNTS = {"none": 0, "shift": 1, "temperature": 1, "platt": 2, "beta": 3}
SLOPE_COUNTS = {"temperature": 1, "platt": 1, "beta": 2}
MIN_ISOTONIC_KNOTS = 2
SCORE_DECIMALS = 6  # of stored parameters and scores, and of the probabilities that are compared with them

CalibrationMethodName = Literal["none", "shift", "temperature", "platt", "beta", "isotonic"]
Parameter = Annotated[float, Field(ge=-1e6, le=1e6)]
PatientScores = Annotated[tuple[Fraction, ...], Field(min_length=1, max_length=100_000)]


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class PatientCalibration:
    """Calibration of the patient-level probability, from patients on whom the model was not trained.

    The limits of "cannot tell" follow from the scores, for any coverage: see ``evaluation.conformal``.

    Attributes
    ----------
    method, parameters
        The map from the model's probability to the calibrated one, see ``evaluation.calibrators.Calibrator``.
    positive_scores, negative_scores
        Calibrated probabilities of the patients of either class, in ascending order.
    cohort
        Name of the patients' cohort.

    Raises
    ------
    ValueError
        If the parameters are not those of a rising map, or the scores are not in order.
    """

    method: CalibrationMethodName
    parameters: Annotated[tuple[Parameter, ...], Field(max_length=10_000)]
    positive_scores: PatientScores
    negative_scores: PatientScores
    cohort: Annotated[str, Field(max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")]

    def __post_init__(self) -> None:
        if self.method == "isotonic":
            _check_isotonic_parameters(self.parameters)
        elif len(self.parameters) != PARAMETER_COUNTS[self.method]:
            raise ValueError(
                f"{self.method} has {PARAMETER_COUNTS[self.method]} parameters: {self.parameters}"
            )
        elif min(self.parameters[: SLOPE_COUNTS.get(self.method, 0)], default=0) < 0:
            raise ValueError(f"a negative slope would reverse the order of patients: {self.parameters}")
        if not (_is_ascending(self.positive_scores) and _is_ascending(self.negative_scores)):
            raise ValueError("the scores are not in ascending order")

    @property
    def positives(self) -> int:
        """Number of patients with the marker."""
        return len(self.positive_scores)

    @property
    def negatives(self) -> int:
        """Number of patients without it."""
        return len(self.negative_scores)

    @property
    def patients(self) -> int:
        """Number of patients."""
        return self.positives + self.negatives

    @property
    def prevalence(self) -> float:
        """Share of the patients with the marker, above 0 and below 1."""
        return self.positives / self.patients

    def get_labels_and_scores(self) -> tuple[list[int], list[float]]:
        """Return label, 1 or 0, and calibrated probability of every patient."""
        return (
            [1] * self.positives + [0] * self.negatives,
            [*self.positive_scores, *self.negative_scores],
        )


def _check_isotonic_parameters(parameters: Sequence[float]) -> None:
    """Check probabilities from 0 to 1 and as many calibrated ones, both rising. Raises ValueError."""
    count = len(parameters) // 2
    knots, values = parameters[:count], parameters[count:]
    if count < MIN_ISOTONIC_KNOTS or len(knots) != len(values):
        raise ValueError(f"isotonic has pairs of parameters, at least {MIN_ISOTONIC_KNOTS}")
    is_map = knots[0] == 0 and knots[-1] == 1 and values[0] >= 0 and values[-1] <= 1
    if not (is_map and _is_ascending(knots) and _is_ascending(values)):
        raise ValueError("the isotonic parameters do not rise from 0 to 1")


def _is_ascending(values: Sequence[float]) -> bool:
    return all(first <= second for first, second in pairwise(values))
