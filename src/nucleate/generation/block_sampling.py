"""The crystals of some random streams: templates, geometries on them, one row of checks each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from nucleate.crystal.crystal import Crystal
from nucleate.generation.candidates import likeliest_geometry, num_passes
from nucleate.generation.checks import GeneratedRow, check_crystal
from nucleate.generation.condition import Condition
from nucleate.generation.geometry_sampling import (
    given_parts,
    make_guide,
    passes_by_size,
)
from nucleate.generation.template_sampling import RankedTemplate, draw_templates
from nucleate.models.orbit_transformer import OrbitTransformer
from nucleate.models.template_transformer import TemplateTransformer
from nucleate.processes.choice import ProcessChoice
from nucleate.processes.joint_process import free_numbers, pick_by_error, template_batch
from nucleate.processes.template_process import SampledTemplate, TemplateTemperature

_FURTHER = 2
"""Third number of the seeds of a crystal's further templates; draws that are ranked have 1."""


@dataclass(frozen=True, eq=False)
class Networks:
    """What crystals are made with: networks in evaluation mode on their device, and the process they know."""

    geometry: OrbitTransformer
    weak: OrbitTransformer | None
    template: TemplateTransformer
    choice: ProcessChoice
    device: torch.device


@dataclass(frozen=True)
class SamplingSettings:
    """How crystals are sampled; see ``Generator.generate``. ``source`` is the token of the condition's source."""

    seed: int
    steps: int
    restarts: int
    autoguidance: float
    candidates: int
    temperature: TemplateTemperature
    charge_weight: float
    lattice_temperature: float
    source: int
    guidance: tuple[tuple[str, float], ...]
    mixed_precision: bool

    def of_templates(self) -> dict[str, Any]:
        """What ``draw_templates`` and ``ranked_templates`` are told."""
        return {
            "source": self.source,
            "temperature": self.temperature,
            "charge_weight": self.charge_weight,
        }


@dataclass(frozen=True)
class _Made:
    """A crystal, how far the network sends it away from itself, and how many of its numbers are given."""

    crystal: Crystal
    denoising_error: float
    num_given: int


def sampled_block(
    networks: Networks,
    condition: Condition,
    settings: SamplingSettings,
    ranking: Sequence[RankedTemplate],
    indices: list[int],
    report: Callable[[float], None],
) -> tuple[list[GeneratedRow], list[Crystal]]:
    """(rows, crystals) of some random streams, on ranked templates if there are any.

    Where given coordinates leave the template open (``Condition.judges_templates``), the candidates of a crystal have
    a template each, and one is kept with probability proportional to ``exp(-5 n e)``, n how many numbers are given and
    e the denoising error of the crystal, a given lattice included. That is sampling by importance, as in
    ``JointProcess.sample``: the template network proposes, knowing nothing of the coordinates, and the weight stands
    for their likelihood.
    """
    streams = [np.random.default_rng([settings.seed, i]) for i in indices]
    shares: list[float | None] = [None] * len(indices)
    tries = settings.candidates if condition.judges_templates else 1
    drawers = [
        np.random.default_rng([settings.seed, i, _FURTHER, k]) if k else stream
        for i, stream in zip(indices, streams, strict=True)
        for k in range(tries)
    ]
    if ranking:
        chosen = [ranking[i % len(ranking)] for i in indices]
        templates, shares = [one.template for one in chosen], [one.share for one in chosen]
    else:
        templates = draw_templates(networks.template, condition, drawers, **settings.of_templates())
    report(0.2)
    seeds = [int(drawer.integers(2**63)) for drawer in drawers]
    made = _on_templates(networks, condition, settings, templates, seeds, tries, report)
    if tries > 1:
        levels = [stream.random() for stream in streams]
        made = [_picked(made[k * tries : (k + 1) * tries], level) for k, level in enumerate(levels)]
    rows = [
        check_crystal(i, one.crystal, denoising_error=one.denoising_error, template_share=share)
        for i, one, share in zip(indices, made, shares, strict=True)
    ]
    return rows, [one.crystal for one in made]


def _picked(candidates: Sequence[_Made], level: float) -> _Made:
    """One of the candidates for a crystal, drawn by how well they agree with what is given."""
    errors = np.array([[candidate.denoising_error] for candidate in candidates])
    return candidates[pick_by_error(errors, np.array([candidates[0].num_given]), [level])[0]]


def _on_templates(
    networks: Networks,
    condition: Condition,
    settings: SamplingSettings,
    templates: Sequence[SampledTemplate],
    seeds: Sequence[int],
    tries: int,
    report: Callable[[float], None],
) -> list[_Made]:
    """A crystal on each template; with several tries per crystal the candidates are these."""
    whole = template_batch(templates).to(networks.device)
    passes = passes_by_size(whole, radius=networks.geometry.config.radius)
    candidates = settings.candidates if tries == 1 else 1
    total, done = len(passes) * candidates * num_passes(settings.steps, settings.restarts), 0

    def on_step() -> None:
        nonlocal done
        done += 1
        report(0.2 + 0.8 * done / total)

    made: dict[int, _Made] = {}
    for chosen in passes:
        batch = whole[torch.tensor(chosen, device=networks.device)]
        given = given_parts(condition, [templates[i] for i in chosen])
        sampled, errors = likeliest_geometry(
            networks.geometry,
            networks.choice,
            batch,
            [torch.Generator().manual_seed(seeds[i]) for i in chosen],
            judges=[torch.Generator().manual_seed(seeds[i - i % tries] + 1) for i in chosen]
            if tries > 1
            else None,
            weak=networks.weak,
            autoguidance=settings.autoguidance,
            restarts=settings.restarts,
            candidates=candidates,
            lattice_temperature=settings.lattice_temperature,
            source=settings.source,
            mixed_precision=settings.mixed_precision,
            steps=settings.steps,
            given=None if given is None else given.to(batch),
            judge_given=tries > 1,
            guide_for=partial(make_guide, networks.choice, strengths=dict(settings.guidance)),
            on_step=on_step,
        )
        exact = sampled.to("cpu", torch.float64)
        if given is not None:
            exact = given.imposed_on(exact)
        counts = [0] * len(chosen) if given is None else free_numbers(exact, given).tolist()
        rows = zip(exact.to_crystals(), errors.tolist(), counts, strict=True)
        made |= {i: _Made(*row) for i, row in zip(chosen, rows, strict=True)}
    return [made[i] for i in range(len(templates))]
