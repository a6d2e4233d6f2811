"""What every reader of masks shares: the record, and which named regions are the lesion.

The lesion is the enhancing tumour with its necrotic core, without oedema. Names decide, English or Chinese:

- never: oedema, what lies around the tumour, margins of radiotherapy (CTV, PTV), the cavity of an operation;
- never, unless a word of the lesion stands beside it ("brain tumour"): brain, skull, eye and other anatomy;
- the whole tumour ("WT", oedema included by BraTS) only where nothing narrower is there;
- otherwise what a word of the lesion names: GTV, tumour, lesion, glioma, core, necrosis, enhancing, 肿瘤, 病灶;
- a single region of any other name; in annotated pictures every region of any other name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gliomark.messages import message
from gliomark.study import GliomarkError, MRSequence, Series

_DENIED_OEDEMA = re.compile(
    r"(without|w/o|no|non|excl\w*|minus|不含|不包括|无)\s*(peritumou?ral\s*)?(o?edema|水肿)"
)
_NEVER = re.compile(
    r"o?edema|peri ?(tumou?r|lesion)|non ?tumou?r|cavity|snfh|background|artefact|artifact|"
    r"(?<![a-z])(ed|[cip]tv\d*)(?![a-z])|水肿|瘤周|非肿瘤|术腔|背景|伪影"
)
_LESION = re.compile(
    r"gtv|tumou?r|lesion|glioma|glioblastoma|neoplas|metasta|cancer|enhanc|necro|"
    r"(?<![a-z])(core|mass|tc|et|ncr|net|wt)(?![a-z])|瘤|病灶|病变|坏死|强化|占位"
)
_ANATOMY = re.compile(
    r"(?<![a-z])(brain|cerebr|cerebel|skull|skin|body|external|normal|healthy|parenchym|ventric|eye|orbit|lens|optic|"
    r"chiasm|hippocamp|cochlea|pituitar)|脑|颅|正常|眼|视"
)
_WHOLE = re.compile(r"whole ?tumou?r|(?<![a-z])wt(?![a-z])|全肿瘤|全瘤")


class NoLesionRegionError(GliomarkError):
    """A file of drawn regions none of which is a lesion by its name."""


@dataclass(frozen=True, eq=False)
class LesionMask:
    """One drawn mask. series: 0 and 1 on its own grid; source: the file or folder it comes from.

    rater: "" unknown, else "rater 1", "rater 2": never a name. drawn_on: SeriesInstanceUID or "".
    sequence: the patient's sequence it was drawn on, None where that is not known. notes: nothing in them
    is copied from a file's free text, so they may enter a cohort.
    """

    series: Series
    rater: str
    source: Path
    drawn_on: str = ""
    notes: tuple[str, ...] = ()
    sequence: MRSequence | None = None


def lesion_regions(names: Sequence[str], *, any_name: bool = False) -> tuple[int, ...]:
    """Indices of the regions that are the lesion by this module's rule; none where no name decides.

    any_name: take every region that is not left out (annotated pictures, whose labels are often "1" or "a").
    """
    read = [_plain(name) for name in names]
    possible = [at for at, name in enumerate(read) if not _left_out(name)]
    named = [at for at in possible if _LESION.search(read[at])]
    taken = possible if any_name else (named or (possible if len(possible) == 1 else []))
    narrow = [at for at in taken if not _WHOLE.search(read[at])]
    return tuple(narrow or taken)


def names_lesion(name: str) -> bool:
    """Whether a name has a word of the lesion and none that leaves it out."""
    return bool(_LESION.search(_plain(name))) and not _left_out(_plain(name))


def names_other(name: str) -> bool:
    """Whether a name says oedema, brain or something else that is no lesion."""
    return _left_out(_plain(name))


def _plain(name: str) -> str:
    """Lower case, one blank between words, and "without oedema" taken out before oedema is looked for."""
    return _DENIED_OEDEMA.sub(" ", re.sub(r"[\s_\-.]+", " ", name).lower())


def _left_out(name: str) -> bool:
    anatomy_alone = _ANATOMY.search(name) and not _LESION.search(name)
    return bool(_NEVER.search(name) or anatomy_alone)


def left_out_note(regions: int, taken: int) -> tuple[str, ...]:
    """The sentence on regions that were left out, without their names, which may say who drew them."""
    if regions == taken:
        return ()
    return (message("regions-left-out", count=regions - taken, total=regions),)
