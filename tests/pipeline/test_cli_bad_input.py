"""Invalid input through the command line: one sentence, an exit status, and no partial output."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from gliomark.batch import patient

PATIENT = "患者 01"


@pytest.fixture
def predict_refused(run_command: Callable, working_folder: Path, tiny_weights: Path) -> Callable[..., str]:
    """Return predict_refused(folder, table, *options), which checks the refusal and returns its error line."""

    def run(folder: Path, table: Path | None, *options: object, model: Path = tiny_weights) -> str:
        out = working_folder / "结果 夹"
        with_table = () if table is None else ("--clinical", table)
        outcome = run_command("predict", folder, "--out", out, "--model", model, *with_table, *options)
        return check_refusal(outcome.status, outcome.stdout, outcome.stderr, out)

    return run


def check_refusal(status: int, stdout: str, stderr: str, out: Path) -> str:
    """Check for status 1, one sentence on standard error, and at most the table with the failure in ``out``."""
    assert status == 1
    assert stdout == ""
    assert "Traceback" not in stderr
    assert stderr.endswith((".\n", "?\n")) and stderr.count("\n") == 1, stderr
    remaining = {str(path.relative_to(out)) for path in out.rglob("*")} if out.is_dir() else set()
    assert remaining <= {"predictions.csv"}
    if remaining:
        written = (out / "predictions.csv").read_text("utf-8-sig")
        assert written.startswith("id,") and len(written.splitlines()) == 2
    return stderr.strip()


def list_pictures(folder: Path, sequence: str) -> list[Path]:
    return sorted((folder / sequence).iterdir())


# ---- the folder -------------------------------------------------------------------------------------


def test_an_empty_folder_is_refused(predict_refused, working_folder, clinical_table) -> None:
    (working_folder / "空 夹").mkdir()
    assert "空 夹 is empty" in predict_refused(working_folder / "空 夹", clinical_table)
    assert "does not exist" in predict_refused(working_folder / "nowhere", clinical_table)
    assert "is a file" in predict_refused(clinical_table, clinical_table)


def test_a_missing_sequence_of_pictures_is_refused(predict_refused, copied_pictures, clinical_table) -> None:
    shutil.rmtree(copied_pictures / "FLAIR")
    error_text = predict_refused(copied_pictures, clinical_table)
    assert "FLAIR is missing" in error_text and "found: T1C" in error_text and PATIENT in error_text


def test_dicom_results_of_pictures_are_refused(
    monkeypatch, predict_refused, copied_pictures, clinical_table
) -> None:
    def fail_if_called(*_: object, **__: object) -> None:
        raise AssertionError("the prediction was computed before the refusal")

    monkeypatch.setattr(patient, "prepare_study", fail_if_called)
    error_text = predict_refused(copied_pictures, clinical_table, "--dicom-out")
    assert PATIENT in error_text and "are not DICOM" in error_text


def test_a_missing_sequence_of_volumes_is_refused(predict_refused, copied_volumes, clinical_table) -> None:
    (copied_volumes / "某人 T1C.nii.gz").unlink()
    error_text = predict_refused(copied_volumes, clinical_table)
    assert "T1C is missing" in error_text and "found: FLAIR" in error_text


def test_slice_names_that_do_not_match_are_refused(predict_refused, copied_pictures, clinical_table) -> None:
    file = list_pictures(copied_pictures, "FLAIR")[3]
    file.rename(file.with_name("另 一.png"))
    error_text = predict_refused(copied_pictures, clinical_table)
    assert "do not match" in error_text and file.stem in error_text and "另 一" in error_text


def test_pictures_of_different_sizes_are_refused(predict_refused, copied_pictures, clinical_table) -> None:
    file = list_pictures(copied_pictures, "T1C")[5]
    Image.open(file).resize((80, 96)).save(file)
    error_text = predict_refused(copied_pictures, clinical_table)
    assert "80 x 96" in error_text and "96 x 96" in error_text and file.name in error_text


def test_sequences_of_different_sizes_are_refused(predict_refused, copied_pictures, clinical_table) -> None:
    for file in list_pictures(copied_pictures, "T1C"):
        Image.open(file).resize((80, 80)).save(file)
    error_text = predict_refused(copied_pictures, clinical_table)
    assert "80 x 80" in error_text and "96 x 96" in error_text


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.97])
def test_a_truncated_jpeg_is_refused(
    predict_refused, copied_pictures, clinical_table, fraction: float
) -> None:
    for file in list_pictures(copied_pictures, "T1C"):
        Image.open(file).save(file.with_suffix(".jpg"), quality=95)
        file.unlink()
    truncated = list_pictures(copied_pictures, "T1C")[7]
    truncated.write_bytes(truncated.read_bytes()[: int(fraction * truncated.stat().st_size)])
    error_text = predict_refused(copied_pictures, clinical_table)
    assert "truncated" in error_text and truncated.name in error_text


def test_colour_pictures_are_refused(predict_refused, copied_pictures, clinical_table) -> None:
    for file in list_pictures(copied_pictures, "FLAIR"):
        grey = np.asarray(Image.open(file))
        Image.fromarray(np.stack([grey, grey // 2, grey // 3], axis=-1)).save(file)
    assert "colour picture" in predict_refused(copied_pictures, clinical_table)


def test_black_pictures_are_refused(predict_refused, copied_pictures, clinical_table) -> None:
    for file in list_pictures(copied_pictures, "FLAIR"):
        Image.new("L", (96, 96)).save(file)
    error_text = predict_refused(copied_pictures, clinical_table)
    assert "black" in error_text and "FLAIR" in error_text


def test_a_black_volume_is_refused(predict_refused, copied_volumes, clinical_table) -> None:
    change_volume(copied_volumes / "某人 FLAIR.nii.gz", lambda image: image * 0)
    error_text = predict_refused(copied_volumes, clinical_table)
    assert "same grey value everywhere" in error_text and "某人 FLAIR.nii.gz" in error_text


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_within_the_brain_is_refused(
    predict_refused, copied_volumes, clinical_table, value: float
) -> None:
    def set_centre(image: np.ndarray) -> np.ndarray:
        image[tuple(extent // 2 for extent in image.shape)] = value
        return image

    change_volume(copied_volumes / "某人 FLAIR.nii.gz", set_centre)
    error_text = predict_refused(copied_volumes, clinical_table)
    assert "within the brain, in slice" in error_text and "某人 FLAIR.nii.gz" in error_text


def change_volume(file: Path, function: Callable[[np.ndarray], np.ndarray]) -> None:
    image = nib.load(file)
    changed = function(np.array(image.dataobj, dtype=np.float32))
    nib.save(nib.Nifti1Image(changed, image.affine), file)


def test_a_truncated_nifti_file_is_refused(predict_refused, copied_volumes, clinical_table) -> None:
    file = copied_volumes / "某人 T1C.nii.gz"
    file.write_bytes(file.read_bytes()[:2000])
    assert "damaged" in predict_refused(copied_volumes, clinical_table)


def test_images_without_a_brain_are_refused(predict_refused, copied_volumes, clinical_table) -> None:
    for file in copied_volumes.iterdir():
        change_volume(
            file, lambda image: np.where(np.arange(image.size).reshape(image.shape) == 5000, 9, image * 0)
        )
    assert "No slice shows enough brain" in predict_refused(copied_volumes, clinical_table)


def test_too_few_slices_are_refused(predict_refused, copied_volumes, clinical_table) -> None:
    """Registration refuses them with another message, which is also one sentence."""
    for file in copied_volumes.iterdir():
        volume = nib.as_closest_canonical(nib.load(file)).slicer[:, :, 9:11]
        nib.save(volume, file)
    assert PATIENT in predict_refused(copied_volumes, clinical_table)


# ---- two patients -----------------------------------------------------------------------------------


def test_volumes_of_two_patients_are_refused(predict_refused, copied_volumes, clinical_table) -> None:
    shutil.copy(copied_volumes / "某人 T1C.nii.gz", copied_volumes / "别人 T1C.nii.gz")
    error_text = predict_refused(copied_volumes, clinical_table)
    assert (
        "别人 T1C.nii.gz" in error_text and "某人 T1C.nii.gz" in error_text and "two patients" in error_text
    )


def test_pictures_of_two_patients_are_refused(predict_refused, copied_pictures, clinical_table) -> None:
    shutil.copytree(copied_pictures / "T1C", copied_pictures / "t1ce 别人")
    error_text = predict_refused(copied_pictures, clinical_table)
    assert "t1ce 别人" in error_text and "two patients" in error_text


def test_dicom_files_of_two_patients_are_refused(predict_refused, working_folder, clinical_table) -> None:
    folder = working_folder / PATIENT
    folder.mkdir()
    for number in range(8):
        write_dicom(folder / f"图 {number}.dcm", number, owner=f"P-{number // 4}")
    error_text = predict_refused(folder, clinical_table)
    assert "two patients" in error_text and "different patient ids" in error_text


def write_dicom(file: Path, number: int, owner: str) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MRImageStorage, generate_uid()
    image = FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    image.Modality, image.PatientID, image.SeriesInstanceUID = "MR", owner, "1.2.3"
    image.SeriesDescription, image.Rows, image.Columns = "t1 post gad", 8, 8
    image.ImageOrientationPatient, image.PixelSpacing = [1, 0, 0, 0, 1, 0], [1, 1]
    image.ImagePositionPatient = [0, 0, 3 * number]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    image.PixelData = np.full((8, 8), 7, np.uint16).tobytes()
    pydicom.dcmwrite(file, image, enforce_file_format=True)


# ---- the clinical table -----------------------------------------------------------------------------


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "rows, expected",
    [
        ([("患者 02", "50", "0")], "has no row"),
        ([(PATIENT, "50", "0"), (PATIENT, "51", "0")], "has 2 rows"),
        ([(PATIENT, "", "0")], "The age"),
        ([(PATIENT, "50", "NA")], "The sex"),
        ([(PATIENT, "-3", "0")], "outside 0 to 120"),
        ([(PATIENT, "430", "0")], "outside 0 to 120"),
        ([(PATIENT, "fifty", "0")], "not an age"),
        ([(PATIENT, "50", "2")], "not a valid value"),
    ],
)
def test_an_invalid_row_is_refused(
    predict_refused, picture_folder, write_clinical_table, rows, expected: str
) -> None:
    error_text = predict_refused(picture_folder, write_clinical_table(rows))
    assert expected in error_text and PATIENT in error_text


@pytest.mark.parametrize(
    "rows, expected", [([(PATIENT, "430", "0")], "outside"), ([("P", "1", "0")], "no row")]
)
def test_an_invalid_row_is_refused_even_if_clinical_data_may_be_missing(
    predict_refused, picture_folder, write_clinical_table, rows, expected: str
) -> None:
    assert expected in predict_refused(picture_folder, write_clinical_table(rows), "--allow-missing-clinical")


def test_a_table_without_ages_is_refused(predict_refused, picture_folder, write_clinical_table) -> None:
    error_text = predict_refused(picture_folder, write_clinical_table([(PATIENT, "0")], header=("id", "sex")))
    assert "The age" in error_text and "is missing" in error_text


def test_a_table_without_ids_is_refused(predict_refused, picture_folder, write_clinical_table) -> None:
    error_text = predict_refused(picture_folder, write_clinical_table(header=("name", "age", "sex")))
    assert "no id column" in error_text and "name, age, sex" in error_text


@pytest.mark.parametrize("encoding", ["utf-32-le", "utf-32-be"])
def test_a_table_in_an_unknown_encoding_is_refused(
    predict_refused, picture_folder, write_clinical_table, encoding: str
) -> None:
    error_text = predict_refused(picture_folder, write_clinical_table(encoding=encoding))
    assert "not UTF-8, UTF-16 or GB18030" in error_text and "临床 表.csv" in error_text


def test_a_foreign_table_of_predictions_is_refused_before_predicting(
    run_command, working_folder, picture_folder, write_clinical_table, tiny_weights
) -> None:
    foreign_table = working_folder / "out" / "predictions.csv"
    foreign_table.parent.mkdir()
    foreign_table.write_text("name,mine\na,1\n")
    outcome = run_command(
        "predict",
        picture_folder,
        "--out",
        foreign_table.parent,
        "--model",
        tiny_weights,
        "--clinical",
        write_clinical_table(),
    )
    assert outcome.status == 1 and "not a table of gliomark predictions" in outcome.stderr
    assert [path.name for path in foreign_table.parent.iterdir()] == ["predictions.csv"]
    assert foreign_table.read_text() == "name,mine\na,1\n"


def test_a_missing_table_is_refused(predict_refused, picture_folder, working_folder) -> None:
    assert "--allow-missing-clinical" in predict_refused(picture_folder, None)
    assert "cannot be opened" in predict_refused(picture_folder, working_folder / "没有.csv")
    assert "cannot be opened" in predict_refused(picture_folder, working_folder)


# ---- the weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.999])
def test_truncated_weights_are_refused(
    predict_refused, picture_folder, clinical_table, working_folder, tiny_weights, fraction: float
) -> None:
    truncated = working_folder / "模型 短.safetensors"
    content = tiny_weights.read_bytes()
    truncated.write_bytes(content[: int(fraction * len(content))])
    error_text = predict_refused(picture_folder, clinical_table, model=truncated)
    assert "damaged or truncated" in error_text and "模型 短" in error_text


def test_weights_with_a_modified_tensor_are_refused(
    predict_refused, picture_folder, clinical_table, working_folder, tiny_weights
) -> None:
    altered = working_folder / "模型 改.safetensors"
    content = bytearray(tiny_weights.read_bytes())
    content[-100] ^= 1
    altered.write_bytes(content)
    assert "was modified" in predict_refused(picture_folder, clinical_table, model=altered)


def test_weights_with_a_modified_card_are_refused(
    predict_refused, picture_folder, clinical_table, working_folder, tiny_weights
) -> None:
    edited = working_folder / "模型 改.safetensors"
    content = tiny_weights.read_bytes()
    assert content.count(b"research use only") == 1
    edited.write_bytes(content.replace(b"research use only", b"clinical use only"))
    assert "was modified" in predict_refused(picture_folder, clinical_table, model=edited)


def test_missing_or_foreign_weights_are_refused(
    predict_refused, picture_folder, clinical_table, working_folder
) -> None:
    assert "does not exist" in predict_refused(
        picture_folder, clinical_table, model=working_folder / "没有.safetensors"
    )
    assert "does not exist" in predict_refused(picture_folder, clinical_table, model=working_folder)
    assert "damaged or truncated" in predict_refused(picture_folder, clinical_table, model=clinical_table)


# ---- the output folder ------------------------------------------------------------------------------


@pytest.mark.parametrize("subfolder", ["文件 甲", "文件 甲/下 面"])
def test_an_output_folder_that_is_not_writable_is_refused(
    run_command, picture_folder, clinical_table, tiny_weights, working_folder, subfolder: str
) -> None:
    (working_folder / "文件 甲").write_text("a file, no folder", "utf-8")
    before = sorted(working_folder.rglob("*"))
    outcome = run_command(
        "predict",
        picture_folder,
        "--clinical",
        clinical_table,
        "--out",
        working_folder / subfolder,
        "--model",
        tiny_weights,
    )
    assert "Could not write" in check_refusal(
        outcome.status, outcome.stdout, outcome.stderr, working_folder / subfolder
    )
    assert sorted(working_folder.rglob("*")) == before


def test_results_do_not_replace_the_images_of_a_patient(
    run_command, copied_pictures, clinical_table, tiny_weights, working_folder
) -> None:
    before = {path: path.stat().st_size for path in sorted(copied_pictures.rglob("*"))}
    outcome = run_command(
        "predict",
        copied_pictures,
        "--clinical",
        clinical_table,
        "--out",
        working_folder,
        "--model",
        tiny_weights,
    )
    assert outcome.status == 1 and "choose another output folder" in outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert {path: path.stat().st_size for path in sorted(copied_pictures.rglob("*"))} == before
    assert not list(working_folder.glob(".gliomark-*"))


def test_a_failure_leaves_the_older_result_unchanged(
    run_command, copied_pictures, clinical_table, tiny_weights, working_folder
) -> None:
    arguments = (
        "predict",
        copied_pictures,
        "--clinical",
        clinical_table,
        "--out",
        working_folder / "out",
        "--model",
        tiny_weights,
    )
    assert run_command(*arguments).status == 0
    older = (working_folder / "out" / PATIENT / "prediction.json").read_bytes()
    shutil.rmtree(copied_pictures / "FLAIR")
    assert run_command(*arguments).status == 1
    assert (working_folder / "out" / PATIENT / "prediction.json").read_bytes() == older


# ---- Typer's own ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("--fusion", "median"),
        ("--enhancing", "perhaps"),
        ("--language", "xx"),
        ("--nonsense",),
    ],
)
def test_unknown_options_are_refused(
    run_command, picture_folder, clinical_table, working_folder, arguments
) -> None:
    outcome = run_command(
        "predict", picture_folder, "--clinical", clinical_table, "--out", working_folder / "out", *arguments
    )
    assert outcome.status == 2
    assert arguments[0] in outcome.stderr and "Traceback" not in outcome.stderr
    assert not (working_folder / "out").exists()


def test_the_output_folder_is_required(run_command, picture_folder) -> None:
    assert run_command("predict", picture_folder).status == 2
    assert "--out" in run_command("predict", picture_folder).stderr


# ---- in a separate process, to include what libraries print -----------------------------------------


def test_only_one_sentence_is_printed_in_a_separate_process(
    copied_pictures, clinical_table, tiny_weights, working_folder
) -> None:
    shutil.rmtree(copied_pictures / "FLAIR")
    out = working_folder / "结果 夹"
    arguments = [
        "predict",
        copied_pictures,
        "--clinical",
        clinical_table,
        "--out",
        out,
        "--model",
        tiny_weights,
    ]
    result = subprocess.run(
        [sys.executable, "-c", "from gliomark.cli import run; run()", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONUTF8": "1"},
        check=False,
    )
    assert "FLAIR is missing" in check_refusal(result.returncode, result.stdout, result.stderr, out)


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["segmentation", "--rule", "both"], "rule 'both'"),
        (["segmentation"], "not a prepared cohort"),
        (["markers", "--segmentation", "s.safetensors", "--marker", "idh"], "not a prepared cohort"),
    ],
)
def test_training_refuses_invalid_input_before_it_starts(
    run_command, working_folder, arguments: list[str], expected: str
) -> None:
    outcome = run_command(
        "train", *arguments, "--cohort", working_folder, "--out", working_folder / "out.safetensors"
    )
    assert outcome.status == 1
    assert expected in outcome.stderr
    assert len(outcome.stderr.strip().splitlines()) == 1
    assert not (working_folder / "out.safetensors").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [
            "cohort",
            "build",
            "patients",
            "--labels",
            "table.csv",
            "--sequences",
            "T1C,FLAIR",
            "--out",
            "file/out",
        ],
        ["experiment", "tables", "--results", "nowhere"],
    ],
)
def test_unusable_paths_are_refused(
    run_command, working_folder, clinical_table, copied_pictures, arguments: list[str]
) -> None:
    (working_folder / "file").write_text("a file, not a folder")
    paths = {
        "patients": copied_pictures,
        "table.csv": clinical_table,
        "file/out": working_folder / "file" / "out",
        "nowhere": working_folder / "no",
    }
    outcome = run_command(*(paths.get(argument, argument) for argument in arguments))
    assert outcome.status == 1
    assert "Traceback" not in outcome.stderr
    assert "check the path" in outcome.stderr or "choose an output folder" in outcome.stderr
    assert len(outcome.stderr.strip().splitlines()) == 1
