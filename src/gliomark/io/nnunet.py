"""Find the volumes of an nnU-Net or MSD case: ``<folder>/<case>_0000.nii.gz``.

``dataset.json`` in the same folder or its parent names the channels. A case has no folder of its own;
``<folder>/<case>`` denotes it. ``imagesTs`` has the test cases, ``splits_final.json`` the folds of the others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gliomark.errors import InputError
from gliomark.io.folder_listing import (
    get_file_stem,
    list_visible_entries,
    resolve_folder_name,
)
from gliomark.io.naming import (
    find_sequence_in_name,
)
from gliomark.io.volume_files import CHANNEL_FILE_STEM, LESION_ROLE, PatientVolumes, list_direct_volumes
from gliomark.messages import message


def _find_dataset_file(folder: Path) -> Path | None:
    """Find ``dataset.json`` in a folder of images or its parent."""
    candidates = (folder / "dataset.json", folder.parent / "dataset.json")
    return next((file for file in candidates if file.is_file()), None)


def list_image_folders(folder: Path) -> list[Path]:
    """List the image folders of a data set's root: ``imagesTr``, ``imagesTs``."""
    if not folder.is_dir() or not (folder / "dataset.json").is_file():
        return []
    return [
        entry
        for entry in list_visible_entries(folder)
        if entry.is_dir() and entry.name.lower().startswith("images")
    ]


def list_cases(folder: Path) -> dict[str, Path]:
    """List the cases of a folder with the path that denotes each; none without ``dataset.json``."""
    if not folder.is_dir() or _find_dataset_file(folder) is None:
        return {}
    matches = (CHANNEL_FILE_STEM.fullmatch(get_file_stem(file)) for file in list_direct_volumes(folder))
    return {match["case"]: folder / match["case"] for match in matches if match}


@dataclass(frozen=True)
class DatasetSplits:
    """The split that a data set defines.

    validation_parts: the cases that each fold validates, in the order of the folds; empty without
    ``splits_final.json``. test_cases: the cases of ``imagesTs``.
    """

    validation_parts: tuple[tuple[str, ...], ...]
    test_cases: tuple[str, ...]


def read_splits(root: Path) -> DatasetSplits | None:
    """Read the split of a data set; None if the folder is no root of one, or defines none.

    Raises
    ------
    InputError
        If ``splits_final.json`` is damaged.
    """
    folders = list_image_folders(root)
    test_cases = [
        case for folder in folders if folder.name.lower() == "imagests" for case in list_cases(folder)
    ]
    file = root / "splits_final.json"
    parts: tuple[tuple[str, ...], ...] = ()
    if folders and file.is_file():
        try:
            parts = tuple(tuple(map(str, split["val"])) for split in json.loads(file.read_text("utf-8-sig")))
        except (OSError, ValueError, TypeError, LookupError, RecursionError):
            raise InputError(message("dataset-unreadable", file=file)) from None
    return DatasetSplits(parts, tuple(test_cases)) if parts or test_cases else None


def is_single_case(folder: Path) -> bool:
    """Whether a folder of channels contains a single patient."""
    return len(list_cases(folder)) == 1 and not folder.name.lower().startswith("images")


def list_channel_files(case: Path) -> dict[str, Path]:
    """List the files of a case by channel number; ``case`` is the path that denotes it."""
    if not case.parent.is_dir() or _find_dataset_file(case.parent) is None:
        return {}
    files = {
        file: CHANNEL_FILE_STEM.fullmatch(get_file_stem(file)) for file in list_direct_volumes(case.parent)
    }
    return {match["channel"]: file for file, match in files.items() if match and match["case"] == case.name}


def list_case_files(path: Path) -> list[Path]:
    """List all files of a case, including its label image and ``dataset.json``."""
    description, label = _find_dataset_file(path.parent), _find_label_file(path)
    return [*list_channel_files(path).values(), *(file for file in (description, label) if file)]


def find_case_volumes(case: Path, named_path: Path) -> PatientVolumes:
    """Find a case's files by the channel names in ``dataset.json``.

    Parameters
    ----------
    case
        The path ``<folder>/<case>`` that denotes the case.
    named_path
        The path that the user gave, whose name is the patient's id.

    Raises
    ------
    InputError
        If ``dataset.json`` is missing or damaged, or names no sequence, one twice or not all channels.
    """
    file = _find_dataset_file(case.parent)
    if file is None:
        raise InputError(message("volumes-channels-unnamed", folder=case.parent, names=case.name))
    description = _read_dataset_description(file)
    roles: dict[str, Path] = {}
    for channel, volume in list_channel_files(case).items():
        name = _parse_channel_names(description).get(int(channel))
        if name is None:
            raise InputError(message("dataset-no-channel", file=file, channel=channel, volume=volume.name))
        sequence = find_sequence_in_name(name)
        if sequence in roles:
            raise InputError(message("dataset-channel-twice", file=file, sequence=sequence))
        if sequence is not None:
            roles[sequence] = volume
    if not roles:
        names = ", ".join(_parse_channel_names(description).values())
        raise InputError(message("dataset-no-sequence", file=file, names=names))
    label = _find_label_file(case)
    labels = _find_lesion_labels(description) if label else None
    notes = (message("dataset-labels-unknown", file=file.name),) if label and not labels else ()
    if label and labels:
        roles[LESION_ROLE] = label
    return PatientVolumes(resolve_folder_name(named_path), roles, notes=notes, lesion_labels=labels)


def _read_dataset_description(file: Path) -> Mapping[str, object]:
    try:
        description = json.loads(file.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        description = None
    if not isinstance(description, dict):
        raise InputError(message("dataset-unreadable", file=file))
    return description


def _parse_channel_names(description: Mapping[str, object]) -> dict[int, str]:
    """Parse channel names by number: ``channel_names`` (nnU-Net) or ``modality`` (MSD), an object or a list."""
    names = (
        description.get("channel_names") or description.get("modality") or description.get("modalities") or {}
    )
    pairs = enumerate(names) if isinstance(names, list) else names.items() if isinstance(names, dict) else ()
    return {int(key): str(name) for key, name in pairs if str(key).isdecimal()}


def _find_label_file(case: Path) -> Path | None:
    """Find ``labelsTr/<case>.nii.gz`` next to ``imagesTr``."""
    folder = case.parent.parent / re.sub("^images", "labels", case.parent.name, flags=re.IGNORECASE)
    if folder == case.parent or not folder.is_dir():
        return None
    return next((file for file in list_direct_volumes(folder) if get_file_stem(file) == case.name), None)


def _find_lesion_labels(description: Mapping[str, object]) -> frozenset[int] | None:
    """Find the values of a label image that are the lesion without oedema, by the labels' names."""
    labels = description.get("labels")
    if not isinstance(labels, dict):
        return None
    named: dict[str, set[int]] = {}
    for key, value in labels.items():  # nnU-Net maps name to value(s), MSD value to name
        name, values = (str(value), [key]) if str(key).isdecimal() else (str(key), value)
        numbers = values if isinstance(values, list) else [values]
        if all(str(number).isdecimal() for number in numbers):
            named[name.lower()] = {int(number) for number in numbers}
    lesion_values = {name: values for name, values in named.items() if not re.search(_NON_LESION_LABEL, name)}
    core = [values for name, values in lesion_values.items() if re.search(r"core", name)]
    regions = core or [
        values for name, values in lesion_values.items() if not re.search(r"whole|(?<![a-z])wt", name)
    ]
    found = set().union(*(regions or lesion_values.values())) - {0}
    return frozenset(found) or None


_NON_LESION_LABEL = (
    r"background|o?edema|snfh|ignore|brain(?!.*tumou?r)|cavity|(?<![a-z])rc(?![a-z])|(?<![a-z])ed(?![a-z])"
)
