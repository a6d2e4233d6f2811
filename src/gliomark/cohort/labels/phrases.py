"""What a pathologist's words say of one finding: there, not there, not known, or nothing that is sure.

A cell is cut into known words (``lexicon``); one unknown word and it is refused. The words form clauses, each
about the gene it names or, where it names none, about the one before. A clause says yes or no by its own words,
denials included; the clauses together must agree.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from gliomark.cohort.labels.lexicon import Lexicon
from gliomark.tables import CellError

_SKIPPED = " ()[]{}\"'“”‘’《》<>*"
_RESULTS = frozenset({"noun", "changed", "unchanged", "positive", "negative", "unsure", "otherresult"})
_CHANGE = frozenset({"noun", "changed", "variant"})
_ENDS = r"\s*($|[,;。.、/)\]\n|])"
_DENIES_A_NAME = frozenset("non not 非 不是 并非".split())
_EVIDENT = re.compile(r"^neg.* for$|检出|检测|见|发现|测出|测到|查到|找到|出现|观察到")


@dataclass(frozen=True)
class Token:
    """kind: see ``lexicon``; parts: what a gene names; is_sign: a plus or minus, which alone may mean a stain."""

    kind: str
    text: str
    parts: tuple[str, ...] = ()
    is_sign: bool = False


@dataclass(frozen=True)
class Finding:
    """What one clause says. parts: of what, empty where it names none; value: True, False, or None not known.

    firm: not a bare noun ("mutation"), which another clause's words may deny. how: the kind that decided.
    """

    parts: tuple[str, ...]
    value: bool | None
    firm: bool = True
    how: str = ""
    names_test: bool = False


def read_findings(text: str, lexicon: Lexicon) -> list[Finding]:
    """Every clause of a cell that is about the lexicon's finding.

    Raises: CellError for an unknown word, a clause that says nothing sure, or none about the finding.
    """
    findings: list[Finding] = []
    topic: tuple[str, ...] | None = ()
    for clause in _clauses(_tokens(text, lexicon)):
        if {token.kind for token in clause} <= {"test"}:
            continue
        topic = _topic(clause, topic)
        if topic is None:
            continue
        findings.append(replace(_finding(clause), parts=topic))
    if not findings:
        raise CellError("cell-other-finding")
    return findings


# ---- words ------------------------------------------------------------------------------------------


def _normal(text: str) -> str:
    lines = [re.sub(r"[^\S\n]+", " ", line) for line in text.splitlines()]
    wide = "\n".join(lines)
    narrow = unicodedata.normalize("NFKC", wide)
    plain = re.sub("[−–‐‑﹣—]+", "-", narrow).lower().strip()
    return re.sub(r"(?<=[a-z0-9])[-_](?=[a-z])", " ", plain)


def _tokens(text: str, lexicon: Lexicon) -> list[Token]:
    plain, at, tokens = _normal(text), 0, []
    while at < len(plain):
        if found := lexicon.pattern.match(plain, at):
            token = _token(found, lexicon)
            if token.kind != "filler":
                tokens.append(token)
            at = found.end()
        elif plain[at] in "+-":
            sign, at = _sign(plain, at, lexicon)
            tokens += [sign] if sign else []
        elif plain[at] in _SKIPPED:
            at += 1
        else:
            raise CellError("cell-unknown-word", word=re.findall(r"[a-z0-9.%]+|.", plain[at:])[0])
    return tokens


def _token(found: re.Match[str], lexicon: Lexicon) -> Token:
    kind, text = found.lastgroup or "", found[0]
    if kind == "gene":
        parts = next(parts for one, parts in lexicon.genes.items() if re.fullmatch(one, text))
        return Token("gene", text, parts)
    if kind == "word":
        kind = lexicon.kinds[text]
    return Token(kind.partition("_")[0], text, is_sign=text[:1] == "(" and kind in ("positive", "negative"))


def _sign(plain: str, at: int, lexicon: Lexicon) -> tuple[Token | None, int]:
    """A plus or minus after what it judges; a hyphen that joins words is nothing, a plus that joins is refused."""
    end = len(plain) - len(plain[at:].lstrip("+-"))
    sign, rest = plain[at:end], plain[end:]
    attached = at > 0 and not plain[at - 1].isspace() and rest[:1] == " "
    following = lexicon.pattern.match(plain, end + 1) if attached else None
    before_gene = following is not None and _token(following, lexicon).kind in ("gene", "other")
    judges = before_gene or re.match(_ENDS, rest)
    if set(sign) == {"+"}:
        return Token("positive" if judges else "refused", sign, is_sign=True), end
    if judges and set(sign) == {"-"} and at > 0:
        return Token("negative", sign, is_sign=True), end
    if set(sign) == {"-"}:
        return None, end
    return Token("refused", sign), end


# ---- clauses ----------------------------------------------------------------------------------------


def _clauses(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """Parted at stops, and before the gene of a new statement; names without a result go to the next clause."""
    waiting: list[Token] = []
    for segment in _segments(tokens):
        clause = [*waiting, *segment]
        waiting = []
        if {token.kind for token in clause} <= {"gene", "other", "and", "test"} and any(
            token.kind in ("gene", "other") for token in clause
        ):
            waiting = clause
        elif any(token.kind != "and" for token in clause):
            yield clause
    if waiting:
        raise CellError("cell-no-result")


def _segments(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    segment: list[Token] = []
    for at, token in enumerate(tokens):
        if token.kind == "stop":
            yield segment
            segment = []
            continue
        if token.kind in ("gene", "other") and _is_complete(segment, tokens[at:]):
            moved = 0
            while moved < len(segment) and segment[-1 - moved].kind in ("no", "and"):
                moved += 1
            cut = len(segment) - moved
            yield segment[:cut]
            segment = segment[cut:]
        segment.append(token)
    yield segment


def _is_complete(segment: Sequence[Token], following: Sequence[Token]) -> bool:
    """Whether a gene begins a new statement: the one before it has a gene and a result of its own.

    "no IDH1 mutation or IDH2 mutation" is one statement.
    """
    kinds = [token.kind for token in segment]
    joined = bool(segment) and segment[-1].text in ("or", "nor", "或") and "no" in kinds
    nouns_only = not {"changed", "positive", "negative", "unchanged", "unsure", "there"} & {
        token.kind for token in [*segment, *following]
    }
    if joined and nouns_only:
        return False
    return bool({"gene", "other"} & set(kinds)) and bool(_RESULTS & set(kinds))


def _topic(clause: Sequence[Token], before: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The parts a clause is about, the last clause's where it names none; None for another gene."""
    parts = tuple(dict.fromkeys(part for token in clause for part in token.parts))
    others = any(token.kind == "other" for token in clause)
    if parts and others:
        raise CellError("cell-ambiguous")
    return None if others else parts or before


# ---- what a clause says -----------------------------------------------------------------------------


def _finding(clause: Sequence[Token]) -> Finding:
    if _denies_one_of_several(clause):
        raise CellError("cell-ambiguous")
    tokens = _as_statement([token for token in clause if token.kind not in ("gene", "and")])
    if sum(token.kind == "colon" for token in tokens) > 1:
        raise CellError("cell-ambiguous")
    at = next((at for at, token in enumerate(tokens) if token.kind == "colon"), None)
    heading = [] if at is None else tokens[:at]
    value = tokens if at is None else tokens[at + 1 :]
    if {token.kind for token in heading} & {"positive", "negative", "no", "unsure", "unchanged", "refused"}:
        raise CellError("cell-ambiguous")
    asks_for_change = any(token.kind in _CHANGE for token in heading)
    found = _judged(value, asks_for_change)
    if found is None:
        raise CellError("cell-no-result")
    named = any(token.kind == "test" for token in clause)
    return replace(found, names_test=named, firm=found.firm or asks_for_change)


def _denies_one_of_several(clause: Sequence[Token]) -> bool:
    """Whether a denial may reach one gene or variant only: "IDH1 but not IDH2 mutated", "non-R132H mutation"."""
    kinds = [token.kind for token in clause]
    at = kinds.index("no") if "no" in kinds else len(kinds)
    genes = "gene" in kinds[:at] and "gene" in kinds[at:]
    attribute = any(one.text in _DENIES_A_NAME and other.kind == "variant" for one, other in pairwise(clause))
    return genes or attribute


def _as_statement(tokens: Sequence[Token]) -> list[Token]:
    """One denial of "neither ... nor"; 是 kept only at the end, where it is an answer and not "is"."""
    neither = any(token.text == "neither" for token in tokens)
    kept = [token for token in tokens if not (neither and token.text == "nor")]
    return [token for at, token in enumerate(kept) if token.text != "是" or at == len(kept) - 1]


def _judged(tokens: Sequence[Token], asks_for_change: bool) -> Finding | None:
    """The answer of a clause's words; None where they hold none."""
    kinds = [token.kind for token in tokens]
    present = set(kinds)
    if present & {"refused", "otherresult"} or {"positive", "negative"} <= present:
        raise CellError("cell-ambiguous")
    if "unsure" in present:
        stated = present & {"positive", "negative", "changed", "unchanged"}
        if "no" in present or (stated and "test" in present):
            raise CellError("cell-ambiguous")
        return Finding((), None, how="unsure")
    if "no" in present:
        return _denied(tokens, asks_for_change)
    if "negative" in present:
        return _negative(kinds)
    if "unchanged" in present:
        bare_noun = "noun" in present and "test" not in present
        if present & {"changed", "positive"} or bare_noun:
            raise CellError("cell-ambiguous")
        return Finding((), False, how="unchanged")
    return _affirmed(present, asks_for_change)


def _affirmed(present: set[str], asks_for_change: bool) -> Finding | None:
    change = bool(present & _CHANGE)
    if present & {"changed", "positive"} or ("there" in present and (change or asks_for_change)):
        return Finding((), True, how="positive" if "changed" not in present else "changed")
    if change and "test" not in present:
        return Finding((), True, firm=False, how="noun")
    return None


def _negative(kinds: Sequence[str]) -> Finding:
    """A result such as "negative" after its subject; "mutation (R132H negative)" denies only one mutation."""
    noun = kinds.index("noun") if "noun" in kinds else len(kinds)
    if {"changed", "there"} & set(kinds) or "variant" in kinds[noun:]:
        raise CellError("cell-ambiguous")
    first = kinds.index("negative")
    if "unchanged" in kinds and kinds.index("unchanged") > first and "noun" in kinds:
        raise CellError("cell-ambiguous")
    return Finding((), False, how="negative")


def _denied(tokens: Sequence[Token], asks_for_change: bool) -> Finding:
    """A denial and what it denies; anything less plain is refused."""
    kinds = [token.kind for token in tokens]
    at = kinds.index("no")
    before, after = kinds[:at], kinds[at + 1 :]
    refused = {"positive", "no"} & set(after) or {"positive", "negative", "changed"} & set(before)
    denies_change = bool({"noun", "changed"} & set(after)) or ("variant" in after)
    if refused or ("unchanged" in after and not _follows_change(after)) or "negative" in after[:1]:
        raise CellError("cell-ambiguous")
    if denies_change:
        nouns_before = "noun" in before and "test" not in before
        only_variant = "variant" in before and not {"noun", "changed"} & set(after)
        if nouns_before or only_variant or ("negative" in after and after[-1] != "negative"):
            raise CellError("cell-ambiguous")
        return Finding((), False, how="no")
    rest = set(after) - {"test", "there"}
    evident = bool(_EVIDENT.search(tokens[at].text)) or "there" in after
    if rest or not (asks_for_change or evident or set(before) & _CHANGE):
        raise CellError("cell-ambiguous")
    return Finding((), False, how="negative")


def _follows_change(after: Sequence[str]) -> bool:
    """Whether "wild type" comes behind what is denied, as in "no mutation (wild type)"."""
    return any(kind in _CHANGE for kind in after[: after.index("unchanged")])


# ---- what a cell says -------------------------------------------------------------------------------


def any_changed(text: str, lexicon: Lexicon) -> str:
    """``1`` where any part is changed, ``0`` where what is named is not, blank where it is not known.

    Raises: CellError for clauses that contradict each other, or of which only some are known.
    """
    findings = read_findings(text, lexicon)
    for before, after in pairwise(findings):
        if before.how == "no" and after.value and not after.firm:
            raise CellError("cell-ambiguous")  # "no IDH1 mutation, IDH2 mutation"
    known, unknown = _known(findings)
    changed = [one for one in known if one.value]
    for one in changed:
        for other in (other for other in known if not other.value):
            apart = one.parts and other.parts and not set(one.parts) & set(other.parts)
            if not apart or not (one.firm or other.how == "unchanged"):
                raise CellError("cell-contradicts")
    return _with_unknown(unknown, known, "1" if changed else "0")


def all_changed(text: str, lexicon: Lexicon) -> str:
    """``1`` where every part is changed, ``0`` where one is not, blank where it is not known.

    Raises: CellError as ``any_changed``, and where nothing is said of a part.
    """
    known, unknown = _known(read_findings(text, lexicon))
    said: dict[str, bool] = {}
    for one in known:
        for part in one.parts or lexicon.default:
            if said.setdefault(part, bool(one.value)) != one.value:
                raise CellError("cell-contradicts")
    if known and all(said.values()) and set(said) != set(lexicon.default):
        raise CellError("cell-one-part", part=next(iter(said)))
    return _with_unknown(unknown, known, "0" if False in said.values() else "1")


def _known(findings: Sequence[Finding]) -> tuple[list[Finding], list[Finding]]:
    return [one for one in findings if one.value is not None], [one for one in findings if one.value is None]


def _with_unknown(unknown: Sequence[Finding], known: Sequence[Finding], answer: str) -> str:
    if not known:
        return ""
    told = {part for one in known for part in one.parts}
    for one in unknown:
        elsewhere = one.parts and not set(one.parts) & told
        if elsewhere and answer == "1":
            continue
        if one.names_test or elsewhere:
            raise CellError("cell-partly-known")
        return ""
    return answer
