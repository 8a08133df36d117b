"""Lattice parameters to lattices and back in torch, batched and differentiable at equal eigenvalues."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from nucleate.crystal.lattice import NUM_LATTICE_PARAMS, STRAIN_BASIS, lattice_subspace
from nucleate.crystal.tables import group_names
from nucleate.shapes import Float, Int

MAX_LATTICE_PARAMS = 6


class _SymmetricLog(torch.autograd.Function):
    """log(S) of symmetric positive matrices; the derivative uses divided differences.

    With ``S = U diag(l) U^T``, ``d log(S) = U (F o (U^T dS U)) U^T``,
    ``F_ij = (log l_i - log l_j) / (l_i - l_j)`` and ``F_ii = 1 / l_i`` (Daleckii and Krein; Higham, Functions
    of Matrices, theorem 3.11). Differentiating through the eigenvectors instead divides by zero at equal
    eigenvalues.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        ctx.save_for_backward(values, vectors)
        return vectors @ torch.diag_embed(values.log()) @ vectors.mT

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        values, vectors = ctx.saved_tensors
        first, second = values[..., :, None], values[..., None, :]
        # log(a / b) / (a - b) = 2 artanh(z) / (a - b) with z = (a - b) / (a + b), which is smooth through z =
        # 0
        z = (first - second) / (first + second)
        small = z.abs() < 1e-3
        ratio = torch.where(
            small, 1 + z**2 / 3 + z**4 / 5, torch.atanh(z) / torch.where(small, torch.ones_like(z), z)
        )
        factors = 2 * ratio / (first + second)
        symmetric = (gradient + gradient.mT) / 2
        return vectors @ (factors * (vectors.mT @ symmetric @ vectors)) @ vectors.mT


def symmetric_log(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Logarithm of symmetric positive definite matrices, differentiable once, also at equal eigenvalues."""
    return _SymmetricLog.apply((matrix + matrix.mT) / 2)


@cache
def _tables(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """(strain basis, reference lattice by group, which parameters are free by group); row 0 is unused."""
    systems = [entry["lattice_system"] for entry in group_names()]
    references = torch.stack(
        [torch.eye(3, dtype=torch.float64)] + [torch.tensor(lattice_subspace(s).reference) for s in systems]
    )
    free = torch.zeros(len(systems) + 1, MAX_LATTICE_PARAMS, dtype=torch.bool)
    for number, system in enumerate(systems, start=1):
        free[number, : NUM_LATTICE_PARAMS[system]] = True
    basis = torch.tensor(STRAIN_BASIS)
    return basis.to(device, dtype), references.to(device, dtype), free.to(device)


def free_lattice_params(space_group_number: Int[Tensor, "crystals"]) -> Tensor:
    """Which of the six padded lattice parameters each group leaves free, (crystals, 6) bool."""
    return _tables(space_group_number.device, torch.float64)[2][space_group_number]


def reference_lattices(
    space_group_number: Int[Tensor, "crystals"], *, dtype: torch.dtype
) -> Float[Tensor, "crystals 3 3"]:
    """A_ref of each group, volume 1."""
    return _tables(space_group_number.device, dtype)[1][space_group_number]


def combination(
    coefficients: Float[Tensor, "*batch k"], basis: Float[Tensor, "k 3 3"]
) -> Float[Tensor, "*batch 3 3"]:
    """``sum_k c_k B_k``.

    Written as a sum, here and in ``components``: some processors round a row of a matrix product with so few rows and
    columns by its place in the batch.
    """
    return (coefficients[..., None, None] * basis).sum(dim=-3)


def components(
    matrices: Float[Tensor, "*batch 3 3"], basis: Float[Tensor, "k 3 3"]
) -> Float[Tensor, "*batch k"]:
    """``tr(M B_k^T)``."""
    return (matrices[..., None, :, :] * basis).sum(dim=(-2, -1))


def lattices_from_params(
    space_group_number: Int[Tensor, "crystals"],
    lattice_params: Float[Tensor, "crystals 6"],
    num_atoms: Int[Tensor, "crystals"],
) -> Float[Tensor, "crystals 3 3"]:
    """Conventional lattices ``A_ref exp(S)``, rows a, b, c in Å; parameters padded with zeros to six.

    ``num_atoms`` counts the atoms of the conventional cell: the first parameter is the volume per atom.
    """
    basis, references, _ = _tables(lattice_params.device, lattice_params.dtype)
    strain = combination(lattice_params, basis)
    shift = num_atoms.to(lattice_params.dtype).log() / 3
    strain = strain + shift[:, None, None] * torch.eye(3, dtype=strain.dtype, device=strain.device)
    return references[space_group_number] @ torch.linalg.matrix_exp(strain)


def params_from_lattices(
    space_group_number: Int[Tensor, "crystals"],
    lattice: Float[Tensor, "crystals 3 3"],
    num_atoms: Int[Tensor, "crystals"],
) -> Float[Tensor, "crystals 6"]:
    """Free lattice parameters of conventional lattices in any orientation, padded with zeros to six.

    The component outside the lattice subspace of the group is projected out.
    """
    basis, references, free = _tables(lattice.device, lattice.dtype)
    shape = torch.linalg.solve(references[space_group_number], lattice)
    strain = symmetric_log(shape @ shape.mT) / 2
    params = components(strain, basis) * free[space_group_number]
    volume = num_atoms.to(lattice.dtype).log() * 3**-0.5
    return torch.cat([params[:, :1] - volume[:, None], params[:, 1:]], dim=1)
