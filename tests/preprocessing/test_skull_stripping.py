"""Whether a skull is there, and the brain under it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from gliomark.cohort.phantom import PhantomSettings, make_phantom
from gliomark.preprocessing.skull_stripping import already_stripped, brain_mask, foreground_mask
from gliomark.preprocessing.volume import affine_of, axial
from gliomark.study import GliomarkError, MRSequence

PHANTOM = PhantomSettings(spacing_mm=(1.9, 1.9), matrix=128, sublayers=1)


def test_a_stripped_brain_is_recognised(brain_series) -> None:
    image = axial(brain_series((2.0, 2.0, 5.0), (30, 110, 90)))
    assert already_stripped(image)
    millilitres = sitk.GetArrayFromImage(foreground_mask(image)).sum() * 20 / 1000
    assert millilitres == pytest.approx(1371, rel=0.01)


def test_noise_in_the_background_means_a_skull(brain_series) -> None:
    image = axial(brain_series((2.0, 2.0, 5.0), (30, 110, 90)))
    noise = sitk.AdditiveGaussianNoise(image, 5.0, 0.0, 1)
    assert not already_stripped(noise)


def test_holes_in_the_brain_are_filled(brain_series) -> None:
    image = axial(brain_series((2.0, 2.0, 5.0), (30, 110, 90)))
    array = sitk.GetArrayFromImage(image)
    array[14:16, 50:56, 40:46] = 0  # fluid cut to zero
    holed = sitk.GetImageFromArray(array)
    holed.CopyInformation(image)
    filled = sitk.GetArrayFromImage(foreground_mask(holed))
    np.testing.assert_array_equal(filled, sitk.GetArrayFromImage(foreground_mask(image)))


def test_deepbet_finds_the_brain_of_a_head_with_skull() -> None:
    phantom = make_phantom(1, PHANTOM)
    image = axial(phantom.study.series[MRSequence.T1C])
    assert not already_stripped(image)
    found = brain_mask(image)
    np.testing.assert_allclose(affine_of(found), affine_of(image))
    mask, truth = sitk.GetArrayViewFromImage(found) > 0, sitk.GetArrayFromImage(axial(phantom.brain)) > 0
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) >= 0.93


def test_an_image_without_a_head_is_refused() -> None:
    empty = sitk.Image(64, 64, 20, sitk.sitkFloat32)
    empty.SetSpacing((3.0, 3.0, 6.0))
    with pytest.raises(GliomarkError, match="[Bb]rain"):
        brain_mask(empty)


@pytest.mark.parametrize("value", [1e6, 1e30, -1e6])
def test_outliers_leave_the_brain_where_it_is(value: float) -> None:
    phantom = make_phantom(1, PHANTOM)
    series = phantom.study.series[MRSequence.T1C]
    wild = series.image.copy()
    wild[np.random.default_rng(2).random(wild.shape) < 1e-4] = value
    image = axial(replace(series, image=wild))
    assert not already_stripped(image)
    mask = sitk.GetArrayFromImage(brain_mask(image)) > 0
    plain = sitk.GetArrayFromImage(brain_mask(axial(series))) > 0
    assert 2 * (mask & plain).sum() / (mask.sum() + plain.sum()) >= 0.98
