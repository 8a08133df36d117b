"""Templates enumerated without any look-ahead: the oracle for what is possible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

from nucleate.crystal import space_group
from nucleate.processes.generic_symmetry import element_pattern, is_generic

Orbits = tuple[tuple[int, int], ...]


def multisets(number: int, elements: Sequence[int], max_atoms: int) -> Iterator[Orbits]:
    """Every multiset of orbits, sorted, that uses no fixed position twice and has at most so many atoms."""
    positions = space_group(number).wyckoff_positions
    choices = [
        (p.index, z) for p in positions if p.multiplicity_primitive <= max_atoms for z in sorted(elements)
    ]

    def grow(orbits: Orbits, first: int, atoms: int) -> Iterator[Orbits]:
        yield orbits
        for k in range(first, len(choices)):
            position = positions[choices[k][0]]
            if atoms + position.multiplicity_primitive > max_atoms:
                continue
            if position.num_free == 0 and position.index in [p for p, _ in orbits]:
                continue
            yield from grow((*orbits, choices[k]), k, atoms + position.multiplicity_primitive)

    yield from grow((), 0, 0)


def atoms_of(number: int, orbits: Orbits) -> dict[int, int]:
    """Atoms of each element per primitive cell."""
    counts: dict[int, int] = {}
    for p, z in orbits:
        counts[z] = counts.get(z, 0) + space_group(number).wyckoff_positions[p].multiplicity_primitive
    return counts


@cache
def generic(number: int, orbits: Orbits) -> bool:
    """Whether the template has exactly its group."""
    return is_generic(number, element_pattern(orbits))


def sub_multisets(orbits: Orbits) -> Iterator[Orbits]:
    """Every part of a template, sorted, with repeats."""
    for bits in range(1 << len(orbits)):
        yield tuple(o for k, o in enumerate(orbits) if bits >> k & 1)
