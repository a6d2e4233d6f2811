"""Read pictures, volumes or DICOM files of one patient into a Study, and read the clinical table.

``readers`` lists the formats, one module each; ``study_reader`` chooses among them for a patient's folder.
"""

from gliomark.io.bids import derive_patient_id, list_bids_subjects
from gliomark.io.nnunet import DatasetSplits, read_splits
from gliomark.io.study_reader import find_non_dicom_patients, find_patients, list_patient_files, read_study
from gliomark.tables import ClinicalTable, read_clinical_table

__all__ = [
    "ClinicalTable",
    "DatasetSplits",
    "derive_patient_id",
    "find_non_dicom_patients",
    "find_patients",
    "list_bids_subjects",
    "list_patient_files",
    "read_clinical_table",
    "read_splits",
    "read_study",
]
