"""Energies of reference crystals with a potential, computed for the chemical systems that are asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from nucleate.crystal.crystal import Crystal
from nucleate.energetics.batched_relaxation import relax
from nucleate.energetics.cache import ResultCache
from nucleate.energetics.element_references import ElementReferences
from nucleate.energetics.hull import EntrySource, FixedEntries, ReferenceEntry, ReferenceHull, System
from nucleate.energetics.potential import Potential, evaluate_each
from nucleate.energetics.records import content_key
from nucleate.energetics.relaxation import RelaxationSettings

Records = Callable[[System], Sequence[tuple[str, Crystal]]]
"""Gives (id, crystal) of the records with exactly these elements."""

WINDOW = 0.1
"""Reference crystals nearer than this (eV/atom) to the hull of unrelaxed energies are relaxed."""


class JoinedEntries:
    """Entries of several sources."""

    def __init__(self, *sources: EntrySource) -> None:
        self._sources = sources
        self._systems = frozenset(system for source in sources for system in source.systems())

    def systems(self) -> Collection[System]:
        """Systems of all sources."""
        return self._systems

    def entries(self, system: System) -> Sequence[ReferenceEntry]:
        """Entries of all sources."""
        return [entry for source in self._sources for entry in source.entries(system)]


class ComputedEntries:
    """Entries of a set of reference crystals, computed with a potential for each chemical system when it is needed.

    Every record of a system gets the energy of its crystal as it is. Those less than ``window`` above the hull of these
    energies (of the system, its subsystems and the elements) are relaxed, because only they can be part of the hull; a
    reference that was relaxed with DFT falls by some meV/atom in that, far less than the window. Records that the
    potential cannot evaluate or relax are left out and named in ``problems``.

    Args:
        systems: every chemical system with records.
        records: the records of a system.
        elements: references of the elements, with the same potential.
        potential: what gives energies.
        settings: of the relaxations.
        cache: keeps energies and relaxations.
        window: eV/atom; 0 relaxes nothing.
    """

    def __init__(
        self,
        systems: Iterable[System],
        records: Records,
        *,
        elements: ElementReferences,
        potential: Potential,
        settings: RelaxationSettings | None = None,
        cache: ResultCache | None = None,
        window: float = WINDOW,
    ) -> None:
        self._systems = frozenset(systems)
        self._records = records
        self._elements = elements
        self._potential = potential
        self._settings = settings or RelaxationSettings()
        self._cache = cache
        self._window = window
        self._unrelaxed: dict[System, list[ReferenceEntry]] = {}
        self._unrelaxed_hulls: dict[System, ReferenceHull] = {}
        self._entries: dict[System, list[ReferenceEntry]] = {}
        self.problems: dict[str, str] = {}

    def systems(self) -> Collection[System]:
        """Every chemical system with records."""
        return self._systems

    def entries(self, system: System) -> Sequence[ReferenceEntry]:
        """Entries of the records with exactly these elements."""
        if system not in self._systems:
            return []
        if system not in self._entries:
            self._entries[system] = self._compute(system)
        return self._entries[system]

    def _compute(self, system: System) -> list[ReferenceEntry]:
        unrelaxed = self._single_points(system)
        near = {entry.id for entry in unrelaxed if self._is_near(system, entry)}
        records = [(name, crystal) for name, crystal in self._records(system) if name in near]
        results = relax(
            [crystal for _, crystal in records], self._potential, settings=self._settings, cache=self._cache
        )
        entries = [entry for entry in unrelaxed if entry.id not in near]
        for (name, crystal), result in zip(records, results):
            if result.converged:
                entries.append(_entry(name, crystal, result.energy_per_atom))
            else:
                self.problems[name] = result.reason
        return entries

    def _is_near(self, system: System, entry: ReferenceEntry) -> bool:
        """Whether a record may be part of the hull, by the unrelaxed energies of its system."""
        if self._window <= 0:
            return False
        if system not in self._unrelaxed_hulls:
            parts = [part for part in self._systems if part <= system]
            points = FixedEntries(point for part in parts for point in self._single_points(part))
            self._unrelaxed_hulls = {system: ReferenceHull(JoinedEntries(self._elements, points))}
        place = self._unrelaxed_hulls[system].place(dict(entry.composition), entry.energy_per_atom)
        return place.energy_above_hull is None or place.energy_above_hull < self._window

    def _single_points(self, system: System) -> list[ReferenceEntry]:
        if system not in self._unrelaxed:
            records = list(self._records(system))
            energies = single_points([crystal for _, crystal in records], self._potential, cache=self._cache)
            self._unrelaxed[system] = []
            for (name, crystal), (energy, problem) in zip(records, energies):
                if energy is None:
                    self.problems[name] = problem
                else:
                    self._unrelaxed[system].append(_entry(name, crystal, energy))
        return self._unrelaxed[system]


def _entry(name: str, crystal: Crystal, energy_per_atom: float) -> ReferenceEntry:
    return ReferenceEntry(name, tuple(crystal.composition.items()), energy_per_atom)


def single_points(
    crystals: Sequence[Crystal], potential: Potential, *, cache: ResultCache | None = None
) -> list[tuple[float | None, str]]:
    """(energy in eV/atom as the crystals are, why there is none) of each crystal, in order."""
    keys = [content_key("single-point-1", crystal, potential, {}) for crystal in crystals]
    found: dict[int, tuple[float | None, str]] = {}
    if cache is not None:
        for index, key in enumerate(keys):
            if (stored := cache.get(key)) is not None:
                found[index] = (stored["energy_per_atom"], stored["problem"])
    missing = [index for index in range(len(crystals)) if index not in found]
    cells = [crystals[index].unit_cell("primitive") for index in missing]
    for index, cell, evaluation in zip(missing, cells, evaluate_each(potential, cells)):
        energy = None if evaluation.problem else evaluation.energy / cell.num_atoms
        found[index] = (energy, evaluation.problem)
        if cache is not None:
            cache.put(keys[index], {"energy_per_atom": energy, "problem": evaluation.problem})
    return [found[index] for index in range(len(crystals))]
