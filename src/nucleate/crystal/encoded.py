"""An encoded structure: the crystal, and the way back to the cell and frame it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.tables import group_arrays
from nucleate.crystal.unit_cell import UnitCell
from nucleate.shapes import Float, Int


@dataclass(frozen=True, eq=False)
class EncodedStructure:
    """A crystal and the way between its standard setting and the user's own cell.

    With P the transformation and p the origin shift, ``x_input = P x + p`` and ``A_input = P^-T A_std``; the
    ideal lattice in the user's frame is ``A_std = A Q`` with A = ``crystal.lattice`` and Q = ``rotation``.
    Atom i is

        x_i = W f(u) + t + n,   W, t = operation ``atom_to_operation[i]``, f(u) of orbit ``atom_to_orbit[i]``,

    n = ``lattice_shifts[i]`` in the translation lattice (centring included).

    Attributes:
        crystal: the exact ideal crystal.
        transformation: P, columns are the conventional basis in the input basis; its determinant is negative
            where the input cell was left-handed, and below 1 in size where it was a supercell.
        origin_shift: p, in fractional coordinates of the input.
        rotation: Q, a proper rotation: row vectors of the standard frame times Q are in the user's frame.
        atom_to_orbit: orbit of each input atom.
        atom_to_operation: operation (coset representative of the group) of each input atom.
        lattice_shifts: n of each input atom, conventional fractional coordinates.
        max_displacement: largest distance an atom moved in the projection, in Å.
        max_strain: largest principal strain of the cell in the projection.
        site_properties: per-atom arrays of the input, carried along unchanged.
    """

    crystal: Crystal
    transformation: Float[np.ndarray, "3 3"]
    origin_shift: Float[np.ndarray, "3"]
    rotation: Float[np.ndarray, "3 3"]
    atom_to_orbit: Int[np.ndarray, "atoms"]
    atom_to_operation: Int[np.ndarray, "atoms"]
    lattice_shifts: Float[np.ndarray, "atoms 3"]
    max_displacement: float
    max_strain: float
    site_properties: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_atoms(self) -> int:
        """Number of atoms in the input cell."""
        return len(self.atom_to_orbit)

    def standard_coords(self) -> Float[np.ndarray, "atoms 3"]:
        """Ideal positions of the input's atoms, conventional fractional coordinates, standard setting."""
        tables = group_arrays()
        operation = self.atom_to_operation + tables["operation_start"][self.crystal.space_group_number - 1]
        points = self.crystal.representatives[self.atom_to_orbit]
        rotated = np.einsum("aij,aj->ai", tables["rotations"][operation], points)
        return rotated + tables["translations"][operation] + self.lattice_shifts

    def unit_cell(self) -> UnitCell:
        """The ideal crystal in the input's cell, setting, frame and atom order, site properties included."""
        lattice = np.linalg.inv(self.transformation).T @ self.crystal.lattice @ self.rotation
        coords = self.standard_coords() @ self.transformation.T + self.origin_shift
        return UnitCell(
            lattice, coords, self.crystal.atomic_numbers[self.atom_to_orbit], self.site_properties
        )

    def to_structure(self) -> Any:
        """A pymatgen Structure of ``unit_cell()``: the input's own cell and frame, site properties included."""
        from nucleate.crystal.convert import unit_cell_to_pymatgen  # noqa: PLC0415  pymatgen loads late

        return unit_cell_to_pymatgen(self.unit_cell())

    def to_atoms(self) -> Any:
        """ASE Atoms of ``unit_cell()``: the input's own cell and frame, site properties included."""
        from nucleate.crystal.convert import unit_cell_to_ase  # noqa: PLC0415  ASE loads late

        return unit_cell_to_ase(self.unit_cell())

    def to_poscar(self, *, comment: str | None = None) -> str:
        """POSCAR text of ``unit_cell()``: the input's own cell and frame."""
        from nucleate.crystal.poscar import write_poscar  # noqa: PLC0415  keeps formats off the training path

        return write_poscar(self.unit_cell(), comment=comment or self.crystal.formula)

    def vectors_to_standard(self, vectors: Float[np.ndarray, "atoms 3"]) -> Float[np.ndarray, "atoms 3"]:
        """Cartesian vectors (forces, moments) of the user's frame in the frame of ``crystal.lattice``."""
        return vectors @ self.rotation.T

    def vectors_from_standard(self, vectors: Float[np.ndarray, "atoms 3"]) -> Float[np.ndarray, "atoms 3"]:
        """Cartesian vectors of the frame of ``crystal.lattice`` in the user's frame."""
        return vectors @ self.rotation

    def tensor_to_standard(self, tensor: Float[np.ndarray, "*axes"]) -> Float[np.ndarray, "*axes"]:
        """A Cartesian tensor of any rank from the user's frame to that of ``crystal.lattice``."""
        return _rotate_tensor(tensor, self.rotation)

    def tensor_from_standard(self, tensor: Float[np.ndarray, "*axes"]) -> Float[np.ndarray, "*axes"]:
        """A Cartesian tensor of any rank in the user's frame."""
        return _rotate_tensor(tensor, self.rotation.T)

    def vectors_to_orbits(self, vectors: Float[np.ndarray, "atoms 3"]) -> Float[np.ndarray, "orbits 3"]:
        """One vector per orbit: the user's atom vectors, rotated back to the representatives and averaged.

        The average is over the atoms of the orbit and the site symmetry of the representative. It is the
        inverse of ``vectors_from_orbits`` on every field that has the symmetry of the crystal; of any other
        field it keeps the symmetric part.
        """
        back = np.einsum("aji,aj->ai", self._cartesian_rotations(), self.vectors_to_standard(vectors))
        counts = np.bincount(self.atom_to_orbit)
        sums = np.stack([np.bincount(self.atom_to_orbit, back[:, i]) for i in range(3)], axis=1)
        lattice = self.crystal.lattice
        fixed = np.stack([p.stabiliser_rotations.mean(axis=0) for p in self.crystal.positions])
        components = (sums / counts[:, None]) @ np.linalg.inv(lattice)
        return np.einsum("oij,oj->oi", fixed, components) @ lattice

    def vectors_from_orbits(self, vectors: Float[np.ndarray, "orbits 3"]) -> Float[np.ndarray, "atoms 3"]:
        """The field of atom vectors in the user's frame that one vector per orbit stands for."""
        rotated = np.einsum("aij,aj->ai", self._cartesian_rotations(), vectors[self.atom_to_orbit])
        return self.vectors_from_standard(rotated)

    def _cartesian_rotations(self) -> Float[np.ndarray, "atoms 3 3"]:
        """R of each atom's operation in the frame of ``crystal.lattice``: ``r = R r_representative``."""
        lattice = self.crystal.lattice
        rotations = self.crystal.group.rotations[self.atom_to_operation]
        return np.einsum("ji,ajk,lk->ail", lattice, rotations, np.linalg.inv(lattice))


def _rotate_tensor(tensor: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    for axis in range(tensor.ndim):
        tensor = np.moveaxis(np.tensordot(rotation, tensor, axes=(1, axis)), 0, axis)
    return tensor
