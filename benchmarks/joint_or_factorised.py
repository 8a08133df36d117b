"""Elements first and geometry second, or both together: match on held-out MP-20 structures, by number of orbits.

Given are group, Wyckoff positions and composition of a held-out structure; open is which element sits on which orbit,
and the geometry. The ways differ in nothing but where the elements come from; every one of them keeps the composition.

- ``first``: the template network draws the elements, the geometry follows (how ``nucleate generate`` works);
- ``together R``: a masked categorical beside the geometry. All elements start hidden and are drawn from the geometry
  network's own log odds while the geometry is being denoised, the last of them after the share R of the passes;
- ``random``: any assignment that keeps the composition, all equally likely, then the geometry;
- ``true``: the elements of the structure itself, which bounds them all.

All take the same geometry network, trained with hidden elements, and the same number of passes:

    nucleate train STORE --config joint.yaml --init WEIGHTS --minutes 45 --out RUN    # element_share: 0.7
    python benchmarks/joint_or_factorised.py --data DATA --weights WEIGHTS --joint RUN/weights.safetensors

Structures with one assignment only are left out. Matched as in ``template_match.py``.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nucleate.crystal import Crystal, CrystalBatch
from nucleate.generation.candidates import likeliest_geometry
from nucleate.generation.geometry_sampling import network_denoiser, passes_by_size
from nucleate.generation.template_sampling import TemplateModel
from nucleate.models.checkpoint import Checkpoint, load_checkpoint
from nucleate.models.orbit_transformer import MASKED_ELEMENT, Denoised
from nucleate.processes.geometry_flow import GeometryFlow
from nucleate.processes.geometry_process import GeometryNoise
from nucleate.processes.sampler import sample_geometry
from nucleate.processes.template_constraints import template_constraint
from nucleate.processes.template_process import sample_templates
from real_structures import describe_run, print_run, write_json
from template_match import held_out, matches

ORBITS = [(2, 3), (4, 5), (6, 99)]


@lru_cache(maxsize=1_000_000)
def assignments(sizes: tuple[int, ...], counts: tuple[int, ...]) -> int:
    """In how many ways orbits of these sizes share out the atoms left of each element, capped at a thousand."""
    if not sizes:
        return int(not any(counts))
    ways = 0
    for k, count in enumerate(counts):
        if count >= sizes[0] and ways < 1000:
            ways += assignments(sizes[1:], (*counts[:k], count - sizes[0], *counts[k + 1 :]))
    return min(ways, 1000)


class OpenElements:
    """One crystal's orbits and what is left to hand out, each step leaving a way to the exact composition."""

    def __init__(self, crystal: Crystal, rng: np.random.Generator) -> None:
        sizes = np.array([p.multiplicity_primitive for p in crystal.positions])
        self.elements = np.unique(crystal.atomic_numbers)
        self.left = tuple(int(sizes[crystal.atomic_numbers == z].sum()) for z in self.elements)
        self.order = rng.permutation(len(sizes)).tolist()
        self.sizes, self.rng = sizes, rng
        self.found = np.full(len(sizes), MASKED_ELEMENT)

    @property
    def num_ways(self) -> int:
        """Assignments still possible."""
        return assignments(tuple(sorted(self.sizes[self.order].tolist(), reverse=True)), self.left)

    def draw(self, log_odds: Callable[[int], np.ndarray] | None = None) -> None:
        """The element of the next orbit, from ``log_odds(orbit)`` of every element.

        Without them from the number of ways each leaves, so that (up to its cap) all assignments are equally likely.
        """
        orbit = self.order.pop()
        rest = tuple(sorted(self.sizes[self.order].tolist(), reverse=True))
        size = int(self.sizes[orbit])
        logits = np.full(len(self.elements), -math.inf)
        for k, count in enumerate(self.left):
            after = (*self.left[:k], count - size, *self.left[k + 1 :])
            if count >= size and (ways := assignments(rest, after)):
                logits[k] = log_odds(orbit)[self.elements[k] - 1] if log_odds else math.log(ways)
        weights = np.exp(logits - logits.max())
        pick = int(self.rng.choice(len(weights), p=weights / weights.sum()))
        self.left = (*self.left[:pick], self.left[pick] - size, *self.left[pick + 1 :])
        self.found[orbit] = self.elements[pick]


def at_random(truth: Sequence[Crystal], seed: int) -> list[np.ndarray]:
    """Elements that keep the composition and nothing else."""
    found = []
    for i, crystal in enumerate(truth):
        one = OpenElements(crystal, np.random.default_rng([seed, i]))
        while one.order:
            one.draw()
        found.append(one.found)
    return found


def by_template_network(
    checkpoint: Checkpoint, truth: Sequence[Crystal], seed: int, source: int
) -> list[np.ndarray]:
    """Elements drawn by the template network for the given positions and composition."""
    constraints = [
        template_constraint(
            space_groups=[c.space_group_number],
            composition={
                int(z): int(sum(p.multiplicity_primitive for p, e in zip(c.positions, c.atomic_numbers) if e == z))
                for z in np.unique(c.atomic_numbers)
            },
            orbits=[(int(w), None) for w in c.wyckoff_indices],
            complete=True,
        )
        for c in truth
    ]  # fmt: skip
    found = []
    for begin in range(0, len(truth), 100):
        asked = constraints[begin : begin + 100]
        streams = [np.random.default_rng([seed, begin + i]) for i in range(len(asked))]
        model = TemplateModel(checkpoint.template, asked, source=source)
        found += [t.atomic_numbers for t in sample_templates(model, asked, streams)]
    return found


Make = Callable[[list[int], CrystalBatch, list[torch.Generator]], CrystalBatch]
"""(places of some crystals, their templates, their random streams) to the crystals."""


def in_passes(checkpoint: Checkpoint, templates: CrystalBatch, seed: int, make: Make) -> list[Crystal]:
    """Crystals on the templates, those of similar size made together."""
    found: list[Crystal | None] = [None] * len(templates)
    for chosen in passes_by_size(templates, radius=checkpoint.geometry.config.radius):
        streams = [torch.Generator().manual_seed(seed * 1_000_003 + i) for i in chosen]
        made = make(chosen, templates[torch.tensor(chosen)], streams)
        for i, crystal in zip(chosen, made.to_crystals(), strict=True):
            found[i] = crystal
    return found


def together(
    checkpoint: Checkpoint,
    truth: Sequence[Crystal],
    seed: int,
    source: int,
    *,
    steps: int,
    share: float,
    lattice_temperature: float,
) -> list[Crystal]:
    """Crystals whose elements are drawn by the geometry network during the first ``share`` of its passes."""
    flow = GeometryFlow(checkpoint.lattice_mean, checkpoint.lattice_std)
    network = network_denoiser(checkpoint.geometry, source=source)

    def make(chosen: list[int], batch: CrystalBatch, streams: list[torch.Generator]) -> CrystalBatch:
        noise = GeometryNoise.draw_by_crystal(batch, streams)
        noise = replace(noise, normals=noise.normals * lattice_temperature)
        opened = [OpenElements(truth[i], np.random.default_rng([seed, i])) for i in chosen]
        starts, done = batch.orbit_start.tolist(), 0

        def elements() -> Tensor:
            return torch.as_tensor(np.concatenate([one.found for one in opened]))

        def denoise(crystals: CrystalBatch, coord_level: Tensor, lattice_level: Tensor) -> Denoised:
            nonlocal done
            done += 1
            guess = network(crystals.replace(atomic_numbers=elements()), coord_level, lattice_level)
            logits = guess.element_logits.double().numpy()
            for one, start in zip(opened, starts):
                due = math.ceil(len(one.sizes) * min(1.0, done / (share * steps)))
                while len(one.sizes) - len(one.order) < due:
                    one.draw(lambda orbit, start=start: logits[start + orbit])
            return guess

        made = sample_geometry(flow, batch, denoise, noise=noise, steps=steps)
        return made.replace(atomic_numbers=elements())

    return in_passes(checkpoint, CrystalBatch.from_crystals(list(truth), dtype=torch.float32), seed, make)


def elements_first(
    checkpoint: Checkpoint,
    truth: Sequence[Crystal],
    elements: Sequence[np.ndarray],
    seed: int,
    source: int,
    *,
    steps: int,
    lattice_temperature: float,
) -> list[Crystal]:
    """Crystals on the positions of the true ones with the given elements."""
    flow = GeometryFlow(checkpoint.lattice_mean, checkpoint.lattice_std)
    templates = CrystalBatch.from_crystals(list(truth), dtype=torch.float32)
    templates = templates.replace(atomic_numbers=torch.as_tensor(np.concatenate(list(elements))))

    def make(_: list[int], batch: CrystalBatch, streams: list[torch.Generator]) -> CrystalBatch:
        made, _ = likeliest_geometry(
            checkpoint.geometry,
            flow,
            batch,
            streams,
            lattice_temperature=lattice_temperature,
            steps=steps,
            source=source,
        )
        return made

    return in_passes(checkpoint, templates, seed, make)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="the template network")
    parser.add_argument(
        "--joint", type=Path, required=True, help="geometry network trained with hidden elements"
    )
    parser.add_argument("--pool", choices=("val", "test"), default="val")
    parser.add_argument("--size", type=int, default=400)
    parser.add_argument("--tries", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    parser.add_argument("--lattice-temperature", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()  # fmt: skip
    run = describe_run(**vars(options))
    print_run(run)
    torch.set_num_threads(1)
    whole = held_out(options.data, options.pool, options.size, options.seed)
    truth = [c for c in whole if OpenElements(c, np.random.default_rng(0)).num_ways > 1]
    print(f"{len(truth)} of {len(whole)} structures have more than one assignment of their elements")
    weights, joint = load_checkpoint(options.weights), load_checkpoint(options.joint)
    source = 1 + joint.sources.index("mp_20") if "mp_20" in joint.sources else 0
    settings = {"steps": options.steps, "lattice_temperature": options.lattice_temperature}

    def first(elements: Callable[[int], Sequence[np.ndarray]]) -> Callable[[int], list[Crystal]]:
        return lambda seed: elements_first(joint, truth, elements(seed), seed, source, **settings)

    ways: dict[str, Callable[[int], list[Crystal]]] = {
        "first": first(lambda seed: by_template_network(weights, truth, seed, source)),
        **{
            f"together {share:g}": (
                lambda seed, share=share: together(joint, truth, seed, source, share=share, **settings)
            )
            for share in options.shares
        },
        "random": first(lambda seed: at_random(truth, seed)),
        "true": first(lambda seed: [c.atomic_numbers for c in truth]),
    }
    orbits = np.array([len(c.atomic_numbers) for c in truth])
    figures = {}
    for name, draw in ways.items():
        begin = time.process_time()
        with torch.no_grad():
            tries = [draw(options.seed * options.tries + k) for k in range(options.tries)]
        seconds = (time.process_time() - begin) / options.tries / len(truth) * 1000
        matched, _ = matches(truth, tries)
        rows = {"all": matched.mean()}
        for low, high in ORBITS:
            mine = (orbits >= low) & (orbits <= high)
            rows[f"{low}-{high} orbits ({mine.sum()})"] = matched[:, mine].mean() if mine.any() else np.nan
        figures[name] = {"seconds_per_1000": seconds, "match": {k: float(v) for k, v in rows.items()}}
        shares = "  ".join(f"{label} {100 * share:.1f}" for label, share in rows.items())
        print(f"{name:14s} match per try, %: {shares}   ({seconds:.0f} s per 1,000, one thread)", flush=True)
    write_json(options.out, {"run": run, "structures": len(truth), "figures": figures})


if __name__ == "__main__":
    main()
