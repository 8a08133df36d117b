"""Energies of crystals from interatomic potentials: calculators, relaxation inside the symmetry, hulls, cache."""
