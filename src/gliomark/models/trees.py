"""LightGBM's trees from a weights file: the text is read and checked here and written anew for LightGBM, whose own
reader trusts what it is given and may end the process on a broken text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import lightgbm

MAX_TEXT_LENGTH = 2**25
MAX_TREES = 10_000
MAX_LEAVES = 1024
MAX_DEPTH = 64
MAX_LEAF_VALUE = 1e6  # of a leaf, in log-odds
MAX_NUMBER = 1e300
OBJECTIVE = "binary sigmoid:1"
# where a missing value goes (2) and what counts as missing: nothing, zero or no number (4, 8); never categories (1)
ALLOWED_DECISION_TYPES = {0, 2, 4, 6, 8, 10}
INTEGER_PATTERN = re.compile(r"-?[0-9]{1,9}")
FLOAT_PATTERN = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?(e[+-]?[0-9]{1,3})?")
THRESHOLD_PATTERN = re.compile(
    rf"{FLOAT_PATTERN.pattern}|-?inf"
)  # everything but a missing value lies on one side of infinity
# what an answer and its parts are made of: one of a tree, one of every inner node, one of every leaf
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
    """One tree's lines, by name, each a list of numbers as they were written."""

    lines: dict[str, list[str]]

    def get_integers(self, name: str) -> list[int]:
        return [int(word) for word in self.lines[name]]

    def get_floats(self, name: str) -> list[float]:
        return [float(word) for word in self.lines[name]]

    @property
    def leaf_count(self) -> int:
        return self.get_integers("num_leaves")[0]


def parse_trees(text: str, column_count: int) -> lightgbm.Booster:
    """The trees that answer a table of that many columns. Raises ValueError, saying what is wrong, for any others."""
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
        raise ValueError("it does not begin as LightGBM's trees do")
    wanted = {"num_class": "1", "num_tree_per_iteration": "1", "objective": OBJECTIVE}
    for name, value in wanted.items():
        if stated.get(name) != value:
            raise ValueError(f"{name} is {stated.get(name, 'missing')[:40]}, not {value}")
    if stated.get("max_feature_idx") != str(column_count - 1):
        raise ValueError(
            f"they are for {_format_column_count(stated.get('max_feature_idx', ''))} columns, but the model gives them {column_count}"
        )
    if (
        not is_complete
        or not 0 < tree_count <= MAX_TREES
        or len(stated.get("tree_sizes", "").split()) != tree_count
    ):
        raise ValueError(f"{tree_count} trees are not as many as are announced, or their end is missing")


def _format_column_count(index: str) -> str:
    return str(int(index) + 1) if INTEGER_PATTERN.fullmatch(index) else "an unknown number of"


def _parse_tree(block: str, index: int, column_count: int) -> DecisionTree:
    """One tree, each of whose lines is as long as its leaves demand. Raises ValueError."""
    first, *lines = block.strip("\n").split("\n")
    if first != str(index):
        raise ValueError(f"tree {index} is called {first[:20]!r}")
    stated = {name: value for name, _, value in (line.partition("=") for line in lines)}
    tree = DecisionTree({name: _parse_values(stated, name, 1, form) for name, form in TREE_FIELDS.items()})
    leaves = tree.leaf_count
    if not 1 <= leaves <= MAX_LEAVES or tree.lines["num_cat"] != ["0"] or tree.lines["is_linear"] != ["0"]:
        raise ValueError(f"tree {index} is of a kind that gliomark does not grow")
    tree.lines["leaf_value"] = _parse_values(stated, "leaf_value", leaves, FLOAT_PATTERN)
    if max(map(abs, tree.get_floats("leaf_value"))) > MAX_LEAF_VALUE:
        raise ValueError(f"tree {index} has a leaf value that no training gives")
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
    """A line's numbers as they are written. Raises ValueError where they are not so many or none."""
    words = stated.get(name, "").split()
    if len(words) != count:
        raise ValueError(f"{name} has {len(words)} numbers, not {count}")
    for word in words:
        if not pattern.fullmatch(word) or not (abs(float(word)) < MAX_NUMBER or pattern is THRESHOLD_PATTERN):
            raise ValueError(f"{name} holds {word[:20]!r}, which is no such number")
    return words


def _check_structure(tree: DecisionTree, index: int, column_count: int) -> None:
    """Every node and leaf hangs on the root exactly once; only columns that there are; nobody divides by 0."""
    inner, leaves = tree.leaf_count - 1, tree.leaf_count
    if not set(tree.get_integers("split_feature")) <= set(range(column_count)):
        raise ValueError(f"tree {index} asks for a column that there is not")
    if not set(tree.get_integers("decision_type")) <= ALLOWED_DECISION_TYPES:
        raise ValueError(f"tree {index} decides in a way that gliomark does not use")
    if min(*tree.get_integers("internal_count"), *tree.get_integers("leaf_count")) < 1:
        raise ValueError(f"tree {index} has a leaf that nobody fell into")
    left, right = tree.get_integers("left_child"), tree.get_integers("right_child")
    depth = {0: 1}
    for node in _iterate_nodes(left, right, inner):
        for child in (left[node], right[node]):
            depth[child] = depth[node] + 1
    if sorted(depth) != list(range(-leaves, inner)) or max(depth.values()) > MAX_DEPTH:
        raise ValueError(f"tree {index} is no tree, or is deeper than {MAX_DEPTH}")


def _iterate_nodes(left: Sequence[int], right: Sequence[int], node_count: int) -> Iterator[int]:
    """Inner nodes, parents first. Raises ValueError where one is reached twice or is not there."""
    pending, seen = [0], {0}
    while pending:
        node = pending.pop()
        yield node
        for child in (left[node], right[node]):
            if child in seen or not -node_count - 1 <= child < node_count:
                raise ValueError("a node of a tree hangs on two others, or on none")
            seen.add(child)
            if child >= 0:
                pending.append(child)


def _format_trees(trees: Sequence[DecisionTree], column_count: int) -> str:
    """The text that LightGBM is given, made of checked numbers alone."""
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
