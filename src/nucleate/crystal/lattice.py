"""The lattices a space group allows, as a linear space: free lattice parameters and back, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from nucleate.errors import InvalidStructureError
from nucleate.shapes import Float

_R2, _R3, _R6 = 2**-0.5, 3**-0.5, 6**-0.5

#: Orthonormal basis (Frobenius product) of symmetric 3x3 matrices. Every lattice system is spanned by the
#: first 1 (cubic), 2 (tetragonal, hexagonal, rhombohedral in hexagonal axes), 3 (orthorhombic), 4
#: (monoclinic, unique axis b) or 6 (triclinic) of them.
STRAIN_BASIS = np.array(
    [
        [[_R3, 0, 0], [0, _R3, 0], [0, 0, _R3]],
        [[-_R6, 0, 0], [0, -_R6, 0], [0, 0, 2 * _R6]],
        [[_R2, 0, 0], [0, -_R2, 0], [0, 0, 0]],
        [[0, 0, _R2], [0, 0, 0], [_R2, 0, 0]],
        [[0, _R2, 0], [_R2, 0, 0], [0, 0, 0]],
        [[0, 0, 0], [0, 0, _R2], [0, _R2, 0]],
    ]
)
STRAIN_BASIS.setflags(write=False)

NUM_LATTICE_PARAMS = {
    "cubic": 1,
    "hexagonal": 2,
    "rhombohedral": 2,
    "tetragonal": 2,
    "orthorhombic": 3,
    "monoclinic": 4,
    "triclinic": 6,
}

_HEXAGONAL_EDGE = (2 * _R3) ** (1 / 3)  # a = c of the hexagonal reference cell, so that its volume is 1
_REFERENCE = {
    name: np.eye(3)
    if name not in ("hexagonal", "rhombohedral")
    else _HEXAGONAL_EDGE * np.array([[1.0, 0, 0], [-0.5, 3**0.5 / 2, 0], [0, 0, 1.0]])
    for name in NUM_LATTICE_PARAMS
}


def symmetric_function(function: np.ufunc, matrix: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    """f(S) of a symmetric matrix through its eigenvalues."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * function(values)) @ vectors.T


@dataclass(frozen=True)
class LatticeFit:
    """A foreign lattice split into its ideal shape, its frame and what does not fit.

    Attributes:
        params: free lattice parameters, (k,).
        lattice: ideal lattice in the frame of the input, rows a, b, c in Å.
        rotation: orthogonal Q with ``lattice = A_ref exp(S) Q``.
        strain: largest principal strain between the input and the ideal lattice (logarithmic, dimensionless).
    """

    params: Float[np.ndarray, "k"]
    lattice: Float[np.ndarray, "3 3"]
    rotation: Float[np.ndarray, "3 3"]
    strain: float


@dataclass(frozen=True, eq=False)
class LatticeSubspace:
    """The lattices compatible with a lattice system: ``A = A_ref exp(S) Q``, rows a, b, c.

    ``A_ref`` is the reference shape (volume 1): a cube, or the hexagonal cell with c = a. ``S`` is symmetric
    and invariant under every ``R = A_ref^-1 W^T A_ref``; ``Q`` is the orientation. In the orthonormal
    ``STRAIN_BASIS``, ``S = sum_i s_i E_i``; with ``s_0 = ln(V)/sqrt(3)`` the only volume term. The free
    parameters are

        p_0 = ln(V / N) / sqrt(3),   p_i = s_i   (i >= 1),

    V / N the volume per atom in Å^3: crystals of one composition and packing have nearly the same p_0
    whatever their cell. Every real vector p is a lattice of the system, and every lattice of the system in
    this setting is one p.
    """

    lattice_system: str
    num_params: int
    reference: Float[np.ndarray, "3 3"]
    basis: Float[np.ndarray, "k 3 3"]

    def fit(self, lattice: Float[np.ndarray, "3 3"], *, num_atoms: int) -> LatticeFit:
        """The ideal lattice nearest to a right-handed one: the group average of S in the logarithm.

        Args:
            lattice: rows a, b, c in Å in the standard setting of the group.
            num_atoms: atoms in that (conventional) cell.

        Raises:
            InvalidStructureError: the lattice is left-handed or has no volume.
        """
        determinant = float(np.linalg.det(lattice))
        if not determinant > 0:
            raise InvalidStructureError(
                f"the lattice has determinant {determinant:.6g} Å^3; a right-handed cell with volume is "
                "needed (flip one axis and its coordinates)"
            )
        shape = np.linalg.solve(self.reference, lattice)
        values, vectors = np.linalg.eigh(shape @ shape.T)
        strain = (vectors * (0.5 * np.log(values))) @ vectors.T
        params = self.basis.reshape(-1, 9) @ strain.ravel()
        ideal = params @ self.basis.reshape(-1, 9)
        ideal = ideal.reshape(3, 3)
        rotation = (vectors * values**-0.5) @ vectors.T @ shape
        residual = np.abs(np.linalg.eigvalsh(strain - ideal)).max()
        params[0] -= _R3 * np.log(num_atoms)
        fitted = self.reference @ symmetric_function(np.exp, ideal) @ rotation
        return LatticeFit(params, fitted, rotation, float(residual))

    def params_of_metric(
        self, metric: Float[np.ndarray, "*batch 3 3"], *, num_atoms: int
    ) -> Float[np.ndarray, "*batch k"]:
        """Free parameters of lattices given by their metric ``G = A A^T`` in Å^2, in the standard setting.

        The metric must already have the symmetry of the system, as after a change of encoding; nothing is
        averaged away but rounding.
        """
        inverse = np.linalg.inv(self.reference)
        values, vectors = np.linalg.eigh(inverse @ metric @ inverse.T)
        strain = (vectors * (0.5 * np.log(values))[..., None, :]) @ np.swapaxes(vectors, -1, -2)
        params = np.einsum("...ij,kij->...k", strain, self.basis)
        params[..., 0] -= _R3 * np.log(num_atoms)
        return params

    def to_lattice(self, params: Float[np.ndarray, "k"], *, num_atoms: int) -> Float[np.ndarray, "3 3"]:
        """The lattice ``A_ref exp(S)`` (Q = 1) with these free parameters, rows a, b, c in Å.

        Raises:
            InvalidStructureError: wrong number of parameters.
        """
        if len(params) != self.num_params:
            raise InvalidStructureError(
                f"a {self.lattice_system} lattice has {self.num_params} free parameters, got {len(params)}"
            )
        strain = np.tensordot(params, self.basis, axes=1)
        strain = strain + np.eye(3) * (np.log(num_atoms) / 3)
        return self.reference @ symmetric_function(np.exp, strain)


@cache
def lattice_subspace(lattice_system: str) -> LatticeSubspace:
    """The lattice subspace of a lattice system (one of ``NUM_LATTICE_PARAMS``)."""
    k = NUM_LATTICE_PARAMS[lattice_system]
    return LatticeSubspace(lattice_system, k, _REFERENCE[lattice_system], STRAIN_BASIS[:k])
