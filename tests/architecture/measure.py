"""Measure the style rules of CONTRIBUTING.md over the package: ``python -m tests.architecture.measure``.

Four numbers are computed from the syntax trees of ``src/gliomark``: functions that are too long, the share of functions
whose name starts with a verb, public functions whose docstring lacks array shapes or errors, and banned words. Banned
words are also searched for in tests and scripts.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "gliomark"
MAX_LINES = 60

VERBS = frozenset(
    """
    abort accept acquire adapt add adjust admit adopt align anonymise append apply arrange ask assign assume
    attach attempt authenticate average begin bind blank blur bootstrap break build calibrate can cancel capture
    chain change compress correct decide enlarge expand mirror monitor move recalibrate rotate scale
    check choose claim classify clean clear click clip close collect combine compare compile complete compute
    configure confirm connect convert count create crop decode decompose decompress delete derive describe
    detect diagnose disconnect dismiss discard do downsample draw drop duplicate empty enable encode end
    enqueue ensure escape estimate evaluate evict exchange exclude execute exit explain export extend extract
    fail fetch fill find finish fit flatten fold follow format fuse generate get group handle hash identify
    ignore import infer initialise insert interpolate invert is iterate join keep kill lay limit link list
    load locate lock log maintain make map mark measure merge name negotiate normalise note notify number open
    optimise order orthonormalise overlay pack paint parse paste peek perturb pin plan plot poll pool pop post
    predict prefer prepare process protect quantise quarantine quote raise rank rasterise read rebuild receive
    recognise reconcile record recover recv redact redirect redo refine refresh refuse register reject
    relocate remember remove rename render reopen reorient repair replace report request requeue resample
    reset resize resolve restore restrict resume retranslate retry return revert revoke round run sample
    sanitize save scan score seed segment select send separate serialise serve set show shrink shuffle shut
    shutdown sign simulate sort spawn split stack start step stop store stream strip style submit subsample
    subtract suggest summarise supervise swap switch sync tabulate take thin toggle tokenise track train
    transform translate truncate try undo unescape unite unpack unprotect unzip update upgrade upload use
    verify wait walk watch wrap write has uses
    """.split()
)
# Conversions, and names that a framework or the field prescribes.
PREFIXES = ("from_", "to_", "as_", "on_", "with_")
PRESCRIBED = frozenset(
    """
    main client forward training_step validation_step configure_optimizers state_dict dice auc cross_entropy
    footer shutdown recv sizeHint paintEvent keyPressEvent mousePressEvent mouseMoveEvent mouseReleaseEvent resizeEvent
    changeEvent dragEnterEvent dropEvent closeEvent wheelEvent leaveEvent minimumSizeHint eventFilter
    """.split()
)
NOUN_DECORATORS = frozenset(
    "property cached_property contextmanager asynccontextmanager overload setter fixture".split()
)

# images of SimpleITK and Pillow state their own size
ARRAY = re.compile(r"\b(NDArray|ndarray|Tensor|Floats)\b")
SHAPE = re.compile(
    r"\(\s*(?:[A-Za-z0-9_*+/. -]+,\s*)+(?:[A-Za-z0-9_*+/. -]+)?\)|\b(?:any|same|its|one) shape\b|\bscalar\b"
)
RAISES = re.compile(r"^\s*Raises\s*\n\s*-{3,}", re.MULTILINE)

BANNED_NAME_PARTS = frozenset(
    """
    place places said unsaid told came tall surely hire dress trouble sharing bodies unforeseen dealing dealt rival
    rivals specks asking arriving inlet noded
    """.split()
)
INDEFINITE_PRONOUNS = "whoever, nobody, anybody, everybody, somebody"
BANNED_TEXTS = {
    phrase: re.compile(pattern, re.IGNORECASE)
    for phrase, pattern in {
        "rival": r"\brivals?\b",
        "deviation without standard": r"(?<!standard )\bdeviations?\b",
        "labels dealt": r"\bdealt\b",
        "told from chance": r"\btold from chance\b",
        "what moved it": r"\bwhat moved it\b",
        "surgery at a glance": r"\blooks at a glioma\b",
        "taken for whole": r"\btaken for whole\b",
        "knows photographs": r"\bknows photographs\b",
        "the edge goes on": r"\bedge goes on\b",
        INDEFINITE_PRONOUNS: r"\b(?:whoever|nobody|anybody|everybody|somebody)\b",
        "this once": r"\bthis once\b",
        "light KiNet": r"\blight KiNet\b",
        "Near rule": r"slices fused by Near|Near 规则",
        "self-sufficient-side view": "自足侧观察",
        "mean rank": "平均秩(?!次)",
        "mask sign": "掩模",
    }.items()
}
# one search for all of them: most files contain none, and need not be taken apart
ANY_BANNED = re.compile(
    "|".join(
        [
            *(f"(?:{one.pattern})" for one in BANNED_TEXTS.values()),
            rf"(?<![^\W_])(?:{'|'.join(sorted(BANNED_NAME_PARTS))})(?![^\W_])",
        ]
    ),
    re.IGNORECASE,
)

EXEMPT = frozenset(
    {
        ("io/naming.py", "mask sign"),  # a pattern that recognises the words of users, which may be any
        # data under test: names of users in the audit log, names of cases and of files of the battery
        ("server/test_audit_chain.py", INDEFINITE_PRONOUNS),
        ("server/test_audit_views.py", INDEFINITE_PRONOUNS),
        ("server/test_migrations.py", INDEFINITE_PRONOUNS),
        ("cases/folders.py", INDEFINITE_PRONOUNS),
        ("cases/volumes.py", INDEFINITE_PRONOUNS),
        ("cases/evaluations.py", "rival"),
        ("battery/healthy_inputs.py", "rival"),
    }
)


@dataclass(frozen=True)
class Function:
    """A function of the package. ``is_public``: neither it nor a class or function around it starts with ``_``."""

    path: Path
    node: ast.FunctionDef | ast.AsyncFunctionDef
    is_public: bool

    @property
    def location(self) -> str:
        """File, line and name, for reports."""
        return f"{self.path.relative_to(SOURCE.parent)}:{self.node.lineno} {self.node.name}"

    @property
    def docstring(self) -> str:
        """The docstring, or an empty text."""
        return ast.get_docstring(self.node) or ""

    @property
    def line_count(self) -> int:
        """Lines of the body, without the docstring; the parameters of a command are not code."""
        statements = self.node.body[1:] if self.docstring else self.node.body
        if not statements:
            return 0
        last = statements[-1].end_lineno
        assert last is not None
        return last - statements[0].lineno + 1

    @property
    def starts_with_verb(self) -> bool:
        """Whether the name is a verb phrase, a conversion, or prescribed."""
        name = self.node.name.strip("_")
        return name in PRESCRIBED or name.startswith(PREFIXES) or name.split("_")[0] in VERBS

    @property
    def has_noun_name(self) -> bool:
        """Whether a noun is right: properties, context managers, special methods, overloads."""
        decorators = {ast.unparse(one).split("(")[0].split(".")[-1] for one in self.node.decorator_list}
        return bool(decorators & NOUN_DECORATORS) or self.node.name.startswith("__")


def list_functions(folder: Path = SOURCE) -> list[Function]:
    """List all functions and methods of the package."""
    return [
        function
        for path in sorted(folder.rglob("*.py"))
        for function in _walk_functions(path, ast.parse(path.read_text("utf-8")), True)
    ]


def _walk_functions(path: Path, parent: ast.AST, is_public: bool) -> Iterator[Function]:
    for node in ast.iter_child_nodes(parent):
        inner_public = is_public
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner_public = is_public and not node.name.startswith("_")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield Function(path, node, inner_public)
            inner_public = False
        yield from _walk_functions(path, node, inner_public)


def find_long_functions(functions: list[Function]) -> list[str]:
    """Find functions of more than ``MAX_LINES`` lines."""
    return [f"{one.location}: {one.line_count} lines" for one in functions if one.line_count > MAX_LINES]


def find_names_without_verb(functions: list[Function]) -> tuple[float, list[str]]:
    """Return the share of functions whose name starts with a verb, and the others."""
    named = [one for one in functions if not one.has_noun_name]
    others = [one.location for one in named if not one.starts_with_verb]
    return 1 - len(others) / len(named), others


def find_undocumented(functions: list[Function]) -> list[str]:
    """Find public functions without a docstring, without the shapes of their arrays or without their errors."""
    missing = []
    for one in functions:
        if not one.is_public or one.node.name.startswith("__"):
            continue
        if not one.docstring:
            missing.append(f"{one.location}: no docstring")
        elif _handles_arrays(one.node) and not SHAPE.search(one.docstring):
            missing.append(f"{one.location}: no shape")
        if _raises_own_errors(one.node) and one.docstring and not RAISES.search(one.docstring):
            missing.append(f"{one.location}: no errors")
    return missing


def _handles_arrays(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    annotations = [argument.annotation for argument in [*node.args.args, *node.args.kwonlyargs]] + [
        node.returns
    ]
    return any(ARRAY.search(ast.unparse(one)) for one in annotations if one is not None)


def _raises_own_errors(node: ast.AST) -> bool:
    """Whether the function's own body raises; a bare ``raise`` and nested functions do not count."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(child, ast.Raise) and isinstance(child.exc, ast.Call):
            return True
        if _raises_own_errors(child):
            return True
    return False


def find_banned_words(folder: Path = SOURCE, pattern: str = "**/*.py") -> list[str]:
    """Find banned words in names, comments, docstrings and texts of the modules that match a pattern."""
    found = []
    for path in sorted(folder.glob(pattern)):
        if not ANY_BANNED.search(path.read_text("utf-8")):
            continue
        with path.open("rb") as file:
            for token in tokenize.tokenize(file.readline):
                location = f"{path.relative_to(folder.parent)}:{token.start[0]}"
                if token.type == tokenize.NAME and set(token.string.lower().split("_")) & BANNED_NAME_PARTS:
                    found.append(f"{location} name {token.string}")
                if token.type in (tokenize.STRING, tokenize.COMMENT):
                    found += [
                        f"{location} {name}"
                        for name, one in BANNED_TEXTS.items()
                        if one.search(token.string) and ("/".join(path.parts[-2:]), name) not in EXEMPT
                    ]
    for path in sorted(one for one in folder.rglob("*") if one.suffix in (".j2", ".ts", ".json")):
        text = path.read_text("utf-8")
        for number, line in enumerate(io.StringIO(text if ANY_BANNED.search(text) else ""), start=1):
            found += [
                f"{path.relative_to(folder.parent)}:{number} {name}"
                for name, one in BANNED_TEXTS.items()
                if one.search(line)
            ]
    return found


def find_banned_words_in_tests() -> list[str]:
    """Find banned words in the scripts and the tests, but for ``tests/architecture``, which lists them."""
    found = find_banned_words(ROOT / "tests", "*.py") + find_banned_words(ROOT / "scripts")
    for folder in sorted(one for one in (ROOT / "tests").iterdir() if one.is_dir()):
        if folder.name not in ("architecture", "__pycache__"):
            found += find_banned_words(folder)
    return found


def report_measures() -> None:
    """Print the four measures and what they find."""
    functions = list_functions()
    share, others = find_names_without_verb(functions)
    long_functions, undocumented = find_long_functions(functions), find_undocumented(functions)
    banned = find_banned_words() + find_banned_words_in_tests()
    for line in (*long_functions, *others, *undocumented, *banned):
        print(line)
    print(f"functions: {len(functions)}")
    print(f"over {MAX_LINES} lines: {len(long_functions)}")
    print(f"names that start with a verb: {100 * share:.1f} %")
    print(f"public functions without shapes or errors: {len(undocumented)}")
    print(f"banned words: {len(banned)}")


if __name__ == "__main__":
    report_measures()
