"""Noise levels as features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nucleate.shapes import Float


class TimeEmbedding(nn.Module):
    """Sines and cosines of both noise levels."""

    frequencies: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.pi * 2.0 ** torch.arange(6), persistent=False)
        self.linear = nn.Linear(2 * (2 * 6 + 1), size)

    def forward(
        self, coord_time: Float[Tensor, "n"], lattice_time: Float[Tensor, "n"]
    ) -> Float[Tensor, "n size"]:
        """One vector per crystal."""
        parts = []
        for time in (coord_time, lattice_time):
            angles = time[:, None] * self.frequencies
            parts += [time[:, None], angles.sin(), angles.cos()]
        return self.linear(torch.cat(parts, dim=1))
