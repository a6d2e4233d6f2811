"""Find the brain in a head image with the two networks of deepbet (Fisch et al. 2024, MIT licence).

The first network finds the brain's box in the whole image at 128 voxels per axis; the second segments the box at 256.
The steps around the networks are those of deepbet 1.0. The networks are shipped as OpenVINO graphs, which
``scripts/export_graphs.py`` writes from deepbet's package; with PyTorch as the engine, the package itself is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from importlib.metadata import distribution
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliomark.engines import EngineNetwork, NetworkSource, load_network

if TYPE_CHECKING:
    import openvino
    from torch import nn

GRAPH_FOLDER = "preprocessing/deepbet"
COARSE_SIDE, FINE_SIDE = 128, 256  # voxels
BOX_MARGIN = np.float32(0.1)  # of the box's size, on each side
MIN_PLANE_SHARE = 0.02  # planes with less brain lie outside the box
LOW_QUANTILE, HIGH_QUANTILE = 0.005, 0.995
TARGET_STANDARD_DEVIATION, TARGET_MEAN = 0.226, 0.449
TOLERANCE = 2e-3  # of a probability, at the few voxels where it is steepest

T = TypeVar("T", np.float32, np.bool_)
FloatArray = NDArray[np.float32]
Mask = NDArray[np.bool_]
Box = tuple[slice, slice, slice]


def segment_brain(head: FloatArray) -> Mask:
    """Segment the brain; head: image of a whole head, its axes from left to right, back to front and bottom to top.

    Raises
    ------
    ValueError
        If the image is uniform, or no brain is found.
    """
    coarse = np.nan_to_num(_resample_nearest(head, (COARSE_SIDE,) * 3), copy=False)
    low, high = np.quantile(coarse, (LOW_QUANTILE, HIGH_QUANTILE)).astype(np.float32)
    if not low < high:
        raise ValueError("the image is uniform")
    coarse_mask = _keep_largest_component(_predict_brain("bbox_model", coarse, low, high))
    box = _compute_box(coarse_mask, head.shape)
    fine = np.nan_to_num(_resample_nearest(head[box], (FINE_SIDE,) * 3), copy=False)
    fine_mask = _predict_brain("model", fine, low, high)
    mask = np.zeros(head.shape, bool)
    mask[box] = fill_holes(_keep_largest_component(_resample_nearest(fine_mask, mask[box].shape)))
    return mask


def _predict_brain(network_name: str, image: FloatArray, low: np.float32, high: np.float32) -> Mask:
    """Predict which voxels of a cubic image belong to the brain; the image's values are changed."""
    values = np.clip(image, low, high, out=image)
    values -= low
    values /= high - low
    values -= np.float32(values.mean(dtype=np.float64))
    values /= np.float32(np.sqrt(np.vdot(values, values) / (values.size - 1)))
    values *= np.float32(TARGET_STANDARD_DEVIATION)
    values += np.float32(TARGET_MEAN)
    # not kept: a network holds a hundred megabytes and takes less than a second to load
    network = _load_deepbet_network(network_name, len(image))
    (probability,) = network.run(values[None, None])
    network.release_memory()
    return np.asarray(probability[0] > 0.5)


def _load_deepbet_network(name: str, side: int) -> EngineNetwork:
    topology, constants = (
        (resources.files("gliomark") / GRAPH_FOLDER / f"{name}.{kind}").read_bytes()
        for kind in ("xml", "bin")
    )

    def read_graph() -> openvino.Model:
        from gliomark.engines.openvino_library import openvino

        return openvino.Core().read_model(topology, constants)

    source = NetworkSource(
        f"deepbet-{name}",
        f"brain probability of {hashlib.sha256(topology + constants).hexdigest()}",
        lambda: build_deepbet_network(name),
        lambda: [create_example_head(side)],
        TOLERANCE,
        read_graph=read_graph,
    )
    return load_network(source)


def build_deepbet_network(name: str) -> nn.Module:
    """Build a network of deepbet's package in PyTorch: "bbox_model" at 128 voxels per axis, "model" at 256.

    It returns the brain's probability ``(1, side, side, side)`` of an image ``(1, 1, side, side, side)``.

    Raises
    ------
    ModuleNotFoundError
        If PyTorch or deepbet is not installed.
    """
    import torch

    file = distribution("deepbet").locate_file(f"data/models/{name}.pt")

    class BrainProbability(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = torch.jit.load(str(file))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            probability: torch.Tensor = self.network(image)[:, 1]
            return probability

    # compiled, so that a conversion does not have to run it on the whole volume
    scripted: nn.Module = torch.jit.script(BrainProbability().eval())
    return scripted


def create_example_head(side: int) -> FloatArray:
    """Create a normalised image ``(1, 1, side, side, side)`` of a bright ball, the brain, in a bright shell."""
    position = np.linspace(-1, 1, side, dtype=np.float32)
    radius = np.sqrt(position[:, None, None] ** 2 + position[:, None] ** 2 + position**2)
    texture = (
        0.1 * np.sin(20 * position[:, None, None]) * np.cos(16 * position[:, None]) * np.sin(12 * position)
    )
    head = (0.7 + texture) * (radius < 0.7) + 0.9 * ((radius > 0.8) & (radius < 0.9))
    normalised = TARGET_STANDARD_DEVIATION * (head - head.mean()) / head.std() + TARGET_MEAN
    example: FloatArray = normalised.astype(np.float32)[None, None]
    return example


def _resample_nearest(image: NDArray[T], shape: Sequence[int]) -> NDArray[T]:
    """Take the nearest voxel, by the centres of the voxels."""
    indices = []
    for old, new in zip(image.shape, shape, strict=True):
        centres = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * np.float32(old / new)
        indices.append(np.minimum(centres.astype(int), old - 1))
    return image[np.ix_(*indices)]


def _compute_box(coarse_mask: Mask, shape: Sequence[int]) -> Box:
    """Compute the brain's box with its margin in the image of this shape. Raises ValueError for an empty mask."""
    box = []
    for axis, length in enumerate(shape):
        share = coarse_mask.mean(axis=tuple({0, 1, 2} - {axis}))
        planes = np.flatnonzero(share > MIN_PLANE_SHARE)
        if not len(planes):
            raise ValueError("no brain in the whole image")
        first, end = np.float32(planes[0]), np.float32(planes[-1] + 1)
        scale = np.float32(length / coarse_mask.shape[axis])
        centre = np.round(scale * ((end + first) / 2))
        size = np.round((1 + 2 * BOX_MARGIN) * (scale * (end - first)))
        box.append(slice(max(0, int(centre - size / 2)), min(length, int(centre + size / 2))))
    return box[0], box[1], box[2]


def _keep_largest_component(mask: Mask) -> Mask:
    """Keep the largest component, whose voxels touch at faces, edges or corners. Raises ValueError if there is none."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if not count:
        raise ValueError("no brain in the image")
    if count == 1:
        return mask
    sizes = np.bincount(labels[mask])
    return np.asarray(labels == sizes.argmax())


def fill_holes(mask: Mask) -> Mask:
    """Fill the background that is not connected with the border of the image, through faces of voxels."""
    box = _find_foreground_box(mask)
    labels, _ = ndimage.label(~np.pad(mask[box], 1))
    filled = mask.copy()
    filled[box] = (labels != labels[0, 0, 0])[1:-1, 1:-1, 1:-1]
    return filled


def _find_foreground_box(mask: Mask) -> Box:
    """Find the smallest box around a mask; the empty box if it is empty."""
    box = []
    for axis in range(3):
        planes = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        box.append(slice(int(planes[0]), int(planes[-1]) + 1) if len(planes) else slice(0, 0))
    return box[0], box[1], box[2]
