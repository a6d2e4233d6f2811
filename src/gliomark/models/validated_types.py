"""Types with limits for the values in a weights file's card, and strict parsing of records against them."""

from __future__ import annotations

import json
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter

T = TypeVar("T")

# no conversion between types, no unknown field, no NaN
STRICT_CONFIG = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

LayerCount = Annotated[int, Field(ge=1, le=64)]
LayerCounts = Annotated[tuple[LayerCount, ...], Field(min_length=1, max_length=8)]
ChannelCount = Annotated[int, Field(ge=1, le=4096)]
ChannelCounts = Annotated[tuple[ChannelCount, ...], Field(min_length=1, max_length=8)]
PixelCount = Annotated[int, Field(ge=1, le=32)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def parse_record(record_type: type[T], record: Any) -> T:
    """Parse plain JSON data as a record type, such as a dataclass with ``STRICT_CONFIG``.

    Raises pydantic.ValidationError, which is a ValueError, if the data is not valid.
    """
    key: Any = record_type
    parsed: T = _get_type_adapter(key).validate_json(json.dumps(record))
    return parsed


@cache
def _get_type_adapter(record_type: Any) -> TypeAdapter[Any]:
    return TypeAdapter(record_type)
