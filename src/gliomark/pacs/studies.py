"""What is asked of a PACS, and what it answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pydicom import Dataset

from gliomark.errors import InputError
from gliomark.io.naming import normalise_patient_id
from gliomark.messages import message

_WILDCARDS = re.compile(r"[*?\\\x00-\x1f\x7f]")
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+")
_MAX_UID_LENGTH = 64


@dataclass(frozen=True)
class StudyQuery:
    """The study that is wanted; an attribute that is blank is not compared.

    Raises
    ------
    InputError
        If all are blank, one contains a wildcard of DICOM, or the UID is not valid.
    """

    accession_number: str = ""
    patient_id: str = ""
    study_uid: str = ""

    def __post_init__(self) -> None:
        attributes = self.create_attributes()
        if not attributes:
            raise InputError(message("pacs-query-empty"))
        for value in attributes.values():
            # a wildcard would ask for the studies of other patients
            if _WILDCARDS.search(value):
                raise InputError(message("pacs-query-wildcard", value=to_printable_text(value)))
        uid = attributes.get("StudyInstanceUID")
        if uid is not None and not is_uid(uid):
            raise InputError(message("pacs-query-uid", value=to_printable_text(uid)))

    def create_attributes(self) -> dict[str, str]:
        """Create the attributes to search for by keyword, only those that are known."""
        attributes = {
            "AccessionNumber": self.accession_number.strip(),
            "PatientID": self.patient_id.strip(),
            "StudyInstanceUID": self.study_uid.strip(),
        }
        return {keyword: value for keyword, value in attributes.items() if value}

    def is_answered_by(self, study: FoundStudy) -> bool:
        """Whether a study is what was asked for: some archives ignore an attribute that they do not index."""
        found = {
            "AccessionNumber": study.accession_number,
            "PatientID": study.patient_id,
            "StudyInstanceUID": study.uid,
        }
        return all(
            normalise_patient_id(found[keyword]) == normalise_patient_id(value)
            for keyword, value in self.create_attributes().items()
        )


@dataclass(frozen=True)
class FoundStudy:
    """A study in the PACS. Texts are printable; date: YYYYMMDD, or as the PACS states it."""

    uid: str
    patient_id: str
    accession_number: str
    date: str
    description: str

    @classmethod
    def from_dataset(cls, answer: Dataset) -> FoundStudy:
        """Create it from the answer to a query."""
        return cls(
            uid=get_answer_text(answer, "StudyInstanceUID"),
            patient_id=get_answer_text(answer, "PatientID"),
            accession_number=get_answer_text(answer, "AccessionNumber"),
            date=get_answer_text(answer, "StudyDate"),
            description=get_answer_text(answer, "StudyDescription"),
        )


class SeveralStudiesError(InputError):
    """More than one study fits; ``studies`` lists them."""

    def __init__(self, studies: Sequence[FoundStudy]) -> None:
        super().__init__(message("pacs-several-studies", count=len(studies)))
        self.studies = tuple(studies)


def get_answer_text(answer: Dataset, keyword: str) -> str:
    """Return an attribute of an answer as printable text; "" if it is missing or cannot be decoded."""
    try:
        value = answer.get(keyword)
    except (ValueError, TypeError, AttributeError, LookupError):  # raised by pydicom for a malformed value
        return ""
    return "" if value is None else to_printable_text(str(value)).strip()


def to_printable_text(text: str) -> str:
    """Replace what could control a terminal, and shorten the text."""
    return "".join(character if character.isprintable() else "?" for character in text[:200])


def is_uid(text: str) -> bool:
    """Whether a text is a DICOM UID."""
    return len(text) <= _MAX_UID_LENGTH and _UID.fullmatch(text) is not None
