"""What ``gliomark predict`` prints: table, warnings, JSON and progress, and a segmentation given by the user."""

from __future__ import annotations

import csv
import json
import logging
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

import jsonschema
import nibabel as nib
import numpy as np
import pytest
from tests.pipeline.conftest import write_dicom, write_pictures, write_volumes

PATIENT = "患者 01"
LESION_ML = 33.5


@pytest.fixture
def predict(run_command: Callable, working_folder: Path, tiny_weights: Path) -> Callable:
    """Return predict(folder, *options), which runs the command with the small model."""

    def run_predict(folder: Path, *options: object):
        out = working_folder / "out"
        return run_command("predict", folder, "--out", out, "--model", tiny_weights, *options)

    return run_predict


def read_table_rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def read_document(out: Path) -> dict:
    return json.loads((out / "out" / PATIENT / "prediction.json").read_text("utf-8"))


# ---- table ------------------------------------------------------------------------------------------


def test_a_table_is_printed_for_one_patient(
    monkeypatch, predict, picture_folder, clinical_table, working_folder
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = predict(picture_folder, "--clinical", clinical_table)
    assert (result.status, result.stderr) == (0, "")
    document = read_document(working_folder)
    for word in ("Patient", "Lesion", "Marker", "Prediction", "Probability", "IDH", "Ki-67", PATIENT):
        assert word in result.stdout
    assert f"{document['lesion']['volume_ml']:.1f} ml" in result.stdout
    for marker in document["markers"]:
        assert marker["level"] in result.stdout
        assert f"{marker['positive']} {100 * marker['probability']:.0f} % (threshold 50 %)" in result.stdout
        for warning in marker["warnings"]:
            assert warning in result.stdout
    assert "Not a medical device" in result.stdout
    assert result.stdout.splitlines()[-1] == str(working_folder / "out" / PATIENT / "report.html")


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", ["Please note", "age or sex is unknown", "rule 'large'", "Ki-67", "reader’s finding"]),
        ("zh", ["警告", "年龄或性别未知", "标志物", "预测结果", "阅片者所见", "阈值 50 %"]),
    ],
)
def test_every_warning_is_printed(
    monkeypatch, predict, picture_folder, working_folder, language: str, words: list[str]
) -> None:
    from gliomark.messages import render_message, restore_messages

    monkeypatch.setenv("COLUMNS", "400")
    options = ("--fusion", "large", "--enhancing", "yes", "--language", language)
    result = predict(picture_folder, "--allow-missing-clinical", *options)
    document = read_document(working_folder)
    document = restore_messages(document, document["messages"])
    warnings = [*document["warnings"], *(w for one in document["markers"] for w in one["warnings"])]
    assert len(warnings) >= 3
    for warning in warnings:
        assert render_message(warning, language) in result.stdout
    text = result.stdout.lower()
    assert all(word.lower() in text for word in words if word != "rule 'large'"), result.stdout


def test_a_missing_lesion_is_printed(
    run_command, picture_folder, clinical_table, working_folder, lesion_free_weights
) -> None:
    options = ("--clinical", clinical_table, "--out", working_folder / "out", "--model", lesion_free_weights)
    result = run_command("predict", picture_folder, *options)
    assert (result.status, result.stderr) == (0, "")
    assert "No lesion was found" in result.stdout and "undetermined" in result.stdout
    assert " ml" not in result.stdout.partition("Please note")[0]


def test_quiet_prints_only_the_path_of_the_report(
    predict, picture_folder, clinical_table, working_folder
) -> None:
    result = predict(picture_folder, "--clinical", clinical_table, "--quiet")
    report = working_folder / "out" / PATIENT / "report.html"
    assert (result.status, result.stdout, result.stderr) == (0, f"{report}\n", "")


# ---- several patients, JSON -------------------------------------------------------------------------


@pytest.fixture
def patients(working_folder, picture_folder, volume_folder) -> Path:
    """Two patients, and one whose images are truncated."""
    folder = working_folder / "patients"
    shutil.copytree(picture_folder, folder / "甲 1")
    shutil.copytree(volume_folder, folder / "丙 3")
    shutil.copytree(picture_folder, folder / "乙 2")
    broken = sorted((folder / "乙 2" / "T1C").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:40])
    return folder


def test_json_contains_predictions_and_failures(predict, patients) -> None:
    result = predict(patients, "--allow-missing-clinical", "--json")
    assert result.status == 1
    output = json.loads(result.stdout)
    assert set(output) == {"predictions", "failures"}
    assert {one["patient_id"] for one in output["predictions"]} == {"甲 1", "丙 3"}
    schema = json.loads((resources.files("gliomark") / "reporting/prediction.schema.json").read_text("utf-8"))
    for document in output["predictions"]:
        jsonschema.validate(document, schema)
    (failure,) = output["failures"]
    assert failure["patient_id"] == "乙 2" and "truncated" in failure["error"]
    assert result.stderr == f"乙 2: {failure['error']}\n"


def test_json_equals_the_written_document(predict, picture_folder, working_folder) -> None:
    result = predict(picture_folder, "--allow-missing-clinical", "--json")
    (document,) = json.loads(result.stdout)["predictions"]
    written = read_document(working_folder)
    assert {**document, "created": ""} == {**written, "created": ""}
    assert (result.status, result.stderr) == (0, "")


def test_a_table_is_printed_for_several_patients(monkeypatch, predict, patients, working_folder) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = predict(patients, "--allow-missing-clinical")
    assert result.status == 1 and result.stderr.startswith("乙 2: ") and result.stderr.count("\n") == 1
    notes = result.stdout.partition("Please note")[2]
    for name in ("甲 1", "丙 3"):
        assert name in result.stdout and re.search(rf"{name}\s+Age or sex is unknown", notes)
        assert f"{working_folder / 'out' / name / 'report.html'}\n" in result.stdout


# ---- progress ---------------------------------------------------------------------------------------

STEPS = [
    "loading the model",
    "reading the images",
    "registering the sequences",
    "extracting the brain",
    "extracting the slices",
    "outlining the lesion",
    "predicting IDH",
    "predicting Ki-67",
    "writing the results",
]


@pytest.fixture
def reset_log() -> Iterator[None]:
    """Stop logging after the test."""
    yield
    logger = logging.getLogger("gliomark")
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)


def test_verbose_logs_every_step(
    reset_log, run_command, picture_folder, tiny_weights, working_folder
) -> None:
    options = ("--allow-missing-clinical", "--out", working_folder / "out", "--model", tiny_weights)
    result = run_command("--verbose", "predict", picture_folder, *options, "--json")
    assert result.status == 0 and json.loads(result.stdout)["failures"] == []
    lines = result.stderr.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d \S", line) for line in lines), lines
    texts = [line.partition(" ")[2] for line in lines]
    assert texts == ["reading the images", *STEPS]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("options", [[], ["--quiet"]])
def test_progress_is_shown_in_a_terminal(
    picture_folder, tiny_weights, working_folder, options: list[str]
) -> None:
    """Standard error is a terminal, standard output is not: one patient's steps, and the table without colours."""
    controller, terminal = pty.openpty()
    arguments = ["predict", picture_folder, "--out", working_folder / "out", "--model", tiny_weights]
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    process = subprocess.Popen(
        [sys.executable, "-m", "gliomark", *map(str, arguments), "--allow-missing-clinical", *options],
        stdout=subprocess.PIPE,
        stderr=terminal,
        env=environment | {"PYTHONUTF8": "1", "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(terminal)
    terminal_output = b"".join(iter(lambda: read_terminal(controller), b""))
    printed, _ = process.communicate()
    assert process.returncode == 0 and b"\x1b" not in printed
    if options:
        assert terminal_output == b""
    else:
        assert (
            b"extracting the brain" in terminal_output
            and b"predicting" in terminal_output
            and b" %" in terminal_output
        )


def read_terminal(controller: int) -> bytes:
    """Read what was shown; empty at the end, which Linux reports as an input error."""
    try:
        return os.read(controller, 1 << 16)
    except OSError:
        return b""


# ---- a segmentation given by the user ---------------------------------------------------------------


@pytest.fixture
def volumes_and_mask(working_folder, drawn_images) -> tuple[Path, Path]:
    """The patient as NIfTI volumes, and the true lesion as a file elsewhere."""
    folder = write_volumes(working_folder / "all" / PATIENT, drawn_images)
    mask = working_folder / "drawn.nii.gz"
    (folder / "某人 mask.nii.gz").rename(mask)
    return folder, mask


def test_a_given_segmentation_is_used(predict, volumes_and_mask, working_folder, drawn_images) -> None:
    folder, mask = volumes_and_mask
    result = predict(folder, "--allow-missing-clinical", "--mask", mask)
    assert (result.status, result.stderr) == (0, "")
    document = read_document(working_folder)
    assert document["lesion"]["volume_ml"] == pytest.approx(drawn_images["mask"].sum() * 0.0375, rel=0.03)
    assert any("drawn.nii.gz" in note for note in document["notes"])
    assert "reader" in document["lesion"]["rule"]
    assert all(marker["probability"] is not None for marker in document["markers"])
    written = nib.load(working_folder / "out" / PATIENT / "segmentation.nii.gz")
    native = nib.load(folder / "某人 T1C.nii.gz")
    assert written.shape == native.shape


def test_a_given_segmentation_replaces_that_of_the_network(predict, volumes_and_mask, working_folder) -> None:
    folder, mask = volumes_and_mask
    assert predict(folder, "--allow-missing-clinical").status == 0
    network_document = read_document(working_folder)
    image = nib.load(mask)
    half_mask = np.asarray(image.dataobj).copy()
    half_mask[half_mask.shape[0] * 3 // 5 :] = 0
    nib.save(nib.Nifti1Image(half_mask, image.affine), mask)
    assert predict(folder, "--allow-missing-clinical", "--mask", mask).status == 0
    assert read_document(working_folder)["lesion"]["volume_ml"] != network_document["lesion"]["volume_ml"]


def test_an_empty_segmentation_means_no_lesion(predict, volumes_and_mask, working_folder) -> None:
    folder, mask = volumes_and_mask
    image = nib.load(mask)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), mask)
    result = predict(folder, "--allow-missing-clinical", "--mask", mask)
    assert result.status == 0 and "undetermined" in result.stdout
    assert read_document(working_folder)["lesion"]["found"] is False


def write_shifted(mask: Path) -> None:
    image = nib.load(mask)
    affine = image.affine.copy()
    affine[:3, 3] += 1.1
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), mask)


def write_far_away(mask: Path) -> None:
    image = nib.load(mask)
    affine = image.affine.copy()
    affine[:3, 3] += 500
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), mask)


def write_text(mask: Path) -> None:
    mask.write_text("no image")


@pytest.mark.parametrize(
    ("damage_mask", "sentence"),
    [
        (Path.unlink, "does not exist: check the path"),
        (write_text, "drawn.nii.gz"),
        (write_shifted, "has the grid of none of the patient's series"),
        (write_far_away, "lies outside all series"),
    ],
)
def test_a_segmentation_on_another_grid_is_refused(
    predict, volumes_and_mask, working_folder, damage_mask: Callable[[Path], None], sentence: str
) -> None:
    folder, mask = volumes_and_mask
    damage_mask(mask)
    result = predict(folder, "--allow-missing-clinical", "--mask", mask)
    assert (result.status, result.stdout) == (1, "")
    assert sentence in result.stderr and result.stderr.count("\n") == 1
    assert not (working_folder / "out" / PATIENT).exists()


def test_a_file_that_is_no_segmentation_is_refused(predict, volumes_and_mask, clinical_table) -> None:
    result = predict(volumes_and_mask[0], "--allow-missing-clinical", "--mask", clinical_table)
    assert result.status == 1 and "is not a segmentation" in result.stderr and result.stderr.count("\n") == 1


def test_a_segmentation_for_several_patients_is_refused(predict, patients, volumes_and_mask) -> None:
    result = predict(patients, "--allow-missing-clinical", "--mask", volumes_and_mask[1])
    assert (result.status, result.stdout) == (1, "")
    assert "has 3 patients, but --mask is the segmentation of one" in result.stderr


def test_a_finding_for_several_patients_is_refused(predict, patients, working_folder) -> None:
    result = predict(patients, "--allow-missing-clinical", "--enhancing", "no")
    assert (result.status, result.stdout) == (1, "")
    assert "has 3 patients, but --enhancing is the finding of one" in result.stderr
    assert not (working_folder / "out").exists()


def test_a_patient_who_fails_loses_the_row_of_the_earlier_run(predict, patients, working_folder) -> None:
    predict(patients, "--allow-missing-clinical")  # one of them is damaged
    table = working_folder / "out" / "predictions.csv"
    assert sum(bool(row["idh_probability"]) for row in read_table_rows(table).values()) == 2
    clinical = working_folder / "others.csv"
    clinical.write_text("id,age,sex\nanother person,50,F\n", "utf-8")
    assert predict(patients, "--clinical", clinical).status == 1
    rows = read_table_rows(table)
    assert len(rows) == 3
    assert all(row["error"] and not row["idh_probability"] for row in rows.values())


def test_a_volume_as_segmentation_of_pictures_is_refused(predict, picture_folder, volumes_and_mask) -> None:
    """Pictures have no position in space, so a volume cannot be placed on them."""
    result = predict(picture_folder, "--allow-missing-clinical", "--mask", volumes_and_mask[1])
    assert result.status == 1 and "geometry" in result.stderr and result.stderr.count("\n") == 1


def test_masks_of_a_patient_in_pictures(predict, drawn_images, working_folder) -> None:
    """The pictures' own mask folder is placed on them; a folder of images is refused."""
    picture_folder = write_pictures(working_folder / "all" / PATIENT, drawn_images)
    shown = predict(picture_folder, "--allow-missing-clinical", "--mask", picture_folder / "mask")
    assert (shown.status, shown.stderr) == (0, "")
    document = read_document(working_folder)
    assert "reader" in document["lesion"]["rule"] and any(
        "given in mask" in note for note in document["notes"]
    )
    assert document["lesion"]["volume_ml"] == pytest.approx(drawn_images["mask"].sum() * 0.0375, rel=0.05)
    other = predict(picture_folder, "--allow-missing-clinical", "--mask", picture_folder / "T1C")
    assert other.status == 1 and "shows grey values" in other.stderr and other.stderr.count("\n") == 1


def test_what_a_prediction_of_pictures_writes_is_accepted_as_its_mask(
    predict, picture_folder, working_folder
) -> None:
    """PNG and NIfTI of the results give the same mask again, Dice 1.0, also copied to another folder."""
    assert predict(picture_folder, "--allow-missing-clinical").status == 0
    results = Path(shutil.copytree(working_folder / "out" / PATIENT, working_folder / "first"))
    for given in (results / "masks", results / "segmentation.nii.gz"):
        ended = predict(picture_folder, "--allow-missing-clinical", "--mask", given)
        assert (ended.status, ended.stderr) == (0, "")
        again = nib.load(working_folder / "out" / PATIENT / "segmentation.nii.gz")
        assert np.array_equal(again.dataobj, nib.load(results / "segmentation.nii.gz").dataobj)
        assert any(given.name in note for note in read_document(working_folder)["notes"])


def test_a_dicom_segmentation_of_the_patient_is_accepted(
    predict, working_folder, drawn_images, tiny_weights, run_command
) -> None:
    """The SEG that a prediction writes is accepted again; that of another patient is refused."""
    import pydicom

    images = {name: image for name, image in drawn_images.items() if name != "mask"}
    folder = write_dicom(working_folder / "dicom", images)
    assert predict(folder, "--allow-missing-clinical", "--dicom-out").status == 0
    before = read_document(working_folder)
    (written,) = (working_folder / "out" / PATIENT / "dicom").glob("*seg*")
    mask = Path(shutil.copy(written, working_folder / "mask.dcm"))
    assert predict(folder, "--allow-missing-clinical", "--mask", mask).status == 0
    after = read_document(working_folder)
    assert after["lesion"]["volume_ml"] == pytest.approx(before["lesion"]["volume_ml"], rel=0.05)
    assert any("mask.dcm" in note for note in after["notes"])
    dataset = pydicom.dcmread(mask)
    dataset.PatientID = "another"
    dataset.save_as(mask)
    result = predict(folder, "--allow-missing-clinical", "--mask", mask)
    assert result.status == 1 and "belongs to another patient" in result.stderr
