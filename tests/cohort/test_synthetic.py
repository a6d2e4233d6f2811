"""Tests of a synthetic hospital written as a prepared cohort: the same as by the full way, and resumable."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gliomark.cli import run
from gliomark.cohort.folds import load_cohort_folds
from gliomark.cohort.store import Cohort
from gliomark.cohort.synthetic import SyntheticSettings, write_synthetic_cohort
from gliomark.errors import ConfigurationError, GliomarkError
from gliomark.phantom.patient import (
    PhantomSettings,
    as_series,
    create_reader_masks,
    render_volumes,
    sample_labels,
    sample_person,
)
from gliomark.phantom.planned_slices import create_planned_phantom, create_scanner_rng
from gliomark.phantom.rendering import simulate_scan
from gliomark.preprocessing import PreparationConfig, prepare, prepare_with_brain_mask
from gliomark.study import MRSequence, SliceStack, Study

T1C, T2, FLAIR = MRSequence.T1C, MRSequence.T2, MRSequence.FLAIR
COARSE = PhantomSettings(spacing_mm=(1.5, 1.5), matrix=160, sublayers=1)
FULL = SyntheticSettings().imaging
TINY = SyntheticSettings(
    test_count=3,
    imaging=PhantomSettings(spacing_mm=(3.0, 3.0), matrix=80, sublayers=1),
    preparation=PreparationConfig(k=7),
)
SEEDS = range(1, 12)


def prepare_the_full_way(seed: int, sequences: tuple[MRSequence, ...], planned: Study) -> SliceStack:
    """Render the whole head, two slices beyond both ends, strip the skull by the true brain mask, and prepare."""
    first = planned.series[T1C]
    imaging = PhantomSettings(
        spacing_mm=(first.affine[1, 1], first.affine[0, 0]),
        slice_mm=first.affine[2, 2],
        matrix=first.image.shape[1],
        slice_count=len(first.image) + 4,
    )
    affine = first.affine.copy()
    affine[2, 3] -= 2 * imaging.slice_mm
    settings = FULL if imaging.matrix == FULL.matrix else COARSE
    imaging = replace(imaging, sublayers=settings.sublayers)
    signal, shares = render_volumes(sample_person(seed, "x", settings), sequences, affine, imaging)
    masks = create_reader_masks(shares, affine, Path("x"))
    series = {
        name: as_series(
            simulate_scan(image, affine, 0.0, create_scanner_rng(seed, name)) * masks["brain"].image,
            affine,
            Path(name),
        )
        for name, image in zip(sequences, signal, strict=True)
    }
    return prepare(Study("x", series, Path("x"), "volumes", aligned=True, lesion=masks["core"]), sequences)


def compute_dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    return 2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second))


@pytest.mark.sample(5)
@pytest.mark.parametrize(
    ("seed", "sequences", "imaging"),
    [
        (1, (T1C, T2), COARSE),
        (2, (T1C, FLAIR), COARSE),
        (3, (T1C, T2), COARSE),
        pytest.param(4, (T1C, T2), FULL, marks=pytest.mark.slow),
        pytest.param(5, (T1C, FLAIR), FULL, marks=pytest.mark.slow),
    ],
)
def test_the_prepared_stack_is_that_of_the_full_way(seed, sequences, imaging) -> None:
    phantom = create_planned_phantom(seed, sequences, 20, 1200.0, replace(imaging, noise_sigma=0.0))
    stack = prepare_with_brain_mask(phantom.study, sequences, phantom.brain)
    expected = prepare_the_full_way(seed, sequences, phantom.study)
    assert stack.brain.shape == (20, 240, 240) and stack.selected == tuple(range(20))
    # the full way may keep a slice beyond an end, of less than the planned area
    lowest = round((stack.affine[2, 3] - expected.affine[2, 3]) / stack.affine[2, 2])
    same = slice(lowest, lowest + 20)
    np.testing.assert_allclose(stack.affine[:2], expected.affine[:2], atol=1e-6)
    assert stack.lesion is not None and expected.lesion is not None
    assert compute_dice(stack.brain, expected.brain[same]) > 0.999
    assert compute_dice(stack.lesion, expected.lesion[same]) > 0.999
    both = stack.brain & expected.brain[same]
    for name in sequences:
        difference = np.abs(stack.images[name] - expected.images[name][same])[both]
        assert difference.mean() < 0.01, name
        assert stack.images[name][stack.brain].mean() == pytest.approx(0, abs=1e-3)
        assert stack.images[name][stack.brain].std() == pytest.approx(1, abs=1e-3)


def test_a_sequence_does_not_depend_on_the_other_one() -> None:
    with_t2, with_flair = (
        create_planned_phantom(6, (T1C, other), 7, 1200.0, TINY.imaging).study for other in (T2, FLAIR)
    )
    np.testing.assert_array_equal(with_t2.series[T1C].image, with_flair.series[T1C].image)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Eleven patients, written without interruption by one process. Read only."""
    report = write_synthetic_cohort(SEEDS, tmp_path_factory.mktemp("synthetic") / "cohort", TINY)
    assert (report.generated, report.reused, report.hospital.patients) == (11, 0, 11)
    return report.cohort


def read_files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_interrupted_cohort_is_continued_and_has_the_same_bytes(
    cohort: Cohort, tmp_path: Path, workers: int
) -> None:
    out = tmp_path / "cohort"

    def interrupt(patient: str, done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_synthetic_cohort(SEEDS, out, TINY, progress=interrupt)
    with pytest.raises(GliomarkError, match="not finished"):
        Cohort(out)
    shutil.rmtree(out / "GMSBraTS" / "T2" / "PHANTOM-0002")
    kept = (out / "patients" / "PHANTOM-0001.json").stat().st_mtime_ns
    report = write_synthetic_cohort(SEEDS, out, TINY, workers)
    assert (report.generated, report.reused) == (8, 3)
    assert (out / "patients" / "PHANTOM-0001.json").stat().st_mtime_ns == kept
    assert read_files(out) == read_files(cohort.folder)


def test_the_cohort_and_every_patient_are_marked_as_synthetic(cohort: Cohort, prepared_cohort: Path) -> None:
    assert cohort.is_synthetic and not Cohort(prepared_cohort).is_synthetic
    assert cohort.prepared_ids == tuple(f"PHANTOM-{seed:04d}" for seed in SEEDS)
    for seed, patient in zip(SEEDS, cohort.prepared_ids, strict=True):
        assert cohort.read_patient_record(patient)["synthetic"]["seed"] == seed
        assert "Synthetic patient, not a real person." in cohort.read_stack(patient).notes


def test_clinical_values_and_truth_are_those_of_the_person(cohort: Cohort) -> None:
    with (cohort.folder / "truth" / "truth.csv").open(encoding="utf-8") as file:
        truth = {row["id"]: row for row in csv.DictReader(file)}
    for seed, patient in zip(SEEDS, cohort.prepared_ids, strict=True):
        clinical, appearance = sample_labels(seed, patient)
        read = cohort.get_clinical(patient)
        assert (read.age, read.sex) == (clinical.age, clinical.sex)
        assert {name: read.columns[name] for name in clinical.columns} == clinical.columns
        assert read.columns["ki67_high"] == str(int(float(clinical.columns["ki67"]) >= 10))
        assert appearance is not None
        assert float(truth[patient]["core_mm"]) == pytest.approx(appearance.core_mm, abs=1e-6)
        assert 0 < float(truth[patient]["posterior_ki67"]) < 1
    assert (cohort.folder / "truth" / "ceiling.csv").is_file()


def test_the_last_patients_are_the_test_set(cohort: Cohort) -> None:
    folds = load_cohort_folds(cohort)
    assert folds.test == folds.folds[4] == ("PHANTOM-0009", "PHANTOM-0010", "PHANTOM-0011")
    assert folds.development == cohort.prepared_ids[:8]
    assert sorted(p for fold in folds.folds[:4] for p in fold) == list(folds.development)


def test_patients_can_be_added(cohort: Cohort, tmp_path: Path) -> None:
    shutil.copytree(cohort.folder, out := tmp_path / "cohort")
    report = write_synthetic_cohort(range(1, 13), out, TINY)
    assert (report.generated, report.reused, report.hospital.patients) == (1, 11, 12)
    assert load_cohort_folds(report.cohort).test == ("PHANTOM-0010", "PHANTOM-0011", "PHANTOM-0012")
    assert len(report.notes) == 1 and "new folds" in report.notes[0]


def test_people_without_a_lesion_have_empty_masks_and_no_markers(tmp_path: Path) -> None:
    healthy = replace(TINY, test_count=None, imaging=replace(TINY.imaging, has_lesion=False))
    cohort = write_synthetic_cohort([3], tmp_path / "cohort", healthy).cohort
    assert cohort.prepared_ids == ("HEALTHY-0003",)
    assert cohort.has_mask("HEALTHY-0003") and not cohort.read_stack("HEALTHY-0003").reader_mask.any()
    assert "ki67" not in cohort.get_clinical("HEALTHY-0003").columns
    assert not list((cohort.folder / "GMSGlioma").rglob("*.h5"))


@pytest.mark.parametrize(
    ("seeds", "settings", "sentence"),
    [
        ([], TINY, "at least one patient"),
        ([1, 1], TINY, "different seed"),
        (range(1, 9), replace(TINY, test_count=4), "4 test patients of 8"),
        (range(1, 9), replace(TINY, test_count=0), "0 test patients of 8"),
        (SEEDS, replace(TINY, sequences=(T1C, FLAIR)), "other settings"),
        (SEEDS, replace(TINY, imaging=FULL), "other settings"),
        (SEEDS, replace(TINY, test_count=2), "other settings"),
    ],
)
def test_impossible_settings_are_refused(cohort: Cohort, seeds, settings, sentence) -> None:
    before = (cohort.folder / "cohort.json").read_bytes()
    with pytest.raises(ConfigurationError, match=sentence):
        write_synthetic_cohort(seeds, cohort.folder, settings)
    assert (cohort.folder / "cohort.json").read_bytes() == before


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="not empty"):
        write_synthetic_cohort(SEEDS, tmp_path, TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["readme.txt"]


@pytest.mark.slow
def test_the_command_writes_a_cohort_of_the_requested_pair(tmp_path: Path, monkeypatch, capsys) -> None:
    out = tmp_path / "cohort"
    options = "--seed 8 --sequences T1C,FLAIR --noise 0.05 --case-mix low-grade"
    command = f"gliomark cohort phantom --as prepared {options} --out {out}"
    monkeypatch.setattr(sys, "argv", command.split())
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 0, capsys.readouterr().err
    assert "1 patients generated, 0 unchanged" in capsys.readouterr().out
    stack = Cohort(out).read_stack("PHANTOM-0008")
    assert list(stack.images) == [T1C, FLAIR] and stack.brain.shape == (20, 240, 240)
    settings = json.loads((out / "cohort.json").read_text("utf-8"))
    assert settings["settings"]["k"] == 20 and "slice_count" not in settings["synthetic"]["imaging"]
    assert settings["synthetic"]["imaging"]["noise_sigma"] == 0.05
    assert settings["synthetic"]["appearance"]["case_mix"] == "low-grade"
    with (out / "truth" / "labels.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    expected = sample_labels(8, "PHANTOM-0008", PhantomSettings(case_mix="low-grade"))[0]
    assert row["ki67"] == expected.columns["ki67"]
