"""MIG-Net with U-Net's encoder and decoder: the same parts at the same positions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gliomark.models.published.convolutional_backbone import ConvolutionalDecoder, ConvolutionalEncoder
from gliomark.models.published.mignet import InvertedAttentionGate, MIGNetSettings, build_mignet
from gliomark.models.published.swin_unet import SwinSize

SETTINGS = MIGNetSettings(
    inputs=2, size=SwinSize(4, depths=(2, 2, 2), heads=(1, 1, 1)), backbone="convolution"
)
IDENTITY = torch.eye(2, 3)[None]


def test_levels_halve_in_size_and_double_in_channels() -> None:
    features = ConvolutionalEncoder(2, (4, 8, 16))(torch.randn(3, 2, 16, 24))
    assert [tuple(f.shape) for f in features] == [(3, 4, 16, 24), (3, 8, 8, 12), (3, 16, 4, 6)]


@pytest.mark.parametrize("side", [16, 18, 30], ids=["even", "odd at the third level", "odd at the second"])
def test_outputs_have_the_size_of_the_input(side: int) -> None:
    network = build_mignet(SETTINGS).eval()
    output = network(torch.randn(1, 2, side, side), IDENTITY)
    assert output.logits.shape == (1, 2, side, side) and output.grade_logits.shape == (1, 2)


def test_the_three_switches_work_as_in_swin_unet() -> None:
    convolutional, swin = build_mignet(SETTINGS), build_mignet(replace(SETTINGS, backbone="swin"))
    assert isinstance(convolutional.encoder, ConvolutionalEncoder) and isinstance(
        convolutional.decoder, ConvolutionalDecoder
    )
    shapes = [
        {name: tuple(p.shape) for name, p in network.guidance.named_parameters()}
        for network in (convolutional, swin)
    ]
    assert shapes[0] == shapes[1]
    assert [g.wx.weight.shape for g in convolutional.decoder.gates] == [
        g.wx.weight.shape for g in swin.decoder.gates
    ]
    assert all(isinstance(gate, InvertedAttentionGate) for gate in convolutional.decoder.gates)
    off = build_mignet(replace(SETTINGS, fpg=False, guidance=False, iag=False))
    assert off.guidance is None and off(torch.randn(1, 2, 16, 16)).grade_logits is None


def test_a_closed_gate_blocks_the_skip_and_deep_supervision_is_active_in_training() -> None:
    network = build_mignet(replace(SETTINGS, deep_supervision=True)).train()
    output = network(torch.randn(2, 2, 16, 16), IDENTITY.expand(2, -1, -1))
    assert [tuple(d.shape) for d in output.deep_supervision_logits] == [(2, 2, 16, 16)]
    network.eval()
    for gate in network.decoder.gates:
        torch.nn.init.zeros_(gate.psi.weight)
        torch.nn.init.constant_(gate.psi.bias, -80.0)
    bottleneck = torch.randn(1, 16, 4, 4)
    features = [torch.randn(1, 4, 16, 16), torch.randn(1, 8, 8, 8), bottleneck]
    others = [torch.randn_like(f) for f in features]
    with torch.no_grad():
        one, two = (network.decoder(f, bottleneck)[0] for f in (features, others))
    torch.testing.assert_close(one, two)
