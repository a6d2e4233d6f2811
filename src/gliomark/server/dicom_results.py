"""DICOM results of a prediction, created once: later requests return the same instances."""

from __future__ import annotations

from collections.abc import Mapping

from pydicom import Dataset, dcmread

from gliomark.isolation import ReadExecutor
from gliomark.reporting import (
    Language,
    has_outline_on_source_images,
    write_dicom_results,
    write_structure_set,
)
from gliomark.server.database import JobRow
from gliomark.server.study_store import StudyStore


def load_or_create_dicom_results(
    store: StudyStore, job: JobRow, language: Language, reader_pool: ReadExecutor
) -> Mapping[str, Dataset]:
    """Return the DICOM results by file name, the segmentation first; create them at the first call.

    Parameters
    ----------
    reader_pool
        Runs the reading of the source files' headers.

    Raises
    ------
    InputError
        If the study was not sent as DICOM.
    """
    folder = store.get_prediction_folder(job.study_id, job.id) / f"dicom_{language}"
    if not folder.exists():
        prediction = store.load_prediction(job.study_id, job.id)
        with store.fill_folder(folder) as unfinished_folder:
            reader_pool(
                store.get_input_folder(job.study_id),
                write_dicom_results,
                prediction,
                unfinished_folder,
                language,
            )
    return {file.name: dcmread(file) for file in sorted(folder.iterdir(), reverse=True)}


def load_or_create_structure_set(store: StudyStore, job: JobRow, reader_pool: ReadExecutor) -> Dataset | None:
    """Return the lesion's outline as structure set, created at the first call; None without a lesion.

    Parameters
    ----------
    reader_pool
        Runs the reading of the source files' headers.

    Raises
    ------
    InputError
        If the study was not sent as DICOM.
    """
    folder = store.get_prediction_folder(job.study_id, job.id) / "rtstruct"
    if not folder.exists():
        prediction = store.load_prediction(job.study_id, job.id)
        if not has_outline_on_source_images(prediction):
            return None
        with store.fill_folder(folder) as unfinished_folder:
            reader_pool(
                store.get_input_folder(job.study_id), write_structure_set, prediction, unfinished_folder
            )
    (file,) = folder.iterdir()
    return dcmread(file)
