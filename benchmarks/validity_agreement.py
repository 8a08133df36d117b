"""Validity of published samples: ours against a plain computation with pymatgen and SMACT, and against the papers.

    python benchmarks/validity_agreement.py --data ../shared/data [--smact FOLDER_OF_SMACT_2.2.1]

For CrystalFormer and FlowMM (peer_samples.parquet) and for held-out crystals of MP-20 it prints structural and
compositional validity three times: by ``nucleate evaluate``'s family, by CDVAE's functions written out plainly on
pymatgen's distance matrix and SMACT's own functions, and as published. The plain computation uses SMACT 2.2.1, which
the published tables used, where its folder is given (``pip download --no-deps smact==2.2.1``, unzipped), and the
installed version besides, to show what the version changes. Exits with 1 if a single crystal is judged differently.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from pymatgen.core import Structure

from nucleate.crystal import UnitCell
from nucleate.evaluation.candidate import Candidate
from nucleate.evaluation.context import Context
from nucleate.evaluation.statistics import wilson_interval
from nucleate.evaluation.validity import family

PUBLISHED = {"FlowMM": (0.9685, 0.8319)}
"""Structural and compositional validity of FlowMM on MP-20, 10,000 samples as generated (Miller et al., ICML 2024)."""


def read_sets(folder: Path) -> dict[str, list[UnitCell]]:
    """The samples, and crystals of MP-20 that nobody trained on here (pool ``val``)."""
    columns = ["numbers", "lattice", "frac_coords"]
    peers = pq.read_table(folder / "peer_samples.parquet", columns=["method", *columns]).to_pylist()
    sets: dict[str, list[UnitCell]] = {"FlowMM": [], "CrystalFormer": []}
    for row in peers:
        name = row["method"].split("_")[0]
        if name in sets:
            sets[name].append(cell_of(row))
    held_out = pq.read_table(folder / "mp_20.parquet", columns=columns, filters=[("pool", "=", "val")])
    sets["MP-20 held out"] = [cell_of(row) for row in held_out.to_pylist()]
    return sets


def cell_of(row: dict) -> UnitCell:
    return UnitCell(
        np.array(row["lattice"], dtype=float).reshape(3, 3),
        np.array(row["frac_coords"], dtype=float).reshape(-1, 3),
        np.array(row["numbers"], dtype=np.int64),
    )


def structural_plainly(cell: UnitCell) -> bool:
    structure = Structure(cell.lattice, cell.atomic_numbers, cell.frac_coords)
    matrix = structure.distance_matrix + np.diag(np.full(len(structure), 10.5))
    return bool(matrix.min() >= 0.5 and structure.volume >= 0.1)


def compositions(cells: list[UnitCell]) -> list[tuple[list[int], list[int]]]:
    """Elements in ascending order with the counts of the reduced formula, as CDVAE hands them to its rule."""
    found = []
    for cell in cells:
        counts = Counter(cell.atomic_numbers.tolist())
        numbers = sorted(counts)
        divisor = int(np.gcd.reduce(list(counts.values())))
        found.append((numbers, [counts[z] // divisor for z in numbers]))
    return found


def compositional_plainly(asked: list[tuple[list[int], list[int]]]) -> list[bool]:
    """CDVAE's ``smact_validity`` with the SMACT that can be imported."""
    import smact
    from smact.screening import pauling_test

    known: dict[str, bool] = {}
    answers = []
    for numbers, count in asked:
        key = f"{numbers} {count}"
        if key not in known:
            known[key] = smact_validity(smact, pauling_test, numbers, count)
        answers.append(known[key])
    return answers


def smact_validity(smact: object, pauling_test: object, numbers: list[int], count: list[int]) -> bool:
    symbols = tuple(smact.ordered_elements(1, 103)[z - 1] for z in numbers)
    elements = [smact.Element(symbol) for symbol in symbols]
    if len(symbols) == 1 or all(symbol in smact.metals for symbol in symbols):
        return True
    states = [e.oxidation_states or [] for e in elements]
    if np.prod([float(len(s)) for s in states]) > 1e7:
        return False
    enegs = [e.pauling_eneg for e in elements]
    for chosen in itertools.product(*states):
        ratios = smact.neutral_ratios(chosen, stoichs=[(c,) for c in count], threshold=max(count))
        if isinstance(ratios, tuple):  # SMACT before 4 says first whether there are any
            ratios = ratios[1]
        if not ratios:
            continue
        try:
            passes = pauling_test(chosen, enegs)
        except TypeError:  # no electronegativity: assumed to pass
            passes = True
        if passes:
            return True
    return False


def in_other_smact(asked: list[tuple[list[int], list[int]]], package: Path) -> list[bool]:
    """``compositional_plainly`` in a process that imports SMACT from ``package``."""
    with tempfile.TemporaryDirectory() as folder:
        questions, answers = Path(folder, "asked.json"), Path(folder, "answers.json")
        questions.write_text(json.dumps(asked))
        subprocess.run(
            [sys.executable, __file__, "--answer", str(questions), str(answers), "--smact", str(package)],
            check=True,
        )
        return json.loads(answers.read_text())


def ours(cells: list[UnitCell]) -> tuple[list[bool], list[bool]]:
    """What the family ``validity`` says of each cell."""
    candidates = [Candidate(i, str(i), "", cell, None) for i, cell in enumerate(cells)]
    rows = family().rows(candidates, Context(None))
    return [r["structurally_valid"] for r in rows], [r["compositionally_valid"] for r in rows]


def show(name: str, what: str, flags: list[bool], note: str = "") -> None:
    low, high = wilson_interval(sum(flags), len(flags))
    print(
        f"{name:16} {what:34} {np.mean(flags):8.2%}   [{low:.2%}, {high:.2%}]   "
        f"{sum(flags):5} of {len(flags):5}   {note}"
    )


def compare(data: Path, package: Path | None) -> int:
    different = 0
    for name, cells in read_sets(data).items():
        start = time.perf_counter()
        structural, compositional = ours(cells)
        seconds = time.perf_counter() - start
        plain = [structural_plainly(cell) for cell in cells]
        asked = compositions(cells)
        published = PUBLISHED.get(name)
        wrong = sum(a != b for a, b in zip(structural, plain))
        different += wrong
        show(
            name,
            "structural, ours",
            structural,
            f"{1e3 * seconds / len(cells):.1f} ms per crystal, all checks",
        )
        show(name, "structural, pymatgen", plain, f"{wrong} crystals differ")
        if package is not None:
            old = in_other_smact(asked, package)
            wrong = sum(a != b for a, b in zip(compositional, old))
            different += wrong
        show(name, "compositional, ours", compositional)
        if package is not None:
            show(name, "compositional, SMACT 2.2.1", old, f"{wrong} crystals differ")
        new = compositional_plainly(asked)
        changed = sum(a != b for a, b in zip(compositional, new))
        show(name, "compositional, installed SMACT", new, f"{changed} change with the version")
        if published is not None:
            for what, mine, value in zip(
                ("structural", "compositional"), (structural, compositional), published
            ):
                gap = 100 * (np.mean(mine) - value)
                print(f"{name:16} {what + ', published':34} {value:8.2%}   ours is {gap:+.2f} points away")
        print()
    return different


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with the benchmark data")
    parser.add_argument("--smact", type=Path, help="folder that holds the package smact, version 2.2.1")
    parser.add_argument("--answer", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        sys.path.insert(0, str(options.smact.resolve()))
        options.answer[1].write_text(
            json.dumps(compositional_plainly(json.loads(options.answer[0].read_text())))
        )
    elif options.data is None:
        parser.error("--data is needed")
    else:
        sys.exit(1 if compare(options.data, options.smact) else 0)
