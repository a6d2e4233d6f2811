"""Results as DICOM, in the study they came from: segmentation, structured report and the report as PDF.

What is written and by which codes: ``docs/dicom.md``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from highdicom import UID
from pydicom.dataset import Dataset

from gliomark.reporting.dicom.encapsulated import create_encapsulated_pdf
from gliomark.reporting.dicom.segmentation import create_lesion_segmentation
from gliomark.reporting.dicom.sources import check_dicom_source, read_source_headers
from gliomark.reporting.dicom.structured import create_structured_report
from gliomark.reporting.masks import resample_mask_to_source_images, select_reference_sequence
from gliomark.reporting.pdf import render_pdf
from gliomark.reporting.text import Language
from gliomark.study import MRSequence, Prediction

__all__ = ["DICOM_FILES", "create_dicom_results", "check_dicom_source", "write_dicom_results"]

DICOM_FILES = ("segmentation.dcm", "report.dcm", "report_pdf.dcm")


def create_dicom_results(
    prediction: Prediction, language: Language = "en", *, pdf: bytes | None = None
) -> Mapping[str, Dataset]:
    """The results by file name; without a lesion on the reference series there is no ``segmentation.dcm``.

    The source files must still lie where they were read. pdf: what ``render_pdf`` gave, if it is at hand.

    Raises: GliomarkError for a patient who did not come as DICOM, or whose files state no study or place.
    """
    check_dicom_source(prediction.study)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # highdicom doubts names such as 王伟, which are as the hospital wrote them
        return _create_datasets(prediction, language, pdf)


def write_dicom_results(
    prediction: Prediction, folder: Path, language: Language = "en", pdf: bytes | None = None
) -> list[str]:
    """Write ``dicom_results`` into a folder that is there; the files' names."""
    results = create_dicom_results(prediction, language, pdf=pdf)
    for name, dataset in results.items():
        dataset.save_as(folder / name, enforce_file_format=True)
    return list(results)


def _create_datasets(prediction: Prediction, language: Language, pdf: bytes | None) -> Mapping[str, Dataset]:
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
    datasets_by_file = zip(DICOM_FILES, (segmentation, report, document), strict=True)
    return {file: dataset for file, dataset in datasets_by_file if dataset is not None}


def _read_sequence_datasets(prediction: Prediction, sequence: MRSequence) -> tuple[Dataset, ...]:
    return read_source_headers(prediction.study.series[sequence]).datasets


def _list_shown_sequences(prediction: Prediction) -> list[MRSequence]:
    """The series that the networks were shown."""
    return [name for name in prediction.study.series if name in prediction.stack.images]
