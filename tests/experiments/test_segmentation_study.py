"""Chapter 3's tables with tiny patients and networks: no patient in both training and test, no network trained twice.

The corner pixel of every slice is the patient's number, so that a test can identify the patients of any batch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from tests.conftest import PAIR, update_slice_hashes, write_tiny_cohort

from gliomark.cohort.folds import FOLD_COUNT, load_cohort_folds, split_fold
from gliomark.cohort.store import Cohort, write_json
from gliomark.errors import GliomarkError
from gliomark.evaluation.intervals import bootstrap_interval
from gliomark.experiments import segmentation_extensions, table_3_1, table_3_2, table_3_3
from gliomark.experiments.config import ExperimentConfig
from gliomark.experiments.runner import (
    FinishedJob,
    complete_jobs,
    execute_job,
    find_finished_job,
    run_experiment,
)
from gliomark.experiments.segmentation import procedure as segmentation_procedure
from gliomark.experiments.segmentation import result_tables as segmentation_tables
from gliomark.experiments.segmentation import runs as segmentation_runs
from gliomark.experiments.segmentation.plots import (
    OVERLAY_COLOURS,
    compute_gate_maps,
    overlay_errors,
    render_sequence_rows,
    select_typical_patients,
)
from gliomark.experiments.segmentation.procedure import (
    FoldJob,
    SegmentationFold,
    SegmentationProcedure,
    create_fold_job,
    create_run_segmenter,
    get_weights_path,
    repeat_with_seed,
)
from gliomark.experiments.segmentation.result_tables import (
    EvaluatedFold,
    average_over_seeds,
    compare_paired_dice,
    measure_network_cost,
    summarise_patients,
    summarise_seeds,
    tabulate_patients,
)
from gliomark.experiments.segmentation.runs import (
    ABLATION_SWITCHES,
    MIGNET,
    PRESETS,
    SHIPPED_PRESET,
    SWIN_UNET,
    SegmentationPreset,
    create_mignet_run,
    create_shipped_runs,
    describe_reductions,
    get_segmentation_preset,
    list_design_choice_runs,
    list_extension_runs,
    list_table_3_1_runs,
    list_table_3_2_runs,
    list_table_3_3_runs,
)
from gliomark.model_loading import build_segmenter
from gliomark.models.network_loading import load_segmentation_network
from gliomark.models.published.mignet import MIGNetSettings, build_mignet
from gliomark.models.published.swin_unet import SwinSize
from gliomark.models.weights import load_weights, save_weights
from gliomark.study import MRSequence
from gliomark.training import job_runner
from gliomark.training.recipes import create_segmentation_card
from gliomark.training.segmentation import create_segmentation_config
from gliomark.training.slice_dataset import SliceDataset

SIZE = SwinSize(embedding=8, depths=(1, 1, 1), heads=(1, 2, 2), patch=2)
QUICK = PRESETS["quick"]


class TinyPreset(SegmentationPreset):
    """The quick preset with networks of a few channels."""

    def get_network(self, name: str) -> Any:
        network = super().get_network(name)
        return replace(network, **({"size": SIZE} if hasattr(network, "size") else {"width": 4}))


TINY = TinyPreset(
    replace(QUICK.training, epochs=1, batch=16, slices_per_patient=2, validate_every=1),
    QUICK.recipe,
    QUICK.cost_matched_width,
    QUICK.rule,
    extension_folds=QUICK.extension_folds,
)


PROCEDURE = SegmentationProcedure()


def ignore_message(_: str) -> None:
    pass


def execute(job: FoldJob) -> SegmentationFold:
    return execute_job(job, PROCEDURE).result


@pytest.fixture(autouse=True)
def short_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a short bootstrap."""
    monkeypatch.setattr(segmentation_tables, "bootstrap_interval", partial(bootstrap_interval, resamples=100))


@pytest.fixture(scope="module")
def second_tiny_cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """A second cohort with other patient ids but the same data."""
    return Cohort(write_tiny_cohort(tmp_path_factory.mktemp("other"), "Q"))


@pytest.fixture
def job(tiny_cohort: Cohort, tmp_path: Path) -> FoldJob:
    return create_fold_job(create_mignet_run(MIGNET, TINY), 1, (tiny_cohort.folder,), tmp_path)


def read_patients(bank: SliceDataset) -> set[str]:
    """Ids of the patients of these slices, from the number in the corner pixel."""
    return {f"P{round(float(value)):02d}" for value in bank.image[:, 0, 0, 0]}


# ---- comparability of runs --------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["published", "quick"])
def test_runs_of_a_table_share_data_augmentation_and_budget(preset: str) -> None:
    first, *others = list_table_3_1_runs(PRESETS[preset])
    different_settings = {
        "optimiser",
        "rate",
        "weight_decay",
        "largest_gradient",
    }  # nnU-Net has its own optimiser
    for other in others:
        assert (other.rule, other.trained_on) == (first.rule, first.trained_on)
        one, two = asdict(first.training), asdict(other.training)
        different = {key for key in one if one[key] != two[key]} - {"network"}
        assert different <= (different_settings if other.name == "nnU-Net 2-D" else set()), other.name


def test_the_ablation_has_every_combination_once_and_shares_two_with_table_3_1() -> None:
    runs = list_table_3_2_runs(QUICK)
    networks = [run.training.network for run in runs]
    assert len({(n.fpg, n.guidance, n.iag) for n in networks}) == 8
    for run in runs:
        n = run.training.network
        parts = [word for word, on in (("FPG", n.fpg), ("guidance", n.guidance), ("IAG", n.iag)) if on]
        assert run.name == {0: SWIN_UNET, 3: MIGNET}.get(len(parts), " + ".join(parts))
    shared = {run.name: run for run in list_table_3_1_runs(QUICK)}
    assert runs[0] == shared[SWIN_UNET] and runs[-1] == shared[MIGNET] == list_table_3_3_runs(QUICK)[0]
    assert set(ABLATION_SWITCHES) == set(table_3_2.PUBLISHED.values)


def test_the_published_preset_has_the_published_settings() -> None:
    training = get_segmentation_preset("published").training
    assert (training.rate, training.batch, training.epochs, training.pool) == (5e-4, 16, 200, 1)
    assert (training.augmentation.crop, training.augmentation.quarter_turns) == (224, True)
    unet, mignet = (PRESETS["published"].get_network(name) for name in ("U-Net", MIGNET))
    assert (unet.width, mignet.size) == (64, SwinSize())
    assert (
        describe_reductions("published") == "none"
        and "60x60" in describe_reductions("quick")
        and "own recipe" in describe_reductions(SHIPPED_PRESET)
    )
    with pytest.raises(GliomarkError, match="'fast' is unknown"):
        get_segmentation_preset("fast")


@pytest.mark.parametrize("preset", PRESETS)
def test_tables_use_the_weights_of_the_last_epoch(preset: str) -> None:
    """No patients are held out to choose an epoch; validation patients are trained on too."""
    runs = [*list_table_3_1_runs(PRESETS[preset]), *list_design_choice_runs(PRESETS[preset])]
    assert {run.training.validate_every for run in runs} == {0}
    assert runs[0].training.split_patients(["a"], ["b"]) == (("a", "b"), ())


def test_each_design_choice_changes_one_setting_of_mignet() -> None:
    first, *others = list_design_choice_runs(QUICK)
    assert first == list_table_3_1_runs(QUICK)[-1] and len({run.name for run in others}) == len(others)
    for other in others:
        one, two = asdict(first.training), asdict(other.training)
        outer = {key for key in one if one[key] != two[key]}
        inner = {key for key in one["network"] if one["network"][key] != two["network"][key]}
        assert len((outer - {"network"}) | inner) == 1, other.name


def test_the_shipped_recipe_is_the_pretrained_one_evaluated_in_four_ways() -> None:
    plain, flipped, finer, shipped = create_shipped_runs(2)
    assert (
        plain.training == create_segmentation_config("pretrained", 2, plain.training.epochs)
        and plain.weights_of is None
    )
    assert flipped.weights_of == finer.weights_of == shipped.weights_of == plain.name
    assert plain.training.validate_every == 0, "no patients are held out, because there are few"
    assert (flipped.flips, finer.flips, shipped.flips, finer.smallest_share) == (True, True, True, 0.0)
    assert flipped.pooling_factor == plain.training.pool > finer.pooling_factor == shipped.pooling_factor
    assert 0 < shipped.smallest_share < 1, "a second lesion component may be kept"


def test_extensions_have_unique_names_and_depend_on_runs_of_the_table() -> None:
    runs = {run.name: run for run in list_extension_runs(QUICK, PAIR)}
    assert len(runs) == len(list_extension_runs(QUICK, PAIR))
    for run in runs.values():
        for needed in (run.teacher, run.weights_of):
            assert needed is None or runs[needed].training.context == run.training.context


def test_a_run_of_another_seed_differs_by_seed_name_and_the_networks_it_needs() -> None:
    run = replace(create_mignet_run(MIGNET, QUICK), weights_of="flat", teacher="big")
    assert repeat_with_seed(run, 0) == run and run.row_name == MIGNET
    again = repeat_with_seed(run, 2)
    assert (again.name, again.weights_of, again.teacher) == ("MIG-Net, seed 2", "flat, seed 2", "big, seed 2")
    assert again.training == replace(run.training, seed=2) and again.row_name == MIGNET


def test_jobs_are_ordered_by_seed_then_fold_and_seed_0_keeps_its_records(
    tiny_cohort: Cohort, tmp_path: Path
) -> None:
    config = ExperimentConfig((tiny_cohort.folder,), tmp_path, "quick", 0, None, ignore_message)
    runs = [create_mignet_run(name, TINY, **ABLATION_SWITCHES[name]) for name in (SWIN_UNET, MIGNET)]
    jobs = PROCEDURE.list_jobs(runs, 2, replace(config, seeds=2))
    assert jobs[:4] == PROCEDURE.list_jobs(runs, 2, config)
    assert [str(PROCEDURE.get_record_path(j).relative_to(tmp_path / "work/segmentation")) for j in jobs] == [
        "swin-unet/fold_1.json",
        "mig-net/fold_1.json",
        "swin-unet/fold_2.json",
        "mig-net/fold_2.json",
        "swin-unet-seed-1/fold_1.json",
        "mig-net-seed-1/fold_1.json",
        "swin-unet-seed-1/fold_2.json",
        "mig-net-seed-1/fold_2.json",
    ]
    first, second = (PROCEDURE.create_key(job) for job in (jobs[1], jobs[5]))
    assert first["splits"] == second["splits"], "training, validation and test patients of a fold"
    assert first["trial"]["training"]["seed"] == 0 and second["trial"]["training"]["seed"] == 1


# ---- one fold ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("validate_every", [1, 0])
def test_no_patient_is_used_for_training_and_test(
    job: FoldJob, tiny_cohort: Cohort, monkeypatch: pytest.MonkeyPatch, validate_every: int
) -> None:
    training = replace(job.run.training, validate_every=validate_every)
    job = replace(job, run=replace(job.run, training=training))
    original, trainings = segmentation_procedure.train_segmentation_network, []

    def record_training(bank: SliceDataset, settings, work, validation, teacher):
        trainings.append((read_patients(bank), set() if validation is None else read_patients(validation)))
        return original(bank, settings, work, validation, teacher)

    monkeypatch.setattr(segmentation_procedure, "train_segmentation_network", record_training)
    finished = execute_job(job, PROCEDURE)
    split = split_fold(load_cohort_folds(tiny_cohort), 1, tiny_cohort.patient_ids, 0)
    all_training = set(split.training) | set(split.validation)
    assert trainings == [
        (set(split.training), set(split.validation)) if validate_every else (all_training, set())
    ]
    assert finished.result.best_epoch == finished.result.epochs == 1
    assert [row["patient"] for row in finished.result.patients] == list(split.test)
    assert (
        set(load_weights(get_weights_path(job)).card.training_patients) == trainings[0][0] | trainings[0][1]
    )
    record_path = PROCEDURE.get_record_path(job)
    assert not record_path.with_suffix("").exists(), "the checkpoints of a finished fold are removed"
    assert find_finished_job(job, PROCEDURE) == finished


def test_a_finished_fold_is_not_trained_again_and_that_of_another_run_is_refused(
    job: FoldJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = execute_job(job, PROCEDURE)

    def fail_if_trained(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(segmentation_procedure, "train_segmentation_network", fail_if_trained)
    assert execute_job(job, PROCEDURE) == finished
    other = replace(job, run=replace(job.run, training=replace(job.run.training, rate=1e-4)))
    with pytest.raises(
        GliomarkError, match="other settings, patients, images or weights; delete that folder"
    ):
        execute(other)


@pytest.mark.sample(2)
@pytest.mark.parametrize("change", ["settings", "seed", "images", "outline", "grades", "teacher"])
def test_a_stored_fold_is_valid_only_for_the_same_run(tmp_path: Path, change: str) -> None:
    """A change of anything that the results of a fold depend on makes a kept fold invalid."""
    folder = write_tiny_cohort(tmp_path / "cohort")
    run = create_mignet_run(MIGNET, TINY)
    job = create_fold_job(replace(run, name="taught", teacher=MIGNET), 1, (folder,), tmp_path)
    get_weights_path(job, MIGNET).parent.mkdir(parents=True)
    save_tiny_weights(get_weights_path(job, MIGNET), folder, 0.0)
    key = PROCEDURE.create_key(job)
    record = PROCEDURE.to_record(FinishedJob(key, SegmentationFold(()), 0))
    write_json(PROCEDURE.get_record_path(job), record)
    assert find_finished_job(job, PROCEDURE) is not None and PROCEDURE.create_key(job) == key
    if change in ("settings", "seed"):
        other = replace(run.training, **{"settings": {"rate": 0.1}, "seed": {"seed": 1}}[change])
        job = replace(job, run=replace(job.run, training=other))
    elif change in ("images", "outline"):
        with h5py.File(folder / "GMSBraTS" / "FLAIR" / "P03" / "002.h5", "a") as file:
            file["image" if change == "images" else "mask"][3, 3] = 1
        update_slice_hashes(folder)
    elif change == "grades":
        table = folder / "MetaMS.csv"
        table.write_text(table.read_text("utf-8").replace("P03,36,1,1,2", "P03,36,1,1,4"), "utf-8")
    else:
        save_tiny_weights(get_weights_path(job, MIGNET), folder, 1.0)
    with pytest.raises(GliomarkError, match="other settings, patients, images or weights; delete"):
        find_finished_job(job, PROCEDURE)


def save_tiny_weights(path: Path, folder: Path, value: float) -> None:
    cohort = Cohort(folder)
    training = create_mignet_run(MIGNET, TINY).training
    card = create_segmentation_card("t", cohort, load_cohort_folds(cohort), ("P01",), "single", training)
    save_weights(path, card, {"prior": torch.full((2, 2), value)})


def test_weights_trained_on_a_test_patient_are_refused(job: FoldJob) -> None:
    execute(job)
    evaluated_run = replace(job.run, name="read again", weights_of=MIGNET)
    # the same weights in another fold, whose test patients they were trained on
    elsewhere = replace(job, run=evaluated_run, excluded_folds=(2,))
    get_weights_path(elsewhere).write_bytes(get_weights_path(job).read_bytes())
    with pytest.raises(GliomarkError, match="is in both"):
        execute(elsewhere)


def test_a_run_may_use_the_weights_of_another(job: FoldJob) -> None:
    execute(job)
    flipped = execute(replace(job, run=replace(job.run, name="flipped", weights_of=MIGNET, flips=True)))
    t1c_only = execute(
        replace(job, run=replace(job.run, name="T1C", weights_of=MIGNET, shown=MRSequence.T1C))
    )
    training = replace(job.run.training, distillation=0.5)
    student = replace(job, run=replace(job.run, name="student", teacher=MIGNET, training=training))
    assert execute(student).epochs == 1
    assert flipped.epochs == t1c_only.epochs == 0, "evaluated with existing weights, not trained"
    assert not get_weights_path(job, "flipped").exists()


@pytest.fixture
def tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(segmentation_runs.PRESETS, "quick", TINY)


@pytest.mark.slow
def test_two_cohorts_are_cross_validated(
    tiny_cohort: Cohort, second_tiny_cohort: Cohort, tmp_path: Path, tiny_preset: None
) -> None:
    folders = (tiny_cohort.folder, second_tiny_cohort.folder)
    third = write_tiny_cohort(tmp_path / "third", "R")
    config = ExperimentConfig(folders, tmp_path, "quick", 0, None, ignore_message, test_only_cohorts=(third,))
    # MIG-Net of table 3-1 already exists and is not trained again
    job = create_fold_job(list_table_3_3_runs(TINY)[0], 0, folders[:1], tmp_path / "work")
    execute(job)
    before = get_weights_path(job).stat().st_mtime_ns
    one_fold = replace(table_3_3.TABLE, count_folds=lambda _: 1)
    table = pd.read_csv(run_experiment(one_fold, config).path)
    assert len(table) == 9 and set(table["tested_on"]) == {*config.cohort_names, "third"}
    assert table["published_dice"].notna().sum() == 6
    assert get_weights_path(job).stat().st_mtime_ns == before
    with pytest.raises(GliomarkError, match="--second-cohort"):
        run_experiment(one_fold, replace(config, cohort_folders=folders[:1]))


@pytest.mark.parametrize(
    ("table", "folds"), [(segmentation_extensions.TABLE, [(0,)]), (table_3_2.TABLE, [(0,), (1,), (2,)])]
)
def test_tables_of_a_preset_may_have_fewer_folds(
    tiny_cohort: Cohort, tmp_path: Path, table: Any, folds: list[tuple[int, ...]]
) -> None:
    config = ExperimentConfig((tiny_cohort.folder,), tmp_path, "quick", 0, None, ignore_message)
    runs = table.list_runs("quick", PAIR)
    jobs = table.procedure.list_jobs(runs, table.count_folds("quick"), config)
    assert {job.excluded_folds for job in jobs} == set(folds) and len(jobs) == len(runs) * len(folds)
    assert {job.run.name for job in jobs} == {run.name for run in runs}
    assert table.count_folds("published") == FOLD_COUNT


def test_unsuitable_cohorts_are_refused(tiny_cohort: Cohort, tmp_path: Path) -> None:
    same = (tiny_cohort.folder, tiny_cohort.folder)
    config = ExperimentConfig(same, tmp_path / "out", "quick", 0, None, ignore_message)
    with pytest.raises(GliomarkError, match="same name"):
        run_experiment(table_3_3.TABLE, config)
    other = write_tiny_cohort(tmp_path / "other", "R")
    for slice_file in other.rglob("*.h5"):
        with h5py.File(slice_file, "a") as file:
            file.pop("mask", None)
    update_slice_hashes(other)
    with pytest.raises(GliomarkError, match="other has no patient with a lesion mask"):
        run_experiment(table_3_3.TABLE, replace(config, cohort_folders=(tiny_cohort.folder, other)))
    tested = replace(config, cohort_folders=(tiny_cohort.folder,), test_only_cohorts=(other,))
    with pytest.raises(GliomarkError, match="other has no patient with a lesion mask"):
        run_experiment(segmentation_tables.SHIPPED_TABLE, tested)
    assert not (tmp_path / "out").exists(), "rejected before any training"


# ---- complete table ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written_table_3_1(tiny_cohort_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One fold of the complete table, with its figures."""
    out = tmp_path_factory.mktemp("results 结果")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(segmentation_runs.PRESETS, "quick", TINY)
        patch.setattr(segmentation_tables, "bootstrap_interval", partial(bootstrap_interval, resamples=100))
        one_fold = replace(table_3_1.TABLE, count_folds=lambda _: 1)
        run_experiment(
            one_fold, ExperimentConfig((tiny_cohort_folder,), out, "quick", 0, None, ignore_message)
        )
        yield out


def test_the_table_states_its_comparisons_and_reductions(written_table_3_1: Path) -> None:
    table = pd.read_csv(written_table_3_1 / "table_3_1.csv").set_index("trial")
    assert list(table.index) == [run.name for run in list_table_3_1_runs(QUICK)]
    assert table.loc[MIGNET, "published_dice"] == 0.9056 and np.isnan(
        table.loc["Attention U-Net", "published_dice"]
    )
    assert set(table["compared_with"]) <= set(table.index) - {MIGNET}
    assert table["cuts"].notna().all() and (table["preset"] == "quick").all()
    patients = pd.read_csv(written_table_3_1 / "table_3_1_patients.csv")
    for name, row in table.iterrows():
        rows = patients[patients["trial"] == name]
        assert row["dice"] == pytest.approx(rows["dice"].mean(), abs=1e-3)
        assert row["patients"] == len(rows) == rows["patient"].nunique()
    assert (table["million_parameters"] > 0).all() and (table["gflop_per_slice"] > 0).all()
    assert table["training_waiting_share"].between(0, 1).all()


def test_figures_are_drawn_and_images_of_patients_stay_in_the_work_folder(
    written_table_3_1: Path,
) -> None:
    assert (written_table_3_1 / "work" / "figure_3_8.png").stat().st_size > 10_000
    assert {path.name for path in written_table_3_1.glob("*.png")} == {
        "figure_3_1.png",
        "figure_guidance.png",
    }
    gates = pd.read_csv(written_table_3_1 / "guidance_gates.csv")
    assert set(gates["tissue"]) == {"lesion", "brain"} and gates["mean"].between(0, 1).all()


def test_an_unfinished_table_is_continued(
    tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [create_mignet_run(name, TINY, **ABLATION_SWITCHES[name]) for name in (SWIN_UNET, MIGNET)]
    config = ExperimentConfig((tiny_cohort.folder,), tmp_path, "quick", 0, None, ignore_message)
    original, calls = SegmentationProcedure.execute, []

    def interrupt_once(self, job: FoldJob, checkpoint_folder: Path) -> SegmentationFold:
        calls.append(job.run.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, job, checkpoint_folder)

    def run_here(_, function, jobs):
        return ((job, function(job)) for job in jobs)

    monkeypatch.setattr(job_runner, "run_on_cluster", run_here)
    monkeypatch.setattr(SegmentationProcedure, "execute", interrupt_once)
    jobs = PROCEDURE.list_jobs(runs, 1, config)
    with pytest.raises(KeyboardInterrupt):
        complete_jobs(jobs, PROCEDURE, config)
    finished = complete_jobs(jobs, PROCEDURE, config)
    assert calls == [SWIN_UNET, MIGNET, MIGNET] and list(finished) == jobs


@pytest.mark.slow
def test_a_table_of_two_seeds_has_one_row_per_network(
    tiny_cohort: Cohort, tmp_path: Path, tiny_preset: None
) -> None:
    runs = [create_mignet_run(name, TINY, **ABLATION_SWITCHES[name]) for name in (SWIN_UNET, MIGNET)]
    two_runs = replace(table_3_2.TABLE, list_runs=lambda *_: runs, count_folds=lambda _: 1)
    config = ExperimentConfig((tiny_cohort.folder,), tmp_path, "quick", 0, None, ignore_message, seeds=2)
    table = pd.read_csv(run_experiment(two_runs, config).path).set_index("trial")
    patients = pd.read_csv(tmp_path / "table_3_2_patients.csv")
    assert list(table.index) == [SWIN_UNET, MIGNET] and (table["seeds"] == 2).all()
    for name, row in table.iterrows():
        dice = patients[patients["trial"] == name].pivot(index="patient", columns="seed", values="dice")
        assert row["patients"] == len(dice) and not np.array_equal(dice[0], dice[1])
        assert row["dice"] == pytest.approx(dice.mean(axis=1).mean(), abs=1e-4)
        lowest, highest = sorted(dice.mean())
        assert (row["dice_seed_lowest"], row["dice_seed_highest"]) == pytest.approx(
            (lowest, highest), abs=1e-4
        )
        assert row["training_slices_per_second"] > 0
    record = json.loads((tmp_path / "table_3_2_run_record.json").read_text("utf-8"))
    assert record["seeds"] == [0, 1]
    assert [(fold["trial"], fold["seed"]) for fold in record["folds"]] == [
        (SWIN_UNET, 0), (MIGNET, 0), (SWIN_UNET, 1), (MIGNET, 1),
    ]  # fmt: skip


# ---- statistics and plots ---------------------------------------------------------------------------


def create_patient_table(count: int = 12) -> pd.DataFrame:
    """Two runs on the same patients, one slightly better; one patient has no Hausdorff distance."""
    random = np.random.default_rng(0)
    folds = []
    for name, gain in (("A", 0.0), ("B", 0.05)):
        rows = []
        for number in range(count):
            dice = float(np.clip(0.7 + 0.02 * number + gain + 0.01 * random.normal(), 0, 1))
            scores = dict.fromkeys(segmentation_tables.SCORE_COLUMNS, dice)
            if number == 0:
                scores["hausdorff_mm"] = float("nan")
            free = (0.0,) * number + (0.02,)
            rows.append(
                {"cohort": 0, "patient": f"P{number}", **scores, "lesion_free": free}
                | {"high_grade": number % 2, "high_grade_probability": 0.9 if number % 2 else 0.2}
            )
        folds.append(EvaluatedFold(name, 1, rows))
    return tabulate_patients(folds, ["here"])


def test_the_summary_is_over_patients_and_false_positives_over_slices() -> None:
    patients = create_patient_table()
    rows = patients[patients["trial"] == "A"]
    row = summarise_patients(rows)
    assert row["dice"] == pytest.approx(rows["dice"].mean())
    assert row["dice_sd"] == pytest.approx(rows["dice"].std())
    assert row["dice_low_95"] < row["dice"] < row["dice_high_95"]
    assert (row["without_distance"], row["hausdorff_mm"]) == (1, pytest.approx(rows["dice"][1:].mean()))
    slices = sum(range(12)) + 12
    assert row["lesion_free_slices"] == slices
    assert row["small_false_area"] == pytest.approx((slices - 12) / slices)
    assert row["false_area"] == pytest.approx(12 * 0.02 / slices)
    assert (row["graded_patients"], row["grading_accuracy"], row["grading_auc"]) == (12, 1.0, 1.0)


def test_a_patients_score_is_its_mean_over_seeds_and_the_spread_is_that_of_the_seeds_means() -> None:
    one = create_patient_table().query("trial == 'A'")
    assert summarise_seeds(one)["seeds"] == 1 and np.isnan(summarise_seeds(one)["dice_seed_sd"])
    pd.testing.assert_frame_equal(average_over_seeds(one), one.drop(columns="seed"), check_dtype=False)
    worse, worst = (one.assign(seed=seed, dice=one["dice"] - 0.1 * seed) for seed in (1, 2))
    worse.loc[worse["patient"] == "P3", "dice"] = np.nan
    seeds = pd.concat([one, worse, worst])
    means = average_over_seeds(seeds).set_index("patient")
    expected = one.set_index("patient")["dice"] - 0.1
    pd.testing.assert_series_equal(means["dice"], expected)
    assert means["hausdorff_mm"].isna().sum() == 1 and (means["fold"] == 1).all()
    spread = summarise_seeds(pd.concat([one, worst]))
    mean = one["dice"].mean()
    assert spread == pytest.approx(
        {
            "seeds": 2,
            "dice_seed_sd": 0.1 * 2**0.5,
            "dice_seed_lowest": mean - 0.2,
            "dice_seed_highest": mean,
        }
    )


def test_the_paired_test_is_the_wilcoxon_test_over_the_same_patients() -> None:
    patients = create_patient_table()
    one, two = (patients[patients["trial"] == name] for name in "AB")
    found = compare_paired_dice(two, one.sample(frac=1, random_state=1))
    difference = two["dice"].to_numpy() - one["dice"].to_numpy()
    assert found["difference"] == pytest.approx(difference.mean())
    assert found["wilcoxon_p"] == pytest.approx(stats.wilcoxon(difference).pvalue)
    assert compare_paired_dice(one, one)["wilcoxon_p"] == 1.0


def test_the_cost_counts_the_operations_of_the_network() -> None:
    network = MIGNetSettings(size=SIZE)
    training = replace(TINY.training, network=network)
    found = measure_network_cost(training, training.pool)
    count = sum(p.numel() for p in build_mignet(network).parameters())
    assert found["million_parameters"] == pytest.approx(count / 1e6)
    finer = measure_network_cost(training, 2)
    assert 3.5 < finer["gflop_per_slice"] / found["gflop_per_slice"] < 4.5, "four times the pixels"


def test_typical_patients_have_the_stated_ranks() -> None:
    patients = create_patient_table(13)
    ranked = patients[patients["trial"] == "A"].sort_values("dice")["patient"].tolist()
    assert select_typical_patients(patients, "A") == [ranked[9], ranked[6], ranked[3], ranked[0]]


def test_figure_3_8_colours_true_positives_false_positives_and_false_negatives() -> None:
    truth, mask = np.zeros((2, 1, 4), bool)
    truth[0, :2], mask[0, 1:3] = True, True
    black = np.zeros((1, 4, 3))
    false_negative, true_positive, false_positive, nothing = overlay_errors(black, truth, mask)[0]
    for pixel, name in (
        (false_negative, "false negative"),
        (true_positive, "right"),
        (false_positive, "false positive"),
    ):
        np.testing.assert_allclose(pixel, 0.6 * np.array(OVERLAY_COLOURS[name]))
    assert not nothing.any() and not black.any()


def test_figure_3_8_has_a_row_per_sequence_with_the_masks_of_that_sequence(
    job: FoldJob, tiny_cohort: Cohort
) -> None:
    union = replace(job, run=replace(job.run, rule="union"))
    patient = execute(union).patients[0]["patient"]
    weights = load_weights(get_weights_path(union))
    segmenter = create_run_segmenter(union.run, weights)
    segmenters = {"all": replace(segmenter, threshold=0.0), "none": replace(segmenter, threshold=1.1)}
    stack = tiny_cohort.read_stack(patient)
    rows = render_sequence_rows(tiny_cohort, patient, {"own": segmenter, **segmenters})
    assert [list(row) for row in rows] == [[name, "truth", "own", "all", "none"] for name in PAIR]
    assert not np.array_equal(rows[0]["T1C"], rows[1]["FLAIR"])
    slice_index = int(stack.reader_mask.sum(axis=(1, 2)).argmax())
    truth, brain = (mask[slice_index, 30:210, 40:200] for mask in (stack.reader_mask, stack.brain))
    for row, sequence in zip(rows, PAIR, strict=True):
        image = row[sequence]
        mask = replace(segmenter, sequences=(sequence,), rule="single").segment(stack).mask[slice_index]
        np.testing.assert_allclose(row["own"], overlay_errors(image, truth, mask[30:210, 40:200]))
        np.testing.assert_allclose(row["truth"], overlay_errors(image, truth, truth))
        np.testing.assert_allclose(row["all"], overlay_errors(image, truth, brain))
        np.testing.assert_allclose(row["none"], overlay_errors(image, truth, np.zeros_like(truth)))


def test_gate_maps_are_the_coefficients_of_the_gates(job: FoldJob, tiny_cohort: Cohort) -> None:
    execute(job)
    weights = load_weights(get_weights_path(job))
    segmenter, network = build_segmenter(weights), load_segmentation_network(weights)
    gate = network.decoder.gates[0]
    torch.nn.init.zeros_(gate.psi.weight)
    torch.nn.init.constant_(gate.psi.bias, 1.0)
    gate_maps = compute_gate_maps(network, segmenter, tiny_cohort.read_stack("P01"))
    assert len(gate_maps) == len(SIZE.depths) - 1
    torch.testing.assert_close(
        gate_maps[0], torch.full_like(gate_maps[0], torch.sigmoid(torch.tensor(1.0)).item())
    )
    assert all(a.shape[-1] > b.shape[-1] for a, b in zip(gate_maps, gate_maps[1:], strict=False)), (
        "fine to coarse"
    )
