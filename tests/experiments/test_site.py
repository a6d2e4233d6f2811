"""``gliomark site``: a model checked, refitted and watched with a hospital's own patients."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from tests.evaluation.test_site import draw_patients
from tests.pipeline.conftest import drawn_images, reader_pool, run_command, tiny_weights

from gliomark.errors import ConfigurationError, InputError
from gliomark.evaluation.calibration import expected_calibration_error
from gliomark.evaluation.metrics import auc, compute_threshold_metrics
from gliomark.experiments.site_adaptation import (
    RecalibrationRequest,
    check_site,
    compute_coverage_range,
    describe_monitoring,
    describe_site_check,
    describe_support,
    monitor_site,
    recalibrate,
    write_recalibrated,
)
from gliomark.experiments.site_patients import SitePatients, SiteTables, read_site_patients
from gliomark.inference.patient_calibration import calibrate_probabilities, compute_level_limits
from gliomark.models.weights import Weights, load_weights

__all__ = ["drawn_images", "reader_pool", "run_command", "tiny_weights"]
REQUEST = RecalibrationRequest("市医院", "Dr. 李")


@pytest.fixture(scope="module")
def weights(tiny_weights: Path) -> Weights:
    return load_weights(tiny_weights)


def create_patients(count: int, seed: int = 0, shift: float = 0.0) -> SitePatients:
    rng = np.random.default_rng(seed)
    label, probability = draw_patients(count, rng, shift=shift)
    label[:5], label[5:10] = 0, 1
    ids = tuple(f"P{number}" for number in range(count))
    days = tuple(date(2026, 1, 1) + timedelta(days=number) for number in range(count))
    return SitePatients(ids, label, probability, days, sha256(probability.tobytes()).hexdigest())


def write_tables(folder: Path, patients: SitePatients, words: tuple[str, str]) -> tuple[Path, Path]:
    """Write predictions and pathology, the latter in the words for (negative, positive)."""
    rows = {"id": patients.ids, "idh_probability": patients.probabilities, "day": map(str, patients.dates)}
    pd.DataFrame(rows).to_csv(folder / "预测.csv", index=False)
    pathology = pd.DataFrame({"id": patients.ids, "IDH": [words[one] for one in patients.labels]})
    pathology.to_csv(folder / "病理.csv", index=False)
    return folder / "预测.csv", folder / "病理.csv"


# ---- reading ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "marker, column, cells, labels",
    [
        ("idh", "IDH", ["IDH1 R132H mutant", "wild type", "野生型", "突变", ""], [1, 0, 0, 1]),
        ("idh", "idh_mutant", ["1", "0", "no", "yes", "unknown"], [1, 0, 0, 1]),
        ("ki67", "Ki-67", ["15 %", "Ki-67 5 %", "<5%", "10-20%", "?"], [1, 0, 0, 1]),
        ("ki67", "Ki-67", ["high", "low", "低", "高", ""], [1, 0, 0, 1]),
    ],
)
def test_pathology_is_read_in_usual_wording(
    weights: Weights, tmp_path: Path, marker: str, column: str, cells: list[str], labels: list[int]
) -> None:
    ids = [f"P{number}" for number in range(len(cells))]
    predictions, truth = tmp_path / "p.csv", tmp_path / "t.xlsx"
    pd.DataFrame({"id": ids, f"{marker}_probability": 0.5}).to_csv(predictions, index=False)
    pd.DataFrame({"id": ids, column: cells}).to_excel(truth, index=False)
    patients = read_site_patients(weights, marker, SiteTables(predictions, truth))
    assert patients.labels.tolist() == labels and patients.ids == tuple(ids[:4])
    assert patients.without_pathology == ("P4",)


def test_patients_are_in_order_of_time(weights: Weights, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(
        "id,p,date,idh\nA,0.1,2026-03-01,0\nB,0.2,2026/01/05,1\nC,0.3,20260201,0\nD,,2026-01-01,1\n", "utf-8"
    )
    patients = read_site_patients(weights, "idh", SiteTables(table, None, "p", "date"))
    assert patients.ids == ("B", "C", "A") and patients.probabilities.tolist() == [0.2, 0.3, 0.1]
    assert patients.dates == (date(2026, 1, 5), date(2026, 2, 1), date(2026, 3, 1))


@pytest.mark.parametrize(
    "text, words",
    [
        ("id,idh_probability,idh\nA,0.5,1\nA,0.4,0\n", "two rows of one patient"),
        ("id,probability,idh\nA,0.5,1\n", "no column idh_probability"),
        ("id,idh_probability,idh\nA,1.5,1\n", "A: the probability is '1.5'"),
        ("id,idh_probability,idh\nA,0.5,\n", "No patient"),
        ("id,idh_probability,idh,sha256\nA,0.5,1,abc\n", "predictions of another model"),
        ("id,idh_probability,idh_fusion,idh\nA,0.9,near,1\nB,0.1,large,0\n", "B: .*fusion rule 'large'"),
        (
            "id,idh_probability,idh_probability,idh\nA,0.9,0.1,1\n",
            "contains the column idh_probability twice",
        ),
        ("id,idh,idh_probability,remark\nA,1,0,83,\nB,0,0,12,\n", "more cells than the header"),
        ("id,idh,idh_probability,\nA,1,0,83\nB,0,0,12\n", "more cells than the header"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(
    weights: Weights, tmp_path: Path, text: str, words: str
) -> None:
    table = tmp_path / "t.csv"
    table.write_text(text, "utf-8")
    with pytest.raises(InputError, match=words):
        read_site_patients(weights, "idh", SiteTables(table))


def with_marker(weights: Weights, name: str, **changes: object) -> Weights:
    """Return the weights with one more marker, like idh but for the changes."""
    card = replace(weights.card.markers["idh"], **changes)
    return replace(weights, card=replace(weights.card, markers={**weights.card.markers, name: card}))


def read_text_table(
    weights: Weights, marker: str, folder: Path, text: str, encoding: str = "utf-8"
) -> SitePatients:
    path = folder / "table.csv"
    path.write_bytes(text.encode(encoding))
    return read_site_patients(weights, marker, SiteTables(path))


@pytest.mark.parametrize(
    ("column", "label", "threshold", "cells", "labels"),
    [
        ("ki67", "positive: ki67 is at least 20", None, ["5", "15 %", "20", "35"], [0, 0, 1, 1]),
        ("ki67", "our own words", 20.0, ["5", "15 %", "20", "35"], [0, 0, 1, 1]),
        ("ki67", "high: at least 10 %", None, ["5", "15 %", "20", "9"], [0, 1, 1, 0]),
        ("who_grade", "positive: who_grade is at least 3", None, ["2", "3", "IV", "1"], [0, 1, 1, 0]),
        ("volume", "positive: volume is at least 0.5", None, ["0.4", "0.5", "7", "0"], [0, 1, 1, 0]),
        ("tert", "positive: tert is 1", None, ["1", "0", "1.0", "no"], [1, 0, 1, 0]),
        ("tert", "positive: tert is 1", None, ["yes", "NaN", "negative", "n/a"], [1, 0]),
    ],
)
def test_a_marker_is_positive_as_it_was_in_training(
    weights: Weights, tmp_path: Path, column: str, label: str, threshold: float | None, cells: list[str],
    labels: list[int],
) -> None:  # fmt: skip
    model = with_marker(weights, "own", column=column, label=label, label_threshold=threshold)
    rows = [f"P{number},0.5,{cell}\n" for number, cell in enumerate(cells)]
    patients = read_text_table(model, "own", tmp_path, f"id,own_probability,{column}\n" + "".join(rows))
    assert patients.labels.tolist() == labels
    assert len(patients.without_pathology) == len(cells) - len(labels)


@pytest.mark.parametrize("cell", ["inf", "-inf", "2", "0.5", "maybe"])
def test_a_cell_that_is_no_answer_is_refused(weights: Weights, tmp_path: Path, cell: str) -> None:
    model = with_marker(weights, "own", column="tert", label="positive: tert is 1")
    with pytest.raises(InputError, match=f"P1: '{cell}' in the column tert is not understood"):
        read_text_table(model, "own", tmp_path, f"id,own_probability,tert\nP0,0.1,1\nP1,0.2,{cell}\n")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("id,ki67_probability,ki67_level\nA,0.9,high\nB,0.1,low\n", None),
        (
            "id,ki67_probability,ki67_level,Ki-67\nA,0.9,high,3 %\nB,0.1,low,30 %\nC,0.9,high,\n"
            "D,0.1,cannot tell,\n",
            [0, 1],
        ),
        ("id,ki67,ki67_probability,ki67_level\nA,0,0.9,high\nB,1,0.1,low\nC,0,0.5,cannot tell\n", [0, 1, 0]),
        ("id,ki67_raw_probability,ki67_level,ki67_high\nA,0.9,high,0\nB,0.1,low,1\n", [0, 1]),
    ],
)
def test_the_model_s_own_level_is_no_pathology(
    weights: Weights, tmp_path: Path, text: str, labels: list[int] | None
) -> None:
    if labels is None:
        with pytest.raises(InputError, match="has a pathology result for ki67"):
            read_text_table(weights, "ki67", tmp_path, text)
    else:
        assert read_text_table(weights, "ki67", tmp_path, text).labels.tolist() == labels


@pytest.mark.parametrize(
    ("trained_on", "used"),
    [
        ((), ("A1", "sub-7", "G0001")),
        (("A1",), ("sub-7", "G0001")),
        (("7", "other"), ("A1", "G0001")),
        (("G0001",), ("A1", "sub-7", "G0001")),  # an id of another cohort's build is another patient
    ],
)
def test_patients_trained_on_are_left_out(
    weights: Weights, tmp_path: Path, trained_on: tuple[str, ...], used: tuple[str, ...]
) -> None:
    model = replace(weights, card=replace(weights.card, training_patients=trained_on))
    text = "id,idh_probability,idh\nA1,0.2,1\nsub-7,0.3,0\nG0001,0.4,1\n"
    patients = read_text_table(model, "idh", tmp_path, text)
    assert patients.ids == used
    assert any("trained on" in line for line in patients.describe_left_out()) == (len(used) < 3)


def test_every_patient_left_out_is_mentioned(weights: Weights, tmp_path: Path) -> None:
    predictions, truth = tmp_path / "p.csv", tmp_path / "t.csv"
    predictions.write_text("id,idh_probability\nsub-001,0.1\nsub-002,0.2\nB,\nP-4,0.4\nP-5,nan\n", "utf-8")
    truth.write_text("id,IDH\n001,mutant\n002,wild type\nB,mutant\nP4,mutant\nP-5,mutant\n", "utf-8")
    patients = read_site_patients(weights, "idh", SiteTables(predictions, truth))
    assert patients.ids == ("sub-001", "sub-002") and patients.labels.tolist() == [1, 0]
    assert patients.without_pathology == ("P-4",) and patients.without_probability == ("B", "P-5")
    lines = patients.describe_left_out()
    assert [": 1, such as P-4" in lines[0], "pathology" in lines[0], ": 2, such as B" in lines[1]] == [
        True
    ] * 3


def test_names_with_accents_find_their_row(weights: Weights, tmp_path: Path) -> None:
    predictions, truth = tmp_path / "p.csv", tmp_path / "t.csv"
    predictions.write_bytes("id,idh_probability\nMüller1,0.1\nGómez2,0.2\nGroß3,0.3\n".encode("cp1252"))
    truth.write_text("id,IDH\nMüller1,mutant\nGómez2,wild type\nGroß3,mutant\n", "utf-8")
    patients = read_site_patients(weights, "idh", SiteTables(predictions, truth))
    assert patients.ids == ("Müller1", "Gómez2", "Groß3") and patients.labels.tolist() == [1, 0, 1]


# ---- check and recalibrate --------------------------------------------------------------------------


def test_a_check_gives_the_values_of_the_calibrated_probabilities(weights: Weights) -> None:
    local = replace(
        weights,
        card=replace(
            weights.card, markers={"idh": recalibrate(weights, "idh", create_patients(200, 1, 1.5), REQUEST)}
        ),
    )
    patients, card = create_patients(400, 2, 1.5), local.card.markers["idh"]
    check = check_site(local, "idh", patients)
    calibrated = calibrate_probabilities(card.patient_calibration, patients.probabilities)
    expected = compute_threshold_metrics(patients.labels, calibrated, card.threshold)
    point = check.evaluation.operating_points[0]
    assert point.sensitivity.value == pytest.approx(expected["sensitivity"])
    assert point.specificity.value == pytest.approx(expected["specificity"])
    assert check.evaluation.overall_statistics.auc.value == pytest.approx(auc(patients.labels, calibrated))
    assert card.patient_calibration is not None
    limits, is_mutant = compute_level_limits(card.patient_calibration), patients.labels == 1
    is_low, is_high = calibrated < limits.negative_below, calibrated > limits.positive_above
    for level, share in (
        ("mutant", 1 - is_low[is_mutant].mean()),
        ("wild type", 1 - is_high[~is_mutant].mean()),
    ):
        assert check.coverage[level].value == pytest.approx(share)
        assert check.coverage[level].lower < share < check.coverage[level].upper
    assert (
        check.cannot_tell.value == pytest.approx((~is_low & ~is_high).mean())
        and 0 < check.cannot_tell.value < 1
    )
    assert check.refitted_on < 10  # some agree by chance
    assert check_site(local, "idh", create_patients(200, 1, 1.5)).refitted_on == 200


@pytest.mark.parametrize(("shared", "words"), [(0, ""), (20, ""), (60, "on 60 of these 100 patients")])
def test_patients_of_the_refit_are_recognised_in_another_table(
    weights: Weights, shared: int, words: str
) -> None:
    card = recalibrate(weights, "idh", create_patients(60, 1), REQUEST)
    local = replace(weights, card=replace(weights.card, markers={"idh": card}))
    first, others = create_patients(60, 1), create_patients(100 - shared, 2)
    days = (*first.dates[:shared], *others.dates)
    patients = SitePatients(
        tuple(f"Q{number}" for number in range(100)),
        np.concatenate([first.labels[:shared], others.labels]),
        np.concatenate([first.probabilities[:shared], others.probabilities]),
        days,
        "another table",
    )
    lines = describe_site_check(check_site(local, "idh", patients))
    lines_of_monitoring = describe_monitoring(monitor_site(local, "idh", patients))
    for text in ("\n".join(lines), "\n".join(lines_of_monitoring)):
        assert words in text and ("refitted" in text) == bool(words)


@pytest.mark.parametrize("count", [60, 300])
def test_recalibration_helps_other_patients_of_the_hospital(weights: Weights, count: int) -> None:
    others = create_patients(2000, 99, 2.0)
    before = expected_calibration_error(others.labels, others.probabilities)
    after = []
    for seed in range(4):
        card = recalibrate(weights, "idh", create_patients(count, seed, 2.0), REQUEST)
        after.append(
            expected_calibration_error(
                others.labels, calibrate_probabilities(card.patient_calibration, others.probabilities)
            )
        )
    assert before > 0.2 and np.mean(after) < 0.5 * before


def test_the_new_weights_file_keeps_its_history(weights: Weights, tmp_path: Path) -> None:
    patients = create_patients(40)
    first = recalibrate(weights, "idh", patients, REQUEST)
    path = write_recalibrated(weights, "idh", first, tmp_path / "local.safetensors")
    local = load_weights(path)
    assert local.card.markers["ki67"] == weights.card.markers["ki67"]
    assert {name: one.shape for name, one in local.tensors.items()} == {
        name: one.shape for name, one in weights.tensors.items()
    }
    second = recalibrate(local, "idh", create_patients(50, 1), RecalibrationRequest("other", "B"))
    history = second.recalibrations
    assert [(one.site, one.person, one.patients) for one in history] == [
        ("市医院", "Dr. 李", 40),
        ("other", "B", 50),
    ]
    assert [one.previous_sha256 for one in history] == [weights.sha256, local.sha256]
    assert history[0].table_sha256 == patients.sha256 and date.fromisoformat(history[0].date)
    # predictions of the model from before are those of the new one before calibration
    table = tmp_path / "t.csv"
    table.write_text(f"id,idh_probability,idh,sha256\nA,0.5,1,{weights.sha256}\n", "utf-8")
    with pytest.raises(InputError, match="not clear whether"):
        read_site_patients(local, "idh", SiteTables(table))
    tables = SiteTables(table, probability_column="idh_probability")
    assert read_site_patients(local, "idh", tables).ids == ("A",)
    table.write_text("id,idh_probability,idh_raw_probability,idh\nA,0.5,0.25,1\n", "utf-8")
    assert read_site_patients(local, "idh", SiteTables(table)).probabilities.tolist() == [0.25]
    with pytest.raises(ConfigurationError, match="another file"):
        write_recalibrated(local, "idh", second, path)


@pytest.mark.parametrize("site, person", [("", "A"), ("H", " ")])
def test_who_and_where_must_be_named(weights: Weights, site: str, person: str) -> None:
    with pytest.raises(ConfigurationError, match="Name the hospital and the person"):
        recalibrate(weights, "idh", create_patients(40), RecalibrationRequest(site, person))


def test_limits_of_few_patients_are_stated(weights: Weights) -> None:
    few = describe_support(recalibrate(weights, "idh", create_patients(30), REQUEST))
    many = describe_support(recalibrate(weights, "idh", create_patients(300), REQUEST))
    assert [one.code for one in few][1] == "site-straight-maps" and few[1].parameters["patients"] == 30
    assert [one.code for one in many][1] == "site-all-maps"
    widths = [lines[2].parameters["high"] - lines[2].parameters["low"] for lines in (few, many)]
    assert widths[0] > 2 * widths[1]


@pytest.mark.parametrize(
    "count, expected", [(8, (1.0, 1.0)), (19, (0.7397, 0.9877)), (199, (0.8545, 0.9376))]
)
def test_the_range_of_the_true_coverage(count: int, expected: tuple[float, float]) -> None:
    assert compute_coverage_range(count) == pytest.approx(expected, abs=1e-3)
    rank = int(np.ceil(round((count + 1) * 0.9, 9)))
    if rank <= count:  # the share of uniform numbers below one of the ranks
        draws = np.sort(np.random.default_rng(0).random((4000, count)), axis=1)[:, rank - 1]
        assert np.quantile(draws, [0.025, 0.975]) == pytest.approx(expected, abs=0.02)


# ---- commands ---------------------------------------------------------------------------------------


def test_the_commands_from_tables_to_a_new_model(run_command, tiny_weights: Path, tmp_path: Path) -> None:
    predictions, pathology = write_tables(tmp_path, create_patients(80, 3, 1.5), ("IDH野生型", "IDH1突变"))
    words = ("--marker", "idh", "--predictions", predictions, "--pathology", pathology)
    local = tmp_path / "local.safetensors"
    outcome = run_command(
        "site", "recalibrate", "--model", tiny_weights, *words, "--site", "H", "--person", "A", "--out", local
    )
    assert outcome.status == 0 and "refitted to 80 patients of H" in outcome.stdout, outcome.stderr
    words += ("--probability", "idh_probability")
    outcome = run_command("site", "check", "--model", local, *words, "--out", tmp_path / "check")
    assert outcome.status == 0 and "exactly these patients" in outcome.stdout, outcome.stderr
    table = pd.read_csv(tmp_path / "check/site_check.csv").set_index("quantity")
    patients = create_patients(80, 3, 1.5)
    assert table.loc["AUC", "value"] == pytest.approx(auc(patients.labels, patients.probabilities), abs=0.02)
    assert "Coverage of the levels" in (tmp_path / "check/evaluation.html").read_text("utf-8")


@pytest.mark.parametrize("shift, words", [(0.0, "no alarm"), (2.5, "fewer positive patients")])
def test_monitoring_finds_a_hospital_where_the_model_is_wrong(
    run_command, tiny_weights: Path, tmp_path: Path, shift: float, words: str
) -> None:
    patients = create_patients(120, 4)
    stated = expit(logit(patients.probabilities) + shift)
    predictions, pathology = write_tables(
        tmp_path, replace(patients, probabilities=stated), ("wild type", "mutant")
    )
    outcome = run_command(
        "site", "monitor", "--model", tiny_weights, "--marker", "idh", "--predictions", predictions,
        "--pathology", pathology, "--date", "day", "--out", tmp_path / "out",
    )  # fmt: skip
    assert outcome.status == 0 and words in outcome.stdout, outcome.stderr
    table = pd.read_csv(tmp_path / "out/monitoring.csv")
    assert list(table["id"]) == list(patients.ids)
    expected = np.cumsum(patients.labels - stated)
    assert table["observed_minus_expected"].to_numpy() == pytest.approx(expected, abs=1e-3)
    assert table["alarm"].notna().any() == (shift > 0)
    assert (tmp_path / "out/monitoring.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    "count, change, words",
    [(29, {}, "at least 30"), (40, {"--marker": "mgmt"}, "no marker mgmt"), (40, {"--site": ""}, "Name the")],
)
def test_what_cannot_be_refitted_is_refused(
    run_command, tiny_weights: Path, tmp_path: Path, count: int, change: dict[str, str], words: str
) -> None:
    predictions, pathology = write_tables(tmp_path, create_patients(count), ("wild type", "mutant"))
    options = {"--model": tiny_weights, "--marker": "idh", "--site": "H", "--person": "A"} | change
    options |= {"--predictions": predictions, "--pathology": pathology, "--out": tmp_path / "new"}
    outcome = run_command("site", "recalibrate", *(part for pair in options.items() for part in pair))
    assert outcome.status == 1 and words in outcome.stderr
    assert not (tmp_path / "new").exists()
