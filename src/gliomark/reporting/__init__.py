"""Results for the clinician: prediction.json, HTML and PDF report, lesion masks, DICOM objects."""

from gliomark.reporting.dicom import check_dicom_source, create_dicom_results, write_dicom_results
from gliomark.reporting.mask_files import resample_mask_to_series
from gliomark.reporting.pdf_report import render_pdf
from gliomark.reporting.prediction_json import create_prediction_document
from gliomark.reporting.report_texts import Language
from gliomark.reporting.writers import (
    FailedPatient,
    encode_folder_name,
    read_predictions_table,
    write_prediction,
    write_predictions_table,
)

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
