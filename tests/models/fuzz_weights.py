"""Load mutated weights files in a separate process: ``python fuzz_weights.py TARGET SEED COUNT``.

Every mutation has a valid hash. Each attempt is printed before it starts, so that the parent process can identify the
one that terminated this process. The last line counts refused and accepted files; any other exception ends with a
traceback.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tests.models.broken_weights import (
    COLUMNS,
    TREES,
    copy_tiny_model,
    create_tree_text,
    encode_tensor,
    pack_weights,
)

from gliomark.errors import GliomarkError
from gliomark.model_loading import build_model
from gliomark.models.card import parse_card
from gliomark.models.lightgbm_trees import parse_trees
from gliomark.models.weights import load_weights
from gliomark.study import ClinicalData, SliceStack

Random = np.random.Generator
INVALID_WORDS = (
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


def mutate(content: bytes, random: Random) -> bytes:
    """Flip, remove, duplicate or overwrite a few bytes, or truncate the content."""
    changed = bytearray(content)
    for _ in range(int(random.integers(1, 4))):
        position = int(random.integers(0, len(changed) + 1))
        piece = slice(position, position + int(random.integers(1, 60)))
        match int(random.integers(0, 6)):
            case 0 if position < len(changed):
                changed[position] ^= 1 << int(random.integers(0, 8))
            case 1:
                del changed[piece]
            case 2:
                changed[position:position] = changed[piece]
            case 3:
                word = INVALID_WORDS[int(random.integers(0, len(INVALID_WORDS)))]
                changed[position : position + len(word)] = word
            case 4:
                changed[piece] = random.bytes(len(changed[piece]))
            case 5 if random.random() < 0.1:
                del changed[position:]
    return bytes(changed)


def decode_text(content: bytes) -> str:
    return content.decode("utf-8", "replace")


def fuzz_file(random: Random, path: Path) -> None:
    """Mutate the bytes of the file, header and data, without updating the hash."""
    card, tensors = copy_tiny_model()
    path.write_bytes(mutate(pack_weights(json.dumps(card), tensors), random))
    load_weights(path)


def fuzz_card(random: Random, path: Path) -> None:
    card = decode_text(mutate(json.dumps(copy_tiny_model()[0]).encode(), random))
    parse_card(path, card)


def fuzz_trees(random: Random, path: Path) -> None:
    try:
        trees = parse_trees(decode_text(mutate(create_tree_text().encode(), random)), COLUMNS)
    except ValueError as error:
        raise GliomarkError(str(error)) from error
    table = random.normal(size=(50, COLUMNS)) * 3
    table[random.random(table.shape) < 0.2] = np.nan
    for contributions in (False, True):
        answer = np.asarray(trees.predict(table, pred_contrib=contributions, num_threads=1))
        assert np.isfinite(answer).all(), "the trees' prediction is not finite"


def fuzz_model(random: Random, path: Path) -> None:
    """Mutate card, trees or tensors with a valid hash; a model that loads must predict finite numbers or be refused."""
    card, tensors = copy_tiny_model()
    text = json.dumps(card)
    match int(random.integers(0, 4)):
        case 0:
            text = decode_text(mutate(text.encode(), random))
        case 1:
            tensors[TREES] = encode_tensor(decode_text(mutate(create_tree_text().encode(), random)))
        case _:
            for name in random.choice(sorted(set(tensors) - {TREES}), int(random.integers(1, 5))):
                tensor = tensors[str(name)].clone().contiguous()
                raw_bytes = tensor.reshape(-1).view(torch.uint8)
                for position in random.integers(0, len(raw_bytes), int(random.integers(1, 40))):
                    raw_bytes[position] = int(random.integers(0, 256))
                tensors[str(name)] = tensor
    path.write_bytes(pack_weights(text, tensors))
    model = build_model(load_weights(path))
    stack, mask = create_noise_stack(random, model.sequences)
    segmentation = model.segmenter.segment(stack)
    assert np.isfinite(segmentation.probability).all()
    for classifier in model.classifiers.values():
        scored = classifier.score(stack, mask, ClinicalData("", 50.0, 1))
        assert np.isfinite(scored.probability).all() and np.isfinite(scored.contributions).all()


def create_noise_stack(random: Random, sequences: tuple) -> tuple[SliceStack, np.ndarray]:
    """Create a patient with two slices of bright noise."""
    brain = np.zeros((2, 240, 240), bool)
    brain[:, 70:170, 70:170] = True
    mask = np.zeros_like(brain)
    mask[:, 90:120, 90:120] = True
    images = {n: np.where(brain, random.normal(2, 3, brain.shape), -3).astype(np.float32) for n in sequences}
    return SliceStack("", images, brain, np.eye(4), ("1", "2"), (0, 1)), mask


TARGETS: dict[str, Callable[[Random, Path], None]] = {
    "file": fuzz_file,
    "card": fuzz_card,
    "trees": fuzz_trees,
    "model": fuzz_model,
}


def main(target: str, seed: int, count: int) -> None:
    refused = loaded = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            print(f"{target} {seed} {number}", flush=True)
            try:
                TARGETS[target](np.random.default_rng([seed, number]), Path(folder) / "a.safetensors")
                loaded += 1
            except GliomarkError as error:
                assert error.message and "\n" not in error.message
                refused += 1
    print(f"refused {refused} answered {loaded}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
