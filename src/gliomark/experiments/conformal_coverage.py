"""Coverage of the stated levels on patients who were not used for the limits, over random halves of a cohort.

One half of the out-of-fold predictions gives the calibration and the limits, as in a weights file; the other half is
decided by them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gliomark.evaluation.conformal import compute_coverage, fit_conformal_limits
from gliomark.evaluation.evaluate import PredictionColumns, PredictionTable, read_predictions
from gliomark.experiments.result_files import create_run_record, to_file_name, write_result_files
from gliomark.experiments.site_recalibration import draw_parts, summarise_repeats
from gliomark.inference.patient_calibration import calibrate_probabilities, compute_level_limits
from gliomark.models.patient_calibration import PatientCalibration
from gliomark.study import CANNOT_TELL
from gliomark.training.patient_calibration import calibrate_marker

EXPERIMENT_NAME = "conformal_coverage"
COVERAGES = (0.8, 0.85, 0.9, 0.95)


def run_conformal_coverage(
    predictions_file: Path, columns: PredictionColumns, repeat_count: int, output_folder: Path, name: str
) -> Path:
    """Write ``conformal_coverage_<name>.csv`` and its run record; the path of the table.

    Parameters
    ----------
    predictions_file, columns
        Out-of-fold predictions, see ``read_predictions``.
    repeat_count
        Number of random halves.
    output_folder, name
        Where the files are written, and the end of their names.

    Raises
    ------
    InputError
        If the table cannot be read.
    """
    predictions = read_predictions(predictions_file, columns)
    label = predictions.labels
    rng = np.random.default_rng(len(label))
    halves = (int((label == 0).sum()) // 2, int((label == 1).sum()) // 2)
    scores: dict[float, list[dict[str, Any]]] = {coverage: [] for coverage in COVERAGES}
    for _ in range(repeat_count):
        known, test = draw_parts(label, rng, halves)
        calibration = calibrate_marker(
            label[known], predictions.probabilities[known], predictions.source_name
        )
        for coverage in COVERAGES:
            scores[coverage].append(_score_half(predictions, test, calibration, coverage))
    shared = {"patients": len(label), "positives": int(label.sum()), "repeats": repeat_count}
    rows = [
        {"coverage": coverage} | shared | summarise_repeats(pd.DataFrame(one))
        for coverage, one in scores.items()
    ]
    stem = f"{EXPERIMENT_NAME}_{to_file_name(name)}"
    record = create_run_record(
        stem,
        predictions=predictions_file.name,
        rows=dict(columns.row_filters),
        repeats=repeat_count,
    )
    return write_result_files(output_folder, stem, {"": pd.DataFrame(rows)}, record)


def _score_half(
    predictions: PredictionTable,
    test: NDArray[np.int64],
    calibration: PatientCalibration,
    coverage: float,
) -> dict[str, Any]:
    """Score the sets and the stated levels of patients ``test``, who were not used for the calibration."""
    calibrated = calibrate_probabilities(calibration, predictions.probabilities[test])
    limits = fit_conformal_limits(*calibration.get_labels_and_scores(), coverage)
    truth = predictions.labels[test]
    positives, negatives, cannot_tell = compute_coverage(limits, truth, calibrated)
    stated_limits = compute_level_limits(calibration, coverage)
    levels = np.array([stated_limits.decide(one, "positive", "negative") for one in calibrated])
    return {
        "positives_covered": positives,
        "negatives_covered": negatives,
        "patients_covered": truth.mean() * positives + (1 - truth.mean()) * negatives,
        "cannot_tell": cannot_tell,
        "stated_wrong_positives": (levels == "negative")[truth == 1].mean(),
        "stated_wrong_negatives": (levels == "positive")[truth == 0].mean(),
        "stated_cannot_tell": (levels == CANNOT_TELL).mean(),
    }
