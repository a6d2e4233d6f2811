"""Resolving the patient's folder and packing it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from gliomark.client.patient_folder import pack_folder, resolve_patient_folder
from gliomark.errors import GliomarkError


def write_files(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * 100)


@pytest.mark.parametrize("picked", ["患者 1", "患者 1/T1c", "患者 1/T2_FLAIR", "患者 1/T1c/001.png"])
def test_a_sequence_folder_resolves_to_its_patient(tmp_path: Path, picked: str) -> None:
    write_files(tmp_path, "患者 1/T1c/001.png", "患者 1/T2_FLAIR/001.png")
    assert resolve_patient_folder(tmp_path / picked) == tmp_path / "患者 1"


def test_a_loosely_named_series_resolves_to_its_patient(tmp_path: Path) -> None:
    write_files(tmp_path, "A/3DAXT1postcontrast_MRI/1.dcm", "A/3DAXT2SPACE_MRI/1.dcm")
    assert resolve_patient_folder(tmp_path / "A/3DAXT1postcontrast_MRI") == tmp_path / "A"


def test_patients_named_like_sequences_are_kept(tmp_path: Path) -> None:
    """Flat DICOM folders of two patients: T1-001 is not a sequence because T1-002 names the same sequence."""
    write_files(tmp_path, "T1-001/1.dcm", "T1-002/1.dcm", "T1-002/2.dcm")
    assert resolve_patient_folder(tmp_path / "T1-001") == tmp_path / "T1-001"


def test_a_missing_folder_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(GliomarkError, match=r"nowhere does not exist: choose the patient's folder\."):
        resolve_patient_folder(tmp_path / "nowhere")


def test_paths_in_the_zip_file_start_with_the_patients_folder(tmp_path: Path) -> None:
    write_files(tmp_path, "患者 1/T1C/001.png", "患者 1/FLAIR/001.png", "患者 1/.DS_Store", "患者 1/.git/x")
    assert pack_folder(tmp_path / "患者 1", tmp_path / "a.zip", lambda: False)
    with zipfile.ZipFile(tmp_path / "a.zip") as packed:
        assert packed.namelist() == ["患者 1/FLAIR/001.png", "患者 1/T1C/001.png"]
        assert packed.read("患者 1/T1C/001.png") == b"x" * 100


def test_packing_can_be_cancelled_and_refuses_an_empty_folder(tmp_path: Path) -> None:
    write_files(tmp_path, "P/T1C/001.png")
    assert not pack_folder(tmp_path / "P", tmp_path / "a.zip", lambda: True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(GliomarkError, match="contains no files"):
        pack_folder(tmp_path / "empty", tmp_path / "b.zip", lambda: False)
