"""How well a crystal agrees with the network's own belief: its denoising error, by which candidates are ranked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nucleate.crystal.batch import CrystalBatch
from nucleate.processes.geometry_process import (
    GeometryDenoiser,
    GeometryNoise,
    GeometryProcess,
    geometry_losses,
)
from nucleate.shapes import Bool, Float

NOISE_LEVELS = (0.1, 0.2, 0.3, 0.4)
"""Noise levels at which the error is measured: low ones, where a wrong place is still seen to be wrong."""
LATTICE_WEIGHT = 0.3
"""Weight of the lattice beside the coordinates, as in training."""


@torch.no_grad()
def denoising_error(
    process: GeometryProcess,
    crystals: CrystalBatch,
    denoiser: GeometryDenoiser,
    *,
    noises: Sequence[GeometryNoise],
    lattice_given: bool = False,
) -> Float[Tensor, "crystals"]:
    """Mean error with which the network finds each crystal back after a little noise; small where it is likely.

        e(x) = mean over levels t of [ coordinate loss + 0.3 lattice loss ](x_t -> x)

    with the losses of training. A sum of denoising errors bounds the negative log-likelihood of a diffusion model, so
    that among crystals on the same template the one with the smallest error is the likeliest. Compare with the same
    noises only, and never crystals on different templates.

    Source: Kingma & Gao, Understanding diffusion objectives as the ELBO with simple data augmentation (2023), eq. 9.

    Args:
        process: the noise the network was trained with.
        crystals: to be judged.
        denoiser: network.
        noises: one for each of ``NOISE_LEVELS``.
        lattice_given: the lattice is part of the condition: it stays clean and does not count.
    """
    total = torch.zeros(len(crystals), dtype=crystals.dtype, device=crystals.device)
    for level, noise in zip(NOISE_LEVELS, noises, strict=True):
        time = torch.full_like(total, level)
        lattice_time = torch.zeros_like(time) if lattice_given else time
        noisy = process.corrupt(crystals, time, lattice_time, noise)
        guess = denoiser(noisy.crystals, process.told_level(crystals, time), lattice_time)
        coords, lattice = geometry_losses(process, guess, noisy, crystals, time, lattice_time)
        total += coords if lattice_given else coords + LATTICE_WEIGHT * lattice
    return total / len(NOISE_LEVELS)


def replace_where(
    chosen: Bool[Tensor, "crystals"], crystals: CrystalBatch, others: CrystalBatch
) -> CrystalBatch:
    """The geometry of ``others`` where chosen, that of ``crystals`` elsewhere; both on the same templates."""
    orbits = chosen[crystals.orbit_to_crystal]
    return crystals.replace(
        free_coords=torch.where(orbits[:, None], others.free_coords, crystals.free_coords),
        lattice_params=torch.where(chosen[:, None], others.lattice_params, crystals.lattice_params),
    )
