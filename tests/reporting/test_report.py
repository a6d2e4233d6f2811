"""prediction.json, the HTML report and the table: complete, safe, in both languages, never partially written."""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import json
import re
from collections.abc import Callable
from html import unescape
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import pypdfium2
import pytest
from PIL import Image

from gliomark.errors import GliomarkError
from gliomark.messages import Language, message
from gliomark.prediction import MarkerPrediction, Prediction
from gliomark.reporting import (
    FailedPatient,
    TableRow,
    create_failure_row,
    encode_folder_name,
    render_pdf,
    write_prediction,
    write_predictions_table,
    write_table_rows,
    writers,
)
from gliomark.reporting.drawing import SEGMENTATION_COLOUR, create_slice_canvas, draw_slice, encode_jpeg
from gliomark.reporting.html_report import render_contents_as_html
from gliomark.reporting.mask_resampling import align_probability_with_mask
from gliomark.reporting.report_contents import create_report_contents
from gliomark.reporting.report_texts import READER_REPORT_TEXTS, REPORT_TEXTS
from gliomark.study import READER_SEGMENTATION_RULE, ClinicalData, Examination, MRSequence, Segmentation
from gliomark.tables.cell_text import clean_cell

Make = Callable[..., Prediction]
SCHEMA = json.loads((files("gliomark.reporting") / "prediction.schema.json").read_text(encoding="utf-8"))


def remove_lesion(prediction: Prediction) -> Prediction:
    empty = np.zeros_like(prediction.segmentation.mask)
    markers = tuple(
        dataclasses.replace(marker, probability=None, level="undetermined", slices=())
        for marker in prediction.markers
    )
    return dataclasses.replace(
        prediction,
        segmentation=Segmentation(empty.astype(np.float32), empty, "union"),
        lesion_volume_ml=0.0,
        lesion_areas_mm2={},
        markers=markers,
    )


def mark_as_drawn_by_reader(prediction: Prediction) -> Prediction:
    segmentation = dataclasses.replace(prediction.segmentation, rule=READER_SEGMENTATION_RULE)
    return dataclasses.replace(prediction, segmentation=segmentation)


def write_page(prediction: Prediction, folder: Path, language: str = "en") -> str:
    written = write_prediction(prediction, folder, language=language)  # type: ignore[arg-type]
    return (written / "report.html").read_text(encoding="utf-8")


def extract_text(html: str) -> str:
    """The visible text of a page: no style, no tags, single spaces."""
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.S).split())


def test_the_document_conforms_to_its_schema(make_prediction: Make) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for prediction in (make_prediction(), make_prediction("volumes"), remove_lesion(make_prediction())):
        document = json.loads(json.dumps(prediction.to_dict(), allow_nan=False))
        jsonschema.Draft202012Validator(SCHEMA).validate(document)


def test_the_diameters_are_stated_like_the_volume(make_prediction: Make, tmp_path: Path) -> None:
    """A sphere of radius 13 mm, flattened to three quarters, in prediction.json, both reports and the table."""
    prediction = make_prediction()
    affine = prediction.stack.affine @ np.diag([0.75, 1.0, 1.0, 1.0])
    prediction = dataclasses.replace(prediction, stack=dataclasses.replace(prediction.stack, affine=affine))
    diameters = prediction.to_dict()["lesion"]["diameters"]
    lengths = {name: diameters[name]["mm"] for name in ("longest", "perpendicular", "longest_3d")}
    assert (lengths["longest"], lengths["perpendicular"]) == pytest.approx((26, 19.5), abs=1)
    assert 26 <= lengths["longest_3d"] <= 26 + 5  # slices of 5 mm end half a slice beyond the last one
    assert diameters["slice"] == "006"  # through the centre
    for line, mm in ((diameters[name], mm) for name, mm in lengths.items()):
        assert np.linalg.norm(np.subtract(*line["ends_mm"])) == pytest.approx(mm, abs=1e-4)
    longest, perpendicular, longest_3d = (f"{mm:.0f}" for mm in lengths.values())
    for language, unknown in (
        ("en", "areas, diameters and volume are approximate"),
        ("zh", "面积、径线和体积"),
    ):
        page = extract_text(write_page(prediction, tmp_path, language))
        pdf = pypdfium2.PdfDocument(render_pdf(prediction, language))  # type: ignore[arg-type]
        printed = " ".join(" ".join(one.get_textpage().get_text_bounded().split()) for one in pdf)
        for text in (f"{longest} × {perpendicular} mm", f"{longest_3d} mm", "RANO", unknown):
            assert text in page and text.replace(" ", "") in printed.replace(" ", ""), text
    write_predictions_table([prediction, remove_lesion(make_prediction(patient_id="P2"))], tmp_path / "p.csv")
    rows = read_table_rows(tmp_path / "p.csv")
    columns = ("lesion_longest_mm", "lesion_perpendicular_mm", "lesion_longest_3d_mm")
    assert [float(rows["P1"][name]) for name in columns] == pytest.approx([*lengths.values()])
    assert [rows["P2"][name] for name in columns] == ["", "", ""]
    assert remove_lesion(prediction).to_dict()["lesion"]["diameters"] is None


def test_a_table_of_an_older_version_is_continued(make_prediction: Make, tmp_path: Path) -> None:
    table = tmp_path / "p.csv"
    write_predictions_table([make_prediction(patient_id="A")], table)
    lines = [line.split(",") for line in table.read_text(encoding="utf-8-sig").splitlines()]
    kept = [index for index, name in enumerate(lines[0]) if not name.endswith("_mm")]
    table.write_text("\n".join(",".join(line[index] for index in kept) for line in lines), encoding="utf-8")
    write_predictions_table([make_prediction(patient_id="B")], table)
    rows = read_table_rows(table)
    assert rows["A"]["lesion_longest_mm"] == "" and float(rows["B"]["lesion_longest_mm"]) > 20


def test_every_field_of_the_schema_is_described() -> None:
    def check(node: dict) -> None:
        for name, child in node.get("properties", {}).items():
            assert child.get("description") or "$ref" in child, name
            check(child)

    for part in (SCHEMA, *SCHEMA["$defs"].values()):
        check(part)


def test_non_finite_numbers_become_null(make_prediction: Make, tmp_path: Path) -> None:
    prediction = make_prediction(clinical=ClinicalData("P1", None, None), seconds=float("inf"))
    marker = dataclasses.replace(prediction.markers[0], probability=float("nan"))
    prediction = dataclasses.replace(prediction, markers=(marker,), lesion_volume_ml=float("nan"))
    folder = write_prediction(prediction, tmp_path)
    document = json.loads((folder / "prediction.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert document["age"] is document["seconds"] is document["markers"][0]["probability"] is None
    assert "nan" not in extract_text((folder / "report.html").read_text(encoding="utf-8")).lower().split()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_stored_prediction_without_newer_fields_can_be_rendered(
    make_prediction: Make, language: Language
) -> None:
    prediction = make_prediction()
    document = prediction.to_dict()
    del document["messages"], document["sequences"]["stand_ins"], document["input"]["examination"]
    del document["lesion"]["diameters"]
    for marker in document["markers"]:
        for name in ("borderline", "threshold_origin", "fusion_in_words", "positive"):
            del marker[name]
    text = extract_text(
        render_contents_as_html(create_report_contents(prediction, document, language), language)
    )
    assert prediction.patient_id in text and "30 %" in text
    assert {"en": "wild type", "zh": "野生型"}[language] in text and "borderline" not in text


def test_the_document_lists_the_slices_used(make_prediction: Make) -> None:
    marker = make_prediction().to_dict()["markers"][0]
    assert marker["slices_used"] == ["006"]
    assert [score["name"] for score in marker["slices"] if score["decides"]] == ["006"]


@pytest.mark.parametrize(
    ("language", "tag", "expected"),
    [
        (
            "en",
            "en",
            ["Research use only. Not a medical device.", "wild type", "30 %", "threshold 50 %", "a warning"],
        ),
        (
            "zh",
            "zh-Hans",
            ["不是医疗器械", "野生型", "30 %", "阈值 50 %", "51 岁", "女", "假定值"],
        ),
    ],
)
def test_the_page_is_complete_in_both_languages(
    make_prediction: Make, tmp_path: Path, language: str, tag: str, expected: list[str]
) -> None:
    html = write_page(make_prediction(), tmp_path, language)
    assert f'<html lang="{tag}">' in html
    for text in (*expected, "AUC 0.7", "ab" * 32, "CC BY-NC-SA 4.0", "what idh means"):
        assert text in extract_text(html)


def test_every_text_has_both_languages_with_the_same_placeholders() -> None:
    assert READER_REPORT_TEXTS.keys() < REPORT_TEXTS.keys()
    for english, chinese in (*REPORT_TEXTS.values(), *READER_REPORT_TEXTS.values()):
        assert english and chinese
        assert english.count("{") == chinese.count("{")


def test_the_page_is_self_contained(make_prediction: Make, tmp_path: Path) -> None:
    html = write_page(make_prediction(), tmp_path)
    assert "<script" not in html and "http://" not in html and "https://" not in html
    sources = re.findall(r'src="([^"]+)"', html)
    assert sources and all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert len(html) < 3_000_000
    assert Image.open(io.BytesIO(base64.b64decode(sources[0].split(",")[1]))).width == 560


def test_a_missing_lesion_is_reported(make_prediction: Make, tmp_path: Path) -> None:
    text = extract_text(write_page(remove_lesion(make_prediction()), tmp_path))
    assert "No lesion was found" in text and "undetermined" in text
    assert "threshold" not in text


@pytest.mark.parametrize(
    ("language", "expected_text"), [("en", "lesion outline by the reader"), ("zh", "阅片者勾画的病灶")]
)
def test_an_outline_by_the_reader_is_not_attributed_to_the_model(
    make_prediction: Make, tmp_path: Path, language: str, expected_text: str
) -> None:
    text = extract_text(write_page(mark_as_drawn_by_reader(make_prediction()), tmp_path, language))
    assert expected_text in text and "outline by the model" not in text and "模型勾画的病灶" not in text
    no_outline = extract_text(
        write_page(mark_as_drawn_by_reader(remove_lesion(make_prediction())), tmp_path, "en")
    )
    assert "The reader left no outline" in no_outline and "missed" not in no_outline


def test_the_readers_finding_is_shown_with_the_probability_of_the_model(
    make_prediction: Make, tmp_path: Path
) -> None:
    prediction = make_prediction()
    marker = dataclasses.replace(prediction.markers[0], level="mutant", decided_by="reader's finding")
    text = extract_text(write_page(dataclasses.replace(prediction, markers=(marker,)), tmp_path))
    assert "mutant From the reader’s finding" in text
    assert "For comparison, the model’s probability of “mutant” 30 %" in text


def test_an_id_is_never_used_as_markup_or_path(make_prediction: Make, tmp_path: Path) -> None:
    prediction = make_prediction(patient_id="../<b>患者 01</b>")
    folder = write_prediction(prediction, tmp_path / "输出 夹")
    assert folder.parent == tmp_path / "输出 夹"
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;患者 01" in html and "<b>患者" not in html
    assert encode_folder_name("患者 01") == "患者 01"
    assert len({encode_folder_name(name) for name in ("a/b", "a%2Fb", "a_b", ".", "..", "a.")}) == 6
    with pytest.raises(GliomarkError, match="id"):
        encode_folder_name(" ")


def test_the_outline_is_drawn_on_the_left_of_the_patient(make_prediction: Make) -> None:
    prediction = make_prediction()
    paper = create_slice_canvas(
        prediction.stack, align_probability_with_mask(prediction.segmentation), [MRSequence.FLAIR]
    )
    picture = np.asarray(draw_slice(paper, MRSequence.FLAIR, 3, 400))
    columns = np.nonzero((picture == SEGMENTATION_COLOUR).all(axis=2))[1]
    assert columns.size > 50
    assert columns.min() > 200


def test_a_failure_leaves_the_older_result_unchanged(
    make_prediction: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_prediction(make_prediction(), tmp_path)
    before = (folder / "prediction.json").read_bytes()

    def raise_disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    failing_writer = dataclasses.replace(writers.WRITERS["png"], write=raise_disk_full)
    monkeypatch.setattr(writers, "WRITERS", {**writers.WRITERS, "png": failing_writer})
    with pytest.raises(GliomarkError, match="the disk is full"):
        write_prediction(make_prediction(seconds=9.0), tmp_path)
    assert (folder / "prediction.json").read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["P1"]


def test_a_second_run_replaces_the_first(make_prediction: Make, tmp_path: Path) -> None:
    write_prediction(make_prediction("pictures"), tmp_path)
    folder = write_prediction(make_prediction("volumes"), tmp_path)
    assert sorted(entry.name for entry in folder.iterdir()) == [
        "prediction.json",
        "report.html",
        "segmentation.nii.gz",
        "statistics.json",
    ]
    assert [entry.name for entry in tmp_path.iterdir()] == ["P1"]


def test_the_patients_own_images_are_never_replaced(make_prediction: Make, tmp_path: Path) -> None:
    (tmp_path / "P1" / "T1C").mkdir(parents=True)
    (tmp_path / "P2").write_text("mine")
    with pytest.raises(GliomarkError, match="T1C"):
        write_prediction(make_prediction(), tmp_path)
    with pytest.raises(GliomarkError, match="P2"):
        write_prediction(make_prediction(patient_id="P2"), tmp_path)
    assert (tmp_path / "P1" / "T1C").is_dir() and (tmp_path / "P2").read_text() == "mine"


def test_an_unwritable_folder_gives_one_sentence(make_prediction: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(GliomarkError, match="choose an output folder"):
        write_prediction(make_prediction(), tmp_path / "file" / "out")
    with pytest.raises(GliomarkError, match="choose an output folder"):
        write_predictions_table([], tmp_path / "file" / "predictions.csv")


def test_the_table_has_a_row_for_every_patient(make_prediction: Make, tmp_path: Path) -> None:
    path = tmp_path / "out" / "predictions.csv"
    write_predictions_table(
        [make_prediction(patient_id="患者 01"), FailedPatient("P2", "a series is black, export it again")],
        path,
    )
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    with path.open(encoding="utf-8-sig", newline="") as file:
        first, second = csv.DictReader(file)
    assert first["id"] == "患者 01"
    assert (first["idh_probability"], first["idh_level"], first["ki67_fusion"]) == (
        "0.3",
        "wild type",
        "large",
    )
    assert first["sha256"] == "ab" * 32 and first["error"] == ""
    assert second["id"] == "P2" and second["error"].startswith("a series is black")
    assert second["idh_level"] == ""
    assert [entry.name for entry in path.parent.iterdir()] == ["predictions.csv"]


def read_table_rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("patient", ["Je\u0301ro\u0302me", " P1 ", "P\u200b1", "患者1"])
def test_an_id_has_one_row_however_its_characters_are_composed(
    make_prediction: Make, tmp_path: Path, patient: str
) -> None:
    path = tmp_path / "predictions.csv"
    for volume in (1.0, 2.0):
        write_predictions_table([make_prediction(patient_id=patient, lesion_volume_ml=volume)], path)
    rows = read_table_rows(path)
    assert list(rows) == [clean_cell(patient)]
    assert [row["lesion_volume_ml"] for row in rows.values()] == ["2.0"]


def test_patients_written_one_by_one_share_one_table(make_prediction: Make, tmp_path: Path) -> None:
    """Other patients' rows are kept, the same patient's row is replaced, another model's columns are kept."""
    path = tmp_path / "predictions.csv"
    write_predictions_table(
        [make_prediction(patient_id="A"), make_prediction(patient_id="B", lesion_volume_ml=2.0)], path
    )
    other = make_prediction(patient_id="C")
    marker = dataclasses.replace(other.markers[0], marker="mgmt")
    write_predictions_table([dataclasses.replace(other, markers=(marker,))], path)
    write_predictions_table([make_prediction(patient_id="B", lesion_volume_ml=7.0)], path)
    rows = read_table_rows(path)
    assert list(rows) == ["A", "B", "C"]
    assert (rows["A"]["idh_probability"], rows["A"]["mgmt_probability"]) == ("0.3", "")
    assert (rows["C"]["idh_probability"], rows["C"]["mgmt_probability"]) == ("", "0.3")
    assert rows["B"]["lesion_volume_ml"] == "7.0"
    write_predictions_table([FailedPatient("B", "a series is black"), FailedPatient("D", "no brain")], path)
    rows = read_table_rows(path)
    assert (rows["B"]["error"], rows["B"]["idh_level"], list(rows)[-1]) == ("a series is black", "", "D")
    assert [entry.name for entry in tmp_path.iterdir()] == ["predictions.csv"]


def test_rows_are_in_the_order_of_the_folders(tmp_path: Path) -> None:
    """Other rows keep their places; a failure that was repaired under another id is removed."""
    path = tmp_path / "predictions.csv"
    rows: dict[str, TableRow] = {name: {"id": name, "lesion_volume_ml": name} for name in "ABCXZ"}
    rows |= {name: create_failure_row(FailedPatient(name, "no brain")) for name in ("folder", "D")}
    write_table_rows([rows["X"], rows["C"], rows["folder"], rows["Z"], rows["A"]], path)
    write_table_rows([rows[name] for name in "ABCD"], path, outdated_failures=["folder", "Z"])
    assert list(read_table_rows(path)) == ["X", "A", "Z", "B", "C", "D"]
    refused = create_failure_row(FailedPatient("A", "the same patient twice"))
    for pair in ([rows["A"], refused], [refused, rows["A"]]):
        write_table_rows(pair, path)
        assert (read_table_rows(path)["A"]["error"], read_table_rows(path)["A"]["lesion_volume_ml"]) == (
            "",
            "A",
        )


@pytest.mark.parametrize(
    ("examination", "expected", "cell"),
    [
        (Examination("20150302", 1, 2), {"date": "20150302", "number": 1, "of": 2}, "20150302 (1 of 2)"),
        (Examination("", 1, 1), {"date": None, "number": 1, "of": 1}, "undated (1 of 1)"),
        (None, None, ""),
    ],
)
def test_the_examination_read_is_recorded(
    make_prediction: Make, tmp_path: Path, examination: Examination | None, expected: object, cell: str
) -> None:
    prediction = make_prediction("volumes", patient_id="A")
    prediction = dataclasses.replace(
        prediction, study=dataclasses.replace(prediction.study, examination=examination)
    )
    document = prediction.to_dict()
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert document["input"]["examination"] == expected
    write_predictions_table([prediction, FailedPatient("B", "no brain")], tmp_path / "predictions.csv")
    assert read_table_rows(tmp_path / "predictions.csv")["A"].get("examination", "") == cell


def test_a_table_saved_by_a_spreadsheet_is_continued(make_prediction: Make, tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    write_predictions_table([make_prediction(patient_id="患者 A")], path)
    text = path.read_text(encoding="utf-8-sig").replace(",", ";").replace("\n", "\r\n")
    path.write_bytes(text.encode("gb18030"))
    write_predictions_table([make_prediction(patient_id="B")], path)
    assert (
        list(read_table_rows(path)) == ["患者 A", "B"]
        and read_table_rows(path)["患者 A"]["idh_probability"] == "0.3"
    )


@pytest.mark.parametrize(
    "content", ["id,age,sex\nA,49,F\n", "name;probability\nA;0.3\n", "not a table", "<html></html>"]
)
def test_a_table_from_another_program_is_refused_and_kept(
    make_prediction: Make, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text(content)
    with pytest.raises(GliomarkError, match="predictions.csv"):
        write_predictions_table([make_prediction()], path)
    assert path.read_text() == content


@pytest.mark.parametrize("patient", ["=1+1", "+cmd|' /C calc'!A0", "@SUM(A1)", "-Foo"])
def test_an_id_like_a_formula_is_written_as_text(make_prediction: Make, tmp_path: Path, patient: str) -> None:
    path = tmp_path / "predictions.csv"
    write_predictions_table([make_prediction(patient_id=patient)], path)
    write_predictions_table([make_prediction(patient_id=patient)], path)
    assert list(read_table_rows(path)) == [f"'{patient}"]


# ---- the range across the lesion slices ----------------------------------------------------------------


def replace_probabilities(prediction: Prediction, *probabilities: float) -> Prediction:
    """Return the prediction with these probabilities of the slices of each marker."""

    def replace_slices(marker: MarkerPrediction) -> MarkerPrediction:
        pairs = zip(marker.slices, probabilities, strict=False)
        return dataclasses.replace(
            marker, slices=tuple(dataclasses.replace(s, probability=p) for s, p in pairs)
        )

    return dataclasses.replace(prediction, markers=tuple(map(replace_slices, prediction.markers)))


@pytest.mark.parametrize(
    ("language", "expected_text"),
    [
        (
            "en",
            "Range across lesion slices 12 % to 52 % (bracket above the bar); not a confidence interval.",
        ),
        ("zh", "各病灶层面的概率范围 12 % 至 52 %（见条形图上方的括线）；并非置信区间。"),
    ],
)
def test_the_range_covers_all_slices(
    make_prediction: Make, tmp_path: Path, language: str, expected_text: str
) -> None:
    prediction = make_prediction()
    assert [score.probability for score in prediction.markers[0].slices if score.decides] == [0.3]
    assert prediction.markers[0].probability_range == pytest.approx((0.12, 0.52))
    html = write_page(prediction, tmp_path, language)
    document = json.loads((tmp_path / "P1" / "prediction.json").read_text("utf-8"))
    assert [marker["probability_range"] for marker in document["markers"]] == [[0.12, 0.52]] * 2
    assert extract_text(html).count(expected_text) == 2
    assert html.count('d="M12.0 6V1H52.0V6"') == 2


@pytest.mark.parametrize(
    ("probabilities", "extremes", "expected_text"),
    [
        ((0.004, 0.31, 0.998), [0.004, 0.998], "< 1 % to > 99 % (bracket"),
        ((0.3, 0.3), [0.3, 0.3], "Range across lesion slices 30 % on every slice."),
        ((0.62, float("nan"), 0.4), [0.4, 0.62], "40 % to 62 % (bracket"),
        ((0.3,), None, ""),
        ((), None, ""),
    ],
)
def test_extreme_and_missing_ranges(
    make_prediction: Make,
    tmp_path: Path,
    probabilities: tuple[float, ...],
    extremes: object,
    expected_text: str,
) -> None:
    """A single slice has no range and no text about it; equal probabilities have no bracket."""
    prediction = replace_probabilities(make_prediction(), *probabilities)
    document = prediction.to_dict()
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(document)))
    assert document["markers"][0]["probability_range"] == extremes
    html = write_page(prediction, tmp_path)
    assert expected_text in unescape(extract_text(html))
    assert ("Range across" in html) is (extremes is not None)
    assert ('class="range"' in html) is ("bracket" in expected_text)


# ---- contributions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "language, expected_texts",
    [
        ("en", ("image +1.25", "age −0.30", "baseline −0.40")),
        ("zh", ("影像 +1.25", "年龄 −0.30", "基线 −0.40")),
    ],
)
def test_contributions_are_in_the_report_and_the_document(
    make_prediction, tmp_path, language, expected_texts
) -> None:
    folder = write_prediction(make_prediction(), tmp_path, language=language)
    marker = json.loads((folder / "prediction.json").read_text("utf-8"))["markers"][0]
    assert marker["contributions"] == {"start": -0.4, "image": 1.25, "age": -0.301, "sex": None}
    write_page = (folder / "report.html").read_text("utf-8")
    assert all(text in write_page for text in expected_texts)
    assert "sex +" not in write_page and "性别 +" not in write_page, (
        "the report lists sex although the model does not use it"
    )


def test_a_chinese_page_has_known_sentences_in_chinese(make_prediction: Make, tmp_path: Path) -> None:
    warning = message("no-lesion")
    prediction = dataclasses.replace(make_prediction(), warnings=(warning, "a warning"))
    text = extract_text(write_page(prediction, tmp_path, "zh"))
    assert "未发现病灶，因此未预测标志物。" in text and warning not in text and "a warning" in text
    document = json.loads((tmp_path / "P1" / "prediction.json").read_text("utf-8"))
    assert document["warnings"][0] == warning, "the document is not translated"


@pytest.mark.parametrize("side", [16, 240, 700])
def test_noise_is_encoded_as_jpeg(side: int) -> None:
    """It needs more than one byte per pixel."""
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    content = encode_jpeg(Image.fromarray(noise))
    assert len(content) > noise[..., 0].size
    decoded = np.asarray(Image.open(io.BytesIO(content)), np.float64)
    assert np.corrcoef(decoded.ravel(), noise.ravel())[0, 1] > 0.9
