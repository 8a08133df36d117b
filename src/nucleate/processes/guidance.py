"""Guidance: sampling from the learned distribution tilted by energies, by pulling every guess downhill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nucleate.crystal.batch import CrystalBatch
from nucleate.crystal.lattice_torch import free_lattice_params
from nucleate.processes.geometry_process import DenoisedGeometry, GeometryProcess, clean_coords_change
from nucleate.processes.level_table import LevelTable
from nucleate.processes.penalties import Penalty
from nucleate.processes.sampler import Guide
from nucleate.processes.wyckoff_torus import cartesian_from_coords
from nucleate.shapes import Float

COORD_SPREAD = 0.15
"""Spread of clean coordinates that a composition and template leave open, units of (volume per atom)^(1/3)."""

LATTICE_SPREAD = 0.3
"""The same of the lattice parameters, in units of their noise."""

MOST_COORD_CHANGE = 0.1
"""Farthest a guess at a coordinate is moved in one step, units of (volume per atom)^(1/3)."""

MOST_LATTICE_CHANGE = 0.3
"""Farthest a guess at a lattice parameter is moved in one step, in units of its noise."""


@dataclass(frozen=True, eq=False)
class GuidanceTerm:
    """One energy to be lowered.

    Attributes:
        energy: crystals -> one number per crystal (for an energy, that of the primitive cell); differentiable.
        strength: factor on it: samples follow ``p(x) exp(-strength x energy)`` as long as that changes them little.
    """

    energy: Penalty
    strength: float


@dataclass(frozen=True, eq=False)
class GuidedGeometry:
    """A guess at the clean end after guidance; a ``DenoisedGeometry``."""

    displacements: Float[Tensor, "orbits 3"]
    lattice_params: Float[Tensor, "crystals 6"]


def guide_by(
    process: GeometryProcess, terms: Sequence[GuidanceTerm], *, lattice_variance: LevelTable | None = None
) -> Guide:
    """What ``sample_geometry`` takes: each guess D at the clean end becomes ``D - Var(x_0 | x_l) grad E(D)``.

    To first order in E this is the posterior mean of the tilted distribution ``p(x) exp(-E)``. The variance is that of
    normal data of spread s seen through noise of level l,

        Var = s^2 l^2 / ((1 - l)^2 s^2 + l^2) ,

    or, for the lattice, the learned mean square error of the guess. The gradient is taken at the guess and not through
    the network, so guidance costs no backward pass of it, and changes per step are bounded (``MOST_COORD_CHANGE``).

    Source: He et al., Manifold preserving guided diffusion (2024); Chung et al., Diffusion posterior sampling (2023).

    Args:
        process: noise, for the units of the lattice.
        terms: energies and their strengths.
        lattice_variance: mean square error of the lattice by level, in units of the noise.
    """

    def guide(
        noisy: CrystalBatch, guess: DenoisedGeometry, coord_level: Tensor, lattice_level: Tensor
    ) -> DenoisedGeometry:
        crystal = noisy.orbit_to_crystal
        change = clean_coords_change(noisy, guess)
        with torch.enable_grad():
            coords = (noisy.free_coords + change).detach().requires_grad_()
            params = guess.lattice_params.to(noisy.dtype).detach().requires_grad_()
            clean = noisy.replace(free_coords=coords, lattice_params=params)
            energy = sum((term.strength * term.energy(clean)).sum() for term in terms)
            slopes = torch.autograd.grad(energy, (coords, params), allow_unused=True)  # type: ignore[arg-type]
        by_coords, by_params = (torch.zeros_like(x) if g is None else torch.nan_to_num(g)
                                for g, x in zip(slopes, (coords, params)))  # fmt: skip
        own = process.lattice.to(params)
        if lattice_variance is None:
            spread = _variance(lattice_level, LATTICE_SPREAD)[:, None].expand(-1, 6)
        else:
            spread = lattice_variance.at(lattice_level).to(params)
        step = (-spread * own.std * by_params).clamp(-MOST_LATTICE_CHANGE, MOST_LATTICE_CHANGE)
        moved = (params + step * own.std * (lattice_level > 0)[:, None]).detach()
        moved = moved * free_lattice_params(noisy.space_group_number)
        lattices = noisy.lattices()
        unit = noisy.length_unit[crystal][:, None]
        # steepest descent in the Cartesian metric: G^-1 grad_u
        downhill = cartesian_from_coords(noisy, _raised(noisy, by_coords, lattices), lattices=lattices) * unit
        push = -_variance(coord_level, COORD_SPREAD)[crystal][:, None] * downhill
        length = torch.linalg.vector_norm(push, dim=1, keepdim=True).clamp(min=1e-12)
        push = push * (MOST_COORD_CHANGE / length).clamp(max=1)
        return GuidedGeometry(guess.displacements + push.to(guess.displacements.dtype), moved)

    return guide


def _variance(level: Float[Tensor, "n"], spread: float) -> Float[Tensor, "n"]:
    return spread**2 * level**2 / ((1 - level) ** 2 * spread**2 + level**2).clamp(min=1e-12)


def _raised(
    batch: CrystalBatch, gradient: Float[Tensor, "orbits 3"], lattices: Float[Tensor, "crystals 3 3"]
) -> Float[Tensor, "orbits 3"]:
    """The change of u along which a function with this gradient in u grows fastest in Cartesian distance."""
    frame = lattices.mT[batch.orbit_to_crystal] @ batch.tables["basis"][batch.position_ids]
    unused = torch.arange(3, device=batch.device) >= batch.num_free[:, None]
    metric = frame.mT @ frame + torch.diag_embed(unused.to(frame.dtype))
    used = gradient * ~unused
    return torch.linalg.solve(metric, used[:, :, None])[:, :, 0]
