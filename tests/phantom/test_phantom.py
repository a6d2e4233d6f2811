"""Tests of the synthetic patient: reproducible, correctly oriented, with the contrast of the four sequences."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from scipy import ndimage

from gliomark.cli import run
from gliomark.cohort.build import BuildSettings, CohortSources, build_cohort
from gliomark.cohort.describe import describe_cohort
from gliomark.cohort.quality_page import write_quality_pages
from gliomark.errors import GliomarkError
from gliomark.phantom import (
    Phantom,
    PhantomSettings,
    TumourAppearance,
    create_phantom,
    create_phantom_study,
    sample_clinical,
    write_clinical_csv,
    write_nifti,
    write_pictures,
)
from gliomark.phantom.anatomy import BodySide
from gliomark.study import ClinicalData, MRSequence

SMALL = PhantomSettings(spacing_mm=(3.0, 3.0), matrix=80, slice_mm=11.0, slice_count=14, sublayers=2)

RING = TumourAppearance(
    core_mm=22, oedema_mm=14, enhancement=0.9, necrotic=0.55, marbling=0.1, mismatch=False
)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    """A glioblastoma with a ring around a necrotic centre."""
    return create_phantom(5, SMALL, RING)


def test_the_study_is_complete(phantom: Phantom) -> None:
    study = phantom.study
    assert study.patient_id == phantom.clinical.patient_id == "PHANTOM-0005"
    assert list(study.series) == list(MRSequence)
    assert study.kind == "volumes" and study.aligned and study.lesion is not None
    for series in (*study.series.values(), study.lesion, phantom.core, phantom.brain):
        assert series.image.shape == (14, 80, 80) and series.image.dtype == np.float32
        assert np.isfinite(series.image).all() and series.image.min() >= 0
        assert series.slice_names[0] == "001" and len(series.slice_names) == 14
        np.testing.assert_allclose(np.diag(series.affine), [3, 3, 11, 1])
    assert set(np.unique(study.lesion.image)) == {0, 1}
    assert not (phantom.core.image > study.lesion.image).any()
    litres = phantom.brain.image.sum() * 3 * 3 * 11 / 1e6
    assert 1.2 < litres < 2.0


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_person(phantom: Phantom) -> None:
    again, other = create_phantom(5, SMALL, RING).study, create_phantom_study(6, SMALL)[0]
    for sequence in MRSequence:
        assert again.series[sequence].image.tobytes() == phantom.study.series[sequence].image.tobytes()
    brains = np.corrcoef(again.series[MRSequence.T1].image.ravel(), other.series[MRSequence.T1].image.ravel())
    assert brains[0, 1] < 0.97


@pytest.mark.parametrize(("side", "sign"), [("left", 1), ("right", -1)])
def test_the_tumour_lies_on_the_requested_side(side: BodySide, sign: int) -> None:
    settings = PhantomSettings((3.0, 3.0), 11.0, 80, 14, side=side, sublayers=1)
    lesion = create_phantom_study(1, settings)[0].lesion
    assert lesion is not None
    slices, rows, columns = np.nonzero(lesion.image)
    positions = apply_affine(lesion.affine, np.stack([columns, rows, slices], axis=1))
    assert (positions[:, 0] * sign).mean() > 15  # LPS: x is positive on the patient's left


def test_the_head_points_to_the_front_and_up(phantom: Phantom) -> None:
    image = phantom.study.series[MRSequence.T1].image
    # the nose protrudes at the front of the lower face; only the vertex is narrow in both directions
    face = image[1] > 60
    rows = np.flatnonzero(face.any(axis=1))
    assert face[rows[1]].sum() < 0.4 * face[rows[-2]].sum()
    area = (image > 60).sum(axis=(1, 2))
    assert area[-1] < area[len(area) // 2] / 2


def test_grey_values_are_ordered_as_in_each_sequence(phantom: Phantom) -> None:
    brain, lesion, core = _compute_regions(phantom)
    upper = np.arange(14)[:, None, None] > 5  # the coil has little sensitivity at the skull base
    healthy, oedema = brain & ~lesion & upper, lesion & ~core
    image = {sequence: series.image for sequence, series in phantom.study.series.items()}
    white = healthy & (image[MRSequence.T1] > np.percentile(image[MRSequence.T1][healthy], 70))
    fluid = healthy & (image[MRSequence.T2] > np.percentile(image[MRSequence.T2][healthy], 97))
    for sequence, oedema_is_bright, fluid_is_bright in (
        (MRSequence.T1, False, False),
        (MRSequence.T2, True, True),
        (MRSequence.FLAIR, True, False),
    ):
        typical = np.median(image[sequence][white])
        assert (np.median(image[sequence][oedema]) > 1.3 * typical) == oedema_is_bright
        assert (np.median(image[sequence][fluid]) > 1.3 * typical) == fluid_is_bright
        assert oedema_is_bright or np.median(image[sequence][oedema]) < 0.9 * typical
        assert fluid_is_bright or np.median(image[sequence][fluid]) < 0.8 * typical


def test_contrast_enhances_the_ring_of_the_glioblastoma(phantom: Phantom) -> None:
    brain, lesion, core = _compute_regions(phantom)
    before, after = (phantom.study.series[name].image for name in (MRSequence.T1, MRSequence.T1C))
    gain = after / np.median(after[brain]) - before / np.median(before[brain])
    assert (gain[core] > 0.25).mean() > 3 * (gain[brain & ~lesion] > 0.25).mean()
    assert (gain[core] > 0.25).mean() > 0.1
    assert (before[core] / np.median(before[brain]) < 0.75).mean() > 0.1  # necrosis


def _compute_regions(phantom: Phantom) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return masks of brain, lesion and core, ``(slice, row, column)``."""
    assert phantom.study.lesion is not None
    return phantom.brain.image > 0, phantom.study.lesion.image > 0, phantom.core.image > 0


def measure_tumour(**changes: float) -> dict[str, float]:
    """Measure the tumour in the images of one head with a changed appearance."""
    plain = TumourAppearance(
        core_mm=22, oedema_mm=8, enhancement=0.5, necrotic=0.3, marbling=0.3, mismatch=False
    )
    phantom = create_phantom(5, SMALL, appearance=replace(plain, **changes))
    _, lesion, core = _compute_regions(phantom)
    image = {name: series.image for name, series in phantom.study.series.items()}
    gain = image[MRSequence.T1C] / np.median(image[MRSequence.T1C][lesion]) - image[
        MRSequence.T1
    ] / np.median(image[MRSequence.T1][lesion])
    return {
        "core": core.sum(),
        "oedema": lesion.sum() - core.sum(),
        "gain": np.percentile(gain[core], 90),
        "dark": (
            image[MRSequence.T1][core]
            < 0.6 * np.median(image[MRSequence.T1][~lesion & (image[MRSequence.T1] > 150)])
        ).mean(),
        "grain": image[MRSequence.T2][core].std() / image[MRSequence.T2][core].mean(),
        "flair": image[MRSequence.FLAIR][core].mean() / image[MRSequence.T2][core].mean(),
    }


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("name", "values", "measure"),
    [
        ("core_mm", (14, 20, 26), "core"),
        ("oedema_mm", (2, 10, 24), "oedema"),
        ("enhancement", (0.0, 0.3, 0.6, 0.95), "gain"),
        ("necrotic", (0.05, 0.4, 0.8), "dark"),
        ("marbling", (0.0, 0.5, 1.0), "grain"),
    ],
)
def test_images_show_every_variable_of_the_appearance(
    name: str, values: tuple[float, ...], measure: str
) -> None:
    measured = [measure_tumour(**{name: value})[measure] for value in values]
    assert all(later > 1.05 * earlier for earlier, later in zip(measured, measured[1:], strict=False)), (
        measured
    )


def test_mismatch_darkens_flair_only() -> None:
    fixed = {"enhancement": 0.05, "necrotic": 0.02, "marbling": 0.0}
    assert (
        measure_tumour(mismatch=True, **fixed)["flair"]
        < 0.8 * measure_tumour(mismatch=False, **fixed)["flair"]
    )


def test_clinical_rows_are_plausible() -> None:
    rows = [sample_clinical("x", np.random.default_rng(seed)) for seed in range(300)]
    assert all(row.age is not None and 18 <= row.age <= 85 and row.sex in (0, 1) for row in rows)
    assert {row.columns["who_grade"] for row in rows} == {"2", "3", "4"}
    assert 0.4 < np.mean([row.columns["idh_mutant"] == "1" for row in rows]) < 0.65
    assert 8 < np.median([float(row.columns["ki67"]) for row in rows]) < 25


def test_a_nifti_round_trip_keeps_positions(phantom: Phantom, tmp_path: Path) -> None:
    folder = write_nifti(phantom.study, tmp_path / "患者 01")
    assert {path.name for path in folder.iterdir()} == {
        *(f"{sequence}.nii.gz" for sequence in MRSequence),
        "mask.nii.gz",
    }
    first = (folder / "T1.nii.gz").read_bytes()
    # SimpleITK uses LPS: an independent check of the affine
    image = sitk.ReadImage(str(folder / "T1.nii.gz"))
    series = phantom.study.series[MRSequence.T1]
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), series.image)
    np.testing.assert_allclose(
        image.TransformIndexToPhysicalPoint((10, 20, 3)), apply_affine(series.affine, [10, 20, 3]), atol=1e-3
    )
    affine = nibabel.Nifti1Image.from_filename(folder / "mask.nii.gz").affine
    assert nibabel.aff2axcodes(affine) == ("L", "P", "S")
    write_nifti(phantom.study, tmp_path / "患者 01")
    assert (folder / "T1.nii.gz").read_bytes() == first


def test_pictures_have_the_grey_values_of_the_study(phantom: Phantom, tmp_path: Path) -> None:
    folder = write_pictures(phantom.study, tmp_path)
    for name in (*MRSequence, "mask"):
        assert len(list((folder / name).glob("*.png"))) == 14
    image = sitk.ReadImage(str(folder / "FLAIR" / "007.png"))
    assert image.GetSize() == (80, 80) and image.GetPixelID() == sitk.sitkUInt8
    files = sorted((folder / "mask").iterdir())
    mask = np.stack([sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in files])
    np.testing.assert_array_equal(mask, _compute_regions(phantom)[1] * 255)


def test_the_clinical_csv_has_one_row_per_patient(tmp_path: Path) -> None:
    rows = [ClinicalData("a", 50.0, 0, {"ki67": "5"}), ClinicalData("b", None, None, {"who_grade": "4"})]
    write_clinical_csv(rows, tmp_path / "new" / "clinical.csv")
    with (tmp_path / "new" / "clinical.csv").open(encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["id", "age", "sex", "ki67", "who_grade"],
            ["a", "50", "M", "5", ""],
            ["b", "", "", "", "4"],
        ]


def test_invalid_settings_are_refused(phantom: Phantom, tmp_path: Path) -> None:
    with pytest.raises(GliomarkError, match="positive"):
        PhantomSettings(slice_count=0)
    with pytest.raises(GliomarkError, match="side"):
        PhantomSettings(side="links")  # type: ignore[arg-type]
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(GliomarkError, match="choose an output folder"):
        write_nifti(phantom.study, tmp_path / "file")


# --- people without a lesion ------------------------------------------------------------------------

FREE = replace(SMALL, has_lesion=False)


def test_without_a_lesion_the_person_is_the_same_and_no_tumour_is_left(phantom: Phantom) -> None:
    free = create_phantom(5, FREE)
    assert free.study.patient_id == free.clinical.patient_id == "HEALTHY-0005"
    assert (free.clinical.age, free.clinical.sex) == (phantom.clinical.age, phantom.clinical.sex)
    assert free.appearance is None and free.clinical.columns == {}
    assert free.study.lesion is not None and free.study.lesion.image.shape == (14, 80, 80)
    assert not free.study.lesion.image.any() and not free.core.image.any()
    brain, lesion, _ = _compute_regions(phantom)
    inside = ndimage.binary_dilation(brain | (free.brain.image > 0), np.ones((1, 3, 3)), 3)
    for name, series in free.study.series.items():
        # thick slices contain a little brain outside the mask
        assert (series.image == phantom.study.series[name].image)[~inside].mean() > 0.999
    # in FLAIR nothing is as bright as oedema at the position of the other person's lesion
    typical = np.median(free.study.series[MRSequence.FLAIR].image[free.brain.image > 0])
    bright = [
        (one.study.series[MRSequence.FLAIR].image[lesion] > 1.4 * typical).mean() for one in (phantom, free)
    ]
    assert bright[0] > 0.4 and bright[1] < 0.02


def test_without_a_lesion_the_tumour_side_has_no_effect() -> None:
    """Mass effect would also reveal the position."""
    left, right = (
        create_phantom(5, replace(FREE, side=side, appearance_noise_factor=noise)).study
        for side, noise in (("left", 1.0), ("right", 3.0))
    )
    for name, series in left.series.items():
        assert series.image.tobytes() == right.series[name].image.tobytes()


@pytest.fixture
def small_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command create heads on a small grid."""
    small = partial(PhantomSettings, spacing_mm=(3.0, 3.0), matrix=80, slice_mm=11.0, slice_count=14)
    monkeypatch.setattr("gliomark.phantom.hospital.PhantomSettings", small)


@pytest.mark.parametrize("form", ["pictures", "nifti"])
def test_the_command_writes_patients_without_a_lesion(
    form: str,
    small_heads: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    out = tmp_path / "out"
    arguments = ["--patients", "2", "--seed", "7", "--as", form, "--workers", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["gliomark", "cohort", "phantom", "--lesion-free", *arguments])
    with pytest.raises(SystemExit) as ended:
        run()
    assert not ended.value.code
    output = capsys.readouterr().out
    assert "2 synthetic patients" in output and "AUC" not in output
    assert {path.name for path in (out / form).iterdir()} == {"HEALTHY-0007", "HEALTHY-0008"}
    for patient in (out / form).iterdir():
        masks = sorted((patient / "mask").glob("*.png")) if form == "pictures" else [patient / "mask.nii.gz"]
        assert len(masks) == (14 if form == "pictures" else 1)
        assert not any(sitk.GetArrayFromImage(sitk.ReadImage(str(file))).any() for file in masks)
    with (out / "clinical.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["id", "age", "sex", "ki67", "idh_mutant", "who_grade"]
    assert all(row[1] and row[2] and row[3:] == ["", "", ""] for row in rows[1:]) and len(rows) == 3
    assert [path.name for path in (out / "truth").iterdir()] == ["truth.csv"]
    assert (out / "truth" / "truth.csv").read_text("utf-8").splitlines() == [
        "id,seed,lesion",
        "HEALTHY-0007,7,none",
        "HEALTHY-0008,8,none",
    ]


def test_an_empty_mask_counts_as_drawn_in_a_cohort(tmp_path: Path) -> None:
    rows = []
    for seed in (1, 2):
        free = create_phantom(seed, replace(FREE, slice_mm=6.0, slice_count=22, sublayers=1))
        # already skull-stripped
        skull_stripped = {
            name: replace(series, image=series.image * (free.brain.image > 0))
            for name, series in free.study.series.items()
        }
        write_pictures(replace(free.study, series=skull_stripped), tmp_path / "pictures")
        rows.append(free.clinical)
    write_clinical_csv(rows, tmp_path / "clinical.csv", ("ki67", "idh_mutant", "who_grade"))
    settings = BuildSettings(sequences=(MRSequence.T1C, MRSequence.FLAIR), keep_ids=True)
    sources = CohortSources(tmp_path / "pictures", tmp_path / "clinical.csv")
    report = build_cohort(sources, tmp_path / "cohort", settings, workers=0)
    assert (report.prepared, report.left_out) == (2, {})
    cohort = report.cohort
    assert cohort.patient_ids == ("HEALTHY-0001", "HEALTHY-0002")
    for patient in cohort.patient_ids:
        stack = cohort.read_stack(patient)
        assert cohort.has_mask(patient) and stack.lesion is not None
        assert not stack.lesion.any() and stack.lesion.shape == stack.brain.shape
        row = cohort.get_clinical(patient)
        assert row.age is not None and row.sex in (0, 1) and not any(row.columns.values())
    assert not list((cohort.folder / "GMSGlioma").rglob("*.h5"))
    _, page = write_quality_pages(cohort)
    assert "HEALTHY-0001" in page.read_text("utf-8")
    assert any(describe_cohort(cohort).rglob("*.csv"))
