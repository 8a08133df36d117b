"""What may come next in a growing template, so that it can always be finished as asked: no dead ends.

A choice is possible if a completion exists: a set of further orbits after which the template has the atoms, elements
and slots asked for and is generic (has exactly its group). Existence is decided exactly by counting wherever counting
suffices, and by an exhaustive search up to a bound otherwise (``template_search``). At the bound a choice counts as
impossible, except the one on a completion already found, so that the end stays in reach even then.

With ``neutral`` and the composition open, whether oxidation states can balance is decided exactly as well, by tables of
the charges and numbers of atoms in reach (``neutral_reach``). Bounded is the search for a completion that is generic
too, where no part of the template is generic yet: of the compositions that are neutral and that the positions can hold,
the ``MAX_COMPOSITIONS`` smallest are tried.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from nucleate.crystal.tables import NUM_GROUPS
from nucleate.physics.elements import NUM_ELEMENTS
from nucleate.processes.feasibility import Counts, position_classes, unused_fixed
from nucleate.processes.generic_symmetry import symmetric_position_sets
from nucleate.processes.neutral_compositions import (
    ElementPool,
    element_states,
    is_neutral,
    likely_states,
    metallic,
)
from nucleate.processes.neutral_reach import PartialTemplate, Placed, compositions, in_reach
from nucleate.processes.slot_counting import slots_countable
from nucleate.processes.template_constraints import OrbitSlot, TemplateConstraint
from nucleate.processes.template_search import (
    MAX_NODES,
    Positions,
    counted_completion,
    counted_feasible,
    open_completion,
    open_feasible,
    pattern_is_generic,
    position_order,
    usable_positions,
)
from nucleate.shapes import Bool

Orbit = tuple[int, int]
"""(Wyckoff index, atomic number)."""

Orbits = tuple[Orbit, ...]

MAX_COMPOSITIONS = 100
"""Neutral compositions of which a generic completion is looked for, most; the positions can hold each of them."""


@dataclass(frozen=True, eq=False)
class NextOrbit:
    """What may come next.

    Attributes:
        end: whether the template may end here.
        positions: by Wyckoff index, whether an orbit may come on it.
    """

    end: bool
    positions: Bool[np.ndarray, "positions"]


class Lookahead:
    """Possible next choices under one constraint, remembered.

    Args:
        constraint: what is asked.
    """

    def __init__(self, constraint: TemplateConstraint) -> None:
        self.constraint = constraint
        self._feasible: dict[tuple[int, int, Orbits], bool] = {}
        self._next: dict[tuple[int, int, Orbits], NextOrbit] = {}
        self._elements: dict[tuple[int, int, Orbits, int], np.ndarray] = {}
        self._groups: np.ndarray | None = None
        self._classes_of: tuple[int, Orbits] | None = None
        self._classes: list[tuple[int, list[int]]] = []
        self._ascending = sorted(constraint.allowed)
        self._columns = np.array(self._ascending) - 1
        told_apart = constraint.required or constraint.slots or constraint.neutral
        self._anonymous = constraint.counts is None and not told_apart
        self._others = ElementPool(sorted(constraint.allowed - constraint.required))
        self._metals = [z for z in self._ascending if metallic(z)] if constraint.neutral else []

    # ---- questions -------------------------------------------------------------------------------------------

    def groups(self) -> Bool[np.ndarray, "groups"]:
        """By space group number - 1, whether some template of it is as asked."""
        if self._groups is None:
            self._groups = np.array(
                [g in self.constraint.space_groups and self.feasible(g, ()) for g in range(1, NUM_GROUPS + 1)]
            )
        return self._groups

    def next_orbit(self, number: int, orbits: Orbits) -> NextOrbit:
        """Whether the template may end, and the positions its next orbit may take."""
        orbits, _ = self._renamed(orbits)
        key = (number, len(orbits), tuple(sorted(orbits)))
        if key not in self._next:
            positions = np.array(
                [
                    any(
                        self.feasible(number, (*orbits, (p, z)))
                        for z in self._representatives(number, orbits, p)
                    )
                    for p in range(len(position_classes(number).num_free))
                ]
            )
            self._next[key] = NextOrbit(self.may_end(number, orbits), positions)
        return self._next[key]

    def elements(self, number: int, orbits: Orbits, position: int) -> Bool[np.ndarray, "elements"]:
        """By atomic number - 1, whether the next orbit on this position may be of that element."""
        orbits, names = self._renamed(orbits)
        key = (number, len(orbits), tuple(sorted(orbits)), position)
        if key not in self._elements:
            allowed = np.zeros(NUM_ELEMENTS, dtype=bool)
            for z, alike in self._element_classes(number, orbits, position):
                allowed[np.array(alike) - 1] = self.feasible(number, (*orbits, (position, z)))
            self._elements[key] = allowed
        allowed = self._elements[key]
        if not names:
            return allowed
        own = np.zeros(NUM_ELEMENTS, dtype=bool)
        fresh = self._ascending[len(names) :]
        own[self._columns] = bool(fresh) and allowed[fresh[0] - 1]
        for z, name in names.items():
            own[z - 1] = allowed[name - 1]
        return own

    def _renamed(self, orbits: Orbits) -> tuple[Orbits, dict[int, int]]:
        """The orbits with the first allowed elements, in the order of their positions, and which stands for which.

        What is remembered of a template then serves all that differ from it in their elements. As they are where the
        constraint tells elements apart.
        """
        if not self._anonymous:
            return orbits, {}
        by_element = _by_element(orbits)
        order = sorted(by_element, key=lambda z: (by_element[z], z))
        names = dict(zip(order, self._ascending))
        return tuple(sorted((p, names[z]) for p, z in orbits)), names

    def may_end(self, number: int, orbits: Orbits) -> bool:
        """Whether the template is as asked without another orbit."""
        c = self.constraint
        if len(orbits) < len(c.slots) or not orbits:
            return False
        placed = _placed(number, orbits)
        if c.counts is not None and placed != dict(c.counts):
            return False
        low, high = c.atom_bounds(number)
        if not low <= sum(placed.values()) <= high or not c.required <= placed.keys() <= c.allowed:
            return False
        if c.neutral and not is_neutral(tuple(sorted(placed.items()))):
            return False
        return pattern_is_generic(number, tuple(_by_element(orbits).values()))

    def feasible(self, number: int, orbits: Orbits) -> bool:
        """Whether the template can be finished as asked."""
        key = (number, len(orbits), tuple(sorted(orbits)))
        if key not in self._feasible:
            self._feasible[key] = self._decide(number, orbits)
        return self._feasible[key]

    def completion(self, number: int, orbits: Orbits) -> Orbits | None:
        """Orbits that finish the template as asked (those of the slots first), or None."""
        c = self.constraint
        if not self._valid(number, orbits):
            return None
        if len(orbits) < len(c.slots):
            return self._slot_completion(number, orbits, [MAX_NODES])
        if c.complete:
            return () if self.may_end(number, orbits) else None
        if c.counts is not None:
            return self._counted(number, orbits, dict(c.counts))
        return self._neutral(number, orbits) if c.neutral else self._open(number, orbits)

    # ---- decisions -------------------------------------------------------------------------------------------

    def _decide(self, number: int, orbits: Orbits) -> bool:
        c = self.constraint
        if not self._valid(number, orbits):
            return False
        if len(orbits) < len(c.slots) or c.complete:
            return self.completion(number, orbits) is not None
        if c.counts is not None:
            remaining, elements, _ = self._needs(number, orbits, dict(c.counts))
            return counted_feasible(number, remaining, elements)
        if c.neutral:
            return self._neutral_feasible(number, orbits)
        _, elements, missing, fresh, low, high = self._open_problem(number, orbits)
        return open_feasible(number, elements, len(missing), len(fresh), low, high)

    def _valid(self, number: int, orbits: Orbits) -> bool:
        """Whether nothing is wrong already: a used-up position, a forbidden element, too many atoms."""
        c = self.constraint
        if number not in c.space_groups:
            return False
        num_free = position_classes(number).num_free
        fixed = [p for p, _ in orbits if num_free[p] == 0]
        fixed += [
            s.position for s in c.slots[len(orbits) :] if s.position is not None and num_free[s.position] == 0
        ]
        if len(set(fixed)) != len(fixed):
            return False
        placed, (low, high) = _placed(number, orbits), c.atom_bounds(number)
        if low > high or sum(placed.values()) > high or not placed.keys() <= c.allowed:
            return False
        if c.counts is not None:
            wanted = dict(c.counts)
            return all(n <= wanted[z] for z, n in placed.items())
        return True

    def _needs(
        self, number: int, orbits: Orbits, wanted: dict[int, int]
    ) -> tuple[Counts, tuple[Positions, ...], list[int]]:
        """Atoms still needed and positions taken of each element, and the elements, in canonical order."""
        placed, by_element = _placed(number, orbits), _by_element(orbits)
        rows = sorted((wanted[z] - placed.get(z, 0), by_element.get(z, ()), z) for z in wanted)
        return tuple(r[0] for r in rows), tuple(r[1] for r in rows), [r[2] for r in rows]

    def _counted(self, number: int, orbits: Orbits, wanted: dict[int, int]) -> Orbits | None:
        remaining, elements, order = self._needs(number, orbits, wanted)
        return _labelled(counted_completion(number, remaining, elements), order)

    def _open_problem(
        self, number: int, orbits: Orbits, *, fresh: Iterable[int] | None = None
    ) -> tuple[list[int], tuple[Positions, ...], list[int], list[int], int, int]:
        """What ``open_completion`` asks; by default every allowed element may come."""
        c = self.constraint
        rows = sorted((positions, z) for z, positions in _by_element(orbits).items())
        present = {z for _, z in rows}
        missing = sorted(c.required - present)
        possible = self._ascending if fresh is None else fresh
        others = (z for z in possible if z not in present and z not in c.required)
        first = list(itertools.islice(others, 2))
        total, (low, high) = sum(_placed(number, orbits).values()), c.atom_bounds(number)
        order, elements = [z for _, z in rows], tuple(positions for positions, _ in rows)
        return order, elements, missing, first, low - total, high - total

    def _open(self, number: int, orbits: Orbits, *, fresh: Iterable[int] | None = None) -> Orbits | None:
        order, elements, missing, first, low, high = self._open_problem(number, orbits, fresh=fresh)
        found = open_completion(number, elements, len(missing), len(first), low, high)
        return _labelled(found, [*order, *missing, *first])

    # ---- neutral, the composition open -----------------------------------------------------------------------

    def _neutral_feasible(self, number: int, orbits: Orbits) -> bool:
        """Whether ``_neutral`` finds a completion, mostly without looking for it."""
        if self.may_end(number, orbits):
            return True
        for fresh in self._free_of_charge(orbits):
            _, elements, missing, first, low, high = self._open_problem(number, orbits, fresh=fresh)
            if open_feasible(number, elements, len(missing), len(first), low, high):
                return True
        template = self._partial(number, orbits)
        if not in_reach(template):
            return False
        if self._generic_anyhow(template, orbits) is not None:
            return True
        steps = self._towards_generic(template, orbits)
        if steps is not None:
            return any(self.feasible(number, (*orbits, step)) for step in steps)
        for wanted in itertools.islice(self._compositions(template, orbits), MAX_COMPOSITIONS):
            remaining, elements, _ = self._needs(number, orbits, wanted)
            if counted_feasible(number, remaining, elements):
                return True
        return False

    def _neutral(self, number: int, orbits: Orbits) -> Orbits | None:
        if self.may_end(number, orbits):
            return ()
        for fresh in self._free_of_charge(orbits):
            found = self._open(number, orbits, fresh=fresh)
            if found is not None:
                return found
        template = self._partial(number, orbits)
        if not in_reach(template):
            return None
        generic = self._generic_anyhow(template, orbits)
        if generic is not None:
            return self._first_placed(self._compositions(generic, orbits), number, orbits)
        steps = self._towards_generic(template, orbits)
        if steps is not None:
            for step in steps:
                if self.feasible(number, (*orbits, step)):
                    rest = self.completion(number, (*orbits, step))
                    return None if rest is None else (step, *rest)
            return None
        tried = itertools.islice(self._compositions(template, orbits), MAX_COMPOSITIONS)
        return self._first_placed(tried, number, orbits)

    def _first_placed(self, wanted: Iterable[dict[int, int]], number: int, orbits: Orbits) -> Orbits | None:
        """The first generic completion to one of the compositions."""
        completions = (self._counted(number, orbits, counts) for counts in wanted)
        return next((found for found in completions if found is not None), None)

    def _free_of_charge(self, orbits: Orbits) -> Iterator[list[int]]:
        """Which elements may come where the template counts as neutral without oxidation states, once for each reason.

        It has one element, or metals only.
        """
        c = self.constraint
        known = {z for _, z in orbits} | c.required
        if len(known) <= 1:
            yield [] if known else self._ascending[:1]
        if all(map(metallic, known)):
            yield self._metals

    def _partial(self, number: int, orbits: Orbits) -> PartialTemplate:
        """The template as ions; elements ascending."""
        c, placed = self.constraint, _placed(number, orbits)
        total, (low, high) = sum(placed.values()), c.atom_bounds(number)
        return PartialTemplate(
            number,
            unused_fixed(number, (p for p, _ in orbits)),
            tuple(Placed(placed[z], likely_states(z)) for z in sorted(placed)),
            tuple(likely_states(z) for z in sorted(c.required - placed.keys())),
            self._others.without(frozenset(placed)).states,
            low - total,
            high - total,
            high,
        )

    def _compositions(self, template: PartialTemplate, orbits: Orbits) -> Iterator[dict[int, int]]:
        """Atoms of each element: the neutral compositions that positions can hold, fewest atoms first."""
        placed = _placed(template.number, orbits)
        named = [*sorted(placed), *sorted(self.constraint.required - placed.keys())]
        fresh = self._others.without(frozenset(placed))
        for amounts in compositions(template):
            new = fresh.named(amounts[len(named) :])
            if new is not None:
                yield {z: placed[z] + n for z, n in zip(named, amounts)} | new

    def _generic_anyhow(self, template: PartialTemplate, orbits: Orbits) -> PartialTemplate | None:
        """The template with some elements that get no more orbits, if it can end so and they are generic together.

        Then every completion is generic. An element that is generic by itself is enough; otherwise all are tried.
        """
        patterns = [positions for _, positions in sorted(_by_element(orbits).items())]
        enough: list[tuple[int, ...]] = [
            (i,) for i, one in enumerate(patterns) if pattern_is_generic(template.number, (one,))
        ]
        if not enough and pattern_is_generic(template.number, tuple(patterns)):
            enough = [tuple(range(len(patterns)))]
        return next((t for t in map(template.frozen, enough) if in_reach(t)), None)

    def _towards_generic(self, template: PartialTemplate, orbits: Orbits) -> Iterator[Orbit] | None:
        """Orbits one of which must come for the template to become generic, or None where none in particular must.

        They leave a set of positions on which every crystal has one and the same extra symmetry.
        """
        number, taken = template.number, {p for p, _ in orbits}
        multiplicities = position_classes(number).multiplicities
        usable = usable_positions(number, tuple(_by_element(orbits).values()))
        usable = [p for p in usable if multiplicities[p] <= template.high]
        outside = [[p for p in usable if p not in s] for s in symmetric_position_sets(number) if taken <= s]
        if not outside:
            return None
        fewest = min(outside, key=len)
        return ((p, z) for p in fewest for z in self._representatives(number, orbits, p))

    def _slot_completion(self, number: int, orbits: Orbits, budget: list[int]) -> Orbits | None:
        """Fill the next slot in every way that counting allows, then the rest."""
        c = self.constraint
        if len(orbits) >= len(c.slots):
            rest = self.completion(number, orbits)
            return None if rest is None else rest
        budget[0] -= 1
        if budget[0] < 0 or not self._slots_countable(number, orbits):
            return None
        slot = c.slots[len(orbits)]
        for p in [slot.position] if slot.position is not None else position_order(number):
            for z in self._representatives(number, orbits, p):
                child = (*orbits, (p, z))
                if self._valid(number, child):
                    rest = self._slot_completion(number, child, budget)
                    if rest is not None:
                        return ((p, z), *rest)
        return None

    def _slots_countable(self, number: int, orbits: Orbits) -> bool:
        c, placed = self.constraint, _placed(number, orbits)
        total, (low, high) = sum(placed.values()), c.atom_bounds(number)
        pending = c.slots[len(orbits) :]
        used = [p for p, _ in orbits] + [s.position for s in pending if s.position is not None]
        return slots_countable(
            number,
            tuple(_slot_class(number, slot) for slot in pending),
            None if c.counts is None else tuple((z, n - placed.get(z, 0)) for z, n in c.counts),
            frozenset(c.required - placed.keys()),
            unused_fixed(number, used),
            low - total,
            high - total,
            c.complete,
        )

    # ---- elements that are alike -----------------------------------------------------------------------------

    def _representatives(self, number: int, orbits: Orbits, position: int) -> list[int]:
        return [z for z, _ in self._element_classes(number, orbits, position)]

    def _element_classes(self, number: int, orbits: Orbits, position: int) -> list[tuple[int, list[int]]]:
        """Elements the slots allow, grouped into those that make no difference: (representative, all of them)."""
        c = self.constraint
        pending = len(orbits) < len(c.slots)
        if pending:
            slot = c.slots[len(orbits)]
            if slot.position is not None and slot.position != position:
                return []
            if slot.element is not None:
                return [(slot.element, [slot.element])]
        elif c.complete:
            return []
        if (number, orbits) != self._classes_of:
            self._classes_of, self._classes = (number, orbits), self._alike(number, orbits)
        return self._classes

    def _alike(self, number: int, orbits: Orbits) -> list[tuple[int, list[int]]]:
        c = self.constraint
        by_element, placed = _by_element(orbits), _placed(number, orbits)
        named = {s.element for s in c.slots[len(orbits) :] if s.element is not None}
        wanted = dict(c.counts or ())
        classes: dict[object, list[int]] = defaultdict(list)
        apart = {*by_element, *c.required, *named}
        plain = c.counts is None and not c.neutral  # where all elements that are not set apart are alike
        if plain and (others := [z for z in self._ascending if z not in apart]):
            classes[()] = others
        for z in sorted(apart & c.allowed) if plain else self._ascending:
            if z in named:
                classes[z].append(z)
            elif c.counts is not None:
                classes[wanted[z] - placed.get(z, 0), by_element.get(z, ())].append(z)
            else:
                charges = (element_states(z), metallic(z)) if c.neutral else ()
                classes[by_element.get(z, ()), z in c.required, charges].append(z)
        return [(members[0], members) for members in classes.values()]


def _placed(number: int, orbits: Orbits) -> Counter[int]:
    """Atoms of each element."""
    multiplicities, placed = position_classes(number).multiplicities, Counter[int]()
    for position, element in orbits:
        placed[element] += multiplicities[position]
    return placed


def _by_element(orbits: Orbits) -> dict[int, Positions]:
    """Positions of each element, ascending."""
    grouped: dict[int, list[int]] = defaultdict(list)
    for position, element in sorted(orbits):
        grouped[element].append(position)
    return {z: tuple(positions) for z, positions in grouped.items()}


def _labelled(found: tuple[Positions, ...] | None, elements: list[int]) -> Orbits | None:
    """The added positions with their elements."""
    if found is None:
        return None
    return tuple((p, z) for positions, z in zip(found, elements) for p in positions)


def _slot_class(number: int, slot: OrbitSlot) -> tuple[int | None, int | None]:
    multiplicities = position_classes(number).multiplicities
    return (None if slot.position is None else multiplicities[slot.position], slot.element)
