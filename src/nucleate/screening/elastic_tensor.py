"""Elastic tensors: Voigt's notation and the full tensor, rotation, and the averages over a polycrystal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nucleate.shapes import Float

_PAIR = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
_VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def from_voigt(tensor: Float[np.ndarray, "6 6"]) -> Float[np.ndarray, "3 3 3 3"]:
    """The full stiffness tensor ``c_ijkl`` of a Voigt matrix in the order xx, yy, zz, yz, xz, xy."""
    return tensor[_PAIR[:, :, None, None], _PAIR[None, None]]


def to_voigt(full: Float[np.ndarray, "3 3 3 3"]) -> Float[np.ndarray, "6 6"]:
    """The Voigt matrix of a full stiffness tensor, averaged over its minor symmetries."""
    full = (full + full.transpose(1, 0, 2, 3)) / 2
    full = (full + full.transpose(0, 1, 3, 2)) / 2
    return np.array([[full[i, j, k, m] for k, m in _VOIGT] for i, j in _VOIGT])


def rotate(
    full: Float[np.ndarray, "3 3 3 3"], rotation: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "3 3 3 3"]:
    """``c'_ijkl = R_ia R_jb R_kc R_ld c_abcd``: the tensor after an orthogonal map, or in axes that are R's rows."""
    for axis in range(4):
        full = np.moveaxis(np.tensordot(rotation, full, axes=(1, axis)), 0, axis)
    return full


@dataclass(frozen=True)
class ElasticModuli:
    """Averages over a polycrystal without texture, GPa where not said otherwise.

    Voigt's bounds take uniform strain, Reuss's uniform stress; Hill's value is their mean.

    Attributes:
        bulk_voigt: Voigt's bulk modulus.
        bulk_reuss: Reuss's bulk modulus.
        shear_voigt: Voigt's shear modulus.
        shear_reuss: Reuss's shear modulus.
    """

    bulk_voigt: float
    bulk_reuss: float
    shear_voigt: float
    shear_reuss: float

    @property
    def bulk(self) -> float:
        """Hill's bulk modulus."""
        return (self.bulk_voigt + self.bulk_reuss) / 2

    @property
    def shear(self) -> float:
        """Hill's shear modulus."""
        return (self.shear_voigt + self.shear_reuss) / 2

    @property
    def young(self) -> float:
        """Young's modulus ``9 B G / (3 B + G)``."""
        return 9 * self.bulk * self.shear / (3 * self.bulk + self.shear)

    @property
    def poisson(self) -> float:
        """Poisson's ratio ``(3 B - 2 G) / (6 B + 2 G)``, without unit."""
        return (3 * self.bulk - 2 * self.shear) / (6 * self.bulk + 2 * self.shear)

    @property
    def anisotropy(self) -> float:
        """Universal anisotropy ``5 G_V/G_R + B_V/B_R - 6``, without unit, 0 for an isotropic crystal.

        Ranganathan and Ostoja-Starzewski, Physical Review Letters 101, 055504 (2008).
        """
        return 5 * self.shear_voigt / self.shear_reuss + self.bulk_voigt / self.bulk_reuss - 6


def moduli(tensor: Float[np.ndarray, "6 6"]) -> ElasticModuli:
    """Polycrystal averages of a positive definite stiffness tensor in GPa (Hill, Proc. Phys. Soc. A 65, 349 (1952))."""
    s = np.linalg.inv(tensor)
    normal, mixed = np.trace(tensor[:3, :3]), tensor[0, 1] + tensor[0, 2] + tensor[1, 2]
    shear = np.trace(tensor[3:, 3:])
    normal_s, mixed_s = np.trace(s[:3, :3]), s[0, 1] + s[0, 2] + s[1, 2]
    shear_s = np.trace(s[3:, 3:])
    return ElasticModuli(
        float((normal + 2 * mixed) / 9),
        float(1 / (normal_s + 2 * mixed_s)),
        float((normal - mixed + 3 * shear) / 15),
        float(15 / (4 * normal_s - 4 * mixed_s + 3 * shear_s)),
    )
