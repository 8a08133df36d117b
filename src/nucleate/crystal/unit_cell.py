"""A unit cell as an explicit list of atoms: what every foreign structure becomes before it is encoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nucleate.shapes import Float, Int


@dataclass(frozen=True, eq=False)
class UnitCell:
    """Lattice and atoms of one cell, in any setting and any Cartesian frame.

    Attributes:
        lattice: rows a, b, c in Å.
        frac_coords: fractional coordinates, not wrapped.
        atomic_numbers: atomic number of each site (deuterium and tritium are 1).
        site_properties: per-site arrays carried along unchanged, first axis sites: ``magnetic_moment`` (μB),
            ``oxidation_state`` (e), ``mass_number`` (isotopes, 0 where natural), ``label``, forces, and
            anything else.
    """

    lattice: Float[np.ndarray, "3 3"]
    frac_coords: Float[np.ndarray, "sites 3"]
    atomic_numbers: Int[np.ndarray, "sites"]
    site_properties: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_atoms(self) -> int:
        """Number of sites in the cell."""
        return len(self.atomic_numbers)

    @property
    def volume(self) -> float:
        """Volume of the cell in Å³, positive for either handedness."""
        return abs(float(np.linalg.det(self.lattice)))

    @property
    def cart_coords(self) -> Float[np.ndarray, "sites 3"]:
        """Cartesian coordinates in Å."""
        return self.frac_coords @ self.lattice
