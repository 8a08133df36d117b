"""The wrapped normal on the Wyckoff torus: noise of free coordinates, and what is known of where it came from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from nucleate.crystal.batch import CrystalBatch, ragged_rows
from nucleate.crystal.lattice import lattice_subspace
from nucleate.crystal.tables import group_names
from nucleate.processes.wyckoff_torus import coords_from_cartesian, orbit_copies, period_vectors
from nucleate.shapes import Float, Int

UNIFORM_TO = 1e-3
"""How far the widest noise is from uniform along any period: the largest coefficient of a Fourier mode."""

SWITCH = 0.55
"""Widths (in units of the widest mode's length) above which densities are summed over modes, not copies."""

_COPIES_WITHIN = 5.0
"""Standard deviations within which copies are added up.

One beyond weighs less than ``exp((r^2 - 25) / 2)`` of the nearest, which is r standard deviations away. ln p was seen
right to 3e-5 where r < 3 and to 2e-4 where r < 4. Where r > 5 copies as near as the nearest can be missed, along skew
periods the nearest itself, and ln p is far too low: noise gets there once in 60,000 times or less.
"""

_MODES_ABOVE = 1e-6


@cache
def _references(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Reference lattice (volume 1) of every group."""
    cells = [lattice_subspace(entry["lattice_system"]).reference for entry in group_names()]
    return torch.tensor(np.array(cells), dtype=torch.float64).to(device, dtype)


def reference_lattices(batch: CrystalBatch) -> Float[Tensor, "crystals 3 3"]:
    """The fixed cell of each crystal's lattice system (cube, or hexagonal with c = a), 1 Å^3 per atom.

    The metric of noise: it depends on group and number of atoms only, so sampling knows it before any geometry.
    """
    cells = _references(batch.device, batch.dtype)[batch.space_group_number - 1]
    return cells * (batch.num_atoms.to(batch.dtype).log() / 3).exp()[:, None, None]


def normal_coords(batch: CrystalBatch, normals: Float[Tensor, "orbits 3"]) -> Float[Tensor, "orbits 3"]:
    """Changes of u with unit covariance in the Cartesian tangent space of each orbit, in the reference metric.

    The same noise for every atom whatever the multiplicity, in units of (volume per atom)^(1/3).
    """
    return coords_from_cartesian(batch, normals, lattices=reference_lattices(batch))


def normals_of_uniforms(uniforms: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Standard normal numbers from uniform ones in [0, 1), by the inverse of the distribution function."""
    eps = torch.finfo(uniforms.dtype).eps
    return torch.special.ndtri(uniforms.clamp(eps, 1 - eps))


@dataclass(frozen=True, eq=False)
class _Frames:
    """Period lattices of orbits in the reference metric, Cartesian: columns of ``periods``, rows of ``modes``."""

    periods: Float[Tensor, "orbits 3 3"]
    modes: Float[Tensor, "orbits 3 3"]


def _frames(batch: CrystalBatch) -> _Frames:
    basis = batch.tables["basis"][batch.position_ids]
    frame = reference_lattices(batch).mT[batch.orbit_to_crystal] @ basis
    period, used = period_vectors(batch)
    columns = frame @ period  # (3, d): Cartesian vectors of the reduced period basis, zero beyond d
    normal = columns.mT @ columns + torch.diag_embed((~used).to(columns.dtype))
    dual = torch.linalg.solve(normal, columns.mT)  # rows: k_i . L_j = delta_ij in the tangent space
    return _Frames(columns, dual * used[:, :, None])


def widest_noise(batch: CrystalBatch) -> Float[Tensor, "crystals"]:
    """Standard deviation (units of (volume per atom)^(1/3)) at which every orbit of a crystal is as good as uniform.

    A normal of width s wrapped on a torus has Fourier coefficients ``2 exp(-2 pi^2 s^2 |k|^2)``; that of the shortest
    dual vector k falls below ``UNIFORM_TO`` at ``s = sqrt(ln(2 / UNIFORM_TO) / 2) / (pi |k|)``. One value per
    crystal, that of its longest period, so that all atoms have the same noise; 1 where nothing can move.
    """
    modes = _frames(batch).modes
    d = batch.num_free
    combinations = torch.cartesian_prod(*[torch.arange(-1, 2, device=batch.device)] * 3).to(batch.dtype)
    used = torch.arange(3, device=batch.device) < d[:, None]
    # a combination that reaches beyond the d used rows repeats a shorter one, or is zero
    proper = (combinations.abs() * ~used[:, None, :]).sum(dim=2) + (combinations == 0).all(dim=1) == 0
    lengths = torch.linalg.vector_norm(combinations @ modes, dim=2)
    shortest = torch.where(proper, lengths, torch.inf).amin(dim=1)
    width = math.sqrt(math.log(2 / UNIFORM_TO) / 2) / (math.pi * shortest)
    width = torch.where(d > 0, width, torch.zeros_like(width))
    most = torch.zeros(len(batch), dtype=width.dtype, device=width.device)
    most = most.scatter_reduce(0, batch.orbit_to_crystal, width, "amax")
    return torch.where(most > 0, most, torch.ones_like(most))


@dataclass(frozen=True, eq=False)
class WrappedPosterior:
    """What is known of a clean orbit from a noisy one.

    Attributes:
        displacement: mean over all copies of (copy - noisy u): ``sigma^2`` times the score, as a change of u.
        log_density: log of the wrapped density at the noisy u, relative to the uniform one.
    """

    displacement: Float[Tensor, "orbits 3"]
    log_density: Float[Tensor, "orbits"]


@torch.no_grad()
def wrapped_posterior(
    noisy: CrystalBatch, clean_coords: Float[Tensor, "orbits 3"], sigma: Float[Tensor, "crystals"]
) -> WrappedPosterior:
    """Mean displacement back and density of the wrapped normal around the clean orbits.

    The clean orbit stands at every copy ``M u + v`` (identification maps M, v) and every period. With r the Cartesian
    vectors from the noisy point to all copies in the reference metric,

        p / p_uniform = (V / m) sum_maps sum_periods (2 pi sigma^2)^(-d/2) exp(-|r|^2 / 2 sigma^2)
                      = (1 / m) sum_maps sum_k exp(-2 pi^2 sigma^2 |k|^2) cos(2 pi k . r_0) ,

    V the volume of the period cell, m the number of maps. The first sum is taken where sigma is small, the second
    where it is large; the displacement is ``sigma^2 grad log p`` of the same sum.

    Source: Jing et al., Torsional diffusion (2022), appendix B; Jiao et al., DiffCSP (2023), appendix A.
    """
    copies = orbit_copies(noisy, clean_coords)
    frames = _frames(noisy)
    count = len(noisy.position_ids)
    width = sigma.to(noisy.dtype)[noisy.orbit_to_crystal]
    lengths = torch.linalg.vector_norm(frames.modes, dim=2)
    lengths = torch.where(lengths > 0, lengths, torch.inf).amin(dim=1)
    smooth = (width * lengths > SWITCH)[copies.orbit]
    density, log_front, number = (torch.zeros_like(width) for _ in range(3))
    pull = torch.zeros(count, 3, dtype=noisy.dtype, device=noisy.device)
    for chosen, find in ((~smooth, _copy_terms), (smooth, _mode_terms)):
        rows = torch.nonzero(chosen)[:, 0]
        terms = find(copies.orbit[rows], copies.coefficients[rows], frames, width, noisy)
        density = density.index_add(0, terms.orbit, terms.weight)
        pull = pull.index_add(0, terms.orbit, terms.weighted)
        log_front = log_front + terms.log_front
    number = number.index_add(0, copies.orbit, torch.ones_like(copies.coefficients[:, 0]))
    density = density.clamp(min=torch.finfo(noisy.dtype).tiny)
    displacement = coords_from_cartesian(noisy, pull / density[:, None], lattices=reference_lattices(noisy))
    free = noisy.num_free > 0
    log_density = torch.where(free, (density / number).log() + log_front, torch.zeros_like(density))
    return WrappedPosterior(displacement * free[:, None], log_density)


@dataclass(frozen=True, eq=False)
class _Terms:
    """Terms of a sum over copies or modes: ``exp(log_front[orbit]) x weight`` adds up to the density."""

    orbit: Int[Tensor, "terms"]
    weight: Float[Tensor, "terms"]
    weighted: Float[Tensor, "terms 3"]
    log_front: Float[Tensor, "orbits"]


def _copy_terms(
    orbit: Int[Tensor, "copies"],
    inside: Float[Tensor, "copies 3"],
    frames: _Frames,
    width: Float[Tensor, "orbits"],
    batch: CrystalBatch,
) -> _Terms:
    """Every copy within reach; ``inside`` counts periods from the noisy point."""
    spacing = 1 / torch.linalg.vector_norm(frames.modes, dim=2).clamp(min=1e-12)
    used = torch.arange(3, device=batch.device) < batch.num_free[:, None]
    reach = torch.floor(_COPIES_WITHIN * width[:, None] / spacing + 0.5) * used
    row, shift = _boxes(reach.long()[orbit], batch.dtype)
    vectors = (frames.periods[orbit][row] @ (inside[row] + shift)[:, :, None])[:, :, 0]
    exponent = -(vectors**2).sum(dim=1) / (2 * width[orbit][row] ** 2)
    # relative to the nearest copy, which keeps the sum finite however narrow the normal is
    peak = torch.full_like(width, -torch.inf).scatter_reduce(0, orbit[row], exponent, "amax")
    weight = torch.exp(exponent - peak[orbit[row]])
    metric = frames.modes @ frames.modes.mT + torch.diag_embed((~used).to(width.dtype))
    log_volume = -0.5 * torch.linalg.slogdet(metric).logabsdet
    log_front = peak + log_volume - batch.num_free / 2 * torch.log(2 * math.pi * width**2)
    log_front = torch.where(torch.isfinite(peak), log_front, torch.zeros_like(peak))
    return _Terms(orbit[row], weight, weight[:, None] * vectors, log_front)


def _mode_terms(
    orbit: Int[Tensor, "copies"],
    inside: Float[Tensor, "copies 3"],
    frames: _Frames,
    width: Float[Tensor, "orbits"],
    batch: CrystalBatch,
) -> _Terms:
    """Every Fourier mode that still counts."""
    used = torch.arange(3, device=batch.device) < batch.num_free[:, None]
    longest = math.sqrt(-math.log(_MODES_ABOVE) / (2 * math.pi**2)) / width
    lengths = torch.linalg.vector_norm(frames.periods, dim=1)
    reach = torch.floor(longest[:, None] * lengths) * used
    row, number = _boxes(reach.long()[orbit], batch.dtype)
    mode = (number[:, None, :] @ frames.modes[orbit][row])[:, 0]
    phase = 2 * math.pi * (number * inside[row]).sum(dim=1)
    variance = width[orbit][row] ** 2
    size = torch.exp(-2 * math.pi**2 * variance * (mode**2).sum(dim=1))
    # r runs from the noisy point to the copy: sigma^2 times the slope of cos(2 pi k . r) against the noisy point
    vector = (2 * math.pi * variance * size * phase.sin())[:, None] * mode
    return _Terms(orbit[row], size * phase.cos(), vector, torch.zeros_like(width))


def _boxes(
    reach: Int[Tensor, "rows 3"], dtype: torch.dtype
) -> tuple[Int[Tensor, "points"], Float[Tensor, "points 3"]]:
    """(row, integer vector) of every point of the boxes [-reach, reach]."""
    sizes = 2 * reach + 1
    row, nth = ragged_rows(sizes.prod(dim=1))
    size = sizes[row]
    points = torch.stack(
        [nth // (size[:, 1] * size[:, 2]), nth // size[:, 2] % size[:, 1], nth % size[:, 2]], dim=1
    )
    return row, (points - reach[row]).to(dtype)
