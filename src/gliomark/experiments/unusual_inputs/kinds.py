"""The kinds of patients for the check against the training cohort, and what is expected of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gliomark.experiments.unusual_inputs.alterations import (
    add_meningioma,
    add_metastases,
    add_noise,
    average_slices,
    blur,
    remove_lesion,
    resect_lesion,
    scale_head,
    shift,
    show_twice,
)
from gliomark.known_range.wrong_images import invert, simulate_ct, swap_sequences
from gliomark.messages import Message
from gliomark.study import MRSequence, SliceStack

Expected = Literal["in range", "unusual", "refused"]
ImagesBySequence = Mapping[MRSequence, NDArray[np.float32]]


@dataclass(frozen=True)
class PatientKind:
    """A kind of patients.

    expected: what the check should say; create: from a prepared patient, the images of all sequences on its grid, and
    a random generator to the altered patient, or None if a sequence is missing; changes_geometry: whether the size of
    the head or the position of a sequence changes; true_reasons: the mistakes that were made, as ``name_reason`` names
    them.
    """

    name: str
    expected: Expected
    create: Callable[[SliceStack, ImagesBySequence, np.random.Generator], SliceStack | None]
    changes_geometry: bool = False
    true_reasons: frozenset[str] = frozenset()


def name_reason(finding: Message) -> str:
    """Name the reason for a refusal: the code of its message without "range-", and the sequence that is named."""
    name = finding.parameters.get("name")
    return finding.code.removeprefix("range-") + (f" {name}" if name else "")


def list_kinds(sequences: tuple[MRSequence, ...]) -> list[PatientKind]:
    """List all kinds for a pair of sequences, the reference last."""
    one, other = sequences
    kinds = [
        PatientKind(
            f"{shown} shown as {name}",
            "refused",
            partial(_show_as, shown=shown, name=name),
            true_reasons=_list_true_reasons(shown, name),
        )
        for name in sequences
        for shown in MRSequence
        if shown not in sequences
    ]
    swap = partial(swap_sequences, sequences=sequences)
    kinds.append(_create_wrong_kind("sequences swapped", swap, {"swapped"}))
    for name in sequences:
        dark = {f"fluid-dark {name}"} if name == MRSequence.T2 else set()
        kinds += [
            _create_wrong_kind(f"{name} twice", partial(show_twice, shown=name), {"same-image"}),
            _create_wrong_kind(f"{name} inverted", partial(invert, name=name), {f"inverted {name}"} | dark),
            _create_wrong_kind(
                f"CT shown as {name}",
                partial(simulate_ct, names=(name,), seed=1),
                {f"computed-tomography {name}"} | dark,
            ),
        ]
    ct_reasons = {f"computed-tomography {name}" for name in (*sequences, f"{one} + {other}")}
    kinds.append(
        _create_wrong_kind("CT shown as both", partial(simulate_ct, names=sequences, seed=1), ct_reasons)
    )
    return [*kinds, *_list_unusual_kinds(one, other)]


def _create_wrong_kind(
    name: str, alter: Callable[[SliceStack], SliceStack], true_reasons: set[str]
) -> PatientKind:
    """Create a kind of wrong images that needs no other sequence."""
    return PatientKind(name, "refused", lambda stack, *_: alter(stack), true_reasons=frozenset(true_reasons))


def _list_true_reasons(shown: MRSequence, name: MRSequence) -> frozenset[str]:
    """List the mistakes that may be named where a sequence is shown under another name."""
    if name == MRSequence.T2:
        return frozenset({f"fluid-dark {name}"})
    if shown == MRSequence.T1:
        return frozenset({f"no-contrast-agent {name}" if name == MRSequence.T1C else f"t1-weighted {name}"})
    # the sentence about an inverted image also says that it may be another sequence such as T2
    return frozenset({f"inverted {name}", *([f"fluid-bright {name}"] if shown == MRSequence.T2 else [])})


def _list_unusual_kinds(one: MRSequence, other: MRSequence) -> list[PatientKind]:
    """List the kinds that are said to be unusual: true images that the validation hardly covers."""
    displaced = frozenset({"displaced-far"})
    return [
        PatientKind(
            f"{one} displaced by 5 mm", "unusual", lambda s, *_: shift(s, one, 3, 4), True, displaced
        ),
        PatientKind(
            f"{one} displaced by 10 mm", "refused", lambda s, *_: shift(s, one, 6, 8), True, displaced
        ),
        PatientKind("noise", "unusual", lambda s, _, rng: add_noise(s, rng)),
        PatientKind("blur", "unusual", lambda s, *_: blur(s)),
        PatientKind("thick slices", "unusual", lambda s, *_: average_slices(s)),
        PatientKind("child's head", "unusual", lambda s, *_: scale_head(s, 0.8), True),
        PatientKind("no lesion", "unusual", lambda s, *_: remove_lesion(s)),
        PatientKind("metastases", "unusual", lambda s, _, rng: add_metastases(s, rng)),
        PatientKind("meningioma", "unusual", lambda s, _, rng: add_meningioma(s, rng)),
        PatientKind("resection cavity", "unusual", lambda s, *_: resect_lesion(s)),
    ]


def _show_as(
    stack: SliceStack,
    images: ImagesBySequence,
    _: np.random.Generator,
    shown: MRSequence,
    name: MRSequence,
) -> SliceStack | None:
    if shown not in images:
        return None
    return replace(stack, images={**stack.images, name: images[shown]})
