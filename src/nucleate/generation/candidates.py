"""Several geometries on each template, and the one the network believes in most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from nucleate.crystal.batch import CrystalBatch
from nucleate.generation.geometry_sampling import (
    LEAST_CRYSTALS,
    SharedNeighbours,
    filled_up,
    network_denoiser,
)
from nucleate.models.orbit_transformer import OrbitTransformer
from nucleate.processes.autoguidance import autoguided
from nucleate.processes.choice import ProcessChoice
from nucleate.processes.denoising_error import NOISE_LEVELS, denoising_error, replace_where
from nucleate.processes.geometry_flow import GeometryFlow
from nucleate.processes.geometry_process import GeometryDenoiser, GeometryNoise
from nucleate.processes.sampler import GivenGeometry, Guide, sample_geometry
from nucleate.processes.solver import find_solver
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
    judges: Sequence[torch.Generator] | None = None,
    weak: OrbitTransformer | None = None,
    autoguidance: float = 0.0,
    restarts: int = 0,
    candidates: int = 1,
    lattice_temperature: float = 1.0,
    source: int = 0,
    mixed_precision: bool = False,
    steps: int = 40,
    given: GivenGeometry | None = None,
    judge_given: bool = False,
    guide_for: Callable[[CrystalBatch], Guide | None] | None = None,
    on_step: Callable[[], None] | None = None,
) -> tuple[CrystalBatch, Float[Tensor, "crystals"]]:
    """(crystals on the templates, denoising error of each): of every crystal's candidates the one with the least error.

    Where the whole geometry is given there is nothing to sample, and the error is that of the given one. No pass is
    smaller than ``LEAST_CRYSTALS``: candidates of few crystals go through it together (as long as the solver draws no
    noise of its own), and copies fill what is left.

    Args:
        network: in evaluation mode.
        process: the noise it was trained with, and the schedule and solver to sample it with (for a bare flow Euler
            steps).
        templates: groups, positions and elements; the geometry is not read.
        streams: one per crystal; the first candidate takes the same numbers however many follow.
        judges: streams of the noise that errors are measured with, by default the same ones after all candidates.
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
        judge_given: whether given lattices get noise too where errors are measured, and count.
        guide_for: what improves every guess (``processes.guidance``), for crystals on given templates.
        on_step: called ``candidates * num_passes(steps, restarts)`` times, after each pass that samples once for each
            candidate in it, and as often where there is nothing to sample.
    """
    choice = process if isinstance(process, ProcessChoice) else ProcessChoice.of_flow(process)
    begins = [
        [GeometryNoise.draw_by_crystal(templates, list(streams)) for _ in range(1 + restarts)]
        for _ in range(candidates)
    ]
    # All candidates of a crystal are judged with the same noises: their errors then differ by what they are.
    noises = [GeometryNoise.draw_by_crystal(templates, list(judges or streams)) for _ in NOISE_LEVELS]
    ask = partial(network_denoiser, source=source, mixed_precision=mixed_precision, shared=SharedNeighbours())
    denoiser = guided = ask(network)
    if weak is not None:
        guided = autoguided(denoiser, ask(weak), autoguidance)
    left_out = given is not None and not judge_given and bool(given.lattice_known.all())
    judged = partial(denoising_error, choice.process, denoiser=denoiser, lattice_given=left_out)
    size, device = len(templates), templates.device
    stochastic = find_solver(choice.solver).stochastic
    most = 1 if stochastic else -(-LEAST_CRYSTALS // size)
    best: CrystalBatch | None = None
    least = torch.empty(0)
    for at in range(0, candidates, most):
        tried = begins[at : at + most]
        crystals = torch.arange(size, device=device).repeat(len(tried))
        filled = torch.tensor(filled_up(list(range(len(crystals)))), device=device)
        tiled, rows = templates[crystals], crystals[filled]
        batch, known = templates[rows], None if given is None else given.of(templates, rows)
        noises_of = [noise.of(templates, rows) for noise in noises]
        step = None if on_step is None else partial(_repeated, on_step, len(tried))
        if known is not None and known.is_whole(batch):
            sampled = known.imposed_on(batch)
            if step is not None:
                _repeated(step, num_passes(steps, restarts))
        else:
            sampled = _sampled(
                choice,
                batch,
                guided,
                [_joined(noise).of(tiled, filled) for noise in zip(*tried, strict=True)],
                restarts=restarts,
                lattice_temperature=lattice_temperature,
                steps=steps,
                given=known,
                streams=_with_copies(streams, len(rows)) if stochastic else None,
                guide=None if guide_for is None else guide_for(batch),
                on_step=step,
            )
        errors = judged(sampled, noises=noises_of)
        for k in range(len(tried)):
            mine = slice(k * size, (k + 1) * size)
            if best is None:
                best, least = sampled[mine], errors[mine]
            else:
                better = errors[mine] < least
                best, least = (
                    replace_where(better, best, sampled[mine]),
                    torch.where(better, errors[mine], least),
                )
    assert best is not None
    return best, least


def _sampled(
    choice: ProcessChoice,
    templates: CrystalBatch,
    denoiser: GeometryDenoiser,
    noises: Sequence[GeometryNoise],
    *,
    restarts: int,
    lattice_temperature: float,
    steps: int,
    given: GivenGeometry | None,
    streams: list[torch.Generator] | None,
    guide: Guide | None,
    on_step: Callable[[], None] | None,
) -> CrystalBatch:
    """One geometry on each template: the first way and the restarts, a noise for each."""
    sample = partial(
        sample_geometry,
        choice.process,
        templates,
        denoiser,
        solver=choice.solver,
        schedule=choice.schedule,
        given=given,
        streams=streams,
        guide=guide,
        lattice_variance=choice.lattice_variance,
        on_step=on_step,
    )
    first, *later = noises
    sampled = sample(noise=replace(first, normals=first.normals * lattice_temperature), steps=steps)
    level = torch.full((len(templates),), RESTART_LEVEL, dtype=templates.dtype, device=templates.device)
    lattice_level = level if given is None else torch.where(given.lattice_known, 0, level)
    for noise, short in zip(later, _restart_steps(steps, restarts), strict=True):
        sampled = sample(
            noise=noise,
            start=choice.process.corrupt(sampled, level, lattice_level, noise).crystals,
            start_level=RESTART_LEVEL,
            steps=short,
        )
    return sampled


def _joined(noises: Sequence[GeometryNoise]) -> GeometryNoise:
    """Noises of one batch, one after the other."""
    return GeometryNoise(torch.cat([n.uniforms for n in noises]), torch.cat([n.normals for n in noises]))


def _with_copies(streams: Sequence[torch.Generator], size: int) -> list[torch.Generator]:
    """The streams, and copies of the first one up to a size: what copies draw is not taken from it."""
    copies = [torch.Generator() for _ in range(size - len(streams))]
    for copy in copies:
        copy.set_state(streams[0].get_state())
    return [*streams, *copies]


def _repeated(call: Callable[[], None], times: int) -> None:
    for _ in range(times):
        call()
