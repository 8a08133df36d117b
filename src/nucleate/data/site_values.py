"""Per-site properties (moments, charges, isotopes, labels, forces) as the text a store keeps, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from nucleate.errors import StoreError

_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def site_properties_to_text(properties: Mapping[str, Any]) -> str | None:
    """JSON of the arrays: for each name its type, its shape and its values in one row; None without any.

    Numbers keep every bit, NaN and infinities are written as words. A value of an object array that JSON does
    not know becomes its text.
    """
    if not properties:
        return None
    return json.dumps({str(name): _described(np.asarray(values)) for name, values in properties.items()})


def site_properties_from_text(text: str | None) -> dict[str, np.ndarray]:
    """The arrays that `site_properties_to_text` wrote.

    Raises:
        StoreError: the text is not what was written.
    """
    try:
        return {name: _array(**described) for name, described in json.loads(text or "{}").items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError(
            f"The site properties of a record are damaged ({error}): copy the store again or rebuild it"
        ) from error


def _described(array: np.ndarray) -> dict[str, Any]:
    kind, shape = array.dtype.kind, list(array.shape)
    if kind == "c":
        parts = np.stack([array.real, array.imag], axis=-1)
        return {**_described(parts), "type": array.dtype.name, "shape": shape}
    if kind in "biuf":
        values = [_number(value) for value in array.ravel().tolist()]
        return {"type": array.dtype.name, "shape": shape, "values": values}
    if kind == "U":
        return {"type": "text", "shape": shape, "values": array.ravel().tolist()}
    return {"type": "object", "shape": shape, "values": [_plain(value) for value in array.ravel().tolist()]}


def _number(value: Any) -> Any:
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def _plain(value: Any) -> Any:
    """The value in words of JSON; numbers that are not finite as ``{"number": "nan"}``, to tell them from text."""
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": str(value)}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {"mapping": {str(key): _plain(one) for key, one in value.items()}}
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)


def _from_plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_plain(one) for one in value]
    if isinstance(value, dict):
        if "number" in value:
            return _NOT_FINITE[value["number"]]
        return {key: _from_plain(one) for key, one in value["mapping"].items()}
    return value


def _array(type: str, shape: list[int], values: list[Any]) -> np.ndarray:
    if type == "object":
        array = np.empty(len(values), dtype=object)
        for i, value in enumerate(values):
            array[i] = _from_plain(value)
        return array.reshape(shape)
    if type == "text":
        return np.array(values, dtype=str).reshape(shape)
    if np.dtype(type).kind == "c":
        pairs = np.array([float(value) for value in values]).reshape(*shape, 2)
        numbers = np.empty(shape, dtype=type)
        numbers.real, numbers.imag = pairs[..., 0], pairs[..., 1]  # a product with 1j would spoil infinities
        return numbers
    if np.dtype(type).kind == "f":
        values = [float(value) for value in values]
    return np.array(values, dtype=type).reshape(shape)
