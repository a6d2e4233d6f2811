"""Chapter 3's tables with tiny patients and networks: no patient in both training and test, no network trained twice.

The corner pixel of every slice is the patient's number, so that a test can identify the patients of any batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from tests.conftest import PAIR, update_slice_hashes, write_tiny_cohort

from gliomark.cohort.folds import load_cohort_folds, split_fold
from gliomark.cohort.store import Cohort, write_json
from gliomark.errors import GliomarkError
from gliomark.evaluation.intervals import bootstrap_interval
from gliomark.experiments import job_runner
from gliomark.experiments.config import ExperimentConfig
from gliomark.experiments.segmentation import fold_training as segmentation_study
from gliomark.experiments.segmentation import result_tables as segmentation_tables
from gliomark.experiments.segmentation.fold_training import (
    FoldTrainingJob,
    SegmentationRun,
    create_fold_key,
    execute_runs,
    find_fold_record,
    train_and_evaluate_fold,
)
from gliomark.experiments.segmentation.plots import (
    OVERLAY_COLOURS,
    compute_gate_maps,
    overlay_errors,
    select_typical_patients,
)
from gliomark.experiments.segmentation.result_tables import (
    compare_paired_dice,
    measure_network_cost,
    summarise_patients,
    tabulate_patients,
)
from gliomark.experiments.segmentation.runs import (
    ABLATION_SWITCHES,
    MIGNET,
    PRESETS,
    SHIPPED_PRESET,
    SWIN_UNET,
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
from gliomark.models.published.mignet import MIGNetSettings, build_mignet
from gliomark.models.published.swin_unet import SwinSize
from gliomark.models.weights import load_weights, save_weights
from gliomark.pipeline import build_segmenter
from gliomark.study import MRSequence
from gliomark.training.recipes import create_segmentation_card
from gliomark.training.segmentation import create_pretrained_segmentation_config
from gliomark.training.slice_dataset import SliceDataset

SIZE = SwinSize(embedding=8, depths=(1, 1, 1), heads=(1, 2, 2), patch=2)
QUICK = PRESETS["quick"]
TINY = replace(
    QUICK,
    training=replace(QUICK.training, epochs=1, batch=16, slices_per_patient=2, validate_every=1),
    swin_size=SIZE,
    comparison_width=4,
    nnunet_width=4,
)


def quiet(_: str) -> None:
    pass


@pytest.fixture(autouse=True)
def one_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a short bootstrap."""
    monkeypatch.setattr(segmentation_tables, "bootstrap_interval", partial(bootstrap_interval, resamples=100))


@pytest.fixture(scope="module")
def second_tiny_cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """A second cohort with other patient ids but the same data."""
    return Cohort(write_tiny_cohort(tmp_path_factory.mktemp("other"), "Q"))


@pytest.fixture
def job(tiny_cohort: Cohort, tmp_path: Path) -> FoldTrainingJob:
    return FoldTrainingJob(create_mignet_run(MIGNET, TINY), 1, (tiny_cohort.folder,), tmp_path)


def numbers(bank: SliceDataset) -> set[str]:
    """Ids of the patients of these slices, from the number in the corner pixel."""
    return {f"P{round(float(value)):02d}" for value in bank.image[:, 0, 0, 0]}


# ---- comparability of runs --------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["published", "quick"])
def test_a_tables_trials_share_data_augmentation_and_budget(preset: str) -> None:
    first, *others = list_table_3_1_runs(PRESETS[preset])
    own = {"optimiser", "rate", "weight_decay", "largest_gradient"}  # nnU-Net has its own optimiser
    for other in others:
        assert (other.rule, other.trained_on) == (first.rule, first.trained_on)
        one, two = asdict(first.training), asdict(other.training)
        different = {key for key in one if one[key] != two[key]} - {"network"}
        assert different <= (own if other.name == "nnU-Net 2-D" else set()), other.name


def test_the_ablation_is_every_combination_once_and_shares_its_ends_with_table_3_1() -> None:
    trials = list_table_3_2_runs(QUICK)
    networks = [trial.training.network for trial in trials]
    assert len({(n.fpg, n.guidance, n.iag) for n in networks}) == 8
    for trial in trials:
        n = trial.training.network
        parts = [word for word, on in (("FPG", n.fpg), ("guidance", n.guidance), ("IAG", n.iag)) if on]
        assert trial.name == {0: SWIN_UNET, 3: MIGNET}.get(len(parts), " + ".join(parts))
    shared = {trial.name: trial for trial in list_table_3_1_runs(QUICK)}
    assert trials[0] == shared[SWIN_UNET] and trials[-1] == shared[MIGNET] == list_table_3_3_runs(QUICK)[0]
    assert set(ABLATION_SWITCHES) == set(segmentation_tables.PUBLISHED_3_2)


def test_the_published_preset_is_the_published_setting() -> None:
    training = get_segmentation_preset("published").training
    assert (training.rate, training.batch, training.epochs, training.pool) == (5e-4, 16, 200, 1)
    assert (training.augmentation.crop, training.augmentation.quarter_turns) == (224, True)
    assert (PRESETS["published"].comparison_width, PRESETS["published"].swin_size) == (64, SwinSize())
    assert (
        describe_reductions("published") == "none"
        and "60x60" in describe_reductions("quick")
        and "own recipe" in describe_reductions(SHIPPED_PRESET)
    )
    with pytest.raises(GliomarkError, match="'fast' is unknown"):
        get_segmentation_preset("fast")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_table_keeps_the_last_weights_of_the_falling_rate(preset: str) -> None:
    """No patients are held out to choose an epoch; validation patients are trained on too."""
    trials = [*list_table_3_1_runs(PRESETS[preset]), *list_design_choice_runs(PRESETS[preset])]
    assert {trial.training.validate_every for trial in trials} == {0}
    assert trials[0].training.split_patients(["a"], ["b"]) == (("a", "b"), ())


def test_mignets_choices_differ_from_it_by_one_thing_each() -> None:
    own, *others = list_design_choice_runs(QUICK)
    assert own == list_table_3_1_runs(QUICK)[-1] and len({trial.name for trial in others}) == len(others)
    for other in others:
        one, two = asdict(own.training), asdict(other.training)
        outer = {key for key in one if one[key] != two[key]}
        inner = {key for key in one["network"] if one["network"][key] != two["network"][key]}
        assert len((outer - {"network"}) | inner) == 1, other.name


def test_the_shipped_recipe_is_the_light_one_read_four_ways() -> None:
    plain, flipped, finer, shipped = create_shipped_runs(2)
    assert (
        plain.training == create_pretrained_segmentation_config(2, plain.training.epochs)
        and plain.weights_of is None
    )
    assert flipped.weights_of == finer.weights_of == shipped.weights_of == plain.name
    assert plain.training.validate_every == 0, "no patients are held out, because there are few"
    assert (flipped.flips, finer.flips, shipped.flips, finer.smallest_share) == (True, True, True, 0.0)
    assert flipped.pooling_factor == plain.training.pool > finer.pooling_factor == shipped.pooling_factor
    assert 0 < shipped.smallest_share < 1, "a second lesion component may be kept"


def test_beyond_every_name_is_its_own_and_leans_on_a_trial_of_the_table() -> None:
    trials = {trial.name: trial for trial in list_extension_runs(QUICK, PAIR)}
    assert len(trials) == len(list_extension_runs(QUICK, PAIR))
    for trial in trials.values():
        for leaned in (trial.teacher, trial.weights_of):
            assert leaned is None or trials[leaned].training.context == trial.training.context


# ---- one fold ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("validate_every", [1, 0])
def test_no_patient_is_trained_on_and_tested(
    job: FoldTrainingJob, tiny_cohort: Cohort, monkeypatch: pytest.MonkeyPatch, validate_every: int
) -> None:
    training = replace(job.run.training, validate_every=validate_every)
    job = replace(job, run=replace(job.run, training=training))
    real, fed = segmentation_study.train_segmentation_network, []

    def spy(bank: SliceDataset, settings, work, validation, teacher):
        fed.append((numbers(bank), set() if validation is None else numbers(validation)))
        return real(bank, settings, work, validation, teacher)

    monkeypatch.setattr(segmentation_study, "train_segmentation_network", spy)
    record = train_and_evaluate_fold(job)
    split = split_fold(load_cohort_folds(tiny_cohort), 1, tiny_cohort.patient_ids, 0)
    everybody = set(split.training) | set(split.validation)
    assert fed == [(set(split.training), set(split.validation)) if validate_every else (everybody, set())]
    assert record["best_epoch"] == record["epochs"] == 1
    assert [row["patient"] for row in record["patients"]] == list(split.test)
    assert set(load_weights(job.get_weights_path()).card.training_patients) == fed[0][0] | fed[0][1]
    assert not job.record_path.with_suffix("").exists(), "the checkpoints of a finished fold are removed"
    assert find_fold_record(job) == record


def test_a_finished_fold_is_not_trained_again_and_another_runs_is_refused(
    job: FoldTrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = train_and_evaluate_fold(job)

    def never(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(segmentation_study, "train_segmentation_network", never)
    assert train_and_evaluate_fold(job) == record
    other = replace(job, run=replace(job.run, training=replace(job.run.training, rate=1e-4)))
    with pytest.raises(
        GliomarkError, match="other settings, patients, images or weights; delete that folder"
    ):
        train_and_evaluate_fold(other)


@pytest.mark.parametrize("change", ["settings", "seed", "images", "outline", "grades", "teacher"])
def test_a_kept_fold_is_of_this_run_alone(tmp_path: Path, change: str) -> None:
    """A change of anything that the results of a fold depend on makes a kept fold invalid."""
    folder = write_tiny_cohort(tmp_path / "cohort")
    trial = create_mignet_run(MIGNET, TINY)
    job = FoldTrainingJob(replace(trial, name="taught", teacher=MIGNET), 1, (folder,), tmp_path)
    job.get_weights_path(MIGNET).parent.mkdir(parents=True)
    save_tiny_weights(job.get_weights_path(MIGNET), folder, 0.0)
    key = create_fold_key(job)
    write_json(job.record_path, {"key": key, "patients": []})
    assert find_fold_record(job) is not None and create_fold_key(job) == key
    if change in ("settings", "seed"):
        other = replace(trial.training, **{"settings": {"rate": 0.1}, "seed": {"seed": 1}}[change])
        job = replace(job, run=replace(job.run, training=other))
    elif change in ("images", "outline"):
        with h5py.File(folder / "GMSBraTS" / "FLAIR" / "P03" / "002.h5", "a") as file:
            file["image" if change == "images" else "mask"][3, 3] = 1
        update_slice_hashes(folder)
    elif change == "grades":
        table = folder / "MetaMS.csv"
        table.write_text(table.read_text("utf-8").replace("P03,36,1,1,2", "P03,36,1,1,4"), "utf-8")
    else:
        save_tiny_weights(job.get_weights_path(MIGNET), folder, 1.0)
    with pytest.raises(GliomarkError, match="other settings, patients, images or weights; delete"):
        find_fold_record(job)


def save_tiny_weights(path: Path, folder: Path, value: float) -> None:
    cohort = Cohort(folder)
    training = create_mignet_run(MIGNET, TINY).training
    card = create_segmentation_card("t", cohort, load_cohort_folds(cohort), ("P01",), "single", training)
    save_weights(path, card, {"prior": torch.full((2, 2), value)})


def test_weights_that_know_a_test_patient_are_refused(job: FoldTrainingJob) -> None:
    train_and_evaluate_fold(job)
    reader = replace(job.run, name="read again", weights_of=MIGNET)
    # the same weights in another fold, whose test patients they were trained on
    elsewhere = replace(job, run=reader, fold_index=2)
    elsewhere.get_weights_path(MIGNET).write_bytes(job.get_weights_path().read_bytes())
    with pytest.raises(GliomarkError, match="is in both"):
        train_and_evaluate_fold(elsewhere)


def test_a_trial_may_lean_on_another(job: FoldTrainingJob) -> None:
    train_and_evaluate_fold(job)
    flipped = train_and_evaluate_fold(
        replace(job, run=replace(job.run, name="flipped", weights_of=MIGNET, flips=True))
    )
    shown = train_and_evaluate_fold(
        replace(job, run=replace(job.run, name="T1C", weights_of=MIGNET, shown=MRSequence.T1C))
    )
    training = replace(job.run.training, distillation=0.5)
    student = replace(job, run=replace(job.run, name="student", teacher=MIGNET, training=training))
    assert train_and_evaluate_fold(student)["epochs"] == 1
    assert flipped["epochs"] == shown["epochs"] == 0, "evaluated with existing weights, not trained"
    assert not replace(job, run=SegmentationRun("flipped", training)).get_weights_path().exists()


def test_two_cohorts_are_crossed(
    tiny_cohort: Cohort, second_tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmentation_tables, "get_segmentation_preset", lambda _: TINY)
    monkeypatch.setattr(segmentation_tables, "FOLD_COUNT", 1)
    monkeypatch.setattr(segmentation_study, "FOLD_COUNT", 1)
    folders = (tiny_cohort.folder, second_tiny_cohort.folder)
    place = ExperimentConfig(folders, tmp_path, "quick", 0, None, quiet)
    third = write_tiny_cohort(tmp_path / "third", "R")
    # MIG-Net of table 3-1 already exists and is not trained again
    execute_runs(list_table_3_3_runs(TINY)[:1], folders[:1], tmp_path / "work", quiet, workers=0)
    trained = FoldTrainingJob(
        list_table_3_3_runs(TINY)[0], 0, folders[:1], tmp_path / "work"
    ).get_weights_path()
    before = trained.stat().st_mtime_ns
    table = pd.read_csv(segmentation_tables.run_table_3_3(place, [third]))
    assert len(table) == 9 and set(table["tested_on"]) == {*place.cohort_names, "third"}
    assert trained.stat().st_mtime_ns == before
    with pytest.raises(GliomarkError, match="--second-cohort"):
        segmentation_tables.run_table_3_3(replace(place, cohort_folders=folders[:1]))


def test_beyond_the_study_a_preset_may_spend_fewer_folds(
    tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(job: FoldTrainingJob) -> dict:
        judged = {"patients": [{"cohort": 0, "dice": 0.5}], "best_epoch": 1, "epochs": 1, "seconds": 0}
        return judged | {"fold": job.fold_index, "trial": job.run.name}

    monkeypatch.setattr(segmentation_study, "train_and_evaluate_fold", trained)
    trials = list_extension_runs(QUICK, PAIR)
    records = execute_runs(trials, [tiny_cohort.folder], tmp_path, quiet, 0, fold_count=QUICK.extension_folds)
    assert {r["fold"] for r in records} == {0} and {r["trial"] for r in records} == {t.name for t in trials}


def test_cohorts_that_cannot_be_judged_together(tiny_cohort: Cohort, tmp_path: Path) -> None:
    place = ExperimentConfig(
        (tiny_cohort.folder, tiny_cohort.folder), tmp_path / "out", "quick", 0, None, quiet
    )
    with pytest.raises(GliomarkError, match="same name"):
        segmentation_tables.run_table_3_3(place)
    other = write_tiny_cohort(tmp_path / "other", "R")
    for slice_file in other.rglob("*.h5"):
        with h5py.File(slice_file, "a") as file:
            file.pop("mask", None)
    update_slice_hashes(other)
    with pytest.raises(GliomarkError, match="other has no patient with a lesion mask"):
        segmentation_tables.run_table_3_3(replace(place, cohort_folders=(tiny_cohort.folder, other)))
    with pytest.raises(GliomarkError, match="other has no patient with a lesion mask"):
        segmentation_tables.run_shipped_recipe(replace(place, cohort_folders=(tiny_cohort.folder,)), [other])
    assert not (tmp_path / "out").exists(), "rejected before any training"


# ---- complete table ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table_3_1(tiny_cohort_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One fold of the complete table, with its figures."""
    out = tmp_path_factory.mktemp("results 结果")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmentation_tables, "get_segmentation_preset", lambda _: TINY)
        patch.setattr(segmentation_tables, "bootstrap_interval", partial(bootstrap_interval, resamples=100))
        patch.setattr(segmentation_study, "FOLD_COUNT", 1)
        segmentation_tables.run_table_3_1(
            ExperimentConfig((tiny_cohort_folder,), out, "quick", 0, None, quiet)
        )
        yield out


def test_the_table_says_what_it_compares_and_what_it_cut(table_3_1: Path) -> None:
    table = pd.read_csv(table_3_1 / "table_3_1.csv").set_index("trial")
    assert list(table.index) == [trial.name for trial in list_table_3_1_runs(QUICK)]
    assert table.loc[MIGNET, "published_dice"] == 0.9056 and np.isnan(
        table.loc["Attention U-Net", "published_dice"]
    )
    assert set(table["compared_with"]) <= set(table.index) - {MIGNET}
    assert table["cuts"].notna().all() and (table["preset"] == "quick").all()
    patients = pd.read_csv(table_3_1 / "table_3_1_patients.csv")
    for name, row in table.iterrows():
        own = patients[patients["trial"] == name]
        assert row["dice"] == pytest.approx(own["dice"].mean(), abs=1e-3)
        assert row["patients"] == len(own) == own["patient"].nunique()
    assert (table["million_parameters"] > 0).all() and (table["gflop_per_slice"] > 0).all()
    assert table["training_waiting_share"].between(0, 1).all()


def test_the_figures_are_drawn_and_no_image_of_a_patient_leaves_the_work_folder(table_3_1: Path) -> None:
    assert (table_3_1 / "work" / "figure_3_8.png").stat().st_size > 10_000
    assert {path.name for path in table_3_1.glob("*.png")} == {"figure_3_1.png", "figure_guidance.png"}
    gates = pd.read_csv(table_3_1 / "guidance_gates.csv")
    assert set(gates["tissue"]) == {"lesion", "brain"} and gates["mean"].between(0, 1).all()


def test_an_unfinished_table_goes_on(
    tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmentation_study, "FOLD_COUNT", 1)
    trials = [create_mignet_run(name, TINY, **ABLATION_SWITCHES[name]) for name in (SWIN_UNET, MIGNET)]
    real, calls = segmentation_study.train_and_evaluate_fold, []

    def dies_once(job: FoldTrainingJob) -> dict:
        calls.append(job.run.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(job)

    def each(_, function, jobs):
        return ((job, function(job)) for job in jobs)

    monkeypatch.setattr(job_runner, "run_on_cluster", each)
    monkeypatch.setattr(segmentation_study, "train_and_evaluate_fold", dies_once)
    with pytest.raises(KeyboardInterrupt):
        execute_runs(trials, [tiny_cohort.folder], tmp_path, quiet, workers=0)
    records = execute_runs(trials, [tiny_cohort.folder], tmp_path, quiet, workers=0)
    assert calls == [SWIN_UNET, MIGNET, MIGNET] and len(records) == 2


# ---- statistics and plots ---------------------------------------------------------------------------


def some_patients(count: int = 12) -> pd.DataFrame:
    """Two runs on the same patients, one slightly better; one patient has no Hausdorff distance."""
    random = np.random.default_rng(0)
    records = []
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
        records.append({"key": {"trial": {"name": name}, "fold": 1}, "patients": rows})
    return tabulate_patients(records, ["here"])


def test_summary_is_over_patients_and_false_alarms_over_slices() -> None:
    patients = some_patients()
    own = patients[patients["trial"] == "A"]
    row = summarise_patients(own)
    assert row["dice"] == pytest.approx(own["dice"].mean())
    assert row["dice_sd"] == pytest.approx(own["dice"].std())
    assert row["dice_low_95"] < row["dice"] < row["dice_high_95"]
    assert (row["without_distance"], row["hausdorff_mm"]) == (1, pytest.approx(own["dice"][1:].mean()))
    slices = sum(range(12)) + 12
    assert row["lesion_free_slices"] == slices
    assert row["small_false_area"] == pytest.approx((slices - 12) / slices)
    assert row["false_area"] == pytest.approx(12 * 0.02 / slices)
    assert (row["graded_patients"], row["grading_accuracy"], row["grading_auc"]) == (12, 1.0, 1.0)


def test_the_paired_test_is_wilcoxons_over_the_same_patients() -> None:
    patients = some_patients()
    one, two = (patients[patients["trial"] == name] for name in "AB")
    found = compare_paired_dice(two, one.sample(frac=1, random_state=1))
    difference = two["dice"].to_numpy() - one["dice"].to_numpy()
    assert found["difference"] == pytest.approx(difference.mean())
    assert found["wilcoxon_p"] == pytest.approx(stats.wilcoxon(difference).pvalue)
    assert compare_paired_dice(one, one)["wilcoxon_p"] == 1.0


def test_cost_counts_what_the_network_does() -> None:
    network = MIGNetSettings(size=SIZE)
    training = replace(TINY.training, network=network)
    found = measure_network_cost(training, training.pool)
    count = sum(p.numel() for p in build_mignet(network).parameters())
    assert found["million_parameters"] == pytest.approx(count / 1e6)
    finer = measure_network_cost(training, 2)
    assert 3.5 < finer["gflop_per_slice"] / found["gflop_per_slice"] < 4.5, "four times the pixels"


def test_typical_patients_stand_where_they_are_said_to() -> None:
    patients = some_patients(13)
    ranked = patients[patients["trial"] == "A"].sort_values("dice")["patient"].tolist()
    assert select_typical_patients(patients, "A") == [ranked[9], ranked[6], ranked[3], ranked[0]]


def test_figure_3_8_colours_what_is_right_in_vain_and_missed() -> None:
    truth, mask = np.zeros((2, 1, 4), bool)
    truth[0, :2], mask[0, 1:3] = True, True
    black = np.zeros((1, 4, 3))
    missed, right, vain, nothing = overlay_errors(black, truth, mask)[0]
    for pixel, name in ((missed, "false negative"), (right, "right"), (vain, "false positive")):
        np.testing.assert_allclose(pixel, 0.6 * np.array(OVERLAY_COLOURS[name]))
    assert not nothing.any() and not black.any()


def test_gate_coefficients_are_the_gates_own(job: FoldTrainingJob, tiny_cohort: Cohort) -> None:
    train_and_evaluate_fold(job)
    segmenter = build_segmenter(load_weights(job.get_weights_path()))
    gate = segmenter.network.decoder.gates[0]
    torch.nn.init.zeros_(gate.psi.weight)
    torch.nn.init.constant_(gate.psi.bias, 1.0)
    seen = compute_gate_maps(segmenter.network, segmenter, tiny_cohort.read_stack("P01"))
    assert len(seen) == len(SIZE.depths) - 1
    torch.testing.assert_close(seen[0], torch.full_like(seen[0], torch.sigmoid(torch.tensor(1.0)).item()))
    assert all(a.shape[-1] > b.shape[-1] for a, b in zip(seen, seen[1:], strict=False)), "fine to coarse"
