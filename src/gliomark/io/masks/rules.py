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

_WITHOUT_OEDEMA = re.compile(
    r"(without|w/o|no|non|excl\w*|minus|不含|不包括|无)\s*(peritumou?ral\s*)?(o?edema|水肿)"
)
_EXCLUDED_REGION = re.compile(
    r"o?edema|peri ?(tumou?r|lesion)|non ?tumou?r|cavity|snfh|background|artefact|artifact|"
    r"(?<![a-z])(ed|[cip]tv\d*)(?![a-z])|水肿|瘤周|非肿瘤|术腔|背景|伪影"
)
_LESION_REGION = re.compile(
    r"gtv|tumou?r|lesion|glioma|glioblastoma|neoplas|metasta|cancer|enhanc|necro|"
    r"(?<![a-z])(core|mass|tc|et|ncr|net|wt)(?![a-z])|瘤|病灶|病变|坏死|强化|占位"
)
_ANATOMICAL_REGION = re.compile(
    r"(?<![a-z])(brain|cerebr|cerebel|skull|skin|body|external|normal|healthy|parenchym|ventric|eye|orbit|lens|optic|"
    r"chiasm|hippocamp|cochlea|pituitar)|脑|颅|正常|眼|视"
)
_WHOLE_TUMOUR = re.compile(r"whole ?tumou?r|(?<![a-z])wt(?![a-z])|全肿瘤|全瘤")


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
    referenced_series_uid: str = ""
    notes: tuple[str, ...] = ()
    sequence: MRSequence | None = None


def select_lesion_regions(names: Sequence[str], *, accept_any_name: bool = False) -> tuple[int, ...]:
    """Indices of the regions that are the lesion by this module's rule; none where no name decides.

    any_name: take every region that is not left out (annotated pictures, whose labels are often "1" or "a").
    """
    normalised_names = [_normalise_region_name(name) for name in names]
    possible = [at for at, name in enumerate(normalised_names) if not _is_excluded_region(name)]
    named = [at for at in possible if _LESION_REGION.search(normalised_names[at])]
    taken = possible if accept_any_name else (named or (possible if len(possible) == 1 else []))
    narrow = [at for at in taken if not _WHOLE_TUMOUR.search(normalised_names[at])]
    return tuple(narrow or taken)


def is_lesion_region_name(name: str) -> bool:
    """Whether a name has a word of the lesion and none that leaves it out."""
    return bool(_LESION_REGION.search(_normalise_region_name(name))) and not _is_excluded_region(
        _normalise_region_name(name)
    )


def is_excluded_region_name(name: str) -> bool:
    """Whether a name says oedema, brain or something else that is no lesion."""
    return _is_excluded_region(_normalise_region_name(name))


def _normalise_region_name(name: str) -> str:
    """Lower case, one blank between words, and "without oedema" taken out before oedema is looked for."""
    return _WITHOUT_OEDEMA.sub(" ", re.sub(r"[\s_\-.]+", " ", name).lower())


def _is_excluded_region(name: str) -> bool:
    anatomy_alone = _ANATOMICAL_REGION.search(name) and not _LESION_REGION.search(name)
    return bool(_EXCLUDED_REGION.search(name) or anatomy_alone)


def collect_excluded_region_notes(region_count: int, lesion_region_count: int) -> tuple[str, ...]:
    """The sentence on regions that were left out, without their names, which may say who drew them."""
    if region_count == lesion_region_count:
        return ()
    return (message("regions-left-out", count=region_count - lesion_region_count, total=region_count),)
