"""Whether generated crystals are what was asked for: composition, elements, atom counts, space group, template.

Conditions of six kinds come from crystals of the pool ``val`` of MP-20: formula; chemical system; some elements; a
range of atoms; space group; template (positions, every other time with elements). Nothing is filtered. Checked by
counting atoms, by spglib's own table of operations (not nucleate's) applied to the float64 cell, and by the groups that
moyopy and spglib find in it. A share of the conditions is asked again at other batch sizes. The crystals the conditions
came from go through the same checks.

    python benchmarks/obedience.py --data DATA --work RUN -n 10000 --out obedience.json

Finished conditions are kept in ``--work``; the same command, or one with a larger ``-n``, goes on where it stopped.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections import Counter
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nucleate
from data_pools import pool_crystals
from nucleate.crystal import Crystal, space_group
from nucleate.crystal.species import element_symbol
from nucleate.evaluation.statistics import wilson_interval
from nucleate.evaluation.symmetry_checks import asked_against_found, find_symmetry
from nucleate.generation.condition import Condition
from nucleate.generation.formula import parse_formula
from operations_kept import largest_deviation
from real_structures import describe_run, print_run, write_json
from resumable import generator, results

KINDS = ("formula", "chemical system", "elements", "number of atoms", "space group", "template")
PER_CONDITION = 25
OTHER_BATCH_SIZES = (1, 7)
SYMPREC = 1e-3


def condition_of(kind: str, crystal: Crystal, number: int) -> Condition:
    """What is asked for: one property of a real crystal."""
    symbols = [element_symbol(z) for z in crystal.composition]
    if kind == "formula":
        return Condition(formula=crystal.formula)
    if kind == "chemical system":
        return Condition(chemical_system="-".join(symbols))
    if kind == "elements":
        return Condition(elements=tuple(symbols[: max(1, len(symbols) - 1)]))
    if kind == "number of atoms":
        return Condition(num_atoms=(crystal.num_atoms_primitive, crystal.num_atoms_primitive + number % 4))
    if kind == "space group":
        return Condition(space_groups=(crystal.space_group_number,))
    words = [
        (f"{element_symbol(z)}:" if number % 2 else "") + position.label
        for z, position in zip(crystal.atomic_numbers.tolist(), crystal.positions)
    ]
    return Condition(space_groups=(crystal.space_group_number,), template=" ".join(words))


def is_obeyed(condition: Condition, crystal: Crystal) -> bool:
    """Whether a crystal is as asked, from the atoms of its cell; the template from its orbits."""
    counts = Counter(crystal.unit_cell("primitive").atomic_numbers.tolist())
    found = {element_symbol(z) for z in counts}
    obeyed = True
    if condition.formula is not None:
        divisor = math.gcd(*counts.values())
        obeyed &= {z: n // divisor for z, n in counts.items()} == parse_formula(condition.formula)
    if condition.chemical_system is not None:
        obeyed &= found == set(condition.chemical_system.split("-"))
    obeyed &= set(condition.elements) <= found
    if condition.num_atoms is not None:
        obeyed &= condition.num_atoms[0] <= counts.total() <= condition.num_atoms[1]
    if condition.space_groups:
        obeyed &= crystal.space_group_number in condition.space_groups
    if condition.template is not None:
        labels = sorted(
            (f"{element_symbol(z)}:" if ":" in condition.template else "") + position.label
            for z, position in zip(crystal.atomic_numbers.tolist(), crystal.positions)
        )
        obeyed &= labels == sorted(condition.template.split())
    return bool(obeyed)


def check(crystal: Crystal) -> dict[str, Any]:
    """Largest deviation from the group's operations in Å, and the groups two programs find."""
    cell, number = crystal.unit_cell("conventional"), crystal.space_group_number
    found = find_symmetry(crystal.unit_cell("primitive"), [SYMPREC])
    moyopy, spglib = found.moyopy[0].number, found.spglib[0].number
    return {
        "group": number,
        "deviation": largest_deviation(cell, space_group(number).hall_number),
        "moyopy": moyopy,
        "spglib": spglib,
        "kept": [asked_against_found(number, moyopy), asked_against_found(number, spglib)],
        "free": crystal.num_free_coords,
        "formula": crystal.formula,
    }


def shift_between(first: Crystal, second: Crystal) -> float | None:
    """Largest distance in Å between corresponding atoms or cell vectors; None for different templates."""
    same = (
        first.space_group_number == second.space_group_number
        and np.array_equal(first.wyckoff_indices, second.wyckoff_indices)
        and np.array_equal(first.atomic_numbers, second.atomic_numbers)
    )
    if not same:
        return None
    a, b = first.unit_cell("conventional"), second.unit_cell("conventional")
    apart = a.frac_coords - b.frac_coords
    apart -= np.rint(apart)
    atoms = np.linalg.norm(apart @ a.lattice, axis=1).max()
    return float(max(atoms, np.linalg.norm(a.lattice - b.lattice, axis=1).max()))


def run_condition(job: tuple[str, Condition, int, bool]) -> dict[str, Any]:
    """Everything measured on one condition."""
    kind, condition, seed, repeat = job
    began = time.process_time()
    crystals = generator().generate(condition, PER_CONDITION, seed).crystals
    seconds = time.process_time() - began
    rows = [{"obeyed": is_obeyed(condition, crystal), **check(crystal)} for crystal in crystals]
    shifts: list[float | None] = []
    if repeat:
        for size in OTHER_BATCH_SIZES:
            again = generator().generate(condition, PER_CONDITION, seed, batch_size=size).crystals
            shifts += [shift_between(a, b) for a, b in zip(crystals, again)]
    asked = condition.to_dict()
    return {
        "kind": kind,
        "asked": asked,
        "seconds": seconds,
        "rows": rows,
        "shifts": shifts,
    }


def share(flags: list[bool]) -> dict[str, Any]:
    return {"value": float(np.mean(flags)), "n": len(flags), "ci95": wilson_interval(sum(flags), len(flags))}


def figures_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Averages over crystals, generated or real."""
    fixed = [row for row in rows if row["free"] == 0]
    groups = {
        name: share([row["moyopy"] == row["spglib"] == row["group"] for row in chosen])
        for name, chosen in (("group_found", rows), ("group_found_no_free_coordinate", fixed))
        if chosen
    }
    mirror = share([row["kept"] == ["exact", "exact"] for row in rows])
    accidental = share([row["kept"] == ["higher", "higher"] for row in rows])
    return {
        "operations_within_1e-6_angstrom": share([row["deviation"] <= 1e-6 for row in rows]),
        "largest_deviation_angstrom": max(row["deviation"] for row in rows),
        **groups,
        "group_found_or_its_mirror_image": mirror,
        "higher_group_found": accidental,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("-n", type=int, default=10_000, help=f"crystals, {PER_CONDITION} per condition")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--repeat-every", type=int, default=13, help="conditions per one asked again")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = describe_run(**vars(options))
    print_run(run)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    real = pool_crystals(options.data, "mp_20", "val", n=-(-options.n // PER_CONDITION), seed=options.seed)
    jobs = [
        (
            i,
            (
                kind,
                condition_of(kind, crystal, i // len(KINDS)),
                options.seed + i,
                i % options.repeat_every == 0,
            ),
        )
        for i, (kind, crystal) in enumerate(zip(cycle(KINDS), real))
    ]
    digest = nucleate.load(options.weights).digest[:12]
    path = options.work / f"obedience-{digest}-{options.seed}.jsonl"
    done = list(results(run_condition, jobs, path, weights=options.weights, workers=options.workers))
    rows = [row for result in done for row in result["rows"]]
    shifts = [shift for result in done for shift in result["shifts"]]
    same = [shift for shift in shifts if shift is not None]
    figures = {
        "obeyed": share([row["obeyed"] for row in rows]),
        "obeyed_by_kind": {
            kind: share(
                [row["obeyed"] for result in done if result["kind"] == kind for row in result["rows"]]
            )
            for kind in KINDS
        },
        **figures_of(rows),
        "same_template_at_other_batch_size": share([shift is not None for shift in shifts]),
        "within_1e-3_angstrom_at_other_batch_size": share([s is not None and s <= 1e-3 for s in shifts]),
        "largest_shift_angstrom": max(same, default=None),
        "generation_core_seconds_per_1000": 1000 * sum(r["seconds"] for r in done) / len(rows),
    }
    held_out = figures_of([check(crystal) for crystal in real])
    show(figures, held_out, digest)
    others = Counter(
        (row["group"], row["moyopy"], row["spglib"])
        for row in rows
        if not row["moyopy"] == row["spglib"] == row["group"]
    )
    listed = [{"asked": a, "moyopy": m, "spglib": s, "crystals": n} for (a, m, s), n in others.most_common()]
    print("other groups found (asked, moyopy, spglib: crystals): "
          + "; ".join(f"{r['asked']}, {r['moyopy']}, {r['spglib']}: {r['crystals']}" for r in listed[:30]))  # fmt: skip
    write_json(
        options.out,
        {"run": run, "weights": digest, "figures": figures, "held_out": held_out, "other_groups": listed},
    )


def show(figures: dict[str, Any], held_out: dict[str, Any], digest: str) -> None:
    """The figures, those of the real crystals beside them."""
    print(f"weights {digest}; conditions and real crystals from the pool val of MP-20; nothing filtered")

    def text(value: Any) -> str:
        if isinstance(value, dict) and "value" in value:
            low, high = value["ci95"]
            return f"{100 * value['value']:.2f} % ({100 * low:.2f} to {100 * high:.2f}, n {value['n']:,})"
        return "" if value is None else f"{value:.3g}"

    for name, value in figures.items():
        if name == "obeyed_by_kind":
            for kind, inside in value.items():
                print(f"  {kind:40s} {text(inside)}")
        else:
            real = held_out.get(name)
            print(f"{name:42s} {text(value)}" + (f"; real crystals {text(real)}" if real is not None else ""))


if __name__ == "__main__":
    main()
