"""Names: what a file's, a folder's or a DICOM series' name says about the image, in English and Chinese.

One set of rules for all of them. ``t1``, ``t1n``, ``T1w`` are T1; ``t1c``, ``t1ce``, ``t1gd``, ``T1 ... POST GAD``
are T1C; ``t2``, ``t2w`` are T2; ``flair``, ``fla``, ``t2f``, ``dark fluid`` are FLAIR. ``T1 FLAIR`` is a T1.

- Registration: of ``X_to_Y``, ``X_in_Y``, ``X2Y``, ``X_reg_Y``, ``X_space-Y``, ``X配准到Y`` the image is X.
- BIDS: entities (``sub-01_ses-1_space-T1w_...``) are set aside, what remains decides; ``ce-`` and ``acq-`` may
  tell of contrast medium.
- Contrast medium: a word that denies it counts before the word that it denies or behind it; a name that says
  both names no sequence.
- Other images (diffusion, ``T2*``, perfusion, angiography, maps, subtractions) are none of the four.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Literal

from gliomark.study import MRSequence


def any_of(*words: str) -> re.Pattern[str]:
    """Latin words stand alone (no letter before or after); Chinese ones may stand anywhere."""
    latin = [word for word in words if word.isascii()]
    chinese = [word for word in words if not word.isascii()]
    parts = [rf"(?<![a-z])(?:{'|'.join(latin)})(?![a-z])"] if latin else []
    return re.compile("|".join(parts + chinese), re.IGNORECASE)


# ---- other images -----------------------------------------------------------------------------------

# The first that fits names the kind; each is a kind of image that is none of the four sequences.
OTHER_KINDS = (
    ("localiser", any_of(r"loc", r"locali[sz]ers?", r"scout\w*", r"survey", r"surv", "aahead", r"plane[ _-]?loc",
                         r"(?:3|three|tri)[ _-]?pl(?:ane)?",
                         "定位", "扫描定位")),
    ("ADC", any_of("adc", r"e?adc[ _-]?map", r"dadc", "表观")),
    ("DWI", any_of(r"\w?dwi\w*", r"dti\w*", r"diff\w*", "resolve", "trace\\w*", "tracew",
                   r"b[ _=-]{0,3}(?:0|50|500|800|1000|1500|2000|3000)(?!\d|[ _-]?map)",
                   "tensor", "fa", "colfa", "dki", "noddi", "ivim", "弥散", "扩散", "张量")),
    ("perfusion", any_of(r"perf\w*", "dsc", "dce", "pwi", "asl", "pcasl", "pasl", r"(?:r|rel)?cbf", r"(?:r|rel)?cbv",
                         "mtt", "ttp", "tmax", "k?trans", "twist", "tricks", "disco", "dyn(?:amic)?", "灌注",
                         "动态增强", "动态强化")),
    ("spectroscopy", any_of(r"spectro\w*", "mrs", "svs", "csi", "press", "波谱")),
    ("functional", any_of(r"bold\w*", "fmri", r"rs[ _-]?fmri", "resting", "task", "静息态", "功能")),
    ("T2*", any_of(r"swi\w*", "swan", "swip", r"e?swan", "qsm", "hemo", "gre[ _-]?t2", "t2[ _-]?gre", "medic",
                   "merge", "t2w?[ _-]?star\\w*", r"t2s(?:w|wi)?", r"t2w?(?:[ -]\w+)?[ -]gre",
                   r"gre(?:[ -]\w+)?[ -]t2w?",
                   r"t2w?[ -]?fl[23]d\w*", r"fl[23]d[ -]?t2w?", "ffe[ _-]?t2", "t2w?[ _-]?ffe", "venobold",
                   "esp?wan", "wspi",
                   "susc\\w*", "磁敏感", "磁化率", "微出血")),
    ("angiography", any_of("tof\\w*", r"\d?d?[ _-]?tof", "mra\\w*", "mrv\\w*", r"angio\w*", "pca", "pcv",
                           "ce[ _-]?mra", "cow", "venogra\\w*", "inhance", "血管", "动脉", "静脉(?!注射)")),
    ("steady state", any_of("fiesta\\w*", "ciss", "true ?fi(?:sp)?", "trufi", "bssfp", "b-?ffe", "3d[ _-]?drive",
                            "内听道水成像", "水成像")),
    ("derived", any_of(r"t1\w* ?minus ?t1\w*", r"t1(?:c|ce|gd|post\w*) ?- ?t1(?:w|n|pre\w*)?",
                       "mip", "minip", "mnip", r"sub(?!-)", r"subtr\w*", "t1[ _-]?(?:map|rho)\\w*", "t2[ _-]?map\\w*",
                       "magic", r"synth\w*", "symap", "fused?", "fusion", "overlay", "vrt?", "3d[ _-]?render\\w*",
                       "curved", "减影", "合成", "伪彩", "最大密度", "融合")),
    ("MP2RAGE", any_of("mp2rage\\w*", r"inv[ _-]?[12]", "uni[ _-]?images?", "uni[ _-]?den")),
    ("screenshot", any_of("screen[ _-]?(?:save|shot|capture)\\w*", "captures?", "截图", "截屏")),
    ("report", any_of("dose[ _-]?report", "exam[ _-]?summary", "protocol[ _-]?summary", "phoenix\\w*",
                      "report", "报告")),
    ("STIR", any_of("stir", "t2[ _-]?stir", "脂肪抑制反转")),
    ("double inversion", any_of("dir", "dual[ _-]?ir", "双反转")),
    ("field map", any_of("field[ _-]?map\\w*", "gre[ _-]?field\\w*", r"b[01][ _-]?map\\w*", "shim\\w*", "calib\\w*",
                         "asset\\w*", "ref[ _-]?scan", "senseref\\w*", "cal(?:ibration)?", "ref(?:erence)?",
                         "校准", "匀场", "参考扫描")),
    ("phase", any_of("phase", "pha", "pha[ _-]?images?", "相位")),
    ("elastography", any_of("mre", "elasto\\w*", "弹性")),
)  # fmt: skip
_T2STAR = re.compile(r"t2w?[ _]?\*", re.IGNORECASE)
PROTON_DENSITY = any_of(r"pd\w?", r"pdw(?:i)?", r"pd[_ -].*", "proton", "质子")
# Words that a DICOM description uses of itself, and a file's name of something else.
_NOT_IN_FILES = frozenset({"report", "screenshot", "field map"})
# What processing leaves beside an image: what it took away, and where it moved things.
_REMOVED = r"(?!s?[ -]?(?:corr|remov|reduc|suppress|free|filter|normali[sz]ed))"
_BY_PRODUCTS = any_of(
    r"\d?(?:inv(?:erse)?[ -]?)?warp(?:[ -]?(?:fields?|coeff?s?))?", "xfm", r"deform\w*", r"displacements?\w*",
    r"(?:log)?jac(?:obian)?s?", r"transform(?:ation)?s?", r"(?:velocity|flow)[ -]?fields?",
    rf"(?:n[34][ -]?)?bias[ -]?fields?{_REMOVED}", rf"noise(?:[ -]?maps?)?{_REMOVED}", r"residuals?",
    "resid", "uncertainty", "entropy",
    r"(?:std[ -]?dev|variance|sigma)", r"prob(?:abilit(?:y|ies))?s?", "偏置场", "偏场", "残差",
    "噪声(?!校正|去除|抑制)",
    "形变场", "变形场", "位移场", "雅可比",
)  # fmt: skip
_FILE_KINDS = any_of("maps?", "md", "star", r"b[01][ _-]?map\w*", r"field[ _-]?map\w*", "unit1", "差值")  # fmt: skip


def spaced(words: str) -> str:
    """Chinese set off by blanks, so that ``横断T1增强`` holds the word ``T1``; full-width signs made plain."""
    plain = unicodedata.normalize("NFKC", words)
    return re.sub(r"([\u3400-\u9fff]+)", r" \1 ", plain).replace("_", " ").strip()


def kind_in_words(words: str) -> tuple[str, str] | None:
    """The kind of image other than our four that words name, and the word that said it."""
    return _other_kind(image_part(spaced(words).lower()), frozenset())


def _other_kind(plain: str, passed_over: frozenset[str]) -> tuple[str, str] | None:
    for kind, pattern in OTHER_KINDS:
        if kind not in passed_over and (match := pattern.search(plain)):
            return kind, match[0].strip()
    match = _T2STAR.search(plain)
    return ("T2*", match[0]) if match else None


def _names_other_image(text: str) -> bool:
    """Whether a file's name says diffusion, a map, a transform or another image that is none of ours."""
    text = re.sub(r"^sub\b|\bsub(?=[ -]?\d)", "", text)  # a subject's number, no subtraction
    found = _other_kind(text, _NOT_IN_FILES) or _FILE_KINDS.search(text) or PROTON_DENSITY.search(text)
    return found is not None


# ---- entities, and images registered to others ------------------------------------------------------

_ENTITIES = frozenset(
    "sub ses sample task tracksys acq ce trc stain rec dir run mod echo flip inv mt part proc hemi space split "
    "recording chunk atlas seg res den label desc from to mode cohort nuc voi model".split()
)
_ENTITY = re.compile(r"([A-Za-z]+)-([^_]+)")


def split_entities(name: str) -> tuple[Mapping[str, str], str]:
    """BIDS entities of a name (``sub-01_space-T1w_FLAIR``) and what remains of it (``FLAIR``)."""
    entities, rest = {}, []
    for part in name.split("_"):
        match = _ENTITY.fullmatch(part)
        if match and match[1].lower() in _ENTITIES:
            entities[match[1].lower()] = match[2]
        else:
            rest.append(part)
    return entities, "_".join(rest)


_GAP = r"(?:[ .(\[-]+)"
_MOVED = r"(?:co)?reg(?:ist(?:ered|ration))?|align(?:ed)?|warped|resampled|resliced|transformed|normali[sz]ed|mapped"
_TARGETS = (
    r"(?:[rw]?(?:t[12](?!\d)|flair|fla\b)|mni|sri|icbm|talairach|atlas|template|ref|reference|native|standard|std|"
    r"dwi|adc|pet|ct\b|fixed|baseline|first|space|common|post|pre|ce\b|gd|gad)"
)
_GLUED = r"(?:t[12](?!\d)|flair|mni|sri)"
_TO_ANOTHER = re.compile(
    rf"{_GAP}(?:(?:{_MOVED}){_GAP}?)?(?:(?<!prior )(?:to|onto|into|wrt)(?![a-z])|(?:to|2|in|on)(?={_GLUED}))"
    rf"|{_GAP}(?:(?:{_MOVED}){_GAP}?(?:2|in|on|with)?|2|in|on|at|space){_GAP}(?={_TARGETS})"
    rf"|{_GAP}(?:{_MOVED})(?={_GLUED})|{_GAP}(?={_TARGETS}\w*[ -]?space(?![a-z]))|\s*(?:→|->|=>)"
    r"|\s*(?:配准|对齐|对准|匹配)(?!后|的|$)|\s*[\u3400-\u9fff]+[到至]\s*(?=t[12]|flair|mni)"
)
_GLUED_TARGET = re.compile(
    r"(?<![a-z0-9])([rw]?(?:t1|t2|flair|fla)[a-z]{0,5}?)(?:2|to|in|on|reg(?:2|to)?)((?:t1|t2|flair|mni|sri)\w*)"
)
_CHINESE_TARGET_FIRST = re.compile(r"^\s*(?:配准|对齐)\s*[到至于]?\s*[\w ]+?\s*的\s*(?=\S)")
_SPACE_FLAIR = re.compile(rf"(?<![a-z0-9])t2\w*{_GAP}space{_GAP}(flair|dark)")

_FLAIR_SPACE = re.compile(
    rf"(?<![a-z0-9])t2w?{_GAP}flair{_GAP}space(?![a-z])(?!{_GAP}{_TARGETS})"
)  # a T2-FLAIR by SPACE, or a T2 in the FLAIR's space


def image_part(text: str) -> str:
    """Of a name like ``X to Y`` the X; text: lower case, spaced."""
    text = _GLUED_TARGET.sub(r"\1 to \2", _CHINESE_TARGET_FIRST.sub("", text))
    for match in _TO_ANOTHER.finditer(text):
        left = text[: match.start()]
        by_technique = _SPACE_FLAIR.search(text) and "space" in match[0]  # the pulse sequence SPACE
        if not by_technique and (_weighting(left) or _names_other_image(left)):
            return left
    return text


# ---- contrast medium --------------------------------------------------------------------------------

_BETWEEN = r"[ ./_-]*"
_TERM = r"(?:[ck]ontrast\w*|gad\w*|gd\w*|ce|km|cm|mdc|con|inj\w*|enh\w*)"
_NO = (
    r"(?:no|non|not|without|w ?[/-] ?o(?:ut)?|wout|w o|wo|sans|ohne|senza|sin|zonder|bez|minus|"
    r"pre|before|prior to|vor|avant)"
)
_FILLER = r"(?:any|the|iv|i\.v\.?|intravenous|post|mr|of)"
_OTHER_MATTER = (
    r"(?:fat|fs|spir|spair|sat|motion|grappa|sense|acc|mt|dixon|angle|gap|flow|fc|filter|norm|sed|ga\b)"
)
_DENIED = re.compile(
    rf"(?<![a-z]){_NO}{_BETWEEN}(?:{_FILLER}{_BETWEEN}){{0,2}}{_TERM}(?:{_BETWEEN}(?:{_TERM}|agent|medium))*(?![a-z])"
    rf"|(?<![a-z]){_NO}[ ./_-]+c(?![a-z])|(?<![a-z])(?:prec|noc|nc|o\.? ?km)(?![a-z])"
    rf"|(?<![a-z])un-?enh\w*|(?<![a-z]){_TERM}[ :=_-]*(?:free|negative|neg|nein|none|nil|minus|not (?:given|used)"
    rf"|(?:no|without)(?! ?-?{_OTHER_MATTER}))(?![a-z])"
    r"|(?<![a-z])c[ :=_-]*(?:free|negative|neg|none)(?![a-z])"
    r"|(?<![a-z0-9])-(?:c|gd|gad\w*|km|ce|inj|contrast)(?![a-z])"
    r"|(?<![a-z])(?:c|gd|gad\w*|km|ce|inj|contrast)(?:-(?=$|[ ).,;/\]])|\s?\(-\))"
    r"|t1w?i?(?:\s?\(-\)|-(?=$|[ )]))"
    r"|(?<![a-z])pre(?![a-z])(?![ _-]?(?:op|surg|treat|rt|chemo|proc|sat|scan|ther|rad|resec))"
    rf"|(?<![a-z])(?:plain|(?:without|w ?[/-] ?o(?:ut)?|wout|wo|sans|ohne)(?! ?-?{_OTHER_MATTER}))(?![a-z])"
    r"|(?:未|无|非|不|没有?|免|勿)\s*[注射使用行做见明显加经静脉含打过作 ]{0,6}(?:增强|强化|造影剂?|对比剂|钆\w*|药)"
    r"(?:扫描|检查|剂)?|(?:增强|强化|造影剂?|对比剂|打药|注药|注射)(?:扫描|注射)?\s*之?前(?!后)|(?:增强|强化)\s?\(-\)|平\s*扫"
    r"|(?:增强|强化|造影剂?|对比剂|打药|注药|注射)(?:扫描|检查|注射)?\s*(?:[((:: ]\s*)?(?:(?:尚?未|没有?|不)\s*"
    r"(?:能|予|再)?(?:做|行|用|使用|注射?|注入|扫|打|给|检查|完成|进行|实施|执行)|取消|放弃|失败|拒绝|(?:无|否|未|没有)(?![\u4e00-\u9fff]))",
    re.IGNORECASE,
)
_NATIVE = re.compile(r"(?<![a-z])nativ[ea]?(?![a-z])(?! ?space)")  # "t1c_native" lies in its own space
# What may be glued to an agent's word; Gdansk, Gadsden, Posthumus and Enhui are people and places.
_GLUED_TO_AGENT = (
    r"(?:\d\w*|w|iv|fs|fat\w*|ax\w*|tra\w*|sag\w*|cor\w*|mpr\w*|vibe|space|bravo|spgr|fse|tse|se|dyn\w*|early|late|"
    r"delay\w*|dtpa\w*|bopta|dota|do3a|eob\w*|hp\w*|bt\w*|ga|pos\w*|plus|c|ce|km|con\w*|kon\w*|gd\w{0,6}|gad|gado\w*|"
    r"inj|inje\w*|enh|enhan\w*)?"
)
_AFTER = re.compile(
    rf"(?<![a-z])(?:\+\s?c|c\s?\+|\+\s?(?:gd|gad)\w*|gd{_GLUED_TO_AGENT}|gad(?:[oa]\w*|{_GLUED_TO_AGENT})|"
    r"post(?![ _-]?(?:op|surg|rt|chemo|treat|eri|fossa|proc|resec|ther|rad|biops|cranio|crt|tmz))"
    rf"{_GLUED_TO_AGENT}|"
    r"pos[ -]?(?:gd|gad|con)\w*|ce|km|(?<!\d)(?<!\d )cm|mdc|[ck]ontrast\w*|inj(?:e\w*)?|"
    r"w/? ?con|w/? ?c|m\.? ?km|enh(?:an\w*)?)(?![a-z])"
    r"|t1\w*\s?(?:\+(?=$|[ )cgk])|\(\+\))|(?:t1w?i?)[ _-]c(?![a-z])|(?<= )c$|(?<=[a-z0-9_ ])\+(?:ce|km|gd|c)(?![a-z])"
    r"|(?<![a-z])c\s?\(\+\)|增强|强化|造影|对比剂|钆|[注打]药后|注射后",
    re.IGNORECASE,
)
_BOTH = re.compile(
    r"w[ /_&+-]*(?:and[ _]?)?w ?/? ?o(?![a-z])|with[ _]?(?:and|&|/)[ _]?without|pre[ _/&+-]*(?:and[ _])?post|"
    r"\+\s?/?\s?-\s?c|±|(?<![a-z])c-\s?/?\s?c\+|平扫\s*[+及和与加、/ -]*\s*(?:增强|强化)|(?:增强|强化)\s*前后",
    re.IGNORECASE,
)
_Contrast = Literal["after", "without", "both", ""]


def contrast_in_words(words: str) -> bool | None:
    """True: after contrast; False: before or without; None: not said, or both at once."""
    return {"after": True, "without": False}.get(_contrast(image_part(spaced(words).lower())))


def _contrast(text: str) -> _Contrast:
    """What lower-case, spaced words say of contrast medium."""
    text = re.sub(r"t1(?:wi?)?(?=[a-z])", "t1 ", text)  # t1ce, t1wpost
    text = re.sub(r"(?<=ce)(?=t1)|(?<=gd)(?=t1)|(?<=km)(?=t1)|(?<=pre)(?=t1)|(?<=post)(?=t1)", " ", text)
    if _BOTH.search(text):
        return "both"
    said = _DENIED.sub(" ; ", text)
    after = _AFTER.search(said) is not None
    if said != text:
        return "both" if after else "without"
    if after:
        return "after"
    return "without" if _NATIVE.search(text) else ""


def _with_labels(text: str, entities: Mapping[str, str]) -> str:
    """The words that tell of contrast medium: the name's, and those of ``ce-``, ``acq-``, ``desc-``, ``rec-``."""
    labels = [entities[key] for key in ("acq", "desc", "rec") if key in entities]
    agent = entities.get("ce", "").lower()
    if agent and not re.fullmatch(r"[2-9]|\d\d+", agent):  # CE-07 is a patient
        denied = re.match(r"(?:no|non|none|pre|without|wo|plain|native|0)", agent)
        labels.append("without contrast" if denied else "contrast")
    return " ".join([text, *(spaced(label).lower() for label in labels)])


# ---- the four sequences -----------------------------------------------------------------------------

# Scanner descriptions glue the plane and the technique to the weighting: "3DAXT1postcontrast"; tools add r, w, m.
_WEIGHTED = re.compile(
    r"(?:3d|2d|axial|ax|tra|sagittal|sag|coronal|cor|fse|tse|ir|pre|post|ce|gd|km|coreg|reg|[rwm])*"
    r"t(?P<weight>[12])(?!\d).*"
)
_FLAIR = re.compile(r".*flair.*|fla|t2f|tirm")
DARK_FLUID = re.compile(
    r"dark[ _-]?fl|da[ _-]?fl|黑水|压水|水抑制|抑水|液体衰减|液体抑制|fluid[ _-]?att|flair|tirm(?!.*t1)|"
    r"spc_?ir|space_?ir",
    re.IGNORECASE,
)


def words_of(name: str) -> list[str]:
    """Split a name or description into lower-case words; ``+`` stays, as in ``t1+c``."""
    return [word for word in re.split(r"[^\w+]+|_+", name.lower()) if word]


def sequence_in_name(name: str) -> MRSequence | None:
    """Which of the four sequences a file's, folder's or series' name means, None where it names none."""
    entities, rest = split_entities(unicodedata.normalize("NFKC", name))
    whole = _PADDED_ID.sub("", spaced(rest).lower())
    text = image_part(whole)
    either = _SPACE_FLAIR.search(text)  # a FLAIR by the pulse sequence SPACE, or a T2 in the FLAIR's space
    other = (
        _names_other_image(text)
        or _BY_PRODUCTS.search(whole)
        or _BY_PRODUCTS.search(entities.get("desc", ""))
    )
    either_way = (either and either[1] == "flair") or _FLAIR_SPACE.search(whole)
    if other or either_way or entities.get("part", "mag").lower() != "mag":
        return None
    weighting, own = _weighting(text), _without_id(text)
    if _weighting(own) != weighting:
        return None  # T1-003_T2: the id may speak, or the image
    if weighting != MRSequence.T1:
        return weighting
    said = _contrast(_with_labels(own, entities))
    return {"after": MRSequence.T1C, "both": None}.get(said, MRSequence.T1)


# PD0012 and CE0012 before the sequence's word: the zero is a numbered patient's.
_PADDED_ID = re.compile(r"^[a-z]{2,}0\d+(?=[ -])(?=.*(?:t[12]|fla))")
_NUMBERED_ID = re.compile(
    r"^[a-z][a-z ._-]*\d{2,}[\d ._-]*[ ._-](?! ?(?:m?l|m?min|s|sec|m?mol|mm|%)(?![a-z]))"
)
_PLAIN_AGENT = re.compile(
    r"gado[lvtdp]|gadav|[ck]ontrast|enhan|post ?-?(?:gd|gad|c)(?![a-z])|post[ -]?con|增强|强化|造影|对比剂"
)


def _without_id(text: str) -> str:
    """A name without the patient's id before the sequence's word: of ``gdansk 012 t1`` the ``t1``.

    An id is letters with a number of two digits or more; letters that plainly speak of contrast medium are none.
    """
    found = _NUMBERED_ID.match(text)
    if not found or _PLAIN_AGENT.search(found[0]) or _weighting(text[found.end() :]) is None:
        return text
    return text[found.end() :]


def _weighting(text: str) -> MRSequence | None:
    """T1 (with contrast medium or without), T2 or FLAIR; None where words name none, or T1 and T2."""
    words = words_of(text)
    weights = [(at, match["weight"]) for at, word in enumerate(words) if (match := _WEIGHTED.fullmatch(word))]
    flairs = [at for at, word in enumerate(words) if _FLAIR.fullmatch(word)]
    # A T1 FLAIR is a T1: the weighting stands before the technique.
    first_t1 = bool(weights) and weights[0][1] == "1"
    if flairs and not (first_t1 and weights[0][0] <= flairs[0]):
        return MRSequence.FLAIR
    if not first_t1 and DARK_FLUID.search(text):
        return MRSequence.FLAIR
    named = {weight for _, weight in weights}
    if len(named) != 1:
        return None
    return MRSequence.T1 if first_t1 else MRSequence.T2


# ---- masks ------------------------------------------------------------------------------------------

_MASK = re.compile(
    r"seg.*|.*seg|.*mask|mask.*|truth|label.*|ot|gt|.*segmentation|.*(?:掩膜|掩模|勾画|分割|标注).*"
)
_DRAWN = re.compile(r"lesions?|rois?|病灶.*")
_DRAWN_BEHIND = re.compile(
    r"tumou?rs?|gtv\w*|o?edema|肿瘤.*"
)  # behind the sequence's word; else a patient's name
_ANATOMY = re.compile(
    r"brain.*|parenchyma.*|skull.*|aseg|aparc.*|gm|wm|csf|tissues?|deface.*|face|head|cortex|ventricles?|脑掩膜|全脑.*"
)
_LESION_WORD = re.compile(
    r"tumou?rs?|lesions?|gliomas?|ot|肿瘤.*|病灶.*"
)  # VSD.Brain.XX.O.OT: BRATS 2013's truth


def is_mask_name(name: str) -> bool:
    """Whether a name says that the file or folder is a mask, of a lesion or of something else."""
    words = _mask_words(name)
    drawn = any(
        _DRAWN.fullmatch(word) and not re.fullmatch(r"\d+", after)
        for word, after in zip(words, [*words[1:], ""], strict=False)
    )
    sequence = next((at for at, word in enumerate(words) if _weighting(word)), len(words))
    behind = any(_DRAWN_BEHIND.fullmatch(word) for word in words[sequence:])
    return drawn or behind or any(_MASK.fullmatch(word) for word in words)


def is_lesion_name(name: str) -> bool:
    """Whether a name says that the file or folder is a lesion mask; a brain mask is none."""
    words = _mask_words(name)
    anatomy = any(_ANATOMY.fullmatch(word) for word in words)
    lesion = any(_LESION_WORD.fullmatch(word) for word in words)
    oedema = any(re.fullmatch(r"o?edema", word) for word in words)
    return is_mask_name(name) and not oedema and (lesion or not anatomy)


def _mask_words(name: str) -> list[str]:
    """The words that may tell of a mask; of BIDS entities the label and the description."""
    entities, rest = split_entities(name)
    told = " ".join([rest, *(f"{key} {entities[key]}" for key in ("label", "desc") if key in entities)])
    marked = f"{told} seg" if "seg" in entities else told
    return [word for word in words_of(marked) if word != "desc"]


# ---- examinations and patients ----------------------------------------------------------------------

_AFTER_SURGERY = re.compile(
    r"(?<![a-z])(?:post[ _-]?(?:op(?![a-z])|opera\w*|surg\w*|resec\w*|cranio\w*)|intra[ _-]?op\w*|imri|"
    r"after (?:the )?(?:surg\w*|resec\w*|operation)|nach[ _-]?op|s/p (?:resec|cranio|surg)\w*)"
    r"|术后|术中|切除后|手术后",
    re.IGNORECASE,
)


def after_surgery_in_words(words: str) -> bool:
    """Whether a description or a session's name says that it was taken during or after surgery."""
    return _AFTER_SURGERY.search(unicodedata.normalize("NFKC", words).replace("_", " ")) is not None


def same_id(patient_id: str) -> str:
    """An id without what archives change in it: capitals, blanks, padding by ``^``."""
    plain = unicodedata.normalize("NFKC", patient_id)
    return re.sub(r"[\s^=]+", " ", plain).strip().casefold()
