"""Find patients in one or many folders, with unrelated files between them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from gliomark.errors import GliomarkError
from gliomark.io import find_patients, read_study


def write_picture_patient(folder: Path) -> Path:
    (folder / "T1c").mkdir(parents=True)
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(folder / "T1c" / "1.png")
    return folder


def write_volume_patient(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("t1c.nii.gz", "t2.nii.gz"):
        voxels = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / name)
    return folder


def test_cohort_with_clutter(tmp_path: Path):
    patients = [write_picture_patient(tmp_path / "T1-003"), write_volume_patient(tmp_path / "患者 01")]
    write_picture_patient(tmp_path / ".hidden")
    (tmp_path / "notes").mkdir()
    (tmp_path / "clinical.csv").write_text("id\n")
    Image.new("L", (4, 4)).save(tmp_path / "overview.png")
    assert find_patients(tmp_path) == patients


def test_one_patient_is_found_in_its_folder_or_a_sequence_folder(tmp_path: Path):
    patient = write_picture_patient(tmp_path / "p")
    assert find_patients(patient) == [patient]
    assert find_patients(patient / "T1c") == [patient]


def test_patient_named_like_a_sequence(tmp_path: Path):
    patient = write_volume_patient(tmp_path / "T1-003")
    assert find_patients(tmp_path) == [patient]
    assert read_study(patient).patient_id == "T1-003"


def test_an_output_folder_is_not_a_patient(tmp_path: Path):
    patient = write_picture_patient(tmp_path / "p")
    (tmp_path / "out" / "p" / "masks").mkdir(parents=True)
    Image.new("L", (4, 4)).save(tmp_path / "out" / "p" / "masks" / "1.png")
    assert find_patients(tmp_path) == [patient]


def test_patients_with_a_wrong_layout_are_listed_and_fail_with_a_message(tmp_path: Path):
    write_picture_patient(tmp_path / "p")
    (tmp_path / "q").mkdir()
    Image.new("L", (4, 4), 9).save(tmp_path / "q" / "1.png")
    assert find_patients(tmp_path) == [tmp_path / "p", tmp_path / "q"]
    with pytest.raises(GliomarkError, match="no sequence folders"):
        read_study(tmp_path / "q")


def test_paths_without_patients_are_refused(tmp_path: Path):
    with pytest.raises(GliomarkError, match="is empty"):
        find_patients(tmp_path)
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(GliomarkError, match="no images of a patient"):
        find_patients(tmp_path)
    with pytest.raises(GliomarkError, match="is a file"):
        find_patients(tmp_path / "notes.txt")
    with pytest.raises(GliomarkError, match="does not exist"):
        find_patients(tmp_path / "nowhere")


def test_real_cohort(shared: Path):
    patients = find_patients(shared / "cohorts/tcga-lgg")
    assert len(patients) == 96 and patients[0].name == "TCGA-CS-4941"
