"""Studies fetched from a real Orthanc by C-GET, C-MOVE and DICOMweb, and from archives that misbehave."""

from __future__ import annotations

import errno
import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import RTStructureSetStorage, SegmentationStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    CompositeInstanceRetrieveWithoutBulkDataGet,
    MRImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)
from tests.io.test_dicom import FLAIR, T1C, T2, create_blank_dataset, save, write_series
from tests.orthanc import Orthanc, find_free_port, run_orthanc
from typer.testing import CliRunner

from gliomark.cli.main import app
from gliomark.errors import ConfigurationError, GliomarkError, InputError
from gliomark.files import FileWriteError
from gliomark.io import read_study
from gliomark.pacs import (
    Credentials,
    DimseOptions,
    SeveralStudiesError,
    StudyQuery,
    dimse,
    fetch_study,
    open_pacs,
    parse_address,
)
from gliomark.study import MRSequence

STUDY_UID, OTHER_STUDY_UID = "1.2.3.10", "1.2.3.11"
STUDY = {
    "StudyInstanceUID": STUDY_UID,
    "PatientID": "..P7",
    "AccessionNumber": "A1",
    "StudyDate": "20240601",
    "StudyDescription": "brain\x1b[2J",
}
OTHER_STUDY = STUDY | {
    "StudyInstanceUID": OTHER_STUDY_UID,
    "AccessionNumber": "A2",
    "StudyDate": "20230501",
    "StudyDescription": "brain, earlier",
}
MOVE_PORT = find_free_port()


def write_study(folder: Path) -> list[Path]:
    """Write the objects of a study that gliomark reads, and others beside them; return the former."""
    wanted = [
        *write_series(folder / "T1C", **T1C, **STUDY),
        *write_series(folder / "T2", **T2, **STUDY),
        write_object(folder / "seg.dcm", Modality="SEG", SOPClassUID=SegmentationStorage),
        write_object(folder / "outline.dcm", Modality="RTSTRUCT", SOPClassUID=RTStructureSetStorage),
    ]
    write_series(folder / "CT", (0, 1), **STUDY, Modality="CT")
    write_object(folder / "screenshot.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    return wanted


def write_object(file: Path, **tags: Any) -> Path:
    dataset = create_blank_dataset(file, SeriesInstanceUID=generate_uid(), Rows=2, Columns=2, **STUDY)
    dataset.PixelData = bytes(8)
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    save(dataset, file)
    return file


def read_uids(files: Any) -> set[str]:
    return {str(dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in files}


# ---- a real Orthanc ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hospital:
    """An Orthanc with two studies of one patient and one of another; ``wanted``: what is to be fetched of ``A1``."""

    orthanc: Orthanc
    wanted: list[Path]
    images: Path

    @property
    def dimse(self) -> str:
        return f"ARCHIVE@127.0.0.1:{self.orthanc.dicom_port}"


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    folder = tmp_path_factory.mktemp("hospital")
    wanted = write_study(folder / "images")
    write_series(folder / "others" / "earlier", **FLAIR, **OTHER_STUDY)
    other_patient = STUDY | {"StudyInstanceUID": "1.2.3.12", "PatientID": "Q", "AccessionNumber": "A3"}
    write_series(folder / "others" / "other", (0,), **other_patient, Modality="CT")
    modalities = {"fetch": ["GLIOMARK", "127.0.0.1", MOVE_PORT]}
    with run_orthanc(
        folder / "archive", DicomCheckCalledAet=True, DicomAlwaysAllowMove=True, DicomModalities=modalities
    ) as orthanc:
        orthanc.store(folder / "images")
        orthanc.store(folder / "others")
        yield Hospital(orthanc, wanted, folder / "images")


@pytest.mark.parametrize("way", ["C-GET", "C-MOVE", "DICOMweb"])
def test_a_study_is_fetched(hospital: Hospital, way: str, tmp_path: Path, monkeypatch) -> None:
    options = DimseOptions(receive_port=MOVE_PORT)
    if way == "C-MOVE":  # Orthanc has C-GET: ask for a service that it does not have
        unsupported = CompositeInstanceRetrieveWithoutBulkDataGet
        monkeypatch.setattr(dimse, "StudyRootQueryRetrieveInformationModelGet", unsupported)
    pacs = open_pacs(hospital.orthanc.web if way == "DICOMweb" else hospital.dimse, options)
    fetched = fetch_study(pacs, StudyQuery("A1", " ..P7 "), tmp_path / "out")
    files = sorted((tmp_path / "out").iterdir())
    assert [file.name for file in files] == [f"image-{number:05d}.dcm" for number in range(1, 15)]
    assert read_uids(files) == read_uids(hospital.wanted)
    assert (fetched.series_count, fetched.file_count, fetched.study.uid) == (4, 14, STUDY_UID)
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    study, source = read_study(tmp_path / "out"), read_study(hospital.images)
    assert set(study.series) == {MRSequence.T1C, MRSequence.T2}
    np.testing.assert_array_equal(study.series[MRSequence.T1C].image, source.series[MRSequence.T1C].image)


@pytest.mark.parametrize("is_dicomweb", [False, True])
def test_of_several_studies_none_is_fetched(hospital: Hospital, is_dicomweb: bool, tmp_path: Path) -> None:
    address = hospital.orthanc.web if is_dicomweb else hospital.dimse
    arguments = ["fetch", "--pacs", address, "--patient-id", "..P7", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, SeveralStudiesError) and "--study-uid" in str(result.exception)
    assert result.output.splitlines() == [
        "date\tdescription\taccession number\tpatient id\tstudy UID",
        f"20230501\tbrain, earlier\tA2\t..P7\t{OTHER_STUDY_UID}",
        f"20240601\tbrain?[2J\tA1\t..P7\t{STUDY_UID}",
    ]
    assert list(tmp_path.iterdir()) == []
    result = CliRunner().invoke(app, [*arguments, "--study-uid", OTHER_STUDY_UID])
    assert result.output == f"{tmp_path / 'out'}: 6 files in 1 series\n"
    assert set(read_study(tmp_path / "out").series) == {MRSequence.FLAIR}


@pytest.mark.parametrize("is_dicomweb", [False, True])
@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        (StudyQuery("A4"), "has no study that fits"),
        (StudyQuery("A1", "Q"), "has no study that fits"),
        (StudyQuery("A2", study_uid=STUDY_UID), "has no study that fits"),
        (StudyQuery("A3"), "has 1 series, but none with MR images"),
    ],
)
def test_no_study_fits(
    hospital: Hospital, is_dicomweb: bool, query: StudyQuery, sentence: str, tmp_path: Path
) -> None:
    pacs = open_pacs(hospital.orthanc.web if is_dicomweb else hospital.dimse)
    with pytest.raises(InputError, match=sentence):
        fetch_study(pacs, query, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("get_address", "sentence"),
    [
        (
            lambda one: one.dimse.replace("ARCHIVE", "WRONG"),
            "rejected the association of GLIOMARK .Called AE title",
        ),
        (lambda one: f"ARCHIVE@127.0.0.1:{find_free_port()}", "is not reachable .Connection refused"),
        (lambda one: "ARCHIVE@nowhere.invalid:104", "is not reachable"),
        (lambda one: f"http://127.0.0.1:{find_free_port()}/dicom-web", "is not reachable"),
        (lambda one: "http://nowhere.invalid/dicom-web", "is not reachable"),
        (lambda one: f"{one.orthanc.rest}/wrong", "does not answer as a DICOMweb service .404"),
        (lambda one: f"{one.orthanc.rest}/app/explorer.html?", "does not answer as a DICOMweb service"),
        (
            lambda one: one.orthanc.web.replace("http:", "https:"),
            "An encrypted connection to .* is not possible",
        ),
    ],
)
def test_an_archive_that_cannot_be_used(
    hospital: Hospital, get_address: Callable[[Hospital], str], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        fetch_study(open_pacs(get_address(hospital)), StudyQuery("A1"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@contextmanager
def run_https_proxy(folder: Path, target: str) -> Iterator[str]:
    """Forward https requests to an Orthanc; its certificate is ``folder/certificate.pem``."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {
                name: value for name, value in self.headers.items() if name in ("Accept", "Authorization")
            }
            response = httpx.get(target + self.path, headers=headers)
            self.send_response(response.status_code)
            self.send_header("Content-Type", response.headers.get("Content-Type", "text/plain"))
            self.send_header("Content-Length", str(len(response.content)))
            self.end_headers()
            self.wfile.write(response.content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"https://localhost:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_an_unregistered_ae_title_is_refused(hospital: Hospital, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="ended the association of UNKNOWN without an answer"):
        fetch_study(open_pacs(hospital.dimse, DimseOptions("UNKNOWN")), StudyQuery("A1"), tmp_path / "out")


@pytest.mark.slow
def test_passwords_and_certificates(tmp_path: Path, monkeypatch) -> None:
    out, (image, *_) = tmp_path / "out", write_series(tmp_path / "images", (0, 1), **T2, **STUDY)
    settings = {"AuthenticationEnabled": True, "RegisteredUsers": {"me": "secret"}}
    with (
        run_orthanc(tmp_path / "archive", **settings) as orthanc,
        run_https_proxy(tmp_path, orthanc.rest) as proxy,
    ):
        orthanc.store(image, auth=("me", "secret"))

        def fetch(credentials: Credentials) -> None:
            fetch_study(open_pacs(f"{proxy}/dicom-web", credentials=credentials), StudyQuery("A1"), out)

        with pytest.raises(ConfigurationError, match="certificate of .* cannot be verified"):
            fetch(Credentials("me", "secret"))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
        for credentials in (Credentials(), Credentials("me", "wrong"), Credentials(token="no token")):
            with pytest.raises(ConfigurationError, match="requires a valid token or password .status 40[13]"):
                fetch(credentials)
        assert not out.exists()
        monkeypatch.setenv("GLIOMARK_PACS_PASSWORD", "secret")
        arguments = ["fetch", "--pacs", f"{proxy}/dicom-web", "--user", "me", "--accession", "A1"]
        result = CliRunner().invoke(app, [*arguments, "--out", str(out)])
        assert result.output == f"{out}: 1 file in 1 series\n"
    assert read_uids(out.iterdir()) == read_uids([image])


UIDS = [f"1.2.{number}" for number in range(1, 6)]


class PartialList:
    """A DICOMweb service that lists five series, two in each answer.

    knows_offset: whether it sends the others at an offset; refusal: status of its answer to an offset; states_more:
    whether it warns that there are more.
    """

    def __init__(self, *, knows_offset: bool = True, refusal: int = 0, states_more: bool = True) -> None:
        self.knows_offset, self.refusal, self.states_more = knows_offset, refusal, states_more

    def create_answer(self, offset: int) -> tuple[int, bool, list[str]]:
        """Return the status, whether there are more, and the UIDs."""
        if offset and self.refusal:
            return self.refusal, False, []
        first = offset if self.knows_offset else 0
        part = UIDS[first : first + 2]
        return (200 if part else 204), self.states_more and first + 2 < len(UIDS), part


@contextmanager
def run_list_service(service: PartialList) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            offset = int(dict(parse_qsl(urlsplit(self.path).query)).get("offset", 0))
            status, has_more, uids = service.create_answer(offset)
            content = json.dumps([{"0020000E": {"vr": "UI", "Value": [uid]}} for uid in uids]).encode()
            self.send_response(status)
            if has_more:
                self.send_header("Warning", '299 pacs: "There are additional results that can be requested"')
            self.send_header("Content-Length", str(len(content) * (status != 204)))
            self.end_headers()
            self.wfile.write(content * (status != 204))

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "service", [PartialList(), PartialList(states_more=False)], ids=["with a warning", "without"]
)
def test_a_list_in_parts_is_read_to_its_end(service: PartialList) -> None:
    with run_list_service(service) as address:
        found = open_pacs(parse_address(address)).search(
            "SERIES", {"StudyInstanceUID": "1.2", "SeriesInstanceUID": ""}
        )
    assert [str(one.SeriesInstanceUID) for one in found] == UIDS


@pytest.mark.parametrize("service", [PartialList(knows_offset=False), PartialList(refusal=400)])
def test_a_cut_list_is_refused(service: PartialList) -> None:
    with (
        run_list_service(service) as address,
        pytest.raises(ConfigurationError, match="more answers than the 2 it sent"),
    ):
        open_pacs(parse_address(address)).search(
            "SERIES", {"StudyInstanceUID": "1.2", "SeriesInstanceUID": ""}
        )


def test_a_token_is_sent_as_bearer(monkeypatch, tmp_path: Path) -> None:
    """The token of the environment arrives, and is not shown by the credentials."""
    received: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            received.append(self.headers["Authorization"])
            self.send_error(503)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    monkeypatch.setenv("GLIOMARK_PACS_TOKEN", "t0ken")
    address = f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
    result = CliRunner().invoke(
        app, ["fetch", "--pacs", address, "--accession", "A1", "--out", str(tmp_path / "out")]
    )
    server.shutdown()
    server.server_close()
    assert received == ["Bearer t0ken"] and "could not answer (status 503)" in str(result.exception)
    assert "t0ken" not in repr(Credentials("me", "t0ken", "t0ken"))


# ---- archives that misbehave ------------------------------------------------------------------------


@dataclass
class Archive:
    """An archive made with pynetdicom, which answers a query with ``files`` and sends ``sent`` instead."""

    files: list[Path]
    sent: list[Path] = field(default_factory=list)
    find_status: int = 0x0000
    move_destination: int | None = None

    def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        """Answer with all studies, series or images, whatever was asked."""
        if self.find_status:
            yield self.find_status, None
            return
        level = event.identifier.QueryRetrieveLevel
        keyword = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}[
            level
        ]
        answers = {str(one[keyword].value): one for one in map(dcmread, self.files)}
        for one in answers.values():
            answer = Dataset()
            for element in event.identifier:
                if element.keyword in one:
                    setattr(answer, element.keyword, one[element.keyword].value)
            answer.QueryRetrieveLevel = level
            yield 0xFF00, answer

    def send(self, event: evt.Event) -> Iterator[Any]:
        """Answer C-GET and C-MOVE."""
        if event.event == evt.EVT_C_MOVE:
            yield (None, None) if self.move_destination is None else ("127.0.0.1", self.move_destination)
            if self.move_destination is None:
                return
        yield len(self.sent)
        for file in self.sent:
            yield 0xFF00, dcmread(file)


@contextmanager
def run_archive(archive: Archive, *services: str) -> Iterator[str]:
    entity = AE("ARCHIVE")
    for service in services:
        entity.add_supported_context(service)
    entity.add_requested_context(MRImageStorage)
    entity.add_supported_context(MRImageStorage, scu_role=True, scp_role=True)
    handlers = [
        (evt.EVT_C_FIND, archive.find),
        (evt.EVT_C_GET, archive.send),
        (evt.EVT_C_MOVE, archive.send),
    ]
    listener = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield f"ARCHIVE@127.0.0.1:{listener.server_address[1]}"
    finally:
        listener.shutdown()


FIND, GET, MOVE = (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    return write_series(tmp_path / "images", **T2, **STUDY)


@pytest.fixture
def foreign(tmp_path: Path) -> list[Path]:
    return write_series(tmp_path / "foreign", (0,), **T2, **OTHER_STUDY)


def fetch_from(archive: Archive, folder: Path, *services: str, receive_port: int | None = None) -> None:
    with run_archive(archive, *services) as address:
        pacs = open_pacs(address, DimseOptions(receive_port=receive_port))
        fetch_study(pacs, StudyQuery("A1"), folder / "out")


@pytest.mark.slow
def test_an_archive_without_c_get_sends_by_c_move(series, tmp_path) -> None:
    port = find_free_port()
    fetch_from(Archive(series, series, move_destination=port), tmp_path, FIND, MOVE, receive_port=port)
    assert read_uids((tmp_path / "out").iterdir()) == read_uids(series)


def test_a_transfer_with_an_image_of_another_study_is_incomplete(series, foreign, tmp_path) -> None:
    with pytest.raises(InputError, match="sent 5 of 6 images of series"):
        fetch_from(Archive(series, [*series[:-1], *foreign]), tmp_path, FIND, GET)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["foreign", "images"]


@pytest.mark.slow
def test_incomplete_and_refused_transfers_leave_nothing(series, foreign, tmp_path) -> None:
    port, taken = find_free_port(), find_free_port()
    cases: list[tuple[Archive, tuple[str, ...], int | None, str]] = [
        (Archive(series, series[:-1]), (FIND, GET), None, "sent 5 of 6 images of series"),
        (Archive(series, [*series[:-1], *series[:2]]), (FIND, GET), None, "sent 5 of 6 images of series"),
        (Archive(series, []), (FIND, GET), None, "sent 0 of 6 images of series"),
        (
            Archive(series, series, find_status=0xA700),
            (FIND, GET),
            None,
            r"refused the request .*status A700",
        ),
        (Archive(series, series), (GET,), None, "rejected the association"),
        (Archive(series, series), (FIND, MOVE), None, "does not support C-GET; .* --receive-port"),
        (Archive(series, series), (FIND, MOVE), port, "does not know the destination GLIOMARK"),
        (Archive(foreign, foreign), (FIND, GET), None, "has no study that fits"),
    ]
    for archive, services, receive_port, sentence in cases:
        with pytest.raises(GliomarkError, match=sentence):
            fetch_from(archive, tmp_path, *services, receive_port=receive_port)
        assert sorted(one.name for one in tmp_path.iterdir()) == ["foreign", "images"], sentence
    with run_archive(Archive(series), FIND) as address:
        taken = int(address.rsplit(":", 1)[1])
        with pytest.raises(ConfigurationError, match=f"port {taken} cannot be opened"):
            fetch_from(Archive(series, series), tmp_path, FIND, MOVE, receive_port=taken)


# ---- arguments --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["*", "A?", "A1\\A2", "A\x00", "A\n1"])
@pytest.mark.parametrize("keyword", ["accession_number", "patient_id", "study_uid"])
def test_a_query_for_other_patients_is_refused(keyword: str, value: str) -> None:
    with pytest.raises(InputError, match="other patients would be found"):
        StudyQuery(**{keyword: value})


@pytest.mark.parametrize("uid", ["1.2.", "1", "x", "1." * 33 + "1", "../1.2"])
def test_an_invalid_uid_is_refused(uid: str) -> None:
    with pytest.raises(InputError, match="is not a StudyInstanceUID"):
        StudyQuery(study_uid=uid)


def test_an_empty_query_is_refused() -> None:
    with pytest.raises(InputError, match="give --accession"):
        StudyQuery(" ")


def test_a_folder_with_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    pacs = open_pacs("ARCHIVE@127.0.0.1:104")
    for folder in (tmp_path, tmp_path / "file"):
        with pytest.raises(InputError, match="is not an empty folder"):
            fetch_study(pacs, StudyQuery("A1"), folder)
    assert (tmp_path / "file").exists()


@pytest.mark.parametrize(
    ("address", "credentials", "sentence"),
    [
        ("http://pacs.example/dicom-web", Credentials(token="t"), "unencrypted; use the https address"),
        ("http://pacs.example/dicom-web", Credentials("me", "p"), "unencrypted; use the https address"),
        ("https://me:hidden@pacs.example/dicom-web", Credentials(), "contains a user name"),
    ],
)
def test_credentials_are_not_sent_in_the_open(address: str, credentials: Credentials, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        open_pacs(address, credentials=credentials)
    assert "hidden" not in str(caught.value)


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
def test_an_invalid_address_is_refused(text: str) -> None:
    with pytest.raises(GliomarkError, match="is not the address of a PACS"):
        parse_address(text)


@dataclass
class AlteringArchive(Archive):
    """An archive that alters its answers at one level; ``alter`` returns None for an answer that is left out."""

    level: str = "STUDY"
    alter: Callable[[Dataset], Dataset | None] = lambda answer: answer

    def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        """Answer like ``Archive``, the images of each series apart."""
        asked = event.identifier
        for status, answer in super().find(event):
            if answer is not None and asked.QueryRetrieveLevel == "IMAGE":
                file = next(one for one in self.files if dcmread(one).SOPInstanceUID == answer.SOPInstanceUID)
                if dcmread(file).SeriesInstanceUID != asked.SeriesInstanceUID:
                    continue
            if asked.QueryRetrieveLevel == self.level and answer is not None:
                answer = self.alter(answer)
            if answer is not None:
                yield status, answer

    def send(self, event: evt.Event) -> Iterator[Any]:
        """Send the images of the series."""
        sent = [
            one for one in self.sent if dcmread(one).SeriesInstanceUID == event.identifier.SeriesInstanceUID
        ]
        yield len(sent)
        for file in sent:
            yield 0xFF00, dcmread(file)


def change_answer(**values: Any) -> Callable[[Dataset], Dataset | None]:
    """Return a function that sets values in an answer with the first series' or image's number; None deletes one."""

    def alter(answer: Dataset) -> Dataset | None:
        for keyword, value in values.items():
            if value is None:
                delattr(answer, keyword)
            else:
                setattr(answer, keyword, value)
        return answer

    return alter


LISTING_FAULTS: dict[str, tuple[str, Callable[[Dataset], Dataset | None], str]] = {
    "no image is listed": ("IMAGE", lambda _: None, "has series .* but lists no images of it"),
    "series UID is not valid": ("SERIES", change_answer(SeriesInstanceUID="1.2.3.*"), "lists no images of it"),
    "series UID is missing": ("SERIES", change_answer(SeriesInstanceUID=None), "lists no images of it"),
    "image UID is missing": ("IMAGE", change_answer(SOPInstanceUID=None), "sent 0 of 1 images"),
    "images of another patient": ("STUDY", change_answer(PatientID="P8"), "patient id P8, but its images state ..P7"),
}  # fmt: skip


@pytest.mark.parametrize("case", LISTING_FAULTS)
def test_a_study_that_is_listed_wrongly_is_refused(series: list[Path], tmp_path: Path, case: str) -> None:
    """Rather than fetched without one of its series, or under another patient."""
    level, alter, sentence = LISTING_FAULTS[case]
    with pytest.raises(InputError, match=sentence):
        fetch_from(AlteringArchive(series, series, level=level, alter=alter), tmp_path, FIND, GET)
    assert [one.name for one in tmp_path.iterdir()] == ["images"]


HARMLESS_LISTINGS: dict[str, tuple[str, Callable[[Dataset], Dataset | None]]] = {
    "no modality": ("SERIES", change_answer(Modality=None)),
    "patient id padded": ("STUDY", change_answer(PatientID="..p7^ ")),
    "no patient id": ("STUDY", change_answer(PatientID=None)),
    "no class": ("IMAGE", change_answer(SOPClassUID=None)),
}


@pytest.mark.parametrize("case", HARMLESS_LISTINGS)
def test_a_listing_that_lacks_something_is_enough(series: list[Path], tmp_path: Path, case: str) -> None:
    level, alter = HARMLESS_LISTINGS[case]
    fetch_from(AlteringArchive(series, series, level=level, alter=alter), tmp_path, FIND, GET)
    assert read_uids((tmp_path / "out").iterdir()) == read_uids(series)


@pytest.mark.parametrize("status", [0xB000, 0xA702])
def test_a_full_disk_is_named_whatever_the_archive_answers(
    series: list[Path], tmp_path: Path, monkeypatch, status: int
) -> None:
    """Images are then refused, and the archive may call the whole transfer failed."""
    write_bytes = Path.write_bytes

    def fill_disk(file: Path, content: bytes) -> int:
        if file.name == "image-00003.dcm":
            raise OSError(errno.ENOSPC, "No space left on device", str(file))
        return write_bytes(file, content)

    monkeypatch.setattr(Path, "write_bytes", fill_disk)

    class FailingArchive(Archive):
        def send(self, event: evt.Event) -> Iterator[Any]:
            yield from super().send(event)
            if status != 0xB000:
                yield status, None

    with pytest.raises(FileWriteError, match="the disk is full"):
        fetch_from(FailingArchive(series, series), tmp_path, FIND, GET)
    assert [one.name for one in tmp_path.iterdir()] == ["images"]
