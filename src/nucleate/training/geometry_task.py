"""The geometry task: noisy lattices and coordinates of stored crystals, and the loss of a guess at the clean ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from nucleate.crystal.batch import CrystalBatch
from nucleate.models.graph import orbit_graph
from nucleate.models.orbit_transformer import NoisyCrystals, OrbitTransformer
from nucleate.physics.distances import minimum_distance_matrix
from nucleate.physics.volume import volumes_per_atom
from nucleate.processes.geometry_flow import GeometryFlow, GeometryNoise, NoisyGeometry
from nucleate.shapes import Float, Int
from nucleate.training.crystal_stream import SourcedCrystals

PENALTY_RADIUS = 1.3
"""How far the distance penalty looks, in units of (volume per atom)^(1/3): beyond any minimum distance."""

VOLUME_SPREADS = 2.0
"""Standard deviations of the volume estimate within which a volume is not penalised."""


@dataclass(frozen=True, eq=False)
class GeometryExample:
    """Clean crystals with their noisy versions.

    Attributes:
        clean: stored crystals.
        noisy: the same at the noise levels.
        coord_time, lattice_time: noise level of each crystal's coordinates and lattice.
        source: data source token, 0 where hidden.
    """

    clean: CrystalBatch
    noisy: NoisyGeometry
    coord_time: Float[Tensor, "crystals"]
    lattice_time: Float[Tensor, "crystals"]
    source: Int[Tensor, "crystals"]

    def __len__(self) -> int:
        return len(self.source)

    def take(self, index: Int[Tensor, "chosen"]) -> GeometryExample:
        """The chosen crystals."""
        kept = torch.isin(self.clean.orbit_to_crystal, index.to(self.clean.device))
        noisy = NoisyGeometry(self.noisy.crystals[index], self.noisy.displacements[kept])
        return GeometryExample(
            self.clean[index], noisy, self.coord_time[index], self.lattice_time[index], self.source[index]
        )


@dataclass(frozen=True, eq=False)
class GeometryTask:
    """What the geometry network learns.

    Attributes:
        flow: the noise, with its statistics.
        source_dropout: how often the source is hidden, so that source 0 stands for any.
        same_time: how often coordinates and lattice share one noise level.
        lattice_weight: of the lattice loss beside the coordinate loss.
        distance_weight: of ``distance_penalty``; 0 leaves it out.
        volume_weight: of ``volume_penalty``; 0 leaves it out.
    """

    flow: GeometryFlow
    source_dropout: float = 0.1
    same_time: float = 0.7
    lattice_weight: float = 0.3
    distance_weight: float = 0.0
    volume_weight: float = 0.0

    def prepare(self, content: SourcedCrystals, seed: int, *, noise_level: float) -> GeometryExample:
        """Noisy crystals; noise levels are uniform in [0, ``noise_level``]."""
        generator = torch.Generator().manual_seed(seed)
        clean, n, device = content.crystals, len(content), content.crystals.device
        uniform = torch.rand(4, n, generator=generator)
        coord_time = (noise_level * uniform[0]).to(device)
        lattice_time = (
            torch.where(uniform[1] < self.same_time, uniform[0], uniform[2]).to(device) * noise_level
        )
        source = content.source * (uniform[3] >= self.source_dropout).to(device)
        noise = GeometryNoise.draw(clean, generator)
        with torch.autocast(device.type, enabled=False):  # geometry keeps its digits in mixed precision
            noisy = self.flow.corrupt(clean, coord_time, lattice_time, noise)
        return GeometryExample(clean, noisy, coord_time, lattice_time, source)

    def losses(self, network: OrbitTransformer, example: GeometryExample) -> dict[str, Tensor]:
        """Mean losses of a batch: ``loss``, which training lowers, and its parts."""
        noisy, clean = example.noisy, example.clean
        told = NoisyCrystals(noisy.crystals, example.coord_time, example.lattice_time, example.source)
        guess = network(told)
        with torch.autocast(clean.device.type, enabled=False):
            guess = replace(
                guess,
                displacements=guess.displacements.float(),
                lattice_params=guess.lattice_params.float(),
                element_logits=guess.element_logits.float(),
            )
            coord, lattice = self.flow.losses(guess, noisy, clean, example.coord_time, example.lattice_time)
            parts = {
                "coord": coord.sum() / movable_share(clean).sum().clamp(min=1),
                "lattice": lattice.mean(),
            }
            loss = parts["coord"] + self.lattice_weight * parts["lattice"]
            if self.distance_weight or self.volume_weight:
                ideal = self.flow.step(noisy.crystals, guess, fraction=1.0)
            if self.distance_weight:
                # at high noise the guess is a mean over many crystals, whose atoms may well overlap
                near = distance_penalty(ideal) * (1 - example.coord_time)
                parts["distance"] = near.mean()
                loss = loss + self.distance_weight * parts["distance"]
            if self.volume_weight:
                parts["volume"] = volume_penalty(ideal).mean()
                loss = loss + self.volume_weight * parts["volume"]
        return {"loss": loss, **parts}

    def validation(self, network: OrbitTransformer, content: SourcedCrystals, seed: int) -> dict[str, Tensor]:
        """The same losses with the source known, on noise drawn from the seed."""
        example = GeometryTask(self.flow, source_dropout=0.0, lattice_weight=self.lattice_weight).prepare(
            content, seed, noise_level=1.0
        )
        return self.losses(network, example)


def movable_share(crystals: CrystalBatch) -> Float[Tensor, "crystals"]:
    """Share of each crystal's atoms that have free coordinates."""
    crystal = crystals.orbit_to_crystal
    share = (crystals.num_free > 0) * crystals.multiplicities / crystals.num_atoms_primitive[crystal]
    zeros = torch.zeros(len(crystals), dtype=share.dtype, device=share.device)
    return zeros.index_add_(0, crystal, share)


@cache
def _minimum_distances(device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.tensor(minimum_distance_matrix().copy()).to(device, dtype)


def distance_penalty(crystals: CrystalBatch) -> Float[Tensor, "crystals"]:
    """``sum over pairs max(0, 1 - d / d_min)^2`` per atom, images of the same orbit included; differentiable.

    ``d_min`` is the smallest distance of the two elements in real crystals (``physics.distances``).
    """
    graph = orbit_graph(crystals, crystals.atoms(), radius=PENALTY_RADIUS)
    z = crystals.atomic_numbers
    minimum = _minimum_distances(crystals.device, crystals.dtype)[z[graph.target], z[graph.source]]
    excess = torch.relu(1 - graph.distances / minimum) ** 2
    crystal = crystals.orbit_to_crystal
    share = (crystals.multiplicities / crystals.num_atoms_primitive[crystal]).to(excess.dtype)
    zeros = excess.new_zeros(len(crystals))
    return zeros.index_add(0, crystal[graph.target], excess * share[graph.target])


def volume_penalty(crystals: CrystalBatch) -> Float[Tensor, "crystals"]:
    """``max(0, |ln V - ln V_expected| / sigma - 2)^2`` for the volume per atom expected of each composition."""
    mean, std = _expected_log_volumes(crystals)
    spreads = (crystals.volume_per_atom.log() - mean).abs() / std
    return torch.relu(spreads - VOLUME_SPREADS) ** 2


def _expected_log_volumes(crystals: CrystalBatch) -> tuple[Tensor, Tensor]:
    ends = crystals.num_orbits.cumsum(0).tolist()
    elements, counts = crystals.atomic_numbers.tolist(), crystals.multiplicities.tolist()
    compositions: list[Mapping[int, int]] = []
    begin = 0
    for end in ends:
        composition: dict[int, int] = {}
        for z, m in zip(elements[begin:end], counts[begin:end]):
            composition[z] = composition.get(z, 0) + m
        compositions.append(composition)
        begin = end
    estimates = volumes_per_atom(compositions)
    like = crystals.lattice_params
    return torch.as_tensor(estimates.mean).log().to(like), torch.as_tensor(estimates.log_std).to(like)
