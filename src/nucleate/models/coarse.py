"""Coarse levels above the orbit: coordination polyhedron, element sublattice, whole crystal."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nucleate.crystal.batch import CrystalBatch, ragged_rows
from nucleate.models.radial import envelope
from nucleate.shapes import Float, Int

BOND_REACH = 1.6
"""Distance over the sum of covalent radii where a neighbour stops being a corner of the polyhedron."""
_BOND_DECAY = 0.15
_LOGIT_BOUND = 6.0
_EPS = 0.05
_NUM_ELEMENT_ROWS = 256


@dataclass(frozen=True, eq=False)
class Levels:
    """What belongs to what in a batch.

    The polyhedron of an orbit is its representative and the images bonded to it. Sublattices and crystals are
    tokens in one list, sublattices first; a sublattice holds all orbits of one element of one crystal.

    Attributes:
        centre, corner: orbits of each bond from a representative to an image.
        bond: strength of each bond, smooth and zero beyond ``BOND_REACH``.
        sublattice: token of each orbit's element.
        orbit_share: atoms of each orbit over those of its sublattice.
        token_share: atoms of each sublattice over those of its crystal.
        sublattice_crystal: crystal of each sublattice.
        token_from, token_to: every ordered pair of tokens of one crystal.
        reader, read: every pair of an orbit and a token of its crystal.
        num_crystals: crystals of the batch.
    """

    centre: Int[Tensor, "bonds"]
    corner: Int[Tensor, "bonds"]
    bond: Float[Tensor, "bonds"]
    sublattice: Int[Tensor, "orbits"]
    orbit_share: Float[Tensor, "orbits"]
    token_share: Float[Tensor, "sublattices"]
    sublattice_crystal: Int[Tensor, "sublattices"]
    token_from: Int[Tensor, "pairs"]
    token_to: Int[Tensor, "pairs"]
    reader: Int[Tensor, "reads"]
    read: Int[Tensor, "reads"]
    num_crystals: int


def coarse_levels(
    batch: CrystalBatch,
    *,
    target: Int[Tensor, "edges"],
    source: Int[Tensor, "edges"],
    bond: Float[Tensor, "edges"],
    cutoff: Float[Tensor, "edges"],
) -> Levels:
    """Polyhedra, sublattices and crystals of a batch.

    Args:
        batch: the crystals; masked elements (0) form a sublattice of their own.
        target, source: orbits of each edge of the neighbour graph.
        bond: distance of each edge over the sum of the covalent radii.
        cutoff: envelope of the neighbour graph.
    """
    strength = envelope(bond / BOND_REACH) * torch.exp((1 - bond) / _BOND_DECAY) * cutoff
    bonded = torch.nonzero(strength.detach() > 0)[:, 0]
    crystal = batch.orbit_to_crystal
    code, sublattice = torch.unique(
        crystal * _NUM_ELEMENT_ROWS + batch.atomic_numbers, sorted=True, return_inverse=True
    )
    of = code // _NUM_ELEMENT_ROWS
    size = torch.zeros_like(code).index_add_(0, sublattice, batch.multiplicities)
    num_crystals = len(batch)
    # tokens crystal by crystal: its sublattices, then itself
    token_crystal = torch.cat([of, torch.arange(num_crystals, device=of.device)])
    by_crystal = torch.argsort(token_crystal, stable=True)
    counts = torch.bincount(token_crystal, minlength=num_crystals)
    start = counts.cumsum(0) - counts
    token_from, token_to = _pairs(token_crystal, counts, start, by_crystal)
    reader, read = _pairs(crystal, counts, start, by_crystal)
    return Levels(
        centre=target[bonded],
        corner=source[bonded],
        bond=strength[bonded],
        sublattice=sublattice,
        orbit_share=batch.multiplicities.to(batch.dtype) / size[sublattice],
        token_share=size.to(batch.dtype) / batch.num_atoms_primitive[of],
        sublattice_crystal=of,
        token_from=token_from,
        token_to=token_to,
        reader=reader,
        read=read,
        num_crystals=num_crystals,
    )


class CoarseExchange(nn.Module):
    """One exchange of every orbit with its polyhedron, the sublattices and the crystal.

    Upwards, polyhedra are sums over corners weighted by bond strength, sublattices are means over their atoms
    (orbits weighted by multiplicity) and the crystal is the mean over all atoms. Within a level, polyhedra attend
    to those of their corners, and sublattices and crystal to each other. Downwards, every orbit attends to its own
    polyhedron, to the sublattices and to the crystal, told which sublattice is its own. The way back to the scalars
    starts at zero.

    Tokens of a crystal and of its full cell in P1 are the same, since means over atoms and sums over images are.
    """

    def __init__(self, scalars: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.width = width
        self.corners = nn.Linear(scalars, width)
        self.centre = nn.Linear(scalars, width)
        self.polyhedra = nn.Linear(width, 3 * width)
        self.members = nn.Linear(scalars, width)
        self.member_polyhedra = nn.Linear(width, width, bias=False)
        self.kinds = nn.Parameter(torch.randn(2, width) * 0.5)
        self.tokens = nn.Linear(width, 3 * width)
        self.query = nn.Linear(scalars, width)
        self.read_polyhedra = nn.Linear(width, 2 * width)
        self.read_tokens = nn.Linear(width, 2 * width)
        self.own = nn.Parameter(torch.zeros(width))
        self.out = nn.Linear(width, scalars)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, s: Float[Tensor, "orbits s"], levels: Levels) -> Float[Tensor, "orbits s"]:
        """Change of the scalars."""
        dtype = levels.bond.dtype
        polyhedra = self._polyhedra(s, levels, dtype)
        members = (self.members(s) + self.member_polyhedra(polyhedra)).to(dtype) * levels.orbit_share[:, None]
        num_sublattices = levels.token_share.shape[0]
        sublattices = members.new_zeros(num_sublattices, self.width).index_add_(0, levels.sublattice, members)
        crystals = members.new_zeros(levels.num_crystals, self.width).index_add_(
            0, levels.sublattice_crystal, sublattices * levels.token_share[:, None]
        )
        tokens = nn.functional.silu(torch.cat([sublattices + self.kinds[0], crystals + self.kinds[1]]))
        query, key, value = self.tokens(tokens).chunk(3, dim=1)
        weights = self._weights(query, key, levels.token_to, levels.token_from, dtype)
        tokens = tokens + _mean(weights, value, levels.token_to, levels.token_from, tokens.shape[0], dtype)
        return self._read(s, polyhedra, tokens, levels, dtype)

    def _polyhedra(self, s: Tensor, levels: Levels, dtype: torch.dtype) -> Float[Tensor, "orbits width"]:
        """Sum over corners, then attention to the polyhedra of the corners."""
        corners = self.corners(s).to(dtype)[levels.corner] * levels.bond[:, None]
        packed = torch.cat([corners, levels.bond[:, None]], dim=1)
        summed = packed.new_zeros(s.shape[0], self.width + 1).index_add_(0, levels.centre, packed)
        polyhedra = nn.functional.silu(
            summed[:, : self.width] / (_EPS + summed[:, self.width :]) + self.centre(s)
        )
        query, key, value = self.polyhedra(polyhedra).chunk(3, dim=1)
        weights = self._weights(query, key, levels.centre, levels.corner, dtype) * levels.bond[:, None]
        return polyhedra + _mean(weights, value, levels.centre, levels.corner, s.shape[0], dtype)

    def _read(
        self, s: Tensor, polyhedra: Tensor, tokens: Tensor, levels: Levels, dtype: torch.dtype
    ) -> Float[Tensor, "orbits s"]:
        """What the orbits take from their polyhedron, the sublattices and the crystal."""
        query = self.query(s)
        key, value = self.read_tokens(tokens).chunk(2, dim=1)
        own = (levels.sublattice[levels.reader] == levels.read).to(dtype)
        weights = self._weights(query, key, levels.reader, levels.read, dtype, own)
        taken = _mean_parts(weights, value, levels.reader, levels.read, s.shape[0], dtype)
        key, value = self.read_polyhedra(polyhedra).chunk(2, dim=1)
        logits = (query * key).reshape(-1, self.heads, self.width // self.heads).sum(dim=2)
        weights = _bounded_exp(logits, self.width // self.heads).to(dtype)
        mixed = value.to(dtype).reshape(-1, self.heads, self.width // self.heads) * weights[:, :, None]
        total = taken[1] + weights
        mixed = (taken[0].reshape(mixed.shape) + mixed) / total[:, :, None]
        return self.out(mixed.reshape(-1, self.width))

    def _weights(
        self,
        query: Tensor,
        key: Tensor,
        to: Tensor,
        origin: Tensor,
        dtype: torch.dtype,
        own: Tensor | None = None,
    ) -> Float[Tensor, "pairs heads"]:
        """exp(query.key) of every pair by head, bounded."""
        keys = key[origin]
        if own is not None:
            keys = keys + own[:, None] * self.own
        logits = (query[to] * keys).reshape(-1, self.heads, self.width // self.heads).sum(dim=2)
        return _bounded_exp(logits, self.width // self.heads).to(dtype)


def _bounded_exp(logits: Tensor, width: int) -> Tensor:
    return torch.exp(_LOGIT_BOUND * torch.tanh(logits / (_LOGIT_BOUND * width**0.5)))


def _mean_parts(
    weights: Tensor, value: Tensor, to: Tensor, origin: Tensor, size: int, dtype: torch.dtype
) -> tuple[Float[Tensor, "n width"], Float[Tensor, "n heads"]]:
    """Weighted sums of values by head, and the sums of the weights."""
    heads = weights.shape[1]
    width = value.shape[1] // heads
    moved = value.to(dtype)[origin].reshape(-1, heads, width) * weights[:, :, None]
    packed = torch.cat([moved.reshape(-1, heads * width), weights], dim=1)
    summed = packed.new_zeros(size, heads * width + heads).index_add_(0, to, packed)
    return summed[:, : heads * width], summed[:, heads * width :]


def _mean(
    weights: Tensor, value: Tensor, to: Tensor, origin: Tensor, size: int, dtype: torch.dtype
) -> Float[Tensor, "n width"]:
    """Weighted means of values by head, fading to zero with the weights."""
    sums, total = _mean_parts(weights, value, to, origin, size, dtype)
    heads = weights.shape[1]
    means = sums.reshape(size, heads, -1) / (_EPS + total)[:, :, None]
    return means.reshape(size, -1)


def _pairs(
    crystal: Int[Tensor, "rows"],
    counts: Int[Tensor, "crystals"],
    start: Int[Tensor, "crystals"],
    tokens: Int[Tensor, "tokens"],
) -> tuple[Int[Tensor, "pairs"], Int[Tensor, "pairs"]]:
    """Every (row, token) of the same crystal; ``tokens`` lists them crystal by crystal."""
    row, within = ragged_rows(counts[crystal])
    return row, tokens[start[crystal][row] + within]
