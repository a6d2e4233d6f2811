"""Grey values of DICOM images: polarity, bits, rescale, padding, in classic and enhanced files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

from gliomark.errors import GliomarkError
from gliomark.io import read_study
from gliomark.messages import Message, render_message
from gliomark.study import MRSequence, Study

T2 = {"SeriesDescription": "t2 tse", "RepetitionTime": 4000, "EchoTime": 95}
SLICES, ROWS, COLUMNS = 5, 24, 20
FORMS = ("classic", "enhanced")


def draw_head(top: int = 1800) -> np.ndarray:
    """``(slice, row, column)``: a round head in air of value 2, brighter to the right and from slice to slice."""
    slices, rows, columns = np.indices((SLICES, ROWS, COLUMNS))
    inside = (rows - 12) ** 2 / 100 + (columns - 10) ** 2 / 64 < 1
    return np.where(inside, top // 4 + columns * top // 60 + slices * top // 20, 2).astype(np.int64)


def create_sequence_item(**tags: Any) -> Sequence:
    dataset = Dataset()
    for tag, value in tags.items():
        set_attribute(dataset, tag, value)
    return Sequence([dataset])


def set_attribute(dataset: Dataset, keyword: str, value: Any) -> None:
    """Set an attribute, remove it (None), or store a text that is not a number (``raw:``)."""
    tag = pydicom.tag.Tag(keyword)
    if value is None:
        del dataset[tag]
    elif isinstance(value, str) and value.startswith("raw:"):
        text = value[4:].encode()
        dataset[tag] = pydicom.dataelem.RawDataElement(tag, "DS", len(text), text, 0, False, True)
    else:
        setattr(dataset, keyword, value)


def create_blank_dataset(sop_class: UID, syntax: UID, **tags: Any) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = sop_class, generate_uid(), "MR"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, dataset.SOPInstanceUID
    dataset.PatientID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "P-7", "1.2.3", "1.2.3.4"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = ROWS, COLUMNS
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    return dataset


def write(
    folder: Path, stored: np.ndarray, form: str = "classic", *, syntax: UID = ExplicitVRLittleEndian,
    get_slice_tags: Callable[[int], dict[str, Any]] = lambda at: {}, dtype: str = "<u2", keyword: str = "PixelData",
    **tags: Any,
) -> Path:  # fmt: skip
    """Write stored values as a series of files or one enhanced file. of_slice: more attributes of one slice."""
    folder.mkdir(parents=True, exist_ok=True)
    if syntax == ExplicitVRBigEndian:
        dtype = dtype.replace("<", ">")
    pixels = [
        (plane.astype(dtype) if keyword != "PixelData" else (plane & 0xFFFF).astype(dtype))
        for plane in stored
    ]
    if form == "enhanced":
        write_enhanced(folder / "frames.dcm", pixels, syntax, get_slice_tags, keyword, tags)
        return folder
    for at, plane in enumerate(pixels):
        dataset = create_blank_dataset(MRImageStorage, syntax, InstanceNumber=at + 1, **T2)
        dataset.ImageOrientationPatient, dataset.PixelSpacing = [1, 0, 0, 0, 1, 0], [9.0, 9.0]
        dataset.ImagePositionPatient = [0, 0, 5 * at]
        finish(dataset, plane.tobytes(), keyword, tags | get_slice_tags(at), folder / f"{at}.dcm")
    return folder


def write_enhanced(
    file: Path, pixels: list[np.ndarray], syntax: UID, get_slice_tags: Callable[[int], dict[str, Any]], keyword: str,
    tags: dict[str, Any],
) -> None:  # fmt: skip
    """Write rescale attributes in shared functional groups, or per frame if they differ."""
    dataset = create_blank_dataset(
        EnhancedMRImageStorage, syntax, NumberOfFrames=len(pixels), SeriesDescription="t2 tse"
    )
    scaling = {tag: value for tag, value in tags.items() if tag.startswith("Rescale")}
    shared = {
        "PlaneOrientationSequence": create_sequence_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        "PixelMeasuresSequence": create_sequence_item(PixelSpacing=[9.0, 9.0]),
        "MRTimingAndRelatedParametersSequence": create_sequence_item(RepetitionTime=4000),
        "MREchoSequence": create_sequence_item(EffectiveEchoTime=95.0),
    }
    if scaling:
        shared["PixelValueTransformationSequence"] = create_sequence_item(**scaling)
    dataset.SharedFunctionalGroupsSequence = create_sequence_item(**shared)
    frames = []
    for at in range(len(pixels)):
        groups = {"PlanePositionSequence": create_sequence_item(ImagePositionPatient=[0, 0, 5 * at])}
        if frame_tags := get_slice_tags(at):
            groups["PixelValueTransformationSequence"] = create_sequence_item(**frame_tags)
        frames.append(create_sequence_item(**groups)[0])
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    rest = {tag: value for tag, value in tags.items() if tag not in scaling}
    finish(dataset, b"".join(plane.tobytes() for plane in pixels), keyword, rest, file)


def finish(dataset: FileDataset, pixels: bytes, keyword: str, tags: dict[str, Any], file: Path) -> None:
    setattr(dataset, keyword, pixels)
    if keyword == "PixelData":
        dataset["PixelData"].VR = "OW"
    for tag, value in tags.items():
        set_attribute(dataset, tag, value)
    syntax = dataset.file_meta.TransferSyntaxUID
    implicit, little = syntax.is_implicit_VR, syntax.is_little_endian
    pydicom.dcmwrite(file, dataset, implicit_vr=implicit, little_endian=little, force_encoding=True)


def read(folder: Path) -> tuple[np.ndarray, Study]:
    study = read_study(folder)
    return study.series[MRSequence.T2].image, study


def get_error_message(folder: Path) -> str:
    with pytest.raises(GliomarkError) as caught:
        read_study(folder)
    message = caught.value.message
    assert isinstance(message, Message) and "\n" not in message and render_message(message, "zh") != message
    assert str(folder) in message
    return message


def create_bit_attributes(number: int, signed: bool = False) -> dict[str, int]:
    return {"BitsStored": number, "HighBit": number - 1, "PixelRepresentation": int(signed)}


# ---- polarity ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stored, signed", [(12, False), (16, False), (13, False), (12, True), (16, True)])
@pytest.mark.parametrize("scaling", [{}, {"RescaleSlope": 2.5, "RescaleIntercept": -30}])
def test_monochrome1_is_inverted_within_its_bits(
    tmp_path: Path, form: str, stored: int, signed: bool, scaling: dict[str, float]
):
    original = draw_head() - (900 if signed else 0)
    inverted = (-1 if signed else 2**stored - 1) - original
    tags = create_bit_attributes(stored, signed) | scaling
    image, study = read(
        write(tmp_path / "p", inverted, form, PhotometricInterpretation="MONOCHROME1", **tags)
    )
    slope, intercept = scaling.get("RescaleSlope", 1), scaling.get("RescaleIntercept", 0)
    np.testing.assert_allclose(image, original * slope + intercept, atol=1e-3)
    assert not study.notes


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_monochrome1_in_every_byte_order(tmp_path: Path, syntax: UID):
    folder = write(tmp_path / "p", 4095 - draw_head(), syntax=syntax, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read(folder)[0], draw_head())


@pytest.mark.parametrize(
    "coding", ["RLELossless", "JPEGLSLossless", "JPEG2000Lossless", "JPEGLosslessProcess14_1"]
)
@pytest.mark.parametrize("signed", [False, True])
def test_monochrome1_compressed(tmp_path: Path, coding: str, signed: bool):
    original = draw_head() - (900 if signed else 0)
    folder = write(
        tmp_path / "p",
        (-1 if signed else 4095) - original,
        PhotometricInterpretation="MONOCHROME1",
        **create_bit_attributes(12, signed),
    )
    for file in sorted(folder.iterdir()):
        compress(file, coding)
    np.testing.assert_array_equal(read(folder)[0], original)


def compress(file: Path, coding: str) -> None:
    dataset = pydicom.dcmread(file)
    if coding in ("RLELossless", "JPEGLSLossless"):
        dataset.compress(getattr(pydicom.uid, coding), generate_instance_uid=False)
        dataset.save_as(file)
        return
    import gdcm

    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(file))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, coding)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(f"{file}.coded")
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    coded = pydicom.dcmread(f"{file}.coded")
    dataset.PixelData, dataset["PixelData"].VR = coded.PixelData, "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = coded.file_meta.TransferSyntaxUID
    dataset.save_as(file)
    Path(f"{file}.coded").unlink()


def test_both_monochrome_interpretations_within_one_series_are_read(tmp_path: Path):
    stored = draw_head()
    stored[1::2] = 4095 - stored[1::2]
    folder = write(
        tmp_path / "p",
        stored,
        get_slice_tags=lambda at: {"PhotometricInterpretation": f"MONOCHROME{1 if at % 2 else 2}"},
    )
    np.testing.assert_array_equal(read(folder)[0], draw_head())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_a_negative_image_not_declared_in_the_header_is_refused(tmp_path: Path, form: str, photometric: str):
    stored = 4095 - draw_head() if photometric == "MONOCHROME2" else draw_head()
    assert "is bright in air" in get_error_message(
        write(tmp_path / "p", stored, form, PhotometricInterpretation=photometric)
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("at", [0, 2, 4])
def test_one_negative_slice_is_refused(tmp_path: Path, form: str, at: int):
    stored = draw_head()
    stored[at] = 2700 - stored[at]
    assert f"on slice {at + 1:03d}" in get_error_message(write(tmp_path / "p", stored, form))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("missing", [
    ("PhotometricInterpretation",), ("SamplesPerPixel",), ("PhotometricInterpretation", "SamplesPerPixel"),
    ("HighBit",), ("BitsStored",), ("PixelRepresentation",),
])  # fmt: skip
def test_attributes_removed_by_anonymisers_are_inferred(tmp_path: Path, form: str, missing: tuple[str, ...]):
    """Attributes that can be inferred are inferred, with a note if another value was possible."""
    image, study = read(write(tmp_path / "p", draw_head(), form, **dict.fromkeys(missing)))
    np.testing.assert_array_equal(image, draw_head())
    for name in ("PhotometricInterpretation", "PixelRepresentation"):
        assert (name in missing) == any(f"{name} is missing" in note for note in study.notes)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("change, attribute", [
    (lambda stored: 4095 - stored, "PhotometricInterpretation"),
    (lambda stored: stored - 600, "PixelRepresentation"),
    (lambda stored: stored, "BitsAllocated"),
])  # fmt: skip
def test_ambiguous_missing_attributes_are_refused(
    tmp_path: Path, form: str, change: Callable[[np.ndarray], np.ndarray], attribute: str
):
    message = get_error_message(write(tmp_path / "p", change(draw_head()) & 0xFFF, form, **{attribute: None}))
    assert f"lacks the attribute {attribute}" in message and "truncated" not in message


def test_presentation_lut_shape_replaces_a_missing_photometric_interpretation(tmp_path: Path):
    folder = write(
        tmp_path / "p", 4095 - draw_head(), PhotometricInterpretation=None, PresentationLUTShape="INVERSE"
    )
    np.testing.assert_array_equal(read(folder)[0], draw_head())


def create_grey_palette(order: np.ndarray) -> dict[str, Any]:
    """A 16-bit palette whose entry i is the grey value order[i]."""
    tags: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [len(order) % 65536, 0, 16]
        tags[f"{colour}PaletteColorLookupTableData"] = order.astype("<u2").tobytes()
    return tags


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("order", [
    np.arange(4096), np.arange(4095, -1, -1), np.random.default_rng(5).permutation(4096),
], ids=["as stored", "inverted", "permuted"])  # fmt: skip
def test_a_grey_palette_is_applied(tmp_path: Path, form: str, order: np.ndarray):
    indices = np.argsort(order)
    image, _ = read(write(tmp_path / "p", indices[draw_head()], form, **create_grey_palette(order)))
    np.testing.assert_array_equal(image, draw_head())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tags, expected_text", [
    ({"GreenPaletteColorLookupTableData": np.zeros(4096, "<u2").tobytes()}, "colour"),
    ({"GreenPaletteColorLookupTableData": b""}, "lookup table"),
    ({"PhotometricInterpretation": None}, "PhotometricInterpretation"),
])  # fmt: skip
def test_a_colour_or_incomplete_palette_is_refused(
    tmp_path: Path, form: str, tags: dict[str, Any], expected_text: str
):
    assert expected_text in get_error_message(
        write(tmp_path / "p", draw_head(), form, **(create_grey_palette(np.arange(4096)) | tags))
    )


@pytest.mark.parametrize("photometric", ["RGB", "HSV", "MONOCHROME3", "YBR_FULL"])
def test_a_photometric_interpretation_unsuitable_for_grey_is_refused(tmp_path: Path, photometric: str):
    assert photometric in get_error_message(
        write(tmp_path / "p", draw_head(), PhotometricInterpretation=photometric)
    )


@pytest.mark.parametrize("layer", [lambda grey: grey, lambda grey: grey // 2])
def test_three_undeclared_samples_are_refused(tmp_path: Path, layer: Callable[[np.ndarray], np.ndarray]):
    grey = draw_head(200)
    stored = np.stack([grey, grey, layer(grey)], axis=-1)
    tags = {
        "SamplesPerPixel": None,
        "PhotometricInterpretation": None,
        "BitsAllocated": 8,
        "PlanarConfiguration": 0,
    }
    message = get_error_message(write(tmp_path / "p", stored, dtype="u1", **tags, **create_bit_attributes(8)))
    assert "PhotometricInterpretation" in message


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_a_colour_series_is_refused_or_skipped_with_a_note(tmp_path: Path, form: str, photometric: str):
    stored = np.repeat(draw_head(200)[..., None], 3, axis=-1)
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": photometric, "BitsAllocated": 8}
    folder = write(tmp_path / "p" / "a", stored, form, dtype="u1", PlanarConfiguration=0, SeriesInstanceUID="1.2.9",
                   **tags, **create_bit_attributes(8))  # fmt: skip
    assert "is a colour image" in get_error_message(folder)
    write(tmp_path / "p" / "b", draw_head())
    image, study = read(tmp_path / "p")
    np.testing.assert_array_equal(image, draw_head())
    assert any("images are colour images" in note for note in study.notes)


# ---- bits -------------------------------------------------------------------------------------------


def draw_overlay(stored: np.ndarray, bit: int) -> np.ndarray:
    """Draw two vertical lines in one bit, like an overlay in unused bits."""
    drawn = stored.copy()
    drawn[:, 4:20, [4, 15]] |= 1 << bit
    return drawn


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bit", [12, 14, 15])
@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("signed", [False, True])
def test_overlays_in_unused_bits_are_removed(
    tmp_path: Path, form: str, bit: int, declared: bool, signed: bool
):
    original = draw_head() - (900 if signed else 0)
    tags: dict[str, Any] = create_bit_attributes(12, signed)
    folder = write(tmp_path / "p", draw_overlay(original & 0xFFF, bit), form, **tags)
    if declared:
        for file in folder.iterdir():
            dataset = pydicom.dcmread(file)
            dataset.add_new((0x6000, 0x0102), "US", bit)
            dataset.save_as(file)
    np.testing.assert_array_equal(read(folder)[0], original)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("extended", [True, False])
@pytest.mark.parametrize("stored", [11, 12, 15])
def test_sign_bits_are_extended(tmp_path: Path, form: str, extended: bool, stored: int):
    original = draw_head(900) - 700
    pixels = original if extended else original & (2**stored - 1)
    np.testing.assert_array_equal(
        read(write(tmp_path / "p", pixels, form, **create_bit_attributes(stored, True)))[0], original
    )


FEW_BITS = [
    (9000, 12, False), (3600, 11, False), (3600, 12, True), (700, 8, False), (700, 9, True), (700, 7, False),
    (700, 5, False), (700, 3, False), (700, 3, True), (700, 1, False), (60000, 6, False),
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("top, stored, signed", FEW_BITS)
def test_values_larger_than_their_bits_are_refused(
    tmp_path: Path, form: str, top: int, stored: int, signed: bool
):
    """Truncated to BitsStored, they would wrap around without notice."""
    rows, columns = np.indices((ROWS, COLUMNS))
    hill = np.exp(-((rows - 12) ** 2 / 60 + (columns - 10) ** 2 / 50)) * top
    pixels = np.stack([hill * (1 + 0.02 * at) for at in range(SLICES)]).astype(np.int64)
    assert "BitsStored" in get_error_message(
        write(tmp_path / "p", pixels, form, **create_bit_attributes(stored, signed))
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shift", [1, 3, 4])
@pytest.mark.parametrize("signed", [False, True])
def test_values_stored_in_higher_bits_are_shifted(tmp_path: Path, form: str, shift: int, signed: bool):
    original = draw_head() - (900 if signed else 0)
    tags = {"BitsStored": 12, "HighBit": 11 + shift, "PixelRepresentation": int(signed)}
    np.testing.assert_array_equal(read(write(tmp_path / "p", original << shift, form, **tags))[0], original)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tags", [
    {"BitsStored": 17, "HighBit": 16}, {"BitsStored": 12, "HighBit": 10}, {"BitsStored": 12, "HighBit": 16},
    {"BitsStored": 12, "HighBit": 15}, {"BitsAllocated": 12},
])  # fmt: skip
def test_contradictory_bit_attributes_are_refused(tmp_path: Path, form: str, tags: dict[str, int]):
    """The second to last combination is valid, but its unused low bits are set."""
    assert "HighBit" in get_error_message(write(tmp_path / "p", draw_head(), form, **tags))


@pytest.mark.parametrize("at", [0, 2, 4])
def test_mixed_bit_depths_within_a_series_are_refused(tmp_path: Path, at: int):
    folder = write(tmp_path / "p", draw_head(250))
    narrow = write(tmp_path / "q", draw_head(250), dtype="u1", BitsAllocated=8, **create_bit_attributes(8))
    (folder / f"{at}.dcm").write_bytes((narrow / f"{at}.dcm").read_bytes())
    message = get_error_message(folder)
    assert "8" in message and "16" in message and "cannot be compared" in message and f"{at}.dcm" in message


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("keyword, dtype", [("FloatPixelData", "<f4"), ("DoubleFloatPixelData", "<f8")])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_floating_point_pixels(tmp_path: Path, form: str, keyword: str, dtype: str, value: float):
    pixels = draw_head().astype(float) / 7
    pixels[1, 0, :3] = value
    folder = write(tmp_path / "p", pixels, form, dtype=dtype, keyword=keyword, BitsAllocated=int(dtype[-1]) * 8,
                   BitsStored=None, HighBit=None, PixelRepresentation=None)  # fmt: skip
    image, study = read(folder)
    np.testing.assert_allclose(image, draw_head() / 7, rtol=1e-5)
    assert any("T2: 3 voxels have no grey value" in note for note in study.notes)


# ---- rescale ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("slopes, intercepts", [
    ([1, 2, 0.5, 4, 1.25], [0, 0, 0, 0, 0]), ([1, 1, 1, 1, 1], [0, -5, 3, 100, 0]),
    ([0.25, 2, 0.5, 4, 1.25], [-3, 5, 7, 9, -1]),
])  # fmt: skip
def test_each_slice_has_its_own_rescaling(
    tmp_path: Path, form: str, slopes: list[float], intercepts: list[float]
):
    """Philips rescales each slice differently; each slice needs its own slope and intercept."""
    slope, intercept = (np.array(one)[:, None, None] for one in (slopes, intercepts))
    original = np.round(draw_head() / 20) * 20 * 1.0
    stored = np.round((original - intercept) / slope)
    folder = write(
        tmp_path / "p", stored.astype(np.int64), form, **create_bit_attributes(16, True),
        get_slice_tags=lambda at: {"RescaleSlope": slopes[at], "RescaleIntercept": intercepts[at]},
    )  # fmt: skip
    np.testing.assert_allclose(read(folder)[0], stored * slope + intercept, atol=1e-3)


UNUSABLE = [0, "raw:NaN", "raw:inf", "raw:abc", "raw:1,5"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("slope", UNUSABLE)
def test_an_invalid_slope_in_the_whole_series_is_ignored_with_a_note(tmp_path: Path, form: str, slope: Any):
    image, study = read(write(tmp_path / "p", draw_head(), form, RescaleSlope=slope, RescaleIntercept=5))
    np.testing.assert_array_equal(image, draw_head())
    assert any("RescaleSlope" in note for note in study.notes)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("intercept", UNUSABLE[1:])
def test_an_invalid_intercept_is_ignored_with_a_note(tmp_path: Path, form: str, intercept: Any):
    image, study = read(write(tmp_path / "p", draw_head(), form, RescaleSlope=2, RescaleIntercept=intercept))
    np.testing.assert_array_equal(image, draw_head())
    assert any("RescaleIntercept" in note for note in study.notes)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("slope", [*UNUSABLE, None])
def test_a_slope_missing_in_one_slice_is_refused(tmp_path: Path, form: str, slope: Any):
    def get_slice_tags(at: int) -> dict[str, Any]:
        if at != 2:
            return {"RescaleSlope": 2.5, "RescaleIntercept": 1}
        return {} if slope is None else {"RescaleSlope": slope, "RescaleIntercept": 1}

    message = get_error_message(write(tmp_path / "p", draw_head(), form, get_slice_tags=get_slice_tags))
    assert "RescaleSlope" in message and (form == "enhanced" or "2.dcm" in message)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tags", [{"RescaleSlope": 3}, {"RescaleIntercept": 7}, {}])
def test_a_missing_slope_or_intercept_gets_its_default(tmp_path: Path, form: str, tags: dict[str, float]):
    image, study = read(write(tmp_path / "p", draw_head(), form, **tags))
    np.testing.assert_array_equal(
        image, draw_head() * tags.get("RescaleSlope", 1) + tags.get("RescaleIntercept", 0)
    )
    assert not study.notes


@pytest.mark.parametrize("tags", [
    {"WindowCenter": 300, "WindowWidth": 50}, {"WindowCenter": [10, 20], "WindowWidth": [1, 2]},
    {"VOILUTSequence": create_sequence_item(LUTDescriptor=[4, 0, 16], LUTData=bytes(8))},
    {"RealWorldValueMappingSequence": create_sequence_item(RealWorldValueSlope=9.0, RealWorldValueIntercept=3.0,
                                           RealWorldValueFirstValueMapped=0, RealWorldValueLastValueMapped=4095)},
])  # fmt: skip
def test_windows_and_real_world_values_change_nothing(tmp_path: Path, tags: dict[str, Any]):
    np.testing.assert_array_equal(read(write(tmp_path / "p", draw_head(), **tags))[0], draw_head())


def test_philips_private_scaling_changes_nothing(tmp_path: Path):
    folder = write(tmp_path / "p", draw_head(), RescaleSlope=2, RescaleIntercept=0)
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        block = dataset.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
        block.add_new(0x0E, "FL", 0.013)
        dataset.save_as(file)
    np.testing.assert_array_equal(read(folder)[0], draw_head() * 2)


@pytest.mark.parametrize("direction", ["MONOCHROME2", "MONOCHROME1"])
def test_a_modality_lut_is_applied(tmp_path: Path, direction: str):
    table = np.arange(4096) * 3 + 11
    lut = create_sequence_item(
        LUTDescriptor=[4096, 0, 16], LUTData=table.astype("<u2").tobytes(), ModalityLUTType="US"
    )
    stored = draw_head() if direction == "MONOCHROME2" else 4095 - draw_head()
    folder = write(tmp_path / "p", stored, ModalityLUTSequence=lut, PhotometricInterpretation=direction)
    np.testing.assert_array_equal(read(folder)[0], table[draw_head()])


# ---- padding ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("padding, written, signed", [
    (-2000, -2000, True), (-2000, 63536, True), (-32768, -32768, True), (4000, 4000, False), (65535, 65535, False),
])  # fmt: skip
@pytest.mark.parametrize("direction", ["MONOCHROME2", "MONOCHROME1"])
def test_padding_is_background(
    tmp_path: Path, form: str, padding: int, written: int, signed: bool, direction: str
):
    tags = create_bit_attributes(16, signed) | {"PhotometricInterpretation": direction}
    stored = draw_head()
    if direction == "MONOCHROME1":
        stored = (-1 if signed else 65535) - stored
        if padding == 65535:
            padding = written = 0
        elif padding == -32768:
            padding = written = 32767
    stored[:, :4] = padding
    folder = write(tmp_path / "p", stored, form, **tags)
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.add_new((0x0028, 0x0120), "SS" if written < 0 else "US", written)
        dataset.save_as(file)
    image, _ = read(folder)
    expected = draw_head()
    expected[:, :4] = 2
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("first, last", [(3900, 4095), (4095, 3900), (4000, 4000)])
def test_a_range_of_padding(tmp_path: Path, first: int, last: int):
    stored = draw_head()
    stored[:, :4] = np.linspace(min(first, last), max(first, last), 4 * COLUMNS).reshape(4, COLUMNS)
    folder = write(tmp_path / "p", stored, PixelPaddingValue=first, PixelPaddingRangeLimit=last)
    expected = draw_head()
    expected[:, :4] = 2
    np.testing.assert_array_equal(read(folder)[0], expected)


@pytest.mark.parametrize("keyword, dtype, name", [
    ("FloatPixelData", "<f4", "FloatPixelPaddingValue"),
    ("DoubleFloatPixelData", "<f8", "DoubleFloatPixelPaddingValue"),
])  # fmt: skip
def test_floating_point_padding(tmp_path: Path, keyword: str, dtype: str, name: str):
    pixels = draw_head().astype(float)
    pixels[:, :4] = 9e5
    folder = write(tmp_path / "p", pixels, dtype=dtype, keyword=keyword, BitsAllocated=int(dtype[-1]) * 8,
                   BitsStored=None, HighBit=None, PixelRepresentation=None, **{name: 9e5})  # fmt: skip
    expected = draw_head()
    expected[:, :4] = 2
    np.testing.assert_array_equal(read(folder)[0], expected)


def test_a_padding_value_that_occurs_in_the_head_is_kept_there(tmp_path: Path):
    stored = draw_head()
    grey = int(stored[2, 12, 10])
    stored[:, :2] = grey
    image, _ = read(write(tmp_path / "p", stored, PixelPaddingValue=grey))
    np.testing.assert_array_equal(image, draw_head())


def test_padding_as_dark_as_air_is_unchanged(tmp_path: Path):
    stored = draw_head()
    stored[:, :4] = 0
    np.testing.assert_array_equal(read(write(tmp_path / "p", stored, PixelPaddingValue=0))[0], stored)


# ---- one value --------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [0, 7, 4095])
def test_a_constant_image_is_refused(tmp_path: Path, form: str, value: int):
    assert "same grey value everywhere" in get_error_message(
        write(tmp_path / "p", np.full((5, 24, 20), value), form)
    )
