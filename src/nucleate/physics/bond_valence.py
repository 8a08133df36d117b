"""Bond valences from two numbers per element: how much a bond of some length adds to the valence of its atoms.

    s_ij = exp((R_ij - d_ij) / 0.31 Å)
    R_ij = r_i + r_j - r_i r_j (sqrt(c_i) - sqrt(c_j))^2 / (c_i r_i + c_j r_j)

Source: M. O'Keeffe and N. E. Brese, J. Am. Chem. Soc. 113 (1991) 3226. The table is written by
``scripts/build_bond_valence_table.py``.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources

import numpy as np

from nucleate.shapes import Bool, Float

SOFTNESS = 0.31
"""Å, of the element parameters of O'Keeffe and Brese 1991."""

_SIZE = 128


@dataclass(frozen=True, eq=False)
class BondValenceTable:
    """What bond valences are made of, by atomic number up to 127; NaN where there is nothing.

    Attributes:
        lengths: ``R_ij`` in Å, the length of a bond of valence 1.
        electronegativity: Pauling's, for the elements that have parameters.
        forms_anions: whether an element can be the negative end of a bond.
    """

    lengths: Float[np.ndarray, "elements elements"]
    electronegativity: Float[np.ndarray, "elements"]
    forms_anions: Bool[np.ndarray, "elements"]


@functools.cache
def bond_valence_table() -> BondValenceTable:
    """The table; its arrays cannot be written to."""
    content = json.loads(
        resources.files("nucleate.physics").joinpath("tables/bond_valence.json").read_text("utf-8")
    )
    r, c, chi = (np.full(_SIZE, np.nan) for _ in range(3))
    z = content["atomic_numbers"]
    r[z], c[z], chi[z] = content["r"], content["c"], content["electronegativity"]
    anions = np.zeros(_SIZE, dtype=bool)
    anions[content["anion_formers"]] = True
    root = np.sqrt(c)
    weight = c * r
    lengths = (
        r[:, None]
        + r[None]
        - np.outer(r, r) * (root[:, None] - root[None]) ** 2 / (weight[:, None] + weight[None])
    )
    for array in (lengths, chi, anions):
        array.setflags(write=False)
    return BondValenceTable(lengths, chi, anions)
