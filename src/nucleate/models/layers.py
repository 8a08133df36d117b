"""One layer of the orbit transformer: attention over images, then an equivariant update of each orbit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nucleate.shapes import Float, Int

_LOGIT_BOUND = 6.0
_EPS = 1e-6


@dataclass(frozen=True, eq=False)
class Edges:
    """What a layer needs to know of the graph.

    Attributes:
        target, source, atom: see ``OrbitGraph``.
        directions: unit vectors from target to image (shorter than 1 where atoms nearly coincide).
        basis: radial features.
        cutoff: envelope, zero at the cutoff.
        rotations: R of every atom.
        num_orbits: number of targets.
    """

    target: Int[Tensor, "edges"]
    source: Int[Tensor, "edges"]
    atom: Int[Tensor, "edges"]
    directions: Float[Tensor, "edges 3"]
    basis: Float[Tensor, "edges basis"]
    cutoff: Float[Tensor, "edges"]
    rotations: Float[Tensor, "atoms 3 3"]
    atom_orbit: Int[Tensor, "atoms"]
    num_orbits: int


def vector_norm_rms(vectors: Float[Tensor, "n 3 channels"]) -> Float[Tensor, "n 3 channels"]:
    """Vectors divided by the root mean square of their lengths over the channels: equivariant layer norm."""
    square = (vectors**2).sum(dim=1, keepdim=True).mean(dim=2, keepdim=True)
    return vectors * torch.rsqrt(square + 1e-3)


class AdaptiveNorm(nn.Module):
    """Layer norm of orbit scalars, scaled and shifted by a condition vector of the orbit's crystal."""

    def __init__(self, scalars: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(scalars, elementwise_affine=False)
        self.modulation = nn.Linear(condition, 2 * scalars)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self,
        x: Float[Tensor, "orbits s"],
        condition: Float[Tensor, "crystals c"],
        crystal: Int[Tensor, "orbits"],
    ) -> Float[Tensor, "orbits s"]:
        """``norm(x) (1 + scale) + shift``."""
        scale, shift = self.modulation(condition)[crystal].chunk(2, dim=1)
        return self.norm(x) * (1 + scale) + shift


class ImageAttention(nn.Module):
    """Attention of each orbit over the images in its neighbourhood, with a smooth cutoff.

    For image a of orbit j at direction r from orbit i, with v the vector features,

        h   = silu(A s_i + B s_j + C b(d) + D [v_i . r, (R_a v_j) . r])
        w_h = exp(l_h) c(d) / (1 + sum exp(l_h) c(d)),  l = logits(h)
        s_i += O sum_a w V h,   v_i += sum_a w [ (P h) r + (Q h) (R_a v_j) ]

    Everything on the right is the same for equivalent images, so that s and v keep the site symmetry of the
    orbit.
    """

    def __init__(self, scalars: int, vectors: int, hidden: int, num_basis: int, heads: int) -> None:
        super().__init__()
        self.vectors, self.heads, self.hidden = vectors, heads, hidden
        self.from_target = nn.Linear(scalars, hidden)
        self.from_source = nn.Linear(scalars, hidden, bias=False)
        self.from_edge = nn.Linear(num_basis + 2 * vectors, hidden, bias=False)
        self.logits = nn.Linear(hidden, heads)
        self.values = nn.Linear(hidden, hidden + 2 * vectors)
        self.out_scalars = nn.Linear(hidden, scalars)
        self.out_vectors = nn.Linear(vectors, vectors, bias=False)

    def forward(
        self, s: Float[Tensor, "orbits s"], v: Float[Tensor, "orbits 3 v"], edges: Edges
    ) -> tuple[Float[Tensor, "orbits s"], Float[Tensor, "orbits 3 v"]]:
        """Changes of the scalars and vectors."""
        directions = edges.directions
        # rotate each orbit's features once per atom, not once per edge
        images = torch.bmm(edges.rotations, v[edges.atom_orbit])
        source_vectors = images[edges.atom]
        along_target = torch.einsum("ei,eiv->ev", directions, v[edges.target])
        along_source = torch.einsum("ei,eiv->ev", directions, source_vectors)
        h = self.from_edge(torch.cat([edges.basis, along_target, along_source], dim=1))
        h = h + self.from_target(s)[edges.target] + self.from_source(s)[edges.source]
        h = nn.functional.silu(h)
        logits = self.logits(h)
        weights = torch.exp(_LOGIT_BOUND * torch.tanh(logits / _LOGIT_BOUND)) * edges.cutoff[:, None]
        weights = weights.to(edges.cutoff.dtype)
        total = weights.new_zeros(edges.num_orbits, self.heads).index_add_(0, edges.target, weights)
        weights = weights / (1 + total)[edges.target]
        values = self.values(h)
        width = self.hidden // self.heads
        scalars = values[:, : self.hidden].reshape(-1, self.heads, width) * weights[:, :, None]
        gate = weights.repeat_interleave(self.vectors // self.heads, dim=1)
        radial, carried = (values[:, self.hidden :] * gate.repeat(1, 2)).chunk(2, dim=1)
        moved = directions[:, :, None] * radial[:, None, :] + source_vectors * carried[:, None, :]
        message = torch.cat([scalars.reshape(-1, self.hidden), moved.reshape(-1, 3 * self.vectors)], dim=1)
        summed = message.new_zeros(edges.num_orbits, message.shape[1]).index_add_(0, edges.target, message)
        ds = self.out_scalars(summed[:, : self.hidden])
        dv = self.out_vectors(summed[:, self.hidden :].reshape(-1, 3, self.vectors))
        return ds, dv


class OrbitUpdate(nn.Module):
    """Feed-forward update that mixes the scalars with the lengths and products of the vectors."""

    def __init__(self, scalars: int, vectors: int) -> None:
        super().__init__()
        self.vectors = vectors
        self.mix = nn.Linear(vectors, 2 * vectors, bias=False)
        self.network = nn.Sequential(
            nn.Linear(scalars + 2 * vectors, 2 * scalars),
            nn.SiLU(),
            nn.Linear(2 * scalars, scalars + 2 * vectors),
        )

    def forward(
        self, s: Float[Tensor, "orbits s"], v: Float[Tensor, "orbits 3 v"]
    ) -> tuple[Float[Tensor, "orbits s"], Float[Tensor, "orbits 3 v"]]:
        """Changes of the scalars and vectors."""
        first, second = self.mix(v).chunk(2, dim=2)
        lengths = torch.sqrt((second**2).sum(dim=1) + _EPS)
        products = (first * second).sum(dim=1)
        out = self.network(torch.cat([s, lengths, products], dim=1))
        ds, gate, stay = torch.split(out, [s.shape[1], self.vectors, self.vectors], dim=1)
        return ds, first * gate[:, None, :] + v * torch.tanh(stay)[:, None, :]


class OrbitLayer(nn.Module):
    """Attention over images followed by the update of each orbit, each after adaptive normalisation."""

    def __init__(
        self, scalars: int, vectors: int, *, hidden: int, num_basis: int, heads: int, condition: int
    ) -> None:
        super().__init__()
        self.norm_attention = AdaptiveNorm(scalars, condition)
        self.norm_update = AdaptiveNorm(scalars, condition)
        self.attention = ImageAttention(scalars, vectors, hidden, num_basis, heads)
        self.update = OrbitUpdate(scalars, vectors)

    def forward(
        self,
        s: Float[Tensor, "orbits s"],
        v: Float[Tensor, "orbits 3 v"],
        edges: Edges,
        condition: Float[Tensor, "crystals c"],
        crystal: Int[Tensor, "orbits"],
        tangent: Float[Tensor, "orbits 3 3"],
    ) -> tuple[Float[Tensor, "orbits s"], Float[Tensor, "orbits 3 v"]]:
        """The new scalars and vectors.

        ``tangent`` projects onto the tangent space of each orbit's position. In exact arithmetic the sum over images
        lies in it already; where symmetry leaves only rounding noise, the norm would amplify that layer by layer.
        """
        ds, dv = self.attention(self.norm_attention(s, condition, crystal), vector_norm_rms(v), edges)
        s, v = s + ds, tangent @ (v + dv).to(tangent.dtype)
        ds, dv = self.update(self.norm_update(s, condition, crystal), vector_norm_rms(v))
        return s + ds, v + dv
