"""Foreign values made plain, and which column names the records."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleate.data.sources.foreign_values import (
    clean_properties,
    column_kind,
    find_id_column,
    is_missing,
    parse_cell,
    plain_value,
)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["", "cif", "jid", "material_id"], "material_id"),
        (["a", "jid", "my_id"], "jid"),
        (["a", "sample_id", "id"], "id"),
        (["a", "Sample_ID", "b"], "Sample_ID"),
        (["a", "band", "grid"], None),
        ([], None),
    ],
)
def test_id_column(columns, expected):
    assert find_id_column(columns) == expected


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "-2", ""], "integer"),
        (["1", "2.5", "nan"], "number"),
        (["1e5", "inf"], "number"),
        (["007", "008"], "text"),
        (["1_000"], "text"),
        (["True", "false", "None"], "flag"),
        (["[1, 2]", "[[1.0], [2]]"], "list"),
        (["[Si]"], "text"),
        (["1", "x"], "text"),
        (["0", "10"], "integer"),
        (["", "nan"], "number"),
        (["123456789012345678901"], "number"),
    ],
)
def test_kind_of_a_column(cells, kind):
    assert column_kind(cells) == kind


@given(st.one_of(st.integers(-(10**17), 10**17), st.floats(allow_nan=False), st.booleans()))
def test_written_values_come_back(value):
    text = str(value)
    kind = column_kind([text])
    assert parse_cell(text, kind) == value
    assert type(parse_cell(text, kind)) is type(value)


def test_a_cell_of_another_kind_is_refused():
    for cell, kind in [("x", "number"), ("1", "flag"), ("True", "integer"), ("{}", "list")]:
        with pytest.raises(ValueError, match="holds"):
            parse_cell(cell, kind)
    assert parse_cell("1.5", "integer") == 1.5
    assert parse_cell("na", "number") is None


@pytest.mark.parametrize(
    "value", [None, float("nan"), np.float32("nan"), "", " NA ", "null", [], [None, float("nan")]]
)
def test_missing(value):
    assert is_missing(value)
    assert clean_properties({"x": value}) == {}


def test_plain_values():
    assert plain_value(np.eye(2)) == [[1.0, 0.0], [0.0, 1.0]]
    assert plain_value(np.int64(3)) == 3
    assert type(plain_value(np.bool_(True))) is bool
    assert plain_value(("a", "b")) == ["a", "b"]
    assert plain_value([["Na", 1]]) == json.dumps([["Na", 1]])
    assert clean_properties({"a": {"b": {"c": 1}, "d": None}, "e": 0}) == {"a.b.c": 1, "e": 0}
