"""Where results go: an archive that takes them by C-STORE, or a DICOMweb service by STOW-RS."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset
from pynetdicom import AE

from gliomark.messages import message
from gliomark.study import GliomarkError

SUCCESS = 0x0000
UNCOMPRESSED = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")  # explicit and implicit little endian


@dataclass(frozen=True)
class Peer:
    """An archive that takes results by C-STORE."""

    title: str
    host: str
    port: int


def parse_destination(text: str) -> Peer | str:
    """``AET@host:port`` or a DICOMweb address. Raises GliomarkError for anything else."""
    if re.fullmatch(r"https?://\S+", text):
        return text.rstrip("/")
    found = re.fullmatch(r"([!-?A-\[\]-~]{1,16})@(\[[^\]]+\]|[^:\s]+):(\d{1,5})", text)
    if not found or int(found[3]) > 65535:
        raise GliomarkError(message("destination-unfit", text=text[:200]))
    return Peer(found[1], found[2].strip("[]"), int(found[3]))


def check_title(title: str) -> None:
    """Raises GliomarkError for what no application entity may be called."""
    if not re.fullmatch(r"[ -\[\]-~]{1,16}", title) or not title.strip():
        raise GliomarkError(message("title-unfit", title=title[:80]))


def title_of(text: str) -> str:
    """What a destination is called in the log."""
    place = parse_destination(text)
    return place if isinstance(place, str) else place.title


def send(results: Sequence[Dataset], destination: Peer | str, title: str) -> str:
    """Send all; why not, in words, or nothing."""
    return (
        _stow(results, destination) if isinstance(destination, str) else _store(results, destination, title)
    )


def _stow(results: Sequence[Dataset], address: str) -> str:
    try:
        answer = DICOMwebClient(address).store_instances(list(results))
    except (OSError, ValueError) as error:  # requests' errors are OSErrors
        return type(error).__name__
    kept = {str(one.ReferencedSOPInstanceUID) for one in answer.get("ReferencedSOPSequence") or ()}
    return "" if kept >= {str(one.SOPInstanceUID) for one in results} else "some were refused"


def _store(results: Sequence[Dataset], peer: Peer, title: str) -> str:
    entity = AE(title)
    entity.connection_timeout = 10
    for result in results:
        entity.add_requested_context(result.SOPClassUID, list(UNCOMPRESSED))
    association = entity.associate(peer.host, peer.port, ae_title=peer.title)
    if not association.is_established:
        return "no association"
    try:
        statuses = [association.send_c_store(result).get("Status") for result in results]
    except (RuntimeError, ValueError) as error:
        return type(error).__name__
    finally:
        association.release()
    # 0xBxxx is a warning: stored all the same
    refused = [status for status in statuses if status is None or (status != SUCCESS and status >> 12 != 0xB)]
    return f"status {refused[0]}" if refused else ""
