"""Remove invalid elements from a source header; archives reject results that copy them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from pydicom import config
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.valuerep import DA, DT, TM, validate_value

# Not checked: functional groups are rewritten from the geometry that was read, pixel data is never copied.
_FUNCTIONAL_GROUPS, _PIXEL_DATA = 0x5200, 0x7FE0
_DATE_TIME_PARSERS: Mapping[str, Callable[[str], object]] = {"DA": DA, "TM": TM, "DT": DT}
_SINGLE_LINE_VRS = ("LO", "SH", "PN", "CS", "AE", "UC")
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
_UID_PATTERN = re.compile(r"[0-9]+(\.[0-9]+)*")
_MAXIMUM_UID_LENGTH = 64
# raised by pydicom for an element that cannot be decoded
_UNDECODABLE = (
    ValueError, TypeError, KeyError, AttributeError, NotImplementedError, OverflowError, BytesLengthException, OSError,
)  # fmt: skip


def remove_invalid_elements(header: Dataset) -> None:
    """Delete private elements and every element whose value is not valid for its value representation.

    Invalid are malformed dates, numbers and UIDs, and texts that are too long. A sequence with an invalid element
    is deleted as a whole.
    """
    for tag in list(header.keys()):
        if tag.group in (_FUNCTIONAL_GROUPS, _PIXEL_DATA):
            continue
        if tag.is_private or not _has_valid_element(header, tag):
            del header[tag]


def is_valid_uid(value: object) -> bool:
    """Whether a value is usable as a UID; components with leading zeros, forbidden but frequent, are accepted."""
    text = str(value)
    return len(text) <= _MAXIMUM_UID_LENGTH and _UID_PATTERN.fullmatch(text) is not None


def _has_valid_element(header: Dataset, tag: BaseTag) -> bool:
    try:
        return _is_valid_element(header[tag])
    except _UNDECODABLE:
        return False


def _is_valid_element(element: DataElement) -> bool:
    if element.VR == "SQ":
        return all(_has_valid_element(item, tag) for item in element.value for tag in item.keys())  # noqa: SIM118
    values = element.value if isinstance(element.value, MultiValue | list) else [element.value]
    return _has_dictionary_vr(element) and all(_is_valid_value(element.VR, value) for value in values)


def _has_dictionary_vr(element: DataElement) -> bool:
    """Whether the value representation is that of the DICOM dictionary; True for unknown tags."""
    try:
        dictionary_vr_text = dictionary_VR(element.tag)
    except KeyError:
        return True
    return element.VR in re.split(" or ", dictionary_vr_text)


def _is_valid_value(vr: str, value: object) -> bool:
    if value is None or value == "":
        return True
    text = str(value)
    if vr == "UI":
        return is_valid_uid(text)
    if vr in _DATE_TIME_PARSERS:
        _DATE_TIME_PARSERS[vr](text)  # raises ValueError for an impossible date or time
    if vr in ("DS", "IS"):
        text = getattr(value, "original_string", text).strip()
    if vr in _SINGLE_LINE_VRS and _CONTROL_CHARACTER.search(text):
        return False
    validate_value(vr, text if isinstance(value, str) or vr in ("DS", "IS", "PN") else value, config.RAISE)
    return True
