"""Diffusion of the geometry: lattices on a variance-preserving path, free coordinates as wrapped normals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from nucleate.crystal.batch import CrystalBatch
from nucleate.crystal.lattice_torch import free_lattice_params
from nucleate.processes.geometry_process import (
    GeometryNoise,
    NoisyGeometry,
    NormalLatticeUniformCoords,
)
from nucleate.processes.noise_path import PathName, path_scale
from nucleate.processes.wrapped_normal import (
    normal_coords,
    normals_of_uniforms,
    widest_noise,
    wrapped_posterior,
)
from nucleate.processes.wyckoff_torus import cartesian_from_coords, without_drift
from nucleate.shapes import Float


@dataclass(frozen=True, eq=False)
class GeometryDiffusion(NormalLatticeUniformCoords):
    """Gaussian noise in the lattice subspace and on the Wyckoff torus, each field with its own level l.

    Lattice parameters, variance preserving about the mean of the noise (``signal_and_noise``):

        p_l = mean + alpha (p_0 - mean) + sigma std z ,    alpha^2 + sigma^2 = 1 .

    Free coordinates, variance exploding: ``u_l = u_0 + sigma G^(-1/2) z`` modulo periods, with the Cartesian covariance
    ``sigma^2 1`` in the tangent space of each position, in the reference metric G of the lattice system at unit volume
    per atom. With ``s = widest_noise`` of the crystal, ``sigma = l' / (1 - l')`` and ``l' = l s / (1 + s)``: level 1 is
    uniform to 1e-3 along every period, and l', which the network is told, means one noise per atom in every cell.

    The network predicts the clean end, as for ``GeometryFlow``; for coordinates that is the mean over all copies
    (``wrapped_posterior``), ``sigma^2`` times the score.

    Sources: Song et al., Score-based generative modeling through SDEs (2021); Jiao et al., DiffCSP (2023); De Bortoli
    et al., Riemannian score-based generative modelling (2022).
    """

    kind: ClassVar[str] = "diffusion"
    lattice_path: ClassVar[PathName] = "preserving"
    coord_path: ClassVar[PathName] = "exploding"

    def told_level(
        self, template: CrystalBatch, coord_level: Float[Tensor, "crystals"]
    ) -> Float[Tensor, "crystals"]:
        """``l' = l s / (1 + s)`` with s the widest noise of each crystal."""
        widest = widest_noise(template).to(coord_level)
        return coord_level * widest / (1 + widest)

    def corrupt(
        self,
        clean: CrystalBatch,
        coord_level: Float[Tensor, "crystals"],
        lattice_level: Float[Tensor, "crystals"],
        noise: GeometryNoise,
    ) -> NoisyGeometry:
        """The crystals at the given levels, with the mean displacement back."""
        own = self.lattice.to(clean.lattice_params)
        scale = path_scale(self.lattice_path, lattice_level)[:, None]
        level = lattice_level[:, None]
        away = (1 - level) * (clean.lattice_params - own.mean) + level * own.std * noise.normals
        params = (own.mean + scale * away) * free_lattice_params(clean.space_group_number)
        noisy = clean.replace(lattice_params=params, free_coords=self.noisy_coords(clean, coord_level, noise))
        told = self.told_level(clean, coord_level)
        back = wrapped_posterior(noisy, clean.free_coords, (told / (1 - told)).clamp(min=1e-6)).displacement
        vectors = cartesian_from_coords(noisy, without_drift(noisy, back), lattices=noisy.lattices())
        unit = noisy.length_unit
        return NoisyGeometry(noisy, vectors / unit[clean.orbit_to_crystal][:, None])

    def noisy_coords(
        self, clean: CrystalBatch, coord_level: Float[Tensor, "crystals"], noise: GeometryNoise
    ) -> Float[Tensor, "orbits 3"]:
        """Each orbit with its noise added."""
        told = self.told_level(clean, coord_level)
        sigma = (told / (1 - told))[clean.orbit_to_crystal][:, None]
        return clean.free_coords + sigma * self.coord_jitter(clean, noise)

    def coord_jitter(self, batch: CrystalBatch, noise: GeometryNoise) -> Float[Tensor, "orbits 3"]:
        """Normal noise of unit width."""
        return normal_coords(batch, normals_of_uniforms(noise.uniforms))
