"""What the doctor gets: the answer as JSON, as a page to read and print, and as masks on the images."""

from gliomark.reporting.masks import native_mask
from gliomark.reporting.report import Failure, folder_name, prediction_document, write_prediction, write_table
from gliomark.reporting.text import Language

__all__ = [
    "Failure",
    "Language",
    "folder_name",
    "native_mask",
    "prediction_document",
    "write_prediction",
    "write_table",
]
