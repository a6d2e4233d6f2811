"""The networks and trees of a weights file, or one sentence that says why its content is none.

A network is first built without memory for its weights, so that what the card states is known to fit the tensors
before anything is allocated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import lightgbm
import torch
from pydantic import Field, with_config
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gliomark.messages import message
from gliomark.models.bounds import STRICT, Share, checked
from gliomark.models.card import SEGMENTATION, unknown
from gliomark.models.marker_networks import build_marker_network, marker_network_settings
from gliomark.models.segmentation_networks import build_segmentation_network, network_settings
from gliomark.models.trees import read_trees
from gliomark.models.weights import TREES, Weights
from gliomark.study import UNFORESEEN, GliomarkError

LARGEST_NETWORK = 2**30  # bytes of weights; the published KiNet has 3e8
# of batch normalisation: its spread, whose root is taken, and a counter that only training reads
NEVER_NEGATIVE = ("running_var", "num_batches_tracked")
Evidence = Literal["vector", "log-odds", "lesion"]
FIGURES = 9  # of the lesion, see ``inference.slice_classifier.lesion_figures``
View = Annotated[int, Field(ge=16, le=240)]
S = TypeVar("S")


@with_config(STRICT)
@dataclass(frozen=True)
class SegmentationUse:
    """How an outlining network is used, as its card says; the fields are ``inference.segmenter.Segmenter``'s."""

    network: Mapping[str, Any]
    tile: View
    pool: Annotated[float, Field(ge=1, le=8)]
    context: Annotated[int, Field(ge=0, le=10)]
    flips: bool
    smallest_share: Share


@with_config(STRICT)
@dataclass(frozen=True)
class MarkerUse:
    """How a marker's network is used, as its card says; the fields are ``inference.slice_classifier``'s."""

    network: Mapping[str, Any]
    crop: View
    evidence: Evidence = "vector"


def outlining_network(weights: Weights) -> tuple[nn.Module, SegmentationUse]:
    """The outlining network, in evaluation mode. Raises GliomarkError where card and tensors make none."""
    place, card = ("segmentation",), weights.card
    use = _checked(SegmentationUse, card.segmentation, weights.path, *place)
    settings = _settings(network_settings, use.network, weights.path, *place)
    inputs = (2 if card.rule == "joint" else 1) * (1 + 2 * use.context)
    if settings.inputs != inputs:
        reason = f"network.inputs: {settings.inputs}, but {inputs} are shown"
        raise GliomarkError(unknown(weights.path, ValueError(reason), *place))
    tensors = weights.part(SEGMENTATION)
    return _filled(lambda: build_segmentation_network(settings), tensors, weights.path, SEGMENTATION), use


def marker_network(weights: Weights, name: str) -> tuple[nn.Module, lightgbm.Booster, MarkerUse]:
    """A marker's network, in evaluation mode, and its trees. Raises GliomarkError where card and tensors make none."""
    place, card = ("markers", name, "architecture"), weights.card.markers[name]
    use = _checked(MarkerUse, card.architecture, weights.path, *place)
    settings = _settings(marker_network_settings, use.network, weights.path, *place)
    tensors = weights.part(name)
    text = tensors.pop(TREES, torch.empty(0))
    network = _filled(lambda: build_marker_network(settings), tensors, weights.path, name)
    length = cast(nn.Linear, network.get_submodule("cat_head")).in_features
    columns = {"vector": length + 1, "log-odds": 1, "lesion": 1 + FIGURES}[use.evidence]
    try:
        trees = read_trees(_text(text), columns + (0 if card.age_cut is None else 2))
    except (ValueError, lightgbm.basic.LightGBMError) as error:
        raise GliomarkError(_told("weights-trees", weights.path, name, error)) from None
    return network, trees, use


def _text(tensor: Tensor) -> str:
    if tensor.dtype != torch.uint8 or tensor.ndim != 1:
        raise ValueError("there is no text of them")
    return bytes(tensor.numpy()).decode("ascii")


def _checked(kind: type[S], record: Mapping[str, Any], path: Path, *place: str) -> S:
    try:
        return checked(kind, record)
    except ValueError as error:
        raise GliomarkError(unknown(path, error, *place)) from None


def _settings(
    read: Callable[[Mapping[str, Any]], S], record: Mapping[str, Any], path: Path, *place: str
) -> S:
    try:
        return read(record)
    except GliomarkError as error:
        raise GliomarkError(_told("weights-network", path, place[0], error)) from None
    except ValueError as error:
        raise GliomarkError(unknown(path, error, *place, "network")) from None


class _WithoutChance(TorchFunctionMode):
    """Networks are built without their first, random weights, since every one of them is read from a file."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func in (Tensor.normal_, Tensor.uniform_) else func(*args, **kwargs or {})


def _filled(
    build: Callable[[], nn.Module], tensors: Mapping[str, Tensor], path: Path, part: str
) -> nn.Module:
    """The network with these weights, in evaluation mode."""
    try:
        with torch.device("meta"), _WithoutChance():
            sketch = build().state_dict()
    except (GliomarkError, *UNFORESEEN, AssertionError) as error:
        raise GliomarkError(_told("weights-network", path, part, error)) from None
    _check_fit(sketch, tensors, path, part)
    try:
        with _WithoutChance():
            network = build()
    except UNFORESEEN as error:
        raise GliomarkError(_told("weights-network", path, part, error)) from None
    _check_values(network, tensors, path, part)
    network.load_state_dict(tensors)
    return network.eval()


def _check_fit(sketch: Mapping[str, Tensor], tensors: Mapping[str, Tensor], path: Path, part: str) -> None:
    """Raise GliomarkError unless every tensor is there, in the shape and kind that the network has it."""
    size = sum(tensor.numel() * tensor.itemsize for tensor in sketch.values())
    if size > LARGEST_NETWORK:
        raise GliomarkError(_told("weights-network", path, part, f"{size / 1e9:.1f} GB of weights"))
    for names in (set(sketch) - set(tensors), set(tensors) - set(sketch)):
        if names:
            code = "weights-tensor-missing" if names & set(sketch) else "weights-tensor-strange"
            raise GliomarkError(message(code, path=path, names=_names(part, names)))
    for name, wanted in sketch.items():
        found = tensors[name]
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            told = {"found": _kind(found), "wanted": _kind(wanted)}
            raise GliomarkError(message("weights-tensor-other", path=path, name=f"{part}/{name}", **told))


def _check_values(network: nn.Module, tensors: Mapping[str, Tensor], path: Path, part: str) -> None:
    """Raise GliomarkError for a spread below 0, and for constants of the network that are others."""
    for name, own in network.state_dict().items():
        found = tensors[name]
        if name.endswith(NEVER_NEGATIVE):
            wrong = bool((found < 0).any())
        else:
            wrong = not own.is_floating_point() and not torch.equal(found, own)
        if wrong:
            raise GliomarkError(message("weights-not-numbers", path=path, names=f"{part}/{name}"))


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _names(part: str, names: set[str]) -> str:
    shown = ", ".join(f"{part}/{name}" for name in sorted(names)[:3])
    return shown[:200] + (f" (+{len(names) - 3})" if len(names) > 3 else "")


def _told(code: str, path: Path, part: str, reason: object) -> str:
    if isinstance(reason, GliomarkError):
        return message(code, path=path, part=part, reason=reason.message)
    return message(code, path=path, part=part, reason=" ".join(str(reason).split())[:160])
