"""A real Orthanc with its DICOMweb plugin, if it is installed."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

ORTHANC = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
PLUGINS = Path("/usr/share/orthanc/plugins")


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc: its DICOM port, the address of its REST interface and of its DICOMweb service."""

    dicom_port: int
    rest: str

    @property
    def web(self) -> str:
        return f"{self.rest}/dicom-web"

    def store(self, file: Path, auth: tuple[str, str] | None = None) -> None:
        """Store a DICOM file, or all those in a folder."""
        for one in [file] if file.is_file() else sorted(file.rglob("*")):
            if one.is_file():
                httpx.post(f"{self.rest}/instances", content=one.read_bytes(), auth=auth).raise_for_status()

    def get_job_states(self) -> list[str]:
        """Return the states of all jobs, the oldest first."""
        jobs = httpx.get(f"{self.rest}/jobs?expand").json()
        return [job["State"] for job in sorted(jobs, key=lambda job: job["CreationTime"])]

    def count_stable_studies(self) -> int:
        """Count how often a study became stable."""
        changes = httpx.get(f"{self.rest}/changes?limit=1000").json()["Changes"]
        return sum(change["ChangeType"] == "StableStudy" for change in changes)


def skip_without_orthanc() -> None:
    """Skip a test if Orthanc or its plugin is not installed."""
    if ORTHANC is None or not list(PLUGINS.glob("libOrthancDicomWeb*")):
        pytest.skip("Orthanc with DICOMweb is not installed (apt install orthanc orthanc-dicomweb)")


def find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def run_orthanc(folder: Path, **settings: Any) -> Iterator[Orthanc]:
    """Run Debian's Orthanc on free ports; settings: added to its configuration."""
    skip_without_orthanc()
    dicom_port, http_port = find_free_port(), find_free_port()
    configuration = {
        "Name": "archive",
        "StorageDirectory": str(folder / "orthanc"),
        "IndexDirectory": str(folder / "orthanc"),
        "Plugins": [str(PLUGINS)],
        "DicomAet": "ARCHIVE",
        "DicomPort": dicom_port,
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomCheckCalledAet": False,
        "UnknownSopClassAccepted": True,
        "DicomWeb": {"Enable": True},
    } | settings
    folder.mkdir(exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(configuration), "utf-8")
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([ORTHANC, str(folder / "orthanc.json")], stdout=log, stderr=log)
    rest = f"http://127.0.0.1:{http_port}"
    deadline = time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{rest}/system").status_code in (200, 401):
                    break
            except httpx.TransportError:
                time.sleep(0.05)
        yield Orthanc(dicom_port, rest)
    finally:
        process.terminate()
        process.wait()
