"""The hull that candidates are placed against, built in the process that needs it and kept there."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from nucleate.crystal.species import ATOMIC_NUMBER_OF
from nucleate.data.property_values import PROPERTY_PREFIX, as_numbers
from nucleate.data.store import Store
from nucleate.energetics.cache import ResultCache
from nucleate.energetics.element_references import ElementReferences
from nucleate.energetics.hull import FixedEntries, ReferenceEntry, ReferenceHull
from nucleate.energetics.reference_energies import ComputedEntries, JoinedEntries
from nucleate.energetics.relaxation import RelaxationSettings
from nucleate.errors import ConfigError
from nucleate.evaluation.stability import ReferenceRecords
from nucleate.screening.potentials import shared_potential
from nucleate.screening.step import Resources

_ELEMENT = re.compile(r"([A-Z][a-z]?)(\d*)")


@functools.lru_cache(maxsize=2)
def reference_hull(
    resources: Resources, window: float, fmax: float, formation: bool = False
) -> ReferenceHull:
    """The hull of a reference; a chemical system's energies and phase diagram are made when first asked for.

    With ``energy_column`` every record of the reference has its energy already, elements included (or, of formation
    energies, at zero). Else energies are
    the potential's: the shipped crystals of the elements, and all records of the reference's systems, those near the
    hull relaxed (``energetics.ComputedEntries``).

    Args:
        resources: potential, reference and where energies are kept.
        window: reference crystals nearer than this (eV/atom) to the hull of unrelaxed energies are relaxed.
        fmax: convergence of these relaxations, eV/Å.
        formation: whether known energies are formation energies.

    Raises:
        ConfigError: known energies are asked for and the reference has none.
        StoreError: the reference is no store.
    """
    if resources.energy_column:
        if resources.reference is None:
            raise ConfigError(
                f"Known energies (column {resources.energy_column!r}) need a reference with energies of the same "
                "kind: name a store with --reference"
            )
        store = Store.open(resources.reference)
        known = FixedEntries(known_entries(store, resources.energy_column))
        return ReferenceHull(JoinedEntries(known, elements_at_zero()) if formation else known)
    potential = shared_potential(resources.potential, resources.device)
    cache = ResultCache(Path(resources.cache) / "energies") if resources.cache else None
    elements = ElementReferences(potential, cache=cache)
    if resources.reference is None:
        return ReferenceHull(elements)
    records = ReferenceRecords(Store.open(resources.reference))
    computed = ComputedEntries(
        records.systems,
        records,
        elements=elements,
        potential=potential,
        settings=RelaxationSettings(fmax=fmax),
        cache=cache,
        window=window,
    )
    return ReferenceHull(JoinedEntries(elements, computed))


def elements_at_zero() -> FixedEntries:
    """The elements as the zero of formation energies."""
    return FixedEntries(ReferenceEntry(symbol, ((z, 1),), 0.0) for symbol, z in ATOMIC_NUMBER_OF.items())


def known_entries(store: Store, column: str) -> Iterator[ReferenceEntry]:
    """Entries of the records that state their energy.

    Args:
        store: the reference.
        column: name of the property, eV/atom.

    Raises:
        ConfigError: the store has no such property.
    """
    stated = store.manifest.properties
    if column not in stated:
        raise ConfigError(
            f"{store.location} has no property {column!r}; it has {', '.join(sorted(stated)) or 'none'}: name one of "
            "eV/atom with --energy-column"
        )
    for batch in store.iter_batches(["id", "formula", PROPERTY_PREFIX + column], batch_size=8192):
        energies = as_numbers(batch.column(2)).tolist()
        ids, formulas = batch.column(0).to_pylist(), batch.column(1).to_pylist()
        for name, formula, energy in zip(ids, formulas, energies):
            if math.isfinite(energy):
                yield ReferenceEntry(name, composition_of(formula), energy)


def composition_of(formula: str) -> tuple[tuple[int, int], ...]:
    """(atomic number, atoms) of a reduced formula such as ``O3SrTi``, by ascending atomic number."""
    parts = _ELEMENT.findall(formula)
    return tuple(sorted((ATOMIC_NUMBER_OF[symbol], int(count or 1)) for symbol, count in parts))


@dataclass(frozen=True)
class DiagramPoint:
    """A reference of a phase diagram.

    Attributes:
        name: its id.
        formula: reduced formula.
        shares: atomic number to share of the atoms.
        formation_energy: eV/atom.
        energy_above_hull: eV/atom.
    """

    name: str
    formula: str
    shares: dict[int, float]
    formation_energy: float
    energy_above_hull: float


@dataclass(frozen=True)
class Diagram:
    """What a drawing of a phase diagram needs.

    Attributes:
        system: atomic numbers, ascending.
        points: lowest reference of each composition.
        ties: pairs of places in ``points`` that are joined on the hull.
    """

    system: tuple[int, ...]
    points: tuple[DiagramPoint, ...]
    ties: tuple[tuple[int, int], ...]


def phase_diagrams(
    resources: Resources, window: float, fmax: float, formation: bool, systems: Sequence[tuple[int, ...]]
) -> list[Diagram]:
    """The phase diagrams of chemical systems, without those that lack an element's reference."""
    hull = reference_hull(resources, window, fmax, formation)
    found = []
    for system in systems:
        diagram = hull.diagram(frozenset(system))
        if diagram is None:
            continue
        entries = list(diagram.all_entries)
        places = {id(entry): place for place, entry in enumerate(entries)}
        corners = [[diagram.qhull_entries[i] for i in facet] for facet in diagram.facets]
        ties = {
            tuple(sorted((places[id(a)], places[id(b)])))
            for facet in corners
            for a, b in combinations(facet, 2)
            if id(a) in places and id(b) in places
        }
        points = tuple(
            DiagramPoint(
                entry.name,
                entry.composition.reduced_formula,
                {
                    element.Z: float(share)
                    for element, share in entry.composition.fractional_composition.items()
                },
                float(diagram.get_form_energy_per_atom(entry)),
                float(diagram.get_e_above_hull(entry)),
            )
            for entry in entries
        )
        found.append(Diagram(tuple(sorted(system)), points, tuple(sorted(ties))))  # type: ignore[arg-type]
    return found
