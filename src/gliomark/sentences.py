"""How reports and the client alike say a share, and in Chinese what gliomark says in English sentences.

A sentence is written once, in English, where it is said; here stands its Chinese. {} stands for whatever was put
there; a sentence that is not known stays as it came.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

CHINESE: Mapping[str, str] = {
    # of an answer
    "No lesion was found; no marker is predicted.": "未发现病灶，因此未预测标志物。",
    (
        "Age or sex is unknown; the markers were predicted without it, which was not tested."
    ): "年龄或性别未知；标志物是在缺少该信息的情况下预测的，这种用法未经验证。",
    (
        "{} is missing and {} was shown to the networks in its place, which they were not trained for: "
        "check the outline; the model gives no marker level."
    ): "缺少 {0}，以 {1} 代替输入网络，而网络并未为此训练：请核对轮廓；模型不给出标志物判断。",
    (
        "The images are not of the kind the model was trained on: a probability is shown, but no level."
    ): "影像与模型的训练数据不属同类：仅显示概率，不作判断。",
    (
        "On patients it never saw, this marker could not be told from chance: a probability is shown, "
        "but no level."
    ): "在模型从未见过的患者上，该标志物的预测与随机猜测无法区分：仅显示概率，不作判断。",
    (
        "The pictures are taken for axial slices, the patient's right on the left, named towards the head."
    ): "图片按横断面处理：患者右侧在图像左侧，文件名顺序朝向头顶。",
    (
        "The pictures carry no millimetres: {} x {} mm pixels and {} mm from slice to slice are assumed, "
        "so areas and volumes are estimates."
    ): "图片不含尺寸信息：假定像素为 {} × {} 毫米、层间距 {} 毫米，因此面积和体积为估计值。",
    (
        "AUC {} (95 % interval {} to {}) of the same recipe on {} {} patients in five folds, each never "
        "trained on ({} positive), outlines predicted, slices fused by Near; these weights are trained "
        "on all of them"
    ): (
        "同一方法在 {3} 例 {4} 患者（阳性 {5} 例）上五折交叉验证，测试患者均未参与训练，AUC 为 {0}"
        "（95% 置信区间 {1} 至 {2}）；轮廓由模型勾画，按 Near 规则合并层面；当前权重用全部患者训练"
    ),
    "positive: IDH1 or IDH2 is mutated; negative: wild type": "阳性：IDH1 或 IDH2 突变；阴性：野生型",
    (
        "high: the mean rank of 13 cell-cycle genes, measured in the tumour's RNA, is above the training "
        "cohort's median. This is a proxy of proliferation, not a stained Ki-67 index"
    ): "高：肿瘤 RNA 中 13 个细胞周期基因的平均秩高于训练队列的中位数。这是增殖的替代指标，并非 Ki-67 染色指数",
    "Proliferation proxy": "增殖替代指标（非 Ki-67）",
    "mutant": "突变型",
    "wild type": "野生型",
    "high": "高",
    "low": "低",
    # what goes on
    "aligning the sequences": "正在配准各序列",
    "finding the brain": "正在提取脑组织",
    "cutting slices": "正在切取层面",
    "outlining the lesion": "正在勾画病灶",
    "writing the results": "正在写入结果",
    "reading {}": "正在判断 {}",
    # what is wrong with the images, and with what was asked
    (
        "{}: the sequence {} is missing (found: {}); add it, or choose a model that does not need it."
    ): "{0}：缺少 {1} 序列（已找到：{2}）；请补充该序列，或选择不需要它的模型。",
    (
        "No brain was found in the image ({}); is this an axial head MRI?"
    ): "影像中未找到脑组织（{}）；这是横断面头部磁共振吗？",
    (
        "Only {} ml of brain were found in the image; is this a whole axial head MRI?"
    ): "影像中仅找到 {} 毫升脑组织；这是完整的横断面头部磁共振吗？",
    "The upload holds {} patients ({}); send one at a time.": "所选文件夹含 {} 位患者（{}）；请一次只选一位。",
    (
        "{} holds pictures but no sequence folders: put them in subfolders T1C, T2 and so on."
    ): "{} 中有图片但没有序列文件夹：请按 T1C、T2 等分放到子文件夹。",
    (
        "{} holds no patient's images: give pictures as <patient>/<sequence>/<slice>.jpg, volumes with "
        "T1, T1C, T2 or FLAIR in their name, or DICOM."
    ): (
        "{} 中没有患者影像：请提供 <患者>/<序列>/<层面>.jpg 形式的图片、"
        "文件名含 T1、T1C、T2 或 FLAIR 的容积数据，或 DICOM。"
    ),
    "There is no such study; upload it again.": "服务器上没有这份影像，请重新选择患者文件夹。",
    "The study's images and results were removed.": "该患者的影像与结果已被删除。",
    "Too many uploads at once; try again in a minute.": "同时上传过多，请一分钟后重试。",
    # what DICOM and NIfTI files left open
    "{} series look like {}; read: {}.": "有 {0} 个序列像是 {1}；采用：{2}。",
    "Series '{}' was not used: {}": "未使用序列“{}”：{}",
    (
        "The sequences come from {} different examinations of this patient."
    ): "各序列来自该患者的 {} 次不同检查。",
    (
        "{} does not state its orientation: left and right are assumed, not read."
    ): "{} 未注明方位：左右为假定，而非读取。",
    (
        "{}: slice {} of {} was missing and was interpolated from its neighbours."
    ): "{}：缺少第 {} 层（共 {} 层），已由相邻层插值。",
    "{}: {} copies of other images were left out.": "{}：略去 {} 幅重复图像。",
    # what a model says of itself
    "the sequences together as one input ({})": "各序列合并为一个输入（{}）",
    "each sequence alone, the outlines united ({})": "各序列分别勾画后合并（{}）",
    "one sequence alone ({})": "仅用一个序列（{}）",
    "reader's outline": "阅片者的勾画",
    (
        "demonstration and research only; not a medical device; trained on lower-grade glioma with T1C "
        "and FLAIR"
    ): "仅供演示与科研；不是医疗器械；以 T1C 与 FLAIR 的低级别胶质瘤训练",
    (
        "TCGA-LGG with the FLAIR-abnormality masks of Buda et al. 2019: {} patients for the outline, at "
        "least {} per marker"
    ): "TCGA-LGG，采用 Buda 等（2019）的 FLAIR 异常区掩模：勾画用 {} 例患者，每个标志物至少 {} 例",
    (
        "CC BY-NC-SA 4.0 (non-commercial, share-alike), inherited from the training masks; images TCIA "
        "TCGA-LGG, CC BY 3.0"
    ): "CC BY-NC-SA 4.0（非商业、相同方式共享），承自训练掩模；影像来自 TCIA TCGA-LGG，CC BY 3.0",
    ("The images came without a skull; skull stripping was left out."): "影像不含颅骨，未作去颅骨处理。",
}


def percent(probability: float | None) -> str:
    """Whole per cent; never 0 or 100, which no model can promise."""
    if probability is None:
        return "–"
    value = round(100 * probability)
    return "< 1 %" if value < 1 else "> 99 %" if value > 99 else f"{value} %"


def in_chinese(text: str) -> str:
    """The Chinese of a known sentence, what was put into it in its places."""
    for english, chinese in CHINESE.items():
        if found := _pattern(english).fullmatch(text.strip()):
            return chinese.format(*found.groups())
    return text


@cache
def _pattern(english: str) -> re.Pattern[str]:
    return re.compile("(.+?)".join(map(re.escape, english.split("{}"))), re.DOTALL)
