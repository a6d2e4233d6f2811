"""Synthetic patients: a head with a glioma in T1, T1C, T2 and FLAIR, generated from a seed.

The clinical row and the tumour's appearance come from ``appearance``, the head from ``anatomy``, its grey values from
``rendering``. Here the four sequences share one straight grid; ``hospital`` creates raw examinations of the same
people. The images are in LPS.

Synthetic data for testing software; not for clinical training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliomark.errors import ConfigurationError
from gliomark.files import atomic_write, convert_write_errors, encode_png
from gliomark.phantom.anatomy import HEAD_CENTRE_LPS, BodySide, FloatArray, HeadAnatomy, HeadRegion
from gliomark.phantom.appearance import (
    CaseMix,
    TumourAppearance,
    check_case_mix,
    sample_appearance,
    sample_clinical,
)
from gliomark.phantom.rendering import (
    TRUE_REGIONS,
    compute_plane_points,
    render_plane,
    sample_tissue_signals,
    simulate_scan,
)
from gliomark.study import ClinicalData, MRSequence, Series, Study
from gliomark.tables import format_csv

SYNTHETIC_NOTE = "Synthetic patient, not a real person."


def check_noise(noise_sigma: float) -> None:
    """Check the noise of a scanner.

    Raises
    ------
    ConfigurationError
        If it is negative or no finite number.
    """
    if not 0 <= noise_sigma < float("inf"):
        raise ConfigurationError(
            f"The noise of the scanner is {noise_sigma:g}: give a number from 0 up (0.03 is usual)."
        )


@dataclass(frozen=True)
class PhantomSettings:
    """Settings of the phantom and its imaging.

    spacing_mm: (row, column) spacing; slice_mm: slice spacing; matrix: number of rows and of columns; slice_count:
    number of slices, centred on the head; noise_sigma: sigma of the Rician noise relative to white matter on T1;
    max_tilt_degrees: maximum rotation of the head; side: the patient's side of the tumour, None for random;
    sublayers: layers averaged into one thick slice; appearance_noise_factor: factor of the standard deviations of
    the tumour's appearance; case_mix: proportions of the types of glioma; has_lesion: False for the same person without
    tumour, oedema and labels.

    Raises
    ------
    ConfigurationError
        If a size is not positive, the tilt is negative, the noise negative or not finite, or
        the side or the case mix unknown.
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
    case_mix: CaseMix = "surgical"
    has_lesion: bool = True

    def __post_init__(self) -> None:
        """Check the settings."""
        sizes = (*self.spacing_mm, self.slice_mm, self.matrix, self.slice_count, self.sublayers)
        if min(sizes) <= 0 or self.max_tilt_degrees < 0:
            raise ConfigurationError(
                f"The phantom's sizes must be positive, not {self}: correct the settings."
            )
        check_noise(self.noise_sigma)
        check_case_mix(self.case_mix)
        if self.side not in ("left", "right", None):
            raise ConfigurationError(f"The phantom's side is {self.side!r}: give 'left', 'right' or None.")


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic patient with ground truth.

    appearance: of the tumour, None for a person without a lesion. core: mask of the tumour without oedema; brain:
    mask of the brain with inner CSF; both are series ``(slice, row, column)`` of 0 and 1 on the grid of the images.
    ``study.lesion`` is the FLAIR abnormality, core and oedema; all zero without a lesion.
    """

    study: Study
    clinical: ClinicalData
    appearance: TumourAppearance | None
    core: Series
    brain: Series


@dataclass(frozen=True, eq=False)
class SyntheticPerson:
    """All properties of a synthetic patient that do not depend on imaging.

    tissue_signals: this person's grey values by tissue, ``(sequence,)``.
    """

    clinical: ClinicalData
    appearance: TumourAppearance | None
    head: HeadAnatomy
    tissue_signals: Mapping[str, FloatArray]


def create_phantom_study(
    seed: int, settings: PhantomSettings = PhantomSettings()
) -> tuple[Study, ClinicalData]:
    """Create the synthetic patient ``PHANTOM-<seed>``, or ``HEALTHY-<seed>`` without a lesion.

    Returns
    -------
    tuple of Study and Clinical
        Four aligned series ``(slice, row, column)`` with a mask, and the clinical row.
    """
    phantom = create_phantom(seed, settings)
    return phantom.study, phantom.clinical


def create_phantom(
    seed: int, settings: PhantomSettings = PhantomSettings(), appearance: TumourAppearance | None = None
) -> Phantom:
    """Create a synthetic patient with ground truth; ``appearance`` replaces the sampled one."""
    person = sample_person(seed, create_patient_id(seed, settings), settings, appearance)
    affine = create_straight_affine(settings)
    signal, true_shares = render_volumes(person, tuple(MRSequence), affine, settings)
    source, rng = Path(person.clinical.patient_id), np.random.default_rng([seed, 3])
    series = {
        sequence: as_series(
            simulate_scan(image, affine, settings.noise_sigma, rng), affine, source / sequence.value
        )
        for sequence, image in zip(MRSequence, signal, strict=True)
    }
    masks = create_reader_masks(true_shares, affine, source)
    return assemble_phantom(person, series, masks, masks["lesion"])


def assemble_phantom(
    person: SyntheticPerson, series: Mapping[MRSequence, Series], masks: Mapping[str, Series], lesion: Series
) -> Phantom:
    """Assemble a phantom with aligned images; masks: from ``create_reader_masks``; lesion: the reader's mask."""
    study = Study(
        patient_id=person.clinical.patient_id,
        series=series,
        source=Path(person.clinical.patient_id),
        kind="volumes",
        aligned=True,
        lesion=lesion,
        notes=(SYNTHETIC_NOTE,),
    )
    return Phantom(study, person.clinical, person.appearance, masks["core"], masks["brain"])


def create_patient_id(seed: int, settings: PhantomSettings) -> str:
    """Create the id of the person of a seed: ``PHANTOM-<seed>``, or ``HEALTHY-<seed>`` without a lesion."""
    return f"{'PHANTOM' if settings.has_lesion else 'HEALTHY'}-{seed:04d}"


def sample_person(
    seed: int,
    patient_id: str,
    settings: PhantomSettings = PhantomSettings(),
    appearance: TumourAppearance | None = None,
) -> SyntheticPerson:
    """Sample the person of a seed.

    Labels, appearance, anatomy and tissue have separate random streams, so that changes of one do not affect the
    others. Without a lesion it is the same person, with the same age, sex and head, but no tumour and no labels.
    """
    anatomy_rng, tissue_rng = (np.random.default_rng([seed, part]) for part in (2, 4))
    clinical, own_appearance = sample_labels(seed, patient_id, settings, appearance)
    head = HeadAnatomy(
        own_appearance, clinical.age or 50.0, settings.max_tilt_degrees, settings.side, anatomy_rng
    )
    return SyntheticPerson(clinical, own_appearance, head, sample_tissue_signals(tissue_rng))


def sample_labels(
    seed: int,
    patient_id: str,
    settings: PhantomSettings = PhantomSettings(),
    appearance: TumourAppearance | None = None,
) -> tuple[ClinicalData, TumourAppearance | None]:
    """Sample the clinical row and the tumour's appearance of the person of a seed; fast, without the head."""
    label_rng, appearance_rng = (np.random.default_rng([seed, part]) for part in (0, 1))
    clinical = sample_clinical(patient_id, label_rng, settings.case_mix)
    if not settings.has_lesion:
        return replace(clinical, columns={}), None
    return clinical, appearance or sample_appearance(
        clinical, appearance_rng, settings.appearance_noise_factor
    )


def render_volumes(
    person: SyntheticPerson,
    sequences: tuple[MRSequence, ...],
    affine: NDArray[np.float64],
    settings: PhantomSettings,
    scanner_to_rest: NDArray[np.float64] | None = None,
    region: HeadRegion = "head",
) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Render a person without noise.

    Parameters
    ----------
    person
        The synthetic person.
    sequences
        The sequences to render.
    affine
        4x4 affine of the grid, to the scanner's LPS coordinates in mm.
    settings
        Matrix, number of slices and sublayers of the grid.
    scanner_to_rest
        4x4 transform from the scanner's LPS coordinates to the head at rest, if the head has moved.
    region
        "brain" leaves out what lies outside the brain, which is several times faster.

    Returns
    -------
    tuple
        Signal ``(sequence, slice, row, column)``, and true fractions (0 to 1) ``(slice, row, column)`` by region.
    """
    shape = (settings.matrix, settings.matrix)
    moved = affine if scanner_to_rest is None else scanner_to_rest @ affine
    # Layers fill 90 % of the slice spacing: slices are acquired with a small gap.
    offsets = ((np.arange(settings.sublayers) + 0.5) / settings.sublayers - 0.5) * 0.9
    signal = np.zeros((len(sequences), settings.slice_count, shape[0] * shape[1]), np.float32)
    true_shares = {name: np.zeros(signal.shape[1:], np.float32) for name in TRUE_REGIONS}
    for slice_index in range(settings.slice_count):
        for offset in offsets:
            points = compute_plane_points(moved, slice_index + offset, shape)
            painted = render_plane(person.head, person.tissue_signals, sequences, points, shape, region)
            signal[:, slice_index] += painted.signal / settings.sublayers
            for name, share in painted.true_shares.items():
                true_shares[name][slice_index] += share / settings.sublayers
    whole = (settings.slice_count, *shape)
    return signal.reshape(-1, *whole), {name: share.reshape(whole) for name, share in true_shares.items()}


def create_straight_affine(settings: PhantomSettings) -> NDArray[np.float64]:
    """Create the affine ``(4, 4)`` of the phantom's grid: parallel to the axes, centred on the head."""
    row_mm, column_mm = settings.spacing_mm
    steps = np.array([column_mm, row_mm, settings.slice_mm])
    counts = np.array([settings.matrix, settings.matrix, settings.slice_count])
    affine = np.diag([*steps, 1.0])
    affine[:3, 3] = np.array(HEAD_CENTRE_LPS) - steps * (counts - 1) / 2
    return affine


def as_series(image: FloatArray, affine: NDArray[np.float64], source: Path) -> Series:
    """Create a series from an image ``(slice, row, column)``, with slice names from 001."""
    return Series(image, affine.copy(), tuple(f"{number + 1:03d}" for number in range(len(image))), source)


def create_reader_masks(
    true_shares: Mapping[str, FloatArray], affine: NDArray[np.float64], source: Path
) -> dict[str, Series]:
    """Create the masks of all regions from their true fractions ``(slice, row, column)``, by region."""
    return {
        name: as_series(create_reader_mask(share), affine, source / name)
        for name, share in true_shares.items()
    }


def create_reader_mask(share: FloatArray) -> FloatArray:
    """Create a mask ``(slice, row, column)`` of 0 and 1 as a reader would draw it from true fractions of a region.

    It is the largest connected component, smoothed in the plane.
    """
    pieces, count = ndimage.label(ndimage.gaussian_filter(share, (0, 1, 1)) > 0.5)
    if count == 0:
        return np.zeros_like(share)
    result: FloatArray = (pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])).astype(np.float32)
    return result


# --- files ------------------------------------------------------------------------------------------


def write_pictures(study: Study, folder: Path) -> Path:
    """Write 8-bit ``folder/<patient id>/<sequence>/<slice>.png`` and ``mask/``; return the patient's folder.

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
    """Write ``folder/<patient id>/<sequence>.nii.gz`` and ``mask.nii.gz``; return the patient's folder."""
    patient = _create_folder(folder / study.patient_id)
    for name, series in _name_series(study).items():
        # NIfTI arrays are (column, row, slice), and its coordinates are RAS.
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ series.affine
        kind = np.uint8 if name == "mask" else np.int16
        image = nibabel.Nifti1Image(series.image.transpose(2, 1, 0).astype(kind), affine)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, patient / f"{name}.nii.gz")
    return patient


def write_clinical_csv(rows: Sequence[ClinicalData], path: Path, columns: Sequence[str] = ()) -> None:
    """Write the clinical table as UTF-8 csv: id, age, sex, then all further columns; blank means unknown.

    columns: further columns to write first, even if no row has them.
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
    """Return all series of the study by file name, the mask last."""
    named = {sequence.value: series for sequence, series in study.series.items()}
    return named if study.lesion is None else {**named, "mask": study.lesion}


def _create_folder(folder: Path) -> Path:
    """Create a folder with its parents. Raises FileWriteError."""
    with convert_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder
