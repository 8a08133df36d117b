"""Coordinate triplets: strict reading, exact writing, and the group they must form."""

from __future__ import annotations

import gemmi
import moyopy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleate.crystal.operation import format_operation, operations_from_triplets, parse_operation
from nucleate.errors import NucleateError, ParseError


def triplets(number: int) -> tuple[str, ...]:
    found = moyopy.operations_from_number(number, setting=moyopy.Setting.standard())
    return tuple(
        format_operation(np.array(w), np.array(t)) for w, t in zip(found.rotations, found.translations)
    )


@pytest.mark.parametrize("number", [1, 15, 70, 146, 167, 194, 220, 228, 230])
def test_triplets_agree_with_gemmi_both_ways(number: int) -> None:
    for text in triplets(number):
        ours, theirs = parse_operation(text), gemmi.Op(text)
        assert np.array_equal(ours.rotation, np.array(theirs.rot) // theirs.DEN)
        assert np.allclose(ours.translation, np.array(theirs.tran) / theirs.DEN)
        assert (
            gemmi.Op(format_operation(np.array(ours.rotation), np.array(ours.translation))) == theirs.wrap()
        )


@pytest.mark.parametrize(
    ("text", "translation"),
    [
        ("x,y,z+0.3333", 1 / 3),
        ("x,y,z+.667", 2 / 3),
        ("x,y,z+0.666", 2 / 3),
        ("X, Y, 1/3 + Z", 1 / 3),
        ("x,y,z-1/6", -1 / 6),
        ("x,y,z+0.2", 0.2),
        ("x,y,0.50+z", 0.5),
        ("+x,+y,+z+5/8", 0.625),
    ],
)
def test_translations(text: str, translation: float) -> None:
    assert parse_operation(text).translation[2] == pytest.approx(translation, abs=1e-15)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x,y",
        "x,y,z,w",
        "x,y,z,2",
        "x,y,zz",
        "x,y,2z",
        "x,y,z+",
        "x,y,z++1/2",
        "x,y,z+1/0",
        "x,y,",
        "1/2x,y,z",
        "x,y,x",
        "__import__('os'),y,z",
        "x,y,z+1e5",
        "x y,z,z",
        "x,y,z+999",
        "a,b,c",
        "x,y,z" * 50,
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(ParseError, match="symmetry operation"):
        parse_operation(text)


@given(st.text(alphabet="xyzXYZ0123456789+-/., *", max_size=30))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        operation = parse_operation(text)
    except NucleateError:
        return
    assert abs(round(np.linalg.det(operation.rotation))) == 1


def test_group_with_an_operation_missing_or_damaged_is_refused() -> None:
    full = triplets(225)
    assert len(operations_from_triplets(full)) == 192
    assert len(operations_from_triplets(full + full)) == 192
    with pytest.raises(ParseError, match="191 symmetry operations are not a group"):
        operations_from_triplets(full[:-1])
    with pytest.raises(ParseError, match="not a group"):
        operations_from_triplets(("x,y,z", "-x,-y,z+0.34"))
    with pytest.raises(ParseError, match="not the identity"):
        operations_from_triplets(("-x,-y,-z",))
    with pytest.raises(ParseError, match="at most"):
        operations_from_triplets(tuple(f"x+{k}/2000,y,z" for k in range(2000)))
