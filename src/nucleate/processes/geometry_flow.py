"""Flow matching of the geometry, lattice and free coordinates together, for a given template."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from nucleate.crystal.batch import CrystalBatch
from nucleate.processes.geometry_process import (
    DenoisedGeometry,
    GeometryDenoiser,
    GeometryNoise,
    NoisyGeometry,
    NormalLatticeUniformCoords,
    clean_coords_change,
)
from nucleate.processes.noise_path import PathName
from nucleate.processes.sampler import sample_geometry
from nucleate.processes.wrapped_normal import reference_lattices
from nucleate.processes.wyckoff_torus import cartesian_from_coords, log_map, uniform_coords, without_drift
from nucleate.shapes import Float


@dataclass(frozen=True, eq=False)
class GeometryFlow(NormalLatticeUniformCoords):
    """Straight paths between noise (t = 1) and data (t = 0), each field with its own time.

    Lattice parameters: ``p_t = (1 - t) p_0 + t p_1`` with p_1 normal (``lattice_mean``, ``lattice_std``) in
    the Euclidean lattice subspace. Free coordinates: p_1 uniform over the cell of u, and the geodesic
    ``u_t = u_0 + t log_{u_0}(u_1)`` on the Wyckoff torus, the logarithm to the nearest copy of u_1 over
    periods and identification maps, without the drift of a floating origin. The network predicts the clean
    end, as Cartesian displacements and lattice parameters; the velocity of the probability flow is (noisy -
    clean) / t.

    Source: Lipman et al., Flow matching for generative modeling (2023), with the conditional paths of Chen &
    Lipman, Flow matching on general geometries (2024), eq. 13.
    """

    kind: ClassVar[str] = "flow"
    lattice_path: ClassVar[PathName] = "straight"
    coord_path: ClassVar[PathName] = "straight"

    def told_level(
        self, template: CrystalBatch, coord_level: Float[Tensor, "crystals"]
    ) -> Float[Tensor, "crystals"]:
        """The level itself."""
        return coord_level

    def corrupt(
        self,
        clean: CrystalBatch,
        coord_level: Float[Tensor, "crystals"],
        lattice_level: Float[Tensor, "crystals"],
        noise: GeometryNoise,
    ) -> NoisyGeometry:
        """The crystals at the given noise levels."""
        end = self.prior(clean, noise)
        t = lattice_level[:, None]
        params = (1 - t) * clean.lattice_params + t * end.lattice_params
        frame = clean.replace(lattice_params=params)
        lattices = frame.lattices()
        path = without_drift(clean, log_map(clean, end.free_coords, lattices=lattices))
        path = path * coord_level[clean.orbit_to_crystal][:, None]
        back = cartesian_from_coords(clean, -path, lattices=lattices)
        unit = frame.length_unit
        return NoisyGeometry(
            frame.replace(free_coords=clean.free_coords + path), back / unit[clean.orbit_to_crystal][:, None]
        )

    def noisy_coords(
        self, clean: CrystalBatch, coord_level: Float[Tensor, "crystals"], noise: GeometryNoise
    ) -> Float[Tensor, "orbits 3"]:
        """Each orbit on its own geodesic, nearest in the reference metric, the origin where it is."""
        path = log_map(clean, uniform_coords(clean, noise.uniforms), lattices=reference_lattices(clean))
        return clean.free_coords + path * coord_level[clean.orbit_to_crystal][:, None]

    def coord_jitter(self, batch: CrystalBatch, noise: GeometryNoise) -> None:
        """None: a uniform end is reached by geodesics, not by adding up small noise."""
        return

    def step(self, noisy: CrystalBatch, denoised: DenoisedGeometry, *, fraction: float) -> CrystalBatch:
        """The crystals moved the given fraction of the way to the guess at the clean end."""
        change = clean_coords_change(noisy, denoised)
        params = noisy.lattice_params + fraction * (
            denoised.lattice_params.to(noisy.dtype) - noisy.lattice_params
        )
        return noisy.replace(free_coords=noisy.free_coords + fraction * change, lattice_params=params)

    def sample(
        self,
        template: CrystalBatch,
        denoiser: GeometryDenoiser,
        *,
        noise: GeometryNoise,
        steps: int = 40,
        on_step: Callable[[], None] | None = None,
    ) -> CrystalBatch:
        """Crystals on the given templates by Euler steps; ``sample_geometry`` offers every other way."""
        return sample_geometry(self, template, denoiser, noise=noise, steps=steps, on_step=on_step)
