"""Items of CLAIM that the report covers, and those that are left to the authors.

The items are those of Mongan et al. 2020, Radiology: Artificial Intelligence 2(2):e200029, as short topics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# sections of the report
CLAIMS, METHODS, TRAINING, FLOW, TABLE_1, CHECKS = (
    "What may be claimed",
    "Methods",
    "Training",
    "Patient flow",
    "Table 1",
    "Checks of the data",
)
# parts of every marker's section, which is there if the marker could be evaluated
RESULTS, SAMPLE_SIZE = "the results of each marker", "Sample size"

DE_IDENTIFICATION = "De-identification"


@dataclass(frozen=True)
class ChecklistItem:
    """An item: number, topic, and the part of the report that covers it; empty: left to the authors."""

    number: int
    topic: str
    section: str


_ITEMS: Final[Sequence[tuple[str, str]]] = (
    ("Title or abstract names the type of model", ""),
    ("Structured abstract", ""),
    ("Background, intended use and clinical role", ""),
    ("Aims and hypotheses", ""),
    ("Prospective or retrospective", ""),
    ("Goal of the study", METHODS),
    ("Sources of the data", ""),
    ("Eligibility: where, when, and by which criteria patients were included", ""),
    ("Preprocessing", METHODS),
    ("Selection of subsets of the data", FLOW),
    ("Definitions of the data elements", METHODS),
    (DE_IDENTIFICATION, METHODS),
    ("Missing data", METHODS),
    ("Definition of the reference standard", ""),
    ("Reasons for this reference standard", ""),
    ("Who annotated, with which qualification", ""),
    ("Annotation tools", ""),
    ("Agreement between and within annotators", ""),
    ("Sample size and how it was determined", SAMPLE_SIZE),
    ("Assignment of the data to partitions", METHODS),
    ("Level at which partitions are disjoint", CHECKS),
    ("Model: inputs, outputs and layers", TRAINING),
    ("Software and its versions", METHODS),
    ("Initialisation of the parameters", TRAINING),
    ("Training: augmentation, hyperparameters, number of models", TRAINING),
    ("Selection of the final model", METHODS),
    ("Ensembling", METHODS),
    ("Measures of performance", RESULTS),
    ("Statistical tests and uncertainty", RESULTS),
    ("Robustness or sensitivity analysis", ""),
    ("Explainability and its validation", ""),
    ("Testing on external data", ""),
    ("Flow of patients", FLOW),
    ("Characteristics of the patients", TABLE_1),
    ("Performance in all partitions", RESULTS),
    ("Diagnostic accuracy with its precision", RESULTS),
    ("Analysis of wrongly classified patients", ""),
    ("Limitations: bias, uncertainty, generalisability", CLAIMS),
    ("Implications for practice", ""),
    ("Registration", ""),
    ("Where protocol, data and code are found", ""),
    ("Funding and the role of the funders", ""),
)


def list_checklist(is_evaluated: bool, states_de_identification: bool) -> list[ChecklistItem]:
    """List the 42 items.

    is_evaluated: whether the report has the results of a marker; states_de_identification: whether the cohort says what
    was done about identifying data.
    """
    return [
        ChecklistItem(
            number,
            topic,
            ""
            if (section == RESULTS and not is_evaluated)
            or (topic == DE_IDENTIFICATION and not states_de_identification)
            else section,
        )
        for number, (topic, section) in enumerate(_ITEMS, start=1)
    ]
