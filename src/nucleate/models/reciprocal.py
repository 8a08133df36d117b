"""The reciprocal channel: structure factors of learned orbit charges, filtered by |G| and read back at every orbit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from nucleate.crystal.batch import Atoms, CrystalBatch, ragged_rows
from nucleate.crystal.lattice import STRAIN_BASIS
from nucleate.crystal.lattice_torch import free_lattice_params
from nucleate.crystal.tables import group_arrays
from nucleate.models.radial import GaussianBasis, envelope
from nucleate.shapes import Float, Int

NUM_RECIPROCAL_BASIS = 12
"""Gaussians in which a filter of |G| is learned."""
_HALF_LAUE_GROUP = 24


@dataclass(frozen=True, eq=False)
class Stars:
    """Stars of reciprocal lattice vectors of a batch, one representative G each, and each orbit's phases there.

    A star holds the images of G under the point group and the inversion (Friedel: F(-G) is the conjugate of F(G)).
    F at the other members follows from F(G), so one representative carries the sum over the whole star.
    A pair is a star and an orbit of the same crystal. With g = G / |G|_max,

        cosine + i sine                 = mean over the orbit's images a of e^{i G.r_a}
        vector_cosine + i vector_sine   = mean over the orbit's images a of R_a^T g e^{i G.r_a}

    the latter projected onto the tangent space of the orbit's position, where it lies when the mean is taken over
    all operations instead of one per image.

    Attributes:
        crystal: crystal of each star.
        vectors: g of the representative, Cartesian.
        basis: Gaussians of |G| / |G|_max.
        weights: members of the star times the envelope, over the square root of the number of G per atom.
        star, orbit: of each pair.
        cosine, sine: see above.
        vector_cosine, vector_sine: see above.
        share: multiplicity of each orbit over the number of atoms.
        num_crystals: crystals of the batch.
    """

    crystal: Int[Tensor, "stars"]
    vectors: Float[Tensor, "stars 3"]
    basis: Float[Tensor, "stars basis"]
    weights: Float[Tensor, "stars"]
    star: Int[Tensor, "pairs"]
    orbit: Int[Tensor, "pairs"]
    cosine: Float[Tensor, "pairs"]
    sine: Float[Tensor, "pairs"]
    vector_cosine: Float[Tensor, "pairs 3"]
    vector_sine: Float[Tensor, "pairs 3"]
    share: Float[Tensor, "orbits"]
    num_crystals: int


def reciprocal_stars(
    batch: CrystalBatch,
    atoms: Atoms,
    tangent: Float[Tensor, "orbits 3 3"],
    basis: GaussianBasis,
    *,
    radius: float,
) -> Stars:
    """All stars with ``0 < |G| < 2 pi radius (V / N)^(-1/3)``, differentiable in coordinates and lattice.

    There are about ``4/3 pi radius^3`` vectors G per atom, whatever the density, shape or choice of cell: in a
    supercell as many more, but F vanishes at all that are new. A radius of 2.3 holds at least four stars of the cubic
    lattices with one atom per cell, where stars are largest and fewest (bcc reaches (220), its fourth, at 2.245).

    Time and memory: stars x images for the phases, plus vectors G x operations of integer work to tell the stars.
    """
    tables = batch.tables
    number = batch.space_group_number - 1
    with torch.no_grad():
        crystal, miller, members = _representatives(batch, radius)
    num_atoms = batch.num_atoms_primitive
    reciprocal = torch.linalg.inv(batch.lattices()) * (batch.length_unit / radius)[:, None, None]
    # conventional indices: h.(to_primitive f) = (to_primitive^T h).f
    h = _row_products(miller, tables["to_primitive"][number], crystal)
    vectors = _row_products(h, reciprocal.mT, crystal)
    length = torch.linalg.vector_norm(vectors, dim=1)
    weights = members * envelope(length) / (4 / 3 * torch.pi * radius**3) ** 0.5

    star, within = ragged_rows(batch.num_orbits[crystal])
    orbit = batch.orbit_start[crystal][star] + within
    first_pair = batch.num_orbits[crystal].cumsum(0) - batch.num_orbits[crystal]
    seen_star, within = ragged_rows(num_atoms[crystal])
    atom = (num_atoms.cumsum(0) - num_atoms)[crystal][seen_star] + within
    pair = first_pair[seen_star] + atoms.orbit[atom] - batch.orbit_start[crystal][seen_star]
    indices = h[seen_star]
    phase = 2 * torch.pi * (indices * atoms.frac_coords[atom]).sum(dim=1)
    turned = _row_products(indices, atoms.rotations, atom)
    wave = torch.stack([phase.cos(), phase.sin()], dim=1)
    phases = torch.cat([wave, (wave[:, :, None] * turned[:, None, :]).reshape(-1, 6)], dim=1)
    sums = phases.new_zeros(len(star), 8).index_add_(0, pair, phases)
    means = sums / batch.multiplicities[orbit][:, None]
    # rows are vectors in reciprocal coordinates: to Cartesian, then onto the tangent space
    to_tangent = (tangent @ reciprocal[batch.orbit_to_crystal]).mT
    vector_cosine = _row_products(means[:, 2:5], to_tangent, orbit)
    vector_sine = _row_products(means[:, 5:], to_tangent, orbit)
    return Stars(
        crystal=crystal,
        vectors=vectors,
        basis=basis(length),
        weights=weights,
        star=star,
        orbit=orbit,
        cosine=means[:, 0],
        sine=means[:, 1],
        vector_cosine=vector_cosine,
        vector_sine=vector_sine,
        share=batch.multiplicities.to(batch.dtype) / num_atoms[batch.orbit_to_crystal],
        num_crystals=len(batch),
    )


def structure_factors(
    charges: Float[Tensor, "orbits c"], stars: Stars
) -> tuple[Float[Tensor, "stars c"], Float[Tensor, "stars c"]]:
    """Real and imaginary part of ``F_c(G) = 1/N sum over all images a of q_c e^{i G.r_a}``."""
    dtype = stars.cosine.dtype
    spread = (charges.to(dtype) * stars.share[:, None]).index_select(0, stars.orbit)
    parts = torch.cat([spread * stars.cosine[:, None], spread * stars.sine[:, None]], dim=1)
    summed = parts.new_zeros(stars.weights.shape[0], parts.shape[1]).index_add_(0, stars.star, parts)
    real, imaginary = summed.chunk(2, dim=1)
    return real, imaginary


class ReciprocalExchange(nn.Module):
    """All-to-all exchange between orbits through structure factors of learned charges.

    With q = A s, and learned radial functions phi, psi of |G| (V/N)^(1/3) by channel,

        s_i += O sum_G phi Re(F* e^{i G.r_i}),   v_i += P sum_G psi G Im(F* e^{i G.r_i})

    Both are invariant under translation, because F carries the opposite phase, and the sum over a star is taken
    at its representative with the mean over the images of orbit i in place of r_i. O and P start at zero.
    """

    def __init__(self, scalars: int, vectors: int, channels: int) -> None:
        super().__init__()
        self.charges = nn.Linear(scalars, channels)
        self.filter = nn.Linear(NUM_RECIPROCAL_BASIS, 2 * channels, bias=False)
        self.out_scalars = nn.Linear(channels, scalars, bias=False)
        self.out_vectors = nn.Linear(channels, vectors, bias=False)
        nn.init.zeros_(self.out_scalars.weight)
        nn.init.zeros_(self.out_vectors.weight)

    def forward(
        self, s: Float[Tensor, "orbits s"], stars: Stars
    ) -> tuple[Float[Tensor, "orbits s"], Float[Tensor, "orbits 3 v"]]:
        """Changes of the scalars and vectors."""
        charges = self.charges(s)
        real, imaginary = structure_factors(charges, stars)
        learned = self.filter(stars.basis).to(real.dtype) * stars.weights[:, None]
        scalar_filter, vector_filter = learned.chunk(2, dim=1)
        filtered = torch.cat(
            [
                real * scalar_filter,
                imaginary * scalar_filter,
                real * vector_filter,
                imaginary * vector_filter,
            ],
            dim=1,
        )
        at_pair = filtered.index_select(0, stars.star)
        real, imaginary, vector_real, vector_imaginary = at_pair.chunk(4, dim=1)
        potential = real * stars.cosine[:, None] + imaginary * stars.sine[:, None]
        field = (
            vector_real[:, None, :] * stars.vector_sine[:, :, None]
            - vector_imaginary[:, None, :] * stars.vector_cosine[:, :, None]
        )
        channels = potential.shape[1]
        read = torch.cat([potential, field.reshape(-1, 3 * channels)], dim=1)
        summed = read.new_zeros(s.shape[0], 4 * channels).index_add_(0, stars.orbit, read)
        ds = self.out_scalars(summed[:, :channels])
        dv = self.out_vectors(summed[:, channels:].reshape(-1, 3, channels))
        return ds, dv


class ReciprocalStress(nn.Module):
    """Stress of the structure factors: ``sum_G phi |F|^2 G G^T + sum_G psi |F|^2 1``, mean over the point group."""

    def __init__(self, scalars: int, channels: int) -> None:
        super().__init__()
        self.charges = nn.Linear(scalars, channels)
        self.filter = nn.Linear(NUM_RECIPROCAL_BASIS, 2 * channels, bias=False)
        nn.init.zeros_(self.filter.weight)

    def forward(
        self, s: Float[Tensor, "orbits s"], stars: Stars, space_group_number: Int[Tensor, "crystals"]
    ) -> Float[Tensor, "crystals 3 3"]:
        """One symmetric tensor per crystal, invariant under its point group."""
        real, imaginary = structure_factors(self.charges(s), stars)
        power = real**2 + imaginary**2
        learned = self.filter(stars.basis).to(power.dtype) * stars.weights[:, None]
        phi, psi = learned.chunk(2, dim=1)
        along, uniform = (power * phi).sum(dim=1), (power * psi).sum(dim=1)
        outer = stars.vectors[:, :, None] * stars.vectors[:, None, :] * along[:, None, None]
        outer = outer + torch.eye(3, dtype=outer.dtype, device=outer.device) * uniform[:, None, None]
        total = outer.new_zeros(stars.num_crystals, 3, 3).index_add_(0, stars.crystal, outer)
        # the mean of R T R^T over the point group is the projection onto the invariant strains
        strains = torch.tensor(STRAIN_BASIS).to(total)
        parts = torch.einsum("cij,kij->ck", total, strains) * free_lattice_params(space_group_number)
        return torch.einsum("ck,kij->cij", parts, strains)


def _row_products(
    rows: Float[Tensor, "n 3"], matrices: Float[Tensor, "m 3 k"], index: Int[Tensor, "n"]
) -> Float[Tensor, "n k"]:
    """``rows[i] @ matrices[index[i]]`` as a sum over three columns, in which no copy of a matrix is made."""
    return (
        rows[:, 0, None] * matrices[:, 0][index]
        + rows[:, 1, None] * matrices[:, 1][index]
        + rows[:, 2, None] * matrices[:, 2][index]
    )


@cache
def _half_laue_groups(device: torch.device) -> Tensor:
    """Operations W of each group in primitive coordinates, one of every pair W, -W; zeros beyond, (230, 24, 3, 3)."""
    tables = group_arrays()
    groups = np.zeros((230, _HALF_LAUE_GROUP, 3, 3))
    for i in range(230):
        rotations = tables["rotations"][tables["operation_start"][i] : tables["operation_start"][i + 1]]
        proper = np.unique(rotations * np.rint(np.linalg.det(rotations)).astype(int)[:, None, None], axis=0)
        groups[i, : len(proper)] = tables["to_primitive"][i] @ proper @ tables["primitive"][i]
    return torch.tensor(np.rint(groups)).to(device)


def _representatives(
    batch: CrystalBatch, radius: float
) -> tuple[Int[Tensor, "stars"], Float[Tensor, "stars 3"], Float[Tensor, "stars"]]:
    """(crystal, primitive Miller indices, members) of one representative per star.

    Indices are told apart by the number h.(1, M, M^2), M larger than their spread. The representative is the member
    with the largest number, which is positive; members of equal number are the same vector.
    """
    lattices = batch.primitive_lattices()
    limit = radius / batch.length_unit
    reach = torch.floor(limit[:, None] * torch.linalg.vector_norm(lattices, dim=2)).to(torch.int64)
    sizes = 2 * reach + 1
    half = reach[:, 2] + 1
    crystal, nth = ragged_rows(sizes[:, 0] * sizes[:, 1] * half)
    size = sizes[crystal]
    within = torch.stack(
        [nth % size[:, 0], nth // size[:, 0] % size[:, 1], nth // (size[:, 0] * size[:, 1])], dim=1
    )
    offset = torch.cat([reach[:, :2], torch.zeros_like(reach[:, :1])], dim=1)
    miller = (within - offset[crystal]).to(batch.dtype)
    columns = torch.linalg.inv(lattices) / limit[:, None, None]
    vectors = _row_products(miller, columns.mT, crystal)
    near = (vectors**2).sum(dim=1) < 1
    spread = 2.0 * float(reach.max()) + 3 if len(reach) else 1.0
    key = torch.tensor([1.0, spread, spread**2], dtype=torch.float64, device=batch.device)
    positive = miller.to(torch.float64) @ key > 0
    kept = torch.nonzero(near & positive)[:, 0]
    crystal, miller = crystal[kept], miller[kept]
    exact = miller.to(torch.float64)
    own = exact @ key
    # the number of h W is h.(W key): one vector per operation
    keys = _half_laue_groups(batch.device)[batch.space_group_number - 1] @ key
    images = _row_products(exact, keys.mT, crystal).abs()
    first = own >= images.amax(dim=1)
    order = (keys != 0).any(dim=2).sum(dim=1)[crystal[first]]
    fixing = (images[first] == own[first, None]).sum(dim=1)
    members = 2 * order / fixing
    return crystal[first], miller[first], members.to(batch.dtype)
