"""A prediction's DICOM objects, made once: whoever asks again gets the same instances."""

from __future__ import annotations

from collections.abc import Mapping

from pydicom import Dataset, dcmread

from gliomark.reporting import Language, dicom_results
from gliomark.server.records import JobRow
from gliomark.server.store import Store


def kept_results(store: Store, job: JobRow, language: Language) -> Mapping[str, Dataset]:
    """By file name, the segmentation first. Raises GliomarkError for a study that did not come as DICOM."""
    folder = store.prediction(job.study_id, job.id) / f"dicom_{language}"
    if not folder.exists():
        results = dicom_results(store.load_prediction(job.study_id, job.id), language)
        with store.filling(folder) as part:
            for name, dataset in results.items():
                dataset.save_as(part / name, enforce_file_format=True)
    return {file.name: dcmread(file) for file in sorted(folder.iterdir(), reverse=True)}
