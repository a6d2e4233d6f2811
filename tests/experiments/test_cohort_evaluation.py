"""``gliomark evaluate --model --cohort``: the answers that the product gives, on patients not trained on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.conftest import PAIR
from tests.pipeline.conftest import drawn_images, reader_pool, run_command, tiny_weights

from gliomark.cohort.store import Cohort
from gliomark.errors import CohortError
from gliomark.evaluation.metrics import auc, dice
from gliomark.experiments.cohort_evaluation import evaluate_on_cohort
from gliomark.model_loading import Model, build_model
from gliomark.models.weights import load_weights
from gliomark.pipeline import PreparedStudy, predict_prepared
from gliomark.study import MRSequence, Study

__all__ = ["drawn_images", "reader_pool", "run_command", "tiny_weights"]


@pytest.fixture(scope="module")
def model(tiny_weights: Path) -> Model:
    return build_model(load_weights(tiny_weights))


def with_training_patients(model: Model, patients: tuple[str, ...]) -> Model:
    card = replace(model.card, training_patients=patients)
    return replace(model, weights=replace(model.weights, card=card))


def test_every_patient_gets_the_answer_of_the_product(model: Model, tiny_cohort: Cohort) -> None:
    table = evaluate_on_cohort(model, tiny_cohort).patients.set_index("id")
    assert list(table.index) == list(tiny_cohort.patient_ids)
    for patient in table.index[:5]:
        stack, clinical = tiny_cohort.read_stack(patient, PAIR), tiny_cohort.get_clinical(patient)
        expected = predict_prepared(
            PreparedStudy(Study(patient, {}, Path(), "pictures"), stack, {}, 0.0), clinical, model
        )
        row = table.loc[patient]
        assert row.dice == pytest.approx(dice(stack.lesion, expected.segmentation.mask))
        assert row.lesion_volume_ml == pytest.approx(expected.lesion_volume_ml)
        assert row.reference_volume_ml == pytest.approx(stack.lesion.sum() * stack.voxel_volume_ml)
        for marker in expected.markers:
            probability = row[f"{marker.marker}_probability"]
            if marker.probability is None:
                assert np.isnan(probability)
            else:
                assert probability == pytest.approx(marker.probability)


def test_a_marker_is_evaluated_where_both_classes_are_known(model: Model, tiny_cohort: Cohort) -> None:
    evaluation = evaluate_on_cohort(model, tiny_cohort)
    known = evaluation.patients.dropna(subset=["idh", "idh_probability"])
    assert set(evaluation.markers) == {"idh"}  # the cohort has no Ki-67
    assert evaluation.patients["ki67"].isna().all()
    result = evaluation.markers["idh"]
    assert result.overall_statistics.auc.value == pytest.approx(auc(known["idh"], known["idh_probability"]))
    assert [(p.name, p.threshold) for p in result.operating_points] == [("the model's", 0.5), ("0.5", 0.5)]


@pytest.mark.parametrize("count", [1, 4])
def test_patients_trained_on_are_left_out(model: Model, tiny_cohort: Cohort, count: int) -> None:
    seen = tiny_cohort.patient_ids[:count]
    evaluation = evaluate_on_cohort(with_training_patients(model, seen), tiny_cohort)
    assert evaluation.trained_on == seen
    assert not set(seen) & set(evaluation.patients["id"])
    assert len(evaluation.patients) == len(tiny_cohort.patient_ids) - count


@pytest.mark.parametrize(
    ("trained_in", "evaluated", "is_left_out"),
    [("a" * 64, "b" * 64, False), ("a" * 64, "a" * 64, True), ("", "b" * 64, True), ("a" * 64, "", True)],
)
def test_the_same_new_id_in_another_cohort_is_another_patient(
    model: Model, tiny_cohort_folder: Path, tmp_path: Path, trained_in: str, evaluated: str, is_left_out: bool
) -> None:
    folder = tmp_path / "cohort"
    shutil.copytree(tiny_cohort_folder, folder)
    patient = Cohort(folder).patient_ids[0]
    for path in [folder / "patients" / f"{patient}.json", *(folder / "GMSBraTS").glob(f"*/{patient}")]:
        path.rename(path.with_name(path.name.replace(patient, "G0001")))
    table = folder / "MetaMS.csv"
    table.write_text(table.read_text("utf-8").replace(patient, "G0001"), "utf-8")
    metadata = json.loads((folder / "cohort.json").read_text("utf-8"))
    (folder / "cohort.json").write_text(json.dumps(metadata | {"cohort_id": evaluated}), "utf-8")
    other = Cohort(folder).patient_ids[-1]  # an id that no build assigned is the same patient everywhere
    card = replace(model.card, training_patients=("G0001", other), training_cohort_id=trained_in)
    trained = replace(model, weights=replace(model.weights, card=card))
    evaluation = evaluate_on_cohort(trained, Cohort(folder))
    assert set(evaluation.trained_on) == ({"G0001", other} if is_left_out else {other})


@pytest.mark.parametrize(
    ("cells", "labels"),
    [(["1", "0", "NaN", "n/a"], [1, 0]), (["1", "yes"], None), (["1", "inf"], None), (["1", "2"], None)],
)
def test_the_number_of_a_marker_is_read_strictly(
    model: Model, tiny_cohort_folder: Path, tmp_path: Path, cells: list[str], labels: list[int] | None
) -> None:
    folder = tmp_path / "cohort"
    shutil.copytree(tiny_cohort_folder, folder)
    table = pd.read_csv(folder / "MetaMS.csv", dtype=str)
    table["tert"] = [*cells, *([""] * (len(table) - len(cells)))]
    table.to_csv(folder / "MetaMS.csv", index=False)
    marker = replace(model.card.markers["idh"], column="tert", label="positive: tert is 1")
    card = replace(model.card, markers={**model.card.markers, "idh": marker})
    changed = replace(model, weights=replace(model.weights, card=card))
    patients = list(table["id"][: len(cells)])
    if labels is None:
        with pytest.raises(CohortError, match=f"{patients[1]}.*(not a number|should be 0 or 1)"):
            evaluate_on_cohort(changed, Cohort(folder), patients=patients)
    else:
        found = evaluate_on_cohort(changed, Cohort(folder), patients=patients).patients["idh"]
        assert found.dropna().astype(int).tolist() == labels


def test_a_cohort_that_cannot_be_used_is_refused(model: Model, tiny_cohort: Cohort) -> None:
    with pytest.raises(CohortError, match=f"{len(tiny_cohort.patient_ids)} were used to train it"):
        evaluate_on_cohort(with_training_patients(model, tiny_cohort.patient_ids), tiny_cohort)
    card = replace(model.card, sequences=(MRSequence.T1C, MRSequence.T2))
    other = replace(model, weights=replace(model.weights, card=card))
    with pytest.raises(CohortError, match="was not prepared for T2"):
        evaluate_on_cohort(other, tiny_cohort)
    card = replace(model.card, preparation=model.card.preparation | {"pixel_mm": 2.0})
    coarse = replace(model, weights=replace(model.weights, card=card))
    with pytest.raises(CohortError, match="was prepared with other settings than the model's"):
        evaluate_on_cohort(coarse, tiny_cohort)


def test_the_command_writes_tables_and_pages(
    run_command, tiny_weights: Path, tiny_cohort_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "结果 out"
    outcome = run_command("evaluate", "--model", tiny_weights, "--cohort", tiny_cohort_folder, "--out", out)
    assert outcome.status == 0, outcome.stderr
    assert "patients evaluated, 0 left out" in outcome.stdout and "idh: AUC" in outcome.stdout
    assert len(pd.read_csv(out / "predictions.csv")) == len(Cohort(tiny_cohort_folder).patient_ids)
    assert (out / "idh" / "evaluation.html").is_file() and not (out / "ki67").exists()


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--model", "demo"),
        ("--cohort", "c"),
        ("--model", "demo", "--cohort", "c", "--against", "t.csv"),
        ("t.csv", "--model", "demo", "--cohort", "c"),
    ],
)
def test_what_to_evaluate_has_to_be_clear(run_command, tmp_path: Path, words: tuple[str, ...]) -> None:
    outcome = run_command("evaluate", *words, "--out", tmp_path / "out")
    assert outcome.status == 1
    assert (
        "Give a table of predictions, or both --model and --cohort without options of a table."
        in outcome.stderr
    )
    assert not (tmp_path / "out").exists()
