"""Grey values of pictures: every encoding of a picture gives the same values or is rejected."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gliomark.errors import GliomarkError
from gliomark.io import read_study
from gliomark.io.pictures import sort_slice_names
from gliomark.messages import Message, render_message
from gliomark.study import MRSequence

Write = Callable[[Path, np.ndarray], None]


def draw_head(levels: int = 256) -> np.ndarray:
    """Three slices ``(slice, row, column)`` of a round head in air of value 0, brighter to the right."""
    rows, columns = np.indices((40, 48))
    inside = (rows - 20) ** 2 + (columns - 24) ** 2 < 15**2
    shade = np.where(inside, (columns + 5) * (levels - 1) // 60, 0)
    return np.stack([shade, shade * 3 // 4, shade // 2])


def write(folder: Path, stack: np.ndarray, write_picture: Write, suffix: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(stack, start=1):
        write_picture(folder / f"{number:03d}.{suffix}", image)
    return folder.parent


def read(patient: Path) -> np.ndarray:
    return read_study(patient).series[MRSequence.T2].image


def get_error_message(patient: Path) -> str:
    with pytest.raises(GliomarkError) as caught:
        read_study(patient)
    message = caught.value.message
    assert isinstance(message, Message) and "\n" not in message
    assert render_message(message, "zh") != message
    return message


# ---- as shown by a viewer ---------------------------------------------------------------------------


def write_grey(file: Path, image: np.ndarray) -> None:
    Image.fromarray(image.astype(np.uint8)).save(file)


def write_white_is_zero(file: Path, image: np.ndarray) -> None:
    """Write a TIFF with PhotometricInterpretation 0; Pillow cannot write it with 16 bits."""
    kinds = {"u1": (8, 1), "u2": (16, 1), "f4": (32, 3)}
    code = image.dtype.str[1:]
    bits, sample_format = kinds[code]
    high = {"u1": 255, "u2": 65535, "f4": 1.0}[code]
    data = (high - image).astype(f"<{code}").tobytes()
    write_tiff(file, image.shape, data, bits, sample_format, photometric=0)


def write_tiff(
    file: Path, shape: tuple[int, ...], data: bytes, bits: int, sample_format: int, photometric: int | None
) -> None:
    rows, columns = shape
    tags = [(256, columns), (257, rows), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, rows),
            (279, len(data)), (339, sample_format)]  # fmt: skip
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags if value is not None]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + b"\0\0\0\0"
    padding = b"\0" * (len(data) % 2)
    start = struct.pack("<2sHI", b"II", 42, 8 + len(data) + len(padding))
    file.write_bytes(start + data + padding + directory)


def write_palette(file: Path, image: np.ndarray) -> None:
    """Write a palette picture whose indices are not in order of grey value."""
    shuffled = np.random.default_rng(4).permutation(256).astype(np.uint8)
    indices = np.empty(256, np.uint8)
    indices[shuffled] = np.arange(256)
    picture = Image.fromarray(indices[image.astype(np.uint8)], mode="P")
    picture.putpalette(np.repeat(shuffled, 3).tobytes())
    picture.save(file)


def write_inverted_palette(file: Path, image: np.ndarray) -> None:
    picture = Image.fromarray((255 - image).astype(np.uint8), mode="P")
    picture.putpalette(np.repeat(np.arange(255, -1, -1, dtype=np.uint8), 3).tobytes())
    picture.save(file)


def create_colour_writer(mode: str) -> Write:
    def write_picture(file: Path, image: np.ndarray) -> None:
        Image.fromarray(image.astype(np.uint8)).convert("RGB").convert(mode).save(file)

    return write_picture


def write_cmyk(file: Path, image: np.ndarray) -> None:
    black = 255 - image.astype(np.uint8)
    none = np.zeros_like(black)
    Image.fromarray(np.stack([none, none, none, black], axis=-1), mode="CMYK").save(file, quality=100)


@pytest.mark.parametrize("write_picture, suffix", [
    (write_grey, "png"), (write_grey, "bmp"), (write_grey, "tif"), (write_white_is_zero, "tif"),
    (write_palette, "png"), (write_palette, "bmp"), (write_palette, "tif"), (write_inverted_palette, "png"),
    (write_inverted_palette, "bmp"), (create_colour_writer("RGB"), "png"), (create_colour_writer("RGB"), "bmp"),
    (create_colour_writer("RGBA"), "png"), (create_colour_writer("LA"), "png"), (create_colour_writer("RGBA"), "tif"),
    (create_colour_writer("CMYK"), "tif"), (write_cmyk, "tif"),
])  # fmt: skip
def test_grey_values_are_those_shown_by_a_viewer(tmp_path: Path, write_picture: Write, suffix: str):
    stack = draw_head().astype(np.uint8)
    np.testing.assert_array_equal(read(write(tmp_path / "p" / "T2", stack, write_picture, suffix)), stack)


@pytest.mark.parametrize(
    "write_picture", [write_grey, create_colour_writer("RGB"), create_colour_writer("CMYK"), write_cmyk]
)
def test_jpegs_of_every_colour_space_are_nearly_equal(tmp_path: Path, write_picture: Write):
    """CMYK JPEGs are stored inverted, as Adobe does."""
    stack = draw_head()
    image = read(write(tmp_path / "p" / "T2", stack, write_picture, "jpg"))
    assert np.corrcoef(image.ravel(), stack.ravel())[0, 1] > 0.99
    assert np.abs(image - stack).mean() < 4


@pytest.mark.parametrize("dtype, levels", [(np.uint8, 256), (np.uint16, 65536), (np.uint16, 4096)])
def test_white_is_zero_in_every_depth(tmp_path: Path, dtype: type, levels: int):
    stack = draw_head(levels).astype(dtype)
    np.testing.assert_array_equal(
        read(write(tmp_path / "p" / "T2", stack, write_white_is_zero, "tif")), stack
    )


def test_white_is_zero_in_floating_point(tmp_path: Path):
    """No range is stated, so values are correct up to a constant."""
    stack = (draw_head() / 255).astype(np.float32)
    image = read(write(tmp_path / "p" / "T2", stack, write_white_is_zero, "tif"))
    np.testing.assert_allclose(image - image.min(), stack, atol=1e-6)


def test_a_tiff_without_photometric_interpretation_is_refused(tmp_path: Path):
    def write_picture(file: Path, image: np.ndarray) -> None:
        write_tiff(file, image.shape, image.astype(np.uint8).tobytes(), 8, 1, photometric=None)

    message = get_error_message(write(tmp_path / "p" / "T2", draw_head(), write_picture, "tif"))
    assert "001.tif" in message and "PhotometricInterpretation" in message


@pytest.mark.parametrize("levels, invert", [
    (256, lambda image: 255 - image), (65536, lambda image: 65535 - image),
    (256, lambda image: 250 - image * 9 // 10),
])  # fmt: skip
def test_a_negative_image_is_refused(tmp_path: Path, levels: int, invert: Callable[[np.ndarray], np.ndarray]):
    stack = invert(draw_head(levels)).astype(np.uint8 if levels == 256 else np.uint16)
    message = get_error_message(
        write(tmp_path / "p" / "T2", stack, lambda file, image: Image.fromarray(image).save(file), "png")
    )
    assert "p/T2" in message and "negative" in message


@pytest.mark.parametrize("at", [0, 1, 2])
def test_one_negative_slice_is_refused(tmp_path: Path, at: int):
    stack = draw_head()
    stack[at] = 255 - stack[at]
    message = get_error_message(write(tmp_path / "p" / "T2", stack, write_grey, "png"))
    assert f"slice {at + 1:03d}" in message and "negative" in message


@pytest.mark.parametrize("others", [
    [write_grey, write_white_is_zero, write_grey], [write_white_is_zero, write_grey, write_white_is_zero],
    [write_grey, write_palette, write_inverted_palette],
])  # fmt: skip
def test_mixed_polarities_within_a_sequence_are_read(tmp_path: Path, others: list[Write]):
    folder = tmp_path / "p" / "T2"
    folder.mkdir(parents=True)
    for number, (write_picture, image) in enumerate(zip(others, draw_head().astype(np.uint8), strict=True)):
        write_picture(
            folder / f"{number}.tif", image
        ) if write_picture is not write_inverted_palette else write_picture(folder / f"{number}.png", image)
    np.testing.assert_array_equal(read(tmp_path / "p"), draw_head())


# ---- depths -----------------------------------------------------------------------------------------


def write_16_bit(file: Path, image: np.ndarray) -> None:
    Image.fromarray(image.astype(np.uint16) * 257).save(file)


def write_float(file: Path, image: np.ndarray) -> None:
    Image.fromarray(image.astype(np.float32) / 255).save(file)


def write_32_bit(file: Path, image: np.ndarray) -> None:
    Image.fromarray(image.astype(np.int32) * 257).save(file)


@pytest.mark.parametrize("one, other, suffix, depths", [
    (write_grey, write_16_bit, "png", ("8-bit", "16-bit")), (write_16_bit, write_grey, "png", ("16-bit", "8-bit")),
    (write_grey, write_float, "tif", ("8-bit", "floating-point")),
    (write_16_bit, write_32_bit, "tif", ("16-bit", "32-bit")),
    (write_16_bit, create_colour_writer("RGB"), "png", ("16-bit", "8-bit")),
])  # fmt: skip
def test_mixed_bit_depths_within_a_sequence_are_refused(
    tmp_path: Path, one: Write, other: Write, suffix: str, depths: tuple[str, str]
):
    def write_picture(file: Path, image: np.ndarray) -> None:
        (other if file.stem == "002" else one)(file, image)

    message = get_error_message(write(tmp_path / "p" / "T2", draw_head(), write_picture, suffix))
    assert f"002.{suffix}" in message and f"001.{suffix}" in message
    assert all(depth in message for depth in depths)


@pytest.mark.parametrize(
    "write_picture, suffix",
    [(write_16_bit, "png"), (write_16_bit, "tif"), (write_float, "tif"), (write_32_bit, "tif")],
)
def test_sequences_may_differ_in_depth(tmp_path: Path, write_picture: Write, suffix: str):
    write(tmp_path / "p" / "T1C", draw_head(), write_grey, "png")
    stack = read(write(tmp_path / "p" / "T2", draw_head(), write_picture, suffix))
    np.testing.assert_allclose(
        stack * (255 / stack.max()) / (255 / draw_head().max()), draw_head(), atol=1e-3
    )


def write_raw_png(
    file: Path, rows: list[bytes], columns: int, bits: int, colour: int, *chunks: tuple[bytes, bytes]
) -> None:
    def pack_chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", columns, len(rows), bits, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(pack_chunk(*part) for part in parts))


@pytest.mark.parametrize("colour, samples", [(2, 3), (4, 2), (6, 4)])
def test_16_bit_colour_or_alpha_pictures_are_refused(tmp_path: Path, colour: int, samples: int):
    def write_picture(file: Path, image: np.ndarray) -> None:
        layers = np.repeat(image.astype(">u2")[..., None], samples, axis=2)
        if samples in (2, 4):
            layers[..., -1] = 65535
        write_raw_png(file, [row.tobytes() for row in layers], image.shape[1], 16, colour)

    message = get_error_message(write(tmp_path / "p" / "T2", draw_head(4096), write_picture, "png"))
    assert "001.png" in message and "16-bit" in message


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_slices_stored_with_fewer_bits_keep_the_8_bit_scale(tmp_path: Path, bits: int):
    """Optimisers choose the bit depth per slice; grey values stay on the 8-bit scale."""
    top = 2**bits - 1
    few = (draw_head()[0] * top // draw_head()[0].max()).astype(np.uint8)

    def write_picture(file: Path, image: np.ndarray) -> None:
        if file.stem != "002":
            write_grey(file, image)
            return
        planes = np.unpackbits(few[..., None], axis=2)[..., 8 - bits :].reshape(len(few), -1)
        write_raw_png(file, [row.tobytes() for row in np.packbits(planes, axis=1)], few.shape[1], bits, 0)

    image = read(write(tmp_path / "p" / "T2", draw_head(), write_picture, "png"))
    np.testing.assert_array_equal(image[1], few * (255 // top))
    np.testing.assert_array_equal(image[0], draw_head()[0])


# ---- transparency -----------------------------------------------------------------------------------


def create_transparent_writer(mode: str, hidden: int, alpha: int = 0) -> Write:
    """Write the head with a bright, transparent corner."""

    def write_picture(file: Path, image: np.ndarray) -> None:
        shade = image.astype(np.uint8)
        shade[:10, :10] = hidden
        opaque = np.full_like(shade, 255)
        opaque[:10, :10] = alpha
        bands = [shade, opaque] if mode == "LA" else [shade, shade, shade, opaque]
        Image.merge(mode, [Image.fromarray(band) for band in bands]).save(file)

    return write_picture


def create_keyed_writer(mode: str) -> Write:
    """Write a picture with one transparent grey value, colour or palette entry (tRNS)."""

    def write_picture(file: Path, image: np.ndarray) -> None:
        shade = image.astype(np.uint8)
        shade[:10, :10] = 255
        if mode == "I;16":
            Image.fromarray(shade.astype(np.uint16)).save(file, transparency=255)
        elif mode == "P":
            picture = Image.fromarray(shade, mode="P")
            picture.putpalette(np.repeat(np.arange(256, dtype=np.uint8), 3).tobytes())
            picture.save(file, transparency=255)
        else:
            Image.fromarray(shade).convert(mode).save(file, transparency=255 if mode == "L" else (255,) * 3)

    return write_picture


@pytest.mark.parametrize("write_picture", [
    create_transparent_writer("LA", 255), create_transparent_writer("RGBA", 255), create_transparent_writer("LA", 0),
    create_keyed_writer("L"), create_keyed_writer("RGB"), create_keyed_writer("P"), create_keyed_writer("I;16"),
])  # fmt: skip
def test_transparent_pixels_are_background(tmp_path: Path, write_picture: Write):
    study = read_study(write(tmp_path / "p" / "T2", draw_head(), write_picture, "png"))
    series = study.series[MRSequence.T2]
    np.testing.assert_array_equal(series.image, draw_head())
    assert series.missing is not None and series.missing.sum() == 300
    assert series.missing[:, :10, :10].all()
    assert any("300 voxels have no grey value" in note for note in study.notes)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("alpha", [1, 128, 254])
def test_half_transparent_pixels_are_refused(tmp_path: Path, mode: str, alpha: int):
    message = get_error_message(
        write(tmp_path / "p" / "T2", draw_head(), create_transparent_writer(mode, 200, alpha), "png")
    )
    assert "001.png" in message and "partly transparent" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_pixels_are_background(tmp_path: Path, value: float):
    stack = draw_head().astype(np.float32)
    stack[1, :2, :3] = value
    study = read_study(
        write(tmp_path / "p" / "T2", stack, lambda file, image: Image.fromarray(image).save(file), "tif")
    )
    np.testing.assert_array_equal(study.series[MRSequence.T2].image, draw_head())
    assert any("T2: 6 voxels have no grey value" in note for note in study.notes)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_constant_image_is_refused(tmp_path: Path, value: int):
    assert "p/T2 is black or has the same grey value" in get_error_message(
        write(tmp_path / "p" / "T2", np.full((3, 40, 48), value), write_grey, "png")
    )


# ---- masks ------------------------------------------------------------------------------------------


def write_one_bit(file: Path, image: np.ndarray) -> None:
    Image.fromarray(image > 0).save(file)


def write_transparent_mask(file: Path, image: np.ndarray) -> None:
    """Write a white mask that is opaque only on the lesion."""
    white = np.full(image.shape, 255, np.uint8)
    Image.merge("LA", [Image.fromarray(white), Image.fromarray((image > 0).astype(np.uint8) * 255)]).save(
        file
    )


@pytest.mark.parametrize("write_picture, suffix", [
    (write_grey, "png"), (write_one_bit, "png"), (write_one_bit, "tif"), (write_one_bit, "bmp"),
    (write_white_is_zero, "tif"), (write_16_bit, "png"), (write_transparent_mask, "png"), (write_palette, "png"),
])  # fmt: skip
@pytest.mark.parametrize("marked", [1, 255])
def test_masks_in_every_encoding_are_read(tmp_path: Path, write_picture: Write, suffix: str, marked: int):
    write(tmp_path / "p" / "T2", draw_head(), write_grey, "png")
    mask = np.zeros((3, 40, 48), np.uint8)
    mask[1, 15:20, 20:26] = marked
    lesion = read_study(write(tmp_path / "p" / "mask", mask, write_picture, suffix)).lesion
    assert lesion is not None
    np.testing.assert_array_equal(lesion.image, mask > 0)


def test_inverted_or_mixed_masks_are_refused(tmp_path: Path):
    patient = write(tmp_path / "p" / "T2", draw_head(), write_grey, "png")
    mask = np.zeros((3, 40, 48), np.uint8)
    mask[1, 15:20, 20:26] = 255
    assert "inverted" in get_error_message(write(patient / "mask", 255 - mask, write_grey, "png"))
    mask[2, 15:20, 20:26] = 1
    assert "003.png" in get_error_message(write(patient / "mask", mask, write_grey, "png"))


# ---- order ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ascending", [
    ["-71.5", "-66.0", "-0.5", "0", "5.5", "11", "104.25"],
    ["-20", "-3", "+1", "+10"],
    ["\N{MINUS SIGN}20", "-3", "0", "7"],
    ["-7,5", "-2,25", "1,5"],
    ["-71.5", "-66.0", "-5.5"],
    ["z-71.5", "z-5.5", "z0.0", "z5.5", "z10.5"],
    ["-71.5mm", "5.5mm", "10.5mm"],
    ["pos_9.25", "pos_9.5", "pos_10.0"],
    ["I71.5", "I5.5", "S0", "S5.5", "S10"],
    ["001", "002", "010"], ["1", "2", "10"],
    ["slice-1", "slice-2", "slice-10"],
    ["IM-0001-0001", "IM-0001-0002", "IM-0001-0010"],
    ["1.1", "1.2", "1.9", "1.10", "1.11"],
    ["1.9", "1.10", "1.11"],
    ["a2", "b1", "b10"],
    ["1.2.840.9", "1.2.840.10"],
])  # fmt: skip
def test_slices_are_ordered_by_number(tmp_path: Path, ascending: list[str]):
    shuffled = np.random.default_rng(2).permutation(ascending).tolist()
    assert sort_slice_names(shuffled) == ascending
    folder = tmp_path / "p" / "T2"
    folder.mkdir(parents=True)
    for number, name in enumerate(ascending, start=1):
        write_grey(folder / f"{name}.png", draw_head()[0] // 2 + number)
    series = read_study(tmp_path / "p").series[MRSequence.T2]
    assert series.slice_names == tuple(ascending)
    assert series.image[:, 0, 0].tolist() == list(range(1, len(ascending) + 1))
