"""Radial functions: a smooth envelope that ends at the cutoff and Gaussian bases of reduced distances."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nucleate.shapes import Float


def envelope(ratio: Float[Tensor, "edges"]) -> Float[Tensor, "edges"]:
    """``(1 - x^2)^3`` for x = d / r_c below 1, zero beyond: twice differentiable at the cutoff."""
    return (1 - ratio.clamp(max=1) ** 2) ** 3


_LARGEST_EXPONENT = 40.0


class GaussianBasis(nn.Module):
    """Gaussians ``exp(-(x - mu_k)^2 / (2 w^2))``, centres evenly spaced over an interval, w their spacing.

    Far from its centre a Gaussian stays at exp(-40) instead of falling to numbers too small for a normalised float,
    with which matrix products on a CPU take several times as long.
    """

    centres: Tensor

    def __init__(self, num_basis: int, *, low: float, high: float) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(low, high, num_basis), persistent=False)
        self.inverse_width = (num_basis - 1) / (high - low)

    def forward(self, x: Float[Tensor, "edges"]) -> Float[Tensor, "edges basis"]:
        """Values of every Gaussian at every x."""
        exponent = 0.5 * ((x[:, None] - self.centres) * self.inverse_width) ** 2
        return torch.exp(-exponent.clamp(max=_LARGEST_EXPONENT))
