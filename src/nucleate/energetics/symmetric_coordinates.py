"""The variables of a relaxation inside the symmetry: lattice parameters and free coordinates, and gradients in them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.lattice import STRAIN_BASIS
from nucleate.crystal.ragged import segment_positions
from nucleate.crystal.tables import group_arrays
from nucleate.energetics.potential import Evaluation
from nucleate.shapes import Float


@dataclass(frozen=True, eq=False)
class SymmetricCoordinates:
    """Coordinates ``x = (p, u)`` of all crystals with the group, positions and elements of one crystal.

    p are the lattice parameters (left out where the cell is held), u the free coordinates of all orbits. Every x is
    a crystal with the whole symmetry, so nothing that moves in x can break it. With f = J u + const the conventional
    fractional coordinates of the primitive cell's atoms (J from the linear parts ``W_a B_w``) and
    ``L_i = A^-1 dA/dp_i`` the deformation a lattice parameter makes,

        dr_a = (J du)_a A + r_a sum_i L_i dp_i,
        dE/du = -J^T (F A^T),      dE/dp_i = V tr(stress L_i).

    Attributes:
        template: a crystal that gives group, positions and elements.
        relax_cell: whether p is among the variables.
    """

    template: Crystal
    relax_cell: bool = True

    @property
    def num_lattice(self) -> int:
        """Lattice parameters among the variables."""
        return len(self.template.lattice_params) if self.relax_cell else 0

    @cached_property
    def free_mask(self) -> np.ndarray:
        """Which entries of ``free_coords`` are variables, (orbits, 3) bool."""
        return np.arange(3) < self.template.num_free[:, None]

    @property
    def num_variables(self) -> int:
        """Length of x."""
        return self.num_lattice + self.template.num_free_coords

    @cached_property
    def jacobian(self) -> Float[np.ndarray, "atoms 3 u"]:
        """J: derivative of the atoms' conventional fractional coordinates by the free coordinates."""
        tables, p = group_arrays(), self.template.position_ids
        orbit, within = segment_positions(tables["num_images"][p])
        image = tables["images"][tables["image_start"][p][orbit] + within]
        operation = image + tables["operation_start"][self.template.space_group_number - 1]
        blocks = tables["rotations"][operation] @ tables["basis"][p][orbit]
        jacobian = np.zeros((len(orbit), 3, self.template.num_orbits, 3))
        jacobian[np.arange(len(orbit)), :, orbit] = blocks
        return jacobian[:, :, self.free_mask]

    def vector(self, crystal: Crystal) -> Float[np.ndarray, "x"]:
        """x of a crystal with this template."""
        params = crystal.lattice_params[: self.num_lattice]
        return np.concatenate([params, crystal.free_coords[self.free_mask]])

    def crystal(self, vector: Float[np.ndarray, "x"]) -> Crystal:
        """The crystal at x; free coordinates are taken as they are, not wrapped."""
        free = np.zeros_like(self.template.free_coords)
        free[self.free_mask] = vector[self.num_lattice :]
        params = vector[: self.num_lattice].copy() if self.relax_cell else self.template.lattice_params
        return replace(self.template, lattice_params=params, free_coords=free)

    def deformations(self, crystal: Crystal) -> Float[np.ndarray, "k 3 3"]:
        """``L_i = A^-1 dA/dp_i`` of a crystal: cartesian rows change by ``r -> r (1 + L_i dp_i)``.

        With ``A = A_ref exp(S)``, ``S = U diag(s) U^T`` and ``dS = E_i``,
        ``L_i = U (F o U^T E_i U) U^T``, ``F_ab = (1 - exp(s_b - s_a)) / (s_a - s_b)``, ``F_aa = 1``: the derivative of
        the exponential by divided differences, times its inverse.
        """
        count = self.num_lattice
        params = np.zeros(len(STRAIN_BASIS))
        params[: len(crystal.lattice_params)] = crystal.lattice_params
        values, vectors = np.linalg.eigh(np.tensordot(params, STRAIN_BASIS, axes=1))
        gap = values[:, None] - values[None, :]
        safe = np.where(np.abs(gap) < 1e-12, 1.0, gap)
        factors = np.where(np.abs(gap) < 1e-12, 1.0, -np.expm1(-gap) / safe)
        inner = vectors.T @ STRAIN_BASIS[:count] @ vectors
        return vectors @ (factors * inner) @ vectors.T

    def gradient(
        self, crystal: Crystal, evaluation: Evaluation, *, pressure: float = 0.0
    ) -> Float[np.ndarray, "x"]:
        """Derivative of ``E + P V`` (eV per primitive cell) by x.

        Args:
            crystal: where the evaluation was made, in its primitive cell.
            evaluation: forces in the frame of ``crystal.primitive_lattice``, atoms in the order of
                ``crystal.unit_cell('primitive')``.
            pressure: P in eV/Å^3.
        """
        free = -np.einsum("aiu,ai->u", self.jacobian, evaluation.forces @ crystal.lattice.T)
        if not self.relax_cell:
            return free
        volume = crystal.volume_per_atom * crystal.num_atoms_primitive
        stress = evaluation.stress + pressure * np.eye(3)
        cell = volume * np.einsum("ij,kij->k", stress, self.deformations(crystal))
        return np.concatenate([cell, free])

    def displacements(
        self, crystal: Crystal, step: Float[np.ndarray, "x"]
    ) -> tuple[Float[np.ndarray, "atoms 3"], Float[np.ndarray, "3 3"]]:
        """(Cartesian displacement of each atom at fixed cell in Å, strain) that a small step in x makes."""
        moved = np.einsum("aiu,u->ai", self.jacobian, step[self.num_lattice :]) @ crystal.lattice
        strain = np.zeros((3, 3))
        if self.relax_cell:
            strain = np.tensordot(step[: self.num_lattice], self.deformations(crystal), axes=1)
        return moved, (strain + strain.T) / 2


def symmetric_forces(
    crystal: Crystal, evaluation: Evaluation
) -> tuple[Float[np.ndarray, "orbits 3"], Float[np.ndarray, "3 3"]]:
    """(force on the representative of each orbit in eV/Å, stress in eV/Å^3), averaged over the space group.

    What ASE's ``FixSymmetry`` leaves of forces and stress. An exact potential changes nothing here; of a float32
    model it takes the rounding out.
    """
    group, lattice, inverse = crystal.group, crystal.lattice, np.linalg.inv(crystal.lattice)
    tables, p = group_arrays(), crystal.position_ids
    orbit, within = segment_positions(tables["num_images"][p])
    image = tables["images"][tables["image_start"][p][orbit] + within]
    rotations = tables["rotations"][image + tables["operation_start"][crystal.space_group_number - 1]]
    # A force in components of the basis transforms with W; the representative's is the mean of those pulled back.
    components = np.linalg.solve(rotations, (evaluation.forces @ inverse)[:, :, None])[:, :, 0]
    sums = np.zeros((crystal.num_orbits, 3))
    np.add.at(sums, orbit, components)
    sums /= crystal.multiplicities_primitive[:, None]
    fixed = np.stack([position.stabiliser_rotations.mean(axis=0) for position in crystal.positions])
    forces = np.einsum("oij,oj->oi", fixed, sums) @ lattice
    cartesian = np.einsum("ji,ajk,lk->ail", lattice, group.rotations, inverse)
    stress = np.einsum("aij,jk,alk->il", cartesian, evaluation.stress, cartesian) / len(cartesian)
    return forces, (stress + stress.T) / 2
