"""A new output is one module and one registration; ``write_prediction`` selects writers by name."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from gliomark.errors import ConfigurationError, InputError
from gliomark.prediction import Prediction
from gliomark.reporting import list_default_formats, write_prediction, writers
from gliomark.reporting.report_input import ReportInput

Make = Callable[..., Prediction]
MADE_UP_OUTPUT = '''
"""The markers as one line of text each: ``summary/markers.txt``."""

from gliomark.reporting.result_writer import Writer


def write_summary(report_input, folder):
    lines = [f"{card.title}: {card.level}" for card in report_input.contents.marker_cards]
    (folder / "summary").mkdir()
    (folder / "summary" / "markers.txt").write_text("\\n".join(lines), encoding="utf-8")


WRITER = Writer("summary", ("summary", "summary/markers.txt"), write_summary)
'''


def register(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the made-up writer's module, import it and add it to the registry."""
    file = folder / "made_up_output.py"
    file.write_text(MADE_UP_OUTPUT, "utf-8")
    spec = importlib.util.spec_from_file_location("made_up_output", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(writers, "WRITERS", {**writers.WRITERS, module.WRITER.name: module.WRITER})


def test_a_made_up_output_is_written_and_replaced(
    make_prediction: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigurationError, match=r"summary.*json, html"):
        write_prediction(make_prediction(), out, formats=["summary"])
    assert not out.exists()
    register(tmp_path, monkeypatch)
    folder = write_prediction(make_prediction(), out, formats=["summary", "json"])
    assert sorted(entry.name for entry in folder.iterdir()) == ["prediction.json", "summary"]
    lines = (folder / "summary" / "markers.txt").read_text("utf-8").splitlines()
    assert len(lines) == len(make_prediction().markers)
    write_prediction(make_prediction(), out)  # the folder counts as a result and is replaced
    assert not (folder / "summary").exists() and (folder / "report.html").exists()


def test_default_outputs_are_those_of_the_images(make_prediction: Make, tmp_path: Path) -> None:
    assert list_default_formats() == ("json", "html", "png", "nifti")
    folder = write_prediction(make_prediction("pictures"), tmp_path)
    names = ["prediction.json", "report.html", "segmentation.nii.gz", "statistics.json"]
    assert sorted(entry.name for entry in folder.iterdir()) == ["masks", *names]
    folder = write_prediction(make_prediction("volumes"), tmp_path)
    assert sorted(entry.name for entry in folder.iterdir()) == names


def test_every_output_is_declared(make_prediction: Make, tmp_path: Path) -> None:
    for name, writer in writers.WRITERS.items():
        if name in ("dicom", "rtstruct", "bids"):
            continue  # test_dicom, test_structure_set and test_bids_app
        kind = "pictures" if name == "png" else "volumes"
        folder = write_prediction(make_prediction(kind), tmp_path / name, formats=[name])
        written = {str(file.relative_to(folder)) for file in folder.rglob("*")}
        for file in written:
            assert any(fnmatchcase(file, output) for output in writer.outputs), f"{name}: {file}"
        for output in writer.outputs:
            assert any(fnmatchcase(file, output) for file in written), f"{name}: {output}"


def test_other_files_are_never_replaced(make_prediction: Make, tmp_path: Path) -> None:
    folder = write_prediction(make_prediction(), tmp_path)
    (folder / "notes.txt").write_text("keep")
    with pytest.raises(InputError, match=r"notes\.txt"):
        write_prediction(make_prediction(), tmp_path)
    assert (folder / "notes.txt").read_text() == "keep"


def test_contents_are_created_once(make_prediction: Make) -> None:
    report_input = ReportInput(make_prediction())
    assert report_input.document is report_input.document
    assert report_input.contents is report_input.contents and report_input.pdf is report_input.pdf
