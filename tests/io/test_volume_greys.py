"""Grey values of NIfTI, MetaImage and NRRD volumes: non-finite values, padding, rescale, negative values."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from gliomark.errors import GliomarkError
from gliomark.io import read_study
from gliomark.messages import Message
from gliomark.study import MRSequence, Study

SUFFIXES = ("nii", "nii.gz", "mha", "mhd", "nrrd")


def draw_head(dtype: type = np.float32) -> np.ndarray:
    """``(slice, row, column)``: a ball with texture from 100 to 220 in air of value 3."""
    slices, rows, columns = np.indices((8, 24, 20))
    inside = ((slices - 4) / 4) ** 2 + ((rows - 12) / 9) ** 2 + ((columns - 10) / 8) ** 2 < 1
    return np.where(inside, 100 + 7 * columns - rows, 3).astype(dtype)


def write(folder: Path, image: np.ndarray, suffix: str = "nii.gz", name: str = "t2") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(image), str(folder / f"{name}.{suffix}"))
    return folder


def read(folder: Path) -> tuple[np.ndarray, Study]:
    study = read_study(folder)
    return study.series[MRSequence.T2].image, study


def get_error_message(folder: Path) -> str:
    with pytest.raises(GliomarkError) as caught:
        read_study(folder)
    assert isinstance(caught.value.message, Message)
    return caught.value.message


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_background(tmp_path: Path, suffix: str, value: float):
    image = draw_head()
    image[2, 3, :4] = value
    found, study = read(write(tmp_path / "p", image, suffix))
    expected = draw_head()
    expected[2, 3, :4] = 3
    np.testing.assert_array_equal(found, expected)
    missing = study.series[MRSequence.T2].missing
    assert missing is not None and np.array_equal(missing, ~np.isfinite(image))
    assert any("T2: 4 voxels have no grey value" in note for note in study.notes)


@pytest.mark.parametrize("value", [1e300, -1e300])
def test_doubles_beyond_single_precision_are_background(tmp_path: Path, value: float):
    image = draw_head(np.float64)
    image[2, 3, 0] = value
    found, _ = read(write(tmp_path / "p", image))
    assert found[2, 3, 0] == 3 and found.max() == draw_head().max()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_volume_without_finite_values_is_refused(tmp_path: Path, suffix: str, value: float):
    assert f"t2.{suffix} has no grey values" in get_error_message(
        write(tmp_path / "p", np.full((8, 24, 20), value, np.float32), suffix)
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("value", [0, 7, -3])
def test_a_constant_volume_is_refused(tmp_path: Path, suffix: str, value: float):
    message = get_error_message(write(tmp_path / "p", np.full((8, 24, 20), value, np.int16), suffix))
    assert f"t2.{suffix} is black or has the same grey value" in message


@pytest.mark.parametrize("dtype, padding", [
    (np.int16, -32768), (np.int16, -2000), (np.float32, -1024), (np.float32, -3.4e38), (np.int32, -2147483648),
])  # fmt: skip
def test_padding_far_below_all_values_is_background(tmp_path: Path, dtype: type, padding: float):
    image = draw_head(dtype)
    image[:, :4] = padding
    found, study = read(write(tmp_path / "p", image))
    expected = draw_head()
    expected[:, :4] = 3
    np.testing.assert_array_equal(found, expected)
    assert any("padding value" in note for note in study.notes)


@pytest.mark.parametrize("shift, scale", [(-150, 1), (-103, 1), (0, -0.0001), (-3, 0.01)])
def test_negative_values_are_not_padding(tmp_path: Path, shift: float, scale: float):
    """z-scores and images with an offset keep their values, whatever the background value is."""
    image = (draw_head() + shift) * abs(scale)
    found, study = read(write(tmp_path / "p", image))
    np.testing.assert_array_equal(found, image)
    assert study.series[MRSequence.T2].missing is None
    assert not any("padding" in note for note in study.notes)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("top", [255, 4095, 32767])
def test_a_negative_image_is_refused(tmp_path: Path, suffix: str, top: int):
    message = get_error_message(write(tmp_path / "p", top - draw_head(np.int16) * (top // 255), suffix))
    assert f"t2.{suffix} is bright in air" in message


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("at", [2, 4, 6])
def test_one_negative_slice_is_refused(tmp_path: Path, suffix: str, at: int):
    image = draw_head(np.int16)
    image[at] = 300 - image[at]
    assert f"on slice {at + 1:03d}" in get_error_message(write(tmp_path / "p", image, suffix))


def write_with_scaling(folder: Path, slope: float, inter: float) -> Path:
    """Write the values of ``draw_head`` and overwrite the scaling in the header."""
    folder.mkdir()
    file = folder / "t2.nii"
    nib.save(nib.Nifti1Image(draw_head(np.int16).transpose(2, 1, 0), np.eye(4)), file)
    content = bytearray(file.read_bytes())
    content[112:120] = np.array([slope, inter], "<f4").tobytes()
    file.write_bytes(content)
    return folder


@pytest.mark.parametrize("slope, inter, expected", [
    (2.0, 5.0, 2 * draw_head() + 5), (0.0, 0.0, draw_head()), (0.0, 9.0, draw_head()), (np.nan, np.nan, draw_head()),
    (np.nan, 0.0, draw_head()), (1.0, -3.0, draw_head() - 3),
])  # fmt: skip
def test_a_valid_nifti_scaling_is_applied(tmp_path: Path, slope: float, inter: float, expected: np.ndarray):
    found, _ = read(write_with_scaling(tmp_path / "p", slope, inter))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("inter", [np.nan, np.inf, -np.inf])
def test_a_non_finite_nifti_intercept_is_refused(tmp_path: Path, inter: float):
    message = get_error_message(write_with_scaling(tmp_path / "p", 2.0, inter))
    assert "t2.nii" in message and "scl_inter" in message


@pytest.mark.parametrize("slope", [np.inf, -np.inf])
def test_an_infinite_nifti_slope_is_refused(tmp_path: Path, slope: float):
    message = get_error_message(write_with_scaling(tmp_path / "p", slope, 0.0))
    assert "t2.nii" in message and "scaling" in message


@pytest.mark.parametrize("slope", [-1.0, -0.5])
def test_a_nifti_scaling_that_inverts_the_image_is_refused(tmp_path: Path, slope: float):
    assert "is bright in air" in get_error_message(write_with_scaling(tmp_path / "p", slope, 0.0))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_mask_with_non_finite_values_is_refused(tmp_path: Path, suffix: str, value: float):
    mask = np.zeros((8, 24, 20), np.float32)
    mask[3, 4, 5], mask[3, 4, 6] = 1, value
    folder = write(tmp_path / "p", draw_head())
    assert f"seg.{suffix}" in get_error_message(write(folder, mask, suffix, name="seg"))
