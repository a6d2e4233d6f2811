"""Predict a folder of patients; the failure of one does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from gliomark.errors import DATA_ERRORS, ConfigurationError, GliomarkError, InputError
from gliomark.files import FileWriteError, check_writable, is_disk_full_error, remove_leftovers
from gliomark.inference.fusion import FusionRule
from gliomark.io import ClinicalTable, find_patients, read_clinical_table, read_study
from gliomark.io.masks import SeriesGrid
from gliomark.io.masks.reader_mask import ReaderMask, read_reader_mask
from gliomark.isolation import ReaderPool, ReadExecutor
from gliomark.messages import message
from gliomark.models.signatures import TrustPolicy
from gliomark.pipeline import (
    Model,
    PreparedStudy,
    check_prediction_arguments,
    describe_step,
    load_model,
    predict_prepared,
    prepare_study,
)
from gliomark.prediction import Prediction
from gliomark.reporting import (
    FailedPatient,
    Language,
    check_dicom_source,
    encode_folder_name,
    list_default_formats,
    read_predictions_table,
    write_prediction,
    write_predictions_table,
)
from gliomark.study import ClinicalData, Study


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
    device
        Where the networks compute, see ``Model.to_device``.
    mask_file
        Segmentation to use in place of the network's; only for one patient.
    """

    model: str = "demo"
    fusion_rule: FusionRule = "near"
    has_enhancing_focus: bool | None = None
    language: Language = "en"
    allows_missing_clinical: bool = False
    writes_pdf: bool = False
    writes_dicom: bool = False
    trust: TrustPolicy = TrustPolicy()
    device: str = "cpu"
    mask_file: Path | None = None

    @property
    def formats(self) -> tuple[str, ...]:
        """The outputs to write: the default ones, and PDF and DICOM on request."""
        extra = (("pdf", self.writes_pdf), ("dicom", self.writes_dicom))
        return (*list_default_formats(), *(name for name, is_wanted in extra if is_wanted))


@dataclass(frozen=True)
class BatchStep:
    """A step of a batch before it starts.

    text: what is done, with the patient's folder if there are several patients; completed: patients predicted so far,
    with the fraction of the current one; total: number of patients, 0 while it is unknown.
    """

    text: str
    completed: float
    total: int


# share of a patient's work that is done before a step; before a marker it is MARKER_COMPLETED
COMPLETED_BY_STEP: Mapping[str, float] = {
    "read": 0.0,
    "align": 0.1,
    "strip": 0.2,
    "slice": 0.6,
    "outline": 0.65,
    "write": 0.95,
}
MARKER_COMPLETED = 0.8


def predict_folder(
    input_folder: Path,
    clinical_table: Path | None,
    output_folder: Path,
    options: PredictionOptions,
    notify: Callable[[str], None],
    reader_pool: ReadExecutor | None = None,
    report_step: Callable[[BatchStep], None] = lambda _: None,
    report_prediction: Callable[[Prediction], None] = lambda _: None,
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
    report_step
        Called before each step.
    report_prediction
        Called with each prediction after it is written.

    Returns
    -------
    list of FailedPatient
        Patients who could not be predicted, with the reason.

    Raises
    ------
    InputError
        If there is no patient, the clinical table is not readable, or a segmentation is given for several patients.
    ConfigurationError
        If the clinical table is missing.
    WeightsError
        If the model cannot be loaded.
    FileWriteError
        If results cannot be written.
    """
    if reader_pool is None:
        with ReaderPool() as reader_pool:
            return predict_folder(
                input_folder,
                clinical_table,
                output_folder,
                options,
                notify,
                reader_pool,
                report_step,
                report_prediction,
            )
    if clinical_table is None and not options.allows_missing_clinical:
        raise ConfigurationError(message("clinical-not-given"))
    table = None if clinical_table is None else read_clinical_table(clinical_table)
    if options.mask_file is not None and not options.mask_file.exists():
        raise InputError(message("mask-absent", file=options.mask_file))
    report_step(BatchStep(message("step-read"), 0, 0))
    folders = reader_pool(input_folder, find_patients, input_folder)
    if options.mask_file is not None and len(folders) > 1:
        raise InputError(message("mask-many-patients", folder=input_folder, count=len(folders)))
    report_step(BatchStep(message("step-model"), 0, 0))
    model = load_model(options.model, options.trust, device=options.device)
    check_writable(output_folder)
    remove_leftovers(output_folder)
    read_predictions_table(
        output_folder / "predictions.csv"
    )  # raises before hours of work if this is a file of another program
    batch = _Batch(folders, table, output_folder, model, options, reader_pool, report_step)
    rows: list[Prediction | FailedPatient] = []
    try:
        for number in range(len(folders)):
            row = batch.predict_patient(number)
            rows.append(row)
            if isinstance(row, Prediction):
                notify(str(output_folder / encode_folder_name(row.patient_id) / "report.html"))
                report_prediction(row)
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


@dataclass(frozen=True)
class _Batch:
    """The patients of a batch and what is the same for all; folder_by_patient: the ids read so far."""

    folders: Sequence[Path]
    table: ClinicalTable | None
    output_folder: Path
    model: Model
    options: PredictionOptions
    reader_pool: ReadExecutor
    report_step: Callable[[BatchStep], None]
    folder_by_patient: dict[str, Path] = field(default_factory=dict)

    def predict_patient(self, number: int) -> Prediction | FailedPatient:
        """Predict one patient, by index from 0, and write the results, or return the failure."""
        folder = self.folders[number]
        try:
            prediction = self._predict(number, self._read_study(number))
            self._report_step(number, "write")
            write_prediction(
                prediction,
                self.output_folder,
                language=self.options.language,
                formats=self.options.formats,
                reader_pool=self.reader_pool,
            )
            return prediction
        except GliomarkError as error:
            if is_disk_full_error(error):
                raise  # the remaining patients would fail as well, after minutes each
            return FailedPatient(folder.name, error.message)
        except DATA_ERRORS as error:
            reason, kind = " ".join(str(error).split())[-200:], type(error).__name__
            error_message = message("not-predicted", folder=folder, kind=kind, reason=reason)
            return FailedPatient(folder.name, error_message)

    def _read_study(self, number: int) -> Study:
        """Read the images, and check that the patient is new and the results can be written as requested."""
        self._report_step(number, "read")
        folder = self.folders[number]
        study = self.reader_pool(folder, read_study, folder, required_sequences=self.model.sequences)
        other = self.folder_by_patient.setdefault(study.patient_id, folder)
        if other != folder:
            raise InputError(
                message("patient-twice", folder=folder, patient=study.patient_id, other=str(other))
            )
        if self.options.writes_dicom:
            self.reader_pool(folder, check_dicom_source, _drop_images(study))
        return study

    def _predict(self, number: int, study: Study) -> Prediction:
        """Predict one patient from the images that were read, on the reader's segmentation if one is given."""
        options = self.options
        clinical = _find_clinical_data(study, self.table, options.allows_missing_clinical)
        check_prediction_arguments(study, clinical, options.fusion_rule, options.has_enhancing_focus)
        report_progress = partial(self._report_step, number)
        prepared = prepare_study(study, self.model, report_progress, self.reader_pool)
        given = None
        if options.mask_file is not None:
            given = _read_reader_mask(options.mask_file, prepared, self.reader_pool)
        prediction = predict_prepared(
            prepared,
            clinical,
            self.model,
            fusion=options.fusion_rule,
            has_enhancing_focus=options.has_enhancing_focus,
            reader_mask=None if given is None else given.mask,
            notify=report_progress,
        )
        return prediction if given is None else replace(prediction, notes=(*prediction.notes, *given.notes))

    def _report_step(self, number: int, step: str) -> None:
        """Report a step; any other name than those of ``COMPLETED_BY_STEP`` is a marker's."""
        count, text = len(self.folders), describe_step(step, self.model.card)
        if count > 1:
            text = message("step-of-patient", patient=self.folders[number].name, step=text)
        self.report_step(BatchStep(text, number + COMPLETED_BY_STEP.get(step, MARKER_COMPLETED), count))


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


def _find_clinical_data(
    study: Study, table: ClinicalTable | None, allows_missing_clinical: bool
) -> ClinicalData:
    if table is None:
        return ClinicalData(study.patient_id, None, None)
    return table.get_row(study.patient_id, require_age_sex=not allows_missing_clinical)
