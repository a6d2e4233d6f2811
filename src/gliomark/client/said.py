"""What the server says in English sentences, in the user's language where the sentence is known."""

from __future__ import annotations

import re
from functools import cache

from PySide6.QtCore import QT_TRANSLATE_NOOP

from gliomark.client.language import translate

# {} stands for whatever the server put there; an unknown sentence is shown as it came.
SENTENCES = (
    QT_TRANSLATE_NOOP("said", "No lesion was found; no marker is predicted."),
    QT_TRANSLATE_NOOP(
        "said", "Age or sex is unknown; the markers were predicted without it, which was not tested."
    ),
    QT_TRANSLATE_NOOP(
        "said",
        "{} is missing and {} was shown to the networks in its place, which they were not trained for: check the"
        " outline; the model gives no marker level.",
    ),
    QT_TRANSLATE_NOOP(
        "said",
        "The images are not of the kind the model was trained on: a probability is shown, but no level.",
    ),
    QT_TRANSLATE_NOOP(
        "said",
        "On patients it never saw, this marker could not be told from chance: a probability is shown, but no level.",
    ),
    QT_TRANSLATE_NOOP(
        "said",
        "The pictures are taken for axial slices, the patient's right on the left, named towards the head.",
    ),
    QT_TRANSLATE_NOOP(
        "said",
        "The pictures carry no millimetres: {} x {} mm pixels and {} mm from slice to slice are assumed, so areas and"
        " volumes are estimates.",
    ),
    QT_TRANSLATE_NOOP(
        "said",
        "AUC {} (95 % interval {} to {}) of the same recipe on {} patients in five folds, each never trained on"
        " ({} positive), outlines predicted, slices fused by Near; these weights are trained on all of them",
    ),
    QT_TRANSLATE_NOOP("said", "positive: IDH1 or IDH2 is mutated; negative: wild type"),
    QT_TRANSLATE_NOOP(
        "said",
        "high: the mean rank of 13 cell-cycle genes, measured in the tumour's RNA, is above the training cohort's"
        " median. This is a proxy of proliferation, not a stained Ki-67 index",
    ),
    QT_TRANSLATE_NOOP("said", "Proliferation proxy"),
    QT_TRANSLATE_NOOP("said", "mutant"),
    QT_TRANSLATE_NOOP("said", "wild type"),
    QT_TRANSLATE_NOOP("said", "high"),
    QT_TRANSLATE_NOOP("said", "low"),
    QT_TRANSLATE_NOOP("said", "undetermined"),
)


def said(text: str) -> str:
    """The server's words in the user's language."""
    for template in map(str, SENTENCES):
        if found := _pattern(template).fullmatch(text.strip()):
            return translate("said", template).format(*found.groups())
    return text


@cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile("(.+?)".join(map(re.escape, template.split("{}"))), re.DOTALL)
