"""Series recognition put to the test: headers as scanners write them, and what each is taken for.

The protocols of ``scanner_protocols`` are written from what five makers' scanners put into their headers, not
from the rules of ``io.recognition``. Each is told in several ways: English, Chinese, no or misleading words;
with its timing and without; classic and enhanced. ``told`` marks variants whose header holds enough to know the
sequence; on the others only a wrong sequence counts as an error, a refusal is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from gliomark.experiments.cohort.scanner_protocols import PROTOCOLS, Protocol
from gliomark.files import atomic_write
from gliomark.io.dicom import dicom_files, group_series, read_instance
from gliomark.io.dicom.recognition import recognise

OURS = ("T1", "T1C", "T2", "FLAIR")


@dataclass(frozen=True)
class Variant:
    """One generated header with the truth about it."""

    name: str
    kind: str
    told: bool
    header: Dataset
    images: int


MISLEADING = {"T1": "t2_tse_tra", "T1C": "OAx T2 FLAIR", "T2": "T1 SE 横断", "FLAIR": "t1_se_tra"}
AGENTS = (
    ("ContrastBolusAgent", "Gadovist"),
    ("ContrastBolusAgent", "15ML MAGNEVIST"),
    ("ContrastBolusAgent", "钆喷酸葡胺"),
)


def variants(seed: int = 0) -> Iterator[Variant]:
    """Every protocol at both field strengths, told in every way; T1 again after contrast."""
    random = np.random.default_rng(seed)
    for tesla in (1.5, 3.0):
        for protocol in PROTOCOLS:
            yield from _told(protocol, tesla, random)
            if protocol.kind == "T1":
                yield from _after_contrast(protocol, tesla, random)


def _told(protocol: Protocol, tesla: float, random: np.random.Generator) -> Iterator[Variant]:
    """One protocol in several words, with and without timing, classic and enhanced."""
    ours, words = protocol.kind in OURS, (protocol.english, protocol.chinese)
    for style, description in zip(("english", "chinese"), words, strict=True):
        yield _variant(protocol, tesla, random, style, description, told=True)
        if ours:
            stripped = _variant(protocol, tesla, random, f"{style}, no timing", description, told=True)
            yield replace(stripped, header=_stripped(stripped.header))
    bare = _variant(protocol, tesla, random, "no words", "", told=protocol.settled)
    yield bare
    enhanced = _variant(protocol, tesla, random, "enhanced", protocol.english, told=True)
    yield replace(enhanced, header=_enhanced(enhanced.header))
    yield replace(bare, name=bare.name + ", enhanced", header=_enhanced(bare.header))
    if ours:
        yield replace(bare, name=bare.name + ", no timing", told=False, header=_stripped(bare.header))
        yield _variant(protocol, tesla, random, "misleading", MISLEADING[protocol.kind], told=False)
        lost = _variant(protocol, tesla, random, "no words, no inversion time", "", told=False)
        lost.header.InversionTime = None
        lost.header.ScanningSequence = ""
        lost.header.ImageType = ["ORIGINAL", "PRIMARY"]
        yield lost


def _after_contrast(protocol: Protocol, tesla: float, random: np.random.Generator) -> Iterator[Variant]:
    """The same T1 protocol after contrast: said by the agent, by words, by both, or by nothing that is left."""
    late = replace(protocol, kind="T1C")
    tag, agent = AGENTS[int(random.integers(len(AGENTS)))]
    plain = _variant(late, tesla, random, "agent", protocol.english, told=True)
    setattr(plain.header, tag, agent)
    yield plain
    yield replace(plain, name=plain.name + ", enhanced", header=_enhanced(plain.header))
    for ending in ("+C", " POST GAD", "_C+", " Gd", " post contrast"):
        yield _variant(late, tesla, random, f"words {ending}", protocol.english + ending, told=True)
    for ending in ("增强", " 强化"):
        yield _variant(
            late, tesla, random, "chinese words", protocol.chinese.replace("平扫", "") + ending, told=True
        )
    wordless = _variant(late, tesla, random, "agent, no words", "", told=protocol.settled)
    setattr(wordless.header, tag, agent)
    yield wordless
    stripped = _variant(late, tesla, random, "words, no timing", protocol.english + " POST", told=True)
    yield replace(stripped, header=_stripped(stripped.header))
    lost = _variant(late, tesla, random, "de-identified, nothing left", "", told=False)
    lost.header.PatientIdentityRemoved = "YES"
    yield lost
    early = _variant(
        protocol, tesla, random, "before contrast, agent named", protocol.english + " pre", told=True
    )
    early.header.ContrastBolusAgent = agent
    yield early


def _variant(
    protocol: Protocol, tesla: float, random: np.random.Generator, style: str, description: str, told: bool
) -> Variant:
    header = Dataset()
    header.SOPClassUID, header.Modality, header.Manufacturer = MRImageStorage, "MR", protocol.maker
    header.MagneticFieldStrength, header.SeriesDescription = tesla, description
    header.ScanningSequence, header.SequenceVariant = (
        protocol.technique.split("\\"),
        protocol.variant.split("\\"),
    )
    header.MRAcquisitionType, header.FlipAngle = protocol.dimensions, protocol.flip
    if protocol.name:
        header.SequenceName = protocol.name
    header.RepetitionTime = round(float(random.uniform(*protocol.repetition)), 2)
    header.EchoTime = round(float(random.uniform(*protocol.echo)), 2)
    if protocol.inversion:
        header.InversionTime = round(float(random.uniform(*protocol.inversion)), 1)
    header.SliceThickness, header.PixelSpacing = protocol.step, [0.9, 0.9]
    header.ImageOrientationPatient = list(protocol.plane)
    for tag, value in protocol.tags:
        setattr(header, tag, value)
    name = f"{protocol.maker} {tesla:g} T {protocol.english}: {style}"
    return Variant(name, protocol.kind, told, header, protocol.images)


def _stripped(header: Dataset) -> Dataset:
    """As research archives leave it: no timing, technique or sequence name."""
    bare = deepcopy(header)
    for keyword in (
        "RepetitionTime",
        "EchoTime",
        "InversionTime",
        "FlipAngle",
        "SequenceVariant",
        "SequenceName",
    ):
        if keyword in bare:
            delattr(bare, keyword)
    bare.ScanningSequence, bare.ImageType = "RM", ["ORIGINAL", "PRIMARY", "OTHER"]
    return bare


def _item(**values: object) -> Sequence:
    content = Dataset()
    for keyword, value in values.items():
        setattr(content, keyword, value)
    return Sequence([content])


def _enhanced(header: Dataset) -> Dataset:
    """The same series as an enhanced multi-frame file: timing, technique and geometry in functional groups."""
    whole = deepcopy(header)
    whole.SOPClassUID, whole.PulseSequenceName = (
        EnhancedMRImageStorage,
        header.get("SequenceName") or "sequence",
    )
    codes = set(
        header.ScanningSequence if not isinstance(header.ScanningSequence, str) else [header.ScanningSequence]
    )
    whole.EchoPulseSequence = "GRADIENT" if "GR" in codes else "SPIN"
    whole.EchoPlanarPulseSequence = "YES" if "EP" in codes else "NO"
    modifier: dict[str, object] = {
        "InversionRecovery": "YES" if "IR" in codes or "InversionTime" in header else "NO"
    }
    if "InversionTime" in header:
        modifier["InversionTimes"] = [float(header.InversionTime)]
    variant = header.SequenceVariant
    if "SP" in ([variant] if isinstance(variant, str) else variant):
        modifier["Spoiling"] = "RF"
    elif "SS" in variant:
        whole.SteadyStatePulseSequence = "FREE_PRECESSION"
    groups = {
        "MRTimingAndRelatedParametersSequence": _item(
            RepetitionTime=header.RepetitionTime, FlipAngle=header.FlipAngle
        ),
        "MREchoSequence": _item(EffectiveEchoTime=float(header.EchoTime)),
        "MRModifierSequence": _item(**modifier),
        "PixelMeasuresSequence": _item(
            PixelSpacing=header.PixelSpacing, SliceThickness=header.SliceThickness
        ),
        "PlaneOrientationSequence": _item(ImageOrientationPatient=header.ImageOrientationPatient),
    }
    if "DiffusionBValue" in header:
        groups["MRDiffusionSequence"] = _item(DiffusionBValue=header.DiffusionBValue)
    if "ContrastBolusAgent" in header:
        whole.ContrastBolusAgentSequence = _item(CodeMeaning=str(header.ContrastBolusAgent))
    for keyword in ("RepetitionTime", "EchoTime", "InversionTime", "FlipAngle", "ScanningSequence",
    "SequenceVariant",
                    "SequenceName", "PixelSpacing", "SliceThickness", "ImageOrientationPatient",
                    "DiffusionBValue",
                    "ContrastBolusAgent"):  # fmt: skip
        if keyword in whole:
            delattr(whole, keyword)
    whole.SharedFunctionalGroupsSequence = _item(**groups)
    whole.PerFrameFunctionalGroupsSequence = _item(
        PlanePositionSequence=_item(ImagePositionPatient=[0, 0, 0])
    )
    whole.NumberOfFrames = 22
    return whole


def run(out: Path, shared: Path | None, say: Callable[[str], None]) -> Path:
    """Recognise every variant, and every real series below ``shared`` where given; write the confusion table.

    The file has columns source (generated, or a real series' folder), truth, recognised, count; a real series'
    truth is left blank. Raises: nothing of its own; a wrong sequence shows in the table and in what is said.
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    wrong, found, told = 0, 0, 0
    for variant in variants():
        recognition = recognise(variant.header, variant.images)
        counts["generated", variant.kind, recognition.kind] += 1
        wrong += recognition.sequence is not None and recognition.kind != variant.kind
        if variant.told and variant.kind in OURS:
            told, found = told + 1, found + (recognition.kind == variant.kind)
    total = sum(counts.values())
    say(f"{total} generated headers: {wrong} wrong sequences, {found} of {told} recognised that could be.")
    for source, kind, reason in _real(shared) if shared else ():
        counts[source, "", kind] += 1
        say(f"{source}: {kind}. {reason}")
    return _written(out, counts)


def _real(shared: Path) -> Iterator[tuple[str, str, str]]:
    for series in group_series(read_instance(file) for file in dicom_files(shared)):
        found = series.recognition
        yield str(series.first.file.parent.relative_to(shared)), found.kind, found.reason


def _written(out: Path, counts: Counter[tuple[str, str, str]]) -> Path:
    rows = [(*key, count) for key, count in sorted(counts.items())]
    table = pd.DataFrame(rows, columns=["source", "truth", "recognised", "count"])
    return atomic_write(out / "series_recognition.csv", table.to_csv(index=False))
