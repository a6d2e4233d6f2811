"""Volumes: names, geometry compared with other readers, masks, and invalid files."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from gliomark.errors import GliomarkError
from gliomark.io import read_study
from gliomark.io.naming import find_sequence_in_name, is_lesion_mask_name
from gliomark.study import MRSequence, Series

RAS = np.array([[2.0, 0, 0, -10], [0, 2, 0, -14], [0, 0, 3, -9], [0, 0, 0, 1]])


def draw_head(dtype: type = np.float32) -> np.ndarray:
    """In nibabel's order (i, j, k): dark, with one bright block at high i, low j, high k."""
    data = np.ones((10, 14, 6), dtype)
    data[8:10, 1:3, 4:6] = 100
    return data


@pytest.fixture
def patient(tmp_path: Path) -> Path:
    folder = tmp_path / "患者 02"
    folder.mkdir()
    nib.save(nib.Nifti1Image(draw_head(), RAS), folder / "sub_t1ce.nii.gz")
    return folder


def compute_block_centre(series: Series) -> np.ndarray:
    """LPS centre of the bright block in mm."""
    indices = np.argwhere(series.image > 50)[:, ::-1]
    return (series.affine @ np.append(indices.mean(axis=0), 1))[:3]


def compute_expected_centre() -> np.ndarray:
    return np.array([-1, -1, 1]) * (RAS @ [8.5, 1.5, 4.5, 1])[:3]


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, 1)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_left_stays_left_for_every_storage_order(
    tmp_path: Path, flips: tuple[int, ...], order: tuple[int, ...]
):
    orientation = np.array([[order.index(axis), flip] for axis, flip in enumerate(flips)], dtype=float)
    stored = nib.Nifti1Image(draw_head(), RAS).as_reoriented(orientation)
    nib.save(stored, tmp_path / "T2.nii")
    series = read_study(tmp_path).series[MRSequence.T2]
    assert series.image.shape == stored.shape[::-1]
    np.testing.assert_allclose(compute_block_centre(series), compute_expected_centre(), atol=1e-4)
    assert compute_block_centre(series)[0] < -0.5, "high i in RAS is the patient's right"


@pytest.mark.parametrize("suffix", ["mha", "nrrd", "mhd"])
def test_itk_formats_agree_with_nifti(tmp_path: Path, suffix: str):
    nib.save(nib.Nifti1Image(draw_head(), RAS), tmp_path / "flair.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "flair.nii.gz"))
    (tmp_path / "p 患").mkdir()
    sitk.WriteImage(image, str(tmp_path / "p 患" / f"flair.{suffix}"))
    series = read_study(tmp_path / "p 患").series[MRSequence.FLAIR]
    np.testing.assert_allclose(compute_block_centre(series), compute_expected_centre(), atol=1e-4)


def test_study_fields(patient: Path):
    study = read_study(patient)
    assert (study.patient_id, study.kind, study.aligned, study.spacing_assumed) == (
        "患者 02",
        "volumes",
        False,
        False,
    )
    assert study.series[MRSequence.T1C].slice_names == ("001", "002", "003", "004", "005", "006")
    assert study.notes == ()


def test_orientation_not_stated_is_noted(tmp_path: Path):
    image = nib.Nifti1Image(draw_head(), None)
    nib.save(image, tmp_path / "t1.nii")
    assert any("does not state its orientation" in note for note in read_study(tmp_path).notes)


def test_one_volume_in_four_dimensions(tmp_path: Path):
    nib.save(nib.Nifti1Image(draw_head()[..., None], RAS), tmp_path / "t1.nii")
    assert read_study(tmp_path).series[MRSequence.T1].image.shape == (6, 14, 10)


def test_sequence_subfolders(tmp_path: Path):
    for name in ("VSD.Brain.XX.O.MR_T1c.54514", "VSD.Brain.XX.O.MR_T2.54515", "VSD.Brain_3more.XX.O.OT.5"):
        (tmp_path / name).mkdir()
        nib.save(nib.Nifti1Image(draw_head(np.int16) // 100, RAS), tmp_path / name / f"{name}.nii")
    study = read_study(tmp_path)
    assert list(study.series) == [MRSequence.T1C, MRSequence.T2]
    assert study.lesion is not None
    assert read_study(tmp_path / "VSD.Brain.XX.O.MR_T2.54515").source == tmp_path


@pytest.mark.parametrize("name, sequence", [
    ("MRHR_FLAIR_AX_OtherEXampleTCIA_TCGA-FG-6692_MRHR_FLAIR_AX_SE_IR_5_tir2d1_21_fla", "FLAIR"),
    ("MRHR_T1_AX_POST_GAD_OtherEXampleTCIA_TCGA-FG-6692_SE_13_se2d1r_t1c", "T1C"),
    ("MRHR_T2_AX_OtherEXampleTCIA_TCGA-FG-6692_SE_2_tse2d1_11_t2", "T2"),
    ("T1_AX_OtherEXampleTCIA_TCGA-FG-6692_T1_AX_SE_10_se2d1_t1", "T1"),
    ("BraTS-GLI-00000-000-t1n", "T1"), ("BraTS-GLI-00000-000-t1c", "T1C"), ("BraTS-GLI-00000-000-t2w", "T2"),
    ("BraTS-GLI-00000-000-t2f", "FLAIR"), ("BraTS19_t1ce", "T1C"), ("x_t1gd", "T1C"), ("sub-01_T1w", "T1"),
    ("sub-01_ce-gadolinium_T1w", "T1C"), ("UCSF-PDGM-0004_T1c_bias", "T1C"),
    ("UCSF-PDGM-0004_FLAIR", "FLAIR"),
    ("3DAXT1postcontrast_MRI", "T1C"), ("3D_AX_T1_postcontrast", "T1C"), ("3DAXT2SPACE_MRI", "T2"),
    ("Ax T1 FLAIR", "T1"), ("Ax T1 FLAIR +C", "T1C"), ("FLAIR_reg_to_T1", "FLAIR"),
    ("T1 without contrast", "T1"),
    ("T1_pre_contrast", "T1"), ("t1_precontrast", "T1"), ("T1 post op", "T1"), ("T1_cor", "T1"),
    ("t1coronal", "T1"),
    ("T1增强", "T1C"), ("T1 增强", "T1C"), ("anat-T1w_acq-tfl", "T1"), ("T2* GRE", None),
    ("ep2d_diff_T2", None),
    ("patient1", None), ("subject2_adc", None), ("T2_star", None), ("SWI", None), ("T12", None), ("", None),
])  # fmt: skip
def test_sequence_in_name(name: str, sequence: str | None):
    assert find_sequence_in_name(name) == sequence


@pytest.mark.parametrize("name, lesion", [
    ("BraTS-GLI-00000-000-seg", True), ("truth", True),
    ("UCSF-PDGM-0004_tumor_segmentation", True), ("mask", True),
    ("UCSF-PDGM-0004_brain_segmentation", False), ("brain_mask", False), ("brainmask", False), ("t1", False),
    ("VSD.Brain_3more.XX.O.OT.54515", True),
])  # fmt: skip
def test_lesion_names(name: str, lesion: bool):
    assert is_lesion_mask_name(name) is lesion


def test_brain_mask_is_neither_sequence_nor_lesion(patient: Path):
    nib.save(nib.Nifti1Image(draw_head(), RAS), patient / "t1ce_brain_mask.nii.gz")
    study = read_study(patient)
    assert study.lesion is None and list(study.series) == [MRSequence.T1C]


@pytest.mark.parametrize("suffix, labels, kept", [
    ("nii.gz", (1,), {1}), ("nii.gz", (255,), {255}), ("mha", (1, 2), {2}), ("nii.gz", (1, 2), {1}),
    ("nii.gz", (1, 2, 4), {1, 4}), ("nii.gz", (1, 2, 3), {1, 3}), ("mha", (1, 2, 3, 4), {1, 3, 4}),
    ("nii.gz", (2, 4), {4}), ("nii.gz", (), set()),
])  # fmt: skip
def test_mask_labels(patient: Path, suffix: str, labels: tuple[int, ...], kept: set[int]):
    mask = np.zeros((6, 14, 10), np.uint8)
    for column, label in enumerate(labels):
        mask[:, :, column] = label
    image = sitk.GetImageFromArray(mask)
    image.CopyInformation(sitk.ReadImage(str(patient / "sub_t1ce.nii.gz")))
    sitk.WriteImage(image, str(patient / f"seg.{suffix}"))
    lesion = read_study(patient).lesion
    assert lesion is not None
    np.testing.assert_array_equal(lesion.image, np.isin(mask, list(kept)))


# ---- invalid input ----------------------------------------------------------------------------------


def get_error_message(path: Path) -> str:
    with pytest.raises(GliomarkError) as caught:
        read_study(path)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def test_several_volumes_in_one_file_are_refused(patient: Path):
    nib.save(nib.Nifti1Image(np.stack([draw_head(), draw_head()], axis=-1), RAS), patient / "t2.nii.gz")
    message = get_error_message(patient)
    assert "not a single 3-D volume" in message and "10 x 14 x 6 x 2" in message


def test_two_files_of_one_sequence_are_refused(patient: Path):
    nib.save(nib.Nifti1Image(draw_head(), RAS), patient / "other_T1C.nii")
    message = get_error_message(patient)
    assert "other_T1C.nii" in message and "sub_t1ce.nii.gz" in message and "two patients" in message


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "mha"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_truncated_volume_is_refused(tmp_path: Path, suffix: str, kept: float):
    file = tmp_path / f"t2.{suffix}"
    noise = np.random.default_rng(0).random((6, 14, 10)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(file))
    file.write_bytes(file.read_bytes()[: int(kept * file.stat().st_size)])
    assert f"t2.{suffix} is damaged" in get_error_message(tmp_path)


@pytest.mark.parametrize("suffix", ["nii.gz", "mha", "nrrd"])
@pytest.mark.parametrize("from_end", [2, 7, 400])
def test_a_damaged_byte_detected_only_by_the_checksum_is_refused(tmp_path: Path, suffix: str, from_end: int):
    file = tmp_path / f"t2.{suffix}"
    noise = np.random.default_rng(0).normal(500, 50, (6, 14, 10)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(file), True)
    content = file.read_bytes()
    assert (read_study(tmp_path).series[MRSequence.T2].image == noise).all()
    file.write_bytes(
        content[:-from_end] + bytes([content[-from_end] ^ 0x40]) + content[len(content) - from_end + 1 :]
    )
    assert f"t2.{suffix} is damaged" in get_error_message(tmp_path)


@pytest.mark.parametrize("suffix", ["mhd", "nhdr"])
def test_a_damaged_data_file_beside_its_header_is_refused(tmp_path: Path, suffix: str):
    noise = np.random.default_rng(0).normal(500, 50, (6, 14, 10)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(tmp_path / f"t2.{suffix}"), True)
    (data,) = (file for file in tmp_path.iterdir() if file.suffix != f".{suffix}")
    content = bytearray(data.read_bytes())
    assert (read_study(tmp_path).series[MRSequence.T2].image == noise).all()
    content[-2] ^= 0x40
    data.write_bytes(content)
    assert f"t2.{suffix} is damaged" in get_error_message(tmp_path)


def test_a_colour_volume_is_refused(tmp_path: Path):
    nib.save(
        nib.Nifti1Image(np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")]), RAS),
        tmp_path / "t2.nii",
    )
    assert "colour" in get_error_message(tmp_path)


def test_a_sheared_grid_is_refused(tmp_path: Path):
    sheared = RAS.copy()
    sheared[0, 2] = 1.0
    nib.save(nib.Nifti1Image(draw_head(), sheared), tmp_path / "t2.nii")
    assert "sheared" in get_error_message(tmp_path)


def test_names_without_a_sequence_are_refused(tmp_path: Path):
    nib.save(nib.Nifti1Image(draw_head(), RAS), tmp_path / "scan.nii")
    message = get_error_message(tmp_path)
    assert "scan.nii" in message and "rename" in message


def test_a_mask_with_other_values_is_refused(patient: Path):
    nib.save(nib.Nifti1Image(draw_head(), RAS), patient / "seg.nii.gz")
    assert "not BraTS labels (1, 100)" in get_error_message(patient)


def test_real_patients(shared: Path):
    raw = read_study(shared / "patients/TCGA-FG-6692-nifti")
    assert list(raw.series) == list(MRSequence)
    for series in raw.series.values():
        reference = sitk.ReadImage(str(series.source))
        index = [7, 11, 13]
        np.testing.assert_allclose(
            (series.affine @ [*index, 1])[:3], reference.TransformIndexToPhysicalPoint(index), atol=1e-2
        )
        assert series.image[13, 11, 7] == reference[tuple(index)]
    brats = read_study(shared / "patients/BRATS-HG0015-mha")
    assert list(brats.series) == list(MRSequence)
    assert brats.lesion is not None and brats.lesion.image.sum() == 72310
