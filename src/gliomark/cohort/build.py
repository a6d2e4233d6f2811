"""From a hospital's export and a table to a prepared, described, quality-checked cohort.

Scan, decide, prepare every patient on the workers, then write what concerns them all. A build that was cut off
goes on: a patient whose source, settings and arrays are as they were is not prepared again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import cast

import numpy as np
import SimpleITK as sitk
import torch
from distributed import Client

from gliomark.cohort.folds import SMALLEST_COHORT, cohort_folds, drawn_for_others
from gliomark.cohort.labels import Labels, LabelSettings, age_between, read_labels, write_meta
from gliomark.cohort.private import new_ids, original_ids, private_folder, write_private_csv
from gliomark.cohort.quality import measure
from gliomark.cohort.scan import DicomPatient, Scan, scan
from gliomark.cohort.store import (
    SCHEMA_VERSION,
    Cohort,
    is_finished,
    read_json,
    read_record,
    remove_patient,
    write_json,
    write_patient,
)
from gliomark.cohort.workers import cluster, each, reading
from gliomark.files import NotWrittenError, check_writable, is_disk_full, remove_leftovers
from gliomark.io import files_of_patient, find_file_patients, patient_name, read_study
from gliomark.io.dicom import DicomSeries, read_series
from gliomark.io.masks import Grid, between_raters, read_masks_on, unite
from gliomark.preprocessing import PreparationSettings, prepare
from gliomark.preprocessing.prepare import STRIP_ON
from gliomark.study import UNFORESEEN, GliomarkError, MRSequence, Series, SliceStack, Study
from gliomark.tables import spellings_of_id

PACKAGES = ("gliomark", "SimpleITK", "deepbet", "torch", "numpy", "pydicom", "h5py")
PRIVACY = {
    "ids": "replaced; the key lies outside the cohort",
    "dates": "left out; ages only",
    "face": "removed: only the brain is kept",
    "burnt-in text": "not looked for: what lies outside the brain is not kept",
}


@dataclass(frozen=True)
class BuildSettings:
    """What was asked for. sequences: the reference last. without_masks: patients without a lesion mask stay."""

    sequences: tuple[MRSequence, ...] = (MRSequence.T1C, MRSequence.T2)
    preparation: PreparationSettings = field(default_factory=PreparationSettings)
    labels: LabelSettings = field(default_factory=LabelSettings)
    keep_ids: bool = False
    without_masks: bool = False


@dataclass(frozen=True)
class Sources:
    """Where things lie. masks: a folder ``<original id>/`` of mask files; series: an edited ``series.csv``."""

    root: Path
    labels: Path
    masks: Path | None = None
    series: Path | None = None


@dataclass(frozen=True, eq=False)
class Patient:
    """One patient's preparation, as it is sent to a worker; the images are a folder or DICOM series.

    birth_date: YYYYMMDD as the table has it, for the age at the examination; blank where it has none.
    """

    patient_id: str
    original_id: str
    out: Path
    settings: BuildSettings
    folder: Path | None = None
    dicom: DicomPatient | None = None
    masks: Path | None = None
    birth_date: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a patient: prepared now, finished before, or the reason why left out."""

    fresh: bool = False
    reason: str = ""


@dataclass(frozen=True)
class BuildReport:
    """A build in numbers. left_out: by original id, the reason; notes: what the user should know."""

    cohort: Cohort
    prepared: int
    kept: int
    left_out: Mapping[str, str]
    quarantined: int
    notes: tuple[str, ...]


Progress = Callable[[str, int, int], None]


def build_cohort(
    sources: Sources,
    out: Path,
    settings: BuildSettings = BuildSettings(),
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Progress = lambda patient_id, done, of: None,
) -> BuildReport:
    """Build or go on building ``out`` from everything below ``sources.root``.

    progress: told the patient just finished, how many are, and of how many. Raises GliomarkError for what
    concerns all patients; what concerns one is in the report.
    """
    _check_places(sources, out, settings)
    labels = read_labels(sources.labels, settings.labels)
    private = private_folder(out)
    for folder in (out, private):
        remove_leftovers(folder, below=True)
    check_writable(out)
    with cluster(workers, scheduler) as client:
        folders = find_file_patients(sources.root)  # DICOM is scanned file by file instead
        found = scan(sources.root, private, client, sources.series, folders, settings.sequences)
        patients, left_out = _patients(folders, found, labels, sources, out, settings, private)
        write_json(out / "cohort.json", {**_stated(settings), "finished": False})
        outcomes = _prepare_all(client, patients, progress)
    left_out |= {
        p.original_id: outcomes[p.patient_id].reason for p in patients if outcomes[p.patient_id].reason
    }
    rows = [{"original_id": name, "reason": reason} for name, reason in sorted(left_out.items())]
    write_private_csv(private / "left_out.csv", ["original_id", "reason"], rows)
    notes = _write_common(out, private, labels, settings, left_out)
    fresh = sum(outcome.fresh for outcome in outcomes.values())
    kept = sum(not outcome.fresh and not outcome.reason for outcome in outcomes.values())
    return BuildReport(Cohort(out), fresh, kept, left_out, len(found.quarantined), (*labels.notes, *notes))


def _check_places(sources: Sources, out: Path, settings: BuildSettings) -> None:
    """Refuse sources that are not there, an output among them, and a cohort that was built by other settings."""
    for folder in filter(None, (sources.root, sources.masks)):
        if not folder.is_dir():
            raise GliomarkError(
                f"{folder} is not a folder: give one that holds a folder per patient, or DICOM."
            )
    if out.absolute().is_relative_to(sources.root.absolute()):
        raise GliomarkError(f"{out} lies inside {sources.root}, among its own sources: choose another --out.")
    about = out / "cohort.json"
    before = read_json(about, lambda record: True) if about.exists() else {}
    if before and any(before.get(name) != value for name, value in _stated(settings).items()):
        raise GliomarkError(
            f"{out} was built with other settings: build into another folder, or remove this one."
        )


def _stated(settings: BuildSettings) -> dict:
    """The settings as ``cohort.json`` states them, in JSON's own types."""
    stated = asdict(settings)
    stated["settings"] = stated.pop("preparation")
    return {"schema_version": SCHEMA_VERSION, **json.loads(json.dumps(stated))}


def _software() -> dict[str, str]:
    return {package: version(package) for package in PACKAGES}


# ---- who there is -----------------------------------------------------------------------------------


def _patients(
    folders: Sequence[Path],
    found: Scan,
    labels: Labels,
    sources: Sources,
    out: Path,
    settings: BuildSettings,
    private: Path,
) -> tuple[list[Patient], dict[str, str]]:
    """The patients to prepare, under their new ids, and by original id why one is left out already."""
    by_id: dict[str, Path | DicomPatient] = {
        _as_in_table(labels, patient_name(folder)): folder for folder in folders
    }
    left_out: dict[str, str] = {}
    for patient in found.patients:
        if patient.patient_id in by_id:
            left_out[patient.patient_id] = (
                "The id is both a folder's of pictures or volumes and in DICOM files: keep one."
            )
        by_id[patient.patient_id] = patient
    if not by_id:
        raise GliomarkError(
            f"No patient was found below {sources.root}: {private / 'series.csv'} says what each series was taken for, "
            f"{private / 'quarantine.csv'} what was kept out."
        )
    left_out |= labels.shared_rows(by_id)
    left_out |= {name: reason for name in by_id if (reason := _why_no_row(labels, name))}
    wanted = {name: source for name, source in by_id.items() if name not in left_out}
    ids = new_ids(private, wanted, settings.keep_ids)
    patients = []
    for name, source in wanted.items():
        masks = None if sources.masks is None else sources.masks / name
        where = {"folder": source} if isinstance(source, Path) else {"dicom": source}
        here = masks if masks is not None and masks.is_dir() else None
        patients.append(
            Patient(ids[name], name, out, settings, masks=here, birth_date=labels.birth(name), **where)
        )
    return sorted(patients, key=lambda patient: patient.patient_id), left_out


def _as_in_table(labels: Labels, patient_id: str) -> str:
    """The id as the table spells it: a BIDS subject may stand there without its ``sub-``."""
    return next((name for name in spellings_of_id(patient_id) if not _why_no_row(labels, name)), patient_id)


def _why_no_row(labels: Labels, original_id: str) -> str:
    """Why the table tells nothing certain of a patient; blank where it does."""
    try:
        return "" if labels.row(original_id) else labels.why_missing(original_id)
    except GliomarkError as error:
        return str(error)


# ---- one patient, on a worker -----------------------------------------------------------------------


def _prepare_all(client: Client, patients: Sequence[Patient], progress: Progress) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    for patient, result in each(client, prepare_patient, patients):
        outcomes[patient.patient_id] = (
            Outcome(reason=str(result)) if isinstance(result, GliomarkError) else result
        )
        progress(patient.patient_id, len(outcomes), len(patients))
    return outcomes


def prepare_patient(patient: Patient) -> Outcome:
    """Prepare one patient and write it, unless that was done before from the very same source."""
    # sums in one order, whatever the machine: the same source gives the same bytes
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    torch.set_num_threads(1)
    try:
        source = source_sha256(patient)
        if is_finished(patient.out, patient.patient_id, source):
            return Outcome()
        _prepare_and_write(patient, source)
        return Outcome(fresh=True)
    except NotWrittenError:
        raise  # a full disk is everybody's trouble, not this patient's
    except GliomarkError as error:
        return Outcome(reason=str(error))
    except UNFORESEEN as error:
        if is_disk_full(error):
            raise
        reason = " ".join(str(error).split())[-200:]
        return Outcome(reason=f"It could not be prepared ({type(error).__name__}: {reason}).")


def source_sha256(patient: Patient) -> str:
    """A hash of every byte the preparation reads, of the settings and of the software."""
    digest = hashlib.sha256(json.dumps([_stated(patient.settings), _software()]).encode())
    for file in _files_of(patient):
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def _files_of(patient: Patient) -> list[Path]:
    files = set() if patient.dicom is None else set(patient.dicom.masks)
    if patient.dicom is not None:
        files |= {instance.file for one in _needed(patient).values() for instance in one.instances}
    for folder in (patient.folder, patient.masks):
        files |= set() if folder is None else set(files_of_patient(folder))
    return sorted(files)


def _needed(patient: Patient) -> dict[MRSequence, DicomSeries]:
    """The series of a DICOM patient that are read: the asked ones and the one the skull is stripped on."""
    used = patient.dicom.used if patient.dicom else {}
    strip_on = next((name for name in STRIP_ON if name in used), None)
    return {name: one for name, one in used.items() if name in (*patient.settings.sequences, strip_on)}


def _prepare_and_write(patient: Patient, source: str) -> None:
    study, series = _read(patient)
    settings = patient.settings
    available = [name for name in settings.sequences[:-1] if name in study.series]
    stack = prepare(study, [*available, settings.sequences[-1]], settings.preparation)
    stack, agreed = _with_masks(stack, study, patient)
    if stack.lesion is None and not settings.without_masks:
        raise GliomarkError(
            f"{study.source}: no lesion mask was found; give one with --masks, or build with --without-masks."
        )
    write_patient(
        patient.out,
        replace(stack, patient_id=patient.patient_id, notes=_without_names(stack.notes, patient)),
        quality=measure(study, stack),
        series=series,
        agreement=agreed,
        person=_person(patient),
        source_sha256=source,
    )


def _read(patient: Patient) -> tuple[Study, dict[str, dict]]:
    """The patient's images, and what is known of how each was taken (nothing that identifies)."""
    if patient.dicom is None:
        folder = cast(Path, patient.folder)
        study = reading()(folder, read_study, folder, needed=patient.settings.sequences)
        return study, {str(name): _technical(series) for name, series in study.series.items()}
    series, notes = {}, list(patient.dicom.notes)
    needed = _needed(patient)
    for name, one in needed.items():
        series[name], said = reading()(one.first.file.parent, read_series, one)
        notes += said
    place = next(iter(series.values())).source if series else Path()
    study = Study(patient.original_id, series, place, "volumes", notes=tuple(notes))
    return study, {str(name): dict(one.technical) for name, one in needed.items()}


def _person(patient: Patient) -> dict[str, str]:
    """Age in years and sex as DICOM has them, for tables that lack them; no date is kept."""
    if patient.dicom is None:
        return {}
    one = next(iter(patient.dicom.used.values()))
    born = patient.birth_date or one.birth_date
    age = f"{age_between(born, one.study_date):g}" if born and one.study_date else ""
    return {"age": age, "sex": {"M": "0", "F": "1"}.get(one.sex.upper(), "")}


def _technical(series: Series) -> dict:
    """Of a picture or a volume only its grid is known."""
    column_mm, row_mm, slice_mm = np.linalg.norm(series.affine[:3, :3], axis=0).tolist()
    slices, rows, columns = series.image.shape
    return {"spacing_mm": [row_mm, column_mm, slice_mm], "matrix": [rows, columns], "slices": slices}


def _without_names(notes: Sequence[str], patient: Patient) -> tuple[str, ...]:
    """Notes may quote a file's name, and that the patient's."""
    own, new = patient.original_id, patient.patient_id
    return tuple(note.replace(own, new) if own in note else note for note in notes)


# ---- the lesion -------------------------------------------------------------------------------------


def _with_masks(stack: SliceStack, study: Study, patient: Patient) -> tuple[SliceStack, dict[str, dict]]:
    """All masks of one place OR-ed into one (METHOD section 2, step 6), and how far every two raters agree."""
    files = patient.dicom.masks if patient.dicom else ()
    if patient.masks is None and not files:
        return stack, {}
    uids = {one.first.series_uid: name for name, one in _needed(patient).items()}
    grids = {name: Grid.of(one) for name, one in study.series.items()}
    masks = reading()(patient.masks or study.source, read_masks_on, patient.masks, grids, files, uids)
    grid = Series(np.zeros(stack.brain.shape, np.float32), stack.affine, stack.slice_names, study.source)
    lesion = unite(masks, grid, stack.to_stack).image > 0
    if stack.lesion is not None:
        lesion |= stack.lesion
    agreed = between_raters(masks, grid, stack.to_stack, stack.brain)
    said = dict.fromkeys(note for mask in masks for note in mask.notes)
    stack = replace(stack, lesion=lesion, notes=(*stack.notes, *said))
    return stack, {pair: asdict(value) for pair, value in agreed.items()}


# ---- what concerns all ------------------------------------------------------------------------------


def _write_common(
    out: Path, private: Path, labels: Labels, settings: BuildSettings, left_out: Mapping[str, str]
) -> list[str]:
    """Table, hashes and folds of everybody prepared, also by earlier builds; returns what the user should know."""
    rows, hashes = {}, {}
    for patient, original in sorted(original_ids(private).items()):
        if original in left_out or _why_no_row(labels, original):
            remove_patient(out, patient)
        elif record := read_record(out, patient):
            known = {name: cell for name, cell in (labels.row(original) or {}).items() if cell}
            rows[patient] = {"id": patient, **record["person"], **known}
            hashes[patient] = record["arrays_sha256"]
    if not rows:
        (out / "cohort.json").unlink()
        raise GliomarkError(f"No patient could be prepared; {private / 'left_out.csv'} says why for each.")
    write_meta(out / "MetaMS.csv", rows.values())
    about = {
        **_stated(settings),
        "finished": True,
        "privacy": {**PRIVACY, **({"ids": "kept as they were"} if settings.keep_ids else {})},
        "left_out": len(left_out),
        "arrays_sha256": hashes,
        "software": _software(),
    }
    write_json(out / "cohort.json", about)
    return _draw_folds(Cohort(out))


def _draw_folds(cohort: Cohort) -> list[str]:
    """Draw the folds, or draw them anew where patients have come or gone; returns what was noticed."""
    if len(cohort.prepared_ids) < SMALLEST_COHORT:
        return [f"No folds were drawn: fewer than {SMALLEST_COHORT} patients."]
    notes = []
    if drawn_for_others(cohort):
        (cohort.folder / "folds.json").unlink()
        notes.append(
            "Patients have come or gone: the folds were drawn anew, networks have to be trained anew too."
        )
    cohort_folds(cohort)
    return notes
