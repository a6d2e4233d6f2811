"""``gliomark evaluate``: tables and page from a table of predictions; published values are reproduced."""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.pipeline.conftest import reader_pool, run_command

from gliomark.errors import GliomarkError
from gliomark.evaluation.evaluate import (
    PredictionColumns,
    evaluate_predictions,
    find_threshold_at_sensitivity,
    read_predictions,
)
from gliomark.reporting.evaluation_page import write_evaluation

GNP = PredictionColumns("case_id", "label", "prediction_probability", predicted_class="prediction")

__all__ = ["reader_pool", "run_command"]


def write_predictions(path: Path, count: int = 40, seed: int = 0, first: int = 0, shift: float = 1.0) -> Path:
    random = np.random.default_rng(seed)
    rows = ["id,label,probability,site"]
    for number in range(first, first + count):
        label = number % 2
        probability = 1 / (1 + np.exp(-(shift * (2 * label - 1) + random.normal())))
        rows.append(f"P{number},{label},{probability:.4f},{'东院' if number % 4 < 2 else '<West>'}")
    path.write_text("\n".join(rows) + "\n", "utf-8")
    return path


def read_rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open(encoding="utf-8")))


def test_the_command_writes_tables_and_one_page(run_command, tmp_path: Path) -> None:
    ours, theirs = (
        write_predictions(tmp_path / "ours 我.csv"),
        write_predictions(tmp_path / "theirs.csv", seed=1, shift=0.2),
    )
    others = write_predictions(tmp_path / "others.csv", first=100)
    out = tmp_path / "out"
    outcome = run_command(
        "evaluate", ours, "--out", out, "--site", "site", "--against", theirs, "--validation", others
    )
    assert outcome.status == 0, outcome.stderr
    names = {"figures", "operating_points", "calibration", "decision_curve", "comparison"}
    assert {p.name for p in out.iterdir()} == {f"{name}.csv" for name in names} | {
        "evaluation.html",
        "evaluation.pdf",
    }
    page = (out / "evaluation.html").read_text("utf-8")
    assert page.count("<svg") == 3 and "&lt;West&gt;" in page and "<West>" not in page and "东院" in page
    assert not re.search(r'(src|href)="https?:', page), "the page loads external files"
    overall, *sites = read_rows(out / "figures.csv")
    assert overall["patients"] == "40" and [s["group"] for s in sites] == ["<West>", "东院"]
    assert float(overall["auc_low_95"]) < float(overall["auc"]) < float(overall["auc_high_95"])
    points = {row["name"]: row for row in read_rows(out / "operating_points.csv")}
    assert "others.csv" in points["Youden"]["chosen_on"] and points["0.5"]["threshold"] == "0.5"
    (comparison,) = read_rows(out / "comparison.csv")
    assert float(comparison["difference"]) > 0 and float(comparison["p"]) < 0.05


def test_a_missing_extra_gives_one_sentence(
    run_command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    outcome = run_command("evaluate", write_predictions(tmp_path / "ours.csv"), "--out", tmp_path / "out")
    assert (
        outcome.status == 1 and "needs matplotlib" in outcome.stderr and "gliomark[train]" in outcome.stderr
    )
    assert not (tmp_path / "out").exists()


def test_the_threshold_at_a_given_sensitivity() -> None:
    probability, label = np.linspace(0.05, 1, 20), np.ones(20, int)
    threshold = find_threshold_at_sensitivity(label, probability)
    assert (probability >= threshold).mean() == 0.9 and (probability > threshold).mean() < 0.9


def test_the_probability_of_a_predicted_class_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("id,label,probability,said\na,yes,0.9,yes\nb,no,0.8,no\nc,no,0.6,yes\n", "utf-8")
    found = read_predictions(path, PredictionColumns(predicted_class="said"))
    assert found.probabilities == pytest.approx([0.9, 0.2, 0.6]) and found.labels.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    "text, expected_text",
    [
        ("id,label\na,1\n", "no column probability"),
        ("id,label,probability\na,1,0.4\na,0,0.3\n", "a has 2 rows"),
        ("id,label,probability\na,2,0.4\n", "a: the label is '2'"),
        ("id,label,probability\na,1,1.4\n", "a: the probability is '1.4'"),
        ("id,label,probability\na,1,nan\n", "a: the probability is 'nan'"),
        ("id,label,probability\na,1,\n", "a: the probability is ''"),
        ("id,label,probability\na,1,0.4\nb,1,0.2\n", "all 2 patients have the label 1"),
        ("id,label,probability\n", "no rows"),
        ("id,label,probability,comment\na,1,0,83,\nb,0,0,12,\n", "Row a in"),
        ("id,label,probability,\na,1,0,83\nb,0,0,12\n", "Row a in"),
    ],
)
def test_invalid_tables_of_predictions_are_refused(
    run_command, tmp_path: Path, text: str, expected_text: str
) -> None:
    path = tmp_path / "p.csv"
    path.write_text(text, "utf-8")
    outcome = run_command("evaluate", path, "--out", tmp_path / "out")
    assert outcome.status == 1 and expected_text in outcome.stderr and "Traceback" not in outcome.stderr
    assert not (tmp_path / "out").exists()


def test_patients_that_must_not_be_mixed_are_refused(tmp_path: Path) -> None:
    ours = read_predictions(write_predictions(tmp_path / "a.csv"), PredictionColumns())
    with pytest.raises(GliomarkError, match="appears in both"):
        evaluate_predictions(
            ours, validation=read_predictions(write_predictions(tmp_path / "b.csv"), PredictionColumns())
        )
    zeros = tmp_path / "zeros.csv"  # a spreadsheet dropped the zeros of one table
    zeros.write_text((tmp_path / "a.csv").read_text("utf-8").replace("\nP", "\n00"), "utf-8")
    numbers = tmp_path / "numbers.csv"
    numbers.write_text((tmp_path / "a.csv").read_text("utf-8").replace("\nP", "\n"), "utf-8")
    with pytest.raises(GliomarkError, match=r"000 \(0\) appears in both numbers.csv and zeros.csv"):
        evaluate_predictions(
            read_predictions(zeros, PredictionColumns()), read_predictions(numbers, PredictionColumns())
        )
    with pytest.raises(GliomarkError, match="no patient in common"):
        evaluate_predictions(
            ours,
            comparison_predictions=read_predictions(
                write_predictions(tmp_path / "c.csv", first=90), PredictionColumns()
            ),
        )
    text = (tmp_path / "a.csv").read_text("utf-8").replace("P3,1,", "P3,0,")
    (tmp_path / "d.csv").write_text(text, "utf-8")
    with pytest.raises(GliomarkError, match="P3 has the label 1 in a.csv"):
        evaluate_predictions(
            ours, comparison_predictions=read_predictions(tmp_path / "d.csv", PredictionColumns())
        )


@pytest.mark.parametrize("task, patients, area", [("Ki-67", 936, 0.817), ("IDH", 1502, 0.873)])
def test_published_aucs_of_a_comparison_model_are_reproduced(
    shared: Path, tmp_path: Path, task: str, patients: int, area: float
) -> None:
    """Released predictions of MRI-GNP, in which the probability refers to the predicted class."""
    columns = PredictionColumns(**{**vars(GNP), "row_filters": (("task", task),)})
    found = evaluate_predictions(
        read_predictions(shared / "tables" / "mri-gnp-internal-retrospective.csv", columns)
    )
    assert (found.overall_statistics.patients, round(found.overall_statistics.auc.value, 3)) == (
        patients,
        area,
    )
    assert write_evaluation(found, tmp_path).is_file()
    if task == "Ki-67":
        assert (found.overall_statistics.auc.lower, found.overall_statistics.auc.upper) == pytest.approx(
            (0.788, 0.845), abs=0.004
        )
