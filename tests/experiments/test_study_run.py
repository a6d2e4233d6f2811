"""``gliomark study run`` on twelve tiny patients: leaks, resumption, calibration, and what the report claims."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.conftest import PAIR, create_tiny_stack
from tests.training.test_no_leak import Spy, spy
from typer.testing import CliRunner

from gliomark.cli.main import app
from gliomark.cohort.folds import FOLD_COUNT, load_cohort_folds
from gliomark.cohort.store import Cohort, write_json, write_patient
from gliomark.errors import CohortError, ConfigurationError
from gliomark.evaluation.conservative_auc import compute_conservative_auc_interval
from gliomark.evaluation.evaluate import (
    PredictionColumns,
    PredictionTable,
    evaluate_predictions,
    read_predictions,
)
from gliomark.evaluation.metrics import auc
from gliomark.evaluation.sample_size import compute_sample_size
from gliomark.experiments.markers.cascade import load_cascade_labels
from gliomark.experiments.segmentation.procedure import (
    SegmentationRun,
    create_fold_job,
    get_weights_path,
    split_patients_of_fold,
    split_training_part,
)
from gliomark.experiments.segmentation.runs import SHIPPED_EPOCHS
from gliomark.experiments.study.checks import PARAMETER_COUNTS, MarkerCounts, count_marker_patients
from gliomark.experiments.study.claim_checklist import METHODS, RESULTS, list_checklist
from gliomark.experiments.study.claims import list_claims
from gliomark.experiments.study.fold_scores import FoldScoreProcedure, FoldScores
from gliomark.experiments.study.methods import create_training_table
from gliomark.experiments.study.recipes import StudyRecipe, create_study_recipe
from gliomark.experiments.study.report import render_latex_tables
from gliomark.experiments.study.results import MarkerResult, PermutedLabels
from gliomark.experiments.study.run import run_study
from gliomark.experiments.study.training import StudyConfig, choose_recipes, list_permutation_seeds
from gliomark.models.published.kinet import KiNetSettings, KiNetSize
from gliomark.models.published.mignet import MIGNetSettings
from gliomark.models.published.swin_unet import SwinSize
from gliomark.models.weights import load_weights, save_weights
from gliomark.training import recipes
from gliomark.training.augmentation import GENTLE_AUGMENTATION
from gliomark.training.markers import MarkerTrainingConfig, MarkerTrainingModule
from gliomark.training.recipes import MARKER_DEFINITIONS, read_labels_and_values
from gliomark.training.segmentation import SegmentationTrainingConfig
from gliomark.training.stacking import StackingConfig

__all__ = ["spy"]

IDH = MARKER_DEFINITIONS["idh"]
PATIENTS = 12
TINY = StudyRecipe(
    "tiny",
    SegmentationRun(
        "tiny",
        SegmentationTrainingConfig(
            MIGNetSettings(inputs=2, size=SwinSize(embedding=8, depths=(1, 1, 1), heads=(1, 2, 2), patch=4)),
            GENTLE_AUGMENTATION,
            pool=4,
            rate=1e-3,
            batch=4,
            epochs=1,
            slices_per_patient=2,
        ),
        "joint",
    ),
    MarkerTrainingConfig(
        KiNetSettings(size=KiNetSize(stem=8, widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1), pool=4)),
        GENTLE_AUGMENTATION,
        rate=1e-3,
        batch=4,
        epochs=1,
        slices_per_patient=1,
    ),
)


def write_cohort(folder: Path) -> Path:
    rows = ["id,age,sex,idh_mutant,who_grade"]
    for number in range(1, PATIENTS + 1):
        write_patient(folder, create_tiny_stack(number))
        rows.append(f"P{number:02d},{30 + 2 * number},{number // 2 % 2},{number % 2},{2 + number % 3}")
    (folder / "MetaMS.csv").write_text("\n".join(rows) + "\n", "utf-8")
    write_json(folder / "cohort.json", {"schema_version": 1, "sequences": list(PAIR), "settings": {"k": 20}})
    return folder


@pytest.fixture(scope="module", autouse=True)
def use_small_leaves() -> Iterator[None]:
    """Let trees divide the few slices, so that predictions depend on networks and patients."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "StackingConfig", partial(StackingConfig, min_leaf_rows=2))
        yield


@pytest.fixture(scope="module")
def cohort_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("study 研究") / "cohort")


@pytest.fixture(scope="module")
def config(cohort_folder: Path) -> StudyConfig:
    return StudyConfig(cohort_folder, cohort_folder.parent / "out", (IDH,), (TINY,), notify=lambda _: None)


@pytest.fixture(scope="module")
def study(config: StudyConfig) -> Path:
    """The folder of an uninterrupted study."""
    return run_study(config).parent


@pytest.fixture
def cohort_copy(cohort_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(cohort_folder, tmp_path / "cohort")


def score_fold(config: StudyConfig, cohort_folder: Path, index: int) -> FoldScores:
    """Score a fold again, with the finished networks of the study."""
    procedure = FoldScoreProcedure(IDH, (TINY.segmentation,) * FOLD_COUNT)
    job = procedure.list_jobs([TINY.marker_run], FOLD_COUNT, config.experiment)[index]
    return procedure.execute(replace(job, cohort_folders=(cohort_folder,)), Path())


# ---- predictions and model ---------------------------------------------------------------------------


@pytest.mark.slow
def test_every_patient_is_predicted_once_by_the_fold_that_excludes_him(
    study: Path, cohort_folder: Path
) -> None:
    table = pd.read_csv(study / "predictions.csv")
    folds = load_cohort_folds(Cohort(cohort_folder)).folds
    labels, _ = read_labels_and_values(Cohort(cohort_folder), IDH)
    assert dict(zip(table["id"], table["label"], strict=True)) == labels and len(table) == PATIENTS
    assert all(row.id in folds[row.fold - 1] for row in table.itertuples())
    assert table["raw_probability"].nunique() > FOLD_COUNT, "the trees have no split"
    # twelve patients are too few for a calibration: the probabilities are those of the model, rounded
    assert set(table["calibration"]) == {"none"}
    assert np.allclose(table["probability"], table["raw_probability"], atol=1e-6)
    columns = PredictionColumns(row_filters=(("marker", "idh"),))
    assert len(read_predictions(study / "predictions.csv", columns).ids) == PATIENTS


@pytest.mark.slow
def test_the_model_is_trained_on_all_and_keeps_the_calibration_of_the_folds(study: Path) -> None:
    card, table = load_weights(study / "model.safetensors").card, pd.read_csv(study / "predictions.csv")
    assert len(card.training_patients) == PATIENTS
    dice = pd.read_csv(study / "dice.csv").iloc[-1]
    assert f"mean Dice {dice.dice:.2f}" in card.segmentation_performance and dice.patients == PATIENTS
    marker = card.markers["idh"]
    expected = compute_conservative_auc_interval(table["label"], table["probability"])
    assert marker.validation.auc == pytest.approx(expected.value)
    assert (marker.validation.low, marker.validation.high) == pytest.approx((expected.lower, expected.upper))
    assert f"AUC {expected.value:.2f}" in marker.performance
    for scores, label in (
        (marker.patient_calibration.positive_scores, 1),
        (marker.patient_calibration.negative_scores, 0),
    ):
        found = sorted(table.loc[table["label"] == label, "raw_probability"])
        assert np.allclose(scores, found, atol=1e-6)


# ---- leaks -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("study")
def test_no_test_patient_influences_the_scores_of_his_fold(
    config: StudyConfig, cohort_copy: Path, spy: Spy
) -> None:
    """With the labels of the test patients turned round, model, calibration, thresholds and levels stay."""
    index = 1
    test = load_cohort_folds(Cohort(cohort_copy)).folds[index]
    expected = score_fold(config, config.cohort_folder, index)
    assert spy.describe_leaks(test) == [] and len(spy.trees) > FOLD_COUNT
    table = pd.read_csv(cohort_copy / "MetaMS.csv")
    is_test = table["id"].isin(test)
    table.loc[is_test, "idh_mutant"] = 1 - table.loc[is_test, "idh_mutant"]
    table.to_csv(cohort_copy / "MetaMS.csv", index=False)
    found = score_fold(config, cohort_copy, index)
    assert [row["label"] for row in found.patients] == [1 - row["label"] for row in expected.patients]
    turned = [row | {"label": 1 - row["label"]} for row in found.patients]
    assert replace(found, patients=tuple(turned)) == expected


@pytest.mark.slow
@pytest.mark.usefixtures("study")
def test_outlines_by_a_network_that_was_trained_on_a_test_patient_are_refused(
    config: StudyConfig, tmp_path: Path
) -> None:
    work = shutil.copytree(config.experiment.work_folder, tmp_path / "work")
    job = create_fold_job(TINY.segmentation, 0, (config.cohort_folder,), work)
    path, planted = get_weights_path(job), load_cohort_folds(Cohort(config.cohort_folder)).folds[0][0]
    weights = load_weights(path)
    patients = (*weights.card.training_patients, planted)
    save_weights(path, replace(weights.card, training_patients=patients), weights.tensors, lambda _: None)
    with pytest.raises(CohortError, match=f"{planted} is in both 'trained on' and 'tested on'"):
        score_fold(replace(config, output_folder=tmp_path), config.cohort_folder, 0)


def test_recipes_are_compared_on_training_patients_only(cohort_folder: Path, tmp_path: Path) -> None:
    cohort = Cohort(cohort_folder)
    for index, fold in enumerate(load_cohort_folds(cohort).folds):
        job = create_fold_job(TINY.segmentation, index, (cohort_folder,), tmp_path)
        outer, inner = split_patients_of_fold(cohort, job), split_training_part(cohort, job)
        assert outer.test == fold and inner.test and not inner.validation
        assert not set(fold) & {*inner.training, *inner.test}
        assert not set(inner.training) & set(inner.test)


# ---- interruption ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_study_continues_with_the_same_result(
    study: Path, config: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if killed in the third step of several marker networks, then again after a fold was scored."""
    shutil.copytree(study / "work", tmp_path / "work")
    for folder in sorted((tmp_path / "work" / "cascade" / "idh").iterdir())[:5]:
        shutil.rmtree(folder)
    scores = tmp_path / "work" / "scores" / "idh" / "tiny"
    for number in (2, 4):
        (scores / f"fold_{number}.json").unlink()
    step, calls = MarkerTrainingModule.training_step, []

    def interrupt_training(self, batch, index):
        calls.append(index)
        if len(calls) == 3:
            raise RuntimeError("power cut")
        return step(self, batch, index)

    def interrupt_after_a_fold(text: str) -> None:
        if "scored" in text:
            raise RuntimeError("power cut")

    monkeypatch.setattr(MarkerTrainingModule, "training_step", interrupt_training)
    for notify in (lambda _: None, interrupt_after_a_fold):
        with pytest.raises(RuntimeError, match="power cut"):
            run_study(replace(config, output_folder=tmp_path, notify=notify))
        assert not (tmp_path / "predictions.csv").exists() and not (tmp_path / "report.html").exists()
    finished: list[str] = []
    run_study(replace(config, output_folder=tmp_path, notify=finished.append))
    # fold 4, which was being scored when the second run was stopped, may have been finished meanwhile
    scored_again = [text for text in finished if "scored" in text and "fold 4" not in text]
    assert not scored_again, "a finished fold was scored again"
    for name in ("predictions.csv", "claims.csv", "baselines.csv", "subgroups.csv"):
        assert (tmp_path / name).read_bytes() == (study / name).read_bytes()
    models = [load_weights(folder / "model.safetensors") for folder in (study, tmp_path)]
    assert models[0].card.markers == models[1].card.markers
    for name, tensor in models[0].tensors.items():
        assert np.array_equal(tensor, models[1].tensors[name]), name


def test_a_dry_run_states_the_trainings_and_writes_nothing(cohort_copy: Path, tmp_path: Path) -> None:
    (cohort_copy / "folds.json").unlink(missing_ok=True)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    arguments = ["study", "run", "--cohort", str(cohort_copy), "--marker", "idh", "--dry-run"]
    options = ["--out", str(tmp_path / "out"), "--recipe", "small", "--permutations", "3"]
    result = CliRunner().invoke(app, [*arguments, *options])
    assert result.exit_code == 0, result.output
    assert "segmentation, small: 5 trainings" in result.output and "IDH, small: 26 trainings" in result.output
    assert "IDH, small, permuted labels: 75 trainings" in result.output
    assert "In all 107 trainings" in result.output
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "out").exists()


# ---- permuted labels ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_study_with_permuted_labels_trains_and_tests_on_the_permuted_ones(
    study: Path, config: StudyConfig, tmp_path: Path
) -> None:
    shutil.copytree(study / "work", tmp_path / "work")
    run_study(replace(config, output_folder=tmp_path, permutations=1))
    assert (tmp_path / "predictions.csv").read_bytes() == (study / "predictions.csv").read_bytes()
    assert ">Permuted labels</h2>" in (tmp_path / "report.html").read_text("utf-8")
    assert ">Permuted labels</h2>" not in (study / "report.html").read_text("utf-8")
    (seed,) = list_permutation_seeds(Cohort(config.cohort_folder), IDH, 1)
    permuted, _ = load_cascade_labels(Cohort(config.cohort_folder), IDH, seed)
    records = (tmp_path / "work" / "scores" / f"idh-permuted-{seed}" / "tiny").glob("fold_*.json")
    rows = pd.DataFrame([row for path in records for row in json.loads(path.read_text())["patients"]])
    assert len(rows) == PATIENTS and dict(zip(rows["id"], rows["label"], strict=True)) == permuted
    networks = list((tmp_path / "work" / "cascade" / "idh").iterdir())
    assert len(networks) == 26 + 25, "a network of the study was used for permuted labels"
    (found,) = pd.read_csv(tmp_path / "permuted_labels.csv").itertuples()
    assert (found.seed, found.patients) == (seed, PATIENTS)
    assert found.auc == pytest.approx(auc(rows["label"], rows["probability"]), abs=1e-4)


def test_permutations_leave_both_classes_without_any_three_folds(cohort_copy: Path) -> None:
    """Four positive patients in four folds: most permutations put two of them into one fold."""
    cohort = Cohort(cohort_copy)
    folds = load_cohort_folds(cohort)
    table = pd.read_csv(cohort_copy / "MetaMS.csv")
    table["idh_mutant"] = table["id"].isin([fold[0] for fold in folds.folds[:4]]).astype(int)
    table.to_csv(cohort_copy / "MetaMS.csv", index=False)
    cohort = Cohort(cohort_copy)
    seeds = list_permutation_seeds(cohort, IDH, 3)
    for seed in range(1, seeds[-1] + 1):
        labels, _ = load_cascade_labels(cohort, IDH, seed)
        holding = sum(any(labels[patient] for patient in fold) for fold in folds.folds)
        assert sum(labels.values()) == 4 and (holding == 4) == (seed in seeds)
    assert seeds[-1] > 3


def create_permuted(values: list[float]) -> tuple[PermutedLabels, ...]:
    return tuple(PermutedLabels(seed, 100, 0.4, value) for seed, value in enumerate(values, start=1))


@pytest.mark.parametrize(
    ("values", "expected", "is_leak"),
    [
        ([], None, False),
        ([0.9, 0.9], None, True),  # too few for an interval
        ([1.0, 1.0, 1.0, 1.0], (1.0, 1.0, 1.0), True),
        ([0.5, 0.5, 0.5], (0.5, 0.5, 0.5), False),
        ([np.nan, 0.7, 0.72, 0.71, 0.69, 0.7, 0.72], (0.7067, 0.6868, 0.7266), True),
        ([np.nan, np.nan, np.nan], None, True),
        ([0.5, 0.4, 0.6], (0.5, -0.073, 1.073), False),
        ([0.7, 0.72, 0.71, 0.69, 0.7, 0.72], (0.7067, 0.6868, 0.7266), True),
        ([0.3, 0.32, 0.31, 0.29, 0.3, 0.32], (0.3067, 0.2868, 0.3266), False),
    ],
)
def test_nothing_is_claimed_if_permuted_labels_are_predicted(
    values: list[float], expected: tuple[float, float, float] | None, is_leak: bool
) -> None:
    result = replace(create_result(400, 2), permuted=create_permuted(values))
    mean, claims = result.permuted_mean, list_claims(result)
    if expected is None:
        assert np.isnan(mean.value)
    else:
        assert (mean.value, mean.lower, mean.upper) == pytest.approx(expected, abs=1e-3)
    assert (len(claims) == 1 and "nothing may be claimed" in claims[0] and "permuted" in claims[0]) == is_leak


# ---- report ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_with_twelve_patients_the_report_claims_nothing(study: Path) -> None:
    page = (study / "report.html").read_text("utf-8")
    assert f"IDH: nothing may be claimed. {PATIENTS} patients (6 positive)" in page
    assert "it may be claimed" not in page
    assert list(pd.read_csv(study / "claims.csv")["claim"].str.contains("nothing may be claimed")) == [True]
    titles = [
        *("What may be claimed", "Methods", "Training", "Patient flow", "Table 1", "Checks of the data"),
        *("Segmentation", "ROC curve", "Calibration", "Decision curve", "Operating points", "Subgroups"),
        *("Baselines", "Sample size", "Checklist"),
    ]
    positions = [page.index(f">{title}") for title in titles]
    assert positions == sorted(positions), "not in the order of TRIPOD+AI"
    flow = pd.read_csv(study / "patient_flow.csv").set_index("step")["patients"]
    assert flow["included"] == flow["IDH: evaluated"] == PATIENTS
    table_1 = pd.read_csv(study / "table_1.csv", index_col=0)
    assert list(table_1.loc["patients"]) == ["12", "6", "6"]
    assert table_1.loc["sex: female", "all"] == "6 (50 %)"
    groups = pd.read_csv(study / "subgroups.csv")
    assert {"age", "sex", "lesion volume", "WHO grade"} <= set(groups["characteristic"])
    assert (groups.groupby("characteristic")["patients"].sum() == PATIENTS).all()
    assert set(pd.read_csv(study / "baselines.csv")["name"]) == {"age and sex", "lesion volume"}
    latex = (study / "tables.tex").read_text("utf-8")
    assert r"\caption{Characteristics of the patients.}" in latex and r"6 (50 \%)" in latex
    items = pd.read_csv(study / "claim_checklist.csv", keep_default_na=False)
    assert len(items) == 42 and "IDH (positive: IDH1 or IDH2 is mutated" in page


def test_every_part_named_by_the_checklist_is_in_the_report() -> None:
    template = (files("gliomark.reporting") / "templates" / "study.html.j2").read_text("utf-8")
    items = list_checklist(is_evaluated=True, states_de_identification=True)
    assert [item.number for item in items] == list(range(1, 43))
    assert len({item.topic for item in items}) == 42
    sections = {item.section for item in items} - {"", RESULTS}
    assert len(sections) == 7 and all(f"<h2>{section}" in template for section in sections)
    # what the report cannot state is open
    for stated, expected, section in (
        ((False, True), {28, 29, 35, 36}, RESULTS),
        ((True, False), {12}, METHODS),
    ):
        others = list_checklist(*stated)
        assert {one.number for one, other in zip(items, others, strict=True) if one != other} == expected
        assert all(items[number - 1].section == section for number in expected)
        assert all(others[number - 1].section == "" for number in expected)


def test_the_training_table_states_the_settings_of_the_networks() -> None:
    table = create_training_table([create_study_recipe("pretrained", 2), TINY]).set_index(["recipe", "stage"])
    pretrained, tiny = table.loc["pretrained"], table.loc["tiny"]
    assert pretrained.loc["segmentation", "starts from"] == "ImageNet weights"
    assert pretrained.loc["segmentation", "epochs"] == str(SHIPPED_EPOCHS)
    assert pretrained.loc["markers", "starts from"] == "ImageNet weights, frozen"
    assert pretrained.loc["markers", "optimiser"] == "none: linear probe"
    assert (tiny.loc["segmentation", "network"], tiny.loc["markers", "network"]) == ("MIG-Net", "KiNet")
    assert (
        list(tiny["starts from"]) == ["random weights"] * 2 and list(tiny["learning rate"]) == ["0.001"] * 2
    )
    assert "rotation up to 15°" in tiny.loc["segmentation", "augmentation"]


def test_special_characters_are_escaped_in_latex() -> None:
    table = pd.DataFrame({"dice_low_95": [0.12345], "a & b": ["5 % of P_1"], "n": [np.nan]})
    latex = render_latex_tables({"dice": table, "unknown": table})
    assert r"dice low 95 & a \& b & n \\" in latex and r"0.123 & 5 \% of P\_1 & -- \\" in latex
    assert latex.count(r"\begin{table}") == 1 and r"\label{tab:dice}" in latex


def create_result(patients: int, shift: float) -> MarkerResult:
    """Create the result of as many patients of either class, whose scores differ by ``shift`` standard deviations."""
    rng, label = np.random.default_rng(1), np.arange(patients) % 2
    probability = 1 / (1 + np.exp(-(rng.normal(size=patients) + shift * (label - 0.5))))
    ids = tuple(map(str, range(patients)))
    evaluation = evaluate_predictions(
        PredictionTable("IDH", ids, label, probability, None), model_threshold=0.5
    )
    sizes = tuple(compute_sample_size(0.5, count) for count in PARAMETER_COUNTS)
    counts = MarkerCounts(IDH, patients, patients // 2, True, sizes)
    interval = compute_conservative_auc_interval(label, probability)
    return MarkerResult(counts, 0, evaluation, interval)


@pytest.mark.parametrize(
    ("patients", "shift", "expected"),
    [
        (12, 8, ["nothing may be claimed. 12 patients"]),
        (40, 0, ["nothing may be claimed. The 95 % interval"]),
        (100, 4, ["such patients carry information", "may not be claimed that the model works in other"]),
        (400, 0, ["nothing may be claimed. The 95 % interval"]),
        (400, 2, ["ranks and calibrates patients of this", "may not be claimed that the model works in"]),
    ],
)
def test_claims_follow_from_patients_and_interval(patients: int, shift: float, expected: list[str]) -> None:
    claims = list_claims(create_result(patients, shift))
    assert len(claims) == len(expected)
    assert all(part in claim for claim, part in zip(claims, expected, strict=True)), claims


def test_a_marker_that_cannot_be_studied_claims_nothing() -> None:
    result = create_result(12, 8)
    counts = replace(result.counts, can_be_studied=False)
    (claim,) = list_claims(MarkerResult(counts))
    assert "nothing was measured" in claim
    (claim,) = list_claims(MarkerResult(result.counts))
    assert "of one class only" in claim


# ---- choices -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "by_fold", "final"),
    [
        ({}, "tiny tiny tiny tiny tiny", "tiny"),
        ({"tiny": [0.5] * 5, "b": [0.4, 0.6, 0.4, 0.4, 0.4]}, "tiny b tiny tiny tiny", "tiny"),
        ({"tiny": [0.5] * 5, "b": [0.9, 0.4, 0.5, 0.5, 0.5]}, "b tiny tiny tiny tiny", "b"),
        ({"tiny": [0.5, np.nan, 0.5, 0.5, 0.5], "b": [0.1] * 5}, "tiny b tiny tiny tiny", "tiny"),
    ],
)
def test_the_best_of_the_inner_folds_is_chosen(scores, by_fold: str, final: str) -> None:
    compared = [TINY, replace(TINY, name="b")][: max(1, len(scores))]
    choice = choose_recipes(compared, scores)
    assert " ".join(recipe.name for recipe in choice.by_fold) == by_fold
    assert choice.final.name == final


@pytest.mark.parametrize("name", ["published", "small", "pretrained"])
def test_recipes_train_as_the_training_commands(name) -> None:
    recipe = create_study_recipe(name, 2)
    is_joint = name == "pretrained"
    assert recipe.segmentation.rule == ("joint" if is_joint else "union")
    training = recipe.segmentation.training
    assert training.network.inputs == (2 * (1 + 2 * training.context) if is_joint else 1)
    assert recipe.segmentation.flips == is_joint and recipe.markers.imagenet == is_joint


@pytest.mark.parametrize("changes", [{"markers": ()}, {"markers": (IDH, IDH)}, {"recipes": (TINY, TINY)}])
def test_missing_and_repeated_choices_are_refused(config: StudyConfig, changes) -> None:
    with pytest.raises(ConfigurationError, match="each given once"):
        replace(config, **changes)


def test_patients_without_a_drawn_lesion_are_left_out(cohort_copy: Path) -> None:
    without = replace(create_tiny_stack(13), lesion=None)
    write_patient(cohort_copy, without)
    with (cohort_copy / "MetaMS.csv").open("a", encoding="utf-8") as file:
        file.write("P13,50,1,1,3\n")
    (cohort_copy / "folds.json").unlink(missing_ok=True)
    cohort = Cohort(cohort_copy)
    labels, values = read_labels_and_values(cohort, IDH)
    assert "P13" in cohort.patient_ids and len(labels) == PATIENTS and labels.keys() == values.keys()


@pytest.mark.parametrize(("positives", "is_enough"), [(6, True), (3, False)])
def test_both_classes_must_remain_without_three_folds(
    cohort_copy: Path, positives: int, is_enough: bool
) -> None:
    table = pd.read_csv(cohort_copy / "MetaMS.csv")
    folds = load_cohort_folds(Cohort(cohort_copy)).folds
    chosen = [fold[number] for number in (0, 1) for fold in folds if len(fold) > number][:positives]
    table["idh_mutant"] = table["id"].isin(chosen).astype(int)
    table.to_csv(cohort_copy / "MetaMS.csv", index=False)
    cohort = Cohort(cohort_copy)
    assert count_marker_patients(cohort, IDH, load_cohort_folds(cohort)).can_be_studied == is_enough
