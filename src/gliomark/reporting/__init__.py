"""What the doctor gets: the answer as JSON, as a page and a PDF to read, as masks on the images, and as DICOM."""

from gliomark.reporting.dicom import check_dicom_source, create_dicom_results, write_dicom_results
from gliomark.reporting.document import create_prediction_document
from gliomark.reporting.masks import resample_mask_to_series
from gliomark.reporting.pdf import render_pdf
from gliomark.reporting.report import (
    FailedPatient,
    encode_folder_name,
    read_predictions_table,
    write_prediction,
    write_predictions_table,
)
from gliomark.reporting.text import Language

__all__ = [
    "FailedPatient",
    "Language",
    "create_dicom_results",
    "encode_folder_name",
    "resample_mask_to_series",
    "create_prediction_document",
    "read_predictions_table",
    "render_pdf",
    "check_dicom_source",
    "write_dicom_results",
    "write_prediction",
    "write_predictions_table",
]
