"""Time and memory of predictions: the engine against PyTorch, side by side in one run; whole commands; parity.

    PYTHONPATH=src python -m benchmarks.inference warm --out results
    PYTHONPATH=src python -m benchmarks.inference cold --patient FOLDER... --out results
    PYTHONPATH=src python -m benchmarks.inference parity --cohort FOLDER --out results

Without a folder, a synthetic patient is used. ``warm``: a prepared patient to the answer, with the model loaded; also
MIG-Net and KiNet at published size with random weights. ``cold``: the whole command in a new process, and the share of
its stages. ``parity``: masks and probabilities of the engine against PyTorch, by patient, in the same window; and for
comparison in PyTorch with the tiles of training, and in bfloat16 where the processor has it. Times are medians;
processor seconds are user and system time of all threads.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from benchmarks.batch import describe_machine, draw_patients

from gliomark import read_study
from gliomark.engines import BFLOAT16_ENGINE, EngineNetwork, NetworkSource, load_network
from gliomark.errors import ConfigurationError, InputError
from gliomark.experiments.result_files import create_run_record, write_result_files
from gliomark.inference.segmenter import Segmenter
from gliomark.inference.slice_classifier import (
    compute_image_vectors,
    extract_lesion_slices,
    select_prediction_slices,
)
from gliomark.model_loading import Model, build_model, load_weights_by_name
from gliomark.models.engine_loading import create_marker_inputs, create_segmentation_inputs
from gliomark.models.network_io import LogitsOnly, VectorAndLogits
from gliomark.models.registry import (
    build_marker_network,
    build_segmentation_network,
    get_marker_entry,
    get_segmentation_entry,
)
from gliomark.models.weights import Weights
from gliomark.pipeline import PreparedStudy, predict_prepared, prepare_study
from gliomark.study import ClinicalData, Segmentation, SliceStack

MODEL = "demo"
PUBLISHED_TILE, PUBLISHED_CROP = 224, 224
ENGINES = {
    "torch": "PyTorch, tiles",
    "openvino": "OpenVINO, tiles",
    BFLOAT16_ENGINE: "OpenVINO bfloat16, tiles",
}


def measure(run: Callable[[], object], repetitions: int) -> dict[str, float]:
    """Measure a call that has run once before: median of wall time and of processor time, in s."""
    run()
    walls, processors = [], []
    for _ in range(repetitions):
        wall, processor = time.perf_counter(), time.process_time()
        run()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return {"seconds": statistics.median(walls), "processor_s": statistics.median(processors)}


def use_tiles(model: Model) -> Model:
    """Return the model with the tiles of training, in which every network saw the slices before."""
    return replace(model, segmenter=replace(model.segmenter, size_multiple=None))


def build_bfloat16_model(weights: Weights) -> Model | None:
    """Build the model in bfloat16; None if the processor does not compute in it."""
    try:
        return build_model(weights, engine=BFLOAT16_ENGINE)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return None


def measure_warm(patient: Path, repetitions: int) -> pd.DataFrame:
    """Measure a prepared patient to the answer: the shipped model, then the published networks."""
    weights = load_weights_by_name(MODEL)
    model = build_model(weights)
    prepared = prepare_study(read_study(patient, required_sequences=model.sequences), model)
    clinical = ClinicalData(prepared.study.patient_id, 50.0, 1)
    variants = {
        "PyTorch, tiles": use_tiles(build_model(weights, engine="torch")),
        "PyTorch, window": build_model(weights, engine="torch"),
        "OpenVINO, tiles": use_tiles(model),
        "OpenVINO, window": model,
    }
    if (reduced := build_bfloat16_model(weights)) is not None:
        variants["OpenVINO bfloat16, window"] = reduced
    rows: list[dict[str, Any]] = [
        {"networks": "shipped", "variant": name}
        | measure(lambda one=one: predict_prepared(replace(prepared), clinical, one), repetitions)
        for name, one in variants.items()
    ]
    for name, run in build_published_runs(prepared.stack):
        rows.append({"networks": "published size", "variant": name} | measure(run, max(1, repetitions // 3)))
    table = pd.DataFrame(rows)
    first = table.groupby("networks")[["seconds", "processor_s"]].transform("first")
    return table.assign(
        slices=len(prepared.stack.brain),
        times_faster=first["seconds"] / table["seconds"],
        times_less_processor=first["processor_s"] / table["processor_s"],
    )


def build_published_runs(stack: SliceStack) -> Iterator[tuple[str, Callable[[], object]]]:
    """Build MIG-Net (union of both sequences) and KiNet at published size, with random weights, in each engine."""
    torch.manual_seed(0)
    outline = build_segmentation_network(get_segmentation_entry("MIG-Net").recipes["published"]).eval()
    entry = get_marker_entry("KiNet")
    marker = VectorAndLogits(build_marker_network(entry.recipes["published"]).eval(), entry.predict).eval()
    sources = (
        NetworkSource(
            "MIG-Net",
            "benchmark, random weights",
            lambda: LogitsOnly(outline).eval(),
            lambda: create_segmentation_inputs(1, PUBLISHED_TILE),
            1e-2,
            has_batch=True,
            allows_bfloat16=True,
        ),
        NetworkSource(
            "KiNet",
            "benchmark, random weights",
            lambda: marker,
            lambda: create_marker_inputs(PUBLISHED_CROP),
            1.0,  # random weights amplify rounding
            has_batch=True,
            allows_bfloat16=True,
        ),
    )
    sequences = tuple(stack.images)
    for engine, variant in ENGINES.items():
        try:
            networks: list[EngineNetwork] = [load_network(source, engine=engine) for source in sources]
        except ConfigurationError as error:
            print(error, file=sys.stderr)
            continue
        segmenter = Segmenter(networks[0], sequences, "union", PUBLISHED_TILE)

        def run(segmenter: Segmenter = segmenter, network: EngineNetwork = networks[1]) -> Segmentation:
            segmentation = segmenter.segment(stack)
            lesion = stack.brain  # random weights find no lesion; the slices are those of a large one
            images, masks = extract_lesion_slices(
                stack, lesion, select_prediction_slices(stack, lesion), sequences
            )
            compute_image_vectors(network, images, masks, PUBLISHED_CROP)
            return segmentation

        yield variant, run


def measure_cold(patient: Path, repetitions: int) -> pd.DataFrame:
    """Measure the whole command in new processes, and the stages of one prediction in this process."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "gliomark", "predict", str(patient), "--out", folder]
        options = ["--allow-missing-clinical", "--quiet", "--device", "cpu"]
        for run in range(repetitions + 1):  # the first one may convert networks
            wall = time.perf_counter()
            process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                raise SystemExit(f"the command failed with status {status}")
            if run:
                rows.append(
                    {
                        "stage": "whole command",
                        "seconds": time.perf_counter() - wall,
                        "processor_s": usage.ru_utime + usage.ru_stime,
                        "memory_peak_mb": usage.ru_maxrss / 1024,
                    }
                )
    table = pd.DataFrame(rows).groupby("stage", as_index=False).median()
    return pd.concat([table, pd.DataFrame(measure_stages(patient))], ignore_index=True)


def measure_stages(patient: Path) -> list[dict[str, Any]]:
    """Measure the stages of one prediction in this process, in which the libraries are already imported."""
    rows: list[dict[str, Any]] = []
    last = ["load the model", time.perf_counter(), time.process_time()]

    def start(stage: str) -> None:
        wall, processor = time.perf_counter(), time.process_time()
        rows.append({"stage": last[0], "seconds": wall - last[1], "processor_s": processor - last[2]})
        last[:] = [stage, wall, processor]

    model = build_model(load_weights_by_name(MODEL))
    start("read")
    study = read_study(patient, required_sequences=model.sequences)
    prepared: PreparedStudy = prepare_study(study, model, start)
    predict_prepared(prepared, ClinicalData(study.patient_id, 50.0, 1), model, notify=start)
    start("end")
    return rows


def compare_engines(cohort: Path, patient_count: int) -> pd.DataFrame:
    """Compare masks and probabilities of the engine with PyTorch's, for the first patients of a cohort."""
    weights = load_weights_by_name(MODEL)
    model, reference = build_model(weights), build_model(weights, engine="torch")
    others = {"tiles": use_tiles(reference), "bfloat16": build_bfloat16_model(weights)}
    rows = []
    for folder in sorted(path for path in cohort.iterdir() if path.is_dir()):
        if len(rows) == patient_count:
            break
        study = read_study(folder)
        if any(name not in study.series for name in model.sequences):
            continue
        try:
            prepared = prepare_study(study, model)
        except InputError as error:  # such as a slice without an image
            print(f"left out: {error}", file=sys.stderr)
            continue
        clinical = ClinicalData(study.patient_id, 50.0, 1)
        found, expected = (predict_prepared(prepared, clinical, one) for one in (model, reference))
        row: dict[str, Any] = {
            "patient": study.patient_id,
            "slices": len(prepared.stack.brain),
            "mask_voxels_equal": float((found.segmentation.mask == expected.segmentation.mask).mean()),
            "voxel_probability_difference_per_million": 1e6
            * float(np.abs(found.segmentation.probability - expected.segmentation.probability).max()),
            "marker_probability_difference_per_million": 1e6 * _compare_markers(found, expected),
        }
        for name, other in others.items():
            if other is None:
                continue
            result = predict_prepared(prepared, clinical, other)
            row[f"dice_with_{name}"] = _compute_dice(expected.segmentation.mask, result.segmentation.mask)
            row[f"marker_difference_with_{name}"] = _compare_markers(expected, result)
        rows.append(row)
    return pd.DataFrame(rows)


def _compare_markers(one: Any, other: Any) -> float:
    pairs = [(a.probability, b.probability) for a, b in zip(one.markers, other.markers, strict=True)]
    return max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0)


def _compute_dice(one: np.ndarray, other: np.ndarray) -> float:
    total = one.sum() + other.sum()
    return float(2 * (one & other).sum() / total) if total else 1.0


def run_benchmark() -> None:
    """Run one of the benchmarks and write its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("benchmark", choices=("warm", "cold", "parity"))
    parser.add_argument(
        "--patient", type=Path, nargs="+", help="folders of patients to use instead of the synthetic one"
    )
    parser.add_argument("--cohort", type=Path, help="folder of patients, for parity")
    parser.add_argument("--patients", type=int, default=20, help="number of patients, for parity")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        patients = options.patient or draw_patients(Path(folder), 1)
        if options.benchmark == "parity":
            if options.cohort is None:
                parser.error("parity needs --cohort")
            table = compare_engines(options.cohort, options.patients)
        else:
            run = {"warm": measure_warm, "cold": measure_cold}[options.benchmark]
            table = pd.concat([run(one, options.repetitions).assign(patient=one.name) for one in patients])
    print(table.to_string(index=False, float_format=lambda value: f"{value:.5g}"))
    name, machine = f"benchmark_{options.benchmark}", describe_machine()
    if options.benchmark != "parity":
        table = table.assign(**machine)
    write_result_files(options.out, name, {"": table}, create_run_record(name, machine=machine))


if __name__ == "__main__":
    run_benchmark()
