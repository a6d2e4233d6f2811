"""Every sentence that a person may read, as data: a code with its parameters, rendered in English or Chinese.

``message("sequence-missing", patient=..., ...)`` makes one. It is a ``str``, its English text, so that errors,
logs and tables can use it as it is; a report, a window or a page renders it in its reader's language with
``render``. Across a process or a network it travels as its code and parameters (``to_record``,
``from_record``), never as a sentence to be recognised again.

The texts are format strings: ``{count}``, ``{size:.3g}``. A parameter may be a message itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Literal

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")

# By section, as the rooms lie; code: (English, Chinese). What is wrong, where, and what to do.
MESSAGES: Mapping[str, tuple[str, str]] = {
    # ---- folders and pictures ---------------------------------------------------------------------------
    # ---- volumes: NIfTI, MetaImage, NRRD ----------------------------------------------------------------
    # ---- names: which image is which --------------------------------------------------------------------
    # ---- DICOM: which series, which examination ---------------------------------------------------------
    # ---- DICOM: pixels and geometry ---------------------------------------------------------------------
    # ---- lesion masks -----------------------------------------------------------------------------------
    # ---- tables and labels ------------------------------------------------------------------------------
    "table-unopenable": (
        "The table {table} cannot be opened ({reason}): check the path.",
        "无法打开表格 {table}（{reason}）：请检查路径。",
    ),
    "table-old-workbook": (
        "{table} is an old or password-protected workbook: save it as plain xlsx or CSV.",
        "{table} 是旧版或有密码保护的工作簿：请另存为无密码的 xlsx 或 CSV。",
    ),
    "table-web-page": (
        "{table} is a web page or XML, not a table, whatever its name says: open it in a spreadsheet and save it "
        "as xlsx or CSV.",
        "{table} 的内容是网页或 XML，不是表格：请用电子表格软件打开后另存为 xlsx 或 CSV。",
    ),
    "table-damaged-workbook": (
        "{table} is a damaged workbook, or has no sheet with cells: save it again as xlsx or CSV.",
        "{table} 已损坏，或没有含数据的工作表：请重新另存为 xlsx 或 CSV。",
    ),
    "table-encoding": (
        "{table} is neither UTF-8 nor UTF-16 nor GB18030 text: save it as CSV UTF-8.",
        "{table} 不是 UTF-8、UTF-16 或 GB18030 编码的文本：请另存为“CSV UTF-8”。",
    ),
    "table-not-csv": (
        "{table} is no proper csv table ({reason}): save it again as CSV UTF-8.",
        "{table} 不是规范的 CSV 表格（{reason}）：请重新另存为“CSV UTF-8”。",
    ),
    "table-row-too-long": (
        "The row {row} in {table} has more cells than the header: look for a comma inside a cell.",
        "{table} 中的行 {row} 比表头的单元格多：请检查单元格内是否有逗号。",
    ),
    "no-columns": ("none", "无"),
    "table-no-id": (
        "{table} has no column id (columns: {columns}): name the patient column id.",
        "{table} 没有患者编号列（现有列：{columns}）：请将患者编号列命名为 id。",
    ),
    "table-id-twice": (
        "{table} has two columns that mean {column}: keep one.",
        "{table} 中有两列都表示 {column}：请只保留一列。",
    ),
    "table-several-ids": (
        "{table} has several columns that may be the patient's id ({columns}): name the right one id.",
        "{table} 中有多列可能是患者编号（{columns}）：请将正确的一列命名为 id。",
    ),
    "table-column-twice": (
        "{table} has the column {column} twice: keep one.",
        "{table} 中列 {column} 出现两次：请只保留一列。",
    ),
    "table-two-meanings": (
        "{table} has several columns that mean {meaning} ({columns}): keep one.",
        "{table} 中有多列都表示 {meaning}（{columns}）：请只保留一列。",
    ),
    "row-missing": (
        "Patient {patient} has no row in {table}: give the table one row with this id.",
        "{table} 中没有患者 {patient}：请在表格中为该编号添加一行。",
    ),
    "row-missing-similar": (
        "Patient {patient} has no row in {table}, only {similar} looks alike: a spreadsheet may have changed the id; "
        "if it is the same patient, write the id in the table as {patient}, as text.",
        "{table} 中没有患者 {patient}，仅有相似的编号 {similar}：编号可能被电子表格软件改动；"
        "若为同一患者，请在表格中以文本形式将编号改为 {patient}。",
    ),
    "row-repeated": (
        "Patient {patient} has {count} rows in {table} that differ: give the table one row with this id.",
        "患者 {patient} 在 {table} 中有 {count} 行且内容不一致：每个编号请只保留一行。",
    ),
    "age-missing": (
        "The age of patient {patient} in {table} is missing: fill it in, or allow prediction without it.",
        "{table} 中患者 {patient} 的年龄缺失：请补填，或允许在缺少年龄的情况下预测。",
    ),
    "sex-missing": (
        "The sex of patient {patient} in {table} is missing: fill it in, or allow prediction without it.",
        "{table} 中患者 {patient} 的性别缺失：请补填，或允许在缺少性别的情况下预测。",
    ),
    "age-refused": (
        "The age {cell} of patient {patient} in {table} {reason}.",
        "{table} 中患者 {patient} 的年龄“{cell}”{reason}。",
    ),
    "sex-refused": (
        "The sex {cell} of patient {patient} in {table} {reason}.",
        "{table} 中患者 {patient} 的性别“{cell}”{reason}。",
    ),
    "age-typed": ("The age {cell} {reason}.", "年龄“{cell}”{reason}。"),
    "age-not-number": ("is not a number of years: give years, as 45", "不是以岁计的数字：请填写岁数，如 45"),
    "age-months-or-male": (
        "may be months or a man's age: write 18 months, or the age alone in years",
        "可能是月龄，也可能是男性的年龄：请写“18个月”，或只写岁数",
    ),
    "age-nought": (
        "is nought: leave it empty if the age is not known; give an infant's in months, as 6M",
        "为零：年龄未知请留空；婴儿请按月填写，如 6M",
    ),
    "age-outside": ("is outside 0 to {oldest} years: correct it", "不在 0 至 {oldest} 岁之间：请更正"),
    "age-birth-year": ("is a year of birth: give the age in years", "是出生年份：请填写岁数"),
    "age-date": ("is a date: give the age in years", "是日期：请填写岁数"),
    "age-impossible": (
        "The age {age} is impossible: give a number of years from 0 to {oldest}, or None where it is not known.",
        "年龄 {age} 不可能：请给出 0 至 {oldest} 之间的岁数，未知时给 None。",
    ),
    "sex-impossible": (
        "The sex {sex} is impossible: give 0 for male, 1 for female, or None where it is not known.",
        "性别 {sex} 无效：男性为 0，女性为 1，未知时给 None。",
    ),
    "sex-is-not-understood": ("is not understood: {reason}", "无法识别：{reason}"),
    "sex-words": ("give M or 0 (male), F or 1 (female)", "请填写 M 或 0（男）、F 或 1（女）"),
    "sex-not-stated": ("the column's name states other codes", "列名中说明的编码不包括该值"),
    "sex-mixed": (
        "the column mixes numbers and words; write M and F throughout",
        "该列混用数字与文字；请统一填写 M 和 F",
    ),
    "sex-codes": (
        "the column's numbers are neither 0 and 1 (male, female) nor 1 and 2 (male, female); write M and F",
        "该列的数字既不是 0 和 1（男、女），也不是 1 和 2（男、女）；请填写 M 和 F",
    ),
    "sex-m-or-mujer": (
        "is not understood: beside H it may mean mujer; write male and female",
        "无法识别：与 H 并用时 M 可能表示女性；请填写“男”或“女”",
    ),
    "ki67-threshold": (
        "The Ki-67 threshold {threshold:g} is no percentage: give one above 0 and up to 100.",
        "Ki-67 阈值 {threshold:g} 不是百分数：请给出大于 0 且不超过 100 的数值。",
    ),
    "labels-repeated": (
        "The patient {patient} has several different rows in {table}: keep the one that belongs to the examination.",
        "患者 {patient} 在 {table} 中有多行且内容不同：请只保留与该次检查对应的一行。",
    ),
    "labels-two-patients": (
        "The row {row} in {table} may belong to {patient} or to {other}: write each patient's id exactly in the table.",
        "{table} 中的行 {row} 可能属于 {patient}，也可能属于 {other}：请在表格中准确填写每位患者的编号。",
    ),
    "labels-two-meanings": (
        "Both {one} and {other} in {table} are {meaning}: keep one.",
        "{table} 中 {one} 与 {other} 都表示 {meaning}：请只保留一列。",
    ),
    "labels-left-out": (
        "Left out, because they may identify a patient: {columns}.",
        "以下列可能识别患者身份，已略去：{columns}。",
    ),
    "labels-rows-differ": (
        "{count} patient(s) have several rows that differ.",
        "有 {count} 位患者存在多行且内容不一致。",
    ),
    "labels-faults": ("In {table}: {faults}.", "{table} 中：{faults}。"),
    "faults-joined": ("{first}; {second}", "{first}；以及{second}"),
    "faults-and-more": ("{faults} (and {count} more)", "{faults}（另有 {count} 处）"),
    "cell-fault": ("{column} '{cell}' of {patient} {reason}", "{patient} 的 {column}“{cell}”{reason}"),
    "cell-refused": ("is not understood ({reason}): give {choices}", "无法识别（{reason}）：请填写{choices}"),
    "cell-not-understood": ("is not understood: give {choices}", "无法识别：请填写{choices}"),
    "choices-idh": ("1 or 0, or mutant or wild type", " 1 或 0，或“突变型”“野生型”"),
    "choices-mgmt": ("1 or 0, or methylated or unmethylated", " 1 或 0，或“甲基化”“未甲基化”"),
    "choices-codel": ("1 or 0, or codeleted or intact", " 1 或 0，或“共缺失”“无共缺失”"),
    "choices-level": ("1 or 0, or high or low", " 1 或 0，或“高”“低”"),
    "cell-unknown-word": ("'{word}' is not a known word", "“{word}”不是已知词语"),
    "cell-ambiguous": ("it may mean more than one thing", "可能有多种含义"),
    "cell-contradicts": ("its parts contradict each other", "各部分相互矛盾"),
    "cell-no-result": ("it states no result", "没有给出结果"),
    "cell-other-finding": ("it is about another finding", "说的是其他指标"),
    "cell-partly-known": ("one result is known and another is not", "部分结果已知，部分未知"),
    "cell-one-part": ("it speaks of {part} only", "只提到 {part}"),
    "column-coding": (
        "The name of the column {column} in {table} states codes that are not understood: write the results as words.",
        "{table} 中列名“{column}”所说明的编码无法识别：请用文字填写结果。",
    ),
    "cell-code-unstated": ("is no code that the column's name states", "不在列名说明的编码之内"),
    "cell-protein": (
        "may be a stain for the protein, not the methylation: give {choices}",
        "可能是蛋白染色结果，而非甲基化：请填写{choices}",
    ),
    "cell-sign-of-arm": (
        "may mean lost or not lost: give {choices}",
        "可能表示缺失，也可能表示无缺失：请填写{choices}",
    ),
    "cell-no-grade": ("is no single WHO grade: give 1, 2, 3 or 4", "不是单一的 WHO 分级：请填写 1、2、3 或 4"),
    "percent-none": ("is no percent: give a number such as 15", "不是百分数：请填写数字，如 15"),
    "percent-above": ("is above 100 percent", "超过 100%"),
    "percent-reversed": ("is a range from more to less", "范围的起点大于终点"),
    "percent-or-share": (
        "may be {high:g} % or {low:g} %: write it with a % sign",
        "可能是 {high:g}%，也可能是 {low:g}%：请写上百分号",
    ),
    "ki67-ranges": ("{count} Ki-67 range(s) are replaced by their mean.", "{count} 个 Ki-67 范围值以均值代替。"),
    "ki67-bounds": (
        "{count} Ki-67 value(s) are only a bound (as <5%): level where it follows, no percent.",
        "{count} 个 Ki-67 值只有界限（如 <5%）：能判断高低的给出高低，不给百分数。",
    ),
    "ki67-disagrees": (
        "In {count} patient(s) the stated Ki-67 level disagrees with {threshold:g} %; the percent decides.",
        "{count} 位患者的 Ki-67 高低与 {threshold:g}% 的阈值不符；以百分数为准。",
    ),
    "birth-no-date": (
        "A birth or study date is no date (YYYYMMDD): correct it, or give the age in the table.",
        "出生日期或检查日期不是有效日期（YYYYMMDD）：请更正，或在表格中填写年龄。",
    ),
    "birth-after-study": (
        "A study is dated before the patient's birth: correct the dates.",
        "检查日期早于患者出生日期：请更正日期。",
    ),
    "row-of-another": (
        "The clinical row belongs to patient {row}, the images to patient {patient}: give the row of {patient}.",
        "临床数据行属于患者 {row}，影像属于患者 {patient}：请提供患者 {patient} 的数据行。",
    ),
    "predictions-foreign": (
        "{table} is no table of gliomark's predictions (it lacks the columns {columns}): move it, or choose another "
        "output folder.",
        "{table} 不是 gliomark 的预测结果表（缺少列 {columns}）：请移走该文件，或选择其他输出文件夹。",
    ),
    # ---- preparation: registration, brain, slices -------------------------------------------------------
    # ---- prediction -------------------------------------------------------------------------------------
    "no-lesion": (
        "No lesion was found; no marker is predicted.",
        "未发现病灶，因此未预测标志物。",
    ),
    # ---- progress ---------------------------------------------------------------------------------------
    # ---- weights and models -----------------------------------------------------------------------------
    # ---- results ----------------------------------------------------------------------------------------
    # ---- uploads and server -----------------------------------------------------------------------------
}  # fmt: skip


class Message(str):
    """One sentence: its English text, with the code and the parameters that it was made from."""

    code: str
    parameters: Mapping[str, Any]

    def __new__(cls, code: str, parameters: Mapping[str, Any]) -> Message:
        """Raises KeyError for an unknown code or a parameter that the text needs and did not get."""
        self = super().__new__(cls, MESSAGES[code][0].format_map(parameters))
        self.code, self.parameters = code, dict(parameters)
        return self

    def __reduce__(self) -> tuple[type[Message], tuple[str, Mapping[str, Any]]]:
        """Code and parameters outlast pickling and copying."""
        return Message, (self.code, self.parameters)


def message(code: str, /, **parameters: Any) -> Message:
    """The sentence of this code with these parameters filled in."""
    return Message(code, parameters)


def render(text: str, language: Language) -> str:
    """A message in the reader's language; any other text, such as a file's own words, as it is."""
    if not isinstance(text, Message):
        return text
    filled = {name: _render_value(value, language) for name, value in text.parameters.items()}
    return MESSAGES[text.code][LANGUAGES.index(language)].format_map(filled)


def to_record(text: str) -> dict[str, Any]:
    """A sentence as JSON: ``text`` in English and, for a message, ``code`` and ``parameters``."""
    record: dict[str, Any] = {"text": str(text)}
    if isinstance(text, Message):
        parameters = {name: _to_json(value) for name, value in text.parameters.items()}
        record |= {"code": text.code, "parameters": parameters}
    return record


def from_record(record: Mapping[str, Any]) -> str:
    """The sentence of ``to_record``; its English text alone where this version does not know the code."""
    try:
        parameters = {name: _from_json(value) for name, value in record["parameters"].items()}
        return Message(record["code"], parameters)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError):
        return str(record["text"])


def _render_value(value: Any, language: Language) -> Any:
    return render(value, language) if isinstance(value, Message) else value


def _to_json(value: Any) -> Any:
    if isinstance(value, Message):
        return to_record(value)
    return str(value) if isinstance(value, PurePath) else value


def _from_json(value: Any) -> Any:
    return from_record(value) if isinstance(value, Mapping) else value
