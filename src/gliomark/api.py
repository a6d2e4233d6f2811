"""The Python functions ``gliomark.predict`` and ``gliomark.predict_folder``: arguments are checked and converted here.

The prediction itself is ``pipeline.predict``, that of a folder ``batch.predict_folder``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TypeAlias

from gliomark import batch, pipeline
from gliomark.batch import PredictionOptions, RunOptions
from gliomark.errors import ConfigurationError, InputError
from gliomark.inference.fusion import FusionRule, check_fusion_rule
from gliomark.inference.levels import ANY_MARKER, LevelOptions
from gliomark.io import read_study
from gliomark.io.images import ImageSource
from gliomark.messages import message
from gliomark.model_loading import Model, load_model
from gliomark.pipeline import describe_step
from gliomark.prediction import Prediction
from gliomark.reporting import FailedPatient, Language
from gliomark.study import DEFAULT_COVERAGE, ClinicalData, Study
from gliomark.tables.age_sex import CellError, SexCoding, check_age_and_sex, parse_sex

PatientSource: TypeAlias = "str | PathLike[str] | Mapping[str, ImageSource] | Study"
ModelSource: TypeAlias = "str | PathLike[str] | Model"


def predict(
    source: PatientSource,
    clinical: ClinicalData | None = None,
    model: ModelSource = "demo",
    *,
    age: float | None = None,
    sex: str | int | None = None,
    patient_id: str | None = None,
    enhancing: bool | None = None,
    fusion: FusionRule = "near",
    coverage: float = DEFAULT_COVERAGE,
    prevalence: float | Mapping[str, float] | None = None,
    location: bool = False,
    device: str = "auto",
    progress: Callable[[str], None] | None = None,
) -> Prediction:
    """Segment the lesion of one patient and predict the markers.

    Research use only, not a medical device.

    Parameters
    ----------
    source
        The patient's images: a folder (DICOM, NIfTI, MetaImage, NRRD or pictures); a mapping such as
        ``{"T1C": "t1c.nii.gz", "FLAIR": image}`` from sequences to paths, nibabel images, SimpleITK images, or tuples
        ``(array, affine)``; or a Study. An array has the axes ``(i, j, k)`` of a NIfTI image, in any order and
        direction, and its affine ``(4, 4)`` maps ``(i, j, k, 1)`` to RAS mm, as in nibabel.
    clinical
        The patient's row of a clinical table, instead of ``age`` and ``sex``.
    model
        Name of a shipped model ("demo"), path of a weights file, or a Model. Loading one takes seconds: pass a Model,
        from ``load_model``, to predict several patients.
    age
        Age in years; None if unknown.
    sex
        "female" or "male", in the spellings that clinical tables may use; or 1 for female, 0 for male; None if unknown.
    patient_id
        The id in results; None: that of the images or of ``clinical``.
    enhancing
        The reader's finding of an enhancing focus, which decides IDH if it is given.
    fusion
        How the probabilities of slices are fused: "near" (validated), "all" or "large".
    coverage
        Share of the patients of either class for whom the true level is among those that the model does not exclude,
        at least 0.5 and below 1. The higher it is, the more often the level is "cannot tell".
    prevalence
        Share of positive patients where the model is used, by marker, such as ``{"idh": 0.3}``; a number for a model
        with one marker; None: as among the patients of the calibration.
    location
        Whether the lesion's location in the brain is found, ``prediction.location``: side, lobes, and distances to
        eloquent areas. It takes about two seconds, and needs the extra ``atlas``.
    device
        "cpu", "cuda", "cuda:<number>", "mps", or "auto": the first of CUDA and MPS that is present and runs the
        networks, otherwise the CPU. A Model stays where it was loaded if the device is "auto".
    progress
        Called before each step with a text that describes it; ``print`` is possible. If it raises an exception, the
        prediction ends with that exception.

    Returns
    -------
    Prediction
        Segmentation and markers, with the images. Without a lesion no marker is predicted.

    Raises
    ------
    InputError
        If the images cannot be read, a sequence is missing, no brain is found, or age, sex or ``clinical`` are not
        possible for this patient.
    WeightsError
        If the weights file is missing, damaged or not usable.
    ConfigurationError
        If an option has an invalid value, or the device or the atlas is missing.

    Examples
    --------
    >>> prediction = gliomark.predict("patient/", age=54, sex="female")
    >>> prediction.markers["idh"].probability
    0.81
    >>> prediction = gliomark.predict({"T1C": "t1c.nii.gz", "FLAIR": (array, affine)}, age=54, sex="F", model=model)
    """
    check_fusion_rule(fusion)
    levels = _create_level_options(coverage, prevalence)
    if not isinstance(source, str | PathLike | Mapping | Study):
        raise InputError(message("patient-source-unknown", kind=type(source).__name__))
    known_row = _create_clinical_data(clinical, age, sex)
    loaded_model = _get_model(model, device)

    def report_step(name: str) -> None:
        if progress is not None:
            progress(describe_step(name, loaded_model.card))

    report_step("read")
    study = _read_source(source, loaded_model, known_row.patient_id)
    if patient_id is not None:
        study = replace(study, patient_id=patient_id)
    row = known_row if clinical is not None else replace(known_row, patient_id=study.patient_id)
    return pipeline.predict(
        study,
        row,
        loaded_model,
        fusion=fusion,
        has_enhancing_focus=enhancing,
        levels=levels,
        locates_lesion=location,
        report_progress=report_step,
    )


def _create_level_options(coverage: float, prevalence: float | Mapping[str, float] | None) -> LevelOptions:
    if prevalence is None:
        return LevelOptions(coverage)
    return LevelOptions(coverage, prevalence if isinstance(prevalence, Mapping) else {ANY_MARKER: prevalence})


def _create_clinical_data(clinical: object, age: float | None, sex: str | int | None) -> ClinicalData:
    """Return the given row, or one of age and sex with an empty id.

    Raises
    ------
    ConfigurationError
        If both are given.
    InputError
        If the row is of another type, or age or sex is not possible.
    """
    if clinical is not None:
        if age is not None or sex is not None:
            raise ConfigurationError(message("clinical-given-twice"))
        if not isinstance(clinical, ClinicalData):
            raise InputError(message("clinical-kind-unknown", kind=type(clinical).__name__))
        return clinical
    if isinstance(sex, str):
        try:
            sex = parse_sex(sex, SexCoding({}))
        except CellError:
            raise InputError(message("sex-argument-unknown", sex=repr(sex))) from None
    check_age_and_sex(age, sex)
    return ClinicalData("", age, sex)


def _get_model(model: object, device: str) -> Model:
    """Return the model on the device; raise ConfigurationError if it is not a name, a path or a Model."""
    if isinstance(model, Model):
        return model if device == "auto" else model.to_device(device)
    if isinstance(model, str | PathLike):
        return load_model(model if isinstance(model, str) else Path(model), device=device)
    raise ConfigurationError(message("model-kind-unknown", kind=type(model).__name__))


def _read_source(source: PatientSource, model: Model, patient_id: str) -> Study:
    """Read the images; patient_id: used for images that state none."""
    if isinstance(source, Study):
        return source
    if isinstance(source, Mapping):
        return Study.from_images(source, patient_id)
    return read_study(Path(source), required_sequences=model.sequences)


def predict_folder(
    root: str | PathLike[str],
    *,
    out: str | PathLike[str],
    clinical: str | PathLike[str] | None = None,
    model: str | PathLike[str] = "demo",
    allow_missing_clinical: bool = False,
    enhancing: bool | None = None,
    fusion: FusionRule = "near",
    coverage: float = DEFAULT_COVERAGE,
    prevalence: float | Mapping[str, float] | None = None,
    location: bool = False,
    language: Language = "en",
    pdf: bool = False,
    dicom: bool = False,
    rtstruct: bool = False,
    device: str = "auto",
    workers: int | None = None,
    scheduler: str | None = None,
    resume: bool = False,
    progress: Callable[[str], None] | None = None,
) -> list[FailedPatient]:
    """Predict all patients of a folder; write a folder per patient and ``predictions.csv``.

    The failure of one patient does not stop the others. Images are read in a separate process, so that a damaged file
    cannot end this one.

    Parameters
    ----------
    root
        A patient's folder, or a folder of patients.
    out
        Where results are written.
    clinical
        Table (csv or xlsx) with id, age and sex.
    model
        Name of a shipped model or path of a weights file.
    allow_missing_clinical
        Whether age and sex may be unknown; ``clinical`` may then be None.
    enhancing, fusion, coverage, prevalence, location, device
        As for ``predict``.
    language
        Language of the report: "en" or "zh".
    pdf, dicom, rtstruct
        Whether the report is also written as PDF, the results as DICOM, and the outline as a DICOM structure set.
    workers
        Number of worker processes, each of which predicts whole patients; None predicts in this process. A script that
        gives it must start below ``if __name__ == "__main__":``, because the processes import it.
    scheduler
        Address of an existing dask scheduler, "tcp://...", used instead of own processes.
    resume
        Whether patients are skipped whose results are complete and were made from the same files, age, sex, options,
        weights and version of gliomark.
    progress
        Called with the path of each report after it is written.

    Returns
    -------
    list of FailedPatient
        The patients who could not be predicted, with the reason; empty if all were.

    Raises
    ------
    InputError
        If there is no patient, or the clinical table is not readable.
    ConfigurationError
        If the clinical table is missing, an option has an invalid value, or the scheduler does not answer.
    WeightsError
        If the model cannot be loaded.
    FileWriteError
        If results cannot be written.

    Examples
    --------
    >>> failures = gliomark.predict_folder("patients/", out="results/", clinical="clinical.csv")
    """
    check_fusion_rule(fusion)
    options = PredictionOptions(
        model=str(model),
        fusion_rule=fusion,
        has_enhancing_focus=enhancing,
        language=language,
        allows_missing_clinical=allow_missing_clinical,
        writes_pdf=pdf,
        writes_dicom=dicom,
        writes_rtstruct=rtstruct,
        device=device,
        levels=_create_level_options(coverage, prevalence),
        locates_lesion=location,
    )
    table = None if clinical is None else Path(clinical)
    run_options = RunOptions(workers, scheduler, resume)
    report = batch.predict_folder(
        Path(root), table, Path(out), options, run_options, notify=progress or (lambda _: None)
    )
    return list(report.failures)
