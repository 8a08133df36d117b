"""Several geometries on each template, and the one the network believes in most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nucleate.crystal.batch import CrystalBatch
from nucleate.generation.geometry_sampling import network_denoiser
from nucleate.models.orbit_transformer import OrbitTransformer
from nucleate.processes.choice import ProcessChoice
from nucleate.processes.denoising_error import NOISE_LEVELS, denoising_error, replace_where
from nucleate.processes.geometry_flow import GeometryFlow
from nucleate.processes.geometry_process import GeometryNoise
from nucleate.processes.sampler import GivenGeometry, Guide, sample_geometry
from nucleate.shapes import Float


def likeliest_geometry(
    network: OrbitTransformer,
    process: ProcessChoice | GeometryFlow,
    templates: CrystalBatch,
    streams: Sequence[torch.Generator],
    *,
    candidates: int = 1,
    lattice_temperature: float = 1.0,
    source: int = 0,
    mixed_precision: bool = False,
    steps: int = 40,
    lattice_params: Float[Tensor, "crystals 6"] | None = None,
    guide: Guide | None = None,
    on_step: Callable[[], None] | None = None,
) -> tuple[CrystalBatch, Float[Tensor, "crystals"]]:
    """(crystals on the templates, denoising error of each): of every crystal's candidates the one with the least error.

    Args:
        network: in evaluation mode.
        process: the noise it was trained with, and the schedule and solver to sample it with (for a bare flow Euler
            steps).
        templates: groups, positions and elements; the geometry is not read.
        streams: one per crystal; the first candidate takes the same numbers however many follow.
        candidates: geometries drawn for each crystal.
        lattice_temperature: scale of the lattice noise the flow starts from; below 1 the cells are more typical.
        source: data source token of all.
        mixed_precision: matrix products in bfloat16.
        steps: passes of the network for each candidate.
        lattice_params: given lattices.
        guide: improves every guess (``processes.guidance``).
        on_step: called after each pass that samples, ``candidates * steps`` times.
    """
    choice = process if isinstance(process, ProcessChoice) else ProcessChoice.of_flow(process)
    starts = [GeometryNoise.draw_by_crystal(templates, list(streams)) for _ in range(candidates)]
    starts = [replace(start, normals=start.normals * lattice_temperature) for start in starts]
    # All candidates of a crystal are judged with the same noises: their errors then differ by what they are.
    noises = [GeometryNoise.draw_by_crystal(templates, list(streams)) for _ in NOISE_LEVELS]
    denoiser = network_denoiser(network, source=source, mixed_precision=mixed_precision)
    best: CrystalBatch | None = None
    least = torch.empty(0)
    for start in starts:
        sampled = sample_geometry(
            choice.process,
            templates,
            denoiser,
            noise=start,
            steps=steps,
            solver=choice.solver,
            schedule=choice.schedule,
            given=None if lattice_params is None else GivenGeometry.lattices(templates, lattice_params),
            streams=list(streams),
            guide=guide,
            lattice_variance=choice.lattice_variance,
            on_step=on_step,
        )
        error = denoising_error(
            choice.process, sampled, denoiser, noises=noises, lattice_given=lattice_params is not None
        )
        if best is None:
            best, least = sampled, error
        else:
            better = error < least
            best, least = replace_where(better, best, sampled), torch.where(better, error, least)
    assert best is not None
    return best, least
