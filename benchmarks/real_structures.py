"""Structures of the Parquet files in a data folder, with their ids, and a description of the run."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from nucleate.crystal import UnitCell

STRUCTURE_COLUMNS = ("numbers", "lattice", "frac_coords")
ID_COLUMNS = ("material_id", "jid", "name", "sample_index", "row")
GROUP_COLUMNS = ("spacegroup_number", "space_group_number", "spacegroup_spglib_0.01")


@dataclass(frozen=True)
class RealStructure:
    """One row with a structure.

    Attributes:
        file: name of the file without suffix.
        row: row of the file.
        id: the row's own id, with the method in front for samples of other generators.
        cell: the structure.
        given_group: space group number the file states, None where it states none.
    """

    file: str
    row: int
    id: str
    cell: UnitCell
    given_group: int | None


def structure_files(data: Path) -> list[Path]:
    """Parquet files of the folder that have structure columns, by name."""
    files = sorted(data.glob("*.parquet"))
    return [f for f in files if set(STRUCTURE_COLUMNS) <= set(pq.read_schema(f).names)]


def num_rows(path: Path) -> int:
    """Rows of a Parquet file."""
    return pq.ParquetFile(path).metadata.num_rows


def read_structures(path: Path, rows: range | None = None) -> Iterator[RealStructure]:
    """Structures of the rows asked for (all unless given); rows without a structure are left out."""
    names = pq.read_schema(path).names
    id_columns = [c for c in ID_COLUMNS if c in names][:1] + [c for c in ("method",) if c in names]
    group_columns = [c for c in GROUP_COLUMNS if c in names]
    table = pq.read_table(path, columns=[*STRUCTURE_COLUMNS, *id_columns, *group_columns])
    rows = range(len(table)) if rows is None else rows
    for row in rows:
        values = {name: table[name][row].as_py() for name in table.column_names}
        if not values["numbers"]:
            continue
        name = str(values[id_columns[0]]) if id_columns else str(row)
        if "method" in values:
            name = f"{values['method']}/{row}"
        given = values[group_columns[0]] if group_columns else None
        cell = UnitCell(
            np.array(values["lattice"], dtype=float).reshape(3, 3),
            np.array(values["frac_coords"], dtype=float).reshape(-1, 3),
            np.array(values["numbers"], dtype=np.int64),
        )
        yield RealStructure(path.stem, row, name, cell, None if given is None else int(given))


def sample_structures(
    data: Path, *, size: int, seed: int, files: tuple[str, ...] = ()
) -> list[RealStructure]:
    """A random sample of the rows of the files (all structure files unless named)."""
    chosen = [f for f in structure_files(data) if not files or f.stem in files]
    rng = np.random.default_rng(seed)
    pairs = [(path, row) for path in chosen for row in range(num_rows(path))]
    order = rng.permutation(len(pairs))
    wanted: dict[Path, set[int]] = {}
    # A few spare rows, since some have no structure.
    for i in order[: size + size // 7 + 20]:
        wanted.setdefault(pairs[i][0], set()).add(pairs[i][1])
    found = [s for path, rows in wanted.items() for s in read_structures(path, rows=sorted(rows))]  # type: ignore[arg-type]
    keep = rng.permutation(len(found))[:size]
    return [found[i] for i in sorted(keep)]


def describe_run(**settings: Any) -> dict[str, Any]:
    """Versions, machine and the settings of this run."""
    versions = {"python": platform.python_version()}
    for package in (
        "nucleate",
        "numpy",
        "moyopy",
        "spglib",
        "pymatgen-core",
        "pyxtal",
        "gemmi",
        "pyarrow",
        "torch",
    ):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    machine = {"cores": os.cpu_count(), "system": platform.platform(), "processor": _processor()}
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    return {"versions": versions, "machine": machine, "OMP_NUM_THREADS": threads, "settings": settings}


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def print_run(description: dict[str, Any]) -> None:
    """Write the description of a run as a few lines."""
    print("versions: " + ", ".join(f"{k} {v}" for k, v in description["versions"].items()))
    machine = description["machine"]
    threads = description["OMP_NUM_THREADS"]
    print(f"machine: {machine['processor']}, {machine['cores']} cores, {machine['system']}")
    print(f"OMP_NUM_THREADS: {threads}")
    print("settings: " + ", ".join(f"{k} {v}" for k, v in description["settings"].items()), flush=True)


def write_json(path: Path | None, content: Any) -> None:
    """Write the figures of a run, if a file was named."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1, default=_plain) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value)
