"""One cell of a hospital's table as the cohort writes it. Blank in, blank out; a blank means not known.

A cell that is not wholly understood raises CellError, whose reason ends the sentence "<column> '<cell>' of <id> ...".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from gliomark.cohort.labels.lexicon import CODEL_1P19Q, IDH, MGMT, NOT_KNOWN, Lexicon
from gliomark.cohort.labels.phrases import all_changed, any_changed
from gliomark.messages import Message, message
from gliomark.tables import BLANKS, CellError
from gliomark.tables.age_sex import AgeForm, SexCoding, parse_age, parse_sex
from gliomark.tables.text import is_blank, squeezed

_OLDEST_SHOWN = 90.0
_CODES = {
    **dict.fromkeys("1 1.0 + (+) y yes true 是 有".split(), "1"),
    **dict.fromkeys("0 0.0 - (-) n no false 否".split(), "0"),
}  # fmt: skip
_NUMBER = r"\d{1,3}(?:\.\d+)?"


def age(text: str, form: AgeForm = AgeForm()) -> str:
    """Years; 90 and above are written as 90 (the rule of HIPAA's safe harbour)."""
    years = parse_age(text, form)
    return "" if years is None else f"{min(years, _OLDEST_SHOWN):.4g}"


def sex(text: str, coding: SexCoding) -> str:
    """0 male, 1 female."""
    found = parse_sex(text, coding)
    return "" if found is None else str(found)


def idh_mutant(text: str) -> str:
    """1 where IDH1 or IDH2 is mutant, 0 wild type."""
    return _read(text, IDH, any_changed, message("choices-idh"))


def mgmt(text: str) -> str:
    """1 promoter methylated, 0 not. A stain for the protein, as ``MGMT (+)``, says nothing of methylation."""
    if re.fullmatch(r"[mu]", squeezed(text)):
        return str(int(squeezed(text) == "m"))
    if re.search(r"mgmt", squeezed(text)) and not re.search(r"meth|甲基化", squeezed(text)):
        raise CellError("cell-protein", choices=message("choices-mgmt"))
    return _read(text, MGMT, any_changed, message("choices-mgmt"))


def mgmt_or_stain(text: str) -> str:
    """``mgmt`` in a column whose name says nothing of methylation: a mere stain's result is refused."""
    if re.fullmatch(r"\(?[+]+\)?|\(-\)|[阴阳]性(\([+-]+\))?", squeezed(text)):
        raise CellError("cell-protein", choices=message("choices-mgmt"))
    return mgmt(text)


def codel_1p19q(text: str) -> str:
    """1 both arms deleted, 0 not; a partial or relative deletion is not known."""
    plain = squeezed(text)
    if re.fullmatch(r"(?:仅|只有|单纯|单独|only|isolated)(1p|19q)(?:缺失|deletion|deleted|loss|lost)", plain):
        return "0"
    if re.search(r"(1p|19q)\W*[-+]|(1p|19q)\W*\([-+]+\)", plain) and not re.search(
        r"缺失|del|loss|loh", plain
    ):
        raise CellError("cell-sign-of-arm", choices=message("choices-codel"))
    return _read(text, CODEL_1P19Q, all_changed, message("choices-codel"))


def ki67_level(text: str) -> str:
    """1 high, 0 low."""
    plain = re.sub(r"^(ki-?67|mib-?1)[::]?|(表达|水平|expression|level)$", "", squeezed(text))
    if _says_nothing(plain):
        return ""
    if plain in _CODES:
        return _CODES[plain]
    if plain in {"high", "高"} | {"low", "低"}:
        return str(int(plain in {"high", "高"}))
    raise CellError("cell-not-understood", choices=message("choices-level"))


def _read(text: str, lexicon: Lexicon, read: Callable[[str, Lexicon], str], choices: Message) -> str:
    plain = squeezed(text)
    if plain in _CODES:
        return _CODES[plain]
    if _says_nothing(plain):
        return ""
    try:
        return read(text, lexicon)
    except CellError as error:
        raise CellError("cell-refused", reason=error.reason, choices=choices) from None


def _says_nothing(plain: str) -> bool:
    return plain in BLANKS or plain in NOT_KNOWN


_DIAGNOSES = re.compile(
    r"glioma|astrocytoma|oligodendroglioma|oligoastrocytoma|glioblastoma|gbm|anaplastic|diffuse|multiforme|胶质瘤|星形细胞瘤|"
    r"少突胶质细胞瘤|胶质母细胞瘤|间变性?|弥漫性?|,|idh-?mutant|idh-?wild-?type|idh突变型|idh野生型"
)


def _plain_words(found: re.Match[str]) -> str:
    return found[0].rstrip("5-")


_ROMAN = {"i": "1", "ii": "2", "iii": "3", "iv": "4", "一": "1", "二": "2", "三": "3", "四": "4"}


def who_grade(text: str) -> str:
    """1 to 4, from "WHO III", "G3", "Ⅲ级", "grade 3"."""
    plain = squeezed(text)
    if _says_nothing(plain) or re.fullmatch(r"(疑似|可疑|考虑).*|.*\?", plain):
        return ""
    core = re.sub(r"\((?:who)?(?:cns)?20(?:07|16|21)(?:版)?\)|(?<=who|cns)20(?:07|16|21)", "", plain)
    core = re.sub(
        r"^\((.*)\)$|^(who)\((.*)\)$", r"\1\2\3", re.sub(r"cns5|grade-(?=[1-4i])", _plain_words, core)
    )
    core = re.sub(r"^[1-4]\.0$", lambda found: found[0][0], _DIAGNOSES.sub("", core))
    found = re.fullmatch(
        r"(?:cns)?(?:who)?(?:cns)?(?:grade|gr\.?|分级|级别|g)?[:._]?([1-4]|i{1,3}|iv|[一二三四])级?(?:\(who\))?",
        core,
    )
    if not found:
        raise CellError("cell-no-grade")
    return _ROMAN.get(found[1], found[1])


@dataclass(frozen=True)
class Percent:
    """A Ki-67 cell: one number (low = high), a range, or a bound on one side ("<5%": 0 to 5).

    open_at: the side where the bound is open, "low" or "high", else blank. bare: without a percent sign.
    includes_high: whether an upper bound may be reached, as in "up to 5%".
    """

    low: float
    high: float
    open_at: str = ""
    bare: bool = False
    includes_high: bool = True

    @property
    def is_fraction(self) -> bool:
        """Whether it may be a share of one as well as a percent."""
        stated = self.low if self.open_at == "high" else self.high
        return self.bare and 0 < stated < 1

    @property
    def value(self) -> str:
        """The percent, the mean of a range; blank where only a bound is known."""
        return "" if self.open_at else f"{(self.low + self.high) / 2:g}"

    def level(self, threshold: float) -> str:
        """1 at or above the threshold, 0 below, a range by its mean; blank where a bound leaves it open."""
        if self.value:
            return str(int((self.low + self.high) / 2 >= threshold))
        if self.open_at == "high":
            return "1" if self.low >= threshold else ""
        below = self.high < threshold or (self.high == threshold and not self.includes_high)
        return "0" if below else ""


_NAME = re.compile(
    r"^(?:\(?(?:ki-?67|mib-?1)\)?){1,2}(?:li|(?:labell?ing|proliferati(?:on|ve))?index|阳性率|指数|增殖指数|标记指数|阳性指数)?[:=]?"
)
_STAINED = re.compile(
    r"核?阳性(?:细胞)?(?:表达)?(?:数|率|比例|指数|百分比)?|增殖指数|标记指数|指数|(?:labell?ing|proliferati(?:on|ve))index|"
    r"positive(?:cells|nuclei)?|positivity|\(\++\)|(?<=%)\+(?!\d)|^\(?\+,|(?<!\d)\+(?=\d)"
)
_ABOUT = re.compile(r"大?约[为占]?|占|左右|≈|约|about|approx(?:imately|\.)?|circa|ca\.?|^~")
_SIGN = r"(?:%|percent|percents|pct)"
_RANGE = re.compile(rf"({_NUMBER})({_SIGN}?)(?:[-~—〜∼]|至|到|to)({_NUMBER})({_SIGN}?)")
_UP_TO = re.compile(
    rf"(?:(<|小于|不足|低于|少于|lessthan|below|under)|<=|≤|upto|不超过)({_NUMBER})({_SIGN}?)|({_NUMBER})({_SIGN}?)以下"
)
_FROM = re.compile(
    rf"(?:>=?|≥|大于|超过|高于|至少|不低于|over|above|morethan|atleast)({_NUMBER})({_SIGN}?)|({_NUMBER})({_SIGN}?)(?:及?以上)"
)
_SINGLE = re.compile(rf"({_NUMBER})({_SIGN}?)")


def ki67_percent(text: str) -> Percent | None:
    """``15``, ``2,5 %``, ``about 15 %``, ``(+, 15%)``, ``10-20%``, ``<5%``, ``>30%``, ``MIB-1 8%``; None where blank.

    A plus sign beside a percent is read as pathologists write it, "stained", not as "and more".

    Raises: CellError for anything else, also for two values or words that are not known.
    """
    if re.search(r"\d\s+\d", re.sub(r"(?i)ki[\s-]*67|mib[\s-]*1", " ", text)):
        raise CellError("percent-none")
    plain = squeezed(re.sub(r"(?<![\d,.])(\d{1,3}),(\d{1,2})(?![\d,.])", r"\1.\2", text, flags=re.ASCII))
    if _says_nothing(_NAME.sub("", plain)):
        return None
    core = _ABOUT.sub("", _STAINED.sub("", _NAME.sub("", plain)))
    core = re.sub(r"[()\[\],:]|,\+$|,\+\)$", " ", core).strip()
    if found := _RANGE.fullmatch(core):
        low, high = _checked(found[1]), _checked(found[3])
        if low > high:
            raise CellError("percent-reversed")
        return Percent(low, high, bare=not (found[2] or found[4]))
    if found := _UP_TO.fullmatch(core):
        high = _checked(found[2] or found[4])
        strict = found[1] is not None
        return Percent(0.0, high, "low", not (found[3] or found[5]), includes_high=not strict)
    if found := _FROM.fullmatch(core):
        return Percent(_checked(found[1] or found[3]), 100.0, "high", not (found[2] or found[4]))
    if found := _SINGLE.fullmatch(core):
        number = _checked(found[1])
        return Percent(number, number, bare=not found[2])
    raise CellError("percent-none")


def _checked(number: str) -> float:
    if float(number) > 100.0:
        raise CellError("percent-above")
    return float(number)


__all__ = ["BLANKS", "Percent", "is_blank", "squeezed"]
