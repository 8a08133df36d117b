"""Elastic constants with relaxed ions from derivatives of stress and forces, and what they say about stability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.unit_cell import UnitCell
from nucleate.energetics.potential import GPA, Evaluation, Potential, evaluate_each
from nucleate.errors import ConfigError, PotentialError
from nucleate.screening.elastic_stability import StabilityCondition, born_conditions
from nucleate.screening.elastic_tensor import ElasticModuli, from_voigt, moduli, rotate, to_voigt
from nucleate.shapes import Float

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
"""Components xx, yy, zz, yz, xz, xy."""


@dataclass(frozen=True)
class ElasticSettings:
    """What elastic constants are asked for.

    Attributes:
        strain: size of the strains, in both senses.
        displacement: length of the displacements of single atoms, Å.
        tolerance: an eigenvalue of the elastic tensor counts as positive above this, GPa.
        batch_atoms: most atoms in one call of the potential.
    """

    strain: float = 0.004
    displacement: float = 0.01
    tolerance: float = 0.5
    batch_atoms: int = 256

    def __post_init__(self) -> None:
        if not 0 < self.strain < 0.1:
            raise ConfigError(f"the strain of elastic constants lies between 0 and 0.1, got {self.strain}")
        if not 0 < self.displacement < 0.5:
            raise ConfigError(f"displacements lie between 0 and 0.5 Å, got {self.displacement}")
        if not (self.tolerance >= 0 and math.isfinite(self.tolerance)):
            raise ConfigError(f"the tolerance in GPa must not be negative, got {self.tolerance}")


@dataclass(frozen=True, eq=False)
class Elasticity:
    """Elastic constants of one crystal.

    Attributes:
        tensor: (6, 6) relaxed-ion constants in GPa, standard Voigt order xx, yy, zz, yz, xz, xy with engineering
            shear strains, in the frame ``standard_frame``, averaged over the point group.
        clamped: the same with the ions held.
        moduli: averages over a polycrystal; None where the tensor is not positive definite.
        lowest_eigenvalue: of the tensor in Kelvin notation (which does not depend on the frame), GPa.
        conditions: Born's conditions of the crystal's class that are violated; empty for a stable crystal.
        softest_mode: lowest curvature of the energy for displacements of the ions at fixed cell, eV/Å^2; not above
            zero means that the ions do not sit in a minimum and the relaxed constants mean nothing. Infinite for a
            crystal with one atom in the primitive cell.
        residual_stress: largest component of the stress of the given crystal, GPa.
        asymmetry: largest change that averaging over the point group made, GPa: noise of the potential and error
            of the finite differences.
        evaluations: cells that were evaluated.
    """

    tensor: Float[np.ndarray, "6 6"]
    clamped: Float[np.ndarray, "6 6"]
    moduli: ElasticModuli | None
    lowest_eigenvalue: float
    conditions: tuple[StabilityCondition, ...]
    softest_mode: float
    residual_stress: float
    asymmetry: float
    evaluations: int

    @property
    def stable(self) -> bool:
        """Whether the ions sit in a minimum and the tensor is positive definite."""
        return self.softest_mode > 0 and self.moduli is not None

    @property
    def reason(self) -> str:
        """Why the crystal is not stable, in words; empty if it is."""
        if self.softest_mode <= 0:
            return (
                "the ions do not sit in a minimum: the lowest curvature for displacements within the primitive cell is "
                f"{self.softest_mode:.3g} eV/Å^2"
            )
        if self.moduli is None:
            broken = "; ".join(condition.text for condition in self.conditions)
            text = f"the lowest eigenvalue of the elastic tensor is {self.lowest_eigenvalue:.2f} GPa"
            return f"{text}: {broken}" if broken else text
        return ""


def standard_frame(crystal: Crystal) -> Float[np.ndarray, "3 3"]:
    """Rows are the Cartesian axes of the crystal's standard frame, in the frame of ``crystal.lattice``.

        z along c,   y along c x a,   x = y x z

    of the conventional cell in the standard setting. With right angles x is along a and y along b; in hexagonal axes
    x is along a; in monoclinic crystals (unique axis b) y is along b. This is the choice of the IEEE standard 176
    for these systems but for its sorting of the orthorhombic axes by length.
    """
    a, _, c = crystal.lattice
    z = c / np.linalg.norm(c)
    y = np.cross(c, a)
    y /= np.linalg.norm(y)
    return np.stack([np.cross(y, z), y, z])


def elasticity(crystal: Crystal, potential: Potential, settings: ElasticSettings | None = None) -> Elasticity:
    """Elastic constants of a relaxed crystal with relaxed ions.

    With the stress of strained primitive cells at fixed fractional coordinates, the forces on their ions, and the
    force constants K at Gamma, all by central differences,

        C_ij = ds_i/de_j - (1/V) sum_ab L_ai (K^+)_ab L_bj,      L_ai = dF_a/de_i

    (Wu, Vanderbilt and Hamann, Physical Review B 72, 035105 (2005), internal strain eliminated):
    the second term is what ions give back that follow the strain. ``K^+`` leaves out the three translations. Then the
    tensor is averaged over the point group and made symmetric.

    Args:
        crystal: relaxed with the same potential: stress that is left adds to the constants.
        potential: gives stresses and forces.
        settings: sizes of the strains and displacements.

    Raises:
        PotentialError: the potential failed on a strained or displaced cell.
    """
    settings = settings or ElasticSettings()
    frame = standard_frame(crystal)
    cell = crystal.unit_cell("primitive")
    cell = UnitCell(cell.lattice @ frame.T, cell.frac_coords, cell.atomic_numbers)
    strained = strained_cells(cell, settings.strain)
    moved = [] if cell.num_atoms == 1 else displaced_atoms(cell, settings.displacement)
    found = evaluate_each(potential, [cell, *strained, *moved], batch_atoms=settings.batch_atoms)
    problem = next((e.problem for e in found if e.problem), "")
    if problem:
        raise PotentialError(f"no elastic constants of {crystal.formula}: {problem}")
    stress, forces = _strain_derivatives(found[1:13], settings.strain)
    softest, relaxation = math.inf, np.zeros((6, 6))
    if moved:
        softest, relaxation = _ionic_part(found[13:], forces, cell.volume, settings.displacement)
    raw = (stress + relaxation) / GPA
    rotations = point_group(crystal, frame)
    tensor, clamped = symmetrised(raw, rotations), symmetrised(stress / GPA, rotations)
    lowest = float(np.linalg.eigvalsh(kelvin(tensor)).min())
    positive = softest > 0 and lowest > settings.tolerance
    return Elasticity(
        tensor,
        clamped,
        moduli(tensor) if positive else None,
        lowest,
        tuple(c for c in born_conditions(tensor, crystal.group.point_group) if c.value <= settings.tolerance),
        softest,
        float(np.abs(found[0].stress).max() / GPA),
        float(np.abs(tensor - raw).max()),
        len(found),
    )


def strained_cells(cell: UnitCell, strain: float) -> list[UnitCell]:
    """The cell strained by + and - ``strain`` in each Voigt component, 12 cells, fractional coordinates kept.

    ``r -> r (1 + e)`` with symmetric e; a shear component e_yz = e_zy is half of the engineering strain.
    """
    cells = []
    for i, j in VOIGT:
        for sign in (1, -1):
            e = np.zeros((3, 3))
            e[i, j] += sign * strain / 2
            e[j, i] += sign * strain / 2
            cells.append(UnitCell(cell.lattice @ (np.eye(3) + e), cell.frac_coords, cell.atomic_numbers))
    return cells


def displaced_atoms(cell: UnitCell, distance: float) -> list[UnitCell]:
    """The cell with each atom (and its periodic images) moved by + and - ``distance`` along x, y and z."""
    inverse = np.linalg.inv(cell.lattice)
    cells = []
    for atom in range(cell.num_atoms):
        for axis in range(3):
            for sign in (1, -1):
                coords = cell.frac_coords.copy()
                coords[atom] += sign * distance * inverse[axis]
                cells.append(UnitCell(cell.lattice, coords, cell.atomic_numbers))
    return cells


def point_group(crystal: Crystal, frame: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "n 3 3"]:
    """Rotations of the point group as orthogonal matrices on column vectors in a Cartesian frame (rows its axes)."""
    basis = (crystal.lattice @ frame.T).T
    return basis @ crystal.group.rotations @ np.linalg.inv(basis)


def symmetrised(
    tensor: Float[np.ndarray, "6 6"], rotations: Float[np.ndarray, "n 3 3"]
) -> Float[np.ndarray, "6 6"]:
    """A Voigt tensor made symmetric and averaged over rotations."""
    full = from_voigt((tensor + tensor.T) / 2)
    mean = np.mean([rotate(full, rotation) for rotation in rotations], axis=0)
    voigt = to_voigt(mean)
    return (voigt + voigt.T) / 2


def kelvin(tensor: Float[np.ndarray, "6 6"]) -> Float[np.ndarray, "6 6"]:
    """A Voigt tensor in Kelvin's notation, whose eigenvalues do not depend on the frame."""
    weights = np.array([1, 1, 1, 2**0.5, 2**0.5, 2**0.5])
    return tensor * np.outer(weights, weights)


def _strain_derivatives(
    found: Sequence[Evaluation], strain: float
) -> tuple[Float[np.ndarray, "6 6"], Float[np.ndarray, "x 6"]]:
    """(ds_i/de_j in eV/Å^3, dF_a/de_j in eV/Å), engineering strains.

    For shear, ``strain`` is the engineering strain (each of the two components has half of it).
    """
    stress, forces = np.zeros((6, 6)), np.zeros((found[0].forces.size, 6))
    for j in range(6):
        plus, minus = found[2 * j], found[2 * j + 1]
        change = (plus.stress - minus.stress) / (2 * strain)
        stress[:, j] = [(change[a, b] + change[b, a]) / 2 for a, b in VOIGT]
        forces[:, j] = ((plus.forces - minus.forces) / (2 * strain)).ravel()
    return stress, forces


def _ionic_part(
    found: Sequence[Evaluation], forces: Float[np.ndarray, "x 6"], volume: float, distance: float
) -> tuple[float, Float[np.ndarray, "6 6"]]:
    """(lowest curvature of the optical displacements, eV/Å^2; the ions' part of the constants, eV/Å^3)."""
    pairs = list(zip(found[::2], found[1::2]))
    constants = np.stack([-(plus.forces - minus.forces).ravel() / (2 * distance) for plus, minus in pairs])
    constants = (constants + constants.T) / 2
    atoms = len(constants) // 3
    translations = np.tile(np.eye(3), atoms).T / math.sqrt(atoms)
    optical = np.linalg.svd(translations, full_matrices=True)[0][:, 3:]
    values, vectors = np.linalg.eigh(optical.T @ constants @ optical)
    softest = float(values.min())
    if softest <= 0:
        return softest, np.zeros((6, 6))
    along = (optical @ vectors).T @ forces
    return softest, -(along.T @ (along / values[:, None])) / volume
