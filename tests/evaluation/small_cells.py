"""Small test structures for structure prediction, and tables of them as anybody's generator writes them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nucleate.crystal import UnitCell, encode
from nucleate.data.bundled import load_bundled


@cache
def small_cells(count: int) -> dict[str, UnitCell]:
    """The first bundled crystals of two to four atoms, polymorphs among them, by id."""
    cells = {c.id: encode(c.unit_cell).crystal.unit_cell("primitive") for c in load_bundled()}
    return dict([(name, cell) for name, cell in cells.items() if 2 <= cell.num_atoms <= 4][:count])


def write_cells(path: Path, cells: dict[str, UnitCell], **columns: list[object]) -> Path:
    """A Parquet table of the cells with ``id``, ``numbers``, ``lattice``, ``frac_coords`` and the given columns."""
    table = {
        "id": list(cells),
        "numbers": [c.atomic_numbers.tolist() for c in cells.values()],
        "lattice": [c.lattice.ravel().tolist() for c in cells.values()],
        "frac_coords": [c.frac_coords.ravel().tolist() for c in cells.values()],
        **columns,
    }
    pq.write_table(pa.table(table), path)
    return path
