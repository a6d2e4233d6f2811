"""What the doctor gets: the answer as JSON, as a page and a PDF to read, as masks on the images, and as DICOM."""

from gliomark.reporting.dicom import dicom_results, require_dicom, write_dicom_results
from gliomark.reporting.document import prediction_document
from gliomark.reporting.masks import native_mask
from gliomark.reporting.pdf import render_pdf
from gliomark.reporting.report import Failure, folder_name, read_table, write_prediction, write_table
from gliomark.reporting.text import Language

__all__ = [
    "Failure",
    "Language",
    "dicom_results",
    "folder_name",
    "native_mask",
    "prediction_document",
    "read_table",
    "render_pdf",
    "require_dicom",
    "write_dicom_results",
    "write_prediction",
    "write_table",
]
