"""Changes of the original images: what each does to images whose result is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from gliomark.experiments.robustness.perturbations import PERTURBATIONS, Perturbation, perturb
from gliomark.geometry import apply_affine, compute_corner_indices, compute_spacing
from gliomark.study import MRSequence, Series, Study

SHAPE = (12, 48, 64)
AFFINE = np.array([[2.0, 0, 0, -63], [0, 2.5, 0, -58.75], [0, 0, 5.0, -27.5], [0, 0, 0, 1]])
BY_NAME = {one.name: one for one in PERTURBATIONS}
ONCE_ONLY = {"sides of all sequences swapped", "sides of one sequence swapped"}


def create_study(lesion: NDArray[np.float32] | None = None, **images: NDArray[np.float32]) -> Study:
    names = tuple(f"{number + 1:03d}" for number in range(SHAPE[0]))
    series = {
        MRSequence(name): Series(image.astype(np.float32), AFFINE, names, Path(name))
        for name, image in images.items()
    }
    mask = None if lesion is None else Series(lesion.astype(np.float32), AFFINE, names, Path("mask"))
    return Study("P1", series, Path("P1"), "volumes", aligned=True, lesion=mask)


def create_head() -> Study:
    """Create a textured ellipsoid with a lesion on one side, in T1C, FLAIR and T1."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, count) for count in SHAPE), indexing="ij")
    head = x**2 + y**2 + z**2 < 0.9
    lesion = (x - 0.4) ** 2 + (y + 0.2) ** 2 + z**2 < 0.08
    texture = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=SHAPE), (0, 2, 2))
    base = np.where(head, 100 + 60 * texture, 0)
    return create_study(lesion, T1C=1.3 * base + 90 * lesion, FLAIR=base + 80 * lesion, T1=base)


def apply(name: str, study: Study, strength: float) -> Study:
    changed = perturb(study, BY_NAME[name], strength)
    assert changed is not None
    return changed


def get_image(study: Study, name: str = "FLAIR") -> NDArray[np.float32]:
    return study.series[MRSequence(name)].image


def test_every_change_has_a_name_and_five_strengths() -> None:
    assert len(BY_NAME) == len(PERTURBATIONS)
    for one in PERTURBATIONS:
        assert len(one.strengths) == (1 if one.name in ONCE_ONLY else 5)
        assert len(set(map(one.describe, one.strengths))) == len(one.strengths)


@pytest.mark.parametrize("perturbation", PERTURBATIONS, ids=lambda one: one.name)
def test_a_change_is_repeatable_and_leaves_the_study_as_it_is(perturbation: Perturbation) -> None:
    study = create_head()
    before = {name: one.image.copy() for name, one in study.series.items()}
    strongest = perturbation.strengths[-1]
    first, second = (perturb(study, perturbation, strongest) for _ in range(2))
    assert first is not None and second is not None
    for name, image in before.items():
        assert np.array_equal(study.series[name].image, image)
        assert np.array_equal(first.series[name].image, second.series[name].image)
        assert first.series[name].image.dtype == np.float32
    changed = [n for n, image in before.items() if not np.array_equal(first.series[n].image, image)]
    only_first = perturbation.name in ("sides of one sequence swapped",) or "enhancement" in perturbation.name
    assert changed == [MRSequence.T1C] if only_first else list(before)


@pytest.mark.parametrize(
    "name",
    ["noise", "blur", "bias field", "ghosting", "pixel size", "slice spacing", "missing slices", "JPEG"],
)
def test_a_stronger_change_changes_more(name: str) -> None:
    study = create_head()
    errors = []
    for strength in BY_NAME[name].strengths:
        image = get_image(apply(name, study, strength))
        if image.shape != SHAPE:
            image = ndimage.zoom(
                image, np.array(SHAPE) / image.shape, order=1, grid_mode=True, mode="nearest"
            )
        errors.append(float(np.abs(image - get_image(study)).mean()))
    assert errors == sorted(errors) and errors[-1] > 1.5 * errors[0]


def test_what_is_random_depends_on_the_patient() -> None:
    study = create_head()
    other = replace(study, patient_id="P2")
    for name in ("noise", "bias field", "ghosting", "missing slices"):
        strongest = BY_NAME[name].strengths[-1]
        assert not np.array_equal(
            get_image(apply(name, study, strongest)), get_image(apply(name, other, strongest))
        )


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_noise_has_the_stated_share_of_the_signal(share: float) -> None:
    image = np.zeros(SHAPE, np.float32)
    image[:, :, 20:] = 200
    changed = get_image(apply("noise", create_study(FLAIR=image), share))
    # in the signal it is almost normal; in the background it has Rayleigh's distribution
    assert changed[image > 0].std() == pytest.approx(200 * share, rel=0.03)
    assert changed[image == 0].mean() == pytest.approx(200 * share * np.sqrt(np.pi / 2), rel=0.03)


@pytest.mark.parametrize("width_mm", [4.0, 6.0])
def test_blur_has_the_stated_width_in_the_slice(width_mm: float) -> None:
    image = np.zeros(SHAPE, np.float32)
    image[5, 24, 32] = 1
    changed = get_image(apply("blur", create_study(FLAIR=image), width_mm))
    assert changed.sum() == pytest.approx(1, rel=1e-3) and not changed[[4, 6]].any()
    for axis, step in ((0, 2.5), (1, 2.0)):
        profile = changed[5].sum(axis=1 - axis)
        position = step * np.arange(len(profile))
        variance = float(profile @ position**2 - (profile @ position) ** 2)
        assert 2.3548 * np.sqrt(variance) == pytest.approx(width_mm, rel=0.08)


def test_the_logarithm_of_the_bias_field_grows_with_the_strength() -> None:
    study = create_study(FLAIR=np.full(SHAPE, 100, np.float32), T1C=np.full(SHAPE, 100, np.float32))
    weak, strong = (np.log(get_image(apply("bias field", study, c)) / 100) for c in (0.1, 0.5))
    assert strong == pytest.approx(5 * weak, abs=1e-4) and 0.3 < np.abs(strong).max() < 10
    assert not np.allclose(get_image(apply("bias field", study, 0.5), "T1C"), 100 * np.exp(strong))


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_ghosts_lie_a_quarter_of_the_image_apart(share: float) -> None:
    image = np.zeros(SHAPE, np.float32)
    image[:, 24, 30] = 100
    changed = get_image(apply("ghosting", create_study(FLAIR=image), share))
    expected = image.copy()
    expected[:, 24, [30 - 16, 30 + 16]] = 100 * share
    assert changed == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("exponent", BY_NAME["gamma"].strengths)
def test_gamma_is_the_exponent_or_its_inverse(exponent: float) -> None:
    image = np.linspace(0, 1, np.prod(SHAPE)).reshape(SHAPE)
    changed = get_image(apply("gamma", create_study(FLAIR=400 * image), exponent)) / 400
    assert min(np.abs(changed - image**e).max() for e in (exponent, 1 / exponent)) < 1e-4


@pytest.mark.parametrize("degrees", [10.0, 30.0])
def test_the_lesion_turns_with_the_head(degrees: float) -> None:
    study = create_head()
    changed = apply("rotation", study, degrees)
    assert study.lesion is not None and changed.lesion is not None
    before, after = (
        apply_affine(AFFINE, np.argwhere(one.image > 0).mean(axis=0)[::-1, None])[:, 0]
        for one in (study.lesion, changed.lesion)
    )
    cosine = before[:2] @ after[:2] / np.linalg.norm(before[:2]) / np.linalg.norm(after[:2])
    assert np.degrees(np.arccos(cosine)) == pytest.approx(degrees, abs=1.5)
    assert np.linalg.norm(after) == pytest.approx(np.linalg.norm(before), abs=1)
    assert get_image(changed)[changed.lesion.image > 0].mean() > 1.5 * get_image(changed).max() / 2.5


@pytest.mark.parametrize(
    "name, factor, steps",
    [("pixel size", 2, (1, 2, 2)), ("pixel size", 4, (1, 4, 4)), ("slice spacing", 2, (2, 1, 1))],
)
def test_larger_voxels_cover_the_same_field(name: str, factor: float, steps: tuple[int, ...]) -> None:
    ramp = np.broadcast_to(np.arange(SHAPE[0])[:, None, None] + 10.0 * np.arange(SHAPE[2]), SHAPE)
    series = apply(name, create_study(FLAIR=ramp), factor).series[MRSequence.FLAIR]
    assert series.image.shape == tuple(n // step for n, step in zip(SHAPE, steps, strict=True))
    assert compute_spacing(series.affine) == pytest.approx([2.0 * steps[2], 2.5 * steps[1], 5.0 * steps[0]])
    edges = [
        apply_affine(
            affine, compute_corner_indices(shape) + half * np.sign(compute_corner_indices(shape) - 1)
        )
        for affine, shape, half in ((AFFINE, SHAPE, 0.5), (series.affine, series.image.shape, 0.5))
    ]
    assert edges[0] == pytest.approx(edges[1])
    assert len(series.slice_names) == len(series.image)
    # away from the edges, a ramp has the same value at the same position
    inner = series.image[1:-1, :, 2:-2]
    index = np.argwhere(np.ones_like(series.image))[:, ::-1].T.astype(float)
    column, _, slice_index = apply_affine(np.linalg.inv(AFFINE) @ series.affine, index)
    expected = (slice_index + 10 * column).reshape(series.image.shape)[1:-1, :, 2:-2]
    assert inner == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize("count", [1, 4, 8])
def test_missing_slices_are_interpolated(count: int) -> None:
    rng = np.random.default_rng(3)
    ramp = np.broadcast_to(10.0 * np.arange(SHAPE[0])[:, None, None], SHAPE)
    noisy = ramp + rng.normal(size=SHAPE)
    changed = get_image(apply("missing slices", create_study(FLAIR=noisy), count))
    lost = np.flatnonzero((changed != noisy.astype(np.float32)).any(axis=(1, 2)))
    assert len(lost) == count and 0 not in lost and SHAPE[0] - 1 not in lost
    assert get_image(apply("missing slices", create_study(FLAIR=ramp), count)) == pytest.approx(ramp)


def test_swapped_sides() -> None:
    study = create_head()
    both, one = (apply(name, study, 1) for name in sorted(ONCE_ONLY))
    assert study.lesion is not None and both.lesion is not None
    assert get_image(both, "T1C") == pytest.approx(get_image(study, "T1C")[:, :, ::-1], abs=1e-3)
    assert np.array_equal(both.lesion.image, study.lesion.image[:, :, ::-1])
    assert get_image(one, "T1C") == pytest.approx(get_image(both, "T1C"))
    assert one.lesion is study.lesion and np.array_equal(get_image(one), get_image(study))


def test_jpeg_keeps_the_range_and_most_of_the_image() -> None:
    study = create_head()
    errors = {q: np.abs(get_image(apply("JPEG", study, q)) - get_image(study)) for q in (90, 10)}
    span = float(np.ptp(get_image(study)))
    assert errors[90].mean() < 0.01 * span < errors[10].mean() < 0.1 * span


@pytest.mark.parametrize("factor", [0.0, 0.4, 2.5])
def test_enhancement_is_scaled_where_t1c_exceeds_t1(factor: float) -> None:
    study = create_head()
    assert study.lesion is not None
    changed = apply("weaker enhancement", study, factor)
    lesion, base = study.lesion.image > 0, 1.3 * get_image(study, "T1")
    inner = ndimage.binary_erosion(lesion, iterations=2)
    excess = (get_image(changed, "T1C") - base)[inner]
    assert excess == pytest.approx(90 * factor, abs=5)
    far = ~ndimage.binary_dilation(lesion, iterations=4)
    assert get_image(changed, "T1C")[far] == pytest.approx(get_image(study, "T1C")[far], abs=1e-3)


@pytest.mark.parametrize("name", ["T1", "T1C"])
def test_enhancement_needs_t1_before_and_after_contrast(name: str) -> None:
    study = create_head()
    others = {key: one for key, one in study.series.items() if key != name}
    assert perturb(replace(study, series=others), BY_NAME["weaker enhancement"], 0.5) is None
