"""Immutable state of the window, from which all panels are rendered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gliomark.client.errors import ErrorMessage
from gliomark.messages import restore_messages

Json = Mapping[str, Any]
SECOND_NETWORK_NOTE = "outline-by-second-network"  # code of the message
TaskKind = Literal["waiting", "packing", "uploading", "preparing", "predicting"]


def restore_document(document: Json) -> Json:
    """Return a study or job document of the server with its texts restored as translatable messages."""
    result = document.get("result")
    if result:
        document = {**document, "result": restore_messages(result, result.get("messages", ()))}
    return {**document, **restore_messages(_exclude_result(document), document.get("messages", ()))}


def _exclude_result(document: Json) -> dict[str, Any]:
    return {name: part for name, part in document.items() if name != "result"}


@dataclass(frozen=True)
class Task:
    """The running task. progress: 0 to 1, None if unknown; step: the server's description of the current step."""

    kind: TaskKind
    progress: float | None = None
    step: str = ""


@dataclass(frozen=True)
class ClientState:
    """Complete state of the window.

    study, job: documents of the server; job is the prediction shown. patient_folder: None for a study that was on the
    server already. studies: the server's list of studies, newest first; None before it is fetched. pathology: what was
    recorded for the prediction shown, newest first. model_name: the chosen model, "" for the server's default.
    running_job_id: id of the running prediction. heatmap_marker: the marker whose Grad-CAM is shown or being computed.
    """

    server_status: Literal["starting", "ready", "gone"] = "starting"
    is_local: bool = True
    address: str = ""
    models: tuple[Json, ...] = ()
    patient_folder: Path | None = None
    task: Task | None = None
    study: Json | None = None
    job: Json | None = None
    error: ErrorMessage | None = None
    model_name: str = ""
    running_job_id: str = ""
    heatmap_marker: str = ""
    is_heatmap_pending: bool = False
    studies: tuple[Json, ...] | None = None
    pathology: tuple[Json, ...] = ()

    @property
    def is_study_ready(self) -> bool:
        """Whether the patient's images are prepared and can be shown."""
        return self.study is not None and self.study["state"] == "ready"

    @property
    def prediction(self) -> Json | None:
        """The prediction shown, in the format of prediction.json."""
        return None if self.job is None else self.job["result"]

    @property
    def patient_id(self) -> str:
        """The patient id from the server; the folder name until it is known."""
        server_patient_id = self.study and self.study.get("patient_id")
        return server_patient_id or (self.patient_folder.name if self.patient_folder else "")

    @property
    def patient_key(self) -> str:
        """What tells patients apart before and after the server has read the images; empty without a patient."""
        study_id = self.study.get("id", "") if self.study else ""
        return str(self.patient_folder or study_id)

    def collect_used_slice_indices(self, marker: str | None = None) -> frozenset[int]:
        """Return the indices of the slices used for one marker, or for any marker."""
        if self.study is None or self.prediction is None:
            return frozenset()
        names = list(self.study["slice_names"])
        used_names = (m["slices_used"] for m in self.prediction["markers"] if marker in (None, m["marker"]))
        return frozenset(
            names.index(name) for names_used in used_names for name in names_used if name in names
        )

    @property
    def can_save_dicom(self) -> bool:
        """Whether the prediction can be saved as DICOM; tried if the server does not know."""
        if self.study is None or self.prediction is None:
            return False
        return (
            self.study.get("has_dicom_images") is not False and self.prediction["input"]["kind"] != "pictures"
        )

    def find_levels(self, marker: str) -> tuple[str, ...]:
        """Return positive and negative level of a marker of the study's model; empty if it is unknown."""
        model_name = self.study["model"] if self.study else ""
        markers = [one for model in self.models if model["name"] == model_name for one in model["markers"]]
        return next(((one["positive"], one["negative"]) for one in markers if one["name"] == marker), ())

    @property
    def can_locate_lesion(self) -> bool:
        """Whether the server can state the location of the lesion with a prediction; an older server cannot."""
        return any(model.get("can_locate_lesion") for model in self.models)

    def get_substitutes(self) -> dict[str, str]:
        """Return the substitute used for each missing sequence."""
        return dict(self.study.get("stand_ins", {})) if self.study else {}

    def list_network_notes(self) -> list[str]:
        """Return the notes on a network that is used because a sequence is missing."""
        notes = self.study.get("notes", []) if self.study else []
        return [note for note in notes if getattr(note, "code", "") == SECOND_NETWORK_NOTE]

    @property
    def supplied_mask_name(self) -> str:
        """File name of a lesion mask supplied with the images; empty without one."""
        return str(self.study.get("found_outline", "")) if self.study else ""

    def list_lesion_areas(self) -> list[float]:
        """Return the predicted lesion area of every slice in mm2; empty without a prediction."""
        if self.study is None or self.prediction is None:
            return []
        areas_by_slice = self.prediction["lesion"]["areas_mm2"]
        return [float(areas_by_slice.get(name) or 0.0) for name in self.study["slice_names"]]
