"""What the words of a series' description say, in English and Chinese, with the scanners' own names."""

from __future__ import annotations

import re

from gliomark.io.nifti import sequence_in_name
from gliomark.study import MRSequence


def _any(*words: str) -> re.Pattern[str]:
    """Latin words stand alone (no letter before or after); Chinese ones may stand anywhere."""
    latin = [word for word in words if word.isascii()]
    chinese = [word for word in words if not word.isascii()]
    parts = [rf"(?<![a-z])(?:{'|'.join(latin)})(?![a-z])"] if latin else []
    return re.compile("|".join(parts + chinese), re.IGNORECASE)


# The first that fits names the kind; each is a kind of image that is none of the four sequences.
_KINDS = (
    ("localiser", _any(r"loc", r"locali[sz]ers?", r"scout\w*", r"survey", r"surv", "aahead", r"plane[ _-]?loc",
                       "定位", "扫描定位")),
    ("ADC", _any("adc", r"e?adc[ _-]?map", r"dadc", "表观")),
    ("DWI", _any(r"\w?dwi\w*", r"dti\w*", r"diff\w*", "resolve", "trace\\w*", "tracew",
                 r"b[ _-]?(?:800|1000|1500|2000)",
                 "tensor", "fa", "colfa", "dki", "noddi", "ivim", "弥散", "扩散", "张量")),
    ("perfusion", _any(r"perf\w*", "dsc", "dce", "pwi", "asl", "pcasl", "pasl", r"(?:r|rel)?cbf", r"(?:r|rel)?cbv",
                       "mtt", "ttp",
                       "tmax",                        "k?trans", "twist", "tricks", "disco", "灌注", "动态增强")),
    ("spectroscopy", _any(r"spectro\w*", "mrs", "svs", "csi", "press", "波谱")),
    ("functional", _any(r"bold\w*", "fmri", r"rs[ _-]?fmri", "resting", "task", "静息态", "功能")),
    ("T2*", _any(r"swi\w*", "swan", "swip", r"e?swan", "qsm", "hemo", "gre[ _-]?t2", "t2[ _-]?gre", "medic",
                 "merge",
                 "t2star\\w*", "ffe[ _-]?t2", "venobold", "esp?wan", "wspi", "susc\\w*", "磁敏感", "磁化率",
                 "微出血")),
    ("angiography", _any("tof\\w*", r"\d?d?[ _-]?tof", "mra\\w*", "mrv\\w*", r"angio\w*", "pca", "pcv", "ce[ _-]?mra",
                         "cow", "venogra\\w*", "inhance", "血管", "动脉", "静脉")),
    ("steady state", _any("fiesta\\w*", "ciss", "true ?fi(?:sp)?", "trufi", "bssfp", "b-?ffe",
                          "3d[ _-]?drive", "内听道水成像",
                          "水成像")),
    ("derived", _any("mip", "minip", "mnip", r"sub(?!-)", r"subtr\w*", "t1[ _-]?map\\w*", "t2[ _-]?map\\w*",
                     "magic",
                     r"synth\w*", "symap", "fused?", "fusion", "overlay", "vrt?", "3d[ _-]?render\\w*", "curved",
                     "减影", "合成", "伪彩", "最大密度", "融合")),
    ("MP2RAGE", _any("mp2rage\\w*", r"inv[ _-]?[12]", "uni[ _-]?images?", "uni[ _-]?den")),
    ("screenshot", _any("screen[ _-]?(?:save|shot|capture)\\w*", "captures?", "截图", "截屏")),
    ("report", _any("dose[ _-]?report", "exam[ _-]?summary", "protocol[ _-]?summary", "phoenix\\w*",
                    "report", "报告")),
    ("STIR", _any("stir", "t2[ _-]?stir", "脂肪抑制反转")),
    ("double inversion", _any("dir", "dual[ _-]?ir", "双反转")),
    ("field map", _any("field[ _-]?map\\w*", "gre[ _-]?field\\w*", r"b[01][ _-]?map\\w*", "shim\\w*",
                       "calib\\w*",
                       "asset\\w*", "ref[ _-]?scan", "senseref\\w*", "cal(?:ibration)?", "ref(?:erence)?",
                       "校准", "匀场", "参考扫描")),
    ("phase", _any("phase", "pha", "pha[ _-]?images?", "相位")),
    ("elastography", _any("mre", "elasto\\w*", "弹性")),
)  # fmt: skip
_PD = _any(r"pd\w?", r"pdw(?:i)?", r"pd[_ -].*", "proton", "质子")
_T2STAR = re.compile(r"t2\s?\*|t2w?_?\*|t2[ _-]?star", re.IGNORECASE)
_DARK_FLUID = re.compile(
    r"dark[ _-]?fl|da[ _-]?fl|黑水|压水|水抑制|抑水|flair|tirm(?!.*t1)|spc_?ir|space_?ir", re.IGNORECASE
)
_T1_NAMES = re.compile(
    r"mp-?rage|bravo|f?spgr|(?<![a-z])tfl|3d[ _-]?tfe|t1tfe|gre_?fsp|mprage", re.IGNORECASE
)
_T1_LOOSE = re.compile(r"(?<![a-z0-9])[a-z]{0,4}t1(?!\d)", re.IGNORECASE)
_T2_LOOSE = re.compile(r"(?<![a-z0-9])[a-z]{0,4}t2(?!\d)", re.IGNORECASE)

_CONTRAST = re.compile(
    r"(?<![a-z])(?:\+\s?c|c\s?\+|\+\s?g(?:a)?d\w*|gd\w*|gad\w*|"
    r"post(?![ _-]?(?:op|surg|rt|chemo|treat|eri|fossa|proc))\w*|"
    r"ce(?![a-z])|km(?![a-z])|mdc(?![a-z])|(?:w|with|\+|\bci?)[ /_-]*contrast|contrast|enh\w*|"
    r"t1w?(?:c|ce|gd|km)(?![a-z]))"
    r"|\+c(?![a-z])|t1\w*\+|(?:t1w?)[_ -]c(?![a-z])|(?<=[a-z0-9_ ])\+(?:ce|km|gd)|增强|强化|造影后|t1c(?:e)?(?![a-z])",
    re.IGNORECASE,
)
_NO_CONTRAST = re.compile(
    r"(?<![a-z])(?:pre(?![a-z])(?![ _-]?(?:op|surg|treat|rt))|plain|native|without|w/o|wo(?![a-z])|w_o|sans|ohne|"
    r"non?[ _-]?(?:contrast|gad\w*|gd|ce|enh\w*)|un-?enh\w*|precontrast|pre_?gd|pregad\w*|nativ)(?![a-z])"
    r"|平扫|未增强|非增强|无增强|增强前|不增强|无强化",
    re.IGNORECASE,
)
_BOTH = re.compile(r"w[ /_&+-]*(?:and[ _]?)?w/?o(?![a-z])|with[ _]?(?:and|&|/)[ _]?without|"
                   r"pre[ _/&+-]*(?:and[ _])?post|"
                   r"平扫\s*[+＋及和与加/]?\s*增强|平扫增强", re.IGNORECASE)  # fmt: skip
_PLANES = (
    ("sagittal", _any(r"o?sag\w*", "saggital", "矢状", "矢位")),
    ("coronal", _any(r"o?cor(?!r)\w*", "coro", "冠状", "冠位")),
    ("axial", _any(r"o?ax\w*", r"tra(?!c)\w*", "transv\\w*", r"obl[ _]?ax\w*", "轴位", "横断", "横轴", "轴状")),
)  # fmt: skip
_HEAD = _any("head\\w*", "brain\\w*", "skull", "neuro\\w*", "cereb\\w*", "crani\\w*", "glioma", "stealth",
    "navi\\w*", "头",
             "颅", "脑")  # fmt: skip
_ELSEWHERE = _any(
    r"[ctl]?[ _-]?spines?", r"\w*spine\w*", "cspine", "tspine", "lspine", "cervical\\w*", "thorac\\w*", "lumb\\w*",
    "sacr\\w*",
    "knees?", "shoulders?", "hips?", "ankles?", "wrists?", "elbows?", "hands?", "feet", "foot", "legs?",
    "extremit\\w*", "abd\\w*",
    "liver", "hepat\\w*", "kidneys?", "renal", "pelvis\\w*", "pelvic", "prostat\\w*", "uter\\w*", "rectum",
    "rectal", "breasts?",
    "mamma", "chest", "thorax", "heart", "cardiac\\w*", "necks?", "thyroid", "nasophar\\w*", "pituit\\w*",
    "sella\\w*", "orbits?",
    "eyes?", "iacs?", "ears?", "temporal bones?", "tmj", "parotid", "mrcp", "aorta", "femur", "tibia", "jaw",
    "[ctl]sp",
    "颈", "胸", "腰", "骶", "脊柱", "脊髓", "椎", "膝", "肩", "髋", "踝", "腕", "肘", "手(?!术)", "足", "腹",
    "肝", "肾", "盆",
    "前列腺", "子宫", "直肠", "乳腺", "心脏", "甲状腺", "鼻咽", "垂体", "鞍区", "眼眶", "眶", "内听道",
    "腮腺", "关节",
)  # fmt: skip


def spaced(words: str) -> str:
    """Chinese set off by blanks, so that ``横断T1增强`` holds the word ``T1``."""
    return re.sub(r"([\u3400-\u9fff]+)", r" \1 ", words.replace("＋", "+")).replace("_", " ").strip()


def kind_in_words(words: str) -> tuple[str, str] | None:
    """The kind of image other than our four that words name, and the word that said it."""
    plain = spaced(words)
    for kind, pattern in _KINDS:
        if match := pattern.search(plain):
            return kind, match[0].strip()
    if match := _T2STAR.search(plain):
        return "T2*", match[0]
    return None


def weighting_in_words(words: str) -> MRSequence | str | None:
    """T1 (with or without contrast), T2, FLAIR or "PD"; None where the words name none or two of them."""
    plain = spaced(words)
    if _PD.search(plain):
        return None if _T1_LOOSE.search(plain) or _T2_LOOSE.search(plain) else "PD"
    first = sequence_in_name(plain)
    if first in (MRSequence.T1, MRSequence.T1C):
        return MRSequence.T1
    if _T1_LOOSE.search(plain) and not _T2_LOOSE.search(plain):
        return MRSequence.T1
    if _DARK_FLUID.search(plain):
        return MRSequence.FLAIR
    if first is not None:
        return first
    if _T2_LOOSE.search(plain):
        return None if _T1_LOOSE.search(plain) else MRSequence.T2
    return MRSequence.T1 if _T1_NAMES.search(plain) else None


def contrast_in_words(words: str) -> bool | None:
    """True: after contrast; False: before or without; None: not said, or both at once."""
    plain = spaced(words)
    if _BOTH.search(plain):
        return None
    if _NO_CONTRAST.search(plain):
        return False
    return True if _CONTRAST.search(plain) else None


def plane_in_words(words: str) -> str:
    """``axial``, ``sagittal``, ``coronal`` or blank; blank too where several are named."""
    plain = spaced(words)
    named = [plane for plane, pattern in _PLANES if pattern.search(plain)]
    return named[0] if len(named) == 1 else ""


def names_head(words: str) -> bool:
    """Whether words speak of head or brain."""
    return _HEAD.search(spaced(words)) is not None


def elsewhere_in_words(words: str) -> str:
    """The word for another part of the body, blank for none."""
    match = _ELSEWHERE.search(spaced(words))
    return match[0].strip() if match else ""


def inversion_in_words(words: str) -> bool:
    """Whether the name is of a technique with an inversion pulse (T1 FLAIR, MPRAGE, TIRM)."""
    return (
        re.search(r"flair|tirm|mp-?rage|(?<![a-z])ir(?![a-z])|tfl|bravo|tfe", words, re.IGNORECASE)
        is not None
    )
