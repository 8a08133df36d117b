"""Templates as people write them: Wyckoff letters with the elements and free coordinates that are given."""

from __future__ import annotations

import math
import re
from collections.abc import Container
from dataclasses import dataclass

import numpy as np

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.space_group import SpaceGroup, space_group
from nucleate.errors import ConditionError
from nucleate.generation.checks import shortest_distances
from nucleate.generation.formula import parse_element
from nucleate.physics.elements import element_symbol
from nucleate.shapes import Float

OTHERS = "..."
"""At the end of a template: other orbits may come."""

LEAST_DISTANCE = 0.01
"""Å: atoms of given orbits that are nearer are in one place."""

_ORBIT = re.compile(
    r"(?:(?P<element>[A-Z][a-z]?):)?(?P<multiplicity>\d+)?(?P<letter>[a-zA-Z])(?:\((?P<coords>[^()]*)\))?"
)
_BETWEEN = re.compile(r"[\s,]+(?![^()]*\))")
"""What separates orbits: spaces and commas outside brackets."""

_EXAMPLE_VOLUME = 20.0
"""Å^3 per atom of the cell in which given coordinates are looked at where none is given."""


@dataclass(frozen=True)
class GivenOrbit:
    """An orbit that must be there.

    Attributes:
        position: its Wyckoff index.
        element: its atomic number, None where open.
        free_coords: as many numbers as its position leaves free, None where they are open.
    """

    position: int
    element: int | None = None
    free_coords: tuple[float, ...] | None = None


@dataclass(frozen=True)
class GivenTemplate:
    """Orbits that must be there, and whether there are no others."""

    orbits: tuple[GivenOrbit, ...] = ()
    complete: bool = False

    @property
    def is_open(self) -> bool:
        """Whether other orbits may come or elements are open."""
        return not self.complete or any(orbit.element is None for orbit in self.orbits)

    @property
    def has_coords(self) -> bool:
        """Whether free coordinates are given."""
        return any(orbit.free_coords for orbit in self.orbits)

    @property
    def knows_coords(self) -> bool:
        """Whether there are orbits, and the coordinates of them all are given or fixed."""
        return bool(self.orbits) and all(orbit.free_coords is not None for orbit in self.orbits)


def parse_template(text: str, number: int) -> GivenTemplate:
    """What is given by ``a b c``, ``Sr:1a Ti:1b O:3c``, ``Ti:2a O:4f(0.305)`` or ``Ti:2a ...``.

    Raises:
        ConditionError: not a template, or not one of this space group.
    """
    words = [word for word in _BETWEEN.split(text.strip()) if word]
    complete = words[-1:] != [OTHERS]
    given = words if complete else words[:-1]
    if not given:
        raise ConditionError(
            f"The template {text!r} names no orbit; write Wyckoff letters such as a, 4a or Na:4a."
        )
    return GivenTemplate(tuple(_parse_orbit(word, space_group(number)) for word in given), complete)


def _parse_orbit(word: str, group: SpaceGroup) -> GivenOrbit:
    match = _ORBIT.fullmatch(word)
    if match is None:
        raise ConditionError(
            f"{word!r} is no orbit; write a Wyckoff letter such as a, 4a, Na:4a or, with coordinates, O:4f(0.305)."
        )
    letter, named = match["letter"], f"space group {group.number} ({group.symbol})"
    if letter not in group.letters:
        raise ConditionError(
            f"S{named.removeprefix('s')} has Wyckoff letters {group.letters[0]} to {group.letters[-1]}, got {letter!r}."
        )
    index = group.letters.index(letter)
    position = group.wyckoff_positions[index]
    if match["multiplicity"] is not None and int(match["multiplicity"]) != position.multiplicity:
        raise ConditionError(f"Position {letter} of {named} is {position.label}, got {word!r}.")
    coords: tuple[float, ...] | None = None if position.num_free else ()
    if match["coords"] is not None:
        coords = _parse_coords(match["coords"], word)
        if len(coords) != position.num_free:
            plural = "" if position.num_free == 1 else "s"
            raise ConditionError(
                f"Position {position.label} of {named} has {position.num_free} free coordinate{plural}, got {word!r}."
            )
    element = match["element"]
    return GivenOrbit(index, None if element is None else parse_element(element), coords)


def _parse_coords(text: str, word: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(",")) if text.strip() else ()
    except ValueError:
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)):
        raise ConditionError(f"The free coordinates of {word!r} are no numbers; write such as O:4f(0.305).")
    return numbers


def template_text(
    crystal: Crystal, *, open_elements: Container[int] = (), coords: bool = True, complete: bool = True
) -> str:
    """The template of a crystal in the notation of ``parse_template``, coordinates to the last digit.

    Args:
        crystal: whose orbits are given.
        open_elements: atomic numbers that are left out.
        coords: whether free coordinates are given.
        complete: whether there are no other orbits.
    """
    words = []
    for z, position, free in zip(
        crystal.atomic_numbers.tolist(), crystal.positions, crystal.free_coords.tolist()
    ):
        element = "" if z in open_elements else f"{element_symbol(z)}:"
        numbers = ",".join(map(repr, free[: position.num_free]))
        words.append(f"{element}{position.label}" + (f"({numbers})" if coords and numbers else ""))
    return " ".join(words if complete else [*words, OTHERS])


def check_places(template: GivenTemplate, number: int, cell: Float[np.ndarray, "3 3"] | None) -> None:
    """Nothing, if the given coordinates are those of orbits of their positions, no two of them in one place.

    Args:
        template: what is given.
        number: its space group.
        cell: conventional cell, if it is given; otherwise distances are those in the reference cell of the group.

    Raises:
        ConditionError: coordinates so special that they belong to another position, or two atoms in one place.
    """
    group, known = space_group(number), [orbit for orbit in template.orbits if orbit.free_coords is not None]
    if not any(orbit.free_coords for orbit in known):
        return
    num_atoms = sum(group.wyckoff_positions[orbit.position].multiplicity for orbit in known)
    if cell is None:
        cell = group.lattice_subspace.reference * (_EXAMPLE_VOLUME * num_atoms) ** (1 / 3)
    written = []
    for orbit in known:
        position, free = group.wyckoff_positions[orbit.position], np.array(orbit.free_coords)
        point = position.coords(free)
        first = next(p for p in group.wyckoff_positions if p.distance(point, lattice=cell) < LEAST_DISTANCE)
        written.append(
            position.label + (f"({', '.join(f'{u:g}' for u in free)})" if position.num_free else "")
        )
        if first.label != position.label:
            raise ConditionError(
                f"The coordinates given in {written[-1]} of space group {number} ({group.symbol}) are those of the "
                f"more special position {first.label}."
            )
    crystal = Crystal(
        number,
        group.lattice_subspace.fit(cell, num_atoms=num_atoms).params,
        np.array([orbit.position for orbit in known]),
        np.array([orbit.element or 1 for orbit in known]),
        np.array([[*(orbit.free_coords or ()), 0.0, 0.0, 0.0][:3] for orbit in known]),
    )
    nearest, _ = shortest_distances(crystal)
    if nearest < LEAST_DISTANCE:
        raise ConditionError(
            f"Two of the given orbits are in one place: {', '.join(written)} of space group {number}."
        )
