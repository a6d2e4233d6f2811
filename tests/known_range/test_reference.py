"""The stored reference: fitted to enough patients, read back as it was, and refused when it is damaged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from tests.known_range.conftest import PAIR

from gliomark.cohort.store import Cohort
from gliomark.errors import CohortError, WeightsError
from gliomark.known_range import (
    KNOWN_RANGE_TENSOR,
    MIN_PATIENTS,
    KnownRange,
    PatientStatistics,
    fit_known_range,
    load_known_range,
)
from gliomark.models.weights import Weights, load_weights, save_weights
from gliomark.training.recipes import add_known_range


def add_tensor(weights: Weights, array: np.ndarray) -> Weights:
    return replace(weights, tensors={**weights.tensors, KNOWN_RANGE_TENSOR: array})


def test_the_stored_reference_is_read_as_it_was(
    known_range: KnownRange, weights: Weights, tmp_path: Path
) -> None:
    path = tmp_path / "with.safetensors"
    save_weights(path, weights.card, add_tensor(weights, known_range.to_array()).tensors)
    assert load_known_range(load_weights(path)) == known_range
    assert load_known_range(weights) is None


def test_a_stored_reference_gives_the_same_positions(
    known_range: KnownRange, weights: Weights, cohort_statistics: Sequence[PatientStatistics]
) -> None:
    """Mappings that differ only in their order are equal, and a weights file sorts them."""
    loaded = load_known_range(add_tensor(weights, known_range.to_array()))
    assert loaded is not None and list(loaded.images) == sorted(known_range.images)
    images = cohort_statistics[0].images
    for kind in known_range.wrong:
        assert loaded.compute_position(kind, images) == known_range.compute_position(kind, images)


def set_training_patients(weights: Weights, patients: Sequence[str], **fields: object) -> Weights:
    return replace(weights, card=replace(weights.card, training_patients=tuple(patients), **fields))


@pytest.mark.slow
def test_a_range_is_learnt_from_the_training_patients_and_nothing_else_changes(
    weights: Weights, cohort: Cohort, cohort_statistics, tmp_path: Path
) -> None:
    trained, path = set_training_patients(weights, cohort.patient_ids), tmp_path / "with.safetensors"
    add_known_range(trained, cohort, path)
    learned = load_weights(path)
    known_range = load_known_range(learned)
    assert known_range is not None and known_range.patients == 24
    assert set(known_range.wrong) >= {"swapped", "inverted/T1C", "inverted/FLAIR", "computed tomography"}
    volumes = [patient.geometry["brain_ml"] for patient in cohort_statistics]
    assert known_range.ranges["brain_ml"] == pytest.approx((min(volumes), max(volumes)), rel=1e-3)
    assert learned.card == trained.card
    kept = {name: t for name, t in learned.tensors.items() if name != KNOWN_RANGE_TENSOR}
    assert kept.keys() == weights.tensors.keys()
    assert all(np.array_equal(tensor, weights.tensors[name]) for name, tensor in kept.items())


def test_a_cohort_that_does_not_fit_gives_a_sentence_and_no_file(
    weights: Weights, cohort: Cohort, tmp_path: Path
) -> None:
    few = set_training_patients(weights, cohort.patient_ids[:2])
    other_steps = dict(weights.card.preparation) | {"step_mm": 3.0}
    other = set_training_patients(weights, cohort.patient_ids, preparation=other_steps)
    unstated = set_training_patients(few, few.card.training_patients, preparation={})  # the defaults
    for model, code in (
        (few, "range-too-few-patients"),
        (unstated, "range-too-few-patients"),
        (other, "cohort-other-preparation"),
    ):
        with pytest.raises(CohortError) as caught:
            add_known_range(model, cohort, tmp_path / "with.safetensors")
        assert caught.value.message.code == code
    assert not list(tmp_path.iterdir())


def test_few_patients_give_no_reference(cohort_statistics) -> None:
    assert fit_known_range(cohort_statistics[: MIN_PATIENTS - 1], PAIR, {}) is None
    without_lesion = [replace(one, lesion=None) for one in cohort_statistics[:5]]
    assert fit_known_range(without_lesion + cohort_statistics[5:], PAIR, {}) is None


def test_no_statistic_of_a_patient_is_stored_except_extremes(
    known_range: KnownRange, cohort_statistics
) -> None:
    numbers = {round(value, 9) for part in known_range.images.values() for value in part.centre}
    for patient in cohort_statistics:
        own = {round(value, 9) for value in patient.images.values()}
        assert len(own & numbers) < len(own) / 4  # a median of an odd number is one patient's


DAMAGES = {
    "not JSON": lambda record: b"{",
    "unknown field": lambda record: record | {"more": 1},
    "missing field": lambda record: {k: v for k, v in record.items() if k != "lesion"},
    "too few patients": lambda record: record | {"patients": 3},
    "other sequences": lambda record: record | {"sequences": ["T1C", "T2"]},
    "a name too few": lambda record: (
        record | {"lesion": record["lesion"] | {"names": record["lesion"]["names"][1:]}}
    ),
    "a spread of zero": lambda record: record | {"lesion": record["lesion"] | {"spread": [0.0] * 8}},
    "not a covariance": lambda record: (
        record | {"lesion": record["lesion"] | {"covariance": [[-1.0] * 8] * 8}}
    ),
    "refused before unusual": lambda record: record | {"lesion": record["lesion"] | {"refused": 1e-3}},
    "a direction without weights": lambda record: (
        record | {"wrong": {"swapped": {"weights": [1.0], "offset": 0.0}}}
    ),
    "a part too few": lambda record: (
        record | {"images": {k: v for k, v in record["images"].items() if k != "T1C/grey"}}
    ),
    "an unknown part": lambda record: (
        record | {"images": record["images"] | {"T1C/colour": record["images"]["T1C/grey"]}}
    ),
    "a limit of zero": lambda record: record | {"lesion": record["lesion"] | {"usual": 0.0}},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_reference_is_refused(known_range: KnownRange, weights: Weights, damage: str) -> None:
    changed = DAMAGES[damage](json.loads(json.dumps(asdict(known_range))))
    content = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
    with pytest.raises(WeightsError, match="known_range"):
        load_known_range(add_tensor(weights, np.frombuffer(content, np.uint8)))
