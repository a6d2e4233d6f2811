"""Registry of all networks: look-up by name, by settings and by the record in a weights file.

A network is one file with an ``ENTRY``, named in one of the two tuples below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from gliomark.errors import ConfigurationError, WeightsError
from gliomark.messages import message
from gliomark.models.comparison import (
    attention_unet,
    centralnet,
    middle_fusion,
    nnunet,
    resnest50,
    resnet50,
    transunet,
    unet,
)
from gliomark.models.entries import (
    RECIPES,
    MarkerEntry,
    NetworkEntry,
    NetworkSettings,
    Recipe,
    SegmentationEntry,
    SegmentationSettings,
)
from gliomark.models.network_names import UNNAMED_ARCHITECTURES
from gliomark.models.pretrained import efficientnet_unet, lesion_pooled_features
from gliomark.models.published import kinet, mignet
from gliomark.models.validated_types import parse_record

# of two entries with the same settings class, the first is the one that weights files record
SEGMENTATION_NETWORKS: tuple[SegmentationEntry[Any], ...] = (
    mignet.ENTRY,
    mignet.SWIN_UNET_ENTRY,
    unet.ENTRY,
    attention_unet.ENTRY,
    transunet.ENTRY,
    nnunet.ENTRY,
    efficientnet_unet.ENTRY,
)
MARKER_NETWORKS: tuple[MarkerEntry[Any], ...] = (
    kinet.ENTRY,
    resnet50.ENTRY,
    middle_fusion.ENTRY,
    resnest50.ENTRY,
    centralnet.ENTRY,
    lesion_pooled_features.ENTRY,
)
# the network that a recipe trains unless another one is named
SEGMENTATION_DEFAULTS: Mapping[Recipe, str] = {
    "published": "MIG-Net",
    "small": "MIG-Net",
    "pretrained": "EfficientNet U-Net",
}
MARKER_DEFAULTS: Mapping[Recipe, str] = {
    "published": "KiNet",
    "small": "KiNet",
    "pretrained": "Lesion-pooled features",
}

Entry = TypeVar("Entry", bound=NetworkEntry[Any])


def list_entries() -> tuple[NetworkEntry[Any], ...]:
    """List the entries of all networks."""
    return (*SEGMENTATION_NETWORKS, *MARKER_NETWORKS)


def get_segmentation_entry(name: str) -> SegmentationEntry[Any]:
    """Return the entry of a segmentation network by its name.

    Raises
    ------
    ConfigurationError
        If there is none; the message suggests the closest name.
    """
    return _get_entry(SEGMENTATION_NETWORKS, name)


def get_marker_entry(name: str) -> MarkerEntry[Any]:
    """Return the entry of a marker network by its name.

    Raises
    ------
    ConfigurationError
        If there is none; the message suggests the closest name.
    """
    return _get_entry(MARKER_NETWORKS, name)


def choose_segmentation_entry(recipe: Recipe, name: str | None = None) -> SegmentationEntry[Any]:
    """Choose the segmentation network of a recipe by name; None: the recipe's own.

    Raises
    ------
    ConfigurationError
        If the recipe or the network is unknown, or the network does not have the recipe.
    """
    _check_recipe(recipe)
    return _check_has_recipe(get_segmentation_entry(name or SEGMENTATION_DEFAULTS[recipe]), recipe)


def choose_marker_entry(recipe: Recipe, name: str | None = None) -> MarkerEntry[Any]:
    """Choose the marker network of a recipe by name; None: the recipe's own.

    Raises
    ------
    ConfigurationError
        If the recipe or the network is unknown, or the network does not have the recipe.
    """
    _check_recipe(recipe)
    return _check_has_recipe(get_marker_entry(name or MARKER_DEFAULTS[recipe]), recipe)


def find_segmentation_entry(settings: SegmentationSettings) -> SegmentationEntry[Any]:
    """Find the entry to which the settings of a segmentation network belong."""
    return _find_entry(SEGMENTATION_NETWORKS, settings)


def find_marker_entry(settings: NetworkSettings) -> MarkerEntry[Any]:
    """Find the entry to which the settings of a marker network belong."""
    return _find_entry(MARKER_NETWORKS, settings)


def build_segmentation_network(settings: SegmentationSettings, prior: Tensor | None = None) -> nn.Module:
    """Build a segmentation network, called as ``network(image, theta)``, that returns a ``SegmentationOutput``.

    Its settings are kept as ``network.settings``. prior: the FPG ``(H, W)`` from which MIG-Net's alpha is initialised;
    most networks do not use it.
    """
    network = find_segmentation_entry(settings).build(settings, prior)
    object.__setattr__(network, "settings", settings)
    return network


def build_marker_network(settings: NetworkSettings) -> nn.Module:
    """Build a marker network, called as ``network(mix)``, that returns a ``MarkerOutput``.

    Its settings are kept as ``network.settings``, by which prediction and Grad-CAM find the entry of the network.
    """
    network = find_marker_entry(settings).build(settings)
    object.__setattr__(network, "settings", settings)
    return network


def get_network_settings(network: nn.Module) -> Any:
    """Return the settings from which the registry built a network."""
    return network.settings


def load_pretrained_weights(network: nn.Module) -> None:
    """Load the pretrained weights that the entry of a network provides.

    Raises
    ------
    ConfigurationError
        If there are none, or they are not installed.
    """
    entry = _find_entry(list_entries(), get_network_settings(network))
    if entry.load_pretrained is None:
        names = ", ".join(one.name for one in list_entries() if one.load_pretrained is not None)
        raise ConfigurationError(f"{entry.name} has no pretrained weights; choose one of {names}.")
    entry.load_pretrained(network)


def to_network_record(settings: NetworkSettings) -> dict[str, Any]:
    """Convert settings to the record that a weights file holds."""
    entry = _find_entry(list_entries(), settings)
    return {"architecture": entry.record_name, **asdict(settings)}


def to_identity_record(settings: NetworkSettings) -> dict[str, Any]:
    """Convert settings to the form by which finished and interrupted trainings are recognised.

    It does not name the architecture of MIG-Net and KiNet, so that work folders of gliomark 0.1 stay valid.
    """
    record = to_network_record(settings)
    if record["architecture"] in UNNAMED_ARCHITECTURES:
        del record["architecture"]
    return record


def parse_segmentation_settings(record: Mapping[str, Any]) -> SegmentationSettings:
    """Parse the settings of a segmentation network; the inverse of ``to_network_record``.

    Raises
    ------
    ValueError
        If the record is not valid.
    WeightsError
        If the network is unknown, or its layers of that version are no longer supported.
    """
    return cast(SegmentationSettings, _parse_settings(SEGMENTATION_NETWORKS, record))


def parse_marker_settings(record: Mapping[str, Any]) -> NetworkSettings:
    """Parse the settings of a marker network; the inverse of ``to_network_record``.

    Raises
    ------
    ValueError
        If the record is not valid.
    WeightsError
        If the network is unknown.
    """
    return cast(NetworkSettings, _parse_settings(MARKER_NETWORKS, record))


def describe_networks() -> str:
    """Describe all networks in a table of text: name, kind, recipes, reference."""
    rows = [("name", "kind", "recipes", "reference")]
    for kind, entries in (("segmentation", SEGMENTATION_NETWORKS), ("marker", MARKER_NETWORKS)):
        rows += [(entry.name, kind, ", ".join(entry.recipes), entry.reference) for entry in entries]
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    lines = ("".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def _parse_settings(entries: Sequence[NetworkEntry[Any]], record: Mapping[str, Any]) -> object:
    architecture = record.get("architecture", entries[0].record_name)
    entry = next((one for one in entries if one.record_name == architecture), None)
    if entry is None:
        raise WeightsError(message("network-unknown", name=str(architecture)[:80]))
    fields = {key: value for key, value in record.items() if key != "architecture"}
    parsed: object = parse_record(entry.settings_type, entry.upgrade_record(fields))
    return parsed


def _find_entry(entries: Sequence[Entry], settings: NetworkSettings) -> Entry:
    return next(entry for entry in entries if entry.settings_type is type(settings))


def _get_entry(entries: Sequence[Entry], name: str) -> Entry:
    names = {entry.name: entry for entry in entries}
    if name in names:
        return names[name]
    by_lower_case = {one.lower(): one for one in names}
    closest = get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.4)
    suggestion = f" (did you mean '{by_lower_case[closest[0]]}'?)" if closest else ""
    raise ConfigurationError(
        f"There is no network named '{name}'{suggestion}; it must be one of {', '.join(names)}."
    )


def _check_recipe(recipe: str) -> None:
    if recipe not in RECIPES:
        raise ConfigurationError(f"The recipe '{recipe}' is unknown; it must be one of {', '.join(RECIPES)}.")


def _check_has_recipe(entry: Entry, recipe: str) -> Entry:
    if recipe not in entry.recipes:
        raise ConfigurationError(
            f"{entry.name} has no recipe '{recipe}'; choose {' or '.join(entry.recipes)}, or another network."
        )
    return entry
