"""What the obedience benchmark takes for a broken operation, on real crystals and on spoilt ones."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from nucleate.crystal import UnitCell, encode, space_group
from nucleate.data.bundled import load_bundled


@pytest.fixture(scope="module")
def kept() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "operations_kept.py"
    spec = importlib.util.spec_from_file_location("operations_kept", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["operations_kept"] = module
    spec.loader.exec_module(module)
    return module


def cells() -> list[tuple[UnitCell, int]]:
    """Conventional cells of bundled crystals with their Hall numbers."""
    crystals = [encode(entry.unit_cell).crystal for entry in load_bundled()]
    halls = [space_group(c.space_group_number).hall_number for c in crystals]
    return list(zip([c.unit_cell("conventional") for c in crystals], halls))


def test_real_crystals_keep_every_operation_of_their_group(kept: ModuleType) -> None:
    assert max(kept.largest_deviation(cell, hall) for cell, hall in cells()) < 1e-12


def test_the_operations_are_those_of_the_group(kept: ModuleType) -> None:
    for number in (1, 2, 15, 62, 148, 166, 205, 227, 230):
        group = space_group(number)
        assert len(kept.operations(group.hall_number)[0]) == group.num_operations * group.num_centrings


@pytest.mark.parametrize("shift", [1e-5, 1e-2])
def test_a_moved_atom_is_seen_at_the_size_of_its_move(kept: ModuleType, shift: float) -> None:
    for cell, hall in cells():
        if hall == 1:  # P1 has nothing to keep
            continue
        moved = cell.frac_coords + np.zeros_like(cell.frac_coords)
        moved[0] += np.linalg.solve(cell.lattice.T, shift * np.array([0.6, 0.48, 0.64]))
        found = kept.largest_deviation(replace(cell, frac_coords=moved), hall)
        if cell.num_atoms > 1:
            assert 0.4 * shift < found < 3 * shift


def test_a_strained_lattice_is_seen(kept: ModuleType) -> None:
    cubic = [(cell, hall) for cell, hall in cells() if hall >= 489]
    assert cubic
    for cell, hall in cubic:
        strained = cell.lattice @ np.diag([1.0, 1.0, 1.001])
        assert kept.largest_deviation(replace(cell, lattice=strained), hall) > 1e-3


def test_an_atom_put_onto_another_leaves_a_place_empty(kept: ModuleType) -> None:
    silicon = next((c, h) for c, h in cells() if h == space_group(227).hall_number)
    coords = silicon[0].frac_coords.copy()
    coords[1] = coords[0]
    assert kept.largest_deviation(replace(silicon[0], frac_coords=coords), silicon[1]) > 1e-3


def test_two_whole_orbits_in_one_place_keep_the_operations(kept: ModuleType) -> None:
    cell, hall = next((c, h) for c, h in cells() if h == space_group(227).hall_number)
    doubled = UnitCell(
        cell.lattice, np.tile(cell.frac_coords, (2, 1)), np.tile(cell.atomic_numbers, 2), site_properties={}
    )
    assert kept.largest_deviation(doubled, hall) < 1e-12
