"""Segment glioma on preoperative MRI and predict molecular markers. Research use only, not a medical device."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gliomark.errors import GliomarkError
    from gliomark.io import read_clinical_table, read_study
    from gliomark.pipeline import load_model, predict
    from gliomark.preprocessing import prepare
    from gliomark.reporting import write_prediction
    from gliomark.study import ClinicalData, MRSequence, Prediction, Study

_MODULE_BY_NAME = {
    "read_study": "gliomark.io",
    "read_clinical_table": "gliomark.io",
    "prepare": "gliomark.preprocessing",
    "load_model": "gliomark.pipeline",
    "predict": "gliomark.pipeline",
    "write_prediction": "gliomark.reporting",
    "ClinicalData": "gliomark.study",
    "GliomarkError": "gliomark.errors",
    "MRSequence": "gliomark.study",
    "Prediction": "gliomark.study",
    "Study": "gliomark.study",
}
__all__ = [
    "ClinicalData",
    "GliomarkError",
    "MRSequence",
    "Prediction",
    "Study",
    "load_model",
    "predict",
    "prepare",
    "read_clinical_table",
    "read_study",
    "write_prediction",
]


def __getattr__(name: str) -> Any:
    """Import each name on first use, so that programs without torch can use the data classes."""
    if name not in _MODULE_BY_NAME:
        raise AttributeError(f"module 'gliomark' has no attribute '{name}'")
    return getattr(import_module(_MODULE_BY_NAME[name]), name)
