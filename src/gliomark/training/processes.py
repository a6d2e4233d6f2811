"""Start the processes that train a network together, one per GPU, on one or more nodes.

The command runs once per node. It loads the data, starts one process per device, which receive the data through shared
memory, and waits for them. The first process that fails ends all.
"""

from __future__ import annotations

import os
import pickle
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from torch import distributed
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

from gliomark.errors import ConfigurationError, GliomarkError
from gliomark.files import scratch_folder
from gliomark.messages import message

Result = TypeVar("Result")
GRACE_SECONDS = 5  # for the other processes, after one has failed
TIMEOUT = timedelta(
    minutes=30
)  # for a process that waits for the others, for example while one reads a checkpoint


@dataclass(frozen=True)
class ProcessLayout:
    """Number of processes that train a network together.

    devices: GPUs per node, or processes on a computer without a GPU; nodes: number of nodes.
    """

    devices: int = 1
    nodes: int = 1

    @property
    def count(self) -> int:
        """Number of processes on all nodes."""
        return self.devices * self.nodes


ONE_PROCESS = ProcessLayout()


@dataclass(frozen=True)
class _Meeting:
    """Where the processes of all nodes meet: address and port of node 0, and the number of this node."""

    address: str
    port: int
    node: int


def check_layout(layout: ProcessLayout, batch: int) -> None:
    """Check that this computer can run its part of the processes, and that a batch can be split over them.

    Raises
    ------
    ConfigurationError
        If it cannot.
    """
    if layout.count == 1:
        return
    if batch % layout.count:
        raise ConfigurationError(
            message("training-batch-not-divisible", batch=batch, devices=layout.devices, nodes=layout.nodes)
        )
    if torch.cuda.is_available() and layout.devices > torch.cuda.device_count():
        raise ConfigurationError(
            message("training-too-few-gpus", devices=layout.devices, found=torch.cuda.device_count())
        )
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", layout.nodes))
    if tasks != layout.nodes:
        raise ConfigurationError(
            message("training-tasks-of-srun", tasks=tasks, nodes=layout.nodes, devices=layout.devices)
        )
    _find_meeting(layout)


def get_node(layout: ProcessLayout) -> int:
    """Return the number of this node, from 0; only node 0 writes files. Raises ConfigurationError as check_layout."""
    return _find_meeting(layout).node


def _find_meeting(layout: ProcessLayout) -> _Meeting:
    """Return where the nodes meet: from SLURM in a step of srun, otherwise from MASTER_ADDR, MASTER_PORT, NODE_RANK."""
    if layout.nodes == 1:
        return _Meeting("127.0.0.1", find_free_network_port(), 0)
    variables = dict(os.environ)
    if "SLURM_STEP_NUM_TASKS" in variables:
        nodes = variables.get("SLURM_STEP_NODELIST") or variables["SLURM_JOB_NODELIST"]
        variables = {
            "MASTER_ADDR": SLURMEnvironment.resolve_root_node_address(nodes),
            "MASTER_PORT": str(15000 + int(variables["SLURM_JOB_ID"]) % 10000),
            **variables,
            "NODE_RANK": variables["SLURM_NODEID"],
        }
    try:
        return _Meeting(variables["MASTER_ADDR"], int(variables["MASTER_PORT"]), int(variables["NODE_RANK"]))
    except (KeyError, ValueError):
        raise ConfigurationError(message("training-no-main-node")) from None


def run_in_processes(
    function: Callable[..., Result], arguments: Sequence[Any], layout: ProcessLayout
) -> Result:
    """Run a function in all processes of this node; the result of the first of them.

    Parameters
    ----------
    function
        A function of a module. In it, ``process_group.get_rank`` tells the processes apart.
    arguments
        Its arguments; tensors are passed through shared memory.
    layout
        Number of processes.

    Raises
    ------
    GliomarkError
        The error of the process that failed first; or one that describes how it ended.
    """
    meeting = _find_meeting(layout)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a hint for networks that use all their parameters
    with scratch_folder() as folder:
        context = start_processes(
            _run_process,
            (function, tuple(arguments), layout, meeting, folder),
            nprocs=layout.devices,
            join=False,
        )
        try:
            while not context.join(grace_period=GRACE_SECONDS):
                pass
        except (ProcessRaisedException, ProcessExitedException) as error:
            raise _describe_failure(error, meeting, layout, folder) from None
        finally:
            for process in context.processes:
                if process.is_alive():
                    process.kill()
        result: Result = torch.load(folder / "result", weights_only=False)
        return result


def _describe_failure(
    error: ProcessRaisedException | ProcessExitedException,
    meeting: _Meeting,
    layout: ProcessLayout,
    folder: Path,
) -> GliomarkError:
    """Return the error of the process that failed first."""
    error_file = folder / f"error-{error.error_index}"
    if error_file.exists():
        known_error: GliomarkError = pickle.loads(error_file.read_bytes())
        return known_error
    signal = getattr(error, "signal_name", None)
    reason = signal or str(error).strip().splitlines()[-1]
    number = meeting.node * layout.devices + error.error_index
    return ConfigurationError(
        message("training-process-failed", number=number + 1, count=layout.count, reason=reason)
    )


def _run_process(
    local_rank: int,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    layout: ProcessLayout,
    meeting: _Meeting,
    folder: Path,
) -> None:
    """Join the process group, run the function, and store the result of the node's first process."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # as in the process of the command
    rank = meeting.node * layout.devices + local_rank
    os.environ |= {
        "MASTER_ADDR": meeting.address,
        "MASTER_PORT": str(meeting.port),
        "NODE_RANK": str(meeting.node),
        "LOCAL_RANK": str(local_rank),
    }
    uses_gpu = torch.cuda.is_available()
    if uses_gpu:
        torch.cuda.set_device(local_rank)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // layout.devices))
    try:
        distributed.init_process_group(
            "nccl" if uses_gpu else "gloo", rank=rank, world_size=layout.count, timeout=TIMEOUT
        )
        result = function(*arguments)
    except GliomarkError as error:
        (folder / f"error-{local_rank}").write_bytes(pickle.dumps(error))
        raise
    if local_rank == 0:
        torch.save(result, folder / "result")
    distributed.destroy_process_group()
