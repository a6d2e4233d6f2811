"""Weighting by physics: what repetition, echo and inversion time make of an MR image at 1.5 and 3 tesla."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from gliomark.io.dicom.facts import HeaderFacts
from gliomark.messages import message
from gliomark.study import MRSequence

CSF_T1_MS = 4300.0  # of cerebrospinal fluid, much the same at 1.5 and 3 tesla
CSF_NULL_TOLERANCE = 0.25  # protocols stay within this share of the time that nulls the fluid
WHITE_MATTER_T1_MS = 850.0
ERNST_SHARE = 1.2
_PREPARED = re.compile(r"\*?tfl3d|t1-?tfe|t1-?ffe|mp-?rage", re.IGNORECASE)  # sequence names of prepared T1
T1, T2, FLAIR = MRSequence.T1, MRSequence.T2, MRSequence.FLAIR


@dataclass(frozen=True)
class Weighting:
    """kind: what the timing says (one of ours, another kind, or None for not told).

    plausible: what else of ours the same timing may be; conclusive: whether words against it are overruled.
    """

    kind: str | None
    conclusive: bool = False
    plausible: frozenset[MRSequence] = frozenset()
    why: str = ""


def weighting(facts: HeaderFacts) -> Weighting:
    """Weighting of one header; ``why`` names the tags and their values."""
    found = _weigh(facts)
    return Weighting(found.kind, found.conclusive, found.plausible, described(facts))


def described(facts: HeaderFacts) -> str:
    """The timing and technique that the header states, in DICOM's words; else that there is none."""
    timings = (("TR", facts.repetition), ("TE", facts.echo), ("TI", facts.inversion))
    parts = [f"{name} {value:g} ms" for name, value in timings if value]
    if facts.technique:
        parts.append(f"ScanningSequence {'/'.join(sorted(facts.technique))}")
    return ", ".join(parts) or message("recognised-no-timing")


def nulls_fluid(repetition: float, inversion: float) -> bool:
    """Whether an inversion time darkens the fluid: TI = T1 (ln 2 - ln(1 + exp(-TR / T1))), within 25 %."""
    null = CSF_T1_MS * (math.log(2) - math.log1p(math.exp(-repetition / CSF_T1_MS)))
    return abs(inversion - null) <= CSF_NULL_TOLERANCE * null


def _weigh(facts: HeaderFacts) -> Weighting:
    if facts.repetition is None or facts.echo is None:
        return _partial(facts)
    if facts.echo >= 60:
        return _long_echo(facts, facts.repetition, facts.inversion or 0.0)
    if facts.echo > 35:
        return Weighting("PD" if facts.repetition >= 1500 and not facts.inversion else "unknown", True)
    if "GR" in facts.technique or (not facts.technique and facts.repetition < 200):
        return _gradient_echo(facts, facts.repetition, facts.inversion or 0.0)
    return _short_echo(facts, facts.repetition, facts.inversion or 0.0)


def _partial(facts: HeaderFacts) -> Weighting:
    """One timing missing or both: the other still rules something out."""
    possible = {T1, T2, FLAIR}
    if facts.echo is not None:
        possible &= {T2, FLAIR} if facts.echo >= 60 else {T1} if facts.echo <= 35 else set()
    if facts.repetition is not None and facts.repetition < 1500:
        possible &= {T1}
    if facts.inversion is not None:
        possible &= {FLAIR} if facts.inversion >= 1400 else {T1}
    return Weighting(None, False, frozenset(possible))


def _long_echo(facts: HeaderFacts, repetition: float, inversion: float) -> Weighting:
    """Echo of 60 ms and more: T2, or FLAIR where an inversion darkens the fluid."""
    if "GR" in facts.technique and "SE" not in facts.technique:
        return Weighting("T2*", True)
    if inversion >= 1400:
        if repetition >= 3500 and nulls_fluid(repetition, inversion):
            return Weighting(FLAIR, True)
        return Weighting(None, False, frozenset({FLAIR}))  # double inversion looks so too
    if inversion:
        return Weighting("STIR" if inversion <= 400 else "unknown", True)
    if repetition < 1500:
        return Weighting(None, False, frozenset({T2}))  # single-shot T2, or a localiser
    if "IR" in facts.technique:
        return Weighting(FLAIR, False) if repetition >= 4000 else Weighting(None, False, frozenset({FLAIR}))
    if repetition <= 4000:
        return Weighting(T2, True)
    if facts.technique:
        return Weighting(T2, True, frozenset({FLAIR}))
    # No inversion time and no technique: a FLAIR whose tags were stripped looks just the same.
    return Weighting(None, True, frozenset({T2, FLAIR}))


def _gradient_echo(facts: HeaderFacts, repetition: float, inversion: float) -> Weighting:
    """Gradient echo of up to 35 ms: spoiled or prepared for T1, else T2*, angiography, steady state."""
    if facts.echo is not None and facts.echo > 12:
        return Weighting("T2*", True)
    if inversion and repetition >= 4000:
        return Weighting("MP2RAGE", True)
    if 200 <= inversion <= 1400:
        return Weighting(T1, True)
    if inversion:
        return Weighting("unknown", True)
    if "SS" in facts.variant and not facts.variant & {"SP", "MP"}:
        return Weighting("steady state", True)
    prepared = "MP" in facts.variant or _PREPARED.match(facts.sequence_name)
    if prepared and repetition < 3500 and facts.acquisition != "2D":
        return Weighting(T1, True)
    flip = facts.flip
    if repetition < 18:
        return Weighting(T1 if _spoiled_for_t1(facts, repetition) else None, False, frozenset({T1}))
    if repetition <= 50:
        return Weighting(None, False, frozenset({T1}))  # angiography by inflow has the same timing
    if repetition <= 1200 and flip is not None:
        return Weighting(T1 if flip >= 50 else "T2*", flip >= 60 or flip < 50)
    if facts.technique and repetition > 1200 and flip is not None and flip > 30:
        return Weighting("PD", True)
    return Weighting(None, False, frozenset({T1}))


def _spoiled_for_t1(facts: HeaderFacts, repetition: float) -> bool:
    """A fast 3-D spoiled echo weighs T1 when its flip angle is well over the Ernst angle of white matter."""
    ernst = math.degrees(math.acos(math.exp(-repetition / WHITE_MATTER_T1_MS)))
    weighted = facts.flip is not None and ERNST_SHARE * ernst <= facts.flip <= 40
    return weighted and "SP" in facts.variant and facts.acquisition == "3D" and repetition >= 5


def _short_echo(facts: HeaderFacts, repetition: float, inversion: float) -> Weighting:
    """Spin echo (or not said) of up to 35 ms: T1 by short recovery or by inversion, else proton density."""
    if inversion:
        if inversion < 300:
            return Weighting("STIR", True)
        if inversion <= 1400:
            stage = repetition < 4000
            return Weighting(T1 if stage else "MP2RAGE", True)
        return Weighting("unknown", True)
    if repetition <= 1200:
        return Weighting(T1, facts.echo is not None and facts.echo <= 25 and "SE" in facts.technique)
    if "IR" in facts.technique or not facts.technique:
        prepared = frozenset({T1}) if repetition <= 3500 else frozenset()
        return Weighting("PD" if repetition >= 1800 and not facts.technique else None, False, prepared)
    return Weighting("PD" if repetition >= 1800 else "unknown", True)
