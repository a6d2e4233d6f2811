"""Results sent to archives that take Comprehensive 3D SR, refuse it in either of two ways, or refuse any report."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage
from pynetdicom import AE, AllStoragePresentationContexts, evt
from tests.reporting.conftest import make_prediction  # noqa: F401 - a fixture
from tests.reporting.test_dicom import create_prediction, create_results, save_and_read, write_classic

from gliomark.pacs import DimseAddress
from gliomark.server.destinations import send_results

SOP_3D, SOP_2D = str(Comprehensive3DSRStorage), str(ComprehensiveSRStorage)


@pytest.fixture(scope="module")
def results(make_prediction: Callable, tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:  # noqa: F811
    folder: Path = tmp_path_factory.mktemp("in") / "in"
    prediction = create_prediction(make_prediction, write_classic(folder))
    return [save_and_read(one) for one in create_results(prediction).values()]


@contextmanager
def run_archive(
    refused_contexts: set[str], refused_objects: set[str]
) -> Iterator[tuple[DimseAddress, list[Dataset]]]:
    """Run an archive that lacks presentation contexts, or accepts them and refuses the objects."""
    received: list[Dataset] = []

    def store(event: evt.Event) -> int:
        if str(event.request.AffectedSOPClassUID) in refused_objects:
            return 0x0122
        received.append(event.dataset)
        return 0

    entity = AE("ARCHIVE")
    for context in AllStoragePresentationContexts:
        if str(context.abstract_syntax) not in refused_contexts:
            entity.add_supported_context(str(context.abstract_syntax))
    listener = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    yield DimseAddress("ARCHIVE", "127.0.0.1", listener.server_address[1]), received
    listener.shutdown()


@contextmanager
def run_web_service(refused: set[str], conflict: bool) -> Iterator[tuple[str, list[Dataset]]]:
    """Run a STOW-RS service that refuses SOP classes: the objects (202), or all objects of the request (409)."""
    received: list[Dataset] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            boundary = re.search(r'boundary="([^"]+)"', self.headers["Content-Type"])
            assert boundary is not None
            parts = body.split(f"--{boundary[1]}".encode())[1:-1]
            objects = [dcmread(BytesIO(part.split(b"\r\n\r\n", 1)[1][:-2])) for part in parts]
            failed = [one for one in objects if str(one.SOPClassUID) in refused]
            stored = [] if failed and conflict else [one for one in objects if one not in failed]
            received.extend(stored)
            answer = Dataset()
            answer.ReferencedSOPSequence = [create_reference(one) for one in stored]
            self.send_response(200 if len(stored) == len(objects) else 202 if stored else 409)
            self.send_header("Content-Type", "application/dicom+json")
            self.end_headers()
            self.wfile.write(answer.to_json().encode())

        def log_message(self, *_: object) -> None:
            pass

    service = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{service.server_address[1]}", received
    service.shutdown()
    service.server_close()


def create_reference(one: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
    return reference


ARCHIVES = {
    "takes both": (lambda: run_archive(set(), set()), SOP_3D),
    "without the context": (lambda: run_archive({SOP_3D}, set()), SOP_2D),
    "refuses the object": (lambda: run_archive(set(), {SOP_3D}), SOP_2D),
    "takes no report": (lambda: run_archive({SOP_3D, SOP_2D}, set()), None),
    "refuses both objects": (lambda: run_archive(set(), {SOP_3D, SOP_2D}), None),
    "web takes both": (lambda: run_web_service(set(), False), SOP_3D),
    "web refuses the object": (lambda: run_web_service({SOP_3D}, False), SOP_2D),
    "web refuses the request": (lambda: run_web_service({SOP_3D}, True), SOP_2D),
    "web takes no report": (lambda: run_web_service({SOP_3D, SOP_2D}, False), None),
}


@pytest.mark.parametrize("archive", ARCHIVES)
def test_the_report_is_sent_in_a_class_that_the_destination_takes(
    results: list[Dataset], archive: str
) -> None:
    start, expected = ARCHIVES[archive]
    with start() as (address, received):
        outcome = send_results(results, address, "GLIOMARK")
    assert (outcome.reason == "") == (expected is not None)
    if not archive.startswith("web") and expected:
        assert [str(one.SOPInstanceUID) for one in outcome.stored] == [
            str(one.SOPInstanceUID) for one in received
        ]
    else:
        assert outcome.stored == ()
    reports = [one for one in received if one.Modality == "SR"]
    assert [str(one.SOPClassUID) for one in reports] == ([expected] if expected else [])
    if expected:
        assert sorted(one.Modality for one in received) == ["DOC", "SEG", "SR"]
        (report,) = [one for one in results if one.Modality == "SR"]
        assert reports[0].ContentSequence == report.ContentSequence
        assert (reports[0].SOPInstanceUID == report.SOPInstanceUID) == (expected == SOP_3D)


@pytest.mark.parametrize("archive", ["takes both", "web takes both"])
def test_a_setting_sends_comprehensive_sr_at_once(results: list[Dataset], archive: str) -> None:
    with ARCHIVES[archive][0]() as (address, received):
        assert send_results(results, address, "GLIOMARK", sends_comprehensive_sr=True).reason == ""
    assert [str(one.SOPClassUID) for one in received if one.Modality == "SR"] == [SOP_2D]
