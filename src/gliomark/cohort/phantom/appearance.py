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
from gliomark.study import Clinical, GliomarkError

Doubles = NDArray[np.float64]
Number = TypeVar("Number", float, NDArray[np.float64])
MARKERS = ("ki67", "idh_mutant")
LABELS = (*MARKERS, "who_grade")  # the columns of a clinical row, in their order


@dataclass(frozen=True)
class Stratum:
    """One kind of glioma. share: of the cohort; age in years, ln(Ki-67 %): mean and deviation; female: share."""

    grade: int
    mutant: int
    share: float
    age: tuple[float, float]
    log_ki67: tuple[float, float]
    female: float


# Rounded statistics of 326 glioma patients of a public research set (IPD-Brain).
STRATA = (
    Stratum(2, 1, 0.18, (39, 10), (1.3, 0.7), 0.48),
    Stratum(3, 0, 0.04, (43, 12), (3.1, 0.7), 0.46),
    Stratum(3, 1, 0.24, (40, 11), (2.6, 0.7), 0.32),
    Stratum(4, 0, 0.43, (53, 11), (3.2, 0.6), 0.44),
    Stratum(4, 1, 0.11, (42, 12), (3.5, 0.5), 0.41),
)
PERCENTAGES = np.arange(1, 91)
YOUNGEST, OLDEST = 18, 85


@dataclass(frozen=True)
class Effect:
    """How the labels make one variable: latent value = base + the labels' parts + deviation x noise.

    ki67: per unit of ln(Ki-67 / 10 %); grade: per grade above 3; wild: where IDH is wild type.
    low, high: the range that the logistic curve takes the latent value to.
    """

    base: float
    ki67: float
    grade: float
    wild: float
    deviation: float
    low: float
    high: float


EFFECTS: Mapping[str, Effect] = {
    "core_mm": Effect(0.2, 0.10, -0.10, 0.0, 1.5, 12.0, 27.0),
    "oedema_mm": Effect(-0.4, 0.35, 0.25, 0.40, 1.5, 1.0, 25.0),
    "enhancement": Effect(-0.3, 0.60, 0.60, 0.60, 1.5, 0.0, 1.0),
    "necrotic": Effect(-1.0, 0.35, 0.80, 0.50, 1.5, 0.0, 0.85),
    "marbling": Effect(-0.4, 0.70, 0.10, 0.0, 1.5, 0.0, 1.0),
}
# The chance of a T2-FLAIR mismatch, as log odds: where grade < 4 and IDH mutant, and anywhere else.
MISMATCH = (0.0, -0.6, -5.0)  # base and effect of ln(Ki-67 / 10 %) where it can be; base elsewhere


@dataclass(frozen=True)
class AppearanceSettings:
    """noise: factor of every deviation (and of the coin's doubt); threshold: Ki-67 % that counts as high.

    Above a noise of 4 the logistic curves run into the end of double precision, and no likelihood is left.
    """

    noise: float = 1.0
    threshold: float = 10.0

    def __post_init__(self) -> None:
        """Refuse a noise that leaves no likelihood."""
        if not 0 < self.noise <= 4:
            raise GliomarkError(
                f"The noise of the appearance is {self.noise:g}: give a number above 0 and up to 4 (1 is usual)."
            )
        if not 1 < self.threshold <= 90:
            raise GliomarkError(
                f"The Ki-67 threshold is {self.threshold:g} %: give one above 1 and up to 90."
            )


@dataclass(frozen=True)
class Look:
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
class Ceiling:
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


def draw_clinical(patient_id: str, chance: np.random.Generator) -> Clinical:
    """A synthetic clinical row: age in years, sex, and ki67 (percent), idh_mutant, who_grade as text."""
    shares = np.array([stratum.share for stratum in STRATA])
    stratum = STRATA[chance.choice(len(STRATA), p=shares / shares.sum())]
    columns = {
        "ki67": str(int(np.rint(np.exp(chance.normal(*stratum.log_ki67)).clip(1, 90)))),
        "idh_mutant": str(stratum.mutant),
        "who_grade": str(stratum.grade),
    }
    years = float(int(np.clip(chance.normal(*stratum.age), YOUNGEST, OLDEST)))
    return Clinical(patient_id, years, int(chance.random() < stratum.female), columns)


def draw_look(clinical: Clinical, chance: np.random.Generator, noise: float = 1.0) -> Look:
    """How the labels of a clinical row make the tumour look; ``noise`` scales the deviations."""
    ki67 = float(clinical.columns["ki67"])
    grade, mutant = int(clinical.columns["who_grade"]), int(clinical.columns["idh_mutant"])
    latent = {
        name: _mean(effect, ki67, grade, mutant) + noise * effect.deviation * chance.normal()
        for name, effect in EFFECTS.items()
    }
    shown = {
        name: effect.low + (effect.high - effect.low) * float(expit(latent[name]))
        for name, effect in EFFECTS.items()
    }
    return Look(**shown, mismatch=bool(chance.random() < expit(_mismatch_odds(ki67, grade, mutant, noise))))


def _mean(effect: Effect, ki67: Number, grade: int, mutant: int) -> Number:
    """The latent variable's mean for Ki-67 in percent."""
    line = effect.base + effect.grade * (grade - 3) + effect.wild * (1 - mutant)
    return line + effect.ki67 * np.log(ki67 / 10)


def _mismatch_odds(ki67: Number, grade: int, mutant: int, noise: float) -> Number:
    """Log odds of a T2-FLAIR mismatch."""
    base, slope, elsewhere = MISMATCH
    x = np.log(ki67 / 10)
    return (base + slope * x if grade < 4 and mutant else elsewhere + 0 * x) / noise


# --- the exact answer -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Evidence:
    """Patients as arrays ``(n,)``: latent ``(n, variable)``, mismatch, age (years), sex, ki67 (%), mutant."""

    latent: Doubles
    mismatch: NDArray[np.bool_]
    age: Doubles
    sex: NDArray[np.int64]
    ki67: Doubles
    mutant: NDArray[np.int64]

    def labels(self, marker: str, threshold: float) -> NDArray[np.bool_]:
        """Whether each patient is positive for ``marker``."""
        return self.ki67 >= threshold if marker == "ki67" else self.mutant == 1


def posterior(
    look: Look,
    age: float,
    sex: int,
    marker: str,
    settings: AppearanceSettings = AppearanceSettings(),
) -> float:
    """The exact probability of a positive ``marker`` ("ki67": high, "idh_mutant") for what can be known."""
    evidence = gather([(Clinical("", age, sex), look)])
    return float(_posterior(evidence, marker, settings, image=True, person=True)[0])


@lru_cache(maxsize=16)
def ceiling(
    marker: str,
    settings: AppearanceSettings = AppearanceSettings(),
    draws: int = 20_000,
    seed: int = 0,
) -> Ceiling:
    """The best achievable AUC for a marker, by ``draws`` patients of the model (three decimals or so)."""
    chance = np.random.default_rng([seed, draws])
    rows = [draw_clinical("", chance) for _ in range(draws)]
    return ceiling_of([(row, draw_look(row, chance, settings.noise)) for row in rows], marker, settings)


def ceiling_of(
    patients: Iterable[tuple[Clinical, Look]],
    marker: str,
    settings: AppearanceSettings = AppearanceSettings(),
) -> Ceiling:
    """The AUC of the exact posterior on these very patients; nan where only one class is there."""
    evidence = gather(patients)
    labels = evidence.labels(marker, settings.threshold)
    scores = [
        auc(labels, _posterior(evidence, marker, settings, image=image, person=person))
        for image, person in ((True, True), (True, False), (False, True))
    ]
    return Ceiling(marker, scores[0], scores[1], scores[2], len(labels), int(labels.sum()))


def gather(patients: Iterable[tuple[Clinical, Look]]) -> Evidence:
    """Patients' rows and looks as arrays. A row without labels counts as ki67 0, wild type."""
    pairs = list(patients)
    latent = [
        [
            logit((getattr(look, name) - effect.low) / (effect.high - effect.low))
            for name, effect in EFFECTS.items()
        ]
        for _, look in pairs
    ]
    rows = [row for row, _ in pairs]
    return Evidence(
        latent=np.array(latent, dtype=np.float64).reshape(-1, len(EFFECTS)),
        mismatch=np.array([look.mismatch for _, look in pairs], dtype=bool),
        age=np.array([row.age for row in rows], dtype=np.float64),
        sex=np.array([row.sex for row in rows], dtype=np.int64),
        ki67=np.array([float(row.columns.get("ki67", 0)) for row in rows]),
        mutant=np.array([int(row.columns.get("idh_mutant", 0)) for row in rows]),
    )


def _posterior(
    evidence: Evidence, marker: str, settings: AppearanceSettings, *, image: bool, person: bool
) -> Doubles:
    """Probability ``(n,)`` of a positive marker, from the image's part, the person's part or both."""
    if marker not in MARKERS:
        raise GliomarkError(f"The model knows no marker {marker!r}: ask for {' or '.join(MARKERS)}.")
    # (n, stratum, percentage): log chance of the labels and the evidence together
    joint = np.zeros((len(evidence.age), len(STRATA), len(PERCENTAGES)))
    for number, stratum in enumerate(STRATA):
        joint[:, number] += np.log(stratum.share) + _log(_ki67_chances(stratum))
        if person:
            joint[:, number] += _log(_person(evidence, stratum))[:, None]
        if image:
            joint[:, number] += _image(evidence, stratum, settings.noise)
    # relative to the likeliest, so that rare looks do not vanish
    joint = np.exp(joint - joint.max(axis=(1, 2), keepdims=True))
    if marker == "ki67":
        positive = joint[:, :, settings.threshold <= PERCENTAGES]
    else:
        positive = joint[:, [stratum.mutant == 1 for stratum in STRATA]]
    chances: Doubles = positive.sum(axis=(1, 2)) / joint.sum(axis=(1, 2))
    return chances


def _log(chances: Doubles) -> Doubles:
    """Logarithm that takes what cannot be to minus infinity in silence."""
    with np.errstate(divide="ignore"):
        logarithm: Doubles = np.log(chances)
    return logarithm


def _ki67_chances(stratum: Stratum) -> Doubles:
    """The chance of each written percentage: rounded, everything below 1.5 is 1, above 89.5 it is 90."""
    mean, deviation = stratum.log_ki67
    below = ndtr((np.log(PERCENTAGES[1:] - 0.5) - mean) / deviation)
    return np.diff(np.concatenate([[0.0], below, [1.0]]))


def _person(evidence: Evidence, stratum: Stratum) -> Doubles:
    """The chance ``(n,)`` of a written age and sex in a stratum."""
    mean, deviation = stratum.age
    young, old = evidence.age <= YOUNGEST, evidence.age >= OLDEST
    lower = np.where(young, 0.0, ndtr((evidence.age - mean) / deviation))
    upper = np.where(old, 1.0, ndtr((evidence.age + 1 - mean) / deviation))
    return (upper - lower) * np.where(evidence.sex == 1, stratum.female, 1 - stratum.female)


def _image(evidence: Evidence, stratum: Stratum, noise: float) -> Doubles:
    """Log likelihood ``(n, percentage)`` of the look, up to what is the same for every label."""
    percent = PERCENTAGES.astype(np.float64)
    log = np.zeros((len(evidence.age), len(percent)))
    for column, effect in enumerate(EFFECTS.values()):
        means = _mean(effect, percent, stratum.grade, stratum.mutant)
        log -= 0.5 * ((evidence.latent[:, column, None] - means) / (effect.deviation * noise)) ** 2
    odds = _mismatch_odds(percent, stratum.grade, stratum.mutant, noise)
    return log + np.where(evidence.mismatch[:, None], log_expit(odds), log_expit(-odds))
