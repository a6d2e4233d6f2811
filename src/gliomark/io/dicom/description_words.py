"""Find planes, body parts and manufacturers' sequence names in series descriptions.

Words that also occur in file names are handled in ``gliomark.io.naming``.
"""

from __future__ import annotations

import re

from gliomark.io.naming import (
    DARK_FLUID_PATTERN,
    PROTON_DENSITY_PATTERN,
    compile_word_pattern,
    find_sequence_in_name,
    normalise_words,
    remove_registration_target,
)
from gliomark.study import MRSequence

_T1_PRODUCT_NAMES = re.compile(
    r"mp-?rage|bravo|f?spgr|(?<![a-z])tfl|3d[ _-]?tfe|t1tfe|gre_?fsp|mprage", re.IGNORECASE
)
_T1_IN_WORD = re.compile(r"(?<![a-z0-9])[a-z]{0,4}t1(?!\d)", re.IGNORECASE)
_T2_IN_WORD = re.compile(r"(?<![a-z0-9])[a-z]{0,4}t2(?!\d)", re.IGNORECASE)

_PLANE_PATTERNS = (
    ("sagittal", compile_word_pattern(r"o?sag\w*", "saggital", "矢状", "矢位")),
    ("coronal", compile_word_pattern(r"o?cor(?!r|eg)\w*", "coro", "冠状", "冠位")),
    (
        "axial",
        compile_word_pattern(
            r"o?ax\w*", r"tra(?!c)\w*", "transv\\w*", r"obl[ _]?ax\w*", "轴位", "横断", "横轴", "轴状"
        ),
    ),
)
_HEAD_PATTERN = compile_word_pattern(
    "head\\w*",
    "brain\\w*",
    "skull",
    "neuro\\w*",
    "cereb\\w*",
    "crani\\w*",
    "glioma",
    "stealth",
    "navi\\w*",
    "头",
    "颅",
    "脑",
)
_OTHER_BODY_PART_PATTERN = compile_word_pattern(
    r"[ctl]?[ _-]?spines?",
    r"\w*spine\w*",
    "cspine",
    "tspine",
    "lspine",
    "cervical\\w*",
    "thorac\\w*",
    "lumb\\w*",
    "sacr\\w*",
    "knees?",
    "shoulders?",
    "hips?",
    "ankles?",
    "wrists?",
    "elbows?",
    "hands?",
    "feet",
    "foot",
    "legs?",
    "extremit\\w*",
    "abd\\w*",
    "liver",
    "hepat\\w*",
    "kidneys?",
    "renal",
    "pelvis\\w*",
    "pelvic",
    "prostat\\w*",
    "uter\\w*",
    "rectum",
    "rectal",
    "breasts?",
    "mamma",
    "chest",
    "thorax",
    "heart",
    "cardiac\\w*",
    "necks?",
    "thyroid",
    "nasophar\\w*",
    "pituit\\w*",
    "sella\\w*",
    "orbits?",
    "eyes?",
    "iacs?",
    "ears?",
    "temporal bones?",
    "tmj",
    "parotid",
    "mrcp",
    "aorta",
    "femur",
    "tibia",
    "jaw",
    "[ctl]sp",
    "颈",
    "胸",
    "腰",
    "骶",
    "脊柱",
    "脊髓",
    "椎",
    "膝",
    "肩",
    "髋",
    "踝",
    "腕",
    "肘",
    "手(?!术)",
    "足",
    "腹",
    "肝",
    "肾",
    "盆",
    "前列腺",
    "子宫",
    "直肠",
    "乳腺",
    "心脏",
    "甲状腺",
    "鼻咽",
    "垂体",
    "鞍区",
    "眼眶",
    "眶",
    "内听道",
    "腮腺",
    "关节",
)


def find_weighting_in_words(words: str) -> MRSequence | str | None:
    """Find T1 (with or without contrast), T2, FLAIR or "PD"; None if the words name none or two of them."""
    plain = remove_registration_target(normalise_words(words).lower())
    if PROTON_DENSITY_PATTERN.search(plain):
        return None if _T1_IN_WORD.search(plain) or _T2_IN_WORD.search(plain) else "PD"
    first = find_sequence_in_name(plain)
    if first in (MRSequence.T1, MRSequence.T1C):
        return MRSequence.T1
    if _T1_IN_WORD.search(plain) and not _T2_IN_WORD.search(plain):
        return MRSequence.T1
    if DARK_FLUID_PATTERN.search(plain):
        return MRSequence.FLAIR
    if first is not None:
        return first
    if _T2_IN_WORD.search(plain):
        return None if _T1_IN_WORD.search(plain) else MRSequence.T2
    return MRSequence.T1 if _T1_PRODUCT_NAMES.search(plain) else None


def find_plane_in_words(words: str) -> str:
    """Find ``axial``, ``sagittal`` or ``coronal``; "" if none or several are named."""
    plain = normalise_words(words)
    named = [plane for plane, pattern in _PLANE_PATTERNS if pattern.search(plain)]
    return named[0] if len(named) == 1 else ""


def has_head_words(words: str) -> bool:
    """Whether words name head or brain."""
    return _HEAD_PATTERN.search(normalise_words(words)) is not None


def find_other_body_part(words: str) -> str:
    """Find the word for a body part other than the head, "" if there is none."""
    match = _OTHER_BODY_PART_PATTERN.search(normalise_words(words))
    return match[0].strip() if match else ""


def has_inversion_words(words: str) -> bool:
    """Whether words name a technique with an inversion pulse (T1 FLAIR, MPRAGE, TIRM)."""
    return (
        re.search(r"flair|tirm|mp-?rage|(?<![a-z])ir(?![a-z])|tfl|bravo|tfe", words, re.IGNORECASE)
        is not None
    )
