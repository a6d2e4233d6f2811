"""Known words of pathology reports by marker; ``words.toml`` lists them and defines the kinds."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Any

_GRADE_PATTERN = (
    r"(?:cns )?(?:who )?(?:cns )?grade [1-4](?![\d.%])|(?:cns )?(?:who )?(?:cns )?grade i{1,3}v?(?![a-z])|"
    r"(?:who|cns who)? ?(?:[1-4]|iv|i{1,3}|[一二三四]) ?级"
)


@dataclass(frozen=True)
class Lexicon:
    """The words of one marker.

    target_patterns: regular expression of a gene (or chromosome arm) to the targets it names. phrase_kinds: kind
    by phrase. kind_patterns: regular expression by kind. default_targets: targets of a text that names none.
    """

    target_patterns: Mapping[str, tuple[str, ...]]
    phrase_kinds: Mapping[str, str]
    kind_patterns: Mapping[str, str]
    default_targets: tuple[str, ...]

    @cached_property
    def token_pattern(self) -> re.Pattern[str]:
        """Regular expression of one token: a pattern (group named by kind), a gene or a phrase, longest first."""
        own = [f"(?P<{kind}>{pattern})" for kind, pattern in self.kind_patterns.items()]
        genes = "|".join(sorted(self.target_patterns, key=len, reverse=True))
        phrases = "|".join(_escape_phrase(one) for one in sorted(self.phrase_kinds, key=len, reverse=True))
        return re.compile(
            "|".join(
                [*own, f"(?P<filler_grade>{_GRADE_PATTERN})", f"(?P<gene>{genes})", f"(?P<word>{phrases})"]
            )
        )


def _escape_phrase(phrase: str) -> str:
    """Escape a phrase; one that ends with a letter must end at the end of a word."""
    return re.escape(phrase) + (r"(?![a-z])" if re.search(r"[a-z]$", phrase) else "")


def _create_lexicon(word_lists: Mapping[str, Any], common_words: Mapping[str, Sequence[str]]) -> Lexicon:
    """Create a marker's lexicon; its own words take precedence over the common ones."""
    own = {
        kind: phrases for kind, phrases in word_lists.items() if kind not in {"genes", "patterns", "default"}
    }
    kinds = {
        phrase: kind for words in (common_words, own) for kind, phrases in words.items() for phrase in phrases
    }
    genes = {pattern: tuple(parts) for pattern, parts in word_lists["genes"].items()}
    return Lexicon(genes, kinds, word_lists.get("patterns", {}), tuple(word_lists["default"]))


_WORD_LISTS = tomllib.loads((resources.files(__package__) / "words.toml").read_text("utf-8"))
IDH_LEXICON = _create_lexicon(_WORD_LISTS["idh"], _WORD_LISTS["common"])
MGMT_LEXICON = _create_lexicon(_WORD_LISTS["mgmt"], _WORD_LISTS["common"])
CODEL_1P19Q_LEXICON = _create_lexicon(_WORD_LISTS["codel_1p19q"], _WORD_LISTS["common"])
# Phrases for "unknown", without blanks.
UNKNOWN_PHRASES = frozenset(re.sub(r"\s", "", phrase) for phrase in _WORD_LISTS["common"]["unsure"])
