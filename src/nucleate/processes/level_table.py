"""Means of a quantity by noise level, kept up while a network trains."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nucleate.shapes import Bool, Float

BINS = 32
MEMORY = 2000.0
"""Crystals of a bin after which the weight of an older one has fallen to 1/e."""


class LevelTable(nn.Module):
    """Exponential moving averages of ``columns`` quantities in even bins of the noise level.

    A module without parameters: its sums are buffers, so that they travel with checkpoints.
    """

    sums: Tensor
    weights: Tensor

    def __init__(self, columns: int, *, bins: int = BINS) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(bins, columns, dtype=torch.float64))
        self.register_buffer("weights", torch.zeros(bins, columns, dtype=torch.float64))

    @torch.no_grad()
    def bin_sums(
        self,
        level: Float[Tensor, "n"],
        values: Float[Tensor, "n columns"],
        known: Bool[Tensor, "n columns"],
    ) -> tuple[Float[Tensor, "bins columns"], Float[Tensor, "bins columns"]]:
        """(sums, counts) of new values by bin; values that are not known or not finite do not count."""
        bins = len(self.sums)
        row = (level.double() * bins).long().clamp(0, bins - 1)
        counted = (known & torch.isfinite(values)).double()
        zeros = torch.zeros_like(self.sums)
        finite = torch.where(counted > 0, values.double(), 0.0)
        return zeros.index_add(0, row, finite), zeros.index_add(0, row, counted)

    @torch.no_grad()
    def add(self, sums: Float[Tensor, "bins columns"], counts: Float[Tensor, "bins columns"]) -> None:
        """Fade what is there by what comes, and add it."""
        keep = torch.exp(-counts / MEMORY)
        self.sums.mul_(keep).add_(sums)
        self.weights.mul_(keep).add_(counts)

    def means(self) -> Float[Tensor, "bins columns"]:
        """Mean of each bin; a bin without values has that of all, and 0 if there are none at all."""
        overall = self.sums.sum(dim=0) / self.weights.sum(dim=0).clamp(min=1e-12)
        mean = self.sums / self.weights.clamp(min=1e-12)
        return torch.where(self.weights > 0, mean, overall)

    def at(self, level: Float[Tensor, "n"]) -> Float[Tensor, "n columns"]:
        """Means at noise levels, linear between the middles of the bins."""
        means, bins = self.means(), len(self.sums)
        place = (level.double() * bins - 0.5).clamp(0, bins - 1)
        low = place.long().clamp(max=bins - 2)
        share = (place - low)[:, None]
        return (1 - share) * means[low] + share * means[low + 1]
