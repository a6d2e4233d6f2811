"""Results as DICOM in the study of the source images: segmentation, structured report and PDF report.

``docs/dicom.md`` lists the objects and their codes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from highdicom import UID
from pydicom.dataset import Dataset

from gliomark.prediction import Prediction
from gliomark.reporting.dicom.encapsulated_pdf import create_encapsulated_pdf
from gliomark.reporting.dicom.lesion_segmentation import create_lesion_segmentation
from gliomark.reporting.dicom.source_headers import check_dicom_source, read_source_headers
from gliomark.reporting.dicom.structured_report import create_structured_report
from gliomark.reporting.mask_resampling import resample_mask_to_source_images, select_reference_sequence
from gliomark.reporting.pdf_report import render_pdf
from gliomark.reporting.report_texts import Language
from gliomark.reporting.result_writer import Writer
from gliomark.study import MRSequence

if TYPE_CHECKING:
    from gliomark.reporting.report_input import ReportInput

DICOM_FILES = ("segmentation.dcm", "report.dcm", "report_pdf.dcm")


def create_dicom_results(
    prediction: Prediction, language: Language = "en", *, pdf: bytes | None = None
) -> Mapping[str, Dataset]:
    """Create the DICOM objects of a prediction.

    The source files must still exist.

    Parameters
    ----------
    prediction
        Prediction of a patient whose images were read from DICOM.
    language
        Language of the texts: "en" or "zh".
    pdf
        Result of ``render_pdf`` in the same language; None: it is rendered here.

    Returns
    -------
    Mapping[str, Dataset]
        Datasets by file name; ``segmentation.dcm`` is missing without a lesion on the reference series.

    Raises
    ------
    InputError
        If the images were not read from DICOM, or the files lack a UID that the results need.
    """
    check_dicom_source(prediction.study)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # highdicom warns about names such as 王伟, which are copied as the hospital wrote them
        return _create_datasets(prediction, language, pdf)


def write_dicom_results(
    prediction: Prediction, folder: Path, language: Language = "en", pdf: bytes | None = None
) -> list[str]:
    """Write the DICOM objects into an existing folder and return the file names.

    pdf: result of ``render_pdf``; None: it is rendered here.
    """
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
    """Return the sequences that the networks used."""
    return [name for name in prediction.study.series if name in prediction.stack.images]


def _write_dicom_folder(report_input: ReportInput, folder: Path) -> None:
    """Write the DICOM objects into the subfolder ``dicom``; the source headers are read by the reader pool."""
    (folder / "dicom").mkdir()
    prediction, language = report_input.prediction, report_input.language
    source = prediction.study.source
    report_input.reader_pool(
        source, write_dicom_results, prediction, folder / "dicom", language, report_input.pdf
    )


WRITER = Writer("dicom", ("dicom", *(f"dicom/{name}" for name in DICOM_FILES)), _write_dicom_folder)
