"""Check that the tensors of a weights file fit a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomark.errors import GliomarkError, WeightsError
from gliomark.messages import message

MAX_NETWORK_BYTES = 2**30  # bytes of weights; the published KiNet needs 3e8
# buffers of batch normalisation: the variance, and a counter that only training uses
NON_NEGATIVE_BUFFERS = ("running_var", "num_batches_tracked")


@dataclass(frozen=True)
class ExpectedTensor:
    """Type, such as "float32", and shape of a tensor."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        """Return type and shape for messages."""
        return f"{self.dtype} {self.shape}"


def check_tensor_shapes(
    expected: Mapping[str, ExpectedTensor], tensors: Mapping[str, NDArray[Any]], path: Path, part: str
) -> None:
    """Check that exactly the network's tensors, of any shape, are present with their shapes and types.

    Raises
    ------
    WeightsError
        If one is missing, additional or different, or the network is too large.
    """
    size = sum(np.prod(one.shape, dtype=float) * np.dtype(one.dtype).itemsize for one in expected.values())
    if size > MAX_NETWORK_BYTES:
        raise WeightsError(
            create_part_message("weights-network", path, part, f"{size / 1e9:.1f} GB of weights")
        )
    for names in (set(expected) - set(tensors), set(tensors) - set(expected)):
        if names:
            code = "weights-tensor-missing" if names & set(expected) else "weights-tensor-strange"
            raise WeightsError(message(code, path=path, names=_format_tensor_names(part, names)))
    for name, wanted in expected.items():
        found = ExpectedTensor(str(tensors[name].dtype), tensors[name].shape)
        if found != wanted:
            parameters = {"found": str(found), "wanted": str(wanted)}
            raise WeightsError(
                message("weights-tensor-other", path=path, name=f"{part}/{name}", **parameters)
            )


def check_tensor_values(
    constants: Mapping[str, NDArray[Any]], tensors: Mapping[str, NDArray[Any]], path: Path, part: str
) -> None:
    """Check the values, of any shape, that a network determines; constants: those of its tensors of whole numbers.

    Raises
    ------
    WeightsError
        For a negative variance, and for a constant that differs from the network's.
    """
    for name, found in tensors.items():
        if name.endswith(NON_NEGATIVE_BUFFERS):
            is_invalid = bool((found < 0).any())
        else:
            is_invalid = name in constants and not np.array_equal(found, constants[name])
        if is_invalid:
            raise WeightsError(message("weights-not-numbers", path=path, names=f"{part}/{name}"))


def create_part_message(code: str, path: Path, part: str, reason: object) -> str:
    """Create a message about a part of a weights file, such as a network or its trees."""
    if isinstance(reason, GliomarkError):
        return message(code, path=path, part=part, reason=reason.message)
    return message(code, path=path, part=part, reason=" ".join(str(reason).split())[:160])


def _format_tensor_names(part: str, names: set[str]) -> str:
    shown = ", ".join(f"{part}/{name}" for name in sorted(names)[:3])
    return shown[:200] + (f" (+{len(names) - 3})" if len(names) > 3 else "")
