"""Properties learned alone: a head on a geometry network that stays as it is, on crystals without noise."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nucleate.data.property_values import PROPERTY_PREFIX, as_numbers
from nucleate.data.store import Store
from nucleate.models.orbit_transformer import OrbitTransformer
from nucleate.models.property_head import PropertyHead, pooled_features
from nucleate.shapes import Float, Int
from nucleate.training.crystal_stream import SourcedCrystals
from nucleate.training.geometry_task import property_loss
from nucleate.training.losses import Losses

MOST_KEPT = 1_000_000
"""Crystals of a store whose features are kept once they are known: about 400 MB."""

_AT_ONCE = 64
"""Crystals in one pass, of about one size: on a CPU large passes spend their time on fresh memory."""


def labelled(store: Store, names: tuple[str, ...]) -> Store:
    """The crystals of a store or selection that have one of the properties at least."""
    columns = [PROPERTY_PREFIX + name for name in names]
    known = [
        np.isfinite([as_numbers(table.column(name)) for name in columns]).any(axis=0)
        for table in store.iter_batches(columns, 65_536)
    ]
    return store.select(np.flatnonzero(np.concatenate(known))) if known else store


class FrozenFeatures:
    """Pooled features of stored crystals by a network that does not learn; each is computed once.

    Args:
        network: the geometry network.
        num_rows: crystals of the whole store.
    """

    def __init__(self, network: OrbitTransformer, num_rows: int) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._kept: Tensor | None = None
        if num_rows <= MOST_KEPT:
            self._kept = torch.full((num_rows, network.config.scalars), torch.nan)

    def of(self, content: SourcedCrystals) -> Float[Tensor, "crystals s"]:
        """Their features, in float32."""
        if self._kept is None:
            return self._computed(content)
        unknown = torch.nonzero(self._kept[content.rows, 0].isnan())[:, 0]
        if len(unknown):
            found = self._computed(content.take(unknown.to(content.source.device)))
            self._kept[content.rows[unknown]] = found.cpu()
        return self._kept[content.rows].to(content.source.device)

    @torch.no_grad()
    def _computed(self, content: SourcedCrystals) -> Float[Tensor, "crystals s"]:
        crystals = content.crystals
        network = self.network.to(crystals.device)
        found = torch.empty(len(crystals), network.config.scalars, device=crystals.device)
        with torch.autocast(crystals.device.type, enabled=False):
            for some in crystals.num_orbits.argsort().split(_AT_ONCE):
                found[some] = pooled_features(network, crystals[some])
        return found


@dataclass(frozen=True, eq=False)
class PropertyExample:
    """What a head reads, and what it should say; NaN where that is not known."""

    features: Float[Tensor, "crystals s"]
    labels: Float[Tensor, "crystals properties"]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Int[Tensor, "chosen"]) -> PropertyExample:
        """The chosen crystals."""
        return PropertyExample(self.features[index], self.labels[index])


@dataclass(frozen=True, eq=False)
class PropertyTask:
    """What a property head learns; there is no noise, and nothing is drawn.

    Attributes:
        features: of the network that the head reads.
    """

    features: FrozenFeatures

    def prepare(self, content: SourcedCrystals, seed: int, *, noise_level: float) -> PropertyExample:
        """Features and labels of stored crystals."""
        assert content.labels is not None
        return PropertyExample(self.features.of(content), content.labels)

    def losses(self, network: PropertyHead, example: PropertyExample) -> Losses:
        """Huber loss in units of each property's spread, and mean absolute errors in its own unit."""
        with torch.autocast(example.labels.device.type, enabled=False):
            loss, errors = property_loss(network, example.features, example.labels)
        return Losses({"loss": loss, **errors})

    def validation(self, network: PropertyHead, content: SourcedCrystals, seed: int) -> Losses:
        """The same losses."""
        return self.losses(network, self.prepare(content, seed, noise_level=0.0))

    def empty_tables(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Nothing: the task has no tables."""
        return {}

    def learn(self, tables: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Nothing."""

    def sample(
        self, network: PropertyHead, content: SourcedCrystals, seed: int, steps: int
    ) -> dict[str, float]:
        """Nothing: a head makes no crystals."""
        return {}
