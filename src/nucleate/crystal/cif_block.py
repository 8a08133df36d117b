"""One data block of a CIF as tags with values: what the readers of cell, symmetry and sites ask."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from nucleate.errors import ParseError

NULL_VALUES = ("?", ".")
"""Unknown and inapplicable."""

_GEMMI_PLACE = re.compile(
    r"(?:data|string):(?P<line>\d+)(?::(?P<column>\d+)\(\d+\)|(?P<block> in [^:]*))?:\s*"
)
"""How gemmi says where: ``data:5:7(28): ...`` (line, column, byte) or ``data:2 in data_x: ...``."""

_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?:\(\d*\))?", re.ASCII)


@dataclass(frozen=True, eq=False)
class CifTags:
    """Values of a data block by tag, whether written as pairs or loops, upper or lower case.

    Every look-up takes the spellings of one item, the first present counts: CIF 1.1 writes
    ``_cell_length_a``, the dictionaries since 2012 ``_cell.length_a``.

    Attributes:
        block: the gemmi block.
        where: what to call the block in an error.
    """

    block: Any
    where: str

    def column(self, *tags: str) -> list[str] | None:
        """Raw values of the first of these tags present in the block, None if none is."""
        for tag in tags:
            column = self.block.find_values(tag)
            if column:
                return list(column)
        return None

    def text(self, *tags: str) -> str | None:
        """Unquoted value of the first of these tags with a single one; None if absent, ``?`` or ``.``."""
        for tag in tags:
            column = self.block.find_values(tag)
            if len(column) == 1 and column[0] not in NULL_VALUES:
                return unquoted(column[0]).strip()
        return None

    def number(self, *tags: str) -> float:
        """Single number of the first of these tags present.

        Raises:
            ParseError: absent, unknown, or not a number.
        """
        column = self.column(*tags)
        if column is None:
            raise ParseError(f"{self.where} has no {tags[0]}")
        return parse_number(column[0], what=f"{self.where}: {tags[0]}")

    def sites_loop(self) -> dict[str, list[str]]:
        """Columns of the loop of atom sites by item (``label``, ``fract_x``, ...), empty if there is none."""
        for prefix in ("_atom_site_", "_atom_site."):
            column = self.block.find_loop(prefix + "fract_x")
            if column:
                loop = column.get_loop()
                tags, values = loop.tags, loop.values
                width = len(tags)
                cut = len(prefix)
                return {tag[cut:].lower(): values[i::width] for i, tag in enumerate(tags)}
            pair = self.block.find_pair(prefix + "fract_x")
            if pair is not None:  # one atom may be written without a loop
                found = {}
                for item in self.block:
                    if item.pair is not None and item.pair[0].lower().startswith(prefix):
                        found[item.pair[0][len(prefix) :].lower()] = [item.pair[1]]
                return found
        return {}


def unquoted(value: str) -> str:
    """Text of a raw CIF value: quotes and text-field marks taken off."""
    if value and value[0] in "'\";":
        from gemmi import cif  # noqa: PLC0415  foreign readers load late

        return str(cif.as_string(value))
    return value


def parse_number(value: str, *, what: str) -> float:
    """Number as CIF writes it, its uncertainty in brackets left away: ``0.1234(5)`` is 0.1234.

    Raises:
        ParseError: anything else, ``?``, ``.``, NaN and infinity included; ``what`` begins the message.
    """
    text = unquoted(value).strip()
    match = _NUMBER.fullmatch(text)
    number = float(match[1]) if match else float("inf")
    if abs(number) == float("inf"):
        raise ParseError(f"{what} is {text[:40]!r}, not a number")
    return number


def read_blocks(text: str, *, name: str) -> list[CifTags]:
    """Data blocks of a CIF in order.

    Raises:
        ParseError: the text breaks the grammar of CIF, or holds no data block; the message gives the line.
    """
    from gemmi import cif  # noqa: PLC0415  foreign readers load late

    try:
        document = cif.read_string(text.encode("utf-8", errors="replace"))
    except (ValueError, RuntimeError, IndexError) as error:
        raise ParseError(f"{name} is not a valid CIF, {_place_and_reason(str(error))}") from error
    if len(document) == 0:
        raise ParseError(f"{name} holds no CIF data block")
    if len(document) == 1:
        return [CifTags(document[0], name)]
    return [CifTags(block, f"{name}, data block {block.name.strip()!r}") for block in document]


def _place_and_reason(text: str) -> str:
    """gemmi's message with the place in words: ``line 5, column 7: unterminated 'string'``."""
    match = _GEMMI_PLACE.match(text)
    if match is None:
        return text
    place = f"line {match['line']}"
    if match["column"] is not None:
        place += f", column {int(match['column']) + 1}"
    return f"{place}{match['block'] or ''}: {text[match.end() :]}"
