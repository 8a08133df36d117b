"""The periodic neighbour search against ASE's, for cells of any shape."""

from __future__ import annotations

import numpy as np
import pytest
from ase.neighborlist import primitive_neighbor_list

from nucleate.errors import InvalidStructureError
from nucleate.physics import neighbours_within


def _random_cell(rng: np.random.Generator, skewed: bool) -> np.ndarray:
    while True:
        lattice = rng.normal(size=(3, 3)) * rng.uniform(2.0, 8.0)
        if skewed:
            lattice[1] = 3.0 * lattice[0] + 0.3 * lattice[1]
        if abs(np.linalg.det(lattice)) > 15.0:
            return lattice


@pytest.mark.parametrize("skewed", [False, True])
def test_same_pairs_as_ase(rng, skewed):
    for _ in range(15):
        lattice = _random_cell(rng, skewed)
        frac = rng.uniform(-2.0, 2.0, size=(int(rng.integers(1, 7)), 3))
        radius = float(rng.uniform(1.0, 5.0))
        found = neighbours_within(lattice, frac, radius=radius)
        i, j, shift, distance = primitive_neighbor_list("ijSd", [True] * 3, lattice, frac @ lattice, radius)
        mine = {
            (int(a), int(b), *map(int, s)): d
            for a, b, s, d in zip(found.first, found.second, found.shifts, found.distances)
        }
        theirs = {(int(a), int(b), *map(int, s)): d for a, b, s, d in zip(i, j, shift, distance)}
        assert len(mine) == len(found)
        assert mine.keys() == theirs.keys()
        np.testing.assert_allclose([mine[k] for k in theirs], list(theirs.values()), atol=1e-9)


def test_own_images_of_a_lone_atom():
    found = neighbours_within(3.0 * np.eye(3), np.zeros((1, 3)), radius=3.0)
    assert len(found) == 6
    assert len(neighbours_within(3.0 * np.eye(3), np.zeros((1, 3)), radius=2.999)) == 0


def test_minimum_image_alone_would_miss_pairs():
    # The negative control: in a cell smaller than the radius, one image per pair is not the neighbourhood.
    found = neighbours_within(2.5 * np.eye(3), np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]), radius=5.1)
    i = primitive_neighbor_list("i", [True] * 3, 2.5 * np.eye(3), np.array([[0.0] * 3, [1.25] * 3]), 5.1)
    assert len(found) == len(i) > 2 * 2


def test_coordinates_just_below_zero_keep_their_neighbours():
    frac = np.array([[-1e-17, 0.0, 0.0], [0.3, 0.0, 0.0]])
    found = neighbours_within(10.0 * np.eye(3), frac, radius=3.5)
    assert len(found) == 2
    np.testing.assert_allclose(found.distances, 3.0)


def test_no_atoms_no_pairs():
    assert len(neighbours_within(np.eye(3), np.zeros((0, 3)), radius=2.0)) == 0


@pytest.mark.parametrize(
    ("lattice", "message"),
    [
        (np.zeros((3, 3)), "volume"),
        (np.diag([1.0, np.nan, 1.0]), "finite"),
        (np.diag([1e-6, 1e3, 1e3]), "planes"),
    ],
)
def test_collapsed_cells_are_refused(lattice, message):
    with pytest.raises(InvalidStructureError, match=message):
        neighbours_within(lattice, np.zeros((2, 3)), radius=500.0)
