"""Each corrected error is put back for its training alone."""

from __future__ import annotations

import pytest
import torch
from benchmarks.corrected_errors import CorrectedError, format_run_name, list_errors, list_runs, restore_error

from gliomark.experiments.segmentation.procedure import SegmentationRun
from gliomark.training.segmentation import SegmentationTrainingModule

RUNS = {run.name: run for run in list_runs()}
CODE_ERRORS = {name: error for name, error in list_errors().items() if error.replacements}


def compute_loss(run: SegmentationRun, monkeypatch: pytest.MonkeyPatch) -> float:
    """Loss of the first step on two slices."""
    torch.manual_seed(0)
    monkeypatch.setattr(SegmentationTrainingModule, "current_epoch", 0)
    monkeypatch.setattr(SegmentationTrainingModule, "log", lambda *_, **__: None)
    module = SegmentationTrainingModule(run.training, torch.rand(240, 240) ** 4)
    image, lesion = torch.randn(4, 1, 240, 240), torch.zeros(4, 240, 240)
    lesion[:, 100:140, 90:150] = 1
    torch.manual_seed(1)
    return float(module.training_step((image, lesion, torch.tensor([0, 1, 1, 0])), 0))


@pytest.mark.parametrize("name", CODE_ERRORS)
def test_an_error_changes_the_training_while_it_is_put_back(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error: CorrectedError = CODE_ERRORS[name]
    now = compute_loss(RUNS[error.base], monkeypatch)
    with restore_error(error):
        with_error = compute_loss(RUNS[format_run_name(name)], monkeypatch)
    assert abs(with_error - now) > 1e-5
    assert compute_loss(RUNS[error.base], monkeypatch) == now


def test_the_epoch_is_selected_by_a_setting_alone() -> None:
    run = RUNS[format_run_name("epoch selected on validation patients")]
    assert run.training.validate_every == 1
    assert RUNS["MIG-Net"].training.validate_every == 0
