"""Lattices and free coordinates on given templates, by the geometry network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial

import numpy as np
import torch
from torch import Tensor

from nucleate.crystal.batch import CrystalBatch
from nucleate.errors import ConfigError
from nucleate.generation.condition import Condition
from nucleate.models.graph import image_pairs
from nucleate.models.orbit_transformer import Denoised, Neighbours, NoisyCrystals, OrbitTransformer
from nucleate.processes.bond_valence_penalty import BOND_RADIUS, bond_valence_penalty_of
from nucleate.processes.choice import ProcessChoice
from nucleate.processes.geometry_process import GeometryDenoiser
from nucleate.processes.guidance import GuidanceTerm, guide_by
from nucleate.processes.joint_process import GivenParts, given_geometry, template_batch
from nucleate.processes.penalties import (
    PAIR_RADIUS,
    REPULSION_RADIUS,
    Penalty,
    density_penalty,
    distance_penalty,
    energy_function,
    volume_penalty_of,
)
from nucleate.processes.sampler import GivenGeometry, Guide
from nucleate.processes.template_process import SampledTemplate

MAX_EDGES, MAX_EDGES_CPU = 500_000, 20_000
"""Most edges of the neighbour graph in one pass of the network, estimated; about 1 kB of memory each per layer.

An accelerator takes about as long for a few crystals as for a thousand. On a CPU fewer edges take a sixth less time,
since more of them stay in its cache."""

LEAST_CRYSTALS = 16
"""Fewest crystals in one pass. CPU libraries compute matrix products of few rows (up to 8 seen) in another order, and
torch the exponential of a single matrix. With more rows, in one thread, no row's result depends on the others: each
crystal is bitwise the same whatever it is sampled with."""


def passes_by_size(
    templates: CrystalBatch, *, radius: float, max_edges: int | None = None
) -> list[list[int]]:
    """Crystals to sample together, similar sizes side by side, each pass within the number of edges.

    By default as many as suit the device of the templates.
    """
    if max_edges is None:
        max_edges = MAX_EDGES_CPU if templates.device.type == "cpu" else MAX_EDGES
    per_orbit = 4 / 3 * math.pi * radius**3
    edges = (templates.num_orbits * per_orbit).tolist()
    order = sorted(range(len(edges)), key=lambda i: (edges[i], i))
    passes: list[list[int]] = []
    filled = math.inf
    for i in order:
        if filled + edges[i] > max_edges:
            passes.append([])
            filled = 0.0
        passes[-1].append(i)
        filled += edges[i]
    return passes


def filled_up(chosen: list[int]) -> list[int]:
    """The crystals of a pass and, where they are few, copies of the first (smallest) up to ``LEAST_CRYSTALS``."""
    return chosen + chosen[:1] * (LEAST_CRYSTALS - len(chosen))


class SharedNeighbours:
    """The neighbours in the crystals last looked at; networks that look at the same ones find them once."""

    def __init__(self) -> None:
        self._last: tuple[CrystalBatch, tuple[float, float | None], Neighbours] | None = None

    def of(self, crystals: CrystalBatch, network: OrbitTransformer) -> Neighbours:
        """The neighbours that a network sees in the crystals."""
        radii = network.config.radius, network.config.fixed_radius
        if self._last is None or self._last[0] is not crystals or self._last[1] != radii:
            self._last = crystals, radii, network.neighbours(crystals)
        return self._last[2]


def network_denoiser(
    network: OrbitTransformer,
    *,
    source: int = 0,
    mixed_precision: bool = False,
    shared: SharedNeighbours | None = None,
) -> GeometryDenoiser:
    """The network as processes ask it: noisy crystals and their levels in, a guess at the clean ones out.

    Args:
        network: in evaluation mode.
        source: data source token of all.
        mixed_precision: matrix products in bfloat16; positions, cells and the guess keep their type.
        shared: neighbours shared with other networks.
    """
    shared = shared or SharedNeighbours()

    def denoise(crystals: CrystalBatch, coord_level: Tensor, lattice_level: Tensor) -> Denoised:
        token = torch.full((len(crystals),), source, dtype=torch.int64, device=crystals.device)
        with torch.autocast(crystals.device.type, dtype=torch.bfloat16, enabled=mixed_precision):
            seen = NoisyCrystals(crystals, coord_level, lattice_level, token)
            guess = network(seen, shared.of(crystals, network))
        return Denoised(*(getattr(guess, field.name).to(crystals.dtype) for field in fields(Denoised)))

    return denoise


def given_parts(condition: Condition, templates: Sequence[SampledTemplate]) -> GivenGeometry | None:
    """The given cell and coordinates on each template, in float64; None where there are none."""
    orbits = condition.given_template
    if condition.cell is None and not orbits.has_coords:
        return None
    batch = template_batch(templates, dtype=torch.float64)
    coords = tuple(
        None if orbit.free_coords is None else np.array(orbit.free_coords) for orbit in orbits.orbits
    )
    cells = zip(batch.space_group_number.tolist(), batch.num_atoms.tolist(), strict=True)
    parts = [
        GivenParts(condition.lattice_params(number, num_atoms=num_atoms), coords)
        for number, num_atoms in cells
    ]
    return given_geometry(batch, parts)


def _volume_term(templates: CrystalBatch) -> Penalty:
    return volume_penalty_of(templates)


def _density_term(templates: CrystalBatch) -> Penalty:
    return density_penalty


def _distance_term(templates: CrystalBatch) -> Penalty:
    pairs = partial(image_pairs, radius=PAIR_RADIUS)
    return lambda crystals: distance_penalty(crystals, pairs(crystals)) * crystals.num_atoms_primitive


def _bond_valence_term(templates: CrystalBatch) -> Penalty:
    bonds = bond_valence_penalty_of(templates, partial(image_pairs, radius=BOND_RADIUS))
    return lambda crystals: bonds(crystals) * crystals.num_atoms_primitive


def _energy_term(name: str) -> Callable[[CrystalBatch], Penalty]:
    energy = energy_function(name, partial(image_pairs, radius=REPULSION_RADIUS))
    return lambda templates: lambda crystals: energy(crystals) * crystals.num_atoms_primitive


_TERMS: Mapping[str, Callable[[CrystalBatch], Penalty]] = {
    "distance": _distance_term,
    "volume": _volume_term,
    "density": _density_term,
    "bond_valence": _bond_valence_term,
}


def _find_term(name: str) -> Callable[[CrystalBatch], Penalty]:
    """templates -> the energy of a name (of the primitive cell) for crystals on them."""
    if name in _TERMS:
        return _TERMS[name]
    if name != "repulsion" and ":" not in name:
        raise ConfigError(
            f"There is no guidance {name!r}: it is {', '.join(_TERMS)}, repulsion, or the module:function of an energy"
        )
    return _energy_term(name)


def check_guidance(strengths: Mapping[str, float]) -> None:
    """Nothing, if every term is there and its strength can be used.

    Raises:
        ConfigError: there is no such term, or the strength is negative or no number.
    """
    for name, strength in strengths.items():
        _find_term(name)
        if not 0 <= strength < math.inf:
            raise ConfigError(
                f"The strength of the guidance {name!r} must be a number that is not negative, got {strength}"
            )


def make_guide(
    choice: ProcessChoice, templates: CrystalBatch, strengths: Mapping[str, float]
) -> Guide | None:
    """Guidance of these templates by soft physics, None where nothing is asked for.

    Args:
        choice: the process that is sampled.
        templates: what is sampled; their compositions say which volumes and valences are expected.
        strengths: of ``distance``, ``volume``, ``density``, ``bond_valence``, ``repulsion``, or of ``module:function``.

    Raises:
        ConfigError: there is no such term.
    """
    terms = [
        GuidanceTerm(_find_term(name)(templates), strength)
        for name, strength in strengths.items()
        if strength
    ]
    return guide_by(choice.process, terms, lattice_variance=choice.lattice_variance) if terms else None
