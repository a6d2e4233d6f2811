"""Outline of T1C and T2: a patient of both cohorts is never trained on and tested, and the result is one weights file.

The corner pixel of every slice is the patient's number, so that the patients of the training slices are known.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.conftest import create_tiny_stack

from gliomark.cohort.store import Cohort, write_json, write_patient
from gliomark.errors import GliomarkError
from gliomark.evaluation.intervals import bootstrap_interval
from gliomark.experiments import t2_outline
from gliomark.experiments.config import ExperimentConfig
from gliomark.experiments.segmentation import result_tables
from gliomark.experiments.segmentation.procedure import SegmentationRun
from gliomark.experiments.segmentation.result_tables import list_shipped_runs
from gliomark.experiments.t2_outline import (
    EPOCH_COUNT,
    REAL_T2_DRAW_WEIGHT,
    T2Patients,
    create_t2_run,
    run_t2_outline,
    split_t2_patients,
)
from gliomark.model_loading import load_weights_by_name
from gliomark.models.comparison.unet import UNetSettings
from gliomark.models.weights import Weights, load_weights
from gliomark.study import MRSequence
from gliomark.training.slice_dataset import SliceDataset
from gliomark.training.synthetic_t2 import UNCHANGED

WITH_T2 = (1, 5, 8, 20)  # the last one is in no other cohort


@pytest.fixture(scope="module")
def t2_cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Three of the fifteen patients, and one more, with T2 instead of FLAIR."""
    return write_t2_cohort(tmp_path_factory.mktemp("t2"), "P")


def write_t2_cohort(folder: Path, id_prefix: str) -> Cohort:
    rows = ["id,age,sex"]
    for number in WITH_T2:
        stack = create_tiny_stack(number, id_prefix)
        images = {
            MRSequence.T1C: stack.images[MRSequence.T1C],
            MRSequence.T2: stack.images[MRSequence.FLAIR],
        }
        write_patient(folder, replace(stack, images=images))
        rows.append(f"{stack.patient_id},50,0")
    (folder / "MetaMS.csv").write_text("\n".join(rows) + "\n", "utf-8")
    sequences = [MRSequence.T1C, MRSequence.T2]
    write_json(folder / "cohort.json", {"schema_version": 1, "sequences": sequences, "settings": {"k": 20}})
    return Cohort(folder)


def create_config(cohorts: tuple[Cohort, Cohort], out: Path) -> ExperimentConfig:
    return ExperimentConfig(tuple(one.folder for one in cohorts), out, "shipped", 0, None, lambda _: None)


def create_tiny_run(cohort: Cohort) -> SegmentationRun:
    """The run with a tiny network, one epoch and no pretrained weights."""
    run = create_t2_run(cohort)
    network = UNetSettings(inputs=run.training.network.inputs, width=2)
    training = replace(run.training, network=network, epochs=1, batch=8, slices_per_patient=2, imagenet=False)
    return replace(run, training=training)


def read_patients(dataset: SliceDataset) -> set[str]:
    """Ids of the patients of these slices, from the number in the corner pixel."""
    return {f"P{round(float(value)):02d}" for value in dataset.image[:, 0, 0, 0]}


def test_the_run_is_that_of_the_shipped_weights(tiny_cohort: Cohort) -> None:
    run = create_t2_run(tiny_cohort)
    shipped = list_shipped_runs(tiny_cohort)[-1]
    assert replace(run.training, epochs=14) == shipped.training and run.training.imagenet
    assert (run.training.epochs, run.rule, run.flips) == (EPOCH_COUNT, "joint", True)
    assert run.training.network.inputs == 6 and run.depends_on == ()


@pytest.mark.slow
def test_no_tested_patient_is_trained_on_in_either_cohort(
    tiny_cohort: Cohort, t2_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_on: list[SliceDataset] = []
    train = t2_outline.train_segmentation_network

    def record_training(dataset: SliceDataset, *arguments: object):  # type: ignore[no-untyped-def]
        trained_on.append(dataset)
        return train(dataset, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(t2_outline, "train_segmentation_network", record_training)
    monkeypatch.setattr(t2_outline, "create_t2_run", create_tiny_run)
    monkeypatch.setattr(result_tables, "bootstrap_interval", partial(bootstrap_interval, resamples=50))
    demo = load_weights_by_name("demo")
    model = replace(demo, card=replace(demo.card, preparation={"k": 20}))
    run_t2_outline(create_config((tiny_cohort, t2_cohort), tmp_path), model)
    with_t2 = {f"P{number:02d}" for number in WITH_T2}
    everybody = {*tiny_cohort.patient_ids, "P20"}
    held_back = [everybody - read_patients(dataset) for dataset in trained_on]
    assert held_back == [{"P01", "P08"}, {"P05", "P20"}]
    for dataset, absent in zip(trained_on, held_back, strict=True):
        assert dataset.synthesis_region is not None
        is_real = dataset.synthesis_region.flatten(1).amax(dim=1) == UNCHANGED
        real = replace(dataset, image=dataset.image[is_real])
        assert read_patients(real) == with_t2 - absent
    check_result(tmp_path, with_t2, everybody, model)
    trained_on.clear()
    run_t2_outline(create_config((tiny_cohort, t2_cohort), tmp_path), model)
    assert trained_on == [], "finished trainings are not repeated"


def check_result(out: Path, with_t2: set[str], everybody: set[str], model: Weights) -> None:
    patients = pd.read_csv(out / "t2_outline_patients.csv")
    assert sorted(patients["patient"]) == sorted(with_t2)
    summary = pd.read_csv(out / "t2_outline.csv").iloc[0]
    assert summary["patients"] == len(with_t2) and np.isclose(
        summary["dice"], patients["dice"].mean(), atol=1e-4
    )
    for row in patients.itertuples():
        card = load_weights(out / "work" / "t2" / f"group_{row.fold}.safetensors").card
        assert row.patient not in card.training_patients and card.sequences == ("T1C", "T2")
    joined = load_weights(out / "demonstration.safetensors")
    second = joined.card.second_segmentation
    assert second is not None and set(second.training_patients) == everybody - {"P01", "P08"}
    assert f"mean Dice {summary['dice']:.2f}" in second.segmentation_performance
    for name, tensor in model.tensors.items():
        assert np.array_equal(joined.tensors[name], tensor), name
    assert (out / "t2_outline_run_record.json").exists()


def test_real_t2_is_drawn_more_often(tiny_cohort: Cohort, t2_cohort: Cohort) -> None:
    patients = split_t2_patients(tiny_cohort, t2_cohort, ())
    assert (len(patients.synthetic), len(patients.real), patients.test) == (15, 4, ())
    dataset = t2_outline.load_t2_dataset(tiny_cohort, t2_cohort, patients, 1)
    assert dataset.draw_weight is not None
    assert dataset.draw_weight.tolist() == [1] * 15 + [REAL_T2_DRAW_WEIGHT] * 4
    assert dataset.image.shape[1] == 6 and dataset.synthesis_region is not None
    assert dataset.synthesis_region.shape[1] == 3


@pytest.mark.parametrize(
    ("synthetic", "real"), [(("P01", "P02"), ("P02",)), (("P02",), ("P01",)), (("P01",), ())]
)
def test_a_tested_patient_among_the_training_patients_is_refused(
    synthetic: tuple[str, ...], real: tuple[str, ...]
) -> None:
    with pytest.raises(GliomarkError, match="P01 is in both 'trained on' and 'tested on'"):
        T2Patients(synthetic, real, ("P01",))


def test_unsuitable_cohorts_are_refused(tiny_cohort: Cohort, t2_cohort: Cohort, tmp_path: Path) -> None:
    strangers = write_t2_cohort(tmp_path / "other", "Q")
    with pytest.raises(GliomarkError, match="No patient of .* is in .*keep-ids"):
        split_t2_patients(tiny_cohort, strangers, (0,))
    swapped = create_config((t2_cohort, tiny_cohort), tmp_path)
    with pytest.raises(GliomarkError, match="must be prepared with --sequences T1C,FLAIR"):
        run_t2_outline(swapped, load_weights_by_name("demo"))
