"""Selection of lesion slices, features of the trees, and codes of age and sex."""

from __future__ import annotations

from dataclasses import replace

import lightgbm
import numpy as np
import pytest
import torch

from gliomark.inference.fusion import select_deciding_slices
from gliomark.inference.slice_classifier import (
    SliceClassifier,
    build_tree_columns,
    compute_image_vectors,
    compute_lesion_features,
    extract_lesion_slices,
    select_prediction_slices,
    select_training_slices,
)
from gliomark.models.network_io import build_mix_input
from gliomark.models.published.kinet import KiNetSettings, KiNetSize
from gliomark.models.registry import build_marker_network
from gliomark.models.torch_inference import wrap_marker_network
from gliomark.study import ClinicalData, MRSequence, SliceStack

PAIR = (MRSequence.T1C, MRSequence.FLAIR)
WIDTHS = (8, 8, 16, 16)


@pytest.fixture
def ten_slices() -> SliceStack:
    random = np.random.default_rng(0)
    shape = (10, 240, 240)
    images = {name: random.normal(size=shape).astype(np.float32) for name in PAIR}
    names = tuple(f"{i:03d}" for i in range(10))
    return SliceStack(
        "a", images, np.ones(shape, bool), np.diag([0.5, 2.0, 5.0, 1.0]), names, (0, 2, 4, 6, 8)
    )


@pytest.fixture
def eval_kinet() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_marker_network(
        KiNetSettings(size=KiNetSize(stem=8, widths=WIDTHS, blocks=(1, 1, 1, 1), pool=2))
    ).eval()


def create_mask(**pixels: int) -> np.ndarray:
    """Create a mask; s4=60: 60 lesion pixels (of 1 mm2) on slice 4."""
    mask = np.zeros((10, 240, 240), bool)
    for name, count in pixels.items():
        mask[int(name[1:])].flat[24000 : 24000 + count] = True
    return mask


def test_selected_slices_with_at_least_50_mm2_are_used(ten_slices) -> None:
    found = select_training_slices(ten_slices, create_mask(s0=49, s2=50, s3=500, s6=80))
    assert (found.neighbour_index, found.index, found.area_mm2) == ((1, 3), (2, 6), (50.0, 80.0))


def test_small_lesions_are_used_if_there_is_nothing_larger(ten_slices) -> None:
    found = select_training_slices(ten_slices, create_mask(s0=3, s3=500, s8=49))
    assert (found.neighbour_index, found.index, found.area_mm2) == ((0, 4), (0, 8), (3.0, 49.0))


def test_a_lesion_between_the_selected_slices_is_not_lost(ten_slices) -> None:
    found = select_training_slices(ten_slices, create_mask(s5=20, s7=30))
    assert found.index == (7,) and found.area_mm2 == (30.0,) and found.neighbour_index in ((3,), (4,))


@pytest.mark.parametrize(
    ("areas", "index", "near"),
    [
        ({2: 80, 3: 500, 4: 90, 6: 70}, (2, 3, 4, 6), (2, 3, 4)),  # 3 is not one of the K slices
        ({0: 500, 1: 60, 2: 60}, (0, 1, 2), (0, 1)),  # no lower neighbour
        ({3: 60, 5: 500, 6: 49}, (3, 5), (5,)),  # below 50 mm2
        ({4: 90, 5: 90, 6: 90}, (4, 5, 6), (4, 5)),  # of equal areas the lower slice counts as the largest
        ({5: 20, 7: 30}, (5, 7), (7,)),  # small lesions only
    ],
)
def test_with_few_slices_all_neighbours_of_the_largest_decide(ten_slices, areas, index, near) -> None:
    found = select_prediction_slices(ten_slices, create_mask(**{f"s{i}": area for i, area in areas.items()}))
    assert (found.neighbour_index, found.index) == (index, index)
    assert found.area_mm2 == tuple(float(areas[i]) for i in index)
    assert (
        tuple(index[i] for i in select_deciding_slices(found.neighbour_index, found.area_mm2, "near")) == near
    )


@pytest.mark.parametrize(
    ("areas", "index", "near"),
    [
        (
            {20: 60, 21: 500, 22: 90, 23: 80, 24: 70},
            (20, 21, 22, 24),
            (20, 21, 22),
        ),  # every fourth is selected
        ({39: 60, 40: 70}, (39, 40), (39, 40)),  # the last slice
        ({1: 300, 2: 200}, (1, 2), (1, 2)),  # no lesion on a selected slice
    ],
)
def test_with_many_slices_the_largest_and_its_neighbours_are_added(ten_slices, areas, index, near) -> None:
    names = tuple(f"{i:03d}" for i in range(41))
    many = replace(ten_slices, slice_names=names, selected=tuple(range(0, 41, 4)))
    mask = np.zeros((41, 240, 240), bool)
    for i, area in areas.items():
        mask[i].flat[:area] = True
    found = select_prediction_slices(many, mask)
    assert (found.neighbour_index, found.index) == (index, index)
    assert (
        tuple(index[i] for i in select_deciding_slices(found.neighbour_index, found.area_mm2, "near")) == near
    )


def test_without_a_lesion_no_slice_is_used(ten_slices, eval_kinet) -> None:
    found = select_training_slices(ten_slices, create_mask())
    assert found.neighbour_index == found.index == found.area_mm2 == ()
    trees = lightgbm.train({"verbose": -1}, lightgbm.Dataset(np.zeros((4, 51)), [0, 1, 0, 1]), 1)
    classifier = SliceClassifier(wrap_marker_network(eval_kinet), trees, PAIR, 192, 45.0)
    slices, probability, parts = classifier.score(ten_slices, create_mask(), ClinicalData("a", 50, 0))
    assert not slices.index and len(probability) == len(parts) == 0


LESION_FEATURES = np.arange(18.0).reshape(2, 9)


def test_image_features_of_the_trees() -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(
        build_tree_columns(vectors, LESION_FEATURES, "log-odds", None, None, None), vectors[:, 2:]
    )
    columns = build_tree_columns(vectors, LESION_FEATURES, "lesion", 50.0, 1, 45.0)
    np.testing.assert_array_equal(columns, np.hstack([vectors[:, 2:], LESION_FEATURES, [[1, 1]] * 2]))


def test_lesion_features_are_measured_inside_the_lesion(ten_slices) -> None:
    mask = create_mask(s2=300, s4=900)
    slices = select_training_slices(ten_slices, mask)
    images, lesion = extract_lesion_slices(ten_slices, mask, slices, PAIR)
    found = compute_lesion_features(images, lesion, slices.area_mm2)
    assert found.shape == (2, 9)
    for row, index in zip(found, slices.index, strict=True):
        inside = [ten_slices.images[name][index][mask[index]].astype(float) for name in PAIR]
        expected = [
            statistic
            for x in inside
            for statistic in (x.mean(), x.std(), np.percentile(x, 5), np.percentile(x, 95))
        ]
        np.testing.assert_allclose(row, [mask[index].sum() * ten_slices.pixel_area_mm2, *expected], rtol=1e-6)


def test_age_and_sex_are_encoded() -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    for age, code in ((45.0, 1), (44.9, 0), (80.0, 1), (0.0, 0)):
        table = build_tree_columns(vectors, LESION_FEATURES, "vector", age, 1, 45.0)
        assert table.shape == (2, 5) and table.dtype == np.float64
        np.testing.assert_array_equal(table[:, :3], vectors)
        np.testing.assert_array_equal(table[:, 3:], [[code, 1]] * 2)
    assert (build_tree_columns(vectors, LESION_FEATURES, "vector", 50.0, 0, 45.0)[:, 4] == 0).all()
    unknown = build_tree_columns(vectors, LESION_FEATURES, "vector", None, None, 45.0)
    assert np.isnan(unknown[:, 3:]).all() and not np.isnan(unknown[:, :3]).any()
    np.testing.assert_array_equal(
        build_tree_columns(vectors, LESION_FEATURES, "vector", 50.0, 1, None), vectors
    )


def test_vectors_are_those_of_kinet_on_the_central_view_with_its_log_odds(ten_slices, eval_kinet) -> None:
    mask = create_mask(s2=300, s4=900)
    slices = select_training_slices(ten_slices, mask)
    images, lesion = extract_lesion_slices(ten_slices, mask, slices, PAIR)
    assert images.shape == (2, 2, 240, 240) and lesion.shape == (2, 240, 240)
    np.testing.assert_array_equal(images[1, 1], ten_slices.images[MRSequence.FLAIR][4])
    vectors = compute_image_vectors(wrap_marker_network(eval_kinet), images, lesion, 192)
    assert vectors.shape == (2, sum(WIDTHS) + 1) and vectors.dtype == np.float32
    inner, inner_lesion = (torch.from_numpy(one[..., 24:216, 24:216]) for one in (images, lesion))
    with torch.no_grad():
        output = eval_kinet(build_mix_input(inner[:, 0], inner[:, 1], inner_lesion))
    np.testing.assert_allclose(vectors[:, :-1], output["image_vector"], atol=1e-5)
    np.testing.assert_allclose(
        1 / (1 + np.exp(-vectors[:, -1])), output["logits"].softmax(dim=1)[:, 1], atol=1e-5
    )
    many = compute_image_vectors(
        wrap_marker_network(eval_kinet), np.tile(images, (10, 1, 1, 1)), np.tile(lesion, (10, 1, 1)), 192
    )  # over one batch
    np.testing.assert_allclose(many, np.tile(vectors, (10, 1)), atol=1e-4)


def compute_odds(probability: np.ndarray) -> np.ndarray:
    return probability / (1 - probability)


def test_image_and_age_affect_the_prediction(ten_slices, eval_kinet) -> None:
    random = np.random.default_rng(0)
    table = random.normal(size=(400, sum(WIDTHS) + 3))
    table[:, -2:] = random.integers(0, 2, (400, 2))
    trees = lightgbm.train({"verbose": -1, "objective": "binary"}, lightgbm.Dataset(table, table[:, -2]), 20)
    classifier = SliceClassifier(wrap_marker_network(eval_kinet), trees, PAIR, 192, 45.0)
    mask = create_mask(s2=300)
    old, young = (classifier.score(ten_slices, mask, ClinicalData("a", age, 0)) for age in (70.0, 20.0))
    assert old.probability[0] > 0.9 > 0.1 > young.probability[0]
    # the contributions sum to the log-odds, and the age has the largest
    for scores in (old, young):
        odds = np.log(scores.probability / (1 - scores.probability))
        np.testing.assert_allclose(scores.contributions.sum(axis=1), odds, atol=1e-6)
    # with calibration they are shifted and scaled, and still sum to the log-odds
    scaled = replace(classifier, calibration=(-0.7, 0.5)).score(ten_slices, mask, ClinicalData("a", 70.0, 0))
    odds = np.log(compute_odds(old.probability))
    np.testing.assert_allclose(np.log(compute_odds(scaled.probability)), -0.7 + 0.5 * odds, atol=1e-6)
    np.testing.assert_allclose(scaled.contributions.sum(axis=1), -0.7 + 0.5 * odds, atol=1e-6)
    start, image, age, sex = (old.contributions - young.contributions)[0]
    assert start == 0 and age > 4 and abs(image) + abs(sex) < 0.1 * age
    without = replace(
        classifier, trees=lightgbm.train({"verbose": -1}, lightgbm.Dataset(table[:, :-2], table[:, 0]), 3)
    )
    assert replace(without, age_cut=None).score(
        ten_slices, mask, ClinicalData("a", 50, 0)
    ).contributions.shape == (1, 2)
