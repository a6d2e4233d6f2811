"""NIfTI geometry: units, sform and qform, spacing, and written masks at the same position in every reader."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.nifti1 import Nifti1Header

from gliomark.errors import GliomarkError
from gliomark.geometry import compute_mask_points, set_nifti_space
from gliomark.io import read_study
from gliomark.io.masks.volume_masks import read_lesion_mask
from gliomark.preprocessing import prepare
from gliomark.reporting.nifti_mask import create_nifti_on_grid
from gliomark.study import MRSequence, NiftiSpace, Series

SHAPE = (10, 14, 6)
RAS = np.array([[2.0, 0, 0, -10], [0, 2, 0, -14], [0, 0, 3, -9], [0, 0, 0, 1]])
NAN, INF = float("nan"), float("inf")
PIXDIM, QFORM, SFORM, UNITS = 76, 252, 254, 123  # byte offsets in a NIfTI-1 header
QUATERNION, ROWS = 256, 280


def draw_block() -> np.ndarray:
    """A volume with one bright block at high i, low j, high k."""
    data = np.ones(SHAPE, np.float32)
    data[8:10, 1:3, 4:6] = 100
    return data


def save(file: Path, affine: np.ndarray | None = RAS, *, q: int = 1, s: int = 1, unit: str = "mm") -> Path:
    image = nib.Nifti1Image(draw_block(), affine)
    image.set_sform(affine, s)
    image.set_qform(affine, q)
    image.header.set_xyzt_units(unit)
    nib.save(image, file)
    return file


def overwrite_header(file: Path, at: int, form: str, *values: float) -> None:
    """Overwrite bytes of the header, as a faulty program would."""
    packed = file.name.endswith(".gz")
    raw = bytearray(gzip.decompress(file.read_bytes()) if packed else file.read_bytes())
    struct.pack_into(f"<{form}", raw, at, *values)
    file.write_bytes(gzip.compress(bytes(raw)) if packed else bytes(raw))


def compute_block_centre(series: Series) -> np.ndarray:
    return compute_mask_points(series.image > 50, series.affine).mean(axis=1)


def compute_expected_centre(affine: np.ndarray = RAS) -> np.ndarray:
    return np.array([-1, -1, 1]) * (affine @ [8.5, 1.5, 4.5, 1])[:3]


def read(folder: Path) -> Series:
    return read_study(folder).series[MRSequence.T2]


def get_error_message(folder: Path) -> str:
    with pytest.raises(GliomarkError) as caught:
        read_study(folder)
    assert "\n" not in str(caught.value) and "t2.nii" in str(caught.value)
    return str(caught.value)


# ---- units ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "unit, factor", [("micron", 1000.0), ("meter", 0.001), ("mm", 1.0), ("unknown", 1.0)]
)
@pytest.mark.parametrize("q, s", [(1, 0), (0, 1), (1, 2)])
def test_units_are_applied(tmp_path: Path, unit: str, factor: float, q: int, s: int):
    stored = RAS.copy()
    stored[:3] *= factor
    save(tmp_path / "t2.nii.gz", stored, q=q, s=s, unit=unit)
    np.testing.assert_allclose(compute_block_centre(read(tmp_path)), compute_expected_centre(), atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(read(tmp_path).affine[:3, :3], axis=0), (2, 2, 3), rtol=1e-5)


@pytest.mark.parametrize("units", [0, 4, 5, 7, 8, 16 + 2])
def test_unknown_units_mean_millimetres(tmp_path: Path, units: int):
    overwrite_header(save(tmp_path / "t2.nii"), UNITS, "B", units)
    np.testing.assert_allclose(compute_block_centre(read(tmp_path)), compute_expected_centre(), atol=1e-4)


# ---- sform and qform --------------------------------------------------------------------------------


def _shift_affine(mm: float) -> np.ndarray:
    moved = RAS.copy()
    moved[:3, 3] += mm
    return moved


def _rotate_affine(degrees: float) -> np.ndarray:
    turn = np.eye(4)
    angle = np.deg2rad(degrees)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ RAS


@pytest.mark.parametrize("sform, noted", [
    (RAS, False), (_shift_affine(0.3), False), (_shift_affine(1e-4), False), (_rotate_affine(0.5), False),
    (_shift_affine(15.0), True), (_rotate_affine(10.0), True), (_rotate_affine(-30.0), True),
])  # fmt: skip
def test_two_positions_are_noted_and_the_sform_is_used(tmp_path: Path, sform: np.ndarray, noted: bool):
    image = nib.Nifti1Image(draw_block(), RAS)
    image.set_qform(RAS, 1)
    image.set_sform(sform, 2)
    nib.save(image, tmp_path / "t2.nii.gz")
    study = read_study(tmp_path)
    np.testing.assert_allclose(
        compute_block_centre(study.series[MRSequence.T2]), compute_expected_centre(sform), atol=1e-4
    )
    assert any("two positions" in note and "t2.nii.gz" in note for note in study.notes) is noted


@pytest.mark.parametrize("flip", [(-1, 1, 1), (1, -1, 1), (1, 1, -1), (-1, -1, 1)])
def test_forms_that_mirror_each_other_are_refused(tmp_path: Path, flip: tuple[int, int, int]):
    image = nib.Nifti1Image(draw_block(), RAS)
    image.set_qform(RAS, 1)
    image.set_sform(np.diag([*flip, 1]) @ RAS, 1)
    nib.save(image, tmp_path / "t2.nii.gz")
    assert "left and right are uncertain" in get_error_message(tmp_path)


@pytest.mark.parametrize("scale", [(2, 1, 1), (1, 1, 0.5), (1.05, 1.05, 1.05), (1, 1, 1000)])
@pytest.mark.parametrize("q", [0, 1])
def test_two_voxel_sizes_are_refused(tmp_path: Path, scale: tuple[float, float, float], q: int):
    image = nib.Nifti1Image(draw_block(), RAS)
    image.set_qform(RAS, q)
    image.set_sform(RAS @ np.diag([*scale, 1]), 1)
    nib.save(image, tmp_path / "t2.nii.gz")
    assert "two different voxel sizes" in get_error_message(tmp_path) and "2 x 2 x 3" in get_error_message(
        tmp_path
    )


def _break_sform(values: tuple[float, ...]) -> Callable[[Path], None]:
    return lambda file: overwrite_header(file, ROWS, "12f", *values)


ZEROS, NANS = (0.0,) * 12, (NAN,) * 12
FLAT = (2.0, 0, 0, -10, 0, 2, 0, -14, 0, 0, 0, -9)  # no spacing between slices
LINE = (2.0, 4, 0, -10, 0, 0, 0, -14, 0, 0, 3, -9)  # rows are parallel to columns


@pytest.mark.parametrize("values", [ZEROS, NANS, FLAT, LINE, (INF, *FLAT[1:])])
def test_the_qform_is_used_if_the_sform_is_invalid(tmp_path: Path, values: tuple[float, ...]):
    _break_sform(values)(save(tmp_path / "t2.nii"))
    study = read_study(tmp_path)
    np.testing.assert_allclose(
        compute_block_centre(study.series[MRSequence.T2]), compute_expected_centre(), atol=1e-4
    )
    assert study.series[MRSequence.T2].is_oriented and study.notes == ()


QFORMS: dict[str, Callable[[Path], None]] = {
    "no quaternion": lambda file: overwrite_header(file, QUATERNION, "3f", 0.9, 0.9, 0.9),
    "quaternion not a number": lambda file: overwrite_header(file, QUATERNION, "f", NAN),
    "offset infinite": lambda file: overwrite_header(file, QUATERNION + 12, "f", INF),
    "step of zero": lambda file: overwrite_header(file, PIXDIM + 12, "f", 0.0),
    "step not a number": lambda file: overwrite_header(file, PIXDIM + 8, "f", NAN),
    "step negative": lambda file: overwrite_header(file, PIXDIM + 4, "f", -2.0),
    "qfac of 3": lambda file: overwrite_header(file, PIXDIM, "f", 3.0),
    "qfac not a number": lambda file: overwrite_header(file, PIXDIM, "f", NAN),
}


@pytest.mark.parametrize("kind", QFORMS)
def test_the_sform_is_used_if_the_qform_is_invalid(tmp_path: Path, kind: str):
    QFORMS[kind](save(tmp_path / "t2.nii"))
    np.testing.assert_allclose(compute_block_centre(read(tmp_path)), compute_expected_centre(), atol=1e-4)


@pytest.mark.parametrize("kind", QFORMS)
def test_an_invalid_qform_alone_is_refused(tmp_path: Path, kind: str):
    QFORMS[kind](save(tmp_path / "t2.nii", s=0))
    error_text = get_error_message(tmp_path)
    assert (
        "no valid orientation" in error_text or "is damaged" in error_text
    )  # nibabel opens no file without a quaternion


@pytest.mark.parametrize("kind", QFORMS)
@pytest.mark.parametrize("values", [ZEROS, NANS])
def test_two_invalid_forms_are_refused(tmp_path: Path, kind: str, values: tuple[float, ...]):
    file = save(tmp_path / "t2.nii")
    QFORMS[kind](file)
    _break_sform(values)(file)
    assert "no valid orientation" in get_error_message(tmp_path)


@pytest.mark.parametrize("qfac, flips", [(1.0, 1), (0.0, 1), (-1.0, -1)])
def test_qfac(tmp_path: Path, qfac: float, flips: int):
    overwrite_header(save(tmp_path / "t2.nii", s=0), PIXDIM, "f", qfac)
    affine = RAS @ np.diag([1, 1, flips, 1])
    np.testing.assert_allclose(
        compute_block_centre(read(tmp_path)), compute_expected_centre(affine), atol=1e-4
    )


@pytest.mark.parametrize("step", [0.0, NAN, INF])
def test_a_volume_without_forms_and_voxel_size_is_refused(tmp_path: Path, step: float):
    overwrite_header(save(tmp_path / "t2.nii", q=0, s=0), PIXDIM + 12, "f", step)
    assert "no valid voxel size (2 x 2 x" in get_error_message(tmp_path)


# ---- several volumes --------------------------------------------------------------------------------


@pytest.mark.parametrize("unoriented", [("t2",), ("t1c",), ("t1c", "flair"), ("t2", "t1c", "flair")])
def test_volumes_with_and_without_orientation_are_not_combined(tmp_path: Path, unoriented: tuple[str, ...]):
    """Only the sequences that are combined matter: here T1C and FLAIR."""
    for name in ("t2", "t1c", "flair"):
        save(tmp_path / f"{name}.nii.gz", **({"q": 0, "s": 0} if name in unoriented else {}))
    study = read_study(tmp_path)
    pair = (MRSequence.T1C, MRSequence.FLAIR)
    expected_text = r"t1c\.nii\.gz does not state its orientation but flair\.nii\.gz does"
    refused = unoriented == ("t1c",)
    with pytest.raises(GliomarkError, match=expected_text if refused else "which is impossible for a head"):
        prepare(study, pair)


@pytest.mark.parametrize("images, mask, refused", [(1, 1, False), (0, 0, False), (1, 0, True), (0, 1, True)])
def test_a_mask_with_lost_orientation_is_not_combined(tmp_path: Path, images: int, mask: int, refused: bool):
    save(tmp_path / "t2.nii.gz", q=images, s=images)
    save(tmp_path / "seg.nii.gz", q=mask, s=mask)
    image = nib.load(tmp_path / "seg.nii.gz")
    data = (np.asarray(image.dataobj) > 50).astype(np.uint8)
    image = nib.Nifti1Image(data, None, image.header)
    nib.save(image, tmp_path / "seg.nii.gz")
    if not refused:
        lesion = read_study(tmp_path).lesion
        assert lesion is not None and lesion.image.sum() == data.sum()
        return
    with pytest.raises(GliomarkError, match=r"The mask .*seg\.nii\.gz cannot be aligned with the images"):
        read_study(tmp_path)


@pytest.mark.parametrize("names", [("t2",), ("t2", "t1c"), ("flair", "t2", "t1")])
def test_volumes_that_all_lack_an_orientation_are_read_with_a_note(tmp_path: Path, names: tuple[str, ...]):
    for name in names:
        save(tmp_path / f"{name}.nii.gz", q=0, s=0)
    study = read_study(tmp_path)
    assert sum("does not state its orientation" in note for note in study.notes) == len(names)
    assert not any(series.is_oriented for series in study.series.values())
    affine = nib.load(tmp_path / "t2.nii.gz").affine
    np.testing.assert_allclose(
        compute_block_centre(study.series[MRSequence.T2]), compute_expected_centre(affine), atol=1e-4
    )


# ---- other files ------------------------------------------------------------------------------------


def test_a_pair_of_header_and_image_is_read(tmp_path: Path):
    nib.save(nib.Nifti1Pair(draw_block(), RAS), tmp_path / "t2.hdr")
    np.testing.assert_allclose(compute_block_centre(read(tmp_path)), compute_expected_centre(), atol=1e-4)


@pytest.mark.parametrize("name", ["t2.img", "T2_axial.img", "sub-1_t2.img"])
def test_analyze_is_refused(tmp_path: Path, name: str):
    (tmp_path / "p").mkdir()
    nib.save(nib.AnalyzeImage(draw_block(), np.diag([2, 2, 3, 1])), tmp_path / "p" / name)
    with pytest.raises(GliomarkError, match="old Analyze format"):
        read_study(tmp_path / "p")


@pytest.mark.parametrize("shape", [(10, 14, 1), (10, 14), (1, 14, 6)])
def test_a_single_slice_is_not_a_volume(tmp_path: Path, shape: tuple[int, ...]):
    nib.save(nib.Nifti1Image(np.ones(shape, np.float32), RAS), tmp_path / "t2.nii")
    assert "not a single 3-D volume" in get_error_message(tmp_path)


# ---- the written mask lies on the images in every reader ---------------------------------------------


def _reorient_affine(axes: str) -> np.ndarray:
    turn = nib.orientations.axcodes2ornt(tuple(axes))
    start = nib.orientations.io_orientation(RAS)
    return (
        nib.Nifti1Image(draw_block(), RAS).as_reoriented(nib.orientations.ornt_transform(start, turn)).affine
    )


AFFINES = {
    "RAS": RAS, "LAS": _reorient_affine("LAS"), "PSR": _reorient_affine("PSR"), "LPI": _reorient_affine("LPI"),
    "oblique": _rotate_affine(17.0),
    "far": _shift_affine(400.0),
}  # fmt: skip


@pytest.mark.parametrize("affine_name", AFFINES)
@pytest.mark.parametrize("q, s", [(0, 0), (1, 0), (0, 1), (1, 1), (2, 1), (1, 4), (3, 2)])
@pytest.mark.parametrize("unit", ["mm", "unknown", "micron"])
def test_an_outline_is_written_at_the_position_of_its_volume(
    tmp_path: Path, affine_name: str, q: int, s: int, unit: str
):
    stored = AFFINES[affine_name].copy()
    stored[:3] *= 1000.0 if unit == "micron" else 1.0
    file = save(tmp_path / "t2.nii.gz", stored, q=q, s=s, unit=unit)
    _assert_equal_geometry(file, _write_mask(file, tmp_path / "segmentation.nii.gz"))


@pytest.mark.parametrize("break_form", [
    _break_sform(ZEROS), _break_sform(NANS), QFORMS["no quaternion"], QFORMS["qfac of 3"],
    lambda file: overwrite_header(file, PIXDIM, "f", 0.0),
])  # fmt: skip
def test_an_outline_is_written_at_the_position_of_a_volume_with_a_broken_form(
    tmp_path: Path, break_form: Callable[[Path], None]
):
    break_form(file := save(tmp_path / "t2.nii.gz"))
    out = _write_mask(file, tmp_path / "segmentation.nii.gz")
    for at, form in ((PIXDIM, "4f"), (QFORM, "2h"), (QUATERNION, "6f"), (ROWS, "12f"), (UNITS, "B")):
        raw = [struct.unpack_from(f"<{form}", gzip.decompress(one.read_bytes()), at) for one in (file, out)]
        np.testing.assert_array_equal(*raw)


@pytest.mark.parametrize("suffix", ["mha", "nrrd"])
@pytest.mark.parametrize("affine_name", AFFINES)
def test_an_outline_is_written_at_the_position_of_a_metaimage_or_nrrd(
    tmp_path: Path, suffix: str, affine_name: str
):
    save(tmp_path / "plain.nii.gz", AFFINES[affine_name])
    file = tmp_path / "p" / f"t2.{suffix}"
    file.parent.mkdir()
    image = sitk.ReadImage(str(tmp_path / "plain.nii.gz"))
    for key in image.GetMetaDataKeys():
        image.EraseMetaData(key)
    sitk.WriteImage(image, str(file))
    out = _write_mask(file, tmp_path / "segmentation.nii.gz")
    _assert_same_position_in_itk(file, out)
    mask = nib.load(out)
    at = np.argwhere(np.asarray(mask.dataobj) > 0).mean(axis=0)
    np.testing.assert_allclose(
        (mask.affine @ [*at, 1])[:3] * (-1, -1, 1), compute_expected_centre(AFFINES[affine_name]), atol=1e-3
    )


def _write_mask(file: Path, out: Path) -> Path:
    series = read(file.parent)
    nib.save(create_nifti_on_grid((series.image > 50).astype(np.uint8), series), out)
    return out


def _assert_equal_geometry(file: Path, out: Path) -> None:
    """Assert equal forms, codes and units, and the same block position in both readers."""
    image, mask = nib.load(file), nib.load(out)
    for name in ("qform_code", "sform_code", "xyzt_units"):
        assert image.header[name] == mask.header[name]
    np.testing.assert_array_equal(image.affine, mask.affine)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), np.asarray(image.dataobj) > 50)
    _assert_same_position_in_itk(file, out)


def _assert_same_position_in_itk(file: Path, out: Path) -> None:
    image, mask = sitk.ReadImage(str(file)), sitk.ReadImage(str(out))
    assert image.GetSize() == mask.GetSize()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(image) > 50)
    for corner in ((0, 0, 0), tuple(length - 1 for length in image.GetSize())):
        np.testing.assert_allclose(
            mask.TransformIndexToPhysicalPoint(corner), image.TransformIndexToPhysicalPoint(corner), atol=2e-3
        )


def test_a_header_is_written_value_for_value():
    space = NiftiSpace(
        2, 4, (-1.0, 0.5, 0.25, 3.0), (0.5, 0.25, 0.125), (1.0, 2.0, 3.0), ((1.0, 2, 3, 4),) * 3, 3
    )
    header = Nifti1Header()
    set_nifti_space(header, space)
    assert (int(header["qform_code"]), int(header["sform_code"]), int(header["xyzt_units"])) == (2, 4, 3)
    np.testing.assert_array_equal(header["pixdim"][:4], space.pixdim)
    np.testing.assert_array_equal(header["srow_y"], space.rows[1])


# ---- values of masks --------------------------------------------------------------------------------


@pytest.mark.parametrize("values, expected_text", [
    ((0, 1, NAN), "not finite numbers"), ((0, 1, INF), "not finite numbers"), ((0, 0.25, 0.9), "fractional values"),
    ((0, 0.5), "fractional values"), ((0, 1, 0.5), "fractional values"), ((0, -1), "not BraTS labels"),
    ((0, 1, 7), "not BraTS labels"),
])  # fmt: skip
def test_a_mask_with_invalid_values_is_refused(tmp_path: Path, values: tuple[float, ...], expected_text: str):
    mask = np.zeros(SHAPE, np.float32)
    for column, value in enumerate(values):
        mask[column] = value
    nib.save(nib.Nifti1Image(mask, RAS), tmp_path / "seg.nii.gz")
    save(tmp_path / "t2.nii.gz")
    with pytest.raises(GliomarkError, match=expected_text) as caught:
        read_study(tmp_path)
    assert "seg.nii.gz" in str(caught.value)


@pytest.mark.parametrize("high", [1.0, 1.0 - 1e-4, 255.0, 1.0 + 1e-6])
def test_a_mask_with_nearly_integer_values_is_read(tmp_path: Path, high: float):
    mask = np.where(draw_block() > 50, high, 0).astype(np.float32)
    nib.save(nib.Nifti1Image(mask, RAS), tmp_path / "seg.nii.gz")
    read_back = read_lesion_mask(tmp_path / "seg.nii.gz", [])
    np.testing.assert_array_equal(read_back.image, (draw_block() > 50).transpose(2, 1, 0))
