"""Formulas as people write them, to atoms of each element and back."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping

from nucleate.errors import ConditionError, InvalidStructureError
from nucleate.physics.elements import NUM_ELEMENTS, atomic_number, element_symbol

_TOKEN = re.compile(
    r"(?P<symbol>[A-Z][a-z]?)|(?P<open>[(\[])|(?P<close>[)\]])|(?P<count>\d+)|(?P<space>[\s·]+)"
)


def parse_element(symbol: str) -> int:
    """Atomic number of an element symbol.

    Raises:
        ConditionError: no such element, or one without data (beyond lawrencium).
    """
    try:
        z = atomic_number(symbol)
    except InvalidStructureError as error:
        raise ConditionError(str(error)) from error
    if z > NUM_ELEMENTS:
        raise ConditionError(f"{symbol} (element {z}) has no data; elements 1 to {NUM_ELEMENTS} have.")
    return z


def parse_elements(text: str) -> tuple[str, ...]:
    """Element symbols of a list such as ``Sr,Ti,O`` or ``Sr-Ti-O`` or ``Sr Ti O``, each once.

    Raises:
        ConditionError: not an element, or nothing at all.
    """
    symbols = [part for part in re.split(r"[\s,;-]+", text) if part]
    if not symbols:
        raise ConditionError(f"{text!r} names no element; write symbols such as Sr,Ti,O.")
    for symbol in symbols:
        parse_element(symbol)
    return tuple(dict.fromkeys(symbols))


def parse_formula(text: str) -> dict[int, int]:
    """Atoms of each element of the smallest formula unit, in the order they are written.

    Whole numbers and nested brackets are understood: ``SrTiO3``, ``Ca3(PO4)2``.

    Raises:
        ConditionError: not a formula, and where.
    """
    stack: list[Counter[int]] = [Counter()]
    last: Counter[int] | None = None
    place = 0
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None:
            raise ConditionError(
                f"{text!r} is not a formula of whole atoms (at {text[place:]!r}); write it like SrTiO3 or Ca3(PO4)2."
            )
        place = token.end()
        kind, value = token.lastgroup, token[0]
        if kind == "space":
            continue
        if kind == "count":
            if last is None or int(value) == 0:
                raise ConditionError(
                    f"The number {value} in {text!r} counts nothing; write it behind an element."
                )
            stack[-1].update({z: n * (int(value) - 1) for z, n in last.items()})
            last = None
        elif kind == "open":
            stack.append(Counter())
            last = None
        elif kind == "close":
            if len(stack) == 1:
                raise ConditionError(f"A bracket of {text!r} is closed that was not opened.")
            last = stack.pop()
            stack[-1].update(last)
        else:
            last = Counter({parse_element(value): 1})
            stack[-1].update(last)
    if len(stack) > 1:
        raise ConditionError(f"A bracket of {text!r} is not closed.")
    counts = +stack[0]
    if not counts:
        raise ConditionError(f"{text!r} holds no atoms; write a formula such as SrTiO3.")
    divisor = math.gcd(*counts.values())
    return {z: n // divisor for z, n in counts.items()}


def format_counts(counts: Mapping[int, int]) -> str:
    """``Sr2Ti2O6`` for atoms by atomic number, in the order given."""
    return "".join(f"{element_symbol(z)}{n if n > 1 else ''}" for z, n in counts.items())
