"""Results as DICOM objects in the study of the source images (``docs/dicom.md``)."""

from gliomark.reporting.dicom.results import (
    DICOM_FILES,
    add_notes_on_missing_outlines,
    convert_to_comprehensive_sr,
    create_dicom_results,
    create_structure_set_result,
    has_outline_on_source_images,
    write_dicom_results,
    write_structure_set,
)
from gliomark.reporting.dicom.source_headers import check_dicom_source

__all__ = [
    "DICOM_FILES",
    "check_dicom_source",
    "convert_to_comprehensive_sr",
    "add_notes_on_missing_outlines",
    "create_dicom_results",
    "create_structure_set_result",
    "has_outline_on_source_images",
    "write_dicom_results",
    "write_structure_set",
]
