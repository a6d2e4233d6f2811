"""Parse and check the LightGBM trees of a weights file, and rewrite them for LightGBM.

LightGBM's own parser does not check its input, and an invalid text may end the process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gliomark.errors import WeightsError
from gliomark.models.lightgbm_library import lightgbm
from gliomark.models.tensor_checks import create_part_message
from gliomark.models.weights import TREES_TENSOR, Weights

LESION_FEATURE_COUNT = 9  # see ``inference.slice_classifier.compute_lesion_features``
MAX_TEXT_LENGTH = 2**25
MAX_TREES = 10_000
MAX_LEAVES = 1024
MAX_DEPTH = 64
MAX_LEAF_VALUE = 1e6  # leaf value, in log-odds
MAX_NUMBER = 1e300
OBJECTIVE = "binary sigmoid:1"
# bit 1 (2): default direction of missing values; bits 2 and 3 (4, 8): which values count as missing (none, zero, NaN);
# bit 0 (1), a categorical split, is not allowed
ALLOWED_DECISION_TYPES = {0, 2, 4, 6, 8, 10}
INTEGER_PATTERN = re.compile(r"-?[0-9]{1,9}")
FLOAT_PATTERN = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?(e[+-]?[0-9]{1,3})?")
THRESHOLD_PATTERN = re.compile(
    rf"{FLOAT_PATTERN.pattern}|-?inf"
)  # an infinite threshold separates only the missing values
# the fields that predictions and TreeSHAP need: one value per tree, per internal node, per leaf
TREE_FIELDS = {
    "num_leaves": INTEGER_PATTERN,
    "num_cat": INTEGER_PATTERN,
    "is_linear": INTEGER_PATTERN,
    "shrinkage": FLOAT_PATTERN,
}
NODE_FIELDS = {
    "split_feature": INTEGER_PATTERN,
    "threshold": THRESHOLD_PATTERN,
    "decision_type": INTEGER_PATTERN,
    "left_child": INTEGER_PATTERN,
    "right_child": INTEGER_PATTERN,
    "internal_count": INTEGER_PATTERN,
}
LEAF_FIELDS = {"leaf_value": FLOAT_PATTERN, "leaf_count": INTEGER_PATTERN}


@dataclass(frozen=True)
class DecisionTree:
    """Fields of one tree by name, each a list of numbers as text."""

    lines: dict[str, list[str]]

    def get_integers(self, name: str) -> list[int]:
        """Return the values of a field as integers."""
        return [int(word) for word in self.lines[name]]

    def get_floats(self, name: str) -> list[float]:
        """Return the values of a field as floating-point numbers."""
        return [float(word) for word in self.lines[name]]

    @property
    def leaf_count(self) -> int:
        """Number of leaves."""
        return self.get_integers("num_leaves")[0]


def load_trees(weights: Weights, name: str, vector_length: int) -> lightgbm.Booster:
    """Load the trees of a marker, whose network has an image vector of this length.

    Raises
    ------
    WeightsError
        If they are missing or not valid.
    """
    card = weights.card.markers[name]
    columns = {"vector": vector_length + 1, "log-odds": 1, "lesion": 1 + LESION_FEATURE_COUNT}[
        card.architecture.evidence
    ]
    try:
        tensor = weights.tensors.get(f"{name}/{TREES_TENSOR}", np.empty(0))
        if tensor.dtype != np.uint8 or tensor.ndim != 1:
            raise ValueError("the text of the trees is missing")
        return parse_trees(tensor.tobytes().decode("ascii"), columns + (0 if card.age_cut is None else 2))
    except (ValueError, lightgbm.basic.LightGBMError) as error:
        raise WeightsError(create_part_message("weights-trees", weights.path, name, error)) from None


def parse_trees(text: str, column_count: int) -> lightgbm.Booster:
    """Parse and check LightGBM's text form of trees for a table with ``column_count`` columns.

    Raises
    ------
    ValueError
        If the text is too long, damaged, or describes trees of another kind or another number of columns.
    """
    if len(text) > MAX_TEXT_LENGTH:
        raise ValueError(f"the text is {len(text)} characters long")
    header, *blocks = re.split(r"(?m)^Tree=", text.partition("\nend of trees")[0])
    _check_header(header, column_count, "\nend of trees" in text, len(blocks))
    trees = [_parse_tree(block, number, column_count) for number, block in enumerate(blocks)]
    return lightgbm.Booster(model_str=_format_trees(trees, column_count))


def _check_header(header: str, column_count: int, is_complete: bool, tree_count: int) -> None:
    lines = header.split("\n")
    stated = dict(line.split("=", 1) for line in lines if "=" in line)
    if lines[0] != "tree" or stated.get("version") not in ("v3", "v4") or "average_output" in lines:
        raise ValueError("the text does not begin with LightGBM's header")
    wanted = {"num_class": "1", "num_tree_per_iteration": "1", "objective": OBJECTIVE}
    for name, value in wanted.items():
        if stated.get(name) != value:
            raise ValueError(f"{name} is {stated.get(name, 'missing')[:40]}, not {value}")
    if stated.get("max_feature_idx") != str(column_count - 1):
        raise ValueError(
            f"the trees use {_format_column_count(stated.get('max_feature_idx', ''))} columns, but the model "
            f"provides {column_count}"
        )
    if (
        not is_complete
        or not 0 < tree_count <= MAX_TREES
        or len(stated.get("tree_sizes", "").split()) != tree_count
    ):
        raise ValueError(f"{tree_count} trees were read, not the number in the header, or the end is missing")


def _format_column_count(index: str) -> str:
    return str(int(index) + 1) if INTEGER_PATTERN.fullmatch(index) else "an unknown number of"


def _parse_tree(block: str, index: int, column_count: int) -> DecisionTree:
    """Parse and check one tree. Raises ValueError if it is not valid."""
    first, *lines = block.strip("\n").split("\n")
    if first != str(index):
        raise ValueError(f"tree {index} is numbered {first[:20]!r}")
    stated = {name: value for name, _, value in (line.partition("=") for line in lines)}
    tree = DecisionTree({name: _parse_values(stated, name, 1, form) for name, form in TREE_FIELDS.items()})
    leaves = tree.leaf_count
    if not 1 <= leaves <= MAX_LEAVES or tree.lines["num_cat"] != ["0"] or tree.lines["is_linear"] != ["0"]:
        raise ValueError(f"tree {index} is of a kind that gliomark does not support")
    tree.lines["leaf_value"] = _parse_values(stated, "leaf_value", leaves, FLOAT_PATTERN)
    if max(map(abs, tree.get_floats("leaf_value"))) > MAX_LEAF_VALUE:
        raise ValueError(f"tree {index} has a leaf value that training cannot produce")
    if leaves > 1:
        tree.lines.update(
            {name: _parse_values(stated, name, leaves - 1, form) for name, form in NODE_FIELDS.items()}
        )
        tree.lines.update(
            {name: _parse_values(stated, name, leaves, form) for name, form in LEAF_FIELDS.items()}
        )
        _check_structure(tree, index, column_count)
    return tree


def _parse_values(stated: Mapping[str, str], name: str, count: int, pattern: re.Pattern[str]) -> list[str]:
    """Return the numbers of a field as text. Raises ValueError if their count or format is wrong."""
    words = stated.get(name, "").split()
    if len(words) != count:
        raise ValueError(f"{name} has {len(words)} numbers, not {count}")
    for word in words:
        if not pattern.fullmatch(word) or not (abs(float(word)) < MAX_NUMBER or pattern is THRESHOLD_PATTERN):
            raise ValueError(f"{name} contains {word[:20]!r}, which is not a valid number")
    return words


def _check_structure(tree: DecisionTree, index: int, column_count: int) -> None:
    """Check that all nodes form one tree, that columns exist and that no leaf is empty. Raises ValueError."""
    inner, leaves = tree.leaf_count - 1, tree.leaf_count
    if not set(tree.get_integers("split_feature")) <= set(range(column_count)):
        raise ValueError(f"tree {index} uses a column that does not exist")
    if not set(tree.get_integers("decision_type")) <= ALLOWED_DECISION_TYPES:
        raise ValueError(f"tree {index} uses a decision type that gliomark does not support")
    if min(*tree.get_integers("internal_count"), *tree.get_integers("leaf_count")) < 1:
        raise ValueError(f"tree {index} has an empty leaf")
    left, right = tree.get_integers("left_child"), tree.get_integers("right_child")
    depth = {0: 1}
    for node in _iterate_nodes(left, right, inner):
        for child in (left[node], right[node]):
            depth[child] = depth[node] + 1
    if sorted(depth) != list(range(-leaves, inner)) or max(depth.values()) > MAX_DEPTH:
        raise ValueError(f"tree {index} is not a tree, or is deeper than {MAX_DEPTH}")


def _iterate_nodes(left: Sequence[int], right: Sequence[int], node_count: int) -> Iterator[int]:
    """Iterate over the internal nodes, parents first. Raises ValueError if a node has two parents or is missing."""
    pending, seen = [0], {0}
    while pending:
        node = pending.pop()
        yield node
        for child in (left[node], right[node]):
            if child in seen or not -node_count - 1 <= child < node_count:
                raise ValueError("a node of a tree has two parents, or does not exist")
            seen.add(child)
            if child >= 0:
                pending.append(child)


def _format_trees(trees: Sequence[DecisionTree], column_count: int) -> str:
    """Write the trees in LightGBM's text form, from checked numbers only."""
    blocks = [
        f"Tree={number}\n"
        + "".join(f"{name}={' '.join(words)}\n" for name, words in tree.lines.items())
        + "\n\n"
        for number, tree in enumerate(trees)
    ]
    names = " ".join(f"Column_{number}" for number in range(column_count))
    header = (
        "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\n"
        f"max_feature_idx={column_count - 1}\nobjective={OBJECTIVE}\nfeature_names={names}\n"
        f"feature_infos={' '.join(['none'] * column_count)}\ntree_sizes={' '.join(str(len(b)) for b in blocks)}\n\n"
    )
    return header + "".join(blocks) + "end of trees\n"
