"""Query a PACS by C-FIND, and receive images by C-GET, or by C-MOVE if it has no C-GET."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext, build_context, build_role
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from gliomark.errors import ConfigurationError
from gliomark.io.dicom import DECODABLE_TRANSFER_SYNTAXES
from gliomark.messages import Message, message
from gliomark.pacs.address import DimseAddress
from gliomark.pacs.received_images import FETCHED_SOP_CLASSES, ReceivedImages

STATUS_SUCCESS, STATUS_SOME_FAILED = 0x0000, 0xB000
STATUS_PENDING = (0xFF00, 0xFF01)
STATUS_DESTINATION_UNKNOWN, STATUS_OUT_OF_RESOURCES, STATUS_CANNOT_UNDERSTAND = 0xA801, 0xA700, 0xC000
CONNECTION_TIMEOUT_S, RESPONSE_TIMEOUT_S = 10.0, 120.0
ALL_INTERFACES = ""
Responses = Iterator[tuple[Dataset, Dataset | None]]


@dataclass(frozen=True)
class DimsePacs:
    """A PACS reached by DIMSE.

    Attributes
    ----------
    address
        Its address.
    own_ae_title
        The calling AE title, and the destination of C-MOVE.
    receive_port
        Port at which images sent by C-MOVE are received; None: C-GET only.
    """

    address: DimseAddress
    own_ae_title: str
    receive_port: int | None = None

    @property
    def name(self) -> str:
        """The address, for messages."""
        return str(self.address)

    def search(self, level: str, attributes: Mapping[str, str]) -> list[Dataset]:
        """Search by C-FIND.

        Parameters
        ----------
        level
            ``STUDY``, ``SERIES`` or ``IMAGE``.
        attributes
            Values to match by keyword; blank: to be returned.

        Raises
        ------
        ConfigurationError
            If the PACS is not reachable, or refuses the association or the query.
        """
        found: list[Dataset] = []
        with self._associate([build_context(StudyRootQueryRetrieveInformationModelFind)]) as association:
            responses = association.send_c_find(
                _create_identifier(level, attributes), StudyRootQueryRetrieveInformationModelFind
            )
            for status, answer in self._check_responses(responses):
                if status in STATUS_PENDING:
                    # undecodable: a blank answer, which is noticed, is better than one study or image less
                    found.append(Dataset() if answer is None else answer)
        return found

    def fetch_series(self, study_uid: str, series_uid: str, images: ReceivedImages) -> None:
        """Receive the images of a series.

        Raises
        ------
        ConfigurationError
            If the PACS refuses, or has no C-GET and there is no port for C-MOVE.
        OSError
            If an image cannot be written.
        """
        series = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid}
        identifier = _create_identifier("SERIES", series)
        storage = _StorageHandler(images)
        contexts = [
            # so that an archive without C-GET accepts the association too
            build_context(StudyRootQueryRetrieveInformationModelFind),
            build_context(StudyRootQueryRetrieveInformationModelGet),
            # one each: of several transfer syntaxes in one context the archive would choose one for all images
            *(
                build_context(uid, syntax)
                for uid in FETCHED_SOP_CLASSES
                for syntax in DECODABLE_TRANSFER_SYNTAXES
            ),
        ]
        roles = [build_role(uid, scp_role=True) for uid in FETCHED_SOP_CLASSES]
        try:
            with self._associate(contexts, roles, storage.event_handlers) as association:
                has_get = StudyRootQueryRetrieveInformationModelGet in {
                    context.abstract_syntax for context in association.accepted_contexts
                }
                if has_get:
                    responses = association.send_c_get(identifier, StudyRootQueryRetrieveInformationModelGet)
                    list(self._check_responses(responses))
            if not has_get:
                self._move_series(identifier, storage)
        finally:
            storage.raise_error()  # a full disk is also why the PACS reports a failure

    def _move_series(self, identifier: Dataset, storage: _StorageHandler) -> None:
        """Let the PACS send a series to a listener of our own, by C-MOVE."""
        if self.receive_port is None:
            raise ConfigurationError(message("pacs-no-get", pacs=self.name, title=self.own_ae_title))
        entity = AE(self.own_ae_title)
        entity.require_called_aet = True
        for uid in FETCHED_SOP_CLASSES:
            entity.add_supported_context(uid, list(DECODABLE_TRANSFER_SYNTAXES))
        try:
            listener = entity.start_server(
                (ALL_INTERFACES, self.receive_port), block=False, evt_handlers=storage.event_handlers
            )
        except OSError as error:
            reason = str(error.strerror or error)
            raise ConfigurationError(
                message("pacs-receive-port", port=self.receive_port, reason=reason)
            ) from None
        assert listener is not None  # None only of a blocking server
        try:
            with self._associate([build_context(StudyRootQueryRetrieveInformationModelMove)]) as association:
                responses = association.send_c_move(
                    identifier, self.own_ae_title, StudyRootQueryRetrieveInformationModelMove
                )
                list(self._check_responses(responses))
        finally:
            listener.shutdown()

    @contextmanager
    def _associate(
        self,
        contexts: list[PresentationContext],
        roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
        event_handlers: Sequence[Any] = (),
    ) -> Iterator[Association]:
        address = self.address
        try:  # pynetdicom does not tell an unreachable host from an aborted association
            socket.create_connection((address.host, address.port), CONNECTION_TIMEOUT_S).close()
        except (OSError, UnicodeError) as error:
            raise ConfigurationError(_describe_unreachable(self.name, error)) from None
        entity = AE(self.own_ae_title)
        entity.connection_timeout = CONNECTION_TIMEOUT_S
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = RESPONSE_TIMEOUT_S
        association = entity.associate(
            address.host,
            address.port,
            contexts,
            address.ae_title,
            ext_neg=list(roles),
            evt_handlers=list(event_handlers),
        )
        if not association.is_established:
            answer = association.acceptor.primitive
            reason = answer.reason_str if association.is_rejected and answer is not None else "aborted"
            raise ConfigurationError(
                message("pacs-rejected", pacs=self.name, title=self.own_ae_title, reason=reason)
            )
        try:
            yield association
        finally:
            association.release() if association.is_established else association.abort()

    def _check_responses(self, responses: Responses) -> Iterator[tuple[int, Dataset | None]]:
        """Yield the status and the identifier of each response; raise ConfigurationError if the PACS refused."""
        for response, identifier in responses:
            status = response.get("Status")
            if status is None:
                raise ConfigurationError(
                    message("pacs-connection-lost", pacs=self.name, title=self.own_ae_title)
                )
            if status == STATUS_DESTINATION_UNKNOWN:
                raise ConfigurationError(
                    message(
                        "pacs-destination-unknown",
                        pacs=self.name,
                        title=self.own_ae_title,
                        port=self.receive_port,
                    )
                )
            if status not in (*STATUS_PENDING, STATUS_SUCCESS, STATUS_SOME_FAILED):
                raise ConfigurationError(
                    message("pacs-refused", pacs=self.name, title=self.own_ae_title, status=f"{status:04X}")
                )
            yield status, identifier


class _StorageHandler:
    """Stores the images of C-STORE requests; an error of the disk is kept until the transfer has ended."""

    def __init__(self, images: ReceivedImages) -> None:
        self._images = images
        self._error: OSError | None = None

    @property
    def event_handlers(self) -> list[Any]:
        return [(evt.EVT_C_STORE, self._handle_c_store)]

    def raise_error(self) -> None:
        """Raise the error of the disk, if there was one."""
        if self._error is not None:
            raise self._error

    def _handle_c_store(self, event: evt.Event) -> int:
        try:
            is_stored = self._images.add(event.encoded_dataset())
        except OSError as error:
            self._error = self._error or error
            return STATUS_OUT_OF_RESOURCES
        return STATUS_SUCCESS if is_stored else STATUS_CANNOT_UNDERSTAND


def _create_identifier(level: str, attributes: Mapping[str, str]) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    if not all(value.isascii() for value in attributes.values()):
        identifier.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in attributes.items():
        setattr(identifier, keyword, value)
    return identifier


def _describe_unreachable(name: str, error: OSError | UnicodeError) -> Message:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return message("pacs-unreachable", pacs=name, reason=reason)
