"""Table 2-3 with ten tiny patients and a tiny network: no patient in both training and test, no fold trained twice.

Every pixel outside the brain is the patient's number, so that a spy can identify the patients actually fed to a network
independently of the program's own records.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from gliomark.cohort.folds import FoldSplit, load_cohort_folds, split_fold
from gliomark.cohort.store import Cohort, write_json
from gliomark.errors import GliomarkError
from gliomark.evaluation.intervals import bootstrap_interval
from gliomark.experiments import slice_procedure, table_2_3
from gliomark.experiments.config import ExperimentConfig
from gliomark.experiments.runner import TrainingJob, find_finished_job
from gliomark.experiments.slice_procedure import (
    BenchmarkTraining,
    PatientSliceSampler,
    SliceLesionClassifier,
    SliceProcedure,
    SliceRun,
    load_slices,
)
from gliomark.experiments.table_2_3 import PRESETS, describe_reductions, run_table_2_3, summarise_network
from gliomark.study import MRSequence
from gliomark.training import job_runner

COUNT, SLICES = 10, 6
TINY = BenchmarkTraining(pool=8, epochs=1, batch=4, slices_per_patient=4, rate=1e-2)
FLAIR = (MRSequence.FLAIR,)


def write_slice(path: Path, number: int, index: int) -> None:
    """Write a slice: slice 0 has no brain, 1 and 2 no lesion, 3 a lesion of 9 mm2, 4 and 5 one of 900 mm2."""
    brain, mask = np.zeros((2, 240, 240), np.uint8)
    brain[40:200, 40:200] = index > 0
    side = {3: 3, 4: 30, 5: 30}.get(index, 0)
    mask[100 : 100 + side, 100 : 100 + side] = 1
    image = np.where(brain, np.random.default_rng(number).normal(size=brain.shape) + 3 * mask, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, data in (("image", image.astype(np.float16)), ("mask", mask), ("brain", brain)):
            file.create_dataset(key, data=data, compression="gzip", compression_opts=1)


@pytest.fixture(scope="module")
def cohort_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "tiny 队列"
    names = [f"{index:03d}" for index in range(SLICES)]
    (folder / "patients").mkdir(parents=True)
    for number in range(1, COUNT + 1):
        for sequence in ("T1C", "FLAIR"):
            for index, name in enumerate(names):
                write_slice(folder / "GMSBraTS" / sequence / f"P{number:02d}" / f"{name}.h5", number, index)
        record = {"sequences": ["T1C", "FLAIR"], "affine": np.eye(4).tolist(), "slice_names": names}
        record |= {"selected": [1, 4], "notes": []}
        (folder / "patients" / f"P{number:02d}.json").write_text(json.dumps(record), "utf-8")
    rows = [f"P{number:02d},{40 + number},{number % 2},{number % 2}" for number in range(1, COUNT + 1)]
    (folder / "MetaMS.csv").write_text("\n".join(["id,age,sex,idh_mutant", *rows]) + "\n", "utf-8")
    metadata = {"schema_version": 1, "sequences": ["T1C", "FLAIR"], "settings": {}}
    (folder / "cohort.json").write_text(json.dumps(metadata), "utf-8")
    return folder


def create_tiny_network(inputs: int, classes: int = 2) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, 4, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, classes)
    )


@pytest.fixture(scope="module")
def module_patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module", autouse=True)
def use_tiny_networks(module_patch: pytest.MonkeyPatch) -> None:
    for module in (table_2_3, slice_procedure):
        module_patch.setattr(module, "IMAGE_CLASSIFIERS", {"ResNet-50": create_tiny_network})
    module_patch.setattr(table_2_3, "PRESETS", {**PRESETS, "quick": TINY})
    module_patch.setattr(table_2_3, "bootstrap_interval", partial(bootstrap_interval, resamples=200))


def ignore_message(_: str) -> None:
    pass


def run_in_this_thread(_, function, jobs):
    """Run jobs in the thread of the test, where an interruption ends them at once."""
    return ((job, function(job)) for job in jobs)


def run_table(
    cohort_folder: Path,
    out: Path,
    preset: str = "quick",
    weights: dict[str, Path] | None = None,
    sequences: tuple[MRSequence, ...] | None = None,
) -> None:
    config = ExperimentConfig((cohort_folder,), out, preset, 0, None, ignore_message)
    run_table_2_3(config, weights or {}, sequences)


def read_patient_numbers(image: torch.Tensor) -> set[int]:
    """Numbers of the patients of slices ``(N, C, H, W)``, from the pixels outside the brain."""
    return {int(value) for value in image[:, 0, 0, 0].tolist()}


@dataclass
class Spy:
    """Records, for every training, the numbers of the patients used for training, validation and test."""

    patch: pytest.MonkeyPatch
    patients_of_trainings: list[dict[str, set[int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.record_step("training_step", "trained")
        self.record_step("validation_step", "validated")
        fit, predict_slices = slice_procedure._fit_network, slice_procedure._predict_slices

        def record_fit(*arguments):
            self.patients_of_trainings.append({"trained": set(), "validated": set(), "tested": set()})
            return fit(*arguments)

        def record_test(task, slices):
            self.patients_of_trainings[-1]["tested"] |= read_patient_numbers(slices.images)
            return predict_slices(task, slices)

        self.patch.setattr(slice_procedure, "_fit_network", record_fit)
        self.patch.setattr(slice_procedure, "_predict_slices", record_test)

    def record_step(self, name: str, part: str) -> None:
        original_step = getattr(SliceLesionClassifier, name)

        def record_batch(task, batch, index):
            self.patients_of_trainings[-1][part] |= read_patient_numbers(batch[0])
            return original_step(task, batch, index)

        self.patch.setattr(SliceLesionClassifier, name, record_batch)


@dataclass(frozen=True)
class Finished:
    """A run that was interrupted after three of five folds and repeated; kept: files of the three folds by then."""

    out: Path
    kept: dict[Path, bytes]
    early_table: bool
    patients_of_trainings: list[dict[str, set[int]]]


@pytest.fixture(scope="module")
def finished(
    cohort_folder: Path, use_tiny_networks: None, tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        spy = Spy(patch)
        patch.setattr(job_runner, "run_on_cluster", run_in_this_thread)
        original_fit = slice_procedure._fit_network

        def stop_after_three(*arguments):
            if len(spy.patients_of_trainings) == 3:
                raise KeyboardInterrupt
            return original_fit(*arguments)

        with pytest.MonkeyPatch.context() as stop, pytest.raises(KeyboardInterrupt):
            stop.setattr(slice_procedure, "_fit_network", stop_after_three)
            run_table(cohort_folder, out)
        kept = {path: path.read_bytes() for path in (out / "work").rglob("fold_?.json")}
        early_table = (out / "table_2_3.csv").exists()
        run_table(cohort_folder, out)
    return Finished(out, kept, early_table, spy.patients_of_trainings)


def test_tables_of_a_complete_run(finished: Finished, cohort_folder: Path):
    table = pd.read_csv(finished.out / "table_2_3.csv").iloc[0]
    assert table["network"] == "ResNet-50" and table["published_accuracy"] == 0.906
    assert (table["slices"], table["positive_slices"], table["patients"]) == (COUNT * 5, COUNT * 2, COUNT)
    assert table["initial_weights"] == "random" and table["cohort"] == cohort_folder.name
    confusion = pd.read_csv(finished.out / "table_2_3_confusion.csv").iloc[0]
    correct = confusion["true_positive"] + confusion["true_negative"]
    assert correct / confusion["slices"] == pytest.approx(table["accuracy"], abs=1e-4)
    assert confusion["true_positive"] + confusion["false_negative"] == 2 * COUNT
    folds = pd.read_csv(finished.out / "table_2_3_folds.csv")
    assert list(folds["fold"]) == [1, 2, 3, 4, 5] and folds["test_patients"].sum() == COUNT
    for row in (table, confusion, folds.iloc[0], folds.iloc[4]):
        assert (row["preset"], row["cuts"]) == ("quick", describe_reductions(TINY))
    record = json.loads((finished.out / "table_2_3_run_record.json").read_text("utf-8"))
    assert (record["preset"], record["cuts"], record["cohort"]) == (
        "quick",
        describe_reductions(TINY),
        cohort_folder.name,
    )
    assert len(record["splits"]) == 5


def test_no_patient_is_in_two_parts_of_a_training(finished: Finished):
    assert len(finished.patients_of_trainings) == 5
    for training in finished.patients_of_trainings:
        parts = list(training.values())
        assert all(parts) and sum(map(len, parts)) == len(set.union(*parts)) == COUNT
    assert sorted(n for training in finished.patients_of_trainings for n in training["tested"]) == list(
        range(1, COUNT + 1)
    )


def test_a_finished_fold_is_not_trained_again(finished: Finished):
    assert len(finished.kept) == 3 and not finished.early_table
    assert all(path.read_bytes() == content for path, content in finished.kept.items())
    assert not list(finished.out.rglob("*.ckpt"))


def test_results_of_other_settings_are_not_mixed_in(
    finished: Finished, cohort_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(table_2_3, "PRESETS", {**PRESETS, "quick": replace(TINY, rate=1e-3)})
    with pytest.raises(GliomarkError, match="other settings"):
        run_table(cohort_folder, finished.out)


def test_a_fold_of_version_0_1_is_found(cohort_folder: Path, tmp_path: Path):
    """Record path and key are those of version 0.1."""
    stored = json.loads((Path(__file__).parent / "stored_folds" / "table_2_3.json").read_text("utf-8"))
    training = replace(TINY, epochs=2)
    procedure, job = (
        SliceProcedure(),
        TrainingJob(SliceRun("ResNet-50", training), (0,), (cohort_folder,), tmp_path),
    )
    assert procedure.get_record_path(job) == tmp_path / "table_2_3" / "ResNet-50" / "fold_1.json"
    write_json(procedure.get_record_path(job), stored)
    finished = find_finished_job(job, procedure)
    assert finished is not None and json.dumps(procedure.to_record(finished)) == json.dumps(stored)


def test_a_leaking_split_is_refused(cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two deliberate errors: an overlap in the lists of names, and one in the slices with correct lists."""
    with pytest.raises(GliomarkError, match="P01"):
        FoldSplit(("P01", "P02"), ("P03",), ("P04", "P01"))
    original_select = slice_procedure.SliceSet.select_patients
    all_patients = [f"P{number:02d}" for number in range(1, COUNT + 1)]
    monkeypatch.setattr(
        slice_procedure.SliceSet,
        "select_patients",
        lambda self, _, at_most=None: original_select(self, all_patients, at_most),
    )
    with pytest.raises(GliomarkError, match="is in both"):
        run_table(cohort_folder, tmp_path)


def test_an_interrupted_fold_resumes_from_its_checkpoint(
    cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Interrupted in the third of four epochs, the fold needs only two more epochs in the second call."""
    monkeypatch.setattr(table_2_3, "PRESETS", {**PRESETS, "quick": replace(TINY, epochs=4)})
    epochs: list[int] = []

    def interrupt(task: SliceLesionClassifier) -> None:
        epochs.append(task.current_epoch)
        if len(epochs) == 3 or len(epochs) == 6:
            raise RuntimeError("power cut")

    monkeypatch.setattr(job_runner, "run_on_cluster", run_in_this_thread)
    monkeypatch.setattr(SliceLesionClassifier, "on_train_epoch_start", interrupt)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="power cut"):
            run_table(cohort_folder, tmp_path)
    assert epochs == [0, 1, 2, 2, 3, 0]


def test_slices_labels_and_channels(cohort_folder: Path):
    """Slices without brain are left out, 9 mm2 of lesion is negative and 900 mm2 positive, pixel averages are exact."""
    cohort = Cohort(cohort_folder)
    slices = load_slices(cohort, (MRSequence.T1C, MRSequence.FLAIR), TINY)
    assert slices.images.shape == (COUNT * 5, 2, 30, 30)
    assert slices.slice_names[:5] == ("001", "002", "003", "004", "005")
    assert slices.labels[:5].tolist() == [0, 0, 0, 1, 1]
    image = cohort.read_stack("P01").images[MRSequence.FLAIR][4]
    mean = image[96:104, 120:128].mean()
    assert float(slices.images[3, 1, 12, 15]) == pytest.approx(mean, abs=2e-3)


def test_an_epoch_draws_a_few_slices_of_each_patient(cohort_folder: Path):
    slices = load_slices(Cohort(cohort_folder), FLAIR, TINY)
    rows = list(PatientSliceSampler(slices, 3))
    assert len(rows) == len(set(rows)) == len(PatientSliceSampler(slices, 3)) == 3 * COUNT
    assert all([slices.patient_ids[row] for row in rows].count(p) == 3 for p in slices.unique_patients)
    assert sorted(PatientSliceSampler(slices, None)) == list(range(5 * COUNT))


def test_a_fifth_of_the_remaining_patients_is_for_validation(cohort_folder: Path):
    cohort = Cohort(cohort_folder)
    folds = load_cohort_folds(cohort)
    split = split_fold(folds, 1, cohort.patient_ids, seed=0)
    assert set(split.test) == set(folds.folds[1]) and len(split.validation) == 2
    assert {*split.training, *split.validation, *split.test} == set(cohort.patient_ids)
    assert split_fold(folds, 1, cohort.patient_ids, seed=0) == split


def test_statistics_and_intervals_equal_the_arithmetic():
    """The slices of a patient are resampled together, so the interval reflects only four patients."""
    rows = [
        (f"P{n}", label, correct)
        for n, correct in ((1, True), (2, True), (3, True), (4, False))
        for label in (0, 1)
    ]
    table = pd.DataFrame(
        [(p, "s", label, 0.9 if (label == 1) == correct else 0.1) for p, label, correct in rows * 50],
        columns=["patient", "slice", "label", "probability"],
    )
    row = summarise_network("ResNet-50", table)
    assert (row["accuracy"], row["sensitivity"], row["specificity"]) == (0.75, 0.75, 0.75)
    assert row["auc"] == pytest.approx(0.75)
    assert row["patients"] == 4 and row["slices"] == 400
    assert row["accuracy_low_95"] <= 0.5 and row["accuracy_high_95"] == 1.0


def test_reductions_of_a_preset_are_described():
    assert describe_reductions(PRESETS["published"]) == "none"
    assert "60x60" in describe_reductions(PRESETS["quick"]) and "instead of 400" in describe_reductions(
        PRESETS["quick"]
    )


def test_training_starts_from_the_weights_of_a_file(tmp_path: Path):
    path = tmp_path / "imagenet.pth"
    arguments = create_tiny_network(3).state_dict()
    torch.save({"state_dict": arguments}, path)
    network, description = slice_procedure.create_network("ResNet-50", 1, path)
    network_state = network.state_dict()
    assert all(
        torch.equal(network_state[name], arguments[name]) for name in network_state if name != "0.weight"
    )
    assert (
        description == f"imagenet.pth (SHA-256 {sha256(path.read_bytes()).hexdigest()[:12]}), 4 of 4 tensors"
    )
    torch.save(create_tiny_network(3, 1000).state_dict(), path)
    with pytest.raises(GliomarkError, match="imagenet.pth cannot initialise ResNet-50"):
        slice_procedure.create_network("ResNet-50", 1, path)


@pytest.mark.parametrize("content", [None, b"not weights", b""])
def test_an_invalid_weights_file_gives_one_sentence(
    content: bytes | None, cohort_folder: Path, tmp_path: Path
):
    path = tmp_path / "weights.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(GliomarkError, match="cannot initialise ResNet-50"):
        run_table(cohort_folder, tmp_path, weights={"ResNet-50": path})


@pytest.mark.parametrize(
    ("preset", "weights", "sequences", "expected_text"),
    [
        ("slow", None, None, "preset 'slow' is unknown"),
        ("quick", {"VGG": Path("vgg.pth")}, None, "network 'VGG' is unknown"),
        ("quick", None, (MRSequence.T2,), "was prepared for T1C, FLAIR"),
    ],
)
def test_unknown_options_are_refused(
    preset, weights, sequences, expected_text: str, cohort_folder: Path, tmp_path: Path
):
    with pytest.raises(GliomarkError, match=expected_text):
        run_table(cohort_folder, tmp_path, preset, weights, sequences)
