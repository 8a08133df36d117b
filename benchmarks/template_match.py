"""Geometry on true templates: match per try and best of k against held-out MP-20 structures, by free coordinates.

The network gets group, Wyckoff positions and elements of a held-out structure and returns lattice and free coordinates.
Matched with pymatgen's StructureMatcher at the published tolerances (ltol 0.3, stol 0.5, angle_tol 10) against the
structure itself. Beside it the same with random crystals on the same templates: uniform free coordinates, lattice from
the noise the network starts from; and, with ``--relaxed FOLDER``, what both become when CHGNet relaxes them inside
their symmetry (0.05 eV/Å, results kept in the folder; the best point reached where that does not converge, the crystal
as it was where atoms collide).

    python benchmarks/template_match.py --data DATA --weights FILE --pool val --size 300 --tries 3

Decisions are made on the pool ``val``; ``test`` is for the final table of a release.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
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
from real_structures import describe_run, print_run, write_json
from resumable import settle_process
from sampling_options import add_sampling_options, sampling_settings

STRATA = [(0, 0), (1, 1), (2, 2), (3, 3), (4, 5), (6, 8), (9, 999)]
HALVES = [(0, 5), (6, 999)]
"""How DiffCSP-Geo's matches per try are published."""


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
) -> list[Crystal]:
    """One crystal on the template of each, made where the checkpoint's networks are."""
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
                **{name: value for name, value in settings.items() if name != "guidance"},
            )
        for i, crystal in zip(chosen, result.to("cpu").to_crystals(), strict=True):
            found[i] = crystal
    return found


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
    matched, distances = matches(truth, tries)
    free = np.array([c.num_free_coords for c in truth])
    rows = {}
    for low, high in [(0, 999), *bounds]:
        mine = (free >= low) & (free <= high)
        if mine.any():
            rows[f"{low}-{high}"] = {
                "n": int(mine.sum()),
                "per_try": float(matched[:, mine].mean()),
                "best": float(matched[:, mine].any(axis=0).mean()),
                "rmse_unmatched_at_tolerance": float(distances[:, mine].mean()),
            }
    return rows


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


def print_strata(rows: dict[str, dict[str, float]], tries: int) -> None:
    for name, row in rows.items():
        label = "all" if name == "0-999" else f"{name} free"
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
    for kind in ("network", "random"):
        start = time.perf_counter()
        tries = [
            draw(
                checkpoint,
                truth,
                settings=settings,
                first=k,
                seed=options.seed,
                random=kind == "random",
            )
            for k in range(options.tries)
        ]
        seconds = (time.perf_counter() - start) / options.tries / len(truth) * 1000
        figures[kind] = {"seconds_per_1000": seconds, "strata": strata(truth, tries, [*STRATA, *HALVES])}
        print(
            f"{kind}: {len(truth)} structures of MP-20 {options.pool}, {options.tries} tries"
            + (f"; {settings}" if kind == "network" else "")
        )
        print_strata(figures[kind]["strata"], options.tries)
        print(f"  {seconds:.1f} s per 1,000 crystals, {options.device}, one thread", flush=True)
        if options.relaxed:
            print(f"{kind}, relaxed with CHGNet")
            ends = relaxed(tries, options.relaxed)
            figures[f"{kind}, relaxed"] = {"strata": strata(truth, ends, [*STRATA, *HALVES])}
            print_strata(figures[f"{kind}, relaxed"]["strata"], options.tries)
        write_json(options.out, {"run": run, "figures": figures})


if __name__ == "__main__":
    main()
