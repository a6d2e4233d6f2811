"""Numbers of the lesion on the images as they were read: volume, slices, and intensities of each sequence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomark.prediction import Prediction, to_json_number
from gliomark.reporting.mask_resampling import (
    list_used_sequences,
    resample_mask_to_reference,
    resample_mask_to_series,
    select_reference_sequence,
)
from gliomark.study import MRSequence, Series


@dataclass(frozen=True)
class LesionSlice:
    """The lesion on one slice. index: from 0; name: as in the report; area in mm2."""

    index: int
    name: str
    voxels: int
    area_mm2: float


@dataclass(frozen=True)
class IntensityStatistics:
    """Distribution of a sequence's stored values in the lesion; percentiles 5 and 95."""

    voxels: int
    mean: float
    standard_deviation: float
    minimum: float
    percentile_5: float
    median: float
    percentile_95: float
    maximum: float


@dataclass(frozen=True)
class LesionStatistics:
    """Numbers of the lesion on the native grid of a sequence.

    Attributes
    ----------
    sequence
        The sequence on whose grid voxels and slices are counted, and the mask is written.
    shape
        Columns, rows and slices of this grid.
    spacing_mm
        Spacing of columns, rows and slices.
    is_spacing_assumed
        Whether the spacing, and with it volume and areas, is assumed because pictures state none.
    voxels, volume_ml
        Size of the lesion on this grid. It differs by some per cent from the volume in prediction.json, which is
        measured on the prepared slices of 1 mm pixels, because the outline is resampled.
    slices
        The slices with lesion.
    intensities
        By sequence, each on its own grid; None without a lesion voxel.
    """

    sequence: MRSequence
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    is_spacing_assumed: bool
    voxels: int
    volume_ml: float
    slices: tuple[LesionSlice, ...]
    intensities: Mapping[MRSequence, IntensityStatistics | None]

    def to_dict(self) -> dict[str, Any]:
        """Return the content of statistics.json, numbers rounded to six decimals."""
        return {
            "sequence": str(self.sequence),
            "shape": list(self.shape),
            "spacing_mm": [to_json_number(step) for step in self.spacing_mm],
            "spacing_assumed": self.is_spacing_assumed,
            "voxels": self.voxels,
            "volume_ml": to_json_number(self.volume_ml),
            "slices": [asdict(one) | {"area_mm2": to_json_number(one.area_mm2)} for one in self.slices],
            "intensities": {
                str(name): None
                if one is None
                else {
                    key: value if key == "voxels" else to_json_number(value)
                    for key, value in vars(one).items()
                }
                for name, one in self.intensities.items()
            },
        }


def compute_lesion_statistics(prediction: Prediction) -> LesionStatistics:
    """Compute the numbers of a prediction's lesion on the images as they were read."""
    sequence = select_reference_sequence(prediction)
    series = prediction.study.series[sequence]
    mask = resample_mask_to_reference(prediction) > 0
    spacing_mm = tuple(float(step) for step in np.linalg.norm(series.affine[:3, :3], axis=0))
    pixel_area_mm2 = spacing_mm[0] * spacing_mm[1]
    counts = mask.sum(axis=(1, 2))
    slices = tuple(
        LesionSlice(int(index), series.slice_names[index], int(counts[index]), counts[index] * pixel_area_mm2)
        for index in np.flatnonzero(counts)
    )
    voxel_volume_ml = float(abs(np.linalg.det(series.affine[:3, :3]))) / 1000
    return LesionStatistics(
        sequence,
        (mask.shape[2], mask.shape[1], mask.shape[0]),
        (spacing_mm[0], spacing_mm[1], spacing_mm[2]),
        prediction.study.spacing_assumed,
        int(mask.sum()),
        float(mask.sum()) * voxel_volume_ml,
        slices,
        {name: _describe_intensities(prediction, name) for name in list_used_sequences(prediction)},
    )


def _describe_intensities(prediction: Prediction, sequence: MRSequence) -> IntensityStatistics | None:
    """Describe the values of a sequence in the lesion, on its own grid; None without a lesion voxel."""
    stack, series = prediction.stack, prediction.study.series[sequence]
    to_stack = stack.to_stack.get(sequence)
    mask = resample_mask_to_series(stack, prediction.segmentation, series, to_stack=to_stack)
    values = _select_valid_values(series, mask > 0)
    if not len(values):
        return None
    low, median, high = np.percentile(values, [5, 50, 95])
    return IntensityStatistics(
        len(values),
        float(values.mean()),
        float(values.std()),
        float(values.min()),
        float(low),
        float(median),
        float(high),
        float(values.max()),
    )


def _select_valid_values(series: Series, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the values in the mask, without voxels that have none."""
    valid = mask if series.missing is None else mask & ~series.missing
    return series.image[valid].astype(np.float64)
