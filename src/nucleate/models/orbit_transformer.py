"""The equivariant graph transformer on orbits: learned forces and a learned stress of noisy crystals."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from nucleate.crystal.batch import Atoms, CrystalBatch
from nucleate.crystal.lattice import STRAIN_BASIS
from nucleate.crystal.lattice_torch import combination, components, free_lattice_params
from nucleate.models.coarse import coarse_levels
from nucleate.models.graph import OrbitGraph, orbit_graph, with_round_size
from nucleate.models.invariant_projectors import invariant_directions, tangent_projectors
from nucleate.models.layers import Edges, OrbitLayer, Surroundings
from nucleate.models.network_sizes import check_multiples, check_signs
from nucleate.models.radial import GaussianBasis, envelope
from nucleate.models.reciprocal import NUM_RECIPROCAL_BASIS, ReciprocalStress, reciprocal_stars
from nucleate.models.site_features import (
    NUM_CRYSTAL_FEATURES,
    NUM_SITE_FEATURES,
    crystal_features,
    group_class,
    site_features,
)
from nucleate.models.tensors import tensor_geometry
from nucleate.models.time_embedding import TimeEmbedding
from nucleate.physics.elements import NUM_ELEMENTS, element_features, element_values
from nucleate.shapes import Float, Int

MASKED_ELEMENT = 0
TIME_FLOOR = 0.05
"""Added to the noise level where outputs are scaled by it."""


@dataclass(frozen=True)
class OrbitTransformerConfig:
    """Sizes of an ``OrbitTransformer``.

    Attributes:
        scalars: invariant channels per orbit.
        vectors: vector channels per orbit.
        hidden: width of the edge network.
        layers: number of layers.
        heads: attention heads; divides ``hidden`` and ``vectors``.
        num_basis: Gaussians per distance basis (two bases).
        radius: neighbourhood radius in units of (volume per atom)^(1/3).
        fixed_radius: neighbourhood radius in Å instead, the same for every crystal.
        num_sources: data sources told apart by a token; 0 is the unknown source.
        one_hot_elements: element embeddings without the physics vectors.
        reciprocal: charge channels of the reciprocal channel; 0 leaves it out.
        reciprocal_radius: largest |G| in units of 2 pi (volume per atom)^(-1/3); about ``4/3 pi radius^3`` vectors
            per atom.
        coarse: width of the coarse levels, a multiple of ``heads``; 0 leaves them out.
        tensors: l = 2 channels per orbit, a multiple of ``heads``; 0 leaves them out.
    """

    scalars: int = 96
    vectors: int = 32
    hidden: int = 96
    layers: int = 4
    heads: int = 8
    num_basis: int = 24
    radius: float = 1.95
    fixed_radius: float | None = None
    num_sources: int = 8
    one_hot_elements: bool = False
    reciprocal: int = 0
    reciprocal_radius: float = 2.4
    coarse: int = 0
    tensors: int = 0

    def __post_init__(self) -> None:
        check_signs(self, may_be_zero=("reciprocal", "coarse", "tensors"))

    def check(self) -> None:
        """Whether there can be a network of these sizes; some that are asked for on top of weights are no whole.

        Raises:
            ConfigError: one is no multiple of ``heads``.
        """
        check_multiples(self, ("hidden", "vectors", "coarse", "tensors"))


@dataclass(frozen=True, eq=False)
class NoisyCrystals:
    """Crystals with what the network is told about their noise.

    Attributes:
        crystals: the noisy crystals; ``atomic_numbers`` 0 where masked.
        coord_time, lattice_time: noise level of each crystal's coordinates and lattice, 0 (data) to 1
            (noise).
        source: data source token of each crystal, 0 unknown.
    """

    crystals: CrystalBatch
    coord_time: Float[Tensor, "crystals"]
    lattice_time: Float[Tensor, "crystals"]
    source: Int[Tensor, "crystals"]


@dataclass(frozen=True, eq=False)
class Neighbours:
    """All atoms of some crystals and their neighbour graph, the same for every network with one radius."""

    atoms: Atoms
    graph: OrbitGraph


@dataclass(frozen=True, eq=False)
class Denoised:
    """What the network believes of the clean crystals.

    Attributes:
        displacements: Cartesian vectors from each noisy representative to the clean one, in units of the
            noisy crystal's (volume per atom)^(1/3); they lie in the tangent space of the Wyckoff position.
        lattice_params: clean lattice parameters, zeros beyond those of the group.
        element_logits: log odds of each element for each orbit, column z - 1.
        pooled: mean of the final scalars over all atoms, what property heads read.
    """

    displacements: Float[Tensor, "orbits 3"]
    lattice_params: Float[Tensor, "crystals 6"]
    element_logits: Float[Tensor, "orbits elements"]
    pooled: Float[Tensor, "crystals s"]


@dataclass(frozen=True, eq=False)
class OrbitInputs:
    """What message passing starts from.

    Attributes:
        scalars: invariant features of every orbit.
        condition: condition vector of every crystal.
    """

    scalars: Float[Tensor, "orbits s"]
    condition: Float[Tensor, "crystals c"]


@dataclass(frozen=True, eq=False)
class OrbitOutputs:
    """What message passing ends with.

    Attributes:
        scalars: invariant features of every orbit.
        forces: one Cartesian vector per orbit, in the tangent space of its Wyckoff position.
        stress: one symmetric Cartesian tensor per crystal, invariant under its point group.
        pooled: mean of the scalars over all atoms.
    """

    scalars: Float[Tensor, "orbits s"]
    forces: Float[Tensor, "orbits 3"]
    stress: Float[Tensor, "crystals 3 3"]
    pooled: Float[Tensor, "crystals s"]


class OrbitTransformer(nn.Module):
    """Learned forces (per orbit) and a learned stress (per crystal) on the neighbour graph of orbits.

    Invariant inputs of an orbit are its element (physics vector and embedding), its site symmetry and
    multiplicity; those of a crystal its group modulo mirror image, its noise levels, its lattice (invariants)
    and its source. Vector features start at zero, so that they keep the site symmetry: sums over all images lie in the
    Wyckoff tangent space, and so does the force. Every layer projects its vectors onto that space all the same, lest
    rounding grows (``OrbitLayer``). The stress is averaged over the point group by the sum over images of every orbit.
    """

    element_table: Tensor
    radii: Tensor

    def __init__(self, config: OrbitTransformerConfig) -> None:
        super().__init__()
        config.check()
        self.config = config
        c = config
        numbers = list(range(1, NUM_ELEMENTS + 1))
        features = torch.tensor(element_features(numbers), dtype=torch.float32)
        if c.one_hot_elements:
            features = torch.zeros_like(features)
        self.register_buffer(
            "element_table", torch.cat([torch.zeros(1, features.shape[1]), features]), persistent=False
        )
        radii = torch.tensor(element_values("covalent_radius", numbers), dtype=torch.float32)
        self.register_buffer("radii", torch.cat([radii.mean()[None], radii]), persistent=False)
        self.element_embedding = nn.Embedding(NUM_ELEMENTS + 1, c.scalars)
        self.element_linear = nn.Linear(features.shape[1], c.scalars, bias=False)
        self.site_linear = nn.Linear(NUM_SITE_FEATURES, c.scalars)
        self.group_embedding = nn.Embedding(231, c.scalars)
        self.source_embedding = nn.Embedding(c.num_sources, c.scalars)
        self.crystal_linear = nn.Linear(NUM_CRYSTAL_FEATURES + 3, c.scalars)
        self.time = TimeEmbedding(c.scalars)
        self.pool_elements = nn.Linear(c.scalars, c.scalars)
        self.condition = nn.Sequential(nn.SiLU(), nn.Linear(c.scalars, c.scalars), nn.SiLU())
        self.reduced_basis = GaussianBasis(c.num_basis, low=0.0, high=1.0)
        self.bond_basis = GaussianBasis(c.num_basis, low=0.4, high=2.4)
        num_basis = 2 * c.num_basis + 1
        self.layers = nn.ModuleList(
            OrbitLayer(
                c.scalars,
                c.vectors,
                hidden=c.hidden,
                num_basis=num_basis,
                heads=c.heads,
                condition=c.scalars,
                reciprocal=c.reciprocal,
                coarse=c.coarse,
                tensors=c.tensors,
            )
            for _ in range(c.layers)
        )
        self.norm = nn.LayerNorm(c.scalars)
        self.force_gate = nn.Sequential(
            nn.Linear(c.scalars, c.scalars), nn.SiLU(), nn.Linear(c.scalars, c.vectors)
        )
        self.stress_edge = nn.Sequential(
            nn.Linear(2 * c.scalars + num_basis, c.hidden), nn.SiLU(), nn.Linear(c.hidden, 1)
        )
        self.stress_vectors = nn.Linear(c.scalars, c.vectors)
        self.lattice_head = nn.Sequential(
            nn.Linear(2 * c.scalars, c.scalars), nn.SiLU(), nn.Linear(c.scalars, 3)
        )
        self.element_head = nn.Sequential(
            nn.Linear(c.scalars, c.scalars), nn.SiLU(), nn.Linear(c.scalars, NUM_ELEMENTS)
        )
        for network in (self.force_gate, self.stress_edge, self.lattice_head):
            last = network[-1]
            assert isinstance(last, nn.Linear)
            nn.init.normal_(last.weight, std=1e-2)
            nn.init.zeros_(last.bias)
        if c.reciprocal:
            self.reciprocal_basis = GaussianBasis(NUM_RECIPROCAL_BASIS, low=0.0, high=1.0)
            self.reciprocal_stress = ReciprocalStress(c.scalars, c.reciprocal)
        if c.tensors:
            self.stress_tensors = nn.Linear(c.scalars, c.tensors)
            nn.init.zeros_(self.stress_tensors.weight)
            nn.init.zeros_(self.stress_tensors.bias)

    def neighbours(self, crystals: CrystalBatch) -> Neighbours:
        """What this network sees of the crystals, for itself and others with its radius."""
        c = self.config
        with torch.autocast(crystals.device.type, enabled=False):
            atoms = crystals.atoms()
            graph = orbit_graph(crystals, atoms, radius=c.radius, fixed_radius=c.fixed_radius)
        return Neighbours(atoms, graph)

    def forward(self, noisy: NoisyCrystals, neighbours: Neighbours | None = None) -> Denoised:
        """The network's guess at the clean crystals.

        Under autocast only products per edge are in the lower precision (``Edges.precision``).

        Args:
            noisy: the crystals and what the network is told.
            neighbours: of these crystals, if they are known already.
        """
        device = noisy.crystals.device.type
        precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        with torch.autocast(device, enabled=False):
            inputs = self.embed(noisy)
            outputs = self.propagate(noisy.crystals, inputs, precision, neighbours)
            # the way to the clean end is as long as the noise level: what is left to learn has one scale at all levels
            reach = (noisy.coord_time + TIME_FLOOR)[noisy.crystals.orbit_to_crystal]
            return Denoised(
                displacements=outputs.forces * reach[:, None],
                lattice_params=self._lattice(noisy, outputs, inputs.condition),
                element_logits=self.element_head(outputs.scalars),
                pooled=outputs.pooled,
            )

    def embed(self, noisy: NoisyCrystals) -> OrbitInputs:
        """Invariant inputs of every orbit and the condition of every crystal."""
        crystals = noisy.crystals
        crystal, z = crystals.orbit_to_crystal, crystals.atomic_numbers
        invariants = self._lattice_invariants(crystals)
        scalars = (
            self.element_embedding(z)
            + self.element_linear(self.element_table[z])
            + self.site_linear(site_features(crystals))
        )
        overall = (
            self.group_embedding(group_class(crystals))
            + self.source_embedding(noisy.source)
            + self.crystal_linear(torch.cat([crystal_features(crystals), invariants], dim=1))
            + self.time(noisy.coord_time, noisy.lattice_time)
        )
        share = crystals.multiplicities.to(scalars.dtype) / crystals.num_atoms_primitive[crystal]
        pooled = _pool(scalars * share[:, None], crystal, len(crystals))
        return OrbitInputs(scalars, self.condition(overall + self.pool_elements(pooled)))

    def propagate(
        self,
        crystals: CrystalBatch,
        inputs: OrbitInputs,
        precision: torch.dtype | None = None,
        neighbours: Neighbours | None = None,
    ) -> OrbitOutputs:
        """Message passing on the neighbour graph of the crystals' orbits.

        The same for a crystal and for its full cell in P1 when every atom carries its orbit's inputs.

        Args:
            crystals: the noisy crystals.
            inputs: see ``embed``.
            precision: type of the products per edge, None for that of the crystals.
            neighbours: of the crystals, if they are known already.
        """
        crystal = crystals.orbit_to_crystal
        neighbours = neighbours or self.neighbours(crystals)
        atoms = neighbours.atoms
        surroundings = self._surroundings(crystals, neighbours, precision)
        polar = invariant_directions(crystals)
        share = crystals.multiplicities.to(crystals.dtype) / crystals.num_atoms_primitive[crystal]
        s = inputs.scalars
        v = s.new_zeros(len(crystal), 3, self.config.vectors)
        q = s.new_zeros(len(crystal), 5, self.config.tensors) if self.config.tensors else None
        for layer in self.layers:
            s, v, q = layer(s, v, q, surroundings, inputs.condition)
        s = self.norm(s)
        forces = (v * self.force_gate(s)[:, None, :]).sum(dim=2)
        return OrbitOutputs(
            scalars=s,
            forces=self._without_drift(forces, crystals, share, polar),
            stress=self._stress(s, v, q, surroundings, crystals, atoms.cart_rotations),
            pooled=_pool(s * share[:, None], crystal, len(crystals)),
        )

    def _surroundings(
        self, crystals: CrystalBatch, neighbours: Neighbours, precision: torch.dtype | None
    ) -> Surroundings:
        """Geometry of the batch, as much of it as the network uses."""
        c, z = self.config, crystals.atomic_numbers
        atoms, graph = neighbours.atoms, neighbours.graph
        if precision is not None:
            graph = with_round_size(graph)
        bond = graph.distances / (self.radii[z[graph.target]] + self.radii[z[graph.source]])
        edges = self._edges(graph, bond, len(z), atoms.orbit, precision)
        tangent = tangent_projectors(crystals)
        tensors = stars = levels = None
        if c.tensors:
            tensors = tensor_geometry(crystals, atoms, edges.directions)
        if c.reciprocal:
            stars = reciprocal_stars(
                crystals, atoms, tangent, self.reciprocal_basis, radius=c.reciprocal_radius
            )
        if c.coarse:
            levels = coarse_levels(
                crystals, target=graph.target, source=graph.source, bond=bond, cutoff=edges.cutoff
            )
        return Surroundings(edges, crystals.orbit_to_crystal, tangent, tensors, stars, levels)

    def _edges(
        self,
        graph: OrbitGraph,
        bond: Tensor,
        num_orbits: int,
        atom_orbit: Tensor,
        precision: torch.dtype | None,
    ) -> Edges:
        ratio = graph.distances / graph.cutoffs
        cutoff = envelope(ratio)
        # squashed so that far images of large atoms and near images of small ones stay inside the basis
        basis = torch.cat(
            [self.reduced_basis(ratio), self.bond_basis(bond), torch.exp(-bond)[:, None]], dim=1
        )
        directions = graph.vectors / torch.sqrt(graph.distances**2 + 1e-2)[:, None]
        return Edges(
            graph.target,
            graph.source,
            graph.atom,
            directions,
            basis,
            cutoff,
            graph.rotations,
            atom_orbit,
            num_orbits,
            precision,
        )

    @staticmethod
    def _lattice_invariants(crystals: CrystalBatch) -> Float[Tensor, "crystals 3"]:
        """Volume per atom and the two invariants of the traceless part of S."""
        shape = crystals.lattice_params[:, 1:]
        norm = (shape**2).sum(dim=1)
        deviator = _strain(torch.cat([torch.zeros_like(shape[:, :1]), shape], dim=1))
        cubic = torch.linalg.det(deviator)
        return torch.stack([crystals.lattice_params[:, 0] - 1.7, norm, cubic], dim=1)

    @staticmethod
    def _without_drift(
        forces: Tensor, crystals: CrystalBatch, share: Tensor, polar: Tensor
    ) -> Float[Tensor, "orbits 3"]:
        """Forces without the mean over all atoms, which in polar groups only moves the origin.

        In other groups the mean over all images vanishes by symmetry. The mean over images of one orbit's
        force is its projection onto the invariant directions of the point group.
        """
        crystal = crystals.orbit_to_crystal
        projected = (polar[crystal] * forces[:, None, :]).sum(dim=2)
        return forces - _pool(projected * share[:, None], crystal, len(crystals)).index_select(0, crystal)

    def _stress(
        self,
        s: Tensor,
        v: Tensor,
        q: Tensor | None,
        surroundings: Surroundings,
        crystals: CrystalBatch,
        rotations: Tensor,
    ) -> Float[Tensor, "crystals 3 3"]:
        """Symmetric tensor per crystal: edges and features averaged over all atoms, and structure factors."""
        edges = surroundings.edges
        strength = self._stress_strength(s, edges) * edges.cutoff
        outer = edges.directions[:, :, None] * edges.directions[:, None, :] * strength[:, None, None]
        weighted = v * self.stress_vectors(s)[:, None, :]
        local = _pool(outer, edges.target, len(s)) + (weighted @ v.mT + v @ weighted.mT) / (2 * v.shape[2])
        if q is not None and surroundings.tensors is not None:
            summed = (q * self.stress_tensors(s)[:, None, :]).mean(dim=2)
            local = local + combination(summed, surroundings.tensors.basis)
        # the tensor of image a is R_a T R_a^T
        image = rotations @ edges.of_atoms(local) @ rotations.mT
        total = _pool(image, crystals.orbit_to_crystal[edges.atom_orbit], len(crystals))
        stress = total / crystals.num_atoms_primitive[:, None, None]
        if surroundings.stars is not None:
            stress = stress + self.reciprocal_stress(s, surroundings.stars, crystals.space_group_number)
        return stress

    def _stress_strength(self, s: Float[Tensor, "orbits s"], edges: Edges) -> Float[Tensor, "edges"]:
        """``stress_edge`` of (target, source, radial features) of every edge; what an orbit adds is computed once."""
        first, last = self.stress_edge[0], self.stress_edge[2]
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        dtype = edges.precision or s.dtype
        width = s.shape[1]
        of_target, of_source, of_edge = first.weight.split(
            [width, width, first.weight.shape[1] - 2 * width], 1
        )
        to_target = nn.functional.linear(s, of_target, first.bias).to(dtype)
        to_source = nn.functional.linear(s, of_source).to(dtype)
        hidden = nn.functional.linear(edges.basis.to(dtype), of_edge.to(dtype))
        hidden = hidden + edges.at_targets(to_target) + edges.at_sources(to_source)
        # not a product of matrix and vector, whose last rows are rounded otherwise on a CPU
        strength = (nn.functional.silu(hidden) * last.weight[0].to(dtype)).sum(dim=1)
        return (strength + last.bias.to(dtype)).to(s.dtype)

    def _lattice(
        self, noisy: NoisyCrystals, outputs: OrbitOutputs, condition: Float[Tensor, "crystals condition"]
    ) -> Float[Tensor, "crystals 6"]:
        """Clean lattice parameters: the noisy strain S, a polynomial of it, and the learned stress."""
        crystals = noisy.crystals
        strain = _strain(crystals.lattice_params)
        eye = torch.eye(3, dtype=strain.dtype, device=strain.device)
        mean = torch.diagonal(strain, dim1=1, dim2=2).mean(dim=1)
        deviator = strain - mean[:, None, None] * eye
        head = self.lattice_head(torch.cat([outputs.pooled, condition], dim=1))
        first, second, third = head[:, :, None, None].unbind(dim=1)
        change = first * eye + second * deviator + third * (deviator @ deviator) + outputs.stress
        clean = strain + (noisy.lattice_time + TIME_FLOOR)[:, None, None] * change
        params = components(clean, _strain_basis(clean.device, clean.dtype))
        return params * free_lattice_params(crystals.space_group_number)


def _pool(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Sums of rows by index."""
    return values.new_zeros(size, *values.shape[1:]).index_add_(0, index, values)


@cache
def _strain_basis(device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.tensor(STRAIN_BASIS).to(device, dtype)


def _strain(params: Float[Tensor, "crystals 6"]) -> Float[Tensor, "crystals 3 3"]:
    """S of padded lattice parameters, its trace from the volume per atom."""
    return combination(params, _strain_basis(params.device, params.dtype))
