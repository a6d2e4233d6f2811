"""Parse age in years and sex from cells, in the formats that hospitals use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real

from gliomark.errors import InputError
from gliomark.messages import Message, message
from gliomark.tables.cell_text import BLANK_VALUES, normalise_cell
from gliomark.tables.column_names import parse_age_unit, parse_sex_codes

MAX_AGE_YEARS = 120.0
# "90+" and ">89" de-identify very old patients; bounds below this age are too imprecise.
_MIN_TOP_CODED_AGE = 80
_MAX_AGE_MONTHS = 36
_NUMBER = r"\d{1,3}(?:\.\d*)?"
_YEAR_UNITS = r"(?:周岁|岁|years?(?:old|ofage)?|yrs?\.?(?:old)?|y\.?/?o\.?|y|jahre?|ans|años)"
_MONTH_UNITS = r"(?:个月龄?|月龄?|months?(?:old)?|mos?\.?|m)"
_WEEK_UNITS = r"(?:周|weeks?(?:old)?|wks?|w)"
_DAY_UNITS = r"(?:天|日龄?|days?(?:old)?|d)"
_UNITS_PER_YEAR = {"years": 1.0, "months": 12.0, "weeks": 52.18, "days": 365.2425}
_AT_LEAST_AGE = re.compile(
    rf"(?:>=|≥|atleast|至少)?(\d{{2,3}}){_YEAR_UNITS}?(?:及?以上|\+|or(?:older|over|above)|andover)?{_YEAR_UNITS}?"
)
_ABOVE_AGE = re.compile(rf"(?:>|over|olderthan|大于|超过)(\d{{2,3}}){_YEAR_UNITS}?")
_UNDER_ONE_YEAR = re.compile(rf"(?:<|under|lessthan|小于|不足|未满)1{_YEAR_UNITS}?")
_SEX_BY_WORD: Mapping[str, int] = {
    **dict.fromkeys("m male man boy mann männlich homme hombre 男 男性 男士 男孩 ♂".split(), 0),
    **dict.fromkeys("f female woman girl w frau weiblich femme mujer 女 女性 女士 女孩 ♀".split(), 1),
}
_UNKNOWN_SEX_WORDS = BLANK_VALUES | set("u x? 未说明 未说明的性别 未知的性别 notspecified".split())


class CellError(ValueError):
    """The value of a cell is not understood or impossible.

    ``reason`` completes the message "The age ... of patient ... ".
    """

    def __init__(self, code: str, **parameters: object) -> None:
        super().__init__(message(code, **parameters))

    @property
    def reason(self) -> Message:
        """The reason, as the end of a sentence."""
        message: Message = self.args[0]
        return message


@dataclass(frozen=True)
class AgeFormat:
    """The format of a column of ages.

    Attributes
    ----------
    unit
        Unit of a number without one: years, months or days.
    uses_m_for_months
        False if the column contains values like ``50F``, so that the M of ``45M`` means male.
    """

    unit: str = "years"
    uses_m_for_months: bool = True


def detect_age_format(header: str, cells: Iterable[str]) -> AgeFormat:
    """Detect the format of a column of ages from its name and all its cells."""
    return AgeFormat(
        parse_age_unit(header),
        not any(re.fullmatch(r"\d{1,3}(f|female|女)", normalise_cell(c)) for c in cells),
    )


def parse_age(text: str, age_format: AgeFormat = AgeFormat()) -> float | None:
    """Parse an age in years; None for an empty cell.

    Accepts ``45``, ``49,5``, ``045Y``, ``45岁``, ``18M`` (1.5), ``3岁6月`` (3.5), ``>89`` and ``90+`` (90),
    ``<1`` (0.5).

    Raises
    ------
    CellError
        For anything else: below 0 or above 120, zero, a date or a birth year, a range.
    """
    plain = normalise_cell(text)
    if plain in BLANK_VALUES or plain in {"000y", "999y"}:  # DICOM's placeholders for an unknown age
        return None
    if not text.isascii():
        plain = re.sub(r"^年龄[::]?", "", plain)
    plain = re.sub(r"(?<!\d)(\d{1,3}),(\d{1,2})(?![\d,])", r"\1.\2", plain)
    if re.search(r"\d\s+\d", text.strip()):
        raise CellError("age-not-number")
    if (found := re.fullmatch(r"(\d+)m", plain)) and not (
        age_format.uses_m_for_months and _is_clearly_months(found[1])
    ):
        raise CellError("age-months-or-male")
    years = _parse_years(plain, age_format.unit)
    if years is None:
        raise _create_age_error(plain)
    if years == 0:
        raise CellError("age-nought")
    if not 0 < years <= MAX_AGE_YEARS:
        raise CellError("age-outside", oldest=f"{MAX_AGE_YEARS:.0f}")
    return years


def _is_clearly_months(number: str) -> bool:
    """Whether a number before M is months: three digits as in DICOM, or at most 36."""
    return len(number) == 3 or int(number) <= _MAX_AGE_MONTHS


def _parse_years(text: str, unit: str) -> float | None:
    """Parse an age in years from normalised text; None if it does not have the format of an age."""
    if re.fullmatch(r"[+-]?\d+(\.\d*)?", text) and not re.fullmatch(r"(19|20)\d\d|\d{6,8}", text):
        return float(text) / _UNITS_PER_YEAR[unit]
    if found := re.fullmatch(rf"({_NUMBER}){_YEAR_UNITS}(半|(?:({_NUMBER}){_MONTH_UNITS}))?", text):
        half = 0.5 if found[2] == "半" else float(found[3] or 0) / 12
        return float(found[1]) + half if float(found[3] or 0) < 12 else None
    for name, words in (("months", _MONTH_UNITS), ("weeks", _WEEK_UNITS), ("days", _DAY_UNITS)):
        if found := re.fullmatch(rf"(\d+(?:\.\d*)?){words}", text):
            return float(found[1]) / _UNITS_PER_YEAR[name]
    if found := _ABOVE_AGE.fullmatch(text):
        return float(found[1]) + 1 if int(found[1]) >= _MIN_TOP_CODED_AGE else None
    if (found := _AT_LEAST_AGE.fullmatch(text)) and int(found[1]) >= _MIN_TOP_CODED_AGE:
        return float(found[1])
    return 0.5 if _UNDER_ONE_YEAR.fullmatch(text) else None


def _create_age_error(text: str) -> CellError:
    if re.fullmatch(r"(19|20)\d\d年?", text):
        return CellError("age-birth-year")
    if re.match(r"\d{4}[-/.年]\d|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}|(19|20)\d{6}$|(19|20)\d{4}$", text):
        return CellError("age-date")
    return CellError("age-not-number")


@dataclass(frozen=True)
class SexCoding:
    """The meaning of the codes in a column of sexes.

    Attributes
    ----------
    codes
        Digit to 0 (male), 1 (female) or None (unknown).
    reason
        Why other codes are not understood.
    uses_m_for_male
        False if the column uses H (hombre), where M means mujer.
    """

    codes: Mapping[str, int | None]
    reason: Message | None = None
    uses_m_for_male: bool = True


def detect_sex_coding(header: str, cells: Iterable[str], *, is_gliomark_table: bool = False) -> SexCoding:
    """Detect the coding of a column of sexes: as its name states, else 0 and 1, or 1 and 2 if both occur.

    If several rows contain only 1, they may be men (1, 2) or women (0, 1) and the code stays undefined. A single row,
    or a table that gliomark wrote (``is_gliomark_table``), is read as 0 and 1. All other numbers, and numbers mixed
    with words, stay undefined; ``parse_sex`` then raises with the reason.
    """
    coded = [code for cell in cells if (code := _normalise_sex_code(cell)) not in _UNKNOWN_SEX_WORDS]
    found = set(coded)
    numbers = {cell for cell in found if cell.isdigit()}
    uses_m_for_male = not found & {"h", "hombre", "mujer"}
    if stated := parse_sex_codes(header):
        return SexCoding(_complete_sex_codes(stated, numbers), message("sex-not-stated"), uses_m_for_male)
    if numbers and found & set(_SEX_BY_WORD):
        return SexCoding({}, message("sex-mixed"), uses_m_for_male)
    if numbers == {"1"} and len(coded) > 1 and not is_gliomark_table:
        return SexCoding({}, message("sex-lone-code"), uses_m_for_male)
    if numbers <= {"0", "1"}:
        return SexCoding({"0": 0, "1": 1}, None, uses_m_for_male)
    if {"1", "2"} <= numbers <= {"1", "2", "9"}:  # ISO 5218 and GB/T 2261.1; 9 is "not stated"
        return SexCoding({"1": 0, "2": 1, "9": None}, None, uses_m_for_male)
    return SexCoding({}, message("sex-codes"), uses_m_for_male)


def _complete_sex_codes(stated: Mapping[str, int | None], found_codes: set[str]) -> dict[str, int | None]:
    """Complete a coding that defines only one sex: the other number in the column is the other sex."""
    codes, others = dict(stated), found_codes - set(stated)
    known = [sex for sex in codes.values() if sex is not None]
    if len(known) == 1 and len(others) == 1:
        codes[others.pop()] = 1 - known[0]
    return codes


def parse_sex(text: str, coding: SexCoding) -> int | None:
    """Parse a sex: 0 male, 1 female, None for an empty cell.

    Raises
    ------
    CellError
        If the word or number has no known meaning.
    """
    plain = _normalise_sex_code(text)
    if plain in _UNKNOWN_SEX_WORDS:
        return None
    if plain in coding.codes:
        return coding.codes[plain]
    if plain == "m" and not coding.uses_m_for_male:
        raise CellError("sex-m-or-mujer")
    if plain in _SEX_BY_WORD:
        return _SEX_BY_WORD[plain]
    raise CellError("sex-is-not-understood", reason=coding.reason or message("sex-words"))


def _normalise_sex_code(text: str) -> str:
    return re.sub(r"^(\d)\.0+$", r"\1", normalise_cell(text))


def check_age_and_sex(age: float | None, sex: int | None) -> None:
    """Check an age in years and a sex; either may be None.

    Raises
    ------
    InputError
        If the age is outside 0 to 120 years, or the sex is neither 0 (male) nor 1 (female).
    """
    number = isinstance(age, Real) and not isinstance(age, bool)
    if age is not None and not (number and 0 <= age <= MAX_AGE_YEARS):
        raise InputError(message("age-impossible", age=repr(age), oldest=f"{MAX_AGE_YEARS:.0f}"))
    if sex is not None and (isinstance(sex, bool) or sex not in (0, 1)):
        raise InputError(message("sex-impossible", sex=repr(sex)))
