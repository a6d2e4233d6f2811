"""What the rest of gliomark needs to know about a network: one entry per network, at the end of the network's file.

Training, prediction, Grad-CAM and weights files ask the entry; none of them knows a network by name or by type. To add
a network, write its file and name its entry in ``registry``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar, get_args

from torch import Tensor, nn

from gliomark.models.network_io import MarkerOutput

Recipe = Literal["published", "small", "pretrained"]
RECIPES: tuple[Recipe, ...] = get_args(Recipe)
MarkerLoss = Literal["bms", "learnt bms", "cross-entropy", "branches"]


class NetworkSettings(Protocol):
    """Settings that determine a network's layers: a frozen dataclass, one class per file of a network."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class SegmentationSettings(NetworkSettings, Protocol):
    """Settings of a segmentation network."""

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        ...


S = TypeVar("S", bound=NetworkSettings)


@dataclass(frozen=True)
class SegmentationTrainingDefaults:
    """What a segmentation network trains with in every recipe; None: as the recipe has it.

    The fields are those of ``training.segmentation.SegmentationTrainingConfig``.
    """

    optimiser: Literal["adamw", "sgd"] | None = None
    rate: float | None = None
    weight_decay: float | None = None
    largest_gradient: float | None = None


@dataclass(frozen=True)
class GradCamBranch:
    """A branch of a marker network for which Grad-CAM is computed.

    Attributes
    ----------
    name
        Name of the branch.
    output
        Key of the network's output that is explained.
    layers
        Submodule of each stage, from stage 1 (finest) on; None where the branch has no such stage.
    sequence
        0 or 1 if the branch uses one sequence only; None if it uses both.
    """

    name: str
    output: str
    layers: tuple[str | None, ...]
    sequence: Literal[0, 1] | None = None


@dataclass(frozen=True)
class GradCam:
    """How Grad-CAM is computed for a marker network.

    Attributes
    ----------
    branches
        The branches; the last one leads to the output used for prediction.
    uses_hirescam
        HiResCAM (Draelos and Carin 2020), the pixelwise product of gradient and feature, instead of Grad-CAM.
    is_sequence_batched
        Both sequences pass through the layers as one batch.
    is_limited_to_lesion
        The network uses only pixels inside the lesion.
    """

    branches: tuple[GradCamBranch, ...]
    uses_hirescam: bool = False
    is_sequence_batched: bool = False
    is_limited_to_lesion: bool = False


def _keep_record(record: Mapping[str, Any]) -> Mapping[str, Any]:
    return record


def _predict_by_call(network: nn.Module, mix: Tensor) -> MarkerOutput:
    output: MarkerOutput = network(mix)
    return output


def _ignore_prior(settings: Any) -> bool:
    return False


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkEntry(Generic[S]):
    """Entry of a network.

    Attributes
    ----------
    name
        Name on the command line and in tables.
    reference
        Publication, in the form "Ronneberger et al. 2015".
    recipes
        Settings of the network in every recipe that it has.
    load_pretrained
        Loads pretrained weights into a new network; required for the pretrained recipe.
    recorded_as
        Name in weights files, if it is not the name; see also ``network_names.RENAMED_ARCHITECTURES``.
    upgrade_record
        Turns settings from an older weights file into those of today.
    """

    name: str
    reference: str
    recipes: Mapping[Recipe, S]
    load_pretrained: Callable[[nn.Module], None] | None = None
    recorded_as: str = ""
    upgrade_record: Callable[[Mapping[str, Any]], Mapping[str, Any]] = _keep_record

    @property
    def settings_type(self) -> type[S]:
        """Class of the settings."""
        return type(next(iter(self.recipes.values())))

    @property
    def record_name(self) -> str:
        """Name in weights files."""
        return self.recorded_as or self.name


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentationEntry(NetworkEntry[S]):
    """Entry of a segmentation network; its settings have the number of input channels, ``inputs``.

    Attributes
    ----------
    build
        Builds the network from its settings and the FPG ``(H, W)``, which is None outside training.
    training
        What differs from the recipe when it is trained.
    uses_prior_weight
        Whether the FPG weights the loss.
    size_multiple
        A convolutional network that was trained on tiles and may see a larger brain at once; its input then has a
        multiple of this number of rows and columns. None: the network sees a larger brain in four tiles.
    """

    build: Callable[[S, Tensor | None], nn.Module]
    training: SegmentationTrainingDefaults = field(default_factory=SegmentationTrainingDefaults)
    uses_prior_weight: Callable[[S], bool] = _ignore_prior
    size_multiple: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class MarkerEntry(NetworkEntry[S]):
    """Entry of a marker network.

    Attributes
    ----------
    build
        Builds the network from its settings.
    get_vector_length
        Length D of the image vector ``(B, D)``.
    grad_cam
        How Grad-CAM is computed; None if it is not offered.
    loss
        Name of the training loss, see ``training.losses.MARKER_LOSSES``.
    predict
        Computes what prediction needs from MIX ``(B, 4, H, W)``, without the layers that only training needs.
    has_frozen_features
        The network is a ``SingleHeadNetwork`` whose features are never trained: only its last layer is fitted, as a
        linear probe, and the image vectors may be cached.
    read_fusion_weights
        Reads learnt weights of fusion ``(fusion, branch)`` for the tables; None if the network has none.
    """

    build: Callable[[S], nn.Module]
    get_vector_length: Callable[[S], int]
    grad_cam: Callable[[S], GradCam] | None = None
    loss: MarkerLoss = "cross-entropy"
    predict: Callable[[nn.Module, Tensor], MarkerOutput] = _predict_by_call
    has_frozen_features: bool = False
    read_fusion_weights: Callable[[nn.Module], list[list[float]]] | None = None
