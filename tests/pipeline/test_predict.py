"""The whole pipeline with a tiny model, from the command line and from Python."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path

import jsonschema
import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from tests.pipeline.conftest import LESION_MM, drop_mask, write_dicom

from gliomark import batch, load_model, predict, read_clinical_table, read_study, write_prediction
from gliomark.errors import GliomarkError
from gliomark.evaluation.metrics import dice
from gliomark.io.masks import read_segmentation
from gliomark.isolation import run_in_this_process
from gliomark.models.weights import MarkerValidation, load_weights, save_weights
from gliomark.pipeline import predict_prepared

PATIENT = "患者 01"
LESION_ML = 33.5  # a ball of 20 mm


@pytest.fixture
def run(
    run_command: Callable, clinical_table: Path, working_folder: Path, tiny_weights: Path
) -> Callable[..., Path]:
    """Return run(folder, *options), which predicts successfully and returns the patient's result folder."""

    def predicted(
        folder: Path,
        *options: object,
        model: Path = tiny_weights,
        out: str = "结果 夹",
        clinical: bool = True,
    ) -> Path:
        with_table = ("--clinical", clinical_table) if clinical else ()
        outcome = run_command(
            "predict",
            folder,
            "--out",
            working_folder / out,
            "--model",
            model,
            "--quiet",
            *with_table,
            *options,
        )
        assert (outcome.status, outcome.stderr) == (0, "")
        assert outcome.stdout.strip() == str(working_folder / out / PATIENT / "report.html")
        return working_folder / out / PATIENT

    return predicted


def document_of(result: Path) -> dict:
    """Return prediction.json after validation against the shipped schema."""
    document = json.loads((result / "prediction.json").read_text("utf-8"))
    schema = json.loads((resources.files("gliomark") / "reporting/prediction.schema.json").read_text("utf-8"))
    jsonschema.validate(document, schema)
    return document


def marker_of(document: dict, name: str = "idh") -> dict:
    return next(marker for marker in document["markers"] if marker["marker"] == name)


def table_of(out: Path) -> list[dict[str, str]]:
    with (out / "predictions.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


# ---- the files --------------------------------------------------------------------------------------


def test_pictures(run, picture_folder, drawn_images) -> None:
    result = run(picture_folder)
    assert {path.name for path in result.iterdir()} == {"prediction.json", "report.html", "masks"}
    assert {path.name for path in result.parent.iterdir()} == {PATIENT, "predictions.csv"}

    document = document_of(result)
    assert (document["patient_id"], document["age"], document["sex"]) == (PATIENT, 50, 0)
    assert document["input"] == {"kind": "pictures", "spacing_assumed": True, "examination": None}
    pair = ["T1C", "FLAIR"]
    assert document["sequences"] == {"found": pair, "used": pair, "stand_ins": {}}
    assert document["lesion"]["found"] and 0.5 * LESION_ML < document["lesion"]["volume_ml"] < 1.6 * LESION_ML
    assert document["warnings"] == []
    assert any("assumed" in note for note in document["notes"])
    assert [marker["marker"] for marker in document["markers"]] == ["idh", "ki67"]
    for marker in document["markers"]:
        assert 0 < marker["probability"] < 1
        expected = {"idh": ("wild type", "mutant"), "ki67": ("low", "high")}[marker["marker"]]
        assert marker["level"] == expected[marker["probability"] >= 0.5]
        assert marker["label"] == f"what {marker['marker']} 标签 means"

    masks = sorted((result / "masks").iterdir())
    assert [file.name for file in masks] == [
        file.name for file in sorted((picture_folder / "FLAIR").iterdir())
    ]
    planes = np.stack([np.asarray(Image.open(file)) for file in masks])
    assert planes.shape == drawn_images["mask"].shape and set(np.unique(planes)) == {0, 255}
    assert dice(drawn_images["mask"] > 0, planes > 0) > 0.7


def test_volumes(run, volume_folder, drawn_images) -> None:
    result = run(volume_folder)
    assert {path.name for path in result.iterdir()} == {
        "prediction.json",
        "report.html",
        "segmentation.nii.gz",
    }
    assert document_of(result)["input"] == {
        "kind": "volumes",
        "spacing_assumed": False,
        "examination": None,
    }

    written, native = nib.load(result / "segmentation.nii.gz"), nib.load(volume_folder / "某人 T1C.nii.gz")
    assert written.shape == native.shape
    np.testing.assert_allclose(written.affine, native.affine, atol=1e-4)
    mask = np.asarray(written.dataobj)
    assert set(np.unique(mask)) == {0, 1}
    assert dice(in_drawing_order(written), drawn_images["mask"]) > 0.7


def in_drawing_order(image: nib.Nifti1Image) -> np.ndarray:
    """Return a volume as ``(slice, row, column)`` with axes to superior, posterior, left."""
    return np.asarray(nib.as_closest_canonical(image).dataobj)[::-1, ::-1].transpose(2, 1, 0) > 0


def test_left_stays_left(run, picture_folder, volume_folder) -> None:
    """The lesion is left and anterior: right and up in a picture, RAS x < 0 < y."""
    planes = [np.asarray(Image.open(file)) for file in (run(picture_folder, out="a") / "masks").iterdir()]
    row, column = np.argwhere(np.sum(planes, axis=0)).mean(axis=0)
    assert column > 96 / 2 + 5 and row < 96 / 2 - 3
    image = nib.load(run(volume_folder, out="b") / "segmentation.nii.gz")
    at = image.affine @ np.append(np.argwhere(np.asarray(image.dataobj)).mean(axis=0), 1)
    np.testing.assert_allclose(at[:3], (-32, 20, 12), atol=4)


def test_table_of_predictions(run, picture_folder) -> None:
    result = run(picture_folder, "--fusion", "all")
    (row,) = table_of(result.parent)
    document = document_of(result)
    assert (row["id"], row["error"], row["model"]) == (PATIENT, "", "tiny")
    assert row["sha256"] == document["model"]["sha256"]
    assert float(row["lesion_volume_ml"]) == document["lesion"]["volume_ml"]
    for marker in document["markers"]:
        name = marker["marker"]
        assert float(row[f"{name}_probability"]) == marker["probability"]
        assert row[f"{name}_level"] == marker["level"]
        assert (row[f"{name}_fusion"], row[f"{name}_decided_by"]) == ("all", "model")


def test_report_is_self_contained_and_says_the_answer(run, picture_folder) -> None:
    result = run(picture_folder)
    page = (result / "report.html").read_text("utf-8")
    assert PATIENT in page and "what idh 标签 means" in page and "data:image/" in page
    assert 'src="http' not in page and 'href="http' not in page and "<script src" not in page
    assert "mutant" in page or "wild type" in page


def test_report_in_chinese(run, picture_folder) -> None:
    assert '<html lang="zh' in (run(picture_folder, "--language", "zh") / "report.html").read_text("utf-8")


# ---- options ----------------------------------------------------------------------------------------


def test_dicom_in_and_dicom_out(run, working_folder, drawn_images) -> None:
    folder = write_dicom(working_folder / "检查", drop_mask(drawn_images))
    result = run(folder, "--dicom-out", "--pdf", "--language", "zh")
    assert (result / "report.pdf").read_bytes().startswith(b"%PDF")
    assert {file.name for file in (result / "dicom").iterdir()} == {
        "segmentation.dcm",
        "report.dcm",
        "report_pdf.dcm",
    }
    outline = read_segmentation(result / "dicom" / "segmentation.dcm").series
    at = np.argwhere(outline.image > 0).mean(axis=0)[::-1]
    written = nib.load(result / "segmentation.nii.gz")
    assert outline.image.sum() == np.asarray(written.dataobj).sum()
    assert dice(drawn_images["mask"] > 0, np.asarray(written.dataobj).transpose(2, 1, 0) > 0) > 0.8
    np.testing.assert_allclose((outline.affine @ [*at, 1])[:3], LESION_MM, atol=2)


def test_fusion_decides_which_slices_count(run, picture_folder) -> None:
    markers = {
        rule: marker_of(document_of(run(picture_folder, "--fusion", rule)))
        for rule in ("near", "all", "large")
    }
    slices = markers["all"]["slices"]
    names = [score["name"] for score in slices]
    largest = max(range(len(slices)), key=lambda place: slices[place]["lesion_area_mm2"])
    assert len(names) > 3 and 0 < largest < len(names) - 1
    assert markers["large"]["slices_used"] == [names[largest]]
    assert markers["near"]["slices_used"] == names[largest - 1 : largest + 2]
    assert markers["all"]["slices_used"] == names
    for rule, marker in markers.items():
        assert marker["fusion"] == rule
        decide = [score["probability"] for score in marker["slices"] if score["decides"]]
        assert len(decide) == len(marker["slices_used"])
        assert marker["probability"] == pytest.approx(np.mean(decide), abs=1e-5)
        every = [score["probability"] for score in marker["slices"]]
        assert marker["probability_range"] == [min(every), max(every)] and min(every) < max(every)
    assert len({marker["probability"] for marker in markers.values()}) > 1


@pytest.mark.parametrize("seen, level", [("yes", "wild type"), ("no", "mutant")])
def test_the_readers_finding_decides_idh(run, picture_folder, seen: str, level: str) -> None:
    result = run(picture_folder, "--enhancing", seen)
    document = document_of(result)
    idh, other = marker_of(document), marker_of(document, "ki67")
    assert (idh["level"], idh["decided_by"]) == (level, "reader's finding")
    assert 0 < idh["probability"] < 1
    assert other["decided_by"] == "model"
    (row,) = table_of(result.parent)
    assert (row["idh_level"], row["idh_decided_by"]) == (level, "reader's finding")


def test_age_and_sex_reach_the_answer(run, picture_folder, write_clinical_table) -> None:
    write_clinical_table([(PATIENT, "44.9", "女")])
    young = document_of(run(picture_folder))
    assert (young["age"], young["sex"]) == (44.9, 1)


@pytest.mark.parametrize("row", [(PATIENT, "", "0"), (PATIENT, "50", "NA"), None])
def test_without_clinical(run, picture_folder, write_clinical_table, row) -> None:
    if row:
        write_clinical_table([row])
    document = document_of(run(picture_folder, "--allow-missing-clinical", clinical=row is not None))
    assert [w for w in document["warnings"] if "unknown" in w and "Age or sex" in w]
    assert document["age"] is None or document["sex"] is None
    assert all(0 < marker["probability"] < 1 for marker in document["markers"])


# ---- no lesion, another sequence --------------------------------------------------------------------


def test_no_lesion_no_marker(run, picture_folder, lesion_free_weights) -> None:
    result = run(picture_folder, model=lesion_free_weights)
    document = document_of(result)
    assert document["lesion"] == {
        "found": False, "volume_ml": 0, "areas_mm2": {}, "rule": document["lesion"]["rule"],
    }  # fmt: skip
    for marker in document["markers"]:
        assert (marker["probability"], marker["level"]) == (None, "undetermined")
        assert marker["slices"] == marker["slices_used"] == [] and marker["probability_range"] is None
    assert document["warnings"] == ["No lesion was found; no marker is predicted."]
    assert "No lesion was found" in (result / "report.html").read_text("utf-8")
    masks = [np.asarray(Image.open(file)) for file in (result / "masks").iterdir()]
    assert len(masks) == 20 and not np.any(masks)


def test_t2_in_flairs_place(run, copied_pictures) -> None:
    (copied_pictures / "FLAIR").rename(copied_pictures / "T2")
    result = run(copied_pictures)
    document = document_of(result)
    assert document["sequences"]["found"] == ["T1C", "T2"]
    assert len(document["warnings"]) == 1
    assert "FLAIR is missing; T2 was used" in document["warnings"][0]
    assert document["sequences"]["used"] == ["T1C", "T2"]
    assert document["sequences"]["stand_ins"] == {"FLAIR": "T2"}
    assert document["lesion"]["found"] and document["lesion"]["rule"].endswith("(T1C, T2)")
    numbers = ("probability", "probability_range", "threshold", "contributions")
    for marker in document["markers"]:
        assert marker["level"] == "undetermined" and not any(marker[name] for name in numbers)
        assert marker["slices"] == marker["slices_used"] == [] and marker["performance"] == ""
        assert "T2 in place of FLAIR" in marker["warnings"][0]
    page = (result / "report.html").read_text("utf-8")
    assert "FLAIR is missing; T2 was used" in page and 'alt="FLAIR' not in page and ">FLAIR<" not in page
    (row,) = table_of(result.parent)
    assert "FLAIR is missing" in row["warnings"]
    assert (row["idh_probability"], row["idh_level"]) == ("", "undetermined")


def test_flair_is_preferred_to_its_stand_in(run, copied_pictures, picture_folder) -> None:
    """An additional T2 changes only the list of sequences found."""
    shutil.copytree(copied_pictures / "T1C", copied_pictures / "T2")
    with_t2, without = document_of(run(copied_pictures, out="a")), document_of(run(picture_folder, out="b"))
    assert with_t2["sequences"]["found"] == ["T1C", "T2", "FLAIR"]
    assert with_t2["warnings"] == [] and with_t2["markers"] == without["markers"]


# ---- the same answer every way ----------------------------------------------------------------------


def lasting(document: dict) -> dict:
    """Return the document without date and computing time."""
    return {key: value for key, value in document.items() if key not in ("created", "seconds")}


def test_twice_the_same(run, volume_folder) -> None:
    first, second = (document_of(run(volume_folder, out=name)) for name in ("一", "二"))
    assert lasting(first) == lasting(second)
    assert list(first) == list(second)


def test_python_and_command_line_agree(
    run, picture_folder, clinical_table, tiny_weights, working_folder
) -> None:
    study = read_study(picture_folder)
    prediction = predict(
        study, read_clinical_table(clinical_table).get_row(study.patient_id), load_model(tiny_weights)
    )
    written = write_prediction(prediction, working_folder / "python")
    by_command = run(picture_folder)
    assert lasting(document_of(written)) == lasting(document_of(by_command))
    for mask in (written / "masks").iterdir():
        assert mask.read_bytes() == (by_command / "masks" / mask.name).read_bytes()


@pytest.mark.parametrize("changed, words", [
    ({"patient_id": "P-8"}, "row belongs to patient P-8"), ({"age": -3.0}, "age -3.0 is invalid"),
    ({"age": 150.0}, "age 150.0 is invalid"), ({"sex": 2}, "sex 2 is invalid"),
])  # fmt: skip
def test_python_refuses_a_row_that_cannot_be_the_patients(
    picture_folder, clinical_table, tiny_weights, changed, words
) -> None:
    study = read_study(picture_folder)
    row = replace(read_clinical_table(clinical_table).get_row(study.patient_id), **changed)
    with pytest.raises(GliomarkError, match=words):
        predict(study, row, load_model(tiny_weights))


# ---- many patients ----------------------------------------------------------------------------------


@pytest.fixture
def three(
    working_folder: Path, picture_folder: Path, volume_folder: Path, write_clinical_table: Callable
) -> Path:
    """A patient with pictures, one with volumes, and between them by name one with a truncated file."""
    folder = working_folder / "很多 患者"
    shutil.copytree(picture_folder, folder / "甲 1")
    shutil.copytree(volume_folder, folder / "丙 3")
    shutil.copytree(picture_folder, folder / "乙 2")
    broken = sorted((folder / "乙 2" / "T1C").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:40])
    write_clinical_table([("甲 1", "50", "0"), ("乙 2", "50", "0"), ("丙 3", "50", "0")])
    return folder


def test_one_failure_does_not_stop_the_rest(run_command, three, tiny_weights, working_folder) -> None:
    out = working_folder / "out"
    outcome = run_command(
        "predict", three, "--clinical", working_folder / "临床 表.csv", "--out", out, "--model", tiny_weights
    )
    assert outcome.status == 1
    assert (
        outcome.stderr.startswith("乙 2: ")
        and outcome.stderr.count("\n") == 1
        and "truncated" in outcome.stderr
    )
    assert {path.name for path in out.iterdir()} == {"甲 1", "丙 3", "predictions.csv"}
    assert (out / "甲 1" / "masks").is_dir() and (out / "丙 3" / "segmentation.nii.gz").is_file()
    rows = {row["id"]: row for row in table_of(out)}
    assert set(rows) == {"甲 1", "乙 2", "丙 3"}
    assert "truncated" in rows["乙 2"]["error"] and rows["乙 2"]["idh_level"] == ""
    assert rows["甲 1"]["error"] == rows["丙 3"]["error"] == ""
    assert rows["甲 1"]["idh_level"] in ("mutant", "wild type")
    for name in ("甲 1", "丙 3"):
        assert f"{out / name / 'report.html'}" in outcome.stdout
        assert document_of(out / name)["patient_id"] == name


def test_two_folders_of_one_patient_do_not_overwrite_each_other(
    working_folder, picture_folder, write_clinical_table, tiny_weights
) -> None:
    """Several DICOM folders may have the same PatientID; simulated here with pictures."""
    folder = working_folder / "很多 患者"
    for name in ("甲", "乙"):
        shutil.copytree(picture_folder, folder / name)

    def read(subject, function, *given, **named):
        found = run_in_this_process(subject, function, *given, **named)
        return replace(found, patient_id="P-7") if function is read_study else found

    table, out = write_clinical_table([("P-7", "50", "0")]), working_folder / "out"
    request = batch.PredictionOptions(str(tiny_weights))
    (failure,) = batch.predict_folder(folder, table, out, request, lambda _: None, read)
    assert failure.message.code == "patient-twice" and "are both patient P-7" in failure.message
    assert {path.name for path in out.iterdir()} == {"P-7", "predictions.csv"}


def test_a_patient_nobody_foresaw_does_not_stop_the_rest(
    monkeypatch, run_command, three, tiny_weights, working_folder
):
    def break_down(prepared, *given, **named):
        if prepared.study.patient_id == "丙 3":
            raise ZeroDivisionError("division\nby zero")
        return predict_prepared(prepared, *given, **named)

    monkeypatch.setattr(batch, "predict_prepared", break_down)
    words = (
        "--clinical",
        working_folder / "临床 表.csv",
        "--out",
        working_folder / "out",
        "--model",
        tiny_weights,
    )
    outcome = run_command("predict", three, *words)
    assert outcome.status == 1 and len(outcome.stderr.splitlines()) == 2
    assert "ZeroDivisionError: division by zero" in outcome.stderr and "Traceback" not in outcome.stderr
    assert {path.name for path in (working_folder / "out").iterdir()} == {"甲 1", "predictions.csv"}


@pytest.mark.parametrize(
    ("validation", "why"),
    [
        (None, "not been validated"),
        (
            MarkerValidation(0.72, 0.5, 0.9, 10, 6, "ten patients"),
            "Not shown to be better than chance in validation (AUC 0.72",
        ),
        (MarkerValidation(0.3, 0.2, 0.45, 81, 42, "TCGA-LGG"), "Not shown to be better than chance"),
        (MarkerValidation(1.0, 0.4, 1.0, 8, 4, "eight"), "8 patients, 4 positive"),
    ],
)
def test_a_marker_no_better_than_chance_names_no_level_and_no_probability(
    run, picture_folder, working_folder, tiny_weights, validation, why
) -> None:
    """The other marker is as before; a reader's finding still decides."""
    weights = load_weights(tiny_weights)
    card = weights.card
    blind = {**card.markers, "idh": replace(card.markers["idh"], validation=validation)}
    save_weights(working_folder / "blind.safetensors", replace(card, markers=blind), weights.tensors)
    before = document_of(run(picture_folder))
    after = document_of(run(picture_folder, model=working_folder / "blind.safetensors", out="blind"))
    idh = marker_of(after)
    assert idh["level"] == "undetermined" != marker_of(before)["level"]
    assert idh["probability"] is None and idh["slices"] == [] and idh["contributions"] is None
    assert len(idh["warnings"]) == 1 and why in idh["warnings"][0]
    assert why in (working_folder / "blind" / PATIENT / "report.html").read_text("utf-8")
    assert marker_of(after, "ki67") == marker_of(before, "ki67")
    found = document_of(
        run(picture_folder, "--enhancing", "yes", model=working_folder / "blind.safetensors", out="finding")
    )
    assert (marker_of(found)["level"], marker_of(found)["decided_by"]) == ("wild type", "reader's finding")
