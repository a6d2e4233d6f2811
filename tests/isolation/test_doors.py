"""In every entry point, a patient whose files crash the reader process fails alone, with one error message."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from tests.io.test_dicom import write_series
from tests.isolation import hostile
from tests.pipeline.conftest import PAIR, drawn_images, picture_folder, tiny_weights
from tests.server.conftest import SMALL_LIMITS, LiveClient, run_server

from gliomark.batch import PredictionOptions, predict_folder
from gliomark.cohort import build, scan
from gliomark.cohort.build import BuildSettings, CohortSources, build_cohort
from gliomark.cohort.scan import _read_header_batch
from gliomark.io import read_study
from gliomark.io.dicom import Instance, find_dicom_files, read_headers
from gliomark.isolation import ReaderPool, ReaderProcessError, read_items_skipping_crashes
from gliomark.messages import Message
from gliomark.model_loading import load_model
from gliomark.pipeline import predict
from gliomark.server.dicom_node import DicomNode, DicomNodeConfig
from gliomark.server.run import ServerConfig
from gliomark.study import ClinicalData

__all__ = ["drawn_images", "picture_folder", "tiny_weights"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of POSIX")
COMMAND = (sys.executable, "-P", hostile.__file__, "poison")


@pytest.fixture(scope="module")
def reader_pool() -> Iterator[ReaderPool]:
    with ReaderPool(2, command=COMMAND) as processes:
        yield processes


@pytest.fixture(scope="module")
def three_patients(tmp_path_factory: pytest.TempPathFactory, picture_folder: Path) -> Path:
    """Write three patients; the second crashes the reader process."""
    folder = tmp_path_factory.mktemp("three")
    for name in ("A", "B", "C"):
        shutil.copytree(picture_folder, folder / name)
    (folder / "B" / "poison").write_bytes(b"poison")
    return folder


def test_a_batch_predicts_the_other_patients_as_if_alone(
    three_patients: Path,
    tiny_weights: Path,
    tmp_path: Path,
    reader_pool: ReaderPool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictions = {}

    def keep_prediction(report_input, *arguments):  # noqa: ANN001, ANN002, ANN202
        predictions[report_input.prediction.patient_id] = report_input.prediction
        return write(report_input, *arguments)

    from gliomark.batch import patient

    write = patient.write_result_folder
    monkeypatch.setattr(patient, "write_result_folder", keep_prediction)
    request = PredictionOptions(str(tiny_weights), allows_missing_clinical=True)
    report = predict_folder(three_patients, None, tmp_path / "out", request, reader_pool=reader_pool)
    (failure,) = report.failures
    assert failure.patient_id == "B"
    assert isinstance(failure.message, Message) and failure.message.code == "reading-crashed"
    assert str(three_patients / "B") in failure.message and "at poison" in failure.message
    assert not (tmp_path / "out" / "B").exists()
    model = load_model(tiny_weights)
    assert predictions.keys() == {"A", "C"}
    for name, prediction in predictions.items():
        expected = predict(
            read_study(three_patients / name, required_sequences=model.sequences),
            ClinicalData(name, None, None),
            model,
        )
        np.testing.assert_array_equal(prediction.segmentation.probability, expected.segmentation.probability)
        assert prediction.markers == expected.markers and prediction.all_notes == expected.all_notes
        for sequence, image in expected.stack.images.items():
            np.testing.assert_array_equal(prediction.stack.images[sequence], image)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Iterator[LiveClient]:
    settings = ServerConfig(
        tmp_path_factory.mktemp("data"), model_files={"tiny": str(tiny_weights)}, request_limits=SMALL_LIMITS
    )
    with run_server(settings) as client:
        client.server.reader_pool.close()
        client.server.reader_pool.command = COMMAND
        yield client


def test_a_server_refuses_a_crashing_study_and_accepts_the_next(
    live: LiveClient, three_patients: Path
) -> None:
    for name in ("B", "A", "B", "C"):
        response: httpx.Response = live.upload(three_patients / name)
        if name != "B":
            assert response.status_code == 201, response.text
            continue
        assert response.status_code == 422 and response.json()["code"] == "reading-crashed"
        assert str(live.server.store.data_folder) not in response.text and "poison" in response.text
    folder = live.server.store.data_folder
    assert len(list((folder / "studies").iterdir())) == 2
    assert not (folder / "uploads").exists() or not any((folder / "uploads").iterdir())


@pytest.fixture
def node(live: LiveClient) -> DicomNode:
    """A node that does not listen; the tests store received files where it would."""
    return DicomNode(live.server, DicomNodeConfig(0, allowed_ae_titles=("MRI",)))


def write_pushed_study(node: DicomNode, name: str, poison: bool) -> Path:
    folder = node.incoming_folder.with_name("taken") / f"{name}-12345678"
    write_series(folder, SeriesDescription="T2 FLAIR")
    for number, file in enumerate(sorted(find_dicom_files(folder))):
        file.rename(folder / f"{number}.dcm")
    if poison:
        content = (folder / "2.dcm").read_bytes()
        (folder / "2.dcm").write_bytes(content + b"POISON")
    return folder


def test_a_crashing_pushed_study_is_set_aside(live: LiveClient, node: DicomNode) -> None:
    folder = write_pushed_study(node, "bad", poison=True)
    sent = sorted(file.name for file in folder.iterdir())
    node._request_prediction(folder)
    set_aside_folder = live.server.store.data_folder / "set-aside"
    assert sorted(file.name for file in (set_aside_folder / folder.name).iterdir()) == sent
    reason = (set_aside_folder / f"{folder.name}.txt").read_text("utf-8")
    assert "signal 11" in reason and "2.dcm" in reason and reason.count("\n") == 1
    assert not folder.exists() and not any((live.server.store.data_folder / "tries").iterdir())
    assert any(row.action == "pushed study set aside" for row in live.server.database.list_audit_lines())


@pytest.mark.parametrize("earlier_attempts", [0, 1, 2])
def test_a_study_that_ended_the_server_is_tried_twice(
    live: LiveClient, node: DicomNode, earlier_attempts: int
) -> None:
    folder = write_pushed_study(node, f"study{earlier_attempts}", poison=False)
    tries = live.server.store.data_folder / "tries" / f"study{earlier_attempts}"
    tries.parent.mkdir(exist_ok=True)
    if earlier_attempts:
        tries.write_bytes(b"." * earlier_attempts)  # as left by servers that ended during earlier attempts
    node._request_prediction(folder)
    set_aside = (live.server.store.data_folder / "set-aside" / folder.name).exists()
    assert set_aside == (earlier_attempts == 2)
    assert not tries.exists(), "a study that is pushed again is read again"


@pytest.mark.sample(3)
@pytest.mark.parametrize("damaged", [(0,), (3, 4), tuple(range(6))])
def test_crashing_headers_are_quarantined_individually(
    tmp_path: Path, reader_pool: ReaderPool, monkeypatch: pytest.MonkeyPatch, damaged: tuple[int, ...]
) -> None:
    write_series(tmp_path, SeriesDescription="T2 FLAIR")
    files = sorted(find_dicom_files(tmp_path))[:6]
    for number in damaged:
        files[number].write_bytes(files[number].read_bytes() + b"POISON")
    monkeypatch.setattr(scan, "get_reader_pool", lambda: reader_pool)
    found = _read_header_batch(files)
    instances = [one for one in found if isinstance(one, Instance)]
    quarantined = [one for one in found if not isinstance(one, Instance)]
    assert sorted(one.file for one in instances) == sorted(f for n, f in enumerate(files) if n not in damaged)
    assert sorted(one.where for one in quarantined) == sorted(str(files[n]) for n in damaged)
    assert all("the reading process ended unexpectedly" in one.reason for one in quarantined)


def test_an_unknown_crashing_file_is_found_by_bisection(tmp_path: Path) -> None:
    files = [tmp_path / str(number) for number in range(9)]

    def read_items(subject: Path, function: object, items: list[Path]) -> list[str]:
        if files[5] in items:
            raise ReaderProcessError("ended", "")
        return [one.name for one in items]

    found, crashed = read_items_skipping_crashes(read_items, tmp_path, read_headers, files, lambda one: one)  # type: ignore[arg-type]
    assert found == ["0", "1", "2", "3", "4", "6", "7", "8"] and crashed == [(files[5], "ended")]


def test_a_cohort_is_built_without_the_patient(
    three_patients: Path, tmp_path: Path, reader_pool: ReaderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("id,age,sex,idh_mutant\nA,50,0,1\nB,51,1,0\nC,52,0,1\n", "utf-8")
    for module in (scan, build):
        monkeypatch.setattr(module, "get_reader_pool", lambda: reader_pool)
    report = build_cohort(
        CohortSources(three_patients, labels),
        tmp_path / "cohort",
        BuildSettings(sequences=PAIR, without_masks=True),
        workers=0,
    )
    assert report.prepared == 2 and report.left_out.keys() == {"B"}
    assert "the reading process ended unexpectedly (signal 11) at poison" in report.left_out["B"]
