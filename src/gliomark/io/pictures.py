"""Picture folders: ``<patient>/<sequence>/<slice>.jpg|png|bmp|tif``, slices of one place sharing their name.

Pictures carry no geometry. Assumed, and said in the study's notes: axial slices as a viewer shows them
(the patient's right on the left, the front on top), names ascending towards the head. Where the user
gives no spacing, the longer side of a picture spans 240 mm and slices are min(6, 150 / number) mm apart.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gliomark.io.layout import folder_name, visible
from gliomark.io.naming import is_lesion_name, is_mask_name, sequence_in_name
from gliomark.study import GliomarkError, MRSequence, Series, Study

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
FIELD_OF_VIEW_MM = 240.0
LARGEST_SLICE_STEP_MM = 6.0
BRAIN_HEIGHT_MM = 150.0
# JPEG decoders round each channel on their own, by a level or two; a coloured mark differs by far more.
GREY_TOLERANCE = 3
_EXIF_ORIENTATION = 0x0112
# The ways in which Pillow tells of damage, found by cutting and altering files of every kind.
_DAMAGE = (
    OSError, SyntaxError, ValueError, TypeError, EOFError, zlib.error, struct.error,
    Image.DecompressionBombError,
)  # fmt: skip


def picture_files(folder: Path) -> list[Path]:
    """The pictures that lie directly in a folder, in no particular order."""
    return [entry for entry in visible(folder) if entry.suffix.lower() in SUFFIXES and entry.is_file()]


def holds_pictures(path: Path) -> bool:
    """Whether a folder is one patient's pictures: a subfolder named after a sequence holds some."""
    folders = [entry for entry in visible(path) if entry.is_dir()]
    return any(_role(folder) in tuple(MRSequence) and picture_files(folder) for folder in folders)


def read_pictures(path: Path, spacing_mm: tuple[float, float, float] | None = None) -> Study:
    """Read one patient's pictures; spacing_mm is the step from column to column, row to row, slice to slice.

    Raises: GliomarkError when names or sizes differ between sequences, or a picture is damaged, coloured
    or a whole sequence black.
    """
    folders = _folders_by_role(path)
    listed = {role: _files_by_name(folder) for role, folder in folders.items()}
    for role, folder in folders.items():
        if not listed[role]:
            raise GliomarkError(f"{folder} holds no pictures: put its slices there or remove the folder.")
    reference = next(sequence for sequence in MRSequence if sequence in folders)
    names = sorted(listed[reference], key=natural_key)
    for role, files in listed.items():
        _check_same_names(folders[reference], set(names), folders[role], set(files))

    images = {role: _read_stack([files[name] for name in names]) for role, files in listed.items()}
    for role, image in images.items():
        _check_same_size(folders[reference], images[reference], folders[role], image)
        if role != "lesion" and image.max() == image.min():
            raise GliomarkError(
                f"All pictures in {folders[role]} are black or of one grey: export them again."
            )

    affine, notes = _geometry(images[reference].shape, spacing_mm)
    series = {role: Series(image, affine, tuple(names), folders[role]) for role, image in images.items()}
    return Study(
        patient_id=folder_name(path),
        series={sequence: series[sequence] for sequence in MRSequence if sequence in series},
        source=path,
        kind="pictures",
        aligned=True,
        spacing_assumed=spacing_mm is None,
        lesion=_as_mask(series["lesion"]) if "lesion" in series else None,
        notes=notes,
    )


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sorting key that puts ``slice9`` before ``slice10``; the name itself breaks ties."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], name


# ---- which folder and file is what ------------------------------------------------------------------


def _role(folder: Path) -> str | None:
    if is_lesion_name(folder.name):
        return "lesion"
    return None if is_mask_name(folder.name) else sequence_in_name(folder.name)


def _folders_by_role(path: Path) -> dict[str, Path]:
    """The patient's sequence folders and the mask's; two names for one sequence are an error."""
    folders: dict[str, Path] = {}
    for folder in (entry for entry in visible(path) if entry.is_dir()):
        role = _role(folder)
        if role is None:
            continue
        if role in folders:
            what = "a lesion mask" if role == "lesion" else role
            raise GliomarkError(
                f"Both {folders[role].name} and {folder.name} in {path} are {what} by their names: two "
                "patients or a repeat may be mixed, keep one folder of each."
            )
        folders[role] = folder
    return folders


def _files_by_name(folder: Path) -> dict[str, Path]:
    """Slice name (the file's stem) to file."""
    files: dict[str, Path] = {}
    for file in picture_files(folder):
        if file.stem in files:
            raise GliomarkError(
                f"Slice {file.stem} is in {folder} twice, as {files[file.stem].name} and {file.name}: "
                "remove one."
            )
        files[file.stem] = file
    return files


def _check_same_names(folder_a: Path, names_a: set[str], folder_b: Path, names_b: set[str]) -> None:
    lone = sorted(names_a ^ names_b, key=natural_key)
    if lone:
        shown = ", ".join(lone[:5]) + (" and others" if len(lone) > 5 else "")
        raise GliomarkError(
            f"The slice names in {folder_a} ({len(names_a)} slices) and {folder_b} ({len(names_b)} slices) "
            f"do not match: {shown} only in one of them; give slices of one place the same name in every folder."
        )


def _check_same_size(folder_a: Path, a: NDArray[np.float32], folder_b: Path, b: NDArray[np.float32]) -> None:
    if a.shape != b.shape:
        raise GliomarkError(
            f"The pictures in {folder_a} are {a.shape[2]} x {a.shape[1]} and those in {folder_b} "
            f"{b.shape[2]} x {b.shape[1]} pixels: export all sequences in one size."
        )


# ---- pixels -----------------------------------------------------------------------------------------


def _read_stack(files: Sequence[Path]) -> NDArray[np.float32]:
    """Stack pictures in the order given: float32 ``(slice, row, column)``."""
    slices = [_read_picture(file) for file in files]
    for file, image in zip(files, slices, strict=True):
        if image.shape != slices[0].shape:
            raise GliomarkError(
                f"{file} is {image.shape[1]} x {image.shape[0]} pixels but {files[0].name} beside it "
                f"{slices[0].shape[1]} x {slices[0].shape[0]}: export all slices in one size."
            )
    return np.stack(slices)


def _read_picture(file: Path) -> NDArray[np.float32]:
    """Read one whole picture as grey values, float32 ``(row, column)``, 8- or 16-bit range kept."""
    try:
        with Image.open(file) as picture:
            frames = getattr(picture, "n_frames", 1)
            turned = picture.getexif().get(_EXIF_ORIENTATION, 1) not in (0, 1)
            picture.load()
            layers = (
                picture.convert("RGB") if picture.mode in {"P", "RGBA", "CMYK", "YCbCr"} else picture.copy()
            )
    # A truncated file is an OSError because load() reads it all.
    except _DAMAGE:
        raise GliomarkError(f"{file} is truncated or damaged: copy or export it again.") from None
    if frames > 1:
        raise GliomarkError(f"{file} holds {frames} pictures: save every slice in a file of its own.")
    if turned:
        raise GliomarkError(f"{file} is marked to be shown turned or mirrored (EXIF): save it upright.")
    return _grey(file, layers)


def _grey(file: Path, picture: Image.Image) -> NDArray[np.float32]:
    """Grey values of a picture; three channels that agree are grey too, any colour is refused."""
    pixels = np.asarray(picture.getchannel(0) if picture.mode == "LA" else picture)
    if pixels.ndim == 2:
        return pixels.astype(np.float32)
    levels = pixels.astype(np.int32)
    if pixels.shape[2] != 3 or np.ptp(levels, axis=2).max() > GREY_TOLERANCE:
        raise GliomarkError(f"{file} is a colour picture: export grey pictures without coloured marks.")
    return levels[:, :, 1].astype(np.float32)


def _as_mask(series: Series) -> Series:
    """A mask's pictures as 0 and 1: above 127 where white is used (JPEG blurs edges), else above 0."""
    limit = 127.0 if series.image.max() > 127 else 0.0
    return Series((series.image > limit).astype(np.float32), series.affine, series.slice_names, series.source)


# ---- millimetres ------------------------------------------------------------------------------------


def _geometry(
    shape: tuple[int, ...], spacing_mm: tuple[float, float, float] | None
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """LPS affine of a stack ``(slice, row, column)`` as displayed, and the notes on what is assumed."""
    shown = (
        "The pictures are taken for axial slices, the patient's right on the left, named towards the head."
    )
    if spacing_mm is not None:
        if len(spacing_mm) != 3 or not all(0 < step < np.inf for step in spacing_mm):
            raise GliomarkError(f"The spacing {spacing_mm} is not usable: give three positive millimetres.")
        return np.diag([*spacing_mm, 1.0]), (shown,)
    slices, rows, columns = shape
    in_plane = FIELD_OF_VIEW_MM / max(rows, columns)
    step = min(LARGEST_SLICE_STEP_MM, BRAIN_HEIGHT_MM / slices)
    assumed = (
        f"The pictures carry no millimetres: {in_plane:.4g} x {in_plane:.4g} mm pixels and {step:.3g} mm "
        "from slice to slice are assumed, so areas and volumes are estimates."
    )
    return np.diag([in_plane, in_plane, step, 1.0]), (shown, assumed)
