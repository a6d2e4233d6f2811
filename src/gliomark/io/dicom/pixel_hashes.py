"""Hash the pixels of DICOM files, to tell copies of an image from different images; run in a reader process."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

from pydicom.dataset import Dataset

from gliomark.io.dicom.dataset_reader import label_as_jpeg_2000, read_dataset
from gliomark.io.dicom.instances import DAMAGED_FILE_ERRORS, is_frame_count_plausible


def hash_pixel_data(file: Path) -> str:
    """Return the SHA-256 of a file's uncompressed pixels; "" if they cannot be read."""
    try:
        return hashlib.sha256(_read_pixels(file, always_decodes=False)).hexdigest()
    except (*DAMAGED_FILE_ERRORS, RuntimeError):
        return ""


def hash_image_or_file(file: Path) -> str:
    """Return the SHA-256 of the decoded pixels, or of the whole file if they cannot be decoded."""
    try:
        content = _read_pixels(file, always_decodes=True)
    except (*DAMAGED_FILE_ERRORS, RuntimeError):
        content = file.read_bytes()
    return hashlib.sha256(content).hexdigest()


def _read_pixels(file: Path, *, always_decodes: bool) -> bytes:
    """Read the pixels; uncompressed ones as stored, unless they are always to be decoded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = read_dataset(file)
        label_as_jpeg_2000(dataset)
        if not is_frame_count_plausible(dataset, file.stat().st_size):
            raise ValueError("the stated frames do not fit the file")
        syntax = getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID")
        is_compressed = syntax is not None and syntax.is_compressed
        return dataset.pixel_array.tobytes() if always_decodes or is_compressed else bytes(dataset.PixelData)
