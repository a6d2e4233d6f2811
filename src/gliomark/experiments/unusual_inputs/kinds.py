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
    remove_lesion,
    resect_lesion,
    scale_head,
    shift,
    show_twice,
)
from gliomark.known_range.wrong_images import invert, simulate_ct, swap_sequences
from gliomark.study import MRSequence, SliceStack

Expected = Literal["in range", "unusual", "refused"]
ImagesBySequence = Mapping[MRSequence, NDArray[np.float32]]


@dataclass(frozen=True)
class PatientKind:
    """A kind of patients.

    expected: what the check should say; create: from a prepared patient, the images of all sequences on its grid, and
    a random generator to the altered patient, or None if a sequence is missing; changes_geometry: whether the size of
    the head or the position of a sequence changes.
    """

    name: str
    expected: Expected
    create: Callable[[SliceStack, ImagesBySequence, np.random.Generator], SliceStack | None]
    changes_geometry: bool = False


def list_kinds(sequences: tuple[MRSequence, ...]) -> list[PatientKind]:
    """List all kinds for a pair of sequences, the reference last."""
    one, other = sequences
    kinds = [
        PatientKind(f"{shown} shown as {name}", "refused", partial(_show_as, shown=shown, name=name))
        for name in sequences
        for shown in MRSequence
        if shown not in sequences
    ]
    kinds.append(
        PatientKind("sequences swapped", "refused", lambda stack, *_: swap_sequences(stack, sequences))
    )
    for name in sequences:
        kinds += [
            PatientKind(f"{name} twice", "refused", lambda stack, *_, n=name: show_twice(stack, n)),
            PatientKind(f"{name} inverted", "refused", lambda stack, *_, n=name: invert(stack, n)),
            PatientKind(
                f"CT shown as {name}", "refused", lambda stack, *_, n=name: simulate_ct(stack, (n,), seed=1)
            ),
        ]
    kinds.append(
        PatientKind("CT shown as both", "refused", lambda stack, *_: simulate_ct(stack, sequences, seed=1))
    )
    return [*kinds, *_list_unusual_kinds(one, other)]


def _list_unusual_kinds(one: MRSequence, other: MRSequence) -> list[PatientKind]:
    """List the kinds that are said to be unusual: true images that the validation hardly covers."""
    return [
        PatientKind(f"{one} displaced by 5 mm", "unusual", lambda s, *_: shift(s, one, 3, 4), True),
        PatientKind(f"{one} displaced by 10 mm", "refused", lambda s, *_: shift(s, one, 6, 8), True),
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
