"""Grad-CAM images of a patient's marker predictions (``gliomark explain``), one file per marker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import nn

from gliomark.errors import InputError, WeightsError
from gliomark.explanation.branch_maps import compute_branch_maps
from gliomark.explanation.gradcam import describe_grad_cam
from gliomark.files import atomic_write, encode_png
from gliomark.inference.slice_classifier import (
    SliceClassifier,
)
from gliomark.io import read_study
from gliomark.isolation import ReadExecutor, run_in_this_process
from gliomark.messages import message
from gliomark.model_loading import load_model
from gliomark.models.network_loading import load_marker_network
from gliomark.models.signatures import TrustPolicy
from gliomark.pipeline import describe_step, predict_prepared, prepare_study
from gliomark.prediction import MarkerPrediction, Prediction
from gliomark.reporting.drawing import create_slice_canvas, draw_heatmap, draw_slice
from gliomark.reporting.writers import encode_folder_name
from gliomark.study import ClinicalData

SLICE_WIDTH_PIXELS, CAPTION_HEIGHT_PIXELS = 300, 26


def explain_patient(
    folder: Path,
    output_folder: Path,
    name_or_path: str = "demo",
    stage: int = 3,
    reader_pool: ReadExecutor = run_in_this_process,
    trust: TrustPolicy = TrustPolicy(),
    report_step: Callable[[str], None] = lambda _: None,
    device: str = "cpu",
) -> list[Path]:
    """Write ``<output_folder>/<patient id>/gradcam_<marker>.png`` for every marker with a probability.

    Parameters
    ----------
    folder
        The patient's images.
    output_folder
        Folder in which the patient's folder is created.
    name_or_path
        Name of a shipped model, or path of a weights file.
    stage
        Stage of the branches, from 1 (finest) to 4 (coarsest).
    reader_pool
        Runs the reading of the images; by default in this process.
    trust
        Which signatures of weights files are accepted.
    report_step
        Called with a message before each step.
    device
        Where the networks compute, see ``Model.to_device``.

    Returns
    -------
    list of Path
        The written images.

    Raises
    ------
    InputError
        If the images cannot be read, no lesion is found, or no marker has a probability.
    WeightsError
        If the model predicts no marker.
    """
    report_step(message("step-model"))
    model = load_model(name_or_path, trust, device=device)
    report_step(message("step-read"))
    study = reader_pool(folder, read_study, folder, required_sequences=model.sequences)

    def report_part(step: str) -> None:
        report_step(describe_step(step, model.card))

    # Grad-CAM explains the networks, which do not use age and sex
    prediction = predict_prepared(
        prepare_study(study, model, report_part, reader_pool),
        ClinicalData(study.patient_id, None, None),
        model,
        notify=report_part,
    )
    if not prediction.segmentation.mask.any():
        raise InputError(message("nothing-to-explain", folder=folder))
    if not prediction.markers:
        raise WeightsError(message("no-marker-to-explain", model=str(name_or_path)))
    predicted_markers = [marker for marker in prediction.markers if marker.probability is not None]
    if not predicted_markers:
        titles = ", ".join(marker.title for marker in prediction.markers)
        reasons = list(dict.fromkeys(marker.warnings[0] for marker in prediction.markers if marker.warnings))
        if prediction.known_range.is_refused:
            reasons = list(prediction.known_range.findings)
        raise InputError(
            message("no-probability-to-explain", folder=folder, titles=titles, reason=" ".join(reasons))
        )
    patient_folder = output_folder / encode_folder_name(study.patient_id)
    sheets = {}
    for marker in predicted_markers:
        report_step(message("step-explain", title=marker.title))
        caption = f"{marker.title}: pixels that raise the probability of '{model.card.markers[marker.marker].positive}'"
        network = load_marker_network(model.weights, marker.marker).to(model.device)
        sheet = _draw_sheet(prediction, marker, network, model.classifiers[marker.marker], stage, caption)
        sheets[patient_folder / f"gradcam_{marker.marker}.png"] = sheet
    # only written once everything has been drawn, so that no partial result remains
    for path, sheet in sheets.items():
        atomic_write(path, encode_png(sheet))
    return list(sheets)


def _draw_sheet(
    prediction: Prediction,
    marker: MarkerPrediction,
    network: nn.Module,
    classifier: SliceClassifier,
    stage: int,
    caption: str,
) -> Image.Image:
    """Draw the slices used for the prediction as rows; columns are the sequences and the branches' maps."""
    stack, segmentation = prediction.stack, prediction.segmentation
    names = [score.slice_name for score in marker.slices if score.decides]
    index = [stack.slice_names.index(name) for name in names]
    maps = compute_branch_maps(network, classifier, stack, segmentation.mask, index, stage)
    slice_canvas = create_slice_canvas(stack, segmentation.probability, classifier.sequences)
    branches = describe_grad_cam(network).branches
    # the map of a branch that uses both sequences is drawn on the second one
    backgrounds = [classifier.sequences[1 if b.sequence is None else b.sequence] for b in branches]
    columns = [(name, None) for name in classifier.sequences] + list(zip(backgrounds, branches, strict=True))
    rows = [
        [
            draw_slice(slice_canvas, name, i, SLICE_WIDTH_PIXELS)
            if branch is None
            else draw_heatmap(slice_canvas, name, i, maps[branch.name][row], SLICE_WIDTH_PIXELS)
            for name, branch in columns
        ]
        for row, i in enumerate(index)
    ]
    captions = [
        name
        if branch is None
        else f"{name} branch"
        if branch.sequence is not None
        else f"{branch.name}, over {name}"
        for name, branch in columns
    ]
    height = rows[0][0].height
    sheet = Image.new(
        "RGB",
        (
            SLICE_WIDTH_PIXELS * len(captions),
            CAPTION_HEIGHT_PIXELS + (height + CAPTION_HEIGHT_PIXELS) * len(rows),
        ),
        "black",
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for column, text in enumerate(captions):
        draw.text(
            (SLICE_WIDTH_PIXELS * column + 8, CAPTION_HEIGHT_PIXELS // 2),
            text,
            fill="white",
            font=font,
            anchor="lm",
        )
    for number, (name, row) in enumerate(zip(names, rows, strict=True)):
        top = CAPTION_HEIGHT_PIXELS + number * (height + CAPTION_HEIGHT_PIXELS)
        for column, picture in enumerate(row):
            sheet.paste(picture, (SLICE_WIDTH_PIXELS * column, top))
        draw.text(
            (8, top + height + CAPTION_HEIGHT_PIXELS // 2),
            f"{caption}; slice {name}",
            fill="white",
            font=font,
            anchor="lm",
        )
    return sheet
