"""Whatever can be wrong in a weights file is said when it is loaded, in one sentence, in both languages."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.models.broken_weights import BROKEN, Broken, write_tiny

from gliomark.messages import Message, render
from gliomark.pipeline import load_model
from gliomark.study import GliomarkError


def test_the_tiny_model_is_in_order(tmp_path: Path) -> None:
    model = load_model(write_tiny(tmp_path / "小 a.safetensors"))
    assert list(model.classifiers) == ["idh"] and model.card.markers["idh"].calibration == (0.0, 1.0)
    assert model.identity.signature == "unsigned" and len(model.sha256) == 64


def test_a_link_to_a_file_is_the_file(tmp_path: Path) -> None:
    (tmp_path / "link.safetensors").symlink_to(write_tiny(tmp_path / "a.safetensors"))
    assert load_model(tmp_path / "link.safetensors").sha256 == load_model(tmp_path / "a.safetensors").sha256


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_refused_in_one_sentence(broken: Broken, tmp_path: Path) -> None:
    path = tmp_path / "模型 a.safetensors"
    broken.make(path)
    with pytest.raises(GliomarkError) as caught:
        load_model(path)
    said = caught.value.message
    assert isinstance(said, Message) and "\n" not in said and len(said) < 700
    assert str(path) in said
    for word in broken.words:
        assert word in said, f"{word!r} is not in: {said}"
    chinese = render(said, "zh")
    assert any("一" <= sign <= "鿿" for sign in chinese) and chinese != str(said)
    assert {file.name for file in tmp_path.iterdir()} <= {path.name}, "nothing was unpickled or left"
