"""Whether a template's generic realisation has exactly its space group, or necessarily a higher one.

A template (group G, orbits on Wyckoff positions, each with an element) is *generic* if its crystal with generic
lattice and free coordinates has no symmetry beyond G. Otherwise every crystal of the template has a higher group: a
single orbit on 1a of Pm-3m with another of the same element on 3c is face-centred cubic. Such a template describes no
crystal of group G.

The test is exact up to the choice of free coordinates, which are fractional parts of square roots of different primes:
linearly independent over the rationals, so no coincidence among them is accidental. An extra symmetry is an isometry
``x -> h x + t`` that maps each element's atoms to themselves. Its linear part h maps the lattice T to itself (a finer
lattice would be a symmetry with h = 1, which is looked for first), hence lies in the holohedry of the generic lattice;
modulo G only one h per coset of the point group needs to be tried, with every t that maps one atom to another of its
element.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache, lru_cache

import numpy as np

from nucleate.crystal.space_group import space_group
from nucleate.crystal.tables import group_arrays
from nucleate.shapes import Float, Int

Pattern = tuple[tuple[int, ...], ...]
"""Per element the sorted Wyckoff indices of its orbits, elements sorted: their names play no role."""

# Groups whose point group is the full symmetry of their lattices, by lattice system.
_HOLOHEDRY = {
    "triclinic": 2,
    "monoclinic": 10,
    "orthorhombic": 47,
    "tetragonal": 123,
    "rhombohedral": 166,
    "hexagonal": 191,
    "cubic": 221,
}
_TOLERANCE = 1e-6
_SAME_POSITION = 3


def element_pattern(orbits: Iterable[tuple[int, int]]) -> Pattern:
    """The pattern of orbits given as (Wyckoff index, atomic number), as far as symmetry depends on it.

    Of more than three orbits of one element on one position only three are kept. Generic orbits of one kind are
    permuted by a symmetry in a way that holds for all their coordinates; with three or more that is the identity
    permutation, and then each further orbit obeys the same condition as the first three.
    """
    by_element: dict[int, Counter[int]] = {}
    for index, element in orbits:
        by_element.setdefault(element, Counter())[index] += 1
    return tuple(
        sorted(
            tuple(index for index, count in sorted(counts.items()) for _ in range(min(count, _SAME_POSITION)))
            for counts in by_element.values()
        )
    )


def is_generic(space_group_number: int, pattern: Pattern) -> bool:
    """Whether the generic crystal of a pattern has exactly this space group; cached.

    Args:
        space_group_number: G.
        pattern: what ``element_pattern`` returns.
    """
    if not pattern:
        return False
    # The symmetry of a crystal lies in that of each of its elements' sublattices: one of them is often enough, and
    # single sublattices recur much more often than whole patterns.
    if any(_has_exactly(space_group_number, (one,)) for one in set(pattern)):
        return True
    return len(pattern) > 1 and _has_exactly(space_group_number, pattern)


@lru_cache(maxsize=500_000)
def _has_exactly(number: int, pattern: Pattern) -> bool:
    coords = _generic_coords(number, pattern)
    coords.sort(key=len)
    return not any(len(_translations(number, linear, coords)) for linear in _extra_linear_parts(number))


@cache
def _extra_linear_parts(number: int) -> Int[np.ndarray, "n 3 3"]:
    """The identity, then one element of the holohedry of each coset of the point group but the first."""
    group = space_group(number)
    holohedry = space_group(_HOLOHEDRY[group.lattice_system]).rotations
    own = group.rotations
    seen = {w.tobytes() for w in own}
    chosen = [np.eye(3, dtype=np.int64)]
    for h in holohedry:
        if h.tobytes() not in seen:
            chosen.append(h)
            seen |= {(w @ h).tobytes() for w in own}
    return np.stack(chosen)


@cache
def _square_roots(count: int) -> Float[np.ndarray, "count"]:
    """Fractional parts of the square roots of the first primes."""
    limit = max(30, int(count * (np.log(count + 3) + np.log(np.log(count + 3))) + 20))
    sieve = np.ones(limit, dtype=bool)
    sieve[:2] = False
    for i in range(2, int(limit**0.5) + 1):
        sieve[i * i :: i] &= ~sieve[i]
    roots = np.sqrt(np.flatnonzero(sieve)[:count])
    return roots % 1.0


def _generic_coords(number: int, pattern: Pattern) -> list[Float[np.ndarray, "_ 3"]]:
    """Atoms of each element in one primitive cell, in primitive fractional coordinates."""
    tables, group = group_arrays(), space_group(number)
    to_primitive = tables["to_primitive"][number - 1]
    roots = _square_roots(3 * sum(len(one) for one in pattern))
    first = tables["operation_start"][number - 1]
    atoms, used = [], 0
    for one in pattern:
        parts = []
        for index in one:
            p = group.position_start + index
            point = tables["basis"][p] @ roots[used : used + 3] + tables["origin"][p]
            used += 3
            images = first + tables["images"][tables["image_start"][p] : tables["image_start"][p + 1]]
            parts.append(tables["rotations"][images] @ point + tables["translations"][images])
        atoms.append(np.concatenate(parts) @ to_primitive.T)
    return atoms


def _translations(
    number: int, linear: Int[np.ndarray, "3 3"], coords: list[Float[np.ndarray, "_ 3"]]
) -> Float[np.ndarray, "n 3"]:
    """Translations that with this linear part map each element's atoms to themselves, primitive coordinates.

    With the identity as linear part lattice vectors are left out.
    """
    tables = group_arrays()
    to_primitive, primitive = tables["to_primitive"][number - 1], tables["primitive"][number - 1]
    primitive_linear = np.rint(to_primitive @ linear @ primitive)
    smallest = coords[0]
    translations = smallest - primitive_linear @ smallest[0]
    if (linear == np.eye(3)).all():
        translations = translations[1:]
    for atoms in coords:
        if not len(translations):
            break
        mapped = atoms @ primitive_linear.T
        # One atom first: most translations fail on it.
        for block in (mapped[-1:], mapped[:-1]):
            offset = translations[:, None, None] + block[:, None] - atoms
            offset -= np.rint(offset)
            hit = (np.abs(offset).max(axis=3) < _TOLERANCE).any(axis=2).all(axis=1)
            translations = translations[hit]
    return translations


@cache
def symmetric_position_sets(number: int) -> tuple[frozenset[int], ...]:
    """Maximal sets of Wyckoff positions on which every crystal has one and the same extra symmetry.

    An isometry outside the group, the same for all free coordinates, maps every orbit on a position of the set to
    itself; so a template is generic only if each set misses one of its positions. (Necessary, not sufficient: an extra
    symmetry may also exchange orbits, or move with a polar direction.)
    """
    group = space_group(number)
    holders: dict[tuple[int, ...], set[int]] = {}
    for index in range(len(group.letters)):
        # Three generic orbits of different elements on one position: what maps each to itself moves with none.
        coords = _generic_coords(number, ((index,),) * 3)
        for i, linear in enumerate(_extra_linear_parts(number)):
            for shift in _translations(number, linear, coords):
                grid = np.rint((shift - np.floor(shift + _TOLERANCE)) * 10_000).astype(int)
                holders.setdefault((i, *grid.tolist()), set()).add(index)
    sets = {frozenset(positions) for positions in holders.values()}
    return tuple(sorted((s for s in sets if not any(s < other for other in sets)), key=sorted))
