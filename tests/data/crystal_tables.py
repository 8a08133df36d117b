"""Tables of bundled crystals, of any length, to build stores from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nucleate.crystal import UnitCell

TableWriter = Callable[..., Path]


def table_rows(cells: Sequence[tuple[str, UnitCell]], count: int) -> list[dict[str, Any]]:
    """``count`` rows: the crystals again and again, a little larger each time, with properties."""
    rows = []
    for i in range(count):
        name, cell = cells[i % len(cells)]
        scale = 1 + 0.01 * (i // len(cells))
        rows.append(
            {
                "material_id": f"{name}-{i}",
                "numbers": cell.atomic_numbers.tolist(),
                "lattice": (cell.lattice * scale).ravel().tolist(),
                "frac_coords": cell.frac_coords.ravel().tolist(),
                "band_gap": None if i % 7 == 3 else 0.25 * i,
                "year": 1990 + i % 30,
                "stable": i % 2 == 0,
                "split": ("train", "train", "val", "test")[i % 4],
                "dielectric": (np.eye(3) * i).tolist(),
                "name": name,
            }
        )
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]], *, rows_per_task: int = 20) -> Path:
    """A Parquet table; each row group is a task of its own."""
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=rows_per_task)
    return path
