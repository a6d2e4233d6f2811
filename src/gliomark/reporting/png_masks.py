"""The lesion mask as pictures, if the images were pictures: ``masks/<slice>.png``, one per source slice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gliomark.files import encode_png
from gliomark.prediction import Prediction
from gliomark.reporting.mask_resampling import resample_mask_to_reference, select_reference_sequence
from gliomark.reporting.result_writer import Writer

if TYPE_CHECKING:
    from gliomark.reporting.report_input import ReportInput


def write_png_masks(report_input: ReportInput, folder: Path) -> None:
    """Write ``masks/<slice>.png`` with the values 0 and 255."""
    prediction = report_input.prediction
    series = prediction.study.series[select_reference_sequence(prediction)]
    mask = resample_mask_to_reference(prediction)
    (folder / "masks").mkdir()
    for name, plane in zip(series.slice_names, mask, strict=True):
        (folder / "masks" / f"{name}.png").write_bytes(encode_png(plane * np.uint8(255)))


def _is_from_pictures(prediction: Prediction) -> bool:
    return prediction.study.kind == "pictures"


WRITER = Writer(
    "png", ("masks", "masks/*.png"), write_png_masks, is_default=True, applies_to=_is_from_pictures
)
