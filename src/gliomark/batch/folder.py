"""Predict all patients of a folder; the failure of one does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from gliomark.batch.batch_results import BatchProgress, BatchResults
from gliomark.batch.finished_results import find_finished_results, read_finished_document, read_request
from gliomark.batch.options import BatchReport, BatchStep, PredictionOptions, RunOptions
from gliomark.batch.patient import BatchSettings, PatientPredictor, PatientResult
from gliomark.errors import ConfigurationError, GliomarkError, InputError
from gliomark.files import check_writable, remove_leftovers
from gliomark.inference.levels import check_level_options
from gliomark.io import ClinicalTable, find_patients, read_clinical_table
from gliomark.isolation import ReaderPool, ReadExecutor
from gliomark.messages import message
from gliomark.model_loading import Model, load_model, load_weights_by_name
from gliomark.models.shipped_weights import SHIPPED_MODELS
from gliomark.models.weights import Weights
from gliomark.pipeline import describe_step
from gliomark.reporting import create_table_row

# share of a patient's work that is done before a step; before a marker it is MARKER_COMPLETED
COMPLETED_BY_STEP = {"read": 0.0, "align": 0.1, "strip": 0.2, "slice": 0.6, "outline": 0.65, "write": 0.95}
MARKER_COMPLETED = 0.8


def predict_folder(
    input_folder: Path,
    clinical_table: Path | None,
    output_folder: Path,
    options: PredictionOptions,
    run_options: RunOptions = RunOptions(),
    *,
    notify: Callable[[str], None] = lambda _: None,
    reader_pool: ReadExecutor | None = None,
    report_step: Callable[[BatchStep], None] = lambda _: None,
) -> BatchReport:
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
    run_options
        Where patients are predicted, and whether finished ones are skipped.
    notify
        Called with the path of each new report.
    reader_pool
        Where images are read in this process; a new reader process by default.
    report_step
        Called before each step.

    Returns
    -------
    BatchReport
        Results, and patients who could not be predicted, with the reason.

    Raises
    ------
    InputError
        If there is no patient, the clinical table is not readable, or a segmentation is given for several patients.
    ConfigurationError
        If the clinical table is missing, or the scheduler or its workers cannot be used.
    WeightsError
        If the model cannot be loaded.
    FileWriteError
        If results cannot be written.
    """
    if reader_pool is None:
        with ReaderPool() as new_pool:
            return predict_folder(
                input_folder,
                clinical_table,
                output_folder,
                options,
                run_options,
                notify=notify,
                reader_pool=new_pool,
                report_step=report_step,
            )
    if clinical_table is None and not options.allows_missing_clinical:
        raise ConfigurationError(message("clinical-not-given"))
    table = None if clinical_table is None else read_clinical_table(clinical_table)
    if run_options.scheduler is not None:  # its workers have other working folders
        input_folder, output_folder = input_folder.absolute(), output_folder.absolute()
        options = _make_paths_absolute(options)
    report_step(BatchStep(message("step-read"), 0, 0))
    folders = _find_folders(input_folder, options, run_options, reader_pool)
    report_step(BatchStep(message("step-model"), 0, 0))
    model, settings = _prepare_settings(output_folder, table, options, run_options)
    check_writable(output_folder)
    remove_leftovers(output_folder)
    results = BatchResults(folders, settings, notify, run_options.writes_table)
    results.check_table()  # before hours of work
    with results.keep_table():
        if run_options.resumes:
            _reuse_finished_results(results, report_step)
        if model is None:
            _predict_on_workers(results, run_options, report_step)
        else:
            _predict_in_this_process(results, model, reader_pool, report_step)
    return results.create_report()


def _make_paths_absolute(options: PredictionOptions) -> PredictionOptions:
    is_file = options.model not in SHIPPED_MODELS
    model = str(Path(options.model).absolute()) if is_file else options.model
    mask_file = None if options.mask_file is None else options.mask_file.absolute()
    return replace(options, model=model, mask_file=mask_file)


def _find_folders(
    input_folder: Path, options: PredictionOptions, run_options: RunOptions, reader_pool: ReadExecutor
) -> Sequence[Path]:
    """Find the patients to predict, and check that a segmentation or a finding is given for one of them at most."""
    if options.mask_file is not None and not options.mask_file.exists():
        raise InputError(message("mask-absent", file=options.mask_file))
    folders: Sequence[Path] = reader_pool(input_folder, find_patients, input_folder)
    if run_options.folder_names is not None:
        folders = [folder for folder in folders if folder.name in run_options.folder_names]
    if options.mask_file is not None and len(folders) > 1:
        raise InputError(message("mask-many-patients", folder=input_folder, count=len(folders)))
    if options.has_enhancing_focus is not None and len(folders) > 1:
        raise InputError(message("finding-many-patients", folder=input_folder, count=len(folders)))
    return folders


def _prepare_settings(
    output_folder: Path, table: ClinicalTable | None, options: PredictionOptions, run_options: RunOptions
) -> tuple[Model | None, BatchSettings]:
    """Load the model, unless workers do so, and collect what is the same for all patients."""
    loaded: Model | Weights
    if run_options.uses_workers:
        import gliomark.cluster  # noqa: F401 - without its extra, the command ends here

        loaded = load_weights_by_name(options.model, options.trust)
    else:
        loaded = load_model(options.model, options.trust, device=options.device)
    check_level_options(options.levels, loaded.card.markers)
    if options.locates_lesion:
        from gliomark.location import check_atlas  # loads slowly, and few ask for it

        check_atlas()
    settings = BatchSettings(
        output_folder, table, options, loaded.sha256, loaded.signature, version("gliomark")
    )
    return (loaded if isinstance(loaded, Model) else None), settings


def _reuse_finished_results(results: BatchResults, report_step: Callable[[BatchStep], None]) -> None:
    """Take over the results of an earlier run that are complete and up to date."""
    finished = find_finished_results(results.settings.output_folder)
    count = len(results.folders)
    for number in range(count):
        report_step(BatchStep(message("step-resume"), number, count))
        if (found := _find_finished_result(results, number, finished)) is not None:
            results.pending.remove(number)
            results.add(found)


def _find_finished_result(
    results: BatchResults, number: int, finished: Mapping[str, Path]
) -> PatientResult | None:
    """Return the result of an earlier run for a folder, if it would be the same now."""
    settings = results.settings
    key = settings.compute_key(results.folders[number])
    result_folder = finished.get(key)
    record = None if result_folder is None else read_request(result_folder)
    if result_folder is None or record is None:
        return None
    try:
        is_current = record.agrees_with(settings.find_clinical_data(record.patient_id))
    except GliomarkError:
        return None
    document = read_finished_document(result_folder, record) if is_current else None
    if document is None:
        return None
    return PatientResult(number, record.patient_id, key, create_table_row(document), is_reused=True)


def _predict_in_this_process(
    results: BatchResults,
    model: Model,
    reader_pool: ReadExecutor,
    report_step: Callable[[BatchStep], None],
) -> None:
    """Predict the patients one after the other."""
    folders, count = results.folders, len(results.folders)
    while results.pending:
        number = results.pending.popleft()
        folder, done = folders[number], len(results.by_number)

        def report_patient_step(step: str, folder: Path = folder, done: int = done) -> None:
            text = describe_step(step, model.card)
            if count > 1:
                text = message("step-of-patient", patient=folder.name, step=text)
            report_step(BatchStep(text, done + COMPLETED_BY_STEP.get(step, MARKER_COMPLETED), count))

        check_id = partial(results.check_new_id, number)
        predictor = PatientPredictor(results.settings, model, reader_pool, check_id)
        results.add(predictor.predict_patient(number, folder, report_patient_step))


def _predict_on_workers(
    results: BatchResults, run_options: RunOptions, report_step: Callable[[BatchStep], None]
) -> None:
    """Predict the patients on worker processes."""
    if not results.pending:
        return
    from gliomark.batch.worker_processes import predict_on_workers

    progress = BatchProgress(results)
    report_step(progress.describe())
    try:
        for result in predict_on_workers(results.folders, results.pending, results.settings, run_options):
            results.add(result if run_options.scheduler is None else results.check_visible(result))
            report_step(progress.describe())
    finally:
        remove_leftovers(results.settings.output_folder)  # of workers that were interrupted
