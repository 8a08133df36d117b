"""Does a relaxed crystal keep its symmetry when nothing holds it? Displaced, relaxed in P1, its group found again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nucleate.crystal import Crystal, UnitCell, encode
from nucleate.crystal.encoding import analyse
from nucleate.energetics.records import crystal_digest
from nucleate.errors import SymmetryError

ENERGY_TOLERANCE = 1e-3
"""eV/atom: a relaxation in P1 that ends this much lower has found another crystal, whatever its group."""


def displaced(crystal: Crystal, *, displacement: float, strain: float) -> Crystal:
    """The primitive cell in P1 with every atom moved and the cell strained at random: no symmetry is left.

        r_a' = (r_a + d_a - mean_b d_b) (1 + e),   d ~ N(0, displacement^2 / 3),   e symmetric, e_ij ~ N(0, strain^2)

    The random numbers follow from the crystal's content, so the same crystal is moved in the same way everywhere.

    Args:
        crystal: what is moved.
        displacement: root mean square length of ``d_a``, Å.
        strain: standard deviation of the strain's components.
    """
    rng = np.random.default_rng(int(crystal_digest(crystal), 16))
    cell = crystal.unit_cell("primitive")
    moves = rng.normal(size=(cell.num_atoms, 3)) * displacement / np.sqrt(3)
    moves -= moves.mean(axis=0)
    bend = rng.normal(size=(3, 3)) * strain
    deformation = np.eye(3) + (bend + bend.T) / 2
    frac_coords = cell.frac_coords + moves @ np.linalg.inv(cell.lattice)
    moved = UnitCell(cell.lattice @ deformation, frac_coords, cell.atomic_numbers)
    return encode(moved, symprec=1e-5, subgroup=1).crystal


@dataclass(frozen=True)
class SymmetrySurvival:
    """What became of the symmetry.

    Attributes:
        groups: (symprec in Å, group of the crystal relaxed in its symmetry, group after the free relaxation) by
            ascending symprec; 0 where a search failed.
        energy_change: energy of the free relaxation minus that in the symmetry, eV/atom.
    """

    groups: tuple[tuple[float, int, int], ...]
    energy_change: float

    @property
    def survived(self) -> bool:
        """Whether the group came back at the loosest tolerance and the energy did not fall by 1 meV/atom."""
        _, before, after = self.groups[-1]
        return before == after and self.energy_change > -ENERGY_TOLERANCE

    @property
    def text(self) -> str:
        """``225 at 0.01 Å, 225 at 0.1 Å``; ``225 to 2`` where it changed."""
        return ", ".join(
            f"{before if before == after else f'{before} to {after}'} at {symprec:g} Å"
            for symprec, before, after in self.groups
        )


def survival(
    symmetric: Crystal, free: Crystal, energy_change: float, symprecs: Sequence[float]
) -> SymmetrySurvival:
    """What became of the symmetry of a relaxed crystal in its free relaxation.

    Args:
        symmetric: relaxed in its symmetry.
        free: relaxed in P1 from ``displaced``.
        energy_change: eV/atom.
        symprecs: tolerances, Å.
    """
    groups = tuple(
        (symprec, group_at(symmetric, symprec), group_at(free, symprec)) for symprec in sorted(symprecs)
    )
    return SymmetrySurvival(groups, energy_change)


def group_at(crystal: Crystal, symprec: float) -> int:
    """Number of the space group found at a tolerance in Å, 0 where the search fails."""
    try:
        return int(analyse(crystal.unit_cell("primitive"), symprec=symprec).number)
    except SymmetryError:
        return 0
