"""Every network of the registry: building, records, weights files, training, prediction and Grad-CAM."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import torch

from gliomark.errors import ConfigurationError, GliomarkError
from gliomark.explanation.gradcam import compute_branch_map, describe_grad_cam
from gliomark.models.card import MarkerNetworkCard, SegmentationCard
from gliomark.models.entries import RECIPES, MarkerEntry, NetworkEntry, SegmentationEntry
from gliomark.models.network_io import build_mix_input
from gliomark.models.network_loading import load_marker_network, load_segmentation_network
from gliomark.models.network_names import get_display_name
from gliomark.models.registry import (
    MARKER_DEFAULTS,
    MARKER_NETWORKS,
    SEGMENTATION_DEFAULTS,
    SEGMENTATION_NETWORKS,
    build_marker_network,
    build_segmentation_network,
    choose_marker_entry,
    choose_segmentation_entry,
    describe_networks,
    get_marker_entry,
    get_segmentation_entry,
    list_entries,
    parse_marker_settings,
    parse_segmentation_settings,
    to_identity_record,
    to_network_record,
)
from gliomark.models.weights import MarkerCard, ModelCard, load_weights, save_weights
from gliomark.training.markers import LesionSliceDataset, create_marker_config, train_marker_network
from gliomark.training.network_vectors import compute_network_vectors
from gliomark.training.recipes import run_marker_training, run_segmentation_training
from gliomark.training.segmentation import create_segmentation_config, train_segmentation_network
from gliomark.training.slice_dataset import SliceDataset

SIDE = 64
each_segmentation_entry = pytest.mark.parametrize("entry", SEGMENTATION_NETWORKS, ids=lambda e: e.name)
each_marker_entry = pytest.mark.parametrize("entry", MARKER_NETWORKS, ids=lambda e: e.name)


def get_light_settings(entry: NetworkEntry[Any]) -> Any:
    """Return the settings of the recipe that runs fastest."""
    return entry.recipes["small" if "small" in entry.recipes else "pretrained"]


def get_light_recipe(entry: NetworkEntry[Any]) -> Any:
    return "small" if "small" in entry.recipes else "pretrained"


def draw_slices(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw images ``(count, 2, SIDE, SIDE)`` of noise and lesion masks ``(count, SIDE, SIDE)``."""
    generator = torch.Generator().manual_seed(count)
    lesion = torch.zeros(count, SIDE, SIDE)
    for index in range(count):
        lesion[index, 10 + index : 40, 12:44] = 1
    return torch.randn(count, 2, SIDE, SIDE, generator=generator) + lesion[:, None], lesion


# ---- entries ----------------------------------------------------------------------------------------


def test_names_are_unique_and_every_recipe_has_a_default_network() -> None:
    names = [entry.name for entry in list_entries()]
    assert len(set(names)) == len(names)
    for recipe in RECIPES:
        assert recipe in choose_segmentation_entry(recipe).recipes
        assert recipe in choose_marker_entry(recipe).recipes
    assert set(SEGMENTATION_DEFAULTS) == set(MARKER_DEFAULTS) == set(RECIPES)
    for entry in list_entries():
        assert entry.reference and set(entry.recipes) <= set(RECIPES)
        assert ("pretrained" in entry.recipes) <= (entry.load_pretrained is not None)


@pytest.mark.parametrize("entry", list_entries(), ids=lambda e: e.name)
def test_every_recipe_builds_on_the_meta_device(entry: NetworkEntry[Any]) -> None:
    sizes = []
    for settings in entry.recipes.values():
        with torch.device("meta"):
            network = (
                entry.build(settings, None) if isinstance(entry, SegmentationEntry) else entry.build(settings)
            )  # type: ignore[attr-defined]
        sizes.append(sum(parameter.numel() for parameter in network.parameters()))
    assert sizes == sorted(sizes, reverse=True) and min(sizes) > 0


@pytest.mark.parametrize("entry", list_entries(), ids=lambda e: e.name)
def test_settings_are_restored_from_their_record(entry: NetworkEntry[Any]) -> None:
    parse = parse_segmentation_settings if isinstance(entry, SegmentationEntry) else parse_marker_settings
    for settings in entry.recipes.values():
        record = json.loads(json.dumps(to_network_record(settings)))
        parsed = parse(record)
        assert parsed == settings and hash(parsed) == hash(settings)
        assert json.loads(json.dumps(to_network_record(parsed))) == record
        assert record["architecture"] == entry.record_name
        assert get_display_name(record) == ("MIG-Net" if entry.name == "Swin-UNet" else entry.name)


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ({"architecture": "nnU-Net 2-D", "inputs": 2, "width": 16}, "nnU-Net"),
        ({"architecture": "U-Net", "inputs": 1, "width": 64}, "U-Net"),
        ({"architecture": "frozen trunk", "channels": [0, 1, 2, 3]}, "Lesion-pooled features"),
        ({"architecture": "ResNet-50, middle fusion", "channels": [0, 1, 2, 3]}, "Middle fusion"),
        ({"merge_in": False}, "KiNet"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_records_of_gliomark_0_1_are_read(record: dict, name: str) -> None:
    is_segmentation = "width" in record
    parse = parse_segmentation_settings if is_segmentation else parse_marker_settings
    get_entry = get_segmentation_entry if is_segmentation else get_marker_entry
    assert isinstance(parse(record), get_entry(name).settings_type)


def test_work_folders_of_gliomark_0_1_are_recognised() -> None:
    """Their keys name the architecture of the comparison networks only."""
    assert "architecture" not in to_identity_record(get_segmentation_entry("MIG-Net").recipes["small"])
    assert "architecture" not in to_identity_record(get_marker_entry("KiNet").recipes["small"])
    nnunet = to_identity_record(get_segmentation_entry("nnU-Net").recipes["small"])
    assert nnunet == {"architecture": "nnU-Net 2-D", "inputs": 1, "width": 16}


# ---- choice by name -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["unet", "U-net", "UNet"])
def test_the_closest_name_is_suggested(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean 'U-Net'\?"):
        get_segmentation_entry(name)
    with pytest.raises(ConfigurationError, match=r"did you mean 'Lesion-pooled features'\?"):
        get_marker_entry("lesion pooled")
    with pytest.raises(ConfigurationError, match=r"'xyz'; it must be one of KiNet, ResNet-50"):
        get_marker_entry("xyz")


def test_a_network_without_the_recipe_is_refused_before_the_cohort_is_read(tmp_path: Path) -> None:
    cohort, out = tmp_path / "no such cohort", tmp_path / "m.safetensors"
    with pytest.raises(
        ConfigurationError, match="U-Net has no recipe 'pretrained'; choose published or small"
    ):
        run_segmentation_training(cohort, out, "joint", "pretrained", 1, "U-Net")
    with pytest.raises(ConfigurationError, match="features has no recipe 'small'; choose pretrained"):
        run_marker_training(cohort, out, out, ["idh"], "small", 1, "Lesion-pooled features")
    with pytest.raises(ConfigurationError, match="'light' is unknown; it must be one of published, small"):
        run_segmentation_training(cohort, out, "joint", "light", 1)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_the_table_lists_every_network_with_its_recipes() -> None:
    lines = describe_networks().splitlines()
    assert lines[0].split() == ["name", "kind", "recipes", "reference"]
    assert len(lines) == 1 + len(list_entries())
    assert any("nnU-Net" in line and "published, small" in line and "Isensee" in line for line in lines)


# ---- weights files ----------------------------------------------------------------------------------------


def create_segmentation_card(network: dict[str, Any]) -> SegmentationCard:
    return SegmentationCard(network, tile=SIDE, pool=1.0, context=0, flips=False, smallest_share=0.0)


def create_card(segmentation: SegmentationCard, markers: dict[str, MarkerCard]) -> ModelCard:
    return ModelCard(
        name="one network",
        sequences=("T1C", "FLAIR"),
        rule="joint",
        segmentation=segmentation,
        segmentation_threshold=0.5,
        smallest_lesion_ml=0.5,
        training_cohort="none",
        training_patients=("a",),
        folds_sha256="0" * 64,
        licence="CC0",
        intended_use="tests",
        segmentation_performance="not measured",
        versions={},
        markers=markers,
    )


@torch.no_grad()
@each_segmentation_entry
def test_a_segmentation_network_is_saved_and_loaded(entry: SegmentationEntry[Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = replace(get_light_settings(entry), inputs=2)
    # weights files hold half precision
    network = build_segmentation_network(settings, torch.rand(240, 240)).eval().half().float()
    tensors = {f"segmentation/{name}": value for name, value in network.state_dict().items()}
    card = create_card(create_segmentation_card(to_network_record(settings)), {})
    save_weights(tmp_path / "w.safetensors", card, tensors)
    loaded = load_segmentation_network(load_weights(tmp_path / "w.safetensors"))
    image, theta = torch.randn(1, 2, SIDE, SIDE), torch.eye(2, 3)[None]
    assert torch.equal(loaded(image, theta).logits, network(image, theta).logits)
    assert loaded(image, theta).logits.shape == (1, 2, SIDE, SIDE)


@torch.no_grad()
@each_marker_entry
def test_a_marker_network_is_saved_and_loaded(entry: MarkerEntry[Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = get_light_settings(entry)
    network = build_marker_network(settings).eval().half().float()  # weights files hold half precision
    label = np.arange(60) % 2
    columns = np.random.default_rng(0).normal(size=(60, 1)) + label[:, None]
    options = {"objective": "binary", "num_leaves": 3, "min_data_in_leaf": 5, "num_threads": 1, "verbose": -1}
    trees = lightgbm.train(options, lightgbm.Dataset(columns, label.astype(float)), 3)
    card = MarkerCard(
        column="idh",
        title="IDH",
        positive="mutant",
        negative="wild type",
        label="mutated",
        threshold=0.5,
        age_cut=None,
        architecture=MarkerNetworkCard(network=to_network_record(settings), crop=SIDE, evidence="log-odds"),
    )
    tensors = {f"idh/{name}": value for name, value in network.state_dict().items()}
    text = np.frombuffer(trees.model_to_string().encode(), np.uint8).copy()
    tensors["idh/lightgbm"] = torch.from_numpy(text)
    save_weights(
        tmp_path / "w.safetensors", create_card(create_segmentation_card({}), {"idh": card}), tensors
    )
    weights = load_weights(tmp_path / "w.safetensors")
    loaded, crop = load_marker_network(weights, "idh"), weights.card.markers["idh"].architecture.crop
    images, lesion = draw_slices(2)
    np.testing.assert_array_equal(
        compute_network_vectors(loaded, images, lesion, crop),
        compute_network_vectors(network, images, lesion, crop),
    )


# ---- training and prediction --------------------------------------------------------------------------------


@each_segmentation_entry
def test_a_segmentation_network_is_trained_for_an_epoch(
    entry: SegmentationEntry[Any], tmp_path: Path
) -> None:
    recipe = get_light_recipe(entry)
    config = create_segmentation_config(recipe, sequence_count=2, epochs=1, entry=entry)
    config = replace(config, augmentation=replace(config.augmentation, crop=SIDE), pool=1, batch=2)
    images, lesion = draw_slices(4)
    images = images.repeat(1, config.network.inputs // 2, 1, 1)
    dataset = SliceDataset(
        images.half(), lesion.byte(), torch.tensor([0, 1, 0, 1]), torch.arange(4) // 2, ("a", "b")
    )
    config = replace(config, slices_per_patient=2)
    trained = train_segmentation_network(dataset, config, tmp_path)
    torch.manual_seed(0)
    assert trained.epochs == 1 and all(p.isfinite().all() for p in trained.network.parameters())
    assert config.optimiser == ("sgd" if entry.name == "nnU-Net" else "adamw")
    assert config.uses_prior_weight == (entry.name == "MIG-Net")


@each_marker_entry
def test_a_marker_network_is_trained_for_an_epoch(entry: MarkerEntry[Any], tmp_path: Path) -> None:
    config = create_marker_config(get_light_recipe(entry), epochs=1, entry=entry)
    config = replace(
        config, augmentation=replace(config.augmentation, crop=SIDE), batch=4, slices_per_patient=2
    )
    images, lesion = draw_slices(8)
    label, patient = torch.arange(8) % 2, torch.arange(8)
    names = tuple("abcdefgh")
    dataset = LesionSliceDataset(images.half(), lesion.byte(), label, label.float(), patient, names)
    network = train_marker_network(dataset, config, tmp_path)
    vectors = compute_network_vectors(network, images, lesion, SIDE)
    assert vectors.shape == (8, entry.get_vector_length(config.network) + 1) and np.isfinite(vectors).all()


@torch.no_grad()
@each_marker_entry
def test_prediction_equals_the_full_network(entry: MarkerEntry[Any]) -> None:
    torch.manual_seed(0)
    network = build_marker_network(get_light_settings(entry)).eval()
    images, lesion = draw_slices(3)
    full_output = network(build_mix_input(images[:, 0], images[:, 1], lesion))
    vectors = compute_network_vectors(network, images, lesion, SIDE)
    np.testing.assert_allclose(vectors[:, :-1], full_output["image_vector"], rtol=1e-4, atol=1e-5)
    odds = full_output["logits"][:, 1] - full_output["logits"][:, 0]
    np.testing.assert_allclose(vectors[:, -1], odds, rtol=1e-4, atol=1e-5)


# ---- Grad-CAM -------------------------------------------------------------------------------------------------


@each_marker_entry
def test_every_stage_has_a_map_or_an_error_lists_the_available_stages(entry: MarkerEntry[Any]) -> None:
    torch.manual_seed(0)
    network = build_marker_network(get_light_settings(entry)).eval()
    images, lesion = draw_slices(2)
    mix = build_mix_input(images[:, 0], images[:, 1], lesion)
    branches = describe_grad_cam(network).branches
    assert branches[-1].output == "logits" and branches[-1].sequence is None, "the joint branch comes last"
    for branch in branches:
        for stage, layer in enumerate(branch.layers, start=1):
            if layer is None:
                with pytest.raises(GliomarkError, match=f"no stage {stage}; choose stage"):
                    compute_branch_map(network, mix.clone(), branch.name, stage)
            else:
                found = compute_branch_map(network, mix.clone(), branch.name, stage)
                assert found.shape == (2, SIDE, SIDE) and found.isfinite().all()
                assert found.min() >= 0 and found.max() <= 1
        with pytest.raises(GliomarkError, match="no stage 5"):
            compute_branch_map(network, mix.clone(), branch.name, 5)


def test_a_network_without_grad_cam_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = replace(get_marker_entry("ResNet-50"), grad_cam=None)
    monkeypatch.setattr("gliomark.models.registry.MARKER_NETWORKS", (entry,))
    network = build_marker_network(entry.recipes["small"]).eval()
    with pytest.raises(ConfigurationError, match="ResNet-50 has no Grad-CAM"):
        describe_grad_cam(network)
