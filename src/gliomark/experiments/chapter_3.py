"""Tables 3-1, 3-2 and 3-3, and what goes beyond them: which trials, and how their folds become csv files."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from scipy.stats import wilcoxon
from torch.utils.flop_counter import FlopCounterMode

from gliomark.cohort.folds import cohort_folds
from gliomark.cohort.store import Cohort, write_json
from gliomark.evaluation.intervals import bootstrap
from gliomark.experiments.segmentation_study import Trial, run_trials, seen_sequences
from gliomark.models.mignet import MIGNetSettings
from gliomark.models.segmentation_baselines import BaselineSettings
from gliomark.models.segmentation_networks import NetworkSettings, build_segmentation_network
from gliomark.models.swin_unet import SMALL, SwinSize
from gliomark.study import GliomarkError
from gliomark.training.augmentation import GENTLE
from gliomark.training.recipes import cohort_sequences
from gliomark.training.segmentation import SegmentationTraining

Preset = Literal["published", "quick"]
PACKAGES = ("gliomark", "torch", "monai", "lightning", "numpy", "scipy")
MIGNET, SWIN_UNET = "MIG-Net", "Swin-UNet"
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
    nnU-Net), and how the sequences go in."""

    training: SegmentationTraining
    size: SwinSize
    width: int
    nnunet_width: int
    rule: str


PRESETS: Mapping[str, PresetSetting] = {
    "published": PresetSetting(SegmentationTraining(), SwinSize(), 64, 32, "union"),
    "quick": PresetSetting(
        SegmentationTraining(
            augmentation=GENTLE,
            pool=4,
            rate=1e-3,
            warm_up=0.1,
            largest_gradient=1.0,
            epochs=8,
            validate_every=2,
        ),
        SMALL,
        16,
        16,
        "single",
    ),
}


def preset_setting(name: str) -> PresetSetting:
    """Raises GliomarkError for an unknown preset."""
    if name not in PRESETS:
        raise GliomarkError(f"The preset '{name}' is unknown; it must be one of {', '.join(PRESETS)}.")
    return PRESETS[name]


def cuts(preset: PresetSetting) -> str:
    """In words, what a preset took away from the published setting."""
    t, full = preset.training, PRESETS["published"]
    if preset == full:
        return "none"
    return "; ".join(
        [
            f"slices averaged to {240 // t.pool}x{240 // t.pool} pixels",
            f"{t.epochs} epochs instead of at most {full.training.epochs}",
            f"first-level width {preset.width} instead of {full.width} (nnU-Net {full.nnunet_width}), Swin embedding "
            f"{preset.size.embedding} instead of {full.size.embedding} after a convolutional stem",
            "the reference sequence alone instead of both as independent samples",
            f"rate {t.rate:g} instead of {full.training.rate:g}",
            "mirrors, small rotations and zoom instead of quarter turns",
        ]
    )


def _with(preset: PresetSetting, network: NetworkSettings, **changes) -> SegmentationTraining:
    return replace(preset.training, network=network, **changes)


def mignet_trial(name: str, preset: PresetSetting, inputs: int = 1, **switches: bool) -> Trial:
    """MIG-Net with some switches off, under a name."""
    network = MIGNetSettings(inputs=inputs, size=preset.size, **switches)
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
    swin = mignet_trial(SWIN_UNET, preset, **OFF)
    order = ["U-Net", "TransUNet", SWIN_UNET, "Attention U-Net", "nnU-Net 2-D"]
    return [*({**rivals, SWIN_UNET: swin}[name] for name in order), mignet_trial(MIGNET, preset)]


def trials_3_2(preset: PresetSetting) -> list[Trial]:
    """Every combination of the three switches; the first and the last are table 3-1's."""
    return [mignet_trial(name, preset, **switches) for name, switches in ABLATION.items()]


def trials_3_3(preset: PresetSetting) -> list[Trial]:
    """MIG-Net trained on the first cohort (table 3-1's), on the second, on both."""
    own = mignet_trial(MIGNET, preset)
    return [
        own,
        replace(own, name="MIG-Net, second cohort", trained_on=(1,)),
        replace(own, name="MIG-Net, both cohorts", trained_on=(0, 1)),
    ]


# ---- from folds to tables ---------------------------------------------------------------------------

SCORES = (
    "dice",
    "dice_per_lesion_slice",
    "sensitivity",
    "hausdorff_pixels",
    "hausdorff_95_pixels",
    "hausdorff_mm",
    "hausdorff_95_mm",
)
SMALL_FALSE_AREA = 0.01


def patients_table(records: Sequence[dict], cohorts: Sequence[str]) -> pd.DataFrame:
    """One row per trial, tested cohort and patient: the scores, and what was outlined on lesion-free slices.

    false_area: mean share of the brain outlined on them; small_false_area: share of them under 1 %.
    """
    rows = []
    for record in records:
        for row in record["patients"]:
            free = np.array(row["lesion_free"])
            rows.append(
                {
                    "trial": record["key"]["trial"]["name"],
                    "tested_on": cohorts[row["cohort"]],
                    "fold": record["key"]["fold"],
                    "patient": row["patient"],
                    **{name: row[name] for name in SCORES},
                    "lesion_free_slices": len(free),
                    "false_area": free.mean() if len(free) else np.nan,
                    "small_false_area": (free < SMALL_FALSE_AREA).mean() if len(free) else np.nan,
                }
            )
    return pd.DataFrame(rows)


def summary(patients: pd.DataFrame) -> dict[str, float]:
    """Mean, deviation and 95 % interval over patients of every score; intervals by bootstrap."""
    row: dict[str, float] = {"patients": len(patients)}
    for name in SCORES:
        values = patients[name].to_numpy()
        mean, low, high = bootstrap(_mean, values)
        row |= {name: mean, f"{name}_sd": np.nanstd(values, ddof=1) if len(values) > 1 else np.nan}
        row |= {f"{name}_low_95": low, f"{name}_high_95": high}
    row["dice_median"], row["dice_worst"] = patients["dice"].median(), patients["dice"].min()
    row["without_distance"] = int(patients["hausdorff_mm"].isna().sum())
    slices = patients["lesion_free_slices"]
    row["lesion_free_slices"] = int(slices.sum())
    for name in ("false_area", "small_false_area"):
        row[name] = float((patients[name].fillna(0) * slices).sum() / max(1, slices.sum()))
    return row


def _mean(values: np.ndarray) -> float:
    """Over the patients of whom there is a value."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def paired(own: pd.DataFrame, other: pd.DataFrame) -> dict[str, float]:
    """Dice of the same patients by two trials: mean difference, its interval, Wilcoxon's p (two-sided)."""
    both = (
        own.set_index("patient")["dice"].to_frame("own").join(other.set_index("patient")["dice"], how="inner")
    )
    difference = (both["own"] - both["dice"]).to_numpy()
    mean, low, high = bootstrap(np.mean, difference)
    p = float(wilcoxon(difference).pvalue) if np.any(difference) else 1.0
    return {"difference": mean, "difference_low_95": low, "difference_high_95": high, "wilcoxon_p": p}


def cost(settings: SegmentationTraining, repeats: int = 5) -> dict[str, float]:
    """Parameters (millions), multiply-adds doubled (GFLOP) and time on this machine, of one slice's tile."""
    network = build_segmentation_network(settings.network).eval()
    side = settings.augmentation.crop // settings.pool
    image, theta = torch.zeros(1, settings.network.inputs, side, side), torch.eye(2, 3)[None]
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            network(image, theta)
        times = [_timed(lambda: network(image, theta)) for _ in range(repeats)]
    return {
        "million_parameters": sum(p.numel() for p in network.parameters()) / 1e6,
        "gflop_per_slice": counter.get_total_flops() / 1e9,
        "ms_per_slice": 1000 * float(np.median(times)),
    }


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def table(
    trials: Sequence[Trial],
    patients: pd.DataFrame,
    rivals: Sequence[str],
    tested_on: str,
) -> pd.DataFrame:
    """One row per trial, tested on one cohort: its figures, its cost, and the comparison with the best rival.

    rivals: the trials among which the best (by mean Dice) is what each other one is compared with.
    """
    here = patients[patients["tested_on"] == tested_on]
    own = {trial.name: here[here["trial"] == trial.name] for trial in trials}
    figures = {name: summary(part) for name, part in own.items()}
    rows = []
    for trial in trials:
        others = [name for name in rivals if name != trial.name]
        row = {"trial": trial.name, "tested_on": tested_on, **figures[trial.name]}
        if others:
            best = max(others, key=lambda name: figures[name]["dice"])
            row |= {"compared_with": best, **paired(own[trial.name], own[best])}
        rows.append({**row, **cost(trial.training)})
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Place:
    """Where a table's run reads, writes and works."""

    cohorts: tuple[Path, ...]
    out: Path
    preset: str
    workers: int | None
    scheduler: str | None
    say: Callable[[str], None]

    @property
    def names(self) -> list[str]:
        """The cohorts' names in the tables."""
        return [folder.resolve().name for folder in self.cohorts]


def run_table_3_1(place: Place) -> Path:
    """MIG-Net against U-Net, TransUNet, Swin-UNet, Attention U-Net and nnU-Net's 2-D network."""
    trials = trials_3_1(preset_setting(place.preset))
    patients, records = _run(trials, place)
    result = table(trials, patients, [t.name for t in trials if t.name != MIGNET], place.names[0])
    dice, distance = (
        result["trial"].map(lambda n, i=i: PUBLISHED_3_1.get(n, (np.nan,) * 2)[i]) for i in (0, 1)
    )
    result.insert(2, "published_dice", dice / 100)
    result.insert(3, "published_hausdorff", distance)
    return _write("table_3_1", trials, result, patients, records, place)


def run_table_3_2(place: Place) -> Path:
    """FPG, guidance and IAG, each on and off."""
    trials = trials_3_2(preset_setting(place.preset))
    patients, records = _run(trials, place)
    result = table(trials, patients, [SWIN_UNET], place.names[0])
    result.insert(2, "published_dice", result["trial"].map(PUBLISHED_3_2) / 100)
    for number, switch in enumerate(("fpg", "guidance", "iag")):
        result.insert(1 + number, switch, [getattr(t.training.network, switch) for t in trials])
    return _write("table_3_2", trials, result, patients, records, place)


def _run(trials: Sequence[Trial], place: Place) -> tuple[pd.DataFrame, list[dict]]:
    place.say(f"preset {place.preset}: {cuts(preset_setting(place.preset))}")
    work = place.out / "work"
    records = run_trials(trials, place.cohorts, work, place.say, place.workers, place.scheduler)
    return patients_table(records, place.names), records


def _write(
    name: str,
    trials: Sequence[Trial],
    result: pd.DataFrame,
    patients: pd.DataFrame,
    records: Sequence[dict],
    place: Place,
) -> Path:
    """The table, its patients and its run record; every row says under which preset it was made."""
    setting = preset_setting(place.preset)
    cohort = Cohort(place.cohorts[0])
    said = {
        "preset": place.preset,
        "cuts": cuts(setting),
        "sequences": "+".join(seen_sequences(cohort_sequences(cohort), setting.rule)),
    }
    speeds = [r for r in records if r["slices_per_second"] > 0]
    by_trial = {t.name: [r for r in speeds if r["key"]["trial"]["name"] == t.name] for t in trials}
    for column in ("slices_per_second", "waiting_share"):
        means = {n: np.mean([r[column] for r in part]) if part else np.nan for n, part in by_trial.items()}
        result[f"training_{column}"] = result["trial"].map(means)
    write_table(result.assign(**said), place.out / f"{name}.csv")
    write_table(patients, place.out / f"{name}_patients.csv")
    record = {
        "experiment": name,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "device": _device(),
        **said,
        "cohorts": place.names,
        "folds_sha256": [cohort_folds(Cohort(folder)).sha256 for folder in place.cohorts],
        "trials": [asdict(trial) for trial in trials],
        "training_seconds": sum(r["seconds"] for r in records),
        "folds": [{k: v for k, v in r.items() if k not in ("patients", "key")} | _where(r) for r in records],
        "splits": [r["key"]["splits"] for r in records if r["key"]["trial"]["name"] == trials[0].name],
        "versions": {package: version(package) for package in PACKAGES},
    }
    write_json(place.out / f"{name}_run_record.json", record)
    return place.out / f"{name}.csv"


def _where(record: dict) -> dict:
    return {"trial": record["key"]["trial"]["name"], "fold": record["key"]["fold"]}


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    return done.stdout.strip() or "unknown"


def _device() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {os.cpu_count()} cores"


def write_table(result: pd.DataFrame, path: Path) -> None:
    """Write csv whole or not at all, four decimals (p values three figures)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    if "wilcoxon_p" in result:
        result = result.assign(
            wilcoxon_p=result["wilcoxon_p"].map(lambda p: "" if np.isnan(p) else f"{p:.3g}")
        )
    result.to_csv(part, index=False, float_format="%.4f", lineterminator="\n")
    os.replace(part, path)
