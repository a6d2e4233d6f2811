"""Training and evaluation of the demonstration weights on TCGA-LGG.

Every recipe is evaluated in five folds by patient and then trained again on all patients; that final model is shipped.
Markers are evaluated as a cascade, on segmentations by the network of the fold that was not trained on the patient. A
marker that is no better than chance stays in the tables but is not shipped. Finished steps are kept under ``OUT/work``
and are not repeated.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from gliomark.cohort.folds import CohortFolds, folds_excluding, load_cohort_folds
from gliomark.cohort.store import Cohort, write_json
from gliomark.experiments.config import ExperimentConfig
from gliomark.experiments.markers.cascade import (
    CASCADE_STAGE,
    get_cascade_folder,
    load_cascade_labels,
    run_cascade,
    summarise_cascade,
)
from gliomark.experiments.markers.scoring import predict_from_clinical
from gliomark.experiments.result_files import create_run_record, write_table
from gliomark.experiments.runner import FinishedJob, TrainingJob, complete_jobs, run_experiment
from gliomark.experiments.segmentation.procedure import (
    SegmentationRun,
    list_patients_with_mask,
    to_run_record,
)
from gliomark.experiments.segmentation.result_tables import SHIPPED_TABLE, list_shipped_runs
from gliomark.messages import message
from gliomark.model_loading import build_model, build_segmenter
from gliomark.models.patient_calibration import PatientCalibration
from gliomark.models.weights import MarkerValidation, Weights, load_weights, save_weights
from gliomark.training.markers import MarkerTrainingConfig, create_marker_config
from gliomark.training.patient_calibration import add_patient_calibration, calibrate_marker
from gliomark.training.recipes import (
    MARKER_DEFINITIONS,
    MarkerDefinition,
    TrainedMarker,
    collect_segmentation_tensors,
    create_segmentation_card,
    get_cohort_sequences,
    learn_known_range,
    save_model,
    train_marker,
    update_inference_settings,
)
from gliomark.training.segmentation import train_segmentation_network
from gliomark.training.slice_dataset import get_high_grade_label, load_slice_dataset
from gliomark.training.work_folder import to_config_record

EXPERIMENT_NAME = "demonstration"
COHORT_DESCRIPTION = "TCGA-LGG with the FLAIR-abnormality masks of Buda et al. 2019"
LICENCE = (
    "CC BY-NC-SA 4.0 (non-commercial, share-alike), inherited from the training masks; "
    "images TCIA TCGA-LGG, CC BY 3.0"
)
INTENDED_USE = (
    "demonstration and research only; not a medical device; trained on lower-grade glioma with T1C and FLAIR"
)
VALIDATION_COHORT = "TCGA-LGG"
MARKER_NAMES = ("idh", "proliferation")
CLINICAL_ONLY_STAGE = "age and sex alone"


def run_demonstration(config: ExperimentConfig) -> None:
    """Train the missing networks, evaluate them, and write weights, tables and run record to the output folder.

    On the test-only cohorts, the segmentation is tested.

    Raises
    ------
    CohortError
        If a cohort cannot be used, or the work folder holds networks of another recipe or other patients.
    """
    started = time.time()
    (folder,), out, say = config.cohort_folders, config.output_folder, config.notify
    cohort = Cohort(folder)
    folds, runs = load_cohort_folds(cohort), list_shipped_runs(cohort)
    summary = run_experiment(SHIPPED_TABLE, config).rows
    say(summary.to_string(index=False))
    network = train_final_segmentation_network(runs[-1], config)
    say("the segmentation network is trained on all patients")
    definitions = [MARKER_DEFINITIONS[name] for name in MARKER_NAMES]
    cascade_tables = [run_cascade(d, runs[-1], create_marker_training(), config) for d in definitions]
    patients = pd.concat([*cascade_tables, *(_score_clinical_only(d, cohort, folds) for d in definitions)])
    markers = summarise_cascade(patients)
    write_table(patients, out / "markers_patients.csv")
    write_table(markers, out / "markers.csv")
    say(markers.to_string(index=False))
    trained_markers = {d.name: _train_final_marker(d, cohort, folds, config.work_folder) for d in definitions}
    weights = out / f"{EXPERIMENT_NAME}.safetensors"
    network = learn_known_range(network, cohort, network.card.training_patients)
    _save_model_file(weights, network, summary, trained_markers)
    apply_marker_validation(weights, markers, patients, folds)
    _write_run_record(out / "run_record.json", cohort, folds, weights, time.time() - started)


@dataclass(frozen=True)
class FinalNetworkProcedure:
    """Training of the final segmentation network on all patients with a mask."""

    def list_jobs(
        self, runs: Sequence[SegmentationRun], _: int, config: ExperimentConfig
    ) -> list[TrainingJob[SegmentationRun]]:
        """List one job per run, without an excluded fold."""
        return [TrainingJob(run, (), config.cohort_folders[:1], config.work_folder) for run in runs]

    def get_record_path(self, job: TrainingJob[SegmentationRun]) -> Path:
        """Return the path of the network's record, beside its weights."""
        return job.work_folder / "shipped.json"

    def create_key(self, job: TrainingJob[SegmentationRun]) -> dict[str, Any]:
        """Settings, patients and image hashes that identify the network."""
        cohort = Cohort(job.cohort_folders[0])
        patients = list_patients_with_mask(cohort)
        key: dict[str, Any] = {
            "trial": to_run_record(job.run),
            "patients": patients,
            "arrays": cohort.hash_arrays(patients),
        }
        if getattr(job.run.training.network, "guidance", False):  # the only networks that learn grades
            key["grades"] = [get_high_grade_label(cohort.get_clinical(patient)) for patient in patients]
        return key

    def execute(self, job: TrainingJob[SegmentationRun], checkpoint_folder: Path) -> None:
        """Train the network and write its weights."""
        cohort, run, settings = Cohort(job.cohort_folders[0]), job.run, job.run.training
        patients, sequences = list_patients_with_mask(cohort), get_cohort_sequences(cohort)
        dataset = load_slice_dataset(cohort, patients, sequences, run.rule == "joint", settings.context)
        trained = train_segmentation_network(dataset, settings, checkpoint_folder)
        folds = load_cohort_folds(cohort)
        card = create_segmentation_card("shipped", cohort, folds, patients, run.rule, settings)
        card = update_inference_settings(card, run.flips, run.smallest_share, run.pooling_factor)
        tensors = collect_segmentation_tensors(trained.network, trained.prior)
        save_weights(
            self.get_record_path(job).with_suffix(".safetensors"),
            card,
            tensors,
            partial(build_segmenter, engine="torch"),
        )

    def to_record(self, finished: FinishedJob[None]) -> dict[str, Any]:
        """Convert the finished job to its record."""
        return {"key": finished.key}

    def from_record(self, record: dict[str, Any]) -> FinishedJob[None]:
        """Convert a record to the finished job; the duration is not stored."""
        return FinishedJob(record["key"], None, 0)

    def describe(self, job: TrainingJob[SegmentationRun], _: FinishedJob[None]) -> str:
        """Describe the finished job."""
        return f"{job.run.name}: trained on all patients"


def train_final_segmentation_network(run: SegmentationRun, config: ExperimentConfig) -> Weights:
    """Train the final segmentation network on all patients with a mask, unless it is finished; its weights.

    Raises
    ------
    CohortError
        If the work folder holds a network of another recipe or other patients.
    """
    procedure = FinalNetworkProcedure()
    (job,) = procedure.list_jobs([run], 0, config)
    complete_jobs([job], procedure, config)
    return load_weights(procedure.get_record_path(job).with_suffix(".safetensors"))


def create_marker_training() -> MarkerTrainingConfig:
    """Return the training settings of the shipped markers."""
    return create_marker_config("pretrained")


def _train_final_marker(
    definition: MarkerDefinition, cohort: Cohort, folds: CohortFolds, work_folder: Path
) -> TrainedMarker:
    """Train the final marker model on all patients; its trees use the networks already trained for the folds."""
    labels_and_values = load_cascade_labels(cohort, definition)
    return train_marker(
        cohort,
        folds_excluding(folds, None),
        definition,
        *labels_and_values,
        create_marker_training(),
        get_cascade_folder(work_folder),
    )


def _score_clinical_only(definition: MarkerDefinition, cohort: Cohort, folds: CohortFolds) -> pd.DataFrame:
    """Score each fold from age and sex alone, fitted on the other four: the reference any image must exceed."""
    (labels, _), rows = load_cascade_labels(cohort, definition), []
    clinical_by_patient = {p: cohort.get_clinical(p) for p in labels}
    for number, fold in enumerate(folds.folds):
        training_patients = folds_excluding(folds, number).restrict_to(labels).patients
        probability_by_patient = predict_from_clinical(
            clinical_by_patient, labels, training_patients, [p for p in fold if p in labels]
        )
        for patient, (p,) in probability_by_patient.items():
            rows.append(
                (
                    definition.name,
                    number + 1,
                    "none",
                    patient,
                    labels[patient],
                    CLINICAL_ONLY_STAGE,
                    "none",
                    p,
                    0.5,
                )
            )
    columns = ["marker", "fold", "outline", "patient", "label", "stage", "fusion", "probability", "threshold"]
    return pd.DataFrame(rows, columns=columns)


def _save_model_file(
    path: Path,
    segmentation_weights: Weights,
    segmentation_table: pd.DataFrame,
    trained_markers: Mapping[str, TrainedMarker],
) -> None:
    """Write the segmentation network and all trained markers to one weights file."""
    save_model(
        path,
        segmentation_weights,
        {name: (marker, marker.create_card()) for name, marker in trained_markers.items()},
        name=f"gliomark {EXPERIMENT_NAME} (TCGA-LGG)",
        licence=LICENCE,
        intended_use=INTENDED_USE,
        segmentation_performance=_describe_segmentation_performance(segmentation_table),
        stand_ins={"FLAIR": "T2"},
    )


def apply_marker_validation(
    weights_path: Path, marker_table: pd.DataFrame, patient_table: pd.DataFrame, folds: CohortFolds
) -> None:
    """Add validation results and calibration to each marker; remove markers that are no better than chance.

    The tensors of the others are not changed, so that an older weights file can be updated without training.

    marker_table, patient_table: ``markers.csv`` and ``markers_patients.csv``.
    """
    weights = load_weights(weights_path)
    rows = {name: _select_cascade_row(marker_table, name) for name in weights.card.markers}
    validations = {name: _create_marker_validation(row) for name, row in rows.items()}
    shipped = {
        name: add_patient_calibration(
            replace(
                card,
                performance=_describe_marker_performance(rows[name]),
                warning="",
                validation=validations[name],
            ),
            _calibrate_shipped_marker(patient_table, name),
        )
        for name, card in weights.card.markers.items()
        if validations[name].is_better_than_chance
    }
    removed_markers = set(validations) - set(shipped)
    tensors = {
        name: t for name, t in weights.tensors.items() if name.partition("/")[0] not in removed_markers
    }
    cohort_text = f"{len(weights.card.training_patients)} patients for the outline"
    if shipped:
        cohort_text += f", at least {min(validations[name].patients for name in shipped)} per marker"
    card = replace(
        weights.card,
        markers=shipped,
        folds_sha256=folds.sha256,
        training_cohort=f"{COHORT_DESCRIPTION}: {cohort_text}",
    )
    save_weights(weights_path, card, tensors, partial(build_model, engine="torch"))


# The card of the shipped weights contains the texts of the following functions: a change alters the weights file.


def _describe_segmentation_performance(segmentation_table: pd.DataFrame) -> str:
    r = segmentation_table[segmentation_table["tested_on"] == segmentation_table["tested_on"].iloc[0]].iloc[
        -1
    ]
    return message(
        "outline-performance",
        dice=f"{r.dice:.2f}",
        low=f"{r.dice_low_95:.2f}",
        high=f"{r.dice_high_95:.2f}",
        median=f"{r.dice_median:.2f}",
        patients=r.patients,
    )


def _select_cascade_row(marker_table: pd.DataFrame, marker_name: str) -> pd.Series:
    return _select_cascade_rows(marker_table, marker_name).iloc[0]


def _select_cascade_rows(table: pd.DataFrame, marker_name: str) -> pd.DataFrame:
    """Select the rows of the shipped configuration: predicted segmentations, both stages, fusion rule "near"."""
    is_selected = (table["marker"] == marker_name) & (table["outline"] == "predicted")
    return table[is_selected & (table["stage"] == CASCADE_STAGE) & (table["fusion"] == "near")]


def _calibrate_shipped_marker(patient_table: pd.DataFrame, marker_name: str) -> PatientCalibration:
    rows = _select_cascade_rows(patient_table, marker_name)
    return calibrate_marker(rows["label"], rows["probability"], VALIDATION_COHORT)


def _describe_marker_performance(row: pd.Series) -> str:
    return (
        f"AUC {row.auc:.2f} (95 % interval {row.low_95:.2f} to {row.high_95:.2f}) of the same recipe on {row.patients} "
        f"TCGA-LGG patients in five folds, each never trained on ({row.positive} positive), outlines predicted, slices "
        "fused by Near; these weights are trained on all of them"
    )


def _create_marker_validation(row: pd.Series) -> MarkerValidation:
    """Convert the row to the card's validation entry, rounded to four decimals as in the table."""
    auc, low, high = (round(float(row[name]), 4) for name in ("auc", "low_95", "high_95"))
    return MarkerValidation(auc, low, high, int(row.patients), int(row.positive), VALIDATION_COHORT)


def _write_run_record(
    path: Path, cohort: Cohort, folds: CohortFolds, weights_path: Path, seconds: float
) -> None:
    """Write the run record: settings, versions and the patients of every fold."""
    loaded = load_weights(weights_path)
    record = create_run_record(
        EXPERIMENT_NAME,
        last_call_seconds=round(seconds),
        segmentation=asdict(loaded.card.segmentation),
        markers={name: to_config_record(create_marker_training()) for name in MARKER_NAMES},
        patients=len(cohort.patient_ids),
        folds_sha256=folds.sha256,
        folds=asdict(folds),
        weights_sha256=loaded.sha256,
    )
    write_json(path, record)
