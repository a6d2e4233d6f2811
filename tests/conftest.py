"""Fixtures for tests of several packages: the shared patients, and a cohort of 15 tiny ones.

Each tiny patient can be identified from the images themselves: the 8 x 8 pixels in the corner of every slice, outside
the brain, contain the patient's number, so that any step can be checked for the patients whose images it received. The
position of the lesion is also different in every patient, and therefore the FPG.
"""

from __future__ import annotations

import json
import os
import shutil
import sysconfig
from collections import Counter
from contextlib import suppress
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # each worker has one core

# networks are converted once for all tests
os.environ.setdefault("GLIOMARK_CACHE", str(Path(__file__).resolve().parents[1] / ".cache/networks"))

with suppress(ImportError):  # without Qt or the system libraries that it needs, tests/client is skipped
    import PySide6.QtWidgets  # noqa: F401

    pytest_plugins = ["pytestqt.plugin"]

import numpy as np
import pytest

from gliomark.study import MRSequence, SliceStack

# these take a minute or more and start first, so that no worker is idle at the end
SLOWEST_FIRST = """
client/test_window test_same_answer experiments/test_segmentation_study pipeline/test_cli_bad_input client/test_local
server/test_jobs preprocessing/test_skull_stripping experiments/test_marker_study pipeline/test_predict
experiments/test_marker_evidence server/test_attacks cohort/test_build pipeline/test_supplied_mask server/test_run
server/test_audit_views training/test_no_leak server/test_associations isolation/test_isolation isolation/test_doors
preprocessing/test_registration server/test_fuzz training/test_gate server/test_older models/test_broken_weights
pipeline/test_many_patients
""".split()


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark_cases_outside_the_sample(items)
    rank_by_file = {f"tests/{name}.py": rank for rank, name in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: rank_by_file.get(item.nodeid.partition("::")[0], len(rank_by_file)))


def mark_cases_outside_the_sample(items: list[pytest.Item]) -> None:
    """Mark as slow all but every n-th case of a table that is marked ``sample(n)``."""
    case_counts: Counter[str] = Counter()
    for item in items:
        if marker := item.get_closest_marker("sample"):
            table = item.nodeid.partition("[")[0]
            if case_counts[table] % marker.args[0]:
                item.add_marker(pytest.mark.slow)
            case_counts[table] += 1


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: compressed ones contain the time, and all workers must collect the same names."""
    return argname if isinstance(val, bytes) else None


COUNT, SLICES = 15, 4
PAIR = (MRSequence.T1C, MRSequence.FLAIR)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared patients next to the repository; tests that need it are skipped if it is missing."""
    folder = Path(__file__).resolve().parents[1].parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"no shared patients at {folder}")
    return folder


def find_program(name: str, installation: str) -> str:
    """Find a program on the path or beside the interpreter; the test is skipped if it is not installed."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    return shutil.which(name, path=path) or pytest.skip(f"{name} is not installed: {installation}")


def compute_lesion_corner(number: int) -> tuple[int, int]:
    """Compute row and column of the 10 x 10 lesion of patient 1, 2, ..., in the left half of the image."""
    return 50 + 30 * ((number - 1) // 4), 48 + 17 * ((number - 1) % 4)


def create_tiny_stack(number: int, id_prefix: str = "P") -> SliceStack:
    """Create patient ``P<number>``: noise, and a bright lesion on every slice except the first."""
    random_generator = np.random.default_rng(number)
    brain = np.zeros((SLICES, 240, 240), bool)
    brain[:, 30:210, 40:200] = True
    lesion = np.zeros_like(brain)
    row, column = compute_lesion_corner(number)
    lesion[1:, row : row + 10, column : column + 10] = True
    images = {}
    for name in PAIR:
        texture = random_generator.normal(size=(SLICES, 24, 24)).repeat(10, axis=1).repeat(10, axis=2)
        images[name] = np.where(brain, texture + 3 * lesion, -3).astype(np.float32)
        images[name][:, :8, :8] = number
    affine = np.diag([1.0, 1.0, 6.0, 1.0])
    names = tuple(f"{i + 1:03d}" for i in range(SLICES))
    return SliceStack(f"{id_prefix}{number:02d}", images, brain, affine, names, tuple(range(SLICES)), lesion)


def write_tiny_cohort(folder: Path, id_prefix: str = "P") -> Path:
    """Write fifteen tiny patients in the form of ``cohort build``."""
    # imported here because only tests of training need it
    from gliomark.cohort.store import write_json, write_patient

    rows = ["id,age,sex,idh_mutant,who_grade"]
    for number in range(1, COUNT + 1):
        write_patient(folder, create_tiny_stack(number, id_prefix))
        rows.append(
            f"{id_prefix}{number:02d},{30 + 2 * number},{number // 2 % 2},{number % 2},{2 + number % 3}"
        )
    (folder / "MetaMS.csv").write_text("\n".join(rows) + "\n", "utf-8")
    cohort_record = {"schema_version": 1, "sequences": list(PAIR), "settings": {"k": 20}}
    write_json(folder / "cohort.json", cohort_record)
    return folder


def update_slice_hashes(cohort_folder: Path) -> None:
    """Update the hashes of a cohort whose arrays were changed on purpose."""
    from gliomark.cohort.store import _hash_written_slices

    for path in (cohort_folder / "patients").glob("*.json"):
        record = json.loads(path.read_text("utf-8"))
        record |= _hash_written_slices(cohort_folder, path.stem, record["sequences"], record["slice_names"])
        path.write_text(json.dumps(record), "utf-8")


@pytest.fixture(scope="session")
def tiny_cohort_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_cohort(tmp_path_factory.mktemp("cohort 队列"))


@pytest.fixture
def tiny_cohort(tiny_cohort_folder: Path):
    from gliomark.cohort.store import Cohort

    return Cohort(tiny_cohort_folder)
