"""Scalar properties read off the pooled features of the orbit transformer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nucleate.shapes import Float


@dataclass(frozen=True)
class PropertyHeadConfig:
    """What a ``PropertyHead`` reads and says.

    Attributes:
        inputs: width of the pooled features.
        names: properties, in the order of the outputs.
        units: unit of each, empty where the data state none.
        means, stds: statistics of the training data, by which outputs are scaled.
    """

    inputs: int
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    means: tuple[float, ...] = ()
    stds: tuple[float, ...] = ()


class PropertyHead(nn.Module):
    """Two layers from the mean over all atoms of the final scalars to every property, in its own unit."""

    means: Tensor
    stds: Tensor

    def __init__(self, config: PropertyHeadConfig) -> None:
        super().__init__()
        self.config = config
        self.network = nn.Sequential(
            nn.LayerNorm(config.inputs),
            nn.Linear(config.inputs, config.inputs),
            nn.SiLU(),
            nn.Linear(config.inputs, len(config.names)),
        )
        self.register_buffer("means", torch.tensor(config.means), persistent=False)
        self.register_buffer("stds", torch.tensor(config.stds), persistent=False)

    def standardised(self, pooled: Float[Tensor, "crystals s"]) -> Float[Tensor, "crystals properties"]:
        """Outputs in units of the spread of the training data."""
        return self.network(pooled)

    def forward(self, pooled: Float[Tensor, "crystals s"]) -> Float[Tensor, "crystals properties"]:
        """The properties in their units."""
        return self.means + self.stds * self.standardised(pooled)
