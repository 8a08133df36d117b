"""Lower precision per edge: few sizes of products, the same outputs without rounding, gradients near the exact ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from random_crystals import BRANCHED, GROUPS, SMALL, network, noisy, random_crystal

from nucleate.crystal import CrystalBatch, encode
from nucleate.data.bundled import load_bundled
from nucleate.generation.generator import load
from nucleate.models import orbit_transformer
from nucleate.models.graph import OrbitGraph, orbit_graph, with_round_size
from nucleate.models.orbit_transformer import NoisyCrystals, OrbitTransformer
from nucleate.models.radial import GaussianBasis
from nucleate.processes.geometry_flow import GeometryFlow
from nucleate.processes.geometry_process import GeometryNoise, geometry_losses


def first_edges(graph: OrbitGraph, count: int) -> OrbitGraph:
    edges = ("target", "source", "atom", "vectors", "distances", "cutoffs")
    return replace(graph, **{name: getattr(graph, name)[:count] for name in edges})


def test_sizes_are_few_and_little_larger() -> None:
    crystals = CrystalBatch.from_crystals([random_crystal(number) for number in GROUPS])
    graph = orbit_graph(crystals, crystals.atoms(), radius=1.95)
    sizes = []
    for count in range(513, 1025):
        size = len(with_round_size(first_edges(graph, count)).target)
        assert count <= size <= 1.125 * count
        sizes.append(size)
    assert sorted(set(sizes)) == [576, 640, 704, 768, 832, 896, 960, 1024]
    assert len(with_round_size(first_edges(graph, 0)).target) == 0


@pytest.mark.parametrize("config", [SMALL, BRANCHED], ids=["small", "branched"])
def test_edges_added_for_a_round_size_count_for_nothing(config, monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = network(config=config), noisy([random_crystal(number) for number in GROUPS[:9]])
    inputs = model.embed(given)
    plain = model.propagate(given.crystals, inputs)
    counts = []

    def enlarged(*arguments, **settings):
        graph = orbit_graph(*arguments, **settings)
        counts.append((len(graph.target), len(with_round_size(graph).target)))
        return with_round_size(graph)

    monkeypatch.setattr(orbit_transformer, "orbit_graph", enlarged)
    padded = model.propagate(given.crystals, inputs)
    assert counts[0][1] > counts[0][0]
    for name in ("scalars", "forces", "stress"):
        torch.testing.assert_close(getattr(padded, name), getattr(plain, name), rtol=1e-12, atol=1e-12)


def gradient(model: OrbitTransformer, clean: CrystalBatch, seed: int, *, mixed: bool) -> torch.Tensor:
    """Gradient of the flow's loss with respect to all weights, as one vector."""
    generator = torch.Generator().manual_seed(seed)
    flow, n = GeometryFlow.fit(clean), len(clean)
    time, lattice_time = torch.rand(n, generator=generator), torch.rand(n, generator=generator)
    noisy = flow.corrupt(clean, time, lattice_time, GeometryNoise.draw(clean, generator))
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        guess = model(NoisyCrystals(noisy.crystals, time, lattice_time, torch.ones(n, dtype=torch.int64)))
    coord, lattice = geometry_losses(flow, guess, noisy, clean, time, lattice_time)
    (coord.mean() + 0.3 * lattice.mean()).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_gradients_in_mixed_precision_are_near_the_exact_ones() -> None:
    """Rounding what a crystal is told (levels, cell) and its orbits to bfloat16 too loses a quarter and more.

    The median over batches, because oxygen molecules run into each other in one of them, where the loss is steep.
    """
    bundled = [encode(entry.unit_cell).crystal for entry in load_bundled()[:20]]
    clean = CrystalBatch.from_crystals(bundled, dtype=torch.float32)
    model = load().geometry
    errors = []
    for seed in range(5):
        exact, rounded = (gradient(model, clean, seed, mixed=mixed) for mixed in (False, True))
        errors.append(float((rounded - exact).norm() / exact.norm()))
    assert 0 < sorted(errors)[2] < 0.05, errors


def test_no_feature_is_too_small_for_a_normalised_number() -> None:
    """Products of such numbers take a processor up to eight times as long as the rest of the network together."""
    basis = GaussianBasis(24, low=0.0, high=1.0)(torch.linspace(0, 3, 1000))
    assert float(basis.abs().min()) * 1e-15 > torch.finfo(torch.float32).tiny
    assert float(basis.min()) < 1e-15
