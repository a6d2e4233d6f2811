"""How fast a warm GPU answers, and what it could reach: a prepared patient to outline and markers' image vectors.

    python -m gpu.answer --pack cohort.zip --weights demonstration.safetensors --out OUT

Adds lines to ``OUT/answers.jsonl``. LightGBM's milliseconds on the processor are not in them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from gpu.pack import PackedPatient, read_pack
from torch import Tensor, nn
from torch.nn import functional as F

from gliomark.inference.segmenter import averaged, tile_theta, with_neighbours, without_specks
from gliomark.models.kinet import KiNetSettings, build_kinet, mix_input
from gliomark.models.marker_networks import build_marker_network, marker_network_settings
from gliomark.models.mignet import MIGNetSettings, build_mignet
from gliomark.models.segmentation_networks import build_segmentation_network, network_settings
from gliomark.models.weights import load_weights

SEQUENCES = ("T1C", "FLAIR")
SELECTED = 20
CROP = 224
GRAPH = "CUDA graph bf16"


class Recorded:
    """A network's call as a CUDA graph for inputs of one shape; the network itself without a GPU."""

    def __init__(self, call: Callable[..., Tensor | tuple[Tensor, ...]], *example: Tensor) -> None:
        self.call, self.given = call, [one.clone() for one in example]
        self.graph: torch.cuda.CUDAGraph | None = None
        if not example[0].is_cuda:
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                call(*self.given)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.answer = call(*self.given)

    def __call__(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        if self.graph is None:
            return self.call(*inputs)
        for own, new in zip(self.given, inputs, strict=True):
            own.copy_(new)
        self.graph.replay()
        return self.answer


def timed(call: Callable[[], object], repeats: int) -> dict[str, float]:
    """Median and 95th percentile in milliseconds, after two calls for warmth."""
    times = []
    for _ in range(repeats + 2):
        _wait()
        started = time.perf_counter()
        call()
        _wait()
        times.append(1000 * (time.perf_counter() - started))
    return {"median_ms": float(np.median(times[2:])), "p95_ms": float(np.percentile(times[2:], 95))}


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def in_bf16(call: Callable, device: torch.device, *inputs: Tensor):
    with torch.autocast(device.type, torch.bfloat16):
        return call(*inputs)


# ---- the shipped weights ------------------------------------------------------------------------------


class Shipped:
    """The demonstration weights on the device: outline, then both markers' vectors."""

    def __init__(self, path: Path, device: torch.device) -> None:
        weights = load_weights(path)
        self.how = weights.card.segmentation
        network = build_segmentation_network(network_settings(self.how["network"]))
        network.load_state_dict(weights.part("segmentation"))
        self.outliner, self.device = network.eval().to(device), device
        self.markers = [self._marker(weights, name, device) for name in weights.card.markers]
        self.crop = next(iter(weights.card.markers.values())).architecture["crop"]

    def _marker(self, weights, name: str, device: torch.device) -> nn.Module:
        tensors = weights.part(name)
        tensors.pop("lightgbm")
        record = weights.card.markers[name].architecture["network"]
        network = build_marker_network(marker_network_settings(record))
        network.load_state_dict(tensors)
        # as a list they could not be recorded in a graph
        network.channels = torch.tensor(network.channels, device=device)
        return network.eval().to(device)

    def outline(self, images: Tensor) -> Tensor:
        """``(S, C, tile, tile)`` with neighbours to the lesion's probability ``(S, tile, tile)``: both mirror images
        in one batch."""
        tile, part = images.shape[-1], averaged(images, self.how["pool"])
        theta = torch.eye(2, 3, device=images.device).expand(2 * len(part), -1, -1)
        logits = self.outliner(torch.cat([part, part.flip(-1)]), theta).logits.float()
        plain, mirrored = logits.chunk(2)
        mean = F.interpolate((plain + mirrored.flip(-1)) / 2, size=(tile, tile), mode="bilinear")
        return mean.softmax(dim=1)[:, 1]

    def vectors(self, mix: Tensor) -> tuple[Tensor, ...]:
        return tuple(network(mix)["vector"].float() for network in self.markers)


def shipped_answer(shipped: Shipped, patient: PackedPatient, outline: Callable, vectors: Callable) -> None:
    """From arrays on the processor to outline and vectors on the processor."""
    device, tile, crop = shipped.device, shipped.how["tile"], shipped.crop
    stack = torch.from_numpy(np.stack([patient.images[n] for n in SEQUENCES], axis=1)).to(device).float()
    probability = outline(_middle(with_neighbours(stack, shipped.how["context"]), tile))
    voxel_ml = float(np.prod(patient.facts.spacing_mm)) / 1000
    found = probability.cpu().numpy()
    mask = without_specks(np.where(found >= 0.5, found, 0), 0.5 / voxel_ml, shipped.how["smallest_share"])
    lesion = F.pad(torch.from_numpy(mask).to(device), [(240 - tile) // 2] * 4).float()
    seen, area = _middle(stack, crop), _middle(lesion[:, None], crop)[:, 0]
    for vector in vectors(mix_input(seen[:, 0], seen[:, 1], area)):
        vector.cpu()


def _middle(images: Tensor, side: int) -> Tensor:
    margin = (images.shape[-1] - side) // 2
    return images[..., margin : margin + side, margin : margin + side]


def measure_shipped(
    patient: PackedPatient, weights: Path, device: torch.device, repeats: int
) -> Iterator[dict]:
    """Eager in single precision, in bf16, and bf16 as CUDA graphs."""
    shipped = Shipped(weights, device)
    count, tile = patient.facts.slices, shipped.how["tile"]
    channels = len(SEQUENCES) * (2 * shipped.how["context"] + 1)
    images = torch.randn(count, channels, tile, tile, device=device)
    mix = torch.randn(count, 2 * len(SEQUENCES), shipped.crop, shipped.crop, device=device)
    ways = {
        "eager fp32": (shipped.outline, shipped.vectors),
        "eager bf16": (partial(in_bf16, shipped.outline, device), partial(in_bf16, shipped.vectors, device)),
    }
    outline, vectors = ways["eager bf16"]
    for way in (*ways, GRAPH):
        outline, vectors = ways.get(way) or (Recorded(outline, images), Recorded(vectors, mix))
        found = timed(partial(shipped_answer, shipped, patient, outline, vectors), repeats)
        yield {"what": "shipped weights, prepared patient to answer", "way": way, "slices": count, **found}


# ---- the published size -------------------------------------------------------------------------------


def published(device: torch.device) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """MIG-Net on either sequence, OR, MIX, KiNet for two markers (random weights): ``(S, 2, 224, 224)``."""
    outliner = build_mignet(MIGNetSettings(), torch.rand(240, 240)).eval().to(device)
    markers = [build_kinet(KiNetSettings()).eval().to(device) for _ in range(2)]
    margin = (240 - CROP) // 2
    theta = tile_theta(margin, margin, CROP, 240, 240).to(device)

    def answer(images: Tensor) -> tuple[Tensor, ...]:
        flat = images.transpose(0, 1).flatten(0, 1)[:, None]
        lesion = outliner(flat, theta.expand(len(flat), -1, -1)).logits.argmax(dim=1)
        either = lesion.unflatten(0, (2, -1)).amax(dim=0).float()
        mix = mix_input(images[:, 0], images[:, 1], either)
        return either, *(network.answer(mix)["vector"].float() for network in markers)

    return answer


def measure_published(patient: PackedPatient, device: torch.device, repeats: int) -> Iterator[dict]:
    """As ``measure_shipped``, on twenty slices."""
    answer = published(device)
    stack = np.stack([patient.images[n][:SELECTED] for n in SEQUENCES], axis=1)
    images = _middle(torch.from_numpy(stack).float(), CROP).contiguous()
    half = partial(in_bf16, answer, device)
    ways = {"eager fp32": answer, "eager bf16": half}

    def whole(call: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
        for part in call(images.to(device)):
            part.cpu()

    what = "MIG-Net and KiNet of published size, two sequences, two markers (random weights)"
    for way in (*ways, GRAPH):
        call = ways.get(way) or Recorded(half, images.to(device))
        yield {"what": what, "way": way, "slices": len(images), **timed(partial(whole, call), repeats)}


def measure_ceilings(device: torch.device, side: int) -> Iterator[dict]:
    """What a large matrix product and a large copy reach here."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    product = timed(lambda: [a @ b for _ in range(10)], 5)["median_ms"] / 10
    yield {"what": "bf16 matrix product", "way": f"{side} x {side}", "tflops": 2 * side**3 / product / 1e9}
    source = torch.randn(side * side * 4, device=device)
    target = torch.empty_like(source)
    copy = timed(lambda: [target.copy_(source) for _ in range(10)], 5)["median_ms"] / 10
    yield {"what": "copy on the device", "way": "fp32", "gb_per_second": 2 * source.nbytes / copy / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--pack", "--weights", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--side", type=int, default=8192)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    patient = next(p for p in read_pack(options.pack, SEQUENCES, 12, both=True) if p.facts.slices >= 24)
    options.out.mkdir(parents=True, exist_ok=True)
    measures = (
        measure_ceilings(device, options.side),
        measure_shipped(patient, options.weights, device, options.repeats),
        measure_published(patient, device, options.repeats),
    )
    with torch.inference_mode():
        for row in itertools.chain(*measures):
            # each as it comes: a run may be cut off
            print(json.dumps(row), flush=True)
            with (options.out / "answers.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
