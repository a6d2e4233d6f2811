"""Encode one cell of a hospital's table for the cohort. A blank cell stays blank and means unknown.

A cell that is not completely understood raises CellError; its reason ends the sentence "<column> '<cell>' of <id> ...".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from gliomark.cohort.labels.lexicon import (
    CODEL_1P19Q_LEXICON,
    IDH_LEXICON,
    MGMT_LEXICON,
    UNKNOWN_PHRASES,
    Lexicon,
)
from gliomark.cohort.labels.pathology_text import classify_all_changed, classify_any_changed
from gliomark.messages import Message, message
from gliomark.tables import BLANK_VALUES, CellError
from gliomark.tables.age_sex import AgeFormat, SexCoding, parse_age, parse_sex
from gliomark.tables.cell_text import is_blank_cell, normalise_cell

_AGE_CAP = 90.0
_ANSWER_CODES = {
    **dict.fromkeys("1 1.0 + (+) y yes true 是 有".split(), "1"),
    **dict.fromkeys("0 0.0 - (-) n no false 否".split(), "0"),
}
_NUMBER_PATTERN = r"\d{1,3}(?:\.\d+)?"


def encode_age(text: str, form: AgeFormat = AgeFormat()) -> str:
    """Encode age in years; 90 and above are written as 90 (HIPAA Safe Harbor)."""
    years = parse_age(text, form)
    return "" if years is None else f"{min(years, _AGE_CAP):.4g}"


def encode_sex(text: str, coding: SexCoding) -> str:
    """Encode sex: 0 male, 1 female."""
    found = parse_sex(text, coding)
    return "" if found is None else str(found)


def encode_idh(text: str) -> str:
    """Encode IDH status: 1 if IDH1 or IDH2 is mutant, 0 wild type."""
    return _encode_phrase(text, IDH_LEXICON, classify_any_changed, message("choices-idh"))


def encode_mgmt(text: str) -> str:
    """Encode MGMT promoter status: 1 methylated, 0 unmethylated.

    Raises
    ------
    CellError
        If the cell is an immunostain of the protein, such as ``MGMT (+)``, or is not understood.
    """
    if re.fullmatch(r"[mu]", normalise_cell(text)):
        return str(int(normalise_cell(text) == "m"))
    if re.search(r"mgmt", normalise_cell(text)) and not re.search(r"meth|甲基化", normalise_cell(text)):
        raise CellError("cell-protein", choices=message("choices-mgmt"))
    return _encode_phrase(text, MGMT_LEXICON, classify_any_changed, message("choices-mgmt"))


def encode_mgmt_refusing_stain(text: str) -> str:
    """Encode MGMT in a column whose name does not mention methylation, so that a sign alone may be an immunostain.

    Raises
    ------
    CellError
        If the cell is the result of an immunostain or is not understood.
    """
    if re.fullmatch(r"\(?[+]+\)?|\(-\)|[阴阳]性(\([+-]+\))?", normalise_cell(text)):
        raise CellError("cell-protein", choices=message("choices-mgmt"))
    return encode_mgmt(text)


def encode_1p19q(text: str) -> str:
    """Encode 1p/19q status: 1 both arms deleted, 0 not; partial or relative deletion is unknown.

    Raises
    ------
    CellError
        If the cell gives signs for the arms without a word for deletion, or is not understood.
    """
    plain = normalise_cell(text)
    if re.fullmatch(r"(?:仅|只有|单纯|单独|only|isolated)(1p|19q)(?:缺失|deletion|deleted|loss|lost)", plain):
        return "0"
    if re.search(r"(1p|19q)\W*[-+]|(1p|19q)\W*\([-+]+\)", plain) and not re.search(
        r"缺失|del|loss|loh", plain
    ):
        raise CellError("cell-sign-of-arm", choices=message("choices-codel"))
    return _encode_phrase(text, CODEL_1P19Q_LEXICON, classify_all_changed, message("choices-codel"))


def encode_ki67_level(text: str) -> str:
    """Encode Ki-67 level: 1 high, 0 low.

    Raises
    ------
    CellError
        If the cell is not understood.
    """
    plain = re.sub(r"^(ki-?67|mib-?1)[::]?|(表达|水平|expression|level)$", "", normalise_cell(text))
    if _is_unknown(plain):
        return ""
    if plain in _ANSWER_CODES:
        return _ANSWER_CODES[plain]
    if plain in {"high", "高"} | {"low", "低"}:
        return str(int(plain in {"high", "高"}))
    raise CellError("cell-not-understood", choices=message("choices-level"))


def _encode_phrase(
    text: str, lexicon: Lexicon, classify: Callable[[str, Lexicon], str], choices: Message
) -> str:
    plain = normalise_cell(text)
    if plain in _ANSWER_CODES:
        return _ANSWER_CODES[plain]
    if _is_unknown(plain):
        return ""
    try:
        return classify(text, lexicon)
    except CellError as error:
        raise CellError("cell-refused", reason=error.reason, choices=choices) from None


def _is_unknown(plain: str) -> bool:
    return plain in BLANK_VALUES or plain in UNKNOWN_PHRASES


_DIAGNOSIS_WORDS = re.compile(
    r"glioma|astrocytoma|oligodendroglioma|oligoastrocytoma|glioblastoma|gbm|anaplastic|diffuse|multiforme|胶质瘤|星形细胞瘤|"
    r"少突胶质细胞瘤|胶质母细胞瘤|间变性?|弥漫性?|,|idh-?mutant|idh-?wild-?type|idh突变型|idh野生型"
)


def _strip_version_suffix(found: re.Match[str]) -> str:
    return found[0].rstrip("5-")


_GRADE_NUMERALS = {"i": "1", "ii": "2", "iii": "3", "iv": "4", "一": "1", "二": "2", "三": "3", "四": "4"}


def encode_who_grade(text: str) -> str:
    """Encode WHO grade, 1 to 4, from text such as "WHO III", "G3", "Ⅲ级" or "grade 3".

    Raises
    ------
    CellError
        If the cell contains no grade.
    """
    plain = normalise_cell(text)
    if _is_unknown(plain) or re.fullmatch(r"(疑似|可疑|考虑).*|.*\?", plain):
        return ""
    core = re.sub(r"\((?:who)?(?:cns)?20(?:07|16|21)(?:版)?\)|(?<=who|cns)20(?:07|16|21)", "", plain)
    core = re.sub(
        r"^\((.*)\)$|^(who)\((.*)\)$",
        r"\1\2\3",
        re.sub(r"cns5|grade-(?=[1-4i])", _strip_version_suffix, core),
    )
    core = re.sub(r"^[1-4]\.0$", lambda found: found[0][0], _DIAGNOSIS_WORDS.sub("", core))
    found = re.fullmatch(
        r"(?:cns)?(?:who)?(?:cns)?(?:grade|gr\.?|分级|级别|g)?[:._]?([1-4]|i{1,3}|iv|[一二三四])级?(?:\(who\))?",
        core,
    )
    if not found:
        raise CellError("cell-no-grade")
    return _GRADE_NUMERALS.get(found[1], found[1])


@dataclass(frozen=True)
class Ki67Percent:
    """Ki-67 percentage of a cell: one number (low = high), a range, or a one-sided bound ("<5%": 0 to 5).

    open_end: the unbounded side, "low" or "high", otherwise blank. lacks_percent_sign: no percent sign in the cell.
    is_high_included: whether the upper bound is included, as in "up to 5%".
    """

    low: float
    high: float
    open_end: str = ""
    lacks_percent_sign: bool = False
    is_high_included: bool = True

    @property
    def is_possible_fraction(self) -> bool:
        """Whether the number may be a fraction instead of a percentage."""
        stated = self.low if self.open_end == "high" else self.high
        return self.lacks_percent_sign and 0 < stated < 1

    @property
    def percent_text(self) -> str:
        """Percentage as text, the mean of a range; blank if only a bound is known."""
        return "" if self.open_end else f"{(self.low + self.high) / 2:g}"

    def classify_level(self, threshold: float) -> str:
        """Return 1 at or above the threshold (percent), else 0; ranges by their mean; blank if inconclusive."""
        if self.percent_text:
            return str(int((self.low + self.high) / 2 >= threshold))
        if self.open_end == "high":
            return "1" if self.low >= threshold else ""
        below = self.high < threshold or (self.high == threshold and not self.is_high_included)
        return "0" if below else ""


_KI67_NAME_PATTERN = re.compile(
    r"^(?:\(?(?:ki-?67|mib-?1)\)?){1,2}(?:li|(?:labell?ing|proliferati(?:on|ve))?index|阳性率|指数|增殖指数|标记指数|阳性指数)?[:=]?"
)
_STAINING_WORDS = re.compile(
    r"核?阳性(?:细胞)?(?:表达)?(?:数|率|比例|指数|百分比)?|增殖指数|标记指数|指数|(?:labell?ing|proliferati(?:on|ve))index|"
    r"positive(?:cells|nuclei)?|positivity|\(\++\)|(?<=%)\+(?!\d)|^\(?\+,|(?<!\d)\+(?=\d)"
)
_APPROXIMATION_WORDS = re.compile(r"大?约[为占]?|占|左右|≈|约|about|approx(?:imately|\.)?|circa|ca\.?|^~")
_PERCENT_SIGN = r"(?:%|percent|percents|pct)"
_RANGE_PATTERN = re.compile(
    rf"({_NUMBER_PATTERN})({_PERCENT_SIGN}?)(?:[-~—〜∼]|至|到|to)({_NUMBER_PATTERN})({_PERCENT_SIGN}?)"
)
_UPPER_BOUND_PATTERN = re.compile(
    rf"(?:(<|小于|不足|低于|少于|lessthan|below|under)|<=|≤|upto|不超过)({_NUMBER_PATTERN})({_PERCENT_SIGN}?)|({_NUMBER_PATTERN})({_PERCENT_SIGN}?)以下"
)
_LOWER_BOUND_PATTERN = re.compile(
    rf"(?:>=?|≥|大于|超过|高于|至少|不低于|over|above|morethan|atleast)({_NUMBER_PATTERN})({_PERCENT_SIGN}?)|({_NUMBER_PATTERN})({_PERCENT_SIGN}?)(?:及?以上)"
)
_SINGLE_VALUE_PATTERN = re.compile(rf"({_NUMBER_PATTERN})({_PERCENT_SIGN}?)")


def parse_ki67_percent(text: str) -> Ki67Percent | None:
    """Parse Ki-67 cells such as ``2,5 %``, ``about 15 %``, ``(+, 15%)``, ``10-20%``, ``<5%``, ``MIB-1 8%``.

    None for a blank cell. A plus sign beside a percentage means "stained", as pathologists write it, not "or more".

    Raises
    ------
    CellError
        If the cell contains anything else, such as two values or unknown words.
    """
    if re.search(r"\d\s+\d", re.sub(r"(?i)ki[\s-]*67|mib[\s-]*1", " ", text)):
        raise CellError("percent-none")
    plain = normalise_cell(
        re.sub(r"(?<![\d,.])(\d{1,3}),(\d{1,2})(?![\d,.])", r"\1.\2", text, flags=re.ASCII)
    )
    if _is_unknown(_KI67_NAME_PATTERN.sub("", plain)):
        return None
    core = _APPROXIMATION_WORDS.sub("", _STAINING_WORDS.sub("", _KI67_NAME_PATTERN.sub("", plain)))
    core = re.sub(r"[()\[\],:]|,\+$|,\+\)$", " ", core).strip()
    if found := _RANGE_PATTERN.fullmatch(core):
        low, high = _parse_percent_number(found[1]), _parse_percent_number(found[3])
        if low > high:
            raise CellError("percent-reversed")
        return Ki67Percent(low, high, lacks_percent_sign=not (found[2] or found[4]))
    if found := _UPPER_BOUND_PATTERN.fullmatch(core):
        high = _parse_percent_number(found[2] or found[4])
        strict = found[1] is not None
        return Ki67Percent(0.0, high, "low", not (found[3] or found[5]), is_high_included=not strict)
    if found := _LOWER_BOUND_PATTERN.fullmatch(core):
        return Ki67Percent(
            _parse_percent_number(found[1] or found[3]), 100.0, "high", not (found[2] or found[4])
        )
    if found := _SINGLE_VALUE_PATTERN.fullmatch(core):
        number = _parse_percent_number(found[1])
        return Ki67Percent(number, number, lacks_percent_sign=not found[2])
    raise CellError("percent-none")


def _parse_percent_number(number: str) -> float:
    if float(number) > 100.0:
        raise CellError("percent-above")
    return float(number)


__all__ = ["BLANK_VALUES", "Ki67Percent", "is_blank_cell", "normalise_cell"]
