"""The mask editor: brush, contour, undo and redo."""

from __future__ import annotations

import numpy as np
import pytest

from gliomark.client.mask_editor import MaskEditor, compute_contour, compute_stroke_mask
from gliomark.client.png import ImageDecodeError, decode_slice, decode_slices, encode_mask


def paint_disc(radius: float) -> np.ndarray:
    return compute_stroke_mask((60, 60), (30.0, 30.0), (30.0, 30.0), radius)


@pytest.mark.parametrize("radius", [1, 5, 20])
def test_the_brush_is_round(radius: float) -> None:
    assert paint_disc(radius).sum() == pytest.approx(np.pi * radius**2, rel=0.35 if radius == 1 else 0.05)


def test_a_stroke_has_no_gaps() -> None:
    mask = compute_stroke_mask((60, 60), (5.0, 10.0), (55.0, 40.0), 3)
    length = np.hypot(50, 30)
    assert mask.sum() == pytest.approx(6 * length + np.pi * 9, rel=0.05)


@pytest.mark.parametrize(
    "mask", [paint_disc(12), paint_disc(20) & ~paint_disc(8), np.eye(60, dtype=bool), paint_disc(40)]
)
def test_the_contour_is_closed_and_encloses_the_mask(mask: np.ndarray) -> None:
    """The segments form closed lines that enclose the mask with its corners cut."""
    segments = compute_contour(mask)
    begins, ends = (sorted(map(tuple, part.tolist())) for part in (segments[:, :2], segments[:, 2:]))
    assert begins == ends
    area = (segments[:, 0] * segments[:, 3] - segments[:, 2] * segments[:, 1]).sum() / 2
    # each cut corner changes the area by an eighth of a pixel
    slanted = (segments[:, :2] != segments[:, 2:]).all(axis=1).sum()
    assert abs(area - mask.sum()) <= slanted / 8


def test_an_empty_mask_has_no_contour() -> None:
    assert compute_contour(np.zeros((9, 9), bool)).shape == (0, 4)


def test_strokes_can_be_undone_and_redone() -> None:
    outline = MaskEditor()
    outline.load_mask(np.zeros((3, 60, 60), bool))
    assert not outline.is_edited and outline.undo() is None and outline.redo() is None
    for index, value in ((0, True), (2, True), (2, False)):
        outline.paint_segment(index, (20.0, 30.0), (30.0, 30.0), 4, value)
        outline.paint_segment(index, (30.0, 30.0), (40.0, 30.0), 4, value)
        outline.finish_stroke(index)
    assert outline.mask[0].any() and not outline.mask[2].any()
    painted = outline.mask[0].copy()
    assert outline.undo() == 2
    np.testing.assert_array_equal(outline.mask[2], painted)
    assert outline.undo() == 2 and not outline.mask[2].any() and outline.is_edited
    assert outline.redo() == 2 and outline.can_redo
    outline.paint_segment(1, (5.0, 5.0), (5.0, 5.0), 2, True)
    outline.finish_stroke(1)
    assert not outline.can_redo and outline.redo() is None


def test_a_stroke_without_effect_is_not_an_edit() -> None:
    outline = MaskEditor()
    outline.load_mask(np.ones((1, 60, 60), bool))
    outline.paint_segment(0, (30.0, 30.0), (30.0, 30.0), 5, True)
    outline.finish_stroke(0)
    assert not outline.is_edited


def test_loading_discards_strokes_and_copies_the_mask() -> None:
    outline, mask = MaskEditor(), np.zeros((1, 60, 60), bool)
    outline.load_mask(mask)
    outline.paint_segment(0, (30.0, 30.0), (30.0, 30.0), 5, True)
    outline.finish_stroke(0)
    outline.load_mask(mask)
    assert not outline.is_edited and not outline.mask.any()


def test_masks_are_unchanged_by_encoding() -> None:
    mask = np.random.default_rng(0).random((4, 30, 241)) > 0.5
    np.testing.assert_array_equal(decode_slices(encode_mask(mask), 4) > 127, mask)
    with pytest.raises(ImageDecodeError):
        decode_slices(encode_mask(mask), 7)
    with pytest.raises(ImageDecodeError):
        decode_slices(b"no picture", 4)


def test_sixteen_bit_slices_are_unchanged_by_encoding() -> None:
    from gliomark.server.study_store import encode_slice_png  # the server's encoder

    grey = np.linspace(0, 65535, 240 * 240).reshape(240, 240).astype(np.uint16)
    np.testing.assert_allclose(
        decode_slice(encode_slice_png(grey), -4, 12), -4 + grey / 65535 * 16, atol=1e-5
    )
