"""A synthetic hospital: patients as raw DICOM, pictures or NIfTI, with labels, ground truth and known maximum AUC."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from gliomark.errors import ConfigurationError
from gliomark.files import atomic_folder, atomic_write, remove_leftovers
from gliomark.phantom.appearance import (
    LABEL_COLUMNS,
    MARKER_COLUMNS,
    AppearanceSettings,
    AucCeiling,
    TumourAppearance,
    compute_auc_ceiling,
    compute_posterior,
    estimate_auc_ceiling,
)
from gliomark.phantom.dicom_export import DicomExport, create_acquired_slices, write_series
from gliomark.phantom.distractors import create_distractor_series, create_segmentation
from gliomark.phantom.hospital_patient import (
    HospitalPatient,
    HospitalSettings,
    create_hospital_patient,
    decompose_movement,
)
from gliomark.phantom.patient import (
    PhantomSettings,
    create_phantom,
    write_clinical_csv,
    write_nifti,
    write_pictures,
)
from gliomark.study import ClinicalData, MRSequence, Study
from gliomark.tables import format_csv

__all__ = [
    "HospitalPatient",
    "HospitalReport",
    "HospitalSettings",
    "create_hospital_patient",
    "write_patient_dicom",
    "write_hospital",
]

CsvRow = Mapping[str, str | float | int]
OutputFormat = Literal["dicom", "pictures", "nifti"]
Result = TypeVar("Result")


@dataclass(frozen=True)
class HospitalReport:
    """Result of writing a synthetic hospital.

    model_ceilings: best achievable AUC of the model by marker; cohort_ceilings: computed on the patients written.
    Both are empty for people without a lesion, who have no markers.
    """

    folder: Path
    patients: int
    model_ceilings: Mapping[str, AucCeiling]
    cohort_ceilings: Mapping[str, AucCeiling]


@dataclass(frozen=True)
class WrittenPatient:
    """Clinical row, appearance and row of truth.csv of a patient whose images have been written."""

    clinical: ClinicalData
    appearance: TumourAppearance | None
    truth_row: CsvRow


def write_hospital(
    seeds: Sequence[int],
    out: Path,
    settings: HospitalSettings = HospitalSettings(),
    output_format: OutputFormat = "dicom",
    workers: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
    has_lesion: bool = True,
) -> HospitalReport:
    """Write synthetic patients into a new folder.

    The folder contains ``dicom/`` with ``labels.csv``, or aligned sequences in ``pictures/`` or ``nifti/`` with
    ``clinical.csv``. ``truth/truth.csv`` contains the ground truth: id, seed, appearance, exact posteriors, and for
    DICOM the movement of each series since T2 (shift of the head's centre in LPS mm, rotation vector in degrees).
    ``truth/ceiling.csv`` contains the best achievable AUC.

    Parameters
    ----------
    seeds
        One seed per patient.
    out
        A new or empty folder.
    settings
        Imaging and export of the hospital.
    output_format
        ``"dicom"``, ``"pictures"`` or ``"nifti"``.
    workers
        Number of processes.
    progress
        Called with the patient's id, the number of patients done and the number of patients.
    has_lesion
        False for people without a lesion: empty masks, blank markers, no ceiling.csv.

    Raises
    ------
    ConfigurationError
        If ``out`` is not empty, seeds are missing or repeated, or DICOM is requested for people without a lesion,
        whose export would need a segmentation.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigurationError(
            "The synthetic hospital needs at least one patient, each with a different seed."
        )
    if output_format == "dicom" and not has_lesion:
        raise ConfigurationError(
            "The DICOM export always includes a segmentation of the lesion: write people without a lesion as "
            "pictures or nifti."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigurationError(f"{out} already exists and is not empty: choose a new folder.")
    remove_leftovers(out.parent)
    with atomic_folder(out) as part:
        write_one = partial(
            _write_patient, output_format=output_format, settings=settings, folder=part, has_lesion=has_lesion
        )
        written = []
        for done, one in enumerate(map_in_processes(write_one, seeds, workers), 1):
            written.append(one)
            if progress is not None:
                progress(one.clinical.patient_id, done, len(seeds))
        report = create_report(written, out, settings.appearance)
        write_tables(written, report, part, "labels.csv" if output_format == "dicom" else "clinical.csv")
    return report


def map_in_processes(
    write_one: Callable[[int], Result], seeds: Sequence[int], workers: int
) -> Iterator[Result]:
    """Call a function for every seed, in one or several processes; the results have the order of the seeds."""
    if workers <= 1:
        yield from map(write_one, seeds)
        return
    # spawned, not forked: threads of libraries do not survive a fork
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(seeds)), mp_context=context) as pool:
        yield from pool.map(write_one, seeds)


def _write_patient(
    seed: int, output_format: OutputFormat, settings: HospitalSettings, folder: Path, has_lesion: bool
) -> WrittenPatient:
    if output_format == "dicom":
        return _write_dicom_patient(seed, settings, folder / output_format)
    write_study = write_pictures if output_format == "pictures" else write_nifti
    return _write_aligned_patient(seed, write_study, settings, folder / output_format, has_lesion)


def write_patient_dicom(patient: HospitalPatient, folder: Path) -> Path:
    """Write the patient's complete examination below ``folder``, in folders as of an archive; return its folder."""
    export = DicomExport(patient)
    series = [list(create_acquired_slices(export, name)) for name in patient.study.series]
    reference = list(patient.study.series).index(MRSequence.T2)
    extras = create_distractor_series(export) if patient.settings.has_distractors else []
    root = folder / f"{int(export.create_uid('folder')[-9:]):08X}"[-8:]
    for header in [*series, *extras, [create_segmentation(export, series[reference])]]:
        write_series(export, header, root)
    return root


def _write_dicom_patient(seed: int, settings: HospitalSettings, folder: Path) -> WrittenPatient:
    """Write one patient as DICOM."""
    patient = create_hospital_patient(seed, settings)
    write_patient_dicom(patient, folder)
    motion_columns: dict[str, str | float | int] = {}
    for sequence, matrix in patient.motion.items():
        shift, rotation = decompose_movement(matrix)
        for axis, name in enumerate("xyz"):
            motion_columns[f"{sequence}_shift_{name}_mm"] = round(float(shift[axis]), 6)
            motion_columns[f"{sequence}_turn_{name}_deg"] = round(float(rotation[axis]), 6)
    return WrittenPatient(
        patient.clinical,
        patient.appearance,
        create_truth_row(seed, patient.clinical, patient.appearance, settings.appearance) | motion_columns,
    )


def _write_aligned_patient(
    seed: int,
    write_study: Callable[[Study, Path], Path],
    settings: HospitalSettings,
    folder: Path,
    has_lesion: bool,
) -> WrittenPatient:
    """Write one patient whose sequences share a grid, as pictures or volumes."""
    phantom = create_phantom(seed, create_aligned_settings(settings, has_lesion))
    write_study(phantom.study, folder)
    return WrittenPatient(
        phantom.clinical,
        phantom.appearance,
        create_truth_row(seed, phantom.clinical, phantom.appearance, settings.appearance),
    )


def create_aligned_settings(settings: HospitalSettings, has_lesion: bool = True) -> PhantomSettings:
    """Create the settings of patients whose sequences share a grid."""
    return PhantomSettings(
        noise_sigma=settings.noise_sigma,
        sublayers=settings.sublayers,
        appearance_noise_factor=settings.appearance.noise_factor,
        case_mix=settings.appearance.case_mix,
        has_lesion=has_lesion,
    )


def create_truth_row(
    seed: int, clinical: ClinicalData, appearance: TumourAppearance | None, settings: AppearanceSettings
) -> dict[str, str | float | int]:
    """Create a row of truth.csv."""
    if appearance is None:
        return {"id": clinical.patient_id, "seed": seed, "lesion": "none"}
    age, sex = clinical.age or 0.0, clinical.sex or 0
    posteriors = {
        f"posterior_{marker}": round(compute_posterior(appearance, age, sex, marker, settings), 6)
        for marker in MARKER_COLUMNS
    }
    appearance_values = {
        name: int(value) if name == "mismatch" else round(value, 6)
        for name, value in asdict(appearance).items()
    }
    return {"id": clinical.patient_id, "seed": seed, **appearance_values, **posteriors}


def create_report(
    written: Sequence[WrittenPatient], out: Path, settings: AppearanceSettings
) -> HospitalReport:
    """Compute the best achievable AUC of the model and of these patients."""
    patients = [(one.clinical, one.appearance) for one in written if one.appearance is not None]
    markers = MARKER_COLUMNS if patients else ()
    return HospitalReport(
        folder=out,
        patients=len(written),
        model_ceilings={marker: estimate_auc_ceiling(marker, settings) for marker in markers},
        cohort_ceilings={marker: compute_auc_ceiling(patients, marker, settings) for marker in markers},
    )


def write_tables(
    written: Sequence[WrittenPatient], report: HospitalReport, folder: Path, labels_name: str
) -> None:
    """Write the clinical table ``labels_name``, and the ground truth in ``truth/``."""
    write_clinical_csv([one.clinical for one in written], folder / labels_name, LABEL_COLUMNS)
    truth = folder / "truth"
    truth.mkdir(exist_ok=True)
    _write_csv([one.truth_row for one in written], truth / "truth.csv")
    rows: list[CsvRow] = [
        {"counted_on": counted, **{field.name: getattr(best, field.name) for field in fields(best)}}
        for counted, group in (("model", report.model_ceilings), ("these patients", report.cohort_ceilings))
        for best in group.values()
    ]
    if rows:
        _write_csv(rows, truth / "ceiling.csv")


def _write_csv(rows: Sequence[CsvRow], path: Path) -> None:
    atomic_write(path, format_csv([list(rows[0]), *(list(row.values()) for row in rows)]))
