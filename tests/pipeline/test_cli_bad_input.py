"""Each bad input through the real command line: one sentence, a status, and nothing half-written."""

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
def refused(command: Callable, home: Path, tiny_weights: Path) -> Callable[..., str]:
    """refused(folder, table, *options): the one line on standard error, after checking everything else."""

    def run(folder: Path, table: Path | None, *options: object, model: Path = tiny_weights) -> str:
        out = home / "结果 夹"
        with_table = () if table is None else ("--clinical", table)
        outcome = command("predict", folder, "--out", out, "--model", model, *with_table, *options)
        return check_refusal(outcome.status, outcome.out, outcome.err, out)

    return run


def check_refusal(status: int, said: str, err: str, out: Path) -> str:
    """Status 1, one sentence on standard error, and in ``out`` at most the table that names the failure."""
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


def test_empty_folder(refused, home, table) -> None:
    (home / "空 夹").mkdir()
    assert "空 夹 is empty" in refused(home / "空 夹", table)
    assert "does not exist" in refused(home / "nowhere", table)
    assert "is a file" in refused(table, table)


def test_missing_sequence(refused, own_pictures, table) -> None:
    shutil.rmtree(own_pictures / "FLAIR")
    said = refused(own_pictures, table)
    assert "FLAIR is missing" in said and "found: T1C" in said and PATIENT in said


def test_results_as_dicom_of_what_is_no_dicom(monkeypatch, refused, own_pictures, table) -> None:
    def too_late(*_: object, **__: object) -> None:
        raise AssertionError("the prediction was computed before the refusal")

    monkeypatch.setattr(batch, "predict", too_late)
    said = refused(own_pictures, table, "--dicom-out")
    assert PATIENT in said and "did not come as DICOM" in said


def test_missing_sequence_of_volumes(refused, own_volumes, table) -> None:
    (own_volumes / "某人 T1C.nii.gz").unlink()
    said = refused(own_volumes, table)
    assert "T1C is missing" in said and "found: FLAIR" in said


def test_slice_names_do_not_match(refused, own_pictures, table) -> None:
    file = pictures_of(own_pictures, "FLAIR")[3]
    file.rename(file.with_name("另 一.png"))
    said = refused(own_pictures, table)
    assert "do not match" in said and file.stem in said and "另 一" in said


def test_pictures_of_different_sizes(refused, own_pictures, table) -> None:
    file = pictures_of(own_pictures, "T1C")[5]
    Image.open(file).resize((80, 96)).save(file)
    said = refused(own_pictures, table)
    assert "80 x 96" in said and "96 x 96" in said and file.name in said


def test_sequences_of_different_sizes(refused, own_pictures, table) -> None:
    for file in pictures_of(own_pictures, "T1C"):
        Image.open(file).resize((80, 80)).save(file)
    said = refused(own_pictures, table)
    assert "80 x 80" in said and "96 x 96" in said


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.97])
def test_truncated_jpeg(refused, own_pictures, table, kept: float) -> None:
    for file in pictures_of(own_pictures, "T1C"):
        Image.open(file).save(file.with_suffix(".jpg"), quality=95)
        file.unlink()
    cut = pictures_of(own_pictures, "T1C")[7]
    cut.write_bytes(cut.read_bytes()[: int(kept * cut.stat().st_size)])
    said = refused(own_pictures, table)
    assert "truncated" in said and cut.name in said


def test_colour_pictures(refused, own_pictures, table) -> None:
    for file in pictures_of(own_pictures, "FLAIR"):
        grey = np.asarray(Image.open(file))
        Image.fromarray(np.stack([grey, grey // 2, grey // 3], axis=-1)).save(file)
    assert "colour picture" in refused(own_pictures, table)


def test_all_black_pictures(refused, own_pictures, table) -> None:
    for file in pictures_of(own_pictures, "FLAIR"):
        Image.new("L", (96, 96)).save(file)
    said = refused(own_pictures, table)
    assert "black" in said and "FLAIR" in said


def test_all_black_volume(refused, own_volumes, table) -> None:
    change(own_volumes / "某人 FLAIR.nii.gz", lambda image: image * 0)
    said = refused(own_volumes, table)
    assert "one grey value everywhere" in said and "某人 FLAIR.nii.gz" in said


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_within_the_brain_in_nifti(refused, own_volumes, table, value: float) -> None:
    def spoil(image: np.ndarray) -> np.ndarray:
        image[tuple(extent // 2 for extent in image.shape)] = value
        return image

    change(own_volumes / "某人 FLAIR.nii.gz", spoil)
    said = refused(own_volumes, table)
    assert "within the brain, in slice" in said and "某人 FLAIR.nii.gz" in said


def change(file: Path, how: Callable[[np.ndarray], np.ndarray]) -> None:
    image = nib.load(file)
    changed = how(np.array(image.dataobj, dtype=np.float32))
    nib.save(nib.Nifti1Image(changed, image.affine), file)


def test_truncated_nifti(refused, own_volumes, table) -> None:
    file = own_volumes / "某人 T1C.nii.gz"
    file.write_bytes(file.read_bytes()[:2000])
    assert "damaged" in refused(own_volumes, table)


def test_no_brain_in_the_images(refused, own_volumes, table) -> None:
    for file in own_volumes.iterdir():
        change(file, lambda image: np.where(np.arange(image.size).reshape(image.shape) == 5000, 9, image * 0))
    assert "No slice shows enough brain" in refused(own_volumes, table)


def test_too_few_slices(refused, own_volumes, table) -> None:
    """Registration refuses them in its own way; still one sentence."""
    for file in own_volumes.iterdir():
        volume = nib.as_closest_canonical(nib.load(file)).slicer[:, :, 9:11]
        nib.save(volume, file)
    assert PATIENT in refused(own_volumes, table)


# ---- two patients -----------------------------------------------------------------------------------


def test_volumes_of_two_patients(refused, own_volumes, table) -> None:
    shutil.copy(own_volumes / "某人 T1C.nii.gz", own_volumes / "别人 T1C.nii.gz")
    said = refused(own_volumes, table)
    assert "别人 T1C.nii.gz" in said and "某人 T1C.nii.gz" in said and "two patients" in said


def test_pictures_of_two_patients(refused, own_pictures, table) -> None:
    shutil.copytree(own_pictures / "T1C", own_pictures / "t1ce 别人")
    said = refused(own_pictures, table)
    assert "t1ce 别人" in said and "two patients" in said


def test_dicom_of_two_patients(refused, home, table) -> None:
    folder = home / PATIENT
    folder.mkdir()
    for number in range(8):
        write_dicom(folder / f"图 {number}.dcm", number, owner=f"P-{number // 4}")
    said = refused(folder, table)
    assert "two patients" in said and "different ids" in said


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
        ([(PATIENT, "fifty", "0")], "not a number"),
        ([(PATIENT, "50", "2")], "not understood"),
    ],
)
def test_bad_row(refused, pictures, write_table, rows, says: str) -> None:
    said = refused(pictures, write_table(rows))
    assert says in said and PATIENT in said


@pytest.mark.parametrize("rows, says", [([(PATIENT, "430", "0")], "outside"), ([("P", "1", "0")], "no row")])
def test_nonsense_stays_nonsense_without_clinical(refused, pictures, write_table, rows, says: str) -> None:
    assert says in refused(pictures, write_table(rows), "--without-clinical")


def test_no_age_column(refused, pictures, write_table) -> None:
    said = refused(pictures, write_table([(PATIENT, "0")], header=("id", "sex")))
    assert "The age" in said and "is missing" in said


def test_no_id_column(refused, pictures, write_table) -> None:
    said = refused(pictures, write_table(header=("name", "age", "sex")))
    assert "no column id" in said and "name, age, sex" in said


@pytest.mark.parametrize("encoding", ["utf-32-le", "utf-32-be"])
def test_table_in_the_wrong_encoding(refused, pictures, write_table, encoding: str) -> None:
    said = refused(pictures, write_table(encoding=encoding))
    assert "neither UTF-8 nor UTF-16 nor GB18030" in said and "临床 表.csv" in said


def test_a_strangers_predictions_are_found_before_the_work(
    command, home, pictures, write_table, tiny_weights
) -> None:
    strange = home / "out" / "predictions.csv"
    strange.parent.mkdir()
    strange.write_text("name,mine\na,1\n")
    outcome = command(
        "predict", pictures, "--out", strange.parent, "--model", tiny_weights, "--clinical", write_table()
    )
    assert outcome.status == 1 and "no table of gliomark's predictions" in outcome.err
    assert [path.name for path in strange.parent.iterdir()] == ["predictions.csv"]
    assert strange.read_text() == "name,mine\na,1\n"


def test_no_table(refused, pictures, home) -> None:
    assert "--without-clinical" in refused(pictures, None)
    assert "cannot be opened" in refused(pictures, home / "没有.csv")
    assert "cannot be opened" in refused(pictures, home)


# ---- the weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.999])
def test_weights_cut_short(refused, pictures, table, home, tiny_weights, kept: float) -> None:
    cut = home / "模型 短.safetensors"
    content = tiny_weights.read_bytes()
    cut.write_bytes(content[: int(kept * len(content))])
    said = refused(pictures, table, model=cut)
    assert "damaged or cut short" in said and "模型 短" in said


def test_one_byte_of_a_tensor_altered(refused, pictures, table, home, tiny_weights) -> None:
    altered = home / "模型 改.safetensors"
    content = bytearray(tiny_weights.read_bytes())
    content[-100] ^= 1
    altered.write_bytes(content)
    assert "was altered" in refused(pictures, table, model=altered)


def test_card_edited(refused, pictures, table, home, tiny_weights) -> None:
    edited = home / "模型 改.safetensors"
    content = tiny_weights.read_bytes()
    assert content.count(b"research use only") == 1
    edited.write_bytes(content.replace(b"research use only", b"clinical use only"))
    assert "was altered" in refused(pictures, table, model=edited)


def test_weights_missing_or_something_else(refused, pictures, table, home) -> None:
    assert "no such weights file" in refused(pictures, table, model=home / "没有.safetensors")
    assert "no such weights file" in refused(pictures, table, model=home)
    assert "damaged or cut short" in refused(pictures, table, model=table)


# ---- the output folder ------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["文件 甲", "文件 甲/下 面"])
def test_out_not_writable(command, pictures, table, tiny_weights, home, inside: str) -> None:
    (home / "文件 甲").write_text("a file, no folder", "utf-8")
    before = sorted(home.rglob("*"))
    outcome = command(
        "predict", pictures, "--clinical", table, "--out", home / inside, "--model", tiny_weights
    )
    assert "Could not write" in check_refusal(outcome.status, outcome.out, outcome.err, home / inside)
    assert sorted(home.rglob("*")) == before


def test_results_never_replace_a_patients_images(command, own_pictures, table, tiny_weights, home) -> None:
    before = {path: path.stat().st_size for path in sorted(own_pictures.rglob("*"))}
    outcome = command("predict", own_pictures, "--clinical", table, "--out", home, "--model", tiny_weights)
    assert outcome.status == 1 and "choose another output folder" in outcome.err
    assert outcome.err.count("\n") == 1
    assert {path: path.stat().st_size for path in sorted(own_pictures.rglob("*"))} == before
    assert not list(home.glob(".gliomark-*"))


def test_a_failure_leaves_the_older_result(command, own_pictures, table, tiny_weights, home) -> None:
    words = ("predict", own_pictures, "--clinical", table, "--out", home / "out", "--model", tiny_weights)
    assert command(*words).status == 0
    older = (home / "out" / PATIENT / "prediction.json").read_bytes()
    shutil.rmtree(own_pictures / "FLAIR")
    assert command(*words).status == 1
    assert (home / "out" / PATIENT / "prediction.json").read_bytes() == older


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
def test_unknown_options(command, pictures, table, home, words) -> None:
    outcome = command("predict", pictures, "--clinical", table, "--out", home / "out", *words)
    assert outcome.status == 2
    assert words[0] in outcome.err and "Traceback" not in outcome.err
    assert not (home / "out").exists()


def test_input_or_out_left_out(command, pictures) -> None:
    assert command("predict", pictures).status == 2
    assert "--out" in command("predict", pictures).err


# ---- a process of its own: what libraries print themselves shows too --------------------------------


def test_in_a_process_of_its_own(own_pictures, table, tiny_weights, home) -> None:
    shutil.rmtree(own_pictures / "FLAIR")
    out = home / "结果 夹"
    words = ["predict", own_pictures, "--clinical", table, "--out", out, "--model", tiny_weights]
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
def test_training_refuses_before_it_starts(command, home, words: list[str], about: str) -> None:
    outcome = command("train", *words, "--cohort", home, "--out", home / "out.safetensors")
    assert outcome.status == 1
    assert about in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    assert not (home / "out.safetensors").exists()


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
def test_paths_that_do_not_work(command, home, table, own_pictures, words: list[str]) -> None:
    (home / "file").write_text("a file, not a folder")
    places = {
        "patients": own_pictures,
        "table.csv": table,
        "file/out": home / "file" / "out",
        "nowhere": home / "no",
    }
    outcome = command(*(places.get(word, word) for word in words))
    assert outcome.status == 1
    assert "Traceback" not in outcome.err
    assert "check the path" in outcome.err or "choose an output folder" in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
