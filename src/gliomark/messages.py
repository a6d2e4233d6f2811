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
    "dicom-duplicate-uid": (
        "{one} and {other} show different images but bear the same instance UID, so nobody can say which is meant: "
        "export the examination again, or remove the one that does not belong.",
        "{one} 与 {other} 的图像内容不同，但 SOP 实例 UID 相同，无法判断应使用哪一个：请重新导出该次检查，"
        "或移除其中不属于该检查的文件。",
    ),
    # ---- lesion masks -----------------------------------------------------------------------------------
    # ---- tables and labels ------------------------------------------------------------------------------
    # ---- preparation: registration, brain, slices -------------------------------------------------------
    "cohort-slice-altered": (
        "{path} is no longer as 'cohort build' wrote it: build the cohort again, which prepares that patient anew.",
        "{path} 与“cohort build”写入时的内容不一致：请重新构建队列，该患者会被重新处理。",
    ),
    "cohort-slice-missing": (
        "{path} is missing: build the cohort again, which prepares that patient anew.",
        "缺少 {path}：请重新构建队列，该患者会被重新处理。",
    ),
    "cohort-slice-damaged": (
        "{path} is damaged: build the cohort again, which prepares that patient anew.",
        "{path} 已损坏：请重新构建队列，该患者会被重新处理。",
    ),
    "cohort-not-hashed": (
        "Patient {patient} was prepared by an older gliomark that kept no hashes: whether the prepared images were "
        "altered since could not be checked.",
        "患者 {patient} 由较早版本的 gliomark 处理，未保存校验值：无法核查处理后的图像是否被改动。",
    ),
    # ---- prediction -------------------------------------------------------------------------------------
    "no-lesion": (
        "No lesion was found; no marker is predicted.",
        "未发现病灶，因此未预测标志物。",
    ),
    # ---- progress ---------------------------------------------------------------------------------------
    # ---- weights and models -----------------------------------------------------------------------------
    "weights-card-unknown": (
        "{path}: the weights file states something that this gliomark does not know ({reason}); "
        "update gliomark, or train the model anew.",
        "{path}：权重文件中有当前 gliomark 版本无法识别的内容（{reason}）；请更新 gliomark，或重新训练模型。",
    ),
    "work-of-other-patients": (
        "{folder} holds a training on other patients; delete that folder to train anew, or write to another place.",
        "{folder} 中保存的是另一批患者的训练进度；请删除该文件夹后重新训练，或更换输出位置。",
    ),
    "work-of-other-settings": (
        "{folder} holds a training with other settings; delete that folder to train anew, or write to another place.",
        "{folder} 中保存的是另一套设置下的训练进度；请删除该文件夹后重新训练，或更换输出位置。",
    ),
    "work-of-other-data": (
        "{folder} holds a training on other images, outlines or labels of these patients; delete that folder to train "
        "anew, or write to another place.",
        "{folder} 中保存的训练进度所用的图像、轮廓或标签与现在不同；请删除该文件夹后重新训练，或更换输出位置。",
    ),
    "work-of-other-unknown": (
        "{folder} holds a training that does not say what it was done on; delete that folder to train anew, or write "
        "to another place.",
        "{folder} 中的训练进度未记录其数据与设置；请删除该文件夹后重新训练，或更换输出位置。",
    ),
    "marker-too-few-patients": (
        "{marker}: {patients} patients with a label and all sequences are too few to learn from; "
        "add patients to the cohort.",
        "{marker}：有标签且序列齐全的患者仅 {patients} 例，不足以训练；请在队列中增加患者。",
    ),
    "marker-no-lesions": (
        "Too few patients have an outlined lesion to learn from ({fitted} to fit on, {stopping} to stop by): "
        "outline more patients, or give the label of more.",
        "有病灶轮廓、可供训练的患者过少（拟合 {fitted} 例，早停 {stopping} 例）：请勾画更多患者，或补充更多标签。",
    ),
    "marker-not-measured": (
        "{title}: it was not measured how well the model does on patients it never saw, so no level is named.",
        "{title}：未测得模型在未参与训练的患者中的表现，因此不给出分级。",
    ),
    "marker-better-than-chance": (
        "{title}: AUC {auc:.2f} (95 % interval {low:.2f} to {high:.2f}) on {patients} patients the model never saw; "
        "levels are named.",
        "{title}：在 {patients} 例未参与训练的患者中，AUC 为 {auc:.2f}（95% 置信区间 {low:.2f}–{high:.2f}）；"
        "给出分级。",
    ),
    "marker-no-better-than-chance": (
        "{title}: on {patients} patients it never saw, the model was not shown to be better than chance (AUC "
        "{auc:.2f}, 95 % interval {low:.2f} to {high:.2f}, which reaches 0.5), so no level is named.",
        "{title}：在 {patients} 例未参与训练的患者中，未能证明模型优于随机猜测（AUC {auc:.2f}，"
        "95% 置信区间 {low:.2f}–{high:.2f}，未完全高于 0.5），因此不给出分级。",
    ),
    # ---- results ----------------------------------------------------------------------------------------
    "dicom-out-bad-uid": (
        "{file} states the {keyword} '{value}', which is no UID, so results as DICOM cannot refer to it; export the "
        "series in {folder} again, or leave --dicom-out away.",
        "{file} 的 {keyword} 为“{value}”，不是有效的 UID，DICOM 结果无法引用；"
        "请重新导出 {folder} 中的序列，或不使用 --dicom-out。",
    ),
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
