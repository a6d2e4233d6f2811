"""Recognise the columns of patient id, age and sex by their names, in English and Chinese."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from gliomark.errors import InputError
from gliomark.messages import message

# The documented name takes precedence; any of the others is the patient's id if it is the only one.
_DOCUMENTED_ID_NAME = "id"
_PATIENT_ID_NAMES = frozenset(
    "patientid patient patientno patientnumber patientcode pid subjectid subject subjectno "
    "participantid participant  "
    "caseid case caseno mrn hospitalid hospitalno hospitalnumber medicalrecordnumber recordid studyid "
    "患者id 病人id 患者编号 病人编号 患者编码 患者号 病人号 患者标识 住院号 住院号码 病历号 病案号 "
    "登记号 影像号 影像编号 检查号 门诊号  "
    "病例号 病例编号 受试者编号 受试者id 影像id id号 住院id 病人编码 放射号 mr号 mri号 受试者".split()
)  # fmt: skip
# These columns may number the rows instead of the patients; used only if there is no other id column.
_ROW_NUMBER_NAMES = frozenset("编号 序号 no nr number num index 号 case_number serialno".split())
_AGE_NAME = re.compile(
    r"(patients?|患者|病人)?(age|alter|年龄)(in|at)?(years?|yrs?|y|岁|周岁|months?|mo|月|days?|天|"
    r"diagnosis|dx|mri|mr|scan|imaging|surgery|operation|presentation|study|baseline|inclusion|enrol?lment|tcga)*|"
    r"(诊断|确诊|就诊|检查|手术|入院|发病|入组|住院)时?(的)?年龄(岁)?|diagnosisage|ageat(initialpathologic)?diagnosis\w*"
)
_MONTHS_IN_NAME = re.compile(r"months?|月|(?<![a-z])mo(?![a-z])")
_DAYS_IN_NAME = re.compile(r"days?|天|日龄")
_SEX_NAME = re.compile(
    r"(patient'?s?|subject|患者的?|病人)?[\s_]*(biological)?[\s_]*(sex|gender|geschlecht|性别)([\s_]*at[\s_]*birth)?"
)
_SEX_WORDS = re.compile(
    r"females?|males?|women|woman|men|man|weiblich|männlich|[fmw](?![a-z])|女性?|男性?|unknown|未知|未说明|不详"
)


def normalise_column_name(name: str) -> str:
    """Normalise a column's name: lower case, without punctuation and without a final "(%)" or "(in %)"."""
    wide = unicodedata.normalize("NFKC", name).lower()
    return re.sub(r"[\W_]+", "", re.sub(r"[(\[][^()\[\]]*[)\]]\s*$", "", wide))


def is_age_column(name: str) -> bool:
    """Whether a column of this name contains ages."""
    return bool(_AGE_NAME.fullmatch(normalise_column_name(name)))


def parse_age_unit(name: str) -> str:
    """Parse the unit of a column of ages from its name: ``years``, ``months`` or ``days``."""
    wide = unicodedata.normalize("NFKC", name).lower()
    if _DAYS_IN_NAME.search(wide):
        return "days"
    return "months" if _MONTHS_IN_NAME.search(wide) else "years"


def is_sex_column(name: str) -> bool:
    """Whether a column of this name contains sexes; the name may state the coding, as 性别(1男2女)."""
    wide = unicodedata.normalize("NFKC", name).lower()
    found = _SEX_NAME.match(re.sub(r"^[\W_]+", "", wide))
    if not found:
        return False
    rest = _SEX_WORDS.sub("", re.sub(r"^[\W_]*", "", wide)[found.end() :])
    return bool(re.fullmatch(r"[\W_\d]*", rest)) or normalise_column_name(name) == re.sub(
        r"[\W_]+", "", found[0]
    )


def parse_sex_codes(name: str) -> dict[str, int | None]:
    """Parse the coding in a column's name: ``sex (1=male, 2=female)`` gives ``{"1": 0, "2": 1}``; may be empty."""
    wide = unicodedata.normalize("NFKC", name).lower()
    words = re.findall(rf"\d|{_SEX_WORDS.pattern}", _SEX_NAME.sub("", wide, count=1))
    if len(words) < 2 or len(words) % 2 or words[0].isdigit() == words[1].isdigit():
        return {}
    pairs = list(zip(words[::2], words[1::2], strict=True))
    pairs = pairs if words[0].isdigit() else [(code, word) for word, code in pairs]
    coding = {code: _parse_sex_word(word) for code, word in pairs if code.isdigit() and not word.isdigit()}
    known = [sex for sex in coding.values() if sex is not None]
    return coding if len(coding) == len(pairs) and sorted(known) in ([0, 1], [0], [1]) else {}


def _parse_sex_word(word: str) -> int | None:
    if re.match(r"f|w|女", word):
        return 1
    return 0 if re.match(r"m|男", word) else None


def select_id_column(
    path: Path, header: Sequence[str], records: Sequence[Sequence[str]], stated_name: str = ""
) -> int:
    """Select the column of patient ids: the stated one, else ``id``, else the only one named like an id.

    A column of row numbers is used only if there is no other candidate.

    Raises
    ------
    InputError
        If there is no such column, two of the same name, or several candidates with different contents.
    """
    names = [normalise_column_name(name) for name in header]
    wanted = normalise_column_name(stated_name) if stated_name else ""
    candidates = [
        at for at, name in enumerate(names) if (name == wanted if stated_name else is_id_column(header[at]))
    ]
    if not stated_name:
        candidates = _exclude_row_numbers(candidates, names, records)
        documented = [at for at in candidates if names[at] == _DOCUMENTED_ID_NAME]
        candidates = documented or candidates
    if not candidates:
        shown = ", ".join(name for name in header if name)[:80]
        raise InputError(message("table-no-id", table=path, columns=shown or message("no-columns")))
    if len(candidates) > 1 and len({tuple(row[at] for row in records) for at in candidates}) > 1:
        chosen = [header[at] for at in candidates]
        code = "table-id-twice" if len({names[at] for at in candidates}) == 1 else "table-several-ids"
        raise InputError(message(code, table=path, column=names[candidates[0]], columns=", ".join(chosen)))
    return candidates[0]


def is_id_column(name: str) -> bool:
    """Whether a column of this name may contain patient ids."""
    plain = normalise_column_name(name)
    return plain == _DOCUMENTED_ID_NAME or plain in _PATIENT_ID_NAMES or plain in _ROW_NUMBER_NAMES


def _exclude_row_numbers(
    candidates: list[int], names: Sequence[str], records: Sequence[Sequence[str]]
) -> list[int]:
    """Exclude columns of row numbers, by their name or contents (1, 2, 3), unless no other is left."""
    named = [at for at in candidates if names[at] not in _ROW_NUMBER_NAMES]
    identifying = [at for at in named if not _is_row_number_column(records, at)]
    return identifying or named or candidates


def _is_row_number_column(records: Sequence[Sequence[str]], column_index: int) -> bool:
    cells = [row[column_index] for row in records if row[column_index]]
    return len(cells) > 1 and cells == [str(number) for number in range(1, len(cells) + 1)]
