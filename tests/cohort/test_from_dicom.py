"""Tests of the complete build from raw DICOM: correct series, correct position of the lesion, no patient names."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from gliomark.cohort.build import BuildReport, CohortSources, build_cohort
from gliomark.cohort.describe import describe_cohort
from gliomark.cohort.quality_page import write_quality_pages
from gliomark.cohort.store import Cohort
from gliomark.phantom.hospital import HospitalSettings, create_hospital_patient, write_hospital
from gliomark.study import MRSequence

SEED = 4
SMALL = HospitalSettings(matrix=(96,), thickness_mm=(6.0,), gap_mm=(0.0,), sublayers=1)
IDENTIFYING = (
    "PatientName", "PatientID", "PatientBirthDate", "StudyDate", "AccessionNumber", "InstitutionName",
    "ReferringPhysicianName", "OperatorsName", "DeviceSerialNumber", "StationName", "StudyInstanceUID",
    "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "StudyID", "ContentCreatorName",
)  # fmt: skip


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hospital") / "export"
    write_hospital([SEED], out, SMALL)
    return out


@pytest.fixture(scope="module")
def report(export: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildReport:
    out = tmp_path_factory.mktemp("built") / "cohort"
    report = build_cohort(CohortSources(export / "dicom", export / "labels.csv"), out, workers=0)
    write_quality_pages(report.cohort)
    describe_cohort(report.cohort)
    return report


def test_the_four_sequences_are_used_and_other_series_have_a_reason(report: BuildReport) -> None:
    assert (report.prepared, report.left_out, report.quarantined) == (1, {}, 0)
    table = report.cohort.folder.with_name("cohort.private") / "series.csv"
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["use"]: row["recognised"] for row in rows if row["use"]} == {
        name: name for name in ("T1", "T1C", "T2", "FLAIR")
    }
    refused = {row["recognised"] for row in rows if not row["use"]}
    assert {"localiser", "DWI", "ADC", "sagittal", "screenshot", "report", "segmentation"} <= refused
    assert all(row["reason"] for row in rows)


def test_the_drawn_lesion_is_at_the_correct_position(report: BuildReport) -> None:
    truth = create_hospital_patient(SEED, SMALL, (MRSequence.T1C,))
    stack = report.cohort.read_stack("G0001")
    volume = truth.core.image.sum() * abs(np.linalg.det(truth.core.affine[:3, :3])) / 1000
    assert stack.reader_mask.sum() * stack.voxel_volume_ml == pytest.approx(volume, rel=0.15)
    at = np.argwhere(truth.core.image > 0)[:, ::-1].mean(axis=0)
    found = np.argwhere(stack.reader_mask)[:, ::-1].mean(axis=0)
    centres = [
        affine[:3, :3] @ index + affine[:3, 3]
        for affine, index in ((truth.core.affine, at), (stack.affine, found))
    ]
    assert np.linalg.norm(centres[0] - centres[1]) < 1.5


def test_the_displaced_sequence_is_registered(report: BuildReport) -> None:
    quality = report.cohort.read_patient_record("G0001")["quality"]
    assert quality["T1C_coverage"] > 0.95 and quality["T1C_misalignment_mm"] < 1.5


def test_labels_and_scanner_are_stored(report: BuildReport, export: Path) -> None:
    with (export / "labels.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    clinical = report.cohort.get_clinical("G0001")
    assert (clinical.age, clinical.sex) == (float(row["age"]), "MF".index(row["sex"]))
    assert clinical.columns["ki67"] == row["ki67"]
    assert clinical.columns["ki67_high"] == str(int(float(row["ki67"]) >= 10))
    assert report.cohort.read_patient_record("G0001")["series"]["T2"]["manufacturer"]


def test_no_identifying_value_is_in_the_cohort(
    report: BuildReport, export: Path, find_residues: Callable[[Path, Iterable[str]], list]
) -> None:
    values = {export.name}
    for path in (export / "dicom").rglob("*"):
        if path.is_file():
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            values |= {str(header.get(name, "")) for name in IDENTIFYING}
    values |= {part for value in list(values) for part in value.replace("^", "=").split("=")}
    values = {value for value in values if len(value) > 3}  # "MR1" or "1" occur by chance
    assert len(values) > 50
    assert find_residues(report.cohort.folder, values) == []


def test_a_missing_age_is_computed_from_dates(export: Path, tmp_path: Path) -> None:
    with (export / "labels.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    table = tmp_path / "labels.csv"
    table.write_text(f"id,ki67\n{row['id']},{row['ki67']}\n", "utf-8")
    report = build_cohort(CohortSources(export / "dicom", table), tmp_path / "cohort", workers=0)
    clinical = Cohort(report.cohort.folder).get_clinical("G0001")
    assert clinical.age == pytest.approx(float(row["age"]), abs=1.1) and clinical.sex == "MF".index(
        row["sex"]
    )
