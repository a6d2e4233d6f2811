"""gliomark as a DICOM node: a study that is pushed here and has stopped arriving is predicted, its results sent on.

C-ECHO and C-STORE are answered (pynetdicom); age and sex come from the headers. Segmentation, structured report and
PDF go to every destination by C-STORE or STOW-RS; one that cannot be reached is tried again, and told in the log.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from sqlalchemy.exc import SQLAlchemyError

from gliomark.io.dicom import can_hold_frames, dicom_files
from gliomark.reporting import Language
from gliomark.server.audit_writer import Refusal
from gliomark.server.context import Server, Then
from gliomark.server.destinations import SUCCESS, UNCOMPRESSED, check_title, parse_destination, send, title_of
from gliomark.server.records import DeliveryRow, JobRow
from gliomark.server.results import kept_results
from gliomark.server.security import is_loopback
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
OLDEST = 120


@dataclass(frozen=True)
class Node:
    """Where to listen, whom to answer and whom to send results.

    peers: calling AE titles that may push, anybody where empty; destinations: ``AET@host:port`` or the address of a
    DICOMweb service; quiet_s: a study is whole once nothing came for so long and who sent it has hung up, busy_s: or
    has sent nothing for so long.
    """

    port: int
    host: str = "127.0.0.1"
    title: str = "GLIOMARK"
    peers: tuple[str, ...] = ()
    destinations: tuple[str, ...] = ()
    quiet_s: float = 10.0
    busy_s: float = 120.0
    language: Language = "en"


class Arriving:
    """A study some of whose images have come. senders: the associations they came over that are still open."""

    def __init__(self) -> None:
        self.senders: set[Association] = set()
        self._last = time.monotonic()

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
        self._arriving: dict[str, Arriving] = {}
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.port = node.port

    def start(self) -> None:
        """Raises GliomarkError where the port cannot be opened, or would be open to anybody in the network."""
        if not is_loopback(self.node.host) and not self.node.peers:
            raise GliomarkError(
                f"Anybody in the network could push studies to {self.node.host}; name who may with --dicom-peer AET."
            )
        entity = AE(self.node.title)
        entity.require_calling_aet = list(self.node.peers)
        entity.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(str(context.abstract_syntax), list(SYNTAXES))
        handlers: list[Any] = [(evt.EVT_C_STORE, self._keep), (evt.EVT_CONN_CLOSE, self._closed)]
        handlers.append((evt.EVT_REJECTED, self._rejected))
        try:
            listener = entity.start_server(
                (self.node.host, self.node.port), block=False, evt_handlers=handlers
            )
        except OSError as error:
            raise GliomarkError(
                f"The DICOM port {self.node.port} cannot be opened ({error.strerror}); choose another --dicom-port."
            ) from None
        assert listener is not None
        self._listener, self.port = listener, listener.server_address[1]
        # what came before a restart is taken up, also what had been taken and was not seen through
        for folder in self.incoming.with_name("taken").glob("*"):
            self._take_up(folder)
        self._arriving |= {folder.name: Arriving() for folder in self.incoming.glob("*") if folder.is_dir()}
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._listener.shutdown()
        self._thread.join(timeout=10)

    def _keep(self, event: evt.Event) -> int:
        """One image, written whole; names are hashes, so that no sender chooses a path."""
        try:
            dataset = event.dataset
            dataset.file_meta = event.file_meta
            if not can_hold_frames(dataset, len(dataset.get("PixelData") or b"")):
                return NOT_UNDERSTOOD
            study, image = (
                _hashed(str(dataset[word].value)) for word in ("StudyInstanceUID", "SOPInstanceUID")
            )
        except (KeyError, AttributeError, *UNFORESEEN):
            return NOT_UNDERSTOOD
        folder = self.incoming / study
        part = folder / f".{image}.{uuid.uuid4().hex[:8]}"
        try:
            with self._lock:
                folder.mkdir(parents=True, exist_ok=True)
                self._arriving.setdefault(study, Arriving()).by(event.assoc)
            dataset.save_as(part, enforce_file_format=True)
            part.replace(folder / f"{image}.dcm")
        except OSError:
            return NO_SPACE
        with self._lock:
            self._arriving.setdefault(study, Arriving()).by(event.assoc)
        return SUCCESS

    def _closed(self, event: evt.Event) -> None:
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
            for study, arriving in self._arriving.items():
                if arriving.silent_s > (self.node.busy_s if arriving.senders else self.node.quiet_s):
                    del self._arriving[study]
                    taken = self.incoming.with_name("taken") / f"{study}-{uuid.uuid4().hex[:8]}"
                    taken.parent.mkdir(exist_ok=True)
                    (self.incoming / study).rename(taken)
                    return taken
        return None

    def _ask(self, folder: Path) -> None:
        """Record it with the prediction to be made and the archives that are owed its results, all or nothing."""
        server = self.server
        try:
            server.admit(folder, next(iter(server.models)), WHO, then=Then(asked_of, self.node.destinations))
        except GliomarkError as error:
            self._tell("pushed study failed", folder.name, str(error))
        except SQLAlchemyError as error:
            LOG.error("a pushed study waits for the database: %s", type(error).__name__)
            self._take_up(folder)
        except UNFORESEEN as error:
            self._tell("pushed study failed", folder.name, type(error).__name__)
        server.workers.look()

    def _take_up(self, folder: Path) -> None:
        """What had been taken arrives once more, beside what has come since."""
        study = folder.name.rsplit("-", 1)[0]
        back = self.incoming / study
        with self._lock:
            back.mkdir(parents=True, exist_ok=True)
            for image in folder.glob("*.dcm"):
                image.replace(back / image.name)
            shutil.rmtree(folder)
            self._arriving.setdefault(study, Arriving())

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
            results = kept_results(self.server.store, job, self.node.language)
            return send(list(results.values()), parse_destination(to), self.node.title)
        except GliomarkError as error:
            return str(error)
        except Exception as error:  # whatever an archive answers, the others are owed theirs
            return type(error).__name__

    def _tell(self, action: str, subject: str, reason: str = "", **detail: Any) -> None:
        self.server.records.log(WHO, action, subject, **detail | ({"reason": reason} if reason else {}))
        LOG.info("%s: %s", action, subject)


def asked_of(folder: Path) -> dict[str, Any]:
    """A prediction as it is asked for, age in years and sex from the headers."""
    header = dcmread(next(iter(dicom_files(folder))), stop_before_pixels=True, force=True)
    age, sex = age_of(header), {"M": 0, "F": 1}.get(str(header.get("PatientSex", "")).strip().upper())
    unknown = age is None or sex is None
    return {"age": age, "sex": sex, "without_clinical": unknown, "fusion": "near", "outline": "model"}


def age_of(header: Dataset) -> float | None:
    """PatientAge, else from the dates of birth and study."""
    if found := re.fullmatch(r"(\d{1,3})([YMWD])", str(header.get("PatientAge", "")).strip()):
        stated = int(found[1]) / {"Y": 1, "M": 12, "W": 52, "D": 365.25}[found[2]]
        if 0 < stated <= OLDEST:  # 000Y and 999Y say that nobody knew
            return stated
    born, seen = (str(header.get(word, ""))[:8] for word in ("PatientBirthDate", "StudyDate"))
    if re.fullmatch(r"\d{8}", born) and re.fullmatch(r"\d{8}", seen):
        years = int(seen[:4]) - int(born[:4]) - (seen[4:] < born[4:])
        return float(years) if 0 <= years <= OLDEST else None
    return None


def _hashed(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:32]
