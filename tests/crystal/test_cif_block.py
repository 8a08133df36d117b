"""Data blocks of CIF text: where a broken one is broken."""

from __future__ import annotations

import pytest

from nucleate.crystal.cif_block import read_blocks
from nucleate.errors import ParseError


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("data_x\n_a 1\n_b 'x\n", "line 3, column 6: unterminated"),
        ("data_x\n_a 1\n_a 2\n", "line 3 in data_x: duplicate tag _a"),
        ("hello world", "line 1, column 1: expected block header"),
    ],
)
def test_a_broken_grammar_is_placed_in_words(text: str, place: str) -> None:
    with pytest.raises(ParseError, match=f"short.cif is not a valid CIF, {place}"):
        read_blocks(text, name="short.cif")
