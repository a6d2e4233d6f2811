"""A synthetic patient: a head with a glioma in T1, T1C, T2 and FLAIR, drawn from a seed.

The clinical row and what it makes of the tumour come from ``appearance``, the head from ``phantom_head``, its
grey values from ``phantom_paint``. Here the four sequences share one straight grid; ``hospital`` makes raw
examinations of the same people. The images are LPS.

No number of it is a measurement of a patient: phantoms test software, they do not train for the clinic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliomark.cohort.phantom.appearance import TumourAppearance, sample_appearance, sample_clinical
from gliomark.cohort.phantom.head import HEAD_CENTRE_LPS, BodySide, FloatArray, HeadAnatomy
from gliomark.cohort.phantom.paint import (
    TRUE_REGIONS,
    compute_plane_points,
    render_plane,
    sample_tissue_signals,
    simulate_scan,
)
from gliomark.files import atomic_write, convert_write_errors, encode_png
from gliomark.study import ClinicalData, GliomarkError, MRSequence, Series, Study
from gliomark.tables import format_csv

__all__ = [
    "TumourAppearance",
    "SyntheticPerson",
    "Phantom",
    "PhantomSettings",
    "as_series",
    "sample_clinical",
    "sample_appearance",
    "sample_person",
    "create_phantom",
    "create_reader_mask",
    "create_phantom_study",
    "render_volumes",
    "write_clinical_csv",
    "write_nifti",
    "write_pictures",
]


@dataclass(frozen=True)
class PhantomSettings:
    """How the phantom is imaged, and what may be asked of it.

    spacing_mm: (row, column) step within a slice; slice_mm: step between slices; matrix: rows = columns;
    slices: how many, centred on the head; noise: Rician sigma as a share of white matter on T1;
    lean_degrees: largest rotation of the head; side: the patient's side of the tumour, None for chance;
    sublayers: layers averaged into one thick slice; appearance_noise: factor of the deviations with which
    the labels make the tumour's look; lesion: False for the same person without tumour, oedema and labels.
    """

    spacing_mm: tuple[float, float] = (0.94, 0.94)
    slice_mm: float = 5.5
    matrix: int = 256
    slice_count: int = 27
    noise_sigma: float = 0.03
    max_tilt_degrees: float = 6.0
    side: BodySide | None = None
    sublayers: int = 3
    appearance_noise_factor: float = 1.0
    has_lesion: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        sizes = (*self.spacing_mm, self.slice_mm, self.matrix, self.slice_count, self.sublayers)
        if min(sizes) <= 0 or self.noise_sigma < 0 or self.max_tilt_degrees < 0:
            raise GliomarkError(f"The phantom's sizes must be positive, not {self}: correct the settings.")
        if self.side not in ("left", "right", None):
            raise GliomarkError(f"The phantom's side is {self.side!r}: give 'left', 'right' or None.")


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic patient with what only a phantom knows.

    look: what the labels made of the tumour, None for a person without a lesion; core: the tumour without
    its oedema; brain: brain with its inner CSF; both Series of 0 and 1 on the grid of the images.
    ``study.lesion`` is the FLAIR abnormality: core and oedema together, all zero where there is none.
    """

    study: Study
    clinical: ClinicalData
    appearance: TumourAppearance | None
    core: Series
    brain: Series


@dataclass(frozen=True, eq=False)
class SyntheticPerson:
    """Everything of a synthetic patient that imaging does not change. tissue: own grey values by name."""

    clinical: ClinicalData
    appearance: TumourAppearance | None
    head: HeadAnatomy
    tissue_signals: Mapping[str, FloatArray]


def create_phantom_study(
    seed: int, settings: PhantomSettings = PhantomSettings()
) -> tuple[Study, ClinicalData]:
    """Synthetic patient ``PHANTOM-<seed>``: four aligned series ``(slice, row, column)``, mask, csv row.

    ``HEALTHY-<seed>`` where the settings leave out the lesion.
    """
    phantom = create_phantom(seed, settings)
    return phantom.study, phantom.clinical


def create_phantom(
    seed: int, settings: PhantomSettings = PhantomSettings(), appearance: TumourAppearance | None = None
) -> Phantom:
    """The synthetic patient of ``phantom_study`` with its true core and brain; ``look`` replaces the drawn one."""
    name = "PHANTOM" if settings.has_lesion else "HEALTHY"
    person = sample_person(seed, f"{name}-{seed:04d}", settings, appearance)
    affine = _create_straight_affine(settings)
    signal, true_shares = render_volumes(person, tuple(MRSequence), affine, settings)
    source, rng = Path(person.clinical.patient_id), np.random.default_rng([seed, 3])
    series = {
        sequence: as_series(
            simulate_scan(image, affine, settings.noise_sigma, rng), affine, source / sequence.value
        )
        for sequence, image in zip(MRSequence, signal, strict=True)
    }
    masks = {
        name: as_series(create_reader_mask(cover), affine, source / name)
        for name, cover in true_shares.items()
    }
    study = Study(
        patient_id=person.clinical.patient_id,
        series=series,
        source=source,
        kind="volumes",
        aligned=True,
        lesion=masks["lesion"],
        notes=("Synthetic patient: not a person.",),
    )
    return Phantom(study, person.clinical, person.appearance, masks["core"], masks["brain"])


def sample_person(
    seed: int,
    patient_id: str,
    settings: PhantomSettings = PhantomSettings(),
    appearance: TumourAppearance | None = None,
) -> SyntheticPerson:
    """The person of a seed. One stream of chance per concern: the head's changes leave the labels alone.

    Without a lesion it is the same person, of the same age, sex and head, with no look and no label.
    """
    label_rng, appearance_rng, anatomy_rng, tissue_rng = (
        np.random.default_rng([seed, part]) for part in (0, 1, 2, 4)
    )
    clinical = sample_clinical(patient_id, label_rng)
    own_appearance: TumourAppearance | None = appearance or sample_appearance(
        clinical, appearance_rng, settings.appearance_noise_factor
    )
    if not settings.has_lesion:
        clinical, own_appearance = replace(clinical, columns={}), None
    head = HeadAnatomy(
        own_appearance, clinical.age or 50.0, settings.max_tilt_degrees, settings.side, anatomy_rng
    )
    return SyntheticPerson(clinical, own_appearance, head, sample_tissue_signals(tissue_rng))


def render_volumes(
    person: SyntheticPerson,
    sequences: tuple[MRSequence, ...],
    affine: NDArray[np.float64],
    settings: PhantomSettings,
    scanner_to_rest: NDArray[np.float64] | None = None,
) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Noiseless signal ``(sequence, slice, row, column)`` and true shares ``(slice, row, column)`` by name.

    settings: matrix, slices and sublayers of the grid that ``affine`` places. to_rest: 4x4 from the scanner's
    LPS mm to the head at rest, where the head has moved.
    """
    shape = (settings.matrix, settings.matrix)
    moved = affine if scanner_to_rest is None else scanner_to_rest @ affine
    # Layers fill nine tenths of the step: slices are scanned with a little gap.
    offsets = ((np.arange(settings.sublayers) + 0.5) / settings.sublayers - 0.5) * 0.9
    signal = np.zeros((len(sequences), settings.slice_count, shape[0] * shape[1]), np.float32)
    true_shares = {name: np.zeros(signal.shape[1:], np.float32) for name in TRUE_REGIONS}
    for slice_index in range(settings.slice_count):
        for offset in offsets:
            points = compute_plane_points(moved, slice_index + offset, shape)
            painted = render_plane(person.head, person.tissue_signals, sequences, points, shape)
            signal[:, slice_index] += painted.signal / settings.sublayers
            for name, share in painted.true_shares.items():
                true_shares[name][slice_index] += share / settings.sublayers
    whole = (settings.slice_count, *shape)
    return signal.reshape(-1, *whole), {name: share.reshape(whole) for name, share in true_shares.items()}


def _create_straight_affine(settings: PhantomSettings) -> NDArray[np.float64]:
    """Affine of the phantom's grid: along x, y and z, the head in its middle."""
    row_mm, column_mm = settings.spacing_mm
    steps = np.array([column_mm, row_mm, settings.slice_mm])
    counts = np.array([settings.matrix, settings.matrix, settings.slice_count])
    affine = np.diag([*steps, 1.0])
    affine[:3, 3] = np.array(HEAD_CENTRE_LPS) - steps * (counts - 1) / 2
    return affine


def as_series(image: FloatArray, affine: NDArray[np.float64], source: Path) -> Series:
    """A Series ``(slice, row, column)`` whose slices are counted from 001."""
    return Series(image, affine.copy(), tuple(f"{number + 1:03d}" for number in range(len(image))), source)


def create_reader_mask(share: FloatArray) -> FloatArray:
    """The largest piece of a true share, as 0 and 1, ``(slice, row, column)``; smooth as a reader draws."""
    pieces, count = ndimage.label(ndimage.gaussian_filter(share, (0, 1, 1)) > 0.5)
    if count == 0:
        return np.zeros_like(share)
    return (pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])).astype(np.float32)


# --- files ------------------------------------------------------------------------------------------


def write_pictures(study: Study, folder: Path) -> Path:
    """``folder/<patient id>/<sequence>/<slice>.png`` and ``mask/``: 8-bit grey; returns the patient's folder.

    Each series is windowed from 0 to its 99.7th percentile; the mask is 0 and 255.
    """
    patient = folder / study.patient_id
    for name, series in _name_series(study).items():
        top = 1.0 if name == "mask" else float(np.percentile(series.image, 99.7))
        grey = np.rint(np.clip(series.image / max(top, 1e-6), 0, 1) * 255).astype(np.uint8)
        sequence_folder = _create_folder(patient / name)
        for slice_name, image in zip(series.slice_names, grey, strict=True):
            atomic_write(sequence_folder / f"{slice_name}.png", encode_png(image), is_durable=False)
    return patient


def write_nifti(study: Study, folder: Path) -> Path:
    """``folder/<patient id>/<sequence>.nii.gz`` and ``mask.nii.gz``; returns the patient's folder."""
    patient = _create_folder(folder / study.patient_id)
    for name, series in _name_series(study).items():
        # NIfTI counts (column, row, slice), and its x and y run to the right and the front.
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ series.affine
        kind = np.uint8 if name == "mask" else np.int16
        image = nibabel.Nifti1Image(series.image.transpose(2, 1, 0).astype(kind), affine)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, patient / f"{name}.nii.gz")
    return patient


def write_clinical_csv(rows: Sequence[ClinicalData], path: Path, columns: Sequence[str] = ()) -> None:
    """The clinical table as UTF-8 csv: id, age, sex, then every further column; unknown is blank.

    columns: further ones that stand first, also where no row knows them.
    """
    further = list(dict.fromkeys([*columns, *(column for row in rows for column in row.columns)]))
    _create_folder(path.parent)
    table: list[list[object]] = [["id", "age", "sex", *further]]
    for row in rows:
        age = "" if row.age is None else f"{row.age:g}"
        sex = "" if row.sex is None else "MF"[row.sex]
        table.append([row.patient_id, age, sex, *(row.columns.get(column, "") for column in further)])
    atomic_write(path, format_csv(table))


def _name_series(study: Study) -> dict[str, Series]:
    """Every series of the study by the name its file gets, the mask last."""
    named = {sequence.value: series for sequence, series in study.series.items()}
    return named if study.lesion is None else {**named, "mask": study.lesion}


def _create_folder(folder: Path) -> Path:
    """Make a folder with its parents, or say why it cannot be."""
    with convert_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder
