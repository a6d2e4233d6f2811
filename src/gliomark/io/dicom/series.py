"""DICOM series: files grouped into stacks of one kind.

A SeriesInstanceUID is not taken at its word: files of different patients, examinations, sizes, orientations,
echoes or repeats in time that share one are parted into stacks of their own, ``UID#1``, ``UID#2`` and so on.
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

from gliomark.io.dicom.duplicates import clashes
from gliomark.io.dicom.facts import nearest_plane
from gliomark.io.dicom.instances import Frame, Instance, Piece
from gliomark.io.dicom.recognition import Recognition, Surroundings, recognise_facts
from gliomark.io.dicom.repeats import by_time, without_copies
from gliomark.io.dicom.spacing import SAME_PLACE_MM, SliceGrid, slice_grid
from gliomark.io.naming import same_id

_TURN = 2e-3  # of a direction cosine: more is another orientation
_ECHO_MS = 0.5
_STRAIGHT = 0.9  # cosine to the nearest plane below which a stack is called oblique


@dataclass(frozen=True)
class DicomSeries:
    """One stack: key is the SeriesInstanceUID, with ``#n`` where the UID holds several.

    instances: each with only the frames that belong to this stack. copies: files left out as copies of others.
    clash: two files under one instance UID that show different images, one of them in this stack.
    """

    key: str
    instances: tuple[Instance, ...]
    surroundings: Surroundings = Surroundings()  # noqa: RUF009
    copies: int = 0
    clash: tuple[Path, Path] | None = None

    @property
    def first(self) -> Instance:
        """The instance that speaks for the series."""
        return self.instances[0]

    @property
    def patient_id(self) -> str:
        return self.first.patient_id

    @property
    def patient_name(self) -> str:
        return self.first.patient_name

    @property
    def birth_date(self) -> str:
        return self.first.birth_date

    @property
    def sex(self) -> str:
        return self.first.sex

    @property
    def age(self) -> str:
        return self.first.age

    @property
    def study_uid(self) -> str:
        return self.first.study_uid

    @property
    def study_date(self) -> str:
        return self.first.study_date

    @property
    def date(self) -> str:
        """Of the examination, YYYYMMDD: StudyDate, else when it was acquired; blank where neither is written."""
        acquired = self.first.acquired_at[:8]
        return self.study_date or (acquired if re.fullmatch(r"(19|20)\d{6}", acquired) else "")

    @property
    def description(self) -> str:
        return self.first.description

    @cached_property
    def images(self) -> int:
        """Number of images: files, or frames of multi-frame files."""
        return sum(len(instance.frames) for instance in self.instances)

    @cached_property
    def frames(self) -> tuple[Piece, ...]:
        """All images with their files."""
        return tuple((instance, frame) for instance in self.instances for frame in instance.frames)

    @cached_property
    def plane(self) -> str:
        """``axial``, ``sagittal``, ``coronal``; ``oblique`` when over 25 degrees off; blank when not written."""
        orientation = self.frames[0][1].orientation if self.frames else None
        plane, cosine = nearest_plane(orientation)
        return plane if not plane or cosine >= _STRAIGHT else "oblique"

    @cached_property
    def grid(self) -> SliceGrid | None:
        """The slices' places along the normal; None where there are not two different ones."""
        normal = _normal(self.frames[0][1]) if self.frames else None
        places = [place for _, frame in self.frames if (place := _place(frame, normal)) is not None]
        apart = np.unique(np.asarray(places, dtype=np.float64))
        if len(apart) == 0:
            return None
        apart = apart[np.concatenate(([True], np.diff(apart) > SAME_PLACE_MM))]
        return slice_grid(apart) if len(apart) > 1 else None

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        """Between rows, between columns, between slices; None where the headers do not state them."""
        spacing = self.frames[0][1].spacing if self.frames else None
        if spacing is None or self.grid is None:
            return None
        return (spacing[0], spacing[1], round(self.grid.step, 4))

    @cached_property
    def recognition(self) -> Recognition:
        """What the series is, and why."""
        step = round(self.grid.step, 4) if self.grid else None
        return recognise_facts(self.first.facts, self.images, step, self.surroundings)

    @property
    def technical(self) -> dict[str, Any]:
        """Facts about the scan that identify nobody, ready for JSON; None where unknown."""
        first, facts = self.first, self.first.facts
        return {
            "manufacturer": first.manufacturer or None,
            "model": first.model or None,
            "field_strength_t": first.field_strength_t,
            "repetition_ms": facts.repetition,
            "echo_ms": self.frames[0][1].echo if self.frames else facts.echo,
            "inversion_ms": facts.inversion,
            "spacing_mm": list(self.spacing_mm) if self.spacing_mm else None,
            "matrix": [first.rows, first.columns] if first.rows else None,
            "slices": len(self.grid.places) if self.grid else self.images,
        }


def _normal(frame: Frame) -> NDArray[np.float64] | None:
    orientation = frame.orientation
    return None if orientation is None else np.cross(orientation[:3], orientation[3:])


def _place(frame: Frame, normal: NDArray[np.float64] | None) -> float | None:
    """Millimetres along the stack's normal: one for all its frames, whose own differ in the last digits."""
    if frame.position is None or frame.orientation is None or normal is None:
        return None
    return float(np.dot(frame.position, normal))


# ---- grouping ---------------------------------------------------------------------------------------


def group_series(instances: Iterable[Instance]) -> tuple[DicomSeries, ...]:
    """Part instances into stacks, in order of their key; a copied file (same instance, same place) counts once."""
    by_uid: dict[str, list[Instance]] = defaultdict(list)
    for instance in sorted(instances, key=lambda one: (one.sop_uid, str(one.file))):
        by_uid[instance.series_uid or str(instance.file.parent)].append(instance)
    found = [series for uid in sorted(by_uid) for series in _series_of(uid, by_uid[uid])]
    clashing = clashes(one for instances in by_uid.values() for one in instances)
    return tuple(_with_clash(series, clashing) for series in found)


def _with_clash(series: DicomSeries, clashing: Mapping[Path, tuple[Path, Path]]) -> DicomSeries:
    pair = next((clashing[one.file] for one in series.instances if one.file in clashing), None)
    return series if pair is None else replace(series, clash=pair)


def owner_key(instance: Instance) -> tuple[str, str, str]:
    """Who a file says it is of: id, name and birth date, spelling of blanks and capitals aside."""
    name = re.sub(r"[\s^=,.-]+", " ", unicodedata.normalize("NFKC", instance.patient_name)).strip().casefold()
    return same_id(instance.patient_id), name, instance.birth_date


def _series_of(uid: str, instances: Sequence[Instance]) -> list[DicomSeries]:
    """The stacks of one SeriesInstanceUID."""
    parted: dict[tuple[Any, ...], list[Instance]] = defaultdict(list)
    for instance in instances:
        parted[*owner_key(instance), instance.study_uid, instance.sop_class].append(instance)
    stacks = [stack for key in sorted(parted, key=str) for stack in _stacks_of(parted[key])]
    several = len(stacks) > 1
    return [replace(stack, key=f"{uid}#{at}" if several else uid) for at, stack in enumerate(stacks, start=1)]


def _stacks_of(instances: Sequence[Instance]) -> list[DicomSeries]:
    """The stacks of one patient's series: by size, kind of image, agent, orientation, spacing, echo and time."""
    kept, copies = _without_copies(instances)
    images = [(instance, frame) for instance in kept for frame in instance.frames]
    if not images:
        return [DicomSeries("", tuple(kept), copies=copies)]
    taken = sorted(_alike(images), key=_order)
    alike = [without_copies(stack) for stack in taken]
    copies += sum(map(len, taken)) - sum(map(len, alike))
    repeated = [by_time(stack) for stack in alike]
    around = _surroundings(alike, repeated)
    stacks = [
        DicomSeries(
            "", _instances(stack), replace(around, repeats=len(moments), agent_throughout=True), copies
        )
        for moments in repeated
        for stack in moments
    ]
    return stacks


def _without_copies(instances: Sequence[Instance]) -> tuple[list[Instance], int]:
    kept: dict[tuple[Any, ...], Instance] = {}
    for instance in instances:
        place = instance.frames[0].position if instance.frames else None
        kept.setdefault((instance.sop_uid or str(instance.file), place, len(instance.frames)), instance)
    return list(kept.values()), len(instances) - len(kept)


def _alike(images: Sequence[Piece]) -> list[list[Piece]]:
    """Groups equal in size, kind and agent, and within a hair in orientation, spacing and echo."""
    exact: dict[tuple[Any, ...], list[list[Piece]]] = defaultdict(list)
    for piece in images:
        instance, frame = piece
        kind = _component(frame.image_type)
        groups = exact[instance.rows, instance.columns, kind, bool(instance.facts.agent)]
        home = next((one for one in groups if _same_stack(one[0][1], frame)), None)
        if home is None:
            groups.append([piece])
        else:
            home.append(piece)
    return [group for groups in exact.values() for group in groups]


def _component(image_type: tuple[str, ...]) -> tuple[str, ...]:
    """ImageType without what varies from slice to slice of one stack."""
    return tuple(
        sorted({part for part in image_type if part not in {"PRIMARY", "SECONDARY", "OTHER", "NONE"}})
    )


def _same_stack(one: Frame, other: Frame) -> bool:
    return (
        _near(one.orientation, other.orientation, _TURN)
        and _near(one.spacing, other.spacing, 1e-3)
        and _near((one.echo,) if one.echo else None, (other.echo,) if other.echo else None, _ECHO_MS)
        and (one.b_value > 0) == (other.b_value > 0)
    )


def _near(one: tuple[float, ...] | None, other: tuple[float, ...] | None, within: float) -> bool:
    if one is None or other is None:
        return one is other
    return all(abs(a - b) <= within for a, b in zip(one, other, strict=True))


def _surroundings(alike: Sequence[list[Piece]], repeated: Sequence[list[list[Piece]]]) -> Surroundings:
    frames = [frame for stack in alike for _, frame in stack]
    echoes = {round(frame.echo, 1) for frame in frames if frame.echo}
    planes = {nearest_plane(stack[0][1].orientation)[0] for stack in alike}
    return Surroundings(
        stacks=sum(len(moments) for moments in repeated),
        echoes=len(echoes),
        planes=len(planes - {""}),
        b_value=max(frame.b_value for frame in frames),
    )


def _order(stack: Sequence[Piece]) -> tuple[Any, ...]:
    """The order of stacks within one UID: the same whatever order the files came in."""
    instance, frame = stack[0]
    turn = tuple(round(value, 3) for value in frame.orientation or ())
    lowest = min(piece[0].order for piece in stack)
    return instance.rows, instance.columns, turn, frame.echo or 0.0, frame.b_value, frame.image_type, lowest


def _instances(stack: Sequence[Piece]) -> tuple[Instance, ...]:
    """The files of a stack, each with the frames that belong to it, by place; facts follow the stack's frames."""
    frames: dict[int, list[Frame]] = defaultdict(list)
    files: dict[int, Instance] = {}
    normal = _normal(stack[0][1])
    for instance, frame in sorted(stack, key=lambda one: (_place(one[1], normal) or 0.0, one[0].sop_uid)):
        frames[id(instance)].append(frame)
        files[id(instance)] = instance
    return tuple(_with_frames(files[one], tuple(frames[one])) for one in files)


def _with_frames(instance: Instance, frames: tuple[Frame, ...]) -> Instance:
    first = frames[0]
    facts = replace(
        instance.facts, echo=first.echo, image_type=first.image_type, b_value=max(f.b_value for f in frames),
        orientation=first.orientation, spacing=first.spacing,
    )  # fmt: skip
    return replace(instance, frames=frames, facts=facts)
