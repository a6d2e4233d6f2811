"""What a writer of one output provides; ``writers`` lists all of them.

How to add an output: write one module that ends in ``WRITER = Writer(...)`` and add it to ``WRITERS`` in ``writers``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gliomark.prediction import Prediction

if TYPE_CHECKING:
    from gliomark.reporting.report_input import ReportInput


def _applies_always(prediction: Prediction) -> bool:
    return True


@dataclass(frozen=True)
class Writer:
    """A writer of one output of a prediction.

    Attributes
    ----------
    name
        By which ``write_prediction`` selects it.
    outputs
        The files and folders that it may write, as paths below the patient's folder; ``*`` stands for any text.
    write
        Writes them into the given folder, which is empty but for the outputs of other writers.
    is_default
        Whether it is used if no formats are selected.
    applies_to
        Whether it writes anything for a prediction; a selected writer that does not is skipped.
    """

    name: str
    outputs: tuple[str, ...]
    write: Callable[[ReportInput, Path], None]
    is_default: bool = False
    applies_to: Callable[[Prediction], bool] = _applies_always
