"""What every process of the geometry, lattice and free coordinates, has in common: its noise and its interface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from nucleate.crystal.batch import CrystalBatch
from nucleate.crystal.lattice_torch import free_lattice_params
from nucleate.processes.noise_path import PathName
from nucleate.processes.wyckoff_torus import coords_from_cartesian, uniform_coords
from nucleate.shapes import Float, Int

LEVEL_FLOOR = 0.05
"""Added to the noise level where an error is divided by it: smaller noise levels count less than their velocity."""


@runtime_checkable
class DenoisedGeometry(Protocol):
    """What a denoiser must return; see ``GeometryDenoiser``."""

    @property
    def displacements(self) -> Float[Tensor, "orbits 3"]:
        """Cartesian vectors from noisy to clean representatives, in units of (volume per atom)^(1/3)."""

    @property
    def lattice_params(self) -> Float[Tensor, "crystals 6"]:
        """Clean lattice parameters, padded with zeros."""


GeometryDenoiser = Callable[[CrystalBatch, Tensor, Tensor], DenoisedGeometry]
"""(noisy crystals, coordinate level, lattice level, each by crystal) -> guess at the clean geometry."""


@dataclass(frozen=True, eq=False)
class GeometryNoise:
    """Random numbers that make one noisy geometry: uniform in [0, 1) and standard normal."""

    uniforms: Float[Tensor, "orbits 3"]
    normals: Float[Tensor, "crystals 6"]

    @classmethod
    def draw(cls, batch: CrystalBatch, generator: torch.Generator) -> GeometryNoise:
        """Numbers for a whole batch from one stream, for training."""
        device, dtype = batch.device, batch.dtype
        return cls(
            torch.rand(len(batch.position_ids), 3, generator=generator, dtype=dtype).to(device),
            torch.randn(len(batch), 6, generator=generator, dtype=dtype).to(device),
        )

    @classmethod
    def draw_by_crystal(cls, batch: CrystalBatch, generators: list[torch.Generator]) -> GeometryNoise:
        """Numbers from one stream per crystal: a crystal does not depend on the batch it is drawn in."""
        counts = batch.num_orbits.tolist()
        normals = [torch.randn(6, generator=g, dtype=torch.float64) for g in generators]
        uniforms = [torch.rand(k, 3, generator=g, dtype=torch.float64) for k, g in zip(counts, generators)]
        return cls(
            torch.cat(uniforms).to(batch.device, batch.dtype),
            torch.stack(normals).to(batch.device, batch.dtype),
        )

    def of(self, template: CrystalBatch, chosen: Int[Tensor, "chosen"]) -> GeometryNoise:
        """The numbers of some crystals of the batch that these were drawn for."""
        return GeometryNoise(self.uniforms[template.orbits_of(chosen)], self.normals[chosen])


@dataclass(frozen=True, eq=False)
class NoisyGeometry:
    """A corrupted batch and what leads back.

    Attributes:
        crystals: the noisy crystals.
        displacements: Cartesian vectors from the noisy to the clean representatives, in units of the noisy
            crystal's (volume per atom)^(1/3); where several clean copies are possible, their mean.
    """

    crystals: CrystalBatch
    displacements: Float[Tensor, "orbits 3"]


@runtime_checkable
class GeometryProcess(Protocol):
    """A way from data to noise for lattices and free coordinates, each with its own level in [0, 1].

    Level 0 is the data and 1 pure noise. A path scales the mixture (``noise_path``), a manifold says what noise and the
    difference of two points are (``LatticeNoise``, ``wyckoff_torus``, ``wrapped_normal``); schedules and solvers know
    neither, and nothing here knows a network.
    """

    @property
    def kind(self) -> str:
        """Name in configurations and checkpoints."""

    @property
    def lattice(self) -> LatticeNoise:
        """Noise of the lattice parameters."""

    @property
    def lattice_path(self) -> PathName:
        """Path of the lattice parameters."""

    @property
    def coord_path(self) -> PathName:
        """Path of the free coordinates."""

    def prior(self, template: CrystalBatch, noise: GeometryNoise) -> CrystalBatch:
        """Pure noise on the template of a batch; its own geometry is not read."""

    def told_level(
        self, template: CrystalBatch, coord_level: Float[Tensor, "crystals"]
    ) -> Float[Tensor, "crystals"]:
        """Noise level of the coordinates as their path and the network know it: ``sigma / (alpha + sigma)``."""

    def corrupt(
        self,
        clean: CrystalBatch,
        coord_level: Float[Tensor, "crystals"],
        lattice_level: Float[Tensor, "crystals"],
        noise: GeometryNoise,
    ) -> NoisyGeometry:
        """The crystals at the given levels."""

    def noisy_coords(
        self, clean: CrystalBatch, coord_level: Float[Tensor, "crystals"], noise: GeometryNoise
    ) -> Float[Tensor, "orbits 3"]:
        """Each orbit's coordinates at a level by itself, whatever the others are; for orbits that are given."""

    def coord_jitter(self, batch: CrystalBatch, noise: GeometryNoise) -> Float[Tensor, "orbits 3"] | None:
        """Fresh noise of u with unit level, None where noise cannot be added along the way."""


@dataclass(frozen=True, eq=False)
class LatticeNoise:
    """Normal noise in the Euclidean lattice subspace: ``p = mean + std z``, each free parameter by itself.

    Attributes:
        mean, std: by lattice parameter, (6,).
    """

    mean: Float[Tensor, "6"]
    std: Float[Tensor, "6"]

    @classmethod
    def fit(cls, batch: CrystalBatch) -> LatticeNoise:
        """Mean and spread of each free lattice parameter of these crystals.

        Only the volume and the elongation have a preferred sign; the mean of the others is zero.
        """
        free = free_lattice_params(batch.space_group_number)
        count = free.sum(dim=0).clamp(min=1)
        mean = (batch.lattice_params * free).sum(dim=0) / count
        mean = torch.where(torch.arange(6) < 2, mean, torch.zeros_like(mean))
        spread = ((batch.lattice_params - mean) ** 2 * free).sum(dim=0) / count
        return cls(mean, spread.sqrt().clamp(min=1e-3))

    def to(self, like: Tensor) -> LatticeNoise:
        """The statistics on the device and in the type of a tensor."""
        return LatticeNoise(self.mean.to(like), self.std.to(like))

    def params(
        self, template: CrystalBatch, normals: Float[Tensor, "crystals 6"]
    ) -> Float[Tensor, "crystals 6"]:
        """Pure noise, zeros beyond the free parameters."""
        own = self.to(template.lattice_params)
        return (own.mean + own.std * normals) * free_lattice_params(template.space_group_number)


Process = TypeVar("Process", bound="NormalLatticeUniformCoords")


@dataclass(frozen=True, eq=False)
class NormalLatticeUniformCoords:
    """The noise that both processes end in, normal lattices and uniform coordinates.

    Attributes:
        lattice_mean, lattice_std: of the noise, by lattice parameter.
    """

    lattice_mean: Float[Tensor, "6"]
    lattice_std: Float[Tensor, "6"]

    @classmethod
    def fit(cls: type[Process], batch: CrystalBatch) -> Process:
        """Noise with the mean and spread of each free lattice parameter of these crystals; see ``LatticeNoise``."""
        noise = LatticeNoise.fit(batch)
        return cls(noise.mean, noise.std)

    @cached_property
    def lattice(self) -> LatticeNoise:
        """Noise of the lattice parameters."""
        return LatticeNoise(self.lattice_mean, self.lattice_std)

    def prior(self, template: CrystalBatch, noise: GeometryNoise) -> CrystalBatch:
        """Pure noise on the template of a batch; its own geometry is not read."""
        params = self.lattice.params(template, noise.normals)
        return template.replace(lattice_params=params, free_coords=uniform_coords(template, noise.uniforms))


def clean_coords_change(noisy: CrystalBatch, denoised: DenoisedGeometry) -> Float[Tensor, "orbits 3"]:
    """The change of u that leads to the guess at the clean end."""
    unit = noisy.length_unit
    vectors = denoised.displacements.to(noisy.dtype) * unit[noisy.orbit_to_crystal][:, None]
    return coords_from_cartesian(noisy, vectors, lattices=noisy.lattices())


def clean_guess(noisy: CrystalBatch, denoised: DenoisedGeometry) -> CrystalBatch:
    """The clean crystals a denoiser believes in; differentiable."""
    change = clean_coords_change(noisy, denoised)
    return noisy.replace(
        free_coords=noisy.free_coords + change, lattice_params=denoised.lattice_params.to(noisy.dtype)
    )


def geometry_losses(
    process: GeometryProcess,
    denoised: DenoisedGeometry,
    noisy: NoisyGeometry,
    clean: CrystalBatch,
    coord_level: Float[Tensor, "crystals"],
    lattice_level: Float[Tensor, "crystals"],
) -> tuple[Float[Tensor, "crystals"], Float[Tensor, "crystals"]]:
    """(coordinate loss, lattice loss) of each crystal.

    Squared Cartesian error of the clean end over ``(l + 0.05)^2``, l the level the network is told, which on the
    straight path is the squared error of the velocity but for the smallest levels; coordinates weigh orbits by
    multiplicity, and fixed orbits not at all. Lattice errors are in units of the noise's standard deviations.
    """
    crystal = clean.orbit_to_crystal
    movable = (clean.num_free > 0) * clean.multiplicities.to(clean.dtype) / clean.num_atoms_primitive[crystal]
    error = ((denoised.displacements - noisy.displacements) ** 2).sum(dim=1) * movable
    coords = torch.zeros_like(coord_level).index_add_(0, crystal, error.to(coord_level.dtype))
    scaled = (denoised.lattice_params - clean.lattice_params) / process.lattice.std.to(clean.lattice_params)
    lattice = (scaled**2).sum(dim=1)
    told = process.told_level(clean, coord_level)
    return coords / (told + LEVEL_FLOOR) ** 2, lattice / (lattice_level + LEVEL_FLOOR) ** 2
