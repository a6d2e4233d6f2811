"""A synthetic patient as scanned in a hospital: each series on its own oblique grid, with movement between series.

Person, labels and appearance are those of the same seed in ``gliomark.phantom``; only the imaging differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from gliomark.errors import ConfigurationError
from gliomark.phantom.anatomy import HEAD_CENTRE_LPS
from gliomark.phantom.appearance import AppearanceSettings, TumourAppearance
from gliomark.phantom.patient import (
    PhantomSettings,
    SyntheticPerson,
    as_series,
    check_noise,
    create_reader_mask,
    render_volumes,
    sample_person,
)
from gliomark.phantom.rendering import simulate_scan
from gliomark.study import ClinicalData, MRSequence, Series, Study

DoubleArray = NDArray[np.float64]
REFERENCE_SEQUENCE = MRSequence.T2
TRANSFER_SYNTAXES = ("explicit", "implicit", "rle")


@dataclass(frozen=True)
class HospitalSettings:
    """Settings of the hospital's scans and export.

    max_motion_mm, max_motion_degrees: maximum shift and rotation of the head between T2 and another series;
    thickness_mm, gap_mm, matrix, field_of_view_mm: values sampled for each series; max_oblique_degrees: maximum tilt
    of the slices; max_offset_mm: maximum offset of the field of view from the head's centre, per axis; coverage_mm:
    extent covered by the slices; noise_sigma: sigma of the Rician noise relative to white matter on T1; sublayers:
    layers averaged into a slice; has_distractors: also export other series; segmented_region: content of the SEG, the
    core (method.md, section 2, step 6) or the FLAIR abnormality; transfer_syntaxes: sampled per patient;
    appearance: effect of the labels on the image.

    Raises
    ------
    ConfigurationError
        If a value is negative, a size not positive, the noise not finite, or a transfer syntax unknown.
    """

    max_motion_mm: float = 12.0
    max_motion_degrees: float = 8.0
    thickness_mm: tuple[float, ...] = (5.0, 5.5, 6.0)
    gap_mm: tuple[float, ...] = (0.0, 0.3, 0.5)
    matrix: tuple[int, ...] = (192, 208, 224, 256)
    field_of_view_mm: tuple[float, float] = (220.0, 250.0)
    max_oblique_degrees: float = 5.0
    max_offset_mm: float = 4.0
    coverage_mm: float = 160.0
    noise_sigma: float = 0.03
    sublayers: int = 2
    has_distractors: bool = True
    segmented_region: Literal["core", "flair"] = "core"
    transfer_syntaxes: tuple[str, ...] = ("explicit", "implicit", "explicit", "rle")
    appearance: AppearanceSettings = AppearanceSettings()

    def __post_init__(self) -> None:
        """Check the settings."""
        if (
            min(
                self.max_motion_mm,
                self.max_motion_degrees,
                self.max_oblique_degrees,
                self.max_offset_mm,
                *self.gap_mm,
            )
            < 0
        ):
            raise ConfigurationError(
                f"A movement, tilt or gap of the synthetic hospital is negative: correct {self}."
            )
        if (
            min(*self.thickness_mm, *self.matrix, *self.field_of_view_mm, self.coverage_mm, self.sublayers)
            <= 0
        ):
            raise ConfigurationError(
                f"A size of the synthetic hospital's images is not positive: correct {self}."
            )
        check_noise(self.noise_sigma)
        unknown = set(self.transfer_syntaxes) - set(TRANSFER_SYNTAXES)
        if unknown or not self.transfer_syntaxes:
            raise ConfigurationError(
                f"The transfer syntax of the synthetic hospital is {' or '.join(sorted(unknown)) or 'nothing'}: "
                f"choose among {', '.join(TRANSFER_SYNTAXES)}."
            )


@dataclass(frozen=True, eq=False)
class HospitalPatient:
    """A scanned patient with ground truth.

    study: T1, T1C, T2 and FLAIR, each on its own grid; its lesion is the reader's segmentation on the grid of T2.
    motion: by sequence, the rigid 4x4 transform (LPS, mm) from T2's patient coordinates to those of the series.
    lesion (FLAIR abnormality), core, brain: masks ``(slice, row, column)`` on the grid of T2.
    """

    seed: int
    study: Study
    clinical: ClinicalData
    appearance: TumourAppearance | None
    motion: Mapping[MRSequence, DoubleArray]
    lesion: Series
    core: Series
    brain: Series
    person: SyntheticPerson
    settings: HospitalSettings


def create_hospital_patient(
    seed: int,
    settings: HospitalSettings = HospitalSettings(),
    sequences: tuple[MRSequence, ...] = tuple(MRSequence),
) -> HospitalPatient:
    """Create the scanned patient of a seed. sequences: those to scan besides T2, to save time."""
    look = settings.appearance
    person = sample_person(
        seed,
        _create_patient_id(seed),
        PhantomSettings(appearance_noise_factor=look.noise_factor, case_mix=look.case_mix),
    )
    motion = {name: _sample_movement(seed, name, settings) for name in MRSequence}
    series, true_masks = {}, {}
    for number, name in enumerate(MRSequence):
        if name not in sequences and name != REFERENCE_SEQUENCE:
            continue
        rng = np.random.default_rng([seed, 20 + number])
        grid, affine = _sample_grid(settings, rng)
        scanner_to_rest: DoubleArray = np.linalg.inv(motion[name]).astype(np.float64)
        signal, shares = render_volumes(person, (name,), affine, grid, scanner_to_rest)
        sequence_source = Path(person.clinical.patient_id) / name.value
        series[name] = as_series(
            simulate_scan(signal[0], affine, settings.noise_sigma, rng), affine, sequence_source
        )
        if name == REFERENCE_SEQUENCE:
            true_masks = {
                region: as_series(create_reader_mask(share), affine, sequence_source)
                for region, share in shares.items()
            }
    study = Study(
        patient_id=person.clinical.patient_id,
        series=series,
        source=Path(person.clinical.patient_id),
        kind="volumes",
        lesion=true_masks["core" if settings.segmented_region == "core" else "lesion"],
        notes=("Synthetic patient, not a real person.",),
    )
    return HospitalPatient(
        seed,
        study,
        person.clinical,
        person.appearance,
        motion,
        **true_masks,
        person=person,
        settings=settings,
    )


def _create_patient_id(seed: int) -> str:
    """Create a patient id from a seed: without visible order, unique for seeds below ten million."""
    return f"{(seed * 7_654_321 + 1_234_567) % 10_000_019:08d}"


def _sample_movement(seed: int, name: MRSequence, settings: HospitalSettings) -> DoubleArray:
    """Sample the head's movement since T2: a rotation about its centre, then a shift."""
    rng = np.random.default_rng([seed, 10, list(MRSequence).index(name)])
    axis, direction = rng.standard_normal((2, 3))
    degrees, shift_mm = rng.uniform(0, 1, 2) * [settings.max_motion_degrees, settings.max_motion_mm]
    matrix = np.eye(4)
    if name != REFERENCE_SEQUENCE:
        rotation = Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()
        centre = np.array(HEAD_CENTRE_LPS)
        matrix[:3, :3] = rotation
        matrix[:3, 3] = centre - rotation @ centre + shift_mm * direction / np.linalg.norm(direction)
    return matrix


def decompose_movement(matrix: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """Decompose a ``(4, 4)`` movement: shift of the head's centre (LPS mm) and rotation vector (degrees), ``(3,)``."""
    centre = np.array(HEAD_CENTRE_LPS)
    shift = matrix[:3, :3] @ centre + matrix[:3, 3] - centre
    return shift, np.degrees(Rotation.from_matrix(matrix[:3, :3]).as_rotvec())


def _sample_grid(settings: HospitalSettings, rng: np.random.Generator) -> tuple[PhantomSettings, DoubleArray]:
    """Sample a series' grid and affine: pixel size, thickness, tilt and field of view."""
    matrix = int(rng.choice(settings.matrix))
    pixel_mm = round(float(rng.uniform(*settings.field_of_view_mm)) / matrix, 4)
    step_mm = float(rng.choice(settings.thickness_mm) + rng.choice(settings.gap_mm))
    slices = int(np.ceil(settings.coverage_mm / step_mm))
    tilt = Rotation.from_euler("xyz", rng.uniform(-1, 1, 3) * settings.max_oblique_degrees, degrees=True)
    affine = np.eye(4)
    affine[:3, :3] = tilt.as_matrix() * [pixel_mm, pixel_mm, step_mm]
    middle = np.array(HEAD_CENTRE_LPS) + rng.uniform(-1, 1, 3) * settings.max_offset_mm
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array([matrix, matrix, slices]) - 1) / 2)
    grid = PhantomSettings((pixel_mm, pixel_mm), step_mm, matrix, slices, sublayers=settings.sublayers)
    return replace(grid, noise_sigma=settings.noise_sigma), affine
