"""What a model has been trained on, as numbers: the statistics of its training patients and their limits.

Stored in the weights file as the tensor ``known_range/reference``. It holds means, spreads and covariances over all
training patients and the extremes of a few measures, and no patient's own statistics.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, with_config

from gliomark.errors import WeightsError
from gliomark.known_range.statistics import PatientStatistics, compute_robust_scale, list_parts
from gliomark.models.card import KNOWN_RANGE_PART, SequencePair, create_invalid_field_message
from gliomark.models.validated_types import STRICT_CONFIG, parse_record
from gliomark.models.weights import Weights
from gliomark.study import MRSequence

KNOWN_RANGE_TENSOR = f"{KNOWN_RANGE_PART}/reference"

MIN_PATIENTS = 20  # with fewer, limits from left-out patients mean little
# limits of the log distance of left-out training patients, in robust standard deviations above the median
UNUSUAL_DEVIATIONS, REFUSAL_DEVIATIONS = 2.5, 4.0
USUAL_SHARE = 0.98  # of the left-out training patients, at least, are not unusual
SMALLEST_SPREAD = 0.1  # of a statistic: a cohort more uniform than this is no reason to refuse others
WINSOR_DEVIATIONS = 3.0  # statistics of training patients are limited to this for the covariance
MAX_DEVIATIONS = 10.0  # of a patient's statistics: one that failed does not decide alone
WRONG_DEVIATIONS = 6.0  # limit of the statistics for the direction from true to wrong images
WRONG_POSITION = 0.5  # between true images, 0, and wrong ones, 1: the middle

Numbers = Annotated[tuple[float, ...], Field(min_length=1, max_length=500)]
FloatArray = NDArray[np.float64]


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class StatisticsReference:
    """Distribution of several statistics over the training patients.

    names: of the ``n`` statistics; centre, spread: median and robust standard deviation of each; covariance: of the
    statistics in these units, ``(n, n)``, shrunk (Ledoit and Wolf 2004); usual, refused: limits of the distance.

    Raises
    ------
    ValueError
        If the numbers do not fit together.
    """

    names: tuple[str, ...]
    centre: Numbers
    spread: Numbers
    covariance: tuple[Numbers, ...]
    usual: Annotated[float, Field(gt=0)]
    refused: Annotated[float, Field(gt=0)]

    def __post_init__(self) -> None:
        count = len(self.names)
        if {len(self.centre), len(self.spread), len(self.covariance), *map(len, self.covariance)} != {count}:
            raise ValueError("known_range: the statistics differ in number")
        if min(self.spread) <= 0 or len(set(self.names)) < count or self.refused < self.usual:
            raise ValueError("known_range: a spread or limit is not possible")
        if np.linalg.eigvalsh(np.array(self.covariance)).min() <= 0:
            raise ValueError("known_range: not a covariance")

    def compute_distance(self, statistics: Mapping[str, float]) -> float:
        """Compute a patient's Mahalanobis distance from the training patients, divided by the root of ``n``.

        About 1 for a typical patient.
        """
        deviations = self.compute_deviations(statistics)
        covariance = np.array(self.covariance)
        return float(np.sqrt(deviations @ np.linalg.solve(covariance, deviations) / len(deviations)))

    def compute_deviations(self, statistics: Mapping[str, float]) -> FloatArray:
        """Compute every statistic in robust standard deviations from the median, limited, ``(n,)``."""
        values = np.array([statistics[name] for name in self.names])
        return _limit((values - np.array(self.centre)) / np.array(self.spread), MAX_DEVIATIONS)


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class WrongImages:
    """Direction from true images to one kind of wrong ones (Fisher's linear discriminant).

    weights: of the statistics of all parts, in robust standard deviations; offset: added to their sum. The result is 0
    at the mean of true images and 1 at that of wrong ones.
    """

    weights: Numbers
    offset: float


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class KnownRange:
    """What the patients of a model's training cohort look like.

    Attributes
    ----------
    sequences
        The pair of sequences, the reference last.
    patients
        Number of training patients.
    images
        Their images by part, see ``statistics.measure_images``.
    lesion
        Their lesions, see ``statistics.measure_lesion``.
    ranges
        Lowest and highest value of ``statistics.measure_geometry`` and of the lesion's measures.
    similarity
        Highest absolute correlation of the two sequences.
    wrong
        By kind of wrong images, see ``wrong_images.create_wrong_images``.
    """

    sequences: SequencePair
    patients: Annotated[int, Field(ge=MIN_PATIENTS)]
    images: Mapping[str, StatisticsReference]
    lesion: StatisticsReference
    ranges: Mapping[str, tuple[float, float]]
    similarity: Annotated[float, Field(ge=0, le=1)]
    wrong: Mapping[str, WrongImages] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the parts, and that every direction has a weight per statistic. Raises ValueError."""
        if set(self.images) != set(list_parts(self.sequences)):
            raise ValueError("known_range: the parts of the images are not those that are measured")
        count = sum(len(part.names) for part in self.images.values())
        if any(len(one.weights) != count for one in self.wrong.values()):
            raise ValueError("known_range: the weights differ in number from the statistics")

    def compute_position(self, kind: str, images: Mapping[str, float]) -> float:
        """Compute where a patient's images lie between true ones, 0, and a kind of wrong ones, 1."""
        wrong = self.wrong[kind]
        return float(self.compute_deviations(images) @ np.array(wrong.weights) + wrong.offset)

    def compute_deviations(self, images: Mapping[str, float]) -> FloatArray:
        """Compute all statistics in robust standard deviations, limited, ``(n,)``, in the order of the weights.

        The order is that of the measurement. The mapping ``images`` cannot give it: a weights file stores it sorted.
        """
        parts = [self.images[name].compute_deviations(images) for name in list_parts(self.sequences)]
        return _limit(np.concatenate(parts), WRONG_DEVIATIONS)

    def to_array(self) -> NDArray[np.uint8]:
        """Return the JSON text as bytes ``(n,)``, the tensor of a weights file."""
        return np.frombuffer(json.dumps(asdict(self), sort_keys=True).encode(), np.uint8)


def load_known_range(weights: Weights) -> KnownRange | None:
    """Load the known range of a weights file; None if it has none.

    Raises
    ------
    WeightsError
        If it is not valid, or for other sequences than the model's.
    """
    array = weights.tensors.get(KNOWN_RANGE_TENSOR)
    if array is None:
        return None
    try:
        known_range = parse_record(KnownRange, json.loads(bytes(array)))
        if known_range.sequences != weights.card.sequences:
            raise ValueError(f"sequences: {' + '.join(known_range.sequences)}")
    except ValueError as error:
        raise WeightsError(create_invalid_field_message(weights.path, error, KNOWN_RANGE_PART)) from None
    return known_range


def fit_known_range(
    patients: Sequence[PatientStatistics],
    sequences: Sequence[MRSequence],
    wrong: Mapping[str, Sequence[Mapping[str, float]]],
) -> KnownRange | None:
    """Fit the known range to the statistics of training patients with a lesion.

    Parameters
    ----------
    patients
        The training patients.
    sequences
        The pair, the reference last.
    wrong
        Statistics of wrong images by kind; may be empty.

    Returns
    -------
    KnownRange | None
        None if there are fewer than MIN_PATIENTS.
    """
    lesions = [patient.lesion for patient in patients if patient.lesion is not None]
    if len(lesions) < MIN_PATIENTS:
        return None
    one, other = map(str, sequences)
    ranges = {
        name: (min(values), max(values))
        for rows in ([patient.geometry for patient in patients], lesions)
        for name, values in _to_columns(rows).items()
    }
    images = [patient.images for patient in patients]
    known_range = KnownRange(
        sequences=(one, other),
        patients=len(patients),
        images={part: _fit(_select_part(images, part)) for part in list_parts((one, other))},
        lesion=_fit(lesions),
        ranges=ranges,
        similarity=max(patient.similarity for patient in patients),
    )
    directions = {kind: _fit_direction(known_range, images, rows) for kind, rows in wrong.items()}
    return replace(known_range, wrong=directions)


def _fit_direction(
    known_range: KnownRange, true: Sequence[Mapping[str, float]], wrong: Sequence[Mapping[str, float]]
) -> WrongImages:
    """Fit Fisher's linear discriminant between true and wrong images, with a shrunk covariance within both."""
    from sklearn.covariance import ledoit_wolf  # a prediction, which imports this module, does not need it

    tables = [np.array([known_range.compute_deviations(row) for row in rows]) for rows in (true, wrong)]
    means = [table.mean(axis=0) for table in tables]
    within = np.concatenate([table - mean for table, mean in zip(tables, means, strict=True)])
    covariance, _ = ledoit_wolf(_limit(within, WINSOR_DEVIATIONS), assume_centered=True)
    direction = np.linalg.solve(covariance, means[1] - means[0])
    weights = direction / (direction @ (means[1] - means[0]))
    return WrongImages(tuple(weights.tolist()), float(-(weights @ means[0])))


def _select_part(rows: Sequence[Mapping[str, float]], part: str) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name.rpartition("/")[0] == part} for row in rows]


def _to_columns(rows: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def _fit(rows: Sequence[Mapping[str, float]]) -> StatisticsReference:
    """Fit the distribution; the limits come from the distance of every patient to the others.

    The log of the distance is close to normal, for lesions with more large values. The limits are extrapolated from its
    median and robust standard deviation, so that one damaged training patient does not move them.
    """
    names = tuple(rows[0])
    table = np.array([[row[name] for name in names] for row in rows])
    left_out = []
    for index in range(len(table)):
        others = StatisticsReference(*_fit_distribution(names, np.delete(table, index, axis=0)), 1.0, 1.0)
        left_out.append(others.compute_distance(rows[index]))
    (centre,), (spread,) = compute_robust_scale(np.log(left_out)[:, None])
    usual, refused = (float(np.exp(centre + n * spread)) for n in (UNUSUAL_DEVIATIONS, REFUSAL_DEVIATIONS))
    usual = max(usual, float(np.quantile(left_out, USUAL_SHARE)))
    return StatisticsReference(*_fit_distribution(names, table), usual, max(usual, refused))


def _fit_distribution(
    names: tuple[str, ...], table: FloatArray
) -> tuple[tuple[str, ...], Numbers, Numbers, tuple[Numbers, ...]]:
    """Fit centre, spread and covariance to a table ``(patient, n)``: the first fields of StatisticsReference."""
    from sklearn.covariance import ledoit_wolf  # a prediction, which imports this module, does not need it

    centre, spread = compute_robust_scale(table)
    spread = np.maximum(spread, SMALLEST_SPREAD)
    deviations = _limit((table - centre) / spread, WINSOR_DEVIATIONS)
    covariance, _ = ledoit_wolf(deviations, assume_centered=True)
    return (
        names,
        tuple(centre.tolist()),
        tuple(spread.tolist()),
        tuple(tuple(row) for row in covariance.tolist()),
    )


def _limit(deviations: FloatArray, most: float) -> FloatArray:
    return np.asarray(np.clip(deviations, -most, most), dtype=np.float64)
