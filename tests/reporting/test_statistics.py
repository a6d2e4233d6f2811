"""The numbers of the lesion on the native grid: ``statistics.json`` beside ``segmentation.nii.gz``."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from gliomark.prediction import Prediction
from gliomark.reporting import write_prediction
from gliomark.reporting.lesion_statistics import compute_lesion_statistics
from gliomark.study import MRSequence, Segmentation

Make = Callable[..., Prediction]
SPHERE_ML = 4 / 3 * math.pi * 13**3 / 1000  # the synthetic lesion


def read_statistics(folder: Path) -> dict:
    return json.loads((folder / "statistics.json").read_text("utf-8"))


def set_images(prediction: Prediction, **changes: object) -> Prediction:
    """Give T1C the values 10, 11, 12 ... by slice, and FLAIR 100 times that; change further fields of both series."""
    series = {}
    for name, one in prediction.study.series.items():
        ramp = np.arange(10, 10 + len(one.image), dtype=np.float32)[:, None, None]
        image = np.broadcast_to(ramp * (100 if name == MRSequence.FLAIR else 1), one.image.shape)
        series[name] = dataclasses.replace(one, image=image.copy(), **changes)
    return dataclasses.replace(prediction, study=dataclasses.replace(prediction.study, series=series))


@pytest.mark.parametrize("kind", ["pictures", "volumes"])
def test_volume_slices_and_intensities_are_those_of_the_mask(
    make_prediction: Make, tmp_path: Path, kind: str
) -> None:
    prediction = set_images(make_prediction(kind))
    folder = write_prediction(prediction, tmp_path)
    numbers, written = read_statistics(folder), nib.load(folder / "segmentation.nii.gz")
    mask = np.asarray(written.dataobj).transpose(2, 1, 0) > 0
    assert numbers["sequence"] == "T1C" and numbers["shape"] == list(written.shape)
    assert numbers["spacing_mm"] == pytest.approx(written.header.get_zooms())
    assert numbers["voxels"] == mask.sum()
    assert numbers["volume_ml"] == pytest.approx(mask.sum() * np.prod(written.header.get_zooms()) / 1000)
    # five slices of 5 mm: on either grid the mask deviates from the sphere in its own way
    assert numbers["volume_ml"] == pytest.approx(SPHERE_ML, rel=0.04)
    assert prediction.lesion_volume_ml == pytest.approx(SPHERE_ML, rel=0.04)
    names = prediction.study.series[MRSequence.T1C].slice_names
    area_mm2 = float(np.prod(written.header.get_zooms()[:2]))
    assert numbers["slices"] == [
        {
            "index": index,
            "name": names[index],
            "voxels": int(mask[index].sum()),
            "area_mm2": pytest.approx(mask[index].sum() * area_mm2),
        }
        for index in np.flatnonzero(mask.any(axis=(1, 2)))
    ]
    values = 10 + np.nonzero(mask)[0]
    assert numbers["intensities"]["T1C"] == {
        "voxels": len(values),
        "mean": pytest.approx(values.mean()),
        "standard_deviation": pytest.approx(values.std(), abs=1e-6),
        "minimum": values.min(),
        "percentile_5": np.percentile(values, 5),
        "median": np.median(values),
        "percentile_95": np.percentile(values, 95),
        "maximum": values.max(),
    }
    assert numbers["intensities"]["FLAIR"]["mean"] == pytest.approx(100 * values.mean())


def test_pictures_as_nifti_are_the_pictures_as_png(make_prediction: Make, tmp_path: Path) -> None:
    folder = write_prediction(make_prediction("pictures"), tmp_path)
    planes = [np.asarray(Image.open(file)) > 0 for file in sorted((folder / "masks").iterdir())]
    mask = np.asarray(nib.load(folder / "segmentation.nii.gz").dataobj).transpose(2, 1, 0)
    assert np.array_equal(mask, np.stack(planes)) and mask.any()
    assert read_statistics(folder)["spacing_assumed"] is True


def test_each_sequence_is_measured_on_its_own_grid_at_the_registered_position(make_prediction: Make) -> None:
    prediction = set_images(make_prediction("volumes"))
    shift = np.eye(4)
    shift[2, 3] = 6.25  # FLAIR shows the lesion 6.25 mm, five slices, lower
    moved = dataclasses.replace(
        prediction, stack=dataclasses.replace(prediction.stack, to_stack={MRSequence.FLAIR: shift})
    )
    before, after = (compute_lesion_statistics(one).intensities for one in (prediction, moved))
    assert before[MRSequence.T1C] == after[MRSequence.T1C]
    flair_before, flair_after = before[MRSequence.FLAIR], after[MRSequence.FLAIR]
    assert flair_before is not None and flair_after is not None
    assert flair_after.mean == pytest.approx(flair_before.mean - 500, abs=5)


def test_voxels_without_a_value_are_left_out(make_prediction: Make) -> None:
    prediction = make_prediction("volumes")
    missing = np.ones(prediction.study.series[MRSequence.T1C].image.shape, bool)
    missing[:16] = False  # only the lower half has values
    numbers = compute_lesion_statistics(set_images(prediction, missing=missing))
    intensities = numbers.intensities[MRSequence.T1C]
    assert intensities is not None and intensities.maximum == 25.0
    assert 0 < intensities.voxels < numbers.voxels


def test_without_a_lesion_there_is_no_intensity(make_prediction: Make, tmp_path: Path) -> None:
    empty = np.zeros_like(make_prediction().segmentation.mask)
    prediction = make_prediction(
        "volumes", segmentation=Segmentation(empty.astype(np.float32), empty, "none")
    )
    folder = write_prediction(prediction, tmp_path)
    numbers = read_statistics(folder)
    assert (numbers["voxels"], numbers["volume_ml"], numbers["slices"]) == (0, 0.0, [])
    assert numbers["intensities"] == {"T1C": None, "FLAIR": None}
    assert not np.asarray(nib.load(folder / "segmentation.nii.gz").dataobj).any()
