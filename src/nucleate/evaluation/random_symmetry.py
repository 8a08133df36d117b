"""Random crystals of a given composition and exact symmetry: the control without any knowledge of energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nucleate.crystal import Crystal, SpaceGroup, space_group
from nucleate.errors import ConfigError, WyckoffError
from nucleate.shapes import Int

_MAX_FORMULAS = 4
_TRIES = 200


def random_symmetric_crystal(
    composition: Mapping[int, int],
    *,
    groups: Sequence[int],
    volume_per_atom: float,
    rng: np.random.Generator,
    strain: float = 0.15,
) -> Crystal:
    """A crystal of this composition with a group, positions, coordinates and cell shape drawn at random.

    A group is drawn from ``groups``; one to four times the reduced composition is put onto its Wyckoff positions by
    drawing positions at random until every element is placed, and another draw is made where that fails. Free
    coordinates are uniform, the lattice parameters beside volume normal around those of the reference shape.

    Args:
        composition: atoms of each element by atomic number, in any multiple.
        groups: numbers of the space groups to draw from; repeated ones are more likely.
        volume_per_atom: Å³.
        rng: random generator.
        strain: standard deviation of the lattice parameters (logarithmic strains).

    Raises:
        ConfigError: the composition fits none of the groups.
    """
    divisor = int(np.gcd.reduce(list(composition.values())))
    for _ in range(_TRIES):
        group = space_group(int(rng.choice(np.asarray(groups))))
        formulas = int(rng.integers(1, _MAX_FORMULAS + 1))
        counts = {z: n // divisor * formulas for z, n in composition.items()}
        placed = _placed(group, counts, rng)
        if placed is None:
            continue
        indices, numbers = placed
        order = np.lexsort((numbers, indices))
        indices, numbers = indices[order], numbers[order]
        free = rng.random((len(indices), 3))
        for row, index in zip(free, indices):
            row[group.wyckoff_positions[index].num_free :] = 0.0
        params = rng.normal(0.0, strain, size=group.lattice_subspace.num_params)
        params[0] = np.log(volume_per_atom) / np.sqrt(3)
        crystal = Crystal(group.number, params, indices, numbers, free)
        try:
            crystal.check_orbits()
        except WyckoffError:  # a draw so near a special point that atoms of an orbit meet
            continue
        return crystal
    raise ConfigError(
        f"composition {dict(composition)} was not placed in {_TRIES} draws from groups "
        f"{sorted(set(map(int, groups)))}: give groups with smaller multiplicities"
    )


def _placed(
    group: SpaceGroup, counts: Mapping[int, int], rng: np.random.Generator
) -> tuple[Int[np.ndarray, "orbits"], Int[np.ndarray, "orbits"]] | None:
    """(position, element) of the orbits of one random filling of the cell, None where a draw ran into an end."""
    positions = group.wyckoff_positions
    sizes = np.array([p.multiplicity_primitive for p in positions])
    left = np.array(
        [p.num_free > 0 for p in positions]
    )  # those with free coordinates hold any number of orbits
    unused = np.ones(len(positions), dtype=bool)
    indices, numbers = [], []
    for z in rng.permutation(sorted(counts)).tolist():
        missing = counts[z]
        while missing:
            fits = np.flatnonzero((sizes <= missing) & (left | unused))
            if not len(fits):
                return None
            chosen = int(rng.choice(fits))
            unused[chosen] = False
            missing -= int(sizes[chosen])
            indices.append(chosen)
            numbers.append(z)
    return np.array(indices, dtype=np.int64), np.array(numbers, dtype=np.int64)
