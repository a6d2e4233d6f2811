"""``gliomark study run``: from a prepared cohort to a model, its out-of-fold predictions and a report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from gliomark.cohort.folds import load_cohort_folds
from gliomark.cohort.store import Cohort, write_json
from gliomark.experiments.result_files import create_run_record
from gliomark.experiments.study.checks import CohortCheck, check_before_training
from gliomark.experiments.study.methods import describe_de_identification, describe_preparation
from gliomark.experiments.study.report import StudyResults, write_report
from gliomark.experiments.study.results import (
    MarkerResult,
    create_table_1,
    evaluate_marker,
    summarise_dice,
    tabulate_patients,
)
from gliomark.experiments.study.training import (
    MarkerStage,
    SegmentationStage,
    StudyConfig,
    train_marker_stage,
    train_segmentation_stage,
)
from gliomark.files import check_writable, remove_leftovers
from gliomark.messages import message
from gliomark.models.weights import MarkerCard, MarkerValidation
from gliomark.training.patient_calibration import add_patient_calibration, calibrate_marker
from gliomark.training.recipes import (
    get_cohort_sequences,
    learn_known_range,
    read_labels_and_values,
    save_model,
)

MODEL_NAME = "model.safetensors"
PREDICTION_COLUMNS = [
    "marker",
    "id",
    "fold",
    "recipe",
    "label",
    "raw_probability",
    "probability",
    "level",
    "calibration",
    "threshold",
    "sensitive_threshold",
    "lesion_volume_ml",
]


def run_study(config: StudyConfig) -> Path:
    """Check the cohort, train what is missing, and write model, predictions, tables and report; the report's path.

    Finished trainings are kept under ``OUT/work``: after an interruption the same call continues, with the same result.

    Raises
    ------
    CohortError
        If the cohort cannot be used, folds share a person, or the work folder holds trainings of another study.
    """
    started, out, cohort = time.time(), config.output_folder, Cohort(config.cohort_folder)
    check = check_before_training(cohort, config.markers, config.different_persons)
    check_writable(out)
    remove_leftovers(out, recursive=True)
    segmentation = train_segmentation_stage(config)
    stages = {
        counts.definition.name: train_marker_stage(config, counts.definition, segmentation)
        for counts in check.markers
        if counts.can_be_studied
    }
    results = collect_results(config, check, segmentation, stages)
    path = write_report(results, out)
    final = learn_known_range(segmentation.final, cohort, segmentation.final.card.training_patients)
    save_final_model(results, replace(segmentation, final=final), stages, out / MODEL_NAME)
    record = create_run_record(
        "study",
        last_call_seconds=round(time.time() - started),
        folds_sha256=load_cohort_folds(cohort).sha256,
        permutations=config.permutations,
        recipes=[recipe.name for recipe in results.recipes],
        segmentation_recipe=segmentation.choice.final.name,
        segmentation_inner_dice=segmentation.choice.inner_scores,
        marker_recipes={name: stage.scores.choice.final.name for name, stage in stages.items()},
        marker_inner_auc={name: stage.scores.choice.inner_scores for name, stage in stages.items()},
    )
    write_json(out / "run_record.json", record)
    return path


def collect_results(
    config: StudyConfig,
    check: CohortCheck,
    segmentation: SegmentationStage,
    stages: Mapping[str, MarkerStage],
) -> StudyResults:
    """Compute everything that the report states."""
    cohort = Cohort(config.cohort_folder)
    segmentation_scores = segmentation.tabulate_patients()
    patients = tabulate_patients(cohort, segmentation_scores)
    labels = {definition: read_labels_and_values(cohort, definition)[0] for definition in config.markers}
    markers = tuple(
        evaluate_marker(cohort, counts, stages.get(counts.definition.name), patients)
        for counts in check.markers
    )
    predictions = pd.DataFrame(columns=PREDICTION_COLUMNS)
    if stages:
        found = pd.concat([stage.scores.tabulate() for stage in stages.values()], ignore_index=True)
        predictions = found.loc[found["is_chosen"], PREDICTION_COLUMNS].sort_values(
            ["marker", "id"], ignore_index=True
        )
    return StudyResults(
        cohort.folder.absolute().name,
        tuple(_list_patient_flow(cohort, segmentation_scores, markers)),
        check.checks,
        patients,
        create_table_1(patients, labels),
        summarise_dice(segmentation_scores),
        predictions,
        markers,
        config.recipes,
        describe_preparation(cohort),
        describe_de_identification(cohort),
    )


def _list_patient_flow(
    cohort: Cohort, segmentation_scores: pd.DataFrame, markers: tuple[MarkerResult, ...]
) -> list[tuple[str, int]]:
    included, needed = cohort.patient_ids, set(get_cohort_sequences(cohort))
    complete = [patient for patient in included if needed <= set(cohort.get_sequences(patient))]
    flow = [
        ("prepared", len(cohort.prepared_ids)),
        ("rejected in qc.csv", len(cohort.prepared_ids) - len(included)),
        ("included", len(included)),
        ("with all sequences", len(complete)),
        ("with a drawn lesion: segmentation trained and tested", segmentation_scores["id"].nunique()),
    ]
    for result in markers:
        title = result.counts.definition.title
        flow.append((f"{title}: label, all sequences and drawn lesion", result.counts.patients))
        if result.counts.can_be_studied:
            flow.append(
                (f"{title}: no lesion outlined by the network, no probability", result.without_lesion)
            )
        if result.evaluation is not None:
            flow.append((f"{title}: evaluated", result.evaluation.overall_statistics.patients))
    return flow


def save_final_model(
    results: StudyResults, segmentation: SegmentationStage, stages: Mapping[str, MarkerStage], path: Path
) -> None:
    """Write the weights trained on all patients, with the performance and the calibration of the folds."""
    dice = results.dice.iloc[-1]
    cards = {name: _create_marker_card(results, name, stage) for name, stage in stages.items()}
    save_model(
        path,
        segmentation.final,
        {name: (stage.final, cards[name]) for name, stage in stages.items()},
        name=f"{results.cohort_name} study",
        segmentation_performance=message(
            "study-card-dice",
            dice=dice["dice"],
            low=dice["dice_low_95"],
            high=dice["dice_high_95"],
            patients=int(dice["patients"]),
        ),
    )


def _create_marker_card(results: StudyResults, name: str, stage: MarkerStage) -> MarkerCard:
    (result,) = (one for one in results.markers if one.counts.definition.name == name)
    if result.evaluation is None:
        return stage.final.create_card(message("study-card-unmeasured"))
    predictions = results.predictions
    rows = predictions[(predictions["marker"] == name) & predictions["probability"].notna()]
    interval, cohort = result.validation, results.cohort_name
    validation = MarkerValidation(
        interval.value, interval.lower, interval.upper, len(rows), int(rows["label"].sum()), cohort
    )
    performance = message(
        "study-card-auc",
        auc=interval.value,
        low=interval.lower,
        high=interval.upper,
        patients=len(rows),
        positives=int(rows["label"].sum()),
    )
    card = replace(stage.final.create_card(performance), validation=validation)
    return add_patient_calibration(card, calibrate_marker(rows["label"], rows["raw_probability"], cohort))
