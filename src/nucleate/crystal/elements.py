"""Atomic masses and density, as much chemistry as a crystal needs to weigh itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from nucleate.crystal.species import element_symbol

GRAMS_PER_CM3_PER_U_PER_A3 = 1.66053906660
"""1 u/Å³ in g/cm³ (CODATA 2018 atomic mass constant)."""


@cache
def _masses() -> tuple[float, ...]:
    text = files("nucleate.crystal.tables").joinpath("atomic_masses.csv").read_text(encoding="utf-8")
    return tuple(float(line.split(",")[2]) for line in text.splitlines() if line and not line.startswith("#"))


def atomic_mass(atomic_number: int) -> float:
    """Standard atomic mass in unified atomic mass units (longest-lived isotope where no standard exists).

    Source: IUPAC Commission on Isotopic Abundances and Atomic Weights (2021), as tabulated by ASE.

    Raises:
        InvalidStructureError: the number is not 1 to 118.
    """
    element_symbol(atomic_number)
    return _masses()[atomic_number - 1]


def mass_density(counts: Mapping[int, int], volume: float) -> float:
    """Mass density in g/cm³ of so many atoms of each atomic number in ``volume`` Å³, natural isotopes."""
    mass = sum(atomic_mass(z) * count for z, count in counts.items())
    return GRAMS_PER_CM3_PER_U_PER_A3 * mass / volume
