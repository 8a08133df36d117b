"""Crystals of one orbit on every kind of Wyckoff position."""

from __future__ import annotations

import numpy as np

from nucleate.crystal import Crystal, space_group

# general and special positions, centred, oblique, with and without identification maps
LETTERS = "1a 2i 5c 12i 62c 70f 99d 139e 148f 160b 166h 173b 194k 205c 216e 227e 227h"
POSITIONS = [(int(label[:-1]), label[-1]) for label in LETTERS.split()]


def one_orbit(number: int, letter: str, free: np.ndarray, seed: int = 0) -> Crystal:
    group = space_group(number)
    position = group.wyckoff_position(letter)
    params = np.random.default_rng(seed).normal(0, 0.1, group.lattice_subspace.num_params)
    params[0] = 1.7
    row = np.zeros((1, 3))
    row[0, : position.num_free] = free[: position.num_free]
    return Crystal(number, params, np.array([position.index]), np.array([14]), row)
