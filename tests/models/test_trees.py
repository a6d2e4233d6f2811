"""Trees that were parsed and rewritten predict bitwise the same as LightGBM's own parser."""

from __future__ import annotations

import lightgbm
import numpy as np
import pytest

from gliomark.model_loading import load_weights_by_name
from gliomark.models.lightgbm_trees import parse_trees


def assert_same_predictions(text: str, table: np.ndarray) -> None:
    ours, theirs = parse_trees(text, table.shape[1]), lightgbm.Booster(model_str=text)
    for options in ({}, {"pred_contrib": True}, {"raw_score": True}):
        one, other = (np.asarray(b.predict(table, num_threads=1, **options)) for b in (ours, theirs))
        assert np.isfinite(one).all() and np.array_equal(one, other)


def test_the_shipped_trees_predict_the_same() -> None:
    random = np.random.default_rng(0)
    table = random.normal(size=(4000, 3)) * 3
    table[:, 1:] = table[:, 1:] > 0
    table[::5, 1], table[::7, 2], table[::11, 0], table[::13, 0] = np.nan, np.nan, 0, np.nan
    assert_same_predictions(bytes(load_weights_by_name("demo").tensors["idh/lightgbm"]).decode(), table)


@pytest.mark.parametrize("seed", range(12))
def test_trees_of_every_size_predict_the_same(seed: int) -> None:
    """Few or many patients, missing values, integers, constant columns, leaves with one row."""
    random = np.random.default_rng(seed)
    rows = int(random.integers(12, 500))
    table = random.normal(size=(rows, 12)).astype(np.float32).astype(float)
    table[:, 3], table[:, 5], table[:, 7] = table[:, 3] > 0, np.round(table[:, 5]), 1.0
    table[random.random(rows) < 0.2, 3] = np.nan
    label = (table[:, 0] + random.normal(size=rows) > 0).astype(float)
    settings = {
        "objective": "binary", "num_leaves": int(random.choice([4, 15, 31])), "lambda_l2": 5.0, "verbose": -1,
        "min_data_in_leaf": int(random.choice([1, 3, 20])), "bagging_fraction": 0.8, "bagging_freq": 1,
        "feature_fraction": 0.5, "num_threads": 1,
    }  # fmt: skip
    data = lightgbm.Dataset(table, label, weight=random.random(rows) / rows)
    text = lightgbm.train(settings, data, int(random.choice([1, 60]))).model_to_string()
    assert_same_predictions(
        text, np.vstack([table, table * 1e30, np.full((1, 12), np.nan), np.zeros((1, 12))])
    )
