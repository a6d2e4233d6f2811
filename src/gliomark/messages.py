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
    "volume-unopened": (
        "{file} cannot be opened ({reason}): check its permissions.",
        "{file} 无法打开（{reason}）：请检查访问权限。",
    ),
    "volume-damaged": (
        "{file} is damaged or no image volume: copy or convert it again.",
        "{file} 已损坏或不是影像容积文件：请重新拷贝或转换。",
    ),
    "volume-analyze": (
        "{file} is in the old Analyze format, which does not state where left and right are: convert the original "
        "DICOM images to NIfTI.",
        "{file} 为旧的 Analyze 格式，不含左右方位信息：请由原始 DICOM 影像转换为 NIfTI。",
    ),
    "volume-not-numbers": (
        "{file} has {count} voxels that are not numbers (NaN or infinite): export or convert it again.",
        "{file} 中有 {count} 个体素不是数值（NaN 或无穷大）：请重新导出或转换。",
    ),
    "volume-zero": (
        "{file} is zero everywhere: export or convert it again.",
        "{file} 全部为零：请重新导出或转换。",
    ),
    "volume-huge": (
        "{file} holds {millions:.0f} million voxels, more than any MR image; at most {most:.0f} million are read.",
        "{file} 含 {millions:.0f} 百万个体素，超过任何磁共振影像；最多读取 {most:.0f} 百万个。",
    ),
    "volume-coloured": (
        "{file} holds colours or complex numbers: give a grey-value volume.",
        "{file} 为彩色或复数影像：请提供灰度容积。",
    ),
    "volume-not-3d": (
        "{file} is not one 3-D volume (its size is {sizes}): give a single volume of all slices.",
        "{file} 不是单个三维容积（大小为 {sizes}）：请提供含全部层面的单个容积。",
    ),
    "volume-steps": (
        "{file} states no usable voxel size ({steps}): convert the original images again.",
        "{file} 未给出可用的体素大小（{steps}）：请由原始影像重新转换。",
    ),
    "volume-form-unusable": (
        "{file} states no usable orientation (its sform and qform are zero, not numbers or contradictory): convert "
        "the original images again.",
        "{file} 未给出可用的方位（sform 与 qform 为零、不是数值或自相矛盾）：请由原始影像重新转换。",
    ),
    "volume-form-steps": (
        "{file} states two different voxel sizes ({one} and {other} in its units): convert the original images again.",
        "{file} 给出两种不同的体素大小（{one} 与 {other}，以文件单位计）：请由原始影像重新转换。",
    ),
    "volume-form-axes": (
        "{file} states two orientations that contradict each other (its sform and qform run in different directions, "
        "so left and right are uncertain): convert the original images again.",
        "{file} 给出两种互相矛盾的方位（sform 与 qform 的方向不同，左右无法确定）：请由原始影像重新转换。",
    ),
    "volume-form-place": (
        "{file} states two positions up to {mm:.0f} mm apart (sform and qform); the sform was used.",
        "{file} 给出两种位置，相差最多 {mm:.0f} 毫米（sform 与 qform）；采用 sform。",
    ),
    "volume-unoriented": (
        "{file} does not state its orientation: left and right, front and back are assumed, not read.",
        "{file} 未注明方位：左右和前后均为假定，而非读取。",
    ),
    "volume-unoriented-itk": (
        "{file} does not state its orientation in the patient: columns are assumed to run to the left, rows to the "
        "back and slices to the head.",
        "{file} 未注明患者方位：假定列向左、行向后、层面向头侧。",
    ),
    "volumes-oriented-and-not": (
        "In {folder}, {file} does not state its orientation although {other} does, so left and right may differ "
        "between them: convert the original images of both again.",
        "{folder} 中 {file} 未注明方位，而 {other} 已注明，两者左右可能不一致：请由原始影像重新转换全部文件。",
    ),
    "volume-sheared": (
        "The voxel grid of {file} is sheared: resample it to a right-angled grid.",
        "{file} 的体素网格是倾斜的（轴不互相垂直）：请重采样为直角网格。",
    ),
    # ---- names: which image is which --------------------------------------------------------------------
    # ---- DICOM: which series, which examination ---------------------------------------------------------
    # ---- DICOM: pixels and geometry ---------------------------------------------------------------------
    "dicom-place-missing": (
        "{file} does not state {attribute}, so its place in the patient is unknown: export the original series.",
        "{file} 缺少 {attribute}，无法确定其在患者体内的位置：请导出原始序列。",
    ),
    "dicom-place-wrong": (
        "{attribute} in {file} is not usable ({value}), so its place in the patient is unknown: export the original "
        "series.",
        "{file} 中的 {attribute} 无效（{value}），无法确定其在患者体内的位置：请导出原始序列。",
    ),
    "dicom-single-image": (
        "The series in {folder} has a single image: export the whole series.",
        "{folder} 中的序列只有一幅影像：请导出完整序列。",
    ),
    "dicom-not-uniform": (
        "The slices {one} and {other} in {folder} differ in size, spacing or orientation: export one uniform series.",
        "{folder} 中的层面 {one} 与 {other} 在大小、间距或方位上不一致：请导出一致的序列。",
    ),
    "dicom-repeats": (
        "{one} and {other} in {folder} show the same place with different pixels: the series holds repeats, export one "
        "image per place.",
        "{folder} 中的 {one} 与 {other} 位置相同但像素不同：该序列含重复扫描，请每个位置只导出一幅影像。",
    ),
    "dicom-one-place": (
        "All images in {folder} show the same place: export the whole series.",
        "{folder} 中所有影像位置相同：请导出完整序列。",
    ),
    "dicom-uneven": (
        "The slices are {step:.2f} mm apart but {gap:.2f} mm between {one} and {other} in {folder}: too many slices "
        "are missing or misplaced to be interpolated, export the whole series.",
        "层间距为 {step:.2f} 毫米，而 {folder} 中 {one} 与 {other} 之间为 {gap:.2f} 毫米：缺失或错位的层面过多，"
        "无法插值，请导出完整序列。",
    ),
    "dicom-tilted": (
        "The slices in {folder} are shifted sideways (tilted stack): export a straight one.",
        "{folder} 中的层面逐层侧移（机架倾斜）：请导出未倾斜的序列。",
    ),
    "dicom-interpolated": (
        "{kind}: slice {slices} of {count} was missing and was interpolated from its neighbours.",
        "{kind}：缺少第 {slices} 层（共 {count} 层），已由相邻层插值。",
    ),
    "dicom-resampled": (
        "{kind}: the slices were unevenly spaced (by up to {mm:.2f} mm) and were resampled to an even {step:.2f} mm.",
        "{kind}：层间距不均（最多相差 {mm:.2f} 毫米），已重采样为均匀的 {step:.2f} 毫米。",
    ),
    "dicom-order": (
        "{kind}: the slices' numbers and their positions contradict each other at {count} of {total} slices; the "
        "positions decided, check the order of the images.",
        "{kind}：{total} 层中有 {count} 层的编号与位置顺序矛盾；以位置为准，请核对影像顺序。",
    ),
    "dicom-copies": (
        "{kind}: {count} copies of other images were left out.",
        "{kind}：略去 {count} 幅重复图像。",
    ),
    "dicom-stacks": (
        "{kind}: its SeriesInstanceUID holds {count} stacks; one of them was read.",
        "{kind}：其 SeriesInstanceUID 含 {count} 组层面，读取了其中一组。",
    ),
    # ---- lesion masks -----------------------------------------------------------------------------------
    "mask-oedema": (
        "Label {label:g} of the mask {file} is taken for oedema and is no lesion here.",
        "掩膜 {file} 的标签 {label:g} 视为水肿，不计入病灶。",
    ),
    "mask-not-numbers": (
        "The mask {file} has {count} voxels that are not numbers (NaN or infinite): save it again as 0 and 1.",
        "掩膜 {file} 中有 {count} 个体素不是数值（NaN 或无穷大）：请重新保存为 0 和 1。",
    ),
    "mask-fractions": (
        "The mask {file} holds fractions ({low:.3g} to {high:.3g}), such as probabilities, not labels: cut it at a "
        "threshold and save it as 0 and 1.",
        "掩膜 {file} 的值为小数（{low:.3g} 至 {high:.3g}），如概率，而非标签：请按阈值二值化并保存为 0 和 1。",
    ),
    "mask-labels": (
        "The mask {file} has values that are no BraTS labels ({labels}): give a mask of 0 and 1.",
        "掩膜 {file} 的值不是 BraTS 标签（{labels}）：请提供仅含 0 和 1 的掩膜。",
    ),
    # ---- tables and labels ------------------------------------------------------------------------------
    # ---- preparation: registration, brain, slices -------------------------------------------------------
    "sequence-missing": (
        "{folder}: the sequence {missing} is missing (found: {found}); add it, or choose a model that does not need "
        "it.",
        "{folder}：缺少 {missing} 序列（已找到：{found}）；请补充该序列，或选择不需要它的模型。",
    ),
    "field-of-no-head": (
        "{file} shows a field of {field} mm (voxels of {steps} mm), which no image of a head has: check the voxel size "
        "and its units.",
        "{file} 的视野为 {field} 毫米（体素 {steps} 毫米），不可能是头部影像：请核对体素大小及其单位。",
    ),
    "brain-not-found": (
        "No brain was found in the image ({reason}); is this an axial head MRI?",
        "影像中未找到脑组织（{reason}）；这是横断面头部磁共振吗？",
    ),
    "brain-too-small": (
        "Only {ml:.0f} ml of brain were found in the image; is this a whole axial head MRI?",
        "影像中仅找到 {ml:.0f} 毫升脑组织；这是完整的横断面头部磁共振吗？",
    ),
    "brain-of-nobody": (
        "The brain in {file} would be {ml:.0f} ml large ({extent} mm), which nobody's is: check the voxel size "
        "({steps} mm) and its units.",
        "{file} 中的脑体积将达 {ml:.0f} 毫升（{extent} 毫米），不可能属实：请核对体素大小（{steps} 毫米）及其单位。",
    ),
    "brain-small": (
        "Only {ml:.0f} ml of brain were found, less than an adult has: check that the whole head is shown and that the "
        "voxel size ({steps} mm) is right; areas and volumes depend on it.",
        "仅找到 {ml:.0f} 毫升脑组织，少于成人脑体积：请核对影像是否包含整个头部以及体素大小（{steps} 毫米）是否正确，"
        "面积和体积取决于此。",
    ),
    "brain-partly-shown": (
        "{sequence} shows only {percent:.0f} % of the brain (missing: {part}); what it does not show was not "
        "examined.",
        "{sequence} 仅覆盖 {percent:.0f} % 的脑组织（缺少{part}）；未覆盖的部分未被检查。",
    ),
    "brain-cut": (
        "The images end within the brain (missing: {part}); what they do not show was not examined.",
        "所有影像均在脑内终止：缺少{part}，该部分未被检查。",
    ),
    "brain-top": ("the top", "顶部"),
    "brain-bottom": ("the bottom", "底部"),
    "brain-left": ("the left side", "左侧"),
    "brain-right": ("the right side", "右侧"),
    "brain-front": ("the front", "前部"),
    "brain-back": ("the back", "后部"),
    "brain-top-and-bottom": ("top and bottom", "顶部和底部"),
    "brain-left-and-right": ("both sides", "左右两侧"),
    "brain-back-and-front": ("front and back", "前部和后部"),
    "brain-all": ("everything", "全部"),
    "skull-gone": (
        "The images came without a skull; skull stripping was left out.",
        "影像不含颅骨，未作去颅骨处理。",
    ),
    "skull-gone-in-some": (
        "{sequences} came without a skull and the others with one; the brain was taken from {sequences}.",
        "{sequences} 不含颅骨，其余序列含颅骨；脑区取自 {sequences}。",
    ),
    # ---- prediction -------------------------------------------------------------------------------------
    "no-lesion": (
        "No lesion was found; no marker is predicted.",
        "未发现病灶，因此未预测标志物。",
    ),
    "no-lesion-in-part": (
        "No lesion was found in the {percent:.0f} % of the brain that the images show; the rest was not examined, and "
        "no marker is predicted.",
        "在影像所覆盖的 {percent:.0f} % 脑组织中未发现病灶；其余部分未被检查，未预测标志物。",
    ),
    "no-lesion-in-part-shown": (
        "No lesion was found in the part of the brain that the images show; the rest was not examined, and no "
        "marker is predicted.",
        "在影像所覆盖的部分脑组织中未发现病灶；其余部分未被检查，未预测标志物。",
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
