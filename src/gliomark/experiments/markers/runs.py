"""Chapter 4's experiments as data: networks to train and scoring methods.

A run is a network and its training. A scoring method turns its output into a probability (softmax, LightGBM on its
vectors, mean of two networks). A table is a list of methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from gliomark.experiments.config import get_preset
from gliomark.models import registry
from gliomark.models.card import TreeFeatures
from gliomark.models.entries import MarkerEntry, MarkerLoss, NetworkSettings, Recipe
from gliomark.models.network_io import ALL_CHANNELS
from gliomark.models.published.kinet import SMALL_KINET_SIZE, KiNetSettings, KiNetSize
from gliomark.models.registry import get_marker_entry
from gliomark.study import MRSequence
from gliomark.training.augmentation import GENTLE_AUGMENTATION, Augmentation
from gliomark.training.markers import MarkerTrainingConfig, create_marker_config

KINET = "KiNet"
KINET_WITH_LEARNT_LOSS = "KiNet, learnt loss weights"
LESION_POOLED_FEATURES = "KiNet, light (frozen ImageNet trunk)"
# the same pooling in the lesion with random weights: what is due to the pooling and what to ImageNet
RANDOM_TRUNK_FEATURES = "KiNet, light (frozen random trunk)"
# networks of the registry whose runs are listed below, some under other names
LISTED_NETWORKS = (
    "KiNet",
    "ResNet-50",
    "Middle fusion",
    "ResNeSt-50",
    "CentralNet",
    "Lesion-pooled features",
)
INPUT_CHANNELS: Mapping[str, tuple[int, ...]] = {"IMG": (0,), "ROI": (1,), "MIX": (0, 1)}
ABLATION_SWITCHES = ("bms", "merge_in", "metadata")


@dataclass(frozen=True)
class MarkerRun:
    """A network and its training.

    stacked: whether trees are fitted on its out-of-fold vectors, which requires ten more networks.
    """

    name: str
    training: MarkerTrainingConfig
    stacked: bool = False

    @property
    def depends_on(self) -> tuple[str, ...]:
        """No networks of other runs are needed."""
        return ()


ScoringStage = Literal["softmax", "LightGBM", "logistic", "clinical", "radiomics"]


@dataclass(frozen=True)
class ScoringMethod:
    """How patients are scored.

    run_names: runs whose networks are used; several are averaged. stage: "softmax" for the network's own probability;
    "LightGBM" and "logistic" (regression) on the ``tree_features`` of its vectors and, with ``uses_clinical_data``, age
    and sex; "clinical" for age and sex alone; "radiomics" for LightGBM on features of the segmented lesion.
    """

    name: str
    run_names: tuple[str, ...] = ()
    stage: ScoringStage = "softmax"
    uses_clinical_data: bool = True
    tree_features: TreeFeatures = "vector"


@dataclass(frozen=True)
class MarkerPreset:
    """Network size, augmentation and length of training; reductions: what is smaller than published, in words.

    recipe: of the networks that the thesis does not name; largest_epoch: as in ``MarkerTrainingConfig``.
    """

    network_size: KiNetSize
    augmentation: Augmentation
    learning_rate: float
    epochs: int
    reductions: str
    recipe: Recipe
    largest_epoch: int | None = None


PRESETS: Mapping[str, MarkerPreset] = {
    "published": MarkerPreset(KiNetSize(), Augmentation(), 4e-5, 100, "none", "published"),
    "quick": MarkerPreset(
        SMALL_KINET_SIZE,
        GENTLE_AUGMENTATION,
        1e-3,
        12,
        "every network one block per stage and 32 to 96 channels (0.03 to 0.11 million parameters), pixels averaged "
        "2 x 2, 12 epochs of at most 2000 slices at a rate of 1e-3, small rotations instead of quarter turns; "
        "lesion-pooled features are not reduced",
        "small",
        2000,
    ),
}


def get_marker_preset(preset_name: str) -> MarkerPreset:
    """Return a preset by name.

    Raises
    ------
    ConfigurationError
        If the preset is unknown.
    """
    return get_preset(PRESETS, preset_name)


def _create_comparison_run(
    preset: MarkerPreset, run_name: str, network_name: str, channels: tuple[int, ...] = ALL_CHANNELS
) -> MarkerRun:
    entry = get_marker_entry(network_name)
    network = replace(entry.recipes["published"], channels=channels, size=preset.network_size)
    return MarkerRun(run_name, _create_training(preset, network, entry.loss))


def _create_kinet_run(
    preset: MarkerPreset, run_name: str, uses_bms_loss: bool, uses_merge_in: bool
) -> MarkerRun:
    network = KiNetSettings(merge_in=uses_merge_in, size=preset.network_size)
    loss: MarkerLoss = "bms" if uses_bms_loss else "cross-entropy"
    return MarkerRun(run_name, _create_training(preset, network, loss), stacked=True)


def _create_training(
    preset: MarkerPreset, network: NetworkSettings, loss: MarkerLoss
) -> MarkerTrainingConfig:
    return MarkerTrainingConfig(
        network,
        preset.augmentation,
        loss,
        rate=preset.learning_rate,
        epochs=preset.epochs,
        largest_epoch=preset.largest_epoch,
    )


def format_input_name(sequence: MRSequence, channels: str) -> str:
    """Format the name of a run of table 4-2."""
    return f"{sequence}, {channels}"


def list_table_4_2_runs(preset: MarkerPreset, sequences: Sequence[MRSequence]) -> list[MarkerRun]:
    """List the runs of table 4-2: ResNet-50 on one sequence, with the slice, the lesion alone, or both."""
    return [
        _create_comparison_run(
            preset, format_input_name(sequence, name), "ResNet-50", tuple(2 * number + c for c in channels)
        )
        for number, sequence in enumerate(sequences)
        for name, channels in INPUT_CHANNELS.items()
    ]


EARLY_FUSION, LATE_FUSION, MIDDLE_FUSION = "early fusion", "late fusion", "middle fusion"


def list_table_4_3_runs(preset: MarkerPreset, sequences: Sequence[MRSequence]) -> list[MarkerRun]:
    """List the runs of table 4-3: ResNet-50 on two sequences; late fusion uses the networks of table 4-2."""
    mixes = [t for t in list_table_4_2_runs(preset, sequences) if t.name.endswith("MIX")]
    early = _create_comparison_run(preset, EARLY_FUSION, "ResNet-50")
    middle = _create_comparison_run(preset, MIDDLE_FUSION, "Middle fusion")
    return [*mixes, early, middle]


def list_table_4_3_methods(sequences: Sequence[MRSequence]) -> list[ScoringMethod]:
    """List the methods of table 4-3: early, late (mean of one network per sequence) and middle fusion."""
    late = ScoringMethod(LATE_FUSION, tuple(format_input_name(sequence, "MIX") for sequence in sequences))
    return [
        ScoringMethod(EARLY_FUSION, (EARLY_FUSION,)),
        late,
        ScoringMethod(MIDDLE_FUSION, (MIDDLE_FUSION,)),
    ]


def list_table_4_4_runs(preset: MarkerPreset) -> list[MarkerRun]:
    """List the runs of table 4-4, all with the four input channels of Merge-IN: those of the thesis, then all others.

    ResNet-50 is the early fusion of table 4-3. KiNet is also trained with learnt weights of its loss, to check whether
    they end near the published ones.
    """
    kinet = _create_kinet_run(preset, KINET, uses_bms_loss=True, uses_merge_in=True)
    return [
        _create_comparison_run(preset, EARLY_FUSION, "ResNet-50"),
        _create_comparison_run(preset, "ResNeSt-50", "ResNeSt-50"),
        _create_comparison_run(preset, "CentralNet", "CentralNet"),
        kinet,
        replace(
            kinet,
            name=KINET_WITH_LEARNT_LOSS,
            training=replace(kinet.training, loss="learnt bms"),
            stacked=False,
        ),
        MarkerRun(LESION_POOLED_FEATURES, create_marker_config("pretrained"), stacked=True),
        MarkerRun(RANDOM_TRUNK_FEATURES, replace(create_marker_config("pretrained"), imagenet=False)),
        *(
            MarkerRun(entry.name, _create_training(preset, entry.recipes[preset.recipe], entry.loss))
            for entry in _list_further_entries()
            if preset.recipe in entry.recipes
        ),
    ]


def _list_further_entries() -> list[MarkerEntry[Any]]:
    """List the networks of the registry that no published table names."""
    return [entry for entry in registry.MARKER_NETWORKS if entry.name not in LISTED_NETWORKS]


KINET_WITH_LIGHTGBM = ScoringMethod("KiNet + LightGBM", (KINET,), "LightGBM")


def list_table_4_4_methods(preset: MarkerPreset) -> list[ScoringMethod]:
    """List the methods of table 4-4: every network's softmax, and KiNet with its second stage, as published."""
    _, *names = [run.name for run in list_table_4_4_runs(preset)]
    network_only_methods = [ScoringMethod(name, (name,)) for name in names]
    return [ScoringMethod("ResNet-50", (EARLY_FUSION,)), *network_only_methods, KINET_WITH_LIGHTGBM]


def format_ablation_name(uses_bms_loss: bool, uses_merge_in: bool) -> str:
    """Format the name of a run of table 4-5; with both switches on it is KiNet itself."""
    switched_off = [name for name, on in (("BMS loss", uses_bms_loss), ("Merge-IN", uses_merge_in)) if not on]
    return f"{KINET} without {' and '.join(switched_off)}" if switched_off else KINET


def list_table_4_5_runs(preset: MarkerPreset) -> list[MarkerRun]:
    """List the runs of table 4-5: BMS loss and Merge-IN, each on and off."""
    return [
        _create_kinet_run(preset, format_ablation_name(bms, merge), bms, merge)
        for bms in (False, True)
        for merge in (False, True)
    ]


def list_table_4_5_methods() -> dict[ScoringMethod, tuple[bool, bool, bool]]:
    """List the methods of table 4-5 with their switches: BMS loss, Merge-IN, clinical data.

    Without clinical data, LightGBM uses the vectors alone.
    """
    rows = {}
    for bms in (False, True):
        for merge in (False, True):
            for metadata in (False, True):
                switched_on = [
                    n
                    for n, s in zip(("BMS", "Merge-IN", "metadata"), (bms, merge, metadata), strict=True)
                    if s
                ]
                method = ScoringMethod(
                    " + ".join(switched_on) or "none",
                    (format_ablation_name(bms, merge),),
                    "LightGBM",
                    metadata,
                )
                rows[method] = (bms, merge, metadata)
    return rows


def list_comparison_methods() -> list[ScoringMethod]:
    """List the methods of the marker comparison: variants of KiNet's second stage, radiomics, and age and sex alone."""
    kinet, lesion_pooled = (KINET,), (LESION_POOLED_FEATURES,)
    return [
        ScoringMethod("KiNet, its own softmax", kinet),
        replace(KINET_WITH_LIGHTGBM, name="KiNet's vector, LightGBM", uses_clinical_data=False),
        replace(KINET_WITH_LIGHTGBM, name="KiNet's vector, age and sex, LightGBM (as published)"),
        replace(
            KINET_WITH_LIGHTGBM, name="KiNet's log-odds, age and sex, LightGBM", tree_features="log-odds"
        ),
        ScoringMethod(
            "KiNet's log-odds, age and sex, logistic regression", kinet, "logistic", True, "log-odds"
        ),
        replace(
            KINET_WITH_LIGHTGBM,
            name="KiNet's log-odds, the lesion's figures, age and sex, LightGBM",
            tree_features="lesion",
        ),
        ScoringMethod(
            "KiNet's log-odds, the lesion's figures, age and sex, logistic regression",
            kinet,
            "logistic",
            True,
            "lesion",
        ),
        ScoringMethod(f"{LESION_POOLED_FEATURES}, its own softmax", lesion_pooled),
        ScoringMethod(f"{RANDOM_TRUNK_FEATURES}, its own softmax", (RANDOM_TRUNK_FEATURES,)),
        ScoringMethod(
            f"{LESION_POOLED_FEATURES}: its vector, age and sex, LightGBM", lesion_pooled, "LightGBM"
        ),
        ScoringMethod(
            f"{LESION_POOLED_FEATURES}: its log-odds, age and sex, LightGBM",
            lesion_pooled,
            "LightGBM",
            True,
            "log-odds",
        ),
        ScoringMethod(
            f"{LESION_POOLED_FEATURES}: its log-odds, the lesion's figures, age and sex, logistic regression",
            lesion_pooled,
            "logistic",
            True,
            "lesion",
        ),
        ScoringMethod("radiomics, LightGBM", (), "radiomics", False),
        ScoringMethod("radiomics, age and sex, LightGBM", (), "radiomics"),
        ScoringMethod("age and sex, logistic regression", (), "clinical"),
    ]
