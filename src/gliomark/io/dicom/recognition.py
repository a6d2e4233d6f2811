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
from gliomark.study import MRSequence

THICK_MM = 2.5  # sagittal and coronal stacks with a larger step cannot be resliced to axial
ISOTROPIC_MM = 2.0  # voxels no longer than this on any side can
_SCOUT_IMAGES = 15  # a plane of a three-plane scout holds no more


@dataclass(frozen=True)
class Recognition:
    """sequence: None for none of ours; kind: its name or what else it is; reason: one sentence."""

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


def _other(kind: str, reason: str) -> Recognition:
    return Recognition(None, kind, reason)


def _by_class(facts: HeaderFacts) -> Recognition | None:
    """Refuse what is no MR image at all."""
    kind = CLASSES.get(facts.sop_class)
    if kind is None and facts.sop_class:
        kind = next((name for stem, name in CLASS_STEMS if facts.sop_class.startswith(stem)), None)
        kind = kind or MODALITIES.get(facts.modality, "other modality")
    if kind:
        return _other(kind, f"SOP class {UID(facts.sop_class).name or facts.sop_class} is no MR image.")
    if facts.modality not in {"", "MR"}:
        kind = MODALITIES.get(facts.modality, "other modality")
        return _other(kind, f"Modality is {facts.modality}, not MR.")
    return None


def _by_image_type(facts: HeaderFacts) -> Recognition | None:
    if facts.burned_in or facts.coloured:
        why = "BurnedInAnnotation is YES" if facts.burned_in else "SamplesPerPixel says colour"
        return _other("screenshot", f"{why}: a picture of a screen or a colour map.")
    parts = set(facts.image_type) | {facts.component}
    for kind, marks in IMAGE_TYPES:
        if hit := parts & marks:
            return _other(kind, f"ImageType or ComplexImageComponent says {'/'.join(sorted(hit))}.")
    return None


def _by_count(facts: HeaderFacts, images: int) -> Recognition | None:
    if images > 1:
        return None
    words = kind_in_words(facts.description)
    return _other(
        words[0] if words else "single image", f"The series has {images} image, no stack of slices."
    )


def _by_body_part(facts: HeaderFacts) -> Recognition | None:
    """Refuse another part of the body: BodyPartExamined, then the words of series and examination."""
    part = facts.body_part
    if part and (place := elsewhere_in_words(part)) and not names_head(part):
        return _other("other body part", f"BodyPartExamined is {part} ({place}).")
    for name, words in (("SeriesDescription", facts.description), ("ProtocolName", facts.protocol)):
        if (place := elsewhere_in_words(words)) and not names_head(words):
            return _other("other body part", f"{name} names another part of the body ({place}).")
    series = f"{facts.description} {facts.protocol} {part}"
    if (place := elsewhere_in_words(facts.study_description)) and not names_head(
        f"{series} {facts.study_description}"
    ):
        return _other("other body part", f"StudyDescription names another part of the body ({place}).")
    return None


def _by_technique(facts: HeaderFacts, images: int, around: Surroundings) -> Recognition | None:
    """Refuse diffusion, perfusion, echo-planar, angiography, multi-echo and scouts by their tags."""
    b_value = max(facts.b_value, around.b_value)
    name = facts.sequence_name.lower()
    if b_value > 0:
        return _other("DWI", f"Diffusion b-value is {b_value:g} s/mm2.")
    if "EP" in facts.technique or name.lstrip("*").startswith(
        ("ep_", "epfid", "epse", "ep2d", "epi", "epir")
    ):
        return _echo_planar(facts, around)
    if facts.contrast in CONTRAST_KINDS:
        return _other(CONTRAST_KINDS[facts.contrast], f"AcquisitionContrast is {facts.contrast}.")
    if max(facts.temporal_positions, around.repeats) >= MANY_REPEATS:
        count = max(facts.temporal_positions, around.repeats)
        return _other("perfusion", f"Every place was taken {count} times: a time series.")
    if facts.angiography:
        return _other("angiography", "AngioFlag, TimeOfFlightContrast or PhaseContrast says YES.")
    if around.planes == 3 and images <= _SCOUT_IMAGES:
        return _other(
            "localiser", f"The series holds all three planes, {images} images of this one: a scout."
        )
    if around.echoes > 1 and "GR" in facts.technique and not facts.inversion:
        return _other(
            "T2*", f"One gradient-echo series with {around.echoes} echoes: multi-echo T2* or a field map."
        )
    return None


def _echo_planar(facts: HeaderFacts, around: Surroundings) -> Recognition:
    count = max(facts.temporal_positions, around.repeats)
    words = kind_in_words(f"{facts.description} {facts.protocol}")
    kind = (
        words[0] if words else "perfusion" if count >= 2 * MANY_REPEATS or (facts.echo or 99) < 50 else "DWI"
    )
    return _other(kind, f"Echo-planar ({described(facts)}), with {count} images of each place.")


def _by_words(facts: HeaderFacts) -> Recognition | None:
    """Refuse by words that name another kind; the protocol's only where the series has no weighting of its own."""
    if hit := kind_in_words(facts.description):
        return _other(hit[0], f"SeriesDescription says {hit[1]}.")
    if not weighting_in_words(facts.description) and (hit := kind_in_words(facts.protocol)):
        return _other(hit[0], f"ProtocolName says {hit[1]}.")
    return None


def _by_plane(facts: HeaderFacts, step_mm: float | None) -> Recognition | None:
    """Refuse thick sagittal and coronal stacks; by words where no orientation is written."""
    plane, _ = nearest_plane(facts.orientation)
    source = "ImageOrientationPatient"
    if not plane:
        plane, source = plane_in_words(facts.description), "SeriesDescription"
    if plane not in {"sagittal", "coronal"} or _resliceable(facts, step_mm):
        return None
    apart = f"{step_mm:g} mm apart" if step_mm else "of a step that is not written"
    return _other(plane, f"{source} is {plane}, slices {apart}: too thick to be resliced to axial.")


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
    said = f"{source} says {words}" if words else "no words name a weighting"
    sequence, why = _settled(timing, words, said, facts)
    if not isinstance(sequence, MRSequence):
        return _other(sequence or "unknown", why[0].upper() + why[1:])
    why = why[0].upper() + why[1:]
    return (
        _contrasted(facts, why, around)
        if sequence == MRSequence.T1
        else Recognition(sequence, sequence.value, why)
    )


def _settled(
    timing: Weighting, words: MRSequence | str | None, said: str, facts: HeaderFacts
) -> tuple[str | None, str]:
    """The weighting that timing and words leave, with its sentence; a name not of ours or None: refused."""
    ours = isinstance(timing.kind, MRSequence)
    if timing.kind is not None and (words is None or words == timing.kind):
        return timing.kind, f"{timing.why}: timing of {timing.kind}, and {said}."
    if words is None:
        return None, f"{timing.why}: this does not tell the weighting, and {said}."
    if isinstance(words, MRSequence) and words in timing.plausible:
        if words == MRSequence.T1 and timing.kind == "PD" and not inversion_in_words(facts.description):
            return None, f"{timing.why} is timing of PD, but {said}: they contradict each other."
        silent = facts.repetition is None and facts.echo is None and facts.inversion is None
        return words, f"{said}{', and no timing is written' if silent else f', which {timing.why} allows'}."
    if ours and timing.conclusive:
        return timing.kind, f"{timing.why}: timing of {timing.kind} without doubt, although {said}."
    if timing.kind is not None and not ours and timing.conclusive:
        return timing.kind, f"{timing.why}: timing of {timing.kind}, although {said}."
    if words == "PD" and timing.kind is None:
        return "PD", f"{said}."
    against = f"timing of {timing.kind}" if timing.kind else "no timing of it"
    return None, f"{said}, but {timing.why} is {against}: they contradict each other."


def _contrasted(facts: HeaderFacts, why: str, around: Surroundings) -> Recognition:
    """T1 before or after contrast medium: the words, then the agent's tag."""
    words = contrast_in_words(facts.description)
    if words is None:
        words = contrast_in_words(facts.protocol) if not facts.agent else None
    if words is False:
        note = f", although ContrastBolusAgent is {facts.agent}" if facts.agent else ""
        return Recognition(MRSequence.T1, "T1", f"{why[:-1]}; the words say before contrast{note}.")
    if not (words or facts.agent):
        return _plain_t1(facts, why)
    if around.repeats > 1 and around.agent_throughout:
        return _other(
            "unknown", f"{why[:-1]}; taken {around.repeats} times, which of them after contrast is not said."
        )
    source = "the words say after contrast" if words else f"ContrastBolusAgent is {facts.agent}"
    return Recognition(MRSequence.T1C, "T1C", f"{why[:-1]}; {source}.")


def _plain_t1(facts: HeaderFacts, why: str) -> Recognition:
    """T1 unless the de-identification took away whatever could have told of contrast."""
    if facts.deidentified and not facts.agent_tag and not (facts.description or facts.protocol):
        return _other(
            "unknown", f"{why[:-1]}; de-identified without description or agent: T1 or T1C is not told."
        )
    return Recognition(MRSequence.T1, "T1", f"{why[:-1]}; nothing tells of contrast medium.")


def _with_geometry(found: Recognition, facts: HeaderFacts, step_mm: float | None) -> Recognition:
    """Say in the reason where the images are resliced or derived."""
    if found.sequence is None:
        return found
    reason, (plane, _) = found.reason, nearest_plane(facts.orientation)
    if plane in {"sagittal", "coronal"}:
        apart = f", {step_mm:g} mm apart" if step_mm else ""
        reason = f"{reason[:-1]}; acquired {plane}ly in three dimensions{apart}, resliced to axial."
    if not is_original(facts):
        reason = f"{reason[:-1]}; ImageType is DERIVED: used only where no original is there."
    return Recognition(found.sequence, found.kind, reason)
