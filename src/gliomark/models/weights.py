"""Read and write weights files: one safetensors file per model, with every network and a JSON model card.

A file that is cut short, altered or without a complete card is refused, as is one with values that training cannot
produce, such as NaN or infinity. ``models.network_loading`` checks that the tensors fit the networks named in the card.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from gliomark.errors import WeightsError
from gliomark.files import atomic_write
from gliomark.messages import message
from gliomark.models.card import (
    KNOWN_RANGE_PART,
    SECOND_SEGMENTATION_PART,
    SEGMENTATION_PART,
    MarkerCard,
    MarkerValidation,
    ModelCard,
    parse_card,
    to_card_record,
)
from gliomark.models.signatures import UNSIGNED, TrustPolicy, WeightsContent, read_verified_content

__all__ = ["MarkerCard", "MarkerValidation", "ModelCard", "Weights", "load_weights", "save_weights"]

SCHEMA_VERSION = 2
PRIOR_TENSOR = "prior"
TREES_TENSOR = "lightgbm"  # name of a marker's tensor that holds its trees as text
# types of tensors in a file, by their name in its header: in the hash of the content, and as it is stored in memory
TENSOR_TYPES = {
    "F16": ("torch.float16", np.float16),
    "BF16": ("torch.bfloat16", np.uint16),  # the upper half of a float32, which it becomes when it is read
    "F32": ("torch.float32", np.float32),
    "I64": ("torch.int64", np.int64),
    "U8": ("torch.uint8", np.uint8),
}
Array = NDArray[Any]


@dataclass(frozen=True)
class Weights:
    """A loaded weights file: card, tensors by name (``segmentation/...``, ``<marker>/...``) and hashes.

    sha256: of card and tensors, independent of their order in the file; file_sha256: of the file's bytes; signature:
    id of the trusted key that signed the file, or why there is none, see ``signatures.read_verified_content``.
    """

    card: ModelCard
    tensors: Mapping[str, Array]
    sha256: str
    path: Path = Path()
    file_sha256: str = ""
    signature: str = UNSIGNED

    def get_tensors(self, prefix: str) -> dict[str, Array]:
        """Return the tensors, of any shape, under ``prefix/`` by name without it; floating-point ones as float32."""
        start = prefix + "/"
        return {
            name.removeprefix(start): tensor.astype(np.float32) if _is_floating(tensor) else tensor
            for name, tensor in self.tensors.items()
            if name.startswith(start)
        }


def save_weights(
    path: Path, card: ModelCard, tensors: Mapping[str, ArrayLike], check: Callable[[Weights], object] = id
) -> None:
    """Write a weights file atomically, floating-point tensors in half precision.

    The content is loaded again before it is written; an existing file stays unchanged if an error is raised.

    Parameters
    ----------
    path
        The file to write.
    card
        The model card.
    tensors
        Tensors of any shape by name, such as ``segmentation/...``: arrays, or PyTorch's on the CPU.
    check
        Called with the weights as loaded from the content, before the file is written.

    Raises
    ------
    WeightsError
        If a tensor contains NaN or infinity, or the content could not be loaded.
    """
    half_tensors = {name: _to_half_precision(np.asarray(tensor)) for name, tensor in tensors.items()}
    non_finite = sorted(name for name, tensor in half_tensors.items() if not _is_finite(tensor))
    if non_finite:
        raise WeightsError(message("weights-diverged", path=path, names=_format_names(non_finite)))
    text = json.dumps(to_card_record(card), ensure_ascii=False, sort_keys=True)
    metadata = {
        "schema_version": str(SCHEMA_VERSION),
        "card": text,
        "sha256": _compute_digest(text, _describe_arrays(half_tensors)),
    }
    content = _sort_header(save(half_tensors, metadata))
    check(_parse_weights(path, WeightsContent(content, hashlib.sha256(content).hexdigest(), UNSIGNED)))
    atomic_write(path, content, mode=0o644)


def _to_half_precision(array: Array) -> Array:
    with np.errstate(over="ignore"):  # becomes infinity, which is refused
        return np.ascontiguousarray(array.astype(np.float16) if _is_floating(array) else array).reshape(
            array.shape
        )


def _sort_header(content: bytes) -> bytes:
    """Sort the metadata in the file's header.

    safetensors writes it in random order, so that the same weights would not give the same file.
    """
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    ordered = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
    text = json.dumps(ordered, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def load_weights(path: Path, trust: TrustPolicy = TrustPolicy()) -> Weights:
    """Read and check a weights file.

    Parameters
    ----------
    path
        The weights file.
    trust
        Which signatures are required. The signature is verified over the bytes that are loaded.

    Returns
    -------
    Weights
        The model card, tensors and hashes.

    Raises
    ------
    WeightsError
        If the file is missing, cut short, altered or not trusted, or if its card or a tensor is not valid.
    """
    return _parse_weights(path, read_verified_content(path, trust))


def _parse_weights(path: Path, content: WeightsContent) -> Weights:
    """Parse the content of a weights file; the path is used in messages."""
    metadata, entries = _parse_header(path, content.data)
    if metadata.get("schema_version") != str(SCHEMA_VERSION) or "card" not in metadata:
        raise WeightsError(message("weights-other-version", path=path, version=SCHEMA_VERSION))
    _check_tensor_entries(path, entries)
    stored_tensors = _parse_tensors(path, content.data)
    if metadata.get("sha256") != _compute_digest(metadata["card"], stored_tensors):
        raise WeightsError(message("weights-altered", path=path))
    tensors = {name: _to_array(tensor) for name, tensor in stored_tensors.items()}
    card = parse_card(path, metadata["card"])
    _check_tensors(path, tensors, card)
    return Weights(card, tensors, metadata["sha256"], path, content.sha256, content.signature)


def _parse_header(path: Path, content: bytes) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the header's metadata, and the type, shape and position of every tensor."""
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + length])
        metadata = header.pop("__metadata__", {})
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("the metadata is not text")
        return metadata, header
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise WeightsError(message("weights-damaged", path=path, reason=_format_reason(error))) from None


def _check_tensor_entries(path: Path, entries: Mapping[str, Any]) -> None:
    """Raise WeightsError for a tensor of an unsupported type or without elements."""
    for name, entry in entries.items():
        kind, shape = (entry.get(key) for key in ("dtype", "shape")) if isinstance(entry, dict) else (0, 0)
        if kind not in TENSOR_TYPES or not isinstance(shape, list) or 0 in shape:
            raise WeightsError(
                message(
                    "weights-tensor-kind",
                    path=path,
                    names=_format_names([name]),
                    kind=_format_names([str(kind)]),
                )
            )


def _parse_tensors(path: Path, content: bytes) -> dict[str, dict[str, Any]]:
    """Return type, shape and bytes of each tensor as they are stored."""
    try:
        return dict(deserialize(content))
    except (SafetensorError, ValueError, RuntimeError, LookupError, TypeError, AssertionError) as error:
        raise WeightsError(message("weights-damaged", path=path, reason=_format_reason(error))) from error


def _to_array(stored_tensor: Mapping[str, Any]) -> Array:
    array = np.frombuffer(stored_tensor["data"], TENSOR_TYPES[stored_tensor["dtype"]][1])
    if stored_tensor["dtype"] == "BF16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.reshape(stored_tensor["shape"])


def _describe_arrays(arrays: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
    """Describe arrays as ``deserialize`` describes the tensors of a file."""
    kinds = {np.dtype(kind): name for name, (_, kind) in TENSOR_TYPES.items()}
    return {
        name: {"dtype": kinds[array.dtype], "shape": list(array.shape), "data": array.tobytes()}
        for name, array in arrays.items()
    }


def _check_tensors(path: Path, tensors: Mapping[str, Array], card: ModelCard) -> None:
    """Raise WeightsError for a tensor that belongs to no part of the model, or is not finite."""
    parts = {SEGMENTATION_PART, KNOWN_RANGE_PART, *card.markers}
    if card.second_segmentation is not None:
        parts.add(SECOND_SEGMENTATION_PART)
    prior = tensors.get(PRIOR_TENSOR)
    if prior is not None and (prior.ndim != 2 or not _is_floating(prior)):
        parameters = {"found": f"{prior.dtype} {prior.shape}", "wanted": "float (rows, columns)"}
        raise WeightsError(message("weights-tensor-other", path=path, name=PRIOR_TENSOR, **parameters))
    unexpected = [n for n in tensors if n != PRIOR_TENSOR and n.partition("/")[0] not in parts]
    if unexpected:
        raise WeightsError(message("weights-tensor-strange", path=path, names=_format_names(unexpected)))
    non_finite = sorted(name for name, tensor in tensors.items() if not _is_finite(tensor))
    if non_finite:
        raise WeightsError(message("weights-not-numbers", path=path, names=_format_names(non_finite)))


def _is_floating(array: Array) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating))


def _is_finite(array: Array) -> bool:
    return not _is_floating(array) or bool(np.isfinite(array).all())


def _format_names(names: list[str]) -> str:
    """Format up to three names as printable text on one line; a damaged file may contain any name."""
    shown = ", ".join(name if name.isprintable() else ascii(name) for name in names[:3])
    return shown[:200] + (f" (+{len(names) - 3})" if len(names) > 3 else "")


def _format_reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _compute_digest(card: str, stored_tensors: Mapping[str, Mapping[str, Any]]) -> str:
    digest = hashlib.sha256(card.encode())
    for name in sorted(stored_tensors):
        tensor = stored_tensors[name]
        digest.update(f"{name} {TENSOR_TYPES[tensor['dtype']][0]} {tuple(tensor['shape'])}".encode())
        digest.update(tensor["data"])
    return digest.hexdigest()
