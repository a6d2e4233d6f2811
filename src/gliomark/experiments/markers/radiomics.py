"""Comparison method: radiomics features of the segmented lesion, extracted with MIRP (IBSI-compliant).

Per sequence: first-order statistics, intensity histogram, shape, and texture (grey-level co-occurrence, run length and
size zone matrices, neighbourhood grey tone difference), computed slice by slice because the slice thickness exceeds
the pixel spacing, with grey values discretised into 32 bins of equal width.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gliomark.cohort.store import Cohort, write_json
from gliomark.errors import CohortError, ConfigurationError
from gliomark.files import scratch_folder
from gliomark.training.job_runner import run_jobs
from gliomark.training.recipes import get_cohort_sequences

FEATURE_FAMILIES = ["statistics", "intensity_histogram", "morphology", "glcm", "glrlm", "glszm", "ngtdm"]
BIN_COUNT = 32


def compute_cohort_features(
    cohort_folder: Path, work_folder: Path, workers: int | None, notify: Callable[[str], None]
) -> dict[str, NDArray[np.float64]]:
    """Compute the features ``(F,)`` of every patient with a lesion mask and all sequences.

    They are kept in one file per patient below ``work_folder`` and computed once.

    Raises
    ------
    ConfigurationError
        If MIRP is not installed.
    CohortError
        If no patient has a mask and all sequences.
    """
    cohort = Cohort(cohort_folder)
    sequences = get_cohort_sequences(cohort)
    patients = [
        p for p in cohort.patient_ids if cohort.has_mask(p) and set(sequences) <= set(cohort.get_sequences(p))
    ]
    if not patients:
        raise CohortError(f"{cohort_folder} has no patient with a lesion mask and {' and '.join(sequences)}.")
    arrays = cohort.hash_arrays(patients)
    cache_key = json.dumps(
        [FEATURE_FAMILIES, BIN_COUNT, version("mirp"), *sequences, *patients, arrays]
    ).encode()
    cache_folder = work_folder / f"radiomics_{hashlib.sha256(cache_key).hexdigest()[:12]}"
    cache_folder.mkdir(parents=True, exist_ok=True)
    missing = [p for p in patients if not (cache_folder / f"{p}.json").exists()]
    if missing:
        notify(f"radiomics of {len(patients)} patients, {len(patients) - len(missing)} already computed")
        run_jobs(
            [(cohort_folder, p) for p in missing],
            _compute_patient_features,
            lambda job, row: write_json(cache_folder / f"{job[1]}.json", row),
            workers,
        )
    rows = {p: json.loads((cache_folder / f"{p}.json").read_text("utf-8")) for p in patients}
    table = pd.DataFrame.from_dict({p: row for p, row in rows.items() if row}, orient="index")
    return {str(patient): row.to_numpy(float) for patient, row in table.iterrows()}


def _compute_patient_features(job: tuple[Path, str]) -> dict[str, float]:
    cohort = Cohort(job[0])
    stack = cohort.read_stack(job[1])
    if not stack.reader_mask.any():
        return {}
    row: dict[str, float] = {}
    for name in get_cohort_sequences(cohort):
        row |= {
            f"{name}_{k}": v
            for k, v in compute_lesion_features(
                stack.images[name], stack.reader_mask, stack.spacing_mm
            ).items()
        }
    return row


def compute_lesion_features(
    image: NDArray[np.float32], mask: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> dict[str, float]:
    """Compute the features of a lesion by name.

    image, mask: ``(slice, row, column)``; spacing_mm in the same order.

    Raises
    ------
    ConfigurationError
        If MIRP is not installed.
    """
    try:
        from mirp import extract_features
    except ModuleNotFoundError as error:
        raise ConfigurationError("Radiomics needs MIRP; run: pip install 'gliomark[radiomics]'") from error
    logging.disable(logging.WARNING)
    with scratch_folder() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files = [folder / name for name in ("image.nii.gz", "mask.nii.gz")]
        affine = np.diag([*list(spacing_mm)[::-1], 1.0])
        volumes: list[NDArray[Any]] = [image.astype(np.float32), mask.astype(np.uint8)]
        for file, volume in zip(files, volumes, strict=True):
            nibabel.save(nibabel.Nifti1Image(volume.T, affine), file)
        with contextlib.redirect_stdout(None):
            (table,) = extract_features(
                image=str(files[0]),
                mask=str(files[1]),
                by_slice=True,
                base_feature_families=FEATURE_FAMILIES,
                base_discretisation_method="fixed_bin_number",
                base_discretisation_n_bins=BIN_COUNT,
                write_features=False,
                export_features=True,
                num_cpus=1,
            )
    logging.disable(logging.NOTSET)
    numbers = table.select_dtypes("number").iloc[0]
    # columns "image_*" describe the file, not the lesion
    return {str(n): float(value) for n, value in numbers.items() if not str(n).startswith("image_")}
