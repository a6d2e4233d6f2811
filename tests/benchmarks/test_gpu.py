"""The GPU benchmark on the CPU: packing is lossless, no test patient is trained on, and training is reproducible."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from gpu import fold_training, merge_results, packed_cohort, segmentation_benchmark

from gliomark.cohort.folds import load_cohort_folds
from gliomark.inference.segmenter import predict_lesion_probability
from gliomark.models.comparison.unet import UNetSettings
from gliomark.models.published.mignet import MIGNetSettings
from gliomark.models.published.swin_unet import SwinSize
from gliomark.models.torch_inference import wrap_segmentation_network
from gliomark.study import MRSequence
from gliomark.training.segmentation import SegmentationTrainingConfig

CPU = torch.device("cpu")
TINY = MIGNetSettings(size=SwinSize(8, (1, 1), (1, 2)))


@pytest.fixture(scope="module")
def packed(tiny_cohort_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pack") / "cohort.zip"
    packed_cohort.write_pack(tiny_cohort_folder, path)
    return path


@pytest.fixture(scope="module")
def patients(packed: Path) -> list[packed_cohort.PackedPatient]:
    return packed_cohort.read_pack(packed, ("FLAIR",))


def test_packed_patients_are_read_back(packed: Path, tiny_cohort) -> None:
    patients = packed_cohort.read_pack(packed, ("T1C", "FLAIR"))
    assert [p.record.patient for p in patients] == list(tiny_cohort.patient_ids)
    folds = load_cohort_folds(tiny_cohort).folds
    for patient in patients[::4]:
        stack = tiny_cohort.read_stack(patient.record.patient)
        assert patient.record.patient in folds[patient.record.fold]
        np.testing.assert_array_equal(patient.brain, stack.brain)
        np.testing.assert_array_equal(patient.lesion, stack.reader_mask)
        np.testing.assert_allclose(patient.record.spacing_mm, stack.spacing_mm)
        for name, image in patient.images.items():
            expected = stack.images[MRSequence(name)]
            step = float(np.ptp(expected)) / packed_cohort.LEVELS
            inside = stack.brain
            np.testing.assert_allclose(
                image.astype(np.float32)[inside], expected[inside], atol=0.51 * step + 4e-3
            )


def test_every_network_is_trained_on_the_same_slices_and_no_test_patient(patients) -> None:
    bank = fold_training.build_slice_bank(patients, "FLAIR")
    training_fold = fold_training.build_training_fold(
        bank, [p.record.patient for p in patients if p.record.fold != 2]
    )
    settings = [SegmentationTrainingConfig(network=n, batch=4) for n in (TINY, UNetSettings(width=4))]
    one, two = (fold_training.draw_schedule(training_fold, s, 9, 1, 2) for s in settings)
    for name in ("rows", "thetas", "noise", "rates"):
        torch.testing.assert_close(getattr(one, name), getattr(two, name), atol=0, rtol=0)
    shown = {bank.patient_ids[i] for i in bank.patient[one.rows.flatten()].tolist()}
    assert shown and not shown & {p.record.patient for p in patients if p.record.fold == 2}
    other = fold_training.draw_schedule(training_fold, settings[0], 9, 2, 2)
    assert not torch.equal(other.rows, one.rows)
    assert one.rates.argmax() < 2 and one.rates[-1] < 1e-3 * settings[0].rate


@pytest.fixture(scope="module")
def trainer(patients) -> fold_training.FoldTrainer:
    bank = fold_training.build_slice_bank(patients, "FLAIR")
    augmentation = replace(SegmentationTrainingConfig().augmentation, crop=64, shift=4)
    settings = SegmentationTrainingConfig(network=TINY, augmentation=augmentation, rate=3e-3, batch=8)
    return fold_training.FoldTrainer(bank, settings, 24, CPU, compiled=False)


def test_a_reset_trainer_repeats_the_training(patients, trainer) -> None:
    training_fold = fold_training.build_training_fold(
        trainer.bank, [p.record.patient for p in patients if p.record.fold]
    )
    start, fields = fold_training.create_start(trainer.settings, 1)
    schedule = fold_training.draw_schedule(training_fold, trainer.settings, 6, 1, 0)
    runs = []
    for _ in range(2):
        trainer.reset_to(schedule, start, fields)
        torch.testing.assert_close(
            trainer.network.guidance.alpha.max(),
            torch.tensor(5.0),
            msg="alpha must start from the fold's prior",
        )
        for _ in range(6):
            trainer.run_next_step()
        runs.append(trainer.losses[:6].clone())
    torch.testing.assert_close(*runs, atol=1e-3, rtol=1e-3)
    assert int(trainer.counter) == 6


def test_segmentations_equal_those_of_the_segmenter(patients, trainer) -> None:
    patient = patients[0]
    ((name, mask, grade),) = fold_training.predict_segmentations(trainer, [patient], "FLAIR")
    image = patient.images["FLAIR"].astype(np.float32)[:, None]
    network = wrap_segmentation_network(trainer.network.eval())
    expected = predict_lesion_probability(network, image, patient.brain, 64)
    expected[~patient.brain] = 0
    assert name == patient.record.patient and 0 < grade < 1
    is_certain = np.abs(expected - 0.5) > 0.1  # bf16
    np.testing.assert_array_equal(mask[is_certain], (expected >= 0.5)[is_certain])


def test_the_first_networks_are_trained_first() -> None:
    for order in ("seeds", "parts"):
        listed = segmentation_benchmark.list_groups(order)
        assert [g.network for g in listed[:4]] == list(segmentation_benchmark.FIRST_NETWORKS) and {
            g.seed for g in listed[:4]
        } == {1}
        assert (
            len(set(listed))
            == len(listed)
            == len(segmentation_benchmark.NETWORKS) + 2 * len(segmentation_benchmark.REPEATED_NETWORKS)
        )


@pytest.mark.slow
def test_results_of_folds_are_merged_into_tables(tmp_path: Path) -> None:
    random, out, results = np.random.default_rng(0), tmp_path / "out", tmp_path / "results"
    out.mkdir()
    results.mkdir()
    lines = []
    for network, seed, fold in [
        (n, s, f) for n in segmentation_benchmark.REPEATED_NETWORKS for s in (1, 2) for f in range(1, 6)
    ]:
        rows = [
            {
                "patient": f"P{fold}{i}",
                **dict.fromkeys(merge_results.SCORE_COLUMNS, float(random.uniform(0.5, 0.9))),
                "lesion_free": [0.0, 0.02],
                "high_grade": i % 2,
                "high_grade_probability": 0.5,
            }
            for i in range(4)
        ]
        lines.append(
            {"network": network, "seed": seed, "fold": fold, "steps": 5, "train_seconds": 1.0}
            | {"first_loss": 2.0, "last_loss": 1.0, "patients": rows}
        )
    lines.append({**lines[0], "seed": 3})  # a seed that was interrupted after one fold
    (out / "pieces.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    speeds = [
        {
            "network": n,
            "gflop_per_slice": 10.0,
            "million_parameters": 1.0,
            "step_ms": 8.0,
            "start_seconds": 60.0,
        }
        for n in segmentation_benchmark.REPEATED_NETWORKS
    ]
    (out / "speeds.jsonl").write_text("\n".join(map(json.dumps, speeds)), "utf-8")
    merge_results.merge_results([out], results, {"cohort": "here", "folds_sha256": "0", "settings": {}})
    table = merge_results.pd.read_csv(results / "gpu_segmentation.csv")
    assert list(zip(table["network"], table["seed"], strict=True)) == [
        (n, s) for n in segmentation_benchmark.REPEATED_NETWORKS for s in (1, 2)
    ]
    assert (table["patients"] == 20).all()
    dice_values = [
        r["dice"] for x in lines if (x["network"], x["seed"]) == ("MIG-Net", 1) for r in x["patients"]
    ]
    assert table["dice"][0] == pytest.approx(np.mean(dice_values), abs=1e-4)
    seeds = merge_results.pd.read_csv(results / "gpu_segmentation_seeds.csv")
    assert (
        list(seeds["network"]) == list(segmentation_benchmark.REPEATED_NETWORKS)
        and (seeds["seeds"] == 2).all()
    )
    training = merge_results.pd.read_csv(results / "gpu_training.csv")
    # five folds with batches of 16 and five steps in one second; a step counts as three forward passes
    assert (training["slices_per_second"] == 400).all() and (
        training["one_fold_slices_per_second"] == 2000
    ).all()
    assert (training["tflop_per_second"] == 12).all()
