"""Bond valence sums: whether the bonds of each atom add up to its oxidation state."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from nucleate.evaluation.surroundings import Surroundings
from nucleate.physics.bond_valence import SOFTNESS, bond_valence_table
from nucleate.shapes import Float

CUTOFF = 4.0
"""Å; a bond that long has a valence below 0.02."""


def bond_valence_sums(around: Surroundings) -> Float[np.ndarray, "atoms"]:
    """Signed bond valence sum of each atom in valence units; NaN where a bond's element has no parameters.

        V_i = sum_j sign(chi_j - chi_i) exp((R_ij - d_ij) / 0.31)

    over neighbours of another element within 4 Å where one of the two forms anions; positive for cations.

    Source: M. O'Keeffe and N. E. Brese, J. Am. Chem. Soc. 113 (1991) 3226, parameters and ``R_ij`` of
    ``physics.bond_valence``.
    """
    table = bond_valence_table()
    chi, anion = table.electronegativity, table.forms_anions
    z = np.minimum(around.atomic_numbers, 127)
    near = around.distances <= CUTOFF
    i, j = z[around.first[near]], z[around.second[near]]
    counted = (i != j) & (anion[i] | anion[j])
    i, j, atom = i[counted], j[counted], around.first[near][counted]
    distance = around.distances[near][counted]
    # Atoms on top of each other would overflow; a valence of e^50 is as impossible as any larger one.
    valence = np.exp(np.minimum((table.lengths[i, j] - distance) / SOFTNESS, 50.0)) * np.where(
        chi[i] < chi[j], 1.0, -1.0
    )
    return np.bincount(atom, valence, minlength=around.num_atoms)


def instability_index(around: Surroundings, mean_states: Mapping[int, float]) -> float:
    """Global instability index in valence units, NaN where states or parameters are missing.

        G = sqrt( mean over atoms of (V_i - o_i)^2 )

    with o_i the mean oxidation state of the atom's element. Real crystals are below 0.2 where the parameters are
    good and the states are known (oxides), often higher elsewhere.

    Args:
        around: the pairs of the crystal.
        mean_states: oxidation state of each element, by atomic number.

    Source: A. Salinas-Sanchez, J. L. Garcia-Munoz, J. Rodriguez-Carvajal et al., J. Solid State Chem. 100 (1992) 201.
    """
    states = np.array([mean_states.get(z, math.nan) for z in around.atomic_numbers.tolist()])
    if not len(states) or not np.isfinite(states).all() or not states.any():
        return math.nan
    return float(np.sqrt(np.mean((bond_valence_sums(around) - states) ** 2)))
