"""Data classes of images: series, study, prepared slices and their segmentation.

Geometry: image arrays are ``(slice, row, column)``. An ``affine`` is ``(4, 4)`` and maps the index
``(column, row, slice, 1)`` to patient coordinates in mm, in DICOM's LPS system: x increases to the patient's left,
y to the back, z to the head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from gliomark.errors import InputError
from gliomark.messages import message

if TYPE_CHECKING:
    from gliomark.io.images import ImageSource

DICOM_MANUFACTURER = "gliomark"  # Manufacturer in DICOM results, by which they are recognised


class MRSequence(StrEnum):
    """MR sequences of the method; ``T1C`` is T1 after contrast."""

    T1 = "T1"
    T1C = "T1C"
    T2 = "T2"
    FLAIR = "FLAIR"


@dataclass(frozen=True)
class SourceImage:
    """DICOM image from which a slice was read: a file, or one frame (from 0) of a multi-frame file.

    position: centre of its first pixel in LPS mm. fractional_index: slice index in its Series, from 0; a fraction if
    the image lies off the regular grid and the slices of the Series are interpolated.
    """

    file: Path
    frame: int | None
    position: tuple[float, float, float]
    fractional_index: float = field(metadata={"stored_as": "place"})


@dataclass(frozen=True)
class NiftiSpace:
    """Geometry fields of a NIfTI header, unchanged, so that results can be written with the same fields.

    pixdim: qfac, then the spacing of columns, rows and slices; quaternion: b, c, d; rows: srow_x, srow_y, srow_z;
    units: xyzt_units.
    """

    qform_code: int
    sform_code: int
    pixdim: tuple[float, float, float, float]
    quaternion: tuple[float, float, float]
    offset: tuple[float, float, float]
    rows: tuple[tuple[float, ...], ...]
    units: int


@dataclass(frozen=True, eq=False)
class Series:
    """One sequence of one patient as stored, without reorientation or intensity scaling.

    Attributes
    ----------
    image
        float32 ``(slice, row, column)``.
    affine
        ``(4, 4)``, maps ``(column, row, slice, 1)``, the reverse of the order of the image's axes, to LPS mm.
    slice_names
        One per slice: the file's stem for pictures, otherwise a counter from ``001``.
    source
        File or folder from which it was read.
    source_images
        The images that were read, in slice order; DICOM only.
    missing
        Boolean, shape of image: voxels without a valid value, which have the background value in image; None: none.
    is_oriented
        Whether the file states the orientation; otherwise the directions of the affine are assumed.
    space
        Geometry fields of the header; NIfTI only.
    """

    image: NDArray[np.float32]
    affine: NDArray[np.float64]
    slice_names: tuple[str, ...]
    source: Path
    source_images: tuple[SourceImage, ...] = ()
    missing: NDArray[np.bool_] | None = None
    is_oriented: bool = True
    space: NiftiSpace | None = None

    def __repr__(self) -> str:
        """Return one line with shape, spacing and source."""
        return f"Series({describe_grid(self.image, self.affine)}, source={self.source.name!r})"


@dataclass(frozen=True)
class Examination:
    """The examination that was read: date (YYYYMMDD, empty if unknown), number in order of time (from 1), and count."""

    date: str
    number: int
    count: int


@dataclass(frozen=True, eq=False)
class Study:
    """One examination of a patient, as read from files (``read_study``), images or arrays.

    Attributes
    ----------
    patient_id
        The patient's id.
    series
        The sequences that are present.
    source
        Folder or file from which they were read.
    kind
        "pictures" or "volumes" (also DICOM).
    aligned
        Whether the sequences already share one pixel grid (picture folders) and are not registered.
    spacing_assumed
        Whether the spacing is assumed, not read from the files.
    lesion
        The reader's mask as a Series of 0 and 1, if present.
    notes
        Processing steps and assumptions of reading.
    examination
        Which of the patient's examinations was read; None for pictures and for volumes without sessions.
    """

    patient_id: str
    series: Mapping[MRSequence, Series]
    source: Path
    kind: Literal["pictures", "volumes"]
    aligned: bool = False
    spacing_assumed: bool = False
    lesion: Series | None = None
    notes: tuple[str, ...] = ()
    examination: Examination | None = None

    def __repr__(self) -> str:
        """Return one line with the sequences and their size."""
        grids = ", ".join(f"{name} {describe_shape(one.image)}" for name, one in self.series.items())
        return f"Study({self.patient_id!r}: {grids or 'no images'}; {self.kind})"

    @property
    def is_orientation_stated(self) -> bool:
        """Whether the files state how the images lie in the patient; otherwise it is assumed, as for pictures."""
        return self.kind != "pictures" and all(one.is_oriented for one in self.series.values())

    @classmethod
    def from_images(cls, images: Mapping[str, ImageSource], patient_id: str = "patient") -> Study:
        """Create a study from one image per sequence, from files or from memory.

        Parameters
        ----------
        images
            By sequence ("T1", "T1C", "T2", "FLAIR", or a usual name of one such as "t1ce"): the path of a NIfTI,
            MetaImage, NRRD or DICOM file, a folder with one DICOM series, a nibabel image, a SimpleITK image, or a
            tuple of an array and its affine as in ``from_arrays``.
        patient_id
            The id in results.

        Returns
        -------
        Study
            Series ``(slice, row, column)`` with their affines to LPS mm. The images are copied, and never assumed to be
            aligned.

        Raises
        ------
        InputError
            If there is no image, a name or type is unknown, a file is missing or damaged, or an image is constant,
            inverted, in colour, not 3-D or not on an orthogonal grid.

        Examples
        --------
        >>> study = Study.from_images({"T1C": "t1c.nii.gz", "FLAIR": nibabel.load("flair.nii.gz")})
        """
        from gliomark.io.images import read_images

        return read_images(images, patient_id)

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, NDArray[Any]],
        affine: NDArray[np.float64] | Mapping[str, NDArray[np.float64]],
        patient_id: str = "patient",
    ) -> Study:
        """Create a study from arrays, in the conventions of NIfTI and nibabel.

        Parameters
        ----------
        arrays
            By sequence: grey values ``(i, j, k)`` in any order and direction of axes.
        affine
            The affine ``(4, 4)`` of all arrays, or one by sequence. It maps ``(i, j, k, 1)`` to mm in RAS: x increases
            to the patient's right, y to the front, z to the head.
        patient_id
            The id in results.

        Returns
        -------
        Study
            As from ``from_images``.

        Raises
        ------
        InputError
            As in ``from_images``; also if the affine is not a matrix ``(4, 4)`` or the one of an array is missing.

        Examples
        --------
        An axial volume whose first axis runs to the patient's left, the second to the back, and the third to the head,
        with pixels of 0.5 mm and slices of 6 mm:

        >>> affine = numpy.diag([-0.5, -0.5, 6.0, 1.0])
        >>> study = Study.from_arrays({"T1C": t1c, "FLAIR": flair}, affine)
        """
        affines = affine if isinstance(affine, Mapping) else dict.fromkeys(arrays, affine)
        return cls.from_images(
            {name: (array, affines.get(name)) for name, array in arrays.items()}, patient_id
        )


@dataclass(frozen=True)
class ClinicalData:
    """A patient's row of the clinical table.

    Attributes
    ----------
    patient_id
        The patient's id.
    age
        In years; None if unknown.
    sex
        0 male, 1 female; None if unknown.
    columns
        All further columns as text without empty cells, such as markers.
    """

    patient_id: str
    age: float | None
    sex: int | None
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SliceStack:
    """A prepared patient: skull-stripped, z-scored axial slices of all sequences on one grid.

    Attributes
    ----------
    patient_id
        The patient's id.
    images
        By sequence: float32 ``(slice, 240, 240)``, 1 mm pixels; rows run from front to back, columns from the
        patient's right to left.
    brain, lesion
        Boolean masks of the same shape; lesion: the reader's, if there is one.
    affine
        ``(4, 4)``, index to LPS mm.
    slice_names
        One per slice.
    selected
        Indices of the K equidistant slices for the marker networks.
    notes
        Processing steps and assumptions.
    to_stack
        By sequence: rigid transform ``(4, 4)`` from the series' LPS mm to the stack's, from registration.
    coverage
        By sequence: share of the brain that it shows, 0 to 1.
    examined
        Share of the brain that all sequences show, which is the extent of the stack; None if the images end within the
        brain and the missing part is unknown.
    warnings
        Limits of the result.
    """

    patient_id: str
    images: Mapping[MRSequence, NDArray[np.float32]]
    brain: NDArray[np.bool_]
    affine: NDArray[np.float64]
    slice_names: tuple[str, ...]
    selected: tuple[int, ...]
    lesion: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()
    to_stack: Mapping[MRSequence, NDArray[np.float64]] = field(default_factory=dict)
    coverage: Mapping[MRSequence, float] = field(default_factory=dict)
    examined: float | None = 1.0
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return one line with the sequences, shape and spacing."""
        return f"SliceStack({self.patient_id!r}: {', '.join(self.images)}; {describe_grid(self.brain, self.affine)})"

    @property
    def reader_mask(self) -> NDArray[np.bool_]:
        """The reader's mask, boolean ``(slice, row, column)``.

        Raises
        ------
        InputError
            If there is none.
        """
        if self.lesion is None:
            raise InputError(message("no-mask", patient=self.patient_id))
        return self.lesion

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Spacing of slices, rows and columns in mm."""
        column_step, row_step, slice_step = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(slice_step), float(row_step), float(column_step)

    @property
    def pixel_area_mm2(self) -> float:
        """Area of one pixel in mm2."""
        return float(np.linalg.norm(self.affine[:3, 0]) * np.linalg.norm(self.affine[:3, 1]))

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in ml, with the slice spacing as its height."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0


READER_SEGMENTATION_RULE = message("outline-by-reader")
CANNOT_TELL = "cannot tell"  # level between the limits of a calibrated marker
DEFAULT_COVERAGE = 0.9  # of stated levels


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Lesion segmentation of a SliceStack.

    Attributes
    ----------
    probability
        float32 ``(slice, 240, 240)``, 0 to 1.
    mask
        Boolean, same shape.
    rule
        Message that describes how the sequences were combined, or that a reader drew the mask.
    """

    probability: NDArray[np.float32]
    mask: NDArray[np.bool_]
    rule: str

    def __repr__(self) -> str:
        """Return one line with the shape and the number of lesion voxels."""
        return f"Segmentation({describe_shape(self.mask)}, {int(self.mask.sum())} lesion voxels)"

    @property
    def is_drawn_by_reader(self) -> bool:
        """Whether a reader drew or corrected the mask, which results must state."""
        return self.rule == READER_SEGMENTATION_RULE


def describe_shape(array: NDArray[Any]) -> str:
    """Describe the shape of an array, such as "24 x 256 x 256" for ``(24, 256, 256)``."""
    return " x ".join(map(str, array.shape))


def describe_grid(array: NDArray[Any], affine: NDArray[np.float64]) -> str:
    """Describe the shape of an array ``(slice, row, column)`` and the spacing of these axes in mm."""
    spacing = np.linalg.norm(affine[:3, 2::-1], axis=0)
    return f"{describe_shape(array)}, {' x '.join(f'{step:.3g}' for step in spacing)} mm"
