"""Prediction tables for ``evaluate``: NaN, duplicate ids, labels of only one class, unexpected columns."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable

from tests.battery.cases_and_results import Case, CaseFolders, expect_answer, expect_refusal
from tests.battery.changes import run_all, write_case_file

DOOR = "evaluate"
Lines = list[list[str]]


def write_predictions(
    change: Callable[[Lines], Lines] = lambda lines: lines, name: str = "predictions.csv"
) -> Callable:
    """Write the valid table with its lines changed."""

    def write_changed(scene: CaseFolders) -> None:
        with (scene.healthy_folder / "predictions.csv").open(newline="") as file:
            lines = change([row for row in csv.reader(file)])
        with (scene.folder / name).open("w", newline="") as file:
            csv.writer(file).writerows(lines)

    return write_changed


def set_cell(column: int, text: str, row: int = 5) -> Callable[[Lines], Lines]:
    def change(lines: Lines) -> Lines:
        lines[row][column] = text
        return lines

    return change


def create_changed_table_case(
    name: str, kind: str, change: Callable[[Lines], Lines], *says: str, words: str = ""
) -> Case:
    return expect_refusal(
        DOOR, f"predictions {name}", kind, write_predictions(change), *says, arguments=words
    )


def create_whole_table_case(
    name: str, kind: str, content: bytes | str | Callable[[], bytes], *says: str
) -> Case:
    return expect_refusal(
        DOOR, f"predictions {name}", kind, write_case_file("predictions.csv", content), *says
    )


def check_auc(expected: float) -> Callable[[CaseFolders], str]:
    def find_error(scene: CaseFolders) -> str:
        with (scene.folder / "judged" / "figures.csv").open(newline="", encoding="utf-8-sig") as file:
            found = float(next(csv.DictReader(file))["auc"])
        return "" if abs(found - expected) < 1e-3 else f"AUC {found}, expected {expected}"

    return find_error


def check_true_auc(scene: CaseFolders) -> str:
    """Compare the AUC with that of scikit-learn."""
    from sklearn.metrics import roc_auc_score

    with (scene.healthy_folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    label, probability = [int(r["label"]) for r in rows], [float(r["probability"]) for r in rows]
    return check_auc(float(roc_auc_score(label, probability)))(scene)


COMPARISON_ARGUMENTS = "evaluate predictions.csv --out judged --against rival.csv"
VALIDATION_ARGUMENTS = "evaluate predictions.csv --out judged --validation others.csv"
CASES = [
    *[
        create_changed_table_case(
            f"with the probability {text or 'blank'!r}",
            "NaN and inf" if text else "missing part",
            set_cell(2, text),
            "must be a number from 0 to 1",
        )
        for text in (
            "NaN",
            "inf",
            "-inf",
            "1.0001",
            "-0.1",
            "",
            "abc",
            "1e400",
            "0,5",
            "50%",
            "=1/2",
            "0x1p-1",
            "none",
        )
    ],
    *[
        create_changed_table_case(
            f"with the label {text or 'blank'!r}", "labels", set_cell(1, text), "must be 0 or 1"
        )
        for text in ("2", "-1", "NaN", "", "0.5", "maybe")
    ],
    create_changed_table_case(
        "with an id twice", "duplicates", lambda lines: [*lines, lines[3]], "one row per patient"
    ),
    create_changed_table_case("with a blank id", "missing part", set_cell(0, ""), "id", "blank"),
    create_changed_table_case(
        "of one label",
        "labels",
        lambda lines: [lines[0], *[[r[0], "1", *r[2:]] for r in lines[1:]]],
        "both are needed",
    ),
    create_changed_table_case(
        "of a header alone", "missing part", lambda lines: lines[:1], "nothing can be evaluated"
    ),
    create_changed_table_case(
        "without the column probability", "missing part", lambda lines: [r[:2] for r in lines], "no column"
    ),
    create_changed_table_case(
        "with the column label twice",
        "duplicates",
        lambda lines: [[*r, r[1]] for r in lines],
        "twice",
        "no column",
        "two columns",
    ),
    create_changed_table_case(
        "asked for a column that is not there",
        "missing part",
        lambda lines: lines,
        "no column",
        words="evaluate predictions.csv --out judged --site hospital",
    ),
    create_changed_table_case(
        "asked for rows that are not there",
        "missing part",
        lambda lines: lines,
        "no rows",
        words="evaluate predictions.csv --out judged --where site=Z",
    ),
    create_changed_table_case(
        "asked for rows without =",
        "impossible value",
        lambda lines: lines,
        "COLUMN=VALUE",
        words="evaluate predictions.csv --out judged --where site",
    ),
    create_whole_table_case("of nothing", "missing part", b"", "no column", "table-no-id"),
    create_whole_table_case("of zeros", "another format", bytes(4000), "table-encoding"),
    create_whole_table_case(
        "of one line of 50 MB",
        "huge",
        lambda: b"id,label,probability" + b"x" * (50 << 20),
        "table-not-csv",
        "no column",
    ),
    create_whole_table_case(
        "that are a zip", "another format", b"PK\x03\x04" + bytes(300), "table-damaged-workbook"
    ),
    create_whole_table_case(
        "with a quote without end",
        "truncation",
        'id,label,probability\n"P1,0,0.5\n' * 50,
        "table-not-csv",
        "no column",
        "must be",
    ),
    expect_refusal(
        DOOR, "predictions that are not there", "missing part", lambda scene: None, "table-unopenable"
    ),
    expect_refusal(
        DOOR,
        "predictions that are a folder",
        "another kind",
        lambda scene: (scene.folder / "predictions.csv").mkdir(),
        "table-unopenable",
    ),
    expect_refusal(
        DOOR,
        "predictions into a file",
        "another kind",
        run_all(write_predictions(), write_case_file("judged", "mine")),
        "check the path",
        "judged",
    ),
    expect_refusal(
        DOOR,
        "rival of other patients",
        "mixed patients",
        run_all(
            write_predictions(),
            write_predictions(
                lambda lines: [lines[0], *[[f"X{r[0]}", *r[1:]] for r in lines[1:]]], "rival.csv"
            ),
        ),
        "no patient in common",
        arguments=COMPARISON_ARGUMENTS,
    ),
    expect_refusal(
        DOOR,
        "rival of other labels",
        "labels",
        run_all(
            write_predictions(),
            write_predictions(
                lambda lines: [lines[0], *[[r[0], str(1 - int(r[1])), *r[2:]] for r in lines[1:]]],
                "rival.csv",
            ),
        ),
        "both tables need the same labels",
        arguments=COMPARISON_ARGUMENTS,
    ),
    expect_refusal(
        DOOR,
        "rival with one patient in common",
        "missing part",
        run_all(
            write_predictions(),
            write_predictions(
                lambda lines: [lines[0], lines[1], *[[f"X{r[0]}", *r[1:]] for r in lines[2:]]], "rival.csv"
            ),
        ),
        "in common",
        "both",
        arguments=COMPARISON_ARGUMENTS,
    ),
    expect_refusal(
        DOOR,
        "validation on the same patients",
        "mixed patients",
        run_all(write_predictions(), write_predictions(name="others.csv")),
        "appears in both",
        arguments=VALIDATION_ARGUMENTS,
    ),
    expect_refusal(
        DOOR,
        "validation that is cut",
        "truncation",
        run_all(write_predictions(), write_case_file("others.csv", "id,label\nX,")),
        "no column",
        arguments=VALIDATION_ARGUMENTS,
    ),
    expect_answer(DOOR, "predictions as they are", "odd but healthy", write_predictions(), check_true_auc),
    expect_answer(
        DOOR,
        "predictions of words",
        "odd but healthy",
        write_predictions(
            lambda lines: [lines[0], *[[r[0], ("no", "yes")[int(r[1])], *r[2:]] for r in lines[1:]]]
        ),
        check_true_auc,
    ),
    expect_answer(
        DOOR,
        "predictions with formulas in another column",
        "odd but healthy",
        write_predictions(lambda lines: [[*lines[0], "note"], *[[*r, "=1+1"] for r in lines[1:]]]),
        check_true_auc,
    ),
    expect_answer(
        DOOR,
        "predictions with a rival",
        "odd but healthy",
        run_all(
            write_predictions(),
            lambda scene: shutil.copy(scene.healthy_folder / "rival.csv", scene.folder / "rival.csv"),
        ),
        check_true_auc,
        arguments=COMPARISON_ARGUMENTS,
    ),
    expect_answer(
        DOOR,
        "predictions of perfect order",
        "odd but healthy",
        write_predictions(lambda lines: [lines[0], *[[r[0], r[1], r[1], *r[3:]] for r in lines[1:]]]),
        check_auc(1.0),
    ),
    expect_answer(
        DOOR,
        "predictions of one probability",
        "odd but healthy",
        write_predictions(lambda lines: [lines[0], *[[*r[:2], "0.5", *r[3:]] for r in lines[1:]]]),
        check_auc(0.5),
    ),
    expect_answer(
        DOOR,
        "predictions of two patients",
        "odd but healthy",
        write_predictions(lambda lines: [lines[0], ["a", "0", "0.1"], ["b", "1", "0.9"]]),
        check_auc(1.0),
    ),
]
