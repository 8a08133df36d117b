"""The candidates of a screening by row: one flat file, read where it is asked for, so that a million fit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nucleate.crystal import Crystal
from nucleate.data.folder import LocalFolder
from nucleate.data.property_values import property_kind, widen
from nucleate.energetics.records import crystal_from_json
from nucleate.errors import ScreeningError
from nucleate.evaluation.candidate_store import CandidateStore, Part
from nucleate.evaluation.workers import Workers
from nucleate.screening.parcels import map_in_parcels
from nucleate.shapes import Bool, Int

_FILE, _INDEX = "pool.jsonl", "pool.npz"
_ID = b'{"id":"'
_JSON = json.JSONDecoder()
_PARTS = 4  # of the store, in one message to a worker: 1024 candidates
_CRYSTAL = ("space_group_number", "lattice_params", "wyckoff_indices", "atomic_numbers", "free_coords")
_COLUMNS = ["id", "file", "problem", "given", "is_encoded", *_CRYSTAL]


@dataclass(frozen=True, eq=False)
class PoolRecord:
    """One candidate as it came.

    Attributes:
        id: its name, unique in the pool: a name that came before has its row added.
        file: where it came from.
        problem: why there is no crystal; empty otherwise.
        given: values that came along.
        crystal: the encoded crystal, None where there is none.
    """

    id: str
    file: str
    problem: str
    given: dict[str, Any]
    crystal: Crystal | None


class CandidatePool:
    """All candidates of a run with random access; about 12 bytes a candidate are in memory.

    Attributes:
        is_encoded: which rows are crystals.
        systems: number of each row's chemical system in the order of first appearance, -1 where there is none.
        given_kinds: kind of each property that came along (``data.property_values``).
    """

    def __init__(self, folder: Path) -> None:
        with np.load(folder / _INDEX, allow_pickle=False) as content:
            self._offsets: np.ndarray = content["offsets"]
            self.systems: Int[np.ndarray, "rows"] = content["systems"]
            self.is_encoded: Bool[np.ndarray, "rows"] = self.systems >= 0
            self.given_kinds: dict[str, str] = json.loads(str(content["given_kinds"]))
            self.digest = str(content["digest"])
        self._path = folder / _FILE
        if self._path.stat().st_size != self._offsets[-1]:
            raise ValueError(f"{self._path} does not fit its index")

    @classmethod
    def of(cls, candidates: CandidateStore, folder: Path, workers: Workers) -> CandidatePool:
        """The pool of these candidates, built by the workers where it is missing or of others.

        Raises:
            OSError: it cannot be written.
        """
        try:
            pool = cls(folder)
            if pool.digest == candidates.digest:
                return pool
        except (OSError, ValueError, KeyError, EOFError):
            pass
        _build(candidates, folder, workers)
        return cls(folder)

    def __len__(self) -> int:
        """Number of candidates."""
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> PoolRecord:
        """The candidate of a row."""
        record = self._parsed(row, self.line(row))
        crystal = record["crystal"]
        record["crystal"] = None if crystal is None else crystal_from_json(crystal)
        return PoolRecord(**record)

    def line(self, row: int) -> bytes:
        """The candidate of a row as JSON."""
        return next(self.lines([row]))

    def lines(self, rows: Iterable[int]) -> Iterator[bytes]:
        """The candidates of rows as JSON, in the order asked for.

        Raises:
            ScreeningError: the file is damaged.
        """
        with self._path.open("rb") as file:
            position = -1
            for row in rows:
                start, end = int(self._offsets[row]), int(self._offsets[row + 1])
                if start != position:
                    file.seek(start)
                line = file.read(end - start)
                position = end
                if not (line.startswith(_ID) and line.endswith(b"}\n")):
                    self._parsed(row, line)
                yield line

    def names(self, rows: Iterable[int]) -> Iterator[str]:
        """Names of the candidates of rows, in the order asked for."""
        return map(_name, self.lines(rows))

    def ids(self) -> Iterator[str]:
        """Names of all candidates, in order."""
        with self._path.open("rb") as file:
            for line in file:
                yield _name(line)

    def _parsed(self, row: int, line: bytes) -> dict[str, Any]:
        try:
            record = json.loads(line)
            if list(record)[:1] != ["id"]:
                raise ValueError("it does not begin with the id")
        except ValueError as error:
            raise ScreeningError(
                f"{self._path} is damaged at row {row:,} ({error}): remove it and repeat the command"
            ) from error
        return record


def _name(line: bytes) -> str:
    """The id of a line, whose first field it is; the rest is not read."""
    name, _ = _JSON.raw_decode(line.decode(), len(_ID) - 1)
    return name


@dataclass(frozen=True, eq=False)
class _Lines:
    """Candidates of some parts of a store, as a worker gives them.

    Attributes:
        ids: their names, as the source has them.
        lines: their lines.
        systems: the elements of each as bytes, ascending; empty where there is no crystal.
        kinds: kind of each property that came along.
    """

    ids: list[str]
    lines: list[bytes]
    systems: list[bytes]
    kinds: dict[str, str]


def _build(candidates: CandidateStore, folder: Path, workers: Workers) -> None:
    place = LocalFolder(folder)
    lengths: list[int] = []
    systems: list[int] = []
    numbers: dict[bytes, int] = {}
    kinds: dict[str, str] = {}
    seen: set[str] = set()
    parts = candidates.parts
    tasks = [parts[first : first + _PARTS] for first in range(0, len(parts), _PARTS)]
    with place.writing(_FILE) as path, path.open("wb") as file:
        for found in map_in_parcels(workers, partial(_lines, candidates.location), tasks):
            for name, line in zip(found.ids, found.lines):
                unique = _unique(name, len(lengths), seen)
                if unique != name:
                    line = _line({**json.loads(line), "id": unique})
                lengths.append(file.write(line))
            systems += [
                numbers.setdefault(system, len(numbers)) if system else -1 for system in found.systems
            ]
            _widen(kinds, found.kinds)
    offsets = np.concatenate([[0], np.cumsum(np.array(lengths, dtype=np.int64))]).astype(np.int64)
    with place.writing(_INDEX) as path, path.open("wb") as file:
        np.savez(
            file,
            offsets=offsets,
            systems=np.array(systems, dtype=np.int32),
            given_kinds=np.array(json.dumps(kinds)),
            digest=np.array(candidates.digest),
        )


def _lines(location: str, parts: Sequence[Part]) -> _Lines:
    """The lines of some parts of a store of candidates."""
    found = _Lines([], [], [], {})
    for _, table in CandidateStore(location, parts).iter_columns(_COLUMNS):
        for cells in table.to_pylist():
            is_crystal = cells["is_encoded"]
            record = {name: cells[name] for name in ("id", "file", "problem")}
            record["given"] = json.loads(cells["given"])
            record["crystal"] = {name: cells[name] for name in _CRYSTAL} if is_crystal else None
            _widen(found.kinds, {name: property_kind(value) for name, value in record["given"].items()})
            found.ids.append(cells["id"])
            found.lines.append(_line(record))
            found.systems.append(bytes(sorted(set(cells["atomic_numbers"]))) if is_crystal else b"")
    return found


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def _widen(kinds: dict[str, str], more: Mapping[str, str | None]) -> None:
    """Take in the kinds of properties of more candidates."""
    for name, kind in more.items():
        widened = widen([kinds.get(name), kind])
        if widened is not None:
            kinds[name] = widened


def _unique(name: str, row: int, seen: set[str]) -> str:
    """The name, with its row where it came before; it counts as seen."""
    unique = name if name not in seen else f"{name}-{row}"
    while unique in seen:
        unique += "+"
    seen.add(unique)
    return unique
