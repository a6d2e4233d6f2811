"""``gliomark.predict`` gives the same result for every kind of source and refuses wrong arguments with one sentence."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from tests.pipeline.conftest import PATIENT, drop_mask, write_dicom

import gliomark
from gliomark import model_loading, pipeline
from gliomark.errors import ConfigurationError, GliomarkError, InputError, WeightsError
from gliomark.inference.device import check_device
from gliomark.messages import Message
from gliomark.model_loading import Model
from gliomark.prediction import Prediction
from gliomark.study import ClinicalData, MRSequence, Study

PAIR = ("T1C", "FLAIR")
PERSON: Mapping[str, Any] = {"age": 50, "sex": "male"}


@pytest.fixture(scope="module")
def model(tiny_weights: Path) -> Model:
    return gliomark.load_model(tiny_weights)


@pytest.fixture(scope="module")
def expected(volume_folder: Path, model: Model) -> Prediction:
    """The prediction from the patient's folder by the pipeline itself."""
    study = gliomark.read_study(volume_folder)
    return pipeline.predict(study, ClinicalData(PATIENT, 50.0, 0), model)


def find_file(folder: Path, sequence: str) -> Path:
    return next(folder.glob(f"*{sequence}.nii.gz"))


def load_each(folder: Path, load: Callable[[Path], Any]) -> dict[str, Any]:
    """Return an image per sequence, loaded from its file."""
    return {sequence: load(find_file(folder, sequence)) for sequence in PAIR}


def load_in_memory(file: Path) -> nib.Nifti1Image:
    image = nib.load(file)
    return nib.Nifti1Image(np.asarray(image.dataobj), image.affine)


def load_array(file: Path) -> tuple[np.ndarray, np.ndarray]:
    image = nib.load(file)
    return np.asarray(image.dataobj), image.affine


def create_reoriented_loader(axes: str) -> Callable[[Path], tuple[np.ndarray, np.ndarray]]:
    """Return a loader of an array whose axes run in other directions, with its affine."""

    def load(file: Path) -> tuple[np.ndarray, np.ndarray]:
        image = nib.load(file)
        orientation = nib.orientations.axcodes2ornt(tuple(axes))
        orientation_transform = nib.orientations.ornt_transform(
            nib.orientations.io_orientation(image.affine), orientation
        )
        reoriented = image.as_reoriented(orientation_transform)
        return np.asarray(reoriented.dataobj), reoriented.affine

    return load


def create_study_from_arrays(folder: Path) -> Study:
    loaded = load_each(folder, load_array)
    arrays = {name: array for name, (array, _) in loaded.items()}
    return Study.from_arrays(arrays, {name: affine for name, (_, affine) in loaded.items()}, PATIENT)


SOURCES: Mapping[str, Callable[[Path], Any]] = {
    "folder": lambda folder: folder,
    "folder as text": str,
    "study": gliomark.read_study,
    "files": lambda folder: load_each(folder, Path),
    "files as text": lambda folder: load_each(folder, str),
    "other names of the sequences": lambda folder: {
        "t1ce": find_file(folder, "T1C"),
        "flair": find_file(folder, "FLAIR"),
    },
    "nibabel from files": lambda folder: load_each(folder, nib.load),
    "nibabel in memory": lambda folder: load_each(folder, load_in_memory),
    "nibabel of another format": lambda folder: load_each(
        folder, lambda file: nib.MGHImage(*create_reoriented_loader("RAS")(file))
    ),
    "SimpleITK": lambda folder: load_each(folder, lambda file: sitk.ReadImage(str(file))),
    "arrays": lambda folder: load_each(folder, load_array),
    "arrays of float64": lambda folder: load_each(
        folder, lambda file: (load_array(file)[0].astype(np.float64), load_array(file)[1])
    ),
    "mirrored arrays": lambda folder: load_each(folder, create_reoriented_loader("RAS")),
    "arrays upside down": lambda folder: load_each(folder, create_reoriented_loader("LPI")),
    "permuted arrays": lambda folder: load_each(folder, create_reoriented_loader("SLA")),
    "sagittal arrays": lambda folder: load_each(folder, create_reoriented_loader("PSR")),
    "file and image": lambda folder: {
        "T1C": find_file(folder, "T1C"),
        "FLAIR": sitk.ReadImage(str(find_file(folder, "FLAIR"))),
    },
    "study from arrays": create_study_from_arrays,
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("create_source", SOURCES.values(), ids=SOURCES.keys())
def test_every_source_gives_the_prediction_of_the_folder(
    create_source: Callable[[Path], Any], volume_folder: Path, model: Model, expected: Prediction
) -> None:
    prediction = gliomark.predict(create_source(volume_folder), model=model, **PERSON)
    assert [name for name, _ in prediction.markers.items()] == ["idh", "ki67"]
    for name, marker in expected.markers.items():
        assert prediction.markers[name].probability == pytest.approx(marker.probability, abs=1e-6)
        assert prediction.markers[name].level == marker.level
        assert prediction.markers[name].slices_used == marker.slices_used
    assert prediction.lesion_volume_ml == pytest.approx(expected.lesion_volume_ml, abs=1e-6)
    # in patient coordinates the mask has the same position as for the folder
    np.testing.assert_allclose(
        compute_centre(prediction.segmentation_image()),
        compute_centre(expected.segmentation_image()),
        atol=1e-3,
    )


def compute_centre(mask: nib.Nifti1Image) -> np.ndarray:
    """Compute the centre of a mask in RAS mm."""
    return (mask.affine @ np.append(np.argwhere(np.asarray(mask.dataobj)).mean(axis=0), 1))[:3]


def test_dicom_folders_per_sequence_give_the_prediction_of_the_complete_folder(
    tmp_path: Path, drawn_images, model: Model
) -> None:
    images = drop_mask(drawn_images)
    complete_folder = write_dicom(tmp_path / "whole", images)
    split = {name: write_dicom(tmp_path / name, {name: image}) for name, image in images.items()}
    from_folder = gliomark.predict(complete_folder, model=model, **PERSON)
    from_parts = gliomark.predict(split, model=model, patient_id=PATIENT, **PERSON)
    assert [m.probability for m in from_parts.markers] == [m.probability for m in from_folder.markers]
    assert from_parts.study.series[MRSequence.T1C].source_images
    with pytest.raises(InputError, match=r"whole contains 2 DICOM series of MR images instead of one"):
        Study.from_images({"T1C": complete_folder})


def test_predicting_does_not_change_the_images(volume_folder: Path, model: Model) -> None:
    images = load_each(volume_folder, load_array)
    copies = {name: (array.copy(), affine.copy()) for name, (array, affine) in images.items()}
    gliomark.predict(images, model=model)
    for name, (array, affine) in images.items():
        np.testing.assert_array_equal(array, copies[name][0])
        np.testing.assert_array_equal(affine, copies[name][1])


# ---- age, sex, id, model ------------------------------------------------------------------------------


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "sex, code", [("male", 0), ("M", 0), ("男", 0), ("female", 1), ("w", 1), (1, 1), (None, None)]
)
def test_forms_of_sex_and_age_are_understood(
    sex: Any, code: int | None, expected: Prediction, model: Model
) -> None:
    prediction = gliomark.predict(expected.study, model=model, age=50, sex=sex)
    assert (prediction.clinical.age, prediction.clinical.sex) == (50, code)
    assert prediction.clinical.patient_id == PATIENT
    unknown = [one for one in prediction.warnings if getattr(one, "code", "") == "age-or-sex-unknown"]
    assert len(unknown) == (code is None)


def test_a_clinical_row_and_a_model_may_be_positional(
    expected: Prediction, model: Model, tiny_weights: Path
) -> None:
    row = ClinicalData(PATIENT, 50.0, 0)
    for loaded in (model, tiny_weights, str(tiny_weights)):
        prediction = gliomark.predict(expected.study, row, loaded, fusion="all", enhancing=True)
        assert (prediction.markers["idh"].fusion, prediction.markers["idh"].level) == ("all", "wild type")


def test_the_patient_id_is_taken_from_argument_row_or_default(volume_folder: Path, model: Model) -> None:
    images = load_each(volume_folder, str)
    assert gliomark.predict(images, model=model).patient_id == "patient"
    assert gliomark.predict(images, ClinicalData("P7", 50, 0), model).patient_id == "P7"
    assert gliomark.predict(volume_folder, model=model, patient_id="P8").patient_id == "P8"


# ---- refused arguments --------------------------------------------------------------------------------

AFFINE = np.diag([2.5, 2.5, 6.0, 1.0])
GREY = np.random.default_rng(0).normal(100, 10, (40, 40, 20)).astype(np.float32)
SHEARED = AFFINE + np.array([[0, 1.5, 0, 0], *np.zeros((3, 4))])
OBLIQUE_ROW = AFFINE + np.array([*np.zeros((3, 4)), [0.1, 0, 0, 0]])


@pytest.mark.parametrize(
    "images, text",
    [
        ({}, "contains no images"),
        ({"T3": (GREY, AFFINE)}, "'T3' does not name a sequence: use T1, T1C, T2 or FLAIR"),
        ({4: (GREY, AFFINE)}, "4 does not name a sequence"),
        ({"T1C": (GREY, AFFINE), "t1ce": (GREY, AFFINE)}, "T1C and t1ce both name the sequence T1C"),
        ({"T1C": GREY}, "is an array without position"),
        ({"T1C": None}, "is of the type NoneType"),
        ({"T1C": (GREY.tolist(), AFFINE)}, "is of the type list"),
        ({"T1C": (GREY, np.eye(3))}, "affine for T1C is not a 4 x 4 matrix"),
        ({"T1C": (GREY, None)}, "affine for T1C is not a 4 x 4 matrix"),
        ({"T1C": (GREY, "RAS")}, "affine for T1C is not a 4 x 4 matrix"),
        ({"T1C": (GREY, OBLIQUE_ROW)}, "affine for T1C is not a 4 x 4 matrix"),
        ({"T1C": (GREY, AFFINE * np.nan)}, "affine for T1C is not a 4 x 4 matrix"),
        ({"T1C": (GREY, np.diag([0.0, 1, 1, 1]))}, "has no valid orientation"),
        ({"T1C": (GREY, SHEARED)}, "grid of T1C \\(in memory\\) is sheared"),
        ({"T1C": (GREY[0], AFFINE)}, "T1C \\(in memory\\) is not a single 3-D volume"),
        ({"T1C": (np.stack([GREY, GREY], -1), AFFINE)}, "is not a single 3-D volume"),
        ({"T1C": (GREY.astype(complex), AFFINE)}, "contains colour or complex values"),
        ({"T1C": (GREY * 0, AFFINE)}, "is black or has the same grey value everywhere"),
        ({"T1C": (GREY * np.nan, AFFINE)}, "has no grey values"),
        ({"T1C": nib.Nifti1Image(GREY * 0, AFFINE)}, "is black"),
        ({"T1C": nib.Nifti1Image(np.stack([GREY, GREY], -1), AFFINE)}, "is not a single 3-D volume"),
        ({"T1C": sitk.GetImageFromArray(GREY[0])}, "is not a single 3-D volume"),
        ({"T1C": sitk.GetImageFromArray(np.stack([GREY] * 3, -1), isVector=True)}, "contains colour"),
        ({"T1C": "no such file.nii.gz"}, "no such file.nii.gz does not exist"),
        ({"T1C": Path(__file__)}, "is not a NIfTI, MetaImage, NRRD or DICOM image"),
        ({"T1C": Path(__file__).parent}, "is not a NIfTI, MetaImage, NRRD or DICOM image"),
    ],
)  # fmt: skip
def test_invalid_images_are_refused(images: Any, text: str) -> None:
    check_sentence(lambda: Study.from_images(images), InputError, text)


def test_an_array_without_affine_is_refused() -> None:
    check_sentence(
        lambda: Study.from_arrays({"T1C": GREY, "FLAIR": GREY}, {"T1C": AFFINE}),
        InputError,
        "affine for FLAIR",
    )


@pytest.mark.parametrize(
    "arguments, kind, text",
    [
        ({"source": 7}, InputError, "int is not a patient's images"),
        ({"source": GREY}, InputError, "ndarray is not a patient's images"),
        ({"source": "no such folder"}, InputError, "no such folder does not exist"),
        ({"source": Path(__file__)}, InputError, "is a file: specify the patient's folder"),
        ({"source": {"T1C": (GREY, AFFINE)}}, InputError, "FLAIR"),
        ({"clinical": ClinicalData(PATIENT, 50, 0), "age": 50}, ConfigurationError, "in addition to clinical data"),
        ({"clinical": "clinical.csv"}, InputError, "Clinical data of the type str are not understood"),
        ({"clinical": ClinicalData("another", 50, 0)}, InputError, "belongs to patient another"),
        ({"age": 150}, InputError, "The age 150 is invalid"),
        ({"age": "old"}, InputError, "The age 'old' is invalid"),
        ({"sex": "1"}, InputError, "The sex '1' is not understood"),
        ({"sex": 2}, InputError, "sex"),
        ({"fusion": "mean"}, ConfigurationError, "mean"),
        ({"enhancing": "yes"}, ConfigurationError, "'yes' is not a valid value for the enhancing focus"),
        ({"device": "tpu"}, ConfigurationError, "The device 'tpu' is unknown"),
        ({"device": "cuda:99"}, ConfigurationError, "PyTorch finds no device cuda:99"),
        ({"device": None}, ConfigurationError, "The device None is unknown"),
        ({"model": 3}, ConfigurationError, "int is not a model"),
        ({"model": "no such model"}, WeightsError, "no such model"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_invalid_arguments_are_refused(
    arguments: dict[str, Any], kind: type[GliomarkError], text: str, expected: Prediction, model: Model
) -> None:
    check_sentence(
        lambda: gliomark.predict(**({"source": expected.study, "model": model} | arguments)), kind, text
    )


def check_sentence(call: Callable[[], object], kind: type[GliomarkError], text: str) -> None:
    with pytest.raises(kind, match=text) as refused:
        call()
    assert isinstance(refused.value.message, Message)
    assert "\n" not in str(refused.value) and str(refused.value).endswith(".")


# ---- device and progress ------------------------------------------------------------------------------


def test_a_device_is_checked_and_replaced_if_it_cannot_compute(
    model: Model, expected: Prediction, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model.device == "cpu" and model.to_device("cpu") is model
    for name in ("cpu:0", "gpu", "cuda:x", "", 0):
        check_sentence(lambda name=name: check_device(name), ConfigurationError, "is unknown")  # type: ignore[misc]
    assert gliomark.predict(expected.study, model=model, device="cpu", **PERSON).markers == expected.markers
    # the meta device cannot compute, as an accelerator without memory or an operation
    monkeypatch.setattr(model_loading, "list_accelerators", lambda: ["meta"])
    monkeypatch.setattr(model_loading, "check_device", lambda _: None)
    with pytest.raises(WeightsError):
        model.to_device("meta")
    assert model.to_device("auto") is model
    monkeypatch.setattr(model_loading, "_check_trial_run", lambda *_: None)
    moved = model.to_device("auto")
    assert (moved.device, model.device) == ("meta", "cpu")
    networks = [moved.segmenter.network, *(one.network for one in moved.classifiers.values())]
    assert {p.device.type for one in networks for p in one.network.parameters()} == {"meta"}


def test_progress_is_reported_and_can_cancel(expected: Prediction, model: Model) -> None:
    steps: list[str] = []
    gliomark.predict(expected.study, model=model, progress=steps.append, **PERSON)
    assert [one.code for one in steps if isinstance(one, Message)] == [
        "step-read", "step-align", "step-strip", "step-slice", "step-outline", "step-marker", "step-marker"
    ]  # fmt: skip
    assert steps[-1] == "predicting Ki-67"

    class CancelledError(Exception):
        pass

    def cancel(step: str) -> None:
        if "brain" in step:
            raise CancelledError

    with pytest.raises(CancelledError):
        gliomark.predict(expected.study, model=model, progress=cancel, **PERSON)


# ---- results ------------------------------------------------------------------------------------------


def test_representations_are_one_short_line(expected: Prediction, model: Model) -> None:
    study = expected.study
    for value in (
        study, study.series[MRSequence.T1C], expected.stack, expected.segmentation, expected.markers["idh"],
        expected, model,
    ):  # fmt: skip
        assert repr(value).startswith(type(value).__name__ + "(")
        assert len(repr(value)) < 200 and "\n" not in repr(value) and "array" not in repr(value)
    assert f"idh {expected.markers['idh'].level} {expected.markers['idh'].probability:.2f}" in repr(expected)
    assert f"lesion {expected.lesion_volume_ml:.1f} ml" in repr(expected)
    assert repr(study) == f"Study({PATIENT!r}: T1C 96 x 96 x 20, FLAIR 20 x 96 x 96; volumes)"


def test_markers_are_accessed_by_name_and_number(expected: Prediction) -> None:
    assert expected.markers["idh"] is expected.markers[0] and expected.markers[:1] == (expected.markers[0],)
    with pytest.raises(KeyError, match="'mgmt' is not among the markers of this model: idh, ki67"):
        expected.markers["mgmt"]


def test_the_document_follows_the_schema(expected: Prediction) -> None:
    document = expected.to_dict()
    schema = json.loads((resources.files("gliomark") / "reporting/prediction.schema.json").read_text("utf-8"))
    jsonschema.validate(json.loads(json.dumps(document, allow_nan=False)), schema)
    assert document["markers"][0]["probability"] == round(expected.markers[0].probability or 0, 6)


@pytest.mark.parametrize("sequence", [None, "T1C", "FLAIR", MRSequence.FLAIR])
def test_segmentation_images_are_on_the_grid_of_the_sequence(
    sequence: str | None, expected: Prediction, volume_folder: Path, tmp_path: Path
) -> None:
    source = find_file(volume_folder, sequence or "T1C")
    image, itk_image = expected.segmentation_image(sequence), expected.segmentation_sitk(sequence)
    mask = np.asarray(image.dataobj)
    assert (image.shape, mask.dtype, set(np.unique(mask))) == (nib.load(source).shape, np.uint8, {0, 1})
    for affine in (image.affine, image.get_sform(), image.get_qform()):
        np.testing.assert_allclose(affine, nib.load(source).affine, atol=1e-4)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(itk_image), mask.transpose(2, 1, 0))
    read = sitk.ReadImage(str(source))
    for actual, expected_value in (
        (itk_image.GetOrigin(), read.GetOrigin()),
        (itk_image.GetSpacing(), read.GetSpacing()),
        (itk_image.GetDirection(), read.GetDirection()),
    ):
        np.testing.assert_allclose(actual, expected_value, atol=1e-4)
    if sequence is None:
        written = gliomark.write_prediction(expected, tmp_path) / "segmentation.nii.gz"
        np.testing.assert_array_equal(np.asarray(nib.load(written).dataobj), mask)


def test_a_sequence_that_was_not_used_has_no_mask(expected: Prediction) -> None:
    for convert in (expected.segmentation_image, expected.segmentation_sitk):
        check_sentence(lambda convert=convert: convert("T2"), InputError, "T2 was not used")  # type: ignore[misc]


def test_model_segments_a_prepared_study(expected: Prediction, model: Model) -> None:
    stack = gliomark.prepare(expected.study, model.sequences)
    np.testing.assert_array_equal(model.segment(stack).mask, expected.segmentation.mask)


def test_a_folder_of_patients_is_predicted(
    volume_folder: Path, clinical_table: Path, tiny_weights: Path, tmp_path: Path, expected: Prediction
) -> None:
    reports: list[str] = []
    failures = gliomark.predict_folder(
        volume_folder, out=tmp_path, clinical=str(clinical_table), model=tiny_weights, progress=reports.append
    )
    assert failures == [] and reports == [str(tmp_path / PATIENT / "report.html")]
    document = json.loads((tmp_path / PATIENT / "prediction.json").read_text("utf-8"))
    assert document["markers"][0]["probability"] == round(expected.markers[0].probability or 0, 6)
    with pytest.raises(ConfigurationError):
        gliomark.predict_folder(volume_folder, out=tmp_path, model=tiny_weights)


# ---- the package --------------------------------------------------------------------------------------


def test_importing_the_package_loads_no_large_library() -> None:
    """The data classes, errors and the version need no library of images, networks or files."""
    code = """
import sys
import gliomark
assert set(gliomark.__all__) == set(dir(gliomark)), dir(gliomark)
gliomark.Study, gliomark.Prediction, gliomark.InputError, gliomark.__version__
heavy = {"torch", "monai", "nibabel", "SimpleITK", "pydicom", "lightgbm", "scipy", "pandas", "rich"} & set(sys.modules)
assert not heavy, heavy
for name in gliomark.__all__:
    getattr(gliomark, name)
print(gliomark.__version__)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().count(".") >= 2


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'predictions'"):
        gliomark.predictions  # noqa: B018


@pytest.mark.parametrize("name", [name for name in gliomark.__all__ if name != "__version__"])
def test_every_public_name_is_documented(name: str) -> None:
    value = getattr(gliomark, name)
    text = inspect.getdoc(value) or ""
    if inspect.isfunction(value):
        for section in ("Parameters", "Returns", "Raises", "Examples"):
            assert f"\n{section}\n{'-' * len(section)}\n" in text, section
        for parameter in inspect.signature(value).parameters:
            assert parameter in text
    elif hasattr(value, "__dataclass_fields__"):
        assert "\nAttributes\n----------\n" in text
        for field in value.__dataclass_fields__:
            assert field in text, field
    else:
        assert text
