"""Number of patients needed to develop a prediction model for a binary outcome (Riley et al. 2020, BMJ 368:m441).

The criteria are for a regression model with a fixed number of candidate parameters. A network has no such number, so
that what they give for a few parameters is the least that is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, exp, log

from gliomark.errors import ConfigurationError
from gliomark.messages import message

RISK_MARGIN = 0.05  # half of the 95 % interval of the overall share of positives
MEAN_ABSOLUTE_ERROR = 0.05  # of the predicted probabilities
SHRINKAGE = 0.9  # expected calibration slope in new patients
OPTIMISM = 0.05  # of Nagelkerke's R2
# of the largest possible R2, where nothing is known of the model to be developed
ANTICIPATED_R2_SHARE = 0.15
_NORMAL_QUANTILE = 1.96  # as published, so that the published numbers are reproduced


@dataclass(frozen=True)
class SampleSize:
    """Number of patients by each criterion, and their maximum.

    Attributes
    ----------
    prevalence, parameters, r2
        Share of positives, number of candidate parameters, and anticipated Cox-Snell R2.
    for_risk
        Overall share of positives within 0.05.
    for_error
        Mean absolute error of the probabilities at most 0.05; holds for at most 30 parameters.
    for_shrinkage
        Shrinkage of the effects of at most 10 %.
    for_optimism
        Apparent and adjusted Nagelkerke's R2 differ by at most 0.05.
    """

    prevalence: float
    parameters: int
    r2: float
    for_risk: int
    for_error: int
    for_shrinkage: int
    for_optimism: int

    @property
    def patients(self) -> int:
        """Number of patients by which all criteria are met."""
        return max(self.for_risk, self.for_error, self.for_shrinkage, self.for_optimism)

    @property
    def positives(self) -> int:
        """Number of positive patients expected among them."""
        return ceil(self.patients * self.prevalence)


def compute_max_r2(prevalence: float) -> float:
    """Return the largest possible Cox-Snell R2 for a share of positives above 0 and below 1."""
    return 1 - exp(2 * (prevalence * log(prevalence) + (1 - prevalence) * log(1 - prevalence)))


def compute_sample_size(prevalence: float, parameters: int, r2: float | None = None) -> SampleSize:
    """Compute the number of patients by the four criteria of Riley et al. 2020.

    Parameters
    ----------
    prevalence
        Share of positives, above 0 and below 1.
    parameters
        Number of candidate parameters, at least 1.
    r2
        Anticipated Cox-Snell R2; None: 15 % of the largest possible, as the authors advise where nothing is known.

    Raises
    ------
    ConfigurationError
        If a value is out of its range.
    """
    if not 0 < prevalence < 1:
        raise ConfigurationError(message("prevalence-range", share=prevalence))
    largest = compute_max_r2(prevalence)
    anticipated = ANTICIPATED_R2_SHARE * largest if r2 is None else r2
    if parameters < 1 or not 0 < anticipated < min(largest, SHRINKAGE):
        raise ConfigurationError(message("sample-size-range", parameters=parameters, r2=anticipated))
    error_exponent = -0.508 + 0.259 * log(prevalence) + 0.504 * log(parameters) - log(MEAN_ABSOLUTE_ERROR)
    return SampleSize(
        prevalence,
        parameters,
        anticipated,
        for_risk=ceil((_NORMAL_QUANTILE / RISK_MARGIN) ** 2 * prevalence * (1 - prevalence)),
        for_error=ceil(exp(error_exponent / 0.544)),
        for_shrinkage=_compute_for_shrinkage(parameters, anticipated, SHRINKAGE),
        for_optimism=_compute_for_shrinkage(
            parameters, anticipated, anticipated / (anticipated + OPTIMISM * largest)
        ),
    )


def _compute_for_shrinkage(parameters: int, r2: float, shrinkage: float) -> int:
    return ceil(parameters / ((shrinkage - 1) * log(1 - r2 / shrinkage)))
