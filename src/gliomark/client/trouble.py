"""What went wrong, kept as its template so that it can be said in the language of the moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from PySide6.QtCore import QT_TRANSLATE_NOOP

from gliomark.client.language import localise, translate

Remedy = Literal["again", "settings"]


@dataclass(frozen=True)
class Trouble:
    """One sentence for the user. remedy: the button beside it, None where only the input can be mended."""

    template: object  # QT_TRANSLATE_NOOP's stub calls its text that
    args: tuple[str, ...] = ()
    remedy: Remedy | None = "again"
    status: int = 0

    @property
    def sentence(self) -> str:
        return translate("Trouble", str(self.template)).format(*map(localise, self.args))


UNREACHABLE = QT_TRANSLATE_NOOP(
    "Trouble", "The server at {} does not answer: check that it runs and that the network reaches it."
)
SILENT = QT_TRANSLATE_NOOP("Trouble", "The connection to the server at {} broke off before it was done.")
REFUSED = QT_TRANSLATE_NOOP(
    "Trouble", "The server does not accept the access token: enter a valid one in the settings."
)
FORBIDDEN = QT_TRANSLATE_NOOP("Trouble", "This access token does not allow that: {}")
UNSAFE = QT_TRANSLATE_NOOP(
    "Trouble", "The server at {} has no certificate that this computer trusts, so nothing was sent to it."
)
NOT_OURS = QT_TRANSLATE_NOOP(
    "Trouble", "What answers at {} is not a gliomark server: check the address in the settings."
)
DETAIL = QT_TRANSLATE_NOOP("Trouble", "{}")
UNEXPLAINED = QT_TRANSLATE_NOOP("Trouble", "The server failed (status {}) and gave no reason; try again.")
NO_LOCAL = QT_TRANSLATE_NOOP(
    "Trouble",
    "The local server could not be started ({}): install gliomark with its server, or name another server in the"
    " settings.",
)
LOCAL_GONE = QT_TRANSLATE_NOOP(
    "Trouble", "The local server has stopped unexpectedly; it can be started again."
)
NOT_SAVED = QT_TRANSLATE_NOOP("Trouble", "{} could not be written: choose another place.")
NOT_A_PICTURE = QT_TRANSLATE_NOOP("Trouble", "The server sent a picture that cannot be read; try again.")
