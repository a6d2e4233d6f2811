"""A refused patient of another drawn scanner gets the right reason: a mistake only where it was made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import gliomark
from gliomark.experiments.unusual_inputs import alterations
from gliomark.experiments.unusual_inputs.experiment import _check_patient
from gliomark.experiments.unusual_inputs.kinds import PatientKind, list_kinds
from gliomark.experiments.unusual_inputs.measurements import measure_kinds
from gliomark.known_range import KnownRange, check_patient, load_known_range, wrong_images
from gliomark.known_range.check import GENERAL_REASONS
from gliomark.models.weights import load_weights
from gliomark.phantom.patient import PhantomSettings
from gliomark.phantom.planned_slices import create_planned_phantom
from gliomark.preprocessing import prepare_with_brain_mask
from gliomark.study import MRSequence, SliceStack

T1, T1C, T2, FLAIR = MRSequence
PAIR = (T1C, T2)
SLICES = 16
END_AREA_MM2 = 4500.0
NOISE = {"usual": 0.03, "noisy": 0.05, "very noisy": 0.08}


@pytest.fixture(scope="module")
def known_range() -> KnownRange:
    """The description in the shipped weights file, as a prediction uses it."""
    folder = Path(gliomark.__file__).parent / "models" / "shipped"
    loaded = load_known_range(load_weights(folder / "synthetic.safetensors"))
    assert loaded is not None and loaded.sequences == PAIR
    return loaded


@pytest.fixture(scope="module", params=["usual", "noisy", pytest.param("very noisy", marks=pytest.mark.slow)])
def scanned(request: pytest.FixtureRequest) -> tuple[str, SliceStack]:
    """A drawn patient with all sequences, and the noise of the scanner."""
    settings = PhantomSettings(noise_sigma=NOISE[request.param], case_mix="low-grade")
    phantom = create_planned_phantom(5001, tuple(MRSequence), SLICES, END_AREA_MM2, settings)
    return request.param, prepare_with_brain_mask(phantom.study, tuple(MRSequence), phantom.brain)


def keep_pair(stack: SliceStack) -> SliceStack:
    return replace(stack, images={name: stack.images[name] for name in PAIR})


def show_as(shown: MRSequence, name: MRSequence) -> Callable[[SliceStack], SliceStack]:
    return lambda stack: replace(stack, images={**stack.images, name: stack.images[shown]})


def alter_pair(alter: Callable[[SliceStack], SliceStack]) -> Callable[[SliceStack], SliceStack]:
    return lambda stack: alter(keep_pair(stack))


IN_RANGE, GENERAL = "in range", "general"
# what is right to say, by the noise of the scanner
REASONS = {
    "as it is": (keep_pair, (IN_RANGE, GENERAL, GENERAL)),
    "blurred": (alter_pair(alterations.blur), GENERAL),
    "T1 as T1C": (show_as(T1, T1C), ("range-no-contrast-agent", GENERAL, GENERAL)),
    "T1 as T2": (show_as(T1, T2), "range-fluid-dark"),
    "FLAIR as T1C": (show_as(FLAIR, T1C), GENERAL),
    "FLAIR as T2": (show_as(FLAIR, T2), "range-fluid-dark"),
    "swapped": (lambda s: wrong_images.swap_sequences(s, PAIR), "range-swapped"),
    "one image twice": (alter_pair(lambda s: alterations.show_twice(s, T1C)), "range-same-image"),
    "T1C inverted": (
        lambda s: wrong_images.invert(s, T1C),
        ("range-inverted", "range-inverted", GENERAL),
    ),
    "T2 inverted": (lambda s: wrong_images.invert(s, T2), "range-fluid-dark"),
    "CT as T1C": (lambda s: wrong_images.simulate_ct(s, (T1C,), seed=1), "range-computed-tomography"),
    "CT as T2": (lambda s: wrong_images.simulate_ct(s, (T2,), seed=1), "range-computed-tomography"),
    "CT as both": (lambda s: wrong_images.simulate_ct(s, PAIR, seed=1), "range-computed-tomography"),
    "T1C displaced": (lambda s: alterations.shift(s, T1C, 6, 8), "range-displaced-far"),
}


@pytest.mark.parametrize("kind", REASONS)
def test_a_mistake_is_named_only_where_it_was_made(
    known_range: KnownRange, scanned: tuple[str, SliceStack], kind: str
) -> None:
    noise, stack = scanned
    alter, expected = REASONS[kind]
    if not isinstance(expected, str):
        expected = expected[list(NOISE).index(noise)]
    altered = alter(stack)
    check = check_patient(known_range, altered, altered.reader_mask)
    if expected == IN_RANGE:
        assert not check.is_refused, check.findings
        return
    assert check.is_refused, (noise, check.result, check.findings)
    (reason,) = check.findings
    allowed = GENERAL_REASONS if expected == GENERAL else {expected}
    assert reason.code in allowed, (noise, reason)
    wrong = kind.rpartition(" as ")[2]
    if expected != GENERAL and wrong in PAIR:
        assert reason.parameters["name"] == wrong


NAMED = {
    "real": "",
    "sequences swapped": "right",
    "CT shown as both": "right",
    "T2 inverted": "right",
    "T1C twice": "right",
    "blur": "none",
}


@pytest.mark.parametrize("scanned", ["usual"], indirect=True)
def test_the_table_says_whether_the_named_mistake_was_made(
    known_range: KnownRange, scanned: tuple[str, SliceStack]
) -> None:
    _, stack = scanned
    kinds = [PatientKind("real", "in range", lambda s, *_: s), *list_kinds(PAIR)]
    chosen = [kind for kind in kinds if kind.name in NAMED]
    for kind, statistics in zip(
        chosen, measure_kinds(keep_pair(stack), {}, PAIR, chosen).values(), strict=True
    ):
        row = _check_patient(known_range, kind, 1, "P", statistics)
        assert (row["kind"], row["named"]) == (kind.name, NAMED[kind.name]), row
        assert bool(row["reason"]) == (row["result"] == "refused")
        unnamed = _check_patient(known_range, replace(kind, true_reasons=frozenset()), 1, "P", statistics)
        assert unnamed["named"] == row["named"].replace("right", "wrong")
