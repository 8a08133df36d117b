"""The crystals of some random streams: templates, geometries on them, one row of checks each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from nucleate.crystal.batch import CrystalBatch
from nucleate.crystal.crystal import Crystal
from nucleate.generation.candidates import likeliest_geometry, num_passes
from nucleate.generation.checks import GeneratedRow, check_crystal
from nucleate.generation.condition import Condition
from nucleate.generation.geometry_sampling import (
    LEAST_CRYSTALS,
    filled_up,
    given_parts,
    make_guide,
    passes_by_size,
)
from nucleate.generation.property_targets import first_wanted
from nucleate.generation.template_sampling import RankedTemplate, draw_templates
from nucleate.models.orbit_transformer import OrbitTransformer
from nucleate.models.property_head import PropertyHead, pooled_features
from nucleate.models.template_transformer import TemplateTransformer
from nucleate.processes.choice import ProcessChoice
from nucleate.processes.joint_process import free_numbers, pick_by_error, template_batch
from nucleate.processes.template_process import SampledTemplate, TemplateTemperature
from nucleate.shapes import Bool

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
    head: PropertyHead | None = None


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
    """A crystal, how far the network sends it away from itself, how many of its numbers are given, its properties."""

    crystal: Crystal
    denoising_error: float
    num_given: int
    properties: tuple[float, ...] = ()


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

    Where properties are asked for, the candidates have a template each too, and the first that has the properties is
    kept: sampling by rejection from what the networks give without that wish.
    """
    shares: list[float | None] = [None] * len(indices)
    if ranking:
        chosen = [ranking[i % len(ranking)] for i in indices]
        shares = [one.share for one in chosen]
        report(0.2)
        seeds = _seeds(_streams(settings, [(i, 0) for i in indices]))
        made = _on_templates(networks, condition, settings, [one.template for one in chosen], seeds, report)
    elif condition.judges_templates:
        made = _judged(networks, condition, settings, indices, report)
    elif condition.properties:
        made = _first_wanted(networks, condition, settings, indices, report)
    else:
        streams = _streams(settings, [(i, 0) for i in indices])
        made = _proposed(networks, condition, settings, streams, report)
    names = [target.name for target in condition.targets]
    rows = [
        check_crystal(
            i,
            one.crystal,
            denoising_error=one.denoising_error,
            template_share=share,
            predicted=dict(zip(names, one.properties, strict=True)),
        )
        for i, one, share in zip(indices, made, shares, strict=True)
    ]
    return rows, [one.crystal for one in made]


def _judged(
    networks: Networks,
    condition: Condition,
    settings: SamplingSettings,
    indices: Sequence[int],
    report: Callable[[float], None],
) -> list[_Made]:
    """Of each crystal's candidates one, drawn by how well they agree with what is given.

    Where properties are asked for, those alone count that have them, or the nearest if none has.
    """
    tries = settings.candidates
    streams = _streams(settings, [(i, k) for i in indices for k in range(tries)])
    made = _proposed(networks, condition, settings, streams, report, judged=tries)
    picked = []
    for first in range(0, len(made), tries):
        mine = made[first : first + tries]
        if condition.properties:
            has, best = _wanted(networks, condition, mine)
            mine = [one for one, it_has in zip(mine, has) if it_has] or [mine[best]]
        errors = np.array([[one.denoising_error] for one in mine])
        level = streams[first].random()
        picked.append(mine[pick_by_error(errors, np.array([mine[0].num_given]), [level])[0]])
    return picked


def _first_wanted(
    networks: Networks,
    condition: Condition,
    settings: SamplingSettings,
    indices: Sequence[int],
    report: Callable[[float], None],
) -> list[_Made]:
    """Of each crystal's candidates the first that has the properties asked for, or the nearest of all.

    Candidates are made in rounds, for the crystals that lack one, and twice as many in each: at most about twice as
    many as are looked at, or as fill a pass.
    """
    most, size, done = settings.candidates, 1, 0
    made: dict[int, list[_Made]] = {i: [] for i in indices}
    kept: dict[int, _Made] = {}
    while done < most and (left := [i for i in indices if i not in kept]):
        # as many as fill a pass, whatever is left
        size = min(most - done, max(size, -(-LEAST_CRYSTALS // len(left))))
        wanted = [(i, k) for i in left for k in range(done, done + size)]
        share, before = size / most, done / most

        def report_round(part: float, share: float = share, before: float = before) -> None:
            report(before + share * part)

        found = _proposed(networks, condition, settings, _streams(settings, wanted), report_round)
        for place, i in enumerate(left):
            made[i] += found[place * size : (place + 1) * size]
            has, best = _wanted(networks, condition, made[i])
            if has.any() or done + size == most:
                kept[i] = made[i][best]
        done, size = done + size, 2 * size
    return [kept[i] for i in indices]


def _wanted(
    networks: Networks, condition: Condition, made: Sequence[_Made]
) -> tuple[Bool[np.ndarray, "candidates"], int]:
    assert networks.head is not None
    config = networks.head.config
    spreads = [config.stds[config.names.index(target.name)] for target in condition.targets]
    return first_wanted(condition.targets, np.array([one.properties for one in made]), spreads)


def _proposed(
    networks: Networks,
    condition: Condition,
    settings: SamplingSettings,
    streams: Sequence[np.random.Generator],
    report: Callable[[float], None],
    *,
    judged: int = 1,
) -> list[_Made]:
    """A crystal of each stream, on a template of its own; errors of each ``judged`` in a row can be compared."""
    templates = draw_templates(networks.template, condition, streams, **settings.of_templates())
    report(0.2)
    one = replace(settings, candidates=1) if judged > 1 or condition.properties else settings
    seeds = _seeds(streams)
    judges = [seeds[k - k % judged] + 1 for k in range(len(seeds))] if judged > 1 else None
    return _on_templates(networks, condition, one, templates, seeds, report, judges=judges)


def _streams(settings: SamplingSettings, wanted: Sequence[tuple[int, int]]) -> list[np.random.Generator]:
    """Random streams of candidates, as (crystal, number); the first of each crystal has that of the crystal."""
    return [
        np.random.default_rng([settings.seed, i, _FURTHER, k] if k else [settings.seed, i]) for i, k in wanted
    ]


def _seeds(streams: Sequence[np.random.Generator]) -> list[int]:
    """What the geometry of each crystal is drawn with."""
    return [int(stream.integers(2**63)) for stream in streams]


def _on_templates(
    networks: Networks,
    condition: Condition,
    settings: SamplingSettings,
    templates: Sequence[SampledTemplate],
    seeds: Sequence[int],
    report: Callable[[float], None],
    *,
    judges: Sequence[int] | None = None,
) -> list[_Made]:
    """A crystal on each template; ``judges`` seed the noise that errors are measured with, of given parts too."""
    whole = template_batch(templates).to(networks.device)
    passes = passes_by_size(whole, radius=networks.geometry.config.radius)
    candidates = settings.candidates
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
            judges=None if judges is None else [torch.Generator().manual_seed(judges[i]) for i in chosen],
            weak=networks.weak,
            autoguidance=settings.autoguidance,
            restarts=settings.restarts,
            candidates=candidates,
            lattice_temperature=settings.lattice_temperature,
            source=settings.source,
            mixed_precision=settings.mixed_precision,
            steps=settings.steps,
            given=None if given is None else given.to(batch),
            judge_given=judges is not None,
            guide_for=partial(make_guide, networks.choice, strengths=dict(settings.guidance)),
            on_step=on_step,
        )
        exact = sampled.to("cpu", torch.float64)
        if given is not None:
            exact = given.imposed_on(exact)
        counts = [0] * len(chosen) if given is None else free_numbers(exact, given).tolist()
        properties = _properties(networks, condition, exact)
        rows = zip(exact.to_crystals(), errors.tolist(), counts, properties, strict=True)
        made |= {i: _Made(*row) for i, row in zip(chosen, rows, strict=True)}
    return [made[i] for i in range(len(templates))]


@torch.no_grad()
def _properties(networks: Networks, condition: Condition, crystals: CrystalBatch) -> list[tuple[float, ...]]:
    """The properties asked for, of every crystal; the same whatever is beside it in the pass."""
    if not condition.properties:
        return [()] * len(crystals)
    assert networks.head is not None
    names = networks.head.config.names
    rows = torch.tensor(filled_up(list(range(len(crystals)))))
    batch = crystals[rows].to(networks.device, torch.float32)
    values = networks.head(pooled_features(networks.geometry, batch))[: len(crystals)].double().cpu()
    wanted = [names.index(target.name) for target in condition.targets]
    return [tuple(row) for row in values[:, wanted].tolist()]
