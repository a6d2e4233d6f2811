"""Studies received by C-STORE are predicted and sent back, to an archive made with pynetdicom and to a real
Orthanc."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import highdicom
import httpx
import numpy as np
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification
from scipy.spatial import cKDTree
from sqlalchemy import select
from tests.pipeline.conftest import drop_mask, write_dicom
from tests.server.conftest import LiveClient, create_test_database, run_server

from gliomark.errors import GliomarkError
from gliomark.io.dicom import find_dicom_files
from gliomark.reporting.mask_resampling import resample_mask_to_source_images, select_reference_sequence
from gliomark.server import dicom_node
from gliomark.server.database import DeliveryRow, JobRow
from gliomark.server.destinations import parse_destination
from gliomark.server.dicom_node import DicomNode, DicomNodeConfig
from gliomark.server.run import ServerConfig, create_server
from gliomark.server.study_import import create_prediction_request, read_age

KINDS = {"SEG": "1.2.840.10008.5.1.4.1.1.66.4", "DOC": "1.2.840.10008.5.1.4.1.1.104.1"}
ORTHANC = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
PLUGINS = Path("/usr/share/orthanc/plugins")


@dataclass
class Archive:
    """An archive that keeps the objects it receives."""

    port: int
    got: list[Dataset]

    def until(self, count: int, seconds: float = 180) -> list[Dataset]:
        ends = time.monotonic() + seconds
        while len(self.got) < count and time.monotonic() < ends:
            time.sleep(0.1)
        assert len(self.got) == count, [one.Modality for one in self.got]
        return self.got


@pytest.fixture
def archive() -> Iterator[Archive]:
    got: list[Dataset] = []

    def keep(event: evt.Event) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        got.append(dataset)
        return 0

    entity = AE("ARCHIVE")
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(str(context.abstract_syntax))
    listener = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    yield Archive(listener.server_address[1], got)
    listener.shutdown()


@pytest.fixture(scope="module")
def pushed(tmp_path_factory, drawn_images) -> Path:
    """The patient of the pipeline tests as DICOM files, with an age; small and without a skull, so quickly
    predicted."""
    folder = write_dicom(tmp_path_factory.mktemp("hospital") / "P", drop_mask(drawn_images))
    for file in find_dicom_files(folder):
        one = dcmread(file)
        one.PatientAge, one.PatientSex, one.StudyDate = "053Y", "M", "20240601"
        one.save_as(file)
    return folder


@pytest.fixture(scope="module")
def serving(tmp_path_factory, tiny_weights) -> Iterator[LiveClient]:
    settings = ServerConfig(
        tmp_path_factory.mktemp("node"),
        database_url=create_test_database(),
        model_files={"tiny": str(tiny_weights)},
    )
    with run_server(settings) as client:
        yield client


@pytest.fixture
def node(serving, archive) -> Iterator[DicomNode]:
    where = f"ARCHIVE@127.0.0.1:{archive.port}"
    one = DicomNode(
        serving.server,
        DicomNodeConfig(0, allowed_ae_titles=("MRI",), destinations=(where,), quiet_period_s=2.0),
    )
    one.start()
    yield one
    one.stop()


def associate(port: int, title: str, syntaxes: Iterable[str] = (ExplicitVRLittleEndian,)):
    entity = AE(title)
    entity.dimse_timeout = 10
    entity.add_requested_context(Verification)
    for syntax in syntaxes:
        entity.add_requested_context(MRImageStorage, syntax)
    return entity.associate("127.0.0.1", port, ae_title="GLIOMARK")


def push(port: int, folder: Path) -> None:
    """Send images like an archive: an unanswered image is sent again over a new association."""
    images = [dcmread(file) for file in find_dicom_files(folder)]
    images = [one for one in images if one.SOPClassUID == MRImageStorage]
    syntaxes = {one.file_meta.TransferSyntaxUID for one in images}
    line = associate(port, "MRI", syntaxes)
    assert line.is_established
    assert line.send_c_echo().Status == 0
    for image in images:
        for _ in range(3):
            answer = line.send_c_store(image)
            if "Status" in answer:
                break
            line.abort()  # on a busy machine pynetdicom's requestor may miss a response
            line = associate(port, "MRI", syntaxes)
        assert answer.Status == 0
    line.release()


def test_a_pushed_study_comes_back_with_its_results(node, serving, archive, pushed) -> None:
    push(node.port, pushed)
    got = {one.Modality: one for one in archive.until(3)}
    source = dcmread(next(iter(find_dicom_files(pushed))), stop_before_pixels=True)
    assert {one.StudyInstanceUID for one in got.values()} == {source.StudyInstanceUID}
    assert {one.PatientID for one in got.values()} == {source.PatientID}
    assert got["SEG"].SOPClassUID == KINDS["SEG"] and got["DOC"].SOPClassUID == KINDS["DOC"]
    (job,) = serving.get("/api/predictions", params={"patient_id": source.PatientID}).json()
    assert job["state"] == "done" and job["request"]["age"] == read_age(source)
    lines = [one for one in serving.get("/api/audit").json() if one["action"] == "results sent"]
    assert [line["subject"] for line in lines] == [job["id"]] and lines[0]["detail"]["to"] == "ARCHIVE"
    for name in ("report.pdf", "dicom.zip"):
        answer = serving.get(f"/api/predictions/{job['id']}/{name}")
        assert answer.status_code == 200 and answer.content[:2] in (b"%P", b"PK")


def test_a_pushed_study_waits_until_the_models_are_known(tmp_path, tiny_weights, monkeypatch) -> None:
    monkeypatch.setattr(dicom_node, "POLL_INTERVAL_S", 0.02)
    server = create_server(
        ServerConfig(tmp_path, database_url=create_test_database(), model_files={"tiny": str(tiny_weights)})
    )
    one, asked = DicomNode(server, DicomNodeConfig(0, quiet_period_s=0.0)), threading.Event()
    monkeypatch.setattr(one, "_request_prediction", lambda _: asked.set())
    arrived = one.incoming_folder / "study"
    arrived.mkdir(parents=True)
    one.start()
    assert not asked.wait(0.5) and arrived.exists()
    server.worker_pool.model_descriptions = [{"name": "tiny", "sequences": ["T1C", "FLAIR"]}]
    assert asked.wait(10) and not arrived.exists()
    one.stop()


def test_results_owed_to_an_archive_that_was_away_are_sent_after_a_restart(
    serving, archive, pushed, monkeypatch
) -> None:
    monkeypatch.setattr(dicom_node, "FIRST_RETRY_PAUSE_S", 0.5)
    away = DicomNodeConfig(0, destinations=(f"ARCHIVE@127.0.0.1:{archive.port}",), quiet_period_s=1.0)
    refused: list[str] = []
    monkeypatch.setattr(
        dicom_node, "send_results", lambda *_: refused.append("no association") or refused[-1]
    )
    first = DicomNode(serving.server, away)
    first.start()
    push(first.port, pushed)
    until_delivery(
        serving, lambda row: row.state == "owed" and bool(refused)
    )  # an attempt counts when it starts
    first.stop()
    assert not archive.got
    monkeypatch.undo()
    second = DicomNode(serving.server, away)
    second.start()
    archive.until(3)
    assert until_delivery(serving, lambda row: row.state == "sent").tries > len(refused)
    second.stop()


def test_what_is_sent_again_is_the_same_and_not_another_copy(serving, pushed, monkeypatch) -> None:
    tried: list[set[str]] = []

    def refuse(results, *_) -> str:
        tried.append({str(one.SOPInstanceUID) for one in results})
        if len(tried) == 1:
            raise AttributeError("an answer nobody foresaw")
        return "" if len(tried) == 3 else "some results were refused"

    monkeypatch.setattr(dicom_node, "FIRST_RETRY_PAUSE_S", 0.2)
    monkeypatch.setattr(dicom_node, "send_results", refuse)
    one = DicomNode(
        serving.server, DicomNodeConfig(0, destinations=("ARCHIVE@127.0.0.1:9",), quiet_period_s=1.0)
    )
    one.start()
    push(one.port, pushed)
    until_delivery(serving, lambda row: row.state == "sent" and len(tried) == 3)
    one.stop()
    assert len(tried[0]) == 3 and tried[0] == tried[1] == tried[2]
    job = serving.get("/api/predictions").json()[0]
    with zipfile.ZipFile(BytesIO(serving.get(f"/api/predictions/{job['id']}/dicom.zip").content)) as archive:
        fetched = {str(dcmread(BytesIO(archive.read(name))).SOPInstanceUID) for name in archive.namelist()}
    assert fetched == tried[0]


def until_delivery(live: LiveClient, enough: Callable[[DeliveryRow], bool]) -> DeliveryRow:
    """Return the newest delivery once it fulfils the condition."""
    newest = (
        select(DeliveryRow)
        .join(JobRow, JobRow.id == DeliveryRow.prediction_id)
        .order_by(JobRow.created.desc())
    )
    ends = time.monotonic() + 300
    while time.monotonic() < ends:
        with live.server.database.read_transaction() as session:
            row = session.scalars(newest.limit(1)).first()
        if row is not None and enough(row):
            return row
        time.sleep(0.1)
    raise AssertionError("nothing was delivered")


def test_a_study_is_not_whole_while_its_sender_is_on_the_line(node, serving, archive, pushed) -> None:
    images = [dcmread(file) for file in find_dicom_files(pushed)]
    images = [one for one in images if one.SOPClassUID == MRImageStorage]
    line = associate(node.port, "MRI", {one.file_meta.TransferSyntaxUID for one in images})
    for image in images[: len(images) // 2]:
        assert line.send_c_store(image).Status == 0
    time.sleep(node.config.quiet_period_s + 2)  # a pause in the middle of the study
    for image in images[len(images) // 2 :]:
        assert line.send_c_store(image).Status == 0
    line.release()
    archive.until(3)
    job = serving.get("/api/predictions").json()[0]
    kept = list(find_dicom_files(serving.server.store.get_input_folder(job["study_id"])))
    assert len(kept) == len(images)


def test_who_was_not_named_may_not_push(node) -> None:
    assert not associate(node.port, "STRANGER").is_established


def test_what_is_no_study_of_ours_is_told_in_the_log(node, serving, pushed, tmp_path) -> None:
    one = dcmread(next(iter(find_dicom_files(pushed))))
    one.StudyInstanceUID = "1.2.3.4.5"
    one.save_as(tmp_path / "one.dcm")
    push(node.port, tmp_path)
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        told = [line for line in serving.get("/api/audit").json() if line["action"] == "pushed study failed"]
        if told:
            break
        time.sleep(0.2)
    assert "only one image" in told[0]["detail"]["reason"] or "T1" in told[0]["detail"]["reason"]


@pytest.mark.parametrize(
    "claim",
    [
        {"NumberOfFrames": 10**9},
        {"NumberOfFrames": 20_000},
        {"Rows": 65535, "Columns": 65535},
    ],
)
def test_an_object_that_claims_more_than_it_holds_is_not_kept(node, pushed, claim: dict[str, int]) -> None:
    """The sender gets an error status, nothing remains to stop the node after a restart, and the association stays
    open."""
    one = dcmread(next(iter(find_dicom_files(pushed))))
    one.StudyInstanceUID = "1.2.3.4.6"
    for name, value in claim.items():
        setattr(one, name, value)
    line = associate(node.port, "MRI", (one.file_meta.TransferSyntaxUID,))
    assert line.send_c_store(one).Status == dicom_node.STATUS_CANNOT_UNDERSTAND
    assert line.send_c_echo().Status == 0
    line.release()
    assert not list(node.incoming_folder.rglob("*.dcm"))


@pytest.mark.parametrize(
    "text",
    [
        "ARCHIVE",
        "ARCHIVE@host",
        "中文@host:104",
        "A\\B@host:104",
        "A@h:99999",
        "ftp://x",
        "a much too long title@h:1",
    ],
)
def test_a_destination_that_is_none(text) -> None:
    with pytest.raises(GliomarkError, match="not a valid destination"):
        parse_destination(text)


def test_an_open_node_names_who_may_push(serving) -> None:
    with pytest.raises(GliomarkError, match="--dicom-peer"):
        DicomNode(serving.server, DicomNodeConfig(0, host="0.0.0.0")).start()  # noqa: S104


@pytest.mark.parametrize(
    ("said", "age"),
    [
        ({"PatientAge": "053Y"}, 53),
        ({"PatientAge": "018M"}, 1.5),
        ({"PatientBirthDate": "19700602", "StudyDate": "20240601"}, 53),
        ({"PatientBirthDate": "19700601", "StudyDate": "20240601"}, 54),
        ({"PatientAge": "000Y", "PatientBirthDate": "19700601", "StudyDate": "20240601"}, 54),
        ({"PatientAge": "999Y"}, None),
        ({"PatientBirthDate": "20300101", "StudyDate": "20240601"}, None),
        ({}, None),
    ],
)
def test_age(said, age) -> None:
    header = Dataset()
    for word, value in said.items():
        setattr(header, word, value)
    assert read_age(header) == age


# ---- Orthanc ------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as line:
        return int(line.getsockname()[1])


@contextmanager
def orthanc(folder: Path) -> Iterator[dict]:
    """Debian's Orthanc with its DICOMweb plugin, on free ports."""
    ports = {"dicom": free_port(), "http": free_port()}
    settings = {
        "Name": "archive",
        "StorageDirectory": str(folder / "orthanc"),
        "IndexDirectory": str(folder / "orthanc"),
        "Plugins": [str(PLUGINS)],
        "DicomAet": "ARCHIVE",
        "DicomPort": ports["dicom"],
        "HttpPort": ports["http"],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomCheckCalledAet": False,
        "UnknownSopClassAccepted": True,
        "DicomWeb": {"Enable": True},
    }
    folder.mkdir()
    (folder / "orthanc.json").write_text(json.dumps(settings), "utf-8")
    process = subprocess.Popen(
        [ORTHANC, str(folder / "orthanc.json")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    base = f"http://127.0.0.1:{ports['http']}"
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        try:
            if httpx.get(f"{base}/system").status_code == 200:
                break
        except httpx.TransportError:
            time.sleep(0.1)
    yield {"dicom": ports["dicom"], "web": f"{base}/dicom-web"}
    process.terminate()
    process.wait()


@pytest.fixture
def orthancs(tmp_path) -> Iterator[tuple[dict, dict]]:
    """Two archives, for the two ways to send."""
    if ORTHANC is None or not list(PLUGINS.glob("libOrthancDicomWeb*")):
        pytest.skip("Orthanc with DICOMweb is not installed (apt install orthanc orthanc-dicomweb)")
    with orthanc(tmp_path / "stored") as stored, orthanc(tmp_path / "stowed") as stowed:
        yield stored, stowed


def results_in(archive: DICOMwebClient, study: str) -> dict[str, dict]:
    """Return the series of this study in an archive by modality, once there are three."""
    ends = time.monotonic() + 600
    found: dict[str, dict] = {}
    while len(found) < 3 and time.monotonic() < ends:
        time.sleep(0.5)
        found = {s["00080060"]["Value"][0]: s for s in archive.search_for_series(study)}
    return found


def test_real_archives_hold_the_results(orthancs, serving, shared) -> None:
    """ReMIND-022 is oblique: the segmentation must coincide with the lesion in patient coordinates in both
    archives."""
    patient = shared / "patients" / "ReMIND-022-dicom"
    stored, stowed = orthancs
    where = (f"ARCHIVE@127.0.0.1:{stored['dicom']}", stowed["web"])
    one = DicomNode(serving.server, DicomNodeConfig(0, destinations=where, quiet_period_s=15.0))
    one.start()
    push(one.port, patient)
    study = str(dcmread(next(iter(find_dicom_files(patient))), stop_before_pixels=True).StudyInstanceUID)
    archives = [DICOMwebClient(each["web"]) for each in orthancs]
    held = [results_in(archive, study) for archive in archives]
    one.stop()
    job = serving.get("/api/predictions").json()[0]
    prediction = serving.server.store.load_prediction(job["study_id"], job["id"])
    name = select_reference_sequence(prediction)
    mask, series = resample_mask_to_source_images(prediction, name), prediction.study.series[name]
    own = np.argwhere(mask > 0)[:, ::-1] @ series.affine[:3, :3].T + series.affine[:3, 3]
    for archive, found in zip(archives, held, strict=True):
        assert set(found) == {"SEG", "SR", "DOC"}
        (seg,) = archive.retrieve_series(study, found["SEG"]["0020000E"]["Value"][0])
        seg.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        geometry = highdicom.seg.Segmentation.from_dataset(seg).get_volume(combine_segments=True)
        there = geometry.map_indices_to_reference(np.argwhere(geometry.array > 0))
        assert len(there) == len(own) > 1000
        assert cKDTree(own).query(there)[0].max() < 0.01, "every voxel within a hundredth of a millimetre"


@pytest.mark.parametrize("stated, sex", [("M", 0), ("F", 1), ("f", 1), ("m ", 0), ("O", None), ("", None)])
@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_sexes_in_headers(tmp_path, pushed, stated: str, sex: int | None) -> None:
    one = dcmread(next(iter(find_dicom_files(pushed))))
    one.PatientSex = stated
    one.save_as(tmp_path / "one.dcm")
    asked = create_prediction_request(tmp_path)
    assert asked["sex"] == sex and asked["without_clinical"] is (sex is None)
