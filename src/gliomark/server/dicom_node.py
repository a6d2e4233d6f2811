"""gliomark as a DICOM node: a study that is pushed here and has stopped arriving is predicted, its results sent on.

C-ECHO and C-STORE are answered (pynetdicom); age and sex come from the headers. Segmentation, structured report and
PDF go to every destination by C-STORE or STOW-RS; one that cannot be reached is tried again, and told in the log.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import threading
import time
import uuid
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.filereader import read_partial
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from sqlalchemy.exc import SQLAlchemyError

from gliomark.files import has_free_space, is_disk_full_error
from gliomark.io.dicom import is_frame_count_plausible
from gliomark.isolation import ReaderProcessError
from gliomark.messages import message
from gliomark.reporting import Language
from gliomark.server.associations import AssociationLimits, BoundedAssociationServer, BoundedDimseProvider
from gliomark.server.audit_writer import Refusal
from gliomark.server.context import FollowUp, Server
from gliomark.server.destinations import (
    STATUS_SUCCESS,
    UNCOMPRESSED_TRANSFER_SYNTAXES,
    check_ae_title,
    get_destination_name,
    parse_destination,
    send_results,
)
from gliomark.server.intake import create_prediction_request
from gliomark.server.records import DeliveryRow, JobRow
from gliomark.server.results import load_or_create_dicom_results
from gliomark.server.security import is_loopback
from gliomark.server.store import write_file
from gliomark.study import DATA_ERRORS, GliomarkError

LOG = logging.getLogger("gliomark.server.dicom")
STATUS_OUT_OF_RESOURCES, STATUS_CANNOT_UNDERSTAND = 0xA700, 0xC000
SUPPORTED_TRANSFER_SYNTAXES = (
    *UNCOMPRESSED_TRANSFER_SYNTAXES,
    "1.2.840.10008.1.2.4.70",  # JPEG lossless
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.5",  # run length
)
DICOM_NODE_CALLER = "DICOM node"
MAX_DELIVERY_ATTEMPTS, FIRST_RETRY_PAUSE_S, MAX_RETRY_PAUSE_S = 30, 5.0, 3600.0  # for about a day
DELIVERY_LEASE_S = 600.0
POLL_INTERVAL_S = 0.3
INCOMPLETE_STUDY_TEXT = (
    "There was no room for {count} of its images; make room on the server's disk and send the study again."
)
MAX_HEADER_BYTES = 1 << 20  # bytes before the groups that say what an image is are over
LAST_HEADER_GROUP = 0x0028
MAX_READ_ATTEMPTS = 2  # that a study may have, should reading it end the server itself


@dataclass(frozen=True)
class DicomNodeConfig:
    """Where to listen, whom to answer and whom to send results.

    peers: calling AE titles that may push, anybody where empty; destinations: ``AET@host:port`` or the address of a
    DICOMweb service; quiet_s: a study is whole once nothing came for so long and who sent it has hung up, busy_s: or
    has sent nothing for so long; limits: of what may come in.
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


class PendingStudy:
    """A study some of whose images have come. senders: the associations they came over that are still open; images:
    bytes by name; lacking: what there was no room for."""

    def __init__(self) -> None:
        self.open_associations: set[Association] = set()
        self.image_bytes: dict[str, int] = {}
        self.total_bytes = 0
        self.missing_images: set[str] = set()
        self._last_received_at = time.monotonic()

    def add_image(self, image_name: str, byte_count: int) -> PendingStudy:
        """An image more, or one that came before."""
        self.total_bytes += byte_count - self.image_bytes.get(image_name, 0)
        self.image_bytes[image_name] = byte_count
        return self

    def record_sender(self, association: Association) -> None:
        """An image came."""
        self.open_associations.add(association)
        self._last_received_at = time.monotonic()

    @property
    def silent_s(self) -> float:
        return time.monotonic() - self._last_received_at


class DicomNode:
    """The listener and the thread that sees whole studies through. Started by ``start``, ended by ``stop``."""

    def __init__(self, server: Server, config: DicomNodeConfig) -> None:
        self.server, self.config = server, config
        for text in config.destinations:
            parse_destination(text)
        for title in (config.ae_title, *config.allowed_ae_titles):
            check_ae_title(title)
        self.incoming_folder = server.store.data_folder / "incoming"
        self.receiving_folder = server.store.data_folder / "arriving"
        self._pending_studies: dict[str, PendingStudy] = {}
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run_loop, daemon=True)
        self.port = config.port

    def start(self) -> None:
        """Raises GliomarkError where the port cannot be opened, or would be open to anybody in the network."""
        if not is_loopback(self.config.host) and not self.config.allowed_ae_titles:
            raise GliomarkError(message("node-open", host=self.config.host))
        entity = AE(self.config.ae_title)
        entity.require_calling_aet = list(self.config.allowed_ae_titles)
        entity.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(str(context.abstract_syntax), list(SUPPORTED_TRANSFER_SYNTAXES))
        limits = self.config.association_limits
        entity.maximum_associations = (
            2 * limits.max_associations
        )  # more than there are places; those that end need a moment
        entity.acse_timeout, entity.dimse_timeout = limits.pdu_timeout_s, limits.pdu_timeout_s
        entity.network_timeout = limits.network_timeout_s
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._handle_c_store),
            (evt.EVT_CONN_CLOSE, self._handle_connection_closed),
        ]
        handlers.append((evt.EVT_REJECTED, self._handle_association_rejected))
        shutil.rmtree(self.receiving_folder, ignore_errors=True)  # what was on its way when a server ended
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
            raise GliomarkError(
                message("node-port", port=self.config.port, reason=str(error.strerror or error))
            ) from None
        self._listener, self.port = listener, listener.server_address[1]
        entity._servers.append(listener)  # as AE.start_server does
        threading.Thread(target=listener.serve_forever, args=(0.1,), daemon=True).start()
        # what came before a restart is taken up, also what had been taken and was not seen through
        for folder in self.incoming_folder.with_name("taken").glob("*"):
            self._return_to_incoming(folder)
        self._pending_studies |= {
            folder.name: _add_folder_images(folder, PendingStudy())
            for folder in self.incoming_folder.glob("*")
            if folder.is_dir()
        }
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._listener.shutdown()
        self._thread.join(timeout=10)

    def _handle_c_store(self, event: evt.Event) -> int:
        """One image, already on disk; names are hashes, so that no sender chooses a path."""
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
        """For want of room. The studies that its sender is sending are not whole without it."""
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
        """An association that was refused is recorded, with the title that its caller gave."""
        caller = event.assoc.requestor
        unknown = self.config.allowed_ae_titles and caller.ae_title not in self.config.allowed_ae_titles
        reason = "calling title not among the peers" if unknown else "association not taken"
        refusal = Refusal(
            "DICOM association refused", caller.address, reason, DICOM_NODE_CALLER, caller.ae_title
        )
        self.server.audit_writer.record_refusal(refusal)

    def _run_loop(self) -> None:
        while not self._stopping.wait(POLL_INTERVAL_S):
            try:
                # which examination is read depends on what the model takes
                if (
                    self.server.worker_pool.model_descriptions
                    and (folder := self._take_complete_study()) is not None
                ):
                    self._request_prediction(folder)
                # one at a time: an archive that does not answer must not keep studies waiting
                if claimed := self.server.database.claim_next_delivery(DELIVERY_LEASE_S):
                    self._attempt_delivery(*claimed)
            except Exception as error:  # whatever it was, this thread must not end
                LOG.error("the DICOM node goes on after %s", type(error).__name__)

    def _take_complete_study(self) -> Path | None:
        """A study that has stopped arriving, moved out of the way of what may still come."""
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
        """Record it with the prediction to be made and the archives that are owed its results, all or nothing."""
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
                LOG.error("a pushed study waits for the database or the disk: %s", type(error).__name__)
                self._return_to_incoming(folder)
            else:
                reason = str(error) if isinstance(error, GliomarkError) else type(error).__name__
                self._record_event("pushed study failed", folder.name, reason)
        self._get_attempts_path(folder).unlink(missing_ok=True)
        server.worker_pool.notify_new_job()

    def _get_attempts_path(self, folder: Path) -> Path:
        """The file that counts how often a study was begun to be read, through restarts of the server."""
        study_name = folder.name.rsplit("-", 1)[0]
        return self.incoming_folder.with_name("tries") / study_name

    def _record_attempt(self, folder: Path) -> None:
        """Raises ReadingEndedError for a study whose reading has ended the server before, and again."""
        file = self._get_attempts_path(folder)
        file.parent.mkdir(exist_ok=True)
        attempts = file.stat().st_size if file.exists() else 0
        if attempts >= MAX_READ_ATTEMPTS:
            raise ReaderProcessError(message("reading-ended-server", tries=attempts))
        write_file(file, b"." * (attempts + 1))

    def _quarantine_study(self, folder: Path, reason: str) -> None:
        """Its files are kept, with the reason beside them, where nothing reads them again."""
        quarantine_folder = self.server.store.data_folder / "set-aside" / folder.name
        quarantine_folder.parent.mkdir(exist_ok=True)
        folder.rename(quarantine_folder)
        write_file(quarantine_folder.with_suffix(".txt"), f"{reason}\n".encode())
        self._record_event("pushed study set aside", folder.name, reason)

    def _return_to_incoming(self, folder: Path) -> None:
        """What had been taken arrives once more, beside what has come since."""
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
        """One try; a prediction that came to nothing has nothing to send."""
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
        """Why not, in words, or nothing."""
        try:
            results = load_or_create_dicom_results(
                self.server.store, job, self.config.language, self.server.reader_pool
            )
            return send_results(list(results.values()), parse_destination(destination), self.config.ae_title)
        except GliomarkError as error:
            return str(error)
        except Exception as error:  # whatever an archive answers, the others are owed theirs
            return type(error).__name__

    def _record_event(self, action: str, subject: str, reason: str = "", **detail: Any) -> None:
        self.server.database.add_audit_entry(
            DICOM_NODE_CALLER, action, subject, **detail | ({"reason": reason} if reason else {})
        )
        LOG.info("%s: %s", action, subject)


def _add_folder_images(folder: Path, pending_study: PendingStudy) -> PendingStudy:
    """With the images that lie in the folder."""
    for image in folder.glob("*.dcm"):
        pending_study.add_image(image.stem, image.stat().st_size)
    return pending_study


def read_image_header(file: Path) -> tuple[Dataset, int]:
    """What says whose image it is and how large, and the bytes behind it. Of a header made to keep a reader busy only
    the beginning is read. Raises what pydicom does for what is no object."""
    with file.open("rb") as image_file:
        start = BytesIO(image_file.read(MAX_HEADER_BYTES))
    header = read_partial(start, stop_when=lambda tag, *_: tag.group > LAST_HEADER_GROUP)
    return header, file.stat().st_size - start.tell()


def _hash_uid(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:32]
