"""The network on orbits equals the full cell in P1, and is blind to every choice that is not physics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nucleate.crystal import Crystal, CrystalBatch, space_group
from nucleate.crystal.reencode import mirror_image, random_encoding
from nucleate.models.orbit_transformer import (
    NoisyCrystals,
    OrbitInputs,
    OrbitTransformer,
    OrbitTransformerConfig,
)

SMALL = OrbitTransformerConfig(
    scalars=16, vectors=8, hidden=16, layers=3, heads=2, num_basis=8, num_sources=2
)

# every crystal family, all centrings, polar, chiral and rhombohedral groups among them
GROUPS = [
    1,
    2,
    5,
    9,
    14,
    19,
    36,
    43,
    62,
    70,
    82,
    88,
    99,
    121,
    141,
    146,
    152,
    160,
    166,
    173,
    194,
    198,
    216,
    227,
]


def random_crystal(number: int, seed: int = 0) -> Crystal:
    """A crystal with up to three orbits, special positions first."""
    rng = np.random.default_rng([number, seed])
    group = space_group(number)
    positions = sorted(range(len(group.letters)), key=lambda i: group.wyckoff_positions[i].multiplicity)
    chosen = [positions[0], positions[len(positions) // 2]] if len(positions) > 1 else [0, 0]
    if group.wyckoff_positions[positions[-1]].multiplicity_primitive <= 12:
        chosen.append(positions[-1])
    if len(chosen) > 1 and chosen[0] == chosen[1] and group.wyckoff_positions[chosen[0]].num_free == 0:
        chosen = chosen[1:]
    free = np.zeros((len(chosen), 3))
    for row, index in zip(free, chosen):
        d = group.wyckoff_positions[index].num_free
        row[:d] = rng.uniform(0.05, 0.95, d)
    params = rng.normal(0, 0.08, group.lattice_subspace.num_params)
    params[0] = np.log(16.0) / 3**0.5
    return Crystal(number, params, np.array(chosen), rng.integers(3, 80, len(chosen)), free)


def network(seed: int = 0) -> OrbitTransformer:
    """A small network in double precision with every weight random, the zero-initialised ones too."""
    torch.manual_seed(seed)
    model = OrbitTransformer(SMALL).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(
                torch.randn_like(parameter) * (parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.1)
            )
    return model


def noisy(crystals: list[Crystal]) -> NoisyCrystals:
    """The crystals with some noise levels."""
    n = len(crystals)
    time = torch.linspace(0.1, 0.9, n, dtype=torch.float64)
    return NoisyCrystals(
        CrystalBatch.from_crystals(crystals), time, time.flip(0), torch.ones(n, dtype=torch.int64)
    )


def in_p1(crystal: Crystal) -> tuple[CrystalBatch, np.ndarray]:
    """The primitive cell in P1, atoms in the order of ``image_coords``, and the rotation of its frame."""
    cell = crystal.unit_cell("primitive")
    fit = space_group(1).lattice_subspace.fit(cell.lattice, num_atoms=cell.num_atoms)
    atoms = np.zeros(cell.num_atoms, dtype=np.int64)
    full = Crystal(1, fit.params, atoms, cell.atomic_numbers, cell.frac_coords)
    return CrystalBatch.from_crystals([full]), fit.rotation


def full_cell(model: OrbitTransformer, crystal: Crystal, inputs: OrbitInputs):
    """Message passing over every atom of the primitive cell, each with the inputs of its orbit."""
    batch, rotation = in_p1(crystal)
    spread = OrbitInputs(inputs.scalars[torch.tensor(crystal.atom_to_orbit)], inputs.condition)
    return model.propagate(batch, spread), torch.tensor(rotation)


def compare_with_full_cell(model: OrbitTransformer, number: int) -> tuple[float, float]:
    """Largest relative deviation of forces and stress between orbits and the full cell."""
    crystal = random_crystal(number)
    given = noisy([crystal])
    with torch.no_grad():
        inputs = model.embed(given)
        orbits = model.propagate(given.crystals, inputs)
        full, rotation = full_cell(model, crystal, inputs)
        atoms = given.crystals.atoms()
        expanded = (atoms.cart_rotations @ orbits.forces[atoms.orbit][:, :, None])[:, :, 0]
        forces = full.forces @ rotation
        stress = rotation.mT @ full.stress @ rotation
    polar = space_group(number).normalizer.directions.shape[1]
    if polar:  # P1 floats in every direction, the group only in some: compare what is left of both
        expanded, forces = expanded - expanded.mean(dim=0), forces - forces.mean(dim=0)
    scale = max(float(forces.abs().max()), 1e-3)
    return (
        float((expanded - forces).abs().max()) / scale,
        float((orbits.stress - stress).abs().max() / stress.abs().max()),
    )


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
