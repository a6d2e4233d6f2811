"""Weights files: a saved file is loaded unchanged, and an invalid file is refused with one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tests.models.broken_weights import compute_digest

from gliomark.errors import GliomarkError
from gliomark.evaluation.calibrators import CALIBRATION_METHODS
from gliomark.messages import LANGUAGES, render_message
from gliomark.model_loading import build_segmenter
from gliomark.models.card import OPTIONAL_FIELDS, OPTIONAL_MARKER_FIELDS, MarkerNetworkCard, SegmentationCard
from gliomark.models.patient_calibration import CalibrationMethodName, PatientCalibration
from gliomark.models.weights import (
    MarkerCard,
    MarkerValidation,
    ModelCard,
    load_weights,
    save_weights,
)

MARKER = MarkerCard(
    "idh_mutant",
    "IDH",
    "mutant",
    "wild type",
    "positive: mutated 突变",
    0.4,
    46.5,
    MarkerNetworkCard(network={}, crop=192),
    performance="AUC",
)
CARD = ModelCard(
    name="test",
    sequences=("T1C", "FLAIR"),
    rule="joint",
    segmentation=SegmentationCard(network={}, tile=192, pool=1.0, context=0, flips=False, smallest_share=0.0),
    segmentation_threshold=0.5,
    smallest_lesion_ml=0.5,
    training_cohort="three patients",
    training_patients=("患者 01", "b", "c"),
    folds_sha256="0" * 64,
    licence="CC0",
    intended_use="tests",
    segmentation_performance="none",
    versions={"torch": "1"},
    markers={"idh": MARKER},
    stand_ins={"FLAIR": "T2"},
    preparation={"k": 20},
)


@pytest.fixture
def weights_file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    tensors = {
        "segmentation/a.weight": torch.randn(3, 4),
        "segmentation/steps": torch.tensor(7),
        "idh/lightgbm": torch.arange(9, dtype=torch.uint8),
        "prior": torch.rand(5, 5),
    }
    path = tmp_path / "模型 1.safetensors"
    save_weights(path, CARD, tensors)
    return path


def get_error_message(path: Path) -> str:
    """Return the sentence with which the file is refused."""
    with pytest.raises(GliomarkError) as caught:
        load_weights(path)
    text = str(caught.value)
    assert "\n" not in text and str(path) in text
    return text


def rewrite(path: Path, card: dict, **metadata: str) -> None:
    """Write the same tensors with another card and a matching digest."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    text = json.dumps(card)
    save_file(
        tensors,
        path,
        {"schema_version": "2", "card": text, "sha256": compute_digest(text, tensors), **metadata},
    )


def test_a_saved_file_is_loaded_unchanged(weights_file: Path) -> None:
    torch.manual_seed(0)
    loaded = load_weights(weights_file)
    assert loaded.card == CARD
    assert set(loaded.get_tensors("segmentation")) == {"a.weight", "steps"}
    found, expected = loaded.get_tensors("segmentation")["a.weight"], torch.randn(3, 4).half().float().numpy()
    assert found.dtype == np.float32 and np.array_equal(found, expected)
    assert loaded.get_tensors("segmentation")["steps"] == 7
    assert bytes(loaded.get_tensors("idh")["lightgbm"]) == bytes(range(9))
    assert len(loaded.sha256) == 64
    assert [path.name for path in weights_file.parent.iterdir()] == [weights_file.name], (
        "temporary files left behind"
    )


def test_hash_depends_on_content_alone(weights_file: Path, tmp_path: Path) -> None:
    loaded = load_weights(weights_file)
    again = tmp_path / "again.safetensors"
    save_weights(again, CARD, dict(reversed(loaded.tensors.items())))
    assert load_weights(again).sha256 == loaded.sha256
    save_weights(again, replace(CARD, licence="other"), loaded.tensors)
    assert load_weights(again).sha256 != loaded.sha256


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(weights_file: Path, share: float) -> None:
    content = weights_file.read_bytes()
    weights_file.write_bytes(content[: int(len(content) * share)])
    assert "damaged or truncated" in get_error_message(weights_file)


def test_an_altered_tensor_byte_is_refused(weights_file: Path) -> None:
    content = bytearray(weights_file.read_bytes())
    content[-3] ^= 1
    weights_file.write_bytes(content)
    assert "modified" in get_error_message(weights_file)


def test_an_altered_card_is_refused(weights_file: Path) -> None:
    content = weights_file.read_bytes()
    assert content.count(b"three patients") == 1
    weights_file.write_bytes(content.replace(b"three patients", b"30000 patient."))
    assert "modified" in get_error_message(weights_file)


def test_any_single_altered_byte_is_refused(weights_file: Path) -> None:
    content = weights_file.read_bytes()
    random = np.random.default_rng(0)
    for position in [*range(12), *random.integers(0, len(content), 150)]:
        altered = bytearray(content)
        altered[position] ^= int(random.integers(1, 256))
        # the blanks that pad the header have no meaning
        if content[position : position + 1] == b" " and bytes(altered).strip() == content.strip():
            continue
        weights_file.write_bytes(altered)
        get_error_message(weights_file)


@pytest.mark.parametrize("field", sorted({f.name for f in fields(ModelCard)} - set(OPTIONAL_FIELDS)))
def test_a_card_without_a_field_is_refused(weights_file: Path, field: str) -> None:
    record = asdict(CARD)
    del record[field]
    rewrite(weights_file, record)
    assert field in get_error_message(weights_file)


@pytest.mark.parametrize(
    "field", sorted({f.name for f in fields(MarkerCard)} - {"validation", *OPTIONAL_MARKER_FIELDS})
)
def test_a_marker_card_without_a_field_is_refused(weights_file: Path, field: str) -> None:
    record = asdict(CARD)
    del record["markers"]["idh"][field]
    rewrite(weights_file, record)
    assert field in get_error_message(weights_file)


MEASURED = MarkerValidation(0.84, 0.71, 0.95, 86, 66, "队列 A")


@pytest.mark.parametrize(
    ("validation", "code"),
    [
        (None, "marker-not-validated"),
        (MEASURED, "marker-better-than-chance"),
        (replace(MEASURED, is_test_set=True), "marker-better-than-chance"),
        (replace(MEASURED, low=0.5), "marker-at-chance"),
        (replace(MEASURED, low=0.499), "marker-at-chance"),
        (MarkerValidation(1.0, 0.398, 1.0, 8, 4, "a"), "marker-at-chance"),
        (MarkerValidation(0.33, 0.22, 0.45, 81, 42, "a"), "marker-at-chance"),
    ],
)
def test_a_level_is_reported_only_if_validation_is_better_than_chance(weights_file, validation, code) -> None:
    card = replace(CARD, markers={"idh": replace(MARKER, validation=validation)})
    loaded = load_weights(weights_file)
    save_weights(weights_file, card, loaded.tensors)
    marker = load_weights(weights_file).card.markers["idh"]
    assert marker.validation == validation and marker.validation_message.code == code
    assert marker.is_level_reported is (code == "marker-better-than-chance")
    for language in LANGUAGES:
        text = render_message(marker.validation_message, language)
        assert validation is None or all(f"{x:.2f}" in text for x in (validation.auc, validation.low))


@pytest.mark.parametrize("is_test_set", [False, True])
def test_the_kind_of_validation_is_kept_and_stated(weights_file: Path, is_test_set: bool) -> None:
    validation = replace(MEASURED, is_test_set=is_test_set)
    save_weights(
        weights_file,
        replace(CARD, markers={"idh": replace(MARKER, validation=validation)}),
        load_weights(weights_file).tensors,
    )
    with safe_open(weights_file, "np") as file:
        written = json.loads(file.metadata()["card"])["markers"]["idh"]["validation"]
    assert ("is_test_set" in written) is is_test_set  # earlier versions refuse fields that they do not know
    kept = load_weights(weights_file).card.markers["idh"].validation
    assert kept == validation
    for language, refitted, untouched in (
        ("en", "refitted on all", "None of them"),
        ("zh", "重新训练", "均未用于训练"),
    ):
        text = render_message(kept.performance_message, language)
        assert (untouched if is_test_set else refitted) in text
        assert (refitted if is_test_set else untouched) not in text and "86" in text


@pytest.mark.parametrize("informative", [True, False, None])
def test_an_older_file_is_read_and_reports_no_level(weights_file: Path, informative) -> None:
    record = asdict(CARD)
    del record["markers"]["idh"]["validation"]
    if informative is not None:
        record["markers"]["idh"]["informative"] = informative
    rewrite(weights_file, record)
    marker = load_weights(weights_file).card.markers["idh"]
    assert marker == MARKER and not marker.is_level_reported
    assert marker.validation_message.code == "marker-not-validated"


@pytest.mark.parametrize(
    "validation",
    [
        {"auc": 0.9},
        {**asdict(MEASURED), "low": 0.9},
        {**asdict(MEASURED), "auc": float("nan")},
        {**asdict(MEASURED), "high": 1.2},
        {**asdict(MEASURED), "positives": 86},
        {**asdict(MEASURED), "low": "0.7"},
        {**asdict(MEASURED), "sensitivity": 0.8},
    ],
)
def test_an_invalid_validation_is_refused(weights_file: Path, validation) -> None:
    record = asdict(CARD)
    record["markers"]["idh"]["validation"] = validation
    rewrite(weights_file, record)
    assert "invalid or unknown" in get_error_message(weights_file)


CALIBRATED = PatientCalibration("platt", (0.8, -0.3), (0.4, 0.7, 0.9), (0.1, 0.4), "队列 A")
CALIBRATIONS = {
    "none": (),
    "shift": (-0.5,),
    "temperature": (1.3,),
    "platt": (0.8, -0.3),
    "beta": (0.5, 0.6, 0.1),
    "isotonic": (0.0, 0.4, 1.0, 0.1, 0.6, 0.9),
}


@pytest.mark.parametrize(("method", "parameters"), CALIBRATIONS.items())
def test_a_patient_calibration_is_kept(
    weights_file: Path, method: str, parameters: tuple[float, ...]
) -> None:
    calibration = replace(CALIBRATED, method=method, parameters=parameters)
    card = replace(CARD, markers={"idh": replace(MARKER, patient_calibration=calibration)})
    save_weights(weights_file, card, load_weights(weights_file).tensors)
    loaded = load_weights(weights_file).card.markers["idh"].patient_calibration
    assert loaded == calibration
    assert (loaded.patients, loaded.positives, loaded.prevalence) == (5, 3, 0.6)


def test_the_methods_are_those_that_can_be_fitted() -> None:
    assert tuple(CALIBRATIONS) == get_args(CalibrationMethodName) == CALIBRATION_METHODS


def test_a_file_without_patient_calibration_stays_as_it_was(weights_file: Path) -> None:
    assert b"patient_calibration" not in weights_file.read_bytes()
    before = weights_file.read_bytes()
    loaded = load_weights(weights_file)
    save_weights(weights_file, loaded.card, loaded.tensors)
    assert weights_file.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        {"method": "spline"},
        {"method": None},
        {"method": "none"},
        {"method": "shift"},
        {"parameters": [0.8]},
        {"parameters": [-0.1, 0.0]},
        {"parameters": [0.8, float("nan")]},
        {"parameters": [0.8, 1e7]},
        {"parameters": ["0.8", 0.0]},
        {"method": "temperature", "parameters": [-1.0]},
        {"method": "beta", "parameters": [0.5, -0.5, 0.0]},
        {"method": "isotonic", "parameters": []},
        {"method": "isotonic", "parameters": [0.0, 1.0, 0.5]},
        {"method": "isotonic", "parameters": [0.0, 0.5, 0.4, 1.0, 0.1, 0.2, 0.3, 0.4]},
        {"method": "isotonic", "parameters": [0.0, 0.5, 1.0, 0.3, 0.2, 0.9]},
        {"method": "isotonic", "parameters": [0.1, 1.0, 0.2, 0.9]},
        {"method": "isotonic", "parameters": [0.0, 0.9, 0.2, 0.9]},
        {"method": "isotonic", "parameters": [0.0, 1.0, -0.2, 0.9]},
        {"method": "isotonic", "parameters": [0.0, 1.0, 0.2, 1.1]},
        {"positive_scores": []},
        {"negative_scores": []},
        {"positive_scores": [0.9, 0.4]},
        {"negative_scores": [0.4, 0.1]},
        {"positive_scores": [0.4, 1.1]},
        {"negative_scores": [-0.1, 0.4]},
        {"negative_scores": [float("nan")]},
        {"negative_scores": 0.4},
        {"cohort": "two\nlines"},
        {"cohort": None},
        {"coverage": 0.9},
    ],
    ids=str,
)
def test_an_invalid_patient_calibration_is_refused(weights_file: Path, change: dict[str, Any]) -> None:
    record = asdict(CARD)
    record["markers"]["idh"]["patient_calibration"] = {**asdict(CALIBRATED), **change}
    rewrite(weights_file, record)
    assert "markers.idh.patient_calibration" in get_error_message(weights_file)


@pytest.mark.parametrize("field", sorted(asdict(CALIBRATED)))
def test_an_incomplete_patient_calibration_is_refused(weights_file: Path, field: str) -> None:
    record = asdict(CARD)
    record["markers"]["idh"]["patient_calibration"] = asdict(CALIBRATED)
    del record["markers"]["idh"]["patient_calibration"][field]
    rewrite(weights_file, record)
    assert f"patient_calibration.{field}" in get_error_message(weights_file)


@pytest.mark.parametrize("level", ["model", "marker"])
def test_a_card_of_a_newer_gliomark_is_refused(weights_file: Path, level: str) -> None:
    record = asdict(CARD)
    (record if level == "model" else record["markers"]["idh"])["abstains"] = True
    rewrite(weights_file, record)
    assert "abstains" in get_error_message(weights_file)


def test_other_files_are_refused(weights_file: Path, tmp_path: Path) -> None:
    assert "does not exist" in get_error_message(tmp_path / "absent.safetensors")
    assert "does not exist" in get_error_message(tmp_path)
    rewrite(weights_file, asdict(CARD), schema_version="1")
    assert "version 2" in get_error_message(weights_file)
    save_file({"a": torch.zeros(2)}, weights_file)
    assert "not a gliomark weights file" in get_error_message(weights_file)


# ---- refusals to write ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_a_diverged_training_is_not_written(weights_file: Path, value: float) -> None:
    """1e6 is finite, but not in half precision."""
    before, loaded = weights_file.read_bytes(), load_weights(weights_file)
    tensors = {**loaded.tensors, "segmentation/a.weight": torch.full((3, 4), value)}
    with pytest.raises(
        GliomarkError, match=r"segmentation/a\.weight.*training diverged.*train again"
    ) as caught:
        save_weights(weights_file, CARD, tensors)
    assert "训练已发散" in render_message(caught.value.message, "zh")
    assert weights_file.read_bytes() == before and len(list(weights_file.parent.iterdir())) == 1


@pytest.mark.parametrize(
    "change",
    [{"segmentation_threshold": float("nan")}, {"rule": "majority"}, {"name": "a\x00"}, {"sequences": ()}],
)
def test_a_card_that_could_not_be_loaded_is_not_written(weights_file: Path, change: dict) -> None:
    before, loaded = weights_file.read_bytes(), load_weights(weights_file)
    with pytest.raises(GliomarkError, match=next(iter(change))):
        save_weights(weights_file, replace(CARD, **change), loaded.tensors)
    assert weights_file.read_bytes() == before and len(list(weights_file.parent.iterdir())) == 1


def test_tensors_that_do_not_fit_their_network_are_not_written(weights_file: Path) -> None:
    before, loaded = weights_file.read_bytes(), load_weights(weights_file)
    with pytest.raises(GliomarkError, match=r"segmentation\.network"):
        save_weights(weights_file, CARD, loaded.tensors, build_segmenter)
    assert weights_file.read_bytes() == before and len(list(weights_file.parent.iterdir())) == 1


def test_a_full_disk_gives_one_sentence_and_leaves_nothing(weights_file: Path) -> None:
    """Simulate a full disk with a limit of 20 kB per file."""
    program = (
        "import resource, signal, sys, torch; from dataclasses import replace; from pathlib import Path\n"
        "from gliomark.models.weights import load_weights, save_weights; from gliomark.errors import GliomarkError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (20_000,) * 2)\n"
        "path = Path(sys.argv[1]); weights = load_weights(path)\n"
        "tensors = {**weights.tensors, 'segmentation/large': torch.ones(100_000)}\n"
        "try:\n    save_weights(path, weights.card, tensors)\nexcept GliomarkError as error:\n    print(error)\n"
    )
    before = weights_file.read_bytes()
    completed = subprocess.run([sys.executable, "-c", program, weights_file], capture_output=True, text=True)
    assert completed.stdout.count("\n") == 1 and str(weights_file) in completed.stdout, completed.stderr
    assert weights_file.read_bytes() == before and len(list(weights_file.parent.iterdir())) == 1
