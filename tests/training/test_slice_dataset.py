"""Slices are put together without holding them twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gliomark.training.slice_dataset import concatenate_and_release


@pytest.mark.parametrize("lengths", [(3,), (1, 4, 0, 2), (2, 2)])
@pytest.mark.parametrize("kind", [torch.float16, torch.uint8])
def test_the_parts_stand_in_their_order(lengths: tuple[int, ...], kind: torch.dtype) -> None:
    parts = [(100 * torch.rand(length, 2, 5)).to(kind) for length in lengths]
    expected = torch.cat(parts)
    found = concatenate_and_release(parts)
    assert torch.equal(found, expected) and found.dtype == kind and not parts


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak memory is read from /proc")
def test_the_parts_are_not_held_twice() -> None:
    program = (
        "import re, torch\n"
        "from pathlib import Path\n"
        "from gliomark.training.slice_dataset import concatenate_and_release\n"
        "def measure(name):\n"
        "    return int(re.search(name + r':\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 1024\n"
        "parts = [torch.ones(10, 2**20, dtype=torch.uint8) for _ in range(40)]\n"
        "before = measure('VmRSS')\n"
        "whole = concatenate_and_release(parts)\n"
        "print(measure('VmHWM') - before)\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert float(output) < 60  # MB, of 400
