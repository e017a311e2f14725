"""JSON whose numbers are what they say: read as int and Decimal, written to the last digit. A float never stands in between."""

from __future__ import annotations

import decimal
import json
import math
from typing import Any


def loads(text: str) -> Any:
    """An integer is an int, any other number a Decimal with the digits and the scale of the text."""
    return json.loads(text, parse_int=_whole, parse_float=decimal.Decimal)


def dumps(value: Any, place: str = "") -> str:
    """The JSON text. A Decimal is written with its own digits, a float with the shortest that mean it; what JSON does not have is a TypeError or ValueError that says where."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return json.encoder.encode_basestring(value)
    if isinstance(value, int):
        return str(decimal.Decimal(value))
    if isinstance(value, float | decimal.Decimal):
        if not (math.isfinite(value) if isinstance(value, float) else value.is_finite()):
            raise ValueError(f"{place or 'the value'} is {value}: JSON has no such number")
        return float.__repr__(value) if isinstance(value, float) else str(value)
    if isinstance(value, dict):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"{place or 'the value'} has the key {wrong[0]!r}: keys are text")
        return "{" + ",".join(f"{dumps(key)}:{dumps(member, f'{place}/{key}')}" for key, member in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(dumps(element, f"{place}/{number}") for number, element in enumerate(value)) + "]"
    raise TypeError(f"{place or 'the value'} is a {type(value).__name__}: JSON has no such value, so say it as text")


def _whole(text: str) -> int | decimal.Decimal:
    # Python turns long texts into an int only where it is told to.
    return int(text) if len(text) <= 600 and text != "-0" else decimal.Decimal(text)
