"""A normal distribution on a torus of period 1 that u -> -u folds: the coordinate of Wyckoff position 221e."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

HALF = 0.5
"""Length of the folded cell."""

_PERIODS = torch.arange(-4, 5, dtype=torch.float64)


def folded(u: Tensor) -> Tensor:
    """The copy of u in [0, HALF] under u -> -u and u -> u + 1."""
    return (u - u.round()).abs()


@dataclass(frozen=True)
class FoldedNormal:
    """The folded copy of a normal number: normals about every copy of the mean, cut off at 0 and HALF."""

    mean: float
    spread: float

    def cdf(self, x: Tensor) -> Tensor:
        """Probability of [0, x]."""
        return self._mass_and_first(torch.zeros_like(x), x)[0]

    def mean_between(self, low: Tensor, high: Tensor) -> Tensor:
        """Mean of what lies in [low, high]."""
        mass, first = self._mass_and_first(low, high)
        return first / mass

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Independent numbers."""
        normals = torch.randn(count, generator=generator, dtype=torch.float64)
        return folded(self.mean + self.spread * normals)

    def _mass_and_first(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Integrals of p and x p from low to high."""
        copies = torch.cat([self.mean + _PERIODS, -self.mean + _PERIODS])
        before, after = ((x[:, None] - copies) / self.spread for x in (low, high))
        mass = torch.special.ndtr(after) - torch.special.ndtr(before)
        slope = (torch.exp(-(after**2) / 2) - torch.exp(-(before**2) / 2)) / math.sqrt(2 * math.pi)
        return mass.sum(dim=1), (copies * mass - self.spread * slope).sum(dim=1)
