"""Read picture folders: ``<patient>/<sequence>/<slice>.jpg|png|bmp|tif``; a slice has one name in all sequences.

Pictures store no geometry. The following is assumed, with a note: axial slices in radiological convention (patient's
right on image left, anterior at the top), and names that ascend from inferior to superior. Without a spacing from the
user, the longer side of a picture is assumed to be 240 mm and the slice spacing min(6, 150 / number of slices) mm.

Grey values are read as displayed, with 0 as black: palettes, inverted scales (TIFF's MinIsWhite) and CMYK are
converted, transparent pixels become background, and 16-bit and floating-point pictures keep their full depth.
"""

from __future__ import annotations

import re
import struct
import unicodedata
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from gliomark.errors import InputError
from gliomark.io.folder_listing import list_visible_entries, resolve_folder_name
from gliomark.io.format_reader import Certainty, Reader, ReadOptions
from gliomark.io.grey_values import clean_grey_values, is_probably_inverted
from gliomark.io.naming import find_sequence_in_name, is_lesion_mask_name, is_mask_name
from gliomark.io.size_limits import check_voxel_count
from gliomark.messages import Message, message
from gliomark.study import MRSequence, Series, Study

PICTURE_FORMATS = (
    "PNG",
    "JPEG",
    "BMP",
    "TIFF",
)  # only these decoders: others of Pillow start programs (Ghostscript)
MAX_PIXELS = 64e6  # 8000 x 8000
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
ASSUMED_FIELD_OF_VIEW_MM = 240.0
MAX_ASSUMED_SLICE_SPACING_MM = 6.0
ASSUMED_BRAIN_HEIGHT_MM = 150.0
# JPEG decoding rounds each channel separately, by one or two grey levels; coloured marks differ by far more.
GREY_TOLERANCE = 3
# Share of pixels of middle brightness: of a mask, those at the edges that JPEG blurs; of an image, most of the brain.
MAX_MASK_MIDTONE_SHARE = 0.05
_EXIF_ORIENTATION = 0x0112
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT = 258, 262, 339
# What Pillow raises for damaged files, collected by truncating and altering files of every format.
_READ_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    zlib.error,
    struct.error,
)


def list_picture_files(folder: Path) -> list[Path]:
    """List the pictures directly in a folder."""
    return [
        entry
        for entry in list_visible_entries(folder)
        if entry.suffix.lower() in PICTURE_SUFFIXES and entry.is_file()
    ]


def has_pictures(patient_folder: Path) -> bool:
    """Whether a folder contains one patient's pictures: a subfolder named after a sequence has pictures."""
    folders = [entry for entry in list_visible_entries(patient_folder) if entry.is_dir()]
    return any(
        _find_folder_role(folder) in tuple(MRSequence) and list_picture_files(folder) for folder in folders
    )


def read_pictures(patient_folder: Path, options: ReadOptions) -> Study:
    """Read one patient's pictures.

    Parameters
    ----------
    patient_folder
        Contains one subfolder per sequence and optionally one for the lesion mask.
    options
        The spacing in mm is assumed if it is None.

    Returns
    -------
    Study
        Series ``(slice, row, column)`` on one grid, marked as aligned.

    Raises
    ------
    InputError
        If slice names or sizes differ between sequences, or bit depths within one; if a picture is damaged, in colour
        or partly transparent; if a sequence is constant or inverted; or if the spacing is invalid.
    """
    folders = _assign_folder_roles(patient_folder)
    listed = {role: _list_files_by_slice(folder) for role, folder in folders.items()}
    for role, folder in folders.items():
        if not listed[role]:
            raise InputError(message("picture-folder-empty", folder=folder))
    reference = next(sequence for sequence in MRSequence if sequence in folders)
    names = sort_slice_names(listed[reference])
    for role, files in listed.items():
        _check_same_names(folders[reference], set(names), folders[role], set(files))

    stacks = {role: _read_stack([files[name] for name in names]) for role, files in listed.items()}
    for role, image in stacks.items():
        _check_same_size(folders[reference], stacks[reference], folders[role], image)
    affine, notes = _assume_geometry(stacks[reference].shape, options.spacing_mm)
    series = {}
    for sequence in (sequence for sequence in MRSequence if sequence in folders):
        grey = clean_grey_values(stacks[sequence], folders[sequence], sequence, names)
        series[sequence] = Series(grey.image, affine, tuple(names), folders[sequence], missing=grey.missing)
        notes += grey.notes
    lesion = None
    if "lesion" in stacks:
        mask = _convert_to_mask(stacks["lesion"], [listed["lesion"][name] for name in names])
        lesion = Series(mask, affine, tuple(names), folders["lesion"])
    return Study(
        patient_id=resolve_folder_name(patient_folder),
        series=series,
        source=patient_folder,
        kind="pictures",
        aligned=True,
        spacing_assumed=options.spacing_mm is None,
        lesion=lesion,
        notes=notes,
    )


def read_mask_pictures(path: Path, series: Series) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Read a lesion mask from pictures that are named after the slices on which they were drawn.

    Parameters
    ----------
    path
        A folder of pictures, or one picture. Slices without a picture have no lesion.
    series
        A sequence of the same patient, read from pictures.

    Returns
    -------
    tuple[NDArray[np.bool_], tuple[str, ...]]
        The mask ``(slice, row, column)`` on the grid of the series, and notes for the user.

    Raises
    ------
    InputError
        If a picture has not the name of a slice or another size, is damaged or inverted, or shows grey values as an
        image does.
    """
    files = {path.stem: path} if path.is_file() else _list_files_by_slice(path)
    if unknown := sort_slice_names(files.keys() - set(series.slice_names)):
        first, last = series.slice_names[0], series.slice_names[-1]
        raise InputError(message("mask-picture-name", file=files[unknown[0]], first=first, last=last))
    names = [name for name in series.slice_names if name in files]
    stack = np.nan_to_num(_read_stack([files[name] for name in names]), nan=0.0)
    _check_same_size(path, stack, series.source, series.image)
    midtones = np.abs(stack / max(float(stack.max()), 1.0) - 0.5) < 0.25
    if midtones.mean() > MAX_MASK_MIDTONE_SHARE:
        raise InputError(message("mask-picture-grey", path=path))
    mask = np.zeros(series.image.shape, dtype=bool)
    mask[[series.slice_names.index(name) for name in names]] = (
        _convert_to_mask(stack, [files[name] for name in names]) > 0
    )
    blank_count = len(series.slice_names) - len(names)
    notes = (message("mask-pictures-fewer", count=blank_count),) if blank_count else ()
    return mask, notes


# ---- order of slices --------------------------------------------------------------------------------

_NUMBERED_NAME = re.compile(
    r"(?P<before>.*?)(?P<sign>[+-]?)(?P<whole>\d+)(?:[.,](?P<part>\d+))?(?P<after>\D*)", re.S
)
_MINUS_SIGNS = str.maketrans("\N{MINUS SIGN}\N{EN DASH}", "--")


def sort_slice_names(names: Iterable[str]) -> list[str]:
    """Sort slice names in ascending order: by number if all have one (-71.5, 2, 10), else in natural order.

    All names may have the same words around the number (``z-71.5mm``). If all have such words and a hyphen, the
    hyphen is a separator, not a minus sign. If both I and S occur before numbers, they mean inferior and superior.
    """
    names = list(names)
    numbers = _parse_slice_numbers(_replace_decimal_underscores(names))
    if numbers is None:
        return sorted(names, key=compute_natural_sort_key)
    return sorted(names, key=lambda name: numbers[name])


_UNDERSCORED_NAME = re.compile(
    r"(?P<before>\D*?)(?P<sign>[+-]?)(?P<whole>\d+)(?:_(?P<part>\d+))?(?P<after>\D*)"
)


def _replace_decimal_underscores(names: Sequence[str]) -> dict[str, str]:
    """Read underscores as decimal points (-71_5 as -71.5) if minus signs show that the numbers are positions."""
    plain = {name: unicodedata.normalize("NFKC", name).translate(_MINUS_SIGNS) for name in names}
    matches = [_UNDERSCORED_NAME.fullmatch(name) for name in plain.values()]
    found = [match for match in matches if match]
    are_negative = [match["sign"] == "-" for match in found]
    is_hyphen = all(are_negative) and any(match["before"] for match in found)
    if len(found) < len(names) or not any(are_negative) or is_hyphen:
        return plain
    decimal_form = r"\g<before>\g<sign>\g<whole>.\g<part>\g<after>"
    return {
        name: match.expand(decimal_form) if match["part"] else plain[name]
        for name, match in zip(plain, found, strict=True)
    }


def _parse_slice_numbers(normalised_names: Mapping[str, str]) -> dict[str, float] | None:
    """Parse the number of each name; None if one has no number or two are equal (1.1 and 1.10)."""
    names = list(normalised_names)
    matches = [_NUMBERED_NAME.fullmatch(name) for name in normalised_names.values()]
    found = [match for match in matches if match]
    if len(found) < len(names):
        return None
    words = {match["before"].strip().upper() for match in found}
    parts = [match["part"] for match in found if match["part"]]
    # 1.10 next to 1.9 is item 10 of group 1: a trailing zero shows that .10 is a counter, not a decimal
    has_trailing_zero = any(part.endswith("0") and len(part) > min(map(len, parts)) for part in parts)
    if (
        not (len(words) == 1 or words == {"I", "S"})
        or len({match["after"] for match in found}) > 1
        or has_trailing_zero
    ):
        return None
    is_hyphen = words != {""} and all(match["sign"] == "-" for match in found)
    numbers = {}
    for name, match in zip(names, found, strict=True):
        is_negative = (
            match["before"].strip().upper() == "I"
            if words == {"I", "S"}
            else match["sign"] == "-" and not is_hyphen
        )
        numbers[name] = float(f"{match['whole']}.{match['part'] or 0}") * (-1 if is_negative else 1)
    return numbers if len(set(numbers.values())) == len(names) else None


def compute_natural_sort_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Compute a sort key that puts ``slice9`` before ``slice10``; the name itself breaks ties."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], name


# ---- roles of folders and files ---------------------------------------------------------------------


def _find_folder_role(folder: Path) -> str | None:
    if is_lesion_mask_name(folder.name):
        return "lesion"
    return None if is_mask_name(folder.name) else find_sequence_in_name(folder.name)


def _assign_folder_roles(patient_folder: Path) -> dict[str, Path]:
    """Assign the patient's subfolders to sequences and the mask; raise if two have the same role."""
    folders: dict[str, Path] = {}
    for folder in (entry for entry in list_visible_entries(patient_folder) if entry.is_dir()):
        role = _find_folder_role(folder)
        if role is None:
            continue
        if role in folders:
            what = message("lesion-mask") if role == "lesion" else role
            raise InputError(
                message(
                    "picture-two-folders",
                    one=folders[role].name,
                    other=folder.name,
                    folder=patient_folder,
                    what=what,
                )
            )
        folders[role] = folder
    return folders


def _list_files_by_slice(folder: Path) -> dict[str, Path]:
    """List the files by slice name (the file's stem)."""
    files: dict[str, Path] = {}
    for file in list_picture_files(folder):
        if file.stem in files:
            one, other = files[file.stem].name, file.name
            raise InputError(message("picture-twice", slice=file.stem, folder=folder, one=one, other=other))
        files[file.stem] = file
    _check_unique_numbers(folder, files)
    return files


def _check_unique_numbers(folder: Path, files: Mapping[str, Path]) -> None:
    """Raise if two names denote one slice, such as 7.png and 07.png."""
    known: dict[str, Path] = {}
    for name, file in files.items():
        plain = re.sub(
            r"(?<![\d.,_])(\d+)[.,]0+(?!\d)", r"\1", unicodedata.normalize("NFKC", name).casefold()
        )
        key = re.sub(r"(?<![\d.,])0+(?=\d)", "", plain)
        if key in known:
            raise InputError(
                message("picture-one-number", one=known[key].name, other=file.name, folder=folder)
            )
        known[key] = file


def _check_same_names(folder_a: Path, names_a: set[str], folder_b: Path, names_b: set[str]) -> None:
    unmatched = sort_slice_names(names_a ^ names_b)
    if unmatched:
        shown = ", ".join(unmatched[:5])
        raise InputError(
            message(
                "picture-names-differ",
                one=folder_a,
                one_count=len(names_a),
                other=folder_b,
                other_count=len(names_b),
                names=message("and-others", names=shown) if len(unmatched) > 5 else shown,
            )
        )


def _check_same_size(folder_a: Path, a: NDArray[np.float32], folder_b: Path, b: NDArray[np.float32]) -> None:
    if a.shape[1:] != b.shape[1:]:
        raise InputError(
            message(
                "picture-sizes-differ",
                one=folder_a,
                one_size=_format_size(a),
                other=folder_b,
                other_size=_format_size(b),
            )
        )


def _format_size(image: NDArray[np.float32]) -> str:
    return f"{image.shape[-1]} x {image.shape[-2]}"


# ---- pixels -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Picture:
    """One slice. image: float32 ``(row, column)``, NaN where transparent; depth_text: its bit depth."""

    image: NDArray[np.float32]
    depth_text: Message


def _read_stack(files: Sequence[Path]) -> NDArray[np.float32]:
    """Read pictures in the given order into a stack, float32 ``(slice, row, column)``."""
    slices: list[_Picture] = []
    for file in files:
        slices.append(_read_picture(file))
        check_voxel_count(file.parent, (len(files), *slices[0].image.shape))
    first = slices[0]
    for file, piece in zip(files, slices, strict=True):
        if piece.image.shape != first.image.shape:
            one_size, other_size = _format_size(piece.image), _format_size(first.image)
            raise InputError(
                message(
                    "picture-size-differs",
                    one=file,
                    one_size=one_size,
                    other=files[0].name,
                    other_size=other_size,
                )
            )
        if piece.depth_text != first.depth_text:
            one_depth, other_depth, other = piece.depth_text, first.depth_text, files[0].name
            raise InputError(
                message(
                    "picture-depths-differ",
                    one=file,
                    one_depth=one_depth,
                    other=other,
                    other_depth=other_depth,
                )
            )
    return np.stack([piece.image for piece in slices])


def _read_picture(file: Path) -> _Picture:
    """Read one picture; raise if its grey values would be ambiguous."""
    try:
        with Image.open(file, formats=PICTURE_FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            frames = getattr(picture, "n_frames", 1)
            is_rotated = picture.getexif().get(_EXIF_ORIENTATION, 1) not in (0, 1)
            picture.load()
            pixel_format = _read_pixel_format(file, picture)
            transparent = _find_transparency(picture, pixel_format)
            grey = _convert_to_grey(picture, pixel_format)
    # A truncated file is an OSError because load() reads it all.
    except Image.DecompressionBombError:
        raise InputError(message("picture-huge", file=file, most=MAX_PIXELS / 1e6)) from None
    except _READ_ERRORS:
        raise InputError(message("picture-damaged", file=file)) from None
    if frames > 1:
        raise InputError(message("picture-several", file=file, count=frames))
    if is_rotated:
        raise InputError(message("picture-turned", file=file))
    if grey is None:
        raise InputError(message("picture-coloured", file=file))
    if transparent is None:
        raise InputError(message("picture-half-transparent", file=file))
    grey[transparent] = np.nan
    return _Picture(grey, _format_depth(picture.mode, pixel_format))


@dataclass(frozen=True)
class _PixelFormat:
    """How a file stores its values. bits: per sample; is_inverted: 0 is white and Pillow did not correct it."""

    bits: int
    is_signed: bool = False
    is_inverted: bool = False


_WIDE_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # all other modes have 8 bits


def _read_pixel_format(file: Path, picture: Image.Image) -> _PixelFormat:
    """Read bits, sign and inversion of a picture's values; raise if they are unknown or not supported."""
    bits, is_signed, is_inverted = 16 if picture.mode.startswith("I") else 8, False, False
    if isinstance(picture, TiffImageFile):
        if _TIFF_PHOTOMETRIC not in picture.tag_v2:
            raise InputError(message("picture-white-unknown", file=file))
        bits = max(picture.tag_v2.get(_TIFF_BITS, (1,)))
        is_signed = 2 in np.atleast_1d(picture.tag_v2.get(_TIFF_SAMPLE_FORMAT, 1))
        # Pillow inverts 8-bit values itself, wider ones it returns as stored.
        is_inverted = picture.tag_v2[_TIFF_PHOTOMETRIC] == 0 and picture.mode in _WIDE_MODES
    elif isinstance(picture, PngImageFile):
        bits = file.read_bytes()[24]
    if picture.mode in _WIDE_MODES:
        return _PixelFormat(bits, is_signed, is_inverted)
    if bits > 8:
        raise InputError(message("picture-colour-depth", file=file, bits=bits))
    if is_signed:
        raise InputError(message("picture-signed", file=file))
    return _PixelFormat(bits)


def _format_depth(mode: str, pixel_format: _PixelFormat) -> Message:
    """Format the bit depth; up to 8 bits, values are scaled to 0 to 255."""
    if mode == "F":
        return message("floating-point")
    return message("bits", count=pixel_format.bits if mode in _WIDE_MODES else 8)


def _find_transparency(picture: Image.Image, pixel_format: _PixelFormat) -> NDArray[np.bool_] | None:
    """Find the transparent pixels, ``(row, column)``; None where any pixel is partly transparent."""
    key = picture.info.get("transparency")
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or (picture.mode == "P" and key is not None):
        alpha = np.asarray(picture.convert("RGBA").getchannel("A"))
        return np.asarray(alpha == 0) if np.isin(alpha, (0, 255)).all() else None
    if key is None or picture.mode not in ("1", "L", "RGB", *_WIDE_MODES):
        return np.zeros((picture.height, picture.width), dtype=bool)
    pixels = np.asarray(picture.convert("L") if picture.mode == "1" else picture)
    if picture.mode in ("1", "L"):
        key = key * 255 // (2**pixel_format.bits - 1)  # values of fewer bits are scaled to 0 to 255
    same = np.asarray(pixels == key).reshape(*pixels.shape[:2], -1)
    return np.asarray(same.all(axis=2))


def _convert_to_grey(picture: Image.Image, pixel_format: _PixelFormat) -> NDArray[np.float32] | None:
    """Convert to grey values, float32 ``(row, column)``; three equal channels are grey; None if in colour."""
    if picture.mode in _WIDE_MODES:
        pixels = np.asarray(picture).astype(np.float32)
        return _invert_grey_values(pixels, picture.mode, pixel_format) if pixel_format.is_inverted else pixels
    if picture.mode in ("1", "L", "LA", "La"):
        return np.array(picture.convert("LA").getchannel("L"), dtype=np.float32)
    levels = np.asarray(picture.convert("RGB")).astype(np.int32)
    if np.ptp(levels, axis=2).max() > GREY_TOLERANCE:
        return None
    return levels[:, :, 1].astype(np.float32)


def _invert_grey_values(
    pixels: NDArray[np.float32], mode: str, pixel_format: _PixelFormat
) -> NDArray[np.float32]:
    """Invert within the range of the stored integers; floating-point values have no range and change sign."""
    if mode == "F":
        return -pixels
    highest = -1.0 if pixel_format.is_signed else 2.0**pixel_format.bits - 1
    return np.float32(highest) - pixels


def _convert_to_mask(image: NDArray[np.float32], files: Sequence[Path]) -> NDArray[np.float32]:
    """Convert a mask's pictures to 0 and 1: threshold 127 if white is used (JPEG blurs edges), else 0.

    Transparent pixels are background. Raise if some slices use 1 and others 255, or if the mask is inverted.
    """
    image = np.nan_to_num(image, nan=0.0)
    threshold = 127.0 if image.max() > 127 else 0.0
    for file, slice_image in zip(files, image, strict=True):
        if threshold and slice_image.max() == 1:
            raise InputError(message("picture-mask-mixed", file=file))
    mask = (image > threshold).astype(np.float32)
    if is_probably_inverted(mask):
        raise InputError(message("picture-mask-inverted", folder=files[0].parent))
    return mask


# ---- geometry ---------------------------------------------------------------------------------------


def _assume_geometry(
    shape: tuple[int, ...], spacing_mm: tuple[float, float, float] | None
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return the assumed LPS affine of a stack ``(slice, row, column)``, and notes on the assumptions."""
    orientation_note = message("picture-orientation-assumed")
    if spacing_mm is not None:
        if len(spacing_mm) != 3 or not all(0 < step < np.inf for step in spacing_mm):
            raise InputError(message("picture-spacing-unusable", spacing=str(spacing_mm)))
        return np.diag([*spacing_mm, 1.0]), (orientation_note,)
    slices, rows, columns = shape
    in_plane = ASSUMED_FIELD_OF_VIEW_MM / max(rows, columns)
    slice_spacing = min(MAX_ASSUMED_SLICE_SPACING_MM, ASSUMED_BRAIN_HEIGHT_MM / slices)
    spacing_note = message("picture-spacing-assumed", in_plane=in_plane, step=slice_spacing)
    return np.diag([in_plane, in_plane, slice_spacing, 1.0]), (orientation_note, spacing_note)


def _claim_folder(folder: Path) -> Certainty:
    """Claim a folder with subfolders of pictures named after sequences; loose pictures are not readable."""
    return Certainty.CERTAIN if has_pictures(folder) else Certainty.NONE


READER = Reader("pictures", _claim_folder, read_folder=read_pictures)
