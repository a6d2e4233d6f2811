"""Predict a folder of patients, one after the other or on worker processes.

``folder`` holds the loop over the patients, ``patient`` predicts one of them, ``finished_results`` finds those that an
earlier run finished, and ``worker_processes`` distributes the patients with dask.
"""

from gliomark.batch.folder import predict_folder
from gliomark.batch.options import BatchReport, BatchStep, PredictionOptions, RunOptions

__all__ = ["BatchReport", "BatchStep", "PredictionOptions", "RunOptions", "predict_folder"]
