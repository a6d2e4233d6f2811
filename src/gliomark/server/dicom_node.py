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

from gliomark.files import has_room, is_disk_full
from gliomark.io.dicom import can_hold_frames
from gliomark.isolation import ReadingEndedError
from gliomark.messages import message
from gliomark.reporting import Language
from gliomark.server.associations import AssociationLimits, BoundedMessages, BoundedServer
from gliomark.server.audit_writer import Refusal
from gliomark.server.context import Server, Then
from gliomark.server.destinations import SUCCESS, UNCOMPRESSED, check_title, parse_destination, send, title_of
from gliomark.server.intake import asked_of
from gliomark.server.records import DeliveryRow, JobRow
from gliomark.server.results import kept_results
from gliomark.server.security import is_loopback
from gliomark.server.store import write
from gliomark.study import UNFORESEEN, GliomarkError

LOG = logging.getLogger("gliomark.server.dicom")
NO_SPACE, NOT_UNDERSTOOD = 0xA700, 0xC000
SYNTAXES = (
    *UNCOMPRESSED,
    "1.2.840.10008.1.2.4.70",  # JPEG lossless
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.5",  # run length
)
WHO = "DICOM node"
TRIES, PAUSE_S, LONGEST_PAUSE_S = 30, 5.0, 3600.0  # for about a day
LEASE_S = 600.0
LOOK_S = 0.3
LACKING = (
    "There was no room for {count} of its images; make room on the server's disk and send the study again."
)
LONGEST_HEADER = 1 << 20  # bytes before the groups that say what an image is are over
LAST_GROUP = 0x0028
TRIES_OF_READING = 2  # that a study may have, should reading it end the server itself


@dataclass(frozen=True)
class Node:
    """Where to listen, whom to answer and whom to send results.

    peers: calling AE titles that may push, anybody where empty; destinations: ``AET@host:port`` or the address of a
    DICOMweb service; quiet_s: a study is whole once nothing came for so long and who sent it has hung up, busy_s: or
    has sent nothing for so long; limits: of what may come in.
    """

    port: int
    host: str = "127.0.0.1"
    title: str = "GLIOMARK"
    peers: tuple[str, ...] = ()
    destinations: tuple[str, ...] = ()
    quiet_s: float = 10.0
    busy_s: float = 120.0
    language: Language = "en"
    limits: AssociationLimits = AssociationLimits()


class Arriving:
    """A study some of whose images have come. senders: the associations they came over that are still open; images:
    bytes by name; lacking: what there was no room for."""

    def __init__(self) -> None:
        self.senders: set[Association] = set()
        self.images: dict[str, int] = {}
        self.bytes = 0
        self.lacking: set[str] = set()
        self._last = time.monotonic()

    def count(self, image: str, size: int) -> Arriving:
        """An image more, or one that came before."""
        self.bytes += size - self.images.get(image, 0)
        self.images[image] = size
        return self

    def by(self, sender: Association) -> None:
        """An image came."""
        self.senders.add(sender)
        self._last = time.monotonic()

    @property
    def silent_s(self) -> float:
        return time.monotonic() - self._last


class DicomNode:
    """The listener and the thread that sees whole studies through. Started by ``start``, ended by ``stop``."""

    def __init__(self, server: Server, node: Node) -> None:
        self.server, self.node = server, node
        for text in node.destinations:
            parse_destination(text)
        for title in (node.title, *node.peers):
            check_title(title)
        self.incoming = server.store.folder / "incoming"
        self.arriving = server.store.folder / "arriving"
        self._arriving: dict[str, Arriving] = {}
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.port = node.port

    def start(self) -> None:
        """Raises GliomarkError where the port cannot be opened, or would be open to anybody in the network."""
        if not is_loopback(self.node.host) and not self.node.peers:
            raise GliomarkError(message("node-open", host=self.node.host))
        entity = AE(self.node.title)
        entity.require_calling_aet = list(self.node.peers)
        entity.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(str(context.abstract_syntax), list(SYNTAXES))
        limits = self.node.limits
        entity.maximum_associations = (
            2 * limits.most
        )  # more than there are places; those that end need a moment
        entity.acse_timeout, entity.dimse_timeout = limits.first_s, limits.first_s
        entity.network_timeout = limits.silence_s
        handlers: list[Any] = [(evt.EVT_C_STORE, self._keep), (evt.EVT_CONN_CLOSE, self._closed)]
        handlers.append((evt.EVT_REJECTED, self._rejected))
        shutil.rmtree(self.arriving, ignore_errors=True)  # what was on its way when a server ended
        self.arriving.mkdir(parents=True)
        where = (self.node.host, self.node.port)
        try:
            listener = entity.make_server(
                where, evt_handlers=handlers, server_class=BoundedServer, limits=limits, folder=self.arriving
            )
        except OSError as error:
            raise GliomarkError(
                message("node-port", port=self.node.port, reason=str(error.strerror or error))
            ) from None
        self._listener, self.port = listener, listener.server_address[1]
        entity._servers.append(listener)  # as AE.start_server does
        threading.Thread(target=listener.serve_forever, args=(0.1,), daemon=True).start()
        # what came before a restart is taken up, also what had been taken and was not seen through
        for folder in self.incoming.with_name("taken").glob("*"):
            self._take_up(folder)
        self._arriving |= {
            folder.name: _arrived(folder, Arriving()) for folder in self.incoming.glob("*") if folder.is_dir()
        }
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._listener.shutdown()
        self._thread.join(timeout=10)

    def _keep(self, event: evt.Event) -> int:
        """One image, already on disk; names are hashes, so that no sender chooses a path."""
        came: Any = event.request._dataset_file
        came.close()
        if not came.name or not has_room(self.arriving, self.node.limits.reserve):
            return self._refuse(event)
        try:
            header, held = read_header(Path(came.name))
            if not can_hold_frames(header, held):
                return NOT_UNDERSTOOD
            study, image = (
                _hashed(str(header[word].value)) for word in ("StudyInstanceUID", "SOPInstanceUID")
            )
        except (KeyError, AttributeError, *UNFORESEEN):
            return NOT_UNDERSTOOD
        try:
            with self._lock:
                arriving = self._arriving.get(study, Arriving())
                if not self._has_place(study, arriving.count(image, Path(came.name).stat().st_size)):
                    return self._refuse(event)
                self._arriving[study] = arriving
                arriving.lacking.discard(image)
                arriving.by(event.assoc)
                folder = self.incoming / study
                folder.mkdir(parents=True, exist_ok=True)
                Path(came.name).replace(folder / f"{image}.dcm")
        except OSError:
            return self._refuse(event)
        return SUCCESS

    def _refuse(self, event: evt.Event) -> int:
        """For want of room. The studies that its sender is sending are not whole without it."""
        image = _hashed(str(getattr(event.request, "AffectedSOPInstanceUID", "")))
        for study in list(self._arriving.values()):
            if event.assoc in study.senders:
                study.lacking.add(image)
        return NO_SPACE

    def _has_place(self, study: str, arriving: Arriving) -> bool:
        limits = self.node.limits
        few = study in self._arriving or len(self._arriving) < limits.studies
        return few and len(arriving.images) <= limits.images and arriving.bytes <= limits.study_bytes

    def _closed(self, event: evt.Event) -> None:
        if isinstance(event.assoc.dimse, BoundedMessages):
            event.assoc.dimse.forget()
        with self._lock:
            for study in self._arriving.values():
                study.senders.discard(event.assoc)

    def _rejected(self, event: evt.Event) -> None:
        """An association that was refused is recorded, with the title that its caller gave."""
        caller = event.assoc.requestor
        unknown = self.node.peers and caller.ae_title not in self.node.peers
        reason = "calling title not among the peers" if unknown else "association not taken"
        told = Refusal("DICOM association refused", caller.address, reason, WHO, caller.ae_title)
        self.server.audit.refuse(told)

    def _watch(self) -> None:
        while not self._stopping.wait(LOOK_S):
            try:
                # which examination is read depends on what the model takes
                if self.server.workers.models_known and (folder := self._whole()) is not None:
                    self._ask(folder)
                # one at a time: an archive that does not answer must not keep studies waiting
                if owed := self.server.records.next_delivery(LEASE_S):
                    self._deliver(*owed)
            except Exception as error:  # whatever it was, this thread must not end
                LOG.error("the DICOM node goes on after %s", type(error).__name__)

    def _whole(self) -> Path | None:
        """A study that has stopped arriving, moved out of the way of what may still come."""
        with self._lock:
            for study, arriving in list(self._arriving.items()):
                busy = arriving.senders or arriving.lacking
                if arriving.silent_s > (self.node.busy_s if busy else self.node.quiet_s):
                    del self._arriving[study]
                    taken = self.incoming.with_name("taken") / f"{study}-{uuid.uuid4().hex[:8]}"
                    taken.parent.mkdir(exist_ok=True)
                    (self.incoming / study).rename(taken)
                    if not arriving.lacking:
                        return taken
                    shutil.rmtree(taken)
                    self._tell("pushed study failed", taken.name, LACKING.format(count=len(arriving.lacking)))
        return None

    def _ask(self, folder: Path) -> None:
        """Record it with the prediction to be made and the archives that are owed its results, all or nothing."""
        server = self.server
        try:
            self._count_try(folder)
            server.admit(folder, next(iter(server.models)), WHO, then=Then(asked_of, self.node.destinations))
        except ReadingEndedError as error:
            self._set_aside(folder, str(error))
        except (GliomarkError, SQLAlchemyError, *UNFORESEEN) as error:
            if isinstance(error, SQLAlchemyError) or is_disk_full(error):
                LOG.error("a pushed study waits for the database or the disk: %s", type(error).__name__)
                self._take_up(folder)
            else:
                told = str(error) if isinstance(error, GliomarkError) else type(error).__name__
                self._tell("pushed study failed", folder.name, told)
        self._tries(folder).unlink(missing_ok=True)
        server.workers.look()

    def _tries(self, folder: Path) -> Path:
        """The file that counts how often a study was begun to be read, through restarts of the server."""
        study = folder.name.rsplit("-", 1)[0]
        return self.incoming.with_name("tries") / study

    def _count_try(self, folder: Path) -> None:
        """Raises ReadingEndedError for a study whose reading has ended the server before, and again."""
        file = self._tries(folder)
        file.parent.mkdir(exist_ok=True)
        before = file.stat().st_size if file.exists() else 0
        if before >= TRIES_OF_READING:
            raise ReadingEndedError(message("reading-ended-server", tries=before))
        write(file, b"." * (before + 1))

    def _set_aside(self, folder: Path, reason: str) -> None:
        """Its files are kept, with the reason beside them, where nothing reads them again."""
        aside = self.server.store.folder / "set-aside" / folder.name
        aside.parent.mkdir(exist_ok=True)
        folder.rename(aside)
        write(aside.with_suffix(".txt"), f"{reason}\n".encode())
        self._tell("pushed study set aside", folder.name, reason)

    def _take_up(self, folder: Path) -> None:
        """What had been taken arrives once more, beside what has come since."""
        study = folder.name.rsplit("-", 1)[0]
        back = self.incoming / study
        with self._lock:
            back.mkdir(parents=True, exist_ok=True)
            for image in folder.glob("*.dcm"):
                image.replace(back / image.name)
            shutil.rmtree(folder)
            self._arriving[study] = _arrived(back, self._arriving.get(study) or Arriving())

    def _deliver(self, delivery: DeliveryRow, job: JobRow) -> None:
        """One try; a prediction that came to nothing has nothing to send."""
        done, to = job.state == "done", delivery.destination
        reason = self._send(job, to) if done else job.error or f"The prediction was {job.state}."
        if reason and done and delivery.tries < TRIES:
            pause = min(PAUSE_S * 2**delivery.tries, LONGEST_PAUSE_S)
            self.server.records.settle(delivery.id, "owed", pause)
            return
        self.server.records.settle(delivery.id, "given up" if reason else "sent")
        self._tell("results not sent" if reason else "results sent", job.id, reason, to=title_of(to))

    def _send(self, job: JobRow, to: str) -> str:
        """Why not, in words, or nothing."""
        try:
            results = kept_results(self.server.store, job, self.node.language, self.server.reading)
            return send(list(results.values()), parse_destination(to), self.node.title)
        except GliomarkError as error:
            return str(error)
        except Exception as error:  # whatever an archive answers, the others are owed theirs
            return type(error).__name__

    def _tell(self, action: str, subject: str, reason: str = "", **detail: Any) -> None:
        self.server.records.log(WHO, action, subject, **detail | ({"reason": reason} if reason else {}))
        LOG.info("%s: %s", action, subject)


def _arrived(folder: Path, arriving: Arriving) -> Arriving:
    """With the images that lie in the folder."""
    for image in folder.glob("*.dcm"):
        arriving.count(image.stem, image.stat().st_size)
    return arriving


def read_header(file: Path) -> tuple[Dataset, int]:
    """What says whose image it is and how large, and the bytes behind it. Of a header made to keep a reader busy only
    the beginning is read. Raises what pydicom does for what is no object."""
    with file.open("rb") as whole:
        start = BytesIO(whole.read(LONGEST_HEADER))
    header = read_partial(start, stop_when=lambda tag, *_: tag.group > LAST_GROUP)
    return header, file.stat().st_size - start.tell()


def _hashed(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:32]
