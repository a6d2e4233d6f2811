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
        "AUC {} (95 % interval {} to {}) of the same recipe on {} {} patients in five folds, each never trained on"
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
    # what goes on
    QT_TRANSLATE_NOOP("said", "aligning the sequences"),
    QT_TRANSLATE_NOOP("said", "finding the brain"),
    QT_TRANSLATE_NOOP("said", "cutting slices"),
    QT_TRANSLATE_NOOP("said", "outlining the lesion"),
    QT_TRANSLATE_NOOP("said", "writing the results"),
    QT_TRANSLATE_NOOP("said", "reading {}"),
    # what is wrong with the images, and with what was asked
    QT_TRANSLATE_NOOP(
        "said",
        "{}: the sequence {} is missing (found: {}); add it, or choose a model that does not need it.",
    ),
    QT_TRANSLATE_NOOP("said", "No brain was found in the image ({}); is this an axial head MRI?"),
    QT_TRANSLATE_NOOP("said", "Only {} ml of brain were found in the image; is this a whole axial head MRI?"),
    QT_TRANSLATE_NOOP("said", "The upload holds {} patients ({}); send one at a time."),
    QT_TRANSLATE_NOOP(
        "said", "{} holds pictures but no sequence folders: put them in subfolders T1C, T2 and so on."
    ),
    QT_TRANSLATE_NOOP(
        "said",
        "{} holds no patient's images: give pictures as <patient>/<sequence>/<slice>.jpg, volumes with T1, T1C, T2 or"
        " FLAIR in their name, or DICOM.",
    ),
    QT_TRANSLATE_NOOP("said", "There is no such study; upload it again."),
    QT_TRANSLATE_NOOP("said", "The study's images and results were removed."),
    QT_TRANSLATE_NOOP("said", "Too many uploads at once; try again in a minute."),
    # what DICOM and NIfTI files left open
    QT_TRANSLATE_NOOP("said", "{} series look like {}; read: {}."),
    QT_TRANSLATE_NOOP("said", "Series '{}' was not used: {}"),
    QT_TRANSLATE_NOOP("said", "The sequences come from {} different examinations of this patient."),
    QT_TRANSLATE_NOOP("said", "{} does not state its orientation: left and right are assumed, not read."),
    QT_TRANSLATE_NOOP("said", "{}: slice {} of {} was missing and was interpolated from its neighbours."),
    QT_TRANSLATE_NOOP("said", "{}: {} copies of other images were left out."),
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
