"""Synthetic T2 images from FLAIR and T1C, drawn anew for every view: few patients have T2 and a lesion mask.

Fluid is dark on FLAIR and on T1, and bright on T2; tissue has much the same contrast on FLAIR and T2. A pixel that is
dark on both becomes fluid to the degree ``w``, and everything else keeps FLAIR's contrast, changed at random:

    tissue = a f + e a max(f - l, 0) - c t,    T2 = (1 - w) tissue + w (h + k f)

with f and t the z-scores of FLAIR and T1C. Bone, air and the edge of the brain are dark on every sequence and never
become fluid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from gliomark.inference.segmenter import add_neighbour_slices
from gliomark.training.process_group import draw_share
from gliomark.training.slice_dataset import SliceDataset

# codes of a synthesis region
UNCHANGED, BACKGROUND, EDGE, INTERIOR = 0, 1, 2, 3
EDGE_PIXELS = 3  # this near to the edge of the brain, darkness is bone, air or partial volume
# range of each random number, one draw per view; "dark" and "width": where and how softly an image counts as dark
PARAMETER_RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "flair_dark": (-1.2, -0.2),
        "flair_width": (0.2, 0.5),
        "t1c_dark": (-1.3, -0.3),
        "t1c_width": (0.2, 0.5),
        "contrast": (0.25, 0.8),  # a
        "bright_contrast": (-0.3, 1.0),  # e
        "bright_from": (0.8, 1.5),  # l
        "t1c_share": (0.0, 0.35),  # c
        "fluid": (2.0, 5.0),  # h
        "fluid_contrast": (0.0, 0.25),  # k
        "background": (-3.5, -1.5),  # of prepared T2
    }
)


def create_synthesis_region(brain: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the code of every pixel of brain masks ``(slice, row, column)``: background, edge or interior."""
    inside = np.array([ndimage.distance_transform_edt(one) > EDGE_PIXELS for one in brain])
    return np.where(brain, np.where(inside, INTERIOR, EDGE), BACKGROUND).astype(np.uint8)


def add_synthesis_region(
    slice_dataset: SliceDataset, brains: Sequence[NDArray[np.bool_]], neighbour_slices: int
) -> SliceDataset:
    """Mark all slices of a data set of T1C and FLAIR for synthesis.

    brains: mask ``(slice, row, column)`` of every patient, in the order of the slices; neighbour_slices: as for the
    images.
    """
    regions = [
        add_neighbour_slices(create_synthesis_region(brain)[:, None], neighbour_slices) for brain in brains
    ]
    return replace(slice_dataset, synthesis_region=torch.from_numpy(np.concatenate(regions)))


def replace_by_synthetic_t2(image: Tensor, region: Tensor) -> Tensor:
    """Replace FLAIR by a synthetic T2.

    Parameters
    ----------
    image
        T1C and FLAIR as z-scores, each with its neighbouring slices: ``(B, 2 K, H, W)``.
    region
        uint8 ``(B, K, H, W)`` from ``create_synthesis_region``; where it is 0 the image is kept, so that a batch may
        also hold real T2.

    Returns
    -------
    Tensor
        T1C and T2, ``(B, 2 K, H, W)``.
    """
    t1c, flair = image.float().chunk(2, dim=1)
    t2 = torch.where(region == UNCHANGED, flair, draw_synthetic_t2(t1c, flair, region))
    return torch.cat([t1c, t2], dim=1)


def draw_synthetic_t2(t1c: Tensor, flair: Tensor, region: Tensor) -> Tensor:
    """Draw a T2 for T1C and FLAIR, all ``(B, K, H, W)``, with one set of random numbers per sample."""
    drawn = draw_share(
        lambda count: torch.rand(count, len(PARAMETER_RANGES), device=flair.device), len(flair)
    )
    p = {
        name: (low + (high - low) * drawn[:, index])[:, None, None, None]
        for index, (name, (low, high)) in enumerate(PARAMETER_RANGES.items())
    }
    is_dark = torch.sigmoid((p["flair_dark"] - flair) / p["flair_width"])
    fluid = is_dark * torch.sigmoid((p["t1c_dark"] - t1c) / p["t1c_width"]) * (region == INTERIOR)
    bright = (flair - p["bright_from"]).clamp(min=0)
    tissue = p["contrast"] * (flair + p["bright_contrast"] * bright) - p["t1c_share"] * t1c
    t2 = (1 - fluid) * tissue + fluid * (p["fluid"] + p["fluid_contrast"] * flair)
    return torch.where(region > BACKGROUND, t2, p["background"])
