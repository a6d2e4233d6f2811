"""Who is trained on and who is tested on: drawn once per cohort, by patient, and used by every stage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from sklearn.model_selection import StratifiedKFold

from gliomark.study import GliomarkError

FOLDS = 5


@dataclass(frozen=True)
class Folds:
    """The fixed 6:2:2 split and five folds inside its development part (training and validation).

    Raises GliomarkError if a patient stands on both sides of any split.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    development_folds: tuple[tuple[str, ...], ...]
    seed: int

    def __post_init__(self) -> None:
        check_disjoint({"train": self.train, "validation": self.validation, "test": self.test})
        check_disjoint({f"fold {i}": fold for i, fold in enumerate(self.development_folds)})
        if {p for fold in self.development_folds for p in fold} != set(self.development):
            raise GliomarkError(
                "The folds do not cover exactly the training and validation patients; draw them anew."
            )

    @property
    def development(self) -> tuple[str, ...]:
        """Everyone who is not a test patient."""
        return tuple(sorted(self.train + self.validation))

    @property
    def sha256(self) -> str:
        """A hash of who stands where, written into every run record and weights file."""
        content = [self.train, self.validation, self.test, self.development_folds]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def check_disjoint(parts: Mapping[str, Collection[str]]) -> None:
    """Raise GliomarkError, naming them, if a patient is in two of the parts."""
    seen: dict[str, str] = {}
    for name, patients in parts.items():
        for patient in patients:
            if patient in seen:
                raise GliomarkError(
                    f"Patient {patient} stands in both '{seen[patient]}' and '{name}'; "
                    "no result may be computed from such a split, draw the folds anew."
                )
            seen[patient] = name


def draw_folds(strata: Mapping[str, str], seed: int = 0) -> Folds:
    """strata: patient id to the label that every part should hold its share of (a marker)."""
    patients = sorted(strata)
    fifths = _fifths(patients, strata, seed)
    development = sorted(p for fold in fifths[:4] for p in fold)
    return Folds(
        train=tuple(sorted(p for fold in fifths[:3] for p in fold)),
        validation=tuple(fifths[3]),
        test=tuple(fifths[4]),
        development_folds=tuple(map(tuple, _fifths(development, strata, seed + 1))),
        seed=seed,
    )


def _fifths(patients: list[str], strata: Mapping[str, str], seed: int) -> list[list[str]]:
    splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    labels = [strata[patient] for patient in patients]
    return [[patients[i] for i in index] for _, index in splitter.split(patients, labels)]


def load_or_draw(path: Path, strata: Mapping[str, str], seed: int = 0) -> Folds:
    """The folds written at ``path``, or new ones, written there. Raises GliomarkError on unknown patients."""
    if path.exists():
        record = json.loads(path.read_text("utf-8"))
        folds = Folds(
            train=tuple(record["train"]),
            validation=tuple(record["validation"]),
            test=tuple(record["test"]),
            development_folds=tuple(map(tuple, record["development_folds"])),
            seed=record["seed"],
        )
        unknown = set(folds.development + folds.test) ^ set(strata)
        if unknown:
            raise GliomarkError(
                f"{path}: patients {', '.join(sorted(unknown)[:5])} are in the cohort or in the folds but not in both; "
                "delete the file to draw new folds."
            )
        return folds
    folds = draw_folds(strata, seed)
    record = {k: getattr(folds, k) for k in ("seed", "train", "validation", "test", "development_folds")}
    path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return folds
