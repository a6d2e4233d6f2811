"""Recognise columns of a hospital's table that may identify patients, by name or content.

A column is left out if its name indicates it (name, phone, address, dates, case numbers, physicians); if any cell
contains a date, an e-mail or web address, a phone or identity number or the patient's id; or if its cells are names
or texts that nearly all differ (free text, codes). Measurements are kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gliomark.cohort.labels.cell_encoding import BLANK_VALUES, normalise_cell

_IDENTIFYING_COLUMN_NAMES = re.compile(
    r"name|姓名|名字|phone|telefon|mobile|(^|_)tel($|_)|(^|_)fax($|_)|电话|手机|联系|address|street|(^|_)(city|town)($|_)|"
    r"住址|地址|籍贯|户籍|e_?mail|邮箱|邮件|微信|wechat|(^|_)qq($|_)|(^|_)zip|postal|postcode|邮编|birth|geburt|"
    r"(^|_)dob($|_)|出生|生日|(^|_)date|date($|_)|datum|time_of|日期|时间|accession|检查号|流水号|登记号|影像号|"
    r"(^|_)(mrn|ssn|nhs|uid)($|_)|uid$|身份证|证件|医保|社保|insurance|passport|护照|住院号|门诊号|病历号|病案号|病理号|"
    r"床号|physician|doctor|surgeon|radiologist|operator|医生|医师|术者|家属|contact|remark|comment|备注|病史|"
    r"(patient|subject|case|record|hospital|study|sample)_?(id|no|nr|number)($|_)"
)
_NUMBER_COLUMN_NAMES = re.compile(r"(^|_)(id|no|nr|code)($|_)|id$|number$|编号|序号|号$")
_DATE_PATTERN = re.compile(
    r"(?<!\d)(1[89]|20)\d\d([-/.年])\d{1,2}([-/.月])\d{1,2}|(?<!\d)\d{1,2}[-/.]\d{1,2}[-/.]((1[89]|20)\d\d|\d\d)(?!\d)|"
    r"(?<![\d.])(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?!\d|\.\d)|(?<!\d)(19|20)\d\d年\d{1,2}月|"
    r"\d{1,2}[ -](jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[ -,]*\d{2,4}",
    re.IGNORECASE,
)
_CONTACT_PATTERN = re.compile(
    r"\S+@\S+\.\w+|https?://|www\.|(?<![\d.])1[3-9]\d{9}(?!\d|\.\d)|(?<![\d.])\d{17}[\dXx]|"
    r"(?<![\d.])0\d{2,3}[- ]\d{7,8}|\(?\d{3}\)?[- ]\d{3}[- ]\d{4}|\+\d{1,3}[- ]?\d{6,}"
)
_LEADING_ZERO_NUMBER = re.compile(r"0\d{5,}")
_SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林郑谢罗梁宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈姚卢姜崔"
    "钟谭陆汪范金石廖贾夏韦付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严覃武戴莫孔向汤"
)
_CHINESE_NAME_PATTERN = re.compile(rf"[{_SURNAMES}][\u4e00-\u9fff]{{1,2}}")
_WESTERN_NAME_PATTERN = re.compile(r"[A-Z][\w'’-]+(\s*[,^]\s*|\s+)[A-Z][\w'’-]+\.?", re.ASCII)
_MIN_ROWS_FOR_FREE_TEXT = 10
_FREE_TEXT_DISTINCT_SHARE = 0.9


def is_identifying_column(name: str, cells: Sequence[str], ids: Sequence[str]) -> bool:
    """Whether a column may identify patients. cells, ids: one per row of the table."""
    plain = re.sub(r"\W+", "_", name.lower()).strip("_")
    rows = [
        (cell, row_id)
        for cell, row_id in zip(cells, ids, strict=True)
        if normalise_cell(cell) not in BLANK_VALUES
    ]
    filled = [cell for cell, _ in rows]
    if _IDENTIFYING_COLUMN_NAMES.search(plain) or (
        _NUMBER_COLUMN_NAMES.search(plain) and _has_distinct_values(filled)
    ):
        return True
    return (
        any(_is_identifying_cell(cell, row_id) for cell, row_id in rows)
        or _has_names_or_free_text(filled)
        or _has_case_numbers(filled)
    )


def _is_identifying_cell(cell: str, patient_id: str) -> bool:
    own = len(patient_id) >= 4 and patient_id.lower() in cell.lower()
    return bool(
        own
        or _DATE_PATTERN.search(cell)
        or _CONTACT_PATTERN.search(cell)
        or _LEADING_ZERO_NUMBER.fullmatch(cell)
    )


def _has_distinct_values(cells: Sequence[str]) -> bool:
    """Whether nearly all values differ and none is a measurement with decimals."""
    measured = any(re.fullmatch(r"[+-]?\d*[.,]\d*[1-9]\d*", cell) for cell in cells)
    return not measured and len(set(cells)) > 0.7 * len(cells)


def _has_case_numbers(cells: Sequence[str]) -> bool:
    """Whether cells are long integers of equal length, like case numbers; measurements differ in length."""
    lengths = {len(cell) for cell in cells if re.fullmatch(r"\d{9,}", cell)}
    whole = all(re.fullmatch(r"\d+", cell) for cell in cells)
    return whole and bool(lengths) and max(map(len, cells)) - min(map(len, cells)) <= 1


def _has_names_or_free_text(cells: Sequence[str]) -> bool:
    """Whether cells are names of people or texts that nearly all differ; repeated texts (diagnoses) are classes."""
    texts = [cell for cell in cells if not re.fullmatch(r"[<>≤≥]?\s*[+-]?[\d.,]+([eE][+-]?\d+)?\s*%?", cell)]
    distinct = len(set(texts))
    for pattern in (_CHINESE_NAME_PATTERN, _WESTERN_NAME_PATTERN):
        if len(texts) >= 2 and distinct > 0.7 * len(texts) and all(pattern.fullmatch(text) for text in texts):
            return True
    return len(texts) >= _MIN_ROWS_FOR_FREE_TEXT and distinct >= _FREE_TEXT_DISTINCT_SHARE * len(texts)
