"""Studies received by C-STORE are predicted and sent back, to an archive made with pynetdicom and to a real
Orthanc."""

from __future__ import annotations

import threading
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import highdicom
import numpy as np
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset, dcmread
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    MRImageStorage,
    generate_uid,
)
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification
from scipy.spatial import cKDTree
from sqlalchemy import select
from tests.io.test_dicom import T2, draw_plane, write_series
from tests.io.transfer_syntaxes import TOLERANCE_BY_SYNTAX, recode_pixels
from tests.orthanc import Orthanc, find_free_port, run_orthanc
from tests.pipeline.conftest import drop_mask, write_dicom
from tests.server.conftest import LiveClient, create_test_database, run_server

from gliomark.errors import GliomarkError
from gliomark.io import read_study
from gliomark.io.dicom import find_dicom_files
from gliomark.reporting.mask_resampling import resample_mask_to_source_images, select_reference_sequence
from gliomark.server import dicom_node
from gliomark.server.database import DeliveryRow, JobRow
from gliomark.server.destinations import SendOutcome
from gliomark.server.dicom_node import DicomNode, DicomNodeConfig
from gliomark.server.run import ServerConfig, create_server
from gliomark.server.study_import import create_prediction_request, read_age
from gliomark.study import MRSequence

KINDS = {"SEG": "1.2.840.10008.5.1.4.1.1.66.4", "DOC": "1.2.840.10008.5.1.4.1.1.104.1"}


@dataclass
class Archive:
    """An archive that keeps the objects it receives."""

    port: int
    received: list[Dataset]

    def wait_for_objects(self, count: int, seconds: float = 180) -> list[Dataset]:
        deadline = time.monotonic() + seconds
        while len(self.received) < count and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(self.received) == count, [one.Modality for one in self.received]
        return self.received


@pytest.fixture
def archive() -> Iterator[Archive]:
    received: list[Dataset] = []

    def store_object(event: evt.Event) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        received.append(dataset)
        return 0

    entity = AE("ARCHIVE")
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(str(context.abstract_syntax))
    listener = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store_object)]
    )
    yield Archive(listener.server_address[1], received)
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
def client(tmp_path_factory, tiny_weights) -> Iterator[LiveClient]:
    settings = ServerConfig(
        tmp_path_factory.mktemp("node"),
        database_url=create_test_database(),
        model_files={"tiny": str(tiny_weights)},
    )
    with run_server(settings) as client:
        yield client


@pytest.fixture
def node(client, archive) -> Iterator[DicomNode]:
    destination = f"ARCHIVE@127.0.0.1:{archive.port}"
    one = DicomNode(
        client.server,
        DicomNodeConfig(
            0,
            allowed_ae_titles=("MRI",),
            destinations=(destination,),
            quiet_period_s=2.0,
            sends_rtstruct=True,
            commitment_wait_s=5.0,
        ),
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
    association = associate(port, "MRI", syntaxes)
    assert association.is_established
    assert association.send_c_echo().Status == 0
    for image in images:
        for _ in range(3):
            answer = association.send_c_store(image)
            if "Status" in answer:
                break
            association.abort()  # on a busy machine pynetdicom's requestor may miss a response
            association = associate(port, "MRI", syntaxes)
        assert answer.Status == 0
    association.release()


@pytest.mark.slow
def test_results_of_a_pushed_study_are_sent_to_the_archive(node, client, archive, pushed) -> None:
    push(node.port, pushed)
    received = {one.Modality: one for one in archive.wait_for_objects(4)}
    source = dcmread(next(iter(find_dicom_files(pushed))), stop_before_pixels=True)
    assert {one.StudyInstanceUID for one in received.values()} == {source.StudyInstanceUID}
    assert {one.PatientID for one in received.values()} == {source.PatientID}
    assert received["SEG"].SOPClassUID == KINDS["SEG"] and received["DOC"].SOPClassUID == KINDS["DOC"]
    (job,) = client.get("/api/predictions", params={"patient_id": source.PatientID}).json()
    assert job["state"] == "done" and job["request"]["age"] == read_age(source)
    audit_lines = [one for one in client.get("/api/audit").json() if one["action"] == "results sent"]
    assert [line["subject"] for line in audit_lines] == [job["id"]] and audit_lines[0]["detail"][
        "to"
    ] == "ARCHIVE"

    def find_commitments() -> list[dict]:
        lines = client.get("/api/audit", params={"action": "storage commitment"}).json()
        return [one["detail"] for one in lines]

    wait_until(lambda: bool(find_commitments()))
    assert find_commitments() == [{"to": "ARCHIVE", "reason": "ARCHIVE does not offer storage commitment."}]
    for name in ("report.pdf", "dicom.zip"):
        answer = client.get(f"/api/predictions/{job['id']}/{name}")
        assert answer.status_code == 200 and answer.content[:2] in (b"%P", b"PK")
    outline = client.get(f"/api/predictions/{job['id']}/structure_set.dcm").raise_for_status().content
    sent, fetched = received["RTSTRUCT"], dcmread(BytesIO(outline))
    assert fetched.SOPInstanceUID == sent.SOPInstanceUID, "the same instance"
    assert fetched.ROIContourSequence == sent.ROIContourSequence
    assert sent.FrameOfReferenceUID == received["SEG"].FrameOfReferenceUID


def test_a_pushed_study_waits_until_the_models_are_known(tmp_path, tiny_weights, monkeypatch) -> None:
    monkeypatch.setattr(dicom_node, "POLL_INTERVAL_S", 0.02)
    server = create_server(
        ServerConfig(tmp_path, database_url=create_test_database(), model_files={"tiny": str(tiny_weights)})
    )
    one, requested = DicomNode(server, DicomNodeConfig(0, quiet_period_s=0.0)), threading.Event()
    monkeypatch.setattr(one, "_request_prediction", lambda _: requested.set())
    arrived = one.incoming_folder / "study"
    arrived.mkdir(parents=True)
    one.start()
    assert not requested.wait(0.5) and arrived.exists()
    server.worker_pool.model_descriptions = [{"name": "tiny", "sequences": ["T1C", "FLAIR"]}]
    assert requested.wait(10) and not arrived.exists()
    one.stop()


@pytest.mark.slow
def test_undelivered_results_are_sent_after_a_restart(client, archive, pushed, monkeypatch) -> None:
    monkeypatch.setattr(dicom_node, "FIRST_RETRY_PAUSE_S", 0.5)
    away = DicomNodeConfig(0, destinations=(f"ARCHIVE@127.0.0.1:{archive.port}",), quiet_period_s=1.0)
    refused: list[str] = []
    monkeypatch.setattr(
        dicom_node,
        "send_results",
        lambda *_, **__: refused.append("no association") or SendOutcome(refused[-1]),
    )
    first = DicomNode(client.server, away)
    first.start()
    push(first.port, pushed)
    wait_for_delivery(
        client, lambda row: row.state == "owed" and bool(refused)
    )  # an attempt counts when it starts
    first.stop()
    assert not archive.received
    monkeypatch.undo()
    second = DicomNode(client.server, away)
    second.start()
    archive.wait_for_objects(3)
    assert wait_for_delivery(client, lambda row: row.state == "sent").tries > len(refused)
    second.stop()


@pytest.mark.slow
def test_a_repeated_delivery_sends_the_same_objects(client, pushed, monkeypatch) -> None:
    tried: list[set[str]] = []

    def refuse(results, *_, **__) -> SendOutcome:
        tried.append({str(one.SOPInstanceUID) for one in results})
        if len(tried) == 1:
            raise AttributeError("an unexpected response")
        return SendOutcome("" if len(tried) == 3 else "some results were refused")

    monkeypatch.setattr(dicom_node, "FIRST_RETRY_PAUSE_S", 0.2)
    monkeypatch.setattr(dicom_node, "send_results", refuse)
    one = DicomNode(
        client.server, DicomNodeConfig(0, destinations=("ARCHIVE@127.0.0.1:9",), quiet_period_s=1.0)
    )
    one.start()
    push(one.port, pushed)
    wait_for_delivery(client, lambda row: row.state == "sent" and len(tried) == 3)
    one.stop()
    assert len(tried[0]) == 3 and tried[0] == tried[1] == tried[2]
    job = client.get("/api/predictions").json()[0]
    with zipfile.ZipFile(BytesIO(client.get(f"/api/predictions/{job['id']}/dicom.zip").content)) as archive:
        fetched = {str(dcmread(BytesIO(archive.read(name))).SOPInstanceUID) for name in archive.namelist()}
    assert fetched == tried[0]
    study = client.get(f"/api/studies/{job['study_id']}").json()
    assert study["has_dicom_images"] is True
    assert study["orientation_stated"] is True and study["spacing_assumed"] is False


def wait_for_delivery(client: LiveClient, condition: Callable[[DeliveryRow], bool]) -> DeliveryRow:
    """Return the newest delivery once it fulfils the condition."""
    newest = (
        select(DeliveryRow)
        .join(JobRow, JobRow.id == DeliveryRow.prediction_id)
        .order_by(JobRow.created.desc())
    )
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        with client.server.database.read_transaction() as session:
            row = session.scalars(newest.limit(1)).first()
        if row is not None and condition(row):
            return row
        time.sleep(0.1)
    raise AssertionError("nothing was delivered")


@pytest.mark.slow
def test_a_study_is_incomplete_while_its_sender_is_connected(node, client, archive, pushed) -> None:
    images = [dcmread(file) for file in find_dicom_files(pushed)]
    images = [one for one in images if one.SOPClassUID == MRImageStorage]
    association = associate(node.port, "MRI", {one.file_meta.TransferSyntaxUID for one in images})
    for image in images[: len(images) // 2]:
        assert association.send_c_store(image).Status == 0
    time.sleep(node.config.quiet_period_s + 2)  # a pause in the middle of the study
    for image in images[len(images) // 2 :]:
        assert association.send_c_store(image).Status == 0
    association.release()
    archive.wait_for_objects(4)
    job = client.get("/api/predictions").json()[0]
    kept = list(find_dicom_files(client.server.store.get_input_folder(job["study_id"])))
    assert len(kept) == len(images)


@pytest.fixture(scope="module")
def idle_node(tmp_path_factory, tiny_weights) -> Iterator[DicomNode]:
    """A node that receives and predicts nothing: its server has no worker."""
    server = create_server(
        ServerConfig(
            tmp_path_factory.mktemp("idle"),
            database_url=create_test_database(),
            model_files={"tiny": str(tiny_weights)},
        )
    )
    one = DicomNode(server, DicomNodeConfig(find_free_port()))
    one.start()
    yield one
    one.stop()


@pytest.mark.parametrize("syntax", TOLERANCE_BY_SYNTAX, ids=lambda syntax: syntax.keyword)
def test_every_accepted_transfer_syntax_is_stored_and_decoded(idle_node, tmp_path, syntax: UID) -> None:
    for file in write_series(tmp_path / "sent", StudyInstanceUID=generate_uid(), **T2):
        recode_pixels(file, syntax)
    before = set(idle_node.incoming_folder.glob("*"))
    association = associate(idle_node.port, "MRI", [syntax])
    for file in (tmp_path / "sent").iterdir():
        assert association.send_c_store(dcmread(file)).Status == 0
    association.release()
    (folder,) = set(idle_node.incoming_folder.glob("*")) - before
    assert {dcmread(file).file_meta.TransferSyntaxUID for file in folder.iterdir()} == {syntax}
    planes = np.stack([draw_plane(number) for number in range(6)])
    if syntax == JPEGBaseline8Bit:
        planes = planes.astype(np.uint8)
    image = read_study(folder).series[MRSequence.T2].image
    np.testing.assert_allclose(image, planes, atol=TOLERANCE_BY_SYNTAX[syntax], rtol=0)


@pytest.mark.parametrize(
    "content",
    [b"no deflated data", pytest.param(zlib.compress(bytes(1 << 26))[2:-4], marks=pytest.mark.slow)],
    ids=len,
)
def test_the_start_of_a_deflated_object_is_inflated_within_limits(tmp_path, content: bytes) -> None:
    """64 MB of zeros in 64 kB are not inflated as a whole; what is no deflated data is a ValueError."""
    (file,) = write_series(tmp_path, (0,), **T2)
    recode_pixels(file, DeflatedExplicitVRLittleEndian)
    assert dicom_node.read_image_header(file)[0].Rows == 12
    meta_length = dcmread(file).file_meta.FileMetaInformationGroupLength
    file.write_bytes(file.read_bytes()[: 128 + 4 + 12 + meta_length] + content)
    tracemalloc.start()
    try:
        header, _ = dicom_node.read_image_header(file)
        assert "StudyInstanceUID" not in header
    except ValueError:
        assert content == b"no deflated data"
    assert tracemalloc.get_traced_memory()[1] < 10 * dicom_node.MAX_HEADER_BYTES
    tracemalloc.stop()


def test_an_unlisted_sender_is_refused(node) -> None:
    assert not associate(node.port, "STRANGER").is_established


def test_an_unusable_pushed_study_is_logged(node, client, pushed, tmp_path) -> None:
    one = dcmread(next(iter(find_dicom_files(pushed))))
    one.StudyInstanceUID = "1.2.3.4.5"
    one.save_as(tmp_path / "one.dcm")
    push(node.port, tmp_path)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        failures = [
            line for line in client.get("/api/audit").json() if line["action"] == "pushed study failed"
        ]
        if failures:
            break
        time.sleep(0.2)
    assert "only one image" in failures[0]["detail"]["reason"] or "T1" in failures[0]["detail"]["reason"]


@pytest.mark.parametrize(
    "claim",
    [
        {"NumberOfFrames": 10**9},
        {"NumberOfFrames": 20_000},
        {"Rows": 65535, "Columns": 65535},
    ],
)
def test_an_object_that_declares_more_than_it_contains_is_not_kept(
    node, pushed, claim: dict[str, int]
) -> None:
    """The sender gets an error status, nothing remains to stop the node after a restart, and the association stays
    open."""
    one = dcmread(next(iter(find_dicom_files(pushed))))
    one.StudyInstanceUID = "1.2.3.4.6"
    for name, value in claim.items():
        setattr(one, name, value)
    association = associate(node.port, "MRI", (one.file_meta.TransferSyntaxUID,))
    assert association.send_c_store(one).Status == dicom_node.STATUS_CANNOT_UNDERSTAND
    assert association.send_c_echo().Status == 0
    association.release()
    assert not list(node.incoming_folder.rglob("*.dcm"))


def test_a_node_open_to_the_network_requires_allowed_senders(client) -> None:
    with pytest.raises(GliomarkError, match="--dicom-peer"):
        DicomNode(client.server, DicomNodeConfig(0, host="0.0.0.0")).start()  # noqa: S104


@pytest.mark.parametrize(
    ("tags", "age"),
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
def test_age(tags, age) -> None:
    header = Dataset()
    for keyword, value in tags.items():
        setattr(header, keyword, value)
    assert read_age(header) == age


# ---- Orthanc ------------------------------------------------------------------------------------------------


@pytest.fixture
def orthanc_archives(tmp_path) -> Iterator[tuple[Orthanc, Orthanc]]:
    """Two archives, for the two ways to send."""
    with run_orthanc(tmp_path / "stored") as stored, run_orthanc(tmp_path / "stowed") as stowed:
        yield stored, stowed


def find_results(archive: DICOMwebClient, study: str) -> dict[str, dict]:
    """Return the series of this study in an archive by modality, once there are three."""
    deadline = time.monotonic() + 600
    found: dict[str, dict] = {}
    while len(found) < 3 and time.monotonic() < deadline:
        time.sleep(0.5)
        found = {s["00080060"]["Value"][0]: s for s in archive.search_for_series(study)}
    return found


@pytest.mark.slow
def test_orthanc_receives_the_results(orthanc_archives, client, shared) -> None:
    """ReMIND-022 is oblique: the segmentation must coincide with the lesion in patient coordinates in both
    archives."""
    patient = shared / "patients" / "ReMIND-022-dicom"
    stored, stowed = orthanc_archives
    destinations = (f"ARCHIVE@127.0.0.1:{stored.dicom_port}", stowed.web)
    one = DicomNode(client.server, DicomNodeConfig(0, destinations=destinations, quiet_period_s=15.0))
    one.start()
    push(one.port, patient)
    study = str(dcmread(next(iter(find_dicom_files(patient))), stop_before_pixels=True).StudyInstanceUID)
    archives = [DICOMwebClient(each.web) for each in orthanc_archives]
    held = [find_results(archive, study) for archive in archives]
    one.stop()
    job = client.get("/api/predictions").json()[0]
    prediction = client.server.store.load_prediction(job["study_id"], job["id"])
    name = select_reference_sequence(prediction)
    mask, series = resample_mask_to_source_images(prediction, name), prediction.study.series[name]
    own = np.argwhere(mask > 0)[:, ::-1] @ series.affine[:3, :3].T + series.affine[:3, 3]
    for archive, found in zip(archives, held, strict=True):
        assert set(found) == {"SEG", "SR", "DOC"}
        (seg,) = archive.retrieve_series(study, found["SEG"]["0020000E"]["Value"][0])
        seg.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        geometry = highdicom.seg.Segmentation.from_dataset(seg).get_volume(combine_segments=True)
        archived = geometry.map_indices_to_reference(np.argwhere(geometry.array > 0))
        assert len(archived) == len(own) > 1000
        assert cKDTree(own).query(archived)[0].max() < 0.01, "every voxel within a hundredth of a millimetre"


@pytest.mark.parametrize("stated, sex", [("M", 0), ("F", 1), ("f", 1), ("m ", 0), ("O", None), ("", None)])
@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_sexes_in_headers(tmp_path, pushed, stated: str, sex: int | None) -> None:
    one = dcmread(next(iter(find_dicom_files(pushed))))
    one.PatientSex = stated
    one.save_as(tmp_path / "one.dcm")
    request = create_prediction_request(tmp_path)
    assert request["sex"] == sex and request["without_clinical"] is (sex is None)


@pytest.mark.slow
def test_orthanc_sends_stable_studies_but_no_results(tmp_path, tiny_weights) -> None:
    """The script in integrations/orthanc sends MR images to the node, repeats a transfer that failed, and sends again
    only if the MR images changed."""
    script = Path(__file__).parents[2] / "integrations" / "orthanc" / "gliomark.lua"
    port = find_free_port()
    server = create_server(
        ServerConfig(
            tmp_path / "node", database_url=create_test_database(), model_files={"tiny": str(tiny_weights)}
        )
    )
    one = DicomNode(server, DicomNodeConfig(port, allowed_ae_titles=("ARCHIVE",), quiet_period_s=600.0))
    first, later = write_series(tmp_path / "first", **T2), write_series(tmp_path / "later", **T2)
    results = [
        write_series(tmp_path / name, (0,), Manufacturer="gliomark", Modality=name)
        for name in ("SEG", "SR", "MR")
    ]
    modalities = {"gliomark": ["GLIOMARK", "127.0.0.1", port]}
    with run_orthanc(
        tmp_path / "archive", LuaScripts=[str(script)], StableAge=1, DicomModalities=modalities
    ) as orthanc:
        orthanc.store(tmp_path / "first")
        wait_until(lambda: orthanc.get_job_states() == ["Failure"])  # the node does not listen yet
        one.start()
        for (file,) in results:
            orthanc.store(file)
        wait_until(lambda: orthanc.get_job_states() == ["Failure", "Success"])
        (folder,) = one.incoming_folder.iterdir()
        assert read_image_uids(folder.iterdir()) == read_image_uids(first), "no result of gliomark"
        (result,) = write_series(tmp_path / "again", (0,), Manufacturer="gliomark", Modality="SEG")
        orthanc.store(result)
        wait_until(lambda: orthanc.count_stable_studies() == 3)
        assert orthanc.get_job_states() == ["Failure", "Success"], "a result is no reason to send"
        orthanc.store(tmp_path / "later")
        wait_until(lambda: orthanc.get_job_states() == ["Failure", "Success", "Success"])
        assert read_image_uids(folder.iterdir()) == read_image_uids([*first, *later])
        one.stop()


def read_image_uids(files: Iterable[Path]) -> set[str]:
    return {str(dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in files}


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
