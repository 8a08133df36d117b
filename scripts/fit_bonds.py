"""Writes src/nucleate/evaluation/tables/bonds.npz: bond lengths, coordination and angles of real crystals.

    python scripts/fit_bonds.py --data ../shared/data

Counted over the train pool (relaxed crystals of the Materials Project, JARVIS-DFT and WBM); the share of rare bonds
and coordination numbers on val is only printed. Three minutes on one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from nucleate.crystal import UnitCell
from nucleate.evaluation.bond_statistics import (
    MIN_VOTES,
    BondStatistics,
    bond_counts,
    build_statistics,
    judge_bonds,
)
from nucleate.evaluation.surroundings import surroundings
from structure_pool import PoolStructure, read_pool

OUTPUT = Path(__file__).resolve().parents[1] / "src" / "nucleate" / "evaluation" / "tables" / "bonds.npz"


def cell_of(structure: PoolStructure) -> UnitCell:
    return UnitCell(structure.lattice, structure.frac_coords, structure.atomic_numbers)


def print_check(statistics: BondStatistics, structures: list[PoolStructure]) -> None:
    judged = [judge_bonds(bond_counts(surroundings(cell_of(s))), statistics) for s in structures]
    for name in ("rare_bonds", "rare_coordination", "rare_angles"):
        values = np.array([getattr(j, name) for j in judged])
        print(f"val, {len(values)} crystals: mean share of {name} {np.nanmean(values):.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the benchmark data")
    folder = parser.parse_args().data
    pool = read_pool(folder, "train")
    statistics = build_statistics(
        map(cell_of, pool), source=f"{len(pool):,} relaxed crystals of MP, JARVIS-DFT and WBM (shipped)"
    )
    arrays = statistics.to_arrays()
    # A pair that few crystals have is judged by radii: its histogram would only repeat those crystals.
    frequent = statistics.lengths.sum(axis=1) >= MIN_VOTES
    arrays["pairs"], arrays["lengths"] = arrays["pairs"][frequent], arrays["lengths"][frequent]
    for name in ("lengths", "ratios", "coordination", "angles"):
        arrays[name] = arrays[name].astype(np.float32)
    np.savez_compressed(OUTPUT, **arrays)
    print(
        f"{frequent.sum()} of {len(frequent)} pairs, {statistics.num_crystals} crystals, "
        f"{OUTPUT.stat().st_size} bytes in {OUTPUT}"
    )
    print_check(statistics, read_pool(folder, "val"))
