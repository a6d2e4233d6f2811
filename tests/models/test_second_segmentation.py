"""A second segmentation network in a weights file: joined, stored, described, and refused where it does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.test_weights import CARD, get_error_message, rewrite

from gliomark.errors import GliomarkError
from gliomark.models.card import SEGMENTATION_PART, ModelCard, to_card_record
from gliomark.models.comparison.unet import UNetSettings
from gliomark.models.engine_loading import load_segmentation_engine
from gliomark.models.network_loading import load_segmentation_network
from gliomark.models.registry import build_segmentation_network, to_network_record
from gliomark.models.second_segmentation import add_second_segmentation
from gliomark.models.weights import Weights, load_weights, save_weights
from gliomark.models.weights_description import describe_as_json, describe_as_text

PART = "second_segmentation"


def create_card(sequences: tuple[str, str], width: int) -> ModelCard:
    segmentation = replace(
        CARD.segmentation, network=to_network_record(UNetSettings(inputs=2, width=width)), pool=2.0
    )
    return replace(CARD, sequences=sequences, segmentation=segmentation, markers={}, stand_ins={})


def write_network(path: Path, card: ModelCard, seed: int) -> Weights:
    """Write a weights file with a random network of the card."""
    torch.manual_seed(seed)
    width = int(card.segmentation.network["width"])
    network = build_segmentation_network(UNetSettings(inputs=2, width=width))
    tensors = {f"{SEGMENTATION_PART}/{name}": tensor for name, tensor in network.state_dict().items()}
    save_weights(path, card, {**tensors, "prior": torch.ones(4, 4)})
    return load_weights(path)


@pytest.fixture
def first(tmp_path: Path) -> Weights:
    card = replace(create_card(("T1C", "FLAIR"), 2), stand_ins={"FLAIR": "T2"})
    return write_network(tmp_path / "first.safetensors", card, 1)


@pytest.fixture
def second(tmp_path: Path) -> Weights:
    card = replace(create_card(("T1C", "T2"), 3), training_patients=("d",), smallest_lesion_ml=0.25)
    return write_network(tmp_path / "second.safetensors", card, 2)


@pytest.fixture
def joined(tmp_path: Path, first: Weights, second: Weights) -> Weights:
    path = tmp_path / "joined.safetensors"
    save_weights(path, *add_second_segmentation(first, second, "mean Dice 0.8"))
    return load_weights(path)


def test_both_networks_are_in_one_file(first: Weights, second: Weights, joined: Weights) -> None:
    card = joined.card.second_segmentation
    assert card is not None
    assert (card.sequences, card.training_patients) == (("T1C", "T2"), ("d",))
    assert (card.smallest_lesion_ml, card.segmentation_performance) == (0.25, "mean Dice 0.8")
    assert joined.card.stand_ins == {}, "T2 has a network of its own"
    assert replace(joined.card, second_segmentation=None, stand_ins=first.card.stand_ins) == first.card
    for part, source in ((SEGMENTATION_PART, first), (PART, second)):
        found, expected = joined.get_tensors(part), source.get_tensors(SEGMENTATION_PART)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], tensor) for name, tensor in expected.items())
    assert np.array_equal(joined.tensors["prior"], first.tensors["prior"])


def test_each_part_gives_its_network(first: Weights, second: Weights, joined: Weights) -> None:
    image, theta = torch.randn(1, 2, 96, 96), torch.eye(2, 3)[None]
    for part, source in ((SEGMENTATION_PART, first), (PART, second)):
        expected = load_segmentation_network(source)(image, theta).logits
        assert torch.equal(load_segmentation_network(joined, part)(image, theta).logits, expected)
        network, _ = load_segmentation_engine(joined, engine="torch", part=part)
        np.testing.assert_allclose(
            network.run(image.numpy(), theta.numpy())[0], expected.detach().numpy(), atol=1e-5
        )


def test_joining_again_replaces_the_second_network(tmp_path: Path, joined: Weights) -> None:
    third = write_network(tmp_path / "third.safetensors", create_card(("T1C", "T1"), 2), 3)
    card, tensors = add_second_segmentation(joined, third, "")
    assert card.second_segmentation is not None and card.second_segmentation.sequences == ("T1C", "T1")
    expected = third.get_tensors(SEGMENTATION_PART)
    found = {name.partition("/")[2]: t for name, t in tensors.items() if name.startswith(f"{PART}/")}
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], tensor) for name, tensor in expected.items())


def test_networks_of_other_images_are_not_joined(first: Weights, second: Weights) -> None:
    other = replace(second, card=replace(second.card, preparation={"k": 10}))
    with pytest.raises(GliomarkError, match="prepares images in another way"):
        add_second_segmentation(first, other, "")


def test_a_file_without_a_second_network_is_written_as_before(first: Weights) -> None:
    assert PART not in to_card_record(first.card) and first.card.second_segmentation is None
    assert PART.encode() not in first.path.read_bytes()


def test_every_network_keeps_the_cohort_of_its_patients(
    tmp_path: Path, first: Weights, second: Weights
) -> None:
    own, other = (
        replace(one, card=replace(one.card, training_patients=("G0001",), training_cohort_id=name * 64))
        for one, name in ((first, "a"), (second, "b"))
    )
    path = tmp_path / "both.safetensors"
    save_weights(path, *add_second_segmentation(own, other, "not measured"))
    card = load_weights(path).card
    assert set(card.list_training_patients()) == {("G0001", "a" * 64), ("G0001", "b" * 64)}


def test_the_description_names_both_pairs(first: Weights, joined: Weights) -> None:
    text = describe_as_text(joined)
    assert "second segmentation   U-Net, joint: mean Dice 0.8" in text
    assert "of T1C + T2, if FLAIR is missing; no marker is predicted then" in text
    assert json.loads(describe_as_json(joined))["card"][PART]["sequences"] == ["T1C", "T2"]
    assert "second" not in describe_as_text(first) and PART not in json.loads(describe_as_json(first))["card"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda card: card[PART].update(sequences=["T1C", "FLAIR"]), ("T1C + FLAIR", "first pair")),
        (lambda card: card[PART].update(sequences=["FLAIR", "T1C"]), ("first pair",)),
        (lambda card: card[PART].update(sequences=["T2", "T2"]), ("T2 + T2", "twice")),
        (lambda card: card[PART].update(sequences=["T2"]), ("second_segmentation.sequences",)),
        (lambda card: card[PART].update(rule="majority"), ("second_segmentation.rule", "majority")),
        (lambda card: card[PART].update(colour=1), ("second_segmentation.colour",)),
        (lambda card: card[PART].pop("segmentation"), ("second_segmentation.segmentation",)),
        (lambda card: card.update({PART: 7}), ("second_segmentation",)),
        (lambda card: card.pop(PART), ("second_segmentation/",)),
    ],
)
def test_an_invalid_second_network_is_refused(
    joined: Weights, change: Callable[[dict[str, Any]], object], words: tuple[str, ...]
) -> None:
    card = json.loads(json.dumps(to_card_record(joined.card)))
    change(card)
    rewrite(joined.path, card)
    text = get_error_message(joined.path)
    assert all(word in text for word in words), text


def test_a_second_network_with_other_channels_is_refused(joined: Weights) -> None:
    card = json.loads(json.dumps(to_card_record(joined.card)))
    card[PART]["segmentation"]["context"] = 1
    rewrite(joined.path, card)
    with pytest.raises(GliomarkError, match=r"second_segmentation\.segmentation.*receives 6"):
        load_segmentation_network(load_weights(joined.path), PART)
