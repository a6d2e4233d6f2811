"""Write a synthetic hospital directly as a prepared cohort, without reading, registering and skull-stripping images.

Only the slices of the prepared grid are rendered, with a known brain mask; resampling and normalisation are those of
every preparation. The cohort and the record of every patient state that they are synthetic.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from gliomark.cohort.build import (
    BuildSettings,
    check_same_settings,
    collect_software_versions,
    describe_grid,
    serialise_settings,
    update_folds,
)
from gliomark.cohort.folds import FOLD_COUNT
from gliomark.cohort.labels import read_labels, write_clinical_table
from gliomark.cohort.quality import measure_quality
from gliomark.cohort.store import (
    Cohort,
    ProgressCallback,
    ignore_progress,
    is_finished,
    read_json,
    write_json,
    write_patient,
)
from gliomark.errors import ConfigurationError
from gliomark.files import check_writable, remove_leftovers
from gliomark.phantom.appearance import AppearanceSettings
from gliomark.phantom.hospital import (
    HospitalReport,
    HospitalSettings,
    WrittenPatient,
    create_aligned_settings,
    create_report,
    create_truth_row,
    map_in_processes,
    write_tables,
)
from gliomark.phantom.patient import PhantomSettings, create_patient_id, sample_labels
from gliomark.phantom.planned_slices import create_planned_phantom
from gliomark.preprocessing import PreparationConfig, prepare_with_brain_mask
from gliomark.preprocessing.slicing import MIN_BRAIN_AREA_MM2
from gliomark.study import MRSequence

PRIVACY_STATEMENT = {"ids": "synthetic patients, not real persons"}
# area of the brain on the first and the last slice; the slices are planned with an error of some 15 %
_END_AREA_MM2 = 1.5 * MIN_BRAIN_AREA_MM2


@dataclass(frozen=True)
class SyntheticSettings:
    """Settings of a synthetic cohort.

    sequences: the reference last. test_count: number of patients, those with the largest seeds, that are the test set;
    None for a random fifth. imaging: of the phantoms; slice spacing and number of slices follow from the brain and K.
    """

    sequences: tuple[MRSequence, ...] = (MRSequence.T1C, MRSequence.T2)
    test_count: int | None = None
    imaging: PhantomSettings = create_aligned_settings(HospitalSettings())
    preparation: PreparationConfig = PreparationConfig()

    @property
    def appearance(self) -> AppearanceSettings:
        """Effect of the labels on the image."""
        return AppearanceSettings(self.imaging.appearance_noise_factor, case_mix=self.imaging.case_mix)


@dataclass(frozen=True)
class SyntheticCohortReport:
    """Result: patients generated now and kept from an earlier run, the best achievable AUC, and notes for the user."""

    cohort: Cohort
    generated: int
    reused: int
    hospital: HospitalReport
    notes: tuple[str, ...]


def write_synthetic_cohort(
    seeds: Sequence[int],
    out: Path,
    settings: SyntheticSettings = SyntheticSettings(),
    workers: int = 1,
    progress: ProgressCallback = ignore_progress,
) -> SyntheticCohortReport:
    """Write the prepared cohort ``out`` of synthetic patients, or continue an interrupted one.

    With more seeds than before, patients are added and new folds are created.

    Every patient depends only on the seed and the settings, so the bytes do not depend on the number of workers. In
    addition to the files of a prepared cohort there is ``truth/`` with the labels, appearance and exact posteriors of
    all patients and the best achievable AUC, as ``write_hospital`` writes them.

    Parameters
    ----------
    seeds
        One seed per patient.
    out
        A new folder, or a synthetic cohort with the same settings.
    settings
        Sequences, test set and imaging.
    workers
        Number of processes.
    progress
        Called with the id of the patient just finished, the number finished and the number of patients.

    Returns
    -------
    SyntheticCohortReport
        The cohort, and what is the best achievable AUC.

    Raises
    ------
    ConfigurationError
        If seeds are missing or repeated, the test set is empty or leaves too few patients for training, or ``out``
        contains something else or was written with other settings.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigurationError(
            "The synthetic cohort needs at least one patient, each with a different seed."
        )
    if settings.test_count is not None and not 0 < settings.test_count <= len(seeds) - FOLD_COUNT:
        raise ConfigurationError(
            f"{settings.test_count} test patients of {len(seeds)} were requested: at least one is required, and "
            f"{FOLD_COUNT} patients for training."
        )
    metadata = _serialise_settings(settings)
    _check_output_folder(out, metadata)
    remove_leftovers(out, recursive=True)
    check_writable(out)
    write_json(out / "cohort.json", {**metadata, "finished": False})
    generated = 0
    write_one = partial(write_synthetic_patient, out=out, settings=settings)
    for done, is_new in enumerate(map_in_processes(write_one, seeds, workers), start=1):
        generated += is_new
        progress(create_patient_id(seeds[done - 1], settings.imaging), done, len(seeds))
    hospital, notes = _write_cohort_files(out, settings, metadata)
    return SyntheticCohortReport(Cohort(out), generated, len(seeds) - generated, hospital, tuple(notes))


def write_synthetic_patient(seed: int, out: Path, settings: SyntheticSettings) -> bool:
    """Write the patient of a seed into the cohort ``out``; return False if it was already there, unchanged."""
    # one thread, so that sums are computed in the same order on every machine: same seed, same bytes
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    imaging = settings.imaging
    source = [seed, asdict(imaging), asdict(settings.preparation), settings.sequences]
    source_hash = hashlib.sha256(json.dumps([source, collect_software_versions()]).encode()).hexdigest()
    if is_finished(out, create_patient_id(seed, imaging), source_hash):
        return False
    phantom = create_planned_phantom(seed, settings.sequences, settings.preparation.k, _END_AREA_MM2, imaging)
    stack = prepare_with_brain_mask(phantom.study, settings.sequences, phantom.brain, settings.preparation)
    clinical = phantom.clinical
    write_patient(
        out,
        stack,
        quality=measure_quality(phantom.study, stack),
        series={str(name): describe_grid(series) for name, series in phantom.study.series.items()},
        agreement={},
        person={"age": f"{clinical.age:g}", "sex": str(clinical.sex)},
        source_sha256=source_hash,
        synthetic=create_truth_row(seed, clinical, phantom.appearance, settings.appearance),
    )
    return True


def _serialise_settings(settings: SyntheticSettings) -> dict[str, Any]:
    """Convert the settings to JSON types, as stored in ``cohort.json``."""
    build = BuildSettings(settings.sequences, settings.preparation, keep_ids=True)
    planned = ("slice_mm", "slice_count")
    synthetic = {
        "imaging": {name: value for name, value in asdict(settings.imaging).items() if name not in planned},
        "appearance": asdict(settings.appearance),
        "test_count": settings.test_count,
    }
    return {**serialise_settings(build), "synthetic": json.loads(json.dumps(synthetic))}


def _check_output_folder(out: Path, metadata: Mapping[str, Any]) -> None:
    """Raise ConfigurationError if the folder contains anything but a synthetic cohort with these settings."""
    is_cohort = (out / "cohort.json").is_file()
    if not is_cohort and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigurationError(f"{out} already exists and is not empty: choose a new folder.")
    check_same_settings(out, metadata)


def _write_cohort_files(
    out: Path, settings: SyntheticSettings, metadata: Mapping[str, Any]
) -> tuple[HospitalReport, list[str]]:
    """Write tables, hashes and folds of all patients, also of earlier runs; return also notes for the user."""
    records = {path.stem: read_json(path, _is_synthetic_record) for path in (out / "patients").glob("*.json")}
    patients = sorted(records, key=lambda patient: records[patient]["synthetic"]["seed"])
    written = []
    for patient in patients:
        truth_row = records[patient]["synthetic"]
        clinical, appearance = sample_labels(truth_row["seed"], patient, settings.imaging)
        written.append(WrittenPatient(clinical, appearance, truth_row))
    report = create_report(written, out, settings.appearance)
    write_tables(written, report, out, "truth/labels.csv")
    labels = read_labels(out / "truth" / "labels.csv", BuildSettings().labels)
    rows = (
        {"id": patient, **{name: cell for name, cell in labels.rows[patient].items() if cell}}
        for patient in patients
    )
    write_clinical_table(out / "MetaMS.csv", rows)
    content = {
        **metadata,
        "finished": True,
        "privacy": PRIVACY_STATEMENT,
        "left_out": 0,
        "arrays_sha256": {patient: records[patient]["arrays_sha256"] for patient in sorted(patients)},
        "software": collect_software_versions(),
    }
    write_json(out / "cohort.json", content)
    test_count = settings.test_count
    test_patients = None if test_count is None else patients[len(patients) - test_count :]
    return report, update_folds(Cohort(out), test_patients)


def _is_synthetic_record(record: Mapping[str, Any]) -> bool:
    return isinstance(record["synthetic"]["seed"], int) and isinstance(record["arrays_sha256"], str)
