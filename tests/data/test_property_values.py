"""Property columns: every value comes back as it went in, whatever stands beside it."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleate.data.property_values import (
    arrow_type,
    as_numbers,
    conform,
    kind_of_type,
    property_columns,
    property_kind,
    widen,
)

integers = st.integers(-(2**63), 2**63 - 1)
small = st.integers(-(2**53), 2**53)
numbers = st.floats(allow_nan=False)
texts = st.text()
vectors = st.lists(numbers, min_size=1, max_size=4)
matrices = st.integers(1, 3).flatmap(
    lambda n: st.lists(st.lists(numbers, min_size=n, max_size=n), min_size=1, max_size=3)
)
KINDS = {
    "flag": st.booleans(),
    "integer": integers,
    "number": numbers,
    "text": texts,
    "array1": vectors,
    "array2": matrices,
}


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_columns_of_one_kind_keep_every_value(kind: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.none() | KINDS[kind], min_size=1, max_size=8))
    columns = property_columns([{} if v is None else {"x": v} for v in values])
    if all(v is None for v in values):
        assert columns == {}
        return
    assert kind_of_type(columns["x"].type) == kind
    assert columns["x"].to_pylist() == values
    assert arrow_type(kind) == columns["x"].type


@given(st.lists(small | numbers, min_size=1, max_size=8))
def test_integers_beside_numbers_become_numbers(values: list[float]) -> None:
    column = property_columns([{"x": v} for v in values])["x"]
    assert column.to_pylist() == values
    assert np.array_equal(as_numbers(conform(column, "number")), np.array(values, dtype=np.float64))


@given(st.lists(st.one_of(*KINDS.values()), min_size=1, max_size=8))
def test_mixed_columns_become_text_that_holds_the_values(values: list[Any]) -> None:
    column = property_columns([{"x": v} for v in values])["x"]
    kind = widen({property_kind(v) for v in values})
    assert kind_of_type(column.type) == kind
    if kind == "text":
        for text, value in zip(column.to_pylist(), values, strict=True):
            expected = value if isinstance(value, str) else json.loads(text)
            assert (text if isinstance(value, str) else expected) == value
        separate = [property_columns([{"x": v}])["x"] for v in values]
        assert [conform(c, "text")[0].as_py() for c in separate] == column.to_pylist()


def test_what_is_missing_or_odd() -> None:
    assert property_kind(None) is None
    assert property_kind(math.nan) is None
    assert property_kind(10**30) == "number"
    assert property_kind([[1.0], [1.0, 2.0]]) == "text"
    assert property_kind([1.0, None]) == "array1"
    assert property_kind([]) == "array1"
    assert property_kind(["a", "b"]) == "text"
    assert property_kind(np.zeros((1, 1, 1, 1, 1)).tolist()) == "text"
    assert property_kind({"a": 1}) == "text"
    columns = property_columns([{"x": [1.0, None]}, {"x": "\udcff"}, {"x": math.nan}])
    assert columns["x"].to_pylist() == ["[1.0, null]", "\\udcff", None]
    assert as_numbers(pa.array([True, None])).tolist()[0] == 1.0
