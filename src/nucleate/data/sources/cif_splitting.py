"""A CIF that breaks the grammar in one data block, cut into its blocks so that the others are read."""

from __future__ import annotations

import re

_HEADING = re.compile(r"^data_(\S*)", re.IGNORECASE | re.MULTILINE)
_TEXT_MARK = re.compile(r"^;", re.MULTILINE)


def split_cif(text: str) -> list[tuple[str, str]]:
    """(name, text) of each data block; a text with fewer than two headings is given back whole.

    A ``data_`` line inside a multi-line text field (between lines that begin with a semicolon) is no heading.
    """
    marks = [match.start() for match in _TEXT_MARK.finditer(text)]
    fields = list(zip(marks[::2], marks[1::2]))
    starts = [m for m in _HEADING.finditer(text) if not any(a < m.start() < b for a, b in fields)]
    if len(starts) < 2:
        return [(starts[0].group(1) if starts else "", text)]
    ends = [*(match.start() for match in starts[1:]), len(text)]
    return [(match.group(1), text[match.start() : end]) for match, end in zip(starts, ends)]
