"""What a DFT run found, whichever program ran."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nucleate.crystal.unit_cell import UnitCell
from nucleate.energetics.potential import GPA
from nucleate.shapes import Float


@dataclass(frozen=True, eq=False)
class DFTResult:
    """What one task of a DFT run found.

    Attributes:
        code: the program.
        task: ``relax``, ``scf`` or ``bands``.
        converged: whether the electrons and, of a relaxation, ions and cell converged.
        energy: total energy of the cell, eV; None for bands.
        cell: the cell at the end.
        forces: eV/Å; None for bands.
        stress: eV/Å^3, positive under tension; None for bands.
        gap: between the highest occupied and the lowest empty level at the k points of the task, eV; 0 for a metal;
            None where too few levels were computed.
        fermi_energy: eV.
        levels: (k points, levels), both spins one after the other along the first axis, eV.
        k_points: as the program gives them (pw.x: Cartesian in 2 pi / alat; GPAW: fractions).
    """

    code: str
    task: str
    converged: bool
    energy: float | None
    cell: UnitCell
    forces: Float[np.ndarray, "atoms 3"] | None
    stress: Float[np.ndarray, "3 3"] | None
    gap: float | None
    fermi_energy: float | None
    levels: Float[np.ndarray, "k levels"]
    k_points: Float[np.ndarray, "points 3"]

    @property
    def max_force(self) -> float | None:
        """Largest force on an atom, eV/Å."""
        return None if self.forces is None else float(np.linalg.norm(self.forces, axis=1).max())

    @property
    def pressure(self) -> float | None:
        """``-tr(stress)/3``, GPa."""
        return None if self.stress is None else float(-np.trace(self.stress) / 3 / GPA)


def band_gap(levels: Float[np.ndarray, "k levels"], electrons: float, per_level: int) -> float | None:
    """Gap in eV between filled and empty levels when each k point holds the same number of electrons.

    0 where levels overlap or the number of electrons leaves a level half filled (of a spin-polarised crystal: where
    the two spins hold different numbers, the lowest levels of both together are filled); None where no level is empty.

    Args:
        levels: eV, any order; for two spins the k points of one after those of the other.
        electrons: per cell.
        per_level: electrons that a level holds: 2 without spin, 1 with.
    """
    if per_level == 1:
        both = np.split(levels, 2)
        levels = np.concatenate(both, axis=1)
    filled = electrons / per_level
    if abs(filled - round(filled)) > 1e-3:
        return 0.0
    count = round(filled)
    if not 0 < count < levels.shape[1]:
        return None
    ordered = np.sort(levels, axis=1)
    return max(0.0, float(ordered[:, count].min() - ordered[:, count - 1].max()))
