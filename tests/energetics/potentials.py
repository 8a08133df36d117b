"""Potentials for tests: fast ASE calculators, and ones that fail on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.data import atomic_numbers

from nucleate.crystal import Crystal, UnitCell, encode
from nucleate.data.bundled import bundled_crystal
from nucleate.energetics.ase_potential import ASEPotential
from nucleate.energetics.chgnet_potential import CHGNetPotential
from nucleate.energetics.potential import Evaluation
from nucleate.energetics.symmetric_coordinates import SymmetricCoordinates


def emt() -> ASEPotential:
    return ASEPotential(EMT(), identity="emt")


def lennard_jones() -> ASEPotential:
    return ASEPotential(LennardJones(sigma=2.0, epsilon=0.5, rc=6.0, smooth=True), identity="lj")


@cache
def chgnet() -> CHGNetPotential:
    return CHGNetPotential()


_ALLOYS = {  # lattices near EMT's own
    "cu": (3.61 * np.eye(3), ["Cu"] * 4),
    "ni": (3.52 * np.eye(3), ["Ni"] * 4),
    "cu3au": (3.75 * np.eye(3), ["Au", "Cu", "Cu", "Cu"]),
    "cuau": (np.diag([3.9, 3.9, 3.7]), ["Cu", "Cu", "Au", "Au"]),
}
_FACES = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])


def bundled(name: str) -> Crystal:
    """A bundled crystal, or one of a few metals and alloys that EMT knows."""
    if name in _ALLOYS:
        lattice, symbols = _ALLOYS[name]
        return encode(UnitCell(lattice, _FACES, np.array([atomic_numbers[s] for s in symbols]))).crystal
    return encode(bundled_crystal(name).unit_cell).crystal


def rattled(
    crystal: Crystal, rng: np.random.Generator, *, shift: float = 0.08, strain: float = 0.02
) -> Crystal:
    """The crystal with free coordinates (mean displacement in Å) and cell moved at random inside its symmetry."""
    coordinates = SymmetricCoordinates(crystal)
    step = rng.normal(size=coordinates.num_variables)
    k = coordinates.num_lattice
    step[:k] *= strain
    if len(step) > k:
        moved, _ = coordinates.displacements(crystal, np.concatenate([np.zeros(k), step[k:]]))
        step[k:] *= shift / np.linalg.norm(moved, axis=1).mean()
    return coordinates.crystal(coordinates.vector(crystal) + step)


class Counting:
    """Another potential, counting calls and cells."""

    def __init__(self, inner: ASEPotential | CHGNetPotential) -> None:
        self.inner = inner
        self.name, self.identity, self.corrections = inner.name, inner.identity, inner.corrections
        self.calls = self.cells = 0

    def evaluate(self, cells: Sequence[UnitCell]) -> list[Evaluation]:
        self.calls += 1
        self.cells += len(cells)
        return self.inner.evaluate(cells)


class Faulty(Counting):
    """Raises, or returns NaN, on cells that hold an element."""

    def __init__(self, inner: ASEPotential, *, element: int, how: str) -> None:
        super().__init__(inner)
        self.element, self.how = element, how

    def evaluate(self, cells: Sequence[UnitCell]) -> list[Evaluation]:
        bad = [bool((cell.atomic_numbers == self.element).any()) for cell in cells]
        if self.how == "raise" and any(bad):
            raise RuntimeError("no convergence")
        results = super().evaluate(cells)
        return [Evaluation(float("nan"), r.forces, r.stress) if b else r for b, r in zip(bad, results)]
