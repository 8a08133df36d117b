"""Property columns of a store: one type per property, found from the values, widened when shards differ.

A property is a flag, an integer, a number, a text, or an array of numbers of rank 1 to 4 (a tensor). Where
the records of one property disagree in kind, the column becomes text and arrays in it are JSON, so that
nothing is lost.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nucleate.shapes import Float

PROPERTY_PREFIX = "property."
MAX_RANK = 4
TEXT = "text"

_SCALAR_TYPES = {"flag": pa.bool_(), "integer": pa.int64(), "number": pa.float64(), TEXT: pa.string()}


def property_kind(value: Any) -> str | None:
    """Kind of a value: ``flag``, ``integer``, ``number``, ``text``, ``array1`` to ``array4``, or None."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int):
        return "integer" if -(2**63) <= value < 2**63 else "number"
    if isinstance(value, float):
        return None if math.isnan(value) else "number"
    if isinstance(value, str):
        return TEXT
    rank = _array_rank(value)
    return f"array{rank}" if rank is not None else TEXT


def _array_rank(value: Any) -> int | None:
    """Rank of a rectangular nested list of numbers (some may be missing), None for anything else."""
    rank, level = 0, [value]
    while level and all(isinstance(item, list) for item in level):
        if len({len(item) for item in level}) > 1:
            return None
        rank, level = rank + 1, [inner for item in level for inner in item]
    numbers = all(isinstance(item, int | float | None) and not isinstance(item, bool) for item in level)
    return rank if 0 < rank <= MAX_RANK and numbers else None


def widen(kinds: Iterable[str | None]) -> str | None:
    """The one kind that holds values of all ``kinds``: integers widen to numbers, other mixtures to text."""
    present = {kind for kind in kinds if kind is not None}
    if not present:
        return None
    if len(present) == 1:
        return present.pop()
    return "number" if present == {"integer", "number"} else TEXT


def arrow_type(kind: str) -> pa.DataType:
    """Arrow type of a column of this kind; arrays are lists of lists of float64."""
    if kind in _SCALAR_TYPES:
        return _SCALAR_TYPES[kind]
    value = pa.float64()
    for _ in range(int(kind.removeprefix("array"))):
        value = pa.list_(value)
    return value


def kind_of_type(data_type: pa.DataType) -> str:
    """Kind whose column has this Arrow type."""
    rank = 0
    while pa.types.is_list(data_type):
        rank, data_type = rank + 1, data_type.value_type
    if rank:
        return f"array{rank}"
    return next(kind for kind, scalar in _SCALAR_TYPES.items() if scalar == data_type)


def as_text(value: Any) -> str:
    """A value as it stands in a column of text: text stays (as UTF-8 can hold it), all else is JSON."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else json.dumps(value)


def property_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, pa.Array]:
    """One typed Arrow array per property in ``rows`` (the properties of each record), names sorted."""
    kinds: dict[str, set[str | None]] = {}
    for row in rows:
        for name, value in row.items():
            kinds.setdefault(name, set()).add(property_kind(value))
    columns = {}
    for name in sorted(kinds):
        kind = widen(kinds[name])
        if kind is not None:
            values = [None if property_kind(row.get(name)) is None else row[name] for row in rows]
            columns[name] = pa.array([_fit(value, kind) for value in values], type=arrow_type(kind))
    return columns


def _fit(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == TEXT:
        return as_text(value)
    return float(value) if kind == "number" else value


def conform(column: pa.Array | pa.ChunkedArray, kind: str) -> pa.Array | pa.ChunkedArray:
    """``column`` of a shard, brought to the kind the whole store gives this property."""
    target = arrow_type(kind)
    if column.type == target:
        return column
    if kind == TEXT:
        return pa.array([None if v is None else as_text(v) for v in column.to_pylist()], type=target)
    return pc.cast(column, target)


def as_numbers(column: pa.Array | pa.ChunkedArray) -> Float[np.ndarray, "rows"]:
    """Values of a flag, integer or number column as float64, NaN where missing."""
    return pc.cast(column, pa.float64()).fill_null(math.nan).to_numpy()
