"""The candidates of a screening by row: one flat file, read where it is asked for, so that a million fit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nucleate.crystal import Crystal
from nucleate.data.folder import LocalFolder
from nucleate.data.property_values import property_kind, widen
from nucleate.energetics.records import crystal_from_json
from nucleate.errors import ScreeningError
from nucleate.evaluation.candidate_store import CandidateStore
from nucleate.evaluation.formula_index import NO_FORMULA, formula_keys
from nucleate.shapes import Bool, Int

_FILE, _INDEX = "pool.jsonl", "pool.npz"
_CRYSTAL = ("space_group_number", "lattice_params", "wyckoff_indices", "atomic_numbers", "free_coords")
_COLUMNS = ["id", "file", "problem", "given", "is_encoded", "bucket_key", "formula", *_CRYSTAL]


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
    """All candidates of a run with random access; about 40 bytes a candidate are in memory.

    Attributes:
        is_encoded: which rows are crystals.
        bucket_keys: hash of prototype and elements of each row, 0 where there is no crystal.
        formula_keys: hash of the reduced formula of each row, likewise.
        systems: number of each row's chemical system in the order of first appearance, -1 where there is none.
        given_kinds: kind of each property that came along (``data.property_values``).
    """

    def __init__(self, folder: Path) -> None:
        with np.load(folder / _INDEX, allow_pickle=False) as content:
            self._offsets: np.ndarray = content["offsets"]
            self.is_encoded: Bool[np.ndarray, "rows"] = content["is_encoded"]
            self.bucket_keys: Int[np.ndarray, "rows"] = content["bucket_keys"]
            self.formula_keys: Int[np.ndarray, "rows"] = content["formula_keys"]
            self.systems: Int[np.ndarray, "rows"] = content["systems"]
            self.given_kinds: dict[str, str] = json.loads(str(content["given_kinds"]))
            self.digest = str(content["digest"])
        self._path = folder / _FILE
        if self._path.stat().st_size != self._offsets[-1]:
            raise ValueError(f"{self._path} does not fit its index")

    @classmethod
    def of(cls, candidates: CandidateStore, folder: Path) -> CandidatePool:
        """The pool of these candidates, built where it is missing or of others.

        Raises:
            OSError: it cannot be written.
        """
        try:
            pool = cls(folder)
            if pool.digest == candidates.digest:
                return pool
        except (OSError, ValueError, KeyError, EOFError):
            pass
        _build(candidates, folder)
        return cls(folder)

    def __len__(self) -> int:
        """Number of candidates."""
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> PoolRecord:
        """The candidate of a row."""
        with self._path.open("rb") as file:
            file.seek(int(self._offsets[row]))
            line = file.read(int(self._offsets[row + 1] - self._offsets[row]))
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ScreeningError(
                f"{self._path} is damaged at row {row:,} ({error}): remove it and repeat the command"
            ) from error
        crystal = record["crystal"]
        record["crystal"] = None if crystal is None else crystal_from_json(crystal)
        return PoolRecord(**record)

    def ids(self) -> Iterator[str]:
        """Names of all candidates, in order."""
        with self._path.open("rb") as file:
            for line in file:
                yield json.loads(line)["id"]


def _build(candidates: CandidateStore, folder: Path) -> None:
    place = LocalFolder(folder)
    lengths: list[int] = []
    arrays: dict[str, list[np.ndarray]] = {"is_encoded": [], "bucket_keys": [], "formula_keys": []}
    systems: list[int] = []
    numbers: dict[frozenset[int], int] = {}
    kinds: dict[str, str] = {}
    seen: set[str] = set()
    with place.writing(_FILE) as path, path.open("wb") as file:
        for start, table in candidates.iter_columns(_COLUMNS):
            encoded = table.column("is_encoded").to_numpy(zero_copy_only=False)
            arrays["is_encoded"].append(encoded)
            for name, column in (("bucket_keys", "bucket_key"), ("formula_keys", "formula")):
                arrays[name].append(np.where(encoded, formula_keys(table.column(column)), NO_FORMULA))
            for row, cells in enumerate(table.to_pylist(), start):
                record = _record(cells, row, seen)
                for name, value in record["given"].items():
                    kind = widen([kinds.get(name), property_kind(value)])
                    if kind is not None:
                        kinds[name] = kind
                system = frozenset(cells["atomic_numbers"]) if cells["is_encoded"] else None
                systems.append(-1 if system is None else numbers.setdefault(system, len(numbers)))
                lengths.append(file.write(json.dumps(record, separators=(",", ":")).encode() + b"\n"))
    offsets = np.concatenate([[0], np.cumsum(np.array(lengths, dtype=np.int64))]).astype(np.int64)
    with place.writing(_INDEX) as path, path.open("wb") as file:
        np.savez(
            file,
            offsets=offsets,
            systems=np.array(systems, dtype=np.int32),
            given_kinds=np.array(json.dumps(kinds)),
            digest=np.array(candidates.digest),
            is_encoded=_joined(arrays["is_encoded"], np.bool_),
            bucket_keys=_joined(arrays["bucket_keys"], np.int64),
            formula_keys=_joined(arrays["formula_keys"], np.int64),
        )


def _joined(parts: list[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *parts])


def _record(cells: dict[str, Any], row: int, seen: set[str]) -> dict[str, Any]:
    name = cells["id"] if cells["id"] not in seen else f"{cells['id']}-{row}"
    while name in seen:
        name += "+"
    seen.add(name)
    return {
        "id": name,
        "file": cells["file"],
        "problem": cells["problem"],
        "given": json.loads(cells["given"]),
        "crystal": {key: cells[key] for key in _CRYSTAL} if cells["is_encoded"] else None,
    }
