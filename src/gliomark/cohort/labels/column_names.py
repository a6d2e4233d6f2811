"""Names of marker and birth date columns in hospitals' tables, in English and Chinese."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from gliomark.tables.column_names import is_age_column, is_sex_column, normalise_column_name

BIRTH_DATE_NAMES = re.compile(
    r"birthdate|dateofbirth|dob|patientbirthdate|birthday|birth|出生日期|出生年月日?|生日"
)
_COLUMN_SYNONYMS = {
    "ki67": "ki67 ki67percent ki67percentage ki67index ki67li ki67value ki67labelingindex "
    "ki67labellingindex ki67in  "
    "ki67positive ki67positiverate ki67proliferationindex mib1 mib1index mib1li ki67指数 ki67阳性率 "
    "ki67增殖指数 ki67表达 ki67标记指数  "
    "ki67阳性指数 ki67阳性百分比 ki67表达率 ki67增殖率 ki67值 ki67阳性细胞 ki67mib1 ki67免疫组化",
    "ki67_high": "ki67high ki67level ki67status ki67group ki67binary ki67水平 ki67高表达 ki67高低 ki67分组",
    "idh_mutant": "idh idhmutant idhmut idhstatus idhmutation idhmutationstatus idh1 idh1mut "
    "idh1mutant idh1status idhresult  "
    "idh1mutation idh1mutationstatus idh1r132h idh2 idh2mut idh2mutant idh2status idh2mutation idh12 "
    "idh1idh2 idh12mutation idh12status  "
    "idh1idh2mutation idhgenotype idhtype idhgene idhgenestatus idh突变 idh状态 idh1突变 idh2突变 "
    "idh基因 idh突变状态 idh1突变状态 idh2突变状态  "
    "idh基因突变 idh基因状态 idh1基因 idh2基因 idh12突变 idh12基因 idh1idh2突变 idh类型 idh分型 "
    "idh基因型 idh检测 idh结果 idh检测结果 idh突变检测  "
    "idh突变情况 idh1状态 idh2状态 idh突变型",
    "mgmt": "mgmt mgmtstatus mgmtmethylated mgmtmethylation mgmtmethylationstatus mgmtpromoter "
    "mgmtpromotermethylation  "
    "mgmtpromoterstatus mgmtpromotermethylationstatus mgmtpromotermethylated mgmt甲基化 "
    "mgmt启动子甲基化 mgmt状态 mgmt甲基化状态  "
    "mgmt启动子甲基化状态 mgmt启动子 mgmt启动子状态 mgmt基因甲基化 mgmt基因启动子甲基化 mgmt检测 mgmt结果",
    "who_grade": "grade whograde who whocnsgrade cnswhograde tumorgrade tumourgrade gliomagrade "
    "whograding histologicalgrade  "
    "histologicgrade pathologicalgrade grading who分级 who级别 分级 级别 病理分级 病理级别 肿瘤分级 "
    "肿瘤级别 胶质瘤分级 胶质瘤级别 cnswho分级  "
    "whocns分级 who病理分级 组织学分级",
    "codel_1p19q": "1p19q codel1p19q codel 1p19qcodel 1p19qcodeletion 1p19qcodeleted 1p19qstatus "
    "1p19qcodeletionstatus 1p19qcodelstatus  "
    "1p19qdeletion 1p19qloh 1p19q共缺失 1p19q联合缺失 1p19q缺失 1p19q状态 1p19q共缺失状态 "
    "1p19q联合缺失状态 1p19q缺失状态 1p19q检测 1p19q结果 1p19q杂合性缺失  "
    "染色体1p19q 染色体1p19q缺失 染色体1p19q共缺失",
}
_SEPARATORS = r"[,;、/|]"
_CODING_PATTERN = re.compile(
    rf"(?:^|{_SEPARATORS})\s*\d\s*[=:、.]\s*[^\d\s]|[^\d\s]\s*[=:]\s*\d\s*(?:$|{_SEPARATORS})|"
    rf"(?<![\da-z])\d\s*[\u4e00-\u9fff]+[\s,;、/]*\d\s*[\u4e00-\u9fff]"
)
_MEANING_BY_NAME = {name: column for column, names in _COLUMN_SYNONYMS.items() for name in names.split()}


def find_column_meaning(name: str) -> str | None:
    """Return the known column that a name means; None for any other."""
    if is_age_column(name):
        return "age"
    return "sex" if is_sex_column(name) else _MEANING_BY_NAME.get(normalise_column_name(name))


def parse_stated_codes(name: str) -> dict[str, str] | None:
    """Parse the coding stated in a column's name: ``IDH (0=wt, 1=mutant)`` is 0: wt, 1: mutant.

    Empty if none is stated, None if it is not understood.
    """
    wide = unicodedata.normalize("NFKC", name).lower()
    inside = re.search(r"[(\[](.*)[)\]]\s*$", wide)
    if not inside or not _CODING_PATTERN.search(inside[1]):
        return {}
    plain = re.sub(r"(\d)\s*[、.]\s*(?=\D)", r"\1=", inside[1])
    pieces = [
        piece.strip() for piece in re.split(rf"{_SEPARATORS}|\s{{2,}}|(?<=[^\d\s=:])\s*(?=\d\s*[=:])", plain)
    ]
    codes: dict[str, str] = {}
    for piece in _split_adjoining_codes(pieces):
        if found := re.fullmatch(r"(\d)\s*[=:-]?\s*([^\d=:][^=:]*)", piece):
            code, word = found[1], found[2]
        elif found := re.fullmatch(r"([^\d=:][^=:]*?)\s*[=:]\s*(\d)", piece):
            code, word = found[2], found[1]
        else:
            return None
        if code in codes:
            return None
        codes[code] = word.strip()
    return codes


def _split_adjoining_codes(pieces: Sequence[str]) -> list[str]:
    """Split Chinese codings written without separators: 1突变0野生."""
    apart: list[str] = []
    for piece in filter(None, pieces):
        run = re.findall(r"\d\s*[\u4e00-\u9fff]+", piece)
        apart += run if "".join(run) == piece else [piece]
    return apart


def is_birth_date_column(name: str) -> bool:
    """Whether a column of this name contains dates of birth."""
    return bool(BIRTH_DATE_NAMES.fullmatch(normalise_column_name(name)))
