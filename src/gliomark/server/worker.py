"""What a worker process does with a job: prepare, predict or explain. Only workers run the networks."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from gliomark.errors import DATA_ERRORS, GliomarkError, WeightsError
from gliomark.files import is_disk_full_error
from gliomark.isolation import ReaderPool
from gliomark.messages import collect_message_records, message
from gliomark.models.signatures import TrustPolicy
from gliomark.server.study_store import (
    StudyStore,
    decode_mask_png,
    encode_slice_png,
    redact_folder,
    stack_vertically,
    write_file,
)
from gliomark.study import ClinicalData

STEP_MESSAGES = {
    name: message(f"step-{name}") for name in ("align", "strip", "slice", "outline", "locate", "write")
}
PREPARE_PROGRESS = {"align": 0.05, "strip": 0.4, "slice": 0.85}
ProgressCallback = Callable[[str, float], None]
# of studies kept in a worker: about 30 of pictures, 7 of 1 mm volumes
STUDY_MEMORY_MB = 1000.0
IDLE_TIME_S = 0.2  # without another job, before a worker runs the networks ahead of a prediction
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerJob:
    """The part of a job that a worker needs.

    Attributes
    ----------
    outline_sha256
        Hash of the reader's mask to use; empty for the model's.
    request
        Options of the job.
    """

    id: str
    kind: str
    study_id: str
    model: str
    outline_sha256: str
    request: Mapping[str, Any]


@dataclass(frozen=True)
class JobResult:
    """Result of a job.

    Attributes
    ----------
    seconds
        Computing time.
    result
        Metadata of the prepared study, or the content of ``prediction.json``.
    model_sha256
        Hash of the weights used.
    """

    seconds: float
    result: dict[str, Any] | None
    model_sha256: str


class Worker:
    """Runs jobs in one process; its models are loaded once."""

    def __init__(
        self,
        data_folder: Path,
        model_files: Mapping[str, str],
        trust: TrustPolicy = TrustPolicy(),
        device: str = "cpu",
        study_memory_mb: float = STUDY_MEMORY_MB,
    ) -> None:
        self.study_memory_bytes = study_memory_mb * 1e6
        self.store, self.model_files, self.trust = StudyStore(data_folder), model_files, trust
        self.device = device
        self.reader_pool = ReaderPool()
        self._kept_studies: dict[
            tuple[str, tuple[int, int]], Any
        ] = {}  # by id and version; the last used at the end

    @cached_property
    def models(self) -> dict[str, Any]:
        """The loaded models by name."""
        from gliomark.model_loading import load_model

        return {
            name: load_model(file, self.trust, device=self.device) for name, file in self.model_files.items()
        }

    def run_job(self, job: WorkerJob, report_progress: ProgressCallback) -> JobResult:
        """Run a job.

        Raises
        ------
        WeightsError
            If the server does not have the job's model any more.
        """
        started_at, model = time.perf_counter(), self.models.get(job.model)
        if model is None:
            raise WeightsError(message("model-gone", model=job.model))
        methods = {"prepare": self.prepare, "predict": self.predict, "explain": self.explain}
        result = methods[job.kind](job, model, report_progress)
        return JobResult(time.perf_counter() - started_at, result, model.sha256)

    def prepare(self, job: WorkerJob, model: Any, report_progress: ProgressCallback) -> dict[str, Any]:
        """Register, skull-strip and normalise a study; return the metadata that the client needs to show it."""
        from gliomark.pipeline import prepare_study

        study = self.store.load_study(job.study_id)
        if any(series.source_images for series in study.series.values()):
            self.reader_pool.start()  # reads masks among the images later; starting it now saves time
        report_step = partial(_report_step, report_progress)
        prepared = prepare_study(study, model, report_step, self.reader_pool)
        report_progress(STEP_MESSAGES["write"], 0.9)
        self.store.save_prepared(job.study_id, prepared)
        stack = prepared.stack
        notes = [*prepared.warnings, *dict.fromkeys((*prepared.study.notes, *stack.notes))]
        supplied_mask = prepared.found
        return {
            "sequences": [str(name) for name in stack.images],
            "slice_names": list(stack.slice_names),
            "shape": list(stack.brain.shape),
            "spacing_mm": list(stack.spacing_mm),
            "spacing_assumed": prepared.study.spacing_assumed,
            "orientation_stated": prepared.study.is_orientation_stated,
            "grey": self.store.save_slices(job.study_id, stack),
            "model_sha256": model.sha256,
            "stand_ins": {str(missing): str(shown) for missing, shown in prepared.stand_ins.items()},
            "found_outline": supplied_mask.files
            if supplied_mask is not None and supplied_mask.mask is not None
            else "",
            "has_dicom_images": all(series.source_images for series in prepared.study.series.values()),
            "notes": notes,
            "messages": collect_message_records(notes),
        }

    def predict(self, job: WorkerJob, model: Any, report_progress: ProgressCallback) -> dict[str, Any]:
        """Run the prediction, on the reader's mask if requested; return the content of ``prediction.json``.

        Raises
        ------
        WeightsError
            If the study was prepared for a model with other sequences or settings.
        """
        from gliomark.inference.levels import LevelOptions
        from gliomark.pipeline import predict_prepared
        from gliomark.study import DEFAULT_COVERAGE

        job_request, prepared = job.request, self._load_prepared(job.study_id)
        outline = None
        if job.outline_sha256:
            content = self.store.get_correction_path(job.study_id, job.outline_sha256).read_bytes()
            outline = decode_mask_png(content, prepared.stack.brain.shape)
        progress_by_step = {"outline": 0.05, "locate": 0.92} | {
            name: 0.5 + 0.4 * number / len(model.classifiers) for number, name in enumerate(model.classifiers)
        }

        def report_step(name: str) -> None:
            title = STEP_MESSAGES.get(name) or message("step-marker", title=model.card.markers[name].title)
            report_progress(title, progress_by_step[name])

        prediction = predict_prepared(
            prepared,
            ClinicalData(prepared.study.patient_id, job_request.get("age"), job_request.get("sex")),
            model,
            fusion=job_request.get("fusion", "near"),
            has_enhancing_focus={"yes": True, "no": False}.get(str(job_request.get("enhancing"))),
            levels=LevelOptions(
                job_request.get("coverage", DEFAULT_COVERAGE), job_request.get("prevalence", {})
            ),
            reader_mask=outline,
            locates_lesion=bool(job_request.get("location")),
            notify=report_step,
        )
        report_progress(STEP_MESSAGES["write"], 0.95)
        self.store.save_prediction(job.study_id, job.id, prediction)
        return prediction.to_dict()

    def run_networks_ahead(self, job: WorkerJob) -> None:
        """Run the networks on a study that was just prepared, so that its prediction is answered at once.

        Their results are kept with the study. What fails here fails again in the prediction, which reports it.
        """
        from gliomark.pipeline import predict_prepared

        try:
            prepared = self._load_prepared(job.study_id)
            clinical = ClinicalData(prepared.study.patient_id, None, None)
            predict_prepared(prepared, clinical, self.models[job.model])
        except (GliomarkError, *DATA_ERRORS) as error:
            LOG.info("no results ahead of the prediction: %s", type(error).__name__)

    def _load_prepared(self, study_id: str) -> Any:
        """Load a prepared study; the last ones stay in memory, with which the results of the networks are kept.

        Studies that were removed or prepared again since are forgotten.
        """
        for kept in list(self._kept_studies):
            if self.store.get_prepared_version(kept[0]) != kept[1]:
                del self._kept_studies[kept]
        key = (study_id, self.store.get_prepared_version(study_id))
        prepared = self._kept_studies.pop(key, None)
        if prepared is None:
            prepared = self.store.load_prepared(study_id)
        self._kept_studies[key] = prepared
        while (
            len(self._kept_studies) > 1
            and sum(map(_count_bytes, self._kept_studies.values())) > self.study_memory_bytes
        ):
            del self._kept_studies[next(iter(self._kept_studies))]
        return prepared

    def explain(self, job: WorkerJob, model: Any, report_progress: ProgressCallback) -> None:
        """Save a marker's Grad-CAM map on the slices that decided the result, as one PNG beside the prediction.

        Raises
        ------
        WeightsError
            If the prediction was made with other weights.
        """
        import numpy as np

        from gliomark.explanation.branch_maps import compute_branch_maps
        from gliomark.models.network_loading import load_marker_network

        prediction_id, marker = str(job.request["prediction"]), str(job.request["marker"])
        prediction = self.store.load_prediction(job.study_id, prediction_id)
        if prediction.model.sha256 != model.sha256:
            raise WeightsError(message("answer-of-other-weights"))
        (answer,) = (
            marker_prediction
            for marker_prediction in prediction.markers
            if marker_prediction.marker == marker
        )
        stack = prediction.stack
        index = [stack.slice_names.index(score.slice_name) for score in answer.slices if score.decides]
        heatmap = np.zeros(stack.brain.shape, np.uint8)
        if index:
            *_, middle_map = compute_branch_maps(
                load_marker_network(model.weights, marker).to(model.device),
                model.classifiers[marker],
                stack,
                prediction.segmentation.mask,
                index,
                stage=3,
            ).values()
            heatmap[index] = np.round(middle_map * 255).astype(np.uint8)
        write_file(
            self.store.get_prediction_folder(job.study_id, prediction_id) / f"heat_{marker}.png",
            encode_slice_png(stack_vertically(heatmap)),
        )


def return_free_memory() -> None:
    """Return freed memory to the system, which the C library keeps otherwise: 50 MB more with every study."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):  # glibc
        trim(0)


def _count_bytes(prepared: Any) -> int:
    """Count the bytes of a prepared study: all images, and a mask and a probability of the stack's size."""
    stack = prepared.stack
    originals = sum(series.image.nbytes for series in prepared.study.series.values())
    return int(originals + sum(image.nbytes for image in stack.images.values()) + 5 * stack.brain.size)


def _report_step(report_progress: ProgressCallback, step_name: str) -> None:
    report_progress(STEP_MESSAGES[step_name], PREPARE_PROGRESS[step_name])


def describe_model(name: str, model: Any) -> dict[str, Any]:
    """Return the description of a model for clients, see ``ModelResponse``."""
    from gliomark.location import is_atlas_installed
    from gliomark.pipeline import describe_performance

    card = model.card
    card_fields = ("title", "positive", "negative", "label", "threshold")
    return {
        "name": name,
        "title": card.name,
        "sha256": model.sha256,
        "signature": model.signature,
        "sequences": list(card.sequences),
        "intended_use": card.intended_use,
        "licence": card.licence,
        "can_locate_lesion": is_atlas_installed(),
        "markers": [
            {
                "name": marker,
                "performance": describe_performance(one),
                "prevalence": one.patient_calibration and one.patient_calibration.prevalence,
            }
            | {field_name: getattr(one, field_name) for field_name in card_fields}
            for marker, one in card.markers.items()
        ],
    }


def _bind_to_server() -> None:
    """Ignore signals that stop the server, so that they do not look like a crash, and end when the server ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if server := parent_process():
        threading.Thread(target=_exit_with_server, args=(server,), daemon=True).start()


def _exit_with_server(server: BaseProcess) -> None:
    server.join()
    os._exit(1)


def run_worker(
    connection: Connection,
    data_folder: Path,
    model_files: Mapping[str, str],
    thread_count: int,
    trust: TrustPolicy = TrustPolicy(),
    device: str = "cpu",
    study_memory_mb: float = STUDY_MEMORY_MB,
) -> None:
    """Main loop of a worker process: load the models, then run jobs until the server closes the connection.

    The first message to the server is the list of model descriptions, or the text of an error.
    """
    _bind_to_server()
    os.environ["OMP_NUM_THREADS"] = str(thread_count)
    worker = Worker(data_folder, model_files, trust, device, study_memory_mb)
    try:
        connection.send([describe_model(name, model) for name, model in worker.models.items()])
    except GliomarkError as error:
        connection.send(str(error))
        return
    while True:
        try:
            job = connection.recv()
        except (EOFError, OSError):
            return
        input_folder = worker.store.get_input_folder(job.study_id)
        try:
            reply: JobResult | str = worker.run_job(
                job, lambda step, progress: connection.send((step, progress))
            )
        except GliomarkError as error:
            reply = redact_folder(redact_folder(error.message, input_folder), data_folder)
        except DATA_ERRORS as error:
            if is_disk_full_error(error):
                connection.send(message("disk-full"))
                continue
            reason = redact_folder(" ".join(str(error).split())[-200:], input_folder)
            reply = message("not-computed", kind=type(error).__name__, reason=reason)
        connection.send(reply)
        if job.kind == "prepare" and isinstance(reply, JobResult) and not connection.poll(IDLE_TIME_S):
            worker.run_networks_ahead(job)
        return_free_memory()
