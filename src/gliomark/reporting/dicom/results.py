"""Results as DICOM in the study of the source images: segmentation, structured report and PDF report.

``docs/dicom.md`` lists the objects and their codes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom.uid import ComprehensiveSRStorage, generate_uid

from gliomark.prediction import Prediction
from gliomark.reporting.dicom.source_headers import check_dicom_source
from gliomark.reporting.report_texts import Language
from gliomark.reporting.result_writer import Writer

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

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
    from gliomark.reporting.dicom.datasets import create_datasets  # loads highdicom, for half a second

    check_dicom_source(prediction.study)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # highdicom warns about names such as 王伟, which are copied as the hospital wrote them
        datasets = zip(DICOM_FILES, create_datasets(prediction, language, pdf), strict=True)
        return {file: dataset for file, dataset in datasets if dataset is not None}


def convert_to_comprehensive_sr(report: Dataset) -> Dataset:
    """Convert the structured report to the SOP class Comprehensive SR, for archives without Comprehensive 3D SR.

    The content is the same, since it has no coordinates in space. The instance UID is computed from the report's, so
    that a repeated delivery replaces the object.
    """
    converted = deepcopy(report)
    uid = generate_uid(entropy_srcs=[str(report.SOPInstanceUID), str(ComprehensiveSRStorage)])
    converted.SOPClassUID, converted.SOPInstanceUID = ComprehensiveSRStorage, uid
    converted.file_meta.MediaStorageSOPClassUID = ComprehensiveSRStorage
    converted.file_meta.MediaStorageSOPInstanceUID = uid
    return converted


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


def _write_dicom_folder(report_input: ReportInput, folder: Path) -> None:
    """Write the DICOM objects into the subfolder ``dicom``; the source headers are read by the reader pool."""
    (folder / "dicom").mkdir()
    prediction, language = report_input.prediction, report_input.language
    source = prediction.study.source
    report_input.reader_pool(
        source, write_dicom_results, prediction, folder / "dicom", language, report_input.pdf
    )


WRITER = Writer("dicom", ("dicom", *(f"dicom/{name}" for name in DICOM_FILES)), _write_dicom_folder)
