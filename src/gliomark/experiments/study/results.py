"""The numbers of a study's report: patients, segmentation, and of every marker evaluation, baselines and subgroups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gliomark.cohort.describe import format_scanner
from gliomark.cohort.folds import FOLD_COUNT, folds_excluding, load_cohort_folds
from gliomark.cohort.store import Cohort
from gliomark.evaluation.conservative_auc import compute_conservative_auc_interval
from gliomark.evaluation.delong import compute_delong_interval
from gliomark.evaluation.evaluate import (
    TARGET_SENSITIVITY,
    Evaluation,
    ModelComparison,
    PredictionTable,
    compare_predictions,
    compute_level_shares,
    compute_operating_point,
    evaluate_predictions,
)
from gliomark.evaluation.intervals import UNDEFINED_INTERVAL, Interval, bootstrap_interval
from gliomark.evaluation.metrics import auc, auc_within_groups
from gliomark.experiments.markers.scoring import predict_from_clinical
from gliomark.experiments.study.checks import MarkerCounts
from gliomark.experiments.study.training import MIN_PERMUTATIONS, MarkerScores, MarkerStage
from gliomark.training.recipes import MarkerDefinition, read_labels_and_values

MIN_CLASS_IN_SUBGROUP = 5
NOT_STATED = "not stated"
SEXES = {0: "male", 1: "female"}


@dataclass(frozen=True)
class Subgroup:
    """A group of patients: number, positives, AUC with DeLong's interval (nan below five of a class), mean Dice."""

    characteristic: str
    level: str
    patients: int
    positives: int
    auc: Interval
    dice: Interval


@dataclass(frozen=True)
class ComparedModel:
    """A baseline or recipe: its AUC, that within folds, and DeLong's test on the patients whom both models score."""

    name: str
    patients: int
    auc: Interval
    auc_within_folds: float
    against_model: ModelComparison | None


@dataclass(frozen=True)
class PermutedLabels:
    """The study with labels permuted among the patients, by a seed: patients scored, AUC, and AUC within folds."""

    seed: int
    patients: int
    auc: float
    auc_within_folds: float


@dataclass(frozen=True, eq=False)
class MarkerResult:
    """What the report states of a marker.

    Attributes
    ----------
    counts
        Patients, and how many are needed.
    without_lesion
        Number of test patients in whom no lesion was outlined, and who have no probability.
    evaluation, validation
        Of the calibrated out-of-fold probabilities, and their AUC with the conservative interval. None if the marker
        was not studied, or the scored patients are of one class.
    auc_within_folds
        AUC over pairs of patients of the same fold.
    shares
        Share of the patients of either level whose result is this level or "cannot tell", and of "cannot tell".
    baselines, recipes
        Age and sex, lesion volume; every recipe, if there are several.
    subgroups
        Groups of patients.
    permuted
        Results with permuted labels.
    """

    counts: MarkerCounts
    without_lesion: int = 0
    evaluation: Evaluation | None = None
    validation: Interval = UNDEFINED_INTERVAL
    auc_within_folds: float = float("nan")
    shares: Mapping[str, Interval] | None = None
    baselines: tuple[ComparedModel, ...] = ()
    recipes: tuple[ComparedModel, ...] = ()
    subgroups: tuple[Subgroup, ...] = ()
    permuted: tuple[PermutedLabels, ...] = ()

    @property
    def permuted_mean(self) -> Interval:
        """Mean AUC within folds with permuted labels, and its 99 % interval by Student's t; nan below three."""
        values = [one.auc_within_folds for one in self.permuted if np.isfinite(one.auc_within_folds)]
        if len(values) < MIN_PERMUTATIONS:
            return UNDEFINED_INTERVAL
        mean, error = float(np.mean(values)), float(stats.sem(values))
        if error == 0:
            return Interval(mean, mean, mean)
        low, high = stats.t.interval(0.99, len(values) - 1, mean, error)
        return Interval(mean, float(low), float(high))


# ---- patients ---------------------------------------------------------------------------------------


def tabulate_patients(cohort: Cohort, segmentation: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the patients: fold, age, sex, WHO grade, scanner, reader's lesion volume in ml, and Dice.

    segmentation: from ``SegmentationStage.tabulate_patients``; of several recipes, the one chosen in the patient's fold
    counts. Unknown values are empty.
    """
    folds = load_cohort_folds(cohort).folds
    rows = [_describe_patient(cohort, p) | {"fold": n} for n, fold in enumerate(folds, start=1) for p in fold]
    chosen = segmentation[segmentation["is_chosen"]].set_index("id")
    table = pd.DataFrame(rows).astype({"age": float, "reference_volume_ml": float})
    return table.join(chosen[["dice", "hausdorff_95_mm"]].astype(float), on="id").sort_values(
        "id", ignore_index=True
    )


def _describe_patient(cohort: Cohort, patient: str) -> dict[str, Any]:
    stack, clinical = cohort.read_stack(patient, ()), cohort.get_clinical(patient)
    record = cohort.read_patient_record(patient)
    series = (record.get("series") or {}).get(record["sequences"][-1]) or {}
    return {
        "id": patient,
        "age": clinical.age,
        "sex": SEXES.get(clinical.sex, NOT_STATED) if clinical.sex is not None else NOT_STATED,
        "who_grade": clinical.columns.get("who_grade", "") or NOT_STATED,
        "scanner": format_scanner(series),
        "reference_volume_ml": None
        if stack.lesion is None
        else float(stack.lesion.sum() * stack.voxel_volume_ml),
    }


def assign_levels(patients: pd.DataFrame) -> dict[str, pd.Series]:
    """Assign patients to levels of age, sex and lesion volume, and of grade and scanner where they are known.

    Age and lesion volume are divided at the median of the patients given.
    """
    levels = {
        "age": _divide_at_median(patients["age"], "years"),
        "sex": patients["sex"],
        "lesion volume": _divide_at_median(patients["reference_volume_ml"], "ml"),
        "WHO grade": patients["who_grade"],
        "scanner": patients["scanner"],
    }
    return {name: one for name, one in levels.items() if set(one) != {NOT_STATED}}


def _divide_at_median(values: pd.Series, unit: str) -> pd.Series:
    median = values.median()
    levels = pd.Series(f"{median:.3g} {unit} and more", index=values.index)
    return levels.mask(values < median, f"below {median:.3g} {unit}").mask(values.isna(), NOT_STATED)


def create_table_1(
    patients: pd.DataFrame, labels_by_marker: Mapping[MarkerDefinition, Mapping[str, int]]
) -> pd.DataFrame:
    """Create table 1: characteristics of all patients, and of those negative and positive for each marker."""
    groups = {"all": patients}
    for definition, labels in labels_by_marker.items():
        for value, name in ((0, definition.negative), (1, definition.positive)):
            members = [patient for patient, label in labels.items() if label == value]
            groups[f"{definition.title} {name}"] = patients[patients["id"].isin(members)]
    rows: dict[str, list[str]] = {"patients": [str(len(group)) for group in groups.values()]}
    for title, column in (("age (years)", "age"), ("lesion volume (ml)", "reference_volume_ml")):
        rows[f"{title}, median (quartiles)"] = [_format_quartiles(group[column]) for group in groups.values()]
    for title, column in (("sex", "sex"), ("WHO grade", "who_grade"), ("scanner", "scanner")):
        levels = sorted(patients[column].unique())
        for level in levels if levels != [NOT_STATED] else ():
            counts = [int((group[column] == level).sum()) for group in groups.values()]
            rows[f"{title}: {level}"] = [
                f"{count} ({100 * count / max(len(group), 1):.0f} %)"
                for count, group in zip(counts, groups.values(), strict=True)
            ]
    return pd.DataFrame.from_dict(rows, "index", columns=list(groups)).rename_axis("").reset_index()


def _format_quartiles(values: pd.Series) -> str:
    known = values.dropna()
    if not len(known):
        return "–"
    low, middle, high = np.percentile(known, [25, 50, 75])
    missing = len(values) - len(known)
    return f"{middle:.1f} ({low:.1f} to {high:.1f})" + (f", {missing} unknown" if missing else "")


def summarise_dice(segmentation: pd.DataFrame) -> pd.DataFrame:
    """Summarise the Dice of every recipe's test patients; the chosen recipe of each fold last."""
    tables = {name: one for name, one in segmentation.groupby("recipe", sort=False)}
    if len(tables) > 1:
        tables["chosen by the inner folds"] = segmentation[segmentation["is_chosen"]]
    rows = []
    for name, one in tables.items():
        known = one["dice"].dropna().astype(float)
        mean = compute_mean(known)
        rows.append(
            {
                "recipe": name,
                "patients": len(known),
                "dice": mean.value,
                "dice_low_95": mean.lower,
                "dice_high_95": mean.upper,
                "dice_median": float(known.median()),
                "dice_minimum": float(known.min()),
            }
        )
    return pd.DataFrame(rows)


def compute_mean(values: pd.Series) -> Interval:
    """Return the mean of the known values with its bootstrap interval; nan without any."""
    known = values.dropna().to_numpy(float)
    if not len(known):
        return UNDEFINED_INTERVAL
    return Interval(*bootstrap_interval(lambda column: float(np.mean(column)), known, resamples=1000))


# ---- one marker -------------------------------------------------------------------------------------


def evaluate_marker(
    cohort: Cohort, counts: MarkerCounts, stage: MarkerStage | None, patients: pd.DataFrame
) -> MarkerResult:
    """Evaluate the out-of-fold predictions of a marker; stage: None if it was not studied.

    patients: from ``tabulate_patients``.
    """
    if stage is None:
        return MarkerResult(counts)
    predictions = stage.scores.tabulate()
    chosen = predictions[predictions["is_chosen"]]
    scored = chosen[chosen["probability"].notna()]
    without_lesion = len(chosen) - len(scored)
    if scored["label"].nunique() < 2:
        return MarkerResult(counts, without_lesion)
    table = scored.merge(patients.drop(columns="fold"), on="id")
    model = _to_predictions(counts.definition.title, table)
    recipes = predictions.groupby("recipe", sort=False)
    return MarkerResult(
        counts,
        without_lesion,
        _evaluate(model, table),
        compute_conservative_auc_interval(model.labels, model.probabilities),
        auc_within_groups(table["label"], table["probability"], table["fold"]),
        compute_level_shares(
            table["level"], table["label"], counts.definition.positive, counts.definition.negative
        ),
        tuple(
            _compare(name, one, model)
            for name, one in _predict_baselines(cohort, counts.definition, patients, chosen).items()
        ),
        tuple(_compare(str(name), one, model) for name, one in recipes) if recipes.ngroups > 1 else (),
        tuple(_list_subgroups(table)),
        tuple(_evaluate_permuted(seed, scores) for seed, scores in stage.permuted.items()),
    )


def _evaluate_permuted(seed: int, scores: MarkerScores) -> PermutedLabels:
    table = scores.tabulate()
    table = table[table["is_chosen"] & table["probability"].notna()]
    label, probability = table["label"].to_numpy(int), table["probability"].to_numpy(float)
    return PermutedLabels(
        seed, len(table), auc(label, probability), auc_within_groups(label, probability, table["fold"])
    )


def _to_predictions(name: str, table: pd.DataFrame) -> PredictionTable:
    return PredictionTable(
        name,
        tuple(table["id"]),
        table["label"].to_numpy(int),
        table["probability"].to_numpy(float),
        None,
    )


def _evaluate(model: PredictionTable, table: pd.DataFrame) -> Evaluation:
    """Evaluate the calibrated probabilities, at the thresholds that were chosen without each patient's fold."""
    chosen_on = "the inner folds"
    points = {
        "Youden": (chosen_on, table["threshold"].to_numpy(float)),
        f"sensitivity {TARGET_SENSITIVITY:g}": (chosen_on, table["sensitive_threshold"].to_numpy(float)),
        "0.5": ("fixed in advance", np.full(len(table), 0.5)),
    }
    return replace(
        evaluate_predictions(model, model_threshold=0.5),
        operating_points=tuple(
            compute_operating_point(name, source, threshold, model.labels, model.probabilities)
            for name, (source, threshold) in points.items()
        ),
    )


def _list_subgroups(table: pd.DataFrame) -> list[Subgroup]:
    found = []
    for characteristic, levels in assign_levels(table).items():
        for level in sorted(levels.unique()):
            group = table[levels == level]
            label = group["label"].to_numpy(int)
            is_enough = min(int(label.sum()), int((1 - label).sum())) >= MIN_CLASS_IN_SUBGROUP
            area = compute_delong_interval(label, group["probability"]) if is_enough else UNDEFINED_INTERVAL
            dice = compute_mean(group["dice"])
            found.append(Subgroup(characteristic, level, len(group), int(label.sum()), area, dice))
    return found


# ---- baselines --------------------------------------------------------------------------------------


def _compare(name: str, table: pd.DataFrame, model: PredictionTable) -> ComparedModel:
    """Compare a table of id, fold, label and probability with the study's model."""
    known = table[table["probability"].notna()]
    label, probability = known["label"].to_numpy(int), known["probability"].to_numpy(float)
    common = known[known["id"].isin(model.ids)]
    return ComparedModel(
        name,
        len(known),
        compute_delong_interval(label, probability),
        auc_within_groups(label, probability, known["fold"]),
        compare_predictions(model, _to_predictions(name, common)) if common["label"].nunique() > 1 else None,
    )


Baseline = Callable[[Sequence[str], Sequence[str]], Mapping[str, float]]


def _predict_baselines(
    cohort: Cohort, definition: MarkerDefinition, patients: pd.DataFrame, scores: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Predict each fold from age and sex, and from lesion volume, by regressions on the other folds.

    A baseline whose columns are unknown in the cohort is left out.
    """
    labels, _ = read_labels_and_values(cohort, definition)
    clinical = {patient: cohort.get_clinical(patient) for patient in labels}
    drawn_ml = patients.set_index("id")["reference_volume_ml"]
    outlined_ml = scores.set_index("id")["lesion_volume_ml"]

    def predict_from_age_and_sex(training: Sequence[str], test: Sequence[str]) -> dict[str, float]:
        if all(clinical[p].age is None or clinical[p].sex is None for p in training):
            return {}
        return {
            p: float(one[0]) for p, one in predict_from_clinical(clinical, labels, training, test).items()
        }

    def predict_from_volume(training: Sequence[str], test: Sequence[str]) -> dict[str, float]:
        """Fit to drawn volumes, and predict from outlined ones, as of the study's model."""
        fitted, tested = [p for p in training if drawn_ml[p] > 0], [p for p in test if outlined_ml[p] > 0]
        if len({labels[p] for p in fitted}) < 2 or not tested:
            return {}
        regression = make_pipeline(StandardScaler(), LogisticRegression())
        regression.fit(np.log(drawn_ml[fitted].to_numpy())[:, None], [labels[p] for p in fitted])
        found = regression.predict_proba(np.log(outlined_ml[tested].to_numpy())[:, None])[:, 1]
        return dict(zip(tested, found.tolist(), strict=True))

    baselines: dict[str, Baseline] = {
        "age and sex": predict_from_age_and_sex,
        "lesion volume": predict_from_volume,
    }
    tables = {}
    for name, predict in baselines.items():
        rows = []
        for number in range(FOLD_COUNT):
            parts = folds_excluding(load_cohort_folds(cohort), number)
            test = [p for p in parts.excluded if p in labels]
            for patient, probability in predict(parts.restrict_to(labels).patients, test).items():
                rows.append((patient, number + 1, labels[patient], probability))
        if rows:
            tables[name] = pd.DataFrame(rows, columns=["id", "fold", "label", "probability"])
    return tables
