"""Error messages, kept as templates so that they follow a change of language."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from PySide6.QtCore import QT_TRANSLATE_NOOP

from gliomark.client.language import translate, translate_message

Remedy = Literal["again", "settings"]


@dataclass(frozen=True)
class ErrorMessage:
    """One error message. remedy: the button shown with it; None if only the input can be corrected.

    status: the HTTP status; 0 without a response.
    """

    template: object  # the type that the stub of QT_TRANSLATE_NOOP declares
    arguments: tuple[str, ...] = ()
    remedy: Remedy | None = "again"
    status: int = 0

    @property
    def text(self) -> str:
        """The message in the user's language."""
        return translate("Trouble", str(self.template)).format(*map(translate_message, self.arguments))


SERVER_UNREACHABLE = QT_TRANSLATE_NOOP(
    "Trouble", "The server at {} does not respond. Check that it is running and reachable over the network."
)
CONNECTION_LOST = QT_TRANSLATE_NOOP(
    "Trouble", "The connection to the server at {} was lost before the request finished."
)
TOKEN_REFUSED = QT_TRANSLATE_NOOP(
    "Trouble", "The server rejected the access token. Enter a valid one in the settings."
)
ACTION_FORBIDDEN = QT_TRANSLATE_NOOP("Trouble", "The access token does not permit this action: {}")
CERTIFICATE_UNTRUSTED = QT_TRANSLATE_NOOP(
    "Trouble", "This computer does not trust the certificate of the server at {}; nothing was sent."
)
NOT_A_GLIOMARK_SERVER = QT_TRANSLATE_NOOP(
    "Trouble", "The address {} does not belong to a gliomark server. Check it in the settings."
)
PLAIN_TEXT = QT_TRANSLATE_NOOP("Trouble", "{}")
SERVER_FAILED = QT_TRANSLATE_NOOP("Trouble", "The server reported an internal error (status {}). Try again.")
LOCAL_SERVER_NOT_STARTED = QT_TRANSLATE_NOOP(
    "Trouble",
    "The local server could not be started ({}). Install gliomark with its server component, or choose another server"
    " in the settings.",
)
LOCAL_SERVER_STOPPED = QT_TRANSLATE_NOOP(
    "Trouble", "The local server has stopped unexpectedly. Try again to restart it."
)
FILE_NOT_WRITTEN = QT_TRANSLATE_NOOP("Trouble", "{} could not be saved. Choose another folder.")
IMAGE_UNREADABLE = QT_TRANSLATE_NOOP("Trouble", "The server sent an unreadable image. Try again.")
