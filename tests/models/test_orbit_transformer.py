"""The network on orbits equals the full cell in P1, and is blind to every choice that is not physics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from random_crystals import GROUPS, compare_with_full_cell, network, noisy, random_crystal

from nucleate.crystal import Crystal, CrystalBatch
from nucleate.crystal.reencode import mirror_image, random_encoding
from nucleate.models.orbit_transformer import NoisyCrystals, OrbitTransformerConfig


@pytest.mark.parametrize("number", GROUPS)
def test_orbits_equal_the_full_cell_in_p1(number: int) -> None:
    force, stress = compare_with_full_cell(network(), number)
    assert force < 1e-8
    assert stress < 1e-8


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


def pair_distances(crystal: Crystal, forces: np.ndarray) -> np.ndarray:
    """Invariants of a force field: sorted lengths of the force on every atom of the primitive cell."""
    return np.sort(np.repeat(np.linalg.norm(forces, axis=1), crystal.multiplicities_primitive))


@pytest.mark.parametrize("number", GROUPS)
def test_forces_are_the_same_for_every_encoding_and_mirrored_for_the_mirror_image(number: int) -> None:
    model = network()
    crystal = random_crystal(number)
    rng = np.random.default_rng(number)
    variants = [crystal, mirror_image(crystal)]
    if (
        number > 15
    ):  # in oblique systems the noise itself depends on the choice of cell, and so do its invariants
        variants += [random_encoding(crystal, rng) for _ in range(3)]
    reference = None
    for variant in variants:
        n = torch.full((1,), 0.4, dtype=torch.float64)
        given = NoisyCrystals(CrystalBatch.from_crystals([variant]), n, n, torch.ones(1, dtype=torch.int64))
        with torch.no_grad():
            out = model(given)
        lengths = pair_distances(variant, out.displacements.numpy())
        volume = float(out.lattice_params[0, 0])
        if reference is None:
            reference = (lengths, volume, out.element_logits)
        np.testing.assert_allclose(lengths, reference[0], atol=1e-8)
        assert volume == pytest.approx(reference[1], abs=1e-9)


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


def test_forces_are_smooth_at_the_cutoff() -> None:
    """Moving an atom through the radius changes nothing abruptly; a hard cutoff would jump."""
    model = network()
    crystal = random_crystal(1)
    values = []
    for shift in np.linspace(0, 1e-3, 41):
        moved = crystal.free_coords.copy()
        moved[0, 0] += shift
        given = noisy(
            [Crystal(1, crystal.lattice_params, crystal.wyckoff_indices, crystal.atomic_numbers, moved)]
        )
        with torch.no_grad():
            values.append(model(given).displacements.numpy())
    steps = np.abs(np.diff(values, axis=0)).max(axis=(1, 2))
    assert steps.max() < 5 * np.median(steps) + 1e-9
