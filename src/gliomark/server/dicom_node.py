"""gliomark as a DICOM node: received studies are predicted and the results sent to the destinations.

The node answers C-ECHO and C-STORE (pynetdicom); age and sex are read from the headers. The segmentation, structured
report and PDF are sent to every destination by C-STORE or STOW-RS. A failed delivery is retried; its outcome is
recorded in the audit log.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    Verification,
)
from sqlalchemy.exc import SQLAlchemyError

from gliomark.errors import DATA_ERRORS, ConfigurationError, GliomarkError
from gliomark.files import has_free_space, is_disk_full_error
from gliomark.io.dicom import (
    DECODABLE_TRANSFER_SYNTAXES,
    is_frame_count_plausible,
    read_header_start,
)
from gliomark.isolation import ReaderProcessError
from gliomark.messages import message
from gliomark.pacs import (
    DimseAddress,
    check_ae_title,
    is_loopback,
    parse_address,
)
from gliomark.reporting import Language
from gliomark.server.associations import AssociationLimits, BoundedAssociationServer, BoundedDimseProvider
from gliomark.server.audit_writer import Refusal
from gliomark.server.commitments import CommitmentRequests
from gliomark.server.database import DICOM_NODE_CALLER, DeliveryRow, JobRow
from gliomark.server.dependencies import FollowUp, Server
from gliomark.server.destinations import (
    STATUS_SUCCESS,
    get_destination_name,
    send_results,
)
from gliomark.server.dicom_results import load_or_create_dicom_results, load_or_create_structure_set
from gliomark.server.study_import import create_prediction_request
from gliomark.server.study_store import write_file

LOG = logging.getLogger("gliomark.server.dicom")
STATUS_OUT_OF_RESOURCES, STATUS_CANNOT_UNDERSTAND = 0xA700, 0xC000
MAX_DELIVERY_ATTEMPTS, FIRST_RETRY_PAUSE_S, MAX_RETRY_PAUSE_S = 30, 5.0, 3600.0  # in total about a day
DELIVERY_LEASE_S = 600.0
POLL_INTERVAL_S = 0.3
INCOMPLETE_STUDY_TEXT = (
    "{count} images could not be stored; free disk space on the server and send the study again."
)
MAX_HEADER_BYTES = 1 << 20  # bytes read in order to identify an image
LAST_HEADER_GROUP = 0x0028
MAX_READ_ATTEMPTS = 2  # of a study during which the server itself ended


@dataclass(frozen=True)
class DicomNodeConfig:
    """Configuration of the DICOM node.

    Attributes
    ----------
    port
        Port to listen on; 0 for a free one.
    host
        Address to listen on.
    ae_title
        The node's own AE title.
    allowed_ae_titles
        Calling AE titles that may send studies; empty for all.
    destinations
        ``AET@host:port`` or the address of a DICOMweb service.
    quiet_period_s
        A study is complete when no image has arrived for so long and its senders have released their associations.
    open_association_quiet_period_s
        The same while an association of a sender is still open.
    language
        Language of the reports.
    association_limits
        Limits of the listener.
    sends_comprehensive_sr
        Send the structured report as Comprehensive SR at once, not only where Comprehensive 3D SR is refused.
    sends_rtstruct
        Also send the lesion's outline as structure set.
    commitment_wait_s
        Ask archives to commit to keep what was sent by C-STORE, and wait so long for their report; None: do not ask.
    """

    port: int
    host: str = "127.0.0.1"
    ae_title: str = "GLIOMARK"
    allowed_ae_titles: tuple[str, ...] = ()
    destinations: tuple[str, ...] = ()
    quiet_period_s: float = 10.0
    open_association_quiet_period_s: float = 120.0
    language: Language = "en"
    association_limits: AssociationLimits = AssociationLimits()
    sends_comprehensive_sr: bool = False
    sends_rtstruct: bool = False
    commitment_wait_s: float | None = None


class PendingStudy:
    """A study that is being received.

    Attributes
    ----------
    open_associations
        Open associations that have sent images of this study.
    image_bytes
        Size of each image by its hashed UID.
    total_bytes
        Size of all images.
    missing_images
        Images refused because the disk was full or a limit was reached.
    """

    def __init__(self) -> None:
        self.open_associations: set[Association] = set()
        self.image_bytes: dict[str, int] = {}
        self.total_bytes = 0
        self.missing_images: set[str] = set()
        self._last_received_at = time.monotonic()

    def add_image(self, image_name: str, byte_count: int) -> PendingStudy:
        """Add an image, or replace one that was sent before, and return this study."""
        self.total_bytes += byte_count - self.image_bytes.get(image_name, 0)
        self.image_bytes[image_name] = byte_count
        return self

    def record_sender(self, association: Association) -> None:
        """Record that an image of this study arrived over an association."""
        self.open_associations.add(association)
        self._last_received_at = time.monotonic()

    @property
    def silent_s(self) -> float:
        """Seconds since the last image."""
        return time.monotonic() - self._last_received_at


class DicomNode:
    """The DICOM listener and the thread that processes complete studies and deliveries."""

    def __init__(self, server: Server, config: DicomNodeConfig) -> None:
        self.server, self.config = server, config
        for text in config.destinations:
            parse_address(text)
        for title in (config.ae_title, *config.allowed_ae_titles):
            check_ae_title(title)
        self.incoming_folder = server.store.data_folder / "incoming"
        self.receiving_folder = server.store.data_folder / "arriving"
        self._pending_studies: dict[str, PendingStudy] = {}
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run_loop, daemon=True)
        self.port = config.port
        self.commitments = CommitmentRequests(server.database, config.ae_title)

    def start(self) -> None:
        """Start listening; studies received before a restart are continued.

        Raises
        ------
        ConfigurationError
            If the port cannot be opened, or is reachable from other machines without a list of allowed AE titles.
        """
        if not is_loopback(self.config.host) and not self.config.allowed_ae_titles:
            raise ConfigurationError(message("node-open", host=self.config.host))
        entity = AE(self.config.ae_title)
        entity.require_calling_aet = list(self.config.allowed_ae_titles)
        entity.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(str(context.abstract_syntax), list(DECODABLE_TRANSFER_SYNTAXES))
        if self.config.commitment_wait_s is not None:  # archives report over associations of their own
            entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        limits = self.config.association_limits
        entity.maximum_associations = (
            2 * limits.max_associations
        )  # more than there are slots: associations that are ending still count
        entity.acse_timeout, entity.dimse_timeout = limits.pdu_timeout_s, limits.pdu_timeout_s
        entity.network_timeout = limits.network_timeout_s
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._handle_c_store),
            (evt.EVT_CONN_CLOSE, self._handle_connection_closed),
            (evt.EVT_REJECTED, self._handle_association_rejected),
            (evt.EVT_N_EVENT_REPORT, self.commitments.handle_report),
        ]
        shutil.rmtree(self.receiving_folder, ignore_errors=True)  # unfinished objects of a previous run
        self.receiving_folder.mkdir(parents=True)
        address = (self.config.host, self.config.port)
        try:
            listener = entity.make_server(
                address,
                evt_handlers=handlers,
                server_class=BoundedAssociationServer,
                limits=limits,
                folder=self.receiving_folder,
            )
        except OSError as error:
            raise ConfigurationError(
                message("node-port", port=self.config.port, reason=str(error.strerror or error))
            ) from None
        self._listener, self.port = listener, listener.server_address[1]
        entity._servers.append(listener)  # as AE.start_server() does
        threading.Thread(target=listener.serve_forever, args=(0.1,), daemon=True).start()
        # continue studies whose transfer or import was interrupted by the end of a previous run
        for folder in self.incoming_folder.with_name("taken").glob("*"):
            self._return_to_incoming(folder)
        self._pending_studies |= {
            folder.name: _add_folder_images(folder, PendingStudy())
            for folder in self.incoming_folder.glob("*")
            if folder.is_dir()
        }
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and processing."""
        self._stopping.set()
        self._listener.shutdown()
        self._thread.join(timeout=10)

    def _handle_c_store(self, event: evt.Event) -> int:
        """Handle C-STORE: move the image, already on disk, to its study.

        File names are hashes of the UIDs, so that a sender cannot choose a path.
        """
        received_file: Any = event.request._dataset_file
        received_file.close()
        if not received_file.name or not has_free_space(
            self.receiving_folder, self.config.association_limits.min_free_disk_bytes
        ):
            return self._refuse_image(event)
        try:
            header, pixel_bytes = read_image_header(Path(received_file.name))
            if not is_frame_count_plausible(header, pixel_bytes):
                return STATUS_CANNOT_UNDERSTAND
            study_name, image_name = (
                _hash_uid(str(header[keyword].value)) for keyword in ("StudyInstanceUID", "SOPInstanceUID")
            )
        except (KeyError, AttributeError, *DATA_ERRORS):
            return STATUS_CANNOT_UNDERSTAND
        try:
            with self._lock:
                pending_study = self._pending_studies.get(study_name, PendingStudy())
                if not self._has_capacity(
                    study_name, pending_study.add_image(image_name, Path(received_file.name).stat().st_size)
                ):
                    return self._refuse_image(event)
                self._pending_studies[study_name] = pending_study
                pending_study.missing_images.discard(image_name)
                pending_study.record_sender(event.assoc)
                folder = self.incoming_folder / study_name
                folder.mkdir(parents=True, exist_ok=True)
                Path(received_file.name).replace(folder / f"{image_name}.dcm")
        except OSError:
            return self._refuse_image(event)
        return STATUS_SUCCESS

    def _refuse_image(self, event: evt.Event) -> int:
        """Refuse an image for lack of space; the studies of its sender are then incomplete."""
        image_name = _hash_uid(str(getattr(event.request, "AffectedSOPInstanceUID", "")))
        for pending_study in list(self._pending_studies.values()):
            if event.assoc in pending_study.open_associations:
                pending_study.missing_images.add(image_name)
        return STATUS_OUT_OF_RESOURCES

    def _has_capacity(self, study_name: str, pending_study: PendingStudy) -> bool:
        limits = self.config.association_limits
        is_study_allowed = (
            study_name in self._pending_studies or len(self._pending_studies) < limits.max_pending_studies
        )
        return (
            is_study_allowed
            and len(pending_study.image_bytes) <= limits.max_images_per_study
            and pending_study.total_bytes <= limits.max_study_bytes
        )

    def _handle_connection_closed(self, event: evt.Event) -> None:
        if isinstance(event.assoc.dimse, BoundedDimseProvider):
            event.assoc.dimse.discard_unfinished_files()
        with self._lock:
            for pending_study in self._pending_studies.values():
                pending_study.open_associations.discard(event.assoc)

    def _handle_association_rejected(self, event: evt.Event) -> None:
        """Record a rejected association with the calling AE title."""
        caller = event.assoc.requestor
        unknown = self.config.allowed_ae_titles and caller.ae_title not in self.config.allowed_ae_titles
        reason = "calling AE title not allowed" if unknown else "association rejected"
        refusal = Refusal(
            "DICOM association refused", caller.address, reason, DICOM_NODE_CALLER, caller.ae_title
        )
        self.server.audit_writer.record_refusal(refusal)

    def _run_loop(self) -> None:
        while not self._stopping.wait(POLL_INTERVAL_S):
            try:
                # the choice of the examination depends on the model's sequences
                if (
                    self.server.worker_pool.model_descriptions
                    and (folder := self._take_complete_study()) is not None
                ):
                    self._request_prediction(folder)
                # one delivery per cycle: an unreachable archive must not delay new studies
                if claimed := self.server.database.claim_next_delivery(DELIVERY_LEASE_S):
                    self._attempt_delivery(*claimed)
                self.commitments.end_overdue()
            except Exception as error:  # the thread must survive any error
                LOG.error("DICOM node continues after %s", type(error).__name__)

    def _take_complete_study(self) -> Path | None:
        """Move a study that is complete (no image for the quiet period) out of the incoming folder and return it."""
        with self._lock:
            for study_name, pending_study in list(self._pending_studies.items()):
                is_incomplete = pending_study.open_associations or pending_study.missing_images
                if pending_study.silent_s > (
                    self.config.open_association_quiet_period_s
                    if is_incomplete
                    else self.config.quiet_period_s
                ):
                    del self._pending_studies[study_name]
                    taken_folder = (
                        self.incoming_folder.with_name("taken") / f"{study_name}-{uuid.uuid4().hex[:8]}"
                    )
                    taken_folder.parent.mkdir(exist_ok=True)
                    (self.incoming_folder / study_name).rename(taken_folder)
                    if not pending_study.missing_images:
                        return taken_folder
                    shutil.rmtree(taken_folder)
                    self._record_event(
                        "pushed study failed",
                        taken_folder.name,
                        INCOMPLETE_STUDY_TEXT.format(count=len(pending_study.missing_images)),
                    )
        return None

    def _request_prediction(self, folder: Path) -> None:
        """Record the study, its prediction and the deliveries in one transaction."""
        server = self.server
        try:
            self._record_attempt(folder)
            server.admit_study(
                folder,
                next(iter(server.model_files)),
                DICOM_NODE_CALLER,
                follow_up=FollowUp(create_prediction_request, self.config.destinations),
            )
        except ReaderProcessError as error:
            self._quarantine_study(folder, str(error))
        except (GliomarkError, SQLAlchemyError, *DATA_ERRORS) as error:
            if isinstance(error, SQLAlchemyError) or is_disk_full_error(error):
                LOG.error("received study waits for the database or the disk: %s", type(error).__name__)
                self._return_to_incoming(folder)
            else:
                reason = str(error) if isinstance(error, GliomarkError) else type(error).__name__
                self._record_event("pushed study failed", folder.name, reason)
        self._get_attempts_path(folder).unlink(missing_ok=True)
        server.worker_pool.notify_new_job()

    def _get_attempts_path(self, folder: Path) -> Path:
        """Return the file that counts the attempts to read a study; it outlasts restarts of the server."""
        study_name = folder.name.rsplit("-", 1)[0]
        return self.incoming_folder.with_name("tries") / study_name

    def _record_attempt(self, folder: Path) -> None:
        """Count an attempt to read a study.

        Raises
        ------
        ReaderProcessError
            If the server ended during each of the previous attempts.
        """
        file = self._get_attempts_path(folder)
        file.parent.mkdir(exist_ok=True)
        attempts = file.stat().st_size if file.exists() else 0
        if attempts >= MAX_READ_ATTEMPTS:
            raise ReaderProcessError(message("reading-ended-server", tries=attempts))
        write_file(file, b"." * (attempts + 1))

    def _quarantine_study(self, folder: Path, reason: str) -> None:
        """Move a study to a folder that is never read again, with the reason beside it."""
        quarantine_folder = self.server.store.data_folder / "set-aside" / folder.name
        quarantine_folder.parent.mkdir(exist_ok=True)
        folder.rename(quarantine_folder)
        write_file(quarantine_folder.with_suffix(".txt"), f"{reason}\n".encode())
        self._record_event("pushed study set aside", folder.name, reason)

    def _return_to_incoming(self, folder: Path) -> None:
        """Return a taken study to the incoming folder, where images may have arrived since."""
        study_name = folder.name.rsplit("-", 1)[0]
        incoming_folder = self.incoming_folder / study_name
        with self._lock:
            incoming_folder.mkdir(parents=True, exist_ok=True)
            for image in folder.glob("*.dcm"):
                image.replace(incoming_folder / image.name)
            shutil.rmtree(folder)
            self._pending_studies[study_name] = _add_folder_images(
                incoming_folder, self._pending_studies.get(study_name) or PendingStudy()
            )

    def _attempt_delivery(self, delivery: DeliveryRow, job: JobRow) -> None:
        """Try once to send; a failed or cancelled prediction has no results."""
        is_predicted, destination = job.state == "done", delivery.destination
        reason = (
            self._send_results(job, destination)
            if is_predicted
            else job.error or f"The prediction was {job.state}."
        )
        if reason and is_predicted and delivery.tries < MAX_DELIVERY_ATTEMPTS:
            pause = min(FIRST_RETRY_PAUSE_S * 2**delivery.tries, MAX_RETRY_PAUSE_S)
            self.server.database.update_delivery(delivery.id, "owed", pause)
            return
        self.server.database.update_delivery(delivery.id, "given up" if reason else "sent")
        self._record_event(
            "results not sent" if reason else "results sent",
            job.id,
            reason,
            to=get_destination_name(destination),
        )

    def _send_results(self, job: JobRow, destination: str) -> str:
        """Send the results of a prediction; return the reason of a failure or an empty string."""
        try:
            address = parse_address(destination)
            outcome = send_results(
                self._load_results(job),
                address,
                self.config.ae_title,
                sends_comprehensive_sr=self.config.sends_comprehensive_sr,
            )
            wait_s = self.config.commitment_wait_s
            if outcome.stored and isinstance(address, DimseAddress) and wait_s is not None:
                self.commitments.start(job.id, outcome.stored, address, wait_s)
            return outcome.reason
        except GliomarkError as error:
            return str(error)
        except Exception as error:  # one archive must not block deliveries to the others
            return type(error).__name__

    def _load_results(self, job: JobRow) -> list[Dataset]:
        """Load the objects to send, or create them."""
        store, reader_pool = self.server.store, self.server.reader_pool
        results = load_or_create_dicom_results(store, job, self.config.language, reader_pool)
        outline = (
            load_or_create_structure_set(store, job, reader_pool) if self.config.sends_rtstruct else None
        )
        return [*results.values(), *([] if outline is None else [outline])]

    def _record_event(self, action: str, subject: str, reason: str = "", **detail: Any) -> None:
        self.server.database.add_audit_entry(
            DICOM_NODE_CALLER, action, subject, **detail | ({"reason": reason} if reason else {})
        )
        LOG.info("%s: %s", action, subject)


def _add_folder_images(folder: Path, pending_study: PendingStudy) -> PendingStudy:
    """Add the images in a folder to a pending study."""
    for image in folder.glob("*.dcm"):
        pending_study.add_image(image.stem, image.stat().st_size)
    return pending_study


def read_image_header(file: Path) -> tuple[Dataset, int]:
    """Read the header of an image, up to the image attributes.

    Only the first MiB is read, and inflated if it is deflated, so that an oversized header cannot occupy the reader.

    Returns
    -------
    tuple[Dataset, int]
        The header, and the number of bytes after it. Errors of pydicom are passed on.
    """
    return read_header_start(file, MAX_HEADER_BYTES, lambda tag, *_: tag.group > LAST_HEADER_GROUP)


def _hash_uid(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:32]
