"""Run networks with PyTorch: the reference of the other engines."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gliomark.engines.network_source import FloatArray


class TorchNetwork:
    """A network in PyTorch, in evaluation mode, which runs on the device of its weights."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def run(self, *inputs: FloatArray) -> tuple[FloatArray, ...]:
        """Run the network on its inputs and return its outputs that are not None."""
        device = next((tensor.device for tensor in self.network.state_dict().values()), torch.device("cpu"))
        with torch.inference_mode():
            outputs = self.network(*(torch.from_numpy(one).to(device) for one in inputs))
        outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
        return tuple(one.cpu().numpy() for one in outputs if one is not None)

    def release_memory(self) -> None:
        """Do nothing: PyTorch releases memory by itself."""
