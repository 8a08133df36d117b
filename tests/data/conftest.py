"""Sources made of the bundled crystals: tables of any length, with and without damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crystal_tables import TableWriter, table_rows, write_rows
from hypothesis import settings

from nucleate.crystal import UnitCell
from nucleate.data.bundled import load_bundled

# How long an example takes says nothing here: the first one loads libraries, and the machine may be busy.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def cells() -> list[tuple[str, UnitCell]]:
    """Id and unit cell of each bundled crystal of at most 30 atoms."""
    return [(c.id, c.unit_cell) for c in load_bundled() if c.unit_cell.num_atoms <= 30]


@pytest.fixture
def write_source(tmp_path: Path, cells: list[tuple[str, UnitCell]]) -> TableWriter:
    """Writes a table of ``count`` good rows; ``change`` may alter the rows before."""

    def write(
        count: int = 60,
        *,
        name: str = "source.parquet",
        rows_per_task: int = 20,
        change: Callable[[list[dict[str, Any]]], None] | None = None,
    ) -> Path:
        rows = table_rows(cells, count)
        if change is not None:
            change(rows)
        return write_rows(tmp_path / name, rows, rows_per_task=rows_per_task)

    return write
