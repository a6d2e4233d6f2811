"""Quality control pages: overview ``qc.html``, a page per patient, and ``qc.csv`` with the decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from gliomark.cohort.quality import (
    QC_TABLE,
    QualityLimits,
    list_flags,
    list_outside_limits,
    read_decisions,
    split_number_name,
)
from gliomark.cohort.store import Cohort, ProgressCallback, ignore_progress, iterate_with_progress
from gliomark.files import atomic_write
from gliomark.reporting.drawing import SliceCanvas, create_slice_canvas, draw_slice, encode_data_uri
from gliomark.study import SliceStack
from gliomark.tables import format_csv

THUMBNAIL_WIDTH, SHEET_WIDTH = 160, 260
SHEET_SLICES = 6
BRAIN_COLOUR = (72, 196, 214)

# Measures: English, Chinese, unit, decimals. Fractions are shown in percent.
NUMBER_TITLES: Mapping[str, tuple[str, str, str, int]] = {
    "brain_volume_ml": ("Brain volume", "脑体积", "ml", 0),
    "slices": ("Slices", "层数", "", 0),
    "step_mm": ("Slice spacing", "层间距", "mm", 1),
    "symmetry": ("Brain symmetry", "脑对称性", "", 2),
    "lesion_volume_ml": ("Lesion volume", "病灶体积", "ml", 1),
    "lesion_slices": ("Slices with lesion", "病灶层数", "", 0),
    "lesion_in_brain": ("Lesion inside the brain", "病灶位于脑内的比例", "%", 0),
    "lesion_kept": ("Lesion volume / drawn volume", "病灶体积 / 勾画体积", "%", 0),
    "coverage": ("Brain coverage", "脑覆盖率", "%", 0),
    "similarity": ("Similarity to the reference", "与参考序列的相似度", "", 3),
    "misalignment_mm": ("Residual misalignment", "残余错位", "mm", 1),
    "displacement_mm": ("Displacement by registration", "配准位移", "mm", 1),
    "rotation_degrees": ("Rotation by registration", "配准旋转角", "°", 1),
    "snr": ("Signal-to-noise ratio", "信噪比", "", 0),
    "noise_from_background": (
        "Noise measured in background (1) or brain (0)",
        "噪声测自背景(1)或脑内(0)",
        "",
        0,
    ),
    "row_mm": ("Row spacing", "行间距", "mm", 2),
    "column_mm": ("Column spacing", "列间距", "mm", 2),
    "slice_mm": ("Slice spacing", "层间距", "mm", 1),
    "foreground": ("Foreground", "前景比例", "%", 0),
    "mirrored": ("Similarity gain by mirroring", "左右镜像后的相似度增益", "", 3),
}
# Badge of a measure outside its limits.
BADGE_TITLES: Mapping[str, tuple[str, str]] = {
    "brain_volume_ml": ("brain volume", "脑体积异常"),
    "slices": ("few slices", "层数过少"),
    "symmetry": ("asymmetric", "脑不对称"),
    "lesion_volume_ml": ("lesion volume", "病灶体积异常"),
    "lesion_in_brain": ("lesion outside brain", "病灶超出脑外"),
    "lesion_kept": ("volume differs from drawing", "与勾画体积不符"),
    "coverage": ("incomplete coverage", "覆盖不全"),
    "similarity": ("unlike reference", "与参考序列不符"),
    "misalignment_mm": ("misaligned?", "可能错位"),
    "displacement_mm": ("large displacement", "位移过大"),
    "rotation_degrees": ("large rotation", "旋转过大"),
    "snr": ("low SNR", "信噪比低"),
    "slice_mm": ("thick slices", "层间距过大"),
    "row_mm": ("large pixels", "像素过大"),
    "column_mm": ("large pixels", "像素过大"),
    "foreground": ("foreground", "前景异常"),
    "mirrored": ("mirrored?", "可能左右颠倒"),
}
NO_LESION_BADGE = ("no lesion mask", "无病灶掩膜")
KEY_NUMBERS = ("brain_volume_ml", "lesion_volume_ml", "slices")
QC_COLUMNS = ("id", "decision", "comment", "flags")


@dataclass(frozen=True)
class QualityCard:
    """Card of one patient in ``qc.html``.

    badges: pairs (English, Chinese). slice_name: the slice shown. panels: (sequence, data URI) of its images.
    """

    patient_id: str
    decision: str
    comment: str
    numbers: Mapping[str, float | None]
    flags: tuple[str, ...]
    badges: tuple[tuple[str, str], ...]
    slice_name: str
    panels: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class NumberRow:
    """One row of the table of measures on a patient's page."""

    sequence: str
    title: tuple[str, str]
    value: str
    limit_text: str
    is_outside: bool


def write_quality_pages(
    cohort: Cohort,
    limits: QualityLimits = QualityLimits(),
    report_progress: ProgressCallback = ignore_progress,
) -> tuple[Path, Path]:
    """Write ``qc.csv``, ``qc.html`` and ``quality/<id>.html`` of all prepared patients, including rejected ones.

    Decisions and comments in an existing ``qc.csv`` are kept; CohortError is raised if it cannot be read.

    Parameters
    ----------
    cohort
        The prepared cohort.
    limits
        Limits beyond which a measure raises a flag.
    report_progress
        Called before each patient.

    Returns
    -------
    tuple of Path
        ``qc.csv`` and ``qc.html``.
    """
    decisions = {row["id"]: row for row in read_decisions(cohort.folder)}
    patients = []
    for patient_id in iterate_with_progress(cohort.prepared_ids, report_progress):
        record, stack = cohort.read_patient_record(patient_id), cohort.read_stack(patient_id)
        patient = _create_quality_card(
            stack, record.get("quality") or {}, decisions.get(patient_id, {}), limits
        )
        patients.append(patient)
        atomic_write(
            cohort.folder / "quality" / f"{patient_id}.html", _render_patient_page(patient, stack, limits)
        )
    patients.sort(key=lambda patient: (-len(patient.badges), patient.patient_id))
    table = _create_qc_table(patients)
    page = (
        _create_template_environment()
        .get_template("qc.html.j2")
        .render(
            patients=patients,
            facts=[_list_key_numbers(patient) for patient in patients],
            table=table,
            badges=sorted({badge for patient in patients for badge in patient.badges}),
            name=cohort.folder.name,
        )
    )
    return atomic_write(cohort.folder / QC_TABLE, _format_csv(table)), atomic_write(
        cohort.folder / "qc.html", page
    )


def _create_quality_card(
    stack: SliceStack, numbers: Mapping[str, float | None], decision: Mapping[str, str], limits: QualityLimits
) -> QualityCard:
    index = choose_shown_slice(stack)
    broken = [BADGE_TITLES[split_number_name(name)[1]] for name in list_outside_limits(numbers, limits)]
    without = "lesion_volume_ml" in numbers and numbers["lesion_volume_ml"] is None
    return QualityCard(
        patient_id=stack.patient_id,
        decision=decision.get("decision", "keep"),
        comment=decision.get("comment", ""),
        numbers=numbers,
        flags=list_flags(numbers, limits),
        badges=tuple(dict.fromkeys([*broken, *([NO_LESION_BADGE] if without else [])])),
        slice_name=stack.slice_names[index],
        panels=_draw_panels(_create_canvas(stack), index, THUMBNAIL_WIDTH),
    )


def choose_shown_slice(stack: SliceStack) -> int:
    """Return the index of the slice with the largest lesion, or without a lesion with the largest brain area."""
    drawn = stack.lesion if stack.lesion is not None and stack.lesion.any() else stack.brain
    return int(drawn.sum(axis=(1, 2)).argmax())


def _create_canvas(stack: SliceStack) -> SliceCanvas:
    lesion = np.zeros_like(stack.brain) if stack.lesion is None else stack.lesion
    return create_slice_canvas(stack, lesion.astype(np.float32), list(stack.images))


def _draw_panels(canvas: SliceCanvas, index: int, width: int) -> tuple[tuple[str, str], ...]:
    """Draw one slice in every sequence with the contours of brain and lesion, as (sequence, data URI)."""
    return tuple(
        (
            str(name),
            encode_data_uri(_draw_brain_contour(draw_slice(canvas, name, index, width), canvas, index)),
        )
        for name in canvas.grey_windows
    )


def _draw_brain_contour(picture: Image.Image, canvas: SliceCanvas, index: int) -> Image.Image:
    """Draw a thin contour of the brain, semi-transparent so that the cortex stays visible."""
    box = (canvas.crop.left, canvas.crop.top, canvas.crop.right, canvas.crop.bottom)
    mask = Image.fromarray(canvas.stack.brain[index].astype(np.uint8) * 255)
    inside = np.asarray(mask.resize(picture.size, Image.Resampling.BILINEAR, box=box)) >= 128
    contour: NDArray[np.bool_] = ndimage.binary_dilation(inside) & ~inside
    rgb = np.array(picture)
    rgb[contour] = (0.35 * rgb[contour] + 0.65 * np.array(BRAIN_COLOUR)).astype(np.uint8)
    return Image.fromarray(rgb)


def _list_key_numbers(patient: QualityCard) -> list[tuple[tuple[str, str], str]]:
    """List the measures shown on a card: brain and lesion volume, slices, and the largest misalignment."""
    facts = [
        (NUMBER_TITLES[name][:2], _format_number(name, patient.numbers.get(name))) for name in KEY_NUMBERS
    ]
    found = [
        value for name, value in patient.numbers.items() if split_number_name(name)[1] == "misalignment_mm"
    ]
    worst = max((value for value in found if value is not None), default=None)
    return [*facts, (NUMBER_TITLES["misalignment_mm"][:2], _format_number("misalignment_mm", worst))]


def _format_number(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    _, _, unit, decimals = NUMBER_TITLES.get(name, ("", "", "", 3))
    scaled = 100.0 * value if unit == "%" else value
    return f"{scaled:.{decimals}f}{'' if unit == '°' or not unit else ' '}{unit}"


def _render_patient_page(patient: QualityCard, stack: SliceStack, limits: QualityLimits) -> str:
    """Render the page of one patient: six slices in every sequence, and all measures with their limits."""
    canvas = _create_canvas(stack)
    slice_indices = sorted(
        {round(i) for i in np.linspace(0, len(stack.slice_names) - 1, SHEET_SLICES + 2)[1:-1]}
    )
    return (
        _create_template_environment()
        .get_template("quality_sheet.html.j2")
        .render(
            patient=patient,
            slices=[(stack.slice_names[i], _draw_panels(canvas, i, SHEET_WIDTH)) for i in slice_indices],
            rows=[_create_number_row(name, value, limits) for name, value in patient.numbers.items()],
            notes=stack.notes,
        )
    )


def _create_number_row(name: str, value: float | None, limits: QualityLimits) -> NumberRow:
    sequence, measured = split_number_name(name)
    low, high = limits.get_range(name)
    ends = [
        f"≥ {_format_number(measured, low)}" if low is not None else "",
        f"≤ {_format_number(measured, high)}" if high is not None else "",
    ]
    title = NUMBER_TITLES.get(measured, (measured, measured, "", 3))[:2]
    return NumberRow(
        sequence or "",
        title,
        _format_number(measured, value),
        " · ".join(filter(None, ends)),
        limits.is_outside(name, value),
    )


def _create_qc_table(patients: Sequence[QualityCard]) -> list[list[str]]:
    """Create the rows of ``qc.csv``, header first, patients in the order of the page."""
    names = list(dict.fromkeys(name for patient in patients for name in patient.numbers))
    rows = [[*QC_COLUMNS, *names]]
    for patient in patients:
        values = [patient.numbers.get(name) for name in names]
        cells = ["" if value is None else f"{value:g}" for value in values]
        rows.append(
            [patient.patient_id, patient.decision, patient.comment, " | ".join(patient.flags), *cells]
        )
    return rows


def _format_csv(table: Sequence[Sequence[str]]) -> str:
    """Format as csv with a byte order mark, which spreadsheets need to read Chinese correctly."""
    return "\ufeff" + format_csv(table)


def _create_template_environment() -> Environment:
    return Environment(
        loader=PackageLoader("gliomark.cohort"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
