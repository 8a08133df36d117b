"""Flow matching of the geometry, lattice and free coordinates together, for a given template."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from nucleate.crystal.batch import CrystalBatch
from nucleate.crystal.lattice_torch import free_lattice_params
from nucleate.processes.wyckoff_torus import (
    cartesian_from_coords,
    coords_from_cartesian,
    log_map,
    uniform_coords,
    without_drift,
)
from nucleate.shapes import Float

TIME_FLOOR = 0.05
"""Added to the time where an error is divided by it: smaller noise levels count less than their velocity."""


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
"""(noisy crystals, coordinate time, lattice time, each by crystal) -> guess at the clean geometry."""


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


@dataclass(frozen=True, eq=False)
class NoisyGeometry:
    """A corrupted batch and what leads back.

    Attributes:
        crystals: the noisy crystals.
        displacements: Cartesian vectors from the noisy to the clean representatives, in units of the noisy
            crystal's (volume per atom)^(1/3).
    """

    crystals: CrystalBatch
    displacements: Float[Tensor, "orbits 3"]


@dataclass(frozen=True, eq=False)
class GeometryFlow:
    """Straight paths between noise (t = 1) and data (t = 0), each field with its own time.

    Lattice parameters: ``p_t = (1 - t) p_0 + t p_1`` with p_1 normal (``lattice_mean``, ``lattice_std``) in
    the Euclidean lattice subspace. Free coordinates: p_1 uniform over the cell of u, and the geodesic
    ``u_t = u_0 + t log_{u_0}(u_1)`` on the Wyckoff torus, the logarithm to the nearest copy of u_1 over
    periods and identification maps, without the drift of a floating origin. The network predicts the clean
    end, as Cartesian displacements and lattice parameters; the velocity of the probability flow is (noisy -
    clean) / t.

    Source: Lipman et al., Flow matching for generative modeling (2023), with the conditional paths of Chen &
    Lipman, Flow matching on general geometries (2024), eq. 13.

    Attributes:
        lattice_mean, lattice_std: of the noise, by lattice parameter.
    """

    lattice_mean: Float[Tensor, "6"]
    lattice_std: Float[Tensor, "6"]

    @classmethod
    def fit(cls, batch: CrystalBatch) -> GeometryFlow:
        """Noise with the mean and spread of each free lattice parameter of these crystals.

        Only the volume and the elongation have a preferred sign; the mean of the others is zero.
        """
        free = free_lattice_params(batch.space_group_number)
        count = free.sum(dim=0).clamp(min=1)
        mean = (batch.lattice_params * free).sum(dim=0) / count
        mean = torch.where(torch.arange(6) < 2, mean, torch.zeros_like(mean))
        spread = ((batch.lattice_params - mean) ** 2 * free).sum(dim=0) / count
        return cls(mean, spread.sqrt().clamp(min=1e-3))

    def prior(self, template: CrystalBatch, noise: GeometryNoise) -> CrystalBatch:
        """Pure noise (t = 1) on the template of a batch; its own geometry is not read."""
        free = free_lattice_params(template.space_group_number)
        mean, std = (
            self.lattice_mean.to(template.lattice_params),
            self.lattice_std.to(template.lattice_params),
        )
        params = (mean + std * noise.normals) * free
        return template.replace(lattice_params=params, free_coords=uniform_coords(template, noise.uniforms))

    def corrupt(
        self,
        clean: CrystalBatch,
        coord_time: Float[Tensor, "crystals"],
        lattice_time: Float[Tensor, "crystals"],
        noise: GeometryNoise,
    ) -> NoisyGeometry:
        """The crystals at the given noise levels."""
        end = self.prior(clean, noise)
        t = lattice_time[:, None]
        params = (1 - t) * clean.lattice_params + t * end.lattice_params
        frame = clean.replace(lattice_params=params)
        lattices = frame.lattices()
        path = without_drift(clean, log_map(clean, end.free_coords, lattices=lattices))
        path = path * coord_time[clean.orbit_to_crystal][:, None]
        back = cartesian_from_coords(clean, -path, lattices=lattices)
        unit = frame.volume_per_atom ** (1 / 3)
        return NoisyGeometry(
            frame.replace(free_coords=clean.free_coords + path), back / unit[clean.orbit_to_crystal][:, None]
        )

    def losses(
        self,
        denoised: DenoisedGeometry,
        noisy: NoisyGeometry,
        clean: CrystalBatch,
        coord_time: Float[Tensor, "crystals"],
        lattice_time: Float[Tensor, "crystals"],
    ) -> tuple[Float[Tensor, "crystals"], Float[Tensor, "crystals"]]:
        """(coordinate loss, lattice loss) of each crystal.

        Squared Cartesian error of the clean end over ``(t + 0.05)^2``, which is the squared error of the
        velocity but for the smallest times; coordinates weigh orbits by multiplicity, and fixed orbits not at
        all.
        """
        crystal = clean.orbit_to_crystal
        movable = (
            (clean.num_free > 0) * clean.multiplicities.to(clean.dtype) / clean.num_atoms_primitive[crystal]
        )
        error = ((denoised.displacements - noisy.displacements) ** 2).sum(dim=1) * movable
        coords = torch.zeros_like(coord_time).index_add_(0, crystal, error.to(coord_time.dtype))
        scaled = (denoised.lattice_params - clean.lattice_params) / self.lattice_std.to(clean.lattice_params)
        lattice = (scaled**2).sum(dim=1)
        return coords / (coord_time + TIME_FLOOR) ** 2, lattice / (lattice_time + TIME_FLOOR) ** 2

    def step(self, noisy: CrystalBatch, denoised: DenoisedGeometry, *, fraction: float) -> CrystalBatch:
        """The crystals moved the given fraction of the way to the guess at the clean end."""
        lattices = noisy.lattices()
        unit = noisy.volume_per_atom ** (1 / 3)
        vectors = denoised.displacements.to(noisy.dtype) * unit[noisy.orbit_to_crystal][:, None]
        change = coords_from_cartesian(noisy, vectors, lattices=lattices)
        params = noisy.lattice_params + fraction * (
            denoised.lattice_params.to(noisy.dtype) - noisy.lattice_params
        )
        return noisy.replace(free_coords=noisy.free_coords + fraction * change, lattice_params=params)

    @torch.no_grad()
    def sample(
        self,
        template: CrystalBatch,
        denoiser: GeometryDenoiser,
        *,
        noise: GeometryNoise,
        steps: int = 40,
        on_step: Callable[[int, int], None] | None = None,
    ) -> CrystalBatch:
        """Crystals on the given templates: the probability flow from t = 1 to t = 0 by Euler steps.

        Args:
            template: groups, positions and elements; its geometry is not read.
            denoiser: network.
            noise: start.
            steps: network evaluations.
            on_step: told (steps done, steps) after each.
        """
        x = self.prior(template, noise)
        times = torch.linspace(1, 0, steps + 1)
        for k in range(steps):
            now, then = float(times[k]), float(times[k + 1])
            time = torch.full((len(x),), now, dtype=x.dtype, device=x.device)
            x = self.step(x, denoiser(x, time, time), fraction=(now - then) / now)
            if on_step is not None:
                on_step(k + 1, steps)
        return x
