"""Distribute the patients of a batch over worker processes with dask.

A worker receives the settings once, as a plugin, loads the model at its first patient, writes the results itself and
returns a row of the table. Nothing else is sent.
"""

from __future__ import annotations

import platform
import threading
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

import SimpleITK as sitk
from distributed import Client, Worker, WorkerPlugin

from gliomark.batch.options import RunOptions
from gliomark.batch.patient import BatchSettings, PatientPredictor, PatientResult
from gliomark.cluster import create_dask_client, get_reader_pool, run_with_refill
from gliomark.errors import ConfigurationError, GliomarkError, WeightsError
from gliomark.io import list_patient_files
from gliomark.messages import message
from gliomark.model_loading import Model, load_model
from gliomark.reporting import FailedPatient

WORKER_TIMEOUT_S = 15


class BatchPlugin(WorkerPlugin):
    """Gives the folders and settings of a batch to all workers, also to those that join later."""

    def __init__(self, name: str, folders: Sequence[Path], settings: BatchSettings) -> None:
        self.name, self.folders, self.settings = name, folders, settings

    def setup(self, worker: Worker) -> None:
        """Keep the settings in the worker's process.

        Raises
        ------
        ConfigurationError
            If the worker has another version of gliomark.
        """
        found, expected = version("gliomark"), self.settings.software_version
        if found != expected:
            raise ConfigurationError(
                message("worker-version", host=platform.node(), found=found, expected=expected)
            )
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # a process per core is fastest
        _BATCHES[self.name] = self

    def teardown(self, worker: Worker) -> None:
        """Forget the settings."""
        _BATCHES.pop(self.name, None)


_BATCHES: dict[str, BatchPlugin] = {}  # by name; in a worker process
_MODELS: dict[tuple[str, str, str], Model] = {}  # the last one, by hash, signature and device
_LOCK = threading.Lock()  # one patient at a time, also in a worker with several threads


def predict_on_workers(
    folders: Sequence[Path], numbers: deque[int], settings: BatchSettings, run_options: RunOptions
) -> Iterator[PatientResult]:
    """Predict patients on worker processes, and yield the results in order of completion.

    Parameters
    ----------
    folders
        All patients of the batch.
    numbers
        Indices of the folders to predict, in this order; they are removed, and the caller may append more.
    settings
        What is the same for all patients.
    run_options
        Number of processes, or address of the scheduler.

    Raises
    ------
    ConfigurationError
        If the scheduler does not answer, has no workers, or these cannot run this version of gliomark.
    WeightsError
        If a worker cannot load the model, or loads another one.
    FileWriteError
        If the disk is full.
    """
    workers = None if run_options.workers is None else min(run_options.workers, len(numbers))
    with (
        create_dask_client(workers, run_options.scheduler, max_tries=1) as client,
        _share_settings(client, run_options.scheduler, folders, settings) as batch_name,
    ):
        function = partial(predict_on_worker, batch_name)
        for number, result in run_with_refill(client, function, numbers):
            if result is None:
                error_message = message("batch-worker-died", folder=folders[number])
                result = PatientResult(number, failure=FailedPatient(folders[number].name, error_message))
            yield result


@contextmanager
def _share_settings(
    client: Client, scheduler: str | None, folders: Sequence[Path], settings: BatchSettings
) -> Iterator[str]:
    """Send folders and settings to all workers, and yield their name there; they are forgotten at exit."""
    try:
        client.wait_for_workers(1, timeout=WORKER_TIMEOUT_S)
    except TimeoutError:
        raise ConfigurationError(message("workers-absent", scheduler=scheduler or "")) from None
    plugin = BatchPlugin(f"gliomark-{uuid.uuid4().hex}", folders, settings)
    try:
        client.register_plugin(plugin)
    except GliomarkError:
        raise
    except Exception as error:  # whatever importing gliomark raises there
        reason = " ".join(str(error).split())[-200:]
        raise ConfigurationError(
            message("worker-unusable", kind=type(error).__name__, reason=reason)
        ) from error
    try:
        yield plugin.name
    finally:
        client.unregister_worker_plugin(plugin.name)


# ---- in a worker process ----------------------------------------------------------------------------


def predict_on_worker(batch_name: str, number: int) -> PatientResult:
    """Predict one patient of a batch in a worker process, by the index of the folder.

    Raises
    ------
    ConfigurationError
        If the worker did not receive the settings of the batch.
    WeightsError
        If the model cannot be loaded, or is another one.
    FileWriteError
        If the disk is full.
    """
    batch = _BATCHES.get(batch_name)
    if batch is None:
        raise ConfigurationError(message("worker-without-settings", host=platform.node()))
    folder, settings = batch.folders[number], batch.settings
    is_readable = folder.exists() or bool(list_patient_files(folder))  # a case of nnU-Net is no folder
    if not (is_readable and settings.output_folder.exists()):
        path = settings.output_folder if is_readable else folder
        error_message = message("worker-unreachable", folder=path, host=platform.node())
        return PatientResult(number, failure=FailedPatient(folder.name, error_message))
    with _LOCK:
        predictor = PatientPredictor(settings, _load_model_once(settings), get_reader_pool())
        return predictor.predict_patient(number, folder)


def _load_model_once(settings: BatchSettings) -> Model:
    """Return the model of a batch, loaded by this process's first patient."""
    options = settings.options
    key = (settings.weights_sha256, settings.signature, options.device)
    if key not in _MODELS:
        model = load_model(options.model, options.trust, device=options.device)
        if model.sha256 != settings.weights_sha256:
            raise WeightsError(message("worker-other-weights", model=options.model, host=platform.node()))
        _MODELS.clear()
        _MODELS[key] = model
    return _MODELS[key]
