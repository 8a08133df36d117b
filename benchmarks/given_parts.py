"""Completion and substitution: does a given part of a held-out structure bring back the rest?

Structures of MP-20 (pool ``val``) with at least three orbits and two elements. Group, composition and number of atoms
are given in all rows, and beside them

    nothing     no more
    elements    the cell and all coordinates; which element is on which orbit is open
    orbits      the cell and all orbits but those of the lightest element, whose positions and coordinates are open
                (where both have free coordinates)

One answer per structure, from one candidate, where the given coordinates have no say in the template, and from several.
Matched with pymatgen's StructureMatcher (ltol 0.3, stol 0.5, angle 10); unmatched answers count 0.5 in the RMSE.

    python benchmarks/given_parts.py --data DATA --work RUN -n 100 --out given.json

Finished structures are kept in ``--work``; the same command, or one with a larger ``-n``, goes on where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import nucleate
from data_pools import pool_crystals
from nucleate.crystal import Crystal
from nucleate.evaluation.statistics import wilson_interval
from nucleate.generation.condition import Condition
from real_structures import describe_run, print_run, write_json
from resumable import generator, results
from structure_prediction import STOL, rms_to

TASKS = ("nothing", "elements", "orbits")


def condition_of(task: str, target: Crystal) -> Condition | None:
    """What is given of a structure, None where the task is none for it."""
    size = target.num_atoms_primitive
    common: dict[str, Any] = {"formula": target.formula, "num_atoms": (size, size), "source": "mp_20"}
    if task == "nothing":
        return Condition(space_groups=(target.space_group_number,), **common)
    if task == "elements":
        return Condition.from_parent(target, ["elements"], **common)
    kept = target.atomic_numbers != target.atomic_numbers.min()
    if not target.num_free[kept].sum() or not target.num_free[~kept].sum():
        return None
    rest = Crystal(
        target.space_group_number,
        target.lattice_params,
        target.wyckoff_indices[kept],
        target.atomic_numbers[kept],
        target.free_coords[kept],
    )
    cell = Condition.from_parent(target, ["elements"]).lattice
    part = Condition.from_parent(rest, ["orbits", "lattice"], **common)
    return Condition(space_groups=part.space_groups, template=part.template, lattice=cell, **common)


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Rms displacement of one answer to each task, by number of candidates."""
    target: Crystal = job["target"]
    found: dict[str, Any] = {}
    for task in TASKS:
        condition = condition_of(task, target)
        if condition is None:
            continue
        for candidates in (1, job["candidates"]):
            made = generator().generate(condition, 1, job["seed"], candidates=candidates)
            found[f"{task}, {candidates}"] = rms_to(target, list(made.crystals))[0]
    return found


def figures_of(done: list[dict[str, Any]], row: str) -> dict[str, Any]:
    """Match and RMSE of a row."""
    rms = [result[row] for result in done if row in result]
    matched = sum(value is not None for value in rms)
    return {
        "n": len(rms),
        "match": matched / len(rms),
        "ci95": wilson_interval(matched, len(rms)),
        "rmse": float(np.mean([STOL if value is None else value for value in rms])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("-n", type=int, default=100, help="structures")
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = describe_run(**vars(options))
    print_run(run)
    pool = pool_crystals(options.data, "mp_20", "val", n=4 * options.n, seed=options.seed)
    targets = [c for c in pool if c.num_orbits >= 3 and len(c.composition) >= 2][: options.n]
    jobs = [
        (i, {"target": target, "seed": options.seed + i, "candidates": options.candidates})
        for i, target in enumerate(targets)
    ]
    digest = nucleate.load(options.weights).digest[:12]
    path = options.work / f"given-{digest}-{options.candidates}-{options.seed}.jsonl"
    done = list(results(answer, jobs, path, weights=options.weights, workers=options.workers))
    rows = [f"{task}, {candidates}" for task in TASKS for candidates in (1, options.candidates)]
    figures = {row: figures_of(done, row) for row in rows if any(row in result for result in done)}
    print(f"{len(targets)} structures, weights {digest}: given, candidates; match in %")
    for row, f in figures.items():
        low, high = f["ci95"]
        print(
            f"{row:16s}{f['n']:5d}{100 * f['match']:7.1f} ({100 * low:.1f} to {100 * high:.1f}){f['rmse']:8.3f}"
        )
    write_json(options.out, {"run": run, "weights": digest, "figures": figures})


if __name__ == "__main__":
    main()
