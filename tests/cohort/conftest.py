"""A small prepared cohort, written directly to disk, and the search for identifying values."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from gliomark.cohort.store import _hash_written_slices

SLICES = 6
PATIENTS = {
    "G0001": (61.0, 0, "0", "30", "4"),
    "G0002": (34.5, 1, "1", "5", "2"),
    "G0003": (47.0, 1, "1", "12", "3"),
    "G0004": (None, 0, "", "8", "2"),
    "G0005": (92.0, 0, "0", "45", "4"),
    "G0006": (29.0, 1, "1", "3", "2"),
}
FOLDS = {
    "train": ["G0001", "G0002", "G0003"],
    "validation": ["G0004"],
    "test": ["G0005", "G0006"],
    "development_folds": [["G0001"], ["G0002"], ["G0003"], ["G0004"], []],
    "folds": [["G0001"], ["G0002"], ["G0003"], ["G0004"], ["G0005", "G0006"]],
    "seed": 0,
}


@pytest.fixture(scope="session")
def prepared_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients with six slices of T1C and T2, ellipsoids as brains and lesions; G0003 has no T1C. Read only."""
    folder = tmp_path_factory.mktemp("prepared") / "cohort"
    (folder / "patients").mkdir(parents=True)
    cohort_record = {"schema_version": 2, "sequences": ["T1C", "T2"], "settings": {}}
    (folder / "cohort.json").write_text(json.dumps(cohort_record), "utf-8")
    (folder / "folds.json").write_text(json.dumps(FOLDS), "utf-8")
    rows = ["id,age,sex,idh_mutant,ki67,who_grade"]
    for number, (patient, (age, sex, *markers)) in enumerate(PATIENTS.items()):
        rows.append(",".join([patient, "" if age is None else f"{age:g}", str(sex), *markers]))
        _write_patient(folder, patient, number, ["T2"] if patient == "G0003" else ["T1C", "T2"])
    (folder / "MetaMS.csv").write_text("\n".join(rows) + "\n", "utf-8")
    return folder


def _write_patient(folder: Path, patient: str, number: int, sequences: list[str]) -> None:
    rng = np.random.default_rng(number)
    brain = _draw_ellipsoid((SLICES / 2, 120, 118), (SLICES, 85, 65))
    lesion = _draw_ellipsoid((SLICES / 2, 100 + 5 * number, 95 + 4 * number), (1.8, 15 + number, 12))
    names = [f"{index:03d}" for index in range(1, SLICES + 1)]
    for sequence in sequences:
        image = np.where(brain, rng.normal(0, 1, brain.shape).clip(-2.5, 2.5) + lesion, -2.5)
        for index, name in enumerate(names):
            slice_path = folder / "GMSBraTS" / sequence / patient / f"{name}.h5"
            slice_path.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(slice_path, "w") as file:
                file["image"] = image[index].astype(np.float16)
                file["mask"] = lesion[index].astype(np.uint8)
                file["brain"] = brain[index].astype(np.uint8)
                file.attrs["patient"] = patient
            if lesion[index].any():
                link = folder / "GMSGlioma" / sequence / patient / f"{name}.h5"
                link.parent.mkdir(parents=True, exist_ok=True)
                link.hardlink_to(slice_path)
    record = _create_record(number, sequences, names) | _hash_written_slices(
        folder, patient, sequences, names
    )
    (folder / "patients" / f"{patient}.json").write_text(json.dumps(record), "utf-8")


def _draw_ellipsoid(centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    grid = np.indices((SLICES, 240, 240))
    return sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, centre, radii, strict=True)) < 1


def _create_record(number: int, sequences: list[str], names: list[str]) -> dict:
    """A record with an oblique grid of 0.95 mm pixels and 5 mm slice spacing."""
    affine = np.eye(4)
    rotation = Rotation.from_euler("xyz", [4.0 + number, -3.0, 6.0], degrees=True).as_matrix()
    affine[:3, :3] = rotation @ np.diag([0.95, 0.95, 5.0])
    affine[:3, 3] = [-110.0 + number, -120.0, -15.0]
    series = {
        "manufacturer": "SIEMENS",
        "model": "Prisma",
        "field_strength_t": 3.0,
        "repetition_ms": 500.0,
        "echo_ms": 10.0,
        "inversion_ms": None,
        "spacing_mm": [0.5, 0.5, 6.0],
        "matrix": [512, 416],
        "slices": 20,
    }
    return {
        "sequences": sequences,
        "affine": affine.tolist(),
        "slice_names": names,
        "selected": list(range(SLICES)),
        "notes": [],
        "quality": {"brain_volume_ml": 1300.0 + number},
        "series": dict.fromkeys(sequences, series),
        "agreement": None,
        "source_sha256": "0" * 64,
    }


# ---- residues ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def find_residues() -> Callable[[Path, Iterable[str]], list[tuple[Path, str]]]:
    """Search a folder for values in paths, file contents (several encodings) and unpacked gzip and HDF5."""
    return _find_residues


def _find_residues(folder: Path, values: Iterable[str]) -> list[tuple[Path, str]]:
    encodings_by_value = {value: _encode_all_ways(value) for value in values}
    found = []
    for path in sorted(folder.rglob("*")):
        content = str(path.relative_to(folder)).encode() + (_read_unpacked(path) if path.is_file() else b"")
        found += [
            (path, value)
            for value, forms in encodings_by_value.items()
            if any(form in content for form in forms)
        ]
    return found


def _encode_all_ways(value: str) -> set[bytes]:
    return {value.encode(coding) for coding in ("utf-8", "gb18030", "utf-16-le", "utf-16-be")}


def _read_unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".gz":
        content += gzip.decompress(content)
    if path.suffix == ".h5":
        content += _read_hdf5_content(path)
    return content


def _read_hdf5_content(path: Path) -> bytes:
    parts = []

    def collect_node(name: str, node: h5py.Dataset | h5py.Group) -> None:
        parts.append(name.encode())
        parts.extend(f"{key}={value}".encode() for key, value in node.attrs.items())
        if isinstance(node, h5py.Dataset):
            values = node[()]
            parts.append(values.tobytes() if isinstance(values, np.ndarray) else str(values).encode())

    with h5py.File(path) as file:
        collect_node("/", file)
        file.visititems(collect_node)
    return b"\0".join(parts)
