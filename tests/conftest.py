"""What tests of several rooms share: the shared patients, and a cohort of 15 tiny ones.

Each tiny patient is known again by what is painted into the images, not by a label: the 8 x 8 pixels in the corner
of every slice, outside the brain, hold the patient's own number, so that whatever a step was shown, its images say
whose they are. Every patient's lesion has a place of its own, so the FPG tells as well.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker has a core, not all of them

with suppress(
    ImportError
):  # no Qt, or a machine without the libraries that it needs: tests/client is left out
    import PySide6.QtWidgets  # noqa: F401

    pytest_plugins = ["pytestqt.plugin"]

import numpy as np
import pytest

from gliomark.study import MRSequence, SliceStack

# they take a minute or more, and are begun first, so that at the end no worker waits for another
SLOWEST_FIRST = """
client/test_window test_same_answer experiments/test_segmentation_study pipeline/test_cli_bad_input client/test_local
server/test_jobs preprocessing/test_skull_stripping experiments/test_marker_study pipeline/test_predict
experiments/test_marker_evidence server/test_attacks cohort/test_build pipeline/test_found_outline server/test_run
server/test_audit_views training/test_no_leak server/test_associations isolation/test_isolation isolation/test_doors
preprocessing/test_registration server/test_fuzz training/test_gate server/test_older models/test_broken_weights
""".split()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank_by_file = {f"tests/{name}.py": rank for rank, name in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: rank_by_file.get(item.nodeid.partition("::")[0], len(rank_by_file)))


COUNT, SLICES = 15, 4
PAIR = (MRSequence.T1C, MRSequence.FLAIR)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared patients beside the repository; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[1].parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"no shared patients at {folder}")
    return folder


def compute_lesion_corner(number: int) -> tuple[int, int]:
    """Row and column of patient 1, 2, ...'s own 10 x 10 lesion, in the left half of the picture."""
    return 50 + 30 * ((number - 1) // 4), 48 + 17 * ((number - 1) % 4)


def create_tiny_stack(number: int, id_prefix: str = "P") -> SliceStack:
    """Patient ``P<number>``: grain, and a bright lesion on every slice but the first."""
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
    """Fifteen tiny patients as ``cohort build`` leaves them."""
    # only tests that train need what writes cohorts
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
    """A cohort whose arrays were changed on purpose, as if it had been built so."""
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
