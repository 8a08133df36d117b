"""What is asked of a template, stated once and checked for contradictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nucleate.crystal.space_group import space_group
from nucleate.crystal.tables import NUM_GROUPS, group_names
from nucleate.errors import ConditionError
from nucleate.physics.elements import NUM_ELEMENTS, element_symbol
from nucleate.processes.feasibility import position_classes
from nucleate.processes.neutral_compositions import is_neutral

MAX_ATOMS = 64
"""Atoms per primitive cell at most, where nothing else is asked."""

CRYSTAL_SYSTEMS = ("triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal", "hexagonal", "cubic")


@dataclass(frozen=True)
class OrbitSlot:
    """An orbit that must be there: its Wyckoff index, its element, or both; None where open."""

    position: int | None = None
    element: int | None = None


@dataclass(frozen=True)
class TemplateConstraint:
    """What is asked of a template; hashable, made by ``template_constraint``. Atoms are per primitive cell.

    Attributes:
        space_groups: the groups it may have.
        counts: atoms of each element, by ascending atomic number, or None where elements are open.
        required: elements with at least one orbit each.
        allowed: elements that may occur, ``required`` among them.
        min_atoms: fewest atoms.
        max_atoms: most atoms.
        neutral: whether the composition must be charge neutral as ``is_neutral`` says.
        slots: orbits that must be there; the first orbits of every template, in this order.
        complete: whether there are no orbits but those of the slots.
        cell_atoms: (fewest, most) atoms of the conventional cell, None where only those of the primitive one count.
    """

    space_groups: frozenset[int]
    counts: tuple[tuple[int, int], ...] | None
    required: frozenset[int]
    allowed: frozenset[int]
    min_atoms: int
    max_atoms: int
    neutral: bool = False
    slots: tuple[OrbitSlot, ...] = ()
    complete: bool = False
    cell_atoms: tuple[int, int] | None = None

    def atom_bounds(self, number: int) -> tuple[int, int]:
        """(fewest, most) atoms per primitive cell in a group; no number fits where the first is the larger one."""
        if self.cell_atoms is None:
            return self.min_atoms, self.max_atoms
        (low, high), centrings = self.cell_atoms, space_group(number).num_centrings
        return max(self.min_atoms, -(-low // centrings)), min(self.max_atoms, high // centrings)


def template_constraint(
    *,
    space_groups: Iterable[int] | None = None,
    crystal_system: str | None = None,
    composition: Mapping[int, int] | None = None,
    required: Iterable[int] = (),
    allowed: Iterable[int] | None = None,
    excluded: Iterable[int] = (),
    min_atoms: int = 1,
    max_atoms: int = MAX_ATOMS,
    neutral: bool = False,
    orbits: Iterable[tuple[int | None, int | None]] = (),
    complete: bool = False,
    cell_atoms: tuple[int, int] | None = None,
) -> TemplateConstraint:
    """The constraint, checked; a contradiction that needs no search is refused here.

    Args:
        space_groups: numbers allowed; all by default.
        crystal_system: one of ``CRYSTAL_SYSTEMS``; only its groups.
        composition: atoms per primitive cell by atomic number: the whole composition.
        required: elements that must occur.
        allowed: elements that may occur, all by default; with ``required`` equal to it, a chemical system.
        excluded: elements that may not.
        min_atoms: fewest atoms per primitive cell.
        max_atoms: most atoms per primitive cell.
        neutral: ask for charge neutrality.
        orbits: (Wyckoff index, atomic number) of orbits that must be there, None where open. Indices need exactly
            one space group.
        complete: no orbits but those given.
        cell_atoms: fewest and most atoms per conventional cell; groups in which no number fits are impossible.

    Raises:
        ConditionError: the parts contradict each other.
    """
    groups = allowed_groups(space_groups, crystal_system)
    counts = None if composition is None else tuple(sorted((z, n) for z, n in composition.items()))
    wanted = frozenset(required) | frozenset(z for z, _ in counts or ())
    slots = tuple(OrbitSlot(position, element) for position, element in orbits)
    wanted |= frozenset(slot.element for slot in slots if slot.element is not None)
    possible = frozenset(range(1, NUM_ELEMENTS + 1)) if allowed is None else frozenset(allowed)
    possible = (possible | (wanted if allowed is None else frozenset())) - frozenset(excluded)
    _check_elements(wanted, possible, counts, frozenset(required) | wanted)
    if counts is not None:
        possible, total = wanted, sum(n for _, n in counts)
        # The default bound is there to end open templates; a composition ends by itself.
        most = total if max_atoms == MAX_ATOMS else max_atoms
        if not min_atoms <= total <= most:
            raise ConditionError(
                f"The composition has {total} atoms per primitive cell, asked are {min_atoms} to {max_atoms}."
            )
        min_atoms = max_atoms = total
        if neutral and not is_neutral(counts):
            formula = "".join(f"{element_symbol(z)}{n}" for z, n in counts)
            raise ConditionError(
                f"{formula} has no charge-neutral assignment of oxidation states; drop neutrality."
            )
    if not 1 <= min_atoms <= max_atoms:
        raise ConditionError(f"The range of atoms per primitive cell, {min_atoms} to {max_atoms}, is empty.")
    _check_slots(slots, groups, complete=complete)
    return TemplateConstraint(
        groups, counts, wanted, possible, min_atoms, max_atoms, neutral, slots, complete, cell_atoms
    )


def allowed_groups(space_groups: Iterable[int] | None, crystal_system: str | None) -> frozenset[int]:
    """Those of the space groups (all where None) that are of the crystal system (any where None); at least one.

    Raises:
        ConditionError: there is no such group or system, or no group is of it.
    """
    groups = frozenset(range(1, NUM_GROUPS + 1)) if space_groups is None else frozenset(space_groups)
    if bad := sorted(g for g in groups if not 1 <= g <= NUM_GROUPS):
        raise ConditionError(f"Space group numbers run from 1 to {NUM_GROUPS}, got {bad[0]}.")
    if crystal_system is not None:
        if crystal_system not in CRYSTAL_SYSTEMS:
            known = ", ".join(CRYSTAL_SYSTEMS)
            raise ConditionError(f"There is no crystal system {crystal_system!r}; they are {known}.")
        groups = frozenset(g for g in groups if group_names()[g - 1]["crystal_system"] == crystal_system)
    if not groups:
        raise ConditionError(
            f"None of the space groups asked for is {crystal_system}; ask for others or drop one."
        )
    return groups


def _check_elements(
    wanted: frozenset[int],
    possible: frozenset[int],
    counts: tuple[tuple[int, int], ...] | None,
    required: frozenset[int],
) -> None:
    if bad := sorted(z for z in wanted | possible if not 1 <= z <= NUM_ELEMENTS):
        raise ConditionError(f"Atomic numbers run from 1 to {NUM_ELEMENTS}, got {bad[0]}.")
    if missing := sorted(wanted - possible):
        names = ", ".join(element_symbol(z) for z in missing)
        raise ConditionError(
            f"{names} is asked for and at the same time excluded or not among the allowed elements."
        )
    if not possible:
        raise ConditionError("Every element is excluded.")
    if counts is not None:
        if not counts or any(n < 1 for _, n in counts):
            raise ConditionError("A composition needs at least one element, each with at least one atom.")
        if extra := sorted(required - {z for z, _ in counts}):
            names = ", ".join(element_symbol(z) for z in extra)
            raise ConditionError(f"{names} is required but not part of the composition.")


def _check_slots(slots: tuple[OrbitSlot, ...], groups: frozenset[int], *, complete: bool) -> None:
    if complete and not slots:
        raise ConditionError("A complete template has at least one orbit, got none.")
    placed = [slot.position for slot in slots if slot.position is not None]
    if not placed:
        return
    if len(groups) != 1:
        raise ConditionError(
            f"Wyckoff positions are given, so exactly one space group is needed, got {len(groups)}."
        )
    (number,) = groups
    group, classes = space_group(number), position_classes(number)
    for index, times in Counter(placed).items():
        if not 0 <= index < len(group.letters):
            raise ConditionError(
                f"Space group {number} has Wyckoff positions 0 to {len(group.letters) - 1}, got {index}."
            )
        if times > 1 and classes.num_free[index] == 0:
            raise ConditionError(
                f"Position {group.wyckoff_positions[index].label} of space group {number} has no free coordinate and "
                f"holds one orbit, got {times}."
            )
