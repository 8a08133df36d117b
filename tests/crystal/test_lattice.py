"""Lattice subspaces: exact both ways, invariant under their groups, and the nearest ideal lattice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import lattice_params, random_rotation

from nucleate.crystal import LatticeSubspace, space_group
from nucleate.crystal.lattice import NUM_LATTICE_PARAMS, STRAIN_BASIS, lattice_subspace
from nucleate.errors import InvalidStructureError

ALL = range(1, 231)
SYSTEMS = list(NUM_LATTICE_PARAMS)


def params_for(subspace: LatticeSubspace) -> st.SearchStrategy[np.ndarray]:
    entry = st.floats(-0.8, 0.8, allow_nan=False)
    return st.lists(entry, min_size=subspace.num_params, max_size=subspace.num_params).map(np.array)


def lengths_and_angles(lattice: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(lattice, axis=1)
    cosines = [lattice[i] @ lattice[j] / lengths[i] / lengths[j] for i, j in ((1, 2), (0, 2), (0, 1))]
    return np.concatenate([lengths, np.degrees(np.arccos(cosines))])


@pytest.mark.parametrize("system", SYSTEMS)
@settings(max_examples=25, deadline=None)
@given(data=st.data(), num_atoms=st.integers(1, 400), seed=st.integers(0, 2**32 - 1))
def test_params_to_lattice_and_back_in_any_frame(
    system: str, data: st.DataObject, num_atoms: int, seed: int
) -> None:
    subspace = lattice_subspace(system)
    params = data.draw(params_for(subspace))
    lattice = subspace.to_lattice(params, num_atoms=num_atoms)
    assert np.isclose(np.linalg.det(lattice), num_atoms * np.exp(3**0.5 * params[0]))
    rotation = random_rotation(np.random.default_rng(seed))
    fit = subspace.fit(lattice @ rotation, num_atoms=num_atoms)
    assert np.allclose(fit.params, params, atol=1e-9)
    assert np.allclose(fit.lattice, lattice @ rotation, atol=1e-9 * np.abs(lattice).max())
    assert np.allclose(fit.rotation, rotation, atol=1e-9)
    assert fit.strain < 1e-9
    metric = lattice @ lattice.T
    again = subspace.params_of_metric(np.stack([metric, metric]), num_atoms=num_atoms)
    assert np.allclose(again, params, atol=1e-9)


def test_basis_is_orthonormal_and_volume_stands_alone() -> None:
    flat = STRAIN_BASIS.reshape(6, 9)
    assert np.allclose(flat @ flat.T, np.eye(6))
    assert np.allclose(STRAIN_BASIS, np.swapaxes(STRAIN_BASIS, 1, 2))
    assert np.allclose(np.trace(STRAIN_BASIS, axis1=1, axis2=2), [3**0.5, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("number", ALL)
def test_lattices_are_invariant_under_every_operation_and_nothing_is_missing(number: int) -> None:
    """The free strains are exactly those invariant under the point group: dimension by the group average."""
    group = space_group(number)
    subspace = group.lattice_subspace
    lattice = subspace.to_lattice(lattice_params(number, np.random.default_rng(number)), num_atoms=7)
    metric = lattice @ lattice.T
    W = group.rotations
    assert np.abs(np.swapaxes(W, 1, 2) @ metric @ W - metric).max() < 1e-9 * np.abs(metric).max()
    assert np.isclose(np.linalg.det(subspace.reference), 1)
    R = np.linalg.inv(subspace.reference) @ np.swapaxes(W, 1, 2) @ subspace.reference
    assert np.allclose(R @ np.swapaxes(R, 1, 2), np.eye(3))
    average = np.einsum("nij,kjl,nml->kim", R, STRAIN_BASIS, R) / len(R)
    projector = average.reshape(6, 9) @ STRAIN_BASIS.reshape(6, 9).T
    free = np.arange(6) < subspace.num_params
    assert np.allclose(projector, np.diag(free.astype(float)), atol=1e-12)


def test_shapes_of_the_systems() -> None:
    def cell(system: str) -> np.ndarray:
        params = np.array([1.2, 0.11, -0.13, 0.17, 0.19, -0.05])[: NUM_LATTICE_PARAMS[system]]
        return lengths_and_angles(lattice_subspace(system).to_lattice(params, num_atoms=4))

    a, b, c, alpha, beta, gamma = cell("cubic")
    assert np.allclose([a, b, c, alpha, beta, gamma], [a, a, a, 90, 90, 90])
    for system, angle in (("tetragonal", 90), ("hexagonal", 120), ("rhombohedral", 120)):
        a, b, c, alpha, beta, gamma = cell(system)
        assert np.allclose([b, alpha, beta, gamma], [a, 90, 90, angle])
        assert abs(c - a) > 0.1
    a, b, c, *angles = cell("orthorhombic")
    assert np.allclose(angles, 90)
    assert min(abs(a - b), abs(b - c), abs(a - c)) > 0.1
    *_, alpha, beta, gamma = cell("monoclinic")
    assert np.allclose([alpha, gamma], 90)
    assert abs(beta - 90) > 1
    assert np.abs(cell("triclinic")[3:] - 90).min() > 1


@pytest.mark.parametrize("system", SYSTEMS)
def test_fit_of_a_perturbed_lattice_is_the_nearest_ideal_one(system: str, rng: np.random.Generator) -> None:
    subspace = lattice_subspace(system)
    params = np.array([1.0, 0.1, -0.2, 0.15, 0.1, 0.05])[: subspace.num_params]
    lattice = subspace.to_lattice(params, num_atoms=2) @ random_rotation(rng)
    noisy = lattice @ (np.eye(3) + 1e-3 * rng.normal(size=(3, 3)))
    fit = subspace.fit(noisy, num_atoms=2)
    assert np.abs(fit.params - params).max() < 5e-3
    assert np.allclose(fit.lattice, subspace.to_lattice(fit.params, num_atoms=2) @ fit.rotation)
    assert np.allclose(fit.rotation @ fit.rotation.T, np.eye(3))
    assert np.isclose(np.linalg.det(fit.lattice), np.linalg.det(noisy))  # the volume is kept
    if system == "triclinic":
        assert fit.strain < 1e-12
        assert np.allclose(fit.lattice, noisy)
    else:
        assert 1e-5 < fit.strain < 1e-2
        assert np.allclose(fit.lattice, noisy, atol=2 * fit.strain * np.abs(noisy).max() + 1e-9)
        again = subspace.fit(fit.lattice, num_atoms=2)
        assert again.strain < 1e-12
        assert np.allclose(again.params, fit.params)
    # the group average of the strain, up to the second order of the noise
    shape = np.linalg.solve(subspace.reference, noisy)
    values, vectors = np.linalg.eigh(shape @ shape.T)
    strain = (vectors * np.log(values) / 2) @ vectors.T - np.eye(3) * np.log(2) / 3
    assert np.allclose(fit.params, np.tensordot(subspace.basis, strain, axes=2), atol=3e-5)


@pytest.mark.parametrize("lattice", [np.zeros((3, 3)), np.full((3, 3), np.nan)])
def test_a_lattice_without_volume_is_refused(lattice: np.ndarray) -> None:
    with pytest.raises(InvalidStructureError, match="right-handed cell with volume is needed"):
        lattice_subspace("triclinic").fit(lattice, num_atoms=1)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_left_handed_lattice_is_refused(system: str) -> None:
    with pytest.raises(InvalidStructureError, match=r"determinant -[0-9.]+ Å\^3"):
        lattice_subspace(system).fit(np.diag([3.0, 4, -5]), num_atoms=1)


def test_a_wrong_number_of_parameters_is_refused() -> None:
    with pytest.raises(InvalidStructureError, match="tetragonal lattice has 2 free parameters, got 3"):
        lattice_subspace("tetragonal").to_lattice(np.zeros(3), num_atoms=1)
