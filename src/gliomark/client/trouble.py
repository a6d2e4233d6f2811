"""What went wrong, kept as its template so that it can be said in the language of the moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from PySide6.QtCore import QT_TRANSLATE_NOOP

from gliomark.client.language import translate, translate_message

Remedy = Literal["again", "settings"]


@dataclass(frozen=True)
class ErrorMessage:
    """One sentence for the user. remedy: the button beside it, None where only the input can be mended."""

    template: object  # QT_TRANSLATE_NOOP's stub calls its text that
    arguments: tuple[str, ...] = ()
    remedy: Remedy | None = "again"
    status: int = 0

    @property
    def text(self) -> str:
        return translate("Trouble", str(self.template)).format(*map(translate_message, self.arguments))


SERVER_UNREACHABLE = QT_TRANSLATE_NOOP(
    "Trouble", "The server at {} does not answer: check that it runs and that the network reaches it."
)
CONNECTION_LOST = QT_TRANSLATE_NOOP(
    "Trouble", "The connection to the server at {} broke off before it was done."
)
TOKEN_REFUSED = QT_TRANSLATE_NOOP(
    "Trouble", "The server does not accept the access token: enter a valid one in the settings."
)
ACTION_FORBIDDEN = QT_TRANSLATE_NOOP("Trouble", "This access token does not allow that: {}")
CERTIFICATE_UNTRUSTED = QT_TRANSLATE_NOOP(
    "Trouble", "The server at {} has no certificate that this computer trusts, so nothing was sent to it."
)
NOT_A_GLIOMARK_SERVER = QT_TRANSLATE_NOOP(
    "Trouble", "What answers at {} is not a gliomark server: check the address in the settings."
)
PLAIN_TEXT = QT_TRANSLATE_NOOP("Trouble", "{}")
SERVER_FAILED = QT_TRANSLATE_NOOP("Trouble", "The server failed (status {}) and gave no reason; try again.")
LOCAL_SERVER_NOT_STARTED = QT_TRANSLATE_NOOP(
    "Trouble",
    "The local server could not be started ({}): install gliomark with its server, or name another server in the"
    " settings.",
)
LOCAL_SERVER_STOPPED = QT_TRANSLATE_NOOP(
    "Trouble", "The local server has stopped unexpectedly; it can be started again."
)
FILE_NOT_WRITTEN = QT_TRANSLATE_NOOP("Trouble", "{} could not be written: choose another place.")
IMAGE_UNREADABLE = QT_TRANSLATE_NOOP("Trouble", "The server sent a picture that cannot be read; try again.")
