"""The two levels of a BIDS App: participants are predicted into a derivative, and their results become one table.

Layout of the output folder::

    dataset_description.json                      names gliomark, its version and the input
    sub-01/[ses-1/]anat/*_desc-lesion_mask.nii.gz
    sub-01/prediction.json, report.html           not part of BIDS, listed in .bidsignore
    phenotype/gliomark.tsv                        one row per participant, from the level "group"

Processes that predict different participants may share an output folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gliomark.batch.folder import predict_folder
from gliomark.batch.options import BatchReport, BatchStep, PredictionOptions, RunOptions
from gliomark.errors import InputError
from gliomark.files import atomic_write
from gliomark.io import list_bids_subjects
from gliomark.isolation import ReadExecutor
from gliomark.messages import message
from gliomark.reporting import create_derivative_description, create_table_row
from gliomark.tables import format_csv

BIDS_FORMATS = ("json", "html", "bids")
PHENOTYPE_NAME = "gliomark"
_DESCRIPTION_NAME = "dataset_description.json"
_IGNORED_FILES = ("sub-*/prediction.json", "sub-*/report.html", "sub-*/report.pdf")
_COLUMN_DESCRIPTIONS = {
    "probability": "Probability of the positive class; n/a if none may be given",
    "level": "Predicted level; 'cannot tell' if either is possible",
    "borderline": "Whether the probability is too close to the threshold for a definite level",
    "raw_probability": "The probability before calibration",
    "possible_levels": "Levels that the model does not exclude, if it is calibrated",
    "coverage": "Share of the patients of either class whose true level is among the possible ones",
    "prevalence": "Share of positive patients for which the probability holds",
    "fusion": "How the probabilities of slices were combined",
    "decided_by": "Whether the model or a reader's finding decided",
    "lesion_volume_ml": "Volume of the lesion in ml",
    "lesion_longest_mm": "Longest diameter of the lesion's largest part on an axial slice in mm",
    "lesion_perpendicular_mm": "Longest diameter perpendicular to it on the same slice in mm",
    "lesion_longest_3d_mm": "Longest diameter of the lesion's largest part in any direction in mm",
    "warnings": "Limits of the result",
    "model": "Name of the weights",
    "sha256": "SHA-256 of the weights",
    "examination": "The examination that was read, among all of the participant",
}
_README = """\
Lesion masks and marker predictions by gliomark, a BIDS derivative.

desc-lesion_mask is the lesion on the grid of the image that its sidecar names under Sources. prediction.json and
report.html in a participant's folder are described at
https://gliomark.github.io/gliomark/reference/result-files/. For research only; not a medical device.
"""


@dataclass(frozen=True)
class BIDSDataset:
    """A BIDS data set and the participants of it that are used.

    root: the folder with ``dataset_description.json``; subjects: folders ``sub-*`` with images.
    """

    root: Path
    subjects: tuple[Path, ...]


def open_bids_dataset(root: Path, participant_labels: Collection[str] = ()) -> BIDSDataset:
    """Find the participants of a BIDS data set.

    Parameters
    ----------
    root
        The folder with ``dataset_description.json``.
    participant_labels
        With or without ``sub-``; all participants if there is none.

    Raises
    ------
    InputError
        If the folder is no BIDS data set, or a participant or all of them have no images of a sequence.
    """
    if not (root / _DESCRIPTION_NAME).is_file():
        raise InputError(message("bids-no-description", folder=root))
    subjects = {folder.name: folder for folder in list_bids_subjects(root)}
    if not subjects:
        raise InputError(message("bids-no-subjects", folder=root))
    names = [f"sub-{label.removeprefix('sub-')}" for label in participant_labels] or list(subjects)
    if missing := [name for name in names if name not in subjects]:
        known = ", ".join(name.removeprefix("sub-") for name in subjects)
        raise InputError(message("bids-no-participant", folder=root, names=", ".join(missing), known=known))
    return BIDSDataset(root, tuple(subjects[name] for name in dict.fromkeys(names)))


def predict_participants(
    dataset: BIDSDataset,
    output_folder: Path,
    options: PredictionOptions,
    run_options: RunOptions = RunOptions(),
    *,
    reader_pool: ReadExecutor | None = None,
    report_step: Callable[[BatchStep], None] = lambda _: None,
) -> BatchReport:
    """Predict participants and write a BIDS derivative; age and sex are those of ``participants.tsv``.

    Parameters
    ----------
    dataset
        The participants.
    output_folder
        The derivative; results of other participants in it are kept.
    options, run_options
        As for ``predict_folder``; the outputs and the folders are those of this data set.
    reader_pool
        Where images are read in this process; a new reader process by default.
    report_step
        Called before each step.

    Raises
    ------
    InputError
        If the output folder belongs to another data set, ``participants.tsv`` is missing although age and sex are
        required, or is not readable.
    ConfigurationError, WeightsError, FileWriteError
        As ``predict_folder``.
    """
    _check_output_folder(output_folder, dataset.root)
    table = dataset.root / "participants.tsv"
    if not table.is_file() and not options.allows_missing_clinical:
        raise InputError(message("bids-no-participants-table", folder=dataset.root))
    _write_dataset_files(output_folder, dataset.root)
    return predict_folder(
        dataset.subjects[0].parent,
        table if table.is_file() else None,
        output_folder,
        replace(options, usual_formats=BIDS_FORMATS),
        replace(run_options, folder_names=tuple(one.name for one in dataset.subjects), writes_table=False),
        reader_pool=reader_pool,
        report_step=report_step,
    )


def collect_participants(dataset: BIDSDataset, output_folder: Path) -> Path:
    """Write the predictions of the participants to ``phenotype/gliomark.tsv`` and return its path.

    Raises
    ------
    InputError
        If no participant was predicted into this folder, or it belongs to another data set.
    FileWriteError
        If it cannot be written.
    """
    _check_output_folder(output_folder, dataset.root)
    files = [output_folder / subject.name / "prediction.json" for subject in dataset.subjects]
    documents = [json.loads(file.read_text("utf-8")) for file in files if file.is_file()]
    if not documents:
        raise InputError(message("bids-no-results", folder=output_folder))
    rows = [{"participant_id": row["id"], **row} for row in map(create_table_row, documents)]
    columns = [name for name in dict.fromkeys(name for row in rows for name in row) if name != "id"]
    table = output_folder / "phenotype" / f"{PHENOTYPE_NAME}.tsv"
    cells = [[_format_cell(row.get(name)) for name in columns] for row in rows]
    atomic_write(table, format_csv([columns, *cells], "\t"))
    sidecar = _describe_columns(columns[1:], documents)
    atomic_write(table.with_suffix(".json"), json.dumps(sidecar, indent=2, ensure_ascii=False) + "\n")
    return table


def _check_output_folder(output_folder: Path, input_folder: Path) -> None:
    """Check that the output folder is neither the input nor a data set of another program."""
    description = output_folder / _DESCRIPTION_NAME
    if not description.exists():
        return
    try:
        programs = json.loads(description.read_text("utf-8"))["GeneratedBy"]
        is_ours = any(program["Name"] == "gliomark" for program in programs)
    except (OSError, ValueError, TypeError, LookupError):
        is_ours = False
    if not is_ours or output_folder.resolve() == input_folder.resolve():
        raise InputError(message("bids-out-foreign", folder=output_folder, input=input_folder))


def _write_dataset_files(output_folder: Path, input_folder: Path) -> None:
    """Write what describes the derivative; every process writes the same."""
    source = input_folder.resolve().as_uri()
    description = create_derivative_description("gliomark: lesion masks and marker predictions", source)
    atomic_write(output_folder / _DESCRIPTION_NAME, json.dumps(description, indent=2) + "\n")
    atomic_write(output_folder / "README", _README)
    atomic_write(output_folder / ".bidsignore", "".join(f"{name}\n" for name in _IGNORED_FILES))


def _format_cell(value: object) -> object:
    return "n/a" if value is None or value == "" else value


def _describe_columns(
    columns: Sequence[str], documents: Sequence[Mapping[str, Any]]
) -> Mapping[str, Mapping[str, str]]:
    """Describe the columns of the table, those of a marker with what its positive class means."""
    labels = {marker["marker"]: marker["label"] for document in documents for marker in document["markers"]}
    tool = {"Description": "gliomark: lesion and markers of glioma from preoperative MRI; research only"}
    described: dict[str, Mapping[str, str]] = {"MeasurementToolMetadata": tool}
    for name in columns:
        marker = max((one for one in labels if name.startswith(f"{one}_")), key=len, default="")
        text = _COLUMN_DESCRIPTIONS[name.removeprefix(f"{marker}_") if marker else name]
        described[name] = {"Description": f"{text} ({labels[marker]})" if marker else text}
    return described
