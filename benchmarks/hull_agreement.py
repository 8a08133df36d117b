"""Energies above hull of FlowMM's samples: those that came with them against ours.

    python benchmarks/hull_agreement.py --data ../shared/data --count 200 --cache FOLDER

FlowMM's ``chgnet_ehull`` is the CHGNet energy of a relaxed sample above the hull of the whole Materials Project's DFT
energies. Ours is the same crystal's CHGNet energy above a hull of CHGNet energies: elements (bundled) and the records
of the train and val pools within ``--near`` of their given DFT hull (all records where none is given), as they are
(``--window 0``) or relaxed where they lie near the hull. Prints Spearman's rank correlation, the offset and how both
depend on how much of a chemical system the records cover. Energies are kept in ``--cache``; a killed run goes on.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from scipy.stats import spearmanr

from nucleate.crystal import Crystal, UnitCell, encode
from nucleate.energetics.cache import ResultCache
from nucleate.energetics.chgnet_potential import CHGNetPotential
from nucleate.energetics.element_references import ElementReferences
from nucleate.energetics.hull import ReferenceHull, System
from nucleate.energetics.potential import evaluate_each
from nucleate.energetics.reference_energies import ComputedEntries, JoinedEntries
from nucleate.errors import NucleateError

#: File, column of the id, column of the given DFT energy above hull.
SOURCES = (
    ("mp_20", "material_id", "e_above_hull"),
    ("mpts_52", "material_id", "energy_above_hull"),
    ("mp_40", "material_id", "energy_above_hull"),
    ("jarvis_dft3d", "jid", "ehull"),
    ("wbm", "row", None),
)


def cell_of(row: dict[str, Any]) -> UnitCell:
    return UnitCell(
        np.array(row["lattice"]).reshape(3, 3),
        np.array(row["frac_coords"]).reshape(-1, 3),
        np.array(row["numbers"], dtype=np.int64),
    )


class Records:
    """Records of the train and val pools by chemical system, encoded when asked for."""

    def __init__(self, folder: Path, *, near: float, max_atoms: int) -> None:
        self._rows: dict[System, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
        for name, key, hull in SOURCES:
            columns = [key, "numbers", "lattice", "frac_coords", "pool"] + ([hull] if hull else [])
            table = pq.read_table(
                folder / f"{name}.parquet", columns=columns, filters=[("pool", "in", ["train", "val"])]
            )
            for row in table.to_pylist():
                far = hull is not None and row[hull] is not None and row[hull] > near
                if not far and len(row["numbers"]) <= max_atoms:
                    self._rows[frozenset(row["numbers"])].append((f"{name} {row[key]}", row))

    @property
    def systems(self) -> frozenset[System]:
        return frozenset(self._rows)

    def __call__(self, system: System) -> list[tuple[str, Crystal]]:
        found = []
        for name, row in self._rows[system]:
            try:
                found.append((name, encode(cell_of(row)).crystal))
            except NucleateError as error:
                print(f"{name} left out: {error}")
        return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--near", type=float, default=0.05, help="eV/atom above the given DFT hull")
    parser.add_argument("--window", type=float, default=0.0, help="relax records this near our hull, eV/atom")
    parser.add_argument("--max-atoms", type=int, default=40)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")

    table = pq.read_table(arguments.data / "peer_samples.parquet").to_pylist()
    samples = [row for row in table if row["method"].startswith("FlowMM") and row["chgnet_ehull"] is not None]
    rng = np.random.default_rng(arguments.seed)
    samples = [samples[i] for i in rng.permutation(len(samples))[: arguments.count]]

    potential = CHGNetPotential()
    cache = ResultCache(arguments.cache)
    elements = ElementReferences(potential, cache=cache)
    records = Records(arguments.data, near=arguments.near, max_atoms=arguments.max_atoms)
    computed = ComputedEntries(
        records.systems,
        records,
        elements=elements,
        potential=potential,
        cache=cache,
        window=arguments.window,
    )
    hull = ReferenceHull(JoinedEntries(elements, computed))
    evaluations = evaluate_each(potential, [cell_of(row) for row in samples])
    rows = []
    for sample, evaluation in zip(samples, evaluations):
        numbers = sample["numbers"]
        counts = {z: numbers.count(z) for z in sorted(set(numbers))}
        place = hull.place(counts, evaluation.energy / len(numbers))
        rows.append(
            {
                "sample": sample["sample_index"],
                "theirs": sample["chgnet_ehull"],
                "theirs_corrected": sample["chgnet_ehull_corrected"],
                "ours": place.energy_above_hull,
                "formation_energy": place.formation_energy,
                "known": place.is_known,
                "covered": place.completeness.covered,
                "elements": len(counts),
                "problem": evaluation.problem,
            }
        )
        if len(rows) % 20 == 0:
            print(f"{len(rows)} of {len(samples)}", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1))
    report(rows)


def report(rows: list[dict[str, Any]]) -> None:
    for which in ("theirs", "theirs_corrected"):
        print(f"\n{which}: of {len(rows)} samples {sum(row['known'] for row in rows)} have a known hull")
        print("covered subsystems      n   Spearman   median ours - theirs   10 %   90 %  (eV/atom)")
        for least in (0.0, 0.5, 0.75, 1.0):
            chosen = [
                row for row in rows if row["known"] and row["covered"] >= least and row[which] is not None
            ]
            if len(chosen) < 5:
                continue
            ours, theirs = (np.array([row[name] for row in chosen], dtype=float) for name in ("ours", which))
            low, middle, high = np.percentile(ours - theirs, [10, 50, 90])
            print(
                f"at least {least:4.2f}        {len(chosen):4d}   {spearmanr(ours, theirs).statistic:8.3f}   "
                f"{middle:10.4f}            {low:8.4f} {high:8.4f}"
            )


if __name__ == "__main__":
    main()
