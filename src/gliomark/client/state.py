"""What the window shows, as one frozen record; every panel draws itself from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gliomark.client.trouble import ErrorMessage
from gliomark.messages import restore_messages

Json = Mapping[str, Any]
TaskKind = Literal["waiting", "packing", "uploading", "preparing", "predicting"]


def restore_document(document: Json) -> Json:
    """A study or a job as the server sent it, its sentences as messages again."""
    result = document.get("result")
    if result:
        document = {**document, "result": restore_messages(result, result.get("messages", ()))}
    return {**document, **restore_messages(_exclude_result(document), document.get("messages", ()))}


def _exclude_result(document: Json) -> dict[str, Any]:
    return {name: part for name, part in document.items() if name != "result"}


@dataclass(frozen=True)
class Task:
    """What is going on. progress: 0 to 1, None where nobody knows; step: the server's word for it."""

    kind: TaskKind
    progress: float | None = None
    step: str = ""


@dataclass(frozen=True)
class ClientState:
    """All of it.

    server: what the client knows of it. study, job: the server's documents, job the prediction shown. model: the
    one chosen, "" for the server's default. running: the id of the prediction going on. heat: the marker whose
    Grad-CAM is shown or, pending, on its way.
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

    @property
    def is_study_ready(self) -> bool:
        """The patient's sequences are there to be looked at."""
        return self.study is not None and self.study["state"] == "ready"

    @property
    def prediction(self) -> Json | None:
        """The answer, prediction.json's content."""
        return None if self.job is None else self.job["result"]

    @property
    def patient_id(self) -> str:
        """The server's id of the patient; until it is known, the folder's name."""
        server_patient_id = self.study and self.study.get("patient_id")
        return server_patient_id or (self.patient_folder.name if self.patient_folder else "")

    def collect_used_slice_indices(self, marker: str | None = None) -> frozenset[int]:
        """Indices of the slices that decided one marker, or any."""
        if self.study is None or self.prediction is None:
            return frozenset()
        names = list(self.study["slice_names"])
        used_names = (m["slices_used"] for m in self.prediction["markers"] if marker in (None, m["marker"]))
        return frozenset(
            names.index(name) for names_used in used_names for name in names_used if name in names
        )

    def get_substitutes(self) -> dict[str, str]:
        """Sequences that are missing, each with the one that is shown in its place."""
        return dict(self.study.get("stand_ins", {})) if self.study else {}

    @property
    def supplied_mask_name(self) -> str:
        """The file name of a lesion mask that came with the images; empty where none did."""
        return str(self.study.get("found_outline", "")) if self.study else ""

    def list_lesion_areas(self) -> list[float]:
        """The answer's lesion area on every slice, mm2."""
        if self.study is None or self.prediction is None:
            return []
        areas_by_slice = self.prediction["lesion"]["areas_mm2"]
        return [float(areas_by_slice.get(name) or 0.0) for name in self.study["slice_names"]]
