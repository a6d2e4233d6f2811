"""Create the DICOM datasets of a prediction; importing this loads highdicom."""

from __future__ import annotations

import numpy as np
from highdicom import UID
from pydicom.dataset import Dataset

from gliomark.prediction import Prediction
from gliomark.reporting.dicom.encapsulated_pdf import create_encapsulated_pdf
from gliomark.reporting.dicom.lesion_segmentation import create_lesion_segmentation
from gliomark.reporting.dicom.source_headers import read_source_headers
from gliomark.reporting.dicom.structured_report import create_structured_report
from gliomark.reporting.mask_resampling import resample_mask_to_source_images, select_reference_sequence
from gliomark.reporting.pdf_writer import render_pdf
from gliomark.reporting.report_texts import Language
from gliomark.study import MRSequence


def create_datasets(
    prediction: Prediction, language: Language, pdf: bytes | None
) -> tuple[Dataset | None, Dataset, Dataset]:
    """Create segmentation, structured report and PDF report; pdf: None renders it here.

    The segmentation is None without a lesion on the reference series.
    """
    name = select_reference_sequence(prediction)
    headers = read_source_headers(prediction.study.series[name])
    other_datasets = [
        one
        for n in _list_shown_sequences(prediction)
        if n != name
        for one in _read_sequence_datasets(prediction, n)
    ]
    mask, tracking = resample_mask_to_source_images(prediction, name), UID()
    segmentation = create_lesion_segmentation(prediction, headers, mask, tracking) if np.any(mask) else None
    report = create_structured_report(prediction, headers, other_datasets, segmentation, tracking, language)
    document = create_encapsulated_pdf(prediction, headers, pdf or render_pdf(prediction, language))
    return segmentation, report, document


def _read_sequence_datasets(prediction: Prediction, sequence: MRSequence) -> tuple[Dataset, ...]:
    return read_source_headers(prediction.study.series[sequence]).datasets


def _list_shown_sequences(prediction: Prediction) -> list[MRSequence]:
    """Return the sequences that the networks used."""
    return [name for name in prediction.study.series if name in prediction.stack.images]
