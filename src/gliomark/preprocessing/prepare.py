"""The order of the steps, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from gliomark.messages import Message, message
from gliomark.preprocessing.coverage import Coverage, measure_coverage
from gliomark.preprocessing.gaps import check_gaps
from gliomark.preprocessing.intensity import z_score
from gliomark.preprocessing.plausibility import check_brain, check_fields, check_orientations
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

    What only some of ``sequences`` show is left out; how much of the brain remains is said in the warnings.

    The last of ``sequences`` is the reference (METHOD: the second of the pair). Every other one is
    registered to it rigidly unless the study is aligned. step: is told what is done next, "align",
    "strip" or "slice". Raises GliomarkError, naming what is there,
    where one of ``sequences`` is missing, or for millimetres that no head has.
    """
    missing = [name for name in sequences if name not in study.series]
    if missing:
        found = ", ".join(sorted(study.series))
        wanted = " + ".join(missing)
        raise GliomarkError(message("sequence-missing", folder=study.source, missing=wanted, found=found))
    reference = sequences[-1]
    images = {name: axial(study.series[name]) for name in study.series}
    names = _needed(study, sequences)
    check_orientations(study.series[name] for name in names)
    if not study.spacing_assumed:
        check_fields(study.series[name] for name in names)
    step("align")
    transforms = _transforms(study, {name: images[name] for name in names}, reference)
    step("strip")
    brain = _brain(study, {name: images[name] for name in names}, transforms, sequences)
    gaps = check_gaps(study, brain.mask, transforms, brain.stripped)
    step("slice")
    grid, kept = slice_grid(
        brain.mask, settings.size, settings.pixel_mm, 0.0 if study.aligned else settings.step_mm
    )
    on_grid = sitk.GetArrayFromImage(resample(brain.mask, grid, sitk.Transform(), 0.0)).astype(bool)
    return SliceStack(
        patient_id=study.patient_id,
        images={
            name: z_score(_array(resample(images[name], grid, transforms[name], 0.0)), on_grid, name)
            for name in sequences
        },
        brain=on_grid,
        affine=affine_of(grid),
        slice_names=_slice_names(study, reference, kept),
        selected=equidistant(len(kept), settings.k),
        lesion=_lesion(study, grid),
        notes=(*study.notes, *brain.notes, *gaps),
        warnings=brain.warnings,
        coverage=brain.coverage.shares,
        examined=brain.coverage.examined,
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


@dataclass(frozen=True, eq=False)
class _Brain:
    """The brain that all sequences show, uint8 0/1 on the reference's grid, and what is to be said of it."""

    mask: sitk.Image
    coverage: Coverage
    stripped: tuple[MRSequence, ...]
    notes: tuple[Message, ...]
    warnings: tuple[Message, ...]


def _brain(
    study: Study,
    images: Mapping[MRSequence, sitk.Image],
    transforms: Mapping[MRSequence, sitk.Transform],
    sequences: Sequence[MRSequence],
) -> _Brain:
    """Found in one sequence, without a skull where there is such a one; images: axial, those that are needed."""
    stripped = [name for name in images if already_stripped(images[name])]
    found_in = next(name for name in STRIP_ON if name in (stripped or images))
    mask = foreground_mask(images[found_in]) if stripped else brain_mask(images[found_in])
    coverage = measure_coverage(
        {name: images[name] for name in dict.fromkeys([*sequences, found_in])},
        mask,
        found_in,
        transforms,
        foreground_mask if stripped else brain_mask,
    )
    is_cut = coverage.examined is None or bool(coverage.warnings)
    sizes = () if study.spacing_assumed else check_brain(mask, study.series[found_in], is_cut)
    reference = images[sequences[-1]]
    # linear, not nearest: a smooth edge where thick slices meet a finer grid
    moved = resample(sitk.Cast(mask, sitk.sitkFloat32), reference, transforms[found_in], 0.0)
    shown = sitk.Cast(moved >= 0.5, sitk.sitkUInt8)
    for name in sequences[:-1]:
        field = sitk.Cast(images[name] * 0 + 1, sitk.sitkUInt8)
        shown = shown & resample(field, reference, transforms[name], 0.0, sitk.sitkNearestNeighbor)
    return _Brain(
        shown, coverage, tuple(stripped), _stripped_notes(stripped, images), (*coverage.warnings, *sizes)
    )


def _stripped_notes(
    stripped: Sequence[MRSequence], images: Mapping[MRSequence, sitk.Image]
) -> tuple[Message, ...]:
    if not stripped:
        return ()
    if len(stripped) == len(images):
        return (message("skull-gone"),)
    return (message("skull-gone-in-some", sequences=", ".join(stripped)),)


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
