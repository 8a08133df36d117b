"""Lattices and free coordinates on given templates, by the geometry network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from nucleate.crystal.batch import CrystalBatch
from nucleate.crystal.lattice_torch import MAX_LATTICE_PARAMS
from nucleate.models.orbit_transformer import NoisyCrystals, OrbitTransformer
from nucleate.processes.geometry_flow import GeometryFlow, GeometryNoise
from nucleate.processes.template_process import SampledTemplate
from nucleate.shapes import Float

MAX_EDGES = 60_000
"""Most edges of the neighbour graph in one pass of the network, estimated; about 1 kB of memory each per layer."""


def template_batch(
    templates: Sequence[SampledTemplate], *, dtype: torch.dtype = torch.float32
) -> CrystalBatch:
    """The templates as a batch whose geometry is still to come (zeros)."""
    num_orbits = np.array([len(t.wyckoff_indices) for t in templates], dtype=np.int64)
    return CrystalBatch.from_arrays(
        space_group_number=np.array([t.space_group_number for t in templates], dtype=np.int64),
        lattice_params=np.zeros((len(templates), MAX_LATTICE_PARAMS)),
        num_orbits=num_orbits,
        wyckoff_indices=np.concatenate([t.wyckoff_indices for t in templates]),
        atomic_numbers=np.concatenate([t.atomic_numbers for t in templates]),
        free_coords=np.zeros((int(num_orbits.sum()), 3)),
        dtype=dtype,
    )


def passes_by_size(templates: CrystalBatch, *, radius: float, max_edges: int = MAX_EDGES) -> list[list[int]]:
    """Crystals to sample together, similar sizes side by side, each pass within the number of edges."""
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


@torch.no_grad()
def sample_geometry(
    network: OrbitTransformer,
    flow: GeometryFlow,
    templates: CrystalBatch,
    noise: GeometryNoise,
    *,
    source: int = 0,
    steps: int = 40,
    lattice_params: Float[Tensor, "crystals 6"] | None = None,
    on_step: Callable[[], None] | None = None,
) -> CrystalBatch:
    """Crystals on the templates: the probability flow from noise (t = 1) to data (t = 0) by Euler steps.

    Args:
        network: in evaluation mode.
        flow: the noise it was trained with.
        templates: groups, positions and elements; the geometry is not read.
        noise: where the flow starts.
        source: data source token of all.
        steps: passes of the network.
        lattice_params: given lattices, clean at every step; only the coordinates then flow.
        on_step: called after each.
    """
    x = flow.prior(templates, noise)
    token = torch.full((len(x),), source, dtype=torch.int64, device=x.device)
    times = torch.linspace(1, 0, steps + 1).tolist()
    for now, then in pairwise(times):
        time = torch.full((len(x),), now, dtype=x.dtype, device=x.device)
        lattice_time = time
        if lattice_params is not None:
            x, lattice_time = x.replace(lattice_params=lattice_params), torch.zeros_like(time)
        guess = network(NoisyCrystals(x, time, lattice_time, token))
        x = flow.step(x, guess, fraction=(now - then) / now)
        if on_step is not None:
            on_step()
    return x if lattice_params is None else x.replace(lattice_params=lattice_params)
