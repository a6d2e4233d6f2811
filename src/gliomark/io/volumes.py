"""Read one patient's volume files into a Study; ``dataset_layout`` finds the file of each sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gliomark.errors import GliomarkError
from gliomark.io.dataset_layout import find_patient_volumes
from gliomark.io.grey_values import clean_grey_values
from gliomark.io.mask_position import check_mask_position
from gliomark.io.masks.volume_masks import read_lesion_mask
from gliomark.io.readers import read_volume
from gliomark.io.volume_files import LESION_ROLE
from gliomark.messages import message
from gliomark.study import MRSequence, Series, Study


def read_volumes(path: Path, required_sequences: Sequence[MRSequence] = ()) -> Study:
    """Read one patient's volumes with the geometry that the files state.

    Images are never assumed to be aligned, even on equal grids; registration decides.

    Parameters
    ----------
    path
        The patient's folder, or ``<folder>/<case>`` for a case of an nnU-Net data set.
    required_sequences
        Used to choose between sessions. A damaged file of any other sequence is skipped with a note if all required
        ones are present.

    Returns
    -------
    Study
        Series float32 and the lesion mask 0 or 1, each ``(slice, row, column)`` with its affine to LPS mm.

    Raises
    ------
    InputError
        If there are two files of one sequence, a damaged file, or an image that is constant, inverted, in colour or
        not 3-D, or if the mask does not lie within the images.
    """
    patient_volumes = find_patient_volumes(path, required_sequences)
    notes, files = list(patient_volumes.notes), patient_volumes.files
    series: dict[MRSequence, Series] = {}
    for sequence in (one for one in MRSequence if one in files):
        try:
            series[sequence] = read_volume_series(files[sequence], sequence, notes)
        except GliomarkError:
            if (
                not required_sequences
                or sequence in required_sequences
                or not set(required_sequences) <= set(files)
            ):
                raise
            notes.append(message("dicom-not-needed", sequence=sequence, file=files[sequence].name))
    lesion = (
        read_lesion_mask(files[LESION_ROLE], notes, patient_volumes.lesion_labels)
        if LESION_ROLE in files
        else None
    )
    if lesion is not None:
        check_mask_position(lesion, lesion.source, series)
    return Study(
        patient_volumes.patient_id,
        series,
        path,
        "volumes",
        lesion=lesion,
        notes=tuple(notes),
        examination=patient_volumes.examination,
    )


def read_volume_series(file: Path, sequence: str, notes: list[str]) -> Series:
    """Read and check the volume of one sequence; notes for the user are appended to ``notes``.

    Raises
    ------
    InputError
        If the file is damaged, or its image is constant, inverted, in colour, not 3-D or not on an orthogonal grid.
    """
    content = read_volume(file)
    series = content.series
    notes += content.notes
    grey = clean_grey_values(series.image, file, sequence, series.slice_names)
    notes += grey.notes
    return replace(series, image=grey.image, missing=grey.missing)
