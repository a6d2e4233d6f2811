"""Create the DICOM datasets of a prediction; importing this loads highdicom."""

from __future__ import annotations

import numpy as np
from highdicom import UID
from pydicom.dataset import Dataset

from gliomark.prediction import Prediction
from gliomark.reporting.dicom.diameter_lines import create_diameter_lines
from gliomark.reporting.dicom.encapsulated_pdf import create_encapsulated_pdf
from gliomark.reporting.dicom.lesion_segmentation import create_lesion_segmentation
from gliomark.reporting.dicom.source_headers import read_source_headers
from gliomark.reporting.dicom.structured_report import create_structured_report
from gliomark.reporting.mask_resampling import (
    list_used_sequences,
    note_missing_segmentation,
    resample_mask_to_source_images,
    select_reference_sequence,
)
from gliomark.reporting.pdf_writer import render_pdf
from gliomark.reporting.report_texts import Language


def create_datasets(
    prediction: Prediction, language: Language, pdf: bytes | None
) -> tuple[Dataset | None, Dataset, Dataset]:
    """Create segmentation, structured report and PDF report; pdf: None renders it here.

    The segmentation is None without a lesion on the reference series.
    """
    name = select_reference_sequence(prediction)
    sequences = dict.fromkeys([name, *list_used_sequences(prediction)])
    headers_by_sequence = {n: read_source_headers(prediction.study.series[n]) for n in sequences}
    headers = headers_by_sequence[name]
    mask, tracking = resample_mask_to_source_images(prediction, name), UID()
    segmentation = None
    if np.any(mask):
        segmentation = create_lesion_segmentation(prediction, headers, mask, tracking)
    else:
        prediction = note_missing_segmentation(prediction)
    lines = create_diameter_lines(prediction, name, mask)
    report = create_structured_report(
        prediction, headers_by_sequence, segmentation, lines, tracking, language
    )
    document = create_encapsulated_pdf(prediction, headers, pdf or render_pdf(prediction, language))
    return segmentation, report, document
