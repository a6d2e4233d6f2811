"""Chapter 3's experiments as data: presets, published numbers, and one named run per row of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from gliomark.cohort.folds import FOLD_COUNT
from gliomark.errors import ConfigurationError
from gliomark.experiments.segmentation.fold_training import SegmentationRun
from gliomark.models.comparison.segmentation_networks import ComparisonSegmentationSettings
from gliomark.models.published.mignet import MIGNetSettings
from gliomark.models.published.swin_unet import SMALL_SWIN_SIZE, SwinSize
from gliomark.models.registry import SegmentationNetworkSettings
from gliomark.study import MRSequence
from gliomark.training.augmentation import GENTLE_AUGMENTATION
from gliomark.training.segmentation import (
    INFERENCE_POOLING_FACTOR,
    MIN_COMPONENT_SHARE,
    SegmentationTrainingConfig,
    create_pretrained_segmentation_config,
)

Preset = Literal["published", "quick"]
MIGNET, SWIN_UNET, COST_MATCHED_UNET = "MIG-Net", "Swin-UNet", "U-Net of Swin-UNet's size"
# used instead of a preset for the demonstration recipe
SHIPPED_PRESET = "shipped"
ALL_SWITCHES_OFF = {"fpg": False, "guidance": False, "iag": False}
# Dice in per cent and Hausdorff distance in pixels of the published tables, from another cohort
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
# the switches of each row of table 3-2
ABLATION_SWITCHES: Mapping[str, Mapping[str, bool]] = {
    SWIN_UNET: ALL_SWITCHES_OFF,
    "IAG": {**ALL_SWITCHES_OFF, "iag": True},
    "guidance": {**ALL_SWITCHES_OFF, "guidance": True},
    "guidance + IAG": {**ALL_SWITCHES_OFF, "guidance": True, "iag": True},
    "FPG": {**ALL_SWITCHES_OFF, "fpg": True},
    "FPG + IAG": {**ALL_SWITCHES_OFF, "fpg": True, "iag": True},
    "FPG + guidance": {**ALL_SWITCHES_OFF, "fpg": True, "guidance": True},
    MIGNET: {},
}
COMPARISON_NETWORKS = ("U-Net", "TransUNet", "Attention U-Net", "nnU-Net 2-D")


@dataclass(frozen=True)
class SegmentationPreset:
    """Settings shared by all runs of a preset.

    training: training settings; swin_size: size of MIG-Net; comparison_width, nnunet_width: first-level width of the
    comparison networks and of nnU-Net; cost_matched_width: width of a U-Net with as many operations per slice as
    Swin-UNet; rule: as in ``SegmentationRun``; extension_folds: number of folds for the extensions of the published
    study.
    """

    training: SegmentationTrainingConfig
    swin_size: SwinSize
    comparison_width: int
    nnunet_width: int
    cost_matched_width: int
    rule: str
    extension_folds: int = FOLD_COUNT


PRESETS: Mapping[str, SegmentationPreset] = {
    "published": SegmentationPreset(SegmentationTrainingConfig(), SwinSize(), 64, 32, 24, "union"),
    "quick": SegmentationPreset(
        SegmentationTrainingConfig(
            augmentation=GENTLE_AUGMENTATION,
            pool=4,
            rate=1e-3,
            batch=8,
            warm_up=0.1,
            largest_gradient=1.0,
            epochs=8,
            slices_per_patient=16,
        ),
        SMALL_SWIN_SIZE,
        16,
        16,
        10,
        "single",
        extension_folds=1,
    ),
}


def get_segmentation_preset(preset_name: str) -> SegmentationPreset:
    """Return a preset by name.

    Raises
    ------
    ConfigurationError
        If the preset is unknown.
    """
    if preset_name not in PRESETS:
        raise ConfigurationError(
            f"The preset '{preset_name}' is unknown; it must be one of {', '.join(PRESETS)}."
        )
    return PRESETS[preset_name]


def describe_reductions(preset_name: str) -> str:
    """Describe in words what a preset reduces compared with the published setting; "none" for nothing."""
    if preset_name == SHIPPED_PRESET:
        return "none: the demonstration weights' own recipe"
    preset, full = get_segmentation_preset(preset_name), PRESETS["published"]
    t = preset.training
    if preset == full:
        return "none"
    return "; ".join(
        [
            f"slices averaged to {240 / t.pool:g}x{240 / t.pool:g} pixels",
            f"{t.epochs} epochs of {t.slices_per_patient} slices per patient instead of at most "
            f"{full.training.epochs} of {full.training.slices_per_patient}",
            f"first-level width {preset.comparison_width} instead of {full.comparison_width} (nnU-Net {full.nnunet_width}), Swin embedding "
            f"{preset.swin_size.embedding} instead of {full.swin_size.embedding} after a convolutional stem, windows of "
            f"{preset.swin_size.window} instead of {full.swin_size.window}",
            "the reference sequence alone instead of all sequences as independent samples",
            f"batches of {t.batch} instead of {full.training.batch}, rate {t.rate:g} instead of {full.training.rate:g}",
            "mirrors, small rotations and zoom instead of quarter turns",
        ]
    )


def _create_training(
    preset: SegmentationPreset, network: SegmentationNetworkSettings, **changes
) -> SegmentationTrainingConfig:
    return replace(preset.training, network=network, **changes)


def create_mignet_run(
    name: str, preset: SegmentationPreset, input_channels: int = 1, **switches: bool
) -> SegmentationRun:
    """Create a run of MIG-Net; switches (fpg, guidance, iag) that are not given are on."""
    fpg, guidance, iag = (switches.get(name, True) for name in ("fpg", "guidance", "iag"))
    network = MIGNetSettings(input_channels, fpg, guidance, iag, size=preset.swin_size)
    return SegmentationRun(name, _create_training(preset, network), preset.rule)


def create_comparison_run(
    architecture: str, preset: SegmentationPreset, input_channels: int = 1
) -> SegmentationRun:
    """Create a run of a comparison network with MIG-Net's training; nnU-Net has its own published optimiser."""
    if architecture != "nnU-Net 2-D":
        network = ComparisonSegmentationSettings(architecture, input_channels, preset.comparison_width)
        return SegmentationRun(architecture, _create_training(preset, network), preset.rule)
    network = ComparisonSegmentationSettings(architecture, input_channels, preset.nnunet_width)
    recipe = {"optimiser": "sgd", "rate": 1e-2, "weight_decay": 3e-5, "largest_gradient": 12.0}
    return SegmentationRun(architecture, _create_training(preset, network, **recipe), preset.rule)


def list_table_3_1_runs(preset: SegmentationPreset) -> list[SegmentationRun]:
    """List the runs of table 3-1: the comparison networks, then MIG-Net."""
    comparison_runs = {name: create_comparison_run(name, preset) for name in COMPARISON_NETWORKS}
    comparison_runs[SWIN_UNET] = create_mignet_run(SWIN_UNET, preset, **ALL_SWITCHES_OFF)
    comparison_runs[COST_MATCHED_UNET] = replace(
        create_comparison_run("U-Net", replace(preset, comparison_width=preset.cost_matched_width)),
        name=COST_MATCHED_UNET,
    )
    order = ["U-Net", COST_MATCHED_UNET, "TransUNet", SWIN_UNET, "Attention U-Net", "nnU-Net 2-D"]
    return [*(comparison_runs[name] for name in order), create_mignet_run(MIGNET, preset)]


def list_table_3_2_runs(preset: SegmentationPreset) -> list[SegmentationRun]:
    """List the runs of table 3-2: all combinations of the three switches; the first and last are those of table 3-1."""
    return [create_mignet_run(name, preset, **switches) for name, switches in ABLATION_SWITCHES.items()]


def list_table_3_3_runs(preset: SegmentationPreset) -> list[SegmentationRun]:
    """List the runs of table 3-3: MIG-Net of table 3-1, then trained on the first, the second and both cohorts."""
    own = create_mignet_run(MIGNET, preset)
    return [
        own,
        replace(own, name="MIG-Net, first cohort", weights_of=own.name),
        replace(own, name="MIG-Net, second cohort", trained_on=(1,)),
        replace(own, name="MIG-Net, both cohorts", trained_on=(0, 1)),
    ]


# ---- extensions of the published study ----------------------------------------------------------------

REFERENCE_ONLY, SEQUENCE_UNION, JOINT_INPUT = (
    "reference sequence alone",
    "independent, outlines united",
    "joint input",
)


def list_extension_runs(
    preset: SegmentationPreset, sequences: tuple[MRSequence, ...]
) -> list[SegmentationRun]:
    """List the extension runs: each is one named change of MIG-Net with the reference sequence or with joint input."""
    # one of the first two is MIG-Net of the tables and shares its folds
    mignet = replace(
        create_mignet_run(MIGNET if preset.rule == "single" else REFERENCE_ONLY, preset), rule="single"
    )
    union = replace(mignet, name=MIGNET if preset.rule == "union" else SEQUENCE_UNION, rule="union")
    joint_input = replace(create_mignet_run(JOINT_INPUT, preset, input_channels=len(sequences)), rule="joint")

    def change_training(name: str, run: SegmentationRun, **changes) -> SegmentationRun:
        return replace(run, name=name, training=replace(run.training, **changes))

    joint_network = MIGNetSettings(inputs=len(sequences), size=preset.swin_size)
    neighbour_network = replace(joint_network, inputs=3 * len(sequences))
    neighbours = change_training(
        f"{JOINT_INPUT} + neighbouring slices", joint_input, network=neighbour_network, context=1
    )
    unet = ComparisonSegmentationSettings("U-Net", neighbour_network.inputs, preset.comparison_width)
    unet_neighbours = change_training("U-Net, joint input + neighbouring slices", neighbours, network=unet)
    levels = SwinSize(preset.comparison_width, depths=(2,) * 5, heads=(1,) * 5)
    convolutional = replace(neighbour_network, backbone="convolution", size=levels)
    recolour = replace(preset.training.augmentation, recolour=0.5)
    contrast = change_training("any sequence (contrast augmentation)", union, augmentation=recolour)
    flipped = replace(
        unet_neighbours, name=f"{unet_neighbours.name} + flips", flips=True, weights_of=unet_neighbours.name
    )
    small_components_removed = replace(
        flipped, name=f"{flipped.name}, small pieces dropped", smallest_share=MIN_COMPONENT_SHARE
    )
    efficient_unet = replace(unet, architecture="EfficientNet U-Net")
    efficient = change_training(
        "EfficientNet U-Net, joint input + neighbouring slices", neighbours, network=efficient_unet
    )
    small = replace(unet, width=preset.comparison_width // 2)
    student = change_training(
        "student of U-Net, half as wide", unet_neighbours, network=small, distillation=0.5
    )
    return [
        mignet,
        union,
        joint_input,
        change_training(
            f"{JOINT_INPUT} + deep supervision",
            joint_input,
            network=replace(joint_network, deep_supervision=True),
        ),
        neighbours,
        change_training(
            "convolutional backbone, joint input + neighbouring slices", neighbours, network=convolutional
        ),
        unet_neighbours,
        flipped,
        small_components_removed,
        efficient,
        change_training(f"{efficient.name} + ImageNet weights", efficient, imagenet=True),
        change_training("U-Net, half as wide", unet_neighbours, network=small),
        replace(student, teacher=unet_neighbours.name),
        contrast,
        *(
            replace(trial, name=f"{trial.name}, {name} shown", weights_of=trial.name, shown=name)
            for trial in (union, contrast)
            for name in sequences
        ),
    ]


# ---- design choices of MIG-Net, one at a time --------------------------------------------------------


def list_design_choice_runs(preset: SegmentationPreset) -> list[SegmentationRun]:
    """List MIG-Net, then runs that each change one design choice that the published text leaves open."""
    own = create_mignet_run(MIGNET, preset)
    network = MIGNetSettings(size=preset.swin_size)
    open_gates, pass_through = (
        replace(network, gates_start="open"),
        replace(network, guidance_start="pass-through"),
    )
    changes = {
        "grading weight 0": replace(own.training, grading_weight=0.0),
        "grading weight 0.05": replace(own.training, grading_weight=0.05),
        "gates start open": replace(own.training, network=open_gates),
        "guidance starts passing through": replace(own.training, network=pass_through),
    }
    return [
        own,
        *(SegmentationRun(f"{MIGNET}, {name}", training, own.rule) for name, training in changes.items()),
    ]


# ---- shipped recipe -----------------------------------------------------------------------------------

SHIPPED_EPOCHS = 14


def create_shipped_runs(sequence_count: int) -> list[SegmentationRun]:
    """Create the runs of the demonstration recipe for a number of sequences; the last one is shipped."""
    plain = SegmentationRun(
        "shipped network", create_pretrained_segmentation_config(sequence_count, SHIPPED_EPOCHS), "joint"
    )
    flipped = replace(plain, name=f"{plain.name} + flips", flips=True, weights_of=plain.name)
    finer = replace(flipped, name=f"{flipped.name}, finer pixels", read_pool=INFERENCE_POOLING_FACTOR)
    small_components_removed = replace(
        finer, name=f"{finer.name}, small pieces dropped", smallest_share=MIN_COMPONENT_SHARE
    )
    return [plain, flipped, finer, small_components_removed]
