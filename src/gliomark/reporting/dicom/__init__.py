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

from gliomark.reporting.dicom.encapsulated import encapsulated_pdf
from gliomark.reporting.dicom.segmentation import lesion_segmentation
from gliomark.reporting.dicom.sources import require_dicom, source_headers
from gliomark.reporting.dicom.structured import structured_report
from gliomark.reporting.masks import reference_series, source_mask
from gliomark.reporting.pdf import render_pdf
from gliomark.reporting.text import Language
from gliomark.study import MRSequence, Prediction

__all__ = ["DICOM_FILES", "dicom_results", "require_dicom", "write_dicom_results"]

DICOM_FILES = ("segmentation.dcm", "report.dcm", "report_pdf.dcm")


def dicom_results(
    prediction: Prediction, language: Language = "en", *, pdf: bytes | None = None
) -> Mapping[str, Dataset]:
    """The results by file name; without a lesion on the reference series there is no ``segmentation.dcm``.

    The source files must still lie where they were read. pdf: what ``render_pdf`` gave, if it is at hand.

    Raises: GliomarkError for a patient who did not come as DICOM, or whose files state no study or place.
    """
    require_dicom(prediction.study)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # highdicom doubts names such as 王伟, which are as the hospital wrote them
        return _results(prediction, language, pdf)


def write_dicom_results(
    prediction: Prediction, folder: Path, language: Language = "en", pdf: bytes | None = None
) -> list[str]:
    """Write ``dicom_results`` into a folder that is there; the files' names."""
    results = dicom_results(prediction, language, pdf=pdf)
    for name, dataset in results.items():
        dataset.save_as(folder / name, enforce_file_format=True)
    return list(results)


def _results(prediction: Prediction, language: Language, pdf: bytes | None) -> Mapping[str, Dataset]:
    name = reference_series(prediction)
    headers = source_headers(prediction.study.series[name])
    others = [one for n in _considered(prediction) if n != name for one in _headers(prediction, n)]
    mask, tracking = source_mask(prediction, name), UID()
    segmentation = lesion_segmentation(prediction, headers, mask, tracking) if np.any(mask) else None
    report = structured_report(prediction, headers, others, segmentation, tracking, language)
    document = encapsulated_pdf(prediction, headers, pdf or render_pdf(prediction, language))
    written = zip(DICOM_FILES, (segmentation, report, document), strict=True)
    return {file: dataset for file, dataset in written if dataset is not None}


def _headers(prediction: Prediction, name: MRSequence) -> tuple[Dataset, ...]:
    return source_headers(prediction.study.series[name]).datasets


def _considered(prediction: Prediction) -> list[MRSequence]:
    """The series that the networks were shown."""
    return [name for name in prediction.study.series if name in prediction.stack.images]
