"""Charge-neutral compositions within reach of a partial one."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache

from nucleate.physics.elements import is_metal, oxidation_states

MAX_TRIED = 5_000
"""Final compositions looked at, most."""

MAX_MORE = 2
"""Elements beyond the required ones that a final composition may have more atoms of."""

CountItems = tuple[tuple[int, int], ...]
"""(atomic number, atoms), ascending."""


@cache
def element_states(element: int) -> tuple[int, ...]:
    """Oxidation states an element may have; 0 for those that form no ions."""
    return oxidation_states(element, "all") or (0,)


@lru_cache(maxsize=200_000)
def reachable_charges(counts: CountItems) -> frozenset[int]:
    """Total charges with one oxidation state per element."""
    charges = {0}
    for element, atoms in counts:
        charges = {charge + atoms * state for charge in charges for state in element_states(element)}
    return frozenset(charges)


def is_neutral(counts: CountItems) -> bool:
    """Whether a composition can be charge neutral: one element, metals only, or one state per element summing to 0.

    Args:
        counts: (atomic number, atoms), ascending. Any known non-zero oxidation state may be used.
    """
    return len(counts) == 1 or all(is_metal(z) for z, _ in counts) or 0 in reachable_charges(counts)


class FreshElements:
    """Elements that may be added to a composition, by oxidation state.

    Args:
        allowed: atomic numbers.
    """

    def __init__(self, allowed: Sequence[int]) -> None:
        self.metals = [z for z in allowed if is_metal(z)]
        self.all = list(allowed)
        self.by_state: dict[int, list[int]] = defaultdict(list)
        self._known: dict[tuple[int, ...], dict[int, list[tuple[int, ...]]]] = {}
        for z in allowed:
            for state in element_states(z):
                self.by_state[state].append(z)

    def neutralising(self, counts: CountItems, amounts: tuple[int, ...]) -> tuple[int, ...] | None:
        """Distinct elements, none in ``counts``, of which these amounts make the composition neutral, or None."""
        present = {z for z, _ in counts}
        if len(counts) + len(amounts) == 1:
            return next(((z,) for z in self.all if z not in present), None)
        if all(is_metal(z) for z in present):
            metals = [z for z in self.metals if z not in present][: len(amounts)]
            if len(metals) == len(amounts):
                return tuple(metals)
        by_charge = self._states_by_charge(amounts)
        for charge in reachable_charges(counts):
            for states in by_charge.get(-charge, ()):
                chosen = self._distinct(states, present)
                if chosen is not None:
                    return chosen
        return None

    def _states_by_charge(self, amounts: tuple[int, ...]) -> dict[int, list[tuple[int, ...]]]:
        """Oxidation states of the fresh elements, by the charge that these amounts of them have."""
        if amounts not in self._known:
            found: dict[int, list[tuple[int, ...]]] = defaultdict(list)
            for states in itertools.product(self.by_state, repeat=len(amounts)):
                found[sum(n * state for n, state in zip(amounts, states))].append(states)
            self._known[amounts] = found
        return self._known[amounts]

    def _distinct(self, states: tuple[int, ...], present: set[int]) -> tuple[int, ...] | None:
        if not states:
            return ()
        for z in self.by_state[states[0]]:
            if z not in present:
                rest = self._distinct(states[1:], present | {z})
                if rest is not None:
                    return (z, *rest)
        return None


def neutral_compositions(
    placed: CountItems, missing: Sequence[int], fresh: FreshElements, *, low: int, high: int, amounts: int
) -> Iterator[CountItems]:
    """Neutral compositions with ``low`` to ``high`` more atoms, fewest first, at most one for each set of amounts.

    Each missing element gets some atoms, and at most ``MAX_MORE`` other elements, present or fresh, get some more.
    Elements that are fresh are chosen to balance the charge; which of several does not matter to any count of atoms.

    Args:
        placed: atoms that are there.
        missing: elements that must come.
        fresh: elements that may come.
        low: fewest atoms to add.
        high: most atoms to add.
        amounts: as bits, the numbers of atoms that one element can get.
    """
    possible = [n for n in range(1, high + 1) if amounts >> n & 1]
    for tried, (grown, new, more) in enumerate(
        _amounts([z for z, _ in placed], missing, low, high, possible)
    ):
        if tried >= MAX_TRIED:
            return
        counts = dict(placed)
        for z, n in zip(grown, more):
            counts[z] = counts.get(z, 0) + n
        known, of_fresh = tuple(sorted(counts.items())), more[len(grown) :]
        if new:
            chosen = fresh.neutralising(known, of_fresh)
        else:
            chosen = () if is_neutral(known) else None
        if chosen is not None:
            yield tuple(sorted([*known, *zip(chosen, of_fresh)]))


def _amounts(
    placed: Sequence[int], missing: Sequence[int], low: int, high: int, possible: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], int, tuple[int, ...]]]:
    """(elements that get more, number of fresh ones, amounts of all these)."""
    for more in range(MAX_MORE + 1):
        for total in range(max(low, len(missing) + more, 1), high + 1):
            for new in range(more, -1, -1):
                for present in itertools.combinations(placed, more - new):
                    grown = (*missing, *present)
                    for amounts in _sums(total, len(grown) + new, possible):
                        yield grown, new, amounts


def _sums(total: int, parts: int, possible: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Every way to write a total as an ordered sum of so many possible parts."""
    if parts == 0:
        if total == 0:
            yield ()
        return
    for first in possible:
        if first > total:
            return
        for rest in _sums(total - first, parts - 1, possible):
            yield (first, *rest)
