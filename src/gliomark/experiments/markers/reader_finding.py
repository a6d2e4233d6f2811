"""Accuracy of predicting IDH status from whether the lesion has an enhancing focus (method.md, section 5).

No human readings are available, so enhancement is determined by a rule that was fixed before any label was seen: a
voxel of the lesion mask enhances if T1C minus T1 (z-scores) is more than three standard deviations above the mean
difference in the brain outside the lesion; a focus is a connected component of at least 0.2 ml.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import label as connected
from scipy.stats import binomtest

from gliomark.cohort.store import Cohort
from gliomark.errors import CohortError
from gliomark.experiments.result_files import create_run_record, write_result_files
from gliomark.study import MRSequence, SliceStack
from gliomark.training.markers import read_marker_labels
from gliomark.training.recipes import MARKER_DEFINITIONS, get_cohort_sequences

EXPERIMENT_NAME = "reader_finding"
ENHANCEMENT_STANDARD_DEVIATIONS = 3.0
SMALLEST_FOCUS_ML = 0.2
REQUIRED_SEQUENCES = (MRSequence.T1, MRSequence.T1C)


def compute_largest_focus_ml(stack: SliceStack) -> float:
    """Compute the volume of the largest enhancing component within the reader's lesion mask, in ml."""
    enhancement = stack.images[MRSequence.T1C].astype(np.float64) - stack.images[MRSequence.T1]
    outside = enhancement[stack.brain & ~stack.reader_mask]
    enhancing = stack.reader_mask & (
        enhancement > outside.mean() + ENHANCEMENT_STANDARD_DEVIATIONS * outside.std()
    )
    components, count = connected(enhancing)
    sizes: NDArray[np.int64] = np.bincount(components.ravel(), minlength=count + 1)[1:]
    return float(sizes.max(initial=0) * stack.voxel_volume_ml)


def run_reader_finding(cohort_folder: Path, output_folder: Path) -> Path:
    """Write ``reader_finding.csv``, its patients and its run record; the path of the table.

    Raises
    ------
    CohortError
        If the cohort was not prepared for exactly T1 and T1C.
    """
    cohort = Cohort(cohort_folder)
    if set(get_cohort_sequences(cohort)) != set(REQUIRED_SEQUENCES):
        raise CohortError(
            f"{cohort_folder} was prepared for {'+'.join(get_cohort_sequences(cohort))}; enhancement is "
            f"measured between T1 and "
            "T1C, so build it with --sequences T1,T1C."
        )
    definition = MARKER_DEFINITIONS["idh"]
    labels = read_marker_labels(cohort, definition.column, definition.threshold, REQUIRED_SEQUENCES)
    rows = []
    for patient, truth in labels.items():
        focus = compute_largest_focus_ml(cohort.read_stack(patient))
        enhancing = int(focus >= SMALLEST_FOCUS_ML)
        rows.append({"patient": patient, "mutant": truth, "largest_focus_ml": focus, "enhancing": enhancing})
    patients = pd.DataFrame(rows)
    is_predicted_mutant, is_mutant = patients["enhancing"] == 0, patients["mutant"] == 1
    shares = {
        "accuracy": (is_predicted_mutant == is_mutant, np.ones(len(patients), bool)),
        "sensitivity (mutant found)": (is_predicted_mutant, is_mutant),
        "specificity (wild type found)": (~is_predicted_mutant, ~is_mutant),
        "mutant where no focus": (is_mutant, is_predicted_mutant),
        "wild type where a focus": (~is_mutant, ~is_predicted_mutant),
    }
    table = pd.DataFrame(
        [{"figure": name, **_compute_share(right[among])} for name, (right, among) in shares.items()]
    )
    rule = {"standard_deviations": ENHANCEMENT_STANDARD_DEVIATIONS, "smallest_focus_ml": SMALLEST_FOCUS_ML}
    tables, record = {"": table, "_patients": patients}, create_run_record(EXPERIMENT_NAME, **rule)
    return write_result_files(output_folder, EXPERIMENT_NAME, tables, record)


def _compute_share(is_correct: pd.Series) -> dict[str, float]:
    """Compute count, total and share, with the exact 95 % interval (Clopper and Pearson)."""
    count, total = int(is_correct.sum()), len(is_correct)
    if not total:
        return {"count": 0, "of": 0, "share": np.nan, "low_95": np.nan, "high_95": np.nan}
    interval = binomtest(count, total).proportion_ci()
    return {
        "count": count,
        "of": total,
        "share": count / total,
        "low_95": interval.low,
        "high_95": interval.high,
    }
