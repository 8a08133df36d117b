"""Crystals of every family, a small network with random weights, and the same in the full cell in P1."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from nucleate.crystal import Crystal, CrystalBatch, space_group
from nucleate.models.orbit_transformer import (
    NoisyCrystals,
    OrbitInputs,
    OrbitTransformer,
    OrbitTransformerConfig,
)

SMALL = OrbitTransformerConfig(
    scalars=16, vectors=8, hidden=16, layers=3, heads=2, num_basis=8, num_sources=2
)

BRANCHED = replace(SMALL, reciprocal=6, reciprocal_radius=1.6, coarse=8, tensors=4)

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


def network(seed: int = 0, config: OrbitTransformerConfig = SMALL) -> OrbitTransformer:
    """A small network in double precision with every weight random, the zero-initialised ones too."""
    torch.manual_seed(seed)
    model = OrbitTransformer(config).double().eval()
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
    # where symmetry leaves no force, what cancels is as large as the stress
    scale = max(float(forces.abs().max()), float(stress.abs().max()))
    return (
        float((expanded - forces).abs().max()) / scale,
        float((orbits.stress - stress).abs().max() / stress.abs().max()),
    )
