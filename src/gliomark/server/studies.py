"""Routes for studies: upload, view, correct, delete, and request a prediction."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import FileResponse, StreamingResponse

from gliomark.errors import GliomarkError, InputError
from gliomark.io.masks import SeriesGrid
from gliomark.io.masks.reader_mask import ReaderMask, read_mask_files
from gliomark.messages import message
from gliomark.server.access_audit import MAX_LOGGED_STUDIES, set_audit_detail
from gliomark.server.body_limits import limit_body
from gliomark.server.database import Caller, StudyRow
from gliomark.server.dependencies import CallerDep, Server, ServerDep
from gliomark.server.events import create_event_stream
from gliomark.server.schemas import (
    EVENT_RESPONSES,
    MASK_FILES_REQUEST,
    NIFTI_RESPONSES,
    NO_NUL_PATTERN,
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
    StudySummaryResponse,
    create_job_response,
    create_study_response,
)
from gliomark.server.study_store import decode_mask_png, redact_folder
from gliomark.server.uploads import check_free_disk, receive_form
from gliomark.study import DEFAULT_COVERAGE

router = APIRouter(prefix="/api/studies", tags=["studies"])
MAX_LISTED_STUDIES = 200


@router.post("", status_code=201, openapi_extra=UPLOAD_REQUEST, responses=UPLOAD_RESPONSES)
async def upload_study(request: Request, caller: CallerDep, server: ServerDep) -> StudyResponse:
    """Upload the images of one patient: files named by their paths inside the patient's folder, or one zip file."""
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
    """Read and record the received files; nothing is left of them after an error.

    Raises
    ------
    InputError
        If the model is unknown or the files are not a study.
    """
    try:
        model = form.get("model") or next(iter(server.model_files))
        if model not in server.model_files:
            raise InputError(
                message("no-such-model", model=model[:80], known=" or ".join(server.model_files))
            )
        return server.admit_study(received_folder, model, owner, form.get("patient_id", ""))
    finally:
        shutil.rmtree(received_folder, ignore_errors=True)


@router.get("")
def list_studies(
    _: CallerDep,
    server: ServerDep,
    request: Request,
    patient_id: Annotated[str | None, Query(max_length=200, pattern=NO_NUL_PATTERN)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED_STUDIES)] = MAX_LISTED_STUDIES,
) -> list[StudySummaryResponse]:
    """List the last studies, newest first; ``patient_id``: only those whose patient id contains this text."""
    rows = server.database.list_studies(patient_id, limit)
    if patient_id is not None:
        set_audit_detail(request, studies=[row.id for row in rows][:MAX_LOGGED_STUDIES])
    return [StudySummaryResponse.model_validate(row) for row in rows]


@router.get("/{id}", responses=NOT_FOUND_RESPONSES)
def get_study(id: str, _: CallerDep, server: ServerDep) -> StudyResponse:
    """Return the preparation state of a study and the metadata of its images."""
    return create_study_response(server.get_study(id))


@router.get("/{id}/events", response_class=StreamingResponse, responses=EVENT_RESPONSES)
def stream_study_events(id: str, caller: CallerDep, server: ServerDep) -> StreamingResponse:
    """Stream the study at every change until it is ready or failed."""
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
    """Return a slice as 16-bit PNG; grey 0 to 65535 corresponds to the study's ``grey`` low to high.

    \f

    Raises
    ------
    HTTPException
        404 if the study has no such slice.
    """
    about = server.get_ready_study(id).about
    if sequence not in about["sequences"] or not 0 <= index < about["shape"][0]:
        raise HTTPException(404, message("no-such-slice"))
    return FileResponse(server.store.get_slice_path(id, sequence, index), media_type="image/png")


@router.get("/{id}/volumes/{sequence}.nii.gz", response_class=FileResponse, responses=NIFTI_RESPONSES)
async def get_volume(id: str, sequence: str, _: CallerDep, server: ServerDep) -> FileResponse:
    """Return all prepared slices of a sequence as one NIfTI image in the patient's coordinates.

    It is created at the first request.

    \f

    Raises
    ------
    HTTPException
        404 if the study has no such sequence.
    """
    row = await to_thread.run_sync(server.get_ready_study, id)
    if sequence not in row.about["sequences"]:
        raise HTTPException(404, message("no-such-sequence", sequence=sequence[:80]))
    path = server.store.get_volume_path(id, sequence)
    if not path.exists():
        await server.run_slow_function(_save_volumes, server, id)
    return FileResponse(path, media_type="application/gzip")


def _save_volumes(server: Server, study_id: str) -> None:
    server.store.save_volumes(study_id, server.store.load_prepared(study_id).stack)


@router.delete("/{id}", status_code=204, responses=NOT_FOUND_RESPONSES)
def delete_study(id: str, caller: CallerDep, server: ServerDep) -> None:
    """Delete the study's images and results; database rows and audit log are kept."""
    check_study_owner(server.get_study(id), caller)
    for job in server.database.delete_study(id, caller.name):
        server.worker_pool.cancel_job(job)
    server.store.remove_study(id)


def check_study_owner(row: StudyRow, caller: Caller) -> None:
    """Check that the caller may change a study.

    Raises
    ------
    HTTPException
        403 if it belongs to another user and the caller is no administrator.
    """
    if row.owner != caller.name and caller.role != "admin":
        raise HTTPException(403, message("not-your-study"))


@router.get("/{id}/mask.png", response_class=FileResponse, responses=PNG_RESPONSES)
def get_corrected_mask(id: str, _: CallerDep, server: ServerDep) -> FileResponse:
    """Return the reader's mask: one PNG, the slices below each other, values 0 and 255.

    \f

    Raises
    ------
    HTTPException
        404 if the study has none.
    """
    sha256 = server.get_ready_study(id).correction
    if not sha256:
        raise HTTPException(404, message("not-corrected"))
    return FileResponse(server.store.get_correction_path(id, sha256), media_type="image/png")


@router.get("/{id}/found.png", response_class=FileResponse, responses=PNG_RESPONSES)
def get_supplied_mask(id: str, _: CallerDep, server: ServerDep) -> FileResponse:
    """Return the lesion mask found among the images, in the same form.

    It is not used unless the client submits it as the reader's mask.

    \f

    Raises
    ------
    HTTPException
        404 if there was none.
    """
    if not server.get_ready_study(id).about.get("found_outline"):
        raise HTTPException(404, message("no-found-outline"))
    return FileResponse(server.store.get_supplied_mask_path(id), media_type="image/png")


@router.put("/{id}/mask.png", openapi_extra=PNG_REQUEST, responses=NOT_READY_RESPONSES | UPLOAD_RESPONSES)
async def save_corrected_mask(
    id: str, request: Request, caller: CallerDep, server: ServerDep
) -> LesionVolumeResponse:
    """Save a reader's mask, in the same form, for predictions that request the corrected mask."""
    check_study_owner(await to_thread.run_sync(server.get_ready_study, id), caller)
    declared_length, limits = request.headers.get("content-length"), server.request_limits
    with server.upload_slots.acquire_slot(caller.name) as slot:
        body = limit_body(request.receive, declared_length, limits.max_mask_bytes, limits, slot)
        content = await Request(request.scope, body).body()
        return LesionVolumeResponse(
            lesion_volume_ml=await to_thread.run_sync(save_correction, server, id, content, caller)
        )


def save_correction(server: Server, study_id: str, content: bytes, caller: Caller) -> float:
    """Save a reader's mask and return its volume in ml.

    Parameters
    ----------
    study_id
        Id of a prepared study.
    content
        PNG with the slices below each other.
    caller
        Named in the audit log.

    Raises
    ------
    InputError
        If the content is not a mask of this study's size.
    """
    about = server.get_ready_study(study_id).about  # the study may have been deleted during the upload
    mask = decode_mask_png(content, tuple(about["shape"]))
    volume_ml: float = float(mask.sum()) * math.prod(about["spacing_mm"]) / 1000
    server.database.set_correction(study_id, server.store.save_correction(study_id, mask), caller.name)
    return volume_ml


@router.put("/{id}/mask", openapi_extra=MASK_FILES_REQUEST, responses=NOT_READY_RESPONSES | UPLOAD_RESPONSES)
async def save_mask_files(
    id: str, request: Request, caller: CallerDep, server: ServerDep
) -> LesionVolumeResponse:
    """Save a lesion mask of another program as the reader's mask.

    The file is a NIfTI, NRRD or MHA volume, a DICOM SEG or an RTSTRUCT; for pictures, mask pictures named after the
    slices, as several files or one zip file.
    """
    check_study_owner(await to_thread.run_sync(server.get_ready_study, id), caller)
    limits, headers = server.request_limits, request.headers
    received_folder = server.store.choose_upload_folder()
    with server.upload_slots.acquire_slot(caller.name) as slot:
        declared_length = headers.get("content-length")
        body = limit_body(request.receive, declared_length, limits.max_mask_bytes, limits, slot)
        chunks = Request(request.scope, body).stream()
        await receive_form(headers.get("content-type", ""), chunks, received_folder, limits)
        return LesionVolumeResponse(
            lesion_volume_ml=await server.run_slow_function(
                save_received_mask, server, id, received_folder, caller
            )
        )


def save_received_mask(
    server: Server,
    study_id: str,
    received_folder: Path,
    caller: Caller,
    read_mask: Callable[..., ReaderMask] = read_mask_files,
) -> float:
    """Save a mask from received files and return its volume in ml; nothing is left of the files.

    Parameters
    ----------
    study_id
        Id of a prepared study.
    received_folder
        The files.
    caller
        Named in the audit log.
    read_mask
        Reads them, in a reader process: a function with the arguments of ``read_mask_files``.

    Raises
    ------
    InputError
        If they are no mask of this study.
    """
    try:
        prepared = server.store.load_prepared(study_id)
        stack = prepared.stack
        grids = {name: SeriesGrid.from_series(series) for name, series in prepared.study.series.items()}
        grid = SeriesGrid(stack.brain.shape, stack.affine, stack.slice_names, prepared.study.source)
        try:
            read: ReaderMask = server.reader_pool(
                received_folder, read_mask, received_folder, grids, grid, stack.to_stack
            )
        except GliomarkError as error:
            input_folder = server.store.get_input_folder(study_id)
            text = redact_folder(redact_folder(error.message, received_folder), input_folder)
            raise InputError(text) from None
        sha256 = server.store.save_correction(study_id, read.mask)
        server.database.set_correction(study_id, sha256, caller.name)
        return float(read.mask.sum()) * float(stack.voxel_volume_ml)
    finally:
        shutil.rmtree(received_folder, ignore_errors=True)


@router.delete("/{id}/mask.png", status_code=204, responses=NOT_FOUND_RESPONSES)
def delete_corrected_mask(id: str, caller: CallerDep, server: ServerDep) -> None:
    """Discard the reader's mask, so that the model's is used again."""
    row = server.get_study(id)
    check_study_owner(row, caller)
    if row.correction:
        server.database.set_correction(id, "", caller.name)


@router.post("/{id}/predictions", status_code=202, responses=NOT_READY_RESPONSES)
def request_prediction(
    id: str, prediction_request: PredictionRequest, caller: CallerDep, server: ServerDep
) -> JobResponse:
    """Request a prediction; it starts when the study is prepared.

    \f

    Raises
    ------
    HTTPException
        409 if the study has failed or there is no reader's mask to use, 422 if age or sex is missing, the model has no
        calibration for the coverage or the prevalence, or the atlas is needed and not installed.
    """
    row = server.get_study(id)
    if row.state == "failed":
        raise HTTPException(409, row.error or message("study-failed"))
    if not prediction_request.without_clinical and (
        prediction_request.age is None or prediction_request.sex is None
    ):
        raise HTTPException(422, message("age-or-sex-missing"))
    if prediction_request.outline == "corrected" and not row.correction:
        raise HTTPException(409, message("not-corrected"))
    _check_level_options(prediction_request, row.model, server)
    if prediction_request.location:
        _check_atlas()
    job = server.database.add_job("predict", row, prediction_request.model_dump(), caller.name)
    server.worker_pool.notify_new_job()
    return create_job_response(job)


def _check_atlas() -> None:
    """Check that the atlas is installed. Raises HTTPException if it is not."""
    from gliomark.location import is_atlas_installed  # loads imaging libraries

    if not is_atlas_installed():
        raise HTTPException(422, message("atlas-missing"))


def _check_level_options(prediction_request: PredictionRequest, model: str, server: Server) -> None:
    """Check that the model has a calibration for coverage and prevalence; it does so again when it predicts.

    Raises HTTPException if it has none.
    """
    described = [one for one in server.worker_pool.model_descriptions if one["name"] == model]
    shares = {marker["name"]: marker["prevalence"] for one in described for marker in one["markers"]}
    if not described:  # still being loaded
        return
    for name in prediction_request.prevalence:
        if name not in shares:
            raise HTTPException(
                422, message("prevalence-of-unknown-marker", name=name, known=", ".join(shares) or "–")
            )
        if shares[name] is None:
            raise HTTPException(422, message("prevalence-without-calibration", name=name))
    if prediction_request.coverage != DEFAULT_COVERAGE and not any(shares.values()):
        raise HTTPException(422, message("coverage-without-calibration"))
