"""Chapter 3's experiments as data: presets, and one named run per row of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from gliomark.cohort.folds import FOLD_COUNT
from gliomark.experiments.config import get_preset
from gliomark.experiments.segmentation.procedure import SegmentationRun
from gliomark.models import registry
from gliomark.models.entries import Recipe, SegmentationSettings
from gliomark.models.published.mignet import MIGNetSettings
from gliomark.models.published.swin_unet import SwinSize
from gliomark.models.registry import get_segmentation_entry
from gliomark.study import MRSequence
from gliomark.training.augmentation import GENTLE_AUGMENTATION
from gliomark.training.segmentation import (
    INFERENCE_POOLING_FACTOR,
    MIN_COMPONENT_SHARE,
    SegmentationTrainingConfig,
    apply_training_defaults,
    create_segmentation_config,
)

Preset = Literal["published", "quick"]
MIGNET, SWIN_UNET, COST_MATCHED_UNET = "MIG-Net", "Swin-UNet", "U-Net of Swin-UNet's size"
# used instead of a preset for the demonstration recipe
SHIPPED_PRESET = "shipped"
ALL_SWITCHES_OFF = {"fpg": False, "guidance": False, "iag": False}
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
# networks whose name in results and work folders is not that of the registry
RUN_NAMES = {"nnU-Net": "nnU-Net 2-D"}


@dataclass(frozen=True)
class SegmentationPreset:
    """Settings shared by all runs of a preset.

    training: training settings; recipe: recipe whose settings the networks have; cost_matched_width: width of a U-Net
    with as many operations per slice as Swin-UNet; rule: as in ``SegmentationRun``; ablation_folds,
    extension_folds: numbers of folds for the ablation and for the extensions of the published study.
    """

    training: SegmentationTrainingConfig
    recipe: Recipe
    cost_matched_width: int
    rule: str
    ablation_folds: int = FOLD_COUNT
    extension_folds: int = FOLD_COUNT

    def get_network(self, name: str) -> Any:
        """Return the settings of a network of the registry."""
        return get_segmentation_entry(name).recipes[self.recipe]


PRESETS: Mapping[str, SegmentationPreset] = {
    "published": SegmentationPreset(SegmentationTrainingConfig(), "published", 24, "union"),
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
        "small",
        10,
        "single",
        ablation_folds=3,
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
    return get_preset(PRESETS, preset_name)


def describe_reductions(preset_name: str) -> str:
    """Describe in words what a preset reduces compared with the published setting; "none" for nothing."""
    if preset_name == SHIPPED_PRESET:
        return "none: the demonstration weights' own recipe"
    preset, full = get_segmentation_preset(preset_name), PRESETS["published"]
    t = preset.training
    if preset == full:
        return "none"
    width, full_width, nnunet_width = (
        p.get_network(name).width for p, name in ((preset, "U-Net"), (full, "U-Net"), (full, "nnU-Net"))
    )
    swin, full_swin = (p.get_network(SWIN_UNET).size for p in (preset, full))
    return "; ".join(
        [
            f"slices averaged to {240 / t.pool:g}x{240 / t.pool:g} pixels",
            f"{t.epochs} epochs of {t.slices_per_patient} slices per patient instead of at most "
            f"{full.training.epochs} of {full.training.slices_per_patient}",
            f"first-level width {width} instead of {full_width} (nnU-Net {nnunet_width}), Swin embedding "
            f"{swin.embedding} instead of {full_swin.embedding} after a convolutional stem, windows of {swin.window} "
            f"instead of {full_swin.window}",
            "the reference sequence alone instead of all sequences as independent samples",
            f"batches of {t.batch} instead of {full.training.batch}, rate {t.rate:g} instead of {full.training.rate:g}",
            "mirrors, small rotations and zoom instead of quarter turns",
        ]
    )


def _create_training(
    preset: SegmentationPreset, network: SegmentationSettings, **changes: Any
) -> SegmentationTrainingConfig:
    return replace(preset.training, network=network, **changes)


def create_mignet_run(
    name: str, preset: SegmentationPreset, input_channels: int = 1, **switches: bool
) -> SegmentationRun:
    """Create a run of MIG-Net; switches (fpg, guidance, iag) that are not given are on."""
    fpg, guidance, iag = (switches.get(name, True) for name in ("fpg", "guidance", "iag"))
    network = MIGNetSettings(input_channels, fpg, guidance, iag, size=preset.get_network(MIGNET).size)
    return SegmentationRun(name, _create_training(preset, network), preset.rule)


def create_comparison_run(name: str, preset: SegmentationPreset, **network_changes: int) -> SegmentationRun:
    """Create a run of a network of the registry with MIG-Net's training, but for what its entry prescribes.

    network_changes: settings of the network that differ from the preset's recipe.
    """
    entry = get_segmentation_entry(name)
    network = replace(preset.get_network(entry.name), **network_changes)
    training = apply_training_defaults(_create_training(preset, network), entry)
    return SegmentationRun(RUN_NAMES.get(name, name), training, preset.rule)


def list_table_3_1_runs(preset: SegmentationPreset) -> list[SegmentationRun]:
    """List the runs of table 3-1: the networks of the thesis, all others of the registry, then MIG-Net.

    A network that lacks the preset's recipe is left out.
    """
    cost_matched = create_comparison_run("U-Net", preset, width=preset.cost_matched_width)
    thesis_runs = [
        create_comparison_run("U-Net", preset),
        replace(cost_matched, name=COST_MATCHED_UNET),
        create_comparison_run("TransUNet", preset),
        create_mignet_run(SWIN_UNET, preset, **ALL_SWITCHES_OFF),
        create_comparison_run("Attention U-Net", preset),
        create_comparison_run("nnU-Net", preset),
    ]
    listed = {MIGNET, *RUN_NAMES, *(run.name for run in thesis_runs)}
    others = [
        create_comparison_run(entry.name, preset)
        for entry in registry.SEGMENTATION_NETWORKS
        if entry.name not in listed and preset.recipe in entry.recipes
    ]
    return [*thesis_runs, *others, create_mignet_run(MIGNET, preset)]


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
    joint_network = MIGNetSettings(inputs=len(sequences), size=preset.get_network(MIGNET).size)
    deeply_supervised = replace(joint_network, deep_supervision=True)
    neighbour_network = replace(joint_network, inputs=3 * len(sequences))
    neighbours = _change_training(
        f"{JOINT_INPUT} + neighbouring slices", joint_input, network=neighbour_network, context=1
    )
    levels = SwinSize(preset.get_network("U-Net").width, depths=(2,) * 5, heads=(1,) * 5)
    convolutional = replace(neighbour_network, backbone="convolution", size=levels)
    recolour = replace(preset.training.augmentation, recolour=0.5)
    contrast = _change_training("any sequence (contrast augmentation)", union, augmentation=recolour)
    return [
        mignet,
        union,
        joint_input,
        _change_training(f"{JOINT_INPUT} + deep supervision", joint_input, network=deeply_supervised),
        neighbours,
        _change_training(
            "convolutional backbone, joint input + neighbouring slices", neighbours, network=convolutional
        ),
        *_list_unet_extension_runs(preset, neighbours),
        contrast,
        *(
            replace(trial, name=f"{trial.name}, {name} shown", weights_of=trial.name, shown=name)
            for trial in (union, contrast)
            for name in sequences
        ),
    ]


def _list_unet_extension_runs(
    preset: SegmentationPreset, neighbours: SegmentationRun
) -> list[SegmentationRun]:
    """List the runs of U-Net and EfficientNet U-Net in place of MIG-Net with joint input and neighbouring slices."""
    unet = replace(preset.get_network("U-Net"), inputs=neighbours.training.network.inputs)
    plain = _change_training("U-Net, joint input + neighbouring slices", neighbours, network=unet)
    flipped = replace(plain, name=f"{plain.name} + flips", flips=True, weights_of=plain.name)
    small_components_removed = replace(
        flipped, name=f"{flipped.name}, small pieces dropped", smallest_share=MIN_COMPONENT_SHARE
    )
    pretrained_unet = get_segmentation_entry("EfficientNet U-Net").recipes["pretrained"]
    efficient_unet = replace(pretrained_unet, inputs=unet.inputs, width=unet.width)
    efficient = _change_training(
        "EfficientNet U-Net, joint input + neighbouring slices", neighbours, network=efficient_unet
    )
    half = replace(unet, width=unet.width // 2)
    student = _change_training("student of U-Net, half as wide", plain, network=half, distillation=0.5)
    return [
        plain,
        flipped,
        small_components_removed,
        efficient,
        _change_training(f"{efficient.name} + ImageNet weights", efficient, imagenet=True),
        _change_training("U-Net, half as wide", plain, network=half),
        replace(student, teacher=plain.name),
    ]


def _change_training(name: str, run: SegmentationRun, **changes: Any) -> SegmentationRun:
    return replace(run, name=name, training=replace(run.training, **changes))


# ---- design choices of MIG-Net, one at a time --------------------------------------------------------


def list_design_choice_runs(preset: SegmentationPreset) -> list[SegmentationRun]:
    """List MIG-Net, then runs that each change one design choice that the published text leaves open."""
    own = create_mignet_run(MIGNET, preset)
    network = MIGNetSettings(size=preset.get_network(MIGNET).size)
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
        "shipped network", create_segmentation_config("pretrained", sequence_count, SHIPPED_EPOCHS), "joint"
    )
    flipped = replace(plain, name=f"{plain.name} + flips", flips=True, weights_of=plain.name)
    finer = replace(flipped, name=f"{flipped.name}, finer pixels", read_pool=INFERENCE_POOLING_FACTOR)
    small_components_removed = replace(
        finer, name=f"{finer.name}, small pieces dropped", smallest_share=MIN_COMPONENT_SHARE
    )
    return [plain, flipped, finer, small_components_removed]
