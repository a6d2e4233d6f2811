"""Weights files that must be refused when they are loaded: the table of ``tests/models/broken_weights.py``."""

from __future__ import annotations

from tests.battery.case import Case, Scene, answered, refused
from tests.battery.kit import both, patient
from tests.models.broken_weights import BROKEN, write_tiny

DOOR = "predict with weights"
MODEL = "model.safetensors"


def broken(name: str) -> Case:
    one = BROKEN[name]
    make = both(patient("volumes"), lambda scene: one.make(scene.folder / MODEL))
    return refused(DOOR, f"weights: {name}", "weights", make, one.words[0])


def any_answer(scene: Scene) -> str:
    return "" if (scene.folder / "out" / "P001" / "prediction.json").is_file() else "there is no answer"


CASES = [
    *map(broken, list(BROKEN)[::3]),  # all of them are loaded by tests/models
    answered(DOOR, "tiny weights as they are", "odd but healthy",
             both(patient("volumes"), lambda scene: write_tiny(scene.folder / MODEL)), any_answer),
]  # fmt: skip
