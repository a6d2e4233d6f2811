"""A training batch split over processes so that the result does not depend on their number.

Every process draws the random numbers of the whole batch and uses its own rows; the outputs of all processes are joined
before the loss is computed. Losses that are not means over slices, such as Dice, therefore keep their value and their
gradient. Outside a process group all functions leave their input unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
import torch.distributed.nn.functional as collectives
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, distributed, nn

Value = TypeVar("Value")


def is_distributed() -> bool:
    """Whether this process is one of several that train a network together."""
    return distributed.is_available() and distributed.is_initialized()


def get_rank() -> int:
    """Return the number of this process, from 0; only process 0 writes files."""
    return distributed.get_rank() if is_distributed() else 0


def get_process_count() -> int:
    """Return the number of processes that train a network together."""
    return distributed.get_world_size() if is_distributed() else 1


def draw_share(draw: Callable[[int], Tensor], count: int) -> Tensor:
    """Draw random numbers for the whole batch and return the rows ``(count, ...)`` of this process.

    draw: draws for a number of slices, the first dimension of its result; count: slices of this process.
    """
    first = get_rank() * count
    return draw(get_process_count() * count)[first : first + count]


def gather_batch(value: Value) -> Value:
    """Join the rows of all processes, with gradients.

    value: a tensor ``(B, ...)`` or a collection of tensors, such as a network's output.
    """
    if not is_distributed():
        return value
    joined: Value = apply_to_collection(value, Tensor, lambda one: torch.cat(collectives.all_gather(one)))
    return joined


def share_object(value: Value) -> Value:
    """Return the value of process 0 in all processes."""
    if not is_distributed():
        return value
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


class BatchShareSampler(torch.utils.data.Sampler[list[int]]):
    """Divides a sampler's draws into whole batches and yields the rows of this process of each.

    The trainer sets the epoch of the inner sampler, which makes the same draws in every process.
    """

    def __init__(self, sampler: torch.utils.data.Sampler[int], batch: int) -> None:
        self.sampler, self.batch = sampler, batch

    def __len__(self) -> int:
        return len(self.sampler) // self.batch  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[int]]:
        rows, share = list(self.sampler), self.batch // get_process_count()
        for start in range(get_rank() * share, len(self) * self.batch, self.batch):
            yield rows[start : start + share]


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation by the statistics of all processes, on any device; torch has it on GPUs only."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise features ``(B, C, H, W)``; in evaluation mode by the running statistics."""
        if not self.training:
            return super().forward(input)
        mean = self._average(input.mean(dim=(0, 2, 3)))
        centred = input - mean[:, None, None]
        variance = self._average((centred**2).mean(dim=(0, 2, 3)))
        if self.running_mean is not None and self.running_var is not None:
            self._update_running_statistics(mean, variance, get_process_count() * input[:, 0].numel())
        normalised = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        return (
            normalised * self.weight[:, None, None] + self.bias[:, None, None] if self.affine else normalised
        )

    @staticmethod
    def _average(statistic: Tensor) -> Tensor:
        average: Tensor = collectives.all_reduce(statistic) / get_process_count()
        return average

    @torch.no_grad()
    def _update_running_statistics(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)  # type: ignore[union-attr]
        self.running_var.lerp_(variance * count / (count - 1), momentum)  # type: ignore[union-attr]


def synchronise_batch_norm(network: nn.Module) -> None:
    """Make all batch normalisations of a network use the statistics of the whole batch, in place."""
    if is_distributed():
        for module in network.modules():
            if type(module) is nn.BatchNorm2d:
                # the weights and their names stay
                module.__class__ = SynchronisedBatchNorm2d
