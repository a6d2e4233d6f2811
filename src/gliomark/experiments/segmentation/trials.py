"""Which networks chapter 3's tables train, as data: presets, the published figures, one named trial per line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from gliomark.cohort.folds import FOLDS
from gliomark.experiments.segmentation.study import Trial
from gliomark.models.mignet import MIGNetSettings
from gliomark.models.segmentation_baselines import BaselineSettings
from gliomark.models.segmentation_networks import NetworkSettings
from gliomark.models.swin_unet import SMALL, SwinSize
from gliomark.study import GliomarkError, MRSequence
from gliomark.training.augmentation import GENTLE
from gliomark.training.segmentation import READ_POOL, SMALLEST_SHARE, SegmentationTraining, light_training

Preset = Literal["published", "quick"]
MIGNET, SWIN_UNET, EQUAL_UNET = "MIG-Net", "Swin-UNet", "U-Net of Swin-UNet's size"
# in the place of a preset, for the recipe that is nobody's table
SHIPPED = "shipped"
OFF = {"fpg": False, "guidance": False, "iag": False}
# Dice in per cent and Hausdorff distance of the published tables, from another cohort
PUBLISHED_3_1 = {
    "U-Net": (83.16, 36.70),
    "TransUNet": (84.84, 28.69),
    SWIN_UNET: (86.92, 21.54),
    MIGNET: (90.56, 15.34),
}
PUBLISHED_3_2 = {
    SWIN_UNET: 86.92,
    "IAG": 88.13,
    "guidance": 88.85,
    "guidance + IAG": 89.74,
    "FPG": 87.52,
    "FPG + IAG": 88.76,
    "FPG + guidance": 89.35,
    MIGNET: 90.56,
}
PUBLISHED_3_3 = {("own", "own"): 90.56, ("own", "other"): 86.23, ("other", "own"): 82.64}
PUBLISHED_3_3 |= {("other", "other"): 93.73, ("both", "own"): 91.20, ("both", "other"): 92.08}
# the switches of table 3-2's rows
ABLATION: Mapping[str, Mapping[str, bool]] = {
    SWIN_UNET: OFF,
    "IAG": {**OFF, "iag": True},
    "guidance": {**OFF, "guidance": True},
    "guidance + IAG": {**OFF, "guidance": True, "iag": True},
    "FPG": {**OFF, "fpg": True},
    "FPG + IAG": {**OFF, "fpg": True, "iag": True},
    "FPG + guidance": {**OFF, "fpg": True, "guidance": True},
    MIGNET: {},
}
BASELINES = ("U-Net", "TransUNet", "Attention U-Net", "nnU-Net 2-D")


@dataclass(frozen=True)
class PresetSetting:
    """What a preset decides: the training that all trials share, MIG-Net's size, the rivals' width (that of
    nnU-Net), the width of a U-Net of as many operations per slice as Swin-UNet, how the sequences go in, and how many
    of the five folds are spent beyond the published study."""

    training: SegmentationTraining
    size: SwinSize
    width: int
    nnunet_width: int
    equal_width: int
    rule: str
    folds_beyond: int = FOLDS


PRESETS: Mapping[str, PresetSetting] = {
    "published": PresetSetting(SegmentationTraining(), SwinSize(), 64, 32, 24, "union"),
    "quick": PresetSetting(
        SegmentationTraining(
            augmentation=GENTLE,
            pool=4,
            rate=1e-3,
            batch=8,
            warm_up=0.1,
            largest_gradient=1.0,
            epochs=8,
            slices_per_patient=16,
        ),
        SMALL,
        16,
        16,
        10,
        "single",
        folds_beyond=1,
    ),
}


def preset_setting(name: str) -> PresetSetting:
    """Raises GliomarkError for an unknown preset."""
    if name not in PRESETS:
        raise GliomarkError(f"The preset '{name}' is unknown; it must be one of {', '.join(PRESETS)}.")
    return PRESETS[name]


def cuts(name: str) -> str:
    """In words, what a preset took away from the published setting."""
    if name == SHIPPED:
        return "none: the demonstration weights' own recipe"
    preset, full = preset_setting(name), PRESETS["published"]
    t = preset.training
    if preset == full:
        return "none"
    return "; ".join(
        [
            f"slices averaged to {240 / t.pool:g}x{240 / t.pool:g} pixels",
            f"{t.epochs} epochs of {t.slices_per_patient} slices per patient instead of at most "
            f"{full.training.epochs} of {full.training.slices_per_patient}",
            f"first-level width {preset.width} instead of {full.width} (nnU-Net {full.nnunet_width}), Swin embedding "
            f"{preset.size.embedding} instead of {full.size.embedding} after a convolutional stem, windows of "
            f"{preset.size.window} instead of {full.size.window}",
            "the reference sequence alone instead of both as independent samples",
            f"batches of {t.batch} instead of {full.training.batch}, rate {t.rate:g} instead of {full.training.rate:g}",
            "mirrors, small rotations and zoom instead of quarter turns",
        ]
    )


def _with(preset: PresetSetting, network: NetworkSettings, **changes) -> SegmentationTraining:
    return replace(preset.training, network=network, **changes)


def mignet_trial(name: str, preset: PresetSetting, inputs: int = 1, **switches: bool) -> Trial:
    """MIG-Net with some switches off, under a name."""
    fpg, guidance, iag = (switches.get(name, True) for name in ("fpg", "guidance", "iag"))
    network = MIGNetSettings(inputs, fpg, guidance, iag, size=preset.size)
    return Trial(name, _with(preset, network), preset.rule)


def baseline_trial(architecture: str, preset: PresetSetting, inputs: int = 1) -> Trial:
    """A rival on MIG-Net's terms; nnU-Net keeps its own published optimiser beside its network."""
    if architecture != "nnU-Net 2-D":
        network = BaselineSettings(architecture, inputs, preset.width)
        return Trial(architecture, _with(preset, network), preset.rule)
    network = BaselineSettings(architecture, inputs, preset.nnunet_width)
    recipe = {"optimiser": "sgd", "rate": 1e-2, "weight_decay": 3e-5, "largest_gradient": 12.0}
    return Trial(architecture, _with(preset, network, **recipe), preset.rule)


def trials_3_1(preset: PresetSetting) -> list[Trial]:
    """The rivals, then MIG-Net."""
    rivals = {name: baseline_trial(name, preset) for name in BASELINES}
    rivals[SWIN_UNET] = mignet_trial(SWIN_UNET, preset, **OFF)
    rivals[EQUAL_UNET] = replace(
        baseline_trial("U-Net", replace(preset, width=preset.equal_width)), name=EQUAL_UNET
    )
    order = ["U-Net", EQUAL_UNET, "TransUNet", SWIN_UNET, "Attention U-Net", "nnU-Net 2-D"]
    return [*(rivals[name] for name in order), mignet_trial(MIGNET, preset)]


def trials_3_2(preset: PresetSetting) -> list[Trial]:
    """Every combination of the three switches; the first and the last are table 3-1's."""
    return [mignet_trial(name, preset, **switches) for name, switches in ABLATION.items()]


def trials_3_3(preset: PresetSetting) -> list[Trial]:
    """Table 3-1's MIG-Net; then it read on both cohorts, one trained on the second, one trained on both."""
    own = mignet_trial(MIGNET, preset)
    return [
        own,
        replace(own, name="MIG-Net, first cohort", weights_of=own.name),
        replace(own, name="MIG-Net, second cohort", trained_on=(1,)),
        replace(own, name="MIG-Net, both cohorts", trained_on=(0, 1)),
    ]


# ---- beyond the published study -----------------------------------------------------------------------

ALONE, UNION, JOINT = "reference sequence alone", "independent, outlines united", "joint input"


def trials_beyond(preset: PresetSetting, sequences: tuple[MRSequence, ...]) -> list[Trial]:
    """Every trial one named change of MIG-Net with the reference sequence alone, or of the joint input."""
    # one of the first two is the tables' MIG-Net, and shares its folds
    own = replace(mignet_trial(MIGNET if preset.rule == "single" else ALONE, preset), rule="single")
    union = replace(own, name=MIGNET if preset.rule == "union" else UNION, rule="union")
    two = replace(mignet_trial(JOINT, preset, inputs=len(sequences)), rule="joint")

    def changed(name: str, trial: Trial, **changes) -> Trial:
        return replace(trial, name=name, training=replace(trial.training, **changes))

    joint_network = MIGNetSettings(inputs=len(sequences), size=preset.size)
    around = replace(joint_network, inputs=3 * len(sequences))
    neighbours = changed(f"{JOINT} + neighbouring slices", two, network=around, context=1)
    unet = BaselineSettings("U-Net", around.inputs, preset.width)
    unet_neighbours = changed("U-Net, joint input + neighbouring slices", neighbours, network=unet)
    levels = SwinSize(preset.width, depths=(2,) * 5, heads=(1,) * 5)
    convolutional = replace(around, backbone="convolution", size=levels)
    recolour = replace(preset.training.augmentation, recolour=0.5)
    contrast = changed("any sequence (contrast augmentation)", union, augmentation=recolour)
    flipped = replace(
        unet_neighbours, name=f"{unet_neighbours.name} + flips", flips=True, weights_of=unet_neighbours.name
    )
    pieces = replace(flipped, name=f"{flipped.name}, small pieces dropped", smallest_share=SMALLEST_SHARE)
    light = replace(unet, architecture="EfficientNet U-Net")
    efficient = changed("EfficientNet U-Net, joint input + neighbouring slices", neighbours, network=light)
    small = replace(unet, width=preset.width // 2)
    student = changed("student of U-Net, half as wide", unet_neighbours, network=small, distillation=0.5)
    return [
        own,
        union,
        two,
        changed(f"{JOINT} + deep supervision", two, network=replace(joint_network, deep_supervision=True)),
        neighbours,
        changed(
            "convolutional backbone, joint input + neighbouring slices", neighbours, network=convolutional
        ),
        unet_neighbours,
        flipped,
        pieces,
        efficient,
        changed(f"{efficient.name} + ImageNet weights", efficient, imagenet=True),
        changed("U-Net, half as wide", unet_neighbours, network=small),
        replace(student, teacher=unet_neighbours.name),
        contrast,
        *(
            replace(trial, name=f"{trial.name}, {name} shown", weights_of=trial.name, shown=name)
            for trial in (union, contrast)
            for name in sequences
        ),
    ]


# ---- MIG-Net's free choices, each alone --------------------------------------------------------------


def trials_choices(preset: PresetSetting) -> list[Trial]:
    """MIG-Net, then MIG-Net with one of the choices that the published text leaves open made otherwise."""
    own = mignet_trial(MIGNET, preset)
    network = MIGNetSettings(size=preset.size)
    open_gates, passing = (
        replace(network, gates_start="open"),
        replace(network, guidance_start="pass-through"),
    )
    changes = {
        "grading weight 0": replace(own.training, grading_weight=0.0),
        "grading weight 0.05": replace(own.training, grading_weight=0.05),
        "gates start open": replace(own.training, network=open_gates),
        "guidance starts passing through": replace(own.training, network=passing),
    }
    return [own, *(Trial(f"{MIGNET}, {name}", training, own.rule) for name, training in changes.items())]


# ---- what is shipped ----------------------------------------------------------------------------------

SHIPPED_EPOCHS = 14


def trials_shipped(sequences: int) -> list[Trial]:
    """The demonstration weights' recipe and its readings, for so many sequences; the last is what is shipped."""
    plain = Trial("shipped network", light_training(sequences, SHIPPED_EPOCHS), "joint")
    flipped = replace(plain, name=f"{plain.name} + flips", flips=True, weights_of=plain.name)
    finer = replace(flipped, name=f"{flipped.name}, finer pixels", read_pool=READ_POOL)
    pieces = replace(finer, name=f"{finer.name}, small pieces dropped", smallest_share=SMALLEST_SHARE)
    return [plain, flipped, finer, pieces]
