"""Results as DICOM in the study of the source images: segmentation, structured report, PDF report and structure set.

``docs/dicom.md`` lists the objects and their codes.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydicom.uid import ComprehensiveSRStorage, generate_uid

from gliomark.errors import InputError
from gliomark.messages import message
from gliomark.prediction import Prediction
from gliomark.reporting.dicom.source_headers import check_dicom_source, read_source_headers
from gliomark.reporting.mask_resampling import (
    note_missing_segmentation,
    resample_mask_to_source_images,
    select_reference_sequence,
)
from gliomark.reporting.report_texts import Language
from gliomark.reporting.result_writer import Writer

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from gliomark.reporting.report_input import ReportInput

DICOM_FILES = ("segmentation.dcm", "report.dcm", "report_pdf.dcm")
STRUCTURE_SET_FILE = "structure_set.dcm"


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


def has_outline_on_source_images(prediction: Prediction) -> bool:
    """Whether the lesion appears on an image of the reference series.

    Raises
    ------
    InputError
        If the images were not read from DICOM.
    """
    name = select_reference_sequence(prediction)
    if not prediction.study.series[name].source_images:
        raise InputError(message("not-dicom", patient=prediction.patient_id))
    has_lesion = prediction.segmentation.mask.any()
    return bool(has_lesion and np.any(resample_mask_to_source_images(prediction, name)))


def add_notes_on_missing_outlines(prediction: Prediction, formats: Collection[str]) -> Prediction:
    """Return the prediction with a note for each DICOM object of the formats that no source image can carry.

    Without any lesion, a missing segmentation needs no note.

    Raises
    ------
    InputError
        If one of the formats is DICOM, and the images were not read from DICOM.
    """
    wanted = {WRITER.name, STRUCTURE_SET_WRITER.name}.intersection(formats)
    if not wanted or has_outline_on_source_images(prediction):
        return prediction
    if WRITER.name in wanted:
        prediction = note_missing_segmentation(prediction)
    if STRUCTURE_SET_WRITER.name in wanted:
        prediction = replace(prediction, notes=(*prediction.notes, message("structure-set-empty")))
    return prediction


def create_structure_set_result(prediction: Prediction) -> Dataset:
    """Create the lesion's outline as a DICOM structure set (RTSTRUCT), on the images of the segmentation.

    The source files must still exist.

    Raises
    ------
    InputError
        If the images were not read from DICOM, the files lack a UID that the result needs, or there is no lesion on
        the reference series.
    """
    from gliomark.reporting.dicom.structure_set import create_structure_set  # loads highdicom

    check_dicom_source(prediction.study)
    name = select_reference_sequence(prediction)
    mask = resample_mask_to_source_images(prediction, name)
    if not np.any(mask):
        raise InputError(message("structure-set-empty"))
    series = prediction.study.series[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of highdicom, see create_dicom_results
        return create_structure_set(prediction, series, read_source_headers(series), mask)


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


def write_structure_set(prediction: Prediction, folder: Path) -> None:
    """Write the structure set into an existing folder; see ``create_structure_set_result``."""
    structure_set = create_structure_set_result(prediction)
    structure_set.save_as(folder / STRUCTURE_SET_FILE, enforce_file_format=True)


def _write_dicom_folder(report_input: ReportInput, folder: Path) -> None:
    """Write the DICOM objects into the subfolder ``dicom``; the source headers are read by the reader pool."""
    (folder / "dicom").mkdir(exist_ok=True)
    prediction, language = report_input.prediction, report_input.language
    source = prediction.study.source
    report_input.reader_pool(
        source, write_dicom_results, prediction, folder / "dicom", language, report_input.pdf
    )


WRITER = Writer("dicom", ("dicom", *(f"dicom/{name}" for name in DICOM_FILES)), _write_dicom_folder)


def _write_structure_set_file(report_input: ReportInput, folder: Path) -> None:
    """Write the structure set into the subfolder ``dicom``; the source headers are read by the reader pool."""
    (folder / "dicom").mkdir(exist_ok=True)
    prediction = report_input.prediction
    report_input.reader_pool(prediction.study.source, write_structure_set, prediction, folder / "dicom")


STRUCTURE_SET_WRITER = Writer(
    "rtstruct",
    ("dicom", f"dicom/{STRUCTURE_SET_FILE}"),
    _write_structure_set_file,
    applies_to=has_outline_on_source_images,
)
