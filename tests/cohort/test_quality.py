"""Tests of the quality measures on images altered on purpose, and of the pages and decisions."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from gliomark.cohort.quality import (
    QualityLimits,
    list_flags,
    list_outside_limits,
    measure_quality,
    read_rejected_ids,
)
from gliomark.cohort.quality_page import BADGE_TITLES, NUMBER_TITLES, choose_shown_slice, write_quality_pages
from gliomark.cohort.store import Cohort
from gliomark.errors import GliomarkError
from gliomark.study import MRSequence, Series, SliceStack, Study

T1C, T2 = MRSequence.T1C, MRSequence.T2
SHAPE = (16, 240, 240)
AFFINE = np.array([[1, 0, 0, -119.5], [0, 1, 0, -119.5], [0, 0, 5, -40], [0, 0, 0, 1.0]])


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    """Smooth random tissue, 0 to 1, correlated over a few mm in all directions."""
    grain = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=SHAPE), (0.8, 3, 3))
    return (grain - grain.min()) / np.ptp(grain)


@pytest.fixture(scope="module")
def stack(tissue: np.ndarray) -> SliceStack:
    """A well prepared patient: T2, a T1C with inverted, nonlinear contrast of the same tissue, 1.2 l of brain."""
    grid = np.indices(SHAPE)
    radii = ((grid[0] - 7.5) / 9, (grid[1] - 120) / 80, (grid[2] - 118) / 62)
    brain = sum(axis**2 for axis in radii) < 1
    lesion = (np.abs(grid[0] - 8) < 3) & (np.hypot(grid[1] - 100, grid[2] - 90) < 15)
    images = {T1C: _normalise(1.0 - tissue**2, brain), T2: _normalise(tissue, brain, seed=6)}
    names = tuple(f"{index:03d}" for index in range(1, SHAPE[0] + 1))
    unmoved = {T1C: np.eye(4), T2: np.eye(4)}
    return SliceStack("G0001", images, brain, AFFINE, names, (1, 8), lesion, to_stack=unmoved)


@pytest.fixture(scope="module")
def study(stack: SliceStack) -> Study:
    """The same patient as acquired: magnitude images with Rayleigh noise of sigma 10 in air, brain at 500."""
    random = np.random.default_rng(1)
    series = {}
    for name in (T1C, T2):
        noise = random.normal(0, 10, (2, *SHAPE))
        image = np.hypot(np.where(stack.brain, 500.0, 0.0) + noise[0], noise[1]).astype(np.float32)
        series[name] = Series(image, AFFINE, stack.slice_names, Path("made"))
    assert stack.lesion is not None
    lesion = Series(stack.lesion.astype(np.float32), AFFINE, stack.slice_names, Path("made"))
    return Study("G0001", series, Path("made"), "volumes", lesion=lesion)


def _normalise(image: np.ndarray, brain: np.ndarray, seed: int = 5) -> np.ndarray:
    """Scale like the preparation; each sequence has independent noise."""
    noisy = image + np.random.default_rng(seed).normal(0, 0.03, image.shape)
    normalised = (noisy - noisy[brain].mean()) / noisy[brain].std()
    return np.where(brain, normalised, normalised[brain].min()).astype(np.float32)


def _replace_t1c(stack: SliceStack, image: np.ndarray) -> SliceStack:
    return replace(stack, images={T1C: _normalise(image, stack.brain), T2: stack.images[T2]})


def test_a_good_patient_has_no_flags_and_serialisable_numbers(study: Study, stack: SliceStack) -> None:
    numbers = measure_quality(study, stack)
    assert list_flags(numbers) == ()
    assert json.loads(json.dumps(numbers)) == numbers
    assert numbers["brain_volume_ml"] == pytest.approx(stack.brain.sum() * 0.005, abs=0.01)
    assert numbers["T1C_coverage"] == numbers["lesion_in_brain"] == numbers["lesion_kept"] == 1.0
    assert (numbers["T2_row_mm"], numbers["T2_column_mm"], numbers["T2_slice_mm"]) == (1.0, 1.0, 5.0)
    assert numbers["T1C_displacement_mm"] == numbers["T1C_rotation_degrees"] == 0.0
    assert "T2_misalignment_mm" not in numbers  # the reference is not compared with itself


@pytest.mark.parametrize("shift", [(3, 0), (0, -4), (4, 5), (7, 0), (-6, 8)])
def test_misalignment_equals_the_shift_of_the_sequence(
    study: Study, stack: SliceStack, tissue: np.ndarray, shift: tuple[int, int]
) -> None:
    numbers = measure_quality(study, _replace_t1c(stack, np.roll(1.0 - tissue**2, shift, axis=(1, 2))))
    assert numbers["T1C_misalignment_mm"] == pytest.approx(np.hypot(*shift), abs=0.6)
    assert any("T1C may be misaligned" in text for text in list_flags(numbers))


def test_misalignment_detects_a_shifted_slice_and_a_rotation(
    study: Study, stack: SliceStack, tissue: np.ndarray
) -> None:
    one_slice = measure_quality(study, _replace_t1c(stack, np.roll(1.0 - tissue**2, 1, axis=0)))
    rotated_image = ndimage.rotate(1.0 - tissue**2, 6, axes=(1, 2), reshape=False, order=1, mode="nearest")
    rotated = measure_quality(study, _replace_t1c(stack, rotated_image))
    assert one_slice["T1C_misalignment_mm"] == pytest.approx(5.0, abs=1.0)
    assert rotated["T1C_misalignment_mm"] > 2.5  # 6 degrees, half a brain away from the centre: about 4 mm
    reference = measure_quality(study, stack)
    assert reference["T1C_misalignment_mm"] < 0.5
    assert rotated["T1C_similarity"] < 0.5 * reference["T1C_similarity"]


def test_a_mirrored_sequence_is_flagged(study: Study, stack: SliceStack, tissue: np.ndarray) -> None:
    mirrored_image = np.roll(
        (1.0 - tissue**2)[:, :, ::-1], -3, axis=2
    )  # about the brain's midline, column 118
    numbers = measure_quality(study, _replace_t1c(stack, mirrored_image))
    assert numbers["T1C_mirrored"] > 0.02 > -0.02 > measure_quality(study, stack)["T1C_mirrored"]
    assert any("when mirrored" in text for text in list_flags(numbers))


def test_motion_equals_the_registration(study: Study, stack: SliceStack) -> None:
    moved = np.eye(4)
    moved[:3, :3] = Rotation.from_euler("z", 9, degrees=True).as_matrix()
    centre = np.argwhere(stack.brain).mean(axis=0)[::-1] @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    moved[:3, 3] = centre - moved[:3, :3] @ centre + np.array([0, 12.0, 0])
    numbers = measure_quality(study, replace(stack, to_stack={T1C: moved, T2: np.eye(4)}))
    assert numbers["T1C_rotation_degrees"] == pytest.approx(9.0, abs=0.01)
    assert numbers["T1C_displacement_mm"] == pytest.approx(12.0, abs=0.1)
    assert {"T1C_rotation_degrees", "T1C_displacement_mm"} <= set(list_outside_limits(numbers))


def test_coverage_follows_the_registered_position(study: Study, stack: SliceStack) -> None:
    half = replace(study.series[T1C], image=study.series[T1C].image[:8])
    numbers = measure_quality(replace(study, series={T1C: half, T2: study.series[T2]}), stack)
    share = stack.brain[:8].sum() / stack.brain.sum()
    assert numbers["T1C_coverage"] == pytest.approx(share, abs=0.01)
    down = np.eye(4)
    down[2, 3] = 40.0  # the eight slices move up by 40 mm and cover the upper half
    upper = measure_quality(
        replace(study, series={T1C: half, T2: study.series[T2]}), replace(stack, to_stack={T1C: down})
    )
    assert upper["T1C_coverage"] == pytest.approx(1 - share, abs=0.01)


def test_snr_is_measured_in_air_or_inside_the_brain_if_air_is_zero(study: Study, stack: SliceStack) -> None:
    numbers = measure_quality(study, stack)
    assert numbers["T2_snr"] == pytest.approx(50, rel=0.06)
    assert numbers["T2_noise_from_background"] == 1.0
    image = np.where(stack.brain, study.series[T2].image, 0.0).astype(np.float32)
    zeroed = replace(study, series={**study.series, T2: replace(study.series[T2], image=image)})
    inside = measure_quality(zeroed, stack)
    assert inside["T2_snr"] == pytest.approx(50, rel=0.08)
    assert inside["T2_noise_from_background"] == 0.0


def test_a_lesion_outside_the_brain_empty_or_missing_is_flagged(study: Study, stack: SliceStack) -> None:
    assert stack.lesion is not None
    displaced = replace(stack, lesion=np.roll(stack.lesion, -60, axis=2))
    assert any("outside the brain" in text for text in list_flags(measure_quality(study, displaced)))
    empty = measure_quality(study, replace(stack, lesion=np.zeros_like(stack.brain)))
    assert (empty["lesion_volume_ml"], empty["lesion_in_brain"]) == (0.0, None)
    assert any("The lesion is very small" in text for text in list_flags(empty))
    without = measure_quality(study, replace(stack, lesion=None))
    assert list_flags(without) == (
        "There is no lesion mask: draw one, or exclude the patient from training.",
    )


def test_every_limit_has_a_sentence_a_badge_and_a_name() -> None:
    limits = QualityLimits()
    for name, (low, high) in vars(limits).items():
        prefix = "T1C_" if name in {"coverage", "snr", "mirrored"} else ""
        for value in ([low - 0.01] if low is not None else []) + ([high + 0.01] if high is not None else []):
            found = list_flags({prefix + name: value}, limits)
            assert len(found) == 1 and len(found[0]) > 30, name
        assert name in BADGE_TITLES and name in NUMBER_TITLES
    assert (
        list_flags({"T1C_snr": 9.0}) == ()
        and list_flags({"T1C_snr": 9.0}, QualityLimits(snr=(20, None))) != ()
    )


# --- decisions --------------------------------------------------------------------------------------


@pytest.fixture
def cohort_copy(prepared_cohort: Path, tmp_path: Path) -> Cohort:
    """A copy that the tests may change."""
    return Cohort(Path(shutil.copytree(prepared_cohort, tmp_path / "cohort")))


def _read_rows(cohort: Cohort) -> dict[str, dict[str, str]]:
    with (cohort.folder / "qc.csv").open(encoding="utf-8-sig", newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def test_the_page_shows_every_patient_and_is_self_contained(cohort_copy: Cohort) -> None:
    path, page = write_quality_pages(cohort_copy)
    text = page.read_text("utf-8")
    assert path == cohort_copy.folder / "qc.csv" and set(_read_rows(cohort_copy)) == set(
        cohort_copy.prepared_ids
    )
    assert all(f">{patient}</b>" in text for patient in cohort_copy.prepared_ids)
    assert text.count("data:image/jpeg") == sum(
        len(cohort_copy.get_sequences(p)) for p in cohort_copy.prepared_ids
    )
    assert not re.search(r'(src|href)="(https?:)?//', text)
    assert page.stat().st_size / len(cohort_copy.prepared_ids) < 150_000  # 40 patients stay below 6 MB
    assert all((cohort_copy.folder / "quality" / f"{p}.html").is_file() for p in cohort_copy.prepared_ids)


def test_decisions_and_comments_are_kept_and_rejected_patients_left_out(cohort_copy: Cohort) -> None:
    write_quality_pages(cohort_copy)
    path = cohort_copy.folder / "qc.csv"
    text = path.read_text("utf-8-sig").replace("G0002,keep,", 'G0002,reject,"运动, blurred"')
    path.write_text(text, "utf-8")
    assert read_rejected_ids(cohort_copy.folder) == {"G0002"}
    assert "G0002" not in Cohort(cohort_copy.folder).patient_ids
    write_quality_pages(Cohort(cohort_copy.folder))
    row = _read_rows(cohort_copy)["G0002"]
    assert (row["decision"], row["comment"]) == ("reject", "运动, blurred")
    assert "运动, blurred" in (cohort_copy.folder / "qc.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("rejected", "is_refused"), [("g0002", True), ("G2", True), ("G-0002", True), ("another person", False)]
)
def test_a_rejection_under_a_similar_id_is_refused(
    cohort_copy: Cohort, rejected: str, is_refused: bool
) -> None:
    (cohort_copy.folder / "qc.csv").write_text(f"id,decision\n{rejected},reject\n", "utf-8")
    if is_refused:
        with pytest.raises(GliomarkError, match=f"rejects {rejected}, .* looks like G0002"):
            _ = Cohort(cohort_copy.folder).patient_ids
    else:  # a patient whom a later build left out
        assert "G0002" in Cohort(cohort_copy.folder).patient_ids


def test_flagged_patients_come_first(cohort_copy: Cohort) -> None:
    record = cohort_copy.folder / "patients" / "G0005.json"
    content = json.loads(record.read_text("utf-8"))
    record.write_text(json.dumps({**content, "quality": {"brain_volume_ml": 400.0}}), "utf-8")
    write_quality_pages(cohort_copy)
    assert next(iter(_read_rows(cohort_copy))) == "G0005"
    assert "The brain volume is low (400 ml)" in _read_rows(cohort_copy)["G0005"]["flags"]


def test_records_without_numbers_are_shown(cohort_copy: Cohort) -> None:
    record = cohort_copy.folder / "patients" / "G0001.json"
    content = json.loads(record.read_text("utf-8"))
    del content["quality"]
    record.write_text(json.dumps(content), "utf-8")
    write_quality_pages(cohort_copy)
    assert _read_rows(cohort_copy)["G0001"]["flags"] == ""


def test_the_slice_with_the_largest_lesion_is_shown(stack: SliceStack) -> None:
    assert stack.lesion is not None
    lesion = np.zeros_like(stack.brain)
    lesion[4, 100:110, 100:110] = lesion[11, 100:120, 100:120] = True
    assert choose_shown_slice(replace(stack, lesion=lesion)) == 11
    assert choose_shown_slice(replace(stack, lesion=None)) == int(stack.brain.sum(axis=(1, 2)).argmax())


@pytest.mark.parametrize(
    ("text", "expected_text"),
    [
        ("id,comment\nG1,x\n", "no column decision"),
        ("id,decision\nG1,maybe\n", "'maybe': write keep or reject"),
        ("id,decision\n,reject\n", "no id"),
    ],
)
def test_malformed_decisions_give_one_sentence(tmp_path: Path, text: str, expected_text: str) -> None:
    (tmp_path / "qc.csv").write_text(text, "utf-8")
    with pytest.raises(GliomarkError, match=expected_text):
        read_rejected_ids(tmp_path)


def test_decisions_saved_by_spreadsheets_are_read(tmp_path: Path) -> None:
    assert read_rejected_ids(tmp_path) == frozenset()
    (tmp_path / "qc.csv").write_text("\ufeffid;decision;comment\nG1; Reject ;a\nG2;;\n;;\n", "utf-8")
    assert read_rejected_ids(tmp_path) == {"G1"}
