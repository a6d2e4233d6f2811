"""Convert between PNG and arrays: slices with 16 bits; masks and heatmaps as vertically stacked slices with 8 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QBuffer, QByteArray, QIODevice
from PySide6.QtGui import QImage


class ImageDecodeError(ValueError):
    """The data is not a PNG image of the expected size."""


def decode_slice(png: bytes, low: float, high: float) -> NDArray[np.float32]:
    """Decode a 16-bit greyscale PNG into float32 ``(row, column)``; 0 becomes ``low``, 65535 ``high``.

    Raises
    ------
    ImageDecodeError
        If the data is not a PNG image.
    """
    grey = _decode_pixels(png, QImage.Format.Format_Grayscale16, np.uint16)
    return (low + grey.astype(np.float32) / 65535.0 * (high - low)).astype(np.float32)


def decode_slices(png: bytes, slice_count: int) -> NDArray[np.uint8]:
    """Decode an 8-bit greyscale PNG of vertically stacked slices into uint8 ``(slice, row, column)``.

    Raises
    ------
    ImageDecodeError
        If the data is not a PNG image, or its height is not a multiple of the number of slices.
    """
    stacked_rows = _decode_pixels(png, QImage.Format.Format_Grayscale8, np.uint8)
    if slice_count < 1 or stacked_rows.shape[0] % slice_count:
        raise ImageDecodeError(f"{stacked_rows.shape[0]} rows are not {slice_count} slices")
    return stacked_rows.reshape(slice_count, -1, stacked_rows.shape[1])


def encode_mask(mask: NDArray[np.bool_]) -> bytes:
    """Encode a mask ``(slice, row, column)`` as an 8-bit greyscale PNG (0 and 255) of vertically stacked slices."""
    rows = np.ascontiguousarray(mask.reshape(-1, mask.shape[-1]).astype(np.uint8) * 255)
    height, width = rows.shape
    image = QImage(rows.data, width, height, width, QImage.Format.Format_Grayscale8)
    content = QByteArray()
    buffer = QBuffer(content)
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    image.save(buffer, "PNG")  # type: ignore[call-overload]  # the stub declares bytes, PySide6 takes str
    return bytes(content.data())


def _decode_pixels(png: bytes, pixel_format: QImage.Format, dtype: type) -> NDArray[Any]:
    image = QImage.fromData(png)
    if image.isNull():
        raise ImageDecodeError("not an image")
    image = image.convertToFormat(pixel_format)
    # Qt pads each row to a multiple of four bytes
    padded_rows: NDArray[Any] = np.frombuffer(image.constBits(), dtype).reshape(image.height(), -1)
    return padded_rows[:, : image.width()].copy()
