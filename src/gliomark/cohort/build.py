"""Build a prepared, quality-checked cohort from a hospital's export and a clinical table.

Scan the files, select the series, prepare every patient on the workers, then write the files that concern all
patients. An interrupted build is resumed: a patient is prepared again only if source, settings or arrays changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import SimpleITK as sitk
from distributed import Client

from gliomark.cluster import create_dask_client, get_reader_pool, run_on_cluster
from gliomark.cohort.folds import (
    MIN_COHORT_SIZE,
    create_folds_of_parts,
    has_outdated_folds,
    load_cohort_folds,
    write_folds,
)
from gliomark.cohort.labels import LabelSettings, LabelTable, compute_age, read_labels, write_clinical_table
from gliomark.cohort.private_files import (
    assign_new_ids,
    create_private_folder,
    read_original_ids,
    write_private_csv,
)
from gliomark.cohort.quality import measure_quality
from gliomark.cohort.scan import DicomPatient, ScanResult, scan_folder
from gliomark.cohort.store import (
    SCHEMA_VERSION,
    Cohort,
    ProgressCallback,
    find_patient_record,
    is_finished,
    read_json,
    remove_patient,
    write_json,
    write_patient,
)
from gliomark.errors import DATA_ERRORS, CohortError, ConfigurationError, GliomarkError
from gliomark.files import FileWriteError, atomic_write, check_writable, is_disk_full_error, remove_leftovers
from gliomark.io import (
    DatasetSplits,
    derive_patient_id,
    find_non_dicom_patients,
    list_patient_files,
    read_splits,
    read_study,
)
from gliomark.io.dicom import DicomSeries, read_series
from gliomark.io.masks import SeriesGrid, compute_rater_agreement, read_masks_on_grids, unite_masks
from gliomark.preprocessing import PreparationConfig, prepare
from gliomark.preprocessing.preparation import SKULL_STRIPPING_ORDER
from gliomark.study import MRSequence, Series, SliceStack, Study
from gliomark.tables import list_id_spellings

RECORDED_PACKAGES = ("gliomark", "SimpleITK", "openvino", "numpy", "pydicom", "h5py")
PRIVACY_STATEMENT = {
    "ids": "replaced; the key lies outside the cohort",
    "dates": "removed; only ages are kept",
    "face": "removed: only the brain is kept",
    "burnt-in text": "not searched for: everything outside the brain is removed",
}


@dataclass(frozen=True)
class BuildSettings:
    """Settings of a build, stored in ``cohort.json``.

    sequences: the reference last. keep_ids: do not replace the patients' ids. without_masks: also keep patients
    without a lesion mask.
    """

    sequences: tuple[MRSequence, ...] = (MRSequence.T1C, MRSequence.T2)
    preparation: PreparationConfig = field(default_factory=PreparationConfig)
    labels: LabelSettings = field(default_factory=LabelSettings)
    keep_ids: bool = False
    without_masks: bool = False


@dataclass(frozen=True)
class CohortSources:
    """Paths of a build's sources.

    root: the export. labels_path: the clinical table. masks_folder: holds a folder ``<original id>/`` of mask
    files for each patient. series_table: an edited ``series.csv``.
    """

    root: Path
    labels_path: Path
    masks_folder: Path | None = None
    series_table: Path | None = None


@dataclass(frozen=True, eq=False)
class PreparationJob:
    """Preparation of one patient, as sent to a worker; the images are a folder or DICOM series.

    birth_date: YYYYMMDD from the table, for the age at the examination; blank if the table has none.
    """

    patient_id: str
    original_id: str
    cohort_folder: Path
    settings: BuildSettings
    folder: Path | None = None
    dicom: DicomPatient | None = None
    masks_folder: Path | None = None
    birth_date: str = ""


@dataclass(frozen=True)
class PreparationResult:
    """Result for one patient: prepared now, reused from an earlier build, or the reason why it was left out."""

    is_newly_prepared: bool = False
    left_out_reason: str = ""


@dataclass(frozen=True)
class BuildReport:
    """Result of a build. left_out: reason by original id. notes: messages for the user."""

    cohort: Cohort
    prepared: int
    reused: int
    left_out: Mapping[str, str]
    quarantined: int
    notes: tuple[str, ...]


def build_cohort(
    sources: CohortSources,
    out: Path,
    settings: BuildSettings = BuildSettings(),
    workers: int | None = None,
    scheduler: str | None = None,
    progress: ProgressCallback = lambda patient_id, done, of: None,
) -> BuildReport:
    """Build the cohort ``out`` from everything below ``sources.root``, or resume an interrupted build.

    An error that concerns one patient is in the report and does not stop the build.

    Parameters
    ----------
    sources
        Paths of the export, the clinical table, the masks and an edited table of series.
    out
        Folder of the cohort; files that identify patients go to ``<out>.private`` beside it.
    settings
        Sequences, preparation and label settings.
    workers
        Number of worker processes; 0 for none, None for one per processor core (at most 8).
    scheduler
        Address of an existing dask scheduler.
    progress
        Called with the id of the patient just finished, the number finished and the number of patients.

    Returns
    -------
    BuildReport
        The cohort, and the reason for each patient who was left out.

    Raises
    ------
    ConfigurationError
        If a folder does not exist, ``out`` lies inside the export, or it was built with other settings.
    InputError
        If the clinical table cannot be read.
    CohortError
        If no patient was found or could be prepared.
    """
    _check_paths(sources, out, settings)
    labels, splits = read_labels(sources.labels_path, settings.labels), read_splits(sources.root)
    private_folder = create_private_folder(out)
    for folder in (out, private_folder):
        remove_leftovers(folder, recursive=True)
    check_writable(out)
    with create_dask_client(workers, scheduler) as client:
        folders = find_non_dicom_patients(sources.root)  # not DICOM, which is scanned file by file below
        scan_result = scan_folder(
            sources.root, private_folder, client, sources.series_table, folders, settings.sequences
        )
        jobs, left_out = _create_preparation_jobs(
            folders, scan_result, labels, sources, out, settings, private_folder
        )
        write_json(out / "cohort.json", {**serialise_settings(settings), "finished": False})
        outcomes = _prepare_patients(client, jobs, progress)
    left_out |= {
        p.original_id: outcomes[p.patient_id].left_out_reason
        for p in jobs
        if outcomes[p.patient_id].left_out_reason
    }
    rows = [{"original_id": name, "reason": reason} for name, reason in sorted(left_out.items())]
    write_private_csv(private_folder / "left_out.csv", ["original_id", "reason"], rows)
    _write_cohort_files(out, private_folder, labels, settings, left_out)
    notes = update_folds_of_source(Cohort(out), private_folder, splits)
    fresh = sum(outcome.is_newly_prepared for outcome in outcomes.values())
    kept = sum(not outcome.is_newly_prepared and not outcome.left_out_reason for outcome in outcomes.values())
    return BuildReport(
        Cohort(out), fresh, kept, left_out, len(scan_result.quarantined), (*labels.notes, *notes)
    )


def _check_paths(sources: CohortSources, out: Path, settings: BuildSettings) -> None:
    """Raise ConfigurationError for missing sources, an output folder inside them, or other settings than before."""
    for folder in filter(None, (sources.root, sources.masks_folder)):
        if not folder.is_dir():
            raise ConfigurationError(
                f"{folder} is not a folder: give a folder that contains one folder per patient, or DICOM files."
            )
    if out.absolute().is_relative_to(sources.root.absolute()):
        raise ConfigurationError(
            f"{out} lies inside {sources.root}, the folder of the sources: choose another --out."
        )
    check_same_settings(out, serialise_settings(settings))


def check_same_settings(out: Path, settings: Mapping[str, Any]) -> None:
    """Check that the cohort in ``out``, if there is one, was built with the same settings.

    settings: as stored in ``cohort.json``.

    Raises
    ------
    ConfigurationError
        If it was built with other ones.
    """
    metadata_path = out / "cohort.json"
    previous_metadata = read_json(metadata_path, lambda record: True) if metadata_path.exists() else {}
    if previous_metadata and any(previous_metadata.get(name) != value for name, value in settings.items()):
        raise ConfigurationError(
            f"{out} was built with other settings: build into another folder, or remove this one."
        )


def serialise_settings(settings: BuildSettings) -> dict[str, Any]:
    """Convert the settings to JSON types, as stored in ``cohort.json``."""
    settings_json = asdict(settings)
    settings_json["settings"] = settings_json.pop("preparation")
    return {"schema_version": SCHEMA_VERSION, **json.loads(json.dumps(settings_json))}


def collect_software_versions() -> dict[str, str]:
    """Return the versions of all packages that affect the prepared arrays."""
    return {package: version(package) for package in RECORDED_PACKAGES}


# ---- patients ---------------------------------------------------------------------------------------


def _create_preparation_jobs(
    folders: Sequence[Path],
    scan_result: ScanResult,
    labels: LabelTable,
    sources: CohortSources,
    out: Path,
    settings: BuildSettings,
    private_folder: Path,
) -> tuple[list[PreparationJob], dict[str, str]]:
    """Return the preparation jobs, sorted by new id, and the reason by original id of patients left out."""
    by_id: dict[str, Path | DicomPatient] = {
        _find_table_id(labels, derive_patient_id(folder)): folder for folder in folders
    }
    left_out: dict[str, str] = {}
    for patient in scan_result.patients:
        if patient.patient_id in by_id:
            left_out[patient.patient_id] = (
                "A folder of pictures or volumes and DICOM files have this id: keep one of them."
            )
        by_id[patient.patient_id] = patient
    if not by_id:
        raise CohortError(
            f"No patient was found below {sources.root}: {private_folder / 'series.csv'} lists how each series was "
            f"classified, {private_folder / 'quarantine.csv'} what was excluded."
        )
    left_out |= labels.find_shared_rows(by_id)
    left_out |= {name: reason for name in by_id if (reason := _explain_missing_row(labels, name))}
    sources_by_id = {name: source for name, source in by_id.items() if name not in left_out}
    ids = assign_new_ids(private_folder, sources_by_id, settings.keep_ids)
    patients = []
    for name, source in sources_by_id.items():
        masks = None if sources.masks_folder is None else sources.masks_folder / name
        source_argument = {"folder": source} if isinstance(source, Path) else {"dicom": source}
        own_masks_folder = masks if masks is not None and masks.is_dir() else None
        patients.append(
            PreparationJob(
                ids[name],
                name,
                out,
                settings,
                masks_folder=own_masks_folder,
                birth_date=labels.get_birth_date(name),
                **source_argument,
            )
        )
    return sorted(patients, key=lambda patient: patient.patient_id), left_out


def _find_table_id(labels: LabelTable, patient_id: str) -> str:
    """Return the id as spelled in the table, which may list a BIDS subject without ``sub-``."""
    return next(
        (name for name in list_id_spellings(patient_id) if not _explain_missing_row(labels, name)), patient_id
    )


def _explain_missing_row(labels: LabelTable, original_id: str) -> str:
    """Return why the table has no unambiguous row of a patient; blank if it has one."""
    try:
        return "" if labels.find_row(original_id) else labels.explain_missing_row(original_id)
    except GliomarkError as error:
        return str(error)


# ---- one patient, on a worker -----------------------------------------------------------------------


def _prepare_patients(
    client: Client, jobs: Sequence[PreparationJob], progress: ProgressCallback
) -> dict[str, PreparationResult]:
    outcomes: dict[str, PreparationResult] = {}
    for patient, result in run_on_cluster(client, prepare_patient, jobs):
        outcomes[patient.patient_id] = (
            PreparationResult(left_out_reason=str(result)) if isinstance(result, GliomarkError) else result
        )
        progress(patient.patient_id, len(outcomes), len(jobs))
    return outcomes


def prepare_patient(job: PreparationJob) -> PreparationResult:
    """Prepare and write one patient, unless it was already prepared from the identical source.

    Errors that concern only this patient are returned as the reason of the result.

    Raises
    ------
    FileWriteError
        If a file cannot be written.
    """
    # one thread, so that sums are computed in the same order on every machine: same source, same bytes
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        source_hash = hash_source(job)
        if is_finished(job.cohort_folder, job.patient_id, source_hash):
            return PreparationResult()
        _prepare_and_write(job, source_hash)
        return PreparationResult(is_newly_prepared=True)
    except FileWriteError:
        raise  # a full disk affects all patients, so the build stops
    except GliomarkError as error:
        return PreparationResult(left_out_reason=str(error))
    except DATA_ERRORS as error:
        if is_disk_full_error(error):
            raise
        reason = " ".join(str(error).split())[-200:]
        return PreparationResult(
            left_out_reason=f"It could not be prepared ({type(error).__name__}: {reason})."
        )


def hash_source(job: PreparationJob) -> str:
    """Return the SHA-256 of all files that the preparation reads, the settings and the software versions."""
    digest = hashlib.sha256(
        json.dumps([serialise_settings(job.settings), collect_software_versions()]).encode()
    )
    for file in _list_source_files(job):
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def _list_source_files(job: PreparationJob) -> list[Path]:
    files = set() if job.dicom is None else set(job.dicom.mask_files)
    if job.dicom is not None:
        files |= {instance.file for one in _select_needed_series(job).values() for instance in one.instances}
    for folder in (job.folder, job.masks_folder):
        files |= set() if folder is None else set(list_patient_files(folder))
    return sorted(files)


def _select_needed_series(job: PreparationJob) -> dict[MRSequence, DicomSeries]:
    """Select the DICOM series to read: the requested sequences and the one used for skull stripping."""
    used = job.dicom.series_by_sequence if job.dicom else {}
    strip_on = next((name for name in SKULL_STRIPPING_ORDER if name in used), None)
    return {name: one for name, one in used.items() if name in (*job.settings.sequences, strip_on)}


def _prepare_and_write(job: PreparationJob, source_sha256: str) -> None:
    study, series = _read_study(job)
    settings = job.settings
    available = [name for name in settings.sequences[:-1] if name in study.series]
    stack = prepare(study, [*available, settings.sequences[-1]], settings.preparation)
    stack, rater_agreement = _add_masks(stack, study, job)
    if stack.lesion is None and not settings.without_masks:
        raise CohortError(
            f"{study.source}: no lesion mask found; give one with --masks, or build with --allow-missing-masks."
        )
    write_patient(
        job.cohort_folder,
        replace(stack, patient_id=job.patient_id, notes=_replace_original_id(stack.notes, job)),
        quality=measure_quality(study, stack),
        series=series,
        agreement=rater_agreement,
        person=_compute_age_and_sex(job),
        source_sha256=source_sha256,
    )


def _read_study(job: PreparationJob) -> tuple[Study, dict[str, dict[str, Any]]]:
    """Read the images, and per sequence its acquisition parameters (none of them identifying)."""
    if job.dicom is None:
        folder = cast(Path, job.folder)
        study = get_reader_pool()(folder, read_study, folder, required_sequences=job.settings.sequences)
        return study, {str(name): describe_grid(series) for name, series in study.series.items()}
    series, notes = {}, list(job.dicom.notes)
    needed_series = _select_needed_series(job)
    for name, one in needed_series.items():
        series[name], reading_notes = get_reader_pool()(one.first_instance.file.parent, read_series, one)
        notes += reading_notes
    source_folder = next(iter(series.values())).source if series else Path()
    study = Study(job.original_id, series, source_folder, "volumes", notes=tuple(notes))
    return study, {str(name): dict(one.acquisition_parameters) for name, one in needed_series.items()}


def _compute_age_and_sex(job: PreparationJob) -> dict[str, str]:
    """Compute age (years) and sex from the DICOM header, for tables without them; no date is kept."""
    if job.dicom is None:
        return {}
    one = next(iter(job.dicom.series_by_sequence.values()))
    birth_date = job.birth_date or one.birth_date
    age = f"{compute_age(birth_date, one.study_date):g}" if birth_date and one.study_date else ""
    return {"age": age, "sex": {"M": "0", "F": "1"}.get(one.sex.upper(), "")}


def describe_grid(series: Series) -> dict[str, Any]:
    """Describe the grid, the only known parameter of pictures and volumes."""
    column_mm, row_mm, slice_mm = np.linalg.norm(series.affine[:3, :3], axis=0).tolist()
    slices, rows, columns = series.image.shape
    return {"spacing_mm": [row_mm, column_mm, slice_mm], "matrix": [rows, columns], "slices": slices}


def _replace_original_id(notes: Sequence[str], job: PreparationJob) -> tuple[str, ...]:
    """Replace the original id in notes; a note may quote a file name that contains it."""
    own, new = job.original_id, job.patient_id
    return tuple(note.replace(own, new) if own in note else note for note in notes)


# ---- lesion masks -----------------------------------------------------------------------------------


def _add_masks(
    stack: SliceStack, study: Study, job: PreparationJob
) -> tuple[SliceStack, dict[str, dict[str, Any]]]:
    """Add the union of all masks (method.md, section 2, step 6); return also the agreement of rater pairs."""
    files = job.dicom.mask_files if job.dicom else ()
    if job.masks_folder is None and not files:
        return stack, {}
    uids = {one.first_instance.series_instance_uid: name for name, one in _select_needed_series(job).items()}
    grids = {name: SeriesGrid.from_series(one) for name, one in study.series.items()}
    masks = get_reader_pool()(
        job.masks_folder or study.source, read_masks_on_grids, job.masks_folder, grids, files, uids
    )
    grid = Series(np.zeros(stack.brain.shape, np.float32), stack.affine, stack.slice_names, study.source)
    lesion = unite_masks(masks, grid, stack.to_stack).image > 0
    if stack.lesion is not None:
        lesion |= stack.lesion
    rater_agreement = compute_rater_agreement(masks, grid, stack.to_stack, stack.brain)
    mask_notes = dict.fromkeys(note for mask in masks for note in mask.notes)
    stack = replace(stack, lesion=lesion, notes=(*stack.notes, *mask_notes))
    return stack, {pair: asdict(value) for pair, value in rater_agreement.items()}


# ---- files of the whole cohort ----------------------------------------------------------------------


def _write_cohort_files(
    out: Path, private_folder: Path, labels: LabelTable, settings: BuildSettings, left_out: Mapping[str, str]
) -> None:
    """Write table and hashes of all prepared patients, also of earlier builds."""
    rows, hashes = {}, {}
    for patient, original in sorted(read_original_ids(private_folder).items()):
        if original in left_out or _explain_missing_row(labels, original):
            remove_patient(out, patient)
        elif record := find_patient_record(out, patient):
            known = {name: cell for name, cell in (labels.find_row(original) or {}).items() if cell}
            rows[patient] = {"id": patient, **record["person"], **known}
            hashes[patient] = record["arrays_sha256"]
    if not rows:
        (out / "cohort.json").unlink()
        raise CohortError(
            f"No patient could be prepared; {private_folder / 'left_out.csv'} lists the reasons."
        )
    write_clinical_table(out / "MetaMS.csv", rows.values())
    metadata = {
        **serialise_settings(settings),
        "cohort_id": _get_cohort_id(private_folder, hashes),
        "finished": True,
        "privacy": {**PRIVACY_STATEMENT, **({"ids": "kept unchanged"} if settings.keep_ids else {})},
        "left_out": len(left_out),
        "arrays_sha256": hashes,
        "software": collect_software_versions(),
    }
    write_json(out / "cohort.json", metadata)


def _get_cohort_id(private_folder: Path, hashes: Mapping[str, str]) -> str:
    """Return the id that the first build wrote beside the key of the patients' ids, from the images it prepared."""
    path = private_folder / "cohort_id.txt"
    if not path.exists():
        atomic_write(path, hashlib.sha256(json.dumps(hashes).encode()).hexdigest(), mode=0o600)
    return path.read_text("utf-8")


def update_folds_of_source(cohort: Cohort, private_folder: Path, splits: DatasetSplits | None) -> list[str]:
    """Create the folds, those of the source data set if it defines any; return notes for the user."""
    if splits is None:
        return update_folds(cohort)
    original_ids = read_original_ids(private_folder)
    new_ids = {original_ids[patient]: patient for patient in cohort.prepared_ids}

    def find_patients_of(cases: Sequence[str]) -> list[str]:
        spellings = (name for case in cases for name in list_id_spellings(case))
        return [new_ids[name] for name in spellings if name in new_ids]

    test_patients = find_patients_of(splits.test_cases)
    parts = [find_patients_of(part) for part in splits.validation_parts]
    notes = []
    if parts:
        try:
            folds = create_folds_of_parts(parts, test_patients)
            if {*folds.development, *folds.test} == set(cohort.prepared_ids):
                write_folds(cohort.folder / "folds.json", folds)
                return ["The folds are those of splits_final.json."]
            notes.append(
                "The folds of splits_final.json were not used: patients of the cohort are in none of them."
            )
        except CohortError as error:
            notes.append(f"The folds of splits_final.json were not used. {error}")
    return [*notes, *update_folds(cohort, test_patients or None)]


def update_folds(cohort: Cohort, test_patients: Collection[str] | None = None) -> list[str]:
    """Create the folds, or new ones if the set of patients changed; return notes for the user.

    test_patients: the test set of new folds; None for a random fifth.
    """
    if len(cohort.prepared_ids) < MIN_COHORT_SIZE:
        return [f"No folds were created: fewer than {MIN_COHORT_SIZE} patients."]
    notes = []
    if has_outdated_folds(cohort):
        (cohort.folder / "folds.json").unlink()
        notes.append("The set of patients changed: new folds were created; retrain the networks.")
    load_cohort_folds(cohort, test_patients)
    return notes
