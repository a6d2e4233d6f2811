"""Every defect of a weights file is reported when it is loaded, in one sentence, in both languages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.models.broken_weights import BROKEN, BrokenFile, write_tiny

from gliomark.errors import GliomarkError
from gliomark.messages import Message, render_message
from gliomark.model_loading import load_model


def test_the_tiny_model_is_valid(tmp_path: Path) -> None:
    model = load_model(write_tiny(tmp_path / "小 a.safetensors"))
    assert list(model.classifiers) == ["idh"] and model.card.markers["idh"].calibration == (0.0, 1.0)
    assert model.identity.signature == "unsigned" and len(model.sha256) == 64


def test_a_link_to_a_file_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "link.safetensors").symlink_to(write_tiny(tmp_path / "a.safetensors"))
    assert load_model(tmp_path / "link.safetensors").sha256 == load_model(tmp_path / "a.safetensors").sha256


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_refused_in_one_sentence(broken: BrokenFile, tmp_path: Path) -> None:
    path = tmp_path / "模型 a.safetensors"
    broken.write(path)
    with pytest.raises(GliomarkError) as caught:
        load_model(path)
    error_text = caught.value.message
    assert isinstance(error_text, Message) and "\n" not in error_text and len(error_text) < 700
    assert str(path) in error_text
    for word in broken.expected_words:
        assert word in error_text, f"{word!r} is not in: {error_text}"
    chinese = render_message(error_text, "zh")
    assert any("一" <= character <= "鿿" for character in chinese) and chinese != str(error_text)
    assert {file.name for file in tmp_path.iterdir()} <= {path.name}, "something was unpickled or left behind"


@pytest.mark.slow
@pytest.mark.parametrize(("target", "count"), [("file", 400), ("card", 1500), ("trees", 1500), ("model", 60)])
def test_mutations_with_a_valid_hash_are_refused_or_predict_finite_numbers(target: str, count: int) -> None:
    """Run in a separate process, which no mutation may terminate. GLIOMARK_FUZZ=20 runs twenty times as many."""
    count *= int(os.environ.get("GLIOMARK_FUZZ", "1"))
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), *filter(None, sys.path)])}
    command = [sys.executable, str(Path(__file__).with_name("fuzz_weights.py")), target, "1", str(count)]
    completed = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    *attempts, last = completed.stdout.strip().splitlines()
    assert completed.returncode == 0, f"ended by {completed.returncode} at {last}: {completed.stderr[-2000:]}"
    word, refused, _, answered = last.split()
    assert word == "refused" and int(refused) + int(answered) == count == len(attempts)
    assert int(refused) > count / 4 and int(answered) > 0
