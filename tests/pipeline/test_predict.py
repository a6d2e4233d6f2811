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
from scipy.spatial import cKDTree
from tests.pipeline.conftest import LESION_MM, drop_mask, write_dicom

from gliomark import batch, load_model, predict, read_clinical_table, read_study, write_prediction
from gliomark.batch import patient
from gliomark.errors import GliomarkError
from gliomark.evaluation.metrics import dice
from gliomark.io.masks import read_segmentation, read_structure_set
from gliomark.isolation import run_in_this_process
from gliomark.models.weights import MarkerValidation, load_weights, save_weights
from gliomark.pipeline import predict_prepared
from gliomark.study import MRSequence

PATIENT = "患者 01"
LESION_ML = 33.5  # a ball of 20 mm


@pytest.fixture
def predict_patient(
    run_command: Callable, clinical_table: Path, working_folder: Path, tiny_weights: Path
) -> Callable[..., Path]:
    """Return predict_patient(folder, *options), which predicts successfully and returns the patient's result folder."""

    def run_predict(
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

    return run_predict


def read_document(result: Path) -> dict:
    """Return prediction.json after validation against the shipped schema."""
    document = json.loads((result / "prediction.json").read_text("utf-8"))
    schema = json.loads((resources.files("gliomark") / "reporting/prediction.schema.json").read_text("utf-8"))
    jsonschema.validate(document, schema)
    return document


def find_marker(document: dict, name: str = "idh") -> dict:
    return next(marker for marker in document["markers"] if marker["marker"] == name)


def list_names(result: Path) -> set[str]:
    """List the files that a user sees."""
    return {path.name for path in result.iterdir() if not path.name.startswith(".")}


def read_table(out: Path) -> list[dict[str, str]]:
    with (out / "predictions.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


# ---- the files --------------------------------------------------------------------------------------


def test_pictures_are_predicted(predict_patient, picture_folder, drawn_images) -> None:
    result = predict_patient(picture_folder)
    assert list_names(result) == {
        "prediction.json",
        "report.html",
        "masks",
        "segmentation.nii.gz",
        "statistics.json",
    }
    assert {path.name for path in result.parent.iterdir()} == {PATIENT, "predictions.csv"}

    document = read_document(result)
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


def test_volumes_are_predicted(predict_patient, volume_folder, drawn_images) -> None:
    result = predict_patient(volume_folder)
    assert list_names(result) == {"prediction.json", "report.html", "segmentation.nii.gz", "statistics.json"}
    assert read_document(result)["input"] == {
        "kind": "volumes",
        "spacing_assumed": False,
        "examination": None,
    }

    written, native = nib.load(result / "segmentation.nii.gz"), nib.load(volume_folder / "某人 T1C.nii.gz")
    assert written.shape == native.shape
    np.testing.assert_allclose(written.affine, native.affine, atol=1e-4)
    mask = np.asarray(written.dataobj)
    assert set(np.unique(mask)) == {0, 1}
    assert dice(reorient_to_drawing(written), drawn_images["mask"]) > 0.7


def reorient_to_drawing(image: nib.Nifti1Image) -> np.ndarray:
    """Return a volume as ``(slice, row, column)`` with axes to superior, posterior, left."""
    return np.asarray(nib.as_closest_canonical(image).dataobj)[::-1, ::-1].transpose(2, 1, 0) > 0


def test_left_and_right_are_kept(predict_patient, picture_folder, volume_folder) -> None:
    """The lesion is left and anterior: right and up in a picture, RAS x < 0 < y."""
    planes = [
        np.asarray(Image.open(file))
        for file in (predict_patient(picture_folder, out="a") / "masks").iterdir()
    ]
    row, column = np.argwhere(np.sum(planes, axis=0)).mean(axis=0)
    assert column > 96 / 2 + 5 and row < 96 / 2 - 3
    image = nib.load(predict_patient(volume_folder, out="b") / "segmentation.nii.gz")
    centre = image.affine @ np.append(np.argwhere(np.asarray(image.dataobj)).mean(axis=0), 1)
    np.testing.assert_allclose(centre[:3], (-32, 20, 12), atol=4)


def test_the_table_of_predictions_equals_the_document(predict_patient, picture_folder) -> None:
    result = predict_patient(picture_folder, "--fusion", "all")
    (row,) = read_table(result.parent)
    document = read_document(result)
    assert (row["id"], row["error"], row["model"]) == (PATIENT, "", "tiny")
    assert row["sha256"] == document["model"]["sha256"]
    assert float(row["lesion_volume_ml"]) == document["lesion"]["volume_ml"]
    for marker in document["markers"]:
        name = marker["marker"]
        assert float(row[f"{name}_probability"]) == marker["probability"]
        assert row[f"{name}_level"] == marker["level"]
        assert (row[f"{name}_fusion"], row[f"{name}_decided_by"]) == ("all", "model")


def test_the_report_is_self_contained_and_states_the_result(predict_patient, picture_folder) -> None:
    result = predict_patient(picture_folder)
    page = (result / "report.html").read_text("utf-8")
    assert PATIENT in page and "what idh 标签 means" in page and "data:image/" in page
    assert 'src="http' not in page and 'href="http' not in page and "<script src" not in page
    assert "mutant" in page or "wild type" in page


def test_a_report_can_be_in_chinese(predict_patient, picture_folder) -> None:
    assert '<html lang="zh' in (
        predict_patient(picture_folder, "--language", "zh") / "report.html"
    ).read_text("utf-8")


# ---- options ----------------------------------------------------------------------------------------


def test_dicom_results_are_written_for_dicom_images(predict_patient, working_folder, drawn_images) -> None:
    folder = write_dicom(working_folder / "检查", drop_mask(drawn_images))
    result = predict_patient(folder, "--dicom-out", "--rtstruct", "--pdf", "--language", "zh")
    assert (result / "report.pdf").read_bytes().startswith(b"%PDF")
    assert {file.name for file in (result / "dicom").iterdir()} == {
        "segmentation.dcm",
        "report.dcm",
        "report_pdf.dcm",
        "structure_set.dcm",
    }
    outline = read_segmentation(result / "dicom" / "segmentation.dcm").series
    t1c = read_study(folder).series[MRSequence.T1C]
    contours = read_structure_set(result / "dicom" / "structure_set.dcm", t1c).series.image > 0
    points, expected = (
        np.argwhere(image > 0)[:, ::-1] @ affine[:3, :3].T + affine[:3, 3]
        for image, affine in ((contours, t1c.affine), (outline.image, outline.affine))
    )
    assert len(points) == len(expected) and cKDTree(points).query(expected)[0].max() < 0.01
    centre = np.argwhere(outline.image > 0).mean(axis=0)[::-1]
    written = nib.load(result / "segmentation.nii.gz")
    assert outline.image.sum() == np.asarray(written.dataobj).sum()
    assert dice(drawn_images["mask"] > 0, np.asarray(written.dataobj).transpose(2, 1, 0) > 0) > 0.8
    np.testing.assert_allclose((outline.affine @ [*centre, 1])[:3], LESION_MM, atol=2)


def test_the_fusion_rule_selects_the_slices_used(predict_patient, picture_folder) -> None:
    markers = {
        rule: find_marker(read_document(predict_patient(picture_folder, "--fusion", rule)))
        for rule in ("near", "all", "large")
    }
    slices = markers["all"]["slices"]
    names = [score["name"] for score in slices]
    largest = max(range(len(slices)), key=lambda index: slices[index]["lesion_area_mm2"])
    assert len(names) > 3 and 0 < largest < len(names) - 1
    assert markers["large"]["slices_used"] == [names[largest]]
    assert markers["near"]["slices_used"] == names[largest - 1 : largest + 2]
    assert markers["all"]["slices_used"] == names
    for rule, marker in markers.items():
        assert marker["fusion"] == rule
        deciding = [score["probability"] for score in marker["slices"] if score["decides"]]
        assert len(deciding) == len(marker["slices_used"])
        assert marker["probability"] == pytest.approx(np.mean(deciding), abs=1e-5)
        all_probabilities = [score["probability"] for score in marker["slices"]]
        assert marker["probability_range"] == [min(all_probabilities), max(all_probabilities)] and min(
            all_probabilities
        ) < max(all_probabilities)
    assert len({marker["probability"] for marker in markers.values()}) > 1


@pytest.mark.parametrize("seen, level", [("yes", "wild type"), ("no", "mutant")])
def test_the_readers_finding_decides_idh(predict_patient, picture_folder, seen: str, level: str) -> None:
    result = predict_patient(picture_folder, "--enhancing", seen)
    document = read_document(result)
    idh, other = find_marker(document), find_marker(document, "ki67")
    assert (idh["level"], idh["decided_by"]) == (level, "reader's finding")
    assert 0 < idh["probability"] < 1
    assert other["decided_by"] == "model"
    (row,) = read_table(result.parent)
    assert (row["idh_level"], row["idh_decided_by"]) == (level, "reader's finding")


def test_age_and_sex_are_read_from_the_table(predict_patient, picture_folder, write_clinical_table) -> None:
    write_clinical_table([(PATIENT, "44.9", "女")])
    young = read_document(predict_patient(picture_folder))
    assert (young["age"], young["sex"]) == (44.9, 1)


@pytest.mark.parametrize("row", [(PATIENT, "", "0"), (PATIENT, "50", "NA"), None])
def test_clinical_data_may_be_missing_if_allowed(
    predict_patient, picture_folder, write_clinical_table, row
) -> None:
    if row:
        write_clinical_table([row])
    document = read_document(
        predict_patient(picture_folder, "--allow-missing-clinical", clinical=row is not None)
    )
    assert [w for w in document["warnings"] if "unknown" in w and "Age or sex" in w]
    assert document["age"] is None or document["sex"] is None
    assert all(0 < marker["probability"] < 1 for marker in document["markers"])


# ---- no lesion, another sequence --------------------------------------------------------------------


def test_no_marker_is_predicted_without_a_lesion(
    predict_patient, picture_folder, lesion_free_weights
) -> None:
    result = predict_patient(picture_folder, model=lesion_free_weights)
    document = read_document(result)
    assert document["lesion"] == {
        "found": False, "volume_ml": 0, "areas_mm2": {}, "diameters": None, "rule": document["lesion"]["rule"],
    }  # fmt: skip
    for marker in document["markers"]:
        assert (marker["probability"], marker["level"]) == (None, "undetermined")
        assert marker["slices"] == marker["slices_used"] == [] and marker["probability_range"] is None
    assert document["warnings"] == ["No lesion was found; no marker is predicted."]
    assert "No lesion was found" in (result / "report.html").read_text("utf-8")
    masks = [np.asarray(Image.open(file)) for file in (result / "masks").iterdir()]
    assert len(masks) == 20 and not np.any(masks)


def test_without_a_lesion_a_note_states_why_there_is_no_structure_set(
    predict_patient, working_folder, drawn_images, lesion_free_weights
) -> None:
    folder = write_dicom(working_folder / "in", drop_mask(drawn_images))
    result = predict_patient(folder, "--rtstruct", model=lesion_free_weights)
    assert not (result / "dicom").exists()
    sentences = [note for note in read_document(result)["notes"] if "structure set" in note]
    assert sentences == [
        "No structure set (RTSTRUCT) was written, because no lesion was outlined on the images to which it would refer."
    ]
    assert sentences[0] in (result / "report.html").read_text("utf-8")


def test_t2_is_used_if_flair_is_missing(predict_patient, copied_pictures) -> None:
    (copied_pictures / "FLAIR").rename(copied_pictures / "T2")
    result = predict_patient(copied_pictures)
    document = read_document(result)
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
    (row,) = read_table(result.parent)
    assert "FLAIR is missing" in row["warnings"]
    assert (row["idh_probability"], row["idh_level"]) == ("", "undetermined")


def test_flair_is_preferred_to_t2(predict_patient, copied_pictures, picture_folder) -> None:
    """An additional T2 changes only the list of sequences found."""
    shutil.copytree(copied_pictures / "T1C", copied_pictures / "T2")
    with_t2, without_t2 = (
        read_document(predict_patient(copied_pictures, out="a")),
        read_document(predict_patient(picture_folder, out="b")),
    )
    assert with_t2["sequences"]["found"] == ["T1C", "T2", "FLAIR"]
    assert with_t2["warnings"] == [] and with_t2["markers"] == without_t2["markers"]


# ---- reproducibility -----------------------------------------------------------------------


def remove_times(document: dict) -> dict:
    """Return the document without date and computing time."""
    return {key: value for key, value in document.items() if key not in ("created", "seconds")}


def test_repeated_predictions_are_identical(predict_patient, volume_folder) -> None:
    first, second = (read_document(predict_patient(volume_folder, out=name)) for name in ("一", "二"))
    assert remove_times(first) == remove_times(second)
    assert list(first) == list(second)


def test_python_and_command_line_agree(
    predict_patient, picture_folder, clinical_table, tiny_weights, working_folder
) -> None:
    study = read_study(picture_folder)
    prediction = predict(
        study, read_clinical_table(clinical_table).get_row(study.patient_id), load_model(tiny_weights)
    )
    written = write_prediction(prediction, working_folder / "python")
    by_command = predict_patient(picture_folder)
    assert remove_times(read_document(written)) == remove_times(read_document(by_command))
    for mask in (written / "masks").iterdir():
        assert mask.read_bytes() == (by_command / "masks" / mask.name).read_bytes()


@pytest.mark.parametrize("changed, error_text", [
    ({"patient_id": "P-8"}, "row belongs to patient P-8"), ({"age": -3.0}, "age -3.0 is invalid"),
    ({"age": 150.0}, "age 150.0 is invalid"), ({"sex": 2}, "sex 2 is invalid"),
])  # fmt: skip
def test_an_impossible_row_is_refused_in_python(
    picture_folder, clinical_table, tiny_weights, changed, error_text
) -> None:
    study = read_study(picture_folder)
    row = replace(read_clinical_table(clinical_table).get_row(study.patient_id), **changed)
    with pytest.raises(GliomarkError, match=error_text):
        predict(study, row, load_model(tiny_weights))


# ---- many patients ----------------------------------------------------------------------------------


@pytest.fixture
def three_patients(
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


def test_a_failure_does_not_stop_the_other_patients(
    run_command, three_patients, tiny_weights, working_folder
) -> None:
    out = working_folder / "out"
    outcome = run_command(
        "predict",
        three_patients,
        "--clinical",
        working_folder / "临床 表.csv",
        "--out",
        out,
        "--model",
        tiny_weights,
    )
    assert outcome.status == 1
    assert (
        outcome.stderr.startswith("乙 2: ")
        and outcome.stderr.count("\n") == 1
        and "truncated" in outcome.stderr
    )
    assert {path.name for path in out.iterdir()} == {"甲 1", "丙 3", "predictions.csv"}
    assert (out / "甲 1" / "masks").is_dir() and (out / "丙 3" / "segmentation.nii.gz").is_file()
    rows = {row["id"]: row for row in read_table(out)}
    assert set(rows) == {"甲 1", "乙 2", "丙 3"}
    assert "truncated" in rows["乙 2"]["error"] and rows["乙 2"]["idh_level"] == ""
    assert rows["甲 1"]["error"] == rows["丙 3"]["error"] == ""
    assert rows["甲 1"]["idh_level"] in ("mutant", "wild type")
    for name in ("甲 1", "丙 3"):
        assert f"{out / name / 'report.html'}" in outcome.stdout
        assert read_document(out / name)["patient_id"] == name


def test_two_folders_of_one_patient_do_not_overwrite_each_other(
    working_folder, picture_folder, write_clinical_table, tiny_weights
) -> None:
    """Several DICOM folders may have the same PatientID; simulated here with pictures."""
    folder = working_folder / "很多 患者"
    for name in ("甲", "乙"):
        shutil.copytree(picture_folder, folder / name)

    def read_with_same_id(subject, function, *arguments, **options):
        found = run_in_this_process(subject, function, *arguments, **options)
        return replace(found, patient_id="P-7") if function is read_study else found

    table, out = write_clinical_table([("P-7", "50", "0")]), working_folder / "out"
    request = batch.PredictionOptions(str(tiny_weights))
    (failure,) = batch.predict_folder(folder, table, out, request, reader_pool=read_with_same_id).failures
    assert failure.message.code == "patient-twice" and "are both patient P-7" in failure.message
    assert {path.name for path in out.iterdir()} == {"P-7", "predictions.csv"}


def test_an_unexpected_error_does_not_stop_the_other_patients(
    monkeypatch, run_command, three_patients, tiny_weights, working_folder
):
    def fail_for_one_patient(prepared, *arguments, **options):
        if prepared.study.patient_id == "丙 3":
            raise ZeroDivisionError("division\nby zero")
        return predict_prepared(prepared, *arguments, **options)

    monkeypatch.setattr(patient, "predict_prepared", fail_for_one_patient)
    options = (
        "--clinical",
        working_folder / "临床 表.csv",
        "--out",
        working_folder / "out",
        "--model",
        tiny_weights,
    )
    outcome = run_command("predict", three_patients, *options)
    assert outcome.status == 1 and len(outcome.stderr.splitlines()) == 2
    assert "ZeroDivisionError: division by zero" in outcome.stderr and "Traceback" not in outcome.stderr
    assert {path.name for path in (working_folder / "out").iterdir()} == {"甲 1", "predictions.csv"}


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("validation", "reason"),
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
def test_a_marker_no_better_than_chance_has_no_level_and_no_probability(
    predict_patient, picture_folder, working_folder, tiny_weights, validation, reason
) -> None:
    """The other marker is as before; a reader's finding still decides."""
    weights = load_weights(tiny_weights)
    card = weights.card
    unvalidated = {**card.markers, "idh": replace(card.markers["idh"], validation=validation)}
    save_weights(working_folder / "blind.safetensors", replace(card, markers=unvalidated), weights.tensors)
    before = read_document(predict_patient(picture_folder))
    after = read_document(
        predict_patient(picture_folder, model=working_folder / "blind.safetensors", out="blind")
    )
    idh = find_marker(after)
    assert idh["level"] == "undetermined" != find_marker(before)["level"]
    assert idh["probability"] is None and idh["slices"] == [] and idh["contributions"] is None
    assert len(idh["warnings"]) == 1 and reason in idh["warnings"][0]
    assert reason in (working_folder / "blind" / PATIENT / "report.html").read_text("utf-8")
    assert find_marker(after, "ki67") == find_marker(before, "ki67")
    found = read_document(
        predict_patient(
            picture_folder, "--enhancing", "yes", model=working_folder / "blind.safetensors", out="finding"
        )
    )
    assert (find_marker(found)["level"], find_marker(found)["decided_by"]) == (
        "wild type",
        "reader's finding",
    )
