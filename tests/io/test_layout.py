"""Folder layouts: BIDS data sets with sessions, and the numbered channels of nnU-Net and MSD."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gliomark.errors import GliomarkError
from gliomark.io import find_patients, list_patient_files, read_clinical_table, read_study
from gliomark.io.examination_choice import ExaminationCandidate, choose_examination
from gliomark.study import MRSequence

T1, T1C, T2, FLAIR = MRSequence


def write_volume(file: Path, value: int = 1) -> Path:
    """Write a volume with maximum ``value``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    data = np.zeros((5, 6, 4), np.int16)
    data[1:4, 1:5, 1:3] = value
    nib.save(nib.Nifti1Image(data, np.diag([2.0, 2, 3, 1])), file)
    return file


def read_maxima(path: Path, **options) -> dict[str, float]:
    """Return the maximum value of each sequence that was read."""
    return {str(name): float(one.image.max()) for name, one in read_study(path, **options).series.items()}


def get_error_message(path: Path) -> str:
    with pytest.raises(GliomarkError) as caught:
        read_study(path)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


# ---- BIDS -------------------------------------------------------------------------------------------


def write_subject(root: Path, name: str, value: int, session: str = "") -> Path:
    """Write a subject (or one of its sessions) with T1w, contrast-enhanced T1w and FLAIR."""
    folder = root / name / session / "anat"
    stem = f"{name}_{session}_" if session else f"{name}_"
    for at, suffix in enumerate(("T1w", "ce-gd_T1w", "space-T1w_FLAIR")):
        write_volume(folder / f"{stem}{suffix}.nii.gz", value + at)
    return root / name


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    root = tmp_path / "bids"
    write_subject(root, "sub-01", 10)
    write_subject(root, "sub-02", 20)
    (root / "dataset_description.json").write_text("{}")
    (root / "participants.tsv").write_text("participant_id\tage\n")
    write_volume(root / "derivatives" / "fmriprep" / "sub-01" / "anat" / "sub-01_desc-preproc_T1w.nii.gz", 99)
    return root


def test_subjects_are_found_in_the_root_of_a_data_set(bids: Path):
    assert find_patients(bids) == [bids / "sub-01", bids / "sub-02"]
    assert [read_study(folder).patient_id for folder in find_patients(bids)] == ["sub-01", "sub-02"]
    assert read_maxima(bids / "sub-02") == {"T1": 20, "T1C": 21, "FLAIR": 22}


@pytest.mark.parametrize("inner", ["", "anat"])
def test_any_folder_of_a_subject_may_be_given(bids: Path, inner: str):
    (patient,) = find_patients(bids / "sub-01" / inner)
    assert read_study(patient).patient_id == "sub-01"
    assert read_study(bids / "sub-01" / inner).patient_id == "sub-01"
    assert read_maxima(bids / "sub-01" / inner) == {"T1": 10, "T1C": 11, "FLAIR": 12}


@pytest.mark.parametrize("written", ["sub-01", "01"])
def test_a_table_may_name_the_subject_with_or_without_its_prefix(bids: Path, written: str):
    table = bids / "clinical.csv"
    table.write_text(f"id,age,sex\n{written},50,F\n02,60,M\n")
    row = read_clinical_table(table).get_row(read_study(bids / "sub-01").patient_id)
    assert (row.patient_id, row.age, row.sex) == ("sub-01", 50, 1)


def test_derivatives_are_read_if_there_are_no_raw_images(bids: Path):
    derived = bids / "derivatives" / "fmriprep"
    assert find_patients(derived) == [derived / "sub-01"]
    for name in ("sub-01", "sub-02"):
        for file in (bids / name / "anat").iterdir():
            file.unlink()
    assert find_patients(bids) == [derived / "sub-01"]
    write_volume(bids / "derivatives" / "other" / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    with pytest.raises(GliomarkError, match="several derivatives folders .fmriprep, other"):
        find_patients(bids)


def test_a_lesion_mask_beside_the_images_is_read(bids: Path):
    write_volume(bids / "sub-01" / "anat" / "sub-01_space-T1w_label-lesion_mask.nii.gz", 1)
    write_volume(bids / "sub-01" / "anat" / "sub-01_desc-brain_mask.nii.gz", 1)
    lesion = read_study(bids / "sub-01").lesion
    assert lesion is not None and "label-lesion" in lesion.source.name


@pytest.mark.parametrize(
    "first, later",
    [
        ("ses-1", "ses-2"),
        ("ses-02", "ses-10"),
        ("ses-preop", "ses-postop"),
        ("ses-20200101", "ses-20210101"),
        ("ses-baseline", "ses-followup"),
        ("ses-tp1", "ses-post"),
    ],
)
def test_the_earliest_complete_preoperative_session_is_read(tmp_path: Path, first: str, later: str):
    folder = write_subject(tmp_path, "sub-01", 30, later)
    write_subject(tmp_path, "sub-01", 20, first)
    assert find_patients(tmp_path) == [folder]
    study = read_study(folder)
    assert study.series[T1C].image.max() == 21 and study.patient_id == "sub-01"
    assert study.examination is not None and (study.examination.number, study.examination.count) == (1, 2)
    assert any("2 examinations" in note for note in study.notes)
    for picked in (folder / later, folder / later / "anat"):
        assert find_patients(picked) == [folder / later]
        assert read_maxima(picked)["T1C"] == 31 and read_study(picked).patient_id == "sub-01"


@pytest.mark.parametrize(
    "table, text",
    [
        (
            "sub-01_sessions.tsv",
            "session_id\tacq_time\nses-b\t2020-01-02T10:00:00\nses-a\t2021-01-02T10:00:00\n",
        ),
        ("ses-b/sub-01_ses-b_scans.tsv", "filename\tacq_time\nanat/x.nii.gz\t2020-01-02T10:00:00\n"),
    ],
)
def test_dates_of_sessions_are_read_from_their_tables(tmp_path: Path, table: str, text: str):
    folder = write_subject(tmp_path, "sub-01", 10, "ses-a")
    write_subject(tmp_path, "sub-01", 20, "ses-b")
    (folder / table).write_text(text)
    study = read_study(folder)
    assert study.series[T1C].image.max() == 21
    assert study.examination is not None and study.examination.date == "20200102"
    assert any("2020-01-02" in note for note in study.notes)


def test_sessions_are_not_mixed(tmp_path: Path):
    write_volume(tmp_path / "sub-01" / "ses-1" / "anat" / "sub-01_ses-1_ce-gd_T1w.nii.gz")
    write_volume(tmp_path / "sub-01" / "ses-2" / "anat" / "sub-01_ses-2_FLAIR.nii.gz")
    assert "ses-1: T1C; ses-2: FLAIR" in get_error_message(tmp_path / "sub-01")


def test_repeated_runs_of_a_sequence_are_refused_with_both_file_names(bids: Path):
    write_volume(bids / "sub-01" / "anat" / "sub-01_run-2_FLAIR.nii.gz")
    assert "sub-01_run-2_FLAIR.nii.gz and sub-01_space-T1w_FLAIR.nii.gz" in get_error_message(bids / "sub-01")


@pytest.mark.parametrize("name", ["anat", "ses-1", "ses-1/anat"])
def test_an_inner_folder_without_its_subject_folder_takes_the_id_from_its_files(tmp_path: Path, name: str):
    """As in an upload, or in a copy of one folder."""
    folder = tmp_path / "in" / name
    write_volume(folder / ("" if "anat" in name else "anat") / "sub-07_ses-1_T1ce.nii.gz")
    (patient,) = find_patients(tmp_path / "in" / name.split("/")[0])
    assert read_study(patient).patient_id == "sub-07"


# ---- nnU-Net and MSD --------------------------------------------------------------------------------

CHANNELS = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}


def write_cases(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names, start=1):
        for channel in CHANNELS:
            write_volume(folder / f"{name}_{int(channel):04d}.nii.gz", 10 * number + int(channel))
    return folder


def write_description(folder: Path, **more) -> None:
    (folder / "dataset.json").write_text(json.dumps({"channel_names": CHANNELS, **more}))


@pytest.mark.parametrize(
    "key, channels",
    [
        ("channel_names", CHANNELS),
        ("modality", CHANNELS),
        ("modality", list(CHANNELS.values())),
    ],
)
@pytest.mark.parametrize("above", [False, True])
def test_channels_are_named_by_the_description(tmp_path: Path, key: str, channels: object, above: bool):
    folder = write_cases(tmp_path / "P7", "case")
    (tmp_path / ("" if above else "P7") / "dataset.json").write_text(json.dumps({key: channels}))
    assert find_patients(folder) == [folder]
    assert read_maxima(folder) == {"FLAIR": 10, "T1": 11, "T1C": 12, "T2": 13}
    assert read_study(folder).patient_id == "P7"


@pytest.mark.parametrize("picked", ["", "imagesTr"])
def test_each_case_of_a_data_set_is_a_patient(tmp_path: Path, picked: str):
    folder = write_cases(tmp_path / "imagesTr", "BRATS_001", "BRATS_002")
    write_description(tmp_path)
    patients = find_patients(tmp_path / picked)
    assert patients == [folder / "BRATS_001", folder / "BRATS_002"]
    assert [read_study(one).patient_id for one in patients] == ["BRATS_001", "BRATS_002"]
    assert read_maxima(patients[1]) == {"FLAIR": 20, "T1": 21, "T1C": 22, "T2": 23}
    assert find_patients(patients[1]) == [patients[1]]
    assert len(list_patient_files(patients[1])) == 5  # four channels and dataset.json


@pytest.mark.parametrize(
    "labels, kept",
    [
        ({"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 3}, {2, 3}),
        ({"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}, {2, 3}),
        ({"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing": [3]}, {2, 3}),
        ({"background": 0, "NCR": 1, "ED": 2, "ET": 3}, {1, 3}),
        ({"background": 0, "lesion": 1}, {1}),
    ],
)
def test_lesion_labels_are_named_by_the_description(tmp_path: Path, labels: dict, kept: set[int]):
    folder = write_cases(tmp_path / "imagesTr", "A1", "A2")
    write_description(tmp_path, labels=labels)
    data = np.zeros((5, 6, 4), np.uint8)
    data[1:5] = np.arange(4)[:, None, None]
    (tmp_path / "labelsTr").mkdir()
    nib.save(nib.Nifti1Image(data, np.diag([2.0, 2, 3, 1])), tmp_path / "labelsTr" / "A1.nii.gz")
    lesion = read_study(folder / "A1").lesion
    assert lesion is not None
    np.testing.assert_array_equal(lesion.image, np.isin(data, list(kept)).transpose(2, 1, 0))
    assert read_study(folder / "A2").lesion is None


def test_channels_without_a_description_are_refused(tmp_path: Path):
    folder = write_cases(tmp_path / "imagesTr", "BRATS_001")
    assert find_patients(folder) == [folder]
    assert "dataset.json" in get_error_message(folder) and "BRATS_001_0000" in get_error_message(folder)


@pytest.mark.parametrize(
    "text, expected_text",
    [
        ("{", "not a readable description"),
        ('{"channel_names": {"0": "FLAIR"}}', "has no name for channel 0001"),
        ('{"channel_names": ["T2", "T2", "DWI", "T1"]}', "assigns T2 to two channels"),
        ('{"channel_names": ["MRI", "CT", "DWI", "PET"]}', "None of the channels"),
    ],
)
def test_an_unusable_description_is_refused(tmp_path: Path, text: str, expected_text: str):
    folder = write_cases(tmp_path / "P7", "case")
    (folder / "dataset.json").write_text(text)
    assert expected_text in get_error_message(folder) and "dataset.json" in get_error_message(folder)


def test_a_folder_of_several_cases_is_not_one_patient(tmp_path: Path):
    folder = write_cases(tmp_path / "imagesTr", "A", "B")
    write_description(tmp_path)
    assert "2 patients" in get_error_message(folder)


# ---- choice of examination --------------------------------------------------------------------------


def create_candidate(
    date: str, *sequences: MRSequence, after: bool = False, moment: str = ""
) -> ExaminationCandidate:
    return ExaminationCandidate(
        f"study of {date or 'no date'} {moment}", date, moment, frozenset(sequences), after
    )


COMPLETE = (T1C, T2, FLAIR)


@pytest.mark.parametrize(
    "candidates, needed, number",
    [
        (
            [create_candidate("20210101", *COMPLETE), create_candidate("20200101", *COMPLETE)],
            (),
            1,
        ),  # the earliest
        (
            [create_candidate("20200101", T2), create_candidate("20210101", *COMPLETE)],
            (),
            2,
        ),  # the earliest complete one
        (
            [create_candidate("20200101", T1C, T2), create_candidate("20210101", T1C, FLAIR)],
            (T1C, FLAIR),
            2,
        ),  # complete for this model
        ([create_candidate("20200101", T1C, T2), create_candidate("20210101", T1C, FLAIR)], (T1C, T2), 1),
        (
            [create_candidate("20200101", *COMPLETE, after=True), create_candidate("20190101", *COMPLETE)],
            (),
            1,
        ),
        (
            [create_candidate("20200101", *COMPLETE, after=True), create_candidate("", *COMPLETE)],
            (),
            2,
        ),  # undated, not marked postoperative
        (
            [
                create_candidate("20200101", T1C, T2, after=True),
                create_candidate("20210101", T1C, T2),
                create_candidate("20190101", T2),
            ],
            (),
            1,
        ),  # later: postop.
        (
            [create_candidate("20200101", *COMPLETE, after=True), create_candidate("20210101", *COMPLETE)],
            (),
            1,
        ),  # none is preoperative: a note states it
        (
            [create_candidate("", *COMPLETE), create_candidate("20200101", *COMPLETE)],
            (),
            1,
        ),  # dated before undated
        (
            [
                create_candidate("20200101", *COMPLETE, moment="11"),
                create_candidate("20200101", *COMPLETE, moment="10"),
            ],
            (),
            1,
        ),
        (
            [create_candidate("20200101", T1), create_candidate("20210101", T1, T2)],
            (),
            2,
        ),  # none complete: the one with most required sequences
    ],
)
def test_the_examination_is_chosen_by_the_stated_rule(
    candidates: list[ExaminationCandidate], needed: tuple[MRSequence, ...], number: int
):
    for order in (candidates, candidates[::-1]):
        chosen, examination, notes = choose_examination("P", order, needed)
        assert (examination.number, examination.count) == (number, len(candidates))
        assert examination.date == chosen.date and any(
            f"{len(candidates)} examinations" in one for one in notes
        )
        assert any("intraoperative or postoperative" in one for one in notes) is chosen.is_postoperative


@pytest.mark.parametrize(
    "candidates, expected_text",
    [
        (
            [create_candidate("20200101", T1C), create_candidate("20210101", FLAIR)],
            "2020-01-01: T1C; 2021-01-01: FLAIR",
        ),
        (
            [create_candidate("", *COMPLETE), ExaminationCandidate("other", "", "", frozenset(COMPLETE))],
            "2 complete examinations and their order",
        ),
        (
            [create_candidate("20200101", *COMPLETE), create_candidate("20200101", *COMPLETE)],
            "their order is unknown",
        ),
        (
            [
                create_candidate("20190101", T2),
                create_candidate("20200101", T1C),
                create_candidate("20210101", *COMPLETE, after=True),
            ],
            "are not combined",
        ),
    ],
)
def test_ambiguous_examinations_are_refused(candidates: list[ExaminationCandidate], expected_text: str):
    with pytest.raises(GliomarkError, match=expected_text):
        choose_examination("P", candidates)
