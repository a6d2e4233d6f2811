"""Results for the clinician: prediction.json, HTML and PDF report, lesion masks, DICOM objects."""

from gliomark.reporting.bids_mask import create_derivative_description
from gliomark.reporting.dicom import (
    add_notes_on_missing_outlines,
    check_dicom_source,
    convert_to_comprehensive_sr,
    create_dicom_results,
    create_structure_set_result,
    has_outline_on_source_images,
    write_dicom_results,
    write_structure_set,
)
from gliomark.reporting.mask_resampling import resample_mask_to_series
from gliomark.reporting.pdf_writer import render_pdf
from gliomark.reporting.predictions_csv import (
    FailedPatient,
    TableRow,
    create_failure_row,
    create_table_row,
    read_predictions_table,
    write_predictions_table,
    write_table_rows,
)
from gliomark.reporting.report_input import ReportInput
from gliomark.reporting.report_texts import Language
from gliomark.reporting.writers import (
    encode_folder_name,
    list_default_formats,
    write_prediction,
    write_result_folder,
)

__all__ = [
    "FailedPatient",
    "Language",
    "ReportInput",
    "TableRow",
    "convert_to_comprehensive_sr",
    "create_failure_row",
    "create_table_row",
    "create_derivative_description",
    "add_notes_on_missing_outlines",
    "create_dicom_results",
    "create_structure_set_result",
    "encode_folder_name",
    "has_outline_on_source_images",
    "list_default_formats",
    "resample_mask_to_series",
    "read_predictions_table",
    "render_pdf",
    "check_dicom_source",
    "write_dicom_results",
    "write_structure_set",
    "write_prediction",
    "write_predictions_table",
    "write_result_folder",
    "write_table_rows",
]
