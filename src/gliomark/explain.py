"""Grad-CAM images of a patient's marker predictions (``gliomark explain``), one file per marker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from gliomark.errors import InputError, WeightsError
from gliomark.explanation.gradcam import compute_branch_map, list_branches
from gliomark.files import atomic_write, encode_png
from gliomark.inference.slice_classifier import (
    LesionSlices,
    SliceClassifier,
    compute_crop_index,
    extract_lesion_slices,
)
from gliomark.io import read_study
from gliomark.isolation import ReadExecutor, run_in_this_process
from gliomark.messages import message
from gliomark.models.published.kinet import build_mix_input
from gliomark.models.signatures import TrustPolicy
from gliomark.pipeline import load_model, predict
from gliomark.reporting.drawing import create_slice_canvas, draw_heatmap, draw_slice
from gliomark.reporting.writers import encode_folder_name
from gliomark.study import ClinicalData, MarkerPrediction, Prediction, SliceStack

SLICE_WIDTH_PIXELS, CAPTION_HEIGHT_PIXELS = 300, 26


def explain_patient(
    folder: Path,
    output_folder: Path,
    name_or_path: str = "demo",
    stage: int = 3,
    reader_pool: ReadExecutor = run_in_this_process,
    trust: TrustPolicy = TrustPolicy(),
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
    model = load_model(name_or_path, trust)
    study = reader_pool(folder, read_study, folder, required_sequences=model.sequences)
    # Grad-CAM explains the networks, which do not use age and sex
    prediction = predict(study, ClinicalData(study.patient_id, None, None), model, reader_pool=reader_pool)
    if not prediction.segmentation.mask.any():
        raise InputError(message("nothing-to-explain", folder=folder))
    if not prediction.markers:
        raise WeightsError(message("no-marker-to-explain", model=str(name_or_path)))
    predicted_markers = [marker for marker in prediction.markers if marker.probability is not None]
    if not predicted_markers:
        reason = prediction.markers[0].warnings[0]
        raise InputError(message("no-probability-to-explain", folder=folder, reason=reason))
    patient_folder = output_folder / encode_folder_name(study.patient_id)
    sheets = {}
    for marker in predicted_markers:
        caption = f"{marker.title}: pixels that raise the probability of '{model.card.markers[marker.marker].positive}'"
        sheet = _draw_sheet(prediction, marker, model.classifiers[marker.marker], stage, caption)
        sheets[patient_folder / f"gradcam_{marker.marker}.png"] = sheet
    # only written once everything has been drawn, so that no partial result remains
    for path, sheet in sheets.items():
        atomic_write(path, encode_png(sheet))
    return list(sheets)


def compute_branch_maps(
    classifier: SliceClassifier,
    stack: SliceStack,
    mask: NDArray[np.bool_],
    slice_indices: list[int],
    stage: int,
) -> dict[str, NDArray[np.float32]]:
    """Compute the Grad-CAM maps of the given slices by branch.

    mask: ``(slice, row, column)``. The maps are ``(S, 240, 240)`` with values from 0 to 1, for S slices; they are 0
    outside the central crop that the classifier uses.
    """
    chosen = LesionSlices(tuple(slice_indices), tuple(slice_indices), (0.0,) * len(slice_indices))
    images, lesion = extract_lesion_slices(stack, mask, chosen, classifier.sequences)
    return compute_slice_branch_maps(classifier.network, images, lesion, classifier.crop_size, stage)


def compute_slice_branch_maps(
    network: nn.Module, images: Tensor, lesion: Tensor, crop: int, stage: int
) -> dict[str, NDArray[np.float32]]:
    """Compute Grad-CAM maps by branch, ``(S, 240, 240)`` with values from 0 to 1.

    images: ``(S, 2, 240, 240)``. lesion: mask ``(S, 240, 240)``. crop: side of the central crop in pixels.
    """
    inner = compute_crop_index(images.shape[-1], crop)
    mixed_input = build_mix_input(images[inner][:, 0], images[inner][:, 1], lesion[inner])
    maps: dict[str, NDArray[np.float32]] = {}
    for branch in list_branches(network):
        full_map = torch.zeros(lesion.shape)
        full_map[inner] = compute_branch_map(network, mixed_input.clone(), branch, stage)
        maps[branch] = full_map.numpy()
    return maps


def _draw_sheet(
    prediction: Prediction, marker: MarkerPrediction, classifier: SliceClassifier, stage: int, caption: str
) -> Image.Image:
    """Draw the slices used for the prediction as rows; columns are the sequences and the branches' maps."""
    stack, segmentation = prediction.stack, prediction.segmentation
    names = [score.slice_name for score in marker.slices if score.decides]
    index = [stack.slice_names.index(name) for name in names]
    maps = compute_branch_maps(classifier, stack, segmentation.mask, index, stage)
    slice_canvas = create_slice_canvas(stack, segmentation.probability, classifier.sequences)
    first, second = classifier.sequences
    # the map of a single-sequence branch is drawn on its sequence, all others on the second sequence
    background_by_branch = {branch: first if branch == "first" else second for branch in maps}
    columns = [(name, None) for name in classifier.sequences] + [(background_by_branch[b], b) for b in maps]
    rows = [
        [
            draw_slice(slice_canvas, name, i, SLICE_WIDTH_PIXELS)
            if branch is None
            else draw_heatmap(slice_canvas, name, i, maps[branch][row], SLICE_WIDTH_PIXELS)
            for name, branch in columns
        ]
        for row, i in enumerate(index)
    ]
    captions = [
        name
        if branch is None
        else f"{name} branch"
        if branch in ("first", "second")
        else f"{branch}, over {name}"
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
