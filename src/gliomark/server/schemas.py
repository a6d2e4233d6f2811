"""Request and response bodies of the HTTP interface, and their OpenAPI descriptions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gliomark.messages import collect_message_records
from gliomark.server.database import MAX_AUDIT_LINES, AuditFilter, JobRow, StudyRow
from gliomark.study import DEFAULT_COVERAGE

NO_NUL_PATTERN = r"^[^\x00]*$"  # PostgreSQL texts cannot hold NUL
MarkerKey = Annotated[str, Field(min_length=1, max_length=100, pattern=NO_NUL_PATTERN)]
Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
HealthStatus = Literal["ok", "starting", "failing"]
ResponseDescriptions = dict[int | str, dict[str, Any]]


class ErrorResponse(BaseModel):
    """What is wrong and what to do. Messages that also exist in Chinese have a code and parameters."""

    detail: str
    code: str | None = None
    parameters: dict[str, Any] | None = None


def describe_errors(**descriptions: str) -> ResponseDescriptions:
    """Return OpenAPI responses: status code (written ``s404``) to the description of when it occurs."""
    return {
        int(status[1:]): {"model": ErrorResponse, "description": description}
        for status, description in descriptions.items()
    }


COMMON_RESPONSES = describe_errors(
    s400="The request body cannot be read.",
    s401="The token is missing or unknown.",
    s403="Not permitted with this token, or called from a page of another site.",
    s422="The request is invalid.",
)
NOT_FOUND_RESPONSES = describe_errors(s404="There is nothing with this id.")
NOT_READY_RESPONSES = NOT_FOUND_RESPONSES | describe_errors(
    s409="It is not ready yet, or has failed.", s410="Its study was deleted."
)
PNG_RESPONSES: ResponseDescriptions = NOT_READY_RESPONSES | {
    200: {"content": {"image/png": {}}, "description": "A greyscale image."}
}
HTML_RESPONSES: ResponseDescriptions = NOT_READY_RESPONSES | {
    200: {"content": {"text/html": {}}, "description": "A self-contained HTML page."}
}
PDF_RESPONSES: ResponseDescriptions = NOT_READY_RESPONSES | {
    200: {"content": {"application/pdf": {}}, "description": "A PDF document."}
}
ZIP_RESPONSES: ResponseDescriptions = NOT_READY_RESPONSES | {
    200: {"content": {"application/zip": {}}, "description": "DICOM files."}
}
DICOM_RESPONSES: ResponseDescriptions = NOT_READY_RESPONSES | {
    200: {"content": {"application/dicom": {}}, "description": "A DICOM file."}
}
NIFTI_RESPONSES: ResponseDescriptions = NOT_READY_RESPONSES | {
    200: {"content": {"application/gzip": {}}, "description": "A compressed NIfTI volume."}
}
EVENT_RESPONSES: ResponseDescriptions = (
    NOT_FOUND_RESPONSES
    | describe_errors(s503="Too many event streams are open.")
    | {
        200: {
            "content": {"text/event-stream": {}},
            "description": "The document, sent again at every change.",
        }
    }
)
_BINARY_SCHEMA = {"type": "string", "format": "binary"}
_UPLOAD_FORM_SCHEMA = {
    "type": "object",
    "required": ["files"],
    "properties": {
        "files": {"type": "array", "items": _BINARY_SCHEMA},
        "model": {"type": "string"},
        "patient_id": {"type": "string", "description": "Patient id of images and volumes that hold none."},
    },
}
UPLOAD_REQUEST = {
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _UPLOAD_FORM_SCHEMA}}}
}
UPLOAD_RESPONSES = describe_errors(
    s400="A file name or zip file is not accepted.",
    s408="The upload stopped or was too slow.",
    s413="The upload is too large or has too many files.",
    s415="The body is not multipart/form-data.",
    s422="Not the images of one patient, or an unknown model.",
    s503="Too many uploads at the same time, or the models are being loaded.",
    s507="The server's disk is full.",
)
MASK_FILES_REQUEST = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {"files": {"type": "array", "items": _BINARY_SCHEMA}},
                }
            }
        },
    }
}


def _describe_file_form(field: str) -> dict[str, Any]:
    """Return the OpenAPI request of a form with one file, as MONAI Label's clients send it."""
    schema = {
        "type": "object",
        "required": [field],
        "properties": {field: _BINARY_SCHEMA, "params": {"type": "string", "description": "Not used."}},
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


UPLOAD_IMAGE_FORM, LABEL_FORM = _describe_file_form("file"), _describe_file_form("label")
INFERENCE_RESPONSES: ResponseDescriptions = NOT_READY_RESPONSES | describe_errors(
    s501="Files are sent with the request, or a session is named.",
    s503="Too many results are awaited at the same time.",
)
INFERENCE_RESPONSES[200] = {
    "content": {
        "multipart/form-data": {},
        "application/json": {},
        "application/octet-stream": {},
        "application/dicom": {},
    },
    "description": "The outline, what is known of it, or both as the parts ``image`` and ``params``.",
}
PNG_REQUEST = {"requestBody": {"required": True, "content": {"image/png": {"schema": _BINARY_SCHEMA}}}}


class GreyRange(BaseModel):
    """The intensities that are shown as black (low) and white (high)."""

    low: float
    high: float


class StudySummaryResponse(BaseModel):
    """An entry in the list of studies."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    patient_id: str
    state: Literal["preparing", "ready", "failed"]
    model: str
    corrected: bool
    created: datetime


class StudyResponse(BaseModel):
    """A study. Fields that are not known yet are null or empty.

    - ``shape``: number of slices, rows and columns of the prepared images.
    - ``spacing_mm``: spacing of slices, rows and columns.
    - ``spacing_assumed``, ``orientation_stated``: whether the files lack the pixel size, and whether they state how the
      images lie in the patient; null for a study of an earlier version.
    - ``grey``: per sequence, the intensities of the grey values 0 and 65535.
    - ``stand_ins``: missing sequence to the sequence used in its place.
    - ``found_outline``: file name of a lesion mask among the images.
    - ``has_dicom_images``: whether DICOM results can be written; null for a study of an earlier version.
    - ``messages``: the texts of this document as code and parameters.
    """

    id: str
    patient_id: str
    state: Literal["preparing", "ready", "failed"]
    step: str
    progress: float
    error: str | None
    model: str
    sequences: list[str] = []
    slice_names: list[str] = []
    shape: list[int] | None = None
    spacing_mm: list[float] | None = None
    spacing_assumed: bool | None = None
    orientation_stated: bool | None = None
    grey: dict[str, GreyRange] = {}
    stand_ins: dict[str, str] = {}
    found_outline: str = ""
    has_dicom_images: bool | None = None
    notes: list[str] = []
    messages: list[dict[str, Any]] = []
    corrected: bool
    created: datetime


class JobResponse(BaseModel):
    """A prediction and its progress.

    - ``progress``: 0 to 1.
    - ``seconds``: computing time.
    - ``outline_sha256``: SHA-256 of the reader's mask that was used; empty for the model's.
    - ``result``: the content of ``prediction.json``.
    - ``messages``: error and step as code and parameters.
    """

    model_config = ConfigDict(from_attributes=True)
    id: str
    study_id: str
    patient_id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    step: str
    progress: float
    error: str | None
    created: datetime
    seconds: float | None
    outline_sha256: str
    request: dict[str, Any]
    result: dict[str, Any] | None
    messages: list[dict[str, Any]] = []


class PredictionRequest(BaseModel):
    """Clinical data and options of a prediction. Age in years; sex: 0 male, 1 female.

    - ``coverage``: share of the patients of either class for whom the true level is among the possible ones; the higher
      it is, the more often the level is "cannot tell".
    - ``prevalence``: share of positive patients at this hospital, by marker; markers that are not named keep the share
      of their calibration.
    - ``location``: also state the lesion's approximate location in the brain; the server needs the extra ``atlas``.
    """

    model_config = ConfigDict(extra="forbid")
    age: float | None = Field(None, ge=0, le=120, allow_inf_nan=False)
    sex: Literal[0, 1] | None = None
    without_clinical: bool = False
    enhancing: Literal["yes", "no"] | None = None
    fusion: Literal["near", "all", "large"] = "near"
    outline: Literal["model", "corrected"] = "model"
    coverage: float = Field(DEFAULT_COVERAGE, ge=0.5, lt=1, allow_inf_nan=False)
    prevalence: dict[MarkerKey, Share] = Field({}, max_length=100)
    location: bool = False


class PathologyRequest(BaseModel):
    """A pathology result; the value is one of the marker's two levels."""

    model_config = ConfigDict(extra="forbid")
    marker: str = Field(max_length=100, pattern=NO_NUL_PATTERN)
    value: str = Field(max_length=100, pattern=NO_NUL_PATTERN)
    note: str = Field("", max_length=2000, pattern=NO_NUL_PATTERN)


class PathologyResponse(PathologyRequest):
    """A recorded pathology result."""

    model_config = ConfigDict(from_attributes=True, extra="ignore")
    id: str
    prediction_id: str
    created: datetime


class AuditLineResponse(BaseModel):
    """A line of the audit log; its SHA-256 covers these fields and the hash of the previous line."""

    model_config = ConfigDict(from_attributes=True)
    number: int
    at: datetime
    who: str
    action: str
    subject: str
    detail: dict[str, Any]
    previous_sha256: str
    sha256: str


class AuditQuery(BaseModel):
    """Selection of audit log lines, newest first.

    - ``before``: only smaller numbers.
    - ``since``: only this time (UTC) or later.
    """

    model_config = ConfigDict(extra="forbid")
    before: int | None = Field(None, ge=1, le=2**53)
    limit: int = Field(MAX_AUDIT_LINES, ge=1, le=MAX_AUDIT_LINES)
    since: datetime | None = None
    who: str | None = Field(None, max_length=200, pattern=NO_NUL_PATTERN)
    action: str | None = Field(None, max_length=200, pattern=NO_NUL_PATTERN)
    subject: str | None = Field(None, max_length=200, pattern=NO_NUL_PATTERN)

    @property
    def audit_filter(self) -> AuditFilter:
        """The same selection as a database filter."""
        since = self.since if self.since is None or self.since.tzinfo else self.since.replace(tzinfo=UTC)
        return AuditFilter(self.before, since, self.who, self.action, self.subject)


class HealthResponse(BaseModel):
    """State and version of the server."""

    status: HealthStatus
    version: str


class MarkerResponse(BaseModel):
    """A marker of a model: its two levels, decision threshold and validated performance.

    - ``prevalence``: share of positive patients in the calibration; null if the model has no calibration, and then
      decides by the threshold.
    """

    name: str
    title: str
    positive: str
    negative: str
    label: str
    threshold: float
    performance: str
    prevalence: float | None = None


class ModelResponse(BaseModel):
    """A model of the server.

    - ``can_locate_lesion``: whether a prediction with ``location`` can be requested: the atlas is installed.
    """

    name: str
    title: str
    sha256: str
    signature: str
    sequences: list[str]
    intended_use: str
    licence: str
    can_locate_lesion: bool = False
    markers: list[MarkerResponse]


class LesionVolumeResponse(BaseModel):
    """Lesion volume of an uploaded mask."""

    lesion_volume_ml: float


def create_job_response(row: JobRow) -> JobResponse:
    """Return a job as a response; error and step also as messages."""
    messages = collect_message_records([row.error or "", row.step])
    return JobResponse.model_validate(row).model_copy(update={"messages": messages})


def create_study_response(row: StudyRow) -> StudyResponse:
    """Return a study as a response, with all its texts also as messages."""
    row_fields = {name: getattr(row, name) for name in StudyResponse.model_fields if hasattr(row, name)}
    messages = [*row.about.get("messages", ()), *collect_message_records([row.error or "", row.step])]
    return StudyResponse.model_validate(row_fields | row.about | {"messages": messages})
