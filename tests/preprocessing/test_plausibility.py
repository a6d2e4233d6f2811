"""Dimensions that are not those of a head raise an error that names the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gliomark.errors import GliomarkError
from gliomark.preprocessing import prepare
from gliomark.preprocessing.plausibility import check_fields_of_view
from gliomark.study import MRSequence, Series, Study

FLAIR = MRSequence.FLAIR


def scale_series(series: Series, factors: tuple[float, float, float]) -> Series:
    return replace(series, affine=series.affine @ np.diag([*factors, 1.0]), source=Path("p/flair.nii.gz"))


@pytest.fixture
def brain(make_brain_series) -> Series:
    return make_brain_series((2.0, 2.0, 5.0), (30, 110, 90))


@pytest.mark.parametrize("factor", [1e-6, 1e-3, 0.1, 0.4, 3.0, 10.0, 1000.0])
def test_wrong_units_are_refused(brain: Series, factor: float):
    study = Study("p", {FLAIR: scale_series(brain, (factor,) * 3)}, Path("p"), "volumes")
    with pytest.raises(
        GliomarkError, match=r"flair\.nii\.gz has a field of view of .* check the voxel size and its units"
    ):
        prepare(study, (FLAIR,))


@pytest.mark.sample(2)
@pytest.mark.parametrize("factors", [(1, 1, 1.8), (1.4, 1.4, 1.0), (1.3, 1.3, 1.3), (1, 1.4, 1)])
def test_a_brain_of_impossible_size_is_refused(brain: Series, factors: tuple[float, float, float]):
    study = Study("p", {FLAIR: scale_series(brain, factors)}, Path("p"), "volumes")
    with pytest.raises(GliomarkError, match=r"The brain in .*flair\.nii\.gz would measure .* impossible"):
        prepare(study, (FLAIR,))


@pytest.mark.parametrize("factors", [(1, 1, 0.45), (0.75, 0.75, 0.8), (0.65, 0.65, 1)])
def test_a_small_brain_gives_a_warning(brain: Series, factors: tuple[float, float, float]):
    study = Study("p", {FLAIR: scale_series(brain, factors)}, Path("p"), "volumes")
    (warning,) = prepare(study, (FLAIR,)).warnings
    assert "less than in an adult" in warning


@pytest.mark.parametrize("shape, spacing", [
    ((26, 224, 256), (0.9, 0.9, 6.0)), ((176, 216, 160), (1.0, 1.0, 1.0)), ((5, 150, 120), (1.0, 1.0, 5.0)),
    ((146, 167, 143), (1.0, 1.0, 1.0)), ((180, 512, 512), (1.0, 1.0, 1.0)), ((256, 256, 22), (7.0, 1.0, 1.0)),
])  # fmt: skip
def test_fields_of_view_of_heads_and_brains_are_accepted(
    shape: tuple[int, int, int], spacing: tuple[float, float, float]
):
    check_fields_of_view([Series(np.zeros(shape, np.int8), np.diag([*spacing, 1.0]), (), Path("a"))])  # type: ignore[arg-type]
