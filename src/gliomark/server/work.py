"""What a worker process does with a job: prepare a study, predict, explain. Only here the networks are at work."""

from __future__ import annotations

import os
import signal
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

from gliomark.files import is_disk_full
from gliomark.isolation import ReadingProcesses
from gliomark.messages import collect, message
from gliomark.models.signatures import Trust
from gliomark.server.store import Store, png, read_mask, tall, without_path, write
from gliomark.study import UNFORESEEN, Clinical, GliomarkError

STEPS = {name: message(f"step-{name}") for name in ("align", "strip", "slice", "outline", "write")}
PREPARED = {"align": 0.05, "strip": 0.4, "slice": 0.85}
Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class Job:
    """What a worker has to know of a job."""

    id: str
    kind: str
    study_id: str
    model: str
    prepared_for: str
    outline_sha256: str
    request: Mapping[str, Any]


@dataclass(frozen=True)
class Done:
    """result: the study's ``about`` or the content of prediction.json."""

    seconds: float
    result: dict[str, Any] | None
    model_sha256: str


class Worker:
    """One process: its models are loaded once."""

    def __init__(self, folder: Path, models: Mapping[str, str], trust: Trust = Trust()) -> None:
        self.store, self.files, self.trust = Store(folder), models, trust
        self.reading = ReadingProcesses()

    @cached_property
    def models(self) -> dict[str, Any]:
        from gliomark.pipeline import load_model

        return {name: load_model(file, self.trust) for name, file in self.files.items()}

    def do(self, job: Job, tell: Tell) -> Done:
        started, model = time.perf_counter(), self.models.get(job.model)
        if model is None:
            raise GliomarkError(message("model-gone", model=job.model))
        does = {"prepare": self.prepare, "predict": self.predict, "explain": self.explain}
        result = does[job.kind](job, model, tell)
        return Done(time.perf_counter() - started, result, model.sha256)

    def prepare(self, job: Job, model: Any, tell: Tell) -> dict[str, Any]:
        """Register, strip, normalise; what the client needs to show it."""
        from gliomark.pipeline import prepare_study

        study = self.store.load_study(job.study_id)
        if any(series.source_images for series in study.series.values()):
            self.reading.start()  # for masks among them, once the images are prepared
        step = partial(_tell_step, tell)
        prepared = prepare_study(study, model, step, self.reading)
        tell(STEPS["write"], 0.9)
        self.store.keep_prepared(job.study_id, prepared)
        stack = prepared.stack
        notes = [*prepared.warnings, *dict.fromkeys((*prepared.study.notes, *stack.notes))]
        found = prepared.found
        return {
            "sequences": [str(name) for name in stack.images],
            "slice_names": list(stack.slice_names),
            "shape": list(stack.brain.shape),
            "spacing_mm": list(stack.spacing_mm),
            "grey": self.store.keep_slices(job.study_id, stack),
            "model_sha256": model.sha256,
            "stand_ins": {str(wanted): str(shown) for wanted, shown in prepared.stand_ins.items()},
            "found_outline": found.files if found is not None and found.mask is not None else "",
            "notes": notes,
            "messages": collect(notes),
        }

    def predict(self, job: Job, model: Any, tell: Tell) -> dict[str, Any]:
        """The cascade, on the doctor's outline where that is asked for."""
        from gliomark.pipeline import predict_prepared
        from gliomark.reporting import prediction_document

        asked, prepared = job.request, self.store.load_prepared(job.study_id)
        if job.prepared_for != model.sha256:
            raise GliomarkError(message("other-weights"))
        outline = None
        if job.outline_sha256:
            content = self.store.correction(job.study_id, job.outline_sha256).read_bytes()
            outline = read_mask(content, prepared.stack.brain.shape)
        shares = {"outline": 0.05} | {
            name: 0.5 + 0.4 * number / len(model.classifiers) for number, name in enumerate(model.classifiers)
        }

        def step(name: str) -> None:
            title = STEPS.get(name) or message("step-marker", title=model.card.markers[name].title)
            tell(title, shares[name])

        prediction = predict_prepared(
            prepared,
            Clinical(prepared.study.patient_id, asked.get("age"), asked.get("sex")),
            model,
            fusion=asked.get("fusion", "near"),
            enhancing={"yes": True, "no": False}.get(str(asked.get("enhancing"))),
            outline=outline,
            step=step,
        )
        tell(STEPS["write"], 0.95)
        self.store.keep_prediction(job.study_id, job.id, prediction)
        return prediction_document(prediction)

    def explain(self, job: Job, model: Any, tell: Tell) -> None:
        """A marker's Grad-CAM on the slices that decided, as a tall picture beside the prediction."""
        import numpy as np

        from gliomark.explain import branch_maps

        of, marker = str(job.request["prediction"]), str(job.request["marker"])
        prediction = self.store.load_prediction(job.study_id, of)
        if prediction.model.sha256 != model.sha256:
            raise GliomarkError(message("answer-of-other-weights"))
        (answer,) = (m for m in prediction.markers if m.marker == marker)
        stack = prediction.stack
        index = [stack.slice_names.index(score.slice_name) for score in answer.slices if score.decides]
        heat = np.zeros(stack.brain.shape, np.uint8)
        if index:
            *_, middle = branch_maps(
                model.classifiers[marker], stack, prediction.segmentation.mask, index, stage=3
            ).values()
            heat[index] = np.round(middle * 255).astype(np.uint8)
        write(self.store.prediction(job.study_id, of) / f"heat_{marker}.png", png(tall(heat)))


def _tell_step(tell: Tell, name: str) -> None:
    tell(STEPS[name], PREPARED[name])


def described(name: str, model: Any) -> dict[str, Any]:
    """What a client wants to know of a model before it asks."""
    from gliomark.pipeline import performance

    card = model.card
    told = ("title", "positive", "negative", "label", "threshold")
    return {
        "name": name,
        "title": card.name,
        "sha256": model.sha256,
        "signature": model.signature,
        "sequences": list(card.sequences),
        "intended_use": card.intended_use,
        "licence": card.licence,
        "markers": [
            {"name": marker, "performance": performance(one)} | {word: getattr(one, word) for word in told}
            for marker, one in card.markers.items()
        ],
    }


def _belong_to_server() -> None:
    """What stops the server must not look like a death of this process, and it must not outlive the server."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if server := parent_process():
        threading.Thread(target=_end_with, args=(server,), daemon=True).start()


def _end_with(server: BaseProcess) -> None:
    server.join()
    os._exit(1)


def work(
    connection: Connection, folder: Path, models: Mapping[str, str], threads: int, trust: Trust = Trust()
) -> None:
    """A worker's life: load the models and describe them, or say what is wrong with them; then do one job after the
    other until the server hangs up."""
    _belong_to_server()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)
    worker = Worker(folder, models, trust)
    try:
        connection.send([described(name, model) for name, model in worker.models.items()])
    except GliomarkError as error:
        connection.send(str(error))
        return
    while True:
        try:
            job = connection.recv()
        except (EOFError, OSError):
            return
        place = worker.store.input(job.study_id)
        try:
            answer: Done | str = worker.do(job, lambda step, progress: connection.send((step, progress)))
        except GliomarkError as error:
            answer = without_path(without_path(error.message, place), folder)
        except UNFORESEEN as error:
            if is_disk_full(error):
                connection.send(message("disk-full"))
                continue
            reason = without_path(" ".join(str(error).split())[-200:], place)
            answer = message("not-computed", kind=type(error).__name__, reason=reason)
        connection.send(answer)
