"""Scalar properties read off the pooled features of the orbit transformer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, pairwise

import torch
from torch import Tensor, nn

from nucleate.crystal.batch import CrystalBatch
from nucleate.models.orbit_transformer import NoisyCrystals, OrbitTransformer
from nucleate.shapes import Float

_LONGEST_MEMORY = 100
"""Batches over which means and spreads of features are averaged."""
_LEAST_SPREAD = 1e-4


@dataclass(frozen=True)
class PropertyHeadConfig:
    """What a ``PropertyHead`` reads and says.

    Attributes:
        inputs: width of the pooled features.
        names: properties, in the order of the outputs.
        units: unit of each, empty where the data state none.
        means, stds: statistics of the training data, by which outputs are scaled.
        hidden: width of the layers between.
        layers: how many of these.
    """

    inputs: int
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    means: tuple[float, ...] = ()
    stds: tuple[float, ...] = ()
    hidden: int = 384
    layers: int = 2


class RunningScale(nn.Module):
    """Features in units of their spread, as it was seen in training; of two crystals on, and finite ones, it learns.

    Features of one network differ little from crystal to crystal beside their mean: unscaled, a head learns slowly.
    """

    mean: Tensor
    spread: Tensor
    batches: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, features: Float[Tensor, "crystals s"]) -> Float[Tensor, "crystals s"]:
        """The features less their mean, divided by their spread."""
        if self.training:
            self._learn(features.detach())
        return (features - self.mean) / self.spread

    def _learn(self, features: Float[Tensor, "crystals s"]) -> None:
        finite = features[torch.isfinite(features).all(dim=1)]
        if len(finite) < 2:
            return
        self.batches.add_(1).clamp_(max=_LONGEST_MEMORY)
        share = 1 / float(self.batches)
        self.mean.lerp_(finite.mean(dim=0).to(self.mean), share)
        self.spread.lerp_(finite.std(dim=0).to(self.spread).clamp(min=_LEAST_SPREAD), share)


class PropertyHead(nn.Module):
    """A few layers from the mean over all atoms of the final scalars to every property, in its own unit."""

    means: Tensor
    stds: Tensor

    def __init__(self, config: PropertyHeadConfig) -> None:
        super().__init__()
        self.config = config
        self.scale = RunningScale(config.inputs)
        widths = [config.inputs, *[config.hidden] * config.layers]
        between = [(nn.Linear(a, b), nn.SiLU()) for a, b in pairwise(widths)]
        self.network = nn.Sequential(*chain(*between), nn.Linear(widths[-1], len(config.names)))
        self.register_buffer("means", torch.tensor(config.means), persistent=False)
        self.register_buffer("stds", torch.tensor(config.stds), persistent=False)

    def standardised(self, pooled: Float[Tensor, "crystals s"]) -> Float[Tensor, "crystals properties"]:
        """Outputs in units of the spread of the training data."""
        return self.network(self.scale(pooled))

    def forward(self, pooled: Float[Tensor, "crystals s"]) -> Float[Tensor, "crystals properties"]:
        """The properties in their units."""
        return self.means + self.stds * self.standardised(pooled)


def pooled_features(network: OrbitTransformer, crystals: CrystalBatch) -> Float[Tensor, "crystals s"]:
    """What a head reads of crystals without noise and of no named source; differentiable in the crystals."""
    clean = torch.zeros(len(crystals), dtype=crystals.dtype, device=crystals.device)
    source = torch.zeros(len(crystals), dtype=torch.int64, device=crystals.device)
    return network(NoisyCrystals(crystals, clean, clean, source)).pooled
