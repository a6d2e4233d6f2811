"""Chapter 4's experiments as data: what is trained, how its answers are read, the published figures beside them.

A trial is a network and how it is trained; a reading is how one becomes an answer (its own softmax, LightGBM on its
vectors, two networks averaged). A table is a list of readings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gliomark.inference.slice_classifier import Evidence
from gliomark.models.kinet import SMALL, KiNetSettings, KiNetSize
from gliomark.models.marker_networks import Architecture, MarkerBaseline
from gliomark.study import GliomarkError, MRSequence
from gliomark.training.augmentation import GENTLE, Augmentation
from gliomark.training.classification import MarkerTraining, light_training

KINET = "KiNet"
LIGHT = "KiNet, light (frozen ImageNet trunk)"
INPUTS: Mapping[str, tuple[int, ...]] = {"IMG": (0,), "ROI": (1,), "MIX": (0, 1)}
SWITCHES = ("bms", "merge_in", "metadata")


@dataclass(frozen=True)
class MarkerTrial:
    """A network and its training. stacked: whether trees are fitted on its out-of-fold vectors, which takes ten
    networks more."""

    name: str
    training: MarkerTraining
    stacked: bool = False


Stage = Literal["softmax", "LightGBM", "logistic", "clinical", "radiomics"]


@dataclass(frozen=True)
class Reading:
    """How patients are answered. of: the trials read, several being averaged.

    stage: "softmax" the network's own; "LightGBM" and "logistic" on what ``evidence`` names of its vectors and, with
    metadata, age and sex; "clinical" age and sex alone; "radiomics" features of the outlined lesion, LightGBM.
    """

    name: str
    of: tuple[str, ...] = ()
    stage: Stage = "softmax"
    metadata: bool = True
    evidence: Evidence = "vector"


@dataclass(frozen=True)
class MarkerPreset:
    """How large the networks are, what they see and how long they learn; cuts says what is smaller than published."""

    size: KiNetSize
    augmentation: Augmentation
    rate: float
    epochs: int
    cuts: str


PRESETS: Mapping[str, MarkerPreset] = {
    "published": MarkerPreset(KiNetSize(), Augmentation(), 4e-5, 100, "none"),
    "quick": MarkerPreset(
        SMALL,
        GENTLE,
        1e-3,
        12,
        "every network a block per stage and 32 to 96 channels (0.03 to 0.11 million parameters), pixels averaged "
        "2 x 2, 12 epochs at a rate of 1e-3, small rotations in place of quarter turns; the light KiNet uncut",
    ),
}


def marker_preset(name: str) -> MarkerPreset:
    """Raises GliomarkError for an unknown preset."""
    if name not in PRESETS:
        raise GliomarkError(f"The preset '{name}' is unknown; it must be one of {', '.join(PRESETS)}.")
    return PRESETS[name]


def _rival(
    preset: MarkerPreset, name: str, architecture: Architecture, channels: tuple[int, ...]
) -> MarkerTrial:
    network = MarkerBaseline(architecture, channels, preset.size)
    loss: Literal["branches", "cross-entropy"] = (
        "branches" if architecture == "CentralNet" else "cross-entropy"
    )
    return MarkerTrial(
        name, MarkerTraining(network, preset.augmentation, loss, rate=preset.rate, epochs=preset.epochs)
    )


def _kinet(preset: MarkerPreset, name: str, bms: bool, merge_in: bool) -> MarkerTrial:
    network = KiNetSettings(merge_in=merge_in, size=preset.size)
    loss: Literal["bms", "cross-entropy"] = "bms" if bms else "cross-entropy"
    training = MarkerTraining(network, preset.augmentation, loss, rate=preset.rate, epochs=preset.epochs)
    return MarkerTrial(name, training, stacked=True)


def input_name(sequence: MRSequence, channels: str) -> str:
    """The name of a table 4-2 run."""
    return f"{sequence}, {channels}"


def trials_4_2(preset: MarkerPreset, sequences: Sequence[MRSequence]) -> list[MarkerTrial]:
    """ResNet-50 on one sequence: the slice, the lesion alone, both."""
    return [
        _rival(preset, input_name(sequence, name), "ResNet-50", tuple(2 * number + c for c in channels))
        for number, sequence in enumerate(sequences)
        for name, channels in INPUTS.items()
    ]


EARLY, LATE, MIDDLE = "early fusion", "late fusion", "middle fusion"


def trials_4_3(preset: MarkerPreset, sequences: Sequence[MRSequence]) -> list[MarkerTrial]:
    """ResNet-50 on two sequences; late fusion reads table 4-2's networks."""
    mixes = [t for t in trials_4_2(preset, sequences) if t.name.endswith("MIX")]
    early = _rival(preset, EARLY, "ResNet-50", (0, 1, 2, 3))
    middle = _rival(preset, MIDDLE, "ResNet-50, middle fusion", (0, 1, 2, 3))
    return [*mixes, early, middle]


def readings_4_3(sequences: Sequence[MRSequence]) -> list[Reading]:
    """Early, late (one network per sequence, decisions averaged) and middle fusion."""
    late = Reading(LATE, tuple(input_name(sequence, "MIX") for sequence in sequences))
    return [Reading(EARLY, (EARLY,)), late, Reading(MIDDLE, (MIDDLE,))]


def trials_4_4(preset: MarkerPreset) -> list[MarkerTrial]:
    """The networks on Merge-IN's channels; ResNet-50 there is table 4-3's early fusion."""
    return [
        _rival(preset, EARLY, "ResNet-50", (0, 1, 2, 3)),
        _rival(preset, "ResNeSt-50", "ResNeSt-50", (0, 1, 2, 3)),
        _rival(preset, "CentralNet", "CentralNet", (0, 1, 2, 3)),
        _kinet(preset, KINET, bms=True, merge_in=True),
        MarkerTrial(LIGHT, light_training(), stacked=True),
    ]


FULL = Reading("KiNet + LightGBM", (KINET,), "LightGBM")


def readings_4_4() -> list[Reading]:
    """Every network by its own softmax, and KiNet with its second stage, which is what the table published."""
    alone = [Reading(name, (name,)) for name in ("ResNeSt-50", "CentralNet", KINET, LIGHT)]
    return [Reading("ResNet-50", (EARLY,)), *alone, FULL]


def ablation_name(bms: bool, merge_in: bool) -> str:
    """The trial behind a row of table 4-5; all on is KiNet itself."""
    off = [name for name, on in (("BMS loss", bms), ("Merge-IN", merge_in)) if not on]
    return f"{KINET} without {' and '.join(off)}" if off else KINET


def trials_4_5(preset: MarkerPreset) -> list[MarkerTrial]:
    """The BMS loss and Merge-IN, on and off."""
    return [
        _kinet(preset, ablation_name(bms, merge), bms, merge)
        for bms in (False, True)
        for merge in (False, True)
    ]


def readings_4_5() -> dict[Reading, tuple[bool, bool, bool]]:
    """Each row with its three switches: BMS, Merge-IN, metadata. Metadata off is LightGBM on the vector alone."""
    rows = {}
    for bms in (False, True):
        for merge in (False, True):
            for metadata in (False, True):
                on = [
                    n
                    for n, s in zip(("BMS", "Merge-IN", "metadata"), (bms, merge, metadata), strict=True)
                    if s
                ]
                reading = Reading(
                    " + ".join(on) or "none", (ablation_name(bms, merge),), "LightGBM", metadata
                )
                rows[reading] = (bms, merge, metadata)
    return rows


def readings_rivals() -> list[Reading]:
    """KiNet's second stage in all its forms, and what a user would pick instead."""
    kinet, light = (KINET,), (LIGHT,)
    return [
        Reading("KiNet, its own softmax", kinet),
        replace(FULL, name="KiNet's vector, LightGBM", metadata=False),
        replace(FULL, name="KiNet's vector, age and sex, LightGBM (as published)"),
        replace(FULL, name="KiNet's log-odds, age and sex, LightGBM", evidence="log-odds"),
        Reading("KiNet's log-odds, age and sex, logistic regression", kinet, "logistic", True, "log-odds"),
        replace(
            FULL, name="KiNet's log-odds, the lesion's figures, age and sex, LightGBM", evidence="lesion"
        ),
        Reading(
            "KiNet's log-odds, the lesion's figures, age and sex, logistic regression",
            kinet,
            "logistic",
            True,
            "lesion",
        ),
        Reading(f"{LIGHT}, its own softmax", light),
        Reading(f"{LIGHT}: its vector, age and sex, LightGBM", light, "LightGBM"),
        Reading(f"{LIGHT}: its log-odds, age and sex, LightGBM", light, "LightGBM", True, "log-odds"),
        Reading(
            f"{LIGHT}: its log-odds, the lesion's figures, age and sex, logistic regression",
            light,
            "logistic",
            True,
            "lesion",
        ),
        Reading("radiomics, LightGBM", (), "radiomics", False),
        Reading("radiomics, age and sex, LightGBM", (), "radiomics"),
        Reading("age and sex, logistic regression", (), "clinical"),
    ]


# accuracy, sensitivity, specificity, AUC and kappa where the text gives it, from a private cohort with stained Ki-67
Published = tuple[float, float, float, float] | tuple[float, float, float, float, float]
PUBLISHED_4_2: Mapping[str, Published] = {
    "IMG": (0.616, 0.588, 0.505, 0.584),
    "ROI": (0.657, 0.627, 0.546, 0.632),
    "MIX": (0.678, 0.630, 0.637, 0.679),
}
PUBLISHED_4_3: Mapping[str, Published] = {
    EARLY: (0.682, 0.646, 0.641, 0.695),
    LATE: (0.666, 0.635, 0.635, 0.682),
    MIDDLE: (0.691, 0.693, 0.689, 0.724),
}
PUBLISHED_4_4: Mapping[str, Published] = {
    "ResNet-50": (0.691, 0.693, 0.689, 0.724, 0.422),
    "ResNeSt-50": (0.724, 0.734, 0.715, 0.764, 0.451),
    "CentralNet": (0.725, 0.745, 0.705, 0.762, 0.450),
    FULL.name: (0.752, 0.755, 0.749, 0.788, 0.472),
}
# accuracy and AUC by (BMS, Merge-IN, metadata)
PUBLISHED_4_5: Mapping[tuple[bool, bool, bool], tuple[float, float]] = {
    (False, False, False): (0.735, 0.766),
    (False, False, True): (0.736, 0.768),
    (False, True, False): (0.742, 0.773),
    (False, True, True): (0.743, 0.774),
    (True, False, False): (0.746, 0.778),
    (True, False, True): (0.748, 0.781),
    (True, True, False): (0.750, 0.785),
    (True, True, True): (0.752, 0.788),
}
PUBLISHED_4_6: Mapping[str, Published] = {
    "slice": (0.752, 0.755, 0.749, 0.788),
    "all": (0.789, 0.809, 0.778, 0.824),
    "near": (0.821, 0.819, 0.810, 0.857),
    "large": (0.813, 0.827, 0.802, 0.840),
}
