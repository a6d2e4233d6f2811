"""Accuracy of the rule by which a reader's finding of an enhancing focus decides IDH."""

from __future__ import annotations

from dataclasses import dataclass

from gliomark.messages import message


@dataclass(frozen=True)
class ReaderFindingAccuracy:
    """Accuracy, in a cohort, of the rule "enhancing focus: IDH wild type; none: IDH mutant".

    patients, correct: number of patients and of correct predictions; with_focus, wild_type_with_focus: patients with
    an enhancing focus, and wild types among them; without_focus, mutant_without_focus: patients without, and mutants
    among them; lower, upper: exact 95 % interval of the accuracy; detection_method: how the focus was detected.
    """

    cohort: str
    patients: int
    correct: int
    lower: float
    upper: float
    with_focus: int
    wild_type_with_focus: int
    without_focus: int
    mutant_without_focus: int
    detection_method: str

    @property
    def accuracy(self) -> float:
        """Share of correct predictions, 0 to 1."""
        return self.correct / self.patients

    def describe_performance(self, has_enhancing_focus: bool) -> str:
        """Return the message shown with a level that was decided by the finding."""
        if has_enhancing_focus:
            case_text = message("finding-focus", right=self.wild_type_with_focus, of=self.with_focus)
        else:
            case_text = message("finding-no-focus", right=self.mutant_without_focus, of=self.without_focus)
        numbers = {"right": self.correct, "patients": self.patients, "cohort": self.cohort}
        interval = {"accuracy": self.accuracy, "low": self.lower, "high": self.upper}
        return message("finding-performance", case=case_text, **numbers, **interval)

    def summarise(self) -> str:
        """Return a one-sentence summary, shown beside the question."""
        numbers = {"right": self.correct, "patients": self.patients, "accuracy": self.accuracy}
        return message(
            "finding-in-short", wild_type=self.wild_type_with_focus, focus=self.with_focus, **numbers
        )


# the numbers of results/reader_finding.csv, which a test compares
READER_FINDING_ACCURACY = ReaderFindingAccuracy(
    cohort="TCGA-LGG",
    patients=86,
    correct=55,
    lower=0.5288,
    upper=0.7403,
    with_focus=31,
    wild_type_with_focus=10,
    without_focus=55,
    mutant_without_focus=45,
    detection_method="T1C minus T1 in the drawn lesion more than 3 standard deviations above the rest of the brain, "
    "in a connected piece of at least 0.2 ml",
)
