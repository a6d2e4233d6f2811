"""The registry of outputs, and the result files of one patient, written completely or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from gliomark.errors import ConfigurationError, InputError
from gliomark.files import atomic_folder, convert_write_errors, iterate_files
from gliomark.isolation import ReadExecutor, run_in_this_process
from gliomark.messages import message
from gliomark.prediction import Prediction
from gliomark.reporting import bids_mask, html_report, nifti_mask, pdf_writer, png_masks, prediction_json
from gliomark.reporting.dicom import results as dicom_results
from gliomark.reporting.report_input import ReportInput
from gliomark.reporting.report_texts import Language
from gliomark.reporting.result_writer import Writer

WRITERS: Mapping[str, Writer] = {
    writer.name: writer
    for writer in (
        prediction_json.WRITER,
        html_report.WRITER,
        png_masks.WRITER,
        nifti_mask.WRITER,
        bids_mask.WRITER,
        pdf_writer.WRITER,
        dicom_results.WRITER,
        dicom_results.STRUCTURE_SET_WRITER,
    )
}
FORBIDDEN_IN_FILE_NAMES = re.compile(
    r'[%<>:"/\\|?*\x00-\x1f]|^\.+|[. ]+$'
)  # forbidden on Windows, Linux or macOS


def write_prediction(
    prediction: Prediction,
    folder: Path | str,
    *,
    formats: Collection[str] | None = None,
    language: Language = "en",
    reader_pool: ReadExecutor = run_in_this_process,
) -> Path:
    """Write the result files of one patient into ``folder/<patient id>``.

    The folder appears at once; if anything fails, an earlier result stays unchanged.

    Parameters
    ----------
    prediction
        Result of ``predict``.
    folder
        Output folder; the patient's folder is created in it and replaces an earlier result.
    formats
        Names of the ``WRITERS`` to use: "json", "html", "png", "nifti", "bids", "pdf", "dicom",
        "rtstruct". None: ``list_default_formats()``, which are the first four.
    language
        Language of the reports: "en" or "zh".
    reader_pool
        Runs the reading of the source DICOM headers; by default in this process.

    Returns
    -------
    Path
        The patient's folder.

    Raises
    ------
    ConfigurationError
        If a format is unknown.
    InputError
        If the patient id is empty, or DICOM is requested for images that were not read from DICOM.
    FileWriteError
        If the folder cannot be written, or contains files that are not a result of gliomark.

    Examples
    --------
    >>> gliomark.write_prediction(prediction, "results")
    PosixPath('results/P001')
    """
    selected = list_default_formats() if formats is None else tuple(formats)
    report_input = ReportInput(
        dicom_results.add_notes_on_missing_outlines(prediction, selected), language, reader_pool
    )
    return write_result_folder(report_input, Path(folder), selected)


def write_result_folder(
    report_input: ReportInput,
    folder: Path,
    formats: Collection[str],
    complete_folder: Callable[[Path], None] = lambda _: None,
) -> Path:
    """Write the result files of one patient, see ``write_prediction``.

    complete_folder: called with the temporary folder after the writers, to add further files.

    Raises
    ------
    ConfigurationError
        If a format is unknown.
    InputError
        If the patient id is empty, or DICOM is requested for images that were not read from DICOM.
    FileWriteError
        If the folder cannot be written, or contains files that are not a result of gliomark.
    """
    target = folder / encode_folder_name(report_input.prediction.patient_id)
    check_formats(formats)
    with convert_write_errors(target):
        _check_target_is_result(target)
    with atomic_folder(target) as partial_folder:
        for name, writer in WRITERS.items():
            if name in formats and writer.applies_to(report_input.prediction):
                writer.write(report_input, partial_folder)
        complete_folder(partial_folder)
    return target


def list_default_formats() -> tuple[str, ...]:
    """List the names of the writers that are used if no formats are selected."""
    return tuple(name for name, writer in WRITERS.items() if writer.is_default)


def check_formats(formats: Collection[str]) -> None:
    """Check that every format has a writer.

    Raises
    ------
    ConfigurationError
        If one has none.
    """
    if unknown := [name for name in formats if name not in WRITERS]:
        raise ConfigurationError(message("format-unknown", name=unknown[0], formats=", ".join(WRITERS)))


def encode_folder_name(patient_id: str) -> str:
    """Encode a patient id as a folder name; forbidden characters become %XX, so different ids stay different.

    Raises
    ------
    InputError
        If the id is empty.
    """
    if not patient_id.strip():
        raise InputError(message("id-empty"))
    return FORBIDDEN_IN_FILE_NAMES.sub(
        lambda found: "".join(f"%{ord(c):02X}" for c in found.group()), patient_id
    )


def _check_target_is_result(target: Path) -> None:
    """Check that the folder to be replaced contains an earlier result only, not the patient's images."""
    if not target.exists():
        return
    entries = {*target.glob("*"), *iterate_files(target)} if target.is_dir() else {target}
    outputs = [output for writer in WRITERS.values() for output in writer.outputs]
    for entry in sorted(entry for entry in entries if not entry.name.startswith(".")):
        name = entry.relative_to(target).as_posix()
        if not any(fnmatchcase(name, output) for output in outputs):
            raise InputError(message("not-a-result", folder=str(target), file=entry.name))
