"""Healthy inputs that the battery damages, created once: ``python -m tests.battery.healthy_inputs FOLDER``.

One synthetic patient, ``P001``, as volumes, image files, classic and enhanced DICOM, with the expected answer for each;
a prepared cohort of tiny patients; tables. There are no data of real patients.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.uid import generate_uid
from tests.battery.dicom_objects import write_classic, write_enhanced
from tests.conftest import write_tiny_cohort

from gliomark.batch import PredictionOptions, predict_folder
from gliomark.cohort.folds import load_cohort_folds
from gliomark.cohort.store import Cohort
from gliomark.phantom import PhantomSettings, create_phantom, write_nifti, write_pictures
from gliomark.study import MRSequence, Series, Study

PATIENT = "P001"
PAIR = (MRSequence.T1C, MRSequence.FLAIR)
SMALL_PHANTOM = PhantomSettings(
    spacing_mm=(2.5, 2.5), matrix=88, slice_count=18, slice_mm=7.0, sublayers=1, max_tilt_degrees=0.0
)
FORMS = ("volumes", "pictures", "classic", "enhanced")


def draw_patient() -> tuple[Study, Series]:
    """Create a patient with only the brain, so that no skull stripping is needed, and its lesion mask."""
    phantom = create_phantom(7, SMALL_PHANTOM)
    brain = phantom.brain.image > 0
    series = {
        name: replace(sequence_series, image=np.rint(sequence_series.image * brain))
        for name, sequence_series in phantom.study.series.items()
        if name in PAIR
    }
    assert phantom.study.lesion is not None
    return replace(phantom.study, patient_id=PATIENT, series=series, lesion=None), phantom.study.lesion


def write_healthy_inputs(folder: Path) -> None:
    """Write all healthy inputs; ``answers.json`` is written last."""
    study, lesion = draw_patient()
    write_nifti(study, folder / "volumes")
    write_pictures(study, folder / "pictures")
    write_nifti(replace(study, series={}, lesion=lesion), folder / "mask")
    write_pictures(replace(study, series={}, lesion=lesion), folder / "mask-pictures")
    frame = generate_uid(entropy_srcs=["battery"])
    write_classic(study, folder / "classic" / PATIENT, frame)
    write_enhanced(study, folder / "enhanced" / PATIENT, frame)
    load_cohort_folds(Cohort(write_tiny_cohort(folder / "cohort")))  # creates the folds, as the build does
    write_predictions(folder / "predictions.csv", seed=1)
    write_predictions(folder / "rival.csv", seed=2)
    answers = {form: predict_healthy(folder / form / PATIENT, folder / "answers" / form) for form in FORMS}
    (folder / "answers.json").write_text(json.dumps(answers))


def write_predictions(path: Path, seed: int, patients: int = 40) -> None:
    """Write predictions with an AUC that is neither 0.5 nor 1."""
    random = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "label", "probability", "site"])
        for number in range(patients):
            label = number % 2
            score = 1 / (1 + np.exp(-(1.2 * label - 0.6 + random.normal())))
            table.writerow([f"P{number:03d}", label, f"{score:.6f}", "AB"[number % 4 // 2]])


def predict_healthy(patient: Path, out: Path) -> dict[str, float]:
    """Predict a patient as the command line does: probability of the marker and lesion volume in ml."""
    report = predict_folder(patient, None, out, PredictionOptions(allows_missing_clinical=True))
    assert not report.failures, report.failures
    answer = read_answer(out / PATIENT)
    shutil.rmtree(out)
    return answer


def read_answer(folder: Path) -> dict[str, float]:
    """Read the probability of the marker and the lesion volume in ml from ``prediction.json``."""
    document = json.loads((folder / "prediction.json").read_text("utf-8"))
    return {"idh": document["markers"][0]["probability"], "volume_ml": document["lesion"]["volume_ml"]}


if __name__ == "__main__":
    write_healthy_inputs(Path(sys.argv[1]))
