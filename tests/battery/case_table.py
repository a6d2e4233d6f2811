"""All cases, in the order of their modules."""

from __future__ import annotations

from collections import Counter
from functools import cache
from importlib import import_module

from tests.battery.cases_and_results import Case

CASE_MODULES = (
    "volumes", "pictures", "folders", "dicom", "tables", "masks", "weights", "other_commands", "cohorts", "evaluations",
    "server", "dicom_node",
)  # fmt: skip


@cache
def collect_cases() -> dict[str, Case]:
    """Collect all cases by key. Raises ValueError if two have the same name."""
    cases = [case for name in CASE_MODULES for case in import_module(f"tests.battery.cases.{name}").CASES]
    repeated_keys = [key for key, count in Counter(case.key for case in cases).items() if count > 1]
    if repeated_keys:
        raise ValueError(f"two cases have the name {repeated_keys[0]}")
    return {case.key: case for case in cases}
