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
from gliomark.evaluation.metrics import compute_youden_threshold
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
from gliomark.experiments.markers import runs as marker_trials
from gliomark.experiments.markers import scoring as marker_readings
from gliomark.experiments.markers.procedure import MarkerProcedure, load_marker_data, split_job_patients
from gliomark.experiments.markers.result_tables import TrainedMarkerRuns, apply_fold_thresholds
from gliomark.experiments.markers.runs import (
    EARLY_FUSION,
    KINET,
    KINET_WITH_LIGHTGBM,
    LATE_FUSION,
    LESION_POOLED_FEATURES,
    PRESETS,
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


def quiet(_: str) -> None:
    pass


def complete(runs, config: ExperimentConfig) -> None:
    complete_jobs(PROCEDURE.list_jobs(runs, FOLD_COUNT, config), PROCEDURE, config)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use tiny networks, a single step with one slice of every patient, and a short bootstrap."""
    monkeypatch.setitem(marker_trials.PRESETS, "quick", TINY)
    one_step = partial(MarkerTrainingConfig, slices_per_patient=1)
    monkeypatch.setattr(marker_trials, "MarkerTrainingConfig", one_step)
    shorter = lambda *a, **k: intervals.bootstrap_cluster_intervals(*a, **{**k, "resamples": 50})  # noqa: E731
    monkeypatch.setattr(marker_tables, "bootstrap_cluster_intervals", shorter)
    load_marker_data.cache_clear()


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all tests, so that tables share their trained networks."""
    return tmp_path_factory.mktemp("study")


@pytest.fixture
def place(tiny_cohort: Cohort, work: Path) -> ExperimentConfig:
    return ExperimentConfig((tiny_cohort.folder,), work, "quick", 0, None, quiet)


def kinet_trial():
    return next(t for t in list_table_4_4_runs(TINY) if t.name == KINET)


def whose(images) -> set[str]:
    return {f"P{int(number):02d}" for number in np.unique(images[:, :, 0, 0])}


# ---- separation of training and test patients -------------------------------------------------------


def test_a_network_is_fed_and_judges_only_whom_it_may(tiny_cohort, tmp_path, monkeypatch) -> None:
    fed, shown = [], []
    train, vectors = marker_procedure.train_marker_network, marker_procedure.compute_patient_vectors

    def spying_train(bank, settings, folder):
        fed.append(whose(bank.image))
        return train(bank, settings, folder)

    def spying_vectors(network, slices, crop):
        shown.append(whose(slices.images))
        return vectors(network, slices, crop)

    monkeypatch.setattr(marker_procedure, "train_marker_network", spying_train)
    monkeypatch.setattr(marker_procedure, "compute_patient_vectors", spying_vectors)
    data = load_marker_data(tiny_cohort.folder, IDH)
    for left_out in ((2,), (0, 3)):
        fed.clear(), shown.clear()
        job = TrainingJob(kinet_trial(), left_out, (tiny_cohort.folder,), tmp_path)
        execute_job(job, PROCEDURE)
        trained_on, judges = split_job_patients(job, data)
        assert fed == [set(trained_on)] and set().union(*shown) == set(judges)
        assert not set(trained_on) & set(judges)
        for number in left_out:
            assert set(data.list_fold_patients(number)) <= set(judges)
        assert set(PROCEDURE.load_vectors(job, data)) == set(judges)


def test_a_leaking_bank_is_refused(tiny_cohort, tmp_path, monkeypatch) -> None:
    """Deliberate error: the network gets the slices of all patients."""
    monkeypatch.setattr(marker_procedure.LesionSliceDataset, "select_patients", lambda self, patients: self)
    job = TrainingJob(kinet_trial(), (1,), (tiny_cohort.folder,), tmp_path)
    with pytest.raises(GliomarkError, match="is in both"):
        execute_job(job, PROCEDURE)
    assert not PROCEDURE.get_record_path(job).exists()


def test_the_trees_of_a_fold_never_meet_its_patients(place, monkeypatch) -> None:
    """Neither the trees nor the networks that computed the vectors are trained on test patients."""
    complete([kinet_trial()], place)
    data = load_marker_data(place.cohort_folders[0], IDH)
    study = TrainedMarkerRuns({KINET: kinet_trial()}, IDH, place.cohort_folders[0], place.work_folder, data)
    loaded = []
    load = MarkerProcedure.load_vectors

    def spying(self, job, of):
        loaded.append(job)
        return load(self, job, of)

    monkeypatch.setattr(MarkerProcedure, "load_vectors", spying)
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


def test_fold_vectors_that_overlap_are_refused(place) -> None:
    complete([kinet_trial()], place)
    data = load_marker_data(place.cohort_folders[0], IDH)
    study = TrainedMarkerRuns({KINET: kinet_trial()}, IDH, place.cohort_folders[0], place.work_folder, data)
    fold = study.load_fold_vectors(KINET, 0)
    with pytest.raises(GliomarkError, match="is in both"):
        replace(fold, training={**fold.training, **fold.test})


# ---- reuse of finished networks ---------------------------------------------------------------------


def test_a_finished_network_is_not_trained_again(tiny_cohort, tmp_path, monkeypatch) -> None:
    job = TrainingJob(kinet_trial(), (0,), (tiny_cohort.folder,), tmp_path)
    first = execute_job(job, PROCEDURE)
    monkeypatch.setattr(marker_procedure, "train_marker_network", lambda *_: pytest.fail("trained again"))
    assert execute_job(job, PROCEDURE) == first
    longer = replace(job, run=replace(job.run, training=replace(job.run.training, epochs=2)))
    with pytest.raises(GliomarkError, match="other settings"):
        execute_job(longer, PROCEDURE)


def test_other_labels_are_another_run(tiny_cohort, tmp_path, monkeypatch) -> None:
    data = load_marker_data(tiny_cohort.folder, IDH)
    job = TrainingJob(kinet_trial(), (0,), (tiny_cohort.folder,), tmp_path)
    other = replace(data, labels={p: 1 - label for p, label in data.labels.items()})
    before = PROCEDURE.create_key(job)
    monkeypatch.setattr(marker_procedure, "load_marker_data", lambda *_: other)
    assert PROCEDURE.create_key(job) != before


@pytest.mark.parametrize("change", ["images", "outline", "numbers", "seed"])
def test_a_network_of_other_data_is_another_runs(tmp_path, change, monkeypatch) -> None:
    folder = write_tiny_cohort(tmp_path / "cohort")
    data = load_marker_data(folder, IDH)
    job = TrainingJob(kinet_trial(), (0,), (folder,), tmp_path)
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


def test_pairs_are_trained_only_where_trees_are_fitted(place) -> None:
    jobs = PROCEDURE.list_jobs([kinet_trial()], FOLD_COUNT, place)
    assert len(jobs) == 15 and len({PROCEDURE.get_record_path(job) for job in jobs}) == 15
    assert len(PROCEDURE.list_jobs([replace(kinet_trial(), stacked=False)], FOLD_COUNT, place)) == 5


# ---- runs and scoring methods -----------------------------------------------------------------------


def test_every_reading_has_its_trials() -> None:
    for preset in PRESETS.values():
        for trials, readings in (
            (list_table_4_3_runs(preset, PAIR), list_table_4_3_methods(PAIR)),
            (list_table_4_4_runs(preset), list_table_4_4_methods(preset)),
            (list_table_4_5_runs(preset), list(list_table_4_5_methods())),
            (list_table_4_4_runs(preset), list_comparison_methods()),
        ):
            named = {t.name: t for t in trials}
            assert len(named) == len(trials)
            for reading in readings:
                assert set(reading.run_names) <= set(named)
                if reading.stage in ("LightGBM", "logistic"):
                    assert all(named[name].stacked for name in reading.run_names)


def test_published_preset_is_the_published_setting() -> None:
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


def test_the_ablation_changes_what_it_names() -> None:
    rows = list_table_4_5_methods()
    assert {method.name for method in rows} == set(table_4_5.PUBLISHED.values) and len(rows) == 8
    named = {t.name: t.training for t in list_table_4_5_runs(TINY)}
    for reading, (bms, merge_in, metadata) in rows.items():
        training = named[reading.run_names[0]]
        assert (training.loss == "bms") is bms and training.network.merge_in is merge_in
        assert reading.uses_clinical_data is metadata
    # the last row of table 4-5 is the network of table 4-4
    assert named[KINET] == kinet_trial().training


# ---- scoring ----------------------------------------------------------------------------------------


@pytest.fixture
def study(place) -> TrainedMarkerRuns:
    trials = [*list_table_4_3_runs(TINY, PAIR), *(t for t in list_table_4_4_runs(TINY) if t.name == KINET)]
    complete(trials, place)
    data = load_marker_data(place.cohort_folders[0], IDH)
    return TrainedMarkerRuns(
        {t.name: t for t in trials}, IDH, place.cohort_folders[0], place.work_folder, data
    )


def test_late_fusion_is_the_mean_of_two_networks(study) -> None:
    _, late, _ = list_table_4_3_methods(PAIR)
    assert late.name == LATE_FUSION
    both = [score_slices(ScoringMethod(name, (name,)), study) for name in late.run_names]
    expected = (both[0]["probability"] + both[1]["probability"]) / 2
    np.testing.assert_allclose(score_slices(late, study)["probability"], expected)


def test_every_patient_is_tested_once(study) -> None:
    for reading in (
        ScoringMethod(EARLY_FUSION, (EARLY_FUSION,)),
        KINET_WITH_LIGHTGBM,
        *(
            r
            for r in list_comparison_methods()
            if r.stage in ("clinical", "logistic") and LESION_POOLED_FEATURES not in r.run_names
        ),
    ):
        rows = score_slices(reading, study)
        test = rows[rows["part"] == "test"].drop_duplicates(["fold", "patient"])
        assert sorted(test["patient"]) == sorted(study.data.labels)
        assert (test["label"] == test["patient"].map(study.data.labels)).all()
        assert rows["probability"].between(0, 1).all()


def test_metadata_off_does_not_look_at_age(study, monkeypatch) -> None:
    """Without clinical data, no age threshold is used; with them, it is the training patients' mean."""
    seen = []

    def spying(train, validation, age_cut, settings):
        seen.append(age_cut)
        return fit_trees(train, validation, age_cut, settings)

    monkeypatch.setattr(marker_readings, "fit_trees", spying)
    score_slices(replace(KINET_WITH_LIGHTGBM, uses_clinical_data=False), study)
    assert seen == [None] * FOLD_COUNT
    seen.clear()
    score_slices(KINET_WITH_LIGHTGBM, study)
    ages = [study.data.lesion_slice_inputs[p].clinical.age for p in study.data.split_fold(0, 0).training]
    assert seen[0] == pytest.approx(np.mean(ages))


def test_thresholds_are_of_the_validation_patients() -> None:
    rows = [("r", 1, "validation", f"V{i}", i % 2, 0, 1.0, 0.2 + 0.6 * (i % 2)) for i in range(6)]
    rows += [("r", 1, "test", f"T{i}", i % 2, 0, 1.0, 0.45 + 0.1 * (i % 2)) for i in range(4)]
    rows += [("r", 2, "validation", "W", 1, 0, 1.0, 0.9), ("r", 2, "test", "U", 1, 0, 1.0, 0.6)]
    columns = ["reading", "fold", "part", "patient", "label", "place", "area_mm2", "probability"]
    test = apply_fold_thresholds(pd.DataFrame(rows, columns=columns))
    assert compute_youden_threshold([0, 1], [0.2, 0.8]) == pytest.approx(0.5)
    assert test.set_index("patient")["threshold"].to_dict() == pytest.approx(
        {"T0": 0.5, "T1": 0.5, "T2": 0.5, "T3": 0.5, "U": 0.5}
    )


def test_patients_are_fused_as_the_pipeline_does() -> None:
    rows = [
        ("r", 1, "test", "A", 1, place, area, p)
        for place, area, p in ((3, 9, 0.1), (4, 20, 0.4), (5, 8, 0.7), (9, 5, 1.0))
    ]
    columns = ["reading", "fold", "part", "patient", "label", "place", "area_mm2", "probability"]
    table = pd.DataFrame(rows, columns=columns)
    found = {
        rule: fuse_patient_scores(table, rule)["probability"].iloc[0] for rule in ("all", "near", "large")
    }
    assert found == pytest.approx({"all": 0.55, "near": 0.4, "large": 0.4})


# ---- tables ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("module", "rows"), [(table_4_2, 6), (table_4_3, 3), (table_4_5, 4), (table_4_6, 4)])
def test_a_table_is_written_whole(place, module, rows, monkeypatch) -> None:
    if module is table_4_5:
        # half of the table: the other half would be thirty more networks of the same kind
        kept = {r: s for r, s in list_table_4_5_methods().items() if s[1]}
        monkeypatch.setattr(table_4_5, "list_table_4_5_methods", lambda: kept)
        named = {name for reading in kept for name in reading.run_names}
        monkeypatch.setattr(
            table_4_5,
            "list_table_4_5_runs",
            lambda preset: [t for t in list_table_4_5_runs(preset) if t.name in named],
        )
    path = run_experiment(module.create_table(IDH), place).path
    table = pd.read_csv(path)
    assert len(table) == rows and set(table["marker"]) == {"idh"} and set(table["preset"]) == {"quick"}
    assert table["patients"].eq(15).all() and table["cuts"].str.len().gt(20).all()
    for name in ("accuracy", "auc"):
        assert (table[f"{name}_low_95"] <= table[name]).all() and (
            table[name] <= table[f"{name}_high_95"]
        ).all()
        assert f"published_{name}" in table
    patients = pd.read_csv(path.with_name(f"{path.stem}_patients.csv"))
    assert set(patients["patient"]) == {f"P{i:02d}" for i in range(1, 16)}
    if module is table_4_2:
        assert (place.work_folder / "figure_4_2_idh.png").stat().st_size > 5000
        assert not list(place.output_folder.glob("figure_4_2*")), (
            "an image of a patient stays in the work folder"
        )
    record = json.loads(path.with_name(f"{path.stem}_run_record.json").read_text())
    assert record["definition"]["column"] == "idh_mutant" and len(record["splits"]) == FOLD_COUNT


def test_table_4_4_and_its_figures(place) -> None:
    path = run_experiment(table_4_4.create_table(IDH), place).path
    table = pd.read_csv(path).set_index("reading")
    assert list(table.index) == [
        "ResNet-50",
        "ResNeSt-50",
        "CentralNet",
        KINET,
        LESION_POOLED_FEATURES,
        KINET_WITH_LIGHTGBM.name,
    ]
    assert table.loc[LESION_POOLED_FEATURES, "million_parameters"] < 5
    near = pd.read_csv(path.with_name("table_4_4_idh_patients.csv"))
    for name, own in near.groupby("reading"):
        # the AUC can be reproduced from the csv file of the patients
        assert table.loc[name, "near_auc"] == pytest.approx(
            roc_auc_score(own["label"], own["probability"]), abs=6e-5
        )
    for name in ("figure_4_6", "figure_4_7"):
        assert (place.output_folder / f"{name}_idh.png").stat().st_size > 5000
    record = json.loads(path.with_name("table_4_4_idh_run_record.json").read_text())
    weights = [n["fusion_weights"] for n in record["networks"] if n["trial"] == "CentralNet"]
    assert np.array(weights).shape == (FOLD_COUNT, 5, 3)


def test_marker_rivals(place, monkeypatch) -> None:
    random = np.random.default_rng(0)
    data = load_marker_data(place.cohort_folders[0], IDH)
    features = {p: np.append(random.normal(size=5), 4.0 * label) for p, label in data.labels.items()}
    monkeypatch.setattr(marker_comparison, "compute_cohort_features", lambda *_: features)
    table = pd.read_csv(run_experiment(marker_comparison.create_table(IDH), place).path)
    assert list(table["reading"]) == [reading.name for reading in list_comparison_methods()]
    assert table["delong_p"].iloc[0] == 1.0


def test_a_marker_without_two_classes_is_refused(place) -> None:
    nothing = MarkerDefinition("x", "who_grade", 9, "x", "a", "b", "c")
    with pytest.raises(GliomarkError, match="only one class"):
        run_experiment(table_4_2.create_table(nothing), place)


@pytest.mark.parametrize("command", [*experiment.SEGMENTATION_COMMANDS, *experiment.MARKER_COMMANDS])
def test_every_command_finds_its_table(place, monkeypatch, command) -> None:
    """The command runs the table of its name with the given options."""
    asked = []

    def record_call(table: ResultTable, config: ExperimentConfig) -> WrittenTable:
        asked.append((f"{table.name}{table.suffix}", config.preset, config.workers, config.output_folder))
        return WrittenTable(config.output_folder, (), pd.DataFrame())

    monkeypatch.setattr(runner, "run_experiment", record_call)
    words = [command, "--cohort", str(place.cohort_folders[0]), "--out", str(place.output_folder)]
    words += ["--preset", "quick", "--workers", "1"]
    stems = [command.replace("-", "_")]
    if command in experiment.MARKER_COMMANDS:
        words += ["--marker", "idh", "--marker", "who_grade>=3"]
        stems = [f"{stems[0]}_idh", f"{stems[0]}_who_grade"]
    done = CliRunner().invoke(experiment.app, words)
    assert done.exit_code == 0, done.output
    assert asked == [(stem, "quick", 1, place.output_folder) for stem in stems]
