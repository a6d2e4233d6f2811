"""Types with limits for what a weights file may state, and the strict check of a record against them."""

from __future__ import annotations

import json
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter

T = TypeVar("T")

# no number for a text, no unknown field, no NaN
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

Count = Annotated[int, Field(ge=1, le=64)]
Counts = Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)]
Width = Annotated[int, Field(ge=1, le=4096)]
Widths = Annotated[tuple[Width, ...], Field(min_length=1, max_length=8)]
Side = Annotated[int, Field(ge=1, le=32)]
Share = Annotated[float, Field(ge=0, le=1)]


def checked(kind: type[T], record: Any) -> T:
    """JSON's plain data as a ``kind``, such as a dataclass with ``STRICT`` as its configuration.

    Raises pydantic.ValidationError, which is a ValueError, where it is no such record.
    """
    key: Any = kind
    found: T = _adapter(key).validate_json(json.dumps(record))
    return found


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
