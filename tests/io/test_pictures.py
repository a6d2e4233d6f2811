"""Picture folders: left stays left, and every invalid folder gives one error message."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gliomark.errors import GliomarkError
from gliomark.io import read_study
from gliomark.study import MRSequence

NAMES = ("001", "002", "003")


def write_sequence(folder: Path, names: tuple[str, ...] = NAMES, size: int = 32) -> None:
    """Write slices with a bright block at the image right (patient left) and top (anterior), brighter in each slice."""
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        image = np.full((size, size), 10, np.uint8)
        image[2:6, size - 6 : size - 2] = 100 + number
        Image.fromarray(image).save(folder / f"{name}.png")


def write_mask(folder: Path) -> None:
    """Write a white mask in the upper right corner, with the grey edge of a resampled mask."""
    folder.mkdir()
    for name in NAMES:
        image = np.zeros((32, 32), np.uint8)
        image[1:7, 25:31], image[2:6, 26:30] = 60, 255
        Image.fromarray(image).save(folder / f"{name}.png")


@pytest.fixture
def patient(tmp_path: Path) -> Path:
    """Write two sequences and a mask, under a path with spaces and non-ASCII characters."""
    folder = tmp_path / "患者 01"
    write_sequence(folder / "t1CE")
    write_sequence(folder / "T2_FLAIR")
    write_mask(folder / "Mask")
    return folder


def test_reads_sequences_mask_and_assumptions(patient: Path):
    study = read_study(patient)
    assert (study.patient_id, study.kind, study.aligned) == ("患者 01", "pictures", True)
    assert list(study.series) == [MRSequence.T1C, MRSequence.FLAIR]
    assert study.series[MRSequence.T1C].image.shape == (3, 32, 32)
    assert study.series[MRSequence.T1C].image.dtype == np.float32
    assert study.spacing_assumed
    assert any("7.5 x 7.5 mm" in note and "assumed" in note for note in study.notes)
    np.testing.assert_allclose(np.diag(study.series[MRSequence.T1C].affine), [7.5, 7.5, 6, 1])
    assert study.lesion is not None
    assert set(np.unique(study.lesion.image)) == {0, 1} and study.lesion.image.sum() == 3 * 16


def test_left_stays_left(patient: Path):
    series = read_study(patient).series[MRSequence.T1C]
    at = np.argwhere(series.image >= 100).mean(axis=0)[::-1]
    middle = (np.array(series.image.shape[::-1]) - 1) / 2
    x, y, _ = series.affine[:3, :3] @ (at - middle)
    assert x > 0, "a block at the image's right lies on the patient's left"
    assert y < 0, "a block at the top lies in front"


def test_spacing_given_is_not_assumed(patient: Path):
    study = read_study(patient, spacing_mm=(0.5, 0.6, 5.0))
    assert not study.spacing_assumed
    assert not any("scale" in note for note in study.notes)
    np.testing.assert_array_equal(np.diag(study.series[MRSequence.FLAIR].affine), [0.5, 0.6, 5, 1])
    with pytest.raises(GliomarkError, match="three positive values in mm"):
        read_study(patient, spacing_mm=(0.5, 0.0, 5.0))


def test_slices_are_in_natural_order(tmp_path: Path):
    write_sequence(tmp_path / "p" / "T2", names=("s1", "s2", "s10"))
    series = read_study(tmp_path / "p").series[MRSequence.T2]
    assert series.slice_names == ("s1", "s2", "s10")
    assert series.image.max(axis=(1, 2)).tolist() == [100, 101, 102]


@pytest.mark.parametrize("names", [
    ("-71_5", "-64_0", "-4_25", "3_5", "11"), ("z-12_5mm", "z-5_0mm", "z2_5mm"), ("-3_75", "-3_5", "-3_25"),
    ("slice_-71_5", "slice_-4_0", "slice_3_5"), ("3_1", "3_2", "3_11"), ("IM-1_5", "IM-1_6", "IM-2_1"),
])  # fmt: skip
def test_an_underscore_is_a_decimal_point_in_signed_positions(tmp_path: Path, names: tuple[str, ...]):
    write_sequence(tmp_path / "p" / "T2", names=names)
    assert read_study(tmp_path / "p").series[MRSequence.T2].slice_names == names


@pytest.mark.parametrize("one, other", [
    ("7", "07"), ("slice7", "slice007"), ("IM-1-7", "IM-0001-0007"), ("4.0", "4"), ("７", "7"),
])  # fmt: skip
def test_two_names_with_one_number_are_refused(tmp_path: Path, one: str, other: str):
    write_sequence(tmp_path / "p" / "T2", names=(one, other))
    message = get_error_message(tmp_path / "p")
    assert f"{one}.png" in message and f"{other}.png" in message and "the same number" in message


def test_a_sequence_subfolder_means_its_patient(patient: Path):
    assert read_study(patient / "t1CE").source == patient


@pytest.mark.parametrize("name, sequence", [
    ("T1", "T1"), ("t1", "T1"), ("T1C", "T1C"), ("T1c", "T1C"), ("t1ce", "T1C"), ("t1gd", "T1C"),
    ("t1post", "T1C"),
    ("t1+c", "T1C"), ("T2", "T2"), ("FLAIR", "FLAIR"), ("t2flair", "FLAIR"), ("t2_flair", "FLAIR"),
])  # fmt: skip
def test_folder_names(tmp_path: Path, name: str, sequence: str):
    write_sequence(tmp_path / "p" / name)
    assert list(read_study(tmp_path / "p").series) == [MRSequence(sequence)]


def test_grey_saved_as_rgb_is_grey(tmp_path: Path):
    folder = tmp_path / "p" / "T2"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    Image.fromarray(noise).convert("RGB").save(folder / "1.jpg", quality=60)
    assert read_study(tmp_path / "p").series[MRSequence.T2].image.shape == (1, 40, 40)


def test_sixteen_bit_values_are_kept(tmp_path: Path):
    folder = tmp_path / "p" / "T2"
    folder.mkdir(parents=True)
    Image.fromarray(np.arange(0, 64000, 1000, dtype=np.uint16).reshape(8, 8)).save(folder / "1.png")
    assert read_study(tmp_path / "p").series[MRSequence.T2].image.max() == 63000


# ---- invalid input ----------------------------------------------------------------------------------


def get_error_message(path: Path) -> str:
    with pytest.raises(GliomarkError) as caught:
        read_study(path)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def test_an_empty_folder_is_refused(tmp_path: Path):
    assert "is empty" in get_error_message(tmp_path)
    assert "does not exist" in get_error_message(tmp_path / "nowhere")


def test_an_empty_sequence_folder_is_refused(patient: Path):
    (patient / "T2").mkdir()
    assert "T2 contains no pictures" in get_error_message(patient)


def test_pictures_without_a_sequence_folder_are_refused(patient: Path):
    (patient / "t1CE").rename(patient.parent / "loose")
    assert "no sequence folders" in get_error_message(patient.parent / "loose")


def test_different_slice_names_are_refused(patient: Path):
    (patient / "T2_FLAIR" / "002.png").rename(patient / "T2_FLAIR" / "7.png")
    message = get_error_message(patient)
    assert "do not match" in message and "002, 7" in message and "T2_FLAIR" in message


def test_a_mask_that_lacks_a_slice_is_refused(patient: Path):
    (patient / "Mask" / "003.png").unlink()
    message = get_error_message(patient)
    assert "Mask" in message and "003" in message


def test_different_sizes_within_a_sequence_are_refused(patient: Path):
    Image.new("L", (20, 32), 9).save(patient / "t1CE" / "002.png")
    message = get_error_message(patient)
    assert "002.png is 20 x 32 pixels" in message and "32 x 32" in message


def test_different_sizes_between_sequences_are_refused(tmp_path: Path):
    write_sequence(tmp_path / "p" / "T1C")
    write_sequence(tmp_path / "p" / "T2", size=40)
    message = get_error_message(tmp_path / "p")
    assert "32 x 32" in message and "40 x 40" in message


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif"])
@pytest.mark.parametrize("kept", [0.0, 0.05, 0.5, 0.95])
def test_a_truncated_picture_is_refused(tmp_path: Path, suffix: str, kept: float):
    folder = tmp_path / "p" / "T2"
    folder.mkdir(parents=True)
    file = folder / f"1.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[: int(kept * file.stat().st_size)])
    assert f"1.{suffix} is truncated or damaged" in get_error_message(tmp_path / "p")


def test_a_colour_picture_is_refused(patient: Path):
    image = Image.open(patient / "t1CE" / "001.png").convert("RGB")
    image.putpixel((3, 3), (200, 20, 20))
    image.save(patient / "t1CE" / "001.png")
    message = get_error_message(patient)
    assert "001.png is a colour picture" in message


def test_an_all_black_sequence_is_refused(patient: Path):
    for file in (patient / "T2_FLAIR").iterdir():
        Image.new("L", (32, 32)).save(file)
    assert "T2_FLAIR is black" in get_error_message(patient)


def test_one_slice_in_two_formats_is_refused(patient: Path):
    Image.new("L", (32, 32), 5).save(patient / "t1CE" / "001.jpg")
    message = get_error_message(patient)
    assert "001.jpg" in message and "001.png" in message


def test_two_folders_of_one_sequence_are_refused(patient: Path):
    write_sequence(patient / "T1C_patient2")
    message = get_error_message(patient)
    assert "T1C_patient2" in message and "t1CE" in message and "two patients" in message


def test_a_picture_marked_as_mirrored_is_refused(patient: Path):
    exif = Image.Exif()
    exif[0x0112] = 2
    Image.open(patient / "t1CE" / "001.png").save(patient / "t1CE" / "001.png", exif=exif)
    assert "rotated or mirrored" in get_error_message(patient)


def test_real_patient(shared: Path):
    study = read_study(shared / "cohorts/tcga-lgg/TCGA-CS-4941")
    assert list(study.series) == [MRSequence.T1, MRSequence.T1C, MRSequence.FLAIR]
    assert study.lesion is not None and study.lesion.image.sum() == 14379
    np.testing.assert_allclose(np.diag(study.lesion.affine), [0.9375, 0.9375, 6, 1])


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n(made) (w) file closefile\n"


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
@pytest.mark.parametrize("kind", ["EPS", "GIF", "PPM", "WEBP"])
def test_other_formats_are_not_decoded_regardless_of_their_suffix(
    patient: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, kind: str
):
    def fail_if_started(*arguments: object, **options: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", fail_if_started)
    file = patient / "t1CE" / f"001.{suffix}"
    (patient / "t1CE" / "001.png").unlink()
    if kind == "EPS":
        file.write_bytes(POSTSCRIPT)
    else:
        Image.fromarray(np.full((32, 32), 9, np.uint8)).save(file, format=kind)
    assert f"{file} is truncated or damaged, or its format is not supported" in get_error_message(patient)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
def test_supported_formats_are_read_regardless_of_their_suffix(patient: Path, suffix: str, kind: str):
    for name in NAMES:
        file = patient / "t1CE" / f"{name}.png"
        content = Image.open(file, formats=["PNG"]).copy()
        file.unlink()
        content.save(
            file.with_suffix(f".{suffix}"), format=kind, **({"quality": 100} if kind == "JPEG" else {})
        )
    image = read_study(patient).series[MRSequence.T1C].image
    assert np.abs(image[:, 3, -4] - [100, 101, 102]).max() <= 2


def write_with_stated_size(file: Path, kind: str, columns: int, rows: int) -> None:
    """Write a tiny picture whose header states another size."""
    Image.fromarray(np.full((32, 32), 9, np.uint8)).save(file, format=kind)
    content = bytearray(file.read_bytes())
    if kind == "PNG":
        content[16:24] = struct.pack(">II", columns, rows)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    if kind == "BMP":
        content[18:26] = struct.pack("<ii", columns, rows)
    if kind == "JPEG":
        at = content.index(b"\xff\xc0")
        content[at + 5 : at + 9] = struct.pack(">HH", rows, columns)
    file.write_bytes(content)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "JPEG"])
@pytest.mark.parametrize("columns, rows", [(9000, 9000), (60000, 60000), (65000, 1000)])
def test_a_picture_with_too_many_pixels_is_refused(patient: Path, kind: str, columns: int, rows: int):
    file = patient / "t1CE" / "001.png"
    write_with_stated_size(file, kind, columns, rows)
    assert f"{file} has more than 64 million pixels" in get_error_message(patient)
