"""Calls about studies: upload, look, correct, remove, and ask for a prediction."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path

from anyio import to_thread
from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import FileResponse, StreamingResponse

from gliomark.messages import message
from gliomark.server.bodies import limit_body
from gliomark.server.context import CallerDep, Server, ServerDep
from gliomark.server.documents import (
    EVENT_RESPONSES,
    NOT_FOUND_RESPONSES,
    NOT_READY_RESPONSES,
    PNG_REQUEST,
    PNG_RESPONSES,
    UPLOAD_REQUEST,
    UPLOAD_RESPONSES,
    JobResponse,
    LesionVolumeResponse,
    PredictionRequest,
    StudyResponse,
    create_job_response,
    create_study_response,
)
from gliomark.server.events import create_event_stream
from gliomark.server.records import Caller, StudyRow
from gliomark.server.store import decode_mask_png
from gliomark.server.uploads import check_free_disk, receive_form
from gliomark.study import GliomarkError

router = APIRouter(prefix="/api/studies", tags=["studies"])


@router.post("", status_code=201, openapi_extra=UPLOAD_REQUEST, responses=UPLOAD_RESPONSES)
async def upload_study(request: Request, caller: CallerDep, server: ServerDep) -> StudyResponse:
    """A patient's images: every file with its path inside the patient's folder as its name, or one zip."""
    limits, headers, received_folder = (
        server.request_limits,
        request.headers,
        server.store.choose_upload_folder(),
    )
    with server.upload_slots.acquire_slot(caller.name) as slot:
        check_free_disk(server.store.data_folder, limits, headers.get("content-length", ""))
        body = limit_body(
            request.receive, headers.get("content-length"), limits.max_upload_bytes, limits, slot
        )
        chunks = Request(request.scope, body).stream()
        form = await receive_form(headers.get("content-type", ""), chunks, received_folder, limits)
        row = await to_thread.run_sync(admit_upload, server, received_folder, form, caller.name)
    server.worker_pool.notify_new_job()
    return create_study_response(row)


def admit_upload(server: Server, received_folder: Path, form: Mapping[str, str], owner: str) -> StudyRow:
    """Read and record what was received; where that fails nothing is left. Raises GliomarkError."""
    try:
        model = form.get("model") or next(iter(server.model_files))
        if model not in server.model_files:
            raise GliomarkError(
                message("no-such-model", model=model[:80], known=" or ".join(server.model_files))
            )
        return server.admit_study(received_folder, model, owner, form.get("patient_id", ""))
    finally:
        shutil.rmtree(received_folder, ignore_errors=True)


@router.get("/{id}", responses=NOT_FOUND_RESPONSES)
def get_study(id: str, _: CallerDep, server: ServerDep) -> StudyResponse:
    """How far it is prepared, and what its pictures are."""
    return create_study_response(server.get_study(id))


@router.get("/{id}/events", response_class=StreamingResponse, responses=EVENT_RESPONSES)
def stream_study_events(id: str, caller: CallerDep, server: ServerDep) -> StreamingResponse:
    """The study at every change, until it is ready or failed."""
    server.get_study(id)
    return create_event_stream(
        server.row_watcher,
        caller.name,
        StudyRow,
        id,
        create_study_response,
        lambda row: row.state != "preparing",
    )


@router.get("/{id}/slices/{sequence}/{index}.png", response_class=FileResponse, responses=PNG_RESPONSES)
def get_slice_image(id: str, sequence: str, index: int, _: CallerDep, server: ServerDep) -> FileResponse:
    """16 bits: grey 0 to 65535 stands for the study's ``grey`` low to high."""
    about = server.get_ready_study(id).about
    if sequence not in about["sequences"] or not 0 <= index < about["shape"][0]:
        raise HTTPException(404, message("no-such-slice"))
    return FileResponse(server.store.get_slice_path(id, sequence, index), media_type="image/png")


@router.delete("/{id}", status_code=204, responses=NOT_FOUND_RESPONSES)
def delete_study(id: str, caller: CallerDep, server: ServerDep) -> None:
    """Images and results are removed; the records stay."""
    check_study_owner(server.get_study(id), caller)
    for job in server.database.delete_study(id, caller.name):
        server.worker_pool.cancel_job(job)
    server.store.remove_study(id)


def check_study_owner(row: StudyRow, caller: Caller) -> None:
    """Raises HTTPException 403 where somebody else's study would be changed."""
    if row.owner != caller.name and caller.role != "admin":
        raise HTTPException(403, message("not-your-study"))


@router.get("/{id}/mask.png", response_class=FileResponse, responses=PNG_RESPONSES)
def get_corrected_mask(id: str, _: CallerDep, server: ServerDep) -> FileResponse:
    """The doctor's outline, one tall picture: the slices below each other, 0 and 255."""
    sha256 = server.get_ready_study(id).correction
    if not sha256:
        raise HTTPException(404, message("not-corrected"))
    return FileResponse(server.store.get_correction_path(id, sha256), media_type="image/png")


@router.get("/{id}/found.png", response_class=FileResponse, responses=PNG_RESPONSES)
def get_supplied_mask(id: str, _: CallerDep, server: ServerDep) -> FileResponse:
    """The lesion mask that came with the images, of the same form; it is used only if it is sent back."""
    if not server.get_ready_study(id).about.get("found_outline"):
        raise HTTPException(404, message("no-found-outline"))
    return FileResponse(server.store.get_supplied_mask_path(id), media_type="image/png")


@router.put("/{id}/mask.png", openapi_extra=PNG_REQUEST, responses=NOT_READY_RESPONSES | UPLOAD_RESPONSES)
async def save_corrected_mask(
    id: str, request: Request, caller: CallerDep, server: ServerDep
) -> LesionVolumeResponse:
    """Keep the doctor's outline, of the same form."""
    check_study_owner(await to_thread.run_sync(server.get_ready_study, id), caller)
    declared_length, limits = request.headers.get("content-length"), server.request_limits
    with server.upload_slots.acquire_slot(caller.name) as slot:
        body = limit_body(request.receive, declared_length, limits.max_mask_bytes, limits, slot)
        content = await Request(request.scope, body).body()
        return LesionVolumeResponse(
            lesion_volume_ml=await to_thread.run_sync(save_correction, server, id, content, caller)
        )


def save_correction(server: Server, study_id: str, content: bytes, caller: Caller) -> float:
    """Its volume in ml. Raises GliomarkError for what is no outline of this study."""
    about = server.get_ready_study(
        study_id
    ).about  # it may have been removed while the outline was on its way
    mask = decode_mask_png(content, tuple(about["shape"]))
    volume_ml = float(mask.sum()) * math.prod(about["spacing_mm"]) / 1000
    server.database.set_correction(study_id, server.store.save_correction(study_id, mask), caller.name)
    return volume_ml


@router.delete("/{id}/mask.png", status_code=204, responses=NOT_FOUND_RESPONSES)
def delete_corrected_mask(id: str, caller: CallerDep, server: ServerDep) -> None:
    """Back to the model's outline."""
    row = server.get_study(id)
    check_study_owner(row, caller)
    if row.correction:
        server.database.set_correction(id, "", caller.name)


@router.post("/{id}/predictions", status_code=202, responses=NOT_READY_RESPONSES)
def request_prediction(
    id: str, prediction_request: PredictionRequest, caller: CallerDep, server: ServerDep
) -> JobResponse:
    """Predict; asked before the study is prepared, it waits for that."""
    row = server.get_study(id)
    if row.state == "failed":
        raise HTTPException(409, row.error or message("study-failed"))
    if not prediction_request.without_clinical and (
        prediction_request.age is None or prediction_request.sex is None
    ):
        raise HTTPException(422, message("age-or-sex-missing"))
    if prediction_request.outline == "corrected" and not row.correction:
        raise HTTPException(409, message("not-corrected"))
    job = server.database.add_job("predict", row, prediction_request.model_dump(), caller.name)
    server.worker_pool.notify_new_job()
    return create_job_response(job)
