"""Every fixed word of the report's layout, in English and in Chinese; sentences are in ``messages``."""

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
    "date": ("Report made", "报告时间"),
    "images": ("Images used", "所用序列"),
    "instead": ("{} (no {} was found)", "{}（未找到 {}）"),
    "research": ("Research use only. Not a medical device.", "仅供科研使用，不是医疗器械。"),
    "research_more": (
        "A statistical estimate from pictures. It must not decide on diagnosis or treatment, "
        "and does not replace histology or molecular testing.",
        "本结果是基于影像的统计估计，不得作为诊断或治疗的依据，也不能代替组织病理或分子检测。",
    ),
    "warnings": ("Please note", "请注意"),
    "warn_here": ("Note", "注意"),
    "answer": ("The answer", "预测结果"),
    "probability_of": ("Probability of “{}”", "“{}”的概率"),
    "threshold": ("threshold {}", "阈值 {}"),
    "threshold_origin": ("Threshold", "阈值的由来"),
    "range": ("Range over the lesion’s slices", "各病灶层面的范围"),
    "range_value": (
        "{} to {}, the bracket over the bar; not a confidence interval.",
        "{} 至 {}，即条形上方标出的区间；并非置信区间。",
    ),
    "range_same": ("{} on each of them.", "各层均为 {}。"),
    "positive": ("What the probability means", "概率的含义"),
    "how": ("How the probability was computed", "概率的计算方式"),
    "made_of": ("Contribution of each factor (log-odds)", "各因素的贡献（对数几率）"),
    "made_of_start": ("baseline", "基线"),
    "made_of_image": ("image", "影像"),
    "performance": ("Validation", "验证结果"),
    "finding_performance": ("How reliable the reader’s finding is", "阅片者判断的可靠性"),
    "by_reader": ("From the reader’s finding", "依据阅片者的判断"),
    "by_reader_more": (
        "The level above follows what the reader stated, not the model.",
        "上述结论依据阅片者给出的判断，而非模型。",
    ),
    "model_says": ("For comparison, the model’s probability of “{}”", "供对照：模型给出的“{}”的概率"),
    "no_probability": ("No probability is given.", "不给出概率。"),
    "no_lesion": ("No lesion was found", "未发现病灶"),
    "no_lesion_more": (
        "The model outlined nothing on these images. If you can see a lesion, the model has missed it.",
        "模型未在这些影像上勾画出任何病灶。若您能看到病灶，说明模型漏检。",
    ),
    "slices_used": ("Slices used", "所用层面"),
    "deciding": ("Slices the prediction is based on", "预测所依据的层面"),
    "largest": ("Largest lesion slices", "病灶最大的层面"),
    "outline_key": (
        "The bright line (yellow on screen) is the lesion as the model outlined it.",
        "亮线（屏幕上为黄色）为模型勾画的病灶。",
    ),
    "side_key": (
        "Radiological convention: the patient’s right (R) is on the left.",
        "放射学惯例：图像左侧为患者右侧（R）。",
    ),
    "slice": ("Slice", "层面"),
    "decided_tag": ("used for the prediction", "用于预测"),
    "sheet": ("Every slice with a lesion", "所有含病灶的层面"),
    "sheet_some": ("Slices with a lesion ({} of {} shown)", "含病灶的层面（共 {1} 层，显示 {0} 层）"),
    "sheet_none": ("The images examined", "所分析的影像"),
    "sheet_key": ("{} images; the bar is 20 mm.", "{} 影像；标尺为 20 mm。"),
    "dot_key": ("● marks slices the prediction is based on.", "● 为预测所依据的层面。"),
    "table": ("Slice by slice", "逐层结果"),
    "table_key": (
        "The line in each bar is the threshold; dark bars are the slices the prediction is based on.",
        "条形中的竖线为阈值；深色条为预测所依据的层面。",
    ),
    "area": ("Lesion area", "病灶面积"),
    "lesion": ("Lesion", "病灶"),
    "volume": ("Volume", "体积"),
    "lesion_slices": ("Slices with lesion", "含病灶层数"),
    "largest_area": ("Largest area on a slice", "单层最大面积"),
    "in_slice": ("(slice {})", "（层面 {}）"),
    "outline_rule": ("Outline from", "勾画依据"),
    "assumed": (
        "The pictures carry no measurements: pixel size and slice distance are assumed, "
        "so areas and volume are approximate.",
        "图片文件不含尺寸信息：像素大小与层间距为假定值，面积和体积仅为近似。",
    ),
    "notes": ("Notes", "备注"),
    "model": ("Model and software", "模型与软件"),
    "model_name": ("Model", "模型"),
    "intended_use": ("Intended use", "预期用途"),
    "trained_on": ("Trained on", "训练数据"),
    "licence": ("Licence of the weights", "权重许可"),
    "sequences_used": ("Sequences shown to the model", "输入模型的序列"),
    "sequences_found": ("Sequences found", "找到的序列"),
    "sha256": ("SHA-256 of the weights", "权重文件 SHA-256"),
    "software": ("Software", "软件"),
    "seconds": ("Computing time", "计算用时"),
    "seconds_value": ("{} s", "{} 秒"),
    "input_kind": ("Input", "输入"),
    "pictures": ("picture folders", "图片文件夹"),
    "volumes": ("volumes (DICOM, NIfTI or MHA)", "容积数据（DICOM、NIfTI 或 MHA）"),
}

# In place of the above where a reader drew or corrected the outline.
READER_REPORT_TEXTS: TextTable = {
    "no_lesion": ("No lesion is outlined", "未勾画病灶"),
    "no_lesion_more": (
        "The reader left nothing outlined on these images.",
        "阅片者未在这些影像上保留任何勾画。",
    ),
    "outline_key": (
        "The bright line (yellow on screen) is the lesion as the reader outlined it.",
        "亮线（屏幕上为黄色）为阅片者勾画的病灶。",
    ),
}


def get_report_texts(language: Language, is_drawn_by_reader: bool = False) -> SimpleNamespace:
    """The fixed strings of one language, by name; by_reader: whether the outline is a reader's."""
    texts = {**REPORT_TEXTS, **READER_REPORT_TEXTS} if is_drawn_by_reader else REPORT_TEXTS
    return SimpleNamespace(**{key: pair[_get_language_index(language)] for key, pair in texts.items()})


def _get_language_index(language: Language) -> int:
    return LANGUAGES.index(language)
