"""Training in several processes: the same result as in one process, and one sentence when a process fails."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from tests.training.test_resume import MARKER, SEGMENTATION, create_slices, train
from torch import nn

from gliomark.errors import CohortError, ConfigurationError, GliomarkError
from gliomark.models.comparison.unet import UNetSettings
from gliomark.training import processes
from gliomark.training.markers import LesionSliceDataset, create_marker_config, train_marker_network
from gliomark.training.process_group import get_rank
from gliomark.training.processes import ProcessLayout, check_layout, get_node, run_in_processes
from gliomark.training.recipes import TrainingDistribution

TWO = ProcessLayout(devices=2)
KINDS = {
    "MIG-Net with a validation": replace(SEGMENTATION, validate_every=1, epochs=7),
    "KiNet with batch norm": replace(MARKER, epochs=7),
    "U-Net with batch norm": replace(SEGMENTATION, network=UNetSettings(width=4), epochs=7),
}


def read_log(work: Path, column: str) -> list[float]:
    """Return a column of the training's log: the loss of every 20th step, or a measure of every epoch."""
    with (work / "log" / "version_0" / "metrics.csv").open() as file:
        return [float(row[column]) for row in csv.DictReader(file) if row.get(column)]


def join_weights(network: nn.Module) -> torch.Tensor:
    """Join all weights and running statistics in one vector ``(n,)``."""
    return torch.cat([tensor.flatten().double() for tensor in network.state_dict().values()])


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    KINDS,
)
def test_two_processes_train_the_network_of_one_process(tmp_path, kind) -> None:
    one, two = train(KINDS[kind], tmp_path / "one"), train(KINDS[kind], tmp_path / "two", TWO)
    columns = ["loss", "validation_dice"] if kind.startswith("MIG-Net") else ["loss"]
    for column in columns:
        expected = read_log(tmp_path / "one", column)
        assert len(expected) == (1 if column == "loss" else 7)
        assert read_log(tmp_path / "two", column) == pytest.approx(expected, rel=1e-3)
    first, second = join_weights(one), join_weights(two)
    assert (first - second).norm() < 1e-3 * first.norm()
    # a training of two processes is finished by one, which finds nothing left to train
    assert torch.equal(join_weights(train(KINDS[kind], tmp_path / "two")), second)


# ---- failures ---------------------------------------------------------------------------------------


def fail_in_second_process(failure: str) -> None:
    """End the second process; the first waits for it."""
    if get_rank() == 1:
        if failure == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if failure == "refused":
            raise CohortError("The cohort is damaged.")
        raise RuntimeError("out of memory")
    torch.distributed.barrier()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failure", "kind", "sentence"),
    [
        ("killed", GliomarkError, r"Process 2 of 2 of the training ended: SIGKILL\. The others were stopped"),
        ("refused", CohortError, r"^The cohort is damaged\.$"),
        (
            "defect",
            GliomarkError,
            r"Process 2 of 2 of the training ended: RuntimeError: out of memory\. The others were stopped",
        ),
    ],
)
def test_a_process_that_fails_ends_all_with_one_sentence(capfd, failure, kind, sentence) -> None:
    with pytest.raises(kind, match=sentence):
        run_in_processes(fail_in_second_process, (failure,), TWO)
    assert "Traceback" not in capfd.readouterr().err


# ---- refused before training ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "environment", "sentence"),
    [
        (ProcessLayout(3), {}, "A batch of 4 slices cannot be split evenly over --devices 3 times --nodes 1"),
        (ProcessLayout(2, 4), {}, "A batch of 4 slices cannot be split evenly over --devices 2 times"),
        (TWO, {"SLURM_STEP_NUM_TASKS": "2"}, "srun started 2 tasks for --nodes 1; start one per node"),
        (ProcessLayout(2, 2), {"SLURM_STEP_NUM_TASKS": "4"}, "srun started 4 tasks for --nodes 2"),
        (ProcessLayout(2, 2), {}, "needs SLURM"),
        (ProcessLayout(2, 2), {"MASTER_ADDR": "a", "MASTER_PORT": "x", "NODE_RANK": "1"}, "needs SLURM"),
    ],
)
def test_processes_that_cannot_work_are_refused(monkeypatch, layout, environment, sentence) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=sentence):
        check_layout(layout, 4)


@pytest.mark.parametrize(
    "environment",
    [
        {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500", "NODE_RANK": "1"},
        {
            "SLURM_NODEID": "1",
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_JOB_NODELIST": "node[03-05]",
            "SLURM_STEP_NODELIST": "node[04-05]",
            "SLURM_JOB_ID": "123456",
        },
    ],
)
def test_nodes_are_numbered_by_slurm_or_the_environment(monkeypatch, environment) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    check_layout(ProcessLayout(2, 2), 4)
    assert get_node(ProcessLayout(2, 2)) == 1 and get_node(TWO) == 0
    meeting = processes._find_meeting(ProcessLayout(2, 2))
    expected = ("node04", 18456) if "SLURM_JOB_ID" in environment else ("10.0.0.1", 29500)
    assert (meeting.address, meeting.port) == expected


def test_frozen_features_have_nothing_to_split(tmp_path) -> None:
    image, lesion, label, patient = create_slices()
    dataset = LesionSliceDataset(image, lesion, label, label.float(), patient, tuple("abcd"))
    with pytest.raises(ConfigurationError, match="has frozen features"):
        train_marker_network(dataset, create_marker_config("pretrained"), tmp_path, TWO)
    assert not list(tmp_path.iterdir())


def test_more_processes_than_validation_slices_are_refused(tmp_path) -> None:
    kind = replace(KINDS["MIG-Net with a validation"], batch=16)
    with pytest.raises(ConfigurationError, match="8 validation slices cannot be split over 16 processes"):
        train(kind, tmp_path, ProcessLayout(16))


def test_workers_and_devices_exclude_each_other() -> None:
    with pytest.raises(ConfigurationError, match="give only one of the two"):
        TrainingDistribution(TWO, workers=2)


# ---- clusters ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_nodes_train_the_network_of_one_process(tmp_path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.training.test_resume import *\n"
        "if __name__ == '__main__': train(SEGMENTATION, Path(sys.argv[1]), ProcessLayout(nodes=2))"
    )
    (tmp_path / "node.py").write_text(code, "utf-8")
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_network_port())}
    root = str(Path(__file__).parents[2])
    search_path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    nodes = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "node.py"), str(tmp_path / "two")],
            env=os.environ | meeting | {"NODE_RANK": str(rank), "PYTHONPATH": search_path},
        )
        for rank in range(2)
    ]
    assert [node.wait() for node in nodes] == [0, 0]
    one, two = train(SEGMENTATION, tmp_path / "one"), train(SEGMENTATION, tmp_path / "two")
    first, second = join_weights(one), join_weights(two)
    assert 0 < (first - second).norm() < 1e-3 * first.norm()


@pytest.mark.slow
def test_a_dask_worker_in_a_slurm_job_trains_as_any_other_process(tmp_path) -> None:
    """SLURM numbers the tasks of srun, but every worker trains a network of its own."""
    code = (
        "import sys; from pathlib import Path; from tests.training.test_resume import *; "
        "train(SEGMENTATION, Path(sys.argv[1]))"
    )
    slurm = {"SLURM_NTASKS": "8", "SLURM_PROCID": "3", "SLURM_LOCALID": "3", "SLURM_NODEID": "0"}
    process = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=os.environ | slurm | {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "folds"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "last.ckpt").exists()
