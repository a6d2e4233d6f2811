"""Volumes: a patient's folder of NIfTI, MetaImage or NRRD files, and what a file's name says about it.

Names. A file (or a subfolder) is taken for the sequence that its words name first: ``t1``, ``t1n``, ``T1w``
are T1; ``t1c``, ``t1ce``, ``t1gd``, ``T1 ... POST GAD`` are T1C; ``t2``, ``t2w`` are T2; ``flair``, ``fla``,
``t2f`` are FLAIR. ``T1 FLAIR`` is a T1. Words such as ``dwi``, ``swi`` or ``T2*`` name no sequence of ours.

Masks. The lesion is the enhancing tumour with the necrotic core, without oedema. A mask with one label is
taken as it is. With several labels out of 1 to 4, label 2 (oedema) is left out: BraTS 2013 to 2021 give
1 (+ 3) + 4, BraTS 2023 gives 1 + 3. The exception is a MetaImage with labels 1 and 2 alone, the coding of
BRATS 2012, where 1 is oedema and 2 the tumour core.
"""

from __future__ import annotations

import math
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from gliomark.geometry import affine_of, is_right_angled, is_usable, space_of
from gliomark.io.itk_space import check_itk_space
from gliomark.io.nifti_space import affine_of_space, raw_header
from gliomark.messages import message
from gliomark.study import GliomarkError, MRSequence, Series, Study

SUFFIXES = (".nii", ".nii.gz", ".hdr", ".mha", ".mhd", ".nrrd", ".nhdr")
MOST_VOXELS = 200e6  # 512 x 512 x 700
WHOLE = 1e-3  # how far a label may be off a whole number

# ---- what a name says -------------------------------------------------------------------------------

# Scanner descriptions glue the plane and the technique to the weighting: "3DAXT1postcontrast".
_WEIGHTED = re.compile(
    r"(?P<before>(?:3d|2d|axial|ax|tra|sagittal|sag|coronal|cor|fse|tse|ir|pre|post|ce)*)"
    r"t(?P<weight>[12])(?!\d)(?P<rest>.*)"
)
_FLAIR = re.compile(r".*flair.*|fla|t2f|tirm")
_OTHER_IMAGES = frozenset(
    "dwi adc swi asl dti dsc dce perfusion perf diffusion trace tof mra mrv localizer localiser scout survey "
    "map t1map t2map star t2star gre pd cbf cbv fa md phase mip".split()
)
_CONTRAST = frozenset(
    "c +c c+ ce +ce gd +gd gad +gad gado gadolinium post km +km cm contrast enhanced".split()
)
_T1_ENDINGS = frozenset("c ce wc wce cm km".split())
_CONTRAST_PART = re.compile(r"\+c|gd|gad|post(?!op)|contrast|enh|增强|强化")
_DENIAL = frozenset("no non without wo pre sans ohne plain native".split())
_MASK = re.compile(r"seg.*|.*mask|mask.*|truth|label.*|ot|gt|.*segmentation")


def words_of(name: str) -> list[str]:
    """Split a name or description into lower-case words; ``+`` stays, as in ``t1+c``."""
    return [word for word in re.split(r"[^\w+]+|_+", name.lower()) if word]


def sequence_in_name(name: str) -> MRSequence | None:
    """Which of the four sequences a file's, folder's or series' name means, None where it names none."""
    words = words_of(name)
    if _OTHER_IMAGES.intersection(words) or re.search(r"t2\s?\*", name.lower()):
        return None
    weights = [(at, match) for at, word in enumerate(words) if (match := _WEIGHTED.fullmatch(word))]
    flairs = [at for at, word in enumerate(words) if _FLAIR.fullmatch(word)]
    first = weights[0][1]["weight"] if weights else None
    # A T1 FLAIR is a T1: the weighting stands before the technique. "FLAIR registered to T1" is a FLAIR.
    if flairs and not (first == "1" and weights[0][0] <= flairs[0]):
        return MRSequence.FLAIR
    if first == "2":
        return MRSequence.T2
    if first == "1":
        t1_words = [match for _, match in weights if match["weight"] == "1"]
        return MRSequence.T1C if _with_contrast(words, t1_words) else MRSequence.T1
    return None


def _with_contrast(words: list[str], t1_words: list[re.Match[str]]) -> bool:
    """Whether words such as POST or GAD, or the letters glued to ``t1``, tell of contrast medium."""
    for match in t1_words:
        before, rest = match["before"], match["rest"]
        if "pre" in before or re.search("pre|non?contrast", rest):
            return False
        if before.endswith(("post", "ce")) or rest in _T1_ENDINGS or _CONTRAST_PART.search(rest):
            return True
    for at, word in enumerate(words):
        denied = at > 0 and words[at - 1] in _DENIAL
        surgery = word == "post" and words[at + 1 : at + 2] in (["op"], ["surgery"])
        glued = re.fullmatch(r"(\+|post)(contrast|gad.*|gd|c|ce|km)|gad\w+|.*(增强|强化).*", word)
        if (word in _CONTRAST or glued) and not denied and not surgery:
            return True
    return False


def is_lesion_name(name: str) -> bool:
    """Whether a name says that the file or folder is a lesion mask; a brain mask is none."""
    words = words_of(name)
    brain = any(word.startswith(("brain", "parenchyma", "skull")) for word in words)
    marks = [word for word in words if _MASK.fullmatch(word)]
    return bool(marks) and (not brain or "ot" in marks)  # VSD.Brain.XX.O.OT is BRATS 2013's truth


def visible(folder: Path) -> list[Path]:
    """A folder's files and subfolders by name, without hidden ones (``._001.jpg``, ``.git``).

    Raises: GliomarkError when the folder cannot be listed.
    """
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        raise GliomarkError(
            f"{folder} cannot be listed ({error.strerror}): check the path and its permissions."
        ) from None
    return [entry for entry in found if not entry.name.startswith((".", "__MACOSX"))]


def folder_name(path: Path) -> str:
    """The patient's id as the folder has it, also for ``.`` and paths that end in ``..``."""
    return Path(os.path.abspath(path)).name


# ---- a patient's folder -----------------------------------------------------------------------------


def volume_files(path: Path) -> list[Path]:
    """Volume files of a patient: in the folder, and in subfolders named after one sequence or a mask."""
    files = _volumes_in(path)
    for folder in (entry for entry in visible(path) if entry.is_dir()):
        if sequence_in_name(folder.name) or is_lesion_name(folder.name):
            inside = _volumes_in(folder)
            # A patient called T1-003 is no sequence: files of several sequences lie in it.
            if len({sequence_in_name(_stem(file)) for file in inside} - {None}) <= 1:
                files += inside
    return files


def _volumes_in(folder: Path) -> list[Path]:
    return [file for file in visible(folder) if file.name.lower().endswith(SUFFIXES) and file.is_file()]


def holds_volumes(path: Path) -> bool:
    """Whether a folder is one patient's volumes: at least one file name carries a sequence."""
    return any(_role(path, file) in tuple(MRSequence) for file in volume_files(path))


def read_volumes(path: Path) -> Study:
    """Read one patient's volumes, geometry as the files state it.

    Nothing is taken to be aligned, even on equal grids: registration decides.

    Raises: GliomarkError for two files of one sequence, a damaged file, NaN, all-zero or 4-D images.
    """
    roles = _files_by_role(path)
    notes: list[str] = []
    series = {sequence: _read_series(roles[sequence], notes) for sequence in MRSequence if sequence in roles}
    if not series:
        names = ", ".join(file.name for file in volume_files(path)[:4])
        raise GliomarkError(
            f"No file in {path} carries T1, T1C, T2 or FLAIR in its name (found {names}): rename the volumes."
        )
    lesion = read_lesion(roles["lesion"], notes) if "lesion" in roles else None
    _check_orientations([*series.values(), *([lesion] if lesion else [])])
    return Study(folder_name(path), series, path, "volumes", lesion=lesion, notes=tuple(notes))


def _role(path: Path, file: Path) -> str | None:
    """The MRSequence a file holds, ``"lesion"`` or None; the subfolder speaks where the file is silent."""
    names = [_stem(file)] + ([file.parent.name] if file.parent != path else [])
    for name in names:
        if is_lesion_name(name):
            return "lesion"
        if any(_MASK.fullmatch(word) for word in words_of(name)):
            return None  # a brain mask named after its sequence is not the sequence
        if sequence := sequence_in_name(name):
            return sequence
    return None


def _files_by_role(path: Path) -> Mapping[str, Path]:
    roles: dict[str, Path] = {}
    for file in volume_files(path):
        role = _role(path, file)
        if role is None:
            continue
        if role in roles:
            what = "a lesion mask" if role == "lesion" else role
            raise GliomarkError(
                f"Both {roles[role].name} and {file.name} in {path} are {what} by their names: two patients "
                "or a repeat may be mixed, keep one file of each in a patient's folder."
            )
        roles[role] = file
    return roles


def _stem(file: Path) -> str:
    return re.sub(r"(\.nii\.gz|\.[^.]+)$", "", file.name, flags=re.IGNORECASE)


# ---- one volume -------------------------------------------------------------------------------------


def _read_series(file: Path, notes: list[str]) -> Series:
    """Read and check one volume; what the reader should know is added to ``notes``."""
    series = _read_volume(file, notes)
    image = series.image
    bad = image.size - int(np.isfinite(image).sum())
    if bad:
        raise GliomarkError(message("volume-not-numbers", file=file, count=bad))
    if not image.any():
        raise GliomarkError(message("volume-zero", file=file))
    return series


def read_lesion(file: Path, notes: list[str]) -> Series:
    """Read a mask as 0 and 1, oedema left out (see the module's text); an empty mask is allowed.

    Raises: GliomarkError for values that are not whole numbers, negative, or no labels of BraTS.
    """
    series = _read_volume(file, notes)
    labels = _labels_of(file, series.image)
    kept = labels
    if len(labels) > 1:
        brats_2012 = labels == {1.0, 2.0} and not _is_nifti(file)
        oedema = 1.0 if brats_2012 else 2.0
        kept = labels - {oedema}
        if oedema in labels:
            notes.append(message("mask-oedema", label=oedema, file=file.name))
    mask = np.isin(np.rint(series.image), list(kept)).astype(np.float32)
    return replace(series, image=mask)


def _labels_of(file: Path, image: NDArray[np.float32]) -> set[float]:
    """The labels of a mask but 0. A file's scaling may leave them off whole numbers in the last digits."""
    values = np.unique(image)
    if not np.isfinite(values).all():
        count = int(image.size - np.isfinite(image).sum())
        raise GliomarkError(message("mask-not-numbers", file=file, count=count))
    if np.abs(values - np.rint(values)).max() > WHOLE:
        raise GliomarkError(message("mask-fractions", file=file, low=values[0], high=values[-1]))
    labels = {float(label) for label in np.rint(values)} - {0.0}
    if any(label < 0 for label in labels) or (len(labels) > 1 and not labels <= {1.0, 2.0, 3.0, 4.0}):
        shown = ", ".join(f"{label:g}" for label in sorted(labels)[:6])
        raise GliomarkError(message("mask-labels", file=file, labels=shown))
    return labels


def _read_volume(file: Path, notes: list[str]) -> Series:
    """One 3-D grey volume with its grid checked, its values as they are."""
    series = _read_nifti(file, notes) if _is_nifti(file) else _read_itk(file, notes)
    _check_grid(file, series.affine)
    return series


def _is_nifti(file: Path) -> bool:
    return file.name.lower().endswith((".nii", ".nii.gz", ".hdr"))


def _read_nifti(file: Path, notes: list[str]) -> Series:
    """NIfTI by nibabel, the file's scaling applied; where it lies by the rule of ``nifti_space``."""
    try:
        volume = nib.load(file)
        if isinstance(volume, nib.AnalyzeImage) and not isinstance(volume, nib.Nifti1Pair):
            raise GliomarkError(message("volume-analyze", file=file))
        if not isinstance(volume, nib.Nifti1Pair):  # single files and NIfTI-2 are pairs too
            raise ImageFileError
        kind, shape = volume.get_data_dtype(), volume.shape
        _check_kind(file, kind.kind in "biuf", shape)
        _check_size(file, shape)
        data = np.asarray(volume.dataobj, dtype=np.float32)
        space = space_of(raw_header(volume))
    except (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError, WrapStructError):
        raise GliomarkError(message("volume-damaged", file=file)) from None
    image = np.ascontiguousarray(data.reshape(shape[:3]).transpose(2, 1, 0))
    affine, oriented = affine_of_space(file, space, image.shape, notes)
    return Series(image, affine, counted_names(len(image)), file, is_oriented=oriented, space=space)


def _check_size(file: Path, shape: Sequence[int]) -> None:
    """A packed file of a megabyte may unpack to many gigabytes; asked before anything is unpacked."""
    voxels = math.prod(int(length) for length in shape)
    if voxels > MOST_VOXELS:
        raise GliomarkError(message("volume-huge", file=file, millions=voxels / 1e6, most=MOST_VOXELS / 1e6))


def _read_itk(file: Path, notes: list[str]) -> Series:
    """MetaImage or NRRD by SimpleITK."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(os.fspath(file))
    try:
        reader.ReadImageInformation()
        _check_size(file, reader.GetSize())
        volume = reader.Execute()
    except RuntimeError:
        raise GliomarkError(message("volume-damaged", file=file)) from None
    real = volume.GetNumberOfComponentsPerPixel() == 1 and "complex" not in volume.GetPixelIDTypeAsString()
    _check_kind(file, real, volume.GetSize())
    if volume.GetDimension() == 4:
        volume = volume[:, :, :, 0]
    oriented, mm_per_unit = check_itk_space(file)
    if not oriented:
        notes.append(message("volume-unoriented-itk", file=file.name))
    affine = affine_of(volume)
    affine[:3] *= mm_per_unit
    image = sitk.GetArrayFromImage(volume).astype(np.float32)
    return Series(image, affine, counted_names(len(image)), file, is_oriented=oriented)


def _check_kind(file: Path, real: bool, shape: tuple[int, ...]) -> None:
    if not real:
        raise GliomarkError(message("volume-coloured", file=file))
    if len(shape) < 3 or any(extent != 1 for extent in shape[3:]) or 1 in shape[:3]:
        sizes = " x ".join(str(extent) for extent in shape)
        raise GliomarkError(message("volume-not-3d", file=file, sizes=sizes))


def _check_grid(file: Path, affine: NDArray[np.float64]) -> None:
    """A grid must be right-angled, or left-right and millimetres lose their meaning downstream."""
    if not is_usable(affine):
        raise GliomarkError(message("volume-form-unusable", file=file))
    if not is_right_angled(affine):
        raise GliomarkError(message("volume-sheared", file=file))


def _check_orientations(volumes: Sequence[Series]) -> None:
    """Volumes of which some state no orientation cannot be laid on those that do."""
    stated = [one.source.name for one in volumes if one.is_oriented]
    assumed = [one.source.name for one in volumes if not one.is_oriented]
    if stated and assumed:
        raise GliomarkError(
            message("volumes-oriented-and-not", folder=volumes[0].source.parent, file=", ".join(assumed),
                    other=", ".join(stated))
        )  # fmt: skip


def counted_names(slices: int) -> tuple[str, ...]:
    """Names ``001``, ``002``, ... for slices that have none."""
    return tuple(f"{number:03d}" for number in range(1, slices + 1))
