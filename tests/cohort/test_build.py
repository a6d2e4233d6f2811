"""Tests of the complete build on synthetic patients: complete, resumable byte for byte, and anonymous."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from gliomark.cohort.build import BuildReport, BuildSettings, CohortSources, build_cohort
from gliomark.cohort.export import export_cohort
from gliomark.cohort.folds import load_cohort_folds
from gliomark.cohort.labels import LabelSettings
from gliomark.cohort.store import Cohort
from gliomark.errors import GliomarkError
from gliomark.io import read_study
from gliomark.phantom import PhantomSettings, create_phantom, write_clinical_csv, write_pictures
from gliomark.preprocessing import prepare
from gliomark.study import MRSequence

SMALL = PhantomSettings(spacing_mm=(3.0, 3.0), matrix=80, slice_mm=6.0, slice_count=22, sublayers=1)
PAIR = (MRSequence.T1C, MRSequence.FLAIR)
SETTINGS = BuildSettings(sequences=PAIR)
SEEDS = range(1, 11)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten patients as pictures, already skull-stripped, and their table."""
    root = tmp_path_factory.mktemp("hospital 医院")
    rows = []
    for seed in SEEDS:
        phantom = create_phantom(seed, SMALL)
        skull_stripped = {
            name: replace(series, image=series.image * (phantom.brain.image > 0))
            for name, series in phantom.study.series.items()
        }
        write_pictures(replace(phantom.study, series=skull_stripped), root / "patients")
        rows.append(phantom.clinical)
    write_clinical_csv(rows, root / "labels.csv")
    return root


def build(source: Path, out: Path, settings: BuildSettings = SETTINGS, workers: int = 0) -> BuildReport:
    return build_cohort(CohortSources(source / "patients", source / "labels.csv"), out, settings, workers)


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "cohort"
    report = build(source, out)
    assert (report.prepared, report.reused, report.left_out) == (10, 0, {})
    return out


@pytest.fixture
def cohort_copy(built: Path, tmp_path: Path) -> Path:
    """A copy of the built cohort, to be damaged."""
    shutil.copytree(built, tmp_path / "cohort")
    shutil.copytree(built.with_name("cohort.private"), tmp_path / "cohort.private")
    return tmp_path / "cohort"


def read_contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_key(cohort: Path) -> dict[str, str]:
    """Read the new id by original id."""
    lines = (cohort.with_name(cohort.name + ".private") / "key.csv").read_text("utf-8-sig").splitlines()[1:]
    return {line.split(",")[1]: line.split(",")[0] for line in lines}


def test_a_stored_patient_equals_its_preparation(source: Path, built: Path) -> None:
    stack = prepare(read_study(source / "patients" / "PHANTOM-0003"), PAIR)
    read = Cohort(built).read_stack(read_key(built)["PHANTOM-0003"])
    for name in PAIR:
        np.testing.assert_array_equal(read.images[name], stack.images[name].astype(np.float16))
    np.testing.assert_array_equal(read.reader_mask, stack.reader_mask)
    np.testing.assert_array_equal(read.brain, stack.brain)
    np.testing.assert_allclose(read.affine, stack.affine)
    assert read.slice_names == stack.slice_names and read.selected == stack.selected


def test_the_layout_can_be_read_with_h5py(built: Path) -> None:
    cohort = Cohort(built)
    patient = cohort.patient_ids[0]
    stack = cohort.read_stack(patient)
    lesion_slices = set()
    for index, name in enumerate(stack.slice_names):
        with h5py.File(built / "GMSBraTS" / "FLAIR" / patient / f"{name}.h5") as file:
            assert file["image"].dtype == np.float16 and file["image"].shape == (240, 240)
            assert set(np.unique(file["mask"][()])) <= {0, 1}
            assert file.attrs["patient"] == patient and len(file.attrs["spacing_mm"]) == 3
            if file["mask"][()].any():
                lesion_slices.add(f"{name}.h5")
                assert stack.reader_mask[index].any()
    listed = {path.name for path in (built / "GMSGlioma" / "FLAIR" / patient).iterdir()}
    assert listed == lesion_slices and lesion_slices


def test_the_cohort_records_folds_and_software(built: Path) -> None:
    cohort = Cohort(built)
    assert cohort.metadata["schema_version"] == 2 and cohort.metadata["sequences"] == ["T1C", "FLAIR"]
    assert set(cohort.metadata["arrays_sha256"]) == set(cohort.patient_ids)
    assert {"gliomark", "SimpleITK"} <= set(cohort.metadata["software"])
    folds = json.loads((built / "folds.json").read_text("utf-8"))
    assert sorted(p for fold in folds["folds"] for p in fold) == list(cohort.patient_ids)
    assert cohort.get_clinical(cohort.patient_ids[0]).columns["ki67"]


def test_the_cohort_contains_no_original_id(built: Path) -> None:
    for path, content in read_contents(built).items():
        assert "PHANTOM" not in path and b"PHANTOM" not in content and b"hospital" not in content, path


def test_a_second_build_prepares_and_changes_nothing(source: Path, cohort_copy: Path) -> None:
    before = read_contents(cohort_copy)
    report = build(source, cohort_copy, workers=2)
    assert (report.prepared, report.reused) == (0, 10) and read_contents(cohort_copy) == before


@pytest.mark.sample(2)
@pytest.mark.parametrize("damage", ["record", "slice cut short", "slice gone", "array changed"])
def test_a_damaged_patient_is_prepared_again(source: Path, cohort_copy: Path, damage: str) -> None:
    patient = Cohort(cohort_copy).patient_ids[4]
    original = Cohort(cohort_copy).read_stack(patient)
    before = {
        path: content for path, content in read_contents(cohort_copy).items() if path.startswith("GMSBraTS")
    }
    slice_path = sorted((cohort_copy / "GMSBraTS" / "T1C" / patient).iterdir())[3]
    if damage == "record":
        (cohort_copy / "patients" / f"{patient}.json").unlink()
    elif damage == "slice cut short":
        slice_path.write_bytes(slice_path.read_bytes()[:900])
    elif damage == "slice gone":
        slice_path.unlink()
    else:
        with h5py.File(slice_path, "r+") as file:
            file["image"][0, 0] = 7
    report = build(source, cohort_copy)
    assert (report.prepared, report.reused) == (1, 9)
    np.testing.assert_array_equal(
        Cohort(cohort_copy).read_stack(patient).images[PAIR[0]], original.images[PAIR[0]]
    )
    assert {p: c for p, c in read_contents(cohort_copy).items() if p.startswith("GMSBraTS")} == before


def test_a_patient_without_a_row_leaves_the_cohort(source: Path, cohort_copy: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(source, changed)
    patient = changed / "patients" / "PHANTOM-0002"
    pictures = sorted((patient / "mask").iterdir())
    pictures[0].write_bytes(pictures[-1].read_bytes())
    table = changed / "labels.csv"
    rows = table.read_text("utf-8").splitlines()
    table.write_text("\n".join(row for row in rows if not row.startswith("PHANTOM-0007")) + "\n", "utf-8")
    removed_id = read_key(cohort_copy)["PHANTOM-0007"]
    report = build(changed, cohort_copy)
    # replacing the first mask picture by an identical one changes no byte: only the missing row matters
    assert report.reused + report.prepared == 9 and set(report.left_out) == {"PHANTOM-0007"}
    assert "has no row" in report.left_out["PHANTOM-0007"]
    assert removed_id not in Cohort(cohort_copy).prepared_ids and not list(
        cohort_copy.glob(f"GMS*/*/{removed_id}")
    )


def test_a_patient_that_cannot_be_prepared_is_left_out_with_the_reason(source: Path, tmp_path: Path) -> None:
    subset = tmp_path / "some"
    for seed in (1, 2, 3):
        name = f"PHANTOM-{seed:04d}"
        shutil.copytree(source / "patients" / name, subset / "patients" / name)
    shutil.copyfile(source / "labels.csv", subset / "labels.csv")
    shutil.rmtree(subset / "patients" / "PHANTOM-0001" / "mask")
    shutil.rmtree(subset / "patients" / "PHANTOM-0002" / "FLAIR")
    report = build(subset, tmp_path / "out")
    assert report.prepared == 1
    assert "no lesion mask" in report.left_out["PHANTOM-0001"]
    assert "FLAIR is missing" in report.left_out["PHANTOM-0002"]
    without = build(subset, tmp_path / "without", replace(SETTINGS, without_masks=True))
    assert without.prepared == 2
    cohort = Cohort(tmp_path / "without")
    patient = read_key(cohort.folder)["PHANTOM-0001"]
    assert cohort.read_stack(patient).lesion is None
    with pytest.raises(GliomarkError, match="no lesion mask"):
        _ = cohort.read_stack(patient).reader_mask


@pytest.mark.parametrize(
    "other",
    [
        replace(SETTINGS, sequences=(MRSequence.T1C, MRSequence.T2)),
        replace(SETTINGS, keep_ids=True),
        replace(SETTINGS, labels=LabelSettings(ki67_threshold=20)),
    ],
)
def test_other_settings_are_refused_for_an_existing_cohort(
    source: Path, cohort_copy: Path, other: BuildSettings
) -> None:
    before = read_contents(cohort_copy)
    with pytest.raises(GliomarkError, match="built with other settings"):
        build(source, cohort_copy, other)
    assert read_contents(cohort_copy) == before


def test_a_cohort_inside_its_source_is_refused(source: Path) -> None:
    with pytest.raises(GliomarkError, match="lies inside"):
        build(source, source / "patients" / "cohort")
    assert not (source / "patients" / "cohort").exists()


def test_an_unfinished_cohort_is_refused(cohort_copy: Path) -> None:
    metadata = json.loads((cohort_copy / "cohort.json").read_text("utf-8"))
    (cohort_copy / "cohort.json").write_text(json.dumps({**metadata, "finished": False}), "utf-8")
    with pytest.raises(GliomarkError, match="was not finished"):
        Cohort(cohort_copy)


def test_a_rejected_patient_is_left_out_and_the_split_of_the_others_is_unchanged(
    source: Path, cohort_copy: Path
) -> None:
    from gliomark.cohort.folds import load_cohort_folds

    before = load_cohort_folds(Cohort(cohort_copy))
    rejected_id = before.train[0]
    (cohort_copy / "qc.csv").write_text(f"id,decision,comment\n{rejected_id},reject,motion\n", "utf-8")
    cohort = Cohort(cohort_copy)
    assert rejected_id not in cohort.patient_ids and rejected_id in cohort.prepared_ids
    after = load_cohort_folds(cohort)
    assert after.train == before.train[1:] and after.test == before.test


@pytest.mark.slow
def test_an_nnunet_data_set_becomes_the_cohort_from_which_it_was_exported(
    built: Path, tmp_path: Path
) -> None:
    """Ids, lesions (Dice 1.0), test set and folds return."""
    cohort = Cohort(built)
    raw = export_cohort(cohort, "nnunet", tmp_path / "raw")
    sources = CohortSources(raw, built / "MetaMS.csv")
    report = build_cohort(sources, tmp_path / "again", replace(SETTINGS, keep_ids=True), workers=0)
    assert not report.left_out and report.cohort.patient_ids == cohort.patient_ids
    assert "The folds are those of splits_final.json." in report.notes
    for patient in cohort.patient_ids:
        before, after = cohort.read_stack(patient), report.cohort.read_stack(patient)
        assert np.array_equal(before.reader_mask, after.reader_mask), patient
        np.testing.assert_allclose(before.affine, after.affine, atol=1e-3)
        one, other = cohort.get_clinical(patient), report.cohort.get_clinical(patient)
        assert (one.age, one.sex) == (other.age, other.sex)
    before, after = load_cohort_folds(cohort), load_cohort_folds(report.cohort)
    assert (after.test, after.development_folds) == (before.test, before.development_folds)


@pytest.mark.slow
def test_a_missing_scheduler_gives_one_sentence(source: Path, tmp_path: Path) -> None:
    with pytest.raises(GliomarkError, match="No dask scheduler answers"):
        build_cohort(
            CohortSources(source / "patients", source / "labels.csv"),
            tmp_path / "c",
            SETTINGS,
            scheduler="tcp://127.0.0.1:9",
        )
