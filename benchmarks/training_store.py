"""Build the store that the shipped weights are trained on, without what matches a test structure.

The pools ``train`` (split train) and ``val`` (split val) of the benchmark data, each record with the data set that it
comes from. Left out of train, and listed in ``OUT.left_out.csv``, is every structure that pymatgen's StructureMatcher
(default tolerances) matches with a test structure of MP-20 or MPTS-52 of the same reduced formula; the pool already
lacks, but for MP-20, every formula of a test set. Band gaps and formation energies come along for the property head,
where they are PBE values of the Materials Project or of WBM, which uses its settings; those of JARVIS are of another
functional.

    python benchmarks/training_store.py --data DATA --out runs/store
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from data_pools import SOURCES, pool_table
from nucleate.data import build_store

TEST_SETS = ("mp_20", "mpts_52")
PROPERTIES = {
    "mp_20": ("band_gap", "formation_energy_per_atom"),
    "mpts_52": ("formation_energy_per_atom",),
    "wbm": ("band_gap", "formation_energy_per_atom"),
    "mp_40": ("band_gap",),
}
"""Columns of the files that are kept as properties, eV and eV/atom."""


def sourced_rows(data: Path, source: str, pool: str) -> pa.Table:
    """``pool_table`` with the data set and the ``PROPERTIES`` of every row, null where a data set has none."""
    kept = PROPERTIES.get(source, ())
    table = pool_table(data, source, pool, more=kept)
    for name in sorted({name for names in PROPERTIES.values() for name in names}):
        values = table[name].to_pylist() if name in kept else [None] * len(table)
        table = table.drop_columns([name]) if name in kept else table
        table = table.append_column(name, pa.array(values, type=pa.float64()))
    return table.append_column("data_set", pa.array([source] * len(table)))


def structures(table: pa.Table) -> Iterator[tuple[str, Structure]]:
    """(id, structure) of every row."""
    for row in table.to_pylist():
        lattice, coords = np.reshape(row["lattice"], (3, 3)), np.reshape(row["frac_coords"], (-1, 3))
        yield row["id"], Structure(lattice, row["numbers"], coords)


def matches_of_test(data: Path, training: list[pa.Table]) -> dict[str, str]:
    """Id of each training structure that matches a test structure, and the id of that one."""
    tests: dict[str, list[tuple[str, Structure]]] = defaultdict(list)
    for source in TEST_SETS:
        for name, structure in structures(pool_table(data, source, "test")):
            tests[structure.composition.reduced_formula].append((name, structure))
    matcher = StructureMatcher()
    found = {}
    for table in training:
        for name, structure in structures(table):
            same = tests.get(structure.composition.reduced_formula, ())
            match = next((other for other, test in same if matcher.fit(structure, test)), None)
            if match is not None:
                found[name] = match
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    training = [sourced_rows(options.data, source, "train") for source in SOURCES]
    left_out = matches_of_test(options.data, training)
    parts = [(table, "train") for table in training] + [(sourced_rows(options.data, "mp_20", "val"), "val")]
    table = pa.concat_tables(
        [part.append_column("split", pa.array([split] * len(part))) for part, split in parts]
    )
    table = table.filter(pc.invert(pc.is_in(table["id"], pa.array(list(left_out)))))
    path = options.out.with_suffix(".parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    with open(options.out.with_suffix(".left_out.csv"), "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("id", "matches"), *sorted(left_out.items())])
    report = build_store(path, options.out, split="given", source_options={"source_column": "data_set"})
    print(f"{report.manifest.split_counts}, {len(left_out)} left out as matches of test structures")


if __name__ == "__main__":
    main()
