"""Recognition of series: single headers, descriptions from real scanners, and generated variants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from gliomark.experiments.series_recognition import (
    TARGET_SEQUENCES,
    generate_variants,
    run_series_recognition,
)
from gliomark.io.dicom.description_words import find_plane_in_words, find_weighting_in_words
from gliomark.io.dicom.series_recognition import SeriesRecognition, recognise_series_from_header
from gliomark.io.dicom.weighting import is_csf_nulled
from gliomark.io.naming import parse_contrast

VARIANTS = tuple(generate_variants())
SE_T1 = {"RepetitionTime": 500, "EchoTime": 10, "ScanningSequence": "SE"}
SE_T2 = {"RepetitionTime": 4200, "EchoTime": 98, "ScanningSequence": "SE"}
FLAIR = {"RepetitionTime": 9000, "EchoTime": 110, "InversionTime": 2500, "ScanningSequence": ["SE", "IR"]}
MPRAGE = {
    "RepetitionTime": 2000, "EchoTime": 2.6, "InversionTime": 900, "ScanningSequence": ["GR", "IR"],
    "MRAcquisitionType": "3D", "PixelSpacing": [1, 1], "SliceThickness": 1,
}  # fmt: skip
SAGITTAL, CORONAL = [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1]


def recognise_tags(images: int = 20, **tags: Any) -> SeriesRecognition:
    header = Dataset()
    for tag, value in tags.items():
        setattr(header, tag, value)
    found = recognise_series_from_header(header, images)
    assert "\n" not in found.reason and found.reason.endswith(".") and len(found.reason) > 15
    assert found.kind == (found.sequence or found.kind)
    return found


# ---- timing, attributes, words ----------------------------------------------------------------------


@pytest.mark.parametrize("tags, kind", [
    (SE_T1, "T1"), (SE_T2, "T2"), (FLAIR, "FLAIR"), (MPRAGE, "T1"),
    (SE_T1 | {"ContrastBolusAgent": "Gadovist"}, "T1C"),
    (SE_T1 | {"ContrastBolusAgent": "NONE"}, "T1"),
    (SE_T1 | {"SeriesDescription": "T1横断 增强"}, "T1C"),
    (SE_T1 | {"SeriesDescription": "T1平扫", "ContrastBolusAgent": "钆"}, "T1"),
    (SE_T1 | {"SeriesDescription": "AX T1", "ProtocolName": "头颅平扫+增强"}, "T1"),
    (SE_T2 | {"ContrastBolusAgent": "Gadovist"}, "T2"),
    (SE_T2 | {"EchoTime": 22, "RepetitionTime": 2300}, "PD"),
    (SE_T2 | {"SeriesDescription": "PD+T2 dual echo"}, "T2"),
    (SE_T2 | {"EchoTime": 20, "SeriesDescription": "PD+T2 dual echo"}, "PD"),
    (SE_T2 | {"InversionTime": 160, "EchoTime": 70}, "STIR"),
    (SE_T1 | {"ScanningSequence": "GR", "EchoTime": 20, "FlipAngle": 20}, "T2*"),
    ({"ScanningSequence": "EP", "RepetitionTime": 5000, "EchoTime": 90}, "DWI"),
    (SE_T2 | {"DiffusionBValue": 1000.0}, "DWI"),
    (SE_T2 | {"DiffusionBValue": 0.0}, "T2"),
    (SE_T2 | {"SeriesDescription": "ADC (10^-6 mm²/s)"}, "ADC"),
    (SE_T1 | {"NumberOfTemporalPositions": 40, "ContrastBolusAgent": "GAD"}, "perfusion"),
    (MPRAGE | {"RepetitionTime": 5000, "InversionTime": 700}, "MP2RAGE"),
    (MPRAGE | {"SeriesDescription": "t1_mp2rage_sag_UNI_Images"}, "MP2RAGE"),
    (SE_T1 | {"ImageType": ["DERIVED", "SECONDARY", "M", "SUB"]}, "derived"),
    (SE_T1 | {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "phase"),
    (SE_T1 | {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "NORM", "FAT"]}, "fat image"),
    (SE_T1 | {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "NORM", "IN_PHASE"]}, "T1"),
    (SE_T1 | {"BurnedInAnnotation": "YES"}, "screenshot"),
    (SE_T1 | {"BodyPartExamined": "LSPINE"}, "other body part"),
    (SE_T2 | {"SeriesDescription": "T2 膝关节"}, "other body part"),
    (SE_T2 | {"StudyDescription": "MR lumbar spine"}, "other body part"),
    (SE_T2 | {"StudyDescription": "MR brain and cervical spine"}, "T2"),
    (SE_T2 | {"SeriesDescription": "T2 横断 术前手术导航"}, "T2"),
    (SE_T1 | {"AngioFlag": "Y"}, "angiography"),
    ({"SeriesDescription": "t2_tse_tra"}, "T2"),
    ({"SeriesDescription": "FLAIR"}, "FLAIR"),
    ({"SeriesDescription": "t2_spc_da-fl_sag", "MRAcquisitionType": "3D"} | FLAIR, "FLAIR"),
    ({}, "unknown"),
])  # fmt: skip
def test_kind(tags: dict[str, Any], kind: str):
    assert recognise_tags(**tags).kind == kind


@pytest.mark.parametrize("uid, modality, kind", [
    ("1.2.840.10008.5.1.4.1.1.7", "OT", "screenshot"), ("1.2.840.10008.5.1.4.1.1.7.2", "MR", "screenshot"),
    ("1.2.840.10008.5.1.4.1.1.88.33", "SR", "report"), ("1.2.840.10008.5.1.4.1.1.88.59", "KO", "report"),
    ("1.2.840.10008.5.1.4.1.1.11.1", "PR", "presentation state"),
    ("1.2.840.10008.5.1.4.1.1.66.4", "SEG", "segmentation"),
    ("1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT", "contours"),
    ("1.2.840.10008.5.1.4.1.1.4.2", "MR", "spectroscopy"), ("1.2.840.10008.5.1.4.1.1.2", "CT", "other modality"),
])  # fmt: skip
def test_other_objects_are_not_mr_images(uid: str, modality: str, kind: str):
    found = recognise_tags(SOPClassUID=uid, Modality=modality, SeriesDescription="T2", **SE_T2)
    assert found.sequence is None and found.kind == kind


@pytest.mark.parametrize("orientation, name", [(SAGITTAL, "sagittal"), (CORONAL, "coronal")])
def test_thick_non_axial_stacks_are_not_used_but_isotropic_volumes_are(orientation: list[int], name: str):
    thick = recognise_tags(
        ImageOrientationPatient=orientation, SliceThickness=5, PixelSpacing=[0.5, 0.5], **SE_T1
    )
    assert thick.sequence is None and thick.kind == name and "5 mm" in thick.reason
    volume = recognise_tags(176, ImageOrientationPatient=orientation, **MPRAGE)
    assert volume.kind == "T1" and name in volume.reason and "resliced" in volume.reason


def test_orientation_is_taken_from_words_if_not_stated():
    assert recognise_tags(SeriesDescription="矢状T1", SliceThickness=5, **SE_T1).kind == "sagittal"
    assert recognise_tags(SeriesDescription="COR T2", SliceThickness=5, **SE_T2).kind == "coronal"


@pytest.mark.parametrize("tags", [
    {"RepetitionTime": 9000, "EchoTime": 110, "SeriesDescription": "t1_se_tra"},  # T2 or FLAIR, never T1
    {"EchoTime": 10, "SeriesDescription": "t2_tse_tra"},
    {"RepetitionTime": 500, "SeriesDescription": "FLAIR"},
    {"RepetitionTime": 7500, "EchoTime": 318, "InversionTime": 3000},  # double inversion: TI does not null CSF
    {"RepetitionTime": 9000, "EchoTime": 110},  # same timing as a FLAIR without TI
    {"RepetitionTime": 25, "EchoTime": 5, "ScanningSequence": "GR"},  # time-of-flight angiography or T1
])  # fmt: skip
def test_an_undeterminable_series_is_unknown_with_a_reason(tags: dict[str, Any]):
    found = recognise_tags(**tags)
    assert found.sequence is None and found.kind == "unknown"
    if "SeriesDescription" in tags:
        assert "SeriesDescription indicates" in found.reason and "contradict" in found.reason


def test_conclusive_timing_overrides_words_with_a_reason():
    found = recognise_tags(SeriesDescription="T1 SE", **SE_T2)
    assert found.kind == "T2" and "although SeriesDescription indicates T1" in found.reason


def test_a_reformatted_series_is_usable_as_a_last_resort_with_a_reason():
    found = recognise_tags(ImageType=["DERIVED", "SECONDARY", "MPR"], **MPRAGE)
    assert found.kind == "T1" and "DERIVED" in found.reason
    assert "DERIVED" not in recognise_tags(ImageType=["ORIGINAL", "PRIMARY", "MPR"], **MPRAGE).reason


def test_timing_in_functional_groups():
    timing, echo, modifier = Dataset(), Dataset(), Dataset()
    timing.RepetitionTime, echo.EffectiveEchoTime = 9000, 110.0
    modifier.InversionTimes, modifier.InversionRecovery = [2500.0], "YES"
    groups = Dataset()
    groups.MRTimingAndRelatedParametersSequence = Sequence([timing])
    groups.MREchoSequence, groups.MRModifierSequence = Sequence([echo]), Sequence([modifier])
    found = recognise_tags(SharedFunctionalGroupsSequence=Sequence([groups]), SeriesDescription="axial")
    assert found.kind == "FLAIR" and "TI 2500 ms" in found.reason


@pytest.mark.parametrize("images, kind", [(1, "single image"), (2, "T2")])
def test_one_image_is_not_a_stack(images: int, kind: str):
    assert recognise_tags(images, **SE_T2).kind == kind


@pytest.mark.parametrize("repetition, inversion", [(9000, 2500), (5000, 1800), (11000, 2800), (4800, 1650)])
def test_flair_inversion_times_null_csf(repetition: float, inversion: float):
    assert is_csf_nulled(repetition, inversion)
    assert not is_csf_nulled(repetition, 0.5 * inversion) and not is_csf_nulled(repetition, 1.5 * inversion)


# Descriptions from hospitals, not used to generate the variants.
@pytest.mark.parametrize("words, weight, contrast", [
    ("AX T1 FSE +C", "T1", True), ("Ax T1 MEMP POST", "T1", True), ("t1_mpr_sag_p2_iso_KM", "T1", True),
    ("T1 TSE TRA GD", "T1", True), ("SAG 3D BRAVO+C", "T1", True), ("eT1W_TSE_tra +C", "T1", True),
    ("cor T1 fs post gad", "T1", True), ("T1W_3D_TFE_ref CE", "T1", True), ("T1_3D_增强", "T1", True),
    ("横断位T1加权增强扫描", "T1", True), ("T1WI CE", "T1", True), ("AX T1 W/WO", "T1", None),
    ("AX T1 PRE", "T1", False), ("T1 WITHOUT CONTRAST", "T1", False), ("轴位T1平扫", "T1", False),
    ("AX T1 NON CONTRAST", "T1", False), ("T1 post op", "T1", None), ("T1 tra nativ", "T1", False),
    ("AX T2 FLAIR FS", "FLAIR", None), ("T2W_FLAIR_SENSE", "FLAIR", None), ("tirm_tra_dark-fluid_320", "FLAIR", None),
    ("T2_FLAIR_横断位", "FLAIR", None), ("轴位压水像", "FLAIR", None), ("AXIAL T1 FLAIR", "T1", None),
    ("T2W FS TSE", "T2", None), ("AX FRFSE-XL T2", "T2", None), ("T2 BLADE tra", "T2", None), ("T2WI", "T2", None),
    ("头颅横断T2加权", "T2", None), ("OAx T2 PROPELLER", "T2", None), ("MPRAGE", "T1", None),
    ("head routine", None, None),
])  # fmt: skip
def test_weighting_and_contrast_in_descriptions(words: str, weight: str | None, contrast: bool | None):
    assert find_weighting_in_words(words) == weight
    assert parse_contrast(words) is contrast


@pytest.mark.parametrize("words, plane", [
    ("t2_tse_tra", "axial"), ("OAx T1", "axial"), ("SAG T1", "sagittal"), ("冠状位T2", "coronal"), ("T2", ""),
    ("ep2d_diff_3scan_trace", ""), ("AX COR SAG", ""),
])  # fmt: skip
def test_planes_in_words(words: str, plane: str):
    assert find_plane_in_words(words) == plane


@pytest.mark.parametrize("words, kind", [
    ("3-plane localizer", "localiser"), ("AAHead_Scout", "localiser"), ("Survey_32ch_HeadCoil", "localiser"),
    ("ep2d_diff_4scan_trace_ADC", "ADC"), ("eDWI b=1000", "DWI"), ("DTI_30dir", "DWI"), ("ep2d_perf_p2", "perfusion"),
    ("dynamic_DSC", "perfusion"), ("relCBV", "perfusion"), ("SWI_Images", "T2*"), ("mIP_Images(SW)", "derived"),
    ("Ax T2* GRE", "T2*"), ("tof_fl3d_tra", "angiography"), ("MRV", "angiography"), ("Ax FIESTA", "steady state"),
    ("T2_Map", "derived"), ("GRE field mapping", "field map"), ("T1 SUB", "derived"), ("T2 STIR tra", "STIR"),
    ("颅脑定位", "localiser"), ("磁敏感加权成像", "T2*"), ("动脉自旋标记灌注", "perfusion"),
    ("Resting state fMRI", "functional"),
])  # fmt: skip
def test_words_of_other_kinds_exclude_a_series_regardless_of_timing(words: str, kind: str):
    for timing in (SE_T1, SE_T2, MPRAGE, {}):
        found = recognise_tags(SeriesDescription=words, **timing)
        assert found.sequence is None
    assert recognise_tags(SeriesDescription=words).kind == kind


# ---- the generated variants -------------------------------------------------------------------------


def test_no_variant_is_misrecognised_and_nearly_all_determinable_ones_are_recognised():
    wrong, missed, determinable = [], [], 0
    for variant in VARIANTS:
        found = recognise_series_from_header(variant.header, variant.image_count)
        if found.sequence is not None and found.kind != variant.kind:
            wrong.append((variant.name, found))
        if variant.is_determinable and variant.kind in TARGET_SEQUENCES:
            determinable += 1
            missed += [variant.name] if found.kind != variant.kind else []
    assert not wrong
    assert determinable > 200 and len(missed) <= 0.05 * determinable, missed


@pytest.mark.parametrize("seed", [1])
def test_no_variant_is_misrecognised_with_other_timings(seed: int):
    for variant in generate_variants(seed):
        found = recognise_series_from_header(variant.header, variant.image_count)
        assert found.sequence is None or found.kind == variant.kind, variant.name


def test_the_confusion_table_counts_every_variant(tmp_path: Path):
    messages: list[str] = []
    table = pd.read_csv(run_series_recognition(tmp_path, None, messages.append), keep_default_na=False)
    assert table["count"].sum() == len(VARIANTS) >= 200
    ours = table[table.recognised.isin(TARGET_SEQUENCES)]
    assert (ours.truth == ours.recognised).all() and set(ours.truth) == set(TARGET_SEQUENCES)
    assert "0 wrong sequences" in messages[0]


def test_real_series_in_the_confusion_table(tmp_path: Path, shared: Path):
    table = pd.read_csv(
        run_series_recognition(tmp_path, shared / "series", lambda text: None), keep_default_na=False
    )
    real = table[table.source != "generated"]
    assert sorted(real.recognised) == ["PD", "T1", "T1"]
