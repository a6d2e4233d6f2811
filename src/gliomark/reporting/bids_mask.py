"""The lesion mask of a BIDS subject as a BIDS derivative: ``[ses-1/]anat/<entities>_desc-lesion_mask.nii.gz``.

The mask has the grid of the image that its name and its sidecar's ``Sources`` name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from gliomark.prediction import Prediction
from gliomark.reporting.lesion_statistics import compute_lesion_statistics
from gliomark.reporting.mask_resampling import select_reference_sequence
from gliomark.reporting.nifti_mask import create_nifti_file
from gliomark.reporting.result_writer import Writer

if TYPE_CHECKING:
    from gliomark.reporting.report_input import ReportInput

BIDS_VERSION = "1.10.0"
SOURCE_DATASET_NAME = "raw"  # in DatasetLinks of dataset_description.json
_CODE_URL = "https://github.com/gliomark/gliomark"
_OUTPUTS = ("anat", "anat/*_desc-lesion_mask.nii.gz", "anat/*_desc-lesion_mask.json")


def create_derivative_description(name: str, source: str = "") -> Mapping[str, object]:
    """Create the content of a derivative's ``dataset_description.json``.

    Parameters
    ----------
    name
        Name of the data set.
    source
        URI of the data set from which it was made, to which BIDS URIs such as ``bids:raw:sub-01/...`` refer; empty if
        there is none.
    """
    description = {
        "Name": name,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "gliomark", "Version": version("gliomark"), "CodeURL": _CODE_URL}],
    }
    if not source:
        return description
    return description | {"SourceDatasets": [{"URL": source}], "DatasetLinks": {SOURCE_DATASET_NAME: source}}


def write_bids_mask(report_input: ReportInput, folder: Path) -> None:
    """Write the mask and its sidecar, with the statistics of the lesion."""
    prediction = report_input.prediction
    series = prediction.study.series[select_reference_sequence(prediction)]
    subject = prediction.patient_id
    session = next((part for part in series.source.parts if part.startswith("ses-")), "")
    entities = [part for part in series.source.name.split("_")[:-1] if not part.startswith("desc-")]
    stem = "_".join([*entities, "desc-lesion", "mask"])
    target = folder / session / "anat"
    target.mkdir(parents=True)
    (target / f"{stem}.nii.gz").write_bytes(create_nifti_file(prediction))
    path_in_dataset = "/".join(series.source.parts[series.source.parts.index(subject) :])
    source = f"bids:{SOURCE_DATASET_NAME}:{path_in_dataset}"
    sidecar = {
        "Description": f"Lesion on {select_reference_sequence(prediction)}: {prediction.segmentation.rule}",
        "Type": "Lesion",
        "Sources": [source],
        "SpatialReference": source,
        "LesionStatistics": compute_lesion_statistics(prediction).to_dict(),
    }
    (target / f"{stem}.json").write_text(json.dumps(sidecar, indent=2) + "\n", "utf-8")


def _is_from_bids(prediction: Prediction) -> bool:
    """Whether the images are files of the BIDS subject whose id the patient has."""
    source = prediction.study.series[select_reference_sequence(prediction)].source
    return prediction.patient_id in source.parts and source.name.startswith(f"{prediction.patient_id}_")


WRITER = Writer(
    "bids",
    (*_OUTPUTS, "ses-*", *(f"ses-*/{output}" for output in _OUTPUTS)),
    write_bids_mask,
    applies_to=_is_from_bids,
)
