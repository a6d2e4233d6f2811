"""The whole way at a hospital: a study pushed to a real Orthanc goes to gliomark by the script in
``integrations/orthanc``, the results come back, and OHIF, served by ``integrations/ohif/serve.py``, shows outline and
diameters in Chromium.

Set ``GLIOMARK_SCREENSHOTS`` to a folder to keep what OHIF showed, and ``GLIOMARK_OHIF`` to one that keeps the viewer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedMRImageStorage, generate_uid
from tests.conftest import find_program
from tests.orthanc import Orthanc, find_free_port, run_orthanc
from tests.reporting.conftest import make_prediction  # noqa: F401 - a fixture
from tests.reporting.test_dicom import create_prediction, create_results, remove_lesion
from tests.server.conftest import create_test_database, run_server
from tests.server.test_browser_page import CHROMIUM, WEBGL_IN_SOFTWARE

from gliomark.io import read_study
from gliomark.phantom.hospital import HospitalSettings, create_hospital_patient, write_patient_dicom
from gliomark.prediction import Prediction
from gliomark.server.dicom_node import DicomNode, DicomNodeConfig
from gliomark.server.run import ServerConfig
from gliomark.study import MRSequence

pytestmark = pytest.mark.slow
playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
INTEGRATIONS = Path(__file__).parents[2] / "integrations"
SCREENSHOTS = os.environ.get("GLIOMARK_SCREENSHOTS")
WAIT_S = 300.0
# red, green and blue of OHIF's first segment, and of its lines
OUTLINE_YELLOW, LINE_GREEN = ((200, 170, 0), (255, 225, 90)), ((0, 200, 0), (80, 255, 80))


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the downloaded viewer."""
    find_program("npm", "Debian package npm")
    if CHROMIUM is None:
        pytest.skip("no Chromium (Debian package chromium)")
    folder = os.environ.get("GLIOMARK_OHIF")
    return Path(folder) if folder else tmp_path_factory.mktemp("ohif")


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """An Orthanc that sends stable studies to gliomark, which returns its results."""
    folder, port = tmp_path_factory.mktemp("hospital"), find_free_port()
    with run_orthanc(
        folder / "archive",
        LuaScripts=[str(INTEGRATIONS / "orthanc" / "gliomark.lua")],
        StableAge=3,
        DicomModalities={"gliomark": ["GLIOMARK", "127.0.0.1", port]},
    ) as orthanc:
        config = DicomNodeConfig(
            port,
            allowed_ae_titles=("ARCHIVE",),
            destinations=(f"ARCHIVE@127.0.0.1:{orthanc.dicom_port}",),
            quiet_period_s=3.0,
        )
        with run_server(ServerConfig(folder / "data", database_url=create_test_database())) as client:
            node = DicomNode(client.server, config)
            node.start()
            yield orthanc
            node.stop()


@contextmanager
def serve_viewer(viewer: Path, archive: Orthanc) -> Iterator[str]:
    """Serve the viewer beside an archive, by the command in the documentation."""
    port = find_free_port()
    command = [sys.executable, str(INTEGRATIONS / "ohif" / "serve.py"), "--dicomweb", archive.web]
    process = subprocess.Popen([*command, "--port", str(port), "--viewer", str(viewer)])
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: is_answering(address) or process.poll() is not None)
        assert process.poll() is None, "the viewer did not start"
        yield address
    finally:
        process.terminate()
        process.wait()


def is_answering(address: str) -> bool:
    try:
        return httpx.get(address).status_code == 200
    except httpx.TransportError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = WAIT_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def write_enhanced_phantom(folder: Path) -> Path:
    """Write T1C and FLAIR of a synthetic patient, each as one enhanced multi-frame file."""
    sequences = (MRSequence.T1C, MRSequence.FLAIR)
    settings = HospitalSettings(transfer_syntaxes=("explicit",), has_distractors=False)
    scanned = write_patient_dicom(create_hospital_patient(2023, settings, sequences), folder / "scanned")
    by_series: dict[str, list[Dataset]] = {}
    for file in scanned.rglob("*"):
        if file.is_file() and (one := dcmread(file)).Modality == "MR":
            by_series.setdefault(one.SeriesInstanceUID, []).append(one)
    out = folder / "enhanced"
    out.mkdir()
    for number, slices in enumerate(by_series.values()):
        convert_to_enhanced(sorted(slices, key=lambda one: int(one.InstanceNumber))).save_as(
            out / f"{number}.dcm", enforce_file_format=True
        )
    return out


def convert_to_enhanced(slices: list[Dataset]) -> Dataset:
    """Convert the images of a series to one multi-frame image."""
    one = slices[0].copy()
    pixels = b"".join(image.PixelData for image in slices)
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    one.NumberOfFrames, one.PixelData = len(slices), pixels
    timing = Dataset()
    timing.RepetitionTime = one.RepetitionTime
    measures = Dataset()
    measures.PixelSpacing, measures.SliceThickness = one.PixelSpacing, one.SliceThickness
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.MRTimingAndRelatedParametersSequence = [measures], [timing]
    one.SharedFunctionalGroupsSequence = [shared]
    one.PerFrameFunctionalGroupsSequence = list(map(create_frame_group, slices))
    for name in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "SliceThickness",
        "SliceLocation",
    ):
        if name in one:
            delattr(one, name)
    return one


def create_frame_group(image: Dataset) -> Dataset:
    position, orientation, echo, group = Dataset(), Dataset(), Dataset(), Dataset()
    position.ImagePositionPatient = image.ImagePositionPatient
    orientation.ImageOrientationPatient = image.ImageOrientationPatient
    echo.EffectiveEchoTime = image.EchoTime
    group.PlanePositionSequence, group.PlaneOrientationSequence = [position], [orientation]
    group.MREchoSequence = [echo]
    return group


def push(orthanc: Orthanc, folder: Path) -> str:
    """Store a patient in the archive; its study UID once gliomark's results have come back."""
    orthanc.store(folder)
    uid = str(dcmread(next(file for file in folder.rglob("*.dcm")), stop_before_pixels=True).StudyInstanceUID)
    wait_until(lambda: {"SEG", "SR", "DOC"} <= list_modalities(orthanc, uid))
    return uid


def list_modalities(orthanc: Orthanc, study_uid: str) -> set[str]:
    series = httpx.get(
        f"{orthanc.web}/studies/{study_uid}/series", headers={"Accept": "application/dicom+json"}
    )
    return {one["00080060"]["Value"][0] for one in series.json()} if series.status_code == 200 else set()


def read_diameters(orthanc: Orthanc, study_uid: str) -> set[str]:
    """The diameters in the archived report, as OHIF writes them."""
    found = httpx.post(
        f"{orthanc.rest}/tools/find",
        json={"Level": "Instance", "Query": {"StudyInstanceUID": study_uid, "Modality": "SR"}},
    ).json()
    report = dcmread(BytesIO(httpx.get(f"{orthanc.rest}/instances/{found[0]}/file").content))
    texts: set[str] = set()

    def collect(item: Dataset) -> None:
        for child in item.get("ContentSequence", []):
            collect(child)
            if child.ValueType == "NUM" and any(
                one.ValueType == "SCOORD" for one in child.get("ContentSequence", [])
            ):
                name, value = child.ConceptNameCodeSequence[0].CodeMeaning, child.MeasuredValueSequence[0]
                texts.add(f"{name}: {float(value.NumericValue):.2f} mm")

    collect(report)
    return texts


def count_pixels(picture: bytes, low: tuple[int, int, int], high: tuple[int, int, int]) -> int:
    """Count the pixels of a picture whose red, green and blue are within limits."""
    values = np.asarray(Image.open(BytesIO(picture)).convert("RGB"))
    return int(((values >= low) & (values <= high)).all(axis=2).sum())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", *WEBGL_IN_SOFTWARE]
        )
        yield browser
        browser.close()


def open_study(browser: Any, address: str, study_uid: str) -> Any:
    """Open a study in the viewer."""
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    page.set_default_timeout(WAIT_S * 1000)
    page.goto(f"{address}/viewer?StudyInstanceUIDs={study_uid}")
    page.get_by_text("Skip all").click()
    page.get_by_text("Confirm and hide").click()
    return page


@pytest.mark.parametrize("patient", ["classic", "enhanced"])
def test_ohif_shows_the_outline_and_the_diameters(
    patient: str,
    viewer: Path,
    hospital: Orthanc,
    browser: Any,
    shared: Path,
    tmp_path: Path,
) -> None:
    if patient == "classic":
        folder = tmp_path / "in"
        for series in (shared / "patients" / "ReMIND-022-dicom").iterdir():
            if series.is_dir():
                shutil.copytree(series, folder / series.name)
    else:
        folder = write_enhanced_phantom(tmp_path)
    uid = push(hospital, folder)
    with serve_viewer(viewer, hospital) as address:
        page = open_study(browser, address, uid)
        result = page.locator("[data-cy=study-browser-thumbnail-no-image]")
        page.locator(".viewport-element").first.wait_for()
        before = keep(page, f"{patient}-before")
        assert count_pixels(before, *OUTLINE_YELLOW) == count_pixels(before, *LINE_GREEN) == 0

        result.filter(has_text="gliomark lesion").dblclick()
        wait_until(lambda: count_pixels(keep(page, f"{patient}-outline"), *OUTLINE_YELLOW) > 50)

        result.filter(has_text="gliomark measurements").dblclick()
        texts = read_diameters(hospital, uid)
        assert len(texts) == 2
        for text in texts:
            page.get_by_text(text).wait_for()
        wait_until(lambda: count_pixels(keep(page, f"{patient}-diameters"), *LINE_GREEN) > 100)
        page.close()


@pytest.mark.parametrize(
    ("language", "sentence"),
    [("en", "No lesion was found. The model outlined no lesion"), ("zh", "未发现病灶")],
)
def test_ohif_shows_the_sentence_of_a_report_without_a_lesion(
    make_prediction: Callable[..., Prediction],  # noqa: F811
    viewer: Path,
    browser: Any,
    tmp_path: Path,
    language: str,
    sentence: str,
) -> None:
    folder = write_enhanced_phantom(tmp_path)
    prediction = remove_lesion(create_prediction(make_prediction, read_study(folder)))
    results = create_results(prediction, language)
    results["report.dcm"].save_as(folder / "report.dcm", enforce_file_format=True)
    with run_orthanc(tmp_path / "archive") as archive, serve_viewer(viewer, archive) as address:
        archive.store(folder)
        page = open_study(browser, address, str(results["report.dcm"].StudyInstanceUID))
        page.locator("[data-cy=study-browser-thumbnail-no-image]").filter(
            has_text="gliomark measurements"
        ).dblclick()
        shown = page.get_by_text(sentence).first
        shown.wait_for()
        keep(page, f"no-lesion-{language}")
        box = shown.bounding_box()
        assert box is not None and box["y"] + box["height"] < 768, "on the screen without scrolling"
        page.close()


def keep(page: Any, name: str) -> bytes:
    """Take a screenshot of the page; keep it if a folder is given."""
    picture: bytes = page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png" if SCREENSHOTS else None)
    return picture
