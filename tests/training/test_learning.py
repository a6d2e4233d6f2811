"""The networks learn: they overfit a few slices in seconds."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from gliomark.errors import GliomarkError
from gliomark.evaluation.calibration import fit_recalibration
from gliomark.evaluation.metrics import auc, compute_threshold_metrics
from gliomark.models.network_io import build_mix_input
from gliomark.models.published.kinet import KiNetSettings, KiNetSize
from gliomark.models.published.mignet import MIGNetSettings
from gliomark.models.published.swin_unet import SwinSize
from gliomark.models.registry import build_marker_network, load_pretrained_weights
from gliomark.training.augmentation import Augmentation, resample_view
from gliomark.training.markers import (
    LesionSliceDataset,
    MarkerTrainingConfig,
    create_marker_config,
    train_marker_network,
)
from gliomark.training.network_vectors import compute_network_vectors
from gliomark.training.segmentation import SegmentationTrainingConfig, train_segmentation_network
from gliomark.training.slice_dataset import SliceDataset

STILL = Augmentation(crop=64, shift=0, quarter_turns=False, noise=0.0)
IDENTITY = torch.eye(2, 3)[None]


@pytest.fixture(autouse=True)
def quiet_lightning():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def draw_blobs(count: int = 8, side: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images ``(N, 1, side, side)`` with a bright blob, a ring and noise, and the masks of the blobs."""
    torch.manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    images, masks = [], []
    for _ in range(count):
        row, column, radius = torch.randint(16, 48, ()), torch.randint(16, 48, ()), torch.randint(5, 11, ())
        distance = ((rows - row) ** 2 + (columns - column) ** 2).sqrt()
        ring_distance = ((rows - (row + 28) % side) ** 2 + (columns - (column + 31) % side) ** 2).sqrt()
        mask = distance < radius
        ring = (ring_distance < 6) & (ring_distance > 3) & ~mask
        images.append(torch.randn(side, side) * 0.3 + 1.5 * mask + 1.5 * ring)
        masks.append(mask)
    return torch.stack(images)[:, None], torch.stack(masks)


TINY = SwinSize(embedding=16, depths=(1, 1), heads=(2, 4), patch=2, convolutional_stem=True)
MIGNET = SegmentationTrainingConfig(
    MIGNetSettings(size=TINY), STILL, rate=3e-3, batch=8, epochs=14, slices_per_patient=10
)


@pytest.mark.slow
def test_mignet_overfits_eight_slices(tmp_path: Path) -> None:
    image, mask = draw_blobs()
    grade = torch.arange(8) % 2
    dataset = SliceDataset(image.half(), mask.to(torch.uint8), grade, torch.arange(8), tuple("abcdefgh"))
    trained = train_segmentation_network(dataset, MIGNET, tmp_path)
    assert trained.prior.shape == (64, 64) and not trained.network.training
    with torch.no_grad():
        logits, grades, deeper = trained.network(image, IDENTITY.expand(8, -1, -1))
    predicted = logits.argmax(dim=1) == 1
    dice = 2 * (predicted & mask).sum((1, 2)) / (predicted.sum((1, 2)) + mask.sum((1, 2)))
    assert dice.mean() > 0.98 and dice.min() > 0.9, dice
    assert deeper == ()
    assert grades.shape == (8, 2)


@pytest.mark.slow
def test_kinet_separates_two_kinds_of_lesion(tmp_path: Path) -> None:
    image, mask = draw_blobs(16)
    label = torch.arange(16) % 2
    second = image[:, 0] - 3 * (mask & (label == 1)[:, None, None])  # dark lesion in one class
    both = torch.stack([image[:, 0], second], dim=1)
    dataset = LesionSliceDataset(
        both.half(), mask.to(torch.uint8), label, label.float(), torch.arange(16), tuple(map(str, range(16)))
    )
    size = KiNetSize(stem=8, widths=(16, 16, 24, 32), blocks=(1, 1, 1, 1))
    settings = MarkerTrainingConfig(
        KiNetSettings(size=size), STILL, rate=3e-3, epochs=6, slices_per_patient=8
    )
    network = train_marker_network(dataset, settings, tmp_path)
    with torch.no_grad():
        odds = network(build_mix_input(both[:, 0], both[:, 1], mask))["logits"]
    assert (odds.argmax(dim=1) == label).float().mean() >= 0.9


def test_a_view_without_movement_is_the_slice_itself() -> None:
    image, _ = draw_blobs(2)
    torch.testing.assert_close(resample_view(image, IDENTITY.expand(2, -1, -1), 64), image, atol=1e-4, rtol=0)


def create_lesion_dataset(slices: tuple[int, ...], seed: int) -> LesionSliceDataset:
    """Create patients with these numbers of slices; every second one has a coarser texture, which is the label."""
    random = torch.Generator().manual_seed(seed)
    patient = torch.repeat_interleave(torch.arange(len(slices)), torch.tensor(slices))
    fine = torch.randn(len(patient), 2, 64, 64, generator=random)
    coarse = F.interpolate(fine[..., ::4, ::4], scale_factor=4)
    label = patient % 2
    image = torch.where(label[:, None, None, None] == 1, coarse, fine)
    lesion = torch.zeros(len(patient), 64, 64, dtype=torch.uint8)
    lesion[:, 16:48, 16:48] = 1
    return LesionSliceDataset(
        image.half(), lesion, label, label.float(), patient, tuple(map(str, range(len(slices))))
    )


def test_the_linear_probe_is_the_logistic_regression_of_the_lesion_pooled_features(tmp_path: Path) -> None:
    settings = replace(create_marker_config("pretrained"), augmentation=STILL)
    dataset = create_lesion_dataset((9, 1, 2, 4, 1, 1), 0)
    network = train_marker_network(dataset, settings, tmp_path / "one")
    vectors_of_slices = compute_network_vectors(network, dataset.image, dataset.lesion, 64)
    mirrored = compute_network_vectors(network, dataset.image.flip(-1), dataset.lesion.flip(-1), 64)
    vectors, odds = (
        np.concatenate([vectors_of_slices, mirrored])[:, :-1].astype(float),
        vectors_of_slices[:, -1],
    )
    # three patients of either class, all with the same weight
    weight = np.tile([0.5 / (9, 1, 2, 4, 1, 1)[p] for p in dataset.patient.tolist()], 2)
    scaler = StandardScaler().fit(vectors, sample_weight=weight)
    model = LogisticRegression(C=0.01, max_iter=1000)
    model.fit(scaler.transform(vectors), np.tile(dataset.label, 2), sample_weight=weight)
    expected = model.decision_function(scaler.transform(vectors[: len(odds)]))
    np.testing.assert_allclose(odds, expected, atol=1e-3)
    other = create_lesion_dataset((2,) * 10, 1)
    unseen = compute_network_vectors(network, other.image, other.lesion, 64)[:, -1]
    assert auc(other.label.tolist(), unseen.tolist()) > 0.95
    again = train_marker_network(dataset, settings, tmp_path / "one")
    assert torch.equal(again.cat_head.weight, network.cat_head.weight)
    with pytest.raises(GliomarkError, match="other patients"):
        train_marker_network(dataset.select_patients("0123"), settings, tmp_path / "one")


def test_a_random_trunk_is_the_same_in_every_fold_and_its_features_do_not_vanish(tmp_path: Path) -> None:
    settings = replace(create_marker_config("pretrained"), augmentation=STILL, imagenet=False)
    datasets = [create_lesion_dataset((4,) * 6, seed) for seed in (0, 1)]
    networks = [train_marker_network(one, settings, tmp_path / str(n)) for n, one in enumerate(datasets)]
    tensors, other_tensors = (network.trunk.state_dict() for network in networks)
    assert all(torch.equal(tensors[name], other_tensors[name]) for name in tensors)
    assert not torch.equal(networks[0].cat_head.weight, networks[1].cat_head.weight)
    pretrained = train_marker_network(datasets[0], replace(settings, imagenet=True), tmp_path / "imagenet")
    assert not torch.equal(tensors["stem.0.weight"], pretrained.trunk.state_dict()["stem.0.weight"])
    vectors = compute_network_vectors(networks[0], datasets[0].image, datasets[0].lesion, 64)[:, :-1]
    assert np.median(np.abs(vectors)) > 0.05, "far above the smallest standard deviation, 1e-4"


def create_textured_dataset(count: int, seed: int) -> LesionSliceDataset:
    """Create one slice per patient; the second sequence's contrast grows with a skewed number, high from 10 on."""
    random = torch.Generator().manual_seed(seed)
    number = torch.exp(1.7 + 1.2 * torch.randn(count, generator=random))
    fine = torch.randn(count, 2, 64, 64, generator=random)
    image = fine * torch.log1p(number)[:, None, None, None].mul(torch.tensor([0.0, 0.4])[:, None, None]).add(
        1
    )
    lesion = torch.zeros(count, 64, 64, dtype=torch.uint8)
    lesion[:, 16:48, 16:48] = 1
    names = tuple(map(str, range(count)))
    return LesionSliceDataset(image.half(), lesion, (number >= 10).long(), number, torch.arange(count), names)


@pytest.mark.slow
def test_a_percentage_is_learned_as_a_number(tmp_path: Path) -> None:
    settings = replace(create_marker_config("pretrained"), augmentation=STILL)
    dataset, other = create_textured_dataset(60, 1), create_textured_dataset(200, 11)
    odds = {}
    for name, training_dataset in (
        ("number", dataset),
        ("class", replace(dataset, value=dataset.label.float())),
    ):
        network = train_marker_network(training_dataset, settings, tmp_path / name)
        odds[name] = compute_network_vectors(network, other.image, other.lesion, 64)[:, -1]
    by_rank = {name: spearmanr(one, other.value).statistic for name, one in odds.items()}
    assert by_rank["number"] > by_rank["class"] + 0.02
    # as a class: calibrated, and neither class favoured although one is rare
    found = fit_recalibration(other.label.tolist(), expit(odds["number"]).tolist())
    assert 0.5 < found.slope.value < 2
    threshold_metrics = compute_threshold_metrics(other.label.numpy(), expit(odds["number"]), 0.5)
    assert abs(threshold_metrics["sensitivity"] - threshold_metrics["specificity"]) < 0.15


def test_a_frozen_trunk_processes_a_slice_once_for_all_heads() -> None:
    dataset, batch_sizes = create_lesion_dataset((3, 2, 4), 7), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = build_marker_network(create_marker_config("pretrained").network).eval()
        load_pretrained_weights(network)
        network.trunk.register_forward_hook(lambda _, inputs, vector: batch_sizes.append(len(vector)))
        found = compute_network_vectors(network, dataset.image, dataset.lesion, 64)
        assert sum(batch_sizes) == 9, "cached slices were read again"
        with torch.no_grad():
            mix = build_mix_input(*dataset.image.float().unbind(1), dataset.lesion)
            output = network(mix)
        batch_sizes.pop()
        np.testing.assert_allclose(found[:, :-1], output["image_vector"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            found[:, -1], output["logits"][:, 1] - output["logits"][:, 0], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    "settings", [create_marker_config("pretrained"), MarkerTrainingConfig()], ids=["pretrained", "published"]
)
def test_patients_of_one_class_are_refused_before_anything_is_written(settings, tmp_path: Path) -> None:
    dataset = create_lesion_dataset((2, 1, 2, 1), 0).select_patients("02")
    with pytest.raises(GliomarkError, match="All 2 training patients have the same class"):
        train_marker_network(dataset, settings, tmp_path)
    assert not list(tmp_path.iterdir())
