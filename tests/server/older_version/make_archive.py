"""Creates ``before.tar.xz``: a data folder and a database as gliomark left them at commit 5d330d2.

Run once, with that commit's code, as a user who may write to /data:

::

    git worktree add OLD 5d330d2
    PYTHONPATH=OLD/src python tests/server/older_version/make_archive.py

Four patients of few slices, drawn by the phantom: one predicted, corrected, predicted again and compared with the
truth; one with T2 in place of FLAIR; one as DICOM; one that cannot be prepared. The archive also contains the
server's responses about them, ``expected.json``, and an outline and pictures as it sent them. Where a later version has
reworded a message, the expected pages and the expected step of the failed study have the new wording.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from gliomark.phantom import PhantomSettings, create_phantom
from gliomark.server.study_store import StudyStore

WORK = Path("/data")
DATA, EXPECTED = WORK / "gliomark-data", WORK / "expected"
ARCHIVE = Path(__file__).with_name("before.tar.xz")
SETTINGS = PhantomSettings(spacing_mm=(1.0, 1.0), slice_mm=6.0, matrix=240, noise_sigma=0.0)
SLICES, GREYS = 4, 12  # small numbers keep the archive small
Images = dict[str, NDArray[np.uint8]]


def draw_patient(seed: int) -> Images:
    """Return the images around the largest lesion, without the skull, and the lesion as ``mask``."""
    phantom = create_phantom(seed, SETTINGS)
    assert phantom.study.lesion is not None
    lesion, brain = phantom.study.lesion.image > 0, phantom.brain.image > 0
    middle_slice = int(lesion.sum(axis=(1, 2)).argmax())
    shown_slices = slice(middle_slice - SLICES // 2, middle_slice - SLICES // 2 + SLICES)
    images = {"mask": np.where(lesion[shown_slices], 255, 0).astype(np.uint8)}
    for name, series in phantom.study.series.items():
        inside = np.clip(series.image / np.percentile(series.image[brain], 99.5), 0, 1)
        greys = (np.round(inside * GREYS) * (240 // GREYS)).astype(np.uint8)
        images[str(name)] = np.where(brain, np.maximum(greys, 10), 0)[shown_slices].astype(np.uint8)
    return images


def write_pictures(folder: Path, images: Images) -> Path:
    for name, image in images.items():
        (folder / name).mkdir(parents=True)
        for number, plane in enumerate(image, start=1):
            Image.fromarray(plane).save(folder / name / f"{number:03d}.png")
    return folder


def write_dicom(folder: Path, images: Images) -> Path:
    physics = {"T1C": (500, 10, None), "FLAIR": (9000, 110, 2500)}
    folder.mkdir(parents=True)
    for name, image in images.items():
        series = generate_uid()
        for number, plane in enumerate(image):
            dataset = Dataset()
            dataset.file_meta = FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            dataset.SpecificCharacterSet, dataset.PatientID, dataset.PatientName = (
                "ISO_IR 192",
                "患者 03",
                "某^人",
            )
            dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = (
                MRImageStorage,
                generate_uid(),
                "MR",
            )
            dataset.StudyInstanceUID, dataset.FrameOfReferenceUID, dataset.SeriesInstanceUID = (
                "1.2.3",
                "1.2.4",
                series,
            )
            dataset.StudyDate, dataset.PatientAge, dataset.PatientSex = "20250304", "053Y", "M"
            dataset.RepetitionTime, dataset.EchoTime, dataset.InversionTime = physics[name]
            dataset.ContrastBolusAgent = "Gadovist" if name == "T1C" else ""
            dataset.ImageOrientationPatient, dataset.PixelSpacing, dataset.SliceThickness = (
                [1, 0, 0, 0, 1, 0],
                [1, 1],
                6,
            )
            dataset.ImagePositionPatient = [-119.5, -119.5, 6.0 * number]
            dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *plane.shape, 1
            dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
            dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
            dataset.PixelData = plane.astype(np.uint16).tobytes()
            dataset.save_as(folder / f"{name}{number}.dcm", enforce_file_format=True)
    return folder


class Client(httpx.Client):
    """A client that waits until a study is prepared or a prediction has ended."""

    def upload(self, folder: Path) -> dict[str, Any]:
        files = [
            ("files", (f"{folder.name}/{path.relative_to(folder).as_posix()}", path.read_bytes()))
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]
        sent = self.post("/api/studies", files=files).raise_for_status().json()
        return self.wait_for_state(f"/api/studies/{sent['id']}", ("ready", "failed"))

    def predict(self, study: str, **options: Any) -> dict[str, Any]:
        request = {"age": 53, "sex": 0} | options
        job = self.post(f"/api/studies/{study}/predictions", json=request).raise_for_status().json()
        return self.wait_for_state(f"/api/predictions/{job['id']}", ("done", "failed"))

    def wait_for_state(self, path: str, states: tuple[str, ...]) -> dict[str, Any]:
        while (document := self.get(path).raise_for_status().json())["state"] not in states:
            time.sleep(0.2)
        return document


def make_all_requests(client: Client, patients: Path) -> None:
    """Make all requests of a typical session, for one patient after the other."""
    one = client.upload(write_pictures(patients / "患者 01", draw_patient(7)))
    first = client.predict(one["id"], enhancing="no")
    mask = Image.open(io.BytesIO(client.get(f"/api/predictions/{first['id']}/mask.png").content))
    drawn = np.roll(np.asarray(mask), 3, axis=1)
    content = io.BytesIO()
    Image.fromarray(drawn).save(content, "PNG")
    client.put(
        f"/api/studies/{one['id']}/mask.png",
        content=content.getvalue(),
        headers={"content-type": "image/png"},
    ).raise_for_status()
    client.predict(one["id"], outline="corrected", fusion="all")
    truth = {"marker": "idh", "value": "mutant", "note": "病理号 1"}
    client.post(f"/api/predictions/{first['id']}/truth", json=truth).raise_for_status()
    client.get(f"/api/predictions/{first['id']}/heat/idh.png").raise_for_status()

    images = draw_patient(8)
    two = client.upload(write_pictures(patients / "P002", {name: images[name] for name in ("T1C", "T2")}))
    client.predict(two["id"])
    images = draw_patient(9)
    three = client.upload(write_dicom(patients / "P003", {name: images[name] for name in ("T1C", "FLAIR")}))
    client.predict(three["id"])
    black = {
        name: np.where(images[name] > 239, images[name], 0).astype(np.uint8) for name in ("T1C", "FLAIR")
    }
    four = client.upload(write_pictures(patients / "P004", black))
    assert [study["state"] for study in (one, two, three, four)] == ["ready"] * 3 + ["failed"]


def record_answers(client: Client) -> None:
    """Record all responses of the server, and the hashes of the arrays that it stored."""
    store = StudyStore(DATA)
    expected: dict[str, Any] = {
        "predictions": client.get("/api/predictions").json(),
        "studies": {},
        "outlines": {},
    }
    expected["audit"] = client.get("/api/audit").json()
    for folder in sorted((DATA / "studies").iterdir()):
        study = expected["studies"][folder.name] = client.get(f"/api/studies/{folder.name}").json()
        outlines = {
            path: client.get(f"/api/studies/{folder.name}/{path}") for path in ("mask.png", "found.png")
        }
        expected["outlines"] |= {
            f"studies/{folder.name}/{path}": hash_response(o) for path, o in outlines.items() if o.is_success
        }
        if study["state"] == "ready":
            stack = store.load_prepared(folder.name).stack
            study["arrays"] = {str(name): hash_array(image) for name, image in stack.images.items()}
            study["arrays"] |= {"brain": hash_array(stack.brain), "affine": hash_array(stack.affine)}
    for job in expected["predictions"]:
        prediction_path = f"predictions/{job['id']}"
        for path in ("mask.png", "heat/idh.png") if job["request"]["enhancing"] == "no" else ("mask.png",):
            expected["outlines"][f"{prediction_path}/{path}"] = hash_response(
                client.get(f"/api/{prediction_path}/{path}")
            )
        stored_prediction = store.load_prediction(job["study_id"], job["id"])
        job["probability_sha256"] = hash_array(stored_prediction.segmentation.probability)
        for language in ("en", "zh"):
            page = client.get(
                f"/api/{prediction_path}/report.html", params={"language": language}
            ).raise_for_status()
            (EXPECTED / f"{job['id']}.{language}.html").write_bytes(hash_pictures(page.text))
        answer = client.get(f"/api/{prediction_path}/dicom.zip")
        job["dicom"] = hash_segmentation_pixels(answer.content) if answer.is_success else answer.status_code
    (EXPECTED / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, indent=1), "utf-8")


def hash_segmentation_pixels(packed: bytes) -> str:
    """Return the SHA-256 of the pixels of the DICOM segmentation."""
    with ZipFile(io.BytesIO(packed)) as archive:
        return hashlib.sha256(dcmread(io.BytesIO(archive.read("segmentation.dcm"))).PixelData).hexdigest()


def hash_pictures(page: str) -> bytes:
    """Return the report page with every image replaced by its hash."""

    def hash_match(found: re.Match[str]) -> str:
        return hashlib.sha256(found[0].encode()).hexdigest()

    return re.sub(r"(?<=base64,)[A-Za-z0-9+/=]+", hash_match, page).encode()


def hash_response(answer: httpx.Response) -> str:
    return hashlib.sha256(answer.raise_for_status().content).hexdigest() if answer.is_success else ""


def hash_array(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def main() -> None:
    gliomark = [sys.executable, "-m", "gliomark"]
    for folder in (DATA, EXPECTED, WORK / "patients"):
        shutil.rmtree(folder, ignore_errors=True)
    EXPECTED.mkdir(parents=True)
    token_output = subprocess.run(
        [*gliomark, "token", "add", "Dr. Wang", "--role", "admin", "--data", str(DATA)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    token = max(token_output.split(), key=len)
    server = subprocess.Popen(
        [*gliomark, "serve", "--data", str(DATA), "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        address = next(line.split()[-1] for line in server.stdout if "listens on" in line)
        with Client(base_url=address, headers={"Authorization": f"Bearer {token}"}, timeout=600) as client:
            make_all_requests(client, WORK / "patients")
            record_answers(client)
    finally:
        server.terminate()
        server.wait()
    (EXPECTED / "token").write_text(token)
    os.chdir(WORK)
    with tarfile.open(ARCHIVE, "w:xz", preset=9) as archive:
        for folder in (DATA, EXPECTED):
            archive.add(folder.relative_to(WORK), filter=_normalise_entry)


def _normalise_entry(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Remove owner and time from an archive entry; leave out files that only a running server needs or can
    recreate."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return None if entry.name.endswith(("lock", "uploads", "dicom_en")) else entry


if __name__ == "__main__":
    main()
