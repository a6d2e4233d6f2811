"""Merge the output of the GPU machine into the committed csv files and their run record.

    python -m gpu.merge_results OUT... RESULTS

OUT: folders with ``pieces.jsonl``, ``speeds.jsonl``, ``answers.jsonl``. Results of the same network, seed and fold in a
later folder replace earlier ones.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from gpu.segmentation_benchmark import FOLDS, NETWORKS, create_training_settings

from gliomark.cohort.store import write_json
from gliomark.evaluation.intervals import bootstrap_interval
from gliomark.experiments import table_3_1, table_3_2
from gliomark.experiments.result_files import write_table
from gliomark.experiments.segmentation.result_tables import (
    SCORE_COLUMNS,
    EvaluatedFold,
    compare_paired_dice,
    summarise_patients,
    tabulate_patients,
)

NAME = "gpu_segmentation"
COMPARED_WITH = "Swin-UNet"
# H100 SXM, bf16 without sparsity, according to the data sheet
PEAK_TFLOPS = 989.4


def read_lines(folders: list[Path], name: str) -> list[dict]:
    """Read all lines of the files of that name in the folders."""
    files = [folder / name for folder in folders if (folder / name).exists()]
    return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines() if line]


def select_finished(folders: list[Path]) -> list[dict]:
    """Select one piece per network, seed and fold, for networks and seeds with all five folds."""
    pieces = {(p["network"], p["seed"], p["fold"]): p for p in read_lines(folders, "pieces.jsonl")}
    finished_keys = {
        key[:2] for key in pieces if all((*key[:2], fold) in pieces for fold in range(1, FOLDS + 1))
    }
    order = list(NETWORKS)
    return sorted(
        (p for key, p in pieces.items() if key[:2] in finished_keys),
        key=lambda p: (order.index(p["network"]), p["seed"], p["fold"]),
    )


def build_patient_table(pieces: list[dict], cohort: str) -> pd.DataFrame:
    """Build a table with one row per network, seed and patient."""
    folds = [
        EvaluatedFold(p["network"], p["fold"], [{"cohort": 0, **row} for row in p["patients"]], p["seed"])
        for p in pieces
    ]
    table = tabulate_patients(folds, [cohort])
    table.insert(1, "seed", table.pop("seed"))
    return table.rename(columns={"trial": "network"})


def build_network_table(patients: pd.DataFrame) -> pd.DataFrame:
    """Build a table with one row per network and seed, compared with Swin-UNet of the same seed in paired tests."""
    rows = []
    for (network, seed), part in patients.groupby(["network", "seed"], sort=False):
        row = {
            "network": network,
            "seed": seed,
            **look_up_published(str(network)),
            **summarise_patients(part),
        }
        comparison_patients = patients[(patients["network"] == COMPARED_WITH) & (patients["seed"] == seed)]
        if network != COMPARED_WITH and len(comparison_patients):
            row |= {"compared_with": COMPARED_WITH, **compare_paired_dice(part, comparison_patients)}
        rows.append(row)
    return pd.DataFrame(rows)


def look_up_published(network: str) -> dict[str, float]:
    """Look up the published numbers, which are from another cohort."""
    (dice,) = table_3_2.PUBLISHED.values.get(network, (np.nan,))
    dice, distance = table_3_1.PUBLISHED.values.get(network, (dice, np.nan))
    return {"published_dice": dice, "published_hausdorff": distance}


def build_seed_table(patients: pd.DataFrame) -> pd.DataFrame:
    """Build a table with one row per network with at least two seeds that Swin-UNet has too.

    Scores are each patient's mean over those seeds, with the lowest and highest mean of a seed.
    """
    rows = []
    comparison_patients = patients[patients["network"] == COMPARED_WITH]
    for network, part in patients.groupby("network", sort=False):
        seeds = set(part["seed"]) & set(comparison_patients["seed"])
        if len(seeds) < 2:
            continue
        network_means, comparison_means = (
            average_over_seeds(one[one["seed"].isin(seeds)]) for one in (part, comparison_patients)
        )
        by_seed = part[part["seed"].isin(seeds)].groupby("seed")["dice"].mean()
        mean, low, high = bootstrap_interval(np.mean, network_means["dice"].to_numpy())
        row = {
            "network": network,
            "seeds": len(seeds),
            "dice": mean,
            "dice_low_95": low,
            "dice_high_95": high,
        }
        row |= {"dice_lowest_seed": by_seed.min(), "dice_highest_seed": by_seed.max()}
        if network != COMPARED_WITH:
            row |= {"compared_with": COMPARED_WITH, **compare_paired_dice(network_means, comparison_means)}
        rows.append(row)
    return pd.DataFrame(rows)


def average_over_seeds(patients: pd.DataFrame) -> pd.DataFrame:
    """Compute each patient's mean scores over the seeds."""
    return patients.groupby("patient", as_index=False)[list(SCORE_COLUMNS)].mean()


def build_speed_table(folders: list[Path], pieces: list[dict]) -> pd.DataFrame:
    """Build the table of training speeds.

    Slices per second of five concurrent folds (fastest run of the network, because compilation of other networks slowed
    some) and of one fold alone, and share of the GPU's peak. A training step counts as three forward passes.
    """
    lines = read_lines(folders, "speeds.jsonl")
    rows = []
    for network in dict.fromkeys(p["network"] for p in pieces):
        speed_lines = [line for line in lines if line["network"] == network]
        batch, gflop = create_training_settings(network, False).batch, speed_lines[0]["gflop_per_slice"]
        runs = [p for p in pieces if p["network"] == network]
        fastest = max(FOLDS * batch * p["steps"] / p["train_seconds"] for p in runs)
        rows.append(
            {
                "network": network,
                "million_parameters": speed_lines[0]["million_parameters"],
                "gflop_per_slice": gflop,
                "slices_per_second": fastest,
                "one_fold_slices_per_second": batch / min(line["step_ms"] for line in speed_lines) * 1000,
                "tflop_per_second": 3 * gflop * fastest / 1000,
                "peak_tflop_per_second": PEAK_TFLOPS,
                "share_of_peak": 3 * gflop * fastest / 1000 / PEAK_TFLOPS,
                "compile_seconds": max(line["start_seconds"] for line in speed_lines),
            }
        )
    return pd.DataFrame(rows)


def merge_results(folders: list[Path], results: Path, index: dict) -> None:
    """Write the csv files and the run record.

    ``gpu_segmentation.csv`` with ``_patients`` and ``_seeds``, ``gpu_training.csv`` and ``gpu_answers.csv``.
    """
    pieces = select_finished(folders)
    if pieces:
        patients = build_patient_table(pieces, index["cohort"])
        write_table(build_network_table(patients), results / f"{NAME}.csv")
        write_table(patients, results / f"{NAME}_patients.csv")
        seeds = build_seed_table(patients)
        if len(seeds):
            write_table(seeds, results / f"{NAME}_seeds.csv")
        write_table(build_speed_table(folders, pieces), results / "gpu_training.csv")
    answers = read_lines(folders, "answers.jsonl")
    if answers:
        write_table(pd.DataFrame(answers), results / "gpu_answers.csv")
    write_json(results / f"{NAME}_run_record.json", build_run_record(folders, pieces, index))


def build_run_record(folders: list[Path], pieces: list[dict], index: dict) -> dict:
    """Build the run record: device, commit, versions, data and training settings."""
    first = folders[-1]
    example = create_training_settings("MIG-Net", False)

    def read_text_or_unknown(name: str) -> str:
        path = first / name
        return path.read_text("utf-8").strip() if path.exists() else "unknown"

    return {
        "experiment": NAME,
        "commit": read_text_or_unknown("commit"),
        "device": read_text_or_unknown("gpu.txt"),
        "python, torch, monai, numpy": read_text_or_unknown("versions.txt"),
        "cohort": index["cohort"],
        "folds_sha256": index["folds_sha256"],
        "preparation": index["settings"],
        "sequence": "FLAIR",
        "batch": example.batch,
        "rate": example.rate,
        "weight_decay": example.weight_decay,
        "warm_up": example.warm_up,
        "batches, views": "drawn from seed and fold alone, the same for every network",
        "precision": "bf16 autocast; slices held with 8 bits",
        "validation": "none: the last weights of the cosine are kept",
        "groups": [
            {k: p[k] for k in ("network", "seed", "steps", "train_seconds", "first_loss", "last_loss")}
            for p in pieces
            if p["fold"] == 1
        ],
    }


if __name__ == "__main__":
    *outs, destination = map(Path, sys.argv[1:])
    index_folder = next(folder for folder in outs if (folder / "index.json").exists())
    merge_results(outs, destination, json.loads((index_folder / "index.json").read_text("utf-8")))
