"""Weights files that must be rejected when loaded, from the table of ``tests/models/broken_weights.py``."""

from __future__ import annotations

from tests.battery.cases_and_results import Case, CaseFolders, expect_answer, expect_refusal
from tests.battery.changes import copy_patient, run_all
from tests.models.broken_weights import BROKEN, write_tiny

DOOR = "predict with weights"
MODEL = "model.safetensors"


def create_weights_case(name: str) -> Case:
    one = BROKEN[name]
    make = run_all(copy_patient("volumes"), lambda scene: one.write(scene.folder / MODEL))
    return expect_refusal(DOOR, f"weights: {name}", "weights", make, one.expected_words[0])


def check_any_answer(scene: CaseFolders) -> str:
    return "" if (scene.folder / "out" / "P001" / "prediction.json").is_file() else "there is no answer"


CASES = [
    *map(create_weights_case, list(BROKEN)[::3]),  # tests/models tests all of them
    expect_answer(
        DOOR,
        "tiny weights as they are",
        "odd but healthy",
        run_all(copy_patient("volumes"), lambda scene: write_tiny(scene.folder / MODEL)),
        check_any_answer,
    ),
]
