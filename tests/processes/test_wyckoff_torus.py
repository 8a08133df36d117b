"""The torus of free coordinates against brute force over periods and images."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from one_orbit import POSITIONS, one_orbit

from nucleate.crystal import Crystal, CrystalBatch
from nucleate.processes.wyckoff_torus import (
    cartesian_from_coords,
    coords_from_cartesian,
    log_map,
    uniform_coords,
    without_drift,
    wrap,
)


def brute_force_distance(first: Crystal, second: Crystal) -> float:
    """Shortest way from the first representative to a point of the second orbit on the same f(R^d)."""
    position = first.positions[0]
    start = first.representatives[0]
    points = second.image_coords()
    translations = np.array(list(itertools.product(range(-3, 4), repeat=3)), dtype=float)
    translations = (translations[:, None] + first.group.centring_vectors).reshape(-1, 3)
    candidates = (points[:, None] + translations).reshape(-1, 3)
    inverse = np.linalg.pinv(position.basis)
    on_subspace = np.abs(
        (candidates - position.origin) @ (inverse.T @ position.basis.T) - (candidates - position.origin)
    )
    candidates = candidates[on_subspace.max(axis=1) < 1e-9]
    return float(np.linalg.norm((candidates - start) @ first.lattice, axis=1).min())


@pytest.mark.parametrize(("number", "letter"), POSITIONS)
def test_the_logarithm_goes_to_the_nearest_copy(number: int, letter: str) -> None:
    rng = np.random.default_rng(number)
    excess = []
    for _ in range(10):
        first = one_orbit(number, letter, rng.uniform(size=3))
        second = one_orbit(number, letter, rng.uniform(size=3))
        batch = CrystalBatch.from_crystals([first])
        target = torch.tensor(second.free_coords)
        delta = log_map(batch, target, lattices=batch.lattices())
        length = float(cartesian_from_coords(batch, delta, lattices=batch.lattices()).norm())
        arrived = Crystal(number, first.lattice_params, first.wyckoff_indices, first.atomic_numbers,
                          first.free_coords + delta.numpy())  # fmt: skip
        assert brute_force_distance(arrived, second) < 1e-9  # it is a copy
        excess.append(length / brute_force_distance(first, second) - 1)
    assert np.abs(excess).max() < 1e-9


@pytest.mark.parametrize(("number", "letter"), POSITIONS)
def test_uniform_coordinates_fill_the_true_cell_of_u(number: int, letter: str) -> None:
    """Every Fourier mode of the period lattice vanishes; projecting a uniform cube would leave some."""
    crystal = one_orbit(number, letter, np.zeros(3) + 0.1)
    batch = CrystalBatch.cat([CrystalBatch.from_crystals([crystal])] * 4000)
    generator = torch.Generator().manual_seed(0)
    u = uniform_coords(batch, torch.rand(4000, 3, generator=generator, dtype=torch.float64)).numpy()
    position = crystal.positions[0]
    dual = np.linalg.inv(position.period_lattice)
    inside = u[:, : position.num_free] @ dual.T
    for mode in itertools.product(range(-1, 2), repeat=position.num_free):
        if any(mode):
            assert abs(np.exp(2j * np.pi * (inside @ np.array(mode))).mean()) < 4.5 / 4000**0.5
    np.testing.assert_array_equal(u[:, position.num_free :], 0)


def test_wrapping_changes_by_whole_periods_only() -> None:
    crystal = one_orbit(227, "e", np.array([0.1, 0, 0]))
    batch = CrystalBatch.from_crystals([crystal])
    period = crystal.positions[0].period_lattice[0, 0]
    wrapped = wrap(batch, torch.tensor([[0.9, 0.0, 0.0]], dtype=torch.float64))
    assert abs(float(wrapped[0, 0])) <= abs(period) / 2 + 1e-12
    assert (0.9 - float(wrapped[0, 0])) / period == pytest.approx(
        round((0.9 - float(wrapped[0, 0])) / period)
    )


def test_cartesian_displacements_come_back_as_coordinates() -> None:
    crystals = [one_orbit(n, letter, np.array([0.13, 0.27, 0.41])) for n, letter in POSITIONS]
    batch = CrystalBatch.from_crystals(crystals)
    free = torch.randn(len(crystals), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    free = free * (torch.arange(3) < batch.num_free[:, None])
    vectors = cartesian_from_coords(batch, free, lattices=batch.lattices())
    back = coords_from_cartesian(batch, vectors, lattices=batch.lattices())
    torch.testing.assert_close(back, free)


def test_drift_is_removed_along_polar_directions_only() -> None:
    polar = Crystal(
        99, np.array([1.7, 0.2]), np.array([0, 3]), np.array([22, 8]), np.array([[0.1, 0, 0], [0.2, 0.4, 0]])
    )
    fixed = Crystal(
        123, np.array([1.7, 0.2]), np.array([6, 7]), np.array([22, 8]), np.array([[0.1, 0, 0], [0.2, 0, 0]])
    )
    batch = CrystalBatch.from_crystals([polar, fixed])
    step = torch.tensor([[0.3, 0, 0], [0.1, 0.3, 0], [0.2, 0, 0], [0.1, 0, 0]], dtype=torch.float64)
    rest = without_drift(batch, step)
    moved = cartesian_from_coords(batch, rest, lattices=batch.lattices())
    weights = batch.multiplicities[:2, None]
    assert abs(float((moved[:2] * weights).sum(dim=0)[2])) < 1e-12
    torch.testing.assert_close(rest[2:], step[2:])
    assert float((rest[:2] - step[:2]).abs().max()) > 0.1
