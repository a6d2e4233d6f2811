"""Group DICOM files into series of one acquisition each.

Files that share a SeriesInstanceUID are split into separate series (``UID#1``, ``UID#2`` and so on) if patient, study,
matrix, orientation, echo or time point differ.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomark.io.dicom.duplicate_uids import find_uid_conflicts
from gliomark.io.dicom.header_metadata import find_nearest_plane
from gliomark.io.dicom.instances import Frame, Instance, InstanceFrame
from gliomark.io.dicom.repeated_images import remove_copied_images, split_by_time
from gliomark.io.dicom.series_recognition import SeriesContext, SeriesRecognition, recognise_series
from gliomark.io.dicom.slice_positions import SAME_POSITION_MM, SlicePositions, fit_slice_positions
from gliomark.io.naming import normalise_patient_id

_ORIENTATION_TOLERANCE = 2e-3  # difference of a direction cosine; above it, the orientation differs
_ECHO_TIME_TOLERANCE_MS = 0.5
_MIN_PLANE_COSINE = 0.9  # cosine to the nearest plane; below it, a series is called oblique


@dataclass(frozen=True)
class DicomSeries:
    """One acquisition. series_key is the SeriesInstanceUID, followed by ``#n`` if several series share it.

    instances: each with only the frames of this series. copy_count: images that were removed as copies.
    conflicting_files: two files with the same SOP Instance UID but different images, one of them in this series.
    """

    series_key: str
    instances: tuple[Instance, ...]
    series_context: SeriesContext = SeriesContext()  # noqa: RUF009
    copy_count: int = 0
    conflicting_files: tuple[Path, Path] | None = None

    @property
    def first_instance(self) -> Instance:
        """The first instance; its header stands for the series."""
        return self.instances[0]

    @property
    def patient_id(self) -> str:
        """PatientID, "" if not stated."""
        return self.first_instance.patient_id

    @property
    def patient_name(self) -> str:
        """PatientName, "" if not stated."""
        return self.first_instance.patient_name

    @property
    def birth_date(self) -> str:
        """PatientBirthDate, YYYYMMDD or ""."""
        return self.first_instance.birth_date

    @property
    def sex(self) -> str:
        """PatientSex in upper case, "" if not stated."""
        return self.first_instance.sex

    @property
    def age(self) -> str:
        """PatientAge as written (``045Y``), "" if not stated."""
        return self.first_instance.age

    @property
    def study_instance_uid(self) -> str:
        """StudyInstanceUID, "" if not stated."""
        return self.first_instance.study_instance_uid

    @property
    def study_date(self) -> str:
        """StudyDate, YYYYMMDD or ""."""
        return self.first_instance.study_date

    @property
    def examination_date(self) -> str:
        """Date of the examination, YYYYMMDD: StudyDate, else the acquisition date; "" if neither is stated."""
        acquired = self.first_instance.acquisition_datetime[:8]
        return self.study_date or (acquired if re.fullmatch(r"(19|20)\d{6}", acquired) else "")

    @property
    def series_description(self) -> str:
        """SeriesDescription, "" if not stated."""
        return self.first_instance.series_description

    @cached_property
    def image_count(self) -> int:
        """Number of images: files, or frames of multi-frame files."""
        return sum(len(instance.frames) for instance in self.instances)

    @cached_property
    def instance_frames(self) -> tuple[InstanceFrame, ...]:
        """All images, each with its file's header."""
        return tuple((instance, frame) for instance in self.instances for frame in instance.frames)

    @cached_property
    def plane(self) -> str:
        """``axial``, ``sagittal`` or ``coronal``; ``oblique`` if more than 25 degrees off; "" if not stated."""
        orientation = self.instance_frames[0][1].orientation if self.instance_frames else None
        plane, cosine = find_nearest_plane(orientation)
        return plane if not plane or cosine >= _MIN_PLANE_COSINE else "oblique"

    @cached_property
    def slice_positions(self) -> SlicePositions | None:
        """Positions of the slices along the normal; None if there are fewer than two different ones."""
        normal = _compute_slice_normal(self.instance_frames[0][1]) if self.instance_frames else None
        positions = [
            position
            for _, frame in self.instance_frames
            if (position := _compute_position_along_normal(frame, normal)) is not None
        ]
        distinct_positions = np.unique(np.asarray(positions, dtype=np.float64))
        if len(distinct_positions) == 0:
            return None
        distinct_positions = distinct_positions[
            np.concatenate(([True], np.diff(distinct_positions) > SAME_POSITION_MM))
        ]
        return fit_slice_positions(distinct_positions) if len(distinct_positions) > 1 else None

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        """Spacing between rows, columns and slices in mm; None if the headers do not state it."""
        spacing = self.instance_frames[0][1].pixel_spacing_mm if self.instance_frames else None
        if spacing is None or self.slice_positions is None:
            return None
        return (spacing[0], spacing[1], round(self.slice_positions.slice_spacing_mm, 4))

    @cached_property
    def recognition(self) -> SeriesRecognition:
        """The sequence or other kind of the series, with the reason."""
        slice_spacing_mm = round(self.slice_positions.slice_spacing_mm, 4) if self.slice_positions else None
        return recognise_series(
            self.first_instance.metadata, self.image_count, slice_spacing_mm, self.series_context
        )

    @property
    def acquisition_parameters(self) -> dict[str, Any]:
        """Scanner and acquisition parameters without personal data, ready for JSON; None for unknown values."""
        first, metadata = self.first_instance, self.first_instance.metadata
        return {
            "manufacturer": first.manufacturer or None,
            "model": first.scanner_model or None,
            "field_strength_t": first.field_strength_tesla,
            "repetition_ms": metadata.repetition_time_ms,
            "echo_ms": self.instance_frames[0][1].echo_time_ms
            if self.instance_frames
            else metadata.echo_time_ms,
            "inversion_ms": metadata.inversion_time_ms,
            "spacing_mm": list(self.spacing_mm) if self.spacing_mm else None,
            "matrix": [first.rows, first.columns] if first.rows else None,
            "slices": len(self.slice_positions.measured_mm) if self.slice_positions else self.image_count,
        }


def _compute_slice_normal(frame: Frame) -> NDArray[np.float64] | None:
    orientation = frame.orientation
    return None if orientation is None else np.cross(orientation[:3], orientation[3:])


def _compute_position_along_normal(frame: Frame, normal: NDArray[np.float64] | None) -> float | None:
    """Return the position along the normal in mm; all frames use one normal, as theirs differ in the last digits."""
    if frame.position is None or frame.orientation is None or normal is None:
        return None
    return float(np.dot(frame.position, normal))


# ---- grouping ---------------------------------------------------------------------------------------


def group_series(instances: Iterable[Instance]) -> tuple[DicomSeries, ...]:
    """Group instances into series, in order of their key; a copied file (same UID and position) counts once."""
    by_uid: dict[str, list[Instance]] = defaultdict(list)
    for instance in sorted(instances, key=lambda one: (one.sop_instance_uid, str(one.file))):
        by_uid[instance.series_instance_uid or str(instance.file.parent)].append(instance)
    found = [series for uid in sorted(by_uid) for series in _split_shared_uid(uid, by_uid[uid])]
    conflicts = find_uid_conflicts(one for instances in by_uid.values() for one in instances)
    return tuple(_with_clash(series, conflicts) for series in found)


def _with_clash(series: DicomSeries, conflicts: Mapping[Path, tuple[Path, Path]]) -> DicomSeries:
    pair = next((conflicts[one.file] for one in series.instances if one.file in conflicts), None)
    return series if pair is None else replace(series, conflicting_files=pair)


def get_patient_identity(instance: Instance) -> tuple[str, str, str]:
    """Return patient id, name and birth date as in the header, ignoring case and spacing."""
    name = re.sub(r"[\s^=,.-]+", " ", unicodedata.normalize("NFKC", instance.patient_name)).strip().casefold()
    return normalise_patient_id(instance.patient_id), name, instance.birth_date


def _split_shared_uid(uid: str, instances: Sequence[Instance]) -> list[DicomSeries]:
    """Split the instances of one SeriesInstanceUID into series."""
    instances_by_owner: dict[tuple[Any, ...], list[Instance]] = defaultdict(list)
    for instance in instances:
        instances_by_owner[
            *get_patient_identity(instance), instance.study_instance_uid, instance.sop_class_uid
        ].append(instance)
    split_series = [
        stack
        for key in sorted(instances_by_owner, key=str)
        for stack in _split_by_acquisition(instances_by_owner[key])
    ]
    is_split = len(split_series) > 1
    return [
        replace(stack, series_key=f"{uid}#{number}" if is_split else uid)
        for number, stack in enumerate(split_series, start=1)
    ]


def _split_by_acquisition(instances: Sequence[Instance]) -> list[DicomSeries]:
    """Split one patient's instances by matrix, image type, agent, orientation, spacing, echo and time point."""
    kept, copies = _remove_copied_instances(instances)
    instance_frames = [(instance, frame) for instance in kept for frame in instance.frames]
    if not instance_frames:
        return [DicomSeries("", tuple(kept), copy_count=copies)]
    similar_groups = sorted(_group_similar_frames(instance_frames), key=_compute_sort_key)
    unique_groups = [remove_copied_images(stack) for stack in similar_groups]
    copies += sum(map(len, similar_groups)) - sum(map(len, unique_groups))
    split_groups = [split_by_time(stack) for stack in unique_groups]
    series_context = _create_series_context(unique_groups, split_groups)
    split_series = [
        DicomSeries(
            "",
            _collect_instances(stack),
            replace(series_context, repeat_count=len(moments), has_constant_agent=True),
            copies,
        )
        for moments in split_groups
        for stack in moments
    ]
    return split_series


def _remove_copied_instances(instances: Sequence[Instance]) -> tuple[list[Instance], int]:
    kept: dict[tuple[Any, ...], Instance] = {}
    for instance in instances:
        position = instance.frames[0].position if instance.frames else None
        kept.setdefault(
            (instance.sop_instance_uid or str(instance.file), position, len(instance.frames)), instance
        )
    return list(kept.values()), len(instances) - len(kept)


def _group_similar_frames(instance_frames: Sequence[InstanceFrame]) -> list[list[InstanceFrame]]:
    """Group frames of the same matrix, image type and agent, and of similar orientation, spacing and echo time."""
    groups_by_key: dict[tuple[Any, ...], list[list[InstanceFrame]]] = defaultdict(list)
    for instance_frame in instance_frames:
        instance, frame = instance_frame
        kind = _drop_varying_image_types(frame.image_type)
        groups = groups_by_key[instance.rows, instance.columns, kind, bool(instance.metadata.contrast_agent)]
        matching_group = next((one for one in groups if _is_same_acquisition(one[0][1], frame)), None)
        if matching_group is None:
            groups.append([instance_frame])
        else:
            matching_group.append(instance_frame)
    return [group for groups in groups_by_key.values() for group in groups]


def _drop_varying_image_types(image_type: tuple[str, ...]) -> tuple[str, ...]:
    """Return ImageType without the values that vary between slices of one acquisition."""
    return tuple(
        sorted({part for part in image_type if part not in {"PRIMARY", "SECONDARY", "OTHER", "NONE"}})
    )


def _is_same_acquisition(one: Frame, other: Frame) -> bool:
    return (
        _is_close(one.orientation, other.orientation, _ORIENTATION_TOLERANCE)
        and _is_close(one.pixel_spacing_mm, other.pixel_spacing_mm, 1e-3)
        and _is_close(
            (one.echo_time_ms,) if one.echo_time_ms else None,
            (other.echo_time_ms,) if other.echo_time_ms else None,
            _ECHO_TIME_TOLERANCE_MS,
        )
        and (one.b_value > 0) == (other.b_value > 0)
    )


def _is_close(one: tuple[float, ...] | None, other: tuple[float, ...] | None, tolerance: float) -> bool:
    if one is None or other is None:
        return one is other
    return all(abs(a - b) <= tolerance for a, b in zip(one, other, strict=True))


def _create_series_context(
    alike: Sequence[list[InstanceFrame]], repeated: Sequence[list[list[InstanceFrame]]]
) -> SeriesContext:
    frames = [frame for stack in alike for _, frame in stack]
    echoes = {round(frame.echo_time_ms, 1) for frame in frames if frame.echo_time_ms}
    planes = {find_nearest_plane(stack[0][1].orientation)[0] for stack in alike}
    return SeriesContext(
        series_count=sum(len(moments) for moments in repeated),
        echo_count=len(echoes),
        plane_count=len(planes - {""}),
        max_b_value=max(frame.b_value for frame in frames),
    )


def _compute_sort_key(instance_frames: Sequence[InstanceFrame]) -> tuple[Any, ...]:
    """Compute the sort key of a series within its UID; it does not depend on file order."""
    instance, frame = instance_frames[0]
    rounded_orientation = tuple(round(value, 3) for value in frame.orientation or ())
    lowest = min(piece[0].instance_number for piece in instance_frames)
    return (
        instance.rows,
        instance.columns,
        rounded_orientation,
        frame.echo_time_ms or 0.0,
        frame.b_value,
        frame.image_type,
        lowest,
    )


def _collect_instances(instance_frames: Sequence[InstanceFrame]) -> tuple[Instance, ...]:
    """Return the files of a series by position, each with only the frames, and their metadata, of that series."""
    frames: dict[int, list[Frame]] = defaultdict(list)
    files: dict[int, Instance] = {}
    normal = _compute_slice_normal(instance_frames[0][1])
    for instance, frame in sorted(
        instance_frames,
        key=lambda one: (_compute_position_along_normal(one[1], normal) or 0.0, one[0].sop_instance_uid),
    ):
        frames[id(instance)].append(frame)
        files[id(instance)] = instance
    return tuple(_restrict_to_frames(files[one], tuple(frames[one])) for one in files)


def _restrict_to_frames(instance: Instance, frames: tuple[Frame, ...]) -> Instance:
    first = frames[0]
    metadata = replace(
        instance.metadata,
        echo_time_ms=first.echo_time_ms,
        image_type=first.image_type,
        b_value=max(f.b_value for f in frames),
        orientation=first.orientation,
        pixel_spacing_mm=first.pixel_spacing_mm,
    )
    return replace(instance, frames=frames, metadata=metadata)
