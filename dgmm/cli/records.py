"""JSON that every reader can read: what JSON has no number for is null."""

import json
import math
from collections.abc import Mapping
from typing import Any


def dumps(record: Any) -> str:
    """A ``record`` of dictionaries, lists, numbers and texts as one line of JSON.

    NaN and infinities are written as null: RFC 8259 has no numbers for them.
    """
    return json.dumps(_finite(record), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value
