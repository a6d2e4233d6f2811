"""Tables 3-1, 3-2 and 3-3 and what goes beyond them: from the folds of named trials to csv files."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import wilcoxon
from torch.utils.flop_counter import FlopCounterMode

from gliomark.cohort.folds import FOLDS, cohort_folds
from gliomark.cohort.store import Cohort, write_json
from gliomark.evaluation.intervals import bootstrap
from gliomark.evaluation.metrics import auc
from gliomark.experiments.place import Place, cohort_name
from gliomark.experiments.records import run_record, write_table
from gliomark.experiments.segmentation.figures import draw_figures, figure_3_1, mean_prior
from gliomark.experiments.segmentation.study import (
    FoldJob,
    Trial,
    fold_key,
    judge,
    outlined,
    run_trials,
    trial_segmenter,
)
from gliomark.experiments.segmentation.trials import (
    MIGNET,
    PUBLISHED_3_1,
    PUBLISHED_3_2,
    PUBLISHED_3_3,
    SWIN_UNET,
    cuts,
    preset_setting,
    trials_3_1,
    trials_3_2,
    trials_3_3,
    trials_beyond,
    trials_choices,
    trials_shipped,
)
from gliomark.inference.segmenter import seen_sequences
from gliomark.models.segmentation_networks import build_segmentation_network
from gliomark.models.weights import load_weights
from gliomark.study import GliomarkError
from gliomark.training.recipes import cohort_sequences
from gliomark.training.segmentation import SegmentationTraining

SCORES = (
    "dice",
    "dice_per_lesion_slice",
    "sensitivity",
    "hausdorff_pixels",
    "hausdorff_95_pixels",
    "hausdorff_mm",
    "hausdorff_95_mm",
)
GRADING = ("high_grade", "high_grade_probability")
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
                    **{n: np.nan if row[n] is None else float(row[n]) for n in (*SCORES, *GRADING)},
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
    return row | _grading(patients)


def _grading(patients: pd.DataFrame) -> dict[str, float]:
    """The auxiliary task, over patients of known grade: accuracy at 0.5 and AUC, each with its interval."""
    known = patients.dropna(subset=list(GRADING))
    label, probability = (known[name].to_numpy(float) for name in GRADING)
    row: dict[str, float] = {"graded_patients": len(known)}
    for name, score in {"grading_accuracy": _accuracy, "grading_auc": auc}.items():
        value, low, high = bootstrap(score, label, probability) if len(known) else (np.nan,) * 3
        row |= {name: value, f"{name}_low_95": low, f"{name}_high_95": high}
    return row


def _accuracy(label: np.ndarray, probability: np.ndarray) -> float:
    return float(np.mean((probability >= 0.5) == (label == 1)))


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


@functools.cache
def cost(settings: SegmentationTraining, pool: float, repeats: int = 5) -> dict[str, float]:
    """Parameters (millions), multiply-adds doubled (GFLOP) and time on this machine, of one look at one slice's
    tile read at that pooling."""
    network = build_segmentation_network(settings.network).eval()
    side = round(settings.augmentation.crop / pool)
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
        rows.append({**row, **cost(trial.training, trial.pool)})
    return pd.DataFrame(rows)


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
    path = _write("table_3_1", trials, result, patients, records, place)
    for figure in draw_figures(trials[-1], trials, place.cohorts[0], patients, place.out):
        place.say(str(figure))
    return path


def run_table_3_2(place: Place) -> Path:
    """FPG, guidance and IAG, each on and off."""
    trials = trials_3_2(preset_setting(place.preset))
    patients, records = _run(trials, place)
    result = table(trials, patients, [SWIN_UNET], place.names[0])
    result.insert(2, "published_dice", result["trial"].map(PUBLISHED_3_2) / 100)
    for number, switch in enumerate(("fpg", "guidance", "iag")):
        result.insert(1 + number, switch, [getattr(t.training.network, switch) for t in trials])
    return _write("table_3_2", trials, result, patients, records, place)


def _run(trials: Sequence[Trial], place: Place, folds: int = 0) -> tuple[pd.DataFrame, list[dict]]:
    place.say(f"preset {place.preset}: {cuts(place.preset)}")
    records = run_trials(trials, place.cohorts, place.work, place.say, place.workers, place.scheduler, folds)
    return patients_table(records, place.names), records


def _write(
    name: str,
    trials: Sequence[Trial],
    result: pd.DataFrame,
    patients: pd.DataFrame,
    records: Sequence[dict],
    place: Place,
) -> Path:
    """The table, its patients and its run record; every row says under which preset it was made, and on which
    sequences (those of the first trial)."""
    prepared = cohort_sequences(Cohort(place.cohorts[0]))
    said = {
        "folds": len({r["key"]["fold"] for r in records}),
        "preset": place.preset,
        "cuts": cuts(place.preset),
        "sequences": "+".join(seen_sequences(prepared, trials[0].rule)),
    }
    speeds = [r for r in records if r["slices_per_second"] > 0]
    by_trial = {t.name: [r for r in speeds if r["key"]["trial"]["name"] == t.name] for t in trials}
    for column in ("slices_per_second", "waiting_share"):
        means = {n: np.mean([r[column] for r in part]) if part else np.nan for n, part in by_trial.items()}
        result[f"training_{column}"] = result["trial"].map(means)
    write_table(result.assign(**said), place.out / f"{name}.csv")
    write_table(patients, place.out / f"{name}_patients.csv")
    record = run_record(
        name,
        **said
        | {
            "cohorts": place.names,
            "folds_sha256": [cohort_folds(Cohort(folder)).sha256 for folder in place.cohorts],
            "trials": [asdict(trial) for trial in trials],
            "training_seconds": sum(r["seconds"] for r in records),
            "folds": [
                {k: v for k, v in r.items() if k not in ("patients", "key")} | _where(r) for r in records
            ],
            "splits": [r["key"]["splits"] for r in records if r["key"]["trial"]["name"] == trials[0].name],
        },
    )
    write_json(place.out / f"{name}_run_record.json", record)
    return place.out / f"{name}.csv"


def _where(record: dict) -> dict:
    return {"trial": record["key"]["trial"]["name"], "fold": record["key"]["fold"]}


def run_table_3_3(place: Place, also: Sequence[Path] = ()) -> Path:
    """MIG-Net trained on one cohort, on the other, on both; tested on either, and on ``also`` besides.

    Fold k of one is tested on fold k of the other too, so that every patient is judged once per trial. also:
    cohorts that nobody trains on; each is judged by the networks of the first fold.
    Raises GliomarkError where the second cohort is missing, has other sequences or the first one's name, or where
    a cohort has no outlines.
    """
    if len(place.cohorts) != 2:
        raise GliomarkError("Table 3-3 crosses two cohorts: name the other one with --second-cohort.")
    setting = preset_setting(place.preset)
    _check_together(place, also, setting.rule)
    own, *trials = trials_3_3(setting)
    # alone, as table 3-1 has it: its folds are the same
    run_trials([own], place.cohorts[:1], place.work, place.say, place.workers, place.scheduler)
    patients, records = _run(trials, place)
    patients = pd.concat([patients, *_elsewhere(trials, place, also)], ignore_index=True)
    tested = [*place.names, *map(cohort_name, also)]
    result = pd.concat([table(trials, patients, (), name) for name in tested], ignore_index=True)
    trained_on = dict(zip([t.name for t in trials], ("own", "other", "both"), strict=True))
    places = dict(zip(place.names, ("own", "other"), strict=True))
    published = [
        PUBLISHED_3_3.get((trained_on[trial], places.get(name, "")), np.nan) / 100
        for trial, name in zip(result["trial"], result["tested_on"], strict=True)
    ]
    result.insert(2, "published_dice", published)
    path = _write("table_3_3", trials, result, patients, records, place)
    jobs = [[FoldJob(t, k, place.cohorts, place.work) for k in range(FOLDS)] for t in (own, trials[1])]
    priors = {name: mean_prior(one) for name, one in zip(place.names, jobs, strict=True)}
    place.say(str(figure_3_1(priors, place.out / "figure_3_1_cohorts.png")))
    return path


def _check_together(place: Place, also: Sequence[Path], rule: str) -> None:
    """Raise GliomarkError where cohorts that are judged together cannot be."""
    folders = (*place.cohorts, *also)
    names = [cohort_name(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise GliomarkError(f"Two of the cohorts have the same name ({', '.join(names)}); rename a folder.")
    for folder in folders:
        outlined(Cohort(folder))
    seen = [seen_sequences(cohort_sequences(Cohort(folder)), rule) for folder in folders]
    if len(set(seen)) > 1:
        raise GliomarkError(
            f"The cohorts were prepared for different sequences ({'; '.join('+'.join(s) for s in seen)}); "
            "build them with the same --sequences."
        )


def _elsewhere(trials: Sequence[Trial], place: Place, also: Sequence[Path]) -> Iterator[pd.DataFrame]:
    """The first fold's networks on cohorts that none was trained on."""
    for trial, folder in product(trials, also):
        job, cohort = FoldJob(trial, 0, place.cohorts, place.work), Cohort(folder)
        segmenter = trial_segmenter(trial, load_weights(job.weights_path(trial.weights_of)))
        rows = [{"cohort": 0, "patient": p, **judge(segmenter, cohort, p)} for p in outlined(cohort)]
        yield patients_table([{"key": fold_key(job), "patients": rows}], [cohort_name(folder)])


def run_beyond(place: Place) -> Path:
    """What the published study lacks, each as a named change with its line."""
    sequences = cohort_sequences(Cohort(place.cohorts[0]))
    setting = preset_setting(place.preset)
    trials = [*trials_beyond(setting, sequences), *trials_choices(setting)[1:]]
    patients, records = _run(trials, place, setting.folds_beyond)
    result = table(trials, patients, [trials[0].name], place.names[0])
    result.insert(1, "rule", [trial.rule for trial in trials])
    return _write("segmentation_beyond", trials, result, patients, records, place)


def shipped_trials(cohort: Cohort) -> list[Trial]:
    """The demonstration weights' recipe and its readings on a cohort."""
    return trials_shipped(len(cohort_sequences(cohort)))


def run_shipped(place: Place, also: Sequence[Path] = ()) -> pd.DataFrame:
    """The demonstration weights' recipe in five folds; the last row of a cohort is how it is shipped.

    also: cohorts that nobody trains on, judged by the first fold's network.
    """
    trials = shipped_trials(Cohort(place.cohorts[0]))
    _check_together(place, also, trials[0].rule)
    patients, records = _run(trials, place)
    patients = pd.concat([patients, *_elsewhere(trials, place, also)], ignore_index=True)
    own = table(trials, patients, [trials[0].name], place.names[0])
    result = pd.concat([own, *(table(trials, patients, (), name) for name in map(cohort_name, also))])
    _write("segmentation", trials, result, patients, records, place)
    return result
