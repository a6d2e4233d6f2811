"""Segmentation networks in an engine give the masks of PyTorch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gliomark import load_model
from gliomark.engines import NetworkSource
from gliomark.engines.openvino_engine import OpenVinoNetwork, load_openvino_network
from gliomark.engines.torch_engine import TorchNetwork
from gliomark.inference.segmenter import Segmenter
from gliomark.model_loading import build_model, load_weights_by_name
from gliomark.models.engine_loading import LOGIT_TOLERANCE, create_segmentation_inputs
from gliomark.models.entries import SegmentationEntry
from gliomark.models.network_io import LogitsOnly
from gliomark.models.registry import SEGMENTATION_NETWORKS, build_segmentation_network
from gliomark.models.torch_inference import wrap_segmentation_network
from gliomark.study import MRSequence, SliceStack

PAIR = (MRSequence.T1C, MRSequence.FLAIR)


def draw_stack(slice_count: int, half_brain: int) -> SliceStack:
    """Draw noise in a square brain of ``2 * half_brain`` pixels, with a bright square in it."""
    generator = np.random.default_rng(slice_count)
    brain = np.zeros((slice_count, 240, 240), bool)
    brain[:, 120 - half_brain : 120 + half_brain, 120 - half_brain : 120 + half_brain] = True
    images = {}
    for name in PAIR:
        texture = generator.normal(size=(slice_count, 30, 30)).repeat(8, axis=1).repeat(8, axis=2)
        texture[:, 90:130, 80:120] += 3
        images[name] = np.where(brain, texture, texture.min()).astype(np.float32)
    names = tuple(f"{index + 1:03d}" for index in range(slice_count))
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    return SliceStack("P", images, brain, affine, names, tuple(range(slice_count)))


def create_source(entry: SegmentationEntry[Any], network: nn.Module) -> NetworkSource:
    return NetworkSource(
        "segmentation",
        f"{entry.name} of the tests, {torch.__version__}, {entry.size_multiple}",
        lambda: LogitsOnly(network).eval(),
        lambda: create_segmentation_inputs(2, 96),
        LOGIT_TOLERANCE,
        has_batch=True,
        is_size_free=entry.size_multiple is not None,
    )


@pytest.mark.sample(2)
@pytest.mark.parametrize("entry", SEGMENTATION_NETWORKS, ids=lambda entry: entry.name)
@pytest.mark.parametrize(("half_brain", "uses_mirroring"), [(40, False), (110, True)])
def test_every_network_segments_as_in_pytorch(
    entry: SegmentationEntry[Any], half_brain: int, uses_mirroring: bool
) -> None:
    """In the central tile and in four overlapping ones, with one batch that is full and one that is not.

    Networks that take any size also see the whole brain in one window.
    """
    torch.manual_seed(0)
    recipe = "small" if "small" in entry.recipes else "pretrained"
    settings = replace(entry.recipes[recipe], inputs=2)
    network = build_segmentation_network(settings, torch.rand(240, 240)).eval()
    reference, engine = (
        wrap_segmentation_network(network),
        load_openvino_network(create_source(entry, network)),
    )
    stack = draw_stack(9, half_brain)
    for size_multiple in {None, entry.size_multiple}:
        segmenter = Segmenter(
            reference,
            PAIR,
            "joint",
            192,
            pooling_factor=2,
            uses_mirroring=uses_mirroring,
            size_multiple=size_multiple,
        )
        expected, found = segmenter.segment(stack), replace(segmenter, network=engine).segment(stack)
        np.testing.assert_allclose(found.probability, expected.probability, atol=1e-4)
        assert (found.mask != expected.mask).mean() <= 1e-4


def test_the_shipped_model_segments_as_in_pytorch() -> None:
    model, stack = load_model("demo"), draw_stack(5, 80)
    reference = build_model(load_weights_by_name("demo"), engine="torch").segmenter
    assert isinstance(model.segmenter.network, OpenVinoNetwork)
    assert isinstance(reference.network, TorchNetwork)
    assert model.segmenter.size_multiple == reference.size_multiple
    expected, found = reference.segment(stack), model.segment(stack)
    assert expected.mask.any()
    np.testing.assert_array_equal(found.mask, expected.mask)
    np.testing.assert_allclose(found.probability, expected.probability, atol=1e-4)
