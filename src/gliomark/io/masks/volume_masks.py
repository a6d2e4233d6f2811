"""Read a lesion mask from a volume file.

The lesion is the enhancing tumour with the necrotic core, without oedema. A mask with one label is used unchanged. In
a mask with several of the labels 1 to 4, label 2 (oedema) is excluded: BraTS 2013 to 2021 give 1 (+ 3) + 4, BraTS 2023
gives 1 + 3. Exception: a MetaImage with only the labels 1 and 2 follows BRATS 2012, where 1 is oedema and 2 the tumour
core.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomark.errors import InputError
from gliomark.io.format_reader import Certainty
from gliomark.io.itk import claim_itk_file
from gliomark.io.readers import read_volume
from gliomark.messages import message
from gliomark.study import Series

WHOLE_NUMBER_TOLERANCE = 1e-3  # maximum distance of a label from a whole number


def read_lesion_mask(file: Path, notes: list[str], lesion_labels: frozenset[int] | None = None) -> Series:
    """Read a lesion mask as 0 and 1, without oedema by the rule of this module; it may be empty.

    Parameters
    ----------
    file
        A volume file of a format in ``readers``.
    notes
        Notes for the user are appended.
    lesion_labels
        The values that belong to the lesion, if the data set defines them.

    Returns
    -------
    Series
        float32 0 or 1, ``(slice, row, column)``.

    Raises
    ------
    InputError
        If the file cannot be read, or its values are not whole numbers, negative or not BraTS labels.
    """
    content = read_volume(file)
    series = content.series
    notes += content.notes
    labels = _extract_labels(file, series.image, lesion_labels is not None)
    if lesion_labels is not None:
        mask = np.isin(np.rint(series.image), list(lesion_labels)).astype(np.float32)
        return replace(series, image=mask)
    kept = labels
    if len(labels) > 1:
        brats_2012 = labels == {1.0, 2.0} and claim_itk_file(file) is Certainty.CERTAIN
        oedema = 1.0 if brats_2012 else 2.0
        kept = labels - {oedema}
        if oedema in labels:
            notes.append(message("mask-oedema", label=oedema, file=file.name))
    mask = np.isin(np.rint(series.image), list(kept)).astype(np.float32)
    return replace(series, image=mask)


def _extract_labels(file: Path, image: NDArray[np.float32], has_custom_labels: bool) -> set[float]:
    """Return the labels of a mask except 0; a file's scaling may round them imprecisely.

    has_custom_labels: the data set defines its own labels, which may differ from those of BraTS.
    """
    values = np.unique(image)
    if not np.isfinite(values).all():
        count = int(image.size - np.isfinite(image).sum())
        raise InputError(message("mask-not-numbers", file=file, count=count))
    if np.abs(values - np.rint(values)).max() > WHOLE_NUMBER_TOLERANCE:
        raise InputError(message("mask-fractions", file=file, low=values[0], high=values[-1]))
    labels = {float(label) for label in np.rint(values)} - {0.0}
    has_valid_labels = has_custom_labels or len(labels) < 2 or labels <= {1.0, 2.0, 3.0, 4.0}
    if any(label < 0 for label in labels) or not has_valid_labels:
        shown = ", ".join(f"{label:g}" for label in sorted(labels)[:6])
        raise InputError(message("mask-labels", file=file, labels=shown))
    return labels
