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
from gliomark.server.bodies import guarded
from gliomark.server.context import Asking, Here, Server
from gliomark.server.documents import (
    EVENTS,
    NO_SUCH,
    NOT_YET,
    PICTURE,
    PNG,
    UPLOAD,
    UPLOADED,
    Asked,
    JobOut,
    StudyOut,
    Volume,
    job_out,
    study_out,
)
from gliomark.server.events import stream
from gliomark.server.records import Caller, StudyRow
from gliomark.server.store import read_mask
from gliomark.server.uploads import check_room, receive_form
from gliomark.study import GliomarkError

router = APIRouter(prefix="/api/studies", tags=["studies"])


@router.post("", status_code=201, openapi_extra=UPLOAD, responses=UPLOADED)
async def upload(request: Request, caller: Asking, server: Here) -> StudyOut:
    """A patient's images: every file with its path inside the patient's folder as its name, or one zip."""
    limits, headers, received = server.limits, request.headers, server.store.upload()
    with server.inlet.place(caller.name) as place:
        check_room(server.store.folder, limits, headers.get("content-length", ""))
        body = guarded(request.receive, headers.get("content-length"), limits.bytes, limits, place)
        pieces = Request(request.scope, body).stream()
        form = await receive_form(headers.get("content-type", ""), pieces, received, limits)
        row = await to_thread.run_sync(take_in, server, received, form, caller.name)
    server.workers.look()
    return study_out(row)


def take_in(server: Server, received: Path, form: Mapping[str, str], owner: str) -> StudyRow:
    """Read and record what was received; where that fails nothing is left. Raises GliomarkError."""
    try:
        model = form.get("model") or next(iter(server.models))
        if model not in server.models:
            raise GliomarkError(message("no-such-model", model=model[:80], known=" or ".join(server.models)))
        return server.admit(received, model, owner, form.get("patient_id", ""))
    finally:
        shutil.rmtree(received, ignore_errors=True)


@router.get("/{id}", responses=NO_SUCH)
def study(id: str, _: Asking, server: Here) -> StudyOut:
    """How far it is prepared, and what its pictures are."""
    return study_out(server.study(id))


@router.get("/{id}/events", response_class=StreamingResponse, responses=EVENTS)
def study_events(id: str, caller: Asking, server: Here) -> StreamingResponse:
    """The study at every change, until it is ready or failed."""
    server.study(id)
    return stream(server.watch, caller.name, StudyRow, id, study_out, lambda row: row.state != "preparing")


@router.get("/{id}/slices/{sequence}/{index}.png", response_class=FileResponse, responses=PNG)
def slice_picture(id: str, sequence: str, index: int, _: Asking, server: Here) -> FileResponse:
    """16 bits: grey 0 to 65535 stands for the study's ``grey`` low to high."""
    about = server.ready(id).about
    if sequence not in about["sequences"] or not 0 <= index < about["shape"][0]:
        raise HTTPException(404, message("no-such-slice"))
    return FileResponse(server.store.slice(id, sequence, index), media_type="image/png")


@router.delete("/{id}", status_code=204, responses=NO_SUCH)
def delete_study(id: str, caller: Asking, server: Here) -> None:
    """Images and results are removed; the records stay."""
    own(server.study(id), caller)
    for job in server.records.delete_study(id, caller.name):
        server.workers.cancel(job)
    server.store.remove(id)


def own(row: StudyRow, caller: Caller) -> None:
    """Raises HTTPException 403 where somebody else's study would be changed."""
    if row.owner != caller.name and caller.role != "admin":
        raise HTTPException(403, message("not-your-study"))


@router.get("/{id}/mask.png", response_class=FileResponse, responses=PNG)
def corrected(id: str, _: Asking, server: Here) -> FileResponse:
    """The doctor's outline, one tall picture: the slices below each other, 0 and 255."""
    sha256 = server.ready(id).correction
    if not sha256:
        raise HTTPException(404, message("not-corrected"))
    return FileResponse(server.store.correction(id, sha256), media_type="image/png")


@router.get("/{id}/found.png", response_class=FileResponse, responses=PNG)
def found(id: str, _: Asking, server: Here) -> FileResponse:
    """The lesion mask that came with the images, of the same form; it is used only if it is sent back."""
    if not server.ready(id).about.get("found_outline"):
        raise HTTPException(404, message("no-found-outline"))
    return FileResponse(server.store.found(id), media_type="image/png")


@router.put("/{id}/mask.png", openapi_extra=PICTURE, responses=NOT_YET | UPLOADED)
async def correct(id: str, request: Request, caller: Asking, server: Here) -> Volume:
    """Keep the doctor's outline, of the same form."""
    own(await to_thread.run_sync(server.ready, id), caller)
    declared, limits = request.headers.get("content-length"), server.limits
    with server.inlet.place(caller.name) as place:
        body = guarded(request.receive, declared, limits.mask_bytes, limits, place)
        content = await Request(request.scope, body).body()
        return Volume(lesion_volume_ml=await to_thread.run_sync(keep_correction, server, id, content, caller))


def keep_correction(server: Server, id: str, content: bytes, caller: Caller) -> float:
    """Its volume in ml. Raises GliomarkError for what is no outline of this study."""
    about = server.ready(id).about  # it may have been removed while the outline was on its way
    mask = read_mask(content, tuple(about["shape"]))
    volume = float(mask.sum()) * math.prod(about["spacing_mm"]) / 1000
    server.records.correct(id, server.store.keep_correction(id, mask), caller.name)
    return volume


@router.delete("/{id}/mask.png", status_code=204, responses=NO_SUCH)
def uncorrect(id: str, caller: Asking, server: Here) -> None:
    """Back to the model's outline."""
    row = server.study(id)
    own(row, caller)
    if row.correction:
        server.records.correct(id, "", caller.name)


@router.post("/{id}/predictions", status_code=202, responses=NOT_YET)
def ask(id: str, asked: Asked, caller: Asking, server: Here) -> JobOut:
    """Predict; asked before the study is prepared, it waits for that."""
    row = server.study(id)
    if row.state == "failed":
        raise HTTPException(409, row.error or message("study-failed"))
    if not asked.without_clinical and (asked.age is None or asked.sex is None):
        raise HTTPException(422, message("age-or-sex-missing"))
    if asked.outline == "corrected" and not row.correction:
        raise HTTPException(409, message("not-corrected"))
    job = server.records.add_job("predict", row, asked.model_dump(), caller.name)
    server.workers.look()
    return job_out(job)
