"""How hospitals name the columns of their tables, in English and Chinese."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from gliomark.study import GliomarkError

# In this order: PatientID is DICOM's word, a running number comes last.
_ID_NAMES = (
    "patientid id pid subjectid subject caseid case mrn 患者id 病人id 患者编号 病人编号 住院号 病历号 病案号 登记号 "
    "影像号 检查号 门诊号 编号 病例号"
).split()
BIRTH = re.compile(r"birthdate|dateofbirth|dob|patientbirthdate|birthday|出生日期|出生年月日?|生日")
_SYNONYMS = {
    "age": "age ageyears ageinyears ageatdiagnosis ageatmri ageatscan patientage 年龄 年龄岁",
    "sex": "sex gender patientsex 性别",
    "ki67": "ki67 ki67percent ki67percentage ki67index ki67li ki67value ki67labelingindex ki67labellingindex ki67in "
    "mib1 mib1index ki67指数 ki67阳性率 ki67增殖指数 ki67表达",
    "ki67_high": "ki67high ki67level ki67status ki67group ki67binary ki67水平 ki67高表达 ki67高低",
    "idh_mutant": "idh idhmutant idhmut idhstatus idhmutation idhmutationstatus idh1 idh1mut idh1mutant idh1status "
    "idh1mutation idh1r132h idh2 idh2mut idh2mutant idh2status idh2mutation idh突变 idh状态 idh1突变 idh2突变 idh基因",
    "mgmt": "mgmt mgmtstatus mgmtmethylated mgmtmethylation mgmtmethylationstatus mgmtpromoter "
    "mgmtpromotermethylation mgmtpromotermethylationstatus mgmt甲基化 mgmt启动子甲基化 mgmt状态",
    "who_grade": "grade whograde who whocnsgrade cnswhograde tumorgrade tumourgrade gliomagrade whograding who分级 "
    "who级别 分级 级别 病理分级 肿瘤分级 肿瘤级别",
    "codel_1p19q": "1p19q codel1p19q 1p19qcodel 1p19qcodeletion 1p19qcodeleted 1p19qstatus 1p19qcodeletionstatus "
    "1p19q共缺失 1p19q联合缺失 1p19q缺失 1p19q状态",
}
MEANING = {name: column for column, names in _SYNONYMS.items() for name in names.split()}


def plain_name(name: str) -> str:
    """A column's name as it is compared: lower case, no marks, without "(%)" or "(in %)" at its end."""
    wide = unicodedata.normalize("NFKC", name).lower()
    return re.sub(r"[\W_]+", "", re.sub(r"\([^)]*\)\s*$", "", wide))


def id_column(path: Path, header: Sequence[str], stated: str = "") -> int:
    """Where the patient's id stands: the stated column, else the first name of the list that is there.

    Raises: GliomarkError for none, or two of one name.
    """
    wanted = [plain_name(stated)] if stated else _ID_NAMES
    names = [plain_name(name) for name in header]
    for name in wanted:
        if names.count(name) == 1:
            return names.index(name)
        if name in names:
            raise GliomarkError(f"{path} has two columns that mean {name}: keep one.")
    shown = ", ".join(name for name in header if name)[:80] or "none"
    raise GliomarkError(f"{path} has no column id (columns: {shown}): name the patient column id.")
