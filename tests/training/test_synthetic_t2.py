"""Synthetic T2: fluid becomes bright, bone and the brain's edge do not, and every view has another contrast."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gliomark.models.comparison.unet import UNetSettings
from gliomark.training.augmentation import Augmentation
from gliomark.training.segmentation import SegmentationTrainingConfig, SegmentationTrainingModule
from gliomark.training.slice_dataset import EpochSampler, SliceDataset, join_datasets
from gliomark.training.synthetic_t2 import (
    BACKGROUND,
    EDGE,
    INTERIOR,
    PARAMETER_RANGES,
    UNCHANGED,
    add_synthesis_region,
    create_synthesis_region,
    draw_synthetic_t2,
    replace_by_synthetic_t2,
)

DRAWS = 200


def draw_pixels(t1c: float, flair: float, code: int = INTERIOR) -> torch.Tensor:
    """Draw the T2 value of a pixel ``DRAWS`` times."""
    torch.manual_seed(0)
    shape = (DRAWS, 1, 1, 1)
    region = torch.full(shape, code, dtype=torch.uint8)
    return draw_synthetic_t2(torch.full(shape, t1c), torch.full(shape, flair), region).flatten()


def test_the_region_follows_the_edge_of_the_brain() -> None:
    brain = np.zeros((2, 20, 20), bool)
    brain[0, 2:18, 2:18] = True
    region = create_synthesis_region(brain)
    assert region.dtype == np.uint8 and region.shape == brain.shape
    assert (
        region[0, 10].tolist()
        == [BACKGROUND] * 2 + [EDGE] * 3 + [INTERIOR] * 10 + [EDGE] * 3 + [BACKGROUND] * 2
    )
    assert (region[1] == BACKGROUND).all()


@pytest.mark.parametrize(
    ("name", "t1c", "flair", "code", "low", "high"),
    [
        ("ventricle", -2.5, -2.5, INTERIOR, 1.3, 5.0),
        ("skull base at the brain's edge", -2.5, -2.5, EDGE, -5.5, 0.3),
        ("vessel, dark on FLAIR only", 2.0, -2.5, INTERIOR, -2.8, -0.5),
        ("average tissue", 0.0, 0.0, INTERIOR, -0.2, 1.0),
        ("lesion", -0.5, 2.5, INTERIOR, 0.3, 4.0),
        ("outside the brain", -3.0, -3.0, BACKGROUND, -3.5, -1.5),
    ],
)
def test_each_tissue_has_its_brightness(
    name: str, t1c: float, flair: float, code: int, low: float, high: float
) -> None:
    values = draw_pixels(t1c, flair, code)
    assert low <= values.min() and values.max() <= high, (name, values.min(), values.max())
    assert values.std() > 0.01, "every draw must differ"


def test_a_lesion_is_brighter_than_tissue_and_fluid_than_both() -> None:
    tissue, lesion, fluid = draw_pixels(0.0, 0.0), draw_pixels(-0.5, 2.5), draw_pixels(-2.5, -2.5)
    assert (lesion > tissue).all()
    assert (fluid > tissue).all() and fluid.mean() > lesion.mean() + 0.5


def test_neighbouring_slices_share_the_contrast_and_samples_do_not() -> None:
    torch.manual_seed(1)
    shape = (3, 3, 2, 2)
    t2 = draw_synthetic_t2(torch.zeros(shape), torch.ones(shape), torch.full(shape, INTERIOR))
    assert all((one == one[0, 0, 0]).all() for one in t2)
    assert len({float(one[0, 0, 0]) for one in t2}) == 3


def test_real_t2_and_t1c_are_kept() -> None:
    torch.manual_seed(2)
    image = torch.randn(2, 6, 8, 8).half()
    region = torch.full((2, 3, 8, 8), INTERIOR, dtype=torch.uint8)
    region[1] = UNCHANGED
    changed = replace_by_synthetic_t2(image, region)
    assert torch.equal(changed[:, :3], image[:, :3].float())
    assert torch.equal(changed[1], image[1].float())
    assert not torch.isclose(changed[0, 3:], image[0, 3:].float()).all(dim=0).any()


def test_every_range_is_used() -> None:
    assert all(low < high for low, high in PARAMETER_RANGES.values())
    torch.manual_seed(3)
    image = torch.randn(1, 2, 40, 40)
    region = torch.full((1, 1, 40, 40), INTERIOR, dtype=torch.uint8)
    assert replace_by_synthetic_t2(image, region).isfinite().all()


# ---- in training --------------------------------------------------------------------------------------


def create_dataset(patients: str) -> SliceDataset:
    """Create two slices of 32 x 32 pixels per patient: T1C and a second sequence with a bright square."""
    count = 2 * len(patients)
    lesion = torch.zeros(count, 32, 32, dtype=torch.uint8)
    lesion[:, 12:20, 12:20] = 1
    image = torch.stack([torch.zeros(count, 32, 32), 2.0 * lesion], dim=1).half()
    grade = torch.zeros(count, dtype=torch.long)
    return SliceDataset(image, lesion, grade, torch.arange(count) // 2, tuple(patients))


def test_joined_slices_keep_their_regions_and_weights() -> None:
    synthetic = add_synthesis_region(create_dataset("ab"), [np.ones((2, 32, 32), bool)] * 2, 0)
    real = replace(create_dataset("c"), draw_weight=torch.tensor([3]))
    joined = join_datasets(synthetic, real)
    assert joined.synthesis_region is not None and joined.draw_weight is not None
    assert joined.synthesis_region.amin(dim=(1, 2, 3)).tolist() == [EDGE] * 4 + [UNCHANGED] * 2
    assert joined.synthesis_region.shape == (6, 1, 32, 32) and joined.draw_weight.tolist() == [1, 1, 3]
    sampler = EpochSampler(joined, slices_per_patient=4, lesion_share=0.5)
    drawn = joined.patient[list(sampler)].bincount().tolist()
    assert drawn == [4, 4, 12] and len(sampler) == 20
    plain = join_datasets(create_dataset("a"), create_dataset("b"))
    assert plain.synthesis_region is None and plain.draw_weight is None


def test_the_network_sees_another_t2_in_every_step() -> None:
    config = SegmentationTrainingConfig(
        UNetSettings(inputs=2, width=4), Augmentation(crop=32, shift=0, quarter_turns=False, noise=0.0)
    )
    dataset = join_datasets(
        add_synthesis_region(create_dataset("a"), [np.ones((2, 32, 32), bool)], 0), create_dataset("b")
    )
    module = SegmentationTrainingModule(config, torch.ones(32, 32))
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    seen: list[torch.Tensor] = []
    module.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    region = dataset.synthesis_region
    assert region is not None
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        loss = module.training_step([dataset.image, dataset.lesion, dataset.grade, region], 0)
        assert loss.isfinite()
    first, second, again = seen
    assert torch.equal(first, again), "the same seed must give the same T2"
    assert not torch.isclose(first[:2, 1, 12:20, 12:20], second[:2, 1, 12:20, 12:20]).any()
    assert torch.equal(first[2:], second[2:]), "real T2 is not changed"
    torch.testing.assert_close(first[2:], dataset.image[2:].float())
