"""What a worker keeps in memory between its jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from gliomark.errors import WeightsError
from gliomark.inference.segmenter import Segmenter
from gliomark.inference.slice_classifier import SliceClassifier
from gliomark.io import read_study
from gliomark.model_loading import build_model
from gliomark.models.weights import load_weights
from gliomark.pipeline import PreparedStudy, prepare_study
from gliomark.server import worker as worker_module
from gliomark.server.study_store import StudyStore
from gliomark.server.worker import Worker, WorkerJob


@pytest.fixture(scope="module")
def prepared(tiny_weights: Path, picture_folder: Path) -> PreparedStudy:
    return prepare_study(read_study(picture_folder), build_model(load_weights(tiny_weights)))


def create_worker(folder: Path, prepared: PreparedStudy, studies: str) -> Worker:
    store = StudyStore(folder)
    for name in studies:
        store.get_study_folder(name).mkdir(parents=True)
        store.save_prepared(name, prepared)
    return Worker(folder, {})


@pytest.mark.parametrize(
    "kept_studies, order, loaded",
    [
        (2, "abab", "ab"),  # both stay
        (1, "aabb", "ab"),  # the last one stays
        (1, "aba", "aba"),
        (2, "abcb", "abc"),
        (2, "abca", "abca"),  # c takes the place of a, which was used longest ago
        (2, "abacab", "abcb"),
        (0, "aab", "ab"),  # the last one stays even if it is too large
    ],
)
def test_a_worker_keeps_the_studies_used_last(
    tmp_path: Path,
    prepared: PreparedStudy,
    kept_studies: int,
    order: str,
    loaded: str,
) -> None:
    worker = create_worker(tmp_path, prepared, "abc")
    size = worker_module._count_bytes(prepared)
    worker.study_memory_bytes = size * (kept_studies + 0.5)
    found = [worker._load_prepared(name) for name in order]
    first_seen = [
        number for number, one in enumerate(found) if not any(one is other for other in found[:number])
    ]
    assert "".join(order[number] for number in first_seen) == loaded


def test_a_study_that_is_prepared_again_is_loaded_again(tmp_path: Path, prepared: PreparedStudy) -> None:
    worker = create_worker(tmp_path, prepared, "a")
    before = worker._load_prepared("a")
    worker.store.save_prepared("a", prepared)
    assert worker._load_prepared("a") is not before


@pytest.mark.parametrize("change", ["removed", "prepared again"])
def test_a_study_that_is_gone_is_forgotten_at_the_next_job(
    tmp_path: Path, prepared: PreparedStudy, change: str
) -> None:
    worker = create_worker(tmp_path, prepared, "ab")
    worker._load_prepared("a")
    if change == "removed":
        worker.store.remove_study("a")
    else:
        worker.store.save_prepared("a", prepared)
    worker._load_prepared("b")
    assert [study_id for study_id, _ in worker._kept_studies] == ["b"]


@pytest.fixture
def worker_with_model(tmp_path: Path, prepared: PreparedStudy, tiny_weights: Path) -> Worker:
    create_worker(tmp_path, prepared, "a")
    return Worker(tmp_path, {"tiny": str(tiny_weights)})


def create_job(kind: str, model: str = "tiny") -> WorkerJob:
    return WorkerJob(kind, kind, "a", model, "", {"age": 51.0, "sex": 1})


def test_networks_run_ahead_answer_the_prediction_without_running_again(
    worker_with_model: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = worker_with_model.run_job(create_job("predict"), lambda *_: None).result
    worker_with_model._kept_studies.clear()  # as at the start
    worker_with_model.run_networks_ahead(create_job("prepare"))
    monkeypatch.setattr(Segmenter, "segment", lambda *_: pytest.fail("the outline was computed again"))
    monkeypatch.setattr(
        SliceClassifier, "compute_features", lambda *_: pytest.fail("the slices were scored again")
    )
    found = worker_with_model.run_job(create_job("predict"), lambda *_: None).result
    assert found is not None and expected is not None
    assert found["markers"] == expected["markers"] and found["lesion"] == expected["lesion"]


def test_a_failure_ahead_of_the_prediction_is_left_to_it(
    worker_with_model: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise WeightsError("no number")

    monkeypatch.setattr(Segmenter, "segment", fail)
    worker_with_model.run_networks_ahead(create_job("prepare"))
    with pytest.raises(WeightsError, match="no number"):
        worker_with_model.run_job(create_job("predict"), lambda *_: None)
