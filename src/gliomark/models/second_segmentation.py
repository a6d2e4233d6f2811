"""Join the segmentation network of one weights file to another file, as its second one."""

from __future__ import annotations

from dataclasses import replace

from gliomark.errors import WeightsError
from gliomark.messages import message
from gliomark.models.card import (
    SECOND_SEGMENTATION_PART,
    SEGMENTATION_PART,
    ModelCard,
    SecondSegmentationCard,
)
from gliomark.models.weights import Array, Weights


def add_second_segmentation(
    weights: Weights, second: Weights, performance: str
) -> tuple[ModelCard, dict[str, Array]]:
    """Add the segmentation network of ``second`` to a model; the model's own networks are not changed.

    Parameters
    ----------
    weights
        The model; a second network that it has is replaced.
    second
        A file with a segmentation network for another pair of sequences.
    performance
        Measured performance of the second network, as text.

    Returns
    -------
    tuple
        The card and the tensors, of any shape by name, for ``save_weights``. A sequence of the second pair no longer
        stands in for a missing one.

    Raises
    ------
    WeightsError
        If the files prepare images differently.
    """
    first_card, second_card = weights.card, second.card
    if dict(first_card.preparation) != dict(second_card.preparation):
        raise WeightsError(message("second-network-preparation", path=second.path, other=weights.path))
    card = SecondSegmentationCard(
        sequences=second_card.sequences,
        rule=second_card.rule,
        segmentation=second_card.segmentation,
        segmentation_threshold=second_card.segmentation_threshold,
        smallest_lesion_ml=second_card.smallest_lesion_ml,
        training_cohort=second_card.training_cohort,
        training_patients=second_card.training_patients,
        folds_sha256=second_card.folds_sha256,
        segmentation_performance=performance,
        training_cohort_id=second_card.training_cohort_id,
    )
    stand_ins = {w: shown for w, shown in first_card.stand_ins.items() if shown not in card.sequences}
    kept = {n: t for n, t in weights.tensors.items() if n.partition("/")[0] != SECOND_SEGMENTATION_PART}
    added = {
        f"{SECOND_SEGMENTATION_PART}/{name.removeprefix(f'{SEGMENTATION_PART}/')}": tensor
        for name, tensor in second.tensors.items()
        if name.startswith(f"{SEGMENTATION_PART}/")
    }
    return replace(first_card, stand_ins=stand_ins, second_segmentation=card), kept | added
