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

from gliomark import batch

PATIENT = "患者 01"


@pytest.fixture
def refused(run_command: Callable, working_folder: Path, tiny_weights: Path) -> Callable[..., str]:
    """Return refused(folder, table, *options), which checks the refusal and returns its line on standard error."""

    def run(folder: Path, table: Path | None, *options: object, model: Path = tiny_weights) -> str:
        out = working_folder / "结果 夹"
        with_table = () if table is None else ("--clinical", table)
        outcome = run_command("predict", folder, "--out", out, "--model", model, *with_table, *options)
        return check_refusal(outcome.status, outcome.stdout, outcome.stderr, out)

    return run


def check_refusal(status: int, said: str, err: str, out: Path) -> str:
    """Check for status 1, one sentence on standard error, and at most the table with the failure in ``out``."""
    assert status == 1
    assert said == ""
    assert "Traceback" not in err
    assert err.endswith((".\n", "?\n")) and err.count("\n") == 1, err
    left = {str(path.relative_to(out)) for path in out.rglob("*")} if out.is_dir() else set()
    assert left <= {"predictions.csv"}
    if left:
        written = (out / "predictions.csv").read_text("utf-8-sig")
        assert written.startswith("id,") and len(written.splitlines()) == 2
    return err.strip()


def pictures_of(folder: Path, sequence: str) -> list[Path]:
    return sorted((folder / sequence).iterdir())


# ---- the folder -------------------------------------------------------------------------------------


def test_empty_folder(refused, working_folder, clinical_table) -> None:
    (working_folder / "空 夹").mkdir()
    assert "空 夹 is empty" in refused(working_folder / "空 夹", clinical_table)
    assert "does not exist" in refused(working_folder / "nowhere", clinical_table)
    assert "is a file" in refused(clinical_table, clinical_table)


def test_missing_sequence(refused, copied_pictures, clinical_table) -> None:
    shutil.rmtree(copied_pictures / "FLAIR")
    said = refused(copied_pictures, clinical_table)
    assert "FLAIR is missing" in said and "found: T1C" in said and PATIENT in said


def test_results_as_dicom_of_what_is_no_dicom(monkeypatch, refused, copied_pictures, clinical_table) -> None:
    def too_late(*_: object, **__: object) -> None:
        raise AssertionError("the prediction was computed before the refusal")

    monkeypatch.setattr(batch, "prepare_study", too_late)
    said = refused(copied_pictures, clinical_table, "--dicom-out")
    assert PATIENT in said and "are not DICOM" in said


def test_missing_sequence_of_volumes(refused, copied_volumes, clinical_table) -> None:
    (copied_volumes / "某人 T1C.nii.gz").unlink()
    said = refused(copied_volumes, clinical_table)
    assert "T1C is missing" in said and "found: FLAIR" in said


def test_slice_names_do_not_match(refused, copied_pictures, clinical_table) -> None:
    file = pictures_of(copied_pictures, "FLAIR")[3]
    file.rename(file.with_name("另 一.png"))
    said = refused(copied_pictures, clinical_table)
    assert "do not match" in said and file.stem in said and "另 一" in said


def test_pictures_of_different_sizes(refused, copied_pictures, clinical_table) -> None:
    file = pictures_of(copied_pictures, "T1C")[5]
    Image.open(file).resize((80, 96)).save(file)
    said = refused(copied_pictures, clinical_table)
    assert "80 x 96" in said and "96 x 96" in said and file.name in said


def test_sequences_of_different_sizes(refused, copied_pictures, clinical_table) -> None:
    for file in pictures_of(copied_pictures, "T1C"):
        Image.open(file).resize((80, 80)).save(file)
    said = refused(copied_pictures, clinical_table)
    assert "80 x 80" in said and "96 x 96" in said


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.97])
def test_truncated_jpeg(refused, copied_pictures, clinical_table, kept: float) -> None:
    for file in pictures_of(copied_pictures, "T1C"):
        Image.open(file).save(file.with_suffix(".jpg"), quality=95)
        file.unlink()
    cut = pictures_of(copied_pictures, "T1C")[7]
    cut.write_bytes(cut.read_bytes()[: int(kept * cut.stat().st_size)])
    said = refused(copied_pictures, clinical_table)
    assert "truncated" in said and cut.name in said


def test_colour_pictures(refused, copied_pictures, clinical_table) -> None:
    for file in pictures_of(copied_pictures, "FLAIR"):
        grey = np.asarray(Image.open(file))
        Image.fromarray(np.stack([grey, grey // 2, grey // 3], axis=-1)).save(file)
    assert "colour picture" in refused(copied_pictures, clinical_table)


def test_all_black_pictures(refused, copied_pictures, clinical_table) -> None:
    for file in pictures_of(copied_pictures, "FLAIR"):
        Image.new("L", (96, 96)).save(file)
    said = refused(copied_pictures, clinical_table)
    assert "black" in said and "FLAIR" in said


def test_all_black_volume(refused, copied_volumes, clinical_table) -> None:
    change(copied_volumes / "某人 FLAIR.nii.gz", lambda image: image * 0)
    said = refused(copied_volumes, clinical_table)
    assert "same grey value everywhere" in said and "某人 FLAIR.nii.gz" in said


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_within_the_brain_in_nifti(refused, copied_volumes, clinical_table, value: float) -> None:
    def spoil(image: np.ndarray) -> np.ndarray:
        image[tuple(extent // 2 for extent in image.shape)] = value
        return image

    change(copied_volumes / "某人 FLAIR.nii.gz", spoil)
    said = refused(copied_volumes, clinical_table)
    assert "within the brain, in slice" in said and "某人 FLAIR.nii.gz" in said


def change(file: Path, how: Callable[[np.ndarray], np.ndarray]) -> None:
    image = nib.load(file)
    changed = how(np.array(image.dataobj, dtype=np.float32))
    nib.save(nib.Nifti1Image(changed, image.affine), file)


def test_truncated_nifti(refused, copied_volumes, clinical_table) -> None:
    file = copied_volumes / "某人 T1C.nii.gz"
    file.write_bytes(file.read_bytes()[:2000])
    assert "damaged" in refused(copied_volumes, clinical_table)


def test_no_brain_in_the_images(refused, copied_volumes, clinical_table) -> None:
    for file in copied_volumes.iterdir():
        change(file, lambda image: np.where(np.arange(image.size).reshape(image.shape) == 5000, 9, image * 0))
    assert "No slice shows enough brain" in refused(copied_volumes, clinical_table)


def test_too_few_slices(refused, copied_volumes, clinical_table) -> None:
    """Registration refuses them with another message, which is also one sentence."""
    for file in copied_volumes.iterdir():
        volume = nib.as_closest_canonical(nib.load(file)).slicer[:, :, 9:11]
        nib.save(volume, file)
    assert PATIENT in refused(copied_volumes, clinical_table)


# ---- two patients -----------------------------------------------------------------------------------


def test_volumes_of_two_patients(refused, copied_volumes, clinical_table) -> None:
    shutil.copy(copied_volumes / "某人 T1C.nii.gz", copied_volumes / "别人 T1C.nii.gz")
    said = refused(copied_volumes, clinical_table)
    assert "别人 T1C.nii.gz" in said and "某人 T1C.nii.gz" in said and "two patients" in said


def test_pictures_of_two_patients(refused, copied_pictures, clinical_table) -> None:
    shutil.copytree(copied_pictures / "T1C", copied_pictures / "t1ce 别人")
    said = refused(copied_pictures, clinical_table)
    assert "t1ce 别人" in said and "two patients" in said


def test_dicom_of_two_patients(refused, working_folder, clinical_table) -> None:
    folder = working_folder / PATIENT
    folder.mkdir()
    for number in range(8):
        write_dicom(folder / f"图 {number}.dcm", number, owner=f"P-{number // 4}")
    said = refused(folder, clinical_table)
    assert "two patients" in said and "different patient ids" in said


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


@pytest.mark.parametrize(
    "rows, says",
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
def test_bad_row(refused, picture_folder, write_clinical_table, rows, says: str) -> None:
    said = refused(picture_folder, write_clinical_table(rows))
    assert says in said and PATIENT in said


@pytest.mark.parametrize("rows, says", [([(PATIENT, "430", "0")], "outside"), ([("P", "1", "0")], "no row")])
def test_nonsense_stays_nonsense_without_clinical(
    refused, picture_folder, write_clinical_table, rows, says: str
) -> None:
    assert says in refused(picture_folder, write_clinical_table(rows), "--allow-missing-clinical")


def test_no_age_column(refused, picture_folder, write_clinical_table) -> None:
    said = refused(picture_folder, write_clinical_table([(PATIENT, "0")], header=("id", "sex")))
    assert "The age" in said and "is missing" in said


def test_no_id_column(refused, picture_folder, write_clinical_table) -> None:
    said = refused(picture_folder, write_clinical_table(header=("name", "age", "sex")))
    assert "no id column" in said and "name, age, sex" in said


@pytest.mark.parametrize("encoding", ["utf-32-le", "utf-32-be"])
def test_table_in_the_wrong_encoding(refused, picture_folder, write_clinical_table, encoding: str) -> None:
    said = refused(picture_folder, write_clinical_table(encoding=encoding))
    assert "not UTF-8, UTF-16 or GB18030" in said and "临床 表.csv" in said


def test_a_strangers_predictions_are_found_before_the_work(
    run_command, working_folder, picture_folder, write_clinical_table, tiny_weights
) -> None:
    strange = working_folder / "out" / "predictions.csv"
    strange.parent.mkdir()
    strange.write_text("name,mine\na,1\n")
    outcome = run_command(
        "predict",
        picture_folder,
        "--out",
        strange.parent,
        "--model",
        tiny_weights,
        "--clinical",
        write_clinical_table(),
    )
    assert outcome.status == 1 and "not a table of gliomark predictions" in outcome.stderr
    assert [path.name for path in strange.parent.iterdir()] == ["predictions.csv"]
    assert strange.read_text() == "name,mine\na,1\n"


def test_no_table(refused, picture_folder, working_folder) -> None:
    assert "--allow-missing-clinical" in refused(picture_folder, None)
    assert "cannot be opened" in refused(picture_folder, working_folder / "没有.csv")
    assert "cannot be opened" in refused(picture_folder, working_folder)


# ---- the weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.999])
def test_weights_cut_short(
    refused, picture_folder, clinical_table, working_folder, tiny_weights, kept: float
) -> None:
    cut = working_folder / "模型 短.safetensors"
    content = tiny_weights.read_bytes()
    cut.write_bytes(content[: int(kept * len(content))])
    said = refused(picture_folder, clinical_table, model=cut)
    assert "damaged or truncated" in said and "模型 短" in said


def test_one_byte_of_a_tensor_altered(
    refused, picture_folder, clinical_table, working_folder, tiny_weights
) -> None:
    altered = working_folder / "模型 改.safetensors"
    content = bytearray(tiny_weights.read_bytes())
    content[-100] ^= 1
    altered.write_bytes(content)
    assert "was modified" in refused(picture_folder, clinical_table, model=altered)


def test_card_edited(refused, picture_folder, clinical_table, working_folder, tiny_weights) -> None:
    edited = working_folder / "模型 改.safetensors"
    content = tiny_weights.read_bytes()
    assert content.count(b"research use only") == 1
    edited.write_bytes(content.replace(b"research use only", b"clinical use only"))
    assert "was modified" in refused(picture_folder, clinical_table, model=edited)


def test_weights_missing_or_something_else(refused, picture_folder, clinical_table, working_folder) -> None:
    assert "does not exist" in refused(
        picture_folder, clinical_table, model=working_folder / "没有.safetensors"
    )
    assert "does not exist" in refused(picture_folder, clinical_table, model=working_folder)
    assert "damaged or truncated" in refused(picture_folder, clinical_table, model=clinical_table)


# ---- the output folder ------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["文件 甲", "文件 甲/下 面"])
def test_out_not_writable(
    run_command, picture_folder, clinical_table, tiny_weights, working_folder, inside: str
) -> None:
    (working_folder / "文件 甲").write_text("a file, no folder", "utf-8")
    before = sorted(working_folder.rglob("*"))
    outcome = run_command(
        "predict",
        picture_folder,
        "--clinical",
        clinical_table,
        "--out",
        working_folder / inside,
        "--model",
        tiny_weights,
    )
    assert "Could not write" in check_refusal(
        outcome.status, outcome.stdout, outcome.stderr, working_folder / inside
    )
    assert sorted(working_folder.rglob("*")) == before


def test_results_never_replace_a_patients_images(
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


def test_a_failure_leaves_the_older_result(
    run_command, copied_pictures, clinical_table, tiny_weights, working_folder
) -> None:
    words = (
        "predict",
        copied_pictures,
        "--clinical",
        clinical_table,
        "--out",
        working_folder / "out",
        "--model",
        tiny_weights,
    )
    assert run_command(*words).status == 0
    older = (working_folder / "out" / PATIENT / "prediction.json").read_bytes()
    shutil.rmtree(copied_pictures / "FLAIR")
    assert run_command(*words).status == 1
    assert (working_folder / "out" / PATIENT / "prediction.json").read_bytes() == older


# ---- Typer's own ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("--fusion", "median"),
        ("--enhancing", "perhaps"),
        ("--language", "xx"),
        ("--nonsense",),
    ],
)
def test_unknown_options(run_command, picture_folder, clinical_table, working_folder, words) -> None:
    outcome = run_command(
        "predict", picture_folder, "--clinical", clinical_table, "--out", working_folder / "out", *words
    )
    assert outcome.status == 2
    assert words[0] in outcome.stderr and "Traceback" not in outcome.stderr
    assert not (working_folder / "out").exists()


def test_input_or_out_left_out(run_command, picture_folder) -> None:
    assert run_command("predict", picture_folder).status == 2
    assert "--out" in run_command("predict", picture_folder).stderr


# ---- in a separate process, to include what libraries print -----------------------------------------


def test_in_a_process_of_its_own(copied_pictures, clinical_table, tiny_weights, working_folder) -> None:
    shutil.rmtree(copied_pictures / "FLAIR")
    out = working_folder / "结果 夹"
    words = ["predict", copied_pictures, "--clinical", clinical_table, "--out", out, "--model", tiny_weights]
    ended = subprocess.run(
        [sys.executable, "-c", "from gliomark.cli import run; run()", *map(str, words)],
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONUTF8": "1"},
        check=False,
    )
    assert "FLAIR is missing" in check_refusal(ended.returncode, ended.stdout, ended.stderr, out)


@pytest.mark.parametrize(
    "words, about",
    [
        (["segmentation", "--rule", "both"], "rule 'both'"),
        (["segmentation"], "not a prepared cohort"),
        (["markers", "--segmentation", "s.safetensors", "--marker", "idh"], "not a prepared cohort"),
    ],
)
def test_training_refuses_before_it_starts(run_command, working_folder, words: list[str], about: str) -> None:
    outcome = run_command(
        "train", *words, "--cohort", working_folder, "--out", working_folder / "out.safetensors"
    )
    assert outcome.status == 1
    assert about in outcome.stderr
    assert len(outcome.stderr.strip().splitlines()) == 1
    assert not (working_folder / "out.safetensors").exists()


@pytest.mark.parametrize(
    "words",
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
def test_paths_that_do_not_work(
    run_command, working_folder, clinical_table, copied_pictures, words: list[str]
) -> None:
    (working_folder / "file").write_text("a file, not a folder")
    places = {
        "patients": copied_pictures,
        "table.csv": clinical_table,
        "file/out": working_folder / "file" / "out",
        "nowhere": working_folder / "no",
    }
    outcome = run_command(*(places.get(word, word) for word in words))
    assert outcome.status == 1
    assert "Traceback" not in outcome.stderr
    assert "check the path" in outcome.stderr or "choose an output folder" in outcome.stderr
    assert len(outcome.stderr.strip().splitlines()) == 1
