"""Every Wyckoff position of every space group: a crystal with one orbit on it has exactly its group.

For each of the 1,731 positions a crystal is drawn: generic lattice, one orbit on the position, three
general orbits of other elements. moyopy and spglib must find the group at symprec 1e-4, and the crystal
must come back from its own decoded cell with the same keys and volume. Negative control: without the three
general orbits many positions have a higher group, which the same check must notice.

Example: python benchmarks/positions.py --out positions.json
"""

from __future__ import annotations

import argparse
import logging
import os
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from encode_real import moyo_group, spglib_group
from nucleate.crystal import Crystal, WyckoffPosition, encode, space_group
from nucleate.errors import NucleateError
from real_structures import describe_run, print_run, write_json

SYMPREC = 1e-4
ELEMENTS = (26, 8, 14, 38)  # the position's own, then the general orbits
VOLUME_PER_ATOM = 40.0  # Å^3, roomy so that random orbits keep apart
DRAWS = 30


def draw_crystal(position: WyckoffPosition, num_general: int, rng: np.random.Generator) -> Crystal:
    """The roomiest of several random crystals with an orbit on the position and some general orbits."""
    group = space_group(position.space_group_number)
    best, widest = None, -1.0
    for _ in range(DRAWS):
        params = rng.normal(scale=0.12, size=group.lattice_subspace.num_params)
        params[0] = np.log(VOLUME_PER_ATOM) / 3**0.5
        indices = np.array([position.index] + [len(group.letters) - 1] * num_general)
        free = rng.uniform(size=(len(indices), 3))
        free[0, position.num_free :] = 0
        crystal = Crystal(group.number, params, indices, np.array(ELEMENTS[: len(indices)]), free)
        gap = shortest_distance(crystal)
        if gap > widest:
            best, widest = crystal, gap
    assert best is not None
    return best


def shortest_distance(crystal: Crystal) -> float:
    """Shortest distance in Å between two atoms, by the nearest images of each pair."""
    cell = crystal.unit_cell("primitive")
    delta = cell.frac_coords[:, None] - cell.frac_coords
    delta -= np.rint(delta)
    distances = np.linalg.norm(delta @ cell.lattice, axis=-1)
    return float(distances[~np.eye(len(distances), dtype=bool)].min()) if len(distances) > 1 else np.inf


def check_position(position: WyckoffPosition, rng: np.random.Generator) -> dict[str, Any]:
    """What is found for one position."""
    crystal = draw_crystal(position, 3, rng)
    cell = crystal.unit_cell("primitive")
    line: dict[str, Any] = {
        "group": position.space_group_number,
        "letter": position.letter,
        "moyopy": moyo_group(cell, SYMPREC),
        "spglib": spglib_group(cell, SYMPREC),
        "shortest_distance": shortest_distance(crystal),
    }
    try:
        again = encode(crystal.unit_cell("conventional"), symprec=SYMPREC).crystal
        line["same"] = bool(
            again.bucket_key == crystal.bucket_key
            and again.handedness == crystal.handedness
            and abs(again.volume_per_atom / crystal.volume_per_atom - 1) < 1e-9
        )
        line["keys"] = [crystal.bucket_key, again.bucket_key, crystal.handedness, again.handedness]
    except NucleateError as error:
        line |= {"same": False, "keys": str(error)}
    alone = draw_crystal(position, 0, rng)
    line["alone"] = moyo_group(alone.unit_cell("primitive"), SYMPREC)
    return line


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="not used: the positions come with the package")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument(
        "--groups", type=int, nargs="*", default=list(range(1, 231)), help="space groups to look at"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.getLogger("moyo").addHandler(logging.NullHandler())
    warnings.simplefilter("ignore")
    run = describe_run(symprec=SYMPREC, seed=options.seed, groups=f"{len(options.groups)} groups")
    print_run(run)
    start, lines = time.perf_counter(), []
    for number in options.groups:
        for position in space_group(number).wyckoff_positions:
            rng = np.random.default_rng([options.seed, number, position.index])
            lines.append(check_position(position, rng))
        if number % 23 == 0:
            print(f"{number} groups, {len(lines)} positions, {time.perf_counter() - start:.0f} s", flush=True)
    wrong = [x for x in lines if not (x["moyopy"] == x["spglib"] == x["group"] and x["same"])]
    figures = {
        "positions": len(lines),
        "moyopy": sum(x["moyopy"] == x["group"] for x in lines),
        "spglib": sum(x["spglib"] == x["group"] for x in lines),
        "same_after_encoding": sum(x["same"] for x in lines),
        "control_higher_group_alone": sum(x["alone"] != x["group"] for x in lines),
        "shortest_distance": min(x["shortest_distance"] for x in lines),
    }
    for name, value in figures.items():
        print(f"{name:28s}{value:10.4g}")
    for line in wrong:
        print(f"  {line}")
    write_json(options.out, {"run": run, "figures": figures, "wrong": wrong, "positions": lines})


if __name__ == "__main__":
    main()
