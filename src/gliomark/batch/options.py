"""Options, progress and report of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gliomark.errors import ConfigurationError
from gliomark.inference.fusion import FusionRule
from gliomark.inference.levels import LevelOptions
from gliomark.messages import message
from gliomark.models.signatures import TrustPolicy
from gliomark.reporting import FailedPatient, Language, list_default_formats


@dataclass(frozen=True)
class PredictionOptions:
    """Options of a prediction.

    Attributes
    ----------
    model
        Name of a shipped model or path of a weights file.
    fusion_rule
        How slice probabilities are fused.
    has_enhancing_focus
        The reader's finding, None if not given.
    language
        Language of the report.
    allows_missing_clinical
        Whether age and sex may be unknown.
    writes_pdf, writes_dicom, writes_rtstruct
        Whether the report is also written as PDF, the results as DICOM, and the outline as a DICOM structure set.
    trust
        Which signatures the weights file must carry.
    device
        Where the networks compute, see ``Model.to_device``.
    mask_file
        Segmentation to use in place of the network's; only for one patient.
    usual_formats
        The outputs that are written in any case.
    levels
        Coverage of stated levels, and prevalence of the markers.
    locates_lesion
        Whether the lesion's location in the brain is found.
    """

    model: str = "demo"
    fusion_rule: FusionRule = "near"
    has_enhancing_focus: bool | None = None
    language: Language = "en"
    allows_missing_clinical: bool = False
    writes_pdf: bool = False
    writes_dicom: bool = False
    writes_rtstruct: bool = False
    trust: TrustPolicy = TrustPolicy()
    device: str = "cpu"
    mask_file: Path | None = None
    usual_formats: tuple[str, ...] = list_default_formats()
    levels: LevelOptions = LevelOptions()
    locates_lesion: bool = False

    @property
    def formats(self) -> tuple[str, ...]:
        """The outputs to write: the usual ones, and the others on request."""
        extra = (
            ("pdf", self.writes_pdf),
            ("dicom", self.writes_dicom),
            ("rtstruct", self.writes_rtstruct),
        )
        return (*self.usual_formats, *(name for name, is_wanted in extra if is_wanted))


@dataclass(frozen=True)
class RunOptions:
    """Where a batch is computed, and what of it.

    Attributes
    ----------
    workers
        Number of worker processes; None predicts in this process.
    scheduler
        Address of a dask scheduler, used instead of own processes.
    resumes
        Whether patients are skipped whose results are complete and up to date.
    folder_names
        Names of the patients' folders to predict; None predicts all.
    writes_table
        Whether ``predictions.csv`` is written; not by processes that share an output folder, because each would remove
        what another one has added.

    Raises
    ------
    ConfigurationError
        If the number of workers is not positive, or workers and scheduler are both given.
    """

    workers: int | None = None
    scheduler: str | None = None
    resumes: bool = False
    folder_names: tuple[str, ...] | None = None
    writes_table: bool = True

    def __post_init__(self) -> None:
        """Check the combination."""
        if self.workers is not None and self.scheduler is not None:
            raise ConfigurationError(message("workers-and-scheduler"))
        if self.workers is not None and self.workers < 1:
            raise ConfigurationError(message("workers-too-few", count=self.workers))

    @property
    def uses_workers(self) -> bool:
        """Whether patients are predicted in other processes."""
        return self.workers is not None or self.scheduler is not None


@dataclass(frozen=True)
class BatchStep:
    """A step of a batch before it starts.

    text: what is done, with the patient's folder if there are several patients; completed: patients predicted so far,
    with the fraction of the current one; total: number of patients, 0 while it is unknown.
    """

    text: str
    completed: float
    total: int


@dataclass(frozen=True)
class BatchReport:
    """Result of a batch, in the order of the patients' folders.

    failures: patients who could not be predicted, with the reason; result_folders: of the others; skipped: how many of
    these an earlier run had finished.
    """

    failures: tuple[FailedPatient, ...]
    result_folders: tuple[Path, ...]
    skipped: int = 0
