"""The lattices a space group allows, as a linear space: free lattice parameters and back, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from math import acos, atanh, cos, cosh, exp, hypot, log, log1p, pi, sinh, sqrt

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
_IDENTITY = np.eye(3)
_ROUNDING = 1e-14  # strains below this are rounding

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

    @cached_property
    def inverse_reference(self) -> Float[np.ndarray, "3 3"] | None:
        """``A_ref^-1``, None where ``A_ref`` is the unit cube."""
        return None if self.reference[0, 0] == 1.0 else np.linalg.inv(self.reference)

    def fit(self, lattice: Float[np.ndarray, "3 3"], *, num_atoms: int) -> LatticeFit:
        """The ideal lattice nearest to a right-handed one, with the same volume.

        The metric of ``A_ref^-1 A`` is averaged over the group and its logarithm taken; to first order in the
        strain that is the average of S itself. Exact for an ideal lattice.

        Args:
            lattice: rows a, b, c in Å in the standard setting of the group.
            num_atoms: atoms in that (conventional) cell.

        Raises:
            InvalidStructureError: the lattice is left-handed or has no volume.
        """
        shape = lattice if self.inverse_reference is None else self.inverse_reference @ lattice
        a, b, c = shape.tolist()
        volume = (
            a[0] * (b[1] * c[2] - b[2] * c[1])
            + a[1] * (b[2] * c[0] - b[0] * c[2])
            + a[2] * (b[0] * c[1] - b[1] * c[0])
        )
        if not volume > 0:
            raise InvalidStructureError(
                f"the lattice has determinant {volume:.6g} Å^3; a right-handed cell with volume is "
                "needed (flip one axis and its coordinates)"
            )
        if self.num_params == 6:
            values, vectors = np.linalg.eigh(shape @ shape.T)
            logs = (vectors * (0.5 * np.log(values))) @ vectors.T
            rotation, strain = (vectors * values**-0.5) @ vectors.T @ shape, 0.0
            fitted = lattice
            (xx, xy, xz), (_, yy, yz), (_, _, zz) = logs.tolist()
        else:
            xx, yy, zz, xz = _log_of_average(a, b, c, num_params=self.num_params, log_volume=log(volume))
            xy = yz = 0.0
            rotation, strain = nearest_rotation(_stretch(-xx, -yy, -zz, -xz) @ shape)
            fitted = lattice
            if strain > _ROUNDING:
                fitted = _stretch(xx, yy, zz, xz) @ rotation
                if self.inverse_reference is not None:
                    fitted = self.reference @ fitted
        params = (
            _R3 * (xx + yy + zz - log(num_atoms)),
            _R6 * (2 * zz - xx - yy),
            _R2 * (xx - yy),
            xz / _R2,
            xy / _R2,
            yz / _R2,
        )
        return LatticeFit(np.array(params[: self.num_params]), fitted, rotation, strain)

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


def _log_of_average(
    a: list[float], b: list[float], c: list[float], *, num_params: int, log_volume: float
) -> tuple[float, float, float, float]:
    """xx, yy, zz and xz of half the logarithm of the group average of the metric, for up to 4 parameters.

    All other entries vanish in the standard setting. The trace is set to ``log_volume``.
    """
    # Plain floats: on a 3x3 matrix a call into LAPACK costs more than all of this.
    aa, bb, cc = (v[0] * v[0] + v[1] * v[1] + v[2] * v[2] for v in (a, b, c))
    xz = 0.0
    if num_params == 1:
        return log_volume / 3, log_volume / 3, log_volume / 3, xz
    if num_params == 2:
        xx = yy = 0.5 * log(0.5 * (aa + bb))
        zz = 0.5 * log(cc)
    elif num_params == 3:
        xx, yy, zz = 0.5 * log(aa), 0.5 * log(bb), 0.5 * log(cc)
    else:
        ac = a[0] * c[0] + a[1] * c[1] + a[2] * c[2]
        mean, half = 0.5 * (aa + cc), 0.5 * (aa - cc)
        radius = hypot(half, ac)
        middle = 0.25 * log(mean * mean - radius * radius)
        slope = 0.5 * (atanh(radius / mean) / radius if radius > 1e-8 * mean else 1 / mean)
        xx, yy, zz, xz = middle + slope * half, 0.5 * log(bb), middle - slope * half, slope * ac
    shift = (log_volume - xx - yy - zz) / 3
    return xx + shift, yy + shift, zz + shift, xz


def _stretch(xx: float, yy: float, zz: float, xz: float) -> Float[np.ndarray, "3 3"]:
    """``exp(S)`` of the symmetric matrix with these entries, the others zero."""
    if not xz:
        return np.array(((exp(xx), 0.0, 0.0), (0.0, exp(yy), 0.0), (0.0, 0.0, exp(zz))))
    half = 0.5 * (xx - zz)
    radius, scale = hypot(half, xz), exp(0.5 * (xx + zz))
    even, odd = scale * cosh(radius), scale * sinh(radius) / radius
    return np.array(
        ((even + odd * half, 0.0, odd * xz), (0.0, exp(yy), 0.0), (odd * xz, 0.0, even - odd * half))
    )


def nearest_rotation(matrix: Float[np.ndarray, "3 3"]) -> tuple[Float[np.ndarray, "3 3"], float]:
    """(rotation Q of ``matrix = exp(D) Q``, largest principal strain in D), for a matrix that is nearly Q.

    Newton-Schulz iteration ``Q <- Q - (Q Q^T - 1) Q / 2``, which converges quadratically.
    """
    excess = matrix @ matrix.T - _IDENTITY
    largest = _largest_entry(excess)
    if largest > 0.3:  # far from a rotation: slower, and converges from anywhere
        values, vectors = np.linalg.eigh(excess + _IDENTITY)
        return (vectors * values**-0.5) @ vectors.T @ matrix, float(np.abs(0.5 * np.log(values)).max())
    # Below 1e-9 it is rounding, and any norm will do.
    strain = (
        0.5 * largest if largest < 1e-9 else max(abs(0.5 * log1p(x)) for x in _extreme_eigenvalues(excess))
    )
    while largest > 1e-14:
        matrix = matrix - 0.5 * (excess @ matrix)
        if largest < 1e-7:  # what is left is of the order of its square
            break
        excess = matrix @ matrix.T - _IDENTITY
        largest = _largest_entry(excess)
    return matrix, strain


def _largest_entry(matrix: Float[np.ndarray, "3 3"]) -> float:
    a, b, c = matrix.tolist()
    return max(*a, *b, *c, -min(*a, *b, *c))


def _extreme_eigenvalues(matrix: Float[np.ndarray, "3 3"]) -> tuple[float, float]:
    """(largest, smallest) eigenvalue of a symmetric matrix, by the cosines that solve its cubic equation."""
    (xx, xy, xz), (_, yy, yz), (_, _, zz) = matrix.tolist()
    mean = (xx + yy + zz) / 3
    xx, yy, zz = xx - mean, yy - mean, zz - mean
    size = sqrt((xx * xx + yy * yy + zz * zz + 2 * (xy * xy + xz * xz + yz * yz)) / 6)
    if size == 0:
        return mean, mean
    determinant = xx * (yy * zz - yz * yz) - xy * (xy * zz - yz * xz) + xz * (xy * yz - yy * xz)
    angle = acos(min(1.0, max(-1.0, 0.5 * determinant / size**3))) / 3
    return mean + 2 * size * cos(angle), mean + 2 * size * cos(angle + 2 * pi / 3)


@cache
def lattice_subspace(lattice_system: str) -> LatticeSubspace:
    """The lattice subspace of a lattice system (one of ``NUM_LATTICE_PARAMS``)."""
    k = NUM_LATTICE_PARAMS[lattice_system]
    return LatticeSubspace(lattice_system, k, _REFERENCE[lattice_system], STRAIN_BASIS[:k])
