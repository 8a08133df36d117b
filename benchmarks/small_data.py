"""Ten crystals: trained from scratch and from the shipped weights in under five minutes, then fifty generated.

The ten are ABX3 crystals of the pool ``val`` of MP-20 in the groups of perovskites and their nearest relatives (Pm-3m,
Pnma, I4/mcm, R-3c), which the shipped weights were not trained on. They go through the commands a user has: ``nucleate
data build``, ``nucleate train``, then fifty crystals without any condition. Valid: no two atoms nearer than 0.5 Å and a
charge-balanced composition (the published rules). A copy matches one of the ten by StructureMatcher's defaults. The ten
go through the same checks, and so do other crystals of the same family.

    python benchmarks/small_data.py --data DATA --work RUN --out small_data.json

A training that was stopped goes on when the command is repeated.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import nucleate
from data_pools import pool_crystals
from nucleate.crystal import Crystal
from nucleate.evaluation.composition_validity import smact_verdict
from nucleate.evaluation.matcher import Matcher
from nucleate.evaluation.reduced_cell import reduce_cell
from nucleate.evaluation.statistics import wilson_interval
from nucleate.evaluation.structure_validity import is_structurally_valid
from nucleate.evaluation.surroundings import surroundings
from nucleate.training.initial_weights import SHIPPED
from real_structures import describe_run, print_run, write_json
from sampling_options import add_sampling_options, sampling_settings

GROUPS = (221, 62, 140, 167)
SHARES = (
    "structural_validity",
    "compositional_validity",
    "valid",
    "not_copies",
    "valid_and_not_copies",
    "of_the_family",
    "formula_of_the_ten",
)


def is_family(crystal: Crystal) -> bool:
    """Whether it is ABX3 in one of the groups."""
    low, middle, high = (*sorted(crystal.composition.values()), 0, 0)[:3]
    return (
        len(crystal.composition) == 3
        and low == middle
        and high == 3 * low
        and crystal.space_group_number in GROUPS
    )


def write_table(path: Path, crystals: Sequence[Crystal]) -> None:
    """The crystals as a Parquet table that ``nucleate data build`` reads."""
    cells = [crystal.unit_cell("primitive") for crystal in crystals]
    table = pa.table(
        {
            "id": [crystal.formula for crystal in crystals],
            "numbers": [cell.atomic_numbers.tolist() for cell in cells],
            "lattice": [cell.lattice.ravel().tolist() for cell in cells],
            "frac_coords": [cell.frac_coords.ravel().tolist() for cell in cells],
            "split": ["train"] * len(cells),
        }
    )
    pq.write_table(table, path)


def command(*words: str) -> dict[str, float]:
    """Seconds by the clock and of processor time of a ``nucleate`` command, loading the program included.

    Raises:
        CalledProcessError: it failed.
    """
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "nucleate", *words], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    core = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"clock": time.perf_counter() - began, "core": core}


def checks(crystals: Sequence[Crystal], ten: Sequence[Crystal]) -> dict[str, Any]:
    """Shares of valid crystals, of copies of the ten, and of members of the family."""
    matcher, known = Matcher(), [reduce_cell(crystal.unit_cell("primitive")) for crystal in ten]
    structure, composition, copies = [], [], []
    for crystal in crystals:
        cell = crystal.unit_cell("primitive")
        structure.append(is_structurally_valid(cell, surroundings(cell)))
        composition.append(smact_verdict(crystal.composition).valid)
        own = reduce_cell(cell) if structure[-1] else None
        copies.append(own is not None and any(matcher.fits(own, other) for other in known))
    valid = np.array(structure) & np.array(composition)
    new = ~np.array(copies)
    family = [is_family(crystal) for crystal in crystals]
    same_formula = [crystal.formula in {c.formula for c in ten} for crystal in crystals]
    counted = (structure, composition, valid, new, valid & new, family, same_formula)
    shares: dict[str, Any] = {
        name: {"value": float(np.mean(flags)), "ci95": wilson_interval(int(np.sum(flags)), len(flags))}
        for name, flags in zip(SHARES, counted, strict=True)
    }
    shares["formulas"] = len({crystal.formula for crystal in crystals})
    return shares


def trained(way: str, store: Path, options: argparse.Namespace) -> tuple[Path, dict[str, float]]:
    """(weights, seconds) of a training from ``scratch`` or from ``weights``."""
    run = options.work / f"small-{way}-{options.seed}-{options.minutes:g}{options.label}"
    clock = options.work / f"{run.name}.cost.json"
    if clock.exists():
        return run / "weights.safetensors", json.loads(clock.read_text())
    words = [
        "train",
        str(store),
        "--out",
        str(run),
        "--minutes",
        f"{options.minutes:g}",
        "--seed",
        str(options.seed),
    ]
    if options.config is not None:
        words += ["--config", str(options.config)]
    if way == "weights":
        words += ["--init", str(options.weights or SHIPPED)]
    seconds = command(*words)
    write_json(clock, seconds)
    return run / "weights.safetensors", seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("-n", type=int, default=50, help="crystals generated")
    parser.add_argument("--minutes", type=float, default=4.5, help="of training, both networks")
    parser.add_argument("--ways", default="scratch,weights")
    parser.add_argument("--weights", type=Path, help="to start from; the shipped ones unless given")
    parser.add_argument("--config", type=Path, help="flat YAML of training settings")
    parser.add_argument("--label", default="", help="keeps runs with other settings apart")
    add_sampling_options(parser)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = describe_run(**vars(options))
    print_run(run)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    family = [
        c for c in pool_crystals(options.data, "mp_20", "val", n=10_000, seed=options.seed) if is_family(c)
    ]
    ten, others = family[:10], family[10:]
    options.work.mkdir(parents=True, exist_ok=True)
    table, store = options.work / f"ten-{options.seed}.parquet", options.work / f"ten-{options.seed}"
    write_table(table, ten)
    command("data", "build", str(table), "--out", str(store), "--split", "given")
    print("the ten: " + ", ".join(f"{c.formula} ({c.space_group_number})" for c in ten))
    figures: dict[str, Any] = {"the ten": checks(ten, ten), "others of the family": checks(others, ten)}
    for way in options.ways.split(","):
        weights, seconds = trained(way, store, options)
        made = nucleate.load(weights).generate(n=options.n, seed=options.seed, **sampling_settings(options))
        figures[f"from {way}"] = {**checks(made.crystals, ten), "training_seconds": seconds}
        print(
            f"from {way}: " + ", ".join(f"{c.formula} ({c.space_group_number})" for c in made.crystals[:12])
        )
        write_json(options.out, {"run": run, "figures": figures})
    for name, shares in figures.items():
        cells = [f"{key} {100 * v['value']:.0f} %" for key, v in shares.items() if key in SHARES]
        spent = shares.get("training_seconds")
        seconds = f"; trained in {spent['clock']:.0f} s, {spent['core']:.0f} s of a core" if spent else ""
        print(f"{name}: {', '.join(cells)}; {shares['formulas']} formulas{seconds}")
    write_json(options.out, {"run": run, "figures": figures})


if __name__ == "__main__":
    main()
