"""Several geometries on each template, and the one the network believes in most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from nucleate.crystal.batch import CrystalBatch
from nucleate.generation.geometry_sampling import SharedNeighbours, network_denoiser
from nucleate.models.orbit_transformer import OrbitTransformer
from nucleate.processes.autoguidance import autoguided
from nucleate.processes.choice import ProcessChoice
from nucleate.processes.denoising_error import NOISE_LEVELS, denoising_error, replace_where
from nucleate.processes.geometry_flow import GeometryFlow
from nucleate.processes.geometry_process import GeometryNoise
from nucleate.processes.sampler import GivenGeometry, Guide, sample_geometry
from nucleate.shapes import Float

RESTART_LEVEL = 0.4
"""Noise level a finished geometry is brought back to: low enough to keep what is right, high enough to move atoms to
other places (docs/weights.md)."""

LAST_RESTART = 3
"""How many times finer the last restart is."""


def num_passes(steps: int, restarts: int) -> int:
    """Passes of the network for one candidate."""
    return steps + sum(_restart_steps(steps, restarts))


def _restart_steps(steps: int, restarts: int) -> list[int]:
    """Steps of each restart, as long as those of the first way; the last one, which places atoms finely, takes more."""
    short = max(1, round(RESTART_LEVEL * steps))
    return [short] * (restarts - 1) + [LAST_RESTART * short] * (restarts > 0)


def likeliest_geometry(
    network: OrbitTransformer,
    process: ProcessChoice | GeometryFlow,
    templates: CrystalBatch,
    streams: Sequence[torch.Generator],
    *,
    weak: OrbitTransformer | None = None,
    autoguidance: float = 0.0,
    restarts: int = 0,
    candidates: int = 1,
    lattice_temperature: float = 1.0,
    source: int = 0,
    mixed_precision: bool = False,
    steps: int = 40,
    given: GivenGeometry | None = None,
    guide: Guide | None = None,
    on_step: Callable[[], None] | None = None,
) -> tuple[CrystalBatch, Float[Tensor, "crystals"]]:
    """(crystals on the templates, denoising error of each): of every crystal's candidates the one with the least error.

    Where the whole geometry is given there is nothing to sample, and the error is that of the given one.

    Args:
        network: in evaluation mode.
        process: the noise it was trained with, and the schedule and solver to sample it with (for a bare flow Euler
            steps).
        templates: groups, positions and elements; the geometry is not read.
        streams: one per crystal; the first candidate takes the same numbers however many follow.
        weak: network that autoguidance leads away from (``processes.autoguidance``), in evaluation mode.
        autoguidance: how far; 0 does without.
        restarts: times that a finished geometry gets noise of the level 0.4 and is denoised again. The distribution
            stays what it is, errors of the first way are forgotten (Xu et al., Restart sampling for improving
            generative processes, 2023).
        candidates: geometries drawn for each crystal.
        lattice_temperature: scale of the lattice noise the flow starts from; below 1 the cells are more typical.
        source: data source token of all.
        mixed_precision: matrix products in bfloat16.
        steps: passes of the network from noise to crystal, for each candidate.
        given: lattices (of all crystals or none) and coordinates of orbits that are given.
        guide: improves every guess (``processes.guidance``).
        on_step: called after each pass that samples, ``candidates * num_passes(steps, restarts)`` times.
    """
    choice = process if isinstance(process, ProcessChoice) else ProcessChoice.of_flow(process)
    begins = [
        [GeometryNoise.draw_by_crystal(templates, list(streams)) for _ in range(1 + restarts)]
        for _ in range(candidates)
    ]
    # All candidates of a crystal are judged with the same noises: their errors then differ by what they are.
    noises = [GeometryNoise.draw_by_crystal(templates, list(streams)) for _ in NOISE_LEVELS]
    ask = partial(network_denoiser, source=source, mixed_precision=mixed_precision, shared=SharedNeighbours())
    denoiser = guided = ask(network)
    if weak is not None:
        guided = autoguided(denoiser, ask(weak), autoguidance)
    sample = partial(
        sample_geometry,
        choice.process,
        templates,
        guided,
        solver=choice.solver,
        schedule=choice.schedule,
        given=given,
        streams=list(streams),
        guide=guide,
        lattice_variance=choice.lattice_variance,
        on_step=on_step,
    )
    level = torch.full((len(templates),), RESTART_LEVEL, dtype=templates.dtype, device=templates.device)
    lattice_given = given is not None and bool(given.lattice_known.all())
    lattice_level = torch.zeros_like(level) if lattice_given else level
    judged = partial(
        denoising_error, choice.process, denoiser=denoiser, noises=noises, lattice_given=lattice_given
    )
    if given is not None and given.is_whole(templates):
        known = given.imposed_on(templates)
        return known, judged(known)
    best: CrystalBatch | None = None
    least = torch.empty(0)
    for first, *later in begins:
        sampled = sample(noise=replace(first, normals=first.normals * lattice_temperature), steps=steps)
        for noise, short in zip(later, _restart_steps(steps, restarts), strict=True):
            sampled = sample(
                noise=noise,
                start=choice.process.corrupt(sampled, level, lattice_level, noise).crystals,
                start_level=RESTART_LEVEL,
                steps=short,
            )
        error = judged(sampled)
        if best is None:
            best, least = sampled, error
        else:
            better = error < least
            best, least = replace_where(better, best, sampled), torch.where(better, error, least)
    assert best is not None
    return best, least
