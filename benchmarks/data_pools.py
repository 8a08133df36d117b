"""Structures of the data folder by source and pool, as crystals and as stores to evaluate against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nucleate.crystal import Crystal, UnitCell, encode
from nucleate.data import Store, build_store
from nucleate.errors import NucleateError

SOURCES = {
    "mp_20": "material_id",
    "mpts_52": "material_id",
    "jarvis_dft3d": "jid",
    "wbm": "row",
    "mp_40": "material_id",
}
"""Files with a column ``pool``, and what their rows are called by."""


def pool_table(data: Path, source: str, pool: str, *, more: Sequence[str] = ()) -> pa.Table:
    """``id``, ``numbers``, ``lattice``, ``frac_coords`` and ``more`` columns of the rows of one pool of one file."""
    name = SOURCES[source]
    columns = ["pool", name, "numbers", "lattice", "frac_coords", *more]
    table = pq.read_table(data / f"{source}.parquet", columns=columns)
    table = table.filter(pc.equal(table["pool"], pool)).drop_columns(["pool"])
    ids = pa.array([f"{source}/{value}" for value in table[name].to_pylist()])
    return table.drop_columns([name]).add_column(0, "id", ids)


def cells_of(table: pa.Table) -> list[UnitCell]:
    """The unit cells of a table with ``numbers``, ``lattice`` and ``frac_coords``."""
    return [
        UnitCell(
            np.reshape(row["lattice"], (3, 3)).astype(float),
            np.reshape(row["frac_coords"], (-1, 3)).astype(float),
            np.array(row["numbers"], dtype=np.int64),
        )
        for row in table.select(["numbers", "lattice", "frac_coords"]).to_pylist()
    ]


def sampled_rows(table: pa.Table, n: int, seed: int) -> pa.Table:
    """A sample of at most n rows without repetition, in random order."""
    return table.take(np.random.default_rng(seed).permutation(len(table))[:n])


def pool_crystals(data: Path, source: str, pool: str, *, n: int, seed: int) -> list[Crystal]:
    """A random sample of at most n crystals of a pool; what cannot be encoded is named and left out."""
    return encoded(sampled_rows(pool_table(data, source, pool), n, seed))


def mixed_crystals(data: Path, *, n: int, seed: int) -> list[Crystal]:
    """The same of the pools ``train`` of all sources together."""
    return encoded(
        sampled_rows(pa.concat_tables([pool_table(data, name, "train") for name in SOURCES]), n, seed)
    )


def encoded(table: pa.Table) -> list[Crystal]:
    """The crystals of a table; what cannot be encoded is named and left out."""
    crystals = []
    for name, cell in zip(table["id"].to_pylist(), cells_of(table)):
        try:
            crystals.append(encode(cell).crystal)
        except NucleateError as error:
            print(f"{name} left out: {error}", flush=True)
    return crystals


def pool_store(data: Path, work: Path, *, train: tuple[str, ...], held_out: str = "mp_20") -> Path:
    """Folder of a store: the pools ``train`` of some files, and the pool ``val`` of one as its split ``val``.

    Built once below ``work``; a build that was stopped goes on.
    """
    folder = work / ("store-" + "-".join(train))
    if not (folder / "manifest.json").exists():
        parts = [(pool_table(data, source, "train"), "train") for source in train]
        parts.append((pool_table(data, held_out, "val"), "val"))
        table = pa.concat_tables(
            [part.append_column("split", pa.array([split] * len(part))) for part, split in parts]
        )
        path = work / f"{folder.name}.parquet"
        work.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        build_store(path, folder, split="given")
    return folder


def open_pool_store(data: Path, work: Path, *, train: tuple[str, ...], held_out: str = "mp_20") -> Store:
    """That store, opened."""
    return Store.open(pool_store(data, work, train=train, held_out=held_out))
