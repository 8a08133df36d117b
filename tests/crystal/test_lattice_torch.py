"""The torch lattices equal the numpy ones and have exact derivatives, also at equal eigenvalues."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import lattice_params, random_rotation

from nucleate.crystal import space_group
from nucleate.crystal.lattice_torch import (
    MAX_LATTICE_PARAMS,
    free_lattice_params,
    lattices_from_params,
    params_from_lattices,
    reference_lattices,
    symmetric_log,
)

NUMBERS = torch.arange(1, 231)
ONE_OF_EACH_SYSTEM = [2, 14, 62, 136, 166, 194, 225]


def padded_params(numbers: torch.Tensor) -> torch.Tensor:
    rows = np.zeros((len(numbers), MAX_LATTICE_PARAMS))
    for row, n in zip(rows, numbers.tolist()):
        params = lattice_params(n, np.random.default_rng(n))
        row[: len(params)] = params
    return torch.tensor(rows)


def test_lattices_equal_the_numpy_ones_for_all_groups(rng: np.random.Generator) -> None:
    params, num_atoms = padded_params(NUMBERS), torch.tensor(rng.integers(1, 200, 230))
    lattices = lattices_from_params(NUMBERS, params, num_atoms)
    free = free_lattice_params(NUMBERS)
    for i, n in enumerate(NUMBERS.tolist()):
        subspace = space_group(n).lattice_subspace
        assert free[i].sum() == subspace.num_params
        expected = subspace.to_lattice(params[i, : subspace.num_params].numpy(), num_atoms=int(num_atoms[i]))
        assert np.allclose(lattices[i].numpy(), expected, atol=1e-10)
        assert np.allclose(reference_lattices(NUMBERS[i : i + 1], dtype=torch.float64)[0], subspace.reference)
    rotations = torch.tensor(np.stack([random_rotation(rng) for _ in NUMBERS]))
    assert torch.allclose(params_from_lattices(NUMBERS, lattices @ rotations, num_atoms), params, atol=1e-10)


def test_what_lies_outside_the_subspace_is_projected_out(rng: np.random.Generator) -> None:
    numbers, num_atoms = torch.tensor([225, 194, 62]), torch.tensor([8, 6, 4])
    lattices = lattices_from_params(numbers, padded_params(numbers), num_atoms)
    noisy = lattices + 1e-3 * torch.tensor(rng.normal(size=(3, 3, 3)))
    params = params_from_lattices(numbers, noisy, num_atoms)
    assert not params[~free_lattice_params(numbers)].any()
    for n, atoms, lattice, row in zip(numbers.tolist(), num_atoms.tolist(), noisy.numpy(), params.numpy()):
        fit = space_group(n).lattice_subspace.fit(lattice, num_atoms=atoms)
        assert np.allclose(row[: len(fit.params)], fit.params, atol=1e-10)


def test_single_precision_follows_the_input() -> None:
    params = padded_params(NUMBERS).float()
    lattices = lattices_from_params(NUMBERS, params, torch.full((230,), 12))
    assert lattices.dtype == torch.float32
    assert torch.allclose(params_from_lattices(NUMBERS, lattices, torch.full((230,), 12)), params, atol=1e-5)


def equal_eigenvalues() -> torch.Tensor:
    """Cubic (all three equal), uniaxial (two equal), nearly equal and generic matrices."""
    rotation = torch.tensor(random_rotation(np.random.default_rng(3)))
    values = [[2.0, 2, 2], [1, 1, 3], [1, 1 + 1e-9, 3], [1, 1 + 1e-4, 1.3], [0.5, 1, 4], [1, 1, 1]]
    return rotation @ torch.diag_embed(torch.tensor(values, dtype=torch.float64)) @ rotation.mT


def test_logarithm_inverts_the_exponential() -> None:
    matrices = equal_eigenvalues()
    assert torch.allclose(torch.linalg.matrix_exp(symmetric_log(matrices)), matrices, atol=1e-12)


def test_logarithm_has_exact_gradients_at_equal_eigenvalues() -> None:
    matrices = equal_eigenvalues().requires_grad_()
    assert torch.autograd.gradcheck(symmetric_log, (matrices,), eps=1e-6, atol=1e-6)


def test_differentiating_through_eigenvectors_fails_at_equal_eigenvalues() -> None:
    """Negative control: the obvious way gives NaN there, which is why the module has its own derivative."""

    def naive(matrix: torch.Tensor) -> torch.Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        return vectors @ torch.diag_embed(values.log()) @ vectors.mT

    weights = torch.arange(9.0, dtype=torch.float64).reshape(3, 3)
    for cell in (torch.eye(3), torch.diag(torch.tensor([1.0, 1, 3]))):
        gradients = {}
        for function in (naive, symmetric_log):
            matrix = cell.double().requires_grad_()
            (function(matrix) * weights).sum().backward()
            gradients[function] = matrix.grad
        assert not gradients[naive].isfinite().all()
        assert gradients[symmetric_log].isfinite().all()


@pytest.mark.parametrize("number", ONE_OF_EACH_SYSTEM)
def test_lattice_gradients_at_the_reference_shape(number: int) -> None:
    """At S = 0 every system has three equal eigenvalues; both directions pass gradcheck."""
    numbers, num_atoms = torch.tensor([number, number]), torch.tensor([4, 4])
    params = torch.zeros(2, 6, dtype=torch.float64)
    params[1] = padded_params(numbers)[1]
    params.requires_grad_()
    free = free_lattice_params(numbers)

    def forward(p: torch.Tensor) -> torch.Tensor:
        return lattices_from_params(numbers, p * free, num_atoms)

    assert torch.autograd.gradcheck(forward, (params,), atol=1e-6)
    lattices = forward(params).detach().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: params_from_lattices(numbers, x, num_atoms), (lattices,), atol=1e-6
    )
