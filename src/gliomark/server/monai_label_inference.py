"""Inference of MONAI Label's interface: a prediction as ``/api/studies`` makes it, answered with outline and result."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, File, Form, HTTPException, Query, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from gliomark.errors import GliomarkError
from gliomark.messages import message
from gliomark.reporting.mask_resampling import resample_mask_to_series
from gliomark.server.access_audit import AuditedRoute, set_audit_view
from gliomark.server.database import JobRow
from gliomark.server.dependencies import CallerDep, Server, ServerDep
from gliomark.server.dicom_results import load_or_create_dicom_results
from gliomark.server.label_files import LABEL_EXTENSIONS, LabelFormat, compute_centroid, encode_label
from gliomark.server.monai_label_images import (
    LABEL_NAMES,
    MAX_PARAMS_BYTES,
    IdQuery,
    ServedImage,
    create_file_response,
    find_image,
    find_ready_image,
)
from gliomark.server.schemas import INFERENCE_RESPONSES, NO_NUL_PATTERN, PredictionRequest
from gliomark.server.studies import request_prediction

router = APIRouter(prefix="/infer", tags=["MONAI Label"])
NOT_STATED = "not stated"
SEX_CODES: Mapping[str, int | None] = {NOT_STATED: None, "male": 0, "female": 1}
# what a user of 3D Slicer can set under Options: a text, or one of several values, the first at the start
INFERENCE_OPTIONS: Mapping[str, str | list[str]] = {
    "age": "",
    "sex": list(SEX_CODES),
    "outline": ["model", "corrected"],
}
MEDIA_TYPE = "application/octet-stream"  # OHIF looks for it
OutputKind = Literal["image", "json", "all", "dicom_seg"]


@dataclass(frozen=True)
class InferenceResult:
    """The outline as a file, and what is known of it."""

    content: bytes
    name: str
    params: dict[str, Any]


@router.post("/{model}", response_class=Response, responses=INFERENCE_RESPONSES)
async def infer(
    model: str,
    image: IdQuery,
    request: Request,
    caller: CallerDep,
    server: ServerDep,
    output: OutputKind = "all",
    session_id: Annotated[str, Query(max_length=200, pattern=NO_NUL_PATTERN)] = "",
    params: Annotated[str, Form(max_length=MAX_PARAMS_BYTES)] = "{}",
    file: Annotated[UploadFile | None, File()] = None,
    label: Annotated[UploadFile | None, File()] = None,
) -> Response:
    """Predict an uploaded study and return the outline on the grid of its image.

    ``params`` is a JSON object. With ``age`` and ``sex`` the markers are predicted with them, otherwise without;
    ``outline`` "corrected" uses the reader's mask; ``result_extension`` is .nii.gz, .nii or .nrrd.

    \f

    Raises
    ------
    HTTPException
        404 without such a study or model, 409 if the study has failed, belongs to another model, has no reader's mask
        to use or is not DICOM, 422 for unknown parameters, 501 for a file or a session instead of a study.
    """
    if file is not None or label is not None or session_id:
        raise HTTPException(501, message("monai-needs-study"))
    found = await to_thread.run_sync(find_image, server, caller, image)
    _check_model(server, model, found.row.model)
    options = parse_params(params)
    label_format, prediction_request = parse_label_format(options), create_request(options)
    with server.row_watcher.acquire_slot(caller.name):
        job = await to_thread.run_sync(request_prediction, found.row.id, prediction_request, caller, server)
        await server.row_watcher.wait_for_job(job.id)
    finished = await to_thread.run_sync(server.get_finished_prediction, job.id)
    set_audit_view(request, job.id, AuditedRoute("segmentation exported", is_recorded_every_time=True))
    if output == "dicom_seg":
        content = await server.run_slow_function(_encode_dicom, server, finished)
        return create_file_response(content, f"{job.id}.dcm", "application/dicom")
    found = await to_thread.run_sync(find_ready_image, server, caller, image)
    result = await server.run_slow_function(_create_result, server, found, finished, label_format)
    return _create_response(result, output)


def _check_model(server: Server, model: str, model_of_study: str) -> None:
    if model not in server.model_files:
        known = " or ".join(server.model_files)
        raise HTTPException(404, message("no-such-model", model=model[:80], known=known))
    if model != model_of_study:
        raise HTTPException(409, message("monai-other-model", model=model_of_study))


def parse_params(text: str) -> dict[str, Any]:
    """Parse the form's field ``params``.

    Raises
    ------
    HTTPException
        422 if it is not a JSON object.
    """
    try:
        options = json.loads(text or "{}")
    except (ValueError, RecursionError):
        options = None
    if not isinstance(options, dict):
        raise HTTPException(422, message("monai-parameters"))
    return options


def parse_label_format(options: Mapping[str, Any]) -> LabelFormat:
    """Return the format of the outline that a client asks for.

    Raises
    ------
    HTTPException
        422 for an unknown extension.
    """
    extension = options.get("result_extension") or LabelFormat.extension
    if extension not in LABEL_EXTENSIONS:
        known = ", ".join(LABEL_EXTENSIONS)
        raise HTTPException(422, message("monai-extension", extension=str(extension)[:40], known=known))
    data_type = "uint16" if options.get("result_dtype") == "uint16" else LabelFormat.data_type
    return LabelFormat(extension, data_type, is_compressed=options.get("result_compress") is not False)


def create_request(options: Mapping[str, Any]) -> PredictionRequest:
    """Return the prediction request of a client; without age and sex, a prediction without them.

    Raises
    ------
    RequestValidationError
        If age, sex or outline have other values than a prediction request.
    """
    age, sex = (None if options.get(name) == "" else options.get(name) for name in ("age", "sex"))
    if isinstance(sex, str):
        sex = SEX_CODES.get(sex, sex)
    fields = {"age": age, "sex": sex, "without_clinical": age is None and sex is None}
    try:
        return PredictionRequest.model_validate(fields | {"outline": options.get("outline") or "model"})
    except ValidationError as error:
        errors = [{**one, "loc": ("params", *one["loc"])} for one in error.errors(include_url=False)]
        raise RequestValidationError(errors) from None


def _encode_dicom(server: Server, row: JobRow) -> bytes:
    try:
        results = load_or_create_dicom_results(server.store, row, "en", server.reader_pool)
    except GliomarkError as error:
        raise HTTPException(409, error.message) from None
    content = BytesIO()
    next(iter(results.values())).save_as(content, enforce_file_format=True)  # the segmentation is the first
    return content.getvalue()


def _create_result(
    server: Server, found: ServedImage, row: JobRow, label_format: LabelFormat
) -> InferenceResult:
    prediction = server.store.load_prediction(row.study_id, row.id)
    stack, series = prediction.stack, prediction.study.series[found.sequence]
    to_stack = stack.to_stack.get(found.sequence)
    mask = resample_mask_to_series(stack, prediction.segmentation, series, to_stack=to_stack)
    centroid = compute_centroid(mask)
    params = {
        "label_names": dict(LABEL_NAMES),
        "centroids": {name: [value, *centroid] for name, value in LABEL_NAMES.items() if centroid},
        "prediction": row.id,
        "result": row.result,
    }
    return InferenceResult(encode_label(mask, series, label_format), row.id + label_format.extension, params)


def _create_response(result: InferenceResult, output: OutputKind) -> Response:
    params = json.dumps(result.params)
    if output == "json":
        return Response(params, media_type="application/json")
    if output == "image":
        return create_file_response(result.content, result.name, MEDIA_TYPE)
    boundary = uuid.uuid4().hex
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="params"\r\nContent-Type: application/json\r\n\r\n'
        f'{params}\r\n--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{result.name}"\r\n'
        f"Content-Type: {MEDIA_TYPE}\r\n\r\n"
    )
    body = head.encode() + result.content + f"\r\n--{boundary}--\r\n".encode()
    return Response(body, media_type=f"multipart/form-data; boundary={boundary}")
