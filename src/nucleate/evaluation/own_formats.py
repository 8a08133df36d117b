"""Our own formats and structures in memory as sources: stores, folders of ``nucleate generate``, Python objects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nucleate.crystal import Crystal, UnitCell
from nucleate.crystal.convert import to_unit_cell
from nucleate.data.record import Provenance, Record, Rejection, Task
from nucleate.data.sources.dataset import Dataset, DatasetSource, reason_of
from nucleate.data.store import Store
from nucleate.errors import SourceError, StoreError

RECORDS_PER_TASK = 1000
_CRYSTAL_COLUMNS = (
    "space_group_asked",
    "lattice_params",
    "wyckoff_indices",
    "atomic_numbers",
    "free_coords",
)


def is_store(path: Path) -> bool:
    """Whether the folder is a store of encoded crystals."""
    return (path / "manifest.json").is_file() and (path / "shards").is_dir()


def is_run_folder(path: Path) -> bool:
    """Whether the folder is what ``nucleate generate`` leaves."""
    table = path / "crystals.parquet"
    if not (path / "run.json").is_file() or not table.is_file():
        return False
    try:
        return set(_CRYSTAL_COLUMNS) <= set(pq.read_schema(table).names)
    except (OSError, pa.ArrowException):
        return False


@dataclass(frozen=True)
class StoreSource(DatasetSource):
    """The records of a store, each in the cell it came in where frames are kept, else in its primitive cell.

    Attributes:
        path: folder or URL of the store.
        dataset: name, units, terms and citation.
    """

    path: str
    dataset: Dataset

    def tasks(self) -> Iterator[Task]:
        """Blocks of rows."""
        store = Store.open(self.path)
        for first in range(0, len(store), RECORDS_PER_TASK):
            count = min(RECORDS_PER_TASK, len(store) - first)
            yield Task(f"rows-{first}-{store.content_hash}", self.path, first, count)

    def read(self, task: Task) -> Iterator[Record | Rejection]:
        """The crystals of one block of rows."""
        store = Store.open(self.path)
        for row in range(task.first, task.first + (task.count or 0)):
            try:
                record = store[row]
                cell = store_cell(store, row)
            except StoreError as error:
                yield Rejection(self.path, row, None, reason_of(error))
                continue
            yield Record(record.id, cell, record.properties, {}, record.provenance)


def store_cell(store: Store, index: int) -> UnitCell:
    """The source's own cell where the store keeps frames, else the primitive cell of the crystal."""
    if store.manifest.encoding.get("keep_frame"):
        return store.encoded(index).unit_cell()
    return store.crystal(index).unit_cell("primitive")


@dataclass(frozen=True)
class RunFolder(DatasetSource):
    """The crystals of a folder of ``nucleate generate``, to the last bit, with what was asked for.

    Beside the columns of its table each crystal carries ``formula_asked``, ``space_group_asked`` and every
    other part of the condition as ``NAME_asked``.

    Attributes:
        path: the folder.
        dataset: name, units, terms and citation.
    """

    path: str
    dataset: Dataset

    def tasks(self) -> Iterator[Task]:
        """Blocks of rows of ``crystals.parquet``."""
        table = f"{self.path}/crystals.parquet"
        try:
            total = pq.read_metadata(table).num_rows
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"{table} cannot be read: {error}") from error
        for first in range(0, total, RECORDS_PER_TASK):
            yield Task(f"rows-{first}", table, first, min(RECORDS_PER_TASK, total - first))

    def read(self, task: Task) -> Iterator[Record | Rejection]:
        """The crystals of one block of rows."""
        asked = condition_asked(Path(self.path))
        end, row = task.first + (task.count or 0), 0
        with pq.ParquetFile(task.file) as table:
            for batch in table.iter_batches(RECORDS_PER_TASK):
                if row + batch.num_rows > task.first and row < end:
                    inside = slice(max(task.first - row, 0), end - row)
                    for offset, cells in enumerate(batch.to_pylist()[inside], row + inside.start):
                        yield self._record(task.file, offset, cells, asked)
                row += batch.num_rows

    def _record(
        self, file: str, row: int, cells: Mapping[str, Any], asked: Mapping[str, Any]
    ) -> Record | Rejection:
        name = str(cells.get("id") or f"row-{row}")
        try:
            crystal = Crystal(
                int(cells["space_group_asked"]),
                np.array(cells["lattice_params"], dtype=np.float64),
                np.array(cells["wyckoff_indices"], dtype=np.int64),
                np.array(cells["atomic_numbers"], dtype=np.int64),
                np.array(cells["free_coords"], dtype=np.float64).reshape(-1, 3),
            )
            cell = crystal.unit_cell("primitive")
        except Exception as error:
            # Foreign values in our own format are still foreign: the reason of this row, not the end.
            return Rejection(file, row, name, reason_of(error))
        structural = {"id", *_CRYSTAL_COLUMNS} - {"space_group_asked"}
        given = {key: value for key, value in cells.items() if key not in structural}
        return self.dataset.record(name, cell, properties={**asked, **given}, file=file, row=row)


def run_seconds(path: Path) -> float | None:
    """Seconds the generation in a folder took, None where ``run.json`` does not state all of them."""
    try:
        seconds = json.loads((path / "run.json").read_text(encoding="utf-8"))["seconds"]
        return None if seconds is None else float(seconds)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def condition_asked(path: Path) -> dict[str, Any]:
    """What the condition in ``run.json`` asks, under the names that families read.

    ``formula_asked``, ``chemical_system_asked`` (``Li-Fe-O``), ``elements_asked`` (the only ones that may occur),
    ``required_elements_asked``, ``excluded_elements_asked``, ``num_atoms_asked`` (``4-12``), properties by their own
    names (a number, or ``[low, high]`` as text, which is no target), and any other part as ``NAME_asked``.
    """
    try:
        condition = json.loads((path / "run.json").read_text(encoding="utf-8"))["asked"]["condition"]
        given = {name: value for name, value in condition.items() if value not in (None, [], {}, "", False)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    properties = given.pop("properties", None)
    for name, value in properties.items() if isinstance(properties, Mapping) else ():
        given[name] = json.dumps(value) if isinstance(value, list) else value
    names = {"allowed": "elements", "elements": "required_elements", "excluded": "excluded_elements"}
    return {f"{names.get(name, name)}_asked": _as_asked(value) for name, value in given.items()}


def _as_asked(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(item, int | str) for item in value):
        return "-".join(map(str, value))
    return value if isinstance(value, int | float | str) else json.dumps(value)


@dataclass(frozen=True)
class GivenStructures:
    """Structures in memory as a source: pymatgen Structures, ASE Atoms, UnitCells, Crystals, CIF or POSCAR text.

    Attributes:
        structures: the objects; one that cannot be converted becomes a rejection.
        name: stands for the file in messages.
        licence: unknown.
        units: none.
    """

    structures: Sequence[Any]
    name: str = "structures"
    licence: str | None = None
    units: Mapping[str, str] = field(default_factory=dict)

    def tasks(self) -> Iterator[Task]:
        """Blocks of structures, which travel inside their task."""
        for first in range(0, len(self.structures), RECORDS_PER_TASK):
            items = [
                self._convert(i, s) for i, s in enumerate(self.structures[first:][:RECORDS_PER_TASK], first)
            ]
            state = hashlib.blake2b(digest_size=16)
            for item in items:
                if isinstance(item, Record):
                    cell = item.structure
                    for array in (cell.lattice, cell.frac_coords, cell.atomic_numbers):
                        state.update(np.ascontiguousarray(array).tobytes())
                else:
                    state.update(item.reason.encode())
            key = f"structures-{first}-{state.hexdigest()}"
            yield Task(key, self.name, first, len(items), {"items": tuple(items)})

    def read(self, task: Task) -> Iterator[Record | Rejection]:
        """The structures of one block."""
        yield from task.details["items"]

    def _convert(self, index: int, structure: Any) -> Record | Rejection:
        try:
            if isinstance(structure, Crystal):
                structure = structure.unit_cell("primitive")
            cell = structure if isinstance(structure, UnitCell) else to_unit_cell(structure)
        except Exception as error:
            # Whatever an object of somebody else's does when it is read is this structure's reason.
            return Rejection(self.name, index, None, reason_of(error))
        return Record(str(index), cell, {}, {}, Provenance(self.name, self.name, index))
