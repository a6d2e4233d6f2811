"""Tests of scanning folders: grouping by patient, selection of series, edited tables and quarantine."""

from __future__ import annotations

import csv
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, SegmentationStorage, generate_uid

from gliomark.cluster import create_dask_client
from gliomark.cohort.private_files import create_private_folder, read_private_csv
from gliomark.cohort.scan import SERIES_COLUMNS, ScanResult, scan_folder
from gliomark.errors import GliomarkError
from gliomark.io import read_study
from gliomark.io.dicom import read_series
from gliomark.messages import render_message
from gliomark.study import MRSequence

T1 = {"SeriesDescription": "t1 se", "RepetitionTime": 500, "EchoTime": 10, "ScanningSequence": "SE"}
T1C = {**T1, "SeriesDescription": "t1 se +C", "ContrastBolusAgent": "Gadovist"}
T2 = {"SeriesDescription": "t2 tse", "RepetitionTime": 4500, "EchoTime": 95, "ScanningSequence": "SE"}
DWI = {"SeriesDescription": "ep2d_diff", "RepetitionTime": 4500, "EchoTime": 95, "ScanningSequence": "EP"}
SLICES = 12


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with create_dask_client(0, None) as one:
        yield one


def write_series(folder: Path, patient: str, tags: dict[str, Any], study: str = "1.2.3", **more: Any) -> str:
    """Write axial slices with 5 mm spacing; return the SeriesInstanceUID."""
    folder.mkdir(parents=True, exist_ok=True)
    uid = generate_uid()
    for number in range(SLICES):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        file.SpecificCharacterSet = "GB18030"
        file.SOPClassUID, file.SOPInstanceUID, file.Modality = MRImageStorage, generate_uid(), "MR"
        file.PatientID, file.PatientName, file.PatientBirthDate = patient, f"Name^{patient}", "19700101"
        file.StudyInstanceUID, file.StudyDate, file.SeriesInstanceUID = study, "20200101", uid
        file.ImageType, file.BodyPartExamined = ["ORIGINAL", "PRIMARY", "M"], "HEAD"
        file.Rows = file.Columns = 16
        file.PixelSpacing, file.SliceThickness = [12.0, 12.0], 5
        file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        file.ImagePositionPatient = [-90, -90, 5.0 * number]
        file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
        file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 0
        file.PixelData = np.full((16, 16), number + 1, np.uint16).tobytes()
        for tag, value in {**tags, **more}.items():
            setattr(file, tag, value)
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = file.SOPClassUID, file.SOPInstanceUID
        file.save_as(folder / f"{uid[-6:]}{number:03d}", enforce_file_format=True)
    return uid


def run_scan(root: Path, client: Client, tmp_path: Path, edited: Path | None = None) -> ScanResult:
    return scan_folder(root, create_private_folder(tmp_path / "cohort"), client, edited)


def edit_table(private: Path, out: Path, **changes: dict[str, str]) -> Path:
    """Write series.csv with changed cells. changes: value by column, by series UID."""
    rows = read_private_csv(private / "series.csv", SERIES_COLUMNS)
    for row in rows:
        row.update(changes.get(row["series"], {}))
    with out.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, SERIES_COLUMNS)
        table.writeheader()
        table.writerows(rows)
    return out


def test_files_of_several_patients_in_one_folder_are_separated(tmp_path: Path, client: Client) -> None:
    export = tmp_path / "export"
    expected = {
        (patient, name): write_series(export, patient, tags)
        for patient in ("007", "王-8")
        for name, tags in (("T1C", T1C), ("T2", T2))
    }
    write_series(export / "deep" / "er", "007", DWI)
    found = run_scan(export, client, tmp_path)
    used = {
        (p.patient_id, str(name)): one.instances[0].series_instance_uid
        for p in found.patients
        for name, one in p.series_by_sequence.items()
    }
    assert used == expected and not found.quarantined
    rows = read_private_csv(tmp_path / "cohort.private" / "series.csv", SERIES_COLUMNS)
    assert sorted(row["use"] for row in rows) == ["", "T1C", "T1C", "T2", "T2"]
    assert all(row["reason"] for row in rows)


def test_a_zip_is_unpacked_and_a_broken_one_is_reported(tmp_path: Path, client: Client) -> None:
    series = tmp_path / "series"
    write_series(series, "A", T1C)
    write_series(series, "A", T2)
    root = tmp_path / "export"
    root.mkdir()
    with zipfile.ZipFile(root / "A.zip", "w") as archive:
        for file in series.iterdir():
            archive.write(file, f"DICOM/{file.name}")
    (root / "broken.ZIP").write_bytes(b"PK\x03\x04 cut short")
    found = run_scan(root, client, tmp_path)
    assert [set(p.series_by_sequence) for p in found.patients] == [{MRSequence.T1C, MRSequence.T2}]
    assert [Path(one.where).name for one in found.quarantined] == ["broken.ZIP"]
    assert "cannot be unpacked" in found.quarantined[0].reason


def write_zip(files: dict[str, bytes], archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as zip_file:
        for name, content in files.items():
            zip_file.writestr(zipfile.ZipInfo(name, (2024, 1, 2, 3, 4, 6)), content)


@pytest.mark.parametrize("replacement", ["written over", "exchanged", "as old as before"])
def test_a_changed_zip_of_the_same_size_is_read_again(
    tmp_path: Path, client: Client, replacement: str
) -> None:
    write_series(tmp_path / "series", "AAAA", T2)
    before = {file.name: file.read_bytes() for file in (tmp_path / "series").iterdir()}
    after = {name: content.replace(b"AAAA", b"BBBB") for name, content in before.items()}
    archive = tmp_path / "export" / "病 1.zip"
    archive.parent.mkdir()
    write_zip(before, archive)
    assert [p.patient_id for p in run_scan(tmp_path / "export", client, tmp_path).patients] == ["AAAA"]
    status_before = archive.stat()
    other = archive if replacement == "written over" else tmp_path / "other.zip"
    write_zip(after, other)
    if replacement != "written over":
        os.replace(other, archive)
    if replacement == "as old as before":
        os.utime(archive, ns=(status_before.st_atime_ns, status_before.st_mtime_ns))
    assert archive.stat().st_size == status_before.st_size
    assert [p.patient_id for p in run_scan(tmp_path / "export", client, tmp_path).patients] == ["BBBB"]
    unzipped = list((tmp_path / "cohort.private" / "unzipped").iterdir())
    assert len(unzipped) == 1, "the earlier content of the zip file is not kept"


def test_an_unchanged_zip_is_not_unpacked_again(tmp_path: Path, client: Client) -> None:
    write_series(tmp_path / "series", "A", T2)
    (tmp_path / "export").mkdir()
    write_zip(
        {file.name: file.read_bytes() for file in (tmp_path / "series").iterdir()}, tmp_path / "export/a.zip"
    )
    found = [run_scan(tmp_path / "export", client, tmp_path)]
    paths = list((tmp_path / "cohort.private" / "unzipped").rglob("*"))
    times = [path.stat().st_mtime_ns for path in paths]
    found.append(run_scan(tmp_path / "export", client, tmp_path))
    assert [path.stat().st_mtime_ns for path in paths] == times
    assert found[0].series_rows == found[1].series_rows


@pytest.mark.parametrize(
    "name", ["\0AME", "d/" * 101 + "x", "d/" * 3000 + "x"], ids=["nameless", "deep", "endless"]
)
def test_a_zip_with_an_invalid_file_name_is_reported_and_others_continue(
    name: str, tmp_path: Path, client: Client
) -> None:
    root = tmp_path / "export"
    write_series(root / "whole", "A", T2)
    with zipfile.ZipFile(root / "b.zip", "w") as packed:
        packed.writestr(name.replace("\0", "N"), b"x")
    content = (root / "b.zip").read_bytes().replace(b"NAME", b"\0AME")  # zipfile ends a name at the first NUL
    (root / "b.zip").write_bytes(content)
    found = run_scan(root, client, tmp_path)
    assert [p.patient_id for p in found.patients] == ["A"]
    (failed,) = found.quarantined
    assert "b.zip cannot be unpacked" in failed.reason and "\n" not in failed.reason


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2]
)
def test_a_damaged_file_in_a_zip_is_reported_and_others_continue(
    tmp_path: Path, client: Client, method: int
) -> None:
    root = tmp_path / "export"
    write_series(root / "whole", "A", T2)
    write_series(tmp_path / "series", "B", T2)
    with zipfile.ZipFile(root / "b.zip", "w", method) as packed:
        for file in sorted((tmp_path / "series").iterdir()):
            packed.write(file, file.name)
        at = packed.infolist()[1].header_offset + 90
    content = bytearray((root / "b.zip").read_bytes())
    content[at : at + 20] = bytes(byte ^ 0xFF for byte in content[at : at + 20])
    (root / "b.zip").write_bytes(content)
    found = run_scan(root, client, tmp_path)
    assert [p.patient_id for p in found.patients] == ["A"]
    (failed,) = found.quarantined
    assert "b.zip cannot be unpacked" in failed.reason and "\n" not in failed.reason


@pytest.mark.parametrize(
    ("tags", "expected_text"),
    [
        ({"PatientName": "Other^Person"}, "2 different names"),
        ({"PatientBirthDate": "19800101"}, "2 different birth"),
    ],
)
def test_an_id_of_two_people_is_quarantined_until_the_table_is_edited(
    tmp_path: Path, client: Client, tags: dict[str, str], expected_text: str
) -> None:
    root = tmp_path / "export"
    first = [write_series(root, "A", T1C), write_series(root, "A", T2)]
    second = [write_series(root, "A", sequence, study="1.2.4", **tags) for sequence in (T1C, T2)]
    write_series(root, "B", T2)
    found = run_scan(root, client, tmp_path)
    assert [p.patient_id for p in found.patients] == ["B"]
    assert len(found.quarantined) == 4 and all(expected_text in one.reason for one in found.quarantined)

    private = tmp_path / "cohort.private"
    unchanged = edit_table(private, tmp_path / "unchanged.csv")
    assert [p.patient_id for p in run_scan(root, client, tmp_path, unchanged).patients] == ["B"]
    ids = {uid: {"patient_id": "A1"} for uid in first} | {uid: {"patient_id": "A2"} for uid in second}
    settled = run_scan(root, client, tmp_path, edit_table(private, tmp_path / "settled.csv", **ids))
    assert [p.patient_id for p in settled.patients] == ["A1", "A2", "B"]
    assert all(set(p.series_by_sequence) == {MRSequence.T1C, MRSequence.T2} for p in settled.patients[:2])


def test_one_name_written_in_two_ways_is_one_person(tmp_path: Path, client: Client) -> None:
    root = tmp_path / "export"
    write_series(root, "A", T1C, PatientName="WANG^LEI")
    write_series(root, "A", T2, PatientName="Wang Lei")
    found = run_scan(root, client, tmp_path)
    assert [p.patient_id for p in found.patients] == ["A"] and not found.quarantined


def test_a_mask_predicted_by_gliomark_is_not_a_readers_mask(tmp_path: Path, client: Client) -> None:
    write_series(tmp_path / "a", "A", T1C)
    for folder, maker, kind in (
        ("1", "gliomark", "AUTOMATIC"),
        ("2", "gliomark", "MANUAL"),
        ("3", "X", "AUTOMATIC"),
    ):
        segment = Dataset()
        segment.SegmentAlgorithmType = kind
        more = {"SOPClassUID": SegmentationStorage, "Modality": "SEG", "Manufacturer": maker}
        write_series(tmp_path / "a" / folder, "A", more, SegmentSequence=[segment])
    (patient,) = run_scan(tmp_path / "a", client, tmp_path).patients
    assert {file.parent.name for file in patient.mask_files} == {"2", "3"} and len(
        patient.mask_files
    ) == 2 * SLICES


def test_a_blank_id_is_quarantined(tmp_path: Path, client: Client) -> None:
    write_series(tmp_path / "export", "", T2)
    found = run_scan(tmp_path / "export", client, tmp_path)
    assert not found.patients and "PatientID is blank" in found.quarantined[0].reason
    assert "患者编号" in render_message(found.quarantined[0].reason, "zh")


def test_the_earliest_examination_with_most_sequences_is_read(tmp_path: Path, client: Client) -> None:
    root = tmp_path / "export"
    for day, sequences in {"20190101": [T2], "20200301": [T1C, T2], "20210101": [T1C, T2]}.items():
        for tags in sequences:
            write_series(root, "A", tags, study=f"1.2.{day}", StudyDate=day)
    (patient,) = run_scan(root, client, tmp_path).patients
    assert {one.study_date for one in patient.series_by_sequence.values()} == {"20200301"}
    assert any("3 examinations" in note for note in patient.notes)


def test_the_edited_table_takes_precedence(tmp_path: Path, client: Client) -> None:
    root = tmp_path / "export"
    plain, contrast, t2 = (write_series(root, "A", tags) for tags in (T1, T1C, T2))
    run_scan(root, client, tmp_path)
    private = tmp_path / "cohort.private"
    table = edit_table(
        private,
        tmp_path / "edited.csv",
        **{plain: {"use": "t1c"}, contrast: {"use": "no"}, t2: {"use": "Auto"}},
    )
    found = run_scan(root, client, tmp_path, table)
    used = {str(name): one.series_key for name, one in found.patients[0].series_by_sequence.items()}
    assert used == {"T1C": plain, "T2": t2}
    assert "according to the edited table" in next(
        row["reason"] for row in found.series_rows if row["series"] == plain
    )


@pytest.mark.parametrize(
    ("change", "expected_text"),
    [
        ({"use": "T9"}, "must be T1, T1C, T2, FLAIR, auto or blank"),
        ({"series": "1.2.99"}, "the series 1.2.99 is not in the folder"),
        ({"use": "T2"}, "uses two series of one patient as T2"),
    ],
)
def test_an_invalid_edited_table_is_refused(
    tmp_path: Path, client: Client, change: dict[str, str], expected_text: str
) -> None:
    root = tmp_path / "export"
    contrast = write_series(root, "A", T1C)
    write_series(root, "A", T2)
    run_scan(root, client, tmp_path)
    table = edit_table(tmp_path / "cohort.private", tmp_path / "edited.csv", **{contrast: change})
    with pytest.raises(GliomarkError, match=expected_text):
        run_scan(root, client, tmp_path, table)


# ---- the same rule as for predictions ----------------------------------------------------------------


FLAIR = {"RepetitionTime": 9000, "EchoTime": 120, "InversionTime": 2500, "ScanningSequence": ["SE", "IR"]}


@pytest.mark.parametrize("examinations, needed, date", [
    ({"20200101": [T1C, T2], "20210101": [T1C, T2]}, (), "20200101"),
    ({"20190101": [T2], "20200101": [T1C, T2], "20210101": [T1C, T2]}, (), "20200101"),
    ({"20200101": [T1C, T2], "20210101": [T1C, FLAIR]}, ("T1C", "FLAIR"), "20210101"),
    ({"20190101 post-op": [T1C, T2], "20180101": [T1C, T2]}, (), "20180101"),
    ({"20180101": [T2], "20190101": [T1C, T2], "20200101 术后": [T1C, T2, FLAIR]}, (), "20190101"),
])  # fmt: skip
def test_predict_and_build_choose_the_same_examination(
    tmp_path: Path, client: Client, examinations: dict[str, list], needed: tuple[str, ...], date: str
) -> None:
    root, wanted = tmp_path / "export", [MRSequence(name) for name in needed]
    for day, sequences in examinations.items():
        tags_of_study = {"StudyDate": day[:8], "StudyDescription": day[9:]}
        for tags in sequences:
            write_series(root, "A", tags, study=f"1.2.{day[:8]}", **tags_of_study)
    found = scan_folder(
        root, create_private_folder(tmp_path / "cohort"), client, None, required_sequences=wanted
    )
    (patient,) = found.patients
    assert {one.study_date for one in patient.series_by_sequence.values()} == {date}
    study = read_study(root, required_sequences=wanted)
    assert study.examination is not None and study.examination.date == date
    assert {name: series.source_images for name, series in study.series.items()} == {
        name: read_series(one)[0].source_images for name, one in patient.series_by_sequence.items()
    }
    if len(examinations) > 1:
        assert any(f"{len(examinations)} examinations" in note for note in patient.notes)
    assert not any(day[:8] in note or f"{day[:4]}-" in note for note in patient.notes for day in examinations)


@pytest.mark.parametrize("days", [("", ""), ("20200101", "20210101")])
def test_a_patient_without_a_complete_examination_is_left_out(
    tmp_path: Path, client: Client, days: tuple[str, str]
) -> None:
    root = tmp_path / "export"
    series = [
        write_series(root, "A", tags, study=f"1.2.{at}", StudyDate=day)
        for at, (tags, day) in enumerate(zip((T1C, T2), days, strict=True))
    ]
    write_series(root, "B", T2)
    found = run_scan(root, client, tmp_path)
    assert [one.patient_id for one in found.patients] == ["B"]
    assert all("are not combined" in one.reason for one in found.quarantined)
    uses = {uid: {"use": name} for uid, name in zip(series, ("T1C", "T2"), strict=True)}
    settled = run_scan(
        root, client, tmp_path, edit_table(tmp_path / "cohort.private", tmp_path / "edited.csv", **uses)
    )
    assert set(settled.patients[0].series_by_sequence) == {"T1C", "T2"}, (
        "series selected in the table are used"
    )


@pytest.mark.parametrize("other", ["pat1", " PAT1", "PAT1^^"])
def test_ids_spelled_differently_belong_to_one_patient(tmp_path: Path, client: Client, other: str) -> None:
    root = tmp_path / "export"
    write_series(root, "PAT1", T1C, PatientName="Name^X")
    write_series(root, other, T2, PatientName="Name^X")
    (patient,) = run_scan(root, client, tmp_path).patients
    assert patient.patient_id.casefold() == "pat1" and set(patient.series_by_sequence) == {"T1C", "T2"}


def test_copies_under_new_uids_are_left_out(tmp_path: Path, client: Client) -> None:
    root = tmp_path / "export"
    for _ in range(2):
        write_series(root, "A", T1C)
    write_series(root, "A", T2)
    found = run_scan(root, client, tmp_path)
    assert set(found.patients[0].series_by_sequence) == {"T1C", "T2"}
    assert any("copies" in note for note in found.patients[0].notes)
    assert sum("copies of another series" in row["reason"] for row in found.series_rows) == 1


@pytest.mark.parametrize("number, left_out", [(2, True), (0, True), (None, False)])
def test_a_damaged_file_of_a_used_series_leaves_the_patient_out(
    tmp_path: Path, client: Client, number: int | None, left_out: bool
) -> None:
    root = tmp_path / "export"
    write_series(root / "a", "A", T1C)
    write_series(root / "b", "A", T2)
    file = root / "PR" if number is None else sorted((root / "a").iterdir())[number]
    file.write_bytes(b"\0" * 128 + b"DICM" + b"\2\0\0\0UL\4\0\0\0\0\0")
    found = run_scan(root, client, tmp_path)
    assert bool(found.patients) is not left_out
    assert any(one.where == str(file) for one in found.quarantined)
    if left_out:
        assert any(file.name in one.reason for one in found.quarantined if one.series)


@pytest.mark.parametrize("header", [
    {"NumberOfFrames": 10**9}, {"NumberOfFrames": 500}, {"Rows": 65535, "Columns": 65535},
])  # fmt: skip
def test_objects_with_impossible_headers_are_quarantined(
    tmp_path: Path, client: Client, header: dict[str, int]
):
    write_series(tmp_path / "in" / "good", "P1", T2)
    write_series(tmp_path / "in" / "bad", "P2", T2, "1.2.4", **header)
    found = run_scan(tmp_path / "in", client, tmp_path)
    assert [one.patient_id for one in found.patients] == ["P1"]
    assert len(found.quarantined) == SLICES
    for one in found.quarantined:
        assert str(tmp_path / "in" / "bad") in one.where and "more than the file can contain" in one.reason
