"""Autoguidance: a guess at the clean geometry, led away from the guess of a weaker network."""

from __future__ import annotations

from torch import Tensor

from nucleate.crystal.batch import CrystalBatch
from nucleate.processes.geometry_process import GeometryDenoiser
from nucleate.processes.guidance import GuidedGeometry


def autoguided(denoiser: GeometryDenoiser, weak: GeometryDenoiser, strength: float) -> GeometryDenoiser:
    """The denoiser ``D(x) + strength (D(x) - D_weak(x))``.

    A network with few parameters or little training errs where a better one errs less, and in the same direction: it
    spreads its guess over too many geometries. The difference of the two points away from what both get wrong. Both
    guesses lie in the allowed subspaces (free displacements, lattice subspace), and so does every combination.

    Source: Karras et al., Guiding a diffusion model with a bad version of itself (2024), eq. 3, where
    ``w = 1 + strength``.

    Args:
        denoiser: the network to sample with.
        weak: a smaller or less trained one of the same process.
        strength: 0 is the denoiser alone.
    """

    def denoise(crystals: CrystalBatch, coord_level: Tensor, lattice_level: Tensor) -> GuidedGeometry:
        good = denoiser(crystals, coord_level, lattice_level)
        bad = weak(crystals, coord_level, lattice_level)
        return GuidedGeometry(
            good.displacements + strength * (good.displacements - bad.displacements),
            good.lattice_params + strength * (good.lattice_params - bad.lattice_params),
        )

    return denoise if strength else denoiser
