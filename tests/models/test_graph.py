"""The neighbour graph against ASE's neighbour list, in reduced and in very skew cells, at both kinds of radius."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.neighborlist import primitive_neighbor_list
from random_crystals import GROUPS, SMALL, network, noisy, random_crystal

from nucleate.crystal import Crystal, CrystalBatch, space_group
from nucleate.models.graph import OrbitGraph, orbit_graph

RADIUS = 1.95
SHEARS = {
    "one axis": [[1, 0, 0], [4, 1, 0], [0, 0, 1]],
    "two axes": [[1, 0, 0], [3, 1, 0], [-5, 4, 1]],
    "all axes": [[1, 1, -1], [1, 2, 0], [-1, 1, 4]],
}


def skew_crystal(shear: str) -> Crystal:
    """Four atoms in P1, the axes of their cell replaced by far from shortest ones."""
    rng = np.random.default_rng(0)
    lattice = np.array(SHEARS[shear]) @ (4.0 * np.eye(3) + rng.normal(0, 0.3, (3, 3)))
    fit = space_group(1).lattice_subspace.fit(lattice, num_atoms=4)
    positions, elements = np.zeros(4, dtype=np.int64), np.array([3, 8, 22, 56])
    return Crystal(1, fit.params, positions, elements, rng.uniform(size=(4, 3)))


CRYSTALS = {f"group {n}": (random_crystal, n) for n in GROUPS} | {
    shear: (skew_crystal, shear) for shear in SHEARS
}


def crystal_of(name: str) -> Crystal:
    make, argument = CRYSTALS[name]
    return make(argument)


Images = dict[tuple[int, int, int, int, int], np.ndarray]


def images_of(crystal: Crystal, graph: OrbitGraph, first: int = 0) -> Images:
    """Vector of every edge by (orbit, atom, cell of the atom)."""
    frac = np.linalg.solve(crystal.group.primitive_basis, crystal.image_coords().T).T
    of_orbit = np.cumsum(crystal.multiplicities_primitive) - crystal.multiplicities_primitive
    target, atom, vectors = (x.numpy() for x in (graph.target, graph.atom - first, graph.vectors))
    cell = vectors @ np.linalg.inv(crystal.primitive_lattice) - frac[atom] + frac[of_orbit[target]]
    np.testing.assert_allclose(cell, np.rint(cell), atol=1e-8)
    np.testing.assert_array_equal(graph.source.numpy(), crystal.atom_to_orbit[atom])
    np.testing.assert_allclose(graph.distances.numpy(), np.linalg.norm(vectors, axis=1), rtol=1e-12)
    found = {(int(i), int(a), *map(int, n)): v for i, a, n, v in zip(target, atom, np.rint(cell), vectors)}
    assert len(found) == len(target)
    return found


def images_by_ase(crystal: Crystal, radius: float) -> Images:
    """The same from ASE's neighbour list of all atoms, those of representatives kept."""
    frac = np.linalg.solve(crystal.group.primitive_basis, crystal.image_coords().T).T
    cell = crystal.primitive_lattice
    of_orbit = np.cumsum(crystal.multiplicities_primitive) - crystal.multiplicities_primitive
    orbit = {int(a): i for i, a in enumerate(of_orbit)}
    pairs = primitive_neighbor_list("ijSD", [True] * 3, cell, frac @ cell, radius)
    return {(orbit[i], int(a), *map(int, n)): v for i, a, n, v in zip(*pairs) if int(i) in orbit}


def assert_same_images(found: Images, expected: Images) -> None:
    assert found.keys() == expected.keys()
    vectors = [np.array([images[k] for k in expected]).reshape(-1, 3) for images in (found, expected)]
    np.testing.assert_allclose(*vectors, atol=1e-9)


@pytest.mark.parametrize("name", CRYSTALS)
def test_edges_are_those_of_ase(name: str) -> None:
    crystal = crystal_of(name)
    batch = CrystalBatch.from_crystals([crystal])
    graph = orbit_graph(batch, batch.atoms(), radius=RADIUS)
    radius = RADIUS * crystal.volume_per_atom ** (1 / 3)
    np.testing.assert_allclose(graph.cutoffs.numpy(), radius, rtol=1e-12)
    expected = images_by_ase(crystal, radius)
    assert len(expected) >= 10 * crystal.num_orbits
    assert_same_images(images_of(crystal, graph), expected)


@pytest.mark.parametrize("name", CRYSTALS)
def test_one_translation_too_few_loses_images(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: ASE's neighbour list has images that the graph then lacks."""
    crystal = crystal_of(name)
    batch = CrystalBatch.from_crystals([crystal])
    atoms, floor = batch.atoms(), torch.floor
    monkeypatch.setattr(torch, "floor", lambda x: (floor(x) - 1).clamp(min=0))
    graph = orbit_graph(batch, atoms, radius=RADIUS)
    found = images_of(crystal, graph)
    expected = images_by_ase(crystal, RADIUS * crystal.volume_per_atom ** (1 / 3))
    assert found.keys() < expected.keys()


def test_edges_of_a_batch_are_those_of_its_crystals() -> None:
    crystals = [crystal_of(name) for name in CRYSTALS]
    batch = CrystalBatch.from_crystals(crystals)
    graph = orbit_graph(batch, batch.atoms(), radius=RADIUS)
    assert (graph.target.diff() >= 0).all()
    first_atom = (batch.num_atoms_primitive.cumsum(0) - batch.num_atoms_primitive).tolist()
    for i, crystal in enumerate(crystals):
        own = batch.orbit_to_crystal[graph.target] == i
        start = int(batch.orbit_start[i])
        edges = {name: getattr(graph, name)[own] for name in ("atom", "vectors", "distances", "cutoffs")}
        target, source = graph.target[own] - start, graph.source[own] - start
        part = replace(graph, target=target, source=source, **edges)
        radius = RADIUS * crystal.volume_per_atom ** (1 / 3)
        assert_same_images(images_of(crystal, part, first_atom[i]), images_by_ase(crystal, radius))


def in_other_volume(crystal: Crystal, factor: float) -> Crystal:
    params = crystal.lattice_params.copy()
    params[0] += np.log(factor) / 3**0.5
    numbers = crystal.space_group_number, params, crystal.wyckoff_indices
    return Crystal(*numbers, crystal.atomic_numbers, crystal.free_coords)


@pytest.mark.parametrize("number", [2, 14, 62, 88, 166, 194, 227])
def test_a_fixed_radius_is_the_same_length_in_every_volume(number: int) -> None:
    model = network(config=replace(SMALL, fixed_radius=4.2))
    counts = []
    for factor in (0.5, 1.0, 3.0):
        crystal = in_other_volume(random_crystal(number), factor)
        graph = model.neighbours(CrystalBatch.from_crystals([crystal])).graph
        assert (graph.cutoffs == 4.2).all()
        assert_same_images(images_of(crystal, graph), images_by_ase(crystal, 4.2))
        counts.append(len(graph.target))
    assert counts[0] > counts[1] > counts[2]


@pytest.mark.parametrize("number", [2, 14, 62, 88, 166, 194, 227])
def test_without_a_fixed_radius_the_neighbourhood_is_the_same_in_every_volume(number: int) -> None:
    model = network()
    small, large = (in_other_volume(random_crystal(number), factor) for factor in (0.5, 3.0))
    graphs = [model.neighbours(CrystalBatch.from_crystals([x])).graph for x in (small, large)]
    assert images_of(small, graphs[0]).keys() == images_of(large, graphs[1]).keys()
    torch.testing.assert_close(graphs[1].vectors, graphs[0].vectors * 6 ** (1 / 3))


def test_a_fixed_radius_reaches_the_guess() -> None:
    given = noisy([random_crystal(62)])
    with torch.no_grad():
        adaptive, fixed, same = (
            network(config=replace(SMALL, fixed_radius=radius))(given).pooled
            for radius in (None, 4.2, SMALL.radius * 16.0 ** (1 / 3))
        )
    torch.testing.assert_close(same, adaptive, rtol=1e-8, atol=1e-8)
    assert float((fixed - adaptive).abs().max()) > 1e-3
