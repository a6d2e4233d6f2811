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
    "folder-missing": ("{folder} does not exist: check the path.", "{folder} 不存在：请检查路径。"),
    "folder-is-file": ("{folder} is a file: give the patient's folder.", "{folder} 是文件：请给出患者的文件夹。"),
    "folder-unlisted": (
        "{folder} cannot be listed ({reason}): check the path and its permissions.",
        "无法读取文件夹 {folder}（{reason}）：请检查路径和权限。",
    ),
    "folder-empty": (
        "{folder} is empty: give a patient's folder with pictures as <patient>/<sequence>/<slice>.jpg, volumes with "
        "T1, T1C, T2 or FLAIR in their name, or DICOM.",
        "{folder} 是空文件夹：请给出患者的文件夹，内含按 <患者>/<序列>/<层面>.jpg 存放的图片、"
        "文件名含 T1、T1C、T2 或 FLAIR 的容积数据，或 DICOM 文件。",
    ),
    "folder-no-images": (
        "{folder} holds no patient's images: give pictures as <patient>/<sequence>/<slice>.jpg, volumes with T1, T1C, "
        "T2 or FLAIR in their name, or DICOM.",
        "{folder} 中没有患者图像：请给出按 <患者>/<序列>/<层面>.jpg 存放的图片、"
        "文件名含 T1、T1C、T2 或 FLAIR 的容积数据，或 DICOM 文件。",
    ),
    "folder-many-patients": (
        "{folder} holds {count} patients: give one of them, such as {patient}.",
        "{folder} 中有 {count} 名患者：请选择其中一名，例如 {patient}。",
    ),
    "pictures-loose": (
        "{folder} holds pictures but no sequence folders: put them in subfolders T1C, T2 and so on.",
        "{folder} 中有图片但没有序列文件夹：请将图片分别放入 T1C、T2 等子文件夹。",
    ),
    # ---- volumes: NIfTI, MetaImage, NRRD ----------------------------------------------------------------
    # ---- names: which image is which --------------------------------------------------------------------
    "volumes-unnamed": (
        "No file in {folder} carries T1, T1C, T2 or FLAIR in its name (found {names}): rename the volumes.",
        "{folder} 中没有文件名含 T1、T1C、T2 或 FLAIR 的文件（找到 {names}）：请重命名容积文件。",
    ),
    "volumes-channels-unnamed": (
        "The files in {folder} are numbered by channel ({names}), and nothing says which channel is which sequence: "
        "put the data set's dataset.json beside or above them, or name the files by T1, T1C, T2 and FLAIR.",
        "{folder} 中的文件按通道编号（{names}），无法得知各通道对应哪个序列："
        "请将数据集的 dataset.json 放在同一文件夹或上一级文件夹，或在文件名中写明 T1、T1C、T2、FLAIR。",
    ),
    "volumes-two-of-one": (
        "Both {one} and {other} in {folder} are {sequence} by their names: two patients or a repeat may be mixed, keep "
        "one file of each in a patient's folder.",
        "{folder} 中的 {one} 和 {other} 按文件名都是 {sequence}："
        "可能混入了另一名患者或重复扫描，每个序列请只保留一个文件。",
    ),
    "volumes-two-masks": (
        "Both {one} and {other} in {folder} are a lesion mask by their names: two patients or a repeat may be mixed, "
        "keep one file of each in a patient's folder.",
        "{folder} 中的 {one} 和 {other} 按文件名都是病灶掩膜：可能混入了另一名患者或重复勾画，请只保留一个文件。",
    ),
    "volumes-two-patients": (
        "{one} and {other} in {folder} are two patients' by their names: give every patient a folder of their own.",
        "{folder} 中的 {one} 和 {other} 按文件名属于两名患者：请为每名患者单独建立文件夹。",
    ),
    "volumes-other-patient": (
        "{file} in {folder} is of another patient than {patient} by its name: check whose images these are, and name "
        "file and folder alike.",
        "{folder} 中的 {file} 按文件名不属于患者 {patient}：请核对图像属于哪位患者，并使文件名与文件夹名一致。",
    ),
    "bids-derivatives": (
        "{folder} has images in several derivatives ({names}) and none of its own: give one of these folders.",
        "{folder} 本身没有图像，而在多个 derivatives 文件夹中有图像（{names}）：请选择其中一个文件夹。",
    ),
    "dataset-unreadable": (
        "{file} is no description of a data set that can be read: copy it again.",
        "{file} 不是可读取的数据集说明文件：请重新复制。",
    ),
    "dataset-many-cases": (
        "{folder} holds {count} patients: give one of them, such as {case}.",
        "{folder} 中有 {count} 名患者：请选择其中一名，例如 {case}。",
    ),
    "dataset-no-channel": (
        "{file} does not name channel {channel}, which {volume} is: complete its channel_names.",
        "{file} 未说明通道 {channel}（文件 {volume}）：请补全其中的 channel_names。",
    ),
    "dataset-channel-twice": (
        "{file} names two channels {sequence}: correct its channel_names.",
        "{file} 中有两个通道都写为 {sequence}：请更正其中的 channel_names。",
    ),
    "dataset-no-sequence": (
        "None of the channels in {file} is a T1, T1C, T2 or FLAIR (found {names}): correct its channel_names.",
        "{file} 中没有通道是 T1、T1C、T2 或 FLAIR（找到 {names}）：请更正其中的 channel_names。",
    ),
    "dataset-labels-unknown": (
        "The labels in {file} do not say which of them is the lesion; the mask was not read.",
        "{file} 的标签未说明哪一个是病灶，未读取掩膜。",
    ),
    # ---- DICOM: which series, which examination ---------------------------------------------------------
    "examination-chosen": (
        "The patient has {count} examinations; number {number} in time ({name}) was read, the earliest before surgery "
        "that has the sequences needed; not read: {others}.",
        "该患者有 {count} 次检查；读取的是按时间第 {number} 次（{name}），"
        "即手术前序列齐全的最早一次；未读取：{others}。",
    ),
    "examination-number": (
        "{count} examinations were found; number {number} in time was read, the earliest before surgery that has the "
        "sequences needed.",
        "找到 {count} 次检查；读取的是按时间第 {number} 次，即手术前序列齐全的最早一次。",
    ),
    "examination-after-surgery": (
        "The examination read ({name}) was taken during or after surgery by its own words; the markers are meant for "
        "images before surgery.",
        "所读取的检查（{name}）按其描述为术中或术后检查；标志物预测仅适用于术前图像。",
    ),
    "examinations-incomplete": (
        "No single examination in {folder} has the sequences needed, only several together ({contents}): sequences of "
        "different examinations are not mixed, export one complete examination.",
        "{folder} 中没有一次检查具备所需的全部序列，只有多次检查合起来才齐全（{contents}）："
        "不会混用不同检查的序列，请导出一次完整的检查。",
    ),
    "examinations-undated": (
        "{folder} holds {count} complete examinations and nothing says which came first ({names}), so the one before "
        "surgery cannot be told: keep that one alone.",
        "{folder} 中有 {count} 次序列完整的检查，无法得知先后（{names}），"
        "因此不能判断哪一次是术前检查：请只保留术前的一次。",
    ),
    "dicom-damaged": (
        "{file} is damaged or no DICOM file: copy or export it again.",
        "{file} 已损坏或不是 DICOM 文件：请重新复制或导出。",
    ),
    "dicom-passed-over": (
        "{count} DICOM files could not be read and were passed over ({names}); the series used are whole without them.",
        "有 {count} 个 DICOM 文件无法读取，已跳过（{names}）；所用序列不缺少图像。",
    ),
    "dicom-no-mr": (
        "No MR images among the DICOM files in {folder} (found {found}): export the MRI.",
        "{folder} 的 DICOM 文件中没有 MR 图像（找到 {found}）：请导出 MRI。",
    ),
    "dicom-no-sequence": (
        "None of the MR series in {folder} is a T1, T1C, T2 or FLAIR (found {found}): export these.",
        "{folder} 的 MR 序列中没有 T1、T1C、T2 或 FLAIR（找到 {found}）：请导出这些序列。",
    ),
    "dicom-two-ids": (
        "{folder} holds files of two patients (different ids in {one} and {other}): give every patient a folder of "
        "their own.",
        "{folder} 中有两名患者的文件（{one} 与 {other} 的患者编号不同）：请为每名患者单独建立文件夹。",
    ),
    "dicom-two-names": (
        "{folder} holds files of two patients (different names in {one} and {other}): give every patient a folder of "
        "their own.",
        "{folder} 中有两名患者的文件（{one} 与 {other} 的患者姓名不同）：请为每名患者单独建立文件夹。",
    ),
    "dicom-two-birth-dates": (
        "{folder} holds files of two patients (different birth dates in {one} and {other}): give every patient a "
        "folder of their own.",
        "{folder} 中有两名患者的文件（{one} 与 {other} 的出生日期不同）：请为每名患者单独建立文件夹。",
    ),
    "series-candidates": (
        "{count} series look like {sequence}; read: {name}, which {why}.",
        "有 {count} 个序列看起来是 {sequence}；读取的是“{name}”，因为它{why}。",
    ),
    "series-original": ("is an original, not derived from other images", "是原始图像，而非由其他图像重建"),
    "series-complete": ("has no missing slices", "没有缺失层面"),
    "series-axial": ("was acquired axially", "为横断位采集"),
    "series-covers-more": ("covers more of the head", "覆盖头部的范围更大"),
    "series-more-slices": ("has more slices", "层面更多"),
    "series-evened-out": ("was evened out for the coil", "经过线圈均匀性校正"),
    "series-later": ("was acquired later", "采集时间更晚"),
    "series-equal": ("equals the other in every respect but its UID", "除 UID 外与另一序列完全相同"),
    "series-copies": (
        "{sequence}: {count} series have the same pixels as another under new numbers, and were left out as copies.",
        "{sequence}：有 {count} 个序列与另一序列像素完全相同、仅编号不同，作为副本已略去。",
    ),
    "series-unknown": (
        "Series '{name}' was not used: {reason}",
        "未使用序列“{name}”：其参数与名称不足以判断是哪种序列（{reason}）",
    ),
    "contrast-doubt": (
        "{count} T1 series were taken alike at different times and nothing says which is after contrast medium: check, "
        "and say so in the series table.",
        "有 {count} 个 T1 序列参数相同、采集时间不同，无法得知哪一个是增强后：请核对，并在序列表中注明。",
    ),
    # ---- DICOM: pixels and geometry ---------------------------------------------------------------------
    # ---- lesion masks -----------------------------------------------------------------------------------
    # ---- tables and labels ------------------------------------------------------------------------------
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
