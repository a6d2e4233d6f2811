"""The order of the steps, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from gliomark.messages import message
from gliomark.preprocessing.intensity import z_score
from gliomark.preprocessing.registration import register
from gliomark.preprocessing.skull_stripping import already_stripped, brain_mask, foreground_mask
from gliomark.preprocessing.slicing import equidistant, slice_grid
from gliomark.preprocessing.volume import affine_of, axial, matrix_of, resample, to_image
from gliomark.study import GliomarkError, MRSequence, SliceStack, Study

STRIP_ON = (MRSequence.T1C, MRSequence.T1, MRSequence.FLAIR, MRSequence.T2)


@dataclass(frozen=True)
class PreparationSettings:
    """METHOD section 2: K slices of size x size pixels of pixel_mm, steps of step_mm or the acquired ones."""

    k: int = 20
    size: int = 240
    pixel_mm: float = 1.0
    step_mm: float = 2.0


def prepare(
    study: Study,
    sequences: Sequence[MRSequence],
    settings: PreparationSettings = PreparationSettings(),
    step: Callable[[str], None] = lambda _: None,
) -> SliceStack:
    """One grid, brain only, normalised, K slices: the patient as every network sees it.

    The last of ``sequences`` is the reference (METHOD: the second of the pair). Every other one is
    registered to it rigidly unless the study is aligned. step: is told what is done next, "align",
    "strip" or "slice". Raises GliomarkError, naming what is there,
    where one of ``sequences`` is missing.
    """
    missing = [name for name in sequences if name not in study.series]
    if missing:
        found = ", ".join(sorted(study.series))
        wanted = " + ".join(missing)
        raise GliomarkError(
            message("sequence-missing", source=str(study.source), missing=wanted, found=found)
        )
    reference = sequences[-1]
    images = {name: axial(study.series[name]) for name in study.series}
    names = _needed(study, sequences)
    step("align")
    transforms = _transforms(study, {name: images[name] for name in names}, reference)
    step("strip")
    brain, stripped = _brain(images, transforms, names, reference)
    step("slice")
    grid, kept = slice_grid(
        brain, settings.size, settings.pixel_mm, 0.0 if study.aligned else settings.step_mm
    )
    on_grid = sitk.GetArrayFromImage(resample(brain, grid, sitk.Transform(), 0.0)).astype(bool)
    return SliceStack(
        patient_id=study.patient_id,
        images={
            name: z_score(_array(resample(images[name], grid, transforms[name], 0.0)), on_grid)
            for name in sequences
        },
        brain=on_grid,
        affine=affine_of(grid),
        slice_names=_slice_names(study, reference, kept),
        selected=equidistant(len(kept), settings.k),
        lesion=_lesion(study, grid),
        notes=study.notes + ((message("no-skull"),) if stripped else ()),
        to_stack={name: matrix_of(transforms[name].GetInverse()) for name in sequences},
    )


def _needed(study: Study, sequences: Sequence[MRSequence]) -> list[MRSequence]:
    """The asked sequences, and the one the skull is stripped on."""
    strip_on = next(name for name in STRIP_ON if name in study.series)
    return list(dict.fromkeys([*sequences, strip_on]))


def _transforms(
    study: Study, images: Mapping[MRSequence, sitk.Image], reference: MRSequence
) -> dict[MRSequence, sitk.Transform]:
    fixed = images[reference]
    return {
        name: sitk.Transform(3, sitk.sitkIdentity)
        if study.aligned or name == reference
        else register(fixed, image)
        for name, image in images.items()
    }


def _brain(
    images: Mapping[MRSequence, sitk.Image],
    transforms: Mapping[MRSequence, sitk.Transform],
    names: Sequence[MRSequence],
    reference: MRSequence,
) -> tuple[sitk.Image, bool]:
    """The brain on the reference's grid, and whether the images came without a skull."""
    strip_on = next(name for name in STRIP_ON if name in names)
    stripped = all(already_stripped(images[name]) for name in names)
    mask = foreground_mask(images[strip_on]) if stripped else brain_mask(images[strip_on])
    # linear, not nearest: a smooth edge where thick slices meet a finer grid
    moved = resample(sitk.Cast(mask, sitk.sitkFloat32), images[reference], transforms[strip_on], 0.0)
    return sitk.Cast(moved >= 0.5, sitk.sitkUInt8), stripped


def _slice_names(study: Study, reference: MRSequence, kept: Sequence[int]) -> tuple[str, ...]:
    """Pictures keep their file's name; volumes are numbered from the feet, 001 the lowest."""
    if study.kind == "pictures":
        return tuple(study.series[reference].slice_names[index] for index in kept)
    return tuple(f"{index + 1:03d}" for index in kept)


def _lesion(study: Study, grid: sitk.Image) -> np.ndarray | None:
    if study.lesion is None:
        return None
    mask = to_image(study.lesion.image.astype(np.float32), study.lesion.affine)
    return _array(resample(mask, grid, sitk.Transform(), 0.0)) >= 0.5


def _array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image).astype(np.float32)
