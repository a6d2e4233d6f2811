"""A folder of patients through the pipeline: one failure does not stop the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.progress import Progress

from gliomark.files import NotWrittenError, check_writable, is_disk_full, remove_leftovers
from gliomark.inference.fusion import FusionRule
from gliomark.io import ClinicalTable, find_patients, read_clinical, read_study
from gliomark.isolation import ReadingProcesses, Reads
from gliomark.messages import message
from gliomark.models.signatures import Trust
from gliomark.pipeline import Model, load_model, predict
from gliomark.reporting import Failure, Language, read_table, require_dicom, write_prediction, write_table
from gliomark.study import UNFORESEEN, Clinical, GliomarkError, Prediction, Study


@dataclass(frozen=True)
class Request:
    """What the user asked for besides the images. trust: whose weights may be loaded."""

    model: str = "demo"
    fusion: FusionRule = "near"
    enhancing: bool | None = None
    language: Language = "en"
    without_clinical: bool = False
    pdf: bool = False
    dicom: bool = False
    trust: Trust = Trust()


def predict_folder(
    root: Path,
    clinical: Path | None,
    out: Path,
    request: Request,
    say: Callable[[str], None],
    reading: Reads | None = None,
) -> list[Failure]:
    """Predict every patient under ``root``, write their folders and ``predictions.csv``; the failures.

    Raises GliomarkError for what concerns them all: no patient, a bad table, bad weights, ``out`` not
    writable. ``say`` gets each report's path. reading: where the images are read, a process of its own by default.
    """
    if reading is None:
        with ReadingProcesses() as reading:
            return predict_folder(root, clinical, out, request, say, reading)
    if clinical is None and not request.without_clinical:
        raise GliomarkError(message("clinical-not-given"))
    table = None if clinical is None else read_clinical(clinical)
    folders = reading(root, find_patients, root)
    model = load_model(request.model, request.trust)
    check_writable(out)
    remove_leftovers(out)
    read_table(out / "predictions.csv")  # a stranger's file of this name is found before the work is done
    rows: list[Prediction | Failure] = []
    taken: dict[str, Path] = {}
    try:
        with Progress(transient=True, disable=len(folders) == 1) as progress:
            for folder in progress.track(folders, description="patients"):
                rows.append(_one(folder, table, out, model, request, say, taken, reading))
    except NotWrittenError:
        with suppress(NotWrittenError):  # the table may still have room where a patient has none
            _write_table(rows, out)
        raise
    _write_table(rows, out)
    return [row for row in rows if isinstance(row, Failure)]


def _write_table(rows: Sequence[Prediction | Failure], out: Path) -> None:
    """Unless nobody could be predicted."""
    if any(isinstance(row, Prediction) for row in rows):
        write_table(rows, out / "predictions.csv")


def _one(
    folder: Path,
    table: ClinicalTable | None,
    out: Path,
    model: Model,
    request: Request,
    say: Callable[[str], None],
    taken: dict[str, Path],
    reading: Reads,
) -> Prediction | Failure:
    """One patient's answer, written, or why there is none. taken: the ids so far, each with its folder."""
    try:
        study = reading(folder, read_study, folder, needed=model.sequences)
        if taken.setdefault(study.patient_id, folder) != folder:
            other = str(taken[study.patient_id])
            told = message("patient-twice", folder=folder, patient=study.patient_id, other=other)
            raise GliomarkError(told)
        if request.dicom:
            reading(folder, require_dicom, _without_images(study))
        row = _row(study, table, request.without_clinical)
        prediction = predict(
            study, row, model, fusion=request.fusion, enhancing=request.enhancing, reading=reading
        )
        written = write_prediction(
            prediction, out, language=request.language, pdf=request.pdf, dicom=request.dicom, reading=reading
        )
        say(str(written / "report.html"))
        return prediction
    except GliomarkError as error:
        if is_disk_full(error):
            raise  # the others would come to the same end, after minutes each
        return Failure(folder.name, error.message)
    except UNFORESEEN as error:
        reason, kind = " ".join(str(error).split())[-200:], type(error).__name__
        return Failure(folder.name, message("not-predicted", folder=folder, kind=kind, reason=reason))


def _without_images(study: Study) -> Study:
    """What is known of the source files, which alone has to travel where their headers are read."""
    empty = np.empty((0, 0, 0), np.float32)
    series = {name: replace(one, image=empty, missing=None) for name, one in study.series.items()}
    return replace(study, series=series, lesion=None)


def _row(study: Study, table: ClinicalTable | None, without_clinical: bool) -> Clinical:
    if table is None:
        return Clinical(study.patient_id, None, None)
    return table.row(study.patient_id, require_age_sex=not without_clinical)
