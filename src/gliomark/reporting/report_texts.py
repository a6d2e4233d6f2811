"""Fixed texts of the report (headings, labels, keys) in English and Chinese; other sentences are in ``messages``."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

from gliomark.messages import LANGUAGES, Language

__all__ = ["Language", "get_report_texts"]

TextTable = Mapping[str, tuple[str, str]]

REPORT_TEXTS: TextTable = {
    "html_lang": ("en", "zh-Hans"),
    "title": ("Glioma markers predicted from MRI", "基于磁共振影像的胶质瘤标志物预测"),
    "patient": ("Patient", "患者"),
    "age": ("Age", "年龄"),
    "years": ("{} years", "{} 岁"),
    "sex": ("Sex", "性别"),
    "male": ("male", "男"),
    "female": ("female", "女"),
    "not_stated": ("not stated", "未提供"),
    "date": ("Report date", "报告时间"),
    "images": ("Sequences used", "所用序列"),
    "instead": ("{} (in place of {}, which is missing)", "{}（代替缺失的 {}）"),
    "research": ("Research use only. Not a medical device.", "仅供科研使用，不是医疗器械。"),
    "research_more": (
        "Statistical estimate from images. Not for diagnosis or treatment decisions; "
        "does not replace histology or molecular testing.",
        "本结果为基于影像的统计学估计，不得作为诊断或治疗依据，不能替代组织病理学检查或分子检测。",
    ),
    "warnings": ("Please note", "警告"),
    "warn_here": ("Note", "注意"),
    "answer": ("Prediction", "预测结果"),
    "marker": ("Marker", "标志物"),
    "probability": ("Probability", "概率"),
    "probability_of": ("Probability of “{}”", "“{}”的概率"),
    "threshold": ("threshold {}", "阈值 {}"),
    "threshold_origin": ("Threshold", "阈值来源"),
    "limits": ("When a level is stated", "判定规则"),
    "cannot_tell_between": ("cannot tell: {} to {}", "无法判断：{} 至 {}"),
    "given_prevalence": ("for {} positive patients", "阳性比例按 {} 计"),
    "calibration": ("Calibration", "校准"),
    "range": ("Range across lesion slices", "各病灶层面的概率范围"),
    "range_value": (
        "{} to {} (bracket above the bar); not a confidence interval.",
        "{} 至 {}（见条形图上方的括线）；并非置信区间。",
    ),
    "range_same": ("{} on every slice.", "各层面均为 {}。"),
    "range_value_raw": (
        "{} to {}, before calibration; not a confidence interval.",
        "{} 至 {}（校准前）；并非置信区间。",
    ),
    "range_same_raw": ("{} on every slice, before calibration.", "各层面均为 {}（校准前）。"),
    "positive": ("What the probability means", "概率的含义"),
    "how": ("How the probability was computed", "概率的计算方式"),
    "made_of": ("Contribution of each factor (log-odds)", "各因素的贡献（对数几率）"),
    "made_of_raw": (
        "Contribution of each factor (log-odds, before calibration)",
        "各因素的贡献（对数几率，校准前）",
    ),
    "made_of_start": ("baseline", "基线"),
    "made_of_image": ("image", "影像"),
    "performance": ("Validation", "验证结果"),
    "finding_performance": ("Accuracy of the reader’s finding", "阅片者所见的准确性"),
    "reader_finding": ("reader’s finding", "阅片者所见"),
    "by_reader": ("From the reader’s finding", "依据阅片者所见"),
    "by_reader_more": (
        "The level above is based on the reader’s finding, not on the model.",
        "上述判定结果依据阅片者所见，而非模型。",
    ),
    "model_says": ("For comparison, the model’s probability of “{}”", "供对照：模型预测“{}”的概率"),
    "no_probability": ("No probability is reported.", "未给出概率。"),
    "no_lesion": ("No lesion was found", "未发现病灶"),
    "no_lesion_more": (
        "The model outlined no lesion on these images. A visible lesion means that the model missed it.",
        "模型未在影像上勾画出病灶。若影像上可见病灶，则为模型漏检。",
    ),
    "slices_used": ("Slices used", "所用层面"),
    "deciding": ("Slices used for the prediction", "用于预测的层面"),
    "largest": ("Slices with the largest lesion area", "病灶面积最大的层面"),
    "outline_key": (
        "Bright line (yellow on screen): lesion outline by the model.",
        "亮线（屏幕上为黄色）：模型勾画的病灶轮廓。",
    ),
    "side_key": (
        "Radiological convention: the patient’s right (R) is on the left of the image.",
        "放射学惯例：图像左侧为患者右侧（R）。",
    ),
    "slice": ("Slice", "层面"),
    "decided_tag": ("used for the prediction", "用于预测"),
    "sheet": ("All slices with lesion", "所有含病灶的层面"),
    "sheet_some": ("Slices with lesion ({} of {} shown)", "含病灶的层面（共 {1} 层，显示 {0} 层）"),
    "sheet_none": ("Images analysed", "所分析的影像"),
    "sheet_key": ("{} images; scale bar 20 mm.", "{} 影像；标尺为 20 mm。"),
    "dot_key": ("● Slice used for the prediction.", "● 为用于预测的层面。"),
    "table": ("Results by slice", "逐层结果"),
    "table_key": (
        "Line in each bar: threshold. Dark bars: slices used for the prediction.",
        "条形中的竖线为阈值；深色条为用于预测的层面。",
    ),
    "table_key_raw": (
        "Probabilities of single slices, before calibration. Dark bars: slices used for the prediction.",
        "单个层面的概率，未经校准；深色条为用于预测的层面。",
    ),
    "area": ("Lesion area", "病灶面积"),
    "lesion": ("Lesion", "病灶"),
    "volume": ("Volume", "体积"),
    "diameters": ("Largest diameters on one slice", "单层最大径 × 垂直径"),
    "longest_3d": ("Longest diameter in 3D", "三维最大径"),
    "diameters_key": (
        "Diameters: of the largest connected part of the outline; the longest on a slice and the longest "
        "perpendicular to it. Not a RANO assessment.",
        "径线取自轮廓的最大连通部分：单一层面上的最长径，以及与其垂直的最长径；并非 RANO 评估。",
    ),
    "lesion_slices": ("Slices with lesion", "含病灶层数"),
    "largest_area": ("Largest area on one slice", "单层最大面积"),
    "in_slice": ("(slice {})", "（层面 {}）"),
    "outline_rule": ("Segmentation method", "勾画方式"),
    "assumed": (
        "Pixel size and slice spacing are unknown for image files; standard values are assumed, "
        "so areas, diameters and volume are approximate.",
        "图片文件不含像素大小与层间距信息，以假定值计算，因此面积、径线和体积仅为近似值。",
    ),
    "location": ("Location of the lesion (approximate)", "病灶位置（近似）"),
    "location_regions": ("Regions, by share of the volume", "所在脑区（占病灶体积的比例）"),
    "location_distances": ("Least distance to", "与功能区的最小距离"),
    "location_overlap": ("overlap", "重叠"),
    "name_and_value": ("{}: {}", "{}：{}"),
    "list_separator": ("; ", "；"),
    "notes": ("Notes", "备注"),
    "model": ("Model and software", "模型与软件"),
    "model_name": ("Model", "模型"),
    "intended_use": ("Intended use", "预期用途"),
    "trained_on": ("Training data", "训练数据"),
    "licence": ("Licence of the weights", "权重许可"),
    "sequences_used": ("Model input sequences", "输入模型的序列"),
    "sequences_found": ("Sequences found", "找到的序列"),
    "sha256": ("SHA-256 of the weights", "权重文件 SHA-256"),
    "software": ("Software", "软件"),
    "seconds": ("Computation time", "计算用时"),
    "seconds_value": ("{} s", "{} 秒"),
    "input_kind": ("Input", "输入"),
    "pictures": ("folders of image files", "图片文件夹"),
    "volumes": ("volumes (DICOM, NIfTI or MHA)", "容积数据（DICOM、NIfTI 或 MHA）"),
}

# Replace the texts above if a reader drew or corrected the outline.
READER_REPORT_TEXTS: TextTable = {
    "no_lesion": ("No lesion outlined", "未勾画病灶"),
    "no_lesion_more": (
        "The reader left no outline on these images.",
        "阅片者未在影像上保留任何勾画。",
    ),
    "outline_key": (
        "Bright line (yellow on screen): lesion outline by the reader.",
        "亮线（屏幕上为黄色）：阅片者勾画的病灶轮廓。",
    ),
}


def get_report_texts(language: Language, is_drawn_by_reader: bool = False) -> SimpleNamespace:
    """Return the fixed texts of one language as attributes.

    is_drawn_by_reader: whether a reader drew or corrected the segmentation.
    """
    texts = {**REPORT_TEXTS, **READER_REPORT_TEXTS} if is_drawn_by_reader else REPORT_TEXTS
    return SimpleNamespace(**{key: pair[_get_language_index(language)] for key, pair in texts.items()})


def _get_language_index(language: Language) -> int:
    return LANGUAGES.index(language)
