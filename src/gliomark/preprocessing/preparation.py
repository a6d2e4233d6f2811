"""Prepare a study: register, strip the skull, resample, normalise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk

from gliomark.errors import InputError
from gliomark.messages import Message, message
from gliomark.preprocessing.brain_coverage import BrainCoverage, measure_brain_coverage
from gliomark.preprocessing.intensity import normalise_z_score
from gliomark.preprocessing.missing_data import check_missing_data
from gliomark.preprocessing.plausibility import (
    check_brain_size,
    check_fields_of_view,
    check_orientations_stated,
)
from gliomark.preprocessing.registration import register_rigidly
from gliomark.preprocessing.resampling import (
    compute_image_affine,
    compute_transform_matrix,
    reorient_to_axial,
    resample,
    to_simpleitk_image,
)
from gliomark.preprocessing.skull_stripping import (
    compute_foreground_mask,
    extract_brain_mask,
    is_skull_stripped,
)
from gliomark.preprocessing.slicing import create_slice_grid, select_equidistant_slices
from gliomark.study import MRSequence, Series, SliceStack, Study

SKULL_STRIPPING_ORDER = (MRSequence.T1C, MRSequence.T1, MRSequence.FLAIR, MRSequence.T2)


@dataclass(frozen=True)
class PreparationConfig:
    """Settings of the preparation (method.md, section 2).

    Attributes
    ----------
    k
        Number of slices for the networks.
    size
        Rows and columns of a slice, pixels.
    pixel_mm
        Pixel spacing in mm.
    step_mm
        Minimum slice spacing in mm; never less than acquired.
    """

    k: int = 20
    size: int = 240
    pixel_mm: float = 1.0
    step_mm: float = 2.0


def prepare(
    study: Study,
    sequences: Sequence[MRSequence],
    config: PreparationConfig = PreparationConfig(),
    report_step: Callable[[str], None] = lambda _: None,
) -> SliceStack:
    """Register, skull-strip, resample and normalise a study: the input of all networks (method.md, section 2).

    Parts of the brain that not all ``sequences`` cover are excluded; the warnings state how much remains.

    Parameters
    ----------
    study
        One patient's images as read by ``read_study``.
    sequences
        The sequences to prepare. The last one is the reference; the others are registered to it rigidly unless the
        study is aligned.
    config
        Grid and number of slices.
    report_step
        Called with the next step: ``"align"``, ``"strip"`` or ``"slice"``.

    Returns
    -------
    SliceStack
        Images ``(slice, row, column)`` on one grid, with mean 0 and standard deviation 1 in the brain.

    Raises
    ------
    InputError
        If one of ``sequences`` is missing, the images cannot be registered, no brain is found in them, or their
        dimensions are not those of a head.

    Examples
    --------
    >>> stack = gliomark.prepare(study, model.sequences)
    >>> stack.images["T1C"].shape
    (72, 240, 240)
    """
    missing = [name for name in sequences if name not in study.series]
    if missing:
        found = ", ".join(sorted(study.series))
        wanted = " + ".join(missing)
        raise InputError(message("sequence-missing", folder=study.source, missing=wanted, found=found))
    reference = sequences[-1]
    names = _list_required_sequences(study, sequences)
    images = {name: reorient_to_axial(study.series[name]) for name in names}
    check_orientations_stated(study.series[name] for name in names)
    if not study.spacing_assumed:
        check_fields_of_view(study.series[name] for name in names)
    report_step("align")
    transforms = _register_to_reference(study, images, reference)
    report_step("strip")
    brain = _find_shared_brain(study, images, transforms, sequences)
    missing_data_notes = check_missing_data(study, brain.mask, transforms, brain.stripped_sequences)
    report_step("slice")
    stack = _slice_and_normalise(study, sequences, images, transforms, brain.mask, config)
    return replace(
        stack,
        notes=(*study.notes, *brain.notes, *missing_data_notes),
        warnings=brain.warnings,
        coverage=brain.coverage.shares,
        examined=brain.coverage.examined_share,
    )


def prepare_with_brain_mask(
    study: Study,
    sequences: Sequence[MRSequence],
    brain: Series,
    config: PreparationConfig = PreparationConfig(),
) -> SliceStack:
    """Resample and normalise an aligned study whose brain is known, as ``prepare`` does after skull stripping.

    Parameters
    ----------
    study
        Aligned axial images of the whole brain.
    sequences
        The sequences to prepare, the reference last.
    brain
        The brain mask, 0 or 1, on the grid of the reference.
    config
        Grid and number of slices.
    """
    images = {name: reorient_to_axial(study.series[name]) for name in sequences}
    identity = dict.fromkeys(sequences, sitk.Transform(3, sitk.sitkIdentity))
    mask = sitk.Cast(reorient_to_axial(brain) >= 0.5, sitk.sitkUInt8)
    stack = _slice_and_normalise(study, sequences, images, identity, mask, config)
    return replace(stack, notes=study.notes, coverage=dict.fromkeys(sequences, 1.0))


def _slice_and_normalise(
    study: Study,
    sequences: Sequence[MRSequence],
    images: Mapping[MRSequence, sitk.Image],
    transforms: Mapping[MRSequence, sitk.Transform],
    brain: sitk.Image,
    config: PreparationConfig,
) -> SliceStack:
    """Resample all sequences to slices centred on the brain, and normalise them inside it.

    images: axial; transforms: from the reference to each sequence; brain: uint8 0 or 1 on the reference's grid.
    """
    grid, slice_indices = create_slice_grid(
        brain, config.size, config.pixel_mm, 0.0 if study.aligned else config.step_mm
    )
    brain_mask = _resample_brain_mask(brain, grid)
    return SliceStack(
        patient_id=study.patient_id,
        images={
            name: normalise_z_score(
                _to_array(resample(images[name], grid, transforms[name], 0.0)), brain_mask, name
            )
            for name in sequences
        },
        brain=brain_mask,
        affine=compute_image_affine(grid),
        slice_names=_select_slice_names(study, sequences[-1], slice_indices),
        selected=select_equidistant_slices(len(slice_indices), config.k),
        lesion=_resample_lesion_mask(study, grid),
        to_stack={name: compute_transform_matrix(transforms[name].GetInverse()) for name in sequences},
    )


def _resample_brain_mask(brain: sitk.Image, grid: sitk.Image) -> np.ndarray:
    """Resample a mask of 0 and 1; a pixel is brain if all voxels from which it is interpolated are."""
    # not as integers, which are truncated: positions on oblique grids are rounded, and a slice whose position is off
    # by 1e-14 would lose everything that the next slice does not contain
    inside = resample(sitk.Cast(brain, sitk.sitkFloat32), grid, sitk.Transform(), 0.0)
    return sitk.GetArrayFromImage(inside) >= 1 - 1e-6


def _list_required_sequences(study: Study, sequences: Sequence[MRSequence]) -> list[MRSequence]:
    """List the requested sequences and the one used for skull stripping."""
    strip_on = next(name for name in SKULL_STRIPPING_ORDER if name in study.series)
    return list(dict.fromkeys([*sequences, strip_on]))


def _register_to_reference(
    study: Study, images: Mapping[MRSequence, sitk.Image], reference: MRSequence
) -> dict[MRSequence, sitk.Transform]:
    fixed = images[reference]
    return {
        name: sitk.Transform(3, sitk.sitkIdentity)
        if study.aligned or name == reference
        else register_rigidly(fixed, image)
        for name, image in images.items()
    }


@dataclass(frozen=True, eq=False)
class _SharedBrain:
    """The brain that all sequences cover, uint8 0 or 1 on the reference's grid, with notes and warnings."""

    mask: sitk.Image
    coverage: BrainCoverage
    stripped_sequences: tuple[MRSequence, ...]
    notes: tuple[Message, ...]
    warnings: tuple[Message, ...]


def _find_shared_brain(
    study: Study,
    images: Mapping[MRSequence, sitk.Image],
    transforms: Mapping[MRSequence, sitk.Transform],
    sequences: Sequence[MRSequence],
) -> _SharedBrain:
    """Extract the brain from one sequence, preferably a skull-stripped one; images: axial, by sequence."""
    stripped_sequences = [name for name in images if is_skull_stripped(images[name])]
    brain_sequence = next(name for name in SKULL_STRIPPING_ORDER if name in (stripped_sequences or images))
    mask = (
        compute_foreground_mask(images[brain_sequence])
        if stripped_sequences
        else extract_brain_mask(images[brain_sequence])
    )
    coverage = measure_brain_coverage(
        {name: images[name] for name in dict.fromkeys([*sequences, brain_sequence])},
        mask,
        brain_sequence,
        transforms,
        compute_foreground_mask if stripped_sequences else extract_brain_mask,
    )
    is_cut = coverage.examined_share is None or bool(coverage.warnings)
    size_warnings = (
        () if study.spacing_assumed else check_brain_size(mask, study.series[brain_sequence], is_cut)
    )
    reference = images[sequences[-1]]
    # linear, not nearest neighbour: a smooth edge when thick slices are resampled to a finer grid
    resampled_mask = resample(sitk.Cast(mask, sitk.sitkFloat32), reference, transforms[brain_sequence], 0.0)
    shared_mask = sitk.Cast(resampled_mask >= 0.5, sitk.sitkUInt8)
    for name in sequences[:-1]:
        field = sitk.Image(images[name].GetSize(), sitk.sitkUInt8) + 1
        field.CopyInformation(images[name])
        shared_mask = shared_mask & resample(
            field, reference, transforms[name], 0.0, sitk.sitkNearestNeighbor
        )
    return _SharedBrain(
        shared_mask,
        coverage,
        tuple(stripped_sequences),
        _collect_stripping_notes(stripped_sequences, images),
        (*coverage.warnings, *size_warnings),
    )


def _collect_stripping_notes(
    stripped_sequences: Sequence[MRSequence], images: Mapping[MRSequence, sitk.Image]
) -> tuple[Message, ...]:
    if not stripped_sequences:
        return ()
    if len(stripped_sequences) == len(images):
        return (message("skull-gone"),)
    return (message("skull-gone-in-some", sequences=", ".join(stripped_sequences)),)


def _select_slice_names(study: Study, reference: MRSequence, slice_indices: Sequence[int]) -> tuple[str, ...]:
    """Select slice names: file names for pictures; volumes are numbered from inferior, starting at 001."""
    if study.kind == "pictures":
        return tuple(study.series[reference].slice_names[index] for index in slice_indices)
    return tuple(f"{index + 1:03d}" for index in slice_indices)


def _resample_lesion_mask(study: Study, grid: sitk.Image) -> np.ndarray | None:
    if study.lesion is None:
        return None
    mask = to_simpleitk_image(study.lesion.image.astype(np.float32), study.lesion.affine)
    return _to_array(resample(mask, grid, sitk.Transform(), 0.0)) >= 0.5


def _to_array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image).astype(np.float32)
