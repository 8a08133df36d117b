"""The geometry task: examples that can be picked apart, and penalties that see what they should."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nucleate.crystal import Crystal, CrystalBatch
from nucleate.data import Store
from nucleate.models.orbit_transformer import OrbitTransformer, OrbitTransformerConfig
from nucleate.physics import volume_per_atom
from nucleate.processes.geometry_flow import GeometryFlow
from nucleate.training.crystal_stream import SourcedCrystals, load_crystals
from nucleate.training.geometry_task import GeometryTask, distance_penalty, movable_share, volume_penalty


def _rock_salt(volume: float) -> Crystal:
    params = np.array([np.log(volume) / 3**0.5])
    return Crystal(225, params, np.array([0, 1]), np.array([11, 17]), np.zeros((2, 3)))


@pytest.fixture
def content(store: Store) -> SourcedCrystals:
    return load_crystals(store.split("train"), {"crystals": 1})


def test_the_same_seed_gives_the_same_example_and_the_level_bounds_the_noise(
    content: SourcedCrystals,
) -> None:
    task = GeometryTask(GeometryFlow.fit(content.crystals), source_dropout=0.5)
    a, b = (task.prepare(content, 5, noise_level=0.4) for _ in range(2))
    assert torch.equal(a.noisy.crystals.free_coords, b.noisy.crystals.free_coords)
    assert a.coord_time.max() <= 0.4
    assert 0 < int((a.source == 0).sum()) < len(a)
    same = (a.coord_time == a.lattice_time).float().mean()
    assert 0.4 < same < 0.95


def test_an_example_is_the_sum_of_its_crystals(content: SourcedCrystals) -> None:
    task = GeometryTask(GeometryFlow.fit(content.crystals))
    network = OrbitTransformer(
        OrbitTransformerConfig(scalars=16, vectors=4, hidden=16, layers=1, heads=2)
    ).eval()
    example = task.prepare(content.take(torch.arange(12)), 1, noise_level=1.0)
    with torch.no_grad():
        whole = task.losses(network, example)
        parts = [task.losses(network, example.take(torch.tensor([i]))) for i in range(12)]
    assert float(whole["lattice"]) == pytest.approx(np.mean([float(p["lattice"]) for p in parts]), rel=1e-4)
    shares = movable_share(example.clean)
    sums = [float(p["coord"]) * max(1.0, float(s)) for p, s in zip(parts, shares)]
    assert float(whole["coord"]) == pytest.approx(sum(sums) / float(shares.sum()), rel=1e-4)


def test_the_distance_penalty_sees_near_atoms_and_pushes_them_apart() -> None:
    batch = CrystalBatch.from_crystals([_rock_salt(22.0), _rock_salt(4.0)])
    params = batch.lattice_params.clone().requires_grad_()
    penalty = distance_penalty(batch.replace(lattice_params=params))
    assert penalty[0] == 0
    assert penalty[1] > 0.05
    penalty.sum().backward()
    assert params.grad[1, 0] < 0  # a larger volume lowers it
    assert params.grad[0, 0] == 0


def test_the_volume_penalty_is_zero_where_the_volume_is_expected() -> None:
    expected = volume_per_atom({"Na": 1, "Cl": 1})
    far = expected.mean * np.exp(5 * expected.log_std)
    batch = CrystalBatch.from_crystals([_rock_salt(expected.mean), _rock_salt(far)])
    penalty = volume_penalty(batch)
    assert penalty[0] == 0
    assert float(penalty[1]) == pytest.approx(9.0, rel=1e-3)
