"""Minimum distances: the table, the checker, real crystals that pass and compressed ones that do not."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from nucleate.crystal.unit_cell import UnitCell
from nucleate.errors import InvalidStructureError
from nucleate.physics import distance_violations, minimum_distance, minimum_distance_matrix
from nucleate.physics.distances import distance_evidence_matrix


def _rock_salt(a: float) -> UnitCell:
    cations = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    frac = np.concatenate([cations, cations + np.array([0.5, 0.0, 0.0])])
    return UnitCell(a * np.eye(3), frac, np.array([11] * 4 + [17] * 4))


def _val_cells(folder, count: int) -> list[UnitCell]:
    columns = ["numbers", "lattice", "frac_coords"]
    table = pq.read_table(folder / "mp_20.parquet", columns=columns, filters=[("pool", "=", "val")])
    cells = []
    for row in table.to_pylist()[:: max(1, len(table) // count)]:
        lattice, frac = np.array(row["lattice"]).reshape(3, 3), np.array(row["frac_coords"]).reshape(-1, 3)
        cells.append(UnitCell(lattice, frac, np.array(row["numbers"], dtype=np.int64)))
    return cells


def test_matrix_is_symmetric_positive_and_read_only():
    matrix = minimum_distance_matrix()
    assert matrix.shape == (104, 104)
    np.testing.assert_array_equal(matrix, matrix.T)
    assert (matrix[1:, 1:] > 0.4).all()
    assert (matrix < 5.0).all()
    with pytest.raises(ValueError, match="read-only"):
        matrix[1, 1] = 0.0


def test_pairs_are_near_what_chemistry_knows():
    assert 0.6 < minimum_distance(1, 1) < 0.75  # H2: 0.74 Å
    assert 1.0 < minimum_distance(8, 8) < 1.3  # O2: 1.21 Å
    assert 0.8 < minimum_distance(1, 8) < 1.0  # O-H: 0.96 Å
    assert 2.0 < minimum_distance(11, 17) < 2.8  # NaCl: 2.82 Å
    assert minimum_distance(11, 17) == minimum_distance(17, 11)
    assert distance_evidence_matrix()[8, 8] > 5000
    assert distance_evidence_matrix()[2, 10] == 0


def test_rock_salt_passes_and_fails_when_compressed():
    assert distance_violations(_rock_salt(5.64)).ok
    assert distance_violations(_rock_salt(5.64)).reason == ""
    crushed = distance_violations(_rock_salt(0.7 * 5.64))
    assert not crushed.ok
    assert len(crushed) > 0
    assert (crushed.distances < crushed.minimums).all()
    assert "real" in crushed.reason
    # Worst ratio first.
    assert (np.diff(crushed.distances / crushed.minimums) >= -1e-12).all()


def test_own_periodic_images_count():
    lone = UnitCell(np.diag([1.4, 6.0, 6.0]), np.zeros((1, 3)), np.array([26]))
    found = distance_violations(lone)
    assert len(found) == 1
    assert found.first[0] == found.second[0] == 0
    np.testing.assert_array_equal(np.abs(found.shifts[0]), [1, 0, 0])
    assert "own periodic image" in found.reason


def test_each_pair_stands_once():
    two = UnitCell(8.0 * np.eye(3), np.array([[0.0, 0, 0], [0.1, 0, 0]]), np.array([26, 26]))
    found = distance_violations(two)
    assert len(found) == 1
    assert found.distances[0] == pytest.approx(0.8)
    # The pair across the cell boundary is the same pair in another description.
    shifted = UnitCell(8.0 * np.eye(3), np.array([[0.95, 0, 0], [0.05, 0, 0]]), np.array([26, 26]))
    assert distance_violations(shifted).distances[0] == pytest.approx(0.8)


def test_result_does_not_depend_on_the_choice_of_cell(rng):
    crushed = _rock_salt(0.72 * 5.64)
    basis = np.array([[1, 4, 0], [0, 1, 3], [0, 0, 1]])
    skewed = UnitCell(
        basis @ crushed.lattice,
        crushed.frac_coords @ np.linalg.inv(basis) + rng.integers(-3, 4, size=(8, 3)),
        crushed.atomic_numbers,
    )
    a, b = distance_violations(crushed), distance_violations(skewed)
    np.testing.assert_allclose(np.sort(a.distances), np.sort(b.distances), atol=1e-9)


def test_real_crystals_pass_and_compressed_or_random_ones_do_not(shared_data, rng):
    cells = _val_cells(shared_data, 400)
    flagged = np.mean([not distance_violations(cell).ok for cell in cells])
    assert flagged < 0.005
    compressed = [
        not distance_violations(UnitCell(0.7 * c.lattice, c.frac_coords, c.atomic_numbers)).ok for c in cells
    ]
    assert np.mean(compressed) > 0.97
    random = [
        not distance_violations(UnitCell(c.lattice, rng.random(c.frac_coords.shape), c.atomic_numbers)).ok
        for c in cells
    ]
    assert np.mean(random) > 0.97


def test_scale_makes_the_check_lenient():
    crushed = _rock_salt(0.7 * 5.64)
    assert not distance_violations(crushed).ok
    assert distance_violations(crushed, scale=0.5).ok


def test_elements_without_a_minimum_are_refused():
    with pytest.raises(InvalidStructureError, match="1 to 103"):
        minimum_distance(1, 104)
    with pytest.raises(InvalidStructureError, match="1 to 103"):
        distance_violations(UnitCell(5.0 * np.eye(3), np.zeros((1, 3)), np.array([110])))
