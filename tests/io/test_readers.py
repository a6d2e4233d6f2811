"""A new image format is one module and one registration; the registry chooses the most certain reader."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest

from gliomark.errors import ConfigurationError, InputError
from gliomark.io import find_patients, list_patient_files, read_study, readers
from gliomark.io.format_reader import Certainty, Reader
from gliomark.io.masks import find_masks, read_masks
from gliomark.study import MRSequence

VOLUME_FORMAT = '''
"""Volumes of numpy: ``.npz`` with ``image`` (slice, row, column) and ``affine`` (column, row, slice) to LPS mm."""

import numpy as np

from gliomark.io.format_reader import Reader, VolumeContent, create_suffix_claim
from gliomark.io.volume_checks import create_slice_names
from gliomark.study import Series


def read_npz(file):
    content = np.load(file)
    image = content["image"].astype(np.float32)
    return VolumeContent(Series(image, content["affine"], create_slice_names(len(image)), file), ("from npz",))


READER = Reader("npz", create_suffix_claim(".npz"), read_volume=read_npz)
'''

FOLDER_FORMAT = '''
"""A study of numpy: one ``study.npy`` (sequence, slice, row, column) with voxels of 1 mm."""

import numpy as np

from gliomark.io.format_reader import Certainty, Reader
from gliomark.io.volume_checks import create_slice_names
from gliomark.study import MRSequence, Series, Study


def claim_folder(folder):
    return Certainty.CERTAIN if (folder / "study.npy").is_file() else Certainty.NONE


def read_folder(folder, options):
    file = folder / "study.npy"
    images = np.load(file).astype(np.float32)
    affine = np.diag([*(options.spacing_mm or (1.0, 1.0, 1.0)), 1.0])
    series = {
        name: Series(image, affine, create_slice_names(len(image)), file)
        for name, image in zip((MRSequence.T1, MRSequence.T2), images, strict=True)
    }
    return Study(options.patient_id, series, folder, "volumes")


READER = Reader("npy study", claim_folder, read_folder=read_folder)
'''


def register(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Write a reader's module, import it and add it to the registry."""
    file = folder / "made_up_format.py"
    file.write_text(text, "utf-8")
    spec = importlib.util.spec_from_file_location("made_up_format", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(readers, "READERS", (*readers.READERS, module.READER))
    return module


def draw_image(seed: int) -> np.ndarray:
    """Draw a bright ellipsoid with noise on black, ``(slice, row, column)``."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in (8, 24, 20)), indexing="ij"))
    inside = (grid**2).sum(axis=0) < 0.8
    noise = np.random.default_rng(seed).normal(0, 20, inside.shape)
    return np.where(inside, 500 + noise, 0).astype(np.float32)


@pytest.fixture
def mixed_folder(tmp_path: Path) -> Path:
    """Write a patient with T2 as npz, FLAIR as NIfTI and the lesion as npz, on one grid."""
    folder = tmp_path / "patients" / "P1"
    folder.mkdir(parents=True)
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    lesion = np.zeros((8, 24, 20))
    lesion[3:5, 10:14, 8:12] = 1
    np.savez(folder / "P1_T2.npz", image=draw_image(1), affine=affine)
    np.savez(folder / "P1_lesion.npz", image=lesion, affine=affine)
    nib.save(
        nib.Nifti1Image(draw_image(2).T, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine), folder / "P1_FLAIR.nii.gz"
    )
    return folder


def test_volumes_of_a_made_up_format_are_read(
    mixed_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(read_study(mixed_folder).series) == {MRSequence.FLAIR}  # not known yet
    register(tmp_path, VOLUME_FORMAT, monkeypatch)
    study = read_study(mixed_folder)
    assert study.patient_id == "P1" and list(study.series) == [MRSequence.T2, MRSequence.FLAIR]
    np.testing.assert_array_equal(study.series[MRSequence.T2].image, draw_image(1))
    np.testing.assert_allclose(study.series[MRSequence.T2].affine, study.series[MRSequence.FLAIR].affine)
    assert study.lesion is not None and study.lesion.image.sum() == 32
    assert study.notes.count("from npz") == 2
    assert find_patients(mixed_folder.parent) == [mixed_folder]
    assert mixed_folder / "P1_T2.npz" in list_patient_files(mixed_folder)


def test_masks_of_a_made_up_format_are_read(
    mixed_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(tmp_path, VOLUME_FORMAT, monkeypatch)
    assert find_masks(mixed_folder) == (mixed_folder / "P1_lesion.npz",)
    (mask,) = read_masks(mixed_folder, read_study(mixed_folder).series)
    assert mask.sequence is MRSequence.T2 and mask.series.image.sum() == 32


def test_the_geometry_of_a_made_up_format_is_checked(
    mixed_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(tmp_path, VOLUME_FORMAT, monkeypatch)
    sheared = np.diag([2.0, 2.0, 5.0, 1.0])
    sheared[0, 1] = 1.0
    np.savez(mixed_folder / "P1_T2.npz", image=draw_image(1), affine=sheared)
    with pytest.raises(InputError, match="P1_T2.npz"):
        read_study(mixed_folder)


def test_folders_of_a_made_up_format_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "patients" / "P2"
    folder.mkdir(parents=True)
    np.save(folder / "study.npy", np.stack([draw_image(1), draw_image(2)]))
    with pytest.raises(InputError):
        read_study(folder)
    register(tmp_path, FOLDER_FORMAT, monkeypatch)
    study = read_study(folder, spacing_mm=(1.0, 1.0, 3.0))
    assert study.patient_id == "P2" and list(study.series) == [MRSequence.T1, MRSequence.T2]
    assert study.series[MRSequence.T1].affine[2, 2] == 3.0
    assert find_patients(folder.parent) == [folder] and find_patients(folder) == [folder]


def test_the_most_certain_reader_is_used(mixed_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (nifti,) = (reader for reader in readers.READERS if reader.name == "NIfTI")
    less_certain = replace(
        nifti, name="less sure", claims=lambda file: Certainty.POSSIBLE, read_volume=_raise
    )
    monkeypatch.setattr(readers, "READERS", (less_certain, *readers.READERS))
    readers.read_volume(mixed_folder / "P1_FLAIR.nii.gz")
    with pytest.raises(AssertionError):
        readers.read_volume(mixed_folder / "P1_T2.npz")


def _raise(file: Path) -> None:
    raise AssertionError(file)


def test_an_unknown_volume_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scan\.xyz.*NIfTI, MetaImage or NRRD"):
        readers.read_volume(tmp_path / "scan.xyz")


def test_a_reader_reads_files_or_folders() -> None:
    assert len({reader.name for reader in readers.READERS}) == len(readers.READERS)
    with pytest.raises(ConfigurationError, match="made up"):
        Reader("made up", lambda path: Certainty.NONE)
