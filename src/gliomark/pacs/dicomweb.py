"""Query a PACS by QIDO-RS, and fetch images by WADO-RS."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset, dcmwrite
from pydicom.errors import InvalidDicomError
from requests.auth import AuthBase, HTTPBasicAuth

from gliomark.errors import ConfigurationError
from gliomark.messages import Message, message
from gliomark.pacs.address import is_loopback
from gliomark.pacs.received_images import ReceivedImages
from gliomark.pacs.studies import get_answer_text

STORED_TRANSFER_SYNTAX = (("application/dicom", "*"),)
PARENT_KEYWORDS: Mapping[str, tuple[str, ...]] = {
    "STUDY": (),
    "SERIES": ("StudyInstanceUID",),
    "IMAGE": ("StudyInstanceUID", "SeriesInstanceUID"),
}
UID_KEYWORDS = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
REFUSALS_OF_AN_OFFSET = (400, 404, 501)
CONNECT_AND_READ_TIMEOUT_S = (10.0, 120.0)


@dataclass(frozen=True)
class Credentials:
    """A bearer token, or a user with a password; blank: none. The representation shows neither."""

    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)


class _BearerAuth(AuthBase):
    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class DicomwebPacs:
    """A PACS reached by DICOMweb.

    Raises
    ------
    ConfigurationError
        If the address contains a password, or credentials would be sent unencrypted to another machine.
    """

    def __init__(self, address: str, credentials: Credentials) -> None:
        parts = urlsplit(address)
        if parts.username or parts.password:
            without_user = f"{parts.scheme}://{parts.hostname}"
            raise ConfigurationError(message("pacs-password-in-address", pacs=without_user))
        self.name = address
        has_credentials = bool(credentials.token or credentials.user)
        if has_credentials and parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            raise ConfigurationError(message("pacs-unencrypted", pacs=address))
        self._has_more_answers = False
        session = requests.Session()
        session.hooks["response"].append(self._read_warning)
        if credentials.token:
            session.auth = _BearerAuth(credentials.token)
        elif credentials.user:
            session.auth = HTTPBasicAuth(credentials.user.encode(), credentials.password.encode())
        with self._convert_errors():
            self._client = DICOMwebClient(address, session, timeout=CONNECT_AND_READ_TIMEOUT_S)
        self._client.set_http_retry_params(retry=False)

    def search(self, level: str, attributes: Mapping[str, str]) -> list[Dataset]:
        """Search by QIDO-RS; parameters and errors as in ``DimsePacs.search``.

        A service may send a list in parts, so it is asked until it has nothing new.

        Raises
        ------
        ConfigurationError
            If the service is not reachable or refuses, or states that it has more answers and does not send them.
        """
        answers: dict[str, Dataset] = {}
        received, has_more = 0, False
        while part := self._search_part(level, attributes, received):
            new = {get_answer_text(one, UID_KEYWORDS[level]): one for one in part}
            if new.keys() <= answers.keys():
                break
            answers |= new
            received, has_more = received + len(part), self._has_more_answers
        if has_more:
            raise ConfigurationError(message("pacs-list-cut", pacs=self.name, count=len(answers)))
        return list(answers.values())

    def _search_part(self, level: str, attributes: Mapping[str, str], offset: int) -> list[Dataset]:
        """Search for the answers from an offset on; none where a service knows no offset."""
        parents = PARENT_KEYWORDS[level]
        search: Any = {
            "STUDY": self._client.search_for_studies,
            "SERIES": self._client.search_for_series,
            "IMAGE": self._client.search_for_instances,
        }[level]
        filters = {
            keyword: value for keyword, value in attributes.items() if value and keyword not in parents
        }
        with self._convert_errors():
            try:
                found = search(
                    *(attributes[keyword] for keyword in parents),
                    fields=[keyword for keyword, value in attributes.items() if not value],
                    search_filters=filters,
                    offset=offset or None,
                )
            except requests.HTTPError as error:
                if offset and _get_status(error) in REFUSALS_OF_AN_OFFSET:
                    return []
                raise
            return [Dataset.from_json(one) for one in found]

    def _read_warning(self, response: requests.Response, *_: object, **__: object) -> None:
        """Remember whether the service has more answers than it sent (DICOM PS3.18, 8.3.4.4)."""
        self._has_more_answers = response.headers.get("Warning", "").startswith("299")

    def fetch_series(self, study_uid: str, series_uid: str, images: ReceivedImages) -> None:
        """Fetch the images of a series by WADO-RS, in the transfer syntax in which they are stored.

        Raises
        ------
        ConfigurationError
            If the service is not reachable or refuses.
        FileWriteError
            If an image cannot be written.
        """
        with self._convert_errors():
            received = self._client.iter_series(study_uid, series_uid, STORED_TRANSFER_SYNTAX)
        while True:
            with self._convert_errors():
                if (dataset := next(received, None)) is None:
                    return
                content = BytesIO()
                dcmwrite(content, dataset, enforce_file_format=True)
            images.add(content.getvalue())

    @contextmanager
    def _convert_errors(self) -> Iterator[None]:
        """Convert the errors of requests, dicomweb-client and pydicom to a ConfigurationError."""
        try:
            with warnings.catch_warnings():
                # about unusual values and servers that omit the multipart wrapping
                warnings.simplefilter("ignore")
                yield
        except requests.RequestException as error:
            raise ConfigurationError(self._describe_error(error)) from None
        except (ValueError, TypeError, LookupError, AttributeError, OSError, InvalidDicomError) as error:
            raise ConfigurationError(
                message("pacs-no-dicomweb", pacs=self.name, reason=type(error).__name__)
            ) from None

    def _describe_error(self, error: requests.RequestException) -> Message:
        status = _get_status(error)
        if status in (401, 403):
            return message("pacs-unauthorised", pacs=self.name, status=status)
        if status == 404:
            return message("pacs-no-dicomweb", pacs=self.name, reason="404")
        if status:
            return message("pacs-web-status", pacs=self.name, status=status)
        if isinstance(error, requests.exceptions.SSLError):
            is_certificate_refused = "CERTIFICATE_VERIFY_FAILED" in str(error)
            return message("pacs-certificate" if is_certificate_refused else "pacs-tls", pacs=self.name)
        if isinstance(error, requests.Timeout):
            return message("pacs-unreachable", pacs=self.name, reason="timed out")
        if isinstance(error, requests.ConnectionError):
            return message("pacs-unreachable", pacs=self.name, reason="no connection")
        return message("pacs-no-dicomweb", pacs=self.name, reason=type(error).__name__)


def _get_status(error: requests.RequestException) -> int:
    """Return the status of the service's answer; 0 if there was none."""
    return error.response.status_code if error.response is not None else 0
