"""Losses of method.md, sections 3 and 4, with their equation numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gliomark.models.comparison.centralnet import CentralNetOutput
from gliomark.models.entries import MarkerLoss
from gliomark.models.network_io import MarkerOutput
from gliomark.models.published.kinet import KiNetOutput

SIGMA_NEGATIVE, SIGMA_POSITIVE = 0.2, 0.4
MIN_PRIOR_WEIGHT = 0.1

# of the first sequence, the master and the second sequence; of the master's four stages and its final output
BMS_ALPHA = (0.35, 0.40, 0.25)
BMS_BETA = (0.025, 0.025, 0.2, 0.35, 0.4)


def compute_prior_weight(prior: Tensor) -> Tensor:
    """Compute the pixel weight w(P) (equation 3-2); prior: P, 0 to 1, any shape, scaled to a maximum of 1::

        w(P) = exp(-(P - 0.5)^2 / (2 s^2)),  s = s_neg for P <= 0.5 and s_pos above, s_neg < s_pos

    The weight is largest where the prior is near 0.5, and at least 0.1 so that no pixel is ignored.
    """
    sigma = SIGMA_NEGATIVE + (SIGMA_POSITIVE - SIGMA_NEGATIVE) * (prior > 0.5)
    return torch.exp(-((prior - 0.5) ** 2) / (2 * sigma**2)).clamp(min=MIN_PRIOR_WEIGHT)


def segmentation_loss(logits: Tensor, lesion: Tensor, weight: Tensor | None) -> Tensor:
    """Compute the weighted pixel cross-entropy plus the soft Dice loss of the batch.

    logits ``(B, 2, H, W)``; lesion ``(B, H, W)`` of 0 and 1; weight ``(B, H, W)`` or None (FPG off).
    """
    entropy = F.cross_entropy(logits, lesion.long(), reduction="none")
    entropy = entropy.mean() if weight is None else (weight * entropy).sum() / weight.sum()
    probability = logits.softmax(dim=1)[:, 1]
    # over the batch, because Dice is undefined for a single slice without lesion
    overlap = (2 * (probability * lesion).sum() + 1) / (probability.sum() + lesion.sum() + 1)
    return entropy + 1 - overlap


def deeply_supervised_loss(
    logits: Tensor, deep_supervision_logits: Sequence[Tensor], lesion: Tensor, weight: Tensor | None
) -> Tensor:
    """Compute ``segmentation_loss`` of all levels; each coarser level has half the weight of the one before.

    logits and each of deep_supervision_logits ``(B, 2, H, W)``; without coarser levels it equals ``segmentation_loss``.
    """
    shares = [0.5**level for level in range(1 + len(deep_supervision_logits))]
    losses = [segmentation_loss(one, lesion, weight) for one in (logits, *deep_supervision_logits)]
    return torch.stack([s * loss for s, loss in zip(shares, losses, strict=True)]).sum() / sum(shares)


def distillation_loss(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Compute the distillation loss (Hinton et al. 2015, temperature 1) from both logits ``(B, 2, H, W)``.

    It is the Kullback-Leibler divergence from the teacher, averaged over pixels.
    """
    return (
        F.kl_div(
            logits.log_softmax(dim=1), teacher_logits.log_softmax(dim=1), log_target=True, reduction="none"
        )
        .sum(dim=1)
        .mean()
    )


def grading_loss(logits: Tensor, grade: Tensor, lesion: Tensor) -> Tensor:
    """Compute the cross-entropy of low (0) against high (1) grade, over slices with lesion and known grade.

    logits ``(B, 2)``; grade ``(B,)``, -1 if unknown; lesion mask ``(B, H, W)``.
    """
    is_counted = (grade >= 0) & (lesion.flatten(1).amax(dim=1) > 0)
    each = F.cross_entropy(logits, grade.clamp(min=0), reduction="none")
    return (each * is_counted).sum() / is_counted.sum().clamp(min=1)


LossWeights = Sequence[float] | Tensor


def similarity_loss(
    first: Sequence[Tensor], second: Sequence[Tensor], beta: LossWeights = BMS_BETA
) -> Tensor:
    """Compute L_sim (equation 4-5): ``sum_i beta_i / (2N) sum_n ||A_n - B_n||^2`` over the four stages.

    first, second: pooled stage features of the two sequences' branches, each ``(N, channels)``. They are compared as
    unit vectors, so that L_sim with its published weight of 1 stays below L; with raw features it would be about fifty
    times as large.
    """
    pairs = ((F.normalize(a, dim=1), F.normalize(b, dim=1)) for a, b in zip(first, second, strict=True))
    squares = [((a - b) ** 2).sum(dim=1).mean() / 2 for a, b in pairs]
    return torch.stack([beta * one for beta, one in zip(beta, squares, strict=False)]).sum()


def bms_loss(
    outputs: KiNetOutput, target: Tensor, alpha: LossWeights = BMS_ALPHA, beta: LossWeights = BMS_BETA
) -> Tensor:
    """Compute the binary multi-scale loss (equations 4-3 to 4-6): ``L_BMS = L + L_sim`` with::

        L        = alpha_1 L_T1C + alpha_2 L_master + alpha_3 L_second,  alpha = 0.35, 0.40, 0.25
        L_master = sum_{i=1..4} beta_i L_s_i + beta_5 L_cat,  beta = 0.025, 0.025, 0.2, 0.35, 0.4

    outputs: KiNet's output; target ``(B,)`` of 0 and 1; alpha ``(3,)``; beta ``(5,)``. Every L is a cross-entropy.
    """
    heads = [*outputs["stage_logits"], outputs["logits"]]
    master = torch.stack(
        [beta * F.cross_entropy(head, target) for beta, head in zip(beta, heads, strict=True)]
    ).sum()
    loss = alpha[0] * F.cross_entropy(outputs["first_logits"], target) + alpha[1] * master
    loss = loss + alpha[2] * F.cross_entropy(outputs["second_logits"], target)
    return loss + similarity_loss(outputs["first_stage_vectors"], outputs["second_stage_vectors"], beta)


class LearntBMSLoss(nn.Module):
    """BMS loss whose weights alpha and beta are learnt, to check whether they end near the published ones.

    Both are the softmax of free parameters and start uniform. Plain minimisation would shift all weight to whichever
    loss is smallest. As in the uncertainty weighting of Kendall et al. (2018), who minimise ``w L - log(w) / 2`` for
    every loss L of weight w, each weight therefore costs ``-log(w) / 2``: no weight can reach 0, larger losses get
    smaller weights, and equal losses get equal ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alpha_logits = nn.Parameter(torch.zeros(len(BMS_ALPHA)))
        self.beta_logits = nn.Parameter(torch.zeros(len(BMS_BETA)))

    def forward(self, outputs: KiNetOutput, target: Tensor) -> Tensor:
        """Return the loss of KiNet's output for target ``(B,)``; at uniform weights the weights cost nothing."""
        loss = bms_loss(outputs, target, self.alpha_logits.softmax(dim=0), self.beta_logits.softmax(dim=0))
        for logits in (self.alpha_logits, self.beta_logits):
            loss = loss - (logits.log_softmax(dim=0) + math.log(len(logits))).sum() / 2
        return loss

    def read_weights(self) -> dict[str, list[float]]:
        """Return the current weights: "alpha", three, and "beta", five."""
        logits = {"alpha": self.alpha_logits, "beta": self.beta_logits}
        return {name: one.detach().softmax(dim=0).tolist() for name, one in logits.items()}


def cross_entropy_loss(outputs: MarkerOutput, target: Tensor) -> Tensor:
    """Compute the cross-entropy of the final logits; target ``(B,)`` of 0 and 1.

    It is the loss of the comparison networks and of KiNet without BMS.
    """
    return F.cross_entropy(outputs["logits"], target)


def centralnet_loss(outputs: CentralNetOutput, target: Tensor) -> Tensor:
    """Compute CentralNet's loss (Vielzeuf et al. 2018): the sum of the three branches' cross-entropies.

    target ``(B,)`` of 0 and 1.
    """
    heads = (outputs["logits"], outputs["first_logits"], outputs["second_logits"])
    return torch.stack([F.cross_entropy(head, target) for head in heads]).sum()


MARKER_LOSSES: Mapping[MarkerLoss, Callable[[Any, Tensor], Tensor]] = {
    "bms": bms_loss,
    "cross-entropy": cross_entropy_loss,
    "branches": centralnet_loss,
}


def build_marker_loss(name: MarkerLoss) -> Callable[[Any, Tensor], Tensor]:
    """Return the loss of a name, which is called with an output and labels ``(B,)``; a module if it has weights."""
    return LearntBMSLoss() if name == "learnt bms" else MARKER_LOSSES[name]
