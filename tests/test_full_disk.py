"""A full or read-only disk gives one message and leaves existing files unchanged.

Each writer is called on a real, small file system; the tests are skipped if it cannot be mounted.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from tests.conftest import create_tiny_stack
from tests.models.test_weights import CARD

from gliomark.client.patient_folder import pack_folder
from gliomark.cohort.anonymise import _write_if_changed as write_anonymised
from gliomark.cohort.describe import describe_cohort
from gliomark.cohort.export import export_cohort
from gliomark.cohort.folds import load_cohort_folds
from gliomark.cohort.labels import write_clinical_table
from gliomark.cohort.private_files import create_private_folder, write_private_csv
from gliomark.cohort.quality_page import write_quality_pages
from gliomark.cohort.store import Cohort, write_json, write_patient
from gliomark.evaluation.evaluate import PredictionColumns, evaluate_predictions, read_predictions
from gliomark.experiments.result_files import save_figure, write_table
from gliomark.files import FileWriteError, check_writable, is_disk_full_error
from gliomark.messages import Message, render_message
from gliomark.models.weights import save_weights
from gliomark.phantom.hospital import write_hospital
from gliomark.reporting.evaluation_page import write_evaluation
from gliomark.server.study_store import StudyStore
from gliomark.study import SliceStack
from gliomark.training.checkpoints import (
    LAST_CHECKPOINT_NAME,
    PREVIOUS_CHECKPOINT_NAME,
    AtomicCheckpointIO,
    find_last_checkpoint,
)

KILOBYTES = 48
RANDOM = np.random.default_rng(0)
Write = Callable[[Path], object]


def mount(folder: Path, options: str) -> None:
    """Mount a file system, or skip the test."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root can mount a file system")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    mount(folder, f"size={KILOBYTES}k")
    (folder / "before.txt").write_text("what was there")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def create_big_table() -> pd.DataFrame:
    return pd.DataFrame(RANDOM.normal(size=(3000, 4)), columns=list("abcd"))


def write_assessment(folder: Path) -> object:
    table = folder.parent / "predictions.csv"
    label = RANDOM.integers(0, 2, 60)
    rows = [
        f"P{i},{y},{min(max(p, 0), 1)}" for i, (y, p) in enumerate(zip(label, RANDOM.random(60), strict=True))
    ]
    table.write_text("\n".join(["id,label,probability", *rows]) + "\n")
    return write_evaluation(
        evaluate_predictions(read_predictions(table, PredictionColumns())), folder / "evaluation"
    )


def write_two_checkpoints(folder: Path) -> None:
    """Write two checkpoints; the second does not fit on the disk."""
    io = AtomicCheckpointIO()
    for size in (4_000, 100_000):
        io.save_checkpoint(
            {"weights": torch.arange(size, dtype=torch.uint8)}, folder / "work" / LAST_CHECKPOINT_NAME
        )


def pack_large_patient(folder: Path) -> None:
    patient = folder.parent / "patient"
    patient.mkdir()
    (patient / "image.bin").write_bytes(RANDOM.bytes(200_000))
    pack_folder(patient, folder / "sent.zip", lambda: False)


def create_noise_stack() -> SliceStack:
    """Create slices that do not compress."""
    stack = create_tiny_stack(2)
    return replace(
        stack, images={n: RANDOM.normal(size=i.shape).astype(np.float32) for n, i in stack.images.items()}
    )


def draw_figure() -> Figure:
    figure = Figure(figsize=(12, 12))
    figure.subplots().imshow(RANDOM.random((400, 400)))
    return figure


ROWS = [{"id": f"P{i:05d}", "age": "50", "sex": "0"} for i in range(8000)]
WRITERS: dict[str, Write] = {
    "cohort arrays": lambda folder: write_patient(folder / "cohort", create_tiny_stack(1)),
    "cohort json": lambda folder: write_json(folder / "a.json", {"text": "x" * 100_000}),
    "cohort table": lambda folder: write_clinical_table(folder / "MetaMS.csv", ROWS),
    "private table": lambda folder: write_private_csv(folder / "key.csv", ["id", "age", "sex"], ROWS),
    "anonymised file": lambda folder: write_anonymised(folder / "a" / "00001.dcm", bytes(100_000)),
    "phantoms": lambda folder: write_hospital([1], folder / "phantoms", output_format="nifti", workers=1),
    "experiment table": lambda folder: write_table(create_big_table(), folder / "table.csv"),
    "figure": lambda folder: save_figure(draw_figure(), folder / "figure.png"),
    "weights": lambda folder: save_weights(
        folder / "w.safetensors", CARD, {"prior": torch.zeros(2, 2), "segmentation/a": torch.zeros(50_000)}
    ),
    "evaluation": write_assessment,
    "client's zip": pack_large_patient,
    "server's correction": lambda folder: StudyStore.from_folder(folder / "data").save_correction(
        "study", RANDOM.random((20, 240, 240)) > 0.5
    ),
    "server's slices": lambda folder: StudyStore.from_folder(folder / "data").save_slices(
        "study", create_noise_stack()
    ),
}


def read_files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


SLOW_WRITERS = {"phantoms"}


@pytest.mark.parametrize(
    "writer", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW_WRITERS)) for name in WRITERS]
)
def test_a_full_disk_is_reported_in_one_sentence(small_disk: Path, writer: str) -> None:
    with pytest.raises(FileWriteError) as caught:
        WRITERS[writer](small_disk)
    message = caught.value.message
    assert is_disk_full_error(caught.value) and isinstance(message, Message)
    assert (
        str(small_disk) in message
        and message.count("\n") == 0
        and "磁盘已满" in render_message(message, "zh")
    )
    remaining = read_files(small_disk)
    assert remaining.pop("before.txt") == b"what was there"
    assert not [name for name in remaining if ".gliomark-" in name and writer != "client's zip"]


@pytest.mark.parametrize("output_format", ["bids", "nnunet", "structured-pictures"])
def test_an_export_is_complete_or_absent(tiny_cohort_folder: Path, small_disk: Path, output_format) -> None:
    with pytest.raises(FileWriteError, match="the disk is full"):
        export_cohort(Cohort(tiny_cohort_folder), output_format, small_disk / "export")
    assert os.listdir(small_disk) == ["before.txt"]


def test_a_description_of_a_cohort_leaves_no_temporary_file(
    tiny_cohort_folder: Path, small_disk: Path
) -> None:
    with pytest.raises(FileWriteError, match="the disk is full"):
        describe_cohort(Cohort(tiny_cohort_folder), small_disk / "describe")
    assert not list(small_disk.rglob(".gliomark-*"))


def test_a_checkpoint_that_does_not_fit_leaves_the_previous_one(small_disk: Path) -> None:
    with pytest.raises(FileWriteError, match="the disk is full"):
        write_two_checkpoints(small_disk)
    assert find_last_checkpoint(small_disk / "work") == small_disk / "work" / PREVIOUS_CHECKPOINT_NAME


READ_ONLY: dict[str, Write] = {
    "predict": lambda folder: check_writable(folder / "out"),
    "cohort": lambda folder: create_private_folder(folder / "cohort"),
    "cohort arrays": WRITERS["cohort arrays"],
    "weights": WRITERS["weights"],
    "experiment table": WRITERS["experiment table"],
    "export": lambda folder: write_hospital([1], folder / "phantoms", output_format="nifti", workers=1),
}


@pytest.mark.parametrize("writer", READ_ONLY)
def test_a_read_only_disk_is_reported_in_one_sentence(small_disk: Path, writer: str) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(FileWriteError, match="read-only") as caught:
        READ_ONLY[writer](small_disk)
    assert not is_disk_full_error(caught.value) and "只读" in render_message(caught.value.message, "zh")
    assert read_files(small_disk) == {"before.txt": b"what was there"}


@pytest.mark.parametrize("writer", [load_cohort_folds, write_quality_pages], ids=["folds", "quality"])
def test_a_cohort_stays_readable_when_its_disk_is_full(
    tiny_cohort_folder: Path, tmp_path: Path, writer: Callable[[Cohort], object]
) -> None:
    """The cohort's own disk is full; prepared patients stay readable."""
    folder = tmp_path / "disk"
    mount(folder, "size=12m")
    try:
        subprocess.run(["cp", "-r", f"{tiny_cohort_folder}/.", str(folder)], check=True)
        (folder / "folds.json").unlink(missing_ok=True)
        cohort = Cohort(folder)
        with (folder / "rest").open("wb") as rest, pytest.raises(OSError):
            while True:
                rest.write(bytes(1 << 16))
                rest.flush()
        with pytest.raises(FileWriteError, match="the disk is full"):
            writer(cohort)
        assert not list(folder.rglob(".gliomark-*")) and cohort.read_stack("P01").images
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_command_prints_the_sentence_and_exits_with_status_1(small_disk: Path) -> None:
    command = [sys.executable, "-m", "gliomark", "cohort", "phantom", "--as", "nifti"]
    result = subprocess.run([*command, "--out", str(small_disk / "p")], capture_output=True, text=True)
    assert result.returncode == 1 and "the disk is full" in result.stderr and "Traceback" not in result.stderr
    assert os.listdir(small_disk) == ["before.txt"]
