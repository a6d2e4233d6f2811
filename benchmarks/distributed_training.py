"""The loss curve of a training in two processes beside that of one process with the same batches.

    PYTHONPATH=src python benchmarks/distributed_training.py COHORT results

Trains MIG-Net (no batch norm) and a U-Net with batch norm, both reduced to a few channels, with the published
augmentation. Prints both curves and their largest relative difference, and writes
``benchmark_distributed_training.csv`` with its run record. On a computer with two GPUs it uses them, otherwise two
processes connected by gloo.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from gliomark.cohort.folds import load_cohort_folds
from gliomark.cohort.store import Cohort
from gliomark.experiments.result_files import create_run_record, write_result_files
from gliomark.models.comparison.unet import UNetSettings
from gliomark.models.published.mignet import MIGNetSettings
from gliomark.models.published.swin_unet import SwinSize
from gliomark.training.augmentation import GENTLE_AUGMENTATION
from gliomark.training.processes import ProcessLayout
from gliomark.training.recipes import get_cohort_sequences
from gliomark.training.segmentation import SegmentationTrainingConfig, train_segmentation_network
from gliomark.training.slice_dataset import load_slice_dataset

EPOCHS, BATCH = 20, 16
CONFIG = SegmentationTrainingConfig(
    augmentation=replace(GENTLE_AUGMENTATION, recolour=0.5), pool=4, rate=1e-3, batch=BATCH, epochs=EPOCHS
)
NETWORKS = {
    "MIG-Net": MIGNetSettings(size=SwinSize(8, (1, 1, 1), (1, 2, 2), patch=4)),
    "U-Net": UNetSettings(width=4),
}
LAYOUTS = {1: ProcessLayout(), 2: ProcessLayout(devices=2)}


def measure_losses(
    config: SegmentationTrainingConfig, dataset: object, layout: ProcessLayout
) -> pd.DataFrame:
    """Train, and return the logged losses, one row per 20 steps, with the columns step, loss and seconds."""
    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        train_segmentation_network(dataset, config, Path(folder), layout=layout)
        log = pd.read_csv(Path(folder) / "log" / "version_0" / "metrics.csv")
    return log[["step", "loss"]].assign(seconds=time.perf_counter() - start)


def main() -> None:
    """Train every network with one and two processes, and write the table."""
    cohort, output_folder = Cohort(Path(sys.argv[1])), Path(sys.argv[2])
    patients = load_cohort_folds(cohort).train
    dataset = load_slice_dataset(cohort, patients, get_cohort_sequences(cohort)[-1:], is_joint=False)
    rows, seconds = [], {}
    for name, network in NETWORKS.items():
        config = replace(CONFIG, network=network)
        one, two = (measure_losses(config, dataset, LAYOUTS[count]) for count in (1, 2))
        seconds[name] = {count: float(log["seconds"].iloc[0]) for count, log in ((1, one), (2, two))}
        difference = np.abs(two["loss"] / one["loss"] - 1)
        rows.append(
            pd.DataFrame(
                {
                    "network": name,
                    "step": one["step"] + 1,
                    "loss_one_process": one["loss"].map("{:.7f}".format),
                    "loss_two_processes": two["loss"].map("{:.7f}".format),
                    "relative_difference": difference.map("{:.1e}".format),
                }
            )
        )
        print(rows[-1].to_string(index=False))
        print(f"{name}: largest relative difference {difference.max():.1e}")
    record = create_run_record(
        "benchmark_distributed_training",
        cohort=cohort.folder.name,
        patients=len(patients),
        slices=len(dataset.image),
        batch=BATCH,
        epochs=EPOCHS,
        seconds=seconds,
    )
    print(write_result_files(output_folder, "benchmark_distributed_training", {"": pd.concat(rows)}, record))


if __name__ == "__main__":  # the processes import this module again
    main()
