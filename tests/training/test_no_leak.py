"""No patient is in both parts of any split, at any stage; deliberate leaks must be detected.

The spies inspect the images that each step receives (``conftest`` encodes the patient in the corner pixels), so
that they detect leaks which the program's own checks of ids would miss.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch

from gliomark.cohort.folds import FOLD_COUNT, TrainingFolds, folds_excluding, load_cohort_folds
from gliomark.cohort.store import Cohort
from gliomark.errors import GliomarkError
from gliomark.experiments import demonstration
from gliomark.experiments.config import ExperimentConfig
from gliomark.experiments.markers import cascade
from gliomark.experiments.runner import complete_jobs
from gliomark.experiments.segmentation.procedure import (
    SegmentationProcedure,
    SegmentationRun,
    create_fold_job,
)
from gliomark.experiments.segmentation.result_tables import list_shipped_runs
from gliomark.inference.slice_classifier import LesionSlices, TreeFeatures
from gliomark.models.registry import build_marker_network
from gliomark.models.weights import load_weights, save_weights
from gliomark.study import ClinicalData
from gliomark.training import recipes, segmentation, stacking
from gliomark.training.markers import LesionSliceDataset
from gliomark.training.processes import ONE_PROCESS
from gliomark.training.recipes import (
    MARKER_DEFINITIONS,
    cross_validate_marker,
    run_marker_training,
    run_segmentation_training,
    train_marker,
)
from gliomark.training.stacking import PatientVectors, StackingConfig, compute_held_out_vectors, fit_trees

IDH = MARKER_DEFINITIONS["idh"]


def read_patients(images: torch.Tensor) -> frozenset[str]:
    """Return the patients of images ``(N, C, side, side)``, from the number encoded in the corner pixel."""
    return frozenset(f"P{int(number):02d}" for number in images[:, :, 0, 0].flatten().unique())


@dataclass
class Spy:
    """Patients on whom each network and each set of trees was trained, and patients whom it predicted."""

    networks: list[tuple[object, frozenset[str]]] = field(default_factory=list)
    network_predictions: list[tuple[object, frozenset[str]]] = field(default_factory=list)
    trees: list[tuple[object, frozenset[str], frozenset[str]]] = field(default_factory=list)
    tree_predictions: list[tuple[object, str]] = field(default_factory=list)

    def describe_leaks(self, test: tuple[str, ...]) -> list[str]:
        """Describe every leak of a patient."""
        found = []
        for network, patients in self.networks:
            found += [f"KiNet trained on test patient {p}" for p in patients & set(test)]
            predicted = frozenset().union(
                *(group for predictor, group in self.network_predictions if predictor is network)
            )
            found += [f"KiNet predicted {p}, on whom it was trained" for p in patients & predicted]
        for trees, train, stop in self.trees:
            found += [f"trees fitted on test patient {p}" for p in (train | stop) & set(test)]
            found += [f"trees trained on and stopped by {p}" for p in train & stop]
            predicted = frozenset(p for predictor, p in self.tree_predictions if predictor is trees)
            found += [f"trees predicted {p}, on whom they were fitted" for p in (train | stop) & predicted]
        return found


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    recorder = Spy()
    train_marker_network, image_vectors, fit = (
        recipes.train_marker_network,
        stacking.compute_network_vectors,
        recipes.fit_trees,
    )
    stacked = PatientVectors.predict_slice_probability

    def record_training(dataset, settings, work):
        network = train_marker_network(dataset, settings, work)
        recorder.networks.append((network, read_patients(dataset.image)))
        return network

    def record_vectors(network, images, lesion, crop):
        recorder.network_predictions.append((network, read_patients(images)))
        return image_vectors(network, images, lesion, crop)

    def record_trees(train, validation, age_cut, settings):
        trees = fit(train, validation, age_cut, settings)
        recorder.trees.append((trees, frozenset(train), frozenset(validation)))
        return trees

    def record_prediction(self, trees, age_cut, evidence="vector"):
        recorder.tree_predictions.append((trees, self.clinical.patient_id))
        return stacked(self, trees, age_cut, evidence)

    monkeypatch.setattr(recipes, "train_marker_network", record_training)
    monkeypatch.setattr(stacking, "compute_network_vectors", record_vectors)
    monkeypatch.setattr(recipes, "fit_trees", record_trees)
    monkeypatch.setattr(PatientVectors, "predict_slice_probability", record_prediction)
    return recorder


# ---- markers ----------------------------------------------------------------------------------------


def get_labels(cohort) -> dict[str, int]:
    return {p: int(cohort.get_clinical(p).columns["idh_mutant"]) for p in cohort.patient_ids}


def test_marker_training_never_predicts_its_training_patients(
    spy, tiny_cohort, tiny_marker_training, tmp_path
) -> None:
    folds, labels = load_cohort_folds(tiny_cohort), get_labels(tiny_cohort)
    training_folds = TrainingFolds(folds.development_folds, folds.test)
    trained = train_marker(tiny_cohort, training_folds, IDH, labels, labels, tiny_marker_training, tmp_path)
    assert spy.describe_leaks(folds.test) == []
    # everything that should be used was used; otherwise the spy would miss leaks
    all_patients = set(folds.development)
    assert [set(group) for _, group in spy.networks] == [
        *(all_patients - set(fold) for fold in folds.development_folds), all_patients,
    ]  # fmt: skip
    for number, fold in enumerate(folds.development_folds):
        network = spy.networks[number][0]
        assert set().union(
            *(group for predictor, group in spy.network_predictions if predictor is network)
        ) == set(fold)
    assert set(trained.out_of_fold) == set(trained.trained_on) == all_patients
    assert all(v.clinical.patient_id == p for p, v in trained.out_of_fold.items())
    final = spy.trees[-1]
    assert set(final[2]) == set(folds.development_folds[-1]) and set(final[1]) == all_patients - set(final[2])
    # once for each kind of image features of the trees
    assert sorted(p for _, p in spy.tree_predictions) == sorted([*all_patients] * len(get_args(TreeFeatures)))
    # the test patients may now be predicted, by a network that was not trained on them
    classifier = trained.classifier
    held_out = compute_held_out_vectors(
        trained.network,
        tiny_cohort,
        labels,
        folds.test,
        trained.trained_on,
        classifier.sequences,
        classifier.crop_size,
    )
    assert set(held_out) == set(folds.test) and spy.describe_leaks(folds.test) == []


def test_validation_patients_of_a_marker_are_predicted_only_by_models_not_trained_on_them(
    spy, tiny_cohort, tiny_marker_training, tmp_path
) -> None:
    folds, labels = load_cohort_folds(tiny_cohort), get_labels(tiny_cohort)
    training_folds = TrainingFolds(folds.development_folds, folds.test)
    found = cross_validate_marker(
        tiny_cohort, training_folds, IDH, labels, labels, tiny_marker_training, tmp_path
    )
    assert found is not None
    for part in (found.validation, found.calibration):
        assert part.patients == len(folds.development)
        assert part.positives == sum(labels[p] for p in folds.development)
    assert found.calibration.cohort == found.validation.cohort == tiny_cohort.folder.name
    # per fold: a network for each of the other folds and one on all of them, five times
    assert len(spy.networks) == FOLD_COUNT * FOLD_COUNT
    assert spy.describe_leaks(folds.test) == []
    models = len(spy.trees) // FOLD_COUNT
    for number, fold in enumerate(training_folds.folds):
        networks = spy.networks[number * FOLD_COUNT : (number + 1) * FOLD_COUNT]
        assert not any(group & set(fold) for _, group in networks), "a network was trained on the fold"
        trees = spy.trees[number * models : (number + 1) * models]
        assert not any((train | stop) & set(fold) for _, train, stop in trees)
        assert {p for predictor, p in spy.tree_predictions if predictor is trees[-1][0]} == set(fold), (
            "not predicted by the last trees"
        )


@pytest.mark.parametrize(
    "labels",
    [
        {f"P{n:02d}": int(n == 1) for n in range(1, 16)},
        {f"P{n:02d}": int(n in (1, 2)) for n in range(1, 16)},
        {f"P{n:02d}": int(n != 3) for n in range(1, 16)},
        {f"P{n:02d}": n % 2 for n in (1, 2, 3, 4)},
    ],
    ids=["one positive", "two positives in two folds", "one negative", "four patients"],
)
def test_a_class_with_too_few_patients_is_not_validated(
    spy, tiny_cohort, tiny_marker_training, tmp_path, labels
) -> None:
    patients = sorted(labels)
    training_folds = TrainingFolds(tuple(tuple(patients[n::FOLD_COUNT]) for n in range(FOLD_COUNT)))
    assert (
        cross_validate_marker(
            tiny_cohort, training_folds, IDH, labels, labels, tiny_marker_training, tmp_path
        )
        is None
    )
    assert not spy.networks, "trained before the check"


def test_a_marker_with_too_few_patients_is_refused(tiny_cohort, tiny_marker_training, tmp_path) -> None:
    labels = {"P01": 1, "P02": 0}
    training_folds = TrainingFolds((("P01", "P03"), ("P02",), ("P04",)))
    with pytest.raises(GliomarkError, match="IDH: 2 patients .* too few"):
        train_marker(tiny_cohort, training_folds, IDH, labels, labels, tiny_marker_training, tmp_path)


def test_the_spy_detects_a_leaking_dataset(
    spy, tiny_cohort, tiny_marker_training, tmp_path, monkeypatch
) -> None:
    """Deliberate leak: every fold's network is trained on all patients."""
    folds, labels = load_cohort_folds(tiny_cohort), get_labels(tiny_cohort)
    monkeypatch.setattr(LesionSliceDataset, "select_patients", lambda self, patients: self)
    training_folds = TrainingFolds(folds.development_folds, folds.test)
    # work folders record the patients, and a network of all patients would be refused in a fold's folder
    monkeypatch.setattr(recipes, "build_network_folder", lambda work, *_: work / str(len(spy.networks)))
    train_marker(tiny_cohort, training_folds, IDH, labels, labels, tiny_marker_training, tmp_path)
    describe_leaks = spy.describe_leaks(folds.test)
    assert {f"KiNet predicted {p}, on whom it was trained" for p in folds.development} == set(describe_leaks)


def test_an_excluded_patient_among_the_training_patients_is_refused(tiny_cohort) -> None:
    """Deliberate leak: a development fold contains a test patient."""
    folds = load_cohort_folds(tiny_cohort)
    first, *rest = folds.development_folds
    with pytest.raises(GliomarkError, match=folds.test[0]):
        TrainingFolds(((*first, folds.test[0]), *rest), folds.test)
    with pytest.raises(GliomarkError, match=first[0]):
        TrainingFolds((first, first))


def test_folds_exclude_their_own_patients(tiny_cohort) -> None:
    folds = load_cohort_folds(tiny_cohort)
    for number, fold in enumerate(folds.folds):
        training_folds = folds_excluding(folds, number)
        assert training_folds.excluded == fold and set(training_folds.patients) == set(
            tiny_cohort.patient_ids
        ) - set(fold)
    assert set(folds_excluding(folds, None).patients) == set(tiny_cohort.patient_ids)
    assert folds_excluding(folds, 0).restrict_to(folds.folds[1]).patients == tuple(sorted(folds.folds[1]))


@pytest.mark.parametrize("shuffle", [0, pytest.param(3, marks=pytest.mark.slow)])
def test_no_fold_of_the_cascade_is_trained_on_its_test_patients(
    spy, tiny_cohort, tiny_marker_training, tmp_path, monkeypatch, shuffle
) -> None:
    folds, calls = load_cohort_folds(tiny_cohort), []
    original_train = cascade.train_marker

    def record_marker_training(cohort, training_folds, definition, labels, values, settings, work):
        before = len(spy.networks), len(spy.trees)
        marker = original_train(cohort, training_folds, definition, labels, values, settings, work)
        calls.append((training_folds.excluded, spy.networks[before[0] :], spy.trees[before[1] :]))
        assert (labels, values) == cascade.load_cascade_labels(cohort, IDH, shuffle)
        return marker

    def return_manual_masks(job, test):
        assert set(test) == set(folds.folds[job.fold_index])
        return {patient: tiny_cohort.read_stack(patient).reader_mask for patient in test}

    def record_fold(job, test):
        assert set(test) == set(folds.folds[job.fold_index]) and not calls, "trained before the check"
        requested_folds.append(job.fold_index)

    requested_folds: list[int] = []
    monkeypatch.setattr(cascade, "train_marker", record_marker_training)
    monkeypatch.setattr(cascade, "load_fold_weights", record_fold)
    monkeypatch.setattr(cascade, "segment_test_patients", return_manual_masks)
    config = ExperimentConfig((tiny_cohort.folder,), tmp_path, "shipped", 0, None, lambda _: None)
    table = cascade.run_cascade(IDH, None, tiny_marker_training, config, shuffle)
    assert requested_folds == list(range(FOLD_COUNT))
    assert [set(excluded) for excluded, *_ in calls] == [set(fold) for fold in folds.folds]
    for excluded, networks, trees in calls:
        assert len(networks) == FOLD_COUNT and not any(group & set(excluded) for _, group in networks)
        assert trees and not any((train | stop) & set(excluded) for _, train, stop in trees)
    one = table[(table["outline"] == "predicted") & (table["stage"] == cascade.CASCADE_STAGE)]
    assert sorted(one[one["fusion"] == "near"]["patient"]) == sorted(tiny_cohort.patient_ids)
    assert set(table["marker"]) == {"idh" if not shuffle else "idh-shuffled-3"}
    # the predicted masks are the manual ones here, so that the predictions are the same
    other = table[table["outline"] == "drawn"].reset_index(drop=True)
    same = table[table["outline"] == "predicted"].reset_index(drop=True)
    assert (other.sort_values(["patient", "stage", "fusion"])["probability"].to_numpy() == same.sort_values(
        ["patient", "stage", "fusion"])["probability"].to_numpy()).all()  # fmt: skip
    summary = cascade.summarise_cascade(table)
    assert len(summary) == 12 and summary["patients"].eq(15).all()


def test_missing_segmentations_are_reported_before_any_training(spy, tiny_cohort, tmp_path) -> None:
    config = ExperimentConfig((tiny_cohort.folder,), tmp_path, "shipped", 0, None, lambda _: None)
    run = list_shipped_runs(tiny_cohort)[-1]
    with pytest.raises(GliomarkError, match="fold_1.safetensors is missing; give the output folder"):
        cascade.run_cascade(IDH, run, demonstration.create_marker_training(), config, 1, tmp_path / "nothing")
    assert not spy.networks


def test_permuted_labels_are_the_same_labels_of_other_patients(tiny_cohort) -> None:
    grade = recipes.parse_marker_definition("who_grade>=3")
    true, numbers = cascade.load_cascade_labels(tiny_cohort, grade)
    assert set(numbers.values()) == {2.0, 3.0, 4.0}
    permutations = [cascade.load_cascade_labels(tiny_cohort, grade, seed) for seed in (1, 2)]
    (first, _), (second, _) = permutations
    assert first != true != second != first
    for labels, values in permutations:
        assert list(labels) == list(values) == list(true)
        assert sorted(values.values()) == sorted(numbers.values())
        # a number is permuted with its label; otherwise it would reveal the true label
        assert labels == {p: int(value >= 3) for p, value in values.items()}


def test_permutations_are_listed_with_their_mean(tmp_path, monkeypatch) -> None:
    def run_permuted(definition, run, settings, config, seed, outlines):
        random = np.random.default_rng(seed)
        rows = pd.DataFrame({"fold": np.arange(40) % FOLD_COUNT + 1, "label": np.arange(40) % 2})
        rows = rows.assign(
            marker=f"idh-shuffled-{seed}", outline="drawn", stage=cascade.CASCADE_STAGE, threshold=0.5
        )
        return rows.assign(fusion="near", probability=random.uniform(size=40))

    monkeypatch.setattr(cascade, "run_cascade", run_permuted)
    config = ExperimentConfig((tmp_path,), tmp_path, "shipped", 0, None, lambda _: None)
    path = cascade.run_permuted_labels(IDH, None, demonstration.create_marker_training(), config, 4, tmp_path)
    table = pd.read_csv(path)
    *permutations, mean = table.to_dict("records")
    assert [r["marker"] for r in permutations] == [f"idh-shuffled-{n}" for n in (1, 2, 3, 4)]
    assert mean["marker"] == "mean of 4"
    for name in ("auc", "auc_in_folds"):
        found = [r[name] for r in permutations]
        assert len(set(found)) == 4
        assert mean[name] == pytest.approx(np.mean(found), abs=1e-4)
        assert mean[f"{name}_sd"] == pytest.approx(np.std(found, ddof=1), abs=1e-4)
    record = json.loads((tmp_path / "permuted_labels_idh_run_record.json").read_text("utf-8"))
    assert record["shuffles"] == 4 and record["marker"] == "idh"


def test_scoring_a_training_patient_is_refused(tiny_cohort, tiny_marker_training) -> None:
    network, labels = (
        build_marker_network(tiny_marker_training.network).eval(),
        {"P01": 1, "P02": 0, "P03": 1},
    )
    sequences = recipes.get_cohort_sequences(tiny_cohort)
    with pytest.raises(GliomarkError, match="P02"):
        compute_held_out_vectors(network, tiny_cohort, labels, ["P02", "P03"], ["P01", "P02"], sequences, 192)
    assert set(
        compute_held_out_vectors(network, tiny_cohort, labels, ["P03"], ["P01", "P02"], sequences, 192)
    ) == {"P03"}


def create_vectors(patients: range) -> dict[str, PatientVectors]:
    random = np.random.default_rng(0)
    slices = LesionSlices(tuple(range(8)), tuple(range(8)), (100.0,) * 8)
    return {
        f"P{i:02d}": PatientVectors(
            slices,
            random.normal(i % 2, 1, (8, 5)).astype(np.float32),
            np.zeros((8, 9)),
            ClinicalData(f"P{i:02d}", 40.0 + i, 0),
            i % 2,
        )
        for i in patients
    }


def test_trees_with_a_patient_in_training_and_early_stopping_are_refused() -> None:
    with pytest.raises(GliomarkError, match="P09"):
        fit_trees(
            create_vectors(range(10)), create_vectors(range(9, 14)), 45.0, StackingConfig(max_rounds=15)
        )
    trees = fit_trees(
        create_vectors(range(10)), create_vectors(range(10, 14)), 45.0, StackingConfig(max_rounds=15)
    )
    predicted = {
        p: v.predict_slice_probability(trees, 45.0).mean() for p, v in create_vectors(range(10, 14)).items()
    }
    assert predicted["P11"] > predicted["P10"]


def test_workers_train_a_network_without_each_fold_and_each_pair_of_folds(
    tiny_cohort, tiny_marker_training, tmp_path
) -> None:
    folds = load_cohort_folds(tiny_cohort)
    training_folds = TrainingFolds(folds.development_folds, folds.test)
    jobs = recipes.list_network_jobs(tiny_cohort, training_folds, IDH, tiny_marker_training, tmp_path)
    left_out = [set(folds.development) - set(job.patients) for job in jobs]
    assert left_out[0] == set() and left_out[1:6] == [set(fold) for fold in training_folds.folds]
    assert len({frozenset(patients) for patients in left_out}) == len(jobs) == 1 + 5 + 10
    assert not any(set(job.patients) & set(folds.test) for job in jobs)


@pytest.mark.slow
def test_networks_trained_by_workers_are_those_that_the_command_needs(
    tiny_cohort, tiny_marker_training, tmp_path
) -> None:
    folds = load_cohort_folds(tiny_cohort)
    labels, values = recipes.read_labels_and_values(tiny_cohort, IDH)
    training_folds = TrainingFolds(folds.development_folds, folds.test)
    jobs = recipes.list_network_jobs(
        tiny_cohort, training_folds, IDH, tiny_marker_training, tmp_path / "workers"
    )
    recipes.train_networks(jobs, recipes.TrainingDistribution(workers=2))
    trained = {path: path.read_bytes() for path in (tmp_path / "workers").rglob("last.ckpt")}
    assert len(trained) == len(jobs)
    results = []
    for work in (tmp_path / "workers", tmp_path / "alone"):
        arguments = (tiny_cohort, training_folds, IDH, labels, values, tiny_marker_training, work)
        marker, validation = train_marker(*arguments), cross_validate_marker(*arguments)
        results.append((marker.predict_patients(tiny_cohort, folds.test), validation))
    assert {path: path.read_bytes() for path in trained} == trained, "a network was trained again"
    assert len(list((tmp_path / "workers").rglob("last.ckpt"))) == len(trained), "another network was trained"
    assert results[0] == results[1]


# ---- segmentation -----------------------------------------------------------------------------------


@pytest.fixture
def recorded_priors(monkeypatch, tiny_segmentation_training) -> list[frozenset[str]]:
    """Patients whose masks each FPG was computed from; the training is replaced by a tiny one."""
    prior_patients: list[frozenset[str]] = []
    focus_prior = segmentation.compute_focus_prior

    def record_prior(dataset):
        prior_patients.append(read_patients(dataset.image))
        return focus_prior(dataset)

    def create_tiny_config(recipe, inputs, epochs, entry):
        settings = tiny_segmentation_training
        return replace(settings, network=replace(settings.network, inputs=inputs), epochs=epochs)

    monkeypatch.setattr(segmentation, "compute_focus_prior", record_prior)
    monkeypatch.setattr(recipes, "create_segmentation_config", create_tiny_config)
    return prior_patients


@pytest.fixture
def recorded_trainings(monkeypatch) -> list[tuple[frozenset[str], frozenset[str]]]:
    """Training and validation patients of every segmentation network that was trained."""
    trainings = []
    train = segmentation.train_segmentation_network

    def record_training(dataset, settings, work, validation=None, teacher=None, layout=ONE_PROCESS):
        stopped_by = frozenset() if validation is None else read_patients(validation.image)
        trainings.append((read_patients(dataset.image), stopped_by))
        return train(dataset, settings, work, validation, teacher, layout)

    for module in (recipes, demonstration):
        monkeypatch.setattr(module, "train_segmentation_network", record_training)
    return trainings


def find_patients_in_prior(prior: torch.Tensor, cohort, compute_centre) -> set[str]:
    step = 240 // len(prior)
    centres = {p: compute_centre(p) for p in cohort.patient_ids}
    return {p for p, (row, column) in centres.items() if prior[row // step, column // step] > 0}


@pytest.mark.parametrize("rule", ["joint", "union"])
def test_segmentation_and_its_prior_use_the_training_patients_only(
    recorded_priors, recorded_trainings, tiny_cohort, compute_lesion_centre, tmp_path, rule
) -> None:
    folds = load_cohort_folds(tiny_cohort)
    out = run_segmentation_training(tiny_cohort.folder, tmp_path / "s.safetensors", rule, "small", 1)
    assert recorded_trainings == [(frozenset(folds.train), frozenset(folds.validation))]
    assert recorded_priors == [frozenset(folds.train)]
    weights = load_weights(out)
    assert find_patients_in_prior(weights.tensors["prior"], tiny_cohort, compute_lesion_centre) == set(
        folds.train
    )
    assert weights.card.training_patients == folds.train and weights.card.folds_sha256 == folds.sha256


def test_training_without_validation_includes_the_validation_patients(
    recorded_trainings, tiny_cohort, tiny_segmentation_training, monkeypatch, tmp_path
) -> None:
    all_patients = replace(tiny_segmentation_training, validate_every=0)
    all_patients = replace(all_patients, network=replace(all_patients.network, inputs=2), epochs=1)
    monkeypatch.setattr(recipes, "create_segmentation_config", lambda *_: all_patients)
    out = run_segmentation_training(tiny_cohort.folder, tmp_path / "s.safetensors", "joint", "pretrained", 1)
    folds = load_cohort_folds(tiny_cohort)
    expected = {*folds.train, *folds.validation}
    assert recorded_trainings == [(frozenset(expected), frozenset())]
    assert set(load_weights(out).card.training_patients) == expected, "test patients were used"


def create_demonstration_run(settings) -> SegmentationRun:
    network = replace(settings.network, inputs=2)
    return SegmentationRun("shipped", replace(settings, network=network, epochs=1), "joint", flips=True)


@pytest.mark.slow
def test_the_shipped_network_is_trained_on_all_patients_and_not_used_for_test_masks(
    recorded_priors, recorded_trainings, tiny_cohort, tiny_segmentation_training, tmp_path
) -> None:
    folds = load_cohort_folds(tiny_cohort)
    run = create_demonstration_run(tiny_segmentation_training)
    config = ExperimentConfig((tiny_cohort.folder,), tmp_path, "shipped", 0, None, lambda _: None)
    weights = demonstration.train_final_segmentation_network(run, config)
    assert recorded_trainings == [(frozenset(tiny_cohort.patient_ids), frozenset())]
    assert set(weights.card.training_patients) == set(tiny_cohort.patient_ids)
    assert weights.card.segmentation.flips is True
    demonstration.train_final_segmentation_network(run, config)
    assert len(recorded_trainings) == 1, "a network was trained again"
    with pytest.raises(GliomarkError, match="other settings"):
        longer = replace(run, training=replace(run.training, epochs=2))
        demonstration.train_final_segmentation_network(longer, config)
    # the test patients' masks come from the network of the fold in which they are tested
    procedure = SegmentationProcedure()
    complete_jobs(procedure.list_jobs([run], FOLD_COUNT, config), procedure, config)
    job = create_fold_job(run, FOLD_COUNT - 1, (tiny_cohort.folder,), config.work_folder)
    both = tuple(p for p in folds.test if len(tiny_cohort.get_sequences(p)) == 2)
    assert set(cascade.segment_test_patients(job, both)) == set(both)
    for number in range(FOLD_COUNT - 1):
        with pytest.raises(GliomarkError, match="trained on"):
            cascade.segment_test_patients(replace(job, excluded_folds=(number,)), both)


def test_markers_on_a_segmentation_trained_on_test_patients_are_refused(
    tiny_cohort, tiny_segmentation_training, tmp_path
) -> None:
    folds = load_cohort_folds(tiny_cohort)
    training_patients = (*folds.train, folds.test[1])
    card = recipes.create_segmentation_card(
        "s", tiny_cohort, folds, training_patients, "joint", tiny_segmentation_training
    )
    save_weights(tmp_path / "s.safetensors", card, {"prior": torch.zeros(2, 2)})
    with pytest.raises(GliomarkError, match="test patients"):
        run_marker_training(
            tiny_cohort.folder, tmp_path / "s.safetensors", tmp_path / "m", ["idh"], "small", 1
        )


@pytest.mark.parametrize(
    ("synthetic", "origin"),
    [({}, "cohort (3 patients)"), ({"synthetic": {}}, "cohort (3 synthetic patients)")],
)
def test_weights_say_whether_their_patients_are_synthetic(
    tiny_cohort, tiny_segmentation_training, tmp_path, synthetic, origin
) -> None:
    folder = tmp_path / "cohort"
    folder.mkdir()
    (folder / "cohort.json").write_text(json.dumps({**tiny_cohort.metadata, **synthetic}), "utf-8")
    folds = load_cohort_folds(tiny_cohort)
    card = recipes.create_segmentation_card(
        "s", Cohort(folder), folds, folds.train[:3], "joint", tiny_segmentation_training
    )
    assert card.training_cohort == origin


# ---- resuming an interrupted run --------------------------------------------------------------------


def test_a_checkpoint_of_other_patients_is_not_resumed(tiny_cohort, tiny_marker_training, tmp_path) -> None:
    """With new folds and an old work folder, the checkpoint may have been trained on excluded patients."""
    labels = {p: int(p[1:]) % 2 for p in tiny_cohort.patient_ids[:8]}
    dataset = recipes.load_lesion_slice_dataset(
        tiny_cohort, labels, recipes.get_cohort_sequences(tiny_cohort)
    )
    first, other = dataset.select_patients(list(labels)[:6]), dataset.select_patients(list(labels)[2:])
    recipes.train_marker_network(first, tiny_marker_training, tmp_path / "work")
    recipes.train_marker_network(first, tiny_marker_training, tmp_path / "work")  # same patients: resumed
    with pytest.raises(GliomarkError, match="other patients"):
        recipes.train_marker_network(other, tiny_marker_training, tmp_path / "work")
