"""What a series is, and why: physics and tags first, words second, never a wrong sequence in silence.

The order: SOP class and modality; ImageType and burned-in text; number of images; part of the body; technique
(echo-planar, diffusion, time series, angiography); words that name another kind; plane; then the weighting by
timing, held against the words. Where timing and words disagree and the timing alone does not settle it, the
series is ``unknown`` and its reason says so. A reformat or other DERIVED image of a whole volume is accepted
when its weighting is clear, but stands behind every original (see ``choose_series``).
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import UID

from gliomark.io.dicom.facts import HeaderFacts, facts_of, is_original, nearest_plane
from gliomark.io.dicom.repeats import MANY_REPEATS
from gliomark.io.dicom.tags import (
    CLASS_STEMS,
    CLASSES,
    CONTRAST_KINDS,
    CONTRASTS,
    IMAGE_TYPES,
    MODALITIES,
)
from gliomark.io.dicom.weighting import Weighting, described, weighting
from gliomark.io.dicom.words import (
    elsewhere_in_words,
    inversion_in_words,
    names_head,
    plane_in_words,
    weighting_in_words,
)
from gliomark.io.naming import contrast_in_words, kind_in_words
from gliomark.messages import Message, known, message
from gliomark.study import MRSequence

THICK_MM = 2.5  # sagittal and coronal stacks with a larger step cannot be resliced to axial
ISOTROPIC_MM = 2.0  # voxels no longer than this on any side can
_SCOUT_IMAGES = 15  # a plane of a three-plane scout holds no more


@dataclass(frozen=True)
class Recognition:
    """sequence: None for none of ours; kind: its name or what else it is; reason: one sentence, a message."""

    sequence: MRSequence | None
    kind: str
    reason: str


@dataclass(frozen=True)
class Surroundings:
    """What the other stacks of the same SeriesInstanceUID tell: how many echoes, planes, repeats in time.

    b_value: the largest of the whole series; agent_throughout: all repeats in time name the same agent or none.
    """

    stacks: int = 1
    echoes: int = 1
    planes: int = 1
    repeats: int = 1
    b_value: float = 0.0
    agent_throughout: bool = True


def recognise(header: Dataset, images: int) -> Recognition:
    """What the series of one header and so many images is."""
    return recognise_facts(facts_of(header), images)


def recognise_facts(
    facts: HeaderFacts,
    images: int,
    step_mm: float | None = None,
    surroundings: Surroundings = Surroundings(),  # noqa: B008
) -> Recognition:
    """The same from collected facts; step_mm: between slices as measured, else the header's thickness."""
    found = (
        _by_class(facts)
        or _by_image_type(facts)
        or _by_count(facts, images)
        or _by_body_part(facts)
        or _by_technique(facts, images, surroundings)
        or _by_words(facts)
        or _by_plane(facts, step_mm or facts.thickness)
    )
    if found:
        return found
    return _with_geometry(_by_weighting(facts, surroundings), facts, step_mm or facts.thickness)


def _other(kind: str, clause: str) -> Recognition:
    return Recognition(None, kind, _sentence(clause))


def _ours(sequence: MRSequence, clause: str) -> Recognition:
    return Recognition(sequence, sequence.value, _sentence(clause))


def _sentence(clause: str) -> str:
    return message("recognised-sentence", clause=clause)


def _and(clause: str, more: str) -> str:
    return message("recognised-and", clause=clause, more=more)


def _by_class(facts: HeaderFacts) -> Recognition | None:
    """Refuse what is no MR image at all."""
    kind = CLASSES.get(facts.sop_class)
    if kind is None and facts.sop_class:
        kind = next((name for stem, name in CLASS_STEMS if facts.sop_class.startswith(stem)), None)
        kind = kind or MODALITIES.get(facts.modality, "other modality")
    if kind:
        return _other(kind, message("recognised-class", name=UID(facts.sop_class).name or facts.sop_class))
    if facts.modality not in {"", "MR"}:
        kind = MODALITIES.get(facts.modality, "other modality")
        return _other(kind, message("recognised-modality", modality=facts.modality))
    return None


def _by_image_type(facts: HeaderFacts) -> Recognition | None:
    if facts.burned_in or facts.coloured:
        why = "recognised-burned-in" if facts.burned_in else "recognised-colour"
        return _other("screenshot", message(why))
    parts = set(facts.image_type) | {facts.component}
    for kind, marks in IMAGE_TYPES:
        if hit := parts & marks:
            return _other(kind, message("recognised-image-type", marks="/".join(sorted(hit))))
    return None


def _by_count(facts: HeaderFacts, images: int) -> Recognition | None:
    if images > 1:
        return None
    words = kind_in_words(facts.description)
    return _other(words[0] if words else "single image", message("recognised-count", count=images))


def _by_body_part(facts: HeaderFacts) -> Recognition | None:
    """Refuse another part of the body: BodyPartExamined, then the words of series and examination."""
    part = facts.body_part
    if part and (place := elsewhere_in_words(part)) and not names_head(part):
        return _other("other body part", message("recognised-body-part", part=part, words=place))
    for name, words in (("SeriesDescription", facts.description), ("ProtocolName", facts.protocol)):
        if (place := elsewhere_in_words(words)) and not names_head(words):
            return _other("other body part", message("recognised-elsewhere", source=name, words=place))
    series = f"{facts.description} {facts.protocol} {part}"
    if (place := elsewhere_in_words(facts.study_description)) and not names_head(
        f"{series} {facts.study_description}"
    ):
        where = message("recognised-elsewhere", source="StudyDescription", words=place)
        return _other("other body part", where)
    return None


def _by_technique(facts: HeaderFacts, images: int, around: Surroundings) -> Recognition | None:
    """Refuse diffusion, perfusion, echo-planar, angiography, multi-echo and scouts by their tags."""
    b_value = max(facts.b_value, around.b_value)
    name = facts.sequence_name.lower()
    if b_value > 0:
        return _other("DWI", message("recognised-b-value", value=b_value))
    if "EP" in facts.technique or name.lstrip("*").startswith(
        ("ep_", "epfid", "epse", "ep2d", "epi", "epir")
    ):
        return _echo_planar(facts, around)
    if facts.contrast in CONTRAST_KINDS:
        return _other(CONTRAST_KINDS[facts.contrast], message("recognised-contrast", contrast=facts.contrast))
    if max(facts.temporal_positions, around.repeats) >= MANY_REPEATS:
        count = max(facts.temporal_positions, around.repeats)
        return _other("perfusion", message("recognised-time-series", count=count))
    if facts.angiography:
        return _other("angiography", message("recognised-angiography"))
    if around.planes == 3 and images <= _SCOUT_IMAGES:
        return _other("localiser", message("recognised-scout", count=images))
    if around.echoes > 1 and "GR" in facts.technique and not facts.inversion:
        return _other("T2*", message("recognised-echoes", count=around.echoes))
    return None


def _echo_planar(facts: HeaderFacts, around: Surroundings) -> Recognition:
    count = max(facts.temporal_positions, around.repeats)
    words = kind_in_words(f"{facts.description} {facts.protocol}")
    kind = (
        words[0] if words else "perfusion" if count >= 2 * MANY_REPEATS or (facts.echo or 99) < 50 else "DWI"
    )
    return _other(kind, message("recognised-echo-planar", timing=described(facts), count=count))


def _by_words(facts: HeaderFacts) -> Recognition | None:
    """Refuse by words that name another kind; the protocol's only where the series has no weighting of its own."""
    if hit := kind_in_words(facts.description):
        return _other(hit[0], _says("SeriesDescription", hit[1]))
    if not weighting_in_words(facts.description) and (hit := kind_in_words(facts.protocol)):
        return _other(hit[0], _says("ProtocolName", hit[1]))
    return None


def _says(source: str, words: str) -> str:
    return message("recognised-words", source=source, words=words)


def _by_plane(facts: HeaderFacts, step_mm: float | None) -> Recognition | None:
    """Refuse thick sagittal and coronal stacks; by words where no orientation is written."""
    plane, _ = nearest_plane(facts.orientation)
    source = "ImageOrientationPatient"
    if not plane:
        plane, source = plane_in_words(facts.description), "SeriesDescription"
    if plane not in {"sagittal", "coronal"} or _resliceable(facts, step_mm):
        return None
    told = {"source": source, "plane": message(f"recognised-{plane}")}
    if step_mm:
        return _other(plane, message("recognised-thick", **told, step=step_mm))
    return _other(plane, message("recognised-thick-unwritten", **told))


def _resliceable(facts: HeaderFacts, step_mm: float | None) -> bool:
    """Near-isotropic voxels: every side at most 2 mm (a step to 2.5 mm where acquired in three dimensions)."""
    if step_mm is None:
        return facts.acquisition == "3D"
    in_plane = max(facts.spacing) if facts.spacing else 0.0
    return in_plane <= ISOTROPIC_MM and (
        step_mm <= ISOTROPIC_MM or (step_mm <= THICK_MM and facts.acquisition == "3D")
    )


def _by_weighting(facts: HeaderFacts, around: Surroundings) -> Recognition:
    """Hold timing and words against each other."""
    timing = weighting(facts)
    words: MRSequence | str | None = weighting_in_words(facts.description)
    source = "SeriesDescription"
    if words is None:
        words, source = weighting_in_words(facts.protocol), "ProtocolName"
    if words is None and facts.contrast in CONTRASTS:
        words, source = CONTRASTS[facts.contrast], "AcquisitionContrast"
    said = _says(source, words) if words else message("recognised-no-words")
    sequence, why = _settled(timing, words, said, facts)
    if not isinstance(sequence, MRSequence):
        return _other(sequence or "unknown", why)
    return _contrasted(facts, why, around) if sequence == MRSequence.T1 else _ours(sequence, why)


def _settled(
    timing: Weighting, words: MRSequence | str | None, said: str, facts: HeaderFacts
) -> tuple[str | None, str]:
    """The weighting that timing and words leave, with its reason; a name not of ours or None: refused."""
    silent = facts.repetition is None and facts.echo is None and facts.inversion is None
    told = {"timing": timing.why, "said": said, "kind": _kind_word(timing.kind)}
    if timing.why == message("recognised-no-timing"):
        told["timing"] = message("recognised-no-timing-first")  # it begins the sentence
    if timing.kind is not None and (words is None or words == timing.kind):
        return timing.kind, message("recognised-timing", **told)
    if words is None:
        return None, message("recognised-timing-silent", **told)
    within = told | {"timing": timing.why}
    if isinstance(words, MRSequence) and words in timing.plausible:
        if words == MRSequence.T1 and timing.kind == "PD" and not inversion_in_words(facts.description):
            return None, message("recognised-density-but", **told)
        return words, message("recognised-silent" if silent else "recognised-allowed", **within)
    if timing.kind is not None and timing.conclusive:
        sure = isinstance(timing.kind, MRSequence)
        return timing.kind, message("recognised-certain" if sure else "recognised-although", **told)
    if words == "PD" and timing.kind is None:
        return "PD", said
    return None, message("recognised-against" if timing.kind else "recognised-against-none", **within)


def _kind_word(kind: str | None) -> str:
    return known(str(kind or ""), "recognised-steady-state", "recognised-unknown-kind")


def _contrasted(facts: HeaderFacts, why: str, around: Surroundings) -> Recognition:
    """T1 before or after contrast medium: the words, then the agent's tag."""
    words = contrast_in_words(facts.description)
    if words is None:
        words = contrast_in_words(facts.protocol) if not facts.agent else None
    if words is False:
        before = message("recognised-before-contrast")
        if facts.agent:
            before = message("recognised-before-although", agent=facts.agent)
        return _ours(MRSequence.T1, _and(why, before))
    if not (words or facts.agent):
        return _plain_t1(facts, why)
    if around.repeats > 1 and around.agent_throughout:
        return _other("unknown", _and(why, message("recognised-repeats", count=around.repeats)))
    after = message("recognised-after-contrast")
    return _ours(
        MRSequence.T1C, _and(why, after if words else message("recognised-agent", agent=facts.agent))
    )


def _plain_t1(facts: HeaderFacts, why: str) -> Recognition:
    """T1 unless the de-identification took away whatever could have told of contrast."""
    if facts.deidentified and not facts.agent_tag and not (facts.description or facts.protocol):
        return _other("unknown", _and(why, message("recognised-deidentified")))
    return _ours(MRSequence.T1, _and(why, message("recognised-no-contrast")))


def _with_geometry(found: Recognition, facts: HeaderFacts, step_mm: float | None) -> Recognition:
    """Say in the reason where the images are resliced or derived."""
    if found.sequence is None:
        return found
    assert isinstance(found.reason, Message)
    clause, (plane, _) = found.reason.parameters["clause"], nearest_plane(facts.orientation)
    if plane in {"sagittal", "coronal"}:
        word = message(f"recognised-{plane}")
        resliced = message("recognised-resliced-unwritten", plane=word)
        if step_mm:
            resliced = message("recognised-resliced", plane=word, step=step_mm)
        clause = _and(clause, resliced)
    if not is_original(facts):
        clause = _and(clause, message("recognised-derived"))
    return _ours(found.sequence, clause)
