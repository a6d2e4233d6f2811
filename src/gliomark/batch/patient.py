"""Predict one patient of a batch: read, predict, write the results; a failure is part of the result."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gliomark.batch.finished_results import compute_request_key, write_request
from gliomark.batch.options import PredictionOptions
from gliomark.errors import DATA_ERRORS, GliomarkError
from gliomark.files import is_disk_full_error
from gliomark.io import ClinicalTable, read_study
from gliomark.io.masks import SeriesGrid
from gliomark.io.masks.reader_mask import ReaderMask, read_reader_mask
from gliomark.isolation import ReadExecutor
from gliomark.messages import message
from gliomark.model_loading import Model
from gliomark.pipeline import PreparedStudy, check_prediction_arguments, predict_prepared, prepare_study
from gliomark.prediction import Prediction
from gliomark.reporting import (
    FailedPatient,
    ReportInput,
    TableRow,
    add_notes_on_missing_outlines,
    check_dicom_source,
    create_failure_row,
    create_table_row,
    write_result_folder,
)
from gliomark.study import ClinicalData, Study


@dataclass(frozen=True, eq=False)
class BatchSettings:
    """What is the same for all patients of a batch.

    Attributes
    ----------
    output_folder
        Where results are written.
    table
        The clinical table, None if there is none.
    options
        How patients are predicted.
    weights_sha256, signature
        Hash of the weights, and who signed them.
    software_version
        Version of gliomark.
    """

    output_folder: Path
    table: ClinicalTable | None
    options: PredictionOptions
    weights_sha256: str
    signature: str
    software_version: str

    def compute_key(self, folder: Path) -> str:
        """Return the key of the results of a patient's folder; blank if the folder cannot be read."""
        with suppress(OSError):
            return compute_request_key(
                folder, self.options, self.weights_sha256, self.signature, self.software_version
            )
        return ""

    def find_clinical_data(self, patient_id: str) -> ClinicalData:
        """Return age and sex of a patient; both are unknown without a table.

        Raises
        ------
        InputError
            If there is no row, or age or sex is missing although required, or not possible.
        """
        if self.table is None:
            return ClinicalData(patient_id, None, None)
        return self.table.get_row(patient_id, require_age_sex=not self.options.allows_missing_clinical)


@dataclass(frozen=True)
class PatientResult:
    """Result of one patient, without images.

    Attributes
    ----------
    number
        Index of the patient's folder in the batch.
    patient_id
        None if the images could not be read.
    key
        What the results were made from.
    row
        The row of ``predictions.csv``; None after a failure.
    failure
        The reason; None if the results were written.
    is_reused
        Whether an earlier run wrote the results.
    """

    number: int
    patient_id: str | None = None
    key: str = ""
    row: TableRow | None = None
    failure: FailedPatient | None = None
    is_reused: bool = False

    @property
    def table_row(self) -> TableRow:
        """The row of the prediction or of the failure."""
        return create_failure_row(self.failure) if self.failure is not None else self.row or {}


@dataclass(frozen=True, eq=False)
class PatientPredictor:
    """Predicts patients with a loaded model.

    reader_pool: where images are read. check_id: called with id and folder of a patient whose images were read; raises
    InputError if the patient must not be predicted.
    """

    settings: BatchSettings
    model: Model
    reader_pool: ReadExecutor
    check_id: Callable[[str, Path], None] = lambda *_: None

    def predict_patient(
        self, number: int, folder: Path, report_step: Callable[[str], None] = lambda _: None
    ) -> PatientResult:
        """Predict one patient and write the results.

        Parameters
        ----------
        number
            Index of the folder in the batch.
        folder
            The patient's folder.
        report_step
            Called with the name of each step, see ``pipeline.describe_step``, or "write".

        Returns
        -------
        PatientResult
            With the row of the table or the failure.

        Raises
        ------
        FileWriteError
            If the disk is full.
        """
        result = PatientResult(number, key=self.settings.compute_key(folder))
        try:
            report_step("read")
            study = self.reader_pool(folder, read_study, folder, required_sequences=self.model.sequences)
            self.check_id(study.patient_id, folder)
            result = replace(result, patient_id=study.patient_id)
            if self.settings.options.writes_dicom or self.settings.options.writes_rtstruct:
                self.reader_pool(folder, check_dicom_source, _drop_images(study))
            prediction = self._predict(study, report_step)
            report_step("write")
            return replace(result, row=self._write(prediction, result.key))
        except GliomarkError as error:
            if is_disk_full_error(error):
                raise  # the remaining patients would fail as well, after minutes each
            return replace(result, failure=FailedPatient(result.patient_id or folder.name, error.message))
        except DATA_ERRORS as error:
            reason, kind = " ".join(str(error).split())[-200:], type(error).__name__
            error_message = message("not-predicted", folder=folder, kind=kind, reason=reason)
            return replace(result, failure=FailedPatient(result.patient_id or folder.name, error_message))

    def _predict(self, study: Study, report_step: Callable[[str], None]) -> Prediction:
        """Predict one patient from the images that were read, on the reader's segmentation if one is given."""
        options = self.settings.options
        clinical = self.settings.find_clinical_data(study.patient_id)
        check_prediction_arguments(study, clinical, options.fusion_rule, options.has_enhancing_focus)
        prepared = prepare_study(study, self.model, report_step, self.reader_pool)
        given = None
        if options.mask_file is not None:
            given = _read_reader_mask(options.mask_file, prepared, self.reader_pool)
        prediction = predict_prepared(
            prepared,
            clinical,
            self.model,
            fusion=options.fusion_rule,
            has_enhancing_focus=options.has_enhancing_focus,
            levels=options.levels,
            reader_mask=None if given is None else given.mask,
            locates_lesion=options.locates_lesion,
            notify=report_step,
        )
        return prediction if given is None else replace(prediction, notes=(*prediction.notes, *given.notes))

    def _write(self, prediction: Prediction, key: str) -> TableRow:
        """Write the results with the record of what they were made from, and return the row of the table."""
        options = self.settings.options
        prediction = add_notes_on_missing_outlines(prediction, options.formats)
        report_input = ReportInput(prediction, options.language, self.reader_pool)
        write_result_folder(
            report_input,
            self.settings.output_folder,
            options.formats,
            lambda folder: write_request(folder, key, prediction.clinical),
        )
        return create_table_row(report_input.document)


def _read_reader_mask(file: Path, prepared: PreparedStudy, reader_pool: ReadExecutor) -> ReaderMask:
    """Read the segmentation that the user gives, on the grid of the prepared stack."""
    study, stack = prepared.study, prepared.stack
    if study.lesion is not None and stack.lesion is not None and _is_same_path(file, study.lesion.source):
        return ReaderMask(stack.lesion, (message("mask-from-file", file=file.name),))
    grids = {name: SeriesGrid.from_series(series) for name, series in study.series.items()}
    grid = SeriesGrid(stack.brain.shape, stack.affine, stack.slice_names, study.source)
    mask: ReaderMask = reader_pool(file, read_reader_mask, file, grids, grid, stack.to_stack)
    return mask


def _is_same_path(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _drop_images(study: Study) -> Study:
    """Drop the images, because the reader process needs only the metadata of the source files."""
    empty = np.empty((0, 0, 0), np.float32)
    series = {
        name: replace(sequence_series, image=empty, missing=None)
        for name, sequence_series in study.series.items()
    }
    return replace(study, series=series, lesion=None)
