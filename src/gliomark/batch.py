"""Predict a folder of patients; the failure of one does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.progress import Progress

from gliomark.errors import DATA_ERRORS, ConfigurationError, GliomarkError, InputError
from gliomark.files import FileWriteError, check_writable, is_disk_full_error, remove_leftovers
from gliomark.inference.fusion import FusionRule
from gliomark.io import ClinicalTable, find_patients, read_clinical_table, read_study
from gliomark.isolation import ReaderPool, ReadExecutor
from gliomark.messages import message
from gliomark.models.signatures import TrustPolicy
from gliomark.pipeline import Model, load_model, predict
from gliomark.reporting import (
    FailedPatient,
    Language,
    check_dicom_source,
    read_predictions_table,
    write_prediction,
    write_predictions_table,
)
from gliomark.study import ClinicalData, Prediction, Study


@dataclass(frozen=True)
class PredictionOptions:
    """Options of a prediction.

    Attributes
    ----------
    model
        Name of a shipped model or path of a weights file.
    fusion_rule
        How slice probabilities are fused.
    has_enhancing_focus
        The reader's finding, None if not given.
    language
        Language of the report.
    allows_missing_clinical
        Whether age and sex may be unknown.
    writes_pdf, writes_dicom
        Whether the report is also written as PDF, and the results as DICOM.
    trust
        Which signatures the weights file must carry.
    """

    model: str = "demo"
    fusion_rule: FusionRule = "near"
    has_enhancing_focus: bool | None = None
    language: Language = "en"
    allows_missing_clinical: bool = False
    writes_pdf: bool = False
    writes_dicom: bool = False
    trust: TrustPolicy = TrustPolicy()


def predict_folder(
    input_folder: Path,
    clinical_table: Path | None,
    output_folder: Path,
    options: PredictionOptions,
    notify: Callable[[str], None],
    reader_pool: ReadExecutor | None = None,
) -> list[FailedPatient]:
    """Predict all patients of a folder; write a folder per patient and ``predictions.csv``.

    Parameters
    ----------
    input_folder
        A patient's folder, or a folder of patients.
    clinical_table
        Table with age and sex; may be None if ``allows_missing_clinical``.
    output_folder
        Where results are written.
    options
        Options that apply to all patients.
    notify
        Called with the path of each report.
    reader_pool
        Where images are read; a new reader process by default.

    Returns
    -------
    list of Failure
        Patients who could not be predicted, with the reason.

    Raises
    ------
    InputError
        If there is no patient, or the clinical table is not readable.
    ConfigurationError
        If the clinical table is missing.
    WeightsError
        If the model cannot be loaded.
    FileWriteError
        If results cannot be written.
    """
    if reader_pool is None:
        with ReaderPool() as reader_pool:
            return predict_folder(input_folder, clinical_table, output_folder, options, notify, reader_pool)
    if clinical_table is None and not options.allows_missing_clinical:
        raise ConfigurationError(message("clinical-not-given"))
    table = None if clinical_table is None else read_clinical_table(clinical_table)
    folders = reader_pool(input_folder, find_patients, input_folder)
    model = load_model(options.model, options.trust)
    check_writable(output_folder)
    remove_leftovers(output_folder)
    read_predictions_table(
        output_folder / "predictions.csv"
    )  # raises before hours of work if this is a file of another program
    rows: list[Prediction | FailedPatient] = []
    folder_by_patient: dict[str, Path] = {}
    try:
        with Progress(transient=True, disable=len(folders) == 1) as progress:
            for folder in progress.track(folders, description="patients"):
                rows.append(
                    _predict_patient(
                        folder, table, output_folder, model, options, notify, folder_by_patient, reader_pool
                    )
                )
    except FileWriteError:
        with suppress(FileWriteError):  # the small table may still fit on a disk that is nearly full
            _write_table(rows, output_folder)
        raise
    _write_table(rows, output_folder)
    return [row for row in rows if isinstance(row, FailedPatient)]


def _write_table(rows: Sequence[Prediction | FailedPatient], out: Path) -> None:
    """Write ``predictions.csv`` if at least one patient was predicted."""
    if any(isinstance(row, Prediction) for row in rows):
        write_predictions_table(rows, out / "predictions.csv")


def _predict_patient(
    folder: Path,
    table: ClinicalTable | None,
    output_folder: Path,
    model: Model,
    options: PredictionOptions,
    notify: Callable[[str], None],
    folder_by_patient: dict[str, Path],
    reader_pool: ReadExecutor,
) -> Prediction | FailedPatient:
    """Predict one patient and write the results, or return the failure.

    folder_by_patient: the ids read so far, with their folders.
    """
    try:
        study = reader_pool(folder, read_study, folder, required_sequences=model.sequences)
        if folder_by_patient.setdefault(study.patient_id, folder) != folder:
            other_folder = str(folder_by_patient[study.patient_id])
            error_message = message(
                "patient-twice", folder=folder, patient=study.patient_id, other=other_folder
            )
            raise InputError(error_message)
        if options.writes_dicom:
            reader_pool(folder, check_dicom_source, _drop_images(study))
        row = _find_clinical_data(study, table, options.allows_missing_clinical)
        prediction = predict(
            study,
            row,
            model,
            fusion=options.fusion_rule,
            has_enhancing_focus=options.has_enhancing_focus,
            reader_pool=reader_pool,
        )
        patient_folder = write_prediction(
            prediction,
            output_folder,
            language=options.language,
            pdf=options.writes_pdf,
            dicom=options.writes_dicom,
            reader_pool=reader_pool,
        )
        notify(str(patient_folder / "report.html"))
        return prediction
    except GliomarkError as error:
        if is_disk_full_error(error):
            raise  # the remaining patients would fail as well, after minutes each
        return FailedPatient(folder.name, error.message)
    except DATA_ERRORS as error:
        reason, kind = " ".join(str(error).split())[-200:], type(error).__name__
        return FailedPatient(folder.name, message("not-predicted", folder=folder, kind=kind, reason=reason))


def _drop_images(study: Study) -> Study:
    """Drop the images, because the reader process needs only the metadata of the source files."""
    empty = np.empty((0, 0, 0), np.float32)
    series = {
        name: replace(sequence_series, image=empty, missing=None)
        for name, sequence_series in study.series.items()
    }
    return replace(study, series=series, lesion=None)


def _find_clinical_data(
    study: Study, table: ClinicalTable | None, allows_missing_clinical: bool
) -> ClinicalData:
    if table is None:
        return ClinicalData(study.patient_id, None, None)
    return table.get_row(study.patient_id, require_age_sex=not allows_missing_clinical)
