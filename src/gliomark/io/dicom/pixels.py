"""Decode stored pixels to grey values where larger means brighter, on one scale for all slices.

Bits beyond BitsStored are removed and signs extended. RescaleSlope and RescaleIntercept (or a Modality LUT) are
applied per image. MONOCHROME1 is inverted within the range of its stored values. Padding becomes background.
VOI windows, real-world value mappings and private scalings are never applied.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, get_decoder
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gliomark.errors import GliomarkError, InputError
from gliomark.io.dicom.dataset_reader import InflatedSizeError, label_as_jpeg_2000, read_dataset
from gliomark.io.dicom.header_metadata import get_text, parse_number
from gliomark.io.dicom.instances import (
    DAMAGED_FILE_ERRORS,
    create_frame_count_error,
    is_frame_count_plausible,
)
from gliomark.io.grey_values import is_probably_inverted
from gliomark.io.size_limits import check_voxel_count
from gliomark.messages import Message, message

_DAMAGED_PIXEL_ERRORS = (*DAMAGED_FILE_ERRORS, RuntimeError)
_GREY_INTERPRETATIONS = ("MONOCHROME1", "MONOCHROME2")
_COLOUR_INTERPRETATIONS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")
_FLOAT_PIXEL_KEYWORDS = ("FloatPixelData", "DoubleFloatPixelData")
_DARK_TOLERANCE = 0.01  # share of the grey-value range
_MAX_OVERLAY_SHARE = 0.2  # share of the image that lines and letters in unused bits may cover
_OVERLAY_GROUPS = range(0x6000, 0x6020, 2)

PixelValues = NDArray[np.integer] | NDArray[np.floating]
RescaleParameters = tuple[float, float]


class StoredSlice(Protocol):
    """One image to read."""

    @property
    def file(self) -> Path:
        """The DICOM file."""
        ...

    @property
    def frame_index(self) -> int | None:
        """Index of the frame, from 0; None in a single-frame file."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        ...

    @property
    def rescale_slope(self) -> float | None:
        """RescaleSlope; None if not stated, nan if not a usable number."""
        ...

    @property
    def rescale_intercept(self) -> float | None:
        """RescaleIntercept; None if not stated, nan if not a usable number."""
        ...


_ENCAPSULATED_STARTS = (
    b"\xfe\xff\x00\xe0",
    b"\xff\xfe\xe0\x00",
)  # first bytes of encapsulated (compressed) pixel data


@dataclass(frozen=True)
class PixelFormat:
    """How a file stores its pixel values.

    photometric_interpretation: upper case. bits_stored: number of bits used, starting at bit ``low_bit``.
    padding_range: lowest and highest stored value that are padding, None if there is none. has_overlay_bits: whether
    the header declares an overlay in the unused bits. inferred_attributes: attributes that were missing.
    """

    photometric_interpretation: str
    bits_allocated: int
    bits_stored: int
    low_bit: int
    is_signed: bool
    is_float: bool
    padding_range: tuple[float, float] | None
    has_overlay_bits: bool
    inferred_attributes: tuple[str, ...]


def read_pixels(slices: Sequence[StoredSlice], kind: str) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Read the grey values of all slices, float32 ``(slice, row, column)``, and notes on them.

    Floating-point pixels may be nan or infinite. kind: what the series was recognised as, for the notes. A multi-frame
    file is decoded once.

    Raises
    ------
    InputError
        If pixels cannot be decoded or are in colour, or if the header is ambiguous or contradicts itself.
    """
    rescale_parameters, notes = _collect_rescale_parameters(slices, kind)
    check_voxel_count(slices[0].file, (len(slices), *slices[0].shape))
    image = np.empty((len(slices), *slices[0].shape), dtype=np.float32)
    padding_mask = np.zeros(image.shape, dtype=bool)
    indices_by_file: dict[Path, list[int]] = defaultdict(list)
    for index, stored_slice in enumerate(slices):
        indices_by_file[stored_slice.file].append(index)
    formats: dict[Path, PixelFormat] = {}
    for file, indices in indices_by_file.items():
        dataset = _read_pixel_dataset(file)
        formats[file] = pixel_format = _read_pixel_format(file, dataset)
        stored = _decode_frames(file, dataset, pixel_format)
        for index in indices:
            frame = _select_frame(file, stored, slices[index])
            values, padding_mask[index] = _extract_stored_values(file, frame, pixel_format)
            with np.errstate(over="ignore"):
                image[index] = _compute_grey_values(
                    file, dataset, pixel_format, values, rescale_parameters[index]
                )
    _check_same_bit_depth(formats)
    _fill_padding(image, padding_mask)
    return image, (*notes, *_create_inference_notes(slices[0].file, formats, image, kind))


def _fill_padding(image: NDArray[np.float32], padding_mask: NDArray[np.bool_]) -> None:
    """Set padding to the darkest grey value, in place; padding that is already about as dark is kept."""
    if not padding_mask.any() or padding_mask.all():
        return
    darkest, brightest = image[~padding_mask].min(), image[~padding_mask].max()
    image[padding_mask & (np.abs(image - darkest) > _DARK_TOLERANCE * (brightest - darkest))] = darkest


# ---- header -----------------------------------------------------------------------------------------


def _read_pixel_format(file: Path, dataset: Dataset) -> PixelFormat:
    """Read the pixel format; raise InputError if the header is ambiguous or contradicts itself.

    Missing or corrected attributes are set in the dataset for the decoder.
    """
    is_float = any(keyword in dataset for keyword in _FLOAT_PIXEL_KEYWORDS)
    _set_missing_samples_per_pixel(dataset)
    photometric_interpretation, inferred_attributes = _get_photometric_interpretation(file, dataset)
    bits_allocated = _get_required_integer(file, dataset, "BitsAllocated")
    bits_stored, low_bit, is_signed = bits_allocated, 0, False
    if not is_float:
        high_bit = parse_number(dataset.get("HighBit"))
        bits_stored = int(
            parse_number(dataset.get("BitsStored")) or (bits_allocated if high_bit is None else high_bit + 1)
        )
        low_bit = 0 if high_bit is None else int(high_bit) + 1 - bits_stored
        is_whole_bytes = bits_allocated == 1 or bits_allocated % 8 == 0
        if (
            not is_whole_bytes
            or not 1 <= bits_stored <= bits_allocated
            or not 0 <= low_bit <= bits_allocated - bits_stored
        ):
            raise InputError(
                message(
                    "dicom-bits",
                    file=file,
                    allocated=bits_allocated,
                    stored=bits_stored,
                    high=low_bit + bits_stored - 1,
                )
            )
        if "PixelRepresentation" not in dataset:
            inferred_attributes += ("PixelRepresentation",)
        is_signed = parse_number(dataset.get("PixelRepresentation")) == 1
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = (
            bits_stored,
            bits_stored - 1,
            int(is_signed),
        )
    return PixelFormat(
        photometric_interpretation=photometric_interpretation,
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        low_bit=low_bit,
        is_signed=is_signed,
        is_float=is_float,
        padding_range=_get_padding_range(dataset, bits_allocated, is_signed, is_float),
        has_overlay_bits=any(
            (group, 0x0102) in dataset and dataset[group, 0x0102].value for group in _OVERLAY_GROUPS
        ),
        inferred_attributes=inferred_attributes,
    )


def _get_required_integer(file: Path, dataset: Dataset, keyword: str) -> int:
    value = parse_number(dataset.get(keyword))
    if value is None:
        raise InputError(message("dicom-unstated", file=file, attribute=keyword))
    return int(value)


def _set_missing_samples_per_pixel(dataset: Dataset) -> None:
    """Infer a missing SamplesPerPixel from the length of uncompressed pixels; otherwise 1, as in every MR image."""
    if parse_number(dataset.get("SamplesPerPixel")) is not None:
        return
    is_compressed = dataset.file_meta.TransferSyntaxUID.is_compressed
    bytes_per_sample = _compute_bytes_of_one_sample(dataset)
    has_three_samples = (
        not is_compressed
        and bytes_per_sample > 0
        and len(dataset.get("PixelData") or b"") // bytes_per_sample == 3
    )
    dataset.SamplesPerPixel = 3 if has_three_samples else 1


def _compute_bytes_of_one_sample(dataset: Dataset) -> int:
    sizes = [parse_number(dataset.get(keyword)) or 0 for keyword in ("Rows", "Columns", "BitsAllocated")]
    return int(np.prod(sizes) * (parse_number(dataset.get("NumberOfFrames")) or 1) / 8)


def _get_photometric_interpretation(file: Path, dataset: Dataset) -> tuple[str, tuple[str, ...]]:
    """Return PhotometricInterpretation and, if it was missing and could be inferred, the attribute's name."""
    stated = get_text(dataset, "PhotometricInterpretation").upper().replace(" ", "_")
    samples = int(parse_number(dataset.SamplesPerPixel) or 1)
    inferred_attributes: tuple[str, ...] = ()
    if not stated:
        if samples != 1 or "RedPaletteColorLookupTableDescriptor" in dataset:
            raise InputError(message("dicom-unstated", file=file, attribute="PhotometricInterpretation"))
        is_inverse = get_text(dataset, "PresentationLUTShape").upper() == "INVERSE"
        stated, inferred_attributes = (
            _GREY_INTERPRETATIONS[0 if is_inverse else 1],
            ("PhotometricInterpretation",),
        )
    allowed = {1: (*_GREY_INTERPRETATIONS, "PALETTE_COLOR"), 3: _COLOUR_INTERPRETATIONS}.get(samples, ())
    if stated not in allowed:
        raise InputError(message("dicom-photometric", file=file, photometric=stated, samples=samples))
    dataset.PhotometricInterpretation = stated.replace("PALETTE_COLOR", "PALETTE COLOR")
    return stated, inferred_attributes


def _get_padding_range(
    dataset: Dataset, bits_allocated: int, is_signed: bool, is_float: bool
) -> tuple[float, float] | None:
    """Return the lowest and highest stored value that are padding, both included; None if there is none."""
    names = ("PixelPaddingValue", "PixelPaddingRangeLimit")
    if is_float:
        is_double = "DoubleFloatPixelData" in dataset
        names = tuple(("DoubleFloat" if is_double else "Float") + name for name in names)  # type: ignore[assignment]
    first = _get_stored_padding_value(dataset, names[0], bits_allocated, is_signed, is_float)
    if first is None:
        return None
    last = _get_stored_padding_value(dataset, names[1], bits_allocated, is_signed, is_float)
    return (first, first) if last is None else (min(first, last), max(first, last))


def _get_stored_padding_value(
    dataset: Dataset, keyword: str, bits_allocated: int, is_signed: bool, is_float: bool
) -> float | None:
    """Return a padding value as the pixels store it; its sign is often stated wrongly (63536 for -2000)."""
    element = dataset.get(keyword)
    if isinstance(element, bytes):
        element = int.from_bytes(element, "little" if dataset.original_encoding[1] else "big")
    value = parse_number(element)
    if value is None or is_float:
        return value
    unsigned_value = int(value) % 2**bits_allocated
    return float(
        unsigned_value - 2**bits_allocated
        if is_signed and unsigned_value >= 2 ** (bits_allocated - 1)
        else unsigned_value
    )


def _collect_rescale_parameters(
    slices: Sequence[StoredSlice], kind: str
) -> tuple[list[RescaleParameters], tuple[Message, ...]]:
    """Collect slope and intercept of every slice; 1 and 0 if none is usable, with a note if one was stated.

    Raise InputError if only some slices have a rescale: their grey values are not comparable.
    """
    stated = [_get_rescale_parameters(piece) for piece in slices]
    scaled = [one for one in stated if one is not None]
    if len(scaled) < len(slices) and any(one != (1.0, 0.0) for one in scaled):
        raise InputError(message("dicom-scaling", file=slices[stated.index(None)].file))
    has_unusable_value = any(
        value is not None and np.isnan(value)
        for piece in slices
        for value in (piece.rescale_slope, piece.rescale_intercept)
    )
    notes = (message("dicom-scaling-unusable", kind=kind),) if has_unusable_value else ()
    return [one or (1.0, 0.0) for one in stated], notes


def _get_rescale_parameters(stored_slice: StoredSlice) -> RescaleParameters | None:
    if stored_slice.rescale_slope is None and stored_slice.rescale_intercept is None:
        return None
    slope = 1.0 if stored_slice.rescale_slope is None else stored_slice.rescale_slope
    intercept = 0.0 if stored_slice.rescale_intercept is None else stored_slice.rescale_intercept
    return (slope, intercept) if np.isfinite([slope, intercept]).all() else None


def _check_same_bit_depth(formats: dict[Path, PixelFormat]) -> None:
    """Raise if the files of a series differ in bit depth or number type: their grey values are not comparable."""
    (first, expected), *others = formats.items()
    for file, pixel_format in others:
        if (pixel_format.bits_allocated, pixel_format.is_float) != (
            expected.bits_allocated,
            expected.is_float,
        ):
            raise InputError(
                message(
                    "dicom-depths-differ",
                    one=first,
                    other=file,
                    one_bits=expected.bits_allocated,
                    other_bits=pixel_format.bits_allocated,
                )
            )


def _create_inference_notes(
    file: Path, formats: dict[Path, PixelFormat], image: NDArray[np.float32], kind: str
) -> tuple[Message, ...]:
    """Describe inferred attributes; raise InputError if the image contradicts them."""
    names = sorted({name for form in formats.values() for name in form.inferred_attributes})
    if "PhotometricInterpretation" in names and is_probably_inverted(np.nan_to_num(image)):
        raise InputError(message("dicom-unstated", file=file, attribute="PhotometricInterpretation"))
    return tuple(message("dicom-inferred", kind=kind, attribute=name) for name in names)


# ---- stored values ----------------------------------------------------------------------------------


def _read_pixel_dataset(file: Path) -> Dataset:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = read_dataset(file)
            _set_transfer_syntax(dataset)
            label_as_jpeg_2000(dataset)
            if not is_frame_count_plausible(
                dataset, len(dataset.get("PixelData") or b"") or file.stat().st_size
            ):
                raise create_frame_count_error(file, dataset)
    except InflatedSizeError:
        raise
    except _DAMAGED_PIXEL_ERRORS:
        raise _create_decoding_error(file) from None
    return dataset


def _decode_frames(file: Path, dataset: Dataset, pixel_format: PixelFormat) -> NDArray[Any]:
    """Decode all frames to stored values, including unused bits; colour images as RGB."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _check_pixel_data_length(file, dataset, pixel_format)
            decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
            # pydicom's type annotation requires every option
            stored, _ = decoder.as_array(dataset, correct_unused_bits=False)  # type: ignore[arg-type]
    except MemoryError:
        raise InputError(message("dicom-decoded-huge", file=file)) from None
    except _DAMAGED_PIXEL_ERRORS:
        raise _create_decoding_error(file) from None
    return stored


def _check_pixel_data_length(file: Path, dataset: Dataset, pixel_format: PixelFormat) -> None:
    """Raise if native pixel data are encapsulated, or longer than stated by more than zero padding.

    Such data would be split into rows at wrong positions.
    """
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated or "PixelData" not in dataset:
        return
    if dataset.PixelData.startswith(_ENCAPSULATED_STARTS):
        raise _create_decoding_error(file)
    samples = int(parse_number(dataset.get("SamplesPerPixel")) or 1)
    expected_bytes = _compute_bytes_of_one_sample(dataset) * samples
    if expected_bytes and pixel_format.bits_allocated > 1 and any(dataset.PixelData[expected_bytes + 1 :]):
        size = f"{dataset.Columns} x {dataset.Rows}"
        raise InputError(message("dicom-size", file=file, size=size))


def _select_frame(file: Path, stored: NDArray[Any], stored_slice: StoredSlice) -> NDArray[Any]:
    """Return the frame of one slice; raise InputError if it is missing or has a different size."""
    has_frames = stored.ndim - (stored.shape[-1] == 3 and stored.shape[-3:-1] == stored_slice.shape) == 3
    frame_index = stored_slice.frame_index or 0
    frame = stored[frame_index] if has_frames and frame_index < len(stored) else stored
    if frame.shape[:2] != stored_slice.shape or frame.ndim > 3:
        raise InputError(
            message("dicom-size", file=file, size=f"{stored_slice.shape[1]} x {stored_slice.shape[0]}")
        )
    return frame


def _extract_stored_values(
    file: Path, frame: NDArray[Any], pixel_format: PixelFormat
) -> tuple[PixelValues, NDArray[np.bool_]]:
    """Return stored values ``(row, column)`` or RGB with extended sign, and the padding mask ``(row, column)``.

    Raise InputError if bits beyond BitsStored are neither an overlay nor a sign.
    """
    if pixel_format.is_float:
        numbers = frame.astype(np.float64)
        return numbers, _compute_padding_mask(numbers, numbers, pixel_format)
    lowest = -(2 ** (pixel_format.bits_stored - 1)) if pixel_format.is_signed else 0
    if (
        pixel_format.low_bit == 0
        and lowest <= frame.min()
        and frame.max() < lowest + 2**pixel_format.bits_stored
    ):
        return _check_sign(file, frame, pixel_format), _compute_padding_mask(frame, frame, pixel_format)
    raw = frame.astype(np.int64) & (2**pixel_format.bits_allocated - 1)
    all_bits = (
        _extend_sign(raw, pixel_format.bits_allocated) >> pixel_format.low_bit
        if pixel_format.is_signed
        else raw >> pixel_format.low_bit
    )
    stored = (raw >> pixel_format.low_bit) & (2**pixel_format.bits_stored - 1)
    values = _extend_sign(stored, pixel_format.bits_stored) if pixel_format.is_signed else stored
    padding_mask = _compute_padding_mask(values, all_bits, pixel_format)
    has_extra_bits = (all_bits != values) & ~padding_mask
    has_low_bits = (raw & (2**pixel_format.low_bit - 1)).any()
    is_overlay = has_extra_bits & (all_bits != stored)  # the others are values whose sign was not extended
    if not pixel_format.has_overlay_bits and (
        has_low_bits
        or is_overlay.mean() > _MAX_OVERLAY_SHARE
        or not _is_overlay(all_bits, values, has_extra_bits)
    ):
        raise InputError(message("dicom-bits-beyond", file=file, bits=pixel_format.bits_stored))
    return _check_sign(file, values, pixel_format), padding_mask


def _check_sign(file: Path, values: PixelValues, pixel_format: PixelFormat) -> PixelValues:
    """Return the values unchanged; raise InputError if they could be negative and PixelRepresentation is missing."""
    if (
        "PixelRepresentation" in pixel_format.inferred_attributes
        and (values >= 2 ** (pixel_format.bits_stored - 1)).any()
    ):
        raise InputError(message("dicom-unstated", file=file, attribute="PixelRepresentation"))
    return values


def _extend_sign(values: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    result: NDArray[np.int64] = values - ((values >> (bits - 1)) & 1) * 2**bits
    return result


def _is_overlay(
    all_bits: NDArray[np.int64], values: NDArray[np.int64], has_extra_bits: NDArray[np.bool_]
) -> bool:
    """Whether bits above BitsStored are an overlay: without them the image is at least 4 times smoother at their edges.

    Otherwise these bits belong to the values and BitsStored is wrong.
    """
    edges_with_extra_bits = edges_without_extra_bits = 0
    for axis in (0, 1):
        edge = np.diff(has_extra_bits.astype(np.int8), axis=axis) != 0
        edges_with_extra_bits += int(np.abs(np.diff(all_bits, axis=axis))[edge].sum())
        edges_without_extra_bits += int(np.abs(np.diff(values, axis=axis))[edge].sum())
    return edges_without_extra_bits <= edges_with_extra_bits / 4


def _compute_padding_mask(
    values: PixelValues, all_bits: PixelValues, pixel_format: PixelFormat
) -> NDArray[np.bool_]:
    """Compute the mask of padding pixels; if the padding value is also a grey value, only regions at the border."""
    if pixel_format.padding_range is None or values.ndim > 2:
        return np.zeros(values.shape[:2], dtype=bool)
    low, high = pixel_format.padding_range
    is_padding = ((values >= low) & (values <= high)) | ((all_bits >= low) & (all_bits <= high))
    others = values[~is_padding]
    if is_padding.all() or not others.size or others.min() > high or others.max() < low:
        return np.asarray(is_padding)
    from scipy import ndimage  # takes long to load, and few images have padding

    labels, _ = ndimage.label(is_padding)
    border_labels = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return np.asarray(is_padding & np.isin(labels, np.unique(border_labels)))


# ---- grey values ------------------------------------------------------------------------------------


def _compute_grey_values(
    file: Path,
    dataset: Dataset,
    pixel_format: PixelFormat,
    values: PixelValues,
    rescale_parameters: RescaleParameters,
) -> NDArray[np.float64]:
    """Apply rescale and invert MONOCHROME1; raise InputError for colour pixels."""
    if pixel_format.photometric_interpretation == "PALETTE_COLOR":
        values = _apply_palette(file, dataset, values)
    if values.ndim == 3:
        if np.ptp(values, axis=2).any():
            raise InputError(message("dicom-coloured", file=file))
        values = values[..., 0]
    scaled = _apply_modality_transform(file, dataset, values, rescale_parameters)
    if pixel_format.photometric_interpretation != "MONOCHROME1":
        return scaled
    if pixel_format.is_float:
        return -scaled
    lowest = -(2 ** (pixel_format.bits_stored - 1)) if pixel_format.is_signed else 0
    ends = np.array([lowest, lowest + 2**pixel_format.bits_stored - 1])
    return np.asarray(
        _apply_modality_transform(file, dataset, ends, rescale_parameters).sum() - scaled, dtype=np.float64
    )


def _apply_modality_transform(
    file: Path, dataset: Dataset, values: PixelValues, rescale_parameters: RescaleParameters
) -> NDArray[np.float64]:
    if not dataset.get("ModalityLUTSequence"):
        return np.asarray(values * rescale_parameters[0] + rescale_parameters[1], dtype=np.float64)
    try:
        return np.asarray(apply_modality_lut(values, dataset), dtype=np.float64)
    except _DAMAGED_PIXEL_ERRORS:
        raise InputError(message("dicom-lut", file=file, attribute="ModalityLUTSequence")) from None


def _apply_palette(file: Path, dataset: Dataset, values: PixelValues) -> PixelValues:
    """Map values to red, green and blue by the palette, ``(row, column, 3)``."""
    try:
        red, green, blue = np.moveaxis(apply_color_lut(values, dataset)[..., :3], -1, 0)
    except _DAMAGED_PIXEL_ERRORS:  # ValueError if one of the three tables is missing
        raise InputError(message("dicom-lut", file=file, attribute="PaletteColorLookupTableData")) from None
    return np.stack([red, green, blue], axis=-1).astype(np.int64)


# ---- transfer syntax --------------------------------------------------------------------------------


def _set_transfer_syntax(dataset: Dataset) -> None:
    """Set a missing transfer syntax: a file without meta information is uncompressed, in the encoding just read."""
    meta = getattr(dataset, "file_meta", None) or FileMetaDataset()
    if "TransferSyntaxUID" not in meta:
        is_implicit_vr, is_little_endian = dataset.original_encoding
        explicit_syntax = ExplicitVRLittleEndian if is_little_endian else ExplicitVRBigEndian
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit_vr else explicit_syntax
    dataset.file_meta = meta


def _create_decoding_error(file: Path) -> GliomarkError:
    """Create the error for pixels that cannot be decoded; it names the compression, or a damaged file."""
    reason: str = message("cut-short-or-damaged")
    try:
        syntax = read_dataset(file, stop_before_pixels=True).file_meta.get("TransferSyntaxUID")
        if syntax is not None and syntax.is_transfer_syntax and syntax.is_compressed:
            reason = syntax.name
    except _DAMAGED_PIXEL_ERRORS:
        pass
    return InputError(message("dicom-undecodable", file=file, why=reason))
