"""Read one patient's DICOM folder: ``reader`` is the entry, the other modules are its steps."""

from gliomark.io.dicom.dataset_reader import DECODABLE_TRANSFER_SYNTAXES, read_header_start
from gliomark.io.dicom.examination_choice import choose_examination_series
from gliomark.io.dicom.instances import (
    Instance,
    find_dicom_files,
    has_dicom_files,
    is_dicom_file,
    is_frame_count_plausible,
    is_one_patient,
    read_instance,
)
from gliomark.io.dicom.reader import read_dicom, read_headers
from gliomark.io.dicom.series import DicomSeries, get_patient_identity, group_series
from gliomark.io.dicom.series_choice import choose_series, describe_contrast_ambiguity, explain_choice
from gliomark.io.dicom.unreadable_files import drop_incomplete_series, find_destroyed_files
from gliomark.io.dicom.volume import read_series

__all__ = [
    "DECODABLE_TRANSFER_SYNTAXES",
    "DicomSeries",
    "Instance",
    "choose_examination_series",
    "choose_series",
    "describe_contrast_ambiguity",
    "drop_incomplete_series",
    "explain_choice",
    "find_destroyed_files",
    "find_dicom_files",
    "get_patient_identity",
    "group_series",
    "has_dicom_files",
    "is_dicom_file",
    "is_frame_count_plausible",
    "is_one_patient",
    "read_dicom",
    "read_header_start",
    "read_headers",
    "read_instance",
    "read_series",
]
