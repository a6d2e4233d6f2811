"""Result tables of the documents, generated in Markdown from ``results/*.csv`` alone."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from gliomark.cohort.folds import FOLD_COUNT
from gliomark.errors import ConfigurationError
from gliomark.experiments.markers.cascade import CASCADE_STAGE
from gliomark.experiments.markers.markdown_tables import MARKER_TITLES, OUTLINE_NAMES, format_marker_results
from gliomark.experiments.speed_tables import format_speed_results
from gliomark.experiments.unusual_inputs.markdown_table import format_unusual_inputs
from gliomark.files import atomic_write

# Dice of every patient in table 3-1, now and as measured with gliomark 0.1, and in table 3-2
COMPARED_PATIENTS = ("table_3_1_patients.csv", "table_3_1_patients_0_1.csv", "table_3_2_patients.csv")
RESULTS_BEGIN, RESULTS_END = "<!-- results:begin -->", "<!-- results:end -->"


def update_documents(results_folder: Path, documents_folder: Path) -> list[Path]:
    """Replace the text between the two result markers in each document; the paths written.

    Raises
    ------
    InputError
        If a document lacks the markers.
    """
    paths = []
    for name, format_results in DOCUMENT_FORMATTERS.items():
        paths.append(documents_folder / name)
        text = insert_results(paths[-1].read_text("utf-8"), format_results(results_folder), paths[-1])
        atomic_write(paths[-1], text)
    return paths


def insert_results(document: str, markdown: str, path: Path) -> str:
    """Return the document with ``markdown`` between its markers.

    Raises
    ------
    InputError
        If the markers are missing; ``path`` is named in the message.
    """
    if RESULTS_BEGIN not in document or RESULTS_END not in document:
        raise ConfigurationError(
            f"{path} has no markers for results: insert '{RESULTS_BEGIN}{RESULTS_END}' where they belong."
        )
    before, remainder = document.split(RESULTS_BEGIN, 1)
    return f"{before}{RESULTS_BEGIN}\n{markdown}\n{RESULTS_END}{remainder.split(RESULTS_END, 1)[1]}"


def format_main_results(results_folder: Path) -> str:
    """Format the tables of segmentation, markers and the coverage of stated levels."""
    segmentation = pd.read_csv(results_folder / "segmentation.csv")
    markers = pd.read_csv(results_folder / "markers.csv", keep_default_na=False, na_values=[""])
    coverage = _format_coverage_table(pd.read_csv(results_folder / "conformal_coverage_idh.csv"))
    tables = [
        _format_segmentation_table(segmentation),
        _format_t2_outline(pd.read_csv(results_folder / "t2_outline.csv")),
        _format_marker_table(markers),
        coverage,
    ]
    return "\n\n".join(tables)


def _format_t2_outline(table: pd.DataFrame) -> str:
    """Format the result of the second segmentation network in one sentence."""
    (r,) = table.itertuples()
    return (
        f"T1C and T2 where FLAIR is missing: mean Dice {r.dice:.3f} ({r.dice_low_95:.3f} to {r.dice_high_95:.3f}), "
        f"median {r.dice_median:.3f}, worst {r.dice_worst:.3f}, in {r.patients} patients with real T2, each outlined "
        "by a network that was not trained on the patient (`results/t2_outline_patients.csv`)."
    )


def _format_segmentation_table(table: pd.DataFrame) -> str:
    first = table.iloc[0]
    lines = [
        f"Segmentation: Dice per patient over all prepared slices, {first.folds} folds by patient; the last row is the "
        "shipped configuration:",
        "",
        "| recipe | patients | mean Dice (95 % interval) | median | worst | lesion-free slices with < 1 % outlined |",
        "|---|---|---|---|---|---|",
    ]
    for r in table[table["tested_on"] == first.tested_on].itertuples():
        mean = f"{r.dice:.3f} ({r.dice_low_95:.3f} to {r.dice_high_95:.3f})"
        lines.append(
            f"| {r.trial} | {r.patients} | {mean} | {r.dice_median:.3f} | {r.dice_worst:.3f} "
            f"| {r.small_false_area:.1%} |"
        )
    for name, part in table[table["tested_on"] != first.tested_on].groupby("tested_on", sort=False):
        r = part.iloc[-1]
        dice = "none with a lesion" if pd.isna(r.sensitivity) else f"mean Dice {r.dice:.3f}"
        lines += [
            "",
            f"Shipped configuration, network of the first fold, on `{name}` ({r.patients} patients, {dice}): "
            f"{r.small_false_area:.1%} of {r.lesion_free_slices} lesion-free slices have less than 1 % of the brain "
            "outlined.",
        ]
    return "\n".join(lines)


def _format_marker_table(table: pd.DataFrame) -> str:
    """Format the shipped markers: those for which the cascade is better than chance."""
    cascade = table["stage"].eq(CASCADE_STAGE) & table["outline"].eq("predicted") & table["fusion"].eq("near")
    shipped = table[cascade & (table["low_95"] > 0.5)]["marker"]
    lines = [
        "Markers, patient level (near: mean of the three slices around the largest lesion), five folds by patient:",
        "",
        "| marker | segmentation | predicted by | n (positive) | AUC (95 % interval) | AUC within folds "
        "| sensitivity | specificity |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in table[table["fusion"].isin(["near", "none"]) & table["marker"].isin(shipped)].itertuples():
        area = f"{r.auc:.2f} ({r.low_95:.2f} to {r.high_95:.2f})"
        lines.append(
            f"| {MARKER_TITLES[r.marker]} | {OUTLINE_NAMES[r.outline]} | {r.stage} | {r.patients} ({r.positive}) "
            f"| {area} | {r.auc_in_folds:.2f} | {r.sensitivity:.2f} | {r.specificity:.2f} |"
        )
    return "\n".join(lines)


def _format_coverage_table(table: pd.DataFrame) -> str:
    """Format how often the stated levels of IDH are right and how often none is stated."""
    first = table.iloc[0]
    lines = [
        f"IDH, out-of-fold predictions of {first.patients:.0f} patients: one half gives the limits, the other is "
        f"decided; mean of {first.repeats:.0f} random halves:",
        "",
        "| coverage | true level possible: mutant | wild type | mutant called wild type | wild type called mutant "
        "| cannot tell |",
        "|---|---|---|---|---|---|",
    ]
    for r in table.itertuples():
        lines.append(
            f"| {r.coverage:.0%} | {r.positives_covered:.1%} | {r.negatives_covered:.1%} "
            f"| {r.stated_wrong_positives:.1%} | {r.stated_wrong_negatives:.1%} | {r.stated_cannot_tell:.1%} |"
        )
    return "\n".join(lines)


def format_cohort_results(results_folder: Path) -> str:
    """Format table 2-3 and the accuracy of registration and series recognition."""
    table = _format_table_2_3(pd.read_csv(results_folder / "table_2_3.csv"))
    return f"{table}\n\n{_format_registration_and_recognition(results_folder)}"


def _format_table_2_3(table: pd.DataFrame) -> str:
    first = table.iloc[0]
    lines = [
        f"Detection of slices with a lesion (table 2-3): {first.cohort}, {first.sequences}, {first.patients} patients, "
        f"{first.slices} slices, five folds by patient, initial weights {first.initial_weights}. Preset "
        f"`{first.preset}`: {first.cuts}. Intervals by bootstrap over patients.",
        "",
        "| network | accuracy (95 % interval) | published | sensitivity (95 % interval) | published | AUC |",
        "|---|---|---|---|---|---|",
    ]
    for r in table.itertuples():
        accuracy = f"{r.accuracy:.3f} ({r.accuracy_low_95:.3f} to {r.accuracy_high_95:.3f})"
        sensitivity = f"{r.sensitivity:.3f} ({r.sensitivity_low_95:.3f} to {r.sensitivity_high_95:.3f})"
        lines.append(
            f"| {r.network} | {accuracy} | {r.published_accuracy:.3f} | {sensitivity} "
            f"| {r.published_sensitivity:.3f} | {r.auc:.3f} |"
        )
    return "\n".join(lines)


def _format_registration_and_recognition(results_folder: Path) -> str:
    """Format one sentence each on registration and on series recognition."""
    registrations = pd.read_csv(results_folder / "registration_accuracy.csv")
    recognitions = pd.read_csv(results_folder / "series_recognition.csv", keep_default_na=False)
    generated = recognitions[recognitions["source"] == "generated"]
    target_sequences = {"T1", "T1C", "T2", "FLAIR"}
    wrong = generated[
        generated["recognised"].isin(target_sequences) & (generated["recognised"] != generated["truth"])
    ]["count"].sum()
    return (
        f"Registration of T1C to T2 in {len(registrations)} synthetic patients with head movements of up to "
        f"{registrations['before_mm'].max():.1f} mm (mean over the brain): mean error "
        f"{registrations['mean_mm'].median():.2f} mm "
        f"(median of patients), largest error at any voxel {registrations['max_mm'].max():.2f} mm.\n\n"
        f"Series recognition: {generated['count'].sum()} generated headers, {wrong} recognised as a wrong "
        f"sequence; the "
        "confusion table is `results/series_recognition.csv`."
    )


def format_segmentation_results(results_folder: Path) -> str:
    """Format the available tables of chapter 3."""
    titles = {
        "table_3_1": "MIG-Net and comparison networks (table 3-1)",
        "table_3_2": "Ablation of FPG, guidance and IAG (table 3-2)",
        "table_3_3": "Trained on one cohort, tested on another (table 3-3)",
        "segmentation_extensions": "Extensions of the published study",
    }
    parts = [
        _format_chapter_3_table(title, pd.read_csv(results_folder / f"{name}.csv"))
        for name, title in titles.items()
        if (results_folder / f"{name}.csv").exists()
    ]
    if all((results_folder / name).exists() for name in ("table_3_1.csv", *COMPARED_PATIENTS)):
        parts.insert(1, _format_paired_comparisons(results_folder))
    if (results_folder / "gpu_segmentation.csv").exists():
        parts.insert(0, _format_gpu_results(results_folder))
    if (results_folder / "corrected_errors.csv").exists():
        parts.append(_format_corrected_errors(pd.read_csv(results_folder / "corrected_errors.csv")))
    return "\n\n".join(parts)


def _format_corrected_errors(table: pd.DataFrame) -> str:
    """Format what each corrected error cost: the network without it and with it alone, in the same folds."""
    first = table.iloc[0]
    seeds = "one seed" if first.seeds == 1 else f"mean of {first.seeds} seeds"
    lines = [
        f"**Corrected errors, each put back alone.** {first.sequences}, {first.folds} of {FOLD_COUNT} folds, "
        f"preset `{first.preset}`, {seeds}. Mean Dice over patients; difference: what the correction gains.",
        "",
        "| error | network | patients | corrected | with the error | difference (95 % interval) | p |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in table.itertuples():
        interval = f"{r.difference:+.3f} ({r.difference_low_95:+.3f} to {r.difference_high_95:+.3f})"
        lines.append(
            f"| {r.error} | {r.network} | {r.patients} | {r.dice:.3f} | {r.dice_with_error:.3f} | {interval} "
            f"| {r.wilcoxon_p:.2g} |"
        )
    return "\n".join(lines)


def _format_paired_comparisons(results_folder: Path) -> str:
    """Compare MIG-Net with Swin-UNet, and every network of table 3-1 with gliomark 0.1, patient by patient."""
    from gliomark.experiments.segmentation.result_tables import average_over_seeds, compare_paired_dice
    from gliomark.experiments.segmentation.runs import COST_MATCHED_UNET, MIGNET, SWIN_UNET

    now, before, ablation = (
        {
            trial: average_over_seeds(part)
            for trial, part in pd.read_csv(results_folder / name).groupby("trial", sort=False)
        }
        for name in COMPARED_PATIENTS
    )
    pairs = {
        f"{MIGNET} and {SWIN_UNET}": (now[MIGNET], now[SWIN_UNET]),
        f"{COST_MATCHED_UNET} and {SWIN_UNET}": (now[COST_MATCHED_UNET], now[SWIN_UNET]),
        **{
            f"{trial}, now and with gliomark 0.1": (now[trial], before[trial])
            for trial in before
            if trial in now
        },
        **{
            f"{trial}, in table 3-1 and in table 3-2": (now[trial], ablation[trial])
            for trial in (SWIN_UNET, MIGNET)
        },
    }
    lines = [
        "Compared patient by patient: mean Dice, and the difference, first minus second. gliomark 0.1 was measured in "
        "other folds. Tables 3-1 and 3-2 share folds and seed and were computed on different processors.",
        "",
        "| compared | patients | first | second | difference (95 % interval) | p |",
        "|---|---|---|---|---|---|",
    ]
    for title, (first, second) in pairs.items():
        c = compare_paired_dice(first, second)
        dice = [table.set_index("patient")["dice"] for table in (first, second)]
        both = pd.concat(dice, axis=1, join="inner", keys=("first", "second"))
        interval = f"{c['difference']:+.3f} ({c['difference_low_95']:+.3f} to {c['difference_high_95']:+.3f})"
        means = f"{both['first'].mean():.3f} | {both['second'].mean():.3f}"
        lines.append(f"| {title} | {len(both)} | {means} | {interval} | {c['wilcoxon_p']:.2g} |")
    return "\n".join(lines)


def _format_gpu_results(results_folder: Path) -> str:
    """Format the results of published size on one GPU: every network and seed, means over seeds, training speed."""
    table, seeds, speeds = (
        pd.read_csv(results_folder / f"{name}.csv")
        for name in ("gpu_segmentation", "gpu_segmentation_seeds", "gpu_training")
    )
    record = json.loads((results_folder / "gpu_segmentation_run_record.json").read_text("utf-8"))
    steps, batch = record["groups"][0]["steps"], record["batch"]
    lines = [
        f"**Published size, on one GPU.** {record['sequence']}, {record['cohort']}, five folds by patient, "
        f"{record['device'].split(',')[0]}. {steps} steps of {batch} slices per fold from random weights, 224x224, the "
        "same batches and augmentations for every network of a seed; the last weights are evaluated. Means over "
        "patients with 95 % intervals; difference from Swin-UNet of the same seed, p: Wilcoxon.",
        "",
        "| network | seed | patients | Dice (95 % interval) | median | HD95, mm "
        "| lesion-free slices with < 1 % outlined | difference, p |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in table.to_dict("records"):
        compared = "" if pd.isna(r["wilcoxon_p"]) else f"{r['difference']:+.3f}, {r['wilcoxon_p']:.2g}"
        lines.append(
            f"| {r['network']} | {r['seed']} | {r['patients']} | {r['dice']:.3f} ({r['dice_low_95']:.3f} to "
            f"{r['dice_high_95']:.3f}) | {r['dice_median']:.3f} | {r['hausdorff_95_mm']:.1f} "
            f"| {r['small_false_area']:.1%} | {compared} |"
        )
    lines += ["", "Each patient's mean over the seeds that were also run for Swin-UNet:", ""]
    lines += [
        "| network | seeds | Dice | range between seeds | difference (95 % interval), p |",
        "|---|---|---|---|---|",
    ]
    for r in seeds.to_dict("records"):
        compared = ""
        if not pd.isna(r["wilcoxon_p"]):
            between = f"{r['difference_low_95']:+.3f} to {r['difference_high_95']:+.3f}"
            compared = f"{r['difference']:+.3f} ({between}), {r['wilcoxon_p']:.2g}"
        apart = r["dice_highest_seed"] - r["dice_lowest_seed"]
        lines.append(f"| {r['network']} | {r['seeds']} | {r['dice']:.3f} | {apart:.3f} | {compared} |")
    return "\n".join([*lines, "", *_format_training_speed(speeds)])


def _format_training_speed(speeds: pd.DataFrame) -> list[str]:
    """Format the cost of every network and the share of the GPU's peak that its training reaches."""
    lines = [
        "Training, forward and backward in bf16, compiled, each step a CUDA graph, five folds concurrently:",
        "",
        "| network | parameters | GFLOP per slice, forward | slices per second | one fold alone | share of "
        f"{speeds['peak_tflop_per_second'][0]:.0f} TFLOP/s |",
        "|---|---|---|---|---|---|",
    ]
    for r in speeds.to_dict("records"):
        lines.append(
            f"| {r['network']} | {r['million_parameters']:.1f} M | {r['gflop_per_slice']:.1f} "
            f"| {r['slices_per_second']:.0f} | {r['one_fold_slices_per_second']:.0f} | {r['share_of_peak']:.1%} |"
        )
    return lines


def _format_chapter_3_table(title: str, table: pd.DataFrame) -> str:
    """Format the main columns of a chapter 3 table; the csv file has the others."""
    first = table.iloc[0]
    count = first.folds
    folds = "five folds by patient" if count == FOLD_COUNT else f"the first {count} of five folds by patient"
    lines = [
        f"**{title}.** {first.sequences}, {folds}. Preset `{first.preset}`: "
        f"{first.cuts}. Means over patients with 95 % intervals; p: Wilcoxon against `compared_with` of the csv."
        f"{_describe_seeds(table)}",
        "",
        "| network | tested on | patients | Dice (95 % interval) | published | HD95, mm | sensitivity "
        "| lesion-free slices with < 1 % outlined | difference, p | parameters |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in table.to_dict("records"):
        dice, distance, sensitivity = "none with a lesion", "", ""
        if not pd.isna(r["sensitivity"]):
            between = f" ({r['dice_low_95']:.3f} to {r['dice_high_95']:.3f})" if r["patients"] > 1 else ""
            dice = f"{r['dice']:.3f}{between}"
            distance, sensitivity = f"{r['hausdorff_95_mm']:.1f}", f"{r['sensitivity']:.3f}"
        published = "" if pd.isna(r.get("published_dice")) else f"{r['published_dice']:.3f}"
        compared = "" if pd.isna(r.get("wilcoxon_p")) else f"{r['difference']:+.3f}, {r['wilcoxon_p']:.2g}"
        lines.append(
            f"| {r['trial']} | {r['tested_on']} | {r['patients']} | {dice} | {published} | {distance} "
            f"| {sensitivity} | {r['small_false_area']:.1%} | {compared} | {r['million_parameters']:.2f} M |"
        )
    return "\n".join(lines)


def _describe_seeds(table: pd.DataFrame) -> str:
    """Describe the seeds of a table, if there are several; the csv file has the spread of every network."""
    if "seeds" not in table or table["seeds"].max() < 2:
        return ""
    return (
        f" A patient's score is its mean over {table['seeds'].max()} seeds, whose mean Dice has a standard deviation "
        f"of at most {table['dice_seed_sd'].max():.3f}."
    )


def format_server_results(results_folder: Path) -> str:
    """Format the server's response times and memory under load."""
    table = pd.read_csv(results_folder / "server_load.csv")
    record = json.loads((results_folder / "server_load_run_record.json").read_text("utf-8"))
    first = table.iloc[0]
    lines = [
        f"{record['patients']} prepared patients of TCGA-LGG; seconds from the request to the result, `--workers "
        f"{first.workers}`, {record['device']}:",
        "",
        "| requests | predictions | lost | mixed up | median | 95th percentile | longest |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in table.itertuples():
        lines.append(
            f"| {r.asked} | {r.predictions} | {r.lost} | {r.mixed_up} | {r.median_s:.1f} s | {r.p95_s:.1f} s "
            f"| {r.worst_s:.1f} s |"
        )
    memory = f"{first.memory_before_mb:.0f} MB before and {first.memory_after_mb:.0f} MB after"
    lines += ["", f"Memory of the server and its workers: {memory} (peak: {first.memory_most_mb:.0f} MB)."]
    return "\n".join(lines)


def format_client_results(results_folder: Path) -> str:
    """Format the waiting times of the desktop client in one sentence."""
    (summary,) = pd.read_csv(results_folder / "client_response_time_summary.csv").itertuples()
    predictions = pd.read_csv(results_folder / "client_response_time.csv")
    memory = pd.read_csv(results_folder / "client_response_time_memory.csv")["memory_mb"]
    return (
        f"{summary.predictions} patients of TCGA-LGG, {summary.cores} cores, the client's own server, models loaded: "
        f"from the click, three seconds after the images appeared, to the result on the screen "
        f"{summary.median_s:.1f} s (median), {summary.worst_s:.1f} s at most; from the choice of the folder to "
        f"scrollable images {predictions['preparing_s'].median():.1f} s (median), "
        f"{predictions['preparing_s'].max():.1f} s at most. Memory of client and server: {memory.iloc[0]:.0f} MB after "
        f"the first of {len(memory)} patients in a row, {memory.iloc[-1]:.0f} MB after the last, {memory.max():.0f} MB "
        f"at most."
    )


def format_synthetic_model(results_folder: Path) -> str:
    """Format the learning curve of the synthetic model; ``synthetic_model.csv`` has all columns."""
    table = pd.read_csv(results_folder / "synthetic_model.csv")
    lines = [
        "| training patients | test patients | Dice (95 % interval) | marker | AUC (95 % interval) | best achievable "
        "| below it |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in table.itertuples():
        dice = f"{r.dice:.3f} ({r.dice_low_95:.3f} to {r.dice_high_95:.3f})"
        area = f"{r.auc:.2f} ({r.low_95:.2f} to {r.high_95:.2f})"
        lines.append(
            f"| {r.training_patients} | {r.test_patients} | {dice} | {MARKER_TITLES[r.marker]} | {area} "
            f"| {r.ceiling:.2f} | {r.below_ceiling:.2f} |"
        )
    return "\n".join(lines)


def format_lesion_location(results_folder: Path) -> str:
    """Format the measured figures in Markdown, from ``lesion_location.csv`` and ``lesion_location_refusals.csv``."""
    table = pd.read_csv(results_folder / "lesion_location.csv")
    refusals = pd.read_csv(results_folder / "lesion_location_refusals.csv", keep_default_na=False)
    record = json.loads((results_folder / "lesion_location_run_record.json").read_text("utf-8"))
    same_side = (table["side"] == table["true_side"]).sum()
    same_region = (table["region"] == table["true_region"]).sum()
    volume_error = (table["volume_ml"] / table["true_volume_ml"] - 1).abs().max()
    lines = [
        f"{len(table)} synthetic patients with a known location, stored in random orientation and turned by up to "
        f"{record['max_turn_degrees']:.0f}° about each axis: side right in {same_side}, main region right in "
        f"{same_region}; on average {100 * table['shared_regions'].mean():.0f} % of the volume in the right region; "
        f"mean distance between true and found position {table['error_mm'].median():.1f} mm (median of patients, "
        f"{table['error_mm'].max():.1f} mm at most); mean error of distances below 40 mm "
        f"{table['distance_error_mm'].median():.1f} mm (median, {table['distance_error_mm'].max():.1f} mm at most); "
        f"volume that is located within {100 * volume_error:.1f} % of the reader's mask; "
        f"{table['seconds'].median():.1f} s of processor time (median, {table['seconds'].max():.1f} s at most).",
        "",
        "| images | patients | refused | Dice of the brain | similarity | turned |",
        "|---|---|---|---|---|---|",
    ]
    for kind, rows in refusals.groupby("kind", sort=False):
        low, high = rows["brain_overlap"].min(), rows["brain_overlap"].max()
        lines.append(
            f"| {kind} | {len(rows)} | {rows['refused'].astype(str).eq('True').sum()} | {low:.2f} to {high:.2f} "
            f"| {rows['similarity'].median():.2f} | {rows['turned_similarity'].median():.2f} |"
        )
    return "\n".join(lines)


DOCUMENT_FORMATTERS = {
    "README.md": format_main_results,
    "MODEL_CARD.md": format_main_results,
    "docs/how-to/cohort.md": format_cohort_results,
    "docs/explanation/segmentation.md": format_segmentation_results,
    "docs/explanation/synthetic-model.md": format_synthetic_model,
    "docs/explanation/markers.md": format_marker_results,
    "docs/explanation/known-range.md": format_unusual_inputs,
    "docs/explanation/location.md": format_lesion_location,
    "docs/how-to/server.md": format_server_results,
    "docs/how-to/client.md": format_client_results,
    "docs/reference/speed.md": format_speed_results,
}
