"""What an engine runs: a network that can be built in PyTorch, and what identifies it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from gliomark.errors import ConfigurationError
from gliomark.messages import message

if TYPE_CHECKING:
    import openvino
    from torch import nn

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class NetworkSource:
    """A network to run.

    Attributes
    ----------
    name
        For messages and the cache folder.
    key
        Identifies architecture and weights, such as the SHA-256 of the file.
    build
        Builds the network in PyTorch, in evaluation mode; not called if it has been converted before.
    create_inputs
        Creates example inputs, whose shapes are those of all later inputs, but for the first axis of a batch.
    tolerance
        Largest accepted difference from PyTorch's output on the example inputs.
    has_batch
        Whether the first axis of all inputs and outputs is a batch of any size.
    is_size_free
        Whether rows and columns of the first input, the last two axes, may differ from those of the example.
    read_graph
        Reads the network as a graph that needs no conversion and no PyTorch; None if there is none.
    is_converted
        Whether a network without a graph is converted; that of a small network takes longer than it saves.
    allows_bfloat16
        Whether the engine that computes in bfloat16 does so for this network; others stay in single precision.
    """

    name: str
    key: str
    build: Callable[[], nn.Module]
    create_inputs: Callable[[], Sequence[FloatArray]]
    tolerance: float = 1e-4
    has_batch: bool = False
    is_size_free: bool = False
    read_graph: Callable[[], openvino.Model] | None = None
    is_converted: bool = True
    allows_bfloat16: bool = False


class EngineNetwork(Protocol):
    """A network that is ready to run."""

    def run(self, *inputs: FloatArray) -> tuple[FloatArray, ...]:
        """Run the network on its inputs and return its outputs, float32."""

    def release_memory(self) -> None:
        """Release the memory of intermediate results, which makes the next run a little slower."""


def check_pytorch(name: str) -> None:
    """Check that PyTorch is installed, which the network of this name needs.

    Raises
    ------
    ConfigurationError
        If it is not.
    """
    if find_spec("torch") is None:
        raise ConfigurationError(message("engine-needs-torch", name=name))
