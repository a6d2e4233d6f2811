"""Changes of a patient's original images that occur in hospitals, each at five strengths.

Every change is applied to the images as acquired, before registration, skull stripping and normalisation, and to their
slices as stored. What is random in a change depends on the patient and the change only, so that the strengths of a
change differ in nothing but their strength.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from gliomark.geometry import compute_spacing, to_simpleitk_image
from gliomark.preprocessing.registration import register_rigidly
from gliomark.preprocessing.resampling import resample
from gliomark.study import MRSequence, Series, Study

FloatArray = NDArray[np.float32]
GHOST_PERIOD = (
    4  # lines of k-space between two equally disturbed ones; ghosts lie a quarter of the image apart
)
BIAS_DEGREE = 3  # of the polynomial of the bias field
FWHM_PER_SIGMA = 2.3548  # of a Gaussian
WINDOW_PERCENTILE = 99.9  # white level of 8-bit pictures
ENHANCEMENT_NOISE_FACTOR = 2.5  # standard deviations of the residual above which T1C - T1 is enhancement


@dataclass(frozen=True)
class Perturbation:
    """A change of a patient's images.

    Attributes
    ----------
    name
        Name in tables.
    unit
        Format of a strength in tables, such as "sigma {:g} mm".
    strengths
        From the weakest to the strongest.
    apply
        Returns the changed study for a strength; None if the change is not possible, such as a change of the
        enhancement without T1 and T1C.
    """

    name: str
    unit: str
    strengths: tuple[float, ...]
    apply: Callable[[Study, float, np.random.Generator], Study | None]

    def describe(self, strength: float) -> str:
        """Describe a strength with its unit."""
        return self.unit.format(strength)


def perturb(study: Study, perturbation: Perturbation, strength: float) -> Study | None:
    """Return a study with changed images; see ``Perturbation``."""
    seed = [zlib.crc32(text.encode()) for text in (study.patient_id, perturbation.name)]
    return perturbation.apply(study, strength, np.random.default_rng(seed))


# ---- grey values ------------------------------------------------------------------------------------


def add_noise(study: Study, share: float, rng: np.random.Generator) -> Study:
    """Add Rician noise; share: standard deviation relative to the mean signal of the head."""
    from monai.transforms.intensity.array import RandRicianNoise

    def change(image: FloatArray) -> Any:
        level = share * _measure_signal(image)
        noise = RandRicianNoise(prob=1.0, std=level, sample_std=False)
        noise.set_random_state(_draw_seed(rng))
        return noise(image)

    return _change_images(study, change)


def apply_bias_field(study: Study, coefficient: float, rng: np.random.Generator) -> Study:
    """Multiply each sequence by a field of its own, the exponential of a polynomial with random coefficients.

    coefficient: largest absolute value of the coefficients of the Legendre polynomials.
    """
    from monai.transforms.intensity.array import RandBiasField

    def change(image: FloatArray) -> Any:
        field = RandBiasField(BIAS_DEGREE, (-coefficient, coefficient), prob=1.0)
        field.set_random_state(_draw_seed(rng))
        return field(image[None])[0]

    return _change_images(study, change)


def blur(study: Study, width_mm: float, _: np.random.Generator) -> Study:
    """Blur each slice by a Gaussian; width_mm: its full width at half maximum."""

    def change(series: Series) -> Series:
        column_mm, row_mm, _ = compute_spacing(series.affine)
        sigma = width_mm / FWHM_PER_SIGMA
        return replace(
            series, image=ndimage.gaussian_filter(series.image, (0, sigma / row_mm, sigma / column_mm))
        )

    return _change_series(study, change)


def add_ghosts(study: Study, share: float, rng: np.random.Generator) -> Study:
    """Add two ghosts, shifted along the rows by a quarter of the image to either side.

    They arise when the signal changes periodically while the lines of k-space are acquired, as with the pulse. share:
    signal of each ghost relative to the image.
    """

    def change(image: FloatArray) -> NDArray[Any]:
        line = np.arange(image.shape[2])
        signal = 1 + 2 * share * np.cos(2 * np.pi * line / GHOST_PERIOD + rng.uniform(0, 2 * np.pi))
        return np.abs(np.fft.ifft(np.fft.fft(image, axis=2) * signal, axis=2))

    return _change_images(study, change)


def change_gamma(study: Study, exponent: float, rng: np.random.Generator) -> Study:
    """Raise the grey values, as shares of their range, to a power: for each sequence the exponent or its inverse."""
    from monai.transforms.intensity.array import AdjustContrast

    def change(image: FloatArray) -> Any:
        return AdjustContrast(gamma=exponent if rng.random() < 0.5 else 1 / exponent)(image)

    return _change_images(study, change)


def compress_as_jpeg(study: Study, quality: float, _: np.random.Generator) -> Study:
    """Store each slice as an 8-bit JPEG picture of a quality from 1 to 95."""

    def change(image: FloatArray) -> NDArray[Any]:
        low, high = float(image.min()), float(np.percentile(image, WINDOW_PERCENTILE))
        step = max(high - low, 1e-6) / 255
        grey = np.rint(np.clip((image - low) / step, 0, 255)).astype(np.uint8)
        return low + step * np.stack([_compress_slice(one, int(quality)) for one in grey])

    return _change_images(study, change)


def _compress_slice(grey: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    file = BytesIO()
    Image.fromarray(grey).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def scale_enhancement(study: Study, factor: float, _: np.random.Generator) -> Study | None:
    """Multiply the contrast enhancement of T1C, as by an earlier or later acquisition or another dose.

    The enhancement is what T1C shows above T1, after T1 was scaled to the tissue that does not enhance. None if T1 or
    T1C is missing.
    """
    if not {MRSequence.T1, MRSequence.T1C} <= set(study.series):
        return None
    series = study.series[MRSequence.T1C]
    image = series.image + (factor - 1) * _measure_enhancement(study)
    changed = replace(series, image=image.astype(np.float32))
    return replace(study, series={**study.series, MRSequence.T1C: changed})


def _measure_enhancement(study: Study) -> FloatArray:
    """Measure the enhancement on the grid of T1C, in its grey values; 0 where there is none."""
    after, before = (study.series[name] for name in (MRSequence.T1C, MRSequence.T1))
    grid, native = (to_simpleitk_image(one.image, one.affine) for one in (after, before))
    transform = sitk.Transform(3, sitk.sitkIdentity) if study.aligned else register_rigidly(grid, native)
    t1 = sitk.GetArrayFromImage(resample(native, grid, transform, float(before.image.min())))
    head = (t1 > t1.mean()) & (after.image > after.image.mean())
    slope, intercept = np.polyfit(t1[head], after.image[head], 1)
    for _ in range(3):  # tissue that enhances must not decide how T1 is scaled
        residual = after.image - (slope * t1 + intercept)
        spread = 1.4826 * np.median(np.abs(residual[head] - np.median(residual[head])))
        tissue = head & (np.abs(residual) < ENHANCEMENT_NOISE_FACTOR * spread)
        slope, intercept = np.polyfit(t1[tissue], after.image[tissue], 1)
    residual = after.image - (slope * t1 + intercept)
    is_enhanced = head & (ndimage.gaussian_filter(residual, (0, 1, 1)) > ENHANCEMENT_NOISE_FACTOR * spread)
    return np.where(is_enhanced, residual.clip(min=0), 0).astype(np.float32)


# ---- geometry ---------------------------------------------------------------------------------------


def rotate_head(study: Study, degrees: float, rng: np.random.Generator) -> Study:
    """Rotate the head in the plane of the slices, to the left or to the right, with the lesion mask."""
    reference = _get_reference(study)
    axis = reference.affine[:3, 2] / np.linalg.norm(reference.affine[:3, 2])
    angle = np.deg2rad(degrees) * (1 if rng.random() < 0.5 else -1)
    rotation = sitk.VersorTransform(axis.tolist(), float(angle), _find_centre(reference))
    return _move_head(study, rotation, tuple(study.series))


def mirror_head(study: Study, _: float, __: np.random.Generator) -> Study:
    """Exchange the sides of all sequences and of the lesion mask."""
    return _move_head(study, _create_mirror(study), tuple(study.series))


def mirror_sequence(study: Study, number: float, _: np.random.Generator) -> Study:
    """Exchange the sides of one sequence only; number: 1 for the first of those present."""
    name = tuple(study.series)[int(number) - 1]
    return _move_head(study, _create_mirror(study), (name,), moves_lesion=False)


def enlarge_pixels(study: Study, factor: float, _: np.random.Generator) -> Study:
    """Acquire pixels that are larger by a factor in both directions."""
    return _change_series(study, lambda series: _coarsen(series, (1.0, factor, factor)))


def enlarge_slice_spacing(study: Study, factor: float, _: np.random.Generator) -> Study:
    """Acquire thicker slices with a spacing larger by a factor."""
    return _change_series(study, lambda series: _coarsen(series, (factor, 1.0, 1.0)))


def drop_slices(study: Study, count: float, rng: np.random.Generator) -> Study:
    """Lose slices inside each sequence and interpolate them from their neighbours, as the DICOM reader does."""

    def change(image: FloatArray) -> FloatArray:
        inside = np.arange(1, len(image) - 1)
        # the strengths of one patient lose the same slices and further ones
        lost = rng.permutation(inside)[: int(count)]
        kept = np.setdiff1d(np.arange(len(image)), lost)
        changed = image.copy()
        for index in lost:
            below, above = kept[kept < index].max(), kept[kept > index].min()
            share = (index - below) / (above - below)
            changed[index] = (1 - share) * image[below] + share * image[above]
        return changed

    return _change_images(study, change)


def _coarsen(series: Series, factors: Sequence[float]) -> Series:
    """Return a series with voxels larger by factors along (slice, row, column), averaged over each new voxel."""
    counts = [max(2, round(n / f)) for n, f in zip(series.image.shape, factors, strict=True)]
    steps = np.array(series.image.shape) / counts
    # variance of a box of the new width less that of the old one
    smoothed = ndimage.gaussian_filter(series.image, np.sqrt((np.maximum(steps, 1) ** 2 - 1) / 12))
    image = ndimage.zoom(smoothed, 1 / steps, order=1, grid_mode=True, mode="nearest")
    affine = series.affine.copy()
    affine[:3, :3] *= steps[::-1]
    affine[:3, 3] += series.affine[:3, :3] @ ((steps[::-1] - 1) / 2)
    names = series.slice_names
    if len(image) != len(names):
        names = tuple(f"{number + 1:03d}" for number in range(len(image)))
    return replace(series, image=image, affine=affine, slice_names=names, source_images=(), missing=None)


def _create_mirror(study: Study) -> sitk.Transform:
    """Create the reflection of points at the sagittal plane through the centre of the reference."""
    mirror = sitk.AffineTransform(np.diag([-1.0, 1.0, 1.0]).ravel().tolist(), (0.0, 0.0, 0.0))
    mirror.SetCenter(_find_centre(_get_reference(study)))
    return mirror


def _move_head(
    study: Study, transform: sitk.Transform, names: Sequence[MRSequence], moves_lesion: bool = True
) -> Study:
    """Resample sequences, and the lesion mask, as if the head had moved; transform: of points to the old place."""
    series = {
        name: _move_series(one, transform) if name in names else one for name, one in study.series.items()
    }
    lesion = study.lesion
    if lesion is not None and moves_lesion:
        lesion = _move_series(lesion, transform, sitk.sitkNearestNeighbor)
    return replace(study, series=series, lesion=lesion)


def _move_series(series: Series, transform: sitk.Transform, interpolator: int = sitk.sitkLinear) -> Series:
    image = to_simpleitk_image(series.image.astype(np.float32), series.affine)
    moved = resample(image, image, transform, float(series.image.min()), interpolator)
    return replace(series, image=sitk.GetArrayFromImage(moved), source_images=(), missing=None)


def _get_reference(study: Study) -> Series:
    return next(iter(study.series.values()))


def _find_centre(series: Series) -> tuple[float, ...]:
    """Find the centre of the image in LPS mm."""
    middle = (np.array(series.image.shape[::-1]) - 1) / 2
    return tuple(map(float, series.affine[:3, :3] @ middle + series.affine[:3, 3]))


# ---- shared -----------------------------------------------------------------------------------------


def _change_series(study: Study, change: Callable[[Series], Series]) -> Study:
    return replace(study, series={name: change(one) for name, one in study.series.items()})


def _change_images(study: Study, change: Callable[[FloatArray], Any]) -> Study:
    return _change_series(study, lambda one: replace(one, image=np.asarray(change(one.image), np.float32)))


def _measure_signal(image: FloatArray) -> float:
    """Measure the mean grey value of the head above the background; the head is what exceeds the image's mean."""
    return float(image[image > image.mean()].mean() - image.min())


def _draw_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


PERTURBATIONS = (
    Perturbation("noise", "{:.1%} of the signal", (0.025, 0.05, 0.1, 0.15, 0.2), add_noise),
    Perturbation("blur", "{:g} mm", (1, 2, 3, 4, 6), blur),
    Perturbation("bias field", "coefficients to {:g}", (0.1, 0.2, 0.3, 0.4, 0.5), apply_bias_field),
    Perturbation("ghosting", "{:.1%} of the signal", (0.025, 0.05, 0.1, 0.15, 0.2), add_ghosts),
    Perturbation("rotation", "{:g} degrees", (5, 10, 15, 20, 30), rotate_head),
    Perturbation("pixel size", "x {:g}", (1.5, 2, 2.5, 3, 4), enlarge_pixels),
    Perturbation("slice spacing", "x {:g}", (1.25, 1.5, 2, 2.5, 3), enlarge_slice_spacing),
    Perturbation("gamma", "{0:g} or 1/{0:g}", (1.2, 1.4, 1.6, 1.8, 2), change_gamma),
    Perturbation("missing slices", "{:g} per sequence", (1, 2, 4, 6, 8), drop_slices),
    Perturbation("sides of all sequences swapped", "", (1,), mirror_head),
    Perturbation("sides of one sequence swapped", "sequence {:g}", (1,), mirror_sequence),
    Perturbation("JPEG", "quality {:g}", (90, 70, 50, 30, 10), compress_as_jpeg),
    Perturbation("weaker enhancement", "x {:g}", (0.8, 0.6, 0.4, 0.2, 0), scale_enhancement),
    Perturbation("stronger enhancement", "x {:g}", (1.25, 1.5, 1.75, 2, 2.5), scale_enhancement),
)
