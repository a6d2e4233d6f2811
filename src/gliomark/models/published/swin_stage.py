"""A stage of Swin-UNet (Cao et al. 2022): MONAI's Swin blocks, also on grids smaller than a window. Tensors only."""

from __future__ import annotations

from typing import cast

from einops import rearrange
from monai.networks.nets.swin_unetr import BasicLayer, WindowAttention, compute_mask, get_window_size
from torch import Tensor, nn


class SmallGridWindowAttention(WindowAttention):
    """Window attention with correct relative positions when the grid is smaller than the window.

    MONAI takes the first n rows and columns of the full window's index, which belong to other pairs of pixels.
    ``window``, the window's size within the grid, is set by the stage before each call.
    """

    window: tuple[int, ...]
    relative_position_index: Tensor
    qkv: nn.Linear
    proj: nn.Linear

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Return tokens ``(windows, h * w, C)`` after attention.

        mask ``(windows of a slice, h * w, h * w)`` is added to the scores.
        """
        count = tokens.shape[1]
        query, key, value = rearrange(self.qkv(tokens), "b n (t h d) -> t b h n d", t=3, h=self.num_heads)
        scores = (query * self.scale) @ key.transpose(-2, -1) + self._compute_position_bias()
        if mask is not None:
            scores = scores.unflatten(0, (-1, len(mask))) + mask[:, None]
            scores = scores.flatten(0, 1)
        mixed = scores.softmax(dim=-1).to(value.dtype) @ value
        output: Tensor = self.proj(mixed.transpose(1, 2).reshape(-1, count, self.dim))
        return output

    def _compute_position_bias(self) -> Tensor:
        """Return the relative position bias between all pairs of the window's n pixels, ``(heads, n, n)``."""
        height, width = self.window
        whole = self.relative_position_index.view(*self.window_size, *self.window_size)
        index = whole[:height, :width, :height, :width]
        bias = self.relative_position_bias_table[index.reshape(-1)]
        return rearrange(bias, "(n m) h -> h n m", n=height * width)


class SwinStage(BasicLayer):
    """Swin blocks with regular and shifted windows in alternation; ``(B, C, H, W)`` keeps its shape."""

    def __init__(self, channels: int, depth: int, heads: int, window: int) -> None:
        sides = (window, window)
        super().__init__(channels, depth, heads, sides, drop_path=[0.0] * depth, qkv_bias=True)
        for block in self.blocks:
            block.attn = SmallGridWindowAttention(channels, heads, sides, qkv_bias=True)

    def forward(self, feature: Tensor) -> Tensor:
        """Return the feature ``(B, C, H, W)`` after all blocks."""
        feature = rearrange(feature, "b c h w -> b h w c")
        sides = feature.shape[1:3]
        window, shift = get_window_size(sides, self.window_size, self.shift_size)
        padded = [side + -side % step for side, step in zip(sides, window, strict=True)]
        mask = compute_mask(padded, window, shift, feature.device) if any(shift) else None
        for block in self.blocks:
            cast(SmallGridWindowAttention, block.attn).window = window
            feature = block(feature, mask)
        return rearrange(feature, "b h w c -> b c h w")
