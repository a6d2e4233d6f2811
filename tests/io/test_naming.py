"""Names of files, folders and DICOM series are interpreted by one rule, in every entry point."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from gliomark.errors import GliomarkError
from gliomark.io import read_study
from gliomark.io.dicom.series_recognition import recognise_series_from_header
from gliomark.io.naming import (
    find_sequence_in_name,
    is_lesion_mask_name,
    is_mask_name,
    is_postoperative_description,
    normalise_patient_id,
    parse_contrast,
)

BIDS = [
    ("sub-01_space-T1w_FLAIR", "FLAIR"), ("sub-01_space-FLAIR_T1w", "T1"), ("sub-01_ce-gd_T1w", "T1C"),
    ("sub-01_ses-2_ce-GADOLINIUM_run-1_T1w", "T1C"), ("sub-01_ce-none_T1w", "T1"), ("sub-01_acq-post_T1w", "T1C"),
    ("sub-01_acq-pre_T1w", "T1"), ("sub-01_ses-postop_T1w", "T1"), ("sub-01_ses-post_T1w", "T1"),
    ("sub-CE01_T1w", "T1"), ("sub-T1C_FLAIR", "FLAIR"), ("sub-01_space-T1ce_desc-preproc_T2w", "T2"),
    ("sub-01_rec-norm_run-2_T2w", "T2"), ("sub-01_T1ce", "T1C"), ("sub-01_acq-T2_FLAIR", "FLAIR"),
    ("sub-01_T2starw", None), ("sub-01_dwi", None), ("sub-01_UNIT1", None), ("sub-01_PDw", None), ("sub-01", None),
    ("sub-01_acq-3D_ce-gd_rec-norm_run-01_T1w", "T1C"), ("sub-01_from-T1w_to-T1ce_xfm", None),
]  # fmt: skip
REGISTERED = [
    ("T1_to_T1C", "T1"), ("FLAIR_to_T1C", "FLAIR"), ("T1C_to_T1", "T1C"), ("T2_in_T1C", "T2"), ("T1_reg_T1C", "T1"),
    ("T12T1C", "T1"), ("T1C2FLAIR", "T1C"), ("flair2t1ce", "FLAIR"), ("T2_on_T1", "T2"), ("T1_2_T1C", "T1"),
    ("T1_registered_to_T1C", "T1"), ("T1_coreg_to_post", "T1"), ("T1 Registered To T1 Post", "T1"), ("t1toT1C", "T1"),
    ("rT1C", "T1C"), ("coreg_T1C", "T1C"), ("coregT1", "T1"), ("r_FLAIR", "FLAIR"), ("rFLAIR", "FLAIR"),
    ("T1_space_T1C", "T1"), ("T2_space-FLAIR", "T2"), ("FLAIR_space_T1", "FLAIR"), ("T1-aligned-to-T1C", "T1"),
    ("T2-FLAIR_to_T1", "FLAIR"), ("T1C_reg_to_SRI24", "T1C"), ("T1C_in_MNI", "T1C"), ("t1_warped_to_t1ce", "T1"),
    ("FLAIR配准到T1C", "FLAIR"), ("T1配准到T1增强", "T1"), ("T1_配准_T1C", "T1"), ("配准到T1C的FLAIR", "FLAIR"),
    ("配准后T1C", "T1C"), ("DWI_to_T1C", None), ("ADC_in_T1", None), ("T1_to_T1C_1Warp", None),
    ("T1_toT1C", "T1"), ("T1_regT1C", "T1"), ("FLAIR_inT1C", "FLAIR"), ("T1_RegisteredTo_T1C", "T1"),
    ("T1_alignedToT1C", "T1"), ("T1_T1Cspace", "T1"), ("T2_FLAIRspace", "T2"), ("T1(T1C_space)", "T1"),
    ("T1[reg to T1C]", "T1"), ("T1→T1C", "T1"), ("T1_onto_T1C", "T1"), ("T1_resampled_to_T1C", "T1"),
    ("T1转换到T1C", "T1"),
    ("FLAIR重采样至T1C", "FLAIR"), ("T2_native_space", "T2"), ("T1C_MNI", "T1C"), ("T1_2mm", "T1"),
    ("reg_T1_to_T2", "T1"), ("series_2_T1C", "T1C"), ("T1ce_reg", "T1C"), ("T2_space_FLAIR", None),
]  # fmt: skip
# Descriptions with their contrast state: True after, False without contrast medium, None not stated.
CONTRAST = [
    ("T1 no contrast", False), ("T1 w/o", False), ("T1 W/O CONTRAST", False), ("T1 without gad", False),
    ("T1 non-contrast", False), ("T1 noncontrast", False), ("T1 pre contrast", False), ("T1 precontrast", False),
    ("T1_PRE", False), ("T1 unenhanced", False), ("T1 un-enhanced", False), ("T1 not enhanced", False),
    ("T1 plain", False), ("T1 -C", False), ("T1 (-C)", False), ("T1 C-", False), ("T1 C(-)", False), ("T1C-", False),
    ("T1 native", False), ("t1_tra_nativ", False), ("T1 sans gado", False), ("T1 ohne KM", False), ("T1 WO", False),
    ("T1 without IV contrast", False), ("T1 w/o Gd", False), ("T1 contrast-free", False), ("T1 Gd-", False),
    ("T1 before gadolinium", False), ("AX T1W/O CONTRAST", False), ("T1 contrast: no", False),
    ("T1平扫", False), ("T1 未增强", False), ("T1无增强", False), ("T1非增强", False), ("T1增强前", False),
    ("T1不增强", False), ("T1无造影剂", False), ("T1未注射对比剂", False), ("T1 造影前", False), ("T1 强化前", False),
    ("T1 noncon", False), ("T1 w/o con", False), ("T1_noC", False), ("T1 NC", False), ("T1 w/out contrast", False),
    ("T1 sans injection", False), ("T1 non injecté", False), ("T1 sin contraste", False), ("T1 senza mdc", False),
    ("T1 ohne Kontrastmittel", False), ("T1 vor KM", False), ("T1 prior to contrast", False), ("T1 inj-", False),
    ("T1 增强扫描前", False), ("T1没有增强", False), ("T1打药前", False), ("T1增强(-)", False),
    ("T1 不含造影剂", False),
    ("T1 o. KM", False), ("T1 C negative", False), ("T1 造影剂注射前", False),
    ("T1_mKM", True), ("T1 w/c", True),
    ("T1 postcon", True), ("T1 w/con", True), ("T1 avec gado", True), ("T1 injecté", True), ("T1 con contraste", True),
    ("T1 nach KM", True), ("T1打药后", True), ("T1 延迟增强", True), ("T1 after contrast", True), ("T1_PostC", True),
    ("T1 post", True), ("T1 +C", True), ("T1+C", True), ("T1 C+", True), ("T1 Gd", True), ("T1 gado", True),
    ("T1 contrast", True), ("T1 CE", True), ("T1 KM", True), ("T1增强", True), ("T1 强化", True), ("T1＋C", True),
    ("T1 Gd-DTPA", True), ("T1postgad", True), ("T1WI+C", True), ("ceT1w", True), ("T1(+)", True), ("t1_tse_c", True),
    ("T1 post-op +C", True), ("T1 CE without fat sat", True), ("T1 CE no fatsat", True), ("T1造影后", True),
    ("T1 enhanced", True), ("T1 增强后", True), ("T1 w/o fs +C", True), ("T1 preop +C", True),
    ("T1", None), ("T1 post-op", None), ("T1 postop", None), ("T1 pre-op", None), ("T1 术后", None),
    ("T1 posterior fossa", None), ("T1 no fat sat", None), ("T1 TSE tra", None),
]  # fmt: skip
BOTH = ["T1 W/WO", "T1 pre and post", "T1平扫+增强", "T1 with and without contrast", "t1ce without contrast"]
OTHER = [
    "T2*", "T2_star", "T2 GRE", "SWI", "DWI_b0", "T2_b0", "b1000", "ADC", "T1 perfusion", "DSC", "DCE_T1", "T1_dynamic",
    "MRA_T1", "TOF", "T1_localizer", "scout", "T1_sub", "T1C subtraction", "T1_map", "T2 map", "T1减影", "弥散", "PD",
    "T1_rho", "T1C-T1", "T1C minus T1", "3-plane T2", "T2_FFE", "STIR", "MP2RAGE_INV1", "T1_T2", "磁敏感_T2", "T1 MIP",
]  # fmt: skip
PLAIN = [
    ("T1 FLAIR", "T1"), ("Ax T1 FLAIR +C", "T1C"), ("dark fluid", "FLAIR"), ("T2 dark-fluid", "FLAIR"),
    ("T2压水", "FLAIR"), ("黑水", "FLAIR"), ("t2_tirm_tra_dark-fluid", "FLAIR"), ("T2 FLAIR", "FLAIR"),
    ("T2 fluid attenuated", "FLAIR"), ("t1_tirm_tra_dark-fluid", "T1"),
    ("FLAIR+C", "FLAIR"),
    ("sub_t1ce", "T1C"), ("T1C_native", "T1C"), ("T1 GRE", "T1"), ("MT1C", "T1C"), ("T1c_bias", "T1C"),
]  # fmt: skip


@pytest.mark.parametrize("name, sequence", [*BIDS, *REGISTERED, *PLAIN])
@pytest.mark.parametrize("change_case", [str, str.upper, str.lower], ids=["as is", "upper", "lower"])
def test_sequence_in_name_ignores_case(name: str, sequence: str | None, change_case):
    assert find_sequence_in_name(change_case(name)) == sequence


PATIENT_IDS = [  # letters and a number before the sequence name are the patient id
    ("Gdansk_012_T1", "T1"), ("CE0012_T1", "T1"), ("KM-12_T1", "T1"), ("POST01_T1", "T1"), ("PD012_T1", "T1"),
    ("FA0012_T1C", "T1C"), ("NC-012_T1C", "T1C"), ("PRE012_T1C", "T1C"), ("CE-07_T1", "T1"), ("CE-07_T1_CE", "T1C"),
    ("Gdansk_T1", "T1"), ("Posthumus_T1", "T1"), ("Enhui_T1", "T1"), ("Gadsden_T1", "T1"), ("T1_003_T2", None),
    ("FLA_012_T1", None), ("001_post_contrast_T1", "T1C"), ("s003_post_T1", "T1C"), ("post_10_min_T1", "T1C"),
    ("contrast_012_T1", "T1C"), ("CE_3D_T1", "T1C"), ("AC-12_post_T1", "T1C"), ("AC-12_pre_T1", "T1"),
]  # fmt: skip
BY_PRODUCTS = [
    ("T1C_bias_field", None), ("T1C_biasfield", None), ("T1C_N4_bias_field", None),
    ("T1C_noise", None), ("T1C_noisemap", None),
    ("T1C_residual", None), ("T1C_warp", None), ("T1C_warpfield", None), ("T1C_jacobian", None),
    ("FLAIR_deformation", None), ("T2_displacement_field", None), ("T1C_偏置场", None), ("T2残差", None),
    ("T1C_bias_field_corrected", "T1C"), ("T1C_warped", "T1C"), ("FLAIR_denoised", "FLAIR"), ("T1c_bias", "T1C"),
    ("T2s_gre", None), ("T2s", None), ("T2_tra_gre", None), ("t2_fl2d_tra", None), ("T1_gre_post", "T1C"),
    ("sub-01_echo-1_part-phase_T2w", None), ("sub-01_part-real_T1w", None), ("sub-01_part-mag_T2w", "T2"),
    ("T2_FLAIR_space", None), ("FLAIR_T1C-space", "FLAIR"), ("T1_T1C-space", "T1"), ("T2_MNI-space", "T2"),
]  # fmt: skip
NOT_GIVEN = [
    ("T1_w-o_contrast", "T1"), ("T1_w-o", "T1"), ("T1_w-out_gd", "T1"), ("T1增强未做", "T1"), ("T1增强取消", "T1"),
    ("T1增强(无)", "T1"), ("T1增强:否", "T1"), ("T1增强扫描未行", "T1"), ("T1造影剂未注射", "T1"),
    ("T1增强没有做", "T1"), ("T1_wout_contrast", "T1"), ("T1增强失败", "T1"), ("T1_posgad", "T1C"),
    ("T1增强无压脂", "T1C"), ("T1增强后未压脂", "T1C"), ("T1增强压脂", "T1C"),
]  # fmt: skip


@pytest.mark.parametrize("name, sequence", [*PATIENT_IDS, *BY_PRODUCTS, *NOT_GIVEN])
@pytest.mark.parametrize("change_case", [str, str.upper, str.lower], ids=["as is", "upper", "lower"])
def test_ids_by_products_and_contrast_not_given(name: str, sequence: str | None, change_case):
    assert find_sequence_in_name(change_case(name)) == sequence


@pytest.mark.parametrize("separator", [" ", "-", "."])
@pytest.mark.parametrize(
    "name, sequence", [one for one in REGISTERED if "space" not in one[0] and one[0].isidentifier()]
)
def test_separators_are_equivalent(name: str, sequence: str | None, separator: str):
    assert find_sequence_in_name(name.replace("_", separator)) == sequence


@pytest.mark.parametrize("words, contrast", CONTRAST)
def test_contrast_words_in_file_names_and_descriptions(words: str, contrast: bool | None):
    assert parse_contrast(words) is contrast
    assert find_sequence_in_name(words) == ("T1C" if contrast else "T1")


@pytest.mark.parametrize("name", [*BOTH, *OTHER])
def test_ambiguous_and_other_names_are_no_supported_sequence(name: str):
    assert find_sequence_in_name(name) is None


@pytest.mark.parametrize("name, mask, lesion", [
    ("sub-01_dseg", True, True), ("sub-01_label-lesion_mask", True, True),
    ("sub-01_space-T1w_label-lesion", True, True),
    ("sub-01_space-T1w_desc-tumor_mask", True, True), ("sub-01_desc-brain_mask", True, False),
    ("sub-01_desc-aseg_dseg", True, False), ("sub-01_label-GM_probseg", True, False), ("T1C_lesion", True, True),
    ("lesion_T1C", True, True), ("roi", True, True), ("FLAIR_tumor", True, True), ("T1C_edema", True, False),
    ("病灶掩膜", True, True), ("T1C_掩膜", True, True), ("mod-T1w_defacemask", True, False),
    ("tumor12_T1C", False, False),
    ("Tumor_003_T1C", False, False), ("T1C", False, False), ("brain_tumor_mask", True, True),
])  # fmt: skip
def test_masks_by_name(name: str, mask: bool, lesion: bool):
    assert (is_mask_name(name), is_lesion_mask_name(name)) == (mask, lesion)


@pytest.mark.parametrize("words, after", [
    ("Brain post-op", True), ("POSTOP MRI", True), ("intraoperative MR", True), ("intra-op", True), ("术后复查", True),
    ("术中", True), ("MRI after resection", True), ("post surgery", True), ("ses-postop", True),
    ("pre-op planning", False), ("T1 post", False), ("术前", False), ("post contrast", False), ("posterior", False),
    ("手术导航", False),
])  # fmt: skip
def test_postoperative_descriptions(words: str, after: bool):
    assert is_postoperative_description(words) is after


@pytest.mark.parametrize("other", ["pat1", " PAT1 ", "PAT1^^", "Pat1\u3000"])
def test_one_id_in_several_spellings(other: str):
    assert normalise_patient_id("PAT1") == normalise_patient_id(other) != normalise_patient_id("PAT2")


# ---- entry points -----------------------------------------------------------------------------------


def write_volume(file: Path, value: int = 1) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    data = np.zeros((5, 6, 4), np.float32)
    data[1:4, 1:5, 1:3] = value
    nib.save(nib.Nifti1Image(data, np.diag([2.0, 2, 3, 1])), file)


ENTRY_POINT_NAMES = [one for one in [*BIDS[:12], *REGISTERED[:30:3], *PLAIN] if one[1]]


@pytest.mark.parametrize("name, sequence", ENTRY_POINT_NAMES)
def test_a_volume_is_recognised_by_its_name(tmp_path: Path, name: str, sequence: str):
    write_volume(tmp_path / "p" / f"{name}.nii.gz", 9)
    series = read_study(tmp_path / "p").series
    assert list(series) == [sequence] and series[sequence].image.max() == 9


@pytest.mark.parametrize("name, sequence", ENTRY_POINT_NAMES)
def test_a_picture_folder_is_recognised_by_its_name(tmp_path: Path, name: str, sequence: str):
    (tmp_path / "p" / name).mkdir(parents=True)
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "p" / name / "1.png")
    assert list(read_study(tmp_path / "p").series) == [sequence]


@pytest.mark.parametrize("tag", ["SeriesDescription", "ProtocolName"])
@pytest.mark.parametrize("words, sequence", [
    *((words, "T1C" if contrast else "T1") for words, contrast in CONTRAST),
    *(one for one in [*REGISTERED, *PLAIN] if one[1] and one[0] not in ("sub_t1ce", "T2_space-FLAIR")),
])  # fmt: skip
def test_a_dicom_series_is_recognised_by_its_description(tag: str, words: str, sequence: str):
    header = Dataset()
    setattr(header, tag, words)
    assert recognise_series_from_header(header, 20).sequence == sequence


@pytest.mark.parametrize("words", OTHER)
def test_a_dicom_series_of_another_kind_is_no_supported_sequence(words: str):
    header = Dataset()
    header.SeriesDescription = words
    assert recognise_series_from_header(header, 20).sequence is None


def test_a_patient_named_like_a_sequence(tmp_path: Path):
    write_volume(tmp_path / "T1-003" / "T1-003_FLAIR.nii.gz", 3)
    write_volume(tmp_path / "T1-003" / "T1-003_T1C.nii.gz", 5)
    assert {n: s.image.max() for n, s in read_study(tmp_path / "T1-003").series.items()} == {
        "T1C": 5,
        "FLAIR": 3,
    }


@pytest.mark.parametrize("folder, one, other", [
    ("x", "P001_t1c", "P002_flair"), ("x", "BraTS-GLI-00001-000-t1c", "BraTS-GLI-00002-000-t2f"),
    ("x", "sub-01_T1w", "sub-02_FLAIR"), ("x", "UCSF-PDGM-0004_T1c", "UCSF-PDGM-0005_FLAIR"),
    ("x", "patient3_T1C", "patient4_seg"), ("x", "TCGA-FG-6692_T1C", "TCGA-FG-6693_T2"),
])  # fmt: skip
def test_volumes_of_two_patients_are_refused(tmp_path: Path, folder: str, one: str, other: str):
    for name in (one, other):
        write_volume(tmp_path / folder / f"{name}.nii.gz")
    with pytest.raises(GliomarkError, match="two patients according") as caught:
        read_study(tmp_path / folder)
    assert one in str(caught.value) and other in str(caught.value)


@pytest.mark.parametrize("folder, name", [
    ("P001", "P002_t1c"), ("BraTS-GLI-00001-000", "BraTS-GLI-00002-000-t1c"), ("sub-01", "sub-02_ce-gd_T1w"),
    ("TCGA-FG-6692", "TCGA-FG-6693_T1C"),
])  # fmt: skip
def test_volumes_named_after_another_patient_than_their_folder_are_refused(
    tmp_path: Path, folder: str, name: str
):
    write_volume(tmp_path / folder / f"{name}.nii.gz")
    with pytest.raises(GliomarkError, match=f"{name}.nii.gz in .* does not belong to patient {folder}"):
        read_study(tmp_path / folder)


@pytest.mark.parametrize("folder, name", [
    ("P001", "P1_t1c"), ("P001", "3_t1c"), ("P001", "sub-01_ce-gd_T1w"), ("20200101", "20200102_t1c"), ("P001", "T1C"),
    ("P001", "series2_t1c"), ("sub-1", "sub-001_T1ce"),
])  # fmt: skip
def test_other_file_names_are_not_taken_for_other_patients(tmp_path: Path, folder: str, name: str):
    write_volume(tmp_path / folder / f"{name}.nii.gz")
    assert list(read_study(tmp_path / folder).series) == ["T1C"]


@pytest.mark.parametrize("one, other", [
    ("3_T1C", "5_FLAIR"), ("se003_T1C", "se005_FLAIR"), ("IM_0003_T1C", "IM_0005_FLAIR"), ("P001_t1c", "P001_flair"),
    ("20200101_3_T1C", "20200101_5_FLAIR"), ("P001_series3_T1C", "P001_series5_FLAIR"), ("T1C", "P001_FLAIR"),
])  # fmt: skip
def test_series_numbers_are_not_taken_for_patients(tmp_path: Path, one: str, other: str):
    for name in (one, other):
        write_volume(tmp_path / "p" / f"{name}.nii.gz")
    assert list(read_study(tmp_path / "p").series) == ["T1C", "FLAIR"]
