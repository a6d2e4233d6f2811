"""The pictures of the report: one stack slice with the outline, sides and a scale bar, as a data URI."""

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

OUTLINE = (255, 214, 10)
HALO = (0, 0, 0)  # a dark line outside the bright one keeps it visible on a bright lesion and in grey print
MARKS = (235, 235, 235)
MARGIN_MM = 7.0
GAMMA = 0.75  # lifts the healthy brain beside a bright lesion without clipping the lesion


@dataclass(frozen=True)
class Crop:
    """The part of the slice that holds the brain: first and past-the-last row and column."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True, eq=False)
class Canvas:
    """What all pictures of one patient share, so that places and greys compare from one to the next.

    outline: probability ``(slice, row, column)``, drawn where it crosses 0.5. windows: black and white.
    """

    stack: SliceStack
    outline: NDArray[np.float32]
    crop: Crop
    windows: Mapping[MRSequence, tuple[float, float]]


def canvas(stack: SliceStack, outline: NDArray[np.float32], sequences: Sequence[MRSequence]) -> Canvas:
    """Crop and grey windows of the patient."""
    windows = {name: grey_window(stack.images[name], stack.brain) for name in sequences}
    return Canvas(stack, outline, crop_to_brain(stack), windows)


def crop_to_brain(stack: SliceStack) -> Crop:
    """The brain's extent over all slices, and a margin for the marks."""
    margin = round(MARGIN_MM / pixel_mm(stack))
    (top, bottom) = _extent(np.asarray(stack.brain.any(axis=(0, 2))), margin)
    (left, right) = _extent(np.asarray(stack.brain.any(axis=(0, 1))), margin)
    return Crop(top, bottom, left, right)


def grey_window(image: NDArray[np.float32], brain: NDArray[np.bool_]) -> tuple[float, float]:
    """Grey values drawn black and white: nearly the brain's full range, its darkest just above black."""
    values = image[brain] if brain.any() else image.ravel()
    low, high = np.percentile(values, [1.0, 99.6])
    return float(low - 0.08 * (high - low)), float(max(high, low + 1e-6))


def draw_slice(paper: Canvas, sequence: MRSequence, index: int, width: int) -> Image.Image:
    """One slice, ``width`` pixels wide, seen from the feet: the patient's right on the picture's left."""
    crop, (low, high) = paper.crop, paper.windows[sequence]
    size = (width, round(width * (crop.bottom - crop.top) / (crop.right - crop.left)))
    scaled = np.clip((paper.stack.images[sequence][index] - low) / (high - low), 0.0, 1.0)
    grey = _resize(np.where(paper.stack.brain[index], scaled**GAMMA, 0.0), crop, size)
    rgb = np.repeat(np.clip(grey * 255.0, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    _trace(rgb, _resize(paper.outline[index], crop, size) >= 0.5, width)
    image = Image.fromarray(rgb)
    _mark(image, width / (crop.right - crop.left) / pixel_mm(paper.stack))
    return image


def draw_heat(
    paper: Canvas, sequence: MRSequence, index: int, heat: NDArray[np.float32], width: int
) -> Image.Image:
    """The slice with a map of 0 to 1 ``(row, column)`` over it: nothing where it is 0, then red, then yellow."""
    image = draw_slice(paper, sequence, index, width)
    strength = np.clip(_resize(heat, paper.crop, image.size), 0.0, 1.0)[..., None]
    colour = np.concatenate(
        [np.full_like(strength, 255.0), 235.0 * strength, np.zeros_like(strength)], axis=2
    )
    over = 0.65 * np.sqrt(strength)
    return Image.fromarray(((1 - over) * np.asarray(image) + over * colour).astype(np.uint8))


def jpeg(image: Image.Image) -> bytes:
    """JPEG without chroma subsampling, which would blur the thin coloured line."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=86, subsampling=0, optimize=True)
    return buffer.getvalue()


def data_uri(image: Image.Image) -> str:
    """The picture as a page takes it in, without a file beside it."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(image)).decode("ascii")


def pixel_mm(stack: SliceStack) -> float:
    """The edge of a stack pixel in millimetres (pixels are square)."""
    return float(np.linalg.norm(stack.affine[:3, 0]))


def _extent(occupied: NDArray[np.bool_], margin: int) -> tuple[int, int]:
    indices = np.flatnonzero(occupied)
    if indices.size == 0:
        return 0, len(occupied)
    return max(0, int(indices[0]) - margin), min(len(occupied), int(indices[-1]) + 1 + margin)


def _resize(plane: NDArray[Any], crop: Crop, size: tuple[int, int]) -> NDArray[np.float32]:
    box = (crop.left, crop.top, crop.right, crop.bottom)
    image = Image.fromarray(plane.astype(np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC, box=box))


def _trace(rgb: NDArray[np.uint8], inside: NDArray[np.bool_], width: int) -> None:
    """A bright line just inside the border, a dark one just outside; drawn into ``rgb``."""
    line = 2 if width >= 330 else 1
    rim = inside & ~ndimage.binary_erosion(inside, iterations=line)
    halo = ndimage.binary_dilation(inside) & ~inside
    rgb[halo] = (0.45 * rgb[halo] + 0.55 * np.array(HALO)).astype(np.uint8)
    rgb[rim] = OUTLINE


def _mark(image: Image.Image, pixels_per_mm: float) -> None:
    """R and L in the upper corners, a 20 mm bar in the lower right one."""
    small = image.width < 250
    font = ImageFont.load_default(size=11 if small else max(14, image.width // 28))
    draw, edge = ImageDraw.Draw(image), 4 if small else 10
    draw.text((edge, edge), "R", fill=MARKS, font=font, anchor="lt")
    draw.text((image.width - edge, edge), "L", fill=MARKS, font=font, anchor="rt")
    right, base = image.width - edge, image.height - edge
    left = right - round(20.0 * pixels_per_mm)
    draw.line([(left, base), (right, base)], fill=MARKS, width=1 if small else 3)
    if not small:
        draw.text(((left + right) / 2, base - 6), "20 mm", fill=MARKS, font=font, anchor="mb")
