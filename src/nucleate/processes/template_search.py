"""Completions of a partial template that are generic: searched where counting alone cannot decide.

Elements are anonymous here: a partial template is a list of elements, each with the positions of its orbits and, where
the composition is given, the atoms it still needs. Every function returns the positions to add to each element, or
None. The searches are exhaustive up to ``MAX_NODES`` partial templates; a None beyond that is an assumption, which
can only leave out templates, never admit one: whoever follows a returned completion reaches its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

from nucleate.processes.feasibility import (
    can_complete,
    position_classes,
    reachable_totals,
    remaining_key,
    unused_fixed,
)
from nucleate.processes.generic_symmetry import element_pattern, is_generic, symmetric_position_sets

MAX_NODES = 3000

Positions = tuple[int, ...]


@dataclass
class SearchBudget:
    """What a search may still look at.

    Attributes:
        left: partial templates.
        exceeded: whether the search has asked for one more than there were, and so may have missed completions.
    """

    left: int
    exceeded: bool = False

    def spend(self) -> bool:
        """Whether there was one left, which is spent now."""
        if not self.left:
            self.exceeded = True
            return False
        self.left -= 1
        return True


@cache
def position_order(number: int) -> Positions:
    """Wyckoff indices, most free coordinates first: the order in which a generic completion is found soonest."""
    classes = position_classes(number)
    return tuple(
        sorted(
            range(len(classes.num_free)), key=lambda p: (-classes.num_free[p], classes.multiplicities[p], p)
        )
    )


def pattern_is_generic(number: int, elements: tuple[Positions, ...]) -> bool:
    """Whether a template is generic, given the positions of each element; elements without orbits are left out."""
    return is_generic(
        number, element_pattern((p, i) for i, positions in enumerate(elements) for p in positions)
    )


def usable_positions(number: int, elements: tuple[Positions, ...]) -> list[int]:
    """Positions in ``position_order`` that are not used up."""
    taken = {p for positions in elements for p in positions}
    free = position_classes(number).num_free
    return [p for p in position_order(number) if free[p] or p not in taken]


def _can_escape(number: int, elements: tuple[Positions, ...], room: int) -> bool:
    """Whether every set of positions that share an extra symmetry is or can be left by an orbit of ``room`` atoms."""
    taken = {p for positions in elements for p in positions}
    multiplicities = position_classes(number).multiplicities
    usable = [p for p in usable_positions(number, elements) if multiplicities[p] <= room]
    return all(not taken <= s or any(p not in s for p in usable) for s in symmetric_position_sets(number))


# ---- composition given ---------------------------------------------------------------------------------------


def counted_completions(
    number: int, remaining: Positions, elements: tuple[Positions, ...], budget: SearchBudget
) -> Iterator[tuple[Positions, ...]]:
    """Every generic completion that places exactly the remaining atoms, each once, unless the budget is exceeded.

    Args:
        number: space group.
        remaining: atoms each element still needs.
        elements: positions each element has.
        budget: spent by the search, which ends with it.
    """
    multiplicities, free = position_classes(number).multiplicities, position_classes(number).num_free
    order = position_order(number)
    by_need = sorted(range(len(remaining)), key=lambda e: -remaining[e])
    left, grown = list(remaining), [list(positions) for positions in elements]
    used = {p for positions in elements for p in positions if not free[p]}

    def grow(place: int, first: int) -> Iterator[tuple[Positions, ...]]:
        if not budget.spend():
            return
        while place < len(by_need) and left[by_need[place]] == 0:
            place, first = place + 1, 0
        current = tuple(tuple(positions) for positions in grown)
        if place == len(by_need):
            if pattern_is_generic(number, current):
                yield tuple(c[len(e) :] for c, e in zip(current, elements))
            return
        element = by_need[place]
        if not _can_escape(number, current, max(left[e] for e in by_need[place:])):
            return
        for rank in range(first, len(order)):
            p = order[rank]
            if multiplicities[p] > left[element] or p in used:
                continue
            left[element] -= multiplicities[p]
            if not free[p]:
                used.add(p)
            if can_complete(number, remaining_key(left), unused_fixed(number, used)):
                grown[element].append(p)
                yield from grow(place, rank)
                grown[element].pop()
            left[element] += multiplicities[p]
            used.discard(p)

    if can_complete(number, remaining_key(left), unused_fixed(number, used)):
        yield from grow(0, 0)


@lru_cache(maxsize=300_000)
def counted_completion(
    number: int, remaining: Positions, elements: tuple[Positions, ...]
) -> tuple[Positions, ...] | None:
    """The first generic completion that places exactly the remaining atoms, or None."""
    return next(counted_completions(number, remaining, elements, SearchBudget(MAX_NODES)), None)


@lru_cache(maxsize=500_000)
def counted_feasible(number: int, remaining: Positions, elements: tuple[Positions, ...]) -> bool:
    """Whether ``counted_completion`` exists; mostly decided without a search.

    Elements that need no more atoms and are generic together keep every completion generic.
    """
    used = (p for positions in elements for p in positions)
    if not can_complete(number, remaining_key(remaining), unused_fixed(number, used)):
        return False
    finished = tuple(positions for positions, n in zip(elements, remaining) if n == 0)
    if pattern_is_generic(number, finished):
        return True
    return counted_completion(number, remaining, elements) is not None


# ---- only the number of atoms and the elements that must occur given ------------------------------------------


def _total_in_reach(number: int, elements: tuple[Positions, ...], missing: int, low: int, high: int) -> bool:
    """Whether at least ``missing`` further orbits can have ``low`` to ``high`` atoms."""
    if high < 0:
        return False
    used = (p for positions in elements for p in positions)
    totals = reachable_totals(number, unused_fixed(number, used), missing, high)
    return bool(totals >> max(low, 0))


@cache
def _rescuers(number: int) -> Positions:
    """The smallest position with free coordinates on which one orbit makes any template generic, or nothing."""
    classes = position_classes(number)
    alone = [p for p in range(len(classes.num_free)) if classes.num_free[p] and is_generic(number, ((p,),))]
    return tuple(sorted(alone, key=lambda p: classes.multiplicities[p])[:1])


@lru_cache(maxsize=500_000)
def open_feasible(
    number: int, elements: tuple[Positions, ...], missing: int, fresh: int, low: int, high: int
) -> bool:
    """Whether ``open_completion`` exists; mostly decided without a search.

    If some elements are generic together, every completion by orbits of other elements is generic. A template can be
    brought there by one orbit of a fresh element on a suitable position.
    """
    if not _total_in_reach(number, elements, missing, low, high):
        return False
    if low <= 0 and not missing and pattern_is_generic(number, elements):
        return True
    if (missing or fresh) and pattern_is_generic(number, elements):
        return True
    if any(pattern_is_generic(number, elements[:i] + elements[i + 1 :]) for i in range(len(elements))):
        return True
    if fresh and (elements or missing or fresh > 1):
        for p in _rescuers(number):
            size = position_classes(number).multiplicities[p]
            if _total_in_reach(number, elements, missing, low - size, high - size):
                return True
    return open_completion(number, elements, missing, fresh, low, high) is not None


@lru_cache(maxsize=300_000)
def open_completion(
    number: int, elements: tuple[Positions, ...], missing: int, fresh: int, low: int, high: int
) -> tuple[Positions, ...] | None:
    """Positions to add so that the template is generic and has the atoms asked for, or None.

    Args:
        number: space group.
        elements: positions of each element that occurs.
        missing: required elements that do not occur yet.
        fresh: how many other elements, neither occurring nor required, may come; 2 stands for more.
        low: fewest atoms to add.
        high: most atoms to add.

    Returns:
        For each element that occurs, then each missing one, then each fresh one, the positions to add.
    """
    multiplicities = position_classes(number).multiplicities
    start = (*elements, *[()] * (missing + fresh))
    labels = len(elements)
    extra_order = [*range(labels + missing, len(start)), *range(labels, labels + missing), *range(labels)]
    seen: set[tuple[Positions, ...]] = set()

    def grow(
        current: tuple[Positions, ...], next_missing: int, low: int, high: int
    ) -> tuple[Positions, ...] | None:
        if current in seen or len(seen) > MAX_NODES:
            return None
        seen.add(current)
        to_come = missing - next_missing
        if low <= 0 and not to_come and pattern_is_generic(number, current):
            return tuple(c[len(s) :] for c, s in zip(current, start))
        if not _can_escape(number, current, high):
            return None
        for label in [labels + next_missing] if to_come else extra_order:
            for p in usable_positions(number, current):
                size = multiplicities[p]
                child = (*current[:label], (*current[label], p), *current[label + 1 :])
                if _total_in_reach(number, child, max(to_come - 1, 0), low - size, high - size):
                    found = grow(child, next_missing + bool(to_come), low - size, high - size)
                    if found is not None:
                        return found
        return None

    return grow(start, 0, low, high)
