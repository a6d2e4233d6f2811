"""The PDF report as a DICOM Encapsulated PDF object."""

from __future__ import annotations

from highdicom.base import SOPClass
from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from gliomark.prediction import Prediction
from gliomark.reporting.dicom.source_headers import (
    SeriesHeaders,
    create_series_attributes,
    format_current_datetime,
)


def create_encapsulated_pdf(prediction: Prediction, headers: SeriesHeaders, pdf: bytes) -> Dataset:
    """Create an Encapsulated PDF Storage object in the study of the source images."""
    document = SOPClass(
        study_instance_uid=headers.first.StudyInstanceUID,
        sop_class_uid=EncapsulatedPDFStorage,
        modality="DOC",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **create_series_attributes(prediction, 9003, "gliomark report, research use only"),
    )
    document.copy_patient_and_study_information(headers.first)
    document.ConversionType = "WSD"
    document.BurnedInAnnotation = "YES"  # the page shows the patient id
    document.AcquisitionDateTime = format_current_datetime()
    document.DocumentTitle = "Glioma markers predicted from MRI, research use only"
    document.ConceptNameCodeSequence = []
    document.MIMETypeOfEncapsulatedDocument = "application/pdf"
    document.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    document.EncapsulatedDocumentLength = len(pdf)
    document.SourceInstanceSequence = [_create_instance_reference(one) for one in headers.datasets]
    return document


def _create_instance_reference(header: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    return item
