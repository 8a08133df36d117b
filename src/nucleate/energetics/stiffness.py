"""How stiff a crystal is before anything has been computed: springs between neighbours, fitted once to CHGNet.

Between atoms i and j, r apart, with covalent radii R and ``s = r / (R_i + R_j)``, lie a spring along the bond and a
weaker one across it,

    k_L = sqrt(q_i q_j) exp(a_0 + a_1 (s - 1) + a_2 (s - 1)^2),      k_T likewise with b_0, b_1, b_2   (eV/Å^2),

and the energy of a small change of the distance vectors ``d -> d + e`` is
``1/2 sum_pairs k_L (e . d/|d|)^2 + k_T |e_perp|^2``. The stiffness q of each element and the six coefficients are
fitted by ``scripts/fit_stiffness.py`` to second derivatives of CHGNet in relaxed crystals. The idea is that of the
preconditioner of Packwood et al., J. Chem. Phys. 144, 164109 (2016), and of the model Hessian of Lindh et al., Chem.
Phys. Lett. 241, 423 (1995), with the cell and its coupling to the atoms in it.
"""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

import numpy as np
from scipy import sparse

from nucleate.crystal.crystal import Crystal
from nucleate.energetics.symmetric_coordinates import SymmetricCoordinates
from nucleate.physics.elements import NUM_ELEMENTS, element_values
from nucleate.physics.neighbours import neighbours_within
from nucleate.shapes import Float

REACH = 1.9
"""Springs end at this multiple of the sum of the covalent radii."""

FLOOR = 0.02
"""Least stiffness of a free coordinate per atom, eV/Å^2: directions the springs leave loose, and the floating
origin."""

CELL_FLOOR = 0.5
"""Least stiffness of a strain, eV per atom: about 5 GPa."""


@functools.cache
def stiffness_table() -> dict[str, Any]:
    """The shipped coefficients: ``longitudinal``, ``transverse`` (three numbers) and ``elements`` (log q by Z - 1)."""
    path = resources.files("nucleate.energetics").joinpath("tables", "stiffness.json")
    return json.loads(path.read_text(encoding="utf-8"))


class SpringNetwork:
    """The springs of one crystal, each with how it changes with the coordinates x.

    Only springs that start at a representative are listed, weighted by the atoms of its orbit: in a motion that keeps
    the symmetry the others do the same.

    Attributes:
        first, second: atomic numbers at both ends.
        ratio: s of each spring.
        weight: half the number of such springs in the primitive cell (each has two ends).
        longitudinal: change of the distance with x, (springs, x).
        transverse: three rows per spring, change of the distance vector across the bond with x.

    Raises:
        InvalidStructureError: the cell is collapsed beyond searching.
    """

    def __init__(self, coordinates: SymmetricCoordinates, crystal: Crystal) -> None:
        cell = crystal.unit_cell("primitive")
        radii = element_values("covalent_radius", np.minimum(cell.atomic_numbers, NUM_ELEMENTS))
        pairs = neighbours_within(cell.lattice, cell.frac_coords, radius=REACH * 2 * float(radii.max()))
        counts = crystal.multiplicities_primitive
        representatives = np.cumsum(counts) - counts
        ratio = pairs.distances / (radii[pairs.first] + radii[pairs.second])
        keep = np.isin(pairs.first, representatives) & (ratio < REACH) & (pairs.distances > 1e-3)
        first, second = pairs.first[keep], pairs.second[keep]
        self.first, self.second = cell.atomic_numbers[first], cell.atomic_numbers[second]
        self.ratio = ratio[keep]
        self.weight = 0.5 * counts[crystal.atom_to_orbit[first]]
        vectors = (cell.frac_coords[second] + pairs.shifts[keep] - cell.frac_coords[first]) @ cell.lattice
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

        blocks = []
        if coordinates.num_lattice:
            deformations = coordinates.deformations(crystal)
            strains = (deformations + deformations.swapaxes(1, 2)) / 2
            blocks.append(
                sparse.csr_array(np.einsum("si,kij->sjk", vectors, strains).reshape(-1, len(strains)))
            )
        # Å per unit of u; the three rows of an atom touch only its own orbit's columns
        rows = sparse.csr_array(_cartesian_jacobian(coordinates, crystal))
        blocks.append(rows[_three(second)] - rows[_three(first)])
        change = sparse.csr_array(sparse.hstack(blocks))
        count = len(unit)
        along = sparse.csr_array(
            (unit.ravel(), np.arange(3 * count), np.arange(0, 3 * count + 1, 3)), shape=(count, 3 * count)
        )
        self.longitudinal = sparse.csr_array(along @ change)
        self.transverse = sparse.csr_array(change - along.T @ self.longitudinal)

    def hessian(self) -> Float[np.ndarray, "x x"]:
        """Second derivatives of the springs' energy by x, eV per primitive cell."""
        table = stiffness_table()
        elements = np.asarray(table["elements"])
        pair = 0.5 * (elements[self.first - 1] + elements[self.second - 1])
        along, across = (
            self.weight * np.exp(pair + np.polynomial.polynomial.polyval(self.ratio - 1, table[name]))
            for name in ("longitudinal", "transverse")
        )
        stretch = self.longitudinal.T @ sparse.diags_array(along) @ self.longitudinal
        shear = self.transverse.T @ sparse.diags_array(np.repeat(across, 3)) @ self.transverse
        return (stretch + shear).toarray()


def model_hessian(coordinates: SymmetricCoordinates, crystal: Crystal) -> Float[np.ndarray, "x x"]:
    """A positive definite guess of the second derivatives of the energy by x, eV per primitive cell."""
    return SpringNetwork(coordinates, crystal).hessian() + floor_hessian(coordinates, crystal)


def floor_hessian(coordinates: SymmetricCoordinates, crystal: Crystal) -> Float[np.ndarray, "x x"]:
    """The least stiffness every motion has: a small spring to its place for each atom, and for each strain."""
    floor = np.zeros((coordinates.num_variables, coordinates.num_variables))
    k = coordinates.num_lattice
    if k:
        # the parameters are strains in an orthonormal basis
        floor[:k, :k] = CELL_FLOOR * crystal.num_atoms_primitive * np.eye(k)
    moved = _cartesian_jacobian(coordinates, crystal)
    floor[k:, k:] = FLOOR * moved.T @ moved
    return floor


def _cartesian_jacobian(coordinates: SymmetricCoordinates, crystal: Crystal) -> Float[np.ndarray, "rows u"]:
    """Å that each atom moves per unit of each free coordinate, three rows per atom."""
    moved = np.einsum("aiu,ij->aju", coordinates.jacobian, crystal.lattice)
    return moved.reshape(3 * len(moved), moved.shape[2])


def _three(atoms: np.ndarray) -> np.ndarray:
    """The three rows of each atom."""
    return (3 * atoms[:, None] + np.arange(3)).ravel()
