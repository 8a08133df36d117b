"""Geometry on true templates: match per try and best of k against held-out MP-20 structures, by free coordinates.

The network gets group, Wyckoff positions and elements of a held-out structure and returns lattice and free coordinates.
Matched with pymatgen's StructureMatcher at the published tolerances (ltol 0.3, stol 0.5, angle_tol 10) against the
structure itself. Beside it the same with random crystals on the same templates: uniform free coordinates, lattice from
the noise the network starts from; and, with ``--relaxed FOLDER``, what both become when CHGNet relaxes them inside
their symmetry (0.05 eV/Å, results kept in the folder; the best point reached where that does not converge, the crystal
as it was where atoms collide). ``--by`` splits the same figures by number of elements, crystal system or the largest
orbit, ``--given`` puts the true cell or the true coordinates in, to see which of the two fails.

    python benchmarks/template_match.py --data DATA --weights FILE --pool val --size 300 --tries 3

Decisions are made on the pool ``val``; ``test`` is for the final table of a release.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher

from data_pools import pool_crystals
from nucleate.crystal import Crystal, CrystalBatch
from nucleate.energetics import RelaxationSettings, ResultCache, relax
from nucleate.energetics.chgnet_potential import CHGNetPotential
from nucleate.generation.candidates import likeliest_geometry
from nucleate.generation.generator import AUTOGUIDANCE
from nucleate.generation.geometry_sampling import make_guide, passes_by_size
from nucleate.models.checkpoint import load_checkpoint
from nucleate.models.orbit_transformer import NUM_ELEMENTS
from nucleate.processes.choice import ProcessChoice
from nucleate.processes.geometry_flow import GeometryNoise
from nucleate.processes.sampler import GivenGeometry
from real_structures import describe_run, print_run, write_json
from resumable import settle_process
from sampling_options import add_sampling_options, sampling_settings

STRATA = [(0, 0), (1, 1), (2, 2), (3, 3), (4, 5), (6, 8), (9, 999)]
HALVES = [(0, 5), (6, 999)]
"""How DiffCSP-Geo's matches per try are published."""

LARGEST_ORBITS = (1, 2, 4, 8, 48)
"""Upper ends of the classes of the largest orbit, atoms per primitive cell."""


def size_class(crystal: Crystal) -> str:
    """Class of the largest orbit of a crystal."""
    most = int(crystal.multiplicities_primitive.max())
    place = next(i for i, high in enumerate(LARGEST_ORBITS) if most <= high)
    low = LARGEST_ORBITS[place - 1] + 1 if place else 1
    return f"{low}" if low == LARGEST_ORBITS[place] else f"{low} to {LARGEST_ORBITS[place]}"


GROUPINGS: dict[str, Callable[[Crystal], str]] = {
    "elements": lambda crystal: str(len(set(crystal.atomic_numbers.tolist()))),
    "system": lambda crystal: crystal.group.crystal_system,
    "orbit": size_class,
}
"""What else matches are split by: number of elements, crystal system, atoms of the largest orbit."""


def held_out(data: Path, pool: str, size: int, seed: int) -> list[Crystal]:
    """A random sample of a pool of MP-20, of elements the network knows; what cannot be encoded is named."""
    crystals = pool_crystals(data, "mp_20", pool, n=size, seed=seed)
    return [crystal for crystal in crystals if crystal.atomic_numbers.max() <= NUM_ELEMENTS]


def draw(
    checkpoint,
    truth: list[Crystal],
    *,
    settings: dict[str, Any],
    first: int,
    seed: int,
    random: bool,
    given: str | None = None,
) -> list[Crystal]:
    """One crystal on the template of each, made where the checkpoint's networks are; the true cell or coords given."""
    device = next(checkpoint.geometry.parameters()).device
    choice = ProcessChoice.from_state(
        checkpoint.process,
        {name: table.to(device) for name, table in checkpoint.process_tables.items()},
        lattice_mean=checkpoint.lattice_mean.to(device),
        lattice_std=checkpoint.lattice_std.to(device),
    )
    templates = CrystalBatch.from_crystals(truth, dtype=torch.float32).to(device)
    found: list[Crystal | None] = [None] * len(truth)
    for chosen in passes_by_size(templates, radius=checkpoint.geometry.config.radius):
        index = torch.tensor(chosen, device=device)
        streams = [torch.Generator().manual_seed(seed * 1_000_003 + first * len(truth) + i) for i in chosen]
        if random:
            noise = GeometryNoise.draw_by_crystal(templates[index], streams)
            result = choice.process.prior(templates[index], noise)
        else:
            source = 1 + checkpoint.sources.index("mp_20") if "mp_20" in checkpoint.sources else 0
            result, _ = likeliest_geometry(
                checkpoint.geometry,
                choice,
                templates[index],
                streams,
                weak=checkpoint.weak,
                source=source,
                guide_for=partial(make_guide, choice, strengths=settings["guidance"]),
                given=None if given is None else true_part(templates[index], given),
                **{name: value for name, value in settings.items() if name != "guidance"},
            )
        for i, crystal in zip(chosen, result.to("cpu").to_crystals(), strict=True):
            found[i] = crystal
    return found


def true_part(truth: CrystalBatch, part: str) -> GivenGeometry:
    """The ``lattice`` or the ``coords`` of crystals, given."""
    all_crystals = torch.ones(len(truth), dtype=torch.bool, device=truth.device)
    all_orbits = torch.ones(len(truth.position_ids), dtype=torch.bool, device=truth.device)
    cell, coords = part == "lattice", part == "coords"
    return GivenGeometry(truth.lattice_params, all_crystals & cell, truth.free_coords, all_orbits & coords)


def matches(truth: list[Crystal], tries: list[list[Crystal]]) -> tuple[np.ndarray, np.ndarray]:
    """Of each try (row) and structure (column): whether it matches, and the distance (0.5 where it does not)."""
    matcher = StructureMatcher(ltol=0.3, stol=0.5, angle_tol=10)
    distances = np.full((len(tries), len(truth)), np.nan)
    for row, guesses in zip(distances, tries, strict=True):
        for i, (a, b) in enumerate(zip(truth, guesses, strict=True)):
            pair = matcher.get_rms_dist(a.to_structure("primitive"), b.to_structure("primitive"))
            row[i] = np.nan if pair is None else pair[0]
    matched = np.isfinite(distances)
    return matched, np.where(matched, distances, 0.5)


def strata(
    truth: list[Crystal], tries: list[list[Crystal]], bounds: Sequence[tuple[int, int]] = STRATA
) -> dict[str, dict[str, float]]:
    """Match per try, best of all tries and RMSE by number of free coordinates; "0-999" is all."""
    return by_free(truth, *matches(truth, tries), bounds)


def by_free(
    truth: list[Crystal], matched: np.ndarray, distances: np.ndarray, bounds: Sequence[tuple[int, int]]
) -> dict[str, dict[str, float]]:
    """``strata`` of what ``matches`` found."""
    free = np.array([c.num_free_coords for c in truth])
    found = {f"{low}-{high}": (free >= low) & (free <= high) for low, high in [(0, 999), *bounds]}
    return {name: scored(matched, distances, mine) for name, mine in found.items() if mine.any()}


def scored(matched: np.ndarray, distances: np.ndarray, mine: np.ndarray) -> dict[str, float]:
    """Match per try, best of all tries and RMSE of some structures."""
    return {
        "n": int(mine.sum()),
        "per_try": float(matched[:, mine].mean()),
        "best": float(matched[:, mine].any(axis=0).mean()),
        "rmse_unmatched_at_tolerance": float(distances[:, mine].mean()),
    }


def split(
    truth: list[Crystal], matched: np.ndarray, distances: np.ndarray, kind: str
) -> dict[str, dict[str, float]]:
    """The same by one of ``GROUPINGS``."""
    labels = np.array([GROUPINGS[kind](crystal) for crystal in truth])
    return {str(name): scored(matched, distances, labels == name) for name in np.unique(labels)}


def relaxed(tries: list[list[Crystal]], folder: Path) -> list[list[Crystal]]:
    """Every crystal relaxed with CHGNet as far as that goes; one whose atoms collide stays as it was."""
    potential, settings, cache = CHGNetPotential(), RelaxationSettings(fmax=0.05), ResultCache(folder)
    ends = []
    for crystals in tries:
        results = relax(crystals, potential, settings=settings, cache=cache)
        converged = sum(result.converged for result in results)
        print(f"  relaxed: {converged} of {len(crystals)} converged", flush=True)
        ends.append([result.crystal for result in results])
    return ends


def print_strata(rows: Mapping[str, Mapping[str, float]], tries: int, what: str = "free") -> None:
    for name, row in rows.items():
        label = "all" if name == "0-999" else f"{name} {what}"
        print(f"  {label:>14}  n {row['n']:4d}  per try {100 * row['per_try']:5.1f} %  best of {tries} "
              f"{100 * row['best']:5.1f} %  rmse {row['rmse_unmatched_at_tolerance']:.3f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--pool", choices=("val", "test"), default="val")
    parser.add_argument("--size", type=int, default=300)
    parser.add_argument("--tries", type=int, default=3)
    add_sampling_options(parser)
    parser.add_argument(
        "--relaxed", type=Path, metavar="FOLDER", help="also after relaxing; keeps energies here"
    )
    parser.add_argument("--by", nargs="+", choices=GROUPINGS, default=[], help="split by these as well")
    parser.add_argument(
        "--given",
        choices=("lattice", "coords"),
        help="put the true cell or coordinates in, random crystals left out",
    )
    parser.add_argument("--device", default="cpu", help="where the network runs, such as cuda")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = describe_run(**vars(options))
    print_run(run)
    settle_process()
    truth = held_out(options.data, options.pool, options.size, options.seed)
    checkpoint = load_checkpoint(options.weights, device=options.device)
    settings = sampling_settings(options)
    for name in ("temperature", "ranked", "charge_weight"):  # the templates are given
        del settings[name]
    if settings["autoguidance"] is None:
        settings["autoguidance"] = 0.0 if checkpoint.weak is None else AUTOGUIDANCE
    figures = {}
    for kind in ("network",) if options.given else ("network", "random"):
        start = time.perf_counter()
        tries = [
            draw(
                checkpoint,
                truth,
                settings=settings,
                first=k,
                seed=options.seed,
                random=kind == "random",
                given=options.given,
            )
            for k in range(options.tries)
        ]
        seconds = (time.perf_counter() - start) / options.tries / len(truth) * 1000
        found = matches(truth, tries)
        figures[kind] = {
            "seconds_per_1000": seconds,
            "strata": by_free(truth, *found, [*STRATA, *HALVES]),
        }
        print(
            f"{kind}: {len(truth)} structures of MP-20 {options.pool}, {options.tries} tries"
            + (f"; {settings}" if kind == "network" else "")
        )
        print_strata(figures[kind]["strata"], options.tries)
        for grouping in options.by:
            figures[kind][grouping] = split(truth, *found, grouping)
            print_strata(figures[kind][grouping], options.tries, grouping)
        print(f"  {seconds:.1f} s per 1,000 crystals, {options.device}, one thread", flush=True)
        if options.relaxed:
            print(f"{kind}, relaxed with CHGNet")
            ends = relaxed(tries, options.relaxed)
            figures[f"{kind}, relaxed"] = {"strata": strata(truth, ends, [*STRATA, *HALVES])}
            print_strata(figures[f"{kind}, relaxed"]["strata"], options.tries)
        write_json(options.out, {"run": run, "figures": figures})


if __name__ == "__main__":
    main()
