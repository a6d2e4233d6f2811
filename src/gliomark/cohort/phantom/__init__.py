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

from gliomark.cohort.phantom.appearance import Look, draw_clinical, draw_look
from gliomark.cohort.phantom.head import CENTRE_LPS, Floats, Head, Side
from gliomark.cohort.phantom.paint import TRUTHS, own_tissue, paint, plane, scan
from gliomark.files import atomic_write, png_bytes, writing
from gliomark.study import Clinical, GliomarkError, MRSequence, Series, Study
from gliomark.tables import csv_text

__all__ = [
    "Look",
    "Person",
    "Phantom",
    "PhantomSettings",
    "as_series",
    "draw_clinical",
    "draw_look",
    "draw_person",
    "make_phantom",
    "outline",
    "phantom_study",
    "render",
    "write_clinical",
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
    slices: int = 27
    noise: float = 0.03
    lean_degrees: float = 6.0
    side: Side | None = None
    sublayers: int = 3
    appearance_noise: float = 1.0
    lesion: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        sizes = (*self.spacing_mm, self.slice_mm, self.matrix, self.slices, self.sublayers)
        if min(sizes) <= 0 or self.noise < 0 or self.lean_degrees < 0:
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
    clinical: Clinical
    look: Look | None
    core: Series
    brain: Series


@dataclass(frozen=True, eq=False)
class Person:
    """Everything of a synthetic patient that imaging does not change. tissue: own grey values by name."""

    clinical: Clinical
    look: Look | None
    head: Head
    tissue: Mapping[str, Floats]


def phantom_study(seed: int, settings: PhantomSettings = PhantomSettings()) -> tuple[Study, Clinical]:
    """Synthetic patient ``PHANTOM-<seed>``: four aligned series ``(slice, row, column)``, mask, csv row.

    ``HEALTHY-<seed>`` where the settings leave out the lesion.
    """
    phantom = make_phantom(seed, settings)
    return phantom.study, phantom.clinical


def make_phantom(
    seed: int, settings: PhantomSettings = PhantomSettings(), look: Look | None = None
) -> Phantom:
    """The synthetic patient of ``phantom_study`` with its true core and brain; ``look`` replaces the drawn one."""
    name = "PHANTOM" if settings.lesion else "HEALTHY"
    person = draw_person(seed, f"{name}-{seed:04d}", settings, look)
    affine = _straight(settings)
    signal, truth = render(person, tuple(MRSequence), affine, settings)
    source, chance = Path(person.clinical.patient_id), np.random.default_rng([seed, 3])
    series = {
        sequence: as_series(scan(image, affine, settings.noise, chance), affine, source / sequence.value)
        for sequence, image in zip(MRSequence, signal, strict=True)
    }
    masks = {name: as_series(outline(cover), affine, source / name) for name, cover in truth.items()}
    study = Study(
        patient_id=person.clinical.patient_id,
        series=series,
        source=source,
        kind="volumes",
        aligned=True,
        lesion=masks["lesion"],
        notes=("Synthetic patient: not a person.",),
    )
    return Phantom(study, person.clinical, person.look, masks["core"], masks["brain"])


def draw_person(
    seed: int, patient_id: str, settings: PhantomSettings = PhantomSettings(), look: Look | None = None
) -> Person:
    """The person of a seed. One stream of chance per concern: the head's changes leave the labels alone.

    Without a lesion it is the same person, of the same age, sex and head, with no look and no label.
    """
    labels, appearance, anatomy, tissue = (np.random.default_rng([seed, part]) for part in (0, 1, 2, 4))
    clinical = draw_clinical(patient_id, labels)
    shown: Look | None = look or draw_look(clinical, appearance, settings.appearance_noise)
    if not settings.lesion:
        clinical, shown = replace(clinical, columns={}), None
    head = Head(shown, clinical.age or 50.0, settings.lean_degrees, settings.side, anatomy)
    return Person(clinical, shown, head, own_tissue(tissue))


def render(
    person: Person,
    sequences: tuple[MRSequence, ...],
    affine: NDArray[np.float64],
    settings: PhantomSettings,
    to_rest: NDArray[np.float64] | None = None,
) -> tuple[Floats, dict[str, Floats]]:
    """Noiseless signal ``(sequence, slice, row, column)`` and true shares ``(slice, row, column)`` by name.

    settings: matrix, slices and sublayers of the grid that ``affine`` places. to_rest: 4x4 from the scanner's
    LPS mm to the head at rest, where the head has moved.
    """
    shape = (settings.matrix, settings.matrix)
    moved = affine if to_rest is None else to_rest @ affine
    # Layers fill nine tenths of the step: slices are scanned with a little gap.
    offsets = ((np.arange(settings.sublayers) + 0.5) / settings.sublayers - 0.5) * 0.9
    signal = np.zeros((len(sequences), settings.slices, shape[0] * shape[1]), np.float32)
    truth = {name: np.zeros(signal.shape[1:], np.float32) for name in TRUTHS}
    for number in range(settings.slices):
        for offset in offsets:
            points = plane(moved, number + offset, shape)
            painted = paint(person.head, person.tissue, sequences, points, shape)
            signal[:, number] += painted.signal / settings.sublayers
            for name, share in painted.truth.items():
                truth[name][number] += share / settings.sublayers
    whole = (settings.slices, *shape)
    return signal.reshape(-1, *whole), {name: share.reshape(whole) for name, share in truth.items()}


def _straight(settings: PhantomSettings) -> NDArray[np.float64]:
    """Affine of the phantom's grid: along x, y and z, the head in its middle."""
    row_mm, column_mm = settings.spacing_mm
    steps = np.array([column_mm, row_mm, settings.slice_mm])
    counts = np.array([settings.matrix, settings.matrix, settings.slices])
    affine = np.diag([*steps, 1.0])
    affine[:3, 3] = np.array(CENTRE_LPS) - steps * (counts - 1) / 2
    return affine


def as_series(image: Floats, affine: NDArray[np.float64], source: Path) -> Series:
    """A Series ``(slice, row, column)`` whose slices are counted from 001."""
    return Series(image, affine.copy(), tuple(f"{number + 1:03d}" for number in range(len(image))), source)


def outline(cover: Floats) -> Floats:
    """The largest piece of a true share, as 0 and 1, ``(slice, row, column)``; smooth as a reader draws."""
    pieces, count = ndimage.label(ndimage.gaussian_filter(cover, (0, 1, 1)) > 0.5)
    if count == 0:
        return np.zeros_like(cover)
    return (pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])).astype(np.float32)


# --- files ------------------------------------------------------------------------------------------


def write_pictures(study: Study, folder: Path) -> Path:
    """``folder/<patient id>/<sequence>/<slice>.png`` and ``mask/``: 8-bit grey; returns the patient's folder.

    Each series is windowed from 0 to its 99.7th percentile; the mask is 0 and 255.
    """
    patient = folder / study.patient_id
    for name, series in _named(study).items():
        top = 1.0 if name == "mask" else float(np.percentile(series.image, 99.7))
        grey = np.rint(np.clip(series.image / max(top, 1e-6), 0, 1) * 255).astype(np.uint8)
        place = _make_folder(patient / name)
        for slice_name, image in zip(series.slice_names, grey, strict=True):
            atomic_write(place / f"{slice_name}.png", png_bytes(image), durable=False)
    return patient


def write_nifti(study: Study, folder: Path) -> Path:
    """``folder/<patient id>/<sequence>.nii.gz`` and ``mask.nii.gz``; returns the patient's folder."""
    patient = _make_folder(folder / study.patient_id)
    for name, series in _named(study).items():
        # NIfTI counts (column, row, slice), and its x and y run to the right and the front.
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ series.affine
        kind = np.uint8 if name == "mask" else np.int16
        image = nibabel.Nifti1Image(series.image.transpose(2, 1, 0).astype(kind), affine)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, patient / f"{name}.nii.gz")
    return patient


def write_clinical(rows: Sequence[Clinical], path: Path, columns: Sequence[str] = ()) -> None:
    """The clinical table as UTF-8 csv: id, age, sex, then every further column; unknown is blank.

    columns: further ones that stand first, also where no row knows them.
    """
    further = list(dict.fromkeys([*columns, *(column for row in rows for column in row.columns)]))
    _make_folder(path.parent)
    table: list[list[object]] = [["id", "age", "sex", *further]]
    for row in rows:
        age = "" if row.age is None else f"{row.age:g}"
        sex = "" if row.sex is None else "MF"[row.sex]
        table.append([row.patient_id, age, sex, *(row.columns.get(column, "") for column in further)])
    atomic_write(path, csv_text(table))


def _named(study: Study) -> dict[str, Series]:
    """Every series of the study by the name its file gets, the mask last."""
    named = {sequence.value: series for sequence, series in study.series.items()}
    return named if study.lesion is None else {**named, "mask": study.lesion}


def _make_folder(folder: Path) -> Path:
    """Make a folder with its parents, or say why it cannot be."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder
