"""The words of pathology reports that are known, by finding; ``words.toml`` lists them and says what each kind is."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Any

_GRADE = (
    r"(?:cns )?(?:who )?(?:cns )?grade [1-4](?![\d.%])|(?:cns )?(?:who )?(?:cns )?grade i{1,3}v?(?![a-z])|"
    r"(?:who|cns who)? ?(?:[1-4]|iv|i{1,3}|[一二三四]) ?级"
)


@dataclass(frozen=True)
class Lexicon:
    """The words of one finding. genes: pattern of what it is about to the parts it names; kinds: phrase to kind.

    patterns: kind to a regular expression; default: the parts that a text is about which names none.
    """

    genes: Mapping[str, tuple[str, ...]]
    kinds: Mapping[str, str]
    patterns: Mapping[str, str]
    default: tuple[str, ...]

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """One token: a pattern with its kind as group name, a gene, or a known phrase, the longest first."""
        own = [f"(?P<{kind}>{pattern})" for kind, pattern in self.patterns.items()]
        genes = "|".join(sorted(self.genes, key=len, reverse=True))
        phrases = "|".join(_bounded(one) for one in sorted(self.kinds, key=len, reverse=True))
        return re.compile(
            "|".join([*own, f"(?P<filler_grade>{_GRADE})", f"(?P<gene>{genes})", f"(?P<word>{phrases})"])
        )


def _bounded(phrase: str) -> str:
    """A phrase of letters ends where its word ends."""
    return re.escape(phrase) + (r"(?![a-z])" if re.search(r"[a-z]$", phrase) else "")


def _lexicon(listed: Mapping[str, Any], common: Mapping[str, Sequence[str]]) -> Lexicon:
    """A finding's own words before the common ones."""
    own = {kind: phrases for kind, phrases in listed.items() if kind not in {"genes", "patterns", "default"}}
    kinds = {phrase: kind for words in (common, own) for kind, phrases in words.items() for phrase in phrases}
    genes = {pattern: tuple(parts) for pattern, parts in listed["genes"].items()}
    return Lexicon(genes, kinds, listed.get("patterns", {}), tuple(listed["default"]))


_WORDS = tomllib.loads((resources.files(__package__) / "words.toml").read_text("utf-8"))
IDH = _lexicon(_WORDS["idh"], _WORDS["common"])
MGMT = _lexicon(_WORDS["mgmt"], _WORDS["common"])
CODEL_1P19Q = _lexicon(_WORDS["codel_1p19q"], _WORDS["common"])
# Cells that say in words that nothing is known, without blanks.
NOT_KNOWN = frozenset(re.sub(r"\s", "", phrase) for phrase in _WORDS["common"]["unsure"])
