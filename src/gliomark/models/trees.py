"""LightGBM's trees from a weights file: the text is read and checked here and written anew for LightGBM, whose own
reader trusts what it is given and may end the process on a broken text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import lightgbm

LONGEST_TEXT = 2**25
MOST_TREES = 10_000
MOST_LEAVES = 1024
DEEPEST = 64
LARGEST_VALUE = 1e6  # of a leaf, in log-odds
LARGEST = 1e300
OBJECTIVE = "binary sigmoid:1"
# where a missing value goes (2) and what counts as missing: nothing, zero or no number (4, 8); never categories (1)
DECISIONS = {0, 2, 4, 6, 8, 10}
WHOLE = re.compile(r"-?[0-9]{1,9}")
NUMBER = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?(e[+-]?[0-9]{1,3})?")
BORDER = re.compile(rf"{NUMBER.pattern}|-?inf")  # everything but a missing value lies on one side of infinity
# what an answer and its parts are made of: one of a tree, one of every inner node, one of every leaf
SINGLE = {"num_leaves": WHOLE, "num_cat": WHOLE, "is_linear": WHOLE, "shrinkage": NUMBER}
INNER = {
    "split_feature": WHOLE,
    "threshold": BORDER,
    "decision_type": WHOLE,
    "left_child": WHOLE,
    "right_child": WHOLE,
    "internal_count": WHOLE,
}
LEAF = {"leaf_value": NUMBER, "leaf_count": WHOLE}


@dataclass(frozen=True)
class Tree:
    """One tree's lines, by name, each a list of numbers as they were written."""

    lines: dict[str, list[str]]

    def whole(self, name: str) -> list[int]:
        return [int(word) for word in self.lines[name]]

    def numbers(self, name: str) -> list[float]:
        return [float(word) for word in self.lines[name]]

    @property
    def leaves(self) -> int:
        return self.whole("num_leaves")[0]


def read_trees(text: str, columns: int) -> lightgbm.Booster:
    """The trees that answer a table of that many columns. Raises ValueError, saying what is wrong, for any others."""
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"the text is {len(text)} characters long")
    header, *blocks = re.split(r"(?m)^Tree=", text.partition("\nend of trees")[0])
    _check_header(header, columns, "\nend of trees" in text, len(blocks))
    trees = [_tree(block, number, columns) for number, block in enumerate(blocks)]
    return lightgbm.Booster(model_str=_written(trees, columns))


def _check_header(header: str, columns: int, is_whole: bool, count: int) -> None:
    lines = header.split("\n")
    stated = dict(line.split("=", 1) for line in lines if "=" in line)
    if lines[0] != "tree" or stated.get("version") not in ("v3", "v4") or "average_output" in lines:
        raise ValueError("it does not begin as LightGBM's trees do")
    wanted = {"num_class": "1", "num_tree_per_iteration": "1", "objective": OBJECTIVE}
    for name, value in wanted.items():
        if stated.get(name) != value:
            raise ValueError(f"{name} is {stated.get(name, 'missing')[:40]}, not {value}")
    if stated.get("max_feature_idx") != str(columns - 1):
        raise ValueError(
            f"they are for {_after(stated.get('max_feature_idx', ''))} columns, but the model gives them {columns}"
        )
    if not is_whole or not 0 < count <= MOST_TREES or len(stated.get("tree_sizes", "").split()) != count:
        raise ValueError(f"{count} trees are not as many as are announced, or their end is missing")


def _after(index: str) -> str:
    return str(int(index) + 1) if WHOLE.fullmatch(index) else "an unknown number of"


def _tree(block: str, number: int, columns: int) -> Tree:
    """One tree, each of whose lines is as long as its leaves demand. Raises ValueError."""
    first, *lines = block.strip("\n").split("\n")
    if first != str(number):
        raise ValueError(f"tree {number} is called {first[:20]!r}")
    stated = {name: value for name, _, value in (line.partition("=") for line in lines)}
    tree = Tree({name: _words(stated, name, 1, form) for name, form in SINGLE.items()})
    leaves = tree.leaves
    if not 1 <= leaves <= MOST_LEAVES or tree.lines["num_cat"] != ["0"] or tree.lines["is_linear"] != ["0"]:
        raise ValueError(f"tree {number} is of a kind that gliomark does not grow")
    tree.lines["leaf_value"] = _words(stated, "leaf_value", leaves, NUMBER)
    if max(map(abs, tree.numbers("leaf_value"))) > LARGEST_VALUE:
        raise ValueError(f"tree {number} has a leaf value that no training gives")
    if leaves > 1:
        tree.lines.update({name: _words(stated, name, leaves - 1, form) for name, form in INNER.items()})
        tree.lines.update({name: _words(stated, name, leaves, form) for name, form in LEAF.items()})
        _check_shape(tree, number, columns)
    return tree


def _words(stated: Mapping[str, str], name: str, count: int, form: re.Pattern[str]) -> list[str]:
    """A line's numbers as they are written. Raises ValueError where they are not so many or none."""
    words = stated.get(name, "").split()
    if len(words) != count:
        raise ValueError(f"{name} has {len(words)} numbers, not {count}")
    for word in words:
        if not form.fullmatch(word) or not (abs(float(word)) < LARGEST or form is BORDER):
            raise ValueError(f"{name} holds {word[:20]!r}, which is no such number")
    return words


def _check_shape(tree: Tree, number: int, columns: int) -> None:
    """Every node and leaf hangs on the root exactly once; only columns that there are; nobody divides by 0."""
    inner, leaves = tree.leaves - 1, tree.leaves
    if not set(tree.whole("split_feature")) <= set(range(columns)):
        raise ValueError(f"tree {number} asks for a column that there is not")
    if not set(tree.whole("decision_type")) <= DECISIONS:
        raise ValueError(f"tree {number} decides in a way that gliomark does not use")
    if min(*tree.whole("internal_count"), *tree.whole("leaf_count")) < 1:
        raise ValueError(f"tree {number} has a leaf that nobody fell into")
    left, right = tree.whole("left_child"), tree.whole("right_child")
    depth = {0: 1}
    for node in _walk(left, right, inner):
        for child in (left[node], right[node]):
            depth[child] = depth[node] + 1
    if sorted(depth) != list(range(-leaves, inner)) or max(depth.values()) > DEEPEST:
        raise ValueError(f"tree {number} is no tree, or is deeper than {DEEPEST}")


def _walk(left: Sequence[int], right: Sequence[int], inner: int) -> Iterator[int]:
    """Inner nodes, parents first. Raises ValueError where one is reached twice or is not there."""
    waiting, seen = [0], {0}
    while waiting:
        node = waiting.pop()
        yield node
        for child in (left[node], right[node]):
            if child in seen or not -inner - 1 <= child < inner:
                raise ValueError("a node of a tree hangs on two others, or on none")
            seen.add(child)
            if child >= 0:
                waiting.append(child)


def _written(trees: Sequence[Tree], columns: int) -> str:
    """The text that LightGBM is given, made of checked numbers alone."""
    blocks = [
        f"Tree={number}\n"
        + "".join(f"{name}={' '.join(words)}\n" for name, words in tree.lines.items())
        + "\n\n"
        for number, tree in enumerate(trees)
    ]
    names = " ".join(f"Column_{number}" for number in range(columns))
    header = (
        "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\n"
        f"max_feature_idx={columns - 1}\nobjective={OBJECTIVE}\nfeature_names={names}\n"
        f"feature_infos={' '.join(['none'] * columns)}\ntree_sizes={' '.join(str(len(b)) for b in blocks)}\n\n"
    )
    return header + "".join(blocks) + "end of trees\n"
