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


def get_permissions(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_only_the_owner_can_read_folder_and_key(tmp_path: Path) -> None:
    private = create_private_folder(tmp_path / "cohort 队列")
    assign_new_ids(private, ["20170001", "王-7"], keep_originals=False)
    assert private == tmp_path / "cohort 队列.private"
    assert get_permissions(private) == 0o700 and get_permissions(private / "key.csv") == 0o600


def test_permissions_of_an_existing_folder_are_restricted(tmp_path: Path) -> None:
    (tmp_path / "c.private").mkdir(mode=0o755)
    assert get_permissions(create_private_folder(tmp_path / "c")) == 0o700


def test_new_ids_do_not_depend_on_the_order_and_later_ones_are_added(tmp_path: Path) -> None:
    one, other = create_private_folder(tmp_path / "one"), create_private_folder(tmp_path / "other")
    original_ids = [f"H{number}" for number in range(30)]
    first = assign_new_ids(one, original_ids, keep_originals=False)
    assert first == assign_new_ids(other, original_ids[::-1], keep_originals=False)
    assert sorted(first.values()) == [f"G{number:04d}" for number in range(1, 31)]
    assert [first[name] for name in original_ids] != sorted(first.values()), (
        "the order must not follow admission"
    )
    extended = assign_new_ids(one, [*original_ids, "H99"], keep_originals=False)
    assert {name: extended[name] for name in original_ids} == first and extended["H99"] == "G0031"
    assert read_original_ids(one)["G0031"] == "H99"


def test_kept_ids_must_be_valid_file_names(tmp_path: Path) -> None:
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


def test_a_private_table_is_read_back_unchanged(tmp_path: Path) -> None:
    path = write_private_csv(tmp_path / "t.csv", ["a", "b"], [{"a": "王, 伟", "b": 1, "more": 2}])
    assert read_private_csv(path, ["b"]) == [{"a": "王, 伟", "b": "1"}]
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(GliomarkError, match="no column use"):
        read_private_csv(path, ["use"])
    with pytest.raises(GliomarkError, match="cannot be read"):
        read_private_csv(tmp_path / "none.csv", ["a"])
