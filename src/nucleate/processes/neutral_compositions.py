"""Which compositions count as charge neutral, and which elements may come into a partial template to make it so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import islice

from nucleate.physics.elements import is_metal, oxidation_state_probabilities, oxidation_states

_CANDIDATES = 8
"""Elements of one oxidation state that are told apart."""

CountItems = tuple[tuple[int, int], ...]
"""(atomic number, atoms), ascending."""


@cache
def element_states(element: int) -> tuple[int, ...]:
    """Oxidation states an element may have; 0 for those that form no ions."""
    return oxidation_states(element, "all") or (0,)


@cache
def likely_states(element: int) -> tuple[int, ...]:
    """``element_states``, the most frequent one first."""
    known = oxidation_state_probabilities(element)
    return tuple(sorted(element_states(element), key=lambda state: -known.get(state, 0.0)))


@cache
def metallic(element: int) -> bool:
    """Whether an element is a metal; ``is_metal``, remembered."""
    return is_metal(element)


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
    return len(counts) == 1 or all(metallic(z) for z, _ in counts) or 0 in reachable_charges(counts)


@dataclass(frozen=True)
class FreshElements:
    """Elements that may come, in as few terms as counting and charges need.

    Attributes:
        states: of each term, the oxidation states of which it takes one.
        elements: of each term, the elements of which it is one.
    """

    states: tuple[tuple[int, ...], ...]
    elements: tuple[tuple[int, ...], ...]

    def named(self, amounts: Sequence[int]) -> dict[int, int] | None:
        """Distinct elements with these amounts, or None where there are too few."""
        wanted = [(choices, n) for choices, n in zip(self.elements, amounts) if n]
        chosen = _distinct([choices for choices, _ in wanted])
        return None if chosen is None else {z: n for z, (_, n) in zip(chosen, wanted)}


class ElementPool:
    """Elements that may come.

    Args:
        elements: atomic numbers.
    """

    def __init__(self, elements: Iterable[int]) -> None:
        self._elements = tuple(elements)
        by_state: dict[int, list[int]] = defaultdict(list)
        for z in self._elements:
            for state in element_states(z):
                by_state[state].append(z)
        self._by_state = dict(sorted(by_state.items(), key=lambda item: (-abs(item[0]), item[0])))
        self._known: dict[frozenset[int], FreshElements] = {}

    def without(self, present: frozenset[int]) -> FreshElements:
        """Those that are not present.

        Where every oxidation state can be had at once, each by another element, a term is a state: two elements of the
        same state have the charges and counts of one. (Each state has a second term, for templates that are generic
        only with more elements.) Otherwise a term is an element, where of those with the same states as many are kept
        as can differ in theirs, or two.
        """
        if present not in self._known:
            self._known[present] = self._terms(present)
        return self._known[present]

    def _terms(self, present: frozenset[int]) -> FreshElements:
        by_state = {
            state: tuple(islice((z for z in elements if z not in present), _CANDIDATES))
            for state, elements in self._by_state.items()
        }
        by_state = {state: elements for state, elements in by_state.items() if elements}
        if _distinct(list(by_state.values())) is not None:
            terms = [(state, z) for state, z in by_state.items() if len(z) > 1] + list(by_state.items())
            return FreshElements(tuple((state,) for state, _ in terms), tuple(z for _, z in terms))
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for z in self._elements:
            if z not in present:
                alike[element_states(z)].append(z)
        kept = [z for states, same in alike.items() for z in same[: max(len(states), 2)]]
        return FreshElements(tuple(likely_states(z) for z in kept), tuple((z,) for z in kept))


def _distinct(choices: Sequence[Collection[int]]) -> list[int] | None:
    """A different one of each of the choices, or None: a matching by augmenting paths."""
    taken_by: dict[int, int] = {}
    if not all(_place(which, choices, taken_by, set()) for which in range(len(choices))):
        return None
    chosen = {which: z for z, which in taken_by.items()}
    return [chosen[which] for which in range(len(choices))]


def _place(which: int, choices: Sequence[Collection[int]], taken_by: dict[int, int], seen: set[int]) -> bool:
    """Whether one of the choices gets an element, where others that have it may move on to another one."""
    for z in choices[which]:
        if z not in seen:
            seen.add(z)
            if z not in taken_by or _place(taken_by[z], choices, taken_by, seen):
                taken_by[z] = which
                return True
    return False
