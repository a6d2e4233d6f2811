"""The generative model of the synthetic patients: labels, then the tumour's appearance given the labels.

Labels. A stratum (WHO grade, IDH mutation) is sampled by its proportion; within it, independently, age (normal), sex
(Bernoulli) and Ki-67 (log-normal, rounded to a whole percentage from 1 to 90).

Appearance. Each continuous variable is logistic-normal: its latent value is linear in ln(Ki-67 / 10 %), grade and IDH,
plus independent noise with a given standard deviation, and a logistic function maps it to its range. The T2-FLAIR
mismatch is a Bernoulli variable with a given probability. Nothing is truncated, so the likelihood of an appearance
is exact, and Bayes' rule over the 5 strata and 90 percentages, a finite sum, gives the Bayes-optimal AUC. All other
properties of a head (location, side, shape, atrophy by age) contain no further information about the labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit, logit, ndtr

from gliomark.errors import ConfigurationError
from gliomark.evaluation.metrics import auc
from gliomark.study import ClinicalData

DoubleArray = NDArray[np.float64]
NumberOrArray = TypeVar("NumberOrArray", float, NDArray[np.float64])
MARKER_COLUMNS = ("ki67", "idh_mutant")
LABEL_COLUMNS = (*MARKER_COLUMNS, "who_grade")  # columns of a clinical row, in order
CaseMix = Literal["surgical", "low-grade"]


@dataclass(frozen=True)
class Stratum:
    """One type of glioma.

    shares: proportion of the patients by case mix; age_mean_sd: mean and standard deviation in years;
    log_ki67_mean_sd: mean and standard deviation of ln(Ki-67 %); female_share: proportion of women.
    """

    grade: int
    idh_mutant: int
    shares: Mapping[CaseMix, float]
    age_mean_sd: tuple[float, float]
    log_ki67_mean_sd: tuple[float, float]
    female_share: float


# Rounded statistics of 326 glioma patients of a public research set (IPD-Brain); the low-grade mix is invented.
STRATA = (
    Stratum(2, 1, {"surgical": 0.18, "low-grade": 0.42}, (39, 10), (1.3, 0.7), 0.48),
    Stratum(3, 0, {"surgical": 0.04, "low-grade": 0.06}, (43, 12), (3.1, 0.7), 0.46),
    Stratum(3, 1, {"surgical": 0.24, "low-grade": 0.30}, (40, 11), (2.6, 0.7), 0.32),
    Stratum(4, 0, {"surgical": 0.43, "low-grade": 0.17}, (53, 11), (3.2, 0.6), 0.44),
    Stratum(4, 1, {"surgical": 0.11, "low-grade": 0.05}, (42, 12), (3.5, 0.5), 0.41),
)
KI67_PERCENTAGES = np.arange(1, 91)
MIN_AGE, MAX_AGE = 18, 85


@dataclass(frozen=True)
class AppearanceEffect:
    """Effect of the labels on one variable: latent value = intercept + effects + standard_deviation x noise.

    ki67_slope: per unit of ln(Ki-67 / 10 %); grade_slope: per grade above 3; wild_type_shift: if IDH is wild type.
    low, high: range to which the logistic function maps the latent value.
    """

    intercept: float
    ki67_slope: float
    grade_slope: float
    wild_type_shift: float
    standard_deviation: float
    low: float
    high: float


APPEARANCE_EFFECTS: Mapping[str, AppearanceEffect] = {
    "core_mm": AppearanceEffect(0.2, 0.10, -0.10, 0.0, 1.5, 12.0, 27.0),
    "oedema_mm": AppearanceEffect(-0.4, 0.35, 0.25, 0.40, 1.5, 1.0, 25.0),
    "enhancement": AppearanceEffect(-0.3, 0.60, 0.60, 0.60, 1.5, 0.0, 1.0),
    "necrotic": AppearanceEffect(-1.0, 0.35, 0.80, 0.50, 1.5, 0.0, 0.85),
    "marbling": AppearanceEffect(-0.4, 0.70, 0.10, 0.0, 1.5, 0.0, 1.0),
}
# Log odds of a T2-FLAIR mismatch: intercept and slope of ln(Ki-67 / 10 %) for grade < 4 and IDH mutant;
# intercept for all others.
MISMATCH_LOG_ODDS = (0.0, -0.6, -5.0)


def check_case_mix(case_mix: str) -> None:
    """Check the name of a case mix.

    Raises
    ------
    ConfigurationError
        If it is unknown.
    """
    if case_mix not in get_args(CaseMix):
        raise ConfigurationError(f"There is no case mix {case_mix!r}: give {' or '.join(get_args(CaseMix))}.")


@dataclass(frozen=True)
class AppearanceSettings:
    """Settings of the appearance model.

    noise_factor: factor of all standard deviations (and divisor of the mismatch's log odds). Above 4 the logistic
    functions exceed double precision. ki67_threshold: percentage from which Ki-67 is high. case_mix: proportions of
    the strata.

    Raises
    ------
    ConfigurationError
        If the noise factor or the threshold is out of range, or the case mix unknown.
    """

    noise_factor: float = 1.0
    ki67_threshold: float = 10.0
    case_mix: CaseMix = "surgical"

    def __post_init__(self) -> None:
        """Check the settings."""
        if not 0 < self.noise_factor <= 4:
            raise ConfigurationError(
                f"The noise of the appearance is {self.noise_factor:g}: give a number above 0 and up to 4 (1 is usual)."
            )
        if not 1 < self.ki67_threshold <= 90:
            raise ConfigurationError(
                f"The Ki-67 threshold is {self.ki67_threshold:g} %: give one above 1 and up to 90."
            )
        check_case_mix(self.case_mix)


@dataclass(frozen=True)
class TumourAppearance:
    """Appearance of a tumour; in mm, or as a fraction from 0 to 1.

    core_mm: mean radius of the core; oedema_mm: extent of the oedema along white matter; enhancement: enhancing
    fraction of the viable tumour; necrotic: necrotic fraction of the radius; marbling: strength of the viable
    tumour's texture; mismatch: T2-FLAIR mismatch.
    """

    core_mm: float
    oedema_mm: float
    enhancement: float
    necrotic: float
    marbling: float
    mismatch: bool


@dataclass(frozen=True)
class AucCeiling:
    """The Bayes-optimal AUC of a marker from image, age and sex, from the image only, and from age and sex only.

    patients, positives: numbers of patients on which it was computed.
    """

    marker: str
    image_age_sex: float
    image: float
    age_sex: float
    patients: int
    positives: int

    def __str__(self) -> str:
        """Format in one line."""
        return (
            f"{self.marker}: best achievable AUC {self.image_age_sex:.3f} from image, age and sex; {self.image:.3f} "
            f"from the image alone; {self.age_sex:.3f} from age and sex ({self.patients} patients, "
            f"{self.positives} positive)"
        )


# --- sampling ---------------------------------------------------------------------------------------


def sample_clinical(
    patient_id: str, rng: np.random.Generator, case_mix: CaseMix = "surgical"
) -> ClinicalData:
    """Sample a clinical row: age in years, sex, and ki67 (percent), idh_mutant and who_grade as text."""
    shares = np.array([stratum.shares[case_mix] for stratum in STRATA])
    stratum = STRATA[rng.choice(len(STRATA), p=shares / shares.sum())]
    columns = {
        "ki67": str(int(np.rint(np.exp(rng.normal(*stratum.log_ki67_mean_sd)).clip(1, 90)))),
        "idh_mutant": str(stratum.idh_mutant),
        "who_grade": str(stratum.grade),
    }
    years = float(int(np.clip(rng.normal(*stratum.age_mean_sd), MIN_AGE, MAX_AGE)))
    return ClinicalData(patient_id, years, int(rng.random() < stratum.female_share), columns)


def sample_appearance(
    clinical: ClinicalData, rng: np.random.Generator, noise_factor: float = 1.0
) -> TumourAppearance:
    """Sample the tumour's appearance given a clinical row; ``noise_factor`` scales the standard deviations."""
    ki67 = float(clinical.columns["ki67"])
    grade, mutant = int(clinical.columns["who_grade"]), int(clinical.columns["idh_mutant"])
    latent = {
        name: _compute_latent_mean(effect, ki67, grade, mutant)
        + noise_factor * effect.standard_deviation * rng.normal()
        for name, effect in APPEARANCE_EFFECTS.items()
    }
    values = {
        name: effect.low + (effect.high - effect.low) * float(expit(latent[name]))
        for name, effect in APPEARANCE_EFFECTS.items()
    }
    return TumourAppearance(
        **values,
        mismatch=bool(rng.random() < expit(_compute_mismatch_log_odds(ki67, grade, mutant, noise_factor))),
    )


def _compute_latent_mean(
    effect: AppearanceEffect, ki67: NumberOrArray, grade: int, mutant: int
) -> NumberOrArray:
    """Compute the mean of the latent variable for Ki-67 in percent."""
    line = effect.intercept + effect.grade_slope * (grade - 3) + effect.wild_type_shift * (1 - mutant)
    result: NumberOrArray = line + effect.ki67_slope * np.log(ki67 / 10)
    return result


def _compute_mismatch_log_odds(
    ki67: NumberOrArray, grade: int, mutant: int, noise_factor: float
) -> NumberOrArray:
    """Compute the log odds of a T2-FLAIR mismatch."""
    base, slope, elsewhere = MISMATCH_LOG_ODDS
    x = np.log(ki67 / 10)
    result: NumberOrArray = (base + slope * x if grade < 4 and mutant else elsewhere + 0 * x) / noise_factor
    return result


# --- exact posterior --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PatientFeatures:
    """Patients as arrays ``(n,)``; latent is ``(n, variable)``, age in years, sex 1 female, ki67 in percent."""

    latent: DoubleArray
    mismatch: NDArray[np.bool_]
    age: DoubleArray
    sex: NDArray[np.int64]
    ki67: DoubleArray
    idh_mutant: NDArray[np.int64]

    def compute_labels(self, marker: str, threshold: float) -> NDArray[np.bool_]:
        """Compute whether each patient is positive for ``marker``, ``(n,)``. threshold: Ki-67 in percent."""
        return self.ki67 >= threshold if marker == "ki67" else self.idh_mutant == 1


def compute_posterior(
    appearance: TumourAppearance,
    age: float,
    sex: int,
    marker: str,
    settings: AppearanceSettings = AppearanceSettings(),
) -> float:
    """Compute the exact probability (0 to 1) that ``marker`` ("ki67", "idh_mutant") is positive."""
    features = collect_features([(ClinicalData("", age, sex), appearance)])
    return float(_compute_posteriors(features, marker, settings, uses_image=True, uses_age_sex=True)[0])


@lru_cache(maxsize=16)
def estimate_auc_ceiling(
    marker: str,
    settings: AppearanceSettings = AppearanceSettings(),
    patient_count: int = 20_000,
    seed: int = 0,
) -> AucCeiling:
    """Estimate the best achievable AUC for a marker from ``patient_count`` sampled patients (about three decimals)."""
    rng = np.random.default_rng([seed, patient_count])
    rows = [sample_clinical("", rng, settings.case_mix) for _ in range(patient_count)]
    return compute_auc_ceiling(
        [(row, sample_appearance(row, rng, settings.noise_factor)) for row in rows], marker, settings
    )


def compute_auc_ceiling(
    patients: Iterable[tuple[ClinicalData, TumourAppearance]],
    marker: str,
    settings: AppearanceSettings = AppearanceSettings(),
) -> AucCeiling:
    """Compute the AUC of the exact posterior on the given patients; nan if there is only one class."""
    features = collect_features(patients)
    labels = features.compute_labels(marker, settings.ki67_threshold)
    scores = [
        auc(
            labels,
            _compute_posteriors(features, marker, settings, uses_image=uses_image, uses_age_sex=uses_age_sex),
        )
        for uses_image, uses_age_sex in ((True, True), (True, False), (False, True))
    ]
    return AucCeiling(marker, scores[0], scores[1], scores[2], len(labels), int(labels.sum()))


def collect_features(patients: Iterable[tuple[ClinicalData, TumourAppearance]]) -> PatientFeatures:
    """Collect clinical rows and appearances as arrays; a row without labels becomes ki67 0, wild type."""
    pairs = list(patients)
    latent = [
        [
            logit((getattr(appearance, name) - effect.low) / (effect.high - effect.low))
            for name, effect in APPEARANCE_EFFECTS.items()
        ]
        for _, appearance in pairs
    ]
    rows = [row for row, _ in pairs]
    return PatientFeatures(
        latent=np.array(latent, dtype=np.float64).reshape(-1, len(APPEARANCE_EFFECTS)),
        mismatch=np.array([look.mismatch for _, look in pairs], dtype=bool),
        age=np.array([row.age for row in rows], dtype=np.float64),
        sex=np.array([row.sex for row in rows], dtype=np.int64),
        ki67=np.array([float(row.columns.get("ki67", 0)) for row in rows]),
        idh_mutant=np.array([int(row.columns.get("idh_mutant", 0)) for row in rows]),
    )


def _compute_posteriors(
    features: PatientFeatures,
    marker: str,
    settings: AppearanceSettings,
    *,
    uses_image: bool,
    uses_age_sex: bool,
) -> DoubleArray:
    """Compute the probability ``(n,)`` of a positive marker from the image, age and sex, or both."""
    if marker not in MARKER_COLUMNS:
        raise ConfigurationError(f"Unknown marker {marker!r}: give {' or '.join(MARKER_COLUMNS)}.")
    # (n, stratum, percentage): joint log probability of labels and features
    joint = np.zeros((len(features.age), len(STRATA), len(KI67_PERCENTAGES)))
    for number, stratum in enumerate(STRATA):
        joint[:, number] += np.log(stratum.shares[settings.case_mix]) + _compute_log(
            _compute_ki67_probabilities(stratum)
        )
        if uses_age_sex:
            joint[:, number] += _compute_log(_compute_age_sex_probability(features, stratum))[:, None]
        if uses_image:
            joint[:, number] += _compute_image_log_likelihood(features, stratum, settings.noise_factor)
    # relative to the maximum, against underflow
    joint = np.exp(joint - joint.max(axis=(1, 2), keepdims=True))
    if marker == "ki67":
        positive = joint[:, :, settings.ki67_threshold <= KI67_PERCENTAGES]
    else:
        positive = joint[:, [stratum.idh_mutant == 1 for stratum in STRATA]]
    chances: DoubleArray = positive.sum(axis=(1, 2)) / joint.sum(axis=(1, 2))
    return chances


def _compute_log(probabilities: DoubleArray) -> DoubleArray:
    """Compute the logarithm; 0 gives minus infinity without a warning."""
    with np.errstate(divide="ignore"):
        logarithm: DoubleArray = np.log(probabilities)
    return logarithm


def _compute_ki67_probabilities(stratum: Stratum) -> DoubleArray:
    """Compute the probability of each rounded percentage; below 1.5 is 1, above 89.5 is 90."""
    mean, deviation = stratum.log_ki67_mean_sd
    below = ndtr((np.log(KI67_PERCENTAGES[1:] - 0.5) - mean) / deviation)
    return np.diff(np.concatenate([[0.0], below, [1.0]]))


def _compute_age_sex_probability(features: PatientFeatures, stratum: Stratum) -> DoubleArray:
    """Compute the probability ``(n,)`` of the rounded age and the sex in a stratum."""
    mean, deviation = stratum.age_mean_sd
    young, old = features.age <= MIN_AGE, features.age >= MAX_AGE
    lower = np.where(young, 0.0, ndtr((features.age - mean) / deviation))
    upper = np.where(old, 1.0, ndtr((features.age + 1 - mean) / deviation))
    return (upper - lower) * np.where(features.sex == 1, stratum.female_share, 1 - stratum.female_share)


def _compute_image_log_likelihood(
    features: PatientFeatures, stratum: Stratum, noise_factor: float
) -> DoubleArray:
    """Compute the log likelihood ``(n, percentage)`` of the appearance, up to a constant."""
    percent = KI67_PERCENTAGES.astype(np.float64)
    log = np.zeros((len(features.age), len(percent)))
    for column, effect in enumerate(APPEARANCE_EFFECTS.values()):
        means = _compute_latent_mean(effect, percent, stratum.grade, stratum.idh_mutant)
        log -= (
            0.5
            * ((features.latent[:, column, None] - means) / (effect.standard_deviation * noise_factor)) ** 2
        )
    odds = _compute_mismatch_log_odds(percent, stratum.grade, stratum.idh_mutant, noise_factor)
    result: DoubleArray = log + np.where(features.mismatch[:, None], log_expit(odds), log_expit(-odds))
    return result
