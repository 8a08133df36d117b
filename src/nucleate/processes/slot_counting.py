"""Exact look-ahead by counting for templates some of whose orbits are given in part."""

from __future__ import annotations

from functools import lru_cache

from nucleate.processes.feasibility import (
    Counts,
    can_complete,
    position_classes,
    reachable_totals,
    remaining_key,
)

SlotClass = tuple[int | None, int | None]
"""(multiplicity of the given position, or None; atomic number, or None)."""


@lru_cache(maxsize=200_000)
def slots_countable(
    number: int,
    slots: tuple[SlotClass, ...],
    remaining: tuple[tuple[int, int], ...] | None,
    missing: frozenset[int],
    unused: Counts,
    low: int,
    high: int,
    complete: bool,
) -> bool:
    """Whether the slots, and further orbits unless ``complete``, can be filled with the atoms asked for.

    Args:
        number: space group.
        slots: what is given of each orbit.
        remaining: (atomic number, atoms still to place) where the composition is given.
        missing: required elements that do not occur yet, where it is open.
        unused: positions without free coordinates that neither an orbit nor a slot takes, by multiplicity class.
        low: fewest atoms to add.
        high: most atoms to add.
        complete: whether no orbits but those of the slots may come.
    """
    if high < 0:
        return False
    if not slots:
        if remaining is not None:
            needs = remaining_key(n for _, n in remaining)
            return not needs if complete else can_complete(number, needs, unused)
        if complete:
            return low <= 0 and not missing
        return bool(reachable_totals(number, unused, len(missing), high) >> max(low, 0))
    (given, element), rest = slots[0], slots[1:]
    classes = position_classes(number)
    options: list[tuple[int, Counts]] = []
    if given is not None:
        options.append((given, unused))
    else:
        options += [(m, unused) for m in classes.free_multiplicities]
        for i, (m, left) in enumerate(zip(classes.fixed_multiplicities, unused)):
            if left:
                options.append((m, (*unused[:i], left - 1, *unused[i + 1 :])))
    for size, unused_then in options:
        for remaining_then, missing_then in _fill(element, size, remaining, missing, rest):
            if slots_countable(
                number, rest, remaining_then, missing_then, unused_then, low - size, high - size, complete
            ):
                return True
    return False


def _fill(
    element: int | None,
    size: int,
    remaining: tuple[tuple[int, int], ...] | None,
    missing: frozenset[int],
    rest: tuple[SlotClass, ...],
) -> list[tuple[tuple[tuple[int, int], ...] | None, frozenset[int]]]:
    """What is left to place after the slot, for each element it may have."""
    if remaining is not None:
        return [
            (tuple((y, n - size if y == z else n) for y, n in remaining), missing)
            for z, left in remaining
            if left >= size and element in (None, z)
        ]
    if element is not None:
        return [(None, missing - {element})]
    # Elements that a later slot names come anyway; the other missing ones are alike.
    unnamed = sorted(missing - {z for _, z in rest})
    return [(None, missing - set(unnamed[:1]))]
