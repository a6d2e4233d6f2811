"""``gliomark explain``: one image per marker, on the slices used, inside the classifier's view."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.pipeline.conftest import reader_pool, run_command

from gliomark import load_model
from gliomark.explanation.branch_maps import compute_branch_maps
from gliomark.models.network_loading import load_marker_network
from gliomark.phantom import create_phantom, write_pictures
from gliomark.pipeline import predict
from gliomark.study import ClinicalData

__all__ = ["reader_pool", "run_command"]


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_pictures(create_phantom(7).study, tmp_path_factory.mktemp("幻影"))
    shutil.rmtree(folder / "mask", ignore_errors=True)
    return folder


def test_one_picture_is_written_per_marker(run_command, patient: Path, tmp_path: Path) -> None:
    outcome = run_command("explain", patient, "--out", tmp_path / "out", "--stage", "2")
    assert outcome.status == 0, outcome.stderr
    pictures = sorted((tmp_path / "out").rglob("*.png"))
    assert [path.name for path in pictures] == ["gradcam_idh.png"]
    image = np.asarray(Image.open(pictures[0]).convert("RGB")).astype(int)
    # the third of five columns shows a heat map over the lesion (more red than blue), the first only its outline
    width = image.shape[1] // 5
    redness = (image[..., 0] - image[..., 2]).clip(min=0)
    plain, with_heat_map = redness[:, :width], redness[:, 2 * width : 3 * width]
    outside_outline = plain < 10
    assert with_heat_map[outside_outline].mean() > 10 * plain[outside_outline].mean()
    assert with_heat_map.mean() > plain.mean() + 1


@pytest.mark.slow
def test_maps_lie_inside_the_view_of_the_classifier(patient: Path) -> None:
    from gliomark import read_study

    model, study = load_model("demo"), read_study(patient)
    prediction = predict(study, ClinicalData(study.patient_id, None, None), model)
    classifier = model.classifiers["idh"]
    index = [int(i) for i in np.flatnonzero(prediction.segmentation.mask.any(axis=(1, 2)))[:2]]
    margin = (240 - classifier.crop_size) // 2
    for heat in compute_branch_maps(
        load_marker_network(model.weights, "idh"),
        classifier,
        prediction.stack,
        prediction.segmentation.mask,
        index,
        3,
    ).values():
        assert heat.shape == (len(index), 240, 240) and heat.min() >= 0 and heat.max() <= 1
        assert not heat[:, :margin].any() and not heat[..., 240 - margin :].any()


def test_a_missing_folder_is_refused(run_command, tmp_path: Path) -> None:
    outcome = run_command("explain", tmp_path / "absent", "--out", tmp_path / "out")
    assert outcome.status == 1 and "absent" in outcome.stderr and "Traceback" not in outcome.stderr
