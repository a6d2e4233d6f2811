"""Routes for predictions: progress, result, mask, maps, reports and pathology results."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Annotated, Any, Literal
from zipfile import ZIP_DEFLATED, ZipFile

from anyio import to_thread
from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, StreamingResponse
from pydicom import Dataset

from gliomark.errors import GliomarkError
from gliomark.messages import message
from gliomark.reporting import render_pdf
from gliomark.reporting.html_report import render_contents_as_html
from gliomark.reporting.lesion_statistics import compute_lesion_statistics
from gliomark.reporting.nifti_mask import create_nifti_file
from gliomark.reporting.report_contents import create_report_contents
from gliomark.server.access_audit import MAX_LOGGED_STUDIES, set_audit_detail
from gliomark.server.database import FINAL_STATES, Caller, JobRow
from gliomark.server.dependencies import CallerDep, Server, ServerDep
from gliomark.server.dicom_results import load_or_create_dicom_results, load_or_create_structure_set
from gliomark.server.events import create_event_stream
from gliomark.server.schemas import (
    DICOM_RESPONSES,
    EVENT_RESPONSES,
    HTML_RESPONSES,
    NIFTI_RESPONSES,
    NO_NUL_PATTERN,
    NOT_FOUND_RESPONSES,
    NOT_READY_RESPONSES,
    PDF_RESPONSES,
    PNG_RESPONSES,
    ZIP_RESPONSES,
    JobResponse,
    PathologyRequest,
    PathologyResponse,
    create_job_response,
)

router = APIRouter(prefix="/api/predictions", tags=["predictions"])
Language = Literal["en", "zh"]


@router.get("")
def list_predictions(
    _: CallerDep,
    server: ServerDep,
    request: Request,
    patient_id: Annotated[str | None, Query(max_length=200, pattern=NO_NUL_PATTERN)] = None,
) -> list[JobResponse]:
    """List all predictions, or those of one patient, newest first."""
    rows = server.database.list_predictions(patient_id)
    if patient_id is not None:
        set_audit_detail(request, studies=sorted({row.study_id for row in rows})[:MAX_LOGGED_STUDIES])
    return [create_job_response(row) for row in rows]


@router.get("/{id}", responses=NOT_FOUND_RESPONSES)
def get_prediction(id: str, _: CallerDep, server: ServerDep) -> JobResponse:
    """Return the progress of a prediction, and its result once it is done."""
    return create_job_response(server.get_prediction(id))


@router.get("/{id}/events", response_class=StreamingResponse, responses=EVENT_RESPONSES)
def stream_prediction_events(id: str, caller: CallerDep, server: ServerDep) -> StreamingResponse:
    """Stream the prediction at every change until it is done, failed or cancelled."""
    server.get_prediction(id)
    return create_event_stream(
        server.row_watcher,
        caller.name,
        JobRow,
        id,
        create_job_response,
        lambda row: row.state in FINAL_STATES,
    )


@router.delete("/{id}", responses=NOT_FOUND_RESPONSES)
def cancel_prediction(id: str, caller: CallerDep, server: ServerDep) -> JobResponse:
    """Cancel a prediction; one that has ended is not changed.

    \f

    Raises
    ------
    HTTPException
        403 if it belongs to another user and the caller is no administrator.
    """
    current = server.get_prediction(id)
    if current.owner != caller.name and caller.role != "admin":
        raise HTTPException(403, message("not-your-prediction"))
    row = server.database.cancel_job(id, caller.name) or current
    if row.state == "cancelled" and current.state not in FINAL_STATES:
        server.worker_pool.cancel_job(id)
    return create_job_response(row)


@router.get("/{id}/mask.png", response_class=FileResponse, responses=PNG_RESPONSES)
def get_prediction_mask(id: str, _: CallerDep, server: ServerDep) -> FileResponse:
    """Return the lesion mask that the prediction used: one PNG, the slices below each other, values 0 and 255."""
    row = server.get_finished_prediction(id)
    return FileResponse(
        server.store.get_prediction_folder(row.study_id, id) / "mask.png", media_type="image/png"
    )


@router.get("/{id}/heat/{marker}.png", response_class=FileResponse, responses=PNG_RESPONSES)
async def get_heatmap(id: str, marker: str, caller: CallerDep, server: ServerDep) -> FileResponse:
    """Return the Grad-CAM map of a marker's middle branch: one PNG, the slices below each other.

    It is computed at the first request.

    \f

    Raises
    ------
    HTTPException
        404 if the prediction has no such marker, 500 if the map cannot be computed.
    """
    row = await to_thread.run_sync(server.get_finished_prediction, id)
    if marker not in list_markers(row):
        raise HTTPException(404, message("no-such-marker", marker=marker[:80]))
    path = server.store.get_prediction_folder(row.study_id, id) / f"heat_{marker}.png"
    if not path.exists():
        await _compute_heatmap(server, row, marker, caller)
    return FileResponse(path, media_type="image/png")


async def _compute_heatmap(server: Server, row: JobRow, marker: str, caller: Caller) -> None:
    """Let a worker compute the map and wait for it."""
    study = await to_thread.run_sync(server.get_study, row.study_id)
    job_request = {"prediction": row.id, "marker": marker}
    with server.row_watcher.acquire_slot(caller.name):
        job = await to_thread.run_sync(server.database.add_job, "explain", study, job_request, caller.name)
        server.worker_pool.notify_new_job()
        current = await server.row_watcher.wait_for_job(job.id)
    if current is None or current.state != "done":
        raise HTTPException(500, (current and current.error) or message("no-map"))


@router.get("/{id}/prediction.json", responses=NOT_READY_RESPONSES)
def get_prediction_document(id: str, _: CallerDep, server: ServerDep) -> dict[str, Any]:
    """Return ``prediction.json``, as written by the command line."""
    return server.get_finished_prediction(id).result or {}


@router.get("/{id}/report.html", response_class=Response, responses=HTML_RESPONSES)
async def get_html_report(
    id: str, _: CallerDep, server: ServerDep, language: Language = "en"
) -> HTMLResponse:
    """Return the report as one self-contained HTML page."""
    return HTMLResponse(await server.run_slow_function(_render_html_report, server, id, language))


def _render_html_report(server: Server, prediction_id: str, language: Language) -> str:
    row = server.get_finished_prediction(prediction_id)
    report_contents = create_report_contents(
        server.store.load_prediction(row.study_id, prediction_id), row.result or {}, language
    )
    return render_contents_as_html(report_contents, language)


@router.get("/{id}/report.pdf", response_class=Response, responses=PDF_RESPONSES)
async def get_pdf_report(id: str, _: CallerDep, server: ServerDep, language: Language = "en") -> Response:
    """Return the report as PDF."""
    return Response(
        await server.run_slow_function(_render_pdf_report, server, id, language), media_type="application/pdf"
    )


def _render_pdf_report(server: Server, prediction_id: str, language: Language) -> bytes:
    row = server.get_finished_prediction(prediction_id)
    return render_pdf(server.store.load_prediction(row.study_id, prediction_id), language)


@router.get("/{id}/segmentation.nii.gz", response_class=Response, responses=NIFTI_RESPONSES)
async def get_nifti_segmentation(id: str, _: CallerDep, server: ServerDep) -> Response:
    """Return the lesion mask as NIfTI on the grid of the images as they were read."""
    return Response(
        await server.run_slow_function(_create_nifti_file, server, id), media_type="application/gzip"
    )


def _create_nifti_file(server: Server, prediction_id: str) -> bytes:
    row = server.get_finished_prediction(prediction_id)
    return create_nifti_file(server.store.load_prediction(row.study_id, prediction_id))


@router.get("/{id}/statistics.json", responses=NOT_READY_RESPONSES)
async def get_lesion_statistics(id: str, _: CallerDep, server: ServerDep) -> dict[str, Any]:
    """Return volume, slices and intensities of this mask, as ``statistics.json`` of the command line."""
    return await server.run_slow_function(_compute_statistics, server, id)


def _compute_statistics(server: Server, prediction_id: str) -> dict[str, Any]:
    row = server.get_finished_prediction(prediction_id)
    return compute_lesion_statistics(server.store.load_prediction(row.study_id, prediction_id)).to_dict()


@router.get("/{id}/dicom.zip", response_class=Response, responses=ZIP_RESPONSES)
async def get_dicom_results(id: str, _: CallerDep, server: ServerDep, language: Language = "en") -> Response:
    """Return the DICOM results of a study that was sent as DICOM: segmentation, structured report and PDF."""
    return Response(
        await server.run_slow_function(_create_dicom_zip, server, id, language), media_type="application/zip"
    )


def _create_dicom_zip(server: Server, prediction_id: str, language: Language) -> bytes:
    row = server.get_finished_prediction(prediction_id)
    try:
        return create_zip(load_or_create_dicom_results(server.store, row, language, server.reader_pool))
    except GliomarkError as error:
        raise HTTPException(409, error.message) from None


@router.get("/{id}/structure_set.dcm", response_class=Response, responses=DICOM_RESPONSES)
async def get_structure_set(id: str, _: CallerDep, server: ServerDep) -> Response:
    """Return the lesion's outline, of a study that was sent as DICOM, as structure set (RTSTRUCT)."""
    return Response(
        await server.run_slow_function(_create_structure_set_file, server, id), media_type="application/dicom"
    )


def _create_structure_set_file(server: Server, prediction_id: str) -> bytes:
    row = server.get_finished_prediction(prediction_id)
    try:
        structure_set = load_or_create_structure_set(server.store, row, server.reader_pool)
    except GliomarkError as error:
        raise HTTPException(409, error.message) from None
    if structure_set is None:
        raise HTTPException(409, message("structure-set-empty"))
    content = BytesIO()
    structure_set.save_as(content, enforce_file_format=True)
    return content.getvalue()


def create_zip(results: Mapping[str, Dataset]) -> bytes:
    """Return a zip file of the DICOM objects; the keys are the file names."""
    buffer = BytesIO()
    with ZipFile(buffer, "w", ZIP_DEFLATED) as archive:
        for name, dataset in results.items():
            content = BytesIO()
            dataset.save_as(content, enforce_file_format=True)
            archive.writestr(name, content.getvalue())
    return buffer.getvalue()


@router.post("/{id}/truth", status_code=201, responses=NOT_READY_RESPONSES)
def add_pathology(
    id: str, pathology: PathologyRequest, caller: CallerDep, server: ServerDep
) -> PathologyResponse:
    """Record the pathology result of a marker.

    \f

    Raises
    ------
    HTTPException
        422 if the prediction has no such marker or the marker no such level.
    """
    row = server.get_finished_prediction(id)
    levels = {
        marker["name"]: (marker["positive"], marker["negative"])
        for model in server.worker_pool.model_descriptions
        for marker in model["markers"]
    }
    if pathology.marker not in list_markers(row):
        raise HTTPException(422, message("no-such-marker", marker=pathology.marker))
    if pathology.marker in levels and pathology.value not in levels[pathology.marker]:
        allowed_values = " or ".join(levels[pathology.marker])
        raise HTTPException(
            422,
            message("no-such-level", value=pathology.value, marker=pathology.marker, levels=allowed_values),
        )
    return PathologyResponse.model_validate(
        server.database.add_pathology(row, pathology.marker, pathology.value, pathology.note, caller.name)
    )


@router.get("/{id}/truth", responses=NOT_FOUND_RESPONSES)
def list_pathology(id: str, _: CallerDep, server: ServerDep) -> list[PathologyResponse]:
    """List the pathology results recorded for a prediction, newest first."""
    rows = server.database.list_pathology(server.get_prediction(id).id)
    return [PathologyResponse.model_validate(row) for row in rows]


def list_markers(row: JobRow) -> list[str]:
    """Return the names of the predicted markers."""
    return [marker["marker"] for marker in (row.result or {})["markers"]]
