"""The GPU study on the processor: what is packed comes back, nobody is on both sides, and a lane learns."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from gpu import lanes, merge, pack, study

from gliomark.cohort.folds import load_cohort_folds
from gliomark.inference.segmenter import predict_lesion_probability
from gliomark.models.mignet import MIGNetSettings
from gliomark.models.segmentation_baselines import ComparisonSegmentationSettings
from gliomark.models.swin_unet import SwinSize
from gliomark.study import MRSequence
from gliomark.training.segmentation import SegmentationTrainingConfig

CPU = torch.device("cpu")
TINY = MIGNetSettings(size=SwinSize(8, (1, 1), (1, 2)))


@pytest.fixture(scope="module")
def packed(tiny_cohort_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pack") / "cohort.zip"
    pack.write_pack(tiny_cohort_folder, path)
    return path


@pytest.fixture(scope="module")
def patients(packed: Path) -> list[pack.PackedPatient]:
    return pack.read_pack(packed, ("FLAIR",))


def test_a_pack_gives_the_patients_back(packed: Path, tiny_cohort) -> None:
    patients = pack.read_pack(packed, ("T1C", "FLAIR"))
    assert [p.facts.patient for p in patients] == list(tiny_cohort.patient_ids)
    folds = load_cohort_folds(tiny_cohort).folds
    for patient in patients[::4]:
        stack = tiny_cohort.stack(patient.facts.patient)
        assert patient.facts.patient in folds[patient.facts.fold]
        np.testing.assert_array_equal(patient.brain, stack.brain)
        np.testing.assert_array_equal(patient.lesion, stack.drawn)
        np.testing.assert_allclose(patient.facts.spacing_mm, stack.spacing_mm)
        for name, image in patient.images.items():
            whole = stack.images[MRSequence(name)]
            step = float(np.ptp(whole)) / pack.LEVELS
            inside = stack.brain
            np.testing.assert_allclose(
                image.astype(np.float32)[inside], whole[inside], atol=0.51 * step + 4e-3
            )


def test_every_network_sees_the_same_stream_and_no_test_patient(patients) -> None:
    bank = lanes.bank_of(patients, "FLAIR")
    learning = lanes.learning_of(bank, [p.facts.patient for p in patients if p.facts.fold != 2])
    settings = [
        SegmentationTrainingConfig(network=n, batch=4)
        for n in (TINY, ComparisonSegmentationSettings("U-Net", 1, 4))
    ]
    one, two = (lanes.draw_course(learning, s, 9, 1, 2) for s in settings)
    for name in ("rows", "thetas", "noise", "rates"):
        torch.testing.assert_close(getattr(one, name), getattr(two, name), atol=0, rtol=0)
    shown = {bank.patient_ids[i] for i in bank.patient[one.rows.flatten()].tolist()}
    assert shown and not shown & {p.facts.patient for p in patients if p.facts.fold == 2}
    other = lanes.draw_course(learning, settings[0], 9, 2, 2)
    assert not torch.equal(other.rows, one.rows)
    assert one.rates.argmax() < 2 and one.rates[-1] < 1e-3 * settings[0].rate


@pytest.fixture(scope="module")
def lane(patients) -> lanes.Lane:
    bank = lanes.bank_of(patients, "FLAIR")
    still = replace(SegmentationTrainingConfig().augmentation, crop=64, shift=4)
    settings = SegmentationTrainingConfig(network=TINY, augmentation=still, rate=3e-3, batch=8)
    return lanes.Lane(bank, settings, 24, CPU, compiled=False)


def test_a_lane_starts_again_from_the_seed(patients, lane) -> None:
    learning = lanes.learning_of(lane.bank, [p.facts.patient for p in patients if p.facts.fold])
    fresh, fields = lanes.start_of(lane.settings, 1)
    course = lanes.draw_course(learning, lane.settings, 6, 1, 0)
    runs = []
    for _ in range(2):
        lane.reset(course, fresh, fields)
        torch.testing.assert_close(
            lane.network.guidance.alpha.max(), torch.tensor(5.0), msg="alpha starts from the fold's prior"
        )
        for _ in range(6):
            lane.go()
        runs.append(lane.losses[:6].clone())
    torch.testing.assert_close(*runs, atol=1e-3, rtol=1e-3)
    assert int(lane.counter) == 6


def test_an_outline_is_read_as_the_segmenter_reads_it(patients, lane) -> None:
    patient = patients[0]
    ((name, mask, grade),) = lanes.read(lane, [patient], "FLAIR")
    image = torch.from_numpy(patient.images["FLAIR"]).float()[:, None]
    expected = predict_lesion_probability(lane.network.eval(), image, patient.brain, 64)
    expected[~patient.brain] = 0
    assert name == patient.facts.patient and 0 < grade < 1
    sure = np.abs(expected - 0.5) > 0.1  # bf16
    np.testing.assert_array_equal(mask[sure], (expected >= 0.5)[sure])


def test_the_most_valuable_groups_come_first() -> None:
    for order in ("seeds", "parts"):
        listed = study.groups(order)
        assert [g.network for g in listed[:4]] == list(study.FIRST) and {g.seed for g in listed[:4]} == {1}
        assert len(set(listed)) == len(listed) == len(study.NETWORKS) + 2 * len(study.AGAIN)


def test_pieces_become_the_tables(tmp_path: Path) -> None:
    random, out, results = np.random.default_rng(0), tmp_path / "out", tmp_path / "results"
    out.mkdir()
    results.mkdir()
    lines = []
    for network, seed, fold in [(n, s, f) for n in study.AGAIN for s in (1, 2) for f in range(1, 6)]:
        rows = [
            {
                "patient": f"P{fold}{i}",
                **dict.fromkeys(merge.SCORES, float(random.uniform(0.5, 0.9))),
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
    lines.append({**lines[0], "seed": 3})  # a seed that was cut off after one fold
    (out / "pieces.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    speeds = [
        {
            "network": n,
            "gflop_per_slice": 10.0,
            "million_parameters": 1.0,
            "step_ms": 8.0,
            "start_seconds": 60.0,
        }
        for n in study.AGAIN
    ]
    (out / "speeds.jsonl").write_text("\n".join(map(json.dumps, speeds)), "utf-8")
    merge.merge([out], results, {"cohort": "here", "folds_sha256": "0", "settings": {}})
    table = merge.pd.read_csv(results / "gpu_segmentation.csv")
    assert list(zip(table["network"], table["seed"], strict=True)) == [
        (n, s) for n in study.AGAIN for s in (1, 2)
    ]
    assert (table["patients"] == 20).all()
    own = [r["dice"] for x in lines if (x["network"], x["seed"]) == ("MIG-Net", 1) for r in x["patients"]]
    assert table["dice"][0] == pytest.approx(np.mean(own), abs=1e-4)
    seeds = merge.pd.read_csv(results / "gpu_segmentation_seeds.csv")
    assert list(seeds["network"]) == list(study.AGAIN) and (seeds["seeds"] == 2).all()
    training = merge.pd.read_csv(results / "gpu_training.csv")
    # five folds of batches of 16, five steps in a second, three times the forward operations
    assert (training["slices_per_second"] == 400).all() and (
        training["one_fold_slices_per_second"] == 2000
    ).all()
    assert (training["tflop_per_second"] == 12).all()
