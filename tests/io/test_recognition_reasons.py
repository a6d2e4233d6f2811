"""Reasons for the recognition of a series, in English and Chinese, including every clause."""

from __future__ import annotations

import pickle
import re
from typing import Any

import pytest
from pydicom.dataset import Dataset

from gliomark.experiments.series_recognition import generate_variants
from gliomark.io.dicom.series_recognition import recognise_series_from_header
from gliomark.messages import Message, from_message_record, message, render_message, to_message_record

SE = {"ScanningSequence": "SE"}
SAGITTAL = [0, 1, 0, 0, 0, -1]
MPRAGE = {
    "RepetitionTime": 2000,
    "EchoTime": 2.6,
    "InversionTime": 900,
    "ScanningSequence": "GR",
    "MRAcquisitionType": "3D",
    "PixelSpacing": [1, 1],
    "SliceThickness": 1,
}
T1 = SE | {"RepetitionTime": 500, "EchoTime": 10}
T2 = SE | {"RepetitionTime": 4200, "EchoTime": 98}

REASONS: list[tuple[dict[str, Any], str, str]] = [
    (
        T2,
        "TR 4200 ms, TE 98 ms, ScanningSequence SE: typical of T2, and the description names no weighting.",
        "TR 4200 ms, TE 98 ms, ScanningSequence SE：时间参数符合 T2，且序列描述未写明加权类型。",
    ),
    (
        {},
        "No timing parameters are stated: the weighting cannot be determined, and the description names no weighting.",
        "未写明时间参数：无法判断加权类型，且序列描述未写明加权类型。",
    ),
    (
        {"SeriesDescription": "T2"},
        "SeriesDescription indicates T2, and no timing parameters are stated.",
        "SeriesDescription 写明 T2，且未写明时间参数。",
    ),
    (
        {"EchoTime": 10, "SeriesDescription": "t2_tse_tra"},
        "SeriesDescription indicates T2, but TE 10 ms is not typical of it: they contradict each other.",
        "SeriesDescription 写明 T2，但时间参数（TE 10 ms）与之不符：两者矛盾。",
    ),
    (
        T2 | {"SeriesDescription": "T1 SE"},
        "TR 4200 ms, TE 98 ms, ScanningSequence SE: conclusive for T2, although SeriesDescription indicates T1.",
        "TR 4200 ms, TE 98 ms, ScanningSequence SE：时间参数明确为 T2，但 SeriesDescription 写明 T1。",
    ),
    (
        T1 | {"ContrastBolusAgent": "Gadovist"},
        "TR 500 ms, TE 10 ms, ScanningSequence SE: typical of T1, and the description names no weighting; "
        "ContrastBolusAgent is Gadovist.",
        "TR 500 ms, TE 10 ms, ScanningSequence SE：时间参数符合 T1，且序列描述未写明加权类型；"
        "对比剂（ContrastBolusAgent）为 Gadovist。",
    ),
    (
        T1 | {"ImageOrientationPatient": SAGITTAL, "SliceThickness": 5, "PixelSpacing": [0.5, 0.5]},
        "ImageOrientationPatient is sagittal, with a slice spacing of 5 mm: too large to be resliced to axial.",
        "ImageOrientationPatient 为矢状位，层间距 5 mm：层间距过大，无法重组为轴位。",
    ),
    (
        MPRAGE | {"ImageOrientationPatient": SAGITTAL, "ImageType": ["DERIVED", "SECONDARY", "MPR"]},
        "TR 2000 ms, TE 2.6 ms, TI 900 ms, ScanningSequence GR: typical of T1, and the description names no "
        "weighting; no contrast agent is mentioned; 3-D sagittal acquisition with a slice spacing of 1 mm, resliced to "
        "axial; ImageType is DERIVED: used only if no original series is available.",
        "TR 2000 ms, TE 2.6 ms, TI 900 ms, ScanningSequence GR：时间参数符合 T1，且序列描述未写明加权类型；"
        "未提及对比剂；矢状位三维采集，层间距 1 mm，已重组为轴位；"
        "ImageType 为 DERIVED：仅在没有原始序列时使用。",
    ),
    (
        T2 | {"DiffusionBValue": 1000.0},
        "Diffusion b-value is 1000 s/mm2.",
        "扩散 b 值为 1000 s/mm²。",
    ),
    (
        T2 | {"SeriesDescription": "T2 膝关节"},
        "SeriesDescription names another body part (膝).",
        "SeriesDescription 写明是其他部位（膝）。",
    ),
    (
        {"Modality": "CT"},
        "Modality is CT, not MR.",
        "设备类型（Modality）为 CT，不是 MR。",
    ),
    (
        T1 | {"BurnedInAnnotation": "YES"},
        "BurnedInAnnotation is YES: a screenshot or a colour map.",
        "BurnedInAnnotation 为 YES：是屏幕截图或伪彩图。",
    ),
    (
        {"ScanningSequence": "EP"},
        "Echo-planar (ScanningSequence EP), images per slice position: 1.",
        "平面回波成像（ScanningSequence EP），每个层面位置 1 幅。",
    ),
]


def get_reason(tags: dict[str, Any]) -> str:
    header = Dataset()
    for tag, value in tags.items():
        setattr(header, tag, value)
    return recognise_series_from_header(header, 20).reason


@pytest.mark.parametrize(("tags", "english", "chinese"), REASONS)
def test_reasons_in_both_languages(tags: dict[str, Any], english: str, chinese: str) -> None:
    reason = get_reason(tags)
    assert isinstance(reason, Message)
    assert reason == english and render_message(reason, "en") == english
    assert render_message(reason, "zh") == chinese


@pytest.mark.parametrize(("tags", "english", "chinese"), REASONS)
def test_reasons_survive_pickling_and_message_records(
    tags: dict[str, Any], english: str, chinese: str
) -> None:
    for copied in (
        pickle.loads(pickle.dumps(get_reason(tags))),
        from_message_record(to_message_record(get_reason(tags))),
    ):
        assert copied == english and render_message(copied, "zh") == chinese


def test_a_note_about_an_unknown_series_is_entirely_chinese() -> None:
    reason = get_reason({"EchoTime": 10, "SeriesDescription": "t2_tse_tra"})
    note = message("series-unknown", name="t2_tse_tra", reason=reason)
    assert render_message(note, "zh") == (
        "未使用序列“t2_tse_tra”：SeriesDescription 写明 T2，但时间参数（TE 10 ms）与之不符：两者矛盾。"
    )


def test_no_english_clause_is_left_in_any_reason() -> None:
    """For the generated headers: Latin words are attribute names, values or words from the header."""
    for variant in generate_variants():
        reason = recognise_series_from_header(variant.header, variant.image_count).reason
        chinese = render_message(reason, "zh")
        header_text = " ".join(str(element.value) for element in variant.header)
        words = re.findall(r"(?<![\w-])[a-z]{3,}(?![\w-])", chinese)
        assert chinese.endswith("。"), chinese
        assert all(word in header_text.lower() for word in words), (chinese, words)
