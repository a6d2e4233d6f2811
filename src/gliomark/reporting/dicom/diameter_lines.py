"""The lesion's diameters as lines on a source image, which is what viewers can show of a structured report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gliomark.geometry import apply_affine, invert_affine
from gliomark.lesion_axes import Diameter, LesionAxes, compute_lesion_axes
from gliomark.prediction import Prediction
from gliomark.study import MRSequence, Series, SourceImage

# of a diameter that is projected onto an image: less than the decimals that are stated
MAX_SHORTENING_MM = 0.05
NEAR_MM = 0.5  # within this distance of its end points an image of the reference series is preferred
# DICOM's image coordinates have their origin at the corner of the first pixel (PS3.3 C.18.6.1.1)
PIXEL_CENTRE = 0.5


@dataclass(frozen=True, eq=False)
class DiameterLine:
    """A diameter on an image. points: its ends as DICOM's (column, row), ``(2, 2)``; mm: its length."""

    points: NDArray[np.float64]
    mm: float


@dataclass(frozen=True, eq=False)
class DiameterLines:
    """The two perpendicular diameters on one source image.

    Attributes
    ----------
    sequence, image_index
        The image: its series, and its index in ``Series.source_images``.
    longest, perpendicular
        The diameters.
    is_axial
        Whether they are those of ``Prediction.lesion_axes``; otherwise they were measured on the acquired images.
    """

    sequence: MRSequence
    image_index: int
    longest: DiameterLine
    perpendicular: DiameterLine
    is_axial: bool


def create_diameter_lines(
    prediction: Prediction, reference: MRSequence, mask: NDArray[np.uint8]
) -> DiameterLines | None:
    """Create the lines of the lesion's diameters on a source image.

    The diameters are measured on axial slices. They are drawn on the image that is nearest to their end points: of the
    reference series if one lies within half a millimetre, otherwise of any series used. If no series was acquired in
    the plane of the slices, for example if all are sagittal volumes, the diameters are measured again on the images of
    the reference series, because a projected line would be too short.

    Parameters
    ----------
    prediction
        Prediction of a patient whose images were read from DICOM.
    reference
        The series of the segmentation.
    mask
        Lesion on its images, 0 or 1, ``(image, row, column)``.

    Returns
    -------
    DiameterLines | None
        None without a lesion.
    """
    axes = prediction.lesion_axes
    if axes is None:
        return None
    projected = [
        one
        for name, series in prediction.study.series.items()
        if name in prediction.stack.images
        for one in _project_onto_nearest_image(prediction, name, series, axes)
    ]
    near = [one for one in projected if one[1].sequence == reference and one[0] <= NEAR_MM]
    if projected:
        return min(near or projected, key=lambda one: one[0])[1]
    return _measure_on_images(prediction.study.series[reference], reference, mask)


def _project_onto_nearest_image(
    prediction: Prediction, name: MRSequence, series: Series, axes: LesionAxes
) -> Iterator[tuple[float, DiameterLines]]:
    """Project the diameters onto the nearest image of a series, if it is parallel: distance in mm and lines."""
    from_stack = invert_affine(prediction.stack.to_stack.get(name, np.eye(4)))
    diameters = (axes.longest, axes.perpendicular)
    ends = apply_affine(from_stack, np.concatenate([line.ends_mm for line in diameters]).T)
    projections = [_project_points(series, image, ends) for image in series.source_images]
    distances = [float(np.abs(projection[2]).max()) for projection in projections]
    index = int(np.argmin(distances))
    steps = np.linalg.norm(series.affine[:3, :2], axis=0)
    points = projections[index][:2].T.reshape(2, 2, 2)
    lengths = np.linalg.norm((points[:, 1] - points[:, 0]) * steps, axis=1)
    shortening = max(line.mm - length for line, length in zip(diameters, lengths, strict=True))
    if shortening <= MAX_SHORTENING_MM and distances[index] <= prediction.stack.spacing_mm[0]:
        lines = [DiameterLine(points[i] + PIXEL_CENTRE, line.mm) for i, line in enumerate(diameters)]
        yield distances[index], DiameterLines(name, index, lines[0], lines[1], is_axial=True)


def _project_points(series: Series, image: SourceImage, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Project points ``(3, n)`` in LPS mm onto an image: column, row and distance in mm, ``(3, n)``."""
    affine = np.eye(4)
    affine[:3, :2] = series.affine[:3, :2]
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    affine[:3, 2] = normal / np.linalg.norm(normal)
    affine[:3, 3] = image.position
    return apply_affine(invert_affine(affine), points)


def _measure_on_images(series: Series, name: MRSequence, mask: NDArray[np.uint8]) -> DiameterLines | None:
    """Measure the diameters on the images of a series; None if its mask is empty."""
    axes = compute_lesion_axes(mask, series.affine)
    if axes is None:
        return None
    longest, perpendicular = (
        _convert_to_line(line, series.affine) for line in (axes.longest, axes.perpendicular)
    )
    return DiameterLines(name, axes.slice_index, longest, perpendicular, is_axial=False)


def _convert_to_line(line: Diameter, affine: NDArray[np.float64]) -> DiameterLine:
    index = apply_affine(invert_affine(affine), np.array(line.ends_mm).T)
    return DiameterLine(index[:2].T + PIXEL_CENTRE, line.mm)
