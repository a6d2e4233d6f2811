"""Attacks that once ended the server, against a real one: it stays healthy, and a valid study takes its usual
time."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import MRImageStorage, generate_uid
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from gliomark.io.dicom import find_dicom_files
from gliomark.phantom.hospital import HospitalSettings, create_hospital_patient, write_patient_dicom
from gliomark.study import MRSequence

LONG_S = 240.0
Files = dict[str, bytes]


@dataclass
class ServerProcess:
    """A running ``gliomark serve``; usual_s: seconds from upload to result of a valid study before any attack."""

    data: Path
    weights: Path
    good: Path
    usual_s: float = 0.0

    def start(self) -> None:
        arguments = ["serve", "--data", str(self.data), "--port", "0", "--model", f"tiny={self.weights}"]
        arguments += ["--dicom-port", "0", "--dicom-quiet", "1", "--reserve-gb", "0", "--with-input"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gliomark", *arguments],
            stdin=subprocess.PIPE,  # the server ends with this process, even if that is killed
            stdout=subprocess.PIPE,
            stderr=(self.data.parent / "log").open("ab"),
            text=True,
            env={name: value for name, value in os.environ.items() if name != "GLIOMARK_TOKEN"},
        )
        assert self.process.stdout is not None
        address = self.process.stdout.readline().split()[-1]
        assert address in self.process.stdout.readline()
        self.dicom_port = int(self.process.stdout.readline().split()[-1])
        self.client = httpx.Client(base_url=address, timeout=LONG_S)
        self.wait_until(lambda: self.read_health() == "ok")

    def stop(self) -> None:
        self.client.close()
        self.process.terminate()
        assert self.process.wait(60) in (0, -signal.SIGTERM), "the attack ended the server"

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LONG_S
        while not condition():
            assert time.monotonic() < deadline and self.process.poll() is None
            time.sleep(0.1)

    def read_health(self) -> str:
        return str(self.client.get("/api/health", timeout=10).json()["status"])

    def send(self, files: Files) -> httpx.Response:
        return self.client.post("/api/studies", files=[("files", item) for item in files.items()])

    def predict_valid_study(self) -> float:
        """Return the seconds from a valid study's upload to its result."""
        started = time.monotonic()
        sent = self.send(
            {f"P/{p.relative_to(self.good).as_posix()}": p.read_bytes() for p in self.good.rglob("*.png")}
        )
        assert sent.status_code == 201, sent.text
        job = self.client.post(f"/api/studies/{sent.json()['id']}/predictions", json={"age": 50, "sex": 0})
        path = f"/api/predictions/{job.json()['id']}"
        self.wait_until(lambda: self.client.get(path).json()["state"] in ("done", "failed"))
        result = self.client.get(path).json()
        assert result["state"] == "done", result["error"]
        return time.monotonic() - started

    def check_stays_healthy(self, attack: Callable[[], None]) -> None:
        """During the attack and afterwards, health is ok and a valid study takes its usual time."""
        failed: list[BaseException] = []

        def run_attack() -> None:
            try:
                attack()
            except BaseException as error:  # raised again in the thread of the test
                failed.append(error)

        thread = threading.Thread(target=run_attack)
        thread.start()
        during = self.predict_valid_study()
        assert self.read_health() == "ok"
        thread.join(LONG_S)
        assert not failed, failed
        after = self.predict_valid_study()
        assert self.read_health() == "ok" and self.process.poll() is None
        assert max(during, after) < 3 * self.usual_s + 5, (during, after, self.usual_s)


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path, picture_folder: Path
) -> Iterator[ServerProcess]:
    one = ServerProcess(tmp_path_factory.mktemp("attacked") / "data", tiny_weights, picture_folder)
    one.start()
    one.predict_valid_study()  # warm
    one.usual_s = one.predict_valid_study()
    yield one
    one.stop()


def check_is_refused(answer: httpx.Response, *forbidden_texts: str) -> None:
    error_text = answer.json()["detail"]
    assert answer.status_code in (400, 413, 415, 422), (answer.status_code, error_text)
    assert error_text.strip() and "\n" not in error_text and "Traceback" not in error_text, error_text
    for one in forbidden_texts:
        assert one not in error_text


def create_meta_image(dimensions: str, extra: str = "") -> bytes:
    lines = f"ObjectType = Image\nNDims = {dimensions}\nDimSize = 64 64 9\nElementType = MET_SHORT\n{extra}"
    return f"{lines}ElementDataFile = LOCAL\n".encode() + bytes(77_000)


def test_meta_images_of_impossible_dimensions_are_refused(server: ServerProcess) -> None:
    def attack() -> None:
        for dimensions in ("0", "-1", "99", "3000000", "4294967295"):
            content = create_meta_image(dimensions)
            for name in ("P/T1C.mha", "P/T1C.mhd"):
                check_is_refused(server.send({name: content, "P/FLAIR.mha": content}))

    server.check_stays_healthy(attack)


def create_header_naming(kind: str, target: str) -> Files:
    """A header that states that its pixels are in ``target``."""
    mhd = (
        "ObjectType = Image\nNDims = 3\nDimSize = 32 32 9\nElementSpacing = 1 1 5\nElementType = MET_USHORT\n"
    )
    nrrd = "NRRD0004\ntype: ushort\ndimension: 3\nsizes: 32 32 9\nspacings: 1 1 5\nendian: little\nencoding: raw\n"
    text = {
        "mhd": f"{mhd}ElementDataFile = {target}\n",
        "mhd list": f"{mhd}ElementDataFile = LIST\n" + f"{target}\n" * 9,
        "nrrd": f"{nrrd}data file: {target}\n\n",
        "nhdr": f"{nrrd}datafile: {target}\n\n",
        "nrrd list": f"{nrrd}data file: LIST 2\n" + f"{target}\n" * 9,
    }[kind].encode()
    end = {"mhd list": "mhd", "nrrd list": "nrrd"}.get(kind, kind)
    return {f"P/T1C.{end}": text, f"P/FLAIR.{end}": text}


def test_headers_that_name_another_file_of_the_server_are_refused(server: ServerProcess) -> None:
    secret = server.data.parent / "secret.raw"
    secret.write_bytes(struct.pack("<9216H", *range(9216)))
    targets = (str(secret), "../" * 12 + str(secret)[1:], "/etc/passwd", "../../../gliomark.db")

    def attack() -> None:
        for kind in ("mhd", "mhd list", "nrrd", "nhdr", "nrrd list"):
            for target in targets:
                check_is_refused(server.send(create_header_naming(kind, target)), str(server.data))

    server.check_stays_healthy(attack)


SCRIPTS = {
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n{ } loop\nshowpage\n%%EOF\n".ljust(80),
    "loop": b"%!PS\n{ 1 } loop\n".ljust(80),
    "PDF": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n".ljust(80),
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'.ljust(80),
}


def test_scripts_named_as_pictures_are_refused(server: ServerProcess) -> None:
    def attack() -> None:
        for script in SCRIPTS.values():
            for _ in range(3):
                pictures = {f"P/{sequence}/{n}.png": script for sequence in ("T1C", "FLAIR") for n in (1, 2)}
                check_is_refused(server.send(pictures))

    server.check_stays_healthy(attack)
    assert b"gs" not in list_child_names(server.process.pid)


def list_child_names(process: int) -> set[bytes]:
    """Return the names of all descendants of a process."""
    found, waiting = set[bytes](), [process]
    while waiting:
        for task in Path(f"/proc/{waiting.pop()}/task").glob("*"):
            for child in map(int, (task / "children").read_text().split()):
                waiting.append(child)
                found.add(Path(f"/proc/{child}/comm").read_bytes().strip())
    return found


# ---- C-STORE -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    """A synthetic patient of a hospital as DICOM objects."""
    folder = tmp_path_factory.mktemp("hospital")
    small = HospitalSettings(thickness_mm=(6.0,), matrix=(96,), has_distractors=False)
    write_patient_dicom(create_hospital_patient(7, small, (MRSequence.T1C, MRSequence.FLAIR)), folder)
    images = [dcmread(file) for file in find_dicom_files(folder)]
    return [one for one in images if one.SOPClassUID == MRImageStorage]


def create_poisoned_object(image: Dataset, claim: dict[str, int]) -> Dataset:
    one = deepcopy(image)
    one.StudyInstanceUID, one.SOPInstanceUID = generate_uid(), generate_uid()
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    for name, value in claim.items():
        setattr(one, name, value)
    return one


def push(server: ServerProcess, images: list[Dataset]) -> list[int]:
    """Return the status of each image; unanswered images are sent again over a new association, as archives do."""
    entity = AE("MRI")
    entity.dimse_timeout = 30
    entity.add_requested_context(Verification)
    entity.add_requested_context(MRImageStorage, [one.file_meta.TransferSyntaxUID for one in images[:1]])
    association, statuses = None, list[int]()
    for image in images:
        for _ in range(5):
            if association is None or not association.is_established:
                association = entity.associate("127.0.0.1", server.dicom_port, ae_title="GLIOMARK")
            if association.is_established and "Status" in (answer := association.send_c_store(image)):
                statuses.append(answer.Status)
                break
            association.abort()
    assert association is not None and association.send_c_echo().Status == 0
    association.release()
    return statuses


def wait_for_prediction(server: ServerProcess, patient: str, before: int) -> None:
    def count_done() -> int:
        found = server.client.get("/api/predictions", params={"patient_id": patient}).json()
        assert all(job["state"] != "failed" for job in found), found
        return sum(job["state"] == "done" for job in found)

    server.wait_until(lambda: count_done() > before)


CLAIMS = [
    {"NumberOfFrames": 10**9},
    {"NumberOfFrames": 10**9, "Rows": 1, "Columns": 1},
    {"Rows": 65535, "Columns": 65535},
]


def test_objects_that_claim_a_billion_frames_are_refused(
    server: ServerProcess, pushed: list[Dataset]
) -> None:
    def attack() -> None:
        for claim in CLAIMS:
            assert push(server, [create_poisoned_object(pushed[0], claim) for _ in range(3)]) == [0xC000] * 3

    server.check_stays_healthy(attack)


@pytest.mark.slow
def test_stored_objects_that_claim_a_billion_frames_do_not_stop_a_restart(
    server: ServerProcess, pushed: list[Dataset]
) -> None:
    """An older server may have stored such objects: the node continues the other studies and predicts new ones."""
    server.stop()
    for number, claim in enumerate(CLAIMS):
        for path in (f"incoming/{number:032d}", f"taken/{number + 50:032d}-{'a' * 8}"):
            folder = server.data / path
            folder.mkdir(parents=True)
            create_poisoned_object(pushed[0], claim).save_as(folder / "1.dcm")
            (folder / "2.dcm").write_bytes(create_meta_image("99"))
    server.start()
    patient = str(pushed[0].PatientID)
    before = len(server.client.get("/api/predictions", params={"patient_id": patient}).json())

    def attack() -> None:
        assert set(push(server, pushed)) == {0}
        wait_for_prediction(server, patient, before)

    server.check_stays_healthy(attack)
    server.wait_until(lambda: not list((server.data / "incoming").iterdir()))
    assert not list((server.data / "taken").iterdir())
    failures = [
        line for line in server.client.get("/api/audit").json() if line["action"].startswith("pushed study")
    ]
    assert len(failures) >= 2 * len(CLAIMS), "each failure is in the log"
