"""Mask record of all mask readers, and the rules by which region names are selected as lesion.

The lesion is the enhancing tumour with its necrotic core, without oedema. The English or Chinese name decides:

- never: oedema, peritumoural regions, radiotherapy margins (CTV, PTV), surgical cavity;
- never, unless combined with a lesion word ("brain tumour"): brain, skull, eye and other anatomy;
- the whole tumour ("WT", in BraTS including oedema) only if there is no narrower region;
- otherwise regions with a lesion word: GTV, tumour, lesion, glioma, core, necrosis, enhancing, 肿瘤, 病灶;
- if there is no such word, a single region of any other name; in annotated pictures, every region of any other name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gliomark.errors import InputError
from gliomark.messages import message
from gliomark.study import MRSequence, Series

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


class NoLesionRegionError(InputError):
    """No region of a mask file is named as a lesion."""


@dataclass(frozen=True, eq=False)
class LesionMask:
    """One reader's mask.

    series: 0 and 1, ``(slice, row, column)``, on the mask's own grid. rater: "rater 1", "rater 2", never a real name;
    "" if unknown. source: file or folder of the mask. referenced_series_uid: SeriesInstanceUID or "". sequence: the
    sequence it was drawn on, None if unknown. notes: contain no free text from files, so they may be stored in a
    cohort.
    """

    series: Series
    rater: str
    source: Path
    referenced_series_uid: str = ""
    notes: tuple[str, ...] = ()
    sequence: MRSequence | None = None


def select_lesion_regions(names: Sequence[str], *, accept_any_name: bool = False) -> tuple[int, ...]:
    """Select the indices of the lesion regions by the rules of this module; empty if no name qualifies.

    accept_any_name: select every region that is not excluded (for annotated pictures, whose labels are often "1" or
    "a").
    """
    normalised_names = [_normalise_region_name(name) for name in names]
    possible = [at for at, name in enumerate(normalised_names) if not _is_excluded_region(name)]
    named = [at for at in possible if _LESION_REGION.search(normalised_names[at])]
    taken = possible if accept_any_name else (named or (possible if len(possible) == 1 else []))
    narrow = [at for at in taken if not _WHOLE_TUMOUR.search(normalised_names[at])]
    return tuple(narrow or taken)


def is_lesion_region_name(name: str) -> bool:
    """Whether a name contains a lesion word and no excluding word."""
    return bool(_LESION_REGION.search(_normalise_region_name(name))) and not _is_excluded_region(
        _normalise_region_name(name)
    )


def is_excluded_region_name(name: str) -> bool:
    """Whether a name means oedema, brain or another region that is not a lesion."""
    return _is_excluded_region(_normalise_region_name(name))


def _normalise_region_name(name: str) -> str:
    """Convert to lower case with single spaces, and remove "without oedema" so that it does not count as oedema."""
    return _WITHOUT_OEDEMA.sub(" ", re.sub(r"[\s_\-.]+", " ", name).lower())


def _is_excluded_region(name: str) -> bool:
    anatomy_alone = _ANATOMICAL_REGION.search(name) and not _LESION_REGION.search(name)
    return bool(_EXCLUDED_REGION.search(name) or anatomy_alone)


def collect_excluded_region_notes(region_count: int, lesion_region_count: int) -> tuple[str, ...]:
    """Return the note on excluded regions, without their names, which may identify the rater."""
    if region_count == lesion_region_count:
        return ()
    return (message("regions-left-out", count=region_count - lesion_region_count, total=region_count),)
