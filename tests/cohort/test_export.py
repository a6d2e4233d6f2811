"""Tests of the export to other layouts: file names, values and positions."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from tests.conftest import find_program, update_slice_hashes

from gliomark.cohort.build import update_folds_of_source
from gliomark.cohort.export import export_cohort
from gliomark.cohort.folds import load_cohort_folds
from gliomark.cohort.private_files import assign_new_ids, create_private_folder
from gliomark.cohort.store import Cohort
from gliomark.errors import GliomarkError
from gliomark.io import DatasetSplits, find_patients, read_clinical_table, read_splits, read_study
from gliomark.study import MRSequence


@pytest.fixture(scope="module")
def cohort(prepared_cohort: Path) -> Cohort:
    return Cohort(prepared_cohort)


@pytest.fixture(scope="module")
def bids(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_cohort(cohort, "bids", tmp_path_factory.mktemp("bids") / "out")


@pytest.fixture(scope="module")
def nnunet(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_cohort(cohort, "nnunet", tmp_path_factory.mktemp("nnunet") / "raw")


@pytest.fixture(scope="module")
def pictures(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_cohort(cohort, "structured-pictures", tmp_path_factory.mktemp("pictures") / "out")


def read_json(path: Path) -> dict:
    return json.loads(path.read_text("utf-8"))


def test_bids_names_every_image_and_mask(bids: Path) -> None:
    found = {str(file.relative_to(bids)) for file in (bids / "sub-G0001").rglob("*")}
    stems = [
        "ce-gadolinium_space-individual_desc-preproc_T1w", "space-individual_desc-preproc_T2w",
        "space-individual_desc-brain_mask", "space-individual_desc-lesion_mask",
    ]  # fmt: skip
    expected = {f"sub-G0001/anat/sub-G0001_{stem}.{end}" for stem in stems for end in ("nii.gz", "json")}
    assert found == expected | {"sub-G0001/anat"}
    assert not list((bids / "sub-G0003").rglob("*gadolinium*"))
    description = read_json(bids / "dataset_description.json")
    assert (description["DatasetType"], description["BIDSVersion"]) == ("derivative", "1.10.0")


def test_the_validator_of_bids_finds_no_error(bids: Path) -> None:
    validator = find_program("bids-validator-deno", "pip install bids-validator-deno")
    ended = subprocess.run([validator, "--format", "json", bids], capture_output=True, text=True, timeout=300)
    issues = json.loads(ended.stdout)["issues"]["issues"]
    assert ended.returncode == 0 and not [one for one in issues if one["severity"] == "error"], issues


def test_bids_metadata_record_the_processing_and_refer_to_an_existing_file(bids: Path) -> None:
    metadata = read_json(next((bids / "sub-G0002").rglob("*T1w.json")))
    assert metadata["SkullStripped"] is True
    assert (bids / metadata["SpatialReference"].removeprefix("bids::")).is_file()
    assert read_json(next((bids / "sub-G0002").rglob("*lesion_mask.json")))["Type"] == "Lesion"


def test_bids_participants_are_described_and_ages_above_89_are_pooled(bids: Path) -> None:
    with (bids / "participants.tsv").open(encoding="utf-8", newline="") as file:
        rows = {row["participant_id"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert rows["sub-G0002"]["age"] == "34.5" and rows["sub-G0002"]["sex"] == "F"
    assert rows["sub-G0004"]["age"] == "n/a" and rows["sub-G0004"]["idh_mutant"] == "n/a"
    assert rows["sub-G0005"]["age"] == "89"
    assert set(read_json(bids / "participants.json")) == set(rows["sub-G0001"]) - {"participant_id"}


def test_bids_volumes_keep_values_and_position_in_nibabel_and_simpleitk(bids: Path, cohort: Cohort) -> None:
    stack = cohort.read_stack("G0002")
    path = bids / "sub-G0002/anat/sub-G0002_space-individual_desc-preproc_T2w.nii.gz"
    volume, read = nib.load(path), sitk.ReadImage(path)
    assert np.array_equal(volume.get_fdata(dtype=np.float32).transpose(2, 1, 0), stack.images[MRSequence.T2])
    assert np.array_equal(sitk.GetArrayFromImage(read), stack.images[MRSequence.T2])
    for index in ((0, 0, 0), (239, 0, 0), (0, 239, 0), (3, 100, 5)):  # column, row, slice
        position = (stack.affine @ [*index, 1])[:3]
        assert np.allclose(nib.affines.apply_affine(volume.affine, index) * [-1, -1, 1], position, atol=1e-3)
        assert np.allclose(read.TransformIndexToPhysicalPoint(index), position, atol=1e-3)


def test_bids_masks_equal_those_of_the_cohort(bids: Path, cohort: Cohort) -> None:
    stack = cohort.read_stack("G0005")
    for name, mask in (("lesion", stack.lesion), ("brain", stack.brain)):
        read = sitk.ReadImage(next((bids / "sub-G0005").rglob(f"*desc-{name}_mask.nii.gz")))
        assert np.array_equal(sitk.GetArrayFromImage(read), mask)


def test_bids_ids_drop_forbidden_characters_but_never_merge_two_patients(
    prepared_cohort: Path, tmp_path: Path
) -> None:
    other = copy_with_renamed_patients(
        prepared_cohort, tmp_path / "cohort", {"G0001": "TCGA-CS-1", "G0002": "TCGA-CS1"}
    )
    with pytest.raises(GliomarkError, match="TCGA-CS1 and TCGA-CS-1|TCGA-CS-1 and TCGA-CS1"):
        export_cohort(Cohort(other), "bids", tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.part").exists()
    (other / "patients/TCGA-CS1.json").unlink()
    assert (export_cohort(Cohort(other), "bids", tmp_path / "out") / "sub-TCGACS1").is_dir()


def test_nnunet_has_a_channel_per_sequence_and_only_complete_patients(nnunet: Path) -> None:
    assert nnunet.name == "Dataset501_cohort"
    names = {
        part: sorted(file.name for file in (nnunet / part).iterdir()) for part in ("imagesTr", "labelsTs")
    }
    trained = ["G0001", "G0002", "G0004"]  # G0003 has no T1C
    assert names["imagesTr"] == [
        f"{patient}_{channel}.nii.gz" for patient in trained for channel in ("0000", "0001")
    ]
    assert names["labelsTs"] == ["G0005.nii.gz", "G0006.nii.gz"]
    description = read_json(nnunet / "dataset.json")
    assert description["channel_names"] == {"0": "T1C", "1": "T2"}
    assert description["labels"] == {"background": 0, "lesion": 1}
    assert description["numTraining"] == len(trained) and description["file_ending"] == ".nii.gz"


def test_nnunet_folds_equal_those_of_the_cohort(nnunet: Path) -> None:
    splits = json.loads((nnunet / "splits_final.json").read_text("utf-8"))
    assert [split["val"] for split in splits] == [["G0001"], ["G0002"], [], ["G0004"], []]
    for split in splits:
        assert sorted(split["train"] + split["val"]) == ["G0001", "G0002", "G0004"]


def test_nnunet_accepts_the_data_set(nnunet: Path) -> None:
    try:
        from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
    except ImportError:
        pytest.skip("nnunetv2 is not installed: pip install nnunetv2")
    verify_dataset_integrity(str(nnunet), num_processes=1)


def test_nnunet_cases_are_read_back_with_the_same_id_and_mask(nnunet: Path, cohort: Cohort) -> None:
    cases = [case for part in ("imagesTr", "imagesTs") for case in find_patients(nnunet / part)]
    assert sorted(case.name for case in cases) == ["G0001", "G0002", "G0004", "G0005", "G0006"]
    for case in cases:
        study = read_study(case)
        assert study.patient_id == case.name and study.lesion is not None
        assert np.array_equal(study.lesion.image > 0, cohort.read_stack(case.name).lesion)


def test_the_split_of_an_nnunet_data_set_is_read(nnunet: Path, tmp_path: Path) -> None:
    splits = read_splits(nnunet)
    assert splits is not None and sorted(splits.test_cases) == ["G0005", "G0006"]
    assert splits.validation_parts == (("G0001",), ("G0002",), (), ("G0004",), ())
    assert read_splits(nnunet / "imagesTr") is None and read_splits(tmp_path) is None
    shutil.copytree(nnunet, tmp_path / "damaged")
    for text in ("{", '{"val": 3}', '[{"train": []}]'):
        (tmp_path / "damaged" / "splits_final.json").write_text(text)
        with pytest.raises(GliomarkError, match=r"splits_final\.json is not a readable description"):
            read_splits(tmp_path / "damaged")


def copy_without_folds(source: Path, to: Path, ids: Iterable[str]) -> tuple[Cohort, Path]:
    """Copy some patients of a cohort, as if they were built now; return the cohort and its private folder."""
    shutil.copytree(source, to)
    (to / "folds.json").unlink()
    for file in (to / "patients").iterdir():
        if file.stem not in ids:
            file.unlink()
    private_folder = create_private_folder(to)
    assign_new_ids(private_folder, {name: Path(name) for name in ids}, True)
    return Cohort(to), private_folder


def test_a_cohort_of_an_nnunet_data_set_has_its_folds(
    nnunet: Path, prepared_cohort: Path, tmp_path: Path
) -> None:
    ids = ["G0001", "G0002", "G0004", "G0005", "G0006"]
    cohort, private_folder = copy_without_folds(prepared_cohort, tmp_path / "cohort", ids)
    notes = update_folds_of_source(cohort, private_folder, read_splits(nnunet))
    assert notes == ["The folds are those of splits_final.json."]
    folds = load_cohort_folds(cohort)
    assert folds.development_folds == (("G0001",), ("G0002",), (), ("G0004",), ())
    assert folds.test == ("G0005", "G0006")


@pytest.mark.parametrize(
    ("ids", "parts", "reason"),
    [
        (["G0001", "G0003"], (("G0001",), (), (), (), ()), "patients of the cohort are in none of them"),
        (["G0001", "G0002"], (("G0001",), ("G0002",)), "has 2 folds"),
        (["G0001", "G0002"], (("G0001",), ("G0002", "G0001"), (), (), ()), "G0001 is in both"),
    ],
)
def test_folds_that_do_not_fit_are_not_used_with_a_note(
    ids: list[str], parts: tuple[tuple[str, ...], ...], reason: str, prepared_cohort: Path, tmp_path: Path
) -> None:
    cohort, private_folder = copy_without_folds(prepared_cohort, tmp_path / "cohort", ids)
    note, *_ = update_folds_of_source(cohort, private_folder, DatasetSplits(parts, ()))
    assert note.startswith("The folds of splits_final.json were not used") and reason in note
    assert not (cohort.folder / "folds.json").exists()  # two patients are too few for others


def test_nnunet_images_are_zero_outside_the_brain_only(nnunet: Path, cohort: Cohort) -> None:
    stack = cohort.read_stack("G0005")
    image = sitk.GetArrayFromImage(sitk.ReadImage(nnunet / "imagesTs/G0005_0000.nii.gz"))
    assert not image[~stack.brain].any()
    assert np.array_equal(image[stack.brain], stack.images[MRSequence.T1C][stack.brain])
    label = sitk.ReadImage(nnunet / "labelsTs/G0005.nii.gz")
    assert np.array_equal(sitk.GetArrayFromImage(label), stack.lesion)
    assert np.allclose(label.GetOrigin(), stack.affine[:3, 3], atol=1e-3)


def test_pictures_are_read_back_with_the_same_mask(pictures: Path, cohort: Cohort) -> None:
    assert [folder.name for folder in find_patients(pictures)] == list(cohort.patient_ids)
    for patient in cohort.patient_ids:
        stack = cohort.read_stack(patient)
        spacing = next(row for row in read_rows(pictures / "spacing.csv") if row["id"] == patient)
        steps = tuple(float(spacing[name]) for name in ("column_mm", "row_mm", "slice_mm"))
        study = read_study(pictures / patient, spacing_mm=steps)
        assert study.patient_id == patient and set(study.series) == set(stack.images)
        assert study.lesion is not None and np.array_equal(study.lesion.image > 0, stack.lesion)
        assert np.isclose(abs(np.linalg.det(study.lesion.affine)), abs(np.linalg.det(stack.affine)))


def test_grey_values_of_pictures_are_a_linear_scale(pictures: Path, cohort: Cohort) -> None:
    stack = cohort.read_stack("G0001")
    read = read_study(pictures / "G0001").series[MRSequence.T2].image
    assert not read[~stack.brain].any() and read[stack.brain].min() == 1 and read.max() == 255
    original = stack.images[MRSequence.T2][stack.brain]
    step = (original.max() - original.min()) / 254
    assert np.abs((read[stack.brain] - 1) * step + original.min() - original).max() <= step / 2 + 1e-4
    with Image.open(pictures / "G0001/T2/001.png") as picture:
        assert picture.mode == "L"


def test_the_table_of_pictures_equals_that_of_the_cohort(pictures: Path, cohort: Cohort) -> None:
    table = read_clinical_table(pictures / "clinical.csv")
    for patient in cohort.patient_ids:
        assert table.get_row(patient, require_age_sex=False) == cohort.get_clinical(patient)


def test_slices_with_unsorted_names_are_numbered(prepared_cohort: Path, tmp_path: Path) -> None:
    other = copy_with_renamed_patients(prepared_cohort, tmp_path / "cohort", {})
    path = other / "patients/G0006.json"
    record = read_json(path)
    names = record["slice_names"]
    record["slice_names"] = names[::-1]
    path.write_text(json.dumps(record), "utf-8")
    out = export_cohort(Cohort(other), "structured-pictures", tmp_path / "out")
    lesion = read_study(out / "G0006").lesion
    assert lesion is not None and np.array_equal(lesion.image > 0, Cohort(other).read_stack("G0006").lesion)


def test_a_patient_without_a_mask_is_exported_without_one(prepared_cohort: Path, tmp_path: Path) -> None:
    other = copy_with_renamed_patients(prepared_cohort, tmp_path / "cohort", {})
    for file in (other / "GMSBraTS").glob("*/G0001/*.h5"):
        with h5py.File(file, "a") as slices:
            del slices["mask"]
    update_slice_hashes(other)
    pictures = export_cohort(Cohort(other), "structured-pictures", tmp_path / "pictures")
    assert not (pictures / "G0001/mask").exists() and (pictures / "G0002/mask").is_dir()
    raw = export_cohort(Cohort(other), "nnunet", tmp_path / "raw")
    assert not list(raw.rglob("G0001*"))


def test_rejected_patients_are_not_exported(prepared_cohort: Path, tmp_path: Path) -> None:
    other = copy_with_renamed_patients(prepared_cohort, tmp_path / "cohort", {})
    (other / "qc.csv").write_text("id,decision,comment\nG0002,reject,moved\n", "utf-8")
    out = export_cohort(Cohort(other), "bids", tmp_path / "out")
    assert not (out / "sub-G0002").exists() and (out / "sub-G0001").is_dir()
    assert "G0002" not in (out / "participants.tsv").read_text("utf-8")


@pytest.mark.parametrize("layout", ["bids", "nnunet", "structured-pictures"])
def test_a_folder_that_is_not_empty_is_refused_and_kept(layout: str, cohort: Cohort, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(GliomarkError, match="not empty"):
        export_cohort(cohort, layout, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_no_partial_export_is_left(prepared_cohort: Path, tmp_path: Path) -> None:
    other = copy_with_renamed_patients(prepared_cohort, tmp_path / "cohort", {})
    (other / "GMSBraTS/T2/G0006/003.h5").unlink()
    with pytest.raises(GliomarkError, match="003.h5 is missing"):
        export_cohort(Cohort(other), "bids", tmp_path / "out")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["cohort"]


def test_an_unknown_layout_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(GliomarkError, match="bids, nnunet, structured-pictures"):
        export_cohort(cohort, "dicom", tmp_path / "out")  # type: ignore[arg-type]


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def copy_with_renamed_patients(source: Path, to: Path, names: dict[str, str]) -> Path:
    """Copy a cohort, with other ids for some patients."""
    shutil.copytree(source, to)
    for old, new in names.items():
        for path in [*to.glob(f"GMS*/*/{old}"), to / "patients" / f"{old}.json"]:
            path.rename(path.with_name(path.name.replace(old, new)))
        for table in (to / "MetaMS.csv", to / "folds.json"):
            table.write_text(table.read_text("utf-8").replace(old, new), "utf-8")
    return to
