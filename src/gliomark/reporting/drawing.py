"""Slice images of the report: one stack slice with lesion outline, side markers and scale bar."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from gliomark.study import MRSequence, SliceStack

SEGMENTATION_COLOUR = (255, 214, 10)
HALO_COLOUR = (0, 0, 0)  # the dark line keeps the outline visible on a bright lesion and in greyscale print
ANNOTATION_COLOUR = (235, 235, 235)
MARGIN_MM = 7.0
GAMMA = 0.75  # brightens normal brain beside a bright lesion without clipping the lesion


@dataclass(frozen=True)
class Crop:
    """The part of a slice that contains the brain, in pixels; ``bottom`` and ``right`` are exclusive."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True, eq=False)
class SliceCanvas:
    """Crop and grey windows shared by all slice images of one patient, so that the images are comparable.

    lesion_probability: ``(slice, row, column)``; the outline is drawn at 0.5. grey_windows: black and white level.
    """

    stack: SliceStack
    lesion_probability: NDArray[np.float32]
    crop: Crop
    grey_windows: Mapping[MRSequence, tuple[float, float]]


def create_slice_canvas(
    stack: SliceStack, lesion_probability: NDArray[np.float32], sequences: Sequence[MRSequence]
) -> SliceCanvas:
    """Compute crop and grey windows of a patient; lesion_probability: ``(slice, row, column)``."""
    grey_windows = {name: compute_grey_window(stack.images[name], stack.brain) for name in sequences}
    return SliceCanvas(stack, lesion_probability, compute_brain_crop(stack), grey_windows)


def compute_brain_crop(stack: SliceStack) -> Crop:
    """Compute the extent of the brain over all slices plus a margin for the annotations."""
    margin = round(MARGIN_MM / compute_pixel_size_mm(stack))
    (top, bottom) = _compute_extent(np.asarray(stack.brain.any(axis=(0, 2))), margin)
    (left, right) = _compute_extent(np.asarray(stack.brain.any(axis=(0, 1))), margin)
    return Crop(top, bottom, left, right)


def compute_grey_window(image: NDArray[np.float32], brain: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the grey values drawn as black and as white.

    They span the 1st to 99.6th percentile of the brain, with the darkest brain just above black.
    ``image`` and ``brain``: ``(slice, row, column)``.
    """
    values = image[brain] if brain.any() else image.ravel()
    low, high = np.percentile(values, [1.0, 99.6])
    return float(low - 0.08 * (high - low)), float(max(high, low + 1e-6))


def draw_slice(canvas: SliceCanvas, sequence: MRSequence, index: int, width: int) -> Image.Image:
    """Draw one slice ``width`` pixels wide in radiological convention: the patient's right on the image's left."""
    crop, (low, high) = canvas.crop, canvas.grey_windows[sequence]
    size = (width, round(width * (crop.bottom - crop.top) / (crop.right - crop.left)))
    scaled = np.clip((canvas.stack.images[sequence][index] - low) / (high - low), 0.0, 1.0)
    grey = _resize_plane(np.where(canvas.stack.brain[index], scaled**GAMMA, 0.0), crop, size)
    rgb = np.repeat(np.clip(grey * 255.0, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    _draw_contour(rgb, _resize_plane(canvas.lesion_probability[index], crop, size) >= 0.5, width)
    image = Image.fromarray(rgb)
    _draw_annotations(image, width / (crop.right - crop.left) / compute_pixel_size_mm(canvas.stack))
    return image


def draw_heatmap(
    canvas: SliceCanvas, sequence: MRSequence, index: int, heatmap: NDArray[np.float32], width: int
) -> Image.Image:
    """Draw one slice with a heatmap ``(row, column)`` over it: 0 is transparent, higher values red, 1 yellow."""
    image = draw_slice(canvas, sequence, index, width)
    strength = np.clip(_resize_plane(heatmap, canvas.crop, image.size), 0.0, 1.0)[..., None]
    colour = np.concatenate(
        [np.full_like(strength, 255.0), 235.0 * strength, np.zeros_like(strength)], axis=2
    )
    opacity = 0.65 * np.sqrt(strength)
    return Image.fromarray(((1 - opacity) * np.asarray(image) + opacity * colour).astype(np.uint8))


def encode_jpeg(image: Image.Image) -> bytes:
    """Encode as JPEG without chroma subsampling, which would blur the thin coloured outline.

    Not with ``optimize``: Pillow's buffer for it holds one byte per pixel, and noise needs more.
    """
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=86, subsampling=0)
    return buffer.getvalue()


def encode_data_uri(image: Image.Image) -> str:
    """Encode an image as a data URI for a self-contained page."""
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(image)).decode("ascii")


def compute_pixel_size_mm(stack: SliceStack) -> float:
    """Return the pixel size of the stack in mm (pixels are square)."""
    return float(np.linalg.norm(stack.affine[:3, 0]))


def _compute_extent(occupied: NDArray[np.bool_], margin: int) -> tuple[int, int]:
    indices = np.flatnonzero(occupied)
    if indices.size == 0:
        return 0, len(occupied)
    return max(0, int(indices[0]) - margin), min(len(occupied), int(indices[-1]) + 1 + margin)


def _resize_plane(slice_values: NDArray[Any], crop: Crop, size: tuple[int, int]) -> NDArray[np.float32]:
    box = (crop.left, crop.top, crop.right, crop.bottom)
    image = Image.fromarray(slice_values.astype(np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC, box=box))


def _draw_contour(rgb: NDArray[np.uint8], mask: NDArray[np.bool_], width: int) -> None:
    """Draw a bright line just inside the mask's border and a dark one just outside, into ``rgb``."""
    line_width = 2 if width >= 330 else 1
    rim = mask & ~ndimage.binary_erosion(mask, iterations=line_width)
    halo = ndimage.binary_dilation(mask) & ~mask
    rgb[halo] = (0.45 * rgb[halo] + 0.55 * np.array(HALO_COLOUR)).astype(np.uint8)
    rgb[rim] = SEGMENTATION_COLOUR


def _draw_annotations(image: Image.Image, pixels_per_mm: float) -> None:
    """Draw R and L in the upper corners and a 20 mm scale bar in the lower right one."""
    is_small = image.width < 250
    font = ImageFont.load_default(size=11 if is_small else max(14, image.width // 28))
    draw, edge = ImageDraw.Draw(image), 4 if is_small else 10
    draw.text((edge, edge), "R", fill=ANNOTATION_COLOUR, font=font, anchor="lt")
    draw.text((image.width - edge, edge), "L", fill=ANNOTATION_COLOUR, font=font, anchor="rt")
    right, base = image.width - edge, image.height - edge
    left = right - round(20.0 * pixels_per_mm)
    draw.line([(left, base), (right, base)], fill=ANNOTATION_COLOUR, width=1 if is_small else 3)
    if not is_small:
        draw.text(((left + right) / 2, base - 6), "20 mm", fill=ANNOTATION_COLOUR, font=font, anchor="mb")
