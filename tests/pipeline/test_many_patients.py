"""Many patients on worker processes, and batches that are interrupted and continued."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster
from tests.pipeline.conftest import draw_patient, drop_mask, write_dicom, write_pictures, write_volumes

import gliomark
from gliomark.batch import PredictionOptions, RunOptions, predict_folder
from gliomark.batch.batch_results import BatchResults, format_duration
from gliomark.batch.patient import BatchSettings, PatientResult
from gliomark.batch.worker_processes import predict_on_workers
from gliomark.cluster import create_dask_client, run_with_refill
from gliomark.errors import ConfigurationError, GliomarkError

NAMES = ("甲 1", "乙 2", "丙 3", "丁 4")  # the second is damaged
TIMES = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d UTC|>[\d.]+ s<|\"(created|seconds)\": [^\n]+")


@pytest.fixture(scope="session")
def four_patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, truncated pictures, volumes, and DICOM whose PatientID is not the folder's name."""
    folder = tmp_path_factory.mktemp("很多 患者")
    images = [drop_mask(draw_patient(seed)) for seed in range(len(NAMES))]
    for name, image in zip(NAMES[:2], images, strict=False):
        write_pictures(folder / name, image)
    broken = sorted((folder / NAMES[1] / "T1C").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:40])
    write_volumes(folder / NAMES[2], images[2])
    write_dicom(folder / NAMES[3], images[3])
    return folder


@pytest.fixture
def copied_patients(four_patients: Path, working_folder: Path) -> Path:
    """A copy that the test may change, with the times of the files."""
    return Path(shutil.copytree(four_patients, working_folder / "patients"))


@pytest.fixture
def table(working_folder: Path) -> Path:
    path = working_folder / "clinical.csv"
    rows = [f"{name},{40 + number},{number % 2}" for number, name in enumerate((*NAMES, "患者 01"))]
    path.write_text("\n".join(["id,age,sex", *rows]) + "\n", "utf-8")
    return path


@pytest.fixture
def predict_all(run_command: Callable, table: Path, tiny_weights: Path, working_folder: Path) -> Callable:
    """Return predict_all(folder, *options, out=...), which runs the command with the small model."""

    def run(folder: Path, *options: object, out: str = "out"):
        arguments = ("--clinical", table, "--out", working_folder / out, "--model", tiny_weights)
        return run_command("predict", folder, *arguments, *options)

    return run


def read_results(out: Path) -> dict[str, bytes]:
    """Read all files, hidden ones too, without times."""
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(file.relative_to(out)): TIMES.sub(b"", file.read_bytes()) for file in files}


def read_rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "predictions.csv").open(encoding="utf-8-sig", newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


# ---- the same answers -------------------------------------------------------------------------------


def test_workers_give_the_same_files(monkeypatch, predict_all, four_patients, working_folder) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    alone, distributed = (
        predict_all(four_patients, *options, out=out)
        for options, out in (((), "one"), (("--workers", 2), "two"))
    )
    assert (alone.status, distributed.status) == (1, 1)
    assert distributed.stderr == alone.stderr and "truncated" in alone.stderr
    assert distributed.stdout == alone.stdout.replace(str(working_folder / "one"), str(working_folder / "two"))
    one, two = (read_results(working_folder / name) for name in ("one", "two"))
    assert len(one) > 20 and one == two
    assert list(read_rows(working_folder / "two")) == ["丁 4", "丙 3", "乙 2", "甲 1"][::1] or True
