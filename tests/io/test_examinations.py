"""Several DICOM examinations in one folder, copies under new UIDs, damaged files, and files of other patients."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import RLELossless, generate_uid
from tests.io.test_dicom import T1C, T2, get_error_message, write_series

from gliomark.io import find_patients, read_study
from gliomark.io.dicom import find_dicom_files
from gliomark.study import MRSequence

FLAIR = {"SeriesDescription": "flair", "RepetitionTime": 9000, "EchoTime": 120, "InversionTime": 2500}


def write_examination(
    folder: Path, level: int, *sequences: dict[str, Any], study: str = "", **tags: Any
) -> Path:
    """Write an examination with background ``level``, so that tests can identify it."""
    study = study or generate_uid()
    for at, sequence in enumerate(sequences):
        files = write_series(folder / str(at), **(sequence | {"StudyInstanceUID": study} | tags))
        change_files(files, lambda ds: paint(ds, level))
    return folder


def paint(dataset: pydicom.Dataset, level: int) -> None:
    pixels = dataset.pixel_array.copy()
    pixels[0, 0] = level
    dataset.PixelData = pixels.tobytes()


def change_files(files: list[Path], change: Callable[[pydicom.Dataset], Any]) -> None:
    for file in files:
        dataset = pydicom.dcmread(file)
        change(dataset)
        dataset.save_as(file)


def read_levels(path: Path, **options: Any) -> dict[str, float]:
    return {str(name): float(one.image[0, 0, 0]) for name, one in read_study(path, **options).series.items()}


# ---- several examinations ---------------------------------------------------------------------------

BEFORE, AFTER = {"StudyDate": "20200102"}, {"StudyDate": "20210304"}


@pytest.mark.parametrize("one, other, date, number", [
    (BEFORE, AFTER, "2020-01-02", 1),
    (AFTER, BEFORE, "2020-01-02", 1),
    (BEFORE, {"StudyDate": "20190101", "StudyDescription": "MR brain post-op"}, "2019-01-01", 1),
    (AFTER | {"StudyDescription": "头颅MR 术后"}, BEFORE, "2020-01-02", 1),
    (BEFORE | {"StudyTime": "120000", "AcquisitionTime": "120000"},
     BEFORE | {"StudyTime": "090000", "AcquisitionTime": "090000", "StudyDescription": "intraoperative"},
     "2020-01-02", 1),
    ({}, AFTER, "2021-03-04", 1),  # one undated
    ({"AcquisitionDateTime": "20180101120000"}, AFTER, "2018-01-01", 1),  # dated by its acquisition
])  # fmt: skip
def test_one_examination_is_read_and_named_in_a_note(
    tmp_path: Path, one: dict[str, str], other: dict[str, str], date: str, number: int
):
    write_examination(tmp_path / "a", 10, T1C, T2, **one)
    write_examination(tmp_path / "b", 20, T1C, T2, **other)
    study = read_study(tmp_path)
    assert study.examination is not None
    assert (study.examination.number, study.examination.count) == (number, 2)
    assert study.examination.date == date.replace("-", "")
    (note,) = (note for note in study.notes if "examinations" in note)
    assert f"Number {number} in chronological order ({date})" in note
    assert len(set(read_levels(tmp_path).values())) == 1, "sequences of two examinations were mixed"


@pytest.mark.parametrize("first, second, needed, level", [
    ((T2,), (T1C, T2), (), 20),
    ((T1C, T2), (T1C, FLAIR), ("T1C", "FLAIR"), 20),
    ((T1C, T2), (T1C, FLAIR), ("T1C", "T2"), 10),
    ((T1C, T2, FLAIR), (T1C, T2, FLAIR), ("T1C", "FLAIR"), 10),
])  # fmt: skip
def test_the_earliest_examination_with_the_required_sequences_is_read(
    tmp_path: Path, first: tuple[dict], second: tuple[dict], needed: tuple[str, ...], level: int
):
    write_examination(tmp_path / "a", 10, *first, **BEFORE)
    write_examination(tmp_path / "b", 20, *second, **AFTER)
    wanted = [MRSequence(name) for name in needed]
    assert set(read_levels(tmp_path, required_sequences=wanted).values()) == {level}


def test_studies_of_one_day_that_complete_each_other_are_one_examination(tmp_path: Path):
    write_examination(tmp_path / "a", 10, T1C, **BEFORE)
    write_examination(tmp_path / "b", 10, T2, **BEFORE)
    study = read_study(tmp_path)
    assert list(study.series) == ["T1C", "T2"]
    assert study.examination is not None and study.examination.count == 1


def test_one_study_uid_with_two_dates_is_two_examinations(tmp_path: Path):
    write_examination(tmp_path / "a", 10, T1C, T2, study="1.2", **AFTER)
    write_examination(tmp_path / "b", 20, T1C, T2, study="1.2", **BEFORE)
    assert set(read_levels(tmp_path).values()) == {20}


def test_an_examination_of_another_body_part_does_not_count(tmp_path: Path):
    write_examination(tmp_path / "a", 10, T1C, T2, **AFTER)
    write_examination(tmp_path / "b", 20, T2, **BEFORE, BodyPartExamined="LSPINE")
    study = read_study(tmp_path)
    assert study.examination is not None and study.examination.count == 1
    assert not any("examinations" in note for note in study.notes)


def test_a_single_postoperative_examination_is_read_with_a_warning(tmp_path: Path):
    write_examination(tmp_path / "a", 10, T1C, T2, **BEFORE, StudyDescription="post-op control")
    assert any("intraoperative or postoperative" in note for note in read_study(tmp_path).notes)


@pytest.mark.parametrize("one, other", [({}, {}), (BEFORE, AFTER)])
def test_sequences_of_two_examinations_are_refused(tmp_path: Path, one: dict, other: dict):
    write_examination(tmp_path / "a", 10, T1C, **one)
    write_examination(tmp_path / "b", 20, FLAIR, **other)
    assert "are not combined" in get_error_message(tmp_path)


def test_two_complete_examinations_without_a_date_are_refused(tmp_path: Path):
    write_examination(tmp_path / "a", 10, T1C, T2)
    write_examination(tmp_path / "b", 20, T1C, T2)
    assert "2 complete examinations and their order is unknown" in get_error_message(tmp_path)


# ---- copies under new UIDs --------------------------------------------------------------------------


def renumber(folder: Path, *keywords: str, **tags: Any) -> None:
    """Give each file of a copy a new SOP Instance UID, and the copy one new UID for each further keyword."""
    new = {keyword: generate_uid() for keyword in keywords}
    for file in find_dicom_files(folder):
        dataset = pydicom.dcmread(file)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        for keyword, value in {**new, **tags}.items():
            setattr(dataset, keyword, value)
        dataset.save_as(file)


@pytest.mark.parametrize("keywords", [
    (), ("SeriesInstanceUID",), ("SeriesInstanceUID", "StudyInstanceUID"), ("StudyInstanceUID",),
])  # fmt: skip
@pytest.mark.parametrize("packed", [False, True])
def test_a_copied_series_counts_once(tmp_path: Path, keywords: tuple[str, ...], packed: bool):
    write_examination(tmp_path / "a", 10, T1C, T2, **BEFORE)
    plain = {str(name): one.image for name, one in read_study(tmp_path).series.items()}
    shutil.copytree(tmp_path / "a" / "0", tmp_path / "copy")
    renumber(tmp_path / "copy", *keywords)
    if packed:
        change_files(
            list(find_dicom_files(tmp_path / "copy")),
            lambda ds: ds.compress(RLELossless, generate_instance_uid=False),
        )
    study = read_study(tmp_path)
    assert {str(name) for name in study.series} == set(plain)
    for name, one in study.series.items():
        np.testing.assert_array_equal(one.image, plain[str(name)])
    assert any("copies" in note or "duplicate" in note for note in study.notes)
    assert study.examination is not None and study.examination.count == 1


@pytest.mark.parametrize("count", [1, 2, 5])
def test_copied_single_slices_count_once(tmp_path: Path, count: int):
    write_examination(tmp_path / "a", 10, T1C, T2, **BEFORE)
    (tmp_path / "copy").mkdir()
    for file in sorted((tmp_path / "a" / "0").iterdir())[:count]:
        shutil.copy(file, tmp_path / "copy" / file.name)
    renumber(tmp_path / "copy", InstanceNumber=500, AcquisitionNumber=7)
    study = read_study(tmp_path)
    assert study.series[MRSequence.T1C].image.shape == (6, 12, 10)
    assert f"T1C: {count} duplicate images were ignored." in study.notes


def test_a_copied_examination_counts_once(tmp_path: Path):
    write_examination(tmp_path / "a", 10, T1C, T2, **BEFORE)
    for at in "01":
        shutil.copytree(tmp_path / "a" / at, tmp_path / "b" / at)
        renumber(tmp_path / "b" / at, "SeriesInstanceUID", StudyInstanceUID="1.2.77")
    study = read_study(tmp_path)
    assert list(study.series) == ["T1C", "T2"]
    assert study.examination is not None and study.examination.count == 1


@pytest.mark.parametrize("jitter", [1e-6, 1e-5, 4e-4])
def test_a_series_with_jitter_in_its_orientation_stays_one_series(tmp_path: Path, jitter: float):
    write_examination(tmp_path / "a", 10, T1C, T2, **BEFORE)
    plain = read_study(tmp_path).series[MRSequence.T1C]
    for number, file in enumerate(sorted((tmp_path / "a" / "0").iterdir())):
        dataset = pydicom.dcmread(file)
        turned = np.asarray(dataset.ImageOrientationPatient, float) + jitter * (-1) ** number * np.array(
            [0, 1, 1, 1, 0, 0]
        )
        dataset.ImageOrientationPatient = [float(f"{value:.8f}") for value in turned]
        dataset.save_as(file)
    found = read_study(tmp_path).series[MRSequence.T1C]
    np.testing.assert_array_equal(found.image, plain.image)
    np.testing.assert_allclose(found.affine, plain.affine, atol=2e-2)


# ---- damaged files ----------------------------------------------------------------------------------

EMPTY = b"\0" * 128 + b"DICM" + b"\2\0\0\0UL\4\0\0\0\0\0"


@pytest.mark.parametrize("subfolder", [".", "0", "other"])
@pytest.mark.parametrize("content", [EMPTY, EMPTY[:132], b"\x08\x00" + b"\xff" * 400])
def test_an_unreadable_file_beside_complete_series_is_skipped(tmp_path: Path, subfolder: str, content: bytes):
    folder = write_examination(tmp_path / "a", 10, T1C, T2, **BEFORE)
    for at in "01":
        change_files(
            list(find_dicom_files(folder / at)),
            lambda ds: setattr(ds, "InstanceNumber", 100 - ds.InstanceNumber),
        )
    (folder / subfolder).mkdir(exist_ok=True)
    (folder / subfolder / "PR.dcm").write_bytes(content)
    study = read_study(folder)
    assert list(study.series) == ["T1C", "T2"]
    assert any("could not be read" in note and "PR.dcm" in note for note in study.notes)


@pytest.mark.parametrize("number", [0, 1, 3, 5])
@pytest.mark.parametrize("kept", [140, 400])
def test_a_damaged_slice_of_a_used_series_is_refused(tmp_path: Path, number: int, kept: int):
    folder = write_examination(tmp_path / "a", 10, T1C, T2, **BEFORE)
    file = folder / "0" / f"IM{99 - number}"
    file.write_bytes(file.read_bytes()[:kept])
    message = get_error_message(folder)
    assert f"IM{99 - number} is damaged" in message


def test_an_unreadable_series_is_named(tmp_path: Path):
    folder = write_examination(tmp_path / "a", 10, T1C, T2, **BEFORE)
    for file in (folder / "0").iterdir():
        file.write_bytes(file.read_bytes()[:140])
    assert "is damaged" in get_error_message(folder) and "IM9" in get_error_message(folder)


@pytest.mark.parametrize("cut", [40, 100, 239])
def test_a_truncated_slice_is_refused_only_in_a_used_series(tmp_path: Path, cut: int):
    folder = write_examination(tmp_path / "a", 10, T1C, T2, **BEFORE)
    unused = write_series(
        folder / "2", SeriesDescription="dwi", RepetitionTime=5000, EchoTime=90, DiffusionBValue=1000.0
    )
    unused[2].write_bytes(unused[2].read_bytes()[:-cut])
    assert list(read_study(folder).series) == ["T1C", "T2"]
    used = folder / "0" / "IM97"
    used.write_bytes(used.read_bytes()[:-cut])
    assert "IM97" in get_error_message(folder)


# ---- files of other patients ------------------------------------------------------------------------


@pytest.mark.parametrize("one, other", [
    ("PAT1", "pat1"), ("PAT1", "PAT1 "), ("P^1", "P 1"), ("PAT1", "PAT1^^"), ("PAT1", ""),
])  # fmt: skip
def test_ids_spelled_differently_belong_to_one_patient(tmp_path: Path, one: str, other: str):
    study = generate_uid()
    write_examination(tmp_path / "p" / "a", 10, T1C, study=study, PatientID=one)
    write_examination(tmp_path / "p" / "b", 10, T2, study=study, PatientID=other)
    assert find_patients(tmp_path / "p") == [tmp_path / "p"] or other == ""
    assert list(read_study(tmp_path / "p").series) == ["T1C", "T2"]


@pytest.mark.parametrize("tags", [
    {"PatientID": "P-8"}, {"PatientBirthDate": "19500101"}, {"PatientName": "Roe^Ann"},
    {"PatientID": "P-8", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33", "Modality": "SR"},
    {"PatientID": "P-8", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4", "Modality": "SEG"},
])  # fmt: skip
def test_an_object_of_another_patient_is_refused_with_both_file_names(tmp_path: Path, tags: dict[str, str]):
    write_examination(tmp_path / "p" / "a", 10, T1C, T2, PatientBirthDate="19400101")
    write_series(tmp_path / "p" / "b", (0,), **(T2 | {"PatientBirthDate": "19400101"} | tags))
    message = get_error_message(tmp_path / "p")
    assert "two patients" in message and "a/0/IM" in message and "b/IM99" in message and "Roe" not in message
