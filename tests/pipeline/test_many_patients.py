"""Many patients on worker processes, and batches that are interrupted and continued."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from itertools import permutations
from pathlib import Path

import psutil
import pytest
import SimpleITK as sitk
from distributed import LocalCluster
from tests.pipeline.conftest import draw_patient, drop_mask, write_dicom, write_pictures, write_volumes

import gliomark
from gliomark.batch import PredictionOptions, RunOptions, predict_folder, worker_processes
from gliomark.batch import patient as patient_module
from gliomark.batch.batch_results import BatchResults, format_duration
from gliomark.batch.finished_results import read_request, write_request
from gliomark.batch.folder import _reuse_finished_results
from gliomark.batch.patient import BatchSettings, PatientResult
from gliomark.batch.worker_processes import predict_on_workers
from gliomark.cluster import create_dask_client, run_with_refill
from gliomark.reporting import FailedPatient
from gliomark.study import ClinicalData

NAMES = ("甲 1", "乙 2", "丙 3", "丁 4")  # the second is damaged
TIMES = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d UTC|>[\d.]+ s<|\"(created|seconds)\": [^\n]+")


@pytest.fixture(scope="session")
def four_patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, truncated pictures, volumes, and DICOM whose PatientID is not the folder's name."""
    folder = tmp_path_factory.mktemp("很多 患者")
    images = [drop_mask(draw_patient(seed)) for seed in range(len(NAMES))]
    for name, image in zip(NAMES[:2], images, strict=False):
        write_pictures(folder / name, image)
    broken = sorted((folder / NAMES[1] / "T1C").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:40])
    write_volumes(folder / NAMES[2], images[2])
    write_dicom(folder / NAMES[3], images[3])
    return folder


@pytest.fixture
def table(working_folder: Path) -> Path:
    path = working_folder / "clinical.csv"
    rows = [f"{name},{40 + number},{number % 2}" for number, name in enumerate((*NAMES, "患者 01"))]
    path.write_text("\n".join(["id,age,sex", *rows]) + "\n", "utf-8")
    return path


@pytest.fixture
def predict_all(run_command: Callable, table: Path, tiny_weights: Path, working_folder: Path) -> Callable:
    """Return predict_all(folder, *options, out=...), which runs the command with the small model."""

    def run(folder: Path, *options: object, out: str = "out"):
        arguments = ("--clinical", table, "--out", working_folder / out, "--model", tiny_weights)
        return run_command("predict", folder, *arguments, *options)

    return run


def read_results(out: Path) -> dict[str, bytes]:
    """Read all files, hidden ones too, without times."""
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(file.relative_to(out)): TIMES.sub(b"", file.read_bytes()) for file in files}


def read_rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "predictions.csv").open(encoding="utf-8-sig", newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


# ---- the same answers -------------------------------------------------------------------------------


@pytest.fixture
def one_thread() -> Iterator[None]:
    """With several threads, a registration in this process adds its sums in an order that varies."""
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    yield
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)


@pytest.mark.slow
def test_workers_give_the_same_files(
    monkeypatch, one_thread, predict_all, four_patients, working_folder
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    alone, distributed = (
        predict_all(four_patients, *options, out=out)
        for options, out in (((), "one"), (("--workers", 2), "two"))
    )
    assert (alone.status, distributed.status) == (1, 1)
    assert distributed.stderr == alone.stderr and "truncated" in alone.stderr
    assert distributed.stdout == alone.stdout.replace(
        str(working_folder / "one"), str(working_folder / "two")
    )
    one, two = (read_results(working_folder / name) for name in ("one", "two"))
    assert len(one) > 30 and [name for name in one if one[name] != two.get(name)] == []
    assert set(one) == set(two)
    assert list(read_rows(working_folder / "two")) == ["患者 01", "丙 3", "乙 2", "甲 1"]  # folders by name


@pytest.mark.slow
def test_an_existing_scheduler_is_used(
    four_patients, table, tiny_weights, working_folder, monkeypatch
) -> None:
    """Relative paths, a second run that predicts only the failure again, and a folder that disappears."""
    monkeypatch.chdir(working_folder)
    patients = Path(shutil.copytree(four_patients, working_folder / "patients"))
    shutil.rmtree(patients / NAMES[2])
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster:
        run = RunOptions(scheduler=cluster.scheduler_address, resumes=True)
        options = PredictionOptions(str(tiny_weights))
        steps: list[str] = []
        reports = [
            predict_folder(
                Path("patients"), table, Path("out"), options, run,
                report_step=lambda step: steps.append(step.text),
            )
            for _ in range(2)
        ]  # fmt: skip
        settings = BatchSettings(working_folder / "out", None, options, "", "", version("gliomark"))
        folder = working_folder / "absent" / "P"
        (unreachable,) = predict_on_workers([folder], deque([0]), settings, run)
    for report, skipped in zip(reports, (0, 2), strict=True):
        assert [one.name for one in report.result_folders] == ["患者 01", "甲 1"]
        assert [one.patient_id for one in report.failures] == ["乙 2"] and report.skipped == skipped
    assert any(
        re.fullmatch(r"3 of 3 patients, 1 failed, [\d.]+ per minute, 0:00:00 left", one) for one in steps
    )
    assert unreachable.failure is not None and f"cannot reach {folder}" in unreachable.failure.message


@pytest.mark.slow
def test_python_predicts_on_workers(tiny_weights, four_patients, tmp_path) -> None:
    reports: list[str] = []
    failures = gliomark.predict_folder(
        four_patients / NAMES[0],
        out=tmp_path,
        model=tiny_weights,
        allow_missing_clinical=True,
        workers=1,
        progress=reports.append,
    )
    assert failures == [] and reports == [str(tmp_path / NAMES[0] / "report.html")]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--workers", 0), "0 workers cannot predict"),
        (("--workers", -2), "-2 workers cannot predict"),
        (("--workers", 2, "--scheduler", "tcp://localhost:1"), "Workers and a scheduler were both given"),
    ],
)
def test_impossible_numbers_of_workers_are_refused(
    predict_all, four_patients, working_folder, options, sentence: str
) -> None:
    result = predict_all(four_patients, *options)
    assert (result.status, result.stdout) == (1, "")
    assert sentence in result.stderr and result.stderr.count("\n") == 1
    assert not (working_folder / "out").exists()


def test_a_missing_dask_is_named_with_its_extra(
    monkeypatch, predict_all, four_patients, working_folder
) -> None:
    monkeypatch.delitem(sys.modules, "gliomark.cluster")
    monkeypatch.setitem(sys.modules, "distributed", None)
    result = predict_all(four_patients, "--workers", 2)
    assert result.status == 1 and result.stderr.count("\n") == 1
    assert "needs distributed" in result.stderr and "gliomark[cohort]" in result.stderr
    assert not (working_folder / "out").exists()


def test_a_scheduler_without_workers_is_refused(
    monkeypatch, predict_all, four_patients, working_folder
) -> None:
    monkeypatch.setattr(worker_processes, "WORKER_TIMEOUT_S", 0.5)
    with LocalCluster(n_workers=0, dashboard_address=None) as cluster:
        result = predict_all(four_patients, "--scheduler", cluster.scheduler_address)
    assert result.status == 1 and "has no workers" in result.stderr and result.stderr.count("\n") == 1


# ---- distribution -----------------------------------------------------------------------------------


def test_a_job_that_ends_its_worker_twice_fails_alone(tmp_path: Path) -> None:
    """The scheduler never holds more jobs than there are threads."""

    def count_and_end(number: int) -> int:  # defined here, so that workers need not import this module
        attempt = 1 + len(list(tmp_path.glob(f"{number}-*")))
        (tmp_path / f"{number}-{attempt}").touch()
        if number == 2 or (number == 4 and attempt == 1):
            os._exit(9)
        return number

    results, held = {}, []
    with create_dask_client(2, None, max_tries=1) as client:
        for number, result in run_with_refill(client, count_and_end, deque(range(30))):
            results[number] = result
            held.append(client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)))
    assert results == {number: None if number == 2 else number for number in range(30)}
    attempts = [one.name.partition("-")[0] for one in tmp_path.iterdir()]
    assert {name: attempts.count(name) for name in ("2", "4")} == {"2": 2, "4": 2}
    assert len(attempts) == 32 and 1 <= max(held) <= 2


# ---- patients with the same id ----------------------------------------------------------------------


def write_result(settings: BatchSettings, number: int, is_read: bool = True) -> PatientResult:
    """Write a folder of results as a worker does, of a patient whose id is always P-7."""
    key = f"key {number}"
    if not is_read:
        return PatientResult(number, "P-7", key, failure=FailedPatient(str(number), "no brain"))
    folder = settings.output_folder / "P-7"
    folder.mkdir(parents=True, exist_ok=True)
    write_request(folder, key, ClinicalData("P-7", None, None))
    return PatientResult(number, "P-7", key, {"id": "P-7", "lesion_volume_ml": float(number)})


@pytest.mark.parametrize("is_read", [True, False])
@pytest.mark.parametrize("written", list(permutations(range(3))))
def test_the_first_folder_of_an_id_wins_in_any_order(tmp_path: Path, written, is_read: bool) -> None:
    """The results are written in one order and arrive in the order of the folders, and the reverse."""
    for arrival in ((0, 1, 2), (2, 1, 0)):
        out = tmp_path / str(arrival)
        settings = BatchSettings(out, None, PredictionOptions(), "", "", "")
        results = BatchResults([Path("a"), Path("b"), Path("c")], settings, lambda _: None)
        results.pending.clear()
        by_number = {number: write_result(settings, number, is_read or number > 0) for number in written}
        for number in arrival:
            results.add(by_number[number])
        while results.pending:
            results.add(write_result(settings, results.pending.popleft(), is_read))
        results.write_table()
        reasons = [getattr(one.message, "code", one.message) for one in results.create_report().failures]
        if is_read:
            assert read_request(out / "P-7").key == "key 0" and reasons == ["patient-twice"] * 2
            assert read_rows(out)["P-7"]["lesion_volume_ml"] == "0.0"
        else:
            assert not (out / "P-7").exists() and reasons == ["no brain", *["patient-twice"] * 2]


RESULTS_OF_ONE_FOLDER = {
    "unreadable": PatientResult(0, None, "", failure=FailedPatient("a", "a series is damaged")),
    "failed": PatientResult(0, "P-7", "", failure=FailedPatient("P-7", "no brain")),
    "predicted": PatientResult(0, "P-7", "", {"id": "P-7", "lesion_volume_ml": 1.0}),
}


@pytest.mark.parametrize(
    ("before", "now", "rows"),
    [
        ("unreadable", "failed", {"P-7": "no brain"}),
        ("unreadable", "predicted", {"P-7": ""}),
        ("predicted", "failed", {"P-7": "no brain"}),
        ("failed", "predicted", {"P-7": ""}),
        (
            "predicted",
            "unreadable",
            {"P-7": "", "a": "a series is damaged"},
        ),  # the folder's id is unknown now
    ],
)
def test_the_table_has_one_row_for_a_patient_read_again(
    tmp_path: Path, before: str, now: str, rows: dict[str, str]
) -> None:
    """The folder has another name than the patient."""
    settings = BatchSettings(tmp_path, None, PredictionOptions(), "", "", "")
    (tmp_path / "predictions.csv").touch()
    for kind in (before, now):
        results = BatchResults([Path("a")], settings, lambda _: None)
        results.by_number[0] = RESULTS_OF_ONE_FOLDER[kind]
        results.write_table()
    assert {patient: row["error"] for patient, row in read_rows(tmp_path).items()} == rows


# ---- interruptions ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory, four_patients: Path, tiny_weights: Path) -> Path:
    """The results of the first patient; tests must not change them."""
    out = tmp_path_factory.mktemp("finished")
    options = PredictionOptions(str(tiny_weights), allows_missing_clinical=True)
    assert len(predict_folder(four_patients / NAMES[0], None, out, options).result_folders) == 1
    return out


def change_nothing(settings: BatchSettings, patient: Path) -> BatchSettings:
    return settings


def change_options(**changes: object) -> Callable:
    return lambda settings, _: replace(settings, options=replace(settings.options, **changes))


def give_age(settings: BatchSettings, patient: Path) -> BatchSettings:
    table = patient.parent / "clinical.csv"
    table.write_text(f"id,age,sex\n{NAMES[0]},50,0\n", "utf-8")
    return replace(settings, table=gliomark.read_clinical_table(table))


def touch_image(settings: BatchSettings, patient: Path) -> BatchSettings:
    os.utime(next((patient / "T1C").iterdir()))
    return settings


def remove_report(settings: BatchSettings, patient: Path) -> BatchSettings:
    (settings.output_folder / NAMES[0] / "report.html").unlink()
    return settings


def damage_record(settings: BatchSettings, patient: Path) -> BatchSettings:
    (settings.output_folder / NAMES[0] / ".request.json").write_text("{")
    return settings


def damage_document(settings: BatchSettings, patient: Path) -> BatchSettings:
    (settings.output_folder / NAMES[0] / "prediction.json").write_text("[]")
    return settings


@pytest.mark.parametrize(
    ("change", "is_reused"),
    [
        (change_nothing, True),
        (change_options(device="cuda"), True),
        (change_options(fusion_rule="all"), False),
        (change_options(has_enhancing_focus=True), False),
        (change_options(language="zh"), False),
        (change_options(writes_pdf=True), False),
        (lambda settings, _: replace(settings, weights_sha256="0" * 64), False),
        (lambda settings, _: replace(settings, signature="key"), False),
        (lambda settings, _: replace(settings, software_version="0.0"), False),
        (give_age, False),
        (touch_image, False),
        (remove_report, False),
        (damage_record, False),
        (damage_document, False),
    ],
)
def test_only_complete_and_current_results_are_reused(
    finished, four_patients, tiny_weights, tmp_path, change: Callable, is_reused: bool
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    patient = Path(shutil.copytree(four_patients / NAMES[0], tmp_path / NAMES[0]))
    sha256 = next(iter(read_rows(out).values()))["sha256"]
    options = PredictionOptions(str(tiny_weights), allows_missing_clinical=True)
    settings = BatchSettings(out, None, options, sha256, "unsigned", version("gliomark"))
    settings = replace(settings, signature=json.loads(
        (out / NAMES[0] / "prediction.json").read_text("utf-8"))["model"]["signature"])  # fmt: skip
    results = BatchResults([patient], change(settings, patient), lambda _: None)
    _reuse_finished_results(results, lambda _: None)
    assert (list(results.pending), len(results.by_number)) == (([], 1) if is_reused else ([0], 0))


def test_an_interrupted_batch_is_continued(monkeypatch, predict_all, four_patients, working_folder) -> None:
    """The table holds what is finished, finished patients are not predicted again, and failures are."""
    out = working_folder / "out"
    predict_prepared = patient_module.predict_prepared

    def interrupt(prepared, *arguments, **options):
        if prepared.study.patient_id == NAMES[0]:
            raise KeyboardInterrupt
        return predict_prepared(prepared, *arguments, **options)

    monkeypatch.setattr(patient_module, "predict_prepared", interrupt)
    assert predict_all(four_patients).status == 130
    assert list(read_rows(out)) == ["患者 01", "丙 3", "乙 2"]
    monkeypatch.undo()
    times = {name: (out / name / "report.html").stat().st_mtime_ns for name in ("患者 01", "丙 3")}
    continued = predict_all(four_patients, "--resume")
    first, *others = continued.stderr.splitlines()
    assert first == "2 of 4 patients were skipped: their results are complete and up to date."
    assert len(others) == 1 and others[0].startswith("乙 2: ")
    assert {name: (out / name / "report.html").stat().st_mtime_ns for name in times} == times
    assert [
        name for name in ("患者 01", "丙 3", "甲 1") if str(out / name / "report.html") in continued.stdout
    ]
    rows = read_rows(out)
    assert list(rows) == ["患者 01", "丙 3", "乙 2", "甲 1"]
    assert [bool(row["error"]) for row in rows.values()] == [False, False, True, False]


def test_the_duration_left_is_readable() -> None:
    assert [format_duration(one) for one in (0.4, 59.6, 3725, 90_000)] == [
        "0:00:00", "0:01:00", "1:02:05", "25:00:00"
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("target", ["worker", "command"])
def test_a_killed_process_loses_no_patient(
    target: str, four_patients, table, tiny_weights, working_folder
) -> None:
    """Kill -9 of a worker is repaired by the command; after that of the command, another one continues."""
    for number in range(6):
        write_pictures(working_folder / "many" / f"P{number}", drop_mask(draw_patient(number)))
    out = working_folder / "out"
    arguments = ["predict", working_folder / "many", "--out", out, "--model", tiny_weights, "--workers", 2]
    command = [sys.executable, "-m", "gliomark", *map(str, arguments), "--allow-missing-clinical", "--resume"]
    process = psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not list(out.glob("P*/prediction.json")):
        assert process.poll() is None
        time.sleep(0.05)
    descendants = process.children(recursive=True)
    if target == "worker":
        workers = [one for one in descendants if "multiprocessing" in " ".join(one.cmdline())]
        workers[-1].send_signal(signal.SIGKILL)
        output, errors = process.communicate()
        assert process.returncode == 0 and output.count(b"report.html") == 6, errors
    else:
        process.kill()
        process.communicate()
        gone, alive = psutil.wait_procs(descendants, timeout=20)
        assert alive == []
        finished_before = {path.parent.name for path in out.glob("P*/prediction.json")}
        assert set(read_rows(out)) <= finished_before
        again = subprocess.run(command, capture_output=True, text=True)
        assert again.returncode == 0 and again.stdout.count("report.html") == 6
        assert again.stderr.startswith(f"{len(finished_before)} of 6 patients were skipped")
    assert sorted(read_rows(out)) == [f"P{number}" for number in range(6)]
    assert not [row for row in read_rows(out).values() if row["error"]]
    assert {path.name for path in out.iterdir()} == {"predictions.csv", *(f"P{n}" for n in range(6))}
