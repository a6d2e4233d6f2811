"""The stated model behind the synthetic patients: labels first, then what the labels make of the tumour.

Labels. A stratum (WHO grade, IDH mutation) is drawn by its share; in it, independently, age (normal), sex
(Bernoulli) and Ki-67 (log-normal, rounded to a whole percentage from 1 to 90).

Appearance. Each continuous variable is a squashed normal one: its latent value is a stated straight line in
ln(Ki-67 / 10 %), grade and IDH plus independent noise of a set deviation, and a logistic curve takes it to its
range. The T2-FLAIR mismatch is a coin with a stated chance. Nothing is cut off, so the likelihood of a look
is exact, and Bayes' rule over the 5 strata and 90 percentages, a finite sum, gives what nobody can do better
than. Everything else of a head (place, side, shape, age's atrophy) says nothing about the labels beyond that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit, logit, ndtr

from gliomark.evaluation.metrics import auc
from gliomark.study import ClinicalData, GliomarkError

DoubleArray = NDArray[np.float64]
NumberOrArray = TypeVar("Number", float, NDArray[np.float64])
MARKER_COLUMNS = ("ki67", "idh_mutant")
LABEL_COLUMNS = (*MARKER_COLUMNS, "who_grade")  # the columns of a clinical row, in their order


@dataclass(frozen=True)
class Stratum:
    """One kind of glioma. share: of the cohort; age in years, ln(Ki-67 %): mean and deviation; female: share."""

    grade: int
    idh_mutant: int
    cohort_share: float
    age_mean_sd: tuple[float, float]
    log_ki67_mean_sd: tuple[float, float]
    female_share: float


# Rounded statistics of 326 glioma patients of a public research set (IPD-Brain).
STRATA = (
    Stratum(2, 1, 0.18, (39, 10), (1.3, 0.7), 0.48),
    Stratum(3, 0, 0.04, (43, 12), (3.1, 0.7), 0.46),
    Stratum(3, 1, 0.24, (40, 11), (2.6, 0.7), 0.32),
    Stratum(4, 0, 0.43, (53, 11), (3.2, 0.6), 0.44),
    Stratum(4, 1, 0.11, (42, 12), (3.5, 0.5), 0.41),
)
KI67_PERCENTAGES = np.arange(1, 91)
MIN_AGE, MAX_AGE = 18, 85


@dataclass(frozen=True)
class AppearanceEffect:
    """How the labels make one variable: latent value = base + the labels' parts + deviation x noise.

    ki67: per unit of ln(Ki-67 / 10 %); grade: per grade above 3; wild: where IDH is wild type.
    low, high: the range that the logistic curve takes the latent value to.
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
# The chance of a T2-FLAIR mismatch, as log odds: where grade < 4 and IDH mutant, and anywhere else.
MISMATCH_LOG_ODDS = (0.0, -0.6, -5.0)  # base and effect of ln(Ki-67 / 10 %) where it can be; base elsewhere


@dataclass(frozen=True)
class AppearanceSettings:
    """noise: factor of every deviation (and of the coin's doubt); threshold: Ki-67 % that counts as high.

    Above a noise of 4 the logistic curves run into the end of double precision, and no likelihood is left.
    """

    noise_factor: float = 1.0
    ki67_threshold: float = 10.0

    def __post_init__(self) -> None:
        """Refuse a noise that leaves no likelihood."""
        if not 0 < self.noise_factor <= 4:
            raise GliomarkError(
                f"The noise of the appearance is {self.noise_factor:g}: give a number above 0 and up to 4 (1 is usual)."
            )
        if not 1 < self.ki67_threshold <= 90:
            raise GliomarkError(
                f"The Ki-67 threshold is {self.ki67_threshold:g} %: give one above 1 and up to 90."
            )


@dataclass(frozen=True)
class TumourAppearance:
    """What the tumour looks like; millimetres, and shares from 0 to 1.

    core_mm: mean radius; oedema_mm: reach of the oedema along white matter; enhancement: share of the
    living tumour that takes contrast; necrotic: dead share of the radius; marbling: strength of the living
    tumour's grain; mismatch: T2-FLAIR mismatch.
    """

    core_mm: float
    oedema_mm: float
    enhancement: float
    necrotic: float
    marbling: float
    mismatch: bool


@dataclass(frozen=True)
class AucCeiling:
    """The best AUC that anybody can reach, knowing the model: image with age and sex, image, age and sex.

    patients, positives: how many it was counted on.
    """

    marker: str
    image_age_sex: float
    image: float
    age_sex: float
    patients: int
    positives: int

    def __str__(self) -> str:
        """The ceiling in one line."""
        return (
            f"{self.marker}: best achievable AUC {self.image_age_sex:.3f} from image, age and sex; {self.image:.3f} "
            f"from the image alone; {self.age_sex:.3f} from age and sex ({self.patients} patients, "
            f"{self.positives} positive)"
        )


# --- drawing ----------------------------------------------------------------------------------------


def sample_clinical(patient_id: str, rng: np.random.Generator) -> ClinicalData:
    """A synthetic clinical row: age in years, sex, and ki67 (percent), idh_mutant, who_grade as text."""
    shares = np.array([stratum.cohort_share for stratum in STRATA])
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
    """How the labels of a clinical row make the tumour look; ``noise`` scales the deviations."""
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
    """The latent variable's mean for Ki-67 in percent."""
    line = effect.intercept + effect.grade_slope * (grade - 3) + effect.wild_type_shift * (1 - mutant)
    return line + effect.ki67_slope * np.log(ki67 / 10)


def _compute_mismatch_log_odds(
    ki67: NumberOrArray, grade: int, mutant: int, noise_factor: float
) -> NumberOrArray:
    """Log odds of a T2-FLAIR mismatch."""
    base, slope, elsewhere = MISMATCH_LOG_ODDS
    x = np.log(ki67 / 10)
    return (base + slope * x if grade < 4 and mutant else elsewhere + 0 * x) / noise_factor


# --- the exact answer -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PatientFeatures:
    """Patients as arrays ``(n,)``: latent ``(n, variable)``, mismatch, age (years), sex, ki67 (%), mutant."""

    latent: DoubleArray
    mismatch: NDArray[np.bool_]
    age: DoubleArray
    sex: NDArray[np.int64]
    ki67: DoubleArray
    idh_mutant: NDArray[np.int64]

    def compute_labels(self, marker: str, threshold: float) -> NDArray[np.bool_]:
        """Whether each patient is positive for ``marker``."""
        return self.ki67 >= threshold if marker == "ki67" else self.idh_mutant == 1


def compute_posterior(
    appearance: TumourAppearance,
    age: float,
    sex: int,
    marker: str,
    settings: AppearanceSettings = AppearanceSettings(),
) -> float:
    """The exact probability of a positive ``marker`` ("ki67": high, "idh_mutant") for what can be known."""
    features = collect_features([(ClinicalData("", age, sex), appearance)])
    return float(_compute_posteriors(features, marker, settings, uses_image=True, uses_age_sex=True)[0])


@lru_cache(maxsize=16)
def estimate_auc_ceiling(
    marker: str,
    settings: AppearanceSettings = AppearanceSettings(),
    patient_count: int = 20_000,
    seed: int = 0,
) -> AucCeiling:
    """The best achievable AUC for a marker, by ``draws`` patients of the model (three decimals or so)."""
    rng = np.random.default_rng([seed, patient_count])
    rows = [sample_clinical("", rng) for _ in range(patient_count)]
    return compute_auc_ceiling(
        [(row, sample_appearance(row, rng, settings.noise_factor)) for row in rows], marker, settings
    )


def compute_auc_ceiling(
    patients: Iterable[tuple[ClinicalData, TumourAppearance]],
    marker: str,
    settings: AppearanceSettings = AppearanceSettings(),
) -> AucCeiling:
    """The AUC of the exact posterior on these very patients; nan where only one class is there."""
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
    """Patients' rows and looks as arrays. A row without labels counts as ki67 0, wild type."""
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
    """Probability ``(n,)`` of a positive marker, from the image's part, the person's part or both."""
    if marker not in MARKER_COLUMNS:
        raise GliomarkError(f"The model knows no marker {marker!r}: ask for {' or '.join(MARKER_COLUMNS)}.")
    # (n, stratum, percentage): log chance of the labels and the evidence together
    joint = np.zeros((len(features.age), len(STRATA), len(KI67_PERCENTAGES)))
    for number, stratum in enumerate(STRATA):
        joint[:, number] += np.log(stratum.cohort_share) + _compute_log(_compute_ki67_probabilities(stratum))
        if uses_age_sex:
            joint[:, number] += _compute_log(_compute_age_sex_probability(features, stratum))[:, None]
        if uses_image:
            joint[:, number] += _compute_image_log_likelihood(features, stratum, settings.noise_factor)
    # relative to the likeliest, so that rare looks do not vanish
    joint = np.exp(joint - joint.max(axis=(1, 2), keepdims=True))
    if marker == "ki67":
        positive = joint[:, :, settings.ki67_threshold <= KI67_PERCENTAGES]
    else:
        positive = joint[:, [stratum.idh_mutant == 1 for stratum in STRATA]]
    chances: DoubleArray = positive.sum(axis=(1, 2)) / joint.sum(axis=(1, 2))
    return chances


def _compute_log(probabilities: DoubleArray) -> DoubleArray:
    """Logarithm that takes what cannot be to minus infinity in silence."""
    with np.errstate(divide="ignore"):
        logarithm: DoubleArray = np.log(probabilities)
    return logarithm


def _compute_ki67_probabilities(stratum: Stratum) -> DoubleArray:
    """The chance of each written percentage: rounded, everything below 1.5 is 1, above 89.5 it is 90."""
    mean, deviation = stratum.log_ki67_mean_sd
    below = ndtr((np.log(KI67_PERCENTAGES[1:] - 0.5) - mean) / deviation)
    return np.diff(np.concatenate([[0.0], below, [1.0]]))


def _compute_age_sex_probability(features: PatientFeatures, stratum: Stratum) -> DoubleArray:
    """The chance ``(n,)`` of a written age and sex in a stratum."""
    mean, deviation = stratum.age_mean_sd
    young, old = features.age <= MIN_AGE, features.age >= MAX_AGE
    lower = np.where(young, 0.0, ndtr((features.age - mean) / deviation))
    upper = np.where(old, 1.0, ndtr((features.age + 1 - mean) / deviation))
    return (upper - lower) * np.where(features.sex == 1, stratum.female_share, 1 - stratum.female_share)


def _compute_image_log_likelihood(
    features: PatientFeatures, stratum: Stratum, noise_factor: float
) -> DoubleArray:
    """Log likelihood ``(n, percentage)`` of the look, up to what is the same for every label."""
    percent = KI67_PERCENTAGES.astype(np.float64)
    log = np.zeros((len(features.age), len(percent)))
    for column, effect in enumerate(APPEARANCE_EFFECTS.values()):
        means = _compute_latent_mean(effect, percent, stratum.grade, stratum.idh_mutant)
        log -= (
            0.5
            * ((features.latent[:, column, None] - means) / (effect.standard_deviation * noise_factor)) ** 2
        )
    odds = _compute_mismatch_log_odds(percent, stratum.grade, stratum.idh_mutant, noise_factor)
    return log + np.where(features.mismatch[:, None], log_expit(odds), log_expit(-odds))
