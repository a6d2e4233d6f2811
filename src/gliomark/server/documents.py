"""What goes in and out of the interface, and how it is described in its documentation."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gliomark.messages import collect_message_records
from gliomark.server.records import MAX_AUDIT_LINES, AuditFilter, JobRow, StudyRow

NO_NUL_PATTERN = r"^[^\x00]*$"  # PostgreSQL takes none
HealthStatus = Literal["ok", "starting", "failing"]
ResponseDescriptions = dict[int | str, dict[str, Any]]


class ErrorResponse(BaseModel):
    """What is wrong and what to do, in a sentence; code and parameters, where it is one that can be said in Chinese."""

    detail: str
    code: str | None = None
    parameters: dict[str, Any] | None = None


def describe_errors(**descriptions: str) -> ResponseDescriptions:
    """Status (``s404``) to when it is answered."""
    return {
        int(status[1:]): {"model": ErrorResponse, "description": description}
        for status, description in descriptions.items()
    }


COMMON_RESPONSES = describe_errors(
    s400="The body cannot be read.",
    s401="The token is missing or unknown.",
    s403="Not with this token, or not from this page.",
    s422="The request does not fit.",
)
NOT_FOUND_RESPONSES = describe_errors(s404="There is none of this id.")
NOT_READY_RESPONSES = NOT_FOUND_RESPONSES | describe_errors(
    s409="It is not as far as that, or cannot be done.", s410="Its study was removed."
)
PNG_RESPONSES: ResponseDescriptions = NOT_READY_RESPONSES | {
    200: {"content": {"image/png": {}}, "description": "A grey picture."}
}
HTML_RESPONSES: ResponseDescriptions = NOT_READY_RESPONSES | {
    200: {"content": {"text/html": {}}, "description": "A self-contained page."}
}
PDF_RESPONSES: ResponseDescriptions = NOT_READY_RESPONSES | {
    200: {"content": {"application/pdf": {}}, "description": "A PDF."}
}
ZIP_RESPONSES: ResponseDescriptions = NOT_READY_RESPONSES | {
    200: {"content": {"application/zip": {}}, "description": "DICOM files."}
}
EVENT_RESPONSES: ResponseDescriptions = (
    NOT_FOUND_RESPONSES
    | describe_errors(s503="Too much is followed at once.")
    | {200: {"content": {"text/event-stream": {}}, "description": "The same document at every change."}}
)
_BINARY_SCHEMA = {"type": "string", "format": "binary"}
_UPLOAD_FORM_SCHEMA = {
    "type": "object",
    "required": ["files"],
    "properties": {
        "files": {"type": "array", "items": _BINARY_SCHEMA},
        "model": {"type": "string"},
        "patient_id": {"type": "string", "description": "Names the patient of pictures and volumes."},
    },
}
UPLOAD_REQUEST = {
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _UPLOAD_FORM_SCHEMA}}}
}
UPLOAD_RESPONSES = describe_errors(
    s400="A file name or a zip that cannot be taken.",
    s408="The body stopped or was too slow.",
    s413="Too large or too many files.",
    s415="Not multipart/form-data.",
    s422="No one patient's images, or an unknown model.",
    s503="Too many uploads at once, or the models are still being loaded.",
    s507="The server cannot write what was sent.",
)
PNG_REQUEST = {"requestBody": {"required": True, "content": {"image/png": {"schema": _BINARY_SCHEMA}}}}


class GreyRange(BaseModel):
    """The values that black and white stand for."""

    low: float
    high: float


class StudyResponse(BaseModel):
    """A study; what is not known yet is null or empty. stand_ins: a missing sequence to the one shown in its place;
    found_outline: the file name of a lesion mask that came with the images; messages: the texts here as data."""

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
    grey: dict[str, GreyRange] = {}
    stand_ins: dict[str, str] = {}
    found_outline: str = ""
    notes: list[str] = []
    messages: list[dict[str, Any]] = []
    corrected: bool
    created: datetime


class JobResponse(BaseModel):
    """A prediction, from asked to answered; result is what the command line writes as prediction.json; messages: error
    and step as data."""

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
    """What a prediction needs besides the images. sex: 0 male, 1 female."""

    model_config = ConfigDict(extra="forbid")
    age: float | None = Field(None, ge=0, le=120, allow_inf_nan=False)
    sex: Literal[0, 1] | None = None
    without_clinical: bool = False
    enhancing: Literal["yes", "no"] | None = None
    fusion: Literal["near", "all", "large"] = "near"
    outline: Literal["model", "corrected"] = "model"


class PathologyRequest(BaseModel):
    """The pathology, as it came back. value: one of the marker's two levels."""

    model_config = ConfigDict(extra="forbid")
    marker: str = Field(max_length=100, pattern=NO_NUL_PATTERN)
    value: str = Field(max_length=100, pattern=NO_NUL_PATTERN)
    note: str = Field("", max_length=2000, pattern=NO_NUL_PATTERN)


class PathologyResponse(PathologyRequest):
    model_config = ConfigDict(from_attributes=True, extra="ignore")
    id: str
    prediction_id: str
    created: datetime


class AuditLineResponse(BaseModel):
    """A line of the log; its SHA-256 is of what is here and of the line before."""

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
    """Which lines of the log, newest first. before: older than this number; since: at this time (UTC) or later."""

    model_config = ConfigDict(extra="forbid")
    before: int | None = Field(None, ge=1, le=2**53)
    limit: int = Field(MAX_AUDIT_LINES, ge=1, le=MAX_AUDIT_LINES)
    since: datetime | None = None
    who: str | None = Field(None, max_length=200, pattern=NO_NUL_PATTERN)
    action: str | None = Field(None, max_length=200, pattern=NO_NUL_PATTERN)
    subject: str | None = Field(None, max_length=200, pattern=NO_NUL_PATTERN)

    @property
    def audit_filter(self) -> AuditFilter:
        """As the records take it."""
        since = self.since if self.since is None or self.since.tzinfo else self.since.replace(tzinfo=UTC)
        return AuditFilter(self.before, since, self.who, self.action, self.subject)


class HealthResponse(BaseModel):
    status: HealthStatus
    version: str


class MarkerResponse(BaseModel):
    name: str
    title: str
    positive: str
    negative: str
    label: str
    threshold: float
    performance: str


class ModelResponse(BaseModel):
    name: str
    title: str
    sha256: str
    signature: str
    sequences: list[str]
    intended_use: str
    licence: str
    markers: list[MarkerResponse]


class LesionVolumeResponse(BaseModel):
    lesion_volume_ml: float


def create_job_response(row: JobRow) -> JobResponse:
    """A job with its error and step as data; the result brings its own."""
    messages = collect_message_records([row.error or "", row.step])
    return JobResponse.model_validate(row).model_copy(update={"messages": messages})


def create_study_response(row: StudyRow) -> StudyResponse:
    """What is known of it."""
    row_fields = {name: getattr(row, name) for name in StudyResponse.model_fields if hasattr(row, name)}
    messages = [*row.about.get("messages", ()), *collect_message_records([row.error or "", row.step])]
    return StudyResponse.model_validate(row_fields | row.about | {"messages": messages})
