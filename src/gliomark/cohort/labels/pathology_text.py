"""Interpretation of a pathology report's free text for one marker: positive, negative, unknown or refused.

A cell is split into known words (``lexicon``); a cell with an unknown word is refused. The words form clauses about
the gene named in the clause, or about that of the preceding clause if it names none. Each clause is positive,
negative (negation included) or unknown, and the clauses must not contradict each other.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from gliomark.cohort.labels.lexicon import Lexicon
from gliomark.tables import CellError

_IGNORED_CHARACTERS = " ()[]{}\"'“”‘’《》<>*"
_RESULT_KINDS = frozenset({"noun", "changed", "unchanged", "positive", "negative", "unsure", "otherresult"})
_CHANGE_KINDS = frozenset({"noun", "changed", "variant"})
_CLAUSE_END = r"\s*($|[,;。.、/)\]\n|])"
_NAME_NEGATIONS = frozenset("non not 非 不是 并非".split())
_DETECTION_WORDS = re.compile(r"^neg.* for$|检出|检测|见|发现|测出|测到|查到|找到|出现|观察到")


@dataclass(frozen=True)
class Token:
    """A known word. kind: see ``words.toml``. targets: those that a gene names. is_sign: a plus or minus sign."""

    kind: str
    text: str
    targets: tuple[str, ...] = ()
    is_sign: bool = False


@dataclass(frozen=True)
class ClauseResult:
    """Result of one clause. targets: empty if it names none. value: True, False, or None for unknown.

    is_explicit: not only a noun ("mutation"), which another clause may negate. deciding_kind: kind of the word that
    decided the result. has_test_word: whether the clause mentions a test.
    """

    targets: tuple[str, ...]
    value: bool | None
    is_explicit: bool = True
    deciding_kind: str = ""
    has_test_word: bool = False


def parse_clauses(text: str, lexicon: Lexicon) -> list[ClauseResult]:
    """Evaluate all clauses of a cell that concern the lexicon's marker.

    Raises
    ------
    CellError
        If a word is unknown, a clause is ambiguous, or no clause concerns the marker.
    """
    findings: list[ClauseResult] = []
    targets: tuple[str, ...] | None = ()
    for clause in _split_clauses(_tokenise_text(text, lexicon)):
        if {token.kind for token in clause} <= {"test"}:
            continue
        targets = _find_targets(clause, targets)
        if targets is None:
            continue
        findings.append(replace(_evaluate_clause(clause), targets=targets))
    if not findings:
        raise CellError("cell-other-finding")
    return findings


# ---- words ------------------------------------------------------------------------------------------


def _normalise_text(text: str) -> str:
    lines = [re.sub(r"[^\S\n]+", " ", line) for line in text.splitlines()]
    wide = "\n".join(lines)
    narrow = unicodedata.normalize("NFKC", wide)
    plain = re.sub("[−–‐‑﹣—]+", "-", narrow).lower().strip()
    return re.sub(r"(?<=[a-z0-9])[-_](?=[a-z])", " ", plain)


def _tokenise_text(text: str, lexicon: Lexicon) -> list[Token]:
    plain, at, tokens = _normalise_text(text), 0, []
    while at < len(plain):
        if found := lexicon.token_pattern.match(plain, at):
            token = _create_token(found, lexicon)
            if token.kind != "filler":
                tokens.append(token)
            at = found.end()
        elif plain[at] in "+-":
            sign, at = _parse_sign(plain, at, lexicon)
            tokens += [sign] if sign else []
        elif plain[at] in _IGNORED_CHARACTERS:
            at += 1
        else:
            raise CellError("cell-unknown-word", word=re.findall(r"[a-z0-9.%]+|.", plain[at:])[0])
    return tokens


def _create_token(found: re.Match[str], lexicon: Lexicon) -> Token:
    kind, text = found.lastgroup or "", found[0]
    if kind == "gene":
        parts = next(parts for one, parts in lexicon.target_patterns.items() if re.fullmatch(one, text))
        return Token("gene", text, parts)
    if kind == "word":
        kind = lexicon.phrase_kinds[text]
    return Token(kind.partition("_")[0], text, is_sign=text[:1] == "(" and kind in ("positive", "negative"))


def _parse_sign(plain: str, at: int, lexicon: Lexicon) -> tuple[Token | None, int]:
    """Parse a plus or minus after its subject; a hyphen between words is ignored, a plus between words is refused."""
    end = len(plain) - len(plain[at:].lstrip("+-"))
    sign, rest = plain[at:end], plain[end:]
    attached = at > 0 and not plain[at - 1].isspace() and rest[:1] == " "
    following = lexicon.token_pattern.match(plain, end + 1) if attached else None
    before_gene = following is not None and _create_token(following, lexicon).kind in ("gene", "other")
    judges = before_gene or re.match(_CLAUSE_END, rest)
    if set(sign) == {"+"}:
        return Token("positive" if judges else "refused", sign, is_sign=True), end
    if judges and set(sign) == {"-"} and at > 0:
        return Token("negative", sign, is_sign=True), end
    if set(sign) == {"-"}:
        return None, end
    return Token("refused", sign), end


# ---- clauses ----------------------------------------------------------------------------------------


def _split_clauses(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """Split at stops and before the gene of a new statement; names without a result are added to the next clause."""
    pending: list[Token] = []
    for segment in _split_segments(tokens):
        clause = [*pending, *segment]
        pending = []
        if {token.kind for token in clause} <= {"gene", "other", "and", "test"} and any(
            token.kind in ("gene", "other") for token in clause
        ):
            pending = clause
        elif any(token.kind != "and" for token in clause):
            yield clause
    if pending:
        raise CellError("cell-no-result")


def _split_segments(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    segment: list[Token] = []
    for at, token in enumerate(tokens):
        if token.kind == "stop":
            yield segment
            segment = []
            continue
        if token.kind in ("gene", "other") and _is_complete_statement(segment, tokens[at:]):
            carried_count = 0
            while carried_count < len(segment) and segment[-1 - carried_count].kind in ("no", "and"):
                carried_count += 1
            cut = len(segment) - carried_count
            yield segment[:cut]
            segment = segment[cut:]
        segment.append(token)
    yield segment


def _is_complete_statement(segment: Sequence[Token], following: Sequence[Token]) -> bool:
    """Whether the segment is complete, so that a gene begins a new statement: it has a gene and a result.

    "no IDH1 mutation or IDH2 mutation" is one statement.
    """
    kinds = [token.kind for token in segment]
    joined = bool(segment) and segment[-1].text in ("or", "nor", "或") and "no" in kinds
    nouns_only = not {"changed", "positive", "negative", "unchanged", "unsure", "there"} & {
        token.kind for token in [*segment, *following]
    }
    if joined and nouns_only:
        return False
    return bool({"gene", "other"} & set(kinds)) and bool(_RESULT_KINDS & set(kinds))


def _find_targets(
    clause: Sequence[Token], previous_targets: tuple[str, ...] | None
) -> tuple[str, ...] | None:
    """Return the targets of a clause, those of the preceding clause if it names none; None for another gene."""
    targets = tuple(dict.fromkeys(part for token in clause for part in token.targets))
    others = any(token.kind == "other" for token in clause)
    if targets and others:
        raise CellError("cell-ambiguous")
    return None if others else targets or previous_targets


# ---- evaluation of a clause -------------------------------------------------------------------------


def _evaluate_clause(clause: Sequence[Token]) -> ClauseResult:
    if _has_partial_negation(clause):
        raise CellError("cell-ambiguous")
    tokens = _remove_redundant_tokens([token for token in clause if token.kind not in ("gene", "and")])
    if sum(token.kind == "colon" for token in tokens) > 1:
        raise CellError("cell-ambiguous")
    at = next((at for at, token in enumerate(tokens) if token.kind == "colon"), None)
    heading = [] if at is None else tokens[:at]
    value = tokens if at is None else tokens[at + 1 :]
    if {token.kind for token in heading} & {"positive", "negative", "no", "unsure", "unchanged", "refused"}:
        raise CellError("cell-ambiguous")
    asks_for_change = any(token.kind in _CHANGE_KINDS for token in heading)
    found = _evaluate_tokens(value, asks_for_change)
    if found is None:
        raise CellError("cell-no-result")
    named = any(token.kind == "test" for token in clause)
    return replace(found, has_test_word=named, is_explicit=found.is_explicit or asks_for_change)


def _has_partial_negation(clause: Sequence[Token]) -> bool:
    """Whether a negation may concern only one gene or variant: "IDH1 but not IDH2 mutated", "non-R132H mutation"."""
    kinds = [token.kind for token in clause]
    at = kinds.index("no") if "no" in kinds else len(kinds)
    genes = "gene" in kinds[:at] and "gene" in kinds[at:]
    attribute = any(
        one.text in _NAME_NEGATIONS and other.kind == "variant" for one, other in pairwise(clause)
    )
    return genes or attribute


def _remove_redundant_tokens(tokens: Sequence[Token]) -> list[Token]:
    """Reduce "neither ... nor" to one negation; keep 是 only at the end, where it means "yes" and not "is"."""
    neither = any(token.text == "neither" for token in tokens)
    kept = [token for token in tokens if not (neither and token.text == "nor")]
    return [token for at, token in enumerate(kept) if token.text != "是" or at == len(kept) - 1]


def _evaluate_tokens(tokens: Sequence[Token], asks_for_change: bool) -> ClauseResult | None:
    """Evaluate the words of a clause; None if they contain no result."""
    kinds = [token.kind for token in tokens]
    present = set(kinds)
    if present & {"refused", "otherresult"} or {"positive", "negative"} <= present:
        raise CellError("cell-ambiguous")
    if "unsure" in present:
        stated = present & {"positive", "negative", "changed", "unchanged"}
        if "no" in present or (stated and "test" in present):
            raise CellError("cell-ambiguous")
        return ClauseResult((), None, deciding_kind="unsure")
    if "no" in present:
        return _evaluate_negation(tokens, asks_for_change)
    if "negative" in present:
        return _evaluate_negative_result(kinds)
    if "unchanged" in present:
        bare_noun = "noun" in present and "test" not in present
        if present & {"changed", "positive"} or bare_noun:
            raise CellError("cell-ambiguous")
        return ClauseResult((), False, deciding_kind="unchanged")
    return _evaluate_affirmation(present, asks_for_change)


def _evaluate_affirmation(kinds: set[str], asks_for_change: bool) -> ClauseResult | None:
    change = bool(kinds & _CHANGE_KINDS)
    if kinds & {"changed", "positive"} or ("there" in kinds and (change or asks_for_change)):
        return ClauseResult((), True, deciding_kind="positive" if "changed" not in kinds else "changed")
    if change and "test" not in kinds:
        return ClauseResult((), True, is_explicit=False, deciding_kind="noun")
    return None


def _evaluate_negative_result(kinds: Sequence[str]) -> ClauseResult:
    """Evaluate "negative" after its subject; refuse "mutation (R132H negative)", which excludes only one mutation."""
    noun = kinds.index("noun") if "noun" in kinds else len(kinds)
    if {"changed", "there"} & set(kinds) or "variant" in kinds[noun:]:
        raise CellError("cell-ambiguous")
    first = kinds.index("negative")
    if "unchanged" in kinds and kinds.index("unchanged") > first and "noun" in kinds:
        raise CellError("cell-ambiguous")
    return ClauseResult((), False, deciding_kind="negative")


def _evaluate_negation(tokens: Sequence[Token], asks_for_change: bool) -> ClauseResult:
    """Evaluate a negation; anything ambiguous is refused."""
    kinds = [token.kind for token in tokens]
    at = kinds.index("no")
    before, after = kinds[:at], kinds[at + 1 :]
    refused = {"positive", "no"} & set(after) or {"positive", "negative", "changed"} & set(before)
    denies_change = bool({"noun", "changed"} & set(after)) or ("variant" in after)
    if (
        refused
        or ("unchanged" in after and not _has_change_before_unchanged(after))
        or "negative" in after[:1]
    ):
        raise CellError("cell-ambiguous")
    if denies_change:
        nouns_before = "noun" in before and "test" not in before
        only_variant = "variant" in before and not {"noun", "changed"} & set(after)
        if nouns_before or only_variant or ("negative" in after and after[-1] != "negative"):
            raise CellError("cell-ambiguous")
        return ClauseResult((), False, deciding_kind="no")
    rest = set(after) - {"test", "there"}
    evident = bool(_DETECTION_WORDS.search(tokens[at].text)) or "there" in after
    if rest or not (asks_for_change or evident or set(before) & _CHANGE_KINDS):
        raise CellError("cell-ambiguous")
    return ClauseResult((), False, deciding_kind="negative")


def _has_change_before_unchanged(after: Sequence[str]) -> bool:
    """Whether "wild type" follows what is negated, as in "no mutation (wild type)"."""
    return any(kind in _CHANGE_KINDS for kind in after[: after.index("unchanged")])


# ---- evaluation of a cell ---------------------------------------------------------------------------


def classify_any_changed(text: str, lexicon: Lexicon) -> str:
    """Return ``1`` if any target is altered, ``0`` if the named ones are not, blank if unknown.

    Raises
    ------
    CellError
        If clauses contradict each other, only some are known, or a clause is not understood.
    """
    findings = parse_clauses(text, lexicon)
    for before, after in pairwise(findings):
        if before.deciding_kind == "no" and after.value and not after.is_explicit:
            raise CellError("cell-ambiguous")  # "no IDH1 mutation, IDH2 mutation"
    known, unknown = _separate_known(findings)
    changed = [one for one in known if one.value]
    for one in changed:
        for other in (other for other in known if not other.value):
            apart = one.targets and other.targets and not set(one.targets) & set(other.targets)
            if not apart or not (one.is_explicit or other.deciding_kind == "unchanged"):
                raise CellError("cell-contradicts")
    return _resolve_unknown(unknown, known, "1" if changed else "0")


def classify_all_changed(text: str, lexicon: Lexicon) -> str:
    """Return ``1`` if all targets are altered, ``0`` if one is not, blank if unknown.

    Raises
    ------
    CellError
        As for ``classify_any_changed``, and if a target is not mentioned.
    """
    known, unknown = _separate_known(parse_clauses(text, lexicon))
    value_by_target: dict[str, bool] = {}
    for one in known:
        for part in one.targets or lexicon.default_targets:
            if value_by_target.setdefault(part, bool(one.value)) != one.value:
                raise CellError("cell-contradicts")
    if known and all(value_by_target.values()) and set(value_by_target) != set(lexicon.default_targets):
        raise CellError("cell-one-part", part=next(iter(value_by_target)))
    return _resolve_unknown(unknown, known, "0" if False in value_by_target.values() else "1")


def _separate_known(findings: Sequence[ClauseResult]) -> tuple[list[ClauseResult], list[ClauseResult]]:
    return [one for one in findings if one.value is not None], [one for one in findings if one.value is None]


def _resolve_unknown(unknown: Sequence[ClauseResult], known: Sequence[ClauseResult], answer: str) -> str:
    if not known:
        return ""
    known_targets = {part for one in known for part in one.targets}
    for one in unknown:
        elsewhere = one.targets and not set(one.targets) & known_targets
        if elsewhere and answer == "1":
            continue
        if one.has_test_word or elsewhere:
            raise CellError("cell-partly-known")
        return ""
    return answer
