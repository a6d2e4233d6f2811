"""Read annotated pictures: labelImg boxes (Pascal VOC xml) and LabelMe shapes (json), one file per slice.

Coordinates start at the upper left corner of the picture, so pixel 0 spans 0 to 1. A pixel belongs to a shape if its
centre lies inside. Boxes are filled as rectangles and cover more than the lesion, which a note states. Regions
labelled as oedema are excluded; every other label counts as lesion (see ``region_names``).
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gliomark.errors import InputError
from gliomark.io.masks.region_names import LesionMask, collect_excluded_region_notes, select_lesion_regions
from gliomark.io.pictures import MAX_PIXELS
from gliomark.study import MRSequence, Series

ANNOTATION_SUFFIXES = (".xml", ".json")
CIRCLE_SIDES = 360
_LABELME_READ_ERRORS = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OSError,
    SyntaxError,
    ArithmeticError,
    RecursionError,
    binascii.Error,
    zlib.error,
    Image.DecompressionBombError,
)
BOXES_NOTE = "{} slice(s) are annotated with boxes, filled as rectangles: they cover more than the lesion."


@dataclass(frozen=True, eq=False)
class PictureAnnotation:
    """The annotation of one slice.

    picture_size: (columns, rows), None if not stated. labelled_shapes: pairs of label and shape.
    """

    picture_size: tuple[int, int] | None
    labelled_shapes: tuple[tuple[str, AnnotationShape], ...]
    has_boxes: bool


@dataclass(frozen=True, eq=False)
class AnnotationShape:
    """A closed polygon ``(n, 2)`` of (x, y), or pixels ``(row, column)`` with the (x, y) of the upper left one."""

    points: NDArray[np.float64]
    pixels: NDArray[np.bool_] | None = None


def fill_polygons(polygons: Iterable[NDArray[np.float64]], rows: int, columns: int) -> NDArray[np.bool_]:
    """Fill polygons ``(n, 2)`` of (x, y) by the even-odd rule; return a mask ``(row, column)``.

    A pixel is set if its centre (column + 0.5, row + 0.5) lies inside an odd number of polygons. In every row that an
    edge crosses, it inverts all pixels to its right, so that holes stay empty.
    """
    flips = np.zeros((rows, columns + 1), dtype=np.int32)
    for polygon in polygons:
        for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            if y0 > y1:
                x0, y0, x1, y1 = x1, y1, x0, y0
            first, end = np.clip(np.ceil([y0 - 0.5, y1 - 0.5]), 0, rows).astype(int)
            if first >= end:
                continue
            row = np.arange(first, end)
            x = x0 + (row + 0.5 - y0) / (y1 - y0) * (x1 - x0)
            flips[row, np.clip(np.ceil(x - 0.5), 0, columns).astype(int)] += 1
    mask: NDArray[np.bool_] = np.cumsum(flips[:, :columns], axis=1) % 2 == 1
    return mask


def is_annotation_file(file: Path) -> bool:
    """Whether an xml file is a VOC annotation or a json file contains LabelMe shapes.

    The content decides, because folders with images also contain xml and json files of other programs. Empty and
    unreadable files count as annotations, so that reading them reports the error.
    """
    suffix = file.suffix.lower()
    if suffix not in ANNOTATION_SUFFIXES:
        return False
    try:
        text = file.read_bytes()
    except OSError:
        return True  # reported when the file is read
    if suffix == ".xml":
        return b"<annotation" in text[:2000] or not text.strip()
    return b'"shapes"' in text or not text.strip()


def read_annotations(files: Mapping[str, Path], series: Series, sequence: MRSequence) -> LesionMask:
    """Read one rater's annotations of one sequence as a mask ``(slice, row, column)`` on the grid of the series.

    files: annotation file of each slice name.

    Raises
    ------
    InputError
        If a slice is not in the series, the picture size differs, a shape covers no pixel or encloses no area, or a
        file is damaged.
    """
    image = np.zeros(series.image.shape, dtype=np.float32)
    slices_with_boxes = region_count = lesion_region_count = 0
    for name, file in files.items():
        annotation = _read_annotation(file)
        at = _find_slice_index(file, name, series)
        _check_picture_size(file, annotation, series)
        kept = select_lesion_regions([label for label, _ in annotation.labelled_shapes], accept_any_name=True)
        for index in kept:
            image[at][_rasterise_shape(file, annotation.labelled_shapes[index][1], image.shape[1:])] = 1.0
        slices_with_boxes += annotation.has_boxes and bool(kept)
        region_count, lesion_region_count = (
            region_count + len(annotation.labelled_shapes),
            lesion_region_count + len(kept),
        )
    notes = (
        (BOXES_NOTE.format(slices_with_boxes),) if slices_with_boxes else ()
    ) + collect_excluded_region_notes(region_count, lesion_region_count)
    mask = Series(image, series.affine, series.slice_names, next(iter(files.values())).parent)
    return LesionMask(mask, "", mask.source, "", notes, sequence)


def _find_slice_index(file: Path, name: str, series: Series) -> int:
    if name not in series.slice_names:
        raise InputError(
            f"{file} is not named after a slice of its sequence ({series.slice_names[0]} to {series.slice_names[-1]}): "
            "give it the name of the slice it was drawn on."
        )
    return series.slice_names.index(name)


def _check_picture_size(file: Path, annotation: PictureAnnotation, series: Series) -> None:
    _, rows, columns = series.image.shape
    if annotation.picture_size is not None and annotation.picture_size != (columns, rows):
        width, height = annotation.picture_size
        raise InputError(
            f"{file} was drawn on a picture of {width} x {height} pixels but the slice has {columns} x {rows}: "
            "draw on pictures of the original size."
        )


def _rasterise_shape(file: Path, drawn_shape: AnnotationShape, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    rows, columns = shape
    inside = _paste_pixels(drawn_shape, rows, columns) if drawn_shape.pixels is not None else None
    if inside is None:
        inside = fill_polygons([drawn_shape.points], rows, columns)
    if not inside.any():
        raise InputError(
            f"{file} has a shape that covers no pixel of its slice (too small, or outside the picture): "
            "draw it again or delete it."
        )
    return inside


def _paste_pixels(drawn_shape: AnnotationShape, rows: int, columns: int) -> NDArray[np.bool_]:
    """Insert drawn pixels at their position; pixels outside the picture are dropped."""
    assert drawn_shape.pixels is not None
    x, y = np.round(drawn_shape.points[0]).astype(int)
    down, across = np.nonzero(drawn_shape.pixels)
    down, across = down + y, across + x
    kept = (down >= 0) & (down < rows) & (across >= 0) & (across < columns)
    inside = np.zeros((rows, columns), dtype=bool)
    inside[down[kept], across[kept]] = True
    return inside


# ---- file formats -----------------------------------------------------------------------------------


def _read_annotation(file: Path) -> PictureAnnotation:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be opened ({error.strerror}): check its permissions.") from None
    return _parse_voc(file, content) if file.suffix.lower() == ".xml" else _parse_labelme(file, content)


def _parse_voc(file: Path, content: bytes) -> PictureAnnotation:
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:  # nested entities can expand without limit
        raise InputError(f"{file} has a DOCTYPE, which labelImg never writes: export the boxes again.")
    try:
        root = ElementTree.fromstring(content)
        width, height = (int(root.findtext(f"size/{side}") or 0) for side in ("width", "height"))
        labelled_shapes = tuple(
            (
                box.findtext("name") or "",
                _create_box(file, [float(box.findtext(f"bndbox/{k}", "")) for k in _BOX_EDGES]),
            )
            for box in root.findall("object")
        )
    except (ElementTree.ParseError, ValueError, LookupError):
        raise InputError(f"{file} is damaged or not a labelImg (VOC) file: save it again.") from None
    return PictureAnnotation(
        (width, height) if width and height else None, labelled_shapes, bool(labelled_shapes)
    )


_BOX_EDGES = ("xmin", "ymin", "xmax", "ymax")


def _create_box(file: Path, edges: list[float]) -> AnnotationShape:
    left, top, right, bottom = edges
    if not (math.isfinite(sum(edges)) and left < right and top < bottom):
        raise InputError(f"{file} has an empty box ({', '.join(f'{e:g}' for e in edges)}): draw it again.")
    return AnnotationShape(np.array([(left, top), (right, top), (right, bottom), (left, bottom)]))


def _parse_labelme(file: Path, content: bytes) -> PictureAnnotation:
    try:
        document = json.loads(content)
        size = (int(document.get("imageWidth") or 0), int(document.get("imageHeight") or 0))
        labelled_shapes = tuple(
            (str(shape.get("label") or ""), _parse_labelme_shape(file, shape)) for shape in document["shapes"]
        )
    except _LABELME_READ_ERRORS:
        raise InputError(f"{file} is damaged or not a LabelMe file: save it again.") from None
    return PictureAnnotation(size if all(size) else None, labelled_shapes, False)


def _parse_labelme_shape(file: Path, shape: dict[str, Any]) -> AnnotationShape:
    """Parse a LabelMe shape as polygon or pixels; raise InputError if it encloses no area."""
    kind, points = shape.get("shape_type") or "polygon", np.array(shape["points"], dtype=np.float64)
    min_points = {"polygon": 3, "rectangle": 2, "circle": 2, "mask": 1}
    if kind not in min_points:
        raise InputError(f"{file} has a shape of type '{kind}', which encloses no area: draw a polygon.")
    if points.ndim != 2 or len(points) < min_points[kind] or not np.isfinite(points).all():
        raise InputError(f"{file} has a {kind} with {points.size // 2} points: draw it again or delete it.")
    if kind == "circle":
        return AnnotationShape(
            _compute_circle_polygon(points[0], float(np.linalg.norm(points[1] - points[0])))
        )
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        return AnnotationShape(np.array([(left, top), (right, top), (right, bottom), (left, bottom)]))
    if kind == "mask":
        with Image.open(BytesIO(base64.b64decode(shape["mask"])), formats=["PNG"]) as drawn:
            if drawn.width * drawn.height > MAX_PIXELS:
                raise ValueError
            return AnnotationShape(points[:1], np.asarray(drawn.convert("L")) > 0)
    return AnnotationShape(points)


def _compute_circle_polygon(centre: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    angle = np.linspace(0.0, 2.0 * np.pi, CIRCLE_SIDES, endpoint=False)
    return centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
