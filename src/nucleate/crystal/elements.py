"""Atomic masses, as much chemistry as a crystal needs to weigh itself."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from nucleate.crystal.species import element_symbol


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
