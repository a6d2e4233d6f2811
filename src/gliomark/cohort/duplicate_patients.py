"""Find patients of a cohort who are probably one person: an image under two ids, or one scan divided between two.

If such a pair is in different folds, a network is tested on a person on whom it was trained, although no id is in both
parts. Pairs are found by three signs:

- ``same-image``: a slice of one patient is nearly identical to one of the other;
- ``same-scan``: equal grid, age and sex, and no slice name in common, as where the slices of one scan were assigned to
  several ids;
- ``alike``: equal age and sex, and images far more alike than those of any other two patients.

A second examination of the same person, months later and with another scanner, may stay undetected.
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

PairSign = Literal["same-image", "same-scan", "alike"]
# side of a slice's fingerprint in pixels, and the Gaussian filters between whose results it is the difference: fine
# structure for identical images, coarse for neighbouring slices of one brain
FINE, COARSE = (48, 0.7, 3.0), (64, 2.0, 8.0)
MIN_BRAIN_SIDE = 40  # pixels; the first and last slices of a brain are alike in everyone
# correlation of the fingerprints of two slices: at most 0.70 between persons of TCGA-LGG and of a synthetic hospital,
# above 0.99 between an image and its copy that was shifted, rescaled and made noisier
SAME_IMAGE_CORRELATION = 0.9
# how far, in robust standard deviations, the likeness of two patients exceeds that of either with all others: at most
# 4.2 between persons of TCGA-LGG, 2.6 to 10.9 between the two halves of one person's slices
ALIKE_DEVIATIONS = 4.5
MIN_PATIENTS_FOR_LIKENESS = 20
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

    fine, coarse: ``(slice, pixel)``, of unit length; grid: ``(9,)``, the in-plane axes and the origin within the plane;
    slice_names: of the whole stack.
    """

    fine: NDArray[np.float32]
    coarse: NDArray[np.float32]
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
    fine, coarse = (
        np.array([_filter_slice(image[i], stack.brain[i], *setting) for i in rows], np.float32).reshape(
            len(rows), setting[0] ** 2
        )
        for setting in (FINE, COARSE)
    )
    axes, origin = stack.affine[:3, :3], stack.affine[:3, 3]
    normal = axes[:, 2] / np.linalg.norm(axes[:, 2])
    grid = np.concatenate([axes[:, 0], axes[:, 1], origin - normal * (normal @ origin)])
    return PatientFingerprint(fine, coarse, grid, frozenset(stack.slice_names))


def _has_large_brain(brain: NDArray[np.bool_]) -> bool:
    return bool(min(brain.any(axis=0).sum(), brain.any(axis=1).sum()) >= MIN_BRAIN_SIDE)


def _filter_slice(
    image: NDArray[np.float32], brain: NDArray[np.bool_], side: int, inner: float, outer: float
) -> NDArray[np.float32]:
    """Return the structure inside the brain's bounding box as a vector ``(side * side,)`` of unit length."""
    rows, columns = np.flatnonzero(brain.any(axis=1)), np.flatnonzero(brain.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)

    def shrink(plane: NDArray[np.float32]) -> NDArray[np.float32]:
        resized = Image.fromarray(plane).resize((side, side), Image.Resampling.BOX, box=box)
        return np.asarray(resized, np.float32)

    inside, small = shrink(brain.astype(np.float32)) > 0.9, shrink(image)
    detail = gaussian_filter(small, inner) - gaussian_filter(small, outer)
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
    patients = list(fingerprints)
    likeness, correlation = _compare_all(fingerprints)
    outliers = _compute_deviations(likeness)
    pairs = []
    for i, j in combinations(range(len(patients)), 2):
        first, second = patients[i], patients[j]
        sign = _find_sign(
            float(correlation[i, j]),
            has_equal_person=_have_equal_age_and_sex(clinical[first], clinical[second]),
            has_equal_scan=_is_one_scan(fingerprints[first], fingerprints[second]),
            deviations=float(outliers[i, j]),
        )
        if sign is not None:
            pairs.append(SimilarPair(first, second, sign, float(correlation[i, j])))
    return pairs


def list_single_slice_patients(fingerprints: Mapping[str, PatientFingerprint]) -> list[str]:
    """List the patients with fewer slices than any examination has: probably slices, each with an id of its own."""
    return [patient for patient, one in fingerprints.items() if one.slice_count < MIN_SLICES]


def _find_sign(
    correlation: float, *, has_equal_person: bool, has_equal_scan: bool, deviations: float
) -> PairSign | None:
    if correlation >= SAME_IMAGE_CORRELATION:
        return "same-image"
    if has_equal_person and has_equal_scan:
        return "same-scan"
    return "alike" if has_equal_person and deviations >= ALIKE_DEVIATIONS else None


def _have_equal_age_and_sex(first: ClinicalData, second: ClinicalData) -> bool:
    """Whether nothing that is known of both differs."""
    return all(
        a is None or b is None or a == b for a, b in ((first.age, second.age), (first.sex, second.sex))
    )


def _is_one_scan(first: PatientFingerprint, second: PatientFingerprint) -> bool:
    has_equal_grid = np.abs(first.grid - second.grid).max() < GRID_TOLERANCE_MM
    return bool(has_equal_grid and not first.slice_names & second.slice_names)


def _compare_all(
    fingerprints: Mapping[str, PatientFingerprint],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the likeness of every two patients, and the highest correlation of two slices, both ``(n, n)``.

    Likeness: median over the slices of one patient of the highest coarse correlation with a slice of the other; of the
    two directions the lower one.
    """
    names = list(fingerprints)
    likeness, correlation = np.zeros((2, len(names), len(names)))
    for i, j in combinations(range(len(names)), 2):
        first, second = fingerprints[names[i]], fingerprints[names[j]]
        if not len(first.fine) or not len(second.fine):
            continue
        coarse = first.coarse @ second.coarse.T
        likeness[i, j] = min(np.median(coarse.max(axis=1)), np.median(coarse.max(axis=0)))
        correlation[i, j] = float((first.fine @ second.fine.T).max())
    return likeness + likeness.T, correlation + correlation.T


def _compute_deviations(likeness: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return by how many robust standard deviations each likeness ``(n, n)`` exceeds those of either patient."""
    count = len(likeness)
    if count < MIN_PATIENTS_FOR_LIKENESS:
        return np.zeros_like(likeness)
    others = likeness[~np.eye(count, dtype=bool)].reshape(count, count - 1)
    median = np.median(others, axis=1, keepdims=True)
    spread = 1.4826 * np.median(np.abs(others - median), axis=1, keepdims=True)
    deviations = (likeness - median) / np.maximum(spread, 1e-6)
    return np.asarray(np.minimum(deviations, deviations.T))


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
