"""Quality measures of a prepared patient and the limits beyond which it should be reviewed.

Measures of one sequence have its name as a prefix ("T1C_coverage"). A measure that cannot be computed is None and
raises no flag. Flags only suggest a review; patients are rejected by hand in ``qc.csv``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomark.errors import CohortError
from gliomark.preprocessing.alignment import MAX_SAMPLED_VOXELS, measure_alignment, subsample_indices
from gliomark.study import MRSequence, Series, SliceStack, Study
from gliomark.tables import read_table

QualityNumbers = dict[str, float | None]
LimitRange = tuple[float | None, float | None]  # minimum and maximum that raise no flag

QC_DECISIONS = ("keep", "reject")
QC_TABLE = "qc.csv"


@dataclass(frozen=True)
class QualityLimits:
    """Minimum and maximum of each measure that raise no flag; None for no limit.

    Beyond a limit a patient should be reviewed, but is not necessarily unusable. Limits marked (sequence) apply to
    the measure of every sequence.

    brain_volume_ml: adults have 900 to 1700 ml, about 10 % more with ventricles and cisterns; atrophy or a large
    head explains 700 to 2000 ml, beyond that the mask misses brain tissue or includes scalp.
    slices: 12 slices of 8 mm just cover a brain; fewer show only a part of it.
    lesion_volume_ml: below 0.1 ml the mask is a few isolated voxels; above 300 ml it covers the brain.
    lesion_in_brain: a margin of a superficial lesion may lie outside the brain mask, but not 20 % of it.
    lesion_kept: volume of the lesion in the stack relative to the reader's mask; thick slices lose a little.
    symmetry: Dice of the brain mask with its mirror image; healthy and tumour brains reach 0.93 or more, an
    oblique or incomplete brain does not.
    coverage (sequence): a sequence that misses 10 % of the brain has no data there.
    similarity (sequence): normalised mutual information of unrelated images is near 0.
    misalignment_mm (sequence): remaining shift to the best alignment; aligned sequences have 0.1 to 0.4 mm in
    phantoms and 0.2 to 1.5 mm with thick clinical slices, of which 10 % reach the limit although aligned.
    displacement_mm, rotation_degrees (sequence): patients move by millimetres between sequences of one
    examination; larger values mean another examination or a failed registration.
    snr (sequence): below 8 the borders of a lesion are lost in noise.
    slice_mm, row_mm, column_mm (sequence): slice spacing above 7.5 mm can miss small lesions; pixels above 1.6 mm
    blur them.
    foreground (sequence): a head fills 20 to 80 % of the field of view; a skull-stripped brain less.
    mirrored (sequence): gain in similarity by mirroring left to right; above 0 the mirror image fits better.
    """

    brain_volume_ml: LimitRange = (700.0, 2000.0)
    slices: LimitRange = (12.0, None)
    lesion_volume_ml: LimitRange = (0.1, 300.0)
    lesion_in_brain: LimitRange = (0.8, None)
    lesion_kept: LimitRange = (0.6, 1.6)
    symmetry: LimitRange = (0.88, None)
    coverage: LimitRange = (0.9, None)
    similarity: LimitRange = (0.02, None)
    misalignment_mm: LimitRange = (None, 1.5)
    displacement_mm: LimitRange = (None, 10.0)
    rotation_degrees: LimitRange = (None, 8.0)
    snr: LimitRange = (8.0, None)
    slice_mm: LimitRange = (None, 7.5)
    row_mm: LimitRange = (None, 1.6)
    column_mm: LimitRange = (None, 1.6)
    foreground: LimitRange = (0.04, 0.85)
    mirrored: LimitRange = (None, 0.0)

    def get_range(self, name: str) -> LimitRange:
        """Return the limits of a measure by its name, with or without the sequence; (None, None) if it has none."""
        return getattr(self, split_number_name(name)[1], (None, None))

    def is_outside(self, name: str, value: float | None) -> bool:
        """Whether a value is outside its limits; None is not."""
        low, high = self.get_range(name)
        return value is not None and (
            (low is not None and value < low) or (high is not None and value > high)
        )


def split_number_name(name: str) -> tuple[str | None, str]:
    """Split the name of a measure into (sequence or None, name without the sequence)."""
    sequence, _, rest = name.partition("_")
    return (sequence, rest) if sequence in MRSequence.__members__ else (None, name)


def measure_quality(study: Study, stack: SliceStack) -> QualityNumbers:
    """Compute all quality measures of one prepared patient by name; floats or None, for JSON.

    study: as read, for spacing and noise. stack: the prepared images of that study.
    """
    numbers = {**_measure_brain(stack), **_measure_lesion(study, stack)}
    points = _sample_brain_points(stack)
    reference = list(stack.images)[-1]
    for name in stack.images:
        sequence_numbers: QualityNumbers = {}
        if name in study.series:
            sequence_numbers |= _measure_series(study.series[name], _transform_to_series(stack, name, points))
        if name != reference:
            sequence_numbers |= _measure_motion(stack, name) | measure_alignment(stack, name, reference)
        numbers |= {f"{name}_{number}": value for number, value in sequence_numbers.items()}
    return {name: None if value is None else round(float(value), 4) for name, value in numbers.items()}


# --- flags ------------------------------------------------------------------------------------------

# measure: (text for a low value, text for a high value)
_FLAG_TEXTS: Mapping[str, tuple[str, str]] = {
    "brain_volume_ml": (
        "The brain volume is low ({value:.0f} ml): check whether the brain mask misses tissue or the series "
        "shows only a part of the head.",
        "The brain volume is high ({value:.0f} ml): check whether the brain mask includes scalp, eyes or neck.",
    ),
    "slices": (
        "Few slices show the brain ({value:.0f}): check whether the vertex or the base is missing.",
        "",
    ),
    "lesion_volume_ml": (
        "The lesion is very small ({value:.2f} ml): check that the mask belongs to this patient and is not empty.",
        "The lesion is very large ({value:.0f} ml): check whether the mask is a brain mask or includes oedema.",
    ),
    "lesion_in_brain": (
        "{outside:.0f} % of the lesion lies outside the brain: check that the mask is aligned with the images.",
        "",
    ),
    "lesion_kept": (
        "Only {percent:.0f} % of the drawn volume is on the prepared slices: check that the mask fits the reference.",
        "The lesion volume is {percent:.0f} % of the drawn volume: check the mask's spacing.",
    ),
    "symmetry": (
        "The brain mask is asymmetric ({value:.2f}): check for a tilted or incomplete head, or a wrong mask.",
        "",
    ),
    "coverage": (
        "{sequence} covers only {percent:.0f} % of the brain: check for black borders or missing slices.",
        "",
    ),
    "similarity": (
        "{sequence} is not similar to the reference ({value:.3f}): check that both series belong to the same patient.",
        "",
    ),
    "misalignment_mm": (
        "",
        "{sequence} may be misaligned by {value:.1f} mm: compare it with the reference at ventricles and midline.",
    ),
    "displacement_mm": (
        "",
        "{sequence} was moved by {value:.1f} mm in registration: check that it is of the same examination.",
    ),
    "rotation_degrees": (
        "",
        "{sequence} was rotated by {value:.1f}° in registration: check that it is of the same examination.",
    ),
    "snr": ("{sequence} is noisy (SNR {value:.1f}): check that the lesion's border is visible.", ""),
    "slice_mm": (
        "",
        "{sequence} has thick slices (spacing {value:.1f} mm): small lesions may be missed.",
    ),
    "row_mm": (
        "",
        "{sequence} has large pixels ({value:.2f} mm between rows): small lesions may be missed.",
    ),
    "column_mm": (
        "",
        "{sequence} has large pixels ({value:.2f} mm between columns): small lesions may be missed.",
    ),
    "foreground": (
        "{sequence} shows hardly any tissue ({percent:.0f} % of the image): check that it is the right series.",
        "{sequence} has no background ({percent:.0f} % is bright): check whether the head is cut off or padded grey.",
    ),
    "mirrored": (
        "",
        "{sequence} fits the reference better when mirrored: check whether left and right are swapped.",
    ),
}


def list_flags(
    numbers: Mapping[str, float | None], limits: QualityLimits = QualityLimits()
) -> tuple[str, ...]:
    """List one sentence for each measure outside its limits: what is wrong and what to check."""
    sentences = [_format_flag(name, value, limits) for name, value in numbers.items()]
    if numbers.get("lesion_volume_ml") is None and "lesion_volume_ml" in numbers:
        sentences.append("There is no lesion mask: draw one, or exclude the patient from training.")
    return tuple(sentence for sentence in sentences if sentence)


def list_outside_limits(
    numbers: Mapping[str, float | None], limits: QualityLimits = QualityLimits()
) -> tuple[str, ...]:
    """List the names of the measures outside their limits, in the order given."""
    return tuple(name for name, value in numbers.items() if limits.is_outside(name, value))


def _format_flag(full_name: str, value: float | None, limits: QualityLimits) -> str:
    if value is None or not limits.is_outside(full_name, value):
        return ""
    sequence, name = split_number_name(full_name)
    low, _ = limits.get_range(full_name)
    text = _FLAG_TEXTS[name][0 if low is not None and value < low else 1]
    return text.format(
        sequence=sequence, value=value, percent=math.floor(100 * value), outside=math.ceil(100 * (1 - value))
    )


# --- brain and lesion -------------------------------------------------------------------------------


def _measure_brain(stack: SliceStack) -> QualityNumbers:
    """Measure volume, slices and symmetry. Symmetry cannot detect a left-right flip; see the mirror gain."""
    return {
        "brain_volume_ml": float(stack.brain.sum()) * stack.voxel_volume_ml,
        "slices": float(len(stack.slice_names)),
        "step_mm": float(np.linalg.norm(stack.affine[:3, 2])),
        "symmetry": _compute_symmetry(stack.brain),
    }


def _compute_symmetry(brain: NDArray[np.bool_]) -> float | None:
    """Compute the highest Dice of the brain with its mirror image, about columns near its centre of mass."""
    if not brain.any():
        return None
    return max(_compute_mirror_dice(brain, twice) for twice in _list_mirror_axes(brain, 2))


def _list_mirror_axes(brain: NDArray[np.bool_], reach: int) -> range:
    """List twice the column of candidate mirror planes, around the brain's centre of mass."""
    weights = brain.sum(axis=(0, 1))
    middle = round(2 * float(weights @ np.arange(weights.size)) / float(weights.sum()))
    return range(middle - reach, middle + reach + 1)


def _compute_mirror_dice(brain: NDArray[np.bool_], doubled_column: int) -> float:
    """Compute the Dice of the brain with its mirror image about the column ``twice / 2``."""
    columns = np.flatnonzero(brain.any(axis=(0, 1)))
    columns = columns[(doubled_column - columns >= 0) & (doubled_column - columns < brain.shape[2])]
    both = np.count_nonzero(brain[:, :, columns] & brain[:, :, doubled_column - columns])
    return 2.0 * both / (2.0 * float(brain.sum()))


def _measure_lesion(study: Study, stack: SliceStack) -> QualityNumbers:
    """Measure volume, slices, fraction inside the brain, and volume relative to the reader's mask; None without one."""
    names = ("lesion_volume_ml", "lesion_slices", "lesion_in_brain", "lesion_kept")
    if stack.lesion is None:
        return dict.fromkeys(names)
    voxels = float(stack.lesion.sum())
    volume = voxels * stack.voxel_volume_ml
    inside = float((stack.lesion & stack.brain).sum()) / voxels if voxels else None
    drawn = _compute_drawn_volume_ml(study.lesion)
    slices = float(stack.lesion.any(axis=(1, 2)).sum())
    return dict(zip(names, (volume, slices, inside, volume / drawn if drawn else None), strict=True))


def _compute_drawn_volume_ml(lesion: Series | None) -> float:
    if lesion is None:
        return 0.0
    voxel_ml = abs(float(np.linalg.det(lesion.affine[:3, :3]))) / 1000.0
    return float(np.count_nonzero(lesion.image > 0.5)) * voxel_ml


# --- series as acquired -----------------------------------------------------------------------------


def _sample_brain_points(stack: SliceStack) -> NDArray[np.float64]:
    """Sample voxels of the brain as points ``(N, 4)`` in LPS mm of the stack."""
    flat = subsample_indices(np.flatnonzero(stack.brain), MAX_SAMPLED_VOXELS)
    slices, rows, columns = np.unravel_index(flat, stack.brain.shape)
    return np.stack([columns, rows, slices, np.ones_like(rows)], axis=1) @ stack.affine.T


def _transform_to_series(
    stack: SliceStack, name: MRSequence, points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Transform points ``(N, 4)`` of the stack to the patient coordinates of a series."""
    moved = stack.to_stack.get(name)
    return points if moved is None else points @ np.linalg.inv(moved).T


def _measure_series(series: Series, points: NDArray[np.float64]) -> QualityNumbers:
    """Measure spacing, slices, coverage, SNR and foreground. points: of the brain, ``(N, 4)``, LPS mm of the series."""
    column_mm, row_mm, slice_mm = np.linalg.norm(series.affine[:3, :3], axis=0)
    index = np.rint((points @ np.linalg.inv(series.affine).T)[:, 2::-1]).astype(np.int64)
    covered = ((index >= 0) & (index < series.image.shape)).all(axis=1)
    snr, from_background = _estimate_snr(series.image, index[covered])
    return {
        "slices": float(series.image.shape[0]),
        "row_mm": row_mm,  # spacing between rows
        "column_mm": column_mm,
        "slice_mm": slice_mm,
        "coverage": float(covered.mean()) if covered.size else None,
        "foreground": _compute_foreground_share(series.image),
        "snr": snr,
        "noise_from_background": from_background,
    }


def _compute_foreground_share(image: NDArray[np.float32]) -> float:
    """Compute the fraction of voxels brighter than 10 % of the 98th percentile, on a coarse grid."""
    thin = image[:: max(1, len(image) // 12), ::4, ::4]
    floor = float(thin.min())
    return float((thin > floor + 0.1 * (float(np.percentile(thin, 98)) - floor)).mean())


def _estimate_snr(image: NDArray[np.float32], inside: NDArray[np.int64]) -> tuple[float | None, float | None]:
    """Estimate the SNR in the brain; return also 1 if the noise is from the background, 0 if from the brain.

    inside: indices ``(N, 3)`` of brain voxels. In air, the noise of a magnitude image is Rayleigh distributed, with
    0.655 of the receiver's standard deviation. If the background was set to zero, the noise is the median absolute
    second difference of the brain's voxels (Immerkaer's mask), which anatomy increases and interpolation decreases.
    """
    if len(inside) < 100:
        return None, None
    mean = float(image[tuple(inside.T)].mean())
    noise = _estimate_background_noise(image)
    from_background = noise is not None
    if noise is None:
        noise = _estimate_highpass_noise(image, inside)
    if not noise or mean <= 0:
        return None, None
    return mean / noise, float(from_background)


def _estimate_background_noise(image: NDArray[np.float32]) -> float | None:
    """Estimate the noise in the quietest corner of the middle slices, Rayleigh-corrected; None if set to zero."""
    middle = image[len(image) // 4 : max(len(image) // 4 + 1, 3 * len(image) // 4)]
    rows, columns = max(4, image.shape[1] // 12), max(4, image.shape[2] // 12)
    found = []
    for row in (slice(2, 2 + rows), slice(-2 - rows, -2)):
        for column in (slice(2, 2 + columns), slice(-2 - columns, -2)):
            corner = middle[:, row, column]
            # a filled corner has one value; real noise of magnitude images has few equal values
            if corner.size and np.mean(corner == corner.min()) < 0.05 and corner.std() > 0:
                found.append(float(corner.std()) / 0.6551)
    return min(found, default=None)


def _estimate_highpass_noise(image: NDArray[np.float32], inside: NDArray[np.int64]) -> float:
    """Estimate the noise from second differences along rows and columns at the brain's voxels."""
    size = np.array(image.shape[1:])
    near = inside[((inside[:, 1:] > 0) & (inside[:, 1:] < size - 1)).all(axis=1)]
    plane, row, column = near.T
    difference = np.zeros(len(near), np.float32)
    for row_step, row_weight in ((-1, 1), (0, -2), (1, 1)):
        for column_step, column_weight in ((-1, 1), (0, -2), (1, 1)):
            difference += row_weight * column_weight * image[plane, row + row_step, column + column_step]
    return float(np.median(np.abs(difference))) / 0.6745 / 6.0  # norm of the mask's weights: 6


# --- one sequence against the reference -------------------------------------------------------------


def _measure_motion(stack: SliceStack, name: MRSequence) -> QualityNumbers:
    """Measure the movement by registration: displacement (mm) at the brain's centre and rotation (degrees)."""
    moved = stack.to_stack.get(name)
    if moved is None or not stack.brain.any():
        return {"displacement_mm": None, "rotation_degrees": None}
    centre = _sample_brain_points(stack).mean(axis=0)
    cosine = (float(np.trace(moved[:3, :3])) - 1.0) / 2.0
    return {
        "displacement_mm": float(np.linalg.norm((moved @ centre - centre)[:3])),
        "rotation_degrees": math.degrees(math.acos(min(1.0, max(-1.0, cosine)))),
    }


# --- decisions in qc.csv ----------------------------------------------------------------------------


def read_rejected_ids(folder: Path) -> frozenset[str]:
    """Read the ids of patients whose decision in the folder's ``qc.csv`` is ``reject``; none without the file.

    Raises CohortError as ``read_decisions``.
    """
    return frozenset(row["id"] for row in read_decisions(folder) if row["decision"] == "reject")


def read_decisions(folder: Path) -> list[dict[str, str]]:
    """Read the rows of ``qc.csv``: id, decision and comment. A blank decision means keep.

    Raises
    ------
    CohortError
        If the column id or decision is missing, a row has no id, or a decision is neither keep nor reject.
    """
    path = folder / QC_TABLE
    if not os.path.lexists(path):
        return []
    header, records = read_table(path)
    missing = {"id", "decision"} - set(header)
    if missing:
        raise CohortError(
            f"{path} has no column {' and '.join(sorted(missing))}: restore it, or delete the file and create it again."
        )
    return [_parse_decision(path, dict(zip(header, record, strict=True))) for record in records]


def _parse_decision(path: Path, cells: Mapping[str, str]) -> dict[str, str]:
    decision = cells.get("decision", "").lower() or "keep"
    if decision not in QC_DECISIONS:
        raise CohortError(
            f"{path}: the decision for patient {cells.get('id', '')!r} is {decision!r}: write keep or reject."
        )
    if not cells.get("id"):
        raise CohortError(f"{path}: a row has a decision but no id: fill the id in, or delete the row.")
    return {"id": cells["id"], "decision": decision, "comment": cells.get("comment", "")}
