"""How far the reader's finding goes: IDH from whether the lesion has an enhancing focus (METHOD section 5), measured.

Nobody's reading is at hand, so enhancement is judged by a rule, fixed before any label was looked at: a voxel of the
drawn lesion enhances where T1C minus T1 (z-scores) is more than three deviations above the mean difference of the
brain outside the lesion; a focus is a connected piece of at least 0.2 ml.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import label as connected
from scipy.stats import binomtest

from gliomark.cohort.store import Cohort, write_json
from gliomark.experiments.records import run_record, write_table
from gliomark.study import GliomarkError, MRSequence, SliceStack
from gliomark.training.classification import known_labels
from gliomark.training.recipes import DEFINITIONS, cohort_sequences

NAME = "reader_finding"
DEVIATIONS = 3.0
SMALLEST_FOCUS_ML = 0.2
PAIR = (MRSequence.T1, MRSequence.T1C)


def largest_focus_ml(stack: SliceStack) -> float:
    """Volume of the largest enhancing piece of the drawn lesion, in millilitres."""
    gain = stack.images[MRSequence.T1C].astype(np.float64) - stack.images[MRSequence.T1]
    outside = gain[stack.brain & ~stack.drawn]
    enhancing = stack.drawn & (gain > outside.mean() + DEVIATIONS * outside.std())
    pieces, count = connected(enhancing)
    sizes: NDArray[np.int64] = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    return float(sizes.max(initial=0) * stack.voxel_volume_ml)


def run(folder: Path, out: Path) -> Path:
    """Write ``reader_finding.csv``, its patients and its record under ``out``; the table's path.

    Raises GliomarkError where the cohort was not prepared for T1 and T1C.
    """
    cohort = Cohort(folder)
    if set(cohort_sequences(cohort)) != set(PAIR):
        raise GliomarkError(
            f"{folder} was prepared for {'+'.join(cohort_sequences(cohort))}; enhancement is seen from T1 to T1C, "
            "so build it with --sequences T1,T1C."
        )
    definition = DEFINITIONS["idh"]
    mutant = known_labels(cohort, definition.column, definition.threshold, PAIR)
    rows = []
    for patient, truth in mutant.items():
        focus = largest_focus_ml(cohort.stack(patient))
        enhancing = int(focus >= SMALLEST_FOCUS_ML)
        rows.append({"patient": patient, "mutant": truth, "largest_focus_ml": focus, "enhancing": enhancing})
    patients = pd.DataFrame(rows)
    said_mutant, mutated = patients["enhancing"] == 0, patients["mutant"] == 1
    shares = {
        "accuracy": (said_mutant == mutated, np.ones(len(patients), bool)),
        "sensitivity (mutant found)": (said_mutant, mutated),
        "specificity (wild type found)": (~said_mutant, ~mutated),
        "mutant where no focus": (mutated, said_mutant),
        "wild type where a focus": (~mutated, ~said_mutant),
    }
    table = pd.DataFrame(
        [{"figure": name, **_share(right[among])} for name, (right, among) in shares.items()]
    )
    write_table(table, out / f"{NAME}.csv")
    write_table(patients, out / f"{NAME}_patients.csv")
    rule = {"deviations": DEVIATIONS, "smallest_focus_ml": SMALLEST_FOCUS_ML}
    write_json(out / f"{NAME}_run_record.json", run_record(NAME, **rule))
    return out / f"{NAME}.csv"


def _share(right: pd.Series) -> dict[str, float]:
    """How many of how many, with the exact interval (Clopper and Pearson)."""
    count, total = int(right.sum()), len(right)
    if not total:
        return {"count": 0, "of": 0, "share": np.nan, "low_95": np.nan, "high_95": np.nan}
    between = binomtest(count, total).proportion_ci()
    return {
        "count": count,
        "of": total,
        "share": count / total,
        "low_95": between.low,
        "high_95": between.high,
    }
