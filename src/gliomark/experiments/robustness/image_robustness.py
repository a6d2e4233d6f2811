"""Robustness of a model to changed images (``gliomark experiment robustness``).

In the manner of ROOD-MRI (Boone et al., NeuroImage 2023): every change at five strengths, the degradation of Dice
averaged over the strengths, and its mean over the changes. Each patient is read once, the original images are changed
and then prepared and predicted as in a hospital. Patients on whom the model was trained are left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gliomark.cohort.private_files import is_new_id, read_key
from gliomark.cohort.store import write_json
from gliomark.errors import CohortError, GliomarkError
from gliomark.evaluation.intervals import bootstrap_interval
from gliomark.evaluation.metrics import dice
from gliomark.experiments.cohort_evaluation import list_training_patients, score_marker
from gliomark.experiments.result_files import create_run_record, save_figure, write_result_files
from gliomark.experiments.robustness.perturbations import PERTURBATIONS, Perturbation, perturb
from gliomark.experiments.robustness.robustness_plot import plot_robustness
from gliomark.io import find_patients, read_clinical_table, read_study
from gliomark.io.masks.supplied_masks import find_supplied_mask
from gliomark.messages import message
from gliomark.model_loading import Model, load_model
from gliomark.pipeline import UNDETERMINED
from gliomark.preprocessing import prepare
from gliomark.study import CANNOT_TELL, ClinicalData, MRSequence, Series, SliceStack, Study
from gliomark.tables import list_id_spellings
from gliomark.tables.patient_ids import find_similar_ids
from gliomark.training.job_runner import run_jobs

EXPERIMENT_NAME = "robustness"
UNCHANGED, ALL_CHANGES = "unchanged", "mean of all"
DESCRIBED_CHANGES = 3  # with the largest loss, on the terminal
ANSWERED, REFUSED, NOT_POSSIBLE = "answered", "refused", "not possible"
TRAINED_ON, NO_MASK, NO_SEQUENCES, NOT_READ = "trained on", "no mask", "sequence missing", "not predicted"
# beside the model's: T1 shows what enhances, and both decide from which sequence the brain is extracted
KEPT_SEQUENCES = (MRSequence.T1C, MRSequence.T1)


@dataclass(frozen=True)
class RobustnessConfig:
    """What is measured.

    Attributes
    ----------
    cohort_folder
        Folder of patients with original images and lesion masks, as for ``predict``.
    model
        Name of a shipped model or path of a weights file.
    output_folder
        Folder of the tables, and of the patients finished so far (``work/robustness``), which the next call reuses.
    clinical_table
        Table with age and sex; None if both are unknown.
    training_key
        ``key.csv`` of the training cohort, if its build gave the patients new ids.
    is_trained_elsewhere
        The user states that no patient of the folder was used for training, although the training ids are new ones.
    workers
        Worker processes, 0 for none.
    perturbations
        The changes.
    """

    cohort_folder: Path
    model: str
    output_folder: Path
    clinical_table: Path | None = None
    training_key: Path | None = None
    is_trained_elsewhere: bool = False
    workers: int = 0
    perturbations: tuple[Perturbation, ...] = PERTURBATIONS


@dataclass(frozen=True)
class PatientRobustness:
    """Results of one patient.

    reason_left_out: blank if the patient was used. rows: one per change and strength, see ``robustness_patients.csv``.
    """

    patient_id: str
    reason_left_out: str
    rows: tuple[Mapping[str, Any], ...] = ()


def run_robustness(config: RobustnessConfig, notify: Callable[[str], None] = lambda _: None) -> Path:
    """Write ``robustness.csv`` with its other tables, plot and run record; the path of the table.

    Raises
    ------
    CohortError
        If the folder is a prepared cohort, it is not known which patients were used for training, or none is left.
    InputError
        If there is no patient, or the clinical table is not readable.
    WeightsError
        If the model cannot be loaded.
    """
    if (config.cohort_folder / "cohort.json").is_file():
        raise CohortError(message("robustness-prepared", folder=config.cohort_folder))
    model = _load_model(config.model)
    training_ids = _find_training_ids(model, config)
    evaluate = partial(_evaluate_patient, config=config, training_ids=training_ids)
    folders = find_patients(config.cohort_folder)
    results = run_jobs(folders, evaluate, partial(_report_patient, notify), config.workers)
    in_order = [results[folder] for folder in folders]
    used = [one for one in in_order if not one.reason_left_out]
    left_out = pd.Series([one.reason_left_out for one in in_order if one.reason_left_out], dtype=str)
    if not used:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.value_counts().items())
        raise CohortError(message("robustness-none", folder=config.cohort_folder, reasons=reasons))
    patients = pd.DataFrame([{"id": one.patient_id, **row} for one in used for row in one.rows])
    tables = {
        "": summarise_strengths(patients),
        "_summary": summarise_perturbations(patients),
        "_markers": summarise_markers(patients, list(model.card.markers)),
        "_patients": patients,
    }
    record = create_run_record(
        EXPERIMENT_NAME,
        cohort=config.cohort_folder.absolute().name,
        patients=len(used),
        left_out=left_out.value_counts().to_dict(),
        model={"name": model.card.name, "sha256": model.sha256, "engine": model.engine},
        perturbations={one.name: list(one.strengths) for one in config.perturbations},
    )
    path = write_result_files(config.output_folder, EXPERIMENT_NAME, tables, record)
    save_figure(plot_robustness(tables[""], tables["_markers"]), path.with_suffix(".png"))
    return path


def _report_patient(notify: Callable[[str], None], _: Path, result: PatientRobustness) -> None:
    notify(f"{result.patient_id} {result.reason_left_out}".strip())


def _find_training_ids(model: Model, config: RobustnessConfig) -> frozenset[str]:
    """Find the ids of the patients on whom the model was trained, as they are in the original images."""
    ids = list_training_patients(model)
    if config.training_key is not None:
        key = read_key(config.training_key)
        return ids | {key[one] for one in ids if one in key}
    if any(map(is_new_id, ids)) and not config.is_trained_elsewhere:
        raise CohortError(message("robustness-key", model=model.card.name, example=min(ids)))
    return ids


# ---- one patient ------------------------------------------------------------------------------------


@cache
def _load_model(name: str) -> Model:
    return load_model(name)


def _evaluate_patient(
    folder: Path, config: RobustnessConfig, training_ids: frozenset[str]
) -> PatientRobustness:
    """Evaluate a patient with all changes, or return the stored results of an earlier call."""
    model = _load_model(config.model)
    try:
        study = read_study(folder, required_sequences=model.sequences)
    except GliomarkError:
        return PatientRobustness(folder.name, NOT_READ)
    patient = study.patient_id
    if set(list_id_spellings(patient)) & training_ids or find_similar_ids(patient, training_ids):
        return PatientRobustness(patient, TRAINED_ON)
    if not set(model.sequences) <= set(study.series):
        return PatientRobustness(patient, NO_SEQUENCES)
    clinical = ClinicalData(patient, None, None)
    if config.clinical_table is not None:
        clinical = read_clinical_table(config.clinical_table).get_row(patient, require_age_sex=False)
    study = _keep_needed_sequences(study, model)
    path = config.output_folder / "work" / EXPERIMENT_NAME / f"{folder.name}.json"
    key = _compute_key(study, clinical, model, config.perturbations)
    if (stored := _read_stored(path, key)) is not None:
        return stored
    try:
        study = _find_lesion(study, model)
    except GliomarkError:
        return PatientRobustness(patient, NOT_READ)
    if study.lesion is None or not study.lesion.image.any():
        return PatientRobustness(patient, NO_MASK)
    rows = tuple(_measure_perturbations(study, clinical, model, config.perturbations))
    result = PatientRobustness(patient, "" if rows[0]["outcome"] == ANSWERED else NOT_READ, rows)
    write_json(path, {"key": key, **asdict(result)})
    return result


def _keep_needed_sequences(study: Study, model: Model) -> Study:
    """Return the study with the model's sequences first, and only those that affect the result."""
    names = dict.fromkeys((*model.sequences, *KEPT_SEQUENCES))
    return replace(study, series={name: study.series[name] for name in names if name in study.series})


def _find_lesion(study: Study, model: Model) -> Study:
    """Return the study with the lesion mask that was supplied as DICOM, if there is one."""
    if study.lesion is not None:
        return study
    stack = _prepare(study, model)
    found = find_supplied_mask(study, stack)
    if found is None or found.mask is None:
        return study
    lesion = Series(found.mask.astype(np.float32), stack.affine, stack.slice_names, study.source)
    return replace(study, lesion=lesion)


def _prepare(study: Study, model: Model) -> SliceStack:
    return prepare(study, model.sequences, model.preparation)


def _measure_perturbations(
    study: Study, clinical: ClinicalData, model: Model, perturbations: Sequence[Perturbation]
) -> Iterator[dict[str, Any]]:
    unchanged = _measure(study, clinical, model)
    yield {"perturbation": UNCHANGED, "strength": 0, "setting": "", **unchanged}
    if unchanged["outcome"] == REFUSED:
        return
    for perturbation in perturbations:
        for number, strength in enumerate(perturbation.strengths, start=1):
            changed = perturb(study, perturbation, strength)
            yield {
                **_describe_strength(perturbation, number),
                **({"outcome": NOT_POSSIBLE} if changed is None else _measure(changed, clinical, model)),
            }


def _describe_strength(perturbation: Perturbation, number: int) -> dict[str, Any]:
    setting = perturbation.describe(perturbation.strengths[number - 1])
    return {"perturbation": perturbation.name, "strength": number, "setting": setting}


def _measure(study: Study, clinical: ClinicalData, model: Model) -> dict[str, Any]:
    """Prepare and predict a study: Dice, lesion volume in ml, and the markers; or why it is refused."""
    try:
        stack = _prepare(study, model)
        mask = model.segment(stack).mask
    except GliomarkError as error:
        return {"outcome": REFUSED, "reason": getattr(error.message, "code", "")}
    row: dict[str, Any] = {
        "outcome": ANSWERED,
        "dice": dice(stack.reader_mask, mask),
        "lesion_volume_ml": float(mask.sum() * stack.voxel_volume_ml),
    }
    for marker, card in model.card.markers.items():
        scores = score_marker(model, marker, stack, mask, clinical)
        probability = scores[f"{marker}_probability"]
        level = UNDETERMINED
        if np.isfinite(probability):
            level = card.positive if probability >= card.threshold else card.negative
        row |= {f"{marker}_level": level} | scores  # a calibrated model states the level itself
    return row


def _compute_key(
    study: Study, clinical: ClinicalData, model: Model, perturbations: Sequence[Perturbation]
) -> str:
    """Compute a hash of all that determines a patient's results."""
    strengths = [(one.name, one.strengths) for one in perturbations]
    settings = [model.sha256, version("gliomark"), strengths, clinical.age, clinical.sex]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for series in (*study.series.values(), *([study.lesion] if study.lesion is not None else [])):
        digest.update(np.ascontiguousarray(series.image).tobytes() + series.affine.tobytes())
    return digest.hexdigest()


def _read_stored(path: Path, key: str) -> PatientRobustness | None:
    """Read a patient's results; None if there are none, or they were computed from something else."""
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if record.pop("key", None) != key:
        return None
    return PatientRobustness(record["patient_id"], record["reason_left_out"], tuple(record["rows"]))


# ---- tables -----------------------------------------------------------------------------------------


def summarise_strengths(patients: pd.DataFrame) -> pd.DataFrame:
    """Summarise Dice by change and strength.

    ``dice_change`` is the mean difference of a patient's Dice from that of the unchanged images, over the patients who
    are not refused; 95 % intervals by bootstrap over patients. ``missed`` is the share of these without any lesion
    found.
    """
    unchanged = _get_unchanged(patients)["dice"]
    rows = []
    for (name, strength, setting), group in _group_by_strength(patients):
        answered = group[group["outcome"] == ANSWERED]
        values = answered["dice"].to_numpy(float)
        changes = values - unchanged.loc[answered["id"]].to_numpy(float)
        rows.append(
            {
                "perturbation": name,
                "strength": strength,
                "setting": setting,
                "patients": len(answered),
                "refused": int((group["outcome"] == REFUSED).sum()),
                "not_possible": int((group["outcome"] == NOT_POSSIBLE).sum()),
                **_compute_mean_interval("dice", values),
                **_compute_mean_interval("dice_change", changes),
                "missed": float((answered["lesion_volume_ml"] == 0).mean()) if len(answered) else np.nan,
            }
        )
    return pd.DataFrame(rows)


def summarise_perturbations(patients: pd.DataFrame) -> pd.DataFrame:
    """Summarise Dice by change, and last over all changes.

    ``degradation`` is 1 - Dice, ``relative_degradation`` the loss against the unchanged images; both are means over the
    strengths, and in the last row over the changes. ``refused``: share of the patients.
    """
    table = summarise_strengths(patients)
    changed = table[table["perturbation"] != UNCHANGED]
    possible = (changed["patients"] + changed["refused"]).replace(0, np.nan)
    changed = changed.assign(
        degradation=1 - changed["dice"],
        relative_degradation=-changed["dice_change"],
        refused=changed["refused"] / possible,
    )
    columns = ["degradation", "relative_degradation", "refused", "missed"]
    summary = changed.groupby("perturbation", sort=False)[columns].mean().reset_index()
    overall = {"perturbation": ALL_CHANGES, **summary[columns].mean().to_dict()}
    return pd.concat([summary, pd.DataFrame([overall])], ignore_index=True)


def summarise_markers(patients: pd.DataFrame, markers: Sequence[str]) -> pd.DataFrame:
    """Summarise the probabilities by change, strength and marker.

    Over the patients with a probability for the unchanged images: mean and largest absolute change of the probability,
    share of the patients whose level changes (also to or from "cannot tell"), share without a level ("cannot tell"),
    and share who get no probability, because no lesion is found or the images are refused; these count in no other
    column.
    """
    unchanged = _get_unchanged(patients)
    rows = []
    for (name, strength, setting), group in _group_by_strength(patients):
        possible = group[group["outcome"] != NOT_POSSIBLE].set_index("id")
        for marker in markers:
            before = unchanged.reindex(possible.index).dropna(subset=[f"{marker}_probability"])
            after = possible.reindex(before.index)
            known = after[f"{marker}_probability"].notna()
            before, answered = before[known], after[known]
            change = (answered[f"{marker}_probability"] - before[f"{marker}_probability"]).astype(float).abs()
            rows.append(
                {
                    "perturbation": name,
                    "strength": strength,
                    "setting": setting,
                    "marker": marker,
                    "patients": len(answered),
                    "absolute_change": change.mean(),
                    "largest_change": change.max(),
                    "level_changed": (answered[f"{marker}_level"] != before[f"{marker}_level"]).mean(),
                    "cannot_tell": (answered[f"{marker}_level"] == CANNOT_TELL).mean(),
                    "no_probability": (~known).mean(),
                }
            )
    return pd.DataFrame(rows)


def _get_unchanged(patients: pd.DataFrame) -> pd.DataFrame:
    return patients[patients["perturbation"] == UNCHANGED].set_index("id")


def _group_by_strength(patients: pd.DataFrame) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    yield from patients.groupby(["perturbation", "strength", "setting"], sort=False)


def _compute_mean_interval(name: str, values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Compute the mean with its interval; nan without values."""
    bounds = (np.nan,) * 3 if len(values) == 0 else bootstrap_interval(np.mean, values)
    return dict(zip((name, f"{name}_low_95", f"{name}_high_95"), bounds, strict=True))


def describe_robustness(path: Path) -> list[str]:
    """Describe the results in lines for the terminal, from the tables that ``run_robustness`` wrote."""
    unchanged = pd.read_csv(path).iloc[0]
    summary = pd.read_csv(path.with_name(f"{path.stem}_summary.csv")).set_index("perturbation")
    losses = summary["relative_degradation"]
    patients, overall = int(unchanged["patients"]), losses[ALL_CHANGES]
    lines: list[str] = [
        message("robustness-overall", patients=patients, dice=unchanged["dice"], loss=overall)
    ]
    worst = losses.drop(ALL_CHANGES).dropna().nlargest(DESCRIBED_CHANGES)
    return lines + [message("robustness-worst", name=name, loss=loss) for name, loss in worst.items()]
