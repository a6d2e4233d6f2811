"""Infer T1, T2 or FLAIR weighting from TR, TE, TI and flip angle at 1.5 and 3 T."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from gliomark.io.dicom.header_metadata import HeaderMetadata
from gliomark.messages import message
from gliomark.study import MRSequence

CSF_T1_MS = 4300.0  # cerebrospinal fluid, similar at 1.5 and 3 T
CSF_NULL_TOLERANCE = 0.25  # share of the nulling TI by which protocols deviate from it
WHITE_MATTER_T1_MS = 850.0
MIN_ERNST_RATIO = 1.2
_PREPARED_T1_NAMES = re.compile(
    r"\*?tfl3d|t1-?tfe|t1-?ffe|mp-?rage", re.IGNORECASE
)  # magnetisation-prepared T1
T1, T2, FLAIR = MRSequence.T1, MRSequence.T2, MRSequence.FLAIR


@dataclass(frozen=True)
class WeightingEstimate:
    """Weighting inferred from timing.

    kind: a sequence, another kind of image, or None if undetermined. plausible_sequences: other sequences with the
    same timing. is_conclusive: whether the timing overrules a contradicting description. reason: the timing in words.
    """

    kind: str | None
    is_conclusive: bool = False
    plausible_sequences: frozenset[MRSequence] = frozenset()
    reason: str = ""


def infer_weighting(metadata: HeaderMetadata) -> WeightingEstimate:
    """Infer the weighting from one header; ``reason`` lists the attributes and their values."""
    found = _infer_from_timing(metadata)
    return WeightingEstimate(
        found.kind, found.is_conclusive, found.plausible_sequences, describe_timing(metadata)
    )


def describe_timing(metadata: HeaderMetadata) -> str:
    """Format timing and technique from the header with the DICOM terms, or state that there are none."""
    timings = (
        ("TR", metadata.repetition_time_ms),
        ("TE", metadata.echo_time_ms),
        ("TI", metadata.inversion_time_ms),
    )
    parts = [f"{name} {value:g} ms" for name, value in timings if value]
    if metadata.scanning_sequence:
        parts.append(f"ScanningSequence {'/'.join(sorted(metadata.scanning_sequence))}")
    return ", ".join(parts) or message("recognised-no-timing")


def is_csf_nulled(repetition_time_ms: float, inversion_time_ms: float) -> bool:
    """Whether TI nulls cerebrospinal fluid: TI = T1 (ln 2 - ln(1 + exp(-TR / T1))) within 25 %; times in ms."""
    nulling_time_ms = CSF_T1_MS * (math.log(2) - math.log1p(math.exp(-repetition_time_ms / CSF_T1_MS)))
    return abs(inversion_time_ms - nulling_time_ms) <= CSF_NULL_TOLERANCE * nulling_time_ms


def _infer_from_timing(metadata: HeaderMetadata) -> WeightingEstimate:
    if metadata.repetition_time_ms is None or metadata.echo_time_ms is None:
        return _infer_from_partial_timing(metadata)
    if metadata.echo_time_ms >= 60:
        return _infer_from_long_echo(metadata, metadata.repetition_time_ms, metadata.inversion_time_ms or 0.0)
    if metadata.echo_time_ms > 35:
        return WeightingEstimate(
            "PD" if metadata.repetition_time_ms >= 1500 and not metadata.inversion_time_ms else "unknown",
            True,
        )
    if "GR" in metadata.scanning_sequence or (
        not metadata.scanning_sequence and metadata.repetition_time_ms < 200
    ):
        return _infer_from_gradient_echo(
            metadata, metadata.repetition_time_ms, metadata.inversion_time_ms or 0.0
        )
    return _infer_from_short_echo(metadata, metadata.repetition_time_ms, metadata.inversion_time_ms or 0.0)


def _infer_from_partial_timing(metadata: HeaderMetadata) -> WeightingEstimate:
    """Infer what TR or TE alone, or TI, still excludes."""
    possible = {T1, T2, FLAIR}
    if metadata.echo_time_ms is not None:
        possible &= (
            {T2, FLAIR} if metadata.echo_time_ms >= 60 else {T1} if metadata.echo_time_ms <= 35 else set()
        )
    if metadata.repetition_time_ms is not None and metadata.repetition_time_ms < 1500:
        possible &= {T1}
    if metadata.inversion_time_ms is not None:
        possible &= {FLAIR} if metadata.inversion_time_ms >= 1400 else {T1}
    return WeightingEstimate(None, False, frozenset(possible))


def _infer_from_long_echo(
    metadata: HeaderMetadata, repetition_time_ms: float, inversion_time_ms: float
) -> WeightingEstimate:
    """TE of 60 ms or more: T2, or FLAIR if an inversion pulse nulls cerebrospinal fluid."""
    if "GR" in metadata.scanning_sequence and "SE" not in metadata.scanning_sequence:
        return WeightingEstimate("T2*", True)
    if inversion_time_ms >= 1400:
        if repetition_time_ms >= 3500 and is_csf_nulled(repetition_time_ms, inversion_time_ms):
            return WeightingEstimate(FLAIR, True)
        return WeightingEstimate(
            None, False, frozenset({FLAIR})
        )  # double inversion recovery has the same timing
    if inversion_time_ms:
        return WeightingEstimate("STIR" if inversion_time_ms <= 400 else "unknown", True)
    if repetition_time_ms < 1500:
        return WeightingEstimate(None, False, frozenset({T2}))  # single-shot T2, or a localiser
    if "IR" in metadata.scanning_sequence:
        return (
            WeightingEstimate(FLAIR, False)
            if repetition_time_ms >= 4000
            else WeightingEstimate(None, False, frozenset({FLAIR}))
        )
    if repetition_time_ms <= 4000:
        return WeightingEstimate(T2, True)
    if metadata.scanning_sequence:
        return WeightingEstimate(T2, True, frozenset({FLAIR}))
    # Without TI and technique, a FLAIR whose attributes were removed has the same timing.
    return WeightingEstimate(None, True, frozenset({T2, FLAIR}))


def _infer_from_gradient_echo(
    metadata: HeaderMetadata, repetition_time_ms: float, inversion_time_ms: float
) -> WeightingEstimate:
    """Gradient echo with TE up to 35 ms: spoiled or prepared T1, else T2*, angiography or steady state."""
    if metadata.echo_time_ms is not None and metadata.echo_time_ms > 12:
        return WeightingEstimate("T2*", True)
    if inversion_time_ms and repetition_time_ms >= 4000:
        return WeightingEstimate("MP2RAGE", True)
    if 200 <= inversion_time_ms <= 1400:
        return WeightingEstimate(T1, True)
    if inversion_time_ms:
        return WeightingEstimate("unknown", True)
    if "SS" in metadata.sequence_variant and not metadata.sequence_variant & {"SP", "MP"}:
        return WeightingEstimate("steady state", True)
    is_prepared = "MP" in metadata.sequence_variant or _PREPARED_T1_NAMES.match(metadata.sequence_name)
    if is_prepared and repetition_time_ms < 3500 and metadata.acquisition_type != "2D":
        return WeightingEstimate(T1, True)
    flip_angle = metadata.flip_angle
    if repetition_time_ms < 18:
        return WeightingEstimate(
            T1 if _is_spoiled_t1(metadata, repetition_time_ms) else None, False, frozenset({T1})
        )
    if repetition_time_ms <= 50:
        return WeightingEstimate(
            None, False, frozenset({T1})
        )  # time-of-flight angiography has the same timing
    if repetition_time_ms <= 1200 and flip_angle is not None:
        return WeightingEstimate(T1 if flip_angle >= 50 else "T2*", flip_angle >= 60 or flip_angle < 50)
    if (
        metadata.scanning_sequence
        and repetition_time_ms > 1200
        and flip_angle is not None
        and flip_angle > 30
    ):
        return WeightingEstimate("PD", True)
    return WeightingEstimate(None, False, frozenset({T1}))


def _is_spoiled_t1(metadata: HeaderMetadata, repetition_time_ms: float) -> bool:
    """Whether a fast 3-D spoiled gradient echo is T1-weighted: flip angle well above white matter's Ernst angle."""
    ernst_angle = math.degrees(math.acos(math.exp(-repetition_time_ms / WHITE_MATTER_T1_MS)))
    is_t1_flip_angle = (
        metadata.flip_angle is not None and MIN_ERNST_RATIO * ernst_angle <= metadata.flip_angle <= 40
    )
    return (
        is_t1_flip_angle
        and "SP" in metadata.sequence_variant
        and metadata.acquisition_type == "3D"
        and repetition_time_ms >= 5
    )


def _infer_from_short_echo(
    metadata: HeaderMetadata, repetition_time_ms: float, inversion_time_ms: float
) -> WeightingEstimate:
    """Spin echo (or unstated technique) with TE up to 35 ms: T1 by short TR or inversion, else proton density."""
    if inversion_time_ms:
        if inversion_time_ms < 300:
            return WeightingEstimate("STIR", True)
        if inversion_time_ms <= 1400:
            is_single_inversion = repetition_time_ms < 4000
            return WeightingEstimate(T1 if is_single_inversion else "MP2RAGE", True)
        return WeightingEstimate("unknown", True)
    if repetition_time_ms <= 1200:
        return WeightingEstimate(
            T1,
            metadata.echo_time_ms is not None
            and metadata.echo_time_ms <= 25
            and "SE" in metadata.scanning_sequence,
        )
    if "IR" in metadata.scanning_sequence or not metadata.scanning_sequence:
        prepared_sequences = frozenset({T1}) if repetition_time_ms <= 3500 else frozenset()
        return WeightingEstimate(
            "PD" if repetition_time_ms >= 1800 and not metadata.scanning_sequence else None,
            False,
            prepared_sequences,
        )
    return WeightingEstimate("PD" if repetition_time_ms >= 1800 else "unknown", True)
