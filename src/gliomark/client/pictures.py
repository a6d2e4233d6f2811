"""PNG from and to arrays: slices in 16 bits, masks and heat as one tall picture in 8."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QBuffer, QByteArray, QIODevice
from PySide6.QtGui import QImage


class ImageDecodeError(ValueError):
    """The bytes are no PNG of the expected size."""


def decode_slice(png: bytes, low: float, high: float) -> NDArray[np.float32]:
    """A 16-bit grey PNG as float32 ``(row, column)``: 0 becomes ``low``, 65535 ``high``."""
    grey = _decode_pixels(png, QImage.Format.Format_Grayscale16, np.uint16)
    return (low + grey.astype(np.float32) / 65535.0 * (high - low)).astype(np.float32)


def decode_slices(png: bytes, slice_count: int) -> NDArray[np.uint8]:
    """A tall 8-bit grey PNG as ``(slice, row, column)``. Raises NotAPictureError where the height does not fit."""
    stacked_rows = _decode_pixels(png, QImage.Format.Format_Grayscale8, np.uint8)
    if slice_count < 1 or stacked_rows.shape[0] % slice_count:
        raise ImageDecodeError(f"{stacked_rows.shape[0]} rows are not {slice_count} slices")
    return stacked_rows.reshape(slice_count, -1, stacked_rows.shape[1])


def encode_mask(mask: NDArray[np.bool_]) -> bytes:
    """A bool ``(slice, row, column)`` mask as one tall 8-bit grey PNG of 0 and 255."""
    rows = np.ascontiguousarray(mask.reshape(-1, mask.shape[-1]).astype(np.uint8) * 255)
    height, width = rows.shape
    image = QImage(rows.data, width, height, width, QImage.Format.Format_Grayscale8)
    content = QByteArray()
    buffer = QBuffer(content)
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    image.save(buffer, "PNG")  # type: ignore[call-overload]  # its stub knows bytes, it takes str
    return bytes(content.data())


def _decode_pixels(png: bytes, pixel_format: QImage.Format, dtype: type) -> NDArray:
    image = QImage.fromData(png)
    if image.isNull():
        raise ImageDecodeError("no picture")
    image = image.convertToFormat(pixel_format)
    # lines are padded to four bytes
    padded_rows: NDArray = np.frombuffer(image.constBits(), dtype).reshape(image.height(), -1)
    return padded_rows[:, : image.width()].copy()
