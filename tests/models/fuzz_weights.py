"""Mutated weights files, one after the other, in a process of its own: ``python fuzz_weights.py DOOR SEED COUNT``.

Every mutation gets past the hash. What is done next is written before it is done, so that whoever started this knows
what ended it. The last line counts the refused and the answered; any other exception ends it with a traceback.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tests.models.broken_weights import COLUMNS, TREES, as_bytes, packed, tiny, tree_text

from gliomark.models.card import read_card
from gliomark.models.trees import read_trees
from gliomark.models.weights import load_weights
from gliomark.pipeline import build_model
from gliomark.study import Clinical, GliomarkError, SliceStack

Random = np.random.Generator
WORDS = (
    b"0",
    b"-1",
    b"nan",
    b"inf",
    b"1e308",
    b"-1e308",
    b"999999999",
    b" ",
    b"\n",
    b"=",
    b"Tree=",
    b"{",
    b"null",
)


def mutated(content: bytes, random: Random) -> bytes:
    """A few bytes flipped, a piece cut out, doubled, moved or overwritten by a word, or the end cut off."""
    changed = bytearray(content)
    for _ in range(int(random.integers(1, 4))):
        place = int(random.integers(0, len(changed) + 1))
        piece = slice(place, place + int(random.integers(1, 60)))
        match int(random.integers(0, 6)):
            case 0 if place < len(changed):
                changed[place] ^= 1 << int(random.integers(0, 8))
            case 1:
                del changed[piece]
            case 2:
                changed[place:place] = changed[piece]
            case 3:
                word = WORDS[int(random.integers(0, len(WORDS)))]
                changed[place : place + len(word)] = word
            case 4:
                changed[piece] = random.bytes(len(changed[piece]))
            case 5 if random.random() < 0.1:
                del changed[place:]
    return bytes(changed)


def as_text(content: bytes) -> str:
    return content.decode("utf-8", "replace")


def try_file(random: Random, path: Path) -> None:
    """The bytes of the file, header and data, as they are."""
    card, tensors = tiny()
    path.write_bytes(mutated(packed(json.dumps(card), tensors), random))
    load_weights(path)


def try_card(random: Random, path: Path) -> None:
    card = as_text(mutated(json.dumps(tiny()[0]).encode(), random))
    read_card(path, card)


def try_trees(random: Random, path: Path) -> None:
    try:
        trees = read_trees(as_text(mutated(tree_text().encode(), random)), COLUMNS)
    except ValueError as error:
        raise GliomarkError(str(error)) from error
    table = random.normal(size=(50, COLUMNS)) * 3
    table[random.random(table.shape) < 0.2] = np.nan
    for contributions in (False, True):
        answer = np.asarray(trees.predict(table, pred_contrib=contributions, num_threads=1))
        assert np.isfinite(answer).all(), "the trees answer no number"


def try_model(random: Random, path: Path) -> None:
    """Card, trees and values of tensors under a right hash; what loads must answer with numbers, or say why not."""
    card, tensors = tiny()
    text = json.dumps(card)
    match int(random.integers(0, 4)):
        case 0:
            text = as_text(mutated(text.encode(), random))
        case 1:
            tensors[TREES] = as_bytes(as_text(mutated(tree_text().encode(), random)))
        case _:
            for name in random.choice(sorted(set(tensors) - {TREES}), int(random.integers(1, 5))):
                tensor = tensors[str(name)].clone().contiguous()
                flat = tensor.reshape(-1).view(torch.uint8)
                for place in random.integers(0, len(flat), int(random.integers(1, 40))):
                    flat[place] = int(random.integers(0, 256))
                tensors[str(name)] = tensor
    path.write_bytes(packed(text, tensors))
    model = build_model(load_weights(path))
    stack, mask = patient(random, model.sequences)
    found = model.segmenter.segment(stack)
    assert np.isfinite(found.probability).all()
    for classifier in model.classifiers.values():
        scored = classifier.score(stack, mask, Clinical("", 50.0, 1))
        assert np.isfinite(scored.probability).all() and np.isfinite(scored.parts).all()


def patient(random: Random, sequences: tuple) -> tuple[SliceStack, np.ndarray]:
    """Two slices of bright noise."""
    brain = np.zeros((2, 240, 240), bool)
    brain[:, 70:170, 70:170] = True
    mask = np.zeros_like(brain)
    mask[:, 90:120, 90:120] = True
    images = {n: np.where(brain, random.normal(2, 3, brain.shape), -3).astype(np.float32) for n in sequences}
    return SliceStack("", images, brain, np.eye(4), ("1", "2"), (0, 1)), mask


DOORS: dict[str, Callable[[Random, Path], None]] = {
    "file": try_file,
    "card": try_card,
    "trees": try_trees,
    "model": try_model,
}


def main(door: str, seed: int, count: int) -> None:
    refused = answered = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            print(f"{door} {seed} {number}", flush=True)
            try:
                DOORS[door](np.random.default_rng([seed, number]), Path(folder) / "a.safetensors")
                answered += 1
            except GliomarkError as error:
                assert error.message and "\n" not in error.message
                refused += 1
    print(f"refused {refused} answered {answered}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
