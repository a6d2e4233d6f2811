"""A synthetic hospital: many phantom patients as raw DICOM or as pictures, with labels, truth and a known ceiling."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Literal

from gliomark.cohort.phantom import PhantomSettings, make_phantom, write_clinical, write_nifti, write_pictures
from gliomark.cohort.phantom.appearance import LABELS, MARKERS, Ceiling, Look, ceiling, ceiling_of, posterior
from gliomark.cohort.phantom.dicom import Export, acquired, write_series
from gliomark.cohort.phantom.distractors import distractors, segmentation
from gliomark.cohort.phantom.scanned import (
    HospitalPatient,
    HospitalSettings,
    hospital_patient,
    movement_of,
)
from gliomark.files import atomic_folder, atomic_write, remove_leftovers
from gliomark.study import Clinical, GliomarkError, MRSequence, Study
from gliomark.tables import csv_text

__all__ = [
    "HospitalPatient",
    "HospitalReport",
    "HospitalSettings",
    "hospital_patient",
    "write_dicom",
    "write_hospital",
]

Row = Mapping[str, str | float | int]
Form = Literal["dicom", "pictures", "nifti"]


@dataclass(frozen=True)
class HospitalReport:
    """What was written. ceilings: the model's best AUC by marker; here: the same, counted on these patients.

    Both are empty for people without a lesion: there is no marker to be right about.
    """

    folder: Path
    patients: int
    ceilings: Mapping[str, Ceiling]
    here: Mapping[str, Ceiling]


@dataclass(frozen=True)
class _Written:
    """What a worker hands back of one patient."""

    clinical: Clinical
    look: Look | None
    truth: Row


def write_hospital(
    seeds: Sequence[int],
    out: Path,
    settings: HospitalSettings = HospitalSettings(),
    form: Form = "dicom",
    workers: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
    lesion: bool = True,
) -> HospitalReport:
    """Patients of ``seeds`` below a new folder: ``dicom/`` with ``labels.csv``, or aligned sequences as
    ``pictures/`` or ``nifti/`` with ``clinical.csv``.

    ``truth/truth.csv`` says what only a phantom knows: id, seed, the look, the exact posteriors, and for DICOM
    each series' displacement since T2 (the shift of the head's middle in LPS mm, the turn as a rotation vector
    in degrees). ``truth/ceiling.csv``: the best AUC anybody can reach. workers: processes. progress: called
    with (id, done, of). lesion: False for people without one: empty masks, blank markers, no ceiling.csv.
    Raises GliomarkError where ``out`` holds something, there is nobody to write, or people without a lesion
    are asked for as DICOM: a reader exports an outline, and there is nothing to outline.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise GliomarkError("The synthetic hospital needs at least one patient, each with an own seed.")
    if form == "dicom" and not lesion:
        raise GliomarkError(
            "A hospital's DICOM export always has a lesion's outline: write people without a lesion as pictures or "
            "nifti."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise GliomarkError(f"{out} is there already and is not empty: choose a new folder.")
    remove_leftovers(out.parent)
    with atomic_folder(out) as part:
        make = partial(_write_one, form=form, settings=settings, folder=part, lesion=lesion)
        written = []
        for done, one in enumerate(_each(make, seeds, workers), 1):
            written.append(one)
            if progress is not None:
                progress(one.clinical.patient_id, done, len(seeds))
        report = _report(written, out, settings)
        _write_tables(written, report, part, "labels.csv" if form == "dicom" else "clinical.csv")
    return report


def _each(make: Callable[[int], _Written], seeds: Sequence[int], workers: int) -> Iterator[_Written]:
    """Every patient in the order of the seeds, by one process or several."""
    if workers <= 1:
        yield from map(make, seeds)
        return
    # spawned, not forked: libraries' threads do not survive a fork
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(seeds)), mp_context=context) as pool:
        yield from pool.map(make, seeds)


def _write_one(seed: int, form: Form, settings: HospitalSettings, folder: Path, lesion: bool) -> _Written:
    if form == "dicom":
        return _write_scanned(seed, settings, folder / form)
    write = write_pictures if form == "pictures" else write_nifti
    return _write_aligned(seed, write, settings, folder / form, lesion)


def write_dicom(patient: HospitalPatient, folder: Path) -> Path:
    """The patient's whole examination below ``folder``, in hospital-like folders; returns the patient's folder."""
    export = Export(patient)
    series = [list(acquired(export, name)) for name in patient.study.series]
    reference = list(patient.study.series).index(MRSequence.T2)
    extras = distractors(export) if patient.settings.distractors else []
    root = folder / f"{int(export.uid('folder')[-9:]):08X}"[-8:]
    for header in [*series, *extras, [segmentation(export, series[reference])]]:
        write_series(export, header, root)
    return root


def _write_scanned(seed: int, settings: HospitalSettings, folder: Path) -> _Written:
    """One patient as DICOM."""
    patient = hospital_patient(seed, settings)
    write_dicom(patient, folder)
    moved: dict[str, str | float | int] = {}
    for sequence, matrix in patient.motion.items():
        shift, turn = movement_of(matrix)
        for axis, name in enumerate("xyz"):
            moved[f"{sequence}_shift_{name}_mm"] = round(float(shift[axis]), 6)
            moved[f"{sequence}_turn_{name}_deg"] = round(float(turn[axis]), 6)
    return _Written(
        patient.clinical,
        patient.look,
        _truth(seed, patient.clinical, patient.look, settings) | moved,
    )


def _write_aligned(
    seed: int, write: Callable[[Study, Path], Path], settings: HospitalSettings, folder: Path, lesion: bool
) -> _Written:
    """One patient whose sequences share a grid, as pictures or volumes."""
    imaging = PhantomSettings(
        noise=settings.noise,
        sublayers=settings.sublayers,
        appearance_noise=settings.appearance.noise,
        lesion=lesion,
    )
    phantom = make_phantom(seed, imaging)
    write(phantom.study, folder)
    return _Written(phantom.clinical, phantom.look, _truth(seed, phantom.clinical, phantom.look, settings))


def _truth(
    seed: int, clinical: Clinical, look: Look | None, settings: HospitalSettings
) -> dict[str, str | float | int]:
    """A row of truth.csv."""
    if look is None:
        return {"id": clinical.patient_id, "seed": seed, "lesion": "none"}
    age, sex = clinical.age or 0.0, clinical.sex or 0
    chances = {
        f"posterior_{marker}": round(posterior(look, age, sex, marker, settings.appearance), 6)
        for marker in MARKERS
    }
    shown = {
        name: int(value) if name == "mismatch" else round(value, 6) for name, value in asdict(look).items()
    }
    return {"id": clinical.patient_id, "seed": seed, **shown, **chances}


def _report(written: Sequence[_Written], out: Path, settings: HospitalSettings) -> HospitalReport:
    people = [(one.clinical, one.look) for one in written if one.look is not None]
    markers = MARKERS if people else ()
    return HospitalReport(
        folder=out,
        patients=len(written),
        ceilings={marker: ceiling(marker, settings.appearance) for marker in markers},
        here={marker: ceiling_of(people, marker, settings.appearance) for marker in markers},
    )


def _write_tables(written: Sequence[_Written], report: HospitalReport, folder: Path, labels: str) -> None:
    """The clinical table, and beside the images what only a phantom knows."""
    write_clinical([one.clinical for one in written], folder / labels, LABELS)
    truth = folder / "truth"
    truth.mkdir()
    _write_csv([one.truth for one in written], truth / "truth.csv")
    rows: list[Row] = [
        {"counted_on": counted, **{field.name: getattr(best, field.name) for field in fields(best)}}
        for counted, group in (("model", report.ceilings), ("these patients", report.here))
        for best in group.values()
    ]
    if rows:
        _write_csv(rows, truth / "ceiling.csv")


def _write_csv(rows: Sequence[Row], path: Path) -> None:
    atomic_write(path, csv_text([list(rows[0]), *(list(row.values()) for row in rows)]))
