"""KiNet: shapes, fusion ratios, switches, and the parts that inference does not need."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gliomark.models.network_io import build_mix_input
from gliomark.models.published.kinet import (
    SMALL_KINET_SIZE,
    BranchFusion,
    KiNet,
    KiNetSettings,
    KiNetSize,
    build_kinet,
)
from gliomark.training.losses import bms_loss

TINY = KiNetSize(stem=8, widths=(8, 16, 16, 24), blocks=(1, 1, 1, 1))


@pytest.fixture
def tiny_kinet() -> KiNet:
    torch.manual_seed(0)
    return build_kinet(KiNetSettings(size=TINY))


def test_output_shapes(tiny_kinet: KiNet) -> None:
    mix = torch.randn(3, 4, 64, 64)
    output = tiny_kinet(mix)
    assert output["image_vector"].shape == (3, 8 + 16 + 16 + 24)
    assert output["logits"].shape == output["first_logits"].shape == output["second_logits"].shape == (3, 2)
    assert [tuple(s.shape) for s in output["stage_logits"]] == [(3, 2)] * 4
    for branch in ("first_stage_vectors", "second_stage_vectors"):
        assert [tuple(p.shape) for p in output[branch]] == [(3, width) for width in TINY.widths]
    assert [tuple(f.shape[1:]) for f in tiny_kinet.first(mix[:, :2])] == [
        (8, 16, 16),
        (16, 8, 8),
        (16, 4, 4),
        (24, 2, 2),
    ]


@pytest.mark.parametrize(("level", "ratio"), [(0, (1, 2, 1)), (1, (1, 4, 1))])
@pytest.mark.parametrize("size", [TINY, SMALL_KINET_SIZE, KiNetSize()], ids=["tiny", "small", "published"])
def test_fusion_ratios(level: int, ratio: tuple[int, int, int], size: KiNetSize) -> None:
    with torch.device("meta"):
        network = build_kinet(KiNetSettings(size=size))
    assert len(network.fusions) == 2, "the later stages are not fused"
    fusion, channels = network.fusions[level], size.widths[level]
    assert fusion.first.in_channels == fusion.second.in_channels == channels
    parts = (fusion.first.out_channels, channels, fusion.second.out_channels)
    assert tuple(part * ratio[0] / parts[0] for part in parts) == ratio
    assert fusion.mix.in_channels == sum(parts) and fusion.mix.out_channels == channels
    assert fusion.mix.kernel_size == fusion.first.kernel_size == (1, 1)


@torch.no_grad()
def test_fusion_concatenates_first_master_second() -> None:
    fusion = BranchFusion(4, 2)
    first, master, second = torch.randn(3, 1, 4, 5, 5)
    weight = fusion.mix.weight[:, :, 0, 0]
    parts = [fusion.first(first), master, fusion.second(second)]
    columns = weight.split([2, 4, 2], dim=1)
    expected = sum(torch.einsum("oc,bchw->bohw", w, p) for w, p in zip(columns, parts, strict=True))
    torch.testing.assert_close(fusion(first, master, second), expected + fusion.mix.bias[:, None, None])


@torch.no_grad()
def test_published_size() -> None:
    with torch.device("meta"):
        network = build_kinet(KiNetSettings())
    assert sum(p.numel() for p in network.parameters()) == 77_048_174
    assert network.cat_head.in_features == 256 + 512 + 1024 + 2048 == 3840
    assert [len(stage) for stage in network.first.stages] == [3, 4, 6, 3]


def test_merge_in_off_has_no_early_module_and_starts_from_the_auxiliaries() -> None:
    torch.manual_seed(0)
    network = build_kinet(KiNetSettings(merge_in=False, size=TINY)).eval()
    assert network.master is None
    assert not any(name.startswith("master.") for name in network.state_dict())
    mix = torch.randn(2, 4, 64, 64)
    first, second = network.first(mix[:, :2]), network.second(mix[:, 2:])
    vector = network(mix)["image_vector"]
    torch.testing.assert_close(vector[:, :8], (first[0] + second[0]).mean(dim=(2, 3)))


@torch.no_grad()
def test_each_branch_uses_only_its_own_channels(tiny_kinet: KiNet) -> None:
    """The sequences' branches are independent; the main branch uses both sequences, image and lesion."""
    network, mix = tiny_kinet.eval(), torch.randn(1, 4, 64, 64)
    base = network(mix)
    for channel in range(4):
        changed = mix.clone()
        changed[:, channel] += torch.randn(64, 64)
        other = network(changed)
        affected, unaffected = ("first_logits", "second_logits")[:: 1 if channel < 2 else -1]
        assert not torch.equal(other[affected], base[affected])
        torch.testing.assert_close(other[unaffected], base[unaffected], atol=0, rtol=0)
        assert not torch.equal(other["logits"], base["logits"])


@torch.no_grad()
def test_fusion_uses_only_the_first_two_stages(tiny_kinet: KiNet) -> None:
    network, mix = tiny_kinet.eval(), torch.randn(1, 4, 64, 64)
    before = network(mix)["image_vector"]
    for branch in (network.first, network.second):
        for deep in (2, 3):
            for parameter in branch.stages[deep].parameters():
                parameter.add_(torch.randn_like(parameter))
    torch.testing.assert_close(network(mix)["image_vector"], before, atol=0, rtol=0)
    for parameter in network.first.stages[1].parameters():
        parameter.add_(torch.randn_like(parameter))
    after = network(mix)["image_vector"]
    torch.testing.assert_close(after[:, :24], before[:, :24], atol=0, rtol=0)  # stages 1, 2: 8 + 16
    assert not torch.allclose(after[:, 24:40], before[:, 24:40])  # stage 3 receives those of stage 2


@torch.no_grad()
def test_auxiliary_and_stage_heads_are_not_needed_for_prediction(tiny_kinet: KiNet) -> None:
    network, mix = tiny_kinet.eval(), torch.randn(2, 4, 64, 64)
    before = network(mix)
    for head in (network.first_head, network.second_head, *network.stage_heads):
        for parameter in head.parameters():
            parameter.fill_(float("nan"))
    after = network(mix)
    for name in ("image_vector", "logits"):
        torch.testing.assert_close(after[name], before[name], atol=0, rtol=0)
    assert after["first_logits"].isnan().all()


@torch.no_grad()
def test_cat_head_uses_the_four_pooled_stages(tiny_kinet: KiNet) -> None:
    output = tiny_kinet.eval()(torch.randn(2, 4, 64, 64))
    pooled = output["image_vector"].split(TINY.widths, dim=1)
    for part, head, logits in zip(pooled, tiny_kinet.stage_heads, output["stage_logits"], strict=True):
        torch.testing.assert_close(head(part), logits)
    torch.testing.assert_close(tiny_kinet.cat_head(output["image_vector"]), output["logits"])


@pytest.mark.parametrize("merge_in", [True, False])
def test_gradients_reach_every_parameter(merge_in: bool) -> None:
    torch.manual_seed(1)
    network = build_kinet(KiNetSettings(merge_in=merge_in, size=TINY))
    bms_loss(network(torch.randn(4, 4, 64, 64)), torch.tensor([0, 1, 1, 0])).backward()
    unreached = [name for name, p in network.named_parameters() if p.grad is None]
    dead = [name for name, p in network.named_parameters() if p.dim() > 1 and not p.grad.abs().max() > 0]
    assert not unreached and not dead


def test_mix_input_shows_only_the_lesion_on_background() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(2, 3, 8, 8)
    lesion = torch.zeros(3, 8, 8)
    lesion[0, 2:5, 3:6] = 1
    lesion[2] = 1
    mix = build_mix_input(first, second, lesion)
    assert mix.shape == (3, 4, 8, 8)
    for channel, image in ((0, first), (2, second)):
        torch.testing.assert_close(mix[:, channel], image)
        roi: Tensor = mix[:, channel + 1]
        torch.testing.assert_close(roi[0, 2:5, 3:6], image[0, 2:5, 3:6])
        assert (roi[0][lesion[0] == 0] == image[0].min()).all(), "not the slice's own minimum"
        assert (roi[1] == image[1].min()).all()
        torch.testing.assert_close(roi[2], image[2])
