"""The manifold of free coordinates: a torus per orbit, folded by the maps that give the same orbit."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from nucleate.crystal.batch import CrystalBatch, ragged_rows
from nucleate.crystal.lattice import lattice_subspace
from nucleate.crystal.tables import group_arrays, group_names
from nucleate.shapes import Bool, Float, Int


@cache
def _torus_tensors(device: torch.device, dtype: torch.dtype) -> Mapping[str, Tensor]:
    arrays = group_arrays()
    used = np.arange(3) < arrays["num_free"][:, None]
    period = _reduced_periods()
    inverse = np.linalg.inv(period + np.eye(3) * ~used[:, None, :]) * used[:, None, :] * used[:, :, None]
    floats = {
        "period": period,
        "inverse_period": inverse,
        "map_linear": arrays["map_linear"],
        "map_shift": arrays["map_shift"],
        "basis_inverse": np.linalg.pinv(arrays["basis"]),
        "neighbours": np.array(list(itertools.product((-1, 0, 1), repeat=3)), dtype=float),
    }
    tensors = {
        name: torch.tensor(value, dtype=torch.float64).to(device, dtype) for name, value in floats.items()
    }
    tensors["map_start"] = torch.tensor(arrays["map_start"][:-1], dtype=torch.int64, device=device)
    tensors["num_maps"] = torch.tensor(np.diff(arrays["map_start"]), dtype=torch.int64, device=device)
    return tensors


@cache
def _reduced_periods() -> Float[np.ndarray, "positions 3 3"]:
    """Period lattice of every position with the shortest basis in the reference metric of its lattice system.

    In two and three dimensions the successive shortest independent vectors are a basis; integer coefficients up to 3
    reach them from the stored one.
    """
    arrays, names = group_arrays(), group_names()
    periods = np.zeros_like(arrays["period"])
    for p, (d, number) in enumerate(zip(arrays["num_free"], arrays["position_group"])):
        if d == 0:
            continue
        reference = lattice_subspace(names[number - 1]["lattice_system"]).reference
        coefficients = np.array(list(itertools.product(range(-3, 4), repeat=int(d))))
        vectors = coefficients @ arrays["period"][p, :d, :d].T
        lengths = np.linalg.norm(vectors @ arrays["basis"][p, :, :d].T @ reference, axis=1)
        chosen: list[int] = []
        for i in np.argsort(np.round(lengths, 9), kind="stable"):
            if np.linalg.matrix_rank(coefficients[[*chosen, i]]) == len(chosen) + 1:
                chosen.append(int(i))
            if len(chosen) == d:
                break
        periods[p, :d, :d] = vectors[chosen].T
    return periods


def uniform_coords(batch: CrystalBatch, uniforms: Float[Tensor, "orbits 3"]) -> Float[Tensor, "orbits 3"]:
    """Free coordinates uniform over the true cell of u, the period lattice, from uniforms in [0, 1)."""
    period = _torus_tensors(batch.device, batch.dtype)["period"][batch.position_ids]
    return (period @ uniforms[:, :, None])[:, :, 0]


def wrap(batch: CrystalBatch, displacement: Float[Tensor, "orbits 3"]) -> Float[Tensor, "orbits 3"]:
    """A displacement of u modulo the period lattice, each coefficient in [-1/2, 1/2]."""
    tables = _torus_tensors(batch.device, batch.dtype)
    period, inverse = tables["period"][batch.position_ids], tables["inverse_period"][batch.position_ids]
    inside = (inverse @ displacement[:, :, None])[:, :, 0]
    return (period @ (inside - inside.round())[:, :, None])[:, :, 0]


@dataclass(frozen=True, eq=False)
class OrbitCopies:
    """Every copy of the target orbits, as seen from the orbits of a batch.

    Attributes:
        orbit: orbit each copy belongs to, ascending.
        coefficients: where it stands from the batch's orbit, in periods, each in [-1/2, 1/2].
    """

    orbit: Int[Tensor, "copies"]
    coefficients: Float[Tensor, "copies 3"]


def orbit_copies(batch: CrystalBatch, target: Float[Tensor, "orbits 3"]) -> OrbitCopies:
    """The copies of the target orbits under every map ``u -> M u + v`` that gives the same orbit, modulo periods."""
    tables = _torus_tensors(batch.device, batch.dtype)
    ids = batch.position_ids
    orbit, nth = ragged_rows(tables["num_maps"][ids])
    entry = tables["map_start"][ids][orbit] + nth
    copies = (tables["map_linear"][entry] @ target[orbit][:, :, None])[:, :, 0] + tables["map_shift"][entry]
    delta = copies - batch.free_coords[orbit]
    inside = (tables["inverse_period"][ids][orbit] @ delta[:, :, None])[:, :, 0]
    return OrbitCopies(orbit, inside - inside.round())


def period_vectors(batch: CrystalBatch) -> tuple[Float[Tensor, "orbits 3 3"], Bool[Tensor, "orbits 3"]]:
    """(shortest period vectors of u of each orbit as columns, which of the three columns are used)."""
    period = _torus_tensors(batch.device, batch.dtype)["period"][batch.position_ids]
    return period, torch.arange(3, device=batch.device) < batch.num_free[:, None]


def log_map(
    batch: CrystalBatch, target: Float[Tensor, "orbits 3"], *, lattices: Float[Tensor, "crystals 3 3"]
) -> Float[Tensor, "orbits 3"]:
    """Displacement of u from the batch's orbits to the nearest copy of the target orbits.

    The nearest over the period lattice and over every map ``u -> M u + v`` that gives the same orbit,
    measured in the metric of ``lattices``.
    """
    tables = _torus_tensors(batch.device, batch.dtype)
    ids = batch.position_ids
    copies = orbit_copies(batch, target)
    orbit = copies.orbit
    period = tables["period"][ids][orbit]
    # rounding finds the nearest copy or, where periods are oblique, one of its neighbours
    inside = copies.coefficients[:, None, :] + tables["neighbours"]
    frame = lattices.mT[batch.orbit_to_crystal] @ batch.tables["basis"][ids]
    lengths = ((inside @ (frame[orbit] @ period).mT) ** 2).sum(dim=2)
    length, neighbour = lengths.min(dim=1)
    inside = inside[torch.arange(len(orbit), device=batch.device), neighbour]
    delta = (period @ inside[:, :, None])[:, :, 0]
    shortest = torch.full((len(ids),), torch.inf, dtype=length.dtype, device=batch.device)
    shortest = shortest.scatter_reduce(0, orbit, length, "amin")
    candidate = torch.where(
        length <= shortest[orbit], torch.arange(len(orbit), device=batch.device), len(orbit)
    )
    best = torch.full((len(ids),), len(orbit), dtype=torch.int64, device=batch.device)
    best = best.scatter_reduce(0, orbit, candidate, "amin")
    return delta[best]


def drift(
    batch: CrystalBatch,
    displacement: Float[Tensor, "orbits 3"],
    counted: Bool[Tensor, "orbits"] | None = None,
) -> Float[Tensor, "crystals 3"]:
    """The common shift along polar directions in a displacement of u, in fractions of the conventional cell.

    Args:
        batch: crystals.
        displacement: of u.
        counted: orbits whose atoms the mean is taken over, all by default; none of a crystal's have no drift.
    """
    tables = batch.tables
    ids, crystal = batch.position_ids, batch.orbit_to_crystal
    points = (tables["basis"][ids] @ displacement[:, :, None])[:, :, 0]
    mean = tables["mean_rotations"][batch.space_group_number - 1]
    atoms, weights = batch.num_atoms_primitive, batch.multiplicities
    if counted is not None:
        weights = weights * counted
        atoms = torch.zeros_like(atoms).index_add_(0, crystal, weights).clamp(min=1)
    share = weights.to(batch.dtype) / atoms[crystal]
    found = torch.zeros(len(batch), 3, dtype=points.dtype, device=points.device)
    return found.index_add_(0, crystal, (mean[crystal] @ points[:, :, None])[:, :, 0] * share[:, None])


def shifted(
    batch: CrystalBatch, displacement: Float[Tensor, "orbits 3"], shift: Float[Tensor, "crystals 3"]
) -> Float[Tensor, "orbits 3"]:
    """The displacement of u and a common shift along polar directions (fractions of the conventional cell)."""
    inverse = _torus_tensors(batch.device, batch.dtype)["basis_inverse"][batch.position_ids]
    return displacement + (inverse @ shift[batch.orbit_to_crystal][:, :, None])[:, :, 0]


def without_drift(batch: CrystalBatch, displacement: Float[Tensor, "orbits 3"]) -> Float[Tensor, "orbits 3"]:
    """The displacement of u without the common shift along polar directions, which only moves the origin."""
    return shifted(batch, displacement, -drift(batch, displacement))


def coords_from_cartesian(
    batch: CrystalBatch, vectors: Float[Tensor, "orbits 3"], *, lattices: Float[Tensor, "crystals 3 3"]
) -> Float[Tensor, "orbits 3"]:
    """Changes of u whose Cartesian displacement is nearest to the given vectors (Å), by least squares."""
    frame = lattices.mT[batch.orbit_to_crystal] @ batch.tables["basis"][batch.position_ids]
    unused = torch.arange(3, device=batch.device) >= batch.num_free[:, None]
    normal = frame.mT @ frame + torch.diag_embed(unused.to(frame.dtype))
    return torch.linalg.solve(normal, frame.mT @ vectors[:, :, None])[:, :, 0]


def cartesian_from_coords(
    batch: CrystalBatch, displacement: Float[Tensor, "orbits 3"], *, lattices: Float[Tensor, "crystals 3 3"]
) -> Float[Tensor, "orbits 3"]:
    """Cartesian displacement (Å) of each representative for a change of u."""
    frame = lattices.mT[batch.orbit_to_crystal] @ batch.tables["basis"][batch.position_ids]
    return (frame @ displacement[:, :, None])[:, :, 0]
