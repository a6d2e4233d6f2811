"""Find patients of a cohort who are probably one person: an image under two ids, or one scan divided between two.

If such a pair is in different folds, a network is tested on a person on whom it was trained, although no id is in both
parts. Pairs are found by two signs:

- ``same-image``: a slice of one patient is nearly identical to one of the other;
- ``same-scan``: equal grid, age and sex, and no slice name in common, as where the slices of one scan were given to
  several ids.

A second examination of the same person stays undetected, and so do parts of one scan that were prepared separately:
neighbouring slices of one brain are not reliably more alike than slices of two brains.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from gliomark.cohort.store import Cohort, ProgressCallback, ignore_progress, iterate_with_progress
from gliomark.study import ClinicalData, SliceStack

PairSign = Literal["same-image", "same-scan"]
# side of a slice's fingerprint in pixels, and the Gaussian filters between whose results it is the difference
FINGERPRINT_SIDE, INNER_SIGMA, OUTER_SIGMA = 48, 0.7, 3.0
MIN_BRAIN_SIDE = 40  # pixels; the first and last slices of a brain are alike in everyone
# correlation of the fingerprints of two slices: well below it between persons, nearly 1 between an image and its copy
# that was shifted, rescaled and made noisier (see the tests)
SAME_IMAGE_CORRELATION = 0.9
MIN_SLICES = 3
GRID_TOLERANCE_MM = 1e-3


@dataclass(frozen=True)
class SimilarPair:
    """Two patients who are probably one. correlation: the highest of two of their slices."""

    first: str
    second: str
    sign: PairSign
    correlation: float


@dataclass(frozen=True, eq=False)
class PatientFingerprint:
    """What the images of a patient are recognised by.

    slices: ``(slice, pixel)``, of unit length; grid: ``(9,)``, the in-plane axes and the origin within the plane;
    slice_names: of the whole stack.
    """

    slices: NDArray[np.float32]
    grid: NDArray[np.float64]
    slice_names: frozenset[str]

    @property
    def slice_count(self) -> int:
        """Number of slices."""
        return len(self.slice_names)


def read_fingerprints(
    cohort: Cohort, patients: Sequence[str], report_progress: ProgressCallback = ignore_progress
) -> dict[str, PatientFingerprint]:
    """Compute the fingerprints of patients from the reference sequence, or the only one they have."""
    return {
        patient: create_fingerprint(cohort.read_stack(patient))
        for patient in iterate_with_progress(patients, report_progress)
    }


def create_fingerprint(stack: SliceStack) -> PatientFingerprint:
    """Compute the fingerprint of a patient from the last sequence of the stack."""
    image = list(stack.images.values())[-1]
    rows = [index for index in stack.selected if _has_large_brain(stack.brain[index])]
    vectors = np.array([_filter_slice(image[row], stack.brain[row]) for row in rows], np.float32)
    axes, origin = stack.affine[:3, :3], stack.affine[:3, 3]
    normal = axes[:, 2] / np.linalg.norm(axes[:, 2])
    grid = np.concatenate([axes[:, 0], axes[:, 1], origin - normal * (normal @ origin)])
    return PatientFingerprint(
        vectors.reshape(len(rows), FINGERPRINT_SIDE**2), grid, frozenset(stack.slice_names)
    )


def _has_large_brain(brain: NDArray[np.bool_]) -> bool:
    return bool(min(brain.any(axis=0).sum(), brain.any(axis=1).sum()) >= MIN_BRAIN_SIDE)


def _filter_slice(image: NDArray[np.float32], brain: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the fine structure inside the brain's bounding box as a vector ``(pixel,)`` of unit length."""
    side = FINGERPRINT_SIDE
    rows, columns = np.flatnonzero(brain.any(axis=1)), np.flatnonzero(brain.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)

    def shrink(plane: NDArray[np.float32]) -> NDArray[np.float32]:
        resized = Image.fromarray(plane).resize((side, side), Image.Resampling.BOX, box=box)
        return np.asarray(resized, np.float32)

    inside, small = shrink(brain.astype(np.float32)) > 0.9, shrink(image)
    detail = gaussian_filter(small, INNER_SIGMA) - gaussian_filter(small, OUTER_SIGMA)
    if not inside.any():
        return np.zeros(side * side, np.float32)
    lowest, highest = np.percentile(detail[inside], [2, 98])
    detail = np.clip(detail, lowest, highest)
    vector = np.where(inside, detail - detail[inside].mean(), 0).ravel()
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9), np.float32)


def find_similar_pairs(
    fingerprints: Mapping[str, PatientFingerprint], clinical: Mapping[str, ClinicalData]
) -> list[SimilarPair]:
    """Find the pairs of patients who are probably one person; see the module for the signs.

    fingerprints, clinical: by patient, of the same patients.
    """
    pairs = []
    for first, second in combinations(fingerprints, 2):
        correlation = _correlate(fingerprints[first], fingerprints[second])
        if correlation >= SAME_IMAGE_CORRELATION:
            pairs.append(SimilarPair(first, second, "same-image", correlation))
        elif _have_equal_age_and_sex(clinical[first], clinical[second]) and _is_one_scan(
            fingerprints[first], fingerprints[second]
        ):
            pairs.append(SimilarPair(first, second, "same-scan", correlation))
    return pairs


def list_single_slice_patients(fingerprints: Mapping[str, PatientFingerprint]) -> list[str]:
    """List the patients with fewer slices than any examination has: probably slices, each with an id of its own."""
    return [patient for patient, one in fingerprints.items() if one.slice_count < MIN_SLICES]


def _correlate(first: PatientFingerprint, second: PatientFingerprint) -> float:
    """Return the highest correlation of a slice of one patient with one of the other; 0 without slices."""
    if not len(first.slices) or not len(second.slices):
        return 0.0
    return float((first.slices @ second.slices.T).max())


def _have_equal_age_and_sex(first: ClinicalData, second: ClinicalData) -> bool:
    """Whether nothing that is known of both differs."""
    return all(
        a is None or b is None or a == b for a, b in ((first.age, second.age), (first.sex, second.sex))
    )


def _is_one_scan(first: PatientFingerprint, second: PatientFingerprint) -> bool:
    has_equal_grid = np.abs(first.grid - second.grid).max() < GRID_TOLERANCE_MM
    return bool(has_equal_grid and not first.slice_names & second.slice_names)


def select_pairs_across(
    pairs: Sequence[SimilarPair],
    folds: Sequence[Collection[str]],
    different_persons: Collection[frozenset[str]] = (),
) -> list[SimilarPair]:
    """Select the pairs whose patients are in different folds, without those known to be different persons."""
    fold_of = {patient: number for number, fold in enumerate(folds) for patient in fold}
    return [
        pair
        for pair in pairs
        if fold_of.get(pair.first) != fold_of.get(pair.second)
        and frozenset((pair.first, pair.second)) not in different_persons
    ]
