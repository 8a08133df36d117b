"""Crystals of the elements and their energies: the corners of every hull, for 89 elements."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.species import ATOMIC_NUMBER_OF, element_symbol
from nucleate.energetics.batched_relaxation import relax
from nucleate.energetics.cache import ResultCache
from nucleate.energetics.hull import ReferenceEntry, System
from nucleate.energetics.potential import Potential
from nucleate.energetics.records import crystal_from_json
from nucleate.energetics.relaxation import RelaxationSettings

VOLUME_RANGE = (0.5, 2.0)
"""A relaxation that leaves this range of the known volume is not believed."""


@dataclass(frozen=True, eq=False)
class ElementCandidate:
    """One crystal of an element before relaxation.

    Attributes:
        structure: where it comes from.
        crystal: the crystal.
        chgnet_energy: eV/atom after relaxation with CHGNet 0.3.0; None where that was not believed.
    """

    structure: str
    crystal: Crystal
    chgnet_energy: float | None


@functools.cache
def _table() -> dict[str, Any]:
    path = resources.files("nucleate.energetics").joinpath("tables", "elements.json")
    return json.loads(path.read_text(encoding="utf-8"))


def bundled_elements() -> tuple[int, ...]:
    """Atomic numbers of the elements there are crystals of."""
    return tuple(sorted(ATOMIC_NUMBER_OF[symbol] for symbol in _table()["elements"]))


def element_candidates(atomic_number: int) -> tuple[ElementCandidate, ...]:
    """Crystals of an element, the one CHGNet finds lowest first; empty for an element without any."""
    entry = _table()["elements"].get(element_symbol(atomic_number))
    if entry is None:
        return ()
    return tuple(
        ElementCandidate(c["structure"], crystal_from_json(c["crystal"]), c["energy_per_atom"])
        for c in entry["candidates"]
    )


class ElementReferences:
    """The lowest energy of each element with a potential.

    With CHGNet 0.3.0 the energies are those of the shipped table (``scripts/build_elements.py``). With any other
    potential all crystals of an element are relaxed when the element is first asked for, and the lowest is taken;
    where no relaxation can be believed (it fails, or leaves 0.5 to 2 times the known volume) the cell is held.

    Args:
        potential: what gives energies.
        cache: keeps the relaxations.
    """

    def __init__(self, potential: Potential, *, cache: ResultCache | None = None) -> None:
        self._potential = potential
        self._cache = cache
        self._found: dict[int, list[ReferenceEntry]] = {}

    def systems(self) -> Collection[System]:
        """One system for each element with crystals."""
        return [frozenset((z,)) for z in bundled_elements()]

    def entries(self, system: System) -> Sequence[ReferenceEntry]:
        """The reference of the element that the system consists of; none for several elements."""
        if len(system) != 1:
            return []
        (z,) = system
        if z not in self._found:
            self._found[z] = self._reference(z)
        return self._found[z]

    def _reference(self, z: int) -> list[ReferenceEntry]:
        symbol = element_symbol(z)
        entry = _table()["elements"].get(symbol)
        if entry is None:
            return []
        if self._potential.identity == _table()["potential"]:
            name, energy = entry["structure"], entry["energy_per_atom"]
        else:
            lowest = self._lowest(element_candidates(z))
            if lowest is None:
                return []
            name, energy = lowest
        return [ReferenceEntry(f"{symbol} ({name})", ((z, 1),), energy)]

    def _lowest(self, candidates: Sequence[ElementCandidate]) -> tuple[str, float] | None:
        crystals = [candidate.crystal for candidate in candidates]
        for settings in (
            RelaxationSettings(fmax=0.01),
            RelaxationSettings(fmax=0.01, relax_cell=False),
        ):
            results = relax(crystals, self._potential, settings=settings, cache=self._cache)
            believed = [
                (result.energy_per_atom, candidate.structure)
                for candidate, result in zip(candidates, results)
                if result.converged and VOLUME_RANGE[0] < result.volume_change < VOLUME_RANGE[1]
            ]
            if believed:
                energy, name = min(believed)
                return name, energy
        return None
