"""The row of a generated crystal: oracles are pymatgen and moyopy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nucleate.crystal import encode
from nucleate.data.bundled import bundled_crystal
from nucleate.generation.checks import check_crystal, shortest_distances


@pytest.mark.parametrize("crystal_id", ["tio2-rutile", "mgo-periclase", "mg2sio4-forsterite"])
def test_distances_and_groups_are_those_of_other_programs(crystal_id: str) -> None:
    crystal = encode(bundled_crystal(crystal_id).unit_cell).crystal
    matrix = crystal.to_structure("primitive").make_supercell(2, in_place=False).distance_matrix
    row = check_crystal(0, crystal)
    assert row.min_distance == pytest.approx(matrix[matrix > 1e-6].min(), abs=1e-6)
    assert row.space_group == crystal.space_group_number
    assert row.density == pytest.approx(float(crystal.to_structure().density), rel=1e-4)
    assert row.problem == ""


def test_an_orbit_that_has_run_onto_a_special_position_is_named() -> None:
    """Oxygen of rutile at x = 1/2: its two images along the diagonal meet."""
    crystal = encode(bundled_crystal("tio2-rutile").unit_cell).crystal
    oxygen = int(np.flatnonzero(crystal.atomic_numbers == 8)[0])
    free = crystal.free_coords.copy()
    free[oxygen, 0] = 0.5
    special = replace(crystal, free_coords=free)
    row = check_crystal(0, special)
    assert (
        "the point belongs to position 2b" in row.problem or "the point belongs to position 2a" in row.problem
    )
    assert shortest_distances(crystal)[0] > 1.5
