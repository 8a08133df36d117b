"""Paths from data to noise: how much of each a noise level means, and how the mixture is scaled."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from nucleate.shapes import Float

PathName = Literal["straight", "preserving", "exploding"]


def path_scale(path: PathName, level: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """c(l) of ``x = c(l) [(1 - l) x_0 + l noise]``, l the noise level in [0, 1].

    Every Gaussian path has this form, with ``alpha = c (1 - l)``, ``sigma = c l`` and ``alpha / sigma = (1 - l) / l``:

        straight     c = 1                          flow matching
        preserving   c = 1 / sqrt((1-l)^2 + l^2)    alpha^2 + sigma^2 = 1, variance preserving
        exploding    c = 1 / (1 - l)                alpha = 1, sigma = l / (1 - l), variance exploding

    so that one noise level means one ratio of signal to noise on all of them, and a solver needs to know levels only:
    ``x / c`` runs along the straight path. ``exploding`` ends before level 1.

    Sources: Kingma & Gao, Understanding diffusion objectives as the ELBO (2023), appendix B; Karras et al.,
    Elucidating the design space of diffusion models (2022), table 1.
    """
    if path == "straight":
        return torch.ones_like(level)
    if path == "preserving":
        return torch.rsqrt((1 - level) ** 2 + level**2)
    return 1 / (1 - level)


def signal_and_noise(
    path: PathName, level: Float[Tensor, "n"]
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """(alpha, sigma) of ``x = alpha x_0 + sigma noise`` at a noise level."""
    scale = path_scale(path, level)
    return scale * (1 - level), scale * level
