"""Time of a whole patient with what a user would combine instead, beside gliomark, on the same machine and images.

    pip install antspyx deepbet; PYTHONPATH=src python -m benchmarks.alternative FOLDER --out results

The alternative registers every sequence to the reference rigidly with ANTs, resamples to 1 mm, extracts the brain with
deepbet's own package, and runs MONAI's SwinUNETR with random weights (which cost the same as trained ones) over the
brain with a sliding window: four sequences, windows of 128 voxels, half overlapping, as MONAI's BraTS tutorials do.
gliomark runs its whole command, which also predicts markers and writes the report. FOLDER: a patient with the four
sequences, with skull. Writes ``benchmark_alternative.csv``. Linux only.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from benchmarks.batch import describe_machine

from gliomark import read_study
from gliomark.experiments.result_files import create_run_record, write_result_files
from gliomark.study import MRSequence, Study

REFERENCE = MRSequence.T1C
WINDOW, OVERLAP, FEATURES, CLASSES = 128, 0.5, 48, 3


class Stopwatch:
    """Records wall time, processor time and largest memory of stages."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._last = (time.perf_counter(), time.process_time())

    def record(self, stage: str) -> None:
        """Record the time since the last stage."""
        wall, processor = time.perf_counter(), time.process_time()
        self.rows.append(
            {
                "product": "ANTs, deepbet, SwinUNETR",
                "stage": stage,
                "seconds": wall - self._last[0],
                "processor_s": processor - self._last[1],
            }
        )
        self._last = (wall, processor)


def run_alternative(study: Study, work: Path) -> list[dict[str, Any]]:
    """Run the alternative on a study and return the time of its stages."""
    watch = Stopwatch()
    import ants
    from deepbet import run_bet
    from monai.inferers import sliding_window_inference
    from monai.networks.nets.swin_unetr import SwinUNETR

    watch.record("imports")
    images = {}
    for name, series in study.series.items():
        # ANTs, like ITK, has LPS coordinates and the axes of the array in the order column, row, slice
        affine = series.affine
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        images[name] = ants.from_numpy(
            np.ascontiguousarray(series.image.transpose(2, 1, 0)),
            origin=affine[:3, 3].tolist(),
            spacing=spacing.tolist(),
            direction=affine[:3, :3] / spacing,
        )
    reference = ants.resample_image(images[REFERENCE], (1, 1, 1), use_voxels=False, interp_type=0)
    watch.record("resample the reference to 1 mm")
    registered = {
        name: reference
        if name == REFERENCE
        else ants.registration(reference, image, type_of_transform="Rigid")["warpedmovout"]
        for name, image in images.items()
    }
    watch.record("register the other sequences")
    ants.image_write(reference, str(work / "reference.nii.gz"))
    run_bet([str(work / "reference.nii.gz")], [None], [str(work / "mask.nii.gz")], no_gpu=True)
    brain = ants.image_read(str(work / "mask.nii.gz")).numpy() > 0
    watch.record("extract the brain")
    occupied = [np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    box = tuple(slice(int(one[0]), int(one[-1]) + 1) for one in occupied)
    channels = []
    for image in registered.values():
        values = image.numpy()
        inside = values[brain]
        channels.append(np.where(brain, (values - inside.mean()) / inside.std(), 0)[box])
    network = SwinUNETR(in_channels=len(channels), out_channels=CLASSES, feature_size=FEATURES).eval()
    watch.record("normalise and build the network")
    with torch.inference_mode():
        stacked = torch.from_numpy(np.stack(channels)[None].astype(np.float32))
        sliding_window_inference(stacked, (WINDOW,) * 3, 1, network, overlap=OVERLAP)
    watch.record("segment")
    return watch.rows


def run_gliomark(folder: Path, work: Path) -> dict[str, Any]:
    """Run the command on the same folder in a new process and return its time."""
    command = [sys.executable, "-m", "gliomark", "predict", str(folder), "--out", str(work / "out")]
    started_at = time.perf_counter()
    process = subprocess.Popen([*command, "--allow-missing-clinical", "--quiet", "--device", "cpu"])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the command failed with status {status}")
    return {
        "product": "gliomark",
        "stage": "whole command",
        "seconds": time.perf_counter() - started_at,
        "processor_s": usage.ru_utime + usage.ru_stime,
    }


def run_benchmark() -> None:
    """Run both, print the stages and their sums, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        run_gliomark(options.folder, work)  # the first run may prepare networks
        rows = [run_gliomark(options.folder, work), *run_alternative(read_study(options.folder), work)]
    table = pd.DataFrame(rows)
    sums = table.groupby("product", sort=False)[["seconds", "processor_s"]].sum()
    print(table.to_string(index=False), sums, sums / sums.loc["gliomark"], sep="\n\n")
    table = table.assign(patient=options.folder.name, **machine)
    record = create_run_record("benchmark_alternative", machine=machine)
    write_result_files(options.out, "benchmark_alternative", {"": table}, record)


if __name__ == "__main__":
    run_benchmark()
