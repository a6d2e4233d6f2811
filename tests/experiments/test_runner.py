"""The runner: folds stored by version 0.1 are found, runs wait for those they need, published values are added."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gliomark.errors import CohortError, ConfigurationError
from gliomark.experiments import runner
from gliomark.experiments.config import ExperimentConfig
from gliomark.experiments.demonstration import FinalNetworkProcedure
from gliomark.experiments.markers import runs as marker_runs
from gliomark.experiments.markers.procedure import MarkerProcedure, load_marker_data
from gliomark.experiments.result_files import to_folder_name
from gliomark.experiments.runner import (
    PublishedValues,
    TrainingJob,
    TrainingProcedure,
    add_published_values,
    complete_jobs,
    find_finished_job,
    order_by_dependency,
)
from gliomark.experiments.segmentation.procedure import SegmentationProcedure, SegmentationRun
from gliomark.experiments.segmentation.runs import PRESETS, create_comparison_run
from gliomark.models.published.kinet import KiNetSettings, KiNetSize
from gliomark.models.published.mignet import MIGNetSettings
from gliomark.models.published.swin_unet import SwinSize
from gliomark.training.augmentation import GENTLE_AUGMENTATION
from gliomark.training.markers import MarkerTrainingConfig
from gliomark.training.recipes import MARKER_DEFINITIONS
from gliomark.training.segmentation import SegmentationTrainingConfig

STORED_FOLDS = Path(__file__).parent / "stored_folds"


def create_segmentation_run() -> SegmentationRun:
    run = create_comparison_run("U-Net", PRESETS["quick"])
    network = replace(run.training.network, width=4)
    training = replace(run.training, epochs=1, batch=16, slices_per_patient=2, validate_every=1)
    return replace(run, training=replace(training, network=network))


def create_marker_run() -> marker_runs.MarkerRun:
    size = KiNetSize(stem=8, widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1), pool=4)
    training = MarkerTrainingConfig(
        KiNetSettings(size=size), GENTLE_AUGMENTATION, "bms", rate=1e-3, epochs=1, slices_per_patient=1
    )
    return marker_runs.MarkerRun(marker_runs.KINET, training, stacked=True)


def create_final_run() -> SegmentationRun:
    network = MIGNetSettings(inputs=2, size=SwinSize(embedding=8, depths=(1, 1, 1), heads=(1, 2, 2), patch=4))
    training = SegmentationTrainingConfig(
        network,
        GENTLE_AUGMENTATION,
        pool=4,
        rate=1e-3,
        batch=4,
        epochs=1,
        validate_every=0,
        slices_per_patient=2,
    )
    name = "shipped network + flips, finer pixels, small pieces dropped"
    run = SegmentationRun(name, training, "joint", weights_of="shipped network", flips=True)
    return replace(run, smallest_share=0.2, read_pool=1.2)


@pytest.mark.parametrize(
    ("name", "procedure", "run", "excluded_folds", "path"),
    [
        (
            "segmentation",
            SegmentationProcedure(),
            create_segmentation_run(),
            (0,),
            "segmentation/u-net/fold_1.json",
        ),
        (
            "markers",
            MarkerProcedure(MARKER_DEFINITIONS["idh"]),
            create_marker_run(),
            (0,),
            "markers/idh/kinet/fold_1.json",
        ),
        ("final_network", FinalNetworkProcedure(), create_final_run(), (), "shipped.json"),
    ],
    ids=["segmentation", "markers", "final network"],
)
def test_a_fold_of_version_0_1_is_found(
    tiny_cohort_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    procedure: TrainingProcedure,
    run: object,
    excluded_folds: tuple[int, ...],
    path: str,
) -> None:
    """Record paths and keys are those of version 0.1, and the record is written again as it was."""
    load_marker_data.cache_clear()
    content = (STORED_FOLDS / f"{name}.json").read_text("utf-8")
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(content, "utf-8")
    job = TrainingJob(run, excluded_folds, (tiny_cohort_folder,), tmp_path)
    finished = find_finished_job(job, procedure)
    assert finished is not None
    stored = json.loads(content)
    assert json.dumps(procedure.to_record(finished)) == json.dumps(stored)
    config = ExperimentConfig((tiny_cohort_folder,), tmp_path, "quick", 0, None, lambda _: None)
    monkeypatch.setattr(runner, "execute_job", lambda *_, **__: pytest.fail("trained again"))
    assert complete_jobs([job], procedure, config) == {job: finished}
    (tmp_path / path).write_text(json.dumps(stored | {"key": {}}), "utf-8")
    with pytest.raises(CohortError, match="other settings, patients, images or weights; delete that folder"):
        find_finished_job(job, procedure)


def create_jobs(**depends_on: str | None) -> list[TrainingJob]:
    training = create_segmentation_run().training
    runs = [SegmentationRun(name, training, weights_of=other) for name, other in depends_on.items()]
    return [TrainingJob(run, (fold,), (), Path()) for fold in (0, 1) for run in runs]


def test_a_run_comes_after_the_run_it_needs() -> None:
    jobs = create_jobs(third="second", first=None, second="first", elsewhere="not in this table")
    generations = [[(j.run.name, j.fold_index) for j in part] for part in order_by_dependency(jobs)]
    assert generations == [
        [("first", 0), ("elsewhere", 0), ("first", 1), ("elsewhere", 1)],
        [("second", 0), ("second", 1)],
        [("third", 0), ("third", 1)],
    ]
    assert order_by_dependency([]) == []


def test_runs_that_need_each_other_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="first, second need each other's networks"):
        order_by_dependency(create_jobs(first="second", second="first"))


def test_published_values_are_added_beside_measured_ones() -> None:
    rows = pd.DataFrame(
        {"run": ["a", "b"], "auc": [0.7, 0.8], "auc_high_95": [1.0, 1.0], "kappa": [0, 0], "kappa_high_95": 1}
    )
    published = PublishedValues("run", ("auc", "kappa"), {"a": (0.75, 0.4), "b": (0.85,)}, "a thesis")
    table = add_published_values(rows, published)
    assert list(table) == [
        "run", "auc", "auc_high_95", "published_auc", "kappa", "kappa_high_95", "published_kappa",
    ]  # fmt: skip
    np.testing.assert_array_equal(table["published_auc"], [0.75, 0.85])
    np.testing.assert_array_equal(table["published_kappa"], [0.4, np.nan])
    after_run = add_published_values(rows, replace(published, inserted_after="run"))
    assert list(after_run)[:4] == ["run", "published_auc", "published_kappa", "auc"]


def test_two_markers_never_share_a_folder() -> None:
    markers = ["idh", "端粒酶", "甲基化", "ki_67x", "ki-67x", "KI-67X", "who_grade"]
    names = [to_folder_name(marker) for marker in markers]
    assert len(set(names)) == len(markers) and names[0] == "idh"
    assert all(name.isascii() and name for name in names)
