"""``gliomark train markers``: what is refused before any training, and what the card of the model keeps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.pipeline.conftest import drawn_images, reader_pool, run_command, tiny_weights

from gliomark.cohort.store import Cohort
from gliomark.model_loading import build_model
from gliomark.models.weights import load_weights
from gliomark.training import recipes
from gliomark.training.recipes import restore_marker_definition, select_training_patients

__all__ = ["drawn_images", "reader_pool", "run_command", "tiny_weights"]


@pytest.fixture
def cohort_folder(tiny_cohort_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_cohort_folder, tmp_path / "cohort")


@pytest.fixture
def train(run_command, tiny_weights: Path, tmp_path: Path) -> Callable[..., tuple[int, str, Path]]:
    """Return train(cohort, markers): status, errors, and the path of the model."""

    def train_markers(cohort: Path, *markers: str) -> tuple[int, str, Path]:
        out = tmp_path / "model.safetensors"
        options = [part for one in markers for part in ("--marker", one)]
        outcome = run_command(
            "train", "markers", "--cohort", cohort, "--segmentation", tiny_weights, *options, "--out", out
        )
        return outcome.status, outcome.stderr, out

    return train_markers


def change_metadata(folder: Path, **changes: object) -> None:
    path = folder / "cohort.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


@pytest.mark.parametrize(
    ("markers", "changes", "words"),
    [
        (("who_grade>=3", "who_grade>=4"), {}, "Two markers have the same name"),
        (("ki67", "ki67>=20"), {}, "Two markers have the same name"),
        (("idh", "nosuch"), {}, "has no column 'nosuch'"),
        (("who_grade",), {}, "column who_grade should be 0 or 1"),
        (("idh",), {"sequences": ["FLAIR", "T1C"]}, "was prepared for FLAIR + T1C"),
        (("idh",), {"settings": {"k": 20, "pixel_mm": 0.5}}, "was prepared with other settings"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_once(
    train, monkeypatch: pytest.MonkeyPatch, cohort_folder: Path, markers: tuple[str, ...],
    changes: dict[str, object], words: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(recipes, "train_marker", lambda *_: pytest.fail("a network was trained"))
    change_metadata(cohort_folder, **changes)
    status, errors, out = train(cohort_folder, *markers)
    assert status == 1 and words in errors, errors
    assert not out.exists()


def test_the_model_knows_whom_its_marker_was_trained_on_and_from_which_number(
    train, monkeypatch: pytest.MonkeyPatch, cohort_folder: Path, tiny_marker_training
) -> None:
    monkeypatch.setattr(recipes, "create_marker_config", lambda *_: tiny_marker_training)
    monkeypatch.setattr(recipes, "cross_validate_marker", lambda *_: None)
    table = cohort_folder / "MetaMS.csv"
    header, *rows = table.read_text("utf-8").splitlines()
    grade = header.split(",").index("who_grade")
    grades = [row.split(",") for row in rows]
    for number, cells in enumerate(grades):
        cells[grade] = str(2 + number % 3)
        cells[header.split(",").index("age")] = ""  # no age is known
    table.write_text("\n".join([header, *(",".join(cells) for cells in grades)]) + "\n", "utf-8")
    change_metadata(cohort_folder, cohort_id="c" * 64)
    status, errors, out = train(cohort_folder, "who_grade>=3")
    assert status == 0, errors
    weights, cohort = load_weights(out), Cohort(cohort_folder)
    ((name, card),) = weights.card.markers.items()
    assert name == "who_grade" and card.age_cut is None
    assert restore_marker_definition(name, card).threshold == 3.0
    development = set(recipes.load_cohort_folds(cohort).development)
    assert card.training_cohort_id == "c" * 64 and set(card.training_patients) == development
    assert select_training_patients(weights.card, cohort) == development
    assert set(build_model(weights).classifiers) == {"who_grade"}, "markers of the segmentation file are left"
