"""The segmentation that a user gives for a patient: every accepted form, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.io.test_masks import write_structure_set

from gliomark.errors import InputError
from gliomark.geometry import LPS_TO_RAS
from gliomark.io import read_study
from gliomark.io.masks import SeriesGrid
from gliomark.io.masks.reader_mask import ReaderMask, read_reader_mask
from gliomark.study import MRSequence, Study

SHAPE = (6, 40, 48)  # slice, row, column
Mask = NDArray[np.bool_]


def draw_mask() -> Mask:
    """Two slices of a rectangle with a hole, off the centre in every direction."""
    mask = np.zeros(SHAPE, bool)
    mask[2:4, 8:22, 25:40] = True
    mask[3, 12:16, 30:34] = False
    return mask


def draw_image(seed: int) -> NDArray[np.uint8]:
    """A bright textured ellipse on black."""
    _, y, x = np.meshgrid(*(np.linspace(-1, 1, count) for count in SHAPE), indexing="ij")
    texture = np.random.default_rng(seed).integers(60, 200, SHAPE)
    return np.where(x**2 + y**2 < 0.8, texture, 0).astype(np.uint8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A patient in pictures; the slices are 1.png to 6.png."""
    folder = tmp_path_factory.mktemp("pictures") / "P1"
    for seed, name in enumerate(("T1C", "FLAIR")):
        write_slices(folder / name, draw_image(seed))
    return read_study(folder)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A patient as NIfTI: oblique T1C of 1 x 1 x 4 mm."""
    folder = tmp_path_factory.mktemp("volumes") / "P1"
    folder.mkdir()
    angle = np.deg2rad(12)
    affine = np.eye(4)
    affine[:3, :3] = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 4]]
    )
    affine[:3, 3] = (-20, -30, 15)
    for seed, name in enumerate(("T1C", "FLAIR")):
        nib.save(nib.Nifti1Image(draw_image(seed).transpose(2, 1, 0), affine), folder / f"{name}.nii.gz")
    return read_study(folder)


def write_slices(
    folder: Path, stack: NDArray[np.uint8], suffix: str = "png", numbers: range | None = None
) -> Path:
    folder.mkdir(parents=True)
    for number in numbers or range(1, len(stack) + 1):
        Image.fromarray(stack[number - 1]).save(folder / f"{number}.{suffix}", quality=90)
    return folder


def read_mask(study: Study, file: Path) -> ReaderMask:
    """Read a mask on the grid of the patient's T1C."""
    grids = {name: SeriesGrid.from_series(one) for name, one in study.series.items()}
    return read_reader_mask(file, grids, grids[MRSequence.T1C], {})


def write_nifti(folder: Path, study: Study) -> Path:
    affine = LPS_TO_RAS @ study.series[MRSequence.T1C].affine
    nib.save(
        nib.Nifti1Image(draw_mask().astype(np.uint8).transpose(2, 1, 0), affine), folder / "T1C mask.nii.gz"
    )
    return folder / "T1C mask.nii.gz"


def write_contours(folder: Path, study: Study, is_keyhole: bool) -> Path:
    """Contours around the pixels of the mask; the hole is one of its own, or joined to the outer one by a slit."""
    affine = study.series[MRSequence.T1C].affine
    outer = np.array([(24.5, 7.5), (39.5, 7.5), (39.5, 21.5), (24.5, 21.5)])
    hole = np.array([(29.5, 11.5), (29.5, 15.5), (33.5, 15.5), (33.5, 11.5)])
    polygons = {2: [outer], 3: [outer, hole]}
    if is_keyhole:
        polygons[3] = [np.vstack([outer, outer[:1], hole, hole[:1]])]
    contours = [
        np.column_stack([polygon, np.full(len(polygon), index)]) @ affine[:3, :3].T + affine[:3, 3]
        for index, found in polygons.items()
        for polygon in found
    ]
    return write_structure_set(folder / "rt.dcm", {"GTV": contours})


WRITERS: dict[str, Callable[[Path, Study], Path]] = {
    "a volume": write_nifti,
    "contours with a hole": lambda folder, study: write_contours(folder, study, is_keyhole=False),
    "contours with a slit": lambda folder, study: write_contours(folder, study, is_keyhole=True),
}
PICTURE_WRITERS: dict[str, Callable[[Path, Study], Path]] = {
    "a volume": write_nifti,
    "png": lambda folder, _: write_slices(folder / "m", draw_mask() * np.uint8(255)),
    "png of ones": lambda folder, _: write_slices(folder / "m", draw_mask().astype(np.uint8)),
    "bmp": lambda folder, _: write_slices(folder / "m", draw_mask() * np.uint8(255), "bmp"),
    "only drawn slices": lambda folder, _: write_slices(
        folder / "m", draw_mask() * np.uint8(255), "png", range(3, 5)
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_mask_of_volumes_is_read_to_the_voxel(name: str, volumes: Study, tmp_path: Path) -> None:
    assert np.array_equal(read_mask(volumes, WRITERS[name](tmp_path, volumes)).mask, draw_mask())


@pytest.mark.parametrize("name", PICTURE_WRITERS)
def test_a_mask_of_pictures_is_read_to_the_pixel(name: str, pictures: Study, tmp_path: Path) -> None:
    read = read_mask(pictures, PICTURE_WRITERS[name](tmp_path, pictures))
    assert np.array_equal(read.mask, draw_mask())
    assert ("4 slices have no mask picture" in " ".join(read.notes)) == (name == "only drawn slices")


def test_edges_blurred_by_jpeg_are_thresholded(pictures: Study, tmp_path: Path) -> None:
    read = read_mask(pictures, write_slices(tmp_path / "m", draw_mask() * np.uint8(255), "jpg"))
    assert np.count_nonzero(read.mask ^ draw_mask()) <= 0.02 * draw_mask().sum()


def test_one_picture_is_the_mask_of_its_slice(pictures: Study, tmp_path: Path) -> None:
    folder = write_slices(tmp_path / "m", draw_mask() * np.uint8(255))
    mask = read_mask(pictures, folder / "4.png").mask
    assert np.array_equal(mask[3], draw_mask()[3]) and not mask[:3].any() and not mask[4:].any()


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda folder: write_slices(folder / "m", draw_image(3)), "shows grey values"),
        (lambda folder: write_slices(folder / "m", 255 - draw_mask() * np.uint8(255)), "white"),
        (
            lambda folder: write_slices(folder / "m", np.zeros((9, 40, 48), np.uint8)),
            "7.png is not named after",
        ),
        (lambda folder: write_slices(folder / "m", np.zeros((6, 50, 48), np.uint8)), "48 x 50"),
        (lambda folder: folder / "missing", "does not exist"),
        (lambda folder: folder, "is not a segmentation"),
    ],
)
def test_other_pictures_are_refused(
    write: Callable[[Path], Path], sentence: str, pictures: Study, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        read_mask(pictures, write(tmp_path))
    assert "\n" not in str(caught.value)


def test_pictures_have_no_position_on_volumes(volumes: Study, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="state no position"):
        read_mask(volumes, write_slices(tmp_path / "m", draw_mask() * np.uint8(255)))
