"""Age in years and sex out of a cell, as hospitals write them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real

from gliomark.messages import Message, message
from gliomark.study import GliomarkError
from gliomark.tables.headers import age_unit, stated_sexes
from gliomark.tables.text import BLANKS, squeezed

OLDEST = 120.0
# "90+" and ">89" are how the very old are kept from being recognised; below this a bound says too little.
_TOP_CODED_FROM = 80
_MOST_MONTHS = 36
_NUMBER = r"\d{1,3}(?:\.\d*)?"
_YEARS = r"(?:周岁|岁|years?(?:old|ofage)?|yrs?\.?(?:old)?|y\.?/?o\.?|y|jahre?|ans|años)"
_MONTHS = r"(?:个月龄?|月龄?|months?(?:old)?|mos?\.?|m)"
_WEEKS = r"(?:周|weeks?(?:old)?|wks?|w)"
_DAYS = r"(?:天|日龄?|days?(?:old)?|d)"
_PER_YEAR = {"years": 1.0, "months": 12.0, "weeks": 52.18, "days": 365.2425}
_TOP = re.compile(
    rf"(?:>=|≥|atleast|至少)?(\d{{2,3}}){_YEARS}?(?:及?以上|\+|or(?:older|over|above)|andover)?{_YEARS}?"
)
_ABOVE = re.compile(rf"(?:>|over|olderthan|大于|超过)(\d{{2,3}}){_YEARS}?")
_INFANT = re.compile(rf"(?:<|under|lessthan|小于|不足|未满)1{_YEARS}?")
_SEXES: Mapping[str, int] = {
    **dict.fromkeys("m male man boy mann männlich homme hombre 男 男性 男士 男孩 ♂".split(), 0),
    **dict.fromkeys("f female woman girl w frau weiblich femme mujer 女 女性 女士 女孩 ♀".split(), 1),
}  # fmt: skip
_SEX_UNKNOWN = BLANKS | set("u x? 未说明 未说明的性别 未知的性别 notspecified".split())


class CellError(ValueError):
    """A cell that is not understood or cannot be; ``reason`` ends the sentence "The age ... of patient ... "."""

    def __init__(self, code: str, **parameters: object) -> None:
        super().__init__(message(code, **parameters))

    @property
    def reason(self) -> Message:
        return self.args[0]


@dataclass(frozen=True)
class AgeForm:
    """What a column of ages means. unit: what a bare number counts, years, months or days.

    m_is_months: False where ``50F`` stands in the column, so that ``45M`` is a man.
    """

    unit: str = "years"
    m_is_months: bool = True


def age_form(header: str, cells: Iterable[str]) -> AgeForm:
    """How a column's ages are to be read, by its name and by all that stands in it."""
    return AgeForm(
        age_unit(header), not any(re.fullmatch(r"\d{1,3}(f|female|女)", squeezed(c)) for c in cells)
    )


def parse_age(text: str, form: AgeForm = AgeForm()) -> float | None:
    """Years from a cell, None for a blank one.

    ``45``, ``49,5``, ``045Y``, ``45岁``, ``18M`` (1.5), ``3岁6月`` (3.5), ``>89`` and ``90+`` (90), ``<1`` (0.5).

    Raises: CellError for anything else: below 0 or above 120, nought, a date or year of birth, a range.
    """
    plain = squeezed(text)
    if plain in BLANKS or plain in {"000y", "999y"}:  # DICOM's way to say that nobody knew
        return None
    if not text.isascii():
        plain = re.sub(r"^年龄[::]?", "", plain)
    plain = re.sub(r"(?<!\d)(\d{1,3}),(\d{1,2})(?![\d,])", r"\1.\2", plain)
    if re.search(r"\d\s+\d", text.strip()):
        raise CellError("age-not-number")
    if (found := re.fullmatch(r"(\d+)m", plain)) and not (form.m_is_months and _plainly_months(found[1])):
        raise CellError("age-months-or-male")
    years = _years(plain, form.unit)
    if years is None:
        raise _age_error(plain)
    if years == 0:
        raise CellError("age-nought")
    if not 0 < years <= OLDEST:
        raise CellError("age-outside", oldest=f"{OLDEST:.0f}")
    return years


def _plainly_months(number: str) -> bool:
    """As DICOM writes months, with three digits, or so few that nobody would count years."""
    return len(number) == 3 or int(number) <= _MOST_MONTHS


def _years(plain: str, unit: str) -> float | None:
    """The age of one well-formed text; None where it has no form of an age."""
    if re.fullmatch(r"[+-]?\d+(\.\d*)?", plain) and not re.fullmatch(r"(19|20)\d\d|\d{6,8}", plain):
        return float(plain) / _PER_YEAR[unit]
    if found := re.fullmatch(rf"({_NUMBER}){_YEARS}(半|(?:({_NUMBER}){_MONTHS}))?", plain):
        half = 0.5 if found[2] == "半" else float(found[3] or 0) / 12
        return float(found[1]) + half if float(found[3] or 0) < 12 else None
    for name, words in (("months", _MONTHS), ("weeks", _WEEKS), ("days", _DAYS)):
        if found := re.fullmatch(rf"(\d+(?:\.\d*)?){words}", plain):
            return float(found[1]) / _PER_YEAR[name]
    if found := _ABOVE.fullmatch(plain):
        return float(found[1]) + 1 if int(found[1]) >= _TOP_CODED_FROM else None
    if (found := _TOP.fullmatch(plain)) and int(found[1]) >= _TOP_CODED_FROM:
        return float(found[1])
    return 0.5 if _INFANT.fullmatch(plain) else None


def _age_error(plain: str) -> CellError:
    if re.fullmatch(r"(19|20)\d\d年?", plain):
        return CellError("age-birth-year")
    if re.match(r"\d{4}[-/.年]\d|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}|(19|20)\d{6}$|(19|20)\d{4}$", plain):
        return CellError("age-date")
    return CellError("age-not-number")


@dataclass(frozen=True)
class SexCoding:
    """What the numbers of one column of sexes mean. codes: digit to 0 male, 1 female, None not known.

    stated: the column's name says so. m_is_male: False where an H beside it makes M a mujer.
    """

    codes: Mapping[str, int | None]
    reason: Message | None = None
    m_is_male: bool = True


def sex_coding(header: str, cells: Iterable[str], *, own: bool = False) -> SexCoding:
    """How a column's numbers are to be read: as its name states, else 0 and 1, or 1 and 2 where both stand in it.

    Several rows of 1 alone may be men (1, 2) or women (0, 1) and are not read; a single row is, as documented, and
    so is a table that gliomark wrote (own).

    Numbers of any other kind, or beside words, have no meaning here; ``parse_sex`` refuses them with the reason.
    """
    coded = [code for cell in cells if (code := _code(cell)) not in _SEX_UNKNOWN]
    found = set(coded)
    numbers = {cell for cell in found if cell.isdigit()}
    m_is_male = not found & {"h", "hombre", "mujer"}
    if stated := stated_sexes(header):
        return SexCoding(_completed(stated, numbers), message("sex-not-stated"), m_is_male)
    if numbers and found & set(_SEXES):
        return SexCoding({}, message("sex-mixed"), m_is_male)
    if numbers == {"1"} and len(coded) > 1 and not own:
        return SexCoding({}, message("sex-lone-code"), m_is_male)
    if numbers <= {"0", "1"}:
        return SexCoding({"0": 0, "1": 1}, None, m_is_male)
    if {"1", "2"} <= numbers <= {"1", "2", "9"}:  # ISO 5218 and GB/T 2261.1; 9 is "not stated"
        return SexCoding({"1": 0, "2": 1, "9": None}, None, m_is_male)
    return SexCoding({}, message("sex-codes"), m_is_male)


def _completed(stated: Mapping[str, int | None], numbers: set[str]) -> dict[str, int | None]:
    """A name that states one sex's number leaves the other number to the other sex."""
    codes, others = dict(stated), numbers - set(stated)
    known = [sex for sex in codes.values() if sex is not None]
    if len(known) == 1 and len(others) == 1:
        codes[others.pop()] = 1 - known[0]
    return codes


def parse_sex(text: str, coding: SexCoding) -> int | None:
    """0 male, 1 female, None for a blank cell. Raises CellError for a word or number without a known meaning."""
    plain = _code(text)
    if plain in _SEX_UNKNOWN:
        return None
    if plain in coding.codes:
        return coding.codes[plain]
    if plain == "m" and not coding.m_is_male:
        raise CellError("sex-m-or-mujer")
    if plain in _SEXES:
        return _SEXES[plain]
    raise CellError("sex-is-not-understood", reason=coding.reason or message("sex-words"))


def _code(text: str) -> str:
    return re.sub(r"^(\d)\.0+$", r"\1", squeezed(text))


def check_person(age: float | None, sex: int | None) -> None:
    """Raises GliomarkError for an age outside 0 to 120 years or a sex that is neither 0, 1 nor None."""
    number = isinstance(age, Real) and not isinstance(age, bool)
    if age is not None and not (number and 0 <= age <= OLDEST):
        raise GliomarkError(message("age-impossible", age=repr(age), oldest=f"{OLDEST:.0f}"))
    if sex is not None and (isinstance(sex, bool) or sex not in (0, 1)):
        raise GliomarkError(message("sex-impossible", sex=repr(sex)))
