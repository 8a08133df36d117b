"""The network on orbits equals the full cell in P1, batches do not matter, and nothing jumps at the cutoff."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from full_cell import compare_with_full_cell
from random_crystals import BRANCHED, GROUPS, SMALL, network, noisy, random_crystal

from nucleate.crystal import Crystal, CrystalBatch
from nucleate.models import orbit_transformer
from nucleate.models.graph import orbit_graph
from nucleate.models.orbit_transformer import NoisyCrystals, OrbitTransformerConfig


@pytest.mark.parametrize("number", GROUPS)
def test_orbits_equal_the_full_cell_in_p1(number: int) -> None:
    assert compare_with_full_cell(network(), random_crystal(number)).largest < 1e-8


def test_without_the_rotation_of_features_the_full_cell_is_not_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Negative control: orbit-mates that carry one orientation's vectors are a different network."""
    original = CrystalBatch.atoms

    def unrotated(self: CrystalBatch):
        atoms = original(self)
        eye = torch.eye(3, dtype=atoms.cart_rotations.dtype).expand_as(atoms.cart_rotations)
        return type(atoms)(
            atoms.orbit,
            atoms.crystal,
            atoms.operation,
            atoms.rotations,
            atoms.frac_coords,
            atoms.cart_coords,
            eye,
        )

    model = network()
    given = noisy([random_crystal(14)])
    with torch.no_grad():
        inputs = model.embed(given)
        right = model.propagate(given.crystals, inputs).forces
        monkeypatch.setattr(CrystalBatch, "atoms", unrotated)
        wrong = model.propagate(given.crystals, inputs).forces
    assert float((right - wrong).abs().max() / right.abs().max()) > 1e-3


@pytest.mark.parametrize("number", GROUPS)
def test_forces_lie_in_the_tangent_space(number: int) -> None:
    crystal = random_crystal(number)
    given = noisy([crystal])
    with torch.no_grad():
        forces = network()(given).displacements.numpy()
    lattice = crystal.lattice
    for force, position in zip(forces, crystal.positions):
        rotations = np.einsum(
            "ji,ajk,lk->ail", lattice, position.stabiliser_rotations, np.linalg.inv(lattice)
        )
        assert np.abs(rotations @ force - force).max() < 1e-8 * max(1.0, np.abs(forces).max())


def test_batch_composition_does_not_matter() -> None:
    model = network()
    crystals = [random_crystal(n) for n in GROUPS[:12]]
    given = noisy(crystals)
    with torch.no_grad():
        together = model(given)
        start = 0
        for i, crystal in enumerate(crystals):
            alone = model(
                NoisyCrystals(
                    given.crystals[i],
                    given.coord_time[i : i + 1],
                    given.lattice_time[i : i + 1],
                    given.source[:1],
                )
            )
            rows = slice(start, start + crystal.num_orbits)
            torch.testing.assert_close(
                together.displacements[rows], alone.displacements, rtol=1e-9, atol=1e-9
            )
            torch.testing.assert_close(
                together.lattice_params[i : i + 1], alone.lattice_params, rtol=1e-9, atol=1e-9
            )
            start += crystal.num_orbits


def test_in_single_precision_other_crystals_of_a_batch_change_no_bit() -> None:
    sizes = OrbitTransformerConfig(scalars=32, vectors=16, hidden=64, layers=2, heads=4, tensors=4)
    model = network(config=sizes).float()
    given = noisy([random_crystal(number, seed) for seed in (0, 1) for number in GROUPS])

    def guess(chosen: list[int]) -> tuple[torch.Tensor, ...]:
        index = torch.tensor(chosen)
        part = NoisyCrystals(
            given.crystals.to(dtype=torch.float32)[index],
            given.coord_time.float()[index],
            given.lattice_time.float()[index],
            given.source[index],
        )
        with torch.no_grad():
            found = model(part)
        first = part.crystals.orbit_to_crystal < 16
        return found.displacements[first], found.lattice_params[:16], found.pooled[:16]

    whole = guess(list(range(len(given.source))))
    for size in (16, 17, 23, 30):
        for mine, theirs in zip(guess(list(range(size))), whole, strict=True):
            assert torch.equal(mine, theirs)


def steps_across_the_cutoff(config: OrbitTransformerConfig) -> tuple[list[int], np.ndarray]:
    """Number of edges, and changes of the forces, as one atom moves an image of it from outside r_c to inside.

    The image goes from r_c + 1e-3 to r_c - 1e-3 Å in twenty steps; no other image crosses.
    """
    model, crystal = network(config=config), random_crystal(1)
    batch = CrystalBatch.from_crystals([crystal])
    wide, radius = orbit_graph(batch, batch.atoms(), radius=1.1 * config.radius), config.radius
    beyond = wide.distances - radius * wide.length_unit
    chosen = int(torch.where((wide.target != 0) & (wide.source == 0), beyond.abs(), torch.inf).argmin())
    towards = -(wide.vectors[chosen] / wide.distances[chosen]).numpy() @ np.linalg.inv(crystal.lattice)
    counts, values = [], []
    for left in np.linspace(1e-3, -1e-3, 21):
        free = crystal.free_coords.copy()
        free[0] += (float(beyond[chosen]) - left) * towards
        numbers = crystal.lattice_params, crystal.wyckoff_indices, crystal.atomic_numbers
        given = noisy([Crystal(1, *numbers, free)])
        with torch.no_grad():
            neighbours = model.neighbours(given.crystals)
            values.append(model(given, neighbours).displacements.numpy())
        counts.append(len(neighbours.graph.target))
    return counts, np.abs(np.diff(values, axis=0)).max(axis=(1, 2))


@pytest.mark.parametrize("config", [SMALL, BRANCHED], ids=["small", "branched"])
def test_nothing_jumps_when_an_image_crosses_the_cutoff(config: OrbitTransformerConfig) -> None:
    counts, steps = steps_across_the_cutoff(config)
    # the edge and its reverse appear, halfway
    assert counts == [counts[0]] * 10 + [counts[10]] + [counts[0] + 2] * 10
    assert steps.max() < 1.1 * np.median(steps)


@pytest.mark.parametrize("config", [SMALL, BRANCHED], ids=["small", "branched"])
def test_without_the_envelope_the_forces_jump_at_the_cutoff(
    config: OrbitTransformerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control."""
    monkeypatch.setattr(orbit_transformer, "envelope", torch.ones_like)
    counts, steps = steps_across_the_cutoff(config)
    assert counts[-1] == counts[0] + 2
    assert steps.argmax() in (9, 10)
    assert steps.max() > 100 * np.median(steps)


@pytest.mark.parametrize("one_hot", [True, False])
def test_one_hot_elements_have_no_element_vectors(one_hot: bool) -> None:
    """Other weights of the element vectors change nothing; elements are told apart all the same."""
    model = network(config=replace(SMALL, one_hot_elements=one_hot))
    crystals = [random_crystal(1)]
    other = crystals[0].atomic_numbers.copy()
    other[0] = 26 if other[0] != 26 else 27
    crystals.append(replace(crystals[0], atomic_numbers=other))
    with torch.no_grad():
        before = [model(noisy([crystal])).pooled for crystal in crystals]
        model.element_linear.weight.mul_(2.0)
        after = model(noisy([crystals[0]])).pooled
        embedded = [model.embed(noisy([crystal])).scalars for crystal in crystals]
        model.element_embedding.weight.zero_()
        by_vector = [model.embed(noisy([crystal])).scalars for crystal in crystals]
    assert float((before[1] - before[0]).abs().max()) > 1e-3
    assert float((embedded[1] - embedded[0])[0].abs().max()) > 1e-2
    assert torch.equal(after, before[0]) == one_hot
    assert torch.equal(*by_vector) == one_hot
