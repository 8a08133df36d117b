"""Structures of the benchmark data by pool, for the scripts that fit tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

SOURCES = ("mp_20", "mpts_52", "jarvis_dft3d", "wbm", "mp_40")


@dataclass(frozen=True)
class PoolStructure:
    """One row of the benchmark data: where it is from, its reduced formula and its cell."""

    source: str
    formula: str
    atomic_numbers: np.ndarray
    lattice: np.ndarray
    frac_coords: np.ndarray

    @property
    def volume_per_atom(self) -> float:
        """Å³ per atom."""
        return abs(float(np.linalg.det(self.lattice))) / len(self.atomic_numbers)


def read_pool(folder: Path, pool: str) -> list[PoolStructure]:
    """All structures of one pool (``train`` or ``val``), in file order; test rows are never read."""
    if pool not in ("train", "val"):
        raise ValueError(f"tables are fitted on train and checked on val, not on {pool!r}")
    structures = []
    for source in SOURCES:
        columns = ["numbers", "lattice", "frac_coords", "reduced_formula", "pool"]
        table = pq.read_table(
            folder / f"{source}.parquet", columns=columns, filters=[("pool", "=", pool)]
        ).to_pydict()
        for numbers, lattice, frac, formula in zip(
            table["numbers"], table["lattice"], table["frac_coords"], table["reduced_formula"]
        ):
            structures.append(
                PoolStructure(
                    source,
                    formula,
                    np.array(numbers, dtype=np.int64),
                    np.array(lattice, dtype=np.float64).reshape(3, 3),
                    np.array(frac, dtype=np.float64).reshape(-1, 3),
                )
            )
    return structures


def split_pools(folder: Path, *, held_out_share: float = 0.1) -> tuple[list, list, list]:
    """(fit, held out, val): train rows without val's formulas, a tenth of the formulas aside, and val."""
    val = read_pool(folder, "val")
    val_formulas = {structure.formula for structure in val}
    train = [structure for structure in read_pool(folder, "train") if structure.formula not in val_formulas]
    formulas = sorted({structure.formula for structure in train})
    np.random.default_rng(0).shuffle(formulas)
    held = set(formulas[: int(held_out_share * len(formulas))])
    fit = [structure for structure in train if structure.formula not in held]
    return fit, [structure for structure in train if structure.formula in held], val
