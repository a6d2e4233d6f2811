"""Calls about studies: upload, look, correct, remove, and ask for a prediction."""

from __future__ import annotations

import hashlib
import math
import uuid
from typing import BinaryIO

from anyio import to_thread
from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import FileResponse, StreamingResponse
from starlette.datastructures import UploadFile

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
    study_out,
)
from gliomark.server.events import stream
from gliomark.server.records import Caller, StudyRow
from gliomark.server.store import mask_png, read_mask, write
from gliomark.server.uploads import digest, guarded, read_upload, receive_files, refused
from gliomark.study import GliomarkError

router = APIRouter(prefix="/api/studies", tags=["studies"])


@router.post("", status_code=201, openapi_extra=UPLOAD, responses=UPLOADED)
async def upload(request: Request, caller: Asking, server: Here) -> StudyOut:
    """A patient's images: every file with its path inside the patient's folder as its name, or one zip."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise refused(415, "Send the files as multipart/form-data, in the field 'files'.")
    limits = server.limits
    with server.inlet:
        body = guarded(request.receive, request.headers.get("content-length"), limits.bytes, limits)
        form = await Request(request.scope, body).form(max_files=limits.files, max_fields=8)
        try:
            sent = [(f.filename or "", f.file) for f in form.getlist("files") if isinstance(f, UploadFile)]
            model = form.get("model") or next(iter(server.models))
            patient = form.get("patient_id") or ""
            row = await to_thread.run_sync(take_in, server, sent, str(model), str(patient), caller.name)
        finally:
            await form.close()
    server.workers.look()
    return study_out(row)


def take_in(
    server: Server, sent: list[tuple[str, BinaryIO]], model: str, patient: str, owner: str
) -> StudyRow:
    """Receive, read, record; where one fails nothing is left. patient: names pictures and volumes sent without a
    folder around them. Raises HTTPException."""
    if model not in server.models:
        raise refused(422, f"There is no model '{model[:80]}' here; choose {' or '.join(server.models)}.")
    id, store = str(uuid.uuid4()), server.store
    folder = store.input(id) / (
        "".join(c for c in patient if c.isalnum() or c in " -_")[:80].strip() or "patient"
    )
    try:
        receive_files(sent, folder, server.limits)
        study = read_upload(folder)
        store.keep_study(id, study)
        return server.records.add_study(id, study.patient_id, model, digest(folder), owner)
    except BaseException:
        store.remove(id)
        raise


@router.get("/{id}", responses=NO_SUCH)
def study(id: str, _: Asking, server: Here) -> StudyOut:
    """How far it is prepared, and what its pictures are."""
    return study_out(server.study(id))


@router.get("/{id}/events", response_class=StreamingResponse, responses=EVENTS)
def study_events(id: str, _: Asking, server: Here) -> StreamingResponse:
    """The study at every change, until it is ready or failed."""
    server.study(id)
    return stream(lambda: study_out(server.study(id)), lambda now: now.state != "preparing")


@router.get("/{id}/slices/{sequence}/{index}.png", response_class=FileResponse, responses=PNG)
def slice_picture(id: str, sequence: str, index: int, _: Asking, server: Here) -> FileResponse:
    """16 bits: grey 0 to 65535 stands for the study's ``grey`` low to high."""
    about = server.ready(id).about
    if sequence not in about["sequences"] or not 0 <= index < about["shape"][0]:
        raise HTTPException(404, "There is no such slice.")
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
        raise HTTPException(403, "Only who uploaded the study, or an administrator, may change or remove it.")


@router.get("/{id}/mask.png", response_class=FileResponse, responses=PNG)
def corrected(id: str, _: Asking, server: Here) -> FileResponse:
    """The doctor's outline: one tall picture of 0 and 255, slice 0 on top."""
    if not server.ready(id).corrected:
        raise HTTPException(404, "Nobody has corrected this outline.")
    return FileResponse(server.store.corrected(id), media_type="image/png")


@router.put("/{id}/mask.png", openapi_extra=PICTURE, responses=NOT_YET | UPLOADED)
async def correct(id: str, request: Request, caller: Asking, server: Here) -> Volume:
    """Keep the doctor's outline, of the same form."""
    row = await to_thread.run_sync(server.ready, id)
    own(row, caller)
    about = row.about
    declared, limits = request.headers.get("content-length"), server.limits
    content = await Request(
        request.scope, guarded(request.receive, declared, limits.mask_bytes, limits)
    ).body()

    def keep() -> float:
        try:
            mask = read_mask(content, tuple(about["shape"]))
        except GliomarkError as error:
            raise refused(422, str(error)) from None
        volume = float(mask.sum()) * math.prod(about["spacing_mm"]) / 1000
        server.ready(id)  # it may have been removed while the outline was on its way
        write(server.store.corrected(id), mask_png(mask))
        sha256 = hashlib.sha256(content).hexdigest()
        server.records.set_corrected(id, True, caller.name, lesion_volume_ml=round(volume, 3), sha256=sha256)
        return volume

    return Volume(lesion_volume_ml=await to_thread.run_sync(keep))


@router.delete("/{id}/mask.png", status_code=204, responses=NO_SUCH)
def uncorrect(id: str, caller: Asking, server: Here) -> None:
    """Back to the model's outline."""
    row = server.study(id)
    own(row, caller)
    if row.corrected:
        server.records.set_corrected(id, False, caller.name)
        server.store.corrected(id).unlink(missing_ok=True)


@router.post("/{id}/predictions", status_code=202, responses=NOT_YET)
def ask(id: str, asked: Asked, caller: Asking, server: Here) -> JobOut:
    """Predict; asked before the study is prepared, it waits for that."""
    row = server.study(id)
    if row.state == "failed":
        raise HTTPException(409, row.error or "The study could not be prepared.")
    if not asked.without_clinical and (asked.age is None or asked.sex is None):
        raise refused(422, "Age or sex is missing; give both, or set without_clinical.")
    if asked.outline == "corrected" and not row.corrected:
        raise HTTPException(409, "Nobody has corrected this outline; send the corrected one first.")
    job = server.records.add_job("predict", row, asked.model_dump(), caller.name)
    server.workers.look()
    return JobOut.model_validate(job)
