"""Tables of chapter 4 in Markdown, per marker, from the files of ``results/*.csv`` that exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

MARKER_TITLES = {"idh": "IDH", "proliferation": "proliferation proxy", "ki67": "Ki-67"}
# how the lesion was outlined
OUTLINE_NAMES = {"drawn": "manual", "predicted": "predicted", "none": "none"}
TABLE_TITLES = {
    "table_4_2": "One sequence, ResNet-50 (table 4-2)",
    "table_4_3": "Two sequences, ResNet-50 (table 4-3)",
    "table_4_4": "Networks (table 4-4)",
    "table_4_5": "Ablation, LightGBM on the vectors (table 4-5)",
    "table_4_6": "Slices and patients (table 4-6)",
}


def format_marker_results(results_folder: Path) -> str:
    """Format the tables of every marker, then the supporting results."""
    parts = [
        _format_marker(results_folder, name)
        for name in MARKER_TITLES
        if list(results_folder.glob(f"table_4_?_{name}.csv"))
    ]
    return "\n\n".join([*parts, *_format_supporting_results(results_folder)])


def _format_marker(results_folder: Path, name: str) -> str:
    tables = {
        title: pd.read_csv(results_folder / f"{stem}_{name}.csv", keep_default_na=False, na_values=[""])
        for stem, title in TABLE_TITLES.items()
        if (results_folder / f"{stem}_{name}.csv").exists()
    }
    # table 4-4 has all networks, so its preset description is complete
    first_row = tables.get(TABLE_TITLES["table_4_4"], next(iter(tables.values()))).iloc[0]
    title = MARKER_TITLES[name][0].upper() + MARKER_TITLES[name][1:]
    head = (
        f"### {title} on `{first_row.cohort}`\n\n{first_row.sequences}, {first_row.patients} patients, "
        f"{first_row.positive} "
        f"positive, five folds by patient. Preset `{first_row.preset}`: {first_row.cuts}."
    )
    parts = [head, *(_format_score_table(title, table) for title, table in tables.items())]
    comparison_path = results_folder / f"marker_comparison_{name}.csv"
    if comparison_path.exists():
        parts.append(_format_comparison_table(pd.read_csv(comparison_path)))
    return "\n\n".join(parts)


def _format_score_table(title: str, table: pd.DataFrame) -> str:
    """Format the rows of a published table, with statistics at the threshold of the validation patients."""
    of_patients = table["level"].nunique() > 1
    lines = [
        f"**{title}**",
        "",
        "| "
        + ("level" if of_patients else "predicted by")
        + f" | {_name_accuracy(table)} | published | sensitivity | specificity | kappa "
        "| AUC (95 % interval) | published |" + ("" if of_patients else " AUC of patients (near) |"),
        "|---|---|---|---|---|---|---|---|" + ("" if of_patients else "---|"),
    ]
    for r in table.to_dict("records"):
        near_cell = "" if of_patients else f" {_format_interval(r, 'near_auc')} |"
        area = f"{_format_interval(r, 'auc')} | {_format_optional(r, 'published_auc')}"
        name = r["level"].capitalize() if of_patients else r["reading"]
        lines.append(
            f"| {name} | {_format_accuracy(r)} | {_format_optional(r, 'published_accuracy')} | {r['sensitivity']:.3f} "
            f"| {r['specificity']:.3f} | {r['kappa']:.3f} | {area} |{near_cell}"
        )
    return "\n".join(lines)


def _format_comparison_table(table: pd.DataFrame) -> str:
    lines = [
        "**Patient level (near): variants of KiNet's second stage, radiomics, and age and sex alone**",
        "",
        f"| predicted by | AUC (95 % interval) | {_name_accuracy(table)} | sensitivity | specificity "
        "| AUC difference from the first row, p (DeLong) |",
        "|---|---|---|---|---|---|",
    ]
    for number, r in enumerate(table.to_dict("records")):
        comparison_cell = f"{r['auc_above_first']:+.3f}, {r['delong_p']:.2g}" if number else ""
        lines.append(
            f"| {r['reading']} | {_format_interval(r, 'auc')} | {_format_accuracy(r)} | {r['sensitivity']:.3f} "
            f"| {r['specificity']:.3f} | {comparison_cell} |"
        )
    return "\n".join(lines)


def _name_accuracy(table: pd.DataFrame) -> str:
    return "accuracy (of the majority class)" if "majority_accuracy" in table else "accuracy"


def _format_accuracy(row: Mapping[str, Any]) -> str:
    majority = _format_optional(row, "majority_accuracy")
    return f"{row['accuracy']:.3f} ({majority})" if majority else f"{row['accuracy']:.3f}"


def _format_interval(row: Mapping[str, Any], name: str) -> str:
    return f"{row[name]:.3f} ({row[f'{name}_low_95']:.3f} to {row[f'{name}_high_95']:.3f})"


def _format_optional(row: Mapping[str, Any], name: str) -> str:
    return "" if pd.isna(row.get(name)) else f"{row[name]:.3f}"


def _format_supporting_results(results_folder: Path) -> list[str]:
    """Format the supporting results that exist."""
    tables = [
        path for path in sorted(results_folder.glob("radiomics_*.csv")) if not path.stem.endswith("_patients")
    ]
    reader_finding_path = results_folder / "reader_finding.csv"
    parts = [_format_published_radiomics(tables)] if tables else []
    parts += [_format_reader_finding(reader_finding_path)] if reader_finding_path.exists() else []
    for stem, format_part in (
        ("permuted_labels", _format_permuted_labels),
        ("phantom_learning_curve", _format_phantom_learning_curve),
        ("slice_leakage", _format_slice_leakage),
    ):
        for path in sorted(results_folder.glob(f"{stem}_*.csv")):
            parts.append(
                format_part(
                    MARKER_TITLES.get(path.stem.removeprefix(f"{stem}_"), path.stem), pd.read_csv(path)
                )
            )
    return parts


def _format_published_radiomics(tables: Sequence[Path]) -> str:
    lines = [
        "### Radiomics published by others",
        "",
        "Published radiomics features, five folds by patient.",
        "",
        "| table | patients (positive) | predicted by | AUC (95 % interval) |",
        "|---|---|---|---|",
    ]
    for path in tables:
        for r in pd.read_csv(path).to_dict("records"):
            lines.append(
                f"| {r['table']}, {r['label']} | {r['patients']} ({r['positive']}) | {r['reading']} "
                f"| {_format_interval(r, 'auc')} |"
            )
    return "\n".join(lines)


def _format_reader_finding(path: Path) -> str:
    lines = [
        "### IDH from an enhancing focus",
        "",
        "| statistic | number | share (95 % interval) |",
        "|---|---|---|",
    ]
    for r in pd.read_csv(path).to_dict("records"):
        share = f"{r['share']:.3f} ({r['low_95']:.3f} to {r['high_95']:.3f})"
        lines.append(f"| {r['figure']} | {r['count']} of {r['of']} | {share} |")
    return "\n".join(lines)


def _format_permuted_labels(name: str, table: pd.DataFrame) -> str:
    means = table[table["marker"].str.startswith("mean")]
    lines = [
        "### Permuted labels",
        "",
        f"{name}, permuted among patients; the whole cascade in five folds, {means['marker'].iloc[0]} permutations "
        "(standard deviation).",
        "",
        "| segmentation | predicted by | AUC within folds | AUC of the patients of all folds |",
        "|---|---|---|---|",
    ]
    for r in means.to_dict("records"):
        lines.append(
            f"| {OUTLINE_NAMES[r['outline']]} | {r['stage']} | {r['auc_in_folds']:.3f} ({r['auc_in_folds_sd']:.3f}) "
            f"| {r['auc']:.3f} ({r['auc_sd']:.3f}) |"
        )
    return "\n".join(lines)


def _format_phantom_learning_curve(name: str, table: pd.DataFrame) -> str:
    lines = [
        "### Best AUC by number of synthetic patients",
        "",
        f"{name}, {table['cohorts'].iloc[0]} phantom cohorts per line: logistic regression, cross-validated in five "
        "folds, on the true appearance variables, of which the given share of the variance is observed.",
        "",
        "| patients | variance observed | AUC, mean (95 % of cohorts) | ceiling | cohorts within 0.04 of ceiling |",
        "|---|---|---|---|---|",
    ]
    for r in table.to_dict("records"):
        lines.append(
            f"| {r['patients']} | {100 * r['read']:.0f} % "
            f"| {r['auc_mean']:.3f} ({r['auc_low_95']:.3f} to {r['auc_high_95']:.3f}) "
            f"| {r['ceiling']:.3f} | {100 * r['share_within_0.04']:.0f} % |"
        )
    return "\n".join(lines)


def _format_slice_leakage(name: str, table: pd.DataFrame) -> str:
    rows = table.set_index("split").iterrows()
    split_texts = "; ".join(f"{split}: accuracy {r.accuracy:.3f}, AUC {r.auc:.3f}" for split, r in rows)
    return f"### Data leakage by splitting slices\n\n{name}, KiNet, the same slices. {split_texts}."
