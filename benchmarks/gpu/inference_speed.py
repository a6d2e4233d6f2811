"""Inference time on a warm GPU, from a prepared patient to segmentation and marker vectors, and peak throughput.

    python -m gpu.inference_speed --pack cohort.zip --weights demonstration.safetensors --out OUT

Appends lines to ``OUT/answers.jsonl``. The few milliseconds of LightGBM on the CPU are not included.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from gpu.packed_cohort import PackedPatient, read_pack
from torch import Tensor, nn
from torch.nn import functional as F

from gliomark.inference.segmenter import (
    add_neighbour_slices,
    compute_theta,
    remove_small_components,
)
from gliomark.models.network_io import build_mix_input, downsample_by_averaging
from gliomark.models.published.kinet import KiNetSettings, build_kinet
from gliomark.models.published.mignet import MIGNetSettings, build_mignet
from gliomark.models.registry import (
    build_marker_network,
    build_segmentation_network,
    parse_marker_settings,
    parse_segmentation_settings,
)
from gliomark.models.weights import load_weights

SEQUENCES = ("T1C", "FLAIR")
SELECTED = 20
CROP = 224
GRAPH = "CUDA graph bf16"


class Recorded:
    """Call of a network recorded as a CUDA graph for inputs of one shape; an ordinary call without a GPU."""

    def __init__(self, call: Callable[..., Tensor | tuple[Tensor, ...]], *example: Tensor) -> None:
        self.call, self.static_inputs = call, [one.clone() for one in example]
        self.graph: torch.cuda.CUDAGraph | None = None
        if not example[0].is_cuda:
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                call(*self.static_inputs)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.static_output = call(*self.static_inputs)

    def __call__(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        if self.graph is None:
            return self.call(*inputs)
        for static_input, new in zip(self.static_inputs, inputs, strict=True):
            static_input.copy_(new)
        self.graph.replay()
        return self.static_output


def measure_time(call: Callable[[], object], repeats: int) -> dict[str, float]:
    """Measure the median and 95th percentile of a call in milliseconds, after two warm-up calls."""
    times = []
    for _ in range(repeats + 2):
        _synchronise()
        started = time.perf_counter()
        call()
        _synchronise()
        times.append(1000 * (time.perf_counter() - started))
    return {"median_ms": float(np.median(times[2:])), "p95_ms": float(np.percentile(times[2:], 95))}


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def call_in_bf16(call: Callable, device: torch.device, *inputs: Tensor):
    """Call under bfloat16 autocast."""
    with torch.autocast(device.type, torch.bfloat16):
        return call(*inputs)


# ---- shipped weights ----------------------------------------------------------------------------------


class ShippedModel:
    """Networks of the demonstration weights on the device: segmentation, and vectors of both markers."""

    def __init__(self, path: Path, device: torch.device) -> None:
        weights = load_weights(path)
        self.segmentation_settings = weights.card.segmentation
        network = build_segmentation_network(parse_segmentation_settings(self.segmentation_settings.network))
        network.load_state_dict(_to_tensors(weights.get_tensors("segmentation")))
        self.segmentation_network, self.device = network.eval().to(device), device
        self.markers = [self._build_marker_network(weights, name, device) for name in weights.card.markers]
        self.crop = next(iter(weights.card.markers.values())).architecture.crop

    def _build_marker_network(self, weights, name: str, device: torch.device) -> nn.Module:
        tensors = weights.get_tensors(name)
        tensors.pop("lightgbm")
        record = weights.card.markers[name].architecture.network
        network = build_marker_network(parse_marker_settings(record))
        network.load_state_dict(_to_tensors(tensors))
        # a CUDA graph cannot record indexing with a list
        network.channels = torch.tensor(network.channels, device=device)
        return network.eval().to(device)

    def segment(self, images: Tensor) -> Tensor:
        """Compute the lesion probability ``(slice, tile, tile)`` of images ``(slice, C, tile, tile)``.

        The channels include neighbouring slices; the image and its mirror image are in one batch.
        """
        tile, part = images.shape[-1], downsample_by_averaging(images, self.segmentation_settings.pool)
        theta = torch.eye(2, 3, device=images.device).expand(2 * len(part), -1, -1)
        logits = self.segmentation_network(torch.cat([part, part.flip(-1)]), theta).logits.float()
        plain, mirrored = logits.chunk(2)
        mean = F.interpolate((plain + mirrored.flip(-1)) / 2, size=(tile, tile), mode="bilinear")
        return mean.softmax(dim=1)[:, 1]

    def compute_vectors(self, mix: Tensor) -> tuple[Tensor, ...]:
        """Compute the vectors ``(slice, F)`` of each marker from the input ``(slice, C, crop, crop)``."""
        return tuple(network(mix)["image_vector"].float() for network in self.markers)


def run_shipped_model(
    shipped: ShippedModel, patient: PackedPatient, segment: Callable, compute_vectors: Callable
) -> None:
    """Run the shipped networks, from arrays in CPU memory to segmentation and vectors in CPU memory."""
    device, tile, crop = shipped.device, shipped.segmentation_settings.tile, shipped.crop
    images = np.stack([patient.images[n] for n in SEQUENCES], axis=1)
    stack = torch.from_numpy(images).to(device).float()
    channels = torch.from_numpy(add_neighbour_slices(images, shipped.segmentation_settings.context))
    probability = segment(_crop_centre(channels.to(device).float(), tile))
    voxel_ml = float(np.prod(patient.record.spacing_mm)) / 1000
    probability_array = probability.cpu().numpy()
    mask = remove_small_components(
        np.where(probability_array >= 0.5, probability_array, 0),
        0.5 / voxel_ml,
        shipped.segmentation_settings.smallest_share,
    )
    lesion = F.pad(torch.from_numpy(mask).to(device), [(240 - tile) // 2] * 4).float()
    cropped_images, area = _crop_centre(stack, crop), _crop_centre(lesion[:, None], crop)[:, 0]
    for vector in compute_vectors(build_mix_input(cropped_images[:, 0], cropped_images[:, 1], area)):
        vector.cpu()


def _to_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def _crop_centre(images: Tensor, side: int) -> Tensor:
    margin = (images.shape[-1] - side) // 2
    return images[..., margin : margin + side, margin : margin + side]


def measure_shipped(
    patient: PackedPatient, weights: Path, device: torch.device, repeats: int
) -> Iterator[dict]:
    """Measure the shipped networks in eager mode with fp32 and bf16, and as CUDA graphs with bf16."""
    shipped = ShippedModel(weights, device)
    count, tile = patient.record.slices, shipped.segmentation_settings.tile
    channels = len(SEQUENCES) * (2 * shipped.segmentation_settings.context + 1)
    images = torch.randn(count, channels, tile, tile, device=device)
    mix = torch.randn(count, 2 * len(SEQUENCES), shipped.crop, shipped.crop, device=device)
    calls_by_mode = {
        "eager fp32": (shipped.segment, shipped.compute_vectors),
        "eager bf16": (
            partial(call_in_bf16, shipped.segment, device),
            partial(call_in_bf16, shipped.compute_vectors, device),
        ),
    }
    outline, vectors = calls_by_mode["eager bf16"]
    for mode in (*calls_by_mode, GRAPH):
        outline, vectors = calls_by_mode.get(mode) or (Recorded(outline, images), Recorded(vectors, mix))
        times = measure_time(partial(run_shipped_model, shipped, patient, outline, vectors), repeats)
        yield {"what": "shipped weights, prepared patient to answer", "way": mode, "slices": count, **times}


# ---- published size -----------------------------------------------------------------------------------


def build_published_model(device: torch.device) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Build the published model with random weights, as a function of images ``(slice, 2, 224, 224)``.

    MIG-Net on each of two sequences, union of the masks, MIX input, KiNet for two markers.
    """
    outliner = build_mignet(MIGNetSettings(), torch.rand(240, 240)).eval().to(device)
    markers = [build_kinet(KiNetSettings()).eval().to(device) for _ in range(2)]
    margin = (240 - CROP) // 2
    inner = range(margin, margin + CROP)
    theta = torch.from_numpy(compute_theta(inner, inner, 240, 240)).to(device)

    def run_model(images: Tensor) -> tuple[Tensor, ...]:
        flat = images.transpose(0, 1).flatten(0, 1)[:, None]
        lesion = outliner(flat, theta.expand(len(flat), -1, -1)).logits.argmax(dim=1)
        either = lesion.unflatten(0, (2, -1)).amax(dim=0).float()
        mix = build_mix_input(images[:, 0], images[:, 1], either)
        return either, *(network.predict(mix)["image_vector"].float() for network in markers)

    return run_model


def measure_published(patient: PackedPatient, device: torch.device, repeats: int) -> Iterator[dict]:
    """Measure the model of published size as in ``measure_shipped``, on 20 slices."""
    answer = build_published_model(device)
    stack = np.stack([patient.images[n][:SELECTED] for n in SEQUENCES], axis=1)
    images = _crop_centre(torch.from_numpy(stack).float(), CROP).contiguous()
    half = partial(call_in_bf16, answer, device)
    calls_by_mode = {"eager fp32": answer, "eager bf16": half}

    def run_and_copy_back(call: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
        for part in call(images.to(device)):
            part.cpu()

    what = "MIG-Net and KiNet of published size, two sequences, two markers (random weights)"
    for mode in (*calls_by_mode, GRAPH):
        call = calls_by_mode.get(mode) or Recorded(half, images.to(device))
        yield {
            "what": what,
            "way": mode,
            "slices": len(images),
            **measure_time(partial(run_and_copy_back, call), repeats),
        }


def measure_ceilings(device: torch.device, side: int) -> Iterator[dict]:
    """Measure the throughput of a large matrix product and of a large copy."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    product = measure_time(lambda: [a @ b for _ in range(10)], 5)["median_ms"] / 10
    yield {"what": "bf16 matrix product", "way": f"{side} x {side}", "tflops": 2 * side**3 / product / 1e9}
    source = torch.randn(side * side * 4, device=device)
    target = torch.empty_like(source)
    copy = measure_time(lambda: [target.copy_(source) for _ in range(10)], 5)["median_ms"] / 10
    yield {"what": "copy on the device", "way": "fp32", "gb_per_second": 2 * source.nbytes / copy / 1e6}


def main() -> None:
    """Run all measurements and append their results to ``answers.jsonl``."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--pack", "--weights", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--side", type=int, default=8192)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    patient = next(
        p
        for p in read_pack(options.pack, SEQUENCES, 12, requires_all_sequences=True)
        if p.record.slices >= 24
    )
    options.out.mkdir(parents=True, exist_ok=True)
    measures = (
        measure_ceilings(device, options.side),
        measure_shipped(patient, options.weights, device, options.repeats),
        measure_published(patient, device, options.repeats),
    )
    with torch.inference_mode():
        for row in itertools.chain(*measures):
            # written at once, because a run may be interrupted
            print(json.dumps(row), flush=True)
            with (options.out / "answers.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
