"""What may and what may not be claimed with so many patients, in sentences."""

from __future__ import annotations

import math

from gliomark.evaluation.site import MIN_PATIENTS, MIN_PER_CLASS
from gliomark.experiments.study.results import MarkerResult
from gliomark.messages import Message, message

# patients of either class in an external validation: Collins et al. 2016, Stat Med 35:214
MIN_EXTERNAL_PER_CLASS = 100


def list_claims(result: MarkerResult) -> list[Message]:
    """List what may and may not be claimed of a marker.

    With fewer patients than a calibration needs, if the AUC is not shown to be above 0.5, or is above 0.5 with permuted
    labels too, the only sentence is that nothing may be claimed. Below the sample size for a few candidate parameters,
    no probability may be claimed.
    """
    counts, few, many = result.counts, result.counts.sample_sizes[0], result.counts.sample_sizes[-1]
    marker, validation = counts.definition.title, result.validation
    if not counts.can_be_studied:
        numbers = {"patients": counts.patients, "positives": counts.positives}
        return [message("study-claim-unmeasured", marker=marker, **numbers)]
    if result.evaluation is None:
        return [message("study-claim-no-result", marker=marker)]
    statistics = result.evaluation.overall_statistics
    patients, positives = statistics.patients, statistics.positive
    if patients < MIN_PATIENTS or min(positives, patients - positives) < MIN_PER_CLASS:
        return [
            message(
                "study-claim-nothing",
                marker=marker,
                patients=patients,
                positives=positives,
                fewest=MIN_PATIENTS,
                each=MIN_PER_CLASS,
                few=few.parameters,
                needed=few.patients,
            )
        ]
    mean = result.permuted_mean
    if result.permuted and not math.isfinite(mean.lower):
        return [message("study-claim-permuted-undefined", marker=marker, count=len(result.permuted))]
    if mean.lower > 0.5:
        interval = {"auc": mean.value, "low": mean.lower, "high": mean.upper}
        return [message("study-claim-permuted", marker=marker, count=len(result.permuted), **interval)]
    if not validation.lower > 0.5:
        return [message("study-claim-chance", marker=marker, low=validation.lower, high=validation.upper)]
    return [
        message(
            "study-claim-ranking" if patients < few.patients else "study-claim-internal",
            marker=marker,
            auc=validation.value,
            low=validation.lower,
            high=validation.upper,
            patients=patients,
            few=few.parameters,
            needed_few=few.patients,
            many=many.parameters,
            needed_many=many.patients,
        ),
        *_list_claims_against_baselines(result),
        message("study-claim-elsewhere", count=MIN_EXTERNAL_PER_CLASS),
    ]


def _list_claims_against_baselines(result: MarkerResult) -> list[Message]:
    """List the baselines that the model was not shown to exceed."""
    differences = {
        baseline.name: baseline.against_model.test.difference
        for baseline in result.baselines
        if baseline.against_model is not None
    }
    return [
        message(
            "study-claim-baseline",
            baseline=name,
            difference=difference.value,
            low=difference.lower,
            high=difference.upper,
        )
        for name, difference in differences.items()
        if not difference.lower > 0
    ]
