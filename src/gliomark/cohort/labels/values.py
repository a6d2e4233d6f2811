"""One cell of a hospital's table as the cohort writes it. Blank in, blank out; a blank means not known.

A cell that could mean two things raises ValueError, whose text ends the sentence "the <column> of <id> ...".
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

BLANKS = frozenset(
    "na n/a nan none null unknown unk - -- — / ? . 未知 不详 不明 未查 未测 未检测 未做 无法判断 不确定 可疑 待定 "
    "indeterminate equivocal uncertain pending nos notavailable notdone nottested notreported missing".split()
) | {""}
_OLDEST_SHOWN = 90.0
_SEXES = {"0": "0", "m": "0", "male": "0", "男": "0", "男性": "0", "1": "1", "f": "1", "female": "1", "女": "1",
          "女性": "1"}  # fmt: skip
_NO = re.compile(r"0|-|\(-\)|neg\w*|no|n|false|阴性|无|否")
_YES = re.compile(r"1|\+{1,3}|\(\++\)|pos\w*|yes|y|true|阳性|有|是")
_WILD = re.compile(
    r"wild|(idh[12]?-?)?(wt|wild-?type)|.*野生型?|.*[非未无]突变|未见突变|(non|un|not)-?mutat\w*|non-?mutant|"
    r"(idh[12])?(p\.?)?r(132|172)\w*\(?-\)?"
)
_MUTANT = re.compile(
    r"(idh[12]?-?)?mut(ant|ated|ation)?|.*突变型?|(idh[12])?(p\.?)?(r|arg)(132|172)\w*(\(?\+\)?)?"
)
_UNMETHYLATED = re.compile(r"un-?methylated|non-?methylated|notmethylated|未甲基化|非甲基化|无甲基化|u")
_METHYLATED = re.compile(r"methylated|methylation|甲基化|有甲基化|m")
_INTACT = re.compile(
    r"intact|non-?co-?del\w*|no-?co-?deletion|notco-?deleted|未(共|联合)?缺失|无(共|联合)?缺失|完整"
)
_CODELETED = re.compile(r"co-?del|co-?deleted|co-?deletion|(共|联合)缺失|缺失")
_RELATIVE = re.compile(r"relativeco-?deletion|partial.*|仅?1p缺失|仅?19q缺失")
_ROMAN = {"i": "1", "ii": "2", "iii": "3", "iv": "4", "一": "1", "二": "2", "三": "3", "四": "4"}
_HIGH = re.compile(r"high|高|高表达")
_LOW = re.compile(r"low|低|低表达")
_NUMBER = r"\d+(?:\.\d+)?"


def squeezed(text: str) -> str:
    """Lower case, full-width letters as plain ones, no blanks: the form that values are compared in."""
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text).replace("−", "-").lower())


def age(text: str) -> str:
    """Years; 90 and above are written as 90 (the rule of HIPAA's safe harbour)."""
    plain = squeezed(text)
    if plain in BLANKS:
        return ""
    found = re.fullmatch(rf"({_NUMBER})(?:岁|周岁|years?|yrs?|y)?|0*(\d+)y", plain.replace(",", "."))
    if not found:
        raise ValueError("is not a number of years")
    years = float(found[1] or found[2])
    if years > 120:
        raise ValueError("is above 120 years")
    return f"{min(years, _OLDEST_SHOWN):g}"


def sex(text: str) -> str:
    """0 male, 1 female."""
    plain = re.sub(r"\.0$", "", squeezed(text))
    if plain in BLANKS:
        return ""
    if plain not in _SEXES:
        raise ValueError("is not understood: give M or 0 (male), F or 1 (female)")
    return _SEXES[plain]


def idh_mutant(text: str) -> str:
    """1 mutant, 0 wild type."""
    return _flag(text, _MUTANT, _WILD, "mutant or wild type")


def mgmt(text: str) -> str:
    """1 promoter methylated, 0 not."""
    return _flag(text, _METHYLATED, _UNMETHYLATED, "methylated or unmethylated")


def codel_1p19q(text: str) -> str:
    """1 both arms deleted, 0 not; a partial or relative deletion is not known."""
    return (
        "" if _RELATIVE.fullmatch(squeezed(text)) else _flag(text, _CODELETED, _INTACT, "codeleted or intact")
    )


def ki67_level(text: str) -> str:
    """1 high, 0 low."""
    return _flag(text, _HIGH, _LOW, "high or low")


def _flag(text: str, positive: re.Pattern[str], negative: re.Pattern[str], choices: str) -> str:
    plain = re.sub(r"^([01])\.0$", r"\1", squeezed(text))
    plain = re.sub(r"\(nos\)|status$", "", plain)
    if negative.fullmatch(plain) or (_NO.fullmatch(plain) and plain != ""):
        return "0"
    if positive.fullmatch(plain) or _YES.fullmatch(plain):
        return "1"
    if plain in BLANKS:
        return ""
    raise ValueError(f"is not understood: give 1 or 0, or {choices}")


def who_grade(text: str) -> str:
    """1 to 4, from "WHO III", "G3", "Ⅲ级", "grade 3"."""
    plain = squeezed(text)
    if plain in BLANKS:
        return ""
    core = re.sub(r"who|cns|grade|级|\(20\d\d\)|20(07|16|21)|^g(?=[1-4i])|[\s:._]", "", plain)
    core = re.sub(r"0$", "", core) if re.fullmatch(r"[1-4]\.0", plain) else core
    grade = _ROMAN.get(core, core)
    if grade not in {"1", "2", "3", "4"}:
        raise ValueError("is no single WHO grade: give 1, 2, 3 or 4")
    return grade


@dataclass(frozen=True)
class Percent:
    """A Ki-67 cell: one number (low = high), a range, or a bound on one side ("<5%": 0 to 5).

    open_at: the side where the bound is open, "low" or "high", else blank. fraction: a bare number between 0
    and 1, which may be a share or a percent.
    """

    low: float
    high: float
    open_at: str = ""
    bare: bool = False

    @property
    def fraction(self) -> bool:
        """Whether it may be a share of one as well as a percent."""
        return self.bare and 0 < self.low < 1

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
        return "0" if self.high <= threshold else ""


_AROUND_PERCENT = re.compile(r"ki-?67|mib-?1|指数|阳性率|阳性|[()::约≈,,+]|about|approx\.?|ca\.?")
_RANGE = re.compile(rf"({_NUMBER})%?[-–—至到~]({_NUMBER})%?")
_BELOW = re.compile(rf"(?:<|小于|不足)({_NUMBER})%?")
_ABOVE = re.compile(rf"(?:>=?|≥|大于|超过)({_NUMBER})%?|({_NUMBER})%?以上")
_SINGLE = re.compile(rf"({_NUMBER})(%?)")


def ki67_percent(text: str) -> Percent | None:
    """``15``, ``15%``, ``about 15 %``, ``(+, 15%)``, ``10-20%``, ``<5%``, ``>30%``; None where blank.

    A plus sign is read as pathologists write it, "stained", not as "and more".
    """
    plain = squeezed(text)
    if plain in BLANKS:
        return None
    core = _AROUND_PERCENT.sub("", plain)
    if found := _RANGE.fullmatch(core):
        low, high = _checked(found[1]), _checked(found[2])
        if low > high:
            raise ValueError("is a range from more to less")
        return Percent(low, high)
    if found := _BELOW.fullmatch(core):
        return Percent(0.0, _checked(found[1]), open_at="low")
    if found := _ABOVE.fullmatch(core):
        return Percent(_checked(found[1] or found[2]), 100.0, open_at="high")
    if found := _SINGLE.fullmatch(core):
        number = _checked(found[1])
        return Percent(number, number, bare=not found[2])
    raise ValueError("is no percent: give a number such as 15")


def _checked(number: str) -> float:
    if float(number) > 100.0:
        raise ValueError("is above 100 percent")
    return float(number)
