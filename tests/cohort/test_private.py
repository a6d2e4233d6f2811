"""Tests of the files that identify patients: location, permissions and new ids without information."""

from __future__ import annotations

from pathlib import Path

import pytest

from gliomark.cohort.private_files import (
    assign_new_ids,
    create_private_folder,
    read_original_ids,
    read_private_csv,
    write_private_csv,
)
from gliomark.errors import GliomarkError


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_folder_and_key_are_the_owners_alone(tmp_path: Path) -> None:
    private = create_private_folder(tmp_path / "cohort 队列")
    assign_new_ids(private, ["20170001", "王-7"], keep_originals=False)
    assert private == tmp_path / "cohort 队列.private"
    assert mode(private) == 0o700 and mode(private / "key.csv") == 0o600


def test_a_folder_left_open_is_closed(tmp_path: Path) -> None:
    (tmp_path / "c.private").mkdir(mode=0o755)
    assert mode(create_private_folder(tmp_path / "c")) == 0o700


def test_new_ids_are_stable_whatever_the_order_and_later_ones_are_added(tmp_path: Path) -> None:
    one, other = create_private_folder(tmp_path / "one"), create_private_folder(tmp_path / "other")
    names = [f"H{number}" for number in range(30)]
    first = assign_new_ids(one, names, keep_originals=False)
    assert first == assign_new_ids(other, names[::-1], keep_originals=False)
    assert sorted(first.values()) == [f"G{number:04d}" for number in range(1, 31)]
    assert [first[name] for name in names] != sorted(first.values()), "the order must not follow admission"
    grown = assign_new_ids(one, [*names, "H99"], keep_originals=False)
    assert {name: grown[name] for name in names} == first and grown["H99"] == "G0031"
    assert read_original_ids(one)["G0031"] == "H99"


def test_ids_kept_must_be_able_to_name_a_file(tmp_path: Path) -> None:
    private = create_private_folder(tmp_path / "c")
    assert assign_new_ids(private, ["TCGA-01", "患者.2"], keep_originals=True) == {
        "TCGA-01": "TCGA-01",
        "患者.2": "患者.2",
    }
    with pytest.raises(GliomarkError, match=r"'\.\./x' cannot be a file name"):
        assign_new_ids(private, ["../x"], keep_originals=True)


def test_kept_and_new_ids_do_not_mix(tmp_path: Path) -> None:
    private = create_private_folder(tmp_path / "c")
    assign_new_ids(private, ["A"], keep_originals=False)
    with pytest.raises(GliomarkError, match="already contains new ids"):
        assign_new_ids(private, ["A"], keep_originals=True)


def test_a_table_comes_back_as_it_went(tmp_path: Path) -> None:
    path = write_private_csv(tmp_path / "t.csv", ["a", "b"], [{"a": "王, 伟", "b": 1, "more": 2}])
    assert read_private_csv(path, ["b"]) == [{"a": "王, 伟", "b": "1"}]
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(GliomarkError, match="no column use"):
        read_private_csv(path, ["use"])
    with pytest.raises(GliomarkError, match="cannot be read"):
        read_private_csv(tmp_path / "none.csv", ["a"])
