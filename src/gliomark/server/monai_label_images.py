"""The data store of MONAI Label's interface: studies as images, and their outlines as labels.

An image is a study, served as the sequence on whose grid results are written. Its label ``final`` is the reader's
mask, its label ``original`` the outline of the model's newest prediction. Everything is stored by the functions that
``/api/studies`` uses.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, HTTPException, Query, Request, Response

from gliomark.io.masks.reader_mask import read_single_label
from gliomark.io.naming import find_sequence_in_name
from gliomark.messages import message
from gliomark.reporting.mask_resampling import choose_reference, resample_mask_to_series
from gliomark.reporting.nifti_mask import create_nifti_on_grid
from gliomark.server.access_audit import set_audit_view
from gliomark.server.body_limits import limit_body
from gliomark.server.database import SERIES_UIDS_KEY, Caller, StudyRow
from gliomark.server.dependencies import NUL, CallerDep, Server, ServerDep
from gliomark.server.label_files import encode_label
from gliomark.server.schemas import (
    LABEL_FORM,
    NIFTI_RESPONSES,
    NO_NUL_PATTERN,
    NOT_FOUND_RESPONSES,
    NOT_READY_RESPONSES,
    UPLOAD_IMAGE_FORM,
    UPLOAD_RESPONSES,
    describe_errors,
)
from gliomark.server.studies import (
    admit_upload,
    check_study_owner,
    delete_corrected_mask,
    delete_study,
    save_received_mask,
)
from gliomark.server.study_store import create_patient_folder_name, decode_mask_png
from gliomark.server.uploads import FormLayout, check_free_disk, receive_form
from gliomark.study import READER_SEGMENTATION_RULE, MRSequence, Segmentation

router = APIRouter(prefix="/datastore", tags=["MONAI Label"])
LABEL_NAMES: Mapping[str, int] = {"lesion": 1}
FINAL_TAG, ORIGINAL_TAG = "final", "original"
MAX_PARAMS_BYTES = 64 << 10
UID_PATTERN = re.compile(r"[0-9.]{1,64}")
IdQuery = Annotated[str, Query(min_length=1, max_length=200, pattern=NO_NUL_PATTERN)]
TagQuery = Annotated[str, Query(max_length=100, pattern=NO_NUL_PATTERN)]


@dataclass(frozen=True)
class ServedImage:
    """A study, and the sequence that stands for it; None for the reference sequence of results."""

    row: StudyRow
    named_sequence: MRSequence | None = None

    @property
    def sequence(self) -> MRSequence:
        """The sequence on whose grid image and labels are served; the study must be prepared."""
        return self.named_sequence or choose_reference(
            [MRSequence(one) for one in self.row.about["sequences"]]
        )


def find_image(server: Server, caller: Caller, image: str) -> ServedImage:
    """Find a study by its id, a SeriesInstanceUID, or the name under which the caller uploaded a volume.

    OHIF names an image by its SeriesInstanceUID; 3D Slicer continues with the name that it gave at the upload.

    Raises
    ------
    HTTPException
        404 if there is none.
    """
    row = None if NUL in image else server.database.find_study(image)
    if row is not None:
        return ServedImage(row)
    if UID_PATTERN.fullmatch(image) and (row := server.database.find_study_of_series(image)):
        uids = row.about[SERIES_UIDS_KEY]
        return ServedImage(row, MRSequence(next(name for name, uid in uids.items() if uid == image)))
    row = None
    if any(one.isalnum() for one in image) and not set("/\\") & set(image):
        row = server.database.find_latest_study(create_patient_folder_name(image), caller.name)
    if row is None:
        raise HTTPException(404, message("no-such-study"))
    return ServedImage(row)


def find_ready_image(server: Server, caller: Caller, image: str) -> ServedImage:
    """Find a prepared study, as ``find_image``.

    Raises
    ------
    HTTPException
        404 if there is none, 409 if it is not prepared, 422 if it is a series that the model does not use.
    """
    found = find_image(server, caller, image)
    row, sequence = server.get_ready_study(found.row.id), found.named_sequence
    used = row.about["sequences"]
    if sequence is not None and sequence not in used:
        raise HTTPException(422, message("sequence-not-used", sequence=str(sequence), used=", ".join(used)))
    return ServedImage(row, sequence)


def describe_datastore(server: Server) -> dict[str, Any]:
    """Return how many studies there are, and how many of them a reader has outlined."""
    total, corrected = server.database.count_ready_studies()
    return {"total": total, "completed": corrected, "label_tags": {FINAL_TAG: corrected}}


def describe_image(row: StudyRow) -> dict[str, Any]:
    """Return what a client shows of an image; it stores the download under ``name``."""
    return {"name": f"{row.id}.nii.gz", "PatientID": row.patient_id, "ts": int(row.created.timestamp())}


def _describe_labels(row: StudyRow, has_original: bool) -> dict[str, Any]:
    tags = {ORIGINAL_TAG: has_original, FINAL_TAG: row.corrected}
    label = {"info": {"params": {"label_names": dict(LABEL_NAMES)}}, "ext": ".nii.gz"}
    return {tag: label for tag, exists in tags.items() if exists}


@router.get("/", responses=describe_errors(s501="Not offered."))
def get_datastore(
    _: CallerDep, server: ServerDep, output: Literal["stats", "all", "train"] = "stats"
) -> dict[str, Any]:
    """Count the images and labels (``stats``) or list them (``all``).

    \f

    Raises
    ------
    HTTPException
        501 for ``train``: paths on the server are not shown.
    """
    if output == "train":
        raise HTTPException(501, message("monai-not-offered", call="datastore?output=train"))
    if output == "stats":
        return describe_datastore(server)
    outlines = server.database.find_latest_outlines()
    objects = {
        row.id: {
            "image": {"info": describe_image(row), "ext": ".nii.gz"},
            "labels": _describe_labels(row, row.id in outlines),
        }
        for row in server.database.list_ready_studies()
    }
    return {"name": "gliomark", "description": message("monai-description"), "objects": objects}


def create_file_response(content: bytes, name: str, media_type: str) -> Response:
    """Return a download; the clients take its format from the name."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=media_type, headers=headers)


@router.get("/image", response_class=Response, responses=NIFTI_RESPONSES)
async def get_image(image: IdQuery, request: Request, caller: CallerDep, server: ServerDep) -> Response:
    """Return a study's images in the sequence on whose grid results are written, as NIfTI with all grey values."""
    found = await to_thread.run_sync(find_ready_image, server, caller, image)
    set_audit_view(request, found.row.id)
    content = await server.run_slow_function(_encode_image, server, found)
    return create_file_response(content, f"{found.row.id}.nii.gz", "application/gzip")


def _encode_image(server: Server, found: ServedImage) -> bytes:
    series = server.store.load_study(found.row.id).series[found.sequence]
    return gzip.compress(create_nifti_on_grid(series.image, series).to_bytes(), compresslevel=1, mtime=0)


@router.head("/image", responses=NOT_READY_RESPONSES)
def check_image(image: IdQuery, caller: CallerDep, server: ServerDep) -> Response:
    """Check whether a prepared study exists."""
    find_ready_image(server, caller, image)
    return Response()


@router.get("/image/info", responses=NOT_READY_RESPONSES)
def get_image_info(image: IdQuery, request: Request, caller: CallerDep, server: ServerDep) -> dict[str, Any]:
    """Return what is known of an image."""
    row = find_ready_image(server, caller, image).row
    set_audit_view(request, row.id)
    return describe_image(row)


@router.put("/image", openapi_extra=UPLOAD_IMAGE_FORM, responses=UPLOAD_RESPONSES)
async def save_image(
    request: Request,
    caller: CallerDep,
    server: ServerDep,
    image: Annotated[str, Query(max_length=200, pattern=NO_NUL_PATTERN)] = "",
) -> dict[str, str]:
    """Upload a study: one volume whose name, or ``image``, names the sequence, or a zip file with all sequences.

    The response contains the id of the study; until the caller uploads another one so named, ``image`` names it too.
    """
    limits, headers = server.request_limits, request.headers
    received_folder = server.store.choose_upload_folder()
    layout = FormLayout("file", MAX_PARAMS_BYTES, partial(choose_image_name, image))
    with server.upload_slots.acquire_slot(caller.name) as slot:
        declared_length = headers.get("content-length")
        check_free_disk(server.store.data_folder, limits, declared_length or "")
        body = limit_body(request.receive, declared_length, limits.max_upload_bytes, limits, slot)
        chunks = Request(request.scope, body).stream()
        await receive_form(headers.get("content-type", ""), chunks, received_folder, limits, layout)
        row = await to_thread.run_sync(
            admit_upload, server, received_folder, {"patient_id": image}, caller.name
        )
    server.worker_pool.notify_new_job()
    return {"image": row.id}


router.put("/", include_in_schema=False)(save_image)  # the address that MONAI Label's client uses


def choose_image_name(image: str, sent_name: str) -> str:
    """Return the name of an uploaded volume: the image's if it names a sequence, otherwise the file's own.

    The clients send the path of a temporary file.
    """
    name = get_last_part(sent_name)
    return image + get_extension(name) if find_sequence_in_name(image) else name


def choose_label_name(sequence: MRSequence, sent_name: str) -> str:
    """Return the name of a label file; it names the sequence on which the label was drawn."""
    return f"label_{sequence}{get_extension(get_last_part(sent_name))}"


def get_last_part(sent_name: str) -> str:
    """Return the file name of a path of any operating system."""
    return PurePosixPath(sent_name.replace("\\", "/")).name


def get_extension(name: str) -> str:
    """Return the extension of a file name; ``.nii.gz`` is one extension."""
    return ".nii.gz" if name.lower().endswith(".nii.gz") else PurePosixPath(name).suffix


@router.delete("/image", responses=NOT_FOUND_RESPONSES)
def remove_image(id: IdQuery, caller: CallerDep, server: ServerDep) -> dict[str, str]:
    """Delete a study with its results, as ``DELETE /api/studies/{id}``; ``id`` is the study's own id."""
    delete_study(id, caller, server)
    return {}


@router.get("/label", response_class=Response, responses=NIFTI_RESPONSES)
async def get_label(
    label: IdQuery, request: Request, caller: CallerDep, server: ServerDep, tag: TagQuery = FINAL_TAG
) -> Response:
    """Return an outline as NIfTI on the grid of the image: the reader's (``final``) or the model's (``original``).

    \f

    Raises
    ------
    HTTPException
        404 if the study has no such outline.
    """
    found = await to_thread.run_sync(find_ready_image, server, caller, label)
    await to_thread.run_sync(check_label, server, found, tag)
    set_audit_view(request, found.row.id)
    content = await server.run_slow_function(_encode_stored_label, server, found, tag)
    return create_file_response(content, f"{found.row.id}.nii.gz", "application/gzip")


def check_label(server: Server, found: ServedImage, tag: str) -> None:
    """Check that a study has an outline with this tag.

    Raises
    ------
    HTTPException
        404 if it has none.
    """
    if tag == ORIGINAL_TAG:
        if not server.database.find_latest_outlines(found.row.id):
            raise HTTPException(404, message("monai-no-original"))
    elif tag not in ("", FINAL_TAG):
        raise HTTPException(404, message("monai-tag", tag=tag[:40]))
    elif not found.row.correction:
        raise HTTPException(404, message("not-corrected"))


def _encode_stored_label(server: Server, found: ServedImage, tag: str) -> bytes:
    row, store = found.row, server.store
    if tag == ORIGINAL_TAG:
        prediction = store.load_prediction(row.id, server.database.find_latest_outlines(row.id)[row.id])
        study, stack, segmentation = prediction.study, prediction.stack, prediction.segmentation
    else:
        prepared = store.load_prepared(row.id)
        study, stack = prepared.study, prepared.stack
        mask = decode_mask_png(
            store.get_correction_path(row.id, row.correction).read_bytes(), stack.brain.shape
        )
        segmentation = Segmentation(mask.astype(np.float32), mask, READER_SEGMENTATION_RULE)
    series, to_stack = study.series[found.sequence], stack.to_stack.get(found.sequence)
    return encode_label(resample_mask_to_series(stack, segmentation, series, to_stack=to_stack), series)


@router.head("/label", responses=NOT_READY_RESPONSES)
def check_label_exists(
    image: IdQuery, caller: CallerDep, server: ServerDep, tag: TagQuery = FINAL_TAG
) -> Response:
    """Check whether a study has an outline with this tag."""
    check_label(server, find_ready_image(server, caller, image), tag)
    return Response()


@router.get("/label/info", responses=NOT_READY_RESPONSES)
def get_label_info(
    label: IdQuery, request: Request, caller: CallerDep, server: ServerDep, tag: TagQuery = FINAL_TAG
) -> dict[str, Any]:
    """Return the names of the values in an outline."""
    found = find_ready_image(server, caller, label)
    check_label(server, found, tag)
    set_audit_view(request, found.row.id)
    return {"params": {"label_names": dict(LABEL_NAMES)}}


@router.put("/label", openapi_extra=LABEL_FORM, responses=NOT_READY_RESPONSES | UPLOAD_RESPONSES)
async def save_label(
    image: IdQuery, request: Request, caller: CallerDep, server: ServerDep, tag: TagQuery = FINAL_TAG
) -> dict[str, Any]:
    """Save a corrected outline as the reader's mask, as ``PUT /api/studies/{id}/mask``; any value but 0 is lesion.

    \f

    Raises
    ------
    HTTPException
        422 for another tag than ``final``.
    """
    check_tag(tag)
    found = await to_thread.run_sync(find_ready_image, server, caller, image)
    check_study_owner(found.row, caller)
    limits, headers = server.request_limits, request.headers
    received_folder = server.store.choose_upload_folder()
    layout = FormLayout("label", MAX_PARAMS_BYTES, partial(choose_label_name, found.sequence))
    with server.upload_slots.acquire_slot(caller.name) as slot:
        declared_length = headers.get("content-length")
        body = limit_body(request.receive, declared_length, limits.max_mask_bytes, limits, slot)
        chunks = Request(request.scope, body).stream()
        await receive_form(headers.get("content-type", ""), chunks, received_folder, limits, layout)
        study_id = found.row.id
        lesion_volume_ml = await server.run_slow_function(
            save_received_mask, server, study_id, received_folder, caller, read_single_label
        )
    return {"image": study_id, "label": study_id, "lesion_volume_ml": lesion_volume_ml}


def check_tag(tag: str) -> None:
    """Check that a label with this tag can be changed.

    Raises
    ------
    HTTPException
        422 if it cannot.
    """
    if tag not in ("", FINAL_TAG):
        raise HTTPException(422, message("monai-tag", tag=tag[:40]))


@router.delete("/label", responses=NOT_FOUND_RESPONSES)
def remove_label(
    id: IdQuery, caller: CallerDep, server: ServerDep, tag: TagQuery = FINAL_TAG
) -> dict[str, str]:
    """Discard the reader's mask, as ``DELETE /api/studies/{id}/mask.png``."""
    check_tag(tag)
    delete_corrected_mask(find_image(server, caller, id).row.id, caller, server)
    return {}
