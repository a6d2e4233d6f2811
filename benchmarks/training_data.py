"""Slices per second that one processor core provides to a training: read from a cohort, and loaded in batches.

    PYTHONPATH=src OMP_NUM_THREADS=1 python benchmarks/training_data.py COHORT results

Measures processor time, so that other programs on the computer have little influence. Reading (HDF5, decompression,
hashes) happens once, at the start of a training; the loader runs in every epoch, in the process that drives the GPU.
Writes ``benchmark_training_data.csv`` with its run record; ``gpu_training.csv`` has the slices per second that a GPU
uses.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch.utils.data import TensorDataset

from gliomark.cohort.store import Cohort
from gliomark.experiments.result_files import create_run_record, write_result_files
from gliomark.training.recipes import get_cohort_sequences
from gliomark.training.segmentation import SegmentationTrainingConfig, create_training_loader
from gliomark.training.slice_dataset import EpochSampler, SliceDataset, load_slice_dataset

REPEATS = 3
CONFIG = SegmentationTrainingConfig()


def measure(function: Callable[[], int]) -> tuple[int, float]:
    """Return slices and processor seconds of the fastest of several calls; function: returns its slices."""
    measured = []
    for _ in range(REPEATS):
        start = time.process_time()
        slices = function()
        measured.append((slices, time.process_time() - start))
    return min(measured, key=lambda one: one[1] / one[0])


def load_epoch(dataset: SliceDataset) -> int:
    """Load one epoch of batches; the number of slices."""
    tensors = TensorDataset(dataset.image, dataset.lesion, dataset.grade)
    sampler = EpochSampler(dataset, CONFIG.slices_per_patient, CONFIG.lesion_share)
    return sum(len(batch[0]) for batch in create_training_loader(tensors, sampler, CONFIG.batch))


def main() -> None:
    """Measure both steps and write the table."""
    torch.set_num_threads(1)
    cohort, output_folder = Cohort(Path(sys.argv[1])), Path(sys.argv[2])
    patients, sequences = cohort.patient_ids, get_cohort_sequences(cohort)[-1:]

    def read() -> SliceDataset:
        return load_slice_dataset(cohort, patients, sequences, is_joint=False)

    dataset = read()
    steps = {
        "read from the prepared cohort, once": measure(lambda: len(read().image)),
        "loaded in batches, every epoch": measure(lambda: load_epoch(dataset)),
    }
    rows = [
        {
            "step": step,
            "slices": slices,
            "processor_seconds": seconds,
            "slices_per_second_and_core": slices / seconds,
        }
        for step, (slices, seconds) in steps.items()
    ]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    record = create_run_record(
        "benchmark_training_data", cohort=cohort.folder.name, patients=len(patients), batch=CONFIG.batch
    )
    print(write_result_files(output_folder, "benchmark_training_data", {"": table}, record))


if __name__ == "__main__":
    main()
