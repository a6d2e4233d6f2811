"""What a user would pick instead of a network: radiomics of the outlined lesion, by MIRP (IBSI-compliant).

Per sequence: first-order statistics, the intensity histogram, shape, and the textures (co-occurrence, run length, zone
sizes, neighbourhood differences), slice by slice because slices are thicker than pixels, grey values in 32 equal bins.
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

import nibabel
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gliomark.cohort.store import Cohort, write_json
from gliomark.cohort.workers import cluster, each
from gliomark.files import scratch_folder
from gliomark.study import GliomarkError
from gliomark.training.recipes import cohort_sequences

FAMILIES = ["statistics", "intensity_histogram", "morphology", "glcm", "glrlm", "glszm", "ngtdm"]
BINS = 32


def cohort_features(
    folder: Path, work: Path, workers: int | None, say: Callable[[str], None]
) -> dict[str, NDArray[np.float64]]:
    """Features ``(F,)`` of every patient with a drawn lesion and all sequences; computed once, a file each.

    Raises GliomarkError where MIRP is not installed or nobody has an outline.
    """
    cohort = Cohort(folder)
    sequences = cohort_sequences(cohort)
    patients = [
        p for p in cohort.patient_ids if cohort.has_mask(p) and set(sequences) <= set(cohort.sequences(p))
    ]
    if not patients:
        raise GliomarkError(f"{folder} has no outlined patient with {' and '.join(sequences)}.")
    arrays = cohort.arrays_digest(patients)
    said = json.dumps([FAMILIES, BINS, version("mirp"), *sequences, *patients, arrays]).encode()
    kept = work / f"radiomics_{hashlib.sha256(said).hexdigest()[:12]}"
    kept.mkdir(parents=True, exist_ok=True)
    missing = [p for p in patients if not (kept / f"{p}.json").exists()]
    if missing:
        say(f"radiomics of {len(patients)} patients, {len(patients) - len(missing)} finished before")
        with cluster(workers, None) as client:
            for (_, patient), row in each(client, _patient_job, [(folder, p) for p in missing]):
                if isinstance(row, GliomarkError):
                    raise row
                write_json(kept / f"{patient}.json", row)
    rows = {p: json.loads((kept / f"{p}.json").read_text("utf-8")) for p in patients}
    table = pd.DataFrame.from_dict({p: row for p, row in rows.items() if row}, orient="index")
    return {str(patient): row.to_numpy(float) for patient, row in table.iterrows()}


def _patient_job(job: tuple[Path, str]) -> dict[str, float]:
    cohort = Cohort(job[0])
    stack = cohort.stack(job[1])
    if not stack.drawn.any():
        return {}
    row: dict[str, float] = {}
    for name in cohort_sequences(cohort):
        row |= {
            f"{name}_{k}": v
            for k, v in lesion_features(stack.images[name], stack.drawn, stack.spacing_mm).items()
        }
    return row


def lesion_features(
    image: NDArray[np.float32], lesion: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> dict[str, float]:
    """Feature to value; image and lesion ``(slice, row, column)``, spacing_mm in that order.

    Raises GliomarkError where MIRP is not installed.
    """
    try:
        from mirp import extract_features
    except ModuleNotFoundError as error:
        raise GliomarkError("Radiomics need MIRP; type: pip install 'gliomark[radiomics]'") from error
    logging.disable(logging.WARNING)
    with scratch_folder() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files = [folder / name for name in ("image.nii.gz", "mask.nii.gz")]
        affine = np.diag([*list(spacing_mm)[::-1], 1.0])
        volumes: list[NDArray] = [image.astype(np.float32), lesion.astype(np.uint8)]
        for file, volume in zip(files, volumes, strict=True):
            nibabel.save(nibabel.Nifti1Image(volume.T, affine), file)
        with contextlib.redirect_stdout(None):
            (table,) = extract_features(
                image=str(files[0]),
                mask=str(files[1]),
                by_slice=True,
                base_feature_families=FAMILIES,
                base_discretisation_method="fixed_bin_number",
                base_discretisation_n_bins=BINS,
                write_features=False,
                export_features=True,
                num_cpus=1,
            )
    logging.disable(logging.NOTSET)
    numbers = table.select_dtypes("number").iloc[0]
    # what MIRP says of its own reading of the file is no feature
    return {str(n): float(value) for n, value in numbers.items() if not str(n).startswith("image_")}
