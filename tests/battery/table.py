"""All cases, in the order of their doors."""

from __future__ import annotations

from collections import Counter
from functools import cache
from importlib import import_module

from tests.battery.case import Case

FILES = (
    "volumes", "pictures", "folders", "dicom", "tables", "masks", "weights", "others", "cohorts", "evaluations",
    "server", "node",
)  # fmt: skip


@cache
def all_cases() -> dict[str, Case]:
    """By key. Raises ValueError where two have one name."""
    cases = [case for name in FILES for case in import_module(f"tests.battery.cases.{name}").CASES]
    twice = [key for key, count in Counter(case.key for case in cases).items() if count > 1]
    if twice:
        raise ValueError(f"two cases are called {twice[0]}")
    return {case.key: case for case in cases}
