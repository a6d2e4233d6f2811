"""Tables of predictions at ``evaluate``: NaN, ids twice, labels of one kind, other people's columns."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable

from tests.battery.case import Case, Scene, answered, refused
from tests.battery.kit import both, lay

DOOR = "evaluate"
Lines = list[list[str]]


def predictions(
    change: Callable[[Lines], Lines] = lambda lines: lines, name: str = "predictions.csv"
) -> Callable:
    """The good table, its lines changed."""

    def make(scene: Scene) -> None:
        with (scene.ground / "predictions.csv").open(newline="") as file:
            lines = change([row for row in csv.reader(file)])
        with (scene.folder / name).open("w", newline="") as file:
            csv.writer(file).writerows(lines)

    return make


def cell(column: int, text: str, row: int = 5) -> Callable[[Lines], Lines]:
    def change(lines: Lines) -> Lines:
        lines[row][column] = text
        return lines

    return change


def bad(name: str, kind: str, change: Callable[[Lines], Lines], *says: str, words: str = "") -> Case:
    return refused(DOOR, f"predictions {name}", kind, predictions(change), *says, words=words)


def whole(name: str, kind: str, content: bytes | str | Callable[[], bytes], *says: str) -> Case:
    return refused(DOOR, f"predictions {name}", kind, lay("predictions.csv", content), *says)


def area(expected: float) -> Callable[[Scene], str]:
    def wrong(scene: Scene) -> str:
        with (scene.folder / "judged" / "figures.csv").open(newline="", encoding="utf-8-sig") as file:
            found = float(next(csv.DictReader(file))["auc"])
        return "" if abs(found - expected) < 1e-3 else f"AUC {found}, expected {expected}"

    return wrong


def true_area(scene: Scene) -> str:
    """Compared with scikit-learn's."""
    from sklearn.metrics import roc_auc_score

    with (scene.ground / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    label, probability = [int(r["label"]) for r in rows], [float(r["probability"]) for r in rows]
    return area(float(roc_auc_score(label, probability)))(scene)


RIVAL = "evaluate predictions.csv --out judged --against rival.csv"
OTHERS = "evaluate predictions.csv --out judged --validation others.csv"
CASES = [
    *[bad(f"with the probability {text or 'blank'!r}", "NaN and inf" if text else "missing part", cell(2, text),
          "must be a number from 0 to 1")
      for text in ("NaN", "inf", "-inf", "1.0001", "-0.1", "", "abc", "1e400", "0,5", "50%", "=1/2", "0x1p-1", "none")],
    *[bad(f"with the label {text or 'blank'!r}", "labels", cell(1, text), "must be 0 or 1")
      for text in ("2", "-1", "NaN", "", "0.5", "maybe")],
    bad("with an id twice", "duplicates", lambda lines: [*lines, lines[3]], "one row per patient"),
    bad("with a blank id", "missing part", cell(0, ""), "id", "blank"),
    bad("of one label", "labels", lambda lines: [lines[0], *[[r[0], "1", *r[2:]] for r in lines[1:]]],
        "both are needed"),
    bad("of a header alone", "missing part", lambda lines: lines[:1], "nothing can be evaluated"),
    bad("without the column probability", "missing part", lambda lines: [r[:2] for r in lines], "no column"),
    bad("with the column label twice", "duplicates", lambda lines: [[*r, r[1]] for r in lines], "twice",
        "no column", "two columns"),
    bad("asked for a column that is not there", "missing part", lambda lines: lines, "no column",
        words="evaluate predictions.csv --out judged --site hospital"),
    bad("asked for rows that are not there", "missing part", lambda lines: lines, "no rows",
        words="evaluate predictions.csv --out judged --where site=Z"),
    bad("asked for rows without =", "impossible value", lambda lines: lines, "COLUMN=VALUE",
        words="evaluate predictions.csv --out judged --where site"),
    whole("of nothing", "missing part", b"", "no column", "table-no-id"),
    whole("of zeros", "another format", bytes(4000), "table-encoding"),
    whole("of one line of 50 MB", "huge", lambda: b"id,label,probability" + b"x" * (50 << 20), "table-not-csv",
          "no column"),
    whole("that are a zip", "another format", b"PK\x03\x04" + bytes(300), "table-damaged-workbook"),
    whole("with a quote without end", "truncation", 'id,label,probability\n"P1,0,0.5\n' * 50, "table-not-csv",
          "no column", "must be"),
    refused(DOOR, "predictions that are not there", "missing part", lambda scene: None, "table-unopenable"),
    refused(DOOR, "predictions that are a folder", "another kind",
            lambda scene: (scene.folder / "predictions.csv").mkdir(), "table-unopenable"),
    refused(DOOR, "predictions into a file", "another kind", both(predictions(), lay("judged", "mine")),
            "check the path", "judged"),
    refused(DOOR, "rival of other patients", "mixed patients", both(predictions(), predictions(
        lambda lines: [lines[0], *[[f"X{r[0]}", *r[1:]] for r in lines[1:]]], "rival.csv")), "no patient in common",
        words=RIVAL),
    refused(DOOR, "rival of other labels", "labels", both(predictions(), predictions(
        lambda lines: [lines[0], *[[r[0], str(1 - int(r[1])), *r[2:]] for r in lines[1:]]], "rival.csv")),
        "compare predictions of one truth", words=RIVAL),
    refused(DOOR, "rival with one patient in common", "missing part", both(predictions(), predictions(
        lambda lines: [lines[0], lines[1], *[[f"X{r[0]}", *r[1:]] for r in lines[2:]]], "rival.csv")),
        "in common", "both", words=RIVAL),
    refused(DOOR, "validation on the same patients", "mixed patients", both(predictions(), predictions(
        name="others.csv")), "stands in both", words=OTHERS),
    refused(DOOR, "validation that is cut", "truncation", both(predictions(), lay("others.csv", "id,label\nX,")),
            "no column", words=OTHERS),
    answered(DOOR, "predictions as they are", "odd but healthy", predictions(), true_area),
    answered(DOOR, "predictions of words", "odd but healthy", predictions(lambda lines: [
        lines[0], *[[r[0], ("no", "yes")[int(r[1])], *r[2:]] for r in lines[1:]]]), true_area),
    answered(DOOR, "predictions with formulas in another column", "odd but healthy", predictions(lambda lines: [
        [*lines[0], "note"], *[[*r, "=1+1"] for r in lines[1:]]]), true_area),
    answered(DOOR, "predictions with a rival", "odd but healthy", both(predictions(), lambda scene: shutil.copy(
        scene.ground / "rival.csv", scene.folder / "rival.csv")), true_area, words=RIVAL),
    answered(DOOR, "predictions of perfect order", "odd but healthy", predictions(lambda lines: [
        lines[0], *[[r[0], r[1], r[1], *r[3:]] for r in lines[1:]]]), area(1.0)),
    answered(DOOR, "predictions of one probability", "odd but healthy", predictions(lambda lines: [
        lines[0], *[[*r[:2], "0.5", *r[3:]] for r in lines[1:]]]), area(0.5)),
    answered(DOOR, "predictions of two patients", "odd but healthy", predictions(lambda lines: [
        lines[0], ["a", "0", "0.1"], ["b", "1", "0.9"]]), area(1.0)),
]  # fmt: skip
