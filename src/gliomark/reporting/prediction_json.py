"""Write ``prediction.json``; ``Prediction.to_dict`` creates its content, from which all reports are made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from gliomark.reporting.result_writer import Writer

if TYPE_CHECKING:
    from gliomark.reporting.report_input import ReportInput


def write_prediction_json(report_input: ReportInput, folder: Path) -> None:
    """Write ``prediction.json``."""
    text = json.dumps(report_input.document, ensure_ascii=False, indent=2, allow_nan=False)
    (folder / "prediction.json").write_text(text + "\n", encoding="utf-8")


WRITER = Writer("json", ("prediction.json",), write_prediction_json, is_default=True)
