"""l = 2 features: symmetric traceless tensors, five components each, rotated and projected like vectors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from nucleate.crystal.batch import Atoms, CrystalBatch
from nucleate.crystal.lattice_torch import combination, reference_lattices
from nucleate.crystal.tables import group_arrays
from nucleate.shapes import Float

_EPS = 1e-6


@dataclass(frozen=True, eq=False)
class TensorGeometry:
    """What message passing of tensors needs beside the edges.

    Attributes:
        directions: components of ``r r^T`` without trace for every edge direction r.
        rotations: five by five matrices of the R of every atom.
        projectors: onto the tensors that keep the site symmetry of each orbit.
        basis: the five orthonormal symmetric traceless matrices.
    """

    directions: Float[Tensor, "edges 5"]
    rotations: Float[Tensor, "atoms 5 5"]
    projectors: Float[Tensor, "orbits 5 5"]
    basis: Float[Tensor, "5 3 3"]


@cache
def tensor_basis(device: torch.device, dtype: torch.dtype) -> Float[Tensor, "5 3 3"]:
    """Symmetric traceless matrices T_m with ``tr(T_m T_n) = delta_mn``: yz, xz, xy, x^2 - y^2, 3 z^2 - r^2."""
    basis = torch.zeros(5, 3, 3, dtype=torch.float64)
    for m, (i, j) in enumerate([(1, 2), (0, 2), (0, 1)]):
        basis[m, i, j] = basis[m, j, i] = 0.5**0.5
    basis[3] = torch.diag(torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)) / 2**0.5
    basis[4] = torch.diag(torch.tensor([-1.0, -1.0, 2.0], dtype=torch.float64)) / 6**0.5
    return basis.to(device, dtype)


def tensor_components(vectors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 5"]:
    """``r^T T_m r``: r r^T without its trace.

    Written out for the same reason as ``combination``.
    """
    x, y, z = vectors.unbind(dim=-1)
    mixed = [2**0.5 * y * z, 2**0.5 * x * z, 2**0.5 * x * y]
    diagonal = [(x * x - y * y) / 2**0.5, (2 * z * z - x * x - y * y) / 6**0.5]
    return torch.stack(mixed + diagonal, dim=-1)


def tensor_rotations(rotations: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n 5 5"]:
    """``D_mn = tr(T_m R T_n R^T)``, the action of R on the five components; the sign of R does not matter."""
    basis = tensor_basis(rotations.device, rotations.dtype)
    turned = rotations[:, None] @ basis @ rotations.mT[:, None]
    return basis.reshape(5, 9) @ turned.reshape(-1, 5, 9).mT


def tensor_geometry(
    batch: CrystalBatch, atoms: Atoms, directions: Float[Tensor, "edges 3"]
) -> TensorGeometry:
    """Directions, rotations and projectors of a batch."""
    return TensorGeometry(
        directions=tensor_components(directions),
        rotations=tensor_rotations(atoms.cart_rotations),
        projectors=_site_projectors(batch.device, batch.dtype)[batch.position_ids],
        basis=tensor_basis(batch.device, batch.dtype),
    )


@cache
def _site_projectors(device: torch.device, dtype: torch.dtype) -> Float[Tensor, "positions 5 5"]:
    """Mean of the rotations of the site symmetry group of every Wyckoff position.

    The Cartesian operations are those of the reference lattice, because every lattice of the group is the reference
    times a stretch that commutes with them.
    """
    tables = group_arrays()
    start = tables["stabiliser_start"]
    position = np.repeat(np.arange(len(start) - 1), np.diff(start))
    group = tables["position_group"][position]
    operations = torch.tensor(
        tables["rotations"][tables["operation_start"][group - 1] + tables["stabiliser"]], dtype=torch.float64
    )
    columns = reference_lattices(torch.tensor(group), dtype=torch.float64).mT
    turned = tensor_rotations(columns @ operations @ torch.linalg.inv(columns))
    sums = torch.zeros(len(start) - 1, 5, 5, dtype=torch.float64)
    sums.index_add_(0, torch.tensor(position), turned)
    return (sums / torch.tensor(np.diff(start))[:, None, None]).to(device, dtype)


class TensorUpdate(nn.Module):
    """Mixes the tensors of an orbit with its scalars and vectors.

    With the matrices Q (first) and W (second) of mixed channels and vectors u of mixed channels,

        x = [s, |Q|, tr(Q W), u^T Q u],   s += A x,   v += g (Q u),   Q += g' Q + g'' (u u^T - trace)

    with gates g of x. What reaches s and v starts at zero.
    """

    def __init__(self, scalars: int, vectors: int, tensors: int) -> None:
        super().__init__()
        self.tensors = tensors
        self.mix = nn.Linear(tensors, 2 * tensors, bias=False)
        self.vectors = nn.Linear(vectors, tensors, bias=False)
        self.hidden = nn.Linear(scalars + 3 * tensors, scalars)
        self.gates = nn.Linear(scalars, 3 * tensors)
        self.out_scalars = nn.Linear(scalars, scalars)
        self.out_vectors = nn.Linear(tensors, vectors, bias=False)
        nn.init.zeros_(self.out_scalars.weight)
        nn.init.zeros_(self.out_scalars.bias)
        nn.init.zeros_(self.out_vectors.weight)

    def forward(
        self,
        s: Float[Tensor, "orbits s"],
        v: Float[Tensor, "orbits 3 v"],
        q: Float[Tensor, "orbits 5 t"],
        basis: Float[Tensor, "5 3 3"],
    ) -> tuple[Float[Tensor, "orbits s"], Float[Tensor, "orbits 3 v"], Float[Tensor, "orbits 5 t"]]:
        """Changes of the scalars, vectors and tensors."""
        first, second = self.mix(q).chunk(2, dim=2)
        u = self.vectors(v)
        turned = (combination(first.mT, basis) * u.mT[:, :, None]).sum(dim=3).mT
        lengths = torch.sqrt((first**2).sum(dim=1) + _EPS)
        x = torch.cat([s, lengths, (first * second).sum(dim=1), (u * turned).sum(dim=1)], dim=1)
        hidden = nn.functional.silu(self.hidden(x))
        turn, keep, make = self.gates(hidden).chunk(3, dim=1)
        made = tensor_components(u.mT).mT
        dq = second * keep[:, None, :] + made * make[:, None, :]
        return self.out_scalars(hidden), self.out_vectors(turned * turn[:, None, :]), dq
