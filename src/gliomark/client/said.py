"""What the server says in English sentences, in the user's language where the sentence is known."""

from __future__ import annotations

from gliomark.client.language import current_language
from gliomark.sentences import in_chinese


def said(text: str) -> str:
    """The server's words in the user's language."""
    return in_chinese(text) if current_language() == "zh" else text
