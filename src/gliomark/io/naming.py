"""Identify an image by the name of its file, folder or DICOM series, in English and Chinese.

The same rules apply to all of them. ``t1``, ``t1n``, ``T1w`` are T1; ``t1c``, ``t1ce``, ``t1gd``, ``T1 ... POST GAD``
are T1C; ``t2``, ``t2w`` are T2; ``flair``, ``fla``, ``t2f``, ``dark fluid`` are FLAIR. ``T1 FLAIR`` is T1.

- Registration: in ``X_to_Y``, ``X_in_Y``, ``X2Y``, ``X_reg_Y``, ``X_space-Y`` and ``X配准到Y``, the image is X.
- BIDS: entities (``sub-01_ses-1_space-T1w_...``) are removed and the rest decides; ``ce-`` and ``acq-`` may name
  a contrast agent.
- Contrast agent: a negation is recognised before and after the word that it negates; a name with both statements
  identifies no sequence.
- Other images (diffusion, ``T2*``, perfusion, angiography, maps, subtractions) are excluded.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Literal

from gliomark.study import MRSequence


def compile_word_pattern(*words: str) -> re.Pattern[str]:
    """Compile a pattern of words: Latin words only as whole words, Chinese words anywhere."""
    latin = [word for word in words if word.isascii()]
    chinese = [word for word in words if not word.isascii()]
    parts = [rf"(?<![a-z])(?:{'|'.join(latin)})(?![a-z])"] if latin else []
    return re.compile("|".join(parts + chinese), re.IGNORECASE)


# ---- other images -----------------------------------------------------------------------------------

# Kinds of images that are not one of the four sequences; the first match decides.
EXCLUDED_IMAGE_KINDS = (
    (
        "localiser",
        compile_word_pattern(
            r"loc",
            r"locali[sz]ers?",
            r"scout\w*",
            r"survey",
            r"surv",
            "aahead",
            r"plane[ _-]?loc",
            r"(?:3|three|tri)[ _-]?pl(?:ane)?",
            "定位",
            "扫描定位",
        ),
    ),
    ("ADC", compile_word_pattern("adc", r"e?adc[ _-]?map", r"dadc", "表观")),
    (
        "DWI",
        compile_word_pattern(
            r"\w?dwi\w*",
            r"dti\w*",
            r"diff\w*",
            "resolve",
            "trace\\w*",
            "tracew",
            r"b[ _=-]{0,3}(?:0|50|500|800|1000|1500|2000|3000)(?!\d|[ _-]?map)",
            "tensor",
            "fa",
            "colfa",
            "dki",
            "noddi",
            "ivim",
            "弥散",
            "扩散",
            "张量",
        ),
    ),
    (
        "perfusion",
        compile_word_pattern(
            r"perf\w*",
            "dsc",
            "dce",
            "pwi",
            "asl",
            "pcasl",
            "pasl",
            r"(?:r|rel)?cbf",
            r"(?:r|rel)?cbv",
            "mtt",
            "ttp",
            "tmax",
            "k?trans",
            "twist",
            "tricks",
            "disco",
            "dyn(?:amic)?",
            "灌注",
            "动态增强",
            "动态强化",
        ),
    ),
    ("spectroscopy", compile_word_pattern(r"spectro\w*", "mrs", "svs", "csi", "press", "波谱")),
    (
        "functional",
        compile_word_pattern(r"bold\w*", "fmri", r"rs[ _-]?fmri", "resting", "task", "静息态", "功能"),
    ),
    (
        "T2*",
        compile_word_pattern(
            r"swi\w*",
            "swan",
            "swip",
            r"e?swan",
            "qsm",
            "hemo",
            "gre[ _-]?t2",
            "t2[ _-]?gre",
            "medic",
            "merge",
            "t2w?[ _-]?star\\w*",
            r"t2s(?:w|wi)?",
            r"t2w?(?:[ -]\w+)?[ -]gre",
            r"gre(?:[ -]\w+)?[ -]t2w?",
            r"t2w?[ -]?fl[23]d\w*",
            r"fl[23]d[ -]?t2w?",
            "ffe[ _-]?t2",
            "t2w?[ _-]?ffe",
            "venobold",
            "esp?wan",
            "wspi",
            "susc\\w*",
            "磁敏感",
            "磁化率",
            "微出血",
        ),
    ),
    (
        "angiography",
        compile_word_pattern(
            "tof\\w*",
            r"\d?d?[ _-]?tof",
            "mra\\w*",
            "mrv\\w*",
            r"angio\w*",
            "pca",
            "pcv",
            "ce[ _-]?mra",
            "cow",
            "venogra\\w*",
            "inhance",
            "血管",
            "动脉",
            "静脉(?!注射)",
        ),
    ),
    (
        "steady state",
        compile_word_pattern(
            "fiesta\\w*",
            "ciss",
            "true ?fi(?:sp)?",
            "trufi",
            "bssfp",
            "b-?ffe",
            "3d[ _-]?drive",
            "内听道水成像",
            "水成像",
        ),
    ),
    (
        "derived",
        compile_word_pattern(
            r"t1\w* ?minus ?t1\w*",
            r"t1(?:c|ce|gd|post\w*) ?- ?t1(?:w|n|pre\w*)?",
            "mip",
            "minip",
            "mnip",
            r"sub(?!-)",
            r"subtr\w*",
            "t1[ _-]?(?:map|rho)\\w*",
            "t2[ _-]?map\\w*",
            "magic",
            r"synth\w*",
            "symap",
            "fused?",
            "fusion",
            "overlay",
            "vrt?",
            "3d[ _-]?render\\w*",
            "curved",
            "减影",
            "合成",
            "伪彩",
            "最大密度",
            "融合",
        ),
    ),
    ("MP2RAGE", compile_word_pattern("mp2rage\\w*", r"inv[ _-]?[12]", "uni[ _-]?images?", "uni[ _-]?den")),
    (
        "screenshot",
        compile_word_pattern("screen[ _-]?(?:save|shot|capture)\\w*", "captures?", "截图", "截屏"),
    ),
    (
        "report",
        compile_word_pattern(
            "dose[ _-]?report", "exam[ _-]?summary", "protocol[ _-]?summary", "phoenix\\w*", "report", "报告"
        ),
    ),
    ("STIR", compile_word_pattern("stir", "t2[ _-]?stir", "脂肪抑制反转")),
    ("double inversion", compile_word_pattern("dir", "dual[ _-]?ir", "双反转")),
    (
        "field map",
        compile_word_pattern(
            "field[ _-]?map\\w*",
            "gre[ _-]?field\\w*",
            r"b[01][ _-]?map\\w*",
            "shim\\w*",
            "calib\\w*",
            "asset\\w*",
            "ref[ _-]?scan",
            "senseref\\w*",
            "cal(?:ibration)?",
            "ref(?:erence)?",
            "校准",
            "匀场",
            "参考扫描",
        ),
    ),
    ("phase", compile_word_pattern("phase", "pha", "pha[ _-]?images?", "相位")),
    ("elastography", compile_word_pattern("mre", "elasto\\w*", "弹性")),
)
_T2_STAR = re.compile(r"t2w?[ _]?\*", re.IGNORECASE)
PROTON_DENSITY_PATTERN = compile_word_pattern(r"pd\w?", r"pdw(?:i)?", r"pd[_ -].*", "proton", "质子")
# These words identify a kind in DICOM descriptions, but have other meanings in file names.
_KINDS_IGNORED_IN_FILE_NAMES = frozenset({"report", "screenshot", "field map"})
# By-products of processing: removed components (bias field, noise) and transformations.
_UNLESS_CORRECTED = r"(?!s?[ -]?(?:corr|remov|reduc|suppress|free|filter|normali[sz]ed))"
_PROCESSING_BYPRODUCT = compile_word_pattern(
    r"\d?(?:inv(?:erse)?[ -]?)?warp(?:[ -]?(?:fields?|coeff?s?))?",
    "xfm",
    r"deform\w*",
    r"displacements?\w*",
    r"(?:log)?jac(?:obian)?s?",
    r"transform(?:ation)?s?",
    r"(?:velocity|flow)[ -]?fields?",
    rf"(?:n[34][ -]?)?bias[ -]?fields?{_UNLESS_CORRECTED}",
    rf"noise(?:[ -]?maps?)?{_UNLESS_CORRECTED}",
    r"residuals?",
    "resid",
    "uncertainty",
    "entropy",
    r"(?:std[ -]?dev|variance|sigma)",
    r"prob(?:abilit(?:y|ies))?s?",
    "偏置场",
    "偏场",
    "残差",
    "噪声(?!校正|去除|抑制)",
    "形变场",
    "变形场",
    "位移场",
    "雅可比",
)
_EXCLUDED_FILE_KIND = compile_word_pattern(
    "maps?", "md", "star", r"b[01][ _-]?map\w*", r"field[ _-]?map\w*", "unit1", "差值"
)


def normalise_words(words: str) -> str:
    """Insert blanks around Chinese, so that ``横断T1增强`` contains ``T1``; normalise full-width characters."""
    plain = unicodedata.normalize("NFKC", words)
    return re.sub(r"([\u3400-\u9fff]+)", r" \1 ", plain).replace("_", " ").strip()


def find_excluded_image_kind(words: str) -> tuple[str, str] | None:
    """Find a kind of image other than the four sequences; return it and the matching word, or None."""
    return _find_excluded_kind(remove_registration_target(normalise_words(words).lower()), frozenset())


def _find_excluded_kind(text: str, ignored_kinds: frozenset[str]) -> tuple[str, str] | None:
    for kind, pattern in EXCLUDED_IMAGE_KINDS:
        if kind not in ignored_kinds and (match := pattern.search(text)):
            return kind, match[0].strip()
    match = _T2_STAR.search(text)
    return ("T2*", match[0]) if match else None


def _is_excluded_image_name(text: str) -> bool:
    """Whether a file's name identifies diffusion, a map, a transform or another image that is not used."""
    text = re.sub(r"^sub\b|\bsub(?=[ -]?\d)", "", text)  # a subject's number, not a subtraction
    found = (
        _find_excluded_kind(text, _KINDS_IGNORED_IN_FILE_NAMES)
        or _EXCLUDED_FILE_KIND.search(text)
        or PROTON_DENSITY_PATTERN.search(text)
    )
    return found is not None


# ---- BIDS entities, and registered images -----------------------------------------------------------

_BIDS_ENTITIES = frozenset(
    "sub ses sample task tracksys acq ce trc stain rec dir run mod echo flip inv mt part proc hemi space split "
    "recording chunk atlas seg res den label desc from to mode cohort nuc voi model".split()
)
_BIDS_ENTITY_PATTERN = re.compile(r"([A-Za-z]+)-([^_]+)")


def split_bids_entities(name: str) -> tuple[Mapping[str, str], str]:
    """Split a name into BIDS entities and the rest: ``sub-01_space-T1w_FLAIR`` has the rest ``FLAIR``."""
    entities, rest = {}, []
    for part in name.split("_"):
        match = _BIDS_ENTITY_PATTERN.fullmatch(part)
        if match and match[1].lower() in _BIDS_ENTITIES:
            entities[match[1].lower()] = match[2]
        else:
            rest.append(part)
    return entities, "_".join(rest)


_SEPARATOR = r"(?:[ .(\[-]+)"
_REGISTRATION_WORD = (
    r"(?:co)?reg(?:ist(?:ered|ration))?|align(?:ed)?|warped|resampled|resliced|transformed|normali[sz]ed"
    r"|mapped"
)
_REGISTRATION_TARGET = (
    r"(?:[rw]?(?:t[12](?!\d)|flair|fla\b)|mni|sri|icbm|talairach|atlas|template|ref|reference|native|standard|std|"
    r"dwi|adc|pet|ct\b|fixed|baseline|first|space|common|post|pre|ce\b|gd|gad)"
)
_ATTACHED_TARGET = r"(?:t[12](?!\d)|flair|mni|sri)"
_REGISTERED_TO_PATTERN = re.compile(
    rf"{_SEPARATOR}(?:(?:{_REGISTRATION_WORD}){_SEPARATOR}?)?(?:(?<!prior "
    rf")(?:to|onto|into|wrt)(?![a-z])|(?:to|2|in|on)(?={_ATTACHED_TARGET}))"
    rf"|{_SEPARATOR}(?:(?:{_REGISTRATION_WORD}){_SEPARATOR}?(?:2|in|on|with)?|2|in|on|at|space){_SEPARATOR}(?={_REGISTRATION_TARGET})"
    rf"|{_SEPARATOR}(?:{_REGISTRATION_WORD})(?={_ATTACHED_TARGET})|{_SEPARATOR}(?={_REGISTRATION_TARGET}\w*[ "
    rf"-]?space(?![a-z]))|\s*(?:→|->|=>)"
    r"|\s*(?:配准|对齐|对准|匹配)(?!后|的|$)|\s*[\u3400-\u9fff]+[到至]\s*(?=t[12]|flair|mni)"
)
_ATTACHED_TARGET_PATTERN = re.compile(
    r"(?<![a-z0-9])([rw]?(?:t1|t2|flair|fla)[a-z]{0,5}?)(?:2|to|in|on|reg(?:2|to)?)((?:t1|t2|flair|mni|sri)\w*)"
)
_CHINESE_TARGET_PREFIX = re.compile(r"^\s*(?:配准|对齐)\s*[到至于]?\s*[\w ]+?\s*的\s*(?=\S)")
_T2_SPACE_FLAIR_PATTERN = re.compile(rf"(?<![a-z0-9])t2\w*{_SEPARATOR}space{_SEPARATOR}(flair|dark)")

_T2_FLAIR_SPACE_PATTERN = re.compile(
    rf"(?<![a-z0-9])t2w?{_SEPARATOR}flair{_SEPARATOR}space(?![a-z])(?!{_SEPARATOR}{_REGISTRATION_TARGET})"
)  # a T2-FLAIR acquired with SPACE, or a T2 registered to the FLAIR


def remove_registration_target(text: str) -> str:
    """Return X of a name such as ``X to Y``; text: lower case, with blanks around Chinese."""
    text = _ATTACHED_TARGET_PATTERN.sub(r"\1 to \2", _CHINESE_TARGET_PREFIX.sub("", text))
    for match in _REGISTERED_TO_PATTERN.finditer(text):
        left = text[: match.start()]
        by_technique = (
            _T2_SPACE_FLAIR_PATTERN.search(text) and "space" in match[0]
        )  # the pulse sequence SPACE
        if not by_technique and (_find_weighting(left) or _is_excluded_image_name(left)):
            return left
    return text


# ---- contrast agent ---------------------------------------------------------------------------------

_OPTIONAL_SEPARATOR = r"[ ./_-]*"
_CONTRAST_TERM = r"(?:[ck]ontrast\w*|gad\w*|gd\w*|ce|km|cm|mdc|con|inj\w*|enh\w*)"
_NEGATION = (
    r"(?:no|non|not|without|w ?[/-] ?o(?:ut)?|wout|w o|wo|sans|ohne|senza|sin|zonder|bez|minus|"
    r"pre|before|prior to|vor|avant)"
)
_FILLER_WORD = r"(?:any|the|iv|i\.v\.?|intravenous|post|mr|of)"
_UNRELATED_TERM = (
    r"(?:fat|fs|spir|spair|sat|motion|grappa|sense|acc|mt|dixon|angle|gap|flow|fc|filter|norm|sed|ga\b)"
)
_NO_CONTRAST = re.compile(
    rf"(?<![a-z]){_NEGATION}{_OPTIONAL_SEPARATOR}(?:{_FILLER_WORD}{_OPTIONAL_SEPARATOR}){{0,2}}{_CONTRAST_TERM}(?:{_OPTIONAL_SEPARATOR}(?:{_CONTRAST_TERM}|agent|medium))*(?![a-z])"
    rf"|(?<![a-z]){_NEGATION}[ ./_-]+c(?![a-z])|(?<![a-z])(?:prec|noc|nc|o\.? ?km)(?![a-z])"
    rf"|(?<![a-z])un-?enh\w*|(?<![a-z]){_CONTRAST_TERM}[ :=_-]*(?:free|negative|neg|nein|none|nil|minus|not "
    rf"(?:given|used)"
    rf"|(?:no|without)(?! ?-?{_UNRELATED_TERM}))(?![a-z])"
    r"|(?<![a-z])c[ :=_-]*(?:free|negative|neg|none)(?![a-z])"
    r"|(?<![a-z0-9])-(?:c|gd|gad\w*|km|ce|inj|contrast)(?![a-z])"
    r"|(?<![a-z])(?:c|gd|gad\w*|km|ce|inj|contrast)(?:-(?=$|[ ).,;/\]])|\s?\(-\))"
    r"|t1w?i?(?:\s?\(-\)|-(?=$|[ )]))"
    r"|(?<![a-z])pre(?![a-z])(?![ _-]?(?:op|surg|treat|rt|chemo|proc|sat|scan|ther|rad|resec))"
    rf"|(?<![a-z])(?:plain|(?:without|w ?[/-] ?o(?:ut)?|wout|wo|sans|ohne)(?! ?-?{_UNRELATED_TERM}))(?![a-z])"
    r"|(?:未|无|非|不|没有?|免|勿)\s*[注射使用行做见明显加经静脉含打过作 ]{0,6}(?:增强|强化|造影剂?|对比剂|钆\w*|药)"
    r"(?:扫描|检查|剂)?|(?:增强|强化|造影剂?|对比剂|打药|注药|注射)(?:扫描|注射)?\s*之?前(?!后)|(?:增强|强化)\s?\(-\)|平\s*扫"
    r"|(?:增强|强化|造影剂?|对比剂|打药|注药|注射)(?:扫描|检查|注射)?\s*(?:[((:: ]\s*)?(?:(?:尚?未|没有?|不)\s*"
    r"(?:能|予|再)?(?:做|行|用|使用|注射?|注入|扫|打|给|检查|完成|进行|实施|执行)|取消|放弃|失败|拒绝|(?:无|否|未|没有)(?![\u4e00-\u9fff]))",
    re.IGNORECASE,
)
_NATIVE_SCAN = re.compile(
    r"(?<![a-z])nativ[ea]?(?![a-z])(?! ?space)"
)  # "t1c_native_space" is in its own space
# What may directly follow the name of an agent; Gdansk, Gadsden, Posthumus and Enhui are names.
_CONTRAST_SUFFIX = (
    r"(?:\d\w*|w|iv|fs|fat\w*|ax\w*|tra\w*|sag\w*|cor\w*|mpr\w*|vibe|space|bravo|spgr|fse|tse|se|dyn\w*|early|late|"
    r"delay\w*|dtpa\w*|bopta|dota|do3a|eob\w*|hp\w*|bt\w*|ga|pos\w*|plus|c|ce|km|con\w*|kon\w*|gd\w{0,6}|gad|gado\w*|"
    r"inj|inje\w*|enh|enhan\w*)?"
)
_POST_CONTRAST = re.compile(
    rf"(?<![a-z])(?:\+\s?c|c\s?\+|\+\s?(?:gd|gad)\w*|gd{_CONTRAST_SUFFIX}|gad(?:[oa]\w*|{_CONTRAST_SUFFIX})|"
    r"post(?![ _-]?(?:op|surg|rt|chemo|treat|eri|fossa|proc|resec|ther|rad|biops|cranio|crt|tmz))"
    rf"{_CONTRAST_SUFFIX}|"
    r"pos[ -]?(?:gd|gad|con)\w*|ce|km|(?<!\d)(?<!\d )cm|mdc|[ck]ontrast\w*|inj(?:e\w*)?|"
    r"w/? ?con|w/? ?c|m\.? ?km|enh(?:an\w*)?)(?![a-z])"
    r"|t1\w*\s?(?:\+(?=$|[ )cgk])|\(\+\))|(?:t1w?i?)[ _-]c(?![a-z])|(?<= )c$|(?<=[a-z0-9_ ])\+(?:ce|km|gd|c)(?![a-z])"
    r"|(?<![a-z])c\s?\(\+\)|增强|强化|造影|对比剂|钆|[注打]药后|注射后",
    re.IGNORECASE,
)
_PRE_AND_POST_CONTRAST = re.compile(
    r"w[ /_&+-]*(?:and[ _]?)?w ?/? ?o(?![a-z])|with[ _]?(?:and|&|/)[ _]?without|pre[ _/&+-]*(?:and[ _])?post|"
    r"\+\s?/?\s?-\s?c|±|(?<![a-z])c-\s?/?\s?c\+|平扫\s*[+及和与加、/ -]*\s*(?:增强|强化)|(?:增强|强化)\s*前后",
    re.IGNORECASE,
)
_ContrastStatement = Literal["after", "without", "both", ""]


def parse_contrast(words: str) -> bool | None:
    """Parse whether a contrast agent was given: True after, False before or without, None not stated or both."""
    return {"after": True, "without": False}.get(
        _parse_contrast_statement(remove_registration_target(normalise_words(words).lower()))
    )


def _parse_contrast_statement(text: str) -> _ContrastStatement:
    """Parse the statement about a contrast agent in lower-case text with blanks around Chinese."""
    text = re.sub(r"t1(?:wi?)?(?=[a-z])", "t1 ", text)  # t1ce, t1wpost
    text = re.sub(r"(?<=ce)(?=t1)|(?<=gd)(?=t1)|(?<=km)(?=t1)|(?<=pre)(?=t1)|(?<=post)(?=t1)", " ", text)
    if _PRE_AND_POST_CONTRAST.search(text):
        return "both"
    remaining = _NO_CONTRAST.sub(" ; ", text)
    is_post_contrast = _POST_CONTRAST.search(remaining) is not None
    if remaining != text:
        return "both" if is_post_contrast else "without"
    if is_post_contrast:
        return "after"
    return "without" if _NATIVE_SCAN.search(text) else ""


def _append_entity_labels(text: str, entities: Mapping[str, str]) -> str:
    """Append the labels of ``ce-``, ``acq-``, ``desc-`` and ``rec-``, which may name a contrast agent."""
    labels = [entities[key] for key in ("acq", "desc", "rec") if key in entities]
    agent = entities.get("ce", "").lower()
    if agent and not re.fullmatch(r"[2-9]|\d\d+", agent):  # CE-07 is a patient's id
        denied = re.match(r"(?:no|non|none|pre|without|wo|plain|native|0)", agent)
        labels.append("without contrast" if denied else "contrast")
    return " ".join([text, *(normalise_words(label).lower() for label in labels)])


# ---- the four sequences -----------------------------------------------------------------------------

# Scanner descriptions join plane and technique to the weighting ("3DAXT1postcontrast"); tools prepend r, w or m.
_WEIGHTED_WORD = re.compile(
    r"(?:3d|2d|axial|ax|tra|sagittal|sag|coronal|cor|fse|tse|ir|pre|post|ce|gd|km|coreg|reg|[rwm])*"
    r"t(?P<weight>[12])(?!\d).*"
)
_FLAIR_WORD = re.compile(r".*flair.*|fla|t2f|tirm")
DARK_FLUID_PATTERN = re.compile(
    r"dark[ _-]?fl|da[ _-]?fl|黑水|压水|水抑制|抑水|液体衰减|液体抑制|fluid[ _-]?att|flair|tirm(?!.*t1)|"
    r"spc_?ir|space_?ir",
    re.IGNORECASE,
)


def split_words(name: str) -> list[str]:
    """Split a name or description into lower-case words; ``+`` is kept, as in ``t1+c``."""
    return [word for word in re.split(r"[^\w+]+|_+", name.lower()) if word]


def find_sequence_in_name(name: str) -> MRSequence | None:
    """Find which of the four sequences the name of a file, folder or series identifies; None if none."""
    entities, rest = split_bids_entities(unicodedata.normalize("NFKC", name))
    full_text = _ZERO_PADDED_ID.sub("", normalise_words(rest).lower())
    text = remove_registration_target(full_text)
    t2_space_flair = _T2_SPACE_FLAIR_PATTERN.search(
        text
    )  # a FLAIR acquired with SPACE, or a T2 registered to the FLAIR
    is_excluded = (
        _is_excluded_image_name(text)
        or _PROCESSING_BYPRODUCT.search(full_text)
        or _PROCESSING_BYPRODUCT.search(entities.get("desc", ""))
    )
    is_ambiguous = (t2_space_flair and t2_space_flair[1] == "flair") or _T2_FLAIR_SPACE_PATTERN.search(
        full_text
    )
    if is_excluded or is_ambiguous or entities.get("part", "mag").lower() != "mag":
        return None
    weighting, text_without_id = _find_weighting(text), _remove_patient_id(text)
    if _find_weighting(text_without_id) != weighting:
        return None  # T1-003_T2: the id and the image have different weightings
    if weighting != MRSequence.T1:
        return weighting
    contrast = _parse_contrast_statement(_append_entity_labels(text_without_id, entities))
    return {"after": MRSequence.T1C, "both": None}.get(contrast, MRSequence.T1)


# PD0012 and CE0012 before the sequence: a leading zero marks a patient number, not a sequence.
_ZERO_PADDED_ID = re.compile(r"^[a-z]{2,}0\d+(?=[ -])(?=.*(?:t[12]|fla))")
_NUMBERED_ID = re.compile(
    r"^[a-z][a-z ._-]*\d{2,}[\d ._-]*[ ._-](?! ?(?:m?l|m?min|s|sec|m?mol|mm|%)(?![a-z]))"
)
_UNAMBIGUOUS_CONTRAST = re.compile(
    r"gado[lvtdp]|gadav|[ck]ontrast|enhan|post ?-?(?:gd|gad|c)(?![a-z])|post[ -]?con|增强|强化|造影|对比剂"
)


def _remove_patient_id(text: str) -> str:
    """Remove the patient's id before the sequence: ``gdansk 012 t1`` becomes ``t1``.

    An id is letters with a number of at least two digits; prefixes that name a contrast agent are not patient ids.
    """
    found = _NUMBERED_ID.match(text)
    if not found or _UNAMBIGUOUS_CONTRAST.search(found[0]) or _find_weighting(text[found.end() :]) is None:
        return text
    return text[found.end() :]


def _find_weighting(text: str) -> MRSequence | None:
    """Find the weighting: T1 (with or without a contrast agent), T2 or FLAIR; None if none, or both T1 and T2."""
    words = split_words(text)
    weights = [
        (at, match["weight"]) for at, word in enumerate(words) if (match := _WEIGHTED_WORD.fullmatch(word))
    ]
    flairs = [at for at, word in enumerate(words) if _FLAIR_WORD.fullmatch(word)]
    # T1 FLAIR is T1-weighted: a weighting named before FLAIR wins.
    first_t1 = bool(weights) and weights[0][1] == "1"
    if flairs and not (first_t1 and weights[0][0] <= flairs[0]):
        return MRSequence.FLAIR
    if not first_t1 and DARK_FLUID_PATTERN.search(text):
        return MRSequence.FLAIR
    named = {weight for _, weight in weights}
    if len(named) != 1:
        return None
    return MRSequence.T1 if first_t1 else MRSequence.T2


# ---- masks ------------------------------------------------------------------------------------------

_MASK_WORD = re.compile(
    r"seg.*|.*seg|.*mask|mask.*|truth|label.*|ot|gt|.*segmentation|.*(?:掩膜|掩模|勾画|分割|标注).*"
)
_DRAWN_REGION_WORD = re.compile(r"lesions?|rois?|病灶.*")
_TUMOUR_WORD_AFTER_SEQUENCE = re.compile(
    r"tumou?rs?|gtv\w*|o?edema|肿瘤.*"
)  # only after the sequence; before it, a patient's name
_ANATOMY_WORD = re.compile(
    r"brain.*|parenchyma.*|skull.*|aseg|aparc.*|gm|wm|csf|tissues?|deface.*|face|head|cortex|ventricles?|脑掩膜|全脑.*"
)
_LESION_WORD = re.compile(
    r"tumou?rs?|lesions?|gliomas?|ot|肿瘤.*|病灶.*"
)  # OT: ground truth of BRATS 2013 (VSD.Brain.XX.O.OT)


def is_mask_name(name: str) -> bool:
    """Whether the name of a file or folder identifies a mask, of a lesion or of something else."""
    words = _extract_mask_words(name)
    drawn = any(
        _DRAWN_REGION_WORD.fullmatch(word) and not re.fullmatch(r"\d+", after)
        for word, after in zip(words, [*words[1:], ""], strict=False)
    )
    sequence = next((at for at, word in enumerate(words) if _find_weighting(word)), len(words))
    is_tumour_after_sequence = any(_TUMOUR_WORD_AFTER_SEQUENCE.fullmatch(word) for word in words[sequence:])
    return drawn or is_tumour_after_sequence or any(_MASK_WORD.fullmatch(word) for word in words)


def is_lesion_mask_name(name: str) -> bool:
    """Whether the name of a file or folder identifies a lesion mask; False for a brain mask."""
    words = _extract_mask_words(name)
    anatomy = any(_ANATOMY_WORD.fullmatch(word) for word in words)
    lesion = any(_LESION_WORD.fullmatch(word) for word in words)
    oedema = any(re.fullmatch(r"o?edema", word) for word in words)
    return is_mask_name(name) and not oedema and (lesion or not anatomy)


def _extract_mask_words(name: str) -> list[str]:
    """Return the words that may identify a mask; of BIDS entities only the label and the description."""
    entities, rest = split_bids_entities(name)
    mask_text = " ".join([rest, *(f"{key} {entities[key]}" for key in ("label", "desc") if key in entities)])
    marked_text = f"{mask_text} seg" if "seg" in entities else mask_text
    return [word for word in split_words(marked_text) if word != "desc"]


# ---- examinations and patients ----------------------------------------------------------------------

_POSTOPERATIVE = re.compile(
    r"(?<![a-z])(?:post[ _-]?(?:op(?![a-z])|opera\w*|surg\w*|resec\w*|cranio\w*)|intra[ _-]?op\w*|imri|"
    r"after (?:the )?(?:surg\w*|resec\w*|operation)|nach[ _-]?op|s/p (?:resec|cranio|surg)\w*)"
    r"|术后|术中|切除后|手术后",
    re.IGNORECASE,
)


def is_postoperative_description(words: str) -> bool:
    """Whether a description or a session's name states that it was acquired during or after surgery."""
    return _POSTOPERATIVE.search(unicodedata.normalize("NFKC", words).replace("_", " ")) is not None


def normalise_patient_id(patient_id: str) -> str:
    """Normalise what archives change in an id: case, blanks, padding with ``^``."""
    plain = unicodedata.normalize("NFKC", patient_id)
    return re.sub(r"[\s^=]+", " ", plain).strip().casefold()
