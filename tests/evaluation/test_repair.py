"""Repairs against brute force, inside the group, with the least displacement, or with the reason why not."""

from __future__ import annotations

import math
from itertools import product

import moyopy
import numpy as np
import pytest

from nucleate.crystal import Crystal, space_group
from nucleate.evaluation.repair import MARGIN, repair
from nucleate.physics.density import check_density
from nucleate.physics.distances import distance_violations, minimum_distance


def _crystal(
    number: int, lattice: np.ndarray, orbits: list[tuple[str, int, tuple[float, ...]]], **options: float
) -> Crystal:
    group = space_group(number)
    letters = [p.letter for p in group.wyckoff_positions]
    indices = np.array([letters.index(letter) for letter, _, _ in orbits])
    free = np.zeros((len(orbits), 3))
    for row, (_, _, u) in zip(free, orbits):
        row[: len(u)] = u
    atoms = sum(group.wyckoff_positions[i].multiplicity for i in indices)
    params = group.lattice_subspace.fit(lattice, num_atoms=atoms).params
    return Crystal(number, params, indices, np.array([z for _, z, _ in orbits]), free)


def _rutile(x: float, a: float = 4.594, c: float = 2.959) -> Crystal:
    return _crystal(136, np.diag([a, a, c]), [("a", 22, ()), ("f", 8, (x,))])


def test_a_good_crystal_is_left_alone() -> None:
    crystal = _rutile(0.305)
    found = repair(crystal)
    assert found.outcome == "nothing to do"
    assert found.crystal is crystal


@pytest.mark.parametrize("x", [0.18, 0.21])
def test_rutile_is_repaired_as_well_as_by_brute_force(x: float) -> None:
    crystal = _rutile(x)
    found = repair(crystal)
    assert found.outcome == "repaired"
    assert distance_violations(found.crystal.unit_cell("primitive")).ok

    def cost(other: Crystal) -> float:
        moved = (other.representatives - crystal.representatives) @ crystal.lattice
        weights = crystal.multiplicities_primitive / crystal.num_atoms_primitive
        strain = other.lattice_params - crystal.lattice_params
        size = crystal.volume_per_atom ** (2 / 3)
        return float((weights * (moved**2).sum(axis=1)).sum() + size * (strain**2).sum() / 3)

    best = math.inf
    for du, da, dc in product(np.linspace(0, 0.06, 13), np.linspace(0, 0.06, 7), (-0.01, 0.0, 0.01)):
        other = _rutile(x + du, 4.594 * (1 + da), 2.959 * (1 + dc))
        if cost(other) < best and distance_violations(other.unit_cell("primitive"), scale=1 + MARGIN).ok:
            best = cost(other)
    assert cost(found.crystal) <= best * 1.0001
    assert best < cost(found.crystal) * 1.5  # the grid comes near it


def test_where_symmetry_fixes_all_atoms_the_cell_grows_just_enough() -> None:
    crystal = _crystal(225, np.eye(3) * 3.6, [("a", 11, ()), ("b", 17, ())])
    found = repair(crystal, volume_spreads=50.0)
    assert found.outcome == "repaired"
    assert found.max_displacement == 0
    assert found.crystal.lattice[0, 0] / 2 == pytest.approx(minimum_distance(11, 17) * (1 + MARGIN), rel=1e-4)
    assert found.strain == pytest.approx(math.log(found.crystal.lattice[0, 0] / 3.6), rel=1e-6)
    assert any("cell" in text for text in found.moved)


def test_density_and_volume_come_into_bounds() -> None:
    dilute = _crystal(225, np.eye(3) * 30.0, [("a", 29, ())])
    found = repair(dilute)
    assert found.outcome == "repaired"
    assert check_density(found.crystal.density).ok
    assert not check_density(dilute.density).ok
    assert found.volume_change < -0.9


def test_own_images_are_pushed_apart() -> None:
    # One orbit of P-4 whose four images nearly meet; nothing else is in the cell.
    crystal = _crystal(81, np.diag([5.0, 5.0, 5.0]), [("h", 26, (0.05, 0.04, 0.02))])
    assert not distance_violations(crystal.unit_cell("primitive")).ok
    found = repair(crystal)
    assert found.outcome == "repaired"
    assert distance_violations(found.crystal.unit_cell("primitive")).ok
    assert found.max_displacement > 0.5


@pytest.mark.parametrize(
    ("number", "letter", "u"), [(62, "c", (0.10, 0.12)), (194, "e", (0.1,)), (14, "e", (0.03, 0.1, 0.05))]
)
def test_group_and_template_stay(number: int, letter: str, u: tuple[float, ...]) -> None:
    lattices = {62: np.diag([6.0, 4.0, 5.0]), 14: np.array([[5.0, 0, 0], [0, 6.0, 0], [-1.0, 0, 5.5]])}
    a = 4.0
    hexagonal = np.array([[a, 0, 0], [-a / 2, a * 3**0.5 / 2, 0], [0, 0, 7.0]])
    crystal = _crystal(number, lattices.get(number, hexagonal), [(letter, 30, u), ("a", 16, ())])
    found = repair(crystal)
    assert found.outcome == "repaired"
    assert found.crystal.space_group_number == number
    assert found.crystal.wyckoff_letters == crystal.wyckoff_letters
    cell = found.crystal.unit_cell("conventional")
    dataset = moyopy.MoyoDataset(
        moyopy.Cell(cell.lattice.tolist(), cell.frac_coords.tolist(), cell.atomic_numbers.tolist()),
        symprec=1e-4,
    )
    assert len(dataset.operations.rotations) % len(space_group(number).rotations) == 0


def test_without_symmetry_every_atom_may_move() -> None:
    rng = np.random.default_rng(0)
    crystal = _crystal(1, np.diag([5.0, 5.5, 6.0]), [("a", 28, tuple(rng.uniform(size=3))) for _ in range(8)])
    found = repair(crystal)
    assert found.outcome == "repaired"
    assert distance_violations(found.crystal.unit_cell("primitive")).ok
    assert 0 < found.mean_displacement <= found.max_displacement


def test_what_cannot_be_repaired_says_why() -> None:
    # Gold on fixed positions of a group with one lattice parameter; the bounds hold the cell small.
    crystal = _crystal(225, np.eye(3) * 3.0, [("a", 79, ()), ("b", 79, ()), ("c", 79, ())])
    found = repair(crystal, minimum_density=40.0, maximum_density=60.0)
    assert found.outcome == "impossible"
    assert found.crystal is crystal
    assert "Au" in found.reason
    assert "Å apart and need" in found.reason
