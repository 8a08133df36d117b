"""Structures per second on one core: moyopy alone, nucleate, and pymatgen with pyxtal.

All contenders take turns on blocks of the same structures, in an order that changes, and processor time is
taken, so that a busy machine slows all of them alike; the table gives the median over the blocks of the time per
structure and of the ratio to moyopy alone, and both once more with the best round of every block, which is what
a quiet machine would show. Then two worker processes against one, by the clock on the wall.

Contenders: ``moyopy`` (symmetry dataset of cells built beforehand), ``moyopy from lists`` (cells built in the
clock: the floor), ``unit cell`` (``nucleate.crystal.encode``), ``pymatgen`` and ``CIF text``
(``Crystal.from_structure``), ``SpacegroupAnalyzer + pyxtal`` (``get_symmetry_dataset`` and ``from_seed``).

Example: python benchmarks/encode_speed.py --data ../shared/data --out encode_speed.json
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import moyopy
import numpy as np
import pyarrow.parquet as pq
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from nucleate.crystal import Crystal, UnitCell, encode
from nucleate.crystal.convert import unit_cell_to_pymatgen
from real_structures import RealStructure, describe_run, print_run, sample_structures, write_json

SYMPREC = 0.01
FILE = "mp_20"
FLOOR = "moyopy from lists"


def moyo_cell(cell: UnitCell) -> moyopy.Cell:
    """moyopy's own cell."""
    return moyopy.Cell(cell.lattice.tolist(), cell.frac_coords.tolist(), cell.atomic_numbers.tolist())


def from_seed(structure: Any) -> None:
    """What a pymatgen and pyxtal user runs to get an asymmetric unit."""
    from pyxtal import pyxtal  # loads for seconds

    SpacegroupAnalyzer(structure, symprec=SYMPREC).get_symmetry_dataset()
    crystal = pyxtal()
    crystal.from_seed(structure, tol=SYMPREC)


def contenders(
    sample: list[RealStructure], texts: list[str], with_pyxtal: bool
) -> dict[str, tuple[Callable[[Any], Any], list[Any]]]:
    """(function, its inputs) by name."""
    cells = [s.cell for s in sample]
    lists = [(c.lattice.tolist(), c.frac_coords.tolist(), c.atomic_numbers.tolist()) for c in cells]
    structures = [unit_cell_to_pymatgen(c) for c in cells]
    table: dict[str, tuple[Callable[[Any], Any], list[Any]]] = {
        "moyopy": (lambda c: moyopy.MoyoDataset(c, symprec=SYMPREC), [moyo_cell(c) for c in cells]),
        FLOOR: (lambda c: moyopy.MoyoDataset(moyopy.Cell(*c), symprec=SYMPREC), lists),
        "unit cell": (encode, cells),
        "pymatgen": (Crystal.from_structure, structures),
        "CIF text": (Crystal.from_structure, texts),
    }
    if with_pyxtal:
        table["SpacegroupAnalyzer + pyxtal"] = (from_seed, structures)
    return table


def run_turns(table: dict[str, Any], num: int, block: int, rounds: int) -> dict[str, np.ndarray]:
    """Seconds per structure of each contender, rounds x blocks."""
    names = list(table)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    failures: dict[str, int] = dict.fromkeys(names, 0)
    for round_number in range(rounds):
        for first in range(0, num, block):
            turn = (round_number + first // block) % len(names)
            for name in names[turn:] + names[:turn]:
                function, inputs = table[name]
                part = inputs[first : first + block]
                start = time.process_time()
                for item in part:
                    try:
                        function(item)
                    except Exception:
                        failures[name] += 1
                seconds[name].append((time.process_time() - start) / len(part))
    for name, count in failures.items():
        if count:
            print(f"{name}: {count} of {num * rounds} inputs failed")
    return {name: np.array(values).reshape(rounds, -1) for name, values in seconds.items()}


def _encode_all(cells: list[UnitCell]) -> int:
    return sum(encode(cell).crystal.num_orbits for cell in cells)


def two_workers(cells: list[UnitCell], repeats: int) -> dict[str, float]:
    """Speed-up of two worker processes over one: median over repeats, taken in turn."""
    ratios, single = [], []
    halves = [cells[0::2] * 4, cells[1::2] * 4]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(_encode_all, halves, chunksize=1)  # both workers load tables
        for _ in range(repeats):
            start = time.perf_counter()
            for half in halves:
                pool.apply(_encode_all, (half,))
            middle = time.perf_counter()
            pool.map(_encode_all, halves, chunksize=1)
            end = time.perf_counter()
            single.append(middle - start)
            ratios.append((middle - start) / (end - middle))
    return {"speed_up": float(np.median(ratios)), "best": max(ratios), "structures": 4 * len(cells)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--size", type=int, default=1000, help="number of structures")
    parser.add_argument(
        "--block", type=int, default=250, help="structures per turn, as in a loop over a data set"
    )
    parser.add_argument("--rounds", type=int, default=3, help="times each structure is done without pyxtal")
    parser.add_argument("--no-pyxtal", action="store_true", help="leave the slow contender out")
    parser.add_argument("--repeats", type=int, default=7, help="turns of one worker against two")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    run = describe_run(**vars(options))
    print_run(run)
    sample = sample_structures(options.data, size=options.size, seed=options.seed, files=(FILE,))
    column = pq.read_table(options.data / f"{FILE}.parquet", columns=["cif"])["cif"]
    texts = [column[s.row].as_py() for s in sample]
    atoms = np.array([s.cell.num_atoms for s in sample])
    print(f"{len(sample)} structures of {FILE}, {atoms.mean():.1f} atoms on average")

    table = contenders(sample, texts, with_pyxtal=False)
    run_turns(table, min(100, len(sample)), options.block, 1)  # caches and tables are loaded
    seconds = run_turns(table, len(sample), options.block, options.rounds)
    figures = figures_of(seconds)
    if not options.no_pyxtal:
        slow = contenders(sample, texts, with_pyxtal=True)
        chosen = {name: slow[name] for name in (FLOOR, "pymatgen", "SpacegroupAnalyzer + pyxtal")}
        run_turns(chosen, min(options.block, len(sample)), options.block, 1)
        against = run_turns(chosen, len(sample), options.block, 1)
        figures["SpacegroupAnalyzer + pyxtal"] = figures_of(against)["SpacegroupAnalyzer + pyxtal"]
        ratio = against["SpacegroupAnalyzer + pyxtal"] / against["pymatgen"]
        figures["pyxtal over pymatgen into nucleate"] = float(np.median(ratio))
    print(
        f"{'':30s}{'ms each':>9s}{'per second':>12s}{'/ floor':>9s}{'quartiles':>12s}{'best ms':>9s}{'/ floor':>9s}"
    )
    for name, row in figures.items():
        if isinstance(row, dict):
            low, high = row["ratio_quartiles"]
            print(
                f"{name:30s}{row['ms']:9.3f}{1000 / row['ms']:12.0f}{row['ratio']:9.2f}{low:7.2f}-{high:.2f}"
                f"{row['best_ms']:9.3f}{row['best_ratio']:9.2f}"
            )
    if not options.no_pyxtal:
        print(
            f"pyxtal over pymatgen into nucleate: {figures['pyxtal over pymatgen into nucleate']:.1f} times"
        )
    workers = two_workers([s.cell for s in sample], options.repeats)
    print(
        f"two workers over one: {workers['speed_up']:.2f} times "
        f"(best of {options.repeats}: {workers['best']:.2f})"
    )
    write_json(options.out, {"run": run, "figures": figures, "two_workers": workers})


def figures_of(seconds: dict[str, np.ndarray]) -> dict[str, Any]:
    """Median time and ratio to the floor of each contender, and both for the best round of every block."""
    figures: dict[str, Any] = {}
    for name, values in seconds.items():
        ratio = values / seconds[FLOOR]
        best = values.min(axis=0).mean()
        figures[name] = {
            "ms": float(np.median(values)) * 1e3,
            "ratio": float(np.median(ratio)),
            "ratio_quartiles": [float(q) for q in np.percentile(ratio, (25, 75))],
            "best_ms": float(best) * 1e3,
            "best_ratio": float(best / seconds[FLOOR].min(axis=0).mean()),
        }
    return figures


if __name__ == "__main__":
    main()
