"""PNG from and to arrays: slices in 16 bits, masks and heat as one tall picture in 8."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QBuffer, QByteArray, QIODevice
from PySide6.QtGui import QImage


class NotAPictureError(ValueError):
    """The bytes are no PNG of the expected size."""


def read_slice(png: bytes, low: float, high: float) -> NDArray[np.float32]:
    """A 16-bit grey PNG as float32 ``(row, column)``: 0 becomes ``low``, 65535 ``high``."""
    grey = _pixels(png, QImage.Format.Format_Grayscale16, np.uint16)
    return (low + grey.astype(np.float32) / 65535.0 * (high - low)).astype(np.float32)


def read_tall(png: bytes, slices: int) -> NDArray[np.uint8]:
    """A tall 8-bit grey PNG as ``(slice, row, column)``. Raises NotAPictureError where the height does not fit."""
    tall = _pixels(png, QImage.Format.Format_Grayscale8, np.uint8)
    if slices < 1 or tall.shape[0] % slices:
        raise NotAPictureError(f"{tall.shape[0]} rows are not {slices} slices")
    return tall.reshape(slices, -1, tall.shape[1])


def write_tall(mask: NDArray[np.bool_]) -> bytes:
    """A bool ``(slice, row, column)`` mask as one tall 8-bit grey PNG of 0 and 255."""
    rows = np.ascontiguousarray(mask.reshape(-1, mask.shape[-1]).astype(np.uint8) * 255)
    height, width = rows.shape
    image = QImage(rows.data, width, height, width, QImage.Format.Format_Grayscale8)
    content = QByteArray()
    buffer = QBuffer(content)
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    image.save(buffer, "PNG")  # type: ignore[call-overload]  # its stub knows bytes, it takes str
    return bytes(content.data())


def _pixels(png: bytes, form: QImage.Format, kind: type) -> NDArray:
    image = QImage.fromData(png)
    if image.isNull():
        raise NotAPictureError("no picture")
    image = image.convertToFormat(form)
    # lines are padded to four bytes
    wide: NDArray = np.frombuffer(image.constBits(), kind).reshape(image.height(), -1)
    return wide[:, : image.width()].copy()
