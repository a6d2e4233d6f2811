"""Segment glioma on preoperative MRI and predict molecular markers. Research use only, not a medical device."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gliomark.api import predict, predict_folder
    from gliomark.errors import CohortError, ConfigurationError, GliomarkError, InputError, WeightsError
    from gliomark.io import read_clinical_table, read_study
    from gliomark.model_loading import Model, load_model
    from gliomark.prediction import MarkerPrediction, Prediction
    from gliomark.preprocessing import prepare
    from gliomark.reporting import write_prediction
    from gliomark.study import ClinicalData, MRSequence, Segmentation, Series, SliceStack, Study

    __version__: str

__all__ = [
    "ClinicalData",
    "CohortError",
    "ConfigurationError",
    "GliomarkError",
    "InputError",
    "MRSequence",
    "MarkerPrediction",
    "Model",
    "Prediction",
    "Segmentation",
    "Series",
    "SliceStack",
    "Study",
    "WeightsError",
    "__version__",
    "load_model",
    "predict",
    "predict_folder",
    "prepare",
    "read_clinical_table",
    "read_study",
    "write_prediction",
]
_MODULE_BY_NAME = {
    "ClinicalData": "study",
    "CohortError": "errors",
    "ConfigurationError": "errors",
    "GliomarkError": "errors",
    "InputError": "errors",
    "MRSequence": "study",
    "MarkerPrediction": "prediction",
    "Model": "model_loading",
    "Prediction": "prediction",
    "Segmentation": "study",
    "Series": "study",
    "SliceStack": "study",
    "Study": "study",
    "WeightsError": "errors",
    "load_model": "model_loading",
    "predict": "api",
    "predict_folder": "api",
    "prepare": "preprocessing",
    "read_clinical_table": "io",
    "read_study": "io",
    "write_prediction": "reporting",
}


def __getattr__(name: str) -> Any:
    """Import each name on first use, so that programs without torch can use the data classes."""
    if name == "__version__":
        return import_module("importlib.metadata").version("gliomark")
    if name not in _MODULE_BY_NAME:
        raise AttributeError(f"module 'gliomark' has no attribute '{name}'")
    return getattr(import_module(f"gliomark.{_MODULE_BY_NAME[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
