"""One layer of the orbit transformer: attention over images, then an equivariant update of each orbit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nucleate.models.coarse import CoarseExchange, Levels
from nucleate.models.reciprocal import ReciprocalExchange, Stars
from nucleate.models.tensors import TensorGeometry, TensorUpdate
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
        precision: type of the matrix products per edge, None for that of the features. Products per orbit are always
            in the features' own type: they are a thirtieth of the work, and on a CPU setting up a bfloat16 product of
            a size not met before takes longer than the product.
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
    precision: torch.dtype | None = None

    # Rows are taken with index_select: on a GPU the gradient of an indexed tensor sorts the indices first, that of
    # index_select adds rows where they belong.

    def at_targets(self, features: Float[Tensor, "orbits *rest"]) -> Float[Tensor, "edges *rest"]:
        """What each edge's target has."""
        return features.index_select(0, self.target)

    def at_sources(self, features: Float[Tensor, "orbits *rest"]) -> Float[Tensor, "edges *rest"]:
        """What the orbit of each edge's image has."""
        return features.index_select(0, self.source)

    def of_atoms(self, features: Float[Tensor, "orbits *rest"]) -> Float[Tensor, "atoms *rest"]:
        """What the orbit of each atom has."""
        return features.index_select(0, self.atom_orbit)

    def at_images(self, features: Float[Tensor, "atoms *rest"]) -> Float[Tensor, "edges *rest"]:
        """What each edge's image has."""
        return features.index_select(0, self.atom)

    def sums(self, messages: Float[Tensor, "edges *rest"]) -> Float[Tensor, "orbits *rest"]:
        """Messages added up at their targets."""
        sums = messages.new_zeros(self.num_orbits, *messages.shape[1:])
        return sums.index_add_(0, self.target, messages)


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Everything a layer sees of the geometry of a batch; what its network does not use is None.

    Attributes:
        edges: images inside the radius.
        crystal: crystal of each orbit.
        tangent: projector onto the tangent space of each orbit's position.
        tensors: geometry of l = 2 features.
        stars: reciprocal channel.
        levels: coarse levels.
    """

    edges: Edges
    crystal: Int[Tensor, "orbits"]
    tangent: Float[Tensor, "orbits 3 3"]
    tensors: TensorGeometry | None = None
    stars: Stars | None = None
    levels: Levels | None = None


def vector_norm_rms(
    vectors: Float[Tensor, "n components channels"],
) -> Float[Tensor, "n components channels"]:
    """Vectors (or tensors) divided by the root mean square length over the channels: equivariant layer norm."""
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
        scale, shift = self.modulation(condition).index_select(0, crystal).chunk(2, dim=1)
        return self.norm(x) * (1 + scale) + shift


class ImageAttention(nn.Module):
    """Attention of each orbit over the images in its neighbourhood, with a smooth cutoff.

    For image a of orbit j at direction r from orbit i, with v the vector features,

        h   = silu(A s_i + B s_j + C b(d) + D [v_i . r, (R_a v_j) . r])
        w_h = exp(l_h) c(d) / (1 + sum exp(l_h) c(d)),  l = logits(h)
        s_i += O sum_a w V h,   v_i += sum_a w [ (P h) r + (Q h) (R_a v_j) ]

    Everything on the right is the same for equivalent images, so that s and v keep the site symmetry of the
    orbit. With tensor features q, h also sees ``[q_i . rr, (R_a q_j) . rr]`` (through weights that start at zero)
    and ``q_i += sum_a w [(P' h) rr + (Q' h) (R_a q_j)]``, rr the traceless part of ``r r^T``.
    """

    def __init__(
        self, scalars: int, vectors: int, hidden: int, num_basis: int, heads: int, tensors: int
    ) -> None:
        super().__init__()
        self.vectors, self.heads, self.hidden = vectors, heads, hidden
        self.from_target = nn.Linear(scalars, hidden)
        self.from_source = nn.Linear(scalars, hidden, bias=False)
        self.from_edge = nn.Linear(num_basis + 2 * vectors, hidden, bias=False)
        self.logits = nn.Linear(hidden, heads)
        self.values = nn.Linear(hidden, hidden + 2 * vectors)
        self.out_scalars = nn.Linear(hidden, scalars)
        self.out_vectors = nn.Linear(vectors, vectors, bias=False)
        self.tensors = tensors
        if tensors:
            self.from_tensors = nn.Linear(2 * tensors, hidden, bias=False)
            self.tensor_values = nn.Linear(hidden, 2 * tensors)
            self.out_tensors = nn.Linear(tensors, tensors, bias=False)
            nn.init.zeros_(self.from_tensors.weight)

    def forward(
        self,
        s: Float[Tensor, "orbits s"],
        v: Float[Tensor, "orbits 3 v"],
        q: Float[Tensor, "orbits 5 t"] | None,
        edges: Edges,
        tensors: TensorGeometry | None,
    ) -> tuple[Float[Tensor, "orbits s"], Float[Tensor, "orbits 3 v"], Float[Tensor, "orbits 5 t"] | None]:
        """Changes of the scalars, vectors and tensors."""
        dtype = edges.precision or s.dtype
        to_target, to_source = self.from_target(s).to(dtype), self.from_source(s).to(dtype)
        # rotate each orbit's features once per atom, not once per edge
        turned = torch.bmm(edges.rotations, edges.of_atoms(v))
        source_vectors = edges.at_images(turned.to(dtype))
        seen = [edges.basis.to(dtype)]
        seen += [_along(edges.directions, x) for x in (edges.at_targets(v.to(dtype)), source_vectors)]
        if q is not None and tensors is not None:
            turned = torch.bmm(tensors.rotations, edges.of_atoms(q))
            source_tensors = edges.at_images(turned.to(dtype))
            seen += [_along(tensors.directions, x) for x in (edges.at_targets(q.to(dtype)), source_tensors)]
        into, out, bias, sizes = self._edge_weights(dtype)
        # One product into and one out of the hidden features, and what is added to them beside it, not inside it: a
        # product that adds to rows copies them first, and one with a short side takes as long as one with a long side.
        hidden = nn.functional.linear(torch.cat([x.to(dtype) for x in seen], dim=1), into)
        h = nn.functional.silu(hidden + edges.at_targets(to_target) + edges.at_sources(to_source))
        parts = torch.split(nn.functional.linear(h, out), sizes, dim=1)
        radial, carried, logits = (part + b for part, b in zip(parts[1:4], bias[1:4]))
        weights, total = self._weights(logits, edges)
        by_head = (-1, self.heads, self.hidden // self.heads)
        ds = edges.sums(parts[0].reshape(by_head) * weights[:, :, None])
        ds = ds + total[:, :, None] * self.values.bias[: self.hidden].reshape(by_head)
        gate = self._by_channel(weights, self.vectors)
        dv = edges.sums(_moved(edges.directions, radial * gate, source_vectors, carried * gate))
        dq = None
        if q is not None and tensors is not None:
            radial, carried = (part + b for part, b in zip(parts[4:], bias[4:]))
            gate = self._by_channel(weights, self.tensors)
            dq = edges.sums(_moved(tensors.directions, radial * gate, source_tensors, carried * gate))
        return (
            self.out_scalars(ds.reshape(-1, self.hidden)),
            self.out_vectors(dv),
            None if dq is None else self.out_tensors(dq),
        )

    def _edge_weights(
        self, dtype: torch.dtype
    ) -> tuple[Float[Tensor, "hidden inputs"], Float[Tensor, "outputs hidden"], list[Tensor], list[int]]:
        """Weights into and out of the hidden features of an edge, biases and sizes of what comes out.

        What comes out: values, radial and carried part of vectors, logits, radial and carried part of tensors.
        """
        into, out = [self.from_edge.weight], [self.values.weight, self.logits.weight]
        sizes = [self.hidden, self.vectors, self.vectors, self.heads]
        bias = [*self.values.bias.split(sizes[:3]), self.logits.bias]
        if self.tensors:
            into.append(self.from_tensors.weight)
            out.append(self.tensor_values.weight)
            sizes += [self.tensors, self.tensors]
            bias += self.tensor_values.bias.split(self.tensors)
        return torch.cat(into, dim=1).to(dtype), torch.cat(out).to(dtype), [b.to(dtype) for b in bias], sizes

    def _weights(
        self, logits: Float[Tensor, "edges heads"], edges: Edges
    ) -> tuple[Float[Tensor, "edges heads"], Float[Tensor, "orbits heads"]]:
        """w of every edge and head, and its sum at every orbit."""
        weights = torch.exp(_LOGIT_BOUND * torch.tanh(logits / _LOGIT_BOUND)) * edges.cutoff[:, None]
        weights = weights.to(edges.cutoff.dtype)
        total = edges.sums(weights)
        return weights / edges.at_targets(1 + total), total / (1 + total)

    def _by_channel(self, weights: Tensor, channels: int) -> Float[Tensor, "edges channels"]:
        """The weight of each channel's head, as a product with zeros and ones: exact, and faster than a gather."""
        if channels == self.heads:
            return weights
        heads = torch.eye(self.heads, dtype=weights.dtype, device=weights.device)
        with torch.autocast(weights.device.type, enabled=False):
            return weights @ heads.repeat_interleave(channels // self.heads, dim=1)


def _along(
    directions: Float[Tensor, "edges components"], features: Float[Tensor, "edges components channels"]
) -> Float[Tensor, "edges channels"]:
    """Components of the features along each edge."""
    return (directions[:, :, None] * features).sum(dim=1)


def _moved(
    directions: Float[Tensor, "edges components"],
    radial: Float[Tensor, "edges channels"],
    features: Float[Tensor, "edges components channels"],
    carried: Float[Tensor, "edges channels"],
) -> Float[Tensor, "edges components channels"]:
    """A part along each edge and a part of what its image has."""
    return directions[:, :, None] * radial[:, None, :] + features * carried[:, None, :]


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
    """Attention over images, beside it the far and coarse exchanges, then the update of each orbit.

    Each after adaptive normalisation. The reciprocal, coarse and tensor parts exist where their sizes are not 0.
    """

    def __init__(
        self,
        scalars: int,
        vectors: int,
        *,
        hidden: int,
        num_basis: int,
        heads: int,
        condition: int,
        reciprocal: int = 0,
        coarse: int = 0,
        tensors: int = 0,
    ) -> None:
        super().__init__()
        self.norm_attention = AdaptiveNorm(scalars, condition)
        self.norm_update = AdaptiveNorm(scalars, condition)
        self.attention = ImageAttention(scalars, vectors, hidden, num_basis, heads, tensors)
        self.update = OrbitUpdate(scalars, vectors)
        self.reciprocal = ReciprocalExchange(scalars, vectors, reciprocal) if reciprocal else None
        self.coarse = CoarseExchange(scalars, coarse, heads) if coarse else None
        self.tensor_update = TensorUpdate(scalars, vectors, tensors) if tensors else None

    def forward(
        self,
        s: Float[Tensor, "orbits s"],
        v: Float[Tensor, "orbits 3 v"],
        q: Float[Tensor, "orbits 5 t"] | None,
        surroundings: Surroundings,
        condition: Float[Tensor, "crystals c"],
    ) -> tuple[Float[Tensor, "orbits s"], Float[Tensor, "orbits 3 v"], Float[Tensor, "orbits 5 t"] | None]:
        """The new scalars, vectors and tensors.

        Vectors are projected onto the tangent space of each orbit's position, tensors onto those of its site symmetry.
        In exact arithmetic the sums over images lie there already; where symmetry leaves only rounding noise, the
        norm would amplify that layer by layer.
        """
        crystal, tangent, geometry = surroundings.crystal, surroundings.tangent, surroundings.tensors
        seen = self.norm_attention(s, condition, crystal)
        unit = None if q is None else vector_norm_rms(q)
        ds, dv, dq = self.attention(seen, vector_norm_rms(v), unit, surroundings.edges, geometry)
        if self.reciprocal is not None and surroundings.stars is not None:
            far, field = self.reciprocal(seen, surroundings.stars)
            ds, dv = ds + far, dv + field
        if self.coarse is not None and surroundings.levels is not None:
            ds = ds + self.coarse(seen, surroundings.levels)
        s, v = s + ds, tangent @ (v + dv)
        if q is not None and dq is not None and geometry is not None:
            q = geometry.projectors @ (q + dq)
        seen, direction = self.norm_update(s, condition, crystal), vector_norm_rms(v)
        ds, dv = self.update(seen, direction)
        if self.tensor_update is not None and q is not None and geometry is not None:
            change, turned, dq = self.tensor_update(seen, direction, vector_norm_rms(q), geometry.basis)
            ds, dv, q = ds + change, dv + turned, q + dq
        return s + ds, v + dv, q
