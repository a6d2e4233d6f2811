"""MetaImage and NRRD headers: missing geometry is rejected or reported, never invented."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gliomark.errors import GliomarkError
from gliomark.io import read_study
from gliomark.preprocessing import prepare
from gliomark.study import MRSequence, Series

SHAPE = (6, 14, 10)  # slice, row, column


def draw_block() -> np.ndarray:
    data = np.ones(SHAPE, np.int16)
    data[4:6, 1:3, 8:10] = 100
    return data


META = {
    "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False", "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "-10 -14 -9",
    "ElementSpacing": "2 2 3", "DimSize": "10 14 6", "ElementType": "MET_SHORT",
}  # fmt: skip
NRRD: dict[str, str | None] = {
    "type": "short", "dimension": "3", "space dimension": None, "space": "left-posterior-superior", "sizes": "10 14 6",
    "space directions": "(2,0,0) (0,2,0) (0,0,3)", "endian": "little", "encoding": "raw",
    "space origin": "(-10,-14,-9)",
}  # fmt: skip


def write(folder: Path, suffix: str, **changes: str | None) -> Path:
    """Write a file with header ``changes``: "_" in a name stands for a space, None removes a field."""
    fields: dict[str, str | None] = dict(META if suffix == "mha" else NRRD)
    for name, value in changes.items():
        fields[name.replace("_", " ")] = value
    lines = [(name, value) for name, value in fields.items() if value is not None]
    if suffix == "mha":
        text = "".join(f"{name} = {value}\n" for name, value in lines) + "ElementDataFile = LOCAL\n"
    else:
        text = "NRRD0004\n" + "".join(f"{name}: {value}\n" for name, value in lines) + "\n"
    folder.mkdir(exist_ok=True)
    file = folder / f"flair.{suffix}"
    file.write_bytes(text.encode() + draw_block().tobytes())
    return folder


def read(folder: Path) -> tuple[Series, bool]:
    """Return the series, and whether a note states that its orientation is assumed."""
    study = read_study(folder)
    is_assumed = any("does not state its orientation" in note for note in study.notes)
    series = study.series[MRSequence.FLAIR]
    assert series.is_oriented is not is_assumed
    return series, is_assumed


def compute_block_centre(series: Series) -> np.ndarray:
    at = np.argwhere(series.image > 50)[:, ::-1].mean(axis=0)
    return (series.affine @ [*at, 1])[:3]


CENTRE = np.array([-10, -14, -9]) + np.array([2, 2, 3]) * [8.5, 1.5, 4.5]


@pytest.mark.parametrize("suffix, changes", [
    ("mha", {}), ("mha", {"ElementSize": "1 1 1"}), ("mha", {"AnatomicalOrientation": "???"}),
    ("mha", {"DistanceUnits": "mm"}), ("nrrd", {}), ("nrrd", {"space": "LPS"}),
    ("nrrd", {"space_units": '"mm" "mm" "mm"'}), ("nrrd", {"kinds": "domain domain domain"}),
])  # fmt: skip
def test_stated_geometry_is_read(tmp_path: Path, suffix: str, changes: dict[str, str]):
    series, assumed = read(write(tmp_path / "p", suffix, **changes))
    np.testing.assert_allclose(compute_block_centre(series), CENTRE)
    assert not assumed


@pytest.mark.parametrize("space, signs", [
    ("right-anterior-superior", (-1, -1, 1)), ("RAS", (-1, -1, 1)), ("left-anterior-superior", (1, -1, 1)),
    ("LAS", (1, -1, 1)), ("left-posterior-superior", (1, 1, 1)),
])  # fmt: skip
def test_nrrd_spaces_are_converted_to_lps(tmp_path: Path, space: str, signs: tuple[int, ...]):
    series, assumed = read(write(tmp_path / "p", "nrrd", space=space))
    np.testing.assert_allclose(compute_block_centre(series), CENTRE * signs)
    assert not assumed


@pytest.mark.parametrize("suffix, changes", [
    ("mha", {"TransformMatrix": None}), ("mha", {"TransformMatrix": None, "Offset": None}),
    ("mha", {"TransformMatrix": None, "AnatomicalOrientation": "RAI"}),
    ("nrrd", {"space": "scanner-xyz"}), ("nrrd", {"space": "3D-right-handed"}),
    ("nrrd", {"space": None, "space_directions": None, "space_origin": None, "spacings": "2 2 3"}),
    ("nrrd", {"space": None, "space_dimension": "3"}),
])  # fmt: skip
def test_an_assumed_orientation_is_noted(tmp_path: Path, suffix: str, changes: dict[str, str | None]):
    series, assumed = read(write(tmp_path / "p", suffix, **changes))
    np.testing.assert_allclose(np.linalg.norm(series.affine[:3, :3], axis=0), (2, 2, 3))
    assert assumed


@pytest.mark.parametrize("suffix, changes", [
    ("mha", {"ElementSpacing": None}), ("mha", {"ElementSpacing": None, "ElementSize": "2 2 3"}),
    ("mha", {"ElementSpacing": "2 2 0"}), ("mha", {"ElementSpacing": "2 -2 3"}), ("mha", {"ElementSpacing": "2 2 nan"}),
    ("nrrd", {"space": None, "space_directions": None, "space_origin": None}),
    ("nrrd", {"space_directions": "(2,0,0) (0,2,0) (0,0,0)"}),
    ("nrrd", {"space": None, "space_directions": None, "space_origin": None, "spacings": "2 2 nan"}),
])  # fmt: skip
def test_a_missing_or_invalid_voxel_size_is_refused(
    tmp_path: Path, suffix: str, changes: dict[str, str | None]
):
    with pytest.raises(GliomarkError, match=rf"flair\.{suffix} (has no valid voxel size|is damaged)"):
        read_study(write(tmp_path / "p", suffix, **changes))


@pytest.mark.parametrize("suffix, field, unit, factor", [
    ("nrrd", "space_units", '"um" "um" "um"', 0.001), ("nrrd", "space_units", '"cm" "cm" "cm"', 10.0),
    ("nrrd", "space_units", '"m" "m" "m"', 1000.0), ("mha", "DistanceUnits", "cm", 10.0),
    ("mha", "DistanceUnits", "um", 0.001), ("nrrd", "space_units", '"meters" "meters" "meters"', 1000.0),
    ("nrrd", "space_units", '"µm" "µm" "µm"', 0.001), ("nrrd", "space_units", '"" "" ""', 1.0),
    ("nrrd", "space_units", '"millimeters" "mm" "mm"', 1.0),
])  # fmt: skip
def test_units_are_applied(tmp_path: Path, suffix: str, field: str, unit: str, factor: float):
    series, _ = read(write(tmp_path / "p", suffix, **{field: unit}))
    np.testing.assert_allclose(compute_block_centre(series), CENTRE * factor)


@pytest.mark.parametrize("suffix, field, unit", [
    ("nrrd", "space_units", '"inch" "inch" "inch"'), ("nrrd", "space_units", '"mm" "mm" "cm"'),
    ("mha", "DistanceUnits", "furlong"),
])  # fmt: skip
def test_unknown_units_are_refused(tmp_path: Path, suffix: str, field: str, unit: str):
    with pytest.raises(
        GliomarkError, match=rf"flair.{suffix} gives its voxel size in an unknown unit .*: convert"
    ):
        read(write(tmp_path / "p", suffix, **{field: unit}))


@pytest.mark.parametrize("one, other", [("mha", "nrrd"), ("nrrd", "mha"), ("nrrd", "nrrd")])
def test_volumes_with_and_without_orientation_are_not_combined(tmp_path: Path, one: str, other: str):
    unoriented = {"TransformMatrix": None} if one == "mha" else {"space": "scanner-xyz"}
    write(tmp_path / "p", one, **unoriented)  # type: ignore[arg-type]
    (tmp_path / "p" / f"flair.{one}").rename(tmp_path / "p" / f"t1c.{one}")
    write(tmp_path / "p", other)
    study = read_study(tmp_path / "p")
    with pytest.raises(GliomarkError, match=rf"t1c\.{one} does not state its orientation but flair"):
        prepare(study, (MRSequence.T1C, MRSequence.FLAIR))
