"""Pixels of DICOM files: from what is stored to grey values that grow with brightness, the same in every slice.

Stored bits, then the modality's scaling, then the direction: bits beyond BitsStored are cut off and signs
extended; RescaleSlope and RescaleIntercept (or a Modality LUT) are applied image by image; MONOCHROME1 is turned
round within the range of its stored values; padding becomes background. Windows (VOI), real-world and private
scalings are never applied.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, get_decoder
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from scipy import ndimage

from gliomark.io.dicom.facts import as_number, text
from gliomark.io.dicom.files import InflatedError, read_dataset
from gliomark.io.dicom.instances import DAMAGE, can_hold_frames, too_many_frames
from gliomark.io.grey_values import looks_inverted
from gliomark.io.limits import check_voxels
from gliomark.messages import Message, message
from gliomark.study import GliomarkError

_PIXEL_DAMAGE = (*DAMAGE, RuntimeError)
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")
_FLOATS = ("FloatPixelData", "DoubleFloatPixelData")
_AS_DARK = 0.01  # of the range of greys
_MOST_MARKED = 0.2  # of a picture, by lines and letters in bits that are not the image's
_OVERLAYS = range(0x6000, 0x6020, 2)

Numbers = NDArray[np.integer] | NDArray[np.floating]
Scaling = tuple[float, float]


class StoredSlice(Protocol):
    """One image to read: its file, its frame there (None for a file of one), its size and its scaling as written.

    slope, intercept: None where not written, nan where what is written is no usable number.
    """

    @property
    def file(self) -> Path: ...
    @property
    def frame(self) -> int | None: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def slope(self) -> float | None: ...
    @property
    def intercept(self) -> float | None: ...


_PIECE = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # how compressed pixels begin, which come in pieces


@dataclass(frozen=True)
class Form:
    """How a file stores its values. bits: of them that count, the lowest being bit ``shift``; allocated: of each.

    photometric: upper case. padding: the stored values, lowest and highest, that are no image; None for none.
    marked: the bits above hold an overlay by the header. unstated: attributes that were missing and inferred.
    """

    photometric: str
    allocated: int
    bits: int
    shift: int
    signed: bool
    floating: bool
    padding: tuple[float, float] | None
    marked: bool
    unstated: tuple[str, ...]


def read_pixels(slices: Sequence[StoredSlice], kind: str) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Grey values float32 ``(slice, row, column)``, and notes; a multi-frame file is decoded once.

    Floating-point pixels may be no numbers. kind: the series' kind, for notes. Raises: GliomarkError for pixels
    that cannot be decoded, that are coloured, or whose meaning the header leaves open or contradicts.
    """
    scalings, notes = _scalings(slices, kind)
    check_voxels(slices[0].file, (len(slices), *slices[0].shape))
    image = np.empty((len(slices), *slices[0].shape), dtype=np.float32)
    padded = np.zeros(image.shape, dtype=bool)
    wanted: dict[Path, list[int]] = defaultdict(list)
    for at, piece in enumerate(slices):
        wanted[piece.file].append(at)
    forms: dict[Path, Form] = {}
    for file, places in wanted.items():
        dataset = _read(file)
        forms[file] = form = _form(file, dataset)
        stored = _decoded(file, dataset, form)
        for at in places:
            plane = _plane(file, stored, slices[at])
            values, padded[at] = _stored_values(file, plane, form)
            with np.errstate(over="ignore"):
                image[at] = _grey(file, dataset, form, values, scalings[at])
    _check_alike(forms)
    _fill(image, padded)
    return image, (*notes, *_unstated(slices[0].file, forms, image, kind))


def _fill(image: NDArray[np.float32], padded: NDArray[np.bool_]) -> None:
    """Padding becomes the darkest grey, in place; what is as dark already, such as a 0 below a 1, is kept."""
    if not padded.any() or padded.all():
        return
    low, high = image[~padded].min(), image[~padded].max()
    image[padded & (np.abs(image - low) > _AS_DARK * (high - low))] = low


# ---- what the header says ---------------------------------------------------------------------------


def _form(file: Path, dataset: Dataset) -> Form:
    """How the file stores its values. Raises GliomarkError where the header leaves it open or contradicts itself."""
    floating = any(keyword in dataset for keyword in _FLOATS)
    _infer_samples(dataset)
    photometric, unstated = _photometric(file, dataset)
    allocated = _count(file, dataset, "BitsAllocated")
    bits, shift, signed = allocated, 0, False
    if not floating:
        high = as_number(dataset.get("HighBit"))
        bits = int(as_number(dataset.get("BitsStored")) or (allocated if high is None else high + 1))
        shift = 0 if high is None else int(high) + 1 - bits
        whole_bytes = allocated == 1 or allocated % 8 == 0
        if not whole_bytes or not 1 <= bits <= allocated or not 0 <= shift <= allocated - bits:
            raise GliomarkError(
                message("dicom-bits", file=file, allocated=allocated, stored=bits, high=shift + bits - 1)
            )
        if "PixelRepresentation" not in dataset:
            unstated += ("PixelRepresentation",)
        signed = as_number(dataset.get("PixelRepresentation")) == 1
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, int(signed)
    return Form(
        photometric=photometric,
        allocated=allocated,
        bits=bits,
        shift=shift,
        signed=signed,
        floating=floating,
        padding=_padding(dataset, allocated, signed, floating),
        marked=any((group, 0x0102) in dataset and dataset[group, 0x0102].value for group in _OVERLAYS),
        unstated=unstated,
    )


def _count(file: Path, dataset: Dataset, keyword: str) -> int:
    value = as_number(dataset.get(keyword))
    if value is None:
        raise GliomarkError(message("dicom-unstated", file=file, attribute=keyword))
    return int(value)


def _infer_samples(dataset: Dataset) -> None:
    """SamplesPerPixel, where it was removed, from the length of uncompressed pixels; else 1, as every MR image."""
    if as_number(dataset.get("SamplesPerPixel")) is not None:
        return
    compressed = dataset.file_meta.TransferSyntaxUID.is_compressed
    one = _length_of_one(dataset)
    three = not compressed and one > 0 and len(dataset.get("PixelData") or b"") // one == 3
    dataset.SamplesPerPixel = 3 if three else 1


def _length_of_one(dataset: Dataset) -> int:
    sizes = [as_number(dataset.get(keyword)) or 0 for keyword in ("Rows", "Columns", "BitsAllocated")]
    return int(np.prod(sizes) * (as_number(dataset.get("NumberOfFrames")) or 1) / 8)


def _photometric(file: Path, dataset: Dataset) -> tuple[str, tuple[str, ...]]:
    """PhotometricInterpretation, and its name where it was missing and one grey sample leaves no doubt."""
    stated = text(dataset, "PhotometricInterpretation").upper().replace(" ", "_")
    samples = int(as_number(dataset.SamplesPerPixel) or 1)
    unstated: tuple[str, ...] = ()
    if not stated:
        if samples != 1 or "RedPaletteColorLookupTableDescriptor" in dataset:
            raise GliomarkError(message("dicom-unstated", file=file, attribute="PhotometricInterpretation"))
        inverse = text(dataset, "PresentationLUTShape").upper() == "INVERSE"
        stated, unstated = _GREY[0 if inverse else 1], ("PhotometricInterpretation",)
    known = {1: (*_GREY, "PALETTE_COLOR"), 3: _COLOURS}.get(samples, ())
    if stated not in known:
        raise GliomarkError(message("dicom-photometric", file=file, photometric=stated, samples=samples))
    dataset.PhotometricInterpretation = stated.replace("PALETTE_COLOR", "PALETTE COLOR")
    return stated, unstated


def _padding(dataset: Dataset, allocated: int, signed: bool, floating: bool) -> tuple[float, float] | None:
    """The range of stored values that pad the image, both ends included."""
    names = ("PixelPaddingValue", "PixelPaddingRangeLimit")
    if floating:
        double = "DoubleFloatPixelData" in dataset
        names = tuple(("DoubleFloat" if double else "Float") + name for name in names)  # type: ignore[assignment]
    first = _as_stored(dataset, names[0], allocated, signed, floating)
    if first is None:
        return None
    last = _as_stored(dataset, names[1], allocated, signed, floating)
    return (first, first) if last is None else (min(first, last), max(first, last))


def _as_stored(dataset: Dataset, name: str, allocated: int, signed: bool, floating: bool) -> float | None:
    """A padding value as the pixels hold it; its own sign is often written wrong (63536 for -2000)."""
    element = dataset.get(name)
    if isinstance(element, bytes):
        element = int.from_bytes(element, "little" if dataset.original_encoding[1] else "big")
    value = as_number(element)
    if value is None or floating:
        return value
    whole = int(value) % 2**allocated
    return float(whole - 2**allocated if signed and whole >= 2 ** (allocated - 1) else whole)


def _scalings(slices: Sequence[StoredSlice], kind: str) -> tuple[list[Scaling], tuple[Message, ...]]:
    """Every slice's slope and intercept; where none has a usable one, the stored values, said if any was written.

    Raises: GliomarkError where some slices have a scaling and others none: their greys cannot be compared.
    """
    stated = [_scaling(piece) for piece in slices]
    scaled = [one for one in stated if one is not None]
    if len(scaled) < len(slices) and any(one != (1.0, 0.0) for one in scaled):
        raise GliomarkError(message("dicom-scaling", file=slices[stated.index(None)].file))
    written = any(
        value is not None and np.isnan(value) for piece in slices for value in (piece.slope, piece.intercept)
    )
    notes = (message("dicom-scaling-unusable", kind=kind),) if written else ()
    return [one or (1.0, 0.0) for one in stated], notes


def _scaling(piece: StoredSlice) -> Scaling | None:
    if piece.slope is None and piece.intercept is None:
        return None
    slope = 1.0 if piece.slope is None else piece.slope
    intercept = 0.0 if piece.intercept is None else piece.intercept
    return (slope, intercept) if np.isfinite([slope, intercept]).all() else None


def _check_alike(forms: dict[Path, Form]) -> None:
    """All files of a series store numbers of one kind; 8 beside 16 bits would be greys of two scales."""
    (first, expected), *others = forms.items()
    for file, form in others:
        if (form.allocated, form.floating) != (expected.allocated, expected.floating):
            raise GliomarkError(
                message(
                    "dicom-depths-differ",
                    one=first,
                    other=file,
                    one_bits=expected.allocated,
                    other_bits=form.allocated,
                )
            )


def _unstated(
    file: Path, forms: dict[Path, Form], image: NDArray[np.float32], kind: str
) -> tuple[Message, ...]:
    """A note on attributes that were inferred. Raises GliomarkError where the image speaks against it."""
    names = sorted({name for form in forms.values() for name in form.unstated})
    if "PhotometricInterpretation" in names and looks_inverted(np.nan_to_num(image)):
        raise GliomarkError(message("dicom-unstated", file=file, attribute="PhotometricInterpretation"))
    return tuple(message("dicom-inferred", kind=kind, attribute=name) for name in names)


# ---- stored values ----------------------------------------------------------------------------------


def _read(file: Path) -> Dataset:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = read_dataset(file)
            _state_syntax(dataset)
            if not can_hold_frames(dataset, len(dataset.get("PixelData") or b"") or file.stat().st_size):
                raise too_many_frames(file, dataset)
    except InflatedError:
        raise
    except _PIXEL_DAMAGE:
        raise _undecodable(file) from None
    return dataset


def _decoded(file: Path, dataset: Dataset, form: Form) -> NDArray:
    """All frames as they are stored, unused bits too; colours as RGB."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _check_length(file, dataset, form)
            decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
            # pydicom types every option as all of them
            stored, _ = decoder.as_array(dataset, correct_unused_bits=False)  # type: ignore[arg-type]
    except MemoryError:
        raise GliomarkError(message("dicom-decoded-huge", file=file)) from None
    except _PIXEL_DAMAGE:
        raise _undecodable(file) from None
    return stored


def _check_length(file: Path, dataset: Dataset, form: Form) -> None:
    """Raises GliomarkError for uncompressed pixels in pieces, or that go on behind the last one with more than zeros:
    their rows would be cut at the wrong places."""
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated or "PixelData" not in dataset:
        return
    if dataset.PixelData.startswith(_PIECE):
        raise _undecodable(file)
    samples = int(as_number(dataset.get("SamplesPerPixel")) or 1)
    whole = _length_of_one(dataset) * samples
    if whole and form.allocated > 1 and any(dataset.PixelData[whole + 1 :]):
        size = f"{dataset.Columns} x {dataset.Rows}"
        raise GliomarkError(message("dicom-size", file=file, size=size))


def _plane(file: Path, stored: NDArray, piece: StoredSlice) -> NDArray:
    """The piece's frame. Raises GliomarkError where it is not there, or of another size."""
    frames = stored.ndim - (stored.shape[-1] == 3 and stored.shape[-3:-1] == piece.shape) == 3
    at = piece.frame or 0
    plane = stored[at] if frames and at < len(stored) else stored
    if plane.shape[:2] != piece.shape or plane.ndim > 3:
        raise GliomarkError(message("dicom-size", file=file, size=f"{piece.shape[1]} x {piece.shape[0]}"))
    return plane


def _stored_values(file: Path, plane: NDArray, form: Form) -> tuple[Numbers, NDArray[np.bool_]]:
    """The values that count, signs extended, ``(row, column)`` or RGB; and where they are padding.

    Raises: GliomarkError where bits beyond BitsStored are neither an overlay nor a sign.
    """
    if form.floating:
        numbers = plane.astype(np.float64)
        return numbers, _padded(numbers, numbers, form)
    lowest = -(2 ** (form.bits - 1)) if form.signed else 0
    if form.shift == 0 and lowest <= plane.min() and plane.max() < lowest + 2**form.bits:
        return _checked_sign(file, plane, form), _padded(plane, plane, form)
    raw = plane.astype(np.int64) & (2**form.allocated - 1)
    whole = _signed(raw, form.allocated) >> form.shift if form.signed else raw >> form.shift
    stored = (raw >> form.shift) & (2**form.bits - 1)
    values = _signed(stored, form.bits) if form.signed else stored
    padded = _padded(values, whole, form)
    foreign = (whole != values) & ~padded
    below = (raw & (2**form.shift - 1)).any()
    drawn = foreign & (whole != stored)  # the rest are signs that were not extended
    if not form.marked and (below or drawn.mean() > _MOST_MARKED or not _drawn_over(whole, values, foreign)):
        raise GliomarkError(message("dicom-bits-beyond", file=file, bits=form.bits))
    return _checked_sign(file, values, form), padded


def _checked_sign(file: Path, values: Numbers, form: Form) -> Numbers:
    """The values as they are. Raises GliomarkError where they could be negative and the header does not say."""
    if "PixelRepresentation" in form.unstated and (values >= 2 ** (form.bits - 1)).any():
        raise GliomarkError(message("dicom-unstated", file=file, attribute="PixelRepresentation"))
    return values


def _signed(values: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    return values - ((values >> (bits - 1)) & 1) * 2**bits


def _drawn_over(whole: NDArray[np.int64], values: NDArray[np.int64], foreign: NDArray[np.bool_]) -> bool:
    """Whether bits beyond BitsStored are marks over the image, which is far smoother at their edges without them.

    Otherwise the values really are larger, and the header is wrong.
    """
    rough = smooth = 0
    for axis in (0, 1):
        edge = np.diff(foreign.astype(np.int8), axis=axis) != 0
        rough += int(np.abs(np.diff(whole, axis=axis))[edge].sum())
        smooth += int(np.abs(np.diff(values, axis=axis))[edge].sum())
    return smooth <= rough / 4


def _padded(values: Numbers, whole: Numbers, form: Form) -> NDArray[np.bool_]:
    """Where the padding value stands: everywhere, or along the edge alone if it is a grey like others."""
    if form.padding is None or values.ndim > 2:
        return np.zeros(values.shape[:2], dtype=bool)
    low, high = form.padding
    found = ((values >= low) & (values <= high)) | ((whole >= low) & (whole <= high))
    others = values[~found]
    if found.all() or not others.size or others.min() > high or others.max() < low:
        return np.asarray(found)
    labels, _ = ndimage.label(found)
    rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return np.asarray(found & np.isin(labels, np.unique(rim)))


# ---- grey values ------------------------------------------------------------------------------------


def _grey(file: Path, dataset: Dataset, form: Form, values: Numbers, scaling: Scaling) -> NDArray[np.float64]:
    """Scaled values, bright for bright. Raises GliomarkError for colours."""
    if form.photometric == "PALETTE_COLOR":
        values = _through_palette(file, dataset, values)
    if values.ndim == 3:
        if np.ptp(values, axis=2).any():
            raise GliomarkError(message("dicom-coloured", file=file))
        values = values[..., 0]
    scaled = _scaled(file, dataset, values, scaling)
    if form.photometric != "MONOCHROME1":
        return scaled
    if form.floating:
        return -scaled
    lowest = -(2 ** (form.bits - 1)) if form.signed else 0
    ends = np.array([lowest, lowest + 2**form.bits - 1])
    return np.asarray(_scaled(file, dataset, ends, scaling).sum() - scaled, dtype=np.float64)


def _scaled(file: Path, dataset: Dataset, values: Numbers, scaling: Scaling) -> NDArray[np.float64]:
    if not dataset.get("ModalityLUTSequence"):
        return np.asarray(values * scaling[0] + scaling[1], dtype=np.float64)
    try:
        return np.asarray(apply_modality_lut(values, dataset), dtype=np.float64)
    except _PIXEL_DAMAGE:
        raise GliomarkError(message("dicom-lut", file=file, attribute="ModalityLUTSequence")) from None


def _through_palette(file: Path, dataset: Dataset, values: Numbers) -> Numbers:
    """The palette's red, green and blue of each value, ``(row, column, 3)``."""
    try:
        red, green, blue = np.moveaxis(apply_color_lut(values, dataset)[..., :3], -1, 0)
    except _PIXEL_DAMAGE:  # one of three tables missing is a ValueError
        raise GliomarkError(
            message("dicom-lut", file=file, attribute="PaletteColorLookupTableData")
        ) from None
    return np.stack([red, green, blue], axis=-1).astype(np.int64)


# ---- coding -----------------------------------------------------------------------------------------


def _state_syntax(dataset: Dataset) -> None:
    """A file without meta information is uncompressed; its transfer syntax is how it was just read."""
    meta = getattr(dataset, "file_meta", None) or FileMetaDataset()
    if "TransferSyntaxUID" not in meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    dataset.file_meta = meta


def _undecodable(file: Path) -> GliomarkError:
    """That pixels cannot be decoded, and why: the compression in words, else that the file is damaged."""
    why: str = message("cut-short-or-damaged")
    try:
        syntax = read_dataset(file, stop_before_pixels=True).file_meta.get("TransferSyntaxUID")
        if syntax is not None and syntax.is_transfer_syntax and syntax.is_compressed:
            why = syntax.name
    except _PIXEL_DAMAGE:
        pass
    return GliomarkError(message("dicom-undecodable", file=file, why=why))
