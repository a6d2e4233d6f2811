"""Compare a prepared patient with the training patients of a model: in range, unusual, or refused.

Refused are images that are not what they are called, or unlike every training patient's: a probability computed from
them means nothing. Unusual are images, heads and lesions that the validation hardly covers; the prediction is given
with a sentence. A lesion alone never leads to refusal: the network may have outlined it wrongly.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from gliomark.known_range.reference import WRONG_POSITION, KnownRange
from gliomark.known_range.statistics import PatientStatistics, measure_patient
from gliomark.known_range.wrong_images import CT, INVERTED, SWAPPED, T1_LIKE, T2_LIKE, WITHOUT_CONTRAST
from gliomark.messages import Message, message
from gliomark.prediction import RangeCheck
from gliomark.study import MRSequence, SliceStack

# without enhancing tissue a T1C differs little from T1: a higher limit than for other kinds
WITHOUT_CONTRAST_POSITION = 0.75
SPACING_MEASURES = frozenset({"brain_ml", "slice_mm", "volume_ml"})
# distance from typical wrong images, as a share of their distance from true ones, below which a kind is named: where
# the rest is as in the training patients, where it is not, and where an inverted image is more likely than T2
EVIDENT_SHARE, CERTAIN_SHARE_ELSEWHERE, CERTAIN_SHARE = 0.4, 0.25, 0.3
GENERAL_REASONS = frozenset({"range-image-unlike", "range-images-unlike", "range-relation-unlike"})
LEAST_DISPLACEMENT_MM = 2.0  # less is the error of the measurement, which wrong or noisy images increase
SAME_IMAGE_CORRELATION = 0.99  # T1C and T2 of one patient can reach 0.95, with opposite contrast


def check_patient(
    known_range: KnownRange | None,
    stack: SliceStack,
    mask: NDArray[np.bool_],
    *,
    is_spacing_assumed: bool = False,
) -> RangeCheck:
    """Compare a patient with the training patients.

    Parameters
    ----------
    known_range
        Of the model; None if the weights file has none.
    stack
        The prepared images ``(slice, row, column)``.
    mask
        The lesion, same shape; may be empty.
    is_spacing_assumed
        Whether the images, such as pictures, do not state their pixel size and slice spacing: volumes and spacing are
        not compared then.

    Returns
    -------
    RangeCheck
        "not checked" also if the model's sequences are not in the stack.
    """
    if known_range is None or not set(known_range.sequences) <= set(map(str, stack.images)):
        return RangeCheck()
    statistics = measure_patient(stack, mask, [MRSequence(name) for name in known_range.sequences])
    return check_statistics(known_range, statistics, SPACING_MEASURES if is_spacing_assumed else ())


def check_statistics(
    known_range: KnownRange, statistics: PatientStatistics, skipped: Collection[str] = ()
) -> RangeCheck:
    """Compare a patient's statistics with those of the training patients. skipped: names of measures."""
    score = compute_score(known_range, statistics)
    if score >= 1:
        return RangeCheck("refused", (_explain_refusal(known_range, statistics),), score)
    findings = tuple(_list_unusual(known_range, statistics, skipped))
    return RangeCheck("unusual" if findings else "in range", findings, score)


def compute_score(known_range: KnownRange, statistics: PatientStatistics) -> float:
    """Compute how unlike the training patients' the images are; 1 is the limit of refusal."""
    positions = [
        known_range.compute_position(kind, statistics.images) / _get_wrong_limit(kind)
        for kind in known_range.wrong
    ]
    return max(
        _compute_farthest(known_range, statistics),
        *positions,
        statistics.similarity / _get_similarity_limit(known_range),
    )


def compute_unusual_score(known_range: KnownRange, statistics: PatientStatistics) -> float:
    """Compute the distance of a patient's images and lesion; 1 is the limit from which they are unusual."""
    ratios = [part.compute_distance(statistics.images) / part.usual for part in known_range.images.values()]
    if statistics.lesion is not None:
        ratios.append(known_range.lesion.compute_distance(statistics.lesion) / known_range.lesion.usual)
    return max(ratios)


def _get_wrong_limit(kind: str) -> float:
    """Return the position between true images, 0, and wrong ones, 1, from which a patient is refused."""
    return WITHOUT_CONTRAST_POSITION if kind.startswith(WITHOUT_CONTRAST) else WRONG_POSITION


def _get_similarity_limit(known_range: KnownRange) -> float:
    """Return the correlation from which two sequences are the same image."""
    return max(SAME_IMAGE_CORRELATION, 0.5 * (1 + known_range.similarity))


# ---- refused ----------------------------------------------------------------------------------------


def _explain_refusal(known_range: KnownRange, statistics: PatientStatistics) -> Message:
    """Return the reason for a refusal: a certain mistake where the images are evidence for it, else a general one."""
    sequences = known_range.sequences
    one, other = sequences
    if statistics.similarity >= _get_similarity_limit(known_range):
        return message("range-same-image", one=one, other=other)
    displacement = statistics.geometry["displacement_mm"]
    if displacement > _get_displacement_limit(known_range):
        return message("range-displaced-far", one=one, other=other, value=displacement)
    mistakes = _list_evident_mistakes(known_range, statistics)
    if not mistakes:
        return _describe_unlike(known_range, statistics)
    kind = min(mistakes, key=mistakes.__getitem__)
    if not (kind.startswith(INVERTED) and mistakes[kind] < CERTAIN_SHARE):
        for name, second in ((one, other), (other, one)):
            if (
                f"{T2_LIKE}/{name}" in mistakes
                and statistics.images[_name_fluid(one, other, name, second)] > 1
            ):
                return message("range-fluid-bright", name=name)
    return describe_wrong_images(kind, sequences, known_range.patients)


def _get_displacement_limit(known_range: KnownRange) -> float:
    """Return the displacement of the sequences, mm, above which they do not fit together."""
    return max(known_range.ranges["displacement_mm"][1], LEAST_DISPLACEMENT_MM)


def _list_evident_mistakes(known_range: KnownRange, statistics: PatientStatistics) -> dict[str, float]:
    """List the kinds of wrong images for which there is evidence, with the distance of these from typical ones.

    Images that are unlike the training patients' for any other reason, such as noise, can lie as far in the direction
    of a kind of wrong images as these do. A kind therefore counts only if the images lie near the typical ones, and if
    nothing is strange that this mistake does not change: the other sequence or, for a missing contrast agent, the grey
    values.
    """
    own = {name: _measure_own_distance(known_range, statistics, name) for name in known_range.sequences}
    mistakes = {}
    for kind in _list_refused_kinds(known_range, statistics):
        sort, _, wrong = kind.partition("/")
        distance = abs(known_range.compute_position(kind, statistics.images) - 1)
        untouched = min(own[name] for name in known_range.sequences if name != wrong)
        limit = EVIDENT_SHARE if untouched < 1 else CERTAIN_SHARE_ELSEWHERE
        if sort == WITHOUT_CONTRAST:
            # blur and noise hide vessels on both sequences; a real T1 has even fewer than those that were made
            limit = np.inf if untouched < 1 else 0.0
        is_stranger = not wrong or untouched < max(1.0, _measure_distance(known_range, statistics, wrong))
        if distance < limit and is_stranger and _is_tissue_as_claimed(known_range, statistics, kind):
            mistakes[kind] = distance
    return mistakes


def _list_refused_kinds(known_range: KnownRange, statistics: PatientStatistics) -> list[str]:
    """List the kinds of wrong images whose limit of refusal a patient reaches."""
    return [
        kind
        for kind in known_range.wrong
        if known_range.compute_position(kind, statistics.images) >= _get_wrong_limit(kind)
    ]


def _is_tissue_as_claimed(known_range: KnownRange, statistics: PatientStatistics, kind: str) -> bool:
    """Return whether grey values allow a missing contrast agent, which changes vessels only; True for other kinds."""
    sort, _, wrong = kind.partition("/")
    parts = (f"{wrong}/grey", f"{'+'.join(known_range.sequences)}/relation")
    return sort != WITHOUT_CONTRAST or _compute_largest_ratio(known_range, statistics, parts) < 1


def _measure_own_distance(known_range: KnownRange, statistics: PatientStatistics, name: str) -> float:
    """Measure how unusual a sequence is by what does not depend on the other one; 1 is the limit."""
    return _compute_largest_ratio(known_range, statistics, (f"{name}/grey", f"{name}/detail"))


def _measure_distance(known_range: KnownRange, statistics: PatientStatistics, name: str) -> float:
    """Measure how unusual a sequence is; 1 is the limit."""
    return _compute_largest_ratio(
        known_range, statistics, [part for part in known_range.images if part.startswith(f"{name}/")]
    )


def _compute_largest_ratio(
    known_range: KnownRange, statistics: PatientStatistics, parts: Sequence[str]
) -> float:
    """Compute the largest distance of some parts of the images, divided by the limit from which they are unusual."""
    chosen = [known_range.images[part] for part in parts]
    return max(part.compute_distance(statistics.images) / part.usual for part in chosen)


def _describe_unlike(known_range: KnownRange, statistics: PatientStatistics) -> Message:
    """Describe images that are unlike the training patients', naming the sequence if it is one of them."""
    sequences = known_range.sequences
    refused = _list_parts_beyond(known_range, statistics, "refused")
    unlike = [name for name in sequences if any(part.startswith(f"{name}/") for part in refused)]
    if not refused:  # only by the position, which says what is wrong, but not surely
        kinds = [kind.partition("/")[2] for kind in _list_refused_kinds(known_range, statistics)]
        unlike = [name for name in sequences if name in kinds or "" in kinds]
    if len(unlike) == 1:
        return message("range-image-unlike", name=unlike[0], patients=known_range.patients)
    if unlike:
        return message("range-images-unlike", patients=known_range.patients)
    one, other = sequences
    return message("range-relation-unlike", one=one, other=other, patients=known_range.patients)


def _compute_farthest(known_range: KnownRange, statistics: PatientStatistics) -> float:
    """Compute the distance of the farthest part of the images; 1 is the limit of refusal."""
    return max(
        part.compute_distance(statistics.images) / part.refused for part in known_range.images.values()
    )


def _name_fluid(one: str, other: str, name: str, second: str) -> str:
    """Name the statistic with a sequence's grey value where the other one is darkest, which is in fluid."""
    return f"{one}+{other}/relation/{name} where {second} 0"


def describe_wrong_images(kind: str, sequences: Sequence[str], patients: int) -> Message:
    """Describe a kind of wrong images, see ``wrong_images.create_wrong_images``."""
    one, other = sequences
    sort, _, name = kind.partition("/")
    if sort == SWAPPED:
        return message("range-swapped", one=one, other=other)
    # T1, FLAIR and an inverted T2 differ from T2 alike
    if sort in (T1_LIKE, INVERTED) and name == MRSequence.T2:
        return message("range-fluid-dark", name=name)
    codes = {
        INVERTED: "range-inverted",
        CT: "range-computed-tomography",
        T2_LIKE: "range-fluid-bright",
        T1_LIKE: "range-t1-weighted",
        WITHOUT_CONTRAST: "range-no-contrast-agent",
    }
    if sort in codes:
        return message(codes[sort], name=name or f"{one} + {other}")
    return message("range-images-unlike", patients=patients)


def _list_parts_beyond(known_range: KnownRange, statistics: PatientStatistics, limit: str) -> list[str]:
    """List the parts of the images whose distance reaches a limit: "usual" or "refused"."""
    return [
        name
        for name, part in known_range.images.items()
        if part.compute_distance(statistics.images) >= getattr(part, limit)
    ]


# ---- unusual ----------------------------------------------------------------------------------------


def _list_unusual(
    known_range: KnownRange, statistics: PatientStatistics, skipped: Collection[str]
) -> Iterator[Message]:
    """Yield a message for every property that the training patients hardly cover. skipped: names of measures."""
    parts = _list_parts_beyond(known_range, statistics, "usual")
    names = [name for name in known_range.sequences if any(part.startswith(f"{name}/") for part in parts)]
    if len(names) == 1:
        yield message("range-unusual-image", name=names[0], patients=known_range.patients)
    elif parts:
        yield message("range-unusual-images", patients=known_range.patients)
    measures = {**statistics.geometry, **(statistics.lesion or {})}
    for name, limits in known_range.ranges.items():
        value = None if name in skipped else measures.get(name)
        if value is not None and (finding := _describe_outside(name, value, limits, known_range)):
            yield finding
    if (
        statistics.lesion
        and known_range.lesion.compute_distance(statistics.lesion) >= known_range.lesion.usual
    ):
        yield message("range-unusual-lesion", patients=known_range.patients)


# measures that are said with their value; the others only count in the distance of the lesion
_MEASURES = {
    "brain_ml": ("range-brain-volume", "{:.0f} ml"),
    "slice_mm": ("range-slice-spacing", "{:.1f} mm"),
    "volume_ml": ("range-lesion-volume", "{:.1f} ml"),
    "parts": ("range-lesion-parts", "{:.0f}"),
}


def _describe_outside(
    name: str, value: float, limits: tuple[float, float], known_range: KnownRange
) -> Message | None:
    """Describe a measure outside the range of the training patients; None if it is inside."""
    low, high = limits
    if (
        name == "displacement_mm"
        and value > _get_displacement_limit(known_range)
        and f"{value:.1f}" != f"{high:.1f}"
    ):
        one, other = known_range.sequences
        return message("range-displaced", one=one, other=other, value=value, high=high)
    if name not in _MEASURES or low <= value <= high:
        return None
    code, unit = _MEASURES[name]
    shown = {key: unit.format(number) for key, number in (("value", value), ("low", low), ("high", high))}
    if shown["value"] in (shown["low"], shown["high"]):
        return None  # the limits were rounded too
    return message("range-outside", measure=message(code), patients=known_range.patients, **shown)
