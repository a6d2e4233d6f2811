"""``gliomark explain``: on which pixels a marker's answer rests, one picture per marker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from gliomark.explanation.gradcam import branch_map, branches_of
from gliomark.files import atomic_write, png_bytes
from gliomark.inference.slice_classifier import LesionSlices, SliceClassifier, central_view, mix_parts
from gliomark.io import read_study
from gliomark.isolation import Reads, read_here
from gliomark.messages import message
from gliomark.models.kinet import mix_input
from gliomark.models.signatures import Trust
from gliomark.pipeline import load_model, predict
from gliomark.reporting.drawing import canvas, draw_heat, draw_slice
from gliomark.reporting.report import folder_name
from gliomark.study import Clinical, GliomarkError, MarkerPrediction, Prediction, SliceStack

WIDTH, CAPTION = 300, 26


def explain_patient(
    folder: Path,
    out: Path,
    model_name: str = "demo",
    stage: int = 3,
    reading: Reads = read_here,
    trust: Trust = Trust(),
) -> list[Path]:
    """Write ``OUT/<id>/gradcam_<marker>.png`` for every marker; the paths.

    stage: of the branches, 1 the finest to 4 the coarsest. reading: where the images are read. Raises GliomarkError
    where the patient cannot be read, has no lesion, or gets no probability.
    """
    model = load_model(model_name, trust)
    study = reading(folder, read_study, folder, needed=model.sequences)
    # age and sex change the trees' answer, not where the networks look
    prediction = predict(study, Clinical(study.patient_id, None, None), model, reading=reading)
    if not prediction.segmentation.mask.any():
        raise GliomarkError(message("nothing-to-explain", folder=folder))
    if not prediction.markers:
        raise GliomarkError(message("no-marker-to-explain", model=str(model_name)))
    answered = [marker for marker in prediction.markers if marker.probability is not None]
    if not answered:
        reason = prediction.markers[0].warnings[0]
        raise GliomarkError(message("no-probability-to-explain", folder=folder, reason=reason))
    place = out / folder_name(study.patient_id)
    sheets = {}
    for marker in answered:
        said = f"{marker.title}: what speaks for '{model.card.markers[marker.marker].positive}'"
        sheet = _sheet(prediction, marker, model.classifiers[marker.marker], stage, said)
        sheets[place / f"gradcam_{marker.marker}.png"] = sheet
    # written once all are drawn: nothing is left half-done
    for path, sheet in sheets.items():
        atomic_write(path, png_bytes(sheet))
    return list(sheets)


def branch_maps(
    classifier: SliceClassifier, stack: SliceStack, mask: NDArray[np.bool_], index: list[int], stage: int
) -> dict[str, NDArray[np.float32]]:
    """Per branch ``(S, 240, 240)`` in 0 to 1 on the given slices; 0 outside the classifier's view."""
    chosen = LesionSlices(tuple(index), tuple(index), (0.0,) * len(index))
    images, lesion = mix_parts(stack, mask, chosen, classifier.sequences)
    return slice_maps(classifier.network, images, lesion, classifier.crop, stage)


def slice_maps(
    network: nn.Module, images: Tensor, lesion: Tensor, crop: int, stage: int
) -> dict[str, NDArray[np.float32]]:
    """``branch_maps`` of slices ``(S, 2, 240, 240)`` and their lesion ``(S, 240, 240)``; crop: side of the view."""
    inner = central_view(images.shape[-1], crop)
    mix = mix_input(images[inner][:, 0], images[inner][:, 1], lesion[inner])
    maps: dict[str, NDArray[np.float32]] = {}
    for branch in branches_of(network):
        whole = torch.zeros(lesion.shape)
        whole[inner] = branch_map(network, mix.clone(), branch, stage)
        maps[branch] = whole.numpy()
    return maps


def _sheet(
    prediction: Prediction, marker: MarkerPrediction, classifier: SliceClassifier, stage: int, said: str
) -> Image.Image:
    """Deciding slices in rows; each sequence, its branch's map, and the master's map in columns."""
    stack, segmentation = prediction.stack, prediction.segmentation
    names = [score.slice_name for score in marker.slices if score.decides]
    index = [stack.slice_names.index(name) for name in names]
    maps = branch_maps(classifier, stack, segmentation.mask, index, stage)
    paper = canvas(stack, segmentation.probability, classifier.sequences)
    first, second = classifier.sequences
    # a branch of one sequence lies on that sequence, any other on the second
    under = {branch: first if branch == "first" else second for branch in maps}
    columns = [(name, None) for name in classifier.sequences] + [(under[b], b) for b in maps]
    rows = [
        [
            draw_slice(paper, name, i, WIDTH)
            if branch is None
            else draw_heat(paper, name, i, maps[branch][row], WIDTH)
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
    sheet = Image.new("RGB", (WIDTH * len(captions), CAPTION + (height + CAPTION) * len(rows)), "black")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for column, text in enumerate(captions):
        draw.text((WIDTH * column + 8, CAPTION // 2), text, fill="white", font=font, anchor="lm")
    for number, (name, row) in enumerate(zip(names, rows, strict=True)):
        top = CAPTION + number * (height + CAPTION)
        for column, picture in enumerate(row):
            sheet.paste(picture, (WIDTH * column, top))
        draw.text(
            (8, top + height + CAPTION // 2), f"{said}; slice {name}", fill="white", font=font, anchor="lm"
        )
    return sheet
