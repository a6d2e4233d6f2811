"""Fetch one study from a PACS into a new folder: all that was announced, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gliomark.errors import InputError
from gliomark.files import atomic_folder
from gliomark.messages import message
from gliomark.pacs.pacs_client import Pacs
from gliomark.pacs.received_images import FETCHED_SOP_CLASSES, ReceivedImages
from gliomark.pacs.studies import (
    FoundStudy,
    SeveralStudiesError,
    StudyQuery,
    get_answer_text,
    is_uid,
    to_printable_text,
)

FETCHED_MODALITIES = ("MR", "SEG", "RTSTRUCT")
STUDY_ATTRIBUTES = ("StudyInstanceUID", "PatientID", "AccessionNumber", "StudyDate", "StudyDescription")


@dataclass(frozen=True)
class FetchedStudy:
    """A study that was fetched: number of series and of files."""

    study: FoundStudy
    series_count: int
    file_count: int


def fetch_study(pacs: Pacs, query: StudyQuery, folder: Path) -> FetchedStudy:
    """Fetch the MR images, segmentations and structure sets of a study.

    Parameters
    ----------
    pacs
        From ``open_pacs``.
    query
        Must fit exactly one study.
    folder
        Created; may exist if it is empty.

    Raises
    ------
    SeveralStudiesError
        If several studies fit.
    InputError
        If no study fits, it has no MR images, the folder is not empty, the transfer was incomplete, or the images are
        of another patient.
    ConfigurationError
        If the PACS is not reachable or refuses.
    FileWriteError
        If the folder cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(message("pacs-folder-taken", folder=folder))
    study = choose_study(pacs, query)
    announced = list_images(pacs, study)
    with atomic_folder(folder) as unfinished_folder:
        images = ReceivedImages(unfinished_folder, study.uid)
        for series_uid, image_uids in announced.items():
            pacs.fetch_series(study.uid, series_uid, images)
            received = len(image_uids & images.image_uids)
            if received < len(image_uids):
                raise InputError(
                    message(
                        "pacs-incomplete",
                        pacs=pacs.name,
                        received=received,
                        announced=len(image_uids),
                        series=series_uid,
                    )
                )
        if study.patient_id and (others := images.find_other_patient_ids(study.patient_id)):
            found = ", ".join(map(to_printable_text, others))
            raise InputError(
                message("pacs-other-patient", pacs=pacs.name, listed=study.patient_id, found=found)
            )
    return FetchedStudy(study, len(announced), len(images.image_uids))


def choose_study(pacs: Pacs, query: StudyQuery) -> FoundStudy:
    """Return the only study that fits.

    Raises
    ------
    SeveralStudiesError
        If several fit.
    InputError
        If none fits.
    """
    attributes = dict.fromkeys(STUDY_ATTRIBUTES, "") | query.create_attributes()
    answers = [FoundStudy.from_dataset(answer) for answer in pacs.search("STUDY", attributes)]
    studies = {study.uid: study for study in answers if is_uid(study.uid) and query.is_answered_by(study)}
    if not studies:
        raise InputError(message("pacs-nothing-found", pacs=pacs.name))
    if len(studies) > 1:
        raise SeveralStudiesError(sorted(studies.values(), key=lambda study: (study.date, study.uid)))
    return next(iter(studies.values()))


def list_images(pacs: Pacs, study: FoundStudy) -> Mapping[str, frozenset[str]]:
    """List the images to fetch: their SOP instance UIDs by SeriesInstanceUID.

    Raises
    ------
    InputError
        If there is no MR image, or the images of a series are not listed.
    """
    asked = {"StudyInstanceUID": study.uid, "SeriesInstanceUID": "", "Modality": ""}
    modalities = {
        get_answer_text(answer, "SeriesInstanceUID"): get_answer_text(answer, "Modality").upper()
        for answer in pacs.search("SERIES", asked)
    }
    announced = {
        series_uid: image_uids
        for series_uid, modality in modalities.items()
        if modality in ("", *FETCHED_MODALITIES)  # "": not stated; the class of each image decides
        and (image_uids := _list_image_uids(pacs, study.uid, series_uid))
    }
    if not any(modalities[series_uid] in ("", "MR") for series_uid in announced):
        raise InputError(message("pacs-no-mr-images", pacs=pacs.name, count=len(modalities)))
    return announced


def _list_image_uids(pacs: Pacs, study_uid: str, series_uid: str) -> frozenset[str]:
    """List the images of a series; screenshots and other objects that gliomark does not read are left out.

    Raises
    ------
    InputError
        If the PACS lists no object at all, so that the study would be incomplete.
    """
    asked = {
        "StudyInstanceUID": study_uid,
        "SeriesInstanceUID": series_uid,
        "SOPInstanceUID": "",
        "SOPClassUID": "",
    }
    # an invalid UID could contain a wildcard
    answers = pacs.search("IMAGE", asked) if is_uid(series_uid) else []
    if not answers:
        raise InputError(message("pacs-series-not-listed", pacs=pacs.name, series=series_uid))
    return frozenset(
        get_answer_text(answer, "SOPInstanceUID")
        for answer in answers
        if get_answer_text(answer, "SOPClassUID") in ("", *FETCHED_SOP_CLASSES)
    )
