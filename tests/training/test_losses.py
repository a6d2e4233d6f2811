"""The losses, compared with their equations."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from gliomark.models.published.kinet import SMALL_KINET_SIZE, KiNetSettings, KiNetSize, build_kinet
from gliomark.training.losses import (
    SIGMA_NEGATIVE,
    SIGMA_POSITIVE,
    LearntBMSLoss,
    bms_loss,
    compute_prior_weight,
    deeply_supervised_loss,
    distillation_loss,
    grading_loss,
    segmentation_loss,
    similarity_loss,
)


def test_the_prior_weight_follows_its_equation() -> None:
    assert compute_prior_weight(torch.tensor(0.5)).item() == 1
    assert SIGMA_NEGATIVE < SIGMA_POSITIVE
    for p, sigma in ((0.3, 0.2), (0.42, 0.2), (0.6, 0.4), (0.95, 0.4)):
        expected = math.exp(-((p - 0.5) ** 2) / (2 * sigma**2))
        assert compute_prior_weight(torch.tensor(p)).item() == pytest.approx(expected, rel=1e-5)
    everywhere = compute_prior_weight(torch.linspace(0, 1, 1001))
    assert everywhere.min().item() == pytest.approx(0.1) and everywhere.argmax() == 500
    assert compute_prior_weight(torch.tensor(0.0)).item() == pytest.approx(0.1), "a pixel is ignored"
    # at the same distance from 0.5, a pixel with a higher prior has a larger weight
    assert (
        compute_prior_weight(torch.linspace(0.55, 1, 9))
        > compute_prior_weight(1 - torch.linspace(0.55, 1, 9))
    ).all()


def create_logits(lesion: torch.Tensor, confidence: float) -> torch.Tensor:
    return torch.stack([-confidence * (2 * lesion - 1), confidence * (2 * lesion - 1)], dim=1)


@pytest.mark.parametrize("weighted", [True, False])
def test_segmentation_loss_is_lowest_for_the_correct_mask(weighted: bool) -> None:
    torch.manual_seed(0)
    lesion = torch.zeros(2, 16, 16)
    lesion[0, 4:9, 3:8] = 1
    weight = compute_prior_weight(torch.rand(2, 16, 16)) if weighted else None
    shifted = lesion.roll(2, dims=2)
    losses = [
        segmentation_loss(create_logits(prediction, 6.0), lesion, weight).item()
        for prediction in (lesion, shifted, torch.zeros_like(lesion), 1 - lesion)
    ]
    assert losses == sorted(losses) and losses[0] < 0.01 and losses[3] > 5
    uncertain = segmentation_loss(create_logits(lesion, 0.5), lesion, weight).item()
    assert losses[0] < uncertain < losses[2] + 5


def test_segmentation_loss_is_weighted_entropy_plus_soft_dice() -> None:
    torch.manual_seed(0)
    logits, lesion = torch.randn(2, 2, 5, 5), (torch.rand(2, 5, 5) > 0.6).float()
    weight = torch.rand(2, 5, 5) + 0.1
    entropy, weights, overlap, total = 0.0, 0.0, 0.0, 0.0
    for b in range(2):
        for r in range(5):
            for c in range(5):
                p = 1 / (1 + math.exp(logits[b, 0, r, c] - logits[b, 1, r, c]))
                t, w = lesion[b, r, c].item(), weight[b, r, c].item()
                entropy -= w * (t * math.log(p) + (1 - t) * math.log(1 - p))
                weights, overlap, total = weights + w, overlap + p * t, total + p + t
    expected = entropy / weights + 1 - (2 * overlap + 1) / (total + 1)
    assert segmentation_loss(logits, lesion, weight).item() == pytest.approx(expected, rel=1e-5)
    # a constant weight has no effect
    plain = segmentation_loss(logits, lesion, None)
    torch.testing.assert_close(segmentation_loss(logits, lesion, torch.full((2, 5, 5), 0.3)), plain)


def test_grading_loss_counts_only_known_grades_on_lesion_slices() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 2, requires_grad=True)
    grade, lesion = torch.tensor([1, -1, 0, 0]), torch.ones(4, 3, 3)
    lesion[2] = 0
    loss = grading_loss(logits, grade, lesion)
    torch.testing.assert_close(loss, F.cross_entropy(logits[[0, 3]], grade[[0, 3]]))
    loss.backward()
    assert (logits.grad[[1, 2]] == 0).all() and (logits.grad[[0, 3]] != 0).any()


def test_grading_loss_without_graded_lesion_slices_is_zero_but_differentiable() -> None:
    logits = torch.randn(2, 2, requires_grad=True)
    loss = grading_loss(logits, torch.tensor([-1, 1]), torch.stack([torch.ones(3, 3), torch.zeros(3, 3)]))
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()


def create_kinet_output(batch: int = 3) -> dict:
    torch.manual_seed(0)
    widths = (4, 6, 8, 10)
    return {
        "logits": torch.randn(batch, 2),
        "first_logits": torch.randn(batch, 2),
        "second_logits": torch.randn(batch, 2),
        "stage_logits": [torch.randn(batch, 2) for _ in widths],
        "first_stage_vectors": [torch.randn(batch, w) for w in widths],
        "second_stage_vectors": [torch.randn(batch, w) for w in widths],
    }


def test_bms_loss_follows_its_equations() -> None:
    output, target = create_kinet_output(), torch.tensor([0, 1, 1])

    def compute_entropy(logits: torch.Tensor) -> float:
        rows = [
            -math.log(math.exp(r[t]) / (math.exp(r[0]) + math.exp(r[1])))
            for r, t in zip(logits, target, strict=True)
        ]
        return sum(rows) / len(rows)

    beta = [0.025, 0.025, 0.2, 0.35, 0.4]
    master = sum(b * compute_entropy(s) for b, s in zip(beta, output["stage_logits"], strict=False))
    master += beta[4] * compute_entropy(output["logits"])  # eq. 4-5
    loss = (
        0.35 * compute_entropy(output["first_logits"])
        + 0.40 * master
        + 0.25 * compute_entropy(output["second_logits"])
    )  # eq. 4-4
    similar = 0.0
    for b, one, two in zip(
        beta, output["first_stage_vectors"], output["second_stage_vectors"], strict=False
    ):  # eq. 4-6
        units = ((x / x.norm(), y / y.norm()) for x, y in zip(one, two, strict=True))
        similar += b / (2 * 3) * sum(float((x - y).square().sum()) for x, y in units)
    assert bms_loss(output, target).item() == pytest.approx(loss + similar, rel=1e-5)  # eq. 4-3
    pooled = output["first_stage_vectors"], output["second_stage_vectors"]
    assert similarity_loss(*pooled).item() == pytest.approx(similar, rel=1e-5)


def test_similarity_is_zero_for_equal_branches_and_symmetric() -> None:
    output = create_kinet_output()
    one, two = output["first_stage_vectors"], output["second_stage_vectors"]
    assert similarity_loss(one, one).item() == 0
    torch.testing.assert_close(similarity_loss(one, two), similarity_loss(two, one))
    assert similarity_loss(one, two) > 0


@pytest.mark.parametrize("size", [KiNetSize(), SMALL_KINET_SIZE], ids=["published", "small"])
def test_similarity_does_not_amplify_the_loss(size: KiNetSize) -> None:
    """The published weight of L_sim is 1; with raw features L_sim would be about fifty times L."""
    torch.manual_seed(0)
    network, target = build_kinet(KiNetSettings(size=size)), torch.tensor([0, 1])
    output = network(torch.randn(2, 4, 64, 64))
    similar = similarity_loss(output["first_stage_vectors"], output["second_stage_vectors"])
    loss = bms_loss(output, target) - similar
    assert 0 < similar < loss
    weight = network.first.stages[0][0].expand[0].weight
    slopes = [torch.autograd.grad(one, weight, retain_graph=True)[0].norm() for one in (similar, loss)]
    assert slopes[0] < slopes[1]


def test_learnt_bms_weights_start_uniform_at_no_cost() -> None:
    output, target = create_kinet_output(), torch.tensor([0, 1, 1])
    uniform = bms_loss(output, target, (1 / 3,) * 3, (1 / 5,) * 5)
    learnt = LearntBMSLoss()
    assert learnt(output, target).item() == pytest.approx(uniform.item(), rel=1e-6)
    assert learnt.read_weights() == {
        "alpha": pytest.approx([1 / 3] * 3),
        "beta": pytest.approx([1 / 5] * 5),
    }


def test_learnt_bms_weights_end_at_the_optimum_of_their_cost_and_do_not_collapse() -> None:
    """For losses L_k of mean L the optimum is w_k = 1 / (2 (L_k - L) + K): without the cost it is one weight of 1."""
    output, target = create_kinet_output(), torch.tensor([0, 1, 1])
    output["first_logits"] = torch.tensor([[9.0, -9.0], [-9.0, 9.0], [-9.0, 9.0]])  # no loss
    output["second_logits"] = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    learnt = LearntBMSLoss()
    optimiser = torch.optim.SGD(learnt.parameters(), lr=0.3)
    for _ in range(500):
        optimiser.zero_grad()
        learnt(output, target).backward()
        optimiser.step()
    alpha, beta = (torch.tensor(learnt.read_weights()[name]) for name in ("alpha", "beta"))
    heads = [*output["stage_logits"], output["logits"]]
    master = sum(b * F.cross_entropy(head, target) for b, head in zip(beta, heads, strict=True))
    losses = torch.stack(
        [
            F.cross_entropy(output["first_logits"], target),
            master,
            F.cross_entropy(output["second_logits"], target),
        ]
    )
    torch.testing.assert_close(alpha, 1 / (2 * (losses - (alpha * losses).sum()) + 3), atol=1e-4, rtol=1e-4)
    assert alpha[0] == alpha.max() and alpha.min() > 0.1 and beta.min() > 0.05


# ---- deep supervision and distillation ----------------------------------------------------------------


def create_logits_list(count: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 2, 6, 6) for _ in range(count)]


@pytest.mark.parametrize("weighted", [True, False])
def test_deep_supervision_halves_from_level_to_level(weighted: bool) -> None:
    logits, *deeper = create_logits_list(3)
    lesion = (torch.rand(2, 6, 6) > 0.6).float()
    weight = torch.rand(2, 6, 6) + 0.1 if weighted else None
    first, second, third = (segmentation_loss(one, lesion, weight) for one in (logits, *deeper))
    expected = (first + second / 2 + third / 4) / 1.75
    torch.testing.assert_close(deeply_supervised_loss(logits, deeper, lesion, weight), expected)
    torch.testing.assert_close(deeply_supervised_loss(logits, (), lesion, weight), first)
    same = deeply_supervised_loss(logits, [logits, logits], lesion, weight)
    torch.testing.assert_close(same, first)


def test_distillation_is_the_kullback_leibler_divergence_from_the_teacher() -> None:
    logits, teacher_logits = create_logits_list(2)
    total = 0.0
    for student, teacher in zip(
        logits.permute(0, 2, 3, 1).reshape(-1, 2),
        teacher_logits.permute(0, 2, 3, 1).reshape(-1, 2),
        strict=True,
    ):
        q, p = 1 / (1 + math.exp(student[0] - student[1])), 1 / (1 + math.exp(teacher[0] - teacher[1]))
        total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert distillation_loss(logits, teacher_logits).item() == pytest.approx(total / (2 * 6 * 6), rel=1e-4)
    assert abs(distillation_loss(teacher_logits, logits).item() - total / 72) > 1e-3, (
        "the divergence is symmetric"
    )


def test_distillation_is_zero_for_agreement_and_positive_otherwise() -> None:
    logits, other = create_logits_list(2)
    assert distillation_loss(logits, logits).item() == pytest.approx(0, abs=1e-6)
    # only the odds of the classes matter
    assert distillation_loss(logits, logits + 3).item() == pytest.approx(0, abs=1e-6)
    assert distillation_loss(logits, other).item() > 0.1
    student = logits.clone().requires_grad_()
    distillation_loss(student, other).backward()
    nearer = distillation_loss(student.detach() - 10 * student.grad, other)
    assert nearer < distillation_loss(logits, other)
