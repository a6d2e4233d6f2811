"""Calls about predictions: how far, the answer, its outline, maps and reports, and later the truth."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Annotated, Any, Literal
from zipfile import ZIP_DEFLATED, ZipFile

from anyio import to_thread
from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, StreamingResponse
from pydicom import Dataset

from gliomark.messages import message
from gliomark.reporting import render_pdf
from gliomark.reporting.contents import contents
from gliomark.reporting.page import render_page
from gliomark.server.context import Asking, Here, Server
from gliomark.server.documents import (
    EVENTS,
    NO_NUL,
    NO_SUCH,
    NOT_YET,
    PAGE,
    PDF,
    PNG,
    ZIP,
    JobOut,
    Truth,
    TruthOut,
    job_out,
)
from gliomark.server.events import stream
from gliomark.server.records import OVER, Caller, JobRow
from gliomark.server.results import kept_results
from gliomark.server.views import note_detail
from gliomark.study import GliomarkError

router = APIRouter(prefix="/api/predictions", tags=["predictions"])
Language = Literal["en", "zh"]
MOST_NAMED = 20  # studies, in the log's line about a patient's list


@router.get("")
def predictions(
    _: Asking,
    server: Here,
    request: Request,
    patient_id: Annotated[str | None, Query(max_length=200, pattern=NO_NUL)] = None,
) -> list[JobOut]:
    """Everything that was asked, or one patient's, newest first."""
    rows = server.records.predictions(patient_id)
    if patient_id is not None:
        note_detail(request, studies=sorted({row.study_id for row in rows})[:MOST_NAMED])
    return [job_out(row) for row in rows]


@router.get("/{id}", responses=NO_SUCH)
def prediction(id: str, _: Asking, server: Here) -> JobOut:
    """How far it is; the answer once it is done."""
    return job_out(server.prediction(id))


@router.get("/{id}/events", response_class=StreamingResponse, responses=EVENTS)
def prediction_events(id: str, caller: Asking, server: Here) -> StreamingResponse:
    """The prediction at every change, until it is over."""
    server.prediction(id)
    return stream(server.watch, caller.name, JobRow, id, job_out, lambda row: row.state in OVER)


@router.delete("/{id}", responses=NO_SUCH)
def cancel(id: str, caller: Asking, server: Here) -> JobOut:
    """Stop it; nothing happens to one that is over."""
    asked = server.prediction(id)
    if asked.owner != caller.name and caller.role != "admin":
        raise HTTPException(403, message("not-your-prediction"))
    row = server.records.cancel(id, caller.name) or asked
    if row.state == "cancelled" and asked.state not in OVER:
        server.workers.cancel(id)
    return job_out(row)


@router.get("/{id}/mask.png", response_class=FileResponse, responses=PNG)
def outline(id: str, _: Asking, server: Here) -> FileResponse:
    """The outline that the answer rests on, one tall picture."""
    row = server.answered(id)
    return FileResponse(server.store.prediction(row.study_id, id) / "mask.png", media_type="image/png")


@router.get("/{id}/heat/{marker}.png", response_class=FileResponse, responses=PNG)
async def heat(id: str, marker: str, caller: Asking, server: Here) -> FileResponse:
    """Grad-CAM of the marker's middle branch, one tall picture; drawn at the first call."""
    row = await to_thread.run_sync(server.answered, id)
    if marker not in markers_of(row):
        raise HTTPException(404, message("no-such-marker", marker=marker[:80]))
    path = server.store.prediction(row.study_id, id) / f"heat_{marker}.png"
    if not path.exists():
        await _explained(server, row, marker, caller)
    return FileResponse(path, media_type="image/png")


async def _explained(server: Server, row: JobRow, marker: str, caller: Caller) -> None:
    """Let a worker draw the map, and wait for it."""
    study = await to_thread.run_sync(server.study, row.study_id)
    asked = {"prediction": row.id, "marker": marker}
    with server.watch.place(caller.name):
        job = await to_thread.run_sync(server.records.add_job, "explain", study, asked, caller.name)
        server.workers.look()
        async for now in server.watch.follow(JobRow, job.id):
            if now is None or now.state in OVER:
                break
    if now is None or now.state != "done":
        raise HTTPException(500, (now and now.error) or message("no-map"))


@router.get("/{id}/prediction.json", responses=NOT_YET)
def document(id: str, _: Asking, server: Here) -> dict[str, Any]:
    """The same document that the command line writes."""
    return server.answered(id).result or {}


@router.get("/{id}/report.html", response_class=Response, responses=PAGE)
async def page(id: str, _: Asking, server: Here, language: Language = "en") -> HTMLResponse:
    """One self-contained page."""
    return HTMLResponse(await server.slowly(_page, server, id, language))


def _page(server: Server, id: str, language: Language) -> str:
    row = server.answered(id)
    shown = contents(server.store.load_prediction(row.study_id, id), row.result or {}, language)
    return render_page(shown, language)


@router.get("/{id}/report.pdf", response_class=Response, responses=PDF)
async def pdf(id: str, _: Asking, server: Here, language: Language = "en") -> Response:
    """The report to print."""
    return Response(await server.slowly(_pdf, server, id, language), media_type="application/pdf")


def _pdf(server: Server, id: str, language: Language) -> bytes:
    row = server.answered(id)
    return render_pdf(server.store.load_prediction(row.study_id, id), language)


@router.get("/{id}/dicom.zip", response_class=Response, responses=ZIP)
async def dicom(id: str, _: Asking, server: Here, language: Language = "en") -> Response:
    """Segmentation, structured report and encapsulated PDF of a study that came as DICOM."""
    return Response(await server.slowly(_dicom, server, id, language), media_type="application/zip")


def _dicom(server: Server, id: str, language: Language) -> bytes:
    row = server.answered(id)
    try:
        return zipped(kept_results(server.store, row, language, server.reading))
    except GliomarkError as error:
        raise HTTPException(409, error.message) from None


def zipped(results: Mapping[str, Dataset]) -> bytes:
    """DICOM files in one."""
    buffer = BytesIO()
    with ZipFile(buffer, "w", ZIP_DEFLATED) as archive:
        for name, dataset in results.items():
            content = BytesIO()
            dataset.save_as(content, enforce_file_format=True)
            archive.writestr(name, content.getvalue())
    return buffer.getvalue()


@router.post("/{id}/truth", status_code=201, responses=NOT_YET)
def truth(id: str, told: Truth, caller: Asking, server: Here) -> TruthOut:
    """What pathology found, kept with the record."""
    row = server.answered(id)
    levels = {
        m["name"]: (m["positive"], m["negative"])
        for one in server.workers.models_known
        for m in one["markers"]
    }
    if told.marker not in markers_of(row):
        raise HTTPException(422, message("no-such-marker", marker=told.marker))
    if told.marker in levels and told.value not in levels[told.marker]:
        known = " or ".join(levels[told.marker])
        raise HTTPException(422, message("no-such-level", value=told.value, marker=told.marker, levels=known))
    return TruthOut.model_validate(
        server.records.add_truth(row, told.marker, told.value, told.note, caller.name)
    )


def markers_of(row: JobRow) -> list[str]:
    """The markers that a prediction answered."""
    return [marker["marker"] for marker in (row.result or {})["markers"]]
