"""Distances, the published rule, cell shapes and volumes against pymatgen and arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from pymatgen.core import Structure

from nucleate.crystal import UnitCell
from nucleate.errors import InvalidStructureError
from nucleate.evaluation.structure_validity import (
    cell_shape,
    density_check,
    is_structurally_valid,
    nearest_pair,
    volume_spreads,
)
from nucleate.evaluation.surroundings import surroundings
from nucleate.physics.distances import distance_violations


def _cell(atoms: object) -> UnitCell:
    return UnitCell(np.array(atoms.cell), atoms.get_scaled_positions(), np.array(atoms.numbers))


def _random_cell(rng: np.random.Generator) -> UnitCell:
    n = int(rng.integers(1, 9))
    lattice = (np.eye(3) + 0.25 * rng.normal(size=(3, 3))) * rng.uniform(0.7, 4.0)
    return UnitCell(lattice, rng.uniform(-1, 2, size=(n, 3)), rng.integers(1, 90, size=n))


def _published(cell: UnitCell) -> bool:
    """``structure_validity`` of CDVAE, on pymatgen's distance matrix."""
    structure = Structure(cell.lattice, cell.atomic_numbers, cell.frac_coords)
    matrix = structure.distance_matrix + np.diag(np.full(len(structure), 10.5))
    return bool(matrix.min() >= 0.5 and structure.volume >= 0.1)


def test_published_rule_agrees_with_pymatgen_on_random_cells() -> None:
    rng, answers = np.random.default_rng(3), []
    while len(answers) < 80:
        cell = _random_cell(rng)
        if cell.volume < 0.05:
            continue
        answers.append(_published(cell))
        assert is_structurally_valid(cell, surroundings(cell)) == answers[-1]
    assert 0.1 < np.mean(answers) < 0.9


def test_shortest_distance_agrees_with_pymatgen_and_own_images_count() -> None:
    rng = np.random.default_rng(4)
    for _ in range(40):
        cell = _random_cell(rng)
        if cell.volume < 1:
            continue
        structure = Structure(cell.lattice, cell.atomic_numbers, cell.frac_coords)
        nearest = nearest_pair(surroundings(cell))
        reach = nearest.distance + 1.0
        expected = min(n.nn_distance for site in structure for n in structure.get_neighbors(site, reach))
        assert nearest.distance == pytest.approx(expected, abs=1e-9)


def test_published_rule_is_blind_to_own_images_and_the_pair_check_is_not() -> None:
    cell = UnitCell(np.diag([0.4, 5.0, 5.0]), np.zeros((1, 3)), np.array([26]))
    around = surroundings(cell)
    assert is_structurally_valid(cell, around)
    assert nearest_pair(around).distance == pytest.approx(0.4)
    assert nearest_pair(around, by_ratio=True).own_image
    assert nearest_pair(around, by_ratio=True).ratio < 0.3


def test_pair_ratio_finds_what_distance_violations_finds() -> None:
    rng = np.random.default_rng(5)
    for _ in range(30):
        cell = _random_cell(rng)
        if cell.volume < 5:
            continue
        assert (nearest_pair(surroundings(cell), by_ratio=True).ratio >= 1) == distance_violations(cell).ok


@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_compressed_crystals_fail(scale: float) -> None:
    cell = _cell(bulk("NaCl", "rocksalt", a=5.64 * scale))
    ratio = nearest_pair(surroundings(cell), by_ratio=True).ratio
    assert (ratio >= 1) == (scale == 1.0)
    assert (abs(volume_spreads({11: 1, 17: 1}, cell.volume)) < 6) == (scale == 1.0)


def test_reduced_cell_does_not_depend_on_the_choice_of_cell() -> None:
    lattice = np.diag([3.0, 4.0, 5.0])
    skewed = np.array([[1, 0, 0], [3, 1, 0], [-2, 4, 1]]) @ lattice
    assert cell_shape(skewed) == cell_shape(lattice)
    shape = cell_shape(lattice)
    assert (shape.shortest, shape.longest) == pytest.approx((3.0, 5.0))
    assert (shape.smallest_angle, shape.largest_angle) == pytest.approx((90.0, 90.0))
    assert shape.reason == ""
    assert "repeats after 1.5" in cell_shape(np.diag([1.5, 4, 4])).reason
    assert "times as long" in cell_shape(np.diag([3.0, 4, 60])).reason


def test_density_is_pymatgens() -> None:
    structure = Structure.from_spacegroup("Fm-3m", np.eye(3) * 5.64, ["Na", "Cl"], [[0, 0, 0], [0.5, 0, 0]])
    check = density_check({11: 4, 17: 4}, structure.volume)
    assert check.density == pytest.approx(structure.density, rel=1e-4)
    assert check.ok
    assert not density_check({11: 4, 17: 4}, 30 * structure.volume).ok


def test_collapsed_cells_are_refused_with_numbers() -> None:
    with pytest.raises(InvalidStructureError, match="Å"):
        surroundings(UnitCell(np.diag([4.0, 4.0, 0.0]), np.zeros((1, 3)), np.array([26])))
