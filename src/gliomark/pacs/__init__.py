"""Find a study in a PACS and fetch its MR images, by DIMSE or by DICOMweb."""

from gliomark.pacs.address import DimseAddress, check_ae_title, is_loopback, parse_address
from gliomark.pacs.dicomweb import Credentials
from gliomark.pacs.fetch import FetchedStudy, fetch_study
from gliomark.pacs.pacs_client import DimseOptions, open_pacs
from gliomark.pacs.storage_commitment import CommitmentReport, parse_report, request_commitment
from gliomark.pacs.studies import FoundStudy, SeveralStudiesError, StudyQuery

__all__ = [
    "CommitmentReport",
    "Credentials",
    "DimseAddress",
    "DimseOptions",
    "FetchedStudy",
    "FoundStudy",
    "SeveralStudiesError",
    "StudyQuery",
    "check_ae_title",
    "fetch_study",
    "is_loopback",
    "open_pacs",
    "parse_address",
    "parse_report",
    "request_commitment",
]
