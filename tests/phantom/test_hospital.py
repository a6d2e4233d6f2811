"""Tests of the synthetic hospital: the raw export contains only what it should, and the ground truth is correct."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from scipy import ndimage

from gliomark.errors import GliomarkError
from gliomark.phantom import sample_person
from gliomark.phantom.hospital import HospitalSettings, create_hospital_patient, write_hospital
from gliomark.phantom.hospital_patient import decompose_movement
from gliomark.study import MRSequence

SMALL = HospitalSettings(
    matrix=(56, 64), thickness_mm=(9.0, 10.0), sublayers=1, transfer_syntaxes=("rle", "implicit", "explicit")
)
SEEDS = (1, 2)


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("hospital") / "export"
    report = write_hospital(SEEDS, out, SMALL)
    assert (report.folder, report.patients) == (out, 2)
    assert report.model_ceilings["ki67"].image_age_sex > 0.85 and report.cohort_ceilings["ki67"].patients == 2
    return out


@pytest.fixture(scope="module")
def headers(export) -> dict[str, dict[str, list[Dataset]]]:
    """Files with pixels, by PatientID and SeriesDescription."""
    found: dict[str, dict[str, list[Dataset]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted((export / "dicom").rglob("*")):
        if path.is_file():
            file = pydicom.dcmread(path, force=True)
            found[file.PatientID][file.SeriesDescription].append(file)
    return found


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def find_sequences(series: dict[str, list[Dataset]]) -> dict[MRSequence, list[Dataset]]:
    """Find the four sequences among a patient's series by their timing."""
    found = {}
    for files in series.values():
        first = files[0]
        if first.Modality != "MR" or "EP" in first.ScanningSequence or "GR" in first.ScanningSequence:
            continue
        upright = np.cross(*np.reshape(first.ImageOrientationPatient, (2, 3)).astype(float))[2]
        if first.ImageType[0] != "ORIGINAL" or abs(upright) < 0.9:
            continue
        inversion, echo = float(first.get("InversionTime", 0)), float(first.EchoTime)
        name = MRSequence.FLAIR if inversion > 1400 else MRSequence.T2 if echo > 60 else MRSequence.T1
        found[MRSequence.T1C if "ContrastBolusAgent" in first else name] = sorted(
            files, key=lambda file: int(file.InstanceNumber)
        )
    return found


def test_the_four_sequences_are_exported_as_acquired(headers) -> None:
    patient = create_hospital_patient(1, SMALL)
    files = find_sequences(headers[patient.study.patient_id])
    assert set(files) == set(MRSequence)
    for name, series in patient.study.series.items():
        images = np.stack([file.pixel_array for file in files[name]])
        np.testing.assert_array_equal(images, series.image)
        first, last = files[name][0], files[name][-1]
        np.testing.assert_allclose(
            np.array(first.ImagePositionPatient, float), series.affine[:3, 3], atol=1e-5
        )
        end = series.affine[:3, 3] + (len(images) - 1) * series.affine[:3, 2]
        np.testing.assert_allclose(np.array(last.ImagePositionPatient, float), end, atol=1e-5)
        row, column = np.reshape(np.array(first.ImageOrientationPatient, float), (2, 3))
        np.testing.assert_allclose(row * float(first.PixelSpacing[1]), series.affine[:3, 0], atol=1e-5)
        np.testing.assert_allclose(column * float(first.PixelSpacing[0]), series.affine[:3, 1], atol=1e-5)


def test_an_export_contains_the_objects_that_hospitals_send(headers) -> None:
    assert len(headers) == 2
    for series in headers.values():
        files = [file for group in series.values() for file in group]
        assert {file.Modality for file in files} == {"MR", "OT", "SR", "SEG"}
        kinds = {kind for file in files if "ImageType" in file for kind in file.ImageType}
        assert {"DERIVED", "ADC", "SCREEN SAVE"} <= kinds
        identity = ("PatientName", "PatientBirthDate", "InstitutionName", "ReferringPhysicianName")
        for file in files:
            assert all(file.get(keyword) for keyword in identity) or file.Modality == "SEG"
            assert file.AccessionNumber and file.StudyDate
        instances = [file.SOPInstanceUID for file in files]
        assert len(set(instances)) == len(instances)
        assert len({file.StudyInstanceUID for file in files}) == 1


def test_the_reader_outlines_the_core_on_t2(headers) -> None:
    patient = create_hospital_patient(2, SMALL)
    series = headers[patient.study.patient_id]
    (outline,) = series["Lesion outline"]
    assert outline.ContentCreatorName
    reference = find_sequences(series)[MRSequence.T2]
    referenced_uids = {
        item.ReferencedSOPInstanceUID
        for item in outline.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert referenced_uids <= {file.SOPInstanceUID for file in reference}
    frames = outline.pixel_array.reshape(-1, outline.Rows, outline.Columns)
    drawn = patient.core.image[patient.core.image.any(axis=(1, 2))]
    assert patient.study.lesion is patient.core and drawn.sum() > 20
    assert frames.sum() == drawn.sum() and any(np.array_equal(frames[0], plane) for plane in drawn)
    flair = create_hospital_patient(2, replace(SMALL, segmented_region="flair"), (MRSequence.T2,))
    assert flair.study.lesion is flair.lesion
    assert flair.lesion.image.sum() >= flair.core.image.sum()


def test_labels_and_truth_are_written_beside_the_images(export) -> None:
    assert {path.name for path in export.iterdir()} == {"dicom", "labels.csv", "truth"}
    labels, truth = read_rows(export / "labels.csv"), read_rows(export / "truth" / "truth.csv")
    assert list(labels[0]) == ["id", "age", "sex", "ki67", "idh_mutant", "who_grade"]
    assert [row["id"] for row in truth] == [row["id"] for row in labels]
    assert [row["seed"] for row in truth] == ["1", "2"]
    person = sample_person(1, "x")
    assert labels[0]["ki67"] == person.clinical.columns["ki67"]
    assert float(truth[0]["enhancement"]) == pytest.approx(person.appearance.enhancement, abs=1e-6)
    assert 0 < float(truth[0]["posterior_ki67"]) < 1
    shift, turn = decompose_movement(create_hospital_patient(1, SMALL, ()).motion[MRSequence.FLAIR])
    assert float(truth[0]["FLAIR_shift_y_mm"]) == pytest.approx(shift[1], abs=1e-6)
    assert float(truth[0]["FLAIR_turn_z_deg"]) == pytest.approx(turn[2], abs=1e-6)
    ceilings = read_rows(export / "truth" / "ceiling.csv")
    assert {(row["counted_on"], row["marker"]) for row in ceilings} == {
        (group, marker) for group in ("model", "these patients") for marker in ("ki67", "idh_mutant")
    }


@pytest.mark.slow
def test_the_same_seeds_give_the_same_bytes_with_any_number_of_workers(export, tmp_path) -> None:
    again = write_hospital(SEEDS, tmp_path / "again", SMALL, workers=2).folder

    def read_contents(folder: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }

    first, second = read_contents(export), read_contents(again)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_the_head_moves_by_the_recorded_motion() -> None:
    name = MRSequence.T1
    still = create_hospital_patient(3, replace(SMALL, max_motion_mm=0, max_motion_degrees=0), (name,))
    moved = create_hospital_patient(3, replace(SMALL, max_motion_mm=12, max_motion_degrees=8), (name,))
    np.testing.assert_array_equal(still.motion[name], np.eye(4))
    np.testing.assert_array_equal(moved.motion[MRSequence.T2], np.eye(4))
    series, other = moved.study.series[name], still.study.series[name]
    np.testing.assert_array_equal(series.affine, other.affine)  # only the head moved
    index = np.argwhere(moved.brain.image > 0)[::3, ::-1]
    points = index @ moved.brain.affine[:3, :3].T + moved.brain.affine[:3, 3]

    def sample_image(image, affine, motion):
        at = points @ motion[:3, :3].T + motion[:3, 3]
        voxels = (at - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
        return ndimage.map_coordinates(image, voxels[:, ::-1].T, order=1)

    reference = sample_image(other.image, other.affine, np.eye(4))
    aligned = np.corrcoef(reference, sample_image(series.image, series.affine, moved.motion[name]))[0, 1]
    unaligned = np.corrcoef(reference, sample_image(series.image, series.affine, np.eye(4)))[0, 1]
    reversed_motion = np.corrcoef(
        reference, sample_image(series.image, series.affine, np.linalg.inv(moved.motion[name]))
    )[0, 1]
    assert aligned > 0.75 and aligned > unaligned + 0.1 and unaligned > reversed_motion


def test_displacements_reach_but_never_exceed_the_settings() -> None:
    from gliomark.phantom.hospital_patient import _sample_movement

    movements = [
        decompose_movement(_sample_movement(seed, MRSequence.T1C, HospitalSettings())) for seed in range(60)
    ]
    shifts, turns = (np.array([np.linalg.norm(move[part]) for move in movements]) for part in (0, 1))
    assert shifts.max() <= 12 and turns.max() <= 8
    assert shifts.max() > 11 and turns.max() > 7 and np.median(shifts) > 4


def test_pictures_show_the_same_patients(tmp_path) -> None:
    report = write_hospital([1], tmp_path / "out", SMALL, output_format="pictures")
    (folder,) = (report.folder / "pictures").iterdir()
    assert {path.name for path in folder.iterdir()} == {*MRSequence, "mask"}
    (row,) = read_rows(report.folder / "clinical.csv")
    assert row["id"] == folder.name and row["ki67"] == sample_person(1, "x").clinical.columns["ki67"]
    assert "FLAIR_shift_y_mm" not in read_rows(report.folder / "truth" / "truth.csv")[0]


def test_invalid_settings_are_refused(export, tmp_path) -> None:
    with pytest.raises(GliomarkError, match="not empty"):
        write_hospital([1], export, SMALL)
    with pytest.raises(GliomarkError, match="different seed"):
        write_hospital([1, 1], tmp_path / "twice", SMALL)
    with pytest.raises(GliomarkError, match="pictures or nifti"):
        write_hospital([1], tmp_path / "free", SMALL, has_lesion=False)
    assert not list(tmp_path.iterdir())
    with pytest.raises(GliomarkError, match="is negative"):
        HospitalSettings(max_motion_mm=-1)
    with pytest.raises(GliomarkError, match="hospital is jpeg"):
        HospitalSettings(transfer_syntaxes=("jpeg",))
