"""Chapter 4's tables with tiny patients and networks: no patient in both training and test, no network trained twice.

The corner pixel of every slice is the patient's number, so that a test can identify the patients of any batch.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from tests.conftest import update_slice_hashes, write_tiny_cohort
from typer.testing import CliRunner

from gliomark.cli import experiment
from gliomark.cohort.folds import FOLD_COUNT
from gliomark.cohort.store import Cohort
from gliomark.errors import GliomarkError
from gliomark.evaluation import intervals
from gliomark.experiments import (
    marker_comparison,
    runner,
    table_4_2,
    table_4_3,
    table_4_4,
    table_4_5,
    table_4_6,
)
from gliomark.experiments.config import ExperimentConfig
from gliomark.experiments.markers import procedure as marker_procedure
from gliomark.experiments.markers import result_tables as marker_tables
from gliomark.experiments.markers import runs as marker_runs
from gliomark.experiments.markers import scoring as marker_scoring
from gliomark.experiments.markers.procedure import MarkerProcedure, load_marker_data, split_job_patients
from gliomark.experiments.markers.result_tables import (
    TrainedMarkerRuns,
    apply_fold_thresholds,
    summarise_scores,
)
from gliomark.experiments.markers.runs import (
    EARLY_FUSION,
    KINET,
    KINET_WITH_LEARNT_LOSS,
    KINET_WITH_LIGHTGBM,
    LATE_FUSION,
    LESION_POOLED_FEATURES,
    PRESETS,
    RANDOM_TRUNK_FEATURES,
    ScoringMethod,
    list_comparison_methods,
    list_table_4_2_runs,
    list_table_4_3_methods,
    list_table_4_3_runs,
    list_table_4_4_methods,
    list_table_4_4_runs,
    list_table_4_5_methods,
    list_table_4_5_runs,
)
from gliomark.experiments.markers.scoring import fuse_patient_scores, score_slices
from gliomark.experiments.runner import (
    ResultTable,
    TrainingJob,
    WrittenTable,
    complete_jobs,
    execute_job,
    run_experiment,
)
from gliomark.models.published.kinet import KiNetSize
from gliomark.study import MRSequence
from gliomark.training.markers import MarkerTrainingConfig
from gliomark.training.recipes import MARKER_DEFINITIONS, MarkerDefinition
from gliomark.training.stacking import fit_trees

IDH = MARKER_DEFINITIONS["idh"]
TINY = replace(
    PRESETS["quick"],
    network_size=KiNetSize(stem=8, widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1), pool=4),
    epochs=1,
)
PAIR = (MRSequence.T1C, MRSequence.FLAIR)


PROCEDURE = MarkerProcedure(IDH)


def ignore_message(_: str) -> None:
    pass


def complete_runs(runs, config: ExperimentConfig) -> None:
    complete_jobs(PROCEDURE.list_jobs(runs, FOLD_COUNT, config), PROCEDURE, config)


@pytest.fixture(autouse=True)
def use_tiny_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use tiny networks, a single step with one slice of every patient, and a short bootstrap."""
    monkeypatch.setitem(marker_runs.PRESETS, "quick", TINY)
    one_step = partial(MarkerTrainingConfig, slices_per_patient=1)
    monkeypatch.setattr(marker_runs, "MarkerTrainingConfig", one_step)
    shorter = lambda *a, **k: intervals.bootstrap_cluster_intervals(*a, **{**k, "resamples": 50})  # noqa: E731
    monkeypatch.setattr(marker_tables, "bootstrap_cluster_intervals", shorter)
    load_marker_data.cache_clear()


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all tests, so that tables share their trained networks."""
    return tmp_path_factory.mktemp("study")


@pytest.fixture
def study_config(tiny_cohort: Cohort, work: Path) -> ExperimentConfig:
    return ExperimentConfig((tiny_cohort.folder,), work, "quick", 0, None, ignore_message)


def create_kinet_run():
    return next(t for t in list_table_4_4_runs(TINY) if t.name == KINET)


def read_patients(images) -> set[str]:
    return {f"P{int(number):02d}" for number in np.unique(images[:, :, 0, 0])}


# ---- separation of training and test patients -------------------------------------------------------


def test_a_network_is_trained_on_and_predicts_only_its_own_patients(
    tiny_cohort, tmp_path, monkeypatch
) -> None:
    trained_patients, predicted_patients = [], []
    train, vectors = marker_procedure.train_marker_network, marker_procedure.compute_patient_vectors

    def record_training(bank, settings, folder):
        trained_patients.append(read_patients(bank.image))
        return train(bank, settings, folder)

    def record_vectors(network, slices, crop):
        predicted_patients.append(read_patients(slices.images))
        return vectors(network, slices, crop)

    monkeypatch.setattr(marker_procedure, "train_marker_network", record_training)
    monkeypatch.setattr(marker_procedure, "compute_patient_vectors", record_vectors)
    data = load_marker_data(tiny_cohort.folder, IDH)
    for excluded in ((2,), (0, 3)):
        trained_patients.clear(), predicted_patients.clear()
        job = TrainingJob(create_kinet_run(), excluded, (tiny_cohort.folder,), tmp_path)
        execute_job(job, PROCEDURE)
        trained_on, held_out = split_job_patients(job, data)
        assert trained_patients == [set(trained_on)] and set().union(*predicted_patients) == set(held_out)
        assert not set(trained_on) & set(held_out)
        for number in excluded:
            assert set(data.list_fold_patients(number)) <= set(held_out)
        assert set(PROCEDURE.load_vectors(job, data)) == set(held_out)


def test_a_leaking_dataset_is_refused(tiny_cohort, tmp_path, monkeypatch) -> None:
    """Deliberate error: the network gets the slices of all patients."""
    monkeypatch.setattr(marker_procedure.LesionSliceDataset, "select_patients", lambda self, patients: self)
    job = TrainingJob(create_kinet_run(), (1,), (tiny_cohort.folder,), tmp_path)
    with pytest.raises(GliomarkError, match="is in both"):
        execute_job(job, PROCEDURE)
    assert not PROCEDURE.get_record_path(job).exists()


def test_the_trees_of_a_fold_are_never_fitted_on_its_patients(study_config, monkeypatch) -> None:
    """Neither the trees nor the networks that computed the vectors are trained on test patients."""
    complete_runs([create_kinet_run()], study_config)
    data = load_marker_data(study_config.cohort_folders[0], IDH)
    study = TrainedMarkerRuns(
        {KINET: create_kinet_run()}, IDH, study_config.cohort_folders[0], study_config.work_folder, data
    )
    loaded = []
    load = MarkerProcedure.load_vectors

    def record_load(self, job, data):
        loaded.append(job)
        return load(self, job, data)

    monkeypatch.setattr(MarkerProcedure, "load_vectors", record_load)
    for number in range(FOLD_COUNT):
        loaded.clear()
        fold, split = study.load_fold_vectors(KINET, number), data.split_fold(number, 0)
        assert set(fold.test) == set(split.test) == set(data.list_fold_patients(number))
        assert set(fold.training) == set(split.training) and set(fold.validation) == set(split.validation)
        assert len(loaded) == FOLD_COUNT
        for job in loaded:
            assert not set(split_job_patients(job, data)[0]) & set(split.test), (
                "a test patient was trained on"
            )
        by_pair = {j.excluded_folds: set(split_job_patients(j, data)[0]) for j in loaded[1:]}
        for pair, trained_on in by_pair.items():
            (other,) = set(pair) - {number}
            assert not trained_on & set(data.list_fold_patients(other)), "vectors are out of fold"


def test_fold_vectors_that_overlap_are_refused(study_config) -> None:
    complete_runs([create_kinet_run()], study_config)
    data = load_marker_data(study_config.cohort_folders[0], IDH)
    study = TrainedMarkerRuns(
        {KINET: create_kinet_run()}, IDH, study_config.cohort_folders[0], study_config.work_folder, data
    )
    fold = study.load_fold_vectors(KINET, 0)
    with pytest.raises(GliomarkError, match="is in both"):
        replace(fold, training={**fold.training, **fold.test})


# ---- reuse of finished networks ---------------------------------------------------------------------


def test_a_finished_network_is_not_trained_again(tiny_cohort, tmp_path, monkeypatch) -> None:
    job = TrainingJob(create_kinet_run(), (0,), (tiny_cohort.folder,), tmp_path)
    first = execute_job(job, PROCEDURE)
    monkeypatch.setattr(marker_procedure, "train_marker_network", lambda *_: pytest.fail("trained again"))
    assert execute_job(job, PROCEDURE) == first
    longer = replace(job, run=replace(job.run, training=replace(job.run.training, epochs=2)))
    with pytest.raises(GliomarkError, match="other settings"):
        execute_job(longer, PROCEDURE)


def test_other_labels_are_another_run(tiny_cohort, tmp_path, monkeypatch) -> None:
    data = load_marker_data(tiny_cohort.folder, IDH)
    job = TrainingJob(create_kinet_run(), (0,), (tiny_cohort.folder,), tmp_path)
    other = replace(data, labels={p: 1 - label for p, label in data.labels.items()})
    before = PROCEDURE.create_key(job)
    monkeypatch.setattr(marker_procedure, "load_marker_data", lambda *_: other)
    assert PROCEDURE.create_key(job) != before


@pytest.mark.sample(2)
@pytest.mark.parametrize("change", ["images", "outline", "numbers", "seed"])
def test_other_data_are_another_run(tmp_path, change, monkeypatch) -> None:
    folder = write_tiny_cohort(tmp_path / "cohort")
    data = load_marker_data(folder, IDH)
    job = TrainingJob(create_kinet_run(), (0,), (folder,), tmp_path)
    before = PROCEDURE.create_key(job)
    assert PROCEDURE.create_key(job) == before
    if change in ("images", "outline"):
        with h5py.File(folder / "GMSBraTS" / "FLAIR" / "P03" / "002.h5", "a") as file:
            file["image" if change == "images" else "mask"][3, 3] = 1
        update_slice_hashes(folder)
    elif change == "numbers":
        other = replace(data, marker_values={p: value + 0.25 for p, value in data.marker_values.items()})
        monkeypatch.setattr(marker_procedure, "load_marker_data", lambda *_: other)
    else:
        job = replace(job, run=replace(job.run, training=replace(job.run.training, seed=1)))
    assert PROCEDURE.create_key(job) != before


def test_fold_pairs_are_trained_only_if_trees_are_fitted(study_config) -> None:
    jobs = PROCEDURE.list_jobs([create_kinet_run()], FOLD_COUNT, study_config)
    assert len(jobs) == 15 and len({PROCEDURE.get_record_path(job) for job in jobs}) == 15
    assert (
        len(PROCEDURE.list_jobs([replace(create_kinet_run(), stacked=False)], FOLD_COUNT, study_config)) == 5
    )


# ---- runs and scoring methods -----------------------------------------------------------------------


def test_every_scoring_method_has_its_runs() -> None:
    for preset in PRESETS.values():
        for runs, methods in (
            (list_table_4_3_runs(preset, PAIR), list_table_4_3_methods(PAIR)),
            (list_table_4_4_runs(preset), list_table_4_4_methods(preset)),
            (list_table_4_5_runs(preset), list(list_table_4_5_methods())),
            (list_table_4_4_runs(preset), list_comparison_methods()),
        ):
            runs_by_name = {t.name: t for t in runs}
            assert len(runs_by_name) == len(runs)
            for scoring_method in methods:
                assert set(scoring_method.run_names) <= set(runs_by_name)
                if scoring_method.stage in ("LightGBM", "logistic"):
                    assert all(runs_by_name[name].stacked for name in scoring_method.run_names)


def test_the_published_preset_has_the_published_settings() -> None:
    kinet = next(t for t in list_table_4_5_runs(PRESETS["published"]) if t.name == KINET).training
    assert (kinet.rate, kinet.batch, kinet.loss) == (4e-5, 16, "bms")
    assert kinet.network.size == KiNetSize() and kinet.augmentation.crop == 224
    assert [t.name for t in list_table_4_2_runs(PRESETS["published"], PAIR)] == [
        "T1C, IMG",
        "T1C, ROI",
        "T1C, MIX",
        "FLAIR, IMG",
        "FLAIR, ROI",
        "FLAIR, MIX",
    ]
    assert [t.training.network.channels for t in list_table_4_2_runs(PRESETS["published"], PAIR)] == [
        (0,),
        (1,),
        (0, 1),
        (2,),
        (3,),
        (2, 3),
    ]


def test_each_ablation_changes_only_the_named_parts() -> None:
    rows = list_table_4_5_methods()
    assert {method.name for method in rows} == set(table_4_5.PUBLISHED.values) and len(rows) == 8
    trainings = {t.name: t.training for t in list_table_4_5_runs(TINY)}
    for scoring_method, (bms, merge_in, metadata) in rows.items():
        training = trainings[scoring_method.run_names[0]]
        assert (training.loss == "bms") is bms and training.network.merge_in is merge_in
        assert scoring_method.uses_clinical_data is metadata
    # the last row of table 4-5 is the network of table 4-4
    assert trainings[KINET] == create_kinet_run().training


def test_the_random_trunk_differs_from_lesion_pooled_features_by_its_weights_only() -> None:
    runs = {run.name: run.training for run in list_table_4_4_runs(TINY)}
    pretrained, random = runs[LESION_POOLED_FEATURES], runs[RANDOM_TRUNK_FEATURES]
    assert pretrained.imagenet and random == replace(pretrained, imagenet=False)


# ---- scoring ----------------------------------------------------------------------------------------


@pytest.fixture
def study(study_config) -> TrainedMarkerRuns:
    runs = [*list_table_4_3_runs(TINY, PAIR), *(t for t in list_table_4_4_runs(TINY) if t.name == KINET)]
    complete_runs(runs, study_config)
    data = load_marker_data(study_config.cohort_folders[0], IDH)
    return TrainedMarkerRuns(
        {t.name: t for t in runs}, IDH, study_config.cohort_folders[0], study_config.work_folder, data
    )


def test_late_fusion_is_the_mean_of_two_networks(study) -> None:
    _, late, _ = list_table_4_3_methods(PAIR)
    assert late.name == LATE_FUSION
    both = [score_slices(ScoringMethod(name, (name,)), study) for name in late.run_names]
    expected = (both[0]["probability"] + both[1]["probability"]) / 2
    np.testing.assert_allclose(score_slices(late, study)["probability"], expected)


def test_every_patient_is_tested_once(study) -> None:
    for scoring_method in (
        ScoringMethod(EARLY_FUSION, (EARLY_FUSION,)),
        KINET_WITH_LIGHTGBM,
        *(
            r
            for r in list_comparison_methods()
            if r.stage in ("clinical", "logistic") and LESION_POOLED_FEATURES not in r.run_names
        ),
    ):
        rows = score_slices(scoring_method, study)
        test = rows.drop_duplicates(["fold", "patient"])
        assert sorted(test["patient"]) == sorted(study.data.labels)
        assert (test["label"] == test["patient"].map(study.data.labels)).all()
        assert rows["probability"].between(0, 1).all()


def test_without_metadata_the_age_is_not_used(study, monkeypatch) -> None:
    """Without clinical data, no age threshold is used; with them, it is the training patients' mean."""
    age_cuts = []

    def record_age_cut(train, validation, age_cut, settings):
        age_cuts.append(age_cut)
        return fit_trees(train, validation, age_cut, settings)

    monkeypatch.setattr(marker_scoring, "fit_trees", record_age_cut)
    score_slices(replace(KINET_WITH_LIGHTGBM, uses_clinical_data=False), study)
    assert age_cuts == [None] * FOLD_COUNT
    age_cuts.clear()
    score_slices(KINET_WITH_LIGHTGBM, study)
    ages = [study.data.lesion_slice_inputs[p].clinical.age for p in study.data.split_fold(0, 0).training]
    assert age_cuts[0] == pytest.approx(np.mean(ages))


COLUMNS = ["reading", "fold", "patient", "label", "place", "area_mm2", "probability"]


def test_the_threshold_of_a_fold_is_chosen_on_the_patients_of_all_others() -> None:
    """Its own patients have no effect."""
    probability = {1: (0.2, 0.8), 2: (0.3, 0.6), 3: (0.1, 0.5)}
    rows = [
        ("r", fold, f"T{fold}{label}", label, 0, 1.0, values[label])
        for fold, values in probability.items()
        for label in (0, 1)
    ]
    test = apply_fold_thresholds(pd.DataFrame(rows, columns=COLUMNS))
    thresholds = test.groupby("fold")["threshold"].unique().map(lambda one: one.item()).to_dict()
    # fold 1: between 0.3 and 0.5; fold 2: between 0.2 and 0.5; fold 3: between 0.3 and 0.6
    assert thresholds == pytest.approx({1: 0.4, 2: 0.35, 3: 0.45})
    only_positive = [row for row in rows if row[1] == 1 or row[3] == 1]
    test = apply_fold_thresholds(pd.DataFrame(only_positive, columns=COLUMNS))
    assert (test.loc[test["fold"] == 1, "threshold"] == 0.5).all()


@pytest.mark.parametrize("positive", [0.25, 0.75])
def test_the_accuracy_of_the_majority_class_is_given_beside_every_accuracy(positive: float) -> None:
    rows = [("r", i % 2, f"T{i}", int(i < 40 * positive), 0, 1.0, 0.3 + 0.01 * (i % 7)) for i in range(40)]
    row = summarise_scores("slice", pd.DataFrame(rows, columns=COLUMNS))
    assert row["majority_accuracy"] == pytest.approx(0.75)
    names = list(row)
    assert names.index("majority_accuracy") == names.index("accuracy_high_95") + 1


def test_slices_are_fused_as_in_the_pipeline() -> None:
    rows = [
        ("r", 1, "A", 1, study_config, area, p)
        for study_config, area, p in ((3, 9, 0.1), (4, 20, 0.4), (5, 8, 0.7), (9, 5, 1.0))
    ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    found = {
        rule: fuse_patient_scores(table, rule)["probability"].iloc[0] for rule in ("all", "near", "large")
    }
    assert found == pytest.approx({"all": 0.55, "near": 0.4, "large": 0.4})


# ---- tables ------------------------------------------------------------------------------------------


@pytest.mark.sample(2)
@pytest.mark.parametrize(("module", "rows"), [(table_4_3, 3), (table_4_2, 6), (table_4_6, 4), (table_4_5, 4)])
def test_a_complete_table_is_written(study_config, module, rows, monkeypatch) -> None:
    if module is table_4_5:
        # half of the table: the other half would be thirty more networks of the same kind
        kept_methods = {r: s for r, s in list_table_4_5_methods().items() if s[1]}
        monkeypatch.setattr(table_4_5, "list_table_4_5_methods", lambda: kept_methods)
        used_runs = {name for scoring_method in kept_methods for name in scoring_method.run_names}
        monkeypatch.setattr(
            table_4_5,
            "list_table_4_5_runs",
            lambda preset: [t for t in list_table_4_5_runs(preset) if t.name in used_runs],
        )
    path = run_experiment(module.create_table(IDH), study_config).path
    table = pd.read_csv(path)
    assert len(table) == rows and set(table["marker"]) == {"idh"} and set(table["preset"]) == {"quick"}
    assert table["patients"].eq(15).all() and table["cuts"].str.len().gt(20).all()
    for name in ("accuracy", "auc"):
        assert (table[f"{name}_low_95"] <= table[name]).all() and (
            table[name] <= table[f"{name}_high_95"]
        ).all()
        assert f"published_{name}" in table
    assert table["majority_accuracy"].between(0.5, 1).all()
    patients = pd.read_csv(path.with_name(f"{path.stem}_patients.csv"))
    assert set(patients["patient"]) == {f"P{i:02d}" for i in range(1, 16)}
    if module is table_4_2:
        assert (study_config.work_folder / "figure_4_2_idh.png").stat().st_size > 5000
        assert not list(study_config.output_folder.glob("figure_4_2*")), (
            "an image of a patient stays in the work folder"
        )
    record = json.loads(path.with_name(f"{path.stem}_run_record.json").read_text())
    assert record["definition"]["column"] == "idh_mutant" and len(record["splits"]) == FOLD_COUNT


@pytest.mark.slow
def test_table_4_4_and_its_figures_are_written(study_config) -> None:
    path = run_experiment(table_4_4.create_table(IDH), study_config).path
    table = pd.read_csv(path).set_index("reading")
    assert list(table.index) == [
        "ResNet-50",
        "ResNeSt-50",
        "CentralNet",
        KINET,
        KINET_WITH_LEARNT_LOSS,
        LESION_POOLED_FEATURES,
        RANDOM_TRUNK_FEATURES,
        KINET_WITH_LIGHTGBM.name,
    ]
    weights = table[list(table_4_4.LOSS_WEIGHT_COLUMNS)]
    for name in (KINET, KINET_WITH_LIGHTGBM.name):
        assert weights.loc[name].tolist() == [0.35, 0.4, 0.25, 0.025, 0.025, 0.2, 0.35, 0.4]
    learnt = weights.loc[KINET_WITH_LEARNT_LOSS]
    assert learnt[:3].sum() == pytest.approx(1, abs=2e-4) and learnt[3:].sum() == pytest.approx(1, abs=3e-4)
    assert weights.loc["ResNet-50"].isna().all()
    assert table.loc[LESION_POOLED_FEATURES, "million_parameters"] < 5
    near = pd.read_csv(path.with_name("table_4_4_idh_patients.csv"))
    for name, rows in near.groupby("reading"):
        # the AUC can be reproduced from the csv file of the patients
        assert table.loc[name, "near_auc"] == pytest.approx(
            roc_auc_score(rows["label"], rows["probability"]), abs=6e-5
        )
    for name in ("figure_4_6", "figure_4_7"):
        assert (study_config.output_folder / f"{name}_idh.png").stat().st_size > 5000
    record = json.loads(path.with_name("table_4_4_idh_run_record.json").read_text())
    weights = [n["fusion_weights"] for n in record["networks"] if n["trial"] == "CentralNet"]
    assert np.array(weights).shape == (FOLD_COUNT, 5, 3)


@pytest.mark.slow
def test_the_table_of_comparison_methods_is_written(study_config, monkeypatch) -> None:
    random = np.random.default_rng(0)
    data = load_marker_data(study_config.cohort_folders[0], IDH)
    features = {p: np.append(random.normal(size=5), 4.0 * label) for p, label in data.labels.items()}
    monkeypatch.setattr(marker_comparison, "compute_cohort_features", lambda *_: features)
    table = pd.read_csv(run_experiment(marker_comparison.create_table(IDH), study_config).path)
    assert list(table["reading"]) == [scoring_method.name for scoring_method in list_comparison_methods()]
    assert table["delong_p"].iloc[0] == 1.0


def test_a_marker_without_two_classes_is_refused(study_config) -> None:
    marker = MarkerDefinition("x", "who_grade", 9, "x", "a", "b", "c")
    with pytest.raises(GliomarkError, match="only one class"):
        run_experiment(table_4_2.create_table(marker), study_config)


@pytest.mark.parametrize("command", [*experiment.SEGMENTATION_COMMANDS, *experiment.MARKER_COMMANDS])
def test_every_command_finds_its_table(study_config, monkeypatch, command) -> None:
    """The command runs the table of its name with the given options."""
    calls = []

    def record_call(table: ResultTable, config: ExperimentConfig) -> WrittenTable:
        calls.append((f"{table.name}{table.suffix}", config.preset, config.workers, config.output_folder))
        return WrittenTable(config.output_folder, (), pd.DataFrame())

    monkeypatch.setattr(runner, "run_experiment", record_call)
    arguments = [
        command,
        "--cohort",
        str(study_config.cohort_folders[0]),
        "--out",
        str(study_config.output_folder),
    ]
    arguments += ["--preset", "quick", "--workers", "1"]
    stems = [command.replace("-", "_")]
    if command in experiment.MARKER_COMMANDS:
        arguments += ["--marker", "idh", "--marker", "who_grade>=3"]
        stems = [f"{stems[0]}_idh", f"{stems[0]}_who_grade"]
    result = CliRunner().invoke(experiment.app, arguments)
    assert result.exit_code == 0, result.output
    assert calls == [(stem, "quick", 1, study_config.output_folder) for stem in stems]
