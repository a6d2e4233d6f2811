"""Sample size by Riley et al. 2020, against published examples."""

from __future__ import annotations

import numpy as np
import pytest

from gliomark.errors import ConfigurationError
from gliomark.evaluation.sample_size import compute_max_r2, compute_sample_size


def test_the_published_example_of_chagas_disease() -> None:
    """Riley et al. 2019 (Statistics in Medicine 38:1276), example 1: 662 patients, 4.8 events per parameter."""
    needed = compute_sample_size(prevalence=0.174, parameters=24, r2=0.288)
    assert (needed.for_shrinkage, needed.for_optimism, needed.for_risk) == (623, 662, 221)
    by_these = max(needed.for_shrinkage, needed.for_optimism, needed.for_risk)
    assert by_these * needed.prevalence / needed.parameters == pytest.approx(4.8, abs=0.01)
    assert needed.patients == needed.for_error > by_these, "the fourth criterion came in 2020"


def test_the_published_example_of_the_mean_absolute_error() -> None:
    """Ten parameters and 30 % positives: 461 patients for a mean absolute error of 0.05 (Riley et al. 2020)."""
    assert compute_sample_size(0.3, 10).for_error == 461


@pytest.mark.parametrize(("prevalence", "published"), [(0.5, 0.75), (0.4, 0.74), (0.3, 0.71), (0.2, 0.63),
                                                        (0.1, 0.48), (0.05, 0.33), (0.01, 0.11)])  # fmt: skip
def test_the_largest_r2_is_that_of_the_published_table(prevalence: float, published: float) -> None:
    assert compute_max_r2(prevalence) == pytest.approx(published, abs=0.005)


def test_the_shrinkage_is_that_of_the_formula() -> None:
    """With the number of patients by the criterion, the expected shrinkage is 0.9, and below it with one fewer."""
    needed = compute_sample_size(0.35, 12)

    def compute_residual(patients: int) -> float:
        return 12 / ((0.9 - 1) * np.log(1 - needed.r2 / 0.9)) - patients

    assert compute_residual(needed.for_shrinkage) <= 0 < compute_residual(needed.for_shrinkage - 1)


def test_more_parameters_need_more_patients_and_the_maximum_counts() -> None:
    sizes = [compute_sample_size(0.3, parameters) for parameters in (1, 3, 10, 30)]
    assert [s.for_shrinkage for s in sizes] == sorted({s.for_shrinkage for s in sizes})
    for one in sizes:
        assert one.patients == max(one.for_risk, one.for_error, one.for_shrinkage, one.for_optimism)
        assert one.positives - 1 < 0.3 * one.patients <= one.positives


@pytest.mark.parametrize(
    "arguments", [(0.0, 3), (1.0, 3), (float("nan"), 3), (0.3, 0), (0.3, 3, 0.0), (0.3, 3, 0.8)]
)
def test_values_out_of_range_are_refused(arguments: tuple) -> None:
    with pytest.raises(ConfigurationError):
        compute_sample_size(*arguments)
