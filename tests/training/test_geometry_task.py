"""The geometry task: examples that can be picked apart, the recipe, penalties, hidden elements, properties."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nucleate.crystal import Crystal, CrystalBatch
from nucleate.data import Store
from nucleate.models.graph import image_pairs
from nucleate.models.orbit_transformer import NoisyCrystals, OrbitTransformer, OrbitTransformerConfig
from nucleate.models.property_head import PropertyHead, PropertyHeadConfig
from nucleate.physics import volume_per_atom
from nucleate.processes.choice import ProcessChoice
from nucleate.processes.geometry_flow import GeometryFlow
from nucleate.processes.geometry_process import GeometryNoise, geometry_losses
from nucleate.processes.penalties import PAIR_RADIUS, distance_penalty, volume_penalty
from nucleate.training.crystal_stream import SourcedCrystals, load_crystals
from nucleate.training.geometry_task import GeometryTask, PenaltyWeights, property_loss

SMALL = OrbitTransformerConfig(scalars=16, vectors=4, hidden=16, layers=1, heads=2)


def _rock_salt(volume: float) -> Crystal:
    params = np.array([np.log(volume) / 3**0.5])
    return Crystal(225, params, np.array([0, 1]), np.array([11, 17]), np.zeros((2, 3)))


@pytest.fixture
def content(store: Store) -> SourcedCrystals:
    return load_crystals(store.split("train"), {"crystals": 1})


def _choice(content: SourcedCrystals, kind: str = "flow", schedule: str = "linear") -> ProcessChoice:
    return ProcessChoice.fit(content.crystals, kind=kind, schedule=schedule, solver="ddim")


def test_the_same_seed_gives_the_same_example_and_the_level_bounds_the_noise(
    content: SourcedCrystals,
) -> None:
    task = GeometryTask(_choice(content), source_dropout=0.5)
    a, b = (task.prepare(content, 5, noise_level=0.4) for _ in range(2))
    assert torch.equal(a.noisy.crystals.free_coords, b.noisy.crystals.free_coords)
    assert a.coord_level.max() <= 0.4
    assert 0 < int((a.source == 0).sum()) < len(a)
    same = (a.coord_level == a.lattice_level).float().mean()
    assert 0.4 < same < 0.95
    assert float(a.coord_level.mean()) == pytest.approx(0.4 / 2.7, rel=0.3)  # mean of u^1.7


@pytest.mark.parametrize("kind", ["flow", "diffusion"])
def test_an_example_is_the_sum_of_its_crystals(content: SourcedCrystals, kind: str) -> None:
    task = GeometryTask(_choice(content, kind))
    network = OrbitTransformer(SMALL).eval()
    example = task.prepare(content.take(torch.arange(12)), 1, noise_level=1.0)
    with torch.no_grad():
        whole = task.losses(network, example)
        parts = [task.losses(network, example.take(torch.tensor([i]))) for i in range(12)]
    for name in ("coord", "lattice"):
        assert float(whole[name]) == pytest.approx(np.mean([float(p[name]) for p in parts]), rel=1e-3)


@torch.no_grad()
def test_the_loss_is_that_of_the_recipe(content: SourcedCrystals) -> None:
    """``mean |v|^2 + 0.3 mean |p|^2`` of flow matching, written out once more with the flow's own functions."""
    task = GeometryTask(_choice(content))
    network = OrbitTransformer(SMALL).eval()
    clean, n = content.crystals, len(content)
    generator = torch.Generator().manual_seed(1)
    t = torch.rand(n, generator=generator) ** 1.7
    other, same = torch.rand(n, generator=generator), torch.rand(n, generator=generator) < 0.7
    lattice_time = torch.where(same, t, other)
    noise = GeometryNoise.draw(clean, generator)
    flow = GeometryFlow.fit(clean)
    noisy = flow.corrupt(clean, t, lattice_time, noise)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = network(NoisyCrystals(noisy.crystals, t, lattice_time, content.source))
    coord, lattice = geometry_losses(flow, out, noisy, clean, t, lattice_time)
    expected = coord.mean() + 0.3 * lattice.mean()
    example = task.example(
        content, noise, coord_time=t, lattice_time=lattice_time, told_source=torch.ones(n, dtype=torch.bool),
        hidden=torch.zeros(len(clean.position_ids), dtype=torch.bool),
    )  # fmt: skip
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = task.losses(network, example)["loss"]
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_the_distance_penalty_sees_near_atoms_and_pushes_them_apart() -> None:
    batch = CrystalBatch.from_crystals([_rock_salt(22.0), _rock_salt(4.0)])
    params = batch.lattice_params.clone().requires_grad_()
    moved = batch.replace(lattice_params=params)
    penalty = distance_penalty(moved, image_pairs(moved, radius=PAIR_RADIUS))
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


@pytest.mark.parametrize("name", ["distance", "volume", "density", "bond_valence", "energy"])
def test_every_penalty_is_a_switch_that_reaches_the_weights(content: SourcedCrystals, name: str) -> None:
    network = OrbitTransformer(SMALL)
    plain = GeometryTask(_choice(content))
    example = plain.prepare(content, 1, noise_level=1.0)
    crushed = example.noisy.crystals.lattice_params.clone()
    crushed[:, 0] = 0.2  # the network has learned nothing: its guess stays near, so that every penalty bites
    example = replace(
        example, noisy=replace(example.noisy, crystals=example.noisy.crystals.replace(lattice_params=crushed))
    )
    helped = replace(plain, penalties=PenaltyWeights(**{name: 2.0}))
    before, after = plain.losses(network, example), helped.losses(network, example)
    assert name not in before
    values = {key: float(value.detach()) for key, value in after.items()}
    assert values[name] > 0
    assert values["loss"] == pytest.approx(float(before["loss"].detach()) + 2 * values[name], rel=1e-4)
    after[name].backward()
    assert any(
        p.grad is not None and float(p.grad.abs().max()) > 0 for p in network.lattice_head.parameters()
    )


def test_hidden_elements_are_not_shown_and_are_asked_for(content: SourcedCrystals) -> None:
    task = GeometryTask(_choice(content), element_share=1.0)
    example = task.prepare(content, 3, noise_level=1.0)
    shown = example.noisy.crystals.atomic_numbers
    assert (shown[example.hidden] == 0).all()
    assert torch.equal(shown[~example.hidden], content.crystals.atomic_numbers[~example.hidden])
    assert 0.2 < float(example.hidden.float().mean()) < 0.8
    network = OrbitTransformer(SMALL)
    loss = task.losses(network, example)["element"]
    assert float(loss.detach()) == pytest.approx(np.log(103), rel=0.3)  # an untrained head knows nothing
    loss.backward()
    assert float(network.element_head[-1].weight.grad.abs().max()) > 0


@torch.no_grad()
def test_missing_labels_count_for_nothing() -> None:
    head = PropertyHead(PropertyHeadConfig(4, ("gap", "energy"), ("eV", ""), (1.0, -2.0), (0.5, 2.0))).eval()
    pooled = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1.2, float("nan")], [float("nan"), -1.0], [float("nan"), float("nan")]])
    loss, errors = property_loss(head, pooled, labels)
    said = head(pooled)
    assert float(errors["mae_gap"]) == pytest.approx(abs(float(said[0, 0]) - 1.2), rel=1e-4)
    assert float(errors["mae_energy"]) == pytest.approx(abs(float(said[1, 1]) + 1.0), rel=1e-4)
    again, _ = property_loss(head, torch.cat([pooled, pooled[2:]]), torch.cat([labels, labels[2:]]))
    assert float(again) == pytest.approx(float(loss))
    none, _ = property_loss(head, pooled[2:], labels[2:])
    assert float(none) == 0


def test_level_tables_learn_the_lattice_error_by_parameter(content: SourcedCrystals) -> None:
    choice = _choice(content, "diffusion", "learned")
    task = GeometryTask(choice)
    example = task.prepare(content, 1, noise_level=1.0)
    losses = task.losses(OrbitTransformer(SMALL), example)
    assert losses["loss"].requires_grad
    assert choice.lattice_variance is None
    task.learn(losses.tables)
    sums, counts = choice.lattice_error.sums, choice.lattice_error.weights
    assert int(counts[:, 0].sum()) == len(content)
    assert int(counts[:, 3].sum()) < len(content)  # few lattices have six free parameters
    assert float(sums[:, 0].sum() / counts[:, 0].sum()) > 0
    assert choice.lattice_variance is not None
    assert not GeometryTask(_choice(content)).empty_tables()
