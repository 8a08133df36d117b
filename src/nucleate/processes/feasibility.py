"""Exact look-ahead by counting: whether a partial template can still reach the asked numbers of atoms.

Two facts make it exact and cheap: a position without free coordinates holds one orbit, any other any number, so that
only (multiplicity, free or not) of a position matters; and elements differ only in how many atoms they still need.
All multiplicities and counts are per primitive cell.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

from nucleate.crystal.space_group import space_group
from nucleate.crystal.tables import group_arrays

Counts = tuple[int, ...]


@dataclass(frozen=True)
class PositionClasses:
    """The Wyckoff positions of a group as far as counting atoms goes; multiplicities per primitive cell.

    Attributes:
        fixed_multiplicities: distinct multiplicities of positions without free coordinates, each usable once.
        fixed_counts: how many such positions have each of them.
        free_multiplicities: distinct multiplicities of positions with free coordinates, usable any number of times.
        multiplicities: multiplicity of each position, letter a first.
        num_free: free coordinates of each position.
    """

    fixed_multiplicities: Counts
    fixed_counts: Counts
    free_multiplicities: Counts
    multiplicities: Counts
    num_free: Counts


@cache
def position_classes(number: int) -> PositionClasses:
    """The classes of a group's positions."""
    tables, group = group_arrays(), space_group(number)
    ids = np.arange(len(group.letters)) + group.position_start
    multiplicity, free = tables["num_images"][ids], tables["num_free"][ids]
    fixed, counts = np.unique(multiplicity[free == 0], return_counts=True)
    return PositionClasses(
        tuple(int(m) for m in fixed),
        tuple(int(n) for n in counts),
        tuple(int(m) for m in np.unique(multiplicity[free > 0])),
        tuple(multiplicity.tolist()),
        tuple(free.tolist()),
    )


@lru_cache(maxsize=100_000)
def _sums_of(multiplicities: Counts, total: int) -> bool:
    """Whether ``total`` is a sum of the multiplicities, each any number of times."""
    reachable = [True] + [False] * total
    for value in range(1, total + 1):
        reachable[value] = any(value >= m and reachable[value - m] for m in multiplicities)
    return reachable[total]


@lru_cache(maxsize=500_000)
def can_complete(number: int, remaining: Counts, unused_fixed: Counts) -> bool:
    """Whether atoms of several elements can be placed exactly.

    Args:
        number: space group.
        remaining: atoms still to place of each element, per primitive cell, sorted (the order does not matter).
        unused_fixed: unused positions without free coordinates, by the group's ``fixed_multiplicities``.

    The search gives the first element some of the unused fixed positions, checks that the rest of it is a sum of free
    multiplicities, and goes on with the other elements; memoised over (remaining, unused).
    """
    if not remaining:
        return True
    classes = position_classes(number)
    first, rest = remaining[0], remaining[1:]
    for left in _placements(classes.fixed_multiplicities, unused_fixed, first):
        placed = sum(m * (a - b) for m, a, b in zip(classes.fixed_multiplicities, unused_fixed, left))
        if _sums_of(classes.free_multiplicities, first - placed) and can_complete(number, rest, left):
            return True
    return False


@lru_cache(maxsize=200_000)
def _placements(multiplicities: Counts, available: Counts, total: int) -> tuple[Counts, ...]:
    """What can be left of the available fixed positions after one element took at most ``total`` atoms on them."""
    if not multiplicities:
        return ((),)
    out = []
    for taken in range(min(available[0], total // multiplicities[0]) + 1):
        for tail in _placements(multiplicities[1:], available[1:], total - taken * multiplicities[0]):
            out.append((available[0] - taken, *tail))
    return tuple(out)


@lru_cache(maxsize=200_000)
def reachable_totals(number: int, unused_fixed: Counts, min_orbits: int, max_atoms: int) -> int:
    """Numbers of atoms that at least ``min_orbits`` further orbits can have, as bits 0 to ``max_atoms``.

    Args:
        number: space group.
        unused_fixed: as for ``can_complete``.
        min_orbits: orbits that have to come, one for each element that is required and missing.
        max_atoms: most atoms.
    """
    classes = position_classes(number)
    full = (1 << (max_atoms + 1)) - 1
    # by_orbits[k]: totals with exactly k orbits, the last row with at least min_orbits
    by_orbits = [1, *[0] * min_orbits]
    for multiplicity, count in zip(classes.fixed_multiplicities, unused_fixed):
        for _ in range(min(count, max_atoms // multiplicity)):
            by_orbits = _one_more(by_orbits, multiplicity, full)
    for multiplicity in classes.free_multiplicities:
        while (more := _one_more(by_orbits, multiplicity, full)) != by_orbits:
            by_orbits = more
    return by_orbits[min_orbits]


def _one_more(by_orbits: list[int], multiplicity: int, full: int) -> list[int]:
    """The totals with or without one more orbit; the last row absorbs any number of orbits."""
    last = len(by_orbits) - 1
    more = list(by_orbits)
    for orbits, totals in enumerate(by_orbits):
        more[min(orbits + 1, last)] |= (totals << multiplicity) & full
    return more


def unused_fixed(number: int, used: Iterable[int]) -> Counts:
    """How many positions without free coordinates are left of each multiplicity, by ``fixed_multiplicities``.

    Args:
        number: space group.
        used: Wyckoff indices that are taken; those with free coordinates do not count.
    """
    classes = position_classes(number)
    left = list(classes.fixed_counts)
    for index in set(used):
        multiplicity, free = classes.multiplicities[index], classes.num_free[index]
        if free == 0:
            left[classes.fixed_multiplicities.index(multiplicity)] -= 1
    return tuple(left)


def remaining_key(remaining: Iterable[int]) -> Counts:
    """Counts of the elements still to place, sorted, zeros left out."""
    return tuple(sorted(n for n in remaining if n))
