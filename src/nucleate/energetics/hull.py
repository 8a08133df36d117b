"""Convex hulls of one potential's energies: energy above hull, formation energy, decomposition, what is missing."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import gcd
from typing import Any, Protocol, runtime_checkable

import numpy as np

from nucleate.crystal.species import element_symbol

System = frozenset[int]
"""A chemical system: the atomic numbers in it."""

CACHED_DIAGRAMS = 1024

MAX_DIAGRAM_ELEMENTS = 8
"""Most elements of a system whose whole diagram is built; its facets grow exponentially with their number."""

_NO_SHARE = 1e-9  # shares of a decomposition below this are rounding


@dataclass(frozen=True)
class ReferenceEntry:
    """One point of the energy landscape that a hull is made of.

    Attributes:
        id: name of the record it stands for.
        composition: (atomic number, atoms) in ascending order of atomic number; any multiple of the formula.
        energy_per_atom: eV per atom, of the same potential as every other entry.
    """

    id: str
    composition: tuple[tuple[int, int], ...]
    energy_per_atom: float

    @property
    def system(self) -> System:
        """Elements in it."""
        return frozenset(z for z, _ in self.composition)

    @property
    def reduced(self) -> tuple[tuple[int, int], ...]:
        """Composition without its common divisor."""
        divisor = gcd(*(count for _, count in self.composition))
        return tuple((z, count // divisor) for z, count in self.composition)


@runtime_checkable
class EntrySource(Protocol):
    """Where the entries of a hull come from, by chemical system."""

    def systems(self) -> Collection[System]:
        """Every chemical system (its exact set of elements) that has records."""
        ...

    def entries(self, system: System) -> Sequence[ReferenceEntry]:
        """Entries with exactly these elements; computed when first asked for, if need be."""
        ...


class FixedEntries:
    """Entries that are known already."""

    def __init__(self, entries: Iterable[ReferenceEntry]) -> None:
        self._by_system: dict[System, list[ReferenceEntry]] = {}
        for entry in entries:
            self._by_system.setdefault(entry.system, []).append(entry)

    def systems(self) -> Collection[System]:
        """Every chemical system that has entries."""
        return self._by_system.keys()

    def entries(self, system: System) -> Sequence[ReferenceEntry]:
        """Entries with exactly these elements."""
        return self._by_system.get(system, [])


@dataclass(frozen=True)
class HullCompleteness:
    """How much of a chemical system the hull knows.

    Attributes:
        missing_elements: symbols of elements without a reference; where there are any nothing can be said.
        subsystems: for each number of elements from 2 up to that of the system, (subsystems with entries, all).
        num_entries: entries in the system and its subsystems, elements included.
    """

    missing_elements: tuple[str, ...]
    subsystems: tuple[tuple[int, int], ...]
    num_entries: int

    @property
    def covered(self) -> float:
        """Share of the subsystems of two or more elements that have entries; 1 for an element."""
        have, of = (sum(pair[i] for pair in self.subsystems) for i in (0, 1))
        return have / of if of else 1.0

    @property
    def is_known(self) -> bool:
        """Whether a distance to the hull means something.

        No element is missing, and where there are several elements at least one subsystem has compounds.
        """
        return not self.missing_elements and (not self.subsystems or any(have for have, _ in self.subsystems))


@dataclass(frozen=True)
class HullPlace:
    """Where a composition at an energy lies.

    Attributes:
        energy_above_hull: eV/atom above the hull of the entries; negative below it (then it would be a new vertex);
            None where an element has no reference.
        formation_energy: eV/atom above the elements' references; None likewise.
        decomposition: (id, share of the atoms) of the entries on the hull it would decompose into.
        completeness: what the hull knows of this system.
    """

    energy_above_hull: float | None
    formation_energy: float | None
    decomposition: tuple[tuple[str, float], ...]
    completeness: HullCompleteness

    @property
    def is_known(self) -> bool:
        """Whether the distance means something; see ``HullCompleteness.is_known``."""
        return self.energy_above_hull is not None and self.completeness.is_known


class ReferenceHull:
    """Hulls of all chemical systems from one source of entries, each built once when first needed.

    With entries of composition vectors x_i (shares of the elements) and energies e_i per atom, the hull at x is
    ``min sum_i a_i e_i`` over ``a_i >= 0, sum_i a_i x_i = x``; the energy above hull is ``e - hull(x)``. Built by
    pymatgen's ``PhaseDiagram`` from the lowest entry of each composition; beyond ``MAX_DIAGRAM_ELEMENTS`` elements that
    minimum is found for each composition alone, by linear programming.

    Args:
        source: entries, all of one potential.
    """

    def __init__(self, source: EntrySource) -> None:
        self._source = source
        self._diagrams: OrderedDict[System, Any] = OrderedDict()

    def place(self, composition: Mapping[int, int], energy_per_atom: float) -> HullPlace:
        """Where a composition (atomic number to atoms) at an energy in eV/atom lies."""
        system = frozenset(composition)
        entries = self.entries(system)
        completeness = self._completeness(system, entries)
        if completeness.missing_elements or not math.isfinite(energy_per_atom):
            return HullPlace(None, None, (), completeness)
        if len(system) > MAX_DIAGRAM_ELEMENTS:
            return _place_alone(composition, energy_per_atom, entries, completeness)
        from pymatgen.analysis.phase_diagram import PDEntry  # noqa: PLC0415  heavy
        from pymatgen.core import Composition  # noqa: PLC0415  heavy

        diagram = self._diagram(system, entries)
        formula = Composition({element_symbol(z): count for z, count in composition.items()})
        entry = PDEntry(formula, energy_per_atom * formula.num_atoms)
        parts, above = diagram.get_decomp_and_e_above_hull(entry, allow_negative=True, check_stable=False)
        shares = sorted(((part.name, float(share)) for part, share in parts.items()), key=lambda p: -p[1])
        return HullPlace(
            float(above), float(diagram.get_form_energy_per_atom(entry)), tuple(shares), completeness
        )

    def diagram(self, system: System) -> Any:
        """pymatgen's ``PhaseDiagram`` of a system with its subsystems.

        None where an element has no reference or the system has more than ``MAX_DIAGRAM_ELEMENTS`` elements.
        """
        entries = self.entries(system)
        if len(system) > MAX_DIAGRAM_ELEMENTS or self._completeness(system, entries).missing_elements:
            return None
        return self._diagram(system, entries)

    def entries(self, system: System) -> list[ReferenceEntry]:
        """All entries in a system and its subsystems."""
        return [entry for part in self._subsystems(system) for entry in self._source.entries(part)]

    def _subsystems(self, system: System) -> Iterator[System]:
        known = self._source.systems()
        if 2 ** len(system) > len(known):
            yield from sorted((part for part in known if part <= system), key=sorted)
            return
        for size in range(1, len(system) + 1):
            for part in combinations(sorted(system), size):
                if frozenset(part) in known:
                    yield frozenset(part)

    def _completeness(self, system: System, entries: Sequence[ReferenceEntry]) -> HullCompleteness:
        present = {entry.system for entry in entries}
        missing = tuple(element_symbol(z) for z in sorted(system) if frozenset((z,)) not in present)
        sizes = [
            (sum(len(part) == size for part in present), math.comb(len(system), size))
            for size in range(2, len(system) + 1)
        ]
        return HullCompleteness(missing, tuple(sizes), len(entries))

    def _diagram(self, system: System, entries: Sequence[ReferenceEntry]) -> Any:
        if system in self._diagrams:
            self._diagrams.move_to_end(system)
            return self._diagrams[system]
        from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram  # noqa: PLC0415  heavy
        from pymatgen.core import Composition  # noqa: PLC0415  heavy

        points = []
        for entry in _lowest(entries):
            formula = Composition({element_symbol(z): count for z, count in entry.composition})
            points.append(PDEntry(formula, entry.energy_per_atom * formula.num_atoms, name=entry.id))
        diagram = PhaseDiagram(points)
        self._diagrams[system] = diagram
        while len(self._diagrams) > CACHED_DIAGRAMS:
            self._diagrams.popitem(last=False)
        return diagram


def _lowest(entries: Iterable[ReferenceEntry]) -> list[ReferenceEntry]:
    """The lowest entry of each composition."""
    lowest: dict[tuple[tuple[int, int], ...], ReferenceEntry] = {}
    for entry in entries:
        best = lowest.get(entry.reduced)
        if best is None or entry.energy_per_atom < best.energy_per_atom:
            lowest[entry.reduced] = entry
    return list(lowest.values())


def _place_alone(
    composition: Mapping[int, int],
    energy_per_atom: float,
    entries: Sequence[ReferenceEntry],
    completeness: HullCompleteness,
) -> HullPlace:
    """The place of one composition by linear programming over the entries, without building the hull."""
    from scipy.optimize import linprog  # noqa: PLC0415  heavy

    points = _lowest(entries)
    row = {z: i for i, z in enumerate(sorted(composition))}
    shares = np.zeros((len(row), len(points)))
    for column, entry in enumerate(points):
        for z, count in entry.composition:
            shares[row[z], column] = count
    shares /= shares.sum(axis=0)
    target = np.array([composition[z] for z in row], dtype=float)
    target /= target.sum()
    energies = np.array([entry.energy_per_atom for entry in points])
    amounts = linprog(energies, A_eq=shares, b_eq=target).x
    elements = {entry.composition[0][0]: entry.energy_per_atom for entry in points if len(entry.system) == 1}
    unmixed = sum(share * elements[z] for z, share in zip(row, target.tolist(), strict=True))
    parts = [(entry.id, float(a)) for entry, a in zip(points, amounts, strict=True) if a > _NO_SHARE]
    return HullPlace(
        float(energy_per_atom - energies @ amounts),
        float(energy_per_atom - unmixed),
        tuple(sorted(parts, key=lambda part: -part[1])),
        completeness,
    )
