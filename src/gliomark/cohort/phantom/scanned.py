"""One synthetic patient as a hospital scans them: every series on its own oblique grid, the head moved between.

A person, their labels and their look are those of the same seed in ``phantom``; only the imaging differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from gliomark.cohort.phantom import Person, PhantomSettings, as_series, draw_person, outline, render
from gliomark.cohort.phantom.appearance import AppearanceSettings, Look
from gliomark.cohort.phantom.head import CENTRE_LPS
from gliomark.cohort.phantom.paint import scan
from gliomark.study import Clinical, GliomarkError, MRSequence, Series, Study

Doubles = NDArray[np.float64]
REFERENCE = MRSequence.T2
TRANSFER_SYNTAXES = ("explicit", "implicit", "rle")


@dataclass(frozen=True)
class HospitalSettings:
    """How the hospital scans and exports.

    motion_mm, motion_degrees: largest shift and turn of the head between T2 and any other series;
    thickness_mm, gap_mm, matrix, field_mm: what each series draws its own from; oblique_degrees: largest
    turn of a series' slices; offset_mm: how far its field's middle may lie off the head's; height_mm: what
    the slices cover; noise: Rician sigma as a share of white matter on T1; sublayers: layers averaged into a
    slice; distractors: also export what is none of the four sequences; outline: what the SEG outlines, the
    core (METHOD 2.6) or the FLAIR abnormality; transfer_syntaxes: drawn per patient; appearance: the labels'
    effect on the image.
    """

    motion_mm: float = 12.0
    motion_degrees: float = 8.0
    thickness_mm: tuple[float, ...] = (5.0, 5.5, 6.0)
    gap_mm: tuple[float, ...] = (0.0, 0.3, 0.5)
    matrix: tuple[int, ...] = (192, 208, 224, 256)
    field_mm: tuple[float, float] = (220.0, 250.0)
    oblique_degrees: float = 5.0
    offset_mm: float = 4.0
    height_mm: float = 160.0
    noise: float = 0.03
    sublayers: int = 2
    distractors: bool = True
    outline: Literal["core", "flair"] = "core"
    transfer_syntaxes: tuple[str, ...] = ("explicit", "implicit", "explicit", "rle")
    appearance: AppearanceSettings = AppearanceSettings()

    def __post_init__(self) -> None:
        """Refuse what cannot be scanned."""
        if min(self.motion_mm, self.motion_degrees, self.oblique_degrees, self.offset_mm, *self.gap_mm) < 0:
            raise GliomarkError(
                f"A movement, tilt or gap of the synthetic hospital is below 0: correct {self}."
            )
        if min(*self.thickness_mm, *self.matrix, *self.field_mm, self.height_mm, self.sublayers) <= 0:
            raise GliomarkError(f"A size of the synthetic hospital's images is not positive: correct {self}.")
        unknown = set(self.transfer_syntaxes) - set(TRANSFER_SYNTAXES)
        if unknown or not self.transfer_syntaxes:
            raise GliomarkError(
                f"The synthetic hospital writes no {' or '.join(sorted(unknown)) or 'nothing'}: choose among "
                f"{', '.join(TRANSFER_SYNTAXES)}."
            )


@dataclass(frozen=True, eq=False)
class HospitalPatient:
    """A scanned patient with what only a phantom knows.

    study: T1, T1C, T2, FLAIR, each on its own grid; its lesion is what the reader outlined (on T2's grid).
    motion: per sequence the rigid LPS 4x4 that takes a point of T2's patient coordinates to the same
    anatomical point in that series' coordinates. lesion (FLAIR abnormality), core, brain: on T2's grid.
    """

    seed: int
    study: Study
    clinical: Clinical
    look: Look | None
    motion: Mapping[MRSequence, Doubles]
    lesion: Series
    core: Series
    brain: Series
    person: Person
    settings: HospitalSettings


def hospital_patient(
    seed: int,
    settings: HospitalSettings = HospitalSettings(),
    sequences: tuple[MRSequence, ...] = tuple(MRSequence),
) -> HospitalPatient:
    """The patient of a seed, scanned. ``sequences``: those to scan beside T2, to save time."""
    noise = settings.appearance.noise
    person = draw_person(seed, _patient_id(seed), PhantomSettings(appearance_noise=noise))
    motion = {name: _movement(seed, name, settings) for name in MRSequence}
    series, truth = {}, {}
    for number, name in enumerate(MRSequence):
        if name not in sequences and name != REFERENCE:
            continue
        chance = np.random.default_rng([seed, 20 + number])
        grid, affine = _own_grid(settings, chance)
        to_rest: Doubles = np.linalg.inv(motion[name]).astype(np.float64)
        signal, shares = render(person, (name,), affine, grid, to_rest)
        place = Path(person.clinical.patient_id) / name.value
        series[name] = as_series(scan(signal[0], affine, settings.noise, chance), affine, place)
        if name == REFERENCE:
            truth = {what: as_series(outline(share), affine, place) for what, share in shares.items()}
    study = Study(
        patient_id=person.clinical.patient_id,
        series=series,
        source=Path(person.clinical.patient_id),
        kind="volumes",
        lesion=truth["core" if settings.outline == "core" else "lesion"],
        notes=("Synthetic patient: not a person.",),
    )
    return HospitalPatient(
        seed, study, person.clinical, person.look, motion, **truth, person=person, settings=settings
    )


def _patient_id(seed: int) -> str:
    """A hospital's number for a seed: no order in it, yet no two seeds below ten million share one."""
    return f"{(seed * 7_654_321 + 1_234_567) % 10_000_019:08d}"


def _movement(seed: int, name: MRSequence, settings: HospitalSettings) -> Doubles:
    """A head's displacement since T2: a turn about its middle, then a shift."""
    chance = np.random.default_rng([seed, 10, list(MRSequence).index(name)])
    axis, direction = chance.standard_normal((2, 3))
    degrees, shift_mm = chance.uniform(0, 1, 2) * [settings.motion_degrees, settings.motion_mm]
    matrix = np.eye(4)
    if name != REFERENCE:
        turn = Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()
        centre = np.array(CENTRE_LPS)
        matrix[:3, :3] = turn
        matrix[:3, 3] = centre - turn @ centre + shift_mm * direction / np.linalg.norm(direction)
    return matrix


def movement_of(matrix: Doubles) -> tuple[Doubles, Doubles]:
    """A displacement's shift of the head's middle (LPS mm) and its turn (rotation vector, degrees)."""
    centre = np.array(CENTRE_LPS)
    shift = matrix[:3, :3] @ centre + matrix[:3, 3] - centre
    return shift, np.degrees(Rotation.from_matrix(matrix[:3, :3]).as_rotvec())


def _own_grid(settings: HospitalSettings, chance: np.random.Generator) -> tuple[PhantomSettings, Doubles]:
    """A series' counts and its affine: own pixels, thickness, tilt and field."""
    matrix = int(chance.choice(settings.matrix))
    pixel_mm = round(float(chance.uniform(*settings.field_mm)) / matrix, 4)
    step_mm = float(chance.choice(settings.thickness_mm) + chance.choice(settings.gap_mm))
    slices = int(np.ceil(settings.height_mm / step_mm))
    tilt = Rotation.from_euler("xyz", chance.uniform(-1, 1, 3) * settings.oblique_degrees, degrees=True)
    affine = np.eye(4)
    affine[:3, :3] = tilt.as_matrix() * [pixel_mm, pixel_mm, step_mm]
    middle = np.array(CENTRE_LPS) + chance.uniform(-1, 1, 3) * settings.offset_mm
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array([matrix, matrix, slices]) - 1) / 2)
    grid = PhantomSettings((pixel_mm, pixel_mm), step_mm, matrix, slices, sublayers=settings.sublayers)
    return replace(grid, noise=settings.noise), affine
