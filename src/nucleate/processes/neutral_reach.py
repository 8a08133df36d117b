"""Charges and numbers of atoms within reach of further orbits: whether a partial template can end charge neutral.

Every element has one oxidation state ``s``; an orbit of ``m`` atoms of it adds ``(m s, m)`` to (charge, atoms). A
position without free coordinates holds one orbit, any other any number, so that only the multiplicities of the unused
positions matter. For each set of unused positions a table holds every (charge, atoms) that orbits on them can have. It
is built up by one element after the other, and exact: what is not in it cannot come about, for what is in it there are
positions.

A table is one integer, bit ``(charge + zero) * width + atoms``, since adding an orbit then is a shift.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice, product
from math import prod
from typing import NamedTuple

import numpy as np

from nucleate.physics.elements import NUM_ELEMENTS, oxidation_states
from nucleate.processes.feasibility import Counts, position_classes

MAX_TABLE_BYTES = 2**27
"""Tables that are remembered, together."""

FIRST_ATOMS = 64
"""Atoms to add that are looked at before more of them; large tables take long."""

FIRST_LOOKS = 16
"""Oxidation states of the elements of a template that are looked at one by one before all of them together."""

States = tuple[int, ...]

Growth = tuple[bool, States]
"""Whether an element must come (or may), and the oxidation states it may have."""


class Placed(NamedTuple):
    """An element of a partial template.

    Attributes:
        atoms: how many it has.
        states: oxidation states it may have, likely ones first; one and the same for all its atoms.
        grows: whether it can get more orbits.
    """

    atoms: int
    states: States
    grows: bool = True


@dataclass(frozen=True)
class PartialTemplate:
    """A template that is to get orbits, as far as charges and counts go; atoms are per primitive cell.

    Attributes:
        number: space group.
        unused: unused positions without free coordinates, by the group's ``fixed_multiplicities``.
        placed: the elements it has.
        missing: oxidation states of each element that must come.
        fresh: oxidation states of each other element that may come.
        low: fewest atoms to add.
        high: most atoms to add.
        most: most atoms of any template asked for, at least ``high``: templates with the same share their tables.
    """

    number: int
    unused: Counts
    placed: tuple[Placed, ...]
    missing: tuple[States, ...]
    fresh: tuple[States, ...]
    low: int
    high: int
    most: int

    def frozen(self, which: Collection[int]) -> PartialTemplate:
        """The same, where the elements of these indices get no more orbits."""
        placed = (p._replace(grows=False) if i in which else p for i, p in enumerate(self.placed))
        return replace(self, placed=tuple(placed))


def in_reach(template: PartialTemplate) -> bool:
    """Whether orbits can be added so that the oxidation states sum to 0; exact, but blind to symmetry."""
    t, low, coming = template, max(template.low, 0), _coming(template.missing, template.fresh)
    first = min(t.high, FIRST_ATOMS)
    room = _room(t.number, min(t.most, FIRST_ATOMS))
    if room.in_reach(t.placed, coming, room.relevant(t.unused), 0, low, first):
        return True
    if first == t.high:
        return False
    room = _room(t.number, t.most)
    return room.in_reach(t.placed, coming, room.relevant(t.unused), 0, max(low, first + 1), t.high)


def compositions(template: PartialTemplate) -> Iterator[Counts]:
    """Every way to add atoms that positions can hold and that makes the template neutral, fewest atoms first.

    Yields:
        The atoms that each of the elements ``placed``, ``missing`` and ``fresh`` gets; no composition twice.
    """
    t = template
    coming = [(True, states) for states in t.missing] + [(False, states) for states in t.fresh]
    for total in range(max(t.low, 0), t.high + 1):
        room = _room(t.number, min(t.most, FIRST_ATOMS) if total <= FIRST_ATOMS else t.most)
        start = {(room.relevant(t.unused), 0)}
        if _in_reach(room, t.placed, coming, start, total):
            yield from _amounts(room, t.placed, coming, start, total)


def _amounts(
    room: _Room,
    placed: tuple[Placed, ...],
    coming: list[Growth],
    before: set[tuple[Counts, int]],
    total: int,
) -> Iterator[Counts]:
    """Atoms of each element, ``total`` together.

    Args:
        room: of the group.
        placed: elements with atoms that have not got theirs yet.
        coming: other elements that have not.
        before: (unused positions, charge) that the others can have left.
        total: atoms to add.
    """
    if not placed and not coming:
        yield ()
        return
    if placed:
        (present, states, grows), must = placed[0], False
    else:
        present, grows, (must, states) = 0, True, coming[0]
    others = (placed[1:], coming) if placed else ((), coming[1:])
    for atoms in range(int(must), total + 1 if grows else 1):
        after = {
            (left, charge + state * (present + atoms))
            for unused, charge in before
            for left in room.left_after(unused, atoms)
            for state in states
        }
        after = _in_reach(room, *others, after, total - atoms)
        if after:
            for rest in _amounts(room, *others, after, total - atoms):
                yield (atoms, *rest)


def _in_reach(
    room: _Room, placed: tuple[Placed, ...], coming: list[Growth], states: set[tuple[Counts, int]], total: int
) -> set[tuple[Counts, int]]:
    """Those (unused positions, charge) from which the elements can get so many atoms and be neutral."""
    must = tuple(states for must, states in coming if must)
    come = _coming(must, tuple(states for must, states in coming if not must))
    return {
        (unused, charge)
        for unused, charge in states
        if room.in_reach(placed, come, unused, charge, total, total)
    }


class _Coming(NamedTuple):
    """Elements without atoms.

    Attributes:
        growths: what must or may come of each.
        always: the states in which orbits may come whatever the other elements' states.
    """

    growths: tuple[Growth, ...]
    always: frozenset[int]


@lru_cache(maxsize=10_000)
def _coming(missing: tuple[States, ...], fresh: tuple[States, ...]) -> _Coming:
    # Two that may come in one and the same state do no more than one.
    single = sorted({(False, states) for states in fresh if len(states) == 1})
    others = sorted([(True, states) for states in missing] + [(False, s) for s in fresh if len(s) > 1])
    return _Coming((*others, *single), frozenset(states[0] for _, states in single))


class _Tables:
    """Tables by key, the latest of them up to ``MAX_TABLE_BYTES``."""

    def __init__(self) -> None:
        self._known: OrderedDict[object, list[int]] = OrderedDict()
        self._bytes = 0

    def get(self, key: object) -> list[int] | None:
        table = self._known.get(key)
        if table is not None:
            self._known.move_to_end(key)
        return table

    def put(self, key: object, table: list[int]) -> None:
        self._known[key] = table
        self._bytes += _num_bytes(table)
        while self._bytes > MAX_TABLE_BYTES and len(self._known) > 1:
            self._bytes -= _num_bytes(self._known.popitem(last=False)[1])


_TABLES = _Tables()


def _num_bytes(table: list[int]) -> int:
    return sum(bits.bit_length() for bits in table) // 8


class _Room:
    """What orbits a group has room for.

    A fixed position of a multiplicity that orbits on positions with free coordinates can have together is of no
    account: those do as well.

    Args:
        number: space group.
        most: most atoms.
    """

    def __init__(self, number: int, most: int) -> None:
        self.number, self.most = number, most
        classes = position_classes(number)
        self.free = _generators(classes.free_multiplicities)
        self._kept = [
            k for k, m in enumerate(classes.fixed_multiplicities) if m <= most and not _is_sum(m, self.free)
        ]
        self.fixed = tuple(classes.fixed_multiplicities[k] for k in self._kept)
        ranges = [range(classes.fixed_counts[k] + 1) for k in self._kept]
        self._unused = list(product(*ranges))
        self._index = {unused: i for i, unused in enumerate(self._unused)}
        lowest, highest = _state_range()
        self._zero = -lowest * most
        self._rows = (highest - lowest) * most + 1
        self._row_bytes = most // 8 + 1
        self._width = 8 * self._row_bytes
        self._first_column = sum(1 << (row * self._width) for row in range(self._rows))

    def relevant(self, unused: Counts) -> Counts:
        """The unused fixed positions that are of account."""
        return tuple(unused[k] for k in self._kept)

    def left_after(self, unused: Counts, atoms: int) -> tuple[Counts, ...]:
        """What can be left of the unused positions after one element got so many atoms."""
        return _left_after(self.fixed, self.free, unused, atoms)

    def in_reach(
        self, placed: tuple[Placed, ...], coming: _Coming, unused: Counts, charge: int, low: int, high: int
    ) -> bool:
        """Whether elements can get ``low`` to ``high`` atoms such that their charge and this one sum to 0."""
        if low > high:
            return False
        where = (self._index[unused], low, high)
        for states in islice(product(*(p.states for p in placed)), FIRST_LOOKS):
            growing = {s for s, p in zip(states, placed) if p.grows} - coming.always
            lacks = self._zero - charge - sum(s * p.atoms for s, p in zip(states, placed))
            if lacks >= 0 and _charges(self, _growths(growing, coming), *where) >> lacks & 1:
                return True
        if prod(len(p.states) for p in placed) <= FIRST_LOOKS:
            return False
        every = {s for p in placed if p.grows for s in p.states} - coming.always
        most = _charges(self, _growths(every, coming), *where)
        zero, options = _charges_by_growth(placed, coming.always)
        lacking = ((growing, _shifted(bits, self._zero - zero - charge)) for growing, bits in options)
        return any(
            bits & most and bits & _charges(self, _growths(growing, coming), *where)
            for growing, bits in lacking
        )

    def charges(self, growths: tuple[Growth, ...], at: int, low: int, high: int) -> int:
        """Charges that orbits of ``low`` to ``high`` atoms can have together, as bits from -zero on.

        Args:
            growths: what the orbits may be of.
            at: index of the unused positions.
            low: fewest atoms.
            high: most atoms.
        """
        columns = ((1 << (high + 1)) - (1 << low)) * self._first_column
        bits = self._table(growths)[at] & columns
        rows = np.frombuffer(bits.to_bytes(self._rows * self._row_bytes, "little"), dtype=np.uint8)
        hit = rows.reshape(self._rows, self._row_bytes).any(axis=1)
        return int.from_bytes(np.packbits(hit, bitorder="little").tobytes(), "little")

    def _table(self, growths: tuple[Growth, ...]) -> list[int]:
        """Reachable (charge, atoms), by the index of the unused positions."""
        if not growths:
            return [1 << (self._zero * self._width)] * len(self._unused)
        key = (self.number, self.most, growths)
        table = _TABLES.get(key)
        if table is None:
            (must, states), before = growths[0], self._table(growths[1:])
            table = [0] * len(before)
            for state in states:
                grown = self._any_orbits(self._one_orbit(before, state) if must else before, state)
                table = [a | b for a, b in zip(table, grown)]
            _TABLES.put(key, table)
        return table

    def _one_orbit(self, before: list[int], state: int) -> list[int]:
        table = []
        for i, bits in enumerate(before):
            one = 0
            for m in self.free:
                one |= self._add(bits, m, state)
            for k, m in enumerate(self.fixed):
                if self._unused[i][k]:
                    one |= self._add(before[self._without(i, k)], m, state)
            table.append(one)
        return table

    def _any_orbits(self, before: list[int], state: int) -> list[int]:
        table = list(before)
        for k, m in enumerate(self.fixed):
            for i in range(len(table)):  # ascending in the unused positions
                if self._unused[i][k]:
                    table[i] |= self._add(table[self._without(i, k)], m, state)
        for m in self.free:
            atoms = m
            while atoms <= self.most:  # one orbit more or none, then two, then four
                table = [bits | self._add(bits, atoms, state) for bits in table]
                atoms *= 2
        return table

    def _without(self, i: int, k: int) -> int:
        unused = self._unused[i]
        return self._index[(*unused[:k], unused[k] - 1, *unused[k + 1 :])]

    def _add(self, bits: int, atoms: int, state: int) -> int:
        """The table with so many atoms more in each entry."""
        if atoms > self.most:
            return 0
        return _shifted(bits & _columns(self, atoms), atoms * (state * self._width + 1))


def _growths(growing: Iterable[int], coming: _Coming) -> tuple[Growth, ...]:
    """What the orbits may be of where elements with atoms may grow in these states."""
    return (*((False, (state,)) for state in sorted(growing)), *coming.growths)


@lru_cache(maxsize=512)
def _room(number: int, most: int) -> _Room:
    return _Room(number, most)


@lru_cache(maxsize=4_096)
def _columns(room: _Room, atoms: int) -> int:
    """Entries of a table that have room for so many atoms more."""
    return ((1 << (room.most + 1 - atoms)) - 1) * room._first_column


@lru_cache(maxsize=100_000)
def _charges(room: _Room, growths: tuple[Growth, ...], at: int, low: int, high: int) -> int:
    return room.charges(growths, at, low, high)


@lru_cache(maxsize=20_000)
def _charges_by_growth(
    placed: tuple[Placed, ...], always: frozenset[int]
) -> tuple[int, tuple[tuple[States, int], ...]]:
    """What the charge of the atoms that are there lacks to 0, by the states in which further ones may come.

    Args:
        placed: elements with atoms.
        always: states in which orbits may come anyway; not listed again.

    Returns:
        Which bit is charge 0, and for each set of states the charges as bits.
    """
    zero = sum(atoms * max(*states, 0) for atoms, states, _ in placed)
    found: dict[frozenset[int], int] = {frozenset(): 1 << zero}
    for atoms, states, grows in placed:
        before, found = found, {}
        for state in states:
            more = {state} if grows and state not in always else set()
            for growing, bits in before.items():
                key = growing | more
                found[key] = found.get(key, 0) | _shifted(bits, -state * atoms)
    return zero, tuple((tuple(sorted(growing)), bits) for growing, bits in found.items())


@lru_cache(maxsize=100_000)
def _left_after(fixed: Counts, free: Counts, unused: Counts, atoms: int) -> tuple[Counts, ...]:
    if not fixed:
        return ((),) if _is_sum(atoms, free) else ()
    return tuple(
        (unused[0] - taken, *others)
        for taken in range(min(unused[0], atoms // fixed[0]) + 1)
        for others in _left_after(fixed[1:], free, unused[1:], atoms - taken * fixed[0])
    )


@lru_cache(maxsize=20_000)
def _is_sum(atoms: int, multiplicities: Counts) -> bool:
    """Whether a number is a sum of the multiplicities, each any number of times."""
    sums, within = 1, (1 << (atoms + 1)) - 1
    for m in multiplicities:
        step = m
        while step <= atoms:  # one more or none, then two, then four
            sums |= sums << step & within
            step *= 2
    return bool(sums >> atoms & 1)


def _generators(multiplicities: Counts) -> Counts:
    """The multiplicities that are no sums of smaller ones."""
    kept: Counts = ()
    for m in sorted(multiplicities):
        if not _is_sum(m, kept):
            kept = (*kept, m)
    return kept


@lru_cache(maxsize=1)
def _state_range() -> tuple[int, int]:
    """The lowest and the highest oxidation state of any element."""
    states = [s for z in range(1, NUM_ELEMENTS + 1) for s in oxidation_states(z, "all")]
    return min(states), max(states)


def _shifted(bits: int, by: int) -> int:
    return bits << by if by >= 0 else bits >> -by
