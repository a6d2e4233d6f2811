"""Accuracy of series recognition on generated DICOM headers, and on real series if given.

The protocols of ``scanner_protocols`` describe what the scanners of five manufacturers write into their headers; they
were not derived from the rules of ``io.dicom.series_recognition``. Every protocol is generated in several variants:
English, Chinese, missing or misleading descriptions, with and without timing, classic and enhanced.
``is_determinable`` marks headers that contain enough information to identify the sequence; for the others, only a wrong
sequence counts as an error.
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

from gliomark.experiments.scanner_protocols import PROTOCOLS, ScannerProtocol
from gliomark.files import atomic_write
from gliomark.io.dicom import find_dicom_files, group_series, read_instance
from gliomark.io.dicom.series_recognition import recognise_series_from_header

TARGET_SEQUENCES = ("T1", "T1C", "T2", "FLAIR")


@dataclass(frozen=True)
class HeaderVariant:
    """A generated header and its true sequence.

    kind: true kind of series; is_determinable: the header contains enough information to identify the sequence;
    otherwise only a wrong sequence is an error.
    """

    name: str
    kind: str
    is_determinable: bool
    header: Dataset
    image_count: int


MISLEADING_DESCRIPTIONS = {
    "T1": "t2_tse_tra",
    "T1C": "OAx T2 FLAIR",
    "T2": "T1 SE 横断",
    "FLAIR": "t1_se_tra",
}
CONTRAST_AGENT_TAGS = (
    ("ContrastBolusAgent", "Gadovist"),
    ("ContrastBolusAgent", "15ML MAGNEVIST"),
    ("ContrastBolusAgent", "钆喷酸葡胺"),
)


def generate_variants(seed: int = 0) -> Iterator[HeaderVariant]:
    """Generate all variants of every protocol at 1.5 and 3 T; T1 protocols also after contrast."""
    random = np.random.default_rng(seed)
    for tesla in (1.5, 3.0):
        for protocol in PROTOCOLS:
            yield from _generate_protocol_variants(protocol, tesla, random)
            if protocol.kind == "T1":
                yield from _generate_contrast_variants(protocol, tesla, random)


def _generate_protocol_variants(
    protocol: ScannerProtocol, tesla: float, random: np.random.Generator
) -> Iterator[HeaderVariant]:
    """Generate a protocol with several descriptions, with and without timing, classic and enhanced."""
    is_target, words = (
        protocol.kind in TARGET_SEQUENCES,
        (protocol.english_description, protocol.chinese_description),
    )
    for style, description in zip(("english", "chinese"), words, strict=True):
        yield _create_variant(protocol, tesla, random, style, description, is_determinable=True)
        if is_target:
            stripped = _create_variant(
                protocol, tesla, random, f"{style}, no timing", description, is_determinable=True
            )
            yield replace(stripped, header=_remove_timing(stripped.header))
    undescribed = _create_variant(
        protocol, tesla, random, "no words", "", is_determinable=protocol.is_determined_by_timing
    )
    yield undescribed
    enhanced = _create_variant(
        protocol, tesla, random, "enhanced", protocol.english_description, is_determinable=True
    )
    yield replace(enhanced, header=_convert_to_enhanced(enhanced.header))
    yield replace(
        undescribed, name=undescribed.name + ", enhanced", header=_convert_to_enhanced(undescribed.header)
    )
    if is_target:
        yield replace(
            undescribed,
            name=undescribed.name + ", no timing",
            is_determinable=False,
            header=_remove_timing(undescribed.header),
        )
        yield _create_variant(
            protocol,
            tesla,
            random,
            "misleading",
            MISLEADING_DESCRIPTIONS[protocol.kind],
            is_determinable=False,
        )
        unidentifiable = _create_variant(
            protocol, tesla, random, "no words, no inversion time", "", is_determinable=False
        )
        unidentifiable.header.InversionTime = None
        unidentifiable.header.ScanningSequence = ""
        unidentifiable.header.ImageType = ["ORIGINAL", "PRIMARY"]
        yield unidentifiable


def _generate_contrast_variants(
    protocol: ScannerProtocol, tesla: float, random: np.random.Generator
) -> Iterator[HeaderVariant]:
    """Generate a T1 protocol after contrast, indicated by the agent, the description, both, or neither."""
    contrast_protocol = replace(protocol, kind="T1C")
    tag, agent = CONTRAST_AGENT_TAGS[int(random.integers(len(CONTRAST_AGENT_TAGS)))]
    plain = _create_variant(
        contrast_protocol, tesla, random, "agent", protocol.english_description, is_determinable=True
    )
    setattr(plain.header, tag, agent)
    yield plain
    yield replace(plain, name=plain.name + ", enhanced", header=_convert_to_enhanced(plain.header))
    for ending in ("+C", " POST GAD", "_C+", " Gd", " post contrast"):
        yield _create_variant(
            contrast_protocol,
            tesla,
            random,
            f"words {ending}",
            protocol.english_description + ending,
            is_determinable=True,
        )
    for ending in ("增强", " 强化"):
        yield _create_variant(
            contrast_protocol,
            tesla,
            random,
            "chinese words",
            protocol.chinese_description.replace("平扫", "") + ending,
            is_determinable=True,
        )
    wordless = _create_variant(
        contrast_protocol,
        tesla,
        random,
        "agent, no words",
        "",
        is_determinable=protocol.is_determined_by_timing,
    )
    setattr(wordless.header, tag, agent)
    yield wordless
    stripped = _create_variant(
        contrast_protocol,
        tesla,
        random,
        "words, no timing",
        protocol.english_description + " POST",
        is_determinable=True,
    )
    yield replace(stripped, header=_remove_timing(stripped.header))
    unidentifiable = _create_variant(
        contrast_protocol, tesla, random, "de-identified, nothing left", "", is_determinable=False
    )
    unidentifiable.header.PatientIdentityRemoved = "YES"
    yield unidentifiable
    precontrast = _create_variant(
        protocol,
        tesla,
        random,
        "before contrast, agent named",
        protocol.english_description + " pre",
        is_determinable=True,
    )
    precontrast.header.ContrastBolusAgent = agent
    yield precontrast


def _create_variant(
    protocol: ScannerProtocol,
    tesla: float,
    random: np.random.Generator,
    style: str,
    description: str,
    is_determinable: bool,
) -> HeaderVariant:
    header = Dataset()
    header.SOPClassUID, header.Modality, header.Manufacturer = MRImageStorage, "MR", protocol.manufacturer
    header.MagneticFieldStrength, header.SeriesDescription = tesla, description
    header.ScanningSequence, header.SequenceVariant = (
        protocol.scanning_sequence.split("\\"),
        protocol.sequence_variant.split("\\"),
    )
    header.MRAcquisitionType, header.FlipAngle = protocol.acquisition_type, protocol.flip_angle
    if protocol.sequence_name:
        header.SequenceName = protocol.sequence_name
    header.RepetitionTime = round(float(random.uniform(*protocol.repetition_time)), 2)
    header.EchoTime = round(float(random.uniform(*protocol.echo_time)), 2)
    if protocol.inversion_time:
        header.InversionTime = round(float(random.uniform(*protocol.inversion_time)), 1)
    header.SliceThickness, header.PixelSpacing = protocol.slice_thickness, [0.9, 0.9]
    header.ImageOrientationPatient = list(protocol.image_orientation)
    for tag, value in protocol.extra_tags:
        setattr(header, tag, value)
    name = f"{protocol.manufacturer} {tesla:g} T {protocol.english_description}: {style}"
    return HeaderVariant(name, protocol.kind, is_determinable, header, protocol.image_count)


def _remove_timing(header: Dataset) -> Dataset:
    """Remove timing, technique and sequence name, as research archives do."""
    stripped = deepcopy(header)
    for keyword in (
        "RepetitionTime",
        "EchoTime",
        "InversionTime",
        "FlipAngle",
        "SequenceVariant",
        "SequenceName",
    ):
        if keyword in stripped:
            delattr(stripped, keyword)
    stripped.ScanningSequence, stripped.ImageType = "RM", ["ORIGINAL", "PRIMARY", "OTHER"]
    return stripped


def _create_dicom_sequence(**values: object) -> Sequence:
    content = Dataset()
    for keyword, value in values.items():
        setattr(content, keyword, value)
    return Sequence([content])


# keywords of a classic header that an enhanced one states in functional groups or by another keyword
_CLASSIC_KEYWORDS = (
    "RepetitionTime",
    "EchoTime",
    "InversionTime",
    "FlipAngle",
    "ScanningSequence",
    "SequenceVariant",
    "SequenceName",
    "PixelSpacing",
    "SliceThickness",
    "ImageOrientationPatient",
    "DiffusionBValue",
    "ContrastBolusAgent",
)


def _convert_to_enhanced(header: Dataset) -> Dataset:
    """Convert to an enhanced multi-frame header, with timing, technique and geometry in functional groups."""
    enhanced = deepcopy(header)
    enhanced.SOPClassUID, enhanced.PulseSequenceName = (
        EnhancedMRImageStorage,
        header.get("SequenceName") or "sequence",
    )
    codes = set(
        header.ScanningSequence if not isinstance(header.ScanningSequence, str) else [header.ScanningSequence]
    )
    enhanced.EchoPulseSequence = "GRADIENT" if "GR" in codes else "SPIN"
    enhanced.EchoPlanarPulseSequence = "YES" if "EP" in codes else "NO"
    modifier: dict[str, object] = {
        "InversionRecovery": "YES" if "IR" in codes or "InversionTime" in header else "NO"
    }
    if "InversionTime" in header:
        modifier["InversionTimes"] = [float(header.InversionTime)]
    variant = header.SequenceVariant
    if "SP" in ([variant] if isinstance(variant, str) else variant):
        modifier["Spoiling"] = "RF"
    elif "SS" in variant:
        enhanced.SteadyStatePulseSequence = "FREE_PRECESSION"
    groups = {
        "MRTimingAndRelatedParametersSequence": _create_dicom_sequence(
            RepetitionTime=header.RepetitionTime, FlipAngle=header.FlipAngle
        ),
        "MREchoSequence": _create_dicom_sequence(EffectiveEchoTime=float(header.EchoTime)),
        "MRModifierSequence": _create_dicom_sequence(**modifier),
        "PixelMeasuresSequence": _create_dicom_sequence(
            PixelSpacing=header.PixelSpacing, SliceThickness=header.SliceThickness
        ),
        "PlaneOrientationSequence": _create_dicom_sequence(
            ImageOrientationPatient=header.ImageOrientationPatient
        ),
    }
    if "DiffusionBValue" in header:
        groups["MRDiffusionSequence"] = _create_dicom_sequence(DiffusionBValue=header.DiffusionBValue)
    if "ContrastBolusAgent" in header:
        enhanced.ContrastBolusAgentSequence = _create_dicom_sequence(
            CodeMeaning=str(header.ContrastBolusAgent)
        )
    for keyword in _CLASSIC_KEYWORDS:
        if keyword in enhanced:
            delattr(enhanced, keyword)
    enhanced.SharedFunctionalGroupsSequence = _create_dicom_sequence(**groups)
    enhanced.PerFrameFunctionalGroupsSequence = _create_dicom_sequence(
        PlanePositionSequence=_create_dicom_sequence(ImagePositionPatient=[0, 0, 0])
    )
    enhanced.NumberOfFrames = 22
    return enhanced


def run_series_recognition(
    output_folder: Path, real_series_folder: Path | None, notify: Callable[[str], None]
) -> Path:
    """Recognise every generated variant and, if given, every real series; write the confusion table, its path.

    Columns: source ("generated", or the folder of a real series), truth (blank for a real series), recognised, count.

    real_series_folder: folder of DICOM files; notify: called with the result and with every real series.
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    wrong_count, recognised_count, determinable_count = 0, 0, 0
    for variant in generate_variants():
        recognition = recognise_series_from_header(variant.header, variant.image_count)
        counts["generated", variant.kind, recognition.kind] += 1
        wrong_count += recognition.sequence is not None and recognition.kind != variant.kind
        if variant.is_determinable and variant.kind in TARGET_SEQUENCES:
            determinable_count, recognised_count = (
                determinable_count + 1,
                recognised_count + (recognition.kind == variant.kind),
            )
    total = sum(counts.values())
    notify(
        f"{total} generated headers: {wrong_count} wrong sequences, {recognised_count} of "
        f"{determinable_count} possible ones recognised."
    )
    for source, kind, reason in _recognise_real_series(real_series_folder) if real_series_folder else ():
        counts[source, "", kind] += 1
        notify(f"{source}: {kind}. {reason}")
    return _write_confusion_table(output_folder, counts)


def _recognise_real_series(real_series_folder: Path) -> Iterator[tuple[str, str, str]]:
    for series in group_series(read_instance(file) for file in find_dicom_files(real_series_folder)):
        recognition = series.recognition
        yield (
            str(series.first_instance.file.parent.relative_to(real_series_folder)),
            recognition.kind,
            recognition.reason,
        )


def _write_confusion_table(output_folder: Path, counts: Counter[tuple[str, str, str]]) -> Path:
    rows = [(*key, count) for key, count in sorted(counts.items())]
    table = pd.DataFrame(rows, columns=["source", "truth", "recognised", "count"])
    return atomic_write(output_folder / "series_recognition.csv", table.to_csv(index=False))
