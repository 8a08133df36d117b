"""What holds for every crystal, whatever made it."""

from __future__ import annotations

import numpy as np

from nucleate.crystal import Crystal

TOLERANCE = 1e-9


def assert_crystal_invariants(crystal: Crystal) -> None:
    """The crystal has its own symmetry exactly, its counts are those of its atoms, its cells one crystal."""
    group = crystal.group
    lattice, conventional, primitive = crystal.lattice, crystal.unit_cell(), crystal.unit_cell("primitive")

    # the cell
    assert np.linalg.det(lattice) > 0
    assert np.isclose(np.linalg.det(lattice), crystal.volume_per_atom * crystal.num_atoms, rtol=TOLERANCE)
    metric = lattice @ lattice.T
    moved = np.einsum("nji,jk,nkl->nil", group.rotations, metric, group.rotations)
    assert np.abs(moved - metric).max() < TOLERANCE * np.abs(metric).max()
    params = group.lattice_subspace.params_of_metric(metric, num_atoms=crystal.num_atoms)
    assert np.allclose(params, crystal.lattice_params, atol=TOLERANCE)

    # the counts
    assert conventional.num_atoms == crystal.num_atoms == crystal.multiplicities.sum()
    assert primitive.num_atoms == crystal.num_atoms_primitive
    assert crystal.num_atoms == crystal.num_atoms_primitive * group.num_centrings
    assert sum(crystal.composition.values()) == crystal.num_atoms_primitive
    assert np.isclose(conventional.volume, primitive.volume * group.num_centrings, rtol=TOLERANCE)
    assert (crystal.atomic_numbers[crystal.atom_to_orbit] == primitive.atomic_numbers).all()

    # the atoms: every operation maps every orbit onto itself
    for cell in (conventional, primitive):
        assert (cell.frac_coords >= 0).all()
        assert (cell.frac_coords < 1).all()
    to_primitive = np.linalg.inv(group.primitive_basis)
    for position, points in zip(crystal.positions, _orbits(crystal)):
        stay = position.stabiliser_rotations @ points[0] + position.stabiliser_translations
        assert np.abs(stay - points[0]).max() < TOLERANCE
        moved = np.einsum("nij,aj->nai", group.rotations, points) + group.translations[:, None]
        difference = (moved[:, :, None] - points) @ to_primitive.T
        difference -= np.rint(difference)
        hits = np.abs(difference).max(axis=-1) < TOLERANCE
        assert (hits.sum(axis=1) == 1).all(), f"an operation does not permute the orbit on {position.label}"
        assert (hits.sum(axis=2) == 1).all()

    # the conventional cell is the primitive one, repeated
    coords = primitive.frac_coords @ group.primitive_basis.T
    difference = coords[:, None] - conventional.frac_coords
    difference -= np.rint(difference)
    same = (np.abs(difference).max(axis=-1) < TOLERANCE).sum(axis=1)
    assert (same == 1).all()


def _orbits(crystal: Crystal) -> list[np.ndarray]:
    ends = np.cumsum(crystal.multiplicities_primitive)
    return np.split(crystal.image_coords(), ends[:-1])
