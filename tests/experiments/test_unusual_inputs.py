"""The altered patients are what their names say, and the table counts what the check says of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from tests.known_range.conftest import PAIR, draw_head

from gliomark.experiments.unusual_inputs.experiment import _summarise
from gliomark.experiments.unusual_inputs.kinds import list_kinds
from gliomark.known_range.statistics import measure_lesion
from gliomark.study import MRSequence, SliceStack

T1C, FLAIR = PAIR


@pytest.fixture(scope="module")
def stack() -> SliceStack:
    return draw_head(7)


def create(name: str, stack: SliceStack) -> SliceStack:
    kind = next(kind for kind in list_kinds(PAIR) if kind.name == name)
    altered = kind.create(stack, stack.images, np.random.default_rng(0))
    assert altered is not None
    return altered


def find_brightness(stack: SliceStack, name: MRSequence, mask: np.ndarray) -> float:
    return float(np.median(stack.images[name][mask]))


def erode(mask: np.ndarray) -> np.ndarray:
    return ndimage.binary_erosion(mask, np.ones((1, 7, 7)))


CHECKS = {
    "sequences swapped": lambda old, new: np.array_equal(new.images[T1C], old.images[FLAIR]),
    "FLAIR twice": lambda old, new: np.array_equal(new.images[T1C], new.images[FLAIR]),
    "T1C inverted": lambda old, new: (
        np.corrcoef(new.images[T1C][old.brain], old.images[T1C][old.brain])[0, 1] < -0.99
    ),
    "T1C displaced by 10 mm": lambda old, new: np.allclose(
        new.images[T1C][:, 106:180, 108:180][old.brain[:, 106:180, 108:180]].mean(),
        old.images[T1C][:, 100:174, 100:172].mean(),
        atol=0.3,
    ),
    "child's head": lambda old, new: (
        new.brain.sum() * new.voxel_volume_ml
        == pytest.approx(0.8**3 * old.brain.sum() * old.voxel_volume_ml, rel=0.02)
    ),
    "no lesion": lambda old, new: (
        not new.reader_mask.any() and find_brightness(new, FLAIR, old.reader_mask) < 0.7
    ),
    "metastases": lambda old, new: measure_lesion(new, new.reader_mask, PAIR)["parts"] >= 2,
    "meningioma": lambda old, new: measure_lesion(new, new.reader_mask, PAIR)["surface_share"] > 0.05,
    "resection cavity": lambda old, new: find_brightness(new, FLAIR, erode(old.reader_mask)) < -0.5,
}


@pytest.mark.parametrize("name", CHECKS)
def test_an_altered_patient_is_what_it_is_called(stack: SliceStack, name: str) -> None:
    altered = create(name, stack)
    assert CHECKS[name](stack, altered)
    for image in altered.images.values():
        assert np.isfinite(image).all()
        assert abs(image[altered.brain].mean()) < 0.02 and image[altered.brain].std() == pytest.approx(
            1, abs=0.02
        )


@pytest.mark.parametrize("name", ["noise", "blur", "thick slices"])
def test_a_poorer_image_shows_the_same_patient(stack: SliceStack, name: str) -> None:
    altered = create(name, stack)
    for sequence in PAIR:
        old, new = stack.images[sequence][stack.brain], altered.images[sequence][stack.brain]
        assert 0.5 < np.corrcoef(old, new)[0, 1] < 0.995
    detail = [
        np.abs(np.diff(one.images[T1C], axis=2))[one.brain[:, :, 1:]].mean() for one in (stack, altered)
    ]
    assert (detail[1] > detail[0]) == (name == "noise")


def test_a_kind_without_its_sequence_is_left_out(stack: SliceStack) -> None:
    kind = next(kind for kind in list_kinds(PAIR) if kind.name == "T2 shown as FLAIR")
    assert kind.create(stack, stack.images, np.random.default_rng(0)) is None


def test_the_table_has_shares_and_auroc() -> None:
    rows = [
        ("real", "in range", 0.2, "in range", ""),
        ("real", "in range", 0.4, "unusual", ""),
        ("CT", "refused", 1.5, "refused", "right"),
        ("CT", "refused", 1.5, "refused", "wrong"),
        ("CT", "refused", 1.5, "refused", "right"),
        ("CT", "refused", 0.3, "in range", ""),
    ]
    columns = ["kind", "expected", "score", "result", "named"]
    table = _summarise(pd.DataFrame(rows, columns=columns)).set_index("kind")
    assert table.loc["CT", ["named_right", "named_wrong", "named_none"]].tolist() == [2, 1, 0]
    assert table.loc["CT", ["patients", "in_range", "unusual", "refused"]].tolist() == [4, 1, 0, 3]
    assert table.loc["CT", "auroc"] == pytest.approx(7 / 8) and np.isnan(table.loc["real", "auroc"])
